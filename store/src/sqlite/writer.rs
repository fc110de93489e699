//! Writing: one transaction and one flush per batch.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Params};
use toka_kernel::entry::Head;
use toka_kernel::ids::{Commitment, Seq, SessionId};

use super::OpenError;
use super::lock::WriterLock;
use super::open::{connect, flush_leftovers, flush_names, one_name};
use super::reader::{SqliteReader, array, bytes, find_session};
use super::wal::Wal;
use crate::log::{
    Append, AppendError, CONTENT_BYTES_MIN, Durability, Log, NewBlob, Place, RawEntry, ReadError, ReadLog, Rows,
    SessionRow, StoredBlob,
};

/// Pages that an append of one session touches beside its content.
const PAGES_PER_APPEND: usize = 4;
const PAGE_BYTES: usize = 4_096;
/// Heads kept in memory; more, and all are read again.
const KNOWN_MAX: usize = 65_536;

/// The one writer of a SQLite store.
///
/// Reads go through a connection of their own and never wait for a flush. Dropped, it moves everything into the main
/// file, so that the file alone is the store.
#[derive(Debug)]
pub struct SqliteLog {
    // Dropped in this order: the lock goes last, when the file is whole.
    reader: SqliteReader,
    writer: Mutex<Writer>,
    _lock: WriterLock,
}

impl SqliteLog {
    /// Opens a store for writing, and makes it if there is none.
    ///
    /// What a killed writer left behind is brought to the disk first: a process may have died between writing and
    /// flushing, and what can be read must never be less durable than what was acknowledged.
    ///
    /// # Errors
    /// [`OpenError::Busy`] if another writer has it; else when it is no store of Toka, a newer or an altered one, or
    /// cannot be read and written.
    pub fn open(path: impl AsRef<Path>) -> Result<SqliteLog, OpenError> {
        let path = one_name(path.as_ref())?;
        let lock = WriterLock::take(&path)?;
        // Before SQLite opens the files: closing another descriptor of a file gives up the locks that SQLite has on it
        // (fcntl(2), record locks).
        flush_leftovers(&path).map_err(|error| OpenError::io(&path, error))?;
        let conn = connect(&path)?;
        flush_names(&path).map_err(|error| OpenError::io(&path, error))?;
        let wal = Wal::of(&path);
        let writer = Writer { conn, known: HashMap::new(), wal, poisoned: false };
        let reader = SqliteReader::open(&path)?;
        Ok(SqliteLog { reader, writer: Mutex::new(writer), _lock: lock })
    }

    /// Moves everything into the main file and empties the WAL; `false` if a reader was in the way.
    ///
    /// # Errors
    /// When a write or a flush failed, now or before.
    pub fn checkpoint(&self) -> Result<bool, AppendError> {
        self.writer().checkpoint("TRUNCATE")
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SqliteLog {
    fn drop(&mut self) {
        // Nobody is left to tell: after a failure the WAL stays, and the next writer begins with it.
        let _ = self.checkpoint();
    }
}

impl Log for SqliteLog {
    fn append(&self, batch: &[Append]) -> Vec<Result<Head, AppendError>> {
        self.writer().append(batch)
    }

    fn durability(&self) -> Durability {
        Durability::Flushed
    }

    fn find_content(&self, session: SessionId, bytes: &[u8]) -> Result<Option<Commitment>, ReadError> {
        self.reader.find_content(session, bytes)
    }
}

impl ReadLog for SqliteLog {
    fn sessions(&self, after: Option<SessionId>) -> Rows<'_, SessionRow> {
        self.reader.sessions(after)
    }

    fn head(&self, session: SessionId) -> Result<Option<Head>, ReadError> {
        self.reader.head(session)
    }

    fn read(&self, session: SessionId, from: Seq) -> Rows<'_, RawEntry> {
        self.reader.read(session, from)
    }

    fn blob(&self, session: SessionId, commitment: Commitment) -> Result<Option<StoredBlob>, ReadError> {
        self.reader.blob(session, commitment)
    }

