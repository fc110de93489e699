//! Tools that run code which comes with the call: `code.python`, `code.shell`, `code.wasm`.
//!
//! Each is a foreign program whose main file is the argument `source`. It is confined like any other at level `strong`,
//! and no need of its own opens a file, a network or another tool to it.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use toka_kernel::denial::Dim;
use toka_kernel::hash::{Context, derive};
use toka_kernel::limits::ARGUMENT_BYTES_MAX;
use toka_kernel::tool::{
    ArgvItem, Effect, Items, Level, Model, Outputs, ParamSpec, ParamType, Pass, Reserve, ResultKind, Run, RunKind,
    SOURCE, Sandbox, Stdin, ToolSpec, WasmLimits,
};

/// The first part of the names of tools that run code.
pub const CODE_PREFIX: &str = "code.";

/// The types of code of this version: the second part of the names, what runs it, and the name of the main file.
const TYPES: [(&str, RunKind, &str, &str); 3] = [
    (
        "python",
        RunKind::Python,
        "main.py",
        "Runs Python source that comes with the call, in a jail without files and network.",
    ),
    (
        "shell",
        RunKind::Shell,
        "main.sh",
        "Runs shell source that comes with the call, in a jail without files and network.",
    ),
    (
        "wasm",
        RunKind::Wasm,
        "main.wasm",
        "Runs a WASM module that comes with the call, in a jail without files and network.",
    ),
];

/// Bytes of a module.
pub const WASM_BYTES_MAX: usize = 32 << 20;
/// Bytes of one of the arguments that the code is started with.
const ARG_BYTES_MAX: u32 = 64 << 10;
/// Elements of them.
const ARGS_MAX: u32 = 256;

/// The words by which types of code are named.
pub fn code_types() -> Vec<&'static str> {
    TYPES.iter().map(|(word, ..)| *word).collect()
}

/// The tools that run code, ascending by name.
pub fn code_tools() -> Vec<ToolSpec> {
    TYPES.iter().map(|(word, kind, file, description)| spec(word, *kind, file, description)).collect()
}

const VERSION: &str = "1.0.0";

fn spec(word: &str, kind: RunKind, file: &str, description: &str) -> ToolSpec {
    let name = format!("{CODE_PREFIX}{word}");
    let parts = ["code", &name, VERSION, env!("CARGO_PKG_VERSION")];
    let run = Run {
        kind: kind.number(),
        path: file.to_owned(),
        files: Vec::new(),
        toolchain: match kind {
            RunKind::Python => Some("python3".to_owned()),
            RunKind::Shell => Some("sh".to_owned()),
            RunKind::Executable | RunKind::Wasm => None,
        },
        requires: Vec::new(),
        pass: Pass {
            argv: vec![ArgvItem::Rest("args".to_owned())],
            env: BTreeMap::new(),
            stdin: Stdin::Param("stdin".to_owned()),
        },
        outputs: Outputs { result: ResultKind::Text.number(), artifacts: Vec::new() },
        sandbox: Sandbox { wasm: (kind == RunKind::Wasm).then(WasmLimits::default), ..Sandbox::default() },
    };
    let fixed = |dim: Dim, base: u64| Reserve { dim: dim.number(), base, per: 0, pointer: None };
    ToolSpec {
        program: derive(Context::Program, &[parts.join("\0").as_bytes()]),
        name,
        version: VERSION.to_owned(),
        description: description.to_owned(),
        facts: Vec::new(),
        needs: Vec::new(),
        // Nobody has said of this code what running it twice does.
        effect: Effect::Once.number(),
        reserve: vec![
            fixed(Dim::BytesIn, ARGUMENT_BYTES_MAX as u64),
            fixed(Dim::BytesOut, run.bytes_out_max()),
            fixed(Dim::Tokens, 0),
            fixed(Dim::CostMicro, 0),
            fixed(Dim::WallUs, run.sandbox.limits.wall_us),
            fixed(Dim::CpuUs, run.sandbox.limits.cpu_us),
        ],
        model: Model::Code.number(),
        level: Level::Strong.number(),
        parallel_safe: true,
        params: params(kind),
        result: "What it wrote to standard output, as a JSON string.".to_owned(),
        labels: BTreeMap::new(),
        run: Some(run),
        probe: None,
    }
}

