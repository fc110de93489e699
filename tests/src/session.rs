//! A session driven by hand: fixed keys, a clock that is pushed, every entry kept.

use std::collections::BTreeMap;
use toka_kernel::body::registry_digest;
use toka_kernel::body::v1::{
    BindAsked, Binding, CallAsked, CloseAsked, CommitAsked, EndAsked, FirstPrincipal, Grant, GrantAsked, OpenAsked,
    OpenSessionAsked, Outcome, Plan, ReportAsked, RootAsked, SessionLimits, SpawnAsked, StartAsked,
};
use toka_kernel::capability::Capability;
use toka_kernel::facts::{Fact, FactType};
use toka_kernel::ids::{AgentId, Bytes, CallId, CommandId, Digest, GrantId, PrincipalId, SessionId, derived};
use toka_kernel::keys::{KeyGrant, PublicKey, Role, SecretKey};
use toka_kernel::signed::open_body;
use toka_kernel::tool::{Effect as EffectClass, FactDecl, Level, Model, Need, Reserve, Tool, ToolSpec};
use toka_kernel::{
    Ask, BlobRef, CLASS_SYSTEM, CLASS_WORK, Command, Dim, Effect, Entry, EntryRef, Event, EventKey, Genesis, Head,
    Keyring, RULES, Signed, Stamp, State, chain,
};

/// The origin of the test node.
pub const ORIGIN: &str = "node.test";
/// When test sessions begin: 2026-01-01T00:00:00Z.
pub const START_US: u64 = 1_767_225_600_000_000;
/// "Never" for keys and grants.
pub const NEVER_US: u64 = (1 << 53) - 1;

/// The keys of a test node, grown from fixed seeds.
#[derive(Debug)]
pub struct Keys {
    /// The root key.
    pub root: SecretKey,
    /// The event key of epoch 1.
    pub event: SecretKey,
    /// The operator key.
    pub operator: SecretKey,
    /// A redact key of the same person, which may sign no command of these rules.
    pub redact: SecretKey,
    /// Operator keys that are granted and nobody's.
    pub spare: [SecretKey; 2],
}

impl Keys {
    /// Keys that differ for each `seed`.
    pub fn seeded(seed: u8) -> Keys {
        let key = |role: u8| SecretKey::from_seed(&[seed.wrapping_mul(16).wrapping_add(role); 32]);
        Keys { root: key(1), event: key(2), operator: key(3), redact: key(4), spare: [key(5), key(6)] }
    }

    /// The root key as an auditor pins it.
    pub fn pinned(&self) -> PublicKey {
        self.root.public()
    }

    /// The event key as a writer holds it.
    pub fn writer(&self) -> EventKey {
        EventKey::new(self.event.clone(), 1)
    }

    fn grants(&self) -> Vec<Bytes> {
        [(Role::Event, &self.event), (Role::Operator, &self.operator)].map(|(role, key)| self.grant(role, key)).to_vec()
    }

    /// The record of a grant of this key.
    pub fn grant(&self, role: Role, key: &SecretKey) -> Bytes {
        Bytes(KeyGrant::issue(role, 1, 0..NEVER_US, key.public(), ORIGIN, &self.root).encode())
    }

    /// The id of the person who opens test sessions.
    pub fn opener(&self) -> PrincipalId {
        PrincipalId(self.operator.public().id().0)
    }
}

