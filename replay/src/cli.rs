//! The program: arguments in, text or JSON out, an exit code back.

mod reading;

use std::ffi::OsString;
use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use toka_kernel::body::KINDS;
use toka_kernel::ids::{Seq, SessionId};
use toka_kernel::keys::PublicKey;

use crate::input::Input;
use crate::print::Short;
use crate::report::Requirement;
use crate::root::{parse_root, root_beside};
use crate::show::{Filter, Form, ShowError, show};
use crate::text::{count, escaped};
use crate::verify::{Options, report_unreadable, verify};
use crate::{print_report, write_report};

/// Exit code: a failure of this program or of the system.
const FAILURE: u8 = 1;
/// Exit code: wrong arguments.
const USAGE: u8 = 2;
/// Exit code: the input cannot be read.
const UNREADABLE: u8 = 8;

/// Verify and read a Toka log, offline
///
/// Reads a store file or a bundle (.tkb). Writes nothing, needs no node and no network.
#[derive(Debug, Parser)]
#[command(name = "toka-replay", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Verify(VerifyArgs),
    Show(ShowArgs),
    State(reading::StateArgs),
    Why(reading::WhyArgs),
    Diff(reading::DiffArgs),
    Stats(reading::StatsArgs),
    Explain(reading::ExplainArgs),
}

/// Check that a log is what was written
///
/// Checks every byte, link, signature and key, decides every event again, and compares every blob. Exit code: 0 all that
/// is required holds, 3 tampered with or illegal, 8 unreadable, 4 something required could not be checked, 2 wrong
/// arguments, 1 another failure.
#[derive(Debug, Args)]
struct VerifyArgs {
    /// The store file or bundle
    input: PathBuf,
    /// The root key of the node: a .pub file, or the line in it [default: keys/root.pub beside a store]
    #[arg(long, value_name = "FILE|VKEY")]
    root: Option<String>,
    /// Only the session whose id begins so
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// What must hold for exit 0, instead of the default: axes, `closed`, L1, L2
    ///
    /// Axes: frame, chain, signatures, keys, commands, legality, state, blobs, tail, anchor, freshness. The default is
    /// the first nine.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    require: Vec<String>,
    /// Threads [default: one per core]
    #[arg(long, value_name = "N")]
    jobs: Option<u16>,
    /// Check hashes and rules of everything, but only the last signature
    #[arg(long)]
    fast: bool,
    /// Report as one JSON document
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
    /// Say nothing; the exit code is the answer
    #[arg(long)]
    quiet: bool,
    #[arg(long, hide = true)]
    head: Option<OsString>,
    #[arg(long, hide = true, num_args = 1..)]
    prior: Vec<OsString>,
    #[arg(long, hide = true, num_args = 1..)]
    revoked: Vec<OsString>,
    #[arg(long, hide = true)]
    max_age: Option<OsString>,
}

/// Print entries as they are stored
///
/// One line per entry: seq, time, kind, what happened, who asked. Nothing is checked; that is what `verify` is for.
#[derive(Debug, Args)]
struct ShowArgs {
    /// The store file or bundle
    input: PathBuf,
    /// Only the session whose id begins so
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Only entries of this kind: a name as CallAdmitted, or a number as 0x0701
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Only entries from A to B, both included; either may be left out
    #[arg(long, value_name = "A..B")]
    seq: Option<String>,
    /// Only what this agent asked or what is about it: its name, or how its id begins
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// Only what is about this tool
    #[arg(long, value_name = "NAME")]
    tool: Option<String>,
    /// With the bytes of each entry as hex
    #[arg(long)]
    raw: bool,
    /// With the content of small text blobs
    #[arg(long)]
    blobs: bool,
    /// One JSON object per line, with every field
    #[arg(long)]
    json: bool,
}

/// Why nothing was done: the exit code and what to say.
struct Refusal {
    exit: u8,
    what: String,
}

impl Refusal {
    fn usage(what: impl Into<String>) -> Refusal {
        Refusal { exit: USAGE, what: what.into() }
    }

    fn unreadable(what: impl ToString) -> Refusal {
        Refusal { exit: UNREADABLE, what: what.to_string() }
    }
}

