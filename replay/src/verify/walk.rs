//! One session from its first entry to its last: in which order its entries stand, and where the chain goes on after a
//! fault, so that one fault is one finding and independent ones are still found.

use std::collections::{BTreeMap, VecDeque};

use toka_kernel::entry::Head;
use toka_kernel::ids::{EntryHash, KeyId, Seq, SessionId};
use toka_kernel::keys::{Keyring, PublicKey};
use toka_kernel::limits::SEQ_WINDOW;
use toka_kernel::{Entry, chain};
use toka_store::ReadError;

use super::blobs::Blobs;
use super::checked::Checked;
use super::cited::Cited;
use super::findings::{Fault, Findings, Mark};
use super::judge::Judge;
use crate::code::{Axis, Class, Code};
use crate::input::Input;
use crate::report::SignedCounts;

/// The walk through one session.
pub(super) struct Walk<'a> {
    pub(super) input: &'a Input,
    pub(super) session: SessionId,
    pub(super) fast: bool,
    pub(super) findings: &'a mut Findings,
    /// What the entries are checked with: the keys that the genesis states. Whether the root key granted them is a
    /// question of its own, so that a wrong root is one finding and the rest is still checked.
    pub(super) keys: Keyring,
    pub(super) root: Option<&'a PublicKey>,
    /// The first fault of the key grants; uses of keys that are not admitted follow from it.
    pub(super) grants: Option<Mark>,
    /// Where the chain goes on.
    pub(super) head: Head,
    /// The fault in header or signature of the entry before.
    pub(super) before: Option<Mark>,
    /// The last accepted entries: seq, hash, whether the signature holds.
    pub(super) accepted: VecDeque<(Seq, EntryHash, bool)>,
    /// Entries read and not yet placed.
    ahead: VecDeque<Checked>,
    /// Its first entries are not here, so its keys are not known.
    pub(super) ranged: bool,
    /// No more entries can be told apart.
    pub(super) lost: Option<Mark>,
    pub(super) judge: Judge,
    /// The first seq of which nothing can be decided.
    pub(super) stopped: Option<Seq>,
    pub(super) blobs: Blobs<'a>,
    pub(super) tally: Tally,
    /// Keys that are not granted, with the finding and how many entries they sign.
    pub(super) strangers: BTreeMap<KeyId, (Mark, u64)>,
}

