//! The command that each event implies: what the event says without what `decide` fills.

use super::Ask;
use crate::body::v1::{
    AddPrincipalAsked, AgentEnded, AgentPaused, AgentResumed, AgentSpawned, AgentStarted, AgentStopping,
    ApproveToolAsked, AttemptAsked, BindAsked, CallAdmitted, CallAsked, CallAttempted, CallFinished, CancelAsked,
    CancelRequested, CloseAsked, CommitAsked, CompleteTaskAsked, EndAsked, EndSessionAsked, FailTaskAsked, GrantAsked,
    GrantIssued, GrantRevoked, GrantTo, IssueAsked, MessageSent, MessageTaken, ObserveAsked, Observed,
    OpenSessionAsked, OutcomeResolved, PauseAsked, PrincipalAdded, ProbeAsked, QuarantineToolAsked, RegisterToolAsked,
    ReportAsked, ResolveAsked, ResumeAsked, RevokeAsked, RootAsked, SandboxProbed, ScheduleAsked, SendAsked,
    SessionClosed, SessionEnded, SessionRegistered, SkipTaskAsked, SpawnAsked, StartAsked, StartTaskAsked,
    StateCommitted, StopAsked, TakeAsked, TaskCompleted, TaskFailed, TaskScheduled, TaskSkipped, TaskStarted,
    ToolApproved, ToolBound, ToolQuarantined, ToolRegistered, ToolUnbound, UnbindAsked,
};

impl Ask {
    pub(crate) fn of_state_committed(_: &StateCommitted) -> Ask {
        Ask::CommitState(CommitAsked {})
    }

    pub(crate) fn of_session_closed(event: &SessionClosed) -> Ask {
        Ask::CloseSession(CloseAsked { why: event.why, reason: event.reason })
    }

    pub(crate) fn of_agent_spawned(event: &AgentSpawned) -> Ask {
        Ask::SpawnAgent(Box::new(SpawnAsked {
            spec: event.spec.clone(),
            text: event.text,
            spec_digest: event.spec_digest,
            driver: event.driver,
            seed: event.seed,
            grant: event.grant,
            need_grants: event.need_grants.clone(),
            asked: event.asked.clone(),
            narrow: texts(&event.narrow),
            grants: event
                .grants
                .iter()
                .map(|grant| GrantAsked { parent: grant.parent, cap: grant.cap.to_string() })
                .collect(),
            dropped: event.dropped.clone(),
            plan: event.plan.clone(),
        }))
    }

    pub(crate) fn of_agent_started(event: &AgentStarted) -> Ask {
        Ask::StartAgent(StartAsked { agent: event.agent })
    }

    pub(crate) fn of_agent_ended(event: &AgentEnded) -> Ask {
        Ask::EndAgent(EndAsked { agent: event.agent, how: event.how, code: event.code })
    }

    pub(crate) fn of_grant_issued(event: &GrantIssued) -> Ask {
        let grant = &event.grant;
        Ask::Grant(IssueAsked {
            grant: GrantTo { parent: grant.parent, cap: grant.cap.to_string(), to: grant.subject },
        })
    }

    pub(crate) fn of_grant_revoked(event: &GrantRevoked) -> Ask {
        Ask::Revoke(RevokeAsked { grant: event.grant, reason: event.reason })
    }

    pub(crate) fn of_tool_bound(event: &ToolBound) -> Ask {
        Ask::BindTool(BindAsked { tools: event.tools.clone() })
    }

    pub(crate) fn of_call_admitted(event: &CallAdmitted) -> Ask {
        Ask::Call(Box::new(CallAsked {
            tool: event.tool.clone(),
            digest: event.digest,
            grant: event.grant,
            need_grants: event.need_grants.clone(),
            facts: event.facts.clone(),
            extra: event.extra,
            args: event.args,
            asked: event.asked.clone(),
            narrow: texts(&event.narrow),
            task: event.task,
            parent: event.parent,
            unfit: None,
            detail: None,
        }))
    }

    pub(crate) fn of_call_finished(event: &CallFinished) -> Ask {
        Ask::Report(Box::new(ReportAsked {
            call: event.call,
            attempt: event.attempt,
            outcome: event.outcome.clone(),
            actual: event.actual.clone(),
            stdout: event.stdout,
            stderr: event.stderr,
            result: event.result,
            record: event.record,
            sandbox: event.sandbox.clone(),
            wasm: event.wasm.clone(),
            of: event.of,
            usage: event.usage.clone(),
        }))
    }

    pub(crate) fn of_session_registered(event: &SessionRegistered) -> Ask {
        let root = |root: &crate::body::v1::Root| RootAsked { from: root.from, cap: root.cap.to_string() };
        Ask::OpenSession(Box::new(OpenSessionAsked {
            session: event.session,
            opener: event.opener,
            roots: event.roots.iter().map(root).collect(),
        }))
    }

