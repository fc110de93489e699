//! What the drivers of agents want, as commands: each names the grants that it goes by.

use serde_json::json;
use toka_kernel::body::v1::{CallAsked, GrantAsked, Plan, SpawnAsked, StartAsked};
use toka_kernel::capability::{Capability, ExactName, Scope};
use toka_kernel::hash::{Context, derive};
use toka_kernel::ids::{AgentId, CommandId, Digest, GrantId, PrincipalId};
use toka_kernel::{Ask, Body, Code, Command, Event};
use toka_tools::prepare;

use super::roots::{is_named, tree_depth};
use super::{RunError, Session};
use crate::agents::{self, AgentSpec, DRIVER_VERSION, EndCode};
use crate::engine::Committed;
use crate::executor::Tool;

impl Session {
    pub(super) fn ask(&mut self, agent: AgentId, ask: agents::Ask) -> Result<(), RunError> {
        let id = ask.id();
        match ask {
            agents::Ask::Call { tool, arguments, path, .. } => self.call(agent, id, &tool, &arguments, path),
            agents::Ask::Spawn { spec, grants, .. } => self.spawn(agent, id, &spec, &grants),
            agents::Ask::Start { agent: child, .. } => self.start(agent, id, child),
        }
    }

    /// Starts a child. One that may not start is ended at once, or its parent would wait for it for ever.
    pub(super) fn start(&mut self, by: AgentId, id: CommandId, child: AgentId) -> Result<(), RunError> {
        let event = self.commit(by, id, Ask::StartAgent(StartAsked { agent: child }), &[])?;
        if let Body::Refused(refused, _) = &event.body {
            let limit = Code::from_number(refused.code).is_some_and(Code::is_limit);
            return self.end(PrincipalId::NODE, child, false, if limit { EndCode::Budget } else { EndCode::Call });
        }
        Ok(())
    }

    /// Prepares a call and asks for it. What preparing finds wrong is asked all the same, with the code it can only be
    /// refused with, so that a bad request is an event too.
    pub(super) fn call(
        &mut self,
        agent: AgentId,
        id: CommandId,
        name: &str,
        arguments: &serde_json::Value,
        path: String,
    ) -> Result<(), RunError> {
        let Some(lane) = self.transcripts.get(agent) else { return Ok(()) };
        let agent_spec = lane.spec.agent();
        if lane.calls >= agent_spec.budget.calls {
            let detail = format!("its budget of {} calls is used up", agent_spec.budget.calls);
            self.whys.insert(agent, agents::Why { path, detail });
            return self.end(agent, agent, false, EndCode::Budget);
        }
        let offered = agent_spec.tools.iter().any(|pattern| is_named(pattern, name));
        self.ask_call(agent, id, name, arguments, offered).map(drop)
    }

    /// Prepares a call of a tool that is or is not offered to its agent, and asks for it.
    pub(super) fn ask_call(
        &mut self,
        agent: AgentId,
        id: CommandId,
        name: &str,
        arguments: &serde_json::Value,
        offered: bool,
    ) -> Result<Committed, RunError> {
        let tool = self.tools.iter().find(|tool| tool.spec().name == name && offered).cloned();
        let digest = self.engine.state().bound_digest(name).unwrap_or_default();
        let (arguments, facts, extra, unfit, detail) = match &tool {
            None => (arguments.to_string().into_bytes(), Vec::new(), true, Some(Code::UnknownTool), None),
            Some(tool) => match prepare(tool.spec(), &arguments.to_string()) {
                Ok(ready) => (ready.arguments, ready.facts, ready.extra, None, None),
                Err(error) => {
                    let detail = json!({ "pointer": error.pointer, "rule": error.rule.to_string() }).to_string();
                    let bytes = arguments.to_string().into_bytes();
                    (bytes, Vec::new(), true, Some(Code::BadArguments), Some(detail.into_bytes()))
                }
            },
        };
        let (grant, need_grants) = match (&tool, unfit) {
            (Some(tool), None) => self.name_grants(agent, tool, digest, &facts, extra),
            (Some(_) | None, _) => (GrantId::ZERO, Vec::new()),
        };
        let asked = CallAsked {
            tool: name.to_owned(),
            digest,
            grant,
            need_grants,
            facts,
            extra,
            args: 0,
            asked: Vec::new(),
            narrow: Vec::new(),
            task: None,
            parent: None,
            unfit: unfit.map(Code::number),
            detail: detail.is_some().then_some(1),
        };
        let blobs: Vec<Vec<u8>> = std::iter::once(arguments).chain(detail).collect();
        let as_of = self.engine.state().head().seq;
        Ok(self.engine.commit(agent, Command::new(id, as_of, Ask::Call(Box::new(asked)), Vec::new()), &blobs)?)
    }

