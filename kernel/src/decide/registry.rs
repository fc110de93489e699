//! Tools of the system session: proposed, approved, quarantined.

use crate::body::v1::{
    ApproveToolAsked, Cmd, QuarantineToolAsked, RegisterToolAsked, ToolApproved, ToolQuarantined, ToolRegistered,
};
use crate::decide::{Answer, tool};
use crate::denial::{Code, Denial};
use crate::event::Body;
use crate::ids::Digest;
use crate::limits::TOOLS_MAX;
use crate::state::{RegisteredTool, State, ToolState};

pub(crate) fn register(state: &State, cmd: Option<Cmd>, asked: &RegisterToolAsked) -> Result<Answer, Denial> {
    let becomes = match ToolState::from_number(asked.state) {
        Some(becomes @ (ToolState::Proposed | ToolState::Approved)) => becomes,
        Some(ToolState::Quarantined) | None => return Err(Denial::new(Code::Malformed).rule("state")),
    };
    tool::parse(&asked.tool)?;
    let known = state.registered.get(&asked.tool.name);
    let replaces = match known.map(|known| known.state) {
        None | Some(ToolState::Proposed | ToolState::Quarantined) => true,
        // A proposal does not take away what was approved.
        Some(ToolState::Approved) => becomes == ToolState::Approved,
    };
    let new = known.is_none_or(|known| known.tool.digest != asked.tool.digest);
    if !replaces || !new {
        return Err(Denial::new(Code::IllegalTransition).rule(known.map_or("", |known| known.state.name())));
    }
    if known.is_none() && state.registered.len() >= TOOLS_MAX {
        return Err(Denial::new(Code::Limit).rule("tools"));
    }
    let body = ToolRegistered { cmd, tool: asked.tool.clone(), file: asked.file, state: asked.state };
    Ok(Body::ToolRegistered(Box::new(body)).into())
}

pub(crate) fn approve(state: &State, cmd: Option<Cmd>, asked: &ApproveToolAsked) -> Result<Answer, Denial> {
    let known = find(state, &asked.name, asked.digest)?;
    match known.state {
        ToolState::Proposed | ToolState::Quarantined => {
            Ok(Body::ToolApproved(ToolApproved { cmd, name: asked.name.clone(), digest: asked.digest }).into())
        }
        ToolState::Approved => Err(Denial::new(Code::IllegalTransition).rule(known.state.name())),
    }
}

pub(crate) fn quarantine(state: &State, cmd: Option<Cmd>, asked: &QuarantineToolAsked) -> Result<Answer, Denial> {
    if !matches!(asked.why, 1..=3 | 5) {
        return Err(Denial::new(Code::Malformed).rule("why"));
    }
    let known = find(state, &asked.name, asked.digest)?;
    match known.state {
        ToolState::Approved => Ok(Body::ToolQuarantined(ToolQuarantined {
            cmd,
            name: asked.name.clone(),
            digest: asked.digest,
            why: asked.why,
            seen: asked.seen,
        })
        .into()),
        ToolState::Proposed | ToolState::Quarantined => {
            Err(Denial::new(Code::IllegalTransition).rule(known.state.name()))
        }
    }
}

fn find<'s>(state: &'s State, name: &str, digest: Digest) -> Result<&'s RegisteredTool, Denial> {
    let known = state.registered.get(name).ok_or(Denial::new(Code::UnknownTool))?;
    if known.tool.digest == digest { Ok(known) } else { Err(Denial::new(Code::DigestChanged)) }
}
