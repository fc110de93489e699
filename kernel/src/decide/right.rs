//! Who may ask a command at all: the kind of the asker, the class of the session, signatures and administrative grants.

use crate::body::v1::{IssueAsked, OpenSessionAsked};
use crate::capability::{AdminOp, Capability, Scope};
use crate::command::{Ask, Command};
use crate::decide::{agent, grant, task};
use crate::denial::{Code, Denial, Dim};
use crate::ids::{AgentId, Bytes, GrantId, KeyId, PrincipalId, TaskId, TimeUs};
use crate::keys::Role;
use crate::limits::{COMMAND_NONCES_MAX, COMMAND_VALID_US_MAX};
use crate::signed::Signed;
use crate::state::{Agent, NonceKey, PrincipalKind, State, ToolState};

/// Whether `by` is known, alive and of a kind that may ask this at all, here and now.
pub(crate) fn asker(state: &State, by: PrincipalId, ask: &Ask) -> Result<PrincipalKind, Denial> {
    let kind = if by == PrincipalId::NODE {
        PrincipalKind::Node
    } else {
        let principal = state.principals.get(&by).ok_or(Denial::new(Code::UnknownPrincipal))?;
        if !principal.alive {
            return Err(Denial::new(Code::PrincipalDead));
        }
        principal.kind
    };
    let standing = standing(ask);
    if !standing.askers.contains(&kind) {
        return Err(Denial::new(Code::WrongKind));
    }
    match standing.place {
        Place::System if !state.is_system() => {
            return Err(Denial::new(Code::IllegalTransition).rule("only in the system session"));
        }
        Place::Work if state.is_system() => {
            return Err(Denial::new(Code::IllegalTransition).rule("only in a work session"));
        }
        Place::Any | Place::System | Place::Work => {}
    }
    if standing.is_act {
        agent::must_run(state, by)?;
    }
    Ok(kind)
}

/// Who may ask a command at all, where, and whether it is something that a paused agent does not do.
struct Standing {
    askers: &'static [PrincipalKind],
    place: Place,
    is_act: bool,
}

/// In which sessions a command may be asked.
#[derive(Clone, Copy)]
enum Place {
    Any,
    System,
    Work,
}

impl Standing {
    const fn of(askers: &'static [PrincipalKind]) -> Standing {
        Standing { askers, place: Place::Any, is_act: false }
    }

    const fn only(self, place: Place) -> Standing {
        Standing { place, ..self }
    }

    const fn act(self) -> Standing {
        Standing { is_act: true, ..self }
    }
}

fn standing(ask: &Ask) -> Standing {
    use PrincipalKind::{Agent, Executor, Human, Node, Service};
    match ask {
        Ask::CommitState(_) => Standing::of(&[Node]),
        Ask::BindTool(_) | Ask::UnbindTool(_) => Standing::of(&[Node]).only(Place::Work),
        Ask::QuarantineTool(_) | Ask::EndSession(_) | Ask::RecordProbe(_) => Standing::of(&[Node]).only(Place::System),
        Ask::Report(_) | Ask::ReportAttempt(_) | Ask::Observe(_) => Standing::of(&[Node, Executor]),
        Ask::EndAgent(_) => Standing::of(&[Node, Agent]),
        Ask::PauseAgent(_) => Standing::of(&[Node, Human, Agent, Service]),
        Ask::RegisterTool(_) => Standing::of(&[Node, Human, Agent, Service]).only(Place::System),
        // What decides about agents and keys is asked by people and their programs.
        Ask::OpenSession(_) | Ask::ApproveTool(_) | Ask::AddPrincipal(_) => {
            Standing::of(&[Human, Service]).only(Place::System)
        }
        Ask::ResolveOutcome(_) => Standing::of(&[Human, Service]),
        Ask::CloseSession(_)
        | Ask::StartAgent(_)
        | Ask::ResumeAgent(_)
        | Ask::StopAgent(_)
        | Ask::ScheduleTask(_)
        | Ask::Grant(_)
        | Ask::Revoke(_)
        | Ask::CancelCall(_) => Standing::of(&[Human, Agent, Service]),
        Ask::SpawnAgent(_) | Ask::Call(_) | Ask::SendMessage(_) => Standing::of(&[Human, Agent, Service]).act(),
        Ask::StartTask(_) | Ask::TakeMessage(_) => Standing::of(&[Agent]).act(),
        Ask::CompleteTask(_) | Ask::FailTask(_) => Standing::of(&[Agent]),
        Ask::SkipTask(_) => Standing::of(&[Agent, Service]),
    }
}

