//! The rows that the state digest covers: table number, key and canonical value.

use serde::Serialize;

use crate::body::v1::{Grant, GrantAmounts, Plan, Retry};
use crate::body::{self};
use crate::hash::{Context, derive};
use crate::ids::{AgentId, CallId, Digest, GrantId, KeyId, MessageId, PrincipalId, Seq, SessionId, TaskId, TimeUs};
use crate::state::{NonceKey, State};
use crate::tool::{FactDecl, Need, Reserve};

/// Table numbers of `docs/FORMAT.md`.
pub(crate) mod table {
    pub(crate) const SESSION: u16 = 1;
    pub(crate) const PRINCIPAL: u16 = 2;
    pub(crate) const KEY: u16 = 3;
    pub(crate) const GRANT: u16 = 4;
    pub(crate) const METER: u16 = 5;
    pub(crate) const TOOL: u16 = 6;
    pub(crate) const AGENT: u16 = 8;
    pub(crate) const TASK: u16 = 9;
    pub(crate) const MAILBOX: u16 = 11;
    pub(crate) const CALL: u16 = 12;
    pub(crate) const NONCE: u16 = 14;
    pub(crate) const REFUSALS: u16 = 15;
    pub(crate) const LISTED: u16 = 17;
}

/// The key of a row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RowKey {
    Session,
    Principal(PrincipalId),
    Key(KeyId),
    Grant(GrantId),
    Meter(GrantId),
    Tool(String),
    Agent(PrincipalId),
    Task(TaskId),
    Mailbox(AgentId),
    Call(CallId),
    Nonce(NonceKey),
    Refusals(PrincipalId),
    Listed(SessionId),
}

impl RowKey {
    pub(crate) fn table(&self) -> u16 {
        match self {
            RowKey::Session => table::SESSION,
            RowKey::Principal(_) => table::PRINCIPAL,
            RowKey::Key(_) => table::KEY,
            RowKey::Grant(_) => table::GRANT,
            RowKey::Meter(_) => table::METER,
            RowKey::Tool(_) => table::TOOL,
            RowKey::Agent(_) => table::AGENT,
            RowKey::Task(_) => table::TASK,
            RowKey::Mailbox(_) => table::MAILBOX,
            RowKey::Call(_) => table::CALL,
            RowKey::Nonce(_) => table::NONCE,
            RowKey::Refusals(_) => table::REFUSALS,
            RowKey::Listed(_) => table::LISTED,
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            RowKey::Session => &[],
            RowKey::Principal(id) | RowKey::Agent(id) | RowKey::Mailbox(id) | RowKey::Refusals(id) => &id.0,
            RowKey::Task(id) => &id.0,
            RowKey::Key(id) => &id.0,
            RowKey::Grant(id) | RowKey::Meter(id) => &id.0,
            RowKey::Tool(name) => name.as_bytes(),
            RowKey::Call(id) => &id.0,
            RowKey::Nonce(key) => &key.0,
            RowKey::Listed(id) => &id.0,
        }
    }

    pub(crate) fn path(&self) -> [u8; 32] {
        derive(Context::StatePath, &[&self.table().to_be_bytes(), self.bytes()]).0
    }

    pub(crate) fn leaf(&self, value: &[u8]) -> Digest {
        let key = self.bytes();
        let len = u32::try_from(key.len()).unwrap_or(u32::MAX).to_be_bytes();
        derive(Context::StateLeaf, &[&self.table().to_be_bytes(), &len, key, value])
    }
}

impl State {
    /// Every row the digest covers: table, key bytes, value bytes; by table, then by key.
    pub fn rows(&self) -> Vec<(u16, Vec<u8>, Vec<u8>)> {
        let mut keys: Vec<RowKey> = Vec::new();
        if self.head.kind != 0 {
            keys.push(RowKey::Session);
        }
        keys.extend(self.principals.keys().map(|id| RowKey::Principal(*id)));
        keys.extend(self.keys.keys().map(|id| RowKey::Key(*id)));
        keys.extend(self.grants.iter().map(|node| RowKey::Grant(node.id)));
        keys.extend(self.grants.iter().map(|node| RowKey::Meter(node.id)));
        keys.extend(self.tools.keys().map(|name| RowKey::Tool(name.clone())));
        keys.extend(self.registered.keys().map(|name| RowKey::Tool(name.clone())));
        keys.extend(self.agents.keys().map(|id| RowKey::Agent(*id)));
        keys.extend(self.tasks.keys().map(|id| RowKey::Task(*id)));
        keys.extend(self.mailboxes.keys().map(|id| RowKey::Mailbox(*id)));
        keys.extend(self.calls.keys().map(|id| RowKey::Call(*id)));
        keys.extend(self.nonces.keys().map(|key| RowKey::Nonce(*key)));
        keys.extend(self.listed.keys().map(|id| RowKey::Listed(*id)));
        keys.extend(self.refusals.keys().map(|id| RowKey::Refusals(*id)));
        keys.sort_by(|a, b| (a.table(), a.bytes()).cmp(&(b.table(), b.bytes())));
        keys.iter().filter_map(|key| self.row(key).map(|value| (key.table(), key.bytes().to_vec(), value))).collect()
    }

