//! `toka run`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use toka_store::SqliteLog;

use super::agents::{GUIDE, SECRET, SECRET_OR_NOT, agent, child, parent, reader, reader_with};
use super::{Desk, transcript};

const GRANTED: [&str; 5] = ["run", "agent.yaml", "--root", "project=project", "--grant-requested"];

#[test]
fn an_agent_within_its_grants_runs_to_its_end() {
    let desk = Desk::with_node();
    transcript!(desk.run(&reader(GUIDE)), @r"
    $ toka run agent.yaml --root project=project --grant-requested
    <id>
    --- stderr
    reader asks for:
      fs:project/docs/**#read?depth=1&exp=<us>
      tool:file-reader?depth=1&calls=200&exp=<us>
      agent:reader?live=1&exp=<us>
        0  SessionOpened   node          session opened at toka.local/<id>; root grants: fs:project/docs/**#read?depth=1&exp=<us>, tool:file-reader?depth=1&calls=200&exp=<us>, agent:reader?live=1&exp=<us>
        1  ToolBound       node          tools bound: file-reader
        2  AgentSpawned    opener        reader spawned with fs:project/docs/**#read?exp=<us>, tool:file-reader?calls=200&exp=<us>
        3  AgentStarted    opener        reader started
        4  CallAdmitted    reader        file-reader project:docs/guide.md
        5  CallFinished    executor      file-reader succeeded
        6  AgentEnded      reader        reader completed
        7  StateCommitted  node          state <id> after 6
        8  SessionClosed   opener        session closed: done
    --- exit 0
    ");
}

#[test]
fn quiet_says_nothing_but_the_session() {
    let desk = Desk::with_node();
    desk.write("agent.yaml", reader(GUIDE));
    transcript!(desk.toka(&[&GRANTED[..], &["--quiet"]].concat()), @r"
    $ toka run agent.yaml --root project=project --grant-requested --quiet
    <id>
    --- exit 0
    ");
}

#[test]
fn a_program_reads_each_entry_as_it_becomes_durable() {
    let desk = Desk::with_node();
    desk.write("agent.yaml", reader(&format!("{GUIDE}\n{SECRET_OR_NOT}")));
    let ran = desk.toka(&[&GRANTED[..], &["--json"]].concat());
    ran.expect(0);
    assert_eq!(ran.err, "", "with --json there is nothing to say beside the data");
    let lines = ran.json_lines();
    let (end, lines) = lines.split_last().expect("lines");
    let entries: Vec<_> = lines.iter().filter(|line| line["started"].is_null()).collect();
    let kinds: Vec<&str> = entries.iter().map(|entry| entry["kind"].as_str().expect("a kind")).collect();
    assert_eq!(
        kinds,
        [
            "SessionOpened",
            "ToolBound",
            "AgentSpawned",
            "AgentStarted",
            "CallAdmitted",
            "CallFinished",
            "Refused",
            "AgentEnded",
            "StateCommitted",
            "SessionClosed"
        ]
    );
    for (seq, entry) in entries.iter().enumerate() {
        assert_eq!(entry["seq"], seq);
        assert_eq!(entry["session"], end["session"]);
        assert!(["hash", "who", "what"].iter().all(|field| entry[field].is_string()), "{entry}");
        assert!(entry["time_us"].is_u64(), "{entry}");
    }
    let started: Vec<_> = lines.iter().filter(|line| line["started"].is_string()).collect();
    assert_eq!(started.len(), 1);
    assert_eq!(started[0]["started"], entries[4]["call"]);
    assert_eq!(entries[5]["call"], entries[4]["call"]);
    assert_eq!(end["schema"], "toka/run/1");
    assert_eq!(end["completed"], true);
    assert_eq!(end["code"], "NONE");
}

#[test]
fn a_refused_call_ends_the_agent_and_is_explained() {
    let desk = Desk::with_node();
    transcript!(desk.run(&reader(SECRET)), @r"
    $ toka run agent.yaml --root project=project --grant-requested
    <id>
    --- stderr
    reader asks for:
      fs:project/docs/**#read?depth=1&exp=<us>
      tool:file-reader?depth=1&calls=200&exp=<us>
      agent:reader?live=1&exp=<us>
        0  SessionOpened   node          session opened at toka.local/<id>; root grants: fs:project/docs/**#read?depth=1&exp=<us>, tool:file-reader?depth=1&calls=200&exp=<us>, agent:reader?live=1&exp=<us>
        1  ToolBound       node          tools bound: file-reader
        2  AgentSpawned    opener        reader spawned with fs:project/docs/**#read?exp=<us>, tool:file-reader?calls=200&exp=<us>
        3  AgentStarted    opener        reader started
        4  Refused         reader        file-reader project:secret.txt: OUT_OF_SCOPE, it would need fs:project/secret.txt#read
        5  AgentEnded      reader        reader failed: CALL
        6  StateCommitted  node          state <id> after 5
        7  SessionClosed   opener        session closed: failed
    error: the agent failed (CALL) at step secret: the call of `file-reader` was refused: OUT_OF_SCOPE, it needs `fs:project/secret.txt#read`
    hint: toka sessions show <id> tells what happened
    --- exit 1
    ");
}

#[test]
fn a_refused_call_with_on_error_continue_is_recorded_and_the_agent_goes_on() {
    let desk = Desk::with_node();
    let ran = desk.run(&reader(&format!("{SECRET_OR_NOT}\n{GUIDE}")));
    ran.expect(0);
    assert!(ran.err.contains("OUT_OF_SCOPE, it would need fs:project/secret.txt#read"), "{ran}");
    assert!(ran.err.contains("file-reader succeeded"), "{ran}");
}

#[test]
fn a_budget_that_is_used_up_ends_the_agent() {
    let desk = Desk::with_node();
    let again = GUIDE.replace("id: guide", "id: again");
    transcript!(desk.run(&reader_with("budget: { calls: 1 }", &format!("{GUIDE}\n{again}"))), @r"
    $ toka run agent.yaml --root project=project --grant-requested
    <id>
    --- stderr
    reader asks for:
      fs:project/docs/**#read?depth=1&exp=<us>
      tool:file-reader?depth=1&calls=1&exp=<us>
      agent:reader?live=1&exp=<us>
        0  SessionOpened   node          session opened at toka.local/<id>; root grants: fs:project/docs/**#read?depth=1&exp=<us>, tool:file-reader?depth=1&calls=1&exp=<us>, agent:reader?live=1&exp=<us>
        1  ToolBound       node          tools bound: file-reader
        2  AgentSpawned    opener        reader spawned with fs:project/docs/**#read?exp=<us>, tool:file-reader?calls=1&exp=<us>
        3  AgentStarted    opener        reader started
        4  CallAdmitted    reader        file-reader project:docs/guide.md
        5  CallFinished    executor      file-reader succeeded
        6  AgentEnded      reader        reader failed: BUDGET
        7  StateCommitted  node          state <id> after 6
        8  SessionClosed   opener        session closed: failed
    error: the agent failed (BUDGET) at step again: its budget of 1 calls is used up
    hint: toka sessions show <id> tells what happened
    --- exit 6
    ");
}

#[test]
fn an_agent_cannot_spawn_one_that_may_do_more() {
    let desk = Desk::with_node();
    desk.write("child.yaml", child("file-reader"));
    transcript!(desk.run(&parent("fs:project/**#read")), @r"
    $ toka run agent.yaml --root project=project --grant-requested
    <id>
    --- stderr
    agent.yaml:11:57: TOKA-1071: no capability that the agent requests covers `fs:project/**#read`
      hint: request it in `spec.capabilities`, or narrow the grant
    reader asks for:
      fs:project/docs/**#read?depth=2&exp=<us>
      tool:file-reader?depth=2&calls=200&exp=<us>
      agent:child?depth=2&live=1&exp=<us>
      agent:reader?live=1&exp=<us>
        0  SessionOpened   node          session opened at toka.local/<id>; root grants: fs:project/docs/**#read?depth=2&exp=<us>, tool:file-reader?depth=2&calls=200&exp=<us>, agent:child?depth=2&live=1&exp=<us>, agent:reader?live=1&exp=<us>
        1  ToolBound       node          tools bound: file-reader
        2  AgentSpawned    opener        reader spawned with fs:project/docs/**#read?depth=1&exp=<us>, tool:file-reader?depth=1&calls=200&exp=<us>, agent:child?depth=1&live=1&exp=<us>
        3  AgentStarted    opener        reader started
        4  CallAdmitted    reader        file-reader project:docs/guide.md
        5  CallFinished    executor      file-reader succeeded
        6  Refused         reader        spawn child: NOT_ATTENUATED, it would need fs:project/**#read?exp=<us>
        7  AgentEnded      reader        reader failed: CALL
        8  StateCommitted  node          state <id> after 7
        9  SessionClosed   opener        session closed: failed
    error: the agent failed (CALL) at step helper: the spawn of `child` was refused: NOT_ATTENUATED, it needs `fs:project/**#read?exp=<us>`
    hint: toka sessions show <id> tells what happened
    --- exit 1
    ");
    desk.run(&parent("fs:project/docs/**#read")).expect(0);
}

#[test]
fn an_agent_file_that_cannot_be_read_is_unreadable() {
    let desk = Desk::with_node();
    transcript!(desk.toka(&["run", "nowhere.yaml", "--grant-requested"]), @r"
    $ toka run nowhere.yaml --grant-requested
    --- stderr
    nowhere.yaml:1:1: TOKA-1001: there is no such file
      hint: name an agent file that exists
    error: 1 error in the agent file; nothing was run
    --- exit 8
    ");
    transcript!(desk.toka(&["run", "project", "--grant-requested"]), @r"
    $ toka run project --grant-requested
    --- stderr
    project:1:1: TOKA-1001: the file cannot be read: it is not a regular file
      hint: name a regular file that may be read, not a link
    error: 1 error in the agent file; nothing was run
    --- exit 8
    ");
}

#[test]
fn a_mistake_in_an_agent_file_is_shown_at_its_place() {
    let desk = Desk::with_node();
    transcript!(desk.run(&reader_with("budgte: { calls: 1 }", GUIDE)), @r"
    $ toka run agent.yaml --root project=project --grant-requested
    --- stderr
    agent.yaml:7:3: TOKA-1020: unknown field `budgte` in `spec`
      hint: did you mean `budget`?
    error: 1 error in the agent file; nothing was run
    --- exit 1
    ");
    transcript!(desk.run("kind: [\n"), @r"
    $ toka run agent.yaml --root project=project --grant-requested
    --- stderr
    agent.yaml:1:7: TOKA-1010: not YAML: unclosed bracket '['
      hint: look at the indentation, the quotes and the brackets up to here
    error: 1 error in the agent file; nothing was run
    --- exit 1
    ");
    assert!(!desk.at("home/toka.sqlite").exists(), "nothing was run");
}

#[test]
fn a_tool_that_is_not_there_is_named_beside_those_that_are() {
    let desk = Desk::with_node();
    transcript!(desk.run(&reader(GUIDE).replace("file-reader", "file-reeder")), @r"
    $ toka run agent.yaml --root project=project --grant-requested
    --- stderr
    reader asks for:
      fs:project/docs/**#read?depth=1&exp=<us>
      tool:file-reeder?depth=1&calls=200&exp=<us>
      agent:reader?live=1&exp=<us>
    error: no tool matches `file-reeder`; this node has code.python, code.shell, code.wasm, file-lister, file-reader, file-writer, release-hasher, validate-dates, validate-links
    --- exit 1
    ");
}

#[test]
fn code_takes_a_tool_that_its_agent_lists() {
    let desk = Desk::with_node();
    transcript!(desk.run(&reader("{ id: py, code: { language: python, source: \"print(1)\" } }")), @r"
    $ toka run agent.yaml --root project=project --grant-requested
    --- stderr
    agent.yaml:10:39: TOKA-1055: the tool `code.python` is not in `spec.tools`
      hint: add `- code.python` to `spec.tools`
    error: 1 error in the agent file; nothing was run
    --- exit 1
    ");
}

#[test]
fn nobody_is_granted_anything_unasked() {
    let desk = Desk::with_node();
    desk.write("agent.yaml", reader(GUIDE));
    transcript!(desk.toka(&["run", "agent.yaml", "--root", "project=project"]), @r"
    $ toka run agent.yaml --root project=project
    --- stderr
    reader asks for:
      fs:project/docs/**#read?depth=1&exp=<us>
      tool:file-reader?depth=1&calls=200&exp=<us>
      agent:reader?live=1&exp=<us>
    error: nobody can be asked whether to grant this
    hint: --grant-requested grants what the file asks for
    --- exit 5
    ");
}

#[test]
fn a_root_that_cannot_be_one_is_refused_before_anything_runs() {
    let desk = Desk::with_node();
    desk.write("agent.yaml", reader(GUIDE));
    symlink(desk.at("home"), desk.at("link")).expect("a link");
    let mut said = Vec::new();
    for root in [
        "project=nowhere",
        "project=agent.yaml",
        "project=home",
        "project=home/keys",
        "project=.",
        "project=link/keys",
        "project",
        "project=",
        "Pro/ject=project",
        "=project",
    ] {
        let ran = desk.toka(&["run", "agent.yaml", "--root", root, "--grant-requested"]);
        ran.expect(2);
        said.push(ran.to_string());
    }
    said.push(desk.toka(&["run", "agent.yaml", "--grant-requested"]).to_string());
    said.push(desk.toka(&[&GRANTED[..], &["--root", "project=project"]].concat()).to_string());
    insta::assert_snapshot!(said.join("\n\n"), @r"
    $ toka run agent.yaml --root project=nowhere --grant-requested
    --- stderr
    error: --root project: nowhere: No such file or directory (os error 2)
    hint: --root project=DIR says which directory that is
    --- exit 2

    $ toka run agent.yaml --root project=agent.yaml --grant-requested
    --- stderr
    error: --root project: agent.yaml is no directory
    --- exit 2

    $ toka run agent.yaml --root project=home --grant-requested
    --- stderr
    error: --root project: $DIR/home overlaps the node's own folder $DIR/home
    hint: an agent must not reach keys or store; name another folder
    --- exit 2

    $ toka run agent.yaml --root project=home/keys --grant-requested
    --- stderr
    error: --root project: $DIR/home/keys overlaps the node's own folder $DIR/home
    hint: an agent must not reach keys or store; name another folder
    --- exit 2

    $ toka run agent.yaml --root project=. --grant-requested
    --- stderr
    error: --root project: $DIR overlaps the node's own folder $DIR/home
    hint: an agent must not reach keys or store; name another folder
    --- exit 2

    $ toka run agent.yaml --root project=link/keys --grant-requested
    --- stderr
    error: --root project: $DIR/home/keys overlaps the node's own folder $DIR/home
    hint: an agent must not reach keys or store; name another folder
    --- exit 2

    $ toka run agent.yaml --root project --grant-requested
    --- stderr
    error: invalid value 'project' for '--root <NAME=DIR>': write NAME=DIR

    For more information, try '--help'.
    --- exit 2

    $ toka run agent.yaml --root project= --grant-requested
    --- stderr
    error: invalid value 'project=' for '--root <NAME=DIR>': write NAME=DIR; DIR is missing

    For more information, try '--help'.
    --- exit 2

    $ toka run agent.yaml --root Pro/ject=project --grant-requested
    --- stderr
    error: invalid value 'Pro/ject=project' for '--root <NAME=DIR>': `Pro/ject` is no root name: lower-case letters, digits, `-` and `_`, at most 32

    For more information, try '--help'.
    --- exit 2

    $ toka run agent.yaml --root =project --grant-requested
    --- stderr
    error: invalid value '=project' for '--root <NAME=DIR>': `` is no root name: lower-case letters, digits, `-` and `_`, at most 32

    For more information, try '--help'.
    --- exit 2

    $ toka run agent.yaml --grant-requested
    --- stderr
    error: the file asks for the root `project`
    hint: --root project=DIR says which directory that is
    --- exit 2

    $ toka run agent.yaml --root project=project --grant-requested --root project=project
    --- stderr
    error: --root project is given twice
    --- exit 2
    ");
    assert!(!desk.at("home/toka.sqlite").exists(), "nothing was run");
}

#[test]
fn a_root_that_no_capability_names_is_pointed_out() {
    let desk = Desk::with_node();
    desk.write("agent.yaml", reader(GUIDE));
    let ran = desk.toka(&[&GRANTED[..], &["--root", "other=project"]].concat());
    ran.expect(0);
    assert!(ran.err.starts_with("note: --root other is named by no capability of the file\n"), "{ran}");
}

#[test]
fn a_capability_that_is_none_is_refused() {
    let desk = Desk::with_node();
    let ran = desk.run(&agent("file-reader", r#""fs:project/../**#read""#, "", GUIDE));
    transcript!(ran, @r#"
    $ toka run agent.yaml --root project=project --grant-requested
    --- stderr
    agent.yaml:6:31: TOKA-1037: `fs:project/../**#read` in `spec.capabilities`: not a path segment
      hint: a segment has 1 to 255 bytes, is not `.` or `..` and has no `/`, `\` or invisible character; other characters than [A-Za-z0-9._@+~-] need quotes
    error: 1 error in the agent file; nothing was run
    --- exit 1
    "#);
}

#[test]
fn a_node_that_is_not_there_is_offered() {
    let desk = Desk::empty();
    desk.write("project/docs/guide.md", "hello\n");
    transcript!(desk.run(&reader(GUIDE)), @r"
    $ toka run agent.yaml --root project=project --grant-requested
    --- stderr
    error: $DIR/home: there is no home of a node here
    hint: make one: toka init --dir $DIR/home
    --- exit 1
    ");
}

#[test]
fn keys_that_others_may_read_are_not_used() {
    let desk = Desk::with_node();
    let key = desk.at("home/keys/event-0001.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("a mode");
    transcript!(desk.run(&reader(GUIDE)), @r"
    $ toka run agent.yaml --root project=project --grant-requested
    --- stderr
    error: $DIR/home/keys/event-0001.key: others have access to it (its mode is 0644)
    hint: if nobody has read it: chmod 600 $DIR/home/keys/event-0001.key
    --- exit 1
    ");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("a mode");
    fs::set_permissions(desk.at("home/keys"), fs::Permissions::from_mode(0o755)).expect("a mode");
    transcript!(desk.run(&reader(GUIDE)), @r"
    $ toka run agent.yaml --root project=project --grant-requested
    --- stderr
    error: $DIR/home/keys: others have access to it (its mode is 0755)
    hint: if nobody has read it: chmod 700 $DIR/home/keys
    --- exit 1
    ");
}

#[test]
fn a_key_file_that_is_none_is_named_and_not_quoted() {
    let desk = Desk::with_node();
    let key = desk.at("home/keys/event-0001.key");
    let text = fs::read_to_string(&key).expect("a key");
    let seed = text.lines().nth(2).expect("a seed").to_owned();
    fs::write(&key, text.replace("toka-key/v1\n", "")).expect("a key");
    let ran = desk.run(&reader(GUIDE));
    assert!(!ran.err.contains(&seed), "{ran}");
    transcript!(ran, @r"
    $ toka run agent.yaml --root project=project --grant-requested
    --- stderr
    error: $DIR/home/keys/event-0001.key: line 1 should be `toka-key/v1`
    hint: put the file back from a copy; it is not written anew, since sessions depend on it
    --- exit 8
    ");
}

#[test]
fn a_store_of_garbage_is_not_written_to() {
    let desk = Desk::with_node();
    desk.write("home/toka.sqlite", "this is no store of anything\n".repeat(400));
    let before = fs::read(desk.at("home/toka.sqlite")).expect("a file");
    transcript!(desk.run(&reader(GUIDE)), @r"
    $ toka run agent.yaml --root project=project --grant-requested
    --- stderr
    reader asks for:
      fs:project/docs/**#read?depth=1&exp=<us>
      tool:file-reader?depth=1&calls=200&exp=<us>
      agent:reader?live=1&exp=<us>
    error: $DIR/home/toka.sqlite is not a store of Toka: it is no SQLite file
    --- exit 8
    ");
    assert_eq!(fs::read(desk.at("home/toka.sqlite")).expect("a file"), before);
}

#[test]
fn a_store_has_one_writer_and_says_who_it_is() {
    let desk = Desk::with_node();
    let log = SqliteLog::open(desk.at("home/toka.sqlite")).expect("a store");
    let ran = desk.run(&reader(GUIDE));
    assert!(ran.err.contains(&format!("pid {}", std::process::id())), "{}", ran.err);
    transcript!(ran, @r"
    $ toka run agent.yaml --root project=project --grant-requested
    --- stderr
    reader asks for:
      fs:project/docs/**#read?depth=1&exp=<us>
      tool:file-reader?depth=1&calls=200&exp=<us>
      agent:reader?live=1&exp=<us>
    error: $DIR/home/toka.sqlite is being written by another process (pid <pid> since <time>)
    hint: one process writes a store; wait for it, or stop it
    --- exit 7
    ");
    desk.toka(&["sessions", "list"]).expect(0);
    drop(log);
    desk.run(&reader(GUIDE)).expect(0);
}

#[test]
fn an_interrupted_session_goes_on_where_it_was() {
    let (desk, session) = Desk::with_open_session();
    let before = desk.json(&["sessions", "show", &session]);
    assert_eq!(before["status"], "interrupted");
    desk.toka(&["run", "--resume", &session[..8], "--quiet"]).expect(0);
    let after = desk.json(&["sessions", "show", &session]);
    assert_eq!(after["status"], "completed");
    assert_eq!(after["calls"], 401);
    let (before, after) =
        (before["timeline"].as_array().expect("moments"), after["timeline"].as_array().expect("moments"));
    assert_eq!(&after[..before.len()], &before[..], "what was recorded stays as it was");
}

#[test]
fn what_cannot_go_on_is_said() {
    let (desk, session) = Desk::with_session();
    transcript!(desk.toka(&["run", "--resume", &session[..8]]), @r"
    $ toka run --resume <id>
    --- stderr
    error: session <id> is closed; there is nothing to go on with
    --- exit 1
    ");
    transcript!(desk.toka(&["run", "--resume", "zz"]), @r"
    $ toka run --resume zz
    --- stderr
    error: no session begins with `zz`
    hint: `toka sessions list` shows them
    --- exit 2
    ");
    transcript!(desk.toka(&["run", "--resume", &session[..8], "agent.yaml"]), @r"
    $ toka run --resume <id> agent.yaml
    --- stderr
    error: the argument '--resume <SESSION>' cannot be used with '[AGENT.yaml]'

    Usage: toka run --resume <SESSION> [AGENT.yaml]

    For more information, try '--help'.
    --- exit 2
    ");
    transcript!(desk.toka(&["run"]), @r"
    $ toka run
    --- stderr
    error: the following required arguments were not provided:
      <AGENT.yaml>

    Usage: toka run <AGENT.yaml>

    For more information, try '--help'.
    --- exit 2
    ");
}

#[test]
fn a_session_that_goes_on_reaches_the_nodes_folder_no_more_than_before() {
    let (desk, session) = Desk::with_open_session();
    let ran = desk.toka(&["run", "--resume", &session, "--root", "project=home"]);
    transcript!(ran, @r"
    $ toka run --resume <id> --root project=home
    --- stderr
    error: --root project: $DIR/home overlaps the node's own folder $DIR/home
    hint: an agent must not reach keys or store; name another folder
    --- exit 2
    ");
    fs::create_dir(desk.at("other")).expect("a folder");
    let ran = desk.toka(&["run", "--resume", &session, "--root", "project=other"]);
    transcript!(ran, @r"
    $ toka run --resume <id> --root project=other
    --- stderr
    error: --root project: the session began with $DIR/project, and that is still there
    hint: leave --root out, or begin another session
    --- exit 2
    ");
    fs::rename(desk.at("project"), desk.at("moved")).expect("moves");
    transcript!(desk.toka(&["run", "--resume", &session]), @r"
    $ toka run --resume <id>
    --- stderr
    error: --root project: $DIR/project: No such file or directory (os error 2)
    hint: --root project=DIR says which directory that is
    --- exit 2
    ");
    symlink(desk.at("home"), desk.at("project")).expect("a link");
    desk.toka(&["run", "--resume", &session]).expect(2);
    desk.toka(&["run", "--resume", &session, "--root", "project=moved", "--quiet"]).expect(0);
}
