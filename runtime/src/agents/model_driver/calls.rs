//! What an answer asks for: tools, each call one command, and the few words that steer agents.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json, json};
use toka_kernel::capability::ExactName;
use toka_kernel::denial::Code;
use toka_kernel::limits::ARRAY_ITEMS_MAX;
use toka_kernel::tool::{Items, ParamSpec, ParamType};
use toka_tools::files::nearest;
use toka_tools::{check_members, schema_of};

use super::super::ask::{Addressee, Ask, Control, Next, Unfit, command_id};
use super::super::model::{Completion, ModelProgram};
use super::super::script_driver::code_name;
use super::super::transcript::{EndCode, Ended, Record, Transcript};
use super::{Child, Closing, ModelDriver, Phase, is_spent, words};
use crate::gateway::{Input, Tool, ToolCall, ToolNames, Turn};

pub(in super::super) const FINISH: &str = "agent.finish";
pub(in super::super) const SPAWN: &str = "agent.spawn";
const WAIT: &str = "agent.wait";
pub(in super::super) const SEND: &str = "agent.send";
pub(in super::super) const PAUSE: &str = "agent.pause";
pub(in super::super) const RESUME: &str = "agent.resume";
pub(in super::super) const STOP: &str = "agent.stop";

/// The words that steer agents, as a model calls them. No tool may have one of these names.
pub const CONTROLS: [&str; 7] = [FINISH, SPAWN, WAIT, SEND, PAUSE, RESUME, STOP];

/// The tool that a name which no tool can have is recorded as.
const NAMELESS: &str = "unknown";
/// The most grants that a model may choose for an agent, and the most bytes of one and of all: a command that holds them
/// beside those that the agent needs for its own model can always be recorded.
const GRANTS_MAX: u32 = 32;
const GRANT_BYTES_MAX: u32 = 1_024;
const GRANTS_BYTES_MAX: usize = 16 << 10;
/// The most bytes of a text that a model sends, and of a name that it may call an agent by.
const TEXT_BYTES_MAX: u32 = 1 << 20;
const NAME_BYTES_MAX: u32 = 1_024;

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

/// Why a word cannot be meant so, as the detail of a refusal.
struct Wrong(Json);

impl Wrong {
    fn at(pointer: &str, rule: &str) -> Wrong {
        Wrong(json!({ "pointer": pointer, "rule": rule }))
    }
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
    let words = controls(model).into_iter().map(|word| Tool {
        name: word.name.to_owned(),
        description: word.description.to_owned(),
        schema: schema_of(&word.params),
    });
    let mut tools: Vec<Tool> = words.collect();
    let offer = |(name, offer): (&String, &super::super::transcript::Offer)| Tool {
        name: name.clone(),
        description: offer.description.clone(),
        schema: offer.schema.clone(),
    };
    tools.extend(transcript.tools.iter().map(offer));
    tools
}

/// A word that steers agents, and what it takes.
struct Word {
    name: &'static str,
    description: &'static str,
    params: Vec<ParamSpec>,
}

