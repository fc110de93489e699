//! Sessions run through the engine, drivers and executors, on stores in memory and on disk.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use toka_kernel::capability::Capability;
use toka_kernel::ids::{Bytes, CallId, SessionId};
use toka_kernel::keys::{KeyGrant, Role, SecretKey};
use toka_kernel::{Entry, EventKey};
use toka_projections::Views;
use toka_runtime::agents::{AgentSet, AgentSpec};
use toka_runtime::clock::{GuardedClock, PushedClock};
use toka_runtime::engine::Parts;
use toka_runtime::executor::native_tools;
use toka_runtime::random::SeededRandom;
use toka_runtime::session::{Finish, Means, Node, RunError, Session, Watch, root_grants};
use toka_store::{Log, MemoryLog};
use toka_tests::session::{Keys, NEVER_US, ORIGIN, START_US};

#[derive(Default)]
struct Seen {
    lines: Mutex<Vec<String>>,
    started: Mutex<Vec<CallId>>,
}

impl Watch for Seen {
    fn entry(&self, _entry: &Entry, views: &Views) {
        if let Some(moment) = views.timeline.iter().last() {
            let line = format!("{} {} {}: {}", moment.seq, moment.kind, moment.who, moment.what);
            self.lines.lock().expect("lock").push(line);
        }
    }

    fn started(&self, call: CallId) {
        self.started.lock().expect("lock").push(call);
    }
}

fn node(keys: &Keys) -> Node {
    let grant =
        |role, key: &SecretKey| Bytes(KeyGrant::issue(role, 1, 0..NEVER_US, key.public(), ORIGIN, &keys.root).encode());
    Node {
        origin: ORIGIN.to_owned(),
        root_key: keys.root.public().id(),
        key_grants: vec![grant(Role::Event, &keys.event), grant(Role::Operator, &keys.operator)],
        operator: keys.operator.public().id(),
        build: "test".to_owned(),
    }
}

fn parts(log: &Arc<dyn Log>, keys: &Keys) -> Parts {
    Parts {
        log: log.clone(),
        key: EventKey::new(keys.event.clone(), 1),
        clock: GuardedClock::new(Arc::new(PushedClock::at(START_US))),
        random: Box::new(SeededRandom::new(b"test")),
    }
}

fn means(dir: &Path, seen: &Arc<Seen>) -> Means {
    let root = toka_tools::open_root(dir).expect("root opens");
    Means {
        tools: native_tools(),
        launcher: None,
        roots: BTreeMap::from([("project".to_owned(), root)]),
        threads: 2,
        system: None,
        watch: seen.clone(),
    }
}

fn spec(files: &[(&str, &str)]) -> AgentSpec {
    let files = files.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect();
    AgentSet::from_files("parent.yaml", &files).unwrap_or_else(|errors| panic!("{errors:?}")).top()
}

fn run(log: &Arc<dyn Log>, dir: &Path, spec: &AgentSpec) -> (Result<Finish, RunError>, Arc<Seen>) {
    let keys = Keys::seeded(1);
    let seen = Arc::new(Seen::default());
    let roots: Vec<Capability> = root_grants(spec, START_US).expect("roots");
    let session = Session::open(parts(log, &keys), &node(&keys), spec, &roots, false, means(dir, &seen), None);
    (session.and_then(Session::run), seen)
}

