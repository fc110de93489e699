//! A session from its genesis to its end: the engine, the drivers of its agents and its executors, step by step.

use std::collections::BTreeMap;
use std::sync::Arc;

use toka_kernel::body::v1::{
    AttemptAsked, AttemptUsage, CloseAsked, CommitAsked, EndAsked, FirstPrincipal, GrantAsked, ReportAsked,
    ResolveAsked, StartAsked, StopAsked,
};
use toka_kernel::capability::{Capability, Scope};
use toka_kernel::hash::{Context, derive};
use toka_kernel::ids::{AgentId, Bytes, CallId, CommandId, Digest, GrantId, PrincipalId, SessionId, derived};
use toka_kernel::keys::{PublicKey, SecretKey};
use toka_kernel::limits::{GENESIS_GRANTS_MAX, TOOLS_PER_BINDING_MAX};
use toka_kernel::tool::Model;
use toka_kernel::{AdmittedCall, AgentState, Ask, Body, CLASS_WORK, Code, Command, Entry, Event, Genesis, State};
use toka_projections::Views;

use crate::agents::{self, AgentSpec, EndCode, Next};
use crate::engine::{CommitError, Engine, LoadError, Parts, open_blob};
use crate::executor::{Arguments, Ended, Executors, Hear, Notice, Report, Roots, Tool, outcome};
use crate::gateway::Attempt;
use crate::genesis::{Drawn, genesis};
use crate::orchestration::{self, Plan};
use crate::sandbox::{self, Launcher};
use crate::system::{System, SystemError};
use crate::transcripts::{FoldError, Transcripts};

mod asking;
mod conversations;
mod reconcile;
mod roots;
mod single;
mod together;
mod tools;

pub(crate) use conversations::Conversations;
use reconcile::Answer;
pub(crate) use reconcile::probe_id;
use roots::{TREE_DEPTH_MAX, wanted};

pub use roots::{models_of, right_to_resolve, root_grants};
pub use single::capabilities_of_call;
pub use together::plan_grants;

/// The people and keys of the node that opens a session.
#[derive(Clone, Debug)]
pub struct Node {
    /// The node's name.
    pub origin: String,
    /// The root key's id.
    pub root_key: toka_kernel::ids::KeyId,
    /// Key grant records for the genesis.
    pub key_grants: Vec<Bytes>,
    /// The operator's key, whose id is the opener's.
    pub operator: toka_kernel::ids::KeyId,
    /// The build that writes.
    pub build: String,
}

impl Node {
    /// Who opens sessions here.
    pub fn opener(&self) -> PrincipalId {
        PrincipalId(self.operator.0)
    }

    /// Who runs tools here.
    fn executor(&self) -> PrincipalId {
        PrincipalId(derive(Context::Id, &[b"executor", self.origin.as_bytes()]).0)
    }

    /// Who starts the agents of a plan here.
    fn orchestrator(&self) -> PrincipalId {
        orchestrator_of(&self.origin)
    }

    /// Who asks models here.
    fn gateway(&self) -> PrincipalId {
        PrincipalId(derive(Context::Id, &[b"gateway", self.origin.as_bytes()]).0)
    }
}

/// Told while a session runs.
pub trait Watch: Send + Sync {
    /// An entry is durable.
    fn entry(&self, entry: &Entry, views: &Views);
    /// A call begins to run. Never part of the record.
    fn started(&self, call: CallId);
}

