//! A model that follows a script: for demos and tests, behind a real server, so that the real client is what runs.
//!
//! A script is a YAML file with the turns of each lane, and a lane is an agent:
//!
//! ```yaml
//! apiVersion: toka/v1
//! kind: ModelScript
//! lanes:
//!   auditor:
//!     - expect: { tools: [file-reader], contains: [CHANGELOG] }
//!       reply: { text: Looking., calls: [ { tool: file-reader, arguments: { path: "repo:/CHANGELOG.md" } } ] }
//!     - expect: { results: [ { n: 0, pointer: /content, equals: "…" } ] }
//!       reply:
//!         - { status: 429, retry_after: 1s }
//!         - { text: Done. }
//! ```
//!
//! **Which turn** a request is, is said by its header [`ORDINAL`], counted from 0, or else by how many answers of the
//! model its conversation holds. So a request that is made again after a crash gets the same answer. A list of replies
//! goes to the first, second, … request of a turn; the last one stays.
//!
//! **Which lane** it is, is said by the header [`LANE`], or else by `user` in the body; a script of one lane needs
//! neither. The headers are sent to scripted servers only, so that no name of an agent leaves the machine.
//!
//! A **fault** takes the place of an answer: `status` (with `retry_after`), `stall`, `malformed` or `overloaded`; an
//! answer with `cut_after_bytes` or `stall_after_bytes` begins and does not end. A request that the script does not
//! expect gets status 422 and the symbol `SCRIPT_MISMATCH`, with lane, turn and pointer.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Number, Value, json};
use toka_tools::files::yaml::{Kind, Node, parse};
use toka_tools::files::{FileCode, FileError, Format, Problems, Shape, clean, decode, quote};

use super::config::{BaseUrl, Deadlines, Dialect, IN_FLIGHT_MAX, ProviderConfig};
use super::openai_chat::{OutputLimit, PATH};
use super::request::wire_name;
use super::server::{Answered, Asked, Body, End, Server};

/// The header that names the lane of a request.
pub const LANE: &str = "x-toka-lane";
/// The header that says which request of its lane it is.
pub const ORDINAL: &str = "x-toka-ordinal";
/// The header that names the symbol of a refusal.
pub const SYMBOL: &str = "x-toka-symbol";

/// What a script is.
const FORMAT: Format = Format { noun: "model script", kind: "ModelScript", bytes_max: 1 << 20 };
/// The most lanes of a script.
pub const LANES_MAX: usize = 256;
/// The most turns of a lane.
pub const TURNS_MAX: usize = 1_000;
/// The most replies of a turn.
pub const REPLIES_MAX: usize = 16;
/// The most entries of the lists within a turn.
pub const ITEMS_MAX: usize = 64;
/// The most bytes of a text.
pub const TEXT_BYTES_MAX: usize = 256 << 10;
/// The most bytes of requests that a server keeps.
pub const KEPT_BYTES_MAX: usize = 64 << 20;

/// Characters in one event of a text, and in one of arguments.
const TEXT_CHARS: usize = 24;
const ARGUMENT_CHARS: usize = 16;

