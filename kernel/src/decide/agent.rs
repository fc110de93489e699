//! Agents: spawn, start, end.

use crate::body::encoded_len;
use crate::body::v1::{AgentEnded, AgentSpawned, AgentStarted, Cmd, EndAsked, Grant, Plan, SpawnAsked, StartAsked};
use crate::budget::Vector;
use crate::capability::{ExactName, Scope};
use crate::decide::{Answer, call, grant};
use crate::denial::{Code, Denial, Dim};
use crate::event::Body;
use crate::ids::{AgentId, PrincipalId, TimeUs, derived};
use crate::limits::{
    AGENT_CHILDREN_MAX, AGENT_DEPTH_MAX, AGENTS_MAX, AGENTS_RUNNING_MAX, DIMENSIONS, SPAWN_GRANTS_BYTES_MAX,
};
use crate::state::{Agent, AgentState, State};

/// The highest end code of `docs/FORMAT.md`.
const END_CODE_MAX: u16 = 17;

/// What a spawn reserves. A grant that is over after an overrun lets nothing pass, not even this.
const NOTHING: Vector = [0; DIMENSIONS];

/// An agent asks for work only while it runs; others always may.
pub(crate) fn must_run(state: &State, by: PrincipalId) -> Result<(), Denial> {
    match state.agents.get(&by).map(|agent| agent.state) {
        None | Some(AgentState::Running) => not_paused(state, by),
        Some(AgentState::Spawned | AgentState::Ended) => Err(Denial::new(Code::IllegalTransition)),
    }
}

/// An agent goes on only when nobody wonders what it, or an agent above it, has done.
fn not_paused(state: &State, by: PrincipalId) -> Result<(), Denial> {
    let above = |agent: &&Agent| state.agents.get(&agent.parent);
    if std::iter::successors(state.agents.get(&by), above).any(|agent| agent.doubts > 0) {
        return Err(Denial::new(Code::AgentPaused).rule("an outcome is in doubt"));
    }
    Ok(())
}

pub(crate) fn spawn(
    state: &State,
    by: PrincipalId,
    cmd: Option<Cmd>,
    asked: &SpawnAsked,
    at: TimeUs,
) -> Result<Answer, Denial> {
    let spec = ExactName::parse(&asked.spec).map_err(|code| Denial::new(code).rule("spec"))?;
    check_plan(&asked.plan)?;
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

/// What of a plan this version keeps a promise about; the rest is refused rather than ignored.
fn check_plan(plan: &Plan) -> Result<(), Denial> {
    let malformed = |rule: &str| Err(Denial::new(Code::Malformed).rule(rule));
    if ExactName::parse(&plan.workstream).is_err() {
        return Err(Denial::new(Code::BadName).rule("plan.workstream"));
    }
    if !(1..=8).contains(&plan.phase) || !(1..=4).contains(&plan.then) {
        return malformed("plan.phase or plan.then");
    }
    let later = !plan.requires.is_empty()
        || plan.retry.is_some()
        || !plan.objectives.is_empty()
        || !plan.deliverables.is_empty()
        || !plan.milestones.is_empty()
        || plan.replaces.is_some();
    if later { malformed("plan: not built in these rules") } else { Ok(()) }
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
    if agent.parent != by && cmd.as_ref().is_none_or(|cmd| cmd.under.is_none()) {
        return Err(Denial::new(Code::NoAdmin).need("admin:#pause"));
    }
    must_run(state, by)?;
    if agent.state != AgentState::Spawned {
        return Err(Denial::new(Code::IllegalTransition).rule(agent.state.name()));
    }
    let capped = !state.agents.contains_key(&agent.parent);
    let max_running = state.session.limits.as_ref().map_or(0, |limits| u32::from(limits.max_running));
    let limit = if capped { max_running.min(AGENTS_RUNNING_MAX) } else { AGENTS_RUNNING_MAX };
    let running = if capped { state.running_top } else { state.running };
    if running >= limit {
        return Err(Denial::count(Code::AgentCap, Dim::Agents, u64::from(limit), u64::from(running), 1));
    }
    Ok(Body::AgentStarted(AgentStarted { cmd, agent: asked.agent }).into())
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
    // Nothing stops an agent in these rules, so nothing ends as stopped. One that could never start is ended by the node,
    // or its parent would wait for it for ever.
    let ends = match agent.state {
        AgentState::Running => asked.how != 3,
        AgentState::Spawned => node && asked.how == 2,
        AgentState::Ended => false,
    };
    if !ends {
        return Err(Denial::new(Code::IllegalTransition).rule(agent.state.name()));
    }
    if own {
        not_paused(state, by)?;
    }
    if agent.open_calls > 0 || agent.live_children > 0 {
        return Err(Denial::new(Code::ConditionNotMet).rule("a call or a child is open"));
    }
    Ok(Body::AgentEnded(AgentEnded { cmd, agent: asked.agent, how: asked.how, code: asked.code }).into())
}

fn find(state: &State, agent: AgentId) -> Result<&Agent, Denial> {
    state.agents.get(&agent).ok_or(Denial::new(Code::Malformed).rule("no such agent"))
}
