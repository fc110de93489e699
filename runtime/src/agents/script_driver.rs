//! The driver of a scripted agent: from what the log says to what the agent asks next.
//!
//! It owns no clock, no file, no randomness and no hash map, so the same transcript gives the same commands, live,
//! after a crash and in a replay. It refuses to look at anything that may still change: a step starts when every
//! step before it is final, and a reference to an agent waits until that agent has ended.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value as Json;
use toka_kernel::denial::Code;
use toka_kernel::ids::{AgentId, CommandId};

use super::ask::{Ask, Next, Why, command_id};
use super::limits::{ARGUMENT_BYTES_MAX, EXECUTED_MAX, LOOP_BYTES_MAX, LOOP_ITEMS_MAX};
use super::resolve::{Blocked, Scope};
use super::script::{Act, OnError, Step, Value};
use super::spec::{Agent, AgentSpec};
use super::transcript::{EndCode, Record, Transcript};

/// How far a script has come.
///
/// It only remembers: what it answers follows from the spec and the transcript alone, and a new driver over the same
/// transcript answers the same.
#[derive(Clone, Debug)]
pub(super) struct ScriptDriver {
    spec: AgentSpec,
    /// The script itself, then the loops around the current step.
    frames: Vec<Frame>,
    /// The current step has passed its condition and is counted.
    entered: bool,
    executed: u32,
    pub(super) done: BTreeMap<String, Done>,
    children: Vec<Child>,
    failed: Option<(EndCode, Why)>,
}

/// A list of steps that is being walked.
#[derive(Clone, Debug)]
struct Frame {
    /// Which step of the list.
    at: usize,
    /// What stands before the ids of these steps in their paths.
    prefix: String,
    lap: Option<Lap>,
}

/// A loop that is being walked.
#[derive(Clone, Debug)]
pub(super) struct Lap {
    pub(super) variable: String,
    pub(super) items: Vec<Json>,
    pub(super) index: usize,
    /// The call of the last step, by item.
    outputs: Vec<Option<CommandId>>,
}

/// How a step ended. Results stay in the transcript.
#[derive(Clone, Debug)]
pub(super) enum Done {
    Skipped,
    Called(CommandId),
    Spawned(AgentId),
    NotSpawned(Code),
    Looped { outputs: Vec<Option<CommandId>>, failed: bool },
    Waited,
    Failed(&'static str),
}

#[derive(Clone, Debug)]
struct Child {
    step: String,
    /// The loops around the step: which step of its list, at which item.
    laps: Vec<(usize, usize)>,
    path: String,
    agent: AgentId,
    essential: bool,
    /// A wait has reported how it ended.
    seen: bool,
}

/// Why a step failed.
struct Failure {
    done: Done,
    code: EndCode,
    detail: String,
}

impl ScriptDriver {
    /// A driver that has read nothing yet.
    pub(super) fn new(spec: &AgentSpec) -> ScriptDriver {
        ScriptDriver {
            spec: spec.clone(),
            frames: vec![Frame { at: 0, prefix: String::new(), lap: None }],
            entered: false,
            executed: 0,
            done: BTreeMap::new(),
            children: Vec::new(),
            failed: None,
        }
    }

    /// What the agent does next, going on from where the last call stopped.
    pub(super) fn advance(&mut self, transcript: &Transcript) -> Next {
        let agent = self.spec.agent().clone();
        loop {
            if self.failed.is_some() {
                return self.end(transcript);
            }
            let frame = self.frame();
            let step = match list(&agent, &self.frames).get(frame.at) {
                Some(step) => step,
                None if frame.lap.is_some() => {
                    self.turn(&agent);
                    continue;
                }
                None => return self.end(transcript),
            };
            if !self.entered {
                match self.enter(step, transcript) {
                    Ok(true) => {}
                    Ok(false) => continue,
                    Err(()) => return Next::Wait,
                }
            }
            if let Some(next) = self.act(&agent, step, transcript) {
                return next;
            }
        }
    }