/// The turns of each lane.
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    lanes: BTreeMap<String, Vec<Turn>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Turn {
    expect: Expect,
    replies: Vec<Reply>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Expect {
    /// Tools that must be offered, by their names here.
    tools: Vec<String>,
    /// Texts that must stand somewhere in the messages.
    contains: Vec<String>,
    results: Vec<ExpectResult>,
}

/// What the n-th tool result of the conversation must hold.
#[derive(Clone, Debug, PartialEq)]
struct ExpectResult {
    n: usize,
    pointer: String,
    equals: Option<Value>,
}

#[derive(Clone, Debug, PartialEq)]
enum Reply {
    Answer(Answer),
    Status { status: u16, retry_after_us: Option<u64> },
    Stall,
    Malformed,
    Overloaded,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Answer {
    text: String,
    calls: Vec<Call>,
    stop: Option<&'static str>,
    usage: UsageSaid,
    end: Option<(u64, End)>,
}

#[derive(Clone, Debug, PartialEq)]
struct Call {
    tool: String,
    arguments: String,
}

/// What an answer says it took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum UsageSaid {
    /// A number for each four bytes.
    #[default]
    Counted,
    /// Nothing.
    Nothing,
    /// These.
    These { tokens_in: u64, cached: u64, tokens_out: u64 },
}

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of the places.
    pub fn read(file: &str, bytes: &[u8]) -> Result<Script, Vec<FileError>> {
        let text = decode(file, bytes, &FORMAT)?;
        let mut problems = Problems::new(file, text, &FORMAT);
        let script = parse(&mut problems).and_then(|root| script(&root, &mut problems));
        match (script, problems.into_errors()) {
            (Some(script), errors) if errors.is_empty() => Ok(script),
            (_, errors) => Err(errors),
        }
    }

    /// The answer to the `seen`-th request, from 0, of a turn of a lane.
    fn answer(&self, lane: &str, ordinal: u64, seen: usize, body: &Value, bytes: usize) -> Answered {
        let Some(turns) = self.lanes.get(lane) else {
            return mismatch(
                lane,
                ordinal,
                "",
                &format!("the script has no such lane, it has {}", self.lanes_listed()),
            );
        };
        let turn = usize::try_from(ordinal).ok().and_then(|ordinal| turns.get(ordinal));
        let Some(turn) = turn else {
            return mismatch(lane, ordinal, "", &format!("the script has {} turns for this lane", turns.len()));
        };
        if let Some((pointer, what)) = turn.expect.unmet(body) {
            return mismatch(lane, ordinal, &pointer, &what);
        }
        match turn.replies.get(seen).or(turn.replies.last()) {
            Some(reply) => reply.answered(ordinal, body, bytes),
            None => mismatch(lane, ordinal, "", "the script has no reply for this turn"),
        }
    }

    fn lanes_listed(&self) -> String {
        let names: Vec<String> = self.lanes.keys().take(8).map(|lane| quote(lane)).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }
}

/// A request that the script does not expect.
fn mismatch(lane: &str, turn: u64, pointer: &str, what: &str) -> Answered {
    let at = if pointer.is_empty() { String::new() } else { format!(", {pointer}") };
    let message = format!("lane {}, turn {turn}{at}: {what}", quote(lane));
    let error = json!({ "error": { "message": message, "type": "SCRIPT_MISMATCH", "code": null, "param": pointer } });
    let headers = vec![json_type(), (SYMBOL.to_owned(), "SCRIPT_MISMATCH".to_owned())];
    Answered { status: 422, headers, body: Body::Whole(error.to_string().into_bytes()) }
}

fn json_type() -> (String, String) {
    ("content-type".to_owned(), "application/json".to_owned())
}

impl Expect {
    /// Where the request is not as expected, as a JSON pointer into it, and how.
    fn unmet(&self, body: &Value) -> Option<(String, String)> {
        for tool in &self.tools {
            let wire = wire_name(tool);
            let offered = body["tools"].as_array().into_iter().flatten();
            if !offered.clone().any(|offer| offer["function"]["name"] == wire.as_str()) {
                let names: Vec<&str> = offered.filter_map(|offer| offer["function"]["name"].as_str()).collect();
                return Some(("/tools".to_owned(), format!("{} is not offered, only {names:?}", quote(tool))));
            }
        }
        for text in &self.contains {
            if !texts(&body["messages"]).any(|said| said.contains(text.as_str())) {
                return Some(("/messages".to_owned(), format!("nothing here says {}", quote(text))));
            }
        }
        self.results.iter().find_map(|result| result.unmet(body))
    }
}

impl ExpectResult {
    fn unmet(&self, body: &Value) -> Option<(String, String)> {
        let messages = body["messages"].as_array().into_iter().flatten().enumerate();
        let mut results = messages.filter(|(_, message)| message["role"] == "tool");
        let Some((at, message)) = results.nth(self.n) else {
            return Some(("/messages".to_owned(), format!("there is no tool result {} in it", self.n)));
        };
        let place = format!("/messages/{at}/content");
        let content: Vec<&str> = texts(message).collect();
        let Some(value) = document(&content.concat()) else {
            return Some((place, "no JSON stands in this tool result".to_owned()));
        };
        let place = format!("{place}{}", self.pointer);
        match (value.pointer(&self.pointer), &self.equals) {
            (None, _) => Some((place, "nothing stands there".to_owned())),
            (Some(found), Some(equals)) if found != equals => {
                Some((place, format!("expected {}, found {}", shown(equals), shown(found))))
            }
            (Some(_), _) => None,
        }
    }
}

fn shown(value: &Value) -> String {
    clean(&value.to_string(), 120)
}

/// Every text that a message or a list of messages tells.
fn texts(value: &Value) -> Box<dyn Iterator<Item = &str> + '_> {
    match value {
        Value::String(text) => Box::new(std::iter::once(text.as_str())),
        Value::Array(items) => Box::new(items.iter().flat_map(texts)),
        Value::Object(members) => {
            Box::new(["content", "text"].iter().filter_map(|name| members.get(*name)).flat_map(texts))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Box::new(std::iter::empty()),
    }
}

