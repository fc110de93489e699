//! `verify`: whether a log is what was written, decided from bytes and a root key alone.

mod accept;
mod blobs;
mod checked;
mod cited;
mod end;
pub(crate) mod findings;
pub(crate) mod judge;
mod pipeline;
mod seen;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use serde_json::Value;
use toka_kernel::chain;
use toka_kernel::entry::Entry;
use toka_kernel::ids::SessionId;
use toka_kernel::keys::{self, Keyring, PublicKey};
use toka_store::bundle::{ContainerCode, ContainerFault};
use toka_store::log::Rows;
use toka_store::{Bundle, ReadError};

use self::cited::{Cited, Contradiction, is_whole};
use self::findings::{Fault, Findings};
use self::walk::Walk;
use crate::code::{Axis, Class, Code};
use crate::input::{Input, Stored, Unreadable};
use crate::report::{Answer, Axes, Checked, InputInfo, Report, Requirement, SessionReport};

/// How to verify.
#[derive(Clone, Debug)]
pub struct Options {
    /// The root key that is trusted. Never taken from the input.
    pub root: Option<PublicKey>,
    /// Only these sessions.
    pub sessions: Option<Vec<SessionId>>,
    /// What must be OK for exit 0.
    pub require: Vec<Requirement>,
    /// Threads.
    pub jobs: usize,
    /// Check only the last signature.
    pub fast: bool,
}

impl Default for Options {
    fn default() -> Options {
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        Options { root: None, sessions: None, require: Requirement::DEFAULT.to_vec(), jobs, fast: false }
    }
}

/// This build lets a forgery pass that it must refuse, so nothing it says about signatures is worth anything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this build must not verify: {what}")]
pub struct SelfTestFailed {
    /// What it lets pass.
    pub what: &'static str,
}

/// Verifies every session of `input`. `progress` hears how many entries were done, now and then.
///
/// Memory follows the state of one session and its commitments, not the number of entries.
///
/// # Errors
/// [`SelfTestFailed`] if this build cannot tell forgeries. Whatever is wrong with the input is in the [`Report`].
pub fn verify(input: &Input, options: &Options, progress: &mut dyn FnMut(u64)) -> Result<Report, SelfTestFailed> {
    keys::self_test().map_err(|what| SelfTestFailed { what })?;
    let mut run = Run::new(input.info().clone(), options);
    for session in input.sessions() {
        match session {
            Ok(session) if options.sessions.as_ref().is_some_and(|wanted| !wanted.contains(&session)) => {}
            Ok(session) => run.session(input, session, options, progress),
            Err(error) => run.unreadable(&error.what, &error.place),
        }
    }
    if options.sessions.is_none() {
        run.strays(input);
    }
    run.compare_cited(input);
    run.compare_registered(input, options);
    run.container(input.as_bundle().map(Bundle::faults).unwrap_or_default());
    Ok(run.finish(options))
}

/// The report about an input that could not even be opened.
pub fn report_unreadable(unreadable: &Unreadable, options: &Options) -> Report {
    let info = InputInfo { kind: "unknown", path: unreadable.path.clone(), bytes: None };
    let mut run = Run::new(info, options);
    run.unreadable(&unreadable.what, unreadable.hint);
    run.finish(options)
}

struct Run {
    info: InputInfo,
    findings: Findings,
    sessions: Vec<SessionReport>,
    /// What each of them cites, in the same order.
    cited: Vec<Cited>,
    checked: Checked,
    container: Answer,
}

impl Run {
    fn new(info: InputInfo, _: &Options) -> Run {
        let (findings, checked) = (Findings::default(), Checked::default());
        Run { info, findings, sessions: Vec::new(), cited: Vec::new(), checked, container: Answer::Ok }
    }

    fn session(&mut self, input: &Input, session: SessionId, options: &Options, progress: &mut dyn FnMut(u64)) {
        let done = self.checked.entries;
        let (report, checked, cited) =
            verify_session(input, session, options, &mut self.findings, &mut |entries| progress(done + entries));
        self.checked.entries += checked.entries;
        self.checked.signatures += checked.signatures;
        self.sessions.push(report);
        self.cited.push(cited);
    }

    /// Compares what sessions say of each other.
    fn compare_cited(&mut self, input: &Input) {
        for (report, cited) in self.sessions.iter_mut().zip(&self.cited) {
            let (unresolved, contradictions) = cited.compare(input);
            report.refs_unresolved = unresolved;
            for Contradiction { at, cites, found } in contradictions {
                report.axes.set(Axis::Chain, Answer::Fail);
                let found = found.map_or(Value::Null, |found| found.to_string().into());
                let fault = Fault::new(Code::RefMismatch).expected(found, cites.hash.to_string());
                let fault = fault.detail("session", cites.session.to_string()).detail("seq", cites.seq);
                self.findings.push(Some(report.session), Some(at), 0, fault, None);
            }
        }
    }

