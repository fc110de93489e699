//! A store by name.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::log::{Log, ReadLog};
use crate::memory::MemoryLog;
use crate::sqlite::{OpenError, SqliteLog, SqliteReader};

/// Where a store is: `memory:` or `sqlite:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// In this process, gone with it.
    Memory,
    /// In this SQLite file.
    Sqlite(PathBuf),
}

impl StoreUrl {
    /// Opens the store as its one writer, and makes it if there is none.
    ///
    /// # Errors
    /// Whatever [`SqliteLog::open`] meets.
    pub fn open(&self) -> Result<Box<dyn Log>, OpenError> {
        match self {
            StoreUrl::Memory => Ok(Box::new(MemoryLog::new())),
            StoreUrl::Sqlite(path) => Ok(Box::new(SqliteLog::open(path)?)),
        }
    }

    /// Opens the store for reading, beside its writer if it has one. `memory:` is always empty.
    ///
    /// # Errors
    /// Whatever [`SqliteReader::open`] meets.
    pub fn open_read_only(&self) -> Result<Box<dyn ReadLog>, OpenError> {
        match self {
            StoreUrl::Memory => Ok(Box::new(MemoryLog::new())),
            StoreUrl::Sqlite(path) => Ok(Box::new(SqliteReader::open(path)?)),
        }
    }
}

/// A name that is no store of this build.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` names no store; this build has `memory:` and `sqlite:PATH`")]
pub struct UrlError {
    /// The name.
    pub found: String,
}

impl FromStr for StoreUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<StoreUrl, UrlError> {
        match text.split_once(':') {
            Some(("memory", "")) => Ok(StoreUrl::Memory),
            Some(("sqlite", path)) if !path.is_empty() => Ok(StoreUrl::Sqlite(PathBuf::from(path))),
            _ => Err(UrlError { found: text.to_owned() }),
        }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreUrl::Memory => f.write_str("memory:"),
            StoreUrl::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
        }
    }
}
