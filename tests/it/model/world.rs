//! A session and the model side by side, driven by one stream of random commands that is biased to where rules meet.

use std::collections::{BTreeMap, BTreeSet};

use toka_kernel::body::v1::{
    BindAsked, Binding, CallAsked, CloseAsked, CommitAsked, EndAsked, FirstPrincipal, GrantAsked, GrantTo, IssueAsked,
    OpenSessionAsked, Outcome, ReportAsked, Retry, RevokeAsked, RootAsked, SpawnAsked, StartAsked, Usage,
};
use toka_kernel::facts::{Fact as KernelFact, FactType};
use toka_kernel::ids::{
    Bytes, CallId, CommandId, Commitment, Digest, EntryHash, GrantId, PrincipalId, SessionId, TaskId,
};
use toka_kernel::signed::open_body;
use toka_kernel::tool::{FactDecl, Need, Reserve, Tool as KernelTool};
use toka_kernel::{
    BlobRef, CLASS_WORK, Command, Effect, Entry, EntryRef, Event, EventKey, Head, Keyring, Stamp, State, chain,
    is_recordable,
};
use toka_tests::session::{EXECUTOR, Keys, START_US, report, system_genesis};

use super::cap::{Arg, Cap, Path, Scope, Use};
use super::rules::{Ask, Call, Fact, Id, Kind, Model, NODE, No, Principal, Stage, Tool};
use super::system::{How, Key, Sign, Standing};
use super::work::Plan;

/// The lowest id of the two executors.
const LOW_EXECUTOR: Id = [0xdd; 32];
/// The second person of the session.
const ANN: Id = [0xaa; 32];
/// A program with rights of its own, which may orchestrate agents.
const SERVICE: Id = [0xbb; 32];
/// Nobody.
const STRANGER: Id = [0x55; 32];

