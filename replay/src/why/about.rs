//! The tree of an answer: each thing below what it explains, each thing told once.

use std::collections::BTreeSet;

use toka_kernel::body::v1::{CallAdmitted, Cmd, SessionOpened};
use toka_kernel::facts::Fact;
use toka_kernel::ids::{AgentId, CallId, Digest, GrantId, KeyId, PrincipalId, Seq, TaskId, derived};
use toka_kernel::keys::PublicKey;
use toka_kernel::{Ask, Body, Entry, PrincipalKind, Signed};
use toka_projections::words;

use super::story::Given;
use super::{Node, Story, Target};
use crate::input::Input;
use crate::text::time;
use crate::trail::{Stop, Trail};

/// The tree that explains `target`.
///
/// # Errors
/// [`Stop`] where an entry is no longer there as it was.
pub(super) fn explain<'a>(
    input: &'a Input,
    root: Option<&'a PublicKey>,
    story: &Story<'a>,
    system: Option<&Story<'a>>,
    target: Target,
) -> Result<Node, Stop> {
    let mut teller = Teller { input, root, work: story, system, told: BTreeSet::new() };
    match target {
        Target::Seq(seq) => teller.entry(Of::Work, seq),
        Target::Call(call) => teller.call(Of::Work, call),
        Target::Grant(grant) => {
            let node = teller.grant(Of::Work, grant)?;
            match story.grants.get(&grant) {
                Some(given) => Ok(node.with(teller.principal(Of::Work, given.grant.issuer)?)),
                None => Ok(node),
            }
        }
        Target::Agent(agent) => teller.agent_with_grants(agent),
    }
}

/// Which of two sessions something stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Of {
    /// The one that was asked about.
    Work,
    /// The system session that it cites.
    System,
}

/// What was told already, so that it is told once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    Entry(Seq),
    Grant(GrantId),
    Principal(PrincipalId),
    Genesis,
}

pub(super) struct Teller<'s, 'a> {
    input: &'a Input,
    root: Option<&'a PublicKey>,
    work: &'s Story<'a>,
    system: Option<&'s Story<'a>>,
    told: BTreeSet<(Of, Told)>,
}

impl<'s, 'a> Teller<'s, 'a> {
    pub(super) fn story(&self, of: Of) -> &'s Story<'a> {
        match (of, self.system) {
            (Of::System, Some(system)) => system,
            (Of::System, None) | (Of::Work, _) => self.work,
        }
    }

    pub(super) fn node(&self, of: Of, kind: &'static str, text: impl Into<String>) -> Node {
        Node::new(kind, self.story(of).session(), text)
    }

    /// Whether it is told now for the first time.
    fn is_new(&mut self, of: Of, what: Told) -> bool {
        self.told.insert((of, what))
    }

    /// What an entry says, and by whom.
    pub(super) fn words(&self, of: Of, entry: &Entry) -> String {
        let names = &self.story(of).names;
        let header = entry.header();
        match entry.event() {
            Ok(event) => {
                let what = words(event, names);
                format!("{} at {}: {what}, asked by {}", event.name(), time(header.time_us), names.of(header.principal))
            }
            Err(fault) => fault.to_string(),
        }
    }