/// Why a session cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A command could not be committed.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The session could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The system session did not take what it must hold of this one.
    #[error(transparent)]
    System(#[from] SystemError),
    /// There is a system session, and nobody signs what it is to open.
    #[error("a session is opened by its operator, and nothing was given to sign with")]
    Unsigned,
    /// A tool that is asked what became of a call could change something itself.
    #[error("the probe `{0}` is not of `effect: read` any more")]
    NoProbe(String),
    /// A tool that is asked what became of a call is not one of this node's approved tools.
    #[error("tool `{probe}` is not approved, and `{tool}` needs it as its probe")]
    ProbeNotApproved {
        /// The tool.
        tool: String,
        /// Its probe.
        probe: String,
    },
    /// A tool that the system session does not hold as approved under this digest.
    #[error("tool `{0}` is not approved as it stands")]
    NotApproved(String),
    /// The log does not hold what an agent needs to go on.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// A capability of the agent file cannot be a root grant.
    #[error("`{capability}` cannot be granted: {why}")]
    Capability {
        /// Its text.
        capability: String,
        /// Why.
        why: String,
    },
    /// The agent's tools are none that this node has.
    #[error("no tool matches `{pattern}`; this node has {known}")]
    NoTool {
        /// The pattern of the file.
        pattern: String,
        /// What there is.
        known: String,
    },
    /// A model that this node has not configured.
    #[error("the model `{name}` of the provider `{provider}` is not configured on this node")]
    NoModel {
        /// The provider.
        provider: String,
        /// The model.
        name: String,
    },
    /// What the opener asks for itself was refused.
    #[error("{what} was refused: {code}{}", need.as_ref().map(|need| format!(", it would need {need}")).unwrap_or_default())]
    Refused {
        /// What was asked.
        what: String,
        /// Why not.
        code: Code,
        /// The missing capability.
        need: Option<String>,
    },
    /// Nothing is open and the agent has not ended.
    #[error("agent {0} waits for something that can never come")]
    Stuck(String),
    /// Nobody knows what came of a call that must not run twice, and its agent waits for somebody to say.
    #[error("nobody knows what came of call {call} of `{tool}`, and it must not run twice{}", why.as_ref().map(|why| format!("; {why}")).unwrap_or_default())]
    InDoubt {
        /// The call.
        call: CallId,
        /// Its tool.
        tool: String,
        /// Why its probe did not tell, if it was tried just now.
        why: Option<String>,
    },
    /// The agents of a plan ask for more than a session can begin with.
    #[error("the agents ask for {0} different capabilities together, at most {GENESIS_GRANTS_MAX} are allowed")]
    TooManyRoots(usize),
    /// Agents are nested too deep.
    #[error("agents are nested deeper than {TREE_DEPTH_MAX}")]
    TooDeep,
    /// The session is closed.
    #[error("session {0} is closed; there is nothing to go on with")]
    Closed(SessionId),
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finish {
    /// The session.
    pub session: SessionId,
    /// Whether its agent completed.
    pub completed: bool,
    /// Why not.
    pub code: EndCode,
    /// Where in the script, for people.
    pub why: Option<agents::Why>,
    /// The step at which a jail could not be made, if one could not: then a tool was not run.
    pub unavailable: Option<String>,
    /// How each agent ended that its opener spawned, by name.
    pub agents: Vec<AgentEnd>,
}

/// How one agent ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentEnd {
    /// The name of its spec.
    pub name: String,
    /// Whether it completed.
    pub completed: bool,
    /// Whether it was ever started; one that was not has failed with `DEPENDENCY`, or was stopped.
    pub started: bool,
    /// Whether it was stopped.
    pub stopped: bool,
    /// Why it failed.
    pub code: EndCode,
    /// Where, for people.
    pub why: Option<agents::Why>,
}

/// A session that is being run by this process.
pub struct Session {
    engine: Engine,
    transcripts: Transcripts,
    conversations: Conversations,
    /// Who starts the agents of a plan, where there is one, and how many of them run at a time.
    orchestrator: Option<PrincipalId>,
    max_running: u16,
    executors: Executors,
    tools: Vec<Tool>,
    watch: Arc<dyn Watch>,
    system: Option<System>,
    launcher: Option<Arc<Launcher>>,
    /// Entries of the tail that the transcripts have seen.
    folded: usize,
    /// Agents that have nothing more to do and whose children have not ended.
    ending: BTreeMap<AgentId, (PrincipalId, bool, EndCode)>,
    /// Why agents failed, for people; the log holds the code.
    whys: BTreeMap<AgentId, agents::Why>,
    /// The step at which a jail could not be made.
    unavailable: Option<String>,
    /// The interrupted call that each probe is about.
    probes: BTreeMap<CallId, AdmittedCall>,
    /// Why the probe of a call did not tell, for people.
    untold: BTreeMap<CallId, String>,
}

