//! Verify and read a Toka log, offline, from a store or a bundle. Everything here only reads.
//!
//! - [`Input`] is a store or a bundle, opened for reading.
//! - [`verify()`] decides from its bytes and a root key whether it is what was written, and gives a [`Report`]: an answer
//!   on every axis, and each fault at its place. [`Report::exit`] is the exit code.
//! - [`show()`] prints entries as they are stored. It verifies nothing and says so.
//! - [`explain`] says what each code means. `state`, `why`, `diff` and `stats` tell what a log says; they check and decide
//!   again every entry that they read, and stop with what `verify` finds where one does not stand.
//! - [`cli::run`] is the program `toka-replay`, and what `toka replay` calls.
//!
//! What this crate refuses to do: it writes to no log, opens no socket, starts no program, trusts no key that the
//! input brings along, and panics on no input. What it says is *tamper-evident*: it finds what was changed, it cannot
//! say that nothing was left out where nobody outside has seen the head.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod cli;
pub mod code;
mod diff;
pub mod explain;
mod input;
mod json;
mod names;
mod print;
pub mod report;
mod root;
mod show;
mod shown;
mod state;
mod stats;
pub mod text;
mod trail;
mod verify;
mod why;

pub use input::{Input, Unreadable};
pub use json::write_report;
pub use print::print_report;
pub use report::Report;
pub use root::{RootError, parse_root, root_beside};
pub use show::{Filter, Form, ShowError, show};
pub use shown::Shown;
pub use verify::{Options, SelfTestFailed, report_unreadable, verify};
