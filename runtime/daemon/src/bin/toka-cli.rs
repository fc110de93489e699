//! `toka-cli`: `toka` by the name that scripts know.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    toka::run(std::env::args_os())
}
