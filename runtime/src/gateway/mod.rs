//! The model gateway: how an admitted model call reaches a model and comes back as parts.
//!
//! - [`Request`] is what an agent asks of a model. [`openai_chat::encode`] makes the exact bytes of it, and that is all
//!   that is ever sent; what a dialect cannot say is refused there, before any byte leaves.
//! - [`Provider`] takes these bytes as a [`Wire`] and answers with a [`Reply`] or a [`Failure`]. [`http::HttpProvider`]
//!   speaks to a server, [`recorded::Recorded`] answers from what was recorded and can open no socket.
//! - [`scripted`] is a model that follows a script, behind a real server on the loopback interface.
//! - [`pieces`] cuts a body so that a conversation that grows is kept once.
//!
//! Everything here is synchronous: a call occupies its thread until it ends, and the async client lives and dies inside
//! that call. No decision reads a clock: [`Run`] hands in the time, the wait and the deadline, and [`retry::next`] is a
//! pure function of them. Nothing here admits a call, commits an entry or knows an executor.

mod answer;
pub mod config;
pub mod http;
pub mod key;
pub mod openai_chat;
pub mod pieces;
pub mod recorded;
pub mod redact;
pub mod request;
pub mod retry;
pub mod scripted;
pub mod server;
pub mod sse;
#[cfg(test)]
mod tests;
mod time;

use std::fmt;
use std::ops::ControlFlow;

use toka_kernel::ids::TimeUs;
use toka_tools::Cancel;

use crate::clock::Clock;

pub use answer::Answer;
pub use config::{Deadlines, ProviderConfig};
pub use request::{Choice, Input, Request, RequestError, Tool, ToolCall, ToolNames, Turn};
pub use retry::Cause;
pub use time::{RealTime, Wait};

/// Something that answers model calls.
pub trait Provider: fmt::Debug + Send + Sync {
    /// Asks, and waits for the end of the answer. Attempts that are followed by another are told to
    /// [`Run::attempted`]; the one that ends the call is the return value.
    ///
    /// # Errors
    /// [`Failure`]: how the call ended, never a fault of this program.
    fn call(&self, wire: &Wire, run: &mut Run<'_>) -> Result<Reply, Failure>;
}

/// A request as it is sent, and which one it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wire {
    /// Whose conversation it belongs to: the name of the agent.
    pub lane: String,
    /// Which request of the lane it is, from 0. It stays the same when a call is made again.
    pub ordinal: u64,
    /// The body, byte for byte.
    pub body: Vec<u8>,
}

/// What surrounds one call: everything that is not the request.
pub struct Run<'r> {
    /// The time, by which deadlines and instants are measured.
    pub clock: &'r dyn Clock,
    /// How to let time pass between attempts.
    pub wait: &'r dyn Wait,
    /// Whether the call is to end early.
    pub stop: &'r dyn Cancel,
    /// When the call must be over, in µs.
    pub deadline_us: TimeUs,
    /// What the jitter of waits is drawn from: a value of this call alone, such as its id.
    pub seed: [u8; 32],
    /// Told of each attempt that is followed by another, before the wait for that. `Break` ends the call.
    pub attempted: &'r mut dyn FnMut(Attempt) -> ControlFlow<()>,
}

impl fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("deadline_us", &self.deadline_us).finish_non_exhaustive()
    }
}

/// An attempt that failed and is followed by another: what a `CallAttempted` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Which it was in this run, from 1.
    pub attempt: u16,
    /// Why it failed.
    pub cause: Cause,
    /// The HTTP status; 0 when there was none.
    pub status: u16,
    /// When the next one begins, at the earliest, in µs.
    pub not_before_us: TimeUs,
    /// What it took, where the server said so.
    pub usage: Option<Usage>,
    /// What came of the body, without secrets.
    pub part: Vec<u8>,
    /// What happened, for people, without secrets.
    pub detail: String,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What the model said, in order.
    pub parts: Vec<Part>,
    /// Why it stopped.
    pub stop: Stop,
    /// What it took, where the server said so.
    pub usage: Option<Usage>,
    /// The model, as the server names it.
    pub model: Option<String>,
    /// The HTTP status.
    pub status: u16,
    /// The body as it came, without secrets: what is recorded.
    pub raw: Raw,
    /// How many attempts it took.
    pub attempts: u16,
    /// How long the last attempt waited for its first byte, in µs: an observation that decides nothing.
    pub first_byte_us: u64,
}

