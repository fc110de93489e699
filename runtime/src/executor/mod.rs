//! Executors: they take admitted calls from the `calls` view, run them, and report how they ended.

pub(crate) mod model;
mod native;
pub mod outcome;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use toka_kernel::body::v1::{Amounts, Outcome, SandboxRecord, Usage, WasmRecord};
use toka_kernel::facts::{FactSpec, extract};
use toka_kernel::hash::{Context, derive};
use toka_kernel::ids::{CallId, Digest};
use toka_kernel::tool::ToolSpec;
use toka_kernel::{AdmittedCall, Dim};
use toka_projections::Views;
use toka_store::ReadError;
use toka_tools::NativeTool;

use crate::gateway::Attempt;
use crate::sandbox::{self, Launcher, Program};

pub(crate) use model::Asked;
pub use model::Model;
pub use native::native_tools;

/// The directories a session may reach, by the name that grants use. Opened once; the descriptors are used from then on.
pub type Roots = BTreeMap<String, OwnedFd>;

/// A tool that this node can run.
#[derive(Clone)]
pub enum Tool {
    /// A part of this program.
    Native(Arc<dyn NativeTool>),
    /// A foreign program, run in a jail.
    Program(Arc<Program>),
    /// A model.
    Model(Arc<Model>),
}

impl Tool {
    /// Its spec.
    pub fn spec(&self) -> &ToolSpec {
        match self {
            Tool::Native(tool) => tool.spec(),
            Tool::Program(program) => program.spec(),
            Tool::Model(model) => model.spec(),
        }
    }
}

impl std::fmt::Debug for Tool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Tool").field(&self.spec().name).finish()
    }
}

/// A call with the bytes of its arguments, as handed to an executor.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) call: AdmittedCall,
    pub(crate) arguments: Option<Vec<u8>>,
    /// What is sent to a model, put together of its pieces.
    pub(crate) body: Option<Vec<u8>>,
    /// What the random bytes of a guest grow from.
    pub(crate) seed: Digest,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) until: Instant,
}

/// Why a call did not come to its end.
pub(crate) struct Stop {
    pub(crate) outcome: Outcome,
    pub(crate) detail: String,
}

impl Stop {
    pub(crate) fn new(kind: u8, detail: u16, symbol: Option<&str>, why: impl Into<String>) -> Stop {
        let outcome = Outcome { symbol: symbol.map(str::to_owned), ..outcome::plain(kind, detail) };
        Stop { outcome, detail: why.into() }
    }
}

/// Extracts the facts of a call once more, from the stored bytes, and holds them against the admitted ones: what runs is
/// what was admitted, whatever lies in the store. The declared facts and the bytes.
pub(crate) fn claims<'w>(spec: &ToolSpec, work: &'w Work) -> Result<(Vec<FactSpec>, &'w [u8]), Stop> {
    let bytes = work.arguments.as_deref();
    let bytes = bytes.ok_or_else(|| Stop::new(outcome::START_FAILED, 0, Some("no-arguments"), "their blob is gone"))?;
    let declined = |what: String| Stop::new(outcome::DECLINED, outcome::DETAIL_CLAIMS, None, what);
    let specs = spec.fact_specs().map_err(|error| declined(error.to_string()))?;
    let extracted = extract(bytes, &specs).map_err(|error| declined(error.to_string()))?;
    if extracted.facts != work.call.facts() {
        return Err(declined("the arguments hold other facts than were admitted".to_owned()));
    }
    Ok((specs, bytes))
}

/// A length in whole grains, as bytes are counted everywhere.
pub(crate) fn grains(len: usize) -> u64 {
    u64::from(toka_kernel::entry::grains(len as u64)) * toka_kernel::limits::BLOB_GRAIN_BYTES
}

/// The calls of one tool that must not overlap.
#[derive(Debug, Default)]
struct Lane {
    busy: Option<CallId>,
    waiting: VecDeque<Work>,
}

