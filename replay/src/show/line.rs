//! One entry as JSON.

use serde::Serialize;
use toka_kernel::event::Body;
use toka_kernel::ids::SessionId;
use toka_kernel::{BlobRef, Entry};

use crate::shown::{Shown, hex};
use crate::text::time;

/// What `--json` says of an entry: all of its header, and its body as it stands in the bytes.
#[derive(Debug, Serialize)]
pub(super) struct Line<'a> {
    pub(super) format: &'static str,
    pub(super) session: String,
    seq: u64,
    pub(super) byte_offset: u64,
    entry: String,
    prev: String,
    kind: u16,
    pub(super) kind_name: &'a str,
    body_schema: u16,
    flags: u8,
    time_us: u64,
    time: String,
    key_epoch: u32,
    signer: String,
    principal: String,
    pub(super) who: String,
    pub(super) what: &'a str,
    causes: &'a [u64],
    pub(super) blobs: Vec<Blob>,
    body_hash: String,
    /// Field names are those of the bytes.
    body: Option<Shown>,
    /// What a refused command asked.
    asked: Option<Shown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) raw: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Blob {
    size_grains: u32,
    commitment: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content: Option<String>,
}

impl<'a> Line<'a> {
    pub(super) fn of(session: SessionId, entry: &'a Entry, kind_name: &'a str, who: String, what: &'a str) -> Line<'a> {
        let header = entry.header();
        let asked = match entry.event().map(|event| &event.body) {
            Ok(Body::Refused(refused, _)) => Shown::of_body(&refused.body.0),
            Ok(
                Body::SessionOpened(_)
                | Body::StateCommitted(_)
                | Body::SessionClosed(_)
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
                | Body::SandboxProbed(_),
            )
            | Err(_) => None,
        };
        Line {
            format: "toka-show/1",
            session: session.to_string(),
            seq: header.seq,
            byte_offset: 0,
            entry: entry.hash().to_string(),
            prev: header.prev.to_string(),
            kind: header.kind,
            kind_name,
            body_schema: header.schema,
            flags: header.flags,
            time_us: header.time_us,
            time: time(header.time_us),
            key_epoch: header.key_epoch,
            signer: header.signer.to_string(),
            principal: header.principal.to_string(),
            who,
            what,
            causes: &header.causes,
            blobs: header.blobs.iter().map(Blob::of).collect(),
            body_hash: header.body_hash.to_string(),
            body: Shown::of_body(entry.body()),
            asked,
            raw: None,
        }
    }

    pub(super) fn raw(self, bytes: &[u8]) -> Line<'a> {
        Line { raw: Some(hex(bytes)), ..self }
    }
}

impl Blob {
    fn of(reference: &BlobRef) -> Blob {
        Blob { size_grains: reference.grains, commitment: reference.commitment.to_string(), content: None }
    }
}
