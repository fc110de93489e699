//! Commitments to the state, and the end of a session.

use crate::body::v1::{CloseAsked, Cmd, SessionClosed, StateCommitted};
use crate::decide::Answer;
use crate::denial::{Code, Denial};
use crate::event::{Body, kind};
use crate::ids::PrincipalId;
use crate::state::State;

pub(crate) fn commit_state(state: &State, cmd: Option<Cmd>) -> Result<Answer, Denial> {
    let (digest, leaves) = state.digest();
    let upto = state.head.seq;
    Ok(Body::StateCommitted(StateCommitted { cmd, digest, leaves, upto }).into())
}

pub(crate) fn close(state: &State, by: PrincipalId, cmd: Option<Cmd>, asked: &CloseAsked) -> Result<Answer, Denial> {
    if !(1..=3).contains(&asked.why) {
        return Err(Denial::new(Code::Malformed).rule("why"));
    }
    if by != state.session.opener && cmd.as_ref().is_none_or(|cmd| cmd.under.is_none()) {
        return Err(Denial::new(Code::NoAdmin).need("admin:#cancel"));
    }
    if state.open_calls > 0 {
        return Err(Denial::new(Code::ConditionNotMet).rule("a call is open"));
    }
    if state.listed.values().any(|listed| listed.open) {
        return Err(Denial::new(Code::ConditionNotMet).rule("a session is open"));
    }
    if state.head.kind != kind::STATE_COMMITTED {
        return Err(Denial::new(Code::ConditionNotMet).rule("the state is not committed to"));
    }
    Ok(Body::SessionClosed(SessionClosed { cmd, why: asked.why, reason: asked.reason }).into())
}
