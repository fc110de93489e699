//! The normalised spec of an agent: its text for the log, and its digest.
//!
//! The text of a spec carries the specs of all agents that its spawn steps can reach, so that an agent and its
//! children go on from the log after a crash, whatever has become of the files.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use toka_kernel::hash::{Context, derive};
use toka_kernel::ids::Digest;

use super::limits::FILES_MAX;
use super::model::ModelProgram;
use super::script::{Act, Step};

/// One agent and every agent it can reach by spawning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentSpec {
    agent: Arc<Agent>,
    /// Invariant: all and only the agents that `agent` reaches, without itself.
    others: BTreeMap<String, Arc<Agent>>,
}

/// What one agent file says, with every default filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    /// The exact name.
    pub name: String,
    /// The version, semver.
    #[serde(rename = "ver")]
    pub version: String,
    /// The workstream it belongs to.
    #[serde(rename = "ws")]
    pub workstream: Option<String>,
    /// Labels, for people.
    #[serde(rename = "labl")]
    pub labels: BTreeMap<String, String>,
    /// The `x-` fields of the file, for other programs.
    #[serde(rename = "xtra")]
    pub extra: BTreeMap<String, String>,
    /// What the agent is for, for people.
    #[serde(rename = "desc")]
    pub description: String,
    /// Instructions, for a model.
    #[serde(rename = "inst")]
    pub instructions: String,
    /// A label for the field of work.
    #[serde(rename = "dom")]
    pub domain: Option<String>,
    /// How soon it runs among others.
    #[serde(rename = "prio")]
    pub priority: Priority,
    /// Patterns of the tools it may call.
    pub tools: Vec<String>,
    /// The capabilities it asks for, in their text form: a request, never a grant.
    #[serde(rename = "caps")]
    pub capabilities: Vec<String>,
    /// What it may use up.
    #[serde(rename = "budg")]
    pub budget: Budget,
    /// What follows when it fails.
    #[serde(rename = "fail")]
    pub on_failure: OnFailure,
    /// The agents that it relies on. Not written where there are none.
    #[serde(rename = "deps", default, skip_serializing_if = "Dependencies::is_empty")]
    pub dependencies: Dependencies,
    /// The script; empty where a model chooses.
    pub steps: Vec<Step>,
    /// The model that chooses. Not written where there is none.
    #[serde(rename = "modl", default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelProgram>,
}

/// The agents that one relies on, each with why; for those that run together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dependencies {
    /// Those without whose success it does not start.
    #[serde(rename = "req")]
    pub required: BTreeMap<String, String>,
    /// Those that start before it where they can.
    #[serde(rename = "opt")]
    pub optional: BTreeMap<String, String>,
}

impl Dependencies {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.required.is_empty() && self.optional.is_empty()
    }
}

/// What an agent may use up. The opener's grants carry it: `calls` as their limit, `wall_us` as their expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Tokens of models, in and out together.
    #[serde(rename = "tok")]
    pub tokens: u64,
    /// Micro-USD for models; 0 allows no paid call.
    #[serde(rename = "usd")]
    pub cost_micro: u64,
    /// Calls.
    #[serde(rename = "call")]
    pub calls: u64,
    /// Time from the spawn on, in µs.
    #[serde(rename = "wall")]
    pub wall_us: u64,
    /// What follows when it is used up.
    #[serde(rename = "over")]
    pub on_exceed: OnExceed,
}

/// What follows when a budget is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnExceed {
    /// The call is refused and the step fails.
    #[serde(rename = "fail")]
    Fail,
}

/// How soon something runs among others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum Priority {
    /// Before all others.
    #[serde(rename = "critical")]
    Critical,
    /// Early.
    #[serde(rename = "high")]
    High,
    /// As most.
    #[default]
    #[serde(rename = "medium")]
    Medium,
    /// Late.
    #[serde(rename = "low")]
    Low,
}

impl Priority {
    /// The number that stands in a body.
    pub fn number(self) -> u8 {
        match self {
            Priority::Critical => 1,
            Priority::High => 2,
            Priority::Medium => 3,
            Priority::Low => 4,
        }
    }
}

/// What follows when an agent fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnFailure {
    /// What becomes of the others.
    pub then: Then,
    /// Whether its parent fails too when it looks away.
    #[serde(rename = "ess")]
    pub essential: bool,
}

/// What becomes of the others when an agent fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Then {
    /// What depends on it does not start.
    #[serde(rename = "stop_dependents")]
    StopDependents,
    /// Nothing.
    #[serde(rename = "continue")]
    Continue,
}

impl Then {
    /// The number that stands in a body.
    pub fn number(self) -> u8 {
        match self {
            Then::StopDependents => 1,
            Then::Continue => 2,
        }
    }
}

/// Why bytes are no text of a spec.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Not the encoding of a spec.
    #[error("these bytes are no agent spec: {0}")]
    Encoding(String),
    /// A spec, but not encoded in the one canonical way.
    #[error("these bytes are an agent spec in another than the canonical form")]
    NotCanonical,
    /// An agent that is spawned is missing, or one that is not spawned is there.
    #[error("the agents that come with spec `{0}` are not those that it spawns")]
    Agents(String),
}