    /// Any entry: what it is about, who asked, by what right, and what it follows from.
    fn entry(&mut self, of: Of, seq: Seq) -> Result<Node, Stop> {
        let story = self.story(of);
        let entry = story.trail.entry(seq)?;
        let made = |ordinal| derived(story.session(), seq, ordinal);
        let Ok(event) = entry.event() else { return Ok(self.node(of, "entry", self.words(of, &entry)).at(seq)) };
        match &event.body {
            Body::SessionOpened(_) => self.genesis(of),
            Body::CallAdmitted(_) => self.call(of, CallId(made(0))),
            Body::AgentSpawned(_) => self.agent(of, PrincipalId(made(0))),
            Body::GrantIssued(issued) => {
                let node = self.grant(of, GrantId(made(0)))?;
                Ok(node.with(self.principal(of, issued.grant.issuer)?))
            }
            Body::Refused(refused, ask) => self.refusal(of, &entry, refused, ask),
            Body::CallFinished(finished) => self.about_call(of, &entry, finished.call),
            Body::CallAttempted(attempted) => self.about_call(of, &entry, attempted.call),
            Body::CancelRequested(cancelled) => self.about_call(of, &entry, cancelled.call),
            Body::OutcomeResolved(resolved) => self.about_call(of, &entry, resolved.call),
            Body::GrantRevoked(revoked) => {
                let node = self.plain(of, &entry)?;
                Ok(node.with(self.grant(of, revoked.grant)?))
            }
            Body::AgentStarted(started) => self.about_agent(of, &entry, started.agent),
            Body::AgentPaused(paused) => self.about_agent(of, &entry, paused.agent),
            Body::AgentResumed(resumed) => self.about_agent(of, &entry, resumed.agent),
            Body::AgentStopping(stopping) => self.about_agent(of, &entry, stopping.agent),
            Body::AgentEnded(ended) => self.about_agent(of, &entry, ended.agent),
            Body::TaskScheduled(scheduled) => self.about_agent(of, &entry, scheduled.agent),
            Body::TaskStarted(started) => self.about_task(of, &entry, started.task),
            Body::TaskCompleted(completed) => self.about_task(of, &entry, completed.task),
            Body::TaskFailed(failed) => self.about_task(of, &entry, failed.task),
            Body::TaskSkipped(skipped) => self.about_task(of, &entry, skipped.task),
            Body::MessageSent(sent) => self.about_agent(of, &entry, sent.to),
            Body::StateCommitted(_)
            | Body::SessionClosed(_)
            | Body::ToolBound(_)
            | Body::MessageTaken(_)
            | Body::SessionRegistered(_)
            | Body::SessionEnded(_)
            | Body::ToolRegistered(_)
            | Body::ToolApproved(_)
            | Body::ToolQuarantined(_)
            | Body::ToolUnbound(_)
            | Body::PrincipalAdded(_)
            | Body::Observed(_)
            | Body::SandboxProbed(_) => self.plain(of, &entry),
        }
    }

    /// An entry with its command, who asked and its causes.
    fn plain(&mut self, of: Of, entry: &Entry) -> Result<Node, Stop> {
        let header = entry.header();
        let mut node = self.node(of, "entry", self.words(of, entry)).at(header.seq);
        if !self.is_new(of, Told::Entry(header.seq)) {
            return Ok(node.above());
        }
        for cause in &header.causes {
            node = node.with(self.cause(of, *cause)?);
        }
        self.asked(of, entry, node)
    }

    /// Adds the command of an entry and who asked it.
    pub(super) fn asked(&mut self, of: Of, entry: &Entry, mut node: Node) -> Result<Node, Stop> {
        if let Some(cmd) = entry.event().ok().and_then(|event| event.cmd()) {
            node.children.extend(self.command(of, cmd)?);
        }
        Ok(node.with(self.principal(of, entry.header().principal)?))
    }

    fn cause(&mut self, of: Of, seq: Seq) -> Result<Node, Stop> {
        let entry = self.story(of).trail.entry(seq)?;
        let node = self.node(of, "entry", format!("because of {}", self.words(of, &entry))).at(seq);
        if self.told.contains(&(of, Told::Entry(seq))) { Ok(node.above()) } else { Ok(node) }
    }

    fn about_call(&mut self, of: Of, entry: &Entry, call: CallId) -> Result<Node, Stop> {
        let node = self.plain(of, entry)?;
        Ok(node.with(self.call(of, call)?))
    }

    fn about_agent(&mut self, of: Of, entry: &Entry, agent: AgentId) -> Result<Node, Stop> {
        let node = self.plain(of, entry)?;
        Ok(node.with(self.principal(of, agent)?))
    }

    fn about_task(&mut self, of: Of, entry: &Entry, task: TaskId) -> Result<Node, Stop> {
        let node = self.plain(of, entry)?;
        Ok(node.with(self.task(of, task)?))
    }

