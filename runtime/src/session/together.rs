//! Agents of a plan in one session: what it begins with, and which of them is started when.

use std::collections::BTreeMap;

use toka_kernel::body::v1::{GrantTo, IssueAsked, StartAsked};
use toka_kernel::capability::Capability;
use toka_kernel::hash::{Context, derive};
use toka_kernel::ids::{AgentId, CommandId, Digest, GrantId, PrincipalId};
use toka_kernel::limits::GENESIS_GRANTS_MAX;
use toka_kernel::{AgentState, Ask, Command};

use super::{Node, RunError, Session, refused, root_grants};
use crate::agents::{self, EndCode};
use crate::orchestration::{Member, Phase, Plan, Planned, Step, next};

/// What the orchestrator may do: start the agents of the session, and spawn none.
const REACH: &str = "agent:*?live=0";

/// The root grants that running the agents of a plan takes: what their files ask for, each scope once with what all of
/// them may use up together, the right to spawn them, and the right to orchestrate them.
///
/// # Errors
/// [`RunError::Capability`] as of [`root_grants`], [`RunError::TooManyRoots`] for more than a genesis holds.
pub fn plan_grants(plan: &Plan, now_us: u64) -> Result<Vec<Capability>, RunError> {
    let mut merged: BTreeMap<String, Capability> = BTreeMap::new();
    let mut until = None;
    for planned in &plan.agents {
        let mut roots = root_grants(&planned.spec, now_us)?;
        // The right to spawn it: one right reaches all of them, however many they are.
        until = until.max(roots.pop().and_then(|spawn| spawn.exp_us));
        for mut root in roots {
            // One is handed on to the agent, and that one hands it on as far as it must.
            root.depth = root.depth.max(1);
            let key = scope_of(&root);
            match merged.get_mut(&key) {
                None => drop(merged.insert(key, root)),
                Some(known) => join(known, &root),
            }
        }
    }
    let all = Capability::parse(&format!("agent:*?live={}", plan.agents.len()));
    let mut all = all.map_err(|why| RunError::Capability { capability: "agent:*".to_owned(), why: why.to_string() })?;
    all.exp_us = until.into_iter().chain(merged.values().filter_map(|root| root.exp_us)).max();
    all.depth = 1;
    let roots: Vec<Capability> = merged.into_values().chain([all]).collect();
    if roots.len() > GENESIS_GRANTS_MAX { Err(RunError::TooManyRoots(roots.len())) } else { Ok(roots) }
}

/// A capability without what two of them can share.
fn scope_of(root: &Capability) -> String {
    let mut plain = root.clone();
    (plain.exp_us, plain.depth) = (None, 0);
    plain.limits.amounts = Default::default();
    plain.to_string()
}

/// Makes `known` large enough for both.
fn join(known: &mut Capability, other: &Capability) {
    known.exp_us = known.exp_us.max(other.exp_us);
    known.depth = known.depth.max(other.depth);
    for (amount, more) in known.limits.amounts.iter_mut().zip(other.limits.amounts) {
        *amount = amount.zip(more).map(|(amount, more)| amount.saturating_add(more));
    }
}

impl Session {
    /// Spawns the agents of a plan, those that are required before those that require them, and hands their start to the
    /// orchestrator.
    pub(super) fn spawn_plan(&mut self, node: &Node, plan: &Plan, seed: Digest, now_us: u64) -> Result<(), RunError> {
        let opener = node.opener();
        let id = |what: &str| CommandId::of(derive(Context::CommandId, &[&seed.0, what.as_bytes()]));
        // The right to all agents is the last root; what files ask for may reach some of them, and is for their own agents.
        let parent = self.held(opener).last().map(|(grant, _)| grant);
        let right = parent.unwrap_or_default();
        let mut known: BTreeMap<&str, AgentId> = BTreeMap::new();
        for planned in &plan.agents {
            let id = id(&format!("spawn {}", planned.spec.name()));
            let agent = self.spawn_planned(opener, right, id, planned, &known, now_us)?;
            known.insert(planned.spec.name(), agent);
        }
        let grant = GrantTo { parent, to: node.orchestrator(), cap: REACH.to_owned() };
        let event = self.commit(opener, id("orchestrator"), Ask::Grant(IssueAsked { grant }), &[])?;
        refused("the grant of the orchestrator", &event)
    }

