//! Runs an agent file like `toka run`, from the same parts, and kills itself at an append to the store that its caller
//! names: before any of it is written, or once all of it is durable and nobody has heard of it.
//!
//! `killed-run HOME PROJECT before|after N AGENT.yaml` begins a session, `killed-run HOME PROJECT before|after N
//! --resume SESSION` goes on with one. The N-th append counts from 1, those to the system session included. A run that
//! comes to its end says `appends N` on stdout, how many there were.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Signal, getpid, kill_process};
use toka_kernel::entry::Head;
use toka_kernel::ids::{CallId, Commitment, Seq, SessionId};
use toka_kernel::{Entry, ToolState};
use toka_projections::Views;
use toka_runtime::Home;
use toka_runtime::agents::AgentSet;
use toka_runtime::clock::{Clock, GuardedClock, SystemClock};
use toka_runtime::engine::Parts;
use toka_runtime::executor::{Model, Tool, native_tools};
use toka_runtime::gateway::config;
use toka_runtime::gateway::http::HttpProvider;
use toka_runtime::gateway::key::Environment;
use toka_runtime::random::OsRandom;
use toka_runtime::sandbox::{Launcher, Program, ProgramFiles};
use toka_runtime::session::{Means, Node, Session, Watch, right_to_resolve, root_grants};
use toka_runtime::system::{System, known_tools};
use toka_store::log::Rows;
use toka_store::{
    Append, AppendError, Durability, Log, RawEntry, ReadError, ReadLog, SessionRow, SqliteLog, StoredBlob,
};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [home, project, when, at, what @ ..] = args.as_slice() else { panic!("HOME PROJECT before|after N …") };
    let home = Home::open(Path::new(home)).expect("home");
    let inner = SqliteLog::open(home.store_path()).expect("store");
    let after = match when.as_str() {
        "before" => false,
        "after" => true,
        other => panic!("`{other}` is neither before nor after"),
    };
    let log = Arc::new(Killing { inner, at: at.parse().expect("a number"), after, appends: AtomicU64::new(0) });
    let finish = run(&home, Path::new(project), what, log.clone());
    println!("appends {}", log.appends.load(Ordering::SeqCst));
    assert!(finish, "the agent failed");
}

/// Begins a session or goes on with one; whether its agent completed.
fn run(home: &Home, project: &Path, what: &[String], log: Arc<dyn Log>) -> bool {
    let now_us = SystemClock.read().wall_us;
    let node = Node {
        origin: home.origin().to_owned(),
        root_key: home.root().key().id(),
        key_grants: home.grant_records(),
        operator: home.operator_id(),
        build: "killed-run".to_owned(),
    };
    let parts = || Parts {
        log: log.clone(),
        key: home.event_key(now_us).expect("key"),
        clock: GuardedClock::new(Arc::new(SystemClock)),
        random: Box::new(OsRandom),
    };
    let place = home.system().expect("places").session.expect("a node that has registered a tool");
    let mut system = System::load(parts(), place, home.root().key(), &node).expect("system session");
    system.settle().expect("settles");
    let models = models(home);
    system.register_own(models.iter().map(|model| model.spec())).expect("registers");
    let mut tools = tools(home, log.as_ref());
    tools.extend(models.into_iter().map(Tool::Model));
    let dirs = BTreeMap::from([("project".to_owned(), std::fs::canonicalize(project).expect("project"))]);
    let roots = dirs.iter().map(|(name, dir)| (name.clone(), toka_tools::open_root(dir).expect("root"))).collect();
    let this = std::env::current_exe().expect("a program knows its own path");
    let launcher = Launcher::open(&this.with_file_name("toka-jail")).expect("launcher");
    let means = |tools: Vec<Tool>| Means {
        tools,
        launcher: Some(Arc::new(launcher)),
        roots,
        threads: 2,
        watch: Arc::new(Silent),
        system: Some(system),
    };
    let session = match what {
        [resume, session] if resume == "--resume" => {
            let session = SessionId::from_hex(session).expect("session id");
            Session::resume(parts(), session, home.root().key(), means(tools)).expect("resumes")
        }
        [agent] => {
            let spec = AgentSet::load(Path::new(agent)).expect("agent file").top();
            let mut grants = root_grants(&spec, now_us).expect("grants");
            grants.splice(0..0, right_to_resolve(&spec, &tools, home.operator().not_after_us));
            let key = home.operator_key(None).expect("operator");
            let session = Session::open(parts(), &node, &spec, &grants, false, means(tools), Some(&key));
            let session = session.expect("opens");
            home.save_roots(session.id(), &dirs).expect("roots");
            session
        }
        _ => panic!("AGENT.yaml or --resume SESSION"),
    };
    session.run().expect("runs").completed
}

