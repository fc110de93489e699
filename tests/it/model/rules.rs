//! The reference model: lists, maps and recursion, written from the pages on authority and events, not from the kernel.
#![expect(clippy::needless_range_loop, reason = "the pages count dimensions, and so does the model")]

use std::collections::{BTreeMap, BTreeSet};

use super::cap::{Arg, Cap, NEVER, Path, Scope, Use, dim};
use super::system::Standing as ToolStanding;
use super::system::{How, Key, Listed};
use super::work::{Plan, Standing, Task, Work, earliest_end};

pub(crate) type Id = [u8; 32];

/// The engine itself.
pub(crate) const NODE: Id = [0; 32];

/// What is asked, with capabilities as values.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Commit,
    Close {
        why: u8,
    },
    Bind {
        tool: Tool,
        replaces: Option<u8>,
        cite: bool,
    },
    Grant {
        parent: Option<Id>,
        cap: Cap,
        to: Id,
    },
    Spawn {
        spec: String,
        grant: Id,
        asked: Vec<Option<u64>>,
        narrow: Vec<Option<Cap>>,
        grants: Vec<(Option<Id>, Cap)>,
        plan: Plan,
    },
    Work(Work),
    Start {
        agent: Id,
    },
    End {
        agent: Id,
        how: u8,
        code: u16,
    },
    Revoke {
        grant: Id,
    },
    Call(Box<Call>),
    /// `usage` is tokens in, of these cached, and tokens out.
    Report {
        call: Id,
        attempt: u16,
        outcome: u8,
        actual: Vec<u64>,
        usage: Option<(u64, u64, u64)>,
    },
    Open {
        session: Id,
        opener: Id,
        roots: Vec<(Option<Id>, Cap)>,
    },
    EndSession {
        session: Id,
        how: u8,
        head: bool,
        spent: Vec<(Id, Vec<u64>)>,
    },
    Register {
        tool: Tool,
        state: u8,
    },
    Approve {
        name: String,
        digest: u8,
    },
    Quarantine {
        name: String,
        digest: u8,
        why: u8,
    },
    Unbind {
        name: String,
        digest: u8,
        why: u8,
        cite: bool,
    },
    Resolve {
        call: Id,
        verdict: u8,
    },
    AddPrincipal {
        kind: u8,
        custody: u8,
        keys: Vec<Key>,
    },
    Observe {
        what: u16,
        call: Option<Id>,
    },
    Probe {
        levels: u8,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) tool: String,
    pub(crate) digest: u8,
    pub(crate) grant: Id,
    pub(crate) need_grants: Vec<Id>,
    pub(crate) facts: Vec<(String, Fact)>,
    pub(crate) extra: bool,
    pub(crate) asked: Vec<Option<u64>>,
    pub(crate) narrow: Vec<Option<Cap>>,
    pub(crate) unfit: Option<u16>,
    pub(crate) task: Option<Id>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fact {
    Int(i64),
    Bool(bool),
    Path(String),
}

#[derive(Clone, Debug)]
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    pub(crate) digest: u8,
    pub(crate) facts: Vec<(&'static str, &'static str)>,
    /// Operation on the path fact, and the fact without which the need does not apply.
    pub(crate) needs: Vec<(&'static str, Option<&'static str>)>,
    /// Per dimension base, per unit, pointer.
    pub(crate) reserve: BTreeMap<usize, (u64, u64, Option<&'static str>)>,
    pub(crate) model: u8,
    pub(crate) effect: u8,
    /// Why it is no longer bound.
    pub(crate) unbound: Option<u8>,
}

/// Why not.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct No {
    pub(crate) code: u16,
    pub(crate) failed_at: Option<Id>,
    pub(crate) item: Option<u16>,
    pub(crate) dim: Option<u16>,
    pub(crate) retry_at: Option<u64>,
    pub(crate) first_seq: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Human,
    Agent,
    Executor,
    Service,
    Node,
}

#[derive(Clone, Debug)]
pub(crate) struct Principal {
    pub(crate) kind: Kind,
    pub(crate) alive: bool,
    /// Bits of the execution models.
    pub(crate) models: u8,
}

#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) parent: Option<Id>,
    pub(crate) issuer: Id,
    pub(crate) subject: Id,
    pub(crate) cap: Cap,
    pub(crate) revoked: bool,
    pub(crate) spent: [u64; 7],
    pub(crate) reserved: [u64; 7],
    pub(crate) tat: u64,
    pub(crate) children: u32,
    pub(crate) live: u32,
    pub(crate) in_flight: u32,
    /// In the order of making.
    pub(crate) number: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Spawned,
    Running,
    Paused,
    Stopping,
    Ended,
}