/// What was signed, where the command is signed; an error where it is not and must be, or where the signature does not
/// hold. `None` for a command that is not signed.
pub(crate) fn signed(
    state: &State,
    by: PrincipalId,
    kind: PrincipalKind,
    command: &Command,
    at: TimeUs,
) -> Result<Option<Ask>, Denial> {
    let right = right(&command.ask, by);
    let must = matches!(right, Some(Right::MustSigned(_)));
    let Some(bytes) = command.signed.as_ref().filter(|_| !command.ask.is_of_node()) else {
        return match right {
            Some(right) if must => Err(Denial { code: Code::CommandUnsigned, ..not_held(right) }),
            Some(_) | None => Ok(None),
        };
    };
    let signed = Signed::decode(&bytes.0).ok_or(Denial::new(Code::Malformed).rule("signed"))?;
    let role = match kind {
        PrincipalKind::Executor => Role::Executor,
        PrincipalKind::Agent if !must => Role::Agent,
        PrincipalKind::Agent | PrincipalKind::Human | PrincipalKind::Service | PrincipalKind::Node => Role::Operator,
    };
    check_key(state, by, signed.key, role, at)?;
    if signed.session != state.head.session {
        return Err(Denial::new(Code::CommandAudience));
    }
    if at >= signed.not_after_us || signed.not_after_us > at.saturating_add(COMMAND_VALID_US_MAX) {
        return Err(Denial::new(Code::CommandExpired));
    }
    if let Some(used) = state.nonces.get(&NonceKey::new(signed.key, signed.nonce)) {
        let mut denial = Denial::new(Code::CommandReplayed);
        denial.first_seq = Some(used.seq);
        return Err(denial);
    }
    if state.nonces.len() >= COMMAND_NONCES_MAX {
        let used = state.nonces.len() as u64;
        return Err(Denial::count(Code::Limit, Dim::Nonces, COMMAND_NONCES_MAX as u64, used, 1));
    }
    let invalid = Denial::new(Code::CommandSigInvalid);
    let key = state.keys.get(&signed.key).ok_or(invalid.clone())?;
    signed.verify(&key.public).map_err(|_| invalid.clone())?;
    let ask = signed.ask(&command.ask, &command.blobs).filter(|ask| ask.check().is_ok());
    ask.map(Some).ok_or(invalid.rule(ANOTHER_COMMAND))
}

/// The rule of a refusal whose signature is that of another command.
pub(crate) const ANOTHER_COMMAND: &str = "another command";

/// The key and nonce of a signed command that was accepted, and until when it could be sent again.
pub(crate) fn used_nonce(bytes: &Bytes) -> Option<(NonceKey, TimeUs)> {
    let signed = Signed::decode(&bytes.0)?;
    Some((NonceKey::new(signed.key, signed.nonce), signed.not_after_us))
}

fn check_key(state: &State, by: PrincipalId, id: KeyId, role: Role, at: TimeUs) -> Result<(), Denial> {
    let own = state.principals.get(&by).is_some_and(|principal| principal.keys.contains(&id));
    let Some(key) = state.keys.get(&id).filter(|_| own) else {
        return Err(Denial::new(Code::KeyUnusable).rule("not a key of who asks"));
    };
    if key.role != role {
        return Err(Denial::new(Code::KeyWrongRole).rule(key.role.name()));
    }
    if !(key.not_before_us..key.not_after_us).contains(&at) {
        return Err(Denial::new(Code::KeyUnusable).rule("outside its window"));
    }
    Ok(())
}

/// Whether a session begins with authority that derives from no grant of its opener.
fn mints(asked: &OpenSessionAsked) -> bool {
    asked.roots.iter().any(|root| root.from.is_none())
}