/// The JSON in a tool result: all of it, or the first document that begins a line within the frame around it.
fn document(text: &str) -> Option<Value> {
    if let Ok(value) = serde_json::from_str(text) {
        return Some(value);
    }
    let begins = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1));
    begins
        .filter(|at| text[*at..].starts_with(['{', '[']))
        .find_map(|at| serde_json::Deserializer::from_str(&text[at..]).into_iter::<Value>().next()?.ok())
}

impl Reply {
    fn answered(&self, ordinal: u64, body: &Value, bytes: usize) -> Answered {
        let whole = |status, headers, text: String| Answered { status, headers, body: Body::Whole(text.into_bytes()) };
        let fault = |message: &str, kind: &str| json!({ "error": { "message": message, "type": kind, "code": null } });
        match self {
            Reply::Answer(answer) => answer.answered(ordinal, body, bytes),
            Reply::Stall => Answered { status: 200, headers: Vec::new(), body: Body::Silence },
            Reply::Malformed => whole(200, vec![json_type()], "{\"choices\": [{\"index\": 0, \"mess".to_owned()),
            Reply::Overloaded => {
                let event = format!("data: {}\n\n", fault("the script says so", "overloaded_error"));
                events(vec![event.into_bytes()], End::Whole)
            }
            Reply::Status { status, retry_after_us } => {
                let mut headers = vec![json_type()];
                headers.extend(retry_after_us.map(|us| match us % 1_000_000 {
                    0 => ("retry-after".to_owned(), (us / 1_000_000).to_string()),
                    _ => ("retry-after-ms".to_owned(), us.div_ceil(1_000).to_string()),
                }));
                whole(*status, headers, fault("the script says so", "scripted").to_string())
            }
        }
    }
}

fn events(chunks: Vec<Vec<u8>>, end: End) -> Answered {
    let headers = vec![("content-type".to_owned(), "text/event-stream".to_owned())];
    Answered { status: 200, headers, body: Body::Chunks(chunks, end) }
}

impl Answer {
    fn answered(&self, ordinal: u64, body: &Value, bytes: usize) -> Answered {
        let model = body["model"].as_str().unwrap_or("scripted");
        if body["stream"] != true {
            let document = self.document(ordinal, model, bytes).to_string().into_bytes();
            return Answered { status: 200, headers: vec![json_type()], body: Body::Whole(document) };
        }
        let wants_usage = body["stream_options"]["include_usage"] == true;
        let mut chunks = self.stream(ordinal, model, bytes, wants_usage);
        let Some((after, end)) = self.end else { return events(chunks, End::Whole) };
        let mut left = usize::try_from(after).unwrap_or(usize::MAX);
        for chunk in &mut chunks {
            chunk.truncate(left);
            left -= chunk.len();
        }
        events(chunks, end)
    }

    /// The events of the answer, each a chunk of its own.
    fn stream(&self, ordinal: u64, model: &str, bytes: usize, wants_usage: bool) -> Vec<Vec<u8>> {
        let id = format!("chatcmpl-{ordinal}");
        let chunk = |choices: Value, usage: Value| {
            let object = "chat.completion.chunk";
            let value =
                json!({ "id": id, "object": object, "created": 0, "model": model, "choices": choices, "usage": usage });
            format!("data: {value}\n\n").into_bytes()
        };
        let delta = |delta: Value, reason: Value| {
            chunk(json!([{ "index": 0, "delta": delta, "logprobs": null, "finish_reason": reason }]), Value::Null)
        };
        let mut chunks = vec![delta(json!({ "role": "assistant", "content": "" }), Value::Null)];
        for piece in pieces(&self.text, TEXT_CHARS) {
            chunks.push(delta(json!({ "content": piece }), Value::Null));
        }
        for (index, call) in self.calls.iter().enumerate() {
            let function = json!({ "name": wire_name(&call.tool), "arguments": "" });
            let id = call_id(ordinal, index);
            let begun = json!([{ "index": index, "id": id, "type": "function", "function": function }]);
            chunks.push(delta(json!({ "tool_calls": begun }), Value::Null));
            for piece in pieces(&call.arguments, ARGUMENT_CHARS) {
                let more = json!([{ "index": index, "function": { "arguments": piece } }]);
                chunks.push(delta(json!({ "tool_calls": more }), Value::Null));
            }
        }
        chunks.push(delta(json!({}), json!(self.reason())));
        if let Some(usage) = self.usage(bytes).filter(|_| wants_usage) {
            chunks.push(chunk(json!([]), usage));
        }
        chunks.push(b"data: [DONE]\n\n".to_vec());
        chunks
    }

