//! Which entries are shown.

use std::ops::RangeInclusive;

use toka_kernel::ids::{PrincipalId, Seq, SessionId};
use toka_kernel::{Ask, Body, Entry, Event};

use crate::names::Names;

/// Shows an entry only if all that is set holds. By default every entry is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of these sessions.
    pub sessions: Option<Vec<SessionId>>,
    /// Of this kind.
    pub kind: Option<u16>,
    /// From one seq to another, both included.
    pub seq: Option<RangeInclusive<Seq>>,
    /// Asked by this agent or about it: its name, or how its id begins.
    pub agent: Option<String>,
    /// About this tool.
    pub tool: Option<String>,
}

impl Filter {
    pub(super) fn takes_session(&self, session: SessionId) -> bool {
        self.sessions.as_ref().is_none_or(|wanted| wanted.contains(&session))
    }

    /// Whether anything after `seq` can be taken.
    pub(super) fn ends_before(&self, seq: Seq) -> bool {
        self.seq.as_ref().is_some_and(|range| *range.end() < seq)
    }

    /// Whether the bytes under `seq` are taken where they are no entry.
    pub(super) fn takes_bytes(&self, seq: Seq) -> bool {
        let any = self.kind.is_none() && self.agent.is_none() && self.tool.is_none();
        any && self.seq.as_ref().is_none_or(|range| range.contains(&seq))
    }

    pub(super) fn takes(&self, entry: &Entry, names: &Names) -> bool {
        let header = entry.header();
        self.kind.is_none_or(|kind| kind == header.kind)
            && self.seq.as_ref().is_none_or(|range| range.contains(&header.seq))
            && self.agent.as_ref().is_none_or(|wanted| {
                let about = entry.event().ok().and_then(|event| agent_of(entry, event));
                [Some(header.principal), about].into_iter().flatten().any(|id| is_called(id, wanted, names))
            })
            && self.tool.as_ref().is_none_or(|wanted| entry.event().is_ok_and(|event| is_about(event, wanted, names)))
    }
}

fn is_called(id: PrincipalId, wanted: &str, names: &Names) -> bool {
    names.of(id) == wanted || wanted.len() >= 4 && id.to_string().starts_with(wanted)
}

/// The agent that an event is about.
fn agent_of(entry: &Entry, event: &Event) -> Option<PrincipalId> {
    match &event.body {
        Body::AgentSpawned(_) => Some(PrincipalId(toka_kernel::ids::derived(entry.session(), entry.header().seq, 0))),
        Body::AgentStarted(started) => Some(started.agent),
        Body::AgentPaused(paused) => Some(paused.agent),
        Body::AgentResumed(resumed) => Some(resumed.agent),
        Body::AgentStopping(stopping) => Some(stopping.agent),
        Body::AgentEnded(ended) => Some(ended.agent),
        Body::TaskScheduled(scheduled) => Some(scheduled.agent),
        Body::MessageSent(sent) => Some(sent.to),
        Body::SessionOpened(_)
        | Body::StateCommitted(_)
        | Body::SessionClosed(_)
        | Body::Refused(..)
        | Body::GrantIssued(_)
        | Body::GrantRevoked(_)
        | Body::ToolBound(_)
        | Body::CallAdmitted(_)
        | Body::CallFinished(_)
        | Body::SessionRegistered(_)
        | Body::SessionEnded(_)
        | Body::ToolRegistered(_)
        | Body::ToolApproved(_)
        | Body::ToolQuarantined(_)
        | Body::ToolUnbound(_)
        | Body::OutcomeResolved(_)
        | Body::PrincipalAdded(_)
        | Body::TaskStarted(_)
        | Body::TaskCompleted(_)
        | Body::TaskFailed(_)
        | Body::TaskSkipped(_)
        | Body::MessageTaken(_)
        | Body::CallAttempted(_)
        | Body::CancelRequested(_)
        | Body::Observed(_)
        | Body::SandboxProbed(_) => None,
    }
}

fn is_about(event: &Event, tool: &str, names: &Names) -> bool {
    match &event.body {
        Body::CallAdmitted(admitted) => admitted.tool == tool,
        Body::CallFinished(finished) => names.tool(finished.call) == tool,
        Body::ToolBound(bound) => bound.tools.iter().any(|binding| binding.tool.name == tool),
        Body::ToolRegistered(registered) => registered.tool.name == tool,
        Body::ToolApproved(approved) => approved.name == tool,
        Body::ToolQuarantined(found) => found.name == tool,
        Body::ToolUnbound(unbound) => unbound.name == tool,
        Body::CallAttempted(attempted) => names.tool(attempted.call) == tool,
        Body::CancelRequested(cancelled) => names.tool(cancelled.call) == tool,
        Body::OutcomeResolved(resolved) => names.tool(resolved.call) == tool,
        Body::Refused(_, ask) => match ask.as_ref() {
            Ask::Call(asked) => asked.tool == tool,
            Ask::BindTool(asked) => asked.tools.iter().any(|binding| binding.tool.name == tool),
            Ask::RegisterTool(asked) => asked.tool.name == tool,
            Ask::ApproveTool(asked) => asked.name == tool,
            Ask::QuarantineTool(asked) => asked.name == tool,
            Ask::UnbindTool(asked) => asked.name == tool,
            Ask::CommitState(_)
            | Ask::CloseSession(_)
            | Ask::SpawnAgent(_)
            | Ask::StartAgent(_)
            | Ask::PauseAgent(_)
            | Ask::ResumeAgent(_)
            | Ask::StopAgent(_)
            | Ask::EndAgent(_)
            | Ask::ScheduleTask(_)
            | Ask::StartTask(_)
            | Ask::CompleteTask(_)
            | Ask::FailTask(_)
            | Ask::SkipTask(_)
            | Ask::SendMessage(_)
            | Ask::TakeMessage(_)
            | Ask::Grant(_)
            | Ask::Revoke(_)
            | Ask::Report(_)
            | Ask::ReportAttempt(_)
            | Ask::CancelCall(_)
            | Ask::OpenSession(_)
            | Ask::EndSession(_)
            | Ask::ResolveOutcome(_)
            | Ask::AddPrincipal(_)
            | Ask::Observe(_)
            | Ask::RecordProbe(_) => false,
        },
        Body::SessionOpened(_)
        | Body::StateCommitted(_)
        | Body::SessionClosed(_)
        | Body::AgentSpawned(_)
        | Body::AgentStarted(_)
        | Body::AgentEnded(_)
        | Body::GrantIssued(_)
        | Body::GrantRevoked(_)
        | Body::SessionRegistered(_)
        | Body::SessionEnded(_)
        | Body::PrincipalAdded(_)
        | Body::AgentPaused(_)
        | Body::AgentResumed(_)
        | Body::AgentStopping(_)
        | Body::TaskScheduled(_)
        | Body::TaskStarted(_)
        | Body::TaskCompleted(_)
        | Body::TaskFailed(_)
        | Body::TaskSkipped(_)
        | Body::MessageSent(_)
        | Body::MessageTaken(_)
        | Body::Observed(_)
        | Body::SandboxProbed(_) => false,
    }
}
