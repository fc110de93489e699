//! What can be seen of a module before anything is made of it: whether it is one, and how large it is.

use wasmparser::{Parser, Payload, TypeRef};

use crate::words::{Job, MODULE_BYTES_MAX};

const FUNCTIONS_MAX: u64 = 100_000;
const FUNCTIONS_PER_MIB: u64 = 20_000;
const GLOBALS_MAX: u64 = 10_000;
const TABLES_MAX: u64 = 4;
const MEMORIES_MAX: u64 = 1;
/// Bytes of a page of memory.
const PAGE: u64 = 64 << 10;

/// The first eight bytes of a module: the mark of the format, and version 1.
const MODULE: [u8; 8] = *b"\0asm\x01\0\0\0";

/// Why a module is not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unfit {
    /// In a word, for the outcome.
    pub(super) symbol: &'static str,
    /// For people.
    pub(super) why: String,
}

impl Unfit {
    pub(super) fn new(symbol: &'static str, why: impl Into<String>) -> Unfit {
        Unfit { symbol, why: why.into() }
    }
}

/// How much of each kind a module has, its imports included.
#[derive(Default)]
struct Counts {
    functions: u64,
    globals: u64,
    tables: u64,
    memories: u64,
}

/// Checks a module before it is compiled. What else must hold of it the engine says.
pub(super) fn check(job: &Job, bytes: &[u8]) -> Result<(), Unfit> {
    if bytes.len() > MODULE_BYTES_MAX {
        return Err(Unfit::new("too-large", "a module has at most 32 MiB"));
    }
    match bytes.get(..MODULE.len()) {
        Some(start) if start == MODULE => {}
        Some(start) if start.starts_with(b"\0asm") => {
            return Err(Unfit::new(
                "not-module",
                "it is a component or of another version; core modules of version 1 run",
            ));
        }
        Some(_) | None if bytes.trim_ascii_start().starts_with(b"(") => {
            return Err(Unfit::new("text", "it is text; assemble it, with `wat2wasm` or `wasm-tools parse`"));
        }
        Some(_) | None => return Err(Unfit::new("not-wasm", "it does not begin as a module does")),
    }
    let mut counts = Counts::default();
    for payload in Parser::new(0).parse_all(bytes) {
        let malformed = |error: wasmparser::BinaryReaderError| Unfit::new("invalid", error.to_string());
        count(&payload.map_err(malformed)?, job, &mut counts)?;
    }
    let mib = (bytes.len() as u64).div_ceil(1 << 20);
    let bounds = [
        ("functions", counts.functions, FUNCTIONS_MAX.min(mib * FUNCTIONS_PER_MIB)),
        ("globals", counts.globals, GLOBALS_MAX),
        ("tables", counts.tables, TABLES_MAX),
        ("memories", counts.memories, MEMORIES_MAX),
    ];
    match bounds.into_iter().find(|(_, count, most)| count > most) {
        Some((what, count, most)) => {
            Err(Unfit::new(what, format!("it has {count} {what}, at most {most} are allowed")))
        }
        None => Ok(()),
    }
}

fn count(payload: &Payload<'_>, job: &Job, counts: &mut Counts) -> Result<(), Unfit> {
    let malformed = |error: wasmparser::BinaryReaderError| Unfit::new("invalid", error.to_string());
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the format grows, and what is not counted is the engine's to judge"
    )]
    match payload {
        Payload::FunctionSection(functions) => counts.functions += u64::from(functions.count()),
        Payload::GlobalSection(globals) => counts.globals += u64::from(globals.count()),
        Payload::TableSection(tables) => {
            counts.tables += u64::from(tables.count());
            for table in tables.clone() {
                table_fits(table.map_err(malformed)?.ty.initial, job)?;
            }
        }
        Payload::MemorySection(memories) => {
            counts.memories += u64::from(memories.count());
            for memory in memories.clone() {
                memory_fits(memory.map_err(malformed)?.initial, job)?;
            }
        }
        Payload::ImportSection(imports) => {
            for import in imports.clone().into_imports() {
                match import.map_err(malformed)?.ty {
                    TypeRef::Func(_) => counts.functions += 1,
                    TypeRef::Global(_) => counts.globals += 1,
                    TypeRef::Table(_) => counts.tables += 1,
                    TypeRef::Memory(_) => counts.memories += 1,
                    _ => {}
                }
            }
        }
        _ => {}
    }
    Ok(())
}

fn memory_fits(pages: u64, job: &Job) -> Result<(), Unfit> {
    let bytes = pages.saturating_mul(PAGE);
    let why = || format!("it begins with {bytes} bytes of memory, at most {} are allowed", job.memory_bytes);
    if bytes <= job.memory_bytes { Ok(()) } else { Err(Unfit::new("memory", why())) }
}

fn table_fits(elements: u64, job: &Job) -> Result<(), Unfit> {
    let why = || format!("it begins with a table of {elements} elements, at most {} are allowed", job.table_elements);
    if elements <= job.table_elements { Ok(()) } else { Err(Unfit::new("table", why())) }
}
