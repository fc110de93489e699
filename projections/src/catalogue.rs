//! The tools that the system session knows, whether they may be bound, and where their specs are.

use std::collections::BTreeMap;

use toka_kernel::ids::{Commitment, Digest, Seq};
use toka_kernel::{Body, Entry, Event, ToolState};

/// The tools of the system session, by name. Empty in every other session.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalogue(BTreeMap<String, KnownTool>);

/// A tool of the system session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownTool {
    /// The digest of its spec.
    pub digest: Digest,
    /// The digest of the file that describes it.
    pub file: Digest,
    /// The blob that holds the whole spec.
    pub text: Commitment,
    /// Where it stands.
    pub state: ToolState,
    /// The entry that registered it under this digest.
    pub registered_at: Seq,
    /// The entry that brought it where it stands.
    pub changed_at: Seq,
}

impl Catalogue {
    /// The tool of this name.
    pub fn get(&self, name: &str) -> Option<&KnownTool> {
        self.0.get(name)
    }

    /// Every tool, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &KnownTool)> {
        self.0.iter().map(|(name, row)| (name.as_str(), row))
    }

    pub(crate) fn fold(&mut self, entry: &Entry, event: &Event) {
        let seq = entry.header().seq;
        match &event.body {
            Body::ToolRegistered(registered) => {
                let tool = &registered.tool;
                let text = event.blobs.get(usize::from(tool.text));
                let (Some(text), Some(state)) = (text, ToolState::from_number(registered.state)) else { return };
                let row = KnownTool {
                    digest: tool.digest,
                    file: registered.file,
                    text: text.commitment,
                    state,
                    registered_at: seq,
                    changed_at: seq,
                };
                self.0.insert(tool.name.clone(), row);
            }
            Body::ToolApproved(approved) => self.move_to(&approved.name, ToolState::Approved, seq),
            Body::ToolQuarantined(found) => self.move_to(&found.name, ToolState::Quarantined, seq),
            Body::SessionOpened(_)
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
            | Body::CallFinished(_)
            | Body::SessionRegistered(_)
            | Body::SessionEnded(_)
            | Body::ToolUnbound(_)
            | Body::OutcomeResolved(_)
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
            | Body::CallAttempted(_)
            | Body::CancelRequested(_)
            | Body::Observed(_)
            | Body::SandboxProbed(_) => {}
        }
    }

    fn move_to(&mut self, name: &str, state: ToolState, seq: Seq) {
        if let Some(row) = self.0.get_mut(name) {
            row.state = state;
            row.changed_at = seq;
        }
    }
}
