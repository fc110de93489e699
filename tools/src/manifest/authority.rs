//! `spec.facts`, `spec.needs` and `spec.reserve`: what authority will look at.

use std::collections::BTreeMap;

use toka_kernel::capability::Template;
use toka_kernel::denial::Dim;
use toka_kernel::facts::{FactSpec, FactType, is_pointer};
use toka_kernel::limits::{ARGUMENT_BYTES_MAX, FACTS_MAX, NEEDS_MAX, SCALAR_BYTES_MAX, TIME_US_MAX};
use toka_kernel::tool::{FactDecl, Need, ParamType, Reserve, Run};

use super::params::Param;
use crate::files::yaml::{Kind, Node};
use crate::files::{Fields, FileCode, Problems, Shape, clean, quote, suggestion};
use crate::params::MAX_LEN;

pub(super) struct Authority {
    /// Ascending by pointer.
    pub(super) facts: Vec<FactDecl>,
    pub(super) needs: Vec<Need>,
}

const TYPES: [(&str, FactType); 5] = [
    ("int", FactType::Int),
    ("bool", FactType::Bool),
    ("str", FactType::Str),
    ("path", FactType::Path),
    ("host", FactType::Host),
];

type Facts = BTreeMap<String, FactType>;

pub(super) fn authority(fields: &Fields<'_>, params: &[Param], problems: &mut Problems<'_>) -> Authority {
    let mut facts = Facts::new();
    for param in params {
        let kind = match param.kind {
            ParamType::Path => FactType::Path,
            ParamType::Host => FactType::Host,
            ParamType::String
            | ParamType::Integer
            | ParamType::Boolean
            | ParamType::Enum
            | ParamType::Array
            | ParamType::Json => continue,
        };
        facts.insert(format!("/{}", param.spec.name), kind);
    }
    if let Some(node) = fields.get("facts") {
        for item in problems.list(node, "spec.facts", FACTS_MAX).unwrap_or_default() {
            fact(item, params, &mut facts, problems);
        }
    }
    let written = fields.get("needs").and_then(|node| problems.list(node, "spec.needs", NEEDS_MAX)).unwrap_or_default();
    let written: Vec<Written<'_>> =
        written.iter().filter_map(|item| need(item, params, &mut facts, problems)).collect();
    if facts.len() > FACTS_MAX {
        let message = format!("{} facts, those of paths, hosts and conditions included", facts.len());
        problems.report(fields.place, FileCode::TooMany, message, format!("at most {FACTS_MAX} are allowed"));
    }
    no_defaults(params, &facts, problems);
    let needs = needs(fields, params, &written, &facts, problems);
    let facts = facts.into_iter().map(|(pointer, kind)| FactDecl { pointer, kind: kind.number() }).collect();
    Authority { facts, needs }
}

fn fact(node: &Node, params: &[Param], facts: &mut Facts, problems: &mut Problems<'_>) {
    let shape = Shape { what: "spec.facts", known: &["pointer", "type"], later: &[], prefix: None };
    let Some(fields) = problems.fields(node, &shape) else { return };
    let pointer_node = fields.required("pointer", "pointer: /count", problems);
    let kind_node = fields.required("type", "type: int", problems);
    let pointer = pointer_node.and_then(|node| problems.text(node, "pointer"));
    let kind = kind_node.and_then(|node| problems.choice(node, "type", &TYPES, &[]));
    let (Some(pointer_node), Some(pointer), Some(kind_node), Some(kind)) = (pointer_node, pointer, kind_node, kind)
    else {
        return;
    };
    let param = pointer.strip_prefix('/').and_then(|rest| {
        let (name, below) = rest.split_once('/').map_or((rest, None), |(name, below)| (name, Some(below)));
        let param = params.iter().find(|param| param.spec.name == name)?;
        Some((param, below))
    });
    let Some((param, below)) = param.filter(|_| is_pointer(pointer)) else {
        let names: Vec<String> = params.iter().map(|param| format!("/{}", param.spec.name)).collect();
        let hint = suggestion(pointer, names.iter().map(String::as_str), "begin with one of the parameters");
        problems.report(pointer_node.place, FileCode::BadFact, format!("{} leads nowhere", quote(pointer)), hint);
        return;
    };
    let possible = possible(param, below);
    if !possible.contains(&kind) {
        let message = format!("{} cannot be a fact of type {kind}", quote(pointer));
        let hint = match possible {
            [] => format!("nothing there can be a fact: the parameter is of type {}", param.kind),
            _ => {
                format!("write `type: {}`", possible.iter().map(|kind| kind.name()).collect::<Vec<_>>().join("` or `"))
            }
        };
        problems.report(kind_node.place, FileCode::BadFact, message, hint);
        return;
    }
    facts.insert(pointer.to_owned(), kind);
}

