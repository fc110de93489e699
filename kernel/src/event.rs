//! Events: what happened, including every refusal.

use crate::body::v1::{
    AgentEnded, AgentSpawned, AgentStarted, CallAdmitted, CallFinished, Cmd, GrantIssued, GrantRevoked, Observed,
    OutcomeResolved, PrincipalAdded, Refused, SandboxProbed, SessionClosed, SessionEnded, SessionOpened,
    SessionRegistered, StateCommitted, ToolApproved, ToolBound, ToolQuarantined, ToolRegistered, ToolUnbound,
};
use crate::body::{self, kind_of};
use crate::command::{Ask, Command};
use crate::entry::{BlobRef, Header};
use crate::ids::Seq;

/// Registry numbers of the kinds this version knows. Never reused.
pub mod kind {
    /// The genesis.
    pub const SESSION_OPENED: u16 = 1;
    /// A commitment to the state.
    pub const STATE_COMMITTED: u16 = 2;
    /// The end of a session.
    pub const SESSION_CLOSED: u16 = 3;
    /// A refusal.
    pub const REFUSED: u16 = 0x0101;
    /// A new agent.
    pub const AGENT_SPAWNED: u16 = 0x0201;
    /// An agent begins to run.
    pub const AGENT_STARTED: u16 = 0x0202;
    /// An agent has ended.
    pub const AGENT_ENDED: u16 = 0x0206;
    /// A new grant.
    pub const GRANT_ISSUED: u16 = 0x0501;
    /// A grant is revoked.
    pub const GRANT_REVOKED: u16 = 0x0502;
    /// Tools are bound.
    pub const TOOL_BOUND: u16 = 0x0610;
    /// A call may run.
    pub const CALL_ADMITTED: u16 = 0x0701;
    /// A call has ended.
    pub const CALL_FINISHED: u16 = 0x0703;
    /// A session may be opened.
    pub const SESSION_REGISTERED: u16 = 8;
    /// A session has ended.
    pub const SESSION_ENDED: u16 = 9;
    /// A tool is known.
    pub const TOOL_REGISTERED: u16 = 0x0601;
    /// A tool is approved.
    pub const TOOL_APPROVED: u16 = 0x0602;
    /// A tool is not what was approved.
    pub const TOOL_QUARANTINED: u16 = 0x0606;
    /// A tool is no longer bound.
    pub const TOOL_UNBOUND: u16 = 0x0611;
    /// An unknown outcome is settled.
    pub const OUTCOME_RESOLVED: u16 = 0x0706;
    /// A principal was added.
    pub const PRINCIPAL_ADDED: u16 = 0x0B01;
    /// Something was observed.
    pub const OBSERVED: u16 = 0x0E01;
    /// How strongly the node can confine.
    pub const SANDBOX_PROBED: u16 = 0x0E02;
}

/// What happened, with its causes and the blobs its body refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Earlier entries of this session that caused it, ascending.
    pub causes: Vec<Seq>,
    /// The blobs, in the order of first reference from the body.
    pub blobs: Vec<BlobRef>,
    /// What happened.
    pub body: Body,
}

/// What happened. A closed list: adding a kind makes the compiler name every reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// The session begins.
    SessionOpened(Box<SessionOpened>),
    /// The state after the entry before.
    StateCommitted(StateCommitted),
    /// The session ends.
    SessionClosed(SessionClosed),
    /// A command was refused; with what was asked.
    Refused(Box<Refused>, Box<Ask>),
    /// An agent was made.
    AgentSpawned(Box<AgentSpawned>),
    /// An agent began to run.
    AgentStarted(AgentStarted),
    /// An agent ended.
    AgentEnded(AgentEnded),
    /// A grant was issued.
    GrantIssued(Box<GrantIssued>),
    /// A grant was revoked.
    GrantRevoked(GrantRevoked),
    /// Tools were bound.
    ToolBound(ToolBound),
    /// A call was admitted.
    CallAdmitted(Box<CallAdmitted>),
    /// A call ended.
    CallFinished(Box<CallFinished>),
    /// A session may be opened.
    SessionRegistered(Box<SessionRegistered>),
    /// A session has ended.
    SessionEnded(SessionEnded),
    /// A tool is known.
    ToolRegistered(Box<ToolRegistered>),
    /// A tool is approved.
    ToolApproved(ToolApproved),
    /// A tool is not what was approved.
    ToolQuarantined(ToolQuarantined),
    /// A tool is no longer bound.
    ToolUnbound(ToolUnbound),
    /// An unknown outcome is settled.
    OutcomeResolved(OutcomeResolved),
    /// A principal was added.
    PrincipalAdded(PrincipalAdded),
    /// Something was observed.
    Observed(Observed),
    /// How strongly the node can confine.
    SandboxProbed(SandboxProbed),
}

