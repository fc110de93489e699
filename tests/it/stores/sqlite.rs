//! What only the SQLite store promises: guards in the file, one writer, readers that change nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use rusqlite::Connection;
use tempfile::TempDir;
use toka_store::conformance::{blob, contents, head, session, tail};
use toka_store::{Append, AppendError, Log, OpenError, ReadLog, SqliteLog, SqliteReader};

/// A store with two sessions and a blob, closed.
fn stored() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("s.sqlite");
    let log = SqliteLog::open(&path).expect("a store");
    let answers = log.append(&[Append { blobs: vec![blob(1, 300)], ..tail(1, 0, 3) }, tail(2, 0, 0)]);
    assert!(answers.iter().all(Result::is_ok));
    (folder, path)
}

fn files(folder: &TempDir) -> BTreeSet<String> {
    let name = |file: std::io::Result<fs::DirEntry>| file.expect("a file").file_name().to_string_lossy().into_owned();
    fs::read_dir(folder.path()).expect("a folder").map(name).collect()
}

fn read_all(log: &dyn ReadLog) -> Result<usize, toka_store::ReadError> {
    let mut entries = 0;
    for row in log.sessions(None) {
        for entry in log.read(row?.session, 0) {
            entry?;
            entries += 1;
        }
    }
    Ok(entries)
}

#[test]
fn the_file_itself_refuses_to_change_what_was_appended() {
    let (_folder, path) = stored();
    let raw = Connection::open(&path).expect("a raw connection");
    raw.execute_batch("PRAGMA foreign_keys = OFF; PRAGMA recursive_triggers = OFF").expect("a pragma");
    for (sql, guard) in [
        ("UPDATE entries SET entry = x'00' WHERE seq = 1", "entries never change"),
        ("UPDATE OR REPLACE entries SET seq = 2 WHERE seq = 1", "entries never change"),
        ("DELETE FROM entries WHERE seq = 3", "entries stay"),
        ("DELETE FROM entries", "entries stay"),
        ("INSERT INTO entries (session, seq, entry) VALUES (1, 1, x'00')", "entries are only appended"),
        ("INSERT OR REPLACE INTO entries (session, seq, entry) VALUES (1, 1, x'00')", "entries are only appended"),
        ("REPLACE INTO entries (session, seq, entry) VALUES (1, 3, x'00')", "entries are only appended"),
        ("REPLACE INTO entries (pos, session, seq, entry) VALUES (1, 1, 4, x'00')", "entries are only appended"),
        (
            "INSERT INTO entries (session, seq, entry) VALUES (1, 3, x'00') ON CONFLICT DO UPDATE SET entry = x'00'",
            "entries are only appended",
        ),
        ("UPDATE heads SET seq = 2 WHERE session = 1", "heads only go forward"),
        ("UPDATE heads SET hash = zeroblob(32)", "heads only go forward"),
        ("UPDATE heads SET session = 3, seq = 9 WHERE session = 1", "heads only go forward"),
        ("REPLACE INTO heads VALUES (1, 9, zeroblob(32), 1, 1)", "a session has one head"),
        ("DELETE FROM heads", "heads stay"),
        ("UPDATE sessions SET id = zeroblob(32) WHERE number = 1", "sessions never change"),
        ("REPLACE INTO sessions VALUES (1, zeroblob(32))", "sessions are only added"),
        ("REPLACE INTO sessions (id) SELECT id FROM sessions", "sessions are only added"),
        ("DELETE FROM sessions", "sessions stay"),
        ("UPDATE blobs SET bytes = x'00'", "blobs never change"),
        (
            "REPLACE INTO blobs (session, commitment, salt, bytes) SELECT session, commitment, salt, x'00' FROM blobs",
            "a blob has the commitment of other bytes",
        ),
        ("REPLACE INTO blobs SELECT pos, session, zeroblob(32), salt, bytes FROM blobs", "a blob has"),
    ] {
        let error = raw.execute_batch(sql).expect_err(sql).to_string();
        assert!(error.contains(guard), "{sql}: {error}");
    }
    drop(raw);
    let log = SqliteLog::open(&path).expect("a store");
    assert_eq!(log.append(&[tail(1, 0, 3), tail(2, 0, 0)]), [Ok(head(1, 3)), Ok(head(2, 0))], "nothing has changed");
}

