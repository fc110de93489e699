//! What an answer says, without how it came: what an agent reads, and what is kept beside the body.

use serde_json::{Value, json};
use toka_tools::{JsonError, canonical};

use super::{Part, Stop, ToolCall, Usage};

/// What a model said, in whatever dialect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What it said, in order.
    pub parts: Vec<Part>,
    /// Why it stopped.
    pub stop: Stop,
    /// What it took, where the server said so.
    pub usage: Option<Usage>,
    /// The model, as the server names it.
    pub model: Option<String>,
}

impl Answer {
    /// The answer as canonical JSON.
    ///
    /// # Errors
    /// When it would be longer than a result may be: 1 MiB.
    pub fn to_json(&self) -> Result<Vec<u8>, JsonError> {
        let parts: Vec<Value> = self.parts.iter().map(part_to_json).collect();
        // Counts as text: they may be larger than the integers of canonical JSON.
        let usage = self.usage.map(|usage| {
            let [tokens_in, cached, out] =
                [usage.tokens_in, usage.tokens_cached, usage.tokens_out].map(|count| count.to_string());
            json!({ "in": tokens_in, "cached": cached, "out": out })
        });
        canonical(&json!({ "model": self.model, "parts": parts, "stop": stop_word(&self.stop), "usage": usage }))
    }

    /// Reads what [`Answer::to_json`] writes; `None` if it is anything else.
    pub fn from_json(text: &[u8]) -> Option<Answer> {
        Answer::from_value(&serde_json::from_slice(text).ok()?)
    }

    /// The same of JSON that was read already.
    pub fn from_value(value: &Value) -> Option<Answer> {
        let usage = value.get("usage")?;
        let count = |name: &str| usage.get(name)?.as_str()?.parse::<u64>().ok();
        let usage = match usage.is_null() {
            true => None,
            false => {
                Some(Usage { tokens_in: count("in")?, tokens_cached: count("cached")?, tokens_out: count("out")? })
            }
        };
        let model = value.get("model")?;
        let model = if model.is_null() { None } else { Some(model.as_str()?.to_owned()) };
        let parts = value.get("parts")?.as_array()?.iter().map(part_of_json).collect::<Option<_>>()?;
        Some(Answer { parts, stop: stop_of_word(value.get("stop")?.as_str()?), usage, model })
    }
}

fn part_to_json(part: &Part) -> Value {
    match part {
        Part::Text(text) => json!({ "text": text }),
        Part::Reasoning(text) => json!({ "reasoning": text }),
        Part::Refusal(text) => json!({ "refusal": text }),
        Part::Call(call) => json!({ "call": { "arguments": call.arguments, "id": call.id, "name": call.name } }),
    }
}

fn part_of_json(value: &Value) -> Option<Part> {
    let (kind, said) = value.as_object().filter(|members| members.len() == 1)?.iter().next()?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Some(match kind.as_str() {
        "text" => Part::Text(text(said)?),
        "reasoning" => Part::Reasoning(text(said)?),
        "refusal" => Part::Refusal(text(said)?),
        "call" => Part::Call(ToolCall {
            id: text(said.get("id")?)?,
            name: text(said.get("name")?)?,
            arguments: text(said.get("arguments")?)?,
        }),
        _ => return None,
    })
}

/// A word of a server that nobody knows here stands behind a colon, so that it is none of ours.
fn stop_word(stop: &Stop) -> String {
    match stop {
        Stop::End => "end".to_owned(),
        Stop::Tools => "tools".to_owned(),
        Stop::Length => "length".to_owned(),
        Stop::Refused => "refused".to_owned(),
        Stop::Other(word) => format!("other:{word}"),
    }
}

fn stop_of_word(word: &str) -> Stop {
    match word {
        "end" => Stop::End,
        "tools" => Stop::Tools,
        "length" => Stop::Length,
        "refused" => Stop::Refused,
        word => Stop::Other(word.strip_prefix("other:").unwrap_or(word).to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part() -> impl Strategy<Value = Part> {
        let text = || any::<String>();
        prop_oneof![
            text().prop_map(Part::Text),
            text().prop_map(Part::Reasoning),
            text().prop_map(Part::Refusal),
            (text(), text(), text()).prop_map(|(id, name, arguments)| Part::Call(ToolCall { id, name, arguments })),
        ]
    }

    fn stop() -> impl Strategy<Value = Stop> {
        prop_oneof![
            prop::sample::select(vec![Stop::End, Stop::Tools, Stop::Length, Stop::Refused]),
            any::<String>().prop_map(Stop::Other),
            Just(Stop::Other("end".to_owned())),
        ]
    }

    fn usage() -> impl Strategy<Value = Usage> {
        let counts = (any::<u64>(), any::<u64>(), any::<u64>());
        counts.prop_map(|(tokens_in, tokens_cached, tokens_out)| Usage { tokens_in, tokens_cached, tokens_out })
    }

    proptest! {
        #[test]
        fn an_answer_is_read_as_it_was_written(
            parts in prop::collection::vec(part(), 0..5),
            stop in stop(),
            usage in prop::option::of(usage()),
            model in prop::option::of(any::<String>()),
        ) {
            let answer = Answer { parts, stop, usage, model };
            let json = answer.to_json().expect("it is short");
            prop_assert_eq!(Answer::from_json(&json), Some(answer));
        }
    }

    #[test]
    fn what_is_no_answer_is_not_read_as_one() {
        for text in ["", "{}", "[]", r#"{"model":null,"parts":[{"text":1}],"stop":"end","usage":null}"#] {
            assert_eq!(Answer::from_json(text.as_bytes()), None, "{text}");
        }
        let long = Answer { parts: vec![Part::Text("x".repeat(2 << 20))], stop: Stop::End, usage: None, model: None };
        assert!(long.to_json().is_err());
    }
}
