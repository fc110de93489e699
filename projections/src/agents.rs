//! The agents of a session.

use std::collections::BTreeMap;

use toka_kernel::ids::{AgentId, Commitment, Digest, PrincipalId, Seq, derived};
use toka_kernel::{AgentState, Body, Entry, Event};

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
    /// Once it has ended: 1 completed, 2 failed, 3 stopped, and the end code.
    pub ended: Option<(u8, u16)>,
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

    pub(crate) fn fold(&mut self, entry: &Entry, event: &Event) {
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
                    ended: None,
                };
                self.0.insert(PrincipalId(derived(entry.session(), entry.header().seq, 0)), row);
            }
            Body::AgentStarted(started) => {
                if let Some(row) = self.0.get_mut(&started.agent) {
                    row.state = AgentState::Running;
                }
            }
            Body::AgentEnded(ended) => {
                if let Some(row) = self.0.get_mut(&ended.agent) {
                    row.state = AgentState::Ended;
                    row.ended = Some((ended.how, ended.code));
                }
            }
            Body::SessionOpened(_)
            | Body::StateCommitted(_)
            | Body::SessionClosed(_)
            | Body::Refused(..)
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
            | Body::Observed(_)
            | Body::SandboxProbed(_) => {}
        }
    }
}
