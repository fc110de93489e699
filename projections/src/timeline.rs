//! Everything that happened, in order and in words.

use std::collections::BTreeMap;

use toka_kernel::body::v1::{Outcome, Refused};
use toka_kernel::facts::Fact;
use toka_kernel::ids::{CallId, PrincipalId, Seq, TaskId, TimeUs, derived};
use toka_kernel::tool::Model;
use toka_kernel::{Ask, Body, Code, Entry, Event, PrincipalKind, ToolState};

/// The entries of a session in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timeline {
    moments: Vec<Moment>,
    names: BTreeMap<PrincipalId, String>,
    /// How many agents of each spec were spawned.
    spawned: BTreeMap<String, u64>,
    tools: BTreeMap<CallId, String>,
    tasks: BTreeMap<TaskId, String>,
}

/// One entry in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Its seq.
    pub seq: Seq,
    /// Its time.
    pub time_us: TimeUs,
    /// The name of its kind.
    pub kind: &'static str,
    /// Who asked: the name of an agent's spec, `node`, `opener`, `executor`, or a short id.
    pub who: String,
    /// What happened.
    pub what: String,
}

impl Timeline {
    /// Every moment, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Moment> {
        self.moments.iter()
    }

    /// What a principal is called here.
    pub fn name(&self, id: PrincipalId) -> String {
        Known::name(self, id)
    }

    pub(crate) fn fold(&mut self, entry: &Entry, event: &Event) {
        let header = entry.header();
        self.learn(entry, event);
        let moment = Moment {
            seq: header.seq,
            time_us: header.time_us,
            kind: event.name(),
            who: self.name(header.principal),
            what: words(event, self),
        };
        self.moments.push(moment);
    }

    fn learn(&mut self, entry: &Entry, event: &Event) {
        let made = |ordinal| derived(entry.session(), entry.header().seq, ordinal);
        match &event.body {
            Body::SessionOpened(genesis) => {
                self.names.insert(PrincipalId::NODE, "node".to_owned());
                for listed in &genesis.principals {
                    let Some(id) = listed.id else { continue };
                    let name = if id == genesis.opener { "opener" } else { service_word(listed.kind, listed.models) };
                    self.names.insert(id, name.to_owned());
                }
            }
            Body::AgentSpawned(spawned) => {
                let count = self.spawned.entry(spawned.spec.clone()).or_default();
                *count += 1;
                let name = if *count == 1 { spawned.spec.clone() } else { format!("{}#{count}", spawned.spec) };
                self.names.insert(PrincipalId(made(0)), name);
            }
            Body::PrincipalAdded(added) => {
                let id = PrincipalId(made(0));
                let kind = PrincipalKind::from_number(added.kind).map_or("principal", PrincipalKind::name);
                self.names.insert(id, format!("{kind} {}", id.short()));
            }
            Body::TaskScheduled(scheduled) => {
                self.tasks.insert(TaskId(made(0)), scheduled.name.clone());
            }
            Body::CallAdmitted(admitted) => {
                self.tools.insert(CallId(made(0)), admitted.tool.clone());
            }
            Body::StateCommitted(_)
            | Body::SessionClosed(_)
            | Body::Refused(..)
            | Body::AgentStarted(_)
            | Body::AgentEnded(_)
            | Body::GrantIssued(_)
            | Body::GrantRevoked(_)
            | Body::ToolBound(_)
            | Body::CallFinished(_)
            | Body::SessionRegistered(_)
            | Body::SessionEnded(_)
            | Body::ToolRegistered(_)
            | Body::ToolApproved(_)
            | Body::ToolQuarantined(_)
            | Body::ToolUnbound(_)
            | Body::OutcomeResolved(_)
            | Body::AgentPaused(_)
            | Body::AgentResumed(_)
            | Body::AgentStopping(_)
            | Body::TaskStarted(_)
            | Body::TaskCompleted(_)
            | Body::TaskFailed(_)
            | Body::TaskSkipped(_)
            | Body::MessageSent(_)
            | Body::MessageTaken(_)
            | Body::CallAttempted(_)
            | Body::CancelRequested(_)
            | Body::Observed(_)
            | Body::SandboxProbed(_) => {}
        }
    }
}

/// The end codes of agents and tasks, by number.
pub const END_CODES: [&str; 18] = [
    "NONE",
    "CALL",
    "NO_VALUE",
    "NO_FINISH",
    "MODEL_REFUSED",
    "LOOP",
    "TOO_MANY_MALFORMED",
    "TOO_MANY_REFUSALS",
    "TURN_LIMIT",
    "CONTEXT_FULL",
    "OBJECTIVE",
    "DELIVERABLE",
    "BUDGET",
    "TASK",
    "DEPENDENCY",
    "SPAWN_TIMEOUT",
    "WORKSTREAM_TIMEOUT",
    "SCRIPT",
];

