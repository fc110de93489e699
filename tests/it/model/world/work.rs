//! Random commands about agents, tasks, messages and open calls, and how they become the kernel's.

use toka_kernel::Ask as KernelAsk;
use toka_kernel::body::v1::{
    AttemptAsked, AttemptUsage, CancelAsked, CompleteTaskAsked, FailTaskAsked, PauseAsked, ResumeAsked, Retry,
    ScheduleAsked, SendAsked, SkipTaskAsked, StartTaskAsked, StopAsked, TakeAsked,
};
use toka_kernel::ids::{CallId, Digest, MessageId, PrincipalId, TaskId};

use super::super::rules::Agent;
use super::super::work::{Standing, Task, Work};
use super::{ANN, Ask, Id, NODE, Rng, SERVICE, STRANGER, Stage, World};

impl World {
    pub(super) fn work(&self, rng: &mut Rng) -> (Id, Ask) {
        // What nothing is there for yet is not asked often.
        let (few, none) = (self.model.agents.len() < 2, self.model.tasks.is_empty());
        if few && rng.in_100(90) {
            return if rng.in_100(60) { self.spawn(rng) } else { self.start(rng) };
        }
        let (by, work) = match rng.below(1_000) {
            0..40 => self.pause(rng),
            40..130 => self.resume(rng),
            130..140 => self.stop(rng),
            140..180 => return self.end_stopped(rng),
            180..380 => self.schedule(rng),
            380..790 if none && rng.in_100(90) => self.schedule(rng),
            380..540 => self.start_task(rng),
            540..640 => self.complete(rng),
            640..740 => self.fail(rng),
            740..790 => self.skip(rng),
            790..870 => self.send(rng),
            870..920 => self.take_message(rng),
            920..970 => self.attempt(rng),
            _ => self.cancel(rng),
        };
        (by, Ask::Work(work))
    }

    fn agents(&self, fits: impl Fn(&Agent) -> bool) -> Vec<Id> {
        self.model.agents.iter().filter(|(_, agent)| fits(agent)).map(|(id, _)| *id).collect()
    }

    /// An agent for which this holds, or sometimes any, or none.
    fn some_agent(&self, rng: &mut Rng, fits: impl Fn(&Agent) -> bool) -> Id {
        let good = self.agents(fits);
        let from = if good.is_empty() || rng.in_100(8) { self.agents(|_| true) } else { good };
        if from.is_empty() {
            self.model.opener
        } else if rng.in_100(1) {
            STRANGER
        } else {
            *rng.of(&from)
        }
    }

    /// Somebody who stands above an agent, or has a right to be asked.
    fn above(&self, rng: &mut Rng, agent: Id) -> Id {
        let mut above = vec![self.model.opener, ANN, SERVICE];
        let mut up = self.model.agents.get(&agent).map(|agent| agent.parent);
        while let Some(id) = up {
            above.extend([id, id]);
            up = self.model.agents.get(&id).map(|agent| agent.parent);
        }
        *rng.of(&above)
    }

    fn pause(&self, rng: &mut Rng) -> (Id, Work) {
        let agent = self.some_agent(rng, |agent| agent.stage == Stage::Running);
        let by = if rng.in_100(20) { NODE } else { self.above(rng, agent) };
        (by, Work::Pause { agent, why: why(rng, 8) })
    }

    fn resume(&self, rng: &mut Rng) -> (Id, Work) {
        let agent = self.some_agent(rng, |agent| agent.stage == Stage::Paused);
        let paused_by = self.model.agents.get(&agent).and_then(|agent| agent.paused_by);
        let by = paused_by.filter(|_| rng.in_100(60)).unwrap_or_else(|| self.above(rng, agent));
        (by, Work::Resume { agent })
    }

    fn stop(&self, rng: &mut Rng) -> (Id, Work) {
        let agent = self.some_agent(rng, |agent| !matches!(agent.stage, Stage::Stopping | Stage::Ended));
        (self.above(rng, agent), Work::Stop { agent, why: why(rng, 8) })
    }

