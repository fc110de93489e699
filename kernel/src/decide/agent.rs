//! Agents: spawn, start, pause, resume, stop, end.

use crate::body::encoded_len;
use crate::body::v1::{
    AgentEnded, AgentPaused, AgentResumed, AgentSpawned, AgentStarted, AgentStopping, Cmd, EndAsked, Grant, PauseAsked,
    ResumeAsked, SpawnAsked, StartAsked, StopAsked,
};
use crate::budget::Vector;
use crate::capability::{Capability, ExactName, Scope};
use crate::decide::{Answer, call, grant, plan};
use crate::denial::{Code, Denial, Dim};
use crate::event::Body;
use crate::ids::{AgentId, PrincipalId, TimeUs, derived};
use crate::limits::{
    AGENT_CHILDREN_MAX, AGENT_DEPTH_MAX, AGENTS_MAX, AGENTS_RUNNING_MAX, DIMENSIONS, SPAWN_GRANTS_BYTES_MAX,
};
use crate::state::{Agent, AgentState, State};

/// The highest end code of `docs/FORMAT.md`.
pub(crate) const END_CODE_MAX: u16 = 17;
/// The highest number of a reason to pause or stop.
const WHY_MAX: u8 = 8;

/// What a spawn reserves. A grant that is over after an overrun lets nothing pass, not even this.
const NOTHING: Vector = [0; DIMENSIONS];

/// An agent asks for work only while it runs; others always may.
pub(crate) fn must_run(state: &State, by: PrincipalId) -> Result<(), Denial> {
    match state.agents.get(&by).map(|agent| agent.state) {
        None => Ok(()),
        Some(AgentState::Running | AgentState::Paused | AgentState::Stopping) => not_held(state, by),
        Some(AgentState::Spawned | AgentState::Ended) => Err(Denial::new(Code::IllegalTransition)),
    }
}

/// An agent goes on only when neither it nor an agent above it is paused or stopping, and nobody wonders what one of
/// them has done.
pub(crate) fn not_held(state: &State, agent: AgentId) -> Result<(), Denial> {
    let held = |agent: &Agent| match agent.state {
        AgentState::Paused => Some("paused"),
        AgentState::Stopping => Some("stopping"),
        AgentState::Spawned | AgentState::Running | AgentState::Ended => {
            (agent.doubts > 0).then_some("an outcome is in doubt")
        }
    };
    match state.agent_and_above(agent).find_map(held) {
        Some(rule) => Err(Denial::new(Code::AgentPaused).rule(rule)),
        None => Ok(()),
    }
}

/// Whether `by` spawned `agent`, or an agent above it.
pub(crate) fn is_above(state: &State, by: PrincipalId, agent: AgentId) -> bool {
    state.agent_and_above(agent).any(|agent| agent.parent == by)
}

/// What an `agent:` grant must reach to be good for messages to an agent, and for orchestrating it.
pub(crate) fn reach(agent: &Agent) -> Result<Scope, Denial> {
    ExactName::parse(&agent.spec).map(|spec| Scope::agent_need(&spec, 0)).map_err(Denial::new)
}

/// Whether a command names a grant as its right. That the grant is good for it was checked before.
pub(crate) fn has_right(cmd: Option<&Cmd>) -> bool {
    cmd.is_some_and(|cmd| cmd.under.is_some())
}

pub(crate) fn spawn(
    state: &State,
    by: PrincipalId,
    cmd: Option<Cmd>,
    asked: &SpawnAsked,
    at: TimeUs,
) -> Result<Answer, Denial> {
    let spec = ExactName::parse(&asked.spec).map_err(|code| Denial::new(code).rule("spec"))?;
    plan::check(state, &asked.spec, &asked.plan)?;
    if asked.asked.iter().any(Option::is_some) {
        return Err(Denial::new(Code::BadAmount).rule("a spawn has no reserve"));
    }
    if !asked.need_grants.is_empty() {
        return Err(Denial::new(Code::NeedUnnamed));
    }
    let need = Scope::agent_need(&spec, 1);
    let narrow = call::parse_narrow(&asked.narrow, 1)?;
    let index = grant::usable(state, &asked.grant, by, at).map_err(|denial| denial.item(0))?;
    call::covered(state, &need, index, 0)?;
    call::narrowed(&need, narrow.first().and_then(Option::as_ref), 0, at)?;
    check_counts(state, by, index)?;
    let chain = state.grants.union(&[index]);
    call::check_rates(state, &chain, at)?;
    call::check_budgets(state, &chain, &[Some(0); DIMENSIONS], &NOTHING)?;
    let grants = child_grants(state, by, asked, at)?;
    call::check_gates(state, &chain, &[index])?;
    Ok(Body::AgentSpawned(Box::new(AgentSpawned {
        cmd,
        parent: by,
        spec: asked.spec.clone(),
        text: asked.text,
        spec_digest: asked.spec_digest,
        driver: asked.driver,
        seed: asked.seed,
        grant: asked.grant,
        need_grants: Vec::new(),
        asked: asked.asked.clone(),
        narrow,
        reserve: Vec::new(),
        grants,
        dropped: asked.dropped.clone(),
        plan: asked.plan.clone(),
    }))
    .into())
}