/// What principals, calls and tasks are called.
pub trait Known {
    /// What a principal is called.
    fn name(&self, id: PrincipalId) -> String;
    /// The tool that a call is of.
    fn tool(&self, call: CallId) -> String;
    /// The name of a task.
    fn task(&self, task: TaskId) -> String;
}

impl Known for Timeline {
    fn name(&self, id: PrincipalId) -> String {
        self.names.get(&id).cloned().unwrap_or_else(|| id.short())
    }

    fn tool(&self, call: CallId) -> String {
        self.tools.get(&call).cloned().unwrap_or_default()
    }

    fn task(&self, task: TaskId) -> String {
        self.tasks.get(&task).cloned().unwrap_or_else(|| task.short())
    }
}

/// What an event says, in words.
pub fn words(event: &Event, known: &impl Known) -> String {
    let (name, tool, task) = (|id| known.name(id), |call| known.tool(call), |task| known.task(task));
    match &event.body {
        Body::SessionOpened(genesis) => {
            let roots: Vec<String> = genesis.grants.iter().map(|grant| grant.cap.to_string()).collect();
            format!("session opened at {}; root grants: {}", genesis.origin, list(&roots))
        }
        Body::StateCommitted(committed) => format!("state {} after {}", committed.digest.short(), committed.upto),
        Body::SessionClosed(closed) => {
            let why = ["done", "failed", "asked"].get(usize::from(closed.why).wrapping_sub(1)).unwrap_or(&"?");
            format!("session closed: {why}")
        }
        Body::Refused(refused, ask) => refusal_words(refused, ask),
        Body::AgentSpawned(spawned) => {
            let grants: Vec<String> = spawned.grants.iter().map(|grant| grant.cap.to_string()).collect();
            format!("{} spawned with {}", spawned.spec, list(&grants))
        }
        Body::AgentStarted(started) => format!("{} started", name(started.agent)),
        Body::AgentEnded(ended) => {
            let how = ["completed", "failed", "stopped"].get(usize::from(ended.how).wrapping_sub(1)).unwrap_or(&"?");
            match END_CODES.get(usize::from(ended.code)) {
                None | Some(&"NONE") => format!("{} {how}", name(ended.agent)),
                Some(code) => format!("{} {how}: {code}", name(ended.agent)),
            }
        }
        Body::AgentPaused(paused) => format!("{} paused: {}", name(paused.agent), held_word(paused.why)),
        Body::AgentResumed(resumed) => format!("{} goes on", name(resumed.agent)),
        Body::AgentStopping(stopping) => format!("{} is to stop: {}", name(stopping.agent), held_word(stopping.why)),
        Body::TaskScheduled(scheduled) => format!("task {} of {} scheduled", scheduled.name, name(scheduled.agent)),
        Body::TaskStarted(started) => format!("task {} started{}", task(started.task), again(started.attempt)),
        Body::TaskCompleted(completed) => format!("task {} completed", task(completed.task)),
        Body::TaskFailed(failed) => {
            let code = END_CODES.get(usize::from(failed.code)).unwrap_or(&"?");
            let again = if failed.not_before.is_some() { ", to be tried again" } else { "" };
            format!("task {} failed: {code}{again}", task(failed.task))
        }
        Body::TaskSkipped(skipped) => {
            let why = ["dependency", "condition", "stopped"].get(usize::from(skipped.why).wrapping_sub(1));
            format!("task {} skipped: {}", task(skipped.task), why.unwrap_or(&"?"))
        }
        Body::MessageSent(sent) => format!("message to {}", name(sent.to)),
        Body::MessageTaken(taken) => format!("message {} read", taken.message.short()),
        Body::CallAttempted(attempted) => {
            let cause = ["status", "connect", "deadline", "cut", "reply", "crash", "lost"];
            let cause = cause.get(usize::from(attempted.cause).wrapping_sub(1)).unwrap_or(&"?");
            let status = if attempted.status == 0 { String::new() } else { format!(" {}", attempted.status) };
            format!("{} attempt {}: {cause}{status}", tool(attempted.call), attempted.attempt)
        }
        Body::CancelRequested(cancelled) => {
            let why = ["asked", "revoked", "session closing", "task ended"];
            let why = why.get(usize::from(cancelled.why).wrapping_sub(1)).unwrap_or(&"?");
            format!("{} is to be stopped: {why}", tool(cancelled.call))
        }
        Body::GrantIssued(issued) => format!("{} granted {}", name(issued.grant.subject), issued.grant.cap),
        Body::GrantRevoked(revoked) => format!("grant {} revoked", revoked.grant.short()),
        Body::ToolBound(bound) => {
            let names: Vec<String> = bound.tools.iter().map(|binding| binding.tool.name.clone()).collect();
            format!("tools bound: {}", list(&names))
        }
        Body::CallAdmitted(admitted) => format!("{}{}", admitted.tool, fact_words(&admitted.facts)),
        Body::CallFinished(finished) => {
            format!("{} {}", tool(finished.call), outcome_words(&finished.outcome))
        }
        Body::SessionRegistered(registered) => {
            let roots: Vec<String> = registered.roots.iter().map(|root| root.cap.to_string()).collect();
            let (session, opener) = (registered.session.short(), name(registered.opener));
            format!("session {session} registered for {opener}; root grants: {}", list(&roots))
        }
        Body::SessionEnded(ended) => match &ended.head {
            Some(head) => format!("session {} ended after {}", ended.session.short(), head.seq),
            None => format!("session {} was never opened", ended.session.short()),
        },
        Body::ToolRegistered(registered) => {
            let state = ToolState::from_number(registered.state).map_or("?", ToolState::name);
            format!("tool {} {} registered: {state}", registered.tool.name, registered.tool.digest.short())
        }
        Body::ToolApproved(approved) => format!("tool {} {} approved", approved.name, approved.digest.short()),
        Body::ToolQuarantined(found) => format!("tool {} quarantined: {}", found.name, why_word(found.why)),
        Body::ToolUnbound(unbound) => format!("tool {} unbound: {}", unbound.name, why_word(unbound.why)),
        Body::OutcomeResolved(resolved) => {
            let verdicts = ["done", "not done", "abandoned"];
            let verdict = verdicts.get(usize::from(resolved.verdict).wrapping_sub(1)).unwrap_or(&"?");
            format!("{} resolved: {verdict}", tool(resolved.call))
        }
        Body::PrincipalAdded(added) => {
            let kind = PrincipalKind::from_number(added.kind).map_or("?", PrincipalKind::name);
            format!("{kind} added with {} keys", added.keys.len())
        }
        Body::Observed(observed) => format!("observed: {}, {}", observed_word(observed.what), observed.count),
        Body::SandboxProbed(probed) => {
            let levels = [(1, "strong"), (2, "landlock")].into_iter().filter(|(bit, _)| probed.levels & bit != 0);
            let levels: Vec<String> = levels.map(|(_, level)| level.to_owned()).collect();
            format!("sandbox levels here: {}; {}", list(&levels), probed.kernel)
        }
    }
}