/// What a session needs besides its engine.
pub struct Means {
    /// The tools of this node.
    pub tools: Vec<Tool>,
    /// What confines foreign programs; without it none runs.
    pub launcher: Option<Arc<Launcher>>,
    /// The directories that grants name.
    pub roots: Roots,
    /// Threads for calls.
    pub threads: usize,
    /// Who is told.
    pub watch: Arc<dyn Watch>,
    /// The node's own session, which lists this one and holds what its tools are; without it a session stands alone.
    pub system: Option<System>,
}

impl std::fmt::Debug for Means {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Means").field("roots", &self.roots.keys()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("engine", &self.engine).finish_non_exhaustive()
    }
}

impl Session {
    /// Opens a session for `spec` with these root grants, and spawns and starts its agent. All of it becomes durable at
    /// once, by the first step of [`Session::run`], or not at all. Where there is a system session, `key` signs the
    /// opening there, and that is durable before.
    ///
    /// # Errors
    /// [`RunError`]; nothing of the session is then in the store.
    pub fn open(
        mut parts: Parts,
        node: &Node,
        spec: &AgentSpec,
        roots: &[Capability],
        interactive: bool,
        means: Means,
        key: Option<&SecretKey>,
    ) -> Result<Session, RunError> {
        let drawn = Drawn::from(parts.random.as_mut()).map_err(CommitError::from)?;
        let genesis = work_genesis(node, roots, &drawn, interactive);
        Session::open_with(parts, genesis, drawn.open, roots, means, key, &mut |session| {
            session.bind_for(&[spec])?;
            session.spawn_top(node, spec, roots, drawn.seed)
        })
    }

    /// Opens a session for the agents of a plan with these root grants, of whom `max_running` run at a time. They are
    /// spawned now and started as the plan lets them.
    ///
    /// # Errors
    /// As [`Session::open`].
    #[expect(clippy::too_many_arguments, reason = "each is a part of the one thing that is opened")]
    pub fn open_plan(
        mut parts: Parts,
        node: &Node,
        plan: &Plan,
        max_running: u16,
        roots: &[Capability],
        interactive: bool,
        means: Means,
        key: Option<&SecretKey>,
    ) -> Result<Session, RunError> {
        let drawn = Drawn::from(parts.random.as_mut()).map_err(CommitError::from)?;
        let now_us = parts.clock.now_us().map_err(CommitError::from)?;
        let mut genesis = work_genesis(node, roots, &drawn, interactive);
        genesis.limits.max_running = max_running;
        let (orchestrator, kind) = (node.orchestrator(), SERVICE);
        genesis.principals.push(FirstPrincipal {
            id: Some(orchestrator),
            kind,
            custody: 1,
            keys: Vec::new(),
            models: 0,
        });
        Session::open_with(parts, genesis, drawn.open, roots, means, key, &mut |session| {
            (session.orchestrator, session.max_running) = (Some(orchestrator), max_running);
            let specs: Vec<&AgentSpec> = plan.agents.iter().map(|planned| &planned.spec).collect();
            session.bind_for(&specs)?;
            session.spawn_plan(node, plan, drawn.seed, now_us)
        })
    }

    /// Opens the session of this genesis, signed in the system session, and lets `begin` put the rest on its tail.
    fn open_with(
        parts: Parts,
        mut genesis: Genesis,
        open: CommandId,
        roots: &[Capability],
        means: Means,
        key: Option<&SecretKey>,
        begin: &mut dyn FnMut(&mut Session) -> Result<(), RunError>,
    ) -> Result<Session, RunError> {
        let opening = match &means.system {
            None => None,
            Some(system) => Some(system.sign_opening(open, roots, key.ok_or(RunError::Unsigned)?)?),
        };
        if let Some(opening) = &opening {
            opening.embed(&mut genesis);
        }
        let engine = Engine::open(parts, &genesis)?;
        let mut session = Session::over(engine, means, genesis.seed);
        begin(&mut session)?;
        let id = session.id();
        if let (Some(opening), Some(system)) = (opening, &mut session.system) {
            system.register_session(opening, id)?;
        }
        Ok(session)
    }