/// How a call ended, to be reported to the engine.
#[derive(Debug)]
pub struct Ended {
    /// The call.
    pub call: CallId,
    /// The attempt that ended.
    pub attempt: u16,
    /// The outcome.
    pub outcome: Outcome,
    /// What it took, in the order of limited dimensions.
    pub actual: Amounts,
    /// What is kept of the standard output of a foreign program.
    pub stdout: Option<Vec<u8>>,
    /// What is kept of its standard error.
    pub stderr: Option<Vec<u8>>,
    /// Canonical JSON, where it succeeded.
    pub result: Option<Vec<u8>>,
    /// More about how it went, as JSON.
    pub record: Option<Vec<u8>>,
    /// How a foreign program was confined.
    pub sandbox: Option<SandboxRecord>,
    /// What a model call took.
    pub usage: Option<Usage>,
    /// How a guest ran.
    pub wasm: Option<WasmRecord>,
}

impl Ended {
    /// The report that nobody knows what came of `call`.
    pub(crate) fn unknown(call: &AdmittedCall) -> Ended {
        Ended::without_running(call, outcome::plain(outcome::UNKNOWN, 0))
    }

    /// The report that `call` was interrupted, and may not be tried again.
    pub(crate) fn lost(call: &AdmittedCall) -> Ended {
        Ended::without_running(call, outcome::plain(outcome::LOST, 0))
    }

    /// The report that `call` was done before a crash, as its probe says.
    pub(crate) fn by_probe(call: &AdmittedCall) -> Ended {
        Ended::without_running(call, outcome::plain(outcome::SUCCEEDED, outcome::DETAIL_PROBE))
    }

    /// The report about a call of which nothing is kept.
    fn without_running(call: &AdmittedCall, outcome: Outcome) -> Ended {
        Ended {
            call: call.id(),
            attempt: call.attempt(),
            outcome,
            actual: vec![1],
            stdout: None,
            stderr: None,
            result: None,
            record: None,
            sandbox: None,
            usage: None,
            wasm: None,
        }
    }
}

/// What an executor reports to the engine.
#[derive(Debug)]
pub enum Report {
    /// A call ended.
    Ended(Box<Ended>),
    /// An attempt of a model call came to nothing. The next one begins when this is durable and answered.
    Attempted {
        /// The call.
        call: CallId,
        /// What came of it.
        attempt: Box<Attempt>,
        /// Whether the next one may begin.
        answer: Sender<bool>,
    },
}

/// What an executor tells while it works; for progress, never for the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A call begins to run.
    Started(CallId),
}

/// What a call was asked with.
#[derive(Debug, Default)]
pub struct Arguments {
    /// The bytes of its arguments; `None` if they are gone.
    pub bytes: Option<Vec<u8>>,
    /// What is sent to a model, put together of its pieces; `None` where one is gone, and for other calls.
    pub body: Option<Vec<u8>>,
}

/// Reads what a call was asked with.
pub type ReadArguments<'a> = dyn FnMut(&AdmittedCall) -> Result<Arguments, ReadError> + 'a;

/// Who hears what executors tell, on their threads.
pub type Hear = Arc<dyn Fn(Notice) + Send + Sync>;

/// Threads that run calls.
pub struct Executors {
    work: Option<Sender<Work>>,
    reports: Receiver<Report>,
    /// For the threads of model calls, which end with their call.
    report: Sender<Report>,
    models: Vec<Arc<Model>>,
    notice: Hear,
    threads: Vec<JoinHandle<()>>,
    running: BTreeMap<CallId, Arc<AtomicBool>>,
    /// Tools whose calls must not overlap; each is one lane.
    lanes: BTreeMap<String, Lane>,
    /// Calls that do not run until somebody has said whether they were done.
    held: BTreeSet<CallId>,
    /// The seed of the session.
    seed: Digest,
}

