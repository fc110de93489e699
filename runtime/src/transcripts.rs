//! What the drivers of a session's agents read: their commands and what became of them, folded from the entries.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use toka_kernel::body::v1::Plan;
use toka_kernel::capability::{ExactName, NamePat};
use toka_kernel::ids::{AgentId, CallId, CommandId, Commitment, MessageId, PrincipalId, Seq, TaskId, derived};
use toka_kernel::tool::{Effect, Model, ToolSpec};
use toka_kernel::{Ask, Body, Code, Entry, Event};
use toka_projections::{outcome_word, outcome_words};
use toka_tools::input_schema;

use crate::agents::{AgentSpec, Driver, Ended, Offer, Record, Transcript, Unread, is_control};
use crate::executor::outcome;
use crate::session::probe_id;

/// The agents of one session, each with its driver and transcript.
#[derive(Debug, Default)]
pub(crate) struct Transcripts {
    agents: BTreeMap<AgentId, Lane>,
    calls: BTreeMap<CallId, Asked>,
    /// What may be done about the calls of each tool after a crash.
    effects: BTreeMap<String, u8>,
    /// Calls that have not ended and of which a probe can tell, each with its probe that has not ended either.
    probed: BTreeMap<CallId, Option<CallId>>,
    /// The tools that are bound.
    offers: BTreeMap<String, Offer>,
    /// Who sent each message that waits to be read, and what it says.
    messages: BTreeMap<MessageId, (PrincipalId, String, Commitment)>,
    /// What the last task of each agent came to.
    results: BTreeMap<AgentId, Value>,
    /// Agents whose transcript says something that their driver has not read.
    waking: BTreeSet<AgentId>,
}

/// One agent.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) spec: AgentSpec,
    pub(crate) driver: Driver,
    pub(crate) transcript: Transcript,
    pub(crate) running: bool,
    parent: PrincipalId,
    spawned_at: Seq,
    pub(crate) plan: Plan,
    pub(crate) started: bool,
    pub(crate) ended: Option<Ended>,
    /// Calls that it asked for, the refused ones included. What the node asks a probe in its name is none of them.
    pub(crate) calls: u64,
}

/// A call, by whom and by which command it was asked.
#[derive(Clone, Copy, Debug)]
struct Asked {
    by: PrincipalId,
    command: CommandId,
    /// Whether nobody knows what was done, should it be lost.
    doubtful: bool,
    of_model: bool,
}

/// Why an entry could not be folded: the log does not hold what a driver needs.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// The spec of an agent is gone or is none.
    #[error("the spec of agent {agent} cannot be read: {why}")]
    Spec {
        /// The agent.
        agent: AgentId,
        /// Why.
        why: String,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] toka_store::ReadError),
}

/// Reads a blob of the session; `None` where it is erased.
pub(crate) type ReadBlob<'a> = &'a dyn Fn(Commitment) -> Result<Option<Vec<u8>>, toka_store::ReadError>;