    /// The answer in one document.
    fn document(&self, ordinal: u64, model: &str, bytes: usize) -> Value {
        let call = |(index, call): (usize, &Call)| {
            let function = json!({ "name": wire_name(&call.tool), "arguments": call.arguments });
            json!({ "id": call_id(ordinal, index), "type": "function", "function": function })
        };
        let calls: Vec<Value> = self.calls.iter().enumerate().map(call).collect();
        let content = if self.text.is_empty() { Value::Null } else { json!(self.text) };
        let mut message = json!({ "role": "assistant", "content": content, "refusal": null });
        if !calls.is_empty() {
            message["tool_calls"] = json!(calls);
        }
        let choice = json!({ "index": 0, "message": message, "logprobs": null, "finish_reason": self.reason() });
        let mut document = json!({
            "id": format!("chatcmpl-{ordinal}"), "object": "chat.completion", "created": 0, "model": model,
            "choices": [choice],
        });
        if let Some(usage) = self.usage(bytes) {
            document["usage"] = usage;
        }
        document
    }

    fn reason(&self) -> &'static str {
        self.stop.unwrap_or(if self.calls.is_empty() { "stop" } else { "tool_calls" })
    }

    fn usage(&self, bytes: usize) -> Option<Value> {
        let arguments = self.calls.iter().map(|call| call.arguments.len() + call.tool.len()).sum::<usize>();
        let (tokens_in, cached, tokens_out) = match self.usage {
            UsageSaid::Nothing => return None,
            UsageSaid::Counted => (bytes.div_ceil(4) as u64, 0, (self.text.len() + arguments).div_ceil(4) as u64),
            UsageSaid::These { tokens_in, cached, tokens_out } => (tokens_in, cached, tokens_out),
        };
        Some(json!({
            "prompt_tokens": tokens_in, "completion_tokens": tokens_out,
            "total_tokens": tokens_in.saturating_add(tokens_out), "prompt_tokens_details": { "cached_tokens": cached },
        }))
    }
}

fn call_id(ordinal: u64, index: usize) -> String {
    format!("call_{ordinal}_{index}")
}

/// A text in pieces of so many characters.
fn pieces(text: &str, most: usize) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    chars.chunks(most).map(|piece| piece.iter().collect()).collect()
}

/// A scripted model behind a server on the loopback interface; it stops when this is dropped.
#[derive(Debug)]
pub struct ScriptedServer {
    server: Server,
    base_url: BaseUrl,
    kept: Arc<Mutex<Kept>>,
}

/// A request that a scripted server was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// Its lane.
    pub lane: String,
    /// Which of its lane it was.
    pub ordinal: u64,
    /// Its body, byte for byte.
    pub body: Vec<u8>,
    /// Whether it carried a key.
    pub authorised: bool,
}

#[derive(Debug, Default)]
struct Kept {
    requests: u64,
    seen: BTreeMap<(String, u64), usize>,
    captured: Vec<Captured>,
    bytes: usize,
}

impl ScriptedServer {
    /// Serves `script` on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When there is none.
    pub fn start(script: Script) -> io::Result<ScriptedServer> {
        let kept = Arc::new(Mutex::new(Kept::default()));
        let shared = kept.clone();
        let server = Server::start(move |asked: Asked| answer(&script, &shared, asked))?;
        let base_url = BaseUrl::parse(&format!("http://{}/v1", server.address()), false);
        let base_url = base_url.map_err(|(wrong, _)| io::Error::other(wrong))?;
        Ok(ScriptedServer { server, base_url, kept })
    }

    /// The URL below which it answers.
    pub fn base_url(&self) -> String {
        self.base_url.to_string()
    }

    /// How it is spoken to by the real client, under the name `name`.
    pub fn provider(&self, name: &str) -> ProviderConfig {
        config(name, self.base_url.clone())
    }

    /// How many requests it was asked.
    pub fn requests(&self) -> u64 {
        lock(&self.kept).requests
    }

    /// How many connections were made to it.
    pub fn connections(&self) -> u64 {
        self.server.connections()
    }

    /// The requests it was asked, in order, as far as [`KEPT_BYTES_MAX`] bytes hold them.
    pub fn captured(&self) -> Vec<Captured> {
        lock(&self.kept).captured.clone()
    }
}

