//! The layout of the file, and the guards inside it.
//!
//! Entries lie in the order in which they came, so that appending touches one page whatever the number of sessions;
//! a table clustered by (session, seq) would write 2.5 times the bytes. The triggers hold for every program that opens
//! the file, not only for this one. `INSERT OR REPLACE` fires no trigger on what it deletes, so inserts are guarded too.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension};

use super::OpenError;

/// "TOKA".
const APPLICATION_ID: i64 = 0x544f_4b41;

/// The layout below. A changed layout takes the next number.
const LAYOUT: i64 = 1;

const TABLES: &str = "
CREATE TABLE sessions (
    number INTEGER PRIMARY KEY,
    id     BLOB NOT NULL UNIQUE CHECK (length(id) = 32)
) STRICT;
CREATE TABLE heads (
    session INTEGER PRIMARY KEY REFERENCES sessions (number),
    seq     INTEGER NOT NULL CHECK (seq >= 0),
    hash    BLOB NOT NULL CHECK (length(hash) = 32),
    time_us INTEGER NOT NULL CHECK (time_us >= 0),
    kind    INTEGER NOT NULL CHECK (kind BETWEEN 1 AND 65535)
) STRICT;
CREATE TABLE entries (
    pos     INTEGER PRIMARY KEY,
    session INTEGER NOT NULL REFERENCES sessions (number),
    seq     INTEGER NOT NULL CHECK (seq >= 0),
    entry   BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX entries_by_seq ON entries (session, seq);
CREATE TABLE blobs (
    pos        INTEGER PRIMARY KEY,
    session    INTEGER NOT NULL REFERENCES sessions (number),
    commitment BLOB NOT NULL CHECK (length(commitment) = 32),
    salt       BLOB NOT NULL CHECK (length(salt) = 32),
    bytes      BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX blobs_by_commitment ON blobs (session, commitment);
CREATE TABLE lookup_keys (
    session INTEGER PRIMARY KEY REFERENCES sessions (number),
    key     BLOB NOT NULL CHECK (length(key) = 32)
) STRICT;
CREATE TABLE contents (
    session    INTEGER NOT NULL REFERENCES sessions (number),
    keyed      BLOB NOT NULL CHECK (length(keyed) = 32),
    commitment BLOB NOT NULL,
    PRIMARY KEY (session, keyed)
) STRICT, WITHOUT ROWID;
";

const GUARDS: &str = "
CREATE TRIGGER entries_are_appended BEFORE INSERT ON entries
WHEN NEW.seq <= (SELECT seq FROM heads WHERE session = NEW.session)
  OR EXISTS (SELECT 1 FROM entries WHERE pos = NEW.pos)
BEGIN SELECT RAISE(ABORT, 'entries are only appended'); END;
CREATE TRIGGER entries_never_change BEFORE UPDATE ON entries
BEGIN SELECT RAISE(ABORT, 'entries never change'); END;
CREATE TRIGGER entries_stay BEFORE DELETE ON entries
BEGIN SELECT RAISE(ABORT, 'entries stay'); END;
CREATE TRIGGER heads_begin_once BEFORE INSERT ON heads
WHEN EXISTS (SELECT 1 FROM heads WHERE session = NEW.session)
BEGIN SELECT RAISE(ABORT, 'a session has one head'); END;
CREATE TRIGGER heads_go_forward BEFORE UPDATE ON heads
WHEN NEW.session <> OLD.session OR NEW.seq <= OLD.seq
BEGIN SELECT RAISE(ABORT, 'heads only go forward'); END;
CREATE TRIGGER heads_stay BEFORE DELETE ON heads
BEGIN SELECT RAISE(ABORT, 'heads stay'); END;
CREATE TRIGGER sessions_are_added BEFORE INSERT ON sessions
WHEN EXISTS (SELECT 1 FROM sessions WHERE id = NEW.id OR number = NEW.number)
BEGIN SELECT RAISE(ABORT, 'sessions are only added'); END;
CREATE TRIGGER sessions_never_change BEFORE UPDATE ON sessions
BEGIN SELECT RAISE(ABORT, 'sessions never change'); END;
CREATE TRIGGER sessions_stay BEFORE DELETE ON sessions
BEGIN SELECT RAISE(ABORT, 'sessions stay'); END;
CREATE TRIGGER blobs_are_added BEFORE INSERT ON blobs
WHEN EXISTS (SELECT 1 FROM blobs WHERE pos = NEW.pos)
  OR EXISTS (SELECT 1 FROM blobs WHERE session = NEW.session AND commitment = NEW.commitment
             AND (salt <> NEW.salt OR bytes <> NEW.bytes))
BEGIN SELECT RAISE(ABORT, 'a blob has the commitment of other bytes'); END;
CREATE TRIGGER blobs_never_change BEFORE UPDATE ON blobs
BEGIN SELECT RAISE(ABORT, 'blobs never change'); END;
";

/// Makes the layout in an empty file; leaves any other as it is.
pub(super) fn create_if_empty(conn: &Connection) -> rusqlite::Result<()> {
    if !is_empty(conn)? {
        return Ok(());
    }
    conn.execute_batch(&format!(
        "BEGIN IMMEDIATE; {TABLES} {GUARDS} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {LAYOUT}; COMMIT;"
    ))
}

/// Whether nothing was ever written to the file: no objects and no marks of any program.
fn is_empty(conn: &Connection) -> rusqlite::Result<bool> {
    let objects: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(objects == 0 && pragma(conn, "application_id")? == 0 && pragma(conn, "user_version")? == 0)
}

/// Checks that the file is a store of a layout known here.
pub(super) fn check_marks(conn: &Connection, path: &Path) -> Result<(), OpenError> {
    let mark = |name| pragma(conn, name).map_err(|error| OpenError::sqlite(path, error));
    let (program, layout) = (mark("application_id")?, mark("user_version")?);
    if program != APPLICATION_ID {
        let what = format!("its application_id is {program:#010x}, not {APPLICATION_ID:#010x}");
        return Err(OpenError::Foreign { path: path.to_owned(), what });
    }
    if layout > LAYOUT {
        return Err(OpenError::Newer { path: path.to_owned(), found: layout, known: LAYOUT });
    }
    if layout != LAYOUT {
        let what = format!("its layout number is {layout}");
        return Err(OpenError::Altered { path: path.to_owned(), what });
    }
    Ok(())
}

/// Checks that every table, index and trigger is as this version makes it, and that there is no other.
pub(super) fn check_exact(conn: &Connection, path: &Path) -> Result<(), OpenError> {
    let due = Connection::open_in_memory().and_then(|fresh| create_if_empty(&fresh).and_then(|()| objects(&fresh)));
    let due = due.map_err(|error| OpenError::sqlite(path, error))?;
    let found = objects(conn).map_err(|error| OpenError::sqlite(path, error))?;
    let altered = |what| Err(OpenError::Altered { path: path.to_owned(), what });
    if let Some(object) = due.iter().find(|object| !found.contains(object)) {
        return altered(format!("{} {} is missing or changed", object.kind, object.name));
    }
    match found.iter().find(|object| !due.contains(object)) {
        Some(object) => altered(format!("{} {} does not belong there", object.kind, object.name)),
        None => Ok(()),
    }
}

/// Checks that what a reader reads are plain tables, so that a hostile file cannot compute. Guards may be gone: a
/// tampered store is read to find out what was done to it.
pub(super) fn check_readable(conn: &Connection, path: &Path) -> Result<(), OpenError> {
    for name in ["sessions", "heads", "entries", "blobs"] {
        let sql = "SELECT sql FROM sqlite_schema WHERE name = ?1 AND type = 'table'";
        let found: Option<String> =
            conn.query_row(sql, [name], |row| row.get(0)).optional().map_err(|error| OpenError::sqlite(path, error))?;
        if !found.is_some_and(|sql| sql.starts_with("CREATE TABLE")) {
            return Err(OpenError::Altered { path: path.to_owned(), what: format!("table {name} is missing") });
        }
    }
    Ok(())
}

#[derive(PartialEq, Eq)]
struct Object {
    kind: String,
    name: String,
    sql: Option<String>,
}

/// The objects of the file, SQLite's own aside.
fn objects(conn: &Connection) -> rusqlite::Result<Vec<Object>> {
    let mut rows =
        conn.prepare("SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'")?;
    let object = |row: &rusqlite::Row<'_>| Ok(Object { kind: row.get(0)?, name: row.get(1)?, sql: row.get(2)? });
    rows.query_map([], object)?.collect()
}

fn pragma(conn: &Connection, name: &str) -> rusqlite::Result<i64> {
    conn.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
}