    fn blob_len(&self, session: SessionId, commitment: Commitment) -> Result<Option<u64>, ReadError> {
        self.reader.blob_len(session, commitment)
    }

    fn strays(&self) -> Result<Vec<String>, ReadError> {
        self.reader.strays()
    }
}

#[derive(Debug)]
struct Writer {
    conn: Connection,
    /// What this handle wrote or read last, valid because nobody else writes; the file is asked for the rest.
    known: HashMap<SessionId, Known>,
    wal: Wal,
    poisoned: bool,
}

/// A session as the writer needs it.
#[derive(Clone, Copy, Debug)]
struct Known {
    number: i64,
    head: Option<Head>,
    lookup_key: Option<[u8; 32]>,
}

/// Why a transaction was given up.
enum Stop {
    /// One item does not fit; the others are tried again without it.
    Item(usize, AppendError),
    /// The engine failed, with an unknown outcome.
    Engine(rusqlite::Error),
}

impl Writer {
    fn append(&mut self, batch: &[Append]) -> Vec<Result<Head, AppendError>> {
        if self.poisoned {
            return vec![Err(AppendError::Poisoned); batch.len()];
        }
        let shape = |(index, item): (usize, &Append)| item.check().err().map(|error| (index, error));
        let mut refused: BTreeMap<usize, AppendError> = batch.iter().enumerate().filter_map(shape).collect();
        loop {
            if refused.len() == batch.len() {
                return refused.into_values().map(Err).collect();
            }
            match self.transact(batch, &refused) {
                Ok(answers) => {
                    self.checkpoint_if_due();
                    return answers;
                }
                Err(Stop::Item(index, error)) => {
                    refused.insert(index, error);
                }
                Err(Stop::Engine(error)) => {
                    let error = self.fail(error);
                    let answer = |index| Err(refused.remove(&index).unwrap_or_else(|| error.clone()));
                    return (0..batch.len()).map(answer).collect();
                }
            }
        }
    }

    /// Writes all items but those refused, or none of them.
    fn transact(
        &mut self,
        batch: &[Append],
        refused: &BTreeMap<usize, AppendError>,
    ) -> Result<Vec<Result<Head, AppendError>>, Stop> {
        self.wal.make_room();
        execute(&self.conn, "BEGIN IMMEDIATE", []).map_err(Stop::Engine)?;
        let mut tail = Tail { conn: &self.conn, known: &self.known, fresh: HashMap::new(), bytes: 0 };
        let mut answer = |(index, item)| match refused.get(&index) {
            Some(error) => Ok(Err(error.clone())),
            None => tail.write(item).map_err(|error| item_or_engine(index, error)),
        };
        let answers: Result<Vec<_>, Stop> = batch.iter().enumerate().map(&mut answer).collect();
        let (fresh, bytes) = (tail.fresh, tail.bytes);
        let committed = answers.and_then(|answers| {
            execute(&self.conn, "COMMIT", []).map_err(Stop::Engine)?;
            Ok(answers)
        });
        match committed {
            Ok(_) => {
                self.remember(fresh);
                self.wal.has_grown(bytes);
            }
            Err(_) => {
                self.known.clear();
                self.roll_back();
            }
        }
        committed
    }

    fn remember(&mut self, fresh: HashMap<SessionId, Known>) {
        if self.known.len() > KNOWN_MAX {
            self.known.clear();
        }
        self.known.extend(fresh);
    }

    /// Without effect if the engine has rolled back by itself. If it fails, nothing is committed either.
    fn roll_back(&self) {
        if !self.conn.is_autocommit() {
            let _ = self.conn.execute_batch("ROLLBACK");
        }
    }

    fn checkpoint_if_due(&mut self) {
        if self.wal.is_full() {
            // What was just committed is durable whatever becomes of this; a failure shows at the next append.
            let _ = self.checkpoint("PASSIVE");
        }
    }

