//! The rules of Toka.
#![forbid(unsafe_code)]

pub mod denial;
pub mod entry;
pub mod facts;
pub mod hash;
pub mod ids;
pub mod limits;
pub mod tool;
