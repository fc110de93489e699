//! Every byte of a small log, changed one at a time, in every place where it can lie.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use rusqlite::Connection;
use toka_replay::code::Class;
use toka_replay::{Input, Report, verify};
use toka_store::{Log as _, SqliteLog};

use super::{Log, honest, options, root, told, verify_bytes};

/// A flip must be a failure or unreadable, and name its place: an entry not further than one from the one that was
/// changed, or a byte of the container.
fn check(report: &Report, what: &str, seq: Option<u64>) {
    let exit = report.exit();
    assert!(exit == 3 || exit == 8, "{what}: {} {:#?}", told(report), report.findings);
    let bad = |class| class == Class::Fail || class == Class::Unreadable;
    let place = report.roots().find(|finding| bad(finding.class)).expect("a root");
    assert!(
        place.seq.is_some() || place.byte_offset.is_some() || place.detail.contains_key("place"),
        "{what}: {place:?}"
    );
    if let (Some(changed), Some(found)) = (seq, place.seq) {
        assert!(found.abs_diff(changed) <= 1, "{what}: changed {changed}, found {place:#?}");
    }
}

/// Runs `test` for every number below `count`, on every core.
fn each(count: usize, test: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    test(number);
                }
            });
        }
    });
}

/// A changed byte is a failure, but for those of a genesis that say which version to read it by.
fn exit_of(k: usize, at: usize) -> u8 {
    if k == 0 && at < 4 { 8 } else { 3 }
}

/// Which bit of a byte is changed: not always the same.
fn bit(at: usize) -> u8 {
    1 << (at * 7 % 8)
}

#[test]
fn every_byte_of_a_bundle_is_vouched_for() {
    let bytes = Log::of(&honest()).bundle();
    assert_eq!(verify_bytes(bytes.clone(), Some(root())).exit(), 0);
    each(bytes.len(), |at| {
        let mut bytes = bytes.clone();
        bytes[at] ^= bit(at);
        // A bundle whose first bytes are others is no bundle.
        if at >= 10 {
            check(&verify_bytes(bytes, Some(root())), &format!("byte {at}"), None);
        }
    });
}

#[test]
fn every_byte_of_an_entry_is_vouched_for_at_its_place() {
    let log = Log::of(&honest());
    let places: Vec<(usize, usize)> =
        log.entries.iter().enumerate().flat_map(|(k, entry)| (0..entry.len()).map(move |at| (k, at))).collect();
    each(places.len(), |number| {
        let (k, at) = places[number];
        let mut log = log.clone();
        log.entries[k][at] ^= bit(at);
        let report = log.verify();
        check(&report, &format!("entry {k} byte {at}"), Some(k as u64));
        assert_eq!(report.exit(), exit_of(k, at), "entry {k} byte {at}: {}", told(&report));
    });
}

#[test]
fn a_byte_that_is_deleted_or_doubled_shows() {
    let bytes = Log::of(&honest()).bundle();
    each(bytes.len() / 5, |number| {
        let at = 10 + number * 5 % (bytes.len() - 10);
        let mut less = bytes.clone();
        less.remove(at);
        check(&verify_bytes(less, Some(root())), &format!("byte {at} deleted"), None);
        let mut more = bytes.clone();
        more.insert(at, bytes[at]);
        check(&verify_bytes(more, Some(root())), &format!("byte {at} doubled"), None);
    });
}

#[test]
fn a_bundle_cut_anywhere_is_unreadable_or_worse() {
    let bytes = Log::of(&honest()).bundle();
    each(bytes.len() / 3, |number| {
        let len = 10 + number * 3 % (bytes.len() - 10);
        check(&verify_bytes(bytes[..len].to_vec(), Some(root())), &format!("{len} bytes"), None);
    });
}

/// A store with the honest session, all in its main file, and guarded by nothing.
pub(super) fn store(folder: &Path) -> std::path::PathBuf {
    let session = honest();
    let path = folder.join("toka.sqlite");
    let log = SqliteLog::open(&path).expect("a store");
    assert!(log.append(&[Log::of(&session).append(session.head)]).iter().all(Result::is_ok));
    drop(log);
    let raw = Connection::open(&path).expect("a connection");
    raw.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("a checkpoint");
    raw.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(())).expect("a journal");
    let mut names = raw.prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger'").expect("a query");
    let names: Vec<String> =
        names.query_map([], |row| row.get(0)).expect("rows").map(|row| row.expect("a row")).collect();
    for name in names {
        raw.execute_batch(&format!("DROP TRIGGER {name}")).expect("dropped");
    }
    path
}

pub(super) fn verify_store(path: &Path) -> Report {
    let input = Input::open(path).expect("a store");
    verify(&input, &options(Some(root())), &mut |_| ()).expect("a sound build")
}

#[test]
fn an_entry_rewritten_in_the_store_is_found_byte_by_byte() {
    let log = Log::of(&honest());
    let jobs = 2;
    std::thread::scope(|scope| {
        for job in 0..jobs {
            let log = &log;
            scope.spawn(move || {
                let folder = tempfile::tempdir().expect("a folder");
                let path = store(folder.path());
                assert_eq!(verify_store(&path).exit(), 0);
                let raw = Connection::open(&path).expect("a connection");
                raw.execute_batch("PRAGMA synchronous = OFF").expect("a pragma");
                for (k, entry) in log.entries.iter().enumerate().skip(job).step_by(jobs) {
                    for at in 0..entry.len() {
                        let mut changed = entry.clone();
                        changed[at] ^= bit(at);
                        rewrite(&raw, k, &changed);
                        let report = verify_store(&path);
                        check(&report, &format!("row {k} byte {at}"), Some(k as u64));
                        assert_eq!(report.exit(), exit_of(k, at), "row {k} byte {at}: {}", told(&report));
                    }
                    rewrite(&raw, k, entry);
                }
                assert_eq!(verify_store(&path).exit(), 0);
            });
        }
    });
}

fn rewrite(raw: &Connection, seq: usize, entry: &[u8]) {
    let rows = raw.execute("UPDATE entries SET entry = ?1 WHERE seq = ?2", (entry, seq as i64)).expect("an update");
    assert_eq!(rows, 1);
}

#[test]
fn an_entry_changed_in_the_database_file_is_found_byte_by_byte() {
    let log = Log::of(&honest());
    let jobs = 2;
    std::thread::scope(|scope| {
        for job in 0..jobs {
            let log = &log;
            scope.spawn(move || {
                let folder = tempfile::tempdir().expect("a folder");
                let path = store(folder.path());
                let mut file = std::fs::File::options().read(true).write(true).open(&path).expect("the file");
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes).expect("bytes");
                let mut put = |at: usize, byte: u8| {
                    file.seek(SeekFrom::Start(at as u64)).expect("a place");
                    file.write_all(&[byte]).expect("a byte");
                };
                for (k, entry) in log.entries.iter().enumerate().skip(job).step_by(jobs) {
                    let found = bytes.windows(entry.len()).position(|window| window == entry.as_slice());
                    let begin = found.expect("the entry lies in one piece");
                    for (at, byte) in entry.iter().enumerate() {
                        put(begin + at, byte ^ bit(at));
                        let report = verify_store(&path);
                        check(&report, &format!("file byte {}", begin + at), Some(k as u64));
                        put(begin + at, *byte);
                    }
                }
                assert_eq!(verify_store(&path).exit(), 0);
            });
        }
    });
}
