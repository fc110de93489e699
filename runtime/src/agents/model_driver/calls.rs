//! What an answer asks for: tools, each call one command, and the few words that steer agents.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};
use toka_kernel::capability::ExactName;
use toka_kernel::denial::Code;
use toka_tools::files::nearest;

use super::super::ask::{Addressee, Ask, Control, Next};
use super::super::model::{Completion, ModelProgram};
use super::super::script_driver::code_name;
use super::super::transcript::{EndCode, Ended, Record, Transcript};
use super::{Child, Closing, ModelDriver, Phase, is_spent, words};
use crate::gateway::{Input, Tool, ToolCall, ToolNames, Turn};

const FINISH: &str = "agent.finish";
const SPAWN: &str = "agent.spawn";
const WAIT: &str = "agent.wait";
const SEND: &str = "agent.send";
const PAUSE: &str = "agent.pause";
const RESUME: &str = "agent.resume";
const STOP: &str = "agent.stop";

/// The words that steer agents, as a model calls them. No tool may have one of these names.
pub const CONTROLS: [&str; 7] = [FINISH, SPAWN, WAIT, SEND, PAUSE, RESUME, STOP];

/// The tool that a name which no tool can have is recorded as.
const NAMELESS: &str = "unknown";
/// The most grants that a model may choose for an agent, and the most bytes of one and of all: a command that holds them
/// beside those that the agent needs for its own model can always be recorded.
const GRANTS_MAX: usize = 32;
const GRANT_BYTES_MAX: usize = 1_024;
const GRANTS_BYTES_MAX: usize = 16 << 10;

/// Whether a name is one of [`CONTROLS`].
pub fn is_control(name: &str) -> bool {
    CONTROLS.contains(&name)
}

/// Calls in a row that made no sense, were refused, or were the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Streak {
    malformed: u16,
    refused: u16,
    same: u16,
    /// The longest run of the same call so far.
    worst: u16,
    last: Option<[u8; 32]>,
}

/// How far a call has come.
enum Progress {
    /// The model is told this.
    Answered(String),
    /// First, these commands.
    Next(Next),
}

/// What is offered to the model: the words that steer agents, then the tools.
pub(super) fn offered(model: &ModelProgram, transcript: &Transcript) -> Vec<Tool> {
    let mut tools = controls(model);
    let offer = |(name, offer): (&String, &super::super::transcript::Offer)| Tool {
        name: name.clone(),
        description: offer.description.clone(),
        schema: offer.schema.clone(),
    };
    tools.extend(transcript.tools.iter().map(offer));
    tools
}

fn controls(model: &ModelProgram) -> Vec<Tool> {
    let tool = |name: &str, description: &str, properties: Json, required: &[&str]| Tool {
        name: name.to_owned(),
        description: description.to_owned(),
        schema: json!({
            "type": "object", "properties": properties, "required": required, "additionalProperties": false,
        }),
    };
    let mut tools = Vec::new();
    if model.completion == Completion::FinishCall {
        let properties = json!({
            "status": { "type": "string", "enum": ["completed", "failed"], "default": "completed" },
            "result": { "description": "What came of the work, any JSON." },
            "reason": { "type": "string", "description": "Why it failed." },
        });
        tools.push(tool(FINISH, "Ends the work. It is the last thing you call.", properties, &[]));
    }
    let text = json!({ "type": "string", "maxLength": 1_048_576 });
    let to = json!({ "type": "string", "description": "`parent`, an agent that you spawned, or another by its name." });
    tools.push(tool(SEND, "Sends a message to another agent.", json!({ "to": to, "text": text }), &["to", "text"]));
    if model.agents.is_empty() {
        return tools;
    }
    let names: Vec<&str> = model.agents.iter().map(|agent| agent.spec.as_str()).collect();
    let properties = json!({
        "agent": { "type": "string", "enum": names },
        "task": { "type": "string", "description": "What it is to do, sent to it as a message.", "maxLength": 1_048_576 },
        "grants": {
            "type": "array", "items": { "type": "string", "maxLength": GRANT_BYTES_MAX }, "maxItems": GRANTS_MAX,
            "description": "Capabilities for it, each within your own. Without them it gets those of your file.",
        },
    });
    tools.push(tool(SPAWN, "Spawns and starts an agent, and tells how it is called.", properties, &["agent"]));
    let below = json!({ "type": "string", "description": "An agent that you spawned." });
    let list = json!({ "type": "array", "items": below, "description": "Without it, all that you spawned." });
    tools.push(tool(
        WAIT,
        "Waits until agents have ended, and tells what came of them.",
        json!({ "agents": list }),
        &[],
    ));
    for (name, what) in [
        (PAUSE, "Lets an agent ask for nothing more until it is resumed."),
        (RESUME, "Lets a paused agent go on."),
        (STOP, "Ends an agent and all below it."),
    ] {
        tools.push(tool(name, what, json!({ "agent": below }), &["agent"]));
    }
    tools
}