/// A scripted server at a URL, perhaps of another process.
///
/// # Errors
/// When it is no URL of this machine.
pub fn provider(name: &str, base_url: &str) -> Result<ProviderConfig, (&'static str, &'static str)> {
    Ok(config(name, BaseUrl::parse(base_url, false)?))
}

fn config(name: &str, base_url: BaseUrl) -> ProviderConfig {
    ProviderConfig {
        name: name.to_owned(),
        dialect: Dialect::OpenAiChat { output_limit: OutputLimit::default() },
        base_url,
        key: None,
        headers: Vec::new(),
        max_in_flight: IN_FLIGHT_MAX,
        deadlines: Deadlines::default(),
        scripted: true,
    }
}

fn lock(kept: &Mutex<Kept>) -> std::sync::MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer(script: &Script, kept: &Mutex<Kept>, asked: Asked) -> Answered {
    let refused = |status, what: &str| {
        let error = json!({ "error": { "message": what, "type": "invalid_request_error", "code": null } });
        Answered { status, headers: vec![json_type()], body: Body::Whole(error.to_string().into_bytes()) }
    };
    if asked.method != "POST" || asked.path != format!("/v1{PATH}") {
        return refused(404, "only POST /v1/chat/completions is answered here");
    }
    let Ok(body) = serde_json::from_slice::<Value>(&asked.body) else { return refused(400, "the body is no JSON") };
    let only = if script.lanes.len() == 1 { script.lanes.keys().next().map(String::as_str) } else { None };
    let lane = asked.header(LANE).or(body["user"].as_str()).or(only).unwrap_or_default().to_owned();
    let said = || body["messages"].as_array().into_iter().flatten().filter(|turn| turn["role"] == "assistant").count();
    let ordinal = match asked.header(ORDINAL).map(str::parse::<u64>) {
        Some(Ok(ordinal)) => ordinal,
        Some(Err(_)) => return refused(400, "x-toka-ordinal is no number"),
        None => said() as u64,
    };
    let bytes = asked.body.len();
    let seen = remember(kept, &lane, ordinal, asked);
    script.answer(&lane, ordinal, seen, &body, bytes)
}

/// Counts a request and keeps it; how many of this turn there were before.
fn remember(kept: &Mutex<Kept>, lane: &str, ordinal: u64, asked: Asked) -> usize {
    let mut kept = lock(kept);
    kept.requests += 1;
    if kept.bytes + asked.body.len() <= KEPT_BYTES_MAX {
        kept.bytes += asked.body.len();
        let authorised = asked.header("authorization").is_some();
        kept.captured.push(Captured { lane: lane.to_owned(), ordinal, body: asked.body, authorised });
    }
    let seen = kept.seen.entry((lane.to_owned(), ordinal)).or_default();
    *seen += 1;
    *seen - 1
}

fn script(root: &Node, problems: &mut Problems<'_>) -> Option<Script> {
    let known = &["apiVersion", "kind", "lanes"];
    let top = problems.fields(root, &Shape { what: "model script", known, later: &[], prefix: None })?;
    problems.api_and_kind(&top);
    let node = top.required("lanes", "lanes: { my-agent: [ { reply: { text: Done. } } ] }", problems)?;
    let members = problems.map(node, "lanes")?;
    if members.len() > LANES_MAX {
        let hint = format!("at most {LANES_MAX} are allowed");
        problems.report(node.place, FileCode::TooMany, format!("`lanes` has {} entries", members.len()), hint);
    }
    let mut lanes = BTreeMap::new();
    for member in members {
        let what = format!("lanes.{}", clean(&member.name, 60));
        let items = problems.list(&member.value, &what, TURNS_MAX).unwrap_or_default();
        let turns = items.iter().filter_map(|item| turn(item, &what, problems)).collect();
        lanes.insert(member.name.clone(), turns);
    }
    Some(Script { lanes })
}

fn turn(node: &Node, what: &str, problems: &mut Problems<'_>) -> Option<Turn> {
    let fields = problems.fields(node, &Shape { what, known: &["expect", "reply"], later: &[], prefix: None })?;
    let expect = fields.get("expect").and_then(|node| expect(node, problems)).unwrap_or_default();
    let node = fields.required("reply", "reply: { text: Done. }", problems)?;
    let replies = match &node.kind {
        Kind::List(items) if items.is_empty() || items.len() > REPLIES_MAX => {
            let message = format!("`reply` has {} entries", items.len());
            problems.report(node.place, FileCode::TooMany, message, format!("write 1 to {REPLIES_MAX}"));
            return None;
        }
        Kind::List(items) => items.iter().filter_map(|item| reply(item, problems)).collect(),
        Kind::Null | Kind::Bool(_) | Kind::Int(_) | Kind::Number(_) | Kind::Text(_) | Kind::Map(_) | Kind::Broken => {
            vec![reply(node, problems)?]
        }
    };
    Some(Turn { expect, replies })
}

