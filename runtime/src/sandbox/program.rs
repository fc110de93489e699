//! Calls of foreign programs: from the admitted call to its outcome and its record.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rustix::io::Errno;
use serde_json::{Value, json};
use toka_jail::status::{Fault, Stage};
use toka_kernel::body::v1::{Outcome, SandboxRecord};
use toka_kernel::hash::{Context, derive};
use toka_kernel::ids::Digest;
use toka_kernel::tool::{Level, ResultKind, Run, ToolSpec};
use toka_tools::{
    CallNames, Folders, Invocation, ProgramFault, ProgramFile, ProgramSource, Shipped, canonicalise, check, invocation,
    program_digest, read_program, source_of,
};
use toka_wasm::Report;

use super::Launcher;
use super::artifacts::{Collected, collect};
use super::guest::{self, Guest};
use super::plan::{Called, errno, plan, plan_guest};
use super::redact::Forms;
use super::supervise::{End, Ran, Reason, supervise};
use crate::executor::{Ended, Roots, Stop, Work, claims, grains, outcome};
use crate::home::Secrets;

/// A tool that is a foreign program: its spec, and where its files are. They are read again at every call, and what is
/// hashed is what runs.
#[derive(Clone, Debug)]
pub struct Program {
    spec: ToolSpec,
    run: Run,
    files: ProgramFiles,
    secrets: Option<Secrets>,
}

/// Where the files of a program are.
#[derive(Clone, Debug)]
pub enum ProgramFiles {
    /// In this program.
    Shipped(&'static Shipped),
    /// In the folder of its manifest.
    Folder(PathBuf),
    /// In the arguments of each call: the main file is code that its caller sends.
    Arguments,
}

impl Program {
    /// The program that `spec` describes; `None` if that is a native tool.
    pub fn new(spec: ToolSpec, files: ProgramFiles) -> Option<Program> {
        let run = spec.run.clone()?;
        Some(Program { spec, run, files, secrets: None })
    }

    /// The same, handed secrets from there. A program that wants one and has no such place is not started.
    #[must_use]
    pub fn with_secrets(self, secrets: Secrets) -> Program {
        Program { secrets: Some(secrets), ..self }
    }

    /// Its spec.
    pub fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    /// Reads its files. What comes with a call is pinned by that, everything else by the spec.
    fn read(&self, arguments: &[u8]) -> Result<Vec<ProgramFile>, Stop> {
        if let ProgramFiles::Arguments = self.files {
            let declined = |why: String| Stop::new(outcome::DECLINED, outcome::DETAIL_CLAIMS, None, why);
            let arguments = check(&self.spec, arguments).map_err(|error| declined(error.to_string()))?;
            let source = source_of(&self.spec, &arguments).map_err(|fault| declined(fault.to_string()))?;
            return Ok(vec![ProgramFile { name: self.run.path.clone(), bytes: source }]);
        }
        let files = self.read_files().map_err(|(name, fault)| match fault {
            ProgramFault::NotFound => start_failed("no-program", format!("{name}: {fault}")),
            ProgramFault::Link
            | ProgramFault::NotRegular
            | ProgramFault::TooLarge
            | ProgramFault::NoSystem
            | ProgramFault::Unreadable => start_failed("unreadable-program", format!("{name}: {fault}")),
        })?;
        if program_digest(&files) != self.spec.program {
            let why = "its files are not those that were registered; look at them, and register the tool again";
            return Err(Stop::new(outcome::PIN_MISMATCH, 0, None, why));
        }
        Ok(files)
    }

