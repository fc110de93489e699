//! What the drivers of agents want, as commands: each names the grants that it goes by.

use serde_json::json;
use toka_kernel::Dim;
use toka_kernel::body::v1::{
    CallAsked, CompleteTaskAsked, FailTaskAsked, GrantAsked, PauseAsked, Plan, ResumeAsked, Retry, ScheduleAsked,
    SendAsked, SpawnAsked, StartAsked, StartTaskAsked, StopAsked, TakeAsked,
};
use toka_kernel::capability::{Capability, ExactName, Limits, NamePat, Scope};
use toka_kernel::facts::extract;
use toka_kernel::hash::{Context, derive};
use toka_kernel::ids::{AgentId, CommandId, Digest, GrantId, PrincipalId, TaskId};
use toka_kernel::limits::{TASK_TIMEOUT_US_MAX, TASK_TIMEOUT_US_MIN};
use toka_kernel::tool::{Model, RunKind};
use toka_kernel::{Ask, Body, Code, Command, Event};
use toka_tools::{CODE_PREFIX, code_types, prepare};

use super::roots::{is_named, model_grants, models_of, tree_depth};
use super::{RunError, Session};
use crate::agents::{self, Addressee, AgentSpec, Control, DRIVER_VERSION, EndCode, Unfit};
use crate::engine::{CommitError, Committed};
use crate::executor::{Asked, Tool};
use crate::gateway::{Request, RequestError};
use crate::sandbox::{TOOLCHAIN_FOLDERS, find_toolchain};

/// The phase of an agent that is in no plan.
const ALONE: u8 = 1;
/// The one attempt of a task that is not tried again.
const FIRST_ATTEMPT: u16 = 1;
/// Why an agent is paused or stopped: an agent above it says so.
const BY_AN_ANCESTOR: u8 = 2;

/// A call that somebody wants.
pub(super) struct Wanted<'w> {
    /// The name of the tool.
    pub(super) tool: &'w str,
    /// The arguments as text.
    pub(super) arguments: &'w str,
    /// Why it can only be refused, where that is known beforehand.
    pub(super) unfit: Option<Unfit>,
}

impl Session {
    /// Asks for what a driver wants. What is too large to be recorded as what it is, is refused as a call of its word, so
    /// that nothing that an agent or its model thinks up can end the session.
    pub(super) fn ask(&mut self, agent: AgentId, ask: agents::Ask) -> Result<(), RunError> {
        let (id, word) = (ask.id(), ask.word().to_owned());
        match self.ask_as_it_is(agent, ask) {
            Err(RunError::Commit(CommitError::NoCommand(why))) => {
                let unfit = unfit(Code::BadArguments, why.to_string());
                self.refuse_call(agent, id, &word, Vec::new(), unfit).map(drop)
            }
            done => done,
        }
    }

    fn ask_as_it_is(&mut self, agent: AgentId, ask: agents::Ask) -> Result<(), RunError> {
        let id = ask.id();
        match ask {
            agents::Ask::Call { tool, arguments, path, unfit, .. } => {
                self.call(agent, id, &Wanted { tool: &tool, arguments: &arguments, unfit }, path)
            }
            agents::Ask::Model { ordinal, request, .. } => self.ask_model(agent, id, ordinal, &request),
            agents::Ask::Spawn { spec, grants, .. } => self.spawn(agent, id, &spec, &grants),
            agents::Ask::Start { agent: child, .. } => self.start(agent, id, child),
            agents::Ask::Schedule { name, text, .. } => self.schedule(agent, id, name, text),
            agents::Ask::Begin { task, .. } => {
                let asked = StartTaskAsked { task, attempt: FIRST_ATTEMPT };
                self.commit(agent, id, Ask::StartTask(asked), &[]).map(drop)
            }
            agents::Ask::EndTask { task, result, .. } => self.end_task(agent, id, task, result),
            agents::Ask::Send { to, text, .. } => self.send(agent, id, &to, text),
            agents::Ask::Take { message, .. } => {
                self.commit(agent, id, Ask::TakeMessage(TakeAsked { message }), &[]).map(drop)
            }
            agents::Ask::Control { agent: below, control, .. } => self.steer(agent, id, below, control),
        }
    }