    /// The value of a row, if there is such a row.
    pub(crate) fn row(&self, key: &RowKey) -> Option<Vec<u8>> {
        Some(match key {
            RowKey::Session => body::encode(&SessionRow {
                class: self.session.class,
                rules: self.session.rules,
                opener: self.session.opener,
                max_running: self.session.limits.as_ref().map_or(0, |limits| limits.max_running),
                phase: self.session.phase,
                system: self.session.system,
                next_commit: self.session.next_commit,
                closed: self.session.closed,
            }),
            RowKey::Principal(id) => {
                let row = self.principals.get(id)?;
                body::encode(&PrincipalRow {
                    kind: row.kind.number(),
                    alive: row.alive,
                    custody: row.custody,
                    keys: &row.keys,
                    models: row.models,
                    above: row.above,
                })
            }
            RowKey::Key(id) => {
                let row = self.keys.get(id)?;
                body::encode(&KeyRow {
                    role: row.role.number(),
                    owner: row.owner,
                    epoch: row.epoch,
                    not_before_us: row.not_before_us,
                    not_after_us: row.not_after_us,
                })
            }
            RowKey::Grant(id) => {
                let node = self.grants.get(id)?;
                body::encode(&GrantRow { grant: &node.grant, revoked: node.revoked })
            }
            RowKey::Meter(id) => {
                let meter = &self.grants.get(id)?.meter;
                body::encode(&MeterRow {
                    spent: crate::budget::amounts(&meter.spent),
                    reserved: crate::budget::amounts(&meter.reserved),
                    tat: meter.tat,
                    children: meter.children,
                    live: meter.live,
                    in_flight: meter.in_flight,
                })
            }
            RowKey::Tool(name) => {
                let registered = self.registered.get(name);
                let row = registered.map(|known| &known.tool).or_else(|| self.tools.get(name))?;
                body::encode(&ToolRow {
                    digest: row.digest,
                    facts: row
                        .facts
                        .iter()
                        .map(|fact| FactDecl { pointer: fact.pointer.clone(), kind: fact.kind as u8 })
                        .collect(),
                    needs: &row.need_texts,
                    effect: row.effect.number(),
                    reserve: &row.reserve,
                    model: row.model.number(),
                    unbound: row.unbound,
                    state: registered.map(|known| known.state.number()),
                    file: registered.map(|known| known.file),
                })
            }
            RowKey::Agent(id) => {
                let row = self.agents.get(id)?;
                body::encode(&AgentRow {
                    spec: &row.spec,
                    spec_digest: row.spec_digest,
                    state: row.state.number(),
                    paused_by: row.paused_by,
                    parent: row.parent,
                    depth: row.depth,
                    grant: row.grant,
                    plan: &row.plan,
                    live_children: row.live_children,
                    open_calls: row.open_calls,
                    open_tasks: row.open_tasks,
                    doubts: row.doubts,
                })
            }
            RowKey::Task(id) => {
                let row = self.tasks.get(id)?;
                body::encode(&TaskRow {
                    agent: row.agent,
                    state: row.state.number(),
                    attempt: row.attempt,
                    timeout_us: row.timeout_us,
                    retry: &row.retry,
                    not_before: row.not_before,
                    due: row.due,
                    requires: &row.requires,
                    ended: row.ended,
                })
            }
            RowKey::Mailbox(id) => body::encode(&MailboxRow { unread: self.mailboxes.get(id)? }),
            RowKey::Call(id) => {
                let row = self.calls.get(id)?;
                body::encode(&CallRow {
                    seq: row.seq,
                    principal: row.principal,
                    executor: row.executor,
                    grants: &row.grants,
                    reserve: crate::budget::amounts(&row.reserve),
                    deadline: row.deadline,
                    attempt: row.attempt,
                    depth: row.depth,
                    effect: row.effect.number(),
                    cancel: row.cancel,
                    doubt: row.doubt,
                    ended: row.ended,
                })
            }
            RowKey::Nonce(key) => {
                let row = self.nonces.get(key)?;
                body::encode(&NonceRow { seq: row.seq, until: row.until })
            }
            RowKey::Listed(id) => {
                let row = self.listed.get(id)?;
                body::encode(&ListedRow { opener: row.opener, open: row.open, reserved: &row.reserved })
            }
            RowKey::Refusals(id) => {
                let row = self.refusals.get(id)?;
                body::encode(&RefusalsRow {
                    minute: row.minute,
                    counts: row.counts.iter().map(|(code, count)| (*code, *count)).collect(),
                    seen: row.seen.iter().copied().collect(),
                })
            }
        })
    }
}

#[derive(Serialize)]
struct SessionRow {
    #[serde(rename = "cls")]
    class: u8,
    #[serde(rename = "rul")]
    rules: u16,
    #[serde(rename = "opnr")]
    opener: PrincipalId,
    #[serde(rename = "max")]
    max_running: u16,
    #[serde(rename = "phas")]
    phase: u8,
    #[serde(rename = "sys")]
    system: Option<SessionId>,
    #[serde(rename = "next")]
    next_commit: Seq,
    #[serde(rename = "clsd")]
    closed: bool,
}

