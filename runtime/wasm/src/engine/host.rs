//! What the host keeps for one guest, and how its functions reach into the guest's memory.

use std::ops::Range;

use toka_kernel::capability::Scope;
use wasmtime::{Caller, Extern, ResourceLimiter, Trap};

use super::Streams;
use crate::words::Job;

/// Bytes that cost the guest one unit of fuel when a function of the host moves them.
const BYTES_PER_FUEL: u64 = 8;

/// Everything of one guest that is not in its own memory.
pub(super) struct Host {
    pub(super) job: Job,
    /// What the call was admitted for.
    pub(super) envelope: Vec<Scope>,
    /// Standard output and standard error.
    pub(super) streams: Streams,
    /// Bytes written to both.
    pub(super) written: u64,
    /// Bytes of standard input that were read.
    pub(super) read: usize,
    /// Random bytes, as many as are asked for.
    pub(super) random: blake3::OutputReader,
    /// Times that the clock was read.
    pub(super) clock_reads: u64,
    pub(super) result: Option<Vec<u8>>,
    pub(super) asked: u32,
    pub(super) denied: u32,
}

/// The guest has exited with this status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exit(pub(super) i32);

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "it exited with {}", self.0)
    }
}

impl std::error::Error for Exit {}

/// The guest has written more than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMuchOutput;

impl std::fmt::Display for TooMuchOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("it wrote more than it may")
    }
}

impl std::error::Error for TooMuchOutput {}

impl Host {
    pub(super) fn new(job: Job, streams: Streams) -> Host {
        Host {
            // Texts of our own making; one that is none covers nothing.
            envelope: job.envelope.iter().filter_map(|text| Scope::parse(text).ok()).collect(),
            random: blake3::Hasher::new_keyed(&job.seed).finalize_xof(),
            streams,
            written: 0,
            read: 0,
            clock_reads: 0,
            result: None,
            asked: 0,
            denied: 0,
            job,
        }
    }

    /// What the clock shows now, in µs; each reading moves it.
    pub(super) fn clock_us(&mut self) -> u64 {
        let now = self.job.clock_us.saturating_add(u64::from(self.job.step_us).saturating_mul(self.clock_reads));
        self.clock_reads += 1;
        now
    }

    /// Writes to standard output (0) or standard error (1).
    pub(super) fn write(&mut self, stream: usize, bytes: &[u8]) -> wasmtime::Result<std::io::Result<()>> {
        self.written = self.written.saturating_add(bytes.len() as u64);
        if self.written > self.job.output_max {
            return Err(wasmtime::Error::new(TooMuchOutput));
        }
        let stream = &mut self.streams[stream];
        Ok(stream.write_all(bytes).and_then(|()| stream.flush()))
    }
}

impl ResourceLimiter for Host {
    fn memory_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired as u64 <= self.job.memory_bytes)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired as u64 <= self.job.table_elements)
    }

    fn instances(&self) -> usize {
        1
    }

    fn memories(&self) -> usize {
        1
    }

    fn tables(&self) -> usize {
        4
    }
}

/// The guest's memory and what the host keeps; no memory is an empty one.
pub(super) fn reach<'a>(caller: &'a mut Caller<'_, Host>) -> (&'a mut [u8], &'a mut Host) {
    match caller.get_export("memory").and_then(Extern::into_memory) {
        Some(memory) => memory.data_and_store_mut(caller),
        None => (&mut [], caller.data_mut()),
    }
}

/// Where `len` bytes from `pointer` on lie in a memory of `size` bytes; `None` if not all of them do. Both are what the
/// guest calls unsigned.
pub(super) fn place(size: usize, pointer: i32, len: i32) -> Option<Range<usize>> {
    let (start, len) = (u64::from(pointer.cast_unsigned()), u64::from(len.cast_unsigned()));
    // Invariant: two numbers of 32 bits do not overflow one of 64.
    let end = start + len;
    (end <= size as u64).then(|| Some(usize::try_from(start).ok()?..usize::try_from(end).ok()?))?
}

/// The bytes at `pointer`.
pub(super) fn slice(memory: &[u8], pointer: i32, len: i32) -> Option<&[u8]> {
    memory.get(place(memory.len(), pointer, len)?)
}

/// The bytes at `pointer`, to be written.
pub(super) fn slice_mut(memory: &mut [u8], pointer: i32, len: i32) -> Option<&mut [u8]> {
    let place = place(memory.len(), pointer, len)?;
    memory.get_mut(place)
}

/// Takes fuel for work of the host, which no instruction counts.
pub(super) fn charge(caller: &mut Caller<'_, Host>, fuel: u64) -> wasmtime::Result<()> {
    let left = caller.get_fuel()?;
    caller.set_fuel(left.saturating_sub(fuel))?;
    if left < fuel { Err(Trap::OutOfFuel.into()) } else { Ok(()) }
}

/// Takes fuel for bytes that a function of the host moves.
pub(super) fn charge_bytes(caller: &mut Caller<'_, Host>, len: i32) -> wasmtime::Result<()> {
    charge(caller, u64::from(len.cast_unsigned()) / BYTES_PER_FUEL)
}