fn refusal_words(refused: &Refused, ask: &Ask) -> String {
    let asked = match ask {
        Ask::Call(asked) => format!("{}{}", asked.tool, fact_words(&asked.facts)),
        Ask::SpawnAgent(asked) => format!("spawn {}", asked.spec),
        Ask::Grant(asked) => format!("grant {}", asked.grant.cap),
        Ask::CommitState(_) => "commit to the state".to_owned(),
        Ask::CloseSession(_) => "close the session".to_owned(),
        Ask::StartAgent(_) => "start an agent".to_owned(),
        Ask::PauseAgent(_) => "pause an agent".to_owned(),
        Ask::ResumeAgent(_) => "resume an agent".to_owned(),
        Ask::StopAgent(_) => "stop an agent".to_owned(),
        Ask::EndAgent(_) => "end an agent".to_owned(),
        Ask::ScheduleTask(asked) => format!("schedule task {}", asked.name),
        Ask::StartTask(_) => "start a task".to_owned(),
        Ask::CompleteTask(_) => "complete a task".to_owned(),
        Ask::FailTask(_) => "fail a task".to_owned(),
        Ask::SkipTask(_) => "skip a task".to_owned(),
        Ask::SendMessage(_) => "send a message".to_owned(),
        Ask::TakeMessage(_) => "take a message".to_owned(),
        Ask::Revoke(asked) => format!("revoke {}", asked.grant.short()),
        Ask::BindTool(_) => "bind tools".to_owned(),
        Ask::Report(_) => "report an outcome".to_owned(),
        Ask::ReportAttempt(_) => "report an attempt".to_owned(),
        Ask::CancelCall(_) => "stop a call".to_owned(),
        Ask::OpenSession(asked) => format!("open session {}", asked.session.short()),
        Ask::EndSession(asked) => format!("end session {}", asked.session.short()),
        Ask::RegisterTool(asked) => format!("register tool {}", asked.tool.name),
        Ask::ApproveTool(asked) => format!("approve tool {}", asked.name),
        Ask::QuarantineTool(asked) => format!("quarantine tool {}", asked.name),
        Ask::UnbindTool(asked) => format!("unbind tool {}", asked.name),
        Ask::ResolveOutcome(_) => "resolve an outcome".to_owned(),
        Ask::AddPrincipal(_) => "add a principal".to_owned(),
        Ask::Observe(asked) => format!("record: {}", observed_word(asked.what)),
        Ask::RecordProbe(_) => "record what the sandbox can do".to_owned(),
    };
    let code = Code::from_number(refused.code).map_or("?", Code::name);
    match (&refused.need, &refused.rule) {
        (Some(need), _) => format!("{asked}: {code}, it would need {need}"),
        (None, Some(rule)) => format!("{asked}: {code} ({rule})"),
        (None, None) => format!("{asked}: {code}"),
    }
}