    /// One grant per need: the oldest that covers it, else one that comes near, so that the refusal says what is missing.
    pub(super) fn name_grants(
        &self,
        agent: AgentId,
        tool: &Tool,
        digest: Digest,
        facts: &[toka_kernel::facts::Fact],
        extra: bool,
    ) -> (GrantId, Vec<GrantId>) {
        let needs = self.engine.state().needs_of(&tool.spec().name, digest, facts, extra).unwrap_or_default();
        let mut named = needs.iter().map(|need| self.covering(agent, need));
        let first = named.next().unwrap_or_default();
        (first, named.collect())
    }

    pub(super) fn covering(&self, agent: AgentId, need: &Scope) -> GrantId {
        let held = || self.held(agent).filter(|row| same_kind(&row.1.scope, need));
        let covers = held().find(|(_, cap)| need.within(&cap.scope).is_ok());
        covers.or_else(|| held().next()).map(|(id, _)| id).unwrap_or_default()
    }

    /// The grants of a principal, those of the tail included.
    pub(super) fn held(&self, subject: PrincipalId) -> impl Iterator<Item = (GrantId, &Capability)> {
        self.engine.state().grants_of(subject)
    }

    pub(super) fn spawn(&mut self, by: AgentId, id: CommandId, name: &str, texts: &[String]) -> Result<(), RunError> {
        let Some(spec) = self.transcripts.get(by).and_then(|lane| lane.spec.child(name)) else {
            let what = format!("spawn {name}");
            return Err(RunError::Refused { what, code: Code::BadName, need: None });
        };
        let below = tree_depth(&spec, 0)?.saturating_sub(1);
        let grants = texts.iter().map(|text| self.child_grant(by, text, below)).collect();
        let need = ExactName::parse(name).map(|name| Scope::agent_need(&name, 1));
        let grant = need.map(|need| self.covering(by, &need)).unwrap_or_default();
        self.ask_spawn(by, id, &spec, grant, grants).map(drop)
    }

    /// Names the parent of a grant that a spawn step asks for: the oldest held grant that covers it.
    pub(super) fn child_grant(&self, by: AgentId, text: &str, below: u8) -> GrantAsked {
        let asked = |parent, cap: String| GrantAsked { parent, cap };
        let Ok(mut cap) = Capability::parse(text) else { return asked(None, text.to_owned()) };
        cap.depth = cap.depth.max(below);
        let covers = |parent: &Capability| {
            let mut filled = cap.clone();
            filled.fill_from(parent);
            filled.attenuates(parent).is_ok() && parent.depth > cap.depth
        };
        let held = || self.held(by).filter(|(_, parent)| same_kind(&parent.scope, &cap.scope));
        let parent = held().find(|(_, parent)| covers(parent)).or_else(|| held().next());
        asked(parent.map(|(id, _)| id), cap.to_string())
    }

    pub(super) fn ask_spawn(
        &mut self,
        by: PrincipalId,
        id: CommandId,
        spec: &AgentSpec,
        grant: GrantId,
        grants: Vec<GrantAsked>,
    ) -> Result<Event, RunError> {
        let agent = spec.agent();
        let asked = SpawnAsked {
            spec: spec.name().to_owned(),
            text: 0,
            spec_digest: spec.digest(),
            driver: DRIVER_VERSION,
            // Grown from the session and the command, so that asking again asks the same.
            seed: derive(Context::Id, &[&self.engine.session().0, &id.0]),
            grant,
            need_grants: Vec::new(),
            asked: Vec::new(),
            narrow: Vec::new(),
            grants,
            dropped: Vec::new(),
            plan: Plan {
                workstream: agent.workstream.clone().unwrap_or_else(|| "main".to_owned()),
                phase: 1,
                requires: Vec::new(),
                then: agent.on_failure.then.number(),
                retry: None,
                essential: agent.on_failure.essential,
                objectives: Vec::new(),
                deliverables: Vec::new(),
                milestones: Vec::new(),
                replaces: None,
            },
        };
        self.commit(by, id, Ask::SpawnAgent(Box::new(asked)), &[spec.encode()])
    }
}

fn same_kind(a: &Scope, b: &Scope) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}
