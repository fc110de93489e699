//! How the arguments of a call reach a foreign program: a pure function of the spec and the admitted bytes.
//!
//! Every item of the mapping gives whole entries of the command line, and no shell reads any of it as text. A path
//! arrives as `/roots/<root>/<relative>`, a host in the form in which authority saw it, and what was not given has its
//! default.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use toka_kernel::denial::Code;
use toka_kernel::facts::{FactType, host};
use toka_kernel::ids::{CallId, SessionId, TimeUs};
use toka_kernel::tool::{ArgvItem, FIXED_ENV, Model, ParamType, Run, RunKind, Stdin, ToolSpec, place};

use crate::json::canonical;
use crate::params::{ArgumentError, Rule, broken, check, located};

/// Bytes of a command line, and of an environment, each entry with the NUL behind it.
pub const COMMAND_LINE_BYTES_MAX: usize = 128 << 10;
/// Where a program finds its arguments as a file, whatever its mapping says.
pub const PARAMS_FILE: &str = "/run/params.json";

/// What the program is told of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallNames {
    /// The call; the same over all attempts, so a program can tell a repetition by it.
    pub call: CallId,
    /// Its session.
    pub session: SessionId,
    /// The time of the entry that admitted it: what a program takes "today" from.
    pub time_us: TimeUs,
}

/// What is started, apart from its sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// The toolchain whose binary is executed; without one it is `argv[0]`.
    pub toolchain: Option<String>,
    /// The whole command line, the name of the program included; no entry holds a NUL.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// The standard input.
    pub stdin: Vec<u8>,
    /// The content of [`PARAMS_FILE`]: the arguments as the program shall see them, canonical JSON.
    pub params_json: Vec<u8>,
}

/// What a call of the foreign tool `spec` with these admitted arguments starts.
///
/// # Errors
/// Arguments that do not fit the spec, or cannot be passed as it says: an entry that would be read as a flag, or too
/// much for a command line. [`crate::prepare`] refuses the same arguments before a call is made of them.
pub fn invocation(spec: &ToolSpec, arguments: &[u8], names: &CallNames) -> Result<Invocation, ArgumentError> {
    invocation_below("", spec, arguments, names)
}

/// As [`invocation`], for a program without a root of its own: whatever it finds by an absolute path of the jail
/// otherwise lies below `top`, which is an absolute path of the machine without a `/` at its end.
///
/// # Errors
/// As [`invocation`].
pub fn invocation_below(
    top: &str,
    spec: &ToolSpec,
    arguments: &[u8],
    names: &CallNames,
) -> Result<Invocation, ArgumentError> {
    let run = spec.run.as_ref().ok_or_else(|| broken("", Rule::Spec))?;
    let given = check(spec, arguments)?;
    let seen = seen(spec, given, top)?;
    let passed = pass(spec, run, &seen)?;
    let mut env = passed.env;
    for name in ["HOME", "TMPDIR"] {
        if let Some(path) = env.get_mut(name) {
            path.insert_str(0, top);
        }
    }
    env.insert("TOKA_CALL_ID".to_owned(), names.call.to_string());
    env.insert("TOKA_SESSION".to_owned(), names.session.to_string());
    env.insert("TOKA_TIME_US".to_owned(), names.time_us.to_string());
    env.insert("TOKA_PARAMS".to_owned(), format!("{top}{PARAMS_FILE}"));
    let params_json = canonical(&Value::Object(seen)).map_err(|error| broken("", error.what))?;
    let stdin = match &run.pass.stdin {
        Stdin::None => Vec::new(),
        Stdin::Json => params_json.clone(),
        Stdin::Param(_) => passed.stdin,
    };
    let mut argv = start(run, top);
    argv.extend(passed.argv);
    Ok(Invocation { toolchain: run.toolchain.clone(), argv, env, stdin, params_json })
}

/// Whether a tool could be handed these arguments. A tool without a foreign program can always.
pub(crate) fn check_passing(spec: &ToolSpec, arguments: &Value) -> Result<(), ArgumentError> {
    match &spec.run {
        None => Ok(()),
        Some(run) => pass(spec, run, &seen(spec, arguments.clone(), "")?).map(drop),
    }
}

/// The entries before the arguments.
fn start(run: &Run, top: &str) -> Vec<String> {
    let main = format!("{top}{}", place(&run.path));
    let words: &[&str] = match RunKind::from_number(run.kind) {
        // No site packages of a user, no bytecode written beside the sources.
        Some(RunKind::Python) => &["python3", "-s", "-B"],
        Some(RunKind::Shell) => &["sh"],
        Some(RunKind::Executable | RunKind::Wasm) | None => &[],
    };
    words.iter().map(|word| (*word).to_owned()).chain([main]).collect()
}

