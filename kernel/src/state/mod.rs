//! The state: what `decide` needs to decide, and nothing else.

pub(crate) mod grants;
pub(crate) mod rows;
pub(crate) mod tree;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::body::v1::{GrantAmounts, Plan, Retry, SessionLimits};
use crate::budget;
use crate::capability::Template;
use crate::decide::genesis::CLASS_SYSTEM;
use crate::denial::numbered;
use crate::entry::Head;
use crate::facts::FactSpec;
use crate::ids::{AgentId, CallId, Digest, GrantId, KeyId, MessageId, PrincipalId, Seq, SessionId, TaskId, TimeUs};
use crate::keys::{PublicKey, Role};
use crate::signed::NONCE_BYTES;
use crate::tool::{Effect, Model, Reserve};

use self::grants::Grants;
use self::rows::RowKey;
use self::tree::Tree;

numbered! {
    /// What a principal is.
    PrincipalKind: u8 {
        /// A person.
        Human = 1 "human",
        /// An agent of this session.
        Agent = 2 "agent",
        /// Runs calls and reports on them, nothing else.
        Executor = 3 "executor",
        /// A program with rights of its own.
        Service = 4 "service",
        /// The engine itself.
        Node = 5 "node",
    }
}

numbered! {
    /// Where an agent stands.
    AgentState: u8 {
        /// Made, not yet running.
        Spawned = 1 "spawned",
        /// Running.
        Running = 2 "running",
        /// Does nothing new until it is resumed.
        Paused = 3 "paused",
        /// Comes to its end as soon as its calls and children have.
        Stopping = 4 "stopping",
        /// Ended for good.
        Ended = 5 "ended",
    }
}

numbered! {
    /// Where a task of an agent stands. 5 is a task that took too long, which these rules do not know.
    TaskState: u8 {
        /// To be done, or to be tried again.
        Scheduled = 1 "scheduled",
        /// An attempt is under way.
        Started = 2 "started",
        /// Done.
        Completed = 3 "completed",
        /// Failed for good.
        Failed = 4 "failed",
        /// Its agent ended before it.
        Cancelled = 6 "cancelled",
        /// Not to be done.
        Skipped = 7 "skipped",
    }
}

numbered! {
    /// Where a tool of the system session stands.
    ToolState: u8 {
        /// Known, not yet to be run.
        Proposed = 1 "proposed",
        /// May be bound and run.
        Approved = 2 "approved",
        /// Not what was approved.
        Quarantined = 4 "quarantined",
    }
}

/// The state of one session after some entry. [`State::decide`] reads it, [`State::apply`] moves it on.
#[derive(Clone, Debug)]
pub struct State {
    pub(crate) head: Head,
    /// Commitments to the state so far.
    pub(crate) commits: u64,
    pub(crate) session: Session,
    pub(crate) principals: BTreeMap<PrincipalId, Principal>,
    pub(crate) keys: BTreeMap<KeyId, Key>,
    pub(crate) grants: Grants,
    pub(crate) tools: BTreeMap<String, BoundTool>,
    /// Tools of the system session, where none is bound.
    pub(crate) registered: BTreeMap<String, RegisteredTool>,
    pub(crate) agents: BTreeMap<AgentId, Agent>,
    /// Agents that run or are paused. One that is stopping starts nothing more and leaves its place.
    pub(crate) running: u32,
    /// Those of them that no agent spawned: only these count against the session's cap, since a waiting parent that
    /// held a place its children need would wait for ever.
    pub(crate) running_top: u32,
    /// Agents that are stopping themselves, and not only because of one above them.
    pub(crate) stopping: u32,
    pub(crate) tasks: BTreeMap<TaskId, Task>,
    /// Ended tasks with the commit count at their end, oldest first.
    pub(crate) ended_tasks: VecDeque<(u64, TaskId)>,
    /// Which tasks still wait for a task that has not completed.
    pub(crate) waiting: BTreeMap<TaskId, Vec<TaskId>>,
    /// Unread messages of each agent, oldest first; no empty ones.
    pub(crate) mailboxes: BTreeMap<AgentId, Vec<MessageId>>,
    /// Per execution model the executor with the lowest id. Executors come with the genesis and never leave.
    pub(crate) executors: [Option<PrincipalId>; Model::ALL.len()],
    pub(crate) calls: BTreeMap<CallId, Call>,
    pub(crate) open_calls: usize,
    /// Calls whose outcome nobody knows and nobody has settled.
    pub(crate) doubts: usize,
    /// Ended calls with the commit count at their end, oldest first.
    pub(crate) ended: VecDeque<(u64, CallId)>,
    /// By key and nonce, those signed commands that could still be sent again.
    pub(crate) nonces: BTreeMap<NonceKey, Nonce>,
    pub(crate) refusals: BTreeMap<PrincipalId, Refusals>,
    /// Sessions that the system session lists.
    pub(crate) listed: BTreeMap<SessionId, Listed>,
    pub(crate) tree: Tree,
    pub(crate) dirty: BTreeSet<RowKey>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Session {
    pub(crate) class: u8,
    pub(crate) rules: u16,
    pub(crate) opener: PrincipalId,
    pub(crate) limits: Option<SessionLimits>,
    pub(crate) interval: u64,
    pub(crate) phase: u8,
    /// The system session that this session cites; none in the system session itself, and where there is none.
    pub(crate) system: Option<SessionId>,
    pub(crate) next_commit: Seq,
    pub(crate) closed: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Principal {
    pub(crate) kind: PrincipalKind,
    pub(crate) alive: bool,
    pub(crate) custody: u8,
    pub(crate) keys: Vec<KeyId>,
    pub(crate) models: u8,
    /// Who made it, for an agent.
    pub(crate) above: Option<PrincipalId>,
}

#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) role: Role,
    /// The principal that lists it.
    pub(crate) owner: Option<PrincipalId>,
    /// Not in its row: the key of the row is its hash.
    pub(crate) public: PublicKey,
    pub(crate) epoch: u32,
    pub(crate) not_before_us: TimeUs,
    pub(crate) not_after_us: TimeUs,
}

#[derive(Clone, Debug)]
pub(crate) struct BoundTool {
    pub(crate) digest: Digest,
    pub(crate) facts: Vec<FactSpec>,
    /// As they were written, for the digest of the state.
    pub(crate) need_texts: Vec<crate::tool::Need>,
    /// As they were parsed when the tool was bound, each with the fact without which it does not apply.
    pub(crate) needs: Vec<(Template, Option<String>)>,
    pub(crate) effect: Effect,
    pub(crate) reserve: Vec<Reserve>,
    pub(crate) model: Model,
    /// Why it can no longer be called: the number that unbound it.
    pub(crate) unbound: Option<u8>,
}

/// A tool of the system session.
#[derive(Clone, Debug)]
pub(crate) struct RegisteredTool {
    pub(crate) tool: BoundTool,
    pub(crate) state: ToolState,
    /// The digest of the file that describes it.
    pub(crate) file: Digest,
}

/// A key id and a nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NonceKey(pub(crate) [u8; 48]);

impl NonceKey {
    pub(crate) fn new(key: KeyId, nonce: [u8; NONCE_BYTES]) -> NonceKey {
        let mut bytes = [0; 48];
        bytes[..32].copy_from_slice(&key.0);
        bytes[32..].copy_from_slice(&nonce);
        NonceKey(bytes)
    }
}

/// A signed command that was used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nonce {
    pub(crate) seq: Seq,
    pub(crate) until: TimeUs,
}

