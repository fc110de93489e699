//! `toka demo`: the numbers it promises, and what it leaves behind.

use std::fs;

use serde_json::Value;

use crate::cli::{Desk, Ran};

/// Runs the demo where its scratch files can be counted.
fn demo(desk: &Desk, args: &[&str]) -> Ran {
    fs::create_dir_all(desk.at("scratch")).expect("a folder");
    let args: Vec<&str> = ["demo"].iter().chain(args).copied().collect();
    desk.ran_with("toka", &args, &[("TMPDIR", &desk.text("scratch"))])
}

fn left_behind(desk: &Desk) -> usize {
    fs::read_dir(desk.at("scratch")).expect("a folder").count()
}

#[test]
fn the_demo_finds_what_was_planted_and_every_attack() {
    let desk = Desk::empty();
    let ran = demo(&desk, &["--json"]);
    ran.expect(0);
    let numbers: Value = serde_json::from_str(&ran.out).expect("one JSON document");
    let told = |name: &str| numbers[name].as_u64().unwrap_or_else(|| panic!("{name} in {numbers}"));
    let promised = [
        ("planted", 5),
        ("found", 5),
        ("refused", 2),
        ("stopped", 2),
        ("repeated", 0),
        ("attacks", 5),
        ("attacks_found", 5),
    ];
    for (name, number) in promised {
        assert_eq!(told(name), number, "{name} in {numbers}");
    }
    assert_eq!(numbers["schema"], "toka/demo/1");
    assert_eq!(numbers["verified"], 2);
    assert!(told("answers") > 0 && told("answers") == told("answers_again"), "{numbers}");
    assert!(told("entries") > told("killed_at"), "{numbers}");
    assert_eq!(left_behind(&desk), 0);
    assert!(!desk.at("home").exists(), "it leaves the node of its user alone");
}

#[test]
fn the_demo_keeps_its_files_when_asked_to() {
    let desk = Desk::empty();
    let ran = demo(&desk, &["--keep", "kept"]);
    ran.expect(0);
    let summary = ran.out.lines().find(|line| line.contains("of 5 faults found")).expect("a summary");
    let promised = "5 of 5 faults found, 2 requests refused, 2 programs stopped by their jail, 0 finished calls repeated, \
                    5 of 5 attacks found; ";
    assert!(summary.starts_with(promised), "{summary}");
    assert_eq!(left_behind(&desk), 0);

    let elsewhere = Desk::empty();
    fs::copy(desk.at("kept/session.tkb"), elsewhere.at("session.tkb")).expect("a copy");
    fs::copy(desk.at("kept/home/keys/root.pub"), elsewhere.at("root.pub")).expect("a copy");
    let verified = elsewhere.ran("toka-replay", &["verify", "session.tkb", "--root", "root.pub"]);
    verified.expect(0);

    // Every call of it, and the refusal, leads back to the root key.
    for kind in ["CallAdmitted", "Refused"] {
        let shown = elsewhere.ran("toka-replay", &["show", "session.tkb", "--kind", kind, "--json"]);
        let entries = shown.expect(0).json_lines();
        assert!(!entries.is_empty(), "{shown}");
        for entry in entries {
            let seq = entry["seq"].to_string();
            let why = elsewhere.ran("toka-replay", &["why", "session.tkb", &seq, "--root", "root.pub", "--json"]);
            assert!(why.expect(0).out.contains("\"kind\":\"root-key\""), "{why}");
        }
    }

    // What it says to do next can be done.
    let next: Vec<&str> = ran.out.lines().skip_while(|line| *line != "next:").skip(1).collect();
    assert_eq!(next.len(), 3, "{ran}");
    for line in next {
        let words: Vec<&str> = line.split_whitespace().collect();
        desk.toka(&words[1..]).expect(0);
    }
}

#[test]
fn the_demo_writes_over_nothing() {
    let desk = Desk::empty();
    desk.write("kept/mine.txt", "mine");
    let ran = demo(&desk, &["--keep", "kept"]);
    insta::assert_snapshot!(ran.to_string(), @r"
    $ toka demo --keep kept
    --- stderr
    error: kept: File exists (os error 17)
    hint: name a folder that does not exist
    --- exit 1
    ");
    assert_eq!(fs::read_dir(desk.at("kept")).expect("a folder").count(), 1);
    assert_eq!(left_behind(&desk), 0);
}