    /// Finds the work sessions that the system session they cite has not registered as they begin, where it is in the
    /// input, whole and without a fault. One that cites none is held against the system sessions that were verified.
    fn compare_registered(&mut self, input: &Input, options: &Options) {
        let mut known: BTreeMap<SessionId, Option<Cited>> = BTreeMap::new();
        for (report, cited) in self.sessions.iter().zip(&self.cited).filter(|(report, _)| report.system) {
            known.insert(report.session, is_clean(input, report).then(|| cited.clone()));
        }
        let others: Vec<SessionId> = known.keys().copied().collect();
        let here: BTreeSet<SessionId> = input.sessions().filter_map(Result::ok).collect();
        let mut grown: BTreeMap<SessionId, Cited> = BTreeMap::new();
        for (report, cited) in self.sessions.iter_mut().zip(&self.cited) {
            let Some(cites) = cited.begun_beside() else { continue };
            let systems = cites.map_or_else(|| others.clone(), |system| vec![system]);
            let mut unregistered = None;
            for system in systems.into_iter().filter(|system| here.contains(system)) {
                let read = || {
                    let mut unheard = Findings::default();
                    let (report, _, cited) = verify_session(input, system, options, &mut unheard, &mut |_| ());
                    is_clean(input, &report).then_some(cited)
                };
                let Some(registry) = known.entry(system).or_insert_with(read) else { continue };
                let is_missing = cited.is_unregistered(report.session, registry) && {
                    let now = grown.entry(system).or_insert_with(|| registry.again(input, system));
                    cited.is_unregistered(report.session, now)
                };
                unregistered = is_missing.then_some(system);
                if !is_missing {
                    break;
                }
            }
            if let Some(system) = unregistered {
                report.axes.set(Axis::Tail, Answer::Fail);
                let fault = Fault::new(Code::SessionUnregistered).detail("system", system.to_string());
                self.findings.push(Some(report.session), Some(0), 0, fault, None);
            }
        }
    }

    fn unreadable(&mut self, what: &str, place: &str) {
        let fault = Fault::new(Code::InputUnreadable).expected("a store or a bundle", what).detail("place", place);
        self.findings.push(None, None, 0, fault, None);
        self.container = Answer::NotChecked;
    }

    /// Rows that no session of the store accounts for.
    fn strays(&mut self, input: &Input) {
        match input.log().strays() {
            Ok(strays) => {
                for stray in strays {
                    let fault = Fault::new(Code::StoreKeyMismatch).expected("rows of its sessions alone", stray);
                    self.findings.push(None, None, 0, fault, None);
                    self.container = Answer::Fail;
                }
            }
            Err(error) => self.unreadable(&error.what, &error.place),
        }
    }

    /// What is wrong with the container follows from what is wrong inside.
    fn container(&mut self, faults: &[ContainerFault]) {
        for fault in faults {
            let code = match fault.code {
                ContainerCode::InputUnreadable => Code::InputUnreadable,
                ContainerCode::BundleTruncated => Code::BundleTruncated,
                ContainerCode::BundleMalformed => Code::BundleMalformed,
                ContainerCode::BundleTrailer => Code::BundleTrailer,
                ContainerCode::ManifestMismatch => Code::ManifestMismatch,
                ContainerCode::LimitExceeded => Code::LimitExceeded,
            };
            let class = if code == Code::LimitExceeded { Class::Unreadable } else { code.class() };
            let finding = Fault { class, offset: Some(0), ..Fault::new(code) };
            let finding = finding.detail("what", fault.detail.as_str());
            let cause = self.findings.first_failure(fault.session);
            self.findings.push(fault.session, None, fault.offset, finding, cause);
            self.container = match (self.container, class) {
                (Answer::Fail, _) | (_, Class::Fail) => Answer::Fail,
                (Answer::Ok | Answer::NotChecked, _) => Answer::NotChecked,
            };
        }
    }

