//! One agent file: from text to what it says, or to everything that is wrong with it.

use std::collections::BTreeMap;

use toka_kernel::capability::{Capability, ExactName, NamePat};
use toka_tools::files::quantity::Usd;
use toka_tools::files::yaml::{Node, Place, parse};
use toka_tools::files::{FileCode, FileError, Format, Problems, Shape, VERSION_BYTES_MAX, clean, decode, quote};

use super::limits::{
    BUDGET_CALLS, BUDGET_TOKENS, BUDGET_WALL_US, BUDGET_WALL_US_MAX, CAPABILITIES_MAX, DEPENDENCIES_MAX,
    DESCRIPTION_BYTES_MAX, FILE_BYTES_MAX, INSTRUCTIONS_BYTES_MAX, LABEL_BYTES_MAX, LABELS_MAX, TOOLS_MAX,
};
use super::model::{ModelProgram, model_program};
use super::script::Step;
use super::spec::{Agent, Budget, Dependencies, OnExceed, OnFailure, Priority, Then};
use super::steps::{Script, Spawning, script};

/// What an agent file is.
const FORMAT: Format = Format { noun: "agent file", kind: "Agent", bytes_max: FILE_BYTES_MAX };

/// What a file says, with the places that a look at other files needs.
#[derive(Debug)]
pub(super) struct AgentFile {
    pub(super) agent: Agent,
    pub(super) name_place: Place,
    pub(super) spawnings: Vec<Spawning>,
    pub(super) requests: Vec<Capability>,
    /// Patterns in `tools` that no call needs.
    pub(super) unused_tools: Vec<(String, Place)>,
}

/// Reads an agent file.
pub(super) fn read(file: &str, bytes: &[u8]) -> Result<AgentFile, Vec<FileError>> {
    let text = decode(file, bytes, &FORMAT)?;
    let mut problems = Problems::new(file, text, &FORMAT);
    let agent = match parse(&mut problems) {
        Some(root) => agent_file(&root, &mut problems),
        None => None,
    };
    match (agent, problems.into_errors()) {
        (Some(agent), errors) if errors.is_empty() => Ok(agent),
        (_, errors) => Err(errors),
    }
}

fn agent_file(root: &Node, problems: &mut Problems<'_>) -> Option<AgentFile> {
    let known = &["apiVersion", "kind", "metadata", "spec"];
    let top = problems.fields(root, &Shape { what: "agent file", known, later: &[], prefix: None })?;
    problems.api_and_kind(&top);
    let metadata = top.required("metadata", "metadata: { name: my-agent, version: 1.0.0 }", problems);
    let metadata = metadata.and_then(|node| metadata_of(node, problems));
    let spec = top.required("spec", "spec: { program: { script: { steps: […] } } }", problems);
    let spec = spec.and_then(|node| spec_of(node, problems));
    let (metadata, spec) = (metadata?, spec?);
    let own = |names: &BTreeMap<String, String>| names.contains_key(&metadata.name);
    if own(&spec.dependencies.required) || own(&spec.dependencies.optional) {
        let message = format!("{} depends on itself", quote(&metadata.name));
        problems.report(metadata.name_place, FileCode::Conflict, message, "leave it out of `spec.dependencies`");
    }
    Some(AgentFile {
        agent: Agent {
            name: metadata.name,
            version: metadata.version,
            workstream: metadata.workstream,
            labels: metadata.labels,
            extra: metadata.extra,
            description: spec.description,
            instructions: spec.instructions,
            domain: spec.domain,
            priority: spec.priority,
            tools: spec.tools,
            capabilities: spec.requests.iter().map(ToString::to_string).collect(),
            budget: spec.budget,
            on_failure: spec.on_failure,
            dependencies: spec.dependencies,
            steps: spec.steps,
            model: spec.model,
        },
        name_place: metadata.name_place,
        spawnings: spec.spawnings,
        requests: spec.requests,
        unused_tools: spec.unused_tools,
    })
}

struct Metadata {
    name: String,
    name_place: Place,
    version: String,
    workstream: Option<String>,
    labels: BTreeMap<String, String>,
    extra: BTreeMap<String, String>,
}

