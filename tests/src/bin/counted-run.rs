//! Runs an agent file like `toka run`, with one more tool: `counter` appends the id of its call to a file each time it
//! runs. Whoever kills this program can then compare what ran with what the log says.
//!
//! `counted-run HOME PROJECT COUNTED AGENT.yaml` begins a session, `counted-run HOME PROJECT COUNTED --resume SESSION`
//! goes on with one. On stdout: `entry SEQ HASH` for each entry as soon as it is durable, `finished CALL` with the
//! entry that ends a call, `done` at the end.
#![forbid(unsafe_code)]

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use toka_kernel::ids::{CallId, SessionId};
use toka_kernel::tool::ToolSpec;
use toka_kernel::{Body, Entry};
use toka_projections::Views;
use toka_runtime::Home;
use toka_runtime::agents::AgentSet;
use toka_runtime::clock::{GuardedClock, SystemClock};
use toka_runtime::engine::Parts;
use toka_runtime::executor::{Tool, native_tools};
use toka_runtime::random::OsRandom;
use toka_runtime::session::{Means, Node, RunError, Session, Watch, root_grants};
use toka_store::SqliteLog;
use toka_tools::{Cancel, NativeTool, Request, ToolFailure, by_name};

#[derive(Debug)]
struct Counter {
    spec: ToolSpec,
    counted: PathBuf,
}

impl Counter {
    fn new(counted: PathBuf) -> Counter {
        let mut spec = by_name("file-reader").expect("shipped").spec().clone();
        spec.name = "counter".to_owned();
        Counter { spec, counted }
    }
}

impl NativeTool for Counter {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn run(&self, request: &Request<'_>, _control: &dyn Cancel) -> Result<Value, ToolFailure> {
        let mut file = OpenOptions::new().append(true).create(true).open(&self.counted).expect("counter opens");
        file.write_all(format!("{}\n", request.call_id).as_bytes()).expect("counter counts");
        Ok(json!({ "counted": true }))
    }
}

struct Teller;

impl Watch for Teller {
    fn entry(&self, entry: &Entry, _views: &Views) {
        let mut out = std::io::stdout().lock();
        let finished = match entry.event().map(|event| &event.body) {
            Ok(Body::CallFinished(finished)) => format!("finished {}\n", finished.call),
            _ => String::new(),
        };
        let line = format!("entry {} {}\n{finished}", entry.header().seq, entry.hash());
        out.write_all(line.as_bytes()).and_then(|()| out.flush()).expect("stdout");
    }

    fn started(&self, _call: CallId) {}
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [home, project, counted, what @ ..] = args.as_slice() else { panic!("HOME PROJECT COUNTED …") };
    let home = Home::open(Path::new(home)).expect("home");
    let clock = GuardedClock::new(Arc::new(SystemClock));
    let now = clock.now_us().expect("clock");
    let log = Arc::new(SqliteLog::open(home.store_path()).expect("store"));
    let parts = Parts { log, key: home.event_key(now).expect("key"), clock, random: Box::new(OsRandom) };
    let mut tools = native_tools();
    tools.push(Tool::Native(Arc::new(Counter::new(PathBuf::from(counted)))));
    let root = toka_tools::open_root(Path::new(project)).expect("root");
    let roots = [("project".to_owned(), root)].into();
    let means = Means { tools, launcher: None, roots, threads: 2, watch: Arc::new(Teller), system: None };
    let session = match what {
        [resume, session] if resume == "--resume" => {
            let session = SessionId::from_hex(session).expect("session id");
            match Session::resume(parts, session, home.root().key(), means) {
                // The kill came between the last entry and the word that said so.
                Err(RunError::Closed(_)) => return println!("done"),
                resumed => resumed.expect("resumes"),
            }
        }
        [agent] => {
            let spec = AgentSet::load(Path::new(agent)).expect("agent file").top();
            let node = Node {
                origin: home.origin().to_owned(),
                root_key: home.root().key().id(),
                key_grants: home.grant_records(),
                operator: home.operator_id(),
                build: "counted-run".to_owned(),
            };
            let grants = root_grants(&spec, now).expect("grants");
            Session::open(parts, &node, &spec, &grants, false, means, None).expect("opens")
        }
        _ => panic!("AGENT.yaml or --resume SESSION"),
    };
    let finish = session.run().expect("runs");
    println!("{}", if finish.completed { "done" } else { "failed" });
}
