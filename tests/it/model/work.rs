//! The reference model of what agents do beside calling tools: they are paused and stopped, have tasks, send messages;
//! and of what happens to a call before it ends.

use super::cap::{Cap, NEVER, Scope, dim};
use super::rules::{Agent, Ask, Id, Kind, Model, NODE, No, Stage, no};

/// Where a task stands, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Scheduled = 1,
    Started = 2,
    Completed = 3,
    Failed = 4,
    Cancelled = 6,
    Skipped = 7,
}

#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) agent: Id,
    pub(crate) standing: Standing,
    pub(crate) attempt: u16,
    pub(crate) timeout: u64,
    pub(crate) retry: (u8, u64, u64),
    pub(crate) requires: Vec<Id>,
    pub(crate) not_before: Option<u64>,
    pub(crate) due: Option<u64>,
    /// State commitments since its end.
    pub(crate) commits_after: u32,
}

impl Task {
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.standing, Standing::Scheduled | Standing::Started)
    }
}

/// The plan of a spawn, as far as the rules look at it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    pub(crate) requires: Vec<Id>,
    pub(crate) replaces: Option<Id>,
    /// What follows a failure, and whether it says how to try again.
    pub(crate) then: u8,
    pub(crate) retry: bool,
}

/// What is asked about agents, tasks, messages and open calls.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    Pause { agent: Id, why: u8 },
    Resume { agent: Id },
    Stop { agent: Id, why: u8 },
    Schedule { agent: Id, name: &'static str, requires: Vec<Id>, priority: u8, timeout: u64, retry: (u8, u64, u64) },
    Start { task: Id, attempt: u16 },
    Complete { task: Id, attempt: u16 },
    Fail { task: Id, attempt: u16, code: u16, retryable: bool },
    Skip { task: Id, why: u8 },
    Send { to: Id, grains: u32 },
    Take { message: Id },
    Attempt { call: Id, attempt: u16, cause: u8, status: u16, not_before: u64, usage: Option<(u64, u64)> },
    Cancel { call: Id, why: u8 },
}

impl Work {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Work::Pause { .. } => "pause",
            Work::Resume { .. } => "resume",
            Work::Stop { .. } => "stop",
            Work::Schedule { .. } => "schedule",
            Work::Start { .. } => "start task",
            Work::Complete { .. } => "complete",
            Work::Fail { .. } => "fail",
            Work::Skip { .. } => "skip",
            Work::Send { .. } => "send",
            Work::Take { .. } => "take",
            Work::Attempt { .. } => "attempt",
            Work::Cancel { .. } => "cancel",
        }
    }

    pub(super) fn may(&self, kind: Kind) -> bool {
        match self {
            Work::Pause { .. } => kind != Kind::Executor,
            Work::Resume { .. }
            | Work::Stop { .. }
            | Work::Schedule { .. }
            | Work::Send { .. }
            | Work::Cancel { .. } => matches!(kind, Kind::Human | Kind::Agent | Kind::Service),
            Work::Start { .. } | Work::Complete { .. } | Work::Fail { .. } | Work::Take { .. } => kind == Kind::Agent,
            Work::Skip { .. } => matches!(kind, Kind::Agent | Kind::Service),
            Work::Attempt { .. } => matches!(kind, Kind::Node | Kind::Executor),
        }
    }

    /// What a paused agent does not do.
    pub(super) fn is_act(&self) -> bool {
        matches!(self, Work::Start { .. } | Work::Send { .. } | Work::Take { .. })
    }

    /// The administrative operations that it may use.
    pub(super) fn ops(&self) -> Option<Vec<&'static str>> {
        match self {
            Work::Pause { .. } | Work::Resume { .. } | Work::Schedule { .. } => Some(vec!["pause"]),
            Work::Stop { .. } | Work::Cancel { .. } => Some(vec!["cancel"]),
            Work::Skip { .. } | Work::Send { .. } => Some(vec![]),
            Work::Start { .. }
            | Work::Complete { .. }
            | Work::Fail { .. }
            | Work::Take { .. }
            | Work::Attempt { .. } => None,
        }
    }
}

impl Model {
    /// The agent that an `agent:` grant would have to cover for this command, if one may be named; and whether only a
    /// service may name it.
    fn covered_agent(&self, ask: &Ask) -> Option<(Result<Id, No>, bool)> {
        match ask {
            Ask::Start { agent } => Some((Ok(*agent), true)),
            Ask::Work(Work::Schedule { agent, .. }) => Some((Ok(*agent), true)),
            Ask::Work(Work::Skip { task, .. }) => {
                Some((self.tasks.get(task).map(|task| task.agent).ok_or(no(209)), true))
            }
            Ask::Work(Work::Send { to, .. }) => Some((Ok(*to), false)),
            _ => None,
        }
    }

