//! Guests: WASM modules that the worker `toka-wasm` runs, in a jail of its own for each call.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use toka_kernel::body::v1::{Outcome, WasmRecord};
use toka_kernel::ids::{Bytes, Digest};
use toka_kernel::tool::WasmLimits;
use toka_wasm::{End, Handed, REPORT_BYTES_MAX, Report};

use super::plan::Called;
use super::spawn::sealed;
use crate::executor::{Work, outcome};

/// A guest that is being run.
#[derive(Debug)]
pub(super) struct Guest {
    /// Where the worker writes.
    report: File,
    module: Digest,
    seed: Digest,
    clock_us: u64,
    step_us: u32,
}

/// Of the time of a call, how many twentieths its guest may take: the rest is for saying what came of it.
const TWENTIETHS: u32 = 19;

/// Bytes of memory that 32 bits can name.
const MEMORY_BYTES_MAX: u64 = 4 << 30;

impl Guest {
    /// Puts together what the worker is told: the guest, and the worker's standard input.
    pub(super) fn prepare(
        called: &Called<'_>,
        work: &Work,
        limits: &WasmLimits,
        module: &[u8],
    ) -> Result<(Guest, OwnedFd), Errno> {
        let run = &called.run.sandbox.limits;
        let left = work.until.saturating_duration_since(Instant::now()) * TWENTIETHS / (TWENTIETHS + 1);
        let guest = Guest {
            report: report_file()?,
            module: Digest(*blake3::hash(module).as_bytes()),
            seed: work.seed,
            clock_us: called.call.at(),
            step_us: u32::try_from(limits.clock_step_us).unwrap_or(u32::MAX),
        };
        let job = toka_wasm::Job {
            argv: called.invocation.argv.clone(),
            stdin: Bytes(called.invocation.stdin.clone()),
            params: Bytes(called.invocation.params_json.clone()),
            envelope: called.call.envelope().iter().map(|need| need.scope.to_string()).collect(),
            seed: guest.seed.0,
            clock_us: guest.clock_us,
            step_us: guest.step_us,
            fuel: limits.fuel,
            memory_bytes: run.memory_bytes.min(MEMORY_BYTES_MAX),
            stack_bytes: limits.stack_bytes,
            table_elements: limits.table_elements,
            wall_us: micros(left),
            result_max: run.stdout_bytes,
            output_max: run.output_total_bytes,
        };
        let job = job.encode().map_err(|_| Errno::TOOBIG)?;
        let held = |bytes: &[u8]| sealed(bytes, false).map_err(|error| super::plan::errno(&error));
        let report = guest.report.try_clone().map_err(|error| super::plan::errno(&error))?;
        let handed = Handed { job: held(&job)?, module: held(module)?, report: report.into() };
        let stdin = handed.into_stdin().map_err(|error| super::plan::errno(&error))?;
        Ok((guest, stdin))
    }

    /// What the worker said; `None` if it came to no end of its own, or said something that it never says.
    pub(super) fn report(&self) -> Option<Report> {
        let size = self.report.metadata().ok()?.len();
        if size > REPORT_BYTES_MAX {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(size).ok()?];
        self.report.read_exact_at(&mut bytes, 0).ok()?;
        Report::decode(&bytes).ok()
    }

    /// How it ran, for the record of the call.
    pub(super) fn record(&self, report: &Report) -> WasmRecord {
        WasmRecord {
            module: self.module,
            engine: Digest(report.engine),
            seed: self.seed,
            clock_us: self.clock_us,
            step_us: self.step_us,
            fuel: report.fuel,
            guest_asked: report.asked,
            // A worker that counts wrong is not believed further.
            guest_denied: report.denied.min(report.asked),
        }
    }
}

/// A memory file for the report, of which nobody can make a program.
fn report_file() -> Result<File, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memfd = match rustix::fs::memfd_create("toka-report", flags | MemfdFlags::NOEXEC_SEAL) {
        // Before Linux 6.3 the flag is unknown.
        Err(Errno::INVAL) => rustix::fs::memfd_create("toka-report", flags)?,
        made => made?,
    };
    rustix::fs::fcntl_add_seals(&memfd, SealFlags::SEAL)?;
    Ok(memfd.into())
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The outcome that a report means.
pub(super) fn outcome_of(end: &End) -> Outcome {
    let word = |word: &String| {
        let is_word =
            (1..=64).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
        Some(if is_word { word.clone() } else { "other".to_owned() })
    };
    match end {
        End::Returned => outcome::plain(outcome::SUCCEEDED, 0),
        End::Exited(status) => Outcome { number: Some(i64::from(*status)), ..outcome::plain(outcome::FAILED, 0) },
        End::Trapped(why) => Outcome { symbol: word(why), ..outcome::plain(outcome::TRAPPED, 0) },
        End::OutOfFuel => outcome::plain(outcome::LIMIT_EXCEEDED, outcome::DETAIL_FUEL),
        End::TimedOut => outcome::plain(outcome::TIMED_OUT, 0),
        End::TooMuchOutput => outcome::plain(outcome::LIMIT_EXCEEDED, outcome::DETAIL_OUTPUT),
        End::NotStarted(why) => Outcome { symbol: word(why), ..outcome::plain(outcome::START_FAILED, 0) },
    }
}