fn metadata_of(node: &Node, problems: &mut Problems<'_>) -> Option<Metadata> {
    let known = &["name", "version", "workstream", "labels"];
    let fields = problems.fields(node, &Shape { what: "metadata", known, later: &[], prefix: Some("x-") })?;
    let name = fields.required("name", "name: my-agent", problems);
    let name_place = name.map_or(fields.place, |node| node.place);
    let name = name.and_then(|node| problems.name(node, "metadata.name"));
    let version = fields.required("version", "version: 1.0.0", problems);
    let version = version.and_then(|node| problems.version(node, "metadata.version", VERSION_BYTES_MAX));
    let workstream = fields.get("workstream").and_then(|node| problems.name(node, "metadata.workstream"));
    let labels = fields.get("labels");
    let most = (LABEL_BYTES_MAX, LABEL_BYTES_MAX);
    let labels = labels.map(|node| problems.labels(node, "metadata.labels", LABELS_MAX, most)).unwrap_or_default();
    let mut extra = BTreeMap::new();
    for member in fields.members().iter().filter(|member| member.name.starts_with("x-")) {
        let what = format!("metadata.{}", clean(&member.name, 60));
        if problems.label_name(member.place, &member.name, LABEL_BYTES_MAX)
            && let Some(text) = problems.plain_text(&member.value, &what, LABEL_BYTES_MAX, false)
        {
            extra.insert(member.name.clone(), text);
        }
    }
    if extra.len() > LABELS_MAX {
        let message = format!("`metadata` has {} `x-` fields", extra.len());
        problems.report(node.place, FileCode::TooMany, message, format!("at most {LABELS_MAX} are allowed"));
    }
    Some(Metadata { name: name?, name_place, version: version?, workstream, labels, extra })
}

struct Spec {
    description: String,
    instructions: String,
    domain: Option<String>,
    priority: Priority,
    tools: Vec<String>,
    requests: Vec<Capability>,
    budget: Budget,
    on_failure: OnFailure,
    dependencies: Dependencies,
    steps: Vec<Step>,
    model: Option<ModelProgram>,
    spawnings: Vec<Spawning>,
    unused_tools: Vec<(String, Place)>,
}

fn spec_of(node: &Node, problems: &mut Problems<'_>) -> Option<Spec> {
    let known = &[
        "description",
        "domain",
        "priority",
        "program",
        "instructions",
        "tools",
        "capabilities",
        "budget",
        "on_failure",
        "limits",
        "dependencies",
    ];
    let later = &["sandbox", "approvals", "tasks", "objectives", "deliverables", "reporting"];
    let fields = problems.fields(node, &Shape { what: "spec", known, later, prefix: None })?;
    let description = fields.get("description");
    let description =
        description.and_then(|node| problems.plain_text(node, "spec.description", DESCRIPTION_BYTES_MAX, true));
    let domain = fields.get("domain").and_then(|node| problems.plain_text(node, "spec.domain", LABEL_BYTES_MAX, false));
    let words = [
        ("critical", Priority::Critical),
        ("high", Priority::High),
        ("medium", Priority::Medium),
        ("low", Priority::Low),
    ];
    let priority = fields.get("priority").and_then(|node| problems.choice(node, "spec.priority", &words, &[]));
    let instructions = fields.get("instructions").and_then(|node| instructions_of(node, problems));
    let tools = match fields.get("tools") {
        Some(node) => tools_of(node, problems),
        None => Some(Vec::new()),
    };
    let requests = fields.get("capabilities").map(|node| requests_of(node, problems)).unwrap_or_default();
    let budget = budget_of(fields.get("budget"), problems);
    let on_failure = on_failure_of(fields.get("on_failure"), problems);
    let dependencies = dependencies_of(fields.get("dependencies"), problems);
    let program = fields.required("program", "program: { script: { steps: […] } }", problems);
    let patterns: Option<Vec<NamePat>> =
        tools.as_ref().map(|tools| tools.iter().map(|(_, pattern, _)| pattern.clone()).collect());
    let program = program.and_then(|node| program_of(node, fields.get("limits"), patterns.as_deref(), problems))?;
    let tools = tools?;
    let (steps, model, spawnings, used) = match program {
        Program::Script(Script { steps, spawnings, used }) => (steps, None, spawnings, used),
        // What a model will call is not known beforehand.
        Program::Model(model, spawnings) => (Vec::new(), Some(model), spawnings, vec![true; tools.len()]),
    };
    let unused = tools.iter().zip(&used).filter(|(_, used)| !**used);
    Some(Spec {
        description: description.unwrap_or_default(),
        instructions: instructions.unwrap_or_default(),
        domain,
        priority: priority.unwrap_or_default(),
        unused_tools: unused.map(|((text, _, place), _)| (text.clone(), *place)).collect(),
        tools: tools.into_iter().map(|(text, _, _)| text).collect(),
        requests,
        budget,
        on_failure,
        dependencies,
        steps,
        model,
        spawnings,
    })
}

