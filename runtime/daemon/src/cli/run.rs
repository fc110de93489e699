//! `toka run`: an agent file becomes a session, from its root grants to its end.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde_json::json;
use toka_kernel::capability::{Capability, Scope};
use toka_kernel::ids::{CallId, SessionId, derived};
use toka_kernel::{Body, Entry, ToolState};
use toka_projections::Views;
use toka_runtime::agents::{AgentSet, AgentSpec, EndCode, FileCode, FileError};
use toka_runtime::clock::{ClockFault, GuardedClock, SystemClock};
use toka_runtime::engine::{CommitError, LoadError, Parts};
use toka_runtime::executor::{Roots, Tool};
use toka_runtime::home::Home;
use toka_runtime::orchestration::Plan;
use toka_runtime::random::OsRandom;
use toka_runtime::session::{
    AgentEnd, Finish, Means, Node, RunError, Session, Watch, plan_grants, right_to_resolve, root_grants,
};
use toka_runtime::system::System;
use toka_store::{Log, OpenError, SqliteLog};

use super::failure::{Failure, exit};
use super::init::open_home;
use super::models::{Answers, Models, specs_of};
use super::orchestrate::end_word;
use super::print::{count, instant, talk};
use super::tools::{self, Listed};

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The agent file (YAML, toka/v1)
    #[arg(value_name = "AGENT.yaml", required_unless_present = "resume")]
    pub(crate) file: Option<PathBuf>,
    /// A directory that the agent's grants may name; repeat for more
    #[arg(long = "root", value_name = "NAME=DIR", value_parser = named_root)]
    pub(crate) roots: Vec<(String, PathBuf)>,
    /// Grant what the file asks for without asking
    #[arg(long)]
    pub(crate) grant_requested: bool,
    #[command(flatten)]
    pub(crate) key: tools::Key,
    /// Go on with a session that was interrupted; the directories are those it began with
    #[arg(long, value_name = "SESSION", conflicts_with_all = ["file", "grant_requested"])]
    pub(crate) resume: Option<String>,
    #[command(flatten)]
    pub(crate) answers: Answers,
    /// One JSON document per entry on stdout as soon as it is durable, then one for the end
    #[arg(long)]
    pub(crate) json: bool,
    /// Say nothing but the result
    #[arg(long)]
    pub(crate) quiet: bool,
}

pub(crate) fn run(run: &Run, home: Option<PathBuf>) -> Result<u8, Failure> {
    let home = open_home(home)?;
    let finish = match &run.resume {
        Some(session) => resume(run, &home, session)?,
        None => begin(run, &home)?,
    };
    tell_end(run, &finish)
}

fn begin(run: &Run, home: &Home) -> Result<Finish, Failure> {
    let file = run.file.as_deref().unwrap_or(Path::new(""));
    let set = AgentSet::load(file).map_err(|errors| refuse_file(&errors))?;
    for warning in set.warnings() {
        talk(&format!("{warning}\n  hint: {}", warning.hint));
    }
    let top = set.top();
    if let Some(other) = top.agent().dependencies.required.keys().next() {
        let what = format!("the agent `{}` requires `{other}`, which would not run", top.name());
        return Err(
            Failure::new(exit::FAILURE, what).hint("`toka orchestrate DIR` runs the agents of a folder together")
        );
    }
    begin_work(run, home, &Work::One(&top))
}

/// Runs a call by itself, as an agent that makes it and no other; everything it asks for is granted.
pub(crate) fn begin_one(
    home: &Home,
    spec: &AgentSpec,
    roots: Vec<(String, PathBuf)>,
    key: tools::Key,
) -> Result<Finish, Failure> {
    let run = Run {
        file: None,
        roots,
        grant_requested: true,
        key,
        resume: None,
        answers: Answers::default(),
        json: false,
        quiet: true,
    };
    begin_work(&run, home, &Work::One(spec))
}

