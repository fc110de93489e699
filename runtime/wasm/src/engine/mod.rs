//! The worker itself: it checks a module, compiles it, runs it, and says what came of it.

mod host;
mod module;
mod toka;
mod wasi;

use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io::Write;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::process::exit;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use toka_kernel::ids::Bytes;
use wasmtime::{Config, Engine, Linker, Module, OptLevel, Store, Strategy, Trap};

use crate::handing::Handed;
use crate::words::{End, Job, MODULE_BYTES_MAX, Report};
use host::{Exit, Host, TooMuchOutput};
use module::Unfit;

/// Exit code of a worker that could not say anything.
const FAILED: i32 = 125;
/// How long compilation may take.
const COMPILE_MAX: Duration = Duration::from_secs(60);
/// Stack of the thread beside what the guest may use of it: the compiler and host functions.
const STACK_BESIDE: u64 = 8 << 20;
/// Bytes of a detail.
const DETAIL_BYTES_MAX: usize = 1_024;

/// Standard output and standard error of a guest.
pub type Streams = [Box<dyn Write + Send>; 2];

/// Is the worker; never returns.
pub fn enter() -> ! {
    exit(if work().is_some() { 0 } else { FAILED })
}

/// `None` where the node handed over something else than a job; then there is nobody to tell.
fn work() -> Option<()> {
    let Handed { job, module, report } = Handed::take(rustix::stdio::stdin()).ok()?;
    let job = Job::decode(&whole(job, MODULE_BYTES_MAX)?).ok()?;
    let module = whole(module, MODULE_BYTES_MAX)?;
    let said = run(job, module, [Box::new(std::io::stdout()), Box::new(std::io::stderr())]);
    File::from(report).write_all_at(&said.encode().ok()?, 0).ok()
}

/// All of a file, read from its start whatever its offset; one byte more than `most` where it is longer.
fn whole(file: OwnedFd, most: usize) -> Option<Vec<u8>> {
    let file = File::from(file);
    let (mut bytes, mut chunk) = (Vec::new(), vec![0; 64 << 10]);
    while bytes.len() <= most {
        match file.read_at(&mut chunk, bytes.len() as u64).ok()? {
            0 => break,
            count => bytes.extend_from_slice(&chunk[..count]),
        }
    }
    bytes.truncate(most + 1);
    Some(bytes)
}

/// What the thread of the guest tells.
enum Told {
    /// It is compiled; the engine is what can interrupt it.
    Compiled(Engine),
    /// It has ended.
    Ended(Report),
}

/// Runs `module` as `job` says. A compiler that does not come to an end is left behind in a thread of its own, so the
/// process should end soon.
pub fn run(job: Job, module: Vec<u8>, streams: Streams) -> Report {
    let until = Instant::now() + Duration::from_micros(job.wall_us);
    let compiled_by = until.min(Instant::now() + COMPILE_MAX);
    let (tell, told) = channel();
    let stack = usize::try_from(job.stack_bytes.saturating_add(STACK_BESIDE)).unwrap_or(usize::MAX);
    let guest = std::thread::Builder::new().name("guest".to_owned()).stack_size(stack);
    if let Err(error) = guest.spawn(move || guest_thread(job, &module, streams, &tell)) {
        return Report { detail: error.to_string(), ..Report::of(End::NotStarted("thread".to_owned())) };
    }
    let left = |until: Instant| until.saturating_duration_since(Instant::now());
    let engine = match told.recv_timeout(left(compiled_by)) {
        Ok(Told::Compiled(engine)) => engine,
        Ok(Told::Ended(report)) => return report,
        Err(RecvTimeoutError::Timeout) if Instant::now() >= until => return Report::of(End::TimedOut),
        Err(RecvTimeoutError::Timeout) => return Report::of(End::NotStarted("compile-time".to_owned())),
        Err(RecvTimeoutError::Disconnected) => return Report::of(End::NotStarted("compiler".to_owned())),
    };
    loop {
        match told.recv_timeout(left(until)) {
            Ok(Told::Ended(report)) => return report,
            Ok(Told::Compiled(_)) => {}
            // The guest looks at it at every loop and call, and ends.
            Err(RecvTimeoutError::Timeout) => {
                engine.increment_epoch();
                return match told.recv() {
                    Ok(Told::Ended(report)) => report,
                    Ok(Told::Compiled(_)) | Err(_) => Report::of(End::TimedOut),
                };
            }
            Err(RecvTimeoutError::Disconnected) => return Report::of(End::Trapped("host".to_owned())),
        }
    }
}

fn guest_thread(job: Job, bytes: &[u8], streams: Streams, tell: &Sender<Told>) {
    // Nobody hears it when the time for it is over.
    let _too_late = tell.send(Told::Ended(match prepared(&job, bytes) {
        Ok((engine, module)) => {
            let _too_late = tell.send(Told::Compiled(engine.clone()));
            called(job, &engine, &module, streams)
        }
        Err(unfit) => unfit.into(),
    }));
}

/// Checks and compiles.
fn prepared(job: &Job, bytes: &[u8]) -> Result<(Engine, Module), Unfit> {
    module::check(job, bytes)?;
    let engine = Engine::new(&config(job)).map_err(|error| Unfit::new("engine", format!("{error:#}")))?;
    let module = Module::from_binary(&engine, bytes).map_err(|error| Unfit::new("invalid", format!("{error:#}")))?;
    Ok((engine, module))
}

