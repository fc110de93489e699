//! What is observed: it stands in the log and decides nothing.

use crate::body::v1::{Cmd, ObserveAsked, Observed, ProbeAsked, SandboxProbed};
use crate::decide::Answer;
use crate::denial::{Code, Denial};
use crate::event::Body;
use crate::ids::PrincipalId;
use crate::state::State;

/// The highest number of what can be observed in these rules. 10 and 11, which an operator signs, are not built.
const OBSERVED_MAX: u16 = 9;
/// Every bit of the levels of a probe: strong, landlock.
const LEVELS: u8 = 3;

pub(crate) fn observe(
    state: &State,
    by: PrincipalId,
    cmd: Option<Cmd>,
    asked: &ObserveAsked,
) -> Result<Answer, Denial> {
    if !(1..=OBSERVED_MAX).contains(&asked.what) {
        return Err(Denial::new(Code::Malformed).rule("what"));
    }
    if let Some(id) = asked.call
        && by != PrincipalId::NODE
    {
        // The node may speak of a call that left the state long ago.
        let call = state.calls.get(&id).ok_or(Denial::new(Code::UnknownCall))?;
        if call.executor != by {
            return Err(Denial::new(Code::NotExecutor));
        }
    }
    Ok(Body::Observed(Observed {
        cmd,
        what: asked.what,
        subject: asked.subject,
        call: asked.call,
        count: asked.count,
        detail: asked.detail,
    })
    .into())
}

pub(crate) fn probe(cmd: Option<Cmd>, asked: &ProbeAsked) -> Result<Answer, Denial> {
    if asked.levels & !LEVELS != 0 {
        return Err(Denial::new(Code::Malformed).rule("levels"));
    }
    Ok(Body::SandboxProbed(SandboxProbed {
        cmd,
        levels: asked.levels,
        layers: asked.layers,
        landlock_abi: asked.landlock_abi,
        jail: asked.jail,
        kernel: asked.kernel.clone(),
    })
    .into())
}