    fn schedule(&mut self, agent: AgentId, id: CommandId, name: String, text: String) -> Result<(), RunError> {
        let Some(lane) = self.transcripts.get(agent) else { return Ok(()) };
        let spec = lane.spec.agent();
        let asked = ScheduleAsked {
            agent,
            name,
            text: (!text.is_empty()).then_some(0),
            requires: Vec::new(),
            priority: spec.priority.number(),
            timeout_us: spec.budget.wall_us.clamp(TASK_TIMEOUT_US_MIN, TASK_TIMEOUT_US_MAX),
            retry: Retry { max: 1, base: 0, cap: 0 },
        };
        let text = Some(text.into_bytes()).filter(|text| !text.is_empty());
        let blobs: Vec<Vec<u8>> = text.into_iter().collect();
        self.commit(agent, id, Ask::ScheduleTask(asked), &blobs).map(drop)
    }

    fn end_task(
        &mut self,
        agent: AgentId,
        id: CommandId,
        task: TaskId,
        result: Result<String, EndCode>,
    ) -> Result<(), RunError> {
        let (ask, blobs) = match result {
            Ok(result) => {
                let asked = CompleteTaskAsked { task, attempt: FIRST_ATTEMPT, result: Some(0) };
                (Ask::CompleteTask(asked), vec![result.into_bytes()])
            }
            Err(code) => {
                let code = code.number();
                (Ask::FailTask(FailTaskAsked { task, attempt: FIRST_ATTEMPT, code, retryable: false }), Vec::new())
            }
        };
        self.commit(agent, id, ask, &blobs).map(drop)
    }

    /// Sends a message, under the grant that reaches its receiver where it is neither parent nor child.
    fn send(&mut self, by: AgentId, id: CommandId, to: &Addressee, text: String) -> Result<(), RunError> {
        let views = self.engine.state();
        let receiver = match to {
            Addressee::Parent => self.transcripts.parent(by),
            Addressee::Agent(agent) => Some(*agent),
            Addressee::Named(name) => self.transcripts.named(name),
        };
        // An agent that nobody knows is refused like any other that is not there.
        let to = receiver.unwrap_or_default();
        let stranger = self.transcripts.parent(to) != Some(by) && self.transcripts.parent(by) != Some(to);
        let reach = self.transcripts.get(to).and_then(|lane| ExactName::parse(lane.spec.name()).ok());
        let reach = reach.filter(|_| stranger).map(|name| Scope::agent_need(&name, 0));
        let head = views.head().seq;
        let under = reach.map(|need| self.covering(by, &need)).filter(|grant| *grant != GrantId::ZERO);
        let ask = Ask::SendMessage(SendAsked { to, content: 0, reply_to: None });
        let mut command = Command::new(id, head, ask, Vec::new());
        command.under = under;
        self.engine.commit(by, command, &[text.into_bytes()])?;
        Ok(())
    }

    fn steer(&mut self, by: AgentId, id: CommandId, agent: AgentId, control: Control) -> Result<(), RunError> {
        let ask = match control {
            Control::Pause => Ask::PauseAgent(PauseAsked { agent, why: BY_AN_ANCESTOR, reason: None }),
            Control::Resume => Ask::ResumeAgent(ResumeAsked { agent }),
            Control::Stop => Ask::StopAgent(StopAsked { agent, why: BY_AN_ANCESTOR, reason: None }),
        };
        self.commit(by, id, ask, &[]).map(drop)
    }

