//! `kill -9` at any moment: nothing acknowledged is lost, nothing finished runs again, and the agent goes on.
//!
//! `TOKA_TEST_KILLS` says how many rounds, 40 where it is not set.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use toka_kernel::ids::SessionId;
use toka_kernel::{Body, Entry};
use toka_store::{ReadLog, SqliteReader};
use toka_tests::programs::program;

const AGENT: &str = r#"
apiVersion: toka/v1
kind: Agent
metadata: { name: worker, version: 1.0.0 }
spec:
  tools: [ file-lister, counter, file-writer ]
  capabilities: [ "fs:project/**#create,list,read,write", "tool:*" ]
  budget: { calls: 1000, wall: 1h }
  program:
    script:
      steps:
        - { id: files, call: { tool: file-lister, args: { path: "project:in" } } }
        - id: each
          for_each:
            in: { ref: steps.files.output, pointer: /entries }
            as: file
            steps:
              - { id: count, call: { tool: counter, args: { path: { ref: file, pointer: /path } } } }
              - { id: note, call: { tool: file-writer, args: { path: "project:out.txt", content: { ref: file, pointer: /path } } } }
"#;
const FILES: usize = 30;

/// What one run said before it ended or was killed.
#[derive(Default)]
struct Said {
    entries: BTreeMap<u64, String>,
    finished: BTreeSet<String>,
    done: bool,
}

/// Runs until the `kill_after`-th line, then kills with SIGKILL. What was in the pipe by then was said, too.
fn run(args: &[&str], kill_after: usize) -> Said {
    let mut child = Command::new(program("counted-run"))
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("spawns");
    let out = child.stdout.take().expect("piped");
    let mut said = Said::default();
    for (number, line) in (1..).zip(BufReader::new(out).lines()) {
        // A line that the kill cut was not said.
        let Ok(line) = line else { break };
        match line.split(' ').collect::<Vec<_>>().as_slice() {
            ["entry", seq, hash] if hash.len() == 64 => {
                said.entries.insert(seq.parse().expect("seq"), (*hash).to_owned());
            }
            ["finished", call] if call.len() == 64 => drop(said.finished.insert((*call).to_owned())),
            ["done"] => said.done = true,
            _ => {}
        }
        if number == kill_after {
            child.kill().expect("kills");
        }
    }
    child.wait().expect("ends");
    said
}

fn counted(path: &Path) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for call in std::fs::read_to_string(path).unwrap_or_default().lines() {
        *counts.entry(call.to_owned()).or_default() += 1;
    }
    counts
}

/// What a store holds of its one session.
#[derive(Default)]
struct Stored {
    session: Option<SessionId>,
    entries: BTreeMap<u64, String>,
    finished: BTreeSet<String>,
}

fn stored(path: &Path) -> Stored {
    let mut stored = Stored::default();
    if !path.exists() {
        return stored;
    }
    let store = SqliteReader::open(path).expect("store opens");
    let Some(row) = store.sessions(None).next() else { return stored };
    let session = row.expect("row").session;
    for row in store.read(session, 0) {
        let entry = Entry::read(&row.expect("row").bytes).expect("entry");
        stored.entries.insert(entry.header().seq, entry.hash().to_string());
        if let Body::CallFinished(finished) = &entry.event().expect("event").body {
            stored.finished.insert(finished.call.to_string());
        }
    }
    stored.session = Some(session);
    stored
}

#[test]
fn a_killed_run_loses_nothing_it_acknowledged_and_repeats_nothing_it_finished() {
    let rounds: usize = std::env::var("TOKA_TEST_KILLS").map_or(40, |rounds| rounds.parse().expect("a number"));
    let mut random = 0x5eed_u64;
    let (mut killed, mut sessions) = (0, 0);
    while killed < rounds {
        sessions += 1;
        killed += one_session(&mut random);
        assert!(sessions <= 4 * rounds, "{killed} kills in {sessions} sessions");
    }
    println!("{killed} kills over {sessions} sessions");
}

/// Kills one session again and again until it is done; returns how often.
fn one_session(random: &mut u64) -> usize {
    let dir = tempfile::tempdir().expect("dir");
    let at = |name: &str| dir.path().join(name);
    let text = |name: &str| at(name).display().to_string();
    let init = Command::new(program("toka"))
        .args(["init", "--profile", "testing", "--dir", &text("home")])
        .output()
        .expect("init runs");
    assert!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
    std::fs::create_dir_all(at("project/in")).expect("project");
    for file in 0..FILES {
        std::fs::write(at("project/in").join(format!("{file:03}")), "x").expect("file");
    }
    std::fs::write(at("agent.yaml"), AGENT).expect("agent");

    let (home, project, counts) = (text("home"), text("project"), text("counted"));
    let mut kills = 0;
    let mut finished_counts: BTreeMap<String, usize> = BTreeMap::new();
    loop {
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let kill_after = 1 + (*random >> 33) as usize % 60;
        let named = stored(&at("home/toka.sqlite")).session.map(|session| session.to_string());
        let said = match &named {
            None => run(&[&home, &project, &counts, &text("agent.yaml")], kill_after),
            Some(session) => run(&[&home, &project, &counts, "--resume", session], kill_after),
        };
        let stored = stored(&at("home/toka.sqlite"));
        for (seq, hash) in &said.entries {
            assert_eq!(stored.entries.get(seq), Some(hash), "entry {seq} was acknowledged and is not in the store");
        }
        let ran = counted(&at("counted"));
        for (call, times) in &finished_counts {
            assert_eq!(ran.get(call).copied().unwrap_or(0), *times, "call {call} had finished and ran again");
        }
        assert!(said.finished.is_subset(&stored.finished));
        for call in &stored.finished {
            finished_counts.insert(call.clone(), ran.get(call).copied().unwrap_or(0));
        }
        if said.done {
            break;
        }
        kills += 1;
        assert!(kills < 500, "the session never ends");
    }
    let ran = counted(&at("counted"));
    assert_eq!(ran.len(), FILES, "every file was counted under one call id");
    let verified = Command::new(program("toka-replay"))
        .args(["verify", &text("home/toka.sqlite"), "--quiet"])
        .output()
        .expect("verify runs");
    assert_eq!(verified.status.code(), Some(0), "{}", String::from_utf8_lossy(&verified.stderr));
    kills
}
