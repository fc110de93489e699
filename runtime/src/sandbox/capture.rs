//! What is kept of a stream: its beginning, its end, its length and its hash.

use std::collections::VecDeque;
use std::sync::Arc;

use super::redact::{Forms, Redaction};

/// A stream as it is read.
#[derive(Debug)]
pub(super) struct Capture {
    /// Takes secrets out, before anything else sees the bytes.
    redaction: Option<Redaction>,
    /// How many bytes the program wrote.
    came: u64,
    kept: Kept,
}

/// What is kept of a stream.
#[derive(Debug)]
struct Kept {
    begin: Vec<u8>,
    begin_max: usize,
    end: VecDeque<u8>,
    end_max: usize,
    bytes: u64,
    hash: blake3::Hasher,
}

/// A stream that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// The first three quarters of the bound and its last quarter; all of it where it fits.
    pub kept: Vec<u8>,
    /// How many bytes came, with a mark in the place of each secret.
    pub bytes: u64,
    /// BLAKE3 of all of them.
    pub hash: [u8; 32],
}

impl Captured {
    /// Whether bytes were left out.
    pub fn is_cut(&self) -> bool {
        self.bytes > self.kept.len() as u64
    }
}

impl Capture {
    /// Keeps at most `most` bytes, and of the forms of secrets none.
    pub(super) fn new(most: u64, secrets: Option<Arc<Forms>>) -> Capture {
        Capture { redaction: secrets.map(Redaction::new), came: 0, kept: Kept::new(most) }
    }

    /// Takes the next bytes.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        self.came += bytes.len() as u64;
        let kept = &mut self.kept;
        match &mut self.redaction {
            Some(redaction) => redaction.take(bytes, &mut |clean| kept.take(clean)),
            None => kept.take(bytes),
        }
    }

    /// How many bytes came so far.
    pub(super) fn came(&self) -> u64 {
        self.came
    }

    /// Ends it.
    pub(super) fn end(mut self) -> Captured {
        if let Some(redaction) = self.redaction {
            redaction.end(&mut |clean| self.kept.take(clean));
        }
        self.kept.end()
    }
}

impl Kept {
    fn new(most: u64) -> Kept {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let end_max = most / 4;
        Kept {
            begin: Vec::new(),
            begin_max: most - end_max,
            end: VecDeque::new(),
            end_max,
            bytes: 0,
            hash: blake3::Hasher::new(),
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.hash.update(bytes);
        let (begin, rest) = bytes.split_at(bytes.len().min(self.begin_max - self.begin.len()));
        self.begin.extend_from_slice(begin);
        let last = &rest[rest.len().saturating_sub(self.end_max)..];
        let over = (self.end.len() + last.len()).saturating_sub(self.end_max);
        self.end.drain(..over);
        self.end.extend(last);
    }

    fn end(self) -> Captured {
        let mut kept = self.begin;
        kept.extend(self.end);
        Captured { kept, bytes: self.bytes, hash: *self.hash.finalize().as_bytes() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_beginning_and_the_end_are_kept_whatever_the_pieces(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20),
            most in 0u64..200,
        ) {
            let mut capture = Capture::new(most, None);
            pieces.iter().for_each(|piece| capture.take(piece));
            let whole = pieces.concat();
            let captured = capture.end();
            prop_assert_eq!(captured.bytes, whole.len() as u64);
            prop_assert_eq!(captured.hash, *blake3::hash(&whole).as_bytes());
            let most = most as usize;
            if whole.len() <= most {
                prop_assert_eq!(&captured.kept, &whole);
            } else {
                let end = most / 4;
                prop_assert_eq!(&captured.kept, &[&whole[..most - end], &whole[whole.len() - end..]].concat());
            }
            prop_assert_eq!(captured.is_cut(), whole.len() > most);
        }
    }
}