/// Gives calls ids that differ, where the model gave the same one twice or none.
pub(super) fn name_apart(calls: &mut [ToolCall], turn: u16) {
    let mut seen = BTreeSet::new();
    for (index, call) in calls.iter_mut().enumerate() {
        if call.id.is_empty() || !seen.insert(call.id.clone()) {
            call.id = format!("toka-{turn}-{index}");
            seen.insert(call.id.clone());
        }
    }
}

impl ModelDriver {
    /// Makes the calls of the answer, and then begins the next turn or ends the task.
    pub(super) fn call(&mut self, model: &ModelProgram, transcript: &Transcript) -> Option<Next> {
        if self.runs_together(model, transcript) {
            let asks = self.missing(model, transcript);
            if !asks.is_empty() {
                return Some(Next::Commands(asks));
            }
        }
        while let Some(call) = self.calls.get(self.answered.len()).cloned() {
            match self.one(&call, model, transcript) {
                Progress::Next(next) => return Some(next),
                Progress::Answered(text) => self.answered.push(text),
            }
        }
        let calls = std::mem::take(&mut self.calls);
        let answered = std::mem::take(&mut self.answered);
        for (call, text) in calls.iter().zip(answered) {
            self.push(Turn::Result { call: call.id.clone(), content: vec![Input::Text(text)] });
        }
        let path = self.turn_path();
        if let Some((code, detail)) = self.streak.broken(model) {
            return self.fail(code, path, detail);
        }
        if self.is_spent {
            return self.fail(EndCode::Budget, path, "a budget is used up".to_owned());
        }
        if let Some(closing) = self.finish.take() {
            self.phase = Phase::Closing(closing);
            return None;
        }
        self.next_turn();
        None
    }

    /// Whether all calls of the answer may run at a time.
    fn runs_together(&self, model: &ModelProgram, transcript: &Transcript) -> bool {
        let most = usize::from(model.limits.parallel_calls.min(model.limits.calls_per_turn));
        let alone = |call: &ToolCall| {
            transcript.tools.get(&self.name_of(call, model, transcript)).is_none_or(|offer| !offer.parallel_safe)
        };
        self.calls.len() <= most && !self.calls.iter().any(alone)
    }

    /// The commands of the calls that have none yet.
    fn missing(&self, model: &ModelProgram, transcript: &Transcript) -> Vec<Ask> {
        let room = self.spec.agent().budget.calls.saturating_sub(self.counted);
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let calls = self.calls.iter().enumerate().skip(self.answered.len()).take(room);
        let asks = calls.map(|(index, call)| self.tool_ask(index, call, model, transcript));
        asks.filter(|ask| !transcript.records.contains_key(&ask.id())).collect()
    }

    /// The tool that a call means, by its name here.
    fn name_of(&self, call: &ToolCall, model: &ModelProgram, transcript: &Transcript) -> String {
        let offered = offered(model, transcript);
        let names = ToolNames::of(offered.iter().map(|tool| tool.name.as_str())).unwrap_or_default();
        let known = names.name(&call.name).map(str::to_owned);
        known.unwrap_or_else(
            || if ExactName::parse(&call.name).is_ok() { call.name.clone() } else { NAMELESS.to_owned() },
        )
    }

    fn call_path(&self, index: usize) -> String {
        format!("turn[{}].call[{index}]", self.turn)
    }

    fn tool_ask(&self, index: usize, call: &ToolCall, model: &ModelProgram, transcript: &Transcript) -> Ask {
        let path = self.call_path(index);
        let surplus = index >= usize::from(model.limits.calls_per_turn);
        Ask::Call {
            id: self.id(transcript, &path),
            path,
            tool: self.name_of(call, model, transcript),
            arguments: call.arguments.clone(),
            unfit: surplus.then_some(Code::TooManyCalls),
        }
    }

