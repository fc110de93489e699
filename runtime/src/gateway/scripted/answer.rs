//! What a script says to a request, as a server would say it.

use serde_json::{Value, json};
use toka_tools::files::{clean, quote};

use super::super::request::wire_name;
use super::super::server::{Answered, Body, End};
use super::{Answer, Call, Expect, ExpectResult, Reply, SYMBOL, Script, UsageSaid};

/// Characters in one event of a text, and in one of arguments.
const TEXT_CHARS: usize = 24;
const ARGUMENT_CHARS: usize = 16;

impl Script {
    /// The answer to the `seen`-th request, from 0, of a turn of a lane.
    pub(super) fn answer(&self, lane: &str, ordinal: u64, seen: usize, body: &Value, bytes: usize) -> Answered {
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

pub(super) fn json_type() -> (String, String) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn head(lanes: &str) -> String {
        format!("apiVersion: toka/v1\nkind: ModelScript\nlanes:\n{lanes}")
    }

    fn body_of(answered: &Answered) -> String {
        match &answered.body {
            Body::Whole(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Body::Chunks(chunks, _) => String::from_utf8_lossy(&chunks.concat()).into_owned(),
            Body::Silence => String::new(),
        }
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
