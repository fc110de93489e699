//! Commands: what is asked of the kernel, by a principal.

use crate::body::v1::{
    AddPrincipalAsked, AgentEnded, AgentSpawned, AgentStarted, ApproveToolAsked, BindAsked, CallAdmitted, CallAsked,
    CallFinished, CloseAsked, Cmd, CommitAsked, EndAsked, EndSessionAsked, GrantAsked, GrantIssued, GrantRevoked,
    GrantTo, IssueAsked, ObserveAsked, Observed, OpenSessionAsked, OutcomeResolved, PrincipalAdded, ProbeAsked,
    QuarantineToolAsked, RegisterToolAsked, ReportAsked, ResolveAsked, RevokeAsked, RootAsked, SandboxProbed,
    SessionClosed, SessionEnded, SessionRegistered, SpawnAsked, StartAsked, ToolApproved, ToolBound, ToolQuarantined,
    ToolRegistered, ToolUnbound, UnbindAsked, Via,
};
use crate::body::{self};
use crate::denial::Code;
use crate::entry::BlobRef;
use crate::event::{BodyFault, blobs_in_order, kind};
use crate::ids::{Bytes, CommandId, GrantId, Seq};
use crate::limits::{
    BLOBS_PER_ENTRY_MAX, BODY_BYTES_MAX, CAPABILITY_TEXT_BYTES_MAX, COMMAND_BYTES_MAX, DIMENSIONS, FACTS_MAX,
    GENESIS_GRANTS_MAX, NEEDS_MAX, PLAN_NAMES_MAX, PRINCIPAL_KEYS_MAX, PROBE_TEXT_BYTES_MAX, REFUSAL_BYTES_MAX,
    SCALAR_BYTES_MAX, SIGNED_BYTES_MAX, SPAWN_GRANTS_BYTES_MAX, SPAWN_GRANTS_MAX, TOOL_BYTES_MAX,
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

/// What is asked. A closed list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Commit to the state.
    CommitState(CommitAsked),
    /// Close the session.
    CloseSession(CloseAsked),
    /// Make an agent with grants.
    SpawnAgent(Box<SpawnAsked>),
    /// Let an agent run.
    StartAgent(StartAsked),
    /// End an agent.
    EndAgent(EndAsked),
    /// Issue a grant.
    Grant(IssueAsked),
    /// Revoke a grant.
    Revoke(RevokeAsked),
    /// Bind tools.
    BindTool(BindAsked),
    /// Call a tool.
    Call(Box<CallAsked>),
    /// Report how a call ended.
    Report(Box<ReportAsked>),
    /// Open a session.
    OpenSession(Box<OpenSessionAsked>),
    /// Say that a session has ended.
    EndSession(EndSessionAsked),
    /// Make a tool known.
    RegisterTool(Box<RegisterToolAsked>),
    /// Approve a tool.
    ApproveTool(ApproveToolAsked),
    /// Say that a tool is not what was approved.
    QuarantineTool(QuarantineToolAsked),
    /// Let nobody call a bound tool any more.
    UnbindTool(UnbindAsked),
    /// Settle an unknown outcome.
    ResolveOutcome(ResolveAsked),
    /// Add a principal.
    AddPrincipal(AddPrincipalAsked),
    /// Record what was observed.
    Observe(ObserveAsked),
    /// Record how strongly the node can confine.
    RecordProbe(ProbeAsked),
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
        self.check().is_ok() && blobs_in_order(&self.ask.blob_indexes(), self.blobs.len())
    }
}

impl Ask {
    /// The kind of the event that answers it.
    pub fn kind(&self) -> u16 {
        match self {
            Ask::CommitState(_) => kind::STATE_COMMITTED,
            Ask::CloseSession(_) => kind::SESSION_CLOSED,
            Ask::SpawnAgent(_) => kind::AGENT_SPAWNED,
            Ask::StartAgent(_) => kind::AGENT_STARTED,
            Ask::EndAgent(_) => kind::AGENT_ENDED,
            Ask::Grant(_) => kind::GRANT_ISSUED,
            Ask::Revoke(_) => kind::GRANT_REVOKED,
            Ask::BindTool(_) => kind::TOOL_BOUND,
            Ask::Call(_) => kind::CALL_ADMITTED,
            Ask::Report(_) => kind::CALL_FINISHED,
            Ask::OpenSession(_) => kind::SESSION_REGISTERED,
            Ask::EndSession(_) => kind::SESSION_ENDED,
            Ask::RegisterTool(_) => kind::TOOL_REGISTERED,
            Ask::ApproveTool(_) => kind::TOOL_APPROVED,
            Ask::QuarantineTool(_) => kind::TOOL_QUARANTINED,
            Ask::UnbindTool(_) => kind::TOOL_UNBOUND,
            Ask::ResolveOutcome(_) => kind::OUTCOME_RESOLVED,
            Ask::AddPrincipal(_) => kind::PRINCIPAL_ADDED,
            Ask::Observe(_) => kind::OBSERVED,
            Ask::RecordProbe(_) => kind::SANDBOX_PROBED,
        }
    }

