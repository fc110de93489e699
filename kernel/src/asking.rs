//! What an asker may learn before it asks: what a call would need, and what a principal holds.

use crate::capability::{Capability, ExactName, Scope};
use crate::decide::{agent, call};
use crate::denial::{Code, Denial};
use crate::facts::Fact;
use crate::ids::{AgentId, Digest, GrantId, MessageId, PrincipalId, TaskId};
use crate::state::{Agent, AgentState, State, TaskState};

impl State {
    /// The needs of a call of `tool` with these facts: first the tool itself, then each that the tool declares and the
    /// facts call for. The same function decides the call.
    ///
    /// # Errors
    /// The denial that asking would meet: the tool is not bound, bound with another digest, or the facts do not fit it.
    pub fn needs_of(&self, tool: &str, digest: Digest, facts: &[Fact], extra: bool) -> Result<Vec<Scope>, Denial> {
        let name = ExactName::parse(tool).map_err(Denial::new)?;
        let bound = self.tools.get(tool).ok_or(Denial::new(Code::UnknownTool))?;
        if bound.digest != digest {
            return Err(Denial::new(Code::DigestChanged));
        }
        call::needs(bound, &name, facts, extra)
    }

    /// The grants that `subject` holds and that were not revoked themselves, oldest first.
    pub fn grants_of(&self, subject: PrincipalId) -> impl Iterator<Item = (GrantId, &Capability)> {
        self.grants.held_by(subject).filter(|node| !node.revoked).map(|node| (node.id, &node.grant.cap))
    }

    /// Whether an agent has a call, a task or a child that has not ended, so that it cannot end itself.
    pub fn is_busy(&self, agent: AgentId) -> bool {
        let busy = |agent: &Agent| agent.open_calls > 0 || agent.open_tasks > 0 || agent.live_children > 0;
        self.agents.get(&agent).is_some_and(busy)
    }

    /// Whether an agent, or one above it, is paused or stopping or has an outcome in doubt, so that it does nothing new.
    pub fn is_held(&self, agent: AgentId) -> bool {
        agent::not_held(self, agent).is_err()
    }

    /// Whether an agent, or one above it, is stopping.
    pub fn is_stopping(&self, agent: AgentId) -> bool {
        self.agent_and_above(agent).any(|agent| agent.state == AgentState::Stopping)
    }

    /// The agents that the node is to end as stopped now: those at or below one that is stopping whose calls and children
    /// have ended. When these have been ended, others may follow.
    pub fn stopped(&self) -> Vec<AgentId> {
        if self.stopping == 0 {
            return Vec::new();
        }
        let idle =
            |agent: &Agent| agent.state != AgentState::Ended && agent.open_calls == 0 && agent.live_children == 0;
        let idle = self.agents.iter().filter(|(_, agent)| idle(agent)).map(|(id, _)| *id);
        idle.filter(|id| self.is_stopping(*id)).collect()
    }

    /// Where a task stands, if it is known. An ended one is forgotten with the second commitment to the state.
    pub fn task_state(&self, task: TaskId) -> Option<TaskState> {
        self.tasks.get(&task).map(|task| task.state)
    }

    /// The messages that an agent has not read, oldest first.
    pub fn unread(&self, agent: AgentId) -> &[MessageId] {
        self.mailboxes.get(&agent).map_or(&[], Vec::as_slice)
    }
}
