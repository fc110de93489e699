//! Limits: space, output, time, processes and memory end where they were said to, and nothing is left behind.

use serde_json::json;

use super::{Lab, alive, wait_until};

#[test]
fn a_full_workspace_is_the_programs_own_affair() {
    Lab::each(|lab| {
        lab.tool(
            "filler",
            "list, read",
            "fs: { tmp_bytes: 1MiB, tmp_inodes: 64 }, workspace: { bytes: 2MiB, inodes: 64 }",
        );
        let code = r#"
def fill(folder):
    taken = 0
    with open(folder + "/large", "wb", buffering=0) as file:
        while True:
            count = tried(file.write, bytes(65536))
            if isinstance(count, str):
                os.unlink(folder + "/large")
                return [taken, count]
            taken += count

def crowd(folder):
    for number in range(1000):
        made = tried(lambda: open(f"{folder}/{number}", "x").close())
        if made:
            return [number < 64, made]

found = {folder: [fill(folder), crowd(folder)] for folder in ("/workspace", "/tmp")}
found["/dev/shm"] = tried(lambda: open("/dev/shm/x", "w"))
"#;
        let full = |bytes: u64| json!([[bytes, "ENOSPC"], [true, "ENOSPC"]]);
        let expected = json!({ "/workspace": full(2 << 20), "/tmp": full(1 << 20), "/dev/shm": "ENOENT" });
        assert_eq!(*lab.call("filler", code).found(), expected);
        // The next call has all of it again.
        let code = r#"found = [open(f"{folder}/x", "wb").write(bytes(900000)) for folder in ("/workspace", "/tmp")]"#;
        assert_eq!(*lab.call("filler", code).found(), json!([900_000, 900_000]));
    });
}

/// A program that writes one known stream to both outputs, so much to each.
const FLOOD: &str = r#"
piece = bytes(range(256)) * 16
for _ in range(pieces):
    for output in (1, 2):
        rest = piece
        while rest:
            rest = rest[os.write(output, rest):]
"#;

/// The first `bytes` of what that program writes to one output.
fn flood(bytes: u64) -> Vec<u8> {
    (0..=255).cycle().take(usize::try_from(bytes).expect("a length")).collect()
}

/// A tool whose output is no result.
fn flooder(lab: &Lab, name: &str, limits: &str) {
    lab.write(&format!("{name}.py"), super::PROGRAM.replace("json.dump(found, sys.stdout)", ""));
    let spec = format!(
        "  run: {{ kind: python, path: {name}.py }}\n\
         \x20 params: [{{ name: code, type: string, required: true, max_len: 65536 }}]\n\
         \x20 outputs: {{ result: none }}\n\
         \x20 effect: idempotent\n\
         \x20 sandbox: {{ limits: {{ {limits} }} }}"
    );
    lab.manifest(name, &spec).expect(0);
}

#[test]
fn a_flood_of_output_is_ended_and_what_came_is_known() {
    Lab::each(|lab| {
        flooder(lab, "flooder", "stdout_bytes: 64KiB, stderr_bytes: 32KiB, output_total_bytes: 1MiB");
        for (pieces, outcome, cut) in [
            // Without end; and more than is allowed, at once and then over.
            (1 << 20, "limit-exceeded/5", 3),
            (130, "limit-exceeded/5", 3),
            (100, "succeeded/0", 3),
            (10, "succeeded/0", 2),
            (8, "succeeded/0", 0),
        ] {
            let code = format!("code={}", json!(format!("pieces = {pieces}\n{FLOOD}")));
            let called = lab.call_with("flooder", &[&code]);
            called.ended(outcome);
            assert_eq!(called.finished.sandbox.as_ref().expect("it ran").cut, cut, "{}", called.record);
            let mut total = 0;
            for (stream, kept_max) in [("stdout", 64 << 10), ("stderr", 32 << 10)] {
                let told = &called.record[stream];
                let bytes = told["bytes"].as_u64().expect("a length");
                let whole = flood(bytes);
                assert_eq!(told["blake3"], blake3::hash(&whole).to_hex().as_str(), "{pieces} {stream}");
                assert_eq!(told["kept"], bytes.min(kept_max));
                if stream == "stdout" && bytes > kept_max {
                    let end = whole.len() - (16 << 10);
                    assert!(called.stdout == [&whole[..48 << 10], &whole[end..]].concat(), "its two ends are kept");
                }
                total += bytes;
            }
            if outcome == "succeeded/0" {
                assert_eq!(total, pieces * 8192);
            } else {
                // What was read when the bound was passed, and no more.
                assert!((1 << 20..=(1 << 20) + (64 << 10)).contains(&total), "{total}");
            }
        }
    });
}