/// The arguments as the program shall see them.
fn seen(spec: &ToolSpec, arguments: Value, top: &str) -> Result<Map<String, Value>, ArgumentError> {
    let Value::Object(mut members) = arguments else { return Err(broken("", Rule::NotObject)) };
    for param in &spec.params {
        if let (false, Some(default)) = (members.contains_key(&param.name), &param.default) {
            let value = serde_json::from_str(default).map_err(|_| broken(&param.name, Rule::Spec))?;
            members.insert(param.name.clone(), value);
        }
    }
    let mut whole = Value::Object(members);
    for fact in &spec.facts {
        let Some(Value::String(text)) = whole.pointer_mut(&fact.pointer) else { continue };
        match FactType::from_number(fact.kind) {
            Some(FactType::Path) => *text = format!("{top}{}", mounted(text)),
            Some(FactType::Host) => *text = host(text).ok_or_else(|| broken("", Rule::Spec))?,
            Some(FactType::Int | FactType::Bool | FactType::Str) | None => {}
        }
    }
    match whole {
        Value::Object(members) => Ok(members),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(broken("", Rule::NotObject))
        }
    }
}

/// `root:relative` as the path in the sandbox.
fn mounted(path: &str) -> String {
    match path.split_once(':') {
        Some((root, "")) => format!("/roots/{root}"),
        Some((root, relative)) => format!("/roots/{root}/{relative}"),
        None => path.to_owned(),
    }
}

#[derive(Default)]
struct Passed {
    argv: Vec<String>,
    env: BTreeMap<String, String>,
    stdin: Vec<u8>,
}

fn pass(spec: &ToolSpec, run: &Run, seen: &Map<String, Value>) -> Result<Passed, ArgumentError> {
    let mut passed = Passed::default();
    let text = |name: &String| {
        let kind = spec.params.iter().find(|param| param.name == *name);
        let kind = kind.and_then(|param| ParamType::from_number(param.kind)).ok_or_else(|| broken(name, Rule::Spec))?;
        seen.get(name).map(|value| text(name, kind, value)).transpose()
    };
    // Behind it nothing is read as a flag.
    // Nor where the caller wrote the program as well: there is no other one to mislead.
    let mut behind = spec.model == Model::Code.number();
    for item in &run.pass.argv {
        match item {
            ArgvItem::Const(word) => {
                behind |= word == "--";
                passed.argv.push(word.clone());
            }
            ArgvItem::Param(name) => {
                if let Some(text) = text(name)? {
                    passed.argv.push(in_place(text, behind, || broken(name, Rule::LeadingDash))?);
                }
            }
            ArgvItem::FlagWhen { flag, when } => {
                if seen.get(when) == Some(&Value::Bool(true)) {
                    passed.argv.push(flag.clone());
                }
            }
            ArgvItem::FlagParam { flag, param, join } => match text(param)? {
                Some(text) if *join => passed.argv.push(format!("{flag}={text}")),
                Some(text) => {
                    passed.argv.push(flag.clone());
                    passed.argv.push(in_place(text, false, || broken(param, Rule::LeadingDash))?);
                }
                None => {}
            },
            ArgvItem::Rest(name) => {
                let elements = seen.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                for (index, element) in elements.iter().enumerate() {
                    let text = scalar(name, element)?;
                    let pointer = format!("/{name}/{index}");
                    let dash = || located(Code::BadArguments, pointer, Rule::LeadingDash);
                    passed.argv.push(in_place(text, behind, dash)?);
                }
            }
        }
    }
    if let Stdin::Param(name) = &run.pass.stdin {
        passed.stdin = text(name)?.unwrap_or_default().into_bytes();
    }
    let fixed = FIXED_ENV.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    passed.env.extend(fixed);
    passed.env.extend(run.sandbox.env.clone());
    for (name, param) in &run.pass.env {
        if let Some(text) = text(param)? {
            passed.env.insert(name.clone(), text);
        }
    }
    let argv: usize = passed.argv.iter().map(|entry| entry.len() + 1).sum();
    let env: usize = passed.env.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    if argv.max(env) > COMMAND_LINE_BYTES_MAX {
        return Err(broken("", Rule::CommandLine(COMMAND_LINE_BYTES_MAX)));
    }
    Ok(passed)
}

/// A value that stands for itself, which a program must not take for a flag.
fn in_place(text: String, behind: bool, error: impl FnOnce() -> ArgumentError) -> Result<String, ArgumentError> {
    if text.starts_with('-') && !behind { Err(error()) } else { Ok(text) }
}

fn text(name: &str, kind: ParamType, value: &Value) -> Result<String, ArgumentError> {
    match kind {
        ParamType::Json => {
            let bytes = canonical(value).map_err(|error| broken(name, error.what))?;
            String::from_utf8(bytes).map_err(|_| broken(name, Rule::Spec))
        }
        ParamType::String
        | ParamType::Integer
        | ParamType::Boolean
        | ParamType::Enum
        | ParamType::Path
        | ParamType::Host => scalar(name, value),
        ParamType::Array => Err(broken(name, Rule::Spec)),
    }
}

/// A scalar as text; never one with a NUL, which would end an entry early.
fn scalar(name: &str, value: &Value) -> Result<String, ArgumentError> {
    match value {
        Value::String(text) if text.contains('\0') => Err(broken(name, Rule::Nul)),
        Value::String(text) => Ok(text.clone()),
        Value::Bool(bit) => Ok(bit.to_string()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => Err(broken(name, Rule::Spec)),
    }
}