    /// What stops is ended by the node, from below.
    fn end_stopped(&self, rng: &mut Rng) -> (Id, Ask) {
        let all = self.model.agents.iter();
        let stopping = all.filter(|(id, agent)| agent.stage != Stage::Ended && self.model.is_stopping(**id));
        let stopping: Vec<Id> = stopping.map(|(id, _)| *id).collect();
        let agent = if stopping.is_empty() { self.some_agent(rng, |_| true) } else { *rng.of(&stopping) };
        (NODE, Ask::End { agent, how: 3, code: 0 })
    }

    fn schedule(&self, rng: &mut Rng) -> (Id, Work) {
        let agent = self.some_agent(rng, |agent| matches!(agent.stage, Stage::Running | Stage::Spawned));
        let own: Vec<Id> = self.model.tasks.iter().filter(|(_, task)| task.agent == agent).map(|(id, _)| *id).collect();
        let any: Vec<Id> = self.model.tasks.keys().copied().chain([[0x33; 32]]).collect();
        let mut requires = Vec::new();
        for _ in 0..if rng.in_100(25) { rng.below(3) } else { 0 } {
            let from = if own.is_empty() || rng.in_100(10) { &any } else { &own };
            requires.push(*rng.of(from));
        }
        let by = if rng.in_100(60) { agent } else { self.above(rng, agent) };
        let work = Work::Schedule {
            agent,
            name: if rng.in_100(95) { "scan" } else { "" },
            requires,
            priority: if rng.in_100(97) { 1 + rng.below(4) as u8 } else { *rng.of(&[0, 5]) },
            timeout: if rng.in_100(95) {
                60_000_000
            } else {
                *rng.of(&[1_000_000, 86_400_000_000, 999_999, 86_400_000_001])
            },
            retry: (
                *rng.of(&[0, 1, 3, 3, 255]),
                *rng.of(&[0, 1, 900, 1_000, 86_400_000_000]),
                if rng.in_100(95) { 30_000 } else { *rng.of(&[0, 5, 86_400_000_000, 86_400_000_001]) },
            ),
        };
        (by, work)
    }

    /// A task for which this holds, or sometimes any, or none.
    fn some_task(&self, rng: &mut Rng, fits: impl Fn(&Task) -> bool) -> (Id, Option<&Task>) {
        let good: Vec<Id> = self.model.tasks.iter().filter(|(_, task)| fits(task)).map(|(id, _)| *id).collect();
        let all: Vec<Id> = self.model.tasks.keys().copied().collect();
        let from = if good.is_empty() || rng.in_100(8) { all } else { good };
        if from.is_empty() || rng.in_100(2) {
            return ([0x33; 32], None);
        }
        let id = *rng.of(&from);
        (id, self.model.tasks.get(&id))
    }

    fn holder_of(&self, rng: &mut Rng, task: Option<&Task>) -> Id {
        let holder = task.map(|task| task.agent).filter(|_| rng.in_100(95));
        holder.unwrap_or_else(|| self.some_agent(rng, |agent| agent.stage == Stage::Running))
    }

    fn start_task(&self, rng: &mut Rng) -> (Id, Work) {
        let ready = |task: &Task| {
            let waits = task.not_before.is_some_and(|wait| wait > self.now) || !task.requires.is_empty();
            task.standing == Standing::Scheduled && !waits && self.may_act(task.agent)
        };
        let (id, task) = if rng.in_100(65) {
            self.some_task(rng, ready)
        } else {
            self.some_task(rng, |task| task.standing == Standing::Scheduled)
        };
        let attempt = task.map_or(1, |task| task.attempt + 1);
        let attempt = if rng.in_100(96) { attempt } else { *rng.of(&[0, attempt + 1, u16::MAX]) };
        (self.holder_of(rng, task), Work::Start { task: id, attempt })
    }

