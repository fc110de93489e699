//! The integration tests of Toka: one binary, a module per concern.

mod kernel;
mod stores;
