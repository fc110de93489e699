//! The driver of an agent whose steps a model chooses: from what the log says to the next request and the next calls.
//!
//! A turn is one request and what its answer asks for: the messages that have come by then, the request, each call of the
//! answer as one command, and the results in the order of the calls. The conversation grows at its end only, so that the
//! request of one turn begins as that of the turn before. What a tool, a file or another agent says stands behind a line
//! that names where it comes from, and never in the system text.

mod calls;
mod words;

use toka_kernel::denial::Code;
use toka_kernel::ids::{AgentId, TaskId};

use super::ask::{Ask, Next, Why, command_id};
use super::model::{Completion, ModelProgram};
use super::script_driver::{end_code, refusal};
use super::spec::AgentSpec;
use super::transcript::{EndCode, Record, Transcript};
use crate::gateway::{Answer, Choice, Input, Part, Request, Stop, ToolCall, Turn};

pub use calls::{CONTROLS, is_control};
pub(super) use calls::{FINISH, PAUSE, RESUME, SEND, SPAWN, STOP};

/// The name of the one task of an agent whose file lists none.
const TASK: &str = "main";

/// How far an agent has come.
#[derive(Clone, Debug)]
pub(super) struct ModelDriver {
    spec: AgentSpec,
    phase: Phase,
    task: Option<TaskId>,
    /// The turn, from 0.
    turn: u16,
    /// The messages that were read in this turn.
    taken: u32,
    conversation: Vec<Turn>,
    /// Bytes of the conversation.
    said: usize,
    /// Up to where results were taken out of the conversation to make room.
    elided: usize,
    /// The calls of the answer, and what the model is told about those that have ended.
    calls: Vec<ToolCall>,
    answered: Vec<String>,
    children: Vec<Child>,
    /// What the task comes to, once the calls beside the last one are made.
    finish: Option<Closing>,
    /// A budget has nothing left.
    is_spent: bool,
    /// Commands of the kind that the budget counts.
    counted: u64,
    /// The model was told how to finish, and has not called anything since.
    reminded: bool,
    /// An answer that was cut off has been continued, and the next one was not yet whole.
    continued: bool,
    streak: calls::Streak,
}

#[derive(Clone, Debug)]
enum Phase {
    Schedule,
    Begin,
    Inbox,
    Ask,
    Calls,
    Closing(Closing),
    Over(EndCode, Option<Why>),
}

/// What the task comes to, and what people are told where it failed.
#[derive(Clone, Debug)]
struct Closing {
    result: Result<String, EndCode>,
    why: Option<Why>,
}

/// An agent that was spawned.
#[derive(Clone, Debug)]
struct Child {
    /// How the model calls it.
    handle: String,
    agent: AgentId,
}

impl ModelDriver {
    /// A driver that has read nothing yet.
    pub(super) fn new(spec: &AgentSpec) -> ModelDriver {
        ModelDriver {
            spec: spec.clone(),
            phase: Phase::Schedule,
            task: None,
            turn: 0,
            taken: 0,
            conversation: Vec::new(),
            said: 0,
            elided: 0,
            calls: Vec::new(),
            answered: Vec::new(),
            children: Vec::new(),
            finish: None,
            is_spent: false,
            counted: 0,
            reminded: false,
            continued: false,
            streak: calls::Streak::default(),
        }
    }

    /// What the agent does next, going on from where the last call stopped.
    pub(super) fn advance(&mut self, transcript: &Transcript) -> Next {
        let agent = self.spec.agent().clone();
        // Invariant: a spec without a model has another driver.
        let Some(model) = &agent.model else { return Next::Wait };
        loop {
            let next = match self.phase.clone() {
                Phase::Schedule => self.schedule(transcript),
                Phase::Begin => self.begin(transcript),
                Phase::Inbox => self.inbox(transcript),
                Phase::Ask => self.ask(model, transcript),
                Phase::Calls => self.call(model, transcript),
                Phase::Closing(closing) => self.close(&closing, transcript),
                Phase::Over(code, why) => Some(self.end(code, why, transcript)),
            };
            if let Some(next) = next {
                return next;
            }
        }
    }

    fn schedule(&mut self, transcript: &Transcript) -> Option<Next> {
        let path = "task".to_owned();
        let id = command_id(transcript.agent, &path);
        match transcript.records.get(&id) {
            None => {
                let text = self.spec.agent().description.clone();
                Some(Next::Commands(vec![Ask::Schedule { id, path, name: TASK.to_owned(), text }]))
            }
            Some(Record::Scheduled { task }) => {
                self.task = Some(*task);
                self.phase = Phase::Begin;
                None
            }
            Some(record) => self.unexpected(record, path, "the task"),
        }
    }

    fn begin(&mut self, transcript: &Transcript) -> Option<Next> {
        let path = "task/start".to_owned();
        let id = command_id(transcript.agent, &path);
        let task = self.task?;
        match transcript.records.get(&id) {
            None => Some(Next::Commands(vec![Ask::Begin { id, path, task }])),
            Some(Record::Done) => {
                let text = words::task(&self.spec.agent().description);
                self.tell(text);
                self.phase = Phase::Inbox;
                None
            }
            Some(record) => self.unexpected(record, path, "the start of the task"),
        }
    }

