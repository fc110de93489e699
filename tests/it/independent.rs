//! A second verifier, written in Python from docs/FORMAT.md: what the page says is enough, and both say the same.

use std::path::{Path, PathBuf};
use std::process::Command;

use toka_tests::programs::program;

use crate::cli::models::{Told, agent, script};
use crate::cli::{Desk, agents};

/// An interpreter with the packages of `tests/independent`, where one was named.
fn python() -> Option<PathBuf> {
    std::env::var_os("TOKA_TEST_INDEPENDENT_PYTHON").map(PathBuf::from)
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("independent")
}

/// The exit codes of `toka-replay verify` and of the second verifier.
fn both(python: &Path, bundle: &Path, root: &Path) -> (Option<i32>, Option<i32>) {
    let ours = Command::new(program("toka-replay")).arg("verify").arg(bundle).arg("--root").arg(root).output();
    let mut theirs = Command::new(python);
    theirs.arg("-B").arg(folder().join("verify.py")).arg(bundle).arg("--root-key-file").arg(root);
    (ours.expect("it runs").status.code(), theirs.output().expect("it runs").status.code())
}

#[test]
fn both_verifiers_find_what_no_key_was_needed_for_and_what_the_event_key_did() {
    let Some(python) = python() else { return };
    let cases = folder().join("cases");
    for (name, exit) in [
        ("honest", 0),
        ("system-session-cut", 3),
        ("other-end-than-registered", 3),
        ("never-registered", 3),
        ("blob-that-nobody-names", 0),
    ] {
        let found = both(&python, &cases.join(format!("{name}.tkb")), &cases.join("root.pub"));
        assert_eq!(found, (Some(exit), Some(exit)), "{name}");
    }
}

#[test]
fn both_verifiers_say_the_same_of_changed_bundles() {
    const TURNS: &str = "  solo:\n    - reply: { calls: [ { tool: file-reader, arguments: { path: \"project:docs/guide.md\" } }, { tool: nothing, arguments: {} } ] }\n    - reply: { calls: [ { tool: agent.finish, arguments: { result: 1 } } ] }\n";
    let Some(python) = python() else { return };
    let desk = Desk::with_node();
    desk.write("agent.yaml", agent("solo", "", ""));
    desk.write("model.yaml", script(TURNS));
    let run = ["run", "agent.yaml", "--root", "project=project", "--grant-requested"];
    let told = Told::of(desk.toka(&[&run[..], &["--model-script", "model.yaml", "--json"]].concat()));
    told.ran.expect(0);
    let by_model = told.end["session"].as_str().expect("a session").to_owned();
    let by_script = desk.session(&agents::reader(agents::GUIDE));
    desk.write("bundles/root.pub", std::fs::read(desk.at("home/keys/root.pub")).expect("a key"));
    for (session, name) in [(&by_model, "by-model.tkb"), (&by_script, "by-script.tkb")] {
        desk.toka(&["sessions", "export", session, "-o", &format!("bundles/{name}")]).expect(0);
        let found = both(&python, &desk.at(&format!("bundles/{name}")), &desk.at("bundles/root.pub"));
        assert_eq!(found, (Some(0), Some(0)), "{name}");
    }
    // The full counts flip every byte as well.
    let long = std::env::var("TOKA_TEST_KILLS").is_ok_and(|kills| kills.parse::<usize>().expect("a number") >= 500);
    let counts: &[&str] = if long { &["--edits", "10000"] } else { &["--edits", "150", "--no-flips"] };
    let mut attack = Command::new(python);
    attack.arg("-B").arg(folder().join("attack.py")).arg(desk.at("bundles")).arg(program("toka-replay")).args(counts);
    let output = attack.arg("--home").arg(desk.at("home")).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
}
