//! The verbs that tell what a log says, and check what they read before they tell it.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use toka_kernel::ids::{Seq, SessionId};
use toka_kernel::keys::PublicKey;
use toka_kernel::{Body, CLASS_SYSTEM, Entry};

use super::{FAILURE, Refusal, default_root, find_session, refusal_of_root, written};
use crate::diff::{self, Difference, Side};
use crate::explain;
use crate::input::Input;
use crate::print::Short;
use crate::root::parse_root;
use crate::state::{self, NoState, Part, Snapshot};
use crate::stats::{self, NoStats, Stats};
use crate::trail::{Stop, Trail};
use crate::why::{self, Story, Target};

/// What every one of these verbs reads.
#[derive(Debug, Args)]
pub(super) struct Source {
    /// The store file or bundle
    input: PathBuf,
    /// The root key of the node: a .pub file, or the line in it [default: keys/root.pub beside a store]
    #[arg(long, value_name = "FILE|VKEY")]
    root: Option<String>,
    /// The session whose id begins so [default: the only one, or the only one that is not the node's own]
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Tell it as one JSON document
    #[arg(long)]
    json: bool,
}

/// Show the state after an entry
///
/// Every entry up to there is checked and decided again by the kernel's own rules; then every row is shown that the
/// state digest covers, and the digest. Exit code: 0, 3 tampered with or illegal up to there, 4 written by rules of a
/// later version, 8 unreadable, 2 wrong arguments.
#[derive(Debug, Args)]
pub(super) struct StateArgs {
    #[command(flatten)]
    source: Source,
    /// After this entry [default: the last one]
    #[arg(long, value_name = "SEQ")]
    at: Option<Seq>,
    /// Only these parts: session, principals, keys, grants, budgets, tools, agents, tasks, messages, calls, commands,
    /// refusals, sessions
    #[arg(long, value_name = "PARTS", value_delimiter = ',')]
    only: Vec<String>,
}

/// Explain a call, a refusal, a grant, an agent or an entry, back to the root key
///
/// A tree, each line with its seq: what covered each need of a call, every grant up to the root grant of the genesis,
/// who asked and who spawned that up to the opener, and the keys that sign. Of a refusal: the code, what was missing,
/// the nearest grant that failed and the row in which it does. Where the input holds the system session as well, the
/// tree goes on there (`sys:SEQ`). Exit codes as of `state`.
#[derive(Debug, Args)]
pub(super) struct WhyArgs {
    #[command(flatten)]
    source: Source,
    /// A seq, how the id of a call, a grant or an agent begins, or the name of an agent
    what: String,
}

/// Compare two states, sessions or logs
///
/// The left side is INPUT up to --from, the right side is OTHER (or INPUT again) up to --to. Shows the first entry in
/// which they differ, then the rows of the states that differ, field by field. Two different signed entries for one
/// place of one session are EQUIVOCATION. Exit code: 0 the same, 1 they differ, 3 equivocation, or one side was tampered
/// with, 4 and 8 as of `state`, 2 wrong arguments.
#[derive(Debug, Args)]
pub(super) struct DiffArgs {
    #[command(flatten)]
    source: Source,
    /// The store file or bundle of the right side [default: the same]
    other: Option<PathBuf>,
    /// The session of the right side [default: as of the left side]
    #[arg(long, value_name = "ID")]
    other_session: Option<String>,
    /// The left side ends with this entry [default: its last one]
    #[arg(long, value_name = "SEQ")]
    from: Option<Seq>,
    /// The right side ends with this entry [default: its last one]
    #[arg(long, value_name = "SEQ")]
    to: Option<Seq>,
}

/// Count what a log holds
///
/// Entries and bytes of each kind, blobs, calls by tool and outcome, refusals by code, agents, and the time from the
/// first entry to the last, for each session. Exit codes as of `state`.
#[derive(Debug, Args)]
pub(super) struct StatsArgs {
    #[command(flatten)]
    source: Source,
}

/// Explain a code: what it means, where it comes from, what to do
///
/// Knows the findings of `verify`, the refusals of the kernel by name or number, the outcomes of calls, the ends of
/// agents and tasks, and exit codes. Without a code, lists them.
#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// A code, as OUT_OF_SCOPE, 403, timed-out, or exit-3
    code: Option<String>,
    /// Tell it as one JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn run_state(args: &StateArgs, out: &mut dyn Write) -> Result<u8, Refusal> {
    let parse = |name: &String| {
        let known = || Part::ALL.map(Part::name).join(", ");
        Part::parse(name).ok_or_else(|| Refusal::usage(format!("--only {name}: the parts are {}", known())))
    };
    let only: Vec<Part> = args.only.iter().map(parse).collect::<Result<_, _>>()?;
    let opened = Opened::of(&args.source)?;
    let session = opened.one()?;
    let read = opened.trail(session).map_err(NoState::Stop).and_then(|mut trail| Snapshot::read(&mut trail, args.at));
    match read {
        Ok(snapshot) if args.source.json => written(state::write(&snapshot, &only, out), 0),
        Ok(snapshot) => written(state::print(&snapshot, &only, out), 0),
        Err(NoState::Stop(stop)) => opened.stopped(stop, state::FORMAT, out),
        Err(NoState::Beyond(last)) => Err(beyond("--at", args.at, last)),
    }
}

