//! Binding tools.

use crate::body::v1::{BindAsked, Binding, Cmd, ToolBound, ToolUnbound, UnbindAsked};
use crate::capability::{Pointer, Template, is_exact_name};
use crate::decide::Answer;
use crate::denial::{Code, Denial};
use crate::event::Body;
use crate::facts::{FactSpec, FactType};
use crate::limits::{FACTS_MAX, NEED_BYTES_MAX, NEEDS_MAX};
use crate::state::{BoundTool, State};
use crate::tool::{Effect, Model, Tool};

pub(crate) fn bind(state: &State, cmd: Option<Cmd>, asked: &BindAsked) -> Result<Answer, Denial> {
    if asked.tools.is_empty() {
        return Err(Denial::new(Code::Malformed).rule("no tool"));
    }
    for (item, binding) in asked.tools.iter().enumerate() {
        let twice = asked.tools[..item].iter().any(|other| other.tool.name == binding.tool.name);
        if twice {
            return Err(Denial::new(Code::Malformed).item(item).rule("a name twice"));
        }
        check(state, binding).map_err(|denial| denial.item(item))?;
    }
    Ok(Body::ToolBound(ToolBound { cmd, tools: asked.tools.clone() }).into())
}

fn check(state: &State, binding: &Binding) -> Result<(), Denial> {
    parse(&binding.tool)?;
    if binding.cite.map(|cite| cite.session) != state.session.system {
        return Err(Denial::new(Code::Malformed).rule("cite"));
    }
    match (state.tools.get(&binding.tool.name), binding.replaces) {
        (None, None) => Ok(()),
        (Some(before), Some(replaces)) if before.digest == replaces => Ok(()),
        (None, Some(_)) => Err(Denial::new(Code::UnknownTool)),
        (Some(_), _) => Err(Denial::new(Code::DigestChanged)),
    }
}

pub(crate) fn unbind(state: &State, cmd: Option<Cmd>, asked: &UnbindAsked) -> Result<Answer, Denial> {
    if !(1..=5).contains(&asked.why) {
        return Err(Denial::new(Code::Malformed).rule("why"));
    }
    if Some(asked.cite.session) != state.session.system {
        return Err(Denial::new(Code::Malformed).rule("cite"));
    }
    let bound = state.tools.get(&asked.name).ok_or(Denial::new(Code::UnknownTool))?;
    if bound.digest != asked.digest {
        return Err(Denial::new(Code::DigestChanged));
    }
    if bound.unbound.is_some() {
        return Err(Denial::new(Code::IllegalTransition).rule("unbound"));
    }
    Ok(Body::ToolUnbound(ToolUnbound {
        cmd,
        name: asked.name.clone(),
        digest: asked.digest,
        why: asked.why,
        cite: asked.cite,
    })
    .into())
}

/// Whether a bound tool may still be called.
pub(crate) fn callable(tool: &BoundTool) -> Result<(), Denial> {
    match tool.unbound {
        None => Ok(()),
        Some(DISABLED) => Err(Denial::new(Code::ToolDisabled)),
        Some(_) => Err(Denial::new(Code::ToolQuarantined)),
    }
}

/// Why a tool was unbound: somebody disabled it.
const DISABLED: u8 = 4;

/// The tool as the rules use it; its need templates are parsed here, once.
pub(crate) fn parse(tool: &Tool) -> Result<BoundTool, Denial> {
    if !is_exact_name(&tool.name) {
        return Err(Denial::new(Code::BadName));
    }
    let malformed = |rule: &str| Denial::new(Code::Malformed).rule(rule);
    let effect = Effect::from_number(tool.effect).ok_or_else(|| malformed("effect class"))?;
    let model = Model::from_number(tool.model).ok_or_else(|| malformed("execution model"))?;
    if tool.facts.len() > FACTS_MAX || tool.needs.len() > NEEDS_MAX {
        return Err(malformed("too many facts or needs"));
    }
    let mut facts: Vec<FactSpec> = Vec::with_capacity(tool.facts.len());
    for fact in &tool.facts {
        let kind = FactType::from_number(fact.kind).ok_or_else(|| malformed("fact type"))?;
        let known = facts.iter().any(|known| known.pointer == fact.pointer);
        if known || Pointer::parse(&fact.pointer).is_err() {
            return Err(malformed("fact pointer"));
        }
        facts.push(FactSpec { pointer: fact.pointer.clone(), kind });
    }
    let declared =
        |pointer: &str, kind: FactType| facts.iter().any(|fact| fact.pointer == pointer && fact.kind == kind);
    let mut needs = Vec::with_capacity(tool.needs.len());
    for need in &tool.needs {
        if need.text.len() > NEED_BYTES_MAX {
            return Err(malformed("need"));
        }
        if need.when.as_deref().is_some_and(|when| !declared(when, FactType::Bool)) {
            return Err(malformed("need.when is no declared boolean"));
        }
        let template = Template::parse(&need.text, &facts).map_err(|error| Denial::new(error.code).rule("need"))?;
        needs.push((template, need.when.clone()));
    }
    for (index, reserve) in tool.reserve.iter().enumerate() {
        let twice = tool.reserve[..index].iter().any(|other| other.dim == reserve.dim);
        if twice || crate::budget::index_of(reserve.dim).is_none_or(|index| index == crate::budget::CALLS) {
            return Err(malformed("reserve dimension"));
        }
        if reserve.pointer.as_deref().is_some_and(|pointer| !declared(pointer, FactType::Int)) {
            return Err(malformed("reserve pointer is no declared integer"));
        }
    }
    Ok(BoundTool {
        digest: tool.digest,
        facts,
        need_texts: tool.needs.clone(),
        needs,
        effect,
        reserve: tool.reserve.clone(),
        model,
        unbound: None,
    })
}
