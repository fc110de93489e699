//! Every exit code has a way to it, closed pipes end quietly, and verbs that are none are answered.

use std::fs;
use std::process::{Command, Stdio};

use toka_tests::programs::program;

use super::agents::{GUIDE, SECRET, agent, reader, reader_with};
use super::{Desk, transcript};

#[test]
fn exit_0_is_success() {
    Desk::empty().toka(&["--version"]).expect(0);
}

#[test]
fn exit_1_is_a_failure() {
    Desk::with_node().run(&reader(SECRET)).expect(1);
}

#[test]
fn exit_2_is_wrong_usage() {
    Desk::empty().toka(&["run", "--no-such-flag"]).expect(2);
}

#[test]
fn exit_3_is_a_log_that_was_tampered_with() {
    let (desk, session) = Desk::with_session();
    desk.toka(&["sessions", "export", &session, "-o", "session.tkb"]).expect(0);
    desk.toka(&["init", "--profile", "testing", "--dir", "other"]).expect(0);
    desk.toka(&["replay", "verify", "session.tkb", "--root", "other/keys/root.pub"]).expect(3);
}

#[test]
fn exit_4_is_a_log_without_its_end() {
    let (desk, _) = Desk::with_open_session();
    desk.toka(&["replay", "verify"]).expect(4);
}

#[test]
fn exit_5_is_not_granted() {
    let desk = Desk::with_node();
    desk.write("agent.yaml", reader(GUIDE));
    desk.toka(&["run", "agent.yaml", "--root", "project=project"]).expect(5);
}

#[test]
fn exit_6_is_a_budget_used_up() {
    let again = GUIDE.replace("id: guide", "id: again");
    Desk::with_node().run(&reader_with("budget: { calls: 1 }", &format!("{GUIDE}\n{again}"))).expect(6);
}

#[test]
fn exit_7_is_a_store_with_another_writer() {
    let desk = Desk::with_node();
    let _log = toka_store::SqliteLog::open(desk.at("home/toka.sqlite")).expect("a store");
    desk.run(&reader(GUIDE)).expect(7);
}

#[test]
fn exit_8_is_what_cannot_be_read() {
    Desk::with_node().toka(&["run", "nowhere.yaml", "--grant-requested"]).expect(8);
}

#[test]
fn exit_9_is_code_that_cannot_be_confined() {
    let desk = Desk::with_node();
    let step = "{ id: py, code: { language: python, source: \"print(1)\" } }";
    let coder = agent("code.python", "\"tool:code.python\"", "", step);
    desk.run(&coder).expect(0);
    // The same program, with a launcher beside it that makes no jail.
    desk.write("bin/toka-jail", "");
    for (from, to) in [(program("toka"), "bin/toka"), ("/bin/false".into(), "bin/toka-jail")] {
        desk.write(to, "");
        fs::copy(&from, desk.at(to)).expect("a copy");
    }
    let like = desk.command("toka", &[]);
    let mut command = Command::new(desk.at("bin/toka"));
    command.args(["run", "agent.yaml", "--grant-requested"]).env_clear().current_dir(desk.at(""));
    command.envs(like.get_envs().filter_map(|(name, value)| Some((name, value?))));
    assert_eq!(command.output().expect("toka runs").status.code(), Some(9));
}

/// Everything that prints.
fn talkative(session: &str) -> [Vec<&str>; 17] {
    [
        vec!["--help"],
        vec!["init", "--if-missing"],
        vec!["init", "--if-missing", "--json"],
        vec!["run", "agent.yaml", "--root", "project=project", "--grant-requested"],
        vec!["run", "agent.yaml", "--root", "project=project", "--grant-requested", "--json"],
        vec!["sessions", "list"],
        vec!["sessions", "list", "--json"],
        vec!["sessions", "show", session],
        vec!["sessions", "show", session, "--json"],
        vec!["sessions", "export", session, "-o", "out.tkb", "--force"],
        vec!["replay", "show", "--session", session],
        vec!["replay", "verify", "--session", session],
        vec!["replay", "state", "--session", session],
        vec!["replay", "why", "4", "--session", session],
        vec!["replay", "diff", "--session", session, "--json"],
        vec!["replay", "stats"],
        vec!["explain"],
    ]
}

