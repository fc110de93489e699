//! Reading, beside a writer or without one.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::types::{FromSqlError, ValueRef};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row};
use toka_kernel::entry::Head;
use toka_kernel::ids::{Commitment, EntryHash, Seq, SessionId};
use toka_kernel::limits::BLOB_BYTES_MAX;

use super::{OpenError, beside, schema};
use crate::log::{CONTENT_BYTES_MIN, RawEntry, ReadError, ReadLog, Rows, SessionRow, StoredBlob};
use crate::pages::pages;

/// How long an act waits for another connection to the file.
pub(super) const WAIT: Duration = Duration::from_secs(5);

/// Nothing in a store is larger, so nothing larger is ever allocated.
const VALUE_BYTES_MAX: i32 = (BLOB_BYTES_MAX + 4_096) as i32;

const PAGE_ROWS: usize = 256;
const PAGE_BYTES: usize = 1 << 20;

/// Reads a store and changes nothing: no lock, no table, and no file if nobody writes the store.
#[derive(Debug)]
pub struct SqliteReader {
    path: PathBuf,
    source: Mutex<Source>,
}

impl SqliteReader {
    /// Opens a store for reading.
    ///
    /// While a writer is at work, or after one was killed, the `-wal` and `-shm` files beside the store are used as
    /// SQLite does. Otherwise the main file is whole and is read alone, so that a copy on read-only media will do.
    ///
    /// # Errors
    /// When there is no such file, when it is no store of Toka or a newer one, or when it cannot be read.
    pub fn open(path: impl AsRef<Path>) -> Result<SqliteReader, OpenError> {
        let path = path.as_ref();
        if !path.exists() {
            return Err(OpenError::Missing { path: path.to_owned() });
        }
        let path = fs::canonicalize(path).map_err(|error| OpenError::io(path, error))?;
        let source = Mutex::new(Source::open(&path)?);
        Ok(SqliteReader { path, source })
    }

    /// Runs one short read; a file that is read alone and has moved meanwhile is opened again and asked again.
    fn with<T>(
        &self,
        at: impl Fn() -> String,
        ask: impl Fn(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, ReadError> {
        let place = || format!("{} {}", self.path.display(), at());
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let answer = ask(&source.conn);
            if !source.has_moved(&self.path) {
                return answer.map_err(|error| ReadError { what: error.to_string(), place: place() });
            }
            *source =
                Source::open(&self.path).map_err(|error| ReadError { what: error.to_string(), place: place() })?;
        }
    }

    pub(super) fn find_content(&self, session: SessionId, bytes: &[u8]) -> Result<Option<Commitment>, ReadError> {
        if bytes.len() < CONTENT_BYTES_MIN {
            return Ok(None);
        }
        let at = || format!("content of session {session}");
        let key = self.with(at, |conn| {
            let sql = "SELECT key FROM lookup_keys JOIN sessions ON session = number WHERE id = ?1";
            conn.prepare_cached(sql)?.query_row([session.0], |row| array(row, 0)).optional()
        })?;
        let Some(key) = key else { return Ok(None) };
        let keyed = blake3::keyed_hash(&key, bytes);
        self.with(at, |conn| {
            let sql = "SELECT b.commitment FROM sessions s JOIN contents c ON c.session = s.number
                       JOIN blobs b ON b.session = c.session AND b.commitment = c.commitment
                       WHERE s.id = ?1 AND c.keyed = ?2";
            let row = |row: &Row<'_>| array(row, 0).map(Commitment);
            conn.prepare_cached(sql)?.query_row((session.0, keyed.as_bytes()), row).optional()
        })
    }
}

impl ReadLog for SqliteReader {
    fn sessions(&self, after: Option<SessionId>) -> Rows<'_, SessionRow> {
        pages(move |last: Option<&SessionRow>| {
            let after = last.map(|row| row.session).or(after);
            self.with(|| "sessions".to_owned(), |conn| session_page(conn, after))
        })
    }

    fn head(&self, session: SessionId) -> Result<Option<Head>, ReadError> {
        self.with(
            || format!("head of session {session}"),
            |conn| Ok(find_session(conn, session)?.and_then(|(_, head)| head)),
        )
    }