/// The filled grants of the agent that the next entry makes; the id of that agent is known from the head.
fn child_grants(state: &State, by: PrincipalId, asked: &SpawnAsked, at: TimeUs) -> Result<Vec<Grant>, Denial> {
    let agent = PrincipalId(derived(state.head.session, state.head.next_seq(), 0));
    let mut grants: Vec<Grant> = Vec::with_capacity(asked.grants.len());
    for (item, child) in asked.grants.iter().enumerate() {
        let grant = grant::delegate(state, by, child, agent, at, &grants).map_err(|denial| denial.item(item))?;
        grants.push(grant);
    }
    if encoded_len(&grants) > SPAWN_GRANTS_BYTES_MAX {
        return Err(Denial::new(Code::Malformed).rule("grants together"));
    }
    Ok(grants)
}

fn check_counts(state: &State, by: PrincipalId, index: u32) -> Result<(), Denial> {
    for up in state.grants.chain(index) {
        let node = state.grants.at(up);
        if let Scope::Agent(scope) = &node.grant.cap.scope
            && let Some(live) = scope.live
            && node.meter.live >= live
        {
            let denial = Denial::count(Code::Limit, Dim::Live, u64::from(live), u64::from(node.meter.live), 1);
            return Err(denial.at_grant(node.id));
        }
    }
    if state.agents.len() >= AGENTS_MAX {
        return Err(Denial::count(Code::AgentCap, Dim::Agents, AGENTS_MAX as u64, state.agents.len() as u64, 1));
    }
    let Some(parent) = state.agents.get(&by) else { return Ok(()) };
    if parent.depth >= AGENT_DEPTH_MAX {
        let depth = u64::from(parent.depth);
        return Err(Denial::count(Code::AgentCap, Dim::Depth, u64::from(AGENT_DEPTH_MAX), depth, 1));
    }
    if parent.live_children >= AGENT_CHILDREN_MAX {
        let children = u64::from(parent.live_children);
        return Err(Denial::count(Code::AgentCap, Dim::Children, u64::from(AGENT_CHILDREN_MAX), children, 1));
    }
    Ok(())
}

pub(crate) fn start(state: &State, by: PrincipalId, cmd: Option<Cmd>, asked: &StartAsked) -> Result<Answer, Denial> {
    let agent = find(state, asked.agent)?;
    if agent.parent != by && !has_right(cmd.as_ref()) {
        return Err(Denial::new(Code::NoAdmin).need("admin:#pause"));
    }
    must_run(state, by)?;
    if agent.state != AgentState::Spawned {
        return Err(not_from(agent));
    }
    not_held(state, asked.agent)?;
    let capped = !state.agents.contains_key(&agent.parent);
    let max_running = state.session.limits.as_ref().map_or(0, |limits| u32::from(limits.max_running));
    let limit = if capped { max_running.min(AGENTS_RUNNING_MAX) } else { AGENTS_RUNNING_MAX };
    let running = if capped { state.running_top } else { state.running };
    if running >= limit {
        return Err(Denial::count(Code::AgentCap, Dim::Agents, u64::from(limit), u64::from(running), 1));
    }
    Ok(Body::AgentStarted(AgentStarted { cmd, agent: asked.agent }).into())
}

pub(crate) fn pause(state: &State, by: PrincipalId, cmd: Option<Cmd>, asked: &PauseAsked) -> Result<Answer, Denial> {
    check_why(asked.why)?;
    let agent = find(state, asked.agent)?;
    if by != PrincipalId::NODE && !is_above(state, by, asked.agent) && !has_right(cmd.as_ref()) {
        return Err(Denial::new(Code::NoAdmin).need("admin:#pause"));
    }
    if agent.state != AgentState::Running {
        return Err(not_from(agent));
    }
    Ok(Body::AgentPaused(AgentPaused { cmd, agent: asked.agent, why: asked.why, reason: asked.reason }).into())
}

