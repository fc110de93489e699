//! As much of WASI preview 1 as a guest has a use for: arguments, the three streams, the clock, random bytes, and the way
//! out. There are no files, so nothing but 0, 1 and 2 is a descriptor. What else a standard library imports before it knows
//! answers NOSYS; any other import is unknown.

use wasmtime::{Caller, Linker};

use super::host::{Exit, Host, charge, charge_bytes, reach, slice, slice_mut};

const MODULE: &str = "wasi_snapshot_preview1";

/// Error numbers of WASI.
const SUCCESS: i32 = 0;
const BADF: i32 = 8;
const FAULT: i32 = 21;
const INVAL: i32 = 28;
const IO: i32 = 29;
const NOSYS: i32 = 52;

/// Buffers in one call.
const BUFFERS_MAX: i32 = 1_024;
/// Random bytes in one call.
const RANDOM_BYTES_MAX: i32 = 1 << 20;
/// Clocks of WASI: real, monotonic, of the process, of the thread. All are the one there is.
const CLOCKS: std::ops::Range<i32> = 0..4;

pub(super) fn add(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.func_wrap(MODULE, "args_sizes_get", args_sizes_get)?;
    linker.func_wrap(MODULE, "args_get", args_get)?;
    linker.func_wrap(MODULE, "environ_sizes_get", environ_sizes_get)?;
    linker.func_wrap(MODULE, "environ_get", |_: i32, _: i32| SUCCESS)?;
    linker.func_wrap(MODULE, "fd_write", fd_write)?;
    linker.func_wrap(MODULE, "fd_read", fd_read)?;
    linker.func_wrap(MODULE, "fd_fdstat_get", fd_fdstat_get)?;
    linker.func_wrap(MODULE, "clock_time_get", clock_time_get)?;
    linker.func_wrap(MODULE, "clock_res_get", clock_res_get)?;
    linker.func_wrap(MODULE, "random_get", random_get)?;
    linker.func_wrap(MODULE, "sched_yield", || SUCCESS)?;
    linker.func_wrap(MODULE, "proc_exit", proc_exit)?;
    // No directory is open: a standard library asks for 3, 4, … until there is none.
    linker.func_wrap(MODULE, "fd_prestat_get", |_: i32, _: i32| BADF)?;
    linker.func_wrap(MODULE, "fd_prestat_dir_name", |_: i32, _: i32, _: i32| BADF)?;
    linker.func_wrap(MODULE, "fd_close", |_: i32| NOSYS)?;
    linker.func_wrap(MODULE, "fd_seek", |_: i32, _: i64, _: i32, _: i32| NOSYS)?;
    linker.func_wrap(MODULE, "fd_fdstat_set_flags", |_: i32, _: i32| NOSYS)?;
    linker.func_wrap(MODULE, "fd_filestat_get", |_: i32, _: i32| NOSYS)?;
    linker.func_wrap(MODULE, "poll_oneoff", |_: i32, _: i32, _: i32, _: i32| NOSYS)?;
    linker.func_wrap(
        MODULE,
        "path_open",
        |_: i32, _: i32, _: i32, _: i32, _: i32, _: i64, _: i64, _: i32, _: i32| NOSYS,
    )?;
    Ok(())
}

/// Writes numbers and bytes at places of the guest; FAULT if one of them is none, and then nothing behind it is written.
fn put(caller: &mut Caller<'_, Host>, all: &[(i32, &[u8])]) -> i32 {
    let (memory, _) = reach(caller);
    for (pointer, bytes) in all {
        let len = i32::try_from(bytes.len()).unwrap_or(-1);
        let Some(place) = slice_mut(memory, *pointer, len) else { return FAULT };
        place.copy_from_slice(bytes);
    }
    SUCCESS
}

fn word(memory: &[u8], at: i32) -> Option<i32> {
    Some(i32::from_le_bytes(slice(memory, at, 4)?.try_into().ok()?))
}

fn args_sizes_get(mut caller: Caller<'_, Host>, count: i32, bytes: i32) -> i32 {
    let argv = &caller.data().job.argv;
    let sizes = [argv.len(), argv.iter().map(|arg| arg.len() + 1).sum()].map(|size| u32::try_from(size).unwrap_or(0));
    put(&mut caller, &[(count, &sizes[0].to_le_bytes()), (bytes, &sizes[1].to_le_bytes())])
}

fn args_get(mut caller: Caller<'_, Host>, pointers: i32, bytes: i32) -> wasmtime::Result<i32> {
    let argv = caller.data().job.argv.clone();
    let (mut table, mut text) = (Vec::new(), Vec::new());
    for arg in &argv {
        let at = bytes.cast_unsigned().wrapping_add(u32::try_from(text.len()).unwrap_or(u32::MAX));
        table.extend_from_slice(&at.to_le_bytes());
        text.extend_from_slice(arg.as_bytes());
        text.push(0);
    }
    charge_bytes(&mut caller, i32::try_from(text.len()).unwrap_or(i32::MAX))?;
    Ok(put(&mut caller, &[(pointers, &table), (bytes, &text)]))
}

