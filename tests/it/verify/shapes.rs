//! Inputs that are no log, or stores of a hostile shape: refused in words, and never a panic.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;

use rusqlite::Connection;
use toka_replay::cli;
use toka_replay::code::Axis;
use toka_replay::report::Answer;

use super::flips::{store, verify_store};
use super::{CALL, Log, honest, told};

/// Runs the program on a file: exit code, output, errors.
pub(super) fn run(args: &[&str], file: &Path) -> (u8, String, String) {
    let words = ["toka-replay"].iter().chain(args).map(OsString::from).chain([file.into()]);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let exit = cli::run(words, &mut out, &mut err, false);
    (exit, String::from_utf8(out).expect("text"), String::from_utf8(err).expect("text"))
}

fn refused(file: &Path, why: &str) {
    for verb in ["verify", "show"] {
        let (exit, out, err) = run(&[verb], file);
        assert_eq!((exit, out.as_str()), (8, ""), "{verb}: {err}");
        assert!(err.contains(why), "{verb}: {err}");
        assert!(err.contains(file.file_name().expect("a name").to_str().expect("text")), "{err}");
    }
    let (exit, out, _) = run(&["verify", "--json"], file);
    assert_eq!(exit, 8);
    assert!(out.contains("\"verdict\":\"UNREADABLE\"") && out.contains("INPUT_UNREADABLE"), "{out}");
}

#[test]
fn what_is_no_log_is_refused_in_words() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(path(name), bytes).expect("written");
        path(name)
    };
    refused(&path("missing.tkb"), "No such file");
    std::fs::create_dir(path("dir")).expect("a folder");
    refused(&path("dir"), "it is a folder");
    refused(&write("empty", b""), "it is empty");
    refused(&write("text", b"hello"), "neither a store of Toka nor a bundle");
    let noise: Vec<u8> = (0..100_000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    refused(&write("noise", &noise), "neither a store of Toka nor a bundle");
    refused(&write("short.sqlite", b"SQLite format 3\0"), "short.sqlite");
    refused(&write("noise.sqlite", &[b"SQLite format 3\0".as_slice(), &noise].concat()), "noise.sqlite");
    let sparse = std::fs::File::create(path("sparse")).expect("a file");
    sparse.set_len(10 << 30).expect("a length");
    refused(&path("sparse"), "neither a store of Toka nor a bundle");
}

#[test]
fn a_sparse_file_that_begins_as_a_bundle_ends_soon() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("sparse.tkb");
    let mut file = std::fs::File::create(&path).expect("a file");
    file.write_all(toka_store::bundle::MAGIC).expect("written");
    file.set_len(10 << 30).expect("a length");
    let (exit, out, _) = run(&["verify"], &path);
    assert_eq!(exit, 8, "{out}");
}

/// A SQLite file that says it is a store and has these tables instead.
fn shaped(folder: &Path, sql: &str) -> std::path::PathBuf {
    let path = folder.join("shaped.sqlite");
    let _ = std::fs::remove_file(&path);
    let raw = Connection::open(&path).expect("a connection");
    raw.execute_batch(&format!("PRAGMA application_id = 0x544f4b41; PRAGMA user_version = 1; {sql}")).expect("sql");
    path
}

const LOOSE: &str = "
CREATE TABLE sessions (number, id); CREATE TABLE heads (session, seq, hash, time_us, kind);
CREATE TABLE entries (pos INTEGER PRIMARY KEY, session, seq, entry);
CREATE TABLE blobs (pos INTEGER PRIMARY KEY, session, commitment, salt, bytes);";

