//! `toka calls`: what an operator says of calls.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use toka_kernel::ids::CallId;
use toka_runtime::clock::{GuardedClock, SystemClock};
use toka_runtime::engine::Parts;
use toka_runtime::random::OsRandom;
use toka_runtime::session::Session;

use super::failure::{Failure, exit};
use super::init::open_home;
use super::run::{clock_fault, epoch, failed, writer};

#[derive(Debug, Args)]
pub(crate) struct Calls {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Say what came of a call that must not run twice and whose outcome a crash has hidden
    Resolve {
        /// The session id, or as much of it as is unique
        session: String,
        /// The whole id of the call
        call: String,
        /// What came of it
        verdict: Verdict,
        /// How it was found out; kept in the log
        #[arg(long, value_name = "TEXT")]
        evidence: Option<String>,
        /// One JSON document on stdout
        #[arg(long)]
        json: bool,
    },
}

/// What came of a call.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Verdict {
    /// It was done: its step counts as succeeded, without a result
    Done,
    /// It was not done: its step counts as failed
    NotDone,
    /// Nobody will find out: its step counts as failed
    Abandon,
}

pub(crate) fn run(calls: &Calls, home: Option<PathBuf>) -> Result<u8, Failure> {
    let Verb::Resolve { session, call, verdict, evidence, json } = &calls.verb;
    let home = open_home(home)?;
    let clock = GuardedClock::new(Arc::new(SystemClock));
    let now_us = clock.now_us().map_err(clock_fault)?;
    let call = CallId::from_hex(call)
        .ok_or_else(|| Failure::new(exit::USAGE, format!("`{call}` is no id of a call")).hint("it has 64 digits"))?;
    let log = writer(&home)?;
    let session = super::find(log.as_ref(), session)?;
    let key = home.event_key_of(epoch(log.as_ref(), session)?, now_us)?;
    let parts = Parts { log, key, clock, random: Box::new(OsRandom) };
    let number = match verdict {
        Verdict::Done => 1,
        Verdict::NotDone => 2,
        Verdict::Abandon => 3,
    };
    let evidence = evidence.as_ref().map(|text| text.clone().into_bytes());
    Session::resolve(parts, session, home.root().key(), call, number, evidence).map_err(failed)?;
    let mut out = std::io::stdout().lock();
    if *json {
        let document = json!({
            "schema": "toka/resolve/1", "session": session.to_string(), "call": call.to_string(), "verdict": number,
        });
        writeln!(out, "{document}")?;
    } else {
        writeln!(out, "{}  next: toka run --resume {}", call.short(), session.short())?;
    }
    Ok(exit::OK)
}
