//! Every commitment of a session is accounted for once; every reference to it must state its size.

use std::collections::BTreeSet;

use toka_kernel::entry::{BlobRef, commitment, grains};
use toka_kernel::ids::{Commitment, SessionId};
use toka_store::StoredBlob;

use super::findings::Fault;
use super::seen::Seen;
use crate::code::Code;
use crate::input::Input;
use crate::report::BlobCounts;

/// The grains of a blob that is not there or not what was committed to; no blob has so few.
const NONE: u32 = 0;

/// The blobs of one session.
#[derive(Debug)]
pub(super) struct Blobs<'a> {
    input: &'a Input,
    session: SessionId,
    omitted: BTreeSet<Commitment>,
    seen: Seen,
    pub(super) counts: BlobCounts,
    /// A blob could not be read.
    pub(super) unread: bool,
}

impl<'a> Blobs<'a> {
    pub(super) fn new(input: &'a Input, session: SessionId) -> Blobs<'a> {
        let manifest = input.as_bundle().and_then(|bundle| bundle.manifest());
        let omitted = manifest.into_iter().flat_map(|manifest| &manifest.omitted);
        let omitted = omitted.filter(|omitted| omitted.session == session).filter_map(|omitted| omitted.blob).collect();
        Blobs { input, session, omitted, seen: Seen::default(), counts: BlobCounts::default(), unread: false }
    }

    /// Checks one reference, which lies at `offset` in its entry. Gives the bytes if they are there, right, and `kept`.
    pub(super) fn check(
        &mut self,
        reference: BlobRef,
        offset: usize,
        keep: bool,
        report: &mut dyn FnMut(Fault),
    ) -> Option<Vec<u8>> {
        let (found, bytes) = match self.seen.get(&reference.commitment) {
            Some(found) => (found, (keep && found != NONE).then(|| self.open(reference.commitment)).flatten()),
            None => {
                let bytes = self.look(reference.commitment, offset, report);
                let found = bytes.as_ref().map_or(NONE, |bytes| grains(bytes.len() as u64));
                self.seen.insert(reference.commitment, found);
                (found, bytes)
            }
        };
        if found != NONE && found != reference.grains {
            let fault = Fault::new(Code::BlobMismatch).at("size_grains", offset);
            report(fault.expected(found, reference.grains).detail("commitment", reference.commitment.to_string()));
        }
        bytes.filter(|_| keep)
    }

    /// The bytes of a commitment that is met for the first time.
    fn look(&mut self, wanted: Commitment, offset: usize, report: &mut dyn FnMut(Fault)) -> Option<Vec<u8>> {
        let fault = |code| Fault::new(code).at("commitment", offset + 4);
        let blob = match self.input.blob(self.session, wanted) {
            Ok(blob) => blob,
            Err(error) => {
                self.unread = true;
                report(
                    fault(Code::InputUnreadable).expected(wanted.to_string(), error.what).detail("place", error.place),
                );
                return None;
            }
        };
        let Some(StoredBlob { salt, bytes }) = blob else {
            if self.omitted.contains(&wanted) {
                self.counts.omitted += 1;
                report(fault(Code::BlobOmitted).expected(wanted.to_string(), "left out"));
            } else {
                report(fault(Code::BlobMissingUnauthorised).expected(wanted.to_string(), "no blob"));
            }
            return None;
        };
        let found = commitment(&salt, &bytes);
        if found != wanted {
            report(fault(Code::BlobMismatch).expected(wanted.to_string(), found.to_string()));
            return None;
        }
        self.counts.present += 1;
        Some(bytes)
    }

    /// The bytes of a commitment that was met before. What changed since is not there.
    fn open(&self, wanted: Commitment) -> Option<Vec<u8>> {
        let blob = self.input.blob(self.session, wanted).ok().flatten()?;
        (commitment(&blob.salt, &blob.bytes) == wanted).then_some(blob.bytes)
    }
}
