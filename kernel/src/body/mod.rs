//! Bodies: frozen structs per schema, the registry of kinds, and the strict codec.
//!
//! A body is named msgpack. Decoding is a shape walk without allocation, then serde, then encoding again and comparing
//! the bytes, so that one event has one encoding.

pub mod v1;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::event::{BodyFault, kind};
use crate::hash::{Context, derive};
use crate::ids::Digest;
use crate::limits::{BODY_BYTES_MAX, BODY_DEPTH_MAX, BODY_ITEMS_MAX};

/// A kind of event as this version writes it.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// The registry number.
    pub number: u16,
    /// The name of the event.
    pub name: &'static str,
    /// The name of the command it answers.
    pub command: &'static str,
    /// The newest schema.
    pub schema: u16,
    /// Field names as they stand in the bytes, in order.
    pub fields: &'static [&'static str],
}

/// Every kind this version writes, by number.
pub const KINDS: &[Kind] = &[
    kind_row(kind::SESSION_OPENED, "SessionOpened", "Genesis", v1::SessionOpened::FIELDS),
    kind_row(kind::STATE_COMMITTED, "StateCommitted", "CommitState", v1::StateCommitted::FIELDS),
    kind_row(kind::SESSION_CLOSED, "SessionClosed", "CloseSession", v1::SessionClosed::FIELDS),
    kind_row(kind::SESSION_REGISTERED, "SessionRegistered", "OpenSession", v1::SessionRegistered::FIELDS),
    kind_row(kind::SESSION_ENDED, "SessionEnded", "EndSession", v1::SessionEnded::FIELDS),
    kind_row(kind::REFUSED, "Refused", "any", v1::Refused::FIELDS),
    kind_row(kind::AGENT_SPAWNED, "AgentSpawned", "SpawnAgent", v1::AgentSpawned::FIELDS),
    kind_row(kind::AGENT_STARTED, "AgentStarted", "StartAgent", v1::AgentStarted::FIELDS),
    kind_row(kind::AGENT_PAUSED, "AgentPaused", "PauseAgent", v1::AgentPaused::FIELDS),
    kind_row(kind::AGENT_RESUMED, "AgentResumed", "ResumeAgent", v1::AgentResumed::FIELDS),
    kind_row(kind::AGENT_STOPPING, "AgentStopping", "StopAgent", v1::AgentStopping::FIELDS),
    kind_row(kind::AGENT_ENDED, "AgentEnded", "EndAgent", v1::AgentEnded::FIELDS),
    kind_row(kind::TASK_SCHEDULED, "TaskScheduled", "ScheduleTask", v1::TaskScheduled::FIELDS),
    kind_row(kind::TASK_STARTED, "TaskStarted", "StartTask", v1::TaskStarted::FIELDS),
    kind_row(kind::TASK_COMPLETED, "TaskCompleted", "CompleteTask", v1::TaskCompleted::FIELDS),
    kind_row(kind::TASK_FAILED, "TaskFailed", "FailTask", v1::TaskFailed::FIELDS),
    kind_row(kind::TASK_SKIPPED, "TaskSkipped", "SkipTask", v1::TaskSkipped::FIELDS),
    kind_row(kind::MESSAGE_SENT, "MessageSent", "SendMessage", v1::MessageSent::FIELDS),
    kind_row(kind::MESSAGE_TAKEN, "MessageTaken", "TakeMessage", v1::MessageTaken::FIELDS),
    kind_row(kind::GRANT_ISSUED, "GrantIssued", "Grant", v1::GrantIssued::FIELDS),
    kind_row(kind::GRANT_REVOKED, "GrantRevoked", "Revoke", v1::GrantRevoked::FIELDS),
    kind_row(kind::TOOL_REGISTERED, "ToolRegistered", "RegisterTool", v1::ToolRegistered::FIELDS),
    kind_row(kind::TOOL_APPROVED, "ToolApproved", "ApproveTool", v1::ToolApproved::FIELDS),
    kind_row(kind::TOOL_QUARANTINED, "ToolQuarantined", "QuarantineTool", v1::ToolQuarantined::FIELDS),
    kind_row(kind::TOOL_BOUND, "ToolBound", "BindTool", v1::ToolBound::FIELDS),
    kind_row(kind::TOOL_UNBOUND, "ToolUnbound", "UnbindTool", v1::ToolUnbound::FIELDS),
    kind_row(kind::CALL_ADMITTED, "CallAdmitted", "Call", v1::CallAdmitted::FIELDS),
    kind_row(kind::CALL_FINISHED, "CallFinished", "Report", v1::CallFinished::FIELDS),
    kind_row(kind::CALL_ATTEMPTED, "CallAttempted", "ReportAttempt", v1::CallAttempted::FIELDS),
    kind_row(kind::CANCEL_REQUESTED, "CancelRequested", "CancelCall", v1::CancelRequested::FIELDS),
    kind_row(kind::OUTCOME_RESOLVED, "OutcomeResolved", "ResolveOutcome", v1::OutcomeResolved::FIELDS),
    kind_row(kind::PRINCIPAL_ADDED, "PrincipalAdded", "AddPrincipal", v1::PrincipalAdded::FIELDS),
    kind_row(kind::OBSERVED, "Observed", "Observe", v1::Observed::FIELDS),
    kind_row(kind::SANDBOX_PROBED, "SandboxProbed", "RecordProbe", v1::SandboxProbed::FIELDS),
];

