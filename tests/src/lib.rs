//! What the integration tests in `it/` and the benches share.

pub mod programs;
pub mod session;
