//! What a bundle says of itself.

use serde::{Deserialize, Serialize};
use toka_kernel::entry::Head;
use toka_kernel::event::kind;
use toka_kernel::ids::{Commitment, EntryHash, Seq, SessionId, TimeUs};

/// The content of a bundle in figures, in the order of its sections. Never trusted, only compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`Manifest::FORMAT`].
    pub format: String,
    /// Every session, in the order of the entry sections.
    pub sessions: Vec<ManifestSession>,
    /// What was left out on purpose.
    pub omitted: Vec<Omitted>,
}

/// A session in figures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestSession {
    /// Its id.
    pub session: SessionId,
    /// The seq of its first entry here.
    pub first: Seq,
    /// The seq of its last entry here.
    pub last: Seq,
    /// The head after that entry.
    pub head: BundleHead,
    /// A [`SessionStatus`].
    pub status: u8,
    /// Its blobs that are here.
    pub blobs: u64,
    /// Blobs that its entries refer to and that are neither here nor omitted: erased, or missing.
    pub absent: u64,
    /// Blobs that were left out on purpose.
    pub omitted: u64,
}

/// The rest of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleHead {
    /// The hash of the last entry.
    pub hash: EntryHash,
    /// Its time.
    pub time_us: TimeUs,
    /// Its kind.
    pub kind: u16,
}

/// Whether a session goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SessionStatus {
    /// Its last entry here is not its end.
    Open = 1,
    /// Its last entry here is its end.
    Closed = 2,
}

impl SessionStatus {
    /// What the kind of the last entry says.
    pub fn of(last_kind: u16) -> SessionStatus {
        if last_kind == kind::SESSION_CLOSED { SessionStatus::Closed } else { SessionStatus::Open }
    }
}

/// Something left out on purpose: one blob, or the entries of a range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Omitted {
    /// Of which session.
    pub session: SessionId,
    /// The blob, if it is one.
    pub blob: Option<Commitment>,
    /// The first and the last entry, if they are entries.
    pub entries: Option<(Seq, Seq)>,
}

impl Manifest {
    /// The one format of this version.
    pub const FORMAT: &'static str = "toka-bundle/1";

    /// Reads a manifest that is written exactly as a writer writes it.
    pub(super) fn decode(bytes: &[u8]) -> Result<Manifest, String> {
        let manifest: Manifest = rmp_serde::from_slice(bytes).map_err(|error| error.to_string())?;
        if manifest.encode()? != bytes {
            return Err("not written as a writer writes it".to_owned());
        }
        if manifest.format != Manifest::FORMAT {
            return Err(format!("format {:?}, this version knows {:?}", manifest.format, Manifest::FORMAT));
        }
        Ok(manifest)
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>, String> {
        rmp_serde::to_vec_named(self).map_err(|error| error.to_string())
    }
}

impl ManifestSession {
    /// The figures of a session whose last entry here leads to `head`.
    pub(super) fn of(first: Seq, head: &Head, blobs: u64, absent: u64) -> ManifestSession {
        ManifestSession {
            session: head.session,
            first,
            last: head.seq,
            head: BundleHead { hash: head.hash, time_us: head.time_us, kind: head.kind },
            status: SessionStatus::of(head.kind) as u8,
            blobs,
            absent,
            omitted: 0,
        }
    }
}