/// What a session is begun for.
pub(crate) enum Work<'w> {
    /// One agent, and those that it spawns.
    One(&'w AgentSpec),
    /// The agents of a plan.
    Plan { plan: &'w Plan, max_running: u16 },
}

impl Work<'_> {
    fn specs(&self) -> Vec<&AgentSpec> {
        match self {
            Work::One(spec) => vec![spec],
            Work::Plan { plan, .. } => plan.agents.iter().map(|planned| &planned.spec).collect(),
        }
    }

    fn root_grants(&self, now_us: u64) -> Result<Vec<Capability>, RunError> {
        match self {
            Work::One(spec) => root_grants(spec, now_us),
            Work::Plan { plan, .. } => plan_grants(plan, now_us),
        }
    }

    /// Who asks, as the beginning of a sentence.
    fn asks(&self) -> String {
        match self {
            Work::One(spec) => format!("{} asks", spec.name()),
            Work::Plan { plan, .. } => format!("{} ask together", count(plan.agents.len(), "agent", "agents")),
        }
    }
}

pub(crate) fn begin_work(run: &Run, home: &Home, work: &Work<'_>) -> Result<Finish, Failure> {
    let clock = GuardedClock::new(Arc::new(SystemClock));
    let now_us = clock.now_us().map_err(clock_fault)?;
    let specs = work.specs();
    let mut grants = work.root_grants(now_us).map_err(failed)?;
    let dirs = directories(run, home, &grants)?;
    consent(run, &work.asks(), &grants)?;
    // Who opens a session signs what it may do.
    let operator = tools::operator_key(home, &run.key)?;
    let log = writer(home)?;
    let models = Models::of(home, specs.iter().copied(), &run.answers, log.as_ref())?;
    let mut system = tools::open_system(home, &mut home.system()?, &log)?;
    system.register_own(models.tools.iter().map(|model| model.spec())).map_err(tools::failed)?;
    let key = home.event_key(now_us)?;
    let parts = Parts { log: log.clone(), key, clock, random: Box::new(OsRandom) };
    let listed = tools::all(home, Some(log.as_ref()))?;
    specs.iter().try_for_each(|spec| check_approved(spec, &listed))?;
    let mut usable = tools::usable(listed);
    usable.extend(models.as_tools());
    // The opener's own, so nothing that the file asks for.
    let until = home.operator().not_after_us;
    grants.splice(0..0, specs.iter().find_map(|spec| right_to_resolve(spec, &usable, until)));
    let means = means(run, usable, open_roots(&dirs)?, system);
    let interactive = std::io::stdin().is_terminal();
    let node = node(home);
    let session = match work {
        Work::One(spec) => Session::open(parts, &node, spec, &grants, interactive, means, Some(&operator)),
        Work::Plan { plan, max_running } => {
            Session::open_plan(parts, &node, plan, *max_running, &grants, interactive, means, Some(&operator))
        }
    };
    let session = session.map_err(failed)?;
    let id = session.id();
    home.save_roots(id, &dirs)?;
    let finish = drive(session, log.as_ref());
    if finish.is_err() && matches!(log.head(id), Ok(None)) {
        home.forget_roots(id)?;
    }
    finish
}

