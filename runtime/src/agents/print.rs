//! An agent as a file again: JSON, which is YAML too. Reading it gives the same agent.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use toka_tools::files::quantity::{Duration, Usd};

use super::model::{Completion, LoopLimits, ModelProgram, Spawnable};
use super::script::{Act, OnError, Reference, Step, Test, Value, When};
use super::spec::{Agent, OnExceed, Priority, Then};

impl Agent {
    /// The text of a file that says the same, with every default written out.
    pub fn print(&self) -> String {
        let mut metadata = Map::new();
        metadata.insert("name".into(), json!(self.name));
        metadata.insert("version".into(), json!(self.version));
        if let Some(workstream) = &self.workstream {
            metadata.insert("workstream".into(), json!(workstream));
        }
        metadata.insert("labels".into(), json!(self.labels));
        metadata.extend(self.extra.iter().map(|(name, text)| (name.clone(), json!(text))));
        let file = json!({ "apiVersion": "toka/v1", "kind": "Agent", "metadata": metadata, "spec": self.spec_json() });
        // Invariant: JSON in memory can always be written.
        serde_json::to_string_pretty(&file).expect("JSON that cannot be written") + "\n"
    }

    fn spec_json(&self) -> Json {
        let mut spec = Map::new();
        spec.insert("description".into(), json!(self.description));
        if let Some(domain) = &self.domain {
            spec.insert("domain".into(), json!(domain));
        }
        let priority = match self.priority {
            Priority::Critical => "critical",
            Priority::High => "high",
            Priority::Medium => "medium",
            Priority::Low => "low",
        };
        spec.insert("priority".into(), json!(priority));
        spec.insert("instructions".into(), json!({ "text": self.instructions }));
        spec.insert("tools".into(), json!(self.tools));
        spec.insert("capabilities".into(), json!(self.capabilities));
        let budget = &self.budget;
        let OnExceed::Fail = budget.on_exceed;
        let mut limits =
            json!({ "tokens": budget.tokens, "calls": budget.calls, "wall": Duration(budget.wall_us).to_string() });
        limits["on_exceed"] = json!("fail");
        if budget.cost_micro > 0 {
            limits["usd"] = json!(Usd(budget.cost_micro).to_string());
        }
        spec.insert("budget".into(), limits);
        if !self.dependencies.is_empty() {
            let dependencies = &self.dependencies;
            let fields = json!({ "required": dependencies.required, "optional": dependencies.optional });
            spec.insert("dependencies".into(), fields);
        }
        let then = match self.on_failure.then {
            Then::StopDependents => "stop_dependents",
            Then::Continue => "continue",
        };
        spec.insert("on_failure".into(), json!({ "then": then, "essential": self.on_failure.essential }));
        let program = match &self.model {
            None => json!({ "script": { "steps": steps(&self.steps) } }),
            Some(model) => {
                spec.insert("limits".into(), limits_json(&model.limits));
                json!({ "model": model_json(model) })
            }
        };
        spec.insert("program".into(), program);
        Json::Object(spec)
    }
}

fn model_json(model: &ModelProgram) -> Json {
    let agent = |agent: &Spawnable| json!({ "spec": agent.spec, "grants": agent.grants });
    let mut fields = json!({
        "provider": model.provider, "name": model.name, "max_output_tokens": model.max_output_tokens,
        "context_tokens": model.context_tokens, "agents": model.agents.iter().map(agent).collect::<Vec<_>>(),
        "completion": match model.completion {
            Completion::FinishCall => "finish_call",
            Completion::EndTurn => "end_turn",
        },
    });
    if let Some(temperature) = &model.temperature {
        fields["temperature"] = json!(temperature);
    }
    fields
}

fn limits_json(limits: &LoopLimits) -> Json {
    json!({
        "turns": limits.turns, "calls_per_turn": limits.calls_per_turn, "parallel_calls": limits.parallel_calls,
        "repeat": limits.repeat, "malformed": limits.malformed, "refusals": limits.refusals,
    })
}

fn steps(steps: &[Step]) -> Vec<Json> {
    steps.iter().map(step).collect()
}

fn step(step: &Step) -> Json {
    let (name, act) = match &step.act {
        Act::Call { tool, args } => ("call", json!({ "tool": tool, "args": members(args) })),
        Act::Spawn { spec, grants } => ("spawn", json!({ "spec": spec, "grants": grants })),
        Act::ForEach { items, variable, steps: inner } => {
            ("for_each", json!({ "in": value(items), "as": variable, "steps": steps(inner) }))
        }
        Act::Wait { agents } => ("wait", json!({ "agents": agents })),
        Act::Fail { code } => ("fail", json!({ "code": code })),
    };
    let mut fields = Map::new();
    fields.insert("id".into(), json!(step.id));
    if let Some(when) = &step.when {
        fields.insert("when".into(), condition(when));
    }
    if step.on_error == OnError::Continue {
        fields.insert("on_error".into(), json!("continue"));
    }
    fields.insert(name.into(), act);
    Json::Object(fields)
}

fn condition(when: &When) -> Json {
    let mut fields = reference(&when.value);
    let (name, operand) = match &when.test {
        Test::Equals(operand) => ("equals", value(operand)),
        Test::Not(operand) => ("not", value(operand)),
        Test::Exists(wanted) => ("exists", json!(wanted)),
        Test::Max(operand) => ("max", value(operand)),
        Test::Min(operand) => ("min", value(operand)),
    };
    fields.insert(name.into(), operand);
    Json::Object(fields)
}

fn value(of: &Value) -> Json {
    match of {
        Value::Null => Json::Null,
        Value::Bool(bit) => json!(bit),
        Value::Int(number) => json!(number),
        Value::Text(text) => json!(text),
        Value::List(items) => items.iter().map(value).collect(),
        Value::Map(fields) => Json::Object(members(fields)),
        Value::Ref(to) => Json::Object(reference(to)),
    }
}

fn members(fields: &BTreeMap<String, Value>) -> Map<String, Json> {
    fields.iter().map(|(name, member)| (name.clone(), value(member))).collect()
}

fn reference(to: &Reference) -> Map<String, Json> {
    let mut fields = Map::new();
    fields.insert("ref".into(), json!(to.to.to_string()));
    if !to.pointer.is_empty() {
        fields.insert("pointer".into(), json!(to.pointer));
    }
    fields
}
