//! Bundles from raw parts.

use std::collections::BTreeSet;
use std::io::Write;

use toka_kernel::entry::Head;
use toka_kernel::ids::{Commitment, Seq, SessionId};

use super::frames::Walk;
use super::manifest::{Manifest, ManifestSession};
use super::read::Bundle;
use super::write::{Output, WriteError};
use crate::log::{NewBlob, ReadError, ReadLog, StoredBlob};

/// Puts a bundle together from raw entries and blobs, right or wrong, in a container that is consistent with them: its
/// counts, lengths, manifest and trailer are computed. For tests and attacks; [`super::write_bundle`] exports.
#[derive(Clone, Debug, Default)]
pub struct BundleBuilder {
    /// The sessions in the order of their sections.
    pub sessions: Vec<SessionContent>,
}

/// What a bundle holds of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionContent {
    /// The session that the sections name.
    pub session: SessionId,
    /// The seq that the entry section begins with.
    pub first_seq: Seq,
    /// The entries in the order of the section, as bytes.
    pub entries: Vec<Vec<u8>>,
    /// The blobs in the order of the section.
    pub blobs: Vec<NewBlob>,
}

impl BundleBuilder {
    /// Takes a bundle apart.
    ///
    /// # Errors
    /// When the bundle cannot be read.
    pub fn load(bundle: &Bundle) -> Result<BundleBuilder, ReadError> {
        let mut builder = BundleBuilder::default();
        for section in bundle.entries_sections() {
            let session = section.session;
            let entries = bundle.read(session, 0).map(|entry| entry.map(|entry| entry.bytes));
            let mut blobs = Vec::new();
            for commitment in bundle.commitments(session) {
                let blob = bundle.blob(session, commitment)?;
                blobs.extend(blob.map(|blob| NewBlob { commitment, salt: blob.salt, bytes: blob.bytes }));
            }
            let entries = entries.collect::<Result<_, _>>()?;
            builder.sessions.push(SessionContent { session, first_seq: section.first_seq, entries, blobs });
        }
        Ok(builder)
    }

    /// The manifest that fits the content.
    pub fn manifest(&self) -> Manifest {
        let sessions = self.sessions.iter().map(SessionContent::figures).collect();
        Manifest { format: Manifest::FORMAT.to_owned(), sessions, omitted: Vec::new() }
    }

    /// Writes the bundle with the manifest that fits it.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn write(&self, out: &mut dyn Write) -> Result<u64, WriteError> {
        self.write_claiming(&self.manifest(), out)
    }

    /// Writes the bundle with another manifest.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn write_claiming(&self, manifest: &Manifest, out: &mut dyn Write) -> Result<u64, WriteError> {
        let mut out = Output::begin(out)?;
        out.manifest(manifest)?;
        for content in &self.sessions {
            let len = content.entries.iter().map(|entry| entry.len() as u64).sum();
            out.entries_section(content.session, content.first_seq, content.entries.len() as u64, len)?;
            for entry in &content.entries {
                out.write(entry)?;
            }
        }
        for content in self.sessions.iter().filter(|content| !content.blobs.is_empty()) {
            out.blobs_section(content.session, content.blobs.iter().map(|blob| blob.bytes.len() as u64))?;
            for blob in &content.blobs {
                out.blob(blob.commitment, &StoredBlob { salt: blob.salt, bytes: blob.bytes.clone() })?;
            }
        }
        out.finish()
    }
}

impl SessionContent {
    /// Read as the reader does: one stream, up to the first bytes that are no entry.
    fn figures(&self) -> ManifestSession {
        let stream = self.entries.concat();
        let walk = Walk::through(self.session, stream.as_slice(), stream.len() as u64).ok();
        let head = walk.as_ref().and_then(|walk| walk.head).unwrap_or(Head { session: self.session, ..Head::none() });
        let here: BTreeSet<Commitment> = self.blobs.iter().map(|blob| blob.commitment).collect();
        let absent = walk.map_or(0, |walk| walk.referred.difference(&here).count() as u64);
        ManifestSession::of(self.first_seq, &head, self.blobs.len() as u64, absent)
    }
}
