//! What a session begins with to run an agent: the root grants that its file asks for.

use toka_kernel::capability::{Capability, ExactName, NamePat, Scope};
use toka_kernel::tool::Effect;

use super::RunError;
use crate::agents::{AgentSpec, ModelProgram};
use crate::executor::Tool;

/// How deep the agents of a session may be nested.
pub(super) const TREE_DEPTH_MAX: u8 = 15;
/// How long the root grants of a session hold, in µs: 24 hours.
const ROOTS_HOLD_US: u64 = 24 * 3_600 * 1_000_000;

/// The root grants that running `spec` takes: what its file asks for, and the right to spawn it.
///
/// # Errors
/// [`RunError::Capability`] for a text that is no capability this version can grant.
pub fn root_grants(spec: &AgentSpec, now_us: u64) -> Result<Vec<Capability>, RunError> {
    let depth = tree_depth(spec, 0)?;
    let exp = now_us + ROOTS_HOLD_US.min(spec.agent().budget.wall_us.max(1));
    let mut roots = Vec::new();
    for text in spec.requested() {
        let refuse = |why: String| RunError::Capability { capability: text.clone(), why };
        let mut root = Capability::parse_at(text, now_us).map_err(|error| refuse(error.to_string()))?;
        root.exp_us = Some(root.exp_us.unwrap_or(exp).min(exp));
        root.depth = root.depth.max(depth);
        if let Scope::Tool(_) = root.scope {
            root.limits.amounts[0].get_or_insert(spec.agent().budget.calls);
        }
        let until = root.exp_us.unwrap_or(exp);
        if until <= now_us {
            return Err(refuse("it has expired already".to_owned()));
        }
        if root.nbf_us.unwrap_or(0) >= until {
            return Err(refuse("it would never be valid".to_owned()));
        }
        roots.push(root);
    }
    for model in models_of(spec) {
        let budget = spec.agent().budget;
        for mut root in model_grants(&model, budget.tokens, budget.cost_micro) {
            root.exp_us = Some(exp);
            root.depth = depth;
            roots.push(root);
        }
    }
    let name = ExactName::parse(spec.name())
        .map_err(|code| RunError::Capability { capability: format!("agent:{}", spec.name()), why: code.to_string() })?;
    let mut spawn = Capability::of(Scope::agent_need(&name, 1));
    spawn.exp_us = Some(exp);
    roots.push(spawn);
    Ok(roots)
}

/// The models that a spec and every agent it can reach ask, each once.
pub fn models_of(spec: &AgentSpec) -> Vec<ModelProgram> {
    let agents = std::iter::once(spec.agent().as_ref()).chain(spec.others());
    let mut found: Vec<ModelProgram> = Vec::new();
    for model in agents.filter_map(|agent| agent.model.as_ref()) {
        if !found.iter().any(|known| known.tool_name() == model.tool_name()) {
            found.push(model.clone());
        }
    }
    found
}

/// What asking a model takes: the call itself, and the model within a budget.
pub(super) fn model_grants(model: &ModelProgram, tokens: u64, cost_micro: u64) -> Vec<Capability> {
    let texts = [
        format!("tool:{}", model.tool_name()),
        format!("model:{}?tokens={tokens}&cost_micro={cost_micro}", model.capability_name()),
    ];
    texts.iter().filter_map(|text| Capability::parse(text).ok()).collect()
}

/// The right of the opener to say what came of a call, as a root grant that ends at `exp_us`; `None` where no tool that
/// the agents of `spec` may use needs it. It goes before the other roots.
pub fn right_to_resolve(spec: &AgentSpec, tools: &[Tool], exp_us: u64) -> Option<Capability> {
    let mut patterns = Vec::new();
    patterns_of(spec, &mut patterns, 0).ok()?;
    let doubtful = |tool: &Tool| {
        Effect::from_number(tool.spec().effect).is_some_and(|effect| matches!(effect, Effect::Once | Effect::Reconcile))
    };
    let named = |tool: &Tool| patterns.iter().any(|pattern| is_named(pattern, &tool.spec().name));
    if !tools.iter().any(|tool| doubtful(tool) && named(tool)) {
        return None;
    }
    let mut right = Capability::parse("admin:#resolve").ok()?;
    right.exp_us = Some(exp_us);
    Some(right)
}

/// Levels of agents in a spec: 1 for an agent that spawns none.
pub(super) fn tree_depth(spec: &AgentSpec, above: u8) -> Result<u8, RunError> {
    if above >= TREE_DEPTH_MAX {
        return Err(RunError::TooDeep);
    }
    let names: Vec<String> = spec.agent().spawns().into_iter().map(str::to_owned).collect();
    let mut below = 0;
    for child in names.iter().filter_map(|name| spec.child(name)) {
        below = below.max(tree_depth(&child, above + 1)?);
    }
    Ok(below + 1)
}

/// The tools that a spec and every agent it can reach name, by name.
pub(super) fn wanted(tools: &[Tool], spec: &AgentSpec) -> Result<Vec<Tool>, RunError> {
    let mut patterns = Vec::new();
    patterns_of(spec, &mut patterns, 0)?;
    let mut wanted: Vec<Tool> = Vec::new();
    for text in patterns {
        let named = |tool: &&Tool| is_named(&text, &tool.spec().name) && !matches!(tool, Tool::Model(_));
        let before = wanted.len();
        wanted.extend(tools.iter().filter(named).cloned());
        if wanted.len() == before {
            let known: Vec<&str> = tools.iter().map(|tool| tool.spec().name.as_str()).collect();
            return Err(RunError::NoTool { pattern: text, known: known.join(", ") });
        }
    }
    for model in models_of(spec) {
        let name = model.tool_name();
        let found = tools.iter().find(|tool| tool.spec().name == name);
        wanted.push(found.cloned().ok_or(RunError::NoModel { provider: model.provider, name: model.name })?);
    }
    let of_probe = |tool: &Tool| Some((tool.spec().name.clone(), tool.spec().probe.as_ref()?.tool.clone()));
    for (tool, probe) in wanted.iter().filter_map(of_probe).collect::<Vec<_>>() {
        let Some(found) = tools.iter().find(|tool| tool.spec().name == probe) else {
            return Err(RunError::ProbeNotApproved { tool, probe });
        };
        if found.spec().effect != Effect::Read.number() {
            return Err(RunError::NoProbe(probe));
        }
        wanted.push(found.clone());
    }
    wanted.sort_by(|a, b| a.spec().name.cmp(&b.spec().name));
    wanted.dedup_by(|a, b| a.spec().name == b.spec().name);
    Ok(wanted)
}

/// The tool patterns of a spec and of every agent it can reach.
fn patterns_of(spec: &AgentSpec, patterns: &mut Vec<String>, above: u8) -> Result<(), RunError> {
    if above >= TREE_DEPTH_MAX {
        return Err(RunError::TooDeep);
    }
    patterns.extend(spec.agent().tools.iter().cloned());
    let names: Vec<String> = spec.agent().spawns().into_iter().map(str::to_owned).collect();
    for child in names.iter().filter_map(|name| spec.child(name)) {
        patterns_of(&child, patterns, above + 1)?;
    }
    Ok(())
}

/// Whether a tool of this name is among those that `pattern` names.
pub(super) fn is_named(pattern: &str, name: &str) -> bool {
    match (NamePat::parse(pattern), ExactName::parse(name)) {
        (Ok(pattern), Ok(name)) => pattern.covers(&NamePat::Exact(name)),
        (Err(_), _) | (_, Err(_)) => false,
    }
}
