//! `stats`: how much of what a log holds.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use serde_json::{Map, Value, json};
use toka_kernel::body::kind_of;
use toka_kernel::ids::{CallId, Commitment, TimeUs, derived};
use toka_kernel::{Body, Code, Entry, Event};
use toka_projections::outcome_word;
use toka_store::ReadError;

use crate::input::Input;
use crate::json::write_line;
use crate::text::{count, escaped, time};
use crate::trail::{Stop, Trail, Vouched};

/// The format of `stats --json`.
pub(crate) const FORMAT: &str = "toka-stats/1";

/// What was counted in one session.
#[derive(Debug)]
pub(crate) struct Stats {
    vouched: Vouched,
    closed: bool,
    system: bool,
    bytes: u64,
    kinds: BTreeMap<u16, Kind>,
    blobs: Blobs,
    /// By tool, then by outcome.
    calls: BTreeMap<String, BTreeMap<String, u64>>,
    /// By code.
    refusals: BTreeMap<u16, u64>,
    agents: Agents,
    first_us: TimeUs,
    last_us: TimeUs,
}

#[derive(Debug, Default)]
struct Kind {
    entries: u64,
    bytes: u64,
}

/// Blobs, each once however often it is referred to.
#[derive(Debug, Default)]
struct Blobs {
    references: u64,
    known: BTreeSet<Commitment>,
    present: u64,
    bytes: u64,
}

#[derive(Debug, Default)]
struct Agents {
    spawned: u64,
    completed: u64,
    failed: u64,
    stopped: u64,
}

/// Why nothing was counted.
#[derive(Debug)]
pub(crate) enum NoStats {
    /// The log does not stand.
    Stop(Stop),
    /// A blob cannot be read.
    Read(ReadError),
}

impl Stats {
    /// Counts the session of `trail`, which stands before its genesis.
    ///
    /// # Errors
    /// [`NoStats`] where the log does not stand to its end, or cannot be read.
    pub(crate) fn of(mut trail: Trail<'_>, input: &Input) -> Result<Stats, NoStats> {
        let mut stats = Stats {
            vouched: trail.vouched(),
            closed: false,
            system: false,
            bytes: 0,
            kinds: BTreeMap::new(),
            blobs: Blobs::default(),
            calls: BTreeMap::new(),
            refusals: BTreeMap::new(),
            agents: Agents::default(),
            first_us: 0,
            last_us: 0,
        };
        // The tools of calls that have no outcome yet.
        let mut open: BTreeMap<CallId, String> = BTreeMap::new();
        while let Some(entry) = trail.step().map_err(NoStats::Stop)? {
            stats.count(&entry, input)?;
            if let Ok(event) = entry.event() {
                stats.count_event(&entry, event, &mut open);
            }
        }
        for tool in open.into_values() {
            stats.count_call(tool, "open".to_owned());
        }
        stats.vouched = trail.vouched();
        stats.closed = trail.state().is_closed();
        stats.system = trail.state().is_system();
        Ok(stats)
    }

    fn count(&mut self, entry: &Entry, input: &Input) -> Result<(), NoStats> {
        let (header, bytes) = (entry.header(), entry.bytes().len() as u64);
        if header.seq == 0 {
            self.first_us = header.time_us;
        }
        self.last_us = header.time_us;
        self.bytes += bytes;
        let kind = self.kinds.entry(header.kind).or_default();
        kind.entries += 1;
        kind.bytes += bytes;
        for blob in &header.blobs {
            self.blobs.references += 1;
            if self.blobs.known.insert(blob.commitment) {
                let len = input.log().blob_len(self.vouched.session, blob.commitment).map_err(NoStats::Read)?;
                self.blobs.present += u64::from(len.is_some());
                self.blobs.bytes += len.unwrap_or(0);
            }
        }
        Ok(())
    }

    fn count_event(&mut self, entry: &Entry, event: &Event, open: &mut BTreeMap<CallId, String>) {
        match &event.body {
            Body::CallAdmitted(admitted) => {
                let call = CallId(derived(entry.session(), entry.header().seq, 0));
                open.insert(call, admitted.tool.clone());
            }
            Body::CallFinished(finished) => {
                let tool = open.remove(&finished.call).unwrap_or_default();
                self.count_call(tool, outcome_word(&finished.outcome));
            }
            Body::Refused(refused, _) => *self.refusals.entry(refused.code).or_default() += 1,
            Body::AgentSpawned(_) => self.agents.spawned += 1,
            Body::AgentEnded(ended) => match ended.how {
                1 => self.agents.completed += 1,
                2 => self.agents.failed += 1,
                _ => self.agents.stopped += 1,
            },
            Body::SessionOpened(_)
            | Body::StateCommitted(_)
            | Body::SessionClosed(_)
            | Body::AgentStarted(_)
            | Body::AgentPaused(_)
            | Body::AgentResumed(_)
            | Body::AgentStopping(_)
            | Body::TaskScheduled(_)
            | Body::TaskStarted(_)
            | Body::TaskCompleted(_)
            | Body::TaskFailed(_)
            | Body::TaskSkipped(_)
            | Body::MessageSent(_)
            | Body::MessageTaken(_)
            | Body::GrantIssued(_)
            | Body::GrantRevoked(_)
            | Body::ToolBound(_)
            | Body::CallAttempted(_)
            | Body::CancelRequested(_)
            | Body::SessionRegistered(_)
            | Body::SessionEnded(_)
            | Body::ToolRegistered(_)
            | Body::ToolApproved(_)
            | Body::ToolQuarantined(_)
            | Body::ToolUnbound(_)
            | Body::OutcomeResolved(_)
            | Body::PrincipalAdded(_)
            | Body::Observed(_)
            | Body::SandboxProbed(_) => {}
        }
    }