/// What was counted and what failed.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) entries: u64,
    pub(super) signatures: u64,
    /// Entries whose signature nobody could check.
    pub(super) unsigned: u64,
    pub(super) facts_unchecked: u64,
    pub(super) signed: SignedCounts,
    pub(super) cited: Cited,
    /// Its genesis is that of a system session.
    pub(super) system: bool,
    pub(super) failed: [bool; Axis::ALL.len()],
    pub(super) unchecked: [bool; Axis::ALL.len()],
    /// The last entry was not written to its end. What stands before it is judged as if it had not been begun.
    pub(super) torn: bool,
    /// The first entry that did not pass every check of entries.
    pub(super) first_bad: Option<Seq>,
    /// The last accepted entry, if nothing is wrong with its header and signature.
    pub(super) last: Option<Box<Entry>>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        input: &'a Input,
        session: SessionId,
        fast: bool,
        root: Option<&'a PublicKey>,
        keys: Keyring,
        findings: &'a mut Findings,
    ) -> Walk<'a> {
        Walk {
            input,
            session,
            fast,
            findings,
            keys,
            root,
            grants: None,
            head: Head::none(),
            before: None,
            accepted: VecDeque::new(),
            ahead: VecDeque::new(),
            ranged: false,
            lost: None,
            judge: Judge::default(),
            stopped: None,
            blobs: Blobs::new(input, session),
            tally: Tally::default(),
            strangers: BTreeMap::new(),
        }
    }

    /// Begins in the middle, at `seq`, as the input says of itself.
    pub(super) fn begin_at(&mut self, seq: Seq, first: &Checked) {
        self.resume_at(seq, first);
        self.ranged = true;
        let mark = self.note(seq, first.offset, Fault::new(Code::RangeIncomplete).expected(0, seq), None);
        self.stop(seq, mark);
    }

    /// Takes the next entries as they lie in the input.
    pub(super) fn take(&mut self, entries: Vec<Checked>) {
        self.ahead.extend(entries);
        while self.lost.is_none() && self.step(false) {}
    }

    /// Says that nothing more comes.
    pub(super) fn drain(&mut self) {
        while self.lost.is_none() && self.step(true) {}
    }

    /// Says that the rest of the session cannot be read.
    pub(super) fn unreadable(&mut self, error: ReadError) {
        self.drain();
        let place = self.head.next_seq();
        let fault = Fault::new(Code::InputUnreadable).expected("an entry, or the end", error.what);
        let mark = self.note(place, 0, fault.detail("place", error.place), None);
        self.lost = self.lost.or(Some(mark));
        self.stop(place, mark);
    }

    /// Notes a fault at the place of seq `place`; its entry begins at `base`.
    pub(super) fn note(&mut self, place: Seq, base: u64, fault: Fault, cause: Option<Mark>) -> Mark {
        let axis = fault.code.axis() as usize;
        match fault.class {
            Class::Fail => self.tally.failed[axis] = true,
            Class::NotChecked | Class::Unreadable => self.tally.unchecked[axis] = true,
            Class::Warning => {}
        }
        self.findings.push(Some(self.session), Some(place), base, fault, cause)
    }

    /// From `place` on nothing can be decided again, because of `cause`.
    pub(super) fn stop(&mut self, place: Seq, cause: Mark) {
        self.bad(place);
        if self.stopped.is_none() {
            self.stopped = Some(place);
            self.tally.unchecked[Axis::State as usize] = true;
            self.note(place, 0, Fault::new(Code::StoppedAt), Some(cause));
        }
    }

    pub(super) fn bad(&mut self, place: Seq) {
        self.tally.first_bad = Some(self.tally.first_bad.map_or(place, |first| first.min(place)));
    }

    /// Places the next entry, if enough is known of those behind it.
    fn step(&mut self, end: bool) -> bool {
        let expected = self.head.next_seq();
        let Some(front) = self.ahead.front() else { return false };
        // Whether a cut entry is the last one decides what it is.
        if front.frame.is_some() && !end && self.ahead.len() < 2 {
            return false;
        }
        match front.seq() {
            Some(seq) if seq != expected && self.is_of_here(front) && self.is_credible(front) => {
                if !end && self.ahead.len() <= SEQ_WINDOW {
                    return false;
                }
                self.misplaced(expected, seq);
            }
            Some(_) | None => {
                let Some(front) = self.ahead.pop_front() else { return false };
                let last = end && self.ahead.is_empty();
                self.accept(front, expected, last, None);
            }
        }
        true
    }

    /// Whether the seq of an entry can be believed: its signature holds, or nobody can tell.
    fn is_credible(&self, item: &Checked) -> bool {
        let Some(entry) = &item.entry else { return false };
        match item.signature.or_else(|| chain::check_signature(entry, &self.keys)) {
            Some(answer) => answer.is_ok(),
            None => self.keys.is_empty(),
        }
    }

    /// Whether an entry names this session. One of another session claims no place in this one.
    fn is_of_here(&self, item: &Checked) -> bool {
        item.entry.as_ref().is_some_and(|entry| {
            let named = entry.session();
            self.head.kind == 0 || named == self.head.session || named == self.session
        })
    }

    /// The entry in front has another seq than the place it stands at.
    fn misplaced(&mut self, expected: Seq, seq: Seq) {
        if self.repeats(expected, seq) {
            return;
        }
        let due = |item: &Checked| item.seq() == Some(expected) && self.is_credible(item);
        let found = self.ahead.iter().take(SEQ_WINDOW + 1).position(due);
        let Some(front) = self.ahead.front_mut() else { return };
        let (base, displaced) = (front.offset, std::mem::replace(&mut front.displaced, true));
        let fault = |code| Fault::new(code).at("seq", 48).expected(expected, seq);
        if let Some(at) = found {
            if !displaced {
                let mark = self.note(expected, base, fault(Code::SeqOrder), None);
                self.stop(expected, mark);
            }
            if let Some(item) = self.ahead.remove(at) {
                self.accept(item, expected, false, None);
            }
            return;
        }
        let Some(front) = self.ahead.pop_front() else { return };
        if seq < expected {
            let mark = self.note(expected, base, fault(Code::SeqOrder), None);
            self.stop(expected, mark);
            return;
        }
        let mark = self.note(expected, base, fault(Code::SeqGap), None);
        self.stop(expected, mark);
        if self.head.kind == 0 {
            self.grants = Some(mark);
        }
        self.resume_at(seq, &front);
        self.accept(front, expected, false, Some(mark));
    }

    /// Whether the entry in front claims the place of one that was accepted lately; if so it is dropped.
    fn repeats(&mut self, expected: Seq, seq: Seq) -> bool {
        let Some((_, hash, valid)) = self.accepted.iter().find(|(known, ..)| *known == seq).copied() else {
            return false;
        };
        let Some(front) = self.ahead.pop_front() else { return false };
        let Some(entry) = &front.entry else { return false };
        let fault = |code| Fault::new(code).at("seq", 48).expected(expected, seq);
        if entry.hash() == hash {
            let mark = self.note(expected, front.offset, fault(Code::SeqDuplicate), None);
            self.stop(expected, mark);
            return true;
        }
        let hashes = |fault: Fault| fault.detail("first", hash.to_string()).detail("second", entry.hash().to_string());
        let mark = self.note(expected, front.offset, hashes(fault(Code::SeqConflict)), None);
        if valid && self.is_signed(&front) {
            self.note(expected, front.offset, hashes(fault(Code::Equivocation)), Some(mark));
        }
        self.stop(expected, mark);
        true
    }

    pub(super) fn is_signed(&self, item: &Checked) -> bool {
        let answer =
            item.entry.as_ref().and_then(|entry| item.signature.or_else(|| chain::check_signature(entry, &self.keys)));
        answer.is_some_and(|answer| answer.is_ok())
    }

    /// Lets the chain go on at `seq`, whose predecessors are missing.
    pub(super) fn resume_at(&mut self, seq: Seq, item: &Checked) {
        if self.head.kind == 0
            && let Some(entry) = &item.entry
        {
            // Nothing is known of what is missing, so its word is taken.
            self.head = Head { session: self.session, hash: entry.header().prev, kind: NO_KIND, ..Head::none() };
        }
        self.head.seq = seq.saturating_sub(1);
    }
}

/// Stands in a head where the kind of the entry is not known. Not 0, which is before the genesis.
pub(super) const NO_KIND: u16 = u16::MAX;
