//! The dialect of OpenAI Chat Completions, which local servers speak as well: requests to bytes, bytes to parts.
//!
//! Pure: the same request is the same bytes. What never changes within a conversation stands first and the messages
//! last, so that the body of one turn begins as the body of the turn before.

use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::Value;
use toka_tools::canonical;

use super::request::{
    Choice, Input, REQUEST_BYTES_MAX, Request, RequestError, TOOLS_MAX, TURNS_MAX, Tool, ToolCall, ToolNames, Turn,
    wire_name,
};
use super::sse::Event;
use super::{Part, RawKind, Stop, Usage, sse};

/// Its name in configuration.
pub const NAME: &str = "openai_chat";
/// Where requests go, below the base URL.
pub const PATH: &str = "/chat/completions";
/// The data of the last event of a stream.
pub const DONE: &str = "[DONE]";
/// The most tool calls of an answer.
pub const CALLS_MAX: usize = 128;

/// How a server names the bound of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputLimit {
    /// `max_completion_tokens`: OpenAI and what follows it.
    #[default]
    MaxCompletionTokens,
    /// `max_tokens`: many local servers.
    MaxTokens,
}

impl OutputLimit {
    /// The field of the request.
    pub fn field(self) -> &'static str {
        match self {
            OutputLimit::MaxCompletionTokens => "max_completion_tokens",
            OutputLimit::MaxTokens => "max_tokens",
        }
    }
}

/// The body of a request.
///
/// # Errors
/// [`RequestError`]: what this dialect cannot say, or nobody should.
pub fn encode(request: &Request, limit: OutputLimit) -> Result<Vec<u8>, RequestError> {
    check_turns(&request.turns)?;
    let names = ToolNames::of(request.tools.iter().map(|tool| tool.name.as_str()))?;
    let mut out = String::from("{\"model\":");
    text(&mut out, &request.model);
    out.push_str(",\"stream\":true,\"stream_options\":{\"include_usage\":true}");
    // Invariant: writing to a string cannot fail, here and below.
    let _ = write!(out, ",\"{}\":{}", limit.field(), request.max_output_tokens);
    if let Some(temperature) = &request.temperature {
        let _ = write!(out, ",\"temperature\":{}", checked_temperature(temperature)?);
    }
    if !request.tools.is_empty() {
        tools(&mut out, &request.tools)?;
        choice(&mut out, &request.choice, &names)?;
    }
    out.push_str(",\"messages\":[");
    messages(&mut out, request)?;
    out.push_str("]}");
    within("bytes", out.len(), REQUEST_BYTES_MAX)?;
    Ok(out.into_bytes())
}

fn within(what: &'static str, count: usize, most: usize) -> Result<(), RequestError> {
    if count > most { Err(RequestError::TooLarge { what, count, most }) } else { Ok(()) }
}

/// Each call has its result before anything else is said, and no result is without its call.
fn check_turns(turns: &[Turn]) -> Result<(), RequestError> {
    within("turns", turns.len(), TURNS_MAX)?;
    let mut open: Vec<&str> = Vec::new();
    for (index, turn) in turns.iter().enumerate() {
        let wrong = |what| Err(RequestError::Turns { index, what });
        match turn {
            Turn::Result { call, .. } => match open.iter().position(|id| id == call) {
                Some(at) => drop(open.remove(at)),
                None => return wrong("this is the result of no open call"),
            },
            Turn::User(_) | Turn::Assistant { .. } if !open.is_empty() => {
                return wrong("a call before this has no result");
            }
            Turn::User(parts) if parts.is_empty() => return wrong("this says nothing"),
            Turn::User(_) => {}
            Turn::Assistant { text, calls } if text.is_empty() && calls.is_empty() => {
                return wrong("this says nothing");
            }
            Turn::Assistant { calls, .. } => {
                open = calls.iter().map(|call| call.id.as_str()).collect();
                let mut ids = open.clone();
                ids.sort_unstable();
                if ids.windows(2).any(|pair| pair[0] == pair[1]) {
                    return wrong("two calls have one id");
                }
            }
        }
    }
    match open.is_empty() {
        true => Ok(()),
        false => Err(RequestError::Turns { index: turns.len(), what: "a call before this has no result" }),
    }
}

