//! A script: from the text of its file to its turns, or to everything that is wrong with it.

use std::collections::BTreeMap;

use serde_json::{Map, Number, Value};
use toka_tools::files::yaml::{Kind, Node, parse};
use toka_tools::files::{Fields, FileCode, FileError, Format, Problems, Shape, clean, decode, quote};

use super::super::server::End;
use super::{
    Answer, Call, Expect, ExpectResult, ITEMS_MAX, LANES_MAX, REPLIES_MAX, Reply, Script, TEXT_BYTES_MAX, TURNS_MAX,
    Turn, UsageSaid,
};

/// What a script is.
const FORMAT: Format = Format { noun: "model script", kind: "ModelScript", bytes_max: 1 << 20 };

/// Reads a script.
pub(super) fn read(file: &str, bytes: &[u8]) -> Result<Script, Vec<FileError>> {
    let text = decode(file, bytes, &FORMAT)?;
    let mut problems = Problems::new(file, text, &FORMAT);
    let script = parse(&mut problems).and_then(|root| script(&root, &mut problems));
    match (script, problems.into_errors()) {
        (Some(script), errors) if errors.is_empty() => Ok(script),
        (_, errors) => Err(errors),
    }
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

fn answer_of(fields: &Fields<'_>, problems: &mut Problems<'_>) -> Option<Answer> {
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
}