    /// Binds the tools that some specs name, and the models that they ask.
    fn bind_for(&mut self, specs: &[&AgentSpec]) -> Result<(), RunError> {
        let mut found = Vec::new();
        for spec in specs {
            found.extend(wanted(&self.tools, spec)?);
        }
        found.sort_by(|a: &Tool, b: &Tool| a.spec().name.cmp(&b.spec().name));
        found.dedup_by(|a, b| a.spec().name == b.spec().name);
        found.chunks(TOOLS_PER_BINDING_MAX).try_for_each(|tools| self.bind(tools))
    }

    /// Loads a session that was interrupted.
    ///
    /// # Errors
    /// [`RunError::Load`] if the log is not what it must be, [`RunError::Closed`] if there is nothing to go on with.
    pub fn resume(parts: Parts, session: SessionId, root: &PublicKey, means: Means) -> Result<Session, RunError> {
        let mut transcripts = Transcripts::default();
        let mut conversations = Conversations::default();
        let (mut fault, mut begun) = (None, None);
        let mut seed = Digest::default();
        let log = parts.log.clone();
        let engine = Engine::load(parts, session, root, &mut |entry| {
            let read = |commitment| open_blob(log.as_ref(), session, commitment);
            if let Ok(event) = entry.event() {
                conversations.load(event);
                if let Body::SessionOpened(opened) = &event.body {
                    begun = Some((orchestrator_of(&opened.origin), opened.limits.max_running));
                    seed = opened.seed;
                }
            }
            if let Err(error) = transcripts.fold(entry, &read) {
                fault.get_or_insert(error);
            }
        })?;
        if let Some(fault) = fault {
            return Err(fault.into());
        }
        if engine.state().is_closed() {
            return Err(RunError::Closed(session));
        }
        conversations.read(&|commitment| engine.blob(commitment)).map_err(CommitError::from)?;
        let mut session = Session::over(engine, means, seed);
        session.transcripts = transcripts;
        session.conversations = conversations;
        if let Some((orchestrator, max_running)) = begun {
            let is_there = session.held(orchestrator).next().is_some();
            (session.orchestrator, session.max_running) = (is_there.then_some(orchestrator), max_running);
        }
        session.settle_interrupted()?;
        session.unbind_quarantined()?;
        Ok(session)
    }

    /// Records what came of a call that nobody knew the outcome of, as the opener says: 1 done, 2 not done, 3 abandoned.
    ///
    /// # Errors
    /// [`RunError::Load`], or [`RunError::Refused`] where the call is not in doubt.
    pub fn resolve(
        parts: Parts,
        session: SessionId,
        root: &PublicKey,
        call: CallId,
        verdict: u8,
        evidence: Option<Vec<u8>>,
    ) -> Result<(), RunError> {
        let mut engine = Engine::load(parts, session, root, &mut |_| ())?;
        let opener = engine.state().opener();
        let is_right = |(_, cap): &(GrantId, &Capability)| matches!(cap.scope, Scope::Admin(_));
        let right = engine.state().grants_of(opener).find(is_right).map(|(id, _)| id);
        let head = engine.state().head();
        let id = CommandId::of(derive(Context::CommandId, &[&head.hash.0, b"resolve"]));
        let asked = ResolveAsked { call, verdict, evidence: evidence.is_some().then_some(0) };
        let mut command = Command::new(id, head.seq, Ask::ResolveOutcome(asked), Vec::new());
        command.under = right;
        let blobs: Vec<Vec<u8>> = evidence.into_iter().collect();
        let committed = engine.commit(opener, command, &blobs)?;
        engine.flush(&mut |_, _| ())?;
        refused("saying what came of the call", &committed.event)
    }

    fn over(engine: Engine, means: Means, seed: Digest) -> Session {
        let watch = means.watch.clone();
        let notice: Hear = Arc::new(move |Notice::Started(call)| watch.started(call));
        Session {
            engine,
            transcripts: Transcripts::default(),
            conversations: Conversations::default(),
            orchestrator: None,
            max_running: orchestration::MAX_RUNNING,
            executors: Executors::start(
                means.threads,
                means.tools.clone(),
                means.launcher.clone(),
                means.roots,
                notice,
            )
            .with_seed(seed),
            tools: means.tools,
            watch: means.watch,
            system: means.system,
            launcher: means.launcher,
            folded: 0,
            ending: BTreeMap::new(),
            whys: BTreeMap::new(),
            unavailable: None,
            probes: BTreeMap::new(),
            untold: BTreeMap::new(),
        }
    }