    /// Reads what has come. A turn whose request was made reads nothing more.
    fn inbox(&mut self, transcript: &Transcript) -> Option<Next> {
        let path = format!("turn[{}].message[{}]", self.turn, self.taken);
        let id = command_id(transcript.agent, &path);
        match transcript.records.get(&id) {
            Some(Record::Took { by, from, text }) => {
                self.taken += 1;
                // Of several agents with one name, the model knows each by another.
                let child = self.children.iter().find(|child| child.agent == *by);
                self.tell(words::message(child.map_or(from, |child| &child.handle), text));
                None
            }
            Some(record) => self.unexpected(record, path, "a message"),
            None => {
                let asked = transcript.records.contains_key(&command_id(transcript.agent, &self.turn_path()));
                match transcript.unread.first().filter(|_| !asked) {
                    Some(unread) => Some(Next::Commands(vec![Ask::Take { id, path, message: unread.message }])),
                    None => {
                        self.phase = Phase::Ask;
                        None
                    }
                }
            }
        }
    }

    fn turn_path(&self) -> String {
        format!("turn[{}]", self.turn)
    }

    fn ask(&mut self, model: &ModelProgram, transcript: &Transcript) -> Option<Next> {
        let path = self.turn_path();
        if self.turn >= model.limits.turns {
            return self.fail(EndCode::TurnLimit, path, format!("more than {} turns", model.limits.turns));
        }
        if !self.make_room(model) {
            let detail = format!("the conversation does not fit into {} tokens any more", model.context_tokens);
            return self.fail(EndCode::ContextFull, path, detail);
        }
        let id = command_id(transcript.agent, &path);
        match transcript.records.get(&id) {
            None => {
                if self.is_out_of_calls() {
                    return self.out_of_calls(path);
                }
                let request = Box::new(self.request(model, transcript));
                Some(Next::Commands(vec![Ask::Model { id, path, ordinal: u64::from(self.turn), request }]))
            }
            Some(Record::Open) => Some(Next::Wait),
            Some(Record::Finished { ok: true, result, .. }) => {
                self.counted += 1;
                let answer = result.as_ref().and_then(Answer::from_value);
                let Some(answer) = answer else {
                    return self.fail(EndCode::Call, path, "the record of the answer cannot be read".to_owned());
                };
                self.read(model, answer, path)
            }
            Some(Record::Finished { outcome, .. }) => {
                self.fail(EndCode::Call, path, format!("the call of the model ended as `{outcome}`"))
            }
            Some(record @ Record::Refused { .. }) => self.unexpected(record, path, "the call of the model"),
            Some(Record::Done | Record::Spawned { .. } | Record::Scheduled { .. } | Record::Took { .. }) => {
                Some(Next::Diverged { path })
            }
        }
    }

    fn is_out_of_calls(&self) -> bool {
        self.counted >= self.spec.agent().budget.calls
    }

    fn out_of_calls(&mut self, path: String) -> Option<Next> {
        let detail = format!("its budget of {} calls is used up", self.spec.agent().budget.calls);
        self.fail(EndCode::Budget, path, detail)
    }

    fn request(&self, model: &ModelProgram, transcript: &Transcript) -> Request {
        Request {
            model: model.name.clone(),
            system: words::system(self.spec.agent(), model.completion),
            turns: self.conversation.clone(),
            tools: calls::offered(model, transcript),
            choice: Choice::Auto,
            max_output_tokens: model.max_output_tokens,
            temperature: model.temperature.clone(),
        }
    }

    /// Takes an answer apart.
    fn read(&mut self, model: &ModelProgram, answer: Answer, path: String) -> Option<Next> {
        let mut text = String::new();
        let mut calls = Vec::new();
        let mut declined = None;
        for part in answer.parts {
            match part {
                Part::Text(more) => text.push_str(&more),
                Part::Call(call) => calls.push(call),
                Part::Refusal(why) => declined = Some(why),
                Part::Reasoning(_) => {}
            }
        }
        if answer.stop == Stop::Refused || declined.is_some() && calls.is_empty() {
            let detail = match declined {
                Some(why) => format!("the model declines: {}", words::short(&why)),
                None => "the model declines".to_owned(),
            };
            return self.fail(EndCode::ModelRefused, path, detail);
        }
        if !calls.is_empty() {
            (self.reminded, self.continued) = (false, false);
            calls::name_apart(&mut calls, self.turn);
            self.calls.clone_from(&calls);
            self.answered.clear();
            self.push(Turn::Assistant { text, calls });
            self.phase = Phase::Calls;
            return None;
        }
        let cut = answer.stop == Stop::Length;
        let is_result = model.completion == Completion::EndTurn && !text.trim().is_empty();
        if !cut && is_result {
            let result = serde_json::Value::String(self.whole_text(text)).to_string();
            self.phase = Phase::Closing(Closing { result: Ok(result), why: None });
            return None;
        }
        let (said_before, reminder) = match cut {
            true => (std::mem::replace(&mut self.continued, true), words::GO_ON),
            false => (std::mem::replace(&mut self.reminded, true), words::reminder(model.completion)),
        };
        if said_before {
            let detail = match (cut, model.completion) {
                (true, _) => "its answers are cut off",
                (false, Completion::FinishCall) => "it answers without a call",
                (false, Completion::EndTurn) => "its answers are empty",
            };
            return self.fail(EndCode::NoFinish, path, detail.to_owned());
        }
        if !text.is_empty() {
            self.push(Turn::Assistant { text, calls: Vec::new() });
        }
        self.tell(reminder.to_owned());
        self.next_turn();
        None
    }