fn environ_sizes_get(mut caller: Caller<'_, Host>, count: i32, bytes: i32) -> i32 {
    put(&mut caller, &[(count, &[0; 4]), (bytes, &[0; 4])])
}

/// The places that a list of buffers names, and their bytes together.
fn buffers(memory: &[u8], list: i32, count: i32) -> Result<(Vec<(i32, i32)>, u64), i32> {
    if !(0..=BUFFERS_MAX).contains(&count) {
        return Err(INVAL);
    }
    let list = slice(memory, list, count * 8).ok_or(FAULT)?;
    let mut all = Vec::new();
    let mut sum = 0;
    for entry in list.chunks_exact(8) {
        let (pointer, len) = (word(entry, 0).ok_or(FAULT)?, word(entry, 4).ok_or(FAULT)?);
        slice(memory, pointer, len).ok_or(FAULT)?;
        sum += u64::from(len.cast_unsigned());
        all.push((pointer, len));
    }
    Ok((all, sum))
}

fn fd_write(mut caller: Caller<'_, Host>, fd: i32, list: i32, count: i32, written: i32) -> wasmtime::Result<i32> {
    let stream = match fd {
        1 => 0,
        2 => 1,
        _ => return Ok(BADF),
    };
    let (memory, _) = reach(&mut caller);
    let (all, sum) = match buffers(memory, list, count) {
        Ok(buffers) => buffers,
        Err(errno) => return Ok(errno),
    };
    // The same bytes can be named many times, so what counts is what is moved.
    charge(&mut caller, sum / 8)?;
    let (memory, host) = reach(&mut caller);
    for (pointer, len) in all {
        let Some(bytes) = slice(memory, pointer, len) else { return Ok(FAULT) };
        if host.write(stream, bytes)?.is_err() {
            return Ok(IO);
        }
    }
    Ok(put(&mut caller, &[(written, &u32::try_from(sum).unwrap_or(u32::MAX).to_le_bytes())]))
}

fn fd_read(mut caller: Caller<'_, Host>, fd: i32, list: i32, count: i32, read: i32) -> wasmtime::Result<i32> {
    if fd != 0 {
        return Ok(BADF);
    }
    let (memory, _) = reach(&mut caller);
    let all = match buffers(memory, list, count) {
        Ok((all, _)) => all,
        Err(errno) => return Ok(errno),
    };
    let (memory, host) = reach(&mut caller);
    let mut sum = 0;
    for (pointer, len) in all {
        let Some(place) = slice_mut(memory, pointer, len) else { return Ok(FAULT) };
        let left = &host.job.stdin.0[host.read..];
        let part = place.len().min(left.len());
        place[..part].copy_from_slice(&left[..part]);
        host.read += part;
        sum += part as u64;
    }
    charge(&mut caller, sum / 8)?;
    Ok(put(&mut caller, &[(read, &u32::try_from(sum).unwrap_or(u32::MAX).to_le_bytes())]))
}

/// ```text
/// type u8 = 0, unknown · pad u8 · flags u16 = 0 · pad u32 · rights u64: read 2, write 64 · rights of what is opened u64 = 0
/// ```
fn fd_fdstat_get(mut caller: Caller<'_, Host>, fd: i32, to: i32) -> i32 {
    let rights: u64 = match fd {
        0 => 1 << 1,
        1 | 2 => 1 << 6,
        _ => return BADF,
    };
    let mut stat = [0; 24];
    stat[8..16].copy_from_slice(&rights.to_le_bytes());
    put(&mut caller, &[(to, &stat)])
}

fn clock_time_get(mut caller: Caller<'_, Host>, clock: i32, _precision: i64, to: i32) -> i32 {
    if !CLOCKS.contains(&clock) {
        return INVAL;
    }
    let ns = caller.data_mut().clock_us().saturating_mul(1_000);
    put(&mut caller, &[(to, &ns.to_le_bytes())])
}

fn clock_res_get(mut caller: Caller<'_, Host>, clock: i32, to: i32) -> i32 {
    if !CLOCKS.contains(&clock) {
        return INVAL;
    }
    let ns = u64::from(caller.data().job.step_us.max(1)) * 1_000;
    put(&mut caller, &[(to, &ns.to_le_bytes())])
}

fn random_get(mut caller: Caller<'_, Host>, to: i32, len: i32) -> wasmtime::Result<i32> {
    if !(0..=RANDOM_BYTES_MAX).contains(&len) {
        return Ok(INVAL);
    }
    charge_bytes(&mut caller, len)?;
    let (memory, host) = reach(&mut caller);
    let Some(place) = slice_mut(memory, to, len) else { return Ok(FAULT) };
    host.random.fill(place);
    Ok(SUCCESS)
}

fn proc_exit(_: Caller<'_, Host>, status: i32) -> wasmtime::Result<()> {
    Err(wasmtime::Error::new(Exit(status)))
}
