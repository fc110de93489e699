//! The tasks of a session.

use std::collections::BTreeMap;

use toka_kernel::body::v1::Retry;
use toka_kernel::ids::{AgentId, Commitment, Digest, Seq, TaskId, TimeUs, derived};
use toka_kernel::{Body, Entry, Event, TaskState};

use crate::blob;

/// The tasks of a session, by id.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tasks {
    rows: BTreeMap<TaskId, TaskRow>,
    /// In the order in which they were scheduled.
    of_agents: BTreeMap<AgentId, Vec<TaskId>>,
}

/// A task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRow {
    /// Whose it is.
    pub agent: AgentId,
    /// Its name.
    pub name: String,
    /// The blob that says what is to be done.
    pub text: Option<Commitment>,
    /// The tasks that had to complete before, as they were named.
    pub requires: Vec<TaskId>,
    /// 1 critical, 2 high, 3 medium, 4 low.
    pub priority: u8,
    /// How long one attempt may take, in µs.
    pub timeout_us: u64,
    /// How it is tried again.
    pub retry: Retry,
    /// The entry that scheduled it.
    pub scheduled_at: Seq,
    /// Where it stands.
    pub state: TaskState,
    /// Attempts that were begun.
    pub attempt: u16,
    /// Until when the attempt under way may take, in µs UTC.
    pub due: Option<TimeUs>,
    /// The next attempt begins no earlier, in µs UTC.
    pub not_before: Option<TimeUs>,
    /// The end code of the last attempt that failed.
    pub code: Option<u16>,
    /// The blob that holds what came of it.
    pub result: Option<Commitment>,
    /// Why it was skipped, and because of what.
    pub skipped: Option<(u8, Option<Digest>)>,
    /// The entry that ended it.
    pub ended_at: Option<Seq>,
}

impl TaskRow {
    /// Whether it is still to be done.
    pub fn is_open(&self) -> bool {
        self.ended_at.is_none()
    }
}

impl Tasks {
    /// The task of this id.
    pub fn get(&self, id: TaskId) -> Option<&TaskRow> {
        self.rows.get(&id)
    }

    /// Every task.
    pub fn iter(&self) -> impl Iterator<Item = (TaskId, &TaskRow)> {
        self.rows.iter().map(|(id, row)| (*id, row))
    }

    /// The tasks of one agent, in the order in which they were scheduled.
    pub fn of_agent(&self, agent: AgentId) -> impl Iterator<Item = (TaskId, &TaskRow)> {
        let ids = self.of_agents.get(&agent).map_or(&[][..], Vec::as_slice);
        ids.iter().filter_map(|id| self.rows.get(id).map(|row| (*id, row)))
    }

    /// The task that an agent is at: the one that was begun last and has not ended.
    pub fn current(&self, agent: AgentId) -> Option<(TaskId, &TaskRow)> {
        let begun = self.of_agent(agent).filter(|(_, row)| row.state == TaskState::Started);
        begun.max_by_key(|(_, row)| row.due)
    }

    /// Whether every task that this one requires has completed.
    pub fn is_ready(&self, id: TaskId) -> bool {
        let done = |id: &TaskId| self.rows.get(id).is_some_and(|row| row.state == TaskState::Completed);
        let ready = |row: &TaskRow| row.state == TaskState::Scheduled && row.requires.iter().all(done);
        self.rows.get(&id).is_some_and(ready)
    }

    pub(crate) fn fold(&mut self, entry: &Entry, event: &Event) {
        let (seq, at) = (entry.header().seq, entry.header().time_us);
        match &event.body {
            Body::TaskScheduled(scheduled) => {
                let id = TaskId(derived(entry.session(), seq, 0));
                let row = TaskRow {
                    agent: scheduled.agent,
                    name: scheduled.name.clone(),
                    text: blob(event, scheduled.text),
                    requires: scheduled.requires.clone(),
                    priority: scheduled.priority,
                    timeout_us: scheduled.timeout_us,
                    retry: scheduled.retry.clone(),
                    scheduled_at: seq,
                    state: TaskState::Scheduled,
                    attempt: 0,
                    due: None,
                    not_before: None,
                    code: None,
                    result: None,
                    skipped: None,
                    ended_at: None,
                };
                self.rows.insert(id, row);
                self.of_agents.entry(scheduled.agent).or_default().push(id);
            }
            Body::TaskStarted(started) => {
                let Some(row) = self.rows.get_mut(&started.task) else { return };
                row.state = TaskState::Started;
                row.attempt = started.attempt;
                row.due = Some(at.saturating_add(row.timeout_us));
                row.not_before = None;
            }
            Body::TaskCompleted(completed) => {
                let Some(row) = self.rows.get_mut(&completed.task) else { return };
                row.result = blob(event, completed.result);
                row.end(TaskState::Completed, seq);
            }
            Body::TaskFailed(failed) => {
                let Some(row) = self.rows.get_mut(&failed.task) else { return };
                row.code = Some(failed.code);
                if failed.not_before.is_none() {
                    row.end(TaskState::Failed, seq);
                } else {
                    row.state = TaskState::Scheduled;
                    row.not_before = failed.not_before;
                    row.due = None;
                }
            }
            Body::TaskSkipped(skipped) => {
                let Some(row) = self.rows.get_mut(&skipped.task) else { return };
                row.skipped = Some((skipped.why, skipped.because));
                row.end(TaskState::Skipped, seq);
            }
            // What an agent leaves behind ends with it.
            Body::AgentEnded(ended) => {
                for id in self.of_agents.get(&ended.agent).into_iter().flatten() {
                    if let Some(row) = self.rows.get_mut(id).filter(|row| row.is_open()) {
                        row.end(TaskState::Cancelled, seq);
                    }
                }
            }
            Body::SessionOpened(_)
            | Body::StateCommitted(_)
            | Body::SessionClosed(_)
            | Body::Refused(..)
            | Body::AgentSpawned(_)
            | Body::AgentStarted(_)
            | Body::AgentPaused(_)
            | Body::AgentResumed(_)
            | Body::AgentStopping(_)
            | Body::MessageSent(_)
            | Body::MessageTaken(_)
            | Body::GrantIssued(_)
            | Body::GrantRevoked(_)
            | Body::ToolBound(_)
            | Body::CallAdmitted(_)
            | Body::CallFinished(_)
            | Body::CallAttempted(_)
            | Body::CancelRequested(_)
            | Body::SessionRegistered(_)
            | Body::SessionEnded(_)
            | Body::ToolRegistered(_)
            | Body::ToolApproved(_)
            | Body::ToolQuarantined(_)
            | Body::ToolUnbound(_)
            | Body::OutcomeResolved(_)
            | Body::PrincipalAdded(_)
            | Body::Observed(_)
            | Body::SandboxProbed(_) => {}
        }
    }
}

impl TaskRow {
    fn end(&mut self, state: TaskState, at: Seq) {
        self.state = state;
        self.due = None;
        self.not_before = None;
        self.ended_at = Some(at);
    }
}
