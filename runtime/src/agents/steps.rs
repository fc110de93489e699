//! The steps of a script, read from a file: every id, reference and bound is checked before anything runs.

use std::collections::BTreeMap;

use toka_kernel::capability::{Capability, ExactName, NamePat};
use toka_kernel::limits::{SPAWN_GRANTS_BYTES_MAX, SPAWN_GRANTS_MAX};

use toka_kernel::tool::SOURCE;
use toka_tools::files::yaml::{Kind, Node, Place};
use toka_tools::files::{Fields, FileCode, Problems, Shape, quote};
use toka_tools::{CODE_PREFIX, code_types};

use super::limits::{LOOP_DEPTH_MAX, LOOP_ITEMS_MAX, STEPS_MAX};
use super::script::{Act, OnError, Step, Value, When};
use super::values::Values;

/// A script and what a look at other files needs.
pub(super) struct Script {
    pub(super) steps: Vec<Step>,
    pub(super) spawnings: Vec<Spawning>,
    /// For each pattern in `tools`, whether a call needs it.
    pub(super) used: Vec<bool>,
}

/// A spawn step: which agent, and with which grants.
#[derive(Debug)]
pub(super) struct Spawning {
    pub(super) spec: String,
    pub(super) place: Place,
    pub(super) grants: Vec<(Capability, Place)>,
}

/// Reads the steps of a script. `tools` are the patterns of the agent, `None` when they could not be read.
pub(super) fn script(node: &Node, tools: Option<&[NamePat]>, problems: &mut Problems<'_>) -> Option<Script> {
    let mut ids = BTreeMap::new();
    let mut count = 0;
    gather_ids(node, &mut ids, &mut count, 0, problems);
    if count > STEPS_MAX {
        let message = format!("the script has {count} steps");
        problems.report(node.place, FileCode::TooMany, message, format!("at most {STEPS_MAX} are allowed"));
        return None;
    }
    let used = vec![false; tools.unwrap_or_default().len()];
    let values = Values::new(ids);
    let mut reader = Reader { problems, values, tools, used, spawnings: Vec::new() };
    let steps = reader.steps(node, "steps")?;
    Some(Script { steps, spawnings: reader.spawnings, used: reader.used })
}

/// Finds every id before the first step is read, so that a reference to a later step can be told from one to no step.
fn gather_ids(
    node: &Node,
    ids: &mut BTreeMap<String, Place>,
    count: &mut usize,
    depth: usize,
    problems: &mut Problems<'_>,
) {
    let (Kind::List(items), true) = (&node.kind, depth <= LOOP_DEPTH_MAX) else { return };
    *count += items.len();
    for item in items {
        let Kind::Map(members) = &item.kind else { continue };
        for member in members {
            match (member.name.as_str(), &member.value.kind) {
                ("id", Kind::Text(text)) => {
                    let Some(first) = ids.get(&text.value) else {
                        ids.insert(text.value.clone(), member.value.place);
                        continue;
                    };
                    let message = format!("the id {} is taken: line {}", quote(&text.value), first.line);
                    let hint = "give each step of the script an id of its own, those in loops too";
                    problems.report(member.value.place, FileCode::DuplicateId, message, hint);
                }
                ("for_each", Kind::Map(inner)) => {
                    for steps in inner.iter().filter(|inner| inner.name == "steps") {
                        gather_ids(&steps.value, ids, count, depth + 1, problems);
                    }
                }
                _ => {}
            }
        }
    }
}

struct Reader<'p, 's, 't> {
    problems: &'p mut Problems<'s>,
    values: Values,
    tools: Option<&'t [NamePat]>,
    used: Vec<bool>,
    spawnings: Vec<Spawning>,
}

const STEP_ACTS: [&str; 6] = ["call", "code", "spawn", "for_each", "wait", "fail"];
const STEP_FIELDS: [&str; 9] = ["id", "when", "on_error", "call", "code", "spawn", "for_each", "wait", "fail"];
const STEP_LATER: [&str; 5] = ["start", "finish", "send", "receive", "parallel"];