/// The text of a temperature, which stands in the body as it is.
fn checked_temperature(text: &str) -> Result<&str, RequestError> {
    let (whole, places) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| (1..=6).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    let zero = places.bytes().all(|byte| byte == b'0');
    let fine = digits(places) && (matches!(whole, "0" | "1") || (whole == "2" && zero));
    if fine { Ok(text) } else { Err(RequestError::Temperature { text: text.chars().take(60).collect() }) }
}

fn tools(out: &mut String, tools: &[Tool]) -> Result<(), RequestError> {
    within("tools", tools.len(), TOOLS_MAX)?;
    out.push_str(",\"tools\":[");
    for (index, tool) in tools.iter().enumerate() {
        let bad = |what: String| RequestError::Schema { name: tool.name.clone(), what };
        if !tool.schema.is_object() {
            return Err(bad("it is no object".to_owned()));
        }
        let schema = canonical(&tool.schema).map_err(|error| bad(error.to_string()))?;
        let schema = String::from_utf8(schema).map_err(|error| bad(error.to_string()))?;
        out.push_str(if index == 0 { "" } else { "," });
        out.push_str("{\"type\":\"function\",\"function\":{\"name\":");
        text(out, &wire_name(&tool.name));
        out.push_str(",\"description\":");
        text(out, &tool.description);
        let _ = write!(out, ",\"parameters\":{schema}}}}}");
    }
    out.push(']');
    Ok(())
}

fn choice(out: &mut String, choice: &Choice, names: &ToolNames) -> Result<(), RequestError> {
    out.push_str(",\"tool_choice\":");
    match choice {
        Choice::Auto => out.push_str("\"auto\""),
        Choice::Never => out.push_str("\"none\""),
        Choice::Any => out.push_str("\"required\""),
        Choice::Only(name) => {
            if !names.pairs().any(|(_, known)| known == name) {
                return Err(RequestError::ChoiceUnknown { name: name.clone() });
            }
            out.push_str("{\"type\":\"function\",\"function\":{\"name\":");
            text(out, &wire_name(name));
            out.push_str("}}");
        }
    }
    Ok(())
}

fn messages(out: &mut String, request: &Request) -> Result<(), RequestError> {
    let mut first = true;
    let mut begin = |out: &mut String, role: &str| {
        let comma = if std::mem::take(&mut first) { "" } else { "," };
        let _ = write!(out, "{comma}{{\"role\":\"{role}\"");
    };
    if !request.system.is_empty() {
        begin(out, "system");
        out.push_str(",\"content\":");
        text(out, &request.system);
        out.push('}');
    }
    for (index, turn) in request.turns.iter().enumerate() {
        match turn {
            Turn::User(parts) => {
                begin(out, "user");
                content(out, index, parts)?;
            }
            Turn::Assistant { text: said, calls } => {
                begin(out, "assistant");
                out.push_str(",\"content\":");
                if said.is_empty() {
                    out.push_str("null")
                } else {
                    text(out, said)
                }
                tool_calls(out, calls);
            }
            Turn::Result { call, content: parts } => {
                begin(out, "tool");
                out.push_str(",\"tool_call_id\":");
                text(out, call);
                content(out, index, parts)?;
            }
        }
        out.push('}');
    }
    Ok(())
}

fn tool_calls(out: &mut String, calls: &[ToolCall]) {
    for (index, call) in calls.iter().enumerate() {
        out.push_str(if index == 0 { ",\"tool_calls\":[" } else { "," });
        out.push_str("{\"id\":");
        text(out, &call.id);
        out.push_str(",\"type\":\"function\",\"function\":{\"name\":");
        text(out, &wire_name(&call.name));
        out.push_str(",\"arguments\":");
        text(out, &call.arguments);
        out.push_str("}}");
    }
    out.push_str(if calls.is_empty() { "" } else { "]" });
}