/// Why a body holds no event that this version knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyFault {
    /// The kind is not in this version's registry.
    #[error("kind {0:#06x} is not known to this version")]
    UnknownKind(u16),
    /// The schema is newer than this version's.
    #[error("schema {schema} of kind {kind:#06x} is not known to this version")]
    UnknownSchema {
        /// The kind.
        kind: u16,
        /// The schema.
        schema: u16,
    },
    /// The bytes are not those a writer makes.
    #[error("not canonical: {0}")]
    NonCanonical(String),
    /// The bytes are no body of this kind.
    #[error("not decodable: {0}")]
    Undecodable(String),
}

impl Event {
    /// The registry number.
    pub fn kind(&self) -> u16 {
        match &self.body {
            Body::SessionOpened(_) => kind::SESSION_OPENED,
            Body::StateCommitted(_) => kind::STATE_COMMITTED,
            Body::SessionClosed(_) => kind::SESSION_CLOSED,
            Body::Refused(..) => kind::REFUSED,
            Body::AgentSpawned(_) => kind::AGENT_SPAWNED,
            Body::AgentStarted(_) => kind::AGENT_STARTED,
            Body::AgentEnded(_) => kind::AGENT_ENDED,
            Body::GrantIssued(_) => kind::GRANT_ISSUED,
            Body::GrantRevoked(_) => kind::GRANT_REVOKED,
            Body::ToolBound(_) => kind::TOOL_BOUND,
            Body::CallAdmitted(_) => kind::CALL_ADMITTED,
            Body::CallFinished(_) => kind::CALL_FINISHED,
            Body::SessionRegistered(_) => kind::SESSION_REGISTERED,
            Body::SessionEnded(_) => kind::SESSION_ENDED,
            Body::ToolRegistered(_) => kind::TOOL_REGISTERED,
            Body::ToolApproved(_) => kind::TOOL_APPROVED,
            Body::ToolQuarantined(_) => kind::TOOL_QUARANTINED,
            Body::ToolUnbound(_) => kind::TOOL_UNBOUND,
            Body::OutcomeResolved(_) => kind::OUTCOME_RESOLVED,
            Body::PrincipalAdded(_) => kind::PRINCIPAL_ADDED,
            Body::Observed(_) => kind::OBSERVED,
            Body::SandboxProbed(_) => kind::SANDBOX_PROBED,
        }
    }

    /// The schema a writer writes.
    pub fn schema(&self) -> u16 {
        1
    }

