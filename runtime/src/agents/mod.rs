//! Agents: the file that describes one, the spec that the log keeps, and the driver that says what it does next.
//!
//! [`AgentSpec`] is what a file becomes, [`Transcript`] is what the log says about a running agent, and [`Driver`]
//! turns both into the next commands. Nothing here commits, runs or decides anything, and capabilities in a file are
//! requests that the kernel will judge.

mod driver;
pub mod limits;
mod resolve;
pub mod script;
mod spec;
mod transcript;

pub use driver::{Ask, DRIVER_VERSION, Driver, Next, Why, command_id};
pub use spec::{Agent, AgentSpec, Budget, OnExceed, OnFailure, Priority, SpecError, Then};
pub use transcript::{EndCode, Ended, Record, Transcript};