fn resume(run: &Run, home: &Home, prefix: &str) -> Result<Finish, Failure> {
    let clock = GuardedClock::new(Arc::new(SystemClock));
    let now_us = clock.now_us().map_err(clock_fault)?;
    let log = writer(home)?;
    let session = super::find(log.as_ref(), prefix)?;
    let key = home.event_key_of(epoch(log.as_ref(), session)?, now_us)?;
    let mut dirs = home.roots_of(session)?.unwrap_or_default();
    let named = named_roots(log.as_ref(), session)?;
    for (name, dir) in &run.roots {
        let dir = directory(home, name, dir)?;
        // A directory that was moved can be named anew; one that is there is the one the session works in.
        if let Some(began) =
            dirs.get(name).and_then(|began| directory(home, name, began).ok()).filter(|began| *began != dir)
        {
            let what = format!("--root {name}: the session began with {}, and that is still there", began.display());
            return Err(Failure::new(exit::USAGE, what).hint("leave --root out, or begin another session"));
        }
        dirs.insert(name.clone(), dir);
    }
    for (name, dir) in &mut dirs {
        *dir = directory(home, name, dir)?;
    }
    if let Some(missing) = named.iter().find(|name| !dirs.contains_key(*name)) {
        return Err(Failure::new(
            exit::USAGE,
            format!("the session names the root `{missing}`, and nothing says where it is"),
        )
        .hint(format!("--root {missing}=DIR says which directory that is")));
    }
    let system = tools::open_system(home, &mut home.system()?, &log)?;
    let models = Models::of(home, &specs_of(log.as_ref(), session)?, &run.answers, log.as_ref())?;
    let mut usable = tools::usable(tools::all(home, Some(log.as_ref()))?);
    usable.extend(models.as_tools());
    let means = means(run, usable, open_roots(&dirs)?, system);
    let parts = Parts { log: log.clone(), key, clock, random: Box::new(OsRandom) };
    let session = Session::resume(parts, session, home.root().key(), means).map_err(failed)?;
    drive(session, log.as_ref())
}

/// Says so where the agent names a tool that is registered and not approved.
fn check_approved(spec: &AgentSpec, listed: &[Listed]) -> Result<(), Failure> {
    let asked = |name: &str| spec.agent().tools.iter().any(|tool| tool == name);
    match listed.iter().find(|listed| listed.state != ToolState::Approved && asked(&listed.spec.name)) {
        None => Ok(()),
        Some(tool) => {
            let name = &tool.spec.name;
            Err(Failure::new(exit::DENIED, format!("tool `{name}` is {}, and only approved tools run", tool.state))
                .hint(how_to_approve(name)))
        }
    }
}

/// The epoch of the event key that a session was opened with.
pub(crate) fn epoch(log: &dyn Log, session: SessionId) -> Result<u32, Failure> {
    Ok(genesis(log, session)?.header().key_epoch)
}

/// The roots that the root grants of a session name.
fn named_roots(log: &dyn Log, session: SessionId) -> Result<BTreeSet<String>, Failure> {
    let genesis = genesis(log, session)?;
    let Ok(Body::SessionOpened(opened)) = genesis.event().map(|event| &event.body) else {
        return Ok(BTreeSet::new());
    };
    Ok(opened.grants.iter().filter_map(|grant| root_name(&grant.cap)).map(str::to_owned).collect())
}

fn genesis(log: &dyn Log, session: SessionId) -> Result<Entry, Failure> {
    let unreadable = |what: String| Failure::new(exit::UNREADABLE, format!("session {}: {what}", session.short()));
    let genesis = log.read(session, 0).next().ok_or_else(|| unreadable("no entry".to_owned()))??;
    Entry::read(&genesis.bytes).map_err(|fault| unreadable(fault.to_string()))
}

fn drive(session: Session, log: &dyn Log) -> Result<Finish, Failure> {
    let id = session.id();
    session.run().map_err(|error| {
        if let RunError::InDoubt { call, .. } = &error {
            let say = format!("toka calls resolve {} {call} done|not-done|abandon, then toka run --resume", id.short());
            return failed(error).hint(format!("find out what came of it and say so: {say}"));
        }
        let failure = failed(error);
        match log.head(id) {
            // Nothing of it ever became durable, so there is nothing to go on with.
            Ok(None) => failure,
            Ok(Some(_)) | Err(_) => failure.hint(format!("go on with: toka run --resume {}", id.short())),
        }
    })
}

