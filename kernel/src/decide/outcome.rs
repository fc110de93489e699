//! What came of a call: what a report must hold, and how an outcome that nobody knows is settled.

use crate::body::v1::{Cmd, Outcome, OutcomeResolved, ReportAsked, ResolveAsked, SandboxRecord};
use crate::decide::Answer;
use crate::denial::{Code, Denial};
use crate::event::Body;
use crate::limits::TIME_US_MAX;
use crate::state::State;
use crate::tool::{Effect, Level};

/// The number of an outcome that nobody knows.
const UNKNOWN: u8 = 11;
/// The number of an outcome that was lost with what ran the call.
const LOST: u8 = 10;
/// Every bit of the streams that can be cut: stdout, stderr.
const STREAMS: u8 = 3;

/// Whether an outcome leaves in doubt what was done. What was lost may have been done as well, and running it again is no
/// way to find out unless its tool says that this does no harm.
pub(crate) fn leaves_doubt(outcome: &Outcome, effect: Effect) -> bool {
    outcome.kind == UNKNOWN || outcome.kind == LOST && matches!(effect, Effect::Once | Effect::Reconcile)
}

/// Checks what a report says of how the call ran.
pub(crate) fn check_records(asked: &ReportAsked) -> Result<(), Denial> {
    if asked.sandbox.as_ref().is_some_and(|record| !is_sound(record)) {
        return Err(Denial::new(Code::Malformed).rule("sandbox"));
    }
    let wasm = asked.wasm.as_ref();
    if wasm.is_some_and(|record| record.clock_us > TIME_US_MAX || record.guest_denied > record.guest_asked) {
        return Err(Denial::new(Code::Malformed).rule("wasm"));
    }
    Ok(())
}

/// A native call has no such record, and nothing runs below the level that was required.
fn is_sound(record: &SandboxRecord) -> bool {
    let confined = |number: u8| match Level::from_number(number) {
        Some(Level::None | Level::Landlock | Level::Strong) => true,
        Some(Level::Native) | None => false,
    };
    record.cut & !STREAMS == 0
        && confined(record.required)
        && confined(record.level)
        && record.required <= record.level
        && record.started_us <= record.ended_us
        && record.ended_us <= TIME_US_MAX
}

pub(crate) fn resolve(state: &State, cmd: Option<Cmd>, asked: &ResolveAsked) -> Result<Answer, Denial> {
    if !(1..=3).contains(&asked.verdict) {
        return Err(Denial::new(Code::Malformed).rule("verdict"));
    }
    let call = state.calls.get(&asked.call).ok_or(Denial::new(Code::UnknownCall))?;
    if !call.doubt {
        return Err(Denial::new(Code::IllegalTransition).rule("the outcome is not in doubt"));
    }
    let body = OutcomeResolved { cmd, call: asked.call, verdict: asked.verdict, evidence: asked.evidence };
    Ok(Answer { causes: vec![call.seq], body: Body::OutcomeResolved(body) })
}