    /// The name of the kind.
    pub fn name(&self) -> &'static str {
        kind_of(self.kind()).map_or("unknown", |kind| kind.name)
    }

    /// The body bytes.
    pub fn encode(&self) -> Vec<u8> {
        match &self.body {
            Body::SessionOpened(body) => body::encode(body),
            Body::StateCommitted(body) => body::encode(body),
            Body::SessionClosed(body) => body::encode(body),
            Body::Refused(body, _) => body::encode(body),
            Body::AgentSpawned(body) => body::encode(body),
            Body::AgentStarted(body) => body::encode(body),
            Body::AgentEnded(body) => body::encode(body),
            Body::GrantIssued(body) => body::encode(body),
            Body::GrantRevoked(body) => body::encode(body),
            Body::ToolBound(body) => body::encode(body),
            Body::CallAdmitted(body) => body::encode(body),
            Body::CallFinished(body) => body::encode(body),
            Body::SessionRegistered(body) => body::encode(body),
            Body::SessionEnded(body) => body::encode(body),
            Body::ToolRegistered(body) => body::encode(body),
            Body::ToolApproved(body) => body::encode(body),
            Body::ToolQuarantined(body) => body::encode(body),
            Body::ToolUnbound(body) => body::encode(body),
            Body::OutcomeResolved(body) => body::encode(body),
            Body::PrincipalAdded(body) => body::encode(body),
            Body::Observed(body) => body::encode(body),
            Body::SandboxProbed(body) => body::encode(body),
        }
    }

    pub(crate) fn encoded_len(&self) -> usize {
        match &self.body {
            Body::SessionOpened(body) => body::encoded_len(body),
            Body::StateCommitted(body) => body::encoded_len(body),
            Body::SessionClosed(body) => body::encoded_len(body),
            Body::Refused(body, _) => body::encoded_len(body),
            Body::AgentSpawned(body) => body::encoded_len(body),
            Body::AgentStarted(body) => body::encoded_len(body),
            Body::AgentEnded(body) => body::encoded_len(body),
            Body::GrantIssued(body) => body::encoded_len(body),
            Body::GrantRevoked(body) => body::encoded_len(body),
            Body::ToolBound(body) => body::encoded_len(body),
            Body::CallAdmitted(body) => body::encoded_len(body),
            Body::CallFinished(body) => body::encoded_len(body),
            Body::SessionRegistered(body) => body::encoded_len(body),
            Body::SessionEnded(body) => body::encoded_len(body),
            Body::ToolRegistered(body) => body::encoded_len(body),
            Body::ToolApproved(body) => body::encoded_len(body),
            Body::ToolQuarantined(body) => body::encoded_len(body),
            Body::ToolUnbound(body) => body::encoded_len(body),
            Body::OutcomeResolved(body) => body::encoded_len(body),
            Body::PrincipalAdded(body) => body::encoded_len(body),
            Body::Observed(body) => body::encoded_len(body),
            Body::SandboxProbed(body) => body::encoded_len(body),
        }
    }

    /// Reads the event that `header` announces.
    ///
    /// # Errors
    /// [`BodyFault`] for a body that no writer of this version makes.
    pub fn decode(header: &Header, bytes: &[u8]) -> Result<Event, BodyFault> {
        let Some(known) = kind_of(header.kind) else {
            return Err(BodyFault::UnknownKind(header.kind));
        };
        if header.schema != known.schema {
            return Err(BodyFault::UnknownSchema { kind: header.kind, schema: header.schema });
        }
        let body = match header.kind {
            kind::SESSION_OPENED => Body::SessionOpened(body::decode(bytes)?),
            kind::STATE_COMMITTED => Body::StateCommitted(body::decode(bytes)?),
            kind::SESSION_CLOSED => Body::SessionClosed(body::decode(bytes)?),
            kind::REFUSED => {
                let refused: Refused = body::decode(bytes)?;
                let ask = Ask::decode(refused.kind, refused.schema, &refused.body.0)?;
                Body::Refused(Box::new(refused), Box::new(ask))
            }
            kind::AGENT_SPAWNED => Body::AgentSpawned(body::decode(bytes)?),
            kind::AGENT_STARTED => Body::AgentStarted(body::decode(bytes)?),
            kind::AGENT_ENDED => Body::AgentEnded(body::decode(bytes)?),
            kind::GRANT_ISSUED => Body::GrantIssued(body::decode(bytes)?),
            kind::GRANT_REVOKED => Body::GrantRevoked(body::decode(bytes)?),
            kind::TOOL_BOUND => Body::ToolBound(body::decode(bytes)?),
            kind::CALL_ADMITTED => Body::CallAdmitted(body::decode(bytes)?),
            kind::CALL_FINISHED => Body::CallFinished(body::decode(bytes)?),
            kind::SESSION_REGISTERED => Body::SessionRegistered(body::decode(bytes)?),
            kind::SESSION_ENDED => Body::SessionEnded(body::decode(bytes)?),
            kind::TOOL_REGISTERED => Body::ToolRegistered(body::decode(bytes)?),
            kind::TOOL_APPROVED => Body::ToolApproved(body::decode(bytes)?),
            kind::TOOL_QUARANTINED => Body::ToolQuarantined(body::decode(bytes)?),
            kind::TOOL_UNBOUND => Body::ToolUnbound(body::decode(bytes)?),
            kind::OUTCOME_RESOLVED => Body::OutcomeResolved(body::decode(bytes)?),
            kind::PRINCIPAL_ADDED => Body::PrincipalAdded(body::decode(bytes)?),
            kind::OBSERVED => Body::Observed(body::decode(bytes)?),
            kind::SANDBOX_PROBED => Body::SandboxProbed(body::decode(bytes)?),
            other => return Err(BodyFault::UnknownKind(other)),
        };
        let event = Event { causes: header.causes.clone(), blobs: header.blobs.clone(), body };
        let command = event.command();
        if command.as_ref().is_some_and(|command| command.check().is_err()) {
            return Err(BodyFault::Undecodable("a list or text is longer than its bound".to_owned()));
        }
        if !blobs_in_order(&event.blob_indexes(command.as_ref()), event.blobs.len()) {
            return Err(BodyFault::NonCanonical("blobs are not referred to in the order of the header".to_owned()));
        }
        Ok(event)
    }

    /// The command this event answers; none for a genesis, which is its own.
    pub fn command(&self) -> Option<Command> {
        let (cmd, ask) = match &self.body {
            Body::SessionOpened(_) => return None,
            Body::StateCommitted(body) => (&body.cmd, Ask::of_state_committed()),
            Body::SessionClosed(body) => (&body.cmd, Ask::of_session_closed(body)),
            Body::Refused(body, ask) => (&body.cmd, (**ask).clone()),
            Body::AgentSpawned(body) => (&body.cmd, Ask::of_agent_spawned(body)),
            Body::AgentStarted(body) => (&body.cmd, Ask::of_agent_started(body)),
            Body::AgentEnded(body) => (&body.cmd, Ask::of_agent_ended(body)),
            Body::GrantIssued(body) => (&body.cmd, Ask::of_grant_issued(body)),
            Body::GrantRevoked(body) => (&body.cmd, Ask::of_grant_revoked(body)),
            Body::ToolBound(body) => (&body.cmd, Ask::of_tool_bound(body)),
            Body::CallAdmitted(body) => (&body.cmd, Ask::of_call_admitted(body)),
            Body::CallFinished(body) => (&body.cmd, Ask::of_call_finished(body)),
            Body::SessionRegistered(body) => (&body.cmd, Ask::of_session_registered(body)),
            Body::SessionEnded(body) => (&body.cmd, Ask::of_session_ended(body)),
            Body::ToolRegistered(body) => (&body.cmd, Ask::of_tool_registered(body)),
            Body::ToolApproved(body) => (&body.cmd, Ask::of_tool_approved(body)),
            Body::ToolQuarantined(body) => (&body.cmd, Ask::of_tool_quarantined(body)),
            Body::ToolUnbound(body) => (&body.cmd, Ask::of_tool_unbound(body)),
            Body::OutcomeResolved(body) => (&body.cmd, Ask::of_outcome_resolved(body)),
            Body::PrincipalAdded(body) => (&body.cmd, Ask::of_principal_added(body)),
            Body::Observed(body) => (&body.cmd, Ask::of_observed(body)),
            Body::SandboxProbed(body) => (&body.cmd, Ask::of_sandbox_probed(body)),
        };
        Some(Command::of_event(cmd.as_ref(), ask, self.blobs.clone()))
    }

    /// The part of the body that says which command it answers.
    pub fn cmd(&self) -> Option<&Cmd> {
        match &self.body {
            Body::SessionOpened(_) => None,
            Body::StateCommitted(body) => body.cmd.as_ref(),
            Body::SessionClosed(body) => body.cmd.as_ref(),
            Body::Refused(body, _) => body.cmd.as_ref(),
            Body::AgentSpawned(body) => body.cmd.as_ref(),
            Body::AgentStarted(body) => body.cmd.as_ref(),
            Body::AgentEnded(body) => body.cmd.as_ref(),
            Body::GrantIssued(body) => body.cmd.as_ref(),
            Body::GrantRevoked(body) => body.cmd.as_ref(),
            Body::ToolBound(body) => body.cmd.as_ref(),
            Body::CallAdmitted(body) => body.cmd.as_ref(),
            Body::CallFinished(body) => body.cmd.as_ref(),
            Body::SessionRegistered(body) => body.cmd.as_ref(),
            Body::SessionEnded(body) => body.cmd.as_ref(),
            Body::ToolRegistered(body) => body.cmd.as_ref(),
            Body::ToolApproved(body) => body.cmd.as_ref(),
            Body::ToolQuarantined(body) => body.cmd.as_ref(),
            Body::ToolUnbound(body) => body.cmd.as_ref(),
            Body::OutcomeResolved(body) => body.cmd.as_ref(),
            Body::PrincipalAdded(body) => body.cmd.as_ref(),
            Body::Observed(body) => body.cmd.as_ref(),
            Body::SandboxProbed(body) => body.cmd.as_ref(),
        }
    }

    /// The blob indexes of the body, in the order of its fields; `command` is the one it answers.
    fn blob_indexes(&self, command: Option<&Command>) -> Vec<u16> {
        let mut indexes = command.map(|command| command.ask.blob_indexes()).unwrap_or_default();
        match &self.body {
            Body::SessionOpened(body) => indexes.extend(body.prices.as_ref().and_then(|prices| prices.text)),
            Body::Refused(body, _) => indexes.extend(body.detail),
            Body::StateCommitted(_)
            | Body::SessionClosed(_)
            | Body::AgentSpawned(_)
            | Body::AgentStarted(_)
            | Body::AgentEnded(_)
            | Body::GrantIssued(_)
            | Body::GrantRevoked(_)
            | Body::ToolBound(_)
            | Body::CallAdmitted(_)
            | Body::CallFinished(_)
            | Body::SessionRegistered(_)
            | Body::SessionEnded(_)
            | Body::ToolRegistered(_)
            | Body::ToolApproved(_)
            | Body::ToolQuarantined(_)
            | Body::ToolUnbound(_)
            | Body::OutcomeResolved(_)
            | Body::PrincipalAdded(_)
            | Body::Observed(_)
            | Body::SandboxProbed(_) => {}
        }
        indexes
    }
}

/// Whether `indexes` name all of `count` blobs, the first references ascending from 0.
pub(crate) fn blobs_in_order(indexes: &[u16], count: usize) -> bool {
    let mut next = 0;
    for index in indexes {
        match usize::from(*index).cmp(&next) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => next += 1,
            std::cmp::Ordering::Greater => return false,
        }
    }
    next == count
}
