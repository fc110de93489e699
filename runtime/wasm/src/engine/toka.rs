//! The imports of module `toka`. Each answers with a number of its own, below 0 where the guest has asked for something
//! that cannot be.
//!
//! ```text
//! params_len() -> i32                       bytes of the arguments, one JSON object
//! params_read(pointer, len) -> i32          copies the first of them; how many
//! result_write(pointer, len) -> i32         adds to the result; 0
//! log(level, pointer, len) -> i32           one line on standard error; level 0 error, 1 warn, 2 info, 3 debug; 0
//! cap_check(pointer, len) -> i32            0 if the call covers the scope of this text, else the code of the refusal
//! cap_list(pointer, len) -> i32             copies what the call covers, a scope a line; how long all of it is
//!
//! -1  a pointer or a length leads out of memory, or a level is none
//! -2  too much: of the result, of one line, or of questions
//! ```

use toka_kernel::capability::Scope;
use toka_kernel::denial::Code;
use wasmtime::{Caller, Linker};

use super::host::{Host, charge, charge_bytes, reach, slice, slice_mut};

const WRONG: i32 = -1;
const TOO_MUCH: i32 = -2;

/// Questions that one call may ask.
const QUESTIONS_MAX: u32 = 10_000;
/// Fuel that a question costs beside its bytes.
const QUESTION_FUEL: u64 = 500;
/// Bytes of the text of a scope.
const SCOPE_BYTES_MAX: usize = 1_024;
/// Bytes of one line of the log.
const LINE_BYTES_MAX: usize = 64 << 10;
const LEVELS: [&str; 4] = ["error", "warn", "info", "debug"];

pub(super) fn add(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.func_wrap("toka", "params_len", |caller: Caller<'_, Host>| length(caller.data().job.params.0.len()))?;
    linker.func_wrap("toka", "params_read", params_read)?;
    linker.func_wrap("toka", "result_write", result_write)?;
    linker.func_wrap("toka", "log", log)?;
    linker.func_wrap("toka", "cap_check", cap_check)?;
    linker.func_wrap("toka", "cap_list", cap_list)?;
    Ok(())
}

fn length(len: usize) -> i32 {
    i32::try_from(len).unwrap_or(i32::MAX)
}

/// Copies as much of `from` as fits; the count, or [`WRONG`].
fn copied(to: Option<&mut [u8]>, from: &[u8]) -> i32 {
    let Some(to) = to else { return WRONG };
    let count = to.len().min(from.len());
    to[..count].copy_from_slice(&from[..count]);
    length(count)
}

fn params_read(mut caller: Caller<'_, Host>, pointer: i32, len: i32) -> wasmtime::Result<i32> {
    let most = length(caller.data().job.params.0.len());
    charge_bytes(&mut caller, if (0..most).contains(&len) { len } else { most })?;
    let (memory, host) = reach(&mut caller);
    Ok(copied(slice_mut(memory, pointer, len), &host.job.params.0))
}

fn result_write(mut caller: Caller<'_, Host>, pointer: i32, len: i32) -> wasmtime::Result<i32> {
    charge_bytes(&mut caller, len)?;
    let (memory, host) = reach(&mut caller);
    let Some(bytes) = slice(memory, pointer, len) else { return Ok(WRONG) };
    let result = host.result.get_or_insert_default();
    if (result.len() + bytes.len()) as u64 > host.job.result_max {
        return Ok(TOO_MUCH);
    }
    result.extend_from_slice(bytes);
    Ok(0)
}

fn log(mut caller: Caller<'_, Host>, level: i32, pointer: i32, len: i32) -> wasmtime::Result<i32> {
    let Some(level) = usize::try_from(level).ok().and_then(|level| LEVELS.get(level)) else { return Ok(WRONG) };
    charge_bytes(&mut caller, len)?;
    let (memory, host) = reach(&mut caller);
    let Some(text) = slice(memory, pointer, len) else { return Ok(WRONG) };
    if text.len() > LINE_BYTES_MAX {
        return Ok(TOO_MUCH);
    }
    let line = [level.as_bytes(), b": ", text, b"\n"].concat();
    // A stream that is closed ends the call soon enough.
    Ok(if host.write(1, &line)?.is_ok() { 0 } else { WRONG })
}

fn cap_check(mut caller: Caller<'_, Host>, pointer: i32, len: i32) -> wasmtime::Result<i32> {
    let cost = QUESTION_FUEL + u64::from(len.cast_unsigned()).min(SCOPE_BYTES_MAX as u64);
    charge(&mut caller, cost)?;
    let (memory, host) = reach(&mut caller);
    if host.asked == QUESTIONS_MAX {
        return Ok(TOO_MUCH);
    }
    let Some(text) = slice(memory, pointer, len).filter(|text| text.len() <= SCOPE_BYTES_MAX) else {
        return Ok(WRONG);
    };
    host.asked += 1;
    let answer = covered(&host.envelope, text);
    host.denied += u32::from(answer.is_err());
    Ok(answer.map_or_else(|code| i32::from(code.number()), |()| 0))
}

/// Whether one of the scopes of a call covers what the text says, by the rules of the kernel.
fn covered(envelope: &[Scope], text: &[u8]) -> Result<(), Code> {
    let text = std::str::from_utf8(text).map_err(|_| Code::Malformed)?;
    let asked = Scope::parse(text).map_err(|error| error.code)?;
    if envelope.iter().any(|scope| asked.within(scope).is_ok()) { Ok(()) } else { Err(Code::OutOfScope) }
}

fn cap_list(mut caller: Caller<'_, Host>, pointer: i32, len: i32) -> wasmtime::Result<i32> {
    let all = caller.data().job.envelope.join("\n");
    charge_bytes(&mut caller, length(all.len()))?;
    let (memory, _) = reach(&mut caller);
    let count = copied(slice_mut(memory, pointer, len), all.as_bytes());
    Ok(if count == WRONG { WRONG } else { length(all.len()) })
}