    fn one(&mut self, call: &ToolCall, model: &ModelProgram, transcript: &Transcript) -> Progress {
        let name = self.name_of(call, model, transcript);
        if is_control(&name) {
            let arguments = serde_json::from_str::<Json>(&call.arguments).ok().filter(Json::is_object);
            if self.answered.len() >= usize::from(model.limits.calls_per_turn) {
                return self.nonsense(&name, "there are more calls in this answer than there may be");
            }
            let before = (self.streak.malformed, self.streak.refused);
            let progress = match arguments {
                Some(arguments) => self.control(&name, &arguments, model, transcript),
                None => self.nonsense(&name, "the arguments are no JSON object"),
            };
            if let Progress::Answered(_) = &progress {
                match before == (self.streak.malformed, self.streak.refused) {
                    true => self.streak.sense(&name, &call.arguments),
                    false => self.streak.same(&name, &call.arguments),
                }
            }
            return progress;
        }
        let index = self.answered.len();
        let ask = self.tool_ask(index, call, model, transcript);
        match transcript.records.get(&ask.id()) {
            None if self.is_out_of_calls() => {
                self.is_spent = true;
                Progress::Answered(words::refused(&name, Code::Budget, None, None, &[]))
            }
            None => Progress::Next(Next::Commands(vec![ask])),
            Some(Record::Open) => Progress::Next(Next::Wait),
            Some(Record::Finished { outcome, result, withheld, ok }) => {
                self.counted += 1;
                self.streak.sense(&name, &call.arguments);
                let word = if *ok { "succeeded" } else { outcome };
                Progress::Answered(words::result(&name, word, result.as_ref(), *withheld))
            }
            Some(Record::Refused { code, need, detail }) => {
                self.counted += 1;
                self.is_spent |= is_spent(*code);
                self.streak.refused(*code);
                self.streak.same(&name, &call.arguments);
                let own = transcript.tools.keys().map(String::as_str);
                let near =
                    if *code == Code::UnknownTool { near(&call.name.replace("__", "."), own) } else { Vec::new() };
                Progress::Answered(words::refused(&name, *code, need.as_deref(), detail.as_ref(), &near))
            }
            Some(Record::Done | Record::Spawned { .. } | Record::Scheduled { .. } | Record::Took { .. }) => {
                Progress::Next(Next::Diverged { path: ask.path().to_owned() })
            }
        }
    }

    /// A word that steers agents and cannot be meant so.
    fn nonsense(&mut self, name: &str, why: &str) -> Progress {
        self.streak.nonsense();
        let detail = json!({ "rule": why });
        Progress::Answered(words::refused(name, Code::BadArguments, None, Some(&detail), &[]))
    }

    fn control(&mut self, name: &str, arguments: &Json, model: &ModelProgram, transcript: &Transcript) -> Progress {
        let text = |member: &str| arguments.get(member).and_then(Json::as_str).map(str::to_owned);
        match name {
            FINISH => self.finish(arguments),
            SPAWN => match text("agent") {
                Some(spec) => self.spawn(&spec, arguments, model, transcript),
                None => self.nonsense(name, "`agent` is missing"),
            },
            WAIT => self.wait(arguments, transcript),
            SEND => match (text("to"), text("text")) {
                (Some(to), Some(text)) => self.send(&to, text, transcript),
                (_, _) => self.nonsense(name, "`to` and `text` must be texts"),
            },
            name => {
                let control = match name {
                    PAUSE => Control::Pause,
                    RESUME => Control::Resume,
                    _ => Control::Stop,
                };
                match text("agent").as_deref().and_then(|handle| self.child(handle)) {
                    Some(child) => self.steer(name, control, child.agent, transcript),
                    None => self.nonsense(name, "`agent` names none that you spawned"),
                }
            }
        }
    }

    /// A name for the next agent of a spec that no other one has.
    fn new_handle(&self, spec: &str) -> String {
        let numbered = (2..).map(|number| format!("{spec}-{number}"));
        let mut names = std::iter::once(spec.to_owned()).chain(numbered);
        names.find(|name| self.child(name).is_none()).unwrap_or_default()
    }

    fn child(&self, handle: &str) -> Option<&Child> {
        self.children.iter().find(|child| child.handle == handle)
    }