    /// Done by hand, since SQLite's own checkpoints keep their failed flushes to themselves.
    fn checkpoint(&mut self, mode: &str) -> Result<bool, AppendError> {
        if self.poisoned {
            return Err(AppendError::Poisoned);
        }
        self.wal.starts_over();
        let sql = format!("PRAGMA wal_checkpoint({mode})");
        let busy = self.conn.query_row(&sql, [], |row| row.get::<_, i64>(0));
        busy.map(|busy| busy == 0).map_err(|error| self.fail(error))
    }

    /// Poisons the handle, unless the transaction has not even begun because another program is in the file.
    fn fail(&mut self, error: rusqlite::Error) -> AppendError {
        let what = error.to_string();
        let code = error.sqlite_error_code();
        if code == Some(ErrorCode::DatabaseBusy) {
            return AppendError::Io { what };
        }
        self.poisoned = true;
        // Nor may closing write: it would take pages for flushed that are not.
        let _ = self.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        if code == Some(ErrorCode::DiskFull) { AppendError::Full { what } } else { AppendError::Io { what } }
    }
}

/// What one transaction has done so far.
struct Tail<'a> {
    conn: &'a Connection,
    known: &'a HashMap<SessionId, Known>,
    fresh: HashMap<SessionId, Known>,
    bytes: usize,
}

impl Tail<'_> {
    fn write(&mut self, item: &Append) -> rusqlite::Result<Result<Head, AppendError>> {
        let session = item.head.session;
        let known = self.find(session)?;
        match item.place(known.and_then(|known| known.head)) {
            Place::Conflict(actual) => return Ok(Err(AppendError::Conflict { actual })),
            Place::Before(actual) => {
                let repeat = self.has_all(session, &item.entries)?;
                return Ok(if repeat { Ok(actual) } else { Err(AppendError::Conflict { actual }) });
            }
            Place::Next => {}
        }
        let mut known = match known {
            Some(known) => known,
            None => self.add_session(session)?,
        };
        for entry in &item.entries {
            let sql = "INSERT INTO entries (session, seq, entry) VALUES (?1, ?2, ?3)";
            execute(self.conn, sql, (known.number, entry.seq, &entry.bytes))?;
            self.bytes += entry.bytes.len();
        }
        for blob in &item.blobs {
            self.add_blob(&mut known, blob)?;
        }
        self.set_head(&mut known, item)?;
        self.fresh.insert(session, known);
        self.bytes += PAGES_PER_APPEND * PAGE_BYTES;
        Ok(Ok(item.head))
    }

    fn find(&self, session: SessionId) -> rusqlite::Result<Option<Known>> {
        if let Some(known) = self.fresh.get(&session).or_else(|| self.known.get(&session)) {
            return Ok(Some(*known));
        }
        let found = find_session(self.conn, session)?;
        Ok(found.map(|(number, head)| Known { number, head, lookup_key: None }))
    }

    /// Whether the file has exactly these entries.
    fn has_all(&self, session: SessionId, entries: &[RawEntry]) -> rusqlite::Result<bool> {
        let sql = "SELECT entry FROM entries
                   WHERE session = (SELECT number FROM sessions WHERE id = ?1) AND seq = ?2";
        let mut statement = self.conn.prepare_cached(sql)?;
        for entry in entries {
            let same = statement.query_row((session.0, entry.seq), |row| Ok(bytes(row, 0)? == entry.bytes));
            if same.optional()? != Some(true) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn add_session(&self, session: SessionId) -> rusqlite::Result<Known> {
        execute(self.conn, "INSERT INTO sessions (id) VALUES (?1)", [session.0])?;
        Ok(Known { number: self.conn.last_insert_rowid(), head: None, lookup_key: None })
    }

    /// The same blob again is no news; a guard refuses other bytes under its commitment.
    fn add_blob(&mut self, known: &mut Known, blob: &NewBlob) -> rusqlite::Result<()> {
        let sql = "INSERT INTO blobs (session, commitment, salt, bytes) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
        let row = (known.number, blob.commitment.0, blob.salt, &blob.bytes);
        if execute(self.conn, sql, row)? == 0 {
            return Ok(());
        }
        self.bytes += blob.bytes.len();
        if blob.bytes.len() >= CONTENT_BYTES_MIN {
            let keyed = blake3::keyed_hash(&self.lookup_key(known)?, &blob.bytes);
            let sql = "INSERT INTO contents (session, keyed, commitment) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
            execute(self.conn, sql, (known.number, keyed.as_bytes(), blob.commitment.0))?;
        }
        Ok(())
    }

    /// The lookup key of a session, drawn when it is first needed.
    fn lookup_key(&self, known: &mut Known) -> rusqlite::Result<[u8; 32]> {
        if let Some(key) = known.lookup_key {
            return Ok(key);
        }
        let sql = "SELECT key FROM lookup_keys WHERE session = ?1";
        let stored = self.conn.prepare_cached(sql)?.query_row([known.number], |row| array(row, 0)).optional()?;
        let key = match stored {
            Some(key) => key,
            None => {
                let mut key = [0; 32];
                getrandom::fill(&mut key).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
                execute(self.conn, "INSERT INTO lookup_keys (session, key) VALUES (?1, ?2)", (known.number, key))?;
                key
            }
        };
        known.lookup_key = Some(key);
        Ok(key)
    }

    /// Compares and sets: a head that some other program moved is never overwritten.
    fn set_head(&self, known: &mut Known, item: &Append) -> rusqlite::Result<()> {
        let Head { seq, hash, time_us, kind, .. } = item.head;
        let row = (known.number, seq, hash.0, time_us, kind);
        let changed = match known.head {
            None => {
                let sql = "INSERT INTO heads (session, seq, hash, time_us, kind) VALUES (?1, ?2, ?3, ?4, ?5)";
                execute(self.conn, sql, row)?
            }
            Some(old) => {
                let sql = "UPDATE heads SET seq = ?2, hash = ?3, time_us = ?4, kind = ?5
                           WHERE session = ?1 AND seq = ?6 AND hash = ?7";
                execute(self.conn, sql, (row.0, row.1, row.2, row.3, row.4, old.seq, old.hash.0))?
            }
        };
        if changed != 1 {
            return Err(refusal("another program has moved the head"));
        }
        known.head = Some(item.head);
        Ok(())
    }
}

fn execute(conn: &Connection, sql: &str, params: impl Params) -> rusqlite::Result<usize> {
    conn.prepare_cached(sql)?.execute(params)
}

/// A refusal of ours, carried as the engine's own so that both give up the transaction in one way.
fn refusal(what: &str) -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CONSTRAINT);
    rusqlite::Error::SqliteFailure(code, Some(what.to_owned()))
}