/// A session that the system session lists.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) opener: PrincipalId,
    /// Whether it has not ended.
    pub(crate) open: bool,
    /// What is set aside for it, per grant.
    pub(crate) reserved: Vec<GrantAmounts>,
}

impl BoundTool {
    /// Whether there is a worst case in the limited dimension `index`.
    pub(crate) fn declares(&self, index: usize) -> bool {
        index == budget::CALLS || self.reserve.iter().any(|reserve| budget::index_of(reserve.dim) == Some(index))
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Agent {
    pub(crate) spec: String,
    pub(crate) spec_digest: Digest,
    pub(crate) state: AgentState,
    /// Who paused it, while it is.
    pub(crate) paused_by: Option<PrincipalId>,
    pub(crate) parent: PrincipalId,
    pub(crate) depth: u8,
    /// The grant it was spawned under.
    pub(crate) grant: GrantId,
    pub(crate) plan: Plan,
    pub(crate) live_children: u32,
    pub(crate) open_calls: u32,
    /// Tasks of it that are scheduled or started.
    pub(crate) open_tasks: u32,
    /// Calls of it whose outcome nobody knows and nobody has settled.
    pub(crate) doubts: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) agent: AgentId,
    pub(crate) state: TaskState,
    /// Attempts that were begun.
    pub(crate) attempt: u16,
    /// How long one attempt may take.
    pub(crate) timeout_us: u64,
    pub(crate) retry: Retry,
    /// The next attempt begins no earlier.
    pub(crate) not_before: Option<TimeUs>,
    /// Until when the attempt under way may take.
    pub(crate) due: Option<TimeUs>,
    /// Tasks that must complete before and have not.
    pub(crate) requires: Vec<TaskId>,
    /// The commit count at its end.
    pub(crate) ended: Option<u64>,
}

#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) seq: Seq,
    pub(crate) principal: PrincipalId,
    pub(crate) executor: PrincipalId,
    /// The grants it named, need by need.
    pub(crate) grants: Vec<GrantId>,
    pub(crate) reserve: crate::budget::Vector,
    pub(crate) deadline: TimeUs,
    pub(crate) attempt: u16,
    pub(crate) depth: u8,
    pub(crate) effect: Effect,
    pub(crate) cancel: bool,
    /// Whether nobody knows how it ended and nobody has settled it.
    pub(crate) doubt: bool,
    /// The commit count at its end.
    pub(crate) ended: Option<u64>,
}

/// What a principal was refused in one minute of event time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refusals {
    pub(crate) minute: u64,
    pub(crate) counts: BTreeMap<u16, u32>,
    pub(crate) seen: BTreeSet<Digest>,
}