    fn read(&self, session: SessionId, from: Seq) -> Rows<'_, RawEntry> {
        pages(move |last: Option<&RawEntry>| {
            let Some(from) = last.map_or(Some(from), |entry| entry.seq.checked_add(1)) else { return Ok(Vec::new()) };
            if i64::try_from(from).is_err() {
                return Ok(Vec::new());
            }
            self.with(|| format!("session {session} from seq {from}"), |conn| entry_page(conn, session, from))
        })
    }

    fn blob(&self, session: SessionId, commitment: Commitment) -> Result<Option<StoredBlob>, ReadError> {
        self.with(
            || format!("blob {commitment} of session {session}"),
            |conn| {
                let sql = "SELECT salt, bytes FROM blobs
                           WHERE session = (SELECT number FROM sessions WHERE id = ?1) AND commitment = ?2";
                let blob = |row: &Row<'_>| Ok(StoredBlob { salt: array(row, 0)?, bytes: bytes(row, 1)?.to_vec() });
                conn.prepare_cached(sql)?.query_row((session.0, commitment.0), blob).optional()
            },
        )
    }

    fn blob_len(&self, session: SessionId, commitment: Commitment) -> Result<Option<u64>, ReadError> {
        self.with(
            || format!("blob {commitment} of session {session}"),
            |conn| {
                let sql = "SELECT length(bytes) FROM blobs
                           WHERE session = (SELECT number FROM sessions WHERE id = ?1) AND commitment = ?2";
                conn.prepare_cached(sql)?.query_row((session.0, commitment.0), |row| row.get(0)).optional()
            },
        )
    }

    fn strays(&self) -> Result<Vec<String>, ReadError> {
        self.with(|| "rows of no session".to_owned(), strays)
    }
}

/// The rows of each table that name no session, in words.
fn strays(conn: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut strays = Vec::new();
    for table in ["entries", "heads", "blobs"] {
        let sql = format!("SELECT count(*) FROM {table} WHERE session NOT IN (SELECT number FROM sessions)");
        let rows: u64 = conn.query_row(&sql, [], |row| row.get(0))?;
        if rows > 0 {
            strays.push(format!("{rows} of {table} of no session"));
        }
    }
    Ok(strays)
}

/// The number and the head of a session.
pub(super) fn find_session(conn: &Connection, session: SessionId) -> rusqlite::Result<Option<(i64, Option<Head>)>> {
    let sql = "SELECT s.number, h.seq, h.hash, h.time_us, h.kind
               FROM sessions s LEFT JOIN heads h ON h.session = s.number WHERE s.id = ?1";
    let found = |row: &Row<'_>| Ok((row.get(0)?, head(row, session)?));
    conn.prepare_cached(sql)?.query_row([session.0], found).optional()
}

fn session_page(conn: &Connection, after: Option<SessionId>) -> rusqlite::Result<Vec<SessionRow>> {
    // The first page takes whatever stands in the column: an id that is none sorts first and is an error, not hidden.
    let (bound, after) = match &after {
        None => ("?1 IS NULL", None),
        Some(session) => ("s.id > ?1", Some(&session.0[..])),
    };
    let sql = format!(
        "SELECT s.id, h.seq, h.hash, h.time_us, h.kind
         FROM sessions s LEFT JOIN heads h ON h.session = s.number WHERE {bound} ORDER BY s.id LIMIT ?2"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map((after, PAGE_ROWS as i64), |row| {
        let session = SessionId(array(row, 0)?);
        Ok(SessionRow { session, head: head(row, session)? })
    })?;
    rows.collect()
}

fn entry_page(conn: &Connection, session: SessionId, from: Seq) -> rusqlite::Result<Vec<RawEntry>> {
    let sql = "SELECT seq, entry FROM entries
               WHERE session = (SELECT number FROM sessions WHERE id = ?1) AND seq >= ?2 ORDER BY seq LIMIT ?3";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query((session.0, from, PAGE_ROWS as i64))?;
    let mut page = Vec::new();
    let mut size = 0;
    while size < PAGE_BYTES
        && let Some(row) = rows.next()?
    {
        let entry = RawEntry { seq: row.get(0)?, bytes: bytes(row, 1)?.to_vec() };
        size += entry.bytes.len();
        page.push(entry);
    }
    Ok(page)
}

