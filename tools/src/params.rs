//! Checks arguments against the parameters of a tool.

use serde_json::{Map, Value};
use toka_kernel::denial::Code;
use toka_kernel::facts::{Extracted, Fact, FactsFault, extract, host, is_path};
use toka_kernel::limits::{ARGUMENT_BYTES_MAX, ARRAY_ITEMS_MAX, SCALAR_BYTES_MAX};
use toka_kernel::tool::{Model, ParamSpec, ParamType, SOURCE, ToolSpec};

use crate::code::{SourceFault, WasmFault, source_of};
use crate::invocation::check_passing;
use crate::json::{JsonFault, canonicalise};

/// Arguments that fit their tool, in the form in which a call carries them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Canonical JSON: the bytes of the argument blob.
    pub arguments: Vec<u8>,
    /// The declared facts among them.
    pub facts: Vec<Fact>,
    /// Whether they hold anything else.
    pub extra: bool,
}

/// Why arguments do not fit. Says where and which rule, never the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code} at \"{pointer}\": {rule}")]
pub struct ArgumentError {
    /// `BAD_ARGUMENTS`; `BAD_PATH` or `BAD_HOST` where the grammar of one is broken, `UNSUPPORTED_CODE_TYPE` for code that
    /// is not of its type.
    pub code: Code,
    /// A JSON pointer of at most 256 bytes.
    pub pointer: String,
    /// The rule.
    pub rule: Rule,
}

/// A rule that arguments must keep.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rule {
    /// The text is no JSON that has a canonical form.
    #[error(transparent)]
    Json(#[from] JsonFault),
    /// The walker of the facts refuses it.
    #[error(transparent)]
    Facts(#[from] FactsFault),
    /// Arguments are an object.
    #[error("not an object")]
    NotObject,
    /// No parameter has this name.
    #[error("no such parameter")]
    Unknown,
    /// A required argument is not there.
    #[error("required")]
    Missing,
    /// Of another type.
    #[error("not of type {0}")]
    Type(ParamType),
    /// Below the least integer.
    #[error("less than {0}")]
    Min(i64),
    /// Above the greatest integer.
    #[error("greater than {0}")]
    Max(i64),
    /// Too many bytes.
    #[error("longer than {0} bytes")]
    MaxLen(u32),
    /// Too many elements.
    #[error("more than {0} elements")]
    Count(u32),
    /// A string with the character U+0000.
    #[error("holds a NUL")]
    Nul,
    /// None of the words of an enum.
    #[error("none of: {}", .0.join(", "))]
    Values(Vec<String>),
    /// It would stand where a program looks for flags.
    #[error("begins with `-` where it could be taken for a flag")]
    LeadingDash,
    /// The command line or the environment would be too long.
    #[error("more than {0} bytes on the command line or in the environment")]
    CommandLine(usize),
    /// Code that cannot be run.
    #[error(transparent)]
    Source(#[from] SourceFault),
    /// The spec itself is broken.
    #[error("the tool spec is broken")]
    Spec,
}

impl ArgumentError {
    /// The error as a value, for the blob of a refusal.
    pub fn detail(&self) -> Value {
        serde_json::json!({ "pointer": self.pointer, "rule": self.rule.to_string() })
    }
}

/// Makes canonical arguments and their facts of the text that somebody sent.
pub fn prepare(spec: &ToolSpec, text: &str) -> Result<Prepared, ArgumentError> {
    let arguments = canonicalise(text).map_err(|error| broken("", error.what))?;
    let (value, Extracted { facts, extra }) = read(spec, &arguments)?;
    check_passing(spec, &value)?;
    if spec.model == Model::Code.number() {
        source_of(spec, &value).map_err(|fault| {
            let code = match fault {
                SourceFault::Wasm(WasmFault::Text | WasmFault::NotModule) => Code::UnsupportedCodeType,
                SourceFault::Wasm(WasmFault::TooLarge) | SourceFault::Missing | SourceFault::NotBase64 => {
                    Code::BadArguments
                }
            };
            ArgumentError { code, ..broken(SOURCE, Rule::Source(fault)) }
        })?;
    }
    Ok(Prepared { arguments, facts, extra })
}

/// Reads canonical arguments and checks them once more, as whoever runs the tool must.
///
/// Defaults are not filled in: the tool applies them, so that the bytes stay what the caller meant.
pub fn check(spec: &ToolSpec, arguments: &[u8]) -> Result<Value, ArgumentError> {
    read(spec, arguments).map(|(value, _)| value)
}

fn read(spec: &ToolSpec, arguments: &[u8]) -> Result<(Value, Extracted), ArgumentError> {
    // Without facts the walker only checks the form; parameters speak first, since their rules say more.
    extract(arguments, &[]).map_err(|error| located(error.code, error.pointer, error.what))?;
    let value = serde_json::from_slice(arguments).map_err(|_| broken("", JsonFault::Syntax))?;
    check_object(&spec.params, &value)?;
    let facts = spec.fact_specs().map_err(|_| broken("", Rule::Spec))?;
    let found = extract(arguments, &facts).map_err(|error| located(error.code, error.pointer, error.what))?;
    Ok((value, found))
}

/// Reads the text that somebody sent as arguments for parameters that belong to no tool.
///
/// # Errors
/// The first rule that does not hold, as [`prepare`] finds it.
pub fn check_members(params: &[ParamSpec], text: &str) -> Result<Map<String, Value>, ArgumentError> {
    let arguments = canonicalise(text).map_err(|error| broken("", error.what))?;
    let value: Value = serde_json::from_slice(&arguments).map_err(|_| broken("", JsonFault::Syntax))?;
    check_object(params, &value)?;
    if let Value::Object(members) = value { Ok(members) } else { Err(broken("", Rule::NotObject)) }
}

fn check_object(params: &[ParamSpec], value: &Value) -> Result<(), ArgumentError> {
    let members: &Map<String, Value> = value.as_object().ok_or_else(|| broken("", Rule::NotObject))?;
    for (name, value) in members {
        let param = params.iter().find(|param| param.name == *name);
        check_value(param.ok_or_else(|| broken(name, Rule::Unknown))?, value)?;
    }
    match params.iter().find(|param| param.required && !members.contains_key(&param.name)) {
        Some(param) => Err(broken(&param.name, Rule::Missing)),
        None => Ok(()),
    }
}

/// Checks one value against its parameter.
pub(crate) fn check_value(param: &ParamSpec, value: &Value) -> Result<(), ArgumentError> {
    let kind = ParamType::from_number(param.kind).ok_or_else(|| broken(&param.name, Rule::Spec))?;
    let fails = |rule: Rule| broken(&param.name, rule);
    let wrong = || fails(Rule::Type(kind));
    match kind {
        ParamType::Boolean | ParamType::Integer | ParamType::String | ParamType::Enum => {
            check_scalar(kind, (param.min, param.max, param.max_len, &param.values), value).map_err(fails)
        }
        ParamType::Path if !is_path(value.as_str().ok_or_else(wrong)?) => {
            Err(ArgumentError { code: Code::BadPath, ..fails(Rule::Facts(FactsFault::Path)) })
        }
        ParamType::Host if host(value.as_str().ok_or_else(wrong)?).is_none() => {
            Err(ArgumentError { code: Code::BadHost, ..fails(Rule::Facts(FactsFault::Host)) })
        }
        ParamType::Path | ParamType::Host => Ok(()),
        ParamType::Array => check_array(param, value.as_array().ok_or_else(wrong)?),
        ParamType::Json => check_json(value).map_err(fails),
    }
}

type Bounds<'a> = (Option<i64>, Option<i64>, Option<u32>, &'a [String]);

fn check_scalar(kind: ParamType, (min, max, max_len, values): Bounds<'_>, value: &Value) -> Result<(), Rule> {
    let wrong = || Rule::Type(kind);
    match kind {
        ParamType::Boolean => value.as_bool().map(drop).ok_or_else(wrong),
        ParamType::Integer => check_integer(min, max, value.as_i64().ok_or_else(wrong)?),
        ParamType::String => check_string(max_len, value.as_str().ok_or_else(wrong)?),
        ParamType::Enum => check_enum(values, value.as_str().ok_or_else(wrong)?),
        ParamType::Path | ParamType::Host | ParamType::Array | ParamType::Json => Err(Rule::Spec),
    }
}

fn check_array(param: &ParamSpec, elements: &[Value]) -> Result<(), ArgumentError> {
    let items = param.items.as_ref().ok_or_else(|| broken(&param.name, Rule::Spec))?;
    let kind = ParamType::from_number(items.kind).ok_or_else(|| broken(&param.name, Rule::Spec))?;
    let most = param.max_len.unwrap_or(ARRAY_ITEMS_MAX);
    if u32::try_from(elements.len()).is_ok_and(|count| count > most) {
        return Err(broken(&param.name, Rule::Count(most)));
    }
    for (index, element) in elements.iter().enumerate() {
        check_scalar(kind, (items.min, items.max, items.max_len, &items.values), element).map_err(|rule| {
            let pointer = format!("/{}/{index}", param.name);
            located(Code::BadArguments, pointer, rule)
        })?;
    }
    Ok(())
}

/// No program can be handed a NUL, wherever it stands. Depth is bounded by the canonical form.
fn check_json(value: &Value) -> Result<(), Rule> {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
        Value::String(text) if text.contains('\0') => Err(Rule::Nul),
        Value::String(_) => Ok(()),
        Value::Array(elements) => elements.iter().try_for_each(check_json),
        Value::Object(members) if members.keys().any(|name| name.contains('\0')) => Err(Rule::Nul),
        Value::Object(members) => members.values().try_for_each(check_json),
    }
}