/// A blob with its salt, as a store keeps it.
#[derive(Clone, Debug)]
pub struct Blob {
    /// The reference an entry holds.
    pub reference: BlobRef,
    /// Its salt.
    pub salt: [u8; 32],
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A session with everything that happened in it.
#[derive(Debug)]
pub struct Session {
    /// The keys of its node.
    pub keys: Keys,
    /// Its state after the last entry.
    pub state: State,
    /// Its head.
    pub head: Head,
    /// What a reader checks it with.
    pub keyring: Keyring,
    /// Its entries.
    pub entries: Vec<Entry>,
    /// Its blobs.
    pub blobs: Vec<Blob>,
    /// The effects of the last entry.
    pub effects: Vec<Effect>,
    /// The time of the next entry.
    pub now_us: u64,
    writer: EventKey,
    commands: u64,
}

/// The executor of test sessions.
pub const EXECUTOR: PrincipalId = PrincipalId([0xee; 32]);

/// The genesis of a test session that gives its opener these root grants.
pub fn genesis(keys: &Keys, roots: &[&str], interval: u32) -> Genesis {
    let opener = keys.opener();
    let grant = |text: &&str| Grant {
        parent: None,
        issuer: opener,
        subject: opener,
        cap: Capability::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")),
        answers: Vec::new(),
    };
    Genesis {
        class: CLASS_WORK,
        suite: 1,
        rules: RULES,
        origin: ORIGIN.to_owned(),
        nonce: Digest([5; 32]),
        seed: Digest([6; 32]),
        build: "test".to_owned(),
        registry: registry_digest(),
        root_key: keys.root.public().id(),
        keys: keys.grants(),
        interval,
        limits: SessionLimits { max_running: 10 },
        interactive: false,
        open: OpenAsked { id: CommandId([1; 16]), under: None, body: Bytes(vec![0x80]), signed: None },
        opener,
        principals: vec![
            FirstPrincipal {
                id: Some(opener),
                kind: 1,
                custody: 1,
                keys: vec![keys.operator.public().id()],
                models: 0,
            },
            FirstPrincipal { id: Some(EXECUTOR), kind: 3, custody: 1, keys: Vec::new(), models: 1 },
        ],
        grants: roots.iter().map(grant).collect(),
        ceiling: None,
        prices: None,
        extensions: Vec::new(),
        system: None,
        checkpoint: None,
        parent: None,
    }
}

/// The genesis of a test system session that gives its opener these root grants.
pub fn system_genesis(keys: &Keys, roots: &[&str], interval: u32) -> Genesis {
    let mut genesis = Genesis { class: CLASS_SYSTEM, nonce: Digest([4; 32]), ..genesis(keys, roots, interval) };
    genesis.keys.push(keys.grant(Role::Redact, &keys.redact));
    genesis.keys.extend(keys.spare.iter().map(|key| keys.grant(Role::Operator, key)));
    genesis.principals[0].keys.push(keys.redact.public().id());
    genesis
}

/// The genesis of a test session whose roots derive from these grants of the system session; a root without one is new
/// authority, and then the opening is signed.
pub fn cited_genesis(keys: &Keys, system: EntryRef, under: GrantId, roots: &[(Option<GrantId>, &str)]) -> Genesis {
    let texts: Vec<&str> = roots.iter().map(|(_, cap)| *cap).collect();
    let mut genesis = genesis(keys, &texts, 64);
    let opening = opening(keys, SessionId::ZERO, roots);
    genesis.system = Some(system);
    genesis.open.under = Some(under);
    genesis.open.body = Bytes(open_body(&opening));
    if roots.iter().any(|(from, _)| from.is_none()) {
        let ask = Ask::OpenSession(Box::new(opening));
        let signed = Signed::sign(system.session, [9; 16], START_US + 60_000_000, &ask, &[], &keys.operator);
        genesis.open.signed = Some(signed.encode());
    }
    genesis
}

/// The opening of `session` with these roots.
pub fn opening(keys: &Keys, session: SessionId, roots: &[(Option<GrantId>, &str)]) -> OpenSessionAsked {
    let root = |(from, cap): &(Option<GrantId>, &str)| RootAsked { from: *from, cap: (*cap).to_owned() };
    OpenSessionAsked { session, opener: keys.opener(), roots: roots.iter().map(root).collect() }
}

impl Session {
    /// Opens a system session with these root grants, which need an `exp`.
    pub fn open_system(roots: &[&str]) -> Session {
        let keys = Keys::seeded(1);
        let genesis = system_genesis(&keys, roots, 64);
        Session::begin(keys, genesis)
    }

    /// Opens a session with these root grants, which need an `exp`.
    pub fn open(roots: &[&str]) -> Session {
        Session::open_with(Keys::seeded(1), roots, 64)
    }

    /// As [`Session::open`] with keys and the interval between commitments to the state.
    pub fn open_with(keys: Keys, roots: &[&str], interval: u32) -> Session {
        let genesis = genesis(&keys, roots, interval);
        Session::begin(keys, genesis)
    }

    /// Opens the session of this genesis.
    pub fn begin(keys: Keys, genesis: Genesis) -> Session {
        let event = State::open(&genesis, START_US).expect("a test genesis is valid");
        let writer = keys.writer();
        let stamp = Stamp { time_us: START_US, clock_behind: false };
        let entry = Entry::seal(&Head::none(), PrincipalId::NODE, stamp, event, &writer);
        let keyring = chain::keyring(&entry, Some(&keys.pinned()), &mut |broken| panic!("{broken}"));
        let mut session = Session {
            keys,
            state: State::new(),
            head: Head::none(),
            keyring,
            entries: Vec::new(),
            blobs: Vec::new(),
            effects: Vec::new(),
            now_us: START_US,
            writer,
            commands: 0,
        };
        session.take(entry);
        session
    }