#[derive(Clone, Debug)]
pub(crate) struct Agent {
    pub(crate) spec: String,
    pub(crate) stage: Stage,
    pub(crate) paused_by: Option<Id>,
    pub(crate) parent: Id,
    pub(crate) grant: Id,
    pub(crate) depth: u8,
}

#[derive(Clone, Debug)]
pub(crate) struct OpenCall {
    pub(crate) by: Id,
    pub(crate) executor: Id,
    pub(crate) grants: Vec<Id>,
    pub(crate) reserve: [u64; 7],
    pub(crate) ended: bool,
    pub(crate) cancelled: bool,
    pub(crate) effect: u8,
    pub(crate) attempt: u16,
    pub(crate) deadline: u64,
    /// Nobody knows how it ended, and nobody has settled it.
    pub(crate) doubt: bool,
    /// State commitments since its end.
    pub(crate) commits_after: u32,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) opener: Id,
    pub(crate) max_running: u32,
    pub(crate) principals: BTreeMap<Id, Principal>,
    pub(crate) grants: BTreeMap<Id, Grant>,
    pub(crate) agents: BTreeMap<Id, Agent>,
    pub(crate) tools: BTreeMap<String, Tool>,
    pub(crate) calls: BTreeMap<Id, OpenCall>,
    pub(crate) tasks: BTreeMap<Id, Task>,
    /// Unread messages, oldest first.
    pub(crate) mailboxes: BTreeMap<Id, Vec<Id>>,
    pub(crate) closed: bool,
    pub(crate) just_committed: bool,
    pub(crate) is_system: bool,
    /// Whether it cites a system session.
    pub(crate) is_cited: bool,
    /// Who owns which key.
    pub(crate) owned: BTreeSet<(Id, Key)>,
    pub(crate) nonces: BTreeMap<(Key, u8), (u64, u64)>,
    pub(crate) registered: BTreeMap<String, (u8, ToolStanding)>,
    pub(crate) listed: BTreeMap<Id, Listed>,
}

/// Bounds of the pages.
const GRANT_CHILDREN: u32 = 10_000;
const AGENT_DEPTH: u8 = 16;
const LIVE_CHILDREN: usize = 100;
const RUNNING: u32 = 256;

pub(super) fn no(code: u16) -> No {
    No { code, ..No::default() }
}

impl No {
    pub(super) fn at(self, grant: Id) -> No {
        No { failed_at: Some(grant), ..self }
    }
    pub(super) fn item(self, item: usize) -> No {
        No { item: Some(item as u16), ..self }
    }
    pub(super) fn dim(self, dim: u16) -> No {
        No { dim: Some(dim), ..self }
    }
}

impl Model {
    /// What a command comes to; `made` are the ids of what it makes, in order. Changes the model when it is admitted.
    pub(crate) fn ask(
        &mut self,
        by: Id,
        how: &How,
        ask: &Ask,
        at: u64,
        seq: u64,
        made: &dyn Fn(u32) -> Id,
    ) -> Result<(), No> {
        let kind = match self.asker(by, ask) {
            Ok(kind) => kind,
            Err(no) => {
                // Strangers and the dead end of a session leave no entry.
                self.just_committed &= matches!(no.code, 201 | 203);
                return Err(no);
            }
        };
        let before = how.under.is_some().then(|| self.clone());
        let answer = self.decide(by, kind, how, ask, at, made);
        match (&answer, before) {
            // A refusal changes nothing.
            (Err(_), Some(before)) => *self = before,
            (Err(_), None) => {}
            (Ok(()), _) => {
                if let Some(sign) = how.sign.as_ref().filter(|_| !ask.is_of_node()) {
                    self.nonces.insert((sign.key, sign.nonce), (seq, sign.not_after));
                }
            }
        }
        self.just_committed = answer.is_ok() && matches!(ask, Ask::Commit);
        answer
    }

    fn asker(&self, by: Id, ask: &Ask) -> Result<Kind, No> {
        if self.closed {
            return Err(no(201));
        }
        let kind = match self.principals.get(&by) {
            _ if by == NODE => Kind::Node,
            None => return Err(no(203)),
            Some(principal) if !principal.alive => return Err(no(204)),
            Some(principal) => principal.kind,
        };
        let may = match ask {
            Ask::Commit
            | Ask::Bind { .. }
            | Ask::Unbind { .. }
            | Ask::Quarantine { .. }
            | Ask::EndSession { .. }
            | Ask::Probe { .. } => kind == Kind::Node,
            Ask::Report { .. } | Ask::Observe { .. } => matches!(kind, Kind::Node | Kind::Executor),
            Ask::Register { .. } => kind != Kind::Executor,
            Ask::Open { .. } | Ask::Approve { .. } | Ask::AddPrincipal { .. } | Ask::Resolve { .. } => {
                matches!(kind, Kind::Human | Kind::Service)
            }
            Ask::End { .. } => matches!(kind, Kind::Node | Kind::Agent),
            Ask::Close { .. } | Ask::Grant { .. } | Ask::Spawn { .. } | Ask::Start { .. } | Ask::Revoke { .. } => {
                matches!(kind, Kind::Human | Kind::Agent | Kind::Service)
            }
            Ask::Call(_) => matches!(kind, Kind::Human | Kind::Agent | Kind::Service),
            Ask::Work(work) => work.may(kind),
        };
        if !may {
            return Err(no(205));
        }
        self.in_class(ask)?;
        let is_act = match ask {
            Ask::Spawn { .. } | Ask::Call(_) => true,
            Ask::Work(work) => work.is_act(),
            _ => false,
        };
        if is_act {
            self.must_run(by)?;
        }
        Ok(kind)
    }

