//! Several agents in one session: which of them may start, in which order, and which never will.
//!
//! [`plan`] is made of the agent files before anything runs and gives each agent its phase; [`next`] says from the states
//! of the agents what is to be done now. Both are functions of what they are given, so that an orchestrator that was
//! killed goes on as another begins. Nothing here runs a tool or asks a model.

use std::collections::{BTreeMap, BTreeSet};

use toka_kernel::AgentState;
use toka_kernel::hash::{Context, derive};
use toka_kernel::ids::{AgentId, PrincipalId};

use crate::agents::{Agent, AgentSpec, Priority, Then};

/// How many agents of a session run at a time where nothing is said.
pub const MAX_RUNNING: u16 = 10;
/// How many agents may wait for each other in a row.
pub const WAVES_MAX: usize = 16;
/// The most agents of a folder.
pub const AGENTS_MAX: usize = 1_000;

/// The part of the work that an agent belongs to. One begins when everything of those before it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Agents of priority critical, one at a time.
    CriticalInfrastructure = 2,
    /// Agents of priority high.
    FoundationServices = 3,
    /// All others.
    ParallelDevelopment = 4,
}

impl Phase {
    fn of(priority: Priority) -> Phase {
        match priority {
            Priority::Critical => Phase::CriticalInfrastructure,
            Priority::High => Phase::FoundationServices,
            Priority::Medium | Priority::Low => Phase::ParallelDevelopment,
        }
    }

    /// The number that stands in a plan.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The phase with this number.
    pub fn from_number(number: u8) -> Option<Phase> {
        [Phase::CriticalInfrastructure, Phase::FoundationServices, Phase::ParallelDevelopment]
            .into_iter()
            .find(|phase| phase.number() == number)
    }

    /// The name people see.
    pub fn name(self) -> &'static str {
        match self {
            Phase::CriticalInfrastructure => "critical-infrastructure",
            Phase::FoundationServices => "foundation-services",
            Phase::ParallelDevelopment => "parallel-development",
        }
    }
}

/// The agents of a folder in the order in which they are spawned: every one after those it requires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which they start one at a time, when each completes.
    pub agents: Vec<Planned>,
}

/// An agent with its place in a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// What it is.
    pub spec: AgentSpec,
    /// When it may run.
    pub phase: Phase,
    /// The agent that requires it and because of which it runs in an earlier phase than its priority says.
    pub earlier_for: Option<String>,
    /// How many agents stand before it in the longest row of requirements: 0 for one that requires none.
    pub wave: usize,
}

/// Why agents cannot be put into an order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// An agent that is required is not there.
    #[error("the agent `{agent}` depends on `{missing}`, and no agent file of the folder has that name")]
    Unknown {
        /// Who depends.
        agent: String,
        /// On whom.
        missing: String,
    },
    /// Agents that require each other.
    #[error("agents require each other: {}", .0.join(" -> "))]
    Cycle(Vec<String>),
    /// Too many agents in a row.
    #[error("more than {WAVES_MAX} agents wait for each other in a row, up to `{0}`")]
    TooDeep(String),
    /// Too many agents.
    #[error("{0} agents, at most {AGENTS_MAX} are allowed")]
    TooMany(usize),
}

