//! Exporting sessions: first everything is measured, then everything is written in one stream.

use std::collections::BTreeSet;
use std::io::{self, Write};

use toka_kernel::entry::{FrameFault, Head};
use toka_kernel::hash::{Context, hasher};
use toka_kernel::ids::{Commitment, Seq, SessionId};

use super::manifest::{Manifest, ManifestSession};
use super::{
    BLOB_HEADER_BYTES, BUNDLE_SESSIONS_MAX, ENTRIES_HEADER_BYTES, MAGIC, MANIFEST_BYTES_MAX, TRAILER_BYTES, head_after,
    header_of, kind,
};
use crate::log::{RawEntry, ReadError, ReadLog, Rows, StoredBlob};

/// What was exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The head of each session as far as it was exported, in the order of the bundle.
    pub heads: Vec<Head>,
    /// Entries written.
    pub entries: u64,
    /// Blobs written.
    pub blobs: u64,
    /// Blobs that entries refer to and the store does not have: erased, or missing.
    pub absent: u64,
    /// Bytes of the bundle.
    pub bytes: u64,
}

/// Why nothing useful was exported.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The output cannot be written.
    #[error("the bundle cannot be written: {0}")]
    Io(#[from] io::Error),
    /// The store does not have the session.
    #[error("the store has no session {0}")]
    NoSession(SessionId),
    /// The system session comes first, the others by id, each once.
    #[error("session {0} is out of order: the system session comes first, the others by id")]
    Order(SessionId),
    /// More sessions than a bundle may have, or a manifest larger than it may be.
    #[error("{what}: {found}, at most {max}")]
    Limit {
        /// What is too much.
        what: &'static str,
        /// How much it is.
        found: u64,
        /// How much it may be.
        max: u64,
    },
    /// The bytes under this key are no entry, so they cannot stand in a bundle; verify the store itself.
    #[error("session {session} has no whole entry at seq {seq}: {fault}")]
    Frame {
        /// The session.
        session: SessionId,
        /// The key.
        seq: Seq,
        /// Why it is no entry.
        fault: FrameFault,
    },
    /// The store has changed under the export, as by an erasure; try again.
    #[error("session {0} changed while it was exported")]
    Changed(SessionId),
}

/// Exports whole sessions, with all their blobs that are present.
///
/// `sessions` are written in the order given: the system session first if it is among them, then the others by id.
/// Entries appended meanwhile are left for the next export. The same store gives the same bytes.
///
/// # Errors
/// When the store cannot be read, the output cannot be written, or the sessions are not there or out of order.
pub fn write_bundle(reader: &dyn ReadLog, sessions: &[SessionId], out: &mut dyn Write) -> Result<Summary, WriteError> {
    check_order(sessions)?;
    let plans = sessions.iter().map(|session| Plan::of(reader, *session)).collect::<Result<Vec<_>, _>>()?;
    let mut out = Output::begin(out)?;
    out.manifest(&manifest(&plans))?;
    for plan in &plans {
        plan.write_entries(reader, &mut out)?;
    }
    for plan in plans.iter().filter(|plan| !plan.blobs.is_empty()) {
        plan.write_blobs(reader, &mut out)?;
    }
    let bytes = out.finish()?;
    Ok(Summary {
        heads: plans.iter().map(|plan| plan.head).collect(),
        entries: plans.iter().map(|plan| plan.count).sum(),
        blobs: plans.iter().map(|plan| plan.blobs.len() as u64).sum(),
        absent: plans.iter().map(|plan| plan.absent).sum(),
        bytes,
    })
}

fn check_order(sessions: &[SessionId]) -> Result<(), WriteError> {
    if sessions.len() > BUNDLE_SESSIONS_MAX {
        let (found, max) = (sessions.len() as u64, BUNDLE_SESSIONS_MAX as u64);
        return Err(WriteError::Limit { what: "sessions of a bundle", found, max });
    }
    let rest = sessions.get(1..).unwrap_or_default();
    let disorder = rest.windows(2).find(|pair| pair[0] >= pair[1]).map(|pair| pair[1]);
    match disorder.or(rest.iter().find(|session| **session == sessions[0]).copied()) {
        Some(session) => Err(WriteError::Order(session)),
        None => Ok(()),
    }
}

fn manifest(plans: &[Plan]) -> Manifest {
    let session = |plan: &Plan| ManifestSession::of(plan.first, &plan.head, plan.blobs.len() as u64, plan.absent);
    Manifest { format: Manifest::FORMAT.to_owned(), sessions: plans.iter().map(session).collect(), omitted: Vec::new() }
}

/// One session, measured.
struct Plan {
    first: Seq,
    head: Head,
    count: u64,
    entry_bytes: u64,
    /// Present blobs with their lengths, in the order of first reference.
    blobs: Vec<(Commitment, u64)>,
    absent: u64,
}

