//! WASM guests through the shipped binaries. What a guest can try by itself is tested in `runtime/wasm/tests`.

use std::fs;

use serde_json::json;
use toka_kernel::Body;
use toka_kernel::hash::{Context, derive};
use toka_kernel::ids::Bytes;
use toka_kernel::tool::Level;
use toka_tests::programs::program;
use toka_wasm::{End, Job};

use super::{Called, Lab};

/// A module whose `_start` is `body`.
pub(super) fn module(body: &str) -> Vec<u8> {
    let text = format!(
        "(module
           (import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32)))
           (import \"wasi_snapshot_preview1\" \"fd_write\" (func $write (param i32 i32 i32 i32) (result i32)))
           (import \"wasi_snapshot_preview1\" \"fd_read\" (func $read (param i32 i32 i32 i32) (result i32)))
           (import \"wasi_snapshot_preview1\" \"random_get\" (func $random (param i32 i32) (result i32)))
           (import \"wasi_snapshot_preview1\" \"clock_time_get\" (func $clock (param i32 i64 i32) (result i32)))
           (import \"toka\" \"result_write\" (func $result (param i32 i32) (result i32)))
           (import \"toka\" \"cap_check\" (func $check (param i32 i32) (result i32)))
           (import \"toka\" \"cap_list\" (func $list (param i32 i32) (result i32)))
           (memory (export \"memory\") 1)
           (data (i32.const 16) \"\\00\\10\\00\\00\\00\\10\\00\\00\")
           (func (export \"_start\") {body}))"
    );
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Copies standard input to standard output, 4 KiB of it.
pub(super) const ECHO: &str = "
    (drop (call $read (i32.const 0) (i32.const 16) (i32.const 1) (i32.const 24)))
    (i32.store (i32.const 20) (i32.load (i32.const 24)))
    (drop (call $write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 24)))";

/// Hands back 32 random bytes and two readings of the clock, in letters.
const DRAWS: &str = "(local $i i32)
    (drop (call $random (i32.const 8192) (i32.const 32)))
    (drop (call $clock (i32.const 0) (i64.const 0) (i32.const 8224)))
    (drop (call $clock (i32.const 0) (i64.const 0) (i32.const 8232)))
    (loop $each
      (i32.store8 offset=4096 (i32.shl (local.get $i) (i32.const 1))
        (i32.add (i32.const 97) (i32.shr_u (i32.load8_u offset=8192 (local.get $i)) (i32.const 4))))
      (i32.store8 offset=4097 (i32.shl (local.get $i) (i32.const 1))
        (i32.add (i32.const 97) (i32.and (i32.load8_u offset=8192 (local.get $i)) (i32.const 15))))
      (br_if $each (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 48))))
    (drop (call $result (i32.const 4096) (i32.const 96)))";

const ENDLESS: &str = "(loop $again (br $again))";

impl Lab {
    /// Registers and approves a guest with these further lines of `spec`.
    fn guest(&self, name: &str, module: &[u8], more: &str) {
        self.write(&format!("{name}.wasm"), module);
        self.manifest(name, &format!("  run: {{ kind: wasm, path: {name}.wasm }}\n{more}")).expect(0);
    }

    fn guest_called(&self, name: &str, module: &[u8], more: &str) -> Called {
        self.guest(name, module, more);
        self.call_with(name, &[])
    }
}

#[test]
fn a_guest_runs_in_a_jail_and_the_record_says_all_that_it_saw() {
    Lab::each(|lab| {
        let bytes = module(DRAWS);
        let one = lab.guest_called("draws", &bytes, "  effect: read");
        let text = one.found().as_str().expect("text").to_owned();
        let wasm = one.finished.wasm.clone().expect("a record");
        assert_eq!(wasm.module.0, *blake3::hash(&bytes).as_bytes());
        let events = lab.events(&one.session);
        let opened = events.iter().find_map(|(_, event)| match &event.body {
            Body::SessionOpened(opened) => Some(opened.seed),
            _ => None,
        });
        let admitted = events.iter().find(|(_, event)| matches!(event.body, Body::CallAdmitted(_))).expect("admitted");
        assert_eq!((wasm.clock_us, wasm.step_us), (admitted.0.header().time_us, 1_000));
        let seed = opened.expect("a genesis");
        assert_eq!(wasm.seed, derive(Context::GuestSeed, &[&seed.0, &one.finished.call.0]));
        // The record is enough to do the same once more.
        let job = Job {
            argv: vec!["/tool/draws.wasm".to_owned()],
            stdin: Bytes(b"{}".to_vec()),
            params: Bytes(b"{}".to_vec()),
            envelope: vec!["tool:draws".to_owned()],
            seed: wasm.seed.0,
            clock_us: wasm.clock_us,
            step_us: wasm.step_us,
            fuel: 10_000_000_000,
            memory_bytes: 512 << 20,
            stack_bytes: 1 << 20,
            table_elements: 20_000,
            wall_us: 30_000_000,
            result_max: 1 << 20,
            output_max: 64 << 20,
        };
        let again = toka_wasm::run(job, bytes, [Box::new(std::io::sink()), Box::new(std::io::sink())]);
        assert_eq!((again.end, again.fuel), (End::Returned, wasm.fuel));
        assert_eq!(again.engine, wasm.engine.0);
        assert_eq!(again.result.map(|result| result.0), Some(text.clone().into_bytes()));
        // Another call sees another world.
        let two = lab.call_with("draws", &[]);
        let other = two.finished.wasm.as_ref().expect("a record");
        assert_ne!(other.seed, wasm.seed);
        assert_ne!(two.found().as_str().expect("text")[..64], text[..64]);
        assert_eq!((other.fuel, other.engine, other.module), (wasm.fuel, wasm.engine, wasm.module));
        lab.verify();
    });
}

#[test]
fn what_ends_a_guest_is_in_the_outcome() {
    let flood =
        "(loop $more (drop (call $write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 24))) (br $more))";
    let deep = "(module (func $deep (param i64) (result i64) (i64.add (i64.const 1) (call $deep (local.get 0))))
                  (func (export \"_start\") (drop (call $deep (i64.const 1)))))";
    let unknown = "(module (import \"toka\" \"call\" (func)) (func (export \"_start\")))";
    let first = format!("(module (func $first {ENDLESS}) (start $first) (func (export \"_start\")))");
    let text = |text: &str| wat::parse_str(text).expect("it is right");
    let little = "  sandbox: { wasm: { fuel: 1000000 } }";
    let short = "  sandbox: { wasm: { fuel: 1000000000000 }, limits: { wall: 2s } }";
    let rows = [
        ("plain", module("nop"), "", "succeeded/0"),
        ("endless", module(ENDLESS), little, "limit-exceeded/7"),
        ("startless", text(&first), little, "limit-exceeded/7"),
        ("long", module(ENDLESS), short, "timed-out/0"),
        ("deep", text(deep), "", "trapped/0 stack"),
        ("trap", module("unreachable"), "", "trapped/0 unreachable"),
        ("exits", module("(call $exit (i32.const 3))"), "", "failed/0 3"),
        ("unknown", text(unknown), "", "start-failed/0 import"),
        ("large", text("(module (memory 10000) (func (export \"_start\")))"), "", "start-failed/0 memory"),
        ("grows", module("(call $exit (i32.ne (i32.const -1) (memory.grow (i32.const 10000))))"), "", "succeeded/0"),
        ("broken", [&module("nop")[..], b"\xff"].concat(), "", "start-failed/0 invalid"),
        ("flood", module(flood), "  sandbox: { limits: { output_total_bytes: 8MiB } }", "limit-exceeded/5"),
        ("json", module("nop"), "  outputs: { result: json }", "invalid-output/0 not-json"),
    ];
    let lab = Lab::of(rustix::process::geteuid().as_raw());
    for (name, bytes, more, outcome) in rows {
        let called = lab.guest_called(name, &bytes, more);
        called.ended(outcome);
        let fuel = called.finished.wasm.as_ref().expect("a record").fuel;
        // The clock does not ask how far a loop has come.
        if !outcome.starts_with("timed-out") {
            assert_eq!(fuel > 0, !outcome.starts_with("start-failed"), "{name}: {fuel}");
        }
        if let Some(stdout) = called.record["stdout"]["bytes"].as_u64().filter(|_| name == "flood") {
            assert!((7 << 20..=8 << 20).contains(&stdout), "{stdout}");
        }
    }
    lab.verify();
}

#[test]
fn a_guest_asks_what_its_call_covers() {
    let lab = Lab::of(rustix::process::geteuid().as_raw());
    let asks = "
        (i32.store8 (i32.const 4096) (i32.add (i32.const 48) (i32.eqz (call $check (i32.const 64) (i32.const 29)))))
        (i32.store8 (i32.const 4097) (i32.add (i32.const 48) (i32.eqz (call $check (i32.const 128) (i32.const 29)))))
        (drop (call $result (i32.const 4096) (i32.const 2)))
        (drop (call $result (i32.const 8192) (call $list (i32.const 8192) (i32.const 4096))))";
    let mut text = String::from_utf8(wasm_text(asks)).expect("text");
    text = text.replace(
        "(memory",
        "(data (i32.const 64) \"fs:project/docs/guide.md#read \") (data (i32.const 128) \"fs:project/docs/guide.md#write\")
         (memory",
    );
    let bytes = wat::parse_str(&text).expect("it is right");
    let more = "  params: [ { name: path, type: path, required: true, access: [read] } ]\n  effect: read";
    lab.guest("asks", &bytes, more);
    let called = lab.call_with("asks", &["path=project:docs/guide.md"]);
    let found = called.found().as_str().expect("text").to_owned();
    assert!(found.starts_with("10tool:asks?digest="), "{found}");
    assert!(found.ends_with("&arg./path=path:project/docs/guide.md&closed\nfs:project/docs/guide.md#read"), "{found}");
    let wasm = called.finished.wasm.as_ref().expect("a record");
    assert_eq!((wasm.guest_asked, wasm.guest_denied), (2, 1));
}

/// The text of a module whose `_start` is `body`, with what a question needs.
fn wasm_text(body: &str) -> Vec<u8> {
    format!(
        "(module
           (import \"toka\" \"result_write\" (func $result (param i32 i32) (result i32)))
           (import \"toka\" \"cap_check\" (func $check (param i32 i32) (result i32)))
           (import \"toka\" \"cap_list\" (func $list (param i32 i32) (result i32)))
           (memory (export \"memory\") 1)
           (func (export \"_start\") {body}))"
    )
    .into_bytes()
}

#[test]
fn the_shipped_guest_tells_right_from_wrong_sums() {
    let lab = Lab::of(rustix::process::geteuid().as_raw());
    // Sums of "", "abc", and a text of two blocks, from FIPS 180-2.
    let long = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    let sums = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  empty\n\
                ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad *abc.txt\n\
                248D6A61D20638B8E5C026930C3E6039A33CE45964FF2167F6ECEDD419DB06C1  long\n\
                0000000000000000000000000000000000000000000000000000000000000000  wrong\n";
    let entries = json!(["empty", "", "abc.txt", "abc", "long", long, "wrong", "abc", "abc", "abc", "-n", "x"]);
    let arguments = [format!("sums={}", json!(sums)), format!("entries={entries}")];
    let called = lab.call_with("release-hasher", &[&arguments[0], &arguments[1]]);
    let expected = "empty: OK\nabc.txt: OK\nlong: OK\nwrong: FAILED\nabc: not listed\n-n: not listed\n";
    assert_eq!(*called.found(), json!(expected));
}

#[test]
fn text_of_a_module_is_refused_where_it_is_registered() {
    let lab = Lab::of(rustix::process::geteuid().as_raw());
    lab.write("text.wasm", "(module (func (export \"_start\")))");
    let ran = lab.manifest("text", "  run: { kind: wasm, path: text.wasm }");
    ran.expect(1);
    assert!(ran.err.contains("Unsupported") || ran.err.contains("TOKA-1022"), "{ran}");
    assert!(ran.err.contains("it is the text of a module") && ran.err.contains("wat2wasm"), "{ran}");
}

#[test]
fn a_module_that_was_edited_does_not_run() {
    let lab = Lab::of(rustix::process::geteuid().as_raw());
    lab.guest("edited", &module("nop"), "");
    lab.write("edited.wasm", module("(call $exit (i32.const 1))"));
    lab.call_with("edited", &[]).ended("pin-mismatch/0");
}

#[test]
fn toka_alone_runs_guests_too() {
    let lab = Lab::of(rustix::process::geteuid().as_raw());
    lab.guest("echo", &module(ECHO), "");
    let alone = lab.desk.at("alone/toka");
    fs::create_dir_all(alone.parent().expect("a folder")).expect("a folder");
    fs::copy(program("toka"), &alone).expect("a copy");
    let args = Lab::call_args("echo", &[]);
    let mut command = std::process::Command::new(&alone);
    command.args(&args).current_dir(lab.desk.at("")).env("TOKA_HOME", lab.desk.at("home"));
    let called = lab.called(lab.ran(&args, &mut command));
    assert_eq!(*called.found(), json!("{}"));
    let sandbox = called.finished.sandbox.as_ref().expect("it ran");
    assert_eq!(sandbox.level, Level::Strong.number());
    let beside = lab.call_with("echo", &[]);
    let other = beside.finished.sandbox.as_ref().expect("it ran");
    assert_ne!(sandbox.toolchain, other.toolchain, "another worker");
    assert_eq!(called.finished.wasm.map(|wasm| wasm.engine), beside.finished.wasm.map(|wasm| wasm.engine));
}
