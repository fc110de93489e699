//! Tasks: schedule, start, complete, fail, skip; and when one that failed may be tried again.

use crate::body::v1::{
    Cmd, CompleteTaskAsked, FailTaskAsked, Retry, ScheduleAsked, SkipTaskAsked, StartTaskAsked, TaskCompleted,
    TaskFailed, TaskScheduled, TaskSkipped, TaskStarted,
};
use crate::capability::ExactName;
use crate::decide::agent::{self, END_CODE_MAX};
use crate::decide::{Answer, plan};
use crate::denial::{Code, Denial, Dim};
use crate::event::Body;
use crate::hash::{Context, derive};
use crate::ids::{AgentId, PrincipalId, TaskId, TimeUs};
use crate::limits::{TASK_TIMEOUT_US_MAX, TASK_TIMEOUT_US_MIN, TASKS_OPEN_MAX, TIME_US_MAX};
use crate::state::{AgentState, State, Task, TaskState};

pub(crate) fn schedule(
    state: &State,
    by: PrincipalId,
    cmd: Option<Cmd>,
    asked: &ScheduleAsked,
) -> Result<Answer, Denial> {
    check_form(asked)?;
    let holder = agent::find(state, asked.agent)?;
    let may = by == asked.agent || agent::is_above(state, by, asked.agent) || agent::has_right(cmd.as_ref());
    if !may {
        return Err(Denial::new(Code::NoAdmin).need("admin:#pause"));
    }
    match holder.state {
        AgentState::Spawned | AgentState::Running | AgentState::Paused => {}
        AgentState::Stopping | AgentState::Ended => return Err(agent::not_from(holder)),
    }
    for (item, required) in asked.requires.iter().enumerate() {
        if asked.requires[..item].contains(required) {
            return Err(Denial::new(Code::Malformed).rule("requires").item(item));
        }
        find_of(state, *required, asked.agent).map_err(|denial| denial.item(item))?;
    }
    if holder.open_tasks >= TASKS_OPEN_MAX {
        let open = u64::from(holder.open_tasks);
        return Err(Denial::count(Code::Limit, Dim::Tasks, u64::from(TASKS_OPEN_MAX), open, 1));
    }
    Ok(Body::TaskScheduled(Box::new(TaskScheduled {
        cmd,
        agent: asked.agent,
        name: asked.name.clone(),
        text: asked.text,
        requires: asked.requires.clone(),
        priority: asked.priority,
        timeout_us: asked.timeout_us,
        retry: asked.retry.clone(),
    }))
    .into())
}

fn check_form(asked: &ScheduleAsked) -> Result<(), Denial> {
    ExactName::parse(&asked.name).map_err(|code| Denial::new(code).rule("name"))?;
    let fields = [
        ("priority", (1..=4).contains(&asked.priority)),
        ("timeout", (TASK_TIMEOUT_US_MIN..=TASK_TIMEOUT_US_MAX).contains(&asked.timeout_us)),
        ("retry", plan::is_retry(&asked.retry)),
    ];
    match fields.iter().find(|(_, holds)| !holds) {
        Some((field, _)) => Err(Denial::new(Code::Malformed).rule(field)),
        None => Ok(()),
    }
}

pub(crate) fn start(
    state: &State,
    by: PrincipalId,
    cmd: Option<Cmd>,
    asked: &StartTaskAsked,
    at: TimeUs,
) -> Result<Answer, Denial> {
    let task = find_of(state, asked.task, by)?;
    if task.state != TaskState::Scheduled {
        return Err(not_from(task));
    }
    if task.attempt.checked_add(1) != Some(asked.attempt) {
        return Err(Denial::new(Code::IllegalTransition).rule("attempt"));
    }
    if let Some(wait) = task.not_before.filter(|wait| at < *wait) {
        let mut denial = Denial::new(Code::TooEarly);
        denial.retry_at = Some(wait);
        return Err(denial);
    }
    if !task.requires.is_empty() {
        return Err(Denial::new(Code::ConditionNotMet).rule("a required task has not completed"));
    }
    Ok(Body::TaskStarted(TaskStarted { cmd, task: asked.task, attempt: asked.attempt }).into())
}

