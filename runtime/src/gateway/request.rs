//! What an agent asks of a model, before any dialect.

use std::collections::BTreeMap;

use serde_json::Value;

/// The most bytes of a request body.
pub const REQUEST_BYTES_MAX: usize = 32 << 20;
/// The most turns of a request.
pub const TURNS_MAX: usize = 10_000;
/// The most tools of a request.
pub const TOOLS_MAX: usize = 128;
/// The most bytes of the name of a tool, as models read it.
pub const TOOL_NAME_BYTES_MAX: usize = 64;

/// One request to a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The model, as its server names it.
    pub model: String,
    /// The system text; empty for none.
    pub system: String,
    /// The conversation so far.
    pub turns: Vec<Turn>,
    /// The tools it may ask for, in the order of the wire.
    pub tools: Vec<Tool>,
    /// Whether it must ask for one.
    pub choice: Choice,
    /// The most tokens of its answer.
    pub max_output_tokens: u64,
    /// A decimal number as it is written; `None` leaves it to the server. Never a float.
    pub temperature: Option<String>,
}

/// A turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// What the model is told.
    User(Vec<Input>),
    /// What the model answered.
    Assistant {
        /// Its text; empty for none.
        text: String,
        /// The tools it asked for.
        calls: Vec<ToolCall>,
    },
    /// The result of one of the calls of the assistant turn before.
    Result {
        /// Which call: its id.
        call: String,
        /// What the model is told about it.
        content: Vec<Input>,
    },
}

/// A part of what the model is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Text.
    Text(String),
    /// An image.
    Image {
        /// Its type: `image/png`.
        media_type: String,
        /// Its bytes.
        bytes: Vec<u8>,
    },
}

/// A tool that the model may ask for.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    /// Its name here: `file-reader`, `code.python`.
    pub name: String,
    /// What it does.
    pub description: String,
    /// The JSON Schema of its arguments, an object.
    pub schema: Value,
}

/// Whether the model must ask for a tool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// As it likes.
    #[default]
    Auto,
    /// It may ask for none.
    Never,
    /// It must ask for one.
    Any,
    /// It must ask for this one.
    Only(String),
}

/// A tool that a model asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall {
    /// How the model refers to the call.
    pub id: String,
    /// The tool, as the model wrote it; [`ToolNames::name`] gives the name here.
    pub name: String,
    /// The arguments as text. It may be no JSON; whoever makes a command of it says so to the model.
    pub arguments: String,
}

/// Why a request cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// A part that the dialect has no words for.
    #[error("{place}: {part} cannot be sent in the dialect {dialect}")]
    UnsupportedPart {
        /// Where: `turn 3`.
        place: String,
        /// What: `an image`.
        part: &'static str,
        /// The dialect.
        dialect: &'static str,
    },
    /// Two tools that the model could not tell apart.
    #[error("the tools `{first}` and `{second}` are both `{wire}` for a model")]
    NameCollision {
        /// One name.
        first: String,
        /// The other.
        second: String,
        /// The name that models read.
        wire: String,
    },
    /// A tool whose name is too long for models.
    #[error("the tool `{name}` has a name of more than {TOOL_NAME_BYTES_MAX} bytes for a model")]
    NameTooLong {
        /// The name.
        name: String,
    },
    /// A tool that must be asked for and is not offered.
    #[error("the tool `{name}` must be asked for and is not offered")]
    ChoiceUnknown {
        /// The name.
        name: String,
    },
    /// A schema that is no JSON object, or none that can be written.
    #[error("the tool `{name}` has no usable schema: {what}")]
    Schema {
        /// The tool.
        name: String,
        /// Why not.
        what: String,
    },
    /// A temperature that is no decimal number.
    #[error("the temperature `{text}` is no decimal number from 0 to 2")]
    Temperature {
        /// What stands there.
        text: String,
    },
    /// Turns in an order that no conversation has.
    #[error("turn {index}: {what}")]
    Turns {
        /// Which turn, from 0.
        index: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// More of something than a request may have.
    #[error("the request has {count} {what}, more than {most}")]
    TooLarge {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// The bound.
        most: usize,
    },
}

