//! The rules of Toka.
#![forbid(unsafe_code)]

pub mod denial;
pub mod facts;
pub mod hash;
pub mod ids;
pub mod limits;