const fn kind_row(number: u16, name: &'static str, command: &'static str, fields: &'static [&'static str]) -> Kind {
    Kind { number, name, command, schema: 1, fields }
}

/// The registry row of a kind this version knows.
pub fn kind_of(number: u16) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.number == number)
}

/// The digest of the kind registry, pinned in every genesis.
pub fn registry_digest() -> Digest {
    let mut bytes = Vec::new();
    for kind in KINDS {
        bytes.extend_from_slice(&kind.number.to_be_bytes());
        bytes.extend_from_slice(&kind.schema.to_be_bytes());
        for field in kind.fields {
            bytes.extend_from_slice(field.as_bytes());
            bytes.push(0);
        }
        bytes.push(0);
    }
    derive(Context::Registry, &[&bytes])
}

/// Encodes a frozen struct.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    match value.serialize(&mut rmp_serde::Serializer::new(&mut out).with_struct_map()) {
        Ok(()) => out,
        // Writing to memory cannot fail, and every frozen type is one that msgpack can hold.
        Err(error) => unreachable!("a frozen body cannot be encoded: {error}"),
    }
}

/// How many bytes a frozen struct encodes to, without keeping them.
pub(crate) fn encoded_len<T: Serialize>(value: &T) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // What cannot be encoded counts as too long.
    value.serialize(&mut rmp_serde::Serializer::new(&mut count).with_struct_map()).map_or(usize::MAX, |()| count.0)
}

/// Decodes a frozen struct strictly.
pub(crate) fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<T, BodyFault> {
    if bytes.len() > BODY_BYTES_MAX {
        return Err(BodyFault::Undecodable(format!("{} bytes, at most {BODY_BYTES_MAX}", bytes.len())));
    }
    match walk(bytes, 0) {
        Some([]) => {}
        Some(rest) => return Err(BodyFault::NonCanonical(format!("{} bytes left over", rest.len()))),
        None => return Err(BodyFault::Undecodable("no msgpack of the allowed shape".to_owned())),
    }
    let value: T = rmp_serde::from_slice(bytes).map_err(|error| BodyFault::Undecodable(error.to_string()))?;
    if encode(&value) != bytes {
        return Err(BodyFault::NonCanonical("it encodes to other bytes".to_owned()));
    }
    Ok(value)
}

/// Walks over one msgpack value and returns what follows it; `None` for ext, float, bad or oversized shapes.
fn walk(bytes: &[u8], depth: usize) -> Option<&[u8]> {
    if depth > BODY_DEPTH_MAX {
        return None;
    }
    let (&first, rest) = bytes.split_first()?;
    match first {
        0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => Some(rest),
        0x80..=0x8f => pairs(rest, usize::from(first & 0x0f), depth),
        0x90..=0x9f => items(rest, usize::from(first & 0x0f), depth),
        0xa0..=0xbf => rest.get(usize::from(first & 0x1f)..),
        0xcc | 0xd0 => rest.get(1..),
        0xcd | 0xd1 => rest.get(2..),
        0xce | 0xd2 => rest.get(4..),
        0xcf | 0xd3 => rest.get(8..),
        0xc4 | 0xd9 => length(rest, 1).and_then(|(len, rest)| rest.get(len..)),
        0xc5 | 0xda => length(rest, 2).and_then(|(len, rest)| rest.get(len..)),
        0xc6 | 0xdb => length(rest, 4).and_then(|(len, rest)| rest.get(len..)),
        0xdc => length(rest, 2).and_then(|(len, rest)| items(rest, len, depth)),
        0xdd => length(rest, 4).and_then(|(len, rest)| items(rest, len, depth)),
        0xde => length(rest, 2).and_then(|(len, rest)| pairs(rest, len, depth)),
        0xdf => length(rest, 4).and_then(|(len, rest)| pairs(rest, len, depth)),
        0xc1 | 0xc7..=0xcb | 0xd4..=0xd8 => None,
    }
}

fn pairs(rest: &[u8], count: usize, depth: usize) -> Option<&[u8]> {
    if count > BODY_ITEMS_MAX { None } else { values(rest, 2 * count, depth) }
}

fn items(rest: &[u8], count: usize, depth: usize) -> Option<&[u8]> {
    if count > BODY_ITEMS_MAX { None } else { values(rest, count, depth) }
}

fn values(mut rest: &[u8], count: usize, depth: usize) -> Option<&[u8]> {
    for _ in 0..count {
        rest = walk(rest, depth + 1)?;
    }
    Some(rest)
}

fn length(rest: &[u8], width: usize) -> Option<(usize, &[u8])> {
    let (digits, rest) = rest.split_at_checked(width)?;
    Some((digits.iter().fold(0, |len, digit| len << 8 | usize::from(*digit)), rest))
}
