//! What tools are and the tools that are built in.
//!
//! - [`ToolSpec`](toka_kernel::tool::ToolSpec) (a kernel type) says what a tool is; [`prepare`] turns the text of
//!   somebody's arguments into the canonical bytes and facts that a call carries, or into one error with a place;
//! - [`NativeTool`] is a tool that runs inside the node; [`registry`] lists them;
//! - [`Handed`] is a directory that was opened for one call: all that a tool can reach.
//!
//! This crate never starts a process, never reads a clock, the environment or the network, and never opens a path
//! it was not handed: a native tool gets an open directory and the names below it, and the kernel of the operating
//! system keeps every opening beneath that directory. It decides nothing about authority: whoever calls a tool has
//! an admitted call, and hands over what that call was granted.
#![forbid(unsafe_code)]

mod confine;
pub mod files;
mod json;
mod native;
mod params;

pub use confine::{Granted, Handed, Ops, open_root};
pub use json::{JsonError, JsonFault, TEXT_BYTES_MAX, canonical, canonicalise};
pub use native::file_lister::FileLister;
pub use native::file_reader::FileReader;
pub use native::file_writer::FileWriter;
pub use native::{Cancel, Dirs, NativeTool, Request, ToolFailure, by_name, registry};
pub use params::{ArgumentError, Prepared, Rule, check, prepare};
