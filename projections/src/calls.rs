//! Calls: the outbox of the executors while open, a record once ended.

use std::collections::BTreeMap;

use toka_kernel::body::v1::Outcome;
use toka_kernel::ids::{CallId, CommandId, Commitment, PrincipalId, Seq};
use toka_kernel::{AdmittedCall, Body, Effect, Effects, Entry, Event};

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
    /// How it ended, once it has.
    pub finished: Option<Finished>,
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
    /// Whether the output is kept from the agent.
    pub late: bool,
}

impl PartialEq for Calls {
    fn eq(&self, other: &Calls) -> bool {
        let open = |calls: &Calls| calls.open.values().map(|call| (call.seq(), call.id())).collect::<Vec<_>>();
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

    /// Admitted calls without an outcome whose entry stands after `seq`, oldest first.
    pub fn open_after(&self, seq: Seq) -> impl Iterator<Item = &AdmittedCall> {
        self.open.range(seq + 1..).map(|(_, call)| call)
    }

    /// Whether an open call is to be stopped because its authority has gone.
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
                        finished: None,
                    };
                    self.rows.insert(call.id(), row);
                    self.open.insert(call.seq(), (**call).clone());
                }
                Effect::Cancel(call) => {
                    self.cancelled.insert(*call, entry.header().seq);
                }
                Effect::Drive(_) => {}
            }
        }
        let Body::CallFinished(finished) = &event.body else { return };
        let Some(row) = self.rows.get_mut(&finished.call) else { return };
        row.finished = Some(Finished {
            at: entry.header().seq,
            outcome: finished.outcome.clone(),
            result: finished.result.and_then(|index| event.blobs.get(usize::from(index))).map(|blob| blob.commitment),
            late: finished.late,
        });
        self.open.remove(&row.admitted_at);
        self.cancelled.remove(&finished.call);
    }
}