#[test]
fn a_store_of_another_shape_is_unreadable_and_says_where() {
    let folder = tempfile::tempdir().expect("a folder");
    let id = "x'0101010101010101010101010101010101010101010101010101010101010101'";
    let cases = [
        "CREATE TABLE other (a)".to_owned(),
        "CREATE TABLE sessions (a); CREATE TABLE heads (a); CREATE TABLE entries (a); CREATE TABLE blobs (a)"
            .to_owned(),
        format!("{LOOSE} INSERT INTO sessions VALUES (1, NULL)"),
        format!("{LOOSE} INSERT INTO sessions VALUES (1, 'text')"),
        format!("{LOOSE} INSERT INTO sessions VALUES (1, x'01')"),
        format!("{LOOSE} INSERT INTO sessions VALUES (1, {id}); INSERT INTO entries VALUES (1, 1, NULL, NULL)"),
        format!("{LOOSE} INSERT INTO sessions VALUES (1, {id}); INSERT INTO entries VALUES (1, 1, 0, NULL)"),
        format!("{LOOSE} INSERT INTO sessions VALUES (1, {id}); INSERT INTO entries VALUES (1, 1, 0, 'text')"),
        format!("{LOOSE} INSERT INTO sessions VALUES (1, {id}); INSERT INTO entries VALUES (1, 1, 0, 3.5)"),
        format!("{LOOSE} INSERT INTO sessions VALUES (1, {id}); INSERT INTO heads VALUES (1, -1, NULL, 'x', 9e9)"),
        format!("{LOOSE} INSERT INTO sessions VALUES (1, {id})"),
        format!("{LOOSE} INSERT INTO sessions VALUES (1, {id}); INSERT INTO entries VALUES (1, 1, 0, x'')"),
        format!("{LOOSE} INSERT INTO sessions VALUES (1, {id}); INSERT INTO entries VALUES (1, 1, 0, zeroblob(200))"),
        format!(
            "{LOOSE} INSERT INTO sessions VALUES (1, {id}); INSERT INTO entries VALUES (1, 1, 0, zeroblob(60000000))"
        ),
    ];
    for sql in cases {
        let path = shaped(folder.path(), &sql);
        let (exit, out, err) = run(&["verify"], &path);
        assert!(exit == 8 || exit == 3, "{sql}: {exit} {out} {err}");
        assert!(!out.is_empty() || err.contains("shaped.sqlite"), "{sql}: {err}");
        let (exit, _, _) = run(&["show"], &path);
        assert!(exit == 8 || exit == 0, "{sql}: {exit}");
    }
}

#[test]
fn a_view_in_place_of_a_table_computes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let sql =
        LOOSE.replace("CREATE TABLE sessions (number, id)", "CREATE VIEW sessions AS SELECT 1 AS number, x'' AS id");
    let (exit, _, err) = run(&["verify"], &shaped(folder.path(), &sql));
    assert_eq!(exit, 8, "{err}");
}

#[test]
fn a_store_without_sessions_holds_nothing_to_vouch_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("toka.sqlite");
    drop(toka_store::SqliteLog::open(&path).expect("a store"));
    let report = verify_store(&path);
    assert_eq!((report.exit(), report.sessions.len()), (4, 0));
}

/// The honest session in a store, after `sql`.
fn edited(sql: &str) -> toka_replay::Report {
    let folder = tempfile::tempdir().expect("a folder");
    let path = store(folder.path());
    Connection::open(&path).expect("a connection").execute_batch(sql).expect("sql");
    verify_store(&path)
}