fn check_integer(min: Option<i64>, max: Option<i64>, value: i64) -> Result<(), Rule> {
    match (min, max) {
        (Some(min), _) if value < min => Err(Rule::Min(min)),
        (_, Some(max)) if value > max => Err(Rule::Max(max)),
        _ => Ok(()),
    }
}

/// What a string may hold when its parameter does not say.
pub(crate) const MAX_LEN: u32 = 4_096;

fn check_string(max_len: Option<u32>, text: &str) -> Result<(), Rule> {
    let max = max_len.unwrap_or(MAX_LEN);
    match text.len() {
        _ if text.contains('\0') => Err(Rule::Nul),
        length if length > ARGUMENT_BYTES_MAX || u32::try_from(length).is_ok_and(|length| length > max) => {
            Err(Rule::MaxLen(max))
        }
        _ => Ok(()),
    }
}

fn check_enum(values: &[String], text: &str) -> Result<(), Rule> {
    let known = values.iter().any(|value| value == text);
    if known { Ok(()) } else { Err(Rule::Values(values.to_vec())) }
}

pub(crate) fn broken(name: &str, rule: impl Into<Rule>) -> ArgumentError {
    let pointer = match name {
        "" => String::new(),
        _ => format!("/{}", name.replace('~', "~0").replace('/', "~1")),
    };
    let pointer = if pointer.len() > SCALAR_BYTES_MAX { String::new() } else { pointer };
    located(Code::BadArguments, pointer, rule)
}

pub(crate) fn located(code: Code, pointer: String, rule: impl Into<Rule>) -> ArgumentError {
    ArgumentError { code, pointer, rule: rule.into() }
}
