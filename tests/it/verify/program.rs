//! The program as people meet it: what it prints, and the exit code.

use std::path::{Path, PathBuf};

use toka_kernel::Entry;
use toka_store::Vkey;
use toka_tests::session::{Keys, ORIGIN};

use super::flips::store;
use super::shapes::run;
use super::{Log, honest, open, reforge, root};

/// A file with these bytes, and the name that tests print for it.
fn file(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).expect("written");
    path
}

fn vkey() -> String {
    Vkey::new(&format!("{ORIGIN}/root"), root()).expect("a key").to_string()
}

fn verified(bytes: &[u8], args: &[&str]) -> (u8, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = file(folder.path(), "s.tkb", bytes);
    let vkey = vkey();
    let args: Vec<&str> = ["verify", "--root", &vkey].iter().chain(args).copied().collect();
    let (exit, out, err) = run(&args, &path);
    assert_eq!(err, "");
    (exit, out.replace(&format!("{}/", folder.path().display()), ""))
}

#[test]
fn a_whole_log_is_said_to_be_whole() {
    let (exit, out) = verified(&Log::of(&honest()).bundle(), &[]);
    assert_eq!(exit, 0);
    insta::assert_snapshot!(out, @r#"
    OK: s.tkb: 1 session, 20 entries as written
    tamper-evident, anchor level L0: nobody outside vouches for the head

    session e7886e3a3076  20 entries  closed  all of it stands
      frame OK · chain OK · signatures OK · keys OK · commands OK · legality OK · state OK · blobs OK · tail OK · anchor NOT_CHECKED · freshness NOT_CHECKED
      blobs: 13 present, 0 omitted
    "#);
}

#[test]
fn a_tampered_log_is_shown_with_its_cause_and_what_follows_from_it() {
    let mut log = Log::of(&honest());
    log.entries[7][140] ^= 1;
    let (exit, out) = verified(&log.bundle(), &[]);
    assert_eq!(exit, 3);
    insta::assert_snapshot!(out, @r#"
    FAIL: s.tkb was tampered with or breaks the rules: SIG_INVALID at seq 7 (exit 3)
    tamper-evident, anchor level L0: nobody outside vouches for the head

    session e7886e3a3076  20 entries  closed  seqs 0 to 6 stand
      frame OK · chain FAIL · signatures FAIL · keys OK · commands OK · legality NOT_CHECKED · state NOT_CHECKED · blobs OK · tail OK · anchor NOT_CHECKED · freshness NOT_CHECKED
      blobs: 13 present, 0 omitted

    #1 SIG_INVALID  session e7886e3a3076 seq 7 byte 5758 signature: expected a signature by 9881b669d131efae…, actual 4323016c15122fb8…
        → the signature does not fit the entry: the entry was changed or not signed by this key; compare with another copy
      #2 STOPPED_AT  session e7886e3a3076 seq 7  (follows from #1)
      #3 LINK_MISMATCH  session e7886e3a3076 seq 8 byte 6189 prev: expected d7f1a8b2a6a24227…, actual f41280c7eb745b6f…  (follows from #1)
    "#);
}

#[test]
fn an_open_log_says_so_in_its_first_line() {
    let (exit, out) = verified(&Log::of(&open()).bundle(), &[]);
    assert_eq!(exit, 4);
    insta::assert_snapshot!(out, @r#"
    INCOMPLETE: s.tkb: truncation after seq 16 not excluded (exit 4)
    tamper-evident, anchor level L0: nobody outside vouches for the head

    session e7886e3a3076  17 entries  open  all of it stands
      frame OK · chain OK · signatures OK · keys OK · commands OK · legality OK · state OK · blobs OK · tail NOT_CHECKED · anchor NOT_CHECKED · freshness NOT_CHECKED
      blobs: 13 present, 0 omitted

    #1 TRUNCATION_NOT_EXCLUDED  session e7886e3a3076 seq 16: expected the end of the session, or an anchor that names this entry, actual 1e2b904f2461bfad…
        → the session is open, so its end may have been cut off: compare the head with one you know from elsewhere
    "#);
    let (exit, out) = verified(&Log::of(&open()).bundle(), &["--require", "frame,chain,signatures,keys"]);
    assert_eq!(exit, 0);
    assert!(
        out.starts_with("OK: s.tkb: 1 session, 17 entries as written; truncation after seq 16 not excluded\n"),
        "{out}"
    );
}

#[test]
fn a_report_can_be_said_as_json() {
    let mut log = Log::of(&honest());
    *log.entries[7].last_mut().expect("bytes") ^= 1;
    let (exit, out) = verified(&log.bundle(), &["--json"]);
    assert_eq!(exit, 3);
    let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let pretty = serde_json::to_string_pretty(&json["findings"][0]).expect("JSON");
    insta::assert_snapshot!(pretty, @r#"
    {
      "actual": "8e2e350e50f1c4c768492c3c00135cfc3e83833810c5567d4a9e015076899eac",
      "axis": "chain",
      "byte_offset": 5822,
      "caused_by": null,
      "class": "FAIL",
      "code": "BODY_HASH_MISMATCH",
      "detail": {},
      "expected": "067563f1e4c50c6c2086e990aa00963fd871a7da0576f8c0f8841188fdeaf9f8",
      "field": "body_hash",
      "id": 1,
      "seq": 7,
      "session": "e7886e3a3076992a43fc00cddb05e2a04baad4aca1bfa0461b05257467419746",
      "trusted_prefix_seq": 6
    }
    "#);
    // Keys stand in the order of the format, each of them there.
    let keys = [
        "format",
        "input",
        "mode",
        "verdict",
        "exit",
        "required",
        "axes",
        "anchor_level",
        "as_of_us",
        "sessions",
        "checked",
        "findings",
    ];
    let places: Vec<_> =
        keys.iter().map(|key| out.find(&format!("\"{key}\":")).unwrap_or_else(|| panic!("{key}"))).collect();
    assert!(places.is_sorted(), "{out}");
    assert_eq!(json["axes"].as_object().map(serde_json::Map::len), Some(11));
}

#[test]
fn quiet_says_nothing() {
    assert_eq!(verified(&Log::of(&honest()).bundle(), &["--quiet"]), (0, String::new()));
    assert_eq!(verified(&Log::of(&open()).bundle(), &["--quiet"]), (4, String::new()));
}

#[test]
fn a_store_finds_the_key_of_its_home() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = store(folder.path());
    assert_eq!(run(&["verify"], &path).0, 4);
    std::fs::create_dir(folder.path().join("keys")).expect("a folder");
    let key = file(&folder.path().join("keys"), "root.pub", format!("{}\n", vkey()).as_bytes());
    let (exit, out, _) = run(&["verify"], &path);
    assert_eq!(exit, 0, "{out}");
    assert_eq!(run(&["verify", "--root", key.to_str().expect("text")], &path).0, 0);
    let other = Vkey::new("other.node/root", Keys::seeded(2).pinned()).expect("a key").to_string();
    let (exit, out, _) = run(&["verify", "--root", &other], &path);
    assert!(exit == 3 && out.contains("ROOT_MISMATCH"), "{out}");
    std::fs::write(&key, "nonsense").expect("written");
    assert_eq!(run(&["verify"], &path).0, 8);
}

#[test]
fn wrong_arguments_are_refused_with_a_way_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = file(folder.path(), "s.tkb", &Log::of(&honest()).bundle());
    for (args, expected) in [
        (&["verify", "--root", "nonsense"][..], "neither a file nor a key"),
        (&["verify", "--require", "nonsense"], "the axes, `closed`, L1 and L2 are known"),
        (&["verify", "--jobs", "0"], "at least one thread"),
        (&["verify", "--session", "zz"], "no session begins so"),
        (&["verify", "--head", "x"], "--head is not built yet"),
        (&["verify", "--max-age", "5"], "--max-age is not built yet"),
        (&["verify", "--prior=x"], "--prior is not built yet"),
        (&["verify", "--revoked=x"], "--revoked is not built yet"),
        (&["verify", "--nonsense"], "unexpected argument"),
        (&["show", "--kind", "Nonsense"], "one of SessionOpened, StateCommitted"),
        (&["show", "--seq", "9..3"], "not of the form"),
        (&["show", "--seq", "a"], "not of the form"),
        (&["explode"], "unrecognized subcommand"),
    ] {
        let (exit, out, err) = run(args, &path);
        assert_eq!((exit, out.as_str()), (2, ""), "{args:?}: {err}");
        assert!(err.contains(expected), "{args:?}: {err}");
    }
    let (exit, out, _) = run(&["show", "--help"], &path);
    assert!(exit == 0 && out.starts_with("Print entries as they are stored"), "{out}");
}

fn shown(args: &[&str]) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let path = file(folder.path(), "s.tkb", &Log::of(&honest()).bundle());
    let args: Vec<&str> = ["show"].iter().chain(args).copied().collect();
    let (exit, out, err) = run(&args, &path);
    assert_eq!((exit, err.as_str()), (0, "note: shown as stored, not verified; `verify` checks it\n"));
    out
}

#[test]
fn show_tells_what_happened_line_by_line() {
    insta::assert_snapshot!(shown(&["--seq", "1..8"]), @r#"
         1  2026-01-01T00:00:00.001000Z  ToolBound       tools bound: reader by node
         2  2026-01-01T00:00:00.002000Z  AgentSpawned    auditor spawned with fs:project/docs/**#read?exp=1800000000000000, tool:reader?calls=50&exp=1800000000000000 by opener
         3  2026-01-01T00:00:00.003000Z  AgentStarted    auditor started by opener
         4  2026-01-01T00:00:00.004000Z  CallAdmitted    reader project:docs/a.md by auditor
         5  2026-01-01T00:00:00.005000Z  CallFinished    reader succeeded by executor
         6  2026-01-01T00:00:00.006000Z  Refused         reader project:secret.txt: OUT_OF_SCOPE, it would need fs:project/secret.txt#read by auditor
         7  2026-01-01T00:00:00.007000Z  CallAdmitted    reader project:docs/b.md by auditor
         8  2026-01-01T00:00:00.008000Z  CallFinished    reader succeeded by executor
    "#);
    insta::assert_snapshot!(shown(&["--seq", "17.."]), @r#"
        17  2026-01-01T00:00:00.017000Z  AgentEnded      auditor completed by auditor
        18  2026-01-01T00:00:00.018000Z  StateCommitted  state 816495b73e48b0bc after 17 by node
        19  2026-01-01T00:00:00.019000Z  SessionClosed   session closed: done by opener
    "#);
}

#[test]
fn show_can_be_narrowed() {
    let seqs = |args: &[&str]| -> Vec<String> {
        shown(args).lines().filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
    };
    assert_eq!(seqs(&["--kind", "callfinished"]), ["5", "8", "11", "14"]);
    assert_eq!(seqs(&["--kind", "0x0201"]), ["2"]);
    assert_eq!(seqs(&["--agent", "auditor", "--seq", "..6"]), ["2", "3", "4", "6"]);
    assert_eq!(seqs(&["--tool", "reader", "--seq", "1..5"]), ["1", "4", "5"]);
    assert_eq!(seqs(&["--tool", "writer"]), [""; 0]);
    assert_eq!(seqs(&["--seq", "19"]), ["19"]);
}

#[test]
fn show_prints_blobs_and_bytes_when_asked() {
    insta::assert_snapshot!(shown(&["--seq", "4", "--blobs"]), @r#"
         4  2026-01-01T00:00:00.004000Z  CallAdmitted    reader project:docs/a.md by auditor
            blob 0 f338186f6d46495f: {"path":"project:docs/a.md"}
    "#);
    let raw = shown(&["--seq", "18", "--raw"]);
    let session = honest();
    let header = session.entries[18].bytes()[..200].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert!(raw.contains(&format!("header {header}")), "{raw}");
}

#[test]
fn show_as_json_has_every_field_of_every_entry() {
    let out = shown(&["--json", "--blobs", "--raw"]);
    let lines: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 20);
    for (line, entry) in lines.iter().zip(&honest().entries) {
        assert_eq!(line["seq"], entry.header().seq);
        assert_eq!(line["entry"], entry.hash().to_string());
        let fields = toka_kernel::body::kind_of(entry.header().kind).expect("a kind").fields;
        assert!(fields.iter().all(|field| line["body"].get(field).is_some()), "{line}");
        let raw: String = entry.bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(line["raw"], raw);
    }
    assert_eq!(lines[4]["blobs"][0]["content"], r#"{"path":"project:docs/a.md"}"#);
    assert_eq!(lines[6]["asked"]["tool"], "reader");
}

#[test]
fn show_reads_kinds_it_does_not_know_and_escapes_what_is_hostile() {
    let session = honest();
    let entries: Vec<Entry> = reforge(&Keys::seeded(1).writer(), &session.entries, 7, |header, body| {
        header.kind = 0x0999;
        *body = vec![0x81, 0xa1, b'x', 0xa6, 0x1b, b'[', b'2', b'J', 0xc2, 0x85];
    });
    let folder = tempfile::tempdir().expect("a folder");
    let path = file(folder.path(), "s.tkb", &Log::with(&session, &entries).bundle());
    let (exit, out, _) = run(&["show", "--seq", "7", "--raw"], &path);
    assert_eq!(exit, 0);
    assert!(
        out.contains("kind 0x0999 is not known to this version") && out.contains("body 81a178a61b5b324ac285"),
        "{out}"
    );
    let (_, out, _) = run(&["show", "--seq", "7", "--json"], &path);
    let line: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(line["body"]["x"], "\u{1b}[2J\u{85}");
    assert!(!out.contains('\u{1b}'));
}

#[test]
fn a_reader_that_stops_reading_is_no_failure() {
    struct Closed;
    impl std::io::Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = file(folder.path(), "s.tkb", &Log::of(&honest()).bundle());
    let args = ["toka-replay".into(), "show".into(), path.into_os_string()];
    let mut err = Vec::new();
    assert_eq!(toka_replay::cli::run(args, &mut Closed, &mut err, false), 0);
    assert!(!String::from_utf8(err).expect("text").contains("error"));
}