    /// That agent, where it is known.
    pub(crate) fn target_of(&self, ask: &Ask) -> Option<Id> {
        self.covered_agent(ask)?.0.ok()
    }

    /// Whether `under` is an `agent:` grant that does for this command; `None` where an administrative one is meant.
    pub(super) fn orchestrates(&self, by: Id, kind: Kind, under: Id, ask: &Ask, at: u64) -> Option<Result<(), No>> {
        let (agent, only_service) = self.covered_agent(ask)?;
        let of_agents = self.grants.get(&under).is_some_and(|grant| matches!(grant.cap.scope, Scope::Agent { .. }));
        let no_other = ask.right(by).is_some_and(|(_, ops)| ops.is_empty());
        if !(no_other || kind == Kind::Service && of_agents) {
            return None;
        }
        if only_service && kind != Kind::Service {
            return Some(Err(no(312)));
        }
        Some(agent.and_then(|agent| {
            let spec = self.agents.get(&agent).ok_or(no(101))?.spec.clone();
            self.usable(under, by, at)?;
            let need = Scope::Agent { spec, live: Some(0) };
            need.within(&self.grants[&under].cap.scope).map_err(|dim| no(403).at(under).dim(dim))
        }))
    }

    pub(crate) fn is_above(&self, by: Id, agent: Id) -> bool {
        self.agents.get(&agent).is_some_and(|agent| agent.parent == by || self.is_above(by, agent.parent))
    }

    /// Whether an agent, or one above it, is paused, stopping or in doubt.
    pub(crate) fn is_held(&self, id: Id) -> bool {
        let Some(agent) = self.agents.get(&id) else { return false };
        let doubt = self.calls.values().any(|call| call.by == id && call.doubt);
        doubt || matches!(agent.stage, Stage::Paused | Stage::Stopping) || self.is_held(agent.parent)
    }

    pub(crate) fn is_stopping(&self, id: Id) -> bool {
        let Some(agent) = self.agents.get(&id) else { return false };
        agent.stage == Stage::Stopping || self.is_stopping(agent.parent)
    }

    pub(super) fn plan(&self, spec: &str, plan: &Plan) -> Result<(), No> {
        let known = plan.requires.iter().all(|agent| self.agents.contains_key(agent));
        let twice = plan.requires.iter().enumerate().any(|(at, agent)| plan.requires[..at].contains(agent));
        if !(1..=4).contains(&plan.then) || !known || twice || plan.retry != (plan.then == 4) {
            return Err(no(101));
        }
        let ended = |agent: &Agent| agent.stage == Stage::Ended && agent.spec == spec;
        match plan.replaces {
            Some(replaced) if !self.agents.get(&replaced).is_some_and(ended) => Err(no(101)),
            _ => Ok(()),
        }
    }

