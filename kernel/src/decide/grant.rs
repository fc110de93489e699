//! Grants: issue, delegate, revoke; and whether one is live.

use crate::body::v1::{Cmd, Grant, GrantAsked, GrantIssued, GrantRevoked, IssueAsked, RevokeAsked};
use crate::capability::{Capability, Use};
use crate::decide::Answer;
use crate::denial::{Code, Denial, Dim};
use crate::event::Body;
use crate::ids::{GrantId, PrincipalId, TimeUs};
use crate::limits::{CAPABILITY_BYTES_MAX, GRANT_CHILDREN_MAX, GRANTS_MAX, TIME_US_MAX};
use crate::state::State;

pub(crate) fn issue(
    state: &State,
    by: PrincipalId,
    cmd: Option<Cmd>,
    asked: &IssueAsked,
    at: TimeUs,
) -> Result<Answer, Denial> {
    let to = asked.grant.to;
    let asked = GrantAsked { parent: asked.grant.parent, cap: asked.grant.cap.clone() };
    match state.principals.get(&to) {
        // Not 203: that code is for a stranger who asks, and never becomes an entry.
        None => return Err(Denial::new(Code::Malformed).rule("to")),
        Some(principal) if !principal.alive => return Err(Denial::new(Code::PrincipalDead).rule("to")),
        Some(_) => {}
    }
    let grant = match asked.parent {
        Some(_) => delegate(state, by, &asked, to, at, &[])?,
        None => root(state, by, &asked, to, at)?,
    };
    Ok(Body::GrantIssued(Box::new(GrantIssued { cmd, grant })).into())
}

/// A grant that derives from none. That it may be issued is decided by the signature and the administrative grant.
fn root(state: &State, by: PrincipalId, asked: &GrantAsked, to: PrincipalId, at: TimeUs) -> Result<Grant, Denial> {
    let cap = parse(&asked.cap)?;
    if !is_root_window(&cap, at) {
        return Err(Denial::new(Code::Malformed).rule("exp"));
    }
    check_count(state, 0)?;
    Ok(Grant { parent: None, issuer: by, subject: to, cap, answers: Vec::new() })
}

/// Whether a root grant ends, and later than now.
pub(crate) fn is_root_window(cap: &Capability, at: TimeUs) -> bool {
    cap.exp_us.is_some_and(|exp| exp > at) && cap_window_is_sound(cap)
}

fn check_count(state: &State, more: usize) -> Result<(), Denial> {
    let held = state.grants.len() + more;
    if held >= GRANTS_MAX {
        return Err(Denial::count(Code::Limit, Dim::Grants, GRANTS_MAX as u64, held as u64, 1));
    }
    Ok(())
}

pub(crate) fn revoke(state: &State, by: PrincipalId, cmd: Option<Cmd>, asked: &RevokeAsked) -> Result<Answer, Denial> {
    let at = state.grants.find(&asked.grant).ok_or(Denial::new(Code::NoGrant))?;
    let node = state.grants.at(at);
    let above = |by: PrincipalId| {
        state.grants.chain(at).skip(1).any(|up| {
            let grant = &state.grants.at(up).grant;
            grant.subject == by || grant.issuer == by
        })
    };
    let standing = if cmd.as_ref().is_some_and(|cmd| cmd.under.is_some()) {
        4
    } else if node.grant.subject == by {
        1
    } else if node.grant.issuer == by {
        2
    } else if above(by) {
        3
    } else {
        return Err(Denial::new(Code::NotRevoker).at_grant(asked.grant).need("admin:#revoke-any"));
    };
    Ok(Body::GrantRevoked(GrantRevoked {
        cmd,
        grant: asked.grant,
        standing,
        already: node.revoked,
        reason: asked.reason,
    })
    .into())
}

/// The filled grant that `by` may hand to `to`; `before` are the grants of the same command that come before it.
pub(crate) fn delegate(
    state: &State,
    by: PrincipalId,
    asked: &GrantAsked,
    to: PrincipalId,
    at: TimeUs,
    before: &[Grant],
) -> Result<Grant, Denial> {
    let mut cap = parse(&asked.cap)?;
    let parent = asked.parent.ok_or(Denial::new(Code::BadParent))?;
    let index = find_held(state, parent, by)?;
    live(state, index, at)?;
    let node = state.grants.at(index);
    cap.fill_from(&node.grant.cap);
    check_below(state, index, &cap, to)?;
    let siblings = before.iter().filter(|grant| grant.parent == Some(parent)).count();
    let children = u64::from(node.meter.children) + siblings as u64;
    if children >= u64::from(GRANT_CHILDREN_MAX) {
        let limit = u64::from(GRANT_CHILDREN_MAX);
        return Err(Denial::count(Code::Limit, Dim::Children, limit, children, 1).at_grant(parent));
    }
    check_count(state, before.len())?;
    if !fits(&cap) {
        return Err(Denial::new(Code::Malformed).rule("a filled grant is longer than 4,096 bytes"));
    }
    Ok(Grant { parent: Some(parent), issuer: by, subject: to, cap, answers: Vec::new() })
}

