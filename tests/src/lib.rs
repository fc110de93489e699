//! What the integration tests in `it/` and the benches share.
#![forbid(unsafe_code)]

pub mod programs;
pub mod session;