    pub(crate) fn of_session_ended(event: &SessionEnded) -> Ask {
        Ask::EndSession(EndSessionAsked {
            session: event.session,
            how: event.how,
            head: event.head.clone(),
            spent: event.spent.clone(),
        })
    }

    pub(crate) fn of_tool_registered(event: &ToolRegistered) -> Ask {
        let asked = RegisterToolAsked { tool: event.tool.clone(), file: event.file, state: event.state };
        Ask::RegisterTool(Box::new(asked))
    }

    pub(crate) fn of_tool_approved(event: &ToolApproved) -> Ask {
        Ask::ApproveTool(ApproveToolAsked { name: event.name.clone(), digest: event.digest })
    }

    pub(crate) fn of_tool_quarantined(event: &ToolQuarantined) -> Ask {
        Ask::QuarantineTool(QuarantineToolAsked {
            name: event.name.clone(),
            digest: event.digest,
            why: event.why,
            seen: event.seen,
        })
    }

    pub(crate) fn of_tool_unbound(event: &ToolUnbound) -> Ask {
        Ask::UnbindTool(UnbindAsked {
            name: event.name.clone(),
            digest: event.digest,
            why: event.why,
            cite: event.cite,
        })
    }

    pub(crate) fn of_outcome_resolved(event: &OutcomeResolved) -> Ask {
        Ask::ResolveOutcome(ResolveAsked { call: event.call, verdict: event.verdict, evidence: event.evidence })
    }

    pub(crate) fn of_principal_added(event: &PrincipalAdded) -> Ask {
        let keys = event.keys.clone();
        Ask::AddPrincipal(AddPrincipalAsked { kind: event.kind, custody: event.custody, keys })
    }

    pub(crate) fn of_observed(event: &Observed) -> Ask {
        Ask::Observe(ObserveAsked {
            what: event.what,
            subject: event.subject,
            call: event.call,
            count: event.count,
            detail: event.detail,
        })
    }

    pub(crate) fn of_sandbox_probed(event: &SandboxProbed) -> Ask {
        Ask::RecordProbe(ProbeAsked {
            levels: event.levels,
            layers: event.layers,
            landlock_abi: event.landlock_abi,
            jail: event.jail,
            kernel: event.kernel.clone(),
        })
    }

    pub(crate) fn of_agent_paused(event: &AgentPaused) -> Ask {
        Ask::PauseAgent(PauseAsked { agent: event.agent, why: event.why, reason: event.reason })
    }

    pub(crate) fn of_agent_resumed(event: &AgentResumed) -> Ask {
        Ask::ResumeAgent(ResumeAsked { agent: event.agent })
    }

    pub(crate) fn of_agent_stopping(event: &AgentStopping) -> Ask {
        Ask::StopAgent(StopAsked { agent: event.agent, why: event.why, reason: event.reason })
    }

    pub(crate) fn of_task_scheduled(event: &TaskScheduled) -> Ask {
        Ask::ScheduleTask(ScheduleAsked {
            agent: event.agent,
            name: event.name.clone(),
            text: event.text,
            requires: event.requires.clone(),
            priority: event.priority,
            timeout_us: event.timeout_us,
            retry: event.retry.clone(),
        })
    }

    pub(crate) fn of_task_started(event: &TaskStarted) -> Ask {
        Ask::StartTask(StartTaskAsked { task: event.task, attempt: event.attempt })
    }

    pub(crate) fn of_task_completed(event: &TaskCompleted) -> Ask {
        Ask::CompleteTask(CompleteTaskAsked { task: event.task, attempt: event.attempt, result: event.result })
    }

    pub(crate) fn of_task_failed(event: &TaskFailed) -> Ask {
        Ask::FailTask(FailTaskAsked {
            task: event.task,
            attempt: event.attempt,
            code: event.code,
            retryable: event.retryable,
        })
    }

    pub(crate) fn of_task_skipped(event: &TaskSkipped) -> Ask {
        Ask::SkipTask(SkipTaskAsked { task: event.task, why: event.why, because: event.because })
    }

    pub(crate) fn of_message_sent(event: &MessageSent) -> Ask {
        Ask::SendMessage(SendAsked { to: event.to, content: event.content, reply_to: event.reply_to })
    }

    pub(crate) fn of_message_taken(event: &MessageTaken) -> Ask {
        Ask::TakeMessage(TakeAsked { message: event.message })
    }

    pub(crate) fn of_call_attempted(event: &CallAttempted) -> Ask {
        Ask::ReportAttempt(AttemptAsked {
            call: event.call,
            attempt: event.attempt,
            cause: event.cause,
            status: event.status,
            not_before: event.not_before,
            usage: event.usage.clone(),
            part: event.part,
        })
    }

    pub(crate) fn of_cancel_requested(event: &CancelRequested) -> Ask {
        Ask::CancelCall(CancelAsked { call: event.call, why: event.why, reason: event.reason })
    }
}

fn texts(caps: &[Option<crate::capability::Capability>]) -> Vec<Option<String>> {
    caps.iter().map(|cap| cap.as_ref().map(ToString::to_string)).collect()
}
