//! What every store is: [`ReadLog`] to read, [`Log`] to append.

use std::fmt;

use toka_kernel::entry::Head;
use toka_kernel::ids::{Commitment, Seq, SessionId};
use toka_kernel::limits::{BLOB_BYTES_MAX, ENTRY_BYTES_MAX};

/// Content of fewer bytes is never looked up: a row for it would cost more than it saves.
pub const CONTENT_BYTES_MIN: usize = 256;

/// Iterates without holding a session in memory; ends after its first error.
pub type Rows<'a, T> = Box<dyn Iterator<Item = Result<T, ReadError>> + 'a>;

/// The read half of a store, and all that a verifier may use.
pub trait ReadLog: Send + Sync {
    /// The sessions in order of their ids, those after `after`.
    fn sessions(&self, after: Option<SessionId>) -> Rows<'_, SessionRow>;

    /// The head of a session; `None` if the store does not have it.
    ///
    /// # Errors
    /// When the store cannot be read at that place.
    fn head(&self, session: SessionId) -> Result<Option<Head>, ReadError>;

    /// The entries of a session in the order of their keys, from `from`; none if the store does not have the session.
    fn read(&self, session: SessionId, from: Seq) -> Rows<'_, RawEntry>;

    /// A blob of a session; `None` if it is absent, for whatever reason.
    ///
    /// # Errors
    /// When the store cannot be read at that place.
    fn blob(&self, session: SessionId, commitment: Commitment) -> Result<Option<StoredBlob>, ReadError>;

    /// The length of a blob of a session, without reading its bytes; `None` if it is absent.
    ///
    /// # Errors
    /// When the store cannot be read at that place.
    fn blob_len(&self, session: SessionId, commitment: Commitment) -> Result<Option<u64>, ReadError>;

    /// Whether a blob of a session is present.
    ///
    /// # Errors
    /// When the store cannot be read at that place.
    fn has_blob(&self, session: SessionId, commitment: Commitment) -> Result<bool, ReadError> {
        Ok(self.blob_len(session, commitment)?.is_some())
    }

    /// What lies in the store and belongs to none of its sessions, in words, one for each kind of thing. Toka writes
    /// nothing of that sort, so whoever verifies a store asks.
    ///
    /// # Errors
    /// When the store cannot be read at that place.
    fn strays(&self) -> Result<Vec<String>, ReadError> {
        Ok(Vec::new())
    }
}

/// A store that can be written: many sessions, one writer.
pub trait Log: ReadLog {
    /// Appends the pending tails of many sessions, their blobs and their new heads in one transaction with one flush.
    ///
    /// Answers in the order of `batch`. An item that is refused leaves no trace and does not hinder the others. When
    /// this returns, whatever was answered `Ok` is as durable as [`Log::durability`] says. The answer is the head of
    /// the session as it stands then: [`Append::head`], or a later one if the item repeats entries the store already
    /// has. Such a repeat is `Ok` only if every byte is the same, so that an outcome lost on its way can be asked for
    /// by sending it again. Blobs of a repeat are not looked at: they went in with the entries.
    fn append(&self, batch: &[Append]) -> Vec<Result<Head, AppendError>>;

    /// What an answer `Ok` of [`Log::append`] is worth.
    fn durability(&self) -> Durability;

    /// The commitment under which `session` already keeps exactly these bytes, if they are [`CONTENT_BYTES_MIN`] or more.
    ///
    /// The lookup goes through a key that is secret to the store and to the session, so that nobody else can test a
    /// guess against it; content of other sessions is never found.
    ///
    /// # Errors
    /// When the store cannot be read at that place.
    fn find_content(&self, session: SessionId, bytes: &[u8]) -> Result<Option<Commitment>, ReadError>;
}

/// An entry under the key it is stored by. In a tampered store the key may contradict the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawEntry {
    /// The key: its position in the session.
    pub seq: Seq,
    /// Header, signature and body.
    pub bytes: Vec<u8>,
}

/// A blob to be stored with the entries that refer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewBlob {
    /// What the entries name it by.
    pub commitment: Commitment,
    /// What was hashed before its bytes.
    pub salt: [u8; 32],
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A blob as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBlob {
    /// What was hashed before its bytes.
    pub salt: [u8; 32],
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A session of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// Its id.
    pub session: SessionId,
    /// Its head; `None` only in a damaged store.
    pub head: Option<Head>,
}