pub(super) fn run_why(args: &WhyArgs, out: &mut dyn Write) -> Result<u8, Refusal> {
    let opened = Opened::of(&args.source)?;
    let session = opened.holder_of(&args.what)?;
    let story = match opened.trail(session).and_then(Story::read) {
        Ok(story) => story,
        Err(stop) => return opened.stopped(stop, why::FORMAT, out),
    };
    let target = Target::find(&story, &args.what).map_err(|not_found| Refusal::usage(not_found.0))?;
    match why::answer(&opened.input, opened.root.as_ref(), &story, target) {
        Ok(answer) if args.source.json => written(why::write(&answer, out), 0),
        Ok(answer) => written(why::print(&answer, out), 0),
        Err(stop) => opened.stopped(stop, why::FORMAT, out),
    }
}

pub(super) fn run_diff(args: &DiffArgs, out: &mut dyn Write) -> Result<u8, Refusal> {
    let left = Opened::of(&args.source)?;
    let other = match &args.other {
        Some(path) => Some(Opened::at(path.clone(), args.source.root.as_deref(), None, args.source.json)?),
        None => None,
    };
    let right = other.as_ref().unwrap_or(&left);
    let (one, two) = sides(&left, right, args)?;
    let sides =
        left.trail(one).and_then(|trail| Ok((Side::new(trail, args.from), Side::new(right.trail(two)?, args.to))));
    match sides.map_err(NoState::Stop).and_then(|(one, two)| Difference::of(one, two)) {
        Ok(difference) if args.source.json => written(diff::write(&difference, out), difference.exit()),
        Ok(difference) => written(diff::print(&difference, out), difference.exit()),
        Err(NoState::Stop(stop)) => {
            // Whose fault it is says the path; a session may lie in both.
            let side = if right.input.info().path == stop.path { right } else { &left };
            side.stopped(stop, diff::FORMAT, out)
        }
        Err(NoState::Beyond(last)) => Err(beyond("--from or --to", args.from.max(args.to), last)),
    }
}

pub(super) fn run_stats(args: &StatsArgs, out: &mut dyn Write) -> Result<u8, Refusal> {
    let opened = Opened::of(&args.source)?;
    let mut all = Vec::new();
    for session in opened.chosen()? {
        let counted = opened.trail(session).map_err(NoStats::Stop).and_then(|trail| Stats::of(trail, &opened.input));
        match counted {
            Ok(stats) => all.push(stats),
            Err(NoStats::Stop(stop)) => return opened.stopped(stop, stats::FORMAT, out),
            Err(NoStats::Read(error)) => return Err(Refusal::unreadable(error)),
        }
    }
    written(if args.source.json { stats::write(&all, out) } else { stats::print(&all, out) }, 0)
}

pub(super) fn run_explain(args: &ExplainArgs, out: &mut dyn Write) -> Result<u8, Refusal> {
    let found = match &args.code {
        Some(code) => explain::find(code),
        None => explain::all(),
    };
    if let Some(code) = args.code.as_ref().filter(|_| found.is_empty()) {
        let near = explain::nearest(code);
        let hint =
            if near.is_empty() { "`explain` lists all".to_owned() } else { format!("like it: {}", near.join(", ")) };
        return Err(Refusal::usage(format!("there is no code `{code}`; {hint}")));
    }
    let wrote = match (args.json, &args.code) {
        (true, _) => explain::write(&found, out),
        (false, Some(_)) => explain::print(&found, out),
        (false, None) => explain::print_list(out),
    };
    written(wrote, 0)
}

/// From so many digits on a number is looked for as the beginning of an id first.
const SEQ_DIGITS: usize = 12;

/// An input with the key that it is read under.
struct Opened {
    input: Input,
    root: Option<PublicKey>,
    wanted: Option<String>,
    json: bool,
}

impl Opened {
    fn of(source: &Source) -> Result<Opened, Refusal> {
        Opened::at(source.input.clone(), source.root.as_deref(), source.session.clone(), source.json)
    }

    fn at(path: PathBuf, root: Option<&str>, wanted: Option<String>, json: bool) -> Result<Opened, Refusal> {
        toka_kernel::keys::self_test()
            .map_err(|what| Refusal { exit: FAILURE, what: format!("this build must not verify: {what}") })?;
        let given = root.map(|text| parse_root(text).map_err(refusal_of_root)).transpose()?;
        let input = Input::open(&path).map_err(Refusal::unreadable)?;
        let root = match given {
            Some(root) => Some(root),
            None => default_root(&input, &path)?,
        };
        Ok(Opened { input, root, wanted, json })
    }