    fn decide(
        &mut self,
        by: Id,
        kind: Kind,
        how: &How,
        ask: &Ask,
        at: u64,
        made: &dyn Fn(u32) -> Id,
    ) -> Result<(), No> {
        self.signed(by, kind, ask, how.sign.as_ref(), at)?;
        self.admin(by, kind, how.under, ask, at)?;
        let under = how.under.filter(|_| !ask.is_of_node());
        let just_committed = self.just_committed;
        let answer = match ask {
            Ask::Commit => {
                self.commit(at);
                Ok(())
            }
            Ask::Close { why } => self.close(by, under, *why, just_committed),
            Ask::Bind { tool, replaces, cite } => self.bind(tool, *replaces, *cite),
            Ask::Grant { parent, cap, to } => self.grant(by, *parent, cap, *to, at, made),
            Ask::Spawn { spec, grant, asked, narrow, grants, plan } => {
                self.plan(spec, plan).and_then(|()| self.spawn(by, spec, *grant, asked, narrow, grants, at, made))
            }
            Ask::Work(work) => self.work(by, under, work, at, made(0)),
            Ask::Start { agent } => self.start(by, under, *agent),
            Ask::End { agent, how, code } => self.end(by, *agent, *how, *code),
            Ask::Revoke { grant } => self.revoke(by, under, *grant),
            Ask::Call(call) => self.call(by, call, at, made),
            Ask::Report { call, attempt, outcome, actual, usage } => {
                self.report(by, *call, *attempt, *outcome, actual, *usage)
            }
            Ask::Open { session, opener, roots } => self.open_session(by, *session, *opener, roots, at).map(|listed| {
                self.listed.insert(*session, listed);
            }),
            Ask::EndSession { session, how, head, spent } => self.end_session(*session, *how, *head, spent),
            Ask::Register { tool, state } => self.register(tool.name, tool.digest, *state),
            Ask::Approve { name, digest } => self.move_tool(
                name,
                *digest,
                &[ToolStanding::Proposed, ToolStanding::Quarantined],
                ToolStanding::Approved,
            ),
            Ask::Quarantine { why: 1..=3 | 5, name, digest } => {
                self.move_tool(name, *digest, &[ToolStanding::Approved], ToolStanding::Quarantined)
            }
            Ask::Quarantine { .. } => Err(no(101)),
            Ask::Unbind { name, digest, why, cite } => self.unbind(name, *digest, *why, *cite),
            Ask::Resolve { call, verdict } => self.resolve(*call, *verdict),
            Ask::AddPrincipal { kind, custody, keys } => self.add_principal(*kind, *custody, keys, made(0)),
            Ask::Observe { what, call } => self.observe(by, *what, *call),
            Ask::Probe { levels } => {
                if *levels > 3 {
                    Err(no(101))
                } else {
                    Ok(())
                }
            }
        };
        answer?;
        match under {
            Some(under) => self.gates(&self.union(&[under])),
            None => Ok(()),
        }
    }

    fn must_run(&self, by: Id) -> Result<(), No> {
        match self.agents.get(&by) {
            Some(agent) if matches!(agent.stage, Stage::Spawned | Stage::Ended) => Err(no(206)),
            Some(_) if self.is_held(by) => Err(no(207)),
            _ => Ok(()),
        }
    }

    fn commit(&mut self, at: u64) {
        self.nonces.retain(|_, (_, until)| *until > at);
        for call in self.calls.values_mut().filter(|call| call.ended && !call.doubt) {
            call.commits_after += 1;
        }
        self.calls.retain(|_, call| call.commits_after < 2);
        self.tasks.values_mut().filter(|task| !task.is_open()).for_each(|task| task.commits_after += 1);
        self.tasks.retain(|_, task| task.commits_after < 2);
    }