#[test]
fn a_second_writer_is_told_who_the_first_is() {
    let (folder, path) = stored();
    let first = SqliteLog::open(&path).expect("a store");
    let by_another_name = folder.path().join(".").join("s.sqlite");
    for path in [&path, &by_another_name] {
        let Err(OpenError::Busy { holder, .. }) = SqliteLog::open(path) else { panic!("two writers") };
        assert!(holder.starts_with(&format!("pid {} since 20", std::process::id())), "{holder}");
    }
    assert_eq!(SqliteReader::open(&path).expect("a reader").head(session(1)), Ok(Some(head(1, 3))));
    drop(first);
    assert!(SqliteLog::open(&path).is_ok());
}

#[test]
fn readers_see_whole_appends_while_the_writer_writes() {
    let (_folder, path) = stored();
    let log = SqliteLog::open(&path).expect("a store");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let read = || {
            let reader = SqliteReader::open(&path).expect("a reader");
            let mut seen = 4;
            while !done.load(Ordering::Acquire) {
                let head = reader.head(session(1)).expect("it is read").expect("it is there");
                let entries: Vec<_> = reader.read(session(1), 0).collect::<Result<_, _>>().expect("they are read");
                assert!(entries.len() > head.seq as usize && entries.len() >= seen);
                assert_eq!(entries.len() % 2, 0, "appends are of two");
                assert_eq!(entries, tail(1, 0, entries.len() as u64 - 1).entries);
                seen = entries.len();
            }
        };
        let readers = [scope.spawn(read), scope.spawn(read)];
        for from in (4..400).step_by(2) {
            assert_eq!(log.append(&[tail(1, from, from + 1)]), [Ok(head(1, from + 1))]);
        }
        assert_eq!(log.checkpoint(), Ok(true));
        done.store(true, Ordering::Release);
        for reader in readers {
            reader.join().expect("a reader reads");
        }
    });
}

#[test]
fn a_closed_store_is_one_file_and_reading_it_adds_none() {
    let (folder, path) = stored();
    let before = files(&folder);
    assert_eq!(before, BTreeSet::from(["s.sqlite".to_owned(), "s.sqlite.lock".to_owned()]));
    let bytes = fs::read(&path).expect("a file");

    let reader = SqliteReader::open(&path).expect("a reader");
    assert_eq!(read_all(&reader), Ok(5));
    assert_eq!(files(&folder), before);
    drop(reader);
    assert_eq!(files(&folder), before);
    assert_eq!(fs::read(&path).expect("a file"), bytes);
}

#[test]
fn a_reader_notices_a_writer_that_comes_later() {
    let (_folder, path) = stored();
    let reader = SqliteReader::open(&path).expect("a reader");
    assert_eq!(reader.head(session(1)), Ok(Some(head(1, 3))));

    let log = SqliteLog::open(&path).expect("a store");
    assert_eq!(log.append(&[tail(1, 4, 5)]), [Ok(head(1, 5))]);
    assert_eq!(reader.head(session(1)), Ok(Some(head(1, 5))), "through the WAL");
    drop(log);
    assert_eq!(reader.read(session(1), 0).count(), 6, "in the main file");

    let alone = SqliteReader::open(&path).expect("a reader");
    assert_eq!(alone.head(session(1)), Ok(Some(head(1, 5))));
    let log = SqliteLog::open(&path).expect("a store");
    assert_eq!(log.append(&[tail(1, 6, 6)]), [Ok(head(1, 6))]);
    drop(log);
    assert_eq!(alone.head(session(1)), Ok(Some(head(1, 6))), "a writer that came and went");
}

#[test]
fn a_copy_taken_from_under_a_writer_is_read_with_its_wal() {
    let (folder, path) = stored();
    let log = SqliteLog::open(&path).expect("a store");
    assert_eq!(log.append(&[tail(1, 4, 5)]), [Ok(head(1, 5))]);
    let copy = folder.path().join("copy.sqlite");
    fs::copy(&path, &copy).expect("a copy");
    assert_eq!(
        SqliteReader::open(&copy).expect("a reader").head(session(1)),
        Ok(Some(head(1, 3))),
        "the main file alone"
    );
    fs::copy(with(&path, "-wal"), with(&copy, "-wal")).expect("a copy");
    assert_eq!(SqliteReader::open(&copy).expect("a reader").head(session(1)), Ok(Some(head(1, 5))));
}