/// One text as a string, several as a list.
fn content(out: &mut String, index: usize, parts: &[Input]) -> Result<(), RequestError> {
    let mut texts = Vec::new();
    for part in parts {
        match part {
            Input::Text(text) => texts.push(text),
            Input::Image { .. } => {
                let place = format!("turn {index}");
                return Err(RequestError::UnsupportedPart { place, part: "an image", dialect: NAME });
            }
        }
    }
    out.push_str(",\"content\":");
    if let [] | [_] = texts[..] {
        text(out, texts.first().map_or("", |text| text.as_str()));
        return Ok(());
    }
    for (index, part) in texts.iter().enumerate() {
        out.push_str(if index == 0 { "[" } else { "," });
        out.push_str("{\"type\":\"text\",\"text\":");
        text(out, part);
        out.push('}');
    }
    out.push(']');
    Ok(())
}

/// A string of JSON.
fn text(out: &mut String, text: &str) {
    let _ = write!(out, "{}", Value::from(text));
}

/// What an answer says, without how it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What the model said, in order.
    pub parts: Vec<Part>,
    /// Why it stopped.
    pub stop: Stop,
    /// What it took.
    pub usage: Option<Usage>,
    /// The model, as the server names it.
    pub model: Option<String>,
}

/// Why a body is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// It is not what the dialect promises.
    #[error("{0}")]
    Reply(String),
    /// It says that the server failed.
    #[error("the server says: {what}")]
    Upstream {
        /// Whether it has too much to do.
        overloaded: bool,
        /// What it says, as the server wrote it.
        what: String,
    },
    /// It ended before its end.
    #[error("the stream ended before its end")]
    Cut,
    /// It is too large to be read.
    #[error("{0}")]
    TooLarge(super::Bound),
}

/// Reads a body that is there whole, as it was kept.
///
/// # Errors
/// [`Wrong`], the same that the body was when it came.
pub fn decode(kind: RawKind, body: &[u8]) -> Result<Answer, Wrong> {
    match kind {
        RawKind::Whole => whole(body),
        RawKind::Withheld => Err(Wrong::Reply("the body was withheld".to_owned())),
        RawKind::Events => {
            let mut stream = Stream::new();
            stream.feed(body)?;
            stream.end()
        }
    }
}

/// An answer that comes as a stream of events.
#[derive(Debug, Default)]
pub struct Stream {
    parser: sse::Parser,
    assembly: Assembly,
}

impl Stream {
    /// A stream of which nothing has come.
    pub fn new() -> Stream {
        Stream::default()
    }

    /// Takes the next bytes; whether the last event has come. What comes after it is not read.
    ///
    /// # Errors
    /// [`Wrong`]; then the answer is lost, and [`Stream::raw`] holds what came of it.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<bool, Wrong> {
        let mut events = Vec::new();
        let fed = self.parser.feed(bytes, &mut events);
        for event in &events {
            if !self.assembly.done {
                self.assembly.event(event)?;
            }
        }
        if self.assembly.done {
            return Ok(true);
        }
        fed.map(|()| false).map_err(Wrong::TooLarge)
    }

    /// The bytes that came.
    pub fn raw(&self) -> &[u8] {
        self.parser.raw()
    }

    /// What it took, as far as it was said.
    pub fn usage(&self) -> Option<Usage> {
        self.assembly.usage
    }

    /// The answer.
    ///
    /// # Errors
    /// [`Wrong::Cut`] unless the last event has come.
    pub fn end(self) -> Result<Answer, Wrong> {
        if self.assembly.done { self.assembly.answer() } else { Err(Wrong::Cut) }
    }
}

/// An answer in one JSON document.
fn whole(body: &[u8]) -> Result<Answer, Wrong> {
    let chunk: Chunk = serde_json::from_slice(body).map_err(|error| bad(&error))?;
    let mut assembly = Assembly::default();
    assembly.chunk(chunk)?;
    assembly.answer()
}

/// What a body says that reports a fault, as the server wrote it.
pub fn complaint(body: &[u8]) -> Option<String> {
    let complaint: Complained = serde_json::from_slice(body).ok()?;
    Some(complaint.error.text())
}

fn bad(error: &serde_json::Error) -> Wrong {
    // Only the place: the text of the error may quote what the server sent.
    let (line, column) = (error.line(), error.column());
    Wrong::Reply(match error.classify() {
        serde_json::error::Category::Data => format!("an answer of another form, at {line}:{column}"),
        serde_json::error::Category::Syntax | serde_json::error::Category::Eof | serde_json::error::Category::Io => {
            format!("not JSON, at {line}:{column}")
        }
    })
}