const PARENT: &str = r#"
apiVersion: toka/v1
kind: Agent
metadata: { name: parent, version: 1.0.0 }
spec:
  tools: [ "*" ]
  capabilities:
    - fs:project/**#create,list,read,write
    - tool:*
    - agent:child?live=1
  program:
    script:
      steps:
        - { id: list, call: { tool: file-lister, args: { path: "project:" } } }
        - { id: helper, spawn: { spec: child, grants: [ "fs:project/docs/**#read", "tool:file-reader" ] } }
        - { id: done, wait: { agents: [ helper ] } }
        - id: each
          for_each:
            in: { ref: steps.list.output, pointer: /entries }
            as: entry
            steps:
              - id: empty
                when: { ref: entry, pointer: /bytes, equals: 0 }
                call:
                  tool: file-writer
                  args: { path: "project:report.txt", content: { ref: entry, pointer: /path } }
"#;

const CHILD: &str = r#"
apiVersion: toka/v1
kind: Agent
metadata: { name: child, version: 1.0.0 }
spec:
  tools: [ file-reader ]
  capabilities: [ "fs:project/docs/**#read", "tool:file-reader" ]
  program:
    script:
      steps:
        - { id: guide, call: { tool: file-reader, args: { path: "project:docs/guide.md" } } }
        - { id: secret, call: { tool: file-reader, args: { path: "project:secret.txt" } }, on_error: continue }
"#;

fn project() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("dir");
    std::fs::create_dir(dir.path().join("docs")).expect("dir");
    for (name, content) in [("docs/guide.md", "hello"), ("secret.txt", "s"), ("empty.txt", "")] {
        std::fs::write(dir.path().join(name), content).expect("file");
    }
    dir
}

#[test]
fn a_parent_and_its_child_work_within_their_grants() {
    let dir = project();
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
    let spec = spec(&[("parent.yaml", PARENT), ("child.yaml", CHILD)]);
    let (finish, seen) = run(&log, dir.path(), &spec);
    let lines = seen.lines.lock().expect("lock").join("\n");
    let finish = finish.unwrap_or_else(|error| panic!("{error}\n{lines}"));
    assert!(finish.completed, "{finish:?}\n{lines}");
    println!("{lines}");
    assert_eq!(std::fs::read_to_string(dir.path().join("report.txt")).expect("report"), "project:empty.txt");
    assert!(lines.contains("OUT_OF_SCOPE, it would need fs:project/secret.txt#read"), "{lines}");
    let sessions: Vec<SessionId> = log.sessions(None).map(|row| row.expect("row").session).collect();
    assert_eq!(sessions, [finish.session]);
}

const CROWD: &str = r#"
apiVersion: toka/v1
kind: Agent
metadata: { name: parent, version: 1.0.0 }
spec:
  capabilities: [ "fs:project/**#list,read", "tool:file-reader?calls=1000", "agent:child?live=400", "agent:group?live=4" ]
  program:
    script:
      steps:
        - { id: one, spawn: { spec: group, grants: ALL } }
        - { id: two, spawn: { spec: group, grants: ALL } }
        - { id: three, spawn: { spec: group, grants: ALL } }
"#;

/// An agent that spawns this many children, one step each, so that all are spawned before any call runs.
fn group(children: usize) -> String {
    let mut group = r#"
apiVersion: toka/v1
kind: Agent
metadata: { name: group, version: 1.0.0 }
spec:
  capabilities: [ "fs:project/**#list,read", "tool:file-reader?calls=1000", "agent:child?live=90" ]
  program:
    script:
      steps:
"#
    .to_owned();
    for child in 0..children {
        group += &format!(
            "        - {{ id: c{child}, on_error: continue, spawn: {{ spec: child, grants: [ \"fs:project/docs/**#read\", \
             \"tool:file-reader\" ] }} }}\n"
        );
    }
    group
}

#[test]
fn a_child_that_may_not_start_is_ended_and_its_parent_goes_on() {
    const CHILDREN: usize = 90;
    let dir = project();
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
    let all = r#"[ "fs:project/**#list,read", "tool:file-reader?calls=1000", "agent:child?live=90" ]"#;
    let crowd = CROWD.replace("ALL", all);
    let (finish, seen) = run(
        &log,
        dir.path(),
        &spec(&[("parent.yaml", &crowd), ("group.yaml", &group(CHILDREN)), ("child.yaml", CHILD)]),
    );
    let lines = seen.lines.lock().expect("lock");
    let finish = finish.unwrap_or_else(|error| panic!("{error}: {:?}", lines.last()));
    let count = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
    // 256 agents run at once, and the parent and its three groups are among them.
    let refused = 3 * CHILDREN - (256 - 4);
    assert_eq!(count("AgentSpawned"), 1 + 3 + 3 * CHILDREN);
    assert_eq!(count("start an agent: AGENT_CAP"), refused);
    assert_eq!(count("AgentEnded"), 1 + 3 + 3 * CHILDREN);
    assert!(finish.completed, "{finish:?}");
}