fn with(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

#[test]
fn other_files_are_refused_by_what_they_are() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("other");
    assert!(matches!(SqliteReader::open(&path), Err(OpenError::Missing { .. })));

    fs::write(&path, [b'x'; 5_000]).expect("a file");
    assert!(matches!(SqliteLog::open(&path), Err(OpenError::Foreign { .. })));
    assert!(matches!(SqliteReader::open(&path), Err(OpenError::Foreign { .. })));
    assert_eq!(fs::read(&path).expect("a file"), [b'x'; 5_000], "it is left as it was");

    let path = folder.path().join("other.sqlite");
    let raw = Connection::open(&path).expect("a database");
    raw.execute_batch("PRAGMA application_id = 7; CREATE TABLE t (x)").expect("a table");
    drop(raw);
    let before = fs::read(&path).expect("a file");
    let errors = [SqliteLog::open(&path).map(drop), SqliteReader::open(&path).map(drop)];
    for error in errors.map(|opened| opened.expect_err("not ours")) {
        assert!(error.to_string().contains("application_id is 0x00000007"), "{error}");
    }
    assert_eq!(fs::read(&path).expect("a file"), before, "it is left as it was");
}

#[test]
fn a_newer_layout_is_refused_by_its_number() {
    let (_folder, path) = stored();
    Connection::open(&path).and_then(|raw| raw.execute_batch("PRAGMA user_version = 2")).expect("a pragma");
    let newer = |error| matches!(error, Some(OpenError::Newer { found: 2, known: 1, .. }));
    assert!(newer(SqliteLog::open(&path).err()));
    assert!(newer(SqliteReader::open(&path).err()));
}

#[test]
fn a_store_without_its_guards_is_read_but_not_written() {
    let (_folder, path) = stored();
    let raw = Connection::open(&path).expect("a raw connection");
    raw.execute_batch("DROP TRIGGER entries_never_change; UPDATE entries SET seq = 7 WHERE seq = 3")
        .expect("an attack");
    drop(raw);
    let Err(OpenError::Altered { what, .. }) = SqliteLog::open(&path) else { panic!("it is opened") };
    assert_eq!(what, "trigger entries_never_change is missing or changed");
    let reader = SqliteReader::open(&path).expect("a reader");
    let seqs: Vec<_> = reader.read(session(1), 0).map(|entry| entry.expect("it is read").seq).collect();
    assert_eq!(seqs, [0, 1, 2, 7], "the verifier sees what is there");
}

#[test]
fn a_table_that_computes_is_not_read() {
    let (_folder, path) = stored();
    let raw = Connection::open(&path).expect("a raw connection");
    raw.execute_batch("ALTER TABLE entries RENAME TO e; CREATE VIEW entries AS SELECT * FROM e").expect("an attack");
    assert!(matches!(SqliteReader::open(&path), Err(OpenError::Altered { .. })));
}

#[test]
fn rows_that_contradict_a_head_hinder_only_their_session() {
    let (_folder, path) = stored();
    Connection::open(&path)
        .and_then(|raw| raw.execute_batch("INSERT INTO entries (session, seq, entry) VALUES (1, 4, x'00')"))
        .expect("an attack the guards cannot see");
    let log = SqliteLog::open(&path).expect("a store");
    let answers = log.append(&[tail(1, 4, 4), tail(2, 1, 1)]);
    assert!(matches!(answers[0], Err(AppendError::Refused { .. })), "{:?}", answers[0]);
    assert_eq!(answers[1], Ok(head(2, 1)));
}

#[test]
fn a_head_that_somebody_moved_is_never_overwritten() {
    let (_folder, path) = stored();
    let log = SqliteLog::open(&path).expect("a store");
    assert_eq!(log.append(&[tail(1, 4, 4)]), [Ok(head(1, 4))]);
    Connection::open(&path)
        .and_then(|raw| raw.execute_batch("UPDATE heads SET seq = 9 WHERE session = 1"))
        .expect("an attack the guards cannot see");
    assert!(matches!(log.append(&[tail(1, 5, 5)])[0], Err(AppendError::Refused { .. })));
    assert!(matches!(log.append(&[tail(1, 5, 5)])[0], Err(AppendError::Conflict { .. })), "the file is asked again");
}

