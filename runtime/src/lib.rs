//! The commit loop, executors and agents.
#![forbid(unsafe_code)]

pub mod agents;
pub mod clock;
pub mod engine;
pub mod executor;
pub mod random;
pub mod session;
mod transcripts;
