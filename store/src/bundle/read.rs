//! Reading a bundle, whatever is wrong with it.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::ops::Bound;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use toka_kernel::entry::Head;
use toka_kernel::ids::{Commitment, Seq, SessionId};

use super::frames::Frames;
use super::index::Index;
use super::manifest::Manifest;
use super::{BLOB_HEADER_BYTES, ContainerCode, ContainerFault, MAGIC};
use crate::log::{RawEntry, ReadError, ReadLog, Rows, SessionRow, StoredBlob};

/// A bundle opened for reading.
///
/// Opening goes through the whole file once and notes everything that is wrong with the container as a
/// [`ContainerFault`]; what the file holds stays readable all the same. Every single altered byte shows, as an error,
/// as a fault, or in the entry or blob it lies in. Memory is bounded by the number of blobs, not by their size.
pub struct Bundle {
    input: Mutex<Box<dyn Input>>,
    len: u64,
    index: Index,
}

trait Input: Read + Seek + Send {}
impl<T: Read + Seek + Send> Input for T {}

/// A part of a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// Its type.
    pub kind: u8,
    /// Where its content begins in the file.
    pub offset: u64,
    /// The bytes of its content that are there.
    pub len: u64,
}

/// The entries of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntriesSection {
    /// The session that the section names.
    pub session: SessionId,
    /// The seq that the section says it begins with.
    pub first_seq: Seq,
    /// The number of entries that the section states.
    pub count: u64,
    /// Where its first entry begins in the file.
    pub offset: u64,
    /// The bytes of all its entries.
    pub len: u64,
}

/// An entry with its place in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleEntry {
    /// The seq that an entry at this place should have.
    pub seq: Seq,
    /// Where it begins in the file.
    pub offset: u64,
    /// Its bytes. Where no whole entry lies, the bytes that are left; nothing comes after them.
    pub bytes: Vec<u8>,
}

/// Why a bundle cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The file cannot be opened or read.
    #[error("the bundle cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The first bytes are not those of a bundle.
    #[error("no bundle: it does not begin with TOKABNDL1")]
    NotABundle,
}

impl BundleError {
    /// The code for reports.
    pub fn code(&self) -> ContainerCode {
        ContainerCode::InputUnreadable
    }
}

impl Bundle {
    /// Opens a bundle file.
    ///
    /// # Errors
    /// Only when the file cannot be read or is no bundle; anything else is a fault of [`Bundle::faults`].
    pub fn open(path: impl AsRef<Path>) -> Result<Bundle, BundleError> {
        Bundle::from_input(File::open(path)?)
    }

    /// Opens a bundle that is not, or not only, a file.
    ///
    /// # Errors
    /// As [`Bundle::open`].
    pub fn from_input(mut input: impl Read + Seek + Send + 'static) -> Result<Bundle, BundleError> {
        let len = input.seek(SeekFrom::End(0))?;
        input.seek(SeekFrom::Start(0))?;
        let mut magic = Vec::new();
        input.by_ref().take(MAGIC.len() as u64).read_to_end(&mut magic)?;
        if magic != MAGIC {
            return Err(BundleError::NotABundle);
        }
        let index = Index::of(&mut input, len)?;
        Ok(Bundle { input: Mutex::new(Box::new(input)), len, index })
    }

    /// What is wrong with the container, in the order in which it was found. Empty for a sound one.
    pub fn faults(&self) -> &[ContainerFault] {
        &self.index.faults
    }

