//! The commit loop, executors and agents.
#![forbid(unsafe_code)]

pub mod agents;
pub mod clock;
pub mod engine;
pub mod executor;
pub mod random;
pub mod session;
mod transcripts;
//! The runtime of a node: its home folder, its clock, its randomness.
//!
//! - [`Home`] holds a node's keys, the place of its store and what it knows of its sessions beside the evidence.
//! - [`clock::GuardedClock`] tells the time of the next entry, or why it must not be told.
//! - [`random::Random`] is where randomness comes from.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod clock;
pub mod home;
pub mod keyfile;
pub mod random;

pub use home::{Home, HomeError, InitOptions, InitReport};
