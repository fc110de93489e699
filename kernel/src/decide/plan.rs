//! Plans: what an agent is meant to do, as far as orchestration needs to know.

use std::collections::BTreeSet;

use crate::body::v1::{Plan, Retry};
use crate::capability::ExactName;
use crate::denial::{Code, Denial};
use crate::limits::RETRY_US_MAX;
use crate::state::{AgentState, State};

/// What follows a failure when the agent is to be tried again.
const THEN_RETRY: u8 = 4;

/// Whether a new agent of `spec` may have this plan.
pub(crate) fn check(state: &State, spec: &str, plan: &Plan) -> Result<(), Denial> {
    is_name(&plan.workstream, "plan.workstream")?;
    if !(1..=8).contains(&plan.phase) || !(1..=THEN_RETRY).contains(&plan.then) {
        return Err(malformed("plan.phase or plan.then"));
    }
    // Those an agent waits for are spawned before it, so that no circle can be.
    let known = plan.requires.iter().all(|agent| state.agents.contains_key(agent));
    if !known || !are_unique(&plan.requires) {
        return Err(malformed("plan.requires"));
    }
    if plan.retry.is_some() != (plan.then == THEN_RETRY) || !plan.retry.as_ref().is_none_or(is_retry) {
        return Err(malformed("plan.retry"));
    }
    are_names(plan.objectives.iter(), "plan.objectives")?;
    are_names(plan.deliverables.iter().map(|deliverable| &deliverable.name), "plan.deliverables")?;
    are_names(plan.milestones.iter().map(|milestone| &milestone.name), "plan.milestones")?;
    for milestone in &plan.milestones {
        are_names(milestone.members.iter(), "plan.milestones.members")?;
    }
    let replaced = plan.replaces.map(|agent| state.agents.get(&agent));
    let fits =
        replaced.is_none_or(|agent| agent.is_some_and(|agent| agent.state == AgentState::Ended && agent.spec == spec));
    if fits { Ok(()) } else { Err(malformed("plan.replaces")) }
}

/// Whether a rule to try again keeps its bounds.
pub(crate) fn is_retry(retry: &Retry) -> bool {
    retry.base <= RETRY_US_MAX && retry.cap <= RETRY_US_MAX
}

fn are_names<'n>(names: impl Iterator<Item = &'n String>, what: &str) -> Result<(), Denial> {
    let names: Vec<&String> = names.collect();
    names.iter().try_for_each(|name| is_name(name, what))?;
    if are_unique(&names) { Ok(()) } else { Err(malformed(what)) }
}

fn is_name(name: &str, what: &str) -> Result<(), Denial> {
    ExactName::parse(name).map(|_| ()).map_err(|_| Denial::new(Code::BadName).rule(what))
}

fn are_unique<T: Ord>(items: &[T]) -> bool {
    let unique: BTreeSet<&T> = items.iter().collect();
    unique.len() == items.len()
}

fn malformed(rule: &str) -> Denial {
    Denial::new(Code::Malformed).rule(rule)
}
