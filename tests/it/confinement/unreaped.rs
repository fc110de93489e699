//! A program that lives on after it was killed: its call ends all the same, and the next one runs.

use std::fs;
use std::process::Command;
use std::time::Instant;

use toka_tests::programs::program;

use super::limits::agent;
use super::{Lab, PATIENCE};

#[test]
fn a_program_that_cannot_be_killed_is_given_up_and_the_next_call_runs() {
    Lab::each(|lab| {
        // The same program, with another launcher beside it.
        for (from, to) in [("toka", "bin/toka"), ("unkillable", "bin/toka-jail"), ("toka-jail", "launcher")] {
            lab.write(to, "");
            fs::copy(program(from), lab.desk.at(to)).expect("a copy");
        }
        lab.tool("worker", "list, read", "limits: { wall: 300ms, grace: 100ms }");
        lab.tool("waiter", "list, read", "limits: { wall: 10s }");
        lab.write("top.yaml", agent("top", &[("worker", "pass"), ("waiter", "found = 'worked'")]));
        let args = ["run", "top.yaml", "--root", "project=project", "--grant-requested", "--json"];
        let like = lab.command(&args);
        let mut command = Command::new(lab.desk.at("bin/toka"));
        command.args(args).env_clear().current_dir(like.get_current_dir().expect("a folder"));
        command.envs(like.get_envs().filter_map(|(name, value)| Some((name, value?))));
        lab.become_user(&mut command);
        let start = Instant::now();
        let ran = lab.ran(&args, &mut command);
        assert!(start.elapsed() < PATIENCE, "{ran}");
        let finished = lab.finished(ran.last_json()["session"].as_str().expect("a session"));
        assert_eq!(finished.len(), 2, "{ran}");
        finished[0].ended("unreaped/0");
        assert_eq!(finished[1].ended("succeeded/0").result, "worked");
        lab.verify();
    });
}
