//! The tree keeps its own rules. Each rule is a test whose failure says what to do.

mod crates;
mod places;
pub(crate) mod tree;
mod words;
