//! What principals and calls are called, as far as the entries before say it.

use std::collections::BTreeMap;

use toka_kernel::ids::{CallId, PrincipalId, TaskId, derived};
use toka_kernel::{Body, Entry, Event, PrincipalKind};
use toka_projections::Known;

/// Names learned while going through a session.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    principals: BTreeMap<PrincipalId, String>,
    /// How many agents of one spec there were.
    specs: BTreeMap<String, u64>,
    /// The tools of calls that are open.
    calls: BTreeMap<CallId, String>,
    /// The names of tasks that have not ended.
    tasks: BTreeMap<TaskId, String>,
}

impl Known for Names {
    fn name(&self, id: PrincipalId) -> String {
        self.of(id)
    }

    fn tool(&self, call: CallId) -> String {
        Names::tool(self, call)
    }

    fn task(&self, task: TaskId) -> String {
        self.tasks.get(&task).cloned().unwrap_or_else(|| task.short())
    }
}

impl Names {
    pub(crate) fn of(&self, id: PrincipalId) -> String {
        if id == PrincipalId::NODE {
            return "node".to_owned();
        }
        self.principals.get(&id).cloned().unwrap_or_else(|| id.short())
    }

    pub(crate) fn tool(&self, call: CallId) -> String {
        self.calls.get(&call).cloned().unwrap_or_else(|| format!("call {}", call.short()))
    }

    pub(crate) fn learn(&mut self, entry: &Entry, event: &Event) {
        let made = |ordinal| derived(entry.session(), entry.header().seq, ordinal);
        match &event.body {
            Body::SessionOpened(genesis) => {
                for listed in &genesis.principals {
                    let Some(id) = listed.id else { continue };
                    let name = match listed.kind {
                        _ if id == genesis.opener => "opener".to_owned(),
                        3 | 4 => toka_projections::service_word(listed.kind, listed.models).to_owned(),
                        _ => continue,
                    };
                    self.principals.insert(id, name);
                }
            }
            Body::AgentSpawned(spawned) => {
                let known = self.specs.entry(spawned.spec.clone()).or_default();
                *known += 1;
                let name = if *known == 1 { spawned.spec.clone() } else { format!("{}#{known}", spawned.spec) };
                self.principals.insert(PrincipalId(made(0)), name);
            }
            Body::PrincipalAdded(added) => {
                let id = PrincipalId(made(0));
                let kind = PrincipalKind::from_number(added.kind).map_or("principal", PrincipalKind::name);
                self.principals.insert(id, format!("{kind} {}", id.short()));
            }
            Body::TaskScheduled(scheduled) => {
                self.tasks.insert(TaskId(made(0)), scheduled.name.clone());
            }
            Body::CallAdmitted(admitted) => {
                self.calls.insert(CallId(made(0)), admitted.tool.clone());
            }
            Body::StateCommitted(_)
            | Body::SessionClosed(_)
            | Body::Refused(..)
            | Body::AgentStarted(_)
            | Body::AgentEnded(_)
            | Body::GrantIssued(_)
            | Body::GrantRevoked(_)
            | Body::ToolBound(_)
            | Body::CallFinished(_)
            | Body::SessionRegistered(_)
            | Body::SessionEnded(_)
            | Body::ToolRegistered(_)
            | Body::ToolApproved(_)
            | Body::ToolQuarantined(_)
            | Body::ToolUnbound(_)
            | Body::OutcomeResolved(_)
            | Body::AgentPaused(_)
            | Body::AgentResumed(_)
            | Body::AgentStopping(_)
            | Body::TaskStarted(_)
            | Body::TaskCompleted(_)
            | Body::TaskFailed(_)
            | Body::TaskSkipped(_)
            | Body::MessageSent(_)
            | Body::MessageTaken(_)
            | Body::CallAttempted(_)
            | Body::CancelRequested(_)
            | Body::Observed(_)
            | Body::SandboxProbed(_) => {}
        }
    }

    /// Forgets what no later entry can name, once an entry was shown.
    pub(crate) fn forget(&mut self, event: &Event) {
        match &event.body {
            // An outcome that nobody knows is settled by a later entry.
            Body::CallFinished(finished) if !matches!(finished.outcome.kind, 10 | 11) => {
                self.calls.remove(&finished.call);
            }
            Body::TaskCompleted(completed) => {
                self.tasks.remove(&completed.task);
            }
            Body::TaskFailed(failed) if failed.not_before.is_none() => {
                self.tasks.remove(&failed.task);
            }
            Body::TaskSkipped(skipped) => {
                self.tasks.remove(&skipped.task);
            }
            Body::OutcomeResolved(resolved) => {
                self.calls.remove(&resolved.call);
            }
            Body::CallFinished(_)
            | Body::SessionOpened(_)
            | Body::StateCommitted(_)
            | Body::SessionClosed(_)
            | Body::Refused(..)
            | Body::AgentSpawned(_)
            | Body::AgentStarted(_)
            | Body::AgentEnded(_)
            | Body::GrantIssued(_)
            | Body::GrantRevoked(_)
            | Body::ToolBound(_)
            | Body::CallAdmitted(_)
            | Body::SessionRegistered(_)
            | Body::SessionEnded(_)
            | Body::ToolRegistered(_)
            | Body::ToolApproved(_)
            | Body::ToolQuarantined(_)
            | Body::ToolUnbound(_)
            | Body::PrincipalAdded(_)
            | Body::AgentPaused(_)
            | Body::AgentResumed(_)
            | Body::AgentStopping(_)
            | Body::TaskScheduled(_)
            | Body::TaskStarted(_)
            | Body::TaskFailed(_)
            | Body::MessageSent(_)
            | Body::MessageTaken(_)
            | Body::CallAttempted(_)
            | Body::CancelRequested(_)
            | Body::Observed(_)
            | Body::SandboxProbed(_) => {}
        }
    }
}
