//! Every event is decided again, and what was decided about is compared with the blobs it was read from.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use toka_kernel::body::v1::{Binding, CallAdmitted};
use toka_kernel::event::BodyFault;
use toka_kernel::facts::{Fact, FactSpec, extract};
use toka_kernel::tool::{Tool, ToolSpec};
use toka_kernel::{Body, Code as Refusal, Entry, Event, Illegal, RULES, State};

use super::findings::Fault;
use crate::code::Code;
use crate::shown::Shown;

/// The state, and the facts that each bound tool declares.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    state: State,
    tools: BTreeMap<String, Vec<FactSpec>>,
}

impl Judge {
    /// Decides `entry` again and applies it.
    ///
    /// # Errors
    /// The fault after which nothing more can be decided.
    pub(crate) fn apply(&mut self, entry: &Entry) -> Result<(), Box<Fault>> {
        let fault = match entry.event() {
            Ok(event) => return self.decide(entry, event),
            Err(BodyFault::UnknownKind(kind)) => {
                Fault::new(Code::KindUnknown).at("kind", 6).expected("a kind of this version", *kind)
            }
            Err(BodyFault::UnknownSchema { schema, .. }) => {
                Fault::new(Code::SchemaUnknown).at("body_schema", 8).expected(1, *schema)
            }
            Err(BodyFault::NonCanonical(what)) => {
                Fault::new(Code::BodyNonCanonical).at("body", body_offset(entry)).expected(Value::Null, what.as_str())
            }
            Err(BodyFault::Undecodable(what)) => {
                Fault::new(Code::BodyUndecodable).at("body", body_offset(entry)).expected(Value::Null, what.as_str())
            }
        };
        Err(Box::new(fault))
    }

    /// The state after the last entry that was applied.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    fn decide(&mut self, entry: &Entry, event: &Event) -> Result<(), Box<Fault>> {
        let at = body_offset(entry);
        if let Body::SessionOpened(genesis) = &event.body
            && genesis.rules != RULES
        {
            return Err(Box::new(Fault::new(Code::RulesUnknown).at("rules", at).expected(RULES, genesis.rules)));
        }
        match self.state.apply(entry) {
            // What must be done lies in the past.
            Ok(_effects) => {
                self.learn(event);
                Ok(())
            }
            Err(illegal) => Err(Box::new(of_illegal(illegal, entry, event, at))),
        }
    }

    fn learn(&mut self, event: &Event) {
        if let Body::ToolBound(bound) = &event.body {
            for Binding { tool, .. } in &bound.tools {
                let facts = tool.facts.iter().filter_map(|fact| fact.spec()).collect();
                self.tools.insert(tool.name.clone(), facts);
            }
        }
    }

    /// Where the keys of who asked lie: 1 in the node's process, 2 apart.
    pub(super) fn custody(&self, entry: &Entry) -> Option<u8> {
        self.state.custody(entry.header().principal)
    }

    /// Compares what an applied event states with the blob it was read from. `None` for a blob that is not here.
    pub(super) fn compare<'b>(&self, entry: &Entry, blob: &dyn Fn(u16) -> Option<&'b [u8]>) -> Compared {
        let at = body_offset(entry);
        let mut compared = Compared::default();
        match entry.event().map(stated) {
            Ok(Stated::Call(call)) => match blob(call.args) {
                Some(arguments) => compared.fault = self.compare_call(call, arguments, at),
                None => compared.unchecked += 1,
            },
            Ok(Stated::Tools(tools)) => {
                for (index, tool) in tools.into_iter().enumerate() {
                    match blob(tool.text) {
                        Some(spec) => compared.fault = compared.fault.or_else(|| compare_tool(index, tool, spec, at)),
                        None => compared.unchecked += 1,
                    }
                }
            }
            Ok(Stated::Nothing) | Err(_) => {}
        }
        compared
    }

    fn compare_call(&self, call: &CallAdmitted, arguments: &[u8], at: usize) -> Option<Fault> {
        let specs = self.tools.get(&call.tool).map(Vec::as_slice).unwrap_or_default();
        let fault = |field: &str| Fault::new(Code::FactsMismatch).at(field, at).detail("tool", call.tool.as_str());
        match extract(arguments, specs) {
            Err(error) => Some(fault("args").expected("arguments that facts can be read from", error.to_string())),
            Ok(read) if read.facts != call.facts => {
                Some(fault("facts").expected(facts(&read.facts), facts(&call.facts)))
            }
            Ok(read) if read.extra != call.extra => Some(fault("extra").expected(read.extra, call.extra)),
            Ok(_) => None,
        }
    }
}

