//! The program of an agent whose steps a model chooses, as its file gives it.

use serde::{Deserialize, Serialize};
use toka_kernel::capability::Capability;
use toka_kernel::limits::SPAWN_GRANTS_MAX;
use toka_tools::files::yaml::{Node, Place};
use toka_tools::files::{FileCode, Problems, Shape, quote};

use super::limits::{MODEL_AGENTS_MAX, MODEL_NAME_BYTES_MAX};
use super::steps::{Spawning, grants_of};
use crate::gateway::config::model_name;

/// The most tokens of an answer where the file says nothing.
const MAX_OUTPUT_TOKENS: u64 = 2_048;
/// The tokens of a model's window where the file says nothing.
const CONTEXT_TOKENS: u64 = 128_000;

/// Which model chooses, and within which bounds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelProgram {
    /// The provider, as the configuration of the node names it.
    #[serde(rename = "prov")]
    pub provider: String,
    /// The model, as its server names it.
    pub name: String,
    /// The most tokens of an answer: 1 to 200,000.
    #[serde(rename = "outp")]
    pub max_output_tokens: u64,
    /// The tokens that a request and its answer may have together: 1,000 to 10,000,000.
    #[serde(rename = "ctx")]
    pub context_tokens: u64,
    /// A decimal number from 0 to 2 as it is written; `None` leaves it to the server.
    #[serde(rename = "temp")]
    pub temperature: Option<String>,
    /// What counts as the end of the work.
    #[serde(rename = "comp")]
    pub completion: Completion,
    /// The bounds of the loop.
    #[serde(rename = "lim")]
    pub limits: LoopLimits,
    /// The agents that it may spawn, at most 64.
    #[serde(rename = "agts")]
    pub agents: Vec<Spawnable>,
}

/// What counts as the end of a model's work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Completion {
    /// The call of `agent.finish`, and nothing else.
    #[default]
    #[serde(rename = "fin")]
    FinishCall,
    /// An answer without a call: its text is the result.
    #[serde(rename = "turn")]
    EndTurn,
}

/// The bounds of the loop between a model and its tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoopLimits {
    /// Requests to the model: 1 to 1,000.
    pub turns: u16,
    /// Calls of one answer; those beyond are refused: 1 to 64.
    #[serde(rename = "call")]
    pub calls_per_turn: u16,
    /// Calls of one answer that run at a time: 1 to 32.
    #[serde(rename = "par")]
    pub parallel_calls: u16,
    /// How often the same call may be made in a row: 2 to 100.
    #[serde(rename = "rep")]
    pub repeat: u16,
    /// How many calls in a row may make no sense: 1 to 100.
    #[serde(rename = "malf")]
    pub malformed: u16,
    /// How many calls in a row may be refused: 1 to 1,000.
    #[serde(rename = "ref")]
    pub refusals: u16,
}

impl Default for LoopLimits {
    fn default() -> LoopLimits {
        LoopLimits { turns: 50, calls_per_turn: 16, parallel_calls: 4, repeat: 3, malformed: 5, refusals: 10 }
    }
}

/// An agent that a model may spawn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spawnable {
    /// The name of its spec.
    pub spec: String,
    /// What it is granted, each a capability in its text form.
    #[serde(rename = "caps")]
    pub grants: Vec<String>,
}

impl ModelProgram {
    /// The name of the model in capabilities: `PROVIDER.NAME`.
    pub fn capability_name(&self) -> String {
        // Invariant: a file with another name is refused when it is read; a decoded spec that holds one names no model.
        model_name(&self.provider, &self.name).unwrap_or_default()
    }

    /// The name of the model as a tool: `model.PROVIDER.NAME`.
    pub fn tool_name(&self) -> String {
        format!("model.{}", self.capability_name())
    }
}

