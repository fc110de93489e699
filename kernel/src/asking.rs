//! What an asker may learn before it asks: what a call would need, and what a principal holds.

use crate::capability::{Capability, ExactName, Scope};
use crate::decide::call;
use crate::denial::{Code, Denial};
use crate::facts::Fact;
use crate::ids::{AgentId, Digest, GrantId, PrincipalId};
use crate::state::State;

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

    /// Whether an agent has a call or a child that has not ended, so that it cannot end itself.
    pub fn is_busy(&self, agent: AgentId) -> bool {
        self.agents.get(&agent).is_some_and(|agent| agent.open_calls > 0 || agent.live_children > 0)
    }
}
