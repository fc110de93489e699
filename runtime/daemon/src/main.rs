//! `toka`: one binary for every verb.
#![forbid(unsafe_code)]

mod cli;
mod demo;

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let name = args.next().map(PathBuf::from).unwrap_or_default();
    // Before anything opens a file or starts a thread: the launcher has to be alone in its process.
    if name.file_name().is_some_and(|name| name == "toka-jail") {
        toka_jail::enter(args);
    }
    ExitCode::from(cli::run(std::iter::once(name.into_os_string()).chain(args).collect()))
}