fn params(kind: RunKind) -> Vec<ParamSpec> {
    let text = |name: &str, required: bool, description: &str| ParamSpec {
        name: name.to_owned(),
        kind: ParamType::String.number(),
        required,
        default: None,
        min: None,
        max: None,
        max_len: u32::try_from(ARGUMENT_BYTES_MAX).ok(),
        values: Vec::new(),
        description: description.to_owned(),
        items: None,
    };
    let source = match kind {
        RunKind::Wasm => "The module in base64, with everything else at most 1 MiB",
        RunKind::Python | RunKind::Shell | RunKind::Executable => "The source, with everything else at most 1 MiB",
    };
    let element = Items {
        kind: ParamType::String.number(),
        min: None,
        max: None,
        max_len: Some(ARG_BYTES_MAX),
        values: Vec::new(),
    };
    let args = ParamSpec {
        kind: ParamType::Array.number(),
        max_len: Some(ARGS_MAX),
        items: Some(element),
        ..text("args", false, "What it finds on its command line")
    };
    vec![args, text(SOURCE, true, source), text("stdin", false, "What it reads from standard input")]
}

/// Why bytes are no module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WasmFault {
    /// More than 32 MiB.
    #[error("a module has at most 32 MiB")]
    TooLarge,
    /// The text of a module.
    #[error("it is the text of a module, and only binary modules run")]
    Text,
    /// Neither.
    #[error("it is no WASM module")]
    NotModule,
}

impl WasmFault {
    /// What to do.
    pub fn hint(self) -> &'static str {
        match self {
            WasmFault::TooLarge => "leave out what the module does not need, such as debug sections",
            WasmFault::Text => "assemble it first, with `wat2wasm` or `wasm-tools parse`",
            WasmFault::NotModule => "core modules of version 1 run, and components do not",
        }
    }
}

/// Whether bytes can be a module: their length and how they begin.
///
/// # Errors
/// Why not.
pub fn check_wasm(bytes: &[u8]) -> Result<(), WasmFault> {
    match bytes {
        _ if bytes.len() > WASM_BYTES_MAX => Err(WasmFault::TooLarge),
        _ if bytes.starts_with(b"\0asm\x01\0\0\0") => Ok(()),
        _ if bytes.trim_ascii_start().starts_with(b"(") => Err(WasmFault::Text),
        _ => Err(WasmFault::NotModule),
    }
}

/// Why the source of a call cannot be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceFault {
    /// There is none.
    #[error("there is no source")]
    Missing,
    /// A module that is not in base64.
    #[error("it is not in base64")]
    NotBase64,
    /// No module.
    #[error(transparent)]
    Wasm(#[from] WasmFault),
}

/// The bytes of the main file that `arguments` hold, for a tool whose model is [`Model::Code`].
///
/// # Errors
/// Why there are none.
pub fn source_of(spec: &ToolSpec, arguments: &Value) -> Result<Vec<u8>, SourceFault> {
    let text = arguments.get(SOURCE).and_then(Value::as_str).ok_or(SourceFault::Missing)?;
    if spec.run.as_ref().is_none_or(|run| run.kind != RunKind::Wasm.number()) {
        return Ok(text.as_bytes().to_vec());
    }
    if text.trim_start().starts_with('(') {
        return Err(WasmFault::Text.into());
    }
    let module = STANDARD.decode(text).map_err(|_| SourceFault::NotBase64)?;
    check_wasm(&module)?;
    Ok(module)
}