    fn read_files(&self) -> Result<Vec<ProgramFile>, (String, ProgramFault)> {
        match &self.files {
            ProgramFiles::Arguments => Ok(Vec::new()),
            ProgramFiles::Shipped(shipped) => {
                let files: BTreeMap<&str, &[u8]> = shipped.files.iter().copied().collect();
                read_program(&self.run, &files)
            }
            ProgramFiles::Folder(folder) => {
                let unreadable = |_| (self.run.path.clone(), ProgramFault::Unreadable);
                let beside = open(folder).map_err(unreadable)?;
                let system = open(Path::new("/")).map_err(unreadable)?;
                let folders = Folders { beside: beside.as_fd(), system: Some(system.as_fd()) };
                let source: &dyn ProgramSource = &folders;
                read_program(&self.run, source)
            }
        }
    }
}

fn open(folder: &Path) -> rustix::io::Result<std::os::fd::OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Runs one call to its end. Whatever happens, there is an outcome.
pub(crate) fn run(work: &Work, program: &Program, launcher: Option<&Launcher>, roots: &Roots, slot: u32) -> Ended {
    let began = Instant::now();
    let bytes_in = grains(work.arguments.as_ref().map_or(0, Vec::len));
    let mut ended = Ended {
        call: work.call.id(),
        attempt: work.call.attempt(),
        outcome: outcome::plain(outcome::SUCCEEDED, 0),
        actual: Vec::new(),
        stdout: None,
        stderr: None,
        result: None,
        record: None,
        sandbox: None,
        usage: None,
        wasm: None,
    };
    let (mut cpu_us, mut bytes_kept) = (0, 0);
    match try_run(work, program, launcher, roots, slot) {
        Ok(done) => {
            cpu_us = done.ran.cpu_us;
            bytes_kept = keep(&mut ended, &program.run, done);
        }
        Err(Stop { outcome, detail }) => {
            ended.record = (!detail.is_empty()).then(|| json!({ "detail": detail }).to_string().into_bytes());
            ended.outcome = outcome;
        }
    }
    let kept = [&ended.stdout, &ended.stderr, &ended.result];
    let bytes_out = bytes_kept + kept.into_iter().flatten().map(|bytes| grains(bytes.len())).sum::<u64>();
    let wall = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX).max(1);
    ended.actual = vec![1, bytes_in, bytes_out, 0, 0, wall];
    // Amounts end with what is not zero.
    ended.actual.extend((cpu_us > 0).then_some(cpu_us));
    ended
}

/// A program that has ended.
struct Done {
    ran: Ran,
    secrets: Option<Arc<Forms>>,
    sandbox: SandboxRecord,
    /// The guest, where the program was the worker for one.
    guest: Option<Guest>,
    /// The code that came with the call, where it did: bytes and BLAKE3.
    source: Option<(usize, Digest)>,
}

fn start_failed(symbol: &str, why: String) -> Stop {
    Stop::new(outcome::START_FAILED, 0, Some(symbol), why)
}

fn setup_failed(stage: &str, errno: i32, why: String) -> Stop {
    let mut stop = Stop::new(outcome::SETUP_FAILED, 0, Some(stage), why);
    stop.outcome.number = Some(i64::from(errno));
    stop
}

