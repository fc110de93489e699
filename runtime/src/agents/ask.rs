//! What a driver answers: the commands that an agent wants committed, or its end.

use serde_json::Value as Json;
use toka_kernel::hash::{Context, derive};
use toka_kernel::ids::{AgentId, CommandId};

use super::transcript::EndCode;

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
        /// The arguments, a JSON object.
        arguments: Json,
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
}

impl Ask {
    /// The id of the command.
    pub fn id(&self) -> CommandId {
        match self {
            Ask::Call { id, .. } | Ask::Spawn { id, .. } | Ask::Start { id, .. } => *id,
        }
    }

    /// The path of the step that asks.
    pub fn path(&self) -> &str {
        match self {
            Ask::Call { path, .. } | Ask::Spawn { path, .. } | Ask::Start { path, .. } => path,
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