/// The index of a grant that `by` holds and wants to derive from.
pub(crate) fn find_held(state: &State, parent: GrantId, by: PrincipalId) -> Result<u32, Denial> {
    let index = state.grants.find(&parent).ok_or(Denial::new(Code::BadParent))?;
    if state.grants.at(index).grant.subject != by {
        return Err(Denial::new(Code::NotHolder).at_grant(parent));
    }
    Ok(index)
}

/// Whether `cap`, held by `to`, may derive from the grant at `index`.
pub(crate) fn check_below(state: &State, index: u32, cap: &Capability, to: PrincipalId) -> Result<(), Denial> {
    let node = state.grants.at(index);
    let (parent, held) = (node.id, &node.grant.cap);
    if held.depth == 0 {
        return Err(Denial::new(Code::NoDelegate).at_grant(parent));
    }
    let wider = |dim: Dim| Denial::new(Code::NotAttenuated).at_grant(parent).dim(dim).need(cap);
    cap.attenuates(held).map_err(wider)?;
    if !cap_window_is_sound(cap) {
        return Err(wider(Dim::Time));
    }
    if cap.depth >= held.depth {
        return Err(wider(Dim::Depth));
    }
    if held.use_ == Use::No && cap.use_ != Use::No {
        return Err(Denial::new(Code::NotAttenuated).at_grant(parent).rule("use").need(cap));
    }
    let conveyed = |up: u32| {
        let grant = &state.grants.at(up).grant;
        grant.cap.use_ == Use::Convey && grant.subject == to
    };
    if state.grants.chain(index).any(conveyed) {
        return Err(Denial::new(Code::SelfConvey).at_grant(parent));
    }
    Ok(())
}

pub(crate) fn cap_window_is_sound(cap: &Capability) -> bool {
    cap.nbf_us.unwrap_or(0) < cap.exp_us.unwrap_or(TIME_US_MAX)
}

/// Parses the text of a capability in a command. An event holds the canonical text, so that is what is bounded.
pub(crate) fn parse(text: &str) -> Result<Capability, Denial> {
    let cap = Capability::parse(text).map_err(|error| Denial::new(error.code).rule("capability"))?;
    if fits(&cap) { Ok(cap) } else { Err(Denial::new(Code::Malformed).rule("capability: longer than 4,096 bytes")) }
}

/// Whether the canonical text of `cap` may stand in a body.
pub(crate) fn fits(cap: &Capability) -> bool {
    cap.to_string().len() <= CAPABILITY_BYTES_MAX
}

/// The index of a grant that `by` may use now.
pub(crate) fn usable(state: &State, id: &GrantId, by: PrincipalId, at: TimeUs) -> Result<u32, Denial> {
    let index = state.grants.find(id).ok_or_else(|| Denial::new(Code::NoGrant).at_grant(*id))?;
    let grant = &state.grants.at(index).grant;
    if grant.subject != by {
        return Err(Denial::new(Code::NotHolder).at_grant(*id));
    }
    if grant.cap.use_ != Use::Yes {
        return Err(Denial::new(Code::NoUse).at_grant(*id));
    }
    live(state, index, at)?;
    Ok(index)
}

/// Whether the grant at `index` and all above it hold at `at`; the nearest that does not is named.
pub(crate) fn live(state: &State, index: u32, at: TimeUs) -> Result<(), Denial> {
    for up in state.grants.chain(index) {
        let node = state.grants.at(up);
        let cap = &node.grant.cap;
        let code = if node.revoked {
            Code::Revoked
        } else if at >= cap.exp_us.unwrap_or(TIME_US_MAX) {
            Code::Expired
        } else if at < cap.nbf_us.unwrap_or(0) {
            Code::NotYet
        } else if !state.principals.get(&node.grant.subject).is_some_and(|subject| subject.alive) {
            Code::HolderDead
        } else {
            continue;
        };
        return Err(Denial::new(code).at_grant(node.id));
    }
    Ok(())
}
