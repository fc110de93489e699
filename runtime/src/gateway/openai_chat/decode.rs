//! Bytes to parts.

use super::super::request::ToolCall;
use super::super::sse::{self, Event};
use super::super::{Answer, Bound, Part, RawKind, Stop, Usage};
use super::envelope::{CallPiece, Chunk, Complained, Delta};
use super::{CALLS_MAX, DONE};

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
    TooLarge(Bound),
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn call(id: &str, name: &str, arguments: &str) -> ToolCall {
        ToolCall { id: id.to_owned(), name: name.to_owned(), arguments: arguments.to_owned() }
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