    /// Whether the step runs now; `Err` when its condition looks at an agent that has not ended.
    fn enter(&mut self, step: &Step, transcript: &Transcript) -> Result<bool, ()> {
        let passes = match &step.when {
            None => Ok(true),
            Some(when) => self.scope(transcript).holds(when),
        };
        if let Err(Blocked::Pending) = passes {
            return Err(());
        }
        if self.executed == EXECUTED_MAX {
            let detail = format!("more than {EXECUTED_MAX} steps");
            self.failed = Some((EndCode::TurnLimit, Why { path: self.path(step), detail }));
            return Ok(false);
        }
        self.executed += 1;
        match passes {
            Ok(true) => self.entered = true,
            Ok(false) => self.leave(&step.id, Done::Skipped),
            Err(blocked) => self.blocked(blocked),
        }
        Ok(self.entered)
    }

    /// Does the current step as far as the transcript lets it; `None` when the step is over.
    fn act(&mut self, agent: &Agent, step: &Step, transcript: &Transcript) -> Option<Next> {
        match &step.act {
            Act::Call { tool, args } => self.call(step, tool, args, transcript),
            Act::Spawn { spec, grants } => self.spawn(step, spec, grants, transcript),
            Act::ForEach { items, variable, .. } => self.open_loop(step, items, variable, transcript),
            Act::Wait { agents } => self.wait(step, agents, transcript),
            Act::Fail { code } => {
                let detail = format!("the script says `{code}`");
                self.fail(agent, Failure { done: Done::Failed("failed"), code: EndCode::Script, detail });
                None
            }
        }
    }

    fn call(
        &mut self,
        step: &Step,
        tool: &str,
        args: &BTreeMap<String, Value>,
        transcript: &Transcript,
    ) -> Option<Next> {
        let path = self.path(step);
        let id = command_id(transcript.agent, &path);
        let agent = self.spec.agent().clone();
        match transcript.records.get(&id) {
            None => {
                let mut room = ARGUMENT_BYTES_MAX;
                match self.scope(transcript).members(args, &mut room) {
                    Ok(arguments) => {
                        let (tool, arguments) = (tool.to_owned(), arguments.to_string());
                        Some(Next::Commands(vec![Ask::Call { id, path, tool, arguments, unfit: None }]))
                    }
                    Err(Blocked::Pending) => Some(Next::Wait),
                    Err(blocked) => {
                        self.blocked(blocked);
                        None
                    }
                }
            }
            Some(Record::Open) => Some(Next::Wait),
            Some(Record::Finished { ok: true, .. }) => {
                self.leave(&step.id, Done::Called(id));
                None
            }
            Some(Record::Finished { outcome, .. }) => {
                let detail = format!("the call of `{tool}` ended as `{outcome}`");
                self.fail(&agent, Failure { done: Done::Called(id), code: EndCode::Call, detail });
                None
            }
            Some(Record::Refused { code, need, .. }) => {
                let detail = refusal(&format!("the call of `{tool}`"), *code, need.as_deref());
                self.fail(&agent, Failure { done: Done::Called(id), code: end_code(*code), detail });
                None
            }
            Some(Record::Spawned { .. } | Record::Done | Record::Scheduled { .. } | Record::Took { .. }) => {
                Some(Next::Diverged { path })
            }
        }
    }

    fn spawn(&mut self, step: &Step, spec: &str, grants: &[String], transcript: &Transcript) -> Option<Next> {
        let path = self.path(step);
        let id = command_id(transcript.agent, &path);
        let agent = match transcript.records.get(&id) {
            None => {
                let (spec, grants) = (spec.to_owned(), grants.to_vec());
                return Some(Next::Commands(vec![Ask::Spawn { id, path, spec, grants }]));
            }
            Some(Record::Open) => return Some(Next::Wait),
            Some(Record::Spawned { agent }) => *agent,
            Some(Record::Refused { code, need, .. }) => {
                self.not_spawned(refusal(&format!("the spawn of `{spec}`"), *code, need.as_deref()), *code);
                return None;
            }
            Some(Record::Finished { .. } | Record::Done | Record::Scheduled { .. } | Record::Took { .. }) => {
                return Some(Next::Diverged { path });
            }
        };
        let start = format!("{path}/start");
        let id = command_id(transcript.agent, &start);
        match transcript.records.get(&id) {
            None => return Some(Next::Commands(vec![Ask::Start { id, path: start, agent }])),
            Some(Record::Open) => return Some(Next::Wait),
            Some(Record::Done) => {}
            Some(Record::Refused { code, need, .. }) => {
                self.not_spawned(refusal(&format!("the start of `{spec}`"), *code, need.as_deref()), *code);
                return None;
            }
            Some(Record::Finished { .. } | Record::Spawned { .. } | Record::Scheduled { .. } | Record::Took { .. }) => {
                return Some(Next::Diverged { path: start });
            }
        }
        let laps = self.laps().collect();
        let essential = self.spec.is_essential(spec);
        self.children.push(Child { step: step.id.clone(), laps, path, agent, essential, seen: false });
        self.leave(&step.id, Done::Spawned(agent));
        None
    }

