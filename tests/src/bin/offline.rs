//! Runs a program that is killed as soon as it, or anything that it starts, makes an internet socket.
#![forbid(unsafe_code)]

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// AF_INET and AF_INET6 of socket(2).
const INTERNET: [u64; 2] = [2, 10];

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let Some(program) = args.next() else {
        eprintln!("offline PROGRAM [ARGUMENT...]");
        return ExitCode::from(2);
    };
    if let Err(error) = forbid() {
        eprintln!("no filter: {error}");
        return ExitCode::FAILURE;
    }
    let error = Command::new(program).args(args).exec();
    eprintln!("it does not start: {error}");
    ExitCode::FAILURE
}

fn forbid() -> Result<(), Box<dyn std::error::Error>> {
    let of = |family| {
        let condition = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, family)?;
        SeccompRule::new(vec![condition])
    };
    let rules = INTERNET.into_iter().map(of).collect::<Result<Vec<_>, _>>()?;
    let rules = [(libc::SYS_socket, rules)].into_iter().collect();
    let arch = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::KillProcess, arch)?;
    let program: BpfProgram = filter.try_into()?;
    Ok(seccompiler::apply_filter(&program)?)
}