    /// The session id.
    pub fn id(&self) -> SessionId {
        self.engine.session()
    }

    /// The views of what is durable.
    pub fn views(&self) -> &Views {
        self.engine.views()
    }

    /// Runs the session to its end and closes it.
    ///
    /// # Errors
    /// [`RunError`]. Everything that was told to the watch is in the store; the session can be resumed.
    pub fn run(mut self) -> Result<Finish, RunError> {
        loop {
            self.drive()?;
            self.flush()?;
            if self.top_ended() {
                return self.close();
            }
            let now = self.engine.now_us().map_err(CommitError::from)?;
            let (engine, conversations) = (&self.engine, &self.conversations);
            let taken = self.executors.take(engine.views(), now, &mut |call| {
                let bytes = engine.blob(call.arguments().commitment)?;
                let body = match &bytes {
                    Some(bytes) if call.model() == Model::Agent => {
                        conversations.body(bytes, &|commitment| engine.blob(commitment))?
                    }
                    Some(_) | None => None,
                };
                Ok(Arguments { bytes, body })
            });
            taken.map_err(CommitError::from)?;
            let Some(report) = self.executors.wait() else {
                if let Some(doubt) = self.in_doubt() {
                    return Err(doubt);
                }
                if self.stop_paused()? {
                    continue;
                }
                return Err(RunError::Stuck(self.waiting()));
            };
            self.hear(report)?;
            while let Some(report) = self.executors.reported_already() {
                self.hear(report)?;
            }
        }
    }

    /// Stops an agent that is paused while nothing runs that could resume it; whether there was one. Its opener asks for
    /// it, and who waits for the agent reads how it ended.
    fn stop_paused(&mut self) -> Result<bool, RunError> {
        let paused = |(_, row): &(AgentId, &toka_projections::AgentRow)| row.state == AgentState::Paused;
        let Some((agent, _)) = self.views().agents.iter().find(paused) else { return Ok(false) };
        let opener = self.engine.state().opener();
        let id = CommandId::of(derive(Context::CommandId, &[&agent.0, b"nobody resumes it"]));
        let asked = StopAsked { agent, why: NOBODY_RESUMES, reason: Some(0) };
        let reason = b"it is paused, and nobody is left who could resume it".to_vec();
        let event = self.commit(opener, id, Ask::StopAgent(asked), &[reason])?;
        refused("stopping a paused agent", &event)?;
        Ok(true)
    }

    fn hear(&mut self, report: Report) -> Result<(), RunError> {
        match report {
            Report::Ended(ended) => self.report(*ended),
            Report::Attempted { call, attempt, answer } => {
                let goes_on = self.attempted(call, *attempt)?;
                // Who asked may have been stopped meanwhile.
                let _ = answer.send(goes_on);
                Ok(())
            }
        }
    }

    /// Records an attempt of a model call that came to nothing; whether the next one may begin.
    fn attempted(&mut self, call: CallId, attempt: Attempt) -> Result<bool, RunError> {
        let Some(open) = self.views().calls.open(call) else { return Ok(false) };
        let (number, executor, admitted) = (open.attempt(), open.executor(), open.seq());
        let digest = derive(Context::CommandId, &[&call.0, &number.to_be_bytes(), b"attempt"]);
        let usage = attempt.usage.map(|usage| AttemptUsage {
            tokens_in: usage.tokens_in,
            tokens_cached: usage.tokens_cached,
            tokens_out: usage.tokens_out,
        });
        let asked = AttemptAsked {
            call,
            attempt: number,
            cause: attempt.cause.number(),
            status: attempt.status,
            not_before: attempt.not_before_us,
            usage,
            part: (!attempt.part.is_empty()).then_some(0),
        };
        let part = Some(attempt.part).filter(|part| !part.is_empty());
        let blobs: Vec<Vec<u8>> = part.into_iter().collect();
        let mut command = Command::new(CommandId::of(digest), admitted, Ask::ReportAttempt(asked), Vec::new());
        command.as_of = admitted;
        let event = self.engine.commit(executor, command, &blobs)?.event;
        self.flush()?;
        Ok(matches!(event.body, Body::CallAttempted(_)))
    }

