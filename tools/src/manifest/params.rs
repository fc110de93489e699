//! `spec.params`: the arguments that a tool takes.

use serde_json::Value;
use toka_kernel::limits::{
    ARGUMENT_BYTES_MAX, ARRAY_ITEMS_MAX, PARAM_CHARS_MAX, PARAMS_MAX, SCALAR_BYTES_MAX, VALUES_MAX,
};
use toka_kernel::tool::{Items, ParamSpec, ParamType, is_param_name};

use crate::files::yaml::{Kind, Node, Place};
use crate::files::{Fields, FileCode, Problems, Shape, quote};
use crate::json::canonical;
use crate::params::check_value;

/// A parameter, with what stands beside its spec.
pub(super) struct Param {
    pub(super) spec: ParamSpec,
    pub(super) kind: ParamType,
    /// The file operations that a path is named for, as the text of a need.
    pub(super) need: Option<String>,
    /// Where the default stands.
    pub(super) default: Option<(Value, Place)>,
    pub(super) place: Place,
}

const TYPES: [(&str, ParamType); 8] = [
    ("string", ParamType::String),
    ("integer", ParamType::Integer),
    ("boolean", ParamType::Boolean),
    ("enum", ParamType::Enum),
    ("path", ParamType::Path),
    ("host", ParamType::Host),
    ("array", ParamType::Array),
    ("json", ParamType::Json),
];

/// The parameters, ascending by name.
pub(super) fn params(node: &Node, problems: &mut Problems<'_>) -> Vec<Param> {
    let mut params: Vec<Param> = Vec::new();
    for item in problems.list(node, "spec.params", PARAMS_MAX).unwrap_or_default() {
        let Some(param) = param(item, problems) else { continue };
        if params.iter().any(|known| known.spec.name == param.spec.name) {
            let message = format!("the parameter {} stands here a second time", quote(&param.spec.name));
            problems.report(param.place, FileCode::DuplicateName, message, "choose another name");
            continue;
        }
        params.push(param);
    }
    params.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
    params
}

fn param(node: &Node, problems: &mut Problems<'_>) -> Option<Param> {
    let known =
        &["name", "type", "required", "default", "description", "min", "max", "max_len", "values", "items", "access"];
    let fields = problems.fields(node, &Shape { what: "spec.params", known, later: &[], prefix: None })?;
    let name_node = fields.required("name", "name: path", problems);
    let name = name_node.and_then(|node| name_of(node, problems));
    let kind = fields.required("type", "type: string", problems);
    let kind = kind.and_then(|node| problems.choice(node, "type", &TYPES, &["secret"]));
    let required = fields.get("required").and_then(|node| problems.flag(node, "required")).unwrap_or(false);
    let description = fields.get("description").map(|node| description_of(node, problems)).unwrap_or_default();
    let (kind, name) = (kind?, name?);
    misplaced(&fields, kind, problems);
    let Items { min, max, max_len, values, .. } = bounds(kind, &fields, problems)?;
    let items = if kind == ParamType::Array { Some(items(&fields, problems)?) } else { None };
    let need = if kind == ParamType::Path { Some(access(&name, &fields, problems)?) } else { None };
    if kind == ParamType::Path && !required {
        let message = format!("the path {} is not required", quote(&name));
        let hint = "write `required: true`: without the path there is nothing to grant";
        problems.report(fields.place_of("name"), FileCode::BadSchema, message, hint);
    }
    let mut spec =
        ParamSpec { name, kind: kind.number(), required, default: None, min, max, max_len, values, description, items };
    let default = fields.get("default").and_then(|node| default(node, &mut spec, problems));
    Some(Param { spec, kind, need, default, place: name_node.map_or(fields.place, |node| node.place) })
}

fn name_of(node: &Node, problems: &mut Problems<'_>) -> Option<String> {
    let text = problems.text(node, "name")?;
    if is_param_name(text) {
        return Some(text.to_owned());
    }
    let message = format!("{} is no name of a parameter", quote(text));
    problems.report(node.place, FileCode::BadName, message, "a letter a-z, then at most 31 of a-z 0-9 _");
    None
}

