//! What a driver answers: the commands that an agent wants committed, or its end.

use toka_kernel::Code;
use toka_kernel::hash::{Context, derive};
use toka_kernel::ids::{AgentId, CommandId, MessageId, TaskId};

use super::model_driver::{FINISH, PAUSE, RESUME, SEND, SPAWN, STOP};
use super::transcript::EndCode;
use crate::gateway::Request;

/// The version of the driver's rules. It is recorded at spawn; changed rules take another number.
pub const DRIVER_VERSION: u16 = 1;

/// What an agent does next.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Ask for these commands, in this order.
    Commands(Vec<Ask>),
    /// Nothing, until the transcript says more.
    Wait,
    /// End.
    End {
        /// Completed, rather than failed.
        completed: bool,
        /// Why it failed; `NONE` when it is completed.
        code: EndCode,
        /// Where it failed, for people.
        why: Option<Why>,
    },
    /// The transcript is not one of this spec: a command has a record of another kind.
    Diverged {
        /// The path of the step.
        path: String,
    },
}

/// Where and why a script failed, for people. It may quote the agent file and the outcome words of tools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// The path of the step.
    pub path: String,
    /// What was wrong.
    pub detail: String,
}

/// A command that the agent wants committed. The same id always comes with the same content.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// Call a tool.
    Call {
        /// The id of the command.
        id: CommandId,
        /// The path of the step.
        path: String,
        /// The exact name of the tool.
        tool: String,
        /// The arguments as text. Text that is no JSON object is refused and recorded like any other call.
        arguments: String,
        /// Why the call can only be refused, where that is known beforehand.
        unfit: Option<Unfit>,
    },
    /// Ask a model.
    Model {
        /// The id of the command.
        id: CommandId,
        /// The path: `turn[N]`.
        path: String,
        /// Which request of the agent it is, from 0.
        ordinal: u64,
        /// What is asked.
        request: Box<Request>,
    },
    /// Spawn an agent.
    Spawn {
        /// The id of the command.
        id: CommandId,
        /// The path of the step.
        path: String,
        /// The name of its spec, known to [`super::AgentSpec::child`].
        spec: String,
        /// What it is granted, each a capability in its text form.
        grants: Vec<String>,
    },
    /// Start an agent that was spawned.
    Start {
        /// The id of the command.
        id: CommandId,
        /// The path of the step with `/start` behind it.
        path: String,
        /// The agent.
        agent: AgentId,
    },
    /// Schedule a task of the agent's own.
    Schedule {
        /// The id of the command.
        id: CommandId,
        /// Its path.
        path: String,
        /// The name of the task.
        name: String,
        /// What is to be done.
        text: String,
    },
    /// Begin a task.
    Begin {
        /// The id of the command.
        id: CommandId,
        /// Its path.
        path: String,
        /// The task.
        task: TaskId,
    },
    /// End a task.
    EndTask {
        /// The id of the command.
        id: CommandId,
        /// Its path.
        path: String,
        /// The task.
        task: TaskId,
        /// What came of it as JSON, or why it failed.
        result: Result<String, EndCode>,
    },
    /// Send a message.
    Send {
        /// The id of the command.
        id: CommandId,
        /// The path of the call that sends it.
        path: String,
        /// To whom.
        to: Addressee,
        /// What it says.
        text: String,
    },
    /// Read a message.
    Take {
        /// The id of the command.
        id: CommandId,
        /// Its path.
        path: String,
        /// The message.
        message: MessageId,
    },
    /// Pause, resume or stop an agent below this one.
    Control {
        /// The id of the command.
        id: CommandId,
        /// The path of the call that asks.
        path: String,
        /// The agent.
        agent: AgentId,
        /// What.
        control: Control,
    },
}

/// Why a call can only be refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// The code of the refusal.
    pub code: Code,
    /// More about it, as JSON: a `pointer` into the arguments and the `rule` that they break.
    pub detail: Option<String>,
}

/// Who is to get a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addressee {
    /// Who spawned the agent.
    Parent,
    /// An agent that it spawned.
    Agent(AgentId),
    /// The latest agent of the session with a spec of this name that has not ended.
    Named(String),
}

/// What may be done about an agent from above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// It asks for nothing more until it is resumed.
    Pause,
    /// It goes on.
    Resume,
    /// It ends, with all that stands below it.
    Stop,
}

impl Ask {
    /// The id of the command.
    pub fn id(&self) -> CommandId {
        match self {
            Ask::Call { id, .. }
            | Ask::Model { id, .. }
            | Ask::Spawn { id, .. }
            | Ask::Start { id, .. }
            | Ask::Schedule { id, .. }
            | Ask::Begin { id, .. }
            | Ask::EndTask { id, .. }
            | Ask::Send { id, .. }
            | Ask::Take { id, .. }
            | Ask::Control { id, .. } => *id,
        }
    }

    /// What it is called where it is refused as a call, since it cannot be recorded as what it is: the name of the tool, or
    /// the word of a model.
    pub(crate) fn word(&self) -> &str {
        match self {
            Ask::Call { tool, .. } => tool,
            Ask::Model { .. } => "model",
            Ask::Spawn { .. } => SPAWN,
            Ask::Start { .. } => "agent.start",
            Ask::Schedule { .. } | Ask::Begin { .. } | Ask::Take { .. } => "agent.task",
            Ask::EndTask { .. } => FINISH,
            Ask::Send { .. } => SEND,
            Ask::Control { control: Control::Pause, .. } => PAUSE,
            Ask::Control { control: Control::Resume, .. } => RESUME,
            Ask::Control { control: Control::Stop, .. } => STOP,
        }
    }

    /// Where in the agent's program it is asked.
    pub fn path(&self) -> &str {
        match self {
            Ask::Call { path, .. }
            | Ask::Model { path, .. }
            | Ask::Spawn { path, .. }
            | Ask::Start { path, .. }
            | Ask::Schedule { path, .. }
            | Ask::Begin { path, .. }
            | Ask::EndTask { path, .. }
            | Ask::Send { path, .. }
            | Ask::Take { path, .. }
            | Ask::Control { path, .. } => path,
        }
    }
}

/// The id of the command that the step at `path` asks for: an agent without tasks, at its first attempt.
///
/// "No task" is 32 zero bytes, so that everything before the path has a fixed width.
pub fn command_id(agent: AgentId, path: &str) -> CommandId {
    const NO_TASK: [u8; 32] = [0; 32];
    const ATTEMPT: u16 = 1;
    let digest = derive(Context::CommandId, &[&agent.0, &NO_TASK, &ATTEMPT.to_be_bytes(), path.as_bytes()]);
    let mut id = [0; 16];
    id.copy_from_slice(&digest.0[..16]);
    CommandId(id)
}