    /// Asks the driver of every agent that has something to read, until none has.
    fn drive(&mut self) -> Result<(), RunError> {
        self.fold_tail()?;
        self.end_stopped()?;
        self.orchestrate()?;
        while let Some(agent) = self.transcripts.wake() {
            // Resuming wakes it again.
            if self.engine.state().is_held(agent) {
                continue;
            }
            let Some(lane) = self.transcripts.get_mut(agent) else { continue };
            if !lane.running {
                continue;
            }
            if let Some((by, completed, code)) = self.ending.remove(&agent) {
                self.end(by, agent, completed, code)?;
                continue;
            }
            match lane.driver.advance(&lane.transcript) {
                Next::Wait => {}
                Next::Commands(asks) => {
                    for ask in asks {
                        self.ask(agent, ask)?;
                    }
                }
                Next::End { completed, code, why } => {
                    if let Some(why) = why {
                        self.whys.insert(agent, why);
                    }
                    self.end(agent, agent, completed, code)?;
                }
                Next::Diverged { path } => {
                    let detail = "the log holds another command of this step than the spec gives".to_owned();
                    self.whys.insert(agent, agents::Why { path, detail });
                    self.end(PrincipalId::NODE, agent, false, EndCode::Script)?;
                }
            }
            self.fold_tail()?;
            self.end_stopped()?;
            self.orchestrate()?;
        }
        Ok(())
    }

    /// Ends the agents that are to stop and have nothing open, those below before those above.
    fn end_stopped(&mut self) -> Result<(), RunError> {
        loop {
            let stopped = self.engine.state().stopped();
            if stopped.is_empty() {
                return Ok(());
            }
            for agent in stopped {
                self.ending.remove(&agent);
                let id = agents::command_id(agent, "/stopped");
                let asked = EndAsked { agent, how: STOPPED, code: EndCode::None.number() };
                let event = self.commit(PrincipalId::NODE, id, Ask::EndAgent(asked), &[])?;
                refused("the end of a stopped agent", &event)?;
            }
            self.fold_tail()?;
        }
    }

    /// Ends an agent, once its calls and children have ended.
    fn end(&mut self, by: PrincipalId, agent: AgentId, completed: bool, code: EndCode) -> Result<(), RunError> {
        if self.engine.state().is_busy(agent) {
            self.ending.insert(agent, (by, completed, code));
            return Ok(());
        }
        let how = if completed { 1 } else { 2 };
        let id = agents::command_id(agent, "/end");
        let event = self.commit(by, id, Ask::EndAgent(EndAsked { agent, how, code: code.number() }), &[])?;
        refused("the end of an agent", &event)?;
        self.fold_tail()
    }

    fn report(&mut self, ended: Ended) -> Result<(), RunError> {
        let Some(open) = self.views().calls.open(ended.call) else { return Ok(()) };
        // The attempts of a model call are counted as they are recorded.
        let (admitted, executor, attempt) = (open.seq(), open.executor(), open.attempt());
        let digest = derive(Context::CommandId, &[&ended.call.0, &attempt.to_be_bytes(), b"report"]);
        let (call, kind, answer) = (ended.call, ended.outcome.kind, Answer::of(&ended));
        if kind == outcome::SANDBOX_UNAVAILABLE {
            self.unavailable = ended.outcome.symbol.clone().or(Some("unknown".to_owned()));
        }
        let mut blobs: Vec<Vec<u8>> = Vec::new();
        // In the order of the fields, since first references ascend.
        let [stdout, stderr, result, record] = [ended.stdout, ended.stderr, ended.result, ended.record].map(|bytes| {
            let index = u16::try_from(blobs.len()).unwrap_or(u16::MAX);
            bytes.map(|bytes| {
                blobs.push(bytes);
                index
            })
        });
        let asked = ReportAsked {
            call: ended.call,
            attempt,
            outcome: ended.outcome,
            actual: ended.actual,
            stdout,
            stderr,
            result,
            record,
            sandbox: ended.sandbox,
            wasm: ended.wasm,
            of: None,
            usage: ended.usage,
        };
        let mut command = Command::new(CommandId::of(digest), admitted, Ask::Report(Box::new(asked)), Vec::new());
        command.as_of = admitted;
        let committed = self.engine.commit(executor, command, &blobs)?;
        refused("the report of a call", &committed.event)?;
        if kind == outcome::PIN_MISMATCH {
            self.quarantine(call)?;
        }
        self.settle_by_probe(call, answer)
    }

