//! `kill -9` of the node while programs run: nobody is left, every call is accounted for, and the session goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use toka_kernel::Body;
use toka_kernel::ids::{CallId, derived};

use super::{Lab, alive, began, wait_until};

/// How many files there are, and so how many calls.
const FILES: usize = 50;

const AGENT: &str = r#"
apiVersion: toka/v1
kind: Agent
metadata: { name: worker, version: 1.0.0 }
spec:
  tools: [ file-lister, notes ]
  capabilities: [ "fs:project/**#create,list,read,write", "tool:*" ]
  budget: { calls: 1000, wall: 1h }
  program:
    script:
      steps:
        - { id: files, call: { tool: file-lister, args: { path: "project:many" } } }
        - id: each
          for_each:
            in: { ref: steps.files.output, pointer: /entries }
            as: file
            steps:
              - { id: note, call: { tool: notes, args: { path: "project:docs", name: { ref: file, pointer: /path } } } }
"#;

/// Notes the id of its call before and after a child of it slept a little.
const NOTES: &str = r#"
import json, os, subprocess, sys
mark, folder = "MARK", json.load(sys.stdin)["path"]
def note(what):
    with open(folder + "/" + what, "a") as file:
        file.write(os.environ["TOKA_CALL_ID"] + "\n")
note("began")
subprocess.run(["/bin/sleep", mark])
note("ended")
"#;

fn noted(lab: &Lab, name: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in fs::read_to_string(lab.desk.at("project/docs").join(name)).unwrap_or_default().lines() {
        *counts.entry(line.to_owned()).or_default() += 1;
    }
    counts
}

/// Registers a tool that takes a moment, of this effect.
fn tool(lab: &Lab, effect: &str, mark: &str) {
    lab.write("notes.py", NOTES.replace("MARK", mark));
    let spec = format!(
        "  run: {{ kind: python, path: notes.py }}\n\
         \x20 params:\n\
         \x20   - {{ name: name, type: string, required: true }}\n\
         \x20   - {{ name: path, type: path, required: true, access: [create, list, read, write] }}\n\
         \x20 outputs: {{ result: none }}\n\
         \x20 effect: {effect}"
    );
    lab.manifest("notes", &spec).expect(0);
    (0..FILES).for_each(|number| lab.write(&format!("project/many/{number:02}"), ""));
}

/// Calls of a session that were admitted, and how those of them that ended did.
fn accounts(lab: &Lab, session: &str) -> (BTreeSet<String>, BTreeMap<String, String>) {
    let admitted = lab.events(session).into_iter().filter(|(_, event)| matches!(event.body, Body::CallAdmitted(_)));
    let admitted = admitted.map(|(entry, _)| CallId(derived(entry.session(), entry.header().seq, 0)).to_string());
    let ended = lab.finished(session).into_iter().map(|called| (called.finished.call.to_string(), called.outcome()));
    (admitted.collect(), ended.collect())
}

/// Begins the work and kills the node while the program of the `count`-th call runs.
fn killed(lab: &Lab, mark: &str, count: usize) -> String {
    let mut run = lab.start(&[("agent.yaml", AGENT)]);
    // The first call is that of the lister.
    let session = run.await_kind("CallAdmitted", 1 + count)["session"].as_str().expect("a session").to_owned();
    wait_until("the program runs", || alive(mark) > 0);
    kill(run, mark);
    session
}

/// Kills a node whose program runs, and sees that none of its processes is left.
fn kill(mut run: super::Live, mark: &str) {
    let theirs = run.descendants();
    assert!(theirs.len() >= 4, "the standing launcher, that of the call, pid 1 and the program: {theirs:?}");
    run.child.kill().expect("kills");
    run.child.wait().expect("ends");
    wait_until("the end of all its processes", || theirs.iter().all(|(pid, time)| began(*pid).as_ref() != Some(time)));
    assert_eq!(alive(mark), 0);
}

#[test]
fn a_killed_node_leaves_nobody_and_repeats_what_may_be_repeated() {
    Lab::each(|lab| {
        let mark = format!("0.05{:08}{}", std::process::id(), u8::from(lab.user == 0));
        tool(lab, "idempotent", &mark);
        let session = killed(lab, &mark, 7);
        for count in [1, 3] {
            let mut run = lab.live(&["run", "--resume", &session, "--json"]);
            run.await_kind("CallFinished", count);
            wait_until("the program runs", || alive(&mark) > 0);
            kill(run, &mark);
        }
        let end = lab.live(&["run", "--resume", &session, "--json"]).end();
        assert_eq!(end["completed"], true, "{end}");
        let (admitted, ended) = accounts(lab, &session);
        assert_eq!(admitted.len(), 1 + FILES);
        assert_eq!(admitted, ended.keys().cloned().collect());
        assert!(ended.values().all(|outcome| outcome == "succeeded/0"), "{ended:?}");
        // Each call began at least once, and under no other id than that of its entry.
        let began = noted(lab, "began");
        assert_eq!(began.len(), FILES);
        assert!(began.keys().all(|call| admitted.contains(call)));
        assert!(began.values().sum::<usize>() <= FILES + 3, "more attempts than kills: {began:?}");
        assert_eq!(noted(lab, "ended").len(), FILES);
        lab.verify();
    });
}

#[test]
fn a_killed_node_runs_again_what_changes_nothing() {
    Lab::each(|lab| {
        let mark = format!("0.07{:08}{}", std::process::id(), u8::from(lab.user == 0));
        tool(lab, "read", &mark);
        let session = killed(lab, &mark, 3);
        let before = noted(lab, "began");
        let end = lab.live(&["run", "--resume", &session, "--json"]).end();
        assert_eq!(end["completed"], true, "{end}");
        let (admitted, ended) = accounts(lab, &session);
        assert_eq!(admitted, ended.keys().cloned().collect(), "every call has an account");
        assert!(ended.values().all(|outcome| outcome == "succeeded/0"), "{ended:?}");
        // The one that was cut off began twice under one id, and ended once; no other began again.
        let (began, finished) = (noted(lab, "began"), noted(lab, "ended"));
        let twice: Vec<_> = began.iter().filter(|(_, times)| **times == 2).map(|(call, _)| call).collect();
        assert_eq!(twice.len(), 1, "{began:?}");
        assert!(before.contains_key(twice[0]));
        assert!(began.values().sum::<usize>() == FILES + 1 && finished.values().all(|times| *times == 1));
        lab.verify();
    });
}

#[test]
fn a_killed_node_never_repeats_what_may_happen_once() {
    Lab::each(|lab| {
        let mark = format!("0.06{:08}{}", std::process::id(), u8::from(lab.user == 0));
        tool(lab, "once", &mark);
        let session = killed(lab, &mark, 3);
        let end = lab.live(&["run", "--resume", &session, "--json"]).end();
        assert_ne!(end["completed"], true, "nobody has said what came of the call: {end}");
        let (admitted, ended) = accounts(lab, &session);
        assert_eq!(admitted, ended.keys().cloned().collect(), "every call has an account");
        let unknown: Vec<_> = ended.values().filter(|outcome| outcome.starts_with("unknown")).collect();
        assert_eq!(unknown.len(), 1, "{ended:?}");
        assert!(noted(lab, "began").values().all(|times| *times == 1));
        lab.verify();
    });
}