impl AgentSpec {
    /// The spec of `name` with what it reaches in `pool`; `None` when any of these is missing there.
    pub fn of(name: &str, pool: &BTreeMap<String, Arc<Agent>>) -> Option<AgentSpec> {
        let agent = pool.get(name)?.clone();
        let mut others = BTreeMap::new();
        let mut open: Vec<&Arc<Agent>> = vec![pool.get(name)?];
        while let Some(next) = open.pop() {
            for child in next.spawns() {
                let found = pool.get(child)?;
                if child != name && others.insert(child.to_owned(), found.clone()).is_none() {
                    open.push(found);
                }
            }
        }
        Some(AgentSpec { agent, others })
    }

    /// What the file of this agent says.
    pub fn agent(&self) -> &Arc<Agent> {
        &self.agent
    }

    /// The exact name.
    pub fn name(&self) -> &str {
        &self.agent.name
    }

    /// The capabilities it asks for, in their text form.
    pub fn requested(&self) -> &[String] {
        &self.agent.capabilities
    }

    /// The spec of an agent that a spawn step of this one names.
    pub fn child(&self, name: &str) -> Option<AgentSpec> {
        let mut pool = self.others.clone();
        pool.insert(self.agent.name.clone(), self.agent.clone());
        self.agent.spawns().contains(name).then(|| AgentSpec::of(name, &pool))?
    }

    /// The agents that it can reach by spawning, itself aside.
    pub fn others(&self) -> impl Iterator<Item = &Agent> {
        self.others.values().map(AsRef::as_ref)
    }

    /// Whether a reachable agent fails its parent when it fails.
    pub(super) fn is_essential(&self, name: &str) -> bool {
        let agent = if name == self.agent.name { Some(&self.agent) } else { self.others.get(name) };
        agent.is_none_or(|agent| agent.on_failure.essential)
    }

    /// The whole spec as bytes: free text, script and reachable agents included.
    pub fn encode(&self) -> Vec<u8> {
        let others = self.others.values().map(AsRef::as_ref).collect();
        encoded(&Text { agent: &self.agent, others })
    }

    /// Reads what [`AgentSpec::encode`] wrote, and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<AgentSpec, SpecError> {
        let mut deserializer = rmp_serde::Deserializer::new(bytes);
        deserializer.set_max_depth(DECODE_DEPTH_MAX);
        let read: OwnedText =
            Deserialize::deserialize(&mut deserializer).map_err(|error| SpecError::Encoding(error.to_string()))?;
        let name = read.agent.name.clone();
        let mut pool: BTreeMap<_, _> =
            read.others.into_iter().map(|other| (other.name.clone(), Arc::new(other))).collect();
        let count = pool.len();
        if count >= FILES_MAX || pool.insert(name.clone(), Arc::new(read.agent)).is_some() {
            return Err(SpecError::Agents(name));
        }
        let spec = AgentSpec::of(&name, &pool).ok_or_else(|| SpecError::Agents(name.clone()))?;
        if spec.others.len() != count {
            return Err(SpecError::Agents(name));
        }
        if spec.encode() != bytes {
            return Err(SpecError::NotCanonical);
        }
        Ok(spec)
    }

    /// The spec digest: of the canonical bytes without descriptions and instructions, reachable agents included.
    pub fn digest(&self) -> Digest {
        let agent = self.agent.without_free_text();
        let others: Vec<Agent> = self.others.values().map(|other| other.without_free_text()).collect();
        let bytes = encoded(&Text { agent: &agent, others: others.iter().collect() });
        derive(Context::AgentSpec, &[&bytes])
    }
}

impl Agent {
    /// The names of the agents that it can spawn.
    pub fn spawns(&self) -> BTreeSet<&str> {
        let mut names = BTreeSet::new();
        spawned(&self.steps, &mut names);
        let chosen = self.model.iter().flat_map(|model| &model.agents);
        names.extend(chosen.map(|agent| agent.spec.as_str()));
        names
    }

    fn without_free_text(&self) -> Agent {
        Agent { description: String::new(), instructions: String::new(), ..self.clone() }
    }
}

fn spawned<'a>(steps: &'a [Step], names: &mut BTreeSet<&'a str>) {
    for step in steps {
        match &step.act {
            Act::Spawn { spec, .. } => {
                names.insert(spec);
            }
            Act::ForEach { steps, .. } => spawned(steps, names),
            Act::Call { .. } | Act::Wait { .. } | Act::Fail { .. } => {}
        }
    }
}

/// Deeper than any spec that a file can give: 32 levels of values, 8 loops, and what wraps them.
const DECODE_DEPTH_MAX: usize = 160;

#[derive(Serialize)]
struct Text<'a> {
    #[serde(rename = "agt")]
    agent: &'a Agent,
    #[serde(rename = "agts")]
    others: Vec<&'a Agent>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnedText {
    #[serde(rename = "agt")]
    agent: Agent,
    #[serde(rename = "agts")]
    others: Vec<Agent>,
}

fn encoded(text: &Text<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Invariant: writing to memory cannot fail, and every type of a spec has a known length.
    let written = text.serialize(&mut rmp_serde::Serializer::new(&mut bytes).with_struct_map());
    assert!(written.is_ok(), "a spec did not encode: {written:?}");
    bytes
}