#[test]
fn rows_are_checked_against_what_they_hold() {
    assert_eq!(told(&edited("DELETE FROM entries WHERE seq = 7")), "3: SEQ_GAP @7");
    assert_eq!(told(&edited("DELETE FROM entries WHERE seq = 0")), "3: SEQ_GAP @0");
    assert_eq!(
        told(&edited("DELETE FROM entries WHERE seq > 9")),
        "3: STORE_KEY_MISMATCH @9, TRUNCATION_NOT_EXCLUDED @9"
    );
    assert_eq!(told(&edited("DELETE FROM entries")), "8: INPUT_UNREADABLE @0");
    assert_eq!(told(&edited("UPDATE entries SET seq = 25 WHERE seq = 19")), "3: STORE_KEY_MISMATCH @19");
    let swapped = "UPDATE entries SET seq = 100 WHERE seq = 5; UPDATE entries SET seq = 5 WHERE seq = 6;
                   UPDATE entries SET seq = 6 WHERE seq = 100";
    let report = edited(swapped);
    assert!(report.findings.iter().any(|finding| finding.code.name() == "STORE_KEY_MISMATCH"), "{}", told(&report));
    assert_eq!((report.exit(), report.roots().next().and_then(|root| root.seq)), (3, Some(5)));
    let shifted = "DELETE FROM entries WHERE seq = 7; UPDATE entries SET seq = seq + 100 WHERE seq > 7;
                   UPDATE entries SET seq = seq - 101 WHERE seq > 100";
    let report = edited(shifted);
    assert_eq!((report.exit(), report.roots().next().and_then(|root| root.seq)), (3, Some(7)), "{}", told(&report));
    assert!(report.findings.iter().any(|finding| finding.code.name() == "STORE_KEY_MISMATCH"));
    assert!(told(&edited("UPDATE sessions SET id = zeroblob(32)")).starts_with("3: GENESIS_INVALID @0"));
}

#[test]
fn an_entry_that_was_cut_is_torn_at_the_end_and_truncated_elsewhere() {
    let cut = |seq: u64, bytes: usize| {
        edited(&format!("UPDATE entries SET entry = substr(entry, 1, length(entry) - {bytes}) WHERE seq = {seq}"))
    };
    let report = cut(19, 1);
    assert_eq!(told(&report), "4: TORN_TAIL @19");
    assert_eq!(report.sessions[0].trusted_prefix_seq, Some(18));
    let axes = &report.sessions[0].axes;
    for axis in [Axis::Chain, Axis::Signatures, Axis::Keys, Axis::Legality, Axis::State, Axis::Blobs] {
        assert_eq!(axes.get(axis), Answer::Ok, "{axis}: the torn entry says nothing about those before it");
    }
    for axis in [Axis::Frame, Axis::Tail] {
        assert_eq!(axes.get(axis), Answer::NotChecked, "{axis}");
    }
    assert_eq!(told(&cut(CALL, 1)), "3: FRAME_TRUNCATED @4");
    let body = honest().entries[19].body().len();
    assert_eq!(told(&cut(19, body)), "4: TORN_TAIL @19");
    assert_eq!(told(&cut(19, body + 1)), "3: SIG_INVALID @19");
}

#[test]
fn bytes_behind_an_entry_belong_to_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = store(folder.path());
    let mut entry = Log::of(&honest()).entries[CALL as usize].clone();
    entry.push(0);
    let raw = Connection::open(&path).expect("a connection");
    raw.execute("UPDATE entries SET entry = ?1 WHERE seq = 4", [entry]).expect("an update");
    assert_eq!(told(&verify_store(&path)), "3: FRAME_SURPLUS @4");
}

#[test]
fn rows_that_belong_to_no_session_are_found() {
    let stray = "PRAGMA foreign_keys = OFF; INSERT INTO entries (session, seq, entry) VALUES (99, 0, x'00')";
    let report = edited(stray);
    assert_eq!(told(&report), "3: STORE_KEY_MISMATCH @-");
    assert_eq!(report.findings[0].actual, "1 of entries of no session");
}

#[test]
fn blobs_in_a_store_are_checked_too() {
    let blob = "(SELECT min(pos) FROM blobs)";
    assert_eq!(told(&edited(&format!("DELETE FROM blobs WHERE pos = {blob}"))), "3: BLOB_MISSING_UNAUTHORISED @1");
    let salted = edited(&format!("UPDATE blobs SET salt = zeroblob(32) WHERE pos = {blob}"));
    assert_eq!(told(&salted), "3: BLOB_MISMATCH @1");
}