    fn at_attempt(&self, rng: &mut Rng) -> (Id, Id, u16) {
        let (id, task) = self.some_task(rng, |task| task.standing == Standing::Started);
        let attempt = task.map_or(1, |task| task.attempt);
        let attempt = if rng.in_100(96) { attempt } else { attempt.wrapping_sub(1) };
        (self.holder_of(rng, task), id, attempt)
    }

    fn complete(&self, rng: &mut Rng) -> (Id, Work) {
        let (by, task, attempt) = self.at_attempt(rng);
        (by, Work::Complete { task, attempt })
    }

    fn fail(&self, rng: &mut Rng) -> (Id, Work) {
        let (by, task, attempt) = self.at_attempt(rng);
        let code = if rng.in_100(95) { 1 + rng.below(17) as u16 } else { *rng.of(&[0, 18]) };
        (by, Work::Fail { task, attempt, code, retryable: rng.in_100(80) })
    }

    fn skip(&self, rng: &mut Rng) -> (Id, Work) {
        let (id, task) = self.some_task(rng, |task| task.standing == Standing::Scheduled);
        let by = if rng.in_100(50) { SERVICE } else { self.holder_of(rng, task) };
        (by, Work::Skip { task: id, why: why(rng, 3) })
    }

    fn send(&self, rng: &mut Rng) -> (Id, Work) {
        let to = self.some_agent(rng, |agent| agent.stage != Stage::Ended);
        let children = self.agents(|agent| agent.parent == to && agent.stage == Stage::Running);
        let by = match rng.below(10) {
            0..4 if !children.is_empty() => *rng.of(&children),
            0..7 => self.model.agents.get(&to).map_or(ANN, |agent| agent.parent),
            7 => self.some_agent(rng, |agent| agent.stage == Stage::Running),
            _ => *rng.of(&[SERVICE, ANN, self.model.opener]),
        };
        (by, Work::Send { to, grains: *rng.of(&[1, 1, 4_096, 4_096, 4_097, u32::MAX]) })
    }

    fn take_message(&self, rng: &mut Rng) -> (Id, Work) {
        let full: Vec<Id> =
            self.model.mailboxes.iter().filter(|(_, unread)| !unread.is_empty()).map(|(id, _)| *id).collect();
        if full.is_empty() || rng.in_100(5) {
            return (self.some_agent(rng, |agent| agent.stage == Stage::Running), Work::Take { message: [0x22; 32] });
        }
        let of = *rng.of(&full);
        let by = if rng.in_100(95) { of } else { self.some_agent(rng, |_| true) };
        (by, Work::Take { message: *rng.of(&self.model.mailboxes[&of]) })
    }

    fn attempt(&self, rng: &mut Rng) -> (Id, Work) {
        let open: Vec<_> = self.model.calls.iter().filter(|(_, call)| !call.ended).collect();
        let all: Vec<_> = self.model.calls.iter().collect();
        let from = if open.is_empty() || rng.in_100(8) { &all } else { &open };
        let cause = if rng.in_100(96) { *rng.of(&[1, 2, 3, 4, 5, 6, 6, 6, 7, 7]) } else { *rng.of(&[0, 8]) };
        let status = if cause == 1 { *rng.of(&[100, 429, 999, 99, 1_000]) } else { *rng.of(&[0, 0, 200, 1_000]) };
        let usage = rng.in_100(30).then(|| *rng.of(&[(5, 5), (5, 0), (u64::MAX, 1), (0, 1)]));
        if from.is_empty() || rng.in_100(2) {
            let work = Work::Attempt { call: [0x66; 32], attempt: 1, cause, status, not_before: 0, usage };
            return (super::LOW_EXECUTOR, work);
        }
        let (id, call) = rng.of(from);
        let not_before = *rng.of(&[0, self.now, self.now + 1_000, call.deadline - 1, call.deadline]);
        let attempt = if rng.in_100(96) { call.attempt } else { call.attempt - 1 };
        let by = if cause >= 6 && rng.in_100(60) || rng.in_100(3) { NODE } else { call.executor };
        (by, Work::Attempt { call: **id, attempt, cause, status, not_before, usage })
    }