/// Runs the program on `args`, the first of which is its name, and gives its exit code.
///
/// `progress` says whether `err` may be written to while work goes on, as on a terminal.
pub fn run(args: impl IntoIterator<Item = OsString>, out: &mut dyn Write, err: &mut dyn Write, progress: bool) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return say_usage(&error, out, err),
    };
    let done = match cli.verb {
        Verb::Verify(args) => run_verify(&args, out, err, progress),
        Verb::Show(args) => run_show(&args, out, err),
        Verb::State(args) => reading::run_state(&args, out),
        Verb::Why(args) => reading::run_why(&args, out),
        Verb::Diff(args) => reading::run_diff(&args, out),
        Verb::Stats(args) => reading::run_stats(&args, out),
        Verb::Explain(args) => reading::run_explain(&args, out),
    };
    // A reader that has seen enough is no failure.
    let done = match (done, out.flush()) {
        (Ok(exit), Err(error)) => written(Err(error), exit),
        (done, _) => done,
    };
    done.unwrap_or_else(|refusal| {
        // Where not even this can be said, the exit code still says it.
        let _ = writeln!(err, "error: {}", escaped(&refusal.what));
        refusal.exit
    })
}

fn say_usage(error: &clap::Error, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let text = error.render();
    if error.use_stderr() {
        let _ = write!(err, "{text}");
        USAGE
    } else {
        let _ = write!(out, "{text}").and_then(|()| out.flush());
        0
    }
}

fn run_verify(args: &VerifyArgs, out: &mut dyn Write, err: &mut dyn Write, progress: bool) -> Result<u8, Refusal> {
    refuse_later(args)?;
    let mut options = Options { require: requirements(&args.require)?, fast: args.fast, ..Options::default() };
    if let Some(jobs) = args.jobs {
        if jobs == 0 {
            return Err(Refusal::usage("--jobs 0: at least one thread is needed"));
        }
        options.jobs = jobs.into();
    }
    let given = args.root.as_deref().map(|text| parse_root(text).map_err(refusal_of_root)).transpose()?;
    let report = match Input::open(&args.input) {
        Ok(input) => {
            options.root = match given {
                Some(root) => Some(root),
                None => default_root(&input, &args.input)?,
            };
            options.sessions = args.session.as_deref().map(|prefix| find_session(&input, prefix)).transpose()?;
            let mut ticker = Ticker::new(err, progress && !args.quiet && !args.json);
            let report = verify(&input, &options, &mut |entries| ticker.tick(entries));
            ticker.clear();
            report.map_err(|error| Refusal { exit: FAILURE, what: error.to_string() })?
        }
        Err(unreadable) => {
            if !args.json && !args.quiet {
                return Err(Refusal::unreadable(unreadable));
            }
            report_unreadable(&unreadable, &options)
        }
    };
    let wrote = match (args.quiet, args.json) {
        (true, _) => Ok(()),
        (false, true) => write_report(&report, out),
        (false, false) => print_report(&report, out),
    };
    written(wrote, report.exit())
}

fn run_show(args: &ShowArgs, out: &mut dyn Write, err: &mut dyn Write) -> Result<u8, Refusal> {
    let kind = args.kind.as_deref().map(parse_kind).transpose()?;
    let seq = args.seq.as_deref().map(parse_range).transpose()?;
    let input = Input::open(&args.input).map_err(Refusal::unreadable)?;
    let sessions = args.session.as_deref().map(|prefix| find_session(&input, prefix)).transpose()?;
    let filter = Filter { sessions, kind, seq, agent: args.agent.clone(), tool: args.tool.clone() };
    let form = Form { json: args.json, raw: args.raw, blobs: args.blobs };
    let _ = writeln!(err, "note: shown as stored, not verified; `verify` checks it");
    match show(&input, &filter, form, out) {
        Ok(()) => Ok(0),
        Err(ShowError::Io(error)) => written(Err(error), 0),
        Err(ShowError::Read(error)) => Err(Refusal::unreadable(error)),
    }
}

/// A pipe that nobody reads any more ends quietly: whoever closed it has what they wanted.
fn written(wrote: io::Result<()>, exit: u8) -> Result<u8, Refusal> {
    match wrote {
        Ok(()) => Ok(exit),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(exit),
        Err(error) => Err(Refusal { exit: FAILURE, what: format!("the output cannot be written: {error}") }),
    }
}

