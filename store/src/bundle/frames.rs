//! Entries lie back to back; each says its own length.

use std::collections::BTreeSet;
use std::io::{self, Read};

use toka_kernel::entry::{HEADER_BYTES_MIN, Head, Header};
use toka_kernel::ids::{Commitment, SessionId};
use toka_kernel::limits::ENTRY_BYTES_MAX;

use super::{head_after, header_of};

/// Reads entries one by one. Where no entry can be read, the bytes that are left (as many as an entry may have) are the
/// last thing handed out, so that whoever parses them sees what is wrong.
#[derive(Debug)]
pub(super) struct Frames<R> {
    reader: R,
    left: u64,
}

impl<R: Read> Frames<R> {
    pub(super) fn new(reader: R, len: u64) -> Frames<R> {
        Frames { reader, left: len }
    }

    /// The bytes of the next entry, and whether they are a whole one.
    fn read(&mut self) -> io::Result<(Vec<u8>, bool)> {
        let mut bytes = vec![0; self.at_most(HEADER_BYTES_MIN)];
        self.reader.read_exact(&mut bytes)?;
        let need = Header::entry_len(&bytes).ok().filter(|need| *need as u64 <= self.left);
        let take = need.unwrap_or_else(|| self.at_most(ENTRY_BYTES_MAX));
        let begun = bytes.len();
        bytes.resize(take, 0);
        self.reader.read_exact(&mut bytes[begun..])?;
        self.left = if need.is_some() { self.left - take as u64 } else { 0 };
        Ok((bytes, need.is_some()))
    }

    fn at_most(&self, len: usize) -> usize {
        usize::try_from(self.left).map_or(len, |left| left.min(len))
    }
}

impl<R: Read> Iterator for Frames<R> {
    type Item = io::Result<(Vec<u8>, bool)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let frame = self.read();
        if frame.is_err() {
            self.left = 0;
        }
        Some(frame)
    }
}

/// What the headers of a section say.
#[derive(Debug)]
pub(super) struct Walk {
    /// Whole entries.
    pub(super) count: u64,
    /// The head after the last of them.
    pub(super) head: Option<Head>,
    /// The blobs they refer to.
    pub(super) referred: BTreeSet<Commitment>,
    /// Whether the section ends with a whole entry.
    pub(super) whole: bool,
}

impl Walk {
    pub(super) fn through(session: SessionId, reader: impl Read, len: u64) -> io::Result<Walk> {
        let mut walk = Walk { count: 0, head: None, referred: BTreeSet::new(), whole: true };
        for frame in Frames::new(reader, len) {
            let (bytes, whole) = frame?;
            match header_of(&bytes) {
                Ok(header) if whole => {
                    walk.count += 1;
                    walk.head = Some(head_after(session, &header, &bytes));
                    walk.referred.extend(header.blobs.iter().map(|blob| blob.commitment));
                }
                _ => walk.whole = false,
            }
        }
        Ok(walk)
    }
}