/// Puts agents into an order.
///
/// # Errors
/// Everything that stands in the way, in the order of the names.
pub fn plan(specs: Vec<AgentSpec>) -> Result<Plan, Vec<PlanError>> {
    if specs.len() > AGENTS_MAX {
        return Err(vec![PlanError::TooMany(specs.len())]);
    }
    let by_name: BTreeMap<String, AgentSpec> = specs.into_iter().map(|spec| (spec.name().to_owned(), spec)).collect();
    let mut errors = Vec::new();
    for (name, spec) in &by_name {
        let dependencies = &spec.agent().dependencies;
        let named = dependencies.required.keys().chain(dependencies.optional.keys());
        errors.extend(
            named
                .filter(|other| !by_name.contains_key(*other))
                .map(|missing| PlanError::Unknown { agent: name.clone(), missing: missing.clone() }),
        );
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let order = in_order(&by_name).map_err(|cycle| vec![PlanError::Cycle(cycle)])?;
    let mut waves: BTreeMap<&str, usize> = BTreeMap::new();
    for name in &order {
        let required = required(&by_name[name]);
        let wave = required.filter_map(|other| waves.get(other).map(|wave| wave + 1)).max().unwrap_or(0);
        if wave >= WAVES_MAX {
            return Err(vec![PlanError::TooDeep(name.clone())]);
        }
        waves.insert(name, wave);
    }
    let phases = phases(&by_name, &order);
    let agents: Vec<Planned> = order
        .iter()
        .map(|name| {
            let (phase, earlier_for) = phases[name.as_str()].clone();
            Planned { spec: by_name[name].clone(), phase, earlier_for, wave: waves[name.as_str()] }
        })
        .collect();
    Ok(Plan { agents: as_they_start(agents) })
}

/// The agents in the order in which they start one at a time, when each completes.
fn as_they_start(mut agents: Vec<Planned>) -> Vec<Planned> {
    let id = |name: &str| PrincipalId(derive(Context::Id, &[name.as_bytes()]).0);
    let member = |planned: &'_ Planned| (id(planned.spec.name()), AgentState::Spawned);
    let mut states: BTreeMap<AgentId, AgentState> = agents.iter().map(member).collect();
    let mut places: BTreeMap<AgentId, usize> = BTreeMap::new();
    loop {
        let members: Vec<Member<'_>> = agents
            .iter()
            .map(|planned| Member {
                id: id(planned.spec.name()),
                agent: planned.spec.agent(),
                phase: planned.phase,
                requires: required(&planned.spec).map(id).collect(),
                state: states[&id(planned.spec.name())],
                completed: true,
            })
            .collect();
        let Some(Step::Start(agent)) = next(&members, 1) else { break };
        places.insert(agent, places.len());
        states.insert(agent, AgentState::Ended);
    }
    agents.sort_by_cached_key(|planned| places.get(&id(planned.spec.name())).copied().unwrap_or(usize::MAX));
    agents
}

fn required(spec: &AgentSpec) -> impl Iterator<Item = &str> {
    spec.agent().dependencies.required.keys().map(String::as_str)
}

/// The names, each behind those that it requires; or a circle.
fn in_order(agents: &BTreeMap<String, AgentSpec>) -> Result<Vec<String>, Vec<String>> {
    let mut order: Vec<String> = Vec::new();
    let mut placed = BTreeSet::new();
    while order.len() < agents.len() {
        let free = |(name, spec): &(&String, &AgentSpec)| {
            !placed.contains(*name) && required(spec).all(|other| placed.contains(other))
        };
        let next: Vec<String> = agents.iter().filter(free).map(|(name, _)| name.clone()).collect();
        if next.is_empty() {
            return Err(circle(agents, &placed));
        }
        placed.extend(next.iter().cloned());
        order.extend(next);
    }
    Ok(order)
}

/// A circle among the agents that could not be placed, from its least name back to it.
fn circle(agents: &BTreeMap<String, AgentSpec>, placed: &BTreeSet<String>) -> Vec<String> {
    let Some(mut at) = agents.keys().find(|name| !placed.contains(*name)) else { return Vec::new() };
    let mut path: Vec<&String> = Vec::new();
    while !path.contains(&at) {
        path.push(at);
        let Some(next) = agents[at].agent().dependencies.required.keys().find(|other| !placed.contains(*other)) else {
            break;
        };
        at = next;
    }
    let begins = path.iter().position(|name| *name == at).unwrap_or(0);
    let mut circle: Vec<String> = path[begins..].iter().map(|name| (*name).clone()).collect();
    let least = circle.iter().enumerate().min_by_key(|(_, name)| (*name).clone()).map_or(0, |(index, _)| index);
    circle.rotate_left(least);
    circle.extend(circle.first().cloned());
    circle
}

/// The phase of each agent: its own, or that of the earliest agent that requires it, since that one would wait for it for
/// ever otherwise.
fn phases<'a>(
    agents: &'a BTreeMap<String, AgentSpec>,
    order: &'a [String],
) -> BTreeMap<&'a str, (Phase, Option<String>)> {
    let mut phases: BTreeMap<&str, (Phase, Option<String>)> =
        agents.iter().map(|(name, spec)| (name.as_str(), (Phase::of(spec.agent().priority), None))).collect();
    for name in order.iter().rev() {
        let phase = phases[name.as_str()].0;
        for other in required(&agents[name]) {
            if let Some(known) = phases.get_mut(other).filter(|known| phase < known.0) {
                *known = (phase, Some(name.clone()));
            }
        }
    }
    phases
}

/// Where an agent of the session stands.
#[derive(Clone, Debug)]
pub struct Member<'a> {
    /// The agent.
    pub id: AgentId,
    /// What its file says.
    pub agent: &'a Agent,
    /// When it may run.
    pub phase: Phase,
    /// The agents that it requires.
    pub requires: Vec<AgentId>,
    /// Its state.
    pub state: AgentState,
    /// Whether it has completed; it means nothing before it has ended.
    pub completed: bool,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Start an agent.
    Start(AgentId),
    /// Let an agent never start: one that it requires has come to nothing.
    Skip {
        /// The agent.
        agent: AgentId,
        /// Because of which.
        because: AgentId,
    },
}

/// What is to be done next, if anything is. It is to be asked again when that is done, and whenever an agent has ended.
pub fn next(members: &[Member<'_>], max_running: u16) -> Option<Step> {
    let waiting = || members.iter().filter(|member| member.state == AgentState::Spawned);
    let of = |id: &AgentId| members.iter().find(|member| member.id == *id);
    let skip = waiting().find_map(|member| {
        let because = member.requires.iter().find(|id| of(id).is_some_and(came_to_nothing))?;
        Some(Step::Skip { agent: member.id, because: *because })
    });
    if skip.is_some() {
        return skip;
    }
    let open = waiting().map(|member| member.phase).min()?;
    let busy = |member: &&Member<'_>| !matches!(member.state, AgentState::Spawned | AgentState::Ended);
    let running = members.iter().filter(busy).count();
    if members.iter().filter(busy).any(|member| member.phase < open) {
        return None;
    }
    let most = if open == Phase::CriticalInfrastructure { 1 } else { usize::from(max_running) };
    if running >= most {
        return None;
    }
    let mut ready: Vec<&Member<'_>> = waiting()
        .filter(|member| member.phase == open)
        .filter(|member| member.requires.iter().all(|id| of(id).is_none_or(has_come_to_an_end)))
        .collect();
    ready.sort_by_key(|member| (member.agent.priority, member.agent.name.as_str()));
    let hoped_for = |member: &&&Member<'_>| {
        !ready.iter().any(|other| member.agent.dependencies.optional.contains_key(&other.agent.name))
    };
    let first = ready.iter().find(hoped_for).or(ready.first())?;
    Some(Step::Start(first.id))
}

/// Whether those that require an agent may go on.
fn has_come_to_an_end(member: &Member<'_>) -> bool {
    member.state == AgentState::Ended && (member.completed || member.agent.on_failure.then == Then::Continue)
}

/// Whether those that require an agent never start.
fn came_to_nothing(member: &Member<'_>) -> bool {
    member.state == AgentState::Ended && !has_come_to_an_end(member)
}