impl Reader<'_, '_, '_> {
    fn steps(&mut self, node: &Node, what: &str) -> Option<Vec<Step>> {
        let items = self.problems.list(node, what, STEPS_MAX)?;
        if items.is_empty() {
            let hint = "write at least one step: `- { id: first, call: { tool: NAME } }`";
            self.problems.report(node.place, FileCode::TooMany, format!("`{what}` is empty"), hint);
            return None;
        }
        let steps: Vec<Option<Step>> = items.iter().map(|item| self.step(item)).collect();
        steps.into_iter().collect()
    }

    fn step(&mut self, node: &Node) -> Option<Step> {
        let shape = Shape { what: "step", known: &STEP_FIELDS, later: &STEP_LATER, prefix: None };
        let fields = self.problems.fields(node, &shape)?;
        let id = fields.required("id", "id: first", self.problems);
        let id = id.and_then(|node| self.problems.word(node, "id"));
        let on_error = fields.get("on_error").and_then(|node| {
            let words = [("fail", OnError::Fail), ("continue", OnError::Continue)];
            self.problems.choice(node, "on_error", &words, &[])
        });
        let when = match fields.get("when") {
            Some(node) => self.values.when(node, self.problems).map(Some),
            None => Some(None),
        };
        let act = self.act(&fields, id.as_deref());
        let (id, act): (String, Act) = (id?, act?);
        let on_error = on_error.unwrap_or_default();
        if matches!(act, Act::Fail { .. }) && on_error == OnError::Continue {
            let message = "a `fail` step cannot go on";
            let hint = "leave `on_error` out, or give the step a `when`";
            self.problems.report(fields.place_of("on_error"), FileCode::BadStep, message, hint);
        }
        let when: Option<When> = when?;
        Some(Step { id, when, on_error, act })
    }

    fn act(&mut self, fields: &Fields<'_>, id: Option<&str>) -> Option<Act> {
        let acts: Vec<&str> = STEP_ACTS.iter().copied().filter(|act| fields.get(act).is_some()).collect();
        let [name] = acts[..] else {
            let later = STEP_LATER.iter().any(|name| fields.get(name).is_some());
            match acts.as_slice() {
                [] if later => {}
                [] => {
                    let hint = "give it one of `call`, `code`, `spawn`, `for_each`, `wait`, `fail`";
                    self.problems.report(fields.place, FileCode::BadStep, "the step does nothing", hint);
                }
                several => {
                    let message = format!("the step does {} things", several.len());
                    let hint = "make a step of each: a step does one thing";
                    self.problems.report(fields.place_of(several[1]), FileCode::BadStep, message, hint);
                }
            }
            self.values.known_broken(id);
            return None;
        };
        let node = fields.get(name)?;
        match name {
            "call" => self.call(node, id),
            "code" => self.code(node, id),
            "spawn" => self.spawn(node, id),
            "for_each" => self.for_each(node, id),
            "wait" => self.wait(node, id),
            _ => self.fail(node, id),
        }
    }

    fn call(&mut self, node: &Node, id: Option<&str>) -> Option<Act> {
        let shape = Shape { what: "call", known: &["tool", "args", "save"], later: &[], prefix: None };
        let Some(fields) = self.problems.fields(node, &shape) else {
            self.values.known_call(id);
            return None;
        };
        let tool = fields.required("tool", "tool: file-reader", self.problems);
        let tool = tool.and_then(|node| {
            let name = self.problems.name(node, "tool")?;
            self.listed(node, &name);
            Some(name)
        });
        let args = match fields.get("args") {
            Some(node) => self.values.args(node, self.problems),
            None => Some(BTreeMap::new()),
        };
        self.values.known_call(id);
        self.save(&fields, id);
        Some(Act::Call { tool: tool?, args: args? })
    }

    /// The call of the tool that runs code of a language.
    fn code(&mut self, node: &Node, id: Option<&str>) -> Option<Act> {
        let known = &["language", "source", "args", "stdin", "save"];
        let Some(fields) = self.problems.fields(node, &Shape { what: "code", known, later: &[], prefix: None }) else {
            self.values.known_call(id);
            return None;
        };
        let words: Vec<(&str, &str)> = code_types().into_iter().map(|word| (word, word)).collect();
        let language = fields.required("language", "language: python", self.problems);
        let tool = language.and_then(|node| {
            let word = self.problems.choice(node, "language", &words, &["javascript", "rust"])?;
            let name = format!("{CODE_PREFIX}{word}");
            self.listed(node, &name);
            Some(name)
        });
        let source = fields.required("source", "source: print(1)", self.problems);
        let mut args = BTreeMap::new();
        let mut whole = true;
        for (name, node) in [(SOURCE, source), ("args", fields.get("args")), ("stdin", fields.get("stdin"))] {
            let Some(node) = node else { continue };
            match self.values.value(node, self.problems) {
                Some(value) => drop(args.insert(name.to_owned(), value)),
                None => whole = false,
            }
        }
        self.values.known_call(id);
        self.save(&fields, id);
        let (tool, _) = (tool?, source?);
        whole.then_some(Act::Call { tool, args })
    }

    /// A tool that no pattern of the agent matches would be refused at every run.
    fn listed(&mut self, node: &Node, name: &str) {
        let (Some(tools), Ok(exact)) = (self.tools, ExactName::parse(name)) else { return };
        let wanted = NamePat::Exact(exact);
        let mut found = false;
        for (pattern, used) in tools.iter().zip(&mut self.used) {
            if pattern.covers(&wanted) {
                *used = true;
                found = true;
            }
        }
        if !found {
            let message = format!("the tool {} is not in `spec.tools`", quote(name));
            let hint = format!("add `- {name}` to `spec.tools`");
            self.problems.report(node.place, FileCode::ToolNotListed, message, hint);
        }
    }

    fn spawn(&mut self, node: &Node, id: Option<&str>) -> Option<Act> {
        let shape = Shape { what: "spawn", known: &["spec", "grants", "save"], later: &[], prefix: None };
        let Some(fields) = self.problems.fields(node, &shape) else {
            self.values.known_spawn(id);
            return None;
        };
        let spec_node = fields.required("spec", "spec: other-agent", self.problems);
        let spec = spec_node.and_then(|node| self.problems.name(node, "spec"));
        let grants = fields.get("grants").and_then(|node| grants_of(node, self.problems, SPAWN_GRANTS_MAX));
        self.values.known_spawn(id);
        self.save(&fields, id);
        let (spec, place) = (spec?, spec_node?.place);
        let grants = grants.unwrap_or_default();
        let texts = grants.iter().map(|(capability, _)| capability.to_string()).collect();
        self.spawnings.push(Spawning { spec: spec.clone(), place, grants });
        Some(Act::Spawn { spec, grants: texts })
    }

    fn for_each(&mut self, node: &Node, id: Option<&str>) -> Option<Act> {
        let shape = Shape { what: "for_each", known: &["in", "as", "steps"], later: &["parallel"], prefix: None };
        let Some(fields) = self.problems.fields(node, &shape) else {
            self.values.known_loop(id, false);
            return None;
        };
        let items = fields.required("in", "in: { ref: steps.ID.output, pointer: /list }", self.problems);
        let items = items.and_then(|node| self.items(node));
        let variable_node = fields.required("as", "as: item", self.problems);
        let variable = variable_node.and_then(|node| {
            let word = self.problems.word(node, "as")?;
            self.values.check_new_name(&word, node.place, self.problems).then_some(word)
        });
        let steps = fields.required("steps", "steps: [ … ]", self.problems);
        if self.values.depth() == LOOP_DEPTH_MAX {
            let message = format!("more than {LOOP_DEPTH_MAX} loops inside each other");
            let hint = "walk a flat list, or give the inner loops to an agent of their own";
            self.problems.report(node.place, FileCode::TooDeep, message, hint);
            self.values.known_loop(id, false);
            return None;
        }
        self.values.enter_loop(id, variable.as_deref());
        let steps = steps.and_then(|node| self.steps(node, "steps"));
        self.values.leave_loop();
        // A step that could not be read may be the call that the output is made of.
        let output =
            steps.as_ref().is_none_or(|steps| matches!(steps.last(), Some(Step { act: Act::Call { .. }, .. })));
        self.values.known_loop(id, output);
        Some(Act::ForEach { items: items?, variable: variable?, steps: steps? })
    }

    fn items(&mut self, node: &Node) -> Option<Value> {
        if matches!(node.kind, Kind::List(_)) {
            self.problems.list(node, "in", LOOP_ITEMS_MAX)?;
            return self.values.value(node, self.problems);
        }
        if matches!(&node.kind, Kind::Map(members) if members.iter().any(|member| member.name == "ref")) {
            return self.values.value(node, self.problems);
        }
        let hint = "write `[a, b]` or `{ ref: steps.ID.output, pointer: /list }`";
        self.problems.wrong_type(node, "in", "a list or a reference to one", hint);
        None
    }

    fn wait(&mut self, node: &Node, id: Option<&str>) -> Option<Act> {
        self.values.known_wait(id);
        let shape = Shape { what: "wait", known: &["agents"], later: &["until", "duration"], prefix: None };
        let fields = self.problems.fields(node, &shape)?;
        if fields.get("until").or(fields.get("duration")).is_some() && fields.get("agents").is_none() {
            return None;
        }
        let list = fields.required("agents", "agents: [ ID ]", self.problems)?;
        let items = self.problems.list(list, "agents", STEPS_MAX)?;
        if items.is_empty() {
            let hint = "name the spawn steps to wait for: `agents: [ ID ]`";
            self.problems.report(list.place, FileCode::TooMany, "`agents` is empty", hint);
            return None;
        }
        let agents: Vec<Option<String>> = items.iter().map(|item| self.values.agent(item, self.problems)).collect();
        Some(Act::Wait { agents: agents.into_iter().collect::<Option<_>>()? })
    }

    fn fail(&mut self, node: &Node, id: Option<&str>) -> Option<Act> {
        self.values.known_broken(id);
        let shape = Shape { what: "fail", known: &["code"], later: &[], prefix: None };
        let fields = self.problems.fields(node, &shape)?;
        let code = fields.required("code", "code: nothing-found", self.problems)?;
        Some(Act::Fail { code: self.problems.word(code, "code")? })
    }

    /// `save: NAME` makes a name for what the step leaves.
    fn save(&mut self, fields: &Fields<'_>, id: Option<&str>) {
        let (Some(node), Some(id)) = (fields.get("save"), id) else { return };
        if let Some(name) = self.problems.word(node, "save") {
            self.values.save(&name, id, node.place, self.problems);
        }
    }
}

/// Reads the grants of an agent that is to be spawned.
pub(super) fn grants_of(node: &Node, problems: &mut Problems<'_>, most: usize) -> Option<Vec<(Capability, Place)>> {
    let items = problems.list(node, "grants", most)?;
    let mut bytes = 0;
    let mut grants = Vec::new();
    for item in items {
        let Some((text, capability)) = problems.capability(item, "grants") else { continue };
        bytes += text.len();
        grants.push((capability, item.place));
    }
    if bytes > SPAWN_GRANTS_BYTES_MAX {
        let message = format!("the grants are {bytes} bytes long together");
        let hint = format!("at most {SPAWN_GRANTS_BYTES_MAX} bytes are allowed");
        problems.report(node.place, FileCode::TooLong, message, hint);
    }
    Some(grants)
}