    /// The end of the work. The other calls of the answer are made first, wherever it stands among them.
    fn finish(&mut self, arguments: &Json) -> Progress {
        let status = arguments.get("status").map_or(Some("completed"), Json::as_str);
        let result = match status {
            Some("completed") => Ok(arguments.get("result").unwrap_or(&Json::Null).to_string()),
            Some("failed") => Err(EndCode::Task),
            Some(_) | None => return self.nonsense(FINISH, "`status` is `completed` or `failed`"),
        };
        let why = result.is_err().then(|| {
            let reason = arguments.get("reason").and_then(Json::as_str).unwrap_or("the model gave no reason");
            super::Why { path: self.turn_path(), detail: words::short(reason).to_owned() }
        });
        self.finish.get_or_insert(Closing { result, why });
        Progress::Answered(words::result(FINISH, "succeeded", None, false))
    }

    fn spawn(&mut self, spec: &str, arguments: &Json, model: &ModelProgram, transcript: &Transcript) -> Progress {
        let Some(known) = model.agents.iter().find(|agent| agent.spec == spec) else {
            return self.nonsense(SPAWN, "`agent` names none that you may spawn");
        };
        let grants = match arguments.get("grants") {
            None | Some(Json::Null) => Some(known.grants.clone()),
            Some(given) => {
                given.as_array().and_then(|list| list.iter().map(|g| Some(g.as_str()?.to_owned())).collect())
            }
        };
        let own = arguments.get("grants").is_some_and(|grants| !grants.is_null());
        let fits = |grants: &Vec<String>| {
            let bytes = grants.iter().map(String::len);
            grants.len() <= GRANTS_MAX
                && bytes.clone().all(|bytes| bytes <= GRANT_BYTES_MAX)
                && bytes.sum::<usize>() <= GRANTS_BYTES_MAX
        };
        let Some(grants) = grants.filter(|grants| !own || fits(grants)) else {
            return self
                .nonsense(SPAWN, "`grants` is a list of at most 32 texts of at most 1,024 bytes, 16 KiB together");
        };
        let path = self.call_path(self.answered.len());
        let id = self.id(transcript, &path);
        let agent = match transcript.records.get(&id) {
            None => {
                let ask = Ask::Spawn { id, path, spec: spec.to_owned(), grants };
                return Progress::Next(Next::Commands(vec![ask]));
            }
            Some(Record::Spawned { agent }) => *agent,
            Some(record) => return self.refusal_of(SPAWN, record, path),
        };
        if let Some(task) = arguments.get("task").and_then(Json::as_str).filter(|task| !task.is_empty()) {
            let path = format!("{path}/task");
            let id = self.id(transcript, &path);
            match transcript.records.get(&id) {
                None => {
                    let ask = Ask::Send { id, path, to: Addressee::Agent(agent), text: task.to_owned() };
                    return Progress::Next(Next::Commands(vec![ask]));
                }
                Some(Record::Done | Record::Refused { .. }) => {}
                Some(_) => return Progress::Next(Next::Diverged { path }),
            }
        }
        let path = format!("{path}/start");
        let id = self.id(transcript, &path);
        match transcript.records.get(&id) {
            None => Progress::Next(Next::Commands(vec![Ask::Start { id, path, agent }])),
            Some(Record::Done) => {
                let handle = self.new_handle(spec);
                self.children.push(Child { handle: handle.clone(), agent });
                Progress::Answered(words::result(SPAWN, "succeeded", Some(&json!({ "agent": handle })), false))
            }
            Some(record) => self.refusal_of(SPAWN, record, path),
        }
    }

    fn wait(&mut self, arguments: &Json, transcript: &Transcript) -> Progress {
        let named: Option<Vec<String>> = match arguments.get("agents") {
            None | Some(Json::Null) => Some(self.children.iter().map(|child| child.handle.clone()).collect()),
            Some(given) => {
                given.as_array().and_then(|list| list.iter().map(|h| Some(h.as_str()?.to_owned())).collect())
            }
        };
        let found: Option<Vec<&Child>> =
            named.as_ref().and_then(|named| named.iter().map(|handle| self.child(handle)).collect());
        let Some(found) = found else {
            return self.nonsense(WAIT, "`agents` is a list of agents that you spawned");
        };
        let mut told = Vec::new();
        for child in found {
            let Some(ended) = transcript.ended.get(&child.agent) else { return Progress::Next(Next::Wait) };
            told.push(outcome(&child.handle, *ended, transcript.results.get(&child.agent)));
        }
        Progress::Answered(words::result(WAIT, "succeeded", Some(&json!({ "agents": told })), false))
    }