fn expect(node: &Node, problems: &mut Problems<'_>) -> Option<Expect> {
    let known = &["tools", "contains", "results"];
    let fields = problems.fields(node, &Shape { what: "expect", known, later: &[], prefix: None })?;
    let mut expect = Expect::default();
    if let Some(items) = fields.get("tools").and_then(|node| problems.list(node, "expect.tools", ITEMS_MAX)) {
        expect.tools = items.iter().filter_map(|item| problems.name(item, "expect.tools")).collect();
    }
    if let Some(items) = fields.get("contains").and_then(|node| problems.list(node, "expect.contains", ITEMS_MAX)) {
        let texts = items.iter().filter_map(|item| problems.plain_text(item, "expect.contains", TEXT_BYTES_MAX, true));
        expect.contains = texts.collect();
    }
    if let Some(items) = fields.get("results").and_then(|node| problems.list(node, "expect.results", ITEMS_MAX)) {
        expect.results = items.iter().filter_map(|item| expect_result(item, problems)).collect();
    }
    Some(expect)
}

fn expect_result(node: &Node, problems: &mut Problems<'_>) -> Option<ExpectResult> {
    let known = &["n", "pointer", "equals"];
    let fields = problems.fields(node, &Shape { what: "expect.results", known, later: &[], prefix: None })?;
    let n = fields.required("n", "n: 0", problems)?;
    let n = problems.whole(n, "expect.results.n", 0..=100_000)?;
    let pointer = match fields.get("pointer") {
        Some(node) => problems.pointer(node)?,
        None => String::new(),
    };
    let equals = match fields.get("equals") {
        Some(node) => Some(value(node, problems)?),
        None => None,
    };
    Some(ExpectResult { n: usize::try_from(n).unwrap_or(usize::MAX), pointer, equals })
}

fn reply(node: &Node, problems: &mut Problems<'_>) -> Option<Reply> {
    let known = &[
        "text",
        "calls",
        "stop",
        "usage",
        "cut_after_bytes",
        "stall_after_bytes",
        "status",
        "retry_after",
        "stall",
        "malformed",
        "overloaded",
    ];
    let fields = problems.fields(node, &Shape { what: "reply", known, later: &[], prefix: None })?;
    let faults = ["status", "stall", "malformed", "overloaded"];
    let chosen: Vec<&str> = faults.into_iter().filter(|name| fields.get(name).is_some()).collect();
    let Some(fault) = chosen.first() else { return answer_of(&fields, problems).map(Reply::Answer) };
    let beside = |name: &str| name != *fault && !(*fault == "status" && name == "retry_after");
    if let Some(other) = fields.members().iter().find(|member| beside(&member.name)) {
        let message = format!("`{}` cannot stand beside `{fault}`", clean(&other.name, 60));
        problems.report(other.place, FileCode::Conflict, message, "a fault takes the place of the whole answer");
        return None;
    }
    let node = fields.get(fault)?;
    if *fault == "status" {
        let status = problems.whole(node, "reply.status", 300..=599).and_then(|status| u16::try_from(status).ok());
        let asked = fields.get("retry_after");
        let retry_after_us = match asked {
            Some(node) => Some(problems.duration(node, "reply.retry_after", 0..=86_400_000_000)?),
            None => None,
        };
        return Some(Reply::Status { status: status?, retry_after_us });
    }
    if !problems.flag(node, &format!("reply.{fault}"))? {
        let message = format!("`reply.{fault}` is false");
        problems.report(node.place, FileCode::BadChoice, message, "leave it out, or write `true`");
        return None;
    }
    Some(match *fault {
        "stall" => Reply::Stall,
        "malformed" => Reply::Malformed,
        _ => Reply::Overloaded,
    })
}

