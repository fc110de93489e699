//! What the walk through a session comes to.

use toka_kernel::chain;
use toka_kernel::event::kind;
use toka_kernel::ids::Seq;
use toka_kernel::keys::SignatureFault;

use super::cited::Cited;
use super::findings::Fault;
use super::walk::Walk;
use crate::code::{Axis, Code};
use crate::report::{Answer, Axes, Checked, SessionReport};
use crate::shown::hex;

impl Walk<'_> {
    /// Ends the walk.
    pub(super) fn finish(mut self) -> (SessionReport, Checked, Cited) {
        for (mark, uses) in std::mem::take(&mut self.strangers).into_values().filter(|(_, uses)| *uses > 1) {
            self.findings.annotate(mark, "entries", uses);
        }
        if self.tally.entries == 0 && self.lost.is_none() {
            let fault = Fault::new(Code::InputUnreadable).expected("a genesis", "no entry of this session");
            self.note(0, 0, fault, None);
        }
        if self.fast && self.tally.entries > 0 {
            self.check_last_signature();
        }
        self.check_stored_head();
        let closed = self.lost.is_none()
            && self.tally.last.as_ref().is_some_and(|last| last.header().kind == kind::SESSION_CLOSED);
        if !closed && !self.accepted.is_empty() {
            let cause = self.lost.or(self.before);
            let fault = Fault::new(Code::TruncationNotExcluded);
            let fault = fault
                .expected("the end of the session, or an anchor that names this entry", self.head.hash.to_string());
            self.note(self.head.seq, 0, fault, cause);
        }
        let report = SessionReport {
            session: self.session,
            system: self.tally.system,
            closed,
            head: (!self.accepted.is_empty()).then_some((self.head.seq, self.head.hash)),
            entries: self.tally.entries,
            trusted_prefix_seq: self.trusted_prefix(),
            axes: self.axes(closed),
            blobs: self.blobs.counts,
            facts_unchecked: self.tally.facts_unchecked,
            refs_unresolved: 0,
            signed: self.tally.signed,
        };
        let checked = Checked { entries: self.tally.entries, signatures: self.tally.signatures };
        (report, checked, std::mem::take(&mut self.tally.cited))
    }

    /// A store also keeps the head of each session. It is no anchor, since who edits entries can edit it; but where it
    /// contradicts the entries, somebody edited one of the two.
    fn check_stored_head(&mut self) {
        if self.input.as_bundle().is_some() || self.tally.first_bad.is_some() || self.accepted.is_empty() {
            return;
        }
        let log = self.input.log();
        let Ok(stored) = log.head(self.session) else { return };
        // A session may have grown since its entries were read.
        let grown = stored.is_some_and(|stored| stored.seq > self.head.seq)
            && log.read(self.session, self.head.next_seq()).next().is_some();
        if grown || stored == Some(self.head) {
            return;
        }
        let say = |head: toka_kernel::Head| format!("{} at seq {}", head.hash, head.seq);
        let stored = stored.map_or_else(|| "no head".to_owned(), say);
        let fault = Fault::new(Code::StoreKeyMismatch).at("head", 0).expected(say(self.head), stored);
        self.note(self.head.seq, 0, fault, None);
    }

    /// The one signature that stands for all, since each entry hashes the one before.
    fn check_last_signature(&mut self) {
        let Some(last) = self.tally.last.take() else { return };
        match chain::check_signature(&last, &self.keys) {
            Some(Ok(())) => self.tally.signatures += 1,
            None => {}
            Some(Err(fault)) => {
                let code = match fault {
                    SignatureFault::Missing => Code::SigMissing,
                    SignatureFault::NonCanonical => Code::SigNonCanonical,
                    SignatureFault::Invalid => Code::SigInvalid,
                };
                let fault = Fault::new(code).at("signature", last.signature_offset());
                let expected = format!("a signature by {}", last.header().signer);
                self.note(self.head.seq, 0, fault.expected(expected, hex(last.signature())), None);
                // It stood for every entry, so none of them is vouched for.
                self.bad(0);
            }
        }
        let fault = Fault::new(Code::SignaturesSampled).expected(self.tally.entries, self.tally.signatures);
        self.note(self.head.seq, 0, fault, None);
        self.tally.last = Some(last);
    }

    fn trusted_prefix(&self) -> Option<Seq> {
        if self.root.is_none() || self.ranged || self.accepted.is_empty() {
            return None;
        }
        match self.tally.first_bad {
            Some(bad) => bad.checked_sub(1),
            None => Some(self.head.seq),
        }
    }

    fn axes(&self, closed: bool) -> Axes {
        let any = self.tally.entries > 0 && (self.lost.is_none() || self.tally.torn);
        let mut axes = Axes::default();
        for axis in Axis::ALL {
            let checked = any
                && !self.tally.unchecked[axis as usize]
                && match axis {
                    Axis::Frame | Axis::Chain | Axis::Commands => true,
                    Axis::Signatures => !self.fast && self.tally.unsigned == 0 && self.tally.signatures > 0,
                    Axis::Keys => self.root.is_some() && self.tally.unsigned == 0,
                    Axis::Legality | Axis::State => self.stopped.is_none(),
                    Axis::Blobs => !self.blobs.unread,
                    Axis::Tail => closed,
                    // Nothing here can come from outside the input yet.
                    Axis::Anchor | Axis::Freshness => false,
                };
            axes.set(
                axis,
                match (self.tally.failed[axis as usize], checked) {
                    (true, _) => Answer::Fail,
                    (false, true) => Answer::Ok,
                    (false, false) => Answer::NotChecked,
                },
            );
        }
        axes
    }
}