impl Executors {
    /// Starts `threads` threads for calls of `tools` on `roots`. `notice` is called on them. Without a launcher no foreign
    /// program runs: its calls end as `SandboxUnavailable`.
    pub fn start(
        threads: usize,
        tools: Vec<Tool>,
        launcher: Option<Arc<Launcher>>,
        roots: Roots,
        notice: Hear,
    ) -> Executors {
        let in_turn = tools.iter().filter(|tool| !tool.spec().parallel_safe);
        let lanes = in_turn.map(|tool| (tool.spec().name.clone(), Lane::default())).collect();
        let (work, queue) = channel::<Work>();
        let (report, reports) = channel();
        let models =
            tools.iter().filter_map(|tool| if let Tool::Model(model) = tool { Some(model.clone()) } else { None });
        let models = models.collect();
        let queue = Arc::new(Mutex::new(queue));
        let threads = u32::try_from(threads.max(1)).unwrap_or(1);
        let shared = Arc::new((tools, launcher, roots, Slots::new(threads)));
        let start = |mut slot| {
            let (queue, report, shared, notice) = (queue.clone(), report.clone(), shared.clone(), notice.clone());
            std::thread::spawn(move || {
                loop {
                    let next = queue.lock().map(|queue| queue.recv());
                    let Ok(Ok(work)) = next else { return };
                    notice(Notice::Started(work.call.id()));
                    let (tools, launcher, roots, slots) = &*shared;
                    let ended = run(&work, tools, launcher.as_deref(), roots, slot);
                    slot = slots.after(slot, &ended.outcome);
                    if report.send(Report::Ended(Box::new(ended))).is_err() {
                        return;
                    }
                }
            })
        };
        let threads = (0..threads).map(start).collect();
        Executors {
            work: Some(work),
            reports,
            report,
            models,
            notice,
            threads,
            running: BTreeMap::new(),
            lanes,
            held: BTreeSet::new(),
            seed: Digest::default(),
        }
    }

    /// The same, for a session with this seed.
    #[must_use]
    pub fn with_seed(mut self, seed: Digest) -> Executors {
        self.seed = seed;
        self
    }

    /// Takes the calls that are admitted, durable and not yet taken, and stops those that are cancelled. `arguments`
    /// reads the bytes of a call's arguments; `now_us` is the time by which deadlines are measured.
    ///
    /// # Errors
    /// When arguments cannot be read: then nothing is recorded about their call, and it stays open.
    pub fn take(&mut self, views: &Views, now_us: u64, arguments: &mut ReadArguments<'_>) -> Result<(), ReadError> {
        for (call, stop) in &self.running {
            if views.calls.is_cancelled(*call) {
                stop.store(true, Ordering::Relaxed);
            }
        }
        let open = views.calls.open_after(0);
        let new = open.filter(|call| !self.running.contains_key(&call.id()) && !self.held.contains(&call.id()));
        for call in new.cloned().collect::<Vec<_>>() {
            let stop = Arc::new(AtomicBool::new(views.calls.is_cancelled(call.id())));
            self.running.insert(call.id(), stop.clone());
            let until = Instant::now() + Duration::from_micros(time_left(&call, now_us));
            let Arguments { bytes, body } = arguments(&call)?;
            let seed = derive(Context::GuestSeed, &[&self.seed.0, &call.id().0]);
            let work = Work { arguments: bytes, body, call, seed, stop, until };
            self.hand(work);
        }
        Ok(())
    }

    /// Lets a call wait until [`Executors::release`].
    pub(crate) fn hold(&mut self, call: CallId) {
        self.held.insert(call);
    }

    /// Lets a held call run.
    pub(crate) fn release(&mut self, call: CallId) {
        self.held.remove(&call);
    }

    /// Hands a call to a thread, or lets it wait for its lane.
    fn hand(&mut self, work: Work) {
        if work.call.model() == toka_kernel::tool::Model::Agent {
            self.hand_to_model(work);
            return;
        }
        if let Some(lane) = self.lanes.get_mut(work.call.tool()) {
            if lane.busy.is_some() {
                lane.waiting.push_back(work);
                return;
            }
            lane.busy = Some(work.call.id());
        }
        if let Some(queue) = &self.work {
            // A closed queue means that every thread is gone; then no report comes and the call stays open.
            let _ = queue.send(work);
        }
    }

    /// Runs a model call on a thread of its own: it waits for a server, and tools do not wait for it.
    fn hand_to_model(&self, work: Work) {
        let model = self.models.iter().find(|model| model.spec().name == work.call.tool()).cloned();
        let (report, notice) = (self.report.clone(), self.notice.clone());
        std::thread::spawn(move || {
            let call = work.call.id();
            notice(Notice::Started(call));
            let ended = match model {
                Some(model) => model.run(&work, &mut |attempt| {
                    let (answer, answered) = channel();
                    let told = Report::Attempted { call, attempt: Box::new(attempt), answer };
                    let goes_on = report.send(told).is_ok() && answered.recv().unwrap_or(false);
                    if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                }),
                None => {
                    let gone = Outcome {
                        symbol: Some("no-such-model".to_owned()),
                        ..outcome::plain(outcome::START_FAILED, 0)
                    };
                    Ended::without_running(&work.call, gone)
                }
            };
            // Nobody may be there to hear it any more; then the call stays open, and is made again.
            let _ = report.send(Report::Ended(Box::new(ended)));
        });
    }