pub(crate) fn tell_end(run: &Run, finish: &Finish) -> Result<u8, Failure> {
    let session = finish.session;
    let mut out = std::io::stdout().lock();
    let told = if run.json {
        let why = finish.why.as_ref().map(|why| json!({ "step": why.path, "detail": why.detail }));
        let mut document = json!({
            "schema": "toka/run/1", "session": session.to_string(), "completed": finish.completed,
            "code": finish.code.name(), "why": why,
        });
        if finish.agents.len() > 1 {
            let agent = |end: &AgentEnd| {
                let why = end.why.as_ref().map(|why| json!({ "step": why.path, "detail": why.detail }));
                json!({ "name": end.name, "outcome": end_word(end), "code": end.code.name(), "why": why })
            };
            document["agents"] = finish.agents.iter().map(agent).collect();
        }
        writeln!(out, "{document}")
    } else {
        writeln!(out, "{}", session.short())
    };
    // That the agent failed is said whether or not anybody reads on.
    if finish.completed {
        told?;
        return Ok(exit::OK);
    }
    if let Some(step) = &finish.unavailable {
        let what = format!("session {}: a tool was not run: the jail failed at `{step}`", session.short());
        let hint = "`toka doctor` tells what this machine can confine, and the fix";
        return Err(Failure::new(exit::SANDBOX, what).hint(hint));
    }
    let what = match &finish.why {
        Some(why) => format!("the agent failed ({}) at step {}: {}", finish.code.name(), why.path, why.detail),
        None => format!("the agent failed ({})", finish.code.name()),
    };
    let code = if matches!(finish.code, EndCode::Budget | EndCode::TurnLimit) { exit::LIMIT } else { exit::FAILURE };
    Err(Failure::new(code, what).hint(format!("toka sessions show {} tells what happened", session.short())))
}

/// Prints what the file asks for and asks whether to grant it.
fn consent(run: &Run, asks: &str, grants: &[Capability]) -> Result<(), Failure> {
    if !run.quiet && !run.json {
        talk(&format!("{asks} for:"));
        for grant in grants {
            talk(&format!("  {grant}"));
        }
    }
    if run.grant_requested {
        return Ok(());
    }
    let denied = |what: &str| Failure::new(exit::DENIED, what).hint("--grant-requested grants what the file asks for");
    if !std::io::stdin().is_terminal() {
        return Err(denied("nobody can be asked whether to grant this"));
    }
    let until = grants.iter().filter_map(|grant| grant.exp_us).max().map_or_else(|| "?".to_owned(), instant);
    write!(std::io::stderr(), "grant this until {until} at the latest? [y/N] ")?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(denied("not granted")) }
}

/// The directory of each root that the grants name.
fn directories(run: &Run, home: &Home, grants: &[Capability]) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let mut dirs: BTreeMap<String, PathBuf> = BTreeMap::new();
    for (name, dir) in &run.roots {
        if dirs.insert(name.clone(), directory(home, name, dir)?).is_some() {
            return Err(Failure::new(exit::USAGE, format!("--root {name} is given twice")));
        }
    }
    let named: BTreeSet<&str> = grants.iter().filter_map(root_name).collect();
    if let Some(missing) = named.iter().find(|name| !dirs.contains_key(**name)) {
        return Err(Failure::new(exit::USAGE, format!("the file asks for the root `{missing}`"))
            .hint(format!("--root {missing}=DIR says which directory that is")));
    }
    for unused in dirs.keys().filter(|name| !named.contains(name.as_str())) {
        talk(&format!("note: --root {unused} is named by no capability of the file"));
    }
    Ok(dirs)
}

/// The directory itself, which has nothing of the node in it and does not lie in the node's folder.
fn directory(home: &Home, name: &str, dir: &Path) -> Result<PathBuf, Failure> {
    let found = std::fs::canonicalize(dir).map_err(|error| {
        Failure::new(exit::USAGE, format!("--root {name}: {}: {error}", dir.display()))
            .hint(format!("--root {name}=DIR says which directory that is"))
    })?;
    if !found.is_dir() {
        return Err(Failure::new(exit::USAGE, format!("--root {name}: {} is no directory", dir.display())));
    }
    let node = std::fs::canonicalize(home.dir())?;
    if found.starts_with(&node) || node.starts_with(&found) {
        let what = format!("--root {name}: {} overlaps the node's own folder {}", found.display(), node.display());
        return Err(Failure::new(exit::USAGE, what).hint("an agent must not reach keys or store; name another folder"));
    }
    Ok(found)
}