    /// What the bundle says of itself, if it can be read.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.index.manifest.as_ref()
    }

    /// Bytes of the whole.
    pub fn bytes(&self) -> u64 {
        self.len
    }

    /// Every section, in the order of the file.
    pub fn sections(&self) -> &[Section] {
        &self.index.sections
    }

    /// The sections with entries, in the order of the file.
    pub fn entries_sections(&self) -> &[EntriesSection] {
        &self.index.entries
    }

    /// The section with the entries of a session.
    pub fn entries_section(&self, session: SessionId) -> Option<EntriesSection> {
        self.index.entries.iter().find(|entries| entries.session == session).copied()
    }

    /// The raw bytes of a range of the file, such as a section.
    pub fn reader(&self, offset: u64, len: u64) -> SectionReader<'_> {
        SectionReader { bundle: self, at: offset, end: offset.saturating_add(len).min(self.len) }
    }

    /// The entries of a session in the order of the file, with their places.
    pub fn entries(&self, session: SessionId) -> Rows<'_, BundleEntry> {
        let Some(section) = self.entries_section(session) else { return Box::new(std::iter::empty()) };
        let reader = BufReader::with_capacity(1 << 16, self.reader(section.offset, section.len));
        let mut offset = section.offset;
        let seqs = (0..).map(move |place: u64| section.first_seq.saturating_add(place));
        Box::new(seqs.zip(Frames::new(reader, section.len)).map(move |(seq, frame)| {
            let (bytes, _) = frame.map_err(|error| self.read_error(offset, &error))?;
            let entry = BundleEntry { seq, offset, bytes };
            offset += entry.bytes.len() as u64;
            Ok(entry)
        }))
    }

    /// The blobs of a session in the order of the file, each once.
    pub fn commitments(&self, session: SessionId) -> Vec<Commitment> {
        let Some(blobs) = self.index.blobs.get(&session) else { return Vec::new() };
        let mut in_order: Vec<_> = blobs.by_commitment.iter().map(|(commitment, at)| (*at, *commitment)).collect();
        in_order.sort_unstable();
        let mut seen = BTreeSet::new();
        in_order.into_iter().map(|(_, commitment)| commitment).filter(|commitment| seen.insert(*commitment)).collect()
    }

    /// Where the record of a blob begins in the file.
    pub fn blob_offset(&self, session: SessionId, commitment: Commitment) -> Option<u64> {
        self.index.blobs.get(&session)?.find(commitment)
    }

    fn blob_record(&self, at: u64) -> io::Result<([u8; 32], u64)> {
        let mut record = [0; BLOB_HEADER_BYTES as usize];
        self.reader(at, BLOB_HEADER_BYTES).read_exact(&mut record)?;
        let (mut salt, mut len) = ([0; 32], [0; 8]);
        salt.copy_from_slice(&record[32..64]);
        len.copy_from_slice(&record[64..]);
        Ok((salt, u64::from_be_bytes(len)))
    }

    fn read_error(&self, offset: u64, error: &io::Error) -> ReadError {
        ReadError { what: error.to_string(), place: format!("bundle at byte {offset}") }
    }
}

impl ReadLog for Bundle {
    fn sessions(&self, after: Option<SessionId>) -> Rows<'_, SessionRow> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let sessions: BTreeSet<_> = self.index.entries.iter().map(|entries| entries.session).collect();
        let listed: Vec<_> = sessions.range((from, Bound::Unbounded)).copied().collect();
        Box::new(
            listed.into_iter().map(|session| Ok(SessionRow { session, head: self.index.heads.get(&session).copied() })),
        )
    }

    /// The head after the last whole entry, as its header states it.
    fn head(&self, session: SessionId) -> Result<Option<Head>, ReadError> {
        Ok(self.index.heads.get(&session).copied())
    }

    fn read(&self, session: SessionId, from: Seq) -> Rows<'_, RawEntry> {
        let wanted = move |entry: &Result<BundleEntry, ReadError>| entry.as_ref().is_ok_and(|entry| entry.seq < from);
        let raw = |entry: BundleEntry| RawEntry { seq: entry.seq, bytes: entry.bytes };
        Box::new(self.entries(session).skip_while(wanted).map(move |entry| entry.map(raw)))
    }

    fn blob(&self, session: SessionId, commitment: Commitment) -> Result<Option<StoredBlob>, ReadError> {
        let Some(at) = self.blob_offset(session, commitment) else { return Ok(None) };
        let read = || {
            let (salt, len) = self.blob_record(at)?;
            let mut bytes = Vec::new();
            self.reader(at + BLOB_HEADER_BYTES, len).read_to_end(&mut bytes)?;
            Ok(StoredBlob { salt, bytes })
        };
        read().map(Some).map_err(|error| self.read_error(at, &error))
    }

    fn blob_len(&self, session: SessionId, commitment: Commitment) -> Result<Option<u64>, ReadError> {
        let Some(at) = self.blob_offset(session, commitment) else { return Ok(None) };
        self.blob_record(at).map(|(_, len)| Some(len)).map_err(|error| self.read_error(at, &error))
    }
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bundle").field("len", &self.len).field("index", &self.index).finish_non_exhaustive()
    }
}

/// Reads a range of a bundle; readers do not disturb each other.
#[derive(Debug)]
pub struct SectionReader<'a> {
    bundle: &'a Bundle,
    at: u64,
    end: u64,
}

impl Read for SectionReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let wanted = out.len().min(left);
        let mut input = self.bundle.input.lock().unwrap_or_else(PoisonError::into_inner);
        input.seek(SeekFrom::Start(self.at))?;
        let read = input.read(&mut out[..wanted])?;
        self.at += read as u64;
        Ok(read)
    }
}