/// The parts of an answer as they grow.
#[derive(Debug, Default)]
struct Assembly {
    text: String,
    reasoning: String,
    refusal: String,
    calls: Vec<Growing>,
    stop: Option<Stop>,
    usage: Option<Usage>,
    model: Option<String>,
    choices: usize,
    done: bool,
}

#[derive(Debug)]
struct Growing {
    index: Option<u64>,
    id: String,
    name: String,
    arguments: String,
}

impl Assembly {
    fn event(&mut self, event: &Event) -> Result<(), Wrong> {
        let data = event.data.trim();
        if data == DONE {
            self.done = true;
            return Ok(());
        }
        self.chunk(serde_json::from_str(data).map_err(|error| bad(&error))?)
    }

    fn chunk(&mut self, chunk: Chunk) -> Result<(), Wrong> {
        if let Some(error) = chunk.error {
            return Err(Wrong::Upstream { overloaded: error.is_overload(), what: error.text() });
        }
        if let Some(usage) = chunk.usage {
            self.usage = Some(usage.counted());
        }
        self.model = chunk.model.or(self.model.take());
        for choice in chunk.choices.unwrap_or_default() {
            if choice.index.unwrap_or(0) != 0 {
                return Err(Wrong::Reply("a second answer, which nobody asked for".to_owned()));
            }
            self.choices += 1;
            if let Some(delta) = choice.delta.or(choice.message) {
                self.delta(delta)?;
            }
            if let Some(reason) = choice.finish_reason {
                self.stop = Some(stop(reason));
            }
        }
        Ok(())
    }

    fn delta(&mut self, delta: Delta) -> Result<(), Wrong> {
        self.text.push_str(&delta.content.unwrap_or_default());
        self.refusal.push_str(&delta.refusal.unwrap_or_default());
        self.reasoning.push_str(&delta.reasoning_content.or(delta.reasoning).unwrap_or_default());
        for part in delta.tool_calls.unwrap_or_default() {
            self.call(part)?;
        }
        Ok(())
    }

    /// A piece of a call. Servers that send a call in one piece leave its index out.
    fn call(&mut self, piece: CallPiece) -> Result<(), Wrong> {
        if piece.kind.as_deref().is_some_and(|kind| !kind.is_empty() && kind != "function") {
            return Err(Wrong::Reply("a call of something that is no function".to_owned()));
        }
        let id = piece.id.unwrap_or_default();
        let function = piece.function.unwrap_or_default();
        let at = match piece.index {
            Some(_) => self.calls.iter().position(|call| call.index == piece.index),
            None if id.is_empty() && function.name.is_none() => self.calls.len().checked_sub(1),
            None => None,
        };
        let at = match at {
            Some(at) => at,
            None if self.calls.len() == CALLS_MAX => {
                return Err(Wrong::Reply(format!("more than {CALLS_MAX} calls")));
            }
            None => {
                let (name, arguments) = (String::new(), String::new());
                self.calls.push(Growing { index: piece.index, id: String::new(), name, arguments });
                self.calls.len() - 1
            }
        };
        let call = &mut self.calls[at];
        // An id and a name come once; some servers repeat them in every piece.
        if call.id.is_empty() {
            call.id = id;
        }
        if call.name.is_empty() {
            call.name = function.name.unwrap_or_default();
        }
        call.arguments.push_str(&function.arguments.unwrap_or_default());
        Ok(())
    }