fn root_name(grant: &Capability) -> Option<&str> {
    match &grant.scope {
        Scope::Fs(scope) => Some(scope.path().anchor().root()),
        Scope::Tool(_) | Scope::Agent(_) | Scope::Model(_) | Scope::Admin(_) => None,
    }
}

fn open_roots(dirs: &BTreeMap<String, PathBuf>) -> Result<Roots, Failure> {
    let open = |(name, dir): (&String, &PathBuf)| match toka_tools::open_root(dir) {
        Ok(root) => Ok((name.clone(), root)),
        Err(error) => Err(Failure::new(exit::FAILURE, format!("root {name}, {}: {error}", dir.display()))),
    };
    dirs.iter().map(open).collect()
}

/// The store, with this process as its one writer.
pub(crate) fn writer(home: &Home) -> Result<Arc<dyn Log>, Failure> {
    match SqliteLog::open(home.store_path()) {
        Ok(log) => Ok(Arc::new(log)),
        Err(error @ OpenError::Busy { .. }) => {
            Err(Failure::new(exit::BUSY, error.to_string()).hint("one process writes a store; wait for it, or stop it"))
        }
        Err(error) => Err(Failure::new(exit::UNREADABLE, error.to_string())),
    }
}

pub(crate) fn clock_fault(fault: ClockFault) -> Failure {
    Failure::new(fault.exit_code(), fault.to_string()).hint(fault.hint())
}

pub(crate) fn node(home: &Home) -> Node {
    Node {
        origin: home.origin().to_owned(),
        root_key: home.root().key().id(),
        key_grants: home.grant_records(),
        operator: home.operator_id(),
        build: concat!("toka ", env!("CARGO_PKG_VERSION")).to_owned(),
    }
}

fn means(run: &Run, tools: Vec<Tool>, roots: Roots, system: System) -> Means {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let watch = Arc::new(Printer { json: run.json, quiet: run.quiet });
    Means { tools, launcher: tools::launcher(), roots, threads, watch, system: Some(system) }
}

/// Prints entries as they become durable.
struct Printer {
    json: bool,
    quiet: bool,
}

/// Says aloud that a tool was taken from the agents, and what to do about it.
fn tell_quarantined(entry: &Entry) {
    if let Ok(Body::ToolUnbound(unbound)) = entry.event().map(|event| &event.body) {
        let name = &unbound.name;
        talk(&format!("tool `{name}` is quarantined: its files are not those that were approved"));
        talk(&format!("hint: look at them; then `toka tools register` and `toka tools approve {name}`"));
    }
}

impl Watch for Printer {
    fn entry(&self, entry: &Entry, views: &Views) {
        tell_quarantined(entry);
        let Some(moment) = views.timeline.iter().next_back() else { return };
        if self.json {
            let document = json!({
                "call": call_of(entry).map(|call| call.to_string()),
                "seq": moment.seq, "hash": entry.hash().to_string(), "session": entry.session().to_string(),
                "time_us": moment.time_us, "kind": moment.kind, "who": moment.who, "what": moment.what,
            });
            line(&document.to_string());
        } else if !self.quiet {
            talk(&format!("{:>5}  {:<14}  {:<12}  {}", moment.seq, moment.kind, moment.who, moment.what));
        }
    }

    fn started(&self, call: CallId) {
        if self.json {
            line(&json!({ "started": call.to_string() }).to_string());
        }
    }
}

