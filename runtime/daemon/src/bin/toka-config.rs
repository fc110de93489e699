//! `toka-config`: not built in this version, and says so.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    toka::not_built("toka-config")
}
