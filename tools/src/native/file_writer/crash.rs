//! Stops the writer after each of its steps, and runs the same call again.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::confine::{Granted, open_root};

const CRASH: &str = "crash";

#[test]
fn a_new_file_has_the_same_end_wherever_the_first_run_stopped() {
    check(&json!({ "mode": "create_new", "parents": true }), |_| ());
}

#[test]
fn a_replaced_file_has_the_same_end_wherever_the_first_run_stopped() {
    check(&json!({ "parents": true }), with_old);
}

#[test]
fn an_expected_file_has_the_same_end_wherever_the_first_run_stopped() {
    let expect = blake3::hash(b"old").to_hex();
    check(&json!({ "expect_blake3": expect.as_str() }), with_old);
}

#[test]
fn another_call_with_the_same_content_does_not_pass_for_the_first() {
    let tree = tempfile::tempdir().expect("a folder");
    let arguments = arguments(&json!({ "mode": "create_new", "parents": true }));
    run(tree.path(), &arguments, 1, None).expect("the first");
    run(tree.path(), &arguments, 1, None).expect("the first again");
    assert_eq!(run(tree.path(), &arguments, 2, None), Err(EXISTS));

    let expect = blake3::hash(content().as_bytes()).to_hex();
    let swap = self::arguments(&json!({ "expect_blake3": expect.as_str(), "content": "6" }));
    run(tree.path(), &swap, 3, None).expect("the first swap");
    run(tree.path(), &swap, 3, None).expect("the first swap again");
    assert_eq!(run(tree.path(), &swap, 4, None), Err(CHANGED));
}

/// Runs the call to its `n`-th step and then whole, for every `n`.
fn check(options: &Value, prepare: impl Fn(&Path)) {
    let arguments = arguments(options);
    for stop in 0.. {
        let tree = tempfile::tempdir().expect("a folder");
        prepare(tree.path());
        let mode = fs::metadata(target(tree.path())).map_or(0o644, |target| target.permissions().mode());
        let crashed = run(tree.path(), &arguments, 1, Some(stop)) == Err(CRASH);
        let seen = fs::read(target(tree.path())).ok();
        assert!(seen.as_deref().is_none_or(|seen| seen == b"old" || seen == content().as_bytes()), "torn at {stop}");

        run(tree.path(), &arguments, 1, None).expect("the second run");
        let written = fs::metadata(target(tree.path())).expect("the file");
        assert_eq!(fs::read(target(tree.path())).expect("the file"), content().as_bytes(), "stopped at {stop}");
        assert_eq!(written.permissions().mode() & 0o7777, mode & 0o777, "stopped at {stop}");
        let names = fs::read_dir(tree.path().join("granted/a")).expect("the folder").count();
        assert_eq!(names, 1, "something is left behind, stopped at {stop}");
        if !crashed {
            assert!(stop >= 4, "only {stop} steps");
            return;
        }
    }
}

fn with_old(tree: &Path) {
    fs::create_dir_all(tree.join("granted/a")).expect("a folder");
    fs::write(target(tree), "old").expect("a file");
    fs::set_permissions(target(tree), fs::Permissions::from_mode(0o4750)).expect("its mode");
}

fn target(tree: &Path) -> std::path::PathBuf {
    tree.join("granted/a/f")
}

/// More than one chunk.
fn content() -> String {
    "new ".repeat(CHUNK / 2)
}

fn arguments(options: &Value) -> Value {
    let mut arguments = json!({ "path": "work:granted/a/f", "content": content() });
    for (name, value) in options.as_object().expect("an object") {
        arguments[name] = value.clone();
    }
    arguments
}

fn run(tree: &Path, arguments: &Value, call: u8, stop: Option<usize>) -> Result<(), &'static str> {
    fs::create_dir_all(tree.join("granted")).expect("a folder");
    let root = open_root(tree).expect("the root");
    let granted = Granted { segments: &["granted"], exact: false };
    let handed = Handed::open(root.as_fd(), granted, "work:granted/a/f", Ops::CREATE | Ops::WRITE).expect("the prefix");
    let dirs = BTreeMap::from([("/path".to_owned(), handed)]);
    let request = Request { call_id: CallId([call; 32]), time_us: 0, arguments, dirs: &dirs };
    let control = AtomicBool::new(false);
    if stop.is_none() {
        return FileWriter::new().run(&request, &control).map(drop).map_err(|failure| failure.symbol);
    }
    let mut steps = 0;
    let mut after = |_| {
        steps += 1;
        if Some(steps - 1) == stop { Err(ToolFailure::new(CRASH, "")) } else { Ok(()) }
    };
    let symbol = |failure: ToolFailure| failure.symbol;
    let job = Job::of(&request, &control).map_err(symbol)?;
    let parent = job.parent(&mut after).map_err(symbol)?;
    job.put(&parent, &mut after).map_err(symbol)
}