pub(crate) fn complete(
    state: &State,
    by: PrincipalId,
    cmd: Option<Cmd>,
    asked: &CompleteTaskAsked,
) -> Result<Answer, Denial> {
    started(state, by, asked.task, asked.attempt)?;
    let body = TaskCompleted { cmd, task: asked.task, attempt: asked.attempt, result: asked.result };
    Ok(Body::TaskCompleted(body).into())
}

pub(crate) fn fail(
    state: &State,
    by: PrincipalId,
    cmd: Option<Cmd>,
    asked: &FailTaskAsked,
    at: TimeUs,
) -> Result<Answer, Denial> {
    if !(1..=END_CODE_MAX).contains(&asked.code) {
        return Err(Denial::new(Code::Malformed).rule("code"));
    }
    let task = started(state, by, asked.task, asked.attempt)?;
    let again = asked.retryable && asked.attempt < u16::from(task.retry.max);
    let not_before = again.then(|| at.saturating_add(delay(asked.task, asked.attempt, &task.retry)).min(TIME_US_MAX));
    Ok(Body::TaskFailed(TaskFailed {
        cmd,
        task: asked.task,
        attempt: asked.attempt,
        code: asked.code,
        retryable: asked.retryable,
        not_before,
    })
    .into())
}

/// How long a task waits after `attempt` has failed, in µs: between a half and the whole of `base · 2^(attempt − 1)`, of
/// which at most `cap`. Where in between follows from the task and the attempt alone, so a reader comes to the same.
fn delay(task: TaskId, attempt: u16, retry: &Retry) -> u64 {
    let doubled =
        1u64.checked_shl(u32::from(attempt.saturating_sub(1))).and_then(|factor| retry.base.checked_mul(factor));
    let most = doubled.unwrap_or(u64::MAX).min(retry.cap);
    let digest = derive(Context::Jitter, &[&task.0, &attempt.to_be_bytes()]);
    let jitter = digest.0.iter().take(8).fold(0, |jitter: u64, byte| jitter << 8 | u64::from(*byte));
    // most · (½ + j/2), where j = jitter / 2^64.
    let scaled = u128::from(most) * ((1 << 64) + u128::from(jitter));
    u64::try_from(scaled >> 65).unwrap_or(most)
}

pub(crate) fn skip(state: &State, by: PrincipalId, cmd: Option<Cmd>, asked: &SkipTaskAsked) -> Result<Answer, Denial> {
    if !(1..=3).contains(&asked.why) {
        return Err(Denial::new(Code::Malformed).rule("why"));
    }
    let task = find(state, asked.task)?;
    if by != task.agent && !agent::has_right(cmd.as_ref()) {
        return Err(Denial::new(Code::NoGrant).need(agent::need_of(agent::find(state, task.agent)?)?));
    }
    if task.state != TaskState::Scheduled {
        return Err(not_from(task));
    }
    let body = TaskSkipped { cmd, task: asked.task, why: asked.why, because: asked.because };
    Ok(Body::TaskSkipped(body).into())
}

/// The task whose attempt an agent is at.
pub(crate) fn started(state: &State, by: PrincipalId, id: TaskId, attempt: u16) -> Result<&Task, Denial> {
    let task = find_of(state, id, by)?;
    if task.state != TaskState::Started {
        return Err(not_from(task));
    }
    if task.attempt != attempt {
        return Err(Denial::new(Code::IllegalTransition).rule("attempt"));
    }
    Ok(task)
}

pub(crate) fn find(state: &State, id: TaskId) -> Result<&Task, Denial> {
    state.tasks.get(&id).ok_or(Denial::new(Code::UnknownTask))
}

/// The task of this agent.
pub(crate) fn find_of(state: &State, id: TaskId, agent: AgentId) -> Result<&Task, Denial> {
    find(state, id).and_then(|task| if task.agent == agent { Ok(task) } else { Err(Denial::new(Code::UnknownTask)) })
}

pub(crate) fn not_from(task: &Task) -> Denial {
    Denial::new(Code::IllegalTransition).rule(task.state.name())
}