impl Transcripts {
    /// Folds one entry, the pending tail included.
    pub(crate) fn fold(&mut self, entry: &Entry, blob: ReadBlob<'_>) -> Result<(), FoldError> {
        let Ok(event) = entry.event() else { return Ok(()) };
        let by = entry.header().principal;
        let made = |ordinal| derived(entry.session(), entry.header().seq, ordinal);
        let command = event.cmd().map_or(CommandId::NONE, |cmd| cmd.id);
        match &event.body {
            Body::AgentSpawned(spawned) => {
                let agent = PrincipalId(made(0));
                let wrong = |why: String| FoldError::Spec { agent, why };
                let text = event.blobs.get(usize::from(spawned.text));
                let text = text.map(|text| blob(text.commitment)).transpose()?.flatten();
                let text = text.ok_or_else(|| wrong("its blob is not there".to_owned()))?;
                let spec = AgentSpec::decode(&text).map_err(|error| wrong(error.to_string()))?;
                if spec.digest() != spawned.spec_digest {
                    return Err(wrong("it has another digest than the entry".to_owned()));
                }
                let mut transcript = Transcript::new(agent);
                let offered = self.offers.iter().filter(|(name, _)| is_offered(&spec, name));
                transcript.tools = offered.map(|(name, offer)| (name.clone(), offer.clone())).collect();
                let lane = Lane {
                    driver: Driver::new(&spec),
                    spec,
                    transcript,
                    running: false,
                    parent: by,
                    spawned_at: entry.header().seq,
                    plan: spawned.plan.clone(),
                    started: false,
                    ended: None,
                    calls: 0,
                };
                self.agents.insert(agent, lane);
                self.record(by, command, Record::Spawned { agent });
            }
            Body::AgentStarted(started) => {
                if let Some(lane) = self.agents.get_mut(&started.agent) {
                    lane.running = true;
                    lane.started = true;
                    self.waking.insert(started.agent);
                }
                self.record(by, command, Record::Done);
            }
            Body::AgentEnded(ended) => {
                let how = Ended { completed: ended.how == 1, code: ended.code };
                self.waking.remove(&ended.agent);
                if let Some(lane) = self.agents.get_mut(&ended.agent) {
                    lane.running = false;
                    lane.ended = Some(how);
                }
                let parent = self.agents.get(&ended.agent).map(|lane| lane.parent);
                let result = self.results.remove(&ended.agent);
                if let Some((parent, lane)) = parent.and_then(|id| Some((id, self.agents.get_mut(&id)?))) {
                    lane.transcript.ended.insert(ended.agent, how);
                    lane.transcript.results.extend(result.map(|result| (ended.agent, result)));
                    if lane.running {
                        self.waking.insert(parent);
                    }
                }
            }
            Body::CallAdmitted(admitted) => {
                let call = CallId(made(0));
                if let Some(about) = self.probed_by(event) {
                    self.probed.insert(about, Some(call));
                    return Ok(());
                }
                let of_model = Model::from_number(admitted.model) == Some(Model::Agent);
                let effect = self.effects.get(&admitted.tool).and_then(|effect| Effect::from_number(*effect));
                let doubtful = matches!(effect, Some(Effect::Once | Effect::Reconcile));
                self.calls.insert(call, Asked { by, command, doubtful, of_model });
                if effect == Some(Effect::Reconcile) {
                    self.probed.insert(call, None);
                }
                if let Some(lane) = self.agents.get_mut(&by) {
                    lane.calls += 1;
                }
                self.record(by, command, Record::Open);
            }
            Body::CallFinished(finished) => {
                self.probed.remove(&finished.call);
                self.probed.values_mut().filter(|probe| **probe == Some(finished.call)).for_each(|probe| *probe = None);
                let Some(Asked { by: agent, command, doubtful, of_model }) = self.calls.get(&finished.call).copied()
                else {
                    return Ok(());
                };
                // Nobody knows what was done; the agent waits until somebody says.
                if finished.outcome.kind == outcome::UNKNOWN || finished.outcome.kind == outcome::LOST && doubtful {
                    return Ok(());
                }
                let result = json_blob(event, finished.result, blob)?;
                // What the gateway says of a server is for people; a step compares the word of a tool.
                let word = if of_model { outcome_words(&finished.outcome) } else { outcome_word(&finished.outcome) };
                let record = Record::Finished {
                    outcome: word,
                    ok: finished.outcome.kind == outcome::SUCCEEDED,
                    result,
                    withheld: finished.late,
                };
                self.record(agent, command, record);
            }
            Body::OutcomeResolved(resolved) => {
                let Some(Asked { by: agent, command, .. }) = self.calls.get(&resolved.call).copied() else {
                    return Ok(());
                };
                let word = ["done", "not-done", "abandoned"].get(usize::from(resolved.verdict).wrapping_sub(1));
                let record = Record::Finished {
                    outcome: word.copied().unwrap_or("unknown").to_owned(),
                    ok: resolved.verdict == 1,
                    result: None,
                    withheld: false,
                };
                self.record(agent, command, record);
            }
            Body::ToolBound(bound) => {
                self.effects.extend(bound.tools.iter().map(|bound| (bound.tool.name.clone(), bound.tool.effect)));
                for bound in &bound.tools {
                    let text = event.blobs.get(usize::from(bound.tool.text));
                    let text = text.map(|text| blob(text.commitment)).transpose()?.flatten();
                    if let Some(spec) = text.and_then(|text| ToolSpec::decode(&text).ok()) {
                        self.offer(&spec);
                    }
                }
            }
            Body::ToolUnbound(unbound) => {
                self.offers.remove(&unbound.name);
                self.agents.values_mut().for_each(|lane| drop(lane.transcript.tools.remove(&unbound.name)));
            }
            Body::TaskScheduled(_) => self.record(by, command, Record::Scheduled { task: TaskId(made(0)) }),
            Body::TaskStarted(_) | Body::TaskFailed(_) | Body::TaskSkipped(_) => {
                self.record(by, command, Record::Done);
            }
            Body::TaskCompleted(completed) => {
                if let Some(result) = json_blob(event, completed.result, blob)? {
                    self.results.insert(by, result);
                }
                self.record(by, command, Record::Done);
            }
            Body::MessageSent(sent) => {
                let message = MessageId(made(0));
                let from = self.agents.get(&by).map_or("the operator", |lane| lane.spec.name()).to_owned();
                if let Some(content) = event.blobs.get(usize::from(sent.content)) {
                    self.messages.insert(message, (by, from.clone(), content.commitment));
                }
                if let Some(lane) = self.agents.get_mut(&sent.to) {
                    lane.transcript.unread.push(Unread { message, from });
                }
                self.record(by, command, Record::Done);
            }
            Body::MessageTaken(taken) => {
                let Some((sender, from, content)) = self.messages.remove(&taken.message) else { return Ok(()) };
                if let Some(lane) = self.agents.get_mut(&by) {
                    lane.transcript.unread.retain(|unread| unread.message != taken.message);
                }
                let text = blob(content)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
                let text = text.unwrap_or_else(|| "[erased]".to_owned());
                self.record(by, command, Record::Took { by: sender, from, text });
            }
            Body::AgentPaused(_) | Body::AgentStopping(_) => self.record(by, command, Record::Done),
            Body::AgentResumed(_) => {
                self.record(by, command, Record::Done);
                self.wake_all();
            }
            Body::Refused(..) if self.probed_by(event).is_some() => {}
            Body::Refused(refused, ask) => {
                if let (Ask::Call(_), Some(lane)) = (&**ask, self.agents.get_mut(&by)) {
                    lane.calls += 1;
                }
                let code = Code::from_number(refused.code).unwrap_or(Code::Malformed);
                let detail = if let Ask::Call(asked) = &**ask { json_blob(event, asked.detail, blob)? } else { None };
                self.record(by, command, Record::Refused { code, need: refused.need.clone(), detail });
            }
            Body::SessionOpened(_)
            | Body::StateCommitted(_)
            | Body::SessionClosed(_)
            | Body::GrantIssued(_)
            | Body::GrantRevoked(_)
            | Body::SessionRegistered(_)
            | Body::SessionEnded(_)
            | Body::ToolRegistered(_)
            | Body::ToolApproved(_)
            | Body::ToolQuarantined(_)
            | Body::PrincipalAdded(_)
            | Body::CallAttempted(_)
            | Body::CancelRequested(_)
            | Body::Observed(_)
            | Body::SandboxProbed(_) => {}
        }
        Ok(())
    }