#[test]
fn a_reader_that_has_gone_ends_a_command_quietly() {
    let (desk, session) = Desk::with_session();
    for args in talkative(&session) {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = desk.command("toka", &args).stdout(writer).stderr(Stdio::piped()).output().expect("toka runs");
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {err}");
        assert!(!err.contains("error:") && !err.contains("panicked"), "{args:?}: {err}");
    }
}

#[test]
fn nobody_listening_on_stderr_stops_nothing() {
    let (desk, session) = Desk::with_session();
    for args in talkative(&session) {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = desk.command("toka", &args).stdout(Stdio::piped()).stderr(writer).output().expect("toka runs");
        assert_eq!(output.status.code(), Some(0), "{args:?}");
    }
    let sessions = desk.json(&["sessions", "list"]);
    for session in sessions["sessions"].as_array().expect("sessions") {
        assert!(session["status"] == "completed" || session["status"] == "system", "{session}");
    }
}

#[test]
fn a_failure_counts_even_if_nobody_reads_it() {
    let desk = Desk::with_node();
    desk.write("agent.yaml", reader(SECRET));
    for form in ["--json", "--quiet"] {
        let (gone, writer) = std::io::pipe().expect("a pipe");
        drop(gone);
        let args = ["run", "agent.yaml", "--root", "project=project", "--grant-requested", form];
        let status = desk.command("toka", &args).stdout(writer).status().expect("toka runs");
        assert_eq!(status.code(), Some(1), "{form}");
    }
}

#[test]
fn a_verb_of_a_later_version_is_told_from_one_that_is_none() {
    let desk = Desk::empty();
    transcript!(desk.toka(&["daemon"]), @r"
    $ toka daemon
    --- stderr
    error: `toka daemon` is not built in this version
    hint: `toka --help` lists what is
    --- exit 2
    ");
    transcript!(desk.toka(&["grant", "list"]), @r"
    $ toka grant list
    --- stderr
    error: `toka grant` is not built in this version
    hint: `toka --help` lists what is
    --- exit 2
    ");
    transcript!(desk.toka(&["rnu", "agent.yaml"]), @r"
    $ toka rnu agent.yaml
    --- stderr
    error: there is no verb `rnu`
    hint: `toka --help` lists the verbs
    --- exit 2
    ");
    transcript!(desk.toka(&["session", "follow"]), @r"
    $ toka session follow
    --- stderr
    error: unrecognized subcommand 'follow'

    Usage: toka sessions [OPTIONS] <COMMAND>

    For more information, try '--help'.
    --- exit 2
    ");
}

#[test]
fn help_comes_on_stdout_when_asked_for_and_on_stderr_when_it_is_needed() {
    let desk = Desk::empty();
    for asked in [&["--help"] as &[&str], &["run", "--help"], &["sessions", "--help"], &["replay", "--help"]] {
        let ran = desk.toka(asked);
        assert!(ran.expect(0).out.contains("Usage: toka"), "{ran}");
        assert_eq!(ran.err, "", "{ran}");
    }
    for short in [&[] as &[&str], &["sessions"], &["replay"]] {
        let ran = desk.toka(short);
        assert!(ran.expect(2).err.contains("Usage: toka"), "{ran}");
        assert_eq!(ran.out, "", "{ran}");
    }
}

#[test]
fn the_help_names_every_verb() {
    transcript!(Desk::empty().toka(&["-h"]), @r"
    $ toka -h
    Run AI agents so that what they may do is bounded, what they did can be proved, and any session can be replayed

    Usage: toka [OPTIONS] <COMMAND>

    Commands:
      init         Make the node's folder: keys, store and origin
      demo         Show the whole thing in a few seconds, on a sample project, with no key and no network
      run          Run an agent file in a new session, or go on with one that was interrupted
      orchestrate  Run the agents of a folder together, in the order of their dependencies
      sessions     List, show and export sessions
      tools        List, check, register and approve tools
      calls        Say what came of a call whose outcome a crash has hidden
      model        List the providers of models, or answer as one that follows a script
      doctor       Try what this machine can confine, step by step
      replay       Verify, show, explain or compare a store or a bundle, offline and read-only (the same as `toka-replay`)
      explain      Explain a code that Toka has printed: what it means, where it comes from, what to do
      help         Print this message or the help of the given subcommand(s)

    Options:
          --home <DIR>  The node's folder: keys, store and configuration [default: $TOKA_HOME, else $XDG_DATA_HOME/toka]
      -h, --help        Print help (see more with '--help')
      -V, --version     Print version
    --- exit 0
    ");
}