/// A constraint or a guard refuses the item; anything else is a failure of the engine.
fn item_or_engine(index: usize, error: rusqlite::Error) -> Stop {
    match error.sqlite_error_code() {
        Some(ErrorCode::ConstraintViolation) => Stop::Item(index, AppendError::Refused { what: error.to_string() }),
        _ => Stop::Engine(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{contents, head, tail};

    #[test]
    fn a_full_disk_poisons_the_handle_and_loses_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s.sqlite");
        let log = SqliteLog::open(&path).expect("a store");
        assert_eq!(log.append(&[tail(1, 0, 9)]), [Ok(head(1, 9))]);
        log.writer().conn.pragma_update(None, "max_page_count", 1).expect("no more pages than there are");
        let before = contents(&log);

        let batch = [tail(1, 10, 2_000), tail(2, 5, 5)];
        let answers = log.append(&batch);
        assert!(answers.iter().all(|answer| matches!(answer, Err(AppendError::Full { .. }))), "{answers:?}");
        assert_eq!(log.append(&batch), [Err(AppendError::Poisoned), Err(AppendError::Poisoned)]);
        assert_eq!(contents(&log), before, "reading goes on");
        drop(log);

        let log = SqliteLog::open(&path).expect("it opens again");
        assert_eq!(contents(&log), before);
        assert_eq!(log.append(&[tail(1, 10, 2_000)]), [Ok(head(1, 2_000))]);
    }
}
