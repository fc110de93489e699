//! Events: what happened, including every refusal.

use crate::body::v1::{
    AgentEnded, AgentPaused, AgentResumed, AgentSpawned, AgentStarted, AgentStopping, CallAdmitted, CallAttempted,
    CallFinished, CancelRequested, Cmd, GrantIssued, GrantRevoked, MessageSent, MessageTaken, Observed,
    OutcomeResolved, PrincipalAdded, Refused, SandboxProbed, SessionClosed, SessionEnded, SessionOpened,
    SessionRegistered, StateCommitted, TaskCompleted, TaskFailed, TaskScheduled, TaskSkipped, TaskStarted,
    ToolApproved, ToolBound, ToolQuarantined, ToolRegistered, ToolUnbound,
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
    /// An agent does nothing new.
    pub const AGENT_PAUSED: u16 = 0x0203;
    /// An agent goes on.
    pub const AGENT_RESUMED: u16 = 0x0204;
    /// An agent comes to its end.
    pub const AGENT_STOPPING: u16 = 0x0205;
    /// An agent has ended.
    pub const AGENT_ENDED: u16 = 0x0206;
    /// A new task.
    pub const TASK_SCHEDULED: u16 = 0x0301;
    /// An attempt of a task begins.
    pub const TASK_STARTED: u16 = 0x0302;
    /// A task is done.
    pub const TASK_COMPLETED: u16 = 0x0303;
    /// An attempt of a task has failed.
    pub const TASK_FAILED: u16 = 0x0304;
    /// A task is not to be done.
    pub const TASK_SKIPPED: u16 = 0x0307;
    /// A message to an agent.
    pub const MESSAGE_SENT: u16 = 0x0401;
    /// A message was read.
    pub const MESSAGE_TAKEN: u16 = 0x0402;
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
    /// An attempt of a call came to nothing.
    pub const CALL_ATTEMPTED: u16 = 0x0704;
    /// A call is to be stopped.
    pub const CANCEL_REQUESTED: u16 = 0x0705;
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

/// Declares what can happen: for each kind its body, its number, and the command that it implies. The genesis, which
/// implies none, and a refusal, which holds what was asked, stand apart.
macro_rules! bodies {
    ($($(#[$doc:meta])* $name:ident($body:ty) = $kind:ident, asked $of:ident;)*) => {
        /// What happened. A closed list: adding a kind makes the compiler name every reader.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Body {
            /// The session begins.
            SessionOpened(Box<SessionOpened>),
            /// A command was refused; with what was asked.
            Refused(Box<Refused>, Box<Ask>),
            $($(#[$doc])* $name($body)),*
        }

        impl Body {
            /// The refusal, if it is one.
            pub fn refused(&self) -> Option<&Refused> {
                match self {
                    Body::Refused(refused, _) => Some(refused),
                    Body::SessionOpened(_) $(| Body::$name(_))* => None,
                }
            }

            fn kind(&self) -> u16 {
                match self {
                    Body::SessionOpened(_) => kind::SESSION_OPENED,
                    Body::Refused(..) => kind::REFUSED,
                    $(Body::$name(_) => kind::$kind),*
                }
            }

            fn encode(&self) -> Vec<u8> {
                match self {
                    Body::SessionOpened(body) => body::encode(body),
                    Body::Refused(body, _) => body::encode(body),
                    $(Body::$name(body) => body::encode(body)),*
                }
            }

            fn encoded_len(&self) -> usize {
                match self {
                    Body::SessionOpened(body) => body::encoded_len(body),
                    Body::Refused(body, _) => body::encoded_len(body),
                    $(Body::$name(body) => body::encoded_len(body)),*
                }
            }

            fn decode(of: u16, bytes: &[u8]) -> Result<Body, BodyFault> {
                Ok(match of {
                    kind::SESSION_OPENED => Body::SessionOpened(body::decode(bytes)?),
                    kind::REFUSED => {
                        let refused: Refused = body::decode(bytes)?;
                        let ask = Ask::decode(refused.kind, refused.schema, &refused.body.0)?;
                        Body::Refused(Box::new(refused), Box::new(ask))
                    }
                    $(kind::$kind => Body::$name(body::decode(bytes)?),)*
                    other => return Err(BodyFault::UnknownKind(other)),
                })
            }

            /// What was asked, unless the event is its own command.
            fn ask(&self) -> Option<Ask> {
                Some(match self {
                    Body::SessionOpened(_) => return None,
                    Body::Refused(_, ask) => (**ask).clone(),
                    $(Body::$name(body) => Ask::$of(body)),*
                })
            }

            fn cmd(&self) -> Option<&Cmd> {
                match self {
                    Body::SessionOpened(_) => None,
                    Body::Refused(body, _) => body.cmd.as_ref(),
                    $(Body::$name(body) => body.cmd.as_ref()),*
                }
            }
        }
    };
}

bodies! {
    /// The state after the entry before.
    StateCommitted(StateCommitted) = STATE_COMMITTED, asked of_state_committed;
    /// The session ends.
    SessionClosed(SessionClosed) = SESSION_CLOSED, asked of_session_closed;
    /// An agent was made.
    AgentSpawned(Box<AgentSpawned>) = AGENT_SPAWNED, asked of_agent_spawned;
    /// An agent began to run.
    AgentStarted(AgentStarted) = AGENT_STARTED, asked of_agent_started;
    /// An agent does nothing new.
    AgentPaused(AgentPaused) = AGENT_PAUSED, asked of_agent_paused;
    /// An agent goes on.
    AgentResumed(AgentResumed) = AGENT_RESUMED, asked of_agent_resumed;
    /// An agent comes to its end.
    AgentStopping(AgentStopping) = AGENT_STOPPING, asked of_agent_stopping;
    /// An agent ended.
    AgentEnded(AgentEnded) = AGENT_ENDED, asked of_agent_ended;
    /// A task of an agent.
    TaskScheduled(Box<TaskScheduled>) = TASK_SCHEDULED, asked of_task_scheduled;
    /// An attempt of a task began.
    TaskStarted(TaskStarted) = TASK_STARTED, asked of_task_started;
    /// A task is done.
    TaskCompleted(TaskCompleted) = TASK_COMPLETED, asked of_task_completed;
    /// An attempt of a task has failed.
    TaskFailed(TaskFailed) = TASK_FAILED, asked of_task_failed;
    /// A task is not to be done.
    TaskSkipped(TaskSkipped) = TASK_SKIPPED, asked of_task_skipped;
    /// A message was sent.
    MessageSent(MessageSent) = MESSAGE_SENT, asked of_message_sent;
    /// A message was read.
    MessageTaken(MessageTaken) = MESSAGE_TAKEN, asked of_message_taken;
    /// A grant was issued.
    GrantIssued(Box<GrantIssued>) = GRANT_ISSUED, asked of_grant_issued;
    /// A grant was revoked.
    GrantRevoked(GrantRevoked) = GRANT_REVOKED, asked of_grant_revoked;
    /// Tools were bound.
    ToolBound(ToolBound) = TOOL_BOUND, asked of_tool_bound;
    /// A call was admitted.
    CallAdmitted(Box<CallAdmitted>) = CALL_ADMITTED, asked of_call_admitted;
    /// A call ended.
    CallFinished(Box<CallFinished>) = CALL_FINISHED, asked of_call_finished;
    /// An attempt of a call came to nothing.
    CallAttempted(CallAttempted) = CALL_ATTEMPTED, asked of_call_attempted;
    /// A call is to be stopped.
    CancelRequested(CancelRequested) = CANCEL_REQUESTED, asked of_cancel_requested;
    /// A session may be opened.
    SessionRegistered(Box<SessionRegistered>) = SESSION_REGISTERED, asked of_session_registered;
    /// A session has ended.
    SessionEnded(SessionEnded) = SESSION_ENDED, asked of_session_ended;
    /// A tool is known.
    ToolRegistered(Box<ToolRegistered>) = TOOL_REGISTERED, asked of_tool_registered;
    /// A tool is approved.
    ToolApproved(ToolApproved) = TOOL_APPROVED, asked of_tool_approved;
    /// A tool is not what was approved.
    ToolQuarantined(ToolQuarantined) = TOOL_QUARANTINED, asked of_tool_quarantined;
    /// A tool is no longer bound.
    ToolUnbound(ToolUnbound) = TOOL_UNBOUND, asked of_tool_unbound;
    /// An unknown outcome is settled.
    OutcomeResolved(OutcomeResolved) = OUTCOME_RESOLVED, asked of_outcome_resolved;
    /// A principal was added.
    PrincipalAdded(PrincipalAdded) = PRINCIPAL_ADDED, asked of_principal_added;
    /// Something was observed.
    Observed(Observed) = OBSERVED, asked of_observed;
    /// How strongly the node can confine.
    SandboxProbed(SandboxProbed) = SANDBOX_PROBED, asked of_sandbox_probed;
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
        self.body.kind()
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
        self.body.encode()
    }

    pub(crate) fn encoded_len(&self) -> usize {
        self.body.encoded_len()
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
        let body = Body::decode(header.kind, bytes)?;
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
        Some(Command::of_event(self.body.cmd(), self.body.ask()?, self.blobs.clone()))
    }

    /// The part of the body that says which command it answers.
    pub fn cmd(&self) -> Option<&Cmd> {
        self.body.cmd()
    }

    /// The blob indexes of the body, in the order of its fields; `command` is the one it answers.
    fn blob_indexes(&self, command: Option<&Command>) -> Vec<u16> {
        let count = self.blobs.len();
        let mut indexes = command.map(|command| command.ask.blob_indexes(count)).unwrap_or_default();
        if let Body::SessionOpened(body) = &self.body {
            indexes.extend(body.prices.as_ref().and_then(|prices| prices.text));
        }
        if let Body::Refused(body, _) = &self.body {
            indexes.extend(body.detail);
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
