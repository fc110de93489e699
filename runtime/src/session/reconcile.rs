//! Calls that a crash interrupted and that may or may not have been done: of class reconcile a probe tells.

use serde_json::{Map, Value};
use toka_kernel::body::v1::AttemptAsked;
use toka_kernel::hash::{Context, derive};
use toka_kernel::ids::{CallId, CommandId, PrincipalId, Seq, derived};
use toka_kernel::tool::{Effect, Probe};
use toka_kernel::{AdmittedCall, Ask, Code};

use super::asking::Wanted;
use super::{RunError, Session};
use crate::engine::CommitError;
use crate::executor::{Ended, Tool, outcome};

/// The cause of an attempt that ended with the process that ran it.
const CRASH: u8 = 6;

/// What a probe answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The call was done.
    Done,
    /// It was not, so it may run.
    NotDone,
    /// It failed, was refused or says that it does not know.
    Unknown,
}

impl Answer {
    pub(super) fn of(ended: &Ended) -> Answer {
        let result = ended.result.as_ref().filter(|_| ended.outcome.kind == outcome::SUCCEEDED);
        let text = result.and_then(|bytes| serde_json::from_slice::<String>(bytes).ok());
        match text.as_deref().map(str::trim) {
            Some("done") => Answer::Done,
            Some("not_done") => Answer::NotDone,
            Some(_) | None => Answer::Unknown,
        }
    }
}

/// The id of the command that asks a probe of `call` when the head is at `head`. By it the command is known in the log.
///
/// Every restart asks anew, since an earlier answer says nothing of what ran since.
pub(crate) fn probe_id(call: CallId, head: Seq) -> CommandId {
    CommandId::of(derive(Context::CommandId, &[&call.0, &head.to_be_bytes(), b"probe"]))
}

impl Session {
    /// Settles what was interrupted as the effect class of each call has it: reads and idempotent calls run again, each as
    /// a new attempt, of those that must not run twice nobody knows what came of them, and for the others their probe is
    /// asked.
    pub(super) fn settle_interrupted(&mut self) -> Result<(), RunError> {
        let open: Vec<AdmittedCall> = self.views().calls.open_after(0).cloned().collect();
        // An agent with a call in doubt may ask nothing more, a probe neither.
        for call in open.iter().filter(|call| call.effect() == Effect::Reconcile) {
            if let Some(why) = self.ask_probe(call)? {
                self.untold.insert(call.id(), why);
                self.report(Ended::unknown(call))?;
            }
        }
        for call in open.iter().filter(|call| call.effect() == Effect::Once) {
            self.report(Ended::unknown(call))?;
        }
        // One that is to be stopped is, by whoever would run it.
        let goes_on = |call: &&AdmittedCall| {
            let repeats = matches!(call.effect(), Effect::Read | Effect::Idempotent);
            repeats && !self.views().calls.is_cancelled(call.id())
        };
        for call in open.iter().filter(goes_on).collect::<Vec<_>>() {
            self.try_again(call)?;
        }
        Ok(())
    }

    /// Records that an attempt of `call` ended with the process that ran it. Where no other may follow, since there were
    /// too many or what it may use up is used up, the call is lost.
    fn try_again(&mut self, call: &AdmittedCall) -> Result<(), RunError> {
        let attempt = call.attempt();
        let id = CommandId::of(derive(Context::CommandId, &[&call.id().0, &attempt.to_be_bytes(), b"crash"]));
        let asked =
            AttemptAsked { call: call.id(), attempt, cause: CRASH, status: 0, not_before: 0, usage: None, part: None };
        match self.commit(PrincipalId::NODE, id, Ask::ReportAttempt(asked), &[])?.body.refused() {
            None => Ok(()),
            Some(_) => self.report(Ended::lost(call)),
        }
    }

    /// Asks, as the agent itself and within its grants, whether `call` was done. Until the answer it does not run. Why it
    /// cannot be asked, if it cannot.
    fn ask_probe(&mut self, call: &AdmittedCall) -> Result<Option<String>, RunError> {
        let named = |tool: &&Tool| tool.spec().name == call.tool() && tool.spec().digest().ok() == Some(call.digest());
        let Some(tool) = self.tools.iter().find(named) else {
            return Ok(Some(format!("the version of `{}` that was called is not approved any more", call.tool())));
        };
        let Some(probe) = tool.spec().probe.clone() else { return Ok(Some("it has no probe".to_owned())) };
        let Some(arguments) = self.engine.blob(call.arguments().commitment).map_err(CommitError::from)? else {
            return Ok(Some("its arguments are gone, so its probe was not asked".to_owned()));
        };
        let bound = self.engine.state().bound_digest(&probe.tool);
        let same = |tool: &&Tool| tool.spec().name == probe.tool && tool.spec().digest().ok() == bound;
        let Some(Effect::Read) = self.tools.iter().find(same).and_then(|tool| Effect::from_number(tool.spec().effect))
        else {
            let what = "is not the version with which the session began, or not approved any more";
            return Ok(Some(format!("its probe `{}` {what}, so it was not asked", probe.tool)));
        };
        // One that was asked before a crash and has not answered runs again by itself.
        let asked = match self.transcripts.open_probe(call.id()) {
            Some(asked) => asked,
            None => {
                let question = question(&probe, call.id(), &arguments).to_string();
                let id = probe_id(call.id(), self.engine.state().head().seq);
                let wanted = Wanted { tool: &probe.tool, arguments: &question, unfit: None };
                let committed = self.ask_call(call.principal(), id, &wanted, true)?;
                if let Some(refused) = committed.event.body.refused() {
                    let code = Code::from_number(refused.code).unwrap_or(Code::Malformed);
                    return Ok(Some(format!("its probe `{}` was refused: {code}", probe.tool)));
                }
                CallId(derived(self.id(), committed.seq, 0))
            }
        };
        self.executors.hold(call.id());
        self.probes.insert(asked, call.clone());
        Ok(None)
    }

    /// Settles the call of which the probe `asked` has told.
    pub(super) fn settle_by_probe(&mut self, asked: CallId, answer: Answer) -> Result<(), RunError> {
        let Some(call) = self.probes.remove(&asked) else { return Ok(()) };
        match answer {
            Answer::Done => self.report(Ended::by_probe(&call)),
            Answer::NotDone => {
                self.executors.release(call.id());
                Ok(())
            }
            Answer::Unknown => {
                let row = self.views().calls.get(asked);
                let probe = row.map(|row| row.tool.clone()).unwrap_or_default();
                self.untold.insert(call.id(), format!("its probe `{probe}` did not tell (call {})", asked.short()));
                self.report(Ended::unknown(&call))
            }
        }
    }
}

/// The arguments of a probe for the call `call`, which was asked with `arguments`.
pub(super) fn question(probe: &Probe, call: CallId, arguments: &[u8]) -> Value {
    let asked: Map<String, Value> = serde_json::from_slice(arguments).unwrap_or_default();
    let value = |param: &toka_kernel::tool::ProbeParam| match (&param.value, &param.arg) {
        (Some(value), _) => serde_json::from_str(value).ok(),
        (None, Some(arg)) => asked.get(arg).cloned(),
        (None, None) => Some(Value::String(call.to_string())),
    };
    let params = probe.params.iter().filter_map(|param| Some((param.name.clone(), value(param)?)));
    Value::Object(params.collect())
}
