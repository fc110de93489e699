//! What the dialect sends, as far as it is read.

use serde::Deserialize;
use serde_json::Value;

use super::super::Usage;

/// A chunk of a stream, or a whole answer.
#[derive(Deserialize)]
pub(super) struct Chunk {
    pub(super) model: Option<String>,
    pub(super) choices: Option<Vec<ChunkChoice>>,
    pub(super) usage: Option<Counted>,
    pub(super) error: Option<Complaint>,
}

#[derive(Deserialize)]
pub(super) struct ChunkChoice {
    pub(super) index: Option<u64>,
    pub(super) delta: Option<Delta>,
    pub(super) message: Option<Delta>,
    pub(super) finish_reason: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Delta {
    pub(super) content: Option<String>,
    pub(super) refusal: Option<String>,
    pub(super) reasoning_content: Option<String>,
    pub(super) reasoning: Option<String>,
    pub(super) tool_calls: Option<Vec<CallPiece>>,
}

#[derive(Deserialize)]
pub(super) struct CallPiece {
    pub(super) index: Option<u64>,
    pub(super) id: Option<String>,
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) function: Option<FunctionPiece>,
}

#[derive(Default, Deserialize)]
pub(super) struct FunctionPiece {
    pub(super) name: Option<String>,
    pub(super) arguments: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Counted {
    pub(super) prompt_tokens: Option<u64>,
    pub(super) completion_tokens: Option<u64>,
    pub(super) prompt_tokens_details: Option<CountedDetails>,
}

#[derive(Deserialize)]
pub(super) struct CountedDetails {
    pub(super) cached_tokens: Option<u64>,
}

impl Counted {
    pub(super) fn counted(self) -> Usage {
        let tokens_in = self.prompt_tokens.unwrap_or_default();
        let cached = self.prompt_tokens_details.and_then(|details| details.cached_tokens).unwrap_or_default();
        let tokens_out = self.completion_tokens.unwrap_or_default();
        Usage { tokens_in, tokens_cached: cached.min(tokens_in), tokens_out }
    }
}

#[derive(Deserialize)]
pub(super) struct Complained {
    pub(super) error: Complaint,
}

/// What a server says when it failed: an object, or a text alone.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Complaint {
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

    pub(super) fn text(&self) -> String {
        let (words, message) = self.words();
        if words.is_empty() { message } else { format!("{words}: {message}") }
    }

    pub(super) fn is_overload(&self) -> bool {
        let (words, _) = self.words();
        let marks =
            ["overloaded", "server_error", "rate_limit", "unavailable", "429", "500", "502", "503", "504", "529"];
        marks.iter().any(|mark| words.contains(mark))
    }
}
