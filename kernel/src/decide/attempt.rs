//! What happens to a call before it ends: an attempt that came to nothing, and a request to stop it.

use crate::body::v1::{AttemptAsked, CallAttempted, CancelAsked, CancelRequested, Cmd};
use crate::budget::{CALLS, WALL};
use crate::decide::{Answer, agent, call};
use crate::denial::{Code, Denial};
use crate::event::Body;
use crate::ids::{PrincipalId, TimeUs};
use crate::limits::CALL_ATTEMPTS_MAX;
use crate::state::{Call, State};
use crate::tool::Effect;

/// The cause of an attempt that was answered with a status.
const STATUS: u8 = 1;
/// The causes of an attempt that was lost with what ran it: crash, lost.
const LOST: std::ops::RangeInclusive<u8> = 6..=7;

pub(crate) fn report(
    state: &State,
    by: PrincipalId,
    cmd: Option<Cmd>,
    asked: &AttemptAsked,
    at: TimeUs,
) -> Result<Answer, Denial> {
    check_form(asked)?;
    let call = call::open(state, asked.call)?;
    let node = by == PrincipalId::NODE && is_lost(asked.cause);
    if by != call.executor && !node {
        return Err(Denial::new(Code::NotExecutor));
    }
    if asked.attempt != call.attempt {
        return Err(Denial::new(Code::IllegalTransition).rule("attempt"));
    }
    goes_on(state, call, asked, at)?;
    if is_lost(asked.cause) {
        pays_again(state, call)?;
    }
    let body = CallAttempted {
        cmd,
        call: asked.call,
        attempt: asked.attempt,
        cause: asked.cause,
        status: asked.status,
        not_before: asked.not_before,
        usage: asked.usage.clone(),
        part: asked.part,
    };
    Ok(Answer { causes: vec![call.seq], body: Body::CallAttempted(body) })
}

fn check_form(asked: &AttemptAsked) -> Result<(), Denial> {
    let status = match asked.cause {
        STATUS => (100..=999).contains(&asked.status),
        2..=7 => asked.status <= 999,
        _ => return Err(Denial::new(Code::Malformed).rule("cause")),
    };
    if !status {
        return Err(Denial::new(Code::Malformed).rule("status"));
    }
    let usage = asked.usage.as_ref();
    if usage.is_some_and(|usage| usage.tokens_cached > usage.tokens_in) {
        return Err(Denial::new(Code::Malformed).rule("usage"));
    }
    Ok(())
}

/// Whether another attempt may follow at all.
fn goes_on(state: &State, call: &Call, asked: &AttemptAsked, at: TimeUs) -> Result<(), Denial> {
    let denied = |rule: &str| Err(Denial::new(Code::ConditionNotMet).rule(rule));
    if call.cancel {
        return denied("the call is to be stopped");
    }
    match call.effect {
        Effect::Read | Effect::Idempotent => {}
        // Nobody can tell whether the attempt has done it after all.
        Effect::Reconcile | Effect::Once => return denied("it must not run twice"),
    }
    if call.attempt >= CALL_ATTEMPTS_MAX {
        return denied("no more attempts");
    }
    let deadline = if is_lost(asked.cause) { renewed_deadline(state, call, at) } else { call.deadline };
    if asked.not_before.max(at) >= deadline { denied("the deadline") } else { Ok(()) }
}

/// Until when the attempt may run that follows one which was lost at `at`: the time in which nothing ran was not its own,
/// but no attempt outlives a grant.
pub(crate) fn renewed_deadline(state: &State, call: &Call, at: TimeUs) -> TimeUs {
    let leaves: Vec<u32> = call.grants.iter().filter_map(|id| state.grants.find(id)).collect();
    let expiry = call::earliest_expiry(state, &state.grants.union(&leaves));
    match call.reserve[WALL] {
        0 => expiry,
        wall => expiry.min(at.saturating_add(wall)),
    }
}

/// Whether the cause is one that hides what the attempt took.
pub(crate) fn is_lost(cause: u8) -> bool {
    LOST.contains(&cause)
}

/// An attempt that was lost is charged as promised, so there must be room for that and for the next one.
fn pays_again(state: &State, call: &Call) -> Result<(), Denial> {
    let leaves: Vec<u32> = call.grants.iter().filter_map(|id| state.grants.find(id)).collect();
    let mut again = call.reserve;
    again[CALLS] = 0;
    call::check_budgets(state, &state.grants.union(&leaves), &again.map(Some), &again)
}

pub(crate) fn cancel(state: &State, by: PrincipalId, cmd: Option<Cmd>, asked: &CancelAsked) -> Result<Answer, Denial> {
    if !(1..=4).contains(&asked.why) {
        return Err(Denial::new(Code::Malformed).rule("why"));
    }
    let call = call::open(state, asked.call)?;
    let own = by == call.principal || agent::is_above(state, by, call.principal);
    if !own && !agent::has_right(cmd.as_ref()) {
        return Err(Denial::new(Code::NoAdmin).need("admin:#cancel"));
    }
    if call.cancel {
        return Err(Denial::new(Code::IllegalTransition).rule("the call is to be stopped"));
    }
    let body = CancelRequested { cmd, call: asked.call, why: asked.why, reason: asked.reason };
    Ok(Answer { causes: vec![call.seq], body: Body::CancelRequested(body) })
}
