//! Requests to bytes.

use std::fmt::Write as _;

use serde_json::Value;
use toka_tools::canonical;

use super::super::request::{
    Choice, Input, REQUEST_BYTES_MAX, Request, RequestError, TOOLS_MAX, TURNS_MAX, Tool, ToolCall, ToolNames, Turn,
    wire_name,
};
use super::{NAME, OutputLimit};

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
}