fn answer_of(fields: &toka_tools::files::Fields<'_>, problems: &mut Problems<'_>) -> Option<Answer> {
    let mut answer = Answer::default();
    if let Some(node) = fields.get("text") {
        answer.text = said(node, "reply.text", problems)?;
    }
    if let Some(node) = fields.get("calls") {
        let items = problems.list(node, "reply.calls", ITEMS_MAX)?;
        answer.calls = items.iter().filter_map(|item| call(item, problems)).collect();
    }
    if let Some(node) = fields.get("stop") {
        let words = [("end", "stop"), ("tools", "tool_calls"), ("length", "length"), ("refused", "content_filter")];
        answer.stop = problems.choice(node, "reply.stop", &words, &[]);
    }
    if let Some(node) = fields.get("usage") {
        answer.usage = usage(node, problems)?;
    }
    let ends = [("cut_after_bytes", End::Cut), ("stall_after_bytes", End::Silence)];
    for (name, end) in ends {
        if let Some(node) = fields.get(name) {
            let after = problems.whole(node, &format!("reply.{name}"), 0..=1 << 30)?;
            answer.end = Some((after, end));
        }
    }
    if fields.get("cut_after_bytes").is_some() && fields.get("stall_after_bytes").is_some() {
        let place = fields.place_of("stall_after_bytes");
        let message = "`stall_after_bytes` cannot stand beside `cut_after_bytes`";
        problems.report(place, FileCode::Conflict, message, "an answer ends in one way");
    }
    if let Some(node) = fields.get("retry_after") {
        let message = "`retry_after` goes with `status`";
        problems.report(node.place, FileCode::Conflict, message, "add `status: 429`, or leave it out");
    }
    if answer.text.is_empty() && answer.calls.is_empty() && fields.get("stop").is_none() {
        problems.report(
            fields.place,
            FileCode::MissingField,
            "`reply` says nothing",
            "add `text: …`, `calls: […]` or a fault",
        );
    }
    Some(answer)
}

fn call(node: &Node, problems: &mut Problems<'_>) -> Option<Call> {
    let known = &["tool", "arguments", "arguments_text"];
    let fields = problems.fields(node, &Shape { what: "reply.calls", known, later: &[], prefix: None })?;
    let tool = fields.required("tool", "tool: file-reader", problems)?;
    let tool = said(tool, "reply.calls.tool", problems)?;
    let arguments = match (fields.get("arguments"), fields.get("arguments_text")) {
        (Some(_), Some(text)) => {
            let message = "`arguments_text` cannot stand beside `arguments`";
            problems.report(text.place, FileCode::Conflict, message, "keep the one that the model says");
            return None;
        }
        (Some(node), None) => value(node, problems)?.to_string(),
        (None, Some(text)) => said(text, "reply.calls.arguments_text", problems)?,
        (None, None) => "{}".to_owned(),
    };
    Some(Call { tool, arguments })
}

/// A text of the model. It may hold what nobody should write: models say such things, and invent names of tools.
fn said(node: &Node, what: &str, problems: &mut Problems<'_>) -> Option<String> {
    let text = problems.text(node, what)?;
    if text.len() > TEXT_BYTES_MAX {
        let message = format!("`{what}` is {} bytes long", text.len());
        problems.report(node.place, FileCode::TooLong, message, format!("at most {TEXT_BYTES_MAX} bytes are allowed"));
        return None;
    }
    Some(text.to_owned())
}

fn usage(node: &Node, problems: &mut Problems<'_>) -> Option<UsageSaid> {
    if let Kind::Text(text) = &node.kind
        && text.value == "none"
    {
        return Some(UsageSaid::Nothing);
    }
    let known = &["in", "cached", "out"];
    let fields = problems.fields(node, &Shape { what: "reply.usage", known, later: &[], prefix: None })?;
    let mut count = |name: &str| match fields.get(name) {
        Some(node) => problems.whole(node, &format!("reply.usage.{name}"), 0..=1 << 40),
        None => Some(0),
    };
    Some(UsageSaid::These { tokens_in: count("in")?, cached: count("cached")?, tokens_out: count("out")? })
}