/// The pending tail of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The head the tail continues; [`Head::none`] if it begins with the genesis.
    pub expected: Head,
    /// The entries, at least one, in order and without a gap.
    pub entries: Vec<RawEntry>,
    /// The head after them; it names the session.
    pub head: Head,
    /// The blobs they refer to that the store does not have.
    pub blobs: Vec<NewBlob>,
}

impl Append {
    /// Checks what can be checked without a store: shape and bounds.
    pub(crate) fn check(&self) -> Result<(), AppendError> {
        self.check_bounds()?;
        let refuse = |what: &str| Err(AppendError::Refused { what: what.to_owned() });
        let begins = self.expected == Head::none();
        if !begins && (self.expected.kind == 0 || self.expected.session != self.head.session) {
            return refuse("the expected head is of another session");
        }
        if self.head.kind == 0 || self.head.session == SessionId::ZERO {
            return refuse("the new head names no entry");
        }
        let gap = self.entries.iter().zip(self.expected.next_seq()..).any(|(entry, seq)| entry.seq != seq);
        if gap || self.entries.last().map(|entry| entry.seq) != Some(self.head.seq) {
            return refuse("the entries do not lead from the expected head to the new one");
        }
        Ok(())
    }

    fn check_bounds(&self) -> Result<(), AppendError> {
        let too_large = |what, len: usize, max| Err(AppendError::TooLarge { what, len: len as u64, max });
        if let Some(entry) = self.entries.iter().find(|entry| entry.bytes.len() > ENTRY_BYTES_MAX) {
            return too_large("entry", entry.bytes.len(), ENTRY_BYTES_MAX as u64);
        }
        if let Some(blob) = self.blobs.iter().find(|blob| blob.bytes.len() as u64 > BLOB_BYTES_MAX) {
            return too_large("blob", blob.bytes.len(), BLOB_BYTES_MAX);
        }
        Ok(())
    }

    /// Where this tail stands against the head the store has.
    pub(crate) fn place(&self, stored: Option<Head>) -> Place {
        let actual = stored.unwrap_or_else(Head::none);
        if self.expected == actual {
            return Place::Next;
        }
        let known = actual.kind != 0 && self.head.seq <= actual.seq;
        let agrees = self.head.seq < actual.seq || self.head == actual;
        if known && agrees { Place::Before(actual) } else { Place::Conflict(actual) }
    }
}

/// Where a tail stands in the store.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// Directly after the stored head.
    Next,
    /// At or before the stored head: a repeat if every byte is the same.
    Before(Head),
    /// Neither.
    Conflict(Head),
}

/// Why an item was not appended. Nothing of it is in the store, except after `Io`, `Full` and `Poisoned`: then the
/// outcome is unknown until the store is opened again and read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The session has another head than expected.
    #[error("the session stands at seq {} ({}), not where the tail begins", actual.seq, actual.hash.short())]
    Conflict {
        /// The head the store has; [`Head::none`] if it does not have the session.
        actual: Head,
    },
    /// An entry or a blob is larger than any may be.
    #[error("{what} of {len} bytes, at most {max}")]
    TooLarge {
        /// `entry` or `blob`.
        what: &'static str,
        /// Its bytes.
        len: u64,
        /// The bound.
        max: u64,
    },
    /// The item contradicts itself, or the rows of the store contradict its heads.
    #[error("refused: {what}")]
    Refused {
        /// What does not fit.
        what: String,
    },
    /// The disk is full. The handle is poisoned.
    #[error("the disk is full: {what}")]
    Full {
        /// What the engine said.
        what: String,
    },
    /// A write or a flush failed. The handle is poisoned.
    #[error("the store cannot be written: {what}")]
    Io {
        /// What the engine said.
        what: String,
    },
    /// An earlier write or flush failed; this handle writes no more until the store is opened again.
    #[error("an earlier write failed; open the store again")]
    Poisoned,
}

/// A place of a store that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct ReadError {
    /// What is wrong.
    pub what: String,
    /// Where it is: a file, and what was read there.
    pub place: String,
}

/// What an acknowledged append survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// Nothing: it is gone with the process.
    Memory,
    /// A killed process, not a power cut.
    Written,
    /// A power cut: it is on this machine's disk.
    Flushed,
    /// The loss of this machine: it is on the disks of two.
    Replicated,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Durability::Memory => "memory",
            Durability::Written => "written",
            Durability::Flushed => "flushed",
            Durability::Replicated => "replicated",
        })
    }
}