fn instructions_of(node: &Node, problems: &mut Problems<'_>) -> Option<String> {
    let shape = Shape { what: "spec.instructions", known: &["text"], later: &["file"], prefix: None };
    let fields = problems.fields(node, &shape)?;
    if fields.get("file").is_some() {
        return None;
    }
    let text = fields.required("text", "text: …", problems)?;
    problems.plain_text(text, "spec.instructions.text", INSTRUCTIONS_BYTES_MAX, true)
}

/// `None` when the list is not known whole: then no call can be said to be missing in it.
fn tools_of(node: &Node, problems: &mut Problems<'_>) -> Option<Vec<(String, NamePat, Place)>> {
    let items = problems.list(node, "spec.tools", TOOLS_MAX)?;
    let mut tools = Vec::new();
    for item in items {
        if let Some((text, pattern)) = problems.pattern(item, "spec.tools") {
            tools.push((text, pattern, item.place));
        }
    }
    (tools.len() == items.len()).then_some(tools)
}

fn requests_of(node: &Node, problems: &mut Problems<'_>) -> Vec<Capability> {
    let items = problems.list(node, "spec.capabilities", CAPABILITIES_MAX).unwrap_or_default();
    items.iter().filter_map(|item| Some(problems.capability(item, "spec.capabilities")?.1)).collect()
}

/// What an agent does: exactly one of these.
enum Program {
    Script(Script),
    Model(ModelProgram, Vec<Spawning>),
}

fn program_of(
    node: &Node,
    limits: Option<&Node>,
    tools: Option<&[NamePat]>,
    problems: &mut Problems<'_>,
) -> Option<Program> {
    let shape = Shape { what: "spec.program", known: &["script", "model"], later: &["external"], prefix: None };
    let fields = problems.fields(node, &shape)?;
    if fields.get("external").is_some() {
        return None;
    }
    if let Some(node) = fields.get("model") {
        if fields.get("script").is_some() {
            let hint = "keep one: a script says its steps, a model chooses them";
            problems.report(node.place, FileCode::Conflict, "the program is a script and a model", hint);
            return None;
        }
        return model_program(node, limits, problems).map(|(model, spawnings)| Program::Model(model, spawnings));
    }
    if let Some(limits) = limits {
        let hint = "leave `limits` out: they bound what a model chooses";
        problems.report(limits.place, FileCode::Conflict, "`spec.limits` says nothing about a script", hint);
    }
    let node = fields.required("script", "script: { steps: […] }", problems)?;
    let shape = Shape { what: "spec.program.script", known: &["steps"], later: &[], prefix: None };
    let fields = problems.fields(node, &shape)?;
    let steps = fields.required("steps", "steps: [ { id: first, call: { tool: NAME } } ]", problems)?;
    script(steps, tools, problems).map(Program::Script)
}

