//! The commit loop, executors and agents.
#![forbid(unsafe_code)]

pub mod agents;