/// Everything up to the end of the program.
fn try_run(
    work: &Work,
    program: &Program,
    launcher: Option<&Launcher>,
    roots: &Roots,
    slot: u32,
) -> Result<Done, Stop> {
    let call = &work.call;
    let (spec, run) = (program.spec(), &program.run);
    if spec.digest().ok() != Some(call.digest()) {
        return Err(Stop::new(outcome::PIN_MISMATCH, 0, None, "this node has another version of the tool"));
    }
    let (_, arguments) = claims(spec, work)?;
    let launcher = launcher.ok_or_else(|| unavailable("launcher", 0, "this node has no launcher"))?;
    let files = program.read(arguments)?;
    let names = CallNames { call: call.id(), session: call.session(), time_us: call.at() };
    let invocation: Invocation = invocation(spec, arguments, &names)
        .map_err(|error| Stop::new(outcome::DECLINED, outcome::DETAIL_CLAIMS, None, error.to_string()))?;
    let toolchain = invocation.toolchain.as_deref().map(|name| {
        launcher.toolchain(name).ok_or_else(|| start_failed("no-toolchain", format!("`{name}` is not on this machine")))
    });
    let toolchain = toolchain.transpose()?;
    let called = Called {
        call,
        spec,
        run,
        arguments,
        names,
        invocation,
        files: &files,
        roots,
        secrets: program.secrets.as_ref(),
        toolchain: toolchain.as_ref().map(|(path, _)| path.as_str()),
        slot,
        until: work.until,
    };
    let (job, guest, worker) = match &run.sandbox.wasm {
        None => (plan(called), None, None),
        Some(limits) => {
            let missing = "this node cannot run guests; put `toka-wasm` beside `toka`";
            let worker =
                launcher.worker().map_err(|error| unavailable("worker", errno(&error).raw_os_error(), missing))?;
            let module = files.first().map(|file| file.bytes.as_slice()).unwrap_or_default();
            let prepared = Guest::prepare(&called, work, limits, module);
            let (guest, stdin) =
                prepared.map_err(|error| setup_failed("guest", error.raw_os_error(), error.to_string()))?;
            (plan_guest(called, worker, stdin), Some(guest), Some(worker.digest))
        }
    };
    let job = job.map_err(|fault| setup_failed(fault.stage, fault.errno, fault.why))?;
    let started_us = now_us();
    let (secrets, level) = (job.secrets.clone(), job.spec.level);
    let ran = supervise(launcher, job, &work.stop);
    match ran.end {
        // The jail stands, and the system refuses the program itself.
        End::NotConfined(Fault { stage: Stage::Exec, errno }) if guest.is_none() => {
            let mut stop = start_failed("exec", not_executed(errno));
            stop.outcome.number = Some(i64::from(errno));
            return Err(stop);
        }
        End::NotConfined(fault) => {
            let stage = serde_json::to_value(fault.stage).ok();
            let stage = stage.as_ref().and_then(Value::as_str).unwrap_or("unknown").to_owned();
            let hint = "`toka doctor` tells what this machine can hold";
            return Err(unavailable(&stage, fault.errno, hint));
        }
        End::NotStarted(errno) => return Err(unavailable("start", errno, "the launcher could not be started")),
        End::Status(_) | End::Stopped(_) | End::Unreaped | End::Lost => {}
    }
    let (layers, landlock_abi) = ran.confined.unwrap_or_default();
    let sandbox = SandboxRecord {
        cut: u8::from(ran.stdout.is_cut()) | u8::from(ran.stderr.is_cut()) << 1,
        required: spec.level,
        level: match level {
            toka_jail::spec::Level::Strong => Level::Strong.number(),
            toka_jail::spec::Level::Landlock => Level::Landlock.number(),
        },
        layers: u64::from(layers),
        landlock_abi: u16::try_from(landlock_abi).unwrap_or(u16::MAX),
        digest: sandbox_digest(run),
        jail: launcher.digest().ok(),
        toolchain: toolchain.map(|(_, digest)| digest).or(worker),
        started_us,
        ended_us: now_us().max(started_us),
        cpu_us: ran.cpu_us,
        rss_bytes: ran.rss_bytes,
        pids_hit: 0,
        proxy_refused: 0,
    };
    let source = files.first().filter(|_| matches!(program.files, ProgramFiles::Arguments));
    let source = source.map(|file| (file.bytes.len(), Digest(*blake3::hash(&file.bytes).as_bytes())));
    Ok(Done { ran, secrets, sandbox, guest, source })
}

/// Why the system does not execute a program, in words.
fn not_executed(errno: i32) -> String {
    let why = match Errno::from_raw_os_error(errno) {
        Errno::NOENT => "the interpreter that its first line names is not in the jail",
        Errno::NOEXEC => "it is no program of this machine, and its first line names no interpreter",
        Errno::TOOBIG => "its command line and environment are longer than the system takes",
        _ => return format!("the program cannot be executed: {}", std::io::Error::from_raw_os_error(errno)),
    };
    format!("the program cannot be executed: {why}")
}