#[test]
fn a_store_cut_short_is_an_error_and_no_panic() {
    let (folder, path) = stored();
    let bytes = fs::read(&path).expect("a file");
    let cut = folder.path().join("cut.sqlite");
    for len in (0..bytes.len()).step_by(509) {
        fs::write(&cut, &bytes[..len]).expect("a file");
        let read = SqliteReader::open(&cut).map(|reader| read_all(&reader).map_err(|error| error.to_string()));
        assert!(!matches!(read, Ok(Ok(5))), "cut at {len}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_damaged_store_is_an_error_or_other_bytes_but_no_panic(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
    ) {
        static SOUND: OnceLock<Vec<u8>> = OnceLock::new();
        let mut bytes = SOUND.get_or_init(|| { let (_folder, path) = stored(); fs::read(path) }.expect("a file")).clone();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let damaged = folder.path().join("damaged.sqlite");
        fs::write(&damaged, &bytes).expect("a file");
        if let Ok(reader) = SqliteReader::open(&damaged) {
            let _ = read_all(&reader);
            let _ = reader.blob(session(1), blob(1, 300).commitment);
        }
        if let Ok(log) = SqliteLog::open(&damaged) {
            let _ = log.append(&[tail(1, 4, 4), tail(3, 0, 0)]);
            let _ = log.find_content(session(1), &blob(1, 300).bytes);
        }
    }
}

#[test]
fn a_store_of_random_bytes_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("random.sqlite");
    let mut bytes = b"SQLite format 3\0".to_vec();
    bytes.extend((0..8_192u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 11) as u8));
    fs::write(&path, bytes).expect("a file");
    assert!(SqliteReader::open(&path).is_err());
    assert!(SqliteLog::open(&path).is_err());
}

#[test]
fn a_session_in_one_store_is_the_same_in_a_copy() {
    let (folder, path) = stored();
    let copy = folder.path().join("copy.sqlite");
    fs::copy(&path, &copy).expect("a copy");
    let logs = [path, copy].map(|path| SqliteLog::open(path).expect("a store"));
    assert_eq!(contents(&logs[0]), contents(&logs[1]));
}

#[test]
fn a_store_that_is_open_holds_the_locks_of_sqlite_against_other_programs() {
    use std::os::unix::fs::MetadataExt;
    let (_folder, path) = stored();
    let log = SqliteLog::open(&path).expect("a store");
    let inode = fs::metadata(&path).expect("a file").ino();
    let (pid, inode) = (format!(" {} ", std::process::id()), format!(":{inode} "));
    let locks = fs::read_to_string("/proc/locks").expect("the table of locks");
    let held = locks.lines().any(|line| line.contains("POSIX") && line.contains(&pid) && line.contains(&inode));
    assert!(held, "without it another program's last connection would delete the WAL:\n{locks}");
    drop(log);
}

#[test]
fn a_wal_that_was_lengthened_ahead_of_writing_is_read_to_its_last_entry() {
    const APPENDS: u64 = 200;
    let (folder, path) = stored();
    let log = SqliteLog::open(&path).expect("a store");
    for seq in 4..4 + APPENDS {
        assert_eq!(log.append(&[tail(1, seq, seq)]), [Ok(head(1, seq))]);
    }
    let wal = fs::read(with(&path, "-wal")).expect("a file");
    assert!(wal.ends_with(&[0; 64 << 10]), "there is room at its end");
    let copy = folder.path().join("copy.sqlite");
    fs::copy(&path, &copy).expect("a copy");
    fs::write(with(&copy, "-wal"), wal).expect("a copy");
    assert_eq!(SqliteReader::open(&copy).expect("a reader").read(session(1), 0).count() as u64, 4 + APPENDS);
    assert_eq!(SqliteLog::open(&copy).expect("a store").head(session(1)), Ok(Some(head(1, 3 + APPENDS))));
}