    /// Notes that a call has ended and lets the next of its lane go.
    fn noted(&mut self, report: Report) -> Report {
        let Report::Ended(ended) = &report else { return report };
        self.running.remove(&ended.call);
        let lane = self.lanes.values_mut().find(|lane| lane.busy == Some(ended.call));
        if let Some(lane) = lane {
            lane.busy = None;
            if let Some(next) = lane.waiting.pop_front() {
                self.hand(next);
            }
        }
        report
    }

    /// Calls that were taken and have not been reported.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Waits for the next report; `None` if no call is running.
    pub fn wait(&mut self) -> Option<Report> {
        if self.running.is_empty() {
            return None;
        }
        let report = self.reports.recv().ok()?;
        Some(self.noted(report))
    }

    /// A report that has come by now, if there is one.
    pub fn reported_already(&mut self) -> Option<Report> {
        let report = self.reports.try_recv().ok()?;
        Some(self.noted(report))
    }
}

/// Numbers of executor threads, of which the users are made that programs run as.
#[derive(Debug)]
struct Slots {
    unused: AtomicU32,
}

impl Slots {
    /// Those below `threads` are taken.
    fn new(threads: u32) -> Slots {
        Slots { unused: AtomicU32::new(threads) }
    }

    /// The slot of the next call of a thread whose last one ended so. A slot whose program could not be killed is never
    /// used again: its processes are still there, with the rights of its user and within its limits.
    fn after(&self, slot: u32, outcome: &Outcome) -> u32 {
        if outcome.kind == outcome::UNREAPED { self.unused.fetch_add(1, Ordering::Relaxed) } else { slot }
    }
}

/// Runs one call to its end.
fn run(work: &Work, tools: &[Tool], launcher: Option<&Launcher>, roots: &Roots, slot: u32) -> Ended {
    let named = |tool: &&Tool| tool.spec().name == work.call.tool();
    // Of two versions of a tool, the one that was admitted.
    let same = |tool: &&Tool| named(tool) && tool.spec().digest().ok() == Some(work.call.digest());
    match tools.iter().find(same).or_else(|| tools.iter().find(named)) {
        Some(Tool::Native(tool)) => native::run(work, tool.as_ref(), roots),
        Some(Tool::Program(program)) => sandbox::run(work, program, launcher, roots, slot),
        // A model call never comes here; a tool of another execution model has no such name.
        Some(Tool::Model(_)) | None => {
            let gone = Outcome { symbol: Some("no-such-tool".to_owned()), ..outcome::plain(outcome::START_FAILED, 0) };
            Ended::without_running(&work.call, gone)
        }
    }
}

/// How long a call may run from now on, in µs: its whole wall time, since what passed before it began was not its own; but
/// nothing runs beyond the end of its grants.
fn time_left(call: &AdmittedCall, now_us: u64) -> u64 {
    match call.reserve(Dim::WallUs) {
        Some(wall) if call.deadline() == call.timed_from().saturating_add(wall) => wall,
        Some(_) | None => call.deadline().saturating_sub(now_us),
    }
}

impl Drop for Executors {
    fn drop(&mut self) {
        self.work = None;
        for stop in self.running.values() {
            stop.store(true, Ordering::Relaxed);
        }
        for thread in self.threads.drain(..) {
            // A thread that panicked outside a tool has nothing left to report.
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Executors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Executors").field("running", &self.running.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_whose_program_lives_on_is_not_used_again() {
        let slots = Slots::new(2);
        assert_eq!(slots.after(0, &outcome::plain(outcome::SUCCEEDED, 0)), 0);
        assert_eq!(slots.after(1, &outcome::plain(outcome::TIMED_OUT, 0)), 1);
        assert_eq!(slots.after(1, &outcome::plain(outcome::UNREAPED, 0)), 2);
        assert_eq!(slots.after(0, &outcome::plain(outcome::UNREAPED, 0)), 3);
        assert_eq!(slots.after(2, &outcome::plain(outcome::UNREAPED, 0)), 4);
    }
}