fn unavailable(step: &str, errno: i32, why: &str) -> Stop {
    let mut stop = Stop::new(outcome::SANDBOX_UNAVAILABLE, 0, Some(step), why);
    stop.outcome.number = Some(i64::from(errno));
    stop
}

fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

fn sandbox_digest(run: &Run) -> Digest {
    derive(Context::Sandbox, &[&rmp_serde::to_vec_named(&run.sandbox).unwrap_or_default()])
}

/// Puts what is kept of a program that ran into its report. How many bytes its files have.
fn keep(ended: &mut Ended, run: &Run, done: Done) -> u64 {
    let Done { ran, secrets, sandbox, guest, source } = done;
    let secrets = secrets.as_ref();
    let stream = |captured: &super::Captured| {
        json!({
            "bytes": captured.bytes, "kept": captured.kept.len(),
            "blake3": Digest(captured.hash).to_string(),
        })
    };
    let mut record = json!({ "stdout": stream(&ran.stdout), "stderr": stream(&ran.stderr) });
    if let Some((bytes, digest)) = source {
        record["source"] = json!({ "bytes": bytes, "blake3": digest.to_string() });
    }
    ended.outcome = outcome_of(&ran, run);
    let mut given = None;
    if let Some(guest) = guest {
        let report = guest.report();
        ended.wasm = report.as_ref().map(|report| guest.record(report));
        ended.outcome = guest_outcome(&ended.outcome, report.as_ref());
        if let Some(report) = report {
            if !report.detail.is_empty() {
                record["detail"] = json!(report.detail);
            }
            given = report.result.map(|result| result.0);
        }
    }
    if ended.outcome.kind == outcome::SUCCEEDED {
        match result_of(run, &ran, given.as_deref(), secrets) {
            Ok(result) => ended.result = result,
            Err(rule) => {
                ended.outcome = Outcome { symbol: Some(rule.to_owned()), ..outcome::plain(outcome::INVALID_OUTPUT, 0) };
                record["detail"] = json!("the output is not what the manifest promises");
            }
        }
    }
    let collected = ran.workspace.as_ref().map(|workspace| collect(workspace.as_fd(), &run.outputs.artifacts, secrets));
    if let Some(collected) = &collected {
        collected.tell(&mut record);
        if ended.outcome.kind == outcome::SUCCEEDED
            && let Some((outcome, why)) = lacking(collected)
        {
            (ended.outcome, ended.result) = (outcome, None);
            record["detail"] = json!(why);
        }
    }
    ended.record = Some(record.to_string().into_bytes());
    ended.sandbox = Some(sandbox);
    let kept = |bytes: Vec<u8>| (!bytes.is_empty()).then_some(bytes);
    ended.stdout = kept(ran.stdout.kept);
    ended.stderr = kept(ran.stderr.kept);
    collected.map_or(0, |collected| collected.bytes())
}

/// The outcome of a guest whose worker ended so: our own reasons first, then what the worker says.
fn guest_outcome(of_worker: &Outcome, report: Option<&Report>) -> Outcome {
    match (of_worker.kind, report) {
        (outcome::SUCCEEDED, Some(report)) => guest::outcome_of(&report.end),
        // It ended of itself and said nothing, or was killed by nobody we know.
        (outcome::SUCCEEDED | outcome::FAILED | outcome::SIGNALLED, _) => {
            outcome::plain(outcome::LOST, outcome::DETAIL_WORKER)
        }
        _ => of_worker.clone(),
    }
}

/// What a call that would have succeeded ends as, if its files are not as the manifest says.
fn lacking(collected: &Collected) -> Option<(Outcome, String)> {
    if collected.over {
        let why = "its workspace holds more to keep than the manifest says; `dropped` lists what";
        return Some((outcome::plain(outcome::LIMIT_EXCEEDED, outcome::DETAIL_ARTIFACTS), why.to_owned()));
    }
    let missing = collected.missing.as_ref()?;
    let symbol = Some("artifact-missing".to_owned());
    let outcome = Outcome { symbol, ..outcome::plain(outcome::INVALID_OUTPUT, 0) };
    Some((outcome, format!("the artifact `{missing}` must be there and is not")))
}