fn description_of(node: &Node, problems: &mut Problems<'_>) -> String {
    let text = problems.plain_text(node, "description", 4 * PARAM_CHARS_MAX, false).unwrap_or_default();
    if text.chars().count() > PARAM_CHARS_MAX {
        let hint = format!("at most {PARAM_CHARS_MAX} characters are allowed");
        problems.report(node.place, FileCode::TooLong, "`description` is too long", hint);
    }
    text
}

/// Fields that mean nothing for this type.
fn misplaced(fields: &Fields<'_>, kind: ParamType, problems: &mut Problems<'_>) {
    let allowed: &[&str] = match kind {
        ParamType::Integer => &["min", "max"],
        ParamType::String => &["max_len"],
        ParamType::Enum => &["values"],
        ParamType::Array => &["items", "max_len"],
        ParamType::Path => &["access"],
        ParamType::Boolean | ParamType::Host | ParamType::Json => &[],
    };
    for name in ["min", "max", "max_len", "values", "items", "access"] {
        if fields.get(name).is_some() && !allowed.contains(&name) {
            let message = format!("`{name}` means nothing for `type: {kind}`");
            problems.report(fields.place_of(name), FileCode::BadSchema, message, "leave it out");
        }
    }
}

/// What bounds a value of one of the types with one value, or the count of an array.
fn bounds(kind: ParamType, fields: &Fields<'_>, problems: &mut Problems<'_>) -> Option<Items> {
    let mut bounds = Items { kind: kind.number(), min: None, max: None, max_len: None, values: Vec::new() };
    match kind {
        ParamType::Integer => {
            bounds.min = fields.get("min").and_then(|node| integer(node, "min", problems));
            bounds.max = fields.get("max").and_then(|node| integer(node, "max", problems));
            if let (Some(min), Some(max)) = (bounds.min, bounds.max)
                && min > max
            {
                let message = format!("`min` is {min} and `max` is {max}");
                problems.report(fields.place_of("max"), FileCode::BadSchema, message, "no integer lies between them");
            }
        }
        ParamType::String => bounds.max_len = max_len(fields, ARGUMENT_BYTES_MAX as u64, problems),
        ParamType::Array => bounds.max_len = max_len(fields, ARRAY_ITEMS_MAX.into(), problems),
        ParamType::Enum => {
            let values = fields.required("values", "values: [first, second]", problems)?;
            bounds.values = words(values, problems)?;
        }
        ParamType::Boolean | ParamType::Path | ParamType::Host | ParamType::Json => {}
    }
    Some(bounds)
}

fn integer(node: &Node, what: &str, problems: &mut Problems<'_>) -> Option<i64> {
    if let Kind::Int(number) = node.kind {
        return Some(number);
    }
    problems.wrong_type(node, what, "an integer of 64 bits", "write a whole number without quotes");
    None
}

fn max_len(fields: &Fields<'_>, most: u64, problems: &mut Problems<'_>) -> Option<u32> {
    let number = problems.whole(fields.get("max_len")?, "max_len", 1..=most)?;
    u32::try_from(number).ok()
}

fn words(node: &Node, problems: &mut Problems<'_>) -> Option<Vec<String>> {
    let items = problems.list(node, "values", VALUES_MAX)?;
    if items.is_empty() {
        problems.report(node.place, FileCode::BadSchema, "`values` is empty", "list what may stand there");
        return None;
    }
    let mut words: Vec<String> = Vec::new();
    for item in items {
        let word = problems.plain_text(item, "values", SCALAR_BYTES_MAX, false)?;
        if words.contains(&word) {
            let message = format!("{} stands in `values` twice", quote(&word));
            problems.report(item.place, FileCode::BadSchema, message, "keep one of the two");
            return None;
        }
        words.push(word);
    }
    Some(words)
}