/// Choices drawn from one number, the same each time.
pub(crate) struct Rng(pub u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// True in `percent` of all cases.
    pub(crate) fn in_100(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn of<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

/// What one step was and what came of it.
pub(crate) struct Step {
    pub(crate) by: Id,
    pub(crate) ask: Ask,
    pub(crate) event: Event,
    pub(crate) answer: Result<(), No>,
}

mod choose;
mod work;

pub(crate) struct World {
    pub(crate) model: Model,
    pub(crate) state: State,
    pub(crate) head: Head,
    pub(crate) keyring: Keyring,
    pub(crate) writer: EventKey,
    keys: Keys,
    pub(crate) entries: Vec<Entry>,
    pub(crate) effects: Vec<Effect>,
    pub(crate) now: u64,
    commands: u64,
}

/// The id of the `ordinal`-th thing that an entry makes, as the page says it is derived.
pub(crate) fn derived(session: [u8; 32], seq: u64, ordinal: u32) -> Id {
    let mut input = session.to_vec();
    input.extend(seq.to_be_bytes());
    input.extend(ordinal.to_be_bytes());
    blake3::derive_key("toka 2026-11 id v1", &input)
}

fn tools() -> Vec<Tool> {
    let reserve = |all: &[(usize, u64, u64, Option<&'static str>)]| -> BTreeMap<_, _> {
        all.iter().map(|(index, base, per, pointer)| (*index, (*base, *per, *pointer))).collect()
    };
    vec![
        Tool {
            name: "reader",
            digest: 7,
            facts: vec![("/path", "path")],
            needs: vec![("read", None)],
            reserve: reserve(&[(1, 1_000, 0, None), (2, 512, 0, None), (5, 1_000_000, 0, None), (6, 500, 0, None)]),
            model: 1,
            effect: 1,
            unbound: None,
        },
        Tool {
            name: "file.write",
            digest: 8,
            facts: vec![("/n", "int"), ("/path", "path"), ("/trim", "bool")],
            needs: vec![("write", None), ("read", Some("/trim"))],
            reserve: reserve(&[(2, 256, 256, Some("/n")), (5, 10, 0, None)]),
            model: 1,
            effect: 2,
            unbound: None,
        },
        Tool {
            name: "sum",
            digest: 9,
            facts: vec![("/n", "int")],
            needs: vec![],
            reserve: reserve(&[(3, 1, 2, Some("/n")), (5, 5, 0, None)]),
            model: 1,
            effect: 4,
            unbound: None,
        },
        Tool {
            name: "huge",
            digest: 10,
            facts: vec![],
            needs: vec![],
            reserve: reserve(&[(3, u64::MAX, 0, None), (5, u64::MAX, 0, None)]),
            model: 1,
            effect: 1,
            unbound: None,
        },
        Tool {
            name: "work.flow",
            digest: 11,
            facts: vec![],
            needs: vec![],
            reserve: reserve(&[]),
            model: 3,
            effect: 1,
            unbound: None,
        },
    ]
}

const OPS: [&str; 6] = ["create", "delete", "delete-self", "list", "read", "write"];

fn fs(path: &str, ops: &[&'static str]) -> Cap {
    let under = path.ends_with("/**");
    let mut segs: Vec<String> = path.trim_end_matches("/**").split('/').map(str::to_owned).collect();
    let root = segs.remove(0);
    Cap::of(Scope::Fs { path: Path { root, segs, under }, ops: ops.iter().copied().collect() })
}

fn tool(name: &str) -> Cap {
    Cap::of(Scope::Tool { name: name.to_owned(), digest: None, args: BTreeMap::new(), closed: false })
}

fn agent(spec: &str, live: Option<u32>) -> Cap {
    Cap::of(Scope::Agent { spec: spec.to_owned(), live })
}

fn admin(ops: &[&'static str]) -> Cap {
    Cap::of(Scope::Admin { ops: ops.iter().copied().collect() })
}

const ADMIN: [&str; 8] =
    ["cancel", "grant-root", "members", "open-session", "pause", "register-tool", "resolve", "revoke-any"];

/// What kind of session it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// A work session that cites no system session.
    Alone,
    /// A work session that cites one.
    Cited,
    /// The system session.
    System,
}

/// The system session that sessions cite.
const CITED: EntryRef = EntryRef { session: SessionId([0x99; 32]), seq: 7, hash: EntryHash([0x98; 32]) };

/// The roots of a session: wide ones to grow trees from, and one for each way to be refused.
fn roots(rng: &mut Rng) -> Vec<(Id, Cap)> {
    let opener = Keys::seeded(1).opener().0;
    let far = START_US + 86_400_000_000;
    let soon = START_US + 200_000 + rng.below(2_000_000) as u64;
    let mut all = vec![
        (opener, fs("project/**", &OPS)),
        (opener, tool("*")),
        (opener, Cap { limits: [Some(60), None, None, None, None, Some(40_000_000), None], ..tool("*") }),
        (opener, agent("*", Some(4))),
        (opener, Cap { rate: Some((3, 2_000_000)), ..agent("aud.*", None) }),
        (opener, Cap { rate: Some((2, 5_000_000)), ..tool("reader") }),
        (opener, Cap { limits: [None, None, None, Some(200), None, None, None], ..tool("sum") }),
        (opener, Cap { limits: [None, None, None, Some(u64::MAX), None, None, None], ..tool("huge") }),
        (opener, Cap { limits: [None, Some(4_096), None, None, None, None, Some(900)], ..tool("*") }),
        (opener, Cap { gates: BTreeSet::from(["approval".to_owned()]), ..tool("*") }),
        (opener, Cap { gates: BTreeSet::from(["two-people".to_owned()]), ..agent("*", Some(3)) }),
        (opener, Cap { use_: Use::No, ..tool("*") }),
        (opener, Cap { use_: Use::Convey, ..fs("project/a/**", &["read", "write"]) }),
        (opener, Cap { nbf: Some(soon), ..fs("project/**", &["read"]) }),
        (opener, Cap { exp: Some(soon), ..tool("*") }),
        (ANN, tool("*")),
        (ANN, fs("project/a/**", &["read", "write", "delete"])),
        (ANN, agent("*", None)),
        (SERVICE, agent("*", Some(2))),
        (SERVICE, agent("aud.*", Some(0))),
        (SERVICE, agent("other", Some(0))),
        (SERVICE, admin(&["pause"])),
        (opener, admin(&ADMIN)),
        (opener, admin(&["cancel", "pause", "resolve", "revoke-any"])),
        (opener, Cap { gates: BTreeSet::from(["two-people".to_owned()]), ..admin(&ADMIN) }),
        (ANN, admin(&["register-tool", "resolve", "open-session", "pause"])),
    ];
    for (_, cap) in &mut all {
        cap.exp = cap.exp.or(Some(far));
        cap.depth = [15, 15, 3, 1, 0][rng.below(5)];
    }
    all
}

impl World {
    pub(crate) fn open(seed: u64) -> World {
        World::of(seed, [Flavour::Alone, Flavour::Cited, Flavour::System][(seed % 3) as usize])
    }

    pub(crate) fn of(seed: u64, flavour: Flavour) -> World {
        let mut rng = Rng(seed);
        let mut roots = roots(&mut rng);
        let keys = Keys::seeded(1);
        let mut opening = system_genesis(&keys, &[], 64);
        if flavour != Flavour::System {
            opening.class = CLASS_WORK;
        }
        opening.limits.max_running = 3;
        for (id, kind, models) in [(ANN, 1, 0), (LOW_EXECUTOR, 3, 1), (SERVICE, 4, 0)] {
            let id = Some(PrincipalId(id));
            opening.principals.push(FirstPrincipal { id, kind, custody: 1, keys: Vec::new(), models });
        }
        opening.nonce = Digest([rng.next() as u8; 32]);
        if flavour == Flavour::Cited {
            // Those who are not the opener hold nothing from the start.
            roots.iter_mut().for_each(|(subject, _)| *subject = keys.opener().0);
            let root = |cap: &Cap| RootAsked { from: Some(GrantId([0x97; 32])), cap: cap.text() };
            let roots = roots.iter().map(|(_, cap)| root(cap)).collect();
            let asked = OpenSessionAsked { session: SessionId::ZERO, opener: keys.opener(), roots };
            opening.system = Some(CITED);
            opening.open.under = Some(GrantId([0x96; 32]));
            opening.open.body = Bytes(open_body(&asked));
        }
        opening.grants = roots
            .iter()
            .map(|(subject, cap)| toka_kernel::body::v1::Grant {
                parent: None,
                issuer: keys.opener(),
                subject: PrincipalId(*subject),
                cap: toka_kernel::capability::Capability::parse(&cap.text()).expect("a root"),
                answers: Vec::new(),
            })
            .collect();
        let event = State::open(&opening, START_US).expect("a genesis");
        let stamp = Stamp { time_us: START_US, clock_behind: false };
        let entry = Entry::seal(&Head::none(), PrincipalId::NODE, stamp, event, &keys.writer());
        let keyring = chain::keyring(&entry, Some(&keys.pinned()), &mut |broken| panic!("{broken}"));
        let mut model = Model {
            opener: keys.opener().0,
            max_running: 3,
            is_system: flavour == Flavour::System,
            is_cited: flavour == Flavour::Cited,
            ..Model::default()
        };
        model.owned = BTreeSet::from([(model.opener, Key::Operator), (model.opener, Key::Redact)]);
        for (id, kind, models) in [
            (model.opener, Kind::Human, 0),
            (ANN, Kind::Human, 0),
            (EXECUTOR.0, Kind::Executor, 1),
            (LOW_EXECUTOR, Kind::Executor, 1),
            (SERVICE, Kind::Service, 0),
        ] {
            model.principals.insert(id, Principal { kind, alive: true, models });
        }
        let session = entry.session().0;
        for (ordinal, (subject, cap)) in roots.into_iter().enumerate() {
            model.add_root(derived(session, 0, ordinal as u32), subject, cap);
        }
        let mut world = World {
            model,
            state: State::new(),
            head: Head::none(),
            keyring,
            writer: keys.writer(),
            keys,
            entries: Vec::new(),
            effects: Vec::new(),
            now: START_US,
            commands: 0,
        };
        world.take(entry);
        for tool in tools().into_iter().filter(|_| flavour != Flavour::System) {
            let cite = flavour == Flavour::Cited;
            world.ask(NODE, How::default(), Ask::Bind { tool, replaces: None, cite }, &mut rng);
        }
        world
    }

    fn take(&mut self, entry: Entry) {
        self.effects = self.state.apply(&entry).expect("what was decided is legal").into_iter().collect();
        self.head = entry.head();
        self.entries.push(entry);
    }

    /// One random command, with a commitment to the state before it where one is due.
    pub(crate) fn step(&mut self, seed: u64) -> Step {
        let rng = &mut Rng(seed);
        if self.state.commit_due() {
            return self.ask(NODE, How::default(), Ask::Commit, rng);
        }
        self.now = self.later(rng);
        let (by, ask) = self.choose(rng);
        let by = if rng.in_100(96) { by } else { self.anybody(rng) };
        let how = self.how(by, &ask, rng);
        self.ask(by, how, ask, rng)
    }

    /// Asks both sides.
    pub(crate) fn ask(&mut self, by: Id, how: How, ask: Ask, rng: &mut Rng) -> Step {
        let (session, seq) = (self.head.session.0, self.head.next_seq());
        self.effects.clear();
        let answer = self.model.ask(by, &how, &ask, self.now, seq, &|ordinal| derived(session, seq, ordinal));
        let command = self.command(&ask, &how, rng);
        let event = self.state.decide(PrincipalId(by), &command, self.now);
        if is_recordable(&event) {
            let stamp = Stamp { time_us: self.now, clock_behind: false };
            let entry = Entry::seal(&self.head, PrincipalId(by), stamp, event.clone(), &self.writer);
            self.take(entry);
        }
        Step { by, ask, event, answer }
    }

    fn later(&self, rng: &mut Rng) -> u64 {
        let edges = |rng: &mut Rng| {
            let grants: Vec<_> = self.model.grants.values().collect();
            let grant = rng.of(&grants);
            let allowed = grant.cap.rate.map(|(burst, period)| grant.tat.saturating_sub(u64::from(burst - 1) * period));
            let edge = [grant.cap.exp, grant.cap.nbf, allowed][rng.below(3)].unwrap_or(0);
            edge.saturating_sub(rng.below(2) as u64)
        };
        let edge = if rng.in_100(15) { edges(rng) } else { 0 };
        if (self.now..self.now + 600_000_000).contains(&edge) {
            return edge;
        }
        self.now + *rng.of(&[0, 0, 1, 100, 1_000, 1_000, 20_000])
    }

    fn anybody(&self, rng: &mut Rng) -> Id {
        let mut all: Vec<Id> = self.model.principals.keys().copied().collect();
        all.extend([NODE, STRANGER]);
        *rng.of(&all)
    }

    fn choose(&self, rng: &mut Rng) -> (Id, Ask) {
        if self.model.is_system {
            return self.choose_of_system(rng);
        }
        if rng.in_100(30) {
            return self.work(rng);
        }
        match rng.below(1_000) {
            0..20 => self.resolve(rng),
            20..34 => self.unbind(rng),
            34..40 => self.observe(rng),
            40..44 => self.root_grant(rng),
            44..48 => self.choose_of_system(rng),
            48..380 => self.call(rng),
            380..620 => self.report(rng),
            620..760 => self.grant(rng),
            760..850 => self.spawn(rng),
            850..910 => self.start(rng),
            910..945 => self.end(rng),
            945..975 => {
                (self.anybody(rng), Ask::Revoke { grant: self.some_grant(rng, |_, _| true) }).revoker(self, rng)
            }
            975..985 => (NODE, Ask::Commit),
            985..997 => self.bind(rng),
            _ => (self.model.opener, Ask::Close { why: rng.below(5) as u8 }),
        }
    }

    /// A grant for which this holds, or sometimes any, or none.
    fn some_grant(&self, rng: &mut Rng, fits: impl Fn(&Id, &super::rules::Grant) -> bool) -> Id {
        if rng.in_100(1) {
            return [0x77; 32];
        }
        let fits = |(id, grant): &(&Id, &super::rules::Grant)| fits(id, grant);
        let good: Vec<Id> = self.model.grants.iter().filter(fits).map(|(id, _)| *id).collect();
        if rng.in_100(6) {
            let alive = |id: &Id| self.model.principals.get(id).is_some_and(|principal| principal.alive);
            let gone = self.model.grants.iter().filter(|(id, grant)| !self.is_live(id) && alive(&grant.subject));
            let gone: Vec<Id> = gone.map(|(id, _)| *id).collect();
            if !gone.is_empty() {
                return *rng.of(&gone);
            }
        }
        if good.is_empty() || rng.in_100(4) {
            let all: Vec<Id> = self.model.grants.keys().copied().collect();
            return *rng.of(&all);
        }
        // Late ones are deep ones.
        if rng.in_100(50) {
            let latest = good.iter().max_by_key(|id| self.model.grants[*id].number);
            return *latest.expect("not empty");
        }
        *rng.of(&good)
    }

    fn holder(&self, grant: Id) -> Id {
        self.model.grants.get(&grant).map_or(self.model.opener, |grant| grant.subject)
    }

    fn is_live(&self, id: &Id) -> bool {
        self.model.live(*id, self.now).is_ok()
    }

    fn may_act(&self, id: Id) -> bool {
        self.model.agents.get(&id).is_none_or(|agent| agent.stage == Stage::Running)
    }

    fn call(&self, rng: &mut Rng) -> (Id, Ask) {
        let often = ["reader", "reader", "reader", "file.write", "file.write", "sum", "sum", "huge"];
        let name = if rng.in_100(3) { "work.flow" } else { *rng.of(&often) };
        let tool = &self.model.tools[name];
        let name = if rng.in_100(1) { "nothing" } else { tool.name };
        let of_tool = |id: &Id, grant: &super::rules::Grant| match &grant.cap.scope {
            Scope::Tool { name: pattern, .. } => {
                let names = pattern == "*" || pattern == tool.name || pattern.trim_end_matches('*') == "file.";
                names && grant.cap.use_ == Use::Yes && self.is_live(id) && self.may_act(grant.subject)
            }
            Scope::Fs { .. } | Scope::Agent { .. } | Scope::Admin { .. } => false,
        };
        let grant = self.some_grant(rng, of_tool);
        let by = self.holder(grant);
        let mut facts = Vec::new();
        for (pointer, kind) in &tool.facts {
            if rng.in_100(4) {
                continue;
            }
            let fact = match *kind {
                "int" => Fact::Int(*rng.of(&[0, 1, 1, 3, 3, 3, 8, 8, 20, 90, 90, 500, -1, i64::MAX])),
                "bool" => Fact::Bool(rng.in_100(50)),
                _ => Fact::Path(
                    (*rng.of(&[
                        "project:a",
                        "project:a",
                        "project:a",
                        "project:a/b",
                        "project:a/b",
                        "project:a/b",
                        "project:c",
                        "project:",
                        "other:a",
                        "project:a/../b",
                    ]))
                    .to_owned(),
                ),
            };
            facts.push(((*pointer).to_owned(), fact));
        }
        if rng.in_100(1) {
            facts.reverse();
        }
        let trims = facts.contains(&("/trim".to_owned(), Fact::Bool(true)));
        let ops: Vec<&str> = tool.needs.iter().filter(|(_, when)| when.is_none() || trims).map(|(op, _)| *op).collect();
        let mut need_grants: Vec<Id> = Vec::new();
        for op in ops {
            let fits = |id: &Id, grant: &super::rules::Grant| match &grant.cap.scope {
                Scope::Fs { ops, .. } => {
                    grant.subject == by && ops.contains(op) && grant.cap.use_ == Use::Yes && self.is_live(id)
                }
                Scope::Tool { .. } | Scope::Agent { .. } | Scope::Admin { .. } => false,
            };
            need_grants.push(self.some_grant(rng, fits));
        }
        if rng.in_100(2) {
            need_grants.push(self.some_grant(rng, |_, _| true));
        }
        let mut asked = Vec::new();
        for index in 0..if rng.in_100(20) { rng.below(8) } else { 0 } {
            asked.push(match rng.below(8) {
                0 => Some(*rng.of(&[0, 1, 255, 256, 1_000_000, u64::MAX])),
                1 if index == 0 => Some(1),
                _ => None,
            });
        }
        let mut narrow = Vec::new();
        if rng.in_100(25) {
            narrow.push(rng.in_100(80).then(|| self.narrowing(rng, tool.name)));
            for _ in 0..need_grants.len() {
                narrow.push(rng.in_100(50).then(|| Cap { exp: None, ..fs("project/a/**", &["read", "write"]) }));
            }
        }
        let digest = if rng.in_100(2) { 99 } else { tool.digest };
        let unfit = rng.in_100(1).then(|| *rng.of(&[111, 401, 407, 414, 611, 406, 301, 9]));
        let extra = rng.in_100(30);
        let name = name.to_owned();
        let task = rng.in_100(15).then(|| self.task_of(by, rng));
        let call = Call { tool: name, digest, grant, need_grants, facts, extra, asked, narrow, unfit, task };
        (by, Ask::Call(Box::new(call)))
    }

    /// Mostly a task that the asker is at.
    fn task_of(&self, by: Id, rng: &mut Rng) -> Id {
        let own = self.model.tasks.iter().filter(|(_, task)| task.agent == by).map(|(id, _)| *id);
        let own: Vec<Id> = own.collect();
        if own.is_empty() || rng.in_100(5) { [0x33; 32] } else { *rng.of(&own) }
    }

    fn narrowing(&self, rng: &mut Rng, name: &str) -> Cap {
        let mut cap = tool([name, "*", "other"][rng.below(3)]);
        let index = rng.below(7);
        cap.limits[index] = rng.in_100(40).then(|| *rng.of(&[0, 1, 5, 1_024, u64::MAX]));
        cap.exp = rng.in_100(20).then(|| self.now + rng.below(2) as u64);
        cap.nbf = if cap.exp.is_none() && rng.in_100(10) { Some(self.now + rng.below(2) as u64) } else { None };
        if rng.in_100(5) {
            cap.use_ = Use::Convey;
        }
        cap
    }

    fn report(&self, rng: &mut Rng) -> (Id, Ask) {
        let open: Vec<(&Id, _)> = self.model.calls.iter().filter(|(_, call)| !call.ended).collect();
        let all: Vec<(&Id, _)> = self.model.calls.iter().collect();
        let from = if open.is_empty() || rng.in_100(8) { &all } else { &open };
        if from.is_empty() || rng.in_100(2) {
            let (call, actual, usage) = ([0x66; 32], Vec::new(), None);
            return (LOW_EXECUTOR, Ask::Report { call, attempt: 1, outcome: 1, actual, usage });
        }
        let (id, call) = rng.of(from);
        let outcome = *rng.of(&[1, 1, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 16, 0, 17]);
        let mut actual: Vec<u64> = call.reserve.to_vec();
        for amount in &mut actual {
            *amount = match rng.below(10) {
                0..4 => *amount,
                4..8 => *amount / 2 / 256 * 256,
                8 => 0,
                _ => amount.saturating_add(if rng.in_100(90) { 256 } else { 1 }) & !(u64::from(rng.in_100(98)) * 255),
            };
        }
        if rng.in_100(98) {
            while actual.last() == Some(&0) {
                actual.pop();
            }
        }
        let by = match outcome {
            10 | 11 if rng.in_100(50) => NODE,
            _ => call.executor,
        };
        let attempt = if rng.in_100(99) { call.attempt } else { call.attempt + 1 };
        let tokens = actual.get(3).copied().unwrap_or(0);
        let usage = rng.in_100(20).then(|| {
            *rng.of(&[(tokens, 0, 0), (tokens / 2, tokens / 4, tokens.div_ceil(2)), (tokens, 1, 1), (0, 1, tokens)])
        });
        (by, Ask::Report { call: **id, attempt, outcome, actual, usage })
    }

    fn grant(&self, rng: &mut Rng) -> (Id, Ask) {
        let parent = self.some_grant(rng, |id, grant| grant.cap.depth > 0 && self.is_live(id));
        let by = self.holder(parent);
        let cap = self.child(rng, parent);
        let agents: Vec<Id> = self.model.agents.keys().copied().collect();
        let to = match rng.below(10) {
            0..3 => by,
            3..8 if !agents.is_empty() => *rng.of(&agents),
            _ => self.anybody(rng),
        };
        let parent = rng.in_100(99).then_some(parent);
        (by, Ask::Grant { parent, cap, to })
    }

    /// A capability below that of `parent`, or wider in some row.
    fn child(&self, rng: &mut Rng, parent: Id) -> Cap {
        let Some(parent) = self.model.grants.get(&parent) else { return tool("*") };
        let mut cap = parent.cap.clone();
        cap.depth = cap.depth.saturating_sub(if rng.in_100(95) { 1 } else { 0 }).saturating_sub(rng.below(2) as u8);
        match &mut cap.scope {
            Scope::Fs { path, ops } => {
                if path.under && rng.in_100(30) {
                    path.segs.push((*rng.of(&["a", "b"])).to_owned());
                    path.under = rng.in_100(80);
                }
                if rng.in_100(30) {
                    let op = *rng.of(&OPS);
                    ops.remove(op);
                }
                if !path.under {
                    ops.remove("delete");
                }
                if ops.is_empty() {
                    ops.insert("read");
                }
            }
            Scope::Tool { name, digest, args, closed } => {
                if name == "*" && rng.in_100(40) {
                    *name = (*rng.of(&["reader", "file.write", "file.*", "sum", "huge"])).to_owned();
                }
                if rng.in_100(10) {
                    *digest = Some([7, 8, 9].into_iter().take(1 + rng.below(3)).collect());
                }
                if rng.in_100(10) {
                    let path = Path { root: "project".to_owned(), segs: vec!["a".to_owned()], under: true };
                    let all = [Arg::Range(0, 100), Arg::Absent, Arg::Path(path), Arg::Ints(BTreeSet::from([1, 3]))];
                    args.insert((*rng.of(&["/n", "/path", "/trim"])).to_owned(), rng.of(&all).clone());
                }
                *closed |= rng.in_100(5);
            }
            Scope::Agent { spec, live } => {
                if spec == "*" && rng.in_100(40) {
                    *spec = (*rng.of(&["aud.*", "aud.links", "fix"])).to_owned();
                }
                *live = if rng.in_100(50) { None } else { live.map(|live| live.saturating_sub(rng.below(3) as u32)) };
            }
            Scope::Admin { .. } => {}
        }
        if let Scope::Admin { ops } = &mut cap.scope {
            ops.remove(*rng.of::<&str>(&ADMIN));
            if ops.is_empty() || rng.in_100(5) {
                ops.insert(*rng.of::<&str>(&ADMIN));
            }
        }
        let index = rng.below(7);
        match rng.below(10) {
            0..4 => cap.limits[index] = None,
            4..6 => cap.limits[index] = Some(*rng.of(&[0, 3, 100, 5_000_000])),
            6 => cap.rate = Some((1 + rng.below(3) as u32, *rng.of(&[1, 10_000, 60_000]))),
            7 => cap.rate = None,
            8 => cap.exp = [None, cap.exp, Some(self.now + 50_000)][rng.below(3)],
            _ => cap.nbf = [None, Some(self.now + 5_000), Some(self.now)][rng.below(3)],
        }
        match rng.below(40) {
            0 => cap.use_ = Use::No,
            1 => cap.use_ = Use::Convey,
            2 => cap.use_ = Use::Yes,
            3 => cap.gates.clear(),
            4 => cap.gates = BTreeSet::from(["approval".to_owned()]),
            5 => cap.limits[index] = Some(u64::MAX),
            6 => cap.rate = Some((1_000_000, 1)),
            7 => cap.exp = Some(super::cap::NEVER),
            8 => cap.scope = fs("project/**", &OPS).scope,
            9 => cap.scope = tool("*").scope,
            10 => cap.scope = agent("*", Some(99)).scope,
            _ => {}
        }
        if !cap.is_ever_valid() {
            cap.nbf = None;
        }
        cap.scope = cap.scope.normal();
        cap
    }

    fn spawn(&self, rng: &mut Rng) -> (Id, Ask) {
        let fits = |id: &Id, grant: &super::rules::Grant| match grant.cap.scope {
            Scope::Agent { .. } => grant.cap.use_ == Use::Yes && self.is_live(id) && self.may_act(grant.subject),
            Scope::Fs { .. } | Scope::Tool { .. } | Scope::Admin { .. } => false,
        };
        let grant = self.some_grant(rng, fits);
        let by = self.holder(grant);
        let mut grants = Vec::new();
        for _ in 0..rng.below(5) {
            let parent =
                self.some_grant(rng, |id, grant| grant.subject == by && grant.cap.depth > 0 && self.is_live(id));
            grants.push((rng.in_100(99).then_some(parent), self.child(rng, parent)));
        }
        let spec = (*rng.of(&["aud.links", "aud.dates", "fix"])).to_owned();
        let asked = match rng.below(30) {
            0 => vec![None, Some(1)],
            1 => vec![None],
            _ => Vec::new(),
        };
        let narrow = match rng.below(12) {
            0 => vec![Some(agent("aud.*", Some(1)))],
            1 => vec![None],
            2 => vec![None, None],
            3 => vec![Some(agent("*", Some(0)))],
            _ => Vec::new(),
        };
        let plan = self.plan(rng, &spec);
        (by, Ask::Spawn { spec, grant, asked, narrow, grants, plan })
    }

    fn plan(&self, rng: &mut Rng, spec: &str) -> Plan {
        let agents: Vec<Id> = self.model.agents.keys().copied().chain([STRANGER]).collect();
        let ended = self.model.agents.iter().filter(|(_, agent)| agent.stage == Stage::Ended && agent.spec == spec);
        let ended: Vec<Id> = ended.map(|(id, _)| *id).collect();
        let then = if rng.in_100(97) { 1 + rng.below(4) as u8 } else { *rng.of(&[0, 5]) };
        Plan {
            requires: (0..if rng.in_100(20) { rng.below(3) } else { 0 }).map(|_| *rng.of(&agents)).collect(),
            replaces: match rng.below(20) {
                0..3 if !ended.is_empty() => Some(*rng.of(&ended)),
                3 => Some(*rng.of(&agents)),
                _ => None,
            },
            then,
            retry: (then == 4) != rng.in_100(2),
        }
    }

    fn start(&self, rng: &mut Rng) -> (Id, Ask) {
        let waiting = self.model.agents.iter().filter(|(_, agent)| agent.stage == Stage::Spawned);
        let waiting: Vec<Id> = waiting.map(|(id, _)| *id).collect();
        let all: Vec<Id> = self.model.agents.keys().copied().collect();
        let from = if waiting.is_empty() || rng.in_100(5) { &all } else { &waiting };
        if from.is_empty() || rng.in_100(1) {
            return (self.model.opener, Ask::Start { agent: STRANGER });
        }
        let agent = *rng.of(from);
        let by = if rng.in_100(10) { SERVICE } else { self.model.agents[&agent].parent };
        (by, Ask::Start { agent })
    }

    fn end(&self, rng: &mut Rng) -> (Id, Ask) {
        let running = self.model.agents.iter().filter(|(_, agent)| agent.stage == Stage::Running);
        let running: Vec<Id> = running.map(|(id, _)| *id).collect();
        let agent = if running.is_empty() || rng.in_100(5) { self.anybody(rng) } else { *rng.of(&running) };
        let waiting = self.model.agents.iter().filter(|(_, agent)| agent.stage == Stage::Spawned);
        let waiting: Vec<Id> = waiting.map(|(id, _)| *id).collect();
        if !waiting.is_empty() && rng.in_100(20) {
            let by = if rng.in_100(80) { NODE } else { *rng.of(&waiting) };
            return (by, Ask::End { agent: *rng.of(&waiting), how: 2 + u8::from(rng.in_100(10)), code: 15 });
        }
        let (how, code) = *rng.of(&[(1, 0), (1, 0), (2, 3), (2, 17), (2, 0), (1, 2), (3, 0), (2, 18), (0, 0)]);
        let by = if how == 3 || how == 2 && rng.in_100(40) { NODE } else { agent };
        (by, Ask::End { agent, how, code })
    }

    fn bind(&self, rng: &mut Rng) -> (Id, Ask) {
        let all = tools();
        let mut tool = rng.of(&all).clone();
        let bound = self.model.tools.get(tool.name).map(|tool| tool.digest);
        // `sum` moves on to new digests; the others must be left alone for their grants to go on working.
        if tool.name == "sum" {
            tool.digest = bound.unwrap_or(0) ^ 0x80;
            tool.effect = *rng.of(&[4, 4, 4, 3]);
        }
        let replaces = if rng.in_100(70) { bound } else { None };
        let replaces = if rng.in_100(10) { Some(0x42) } else { replaces };
        let cite = self.model.is_cited != rng.in_100(5);
        (NODE, Ask::Bind { tool, replaces, cite })
    }

    /// The kernel's command for this.
    fn command(&mut self, ask: &Ask, how: &How, rng: &mut Rng) -> Command {
        let mut blobs = Vec::new();
        let mut blob = |rng: &mut Rng| {
            let commitment = Commitment(Digest::from_hex(&format!("{:064x}", rng.next())).expect("hex").0);
            blobs.push(BlobRef { grains: 1, commitment });
            (blobs.len() - 1) as u16
        };
        let texts = |narrow: &[Option<Cap>]| narrow.iter().map(|cap| cap.as_ref().map(Cap::text)).collect();
        let kernel = match ask {
            Ask::Commit => toka_kernel::Ask::CommitState(CommitAsked {}),
            Ask::Close { why } => {
                let reason = rng.in_100(50).then(|| blob(rng));
                toka_kernel::Ask::CloseSession(CloseAsked { why: *why, reason })
            }
            Ask::Bind { tool, replaces, cite } => {
                let replaces = replaces.map(|byte| Digest([byte; 32]));
                let tool = kernel_tool(tool, blob(rng));
                toka_kernel::Ask::BindTool(BindAsked {
                    tools: vec![Binding { tool, cite: cite.then_some(CITED), replaces }],
                })
            }
            Ask::Grant { parent, cap, to } => {
                let grant = GrantTo { parent: parent.map(GrantId), cap: cap.text(), to: PrincipalId(*to) };
                toka_kernel::Ask::Grant(IssueAsked { grant })
            }
            Ask::Spawn { spec, grant, asked, narrow, grants, plan } => {
                let child =
                    |(parent, cap): &(Option<Id>, Cap)| GrantAsked { parent: parent.map(GrantId), cap: cap.text() };
                toka_kernel::Ask::SpawnAgent(Box::new(SpawnAsked {
                    spec: spec.clone(),
                    text: blob(rng),
                    spec_digest: Digest([8; 32]),
                    driver: 1,
                    seed: Digest([9; 32]),
                    grant: GrantId(*grant),
                    need_grants: Vec::new(),
                    asked: asked.clone(),
                    narrow: texts(narrow),
                    grants: grants.iter().map(child).collect(),
                    dropped: Vec::new(),
                    plan: kernel_plan(plan),
                }))
            }
            Ask::Start { agent } => toka_kernel::Ask::StartAgent(StartAsked { agent: PrincipalId(*agent) }),
            Ask::End { agent, how, code } => {
                toka_kernel::Ask::EndAgent(EndAsked { agent: PrincipalId(*agent), how: *how, code: *code })
            }
            Ask::Revoke { grant } => {
                let reason = rng.in_100(50).then(|| blob(rng));
                toka_kernel::Ask::Revoke(RevokeAsked { grant: GrantId(*grant), reason })
            }
            Ask::Call(call) => toka_kernel::Ask::Call(Box::new(CallAsked {
                tool: call.tool.clone(),
                digest: Digest([call.digest; 32]),
                grant: GrantId(call.grant),
                need_grants: call.need_grants.iter().copied().map(GrantId).collect(),
                facts: call.facts.iter().map(kernel_fact).collect(),
                extra: call.extra,
                args: blob(rng),
                asked: call.asked.clone(),
                narrow: texts(&call.narrow),
                task: call.task.map(TaskId),
                parent: None,
                unfit: call.unfit,
                detail: call.unfit.and_then(|_| rng.in_100(50).then(|| blob(rng))),
            })),
            Ask::Work(work) => World::kernel_work(work, &mut |grains| {
                let commitment = Commitment(Digest::from_hex(&format!("{:064x}", rng.next())).expect("hex").0);
                blobs.push(BlobRef { grains, commitment });
                (blobs.len() - 1) as u16
            }),
            Ask::Open { .. }
            | Ask::EndSession { .. }
            | Ask::Register { .. }
            | Ask::Approve { .. }
            | Ask::Quarantine { .. }
            | Ask::Unbind { .. }
            | Ask::Resolve { .. }
            | Ask::AddPrincipal { .. }
            | Ask::Observe { .. }
            | Ask::Probe { .. } => self.kernel_ask(ask, &mut || blob(rng)),
            Ask::Report { call, attempt, outcome, actual, usage } => {
                let stdout = rng.in_100(30).then(|| blob(rng));
                let result = rng.in_100(70).then(|| blob(rng));
                toka_kernel::Ask::Report(Box::new(ReportAsked {
                    attempt: *attempt,
                    outcome: Outcome { kind: *outcome, detail: 0, number: None, symbol: None },
                    actual: actual.clone(),
                    usage: usage.map(|(tokens_in, tokens_cached, tokens_out)| Usage {
                        tokens_in,
                        tokens_cached,
                        tokens_out,
                        status: 200,
                        estimated: false,
                    }),
                    stdout,
                    result,
                    ..report(CallId(*call))
                }))
            }
        };
        if kernel.is_of_node() {
            // What its event has no place for does not decide.
            let mut command = Command::of_node(kernel, blobs);
            command.under = how.under.map(GrantId);
            return command;
        }
        self.commands += 1;
        let mut id = [0; 16];
        id[8..].copy_from_slice(&self.commands.to_be_bytes());
        let signed = how.sign.as_ref().map(|sign| self.signature(sign, &kernel, &blobs));
        let mut command = Command::new(CommandId(id), self.head.seq, kernel, blobs);
        command.under = how.under.map(GrantId);
        command.signed = signed;
        command
    }
}

/// Puts a revocation mostly in the hands of somebody who may.
trait Revoker {
    fn revoker(self, world: &World, rng: &mut Rng) -> Self;
}

impl Revoker for (Id, Ask) {
    fn revoker(self, world: &World, rng: &mut Rng) -> (Id, Ask) {
        let Ask::Revoke { grant } = &self.1 else { return self };
        let Some(node) = world.model.grants.get(grant) else { return self };
        // Roots would take the whole session with them.
        if node.parent.is_none() && rng.in_100(90) || rng.in_100(25) {
            return self;
        }
        let above = world.model.chain(*grant);
        let top = &world.model.grants[above.last().expect("itself")];
        (*rng.of(&[node.subject, node.issuer, top.subject]), self.1)
    }
}

fn kernel_plan(plan: &Plan) -> toka_kernel::body::v1::Plan {
    toka_kernel::body::v1::Plan {
        requires: plan.requires.iter().copied().map(PrincipalId).collect(),
        replaces: plan.replaces.map(PrincipalId),
        then: plan.then,
        retry: plan.retry.then_some(Retry { max: 2, base: 1_000_000, cap: 30_000_000 }),
        ..toka_tests::session::plan()
    }
}

fn kernel_fact((pointer, fact): &(String, Fact)) -> KernelFact {
    let (int, text) = match fact {
        Fact::Int(value) => (Some(*value), None),
        Fact::Bool(value) => (Some(i64::from(*value)), None),
        Fact::Path(text) => (None, Some(text.clone())),
    };
    KernelFact { pointer: pointer.clone(), int, text }
}

pub(crate) fn kernel_tool(tool: &Tool, text: u16) -> KernelTool {
    let kind = |kind: &str| match kind {
        "int" => FactType::Int.number(),
        "bool" => FactType::Bool.number(),
        _ => FactType::Path.number(),
    };
    KernelTool {
        name: tool.name.to_owned(),
        digest: Digest([tool.digest; 32]),
        facts: tool
            .facts
            .iter()
            .map(|(pointer, of)| FactDecl { pointer: (*pointer).to_owned(), kind: kind(of) })
            .collect(),
        needs: tool
            .needs
            .iter()
            .map(|(op, when)| Need { text: format!("fs:{{/path}}#{op}"), when: when.map(str::to_owned) })
            .collect(),
        effect: tool.effect,
        reserve: tool
            .reserve
            .iter()
            .map(|(index, (base, per, pointer))| Reserve {
                dim: 19 + *index as u16,
                base: *base,
                per: *per,
                pointer: pointer.map(str::to_owned),
            })
            .collect(),
        model: tool.model,
        text,
    }
}