/// A value of the script as JSON.
fn value(node: &Node, problems: &mut Problems<'_>) -> Option<Value> {
    Some(match &node.kind {
        Kind::Null => Value::Null,
        Kind::Bool(bit) => Value::Bool(*bit),
        Kind::Int(number) => Value::from(*number),
        Kind::Number(text) => match text.parse::<f64>().ok().and_then(Number::from_f64) {
            Some(number) => Value::Number(number),
            None => {
                let message = format!("{} is no number of JSON", quote(text));
                problems.report(node.place, FileCode::BadNumber, message, "write a decimal number");
                return None;
            }
        },
        Kind::Text(text) => Value::String(text.value.clone()),
        Kind::List(items) => Value::Array(items.iter().map(|item| value(item, problems)).collect::<Option<_>>()?),
        Kind::Map(members) => {
            let mut map = Map::new();
            for member in members {
                map.insert(member.name.clone(), value(&member.value, problems)?);
            }
            Value::Object(map)
        }
        Kind::Broken => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(lanes: &str) -> String {
        format!("apiVersion: toka/v1\nkind: ModelScript\nlanes:\n{lanes}")
    }

    fn errors(lanes: &str) -> Vec<String> {
        let errors = Script::read("s.yaml", head(lanes).as_bytes()).expect_err("something is wrong");
        errors.iter().map(ToString::to_string).collect()
    }

    fn body_of(answered: &Answered) -> String {
        match &answered.body {
            Body::Whole(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Body::Chunks(chunks, _) => String::from_utf8_lossy(&chunks.concat()).into_owned(),
            Body::Silence => String::new(),
        }
    }

    #[test]
    fn mistakes_are_told_with_their_places() {
        let lanes = "  a:\n    - reply: { text: x, status: 500 }\n    - reply: { status: 200 }\n    - reply: {}\n    \
                     - { reply: { stall: false } }\n    - expect: { tool: [] }\n      reply: { calls: [ { arguments: {} } ] }\n";
        assert_eq!(
            errors(lanes),
            [
                "s.yaml:5:16: TOKA-1088: `text` cannot stand beside `status`",
                "s.yaml:6:24: TOKA-1034: `reply.status` is 200",
                "s.yaml:7:14: TOKA-1021: `reply` says nothing",
                "s.yaml:8:25: TOKA-1035: `reply.stall` is false",
                "s.yaml:9:17: TOKA-1020: unknown field `tool` in `expect`",
                "s.yaml:10:14: TOKA-1021: `reply` says nothing",
                "s.yaml:10:25: TOKA-1021: `tool` is missing in `reply.calls`",
            ]
        );
    }

    #[test]
    fn a_mismatch_names_lane_turn_and_pointer() {
        let lanes = "  a:\n    - expect: { tools: [code.python], contains: [hello], results: [ { n: 0, pointer: /ok, equals: true } ] }\n      reply: { text: x }\n";
        let script = Script::read("s.yaml", head(lanes).as_bytes()).expect("a script");
        let mut body = json!({ "tools": [], "messages": [{ "role": "user", "content": "hi" }] });
        let mut asked = |change: &dyn Fn(&mut Value)| {
            change(&mut body);
            let answered = script.answer("a", 0, 0, &body, 100);
            (answered.status, body_of(&answered))
        };
        let (status, text) = asked(&|_| {});
        assert!(
            status == 422 && text.contains("lane `a`, turn 0, /tools: `code.python` is not offered, only []"),
            "{text}"
        );
        let (_, text) = asked(&|body| body["tools"] = json!([{ "function": { "name": "code__python" } }]));
        assert!(text.contains("/messages: nothing here says `hello`"), "{text}");
        let (_, text) = asked(&|body| body["messages"][0]["content"] = json!([{ "type": "text", "text": "oh hello" }]));
        assert!(text.contains("/messages: there is no tool result 0 in it"), "{text}");
        let (_, text) = asked(&|body| {
            let result = json!({ "role": "tool", "content": "{\"ok\":false}" });
            body["messages"] = json!([body["messages"][0], result]);
        });
        assert!(text.contains("/messages/1/content/ok: expected true, found false"), "{text}");
        let (status, _) =
            asked(&|body| body["messages"][1]["content"] = json!("From file-reader:\n{\"ok\":true}\nEnd."));
        assert_eq!(status, 200);
        let text = body_of(&script.answer("a", 1, 0, &body, 100));
        assert!(text.contains("lane `a`, turn 1: the script has 1 turns"), "{text}");
        let text = body_of(&script.answer("b", 0, 0, &body, 100));
        assert!(text.contains("lane `b`, turn 0: the script has no such lane, it has `a`"), "{text}");
    }

    #[test]
    fn replies_of_a_turn_follow_each_other_and_the_last_stays() {
        let lanes = "  a:\n    - reply: [ { status: 429, retry_after: 1500ms }, { status: 503, retry_after: 2s }, { text: x } ]\n";
        let script = Script::read("s.yaml", head(lanes).as_bytes()).expect("a script");
        let answered = |seen| script.answer("a", 0, seen, &json!({ "stream": false }), 8);
        assert_eq!(answered(0).headers[1], ("retry-after-ms".to_owned(), "1500".to_owned()));
        assert_eq!(answered(1).headers[1], ("retry-after".to_owned(), "2".to_owned()));
        assert_eq!((answered(1).status, answered(2).status, answered(3).status), (503, 200, 200));
    }
}
