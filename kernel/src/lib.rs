//! The rules of Toka: ids, capabilities, commands, events, and the pure reducer over a signed, hash-chained log.
//!
//! Four verbs do the whole work:
//!
//! - [`State::decide`] turns a command into exactly one [`Event`]; a refusal is an event.
//! - [`Entry::seal`] signs that event into the session's chain.
//! - [`Head::accept`] checks link and signature of an entry someone else sealed.
//! - [`State::apply`] decides the entry's command again, compares, and moves the [`State`] on.
//!
//! The kernel refuses to read a clock, the environment, a file, a socket or a source of randomness, to wait, and to
//! panic on input. Whatever it needs to know comes in as an argument and stands in the log.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod admitted;
mod apply;
mod asking;
pub mod body;
pub mod budget;
pub mod capability;
pub mod chain;
pub mod command;
mod decide;
pub mod denial;
pub mod entry;
pub mod event;
pub mod facts;
pub mod hash;
pub mod ids;
pub mod keys;
pub mod limits;
pub mod signed;
mod state;
pub mod tool;

pub use admitted::{AdmittedCall, Need};
pub use apply::{Effect, Effects, Illegal};
pub use command::{Ask, Command};
pub use decide::genesis::{CLASS_SYSTEM, CLASS_WORK, Genesis, RULES};
pub use decide::is_recordable;
pub use denial::{Code, Denial, Dim};
pub use entry::{BlobRef, Broken, Entry, EntryRef, Head, Header, Stamp};
pub use event::{Body, Event};
pub use keys::{EventKey, Keyring};
pub use signed::Signed;
pub use state::{AgentState, PrincipalKind, State, TaskState, ToolState};