impl Default for State {
    fn default() -> State {
        State::new()
    }
}

impl State {
    /// The state before the genesis.
    pub fn new() -> State {
        State {
            head: Head::none(),
            commits: 0,
            session: Session::default(),
            principals: BTreeMap::new(),
            keys: BTreeMap::new(),
            grants: Grants::default(),
            tools: BTreeMap::new(),
            registered: BTreeMap::new(),
            agents: BTreeMap::new(),
            running: 0,
            running_top: 0,
            stopping: 0,
            tasks: BTreeMap::new(),
            ended_tasks: VecDeque::new(),
            waiting: BTreeMap::new(),
            mailboxes: BTreeMap::new(),
            executors: [None; Model::ALL.len()],
            calls: BTreeMap::new(),
            open_calls: 0,
            doubts: 0,
            ended: VecDeque::new(),
            nonces: BTreeMap::new(),
            refusals: BTreeMap::new(),
            listed: BTreeMap::new(),
            tree: Tree::default(),
            dirty: BTreeSet::new(),
        }
    }

    /// The last entry that was applied.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The session.
    pub fn session_id(&self) -> SessionId {
        self.head.session
    }

    /// Who opened the session.
    pub fn opener(&self) -> PrincipalId {
        self.session.opener
    }

    /// Whether the session is closed.
    pub fn is_closed(&self) -> bool {
        self.session.closed
    }

    /// Whether the next entry must commit to the state.
    pub fn commit_due(&self) -> bool {
        self.head.kind != 0 && self.head.next_seq() == self.session.next_commit
    }

    /// Where the keys of a principal lie, as it is recorded: 1 in the node's process, 2 apart.
    pub fn custody(&self, principal: PrincipalId) -> Option<u8> {
        self.principals.get(&principal).map(|principal| principal.custody)
    }

    /// Whether this is the system session: the node's own.
    pub fn is_system(&self) -> bool {
        self.session.class == CLASS_SYSTEM
    }

    /// The system session that this session cites.
    pub fn system(&self) -> Option<SessionId> {
        self.session.system
    }

    /// Where a tool of the system session stands, and under which digest.
    pub fn registered(&self, tool: &str) -> Option<(ToolState, Digest)> {
        self.registered.get(tool).map(|known| (known.state, known.tool.digest))
    }

    /// Whether the system session lists a session, and whether that has not ended.
    pub fn listed(&self, session: SessionId) -> Option<bool> {
        self.listed.get(&session).map(|listed| listed.open)
    }

    /// The sessions that the system session lists and whose end it has not recorded.
    pub fn listed_open(&self) -> impl Iterator<Item = SessionId> {
        self.listed.iter().filter(|(_, listed)| listed.open).map(|(session, _)| *session)
    }

    /// Whether nobody knows how a call ended and nobody has settled it.
    pub fn is_in_doubt(&self, call: CallId) -> bool {
        self.calls.get(&call).is_some_and(|call| call.doubt)
    }

    /// The digest of a bound tool.
    pub fn bound_digest(&self, tool: &str) -> Option<Digest> {
        self.tools.get(tool).map(|tool| tool.digest)
    }

    /// An agent and the agents above it, nearest first.
    pub(crate) fn agent_and_above(&self, agent: AgentId) -> impl Iterator<Item = &Agent> {
        std::iter::successors(self.agents.get(&agent), |agent| self.agents.get(&agent.parent))
    }

    /// Where an agent stands, if it is known.
    pub fn agent_state(&self, agent: AgentId) -> Option<AgentState> {
        self.agents.get(&agent).map(|agent| agent.state)
    }

    /// Calls without an outcome.
    pub fn open_calls(&self) -> usize {
        self.open_calls
    }

    /// The executor that runs calls of `model`: the one with the lowest id.
    pub fn executor_of(&self, model: Model) -> Option<PrincipalId> {
        self.executors[usize::from(model.number() - 1)]
    }

    /// The digest of the state, and how many leaves it covers.
    ///
    /// Cost follows what was touched since the last commitment, not what is alive.
    pub fn digest(&self) -> (Digest, u64) {
        if self.dirty.is_empty() {
            let mut tree = self.tree.clone();
            return (tree.digest(), tree.leaves());
        }
        let mut tree = self.tree.clone();
        self.refresh(&mut tree);
        (tree.digest(), tree.leaves())
    }

    pub(crate) fn touch(&mut self, key: RowKey) {
        self.dirty.insert(key);
    }

    /// Brings the cached tree up to date.
    pub(crate) fn settle_tree(&mut self) {
        let mut tree = std::mem::take(&mut self.tree);
        self.refresh(&mut tree);
        tree.digest();
        self.tree = tree;
        self.dirty.clear();
    }

    fn refresh(&self, tree: &mut Tree) {
        for key in &self.dirty {
            let path = key.path();
            match self.row(key) {
                Some(value) => tree.insert(path, key.leaf(&value)),
                None => tree.remove(&path),
            }
        }
    }
}
