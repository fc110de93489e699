//! Calls that a crash interrupted and that may or may not have been done: of class reconcile a probe tells.

use serde_json::{Map, Value};
use toka_kernel::hash::{Context, derive};
use toka_kernel::ids::{CallId, CommandId, derived};
use toka_kernel::tool::{Effect, Probe};
use toka_kernel::{AdmittedCall, Body};

use super::{RunError, Session};
use crate::engine::CommitError;
use crate::executor::{Ended, outcome};

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

impl Session {
    /// Settles what was interrupted as the effect class of each call has it: reads and idempotent calls run again by themselves, of those that must not run twice nobody knows what came of them, and for the others their
    /// probe is asked.
    pub(super) fn settle_interrupted(&mut self) -> Result<(), RunError> {
        let open: Vec<AdmittedCall> = self.views().calls.open_after(0).cloned().collect();
        // An agent with a call in doubt may ask nothing more, a probe neither.
        for call in open.iter().filter(|call| call.effect() == Effect::Reconcile) {
            self.ask_probe(call)?;
        }
        for call in open.iter().filter(|call| call.effect() == Effect::Once) {
            self.report(Ended::unknown(call))?;
        }
        Ok(())
    }

    /// Asks, as the agent itself and within its grants, whether `call` was done. Until the answer it does not run.
    fn ask_probe(&mut self, call: &AdmittedCall) -> Result<(), RunError> {
        let named = |tool: &&crate::executor::Tool| {
            tool.spec().name == call.tool() && tool.spec().digest().ok() == Some(call.digest())
        };
        let probe = self.tools.iter().find(named).and_then(|tool| tool.spec().probe.clone());
        let (Some(probe), Some(arguments)) =
            (probe, self.engine.blob(call.arguments().commitment).map_err(CommitError::from)?)
        else {
            return self.report(Ended::unknown(call));
        };
        let reads = |tool: &crate::executor::Tool| tool.spec().effect == Effect::Read.number();
        if !self.tools.iter().any(|tool| tool.spec().name == probe.tool && reads(tool)) {
            return self.report(Ended::unknown(call));
        }
        let question = question(&probe, call.id(), &arguments);
        // Every restart asks anew: an earlier answer says nothing of what ran since.
        let head = self.engine.state().head().hash;
        let id = CommandId::of(derive(Context::CommandId, &[&call.id().0, &head.0, b"probe"]));
        let committed = self.ask_call(call.principal(), id, &probe.tool, &question, true)?;
        if !matches!(committed.event.body, Body::CallAdmitted(_)) {
            return self.report(Ended::unknown(call));
        }
        self.executors.hold(call.id());
        self.probes.insert(CallId(derived(self.id(), committed.seq, 0)), call.clone());
        Ok(())
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
            Answer::Unknown => self.report(Ended::unknown(&call)),
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