/// Reads `spec.program.model`, and `spec.limits` where it is given.
pub(super) fn model_program(
    node: &Node,
    limits: Option<&Node>,
    problems: &mut Problems<'_>,
) -> Option<(ModelProgram, Vec<Spawning>)> {
    let known = &["provider", "name", "max_output_tokens", "context_tokens", "temperature", "completion", "agents"];
    let fields = problems.fields(node, &Shape { what: "spec.program.model", known, later: &[], prefix: None })?;
    let provider = fields.required("provider", "provider: openai", problems);
    let provider_name = provider.and_then(|node| problems.name(node, "spec.program.model.provider"));
    let name_node = fields.required("name", "name: MODEL", problems);
    let name =
        name_node.and_then(|node| problems.plain_text(node, "spec.program.model.name", MODEL_NAME_BYTES_MAX, false));
    if let (Some(node), Some(provider), Some(name)) = (name_node, &provider_name, &name)
        && let Err(what) = model_name(provider, name)
    {
        let hint = "write the name of the model as its server knows it, of at most 32 characters between the dots";
        problems.report(node.place, FileCode::BadName, what, hint);
    }
    let whole = |field: &str, range, default: u64, problems: &mut Problems<'_>| {
        let node = fields.get(field);
        node.and_then(|node| problems.whole(node, &format!("spec.program.model.{field}"), range)).unwrap_or(default)
    };
    let max_output_tokens = whole("max_output_tokens", 1..=200_000, MAX_OUTPUT_TOKENS, problems);
    let context_tokens = whole("context_tokens", 1_000..=10_000_000, CONTEXT_TOKENS, problems);
    if max_output_tokens >= context_tokens {
        let place = fields.get("max_output_tokens").or(fields.get("context_tokens")).map_or(node.place, |n| n.place);
        let message = format!("an answer of {max_output_tokens} tokens leaves no room in a window of {context_tokens}");
        problems.report(place, FileCode::OutOfRange, message, "lower `max_output_tokens`, or raise `context_tokens`");
    }
    let temperature = fields.get("temperature").and_then(|node| temperature(node, problems));
    let words = [("finish_call", Completion::FinishCall), ("end_turn", Completion::EndTurn)];
    let completion = fields
        .get("completion")
        .and_then(|node| problems.choice(node, "spec.program.model.completion", &words, &[]))
        .unwrap_or_default();
    let spawnings = fields.get("agents").map(|node| agents(node, problems)).unwrap_or_default();
    let limits = limits.map(|node| loop_limits(node, problems)).unwrap_or_default();
    let spawnable = |spawning: &Spawning| Spawnable {
        spec: spawning.spec.clone(),
        grants: spawning.grants.iter().map(|(capability, _)| capability.to_string()).collect(),
    };
    let program = ModelProgram {
        provider: provider_name?,
        name: name?,
        max_output_tokens,
        context_tokens,
        temperature,
        completion,
        limits,
        agents: spawnings.iter().map(spawnable).collect(),
    };
    Some((program, spawnings))
}

/// A temperature is sent as it is written, so it is text; a number would have to be computed on.
fn temperature(node: &Node, problems: &mut Problems<'_>) -> Option<String> {
    let what = "spec.program.model.temperature";
    let text = problems.text(node, what)?;
    let (whole, places) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| (1..=6).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    let zero = places.bytes().all(|byte| byte == b'0');
    if digits(places) && (matches!(whole, "0" | "1") || whole == "2" && zero) {
        return Some(text.to_owned());
    }
    let hint = "write a decimal number from 0 to 2 in quotes: \"0.2\"";
    problems.report(node.place, FileCode::OutOfRange, format!("`{what}` is {}", quote(text)), hint);
    None
}

fn agents(node: &Node, problems: &mut Problems<'_>) -> Vec<Spawning> {
    let what = "spec.program.model.agents";
    let mut found: Vec<Spawning> = Vec::new();
    for item in problems.list(node, what, MODEL_AGENTS_MAX).unwrap_or_default() {
        let shape = Shape { what, known: &["spec", "grants"], later: &[], prefix: None };
        let Some(fields) = problems.fields(item, &shape) else { continue };
        let spec_node = fields.required("spec", "spec: other-agent", problems);
        let grants: Vec<(Capability, Place)> =
            fields.get("grants").and_then(|node| grants_of(node, problems, SPAWN_GRANTS_MAX)).unwrap_or_default();
        let Some((node, spec)) = spec_node.and_then(|node| Some((node, problems.name(node, what)?))) else { continue };
        if found.iter().any(|known| known.spec == spec) {
            let message = format!("the agent {} stands here twice", quote(&spec));
            problems.report(node.place, FileCode::DuplicateKey, message, "keep one of the two");
            continue;
        }
        found.push(Spawning { spec, place: node.place, grants });
    }
    found
}

fn loop_limits(node: &Node, problems: &mut Problems<'_>) -> LoopLimits {
    let mut limits = LoopLimits::default();
    let known = &["turns", "calls_per_turn", "parallel_calls", "repeat", "malformed", "refusals"];
    let shape = Shape { what: "spec.limits", known, later: &[], prefix: None };
    let Some(fields) = problems.fields(node, &shape) else { return limits };
    let each = [
        ("turns", 1..=1_000, &mut limits.turns),
        ("calls_per_turn", 1..=64, &mut limits.calls_per_turn),
        ("parallel_calls", 1..=32, &mut limits.parallel_calls),
        ("repeat", 2..=100, &mut limits.repeat),
        ("malformed", 1..=100, &mut limits.malformed),
        ("refusals", 1..=1_000, &mut limits.refusals),
    ];
    for (name, range, limit) in each {
        let node = fields.get(name);
        let read = node.and_then(|node| problems.whole(node, &format!("spec.limits.{name}"), range));
        *limit = read.and_then(|number| u16::try_from(number).ok()).unwrap_or(*limit);
    }
    limits
}