impl Plan {
    fn of(reader: &dyn ReadLog, session: SessionId) -> Result<Plan, WriteError> {
        let mut rows = reader.read(session, 0);
        let first = rows.next().ok_or(WriteError::NoSession(session))??;
        let (first_seq, head) = (first.seq, Head { session, ..Head::none() });
        let mut plan = Plan { first: first_seq, head, count: 0, entry_bytes: 0, blobs: Vec::new(), absent: 0 };
        let mut seen = BTreeSet::new();
        plan.add(reader, &first, &mut seen)?;
        for entry in rows {
            plan.add(reader, &entry?, &mut seen)?;
        }
        Ok(plan)
    }

    fn add(
        &mut self,
        reader: &dyn ReadLog,
        entry: &RawEntry,
        seen: &mut BTreeSet<Commitment>,
    ) -> Result<(), WriteError> {
        let session = self.head.session;
        let header = header_of(&entry.bytes).map_err(|fault| WriteError::Frame { session, seq: entry.seq, fault })?;
        self.head = head_after(session, &header, &entry.bytes);
        self.count += 1;
        self.entry_bytes += entry.bytes.len() as u64;
        for blob in header.blobs {
            if seen.insert(blob.commitment) {
                match reader.blob_len(session, blob.commitment)? {
                    Some(len) => self.blobs.push((blob.commitment, len)),
                    None => self.absent += 1,
                }
            }
        }
        Ok(())
    }

    fn write_entries(&self, reader: &dyn ReadLog, out: &mut Output<'_>) -> Result<(), WriteError> {
        let session = self.head.session;
        out.entries_section(session, self.first, self.count, self.entry_bytes)?;
        let end = out.written + self.entry_bytes;
        for entry in self.again(reader) {
            out.write(&entry?.bytes)?;
        }
        if out.written == end { Ok(()) } else { Err(WriteError::Changed(session)) }
    }

    /// The entries that were measured, and none that came later.
    fn again<'a>(&self, reader: &'a dyn ReadLog) -> Rows<'a, RawEntry> {
        let count = usize::try_from(self.count).unwrap_or(usize::MAX);
        Box::new(reader.read(self.head.session, self.first).take(count))
    }

    fn write_blobs(&self, reader: &dyn ReadLog, out: &mut Output<'_>) -> Result<(), WriteError> {
        let session = self.head.session;
        out.blobs_section(session, self.blobs.iter().map(|(_, len)| *len))?;
        for (commitment, len) in &self.blobs {
            let blob = reader.blob(session, *commitment)?.filter(|blob| blob.bytes.len() as u64 == *len);
            out.blob(*commitment, &blob.ok_or(WriteError::Changed(session))?)?;
        }
        Ok(())
    }
}

/// A bundle being written: every byte goes into the trailer too.
pub(super) struct Output<'a> {
    out: &'a mut dyn Write,
    hasher: blake3::Hasher,
    pub(super) written: u64,
}

impl<'a> Output<'a> {
    pub(super) fn begin(out: &'a mut dyn Write) -> Result<Output<'a>, WriteError> {
        let mut output = Output { out, hasher: hasher(Context::Bundle), written: 0 };
        output.write(MAGIC)?;
        Ok(output)
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.out.write_all(bytes)?;
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn section(&mut self, kind: u8, len: u64) -> Result<(), WriteError> {
        self.write(&[kind])?;
        self.write(&len.to_be_bytes())
    }

    pub(super) fn manifest(&mut self, manifest: &Manifest) -> Result<(), WriteError> {
        let bytes = manifest.encode().map_err(io::Error::other)?;
        let len = bytes.len() as u64;
        if len > MANIFEST_BYTES_MAX {
            return Err(WriteError::Limit { what: "bytes of the manifest", found: len, max: MANIFEST_BYTES_MAX });
        }
        self.section(kind::MANIFEST, len)?;
        self.write(&bytes)
    }

    pub(super) fn entries_section(
        &mut self,
        session: SessionId,
        first: Seq,
        count: u64,
        entry_bytes: u64,
    ) -> Result<(), WriteError> {
        self.section(kind::ENTRIES, ENTRIES_HEADER_BYTES + entry_bytes)?;
        self.write(&session.0)?;
        self.write(&first.to_be_bytes())?;
        self.write(&count.to_be_bytes())
    }

    pub(super) fn blobs_section(
        &mut self,
        session: SessionId,
        lens: impl Iterator<Item = u64>,
    ) -> Result<(), WriteError> {
        self.section(kind::BLOBS, 32 + lens.map(|len| BLOB_HEADER_BYTES + len).sum::<u64>())?;
        self.write(&session.0)
    }

    pub(super) fn blob(&mut self, commitment: Commitment, blob: &StoredBlob) -> Result<(), WriteError> {
        self.write(&commitment.0)?;
        self.write(&blob.salt)?;
        self.write(&(blob.bytes.len() as u64).to_be_bytes())?;
        self.write(&blob.bytes)
    }

    /// Writes the trailer; the length of the whole.
    pub(super) fn finish(mut self) -> Result<u64, WriteError> {
        let trailer = *self.hasher.finalize().as_bytes();
        self.section(kind::TRAILER, TRAILER_BYTES)?;
        self.write(&trailer)?;
        self.out.flush()?;
        Ok(self.written)
    }
}
