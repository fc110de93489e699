//! The files of the tree, as git sees them: what is committed, and what is about to be.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Folders of the crates that are shipped.
const SHIPPED: [&str; 6] = ["kernel/", "store/", "projections/", "tools/", "runtime/", "replay/"];

/// The top of the tree.
pub(crate) fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the tree").to_owned())
}

/// Every file, relative to the top.
pub(crate) fn files() -> impl Iterator<Item = String> {
    static FILES: OnceLock<Vec<String>> = OnceLock::new();
    let list = || {
        let output = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root())
            .output()
            .expect("git lists the files");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let names = String::from_utf8(output.stdout).expect("names are UTF-8");
        let mut files: Vec<String> = names.split_terminator('\0').map(str::to_owned).collect();
        files.retain(|file| root().join(file).exists());
        files.sort();
        files.dedup();
        assert!(files.len() > 100, "the tree has lost its files: {files:?}");
        files
    };
    FILES.get_or_init(list).iter().cloned()
}

/// Every folder, relative to the top.
pub(super) fn folders() -> Vec<String> {
    let above = |file: String| {
        let folders = Path::new(&file).ancestors().skip(1).map(|folder| folder.display().to_string());
        folders.filter(|folder| !folder.is_empty()).collect::<Vec<_>>()
    };
    let mut folders: Vec<String> = files().flat_map(above).collect();
    folders.sort();
    folders.dedup();
    folders
}

/// Every source file.
pub(super) fn sources() -> impl Iterator<Item = String> {
    files().filter(|file| file.ends_with(".rs"))
}

/// The source files that end in what is shipped; what builds it, as `build.rs` beside a manifest does, is not.
pub(super) fn shipped() -> impl Iterator<Item = String> {
    let is_test = |file: &String| ["/tests/", "/benches/", "/examples/"].iter().any(|folder| file.contains(folder));
    let builds = |file: &String| file.ends_with("/build.rs") && !file.contains("/src/");
    let is_shipped = |file: &String| SHIPPED.iter().any(|folder| file.starts_with(folder));
    sources().filter(move |file| is_shipped(file) && !is_test(file) && !builds(file))
}

/// The text of a file.
pub(crate) fn text(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Lines of `files` for which `is_wrong` holds, as `file:line: text`.
pub(super) fn lines(files: impl Iterator<Item = String>, is_wrong: impl Fn(&str, &str) -> bool) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in files {
        let Ok(text) = fs::read_to_string(root().join(&file)) else { continue };
        for (number, line) in (1..).zip(text.lines()) {
            if is_wrong(&file, line) {
                wrong.push(format!("{file}:{number}: {}", line.trim()));
            }
        }
    }
    wrong
}

/// Fails if anything is wrong, with what to do about it.
#[track_caller]
pub(super) fn none(wrong: &[String], what_to_do: &str) {
    assert!(wrong.is_empty(), "{what_to_do}\n{}", wrong.join("\n"));
}
