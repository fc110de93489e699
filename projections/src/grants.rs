//! The grants of a session.

use std::collections::BTreeMap;

use toka_kernel::body::v1::Grant;
use toka_kernel::capability::Capability;
use toka_kernel::ids::{GrantId, PrincipalId, Seq, SessionId, derived};
use toka_kernel::{Body, Entry, Event};

/// The grants of a session in the order of their making.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grants {
    rows: Vec<GrantRow>,
    by_id: BTreeMap<GrantId, usize>,
    by_subject: BTreeMap<PrincipalId, Vec<usize>>,
}

/// A grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantRow {
    /// Its id.
    pub id: GrantId,
    /// The grant it derives from; none for a root.
    pub parent: Option<GrantId>,
    /// Who issued it.
    pub issuer: PrincipalId,
    /// Who holds it.
    pub subject: PrincipalId,
    /// What may be done.
    pub cap: Capability,
    /// The entry that made it.
    pub issued_at: Seq,
    /// The entry that revoked it, if one did.
    pub revoked_at: Option<Seq>,
}

impl Grants {
    /// The grant of this id.
    pub fn get(&self, id: GrantId) -> Option<&GrantRow> {
        self.by_id.get(&id).map(|at| &self.rows[*at])
    }

    /// The grants that `subject` holds and that were not revoked themselves, oldest first.
    pub fn held_by(&self, subject: PrincipalId) -> impl Iterator<Item = &GrantRow> {
        let held = self.by_subject.get(&subject).map_or(&[][..], Vec::as_slice);
        held.iter().map(|at| &self.rows[*at]).filter(|row| row.revoked_at.is_none())
    }

    /// Every grant, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &GrantRow> {
        self.rows.iter()
    }

    pub(crate) fn fold(&mut self, entry: &Entry, event: &Event) {
        let (session, seq) = (entry.session(), entry.header().seq);
        match &event.body {
            Body::SessionOpened(genesis) => {
                let derived_ids = genesis.principals.iter().filter(|listed| listed.id.is_none()).count();
                self.add_all(session, seq, derived_ids, &genesis.grants);
            }
            Body::AgentSpawned(spawned) => self.add_all(session, seq, 1, &spawned.grants),
            Body::GrantIssued(issued) => self.add_all(session, seq, 0, std::slice::from_ref(&issued.grant)),
            Body::GrantRevoked(revoked) => {
                if let Some(at) = self.by_id.get(&revoked.grant) {
                    self.rows[*at].revoked_at.get_or_insert(seq);
                }
            }
            Body::StateCommitted(_)
            | Body::SessionClosed(_)
            | Body::Refused(..)
            | Body::AgentStarted(_)
            | Body::AgentEnded(_)
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

    fn add_all(&mut self, session: SessionId, seq: Seq, first: usize, grants: &[Grant]) {
        for (ordinal, grant) in (first..).zip(grants) {
            let Ok(ordinal) = u32::try_from(ordinal) else { return };
            let row = GrantRow {
                id: GrantId(derived(session, seq, ordinal)),
                parent: grant.parent,
                issuer: grant.issuer,
                subject: grant.subject,
                cap: grant.cap.clone(),
                issued_at: seq,
                revoked_at: None,
            };
            self.by_id.insert(row.id, self.rows.len());
            self.by_subject.entry(row.subject).or_default().push(self.rows.len());
            self.rows.push(row);
        }
    }
}