    /// The call that a probe is about, if `event` answers the command that asks one.
    fn probed_by(&self, event: &Event) -> Option<CallId> {
        let cmd = event.cmd()?;
        self.probed.keys().copied().find(|call| probe_id(*call, cmd.as_of) == cmd.id)
    }

    /// The probe of `call` that was asked and has not ended.
    pub(crate) fn open_probe(&self, call: CallId) -> Option<CallId> {
        self.probed.get(&call).copied().flatten()
    }

    fn record(&mut self, agent: AgentId, command: CommandId, record: Record) {
        if let Some(lane) = self.agents.get_mut(&agent) {
            lane.transcript.records.insert(command, record);
            if lane.running {
                self.waking.insert(agent);
            }
        }
    }

    /// Offers a tool that is bound to the agents that named it.
    fn offer(&mut self, spec: &ToolSpec) {
        // A model is asked by the loop itself.
        if Model::from_number(spec.model) == Some(Model::Agent) || is_control(&spec.name) {
            return;
        }
        let offer = Offer {
            description: spec.description.clone(),
            schema: input_schema(spec),
            parallel_safe: spec.parallel_safe,
        };
        for lane in self.agents.values_mut().filter(|lane| is_offered(&lane.spec, &spec.name)) {
            lane.transcript.tools.insert(spec.name.clone(), offer.clone());
        }
        self.offers.insert(spec.name.clone(), offer);
    }

    /// Lets the driver of every running agent look again.
    pub(crate) fn wake_all(&mut self) {
        let running = self.agents.iter().filter(|(_, lane)| lane.running);
        self.waking.extend(running.map(|(agent, _)| *agent));
    }

    /// The agents that `parent` spawned, in the order in which it did.
    pub(crate) fn children(&self, parent: PrincipalId) -> Vec<(AgentId, &Lane)> {
        let mut found: Vec<_> =
            self.agents.iter().filter(|(_, lane)| lane.parent == parent).map(|(agent, lane)| (*agent, lane)).collect();
        found.sort_by_key(|(_, lane)| lane.spawned_at);
        found
    }

    /// Who spawned an agent.
    pub(crate) fn parent(&self, agent: AgentId) -> Option<PrincipalId> {
        self.agents.get(&agent).map(|lane| lane.parent)
    }

    /// The latest agent with a spec of this name that runs.
    pub(crate) fn named(&self, name: &str) -> Option<AgentId> {
        let mut found: Vec<_> =
            self.agents.iter().filter(|(_, lane)| lane.spec.name() == name && lane.running).collect();
        found.sort_by_key(|(_, lane)| lane.spawned_at);
        found.last().map(|(agent, _)| **agent)
    }

    /// The next agent whose driver has something to read.
    pub(crate) fn wake(&mut self) -> Option<AgentId> {
        self.waking.pop_first()
    }

    pub(crate) fn get(&self, agent: AgentId) -> Option<&Lane> {
        self.agents.get(&agent)
    }

    pub(crate) fn get_mut(&mut self, agent: AgentId) -> Option<&mut Lane> {
        self.agents.get_mut(&agent)
    }
}

/// Whether an agent named a tool.
fn is_offered(spec: &AgentSpec, name: &str) -> bool {
    let Ok(name) = ExactName::parse(name).map(NamePat::Exact) else { return false };
    spec.agent().tools.iter().filter_map(|text| NamePat::parse(text).ok()).any(|pattern| pattern.covers(&name))
}

/// The JSON in a blob of an event, if it refers to one, it is there and holds JSON.
fn json_blob(event: &Event, index: Option<u16>, blob: ReadBlob<'_>) -> Result<Option<Value>, FoldError> {
    let found = index.and_then(|index| event.blobs.get(usize::from(index)));
    let bytes = found.map(|found| blob(found.commitment)).transpose()?.flatten();
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}
