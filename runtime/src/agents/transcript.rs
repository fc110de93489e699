//! What the log says about an agent, as far as its driver looks.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use toka_kernel::denial::Code;
use toka_kernel::ids::{AgentId, CommandId, MessageId, PrincipalId, TaskId};

/// A fold of an agent's entries and their blobs. Records are added and move from open to final, never back.
#[derive(Clone, Debug, PartialEq)]
pub struct Transcript {
    /// Whose transcript it is.
    pub agent: AgentId,
    /// What became of each command of the agent.
    pub records: BTreeMap<CommandId, Record>,
    /// The agents of the session that have ended; others than the agent's own children do no harm.
    pub ended: BTreeMap<AgentId, Ended>,
    /// What the last task of an agent of the session came to.
    pub results: BTreeMap<AgentId, Json>,
    /// The tools that the agent may ask for.
    pub tools: BTreeMap<String, Offer>,
    /// The messages to the agent that it has not read, oldest first.
    pub unread: Vec<Unread>,
}

/// What a model must know of a tool to ask for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    /// What it does.
    pub description: String,
    /// The JSON Schema of its arguments.
    pub schema: Json,
    /// Whether two calls of it may run at a time.
    pub parallel_safe: bool,
}

/// A message that waits to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// The message.
    pub message: MessageId,
    /// The name of who sent it.
    pub from: String,
}

impl Transcript {
    /// The transcript of an agent that has done nothing yet.
    pub fn new(agent: AgentId) -> Transcript {
        Transcript {
            agent,
            records: BTreeMap::new(),
            ended: BTreeMap::new(),
            results: BTreeMap::new(),
            tools: BTreeMap::new(),
            unread: Vec::new(),
        }
    }
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// A call is admitted, or waits for approval, and has no outcome yet.
    Open,
    /// A call has ended.
    Finished {
        /// The outcome in a word: the symbol of a failure, or the name of the kind of outcome.
        outcome: String,
        /// Whether the outcome is success.
        ok: bool,
        /// What the call returned.
        result: Option<Json>,
        /// The output is kept from the agent, since its authority had ended before the call did.
        withheld: bool,
    },
    /// The command was refused.
    Refused {
        /// Why.
        code: Code,
        /// The missing capability.
        need: Option<String>,
        /// More about it, as JSON: where the arguments are wrong.
        detail: Option<Json>,
    },
    /// The agent is spawned.
    Spawned {
        /// The new agent.
        agent: AgentId,
    },
    /// What was asked has happened, and there is nothing more to say: an agent or a task is started, a task has ended, a
    /// message is sent, an agent is paused, resumed or stopped.
    Done,
    /// A task is scheduled.
    Scheduled {
        /// The task.
        task: TaskId,
    },
    /// A message is read.
    Took {
        /// Who sent it.
        by: PrincipalId,
        /// The name of who sent it.
        from: String,
        /// What it says.
        text: String,
    },
}

/// How an agent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Completed, rather than failed or stopped.
    pub completed: bool,
    /// The number of its end code.
    pub code: u16,
}

macro_rules! end_codes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal $text:literal,)*) => {
        /// Why a task or an agent ended as it did.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum EndCode { $($(#[$doc])* $variant = $number),* }

        impl EndCode {
            /// Every code, in the order of the numbers.
            pub const ALL: &'static [EndCode] = &[$(EndCode::$variant),*];

            /// The name people see.
            pub fn name(self) -> &'static str {
                match self { $(EndCode::$variant => $text),* }
            }
        }
    };
}

end_codes! {
    /// Nothing went wrong.
    None = 0 "NONE",
    /// A call or a spawn failed or was refused.
    Call = 1 "CALL",
    /// A reference led to nothing that can be used there.
    NoValue = 2 "NO_VALUE",
    /// The model never said that it was done.
    NoFinish = 3 "NO_FINISH",
    /// The model declined.
    ModelRefused = 4 "MODEL_REFUSED",
    /// The same call again and again.
    Loop = 5 "LOOP",
    /// Too many calls in a row that made no sense.
    TooManyMalformed = 6 "TOO_MANY_MALFORMED",
    /// Too many refusals in a row.
    TooManyRefusals = 7 "TOO_MANY_REFUSALS",
    /// As many turns or steps as there may be.
    TurnLimit = 8 "TURN_LIMIT",
    /// The model's window is full.
    ContextFull = 9 "CONTEXT_FULL",
    /// An objective is not met.
    Objective = 10 "OBJECTIVE",
    /// A required deliverable is missing.
    Deliverable = 11 "DELIVERABLE",
    /// A budget is used up.
    Budget = 12 "BUDGET",
    /// A task failed.
    Task = 13 "TASK",
    /// An agent that this one relies on failed.
    Dependency = 14 "DEPENDENCY",
    /// The agent was not spawned in time.
    SpawnTimeout = 15 "SPAWN_TIMEOUT",
    /// The workstream ran out of time.
    WorkstreamTimeout = 16 "WORKSTREAM_TIMEOUT",
    /// A `fail` step.
    Script = 17 "SCRIPT",
}

impl EndCode {
    /// The number that stands in a body.
    pub fn number(self) -> u16 {
        self as u16
    }

    /// The code with this number, if there is one.
    pub fn from_number(number: u16) -> Option<EndCode> {
        EndCode::ALL.get(usize::from(number)).copied()
    }
}