    fn task(&mut self, of: Of, task: TaskId) -> Result<Node, Stop> {
        match self.story(of).tasks.get(&task).copied() {
            Some(seq) => {
                let entry = self.story(of).trail.entry(seq)?;
                self.plain(of, &entry)
            }
            None => Ok(self.node(of, "note", format!("task {} is not of this session", task.short()))),
        }
    }

    /// A call: what it needed and which grants covered it, who asked, and what came of it.
    fn call(&mut self, of: Of, id: CallId) -> Result<Node, Stop> {
        let story = self.story(of);
        let Some(called) = story.calls.get(&id) else {
            return Ok(self.node(of, "note", format!("call {} is not of this session", id.short())));
        };
        let entry = story.trail.entry(called.seq)?;
        let mut node = self.node(of, "call", format!("call {}: {}", id.short(), self.words(of, &entry)));
        node = node.at(called.seq).of(id);
        if !self.is_new(of, Told::Entry(called.seq)) {
            return Ok(node.above());
        }
        if let Ok(Body::CallAdmitted(admitted)) = entry.event().map(|event| &event.body) {
            node = self.needs(of, called.seq, admitted, node)?;
            if let Some(task) = admitted.task {
                node = node.with(self.task(of, task)?);
            }
        }
        node = self.asked(of, &entry, node)?;
        for seq in &called.after {
            let entry = self.story(of).trail.entry(*seq)?;
            node = node.with(self.plain(of, &entry)?);
        }
        Ok(node)
    }

    fn needs(&mut self, of: Of, seq: Seq, admitted: &CallAdmitted, mut node: Node) -> Result<Node, Stop> {
        let needs = self.needs_at(of, seq, &admitted.tool, admitted.digest, &admitted.facts, admitted.extra)?;
        let grants = std::iter::once(admitted.grant).chain(admitted.need_grants.iter().copied());
        for (index, grant) in grants.enumerate() {
            let need = needs.get(index).map_or("?", String::as_str);
            let need = self.node(of, "need", format!("need {index}: {need}, covered by")).at(seq);
            node = node.with(need.with(self.grant(of, grant)?));
        }
        Ok(node)
    }

    /// What a call needs, as the kernel reads it from the tool that is bound at `seq`; none where it would be refused
    /// for that alone.
    pub(super) fn needs_at(
        &self,
        of: Of,
        seq: Seq,
        tool: &str,
        digest: Digest,
        facts: &[Fact],
        extra: bool,
    ) -> Result<Vec<String>, Stop> {
        let mut trail = Trail::open(self.input, self.story(of).session(), self.root)?;
        while trail.head().kind == 0 || trail.head().seq < seq {
            if trail.step()?.is_none() {
                break;
            }
        }
        let needs = trail.state().needs_of(tool, digest, facts, extra).unwrap_or_default();
        Ok(needs.iter().map(ToString::to_string).collect())
    }

    /// A grant and those above it, up to a root grant and what that derives from.
    pub(super) fn grant(&mut self, of: Of, id: GrantId) -> Result<Node, Stop> {
        let story = self.story(of);
        let Some(given) = story.grants.get(&id) else {
            return Ok(self.node(of, "note", format!("grant {} is not of this session", id.short())).of(id));
        };
        let node = self.node(of, "grant", grant_words(story, id, given)).at(given.seq).of(id);
        if !self.is_new(of, Told::Grant(id)) {
            return Ok(node.above());
        }
        match (given.grant.parent, given.root) {
            (Some(parent), _) => Ok(node.with(self.grant(of, parent)?)),
            (None, Some(index)) => {
                let node = self.derived_from(of, index, node)?;
                Ok(node.with(self.genesis(of)?))
            }
            // A root grant that came later: its command is signed.
            (None, None) => {
                let entry = story.trail.entry(given.seq)?;
                self.asked(of, &entry, node)
            }
        }
    }

    /// Adds the grant of the system session that a root grant derives from.
    fn derived_from(&mut self, of: Of, index: usize, node: Node) -> Result<Node, Stop> {
        if of == Of::System {
            return Ok(node);
        }
        let Some(registered) = self.registered()? else { return Ok(node) };
        let from = match registered.event().map(|event| &event.body) {
            Ok(Body::SessionRegistered(body)) => body.roots.get(index).and_then(|root| root.from),
            Ok(_) | Err(_) => None,
        };
        match from {
            Some(from) => Ok(node.with(self.grant(Of::System, from)?)),
            None => Ok(node),
        }
    }

