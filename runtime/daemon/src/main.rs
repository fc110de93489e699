//! `toka`: one binary for every verb.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    toka::run(std::env::args_os())
}