#[derive(Serialize)]
struct PrincipalRow<'a> {
    kind: u8,
    #[serde(rename = "aliv")]
    alive: bool,
    #[serde(rename = "cust")]
    custody: u8,
    keys: &'a [KeyId],
    #[serde(rename = "mods")]
    models: u8,
    #[serde(rename = "abov")]
    above: Option<PrincipalId>,
}

#[derive(Serialize)]
struct KeyRow {
    role: u8,
    #[serde(rename = "ownr")]
    owner: Option<PrincipalId>,
    #[serde(rename = "epo")]
    epoch: u32,
    #[serde(rename = "nbf")]
    not_before_us: TimeUs,
    #[serde(rename = "naf")]
    not_after_us: TimeUs,
}

#[derive(Serialize)]
struct GrantRow<'a> {
    #[serde(rename = "grnt")]
    grant: &'a Grant,
    #[serde(rename = "rvk")]
    revoked: bool,
}

#[derive(Serialize)]
struct MeterRow {
    #[serde(rename = "spnt")]
    spent: Vec<u64>,
    #[serde(rename = "rsvd")]
    reserved: Vec<u64>,
    tat: u64,
    #[serde(rename = "chld")]
    children: u32,
    live: u32,
    #[serde(rename = "flgt")]
    in_flight: u32,
}

#[derive(Serialize)]
struct ToolRow<'a> {
    #[serde(rename = "dig")]
    digest: Digest,
    facts: Vec<FactDecl>,
    needs: &'a [Need],
    #[serde(rename = "eff")]
    effect: u8,
    #[serde(rename = "rsv")]
    reserve: &'a [Reserve],
    #[serde(rename = "mod")]
    model: u8,
    #[serde(rename = "unbd")]
    unbound: Option<u8>,
    #[serde(rename = "stat")]
    state: Option<u8>,
    file: Option<Digest>,
}

#[derive(Serialize)]
struct AgentRow<'a> {
    spec: &'a str,
    #[serde(rename = "sdig")]
    spec_digest: Digest,
    #[serde(rename = "stat")]
    state: u8,
    #[serde(rename = "paus")]
    paused_by: Option<PrincipalId>,
    #[serde(rename = "par")]
    parent: PrincipalId,
    #[serde(rename = "dpth")]
    depth: u8,
    #[serde(rename = "grnt")]
    grant: GrantId,
    plan: &'a Plan,
    #[serde(rename = "chld")]
    live_children: u32,
    #[serde(rename = "call")]
    open_calls: u32,
    #[serde(rename = "task")]
    open_tasks: u32,
    #[serde(rename = "dubt")]
    doubts: u32,
}

#[derive(Serialize)]
struct TaskRow<'a> {
    #[serde(rename = "agt")]
    agent: AgentId,
    #[serde(rename = "stat")]
    state: u8,
    #[serde(rename = "att")]
    attempt: u16,
    #[serde(rename = "tmo")]
    timeout_us: u64,
    #[serde(rename = "rtry")]
    retry: &'a Retry,
    #[serde(rename = "nbf")]
    not_before: Option<TimeUs>,
    due: Option<TimeUs>,
    #[serde(rename = "req")]
    requires: &'a [TaskId],
    ended: Option<u64>,
}

#[derive(Serialize)]
struct MailboxRow<'a> {
    #[serde(rename = "unrd")]
    unread: &'a [MessageId],
}

#[derive(Serialize)]
struct CallRow<'a> {
    seq: Seq,
    #[serde(rename = "prin")]
    principal: PrincipalId,
    #[serde(rename = "exec")]
    executor: PrincipalId,
    #[serde(rename = "grs")]
    grants: &'a [GrantId],
    #[serde(rename = "rsv")]
    reserve: Vec<u64>,
    #[serde(rename = "dead")]
    deadline: TimeUs,
    #[serde(rename = "att")]
    attempt: u16,
    #[serde(rename = "dpth")]
    depth: u8,
    #[serde(rename = "eff")]
    effect: u8,
    #[serde(rename = "cncl")]
    cancel: bool,
    #[serde(rename = "dubt")]
    doubt: bool,
    ended: Option<u64>,
}

#[derive(Serialize)]
struct NonceRow {
    seq: Seq,
    #[serde(rename = "til")]
    until: TimeUs,
}

#[derive(Serialize)]
struct ListedRow<'a> {
    #[serde(rename = "opnr")]
    opener: PrincipalId,
    open: bool,
    #[serde(rename = "rsvd")]
    reserved: &'a [GrantAmounts],
}

#[derive(Serialize)]
struct RefusalsRow {
    #[serde(rename = "min")]
    minute: u64,
    #[serde(rename = "cnt")]
    counts: Vec<(u16, u32)>,
    seen: Vec<Digest>,
}