/// An agent whose steps are calls of tools.
pub(super) fn agent(name: &str, steps: &[(&str, &str)]) -> String {
    let mut text = format!(
        "apiVersion: toka/v1\n\
         kind: Agent\n\
         metadata: {{ name: {name}, version: 1.0.0 }}\n\
         spec:\n\
         \x20 tools: [ \"*\" ]\n\
         \x20 capabilities: [ \"fs:project/**#list,read\", \"tool:*\", \"agent:sibling?live=1\" ]\n\
         \x20 program:\n\
         \x20   script:\n\
         \x20     steps:\n"
    );
    for (number, (tool, code)) in (0..).zip(steps) {
        let mut args = json!({ "code": code });
        if *tool != "flooder" {
            args["path"] = json!("project:docs");
        }
        let call = json!({ "tool": tool, "args": args });
        text += &format!("        - {{ id: s{number}, call: {call}, on_error: continue }}\n");
    }
    text
}

#[test]
fn a_flood_does_not_stay_in_the_supervisor() {
    let bound_kib = 32 << 10;
    Lab::each(|lab| {
        flooder(lab, "flooder", "output_total_bytes: 100MiB");
        lab.tool("waiter", "list, read", "");
        let endless = format!("pieces = 1 << 30\n{FLOOD}");
        let steps = [("waiter", "wait_for('one')"), ("flooder", &endless), ("waiter", "wait_for('two')")];
        let mut run = lab.start(&[("agent.yaml", &agent("agent", &steps))]);
        // Both times are measured while a program waits for us, so that there is something to measure.
        run.await_kind("CallAdmitted", 1);
        let idle = run.peak_kib();
        lab.write("project/docs/one", "");
        run.await_kind("CallFinished", 2);
        let peak = run.peak_kib();
        lab.write("project/docs/two", "");
        let finished = lab.finished(run.end()["session"].as_str().expect("a session"));
        finished[0].ended("succeeded/0");
        let flood = finished[1].ended("limit-exceeded/5");
        finished[2].ended("succeeded/0");
        let total: u64 = ["stdout", "stderr"].iter().filter_map(|name| flood.record[name]["bytes"].as_u64()).sum();
        assert!(total >= 100 << 20, "{total}");
        assert!(peak < idle + bound_kib, "{idle} KiB before the flood, {peak} KiB after it");
    });
}

/// Fifty processes that nobody waits for, each in a session of its own and deaf to requests to end.
const DAEMONS: &str = r#"
for number in range(50):
    if os.fork() == 0:
        os.setsid()
        for name in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
            signal.signal(name, signal.SIG_IGN)
        if os.fork() == 0:
            os.execv("/bin/sleep", ["sleep", mark])
        os._exit(0)
    os.wait()
"#;

#[test]
fn nobody_survives_the_end_of_a_call() {
    Lab::each(|lab| {
        lab.tool("daemons", "list, read", "limits: { wall: 3s, grace: 100ms, pids: 128 }");
        let stay = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: time.sleep(1)";
        for (then, outcome, number) in [
            (stay, "timed-out/0", 1),
            // Asked to end, it does; it was our clock all the same.
            ("signal.signal(signal.SIGTERM, lambda *_: os._exit(0))\nwhile True: time.sleep(1)", "timed-out/0", 2),
            // Of itself, as soon as somebody has seen the processes.
            ("wait_for('seen')", "succeeded/0", 3),
        ] {
            let mark = format!("4000.{number}{:08}", std::process::id());
            assert_eq!(alive(&mark), 0);
            let code = format!("code={}", json!(format!("mark = '{mark}'\n{DAEMONS}\n{then}")));
            let mut run = lab.live(&Lab::call_args("daemons", &["path=project:docs", &code]));
            wait_until("fifty daemons", || alive(&mark) >= 50);
            lab.write("project/docs/seen", "");
            let told = run.line().expect("one document");
            run.child.wait().expect("ends");
            assert_eq!(alive(&mark), 0, "they outlive a call that ended as {}", told["outcome"]);
            lab.finished(told["session"].as_str().expect("a session"))[0].ended(outcome);
            std::fs::remove_file(lab.desk.at("project/docs/seen")).expect("removes");
        }
    });
}

#[test]
fn time_that_a_program_takes_ends() {
    Lab::each(|lab| {
        lab.tool("worker", "list, read", "limits: { cpu: 500ms, wall: 8s, grace: 100ms }");
        lab.tool("sleeper", "list, read", "limits: { wall: 400ms, grace: 100ms }");
        let busy = "while True: pass";
        for (tool, code, outcome) in [
            ("worker", busy.to_owned(), "limit-exceeded/1"),
            // The time of a call is that of all its processes.
            ("worker", format!("os.fork(); os.fork()\n{busy}"), "limit-exceeded/1"),
            (
                "worker",
                "for _ in range(500):\n  if os.fork() == 0:\n    while time.process_time() < 0.05: pass\n    os._exit(0)\n  os.wait()".to_owned(),
                "limit-exceeded/1",
            ),
            ("worker", "time.sleep(1)\nwhile time.process_time() < 0.2: pass".to_owned(), "succeeded/0"),
            ("sleeper", "time.sleep(60)".to_owned(), "timed-out/0"),
            ("sleeper", "os.kill(os.getpid(), signal.SIGSTOP)".to_owned(), "timed-out/0"),
            ("sleeper", "time.sleep(0.01)".to_owned(), "succeeded/0"),
        ] {
            let called = lab.call(tool, &code);
            called.ended(outcome);
            let sandbox = called.finished.sandbox.as_ref().expect("it ran");
            // Between two looks each core can do more.
            let most = 500_000 + 1_000_000;
            assert!(sandbox.cpu_us < most, "{code} took {} µs", sandbox.cpu_us);
            let wall = sandbox.ended_us - sandbox.started_us;
            assert!(wall < 5_000_000, "{code} took {wall} µs");
        }
    });
}

