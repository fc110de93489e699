//! Values and conditions of a script, resolved against what earlier steps left.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use toka_kernel::ids::CommandId;

use super::script::{Reference, Target, Test, Value, When};
use super::script_driver::{Done, Lap, code_name};
use super::transcript::{Record, Transcript};

/// What a step can see.
pub(super) struct Scope<'a> {
    pub(super) done: &'a BTreeMap<String, Done>,
    /// The loops around the step, innermost first.
    pub(super) laps: Vec<&'a Lap>,
    pub(super) transcript: &'a Transcript,
}

/// Why there is no value.
pub(super) enum Blocked {
    /// Not yet: an agent has not ended.
    Pending,
    /// There is none, or none that can be used there.
    NoValue(String),
    /// There is too much of it.
    Limit(String),
}

/// Where a reference leads.
enum Found<'a> {
    Json(&'a Json),
    Word(String),
    Null,
    /// What the last step of a loop returned, by item.
    Each(Vec<Option<&'a Json>>),
    Missing,
}

impl<'a> Scope<'a> {
    /// The arguments of a call, at most `room` bytes.
    pub(super) fn members(&self, args: &BTreeMap<String, Value>, room: &mut usize) -> Result<Json, Blocked> {
        let mut members = serde_json::Map::new();
        for (name, value) in args {
            take(room, name.len() + 4)?;
            members.insert(name.clone(), self.value(value, room)?);
        }
        Ok(Json::Object(members))
    }

    /// The items of a loop.
    pub(super) fn items(&self, list: &Value, count_max: usize, room: &mut usize) -> Result<Vec<Json>, Blocked> {
        let too_many = |count: usize| Blocked::Limit(format!("{count} items; a loop walks at most {count_max}"));
        match list {
            Value::List(items) if items.len() > count_max => Err(too_many(items.len())),
            Value::List(items) => items.iter().map(|item| self.value(item, room)).collect(),
            Value::Ref(reference) => match self.find(reference)? {
                Found::Json(Json::Array(items)) if items.len() > count_max => Err(too_many(items.len())),
                Found::Json(Json::Array(items)) => items.iter().map(|item| copy(item, room)).collect(),
                Found::Each(items) => items.into_iter().map(|item| copy(item.unwrap_or(&Json::Null), room)).collect(),
                Found::Missing => Err(nothing(reference)),
                Found::Json(_) | Found::Word(_) | Found::Null => {
                    Err(Blocked::NoValue(format!("{} is not a list", place(reference))))
                }
            },
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Text(_) | Value::Map(_) => {
                Err(Blocked::NoValue("the items are not a list".to_owned()))
            }
        }
    }

    /// Whether a condition holds.
    pub(super) fn holds(&self, when: &When) -> Result<bool, Blocked> {
        let room = &mut super::limits::LOOP_BYTES_MAX.clone();
        let found = self.find(&when.value)?;
        if let Test::Exists(wanted) = when.test {
            return Ok(matches!(found, Found::Missing) != wanted);
        }
        let found = owned(found, &when.value, room)?;
        match &when.test {
            Test::Exists(_) => Ok(false),
            Test::Equals(value) => Ok(found == self.value(value, room)?),
            Test::Not(value) => Ok(found != self.value(value, room)?),
            Test::Max(value) => Ok(integer(&found, &when.value)? <= self.bound(value, room)?),
            Test::Min(value) => Ok(integer(&found, &when.value)? >= self.bound(value, room)?),
        }
    }

    fn bound(&self, value: &Value, room: &mut usize) -> Result<i128, Blocked> {
        let json = self.value(value, room)?;
        whole(&json).ok_or_else(|| match value {
            Value::Ref(reference) => Blocked::NoValue(format!("{} is not an integer", place(reference))),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => {
                Blocked::NoValue("the bound is not an integer".to_owned())
            }
        })
    }

    fn value(&self, value: &Value, room: &mut usize) -> Result<Json, Blocked> {
        Ok(match value {
            Value::Null => take(room, 4).map(|()| Json::Null)?,
            Value::Bool(bit) => take(room, 5).map(|()| Json::Bool(*bit))?,
            Value::Int(number) => take(room, 8).map(|()| Json::from(*number))?,
            Value::Text(text) => take(room, text.len() + 2).map(|()| Json::String(text.clone()))?,
            Value::List(items) => {
                take(room, 2)?;
                Json::Array(items.iter().map(|item| self.value(item, room)).collect::<Result<_, _>>()?)
            }
            Value::Map(members) => self.members(members, room)?,
            Value::Ref(reference) => owned(self.find(reference)?, reference, room)?,
        })
    }

    fn find(&self, reference: &Reference) -> Result<Found<'a>, Blocked> {
        let whole = match &reference.to {
            Target::Output(id) => self.output(id, &reference.pointer),
            Target::Outcome(id) => self.outcome(id),
            Target::Code(id) => self.code(id),
            Target::AgentOutcome(id) => {
                self.ended(id, |ended| if ended.0 { "completed" } else { "failed" }.to_owned())?
            }
            Target::AgentCode(id) => self.ended(id, |ended| code_name(ended.1))?,
            Target::Variable(name) => {
                let lap = self.laps.iter().find(|lap| lap.variable == *name);
                let item = lap.and_then(|lap| lap.items.get(lap.index));
                item.and_then(|item| item.pointer(&reference.pointer)).map_or(Found::Missing, Found::Json)
            }
        };
        let plain = matches!(whole, Found::Word(_) | Found::Null);
        if plain && !matches!(reference.to, Target::Output(_)) && !reference.pointer.is_empty() {
            return Ok(Found::Missing);
        }
        Ok(whole)
    }

    fn output(&self, id: &str, pointer: &str) -> Found<'a> {
        match self.done.get(id) {
            Some(Done::Called(command)) => {
                self.result(*command).and_then(|json| json.pointer(pointer)).map_or(Found::Missing, Found::Json)
            }
            Some(Done::Looped { outputs, failed: false }) => self.outputs(outputs, pointer),
            Some(
                Done::Looped { .. }
                | Done::Skipped
                | Done::Spawned(_)
                | Done::NotSpawned(_)
                | Done::Waited
                | Done::Failed(_),
            )
            | None => Found::Missing,
        }
    }

    fn outputs(&self, outputs: &[Option<CommandId>], pointer: &str) -> Found<'a> {
        let result = |output: &Option<CommandId>| output.and_then(|command| self.result(command));
        let Some(rest) = pointer.strip_prefix('/') else {
            return Found::Each(outputs.iter().map(result).collect());
        };
        let (index, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let plain = index == "0" || (!index.starts_with('0') && index.bytes().all(|byte| byte.is_ascii_digit()));
        match index.parse::<usize>().ok().filter(|_| plain).and_then(|index| outputs.get(index)) {
            None => Found::Missing,
            Some(output) => match result(output) {
                Some(json) => json.pointer(rest).map_or(Found::Missing, Found::Json),
                None if rest.is_empty() => Found::Null,
                None => Found::Missing,
            },
        }
    }

    fn result(&self, command: CommandId) -> Option<&'a Json> {
        match self.transcript.records.get(&command)? {
            Record::Finished { result, withheld: false, .. } => result.as_ref(),
            Record::Finished { .. }
            | Record::Open
            | Record::Refused { .. }
            | Record::Spawned { .. }
            | Record::Done
            | Record::Scheduled { .. }
            | Record::Took { .. } => None,
        }
    }

    fn outcome(&self, id: &str) -> Found<'a> {
        let word = match self.done.get(id) {
            None => return Found::Missing,
            Some(Done::Skipped) => "skipped",
            Some(Done::Called(command)) => match self.transcript.records.get(command) {
                Some(Record::Finished { ok: true, .. }) => "succeeded",
                Some(Record::Finished { outcome, .. }) => outcome,
                Some(Record::Refused { .. }) => "refused",
                Some(
                    Record::Open
                    | Record::Spawned { .. }
                    | Record::Done
                    | Record::Scheduled { .. }
                    | Record::Took { .. },
                )
                | None => return Found::Missing,
            },
            Some(Done::Spawned(_) | Done::Waited | Done::Looped { failed: false, .. }) => "succeeded",
            Some(Done::NotSpawned(_)) => "refused",
            Some(Done::Looped { failed: true, .. }) => "failed",
            Some(Done::Failed(word)) => word,
        };
        Found::Word(word.to_owned())
    }

    fn code(&self, id: &str) -> Found<'a> {
        let code = match self.done.get(id) {
            None => return Found::Missing,
            Some(Done::NotSpawned(code)) => *code,
            Some(Done::Called(command)) => match self.transcript.records.get(command) {
                Some(Record::Refused { code, .. }) => *code,
                Some(
                    Record::Finished { .. }
                    | Record::Open
                    | Record::Spawned { .. }
                    | Record::Done
                    | Record::Scheduled { .. }
                    | Record::Took { .. },
                )
                | None => return Found::Null,
            },
            Some(Done::Skipped | Done::Spawned(_) | Done::Waited | Done::Looped { .. } | Done::Failed(_)) => {
                return Found::Null;
            }
        };
        Found::Word(code.name().to_owned())
    }

    fn ended(&self, id: &str, word: impl Fn((bool, u16)) -> String) -> Result<Found<'a>, Blocked> {
        let agent = match self.done.get(id) {
            Some(Done::Spawned(agent)) => agent,
            Some(
                Done::Skipped
                | Done::Called(_)
                | Done::NotSpawned(_)
                | Done::Looped { .. }
                | Done::Waited
                | Done::Failed(_),
            )
            | None => return Ok(Found::Missing),
        };
        let ended = self.transcript.ended.get(agent).ok_or(Blocked::Pending)?;
        Ok(Found::Word(word((ended.completed, ended.code))))
    }
}