/// The head in columns 1 to 4, NULL where the session has none.
fn head(row: &Row<'_>, session: SessionId) -> rusqlite::Result<Option<Head>> {
    if row.get_ref(1)? == ValueRef::Null {
        return Ok(None);
    }
    let hash = EntryHash(array(row, 2)?);
    Ok(Some(Head { session, seq: row.get(1)?, hash, time_us: row.get(3)?, kind: row.get(4)? }))
}

pub(super) fn array(row: &Row<'_>, column: usize) -> rusqlite::Result<[u8; 32]> {
    let found = bytes(row, column)?;
    let wrong = |_| FromSqlError::InvalidBlobSize { expected_size: 32, blob_size: found.len() };
    found.try_into().map_err(|error| wrong(error).into())
}

pub(super) fn bytes<'row>(row: &'row Row<'_>, column: usize) -> rusqlite::Result<&'row [u8]> {
    Ok(row.get_ref(column)?.as_blob()?)
}

/// An open file.
#[derive(Debug)]
struct Source {
    conn: Connection,
    /// Set if the main file is read alone: how it looked when it was opened.
    alone: Option<Stamp>,
}

#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    len: u64,
    modified: Option<SystemTime>,
}

impl Source {
    fn open(path: &Path) -> Result<Source, OpenError> {
        // A writer has its -wal file from its first act to its last, and a killed one leaves it.
        let wal = fs::metadata(beside(path, "-wal"));
        if wal.is_err() {
            return Source::open_alone(path);
        }
        let source = connect(path, "mode=ro").and_then(|conn| {
            schema::check_marks(&conn, path)?;
            schema::check_readable(&conn, path)?;
            Ok(Source { conn, alone: None })
        });
        match source {
            // An empty one was copied along to where no -shm can be made; it adds nothing to the main file.
            Err(OpenError::Io { .. }) if wal.is_ok_and(|wal| wal.len() == 0) => Source::open_alone(path),
            other => other,
        }
    }

    fn open_alone(path: &Path) -> Result<Source, OpenError> {
        let alone = Some(stamp(path).map_err(|error| OpenError::io(path, error))?);
        let conn = connect(path, "mode=ro&immutable=1")?;
        schema::check_marks(&conn, path)?;
        schema::check_readable(&conn, path)?;
        // SQLite takes a page that is cut short for one that ends in zeros.
        let page: u64 =
            conn.query_row("PRAGMA page_size", [], |row| row.get(0)).map_err(|error| OpenError::io(path, error))?;
        match alone.as_ref().map(|stamp| stamp.len % page) {
            Some(0) => Ok(Source { conn, alone }),
            _ => Err(OpenError::io(path, "the file is cut short")),
        }
    }

    /// Whether a writer has come since the file was opened alone. What was read since may be stale or torn.
    fn has_moved(&self, path: &Path) -> bool {
        let wal_has_come = || fs::metadata(beside(path, "-wal")).is_ok_and(|wal| wal.len() > 0);
        self.alone.as_ref().is_some_and(|before| wal_has_come() || stamp(path).ok().as_ref() != Some(before))
    }
}

fn stamp(path: &Path) -> std::io::Result<Stamp> {
    let file = fs::metadata(path)?;
    Ok(Stamp { len: file.len(), modified: file.modified().ok() })
}

fn connect(path: &Path, how: &str) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let open = || {
        let conn = Connection::open_with_flags(uri(path, how), flags)?;
        conn.busy_timeout(WAIT)?;
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        conn.set_limit(Limit::SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX)?;
        conn.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA query_only = ON; PRAGMA cell_size_check = ON;")?;
        Ok(conn)
    };
    open().map_err(|error| OpenError::sqlite(path, error))
}

/// The only way to say `immutable` to SQLite.
fn uri(path: &Path, how: &str) -> String {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'_' | b'-' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => uri.push(char::from(*byte)),
            _ => write!(uri, "%{byte:02x}").unwrap_or(()),
        }
    }
    uri + "?" + how
}
