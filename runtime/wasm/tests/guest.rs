//! What guests try, and what comes of it. The worker runs here without its jail; that it has one is tested where the
//! shipped programs are (tests/it/guests.rs).

use std::io::Write;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use toka_kernel::ids::Bytes;
use toka_wasm::{End, Job, MODULE_BYTES_MAX, Report, run};

fn job() -> Job {
    Job {
        argv: vec!["guest".to_owned()],
        stdin: Bytes(Vec::new()),
        params: Bytes(b"{\"a\":1}".to_vec()),
        envelope: vec!["tool:guest".to_owned(), "fs:project/docs/**#list,read".to_owned()],
        seed: [7; 32],
        clock_us: 1_700_000_000_000_000,
        step_us: 1_000,
        fuel: 100_000_000,
        memory_bytes: 16 << 20,
        stack_bytes: 1 << 20,
        table_elements: 1_000,
        wall_us: 30_000_000,
        result_max: 1_024,
        output_max: 1 << 20,
    }
}

/// A stream that can be looked at.
#[derive(Clone, Default)]
struct Stream(Arc<Mutex<Vec<u8>>>);

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("ours").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Stream {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("ours")).into_owned()
    }
}

fn assembled(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Runs a module: its report, and what it wrote to its streams.
fn ran(job: Job, module: Vec<u8>) -> (Report, String, String) {
    let (out, err) = (Stream::default(), Stream::default());
    let report = run(job, module, [Box::new(out.clone()), Box::new(err.clone())]);
    (report, out.text(), err.text())
}

/// Runs a module whose `_start` is `body`, with these definitions before it and one page of memory.
fn started(job: Job, definitions: &str, body: &str) -> (Report, String, String) {
    ran(job, assembled(&module(definitions, body)))
}

fn module(definitions: &str, body: &str) -> String {
    format!(
        "(module
           (import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32)))
           (import \"wasi_snapshot_preview1\" \"fd_write\" (func $write (param i32 i32 i32 i32) (result i32)))
           (import \"wasi_snapshot_preview1\" \"random_get\" (func $random (param i32 i32) (result i32)))
           (import \"wasi_snapshot_preview1\" \"clock_time_get\" (func $clock (param i32 i64 i32) (result i32)))
           (import \"toka\" \"result_write\" (func $result (param i32 i32) (result i32)))
           (import \"toka\" \"cap_check\" (func $check (param i32 i32) (result i32)))
           (import \"toka\" \"cap_list\" (func $list (param i32 i32) (result i32)))
           (import \"toka\" \"log\" (func $log (param i32 i32 i32) (result i32)))
           (memory (export \"memory\") 1)
           {definitions}
           (func (export \"_start\") {body}))"
    )
}

fn not_started(word: &str) -> End {
    End::NotStarted(word.to_owned())
}

fn trapped(word: &str) -> End {
    End::Trapped(word.to_owned())
}

#[test]
fn a_guest_that_returns_has_succeeded_and_its_fuel_is_counted() {
    let (report, out, err) = started(job(), "", "nop");
    assert_eq!((report.end, report.detail.as_str(), out.as_str(), err.as_str()), (End::Returned, "", "", ""));
    assert!((1..100).contains(&report.fuel), "{}", report.fuel);
    assert_ne!(report.engine, [0; 32]);
}

#[test]
fn a_loop_without_an_end_takes_its_fuel_and_no_more() {
    let endless = "(loop $again (br $again))";
    let (report, ..) = started(job(), "", endless);
    assert_eq!((report.end, report.fuel), (End::OutOfFuel, job().fuel));
    // The same in the function that runs before any other.
    let (report, ..) = started(job(), &format!("(func $first {endless}) (start $first)"), "nop");
    assert_eq!((report.end, report.fuel), (End::OutOfFuel, job().fuel));
    let job = Job { fuel: 1_000_000_000_000, wall_us: 300_000, ..job() };
    assert_eq!(started(job, "", endless).0.end, End::TimedOut);
}

#[test]
fn memory_does_not_grow_beyond_its_bound() {
    let pages = job().memory_bytes / (64 << 10);
    // Page by page: how many there are in the end.
    let body = "(loop $more (br_if $more (i32.ne (i32.const -1) (memory.grow (i32.const 1)))))
                (call $exit (i32.sub (memory.size) (i32.const 100)))";
    let (report, ..) = started(job(), "", body);
    assert_eq!(report.end, End::Exited(u8::try_from(pages - 100).expect("small")));
    let (report, ..) = started(job(), "", "(call $exit (i32.eq (i32.const -1) (memory.grow (i32.const 65535))))");
    assert_eq!(report.end, End::Exited(1));
    let (report, ..) = ran(job(), assembled("(module (memory 257) (func (export \"_start\")))"));
    assert_eq!(report.end, not_started("memory"), "{}", report.detail);
    let (report, ..) = ran(job(), assembled("(module (memory 256) (func (export \"_start\")))"));
    assert_eq!(report.end, End::Returned, "{}", report.detail);
}

#[test]
fn tables_do_not_grow_beyond_their_bound() {
    let table = "(table $t 10 funcref)";
    for (more, answer) in [(990, 0), (991, 1)] {
        let body = format!("(call $exit (i32.eq (i32.const -1) (table.grow $t (ref.null func) (i32.const {more}))))");
        let (report, ..) = started(job(), table, &body);
        assert_eq!(report.end, if answer == 0 { End::Returned } else { End::Exited(answer) });
    }
    let (report, ..) = started(job(), "(table 1001 funcref)", "nop");
    assert_eq!(report.end, not_started("table"));
}

#[test]
fn recursion_ends_at_the_end_of_the_stack() {
    let deep = "(func $deep (param i64) (result i64)
                  (i64.add (i64.const 1) (call $deep (i64.add (local.get 0) (i64.const 1)))))";
    let (report, ..) = started(job(), deep, "(drop (call $deep (i64.const 0)))");
    assert_eq!(report.end, trapped("stack"), "{}", report.detail);
    // The most that a manifest can ask for.
    let job = Job { stack_bytes: 2 << 20, ..job() };
    let (report, ..) = started(job, deep, "(drop (call $deep (i64.const 0)))");
    assert_eq!(report.end, trapped("stack"), "{}", report.detail);
}

#[test]
fn traps_are_told_apart() {
    let types =
        "(type $none (func)) (type $one (func (param i32))) (table 2 funcref) (elem (i32.const 0) $f) (func $f)";
    for (body, word) in [
        ("unreachable", "unreachable"),
        ("(drop (i32.load (i32.const 65533)))", "memory-bounds"),
        ("(drop (i32.div_s (i32.const 1) (i32.const 0)))", "division-by-zero"),
        ("(drop (i32.div_s (i32.const -2147483648) (i32.const -1)))", "integer-overflow"),
        ("(drop (i32.trunc_f32_s (f32.const nan)))", "bad-conversion"),
        ("(call_indirect (type $none) (i32.const 2))", "table-bounds"),
        ("(call_indirect (type $none) (i32.const 1))", "null-call"),
        ("(call_indirect (type $one) (i32.const 1) (i32.const 0))", "call-type"),
    ] {
        let (report, ..) = started(job(), types, body);
        assert_eq!(report.end, trapped(word), "{body}: {}", report.detail);
    }
}

#[test]
fn what_is_no_module_of_this_kind_is_not_run() {
    let text = b"(module (func (export \"_start\")))".to_vec();
    let component = b"\0asm\x0d\0\x01\0".to_vec();
    let huge = [assembled(&module("", "nop")), vec![0; MODULE_BYTES_MAX]].concat();
    let cut = assembled(&module("", "nop"));
    for (bytes, word) in [
        (text, "text"),
        (b"  \n(module)".to_vec(), "text"),
        (component, "not-module"),
        (b"\x7fELF".to_vec(), "not-wasm"),
        (Vec::new(), "not-wasm"),
        (huge, "too-large"),
        (cut[..cut.len() - 3].to_vec(), "invalid"),
        ([&cut[..], b"\xff\xff\xff"].concat(), "invalid"),
    ] {
        assert_eq!(ran(job(), bytes).0.end, not_started(word));
    }
    let many = |one: &str, count: usize| one.repeat(count);
    for (definitions, word) in [
        (many("(global i32 (i32.const 0))", 10_001), "globals"),
        (many("(func)", 20_001), "functions"),
        (many("(table 0 funcref)", 5), "tables"),
        ("(memory 0)".to_owned(), "memories"),
    ] {
        assert_eq!(started(job(), &definitions, "nop").0.end, not_started(word));
    }
    for refused in [
        "(module (memory i64 1) (func (export \"_start\")))",
        "(module (memory 1 1 shared) (func (export \"_start\")))",
    ] {
        assert_eq!(ran(job(), assembled(refused)).0.end, not_started("invalid"), "{refused}");
    }
    for nothing_to_start in [
        "(module (func (export \"run\")))",
        "(module (func (export \"_start\") (param i32)))",
        "(module (func (export \"_start\") (result i32) (i32.const 0)))",
        "(module (memory (export \"_start\") 1))",
    ] {
        assert_eq!(ran(job(), assembled(nothing_to_start)).0.end, not_started("no-start"), "{nothing_to_start}");
    }
}

#[test]
fn an_import_that_nobody_has_or_of_another_type_fails_before_anything_runs() {
    for (from, name, kind) in [
        ("env", "memory", "(memory 1)"),
        ("toka", "call", "(func (param i32 i32) (result i32))"),
        ("toka", "view", "(func)"),
        ("toka", "params_len", "(func (param i32) (result i32))"),
        ("toka", "params_len", "(global i32)"),
        ("wasi_snapshot_preview1", "fd_write", "(func (param i32 i32 i32 i64) (result i32))"),
        ("wasi_snapshot_preview1", "sock_accept", "(func (param i32 i32 i32) (result i32))"),
        ("wasi_snapshot_preview1", "path_unlink_file", "(func (param i32 i32 i32) (result i32))"),
        ("wasi_unstable", "fd_write", "(func (param i32 i32 i32 i32) (result i32))"),
    ] {
        let text = format!("(module (import \"{from}\" \"{name}\" {kind}) (func (export \"_start\") unreachable))");
        let (report, ..) = ran(job(), assembled(&text));
        assert_eq!(report.end, not_started("import"), "{text}");
        assert!(report.detail.contains(name), "{}", report.detail);
    }
}

#[test]
fn there_are_no_files_and_no_environment() {
    let text = "(module
      (import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32)))
      (import \"wasi_snapshot_preview1\" \"fd_prestat_get\" (func $prestat (param i32 i32) (result i32)))
      (import \"wasi_snapshot_preview1\" \"path_open\"
        (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
      (import \"wasi_snapshot_preview1\" \"environ_sizes_get\" (func $environ (param i32 i32) (result i32)))
      (import \"wasi_snapshot_preview1\" \"fd_read\" (func $read (param i32 i32 i32 i32) (result i32)))
      (memory (export \"memory\") 1)
      (data (i32.const 64) \"/etc/passwd\")
      (func (export \"_start\") (local $fd i32)
        (i32.store (i32.const 0) (i32.const -1))
        (if (call $environ (i32.const 0) (i32.const 4)) (then (call $exit (i32.const 1))))
        (if (i32.load (i32.const 0)) (then (call $exit (i32.const 2))))
        (loop $next
          ;; 8 is BADF, 52 is NOSYS.
          (if (i32.and (i32.ge_u (local.get $fd) (i32.const 3))
                       (i32.ne (call $prestat (local.get $fd) (i32.const 0)) (i32.const 8)))
            (then (call $exit (i32.const 3))))
          (if (i32.ne (i32.const 52)
                (call $open (local.get $fd) (i32.const 0) (i32.const 64) (i32.const 11) (i32.const 0)
                  (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 0)))
            (then (call $exit (i32.const 4))))
          (if (i32.and (i32.ne (local.get $fd) (i32.const 0))
                       (i32.ne (call $read (local.get $fd) (i32.const 0) (i32.const 0) (i32.const 0)) (i32.const 8)))
            (then (call $exit (i32.const 5))))
          (br_if $next (i32.lt_u (local.tee $fd (i32.add (local.get $fd) (i32.const 1))) (i32.const 1000))))))";
    let (report, ..) = ran(job(), assembled(text));
    assert_eq!(report.end, End::Returned);
}

#[test]
fn output_beyond_its_bound_ends_the_guest() {
    // A mebibyte a hundred times, from one page that is named sixteen times.
    let buffers: String = (0..16).map(|_| "\\00\\10\\00\\00\\00\\f0\\00\\00").collect();
    let definitions = format!("(data (i32.const 0) \"{buffers}\")");
    let body = "(local $i i32) (loop $more
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 16) (i32.const 2048)))
        (br_if $more (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 107))))";
    let (report, out, _) = started(job(), &definitions, body);
    assert_eq!(report.end, End::TooMuchOutput);
    assert!(out.len() as u64 <= job().output_max && out.len() > 900_000, "{}", out.len());
    let (report, out, _) = started(Job { output_max: 200 << 20, ..job() }, &definitions, body);
    assert_eq!((report.end, out.len()), (End::Returned, 107 * 16 * 0xf000));
    // Fuel pays for it as well.
    let job = Job { output_max: 200 << 20, fuel: 1_000_000, ..job() };
    assert_eq!(started(job, &definitions, body).0.end, End::OutOfFuel);
}

/// Writes 32 random bytes, the clock twice, and the bits of a NaN that an addition made.
const DRAWS: &str = "
    (drop (call $random (i32.const 0) (i32.const 32)))
    (drop (call $clock (i32.const 0) (i64.const 0) (i32.const 32)))
    (drop (call $clock (i32.const 1) (i64.const 0) (i32.const 40)))
    (f64.store (i32.const 48) (f64.add (f64.reinterpret_i64 (i64.const 0x7ff4dead00000001)) (f64.const 1)))
    (drop (call $result (i32.const 0) (i32.const 56)))";

#[test]
fn the_same_call_sees_the_same_world_and_another_call_another() {
    let drawn = |job: Job| {
        let (report, ..) = started(job, "", DRAWS);
        let bytes = report.result.clone().expect("a result").0;
        (report, bytes)
    };
    let (one, two) = (drawn(job()), drawn(job()));
    assert_eq!(one, two);
    let other = drawn(Job { seed: [8; 32], ..job() });
    assert_ne!(one.1[..32], other.1[..32]);
    assert_eq!((&one.1[32..], one.0.fuel), (&other.1[32..], other.0.fuel));
    let number = |at: usize| u64::from_le_bytes(one.1[at..at + 8].try_into().expect("eight bytes"));
    assert_eq!(number(32), job().clock_us * 1_000);
    assert_eq!(number(40), (job().clock_us + 1_000) * 1_000);
    assert_eq!(number(48), 0x7ff8_0000_0000_0000, "the one NaN");
}

#[test]
fn a_question_about_capabilities_is_answered_by_the_rules() {
    let ask = |text: &str| {
        let data = format!("(data (i32.const 8) \"{text}\")");
        let body = format!(
            "(i32.store (i32.const 0) (call $check (i32.const 8) (i32.const {})))
                            (drop (call $result (i32.const 0) (i32.const 4)))",
            text.len()
        );
        let (report, ..) = started(job(), &data, &body);
        let answer = report.result.expect("an answer").0;
        (i32::from_le_bytes(answer.try_into().expect("four bytes")), report.asked, report.denied)
    };
    assert_eq!(ask("tool:guest"), (0, 1, 0));
    assert_eq!(ask("fs:project/docs/guide.md#read"), (0, 1, 0));
    assert_eq!(ask("fs:project/docs/guide.md#write"), (403, 1, 1));
    assert_eq!(ask("fs:project/secret.txt#read"), (403, 1, 1));
    assert_eq!(ask("tool:*"), (403, 1, 1));
    let (malformed, asked, denied) = ask("no scope at all");
    assert!(malformed > 0 && (asked, denied) == (1, 1), "{malformed}");
}

#[test]
fn questions_without_end_are_cut_off_and_cost_fuel() {
    let body = "(local $i i32) (local $answer i32) (loop $more
        (local.set $answer (call $check (i32.const 8) (i32.const 10)))
        (br_if $more (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 10001))))
        (call $exit (i32.eq (local.get $answer) (i32.const -2)))";
    let (report, ..) = started(job(), "(data (i32.const 8) \"tool:guest\")", body);
    assert_eq!((report.end, report.asked, report.denied), (End::Exited(1), 10_000, 0));
    assert!(report.fuel > 10_000 * 510, "{}", report.fuel);
}

#[test]
fn what_a_call_covers_is_listed_and_lines_are_logged() {
    let body = "(drop (call $list (i32.const 0) (i32.const 100)))
                (drop (call $result (i32.const 0) (call $list (i32.const 0) (i32.const 0))))
                (drop (call $log (i32.const 1) (i32.const 0) (i32.const 10)))";
    let (report, _, err) = started(job(), "", body);
    let listed = report.result.expect("a result").0;
    assert_eq!(String::from_utf8(listed).expect("text"), job().envelope.join("\n"));
    assert_eq!(err, "warn: tool:guest\n");
}

#[test]
fn a_result_has_a_bound() {
    let body = "(if (call $result (i32.const 0) (i32.const 1000)) (then unreachable))
                (call $exit (i32.eq (i32.const -2) (call $result (i32.const 0) (i32.const 25))))";
    assert_eq!(started(job(), "", body).0.end, End::Exited(1));
    // One that failed has none.
    let (report, ..) = started(job(), "", "(drop (call $result (i32.const 0) (i32.const 9))) unreachable");
    assert_eq!(report.result, None);
}

#[test]
fn statuses_are_kept_as_far_as_they_are_some() {
    for (status, end) in [(0, End::Returned), (3, End::Exited(3)), (256, End::Exited(255)), (-1, End::Exited(255))] {
        assert_eq!(started(job(), "", &format!("(call $exit (i32.const {status})) unreachable")).0.end, end);
    }
}

/// A function of the host: module, name, types of its parameters, and where it is handed a place in memory: parameter of
/// the pointer, and its length as that of another parameter or a number.
struct Function {
    from: &'static str,
    name: &'static str,
    params: &'static [&'static str],
    places: &'static [(usize, Len)],
}

#[derive(Clone, Copy)]
enum Len {
    Param(usize),
    Bytes(u64),
    /// So many times the eight bytes of a buffer.
    Buffers(usize),
}

const WASI: &str = "wasi_snapshot_preview1";

#[rustfmt::skip]
const FUNCTIONS: [Function; 13] = [
    Function { from: "toka", name: "params_read", params: &["i32"; 2], places: &[(0, Len::Param(1))] },
    Function { from: "toka", name: "result_write", params: &["i32"; 2], places: &[(0, Len::Param(1))] },
    Function { from: "toka", name: "log", params: &["i32"; 3], places: &[(1, Len::Param(2))] },
    Function { from: "toka", name: "cap_check", params: &["i32"; 2], places: &[(0, Len::Param(1))] },
    Function { from: "toka", name: "cap_list", params: &["i32"; 2], places: &[(0, Len::Param(1))] },
    Function { from: WASI, name: "args_sizes_get", params: &["i32"; 2], places: &[(0, Len::Bytes(4)), (1, Len::Bytes(4))] },
    Function { from: WASI, name: "args_get", params: &["i32"; 2], places: &[(0, Len::Bytes(4)), (1, Len::Bytes(6))] },
    Function { from: WASI, name: "environ_sizes_get", params: &["i32"; 2], places: &[(0, Len::Bytes(4)), (1, Len::Bytes(4))] },
    Function { from: WASI, name: "fd_write", params: &["i32"; 4], places: &[(1, Len::Buffers(2)), (3, Len::Bytes(4))] },
    Function { from: WASI, name: "fd_read", params: &["i32"; 4], places: &[(1, Len::Buffers(2)), (3, Len::Bytes(4))] },
    Function { from: WASI, name: "fd_fdstat_get", params: &["i32"; 2], places: &[(1, Len::Bytes(24))] },
    Function { from: WASI, name: "clock_time_get", params: &["i32", "i64", "i32"], places: &[(2, Len::Bytes(8))] },
    Function { from: WASI, name: "random_get", params: &["i32"; 2], places: &[(0, Len::Param(1))] },
];

/// A guest that reads which function to call with what from its standard input, and hands back the answer.
fn caller() -> &'static [u8] {
    static CALLER: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    CALLER.get_or_init(|| {
        let (mut imports, mut calls) = (String::new(), String::new());
        for (number, function) in FUNCTIONS.iter().enumerate() {
            let Function { from, name, params, .. } = function;
            imports +=
                &format!("(import \"{from}\" \"{name}\" (func $f{number} (param {}) (result i32)))", params.join(" "));
            let args: String =
                (0..).zip(*params).map(|(at, kind)| format!("({kind}.load (i32.const {}))", 128 + 8 * at)).collect();
            calls += &format!(
                "(if (i32.eq (i32.load (i32.const 120)) (i32.const {number}))
                   (then (i32.store (i32.const 112) (call $f{number} {args}))))"
            );
        }
        assembled(&format!(
            "(module {imports}
               (import \"{WASI}\" \"fd_read\" (func $read (param i32 i32 i32 i32) (result i32)))
               (import \"{WASI}\" \"fd_write\" (func $write (param i32 i32 i32 i32) (result i32)))
               (memory (export \"memory\") 1)
               (data (i32.const 0) \"\\78\\00\\00\\00\\28\\00\\00\\00\")
               (func (export \"_start\")
                 (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
                 ;; What was read is what is called, whatever the call writes over.
                 (i64.store (i32.const 0) (i64.const 0x400000070)) (i32.store (i32.const 8) (i32.const 0))
                 {calls}
                 (i64.store (i32.const 0) (i64.const 0x400000070))
                 (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"
        ))
    })
}

const PAGE: u64 = 64 << 10;

fn number() -> impl Strategy<Value = i32> {
    let edge = prop_oneof![
        Just(0),
        Just(1),
        Just(-1),
        Just(i32::MAX),
        Just(i32::MIN),
        Just(65_536),
        Just(65_535),
        Just(65_532),
        Just(65_512),
        Just(-65_536),
        Just(1_024),
        Just(1_025),
        Just(8_192),
        Just(60_000),
    ];
    prop_oneof![3 => edge, 1 => any::<i32>(), 2 => 200..70_000_i32]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]
    #[test]
    fn a_place_outside_of_memory_is_an_answer_and_nothing_else(
        which in 0..FUNCTIONS.len(),
        args in prop::array::uniform4(number()),
    ) {
        let function = &FUNCTIONS[which];
        let mut stdin = u64::try_from(which).expect("small").to_le_bytes().to_vec();
        args.iter().for_each(|arg| stdin.extend(i64::from(*arg).to_le_bytes()));
        let job = Job { stdin: Bytes(stdin), output_max: 1 << 30, result_max: 1 << 30, ..job() };
        let (report, out, _) = ran(job, caller().to_vec());
        let unsigned = |at: usize| u64::from(args[at].cast_unsigned());
        let is_outside = |(pointer, len): &(usize, Len)| {
            let len = match len {
                Len::Param(at) => unsigned(*at),
                Len::Bytes(bytes) => *bytes,
                Len::Buffers(at) => 8 * unsigned(*at),
            };
            unsigned(*pointer) + len > PAGE
        };
        // A length that costs more than there is ends the guest; everything else is answered.
        if report.end == End::OutOfFuel {
            return Ok(());
        }
        prop_assert_eq!(&report.end, &End::Returned, "{}({:?}): {}", function.name, args, report.detail);
        prop_assume!(out.len() >= 4);
        // The answer is what was written last, and text only where a replaced character would not matter.
        if function.places.iter().any(is_outside) {
            let answered = out.as_bytes()[out.len() - 4..] == [0; 4];
            prop_assert!(!answered, "{}({:?}) says that all is well", function.name, args);
        }
    }
}
