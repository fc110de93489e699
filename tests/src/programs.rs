//! The shipped programs, built and found beside the tests.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// The path of a shipped program (`toka`, `toka-replay`) or of a test program (`counted-run`), built from this tree.
///
/// A test run that has built them already says so with `TOKA_TEST_BUILT`.
pub fn program(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let test = std::env::current_exe().expect("a test knows its own path");
        let deps = test.parent().expect("a test lies in a folder");
        let folder = if deps.ends_with("deps") { deps.parent().expect("deps lies in a folder") } else { deps };
        if std::env::var_os("TOKA_TEST_BUILT").is_none() {
            let mut build = Command::new(env!("CARGO"));
            build.args(["build", "--workspace", "--bins", "--quiet"]).current_dir(env!("CARGO_MANIFEST_DIR"));
            if folder.ends_with("release") {
                build.arg("--release");
            }
            assert!(build.status().expect("cargo runs").success(), "the programs do not build");
        }
        folder.to_owned()
    });
    let path = folder.join(name);
    assert!(path.exists(), "{} is not built; run `cargo build --release --workspace --bins`", path.display());
    path
}
