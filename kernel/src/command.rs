//! Commands: what is asked of the kernel, by a principal.

mod implied;

use crate::body::v1::{
    AddPrincipalAsked, ApproveToolAsked, AttemptAsked, BindAsked, CallAsked, CancelAsked, CloseAsked, Cmd, CommitAsked,
    CompleteTaskAsked, EndAsked, EndSessionAsked, FailTaskAsked, GrantAsked, IssueAsked, ObserveAsked,
    OpenSessionAsked, PauseAsked, ProbeAsked, QuarantineToolAsked, RegisterToolAsked, ReportAsked, ResolveAsked,
    ResumeAsked, RevokeAsked, ScheduleAsked, SendAsked, SkipTaskAsked, SpawnAsked, StartAsked, StartTaskAsked,
    StopAsked, TakeAsked, UnbindAsked, Via,
};
use crate::body::{self};
use crate::denial::Code;
use crate::entry::BlobRef;
use crate::event::{BodyFault, blobs_in_order, kind};
use crate::ids::{Bytes, CommandId, GrantId, Seq};
use crate::limits::{
    BLOBS_PER_ENTRY_MAX, BODY_BYTES_MAX, CAPABILITY_TEXT_BYTES_MAX, COMMAND_BYTES_MAX, DIMENSIONS, FACTS_MAX,
    GENESIS_GRANTS_MAX, NEEDS_MAX, PLAN_NAMES_MAX, PRINCIPAL_KEYS_MAX, PROBE_TEXT_BYTES_MAX, REFUSAL_BYTES_MAX,
    SCALAR_BYTES_MAX, SIGNED_BYTES_MAX, SPAWN_GRANTS_BYTES_MAX, SPAWN_GRANTS_MAX, TASK_REQUIRES_MAX, TOOL_BYTES_MAX,
    TOOLS_PER_BINDING_MAX,
};

/// What is asked, by whom it is known when it is sent again, and under what right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Sixteen bytes that its sender chose; zeros for what the node asks of itself.
    pub id: CommandId,
    /// The seq its sender had read: recorded, never a reason to refuse.
    pub as_of: Seq,
    /// The administrative grant it uses.
    pub under: Option<GrantId>,
    /// The token it came by.
    pub via: Option<Via>,
    /// Its own signature, where one is due.
    pub signed: Option<Bytes>,
    /// What is asked.
    pub ask: Ask,
    /// The blobs it refers to, at most 64, in the order of first reference.
    pub blobs: Vec<BlobRef>,
}

