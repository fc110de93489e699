//! The launcher that stands by: killed at any time it costs no call, and it never stays behind.

use std::fs;
use std::path::PathBuf;

use rustix::process::{Pid, Signal, kill_process};

use super::limits::agent;
use super::{Lab, Live, began, wait_until};

/// The process that stands by for a node, while a program runs beside it.
fn standing(run: &Live) -> (u32, String) {
    let mut found = None;
    wait_until("a program and a launcher that stands by", || {
        let theirs = run.descendants();
        let is_standing = |pid: u32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == "toka-standing")
        };
        // A double has the name of the one that it was made of, until it has another.
        let all: Vec<_> = theirs.iter().filter(|(pid, _)| is_standing(*pid)).collect();
        found = all.first().map(|found| (*found).clone());
        // Beside it the launcher of the call, pid 1 of its jail, and the program.
        all.len() == 1 && theirs.len() >= 4
    });
    found.expect("it was found")
}

#[test]
fn a_launcher_that_is_killed_during_a_call_and_before_the_next_costs_neither() {
    Lab::each(|lab| {
        lab.tool("waiter", "list, read", "limits: { wall: 30s }");
        let codes = ["wait_for('one'); found = 1", "wait_for('two'); found = 2", "wait_for('three'); found = 3"];
        let text = agent("top", &codes.map(|code| ("waiter", code)));
        let mut run = lab.start(&[("top.yaml", &text)]);
        let mut seen = Vec::new();
        for (number, go) in ["one", "two", "three"].into_iter().enumerate() {
            let (pid, time) = standing(&run);
            assert!(!seen.contains(&(pid, time.clone())), "it was killed");
            let links =
                fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives").map(|entry| entry.expect("an entry"));
            let links: Vec<PathBuf> = links.map(|entry| fs::read_link(entry.path()).expect("a link")).collect();
            let is_one = links.len() == 3 && links.iter().all(|link| *link == links[0]);
            assert!(is_one && links[0].to_string_lossy().starts_with("socket:"), "{links:?}");
            if number < 2 {
                let known = Pid::from_raw(pid.try_into().expect("a number")).expect("a number");
                kill_process(known, Signal::KILL).expect("it lives");
                wait_until("its end", || began(pid).as_ref() != Some(&time));
            }
            seen.push((pid, time));
            lab.write(&format!("project/docs/{go}"), "");
            run.await_kind("CallFinished", 1);
        }
        let end = run.end();
        let finished = lab.finished(end["session"].as_str().expect("a session"));
        let results: Vec<_> = finished.iter().map(|called| called.ended("succeeded/0").result.clone()).collect();
        assert_eq!(results, [1, 2, 3]);
        for (pid, time) in seen {
            assert_ne!(began(pid), Some(time), "it outlives its node");
        }
        for go in ["one", "two", "three"] {
            fs::remove_file(lab.desk.at("project/docs").join(go)).expect("removes");
        }
        lab.verify();
    });
}