fn items(fields: &Fields<'_>, problems: &mut Problems<'_>) -> Option<Items> {
    let node = fields.required("items", "items: { type: string }", problems)?;
    let known = &["type", "min", "max", "max_len", "values"];
    let fields = problems.fields(node, &Shape { what: "items", known, later: &[], prefix: None })?;
    let kind_node = fields.required("type", "type: string", problems)?;
    let kind = problems.choice(kind_node, "type", &TYPES, &[])?;
    match kind {
        ParamType::String | ParamType::Integer | ParamType::Boolean | ParamType::Enum => {
            misplaced(&fields, kind, problems);
            bounds(kind, &fields, problems)
        }
        ParamType::Path | ParamType::Host | ParamType::Array | ParamType::Json => {
            let message = format!("an array cannot hold `type: {kind}`");
            let hint = "write `string`, `integer`, `boolean` or `enum`";
            problems.report(kind_node.place, FileCode::BadSchema, message, hint);
            None
        }
    }
}

/// The need of a path. Listing and deleting are about what lies below, so with them the need covers the tree.
fn access(name: &str, fields: &Fields<'_>, problems: &mut Problems<'_>) -> Option<String> {
    const OPS: [(&str, &str); 5] =
        [("read", "read"), ("list", "list"), ("write", "write"), ("create", "create"), ("delete", "delete")];
    let node = fields.required("access", "access: [read]", problems)?;
    let mut ops: Vec<&str> = Vec::new();
    for item in problems.list(node, "access", OPS.len())? {
        ops.push(problems.choice(item, "access", &OPS, &[])?);
    }
    ops.sort_unstable();
    ops.dedup();
    if ops.is_empty() {
        problems.report(node.place, FileCode::BadSchema, "`access` is empty", "write what is done: `access: [read]`");
        return None;
    }
    let tree = if ops.contains(&"list") || ops.contains(&"delete") { "/**" } else { "" };
    Some(format!("fs:{{/{name}}}{tree}#{}", ops.join(",")))
}

/// Reads the default into the spec, as canonical JSON that keeps the rules of its own parameter.
fn default(node: &Node, spec: &mut ParamSpec, problems: &mut Problems<'_>) -> Option<(Value, Place)> {
    let value = json(node, problems)?;
    let fault = match (spec.required, check_value(spec, &value), canonical(&value)) {
        (true, ..) => "a required parameter has no default".to_owned(),
        (false, Err(error), _) => error.rule.to_string(),
        (false, Ok(()), Err(error)) => error.to_string(),
        (false, Ok(()), Ok(text)) => {
            spec.default = String::from_utf8(text).ok();
            return Some((value, node.place));
        }
    };
    let message = format!("the default of {}: {fault}", quote(&spec.name));
    problems.report(node.place, FileCode::BadSchema, message, "write a value that the parameter takes, or none");
    None
}

fn json(node: &Node, problems: &mut Problems<'_>) -> Option<Value> {
    match &node.kind {
        Kind::Null => Some(Value::Null),
        Kind::Bool(bit) => Some(Value::Bool(*bit)),
        Kind::Int(number) => Some(Value::from(*number)),
        Kind::Number(text) => {
            let number = serde_json::from_str(text).ok().filter(Value::is_number);
            if number.is_none() {
                let message = format!("{} is no number in JSON", quote(text));
                problems.report(node.place, FileCode::BadNumber, message, "write digits, or text in quotes");
            }
            number
        }
        Kind::Text(text) => Some(Value::from(text.value.as_str())),
        Kind::List(items) => items.iter().map(|item| json(item, problems)).collect(),
        Kind::Map(members) => {
            let pairs = members.iter().map(|member| Some((member.name.clone(), json(&member.value, problems)?)));
            pairs.collect::<Option<serde_json::Map<String, Value>>>().map(Value::Object)
        }
        Kind::Broken => None,
    }
}
