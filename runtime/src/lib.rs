//! The runtime of a node: the one write path, executors, agents, and the home folder with its keys.
//!
//! - [`engine::Engine`] is the writer of one session: decide → seal → apply on the pending tail, flush, and only then
//!   publish and let effects go.
//! - [`session::Session`] runs an agent from its genesis to its end, and goes on with one that was interrupted.
//! - [`system::System`] is the node's own session: the tools it knows, approved by its operator.
//! - [`sandbox`] supervises foreign programs, each in a jail of its own.
//! - [`Home`] holds a node's keys, the place of its store and what it knows of its sessions beside the evidence.
//!
//! It never runs what was not admitted, and nothing is visible before it is durable.
#![forbid(unsafe_code)]

pub mod agents;
pub mod clock;
pub mod engine;
pub mod exchanges;
pub mod executor;
pub mod gateway;
mod genesis;
pub mod home;
pub mod keyfile;
pub mod orchestration;
pub mod random;
pub mod sandbox;
pub mod session;
pub mod system;
mod transcripts;

pub use home::{Home, HomeError, InitOptions, InitReport};
