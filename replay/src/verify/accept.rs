//! One entry at its place: every check of entries in the fixed order, then the rules, then its blobs.

use std::ops::ControlFlow;

use toka_kernel::entry::{FrameFault, HEADER_BYTES_MIN, Head, MAGIC};
use toka_kernel::ids::{KeyId, Seq};
use toka_kernel::keys::SIGNATURE_BYTES;
use toka_kernel::limits::{FINDINGS_MAX, SEQ_WINDOW};
use toka_kernel::{Body, CLASS_SYSTEM, Entry, chain};

use super::checked::Checked;
use super::findings::{Fault, Mark};
use super::judge::{is_signed, wanted};
use super::walk::{NO_KIND, Walk};
use crate::code::{Axis, Class, Code};
use crate::shown::hex;

impl Walk<'_> {
    /// Takes `item` as the entry at `place`. `last` says that nothing comes after it, `cause` what is wrong already.
    pub(super) fn accept(&mut self, item: Checked, place: Seq, last: bool, cause: Option<Mark>) {
        if self.ends_early(&item, place) {
            return;
        }
        let Checked { entry: Some(entry), .. } = &item else {
            return self.accept_unreadable(&item, place);
        };
        if entry.header().magic != MAGIC && self.is_foreign(&item, entry, place) {
            return;
        }
        if item.is_cut() && self.is_torn(&item, place, last) {
            return;
        }
        self.settle_session(entry);
        let faults = self.faults(&item, entry);
        let (root, header) = self.note_all(place, item.offset, faults, cause);
        if let Some(root) = root {
            self.stop(place, root);
        }
        self.count(&item, place);
        let applied = self.apply(entry, place, item.offset);
        self.account(entry, place, item.offset, root, applied);
        self.go_on(item, header);
    }

    /// Where the file ends early, that is what is wrong, and no entry that it cuts.
    fn ends_early(&mut self, item: &Checked, place: Seq) -> bool {
        let early = item.key.is_none() && item.is_cut() && self.input.is_cut();
        if early {
            self.tally.unchecked[Axis::Frame as usize] = true;
            self.bad(place);
            self.stopped = self.stopped.or(Some(place));
        }
        early
    }

    /// An entry that does not begin as entries do: of a later version, or no entry at all.
    fn is_foreign(&mut self, item: &Checked, entry: &Entry, place: Seq) -> bool {
        let fault = |code| Fault::new(code).at("magic", 0).expected(hex(&MAGIC), hex(&entry.header().magic));
        if self.head.kind == 0 && place == 0 {
            let mark = self.note(place, item.offset, fault(Code::InputUnreadable), None);
            self.lost = Some(mark);
            self.stop(place, mark);
            return true;
        }
        // Behind a damaged length the rest of a section is noise.
        if item.key.is_none()
            && let Some(before) = self.before
        {
            let mark = self.note(place, item.offset, fault(Code::UnknownVersion), Some(before));
            self.lost = Some(mark);
            return true;
        }
        false
    }

    /// An entry whose last bytes were never written. Everything before it stands.
    fn is_torn(&mut self, item: &Checked, place: Seq, last: bool) -> bool {
        let torn = item.key.is_some() && last && self.is_signed(item);
        if torn {
            let mark = self.note(place, item.offset, short(Code::TornTail, item), None);
            self.lost = Some(mark);
            self.tally.torn = true;
            self.bad(place);
        }
        torn
    }

    fn accept_unreadable(&mut self, item: &Checked, place: Seq) {
        let fault = match item.frame {
            Some(FrameFault::Limit { field, offset, value, limit }) => {
                Fault::new(Code::LimitExceeded).at(field, offset).expected(limit, value)
            }
            _ if item.key.is_some() => Fault::new(Code::SigInvalid)
                .at("signature", item.len)
                .expected("a whole header and signature", format!("{} bytes", item.len)),
            _ => short(Code::FrameTruncated, item),
        };
        let cause = if item.key.is_none() { self.before } else { None };
        let mark = self.note(place, item.offset, fault, cause);
        self.stop(place, mark);
        self.before = Some(mark);
        self.tally.entries += 1;
        self.tally.unsigned += 1;
        self.tally.last = None;
        if item.key.is_none() {
            self.lost = Some(mark);
        }
        let seq = item.key.unwrap_or(place).max(place);
        let kind = if self.head.kind == 0 { NO_KIND } else { self.head.kind };
        self.head = Head { session: self.session, seq, kind, ..self.head };
    }

    /// Where the input names another session than the genesis hashes to, what comes after says which one it is.
    fn settle_session(&mut self, entry: &Entry) {
        let first =
            self.accepted.front().filter(|(seq, ..)| *seq == 0 && self.head.seq == 0).map(|(_, hash, _)| hash.0);
        if first.is_some_and(|hash| hash == entry.header().session.0) {
            self.head.session = entry.header().session;
        }
    }

    /// What is wrong with an entry, in the order of the checks.
    fn faults(&mut self, item: &Checked, entry: &Entry) -> Vec<Fault> {
        let mut faults = Vec::new();
        let known = if self.fast && item.frame.is_none() { Some(Ok(())) } else { item.signature };
        chain::check(&self.head, entry, &self.keys, known, &mut |broken| {
            faults.push(Fault::of(broken));
            ControlFlow::Continue(())
        });
        if item.is_cut() {
            faults.retain(|fault| !is_of_body(fault));
        }
        if self.ranged {
            faults.retain(|fault| fault.code != Code::KeyNotGranted);
        }
        if let Some(key) = item.key
            && key != entry.header().seq
        {
            let fault = Fault::new(Code::StoreKeyMismatch).at("seq", 48).expected(key, entry.header().seq);
            insert_after(&mut faults, fault, |fault| {
                fault.code.axis() == Axis::Frame || fault.code == Code::SuiteDowngrade
            });
        }
        if self.head.kind == 0 {
            self.check_genesis(entry, &mut faults);
        }
        // In a store the signature of an entry that is cut must hold even so; if not, that is the finding.
        let unsigned = item.is_cut() && item.key.is_some() && !self.is_signed(item);
        if let Some(fault) = frame_fault(item).filter(|_| !unsigned) {
            faults.insert(0, fault);
        }
        faults
    }

    /// What only a genesis has: keys in its own body, and a name that is its own hash.
    fn check_genesis(&mut self, entry: &Entry, faults: &mut Vec<Fault>) {
        let mut grants = Vec::new();
        chain::keyring(entry, self.root, &mut |broken| grants.push(Fault::of(broken)));
        // The body is checked before the keys in it are used.
        faults.sort_by_key(|fault| !is_before_keys(fault));
        let at = faults.iter().take_while(|fault| is_before_keys(fault)).count();
        faults.splice(at..at, grants);
        if entry.hash().0 != self.session.0 && entry.header().seq == 0 {
            let fault = Fault::new(Code::GenesisInvalid).at("session", 16);
            let fault = fault.expected(self.session.to_string(), entry.hash().to_string());
            insert_after(faults, fault, |fault| {
                matches!(fault.code.axis(), Axis::Keys | Axis::Signatures) || is_before_keys(fault)
            });
        }
    }

    /// Notes the faults of one entry. The first one that nothing before caused is the root of the later ones. Gives the
    /// root, and the one in header or signature.
    fn note_all(
        &mut self,
        place: Seq,
        base: u64,
        faults: Vec<Fault>,
        cause: Option<Mark>,
    ) -> (Option<Mark>, Option<Mark>) {
        let (mut root, mut inherited, mut header) = (cause, None, None);
        for fault in faults {
            let from_before = if matches!(fault.code, Code::LinkMismatch | Code::TimeRegression) {
                self.before
            } else {
                self.grants.filter(|_| fault.code == Code::KeyNotGranted)
            };
            let (code, class) = (fault.code, fault.class);
            let of_header = !is_of_body(&fault) && code != Code::FrameSurplus && code != Code::FrameTruncated;
            let mark = match stranger_of(&fault) {
                Some(key) => self.note_stranger(key, place, base, fault, root.or(from_before)),
                None => self.note(place, base, fault, root.or(from_before)),
            };
            if code.axis() == Axis::Keys && self.head.kind == 0 && code != Code::KeyNotGranted {
                self.grants = self.grants.or(root).or(Some(mark));
            }
            if class != Class::Fail {
                continue;
            }
            if from_before.is_some() {
                inherited = inherited.or(Some(mark));
            } else {
                root = root.or(Some(mark));
                if of_header {
                    header = header.or(root);
                }
            }
        }
        if self.head.kind == 0 && self.keys.is_empty() {
            self.grants = self.grants.or(root);
        }
        (root.or(inherited), header)
    }

    /// A key that nobody granted is one finding, however many entries it signs.
    fn note_stranger(&mut self, key: KeyId, place: Seq, base: u64, fault: Fault, cause: Option<Mark>) -> Mark {
        if let Some((mark, uses)) = self.strangers.get_mut(&key) {
            *uses += 1;
            return *mark;
        }
        let mark = self.note(place, base, fault, cause);
        if self.strangers.len() < FINDINGS_MAX {
            self.strangers.insert(key, (mark, 1));
        }
        mark
    }

    fn count(&mut self, item: &Checked, place: Seq) {
        self.tally.entries += 1;
        match item.signature {
            Some(Ok(())) => self.tally.signatures += 1,
            Some(Err(_)) => {}
            None if self.fast => {}
            None => {
                self.tally.unsigned += 1;
                self.bad(place);
            }
        }
    }

    /// Decides the entry again, unless something is wrong already.
    fn apply(&mut self, entry: &Entry, place: Seq, base: u64) -> bool {
        let signed = entry.event().is_ok_and(is_signed);
        if self.stopped.is_some() {
            // What nobody decided again, nobody has looked at the signature of.
            self.tally.unchecked[Axis::Commands as usize] |= signed;
            return false;
        }
        match self.judge.apply(entry) {
            Ok(()) => {
                if let Ok(event) = entry.event() {
                    self.tally.cited.learn(place, event);
                    if let Body::SessionOpened(genesis) = &event.body {
                        self.tally.system = genesis.class == CLASS_SYSTEM;
                    }
                }
                match self.judge.custody(entry).filter(|_| signed) {
                    Some(2) => self.tally.signed.separate += 1,
                    Some(_) => self.tally.signed.in_process += 1,
                    None => {}
                }
                true
            }
            Err(fault) => {
                let mark = self.note(place, base, *fault, None);
                self.stop(place, mark);
                false
            }
        }
    }

    /// Accounts for the blobs of an entry and compares what it states with them.
    fn account(&mut self, entry: &Entry, place: Seq, base: u64, root: Option<Mark>, applied: bool) {
        let header = entry.header();
        let wanted = if applied { entry.event().map(wanted).unwrap_or_default() } else { Vec::new() };
        let mut kept: Vec<(u16, Vec<u8>)> = Vec::new();
        let mut faults = Vec::new();
        for (index, reference) in (0..).zip(&header.blobs) {
            let offset = HEADER_BYTES_MIN + 8 * header.causes.len() + 36 * usize::from(index);
            let bytes = self.blobs.check(*reference, offset, wanted.contains(&index), &mut |fault| faults.push(fault));
            kept.extend(bytes.map(|bytes| (index, bytes)));
        }
        for fault in faults {
            self.note(place, base, fault, root);
        }
        if !applied || wanted.is_empty() {
            return;
        }
        let take = |index: u16| kept.iter().find(|(known, _)| *known == index).map(|(_, bytes)| bytes.as_slice());
        let compared = self.judge.compare(entry, &take);
        self.tally.facts_unchecked += compared.unchecked;
        if let Some(fault) = compared.fault {
            let prefix = self.tally.first_bad;
            let mark = self.note(place, base, fault, None);
            self.stop(place, mark);
            // Blobs are no check of entries.
            self.tally.first_bad = prefix;
        }
    }

    /// Moves the head behind the entry. Of a header that is not what was signed only the hash is used.
    fn go_on(&mut self, item: Checked, header_fault: Option<Mark>) {
        let sound = header_fault.is_none() || self.is_signed(&item);
        let Some(entry) = item.entry else { return };
        let (header, seq) = (entry.header(), self.head.next_seq());
        let before =
            if self.head.kind == 0 { Head { session: self.session, kind: NO_KIND, ..self.head } } else { self.head };
        self.head = Head { seq, hash: entry.hash(), ..before };
        if sound {
            self.head.time_us = header.time_us;
            self.head.kind = if header.kind == 0 { before.kind } else { header.kind };
        }
        self.before = header_fault;
        self.accepted.push_back((seq, entry.hash(), sound));
        if self.accepted.len() > SEQ_WINDOW {
            self.accepted.pop_front();
        }
        self.tally.last = sound.then_some(entry);
    }
}

