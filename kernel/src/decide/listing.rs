//! Sessions in the system session: registered before they are opened, with what is set aside for them, and settled after.

use std::collections::BTreeMap;

use crate::body::v1::{
    Cmd, EndSessionAsked, GrantAmounts, OpenSessionAsked, Root, RootAsked, SessionEnded, SessionRegistered,
};
use crate::budget::{self, Vector};
use crate::capability::Capability;
use crate::decide::{Answer, call, grant};
use crate::denial::{Code, Denial};
use crate::event::Body;
use crate::ids::{GrantId, PrincipalId, TimeUs};
use crate::limits::SESSIONS_MAX;
use crate::state::State;

pub(crate) fn open(
    state: &State,
    by: PrincipalId,
    cmd: Option<Cmd>,
    asked: &OpenSessionAsked,
    at: TimeUs,
) -> Result<Answer, Denial> {
    if asked.opener != by {
        return Err(Denial::new(Code::Malformed).rule("opener"));
    }
    if state.listed.contains_key(&asked.session) {
        return Err(Denial::new(Code::IllegalTransition).rule("the session is listed"));
    }
    if state.listed.len() >= SESSIONS_MAX {
        return Err(Denial::new(Code::Limit).rule("sessions"));
    }
    let mut roots = Vec::with_capacity(asked.roots.len());
    let mut reserved: Vec<(GrantId, Vector)> = Vec::new();
    for (item, root) in asked.roots.iter().enumerate() {
        let cap = root_cap(state, by, root, at).map_err(|denial| denial.item(item))?;
        if let Some(from) = root.from {
            set_aside(&mut reserved, from, &cap).map_err(|denial| denial.item(item))?;
        }
        roots.push(Root { from: root.from, cap });
    }
    check_room(state, &reserved)?;
    let reserved =
        reserved.iter().map(|(grant, amounts)| GrantAmounts { grant: *grant, amounts: budget::amounts(amounts) });
    Ok(Body::SessionRegistered(Box::new(SessionRegistered {
        cmd,
        session: asked.session,
        opener: asked.opener,
        roots,
        reserved: reserved.collect(),
    }))
    .into())
}

/// The capability of a root grant. Nothing in it is filled: the genesis that holds it is sealed already.
fn root_cap(state: &State, by: PrincipalId, root: &RootAsked, at: TimeUs) -> Result<Capability, Denial> {
    let cap = grant::parse(&root.cap)?;
    if !grant::is_root_window(&cap, at) {
        return Err(Denial::new(Code::Malformed).rule("exp"));
    }
    let Some(from) = root.from else { return Ok(cap) };
    let index = grant::find_held(state, from, by)?;
    grant::live(state, index, at)?;
    grant::check_below(state, index, &cap, by)?;
    Ok(cap)
}

/// Adds what a root may use to what is set aside under the grant it derives from.
fn set_aside(reserved: &mut Vec<(GrantId, Vector)>, from: GrantId, cap: &Capability) -> Result<(), Denial> {
    if !reserved.iter().any(|(grant, _)| *grant == from) {
        reserved.push((from, Vector::default()));
    }
    let Some((_, sum)) = reserved.iter_mut().find(|(grant, _)| *grant == from) else { return Ok(()) };
    add(sum, &limits_of(cap)).map_err(|denial| denial.at_grant(from))
}

/// The amounts of a capability; bytes are charged in whole grains, so a part of one can never be used.
fn limits_of(cap: &Capability) -> Vector {
    let mut amounts = cap.limits.amounts.map(|amount| amount.unwrap_or(0));
    for (_, amount) in amounts.iter_mut().enumerate().filter(|(index, _)| budget::is_bytes(*index)) {
        *amount = budget::full_grains(*amount);
    }
    amounts
}

fn add(sum: &mut Vector, more: &Vector) -> Result<(), Denial> {
    for (index, amount) in more.iter().enumerate() {
        let dim = budget::LIMITED[index];
        sum[index] = sum[index].checked_add(*amount).ok_or(Denial::new(Code::BudgetOverflow).dim(dim))?;
    }
    Ok(())
}

/// Whether every grant above has room for all that is set aside below it.
fn check_room(state: &State, reserved: &[(GrantId, Vector)]) -> Result<(), Denial> {
    let mut totals: BTreeMap<u32, Vector> = BTreeMap::new();
    for (from, amounts) in reserved {
        let Some(leaf) = state.grants.find(from) else { continue };
        for up in state.grants.chain(leaf) {
            let id = state.grants.at(up).id;
            add(totals.entry(up).or_default(), amounts).map_err(|denial| denial.at_grant(id))?;
        }
    }
    for (up, amounts) in &totals {
        call::check_budgets(state, &[*up], &amounts.map(Some), amounts)?;
    }
    Ok(())
}

pub(crate) fn end(state: &State, cmd: Option<Cmd>, asked: &EndSessionAsked) -> Result<Answer, Denial> {
    let malformed = |rule: &str| Denial::new(Code::Malformed).rule(rule);
    let well_formed = match asked.how {
        1 => asked.head.is_some(),
        2 => asked.head.is_none() && asked.spent.is_empty(),
        _ => return Err(malformed("how")),
    };
    if !well_formed {
        return Err(malformed("head or spent"));
    }
    let listed = state.listed.get(&asked.session).ok_or(malformed("no such session"))?;
    if !listed.open {
        return Err(Denial::new(Code::IllegalTransition).rule("the session has ended"));
    }
    // In the order in which they were set aside, each at most once.
    let mut set_aside = listed.reserved.iter();
    for (item, spent) in asked.spent.iter().enumerate() {
        if !set_aside.any(|reserved| reserved.grant == spent.grant) {
            return Err(malformed("spent").item(item));
        }
        if budget::vector(&spent.amounts).is_none() {
            return Err(Denial::new(Code::BadAmount).item(item));
        }
    }
    Ok(Body::SessionEnded(SessionEnded {
        cmd,
        session: asked.session,
        how: asked.how,
        head: asked.head.clone(),
        spent: asked.spent.clone(),
    })
    .into())
}