    fn close(&mut self, by: Id, under: Option<Id>, why: u8, just_committed: bool) -> Result<(), No> {
        if !(1..=3).contains(&why) {
            return Err(no(101));
        }
        if by != self.opener && under.is_none() {
            return Err(no(312));
        }
        if self.listed.values().any(|listed| listed.open) {
            return Err(no(211));
        }
        if self.calls.values().any(|call| !call.ended) || !just_committed {
            return Err(no(211));
        }
        self.closed = true;
        Ok(())
    }

    fn bind(&mut self, tool: &Tool, replaces: Option<u8>, cite: bool) -> Result<(), No> {
        if cite != self.is_cited {
            return Err(no(101).item(0));
        }
        match (self.tools.get(tool.name), replaces) {
            (None, Some(_)) => return Err(no(401).item(0)),
            (Some(before), replaces) if replaces != Some(before.digest) => return Err(no(402).item(0)),
            _ => {}
        }
        self.tools.insert(tool.name.to_owned(), tool.clone());
        Ok(())
    }

    /// The grant and all above it, leaf first.
    pub(crate) fn chain(&self, grant: Id) -> Vec<Id> {
        let above = self.grants[&grant].parent.map(|parent| self.chain(parent)).unwrap_or_default();
        std::iter::once(grant).chain(above).collect()
    }

    /// Every grant on these chains once, oldest first.
    pub(super) fn union(&self, leaves: &[Id]) -> Vec<Id> {
        let all: BTreeSet<Id> = leaves.iter().flat_map(|leaf| self.chain(*leaf)).collect();
        let mut all: Vec<Id> = all.into_iter().collect();
        all.sort_by_key(|id| self.grants[id].number);
        all
    }

    pub(crate) fn live(&self, grant: Id, at: u64) -> Result<(), No> {
        for id in self.chain(grant) {
            let node = &self.grants[&id];
            let code = if node.revoked {
                304
            } else if at >= node.cap.exp.unwrap_or(NEVER) {
                305
            } else if at < node.cap.nbf.unwrap_or(0) {
                306
            } else if !self.principals.get(&node.subject).is_some_and(|subject| subject.alive) {
                307
            } else {
                continue;
            };
            return Err(no(code).at(id));
        }
        Ok(())
    }

    pub(super) fn usable(&self, grant: Id, by: Id, at: u64) -> Result<(), No> {
        let node = self.grants.get(&grant).ok_or(no(301).at(grant))?;
        if node.subject != by {
            return Err(no(302).at(grant));
        }
        if node.cap.use_ != Use::Yes {
            return Err(no(303).at(grant));
        }
        self.live(grant, at)
    }

    pub(super) fn add(&mut self, id: Id, parent: Option<Id>, issuer: Id, subject: Id, cap: Cap) {
        if let Some(parent) = parent.and_then(|parent| self.grants.get_mut(&parent)) {
            parent.children += 1;
        }
        let grant = Grant {
            parent,
            issuer,
            subject,
            cap,
            revoked: false,
            spent: [0; 7],
            reserved: [0; 7],
            tat: 0,
            children: 0,
            live: 0,
            in_flight: 0,
            number: self.grants.len(),
        };
        self.grants.insert(id, grant);
    }

    /// A root of the genesis.
    pub(crate) fn add_root(&mut self, id: Id, subject: Id, cap: Cap) {
        self.add(id, None, self.opener, subject, cap);
    }

    fn grant(
        &mut self,
        by: Id,
        parent: Option<Id>,
        cap: &Cap,
        to: Id,
        at: u64,
        made: &dyn Fn(u32) -> Id,
    ) -> Result<(), No> {
        match self.principals.get(&to) {
            None => return Err(no(101)),
            Some(to) if !to.alive => return Err(no(204)),
            Some(_) => {}
        }
        if parent.is_none() {
            return self.root(by, cap, to, at, made(0));
        }
        let filled = self.delegated(by, parent, cap, to, at, &[])?;
        self.add(made(0), parent, by, to, filled);
        Ok(())
    }

    fn delegated(
        &self,
        by: Id,
        parent: Option<Id>,
        cap: &Cap,
        to: Id,
        at: u64,
        before: &[(Id, Cap)],
    ) -> Result<Cap, No> {
        let parent = parent.ok_or(no(308))?;
        let node = self.grants.get(&parent).ok_or(no(308))?;
        if node.subject != by {
            return Err(no(302).at(parent));
        }
        self.live(parent, at)?;
        let filled = cap.filled(&node.cap);
        self.below(parent, &filled, to)?;
        let siblings = before.iter().filter(|(other, _)| *other == parent).count() as u32;
        if node.children + siblings >= GRANT_CHILDREN {
            return Err(no(604).at(parent).dim(dim::CHILDREN));
        }
        Ok(filled)
    }

