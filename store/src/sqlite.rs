//! The default store: one SQLite file in WAL mode, flushed once per acknowledged append.
//!
//! - [`SqliteLog`] is the one writer, held by an operating-system lock beside the file.
//! - [`SqliteReader`] reads beside it, or reads a copy on read-only media, and writes nothing.
//!
//! Blobs of every size lie in the file itself.

mod lock;
mod open;
mod reader;
mod schema;
mod wal;
mod writer;

pub use reader::SqliteReader;
pub use writer::SqliteLog;

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

/// Why a store was not opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Another process writes it.
    #[error("{} is being written by another process ({holder})", path.display())]
    Busy {
        /// The store.
        path: PathBuf,
        /// What the other process says of itself: its pid and since when.
        holder: String,
    },
    /// There is no such file, and a reader makes none.
    #[error("{} does not exist", path.display())]
    Missing {
        /// The store.
        path: PathBuf,
    },
    /// The file is not a store of Toka.
    #[error("{} is not a store of Toka: {what}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        what: String,
    },
    /// The store was written by a later version.
    #[error("{} has layout {found}, this version knows layouts up to {known}", path.display())]
    Newer {
        /// The store.
        path: PathBuf,
        /// The layout of the file.
        found: i64,
        /// The newest layout known here.
        known: i64,
    },
    /// The tables, indexes or triggers are not those of the layout.
    #[error("{} is altered: {what}", path.display())]
    Altered {
        /// The store.
        path: PathBuf,
        /// The first difference.
        what: String,
    },
    /// It cannot be read or written.
    #[error("{}: {what}", path.display())]
    Io {
        /// The store.
        path: PathBuf,
        /// What the system or the engine said.
        what: String,
    },
}

impl OpenError {
    fn io(path: &Path, error: impl std::fmt::Display) -> OpenError {
        OpenError::Io { path: path.to_owned(), what: error.to_string() }
    }

    fn sqlite(path: &Path, error: rusqlite::Error) -> OpenError {
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => {
                OpenError::Foreign { path: path.to_owned(), what: "it is no SQLite file".to_owned() }
            }
            _ => OpenError::io(path, error),
        }
    }
}

/// The name of a file beside the store.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