    fn commit(&mut self, by: PrincipalId, id: CommandId, ask: Ask, blobs: &[Vec<u8>]) -> Result<Event, RunError> {
        let as_of = self.engine.state().head().seq;
        Ok(self.engine.commit(by, Command::new(id, as_of, ask, Vec::new()), blobs)?.event)
    }

    /// Spawns and starts the agent of the file, from the root grants and below them.
    fn spawn_top(&mut self, node: &Node, spec: &AgentSpec, roots: &[Capability], seed: Digest) -> Result<(), RunError> {
        let opener = node.opener();
        let root = |index: usize| GrantId(derived(self.id(), 0, u32::try_from(index).unwrap_or(u32::MAX)));
        let agent_root = root(roots.len() - 1);
        let below = |(index, cap): (usize, &Capability)| {
            let mut cap = cap.clone();
            cap.depth -= 1;
            GrantAsked { parent: Some(root(index)), cap: cap.to_string() }
        };
        // What the opener may do itself is not handed on.
        let handed =
            roots[..roots.len() - 1].iter().enumerate().filter(|(_, cap)| !matches!(cap.scope, Scope::Admin(_)));
        let grants = handed.map(below).collect();
        let id = |what: &str| CommandId::of(derive(Context::CommandId, &[&seed.0, what.as_bytes()]));
        let event = self.ask_spawn(opener, id("spawn"), spec, agent_root, grants)?;
        refused("spawning the agent", &event)?;
        let agent = PrincipalId(derived(self.id(), self.engine.state().head().seq, 0));
        let event = self.commit(opener, id("start"), Ask::StartAgent(StartAsked { agent }), &[])?;
        refused("starting the agent", &event)
    }

    /// Shows the tail to the transcripts, as far as they have not seen it.
    fn fold_tail(&mut self) -> Result<(), RunError> {
        let engine = &self.engine;
        for sealed in &engine.tail()[self.folded..] {
            self.transcripts.fold(&sealed.entry, &|commitment| engine.blob(commitment))?;
        }
        self.folded = engine.tail().len();
        Ok(())
    }

    fn flush(&mut self) -> Result<(), RunError> {
        self.fold_tail()?;
        self.folded = 0;
        let watch = self.watch.clone();
        Ok(self.engine.flush(&mut |entry, views| watch.entry(entry, views))?)
    }

    /// The agents that the opener spawned.
    fn top(&self) -> impl Iterator<Item = (AgentId, &toka_projections::AgentRow)> {
        let opener = self.engine.state().opener();
        self.views().agents.iter().filter(move |(_, row)| row.parent == opener)
    }

    fn top_ended(&self) -> bool {
        self.top().all(|(_, row)| row.state == AgentState::Ended)
    }

    /// The first call whose outcome nobody knows, as an error.
    fn in_doubt(&self) -> Option<RunError> {
        let mut calls = self.views().calls.iter();
        let (call, row) = calls.find(|(call, _)| self.engine.state().is_in_doubt(*call))?;
        Some(RunError::InDoubt { call, tool: row.tool.clone(), why: self.untold.get(&call).cloned() })
    }

    fn waiting(&self) -> String {
        let running = self.views().agents.iter().find(|(_, row)| row.state != AgentState::Ended);
        running.map_or_else(|| "?".to_owned(), |(_, row)| row.name.clone())
    }

