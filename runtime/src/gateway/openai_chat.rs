//! The dialect of OpenAI Chat Completions, which local servers speak as well: requests to bytes, bytes to parts.
//!
//! Pure: the same request is the same bytes. What never changes within a conversation stands first and the messages
//! last, so that the body of one turn begins as the body of the turn before.

mod decode;
mod encode;
mod envelope;

pub use decode::{Stream, Wrong, complaint, decode};
pub use encode::encode;

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
