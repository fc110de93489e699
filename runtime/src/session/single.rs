//! What an agent that makes one call has to be granted for it.

use toka_kernel::capability::{Scope, Template};
use toka_kernel::facts::Fact;
use toka_kernel::ids::CallId;
use toka_kernel::tool::{Probe, ToolSpec};
use toka_tools::prepare;

use super::reconcile::question;

/// The capabilities that one call of `spec` with these arguments takes, and no others; with those that its probe takes
/// after a crash, where `probe` is the tool that it names. Values stand in them as values: what is a pattern in the text
/// of a capability is quoted.
///
/// Arguments that do not fit take the tool alone: the call is refused for them, whatever is granted.
pub fn capabilities_of_call(spec: &ToolSpec, probe: Option<&ToolSpec>, arguments: &str) -> Vec<String> {
    let mut texts = vec![tool(spec)];
    let Ok(call) = prepare(spec, arguments) else { return texts };
    texts.extend(needs(spec, &call.facts));
    if let (Some(asked), Some(probe)) = (&spec.probe, probe) {
        texts.push(tool(probe));
        texts.extend(needs(probe, &facts_of_probe(asked, probe, &call.arguments)));
    }
    texts.sort();
    texts.dedup();
    texts
}

fn tool(spec: &ToolSpec) -> String {
    format!("tool:{}", spec.name)
}

/// The needs that these facts make. One that they cannot make is left out: a call that has it is refused.
fn needs(spec: &ToolSpec, facts: &[Fact]) -> Vec<String> {
    let Ok(declared) = spec.fact_specs() else { return Vec::new() };
    let is_set = |pointer: &String| facts.iter().any(|fact| fact.pointer == *pointer && fact.int == Some(1));
    let applies = spec.needs.iter().filter(|need| need.when.as_ref().is_none_or(is_set));
    let filled = |text: &str| -> Option<Scope> { Template::parse(text, &declared).ok()?.fill(facts).ok() };
    applies.filter_map(|need| filled(&need.text)).map(|scope| scope.to_string()).collect()
}

/// What can be said of the arguments of the probe before there is a call: all but what follows from the call's id.
fn facts_of_probe(asked: &Probe, probe: &ToolSpec, arguments: &[u8]) -> Vec<Fact> {
    let question = question(asked, CallId::ZERO, arguments).to_string();
    let Ok(ready) = prepare(probe, &question) else { return Vec::new() };
    let is_id = |fact: &Fact| {
        let of_id = asked.params.iter().filter(|param| param.value.is_none() && param.arg.is_none());
        of_id.into_iter().any(|param| fact.pointer == format!("/{}", param.name))
    };
    ready.facts.into_iter().filter(|fact| !is_id(fact)).collect()
}