    fn not_spawned(&mut self, detail: String, code: Code) {
        let agent = self.spec.agent().clone();
        self.fail(&agent, Failure { done: Done::NotSpawned(code), code: end_code(code), detail });
    }

    fn open_loop(&mut self, step: &Step, items: &Value, variable: &str, transcript: &Transcript) -> Option<Next> {
        let mut room = LOOP_BYTES_MAX;
        let items = match self.scope(transcript).items(items, LOOP_ITEMS_MAX, &mut room) {
            Ok(items) => items,
            Err(Blocked::Pending) => return Some(Next::Wait),
            Err(blocked) => {
                self.blocked(blocked);
                return None;
            }
        };
        if items.is_empty() {
            self.leave(&step.id, Done::Looped { outputs: Vec::new(), failed: false });
            return None;
        }
        let prefix = format!("{}[0].", self.path(step));
        let lap = Lap { variable: variable.to_owned(), items, index: 0, outputs: Vec::new() };
        self.frames.push(Frame { at: 0, prefix, lap: Some(lap) });
        self.entered = false;
        None
    }

    /// Goes to the next item of the innermost loop, or out of it.
    fn turn(&mut self, agent: &Agent) {
        let last = list(agent, &self.frames).last();
        let output = last.and_then(|step| match self.done.get(&step.id) {
            Some(Done::Called(id)) => Some(*id),
            Some(
                Done::Skipped
                | Done::Spawned(_)
                | Done::NotSpawned(_)
                | Done::Looped { .. }
                | Done::Waited
                | Done::Failed(_),
            )
            | None => None,
        });
        let Some(frame) = self.frames.pop() else { return };
        let Some(mut lap) = frame.lap else { return };
        lap.outputs.push(output);
        lap.index += 1;
        let Some(step) = list(agent, &self.frames).get(self.frame().at) else { return };
        if lap.index == lap.items.len() {
            self.leave(&step.id, Done::Looped { outputs: lap.outputs, failed: false });
            return;
        }
        let mut prefix = frame.prefix;
        prefix.clear();
        // Invariant: writing to a string cannot fail.
        let _ = write!(prefix, "{}[{}].", self.path(step), lap.index);
        self.frames.push(Frame { at: 0, prefix, lap: Some(lap) });
        self.entered = false;
    }

    fn wait(&mut self, step: &Step, agents: &[String], transcript: &Transcript) -> Option<Next> {
        let here: Vec<_> = self.laps().collect();
        let concerns = |child: &Child| agents.contains(&child.step) && same_laps(&child.laps, &here);
        let mut failed = None;
        for child in self.children.iter().filter(|child| concerns(child)) {
            let Some(ended) = transcript.ended.get(&child.agent) else { return Some(Next::Wait) };
            if !ended.completed && failed.is_none() {
                failed = Some(format!("the agent of `{}` failed: {}", child.path, code_name(ended.code)));
            }
        }
        self.children.iter_mut().filter(|child| concerns(child)).for_each(|child| child.seen = true);
        match failed {
            None => self.leave(&step.id, Done::Waited),
            Some(detail) => {
                let agent = self.spec.agent().clone();
                let done = Done::Failed("agent-failed");
                self.fail(&agent, Failure { done, code: EndCode::Dependency, detail });
            }
        }
        None
    }

    /// The end, once every agent that was started has ended: the kernel lets no agent end above a living one.
    fn end(&self, transcript: &Transcript) -> Next {
        if self.children.iter().any(|child| !transcript.ended.contains_key(&child.agent)) {
            return Next::Wait;
        }
        if let Some((code, why)) = &self.failed {
            return Next::End { completed: false, code: *code, why: Some(why.clone()) };
        }
        let unseen = self.children.iter().filter(|child| child.essential && !child.seen);
        for child in unseen {
            if let Some(ended) = transcript.ended.get(&child.agent).filter(|ended| !ended.completed) {
                let detail = format!("its agent failed and no step looked: {}", code_name(ended.code));
                let why = Some(Why { path: child.path.clone(), detail });
                return Next::End { completed: false, code: EndCode::Dependency, why };
            }
        }
        Next::End { completed: true, code: EndCode::None, why: None }
    }