    /// The session id.
    pub fn id(&self) -> SessionId {
        self.head.session
    }

    /// Who opened it.
    pub fn opener(&self) -> PrincipalId {
        self.keys.opener()
    }

    /// The id of the `index`-th root grant.
    pub fn root(&self, index: u32) -> GrantId {
        GrantId(derived(self.id(), 0, index))
    }

    /// The id of the `ordinal`-th thing that the last entry made.
    pub fn made(&self, ordinal: u32) -> [u8; 32] {
        derived(self.id(), self.head.seq, ordinal)
    }

    /// Keeps `bytes` as a blob of the next entry and returns its reference.
    pub fn blob(&mut self, bytes: &[u8]) -> BlobRef {
        let salt = Digest::from_hex(&format!("{:064x}", self.blobs.len() + 1)).expect("hex").0;
        let reference = BlobRef::to(&salt, bytes);
        self.blobs.push(Blob { reference, salt, bytes: bytes.to_vec() });
        reference
    }

    /// Asks, commits to the state first where that is due, and returns the event.
    pub fn ask(&mut self, by: PrincipalId, ask: Ask, blobs: Vec<BlobRef>) -> Event {
        if self.state.commit_due() {
            self.commit_state();
        }
        self.commands += 1;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.commands.to_be_bytes());
        let command = if ask.is_of_node() {
            Command::of_node(ask, blobs)
        } else {
            Command::new(CommandId(id), self.head.seq, ask, blobs)
        };
        self.command(by, &command)
    }

    /// Asks under an administrative grant, signed by `key` where there is one.
    pub fn ask_under(
        &mut self,
        by: PrincipalId,
        under: GrantId,
        key: Option<&SecretKey>,
        ask: Ask,
        blobs: Vec<BlobRef>,
    ) -> Event {
        if self.state.commit_due() {
            self.commit_state();
        }
        self.commands += 1;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.commands.to_be_bytes());
        let signed = key.map(|key| Signed::sign(self.id(), id, self.now_us + 60_000_000, &ask, &blobs, key).encode());
        let mut command = Command::new(CommandId(id), self.head.seq, ask, blobs);
        command.under = Some(under);
        command.signed = signed;
        self.command(by, &command)
    }

    /// A reference to the last entry.
    pub fn head_ref(&self) -> EntryRef {
        EntryRef { session: self.id(), seq: self.head.seq, hash: self.head.hash }
    }

    /// Decides, seals, accepts and applies one command, whatever comes of it.
    pub fn command(&mut self, by: PrincipalId, command: &Command) -> Event {
        self.now_us += 1_000;
        let event = self.state.decide(by, command, self.now_us);
        let stamp = Stamp { time_us: self.now_us, clock_behind: false };
        let entry = Entry::seal(&self.head, by, stamp, event.clone(), &self.writer);
        self.take(entry);
        event
    }

    fn take(&mut self, entry: Entry) {
        self.head = self.head.accept(&entry, &self.keyring).expect("an honest entry is accepted");
        self.effects = self.state.apply(&entry).expect("an honest entry is legal").into_iter().collect();
        self.entries.push(entry);
    }

    /// Commits to the state.
    pub fn commit_state(&mut self) -> Event {
        self.command(PrincipalId::NODE, &Command::of_node(Ask::CommitState(CommitAsked {}), Vec::new()))
    }

    /// Binds `tool`.
    pub fn bind(&mut self, mut tool: Tool) -> Event {
        let spec = reader_spec();
        let text = match spec.encode() {
            Ok(spec) if tool.name == "reader" => self.blob(&spec),
            Ok(_) | Err(_) => self.blob(tool.name.clone().as_bytes()),
        };
        tool.text = 0;
        let binding = Binding { tool, cite: None, replaces: None };
        self.ask(PrincipalId::NODE, Ask::BindTool(BindAsked { tools: vec![binding] }), vec![text])
    }

    /// Spawns an agent under `grant` with these child grants, and starts it.
    pub fn agent(&mut self, by: PrincipalId, name: &str, grant: GrantId, grants: &[(GrantId, &str)]) -> AgentId {
        let event = self.spawn(by, name, grant, grants);
        assert_eq!(event.name(), "AgentSpawned", "{event:?}");
        let agent = PrincipalId(self.made(0));
        let started = self.ask(by, Ask::StartAgent(StartAsked { agent }), Vec::new());
        assert_eq!(started.name(), "AgentStarted", "{started:?}");
        agent
    }

    /// Asks for an agent.
    pub fn spawn(&mut self, by: PrincipalId, name: &str, grant: GrantId, grants: &[(GrantId, &str)]) -> Event {
        let text = self.blob(b"spec");
        let asked = SpawnAsked {
            spec: name.to_owned(),
            text: 0,
            spec_digest: Digest([8; 32]),
            driver: 1,
            seed: Digest([9; 32]),
            grant,
            need_grants: Vec::new(),
            asked: Vec::new(),
            narrow: Vec::new(),
            grants: grants
                .iter()
                .map(|(parent, cap)| GrantAsked { parent: Some(*parent), cap: (*cap).to_owned() })
                .collect(),
            dropped: Vec::new(),
            plan: plan(),
        };
        self.ask(by, Ask::SpawnAgent(Box::new(asked)), vec![text])
    }

    /// Asks for a call of the test tool on `path`.
    pub fn call(&mut self, by: PrincipalId, path: &str, grant: GrantId, need_grants: &[GrantId]) -> Event {
        let args = self.blob(format!("{{\"path\":\"{path}\"}}").as_bytes());
        self.ask(by, call(path, grant, need_grants), vec![args])
    }

    /// Reports that a call has succeeded with this result.
    pub fn finish(&mut self, call: CallId, result: &[u8]) -> Event {
        let result = self.blob(result);
        let asked = ReportAsked { result: Some(0), ..report(call) };
        self.ask(EXECUTOR, Ask::Report(Box::new(asked)), vec![result])
    }

    /// Ends an agent as completed.
    pub fn end(&mut self, agent: AgentId) -> Event {
        self.ask(agent, Ask::EndAgent(EndAsked { agent, how: 1, code: 0 }), Vec::new())
    }

    /// Commits to the state and closes the session.
    pub fn close(&mut self) -> Event {
        self.commit_state();
        let command =
            Command::new(CommandId([0xcc; 16]), 0, Ask::CloseSession(CloseAsked { why: 1, reason: None }), vec![]);
        self.command(self.opener(), &command)
    }
}