    /// The entry of the system session that registered the session that was asked about.
    fn registered(&self) -> Result<Option<Entry>, Stop> {
        let Some(system) = self.system else { return Ok(None) };
        let seq = system.registered.get(&self.work.session());
        seq.map(|seq| system.trail.entry(*seq)).transpose()
    }

    /// Somebody who asks: an agent with its spawners, or one of those that the session begins with.
    pub(super) fn principal(&mut self, of: Of, id: PrincipalId) -> Result<Node, Stop> {
        let story = self.story(of);
        if story.agents.contains_key(&id) {
            return self.agent(of, id);
        }
        let name = story.names.of(id);
        if let Some(seq) = story.added.get(&id).copied() {
            let node = self.node(of, "principal", format!("{name}, added later")).at(seq).of(id);
            if !self.is_new(of, Told::Principal(id)) {
                return Ok(node.above());
            }
            let entry = story.trail.entry(seq)?;
            return self.asked(of, &entry, node);
        }
        let text = match story.genesis.as_deref().and_then(|genesis| listed(genesis, story, id)) {
            _ if id == PrincipalId::NODE => "the node itself".to_owned(),
            Some(text) => format!("{name}: {text}"),
            None => format!("{name}: not of this session"),
        };
        let node = self.node(of, "principal", text).at(0).of(id);
        if self.is_new(of, Told::Principal(id)) { Ok(node.with(self.genesis(of)?)) } else { Ok(node.above()) }
    }

    /// An agent, the grant it was spawned under, and who spawned it.
    fn agent(&mut self, of: Of, id: AgentId) -> Result<Node, Stop> {
        let story = self.story(of);
        let Some(spawned) = story.agents.get(&id) else { return self.principal(of, id) };
        let (name, by) = (story.names.of(id), story.names.of(spawned.parent));
        let ended = spawned.ended.map(|seq| format!("; ended at seq {seq}")).unwrap_or_default();
        let text = format!("agent {name} {}: spawned by {by}{ended}", id.short());
        let node = self.node(of, "agent", text).at(spawned.seq).of(id);
        if !self.is_new(of, Told::Principal(id)) {
            return Ok(node.above());
        }
        let under = self.grant(of, spawned.grant)?;
        let entry = story.trail.entry(spawned.seq)?;
        self.asked(of, &entry, node.with(under))
    }

    fn agent_with_grants(&mut self, id: AgentId) -> Result<Node, Stop> {
        let mut node = self.agent(Of::Work, id)?;
        let held = self.work.grants.iter().filter(|(_, given)| given.grant.subject == id);
        let mut held: Vec<(Seq, GrantId)> = held.map(|(grant, given)| (given.seq, *grant)).collect();
        held.sort_unstable();
        for (_, grant) in held {
            node = node.with(self.grant(Of::Work, grant)?);
        }
        Ok(node)
    }

    /// What signs a command and by what right it was asked.
    fn command(&mut self, of: Of, cmd: &Cmd) -> Result<Vec<Node>, Stop> {
        let mut nodes = Vec::new();
        if let Some(signed) = cmd.signed.as_ref().and_then(|bytes| Signed::decode(&bytes.0)) {
            nodes.push(self.key(of, "command signed", signed.key));
        }
        if let Some(under) = cmd.under {
            let node = self.node(of, "command", "by right of");
            nodes.push(node.with(self.grant(of, under)?));
        }
        Ok(nodes)
    }

