//! Opening a file for writing.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::reader::WAIT;
use super::{OpenError, beside, schema};

/// The same name for the same file, so that two names of it meet at one lock.
pub(super) fn one_name(path: &Path) -> Result<PathBuf, OpenError> {
    if let Ok(path) = fs::canonicalize(path) {
        return Ok(path);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = fs::canonicalize(folder).map_err(|error| OpenError::io(folder, error))?;
    let name = path.file_name().ok_or_else(|| OpenError::io(path, "no file name"))?;
    Ok(folder.join(name))
}

/// Nothing is written to a file before it is known to be a store of ours.
pub(super) fn connect(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let sqlite = |error| OpenError::sqlite(path, error);
    let conn = Connection::open_with_flags(path, flags).map_err(sqlite)?;
    let prepare = || {
        conn.busy_timeout(WAIT)?;
        conn.set_prepared_statement_cache_capacity(32);
        conn.execute_batch(
            "PRAGMA trusted_schema = OFF; PRAGMA foreign_keys = ON; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON;
             PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -16384;",
        )?;
        schema::create_if_empty(&conn)
    };
    prepare().map_err(sqlite)?;
    schema::check_marks(&conn, path)?;
    schema::check_exact(&conn, path)?;
    let mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(sqlite)?;
    if mode != "wal" {
        return Err(OpenError::io(path, format!("the journal mode is {mode}, not wal")));
    }
    // The first read makes the -wal file, which tells readers that somebody writes.
    let _: i64 =
        conn.query_row("SELECT count(*) FROM sessions WHERE number < 0", [], |row| row.get(0)).map_err(sqlite)?;
    Ok(conn)
}

/// Flushes what a killed writer wrote but did not flush.
pub(super) fn flush_leftovers(path: &Path) -> std::io::Result<()> {
    for file in [&beside(path, "-wal"), path] {
        match File::options().read(true).write(true).open(file) {
            Ok(file) => file.sync_all()?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Flushes the names of the files.
pub(super) fn flush_names(path: &Path) -> std::io::Result<()> {
    match path.parent().map(File::open) {
        // Some systems do not open folders; there the names are flushed with the files.
        Some(Ok(folder)) => folder.sync_all(),
        _ => Ok(()),
    }
}
