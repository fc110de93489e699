//! What sessions say about each other, compared where the others are in the input as well: the entries that they cite,
//! and the sessions that a system session has registered.

use std::collections::{BTreeMap, BTreeSet};

use toka_kernel::body::v1::EndHead;
use toka_kernel::capability::Capability;
use toka_kernel::entry::EntryRef;
use toka_kernel::hash::{Context, derive};
use toka_kernel::ids::{Digest, EntryHash, Seq, SessionId};
use toka_kernel::{Body, CLASS_SYSTEM, Entry, Event};
use toka_store::bundle::ContainerCode;

use super::checked;
use crate::input::Input;

/// What a session says about others.
#[derive(Clone, Debug, Default)]
pub(super) struct Cited {
    /// The entries of other sessions that it cites, each with the first entry that does.
    entries: BTreeMap<(SessionId, Seq, EntryHash), Seq>,
    /// How it began; none where its genesis was not accepted.
    begun: Option<Begun>,
    /// What each session begins with that it has registered.
    registered: BTreeMap<SessionId, Digest>,
}

/// How a session began.
#[derive(Clone, Copy, Debug)]
struct Begun {
    roots: Digest,
    is_system: bool,
    /// The system session that it cites.
    system: Option<SessionId>,
}

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
                self.entries.entry((session, cited, hash)).or_insert(seq);
            }
        };
        match &event.body {
            Body::SessionOpened(genesis) => {
                add(genesis.system);
                add(genesis.parent);
                let roots = digest_of(genesis.grants.iter().map(|grant| &grant.cap));
                let system = genesis.system.as_ref().map(|cited| cited.session);
                self.begun = Some(Begun { roots, is_system: genesis.class == CLASS_SYSTEM, system });
            }
            Body::SessionRegistered(registered) => {
                let roots = digest_of(registered.roots.iter().map(|root| &root.cap));
                self.registered.insert(registered.session, roots);
            }
            Body::SessionEnded(ended) => {
                let end = |head: &EndHead| EntryRef { session: ended.session, seq: head.seq, hash: head.hash };
                add(ended.head.as_ref().map(end));
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

    /// Whether it is a work session that `system` should have registered as it begins, and has not.
    pub(super) fn is_unregistered(&self, session: SessionId, system: &Cited) -> bool {
        let begun = self.begun.filter(|begun| !begun.is_system);
        begun.is_some_and(|begun| system.registered.get(&session) != Some(&begun.roots))
    }

    /// Whether it began as a work session, and the system session that it then cites, if any.
    pub(super) fn begun_beside(&self) -> Option<Option<SessionId>> {
        self.begun.filter(|begun| !begun.is_system).map(|begun| begun.system)
    }

    /// The same as the system session `of` stands now, since it may have grown after it was read.
    pub(super) fn again(&self, input: &Input, of: SessionId) -> Cited {
        let mut now = self.clone();
        let entries = input.entries(of).filter_map(|stored| checked::read(&stored.ok()?.bytes).0);
        for entry in entries {
            if let Ok(event) = entry.event() {
                now.learn(entry.header().seq, event);
            }
        }
        now
    }

    /// Reads the cited sessions that are in `input`: how many citations could not be compared, and which contradict. What
    /// is cited was durable before it was cited, so it is there, unless the session is here in part.
    pub(super) fn compare(&self, input: &Input) -> (u64, Vec<Contradiction>) {
        let mut hashes: BTreeMap<(SessionId, Seq), EntryHash> = BTreeMap::new();
        let mut wanted: BTreeMap<SessionId, BTreeSet<Seq>> = BTreeMap::new();
        for (session, seq, _) in self.entries.keys() {
            wanted.entry(*session).or_default().insert(*seq);
        }
        let known: BTreeSet<SessionId> = input.sessions().filter_map(Result::ok).collect();
        wanted.retain(|session, _| known.contains(session));
        let mut whole: BTreeSet<SessionId> = BTreeSet::new();
        for (session, seqs) in wanted {
            let last = seqs.last().copied().unwrap_or(0);
            let mut is_read = true;
            for stored in input.entries(session) {
                let entry = stored.ok().and_then(|stored| checked::read(&stored.bytes).0);
                let Some(entry) = entry else {
                    is_read = false;
                    break;
                };
                let seq = Entry::header(&entry).seq;
                if seqs.contains(&seq) {
                    hashes.insert((session, seq), entry.hash());
                }
                if seq >= last {
                    break;
                }
            }
            if is_read && is_whole(input, session) {
                whole.insert(session);
            }
        }
        let mut unresolved = 0;
        let mut contradictions = Vec::new();
        for ((session, seq, hash), at) in &self.entries {
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

/// Whether all of a session is here. A bundle may begin later, or be cut.
pub(super) fn is_whole(input: &Input, session: SessionId) -> bool {
    let harmless = |code: ContainerCode| matches!(code, ContainerCode::ManifestMismatch | ContainerCode::BundleTrailer);
    let is_read = input.as_bundle().is_none_or(|bundle| bundle.faults().iter().all(|fault| harmless(fault.code)));
    is_read && input.first_seq(session) == 0
}

fn digest_of<'c>(roots: impl Iterator<Item = &'c Capability>) -> Digest {
    let texts: Vec<String> = roots.map(|root| format!("{root}\n")).collect();
    derive(Context::Id, &texts.iter().map(String::as_bytes).collect::<Vec<_>>())
}