/// The call that an entry admits or ends.
fn call_of(entry: &Entry) -> Option<CallId> {
    match &entry.event().ok()?.body {
        Body::CallAdmitted(_) => Some(CallId(derived(entry.session(), entry.header().seq, 0))),
        Body::CallFinished(finished) => Some(finished.call),
        Body::SessionOpened(_)
        | Body::StateCommitted(_)
        | Body::SessionClosed(_)
        | Body::Refused(..)
        | Body::AgentSpawned(_)
        | Body::AgentStarted(_)
        | Body::AgentEnded(_)
        | Body::GrantIssued(_)
        | Body::GrantRevoked(_)
        | Body::ToolBound(_)
        | Body::SessionRegistered(_)
        | Body::SessionEnded(_)
        | Body::ToolRegistered(_)
        | Body::ToolApproved(_)
        | Body::ToolQuarantined(_)
        | Body::ToolUnbound(_)
        | Body::OutcomeResolved(_)
        | Body::PrincipalAdded(_)
        | Body::AgentPaused(_)
        | Body::AgentResumed(_)
        | Body::AgentStopping(_)
        | Body::TaskScheduled(_)
        | Body::TaskStarted(_)
        | Body::TaskCompleted(_)
        | Body::TaskFailed(_)
        | Body::TaskSkipped(_)
        | Body::MessageSent(_)
        | Body::MessageTaken(_)
        | Body::CallAttempted(_)
        | Body::CancelRequested(_)
        | Body::Observed(_)
        | Body::SandboxProbed(_) => None,
    }
}

/// One line on stdout. A reader that has gone does not stop a session: what happens is in the store.
fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

pub(crate) fn refuse_file(errors: &[FileError]) -> Failure {
    for error in errors {
        talk(&format!("{error}\n  hint: {}", error.hint));
    }
    let what = format!("{} in the agent file; nothing was run", count(errors.len(), "error", "errors"));
    if errors.iter().any(|error| error.code == FileCode::Unreadable) {
        return Failure::new(exit::UNREADABLE, what);
    }
    Failure::new(exit::FAILURE, what)
}

pub(crate) fn failed(error: RunError) -> Failure {
    if let RunError::Load(LoadError::Clock(fault)) | RunError::Commit(CommitError::Clock(fault)) = &error {
        return Failure::new(fault.exit_code(), fault.to_string()).hint(fault.hint());
    }
    if let RunError::System(error) = error {
        return tools::failed(error);
    }
    let code = match &error {
        RunError::System(_) | RunError::Commit(CommitError::Read(_)) | RunError::Load(_) | RunError::Fold(_) => {
            exit::UNREADABLE
        }
        RunError::Refused { code, .. } if code.is_limit() => exit::LIMIT,
        RunError::InDoubt { .. } => exit::INCOMPLETE,
        RunError::Refused { .. }
        | RunError::NotApproved(_)
        | RunError::ProbeNotApproved { .. }
        | RunError::Unsigned => exit::DENIED,
        RunError::Commit(_)
        | RunError::Capability { .. }
        | RunError::NoTool { .. }
        | RunError::NoProbe(_)
        | RunError::NoModel { .. }
        | RunError::TooManyRoots(_)
        | RunError::Stuck(_)
        | RunError::TooDeep
        | RunError::Closed(_) => exit::FAILURE,
    };
    let failure = Failure::new(code, error.to_string());
    match &error {
        RunError::ProbeNotApproved { probe, .. } => failure.hint(how_to_approve(probe)),
        RunError::NotApproved(tool) => failure.hint(how_to_approve(tool)),
        RunError::System(_)
        | RunError::Commit(_)
        | RunError::Load(_)
        | RunError::Fold(_)
        | RunError::Refused { .. }
        | RunError::InDoubt { .. }
        | RunError::Unsigned
        | RunError::Capability { .. }
        | RunError::NoTool { .. }
        | RunError::NoProbe(_)
        | RunError::NoModel { .. }
        | RunError::TooManyRoots(_)
        | RunError::Stuck(_)
        | RunError::TooDeep
        | RunError::Closed(_) => failure,
    }
}

fn how_to_approve(tool: &str) -> String {
    format!("look at it with `toka tools show {tool}`, then `toka tools approve {tool}`")
}

pub(crate) fn named_root(text: &str) -> Result<(String, PathBuf), String> {
    let (name, dir) = text.split_once('=').ok_or("write NAME=DIR")?;
    if !toka_kernel::capability::is_name_seg(name) {
        return Err(format!("`{name}` is no root name: lower-case letters, digits, `-` and `_`, at most 32"));
    }
    if dir.is_empty() {
        return Err("write NAME=DIR; DIR is missing".to_owned());
    }
    Ok((name.to_owned(), PathBuf::from(dir)))
}