    /// Whether only the node asks this, and only of itself.
    pub fn is_of_node(&self) -> bool {
        match self {
            Ask::CommitState(_)
            | Ask::BindTool(_)
            | Ask::EndSession(_)
            | Ask::QuarantineTool(_)
            | Ask::UnbindTool(_)
            | Ask::RecordProbe(_) => true,
            Ask::CloseSession(_)
            | Ask::SpawnAgent(_)
            | Ask::StartAgent(_)
            | Ask::EndAgent(_)
            | Ask::Grant(_)
            | Ask::Revoke(_)
            | Ask::Call(_)
            | Ask::Report(_)
            | Ask::OpenSession(_)
            | Ask::RegisterTool(_)
            | Ask::ApproveTool(_)
            | Ask::ResolveOutcome(_)
            | Ask::AddPrincipal(_)
            | Ask::Observe(_) => false,
        }
    }

    /// The bytes that stand in a refusal.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Ask::CommitState(asked) => body::encode(asked),
            Ask::CloseSession(asked) => body::encode(asked),
            Ask::SpawnAgent(asked) => body::encode(asked),
            Ask::StartAgent(asked) => body::encode(asked),
            Ask::EndAgent(asked) => body::encode(asked),
            Ask::Grant(asked) => body::encode(asked),
            Ask::Revoke(asked) => body::encode(asked),
            Ask::BindTool(asked) => body::encode(asked),
            Ask::Call(asked) => body::encode(asked),
            Ask::Report(asked) => body::encode(asked),
            Ask::OpenSession(asked) => body::encode(asked),
            Ask::EndSession(asked) => body::encode(asked),
            Ask::RegisterTool(asked) => body::encode(asked),
            Ask::ApproveTool(asked) => body::encode(asked),
            Ask::QuarantineTool(asked) => body::encode(asked),
            Ask::UnbindTool(asked) => body::encode(asked),
            Ask::ResolveOutcome(asked) => body::encode(asked),
            Ask::AddPrincipal(asked) => body::encode(asked),
            Ask::Observe(asked) => body::encode(asked),
            Ask::RecordProbe(asked) => body::encode(asked),
        }
    }

    fn encoded_len(&self) -> usize {
        match self {
            Ask::CommitState(asked) => body::encoded_len(asked),
            Ask::CloseSession(asked) => body::encoded_len(asked),
            Ask::SpawnAgent(asked) => body::encoded_len(asked),
            Ask::StartAgent(asked) => body::encoded_len(asked),
            Ask::EndAgent(asked) => body::encoded_len(asked),
            Ask::Grant(asked) => body::encoded_len(asked),
            Ask::Revoke(asked) => body::encoded_len(asked),
            Ask::BindTool(asked) => body::encoded_len(asked),
            Ask::Call(asked) => body::encoded_len(asked),
            Ask::Report(asked) => body::encoded_len(asked),
            Ask::OpenSession(asked) => body::encoded_len(asked),
            Ask::EndSession(asked) => body::encoded_len(asked),
            Ask::RegisterTool(asked) => body::encoded_len(asked),
            Ask::ApproveTool(asked) => body::encoded_len(asked),
            Ask::QuarantineTool(asked) => body::encoded_len(asked),
            Ask::UnbindTool(asked) => body::encoded_len(asked),
            Ask::ResolveOutcome(asked) => body::encoded_len(asked),
            Ask::AddPrincipal(asked) => body::encoded_len(asked),
            Ask::Observe(asked) => body::encoded_len(asked),
            Ask::RecordProbe(asked) => body::encoded_len(asked),
        }
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
            kind::STATE_COMMITTED => Ask::CommitState(body::decode(bytes)?),
            kind::SESSION_CLOSED => Ask::CloseSession(body::decode(bytes)?),
            kind::AGENT_SPAWNED => Ask::SpawnAgent(body::decode(bytes)?),
            kind::AGENT_STARTED => Ask::StartAgent(body::decode(bytes)?),
            kind::AGENT_ENDED => Ask::EndAgent(body::decode(bytes)?),
            kind::GRANT_ISSUED => Ask::Grant(body::decode(bytes)?),
            kind::GRANT_REVOKED => Ask::Revoke(body::decode(bytes)?),
            kind::TOOL_BOUND => Ask::BindTool(body::decode(bytes)?),
            kind::CALL_ADMITTED => Ask::Call(body::decode(bytes)?),
            kind::CALL_FINISHED => Ask::Report(body::decode(bytes)?),
            kind::SESSION_REGISTERED => Ask::OpenSession(body::decode(bytes)?),
            kind::SESSION_ENDED => Ask::EndSession(body::decode(bytes)?),
            kind::TOOL_REGISTERED => Ask::RegisterTool(body::decode(bytes)?),
            kind::TOOL_APPROVED => Ask::ApproveTool(body::decode(bytes)?),
            kind::TOOL_QUARANTINED => Ask::QuarantineTool(body::decode(bytes)?),
            kind::TOOL_UNBOUND => Ask::UnbindTool(body::decode(bytes)?),
            kind::OUTCOME_RESOLVED => Ask::ResolveOutcome(body::decode(bytes)?),
            kind::PRINCIPAL_ADDED => Ask::AddPrincipal(body::decode(bytes)?),
            kind::OBSERVED => Ask::Observe(body::decode(bytes)?),
            kind::SANDBOX_PROBED => Ask::RecordProbe(body::decode(bytes)?),
            other => return Err(BodyFault::UnknownKind(other)),
        })
    }

    /// The blob indexes, in the order of the fields.
    pub(crate) fn blob_indexes(&self) -> Vec<u16> {
        match self {
            Ask::CommitState(_)
            | Ask::StartAgent(_)
            | Ask::EndAgent(_)
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
            Ask::CloseSession(asked) => asked.reason.into_iter().collect(),
            Ask::Revoke(asked) => asked.reason.into_iter().collect(),
            Ask::SpawnAgent(asked) => vec![asked.text],
            Ask::BindTool(asked) => asked.tools.iter().map(|binding| binding.tool.text).collect(),
            Ask::Call(asked) => std::iter::once(asked.args).chain(asked.detail).collect(),
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
            | Ask::EndAgent(_)
            | Ask::Revoke(_)
            | Ask::ResolveOutcome(_)
            | Ask::Observe(_) => Ok(()),
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

    pub(crate) fn of_state_committed() -> Ask {
        Ask::CommitState(CommitAsked {})
    }

    pub(crate) fn of_session_closed(event: &SessionClosed) -> Ask {
        Ask::CloseSession(CloseAsked { why: event.why, reason: event.reason })
    }

    pub(crate) fn of_agent_spawned(event: &AgentSpawned) -> Ask {
        Ask::SpawnAgent(Box::new(SpawnAsked {
            spec: event.spec.clone(),
            text: event.text,
            spec_digest: event.spec_digest,
            driver: event.driver,
            seed: event.seed,
            grant: event.grant,
            need_grants: event.need_grants.clone(),
            asked: event.asked.clone(),
            narrow: texts(&event.narrow),
            grants: event
                .grants
                .iter()
                .map(|grant| GrantAsked { parent: grant.parent, cap: grant.cap.to_string() })
                .collect(),
            dropped: event.dropped.clone(),
            plan: event.plan.clone(),
        }))
    }

    pub(crate) fn of_agent_started(event: &AgentStarted) -> Ask {
        Ask::StartAgent(StartAsked { agent: event.agent })
    }

    pub(crate) fn of_agent_ended(event: &AgentEnded) -> Ask {
        Ask::EndAgent(EndAsked { agent: event.agent, how: event.how, code: event.code })
    }

    pub(crate) fn of_grant_issued(event: &GrantIssued) -> Ask {
        let grant = &event.grant;
        Ask::Grant(IssueAsked {
            grant: GrantTo { parent: grant.parent, cap: grant.cap.to_string(), to: grant.subject },
        })
    }

    pub(crate) fn of_grant_revoked(event: &GrantRevoked) -> Ask {
        Ask::Revoke(RevokeAsked { grant: event.grant, reason: event.reason })
    }

    pub(crate) fn of_tool_bound(event: &ToolBound) -> Ask {
        Ask::BindTool(BindAsked { tools: event.tools.clone() })
    }

    pub(crate) fn of_call_admitted(event: &CallAdmitted) -> Ask {
        Ask::Call(Box::new(CallAsked {
            tool: event.tool.clone(),
            digest: event.digest,
            grant: event.grant,
            need_grants: event.need_grants.clone(),
            facts: event.facts.clone(),
            extra: event.extra,
            args: event.args,
            asked: event.asked.clone(),
            narrow: texts(&event.narrow),
            task: event.task,
            parent: event.parent,
            unfit: None,
            detail: None,
        }))
    }

    pub(crate) fn of_call_finished(event: &CallFinished) -> Ask {
        Ask::Report(Box::new(ReportAsked {
            call: event.call,
            attempt: event.attempt,
            outcome: event.outcome.clone(),
            actual: event.actual.clone(),
            stdout: event.stdout,
            stderr: event.stderr,
            result: event.result,
            record: event.record,
            sandbox: event.sandbox.clone(),
            wasm: event.wasm.clone(),
            of: event.of,
            usage: event.usage.clone(),
        }))
    }

    pub(crate) fn of_session_registered(event: &SessionRegistered) -> Ask {
        let root = |root: &crate::body::v1::Root| RootAsked { from: root.from, cap: root.cap.to_string() };
        Ask::OpenSession(Box::new(OpenSessionAsked {
            session: event.session,
            opener: event.opener,
            roots: event.roots.iter().map(root).collect(),
        }))
    }

    pub(crate) fn of_session_ended(event: &SessionEnded) -> Ask {
        Ask::EndSession(EndSessionAsked {
            session: event.session,
            how: event.how,
            head: event.head.clone(),
            spent: event.spent.clone(),
        })
    }

    pub(crate) fn of_tool_registered(event: &ToolRegistered) -> Ask {
        let asked = RegisterToolAsked { tool: event.tool.clone(), file: event.file, state: event.state };
        Ask::RegisterTool(Box::new(asked))
    }

    pub(crate) fn of_tool_approved(event: &ToolApproved) -> Ask {
        Ask::ApproveTool(ApproveToolAsked { name: event.name.clone(), digest: event.digest })
    }

    pub(crate) fn of_tool_quarantined(event: &ToolQuarantined) -> Ask {
        Ask::QuarantineTool(QuarantineToolAsked {
            name: event.name.clone(),
            digest: event.digest,
            why: event.why,
            seen: event.seen,
        })
    }

    pub(crate) fn of_tool_unbound(event: &ToolUnbound) -> Ask {
        Ask::UnbindTool(UnbindAsked {
            name: event.name.clone(),
            digest: event.digest,
            why: event.why,
            cite: event.cite,
        })
    }

    pub(crate) fn of_outcome_resolved(event: &OutcomeResolved) -> Ask {
        Ask::ResolveOutcome(ResolveAsked { call: event.call, verdict: event.verdict, evidence: event.evidence })
    }

    pub(crate) fn of_principal_added(event: &PrincipalAdded) -> Ask {
        let keys = event.keys.clone();
        Ask::AddPrincipal(AddPrincipalAsked { kind: event.kind, custody: event.custody, keys })
    }

    pub(crate) fn of_observed(event: &Observed) -> Ask {
        Ask::Observe(ObserveAsked {
            what: event.what,
            subject: event.subject,
            call: event.call,
            count: event.count,
            detail: event.detail,
        })
    }

    pub(crate) fn of_sandbox_probed(event: &SandboxProbed) -> Ask {
        Ask::RecordProbe(ProbeAsked {
            levels: event.levels,
            layers: event.layers,
            landlock_abi: event.landlock_abi,
            jail: event.jail,
            kernel: event.kernel.clone(),
        })
    }
}

fn texts(caps: &[Option<crate::capability::Capability>]) -> Vec<Option<String>> {
    caps.iter().map(|cap| cap.as_ref().map(ToString::to_string)).collect()
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
