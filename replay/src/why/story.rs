//! What a session says of who gave what to whom, by id: enough to find the way back.

use std::collections::BTreeMap;

use toka_kernel::body::v1::{Grant, SessionOpened};
use toka_kernel::ids::{AgentId, CallId, GrantId, KeyId, PrincipalId, Seq, SessionId, TaskId, derived};
use toka_kernel::keys::KeyGrant;
use toka_kernel::{Body, Entry, Event};

use crate::names::Names;
use crate::trail::{Stop, Trail, Vouched};

/// A session that was read to its end. It holds no entries: these are read again where they are wanted.
pub(crate) struct Story<'a> {
    pub(super) trail: Trail<'a>,
    session: SessionId,
    pub(super) names: Names,
    pub(super) genesis: Option<Box<SessionOpened>>,
    /// The key that signs the genesis.
    pub(super) signer: KeyId,
    pub(super) keys: BTreeMap<KeyId, KeyGrant>,
    pub(super) grants: BTreeMap<GrantId, Given>,
    pub(super) agents: BTreeMap<AgentId, Spawned>,
    pub(super) calls: BTreeMap<CallId, Called>,
    /// Principals that came later.
    pub(super) added: BTreeMap<PrincipalId, Seq>,
    pub(super) tasks: BTreeMap<TaskId, Seq>,
    /// Sessions that this one registered.
    pub(super) registered: BTreeMap<SessionId, Seq>,
}

/// A grant, and the entry that gave it.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) seq: Seq,
    /// Its place among the root grants, if it is one of the genesis.
    pub(super) root: Option<usize>,
    pub(super) grant: Grant,
    pub(super) revoked: Option<Seq>,
}

/// An agent, and the entry that made it.
#[derive(Debug)]
pub(super) struct Spawned {
    pub(super) seq: Seq,
    pub(super) parent: PrincipalId,
    pub(super) grant: GrantId,
    pub(super) ended: Option<Seq>,
}

/// A call, and the entries about it after it was admitted.
#[derive(Debug)]
pub(super) struct Called {
    pub(super) seq: Seq,
    pub(super) after: Vec<Seq>,
}

impl<'a> Story<'a> {
    /// Reads a session from its genesis to its end.
    ///
    /// # Errors
    /// [`Stop`] where it does not stand.
    pub(crate) fn read(trail: Trail<'a>) -> Result<Story<'a>, Stop> {
        let session = trail.vouched().session;
        let mut story = Story {
            trail,
            session,
            names: Names::default(),
            genesis: None,
            signer: KeyId::ZERO,
            keys: BTreeMap::new(),
            grants: BTreeMap::new(),
            agents: BTreeMap::new(),
            calls: BTreeMap::new(),
            added: BTreeMap::new(),
            tasks: BTreeMap::new(),
            registered: BTreeMap::new(),
        };
        while let Some(entry) = story.trail.step()? {
            if let Ok(event) = entry.event() {
                story.names.learn(&entry, event);
                story.learn(&entry, event);
            }
        }
        Ok(story)
    }

    pub(crate) fn session(&self) -> SessionId {
        self.session
    }

    pub(crate) fn vouched(&self) -> Vouched {
        self.trail.vouched()
    }

    /// Its last entry, if there is one.
    pub(crate) fn last(&self) -> Option<Seq> {
        let head = self.trail.head();
        (head.kind != 0).then_some(head.seq)
    }

    /// The system session that it cites.
    pub(crate) fn cites(&self) -> Option<SessionId> {
        self.genesis.as_ref().and_then(|genesis| genesis.system).map(|system| system.session)
    }

    fn learn(&mut self, entry: &Entry, event: &Event) {
        let seq = entry.header().seq;
        let made = |ordinal| derived(self.session, seq, ordinal);
        match &event.body {
            Body::SessionOpened(genesis) => self.open(entry, genesis),
            Body::AgentSpawned(spawned) => {
                let (parent, grant) = (spawned.parent, spawned.grant);
                self.agents.insert(PrincipalId(made(0)), Spawned { seq, parent, grant, ended: None });
                for (ordinal, grant) in (1..).zip(&spawned.grants) {
                    let given = Given { seq, root: None, grant: grant.clone(), revoked: None };
                    self.grants.insert(GrantId(made(ordinal)), given);
                }
            }
            Body::AgentEnded(ended) => {
                if let Some(agent) = self.agents.get_mut(&ended.agent) {
                    agent.ended = Some(seq);
                }
            }
            Body::GrantIssued(issued) => {
                let given = Given { seq, root: None, grant: issued.grant.clone(), revoked: None };
                self.grants.insert(GrantId(made(0)), given);
            }
            Body::GrantRevoked(revoked) => {
                if let Some(given) = self.grants.get_mut(&revoked.grant) {
                    given.revoked = given.revoked.or(Some(seq));
                }
            }
            Body::CallAdmitted(_) => {
                self.calls.insert(CallId(made(0)), Called { seq, after: Vec::new() });
            }
            Body::CallAttempted(attempted) => self.about(attempted.call, seq),
            Body::CancelRequested(cancelled) => self.about(cancelled.call, seq),
            Body::CallFinished(finished) => self.about(finished.call, seq),
            Body::OutcomeResolved(resolved) => self.about(resolved.call, seq),
            Body::PrincipalAdded(_) => {
                self.added.insert(PrincipalId(made(0)), seq);
            }
            Body::TaskScheduled(_) => {
                self.tasks.insert(TaskId(made(0)), seq);
            }
            Body::SessionRegistered(registered) => {
                self.registered.insert(registered.session, seq);
            }
            Body::StateCommitted(_)
            | Body::SessionClosed(_)
            | Body::Refused(..)
            | Body::AgentStarted(_)
            | Body::AgentPaused(_)
            | Body::AgentResumed(_)
            | Body::AgentStopping(_)
            | Body::TaskStarted(_)
            | Body::TaskCompleted(_)
            | Body::TaskFailed(_)
            | Body::TaskSkipped(_)
            | Body::MessageSent(_)
            | Body::MessageTaken(_)
            | Body::ToolBound(_)
            | Body::SessionEnded(_)
            | Body::ToolRegistered(_)
            | Body::ToolApproved(_)
            | Body::ToolQuarantined(_)
            | Body::ToolUnbound(_)
            | Body::Observed(_)
            | Body::SandboxProbed(_) => {}
        }
    }

    fn open(&mut self, entry: &Entry, genesis: &SessionOpened) {
        self.signer = entry.header().signer;
        let keys = genesis.keys.iter().filter_map(|record| KeyGrant::decode(&record.0).ok());
        self.keys = keys.map(|grant| (grant.key.id(), grant)).collect();
        // Ids in the genesis: first those principals that have none, then the grants.
        let unnamed = genesis.principals.iter().filter(|listed| listed.id.is_none()).count();
        for (index, grant) in genesis.grants.iter().enumerate() {
            let ordinal = u32::try_from(unnamed + index).unwrap_or(u32::MAX);
            let given = Given { seq: 0, root: Some(index), grant: grant.clone(), revoked: None };
            self.grants.insert(GrantId(derived(self.session, 0, ordinal)), given);
        }
        self.genesis = Some(Box::new(genesis.clone()));
    }

    fn about(&mut self, call: CallId, seq: Seq) {
        if let Some(called) = self.calls.get_mut(&call) {
            called.after.push(seq);
        }
    }
}