    fn blocked(&mut self, blocked: Blocked) {
        let agent = self.spec.agent().clone();
        let (word, code, detail) = match blocked {
            Blocked::Pending => return,
            Blocked::NoValue(detail) => ("no-value", EndCode::NoValue, detail),
            Blocked::Limit(detail) => ("limit", EndCode::TurnLimit, detail),
        };
        self.fail(&agent, Failure { done: Done::Failed(word), code, detail });
    }

    /// Fails the current step, and the loops around it up to one that may go on.
    fn fail(&mut self, agent: &Agent, failure: Failure) {
        let Failure { mut done, code, detail } = failure;
        let mut path = None;
        while let Some(step) = list(agent, &self.frames).get(self.frame().at) {
            path.get_or_insert_with(|| self.path(step));
            if step.on_error == OnError::Continue {
                return self.leave(&step.id, done);
            }
            self.done.insert(step.id.clone(), done);
            match self.frames.pop_if(|frame| frame.lap.is_some()).and_then(|frame| frame.lap) {
                Some(lap) => done = Done::Looped { outputs: lap.outputs, failed: true },
                None => break,
            }
        }
        self.failed = Some((code, Why { path: path.unwrap_or_default(), detail }));
    }

    /// Leaves the current step behind.
    fn leave(&mut self, id: &str, done: Done) {
        match self.done.get_mut(id) {
            Some(place) => *place = done,
            None => drop(self.done.insert(id.to_owned(), done)),
        }
        self.entered = false;
        if let Some(frame) = self.frames.last_mut() {
            frame.at += 1;
        }
    }

    fn frame(&self) -> &Frame {
        // Invariant: the script itself stays at the bottom; only frames of loops are taken away.
        self.frames.last().expect("a driver without a script")
    }

    fn path(&self, step: &Step) -> String {
        [&self.frame().prefix, step.id.as_str()].concat()
    }

    /// The loops around the current step: which step of its list, at which item.
    fn laps(&self) -> impl Iterator<Item = (usize, usize)> {
        let outer = self.frames.iter().map(|frame| frame.at);
        outer.zip(self.frames.iter().skip(1)).filter_map(|(at, frame)| Some((at, frame.lap.as_ref()?.index)))
    }

    fn scope<'a>(&'a self, transcript: &'a Transcript) -> Scope<'a> {
        let laps = self.frames.iter().rev().filter_map(|frame| frame.lap.as_ref()).collect();
        Scope { done: &self.done, laps, transcript }
    }
}

/// The steps that the innermost frame walks.
fn list<'a>(agent: &'a Agent, frames: &[Frame]) -> &'a [Step] {
    let mut steps = agent.steps.as_slice();
    for frame in &frames[..frames.len().saturating_sub(1)] {
        steps = match steps.get(frame.at).map(|step| &step.act) {
            Some(Act::ForEach { steps, .. }) => steps,
            Some(Act::Call { .. } | Act::Spawn { .. } | Act::Wait { .. } | Act::Fail { .. }) | None => &[],
        };
    }
    steps
}

/// Whether two places are at the same item of every loop that is around both.
fn same_laps(one: &[(usize, usize)], other: &[(usize, usize)]) -> bool {
    one.iter().zip(other).take_while(|(a, b)| a.0 == b.0).all(|(a, b)| a.1 == b.1)
}

pub(super) fn refusal(what: &str, code: Code, need: Option<&str>) -> String {
    match need {
        Some(need) => format!("{what} was refused: {code}, it needs `{need}`"),
        None => format!("{what} was refused: {code}"),
    }
}

/// What a refusal means for the end of the agent.
pub(super) fn end_code(code: Code) -> EndCode {
    if code.is_limit() { EndCode::Budget } else { EndCode::Call }
}

pub(super) fn code_name(code: u16) -> String {
    EndCode::from_number(code).map_or_else(|| format!("CODE_{code}"), |code| code.name().to_owned())
}
