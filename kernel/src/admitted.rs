//! What an executor is handed: a call that was admitted, and exactly what it may reach.

use crate::body::v1::CallAttempted;
use crate::capability::Scope;
use crate::decide::attempt::is_lost;
use crate::denial::Dim;
use crate::facts::Fact;
use crate::ids::{CallId, Digest, PrincipalId, Seq, SessionId, TimeUs};
use crate::limits::DIMENSIONS;
use crate::tool::{Effect, Model};

/// An admitted call. Its fields are private and only [`crate::State::apply`] makes one, so that nothing can run that was
/// not recorded.
#[derive(Clone, Debug)]
pub struct AdmittedCall {
    pub(crate) id: CallId,
    pub(crate) session: SessionId,
    pub(crate) seq: Seq,
    pub(crate) at: TimeUs,
    pub(crate) principal: PrincipalId,
    pub(crate) executor: PrincipalId,
    pub(crate) model: Model,
    pub(crate) effect: Effect,
    pub(crate) tool: String,
    pub(crate) digest: Digest,
    pub(crate) facts: Vec<Fact>,
    pub(crate) arguments: crate::entry::BlobRef,
    pub(crate) pieces: Vec<crate::entry::BlobRef>,
    pub(crate) envelope: Vec<Need>,
    pub(crate) caps: [Option<u64>; DIMENSIONS],
    pub(crate) deadline: TimeUs,
    pub(crate) expiry: TimeUs,
    pub(crate) timed_from: TimeUs,
    pub(crate) attempt: u16,
    pub(crate) not_before: TimeUs,
}

/// One need of an admitted call: the executor enforces exactly this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// What the call asked to reach.
    pub scope: Scope,
    /// What the grant that covers it reaches, met with the narrowing of the command.
    pub within: Scope,
}

impl AdmittedCall {
    /// The call.
    pub fn id(&self) -> CallId {
        self.id
    }

    /// Its session.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// The seq of the entry that admitted it.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// The time of that entry; tools take "today" from here.
    pub fn at(&self) -> TimeUs {
        self.at
    }

    /// Who asked.
    pub fn principal(&self) -> PrincipalId {
        self.principal
    }

    /// Who runs it and reports on it.
    pub fn executor(&self) -> PrincipalId {
        self.executor
    }

    /// Its execution model.
    pub fn model(&self) -> Model {
        self.model
    }

    /// What may be done about it after a crash.
    pub fn effect(&self) -> Effect {
        self.effect
    }

    /// The tool.
    pub fn tool(&self) -> &str {
        &self.tool
    }

    /// The digest of the tool's spec; what runs must have it.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The declared facts of its arguments.
    pub fn facts(&self) -> &[Fact] {
        &self.facts
    }

    /// The blob that holds its arguments.
    pub fn arguments(&self) -> crate::entry::BlobRef {
        self.arguments
    }

    /// The pieces of what is sent to a model, as far as no earlier call of the session brought them.
    pub fn pieces(&self) -> &[crate::entry::BlobRef] {
        &self.pieces
    }

    /// Its needs: first the tool itself, then each that the tool declares and its facts call for.
    pub fn envelope(&self) -> &[Need] {
        &self.envelope
    }

    /// The hard cap in a limited dimension; none where the tool declares no worst case.
    pub fn reserve(&self, dim: Dim) -> Option<u64> {
        self.caps[crate::budget::index_of(dim.number())?]
    }

    /// When it is stopped, in µs UTC.
    pub fn deadline(&self) -> TimeUs {
        self.deadline
    }

    /// From when its wall time counts, in µs UTC: it was admitted, or its last attempt was lost.
    pub fn timed_from(&self) -> TimeUs {
        self.timed_from
    }

    /// The attempt that is to run, from 1.
    pub fn attempt(&self) -> u16 {
        self.attempt
    }

    /// The attempt begins no earlier, in µs UTC; 0 for the first.
    pub fn not_before(&self) -> TimeUs {
        self.not_before
    }

    /// Moves on to the attempt that follows the one of which `attempted`, recorded at `at`, says that it came to nothing.
    /// What the call may reach stays as it is. After one that was lost its time begins anew.
    pub fn try_again(&mut self, attempted: &CallAttempted, at: TimeUs) {
        if attempted.call == self.id && attempted.attempt == self.attempt {
            self.attempt = self.attempt.saturating_add(1);
            self.not_before = attempted.not_before;
            if is_lost(attempted.cause) {
                self.timed_from = at;
                let wall = self.reserve(Dim::WallUs).filter(|wall| *wall > 0);
                self.deadline = wall.map_or(self.expiry, |wall| self.expiry.min(at.saturating_add(wall)));
            }
        }
    }
}