    /// Commits to the state and closes the session.
    fn close(mut self) -> Result<Finish, RunError> {
        let alone = self.top().count() == 1;
        let failed = self.top().find_map(|(id, row)| match row.ended {
            Some((COMPLETED, _)) | None => None,
            // One that nobody needs fails for itself.
            Some(_) if !alone && !row.plan.essential => None,
            Some((_, code)) => Some((id, code)),
        });
        let agents = self.top().map(|(id, row)| AgentEnd {
            name: row.name.clone(),
            completed: matches!(row.ended, Some((COMPLETED, _))),
            started: self.transcripts.get(id).is_some_and(|lane| lane.started),
            stopped: matches!(row.ended, Some((STOPPED, _))),
            code: row.ended.and_then(|(_, code)| EndCode::from_number(code)).unwrap_or(EndCode::None),
            why: self.whys.get(&id).cloned(),
        });
        let mut agents: Vec<AgentEnd> = agents.collect();
        agents.sort_by(|a, b| a.name.cmp(&b.name));
        let commit = Command::of_node(Ask::CommitState(CommitAsked {}), Vec::new());
        self.engine.commit(PrincipalId::NODE, commit, &[])?;
        let opener = self.engine.state().opener();
        let id = CommandId::of(derive(Context::CommandId, &[&self.id().0, b"close"]));
        let why = if failed.is_some() { 2 } else { 1 };
        let event = self.commit(opener, id, Ask::CloseSession(CloseAsked { why, reason: None }), &[])?;
        refused("closing the session", &event)?;
        self.flush()?;
        if let Some(system) = &mut self.system {
            system.end_session(self.engine.state().head())?;
            // What this machine can confine is other than was thought.
            if let (Some(_), Some(launcher)) = (&self.unavailable, &self.launcher)
                && let Some(probed) = sandbox::probe(launcher)
            {
                system.record_probe(probed)?;
            }
        }
        Ok(Finish {
            session: self.id(),
            completed: failed.is_none(),
            code: failed.and_then(|(_, code)| EndCode::from_number(code)).unwrap_or(EndCode::None),
            why: failed.and_then(|(agent, _)| self.whys.remove(&agent)),
            unavailable: self.unavailable,
            agents,
        })
    }
}

/// Who starts the agents of a plan on the node of this name.
fn orchestrator_of(origin: &str) -> PrincipalId {
    PrincipalId(derive(Context::Id, &[b"orchestrator", origin.as_bytes()]).0)
}

/// The kind of a principal that is a service.
const SERVICE: u8 = 4;
/// How an agent ends that was stopped.
const STOPPED: u8 = 3;
/// Why an agent is stopped: somebody above it says so.
const NOBODY_RESUMES: u8 = 2;
/// How an agent ends that has done its work.
const COMPLETED: u8 = 1;

/// The execution models of the executor, as bits.
const TOOL_AND_CODE: u8 = 0b11;

fn work_genesis(node: &Node, roots: &[Capability], drawn: &Drawn, interactive: bool) -> Genesis {
    let mut genesis = genesis(node, CLASS_WORK, drawn, roots);
    genesis.limits.max_running = orchestration::MAX_RUNNING;
    genesis.interactive = interactive;
    let executor = node.executor();
    genesis.principals.push(FirstPrincipal {
        id: Some(executor),
        kind: 3,
        custody: 1,
        keys: Vec::new(),
        models: TOOL_AND_CODE,
    });
    let gateway = node.gateway();
    genesis.principals.push(FirstPrincipal { id: Some(gateway), kind: 3, custody: 1, keys: Vec::new(), models: 4 });
    genesis
}

/// An error if the event is a refusal. For what the node asks on behalf of the session itself, a refusal is the end.
fn refused(what: &str, event: &Event) -> Result<(), RunError> {
    match event.body.refused() {
        Some(refused) => Err(RunError::Refused {
            what: what.to_owned(),
            code: Code::from_number(refused.code).unwrap_or(Code::Malformed),
            need: refused.need.clone(),
        }),
        None => Ok(()),
    }
}

/// The state of a session, for those who embed it.
impl AsRef<State> for Session {
    fn as_ref(&self) -> &State {
        self.engine.state()
    }
}