impl Reply {
    /// What it says, without how it came.
    pub fn answer(&self) -> Answer {
        let (parts, stop) = (self.parts.clone(), self.stop.clone());
        Answer { parts, stop, usage: self.usage, model: self.model.clone() }
    }

    /// The text of the answer, its parts joined.
    pub fn text(&self) -> String {
        let text = |part: &Part| match part {
            Part::Text(text) => Some(text.clone()),
            Part::Reasoning(_) | Part::Refusal(_) | Part::Call(_) => None,
        };
        self.parts.iter().filter_map(text).collect()
    }

    /// The tools it asks for, in order.
    pub fn calls(&self) -> impl Iterator<Item = &ToolCall> {
        self.parts.iter().filter_map(|part| match part {
            Part::Call(call) => Some(call),
            Part::Text(_) | Part::Reasoning(_) | Part::Refusal(_) => None,
        })
    }
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text.
    Text(String),
    /// What the model says it thought. It goes to nobody.
    Reasoning(String),
    /// Why the model declines.
    Refusal(String),
    /// A tool that is to be called.
    Call(ToolCall),
}

/// Why a model stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It was done.
    End,
    /// It waits for the results of tools.
    Tools,
    /// It had no tokens left: its last part may be half of one.
    Length,
    /// It declines, or its server does.
    Refused,
    /// A word that is known to nobody here.
    Other(String),
}

/// What a call took, as its server counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens in.
    pub tokens_in: u64,
    /// Of these from a cache.
    pub tokens_cached: u64,
    /// Tokens out.
    pub tokens_out: u64,
}

impl RawKind {
    /// The word that records use for it.
    pub fn name(self) -> &'static str {
        match self {
            RawKind::Events => "events",
            RawKind::Whole => "whole",
            RawKind::Withheld => "withheld",
        }
    }

    /// The kind that a record means.
    pub fn of_name(name: &str) -> Option<RawKind> {
        [RawKind::Events, RawKind::Whole, RawKind::Withheld].into_iter().find(|kind| kind.name() == name)
    }
}

/// A body as it came, without secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw {
    /// How it is to be read.
    pub kind: RawKind,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// How a body is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawKind {
    /// A stream of server-sent events.
    Events,
    /// One JSON document.
    Whole,
    /// A note that stands for a body which held a secret in pieces; there is nothing to read.
    Withheld,
}

/// How a call ended that has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", fault.symbol())]
pub struct Failure {
    /// What went wrong.
    pub fault: Fault,
    /// The HTTP status of the last attempt; 0 when there was none.
    pub status: u16,
    /// What happened, for people, without secrets.
    pub detail: String,
    /// What came of the last body, without secrets.
    pub raw: Vec<u8>,
    /// What the last attempt took, where the server said so.
    pub usage: Option<Usage>,
    /// How many attempts were made.
    pub attempts: u16,
    /// Whether a byte of the request may have reached a server.
    pub reached: bool,
}

impl Failure {
    /// A failure before anything was sent.
    pub(crate) fn unsent(fault: Fault, detail: impl Into<String>) -> Failure {
        let detail = detail.into();
        Failure { fault, status: 0, detail, raw: Vec::new(), usage: None, attempts: 0, reached: false }
    }

    /// What an outcome says beside the symbol: the status, the instant in µs, which deadline or bound it was.
    pub fn number(&self) -> Option<i64> {
        match self.fault {
            Fault::HttpStatus => Some(i64::from(self.status)),
            Fault::RetryLater { at_us } => i64::try_from(at_us).ok(),
            Fault::Deadline(which) => Some(which as i64),
            Fault::StreamTooLarge(bound) => Some(bound as i64),
            Fault::BadReply
            | Fault::StreamCut
            | Fault::Upstream { .. }
            | Fault::Unreachable
            | Fault::RecordedMiss
            | Fault::ScriptMismatch
            | Fault::NoKey
            | Fault::Cancelled => None,
        }
    }
}