/// What a fact at the value of a parameter, or at `below` inside it, can be.
fn possible(param: &Param, below: Option<&str>) -> &'static [FactType] {
    let scalar = |kind: ParamType| match kind {
        ParamType::Integer => &[FactType::Int][..],
        ParamType::Boolean => &[FactType::Bool],
        ParamType::String | ParamType::Enum => &[FactType::Str],
        ParamType::Path => &[FactType::Path],
        ParamType::Host => &[FactType::Host],
        ParamType::Array | ParamType::Json => &[],
    };
    match (param.kind, below) {
        (ParamType::Json, _) => &[FactType::Int, FactType::Bool, FactType::Str, FactType::Path, FactType::Host],
        (ParamType::Array, Some(index)) if index.parse::<u16>().is_ok_and(|number| number.to_string() == index) => {
            let items = param.spec.items.as_ref().and_then(|items| ParamType::from_number(items.kind));
            items.map_or(&[], scalar)
        }
        (kind, None) => scalar(kind),
        (_, Some(_)) => &[],
    }
}

/// A need as it is written.
struct Written<'n> {
    node: &'n Node,
    text: &'n str,
    when: Option<String>,
}

fn need<'n>(node: &'n Node, params: &[Param], facts: &mut Facts, problems: &mut Problems<'_>) -> Option<Written<'n>> {
    if !matches!(node.kind, Kind::Map(_)) {
        return Some(Written { node, text: problems.text(node, "spec.needs")?, when: None });
    }
    let fields =
        problems.fields(node, &Shape { what: "spec.needs", known: &["need", "when"], later: &[], prefix: None })?;
    let text_node = fields.required("need", "need: 'fs:{/path}#write'", problems)?;
    let text = problems.text(text_node, "need")?;
    let when = match fields.get("when") {
        None => None,
        Some(node) => {
            let name = problems.text(node, "when")?;
            let flags = params.iter().filter(|param| param.kind == ParamType::Boolean);
            let names = flags.map(|param| param.spec.name.as_str());
            if !names.clone().any(|known| known == name) {
                let hint = suggestion(name, names, "boolean parameters are");
                let message = format!("{} is no boolean parameter", quote(name));
                problems.report(node.place, FileCode::BadFact, message, hint);
                return None;
            }
            let pointer = format!("/{name}");
            facts.insert(pointer.clone(), FactType::Bool);
            Some(pointer)
        }
    };
    Some(Written { node: text_node, text, when })
}

/// What is not in the arguments is no fact: a default there would be a value that authority does not see.
fn no_defaults(params: &[Param], facts: &Facts, problems: &mut Problems<'_>) {
    for param in params {
        let Some((value, place)) = &param.default else { continue };
        let own = format!("/{}", param.spec.name);
        let inside = format!("{own}/");
        let neutral = match facts.get(&own) {
            Some(FactType::Bool) => *value == false,
            Some(FactType::Int) => *value == 0,
            Some(FactType::Str | FactType::Path | FactType::Host) => false,
            None => !facts.keys().any(|pointer| pointer.starts_with(&inside)),
        };
        if !neutral {
            let message = format!("the parameter {} is a fact and has a default", quote(&param.spec.name));
            let hint = "leave the default out, or the fact: authority sees only what is in the arguments";
            problems.report(*place, FileCode::BadFact, message, hint);
        }
    }
}

