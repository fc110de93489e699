//! `spec.pass`: how arguments reach the program.

use std::collections::BTreeMap;

use toka_kernel::limits::{ARGV_ITEMS_MAX, ENV_NAMES_MAX};
use toka_kernel::tool::{ArgvItem, ParamType, Pass, Stdin, is_argv_text, is_flag};

use super::params::Param;
use super::sandbox::env_name;
use crate::files::yaml::{Kind, Node};
use crate::files::{Fields, FileCode, Problems, Shape, quote, suggestion};

pub(super) fn pass(node: Option<&Node>, params: &[Param], problems: &mut Problems<'_>) -> Pass {
    let mut pass = Pass { argv: Vec::new(), env: BTreeMap::new(), stdin: Stdin::Json };
    let Some(node) = node else { return pass };
    // Whoever writes a mapping says all of it.
    pass.stdin = Stdin::None;
    let shape = Shape { what: "spec.pass", known: &["argv", "env", "stdin"], later: &[], prefix: None };
    let Some(fields) = problems.fields(node, &shape) else { return pass };
    if let Some(node) = fields.get("argv") {
        pass.argv = argv(node, params, problems);
    }
    if let Some(node) = fields.get("env") {
        pass.env = env(node, params, problems);
    }
    if let Some(node) = fields.get("stdin") {
        pass.stdin = stdin(node, params, problems).unwrap_or(Stdin::None);
    }
    pass
}

fn argv(node: &Node, params: &[Param], problems: &mut Problems<'_>) -> Vec<ArgvItem> {
    let items = problems.list(node, "spec.pass.argv", ARGV_ITEMS_MAX).unwrap_or_default();
    let mut argv = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let last = index + 1 == items.len();
        let Some(read) = argv_item(item, params, problems) else { continue };
        let behind = argv.contains(&ArgvItem::Const("--".to_owned()));
        let fault = match &read {
            ArgvItem::FlagWhen { .. } | ArgvItem::FlagParam { .. } if behind => {
                Some(("a flag behind `--` is no flag", "put it before"))
            }
            ArgvItem::Rest(_) if !last => Some(("`rest` is not the last item", "put it at the end")),
            ArgvItem::Param(name) if !last && may_be_absent(name, params) => Some((
                "a parameter in its place may be absent, and the next one would take its place",
                "write `required: true` or a default there, or put it at the end",
            )),
            ArgvItem::Const(_)
            | ArgvItem::Param(_)
            | ArgvItem::FlagWhen { .. }
            | ArgvItem::FlagParam { .. }
            | ArgvItem::Rest(_) => None,
        };
        if let Some((message, hint)) = fault {
            problems.report(item.place, FileCode::BadMapping, message, hint);
        }
        argv.push(read);
    }
    argv
}

fn may_be_absent(name: &str, params: &[Param]) -> bool {
    let param = params.iter().find(|param| param.spec.name == name);
    param.is_some_and(|param| !param.spec.required && param.spec.default.is_none())
}

fn argv_item(node: &Node, params: &[Param], problems: &mut Problems<'_>) -> Option<ArgvItem> {
    let what = "spec.pass.argv";
    let known = &["const", "param", "flag", "when", "join", "rest"];
    let fields = problems.fields(node, &Shape { what, known, later: &[], prefix: None })?;
    let mut names: Vec<&str> = fields.members().iter().map(|member| member.name.as_str()).collect();
    names.sort_unstable();
    match names[..] {
        ["const"] => {
            let node = fields.get("const")?;
            let text = problems.text(node, "const")?;
            if is_argv_text(text) {
                return Some(ArgvItem::Const(text.to_owned()));
            }
            let message = format!("{} cannot be an argument", quote(text));
            problems.report(node.place, FileCode::BadMapping, message, "1 to 256 bytes without control characters");
            None
        }
        ["param"] => single(&fields, "param", params, problems).map(ArgvItem::Param),
        ["rest"] => named(&fields, "rest", params, &[ParamType::Array], problems).map(ArgvItem::Rest),
        ["flag", "when"] => {
            let flag = flag(&fields, problems);
            let when = named(&fields, "when", params, &[ParamType::Boolean], problems);
            Some(ArgvItem::FlagWhen { flag: flag?, when: when? })
        }
        ["flag", "param"] | ["flag", "join", "param"] => {
            let flag = flag(&fields, problems);
            let param = single(&fields, "param", params, problems);
            let join = match fields.get("join") {
                Some(node) => problems.flag(node, "join")?,
                None => false,
            };
            let flag = flag?;
            if join && !flag.starts_with("--") {
                let hint = "only `--name` can be joined, as `--name=value`";
                problems.report(
                    fields.place_of("join"),
                    FileCode::BadMapping,
                    format!("{} cannot be joined", quote(&flag)),
                    hint,
                );
                return None;
            }
            Some(ArgvItem::FlagParam { flag, param: param?, join })
        }
        _ if fields.members().iter().any(|member| !known.contains(&member.name.as_str())) => None,
        _ => {
            let hint = "write `{const}`, `{param}`, `{flag, when}`, `{flag, param}`, `{flag, param, join}` or `{rest}`";
            problems.report(node.place, FileCode::BadMapping, "not one of the forms of an argument", hint);
            None
        }
    }
}

