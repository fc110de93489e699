//! `toka-replay`: the auditor's program.
#![forbid(unsafe_code)]

use std::io::{self, IsTerminal};
use std::process::ExitCode;

fn main() -> ExitCode {
    let (mut out, mut err) = (io::BufWriter::new(io::stdout().lock()), io::stderr());
    let progress = io::stderr().is_terminal();
    ExitCode::from(toka_replay::cli::run(std::env::args_os(), &mut out, &mut err, progress))
}
