//! The size of the write-ahead log.
//!
//! A file that grows costs a second write at every flush, that of its new length. So the WAL is made longer ahead of
//! what is written, by the piece, with zeros: SQLite ends reading a WAL at the first frame that does not carry the salt
//! of its header (SQLite file format, section 4), and zeros do not.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::beside;

/// Bytes written to the WAL, by estimate, between two checkpoints. Only their pace depends on it.
const CHECKPOINT_BYTES: usize = 16 << 20;
/// A WAL shorter than this is left to grow by itself: most sessions end before it matters.
const SHORT_BYTES: usize = 128 << 10;
const PIECE_BYTES: usize = 1 << 20;

/// What the writer knows of its WAL; estimates, on which only speed depends.
#[derive(Debug)]
pub(super) struct Wal {
    path: PathBuf,
    /// Bytes in use.
    used: usize,
    /// Bytes up to which the file need not grow.
    room: usize,
}

impl Wal {
    pub(super) fn of(store: &Path) -> Wal {
        Wal { path: beside(store, "-wal"), used: 0, room: SHORT_BYTES }
    }

    pub(super) fn has_grown(&mut self, bytes: usize) {
        self.used += bytes;
    }

    /// Whether a checkpoint is due.
    pub(super) fn is_full(&self) -> bool {
        self.used >= CHECKPOINT_BYTES
    }

    /// After a checkpoint the file is written from its beginning again.
    pub(super) fn starts_over(&mut self) {
        self.used = 0;
        self.room = SHORT_BYTES;
    }

    /// Lengthens the file if little room is left. Where that fails, it grows by itself as it is written.
    pub(super) fn make_room(&mut self) {
        if self.used < self.room {
            return;
        }
        let len = fs::metadata(&self.path).map_or(0, |wal| usize::try_from(wal.len()).unwrap_or(0));
        if len > self.used + PIECE_BYTES / 2 {
            self.room = len - PIECE_BYTES / 4;
            return;
        }
        self.room = self.used + PIECE_BYTES / 2;
        let lengthen = || {
            let mut wal = File::options().write(true).open(&self.path)?;
            wal.seek(SeekFrom::End(0))?;
            wal.write_all(&vec![0; PIECE_BYTES])?;
            wal.sync_all()
        };
        // A disk that is full says so again when SQLite writes.
        let _: std::io::Result<()> = lengthen();
    }
}
