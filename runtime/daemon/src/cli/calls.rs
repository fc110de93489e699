//! `toka calls`: what an operator says of calls.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use toka_kernel::ids::CallId;
use toka_kernel::{Body, Entry};
use toka_projections::outcome_word;
use toka_runtime::Home;
use toka_runtime::clock::{GuardedClock, SystemClock};
use toka_runtime::engine::Parts;
use toka_runtime::random::OsRandom;
use toka_runtime::sandbox::without_content;
use toka_runtime::session::Session;
use toka_store::{ReadLog, SqliteReader};

use super::call::{artifacts, blob, parsed, printable};
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
    /// Show how a call ended and what is kept of it
    Show {
        /// The session id, or as much of it as is unique
        session: String,
        /// The id of the call, or as much of it as is unique
        call: String,
        /// Write the files that the call keeps below this folder
        #[arg(long, value_name = "DIR")]
        artifacts: Option<PathBuf>,
        /// One JSON document on stdout
        #[arg(long)]
        json: bool,
    },
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Verdict {
    /// It was done: its step counts as succeeded, without a result
    Done,
    /// It was not done: its step counts as failed
    NotDone,
    /// Nobody will find out: its step counts as failed
    Abandon,
}

impl Verdict {
    const ALL: [Verdict; 3] = [Verdict::Done, Verdict::NotDone, Verdict::Abandon];

    /// Its number of `docs/FORMAT.md`.
    fn number(self) -> u8 {
        match self {
            Verdict::Done => 1,
            Verdict::NotDone => 2,
            Verdict::Abandon => 3,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Verdict::Done => "done",
            Verdict::NotDone => "not-done",
            Verdict::Abandon => "abandon",
        }
    }
}

/// What somebody said of a call whose outcome was unknown.
struct Resolved {
    seq: u64,
    word: &'static str,
    evidence: Option<String>,
}

pub(crate) fn run(calls: &Calls, home: Option<PathBuf>) -> Result<u8, Failure> {
    let home = open_home(home)?;
    match &calls.verb {
        Verb::Show { session, call, artifacts, json } => show(&home, session, call, artifacts.as_deref(), *json),
        Verb::Resolve { session, call, verdict, evidence, json } => {
            resolve(&home, session, call, *verdict, evidence.as_ref(), *json)
        }
    }
}

fn show(home: &Home, session: &str, call: &str, dir: Option<&Path>, as_json: bool) -> Result<u8, Failure> {
    let store =
        SqliteReader::open(home.store_path()).map_err(|error| Failure::new(exit::UNREADABLE, error.to_string()))?;
    let session = super::find(&store, session)?;
    let mut found = Vec::new();
    let mut resolved: BTreeMap<CallId, Resolved> = BTreeMap::new();
    for row in store.read(session, 0) {
        let entry = Entry::read(&row?.bytes).map_err(|fault| Failure::new(exit::UNREADABLE, fault.to_string()))?;
        let Ok(event) = entry.event() else { continue };
        if let Body::CallFinished(finished) = &event.body
            && finished.call.to_string().starts_with(call)
        {
            found.push((event.clone(), (**finished).clone()));
        }
        if let Body::OutcomeResolved(said) = &event.body {
            let evidence = blob(&store, session, event, said.evidence)?;
            let word = Verdict::ALL.into_iter().find(|verdict| verdict.number() == said.verdict);
            let said_now = Resolved {
                seq: entry.header().seq,
                word: word.map_or("?", Verdict::word),
                evidence: evidence.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
            };
            resolved.insert(said.call, said_now);
        }
    }
    let (event, finished) = match found.len() {
        1 => found.remove(0),
        0 => return Err(Failure::new(exit::USAGE, format!("no call that has ended begins with `{call}`"))),
        count => {
            let what = format!("{count} calls begin with `{call}`");
            return Err(Failure::new(exit::USAGE, what).hint("write more of the id"));
        }
    };
    let read = |index: Option<u16>| blob(&store, session, &event, index);
    let (result, record) = (parsed(read(finished.result)?), parsed(read(finished.record)?));
    let word = outcome_word(&finished.outcome);
    let streams = [("stdout", read(finished.stdout)?), ("stderr", read(finished.stderr)?)];
    let resolved = resolved.get(&finished.call);
    let mut out = std::io::stdout().lock();
    if as_json {
        let text = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let document = json!({
            "schema": "toka/call/1", "session": session.to_string(), "call": finished.call.to_string(),
            "outcome": word, "number": finished.outcome.number, "result": result,
            "record": record.clone().map(without_content), "stdout": text(&streams[0].1), "stderr": text(&streams[1].1),
            "resolved": resolved.map(|said| json!({ "seq": said.seq, "verdict": said.word, "evidence": said.evidence })),
        });
        writeln!(out, "{document}")?;
        // What came of the call is said, whatever becomes of its files.
        return artifacts(record.as_ref(), dir, true).map(|()| exit::OK);
    }
    writeln!(out, "{}  {word}", finished.call.short())?;
    if let Some(said) = resolved {
        writeln!(out, "resolved: {} (seq {})", said.word, said.seq)?;
        if let Some(evidence) = &said.evidence {
            writeln!(out, "evidence: {}", printable(evidence.as_bytes()).trim_end())?;
        }
    }
    if let Some(result) = &result {
        writeln!(out, "result: {result:#}")?;
    }
    for (name, bytes) in &streams {
        if let Some(bytes) = bytes {
            writeln!(out, "{name}:\n{}", printable(bytes).trim_end())?;
        }
    }
    artifacts(record.as_ref(), dir, false).map(|()| exit::OK)
}

fn resolve(
    home: &Home,
    session: &str,
    call: &str,
    verdict: Verdict,
    evidence: Option<&String>,
    as_json: bool,
) -> Result<u8, Failure> {
    let clock = GuardedClock::new(Arc::new(SystemClock));
    let now_us = clock.now_us().map_err(clock_fault)?;
    let call = CallId::from_hex(call)
        .ok_or_else(|| Failure::new(exit::USAGE, format!("`{call}` is no id of a call")).hint("it has 64 digits"))?;
    let log = writer(home)?;
    let session = super::find(log.as_ref(), session)?;
    let key = home.event_key_of(epoch(log.as_ref(), session)?, now_us)?;
    let parts = Parts { log, key, clock, random: Box::new(OsRandom) };
    let number = verdict.number();
    let evidence = evidence.map(|text| text.clone().into_bytes());
    Session::resolve(parts, session, home.root().key(), call, number, evidence).map_err(failed)?;
    let mut out = std::io::stdout().lock();
    if as_json {
        let document = json!({
            "schema": "toka/resolve/1", "session": session.to_string(), "call": call.to_string(), "verdict": number,
        });
        writeln!(out, "{document}")?;
    } else {
        writeln!(out, "{}  next: toka run --resume {}", call.short(), session.short())?;
    }
    Ok(exit::OK)
}