/// The command that calls the test tool on `path`; its arguments are blob 0.
pub fn call(path: &str, grant: GrantId, need_grants: &[GrantId]) -> Ask {
    Ask::Call(Box::new(CallAsked {
        tool: "reader".to_owned(),
        digest: reader().digest,
        grant,
        need_grants: need_grants.to_vec(),
        facts: vec![Fact { pointer: "/path".to_owned(), int: None, text: Some(path.to_owned()) }],
        extra: false,
        args: 0,
        asked: Vec::new(),
        narrow: Vec::new(),
        task: None,
        parent: None,
        unfit: None,
        detail: None,
    }))
}

/// A report of success without output.
pub fn report(call: CallId) -> ReportAsked {
    ReportAsked {
        call,
        attempt: 1,
        outcome: Outcome { kind: 1, detail: 0, number: None, symbol: None },
        actual: vec![1, 256, 256, 0, 0, 1_000],
        stdout: None,
        stderr: None,
        result: None,
        record: None,
        sandbox: None,
        wasm: None,
        of: None,
        usage: None,
    }
}

/// A tool that reads one file: one path fact, one need.
pub fn reader() -> Tool {
    reader_spec().decision(0).expect("the decision part of a valid spec")
}

/// The whole spec of [`reader`], the content of the blob that binding it refers to.
pub fn reader_spec() -> ToolSpec {
    ToolSpec {
        name: "reader".to_owned(),
        version: "1".to_owned(),
        description: "reads a file".to_owned(),
        program: Digest([7; 32]),
        facts: vec![FactDecl { pointer: "/path".to_owned(), kind: FactType::Path.number() }],
        needs: vec![Need { text: "fs:{/path}#read".to_owned(), when: None }],
        effect: EffectClass::Read.number(),
        reserve: [
            (Dim::BytesIn, 1 << 20),
            (Dim::BytesOut, 1 << 20),
            (Dim::WallUs, 30_000_000),
            (Dim::CpuUs, 20_000_000),
        ]
        .map(|(dim, base)| Reserve { dim: dim.number(), base, per: 0, pointer: None })
        .to_vec(),
        model: Model::Tool.number(),
        level: Level::Native.number(),
        parallel_safe: true,
        params: Vec::new(),
        result: String::new(),
        labels: BTreeMap::new(),
        run: None,
        probe: None,
    }
}

/// A plan that asks for nothing.
pub fn plan() -> Plan {
    Plan {
        workstream: "main".to_owned(),
        phase: 1,
        requires: Vec::new(),
        then: 1,
        retry: None,
        essential: true,
        objectives: Vec::new(),
        deliverables: Vec::new(),
        milestones: Vec::new(),
        replaces: None,
    }
}
