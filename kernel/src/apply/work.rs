//! The fold of what agents do beside calling tools, and of what happens to a call before it ends.

use crate::apply::{Effect, Effects};
use crate::body::v1::{CallAttempted, TaskFailed, TaskScheduled, TaskSkipped, TaskStarted};
use crate::decide::{agent, attempt};
use crate::entry::Header;
use crate::ids::{AgentId, CallId, MessageId, PrincipalId, TaskId, TimeUs, derived};
use crate::limits::TIME_US_MAX;
use crate::state::rows::RowKey;
use crate::state::{AgentState, State, Task, TaskState};

impl State {
    pub(super) fn pause_agent(&mut self, id: AgentId, by: PrincipalId) -> Effects {
        if let Some(agent) = self.agents.get_mut(&id) {
            agent.state = AgentState::Paused;
            agent.paused_by = Some(by);
            self.touch(RowKey::Agent(id));
        }
        Effects::default()
    }

    pub(super) fn resume_agent(&mut self, id: AgentId) -> Effects {
        if let Some(agent) = self.agents.get_mut(&id) {
            agent.state = AgentState::Running;
            agent.paused_by = None;
            self.touch(RowKey::Agent(id));
        }
        self.drive_below(id)
    }

    pub(super) fn stop_agent(&mut self, id: AgentId) -> Effects {
        self.leave_place(id);
        if let Some(agent) = self.agents.get_mut(&id) {
            agent.state = AgentState::Stopping;
            agent.paused_by = None;
            self.stopping += 1;
            self.touch(RowKey::Agent(id));
        }
        let open = self.calls.iter().filter(|(_, call)| call.ended.is_none());
        let below: Vec<CallId> =
            open.filter(|(_, call)| self.is_at_or_below(call.principal, id)).map(|(id, _)| *id).collect();
        Effects(below.into_iter().filter_map(|call| self.mark_cancelled(call)).collect())
    }

    /// Gives up the place of an agent among those that run, if it has one.
    pub(super) fn leave_place(&mut self, id: AgentId) {
        let Some(agent) = self.agents.get(&id) else { return };
        match agent.state {
            AgentState::Running | AgentState::Paused => {
                let top = !self.agents.contains_key(&agent.parent);
                self.running = self.running.saturating_sub(1);
                self.running_top = self.running_top.saturating_sub(u32::from(top));
            }
            AgentState::Spawned | AgentState::Stopping | AgentState::Ended => {}
        }
    }

    /// Marks an open call as one that is to be stopped; nothing where it is marked.
    pub(super) fn mark_cancelled(&mut self, id: CallId) -> Option<Effect> {
        let call = self.calls.get_mut(&id).filter(|call| !call.cancel)?;
        call.cancel = true;
        self.touch(RowKey::Call(id));
        Some(Effect::Cancel(id))
    }

    /// Asks an agent's driver what comes next, where the agent may go on.
    pub(super) fn drive(&self, id: AgentId) -> Option<Effect> {
        let runs = self.agents.get(&id).is_some_and(|agent| agent.state == AgentState::Running);
        (runs && agent::not_held(self, id).is_ok()).then_some(Effect::Drive(id))
    }

    /// Asks the drivers of all at or below `id` that may go on now.
    pub(super) fn drive_below(&self, id: AgentId) -> Effects {
        let below = self.agents.keys().filter(|agent| self.is_at_or_below(**agent, id));
        Effects(below.filter_map(|agent| self.drive(*agent)).collect())
    }

    fn is_at_or_below(&self, agent: PrincipalId, above: AgentId) -> bool {
        agent == above || agent::is_above(self, above, agent)
    }

    pub(super) fn schedule_task(&mut self, header: &Header, scheduled: &TaskScheduled) -> Effects {
        let id = TaskId(derived(self.head.session, header.seq, 0));
        let open =
            |required: &TaskId| self.tasks.get(required).is_some_and(|required| required.state != TaskState::Completed);
        let requires: Vec<TaskId> = scheduled.requires.iter().copied().filter(open).collect();
        for required in &requires {
            self.waiting.entry(*required).or_default().push(id);
        }
        let task = Task {
            agent: scheduled.agent,
            state: TaskState::Scheduled,
            attempt: 0,
            timeout_us: scheduled.timeout_us,
            retry: scheduled.retry.clone(),
            not_before: None,
            due: None,
            requires,
            ended: None,
        };
        self.tasks.insert(id, task);
        self.touch(RowKey::Task(id));
        if let Some(agent) = self.agents.get_mut(&scheduled.agent) {
            agent.open_tasks += 1;
            self.touch(RowKey::Agent(scheduled.agent));
        }
        self.drive_for(scheduled.agent, header)
    }

