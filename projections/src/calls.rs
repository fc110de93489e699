//! Calls: the outbox of the executors while open, a record once ended.

use std::collections::BTreeMap;

use toka_kernel::body::v1::{AttemptUsage, CallAttempted, Outcome, Usage};
use toka_kernel::ids::{CallId, CommandId, Commitment, PrincipalId, Seq, TaskId, TimeUs};
use toka_kernel::{AdmittedCall, Body, Effect, Effects, Entry, Event, Header};

use crate::blob;

/// The calls of a session.
///
/// Executors take their work from here and from nowhere else, live and after a restart alike.
#[derive(Clone, Debug, Default)]
pub struct Calls {
    rows: BTreeMap<CallId, CallRow>,
    open: BTreeMap<Seq, AdmittedCall>,
    cancelled: BTreeMap<CallId, Seq>,
}

/// A call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallRow {
    /// The entry that admitted it.
    pub admitted_at: Seq,
    /// The command that asked for it.
    pub command: CommandId,
    /// Who asked.
    pub principal: PrincipalId,
    /// The tool.
    pub tool: String,
    /// The task it serves.
    pub task: Option<TaskId>,
    /// Attempts that came to nothing, oldest first.
    pub attempts: Vec<Attempt>,
    /// The entry since which it is to be stopped.
    pub cancelled: Option<Seq>,
    /// How it ended, once it has.
    pub finished: Option<Finished>,
}

/// An attempt of a call that came to nothing, and after which another followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The entry that says so.
    pub at: Seq,
    /// The number of the cause.
    pub cause: u8,
    /// The HTTP status; 0 where there was none.
    pub status: u16,
    /// The next attempt begins no earlier, in µs UTC.
    pub not_before: TimeUs,
    /// What a model had taken by then.
    pub usage: Option<AttemptUsage>,
    /// The blob that holds what had arrived by then.
    pub part: Option<Commitment>,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The entry that says so.
    pub at: Seq,
    /// The outcome.
    pub outcome: Outcome,
    /// The blob that holds the result.
    pub result: Option<Commitment>,
    /// What a model call took.
    pub usage: Option<Usage>,
    /// Whether the output is kept from the agent.
    pub late: bool,
}

impl PartialEq for Calls {
    fn eq(&self, other: &Calls) -> bool {
        let open =
            |calls: &Calls| calls.open.values().map(|call| (call.seq(), call.id(), call.attempt())).collect::<Vec<_>>();
        self.rows == other.rows && open(self) == open(other) && self.cancelled == other.cancelled
    }
}

impl Calls {
    /// The call of this id.
    pub fn get(&self, id: CallId) -> Option<&CallRow> {
        self.rows.get(&id)
    }

    /// Every call.
    pub fn iter(&self) -> impl Iterator<Item = (CallId, &CallRow)> {
        self.rows.iter().map(|(id, row)| (*id, row))
    }

    /// An admitted call without an outcome.
    pub fn open(&self, id: CallId) -> Option<&AdmittedCall> {
        self.rows.get(&id).and_then(|row| self.open.get(&row.admitted_at))
    }

    /// Admitted calls without an outcome whose entry stands after `seq`, oldest first.
    pub fn open_after(&self, seq: Seq) -> impl Iterator<Item = &AdmittedCall> {
        self.open.range(seq + 1..).map(|(_, call)| call)
    }

    /// Whether an open call is to be stopped: its authority has gone, or somebody has asked for it.
    pub fn is_cancelled(&self, id: CallId) -> bool {
        self.cancelled.contains_key(&id)
    }

    /// Open calls.
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    pub(crate) fn fold(&mut self, entry: &Entry, event: &Event, effects: &Effects) {
        for effect in effects.iter() {
            match effect {
                Effect::Start(call) => {
                    let row = CallRow {
                        admitted_at: call.seq(),
                        command: event.cmd().map_or(CommandId::NONE, |cmd| cmd.id),
                        principal: call.principal(),
                        tool: call.tool().to_owned(),
                        task: task_of(event),
                        attempts: Vec::new(),
                        cancelled: None,
                        finished: None,
                    };
                    self.rows.insert(call.id(), row);
                    self.open.insert(call.seq(), (**call).clone());
                }
                Effect::Cancel(call) => {
                    self.cancelled.insert(*call, entry.header().seq);
                    if let Some(row) = self.rows.get_mut(call) {
                        row.cancelled = Some(entry.header().seq);
                    }
                }
                Effect::Drive(_) => {}
            }
        }
        if let Body::CallAttempted(attempted) = &event.body {
            self.attempt(entry.header(), event, attempted);
        }
        let Body::CallFinished(finished) = &event.body else { return };
        let Some(row) = self.rows.get_mut(&finished.call) else { return };
        row.finished = Some(Finished {
            at: entry.header().seq,
            outcome: finished.outcome.clone(),
            result: blob(event, finished.result),
            usage: finished.usage.clone(),
            late: finished.late,
        });
        self.open.remove(&row.admitted_at);
        self.cancelled.remove(&finished.call);
    }

    fn attempt(&mut self, header: &Header, event: &Event, attempted: &CallAttempted) {
        let Some(row) = self.rows.get_mut(&attempted.call) else { return };
        row.attempts.push(Attempt {
            at: header.seq,
            cause: attempted.cause,
            status: attempted.status,
            not_before: attempted.not_before,
            usage: attempted.usage.clone(),
            part: blob(event, attempted.part),
        });
        if let Some(call) = self.open.get_mut(&row.admitted_at) {
            call.try_again(attempted, header.time_us);
        }
    }
}

fn task_of(event: &Event) -> Option<TaskId> {
    if let Body::CallAdmitted(admitted) = &event.body { admitted.task } else { None }
}