    /// Whether `cap`, held by `to`, may derive from `parent`.
    pub(super) fn below(&self, parent: Id, cap: &Cap, to: Id) -> Result<(), No> {
        let node = &self.grants[&parent];
        if node.cap.depth == 0 {
            return Err(no(309).at(parent));
        }
        cap.within(&node.cap).map_err(|dim| no(311).at(parent).dim(dim))?;
        if cap.depth >= node.cap.depth {
            return Err(no(311).at(parent).dim(dim::DEPTH));
        }
        if node.cap.use_ == Use::No && cap.use_ != Use::No {
            return Err(no(311).at(parent));
        }
        let conveys = |id: &Id| self.grants[id].cap.use_ == Use::Convey && self.grants[id].subject == to;
        if self.chain(parent).iter().any(conveys) {
            return Err(no(310).at(parent));
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of the command, one by one")]
    fn spawn(
        &mut self,
        by: Id,
        spec: &str,
        grant: Id,
        asked: &[Option<u64>],
        narrow: &[Option<Cap>],
        grants: &[(Option<Id>, Cap)],
        at: u64,
        made: &dyn Fn(u32) -> Id,
    ) -> Result<(), No> {
        if asked.iter().any(Option::is_some) {
            return Err(no(105));
        }
        if narrow.len() > 1 {
            return Err(no(101));
        }
        let need = Scope::Agent { spec: spec.to_owned(), live: Some(1) };
        self.usable(grant, by, at).map_err(|no| no.item(0))?;
        self.covered(&need, grant, 0)?;
        narrowed(&need, narrow.first().and_then(Option::as_ref), 0, at)?;
        let chain = self.chain(grant);
        for id in &chain {
            let node = &self.grants[id];
            let Scope::Agent { live: Some(live), .. } = node.cap.scope else { continue };
            if node.live >= live {
                return Err(no(604).at(*id).dim(dim::LIVE));
            }
        }
        if let Some(parent) = self.agents.get(&by) {
            if parent.depth >= AGENT_DEPTH {
                return Err(no(608).dim(dim::DEPTH));
            }
            if self.live_children(by) >= LIVE_CHILDREN {
                return Err(no(608).dim(dim::CHILDREN));
            }
        }
        let union = self.union(&[grant]);
        self.rates(&union, at)?;
        self.budgets(&union, &[Some(0); 7], &[0; 7])?;
        let agent = made(0);
        let mut filled: Vec<(Id, Cap)> = Vec::new();
        for (item, (parent, cap)) in grants.iter().enumerate() {
            let cap = self.delegated(by, *parent, cap, agent, at, &filled).map_err(|no| no.item(item))?;
            filled.push((parent.unwrap_or_default(), cap));
        }
        self.gates(&union)?;
        let depth = self.agents.get(&by).map_or(0, |parent| parent.depth) + 1;
        self.principals.insert(agent, Principal { kind: Kind::Agent, alive: true, models: 0 });
        let row = Agent { spec: spec.to_owned(), stage: Stage::Spawned, paused_by: None, parent: by, grant, depth };
        self.agents.insert(agent, row);
        for id in chain {
            self.grants.get_mut(&id).expect("known").live += 1;
        }
        self.pass(&union, at);
        for (ordinal, (parent, cap)) in filled.into_iter().enumerate() {
            self.add(made(ordinal as u32 + 1), Some(parent), by, agent, cap);
        }
        Ok(())
    }

    pub(crate) fn live_children(&self, agent: Id) -> usize {
        self.agents.values().filter(|child| child.parent == agent && child.stage != Stage::Ended).count()
    }

    fn start(&mut self, by: Id, under: Option<Id>, agent: Id) -> Result<(), No> {
        let parent = self.agents.get(&agent).ok_or(no(101))?.parent;
        if parent != by && under.is_none() {
            return Err(no(312));
        }
        self.must_run(by)?;
        if self.agents[&agent].stage != Stage::Spawned {
            return Err(no(206));
        }
        if self.is_held(agent) {
            return Err(no(207));
        }
        let running = |below_no_agent: bool| {
            let running = self.agents.values().filter(|agent| matches!(agent.stage, Stage::Running | Stage::Paused));
            let counted = running.filter(|agent| !below_no_agent || !self.agents.contains_key(&agent.parent));
            counted.count() as u32
        };
        let top = !self.agents.contains_key(&parent);
        let limit = if top { self.max_running.min(RUNNING) } else { RUNNING };
        if running(top) >= limit {
            return Err(no(608).dim(dim::AGENTS));
        }
        self.agents.get_mut(&agent).expect("known").stage = Stage::Running;
        Ok(())
    }

    fn end(&mut self, by: Id, agent: Id, how: u8, code: u16) -> Result<(), No> {
        let stage = self.agents.get(&agent).ok_or(no(101))?.stage;
        let may = match how {
            1 => by == agent,
            2 => by == agent || by == NODE,
            3 => by == NODE,
            _ => return Err(no(101)),
        };
        if !may {
            return Err(no(205));
        }
        if code > 17 || how == 1 && code != 0 || how == 2 && code == 0 {
            return Err(no(101));
        }
        let ends = match stage {
            Stage::Ended => false,
            Stage::Stopping => how == 3,
            _ if how == 3 => self.is_stopping(agent),
            Stage::Running => true,
            // What could never start is ended by the node.
            Stage::Spawned => how == 2 && by == NODE,
            Stage::Paused => false,
        };
        if !ends {
            return Err(no(206));
        }
        if by == agent && self.is_held(by) {
            return Err(no(207));
        }
        let open = self.calls.values().any(|call| call.by == agent && !call.ended);
        if open || self.live_children(agent) > 0 {
            return Err(no(211));
        }
        if how != 3 && stage == Stage::Running && self.open_tasks(agent) > 0 {
            return Err(no(211));
        }
        let open: Vec<Id> =
            self.tasks.iter().filter(|(_, task)| task.agent == agent && task.is_open()).map(|(id, _)| *id).collect();
        for task in open {
            self.end_task(task, Standing::Cancelled);
        }
        self.mailboxes.remove(&agent);
        self.agents.get_mut(&agent).expect("known").paused_by = None;
        self.agents.get_mut(&agent).expect("known").stage = Stage::Ended;
        self.principals.get_mut(&agent).expect("known").alive = false;
        for id in self.chain(self.agents[&agent].grant) {
            self.grants.get_mut(&id).expect("known").live -= 1;
        }
        Ok(())
    }

    fn revoke(&mut self, by: Id, under: Option<Id>, grant: Id) -> Result<(), No> {
        let node = self.grants.get(&grant).ok_or(no(301))?;
        let above = self.chain(grant).into_iter().skip(1);
        let mut above = above.map(|id| &self.grants[&id]);
        if under.is_none()
            && node.subject != by
            && node.issuer != by
            && !above.any(|up| up.subject == by || up.issuer == by)
        {
            return Err(no(313).at(grant));
        }
        self.grants.get_mut(&grant).expect("known").revoked = true;
        let chains: Vec<(Id, Vec<Id>)> = self.calls.iter().map(|(id, call)| (*id, self.union(&call.grants))).collect();
        for (id, chains) in chains {
            let call = self.calls.get_mut(&id).expect("known");
            call.cancelled |= !call.ended && chains.contains(&grant);
        }
        Ok(())
    }

    fn call(&mut self, by: Id, call: &Call, at: u64, made: &dyn Fn(u32) -> Id) -> Result<(), No> {
        if let Some(code) = call.unfit {
            return Err(no(if matches!(code, 111 | 401 | 407..=414 | 611) { code } else { 101 }));
        }
        if let Some(task) = call.task
            && self.own_task(by, task)?.standing != Standing::Started
        {
            return Err(no(206));
        }
        let tool = self.tools.get(&call.tool).ok_or(no(401))?.clone();
        if tool.digest != call.digest {
            return Err(no(402));
        }
        match tool.unbound {
            None => {}
            Some(4) => return Err(no(408)),
            Some(_) => return Err(no(409)),
        }
        let bit = 1 << (tool.model - 1);
        let mut executors = self.principals.iter().filter(|(_, principal)| principal.kind == Kind::Executor);
        let executor = *executors.find(|(_, principal)| principal.models & bit != 0).ok_or(no(205))?.0;
        let needs = needs(&tool, call)?;
        let worst = worst(&tool, call)?;
        let mut reserve = worst.map(|amount| amount.unwrap_or(0));
        for (index, amount) in call.asked.iter().enumerate() {
            let Some(amount) = *amount else { continue };
            let whole = !(1..=2).contains(&index) || amount % 256 == 0;
            if index == 0 && amount != 1 || !whole || worst[index].is_none_or(|worst| amount > worst) {
                return Err(no(105).dim(dim::CALLS + index as u16));
            }
            reserve[index] = amount;
        }
        if !call.narrow.is_empty() && call.narrow.len() != needs.len() {
            return Err(no(101));
        }
        if call.need_grants.len() + 1 != needs.len() {
            return Err(no(405).item(call.need_grants.len() + 1));
        }
        let leaves: Vec<Id> = std::iter::once(call.grant).chain(call.need_grants.iter().copied()).collect();
        for (item, leaf) in leaves.iter().enumerate() {
            self.usable(*leaf, by, at).map_err(|no| no.item(item))?;
        }
        for (item, need) in needs.iter().enumerate() {
            self.covered(need, leaves[item], item)?;
        }
        for (item, need) in needs.iter().enumerate() {
            let Some(narrow) = call.narrow.get(item).and_then(Option::as_ref) else { continue };
            narrowed(need, Some(narrow), item, at)?;
            for (index, most) in narrow.limits.iter().enumerate() {
                let Some(most) = *most else { continue };
                if worst[index].is_none() || reserve[index] > most {
                    return Err(no(404).item(item).dim(dim::CALLS + index as u16));
                }
            }
        }
        let union = self.union(&leaves);
        self.rates(&union, at)?;
        self.budgets(&union, &worst, &reserve)?;
        self.gates(&union)?;
        for id in &union {
            let node = self.grants.get_mut(id).expect("known");
            node.spent[0] = node.spent[0].saturating_add(1);
            for index in 1..7 {
                node.reserved[index] = node.reserved[index].saturating_add(reserve[index]);
            }
            node.in_flight += 1;
        }
        self.pass(&union, at);
        let wall = worst[5].map_or(NEVER, |_| at.saturating_add(reserve[5]));
        let open = OpenCall {
            by,
            executor,
            grants: leaves,
            reserve,
            ended: false,
            cancelled: false,
            effect: tool.effect,
            attempt: 1,
            deadline: wall.min(earliest_end(union.iter().map(|id| &self.grants[id].cap))),
            doubt: false,
            commits_after: 0,
        };
        self.calls.insert(made(0), open);
        Ok(())
    }

    fn covered(&self, need: &Scope, grant: Id, item: usize) -> Result<(), No> {
        need.within(&self.grants[&grant].cap.scope).map_err(|dim| {
            let code = if dim == dim::DIGEST { 402 } else { 403 };
            no(code).at(grant).item(item).dim(dim)
        })
    }

    fn rates(&self, union: &[Id], at: u64) -> Result<(), No> {
        let mut wait: Option<(u64, Id)> = None;
        for id in union {
            let node = &self.grants[id];
            let Some((burst, period)) = node.cap.rate else { continue };
            let allowed = u128::from(node.tat) <= u128::from(at) + u128::from(burst - 1) * u128::from(period);
            let retry = node.tat.saturating_sub(u64::from(burst - 1) * period);
            if !allowed && wait.is_none_or(|(until, _)| retry > until) {
                wait = Some((retry, *id));
            }
        }
        match wait {
            None => Ok(()),
            Some((retry, id)) => Err(No { retry_at: Some(retry.min(NEVER)), ..no(606).at(id).dim(dim::RATE) }),
        }
    }

    fn pass(&mut self, union: &[Id], at: u64) {
        for id in union {
            let node = self.grants.get_mut(id).expect("known");
            if let Some((_, period)) = node.cap.rate {
                node.tat = node.tat.max(at) + period;
            }
        }
    }

    pub(super) fn budgets(&self, union: &[Id], worst: &[Option<u64>; 7], reserve: &[u64; 7]) -> Result<(), No> {
        for id in union {
            let node = &self.grants[id];
            for (index, limit) in node.cap.limits.iter().enumerate() {
                let Some(limit) = *limit else { continue };
                let full = |code| Err(no(code).at(*id).dim(dim::CALLS + index as u16));
                if worst[index].is_none() {
                    return full(605);
                }
                let held = u128::from(node.spent[index]) + u128::from(node.reserved[index]);
                let sum = held + u128::from(reserve[index]);
                let overflows = |sum: u128| sum > u128::from(u64::MAX);
                if overflows(held) {
                    return full(602);
                } else if held > u128::from(limit) {
                    return full(603);
                } else if overflows(sum) {
                    return full(602);
                } else if sum > u128::from(limit) {
                    return full(601);
                }
            }
        }
        Ok(())
    }

    fn gates(&self, union: &[Id]) -> Result<(), No> {
        for id in union {
            // No grant answers a policy before approvals are built.
            if let Some(gate) = self.grants[id].cap.gates.first() {
                return Err(no(if gate == "approval" { 502 } else { 510 }).at(*id).dim(dim::GATES));
            }
        }
        Ok(())
    }

    fn report(
        &mut self,
        by: Id,
        id: Id,
        attempt: u16,
        outcome: u8,
        actual: &[u64],
        usage: Option<(u64, u64, u64)>,
    ) -> Result<(), No> {
        if !(1..=16).contains(&outcome) {
            return Err(no(101));
        }
        let grains = actual.iter().enumerate().all(|(index, amount)| !(1..=2).contains(&index) || amount % 256 == 0);
        if actual.len() > 7 || !grains || actual.last() == Some(&0) {
            return Err(no(105));
        }
        if let Some((tokens_in, cached, tokens_out)) = usage {
            if cached > tokens_in {
                return Err(no(101));
            }
            let tokens = u128::from(actual.get(3).copied().unwrap_or(0));
            if u128::from(tokens_in) + u128::from(tokens_out) != tokens {
                return Err(no(105).dim(dim::CALLS + 3));
            }
        }
        let call = self.calls.get(&id).ok_or(no(701))?.clone();
        if call.ended {
            return Err(no(702));
        }
        let hidden = matches!(outcome, 10 | 11);
        if by != call.executor && !(by == NODE && hidden) {
            return Err(no(703));
        }
        if attempt != call.attempt {
            return Err(no(206));
        }
        let mut charged = [0; 7];
        if hidden {
            charged = call.reserve;
        } else if outcome < 12 {
            charged[..actual.len()].copy_from_slice(actual);
        }
        for id in self.union(&call.grants) {
            let node = self.grants.get_mut(&id).expect("known");
            for index in 1..7 {
                node.reserved[index] = node.reserved[index].saturating_sub(call.reserve[index]);
                node.spent[index] = node.spent[index].saturating_add(charged[index]);
            }
            node.in_flight -= 1;
        }
        let call = self.calls.get_mut(&id).expect("known");
        call.ended = true;
        call.doubt = outcome == 11 || outcome == 10 && call.effect >= 3;
        Ok(())
    }
}

/// First the tool itself, then each need whose condition holds.
fn needs(tool: &Tool, call: &Call) -> Result<Vec<Scope>, No> {
    // The form of all facts comes before what any of them says.
    let mut declared = tool.facts.iter();
    for (pointer, fact) in &call.facts {
        let (_, kind) = declared.find(|(known, _)| known == pointer).ok_or(no(101))?;
        let fits = match fact {
            Fact::Int(_) => *kind == "int",
            Fact::Bool(_) => *kind == "bool",
            Fact::Path(_) => *kind == "path",
        };
        if !fits {
            return Err(no(101));
        }
    }
    let mut args = BTreeMap::new();
    for (pointer, fact) in &call.facts {
        let arg = match fact {
            Fact::Int(value) => Arg::Ints(BTreeSet::from([*value])),
            Fact::Bool(value) => Arg::Bools(BTreeSet::from([*value])),
            Fact::Path(text) => Arg::Path(path(text)?),
        };
        args.insert(pointer.clone(), arg);
    }
    if call.extra {
        for (pointer, _) in &tool.facts {
            args.entry((*pointer).to_owned()).or_insert(Arg::Absent);
        }
    }
    let digest = Some(BTreeSet::from([tool.digest]));
    let mut needs = vec![Scope::Tool { name: tool.name.to_owned(), digest, args, closed: !call.extra }];
    for (op, when) in &tool.needs {
        let holds = |when: &str| call.facts.contains(&(when.to_owned(), Fact::Bool(true)));
        if when.is_none_or(holds) {
            let text = call.facts.iter().find_map(|(_, fact)| match fact {
                Fact::Path(text) => Some(text),
                Fact::Int(_) | Fact::Bool(_) => None,
            });
            let path = path(text.ok_or(no(111))?)?;
            needs.push(Scope::Fs { path, ops: BTreeSet::from([*op]) });
        }
    }
    Ok(needs)
}

fn path(text: &str) -> Result<Path, No> {
    let path = Path::of_fact(text);
    if path.segs.iter().any(|seg| matches!(seg.as_str(), "" | "." | "..")) { Err(no(103)) } else { Ok(path) }
}

/// The declared worst case; bytes in whole grains.
fn worst(tool: &Tool, call: &Call) -> Result<[Option<u64>; 7], No> {
    let mut worst = [None; 7];
    worst[0] = Some(1);
    for (index, (base, per, pointer)) in &tool.reserve {
        let units = pointer.map_or(0, |pointer| {
            let fact = call.facts.iter().find(|(known, _)| known == pointer);
            match fact {
                Some((_, Fact::Int(value))) => i128::from(*value),
                _ => 0,
            }
        });
        let amount = i128::from(*base) + i128::from(*per) * units;
        if units < 0 || amount > i128::from(u64::MAX) {
            return Err(no(105).dim(dim::CALLS + *index as u16));
        }
        let amount = amount as u64;
        worst[*index] = Some(if (1..=2).contains(index) { amount.div_ceil(256).saturating_mul(256) } else { amount });
    }
    Ok(worst)
}

/// The scope, the window and the use of a narrowing.
fn narrowed(need: &Scope, narrow: Option<&Cap>, item: usize, at: u64) -> Result<(), No> {
    let Some(narrow) = narrow else { return Ok(()) };
    need.within(&narrow.scope).map_err(|dim| no(404).item(item).dim(dim))?;
    if at < narrow.nbf.unwrap_or(0) || at >= narrow.exp.unwrap_or(NEVER) {
        return Err(no(404).item(item).dim(dim::TIME));
    }
    if narrow.use_ != Use::Yes {
        return Err(no(404).item(item));
    }
    Ok(())
}
