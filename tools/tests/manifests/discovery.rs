//! Finding manifests below a folder.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use toka_tools::files::FileCode;
use toka_tools::{DISCOVERY_DEPTH_MAX, DISCOVERY_ENTRIES_MAX, Discovery, MANIFEST_BYTES_MAX, discover, open_root};

fn put(folder: &Path, path: &str, name: &str) {
    let path = folder.join(path);
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    let text = format!(
        "apiVersion: toka/v1\nkind: Tool\nmetadata: {{ name: {name}, version: 1.0.0, description: Does it. }}\n\
         spec: {{ run: {{ kind: python, path: main.py }} }}\n"
    );
    fs::write(path.with_file_name("main.py"), "pass").expect("written");
    fs::write(path, text).expect("written");
}

fn found(folder: &Path) -> Discovery {
    let dir = open_root(folder).expect("a folder");
    discover(dir.as_fd(), "top", None)
}

/// Names and codes of everything that is wrong.
fn errors(folder: &Path) -> Vec<(String, FileCode)> {
    found(folder).errors.into_iter().map(|error| (error.file, error.code)).collect()
}

#[test]
fn manifests_are_found_in_the_order_of_their_paths() {
    let scratch = tempfile::tempdir().expect("a folder");
    let top = scratch.path();
    for (path, name) in [("b.tool.yaml", "b"), ("a/x.tool.yaml", "x"), ("a-b/y.tool.yaml", "y"), ("a.tool.yaml", "a")] {
        put(top, path, name);
    }
    for path in [".hidden/h.tool.yaml", "target/t.tool.yaml", "node_modules/n.tool.yaml", "c/.h.tool.yaml"] {
        put(top, path, "h");
    }
    fs::write(top.join("c/notes.yaml"), "not: a manifest").expect("written");
    symlink("a", top.join("loop")).expect("linked");
    symlink("../b.tool.yaml", top.join("c/linked.tool.yaml")).expect("linked");
    let manifests = found(top).whole().expect("all good");
    let paths: Vec<&str> = manifests.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["a-b/y.tool.yaml", "a.tool.yaml", "a/x.tool.yaml", "b.tool.yaml"]);
    let names: Vec<&str> = manifests.iter().map(|(_, manifest)| manifest.spec.name.as_str()).collect();
    assert_eq!(names, ["y", "a", "x", "b"]);
}

#[test]
fn everything_that_is_wrong_is_told_and_what_is_good_is_kept() {
    let scratch = tempfile::tempdir().expect("a folder");
    let top = scratch.path();
    put(top, "good.tool.yaml", "good");
    put(top, "twin.tool.yaml", "good");
    put(top, "x/new\nline \u{202e}.tool.yaml", "Bad");
    fs::write(top.join("x/huge.tool.yaml"), vec![b'#'; MANIFEST_BYTES_MAX + 2]).expect("written");
    mknodat(CWD, top.join("pipe.tool.yaml"), FileType::Fifo, Mode::RUSR, 0).expect("a pipe");
    fs::create_dir(top.join("dir.tool.yaml")).expect("made");
    fs::write(top.join(std::ffi::OsStr::from_bytes(b"\xff.tool.yaml")), "").expect("written");
    let all = found(top);
    let mut told: Vec<(String, FileCode, u32)> =
        all.errors.iter().map(|error| (error.file.clone(), error.code, error.line)).collect();
    told.sort();
    let mut expected = vec![
        ("top/pipe.tool.yaml".to_owned(), FileCode::NotRegular, 1),
        ("top/twin.tool.yaml".to_owned(), FileCode::DuplicateName, 3),
        ("top/x/huge.tool.yaml".to_owned(), FileCode::TooLarge, 1),
        ("top/x/new\\u{a}line \\u{202e}.tool.yaml".to_owned(), FileCode::BadName, 3),
        ("top/\u{fffd}.tool.yaml".to_owned(), FileCode::BadPath, 1),
    ];
    expected.sort();
    assert_eq!(told, expected);
    let kept: Vec<&str> = all.manifests.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(kept, ["good.tool.yaml"]);
    assert!(all.whole().is_err());
}

#[test]
fn as_many_levels_as_may_be_are_walked_and_no_more() {
    let scratch = tempfile::tempdir().expect("a folder");
    let below = |levels: usize| "d/".repeat(levels) + "t.tool.yaml";
    put(scratch.path(), &below(DISCOVERY_DEPTH_MAX - 1), "t");
    assert_eq!(found(scratch.path()).whole().expect("within").len(), 1);
    put(scratch.path(), &below(DISCOVERY_DEPTH_MAX), "u");
    let wrong = errors(scratch.path());
    assert_eq!(wrong.len(), 1);
    assert_eq!(wrong[0].1, FileCode::TooDeep);
}

#[test]
fn as_many_names_as_may_be_are_looked_at_and_no_more() {
    let scratch = tempfile::tempdir().expect("a folder");
    put(scratch.path(), "t.tool.yaml", "t");
    for count in 2..DISCOVERY_ENTRIES_MAX {
        fs::write(scratch.path().join(format!("f{count}")), "").expect("written");
    }
    assert_eq!(found(scratch.path()).whole().expect("within").len(), 1);
    fs::write(scratch.path().join("one-more"), "").expect("written");
    assert_eq!(errors(scratch.path()), [("top".to_owned(), FileCode::TooMany)]);
}
