//! Entries and heads.

use crate::ids::{EntryHash, Seq, SessionId, TimeUs};

/// The last entry of a session, as far as the next one needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The session; zero before the genesis.
    pub session: SessionId,
    /// The seq of that entry.
    pub seq: Seq,
    /// Its hash.
    pub hash: EntryHash,
    /// Its time.
    pub time_us: TimeUs,
    /// Its kind; 0 before the genesis.
    pub kind: u16,
}

impl Head {
    /// Before the genesis.
    pub fn none() -> Head {
        Head { session: SessionId::ZERO, seq: 0, hash: EntryHash::ZERO, time_us: 0, kind: 0 }
    }

    /// The seq that the next entry must have.
    pub fn next_seq(&self) -> Seq {
        if self.kind == 0 { 0 } else { self.seq + 1 }
    }
}
