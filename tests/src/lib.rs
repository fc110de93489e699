//! What the integration tests in `it/` and the benches share: a session that is driven by hand.

pub mod session;