    /// Where everything begins: the genesis, the key that signs it, and who asked for the session.
    fn genesis(&mut self, of: Of) -> Result<Node, Stop> {
        let story = self.story(of);
        let Some(genesis) = story.genesis.as_deref() else {
            return Ok(self.node(of, "note", "there is no genesis"));
        };
        let text = format!("genesis at {}, opened by {}", genesis.origin, story.names.of(genesis.opener));
        let node = self.node(of, "genesis", text).at(0).of(story.session());
        if !self.is_new(of, Told::Genesis) {
            return Ok(node.above());
        }
        let mut node = node.with(self.key(of, "signed", story.signer));
        if let Some(signed) = genesis.open.signed.as_ref().and_then(|bytes| Signed::decode(&bytes.0)) {
            node = node.with(self.key(of, "opening signed", signed.key));
        }
        match (genesis.system, of) {
            (Some(cited), Of::Work) if self.system.is_none() => {
                let short = cited.session.short();
                let text = format!("system session {short}, cited at seq {}, is not in this input", cited.seq);
                Ok(node.with(self.node(of, "note", text)))
            }
            (Some(_), Of::Work) => match self.registered()? {
                Some(entry) => Ok(node.with(self.registration(&entry)?)),
                None => Ok(node.with(self.node(of, "note", "the system session does not say that it registered it"))),
            },
            (Some(_), Of::System) | (None, _) => Ok(node),
        }
    }

    fn registration(&mut self, entry: &Entry) -> Result<Node, Stop> {
        let node = self.node(Of::System, "registration", self.words(Of::System, entry)).at(entry.header().seq);
        self.asked(Of::System, entry, node)
    }

    /// A key of the session, and the root key that granted it.
    fn key(&self, of: Of, what: &str, id: KeyId) -> Node {
        let story = self.story(of);
        let node = |text: String| self.node(of, "key", text).at(0).of(id);
        let Some(grant) = story.keys.get(&id) else {
            return node(format!("{what} by key {}, which the genesis does not grant", id.short()));
        };
        let (role, epoch) = (grant.role.name(), grant.epoch);
        // With a root key given, the trail has compared it with each of these grants.
        let pinned = match self.root {
            Some(_) => "the one that was given",
            None => "NOT GIVEN, so nobody vouches for it (--root)",
        };
        let root = self.node(of, "root-key", format!("root key {}: {pinned}", grant.root.short())).of(grant.root);
        node(format!("{what} by {role} key {} of epoch {epoch}, granted by", id.short())).with(root)
    }

    /// What was refused: what was asked, what failed, and who asked.
    fn refusal(
        &mut self,
        of: Of,
        entry: &Entry,
        refused: &toka_kernel::body::v1::Refused,
        ask: &Ask,
    ) -> Result<Node, Stop> {
        let seq = entry.header().seq;
        let node = self.node(of, "refusal", self.words(of, entry)).at(seq);
        self.is_new(of, Told::Entry(seq));
        let node = super::refusal::reasons(self, of, entry, refused, ask, node)?;
        self.asked(of, entry, node)
    }
}

/// A grant in words.
pub(super) fn grant_words(story: &Story<'_>, id: GrantId, given: &Given) -> String {
    let (holder, issuer) = (story.names.of(given.grant.subject), story.names.of(given.grant.issuer));
    let origin = match (given.root, given.grant.parent) {
        (Some(_), _) => "a root grant of".to_owned(),
        (None, Some(_)) => format!("issued by {issuer} to"),
        (None, None) => format!("a new root grant by {issuer} to"),
    };
    let revoked = given.revoked.map(|seq| format!("; revoked at seq {seq}")).unwrap_or_default();
    format!("grant {} {}: {origin} {holder}{revoked}", id.short(), given.grant.cap)
}

/// What the genesis says of a principal.
fn listed(genesis: &SessionOpened, story: &Story<'_>, id: PrincipalId) -> Option<String> {
    let mut ordinal = 0;
    let listed = genesis.principals.iter().find(|listed| {
        let own = listed.id.unwrap_or_else(|| {
            ordinal += 1;
            PrincipalId(derived(story.session(), 0, ordinal - 1))
        });
        own == id
    })?;
    let kind = PrincipalKind::from_number(listed.kind).map_or("?", PrincipalKind::name);
    let keys: Vec<String> = listed.keys.iter().map(KeyId::short).collect();
    let custody = if listed.custody == 2 { "kept apart" } else { "in the node's process" };
    Some(match keys.is_empty() {
        true => format!("{kind}, listed in the genesis"),
        false => format!("{kind}, listed in the genesis with key {} {custody}", keys.join(", ")),
    })
}