    fn answer(self) -> Result<Answer, Wrong> {
        let wrong = |what: &str| Err(Wrong::Reply(what.to_owned()));
        if self.choices == 0 {
            return wrong("no answer is in it");
        }
        let Some(mut stop) = self.stop else { return wrong("it does not say why it ends") };
        let mut parts = Vec::new();
        if !self.reasoning.is_empty() {
            parts.push(Part::Reasoning(self.reasoning));
        }
        if !self.text.is_empty() {
            parts.push(Part::Text(self.text));
        }
        if !self.refusal.is_empty() {
            parts.push(Part::Refusal(self.refusal));
            stop = Stop::Refused;
        }
        let mut ids = std::collections::BTreeSet::new();
        for (index, call) in self.calls.into_iter().enumerate() {
            if call.name.is_empty() {
                return wrong("a call without a name");
            }
            // Local servers leave the id out, or give every call the same.
            let id = if call.id.is_empty() || ids.contains(&call.id) { format!("call_{index}") } else { call.id };
            if !ids.insert(id.clone()) {
                return wrong("two calls with one id");
            }
            // A call without arguments may come without text for them.
            let arguments = if call.arguments.is_empty() { "{}".to_owned() } else { call.arguments };
            parts.push(Part::Call(ToolCall { id, name: call.name, arguments }));
        }
        // Local servers say `stop` where they wait for tools.
        if stop == Stop::End && parts.iter().any(|part| matches!(part, Part::Call(_))) {
            stop = Stop::Tools;
        }
        Ok(Answer { parts, stop, usage: self.usage, model: self.model })
    }
}

fn stop(reason: String) -> Stop {
    match reason.as_str() {
        "stop" => Stop::End,
        "tool_calls" | "function_call" => Stop::Tools,
        "length" => Stop::Length,
        "content_filter" => Stop::Refused,
        _ => Stop::Other(reason),
    }
}

/// A chunk of a stream, or a whole answer.
#[derive(Deserialize)]
struct Chunk {
    model: Option<String>,
    choices: Option<Vec<ChunkChoice>>,
    usage: Option<Counted>,
    error: Option<Complaint>,
}

#[derive(Deserialize)]
struct ChunkChoice {
    index: Option<u64>,
    delta: Option<Delta>,
    message: Option<Delta>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
    refusal: Option<String>,
    reasoning_content: Option<String>,
    reasoning: Option<String>,
    tool_calls: Option<Vec<CallPiece>>,
}

#[derive(Deserialize)]
struct CallPiece {
    index: Option<u64>,
    id: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    function: Option<FunctionPiece>,
}

#[derive(Default, Deserialize)]
struct FunctionPiece {
    name: Option<String>,
    arguments: Option<String>,
}

#[derive(Deserialize)]
struct Counted {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<CountedDetails>,
}

#[derive(Deserialize)]
struct CountedDetails {
    cached_tokens: Option<u64>,
}

impl Counted {
    fn counted(self) -> Usage {
        let tokens_in = self.prompt_tokens.unwrap_or_default();
        let cached = self.prompt_tokens_details.and_then(|details| details.cached_tokens).unwrap_or_default();
        let tokens_out = self.completion_tokens.unwrap_or_default();
        Usage { tokens_in, tokens_cached: cached.min(tokens_in), tokens_out }
    }
}

#[derive(Deserialize)]
struct Complained {
    error: Complaint,
}

/// What a server says when it failed: an object, or a text alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum Complaint {
    Text(String),
    Fields {
        message: Option<String>,
        #[serde(rename = "type")]
        kind: Option<String>,
        code: Option<Value>,
    },
}