    pub(super) fn work(&mut self, by: Id, under: Option<Id>, work: &Work, at: u64, made: Id) -> Result<(), No> {
        let right = under.is_some();
        match work {
            Work::Pause { agent, why } => {
                check_why(*why, 8)?;
                let stage = self.agents.get(agent).ok_or(no(101))?.stage;
                if by != NODE && !self.is_above(by, *agent) && !right {
                    return Err(no(312));
                }
                if stage != Stage::Running {
                    return Err(no(206));
                }
                let row = self.agents.get_mut(agent).expect("known");
                (row.stage, row.paused_by) = (Stage::Paused, Some(by));
                Ok(())
            }
            Work::Resume { agent } => {
                let row = self.agents.get(agent).ok_or(no(101))?;
                if !self.is_above(by, *agent) && !right {
                    return Err(no(312));
                }
                if row.stage != Stage::Paused {
                    return Err(no(206));
                }
                if row.paused_by != Some(by) && !right {
                    return Err(no(312));
                }
                let row = self.agents.get_mut(agent).expect("known");
                (row.stage, row.paused_by) = (Stage::Running, None);
                Ok(())
            }
            Work::Stop { agent, why } => {
                check_why(*why, 8)?;
                let stage = self.agents.get(agent).ok_or(no(101))?.stage;
                if !self.is_above(by, *agent) && !right {
                    return Err(no(312));
                }
                if matches!(stage, Stage::Stopping | Stage::Ended) {
                    return Err(no(206));
                }
                let row = self.agents.get_mut(agent).expect("known");
                (row.stage, row.paused_by) = (Stage::Stopping, None);
                let below: Vec<Id> = self.calls.keys().copied().collect();
                for call in below {
                    let asker = self.calls[&call].by;
                    let hit = asker == *agent || self.is_above(*agent, asker);
                    let call = self.calls.get_mut(&call).expect("known");
                    call.cancelled |= hit && !call.ended;
                }
                Ok(())
            }
            Work::Schedule { .. } => self.schedule(by, right, work, made),
            Work::Start { task, attempt } => self.start_task(by, *task, *attempt, at),
            Work::Complete { task, attempt } => {
                self.at_attempt(by, *task, *attempt)?;
                self.end_task(*task, Standing::Completed);
                self.tasks.values_mut().for_each(|other| other.requires.retain(|required| required != task));
                Ok(())
            }
            Work::Fail { task, attempt, code, retryable } => {
                if !(1..=17).contains(code) {
                    return Err(no(101));
                }
                self.at_attempt(by, *task, *attempt)?;
                let (max, base, cap) = self.tasks[task].retry;
                if !retryable || *attempt >= max.into() {
                    self.end_task(*task, Standing::Failed);
                    return Ok(());
                }
                let wait = at + wait(*task, *attempt, base, cap);
                let row = self.tasks.get_mut(task).expect("known");
                row.standing = Standing::Scheduled;
                row.not_before = Some(wait.min(NEVER));
                row.due = None;
                Ok(())
            }
            Work::Skip { task, why } => {
                check_why(*why, 3)?;
                let row = self.tasks.get(task).ok_or(no(209))?;
                if by != row.agent && !right {
                    return Err(no(301));
                }
                if row.standing != Standing::Scheduled {
                    return Err(no(206));
                }
                self.end_task(*task, Standing::Skipped);
                Ok(())
            }
            Work::Send { to, grains } => {
                if *grains > 4_096 {
                    return Err(no(101));
                }
                let row = self.agents.get(to).ok_or(no(101))?;
                let child = self.agents.get(&by).is_some_and(|sender| sender.parent == *to);
                if row.parent != by && !child && !right {
                    return Err(no(301));
                }
                if row.stage == Stage::Ended {
                    return Err(no(208));
                }
                let unread = self.mailboxes.entry(*to).or_default();
                if unread.len() >= 1_024 {
                    return Err(no(609));
                }
                unread.push(made);
                Ok(())
            }
            Work::Take { message } => {
                let unread = self.mailboxes.entry(by).or_default();
                let at = unread.iter().position(|known| known == message).ok_or(no(212))?;
                unread.remove(at);
                Ok(())
            }
            Work::Attempt { call, attempt, cause, status, not_before, usage } => {
                let status_fits = match cause {
                    1 => (100..=999).contains(status),
                    2..=7 => *status <= 999,
                    _ => false,
                };
                if !status_fits || usage.is_some_and(|(tokens, cached)| cached > tokens) {
                    return Err(no(101));
                }
                self.attempt(by, *call, *attempt, *cause, *not_before, at)
            }
            Work::Cancel { call, why } => {
                check_why(*why, 4)?;
                let row = self.calls.get(call).ok_or(no(701))?;
                if row.ended {
                    return Err(no(702));
                }
                if by != row.by && !self.is_above(by, row.by) && !right {
                    return Err(no(312));
                }
                if row.cancelled {
                    return Err(no(206));
                }
                self.calls.get_mut(call).expect("known").cancelled = true;
                Ok(())
            }
        }
    }

    fn schedule(&mut self, by: Id, right: bool, work: &Work, made: Id) -> Result<(), No> {
        let Work::Schedule { agent, name, requires, priority, timeout, retry } = work else { unreachable!() };
        const DAY: u64 = 86_400_000_000;
        if name.is_empty() {
            return Err(no(102));
        }
        let fits =
            (1..=4).contains(priority) && (1_000_000..=DAY).contains(timeout) && retry.1 <= DAY && retry.2 <= DAY;
        if !fits {
            return Err(no(101));
        }
        let stage = self.agents.get(agent).ok_or(no(101))?.stage;
        if by != *agent && !self.is_above(by, *agent) && !right {
            return Err(no(312));
        }
        if matches!(stage, Stage::Stopping | Stage::Ended) {
            return Err(no(206));
        }
        for (item, required) in requires.iter().enumerate() {
            if requires[..item].contains(required) {
                return Err(no(101).item(item));
            }
            self.own_task(*agent, *required).map_err(|no| no.item(item))?;
        }
        if self.open_tasks(*agent) >= 10_000 {
            return Err(no(604).dim(dim::TASKS));
        }
        let open = |required: &&Id| self.tasks[*required].standing != Standing::Completed;
        let task = Task {
            agent: *agent,
            standing: Standing::Scheduled,
            attempt: 0,
            timeout: *timeout,
            retry: *retry,
            requires: requires.iter().filter(open).copied().collect(),
            not_before: None,
            due: None,
            commits_after: 0,
        };
        self.tasks.insert(made, task);
        Ok(())
    }