    /// Asks for the call of a model. What cannot be sent is asked all the same, so that it is an event too.
    fn ask_model(&mut self, agent: AgentId, id: CommandId, ordinal: u64, request: &Request) -> Result<(), RunError> {
        let Some(lane) = self.transcripts.get(agent) else { return Ok(()) };
        let Some(program) = &lane.spec.agent().model else { return Ok(()) };
        let (name, lane, max_output_tokens) =
            (program.tool_name(), lane.spec.name().to_owned(), program.max_output_tokens);
        let found = self.tools.iter().find(|tool| tool.spec().name == name).cloned();
        let refuse = |session: &mut Session, code: Code, why: String| {
            session.refuse_call(agent, id, &name, Vec::new(), unfit(code, why)).map(drop)
        };
        let Some(Tool::Model(model)) = found else {
            return refuse(self, Code::UnknownTool, "this node has no such model".to_owned());
        };
        let body = match model.encode(request) {
            Ok(body) => body,
            Err(error @ RequestError::UnsupportedPart { .. }) => {
                return refuse(self, Code::UnsupportedPart, error.to_string());
            }
            Err(error) => return refuse(self, Code::BadArguments, error.to_string()),
        };
        let kept = self.conversations.keep(agent, &body);
        let arguments = model.arguments(&Asked { lane, ordinal, max_output_tokens }, &kept);
        let specs = model.spec().fact_specs().unwrap_or_default();
        let Ok(extracted) = extract(&arguments, &specs) else {
            return refuse(self, Code::BadArguments, "the request is too large".to_owned());
        };
        let digest = self.engine.state().bound_digest(&name).unwrap_or_default();
        let tool = Tool::Model(model);
        let (grant, need_grants) = self.name_grants(agent, &tool, digest, &extracted.facts, extracted.extra);
        let (facts, extra) = (extracted.facts, extracted.extra);
        let asked = CallAsked { grant, need_grants, facts, extra, ..bare_call(name, digest) };
        let pieces = kept.pieces.into_iter().map(|piece| piece.bytes);
        let blobs: Vec<Vec<u8>> = std::iter::once(arguments).chain(pieces).collect();
        let as_of = self.engine.state().head().seq;
        let command = Command::new(id, as_of, Ask::Call(Box::new(asked)), Vec::new());
        let committed = self.engine.commit(agent, command, &blobs)?;
        let engine = &self.engine;
        let noted = self.conversations.note(&committed.event.blobs, &|commitment| engine.blob(commitment));
        Ok(noted.map_err(CommitError::from)?)
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
        wanted: &Wanted<'_>,
        path: String,
    ) -> Result<(), RunError> {
        let Some(lane) = self.transcripts.get(agent) else { return Ok(()) };
        let agent_spec = lane.spec.agent();
        // The loop around a model counts by itself, since it has a task to end.
        if agent_spec.model.is_none() && lane.calls >= agent_spec.budget.calls {
            let detail = format!("its budget of {} calls is used up", agent_spec.budget.calls);
            self.whys.insert(agent, agents::Why { path, detail });
            return self.end(agent, agent, false, EndCode::Budget);
        }
        let offered = agent_spec.tools.iter().any(|pattern| is_named(pattern, wanted.tool));
        self.ask_call(agent, id, wanted, offered).map(drop)
    }

    /// Prepares a call of a tool that is or is not offered to its agent, and asks for it.
    pub(super) fn ask_call(
        &mut self,
        agent: AgentId,
        id: CommandId,
        wanted: &Wanted<'_>,
        offered: bool,
    ) -> Result<Committed, RunError> {
        let (name, text) = (wanted.tool, wanted.arguments);
        let refuse =
            |session: &mut Session, unfit| session.refuse_call(agent, id, name, text.as_bytes().to_vec(), unfit);
        if let Some(unfit) = &wanted.unfit {
            return refuse(self, unfit.clone());
        }
        let known = |tool: &&Tool| tool.spec().name == name && offered && !matches!(tool, Tool::Model(_));
        let Some(tool) = self.tools.iter().find(known).cloned() else {
            return refuse(
                self,
                match unsupported_type(name) {
                    Some(why) => unfit(Code::UnsupportedCodeType, why),
                    None => Unfit { code: Code::UnknownTool, detail: None },
                },
            );
        };
        if let Some(why) = self.cannot_run(&tool) {
            return refuse(self, unfit(Code::UnsupportedCodeType, why));
        }
        let ready = match prepare(tool.spec(), text) {
            Ok(ready) => ready,
            Err(error) => {
                let code = if error.code == Code::UnsupportedCodeType { error.code } else { Code::BadArguments };
                return refuse(self, Unfit { code, detail: Some(error.detail().to_string()) });
            }
        };
        let digest = self.engine.state().bound_digest(name).unwrap_or_default();
        let (grant, need_grants) = self.name_grants(agent, &tool, digest, &ready.facts, ready.extra);
        let (facts, extra) = (ready.facts, ready.extra);
        let asked = CallAsked { grant, need_grants, facts, extra, ..bare_call(name.to_owned(), digest) };
        let as_of = self.engine.state().head().seq;
        let command = Command::new(id, as_of, Ask::Call(Box::new(asked)), Vec::new());
        Ok(self.engine.commit(agent, command, &[ready.arguments])?)
    }

    /// Asks for a call that can only be refused.
    fn refuse_call(
        &mut self,
        agent: AgentId,
        id: CommandId,
        name: &str,
        arguments: Vec<u8>,
        unfit: Unfit,
    ) -> Result<Committed, RunError> {
        let digest = self.engine.state().bound_digest(name).unwrap_or_default();
        let asked = CallAsked {
            unfit: Some(unfit.code.number()),
            detail: unfit.detail.is_some().then_some(1),
            ..bare_call(name.to_owned(), digest)
        };
        let blobs: Vec<Vec<u8>> = std::iter::once(arguments).chain(unfit.detail.map(String::into_bytes)).collect();
        let as_of = self.engine.state().head().seq;
        let command = Command::new(id, as_of, Ask::Call(Box::new(asked)), Vec::new());
        Ok(self.engine.commit(agent, command, &blobs)?)
    }