    fn cancel(&self, rng: &mut Rng) -> (Id, Work) {
        let all: Vec<_> = self.model.calls.iter().collect();
        if all.is_empty() || rng.in_100(3) {
            return (self.model.opener, Work::Cancel { call: [0x66; 32], why: 1 });
        }
        let open: Vec<_> = all.iter().filter(|(_, call)| !call.ended).copied().collect();
        let (id, call) = if open.is_empty() || rng.in_100(20) { rng.of(&all) } else { rng.of(&open) };
        let by = if rng.in_100(50) { call.by } else { self.above(rng, call.by) };
        (by, Work::Cancel { call: **id, why: why(rng, 4) })
    }

    /// The kernel's form of what these commands ask; `blob` makes one of so many grains.
    pub(super) fn kernel_work(work: &Work, blob: &mut dyn FnMut(u32) -> u16) -> KernelAsk {
        match work.clone() {
            Work::Pause { agent, why } => {
                let reason = (why == 1).then(|| blob(1));
                KernelAsk::PauseAgent(PauseAsked { agent: PrincipalId(agent), why, reason })
            }
            Work::Resume { agent } => KernelAsk::ResumeAgent(ResumeAsked { agent: PrincipalId(agent) }),
            Work::Stop { agent, why } => {
                let reason = (why == 1).then(|| blob(1));
                KernelAsk::StopAgent(StopAsked { agent: PrincipalId(agent), why, reason })
            }
            Work::Schedule { agent, name, requires, priority, timeout, retry: (max, base, cap) } => {
                KernelAsk::ScheduleTask(ScheduleAsked {
                    agent: PrincipalId(agent),
                    name: name.to_owned(),
                    text: (priority == 1).then(|| blob(1)),
                    requires: requires.into_iter().map(TaskId).collect(),
                    priority,
                    timeout_us: timeout,
                    retry: Retry { max, base, cap },
                })
            }
            Work::Start { task, attempt } => KernelAsk::StartTask(StartTaskAsked { task: TaskId(task), attempt }),
            Work::Complete { task, attempt } => {
                let result = Some(blob(1));
                KernelAsk::CompleteTask(CompleteTaskAsked { task: TaskId(task), attempt, result })
            }
            Work::Fail { task, attempt, code, retryable } => {
                KernelAsk::FailTask(FailTaskAsked { task: TaskId(task), attempt, code, retryable })
            }
            Work::Skip { task, why } => {
                let because = (why == 1).then_some(Digest([0x12; 32]));
                KernelAsk::SkipTask(SkipTaskAsked { task: TaskId(task), why, because })
            }
            Work::Send { to, grains } => {
                let reply_to = (grains == 1).then_some(MessageId([0x21; 32]));
                KernelAsk::SendMessage(SendAsked { to: PrincipalId(to), content: blob(grains), reply_to })
            }
            Work::Take { message } => KernelAsk::TakeMessage(TakeAsked { message: MessageId(message) }),
            Work::Attempt { call, attempt, cause, status, not_before, usage } => {
                let part = (cause == 4).then(|| blob(1));
                let usage =
                    usage.map(|(tokens_in, tokens_cached)| AttemptUsage { tokens_in, tokens_cached, tokens_out: 3 });
                let call = CallId(call);
                KernelAsk::ReportAttempt(AttemptAsked { call, attempt, cause, status, not_before, usage, part })
            }
            Work::Cancel { call, why } => {
                let reason = (why == 1).then(|| blob(1));
                KernelAsk::CancelCall(CancelAsked { call: CallId(call), why, reason })
            }
        }
    }
}

fn why(rng: &mut Rng, most: usize) -> u8 {
    if rng.in_100(95) { 1 + rng.below(most) as u8 } else { *rng.of(&[0, most as u8 + 1]) }
}
