//! `spec.probe`: how it is found out whether an interrupted call was done.

use serde_json::Value;
use toka_kernel::limits::PARAMS_MAX;
use toka_kernel::tool::{Effect, Probe, ProbeParam};

use super::params::Param;
use crate::files::yaml::{Kind, Node};
use crate::files::{Fields, FileCode, Problems, Shape, quote, suggestion};

const EXAMPLE: &str = "probe: { tool: is-booked, params: { order: { arg: order } } }";

/// The probe of a tool of this effect class: of class reconcile every tool has one, of the others none.
pub(super) fn probe(
    fields: &Fields<'_>,
    effect: Option<Effect>,
    params: &[Param],
    problems: &mut Problems<'_>,
) -> Option<Probe> {
    let reconciles = effect == Some(Effect::Reconcile);
    let Some(node) = fields.get("probe") else {
        if reconciles {
            let message = "`effect: reconcile` without a probe that tells whether a call was done";
            problems.report(fields.place_of("effect"), FileCode::ProbeMissing, message, EXAMPLE);
        }
        return None;
    };
    if !reconciles {
        let message = "`spec.probe` is for tools of `effect: reconcile`";
        problems.report(node.place, FileCode::ProbeMissing, message, "leave it out, or write `effect: reconcile`");
    }
    let shape = Shape { what: "spec.probe", known: &["tool", "params"], later: &[], prefix: None };
    let fields = problems.fields(node, &shape)?;
    let tool = fields.required("tool", EXAMPLE, problems).and_then(|node| problems.name(node, "spec.probe.tool"));
    let mut asked: Vec<ProbeParam> = Vec::new();
    if let Some(node) = fields.get("params") {
        let members = problems.map(node, "spec.probe.params")?;
        if members.len() > PARAMS_MAX {
            let message = format!("{} parameters, at most {PARAMS_MAX} are allowed", members.len());
            problems.report(node.place, FileCode::TooMany, message, "a probe is a small question");
        }
        asked.extend(members.iter().filter_map(|member| param(&member.name, &member.value, params, problems)));
    }
    asked.sort_by(|a, b| a.name.cmp(&b.name));
    Some(Probe { tool: tool?, params: asked })
}

fn param(name: &str, node: &Node, params: &[Param], problems: &mut Problems<'_>) -> Option<ProbeParam> {
    let value = |value: Value| ProbeParam { name: name.to_owned(), value: Some(value.to_string()), arg: None };
    match &node.kind {
        Kind::Bool(flag) => Some(value(Value::Bool(*flag))),
        Kind::Int(number) => Some(value(Value::from(*number))),
        Kind::Text(text) => Some(value(Value::from(text.value.as_str()))),
        Kind::Map(_) => taken(name, node, params, problems),
        Kind::Broken => None,
        Kind::Null | Kind::Number(_) | Kind::List(_) => {
            let what = format!("spec.probe.params.{name}");
            problems.wrong_type(
                node,
                &what,
                "text, an integer, `true` or `false`, `{ arg: NAME }` or `{ call: id }`",
                EXAMPLE,
            );
            None
        }
    }
}

/// `{ arg: NAME }`, an argument of the call, or `{ call: id }`.
fn taken(name: &str, node: &Node, params: &[Param], problems: &mut Problems<'_>) -> Option<ProbeParam> {
    let shape = Shape { what: "an argument of a probe", known: &["arg", "call"], later: &[], prefix: None };
    let fields = problems.fields(node, &shape)?;
    let param = |arg| ProbeParam { name: name.to_owned(), value: None, arg };
    match (fields.get("arg"), fields.get("call")) {
        (Some(node), None) => {
            let arg = problems.text(node, "arg")?.to_owned();
            if params.iter().any(|param| param.spec.name == arg) {
                return Some(param(Some(arg)));
            }
            let names = params.iter().map(|param| param.spec.name.as_str());
            let message = format!("{} is no parameter of this tool", quote(&arg));
            problems.report(node.place, FileCode::BadReference, message, suggestion(&arg, names, "there are"));
            None
        }
        (None, Some(node)) => {
            problems.choice(node, "call", &[("id", ())], &[])?;
            Some(param(None))
        }
        (Some(_), Some(_)) | (None, None) => {
            let message = "an argument of a probe is `{ arg: NAME }` or `{ call: id }`";
            problems.report(node.place, FileCode::BadReference, message, EXAMPLE);
            None
        }
    }
}