/// Declares the commands: for each what it asks, the kind of the event that answers it, and whether only the node asks it,
/// and only of itself.
macro_rules! asks {
    ($($(#[$doc:meta])* $name:ident($asked:ty) = $kind:ident, of_node: $of_node:literal;)*) => {
        /// What is asked. A closed list.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Ask { $($(#[$doc])* $name($asked)),* }

        impl Ask {
            /// The kind of the event that answers it.
            pub fn kind(&self) -> u16 {
                match self { $(Ask::$name(_) => kind::$kind),* }
            }

            /// Whether only the node asks this, and only of itself.
            pub fn is_of_node(&self) -> bool {
                match self { $(Ask::$name(_) => $of_node),* }
            }

            /// The bytes that stand in a refusal.
            pub fn encode(&self) -> Vec<u8> {
                match self { $(Ask::$name(asked) => body::encode(asked)),* }
            }

            fn encoded_len(&self) -> usize {
                match self { $(Ask::$name(asked) => body::encoded_len(asked)),* }
            }

            /// Reads what stands in a refusal.
            ///
            /// # Errors
            /// [`BodyFault`] for bytes that no writer of this version makes.
            pub fn decode(of: u16, schema: u16, bytes: &[u8]) -> Result<Ask, BodyFault> {
                if schema != 1 {
                    return Err(BodyFault::UnknownSchema { kind: of, schema });
                }
                Ok(match of {
                    $(kind::$kind => Ask::$name(body::decode(bytes)?),)*
                    other => return Err(BodyFault::UnknownKind(other)),
                })
            }
        }
    };
}

asks! {
    /// Commit to the state.
    CommitState(CommitAsked) = STATE_COMMITTED, of_node: true;
    /// Close the session.
    CloseSession(CloseAsked) = SESSION_CLOSED, of_node: false;
    /// Make an agent with grants.
    SpawnAgent(Box<SpawnAsked>) = AGENT_SPAWNED, of_node: false;
    /// Let an agent run.
    StartAgent(StartAsked) = AGENT_STARTED, of_node: false;
    /// Let an agent, and all below it, do nothing new.
    PauseAgent(PauseAsked) = AGENT_PAUSED, of_node: false;
    /// Let an agent go on.
    ResumeAgent(ResumeAsked) = AGENT_RESUMED, of_node: false;
    /// Bring an agent, and all below it, to its end.
    StopAgent(StopAsked) = AGENT_STOPPING, of_node: false;
    /// End an agent.
    EndAgent(EndAsked) = AGENT_ENDED, of_node: false;
    /// Give an agent a task.
    ScheduleTask(ScheduleAsked) = TASK_SCHEDULED, of_node: false;
    /// Begin an attempt of a task.
    StartTask(StartTaskAsked) = TASK_STARTED, of_node: false;
    /// Say that a task is done.
    CompleteTask(CompleteTaskAsked) = TASK_COMPLETED, of_node: false;
    /// Say that an attempt of a task has failed.
    FailTask(FailTaskAsked) = TASK_FAILED, of_node: false;
    /// Say that a task is not to be done.
    SkipTask(SkipTaskAsked) = TASK_SKIPPED, of_node: false;
    /// Send an agent a message.
    SendMessage(SendAsked) = MESSAGE_SENT, of_node: false;
    /// Take a message out of the mailbox.
    TakeMessage(TakeAsked) = MESSAGE_TAKEN, of_node: false;
    /// Issue a grant.
    Grant(IssueAsked) = GRANT_ISSUED, of_node: false;
    /// Revoke a grant.
    Revoke(RevokeAsked) = GRANT_REVOKED, of_node: false;
    /// Bind tools.
    BindTool(BindAsked) = TOOL_BOUND, of_node: true;
    /// Call a tool.
    Call(Box<CallAsked>) = CALL_ADMITTED, of_node: false;
    /// Report how a call ended.
    Report(Box<ReportAsked>) = CALL_FINISHED, of_node: false;
    /// Report that an attempt of a call came to nothing and another follows.
    ReportAttempt(AttemptAsked) = CALL_ATTEMPTED, of_node: false;
    /// Stop a call.
    CancelCall(CancelAsked) = CANCEL_REQUESTED, of_node: false;
    /// Open a session.
    OpenSession(Box<OpenSessionAsked>) = SESSION_REGISTERED, of_node: false;
    /// Say that a session has ended.
    EndSession(EndSessionAsked) = SESSION_ENDED, of_node: true;
    /// Make a tool known.
    RegisterTool(Box<RegisterToolAsked>) = TOOL_REGISTERED, of_node: false;
    /// Approve a tool.
    ApproveTool(ApproveToolAsked) = TOOL_APPROVED, of_node: false;
    /// Say that a tool is not what was approved.
    QuarantineTool(QuarantineToolAsked) = TOOL_QUARANTINED, of_node: true;
    /// Let nobody call a bound tool any more.
    UnbindTool(UnbindAsked) = TOOL_UNBOUND, of_node: true;
    /// Settle an unknown outcome.
    ResolveOutcome(ResolveAsked) = OUTCOME_RESOLVED, of_node: false;
    /// Add a principal.
    AddPrincipal(AddPrincipalAsked) = PRINCIPAL_ADDED, of_node: false;
    /// Record what was observed.
    Observe(ObserveAsked) = OBSERVED, of_node: false;
    /// Record how strongly the node can confine.
    RecordProbe(ProbeAsked) = SANDBOX_PROBED, of_node: true;
}

/// Why bytes or values are no command: they end at the edge, outside the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {actual}, at most {limit}")]
pub struct NoCommand {
    /// What is out of bounds.
    pub what: &'static str,
    /// How much there is.
    pub actual: usize,
    /// How much there may be.
    pub limit: usize,
}

impl NoCommand {
    /// The code an edge answers with.
    pub const CODE: Code = Code::Malformed;
}

impl Command {
    /// A command of a sender that chose `id` and had read up to `as_of`.
    pub fn new(id: CommandId, as_of: Seq, ask: Ask, blobs: Vec<BlobRef>) -> Command {
        Command { id, as_of, under: None, via: None, signed: None, ask, blobs }
    }

    /// A command that the node asks of itself and that its own rule keeps from repeating.
    pub fn of_node(ask: Ask, blobs: Vec<BlobRef>) -> Command {
        Command::new(CommandId::NONE, 0, ask, blobs)
    }

    pub(crate) fn of_event(cmd: Option<&Cmd>, ask: Ask, blobs: Vec<BlobRef>) -> Command {
        match cmd {
            None => Command::of_node(ask, blobs),
            Some(cmd) => Command {
                id: cmd.id,
                as_of: cmd.as_of,
                under: cmd.under,
                via: cmd.via.clone(),
                signed: cmd.signed.clone(),
                ask,
                blobs,
            },
        }
    }

    /// How an event names this command.
    pub(crate) fn cmd(&self) -> Option<Cmd> {
        (!self.ask.is_of_node()).then(|| Cmd {
            id: self.id,
            as_of: self.as_of,
            under: self.under,
            via: self.via.clone(),
            signed: self.signed.clone(),
        })
    }

    /// Checks every bound that must hold for the command to be recorded at all.
    ///
    /// # Errors
    /// The first bound that does not hold. What fails here never becomes an event, not even a refusal.
    pub fn check(&self) -> Result<(), NoCommand> {
        bound("blobs", self.blobs.len(), BLOBS_PER_ENTRY_MAX)?;
        let signed = if self.ask.is_of_node() { None } else { self.signed.as_ref() };
        let signed = signed.map_or(0, |signed| signed.0.len());
        bound("signed", signed, SIGNED_BYTES_MAX)?;
        self.ask.check()?;
        // Whatever is asked, it must be possible to refuse it.
        bound("command", self.ask.encoded_len() + signed, BODY_BYTES_MAX - REFUSAL_BYTES_MAX)
    }

    /// Whether this is a command at all: within its bounds, and referring to each of its blobs, first references
    /// ascending from 0.
    pub(crate) fn is_one(&self) -> bool {
        self.check().is_ok() && blobs_in_order(&self.ask.blob_indexes(self.blobs.len()), self.blobs.len())
    }
}

impl Ask {
    /// The tool that is called; none where none is.
    pub(crate) fn tool(&self) -> Option<&str> {
        if let Ask::Call(asked) = self { Some(&asked.tool) } else { None }
    }

    /// More about `code`, where preparing the command has found it.
    pub(crate) fn detail_of(&self, code: u16) -> Option<u16> {
        if let Ask::Call(asked) = self { asked.detail.filter(|_| asked.unfit == Some(code)) } else { None }
    }

    /// This without the texts of its capabilities, which stand in an event as they were filled.
    pub(crate) fn without_texts(&self) -> Ask {
        let mut ask = self.clone();
        let (grants, narrow): (&mut [GrantAsked], &mut [Option<String>]) = match &mut ask {
            Ask::SpawnAgent(asked) => (&mut asked.grants, &mut asked.narrow),
            Ask::Call(asked) => (&mut [], &mut asked.narrow),
            Ask::Grant(asked) => {
                asked.grant.cap.clear();
                (&mut [], &mut [])
            }
            Ask::OpenSession(asked) => {
                asked.roots.iter_mut().for_each(|root| root.cap.clear());
                (&mut [], &mut [])
            }
            Ask::CommitState(_)
            | Ask::CloseSession(_)
            | Ask::StartAgent(_)
            | Ask::PauseAgent(_)
            | Ask::ResumeAgent(_)
            | Ask::StopAgent(_)
            | Ask::EndAgent(_)
            | Ask::ScheduleTask(_)
            | Ask::StartTask(_)
            | Ask::CompleteTask(_)
            | Ask::FailTask(_)
            | Ask::SkipTask(_)
            | Ask::SendMessage(_)
            | Ask::TakeMessage(_)
            | Ask::Revoke(_)
            | Ask::BindTool(_)
            | Ask::Report(_)
            | Ask::ReportAttempt(_)
            | Ask::CancelCall(_)
            | Ask::EndSession(_)
            | Ask::RegisterTool(_)
            | Ask::ApproveTool(_)
            | Ask::QuarantineTool(_)
            | Ask::UnbindTool(_)
            | Ask::ResolveOutcome(_)
            | Ask::AddPrincipal(_)
            | Ask::Observe(_)
            | Ask::RecordProbe(_) => (&mut [], &mut []),
        };
        grants.iter_mut().for_each(|grant| grant.cap.clear());
        narrow.iter_mut().flatten().for_each(String::clear);
        ask
    }

    /// The indexes of `count` blobs that it refers to, in the order of the fields. Behind what a call names stand the
    /// pieces that its arguments are put together of.
    pub(crate) fn blob_indexes(&self, count: usize) -> Vec<u16> {
        match self {
            Ask::CommitState(_)
            | Ask::StartAgent(_)
            | Ask::ResumeAgent(_)
            | Ask::EndAgent(_)
            | Ask::StartTask(_)
            | Ask::FailTask(_)
            | Ask::SkipTask(_)
            | Ask::TakeMessage(_)
            | Ask::Grant(_)
            | Ask::OpenSession(_)
            | Ask::EndSession(_)
            | Ask::ApproveTool(_)
            | Ask::QuarantineTool(_)
            | Ask::UnbindTool(_)
            | Ask::AddPrincipal(_)
            | Ask::RecordProbe(_) => Vec::new(),
            Ask::RegisterTool(asked) => vec![asked.tool.text],
            Ask::ResolveOutcome(asked) => asked.evidence.into_iter().collect(),
            Ask::Observe(asked) => asked.detail.into_iter().collect(),
            Ask::PauseAgent(asked) => asked.reason.into_iter().collect(),
            Ask::StopAgent(asked) => asked.reason.into_iter().collect(),
            Ask::ScheduleTask(asked) => asked.text.into_iter().collect(),
            Ask::CompleteTask(asked) => asked.result.into_iter().collect(),
            Ask::SendMessage(asked) => vec![asked.content],
            Ask::ReportAttempt(asked) => asked.part.into_iter().collect(),
            Ask::CancelCall(asked) => asked.reason.into_iter().collect(),
            Ask::CloseSession(asked) => asked.reason.into_iter().collect(),
            Ask::Revoke(asked) => asked.reason.into_iter().collect(),
            Ask::SpawnAgent(asked) => vec![asked.text],
            Ask::BindTool(asked) => asked.tools.iter().map(|binding| binding.tool.text).collect(),
            Ask::Call(asked) => asked.named_blobs().chain(asked.pieces(count)).collect(),
            Ask::Report(asked) => {
                [asked.stdout, asked.stderr, asked.result, asked.record].into_iter().flatten().collect()
            }
        }
    }

    pub(crate) fn check(&self) -> Result<(), NoCommand> {
        match self {
            Ask::CommitState(_)
            | Ask::CloseSession(_)
            | Ask::StartAgent(_)
            | Ask::PauseAgent(_)
            | Ask::ResumeAgent(_)
            | Ask::StopAgent(_)
            | Ask::EndAgent(_)
            | Ask::StartTask(_)
            | Ask::CompleteTask(_)
            | Ask::FailTask(_)
            | Ask::SkipTask(_)
            | Ask::SendMessage(_)
            | Ask::TakeMessage(_)
            | Ask::ReportAttempt(_)
            | Ask::CancelCall(_)
            | Ask::Revoke(_)
            | Ask::ResolveOutcome(_)
            | Ask::Observe(_) => Ok(()),
            Ask::ScheduleTask(asked) => check_schedule(asked),
            Ask::OpenSession(asked) => check_open(asked),
            Ask::EndSession(asked) => check_end(asked),
            Ask::RegisterTool(asked) => bound("tool", body::encoded_len(&asked.tool), TOOL_BYTES_MAX),
            Ask::ApproveTool(asked) => bound("name", asked.name.len(), NAME_TEXT_MAX),
            Ask::QuarantineTool(asked) => bound("name", asked.name.len(), NAME_TEXT_MAX),
            Ask::UnbindTool(asked) => bound("name", asked.name.len(), NAME_TEXT_MAX),
            Ask::AddPrincipal(asked) => bound("keys", asked.keys.len(), PRINCIPAL_KEYS_MAX),
            Ask::RecordProbe(asked) => bound("kernel", asked.kernel.len(), PROBE_TEXT_BYTES_MAX),
            Ask::Grant(asked) => bound("cap", asked.grant.cap.len(), CAPABILITY_TEXT_BYTES_MAX),
            Ask::SpawnAgent(asked) => check_spawn(asked),
            Ask::BindTool(asked) => check_bind(asked),
            Ask::Call(asked) => check_call(asked),
            Ask::Report(asked) => check_report(asked),
        }
    }
}

impl CallAsked {
    /// The blobs that it refers to by an index of their own.
    fn named_blobs(&self) -> impl Iterator<Item = u16> {
        std::iter::once(self.args).chain(self.detail)
    }

    /// Of `count` blobs, those behind the named ones: the pieces of what is sent to a model.
    pub(crate) fn pieces(&self, count: usize) -> std::ops::Range<u16> {
        let named = u16::try_from(self.named_blobs().count()).unwrap_or(u16::MAX);
        named..u16::try_from(count).unwrap_or(u16::MAX).max(named)
    }
}

fn bound(what: &'static str, actual: usize, limit: usize) -> Result<(), NoCommand> {
    if actual > limit { Err(NoCommand { what, actual, limit }) } else { Ok(()) }
}

/// Text of a name in a command. Longer than any good name, so that a bad one can be refused and recorded.
const NAME_TEXT_MAX: usize = 1_024;

fn check_spawn(asked: &SpawnAsked) -> Result<(), NoCommand> {
    bound("spec", asked.spec.len(), NAME_TEXT_MAX)?;
    bound("need_grants", asked.need_grants.len(), NEEDS_MAX)?;
    bound("asked", asked.asked.len(), DIMENSIONS)?;
    check_narrow(&asked.narrow)?;
    bound("grants", asked.grants.len(), SPAWN_GRANTS_MAX)?;
    for grant in &asked.grants {
        bound("cap", grant.cap.len(), CAPABILITY_TEXT_BYTES_MAX)?;
    }
    let grants = body::encoded_len(&asked.grants);
    bound("grants together", grants, SPAWN_GRANTS_BYTES_MAX)?;
    bound("command", body::encoded_len(asked) - grants, COMMAND_BYTES_MAX)?;
    bound("dropped", asked.dropped.len(), SPAWN_GRANTS_MAX)?;
    for text in &asked.dropped {
        bound("dropped", text.len(), NAME_TEXT_MAX)?;
    }
    let plan = &asked.plan;
    bound("plan.workstream", plan.workstream.len(), NAME_TEXT_MAX)?;
    for (what, len) in [
        ("plan.requires", plan.requires.len()),
        ("plan.objectives", plan.objectives.len()),
        ("plan.deliverables", plan.deliverables.len()),
        ("plan.milestones", plan.milestones.len()),
    ] {
        bound(what, len, PLAN_NAMES_MAX)?;
    }
    let members = plan.milestones.iter().map(|milestone| milestone.members.len());
    bound("plan.milestones.members", members.max().unwrap_or(0), PLAN_NAMES_MAX)
}

fn check_bind(asked: &BindAsked) -> Result<(), NoCommand> {
    bound("tools", asked.tools.len(), TOOLS_PER_BINDING_MAX)?;
    for binding in &asked.tools {
        bound("tool", body::encoded_len(&binding.tool), TOOL_BYTES_MAX)?;
    }
    Ok(())
}

fn check_call(asked: &CallAsked) -> Result<(), NoCommand> {
    bound("tool", asked.tool.len(), NAME_TEXT_MAX)?;
    bound("need_grants", asked.need_grants.len(), NEEDS_MAX)?;
    bound("asked", asked.asked.len(), DIMENSIONS)?;
    check_narrow(&asked.narrow)?;
    bound("facts", asked.facts.len(), FACTS_MAX)?;
    for fact in &asked.facts {
        bound("fact pointer", fact.pointer.len(), SCALAR_BYTES_MAX)?;
        bound("fact", fact.text.as_ref().map_or(0, String::len), SCALAR_BYTES_MAX)?;
    }
    bound("command", body::encoded_len(asked), COMMAND_BYTES_MAX)
}

fn check_open(asked: &OpenSessionAsked) -> Result<(), NoCommand> {
    bound("roots", asked.roots.len(), GENESIS_GRANTS_MAX)?;
    for root in &asked.roots {
        bound("cap", root.cap.len(), CAPABILITY_TEXT_BYTES_MAX)?;
    }
    bound("command", body::encoded_len(asked), COMMAND_BYTES_MAX)
}

fn check_schedule(asked: &ScheduleAsked) -> Result<(), NoCommand> {
    bound("name", asked.name.len(), NAME_TEXT_MAX)?;
    bound("requires", asked.requires.len(), TASK_REQUIRES_MAX)
}

fn check_end(asked: &EndSessionAsked) -> Result<(), NoCommand> {
    bound("spent", asked.spent.len(), GENESIS_GRANTS_MAX)?;
    let amounts = asked.spent.iter().map(|spent| spent.amounts.len()).max();
    bound("amounts", amounts.unwrap_or(0), DIMENSIONS)
}

fn check_narrow(narrow: &[Option<String>]) -> Result<(), NoCommand> {
    bound("narrow", narrow.len(), NEEDS_MAX + 1)
}

fn check_report(asked: &ReportAsked) -> Result<(), NoCommand> {
    bound("actual", asked.actual.len(), DIMENSIONS)?;
    bound("symbol", asked.outcome.symbol.as_ref().map_or(0, String::len), 64)
}