/// Everything that could make two runs differ is off or fixed, and what a guest does not need is off as well.
fn config(job: &Job) -> Config {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(OptLevel::Speed)
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        .consume_fuel(true)
        .epoch_interruption(true)
        .max_wasm_stack(usize::try_from(job.stack_bytes).unwrap_or(usize::MAX))
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_custom_page_sizes(false)
        .wasm_wide_arithmetic(false)
        .wasm_tail_call(false)
        .wasm_stack_switching(false)
        .wasm_shared_everything_threads(false)
        // Exactly what the guest may have is reserved once, so that the limit on address space can be exact as well.
        .memory_reservation(job.memory_bytes)
        .memory_may_move(false)
        .memory_reservation_for_growth(0)
        .memory_guard_size(0)
        .guard_before_linear_memory(false)
        // Images of memory would be files, which the jail has none of.
        .memory_init_cow(false)
        .wasm_backtrace_max_frames(None::<NonZeroUsize>)
        .native_unwind_info(false)
        .generate_address_map(false);
    config
}

/// The digest of the engine, its version and its settings.
fn digest(engine: &Engine, job: &Job) -> [u8; 32] {
    struct Blake(blake3::Hasher);
    impl Hasher for Blake {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }

        fn finish(&self) -> u64 {
            0
        }
    }
    let mut hasher = Blake(blake3::Hasher::new_derive_key("toka 2026-11 wasm-engine v1"));
    engine.precompile_compatibility_hash().hash(&mut hasher);
    // What the hash of the engine leaves out, and these imports.
    hasher.write(format!("stack {} imports 1", job.stack_bytes).as_bytes());
    *hasher.0.finalize().as_bytes()
}

/// Instantiates and calls `_start`.
fn called(job: Job, engine: &Engine, module: &Module, streams: Streams) -> Report {
    let (fuel, made_by) = (job.fuel, digest(engine, &job));
    let unfit = |unfit: Unfit| Report { engine: made_by, ..Report::from(unfit) };
    let mut linker = Linker::new(engine);
    if let Err(error) = toka::add(&mut linker).and_then(|()| wasi::add(&mut linker)) {
        return unfit(Unfit::new("host", format!("{error:#}")));
    }
    let ready = match linker.instantiate_pre(module) {
        Ok(ready) => ready,
        Err(error) => return unfit(Unfit::new("import", format!("{error:#}"))),
    };
    let mut store = Store::new(engine, Host::new(job, streams));
    store.limiter(|host| host);
    store.set_epoch_deadline(1);
    let ran = store.set_fuel(fuel).and_then(|()| {
        let instance = ready.instantiate(&mut store)?;
        let start = instance.get_typed_func::<(), ()>(&mut store, "_start").map_err(|_| NoStart)?;
        start.call(&mut store, ())
    });
    let left = store.get_fuel().unwrap_or(0);
    let host = store.into_data();
    let (end, detail) = match ran {
        Ok(()) => (End::Returned, String::new()),
        Err(error) => end_of(&error),
    };
    let fuel = if end == End::OutOfFuel { fuel } else { fuel.saturating_sub(left) };
    let result = host.result.filter(|_| end == End::Returned).map(Bytes);
    Report { end, detail, engine: made_by, fuel, asked: host.asked, denied: host.denied, result }
}

/// The module has no function `_start` without parameters and results.
#[derive(Debug)]
struct NoStart;

impl std::fmt::Display for NoStart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("it exports no function `_start` without parameters and results")
    }
}

impl std::error::Error for NoStart {}

/// What the traps of a guest are called in outcomes.
const TRAPS: [(Trap, &str); 10] = [
    (Trap::UnreachableCodeReached, "unreachable"),
    (Trap::StackOverflow, "stack"),
    (Trap::MemoryOutOfBounds, "memory-bounds"),
    (Trap::TableOutOfBounds, "table-bounds"),
    (Trap::IndirectCallToNull, "null-call"),
    (Trap::BadSignature, "call-type"),
    (Trap::IntegerOverflow, "integer-overflow"),
    (Trap::IntegerDivisionByZero, "division-by-zero"),
    (Trap::BadConversionToInteger, "bad-conversion"),
    (Trap::AllocationTooLarge, "allocation"),
];

fn end_of(error: &wasmtime::Error) -> (End, String) {
    if let Some(Exit(status)) = error.downcast_ref::<Exit>() {
        return match u8::try_from(*status) {
            Ok(0) => (End::Returned, String::new()),
            Ok(status) => (End::Exited(status), String::new()),
            Err(_) => (End::Exited(u8::MAX), format!("it exited with {status}")),
        };
    }
    if error.is::<TooMuchOutput>() {
        return (End::TooMuchOutput, String::new());
    }
    if error.is::<NoStart>() {
        return (End::NotStarted("no-start".to_owned()), NoStart.to_string());
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => (End::OutOfFuel, String::new()),
        Some(Trap::Interrupt) => (End::TimedOut, String::new()),
        Some(trap) => {
            let word = TRAPS.iter().find(|(known, _)| known == trap).map_or("other", |(_, word)| word);
            (End::Trapped(word.to_owned()), clipped(&trap.to_string()))
        }
        // Instances are refused without a trap where they are larger than they may be.
        None => (End::NotStarted("instance".to_owned()), clipped(&format!("{error:#}"))),
    }
}

/// A text of at most [`DETAIL_BYTES_MAX`] bytes on one line.
fn clipped(text: &str) -> String {
    let mut clipped = String::new();
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if clipped.len() + c.len_utf8() > DETAIL_BYTES_MAX {
            break;
        }
        clipped.push(c);
    }
    clipped
}

impl Report {
    /// The report on a guest of which nothing is known but its end.
    fn of(end: End) -> Report {
        Report { end, detail: String::new(), engine: [0; 32], fuel: 0, asked: 0, denied: 0, result: None }
    }
}

impl From<Unfit> for Report {
    fn from(unfit: Unfit) -> Report {
        Report { detail: clipped(&unfit.why), ..Report::of(End::NotStarted(unfit.symbol.to_owned())) }
    }
}