/// The approved tools of this node.
fn tools(home: &Home, log: &dyn ReadLog) -> Vec<Tool> {
    let places = home.system().expect("places");
    let known = known_tools(log, places.session.expect("a system session")).expect("known tools");
    let registered = known.into_iter().filter_map(|(known, spec)| {
        let folder = places.tools.get(&spec.name).filter(|_| known.state == ToolState::Approved)?;
        let program = Program::new(spec, ProgramFiles::Folder(folder.clone()))?.with_secrets(home.secrets());
        Some(Tool::Program(Arc::new(program)))
    });
    native_tools().into_iter().chain(registered).collect()
}

/// The models that the configuration of this node describes under the name `demo`.
fn models(home: &Home) -> Vec<Arc<Model>> {
    let Ok(text) = std::fs::read(home.dir().join("config.toml")) else { return Vec::new() };
    let configs = config::read("config.toml", &text).expect("a configuration");
    let model = |config: config::ProviderConfig| {
        let provider = HttpProvider::new(config.clone(), Environment::of_process()).expect("no TLS");
        Arc::new(Model::new(&config, "demo", Arc::new(provider), Arc::new(SystemClock)).expect("a model"))
    };
    configs.into_iter().map(model).collect()
}

/// A store whose writer is killed at one append.
struct Killing {
    inner: SqliteLog,
    at: u64,
    after: bool,
    appends: AtomicU64,
}

impl Log for Killing {
    fn append(&self, batch: &[Append]) -> Vec<Result<Head, AppendError>> {
        let due = self.appends.fetch_add(1, Ordering::SeqCst) + 1 == self.at;
        if due && !self.after {
            kill_this_process();
        }
        let answers = self.inner.append(batch);
        if due {
            kill_this_process();
        }
        answers
    }

    fn durability(&self) -> Durability {
        self.inner.durability()
    }

    fn find_content(&self, session: SessionId, bytes: &[u8]) -> Result<Option<Commitment>, ReadError> {
        self.inner.find_content(session, bytes)
    }
}

/// As by `kill -9` from outside: nothing is said, dropped or flushed.
fn kill_this_process() -> ! {
    kill_process(getpid(), Signal::KILL).expect("kills");
    loop {
        std::thread::park();
    }
}

impl ReadLog for Killing {
    fn sessions(&self, after: Option<SessionId>) -> Rows<'_, SessionRow> {
        self.inner.sessions(after)
    }

    fn head(&self, session: SessionId) -> Result<Option<Head>, ReadError> {
        self.inner.head(session)
    }

    fn read(&self, session: SessionId, from: Seq) -> Rows<'_, RawEntry> {
        self.inner.read(session, from)
    }

    fn blob(&self, session: SessionId, commitment: Commitment) -> Result<Option<StoredBlob>, ReadError> {
        self.inner.blob(session, commitment)
    }

    fn blob_len(&self, session: SessionId, commitment: Commitment) -> Result<Option<u64>, ReadError> {
        self.inner.blob_len(session, commitment)
    }

    fn strays(&self) -> Result<Vec<String>, ReadError> {
        self.inner.strays()
    }
}

/// Tells nobody: what is told is in the store or it is not.
struct Silent;

impl Watch for Silent {
    fn entry(&self, _entry: &Entry, _views: &Views) {}

    fn started(&self, _call: CallId) {}
}