    fn send(&mut self, to: &str, text: String, transcript: &Transcript) -> Progress {
        let to = match (to, self.child(to)) {
            ("parent", _) => Addressee::Parent,
            (_, Some(child)) => Addressee::Agent(child.agent),
            (name, None) => Addressee::Named(name.to_owned()),
        };
        let path = self.call_path(self.answered.len());
        let id = self.id(transcript, &path);
        match transcript.records.get(&id) {
            None => Progress::Next(Next::Commands(vec![Ask::Send { id, path, to, text }])),
            Some(Record::Done) => Progress::Answered(words::result(SEND, "succeeded", None, false)),
            Some(record) => self.refusal_of(SEND, record, path),
        }
    }

    fn steer(
        &mut self,
        name: &str,
        control: Control,
        agent: toka_kernel::ids::AgentId,
        transcript: &Transcript,
    ) -> Progress {
        let path = self.call_path(self.answered.len());
        let id = self.id(transcript, &path);
        match transcript.records.get(&id) {
            None => Progress::Next(Next::Commands(vec![Ask::Control { id, path, agent, control }])),
            Some(Record::Done) => Progress::Answered(words::result(name, "succeeded", None, false)),
            Some(record) => self.refusal_of(name, record, path),
        }
    }

    /// What a model is told about a refused word.
    fn refusal_of(&mut self, name: &str, record: &Record, path: String) -> Progress {
        match record {
            Record::Refused { code, need, detail } => {
                self.streak.refused(*code);
                Progress::Answered(words::refused(name, *code, need.as_deref(), detail.as_ref(), &[]))
            }
            Record::Open => Progress::Next(Next::Wait),
            Record::Finished { .. }
            | Record::Spawned { .. }
            | Record::Done
            | Record::Scheduled { .. }
            | Record::Took { .. } => Progress::Next(Next::Diverged { path }),
        }
    }
}

/// Up to three names that are like one.
fn near<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Vec<&'n str> {
    let mut left: Vec<&str> = names.collect();
    let mut found = Vec::new();
    while let Some(next) = nearest(name, left.iter().copied()).filter(|_| found.len() < 3) {
        left.retain(|other| *other != next);
        found.push(next);
    }
    found
}

fn outcome(handle: &str, ended: Ended, result: Option<&Json>) -> Json {
    match ended.completed {
        true => json!({ "agent": handle, "outcome": "completed", "result": result }),
        false => json!({ "agent": handle, "outcome": "failed", "code": code_name(ended.code) }),
    }
}

impl Streak {
    /// A call that was made.
    fn sense(&mut self, name: &str, arguments: &str) {
        (self.malformed, self.refused) = (0, 0);
        self.same(name, arguments);
    }

    fn nonsense(&mut self) {
        self.malformed = self.malformed.saturating_add(1);
    }

    fn refused(&mut self, code: Code) {
        if matches!(code, Code::BadArguments | Code::UnknownTool | Code::TooManyCalls) {
            self.nonsense();
        } else {
            self.refused = self.refused.saturating_add(1);
        }
    }

    /// Counts how often the same call is made in a row. Arguments that say the same are the same.
    fn same(&mut self, name: &str, arguments: &str) {
        let canonical = serde_json::from_str::<Json>(arguments).map(|json| json.to_string());
        let said = canonical.as_deref().unwrap_or(arguments);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(name.len() as u64).to_be_bytes());
        hasher.update(name.as_bytes());
        hasher.update(said.as_bytes());
        let this = *hasher.finalize().as_bytes();
        self.same = if self.last == Some(this) { self.same.saturating_add(1) } else { 1 };
        self.worst = self.worst.max(self.same);
        self.last = Some(this);
    }

    /// Which bound is reached.
    fn broken(&self, model: &ModelProgram) -> Option<(EndCode, String)> {
        let limits = &model.limits;
        if self.worst >= limits.repeat {
            return Some((EndCode::Loop, format!("the same call {} times in a row", self.worst)));
        }
        if self.malformed >= limits.malformed {
            return Some((EndCode::TooManyMalformed, format!("{} calls in a row made no sense", self.malformed)));
        }
        (self.refused >= limits.refusals)
            .then(|| (EndCode::TooManyRefusals, format!("{} calls in a row were refused", self.refused)))
    }
}