fn owned(found: Found<'_>, reference: &Reference, room: &mut usize) -> Result<Json, Blocked> {
    match found {
        Found::Json(json) => copy(json, room),
        Found::Word(word) => take(room, word.len() + 2).map(|()| Json::String(word)),
        Found::Null => Ok(Json::Null),
        Found::Each(items) => {
            let items = items.into_iter().map(|item| copy(item.unwrap_or(&Json::Null), room));
            Ok(Json::Array(items.collect::<Result<_, _>>()?))
        }
        Found::Missing => Err(nothing(reference)),
    }
}

/// A copy that is made only when there is room for it.
fn copy(json: &Json, room: &mut usize) -> Result<Json, Blocked> {
    weigh(json, room)?;
    Ok(json.clone())
}

fn weigh(json: &Json, room: &mut usize) -> Result<(), Blocked> {
    match json {
        Json::Null | Json::Bool(_) => take(room, 5),
        Json::Number(_) => take(room, 8),
        Json::String(text) => take(room, text.len() + 2),
        Json::Array(items) => {
            take(room, items.len() + 2)?;
            items.iter().try_for_each(|item| weigh(item, room))
        }
        Json::Object(members) => {
            take(room, members.len() + 2)?;
            members.iter().try_for_each(|(name, member)| {
                take(room, name.len() + 4)?;
                weigh(member, room)
            })
        }
    }
}

fn take(room: &mut usize, bytes: usize) -> Result<(), Blocked> {
    *room = room.checked_sub(bytes).ok_or_else(|| Blocked::Limit("the values together are too large".to_owned()))?;
    Ok(())
}

fn integer(json: &Json, reference: &Reference) -> Result<i128, Blocked> {
    whole(json).ok_or_else(|| Blocked::NoValue(format!("{} is not an integer", place(reference))))
}

fn whole(json: &Json) -> Option<i128> {
    json.as_i64().map(i128::from).or_else(|| json.as_u64().map(i128::from))
}

fn nothing(reference: &Reference) -> Blocked {
    Blocked::NoValue(match reference.pointer.as_str() {
        "" => format!("{} has no value", reference.to),
        pointer => format!("{} has nothing at {pointer}", reference.to),
    })
}

fn place(reference: &Reference) -> String {
    match reference.pointer.as_str() {
        "" => reference.to.to_string(),
        pointer => format!("{} at {pointer}", reference.to),
    }
}