    fn count_call(&mut self, tool: String, outcome: String) {
        *self.calls.entry(tool).or_default().entry(outcome).or_default() += 1;
    }

    fn json(&self) -> Value {
        let kinds = self.kinds.iter().map(|(number, kind)| {
            json!({ "kind": number, "name": kind_name(*number), "entries": kind.entries, "bytes": kind.bytes })
        });
        let numbers = |of: &BTreeMap<String, u64>| {
            Map::from_iter(of.iter().map(|(word, number)| (word.clone(), (*number).into())))
        };
        let calls = self.calls.iter().map(|(tool, outcomes)| json!({ "tool": tool, "outcomes": numbers(outcomes) }));
        let refusals = self.refusals.iter().map(|(code, number)| {
            json!({ "number": code, "code": Code::from_number(*code).map(Code::name), "refusals": number })
        });
        json!({
            "session": self.vouched.session.to_string(),
            "checked": self.vouched.json(),
            "class": if self.system { "system" } else { "work" },
            "status": if self.closed { "closed" } else { "open" },
            "entries": self.vouched.entries,
            "bytes": self.bytes,
            "first_us": self.first_us,
            "last_us": self.last_us,
            "kinds": kinds.collect::<Vec<_>>(),
            "blobs": { "commitments": self.blobs.known.len(), "references": self.blobs.references,
                "present": self.blobs.present, "bytes": self.blobs.bytes },
            "calls": calls.collect::<Vec<_>>(),
            "refusals": refusals.collect::<Vec<_>>(),
            "agents": { "spawned": self.agents.spawned, "completed": self.agents.completed,
                "failed": self.agents.failed, "stopped": self.agents.stopped },
        })
    }
}

/// Prints what was counted in each session, for people.
///
/// # Errors
/// When `out` cannot be written.
pub(crate) fn print(all: &[Stats], out: &mut dyn Write) -> io::Result<()> {
    for (index, stats) in all.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        print_one(stats, out)?;
    }
    Ok(())
}

fn print_one(stats: &Stats, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", stats.vouched.line())?;
    let class = if stats.system { "system session" } else { "session" };
    // What an open session says of its end is what is here.
    let status = if stats.closed { "closed" } else { "open, so its end may be missing" };
    writeln!(out, "{class} {status}; {} to {}", time(stats.first_us), time(stats.last_us))?;
    writeln!(out, "\nentries  {:>8}  {:>10} bytes", stats.vouched.entries, stats.bytes)?;
    for (number, kind) in &stats.kinds {
        writeln!(out, "  {:<18} {:>6}  {:>10}", kind_name(*number), kind.entries, kind.bytes)?;
    }
    let Blobs { references, known, present, bytes } = &stats.blobs;
    let absent = known.len() as u64 - present;
    let absent = if absent == 0 { String::new() } else { format!(", {absent} not here") };
    writeln!(
        out,
        "blobs    {present:>8}  {bytes:>10} bytes; {}{absent}",
        count(*references, "reference", "references")
    )?;
    if !stats.calls.is_empty() {
        writeln!(out, "calls")?;
    }
    for (tool, outcomes) in &stats.calls {
        let words: Vec<_> = outcomes.iter().map(|(outcome, number)| format!("{} {number}", escaped(outcome))).collect();
        writeln!(out, "  {:<18} {:>6}  {}", escaped(tool), outcomes.values().sum::<u64>(), words.join(", "))?;
    }
    if !stats.refusals.is_empty() {
        writeln!(out, "refusals")?;
    }
    for (code, number) in &stats.refusals {
        let name = Code::from_number(*code).map_or_else(|| code.to_string(), |code| code.name().to_owned());
        writeln!(out, "  {name:<18} {number:>6}")?;
    }
    let Agents { spawned, completed, failed, stopped } = &stats.agents;
    if *spawned > 0 {
        writeln!(out, "agents   {spawned:>8}  {completed} completed, {failed} failed, {stopped} stopped")?;
    }
    Ok(())
}

fn kind_name(number: u16) -> String {
    kind_of(number).map_or_else(|| format!("{number:#06x}"), |kind| kind.name.to_owned())
}

/// Writes what was counted as one JSON document on one line.
///
/// # Errors
/// When `out` cannot be written.
pub(crate) fn write(all: &[Stats], out: &mut dyn Write) -> io::Result<()> {
    let sessions: Vec<Value> = all.iter().map(Stats::json).collect();
    write_line(&json!({ "format": FORMAT, "sessions": sessions }), out)
}
