//! Agents: the file that describes one, the spec that the log keeps, and the driver that says what it does next.
//!
//! [`AgentSet`] reads files, [`AgentSpec`] is what they become, [`Transcript`] is what the log says about a running
//! agent, and [`Driver`] turns the last two into the next commands. Nothing here commits, runs or decides anything,
//! and capabilities in a file are requests that the kernel will judge.

mod ask;
mod driver;
mod file;
pub mod limits;
mod model;
mod model_driver;
mod print;
mod resolve;
pub mod script;
mod script_driver;
mod set;
mod spec;
mod steps;
mod transcript;
mod values;

pub use ask::{Addressee, Ask, Control, DRIVER_VERSION, Next, Unfit, Why, command_id};
pub use driver::Driver;
pub use model::{Completion, LoopLimits, ModelProgram, Spawnable};
pub use model_driver::{CONTROLS, is_control};
pub use set::AgentSet;
pub use spec::{Agent, AgentSpec, Budget, Dependencies, OnExceed, OnFailure, Priority, SpecError, Then};
pub use toka_tools::files::{FileCode, FileError};
pub use transcript::{EndCode, Ended, Offer, Record, Transcript, Unread};