fn flag(fields: &Fields<'_>, problems: &mut Problems<'_>) -> Option<String> {
    let node = fields.get("flag")?;
    let text = problems.text(node, "flag")?;
    if is_flag(text) {
        return Some(text.to_owned());
    }
    let hint = "it begins with `-`, holds no `=`, and is not `-` or `--`";
    problems.report(node.place, FileCode::BadMapping, format!("{} is no flag", quote(text)), hint);
    None
}

/// A parameter with one value.
fn single(fields: &Fields<'_>, field: &str, params: &[Param], problems: &mut Problems<'_>) -> Option<String> {
    let kinds = [
        ParamType::String,
        ParamType::Integer,
        ParamType::Boolean,
        ParamType::Enum,
        ParamType::Path,
        ParamType::Host,
        ParamType::Json,
    ];
    named(fields, field, params, &kinds, problems)
}

/// The parameter that a field names, of one of these types.
fn named(
    fields: &Fields<'_>,
    field: &str,
    params: &[Param],
    kinds: &[ParamType],
    problems: &mut Problems<'_>,
) -> Option<String> {
    let node = fields.get(field)?;
    param_name(node, field, params, kinds, problems)
}

fn param_name(
    node: &Node,
    field: &str,
    params: &[Param],
    kinds: &[ParamType],
    problems: &mut Problems<'_>,
) -> Option<String> {
    let name = problems.text(node, field)?;
    let fitting = params.iter().filter(|param| kinds.contains(&param.kind)).map(|param| param.spec.name.as_str());
    if fitting.clone().any(|known| known == name) {
        return Some(name.to_owned());
    }
    let message = match params.iter().find(|param| param.spec.name == name) {
        Some(param) => format!("`{field}` cannot take {}, which is of type {}", quote(name), param.kind),
        None => format!("no parameter is called {}", quote(name)),
    };
    let hint = match fitting.clone().next() {
        Some(_) => suggestion(name, fitting, "it can take"),
        None => "declare it in `params`".to_owned(),
    };
    problems.report(node.place, FileCode::BadMapping, message, hint);
    None
}

fn env(node: &Node, params: &[Param], problems: &mut Problems<'_>) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    let Some(members) = problems.map(node, "spec.pass.env") else { return env };
    if members.len() > ENV_NAMES_MAX {
        let message = format!("`spec.pass.env` has {} names", members.len());
        problems.report(node.place, FileCode::TooMany, message, format!("at most {ENV_NAMES_MAX} are allowed"));
    }
    for member in members {
        let fine = env_name(member.place, &member.name, problems);
        let shape = Shape { what: "spec.pass.env", known: &["param"], later: &[], prefix: None };
        let Some(fields) = problems.fields(&member.value, &shape) else { continue };
        fields.required("param", "param: NAME", problems);
        if let Some(param) = single(&fields, "param", params, problems)
            && fine
        {
            env.insert(member.name.clone(), param);
        }
    }
    env
}

fn stdin(node: &Node, params: &[Param], problems: &mut Problems<'_>) -> Option<Stdin> {
    if matches!(node.kind, Kind::Map(_)) {
        let shape = Shape { what: "spec.pass.stdin", known: &["param"], later: &[], prefix: None };
        let fields = problems.fields(node, &shape)?;
        fields.required("param", "param: NAME", problems)?;
        return single(&fields, "param", params, problems).map(Stdin::Param);
    }
    let words = [("json", true), ("none", false)];
    let json = problems.choice(node, "spec.pass.stdin", &words, &[])?;
    Some(if json { Stdin::Json } else { Stdin::None })
}