/// What went wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The body is not what the dialect promises.
    BadReply,
    /// The body ended before its end.
    StreamCut,
    /// The body is larger than anything that is read.
    StreamTooLarge(Bound),
    /// The server asks to be left alone for longer than this call may wait.
    RetryLater {
        /// Until when, in µs.
        at_us: TimeUs,
    },
    /// Nothing like this request was recorded.
    RecordedMiss,
    /// The script has no answer to this request.
    ScriptMismatch,
    /// The server answered with a status that is no success.
    HttpStatus,
    /// A deadline fired.
    Deadline(Which),
    /// The server says within its answer that it failed.
    Upstream {
        /// Whether it has too much to do.
        overloaded: bool,
    },
    /// No connection could be made.
    Unreachable,
    /// The key cannot be read.
    NoKey,
    /// The call was told to end.
    Cancelled,
}

impl Fault {
    /// Its name in an outcome.
    pub fn symbol(self) -> &'static str {
        match self {
            Fault::BadReply => "BAD_REPLY",
            Fault::StreamCut => "STREAM_CUT",
            Fault::StreamTooLarge(_) => "STREAM_TOO_LARGE",
            Fault::RetryLater { .. } => "RETRY_LATER",
            Fault::RecordedMiss => "RECORDED_MISS",
            Fault::ScriptMismatch => "SCRIPT_MISMATCH",
            Fault::HttpStatus => "HTTP_STATUS",
            Fault::Deadline(_) => "DEADLINE",
            Fault::Upstream { .. } => "UPSTREAM_ERROR",
            Fault::Unreachable => "UNREACHABLE",
            Fault::NoKey => "NO_KEY",
            Fault::Cancelled => "CANCELLED",
        }
    }
}

impl Fault {
    /// The fault that a recorded outcome names. What an outcome does not keep is the least that it can be.
    pub fn of_symbol(symbol: &str) -> Option<Fault> {
        let faults = [
            Fault::BadReply,
            Fault::StreamCut,
            Fault::StreamTooLarge(Bound::Stream),
            Fault::RetryLater { at_us: 0 },
            Fault::RecordedMiss,
            Fault::ScriptMismatch,
            Fault::HttpStatus,
            Fault::Deadline(Which::Total),
            Fault::Upstream { overloaded: false },
            Fault::Unreachable,
            Fault::NoKey,
            Fault::Cancelled,
        ];
        faults.into_iter().find(|fault| fault.symbol() == symbol)
    }
}

/// Which deadline fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Which {
    /// No connection in time.
    Connect = 1,
    /// No answer in time.
    FirstByte = 2,
    /// Too long a silence within an answer.
    Idle = 3,
    /// The call as a whole.
    Total = 4,
    /// No place among the calls that may run at once.
    Queue = 5,
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Which::Connect => "connect",
            Which::FirstByte => "first_byte",
            Which::Idle => "idle",
            Which::Total => "total",
            Which::Queue => "queue",
        })
    }
}

/// Which bound of a body was crossed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Bound {
    /// [`sse::LINE_BYTES_MAX`].
    Line = 1,
    /// [`sse::EVENT_BYTES_MAX`].
    Event = 2,
    /// [`sse::STREAM_BYTES_MAX`].
    Stream = 3,
    /// [`sse::EVENTS_MAX`].
    Events = 4,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::Line => write!(f, "a line of more than {} bytes", sse::LINE_BYTES_MAX),
            Bound::Event => write!(f, "an event of more than {} bytes", sse::EVENT_BYTES_MAX),
            Bound::Stream => write!(f, "more than {} bytes", sse::STREAM_BYTES_MAX),
            Bound::Events => write!(f, "more than {} events", sse::EVENTS_MAX),
        }
    }
}