/// What comparing with blobs came to.
#[derive(Debug, Default)]
pub(super) struct Compared {
    pub(super) fault: Option<Fault>,
    /// Blobs that are not here to compare with.
    pub(super) unchecked: u64,
}

/// The blobs that [`Judge::compare`] needs, by index in the header.
pub(super) fn wanted(event: &Event) -> Vec<u16> {
    match stated(event) {
        Stated::Call(call) => vec![call.args],
        Stated::Tools(tools) => tools.into_iter().map(|tool| tool.text).collect(),
        Stated::Nothing => Vec::new(),
    }
}

/// What an event states that was read from a blob.
enum Stated<'e> {
    Call(&'e CallAdmitted),
    Tools(Vec<&'e Tool>),
    Nothing,
}

fn stated(event: &Event) -> Stated<'_> {
    match &event.body {
        Body::CallAdmitted(call) => Stated::Call(call),
        Body::ToolBound(bound) => Stated::Tools(bound.tools.iter().map(|binding| &binding.tool).collect()),
        Body::ToolRegistered(registered) => Stated::Tools(vec![&registered.tool]),
        Body::SessionOpened(_)
        | Body::StateCommitted(_)
        | Body::SessionClosed(_)
        | Body::Refused(..)
        | Body::AgentSpawned(_)
        | Body::AgentStarted(_)
        | Body::AgentEnded(_)
        | Body::GrantIssued(_)
        | Body::GrantRevoked(_)
        | Body::CallFinished(_)
        | Body::SessionRegistered(_)
        | Body::SessionEnded(_)
        | Body::ToolApproved(_)
        | Body::ToolQuarantined(_)
        | Body::ToolUnbound(_)
        | Body::OutcomeResolved(_)
        | Body::PrincipalAdded(_)
        | Body::AgentPaused(_)
        | Body::AgentResumed(_)
        | Body::AgentStopping(_)
        | Body::TaskScheduled(_)
        | Body::TaskStarted(_)
        | Body::TaskCompleted(_)
        | Body::TaskFailed(_)
        | Body::TaskSkipped(_)
        | Body::MessageSent(_)
        | Body::MessageTaken(_)
        | Body::CallAttempted(_)
        | Body::CancelRequested(_)
        | Body::Observed(_)
        | Body::SandboxProbed(_) => Stated::Nothing,
    }
}

fn compare_tool(index: usize, bound: &Tool, spec: &[u8], at: usize) -> Option<Fault> {
    let fault = |field: &str| {
        let fault = Fault::new(Code::FactsMismatch).at(format!("tools[{index}].{field}"), at);
        fault.detail("tool", bound.name.as_str())
    };
    let read = match ToolSpec::decode(spec).and_then(|spec| spec.decision(bound.text)) {
        Ok(read) => read,
        Err(error) => return Some(fault("text").expected("a tool spec", error.to_string())),
    };
    if read.digest != bound.digest {
        return Some(fault("digest").expected(read.digest.to_string(), bound.digest.to_string()));
    }
    let fields = [
        ("name", read.name == bound.name),
        ("facts", read.facts == bound.facts),
        ("needs", read.needs == bound.needs),
        ("effect", read.effect == bound.effect),
        ("reserve", read.reserve == bound.reserve),
        ("model", read.model == bound.model),
    ];
    let (field, _) = fields.iter().find(|(_, same)| !same)?;
    Some(fault(field).expected("as its spec says", "otherwise"))
}