    fn spawn_planned(
        &mut self,
        opener: PrincipalId,
        right: GrantId,
        id: CommandId,
        planned: &Planned,
        known: &BTreeMap<&str, AgentId>,
        now_us: u64,
    ) -> Result<AgentId, RunError> {
        let mut own = root_grants(&planned.spec, now_us)?;
        own.pop();
        let grants = own.into_iter().map(|mut cap| {
            cap.depth -= 1;
            // What the opener was asked for was a moment earlier.
            let key = scope_of(&cap);
            let above = self.held(opener).find(|(_, held)| scope_of(held) == key).and_then(|(_, held)| held.exp_us);
            cap.exp_us = cap.exp_us.into_iter().chain(above).min();
            self.child_grant(opener, &cap.to_string(), 0)
        });
        let grants = grants.collect();
        let required = planned.spec.agent().dependencies.required.keys();
        let requires = required.filter_map(|name| known.get(name.as_str()).copied()).collect();
        let event = self.ask_spawn_in(opener, id, &planned.spec, right, grants, (planned.phase.number(), requires))?;
        refused(&format!("spawning `{}`", planned.spec.name()), &event)?;
        Ok(PrincipalId(toka_kernel::ids::derived(self.id(), self.engine.state().head().seq, 0)))
    }

    /// Does what the orchestrator is to do now, until there is nothing.
    pub(super) fn orchestrate(&mut self) -> Result<(), RunError> {
        let Some(by) = self.orchestrator else { return Ok(()) };
        loop {
            let Some(under) = self.held(by).next().map(|(grant, _)| grant) else { return Ok(()) };
            let Some(step) = next(&self.members(), self.max_running) else { return Ok(()) };
            match step {
                Step::Start(agent) => {
                    self.orchestrator_asks(by, under, agent, Ask::StartAgent(StartAsked { agent }))?;
                }
                Step::Skip { agent, because } => {
                    let name = self.transcripts.get(because).map_or("?", |lane| lane.spec.name()).to_owned();
                    let detail = format!("it requires `{name}`, which has come to nothing");
                    self.whys.insert(agent, agents::Why { path: "dependencies".to_owned(), detail });
                    // The node ends what can never start.
                    self.end(PrincipalId::NODE, agent, false, EndCode::Dependency)?;
                }
            }
            self.fold_tail()?;
        }
    }

    fn orchestrator_asks(&mut self, by: PrincipalId, under: GrantId, agent: AgentId, ask: Ask) -> Result<(), RunError> {
        let id = CommandId::of(derive(Context::CommandId, &[&agent.0, &ask.kind().to_be_bytes(), b"orchestrator"]));
        let mut command = Command::new(id, self.engine.state().head().seq, ask, Vec::new());
        command.under = Some(under);
        let event = self.engine.commit(by, command, &[])?.event;
        refused("what the orchestrator asks", &event)
    }

    /// The agents of the plan as they stand, the pending tail included.
    fn members(&self) -> Vec<Member<'_>> {
        let lanes = self.transcripts.children(self.engine.state().opener());
        lanes
            .into_iter()
            .map(|(id, lane)| Member {
                id,
                agent: lane.spec.agent(),
                phase: Phase::from_number(lane.plan.phase).unwrap_or(Phase::ParallelDevelopment),
                requires: lane.plan.requires.clone(),
                state: self.engine.state().agent_state(id).unwrap_or(AgentState::Ended),
                completed: lane.ended.is_some_and(|ended| ended.completed),
            })
            .collect()
    }
}