    /// A text with the half of it that stands before, where that was cut off.
    fn whole_text(&self, text: String) -> String {
        let before = self.conversation.len().checked_sub(2).and_then(|at| self.conversation.get(at));
        match before {
            Some(Turn::Assistant { text: half, calls }) if self.continued && calls.is_empty() => {
                [half.as_str(), &text].concat()
            }
            Some(Turn::Assistant { .. } | Turn::User(_) | Turn::Result { .. }) | None => text,
        }
    }

    fn next_turn(&mut self) {
        self.turn += 1;
        self.taken = 0;
        self.phase = Phase::Inbox;
    }

    /// Says something to the model.
    fn tell(&mut self, text: String) {
        self.said += text.len();
        let part = Input::Text(text);
        match self.conversation.last_mut() {
            Some(Turn::User(parts)) => parts.push(part),
            Some(Turn::Assistant { .. } | Turn::Result { .. }) | None => {
                self.conversation.push(Turn::User(vec![part]));
            }
        }
    }

    fn push(&mut self, turn: Turn) {
        self.said += match &turn {
            Turn::Assistant { text, calls } => {
                text.len() + calls.iter().map(|call| call.name.len() + call.arguments.len()).sum::<usize>()
            }
            Turn::Result { content, .. } | Turn::User(content) => content.iter().map(words::len).sum(),
        };
        self.conversation.push(turn);
    }

    /// Takes results out of the conversation, oldest first, until it fits; whether it does.
    ///
    /// A token is taken for three bytes, and an eighth of the window is left to the tools and the system text.
    fn make_room(&mut self, model: &ModelProgram) -> bool {
        let window = model.context_tokens - model.context_tokens / 8;
        let room = usize::try_from(window.saturating_sub(model.max_output_tokens)).unwrap_or(usize::MAX);
        let room = room.saturating_mul(3);
        while self.said > room && self.elided < self.conversation.len() {
            if let Turn::Result { content, .. } = &mut self.conversation[self.elided] {
                let before: usize = content.iter().map(words::len).sum();
                let line = Input::Text(words::left_out(content));
                let after = words::len(&line);
                if after < before {
                    *content = vec![line];
                    self.said = self.said + after - before;
                }
            }
            self.elided += 1;
        }
        self.said <= room
    }

    /// Ends the task as failed, and then the agent.
    fn fail(&mut self, code: EndCode, path: String, detail: String) -> Option<Next> {
        self.phase = Phase::Closing(Closing { result: Err(code), why: Some(Why { path, detail }) });
        None
    }

    fn close(&mut self, closing: &Closing, transcript: &Transcript) -> Option<Next> {
        let code = closing.result.as_ref().err().copied().unwrap_or(EndCode::None);
        let Some(task) = self.task else {
            self.phase = Phase::Over(code, closing.why.clone());
            return None;
        };
        let path = "task/end".to_owned();
        let id = command_id(transcript.agent, &path);
        match transcript.records.get(&id) {
            None => Some(Next::Commands(vec![Ask::EndTask { id, path, task, result: closing.result.clone() }])),
            Some(Record::Done) => {
                self.phase = Phase::Over(code, closing.why.clone());
                None
            }
            Some(record) => {
                // The task is over, whatever became of the words about it.
                self.task = None;
                self.unexpected(record, path, "the end of the task")
            }
        }
    }

    /// The end, once every agent that was started has ended: the kernel lets no agent end above a living one.
    fn end(&self, code: EndCode, why: Option<Why>, transcript: &Transcript) -> Next {
        if self.children.iter().any(|child| !transcript.ended.contains_key(&child.agent)) {
            return Next::Wait;
        }
        Next::End { completed: code == EndCode::None, code, why }
    }

    /// What follows from a record that is no success of what was asked: a refusal ends the agent.
    fn unexpected(&mut self, record: &Record, path: String, what: &str) -> Option<Next> {
        match record {
            Record::Refused { code, need, .. } => {
                let detail = refusal(what, *code, need.as_deref());
                self.fail(end_code(*code), path, detail)
            }
            Record::Open
            | Record::Finished { .. }
            | Record::Spawned { .. }
            | Record::Done
            | Record::Scheduled { .. }
            | Record::Took { .. } => Some(Next::Diverged { path }),
        }
    }
}

/// A refusal that says that there is nothing left to spend, so that asking for something else does not help either.
fn is_spent(code: Code) -> bool {
    matches!(code, Code::Budget | Code::BudgetOverflow | Code::BudgetOverrun | Code::ReserveUndeclared | Code::NoPrice)
}