    /// Asks an agent's driver what comes next, where it was not the agent itself that did something.
    fn drive_for(&self, id: AgentId, header: &Header) -> Effects {
        let driven = if header.principal == id { None } else { self.drive(id) };
        Effects(driven.into_iter().collect())
    }

    pub(super) fn start_task(&mut self, header: &Header, started: &TaskStarted) -> Effects {
        if let Some(task) = self.tasks.get_mut(&started.task) {
            task.state = TaskState::Started;
            task.attempt = started.attempt;
            task.not_before = None;
            task.due = Some(header.time_us.saturating_add(task.timeout_us).min(TIME_US_MAX));
            self.touch(RowKey::Task(started.task));
        }
        Effects::default()
    }

    pub(super) fn complete_task(&mut self, id: TaskId) -> Effects {
        self.end_task(id, TaskState::Completed);
        for waiting in self.waiting.remove(&id).unwrap_or_default() {
            if let Some(task) = self.tasks.get_mut(&waiting) {
                task.requires.retain(|required| *required != id);
                self.touch(RowKey::Task(waiting));
            }
        }
        Effects::default()
    }

    pub(super) fn fail_task(&mut self, failed: &TaskFailed) -> Effects {
        if failed.not_before.is_none() {
            self.end_task(failed.task, TaskState::Failed);
        } else if let Some(task) = self.tasks.get_mut(&failed.task) {
            task.state = TaskState::Scheduled;
            task.not_before = failed.not_before;
            task.due = None;
            self.touch(RowKey::Task(failed.task));
        }
        Effects::default()
    }

    pub(super) fn skip_task(&mut self, header: &Header, skipped: &TaskSkipped) -> Effects {
        self.end_task(skipped.task, TaskState::Skipped);
        match self.tasks.get(&skipped.task).map(|task| task.agent) {
            Some(agent) => self.drive_for(agent, header),
            None => Effects::default(),
        }
    }

    fn end_task(&mut self, id: TaskId, state: TaskState) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        task.state = state;
        task.due = None;
        task.not_before = None;
        task.ended = Some(self.commits);
        let agent = task.agent;
        self.ended_tasks.push_back((self.commits, id));
        self.touch(RowKey::Task(id));
        if let Some(row) = self.agents.get_mut(&agent) {
            row.open_tasks = row.open_tasks.saturating_sub(1);
            self.touch(RowKey::Agent(agent));
        }
    }

    /// Ends what an agent leaves behind: its open tasks, and the messages that it has not read.
    pub(super) fn clear_desk(&mut self, id: AgentId) {
        if self.agents.get(&id).is_some_and(|agent| agent.open_tasks > 0) {
            let open = self.tasks.iter().filter(|(_, task)| task.agent == id && task.ended.is_none());
            let open: Vec<TaskId> = open.map(|(id, _)| *id).collect();
            for task in open {
                self.end_task(task, TaskState::Cancelled);
            }
        }
        if self.mailboxes.remove(&id).is_some() {
            self.touch(RowKey::Mailbox(id));
        }
    }

    /// Forgets the tasks that ended before the last commitment but one.
    pub(super) fn forget_tasks(&mut self) {
        while let Some((ended, task)) = self.ended_tasks.front().copied()
            && ended + 2 <= self.commits
        {
            self.ended_tasks.pop_front();
            self.tasks.remove(&task);
            self.waiting.remove(&task);
            self.touch(RowKey::Task(task));
        }
    }

    pub(super) fn deliver(&mut self, header: &Header, to: AgentId) -> Effects {
        let id = MessageId(derived(self.head.session, header.seq, 0));
        self.mailboxes.entry(to).or_default().push(id);
        self.touch(RowKey::Mailbox(to));
        self.drive_for(to, header)
    }

    pub(super) fn take_message(&mut self, by: AgentId, id: MessageId) -> Effects {
        if let Some(unread) = self.mailboxes.get_mut(&by) {
            unread.retain(|message| *message != id);
            if unread.is_empty() {
                self.mailboxes.remove(&by);
            }
            self.touch(RowKey::Mailbox(by));
        }
        Effects::default()
    }

    pub(super) fn attempt_call(&mut self, attempted: &CallAttempted, at: TimeUs) -> Effects {
        let lost = attempt::is_lost(attempted.cause);
        let renewed = self.calls.get(&attempted.call).filter(|_| lost);
        let renewed = renewed.map(|call| attempt::renewed_deadline(self, call, at));
        let Some(call) = self.calls.get_mut(&attempted.call) else { return Effects::default() };
        call.attempt = call.attempt.saturating_add(1);
        call.deadline = renewed.unwrap_or(call.deadline);
        let (grants, reserve) = (call.grants.clone(), call.reserve);
        self.touch(RowKey::Call(attempted.call));
        if lost {
            self.each_above(&grants, |node| node.meter.lose(&reserve));
        }
        Effects::default()
    }
}
