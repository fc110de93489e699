//! `toka tools`: from a manifest to a call, and what stands in between.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, chown};
use std::process::Stdio;

use serde_json::Value;

use super::{Desk, transcript};

const COUNTER: &str = "\
apiVersion: toka/v1
kind: Tool
metadata: { name: counter, version: 1.0.0, description: Counts the bytes of a file. }
spec:
  run: { kind: python, path: counter.py }
  params:
    - { name: path, type: path, required: true, access: [read] }
  outputs: { result: json }
  effect: read
";

const SCRIPT: &str = "\
import json, sys
path = json.load(sys.stdin)['path']
print(json.dumps({'bytes': len(open(path, 'rb').read())}))
";

/// A node, a project, and a tool that nobody has registered.
fn desk() -> Desk {
    let desk = Desk::with_node();
    desk.write("tools/counter.tool.yaml", COUNTER);
    desk.write("tools/counter.py", SCRIPT);
    desk
}

const CALL: [&str; 6] = ["tools", "call", "counter", "path=project:docs/guide.md", "--root", "project=project"];

#[test]
fn a_tool_of_ones_own_is_registered_approved_and_called() {
    let desk = desk();
    transcript!(desk.toka(&["tools", "register", "tools/counter.tool.yaml"]), @r"
    $ toka tools register tools/counter.tool.yaml
    counter  proposed
    --- stderr
    next: toka tools show NAME, then toka tools approve NAME
    --- exit 0
    ");
    transcript!(desk.toka(&CALL), @r"
    $ toka tools call counter path=project:docs/guide.md --root project=project
    --- stderr
    error: tool `counter` is proposed, and only approved tools run
    hint: look at it with `toka tools show counter`, then `toka tools approve counter`
    --- exit 5
    ");
    desk.toka(&["tools", "approve", "counter"]).expect(0);
    transcript!(desk.toka(&CALL), @r#"
    $ toka tools call counter path=project:docs/guide.md --root project=project
    {
      "bytes": 6
    }
    --- exit 0
    "#);
    let called = desk.json(&CALL);
    assert_eq!((&called["schema"], &called["outcome"]), (&"toka/call/1".into(), &"succeeded".into()));
    assert_eq!(called["record"]["stdout"]["bytes"], 13);
    let listed = desk.json(&["tools", "list"]);
    let listed = listed["tools"].as_array().expect("tools").clone();
    let names: Vec<&str> = listed.iter().filter_map(|tool| tool["name"].as_str()).collect();
    let own = ["code.python", "code.shell", "code.wasm", "counter", "file-lister", "file-reader", "file-writer"];
    assert_eq!(names, [&own[..], &["release-hasher", "validate-dates", "validate-links"]].concat());
    assert_eq!((&listed[3]["state"], &listed[3]["level"]), (&"approved".into(), &"strong".into()));
    desk.toka(&["tools", "approve", "counter"]).expect(5);
    desk.toka(&["replay", "verify", "--root", "home/keys/root.pub"]).expect(0);
}

#[test]
fn an_agent_uses_a_tool_within_its_grants_and_is_refused_beyond_them() {
    let desk = desk();
    desk.toka(&["tools", "register", "tools/counter.tool.yaml", "--approve"]).expect(0);
    let steps = "{ id: fine, call: { tool: counter, args: { path: \"project:docs/guide.md\" } } }";
    let beyond = "{ id: beyond, call: { tool: counter, args: { path: \"project:secret.txt\" } }, on_error: continue }";
    let agent = super::agents::reader(&format!("{steps}\n{beyond}")).replace("file-reader", "counter");
    let session = desk.session(&agent);
    let shown = desk.toka(&["sessions", "show", &session]);
    shown.expect(0);
    assert!(shown.out.contains("counter succeeded"), "{shown}");
    assert!(shown.out.contains("OUT_OF_SCOPE, it would need fs:project/secret.txt#read"), "{shown}");
    desk.toka(&["replay", "verify", "--session", &session, "--root", "home/keys/root.pub"]).expect(0);
}

#[test]
fn a_script_that_was_edited_does_not_run_until_it_is_approved_again() {
    let desk = desk();
    desk.toka(&["tools", "register", "tools/counter.tool.yaml", "--approve"]).expect(0);
    desk.toka(&CALL).expect(0);
    desk.write("tools/counter.py", format!("{SCRIPT}open('/workspace/x', 'w')\n"));
    let ran = desk.toka(&CALL);
    ran.expect(1);
    assert!(ran.err.contains("the call ended as pin-mismatch"), "{ran}");
    assert!(ran.err.contains("tool `counter` is quarantined"), "{ran}");
    assert_eq!(desk.json(&["tools", "show", "counter"])["state"], "quarantined");
    desk.toka(&CALL).expect(5);
    // What was approved before is approved again, but it is not what lies there.
    desk.toka(&["tools", "approve", "counter"]).expect(0);
    desk.toka(&CALL).expect(1);
    desk.toka(&["tools", "register", "tools/counter.tool.yaml", "--approve"]).expect(0);
    desk.toka(&CALL).expect(0);
}

#[test]
fn a_tool_that_drifts_in_the_midst_of_a_session_is_taken_from_it() {
    let desk = desk();
    desk.toka(&["tools", "register", "tools/counter.tool.yaml", "--approve"]).expect(0);
    desk.write("tools/counter.py", format!("{SCRIPT}open('/workspace/x', 'w')\n"));
    let step = |id| {
        format!(
            "{{ id: {id}, call: {{ tool: counter, args: {{ path: \"project:docs/guide.md\" }} }}, on_error: continue }}"
        )
    };
    let agent = super::agents::reader(&format!("{}\n{}", step("first"), step("second")));
    let session = desk.session(&agent.replace("file-reader", "counter"));
    let shown = desk.toka(&["sessions", "show", &session]);
    for told in ["counter pin-mismatch", "ToolUnbound", "TOOL_QUARANTINED"] {
        assert!(shown.out.contains(told), "{told}: {shown}");
    }
    desk.toka(&["replay", "verify", "--session", &session, "--root", "home/keys/root.pub"]).expect(0);
}

#[test]
fn the_name_of_a_tool_of_the_node_is_taken() {
    let desk = desk();
    for (name, says) in [("file-reader", "is a built-in tool"), ("validate-links", "belongs to a tool of the node")] {
        let taken = COUNTER.replace("name: counter,", &format!("name: {name},"));
        desk.write("tools/taken.tool.yaml", taken);
        let ran = desk.toka(&["tools", "register", "tools/taken.tool.yaml", "--approve"]);
        ran.expect(1);
        assert!(ran.err.contains(&format!("`{name}` {says}")), "{ran}");
    }
}

#[test]
fn tools_are_listed_while_a_session_runs() {
    let desk = desk();
    desk.toka(&["tools", "register", "tools/counter.tool.yaml"]).expect(0);
    let home = toka_runtime::Home::open(&desk.at("home")).expect("a home");
    let writer = toka_store::SqliteLog::open(home.store_path()).expect("the one writer");
    assert_eq!(desk.json(&["tools", "show", "counter"])["state"], "proposed");
    desk.toka(&["tools", "approve", "counter"]).expect(7);
    drop(writer);
    desk.toka(&["tools", "approve", "counter"]).expect(0);
}

#[test]
fn a_new_version_does_not_displace_an_approved_one_unsigned() {
    let desk = desk();
    desk.toka(&["tools", "register", "tools/counter.tool.yaml", "--approve"]).expect(0);
    desk.write("tools/counter.tool.yaml", COUNTER.replace("1.0.0", "1.1.0"));
    let ran = desk.toka(&["tools", "register", "tools/counter.tool.yaml"]);
    ran.expect(5);
    assert!(ran.err.contains("a version of this tool is approved"), "{ran}");
    assert_eq!(desk.json(&["tools", "show", "counter"])["version"], "1.0.0");
    desk.toka(&["tools", "register", "tools/counter.tool.yaml", "--approve"]).expect(0);
    assert_eq!(desk.json(&["tools", "show", "counter"])["version"], "1.1.0");
}

#[test]
fn one_bad_manifest_keeps_all_from_being_registered() {
    let desk = desk();
    desk.write("tools/bad.tool.yaml", COUNTER.replace("effect: read", "efect: read"));
    let ran = desk.toka(&["tools", "register", "--discover", "tools"]);
    ran.expect(1);
    assert!(ran.err.contains("tools/bad.tool.yaml:9:3: TOKA-"), "{ran}");
    assert!(ran.err.contains("did you mean `effect`?"), "{ran}");
    desk.toka(&["tools", "show", "counter"]).expect(2);
    desk.toka(&["tools", "check", "tools/bad.tool.yaml"]).expect(1);
    desk.toka(&["tools", "check", "tools/counter.tool.yaml"]).expect(0);
    desk.toka(&["tools", "register", "--discover", "tools", "--keep-going"]).expect(1);
    desk.toka(&["tools", "show", "counter"]).expect(0);
}

#[test]
fn what_is_right_is_registered_beside_what_is_refused_and_all_of_it_is_told() {
    let desk = desk();
    desk.toka(&["tools", "register", "tools/counter.tool.yaml", "--approve"]).expect(0);
    let named = |name: &str| COUNTER.replace("name: counter,", &format!("name: {name},"));
    // Approved, and this would displace it unsigned.
    desk.write("tools/counter.tool.yaml", COUNTER.replace("1.0.0", "1.1.0"));
    desk.write("tools/bad.tool.yaml", COUNTER.replace("effect: read", "efect: read"));
    desk.write("tools/book.tool.yaml", BOOK.replace("book.py", "counter.py"));
    desk.write("tools/taken.tool.yaml", named("validate-links"));
    desk.write("tools/zebra.tool.yaml", named("zebra"));
    let ran = desk.toka(&["tools", "register", "--discover", "tools", "--keep-going", "--json"]);
    ran.expect(1);
    let told = ran.last_json();
    let names = |list: &str| -> Vec<String> {
        let items = told[list].as_array().expect("a list").iter();
        items.map(|item| item["tool"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!((names("tools"), told["tools"][0]["state"].as_str()), (vec!["zebra".to_owned()], Some("proposed")));
    assert_eq!(names("refused"), ["validate-links", "book", "counter"], "{told}");
    assert_eq!(told["errors"].as_array().map(Vec::len), Some(1), "{told}");
    let ran = desk.toka(&["tools", "register", "--discover", "tools"]);
    assert!(ran.expect(1).err.contains("1 error in tool manifests; nothing was registered"), "{ran}");
}

#[test]
fn a_call_whose_files_could_not_be_written_is_not_made() {
    let desk = desk();
    desk.toka(&["tools", "register", "tools/counter.tool.yaml", "--approve"]).expect(0);
    let ran = desk.toka(&[&CALL[..], &["--artifacts", "project/secret.txt"]].concat());
    ran.expect(2);
    assert!(ran.err.contains("nothing was run"), "{ran}");
    let sessions = desk.json(&["sessions", "list"]);
    let sessions = sessions["sessions"].as_array().expect("sessions");
    assert!(sessions.iter().all(|session| session["status"] == "system"), "{sessions:?}");
}

#[test]
fn approving_takes_the_operator() {
    let desk = Desk::empty();
    desk.write("passphrase", "correct horse\n");
    desk.write("wrong", "battery staple\n");
    desk.write("tools/counter.tool.yaml", COUNTER);
    desk.write("tools/counter.py", SCRIPT);
    desk.toka(&["init", "--passphrase-file", "passphrase"]).expect(0);
    desk.toka(&["tools", "register", "tools/counter.tool.yaml"]).expect(0);
    transcript!(desk.toka(&["tools", "approve", "counter"]), @r"
    $ toka tools approve counter
    --- stderr
    error: the operator's key is sealed, and nobody can be asked for its passphrase
    hint: --passphrase-file FILE names a file that holds it
    --- exit 5
    ");
    assert_ne!(desk.toka(&["tools", "approve", "counter", "--passphrase-file", "wrong"]).exit, Some(0));
    assert_eq!(desk.json(&["tools", "show", "counter"])["state"], "proposed");
    desk.toka(&["tools", "approve", "counter", "--passphrase-file", "passphrase"]).expect(0);
    assert_eq!(desk.json(&["tools", "show", "counter"])["state"], "approved");
}

#[test]
fn programs_of_later_versions_say_so() {
    let desk = Desk::empty();
    for program in ["toka-orchestration", "toka-config"] {
        let ran = desk.ran(program, &["anything"]);
        ran.expect(2);
        assert!(ran.err.contains(&format!("`{program}` is not built in this version")), "{ran}");
    }
    desk.ran("toka-cli", &["--version"]).expect(0);
}

#[test]
fn a_hidden_name_is_hidden_from_an_argument_too() {
    let desk = desk();
    desk.write("project/docs/.env", "TOKEN=1");
    desk.toka(&["tools", "register", "tools/counter.tool.yaml", "--approve"]).expect(0);
    let step = "{ id: env, call: { tool: counter, args: { path: \"project:docs/.env\" } }, on_error: continue }";
    let session = desk.session(&super::agents::reader(step).replace("file-reader", "counter"));
    let shown = desk.toka(&["sessions", "show", &session]);
    assert!(shown.out.contains("counter setup-failed: root (errno 2)"), "{shown}");
    // What somebody grants by its own name is shown.
    let call = ["tools", "call", "counter", "path=project:docs/.env", "--root", "project=project"];
    desk.toka(&call).expect(0);
}

#[test]
fn an_agent_may_use_more_tools_than_one_event_binds() {
    let desk = desk();
    for number in 0..14 {
        let name = format!("counter{number}");
        desk.write(&format!("tools/{name}.tool.yaml"), COUNTER.replace("name: counter,", &format!("name: {name},")));
    }
    desk.toka(&["tools", "register", "--discover", "tools", "--approve"]).expect(0);
    let step = "{ id: last, call: { tool: counter9, args: { path: \"project:docs/guide.md\" } } }";
    let agent = super::agents::agent("\"*\"", "\"fs:project/docs/**#read\", \"tool:*\"", "", step);
    let session = desk.session(&agent);
    assert!(desk.toka(&["sessions", "show", &session]).out.contains("counter9 succeeded"));
}

#[test]
fn a_call_is_granted_the_path_that_it_names_and_no_other() {
    let desk = desk();
    desk.toka(&["tools", "register", "tools/counter.tool.yaml", "--approve"]).expect(0);
    for (path, quoted) in [
        ("**", r#"fs:project/"**"#),
        ("docs/**", r#"fs:project/docs/"**""#),
        ("a b/c d", r#"fs:project/"a b"/"c d""#),
        ("{/path}", r#"fs:project/"{"/"path}""#),
        ("x?calls=9", r#"fs:project/"x?calls=9""#),
        ("docs#write", r#"fs:project/"docs#write""#),
        (r#"say "hi""#, r#"fs:project/"say \"hi\"""#),
    ] {
        desk.write(&format!("project/{path}"), "four");
        let path = format!("path=project:{path}");
        let called = desk.json(&["tools", "call", "counter", &path, "--root", "project=project"]);
        assert_eq!((&called["outcome"], &called["result"]["bytes"]), (&"succeeded".into(), &4.into()), "{path}");
        let genesis = desk.toka(&["replay", "show", "--session", called["session"].as_str().expect("text"), "--json"]);
        let genesis = genesis.json_lines().swap_remove(0);
        let grants = genesis["body"]["grnt"].as_array().expect("grants").clone();
        let granted: Vec<&str> = grants.iter().filter_map(|grant| grant["cap"].as_str()).collect();
        let of_files: Vec<_> = granted.iter().filter(|cap| cap.starts_with("fs:")).collect();
        assert!(of_files.len() == 1 && of_files[0].starts_with(quoted), "{granted:?}");
    }
}

/// Runs an agent in `agent` and kills the engine once its first call has begun and `far_enough`. The session and the call.
fn killed_in_a_call(desk: &Desk, agent: &str, far_enough: impl Fn() -> bool) -> (String, String) {
    desk.write("slow.yaml", agent);
    let args = ["run", "slow.yaml", "--root", "project=project", "--grant-requested", "--json"];
    let told = killed_once_a_call_has_begun(desk, &args, far_enough);
    let of = |name: &str| told.iter().rev().find_map(|line| line[name].as_str()).expect("it is told").to_owned();
    (of("session"), of("started"))
}

/// Runs `toka` and kills it once a call has begun and `far_enough`. What it told until then.
fn killed_once_a_call_has_begun(desk: &Desk, args: &[&str], far_enough: impl Fn() -> bool) -> Vec<Value> {
    let mut engine = desk.command("toka", args).stdout(Stdio::piped()).spawn().expect("toka starts");
    let lines = BufReader::new(engine.stdout.take().expect("piped")).lines();
    let mut told = Vec::new();
    for line in lines {
        told.push(serde_json::from_str::<Value>(&line.expect("text")).expect("JSON"));
        if told.last().is_some_and(|line| line["started"].is_string()) {
            break;
        }
    }
    while !far_enough() {
        assert!(engine.try_wait().expect("asked").is_none(), "it has ended by itself");
        std::thread::yield_now();
    }
    engine.kill().expect("kills");
    engine.wait().expect("ends");
    told
}

/// Runs an agent whose only step is a call that must not run twice, and kills the engine while it runs. The call.
fn killed_in_a_call_that_must_not_run_twice(desk: &Desk) -> (String, String) {
    let slow = COUNTER.replace("effect: read", "effect: once").replace("counter", "slow");
    desk.write("tools/slow.tool.yaml", slow);
    desk.write("tools/slow.py", "import time\ntime.sleep(25)\n");
    desk.toka(&["tools", "register", "tools/slow.tool.yaml", "--approve"]).expect(0);
    let step = "{ id: slow, call: { tool: slow, args: { path: \"project:docs/guide.md\" } } }";
    killed_in_a_call(desk, &super::agents::reader(step).replace("file-reader", "slow"), || true)
}

const BOOK: &str = "\
apiVersion: toka/v1
kind: Tool
metadata: { name: book, version: 1.0.0, description: Writes its call into a ledger. }
spec:
  run: { kind: python, path: book.py }
  params:
    - { name: ledger, type: path, required: true, access: [create, list, read, write] }
  effect: reconcile
  probe: { tool: booked, params: { ledger: { arg: ledger }, id: { call: id } } }
";

const BOOKED: &str = "\
apiVersion: toka/v1
kind: Tool
metadata: { name: booked, version: 1.0.0, description: Tells whether a call stands in a ledger. }
spec:
  run: { kind: python, path: booked.py }
  params:
    - { name: ledger, type: path, required: true, access: [list, read] }
    - { name: id, type: string, required: true }
  outputs: { result: text }
  effect: read
";

const BOOKED_SCRIPT: &str = "\
import json, os, sys, time
asked = json.load(sys.stdin)
ledger = asked['ledger']
while os.path.exists(ledger + '/wait'):
    time.sleep(0.01)
lines = open(ledger + '/lines').read().split() if os.path.exists(ledger + '/lines') else []
print('unknown' if os.path.exists(ledger + '/lost') else 'done' if asked['id'] in lines else 'not_done')
";

/// A node with a tool that writes into a ledger before or after a long wait, and with the probe of that tool.
fn bookkeeping(before: bool) -> Desk {
    let desk = desk();
    let out = desk.at("project/out");
    std::fs::create_dir_all(&out).expect("a folder");
    // A program writes only where somebody else than root owns the folder.
    if std::fs::metadata(&out).expect("a folder").uid() == 0 {
        chown(&out, Some(65_534), Some(65_534)).expect("root gives files away");
    }
    let (wait, write) = (
        "open(ledger + '/here', 'w')\nif not os.path.exists(ledger + '/go'): time.sleep(25)\n",
        "open(ledger + '/lines', 'a').write(os.environ['TOKA_CALL_ID'] + '\\n')\n",
    );
    let (first, second) = if before { (write, wait) } else { (wait, write) };
    let script = format!(
        "import json, os, sys, time\nos.umask(0o022)\nledger = json.load(sys.stdin)['ledger']\n{first}{second}print('ok')\n"
    );
    desk.write("tools/book.tool.yaml", BOOK);
    desk.write("tools/book.py", script);
    desk.write("tools/booked.tool.yaml", BOOKED);
    desk.write("tools/booked.py", BOOKED_SCRIPT);
    desk.toka(&["tools", "register", "--discover", "tools", "--approve"]).expect(0);
    desk
}

/// An agent that books, with one more line in its `spec` and these steps behind.
fn bookkeeper(line: &str, steps: &str) -> String {
    let capabilities = r#""fs:project/out/**#create,list,read,write", "fs:project/docs/**#read", "tool:*""#;
    let book = r#"{ id: book, call: { tool: book, args: { ledger: "project:out" } } }"#;
    super::agents::agent("book, file-reader", capabilities, line, &format!("{book}\n{steps}"))
}

/// As [`bookkeeping`], and the call that was killed in that wait.
fn killed_while_booking(before: bool) -> (Desk, String, String) {
    let desk = bookkeeping(before);
    let here = desk.at("project/out/here");
    let (session, call) = killed_in_a_call(&desk, &bookkeeper("", ""), || here.exists());
    (desk, session, call)
}

/// Calls that stand in the ledger.
fn booked(desk: &Desk) -> usize {
    std::fs::read_to_string(desk.at("project/out/lines")).map_or(0, |lines| lines.lines().count())
}

#[test]
fn a_call_that_was_done_before_a_crash_is_not_done_again() {
    let (desk, session, _) = killed_while_booking(true);
    desk.toka(&["run", "--resume", &session]).expect(0);
    assert_eq!(booked(&desk), 1);
    let shown = desk.toka(&["sessions", "show", &session]);
    assert!(shown.out.contains("booked succeeded") && shown.out.contains("book succeeded"), "{shown}");
    desk.toka(&["replay", "verify", "--session", &session, "--root", "home/keys/root.pub"]).expect(0);
}

#[test]
fn a_call_that_was_not_done_before_a_crash_is_done_once() {
    let (desk, session, _) = killed_while_booking(false);
    assert_eq!(booked(&desk), 0);
    desk.write("project/out/go", "");
    desk.toka(&["run", "--resume", &session]).expect(0);
    assert_eq!(booked(&desk), 1);
    desk.toka(&["replay", "verify", "--session", &session, "--root", "home/keys/root.pub"]).expect(0);
}

#[test]
fn a_call_by_itself_is_granted_what_its_probe_needs() {
    let desk = bookkeeping(true);
    let call = ["tools", "call", "book", "ledger=project:out", "--root", "project=project"];
    let mut engine = desk.command("toka", &call).stdout(Stdio::null()).spawn().expect("toka starts");
    while !desk.at("project/out/here").exists() {
        assert!(engine.try_wait().expect("asked").is_none(), "it has ended by itself");
        std::thread::yield_now();
    }
    engine.kill().expect("kills");
    engine.wait().expect("ends");
    let sessions = desk.json(&["sessions", "list"]);
    let sessions = sessions["sessions"].as_array().expect("sessions").clone();
    let open = sessions.iter().find(|session| session["status"] == "interrupted").expect("a session");
    desk.toka(&["run", "--resume", open["session"].as_str().expect("an id")]).expect(0);
    assert_eq!(booked(&desk), 1);
}

#[test]
fn what_a_probe_is_asked_counts_against_no_budget_of_the_agent() {
    let desk = bookkeeping(true);
    let here = desk.at("project/out/here");
    let agent = bookkeeper("budget: { calls: 2 }", super::agents::GUIDE).replace("\"tool:*\"", "\"tool:*?calls=9\"");
    let (session, _) = killed_in_a_call(&desk, &agent, || here.exists());
    let ran = desk.toka(&["run", "--resume", &session]);
    assert_eq!(ran.exit, Some(0), "{ran}");
    let shown = desk.toka(&["sessions", "show", &session]);
    assert_eq!(shown.out.matches("CallAdmitted").count(), 3, "{shown}");
}

#[test]
fn a_probe_that_a_crash_interrupted_is_not_asked_again_beside_itself() {
    let (desk, session, _) = killed_while_booking(true);
    desk.write("project/out/wait", "");
    for _ in 0..3 {
        let told = killed_once_a_call_has_begun(&desk, &["run", "--resume", &session, "--json"], || true);
        assert!(told.iter().any(|line| line["started"].is_string()), "{told:?}");
    }
    std::fs::remove_file(desk.at("project/out/wait")).expect("removes");
    desk.toka(&["run", "--resume", &session]).expect(0);
    let shown = desk.toka(&["sessions", "show", &session]);
    assert_eq!(shown.out.matches("CallAdmitted").count(), 2, "the call and one probe: {shown}");
    assert_eq!(booked(&desk), 1);
    desk.toka(&["replay", "verify", "--session", &session, "--root", "home/keys/root.pub"]).expect(0);
}

#[test]
fn a_call_that_every_run_dies_of_is_lost_after_four_attempts() {
    let desk = Desk::with_node();
    let manifest = "apiVersion: toka/v1\nkind: Tool\nmetadata: { name: hold, version: 1.0.0, description: Waits. }\n\
        spec:\n  run: { kind: shell, path: hold.sh }\n  needs: [ \"fs:project/docs/**#read\" ]\n  effect: read\n";
    desk.write("tools/hold.tool.yaml", manifest);
    desk.write("tools/hold.sh", "until [ -e /roots/project/docs/go ]; do :; done\n");
    desk.toka(&["tools", "register", "tools/hold.tool.yaml", "--approve"]).expect(0);
    let agent = super::agents::agent(
        "hold",
        "\"tool:hold\", \"fs:project/docs/**#read\"",
        "",
        "{ id: wait, call: { tool: hold, args: {} } }",
    );
    let (session, _) = killed_in_a_call(&desk, &agent, || true);
    for _ in 0..3 {
        let told = killed_once_a_call_has_begun(&desk, &["run", "--resume", &session, "--json"], || true);
        assert!(told.iter().any(|line| line["kind"] == "CallAttempted"), "{told:?}");
    }
    desk.toka(&["run", "--resume", &session]).expect(1);
    let shown = desk.toka(&["sessions", "show", &session]);
    let count = |what: &str| shown.out.matches(what).count();
    assert_eq!((count("CallAdmitted"), count("CallAttempted"), count("hold lost")), (1, 3, 1), "{shown}");
    desk.toka(&["replay", "verify", "--session", &session, "--root", "home/keys/root.pub"]).expect(0);
}

#[test]
fn a_probe_that_nobody_has_approved_is_named_before_anything_runs() {
    let desk = bookkeeping(true);
    desk.write("tools/booked.tool.yaml", BOOKED.replace("name: booked", "name: proposed"));
    desk.toka(&["tools", "register", "tools/booked.tool.yaml"]).expect(0);
    desk.write("tools/book.tool.yaml", BOOK.replace("tool: booked", "tool: proposed").replace("1.0.0", "2.0.0"));
    desk.toka(&["tools", "register", "tools/book.tool.yaml", "--approve"]).expect(0);
    let ran = desk.run(&bookkeeper("", ""));
    ran.expect(5);
    assert!(ran.err.contains("tool `proposed` is not approved, and `book` needs it as its probe"), "{ran}");
    assert!(ran.err.contains("`toka tools approve proposed`"), "{ran}");
    assert!(!desk.at("project/out/here").exists());
}

#[test]
fn a_probe_that_was_replaced_is_not_asked_and_a_person_is() {
    let (desk, session, call) = killed_while_booking(true);
    desk.write("tools/booked.tool.yaml", BOOKED.replace("1.0.0", "2.0.0"));
    desk.toka(&["tools", "register", "tools/booked.tool.yaml", "--approve"]).expect(0);
    let ran = desk.toka(&["run", "--resume", &session]);
    ran.expect(4);
    assert!(ran.err.contains("its probe `booked` is not the version with which the session began"), "{ran}");
    assert!(ran.err.contains(&format!("{call} done|not-done|abandon")), "{ran}");
    desk.toka(&["calls", "resolve", &session, &call, "done"]).expect(0);
    desk.toka(&["run", "--resume", &session]).expect(0);
    assert!(!desk.toka(&["sessions", "show", &session]).out.contains("pin-mismatch"));
}

#[test]
fn a_probe_that_does_not_know_leaves_the_call_to_a_person() {
    let (desk, session, call) = killed_while_booking(true);
    desk.write("project/out/lost", "");
    let ran = desk.toka(&["run", "--resume", &session]);
    ran.expect(4);
    assert!(ran.err.contains(&format!("nobody knows what came of call {call} of `book`")), "{ran}");
    desk.toka(&["calls", "resolve", &session, &call, "done"]).expect(0);
    desk.toka(&["run", "--resume", &session]).expect(0);
    assert_eq!(booked(&desk), 1);
}

#[test]
fn a_probe_is_a_tool_that_changes_nothing() {
    let desk = desk();
    desk.write("tools/book.tool.yaml", BOOK);
    desk.write("tools/book.py", "");
    let wrong = [
        (None, "is no tool of `effect: read` here"),
        (Some(BOOKED.replace("effect: read", "effect: idempotent")), "is no tool of `effect: read` here"),
        (Some(BOOKED.replace("result: text", "result: json")), "does not answer in text"),
        (Some(BOOKED.replace("name: id", "name: call")), "takes no `id`"),
        (
            Some(BOOKED.replace("  outputs", "    - { name: when, type: string, required: true }\n  outputs")),
            "its `when`",
        ),
    ];
    for (other, says) in wrong {
        let register: &[&str] = match &other {
            None => &["tools/book.tool.yaml"],
            Some(manifest) => {
                desk.write("tools/booked.tool.yaml", manifest);
                desk.write("tools/booked.py", BOOKED_SCRIPT);
                &["tools/book.tool.yaml", "tools/booked.tool.yaml"]
            }
        };
        let ran = desk.toka(&[&["tools", "register"], register].concat());
        ran.expect(1);
        assert!(ran.err.contains("the probe `booked` of `book`") && ran.err.contains(says), "{ran}");
        desk.toka(&["tools", "show", "book"]).expect(2);
    }
    desk.write("tools/booked.tool.yaml", BOOKED);
    desk.toka(&["tools", "register", "--discover", "tools", "--approve"]).expect(0);
    let shown = desk.toka(&["tools", "show", "book"]);
    assert!(shown.out.contains("probe   booked(id = its id, ledger = its ledger)"), "{shown}");
    // What is a probe stays one.
    desk.write("tools/booked.tool.yaml", BOOKED.replace("effect: read", "effect: once").replace("1.0.0", "2.0.0"));
    desk.toka(&["tools", "register", "tools/booked.tool.yaml", "--approve"]).expect(1);
    assert_eq!(desk.json(&["tools", "show", "booked"])["version"], "1.0.0");
}

#[test]
fn a_call_that_must_not_run_twice_waits_for_a_person_after_a_crash() {
    for (verdict, exit) in [("done", 0), ("not-done", 1), ("abandon", 1)] {
        let desk = desk();
        let (session, call) = killed_in_a_call_that_must_not_run_twice(&desk);
        desk.toka(&["calls", "resolve", &session, &call, "done"]).expect(5);
        for _ in 0..2 {
            let ran = desk.toka(&["run", "--resume", &session]);
            ran.expect(4);
            assert!(ran.err.contains(&format!("nobody knows what came of call {call} of `slow`")), "{ran}");
            assert!(ran.err.contains(&format!("{call} done|not-done|abandon")), "{ran}");
        }
        desk.toka(&["calls", "resolve", &session, &call, verdict, "--evidence", "looked at it"]).expect(0);
        desk.toka(&["calls", "resolve", &session, &call, verdict]).expect(5);
        let shown = desk.toka(&["calls", "show", &session, &call]);
        assert!(shown.out.contains(&format!("resolved: {verdict} (seq ")), "{shown}");
        assert!(shown.out.contains("evidence: looked at it"), "{shown}");
        let shown = desk.json(&["calls", "show", &session, &call]);
        let resolved = (&shown["resolved"]["verdict"], &shown["resolved"]["evidence"]);
        assert_eq!(resolved, (&verdict.into(), &"looked at it".into()));
        desk.toka(&["run", "--resume", &session]).expect(exit);
        let shown = desk.toka(&["sessions", "show", &session]);
        assert_eq!(shown.out.matches("CallAdmitted").count(), 1, "it ran once: {shown}");
        assert!(shown.out.contains("slow unknown"), "{shown}");
        desk.toka(&["replay", "verify", "--session", &session, "--root", "home/keys/root.pub"]).expect(0);
    }
}
