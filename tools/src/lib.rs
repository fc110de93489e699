//! What tools are and the tools that are built in.
//!
//! - [`ToolSpec`](toka_kernel::tool::ToolSpec) (a kernel type) says what a tool is; [`prepare`] turns the text of
//!   somebody's arguments into the canonical bytes and facts that a call carries, or into one error with a place;
//! - [`Manifest`] is a file that becomes such a spec, with the program behind it; [`discover`] finds them, [`SHIPPED`]
//!   holds those that come with Toka;
//! - [`invocation`] says how admitted arguments reach a foreign program: command line, environment, standard input;
//! - [`code_tools`] are foreign programs that come with the call;
//! - [`NativeTool`] is a tool that runs inside the node; [`registry`] lists them;
//! - [`Handed`] is a directory that was opened for one call: all that a tool can reach.
//!
//! This crate never starts a process, never reads a clock, the environment or the network, and never opens a path
//! it was not handed: a native tool gets an open directory and the names below it, and the kernel of the operating
//! system keeps every opening beneath that directory. It decides nothing about authority: whoever calls a tool has
//! an admitted call, and hands over what that call was granted.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod code;
mod confine;
mod discovery;
pub mod files;
mod invocation;
mod json;
mod manifest;
mod native;
mod params;
mod program;
mod schema;
mod shipped;

pub use code::{CODE_PREFIX, SourceFault, WASM_BYTES_MAX, WasmFault, check_wasm, code_tools, code_types, source_of};
pub use confine::{Granted, Handed, Ops, open_root};
pub use discovery::{DISCOVERY_DEPTH_MAX, DISCOVERY_ENTRIES_MAX, Discovery, MANIFEST_SUFFIX, discover, load};
pub use invocation::{COMMAND_LINE_BYTES_MAX, CallNames, Invocation, PARAMS_FILE, invocation, invocation_below};
pub use json::{JsonError, JsonFault, TEXT_BYTES_MAX, canonical, canonicalise};
pub use manifest::{ARTIFACTS_BYTES_MAX, MANIFEST_BYTES_MAX, Manifest};
pub use native::file_lister::FileLister;
pub use native::file_reader::FileReader;
pub use native::file_writer::FileWriter;
pub use native::{Cancel, Dirs, NativeTool, Request, ToolFailure, by_name, registry};
pub use params::{ArgumentError, Prepared, Rule, check, check_members, prepare};
pub use program::{
    Folders, PROGRAM_BYTES_MAX, PROGRAM_FILE_BYTES_MAX, ProgramFault, ProgramFile, ProgramSource, open_folder,
    pin_text, program_digest, read_program,
};
pub use schema::{input_schema, schema_of};
pub use shipped::{SHIPPED, Shipped};