fn budget_of(node: Option<&Node>, problems: &mut Problems<'_>) -> Budget {
    let mut budget = Budget {
        tokens: BUDGET_TOKENS,
        cost_micro: 0,
        calls: BUDGET_CALLS,
        wall_us: BUDGET_WALL_US,
        on_exceed: OnExceed::Fail,
    };
    let known = &["tokens", "usd", "calls", "wall", "on_exceed"];
    let shape = Shape { what: "spec.budget", known, later: &[], prefix: None };
    let Some(fields) = node.and_then(|node| problems.fields(node, &shape)) else { return budget };
    let most = i64::MAX.unsigned_abs();
    if let Some(number) = fields.get("tokens").and_then(|node| problems.whole(node, "spec.budget.tokens", 1..=most)) {
        budget.tokens = number;
    }
    if let Some(number) = fields.get("calls").and_then(|node| problems.whole(node, "spec.budget.calls", 1..=most)) {
        budget.calls = number;
    }
    if let Some(usd) = fields.get("usd").and_then(|node| usd_of(node, problems)) {
        budget.cost_micro = usd.0;
    }
    if let Some(wall) =
        fields.get("wall").and_then(|node| problems.duration(node, "spec.budget.wall", 1..=BUDGET_WALL_US_MAX))
    {
        budget.wall_us = wall;
    }
    if let Some(node) = fields.get("on_exceed") {
        problems.choice(node, "spec.budget.on_exceed", &[("fail", OnExceed::Fail)], &["pause"]);
    }
    budget
}

fn usd_of(node: &Node, problems: &mut Problems<'_>) -> Option<Usd> {
    let text = problems.text(node, "spec.budget.usd")?;
    let hint = "write dollars in quotes with at most six places: \"0.50\"";
    match Usd::parse(text) {
        Ok(Usd(0)) => {
            let message = "`spec.budget.usd` is nothing";
            problems.report(node.place, FileCode::OutOfRange, message, "leave it out to allow no paid call");
            None
        }
        Ok(usd) => Some(usd),
        Err(error) => problems.no_quantity(node, "spec.budget.usd", error, hint),
    }
}

fn dependencies_of(node: Option<&Node>, problems: &mut Problems<'_>) -> Dependencies {
    let shape = Shape { what: "spec.dependencies", known: &["required", "optional"], later: &[], prefix: None };
    let Some(fields) = node.and_then(|node| problems.fields(node, &shape)) else { return Dependencies::default() };
    let mut kinds = [BTreeMap::new(), BTreeMap::new()];
    for (kind, found) in ["required", "optional"].into_iter().zip(&mut kinds) {
        let Some(node) = fields.get(kind) else { continue };
        let what = format!("spec.dependencies.{kind}");
        let members = problems.map(node, &what).unwrap_or_default();
        if let Some(beyond) = members.get(DEPENDENCIES_MAX) {
            let hint = format!("at most {DEPENDENCIES_MAX} are allowed");
            problems.report(beyond.place, FileCode::TooMany, format!("`{what}` has {} agents", members.len()), hint);
        }
        for member in members {
            if ExactName::parse(&member.name).is_err() {
                let message = format!("{} cannot name an agent", quote(&member.name));
                problems.report(
                    member.place,
                    FileCode::BadName,
                    message,
                    "write the name of an agent: `schema-checker`",
                );
            }
            let why = problems.plain_text(
                &member.value,
                &format!("{what}.{}", clean(&member.name, 60)),
                LABEL_BYTES_MAX,
                false,
            );
            found.insert(member.name.clone(), why.unwrap_or_default());
        }
    }
    let [required, optional] = kinds;
    if let Some(both) = required.keys().find(|name| optional.contains_key(*name)) {
        let message = format!("{} is required and optional", quote(both));
        problems.report(fields.place_of("optional"), FileCode::Conflict, message, "keep one of the two");
    }
    Dependencies { required, optional }
}

fn on_failure_of(node: Option<&Node>, problems: &mut Problems<'_>) -> OnFailure {
    let mut on_failure = OnFailure { then: Then::StopDependents, essential: true };
    let shape = Shape { what: "spec.on_failure", known: &["then", "essential"], later: &[], prefix: None };
    let Some(fields) = node.and_then(|node| problems.fields(node, &shape)) else { return on_failure };
    let words = [("stop_dependents", Then::StopDependents), ("continue", Then::Continue)];
    let then = fields
        .get("then")
        .and_then(|node| problems.choice(node, "spec.on_failure.then", &words, &["stop_all", "retry"]));
    on_failure.then = then.unwrap_or(on_failure.then);
    let essential = fields.get("essential").and_then(|node| problems.flag(node, "spec.on_failure.essential"));
    on_failure.essential = essential.unwrap_or(on_failure.essential);
    on_failure
}