/// An agent that starts another beside it and calls the bomb; the other calls a harmless tool.
fn siblings(tool: &str, bomb: &str) -> [(String, String); 2] {
    let spawn =
        "        - { id: other, spawn: { spec: sibling, grants: [ \"fs:project/**#list,read\", \"tool:*\" ] } }\n";
    let top = agent("top", &[(tool, bomb)]).replace("steps:\n", &format!("steps:\n{spawn}"))
        + "        - { id: done, wait: { agents: [ other ] } }\n";
    let sibling = agent("sibling", &[("waiter", "wait_for('burst'); found = 'worked'")]);
    [("top.yaml".to_owned(), top), ("sibling.yaml".to_owned(), sibling.replace(", \"agent:sibling?live=1\"", ""))]
}

#[test]
fn a_bomb_hurts_nobody_else() {
    let forks = r#"
count = 0
while True:
    child = tried(os.fork)
    if child == 0:
        time.sleep(60)
        os._exit(0)
    if isinstance(child, str):
        break
    count += 1
found = [1 < count < 24, child]
"#;
    let heap = r#"
try:
    held = []
    while True:
        held.append(bytearray(b"x") * (1 << 20))
except MemoryError:
    found = ["MemoryError", 16 < len(held) < 128]
"#;
    // None of them has more than it may; together they have.
    let heaps = r#"
for number in range(4):
    if os.fork() == 0:
        held = bytearray(b"x") * (60 << 20)
        time.sleep(60)
time.sleep(60)
"#;
    Lab::each(|lab| {
        lab.tool("forker", "list, read", "limits: { pids: 24, wall: 10s, grace: 100ms }");
        lab.tool("hoarder", "list, read", "limits: { memory_bytes: 128MiB, wall: 10s, grace: 100ms }");
        lab.tool("waiter", "list, read", "limits: { wall: 10s }");
        for (tool, bomb, outcome, result) in [
            ("forker", forks, "succeeded/0", json!([true, "EAGAIN"])),
            ("hoarder", heap, "succeeded/0", json!(["MemoryError", true])),
            ("hoarder", heaps, "limit-exceeded/2", json!(null)),
        ] {
            // A bomb that ends of itself stays until its sibling has worked.
            let armed = format!("{bomb}\nwait_for('worked')");
            let files = siblings(tool, &armed);
            let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
            let mut run = lab.start(&files);
            run.await_kind("CallAdmitted", 2);
            lab.write("project/docs/burst", "");
            run.await_kind("CallFinished", 1);
            lab.write("project/docs/worked", "");
            let session = run.end()["session"].as_str().expect("a session").to_owned();
            let finished = lab.finished(&session);
            let (worked, bombs): (Vec<_>, Vec<_>) = finished.iter().partition(|called| called.result == "worked");
            assert_eq!((worked.len(), bombs.len()), (1, 1));
            worked[0].ended("succeeded/0");
            bombs[0].ended(outcome);
            assert_eq!(bombs[0].result, result);
            for name in ["burst", "worked"] {
                std::fs::remove_file(lab.desk.at("project/docs").join(name)).expect("removes");
            }
        }
    });
}

#[test]
fn memory_that_processes_share_counts_once() {
    // Sixty mebibytes, seven times over if each process counted them.
    let shared = r#"
held = bytearray(b"x") * (60 << 20)
children = []
for number in range(6):
    child = os.fork()
    if child == 0:
        time.sleep(0.4)
        os._exit(0)
    children.append(child)
found = [os.waitpid(child, 0)[1] for child in children] + [len(held) >> 20]
"#;
    // The same pages, written to by each, are so many pages.
    let own = shared.replace(
        "        time.sleep(0.4)",
        "        for at in range(0, len(held), 4096): held[at] = 1\n        time.sleep(60)",
    );
    Lab::each(|lab| {
        lab.tool("sharer", "list, read", "limits: { memory_bytes: 128MiB, wall: 10s, grace: 100ms }");
        assert_eq!(*lab.call("sharer", shared).found(), json!([0, 0, 0, 0, 0, 0, 60]));
        lab.call("sharer", &own).ended("limit-exceeded/2");
    });
}