    fn trail(&self, session: SessionId) -> Result<Trail<'_>, Stop> {
        Trail::open(&self.input, session, self.root.as_ref())
    }

    /// The sessions that were asked for, or all.
    fn chosen(&self) -> Result<Vec<SessionId>, Refusal> {
        match &self.wanted {
            Some(prefix) => find_session(&self.input, prefix),
            None => self.all(),
        }
    }

    fn all(&self) -> Result<Vec<SessionId>, Refusal> {
        let sessions: Vec<SessionId> = self.input.sessions().collect::<Result<_, _>>().map_err(Refusal::unreadable)?;
        if sessions.is_empty() {
            return Err(Refusal::usage(format!("{}: it holds no session", self.input.info().path)));
        }
        Ok(sessions)
    }

    /// The one session that was asked for; else the only one, or the only one that is not the node's own.
    fn one(&self) -> Result<SessionId, Refusal> {
        let sessions = self.chosen()?;
        let work: Vec<SessionId> = sessions.iter().copied().filter(|session| !self.is_system(*session)).collect();
        match (sessions.as_slice(), work.as_slice()) {
            ([one], _) | (_, [one]) => Ok(*one),
            _ => Err(self.several(&sessions)),
        }
    }

    fn several(&self, sessions: &[SessionId]) -> Refusal {
        let short = Short::of_ids(sessions.iter().copied());
        let named: Vec<String> = sessions.iter().take(8).map(|session| short.id(*session)).collect();
        let more = if sessions.len() > named.len() { ", …" } else { "" };
        Refusal::usage(format!(
            "{} holds {} sessions: say which one with --session: {}{more}",
            self.input.info().path,
            sessions.len(),
            named.join(", ")
        ))
    }

    /// Whether a session says of itself that it is the node's own. It decides only which one is looked at.
    fn is_system(&self, session: SessionId) -> bool {
        let first = self.input.entries(session).next().and_then(Result::ok);
        let entry = first.and_then(|stored| Entry::read(&stored.bytes).ok());
        let event = entry.as_ref().and_then(|entry| entry.event().ok());
        matches!(event.map(|event| &event.body), Some(Body::SessionOpened(genesis)) if genesis.class == CLASS_SYSTEM)
    }

    /// The session in which `what` is to be looked for. A seq says nothing of the session, an id does.
    fn holder_of(&self, what: &str) -> Result<SessionId, Refusal> {
        let sessions = self.chosen()?;
        // A short number is a seq, whatever ids begin with it.
        let is_seq = what.len() < SEQ_DIGITS && what.parse::<Seq>().is_ok();
        if is_seq || sessions.len() == 1 {
            return self.one();
        }
        match why::sessions_with(&self.input, &sessions, what).as_slice() {
            [one] => Ok(*one),
            [] => self.one(),
            several => Err(self.several(several)),
        }
    }

    /// Says why nothing is told: what `verify` finds there.
    fn stopped(&self, stop: Stop, format: &str, out: &mut dyn Write) -> Result<u8, Refusal> {
        let stop = stop.settled(&self.input, self.root.as_ref());
        if self.json {
            written(stop.write(format, out).and_then(|()| out.flush()), 0)?;
        }
        Err(Refusal { exit: stop.exit(), what: stop.words() })
    }
}

/// Which sessions are compared.
fn sides(left: &Opened, right: &Opened, args: &DiffArgs) -> Result<(SessionId, SessionId), Refusal> {
    let other = args.other_session.as_deref().map(|prefix| find_session(&right.input, prefix)).transpose()?;
    let other = other.and_then(|found| found.first().copied());
    if let Some(other) = other {
        return Ok((left.one()?, other));
    }
    let (ours, theirs) = (left.chosen()?, right.all()?);
    // The same session on both sides is meant, where there is one.
    let both: Vec<SessionId> = ours.iter().copied().filter(|session| theirs.contains(session)).collect();
    let work: Vec<SessionId> = both.iter().copied().filter(|session| !left.is_system(*session)).collect();
    match (both.as_slice(), work.as_slice()) {
        ([one], _) | (_, [one]) => Ok((*one, *one)),
        ([], _) => Ok((left.one()?, right.one()?)),
        (_, _) => Err(left.several(&both)),
    }
}

fn beyond(option: &str, asked: Option<Seq>, last: Option<Seq>) -> Refusal {
    match (last, asked) {
        (Some(last), Some(asked)) => Refusal::usage(format!("{option} {asked}: the session ends at seq {last}")),
        (Some(last), None) => Refusal::usage(format!("{option}: the session ends at seq {last}")),
        (None, _) => Refusal::unreadable("the session holds no entry"),
    }
}