    fn finish(mut self, options: &Options) -> Report {
        if options.root.is_none() && !self.sessions.is_empty() {
            self.findings.push(None, None, 0, Fault::new(Code::RootNotGiven), None);
        }
        let anchors = [Requirement::L1, Requirement::L2, Requirement::Axis(Axis::Anchor)];
        if options.require.iter().any(|required| anchors.contains(required)) {
            self.findings.push(None, None, 0, Fault::new(Code::AnchorAbsent), None);
        }
        let mut axes = Axes::of_all(self.sessions.iter().map(|session| &session.axes));
        axes.set(Axis::Tail, tail(&self.sessions));
        axes.set(
            Axis::Frame,
            match (axes.get(Axis::Frame), self.container) {
                (Answer::Fail, _) | (_, Answer::Fail) => Answer::Fail,
                (Answer::Ok, Answer::Ok) => Answer::Ok,
                (Answer::Ok | Answer::NotChecked, _) => Answer::NotChecked,
            },
        );
        let trusted: BTreeMap<_, _> =
            self.sessions.iter().map(|session| (session.session, session.trusted_prefix_seq)).collect();
        let (tampered, unreadable) = (self.findings.tampered, self.findings.unreadable);
        Report {
            input: self.info,
            fast: options.fast,
            required: options.require.clone(),
            axes,
            sessions: self.sessions,
            checked: self.checked,
            findings: self.findings.finish(&trusted),
            tampered,
            unreadable,
        }
    }
}

/// The answer on `tail` over all sessions. A system session has no end as long as there is a node, so where there are
/// others its end is not waited for. That it is open is said of it, and what the others cite of it must be there.
fn tail(sessions: &[SessionReport]) -> Answer {
    let ends = |session: &&SessionReport| !session.system || session.axes.get(Axis::Tail) != Answer::NotChecked;
    let all: Vec<&Axes> = sessions.iter().map(|session| &session.axes).collect();
    let ending: Vec<&Axes> = sessions.iter().filter(ends).map(|session| &session.axes).collect();
    let counted = if ending.is_empty() { all } else { ending };
    Axes::of_all(counted.into_iter()).get(Axis::Tail)
}

/// Whether all of a session was accepted, and is here.
fn is_clean(input: &Input, report: &SessionReport) -> bool {
    report.trusted_prefix_seq == report.head.map(|(seq, _)| seq) && is_whole(input, report.session)
}

fn verify_session(
    input: &Input,
    session: SessionId,
    options: &Options,
    findings: &mut Findings,
    progress: &mut dyn FnMut(u64),
) -> (SessionReport, Checked, Cited) {
    let mut chunks = Chunks { rows: input.entries(session), error: None };
    let first = chunks.next().unwrap_or_default();
    let second = chunks.next();
    // Threads for a handful of entries cost more than they save.
    let jobs = if second.is_some() { options.jobs.max(1) } else { 1 };
    let first_seq = input.first_seq(session);
    let keys = keys_of(&first);
    let mut walk = Walk::new(input, session, options.fast, options.root.as_ref(), keys.clone(), findings);
    if let Some(stored) = first.first().filter(|_| first_seq > 0) {
        walk.begin_at(first_seq, &checked::Checked::of(stored, &keys, false));
    }
    let mut begin = [Some(first), second].into_iter().flatten();
    pipeline::run(
        jobs,
        || begin.next().or_else(|| chunks.next()),
        |chunk: Vec<Stored>| -> Vec<checked::Checked> {
            chunk.iter().map(|stored| checked::Checked::of(stored, &keys, !options.fast)).collect()
        },
        |entries| {
            walk.take(entries);
            progress(walk.tally.entries);
            if walk.lost.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        },
    );
    match chunks.error {
        Some(error) => walk.unreadable(error),
        None => walk.drain(),
    }
    walk.finish()
}

/// The keys that the genesis states. It is looked for among the first entries, since it may stand at a wrong place.
fn keys_of(first: &[Stored]) -> Keyring {
    let entries: Vec<Entry> = first.iter().filter_map(|stored| checked::read(&stored.bytes).0).collect();
    let genesis = entries.iter().find(|entry| entry.header().seq == 0).or(entries.first());
    genesis.map(|genesis| chain::keyring(genesis, None, &mut |_| ())).unwrap_or_default()
}

/// Entries by the handful: enough to keep a thread busy, few enough to keep in memory.
struct Chunks<'a> {
    rows: Rows<'a, Stored>,
    error: Option<ReadError>,
}

const CHUNK_ENTRIES: usize = 64;
const CHUNK_BYTES: usize = 128 << 10;

impl Chunks<'_> {
    fn next(&mut self) -> Option<Vec<Stored>> {
        let (mut chunk, mut bytes) = (Vec::with_capacity(CHUNK_ENTRIES), 0);
        while self.error.is_none() && chunk.len() < CHUNK_ENTRIES && bytes < CHUNK_BYTES {
            match self.rows.next() {
                None => break,
                Some(Ok(stored)) => {
                    bytes += stored.bytes.len();
                    chunk.push(stored);
                }
                Some(Err(error)) => self.error = Some(error),
            }
        }
        (!chunk.is_empty()).then_some(chunk)
    }
}