pub(crate) fn resume(state: &State, by: PrincipalId, cmd: Option<Cmd>, asked: &ResumeAsked) -> Result<Answer, Denial> {
    let denied = Denial::new(Code::NoAdmin).need("admin:#pause");
    let agent = find(state, asked.agent)?;
    let right = has_right(cmd.as_ref());
    if !is_above(state, by, asked.agent) && !right {
        return Err(denied);
    }
    if agent.state != AgentState::Paused {
        return Err(not_from(agent));
    }
    // What somebody else has paused, for a reason of their own, only they let go on.
    if agent.paused_by != Some(by) && !right {
        return Err(denied);
    }
    Ok(Body::AgentResumed(AgentResumed { cmd, agent: asked.agent }).into())
}

pub(crate) fn stop(state: &State, by: PrincipalId, cmd: Option<Cmd>, asked: &StopAsked) -> Result<Answer, Denial> {
    check_why(asked.why)?;
    let agent = find(state, asked.agent)?;
    if !is_above(state, by, asked.agent) && !has_right(cmd.as_ref()) {
        return Err(Denial::new(Code::NoAdmin).need("admin:#cancel"));
    }
    match agent.state {
        AgentState::Spawned | AgentState::Running | AgentState::Paused => {}
        AgentState::Stopping | AgentState::Ended => return Err(not_from(agent)),
    }
    Ok(Body::AgentStopping(AgentStopping { cmd, agent: asked.agent, why: asked.why, reason: asked.reason }).into())
}

pub(crate) fn end(state: &State, by: PrincipalId, cmd: Option<Cmd>, asked: &EndAsked) -> Result<Answer, Denial> {
    let agent = find(state, asked.agent)?;
    let own = by == asked.agent;
    let node = by == PrincipalId::NODE;
    let may = match asked.how {
        1 => own,
        2 => own || node,
        3 => node,
        _ => return Err(Denial::new(Code::Malformed).rule("how")),
    };
    if !may {
        return Err(Denial::new(Code::WrongKind));
    }
    if asked.code > END_CODE_MAX || (asked.how == 1) != (asked.code == 0) && asked.how != 3 {
        return Err(Denial::new(Code::Malformed).rule("code"));
    }
    let stops = asked.how == 3;
    let ends = match agent.state {
        AgentState::Ended => false,
        AgentState::Stopping => stops,
        // What stands below an agent that stops comes to the same end.
        AgentState::Spawned | AgentState::Running | AgentState::Paused if stops => state.is_stopping(asked.agent),
        AgentState::Running => true,
        // One that could never start is ended by the node, or its parent would wait for it for ever.
        AgentState::Spawned => node && asked.how == 2,
        AgentState::Paused => false,
    };
    if !ends {
        return Err(not_from(agent));
    }
    if own {
        not_held(state, asked.agent)?;
    }
    if agent.open_calls > 0 || agent.live_children > 0 {
        return Err(Denial::new(Code::ConditionNotMet).rule("a call or a child is open"));
    }
    if agent.open_tasks > 0 && agent.state == AgentState::Running && !stops {
        return Err(Denial::new(Code::ConditionNotMet).rule("a task is open"));
    }
    Ok(Body::AgentEnded(AgentEnded { cmd, agent: asked.agent, how: asked.how, code: asked.code }).into())
}

pub(crate) fn find(state: &State, agent: AgentId) -> Result<&Agent, Denial> {
    state.agents.get(&agent).ok_or(Denial::new(Code::Malformed).rule("no such agent"))
}

/// The refusal of a step that the state of an agent does not allow.
pub(crate) fn not_from(agent: &Agent) -> Denial {
    Denial::new(Code::IllegalTransition).rule(agent.state.name())
}

/// What somebody needs who is neither parent nor child of an agent.
pub(crate) fn need_of(agent: &Agent) -> Result<Capability, Denial> {
    reach(agent).map(Capability::of)
}

fn check_why(why: u8) -> Result<(), Denial> {
    if (1..=WHY_MAX).contains(&why) { Ok(()) } else { Err(Denial::new(Code::Malformed).rule("why")) }
}