/// What a command may or must name as the grant it uses.
#[derive(Clone, Copy)]
enum Right {
    /// Administrative operations. Without them the asker's own standing decides.
    May(&'static [AdminOp]),
    /// Administrative operations; nothing else lets it pass.
    Must(&'static [AdminOp]),
    /// As `Must`, and signed by who asks.
    MustSigned(&'static [AdminOp]),
    /// As `May`; in the hands of a service an `agent:` grant that covers this agent does as well: it orchestrates.
    MayOrchestrate(&'static [AdminOp], Target),
    /// An `agent:` grant that covers this agent. Without it the asker's own standing decides.
    MayCover(Target),
}

/// The agent that a command is about.
#[derive(Clone, Copy)]
enum Target {
    /// Itself.
    Agent(AgentId),
    /// The one whose task this is.
    HolderOf(TaskId),
}

impl Target {
    fn find(self, state: &State) -> Result<&Agent, Denial> {
        match self {
            Target::Agent(agent) => agent::find(state, agent),
            Target::HolderOf(task) => agent::find(state, task::find(state, task)?.agent),
        }
    }
}

impl Right {
    fn ops(self) -> &'static [AdminOp] {
        match self {
            Right::May(ops) | Right::Must(ops) | Right::MustSigned(ops) | Right::MayOrchestrate(ops, _) => ops,
            Right::MayCover(_) => &[],
        }
    }

    fn is_due(self) -> bool {
        match self {
            Right::Must(_) | Right::MustSigned(_) => true,
            Right::May(_) | Right::MayOrchestrate(..) | Right::MayCover(_) => false,
        }
    }
}

fn right(ask: &Ask, by: PrincipalId) -> Option<Right> {
    match ask {
        Ask::CloseSession(_) | Ask::StopAgent(_) | Ask::CancelCall(_) => Some(Right::May(&[AdminOp::Cancel])),
        Ask::PauseAgent(_) | Ask::ResumeAgent(_) => Some(Right::May(&[AdminOp::Pause])),
        Ask::StartAgent(asked) => Some(Right::MayOrchestrate(&[AdminOp::Pause], Target::Agent(asked.agent))),
        Ask::ScheduleTask(asked) => Some(Right::MayOrchestrate(&[AdminOp::Pause], Target::Agent(asked.agent))),
        Ask::SkipTask(asked) => Some(Right::MayOrchestrate(&[], Target::HolderOf(asked.task))),
        Ask::SendMessage(asked) => Some(Right::MayCover(Target::Agent(asked.to))),
        Ask::Revoke(_) => Some(Right::May(&[AdminOp::RevokeAny])),
        Ask::Grant(IssueAsked { grant }) => grant.parent.is_none().then_some(Right::MustSigned(&[AdminOp::GrantRoot])),
        Ask::OpenSession(asked) if mints(asked) => Some(Right::MustSigned(&[AdminOp::GrantRoot, AdminOp::OpenSession])),
        Ask::OpenSession(_) => Some(Right::Must(&[AdminOp::OpenSession])),
        // The node itself registers what was shipped with it, as approved.
        Ask::RegisterTool(asked) if asked.state == ToolState::Approved.number() => {
            (by != PrincipalId::NODE).then_some(Right::MustSigned(&[AdminOp::RegisterTool]))
        }
        Ask::RegisterTool(_) => Some(Right::Must(&[AdminOp::RegisterTool])),
        Ask::ApproveTool(_) => Some(Right::MustSigned(&[AdminOp::RegisterTool])),
        Ask::AddPrincipal(_) => Some(Right::MustSigned(&[AdminOp::Members])),
        Ask::ResolveOutcome(_) => Some(Right::Must(&[AdminOp::Resolve])),
        Ask::CommitState(_)
        | Ask::SpawnAgent(_)
        | Ask::EndAgent(_)
        | Ask::StartTask(_)
        | Ask::CompleteTask(_)
        | Ask::FailTask(_)
        | Ask::TakeMessage(_)
        | Ask::BindTool(_)
        | Ask::Call(_)
        | Ask::Report(_)
        | Ask::ReportAttempt(_)
        | Ask::EndSession(_)
        | Ask::QuarantineTool(_)
        | Ask::UnbindTool(_)
        | Ask::Observe(_)
        | Ask::RecordProbe(_) => None,
    }
}

/// Checks the grant that a command names as its right. The index of that grant, if it names one.
pub(crate) fn named(
    state: &State,
    by: PrincipalId,
    kind: PrincipalKind,
    under: Option<GrantId>,
    ask: &Ask,
    at: TimeUs,
) -> Result<Option<u32>, Denial> {
    let right = right(ask, by);
    let Some(id) = under else {
        return match right.filter(|right| right.is_due()) {
            Some(right) => Err(not_held(right)),
            None => Ok(None),
        };
    };
    // A right that nothing asks for is a mistake of who asks.
    let right = right.ok_or(Denial::new(Code::NoAdmin))?;
    let by_agent_grant = match right {
        Right::MayCover(_) => true,
        Right::MayOrchestrate(ops, _) => ops.is_empty() || kind == PrincipalKind::Service && is_of_agents(state, &id),
        Right::May(_) | Right::Must(_) | Right::MustSigned(_) => false,
    };
    if by_agent_grant {
        return agent_grant(state, by, kind, id, right, at).map(Some);
    }
    let index = grant::usable(state, &id, by, at)?;
    let Some(need) = Scope::admin_need(right.ops()) else { return Err(not_held(right)) };
    need.within(&state.grants.at(index).grant.cap.scope).map_err(|dim| not_held(right).at_grant(id).dim(dim))?;
    Ok(Some(index))
}

fn not_held(right: Right) -> Denial {
    let denied = Denial::new(Code::NoAdmin);
    match Scope::admin_need(right.ops()) {
        Some(need) => denied.need(Capability::of(need)),
        None => denied,
    }
}

fn is_of_agents(state: &State, id: &GrantId) -> bool {
    state.grants.get(id).is_some_and(|node| matches!(node.grant.cap.scope, Scope::Agent(_)))
}

/// Checks an `agent:` grant that is named as the right to orchestrate an agent, or to send it messages.
fn agent_grant(
    state: &State,
    by: PrincipalId,
    kind: PrincipalKind,
    id: GrantId,
    right: Right,
    at: TimeUs,
) -> Result<u32, Denial> {
    let target = match right {
        Right::MayCover(target) => target,
        Right::MayOrchestrate(_, target) if kind == PrincipalKind::Service => target,
        Right::MayOrchestrate(..) | Right::May(_) | Right::Must(_) | Right::MustSigned(_) => {
            return Err(not_held(right));
        }
    };
    let need = agent::reach(target.find(state)?)?;
    let index = grant::usable(state, &id, by, at)?;
    need.within(&state.grants.at(index).grant.cap.scope)
        .map_err(|dim| Denial::new(Code::OutOfScope).at_grant(id).dim(dim).need(Capability::of(need.clone())))?;
    Ok(index)
}