impl RequestError {
    /// Its name in an outcome.
    pub fn symbol(&self) -> &'static str {
        match self {
            RequestError::UnsupportedPart { .. } => "UNSUPPORTED_PART",
            RequestError::NameCollision { .. }
            | RequestError::NameTooLong { .. }
            | RequestError::ChoiceUnknown { .. }
            | RequestError::Schema { .. }
            | RequestError::Temperature { .. }
            | RequestError::Turns { .. }
            | RequestError::TooLarge { .. } => "BAD_REQUEST",
        }
    }
}

/// The names of tools here and for models, both ways.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolNames(BTreeMap<String, String>);

impl ToolNames {
    /// Gives each tool the name that models read: `.` becomes `__`.
    ///
    /// # Errors
    /// [`RequestError::NameCollision`] and [`RequestError::NameTooLong`].
    pub fn of<'n>(names: impl IntoIterator<Item = &'n str>) -> Result<ToolNames, RequestError> {
        let mut known: BTreeMap<String, String> = BTreeMap::new();
        for name in names {
            let wire = name.replace('.', "__");
            if wire.len() > TOOL_NAME_BYTES_MAX {
                return Err(RequestError::NameTooLong { name: name.to_owned() });
            }
            if let Some(first) = known.insert(wire.clone(), name.to_owned()) {
                return Err(RequestError::NameCollision { first, second: name.to_owned(), wire });
            }
        }
        Ok(ToolNames(known))
    }

    /// The tool that a model means.
    pub fn name(&self, wire: &str) -> Option<&str> {
        self.0.get(wire).map(String::as_str)
    }

    /// What models read, and the name here; in the order of the former.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(wire, name)| (wire.as_str(), name.as_str()))
    }
}

/// A name as every server takes it: `.` as `__`, whatever else no name has as `_`, and no longer than it may be. A
/// model that invents a name gets it back in this form, because the server would refuse the whole conversation.
pub fn wire_name(name: &str) -> String {
    let fine = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' };
    let mut wire: String = name.replace('.', "__").chars().map(fine).take(TOOL_NAME_BYTES_MAX).collect();
    if wire.is_empty() {
        wire.push('_');
    }
    wire
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dot_becomes_two_underscores_and_back() {
        let names = ToolNames::of(["code.python", "file-reader"]).expect("no collision");
        assert_eq!(names.name("code__python"), Some("code.python"));
        assert_eq!(names.name("file-reader"), Some("file-reader"));
        assert_eq!(names.name("code.python"), None, "a model reads the other name");
        assert_eq!(
            names.pairs().collect::<Vec<_>>(),
            [("code__python", "code.python"), ("file-reader", "file-reader")]
        );
    }

    #[test]
    fn two_tools_with_one_name_are_an_error() {
        let error = ToolNames::of(["a.b", "a__b"]).expect_err("a collision");
        assert_eq!(error.to_string(), "the tools `a.b` and `a__b` are both `a__b` for a model");
        assert!(matches!(ToolNames::of(["a", "a"]), Err(RequestError::NameCollision { .. })));
        let long = format!("{}.{}", "a".repeat(32), "b".repeat(31));
        assert!(matches!(ToolNames::of([long.as_str()]), Err(RequestError::NameTooLong { .. })));
        assert!(ToolNames::of([&long[..63]]).is_ok(), "64 bytes with the dot twice");
    }

    #[test]
    fn an_invented_name_goes_back_in_a_form_that_every_server_takes() {
        assert_eq!(wire_name("code.python"), "code__python");
        assert_eq!(wire_name("rm -rf/ü"), "rm_-rf__");
        assert_eq!(wire_name(""), "_");
        assert_eq!(wire_name(&"x".repeat(80)).len(), TOOL_NAME_BYTES_MAX);
    }
}