fn held_word(why: u8) -> &'static str {
    const WHY: [&str; 8] =
        ["asked", "ancestor", "budget", "DIVERGED", "DRIVER_UNSUPPORTED", "dependency", "timeout", "policy stop_all"];
    WHY.get(usize::from(why).wrapping_sub(1)).copied().unwrap_or("?")
}

fn again(attempt: u16) -> String {
    if attempt == 1 { String::new() } else { format!(", attempt {attempt}") }
}

fn why_word(why: u8) -> &'static str {
    const WHY: [&str; 5] = ["drift", "toolchain", "server", "disabled", "by operator"];
    WHY.get(usize::from(why).wrapping_sub(1)).copied().unwrap_or("?")
}

fn observed_word(what: u16) -> &'static str {
    const WHAT: [&str; 9] = [
        "toolchain changed",
        "server started",
        "server stopped",
        "server disabled",
        "tool use outside our control",
        "request changed by redaction policy",
        "route refused by the model proxy",
        "late output withheld",
        "store failure",
    ];
    WHAT.get(usize::from(what).wrapping_sub(1)).copied().unwrap_or("?")
}

fn fact_words(facts: &[Fact]) -> String {
    let words = facts.iter().map(|fact| match (&fact.text, fact.int) {
        (Some(text), _) => format!(" {text}"),
        (None, Some(int)) => format!(" {}={int}", fact.pointer.trim_start_matches('/')),
        (None, None) => String::new(),
    });
    words.collect()
}

/// What a principal is called that a session begins with and that is no person: who runs tools, who asks models, who
/// starts the agents of a plan.
pub fn service_word(kind: u8, models: u8) -> &'static str {
    const ASKS_MODELS: u8 = 1 << (Model::Agent as u8 - 1);
    match PrincipalKind::from_number(kind) {
        Some(PrincipalKind::Executor) if models == ASKS_MODELS => "gateway",
        Some(PrincipalKind::Service) => "orchestrator",
        Some(PrincipalKind::Human | PrincipalKind::Agent | PrincipalKind::Executor | PrincipalKind::Node) | None => {
            "executor"
        }
    }
}

/// The outcome of a call in a word: the symbol of a failure, or else the name of the kind of outcome.
pub fn outcome_word(outcome: &Outcome) -> String {
    match &outcome.symbol {
        Some(symbol) if outcome.kind == FAILED => symbol.clone(),
        Some(_) | None => kind_word(outcome.kind).to_owned(),
    }
}

/// The outcome of a call with what is known of it: `not-found`, `failed (3)`, `setup-failed: root (errno 2)`.
pub fn outcome_words(outcome: &Outcome) -> String {
    let symbol = outcome.symbol.as_ref().filter(|_| outcome.kind != FAILED);
    let symbol = symbol.map(|symbol| format!(": {symbol}")).unwrap_or_default();
    // Before anything ran, the number is what the system said; later it is the program's, or a signal's.
    let what = if NOTHING_RAN.contains(&outcome.kind) { "errno " } else { "" };
    let number = outcome.number.map(|number| format!(" ({what}{number})")).unwrap_or_default();
    format!("{}{symbol}{number}", outcome_word(outcome))
}

/// Kinds of outcomes of `docs/FORMAT.md`.
const FAILED: u8 = 2;
/// SandboxUnavailable, SetupFailed, StartFailed.
const NOTHING_RAN: std::ops::RangeInclusive<u8> = 12..=14;

/// The kinds of outcomes of calls; the number is the place, from 1.
pub const OUTCOMES: [&str; 16] = [
    "succeeded",
    "failed",
    "invalid-output",
    "signalled",
    "trapped",
    "timed-out",
    "limit-exceeded",
    "cancelled",
    "unreaped",
    "lost",
    "unknown",
    "sandbox-unavailable",
    "setup-failed",
    "start-failed",
    "pin-mismatch",
    "declined",
];

fn kind_word(kind: u8) -> &'static str {
    OUTCOMES.get(usize::from(kind).wrapping_sub(1)).copied().unwrap_or("?")
}

fn list(words: &[String]) -> String {
    if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
}
