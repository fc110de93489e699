//! The agents of a session.

use std::collections::BTreeMap;

use toka_kernel::body::v1::Plan;
use toka_kernel::ids::{AgentId, Commitment, Digest, PrincipalId, Seq, derived};
use toka_kernel::{AgentState, Body, Entry, Event};

use crate::blob;

/// The agents of a session, by id.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Agents(BTreeMap<AgentId, AgentRow>);

/// An agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentRow {
    /// The name of its spec.
    pub name: String,
    /// Who spawned it.
    pub parent: PrincipalId,
    /// Where it stands.
    pub state: AgentState,
    /// The blob that holds the whole spec.
    pub text: Commitment,
    /// The digest of the spec without its free text.
    pub spec_digest: Digest,
    /// The version of its driver.
    pub driver: u16,
    /// The entry that made it.
    pub spawned_at: Seq,
    /// What it is meant to do.
    pub plan: Plan,
    /// While it is paused: by whom, and why.
    pub paused: Option<Held>,
    /// Once it is to stop: by whom, and why.
    pub stopping: Option<Held>,
    /// The last command of it that was refused, and the code.
    pub refused: Option<(Seq, u16)>,
    /// Once it has ended: 1 completed, 2 failed, 3 stopped, and the end code.
    pub ended: Option<(u8, u16)>,
}

/// Why an agent does nothing new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Who asked for it.
    pub by: PrincipalId,
    /// The number of the reason.
    pub why: u8,
    /// The blob that holds more about it.
    pub reason: Option<Commitment>,
    /// The entry that says so.
    pub at: Seq,
}

impl Agents {
    /// The agent of this id.
    pub fn get(&self, id: AgentId) -> Option<&AgentRow> {
        self.0.get(&id)
    }

    /// Every agent.
    pub fn iter(&self) -> impl Iterator<Item = (AgentId, &AgentRow)> {
        self.0.iter().map(|(id, row)| (*id, row))
    }

    /// Whether an agent, or one above it, is paused or stopping.
    pub fn is_held(&self, id: AgentId) -> bool {
        let above = |row: &&AgentRow| self.0.get(&row.parent);
        std::iter::successors(self.0.get(&id), above).any(|row| row.paused.is_some() || row.stopping.is_some())
    }

    pub(crate) fn fold(&mut self, entry: &Entry, event: &Event) {
        let held = |why: u8, reason: Option<u16>| Held {
            by: entry.header().principal,
            why,
            reason: blob(event, reason),
            at: entry.header().seq,
        };
        match &event.body {
            Body::AgentSpawned(spawned) => {
                let Some(text) = event.blobs.get(usize::from(spawned.text)) else { return };
                let row = AgentRow {
                    name: spawned.spec.clone(),
                    parent: spawned.parent,
                    state: AgentState::Spawned,
                    text: text.commitment,
                    spec_digest: spawned.spec_digest,
                    driver: spawned.driver,
                    spawned_at: entry.header().seq,
                    plan: spawned.plan.clone(),
                    paused: None,
                    stopping: None,
                    refused: None,
                    ended: None,
                };
                self.0.insert(PrincipalId(derived(entry.session(), entry.header().seq, 0)), row);
            }
            Body::AgentStarted(started) => {
                if let Some(row) = self.0.get_mut(&started.agent) {
                    row.state = AgentState::Running;
                }
            }
            Body::AgentPaused(paused) => {
                if let Some(row) = self.0.get_mut(&paused.agent) {
                    row.state = AgentState::Paused;
                    row.paused = Some(held(paused.why, paused.reason));
                }
            }
            Body::AgentResumed(resumed) => {
                if let Some(row) = self.0.get_mut(&resumed.agent) {
                    row.state = AgentState::Running;
                    row.paused = None;
                }
            }
            Body::AgentStopping(stopping) => {
                if let Some(row) = self.0.get_mut(&stopping.agent) {
                    row.state = AgentState::Stopping;
                    row.paused = None;
                    row.stopping = Some(held(stopping.why, stopping.reason));
                }
            }
            Body::Refused(refused, _) => {
                if let Some(row) = self.0.get_mut(&entry.header().principal) {
                    row.refused = Some((entry.header().seq, refused.code));
                }
            }
            Body::AgentEnded(ended) => {
                if let Some(row) = self.0.get_mut(&ended.agent) {
                    row.state = AgentState::Ended;
                    row.paused = None;
                    row.ended = Some((ended.how, ended.code));
                }
            }
            Body::SessionOpened(_)
            | Body::StateCommitted(_)
            | Body::SessionClosed(_)
            | Body::GrantIssued(_)
            | Body::GrantRevoked(_)
            | Body::ToolBound(_)
            | Body::CallAdmitted(_)
            | Body::CallFinished(_)
            | Body::SessionRegistered(_)
            | Body::SessionEnded(_)
            | Body::ToolRegistered(_)
            | Body::ToolApproved(_)
            | Body::ToolQuarantined(_)
            | Body::ToolUnbound(_)
            | Body::OutcomeResolved(_)
            | Body::PrincipalAdded(_)
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
}
