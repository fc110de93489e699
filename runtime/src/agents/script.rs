//! The steps of a scripted agent, as they stand in its spec: nothing here can be wrong any more.
//!
//! A reference names a step by its id. Names given by `save` are gone, since they are only another way to say that.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One step: what to do, whether to do it, and what follows when it fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The name of the step, unique in its script.
    pub id: String,
    /// The step is skipped when this does not hold.
    pub when: Option<When>,
    /// What follows when the step fails.
    #[serde(rename = "err")]
    pub on_error: OnError,
    /// What the step does.
    pub act: Act,
}

/// What follows when a step fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum OnError {
    /// The loop around it fails, or the script.
    #[default]
    #[serde(rename = "fail")]
    Fail,
    /// The next step runs.
    #[serde(rename = "cont")]
    Continue,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Act {
    /// Calls a tool and waits for its outcome.
    #[serde(rename = "call")]
    Call {
        /// The exact name of the tool.
        tool: String,
        /// The arguments by name.
        args: BTreeMap<String, Value>,
    },
    /// Spawns an agent and starts it; does not wait for its end.
    #[serde(rename = "spwn")]
    Spawn {
        /// The name of the agent's spec.
        spec: String,
        /// What the agent is granted, each a capability in its text form.
        #[serde(rename = "caps")]
        grants: Vec<String>,
    },
    /// Runs steps once per item, one after the other.
    #[serde(rename = "each")]
    ForEach {
        /// A list, or a reference to one.
        #[serde(rename = "in")]
        items: Value,
        /// By which name the steps refer to the item.
        #[serde(rename = "as")]
        variable: String,
        /// The steps.
        #[serde(rename = "do")]
        steps: Vec<Step>,
    },
    /// Waits until the agents that these spawn steps made have ended.
    #[serde(rename = "wait")]
    Wait {
        /// Ids of spawn steps.
        #[serde(rename = "agts")]
        agents: Vec<String>,
    },
    /// Ends the script as failed.
    #[serde(rename = "fail")]
    Fail {
        /// The author's word for why.
        code: String,
    },
}

/// JSON without fractions, in which any part may stand for a value known only when the script runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    /// Nothing.
    #[serde(rename = "n")]
    Null,
    /// True or false.
    #[serde(rename = "b")]
    Bool(bool),
    /// An integer.
    #[serde(rename = "i")]
    Int(i64),
    /// Text, never looked into: there is no interpolation.
    #[serde(rename = "t")]
    Text(String),
    /// A list.
    #[serde(rename = "l")]
    List(Vec<Value>),
    /// Members by name.
    #[serde(rename = "m")]
    Map(BTreeMap<String, Value>),
    /// Whatever the reference leads to, whole.
    #[serde(rename = "r")]
    Ref(Reference),
}

/// A place in what an earlier step left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// What is referred to.
    pub to: Target,
    /// A JSON pointer (RFC 6901) into it; empty for the whole.
    #[serde(rename = "at")]
    pub pointer: String,
}

/// What a reference refers to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// The JSON that a call returned, or of a loop the list of what its last step returned.
    #[serde(rename = "out")]
    Output(String),
    /// How a step ended, in a word.
    #[serde(rename = "end")]
    Outcome(String),
    /// The name of the code of a refusal; null when the step was not refused.
    #[serde(rename = "code")]
    Code(String),
    /// How the agent of a spawn step ended: `completed` or `failed`.
    #[serde(rename = "aend")]
    AgentOutcome(String),
    /// The name of the end code of that agent.
    #[serde(rename = "acod")]
    AgentCode(String),
    /// The item of the loop with this name.
    #[serde(rename = "var")]
    Variable(String),
}

/// A condition: one value and one test of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct When {
    /// What is tested.
    #[serde(rename = "ref")]
    pub value: Reference,
    /// The test.
    pub test: Test,
}

/// A test of a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Test {
    /// The same JSON.
    #[serde(rename = "eq")]
    Equals(Value),
    /// Other JSON.
    #[serde(rename = "ne")]
    Not(Value),
    /// Whether anything stands there; null does.
    #[serde(rename = "has")]
    Exists(bool),
    /// An integer and at most this.
    #[serde(rename = "max")]
    Max(Value),
    /// An integer and at least this.
    #[serde(rename = "min")]
    Min(Value),
}

/// How references to a step read in a file: `steps.scan.output`, `agents.build.outcome`, `item`.
impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Output(id) => write!(f, "steps.{id}.output"),
            Target::Outcome(id) => write!(f, "steps.{id}.outcome"),
            Target::Code(id) => write!(f, "steps.{id}.code"),
            Target::AgentOutcome(id) => write!(f, "agents.{id}.outcome"),
            Target::AgentCode(id) => write!(f, "agents.{id}.code"),
            Target::Variable(name) => f.write_str(name),
        }
    }
}