impl Complaint {
    fn words(&self) -> (String, String) {
        match self {
            Complaint::Text(text) => (String::new(), text.clone()),
            Complaint::Fields { message, kind, code } => {
                let code = match code {
                    Some(Value::String(code)) => code.clone(),
                    Some(Value::Number(code)) => code.to_string(),
                    Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) | None => String::new(),
                };
                let words = [kind.clone().unwrap_or_default(), code].join(" ");
                (words.trim().to_owned(), message.clone().unwrap_or_default())
            }
        }
    }

    fn text(&self) -> String {
        let (words, message) = self.words();
        if words.is_empty() { message } else { format!("{words}: {message}") }
    }

    fn is_overload(&self) -> bool {
        let (words, _) = self.words();
        let marks =
            ["overloaded", "server_error", "rate_limit", "unavailable", "429", "500", "502", "503", "504", "529"];
        marks.iter().any(|mark| words.contains(mark))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn call(id: &str, name: &str, arguments: &str) -> ToolCall {
        ToolCall { id: id.to_owned(), name: name.to_owned(), arguments: arguments.to_owned() }
    }

    fn said(text: &str) -> Vec<Input> {
        vec![Input::Text(text.to_owned())]
    }

    fn request() -> Request {
        Request {
            model: "gpt-5.1".to_owned(),
            system: "You audit.\n\"Do\" it.".to_owned(),
            turns: vec![
                Turn::User(said("Begin.")),
                Turn::Assistant { text: String::new(), calls: vec![call("c1", "code.python", "{\"a\": 1}")] },
                Turn::Result { call: "c1".to_owned(), content: said("42") },
                Turn::Assistant { text: "Fine.".to_owned(), calls: Vec::new() },
                Turn::User(vec![Input::Text("One".to_owned()), Input::Text("two".to_owned())]),
            ],
            tools: vec![Tool {
                name: "code.python".to_owned(),
                description: "Runs Python.".to_owned(),
                schema: json!({ "type": "object", "properties": { "a": { "type": "integer" } } }),
            }],
            choice: Choice::Auto,
            max_output_tokens: 1_024,
            temperature: Some("0.20".to_owned()),
        }
    }

    #[test]
    fn a_request_is_these_bytes() {
        let bytes = encode(&request(), OutputLimit::default()).expect("it can be said");
        let expected = concat!(
            r#"{"model":"gpt-5.1","stream":true,"stream_options":{"include_usage":true},"max_completion_tokens":1024,"#,
            r#""temperature":0.20,"tools":[{"type":"function","function":{"name":"code__python","description":"Runs Python.","#,
            r#""parameters":{"properties":{"a":{"type":"integer"}},"type":"object"}}}],"tool_choice":"auto","messages":["#,
            r#"{"role":"system","content":"You audit.\n\"Do\" it."},{"role":"user","content":"Begin."},"#,
            r#"{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"code__python","arguments":"{\"a\": 1}"}}]},"#,
            r#"{"role":"tool","tool_call_id":"c1","content":"42"},{"role":"assistant","content":"Fine."},"#,
            r#"{"role":"user","content":[{"type":"text","text":"One"},{"type":"text","text":"two"}]}]}"#,
        );
        assert_eq!(String::from_utf8(bytes).expect("UTF-8"), expected);
        let bytes = encode(&request(), OutputLimit::MaxTokens).expect("it can be said");
        assert!(String::from_utf8(bytes).expect("UTF-8").contains(",\"max_tokens\":1024,"));
    }

    #[test]
    fn without_tools_nothing_is_said_about_them() {
        let bare = Request {
            tools: Vec::new(),
            temperature: None,
            system: String::new(),
            turns: vec![Turn::User(said("Hi"))],
            ..request()
        };
        let bytes = encode(&bare, OutputLimit::default()).expect("it can be said");
        assert_eq!(
            String::from_utf8(bytes).expect("UTF-8"),
            r#"{"model":"gpt-5.1","stream":true,"stream_options":{"include_usage":true},"max_completion_tokens":1024,"messages":[{"role":"user","content":"Hi"}]}"#
        );
    }

    #[test]
    fn a_choice_is_said_in_the_words_of_the_dialect() {
        let choices = [
            (Choice::Never, "\"none\""),
            (Choice::Any, "\"required\""),
            (Choice::Only("code.python".to_owned()), r#"{"type":"function","function":{"name":"code__python"}}"#),
        ];
        for (choice, words) in choices {
            let bytes = encode(&Request { choice, ..request() }, OutputLimit::default()).expect("it can be said");
            assert!(String::from_utf8(bytes).expect("UTF-8").contains(&format!("\"tool_choice\":{words},")));
        }
    }

    #[test]
    fn an_image_is_refused_before_anything_is_written() {
        let image = Input::Image { media_type: "image/png".to_owned(), bytes: vec![1] };
        let mut with_image = request();
        with_image.turns.push(Turn::User(vec![image]));
        let error = encode(&with_image, OutputLimit::default()).expect_err("no words for it");
        assert_eq!(error.symbol(), "UNSUPPORTED_PART");
        assert_eq!(error.to_string(), "turn 5: an image cannot be sent in the dialect openai_chat");
    }

    #[test]
    fn what_nobody_should_send_is_refused() {
        let refused = |change: &dyn Fn(&mut Request)| {
            let mut request = request();
            change(&mut request);
            encode(&request, OutputLimit::default()).expect_err("it is refused")
        };
        for text in ["", "warm", "2.1", "-1", "1e0", ".5", "1.", "0.1234567", "01", "0,5", "1}"] {
            let error = refused(&|request| request.temperature = Some(text.to_owned()));
            assert!(matches!(error, RequestError::Temperature { .. }), "{text:?}");
        }
        let error = refused(&|request| request.turns.truncate(2));
        assert_eq!(error.to_string(), "turn 2: a call before this has no result");
        let error = refused(&|request| drop(request.turns.remove(1)));
        assert_eq!(error.to_string(), "turn 1: this is the result of no open call");
        let error = refused(&|request| request.turns.push(Turn::Assistant { text: String::new(), calls: Vec::new() }));
        assert_eq!(error.to_string(), "turn 5: this says nothing");
        let error = refused(&|request| {
            let calls = vec![call("d", "code.python", "{}"), call("d", "code.python", "{}")];
            request.turns.push(Turn::Assistant { text: String::new(), calls });
        });
        assert_eq!(error.to_string(), "turn 5: two calls have one id");
        let error = refused(&|request| request.tools[0].schema = json!("any"));
        assert!(matches!(error, RequestError::Schema { .. }));
        let error = refused(&|request| request.choice = Choice::Only("file-reader".to_owned()));
        assert!(matches!(error, RequestError::ChoiceUnknown { .. }));
        let error = refused(&|request| {
            let twin = Tool { name: "code__python".to_owned(), ..request.tools[0].clone() };
            request.tools.push(twin);
        });
        assert!(matches!(error, RequestError::NameCollision { .. }));
        let error = refused(&|request| request.system = "x".repeat(REQUEST_BYTES_MAX));
        assert!(matches!(error, RequestError::TooLarge { .. }));
    }

    const STREAM: &str = concat!(
        "data: {\"id\":\"x\",\"model\":\"m-1\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}],\"usage\":null}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Grüß \"}}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Gott\"}}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"a\",\"type\":\"function\",\"function\":{\"name\":\"code__python\",\"arguments\":\"\"}}]}}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{\\\"a\\\"\"}}]}}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":1,\"id\":\"b\",\"function\":{\"name\":\"file-reader\",\"arguments\":\"not \"}}]}}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\": 1}\"}},{\"index\":1,\"function\":{\"arguments\":\"JSON\"}}]}}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":100,\"completion_tokens\":9,\"total_tokens\":109,\"prompt_tokens_details\":{\"cached_tokens\":60}}}\n\n",
        "data: [DONE]\n\n",
    );

    fn answer() -> Answer {
        Answer {
            parts: vec![
                Part::Text("Grüß Gott".to_owned()),
                Part::Call(call("a", "code__python", "{\"a\": 1}")),
                Part::Call(call("b", "file-reader", "not JSON")),
            ],
            stop: Stop::Tools,
            usage: Some(Usage { tokens_in: 100, tokens_cached: 60, tokens_out: 9 }),
            model: Some("m-1".to_owned()),
        }
    }

    #[test]
    fn a_stream_becomes_parts_with_arguments_as_text() {
        assert_eq!(decode(RawKind::Events, STREAM.as_bytes()), Ok(answer()));
    }

    #[test]
    fn a_stream_cut_at_any_byte_is_cut_and_one_in_any_pieces_is_whole() {
        let bytes = STREAM.as_bytes();
        for end in 0..bytes.len() {
            assert_eq!(decode(RawKind::Events, &bytes[..end]), Err(Wrong::Cut), "cut at {end}");
        }
        for size in 1..=64 {
            let mut stream = Stream::new();
            for piece in bytes.chunks(size) {
                stream.feed(piece).expect("nothing is wrong with it");
            }
            assert_eq!(stream.raw(), bytes);
            assert_eq!(stream.end(), Ok(answer()), "in pieces of {size}");
        }
    }

    #[test]
    fn a_whole_document_says_the_same() {
        let body = json!({
            "model": "m-1",
            "choices": [{
                "index": 0,
                "message": { "role": "assistant", "content": "Grüß Gott", "refusal": null, "tool_calls": [
                    { "id": "a", "type": "function", "function": { "name": "code__python", "arguments": "{\"a\": 1}" } },
                    { "id": "b", "type": "function", "function": { "name": "file-reader", "arguments": "not JSON" } },
                ] },
                "finish_reason": "tool_calls",
            }],
            "usage": { "prompt_tokens": 100, "completion_tokens": 9, "prompt_tokens_details": { "cached_tokens": 60 } },
        });
        assert_eq!(decode(RawKind::Whole, body.to_string().as_bytes()), Ok(answer()));
    }

    fn whole_of(message: Value, reason: &str) -> Result<Answer, Wrong> {
        let body = json!({ "choices": [{ "index": 0, "message": message, "finish_reason": reason }] });
        decode(RawKind::Whole, body.to_string().as_bytes())
    }

    #[test]
    fn what_local_servers_leave_out_is_filled_in() {
        let calls =
            json!([{ "function": { "name": "a" } }, { "id": "", "function": { "name": "b", "arguments": "{}" } }]);
        let answer = whole_of(json!({ "tool_calls": calls }), "stop").expect("an answer");
        assert_eq!(answer.parts, [Part::Call(call("call_0", "a", "{}")), Part::Call(call("call_1", "b", "{}"))]);
        assert_eq!((answer.stop, answer.usage), (Stop::Tools, None));
    }

    #[test]
    fn why_it_stops_is_told() {
        let stops = |message, reason| whole_of(message, reason).map(|answer| answer.stop);
        assert_eq!(stops(json!({ "content": "x" }), "stop"), Ok(Stop::End));
        assert_eq!(stops(json!({ "content": "x" }), "length"), Ok(Stop::Length));
        assert_eq!(stops(json!({ "content": null }), "content_filter"), Ok(Stop::Refused));
        assert_eq!(stops(json!({ "refusal": "No." }), "stop"), Ok(Stop::Refused));
        assert_eq!(stops(json!({ "content": "x" }), "dreaming"), Ok(Stop::Other("dreaming".to_owned())));
    }

    #[test]
    fn an_envelope_of_another_form_is_a_bad_reply_and_quotes_nothing() {
        let bodies = [
            "",
            "<html>secret</html>",
            "{",
            "[]",
            "{}",
            r#"{"choices":[]}"#,
            r#"{"choices":[{"index":0,"message":{"content":7},"finish_reason":"stop"}]}"#,
            r#"{"choices":[{"index":0,"message":{"content":"x"}}]}"#,
            r#"{"choices":[{"index":1,"message":{"content":"x"},"finish_reason":"stop"}]}"#,
            r#"{"choices":[{"message":{"tool_calls":[{"id":"a","function":{}}]},"finish_reason":"stop"}]}"#,
            r#"{"choices":[{"message":{"tool_calls":[{"id":"a","type":"custom","function":{"name":"x"}}]},"finish_reason":"stop"}]}"#,
        ];
        for body in bodies {
            let Err(Wrong::Reply(what)) = decode(RawKind::Whole, body.as_bytes()) else { panic!("{body:?} is read") };
            assert!(!what.contains("secret"), "{what}");
            let stream = format!("data: {body}\n\ndata: [DONE]\n\n");
            assert!(matches!(decode(RawKind::Events, stream.as_bytes()), Err(Wrong::Reply(_))), "{body:?}");
        }
    }

    #[test]
    fn a_fault_within_a_stream_is_the_servers() {
        let faults = [
            (r#"{"error":{"message":"busy","type":"overloaded_error"}}"#, true, "overloaded_error: busy"),
            (r#"{"error":{"message":"oh","type":"server_error","code":500}}"#, true, "server_error 500: oh"),
            (
                r#"{"error":{"message":"no","type":"invalid_request_error","code":null}}"#,
                false,
                "invalid_request_error: no",
            ),
            (r#"{"error":"out of memory"}"#, false, "out of memory"),
        ];
        for (body, overloaded, what) in faults {
            let stream = format!("data: {body}\n\n");
            let what = what.to_owned();
            assert_eq!(decode(RawKind::Events, stream.as_bytes()), Err(Wrong::Upstream { overloaded, what }));
        }
        assert_eq!(complaint(b"{\"error\":{\"message\":\"\\u001b[2J\"}}").as_deref(), Some("\u{1b}[2J"));
        assert_eq!(complaint(b"<html>"), None);
    }
}
