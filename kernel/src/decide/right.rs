//! Who may ask a command at all: the kind of the asker, the class of the session, signatures and administrative grants.

use crate::body::v1::{IssueAsked, OpenSessionAsked};
use crate::capability::{AdminOp, Capability, Scope};
use crate::command::{Ask, Command};
use crate::decide::{agent, grant};
use crate::denial::{Code, Denial, Dim};
use crate::ids::{Bytes, GrantId, KeyId, PrincipalId, TimeUs};
use crate::keys::Role;
use crate::limits::{COMMAND_NONCES_MAX, COMMAND_VALID_US_MAX};
use crate::signed::Signed;
use crate::state::{NonceKey, PrincipalKind, State, ToolState};

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
    let may = match ask {
        Ask::CommitState(_)
        | Ask::BindTool(_)
        | Ask::UnbindTool(_)
        | Ask::QuarantineTool(_)
        | Ask::EndSession(_)
        | Ask::RecordProbe(_) => kind == PrincipalKind::Node,
        Ask::Report(_) | Ask::Observe(_) => kind == PrincipalKind::Node || kind == PrincipalKind::Executor,
        Ask::EndAgent(_) => kind == PrincipalKind::Node || kind == PrincipalKind::Agent,
        Ask::RegisterTool(_) => kind != PrincipalKind::Executor,
        // What decides about agents and keys is asked by people and their programs.
        Ask::OpenSession(_) | Ask::ApproveTool(_) | Ask::AddPrincipal(_) | Ask::ResolveOutcome(_) => {
            kind == PrincipalKind::Human || kind == PrincipalKind::Service
        }
        Ask::CloseSession(_)
        | Ask::SpawnAgent(_)
        | Ask::StartAgent(_)
        | Ask::Grant(_)
        | Ask::Revoke(_)
        | Ask::Call(_) => kind != PrincipalKind::Node && kind != PrincipalKind::Executor,
    };
    if !may {
        return Err(Denial::new(Code::WrongKind));
    }
    let (only_system, only_work) = match ask {
        Ask::OpenSession(_)
        | Ask::EndSession(_)
        | Ask::RegisterTool(_)
        | Ask::ApproveTool(_)
        | Ask::QuarantineTool(_)
        | Ask::AddPrincipal(_)
        | Ask::RecordProbe(_) => (true, false),
        Ask::BindTool(_) | Ask::UnbindTool(_) => (false, true),
        Ask::CommitState(_)
        | Ask::CloseSession(_)
        | Ask::SpawnAgent(_)
        | Ask::StartAgent(_)
        | Ask::EndAgent(_)
        | Ask::Grant(_)
        | Ask::Revoke(_)
        | Ask::Call(_)
        | Ask::Report(_)
        | Ask::ResolveOutcome(_)
        | Ask::Observe(_) => (false, false),
    };
    if only_system && !state.is_system() {
        return Err(Denial::new(Code::IllegalTransition).rule("only in the system session"));
    }
    if only_work && state.is_system() {
        return Err(Denial::new(Code::IllegalTransition).rule("only in a work session"));
    }
    match ask {
        Ask::SpawnAgent(_) | Ask::Call(_) => agent::must_run(state, by)?,
        Ask::CommitState(_)
        | Ask::CloseSession(_)
        | Ask::StartAgent(_)
        | Ask::EndAgent(_)
        | Ask::Grant(_)
        | Ask::Revoke(_)
        | Ask::BindTool(_)
        | Ask::Report(_)
        | Ask::OpenSession(_)
        | Ask::EndSession(_)
        | Ask::RegisterTool(_)
        | Ask::ApproveTool(_)
        | Ask::QuarantineTool(_)
        | Ask::UnbindTool(_)
        | Ask::ResolveOutcome(_)
        | Ask::AddPrincipal(_)
        | Ask::Observe(_)
        | Ask::RecordProbe(_) => {}
    }
    Ok(kind)
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
    let must = must_be_signed(&command.ask, by);
    let Some(bytes) = command.signed.as_ref().filter(|_| !command.ask.is_of_node()) else {
        let need = right(&command.ask, by).and_then(|right| Scope::admin_need(right.ops()));
        let denial = Denial::new(Code::CommandUnsigned);
        return match (must, need) {
            (false, _) => Ok(None),
            (true, Some(need)) => Err(denial.need(Capability::of(need))),
            (true, None) => Err(denial),
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

fn must_be_signed(ask: &Ask, by: PrincipalId) -> bool {
    match ask {
        Ask::Grant(IssueAsked { grant }) => grant.parent.is_none(),
        Ask::RegisterTool(asked) => asked.state == ToolState::Approved.number() && by != PrincipalId::NODE,
        Ask::OpenSession(asked) => mints(asked),
        Ask::ApproveTool(_) | Ask::AddPrincipal(_) => true,
        Ask::CommitState(_)
        | Ask::CloseSession(_)
        | Ask::SpawnAgent(_)
        | Ask::StartAgent(_)
        | Ask::EndAgent(_)
        | Ask::Revoke(_)
        | Ask::BindTool(_)
        | Ask::Call(_)
        | Ask::Report(_)
        | Ask::EndSession(_)
        | Ask::QuarantineTool(_)
        | Ask::UnbindTool(_)
        | Ask::ResolveOutcome(_)
        | Ask::Observe(_)
        | Ask::RecordProbe(_) => false,
    }
}

/// Whether a session begins with authority that derives from no grant of its opener.
fn mints(asked: &OpenSessionAsked) -> bool {
    asked.roots.iter().any(|root| root.from.is_none())
}

/// The administrative operations that a command may or must use.
#[derive(Clone, Copy)]
enum Right {
    /// Without it the asker's own standing decides.
    May(&'static [AdminOp]),
    /// Nothing else lets it pass.
    Must(&'static [AdminOp]),
}

impl Right {
    fn ops(self) -> &'static [AdminOp] {
        match self {
            Right::May(ops) | Right::Must(ops) => ops,
        }
    }
}

fn right(ask: &Ask, by: PrincipalId) -> Option<Right> {
    match ask {
        Ask::CloseSession(_) => Some(Right::May(&[AdminOp::Cancel])),
        Ask::StartAgent(_) => Some(Right::May(&[AdminOp::Pause])),
        Ask::Revoke(_) => Some(Right::May(&[AdminOp::RevokeAny])),
        Ask::Grant(IssueAsked { grant }) => grant.parent.is_none().then_some(Right::Must(&[AdminOp::GrantRoot])),
        Ask::OpenSession(asked) if mints(asked) => Some(Right::Must(&[AdminOp::GrantRoot, AdminOp::OpenSession])),
        Ask::OpenSession(_) => Some(Right::Must(&[AdminOp::OpenSession])),
        // The node itself registers what was shipped with it, as approved.
        Ask::RegisterTool(asked) if by == PrincipalId::NODE && asked.state == ToolState::Approved.number() => None,
        Ask::RegisterTool(_) | Ask::ApproveTool(_) => Some(Right::Must(&[AdminOp::RegisterTool])),
        Ask::AddPrincipal(_) => Some(Right::Must(&[AdminOp::Members])),
        Ask::ResolveOutcome(_) => Some(Right::Must(&[AdminOp::Resolve])),
        Ask::CommitState(_)
        | Ask::SpawnAgent(_)
        | Ask::EndAgent(_)
        | Ask::BindTool(_)
        | Ask::Call(_)
        | Ask::Report(_)
        | Ask::EndSession(_)
        | Ask::QuarantineTool(_)
        | Ask::UnbindTool(_)
        | Ask::Observe(_)
        | Ask::RecordProbe(_) => None,
    }
}

/// Checks the administrative grant that a command names. The index of that grant, if it names one.
pub(crate) fn admin(
    state: &State,
    by: PrincipalId,
    under: Option<GrantId>,
    ask: &Ask,
    at: TimeUs,
) -> Result<Option<u32>, Denial> {
    let denied = Denial::new(Code::NoAdmin);
    let (right, id) = match (right(ask, by), under) {
        (None, None) | (Some(Right::May(_)), None) => return Ok(None),
        // A right that nothing asks for is a mistake of who asks.
        (None, Some(_)) => return Err(denied),
        (Some(right), id) => (right, id),
    };
    let Some(need) = Scope::admin_need(right.ops()) else { return Err(denied) };
    let denied = denied.need(Capability::of(need.clone()));
    let Some(id) = id else { return Err(denied) };
    let index = grant::usable(state, &id, by, at)?;
    need.within(&state.grants.at(index).grant.cap.scope).map_err(|dim| denied.at_grant(id).dim(dim))?;
    Ok(Some(index))
}