/// The words that the model may use.
fn controls(model: &ModelProgram) -> Vec<Word> {
    let mut words = Vec::new();
    if model.completion == Completion::FinishCall {
        let status = ParamSpec {
            values: ["completed", "failed"].map(str::to_owned).to_vec(),
            default: Some("\"completed\"".to_owned()),
            ..param("status", ParamType::Enum, "")
        };
        let result = param("result", ParamType::Json, "What came of the work, any JSON.");
        let reason =
            ParamSpec { max_len: Some(TEXT_BYTES_MAX), ..param("reason", ParamType::String, "Why it failed.") };
        let description = "Ends the work. It is the last thing you call.";
        words.push(Word { name: FINISH, description, params: vec![status, result, reason] });
    }
    let to = param("to", ParamType::String, "`parent`, an agent that you spawned, or another by its name.");
    let text = ParamSpec { max_len: Some(TEXT_BYTES_MAX), ..param("text", ParamType::String, "") };
    let params = vec![required(to), required(text)];
    words.push(Word { name: SEND, description: "Sends a message to another agent.", params });
    if model.agents.is_empty() {
        return words;
    }
    let names = model.agents.iter().map(|agent| agent.spec.clone()).collect();
    let spec = ParamSpec { values: names, ..param("agent", ParamType::Enum, "") };
    let task = param("task", ParamType::String, "What it is to do, sent to it as a message.");
    let task = ParamSpec { max_len: Some(TEXT_BYTES_MAX), ..task };
    let grants = "Capabilities for it, each within your own. Without them it gets those of your file.";
    let grants = list("grants", GRANT_BYTES_MAX, GRANTS_MAX, grants);
    words.push(Word {
        name: SPAWN,
        description: "Spawns and starts an agent, and tells how it is called.",
        params: vec![required(spec), task, grants],
    });
    words.push(Word {
        name: WAIT,
        description: "Waits until agents have ended, and tells what came of them.",
        params: vec![list("agents", NAME_BYTES_MAX, ARRAY_ITEMS_MAX, "Without it, all that you spawned.")],
    });
    for (name, description) in [
        (PAUSE, "Lets an agent ask for nothing more until it is resumed."),
        (RESUME, "Lets a paused agent go on."),
        (STOP, "Ends an agent and all below it."),
    ] {
        let agent = required(param("agent", ParamType::String, "An agent that you spawned."));
        words.push(Word { name, description, params: vec![agent] });
    }
    words
}

fn param(name: &str, kind: ParamType, description: &str) -> ParamSpec {
    ParamSpec {
        name: name.to_owned(),
        kind: kind.number(),
        required: false,
        default: None,
        min: None,
        max: None,
        max_len: None,
        values: Vec::new(),
        description: description.to_owned(),
        items: None,
    }
}

fn required(param: ParamSpec) -> ParamSpec {
    ParamSpec { required: true, ..param }
}

fn list(name: &str, bytes: u32, most: u32, description: &str) -> ParamSpec {
    let kind = ParamType::String.number();
    let items = Items { kind, min: None, max: None, max_len: Some(bytes), values: Vec::new() };
    ParamSpec { max_len: Some(most), items: Some(items), ..param(name, ParamType::Array, description) }
}

