//! Schema 1 of what agents do beside calling tools: they are paused and stopped, have tasks and send messages; and of
//! what happens to a call before it ends.

use serde::{Deserialize, Serialize};

use super::{Blob, Cmd, Retry};
use crate::ids::{AgentId, CallId, Digest, MessageId, TaskId, TimeUs};

frozen! {
    /// Kind 0x0203: an agent, and all below it, does nothing new.
    AgentPaused {
        /// The command.
        cmd "cmd": Option<Cmd>,
        /// The agent.
        agent "agt": AgentId,
        /// 1 asked, 2 ancestor, 3 budget, 4 DIVERGED, 5 DRIVER_UNSUPPORTED, 6 dependency, 7 timeout, 8 policy stop_all.
        why "why": u8,
        /// Free text.
        reason "rsn": Option<Blob>,
    }

    /// Kind 0x0204: an agent goes on.
    AgentResumed {
        /// The command.
        cmd "cmd": Option<Cmd>,
        /// The agent.
        agent "agt": AgentId,
    }

    /// Kind 0x0205: an agent, and all below it, comes to its end.
    AgentStopping {
        /// The command.
        cmd "cmd": Option<Cmd>,
        /// The agent.
        agent "agt": AgentId,
        /// As of a pause.
        why "why": u8,
        /// Free text.
        reason "rsn": Option<Blob>,
    }

    /// Kind 0x0301: a task of an agent.
    TaskScheduled {
        /// The command.
        cmd "cmd": Option<Cmd>,
        /// The agent.
        agent "agt": AgentId,
        /// The name of the task.
        name "name": String,
        /// What is to be done.
        text "text": Option<Blob>,
        /// Tasks of the agent that must have completed before, at most 64.
        requires "req": Vec<TaskId>,
        /// 1 critical, 2 high, 3 medium, 4 low.
        priority "prio": u8,
        /// How long one attempt may take, in µs.
        timeout_us "tmo": u64,
        /// How it is tried again; `max` is the number of attempts.
        retry "rtry": Retry,
    }

    /// Kind 0x0302: an attempt of a task begins.
    TaskStarted {
        /// The command.
        cmd "cmd": Option<Cmd>,
        /// The task.
        task "task": TaskId,
        /// The attempt, from 1.
        attempt "att": u16,
    }

    /// Kind 0x0303: a task is done.
    TaskCompleted {
        /// The command.
        cmd "cmd": Option<Cmd>,
        /// The task.
        task "task": TaskId,
        /// The attempt.
        attempt "att": u16,
        /// What came of it.
        result "res": Option<Blob>,
    }

    /// Kind 0x0304: an attempt of a task has failed.
    TaskFailed {
        /// The command.
        cmd "cmd": Option<Cmd>,
        /// The task.
        task "task": TaskId,
        /// The attempt.
        attempt "att": u16,
        /// The end code.
        code "code": u16,
        /// Whether trying again may help.
        retryable "rtbl": bool,
        /// When it may be tried again; none where it is not.
        not_before "nbf": Option<TimeUs>,
    }

    /// Kind 0x0307: a task is not to be done.
    TaskSkipped {
        /// The command.
        cmd "cmd": Option<Cmd>,
        /// The task.
        task "task": TaskId,
        /// 1 dependency, 2 condition, 3 stopped.
        why "why": u8,
        /// The task or agent because of which.
        because "bec": Option<Digest>,
    }

    /// Kind 0x0401: a message to an agent.
    MessageSent {
        /// The command.
        cmd "cmd": Option<Cmd>,
        /// The agent.
        to "to": AgentId,
        /// What it says, at most 1 MiB.
        content "cont": Blob,
        /// The message it answers.
        reply_to "rpl": Option<MessageId>,
    }

    /// Kind 0x0402: the receiver has read a message.
    MessageTaken {
        /// The command.
        cmd "cmd": Option<Cmd>,
        /// The message.
        message "msg": MessageId,
    }

    /// Kind 0x0704: an attempt of a call came to nothing, and another follows.
    CallAttempted {
        /// The command.
        cmd "cmd": Option<Cmd>,
        /// The call.
        call "call": CallId,
        /// The attempt that came to nothing, from 1.
        attempt "att": u16,
        /// 1 status, 2 connect, 3 deadline, 4 cut, 5 reply, 6 crash, 7 lost.
        cause "caus": u8,
        /// The HTTP status; 0 where there was none.
        status "stat": u16,
        /// The next one does not begin before.
        not_before "nbf": TimeUs,
        /// What a model had taken by then.
        usage "use": Option<AttemptUsage>,
        /// What had arrived by then.
        part "part": Option<Blob>,
    }

    /// What an attempt of a model call took.
    AttemptUsage {
        /// Tokens in.
        tokens_in "tin": u64,
        /// Of these from a cache.
        tokens_cached "tcch": u64,
        /// Tokens out.
        tokens_out "tout": u64,
    }

    /// Kind 0x0705: a call is to be stopped.
    CancelRequested {
        /// The command.
        cmd "cmd": Option<Cmd>,
        /// The call.
        call "call": CallId,
        /// 1 asked, 2 revoked, 3 session closing, 4 task ended.
        why "why": u8,
        /// Free text.
        reason "rsn": Option<Blob>,
    }

    /// What `PauseAgent` asks.
    PauseAsked {
        /// The agent.
        agent "agt": AgentId,
        /// 1 asked, 2 ancestor, 3 budget, 4 DIVERGED, 5 DRIVER_UNSUPPORTED, 6 dependency, 7 timeout, 8 policy stop_all.
        why "why": u8,
        /// Free text.
        reason "rsn": Option<Blob>,
    }

    /// What `ResumeAgent` asks.
    ResumeAsked {
        /// The agent.
        agent "agt": AgentId,
    }

    /// What `StopAgent` asks.
    StopAsked {
        /// The agent.
        agent "agt": AgentId,
        /// As of a pause.
        why "why": u8,
        /// Free text.
        reason "rsn": Option<Blob>,
    }

    /// What `ScheduleTask` asks.
    ScheduleAsked {
        /// The agent.
        agent "agt": AgentId,
        /// The name of the task.
        name "name": String,
        /// What is to be done.
        text "text": Option<Blob>,
        /// Tasks of the agent that must have completed before, at most 64.
        requires "req": Vec<TaskId>,
        /// 1 critical, 2 high, 3 medium, 4 low.
        priority "prio": u8,
        /// How long one attempt may take, in µs.
        timeout_us "tmo": u64,
        /// How it is tried again; `max` is the number of attempts.
        retry "rtry": Retry,
    }

    /// What `StartTask` asks.
    StartTaskAsked {
        /// The task.
        task "task": TaskId,
        /// The attempt, from 1.
        attempt "att": u16,
    }

    /// What `CompleteTask` asks.
    CompleteTaskAsked {
        /// The task.
        task "task": TaskId,
        /// The attempt.
        attempt "att": u16,
        /// What came of it.
        result "res": Option<Blob>,
    }

    /// What `FailTask` asks.
    FailTaskAsked {
        /// The task.
        task "task": TaskId,
        /// The attempt.
        attempt "att": u16,
        /// The end code.
        code "code": u16,
        /// Whether trying again may help.
        retryable "rtbl": bool,
    }

    /// What `SkipTask` asks.
    SkipTaskAsked {
        /// The task.
        task "task": TaskId,
        /// 1 dependency, 2 condition, 3 stopped.
        why "why": u8,
        /// The task or agent because of which.
        because "bec": Option<Digest>,
    }

    /// What `SendMessage` asks.
    SendAsked {
        /// The agent.
        to "to": AgentId,
        /// What it says, at most 1 MiB.
        content "cont": Blob,
        /// The message it answers.
        reply_to "rpl": Option<MessageId>,
    }

    /// What `TakeMessage` asks.
    TakeAsked {
        /// The message.
        message "msg": MessageId,
    }

    /// What `ReportAttempt` asks.
    AttemptAsked {
        /// The call.
        call "call": CallId,
        /// The attempt that came to nothing, from 1.
        attempt "att": u16,
        /// 1 status, 2 connect, 3 deadline, 4 cut, 5 reply, 6 crash, 7 lost.
        cause "caus": u8,
        /// The HTTP status; 0 where there was none.
        status "stat": u16,
        /// The next one does not begin before.
        not_before "nbf": TimeUs,
        /// What a model had taken by then.
        usage "use": Option<AttemptUsage>,
        /// What had arrived by then.
        part "part": Option<Blob>,
    }

    /// What `CancelCall` asks.
    CancelAsked {
        /// The call.
        call "call": CallId,
        /// 1 asked, 2 revoked, 3 session closing, 4 task ended.
        why "why": u8,
        /// Free text.
        reason "rsn": Option<Blob>,
    }
}
