//! The program `toka` and its sisters: one program of many names.
//!
//! [`run`] is `toka` and `toka-cli`; called `toka-jail`, it becomes the launcher that it carries, and called `toka-wasm`,
//! it is the worker for guests. [`not_built`] is every name whose work this version does not do.
#![forbid(unsafe_code)]

mod cli;
mod demo;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// The program of the small launcher.
static LAUNCHER: &[u8] = include_bytes!(env!("TOKA_LAUNCHER"));

/// Does what the arguments ask, the name of the program first, and returns the exit code of docs/OPERATING.md. Called
/// as `toka-jail` or `toka-wasm`, it becomes the launcher or the worker and does not return.
pub fn run(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let name = args.next().map(PathBuf::from).unwrap_or_default();
    // Before anything opens a file or starts a thread: the launcher has to be alone in its process.
    if name.file_name().is_some_and(|name| name == "toka-jail") {
        toka_jail::enter_as(LAUNCHER, args);
    }
    #[cfg(feature = "wasm")]
    if name.file_name().is_some_and(|name| name == "toka-wasm") {
        toka_wasm::enter();
    }
    ExitCode::from(cli::run(std::iter::once(name.into_os_string()).chain(args).collect()))
}

/// Says that a program is not built in this version, and ends with 2.
pub fn not_built(program: &str) -> ExitCode {
    use std::io::Write;
    // Nobody reads on: the exit code says it too.
    let _ = writeln!(
        std::io::stderr(),
        "error: `{program}` is not built in this version\nhint: `toka --help` lists what is"
    );
    ExitCode::from(2)
}
