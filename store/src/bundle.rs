//! Bundles: whole sessions with their blobs in one file that can be sent away and verified elsewhere.
//!
//! ```text
//! bundle  = "TOKABNDL1\n" ‖ section*                 integers are big-endian
//! section = u8 type ‖ u64 len ‖ bytes[len]           in ascending order of type
//!
//!   1  manifest     named msgpack, see [`Manifest`]; exactly one, never trusted, only compared
//!   2  keys         u32 len ‖ record, for each
//!   3  entries      session[32] ‖ u64 first_seq ‖ u64 count ‖ entries back to back; one section per session
//!   4  blobs        session[32] ‖ (commitment[32] ‖ salt[32] ‖ u64 len ‖ bytes)*, in the order of first reference
//!   5  proofs       u32 len ‖ text, for each
//!   6  checkpoints  u8 what ‖ u32 len ‖ text, for each
//!   7  registry     for display only
//! 255  trailer      DK(bundle, all bytes before this section)[32]; ends the file
//! ```
//! Within types 3 and 4 the system session comes first, then the others by id. The same input gives the same bytes:
//! no time, no host and no build is in it.
//!
//! - [`write_bundle`] exports sessions of any store.
//! - [`Bundle`] reads one, and says what is wrong with the container without giving up on what it holds.
//! - [`BundleBuilder`] puts one together from raw parts, right or wrong.
//!
//! The trailer guards against corruption only; whoever alters a bundle can compute a new one.

mod build;
mod frames;
mod index;
mod manifest;
mod read;
mod write;

pub use build::{BundleBuilder, SessionContent};
pub use manifest::{BundleHead, Manifest, ManifestSession, Omitted, SessionStatus};
pub use read::{Bundle, BundleEntry, BundleError, EntriesSection, Section, SectionReader};
pub use write::{Summary, WriteError, write_bundle};

use std::fmt;

use toka_kernel::entry::{FrameFault, Head, Header};
use toka_kernel::hash::{Context, derive};
use toka_kernel::ids::{EntryHash, SessionId};

/// The first bytes of every bundle.
pub const MAGIC: &[u8; 10] = b"TOKABNDL1\n";
/// Sessions of one bundle.
pub const BUNDLE_SESSIONS_MAX: usize = 4_096;
/// Bytes of a manifest.
pub const MANIFEST_BYTES_MAX: u64 = 1 << 20;

const SECTION_HEADER_BYTES: u64 = 9;
const ENTRIES_HEADER_BYTES: u64 = 48;
const BLOB_HEADER_BYTES: u64 = 72;
const TRAILER_BYTES: u64 = 32;

/// The types of sections.
mod kind {
    pub(super) const MANIFEST: u8 = 1;
    pub(super) const ENTRIES: u8 = 3;
    pub(super) const BLOBS: u8 = 4;
    pub(super) const TRAILER: u8 = 255;
}

/// What is wrong with a container. The names are those of verification reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ContainerCode {
    /// It cannot be read, or it is no bundle.
    InputUnreadable,
    /// The file ends early.
    BundleTruncated,
    /// Order, count or length of sections is wrong.
    BundleMalformed,
    /// The trailer differs from the bytes before it.
    BundleTrailer,
    /// The manifest contradicts the content.
    ManifestMismatch,
    /// A length or a count is above its limit.
    LimitExceeded,
}

impl ContainerCode {
    /// The name that reports use.
    pub fn name(self) -> &'static str {
        match self {
            ContainerCode::InputUnreadable => "INPUT_UNREADABLE",
            ContainerCode::BundleTruncated => "BUNDLE_TRUNCATED",
            ContainerCode::BundleMalformed => "BUNDLE_MALFORMED",
            ContainerCode::BundleTrailer => "BUNDLE_TRAILER",
            ContainerCode::ManifestMismatch => "MANIFEST_MISMATCH",
            ContainerCode::LimitExceeded => "LIMIT_EXCEEDED",
        }
    }
}

impl fmt::Display for ContainerCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One thing wrong with a container that can still be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerFault {
    /// What kind of thing.
    pub code: ContainerCode,
    /// Where in the file it was noticed.
    pub offset: u64,
    /// The session it concerns, if it concerns one.
    pub session: Option<SessionId>,
    /// What was found and what was due.
    pub detail: String,
}

impl fmt::Display for ContainerFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: {}", self.code, self.offset, self.detail)
    }
}

/// The head after an entry, as its header states it: no more is read, and nothing is checked.
fn head_after(session: SessionId, header: &Header, entry: &[u8]) -> Head {
    let signed = entry.len().saturating_sub(header.body_len as usize);
    let hash = EntryHash(derive(Context::Entry, &[&entry[..signed]]).0);
    Head { session, seq: header.seq, hash, time_us: header.time_us, kind: header.kind }
}

/// The header of exactly one entry.
fn header_of(entry: &[u8]) -> Result<Header, FrameFault> {
    let need = Header::entry_len(entry)?;
    if entry.len() < need {
        return Err(FrameFault::Short { need, have: entry.len() });
    }
    if entry.len() > need {
        return Err(FrameFault::Surplus { surplus: entry.len() - need });
    }
    Header::read(entry)
}