    /// Why code cannot be run on this machine; nothing for other tools, whose calls end with
    /// an outcome that says it.
    fn cannot_run(&self, tool: &Tool) -> Option<String> {
        let spec = tool.spec();
        let run = spec.run.as_ref().filter(|_| spec.model == Model::Code.number())?;
        if let Some(toolchain) = run.toolchain.as_deref().filter(|name| find_toolchain(name).is_none()) {
            let folders = TOOLCHAIN_FOLDERS.join(", ");
            return Some(format!("`{toolchain}` is in none of {folders}: install it there"));
        }
        let guest = run.kind == RunKind::Wasm.number();
        let worker = self.launcher.as_ref().is_some_and(|launcher| launcher.has_worker());
        (guest && !worker).then(|| "this node has no `toka-wasm`: put it beside `toka`".to_owned())
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
        let texts = texts.iter().cloned().chain(self.model_grants(by, &spec, texts));
        let grants = texts.collect::<Vec<_>>().iter().map(|text| self.child_grant(by, text, below)).collect();
        let need = ExactName::parse(name).map(|name| Scope::agent_need(&name, 1));
        let grant = need.map(|need| self.covering(by, &need)).unwrap_or_default();
        self.ask_spawn(by, id, &spec, grant, grants).map(drop)
    }

    /// What an agent and those below it need to ask their models: within its own budget, and within what its parent has.
    fn model_grants(&self, by: AgentId, spec: &AgentSpec, texts: &[String]) -> Vec<String> {
        let budget = spec.agent().budget;
        let given: Vec<Scope> = texts.iter().filter_map(|text| Some(Capability::parse(text).ok()?.scope)).collect();
        let mut grants: Vec<String> = Vec::new();
        for model in &models_of(spec) {
            let scope = ExactName::parse(&model.capability_name()).map(|name| Scope::Model(NamePat::Exact(name)));
            let above = scope.ok().and_then(|scope| {
                let mut held = self.held(by);
                held.find(|(_, cap)| scope.within(&cap.scope).is_ok()).map(|(_, cap)| cap.limits.amounts)
            });
            let least = |dim: Dim, own: u64| {
                let index = Limits::DIMS.iter().position(|known| *known == dim);
                let above = index.and_then(|index| above.and_then(|amounts| amounts[index]));
                above.map_or(own, |above| above.min(own))
            };
            let (tokens, cost) = (least(Dim::Tokens, budget.tokens), least(Dim::CostMicro, budget.cost_micro));
            let own = model_grants(model, tokens, cost);
            // What was chosen for the agent stands in the place of what it would get by itself.
            let chosen = |cap: &&Capability| !given.iter().any(|scope| cap.scope.within(scope).is_ok());
            grants.extend(own.iter().filter(chosen).map(ToString::to_string));
        }
        grants
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
        self.ask_spawn_in(by, id, spec, grant, grants, (ALONE, Vec::new()))
    }

    /// The same in a phase of a plan, behind the agents that are required.
    pub(super) fn ask_spawn_in(
        &mut self,
        by: PrincipalId,
        id: CommandId,
        spec: &AgentSpec,
        grant: GrantId,
        grants: Vec<GrantAsked>,
        (phase, requires): (u8, Vec<AgentId>),
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
                phase,
                requires,
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

/// A call of a tool under no grant and without facts, its arguments the first blob.
fn bare_call(tool: String, digest: Digest) -> CallAsked {
    CallAsked {
        tool,
        digest,
        grant: GrantId::ZERO,
        need_grants: Vec::new(),
        facts: Vec::new(),
        extra: true,
        args: 0,
        asked: Vec::new(),
        narrow: Vec::new(),
        task: None,
        parent: None,
        unfit: None,
        detail: None,
    }
}

/// A refusal that concerns the arguments as a whole.
fn unfit(code: Code, rule: String) -> Unfit {
    Unfit { code, detail: Some(json!({ "pointer": "", "rule": rule }).to_string()) }
}

/// Why there is no tool of this name, if it is that of a type of code that this version does not run.
fn unsupported_type(name: &str) -> Option<String> {
    let word = name.strip_prefix(CODE_PREFIX)?;
    let known = code_types();
    (!known.contains(&word)).then(|| format!("code of this type is not run; there are {}", known.join(", ")))
}

fn same_kind(a: &Scope, b: &Scope) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}
