//! What the worker is told and what it says: two values, each as named msgpack.

use serde::{Deserialize, Serialize};
use toka_kernel::ids::Bytes;

/// Bytes of a module.
pub const MODULE_BYTES_MAX: usize = 32 << 20;
/// Bytes of a job: arguments and standard input are at most 1 MiB each, the envelope a few hundred KiB.
const JOB_BYTES_MAX: usize = 8 << 20;
/// Bytes of a report: a result of 16 MiB and a few words.
pub const REPORT_BYTES_MAX: u64 = (16 << 20) + (64 << 10);

/// What the worker is told of a call, beside the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// The command line that the guest sees, its own name first.
    pub argv: Vec<String>,
    /// Its standard input.
    pub stdin: Bytes,
    /// Its arguments, canonical JSON.
    pub params: Bytes,
    /// What its call was admitted for: the text of each scope.
    pub envelope: Vec<String>,
    /// What its random bytes grow from.
    pub seed: [u8; 32],
    /// What its clock shows first, in µs UTC.
    pub clock_us: u64,
    /// How far each reading moves the clock.
    pub step_us: u32,
    /// How much fuel it has.
    pub fuel: u64,
    /// Bytes of its memory.
    pub memory_bytes: u64,
    /// Bytes of its stack.
    pub stack_bytes: u64,
    /// Elements of each of its tables.
    pub table_elements: u64,
    /// How long it may run, compilation included, in µs.
    pub wall_us: u64,
    /// Bytes of the result that it may hand back.
    pub result_max: u64,
    /// Bytes that it may write to both standard streams together.
    pub output_max: u64,
}

/// What came of a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// How it ended.
    pub end: End,
    /// More about that, for people; at most 1 KiB without control characters.
    pub detail: String,
    /// The digest of the engine and its settings; zeros where none was made.
    pub engine: [u8; 32],
    /// Fuel that it took.
    pub fuel: u64,
    /// Questions about its capabilities.
    pub asked: u32,
    /// Those of them that were answered with no.
    pub denied: u32,
    /// The result that it handed back, if it did.
    pub result: Option<Bytes>,
}

/// How a guest ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// It returned, or exited with 0.
    Returned,
    /// It exited with another status.
    Exited(u8),
    /// It trapped, in a word.
    Trapped(String),
    /// It used up its fuel.
    OutOfFuel,
    /// Its time was over.
    TimedOut,
    /// It wrote more than it may.
    TooMuchOutput,
    /// It never began: what is wrong with its module, in a word.
    NotStarted(String),
}

/// Why bytes are neither job nor report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WordFault {
    /// More of them than there may be.
    TooLarge,
    /// Not what the other side writes.
    Malformed,
}

impl Job {
    /// Its bytes.
    ///
    /// # Errors
    /// [`WordFault::TooLarge`], when the worker would not take them.
    pub fn encode(&self) -> Result<Vec<u8>, WordFault> {
        within(rmp_serde::to_vec_named(self).map_err(|_| WordFault::Malformed)?, JOB_BYTES_MAX)
    }

    /// Reads what [`Job::encode`] wrote.
    ///
    /// # Errors
    /// [`WordFault`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Job, WordFault> {
        let job: Job = parsed(bytes, JOB_BYTES_MAX)?;
        if job.encode()? == bytes { Ok(job) } else { Err(WordFault::Malformed) }
    }
}

impl Report {
    /// Its bytes.
    ///
    /// # Errors
    /// [`WordFault::TooLarge`], when the node would not take them.
    pub fn encode(&self) -> Result<Vec<u8>, WordFault> {
        within(rmp_serde::to_vec_named(self).map_err(|_| WordFault::Malformed)?, report_bytes_max())
    }

    /// Reads what [`Report::encode`] wrote: the same bytes, nothing before, between or after.
    ///
    /// # Errors
    /// [`WordFault`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Report, WordFault> {
        let report: Report = parsed(bytes, report_bytes_max())?;
        if report.encode()? == bytes { Ok(report) } else { Err(WordFault::Malformed) }
    }
}

fn report_bytes_max() -> usize {
    usize::try_from(REPORT_BYTES_MAX).unwrap_or(usize::MAX)
}

fn within(bytes: Vec<u8>, most: usize) -> Result<Vec<u8>, WordFault> {
    if bytes.len() <= most { Ok(bytes) } else { Err(WordFault::TooLarge) }
}

fn parsed<T: for<'de> Deserialize<'de>>(bytes: &[u8], most: usize) -> Result<T, WordFault> {
    if bytes.len() > most {
        return Err(WordFault::TooLarge);
    }
    rmp_serde::from_slice(bytes).map_err(|_| WordFault::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_comes_back_as_it_was_and_with_more_bytes_not_at_all() {
        let report = Report {
            end: End::Trapped("unreachable".to_owned()),
            detail: "it says so".to_owned(),
            engine: [7; 32],
            fuel: 1,
            asked: 2,
            denied: 1,
            result: Some(Bytes(b"{}".to_vec())),
        };
        let mut bytes = report.encode().expect("it fits");
        assert_eq!(Report::decode(&bytes), Ok(report));
        bytes.push(0xc0);
        assert_eq!(Report::decode(&bytes), Err(WordFault::Malformed));
        assert_eq!(Report::decode(&bytes[..bytes.len() - 2]), Err(WordFault::Malformed));
        assert_eq!(Report::decode(&vec![0; report_bytes_max() + 1]), Err(WordFault::TooLarge));
    }
}