/// Gives calls ids that differ, where the model gave the same one twice or none.
pub(super) fn name_apart(calls: &mut [ToolCall], turn: u16) {
    let calls_max = calls.len();
    let given: BTreeSet<String> = calls.iter().map(|call| call.id.clone()).collect();
    let mut seen = BTreeSet::new();
    for (index, call) in calls.iter_mut().enumerate() {
        if call.id.is_empty() || !seen.insert(call.id.clone()) {
            let made = (0..).map(|more: usize| format!("toka-{turn}-{}", index + more * calls_max));
            let free = made.into_iter().find(|id| !given.contains(id) && !seen.contains(id));
            call.id = free.unwrap_or_default();
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

    /// The tool or word that a call means, by its name here.
    fn name_of(&self, call: &ToolCall, model: &ModelProgram, transcript: &Transcript) -> String {
        let words: Vec<&str> = controls(model).iter().map(|word| word.name).collect();
        let tools = transcript.tools.keys().map(String::as_str);
        let names = ToolNames::of(words.into_iter().chain(tools)).unwrap_or_default();
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
            id: command_id(transcript.agent, &path),
            path,
            tool: self.name_of(call, model, transcript),
            arguments: call.arguments.clone(),
            unfit: surplus.then_some(Unfit { code: Code::TooManyCalls, detail: None }),
        }
    }

    fn one(&mut self, call: &ToolCall, model: &ModelProgram, transcript: &Transcript) -> Progress {
        let index = self.answered.len();
        let name = self.name_of(call, model, transcript);
        let fits = index < usize::from(model.limits.calls_per_turn);
        let Some(word) = controls(model).into_iter().find(|word| word.name == name && fits) else {
            let ask = self.tool_ask(index, call, model, transcript);
            return self.asked(ask, &name, call, transcript);
        };
        let before = (self.streak.malformed, self.streak.refused);
        let arguments = check_members(&word.params, &call.arguments).map_err(|error| Wrong(error.detail()));
        match arguments.and_then(|arguments| self.control(word.name, &arguments, model, transcript)) {
            Ok(Progress::Answered(text)) => {
                match before == (self.streak.malformed, self.streak.refused) {
                    true => self.streak.sense(&name, &call.arguments),
                    false => self.streak.same(&name, &call.arguments),
                }
                Progress::Answered(text)
            }
            Ok(next) => next,
            // It is asked for as a call that can only be refused, so that it is in the record.
            Err(Wrong(detail)) => {
                let path = self.call_path(index);
                let id = command_id(transcript.agent, &path);
                let unfit = Some(Unfit { code: Code::BadArguments, detail: Some(detail.to_string()) });
                let ask = Ask::Call { id, path, tool: name.clone(), arguments: call.arguments.clone(), unfit };
                self.asked(ask, &name, call, transcript)
            }
        }
    }

    /// How far the command of a call has come.
    fn asked(&mut self, ask: Ask, name: &str, call: &ToolCall, transcript: &Transcript) -> Progress {
        match transcript.records.get(&ask.id()) {
            None if self.is_out_of_calls() => {
                self.is_spent = true;
                Progress::Answered(words::refused(name, Code::Budget, None, None, &[]))
            }
            None => Progress::Next(Next::Commands(vec![ask])),
            Some(Record::Open) => Progress::Next(Next::Wait),
            Some(Record::Finished { outcome, result, withheld, ok }) => {
                self.counted += 1;
                self.streak.sense(name, &call.arguments);
                let word = if *ok { "succeeded" } else { outcome };
                Progress::Answered(words::result(name, word, result.as_ref(), *withheld))
            }
            Some(Record::Refused { code, need, detail }) => {
                self.counted += 1;
                self.is_spent |= is_spent(*code);
                self.streak.refused(*code);
                self.streak.same(name, &call.arguments);
                let own = transcript.tools.keys().map(String::as_str);
                let near =
                    if *code == Code::UnknownTool { near(&call.name.replace("__", "."), own) } else { Vec::new() };
                Progress::Answered(words::refused(name, *code, need.as_deref(), detail.as_ref(), &near))
            }
            Some(Record::Done | Record::Spawned { .. } | Record::Scheduled { .. } | Record::Took { .. }) => {
                Progress::Next(Next::Diverged { path: ask.path().to_owned() })
            }
        }
    }

    fn control(
        &mut self,
        name: &str,
        arguments: &Map<String, Json>,
        model: &ModelProgram,
        transcript: &Transcript,
    ) -> Result<Progress, Wrong> {
        let text = |member: &str| arguments.get(member).and_then(Json::as_str).unwrap_or_default();
        match name {
            FINISH => Ok(self.finish(arguments)),
            SPAWN => self.spawn(text("agent"), arguments, model, transcript),
            WAIT => self.wait(arguments, transcript),
            SEND => Ok(self.send(text("to"), text("text").to_owned(), transcript)),
            name => {
                let control = match name {
                    PAUSE => Control::Pause,
                    RESUME => Control::Resume,
                    _ => Control::Stop,
                };
                let child = self.child(text("agent")).ok_or_else(|| Wrong::at("/agent", "none that you spawned"))?;
                Ok(self.steer(name, control, child.agent, transcript))
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
    fn finish(&mut self, arguments: &Map<String, Json>) -> Progress {
        let failed = arguments.get("status").is_some_and(|status| status == "failed");
        let result = match failed {
            false => Ok(arguments.get("result").unwrap_or(&Json::Null).to_string()),
            true => Err(EndCode::Task),
        };
        let why = failed.then(|| {
            let reason = arguments.get("reason").and_then(Json::as_str).unwrap_or("the model gave no reason");
            super::Why { path: self.turn_path(), detail: words::short(reason).to_owned() }
        });
        self.finish.get_or_insert(Closing { result, why });
        Progress::Answered(words::result(FINISH, "succeeded", None, false))
    }

    fn spawn(
        &mut self,
        spec: &str,
        arguments: &Map<String, Json>,
        model: &ModelProgram,
        transcript: &Transcript,
    ) -> Result<Progress, Wrong> {
        let known = model.agents.iter().find(|agent| agent.spec == spec);
        let known = known.ok_or_else(|| Wrong::at("/agent", "none that you may spawn"))?;
        let grants = match arguments.get("grants") {
            None => known.grants.clone(),
            Some(given) => texts(given),
        };
        if arguments.contains_key("grants") && grants.iter().map(String::len).sum::<usize>() > GRANTS_BYTES_MAX {
            return Err(Wrong::at("/grants", &format!("longer than {GRANTS_BYTES_MAX} bytes together")));
        }
        let path = self.call_path(self.answered.len());
        let id = command_id(transcript.agent, &path);
        let agent = match transcript.records.get(&id) {
            None => {
                let ask = Ask::Spawn { id, path, spec: spec.to_owned(), grants };
                return Ok(Progress::Next(Next::Commands(vec![ask])));
            }
            Some(Record::Spawned { agent }) => *agent,
            Some(record) => return Ok(self.refusal_of(SPAWN, record, path)),
        };
        if let Some(task) = arguments.get("task").and_then(Json::as_str).filter(|task| !task.is_empty()) {
            let path = format!("{path}/task");
            let id = command_id(transcript.agent, &path);
            match transcript.records.get(&id) {
                None => {
                    let ask = Ask::Send { id, path, to: Addressee::Agent(agent), text: task.to_owned() };
                    return Ok(Progress::Next(Next::Commands(vec![ask])));
                }
                Some(Record::Done | Record::Refused { .. }) => {}
                Some(_) => return Ok(Progress::Next(Next::Diverged { path })),
            }
        }
        let path = format!("{path}/start");
        let id = command_id(transcript.agent, &path);
        Ok(match transcript.records.get(&id) {
            None => Progress::Next(Next::Commands(vec![Ask::Start { id, path, agent }])),
            Some(Record::Done) => {
                let handle = self.new_handle(spec);
                self.children.push(Child { handle: handle.clone(), agent });
                Progress::Answered(words::result(SPAWN, "succeeded", Some(&json!({ "agent": handle })), false))
            }
            Some(record) => self.refusal_of(SPAWN, record, path),
        })
    }

    fn wait(&mut self, arguments: &Map<String, Json>, transcript: &Transcript) -> Result<Progress, Wrong> {
        let named = match arguments.get("agents") {
            None => self.children.iter().map(|child| child.handle.clone()).collect(),
            Some(given) => texts(given),
        };
        let mut told = Vec::new();
        for (index, handle) in named.iter().enumerate() {
            let none = || Wrong::at(&format!("/agents/{index}"), "none that you spawned");
            // What came of an agent is told once, however long it is.
            if named[..index].contains(handle) {
                return Err(Wrong::at(&format!("/agents/{index}"), "named twice"));
            }
            let child = self.child(handle).ok_or_else(none)?;
            let ended = transcript.ended.get(&child.agent);
            told.push(ended.map(|ended| outcome(&child.handle, *ended, transcript.results.get(&child.agent))));
        }
        let told: Option<Vec<Json>> = told.into_iter().collect();
        Ok(match told {
            None => Progress::Next(Next::Wait),
            Some(told) => Progress::Answered(words::result(WAIT, "succeeded", Some(&json!({ "agents": told })), false)),
        })
    }

    fn send(&mut self, to: &str, text: String, transcript: &Transcript) -> Progress {
        let to = match (to, self.child(to)) {
            ("parent", _) => Addressee::Parent,
            (_, Some(child)) => Addressee::Agent(child.agent),
            (name, None) => Addressee::Named(name.to_owned()),
        };
        let path = self.call_path(self.answered.len());
        let id = command_id(transcript.agent, &path);
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
        let id = command_id(transcript.agent, &path);
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

/// The texts of a list that was checked to hold nothing else.
fn texts(list: &Json) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Json::as_str).map(str::to_owned).collect()
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