fn facts(facts: &[Fact]) -> Value {
    let fact = |fact: &Fact| json!({ "pointer": fact.pointer, "int": fact.int, "text": fact.text });
    facts.iter().map(fact).collect()
}

fn of_illegal(illegal: Illegal, entry: &Entry, event: &Event, at: usize) -> Fault {
    let Illegal { seq, rule, decided } = illegal;
    if let (Some(Body::StateCommitted(due)), Body::StateCommitted(stated)) =
        (decided.as_ref().map(|decided| &decided.body), &event.body)
    {
        let fault = Fault::new(Code::StateDiverged).at("digest", at);
        let fault = fault.detail("leaves_expected", due.leaves).detail("leaves_actual", stated.leaves);
        return fault.expected(due.digest.to_string(), stated.digest.to_string());
    }
    if let (0, Body::SessionOpened(genesis)) = (seq, &event.body) {
        let denial = State::open(genesis, entry.header().time_us).err().and_then(|denial| denial.rule);
        return Fault::new(Code::GenesisInvalid).at(denial.unwrap_or_default(), at).expected(Value::Null, rule);
    }
    if let Some(fault) = of_command(decided.as_deref(), event, at) {
        return fault;
    }
    let fault = Fault::new(Code::TransitionIllegal).at("body", at).detail("rule", rule);
    let refused = decided.as_ref().and_then(|decided| decided.body.refused());
    let fault = match refused.and_then(|refused| refused.failed_at) {
        Some(grant) => fault.detail("grant", grant.to_string()),
        None => fault,
    };
    fault.expected(decided.map_or(Value::Null, |decided| of_event(&decided)), of_event(event))
}

/// What is wrong with the signature of a command that an event accepts, where that is why the rules refuse it.
fn of_command(decided: Option<&Event>, event: &Event, at: usize) -> Option<Fault> {
    let refused = decided?.body.refused()?;
    if event.body.refused().is_some() {
        return None;
    }
    let refusal = Refusal::from_number(refused.code)?;
    // Of the keys that a command is about it is said with the item, and that is no matter of signatures.
    let of_signature = refused.item.is_none();
    let names = [
        (Refusal::CommandUnsigned, Code::CommandUnsigned),
        (Refusal::CommandAudience, Code::CommandAudience),
        (Refusal::CommandExpired, Code::CommandExpired),
        (Refusal::CommandReplayed, Code::CommandReplayed),
        (
            Refusal::CommandSigInvalid,
            if refused.rule.is_some() { Code::CommandMismatch } else { Code::CommandSigInvalid },
        ),
        (Refusal::KeyUnusable, Code::CommandSigInvalid),
        (Refusal::KeyWrongRole, Code::KeyWrongRole),
    ];
    let (_, code) = names.into_iter().find(|(known, _)| *known == refusal && of_signature)?;
    let fault = Fault::new(code).at("signed", at);
    Some(match refused.first_seq {
        Some(first) => fault.detail("first_seq", first),
        None => fault,
    })
}

/// Whether an event accepts a command that is signed.
pub(super) fn is_signed(event: &Event) -> bool {
    event.body.refused().is_none() && event.cmd().is_some_and(|cmd| cmd.signed.is_some())
}

/// Where the body lies in the entry.
fn body_offset(entry: &Entry) -> usize {
    entry.bytes().len() - entry.body().len()
}

/// An event as JSON.
fn of_event(event: &Event) -> Value {
    let body = Shown::of_body(&event.encode()).map(Value::from).unwrap_or_default();
    let kind = Value::from(event.name());
    Value::Object(Map::from_iter([("kind".to_owned(), kind), ("body".to_owned(), body)]))
}