/// The outcome by precedence: our own reason, then limits that signals tell, then the wait status.
fn outcome_of(ran: &Ran, run: &Run) -> Outcome {
    let status = match ran.end {
        End::Stopped(reason) => {
            let (kind, detail) = match reason {
                Reason::Cancelled => (outcome::CANCELLED, outcome::DETAIL_REVOKED),
                Reason::Time => (outcome::TIMED_OUT, 0),
                Reason::Output => (outcome::LIMIT_EXCEEDED, outcome::DETAIL_OUTPUT),
                Reason::Memory => (outcome::LIMIT_EXCEEDED, outcome::DETAIL_MEMORY),
                Reason::Workspace => (outcome::LIMIT_EXCEEDED, outcome::DETAIL_WORKSPACE),
                Reason::Cpu => (outcome::LIMIT_EXCEEDED, outcome::DETAIL_CPU),
            };
            return outcome::plain(kind, detail);
        }
        End::Unreaped => return outcome::plain(outcome::UNREAPED, 0),
        End::Lost | End::NotConfined(_) | End::NotStarted(_) => {
            return outcome::plain(outcome::LOST, outcome::DETAIL_WORKER);
        }
        End::Status(status) => status,
    };
    let (signal, code) = (status & 0x7f, (status >> 8) & 0xff);
    // A processor limit whose hard and soft bounds are one is enforced by SIGKILL (setrlimit(2)). Without the time that
    // belongs to it, the signal came from elsewhere.
    let cpu = signal == SIGKILL && ran.cpu_us >= run.sandbox.limits.cpu_us;
    match (signal, code) {
        (0, 0) => outcome::plain(outcome::SUCCEEDED, 0),
        (0, code) => Outcome { number: Some(i64::from(code)), ..outcome::plain(outcome::FAILED, 0) },
        _ if cpu => outcome::plain(outcome::LIMIT_EXCEEDED, outcome::DETAIL_CPU),
        (SIGXFSZ, _) => outcome::plain(outcome::LIMIT_EXCEEDED, outcome::DETAIL_FILE_SIZE),
        (signal, _) => Outcome {
            number: Some(i64::from(signal)),
            ..outcome::plain(outcome::SIGNALLED, u16::from(signal == SIGSYS))
        },
    }
}

const SIGKILL: i32 = 9;
const SIGXFSZ: i32 = 25;
const SIGSYS: i32 = 31;

/// What the program gave back, as canonical JSON, or the rule that it breaks: what a guest handed over as its result, else
/// standard output.
fn result_of(
    run: &Run,
    ran: &Ran,
    given: Option<&[u8]>,
    secrets: Option<&Arc<Forms>>,
) -> Result<Option<Vec<u8>>, &'static str> {
    let text = || {
        if given.is_none() && ran.stdout.is_cut() {
            return Err("too-long");
        }
        std::str::from_utf8(given.unwrap_or(&ran.stdout.kept)).map_err(|_| "not-utf8")
    };
    let result = match ResultKind::from_number(run.outputs.result) {
        Some(ResultKind::None) | None => return Ok(None),
        Some(ResultKind::Text) => json!(text()?).to_string().into_bytes(),
        Some(ResultKind::Json) => canonicalise(text()?).map_err(|_| "not-json")?,
    };
    let Some(secrets) = secrets else { return Ok(Some(result)) };
    // What was escaped in an odd way is plain in the canonical form.
    let clean = String::from_utf8(secrets.redacted(&result)).map_err(|_| "secret-in-result")?;
    canonicalise(&clean).map(Some).map_err(|_| "secret-in-result")
}
