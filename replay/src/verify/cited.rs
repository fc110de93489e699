//! What entries say about entries of other sessions, compared where those are in the input as well.

use std::collections::{BTreeMap, BTreeSet};

use toka_kernel::entry::EntryRef;
use toka_kernel::ids::{EntryHash, Seq, SessionId};
use toka_kernel::{Body, Entry, Event};

use super::checked;
use crate::input::Input;

/// The entries of other sessions that a session cites, each with the first entry that does.
#[derive(Clone, Debug, Default)]
pub(super) struct Cited(BTreeMap<(SessionId, Seq, EntryHash), Seq>);

/// A citation that contradicts the session it names.
pub(super) struct Contradiction {
    /// The entry that cites.
    pub(super) at: Seq,
    pub(super) cites: EntryRef,
    /// The hash of the entry that stands there; none where the session ends before.
    pub(super) found: Option<EntryHash>,
}

impl Cited {
    pub(super) fn learn(&mut self, seq: Seq, event: &Event) {
        let mut add = |cited: Option<EntryRef>| {
            if let Some(EntryRef { session, seq: cited, hash }) = cited {
                self.0.entry((session, cited, hash)).or_insert(seq);
            }
        };
        match &event.body {
            Body::SessionOpened(genesis) => {
                add(genesis.system);
                add(genesis.parent);
            }
            Body::ToolBound(bound) => bound.tools.iter().for_each(|binding| add(binding.cite)),
            Body::ToolUnbound(unbound) => add(Some(unbound.cite)),
            Body::CallFinished(finished) => add(finished.of),
            Body::StateCommitted(_)
            | Body::SessionClosed(_)
            | Body::Refused(..)
            | Body::AgentSpawned(_)
            | Body::AgentStarted(_)
            | Body::AgentEnded(_)
            | Body::GrantIssued(_)
            | Body::GrantRevoked(_)
            | Body::CallAdmitted(_)
            | Body::SessionRegistered(_)
            | Body::SessionEnded(_)
            | Body::ToolRegistered(_)
            | Body::ToolApproved(_)
            | Body::ToolQuarantined(_)
            | Body::OutcomeResolved(_)
            | Body::PrincipalAdded(_)
            | Body::AgentPaused(_)
            | Body::AgentResumed(_)
            | Body::AgentStopping(_)
            | Body::TaskScheduled(_)
            | Body::TaskStarted(_)
            | Body::TaskCompleted(_)
            | Body::TaskFailed(_)
            | Body::TaskSkipped(_)
            | Body::MessageSent(_)
            | Body::MessageTaken(_)
            | Body::CallAttempted(_)
            | Body::CancelRequested(_)
            | Body::Observed(_)
            | Body::SandboxProbed(_) => {}
        }
    }

    /// Reads the cited sessions that are in `input`: how many citations could not be compared, and which contradict. A
    /// bundle may hold a session in part; in a store what is cited was durable before it was cited, so it is there.
    pub(super) fn compare(&self, input: &Input) -> (u64, Vec<Contradiction>) {
        let mut hashes: BTreeMap<(SessionId, Seq), EntryHash> = BTreeMap::new();
        let mut wanted: Vec<SessionId> = self.0.keys().map(|(session, ..)| *session).collect();
        wanted.dedup();
        wanted.retain(|session| input.sessions().any(|known| known.is_ok_and(|known| known == *session)));
        let mut whole: BTreeSet<SessionId> = BTreeSet::new();
        for session in wanted {
            let last = self.0.keys().filter(|(of, ..)| *of == session).map(|(_, seq, _)| *seq).max().unwrap_or(0);
            let mut is_read = true;
            for stored in input.entries(session) {
                let entry = stored.ok().and_then(|stored| checked::read(&stored.bytes).0);
                let Some(entry) = entry else {
                    is_read = false;
                    break;
                };
                let seq = Entry::header(&entry).seq;
                if self.0.keys().any(|(of, cited, _)| *of == session && *cited == seq) {
                    hashes.insert((session, seq), entry.hash());
                }
                if seq >= last {
                    break;
                }
            }
            if is_read && input.as_bundle().is_none() {
                whole.insert(session);
            }
        }
        let mut unresolved = 0;
        let mut contradictions = Vec::new();
        for ((session, seq, hash), at) in &self.0 {
            match hashes.get(&(*session, *seq)) {
                None if !whole.contains(session) => unresolved += 1,
                Some(found) if found == hash => {}
                found => {
                    let cites = EntryRef { session: *session, seq: *seq, hash: *hash };
                    contradictions.push(Contradiction { at: *at, cites, found: found.copied() });
                }
            }
        }
        (unresolved, contradictions)
    }
}