fn frame_fault(item: &Checked) -> Option<Fault> {
    match item.frame? {
        FrameFault::Surplus { surplus } => {
            let end = item.len - surplus;
            Some(Fault::new(Code::FrameSurplus).at("body_len", end).expected(end, item.len))
        }
        FrameFault::Short { .. } => Some(short(Code::FrameTruncated, item)),
        FrameFault::Limit { field, offset, value, limit } => {
            Some(Fault::new(Code::LimitExceeded).at(field, offset).expected(limit, value))
        }
    }
}

fn short(code: Code, item: &Checked) -> Fault {
    let need = match item.frame {
        Some(FrameFault::Short { need, .. }) => need,
        Some(FrameFault::Surplus { .. } | FrameFault::Limit { .. }) | None => HEADER_BYTES_MIN + SIGNATURE_BYTES,
    };
    Fault::new(code).at("body_len", item.len).expected(need, item.len)
}

/// The key that a finding says nobody granted.
fn stranger_of(fault: &Fault) -> Option<KeyId> {
    let key = (fault.code == Code::KeyNotGranted).then(|| fault.actual.as_str()).flatten()?;
    KeyId::from_hex(key)
}

fn is_of_body(fault: &Fault) -> bool {
    matches!(fault.code, Code::BodyHashMismatch | Code::BodyNonCanonical | Code::BodyUndecodable)
}

/// Whether a check comes before the keys of a genesis are read from its body.
fn is_before_keys(fault: &Fault) -> bool {
    is_of_body(fault)
        || matches!(
            fault.code,
            Code::UnknownVersion
                | Code::SuiteDowngrade
                | Code::ReservedBits
                | Code::StoreKeyMismatch
                | Code::GenesisInvalid
                | Code::SeqGap
                | Code::SeqOrder
        )
}

fn insert_after(faults: &mut Vec<Fault>, fault: Fault, before: impl Fn(&Fault) -> bool) {
    let at = faults.iter().take_while(|known| before(known)).count();
    faults.insert(at, fault);
}