/// Options whose place is kept. To ignore one would look like an answer.
fn refuse_later(args: &VerifyArgs) -> Result<(), Refusal> {
    let later = [
        ("--head", args.head.is_some()),
        ("--prior", !args.prior.is_empty()),
        ("--revoked", !args.revoked.is_empty()),
        ("--max-age", args.max_age.is_some()),
    ];
    match later.iter().find(|(_, given)| *given) {
        Some((option, _)) => Err(Refusal::usage(format!("{option} is not built yet; without it the level is L0"))),
        None => Ok(()),
    }
}

fn requirements(names: &[String]) -> Result<Vec<Requirement>, Refusal> {
    if names.is_empty() {
        return Ok(Requirement::DEFAULT.to_vec());
    }
    let parse = |name: &String| {
        let known = || "the axes, `closed`, L1 and L2 are known";
        Requirement::parse(name).ok_or_else(|| Refusal::usage(format!("--require {name}: {}", known())))
    };
    names.iter().map(parse).collect()
}

fn refusal_of_root(error: crate::RootError) -> Refusal {
    let exit = if error.is_usage() { USAGE } else { UNREADABLE };
    Refusal { exit, what: format!("--root: {error}") }
}

/// Only a store lies in the home of the node whose key it needs. A bundle comes from anywhere.
fn default_root(input: &Input, path: &Path) -> Result<Option<PublicKey>, Refusal> {
    if input.info().kind == "store" { root_beside(path).map_err(Refusal::unreadable) } else { Ok(None) }
}

/// The one session whose id begins with `prefix`.
fn find_session(input: &Input, prefix: &str) -> Result<Vec<SessionId>, Refusal> {
    let mut found = Vec::new();
    for session in input.sessions() {
        let session = session.map_err(Refusal::unreadable)?;
        if session.to_string().starts_with(&prefix.to_ascii_lowercase()) {
            found.push(session);
        }
    }
    match found.len() {
        1 => Ok(found),
        0 => Err(Refusal::usage(format!("--session {prefix}: no session begins so"))),
        many => {
            let short = Short::of_ids(found.iter().copied());
            let named: Vec<_> = found.iter().take(8).map(|session| short.id(*session)).collect();
            let more = if many > named.len() { ", …" } else { "" };
            Err(Refusal::usage(format!("--session {prefix}: {many} begin so: {}{more}", named.join(", "))))
        }
    }
}

fn parse_kind(text: &str) -> Result<u16, Refusal> {
    if let Some(known) = KINDS.iter().find(|kind| kind.name.eq_ignore_ascii_case(text)) {
        return Ok(known.number);
    }
    let number = match text.strip_prefix("0x") {
        Some(hex) => u16::from_str_radix(hex, 16),
        None => text.parse(),
    };
    number.map_err(|_| {
        let names: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
        Refusal::usage(format!("--kind {text}: neither a number nor one of {}", names.join(", ")))
    })
}

fn parse_range(text: &str) -> Result<RangeInclusive<Seq>, Refusal> {
    let wrong = || Refusal::usage(format!("--seq {text}: not of the form 3, 3..9, 3.. or ..9"));
    let number = |text: &str, absent| if text.is_empty() { Ok(absent) } else { text.parse().map_err(|_| wrong()) };
    let (from, to) = match text.split_once("..") {
        None if text.is_empty() => return Err(wrong()),
        None => (number(text, 0)?, number(text, 0)?),
        Some((from, to)) => (number(from, 0)?, number(to, Seq::MAX)?),
    };
    if from > to { Err(wrong()) } else { Ok(from..=to) }
}

/// A line on the terminal every second or so, on work that takes longer.
struct Ticker<'a> {
    err: &'a mut dyn Write,
    next: Option<Instant>,
    shown: bool,
}

const TICK: Duration = Duration::from_secs(1);

impl<'a> Ticker<'a> {
    fn new(err: &'a mut dyn Write, wanted: bool) -> Ticker<'a> {
        Ticker { err, next: wanted.then(|| Instant::now() + TICK), shown: false }
    }

    fn tick(&mut self, entries: u64) {
        if self.next.is_some_and(|next| Instant::now() >= next) {
            let _ = write!(self.err, "\r{} checked…", count(entries, "entry", "entries"));
            (self.next, self.shown) = (Some(Instant::now() + TICK), true);
        }
    }

    fn clear(&mut self) {
        if self.shown {
            let _ = write!(self.err, "\r\u{1b}[K");
        }
    }
}