fn needs(
    fields: &Fields<'_>,
    params: &[Param],
    written: &[Written<'_>],
    facts: &Facts,
    problems: &mut Problems<'_>,
) -> Vec<Need> {
    let specs: Vec<FactSpec> =
        facts.iter().map(|(pointer, kind)| FactSpec { pointer: pointer.clone(), kind: *kind }).collect();
    let of_paths = params.iter().filter_map(|param| param.need.clone());
    let mut needs: Vec<Need> = of_paths.map(|text| Need { text, when: None }).collect();
    for Written { node, text, when } in written {
        if let Err(error) = Template::parse(text, &specs) {
            let message = format!("{} in `spec.needs`: {}", quote(text), clean(&error.what, 200));
            let hint = clean(&error.hint, 300);
            problems.report_inside(node, error.at.min(text.len()), FileCode::BadCapability, message, hint);
            continue;
        }
        let over = |param: &&Param| {
            let name = &param.spec.name;
            !param.spec.required
                && (text.contains(&format!("{{/{name}}}")) || text.contains(&format!("{{\"/{name}\"}}")))
        };
        if let Some(param) = params.iter().find(over).filter(|_| when.is_none()) {
            let message = format!("a need over {}, which is not required", quote(&param.spec.name));
            let hint = "write `required: true` there, or `when` here: a call without it could not be admitted";
            problems.report(node.place, FileCode::BadCapability, message, hint);
        }
        needs.push(Need { text: (*text).to_owned(), when: when.clone() });
    }
    let mut kept: Vec<Need> = Vec::new();
    for need in needs {
        if !kept.contains(&need) {
            kept.push(need);
        }
    }
    if kept.len() > NEEDS_MAX {
        let message = format!("{} needs, those of paths included", kept.len());
        problems.report(fields.place, FileCode::TooMany, message, format!("at most {NEEDS_MAX} are allowed"));
    }
    kept
}

/// Whether a need is about changing files.
pub(super) fn changes_files(need: &str) -> bool {
    let ops = need.rsplit('#').next().unwrap_or_default();
    need.starts_with("fs:") && ops.split(',').any(|op| matches!(op, "write" | "create" | "delete" | "delete-self"))
}

/// How an amount is written.
#[derive(Clone, Copy)]
enum Unit {
    Time,
    Bytes,
    Count,
}

/// `spec.reserve`, ascending by dimension.
pub(super) fn reserve(
    node: Option<&Node>,
    run: &Run,
    params: &[Param],
    facts: &[FactDecl],
    problems: &mut Problems<'_>,
) -> Vec<Reserve> {
    let rows = [
        ("bytes_in", Dim::BytesIn, Unit::Bytes, Some(bytes_in_max(params))),
        ("bytes_out", Dim::BytesOut, Unit::Bytes, Some(run.bytes_out_max())),
        ("tokens", Dim::Tokens, Unit::Count, None),
        ("cost_micro", Dim::CostMicro, Unit::Count, None),
        ("wall", Dim::WallUs, Unit::Time, Some(run.sandbox.limits.wall_us)),
        ("cpu", Dim::CpuUs, Unit::Time, Some(run.sandbox.limits.cpu_us)),
    ];
    let known = rows.map(|(name, ..)| name);
    let shape = Shape { what: "spec.reserve", known: &known, later: &[], prefix: None };
    let fields = node.and_then(|node| problems.fields(node, &shape));
    let mut reserves = Vec::new();
    for (name, dim, unit, least) in rows {
        let fixed = |base: u64| Reserve { dim: dim.number(), base, per: 0, pointer: None };
        match (fields.as_ref().and_then(|fields| fields.get(name)), least) {
            (None, None) => {}
            (None, Some(least)) => reserves.push(fixed(least)),
            (Some(node), least) => {
                let Some(reserve) = one(node, name, unit, facts, problems) else { continue };
                if least.is_some_and(|least| reserve.base < least) {
                    let message = format!("`spec.reserve.{name}` is less than a call within its limits can take");
                    let hint = format!("at least {}, or lower the limits", shown(unit, least.unwrap_or(0)));
                    problems.report(node.place, FileCode::ReserveTooSmall, message, hint);
                }
                reserves.push(Reserve { dim: dim.number(), ..reserve });
            }
        }
    }
    reserves
}

fn shown(unit: Unit, amount: u64) -> String {
    match unit {
        Unit::Time => crate::files::quantity::Duration(amount).to_string(),
        Unit::Bytes => crate::files::quantity::Size(amount).to_string(),
        Unit::Count => amount.to_string(),
    }
}

fn one(node: &Node, name: &str, unit: Unit, facts: &[FactDecl], problems: &mut Problems<'_>) -> Option<Reserve> {
    let what = format!("spec.reserve.{name}");
    if !matches!(node.kind, Kind::Map(_)) {
        return Some(Reserve { dim: 0, base: amount(node, &what, unit, problems)?, per: 0, pointer: None });
    }
    let shape = Shape { what: &what, known: &["base", "per_unit", "fact"], later: &[], prefix: None };
    let fields = problems.fields(node, &shape)?;
    let base = fields.required("base", "base: 0", problems).and_then(|node| amount(node, &what, unit, problems));
    let per = fields.required("per_unit", "per_unit: 1", problems).and_then(|node| amount(node, &what, unit, problems));
    let fact_node = fields.required("fact", "fact: /count", problems)?;
    let pointer = problems.text(fact_node, "fact")?;
    let ints = facts.iter().filter(|fact| fact.kind == FactType::Int.number()).map(|fact| fact.pointer.as_str());
    if !ints.clone().any(|known| known == pointer) {
        let hint = suggestion(pointer, ints, "facts of type int are");
        problems.report(fact_node.place, FileCode::BadFact, format!("{} is no fact of type int", quote(pointer)), hint);
        return None;
    }
    Some(Reserve { dim: 0, base: base?, per: per?, pointer: Some(pointer.to_owned()) })
}

fn amount(node: &Node, what: &str, unit: Unit, problems: &mut Problems<'_>) -> Option<u64> {
    let range = 0..=TIME_US_MAX;
    match (unit, &node.kind) {
        // Nothing is nothing in every unit.
        (_, Kind::Int(0)) => Some(0),
        (Unit::Time, _) => problems.duration(node, what, range),
        (Unit::Bytes, _) => problems.size(node, what, range),
        (Unit::Count, _) => problems.whole(node, what, range),
    }
}

/// The most bytes that arguments can have in canonical JSON: names, values and what stands between.
fn bytes_in_max(params: &[Param]) -> u64 {
    let most = params.iter().map(|param| param.spec.name.len() as u64 + 4 + value_bytes_max(param)).sum::<u64>() + 2;
    most.min(ARGUMENT_BYTES_MAX as u64).next_multiple_of(256)
}

fn value_bytes_max(param: &Param) -> u64 {
    // A control character takes six bytes.
    let text = |bytes: u64| 6 * bytes + 2;
    let longest = |values: &[String]| values.iter().map(|value| text(value.len() as u64)).max().unwrap_or(2);
    let scalar = |kind: ParamType, max_len: Option<u32>, values: &[String]| match kind {
        ParamType::String => text(max_len.unwrap_or(MAX_LEN).into()),
        ParamType::Integer => 20,
        ParamType::Boolean => 5,
        ParamType::Enum => longest(values),
        ParamType::Path | ParamType::Host => text(SCALAR_BYTES_MAX as u64),
        ParamType::Array | ParamType::Json => ARGUMENT_BYTES_MAX as u64,
    };
    let spec = &param.spec;
    match &spec.items {
        Some(items) => {
            let each = ParamType::from_number(items.kind).map_or(0, |kind| scalar(kind, items.max_len, &items.values));
            u64::from(spec.max_len.unwrap_or(toka_kernel::limits::ARRAY_ITEMS_MAX)) * (each + 1) + 2
        }
        None => scalar(param.kind, spec.max_len, &spec.values),
    }
}
