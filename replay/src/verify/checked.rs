//! The part of a check that needs no other entry: read the frame, hash, decode, check the signature.

use toka_kernel::chain;
use toka_kernel::entry::{Entry, FrameFault, Header};
use toka_kernel::ids::Seq;
use toka_kernel::keys::{Keyring, SIGNATURE_BYTES, SignatureFault};

use crate::input::Stored;

/// An entry with what can be said of it alone.
#[derive(Debug)]
pub(super) struct Checked {
    /// The key of its row, in a store.
    pub(super) key: Option<Seq>,
    /// Where it begins in the file, in a bundle.
    pub(super) offset: u64,
    /// Its bytes.
    pub(super) len: usize,
    /// Why it is not exactly one entry.
    pub(super) frame: Option<FrameFault>,
    /// The entry, if header and signature are there. Where the body is cut short, zeros stand for what is missing.
    pub(super) entry: Option<Box<Entry>>,
    /// The answer about its signature; none if its key is not known or it was not asked for.
    pub(super) signature: Option<Result<(), SignatureFault>>,
    /// Whether its place was found to be wrong before.
    pub(super) displaced: bool,
}

impl Checked {
    /// Checks one entry; its signature only where `sign` says so.
    pub(super) fn of(stored: &Stored, keys: &Keyring, sign: bool) -> Checked {
        let (entry, frame) = read(&stored.bytes);
        // The body is decoded when it is first asked for: here, where many threads work, and not where one folds.
        if let Some(entry) = &entry {
            let _ = entry.event();
        }
        let signature = entry.as_ref().filter(|_| sign).and_then(|entry| chain::check_signature(entry, keys));
        Checked {
            key: stored.key,
            offset: stored.offset,
            len: stored.bytes.len(),
            frame,
            entry: entry.map(Box::new),
            signature,
            displaced: false,
        }
    }

    pub(super) fn seq(&self) -> Option<Seq> {
        self.entry.as_ref().map(|entry| entry.header().seq)
    }

    /// Whether bytes of the body are missing.
    pub(super) fn is_cut(&self) -> bool {
        matches!(self.frame, Some(FrameFault::Short { .. }))
    }
}

/// The entry that `bytes` begin with, as far as there is one.
pub(super) fn read(bytes: &[u8]) -> (Option<Entry>, Option<FrameFault>) {
    let fault = match Entry::read(bytes) {
        Ok(entry) => return (Some(entry), None),
        Err(fault) => fault,
    };
    let entry = match fault {
        FrameFault::Surplus { surplus } => Entry::read(&bytes[..bytes.len() - surplus]).ok(),
        FrameFault::Short { need, .. } => padded(bytes, need),
        FrameFault::Limit { .. } => None,
    };
    (entry, Some(fault))
}

/// The entry whose body is cut short, if header and signature are whole.
fn padded(bytes: &[u8], need: usize) -> Option<Entry> {
    let header = Header::read(bytes).ok()?;
    let signed = need.checked_sub(header.body_len as usize)?;
    if signed < SIGNATURE_BYTES || bytes.len() < signed {
        return None;
    }
    let mut whole = bytes.to_vec();
    whole.resize(need, 0);
    Entry::read(&whole).ok()
}