    fn start_task(&mut self, by: Id, task: Id, attempt: u16, at: u64) -> Result<(), No> {
        let row = self.own_task(by, task)?;
        if row.standing != Standing::Scheduled || u32::from(attempt) != u32::from(row.attempt) + 1 {
            return Err(no(206));
        }
        if let Some(wait) = row.not_before.filter(|wait| at < *wait) {
            return Err(No { retry_at: Some(wait), ..no(210) });
        }
        if !row.requires.is_empty() {
            return Err(no(211));
        }
        let row = self.tasks.get_mut(&task).expect("known");
        row.standing = Standing::Started;
        row.attempt = attempt;
        row.not_before = None;
        row.due = Some((at + row.timeout).min(NEVER));
        Ok(())
    }

    pub(crate) fn open_tasks(&self, agent: Id) -> usize {
        self.tasks.values().filter(|task| task.agent == agent && task.is_open()).count()
    }

    pub(super) fn own_task(&self, agent: Id, task: Id) -> Result<&Task, No> {
        self.tasks.get(&task).filter(|task| task.agent == agent).ok_or(no(209))
    }

    fn at_attempt(&self, by: Id, task: Id, attempt: u16) -> Result<(), No> {
        let row = self.own_task(by, task)?;
        if row.standing == Standing::Started && row.attempt == attempt { Ok(()) } else { Err(no(206)) }
    }

    pub(super) fn end_task(&mut self, task: Id, standing: Standing) {
        let row = self.tasks.get_mut(&task).expect("known");
        row.standing = standing;
        (row.not_before, row.due) = (None, None);
    }

    fn attempt(&mut self, by: Id, id: Id, attempt: u16, cause: u8, not_before: u64, at: u64) -> Result<(), No> {
        let call = self.calls.get(&id).ok_or(no(701))?.clone();
        if call.ended {
            return Err(no(702));
        }
        let lost = cause >= 6;
        if by != call.executor && !(by == NODE && lost) {
            return Err(no(703));
        }
        if attempt != call.attempt {
            return Err(no(206));
        }
        let ends = earliest_end(self.union(&call.grants).iter().map(|grant| &self.grants[grant].cap));
        let renewed = if call.reserve[5] == 0 { ends } else { ends.min(at.saturating_add(call.reserve[5])) };
        let deadline = if lost { renewed } else { call.deadline };
        let late = not_before >= deadline || at >= deadline;
        if call.cancelled || call.effect >= 3 || call.attempt >= 4 || late {
            return Err(no(211));
        }
        let union = self.union(&call.grants);
        if lost {
            let mut again = call.reserve;
            again[0] = 0;
            self.budgets(&union, &again.map(Some), &again)?;
            for grant in union {
                let node = self.grants.get_mut(&grant).expect("known");
                for (spent, amount) in node.spent.iter_mut().zip(again) {
                    *spent = spent.saturating_add(amount);
                }
            }
        }
        let call = self.calls.get_mut(&id).expect("known");
        (call.attempt, call.deadline) = (call.attempt + 1, deadline);
        Ok(())
    }
}

fn check_why(why: u8, most: u8) -> Result<(), No> {
    if (1..=most).contains(&why) { Ok(()) } else { Err(no(101)) }
}

/// `min(cap, base · 2^(attempt − 1)) · (½ + j/2)`, rounded down.
pub(crate) fn wait(task: Id, attempt: u16, base: u64, cap: u64) -> u64 {
    let mut most = u128::from(base);
    for _ in 1..attempt {
        most = (2 * most).min(u128::from(cap));
    }
    let most = most.min(u128::from(cap));
    let mut input = task.to_vec();
    input.extend(attempt.to_be_bytes());
    let digest = blake3::derive_key("toka 2026-11 jitter v1", &input);
    let j = u64::from_be_bytes(digest[..8].try_into().expect("eight bytes"));
    let half = most * (1 << 63);
    let jittered = most * u128::from(j) / 2;
    // Both halves in units of 2^-64; the odd bit that the second loses lies below what is rounded away.
    ((half + jittered) >> 64) as u64
}

/// The earliest end of any grant on these chains, as the page bounds a deadline.
pub(super) fn earliest_end<'a>(caps: impl Iterator<Item = &'a Cap>) -> u64 {
    caps.filter_map(|cap| cap.exp).min().unwrap_or(NEVER)
}
