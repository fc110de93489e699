//! `--self-test`, where the levels can be had and where they cannot.

use std::os::unix::process::CommandExt;
use std::process::Command;

use serde_json::Value;

use crate::supervisor::{As, Plan};

/// Another user in each process: at `landlock` the processes of a user are counted, whoever started them.
fn nobody() -> u32 {
    20_000 + std::process::id() % 40_000
}

fn report(who: As, args: &[&str]) -> (Option<i32>, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_toka-jail"));
    command.args(args).env_clear().current_dir("/");
    if who == As::Nobody {
        command.uid(nobody()).gid(nobody());
    }
    let output = command.output().expect("the launcher starts");
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default())
}

#[test]
fn both_levels_hold_here() {
    for who in As::each() {
        for level in ["strong", "landlock"] {
            let (code, report) = report(who, &["--self-test", level]);
            assert_eq!((code, &report["ok"], &report["level"]), (Some(0), &true.into(), &level.into()), "{report:#}");
            let steps = report["steps"].as_array().expect("steps");
            assert!(steps.len() > 90 && steps.iter().all(|step| step["ok"] == true), "{report:#}");
        }
    }
}

#[test]
fn inside_a_jail_there_is_no_other_and_the_step_is_named() {
    let launcher = std::fs::read(env!("CARGO_BIN_EXE_toka-jail")).expect("it is built");
    for who in As::each() {
        for (level, stage) in [("strong", "unshare"), ("landlock", "seccomp")] {
            let mut plan = Plan::strong("/tool/jail", &["--self-test", level]);
            plan.spec.memory_cgroup = true;
            // No limit may be raised in there, so these must leave room for those of the self-test.
            plan.spec.limits.pids = 1_024;
            plan.file("/tool/jail", 0o555, &launcher);
            let ended = plan.run(who);
            let report: Value = serde_json::from_str(&ended.stdout).expect("a report");
            assert_eq!(ended.wait, Some(9 << 8), "{report:#}");
            assert_eq!((&report["ok"], &report["failed"]["stage"]), (&false.into(), &stage.into()), "{report:#}");
            assert_eq!(report["failed"]["errno"], 1, "{report:#}");
            assert_eq!(report["steps"], Value::Array(vec![]));
        }
    }
}

#[test]
fn other_arguments_are_refused() {
    for args in [&["--help"][..], &["--self-test", "none"], &["--self-test", "strong", "more"]] {
        assert_eq!(report(As::Same, args), (Some(2), Value::Null));
    }
    // Without arguments it wants its descriptors.
    assert_eq!(report(As::Same, &[]).0, Some(125));
}
