//! What recording costs a session at work: the whole path from an agent to the disk, against doing the same without a
//! record. `cargo bench -p toka-benches -- w1 stream` runs it; docs/MEASURED.md says what each line means.
//!
//! **W1** is one session with a scripted agent that makes 1,000 calls, one after the other, of a tool within this process
//! that answers 200 bytes; then it waits, open. It runs on SQLite as `toka run` does, without the system session.

use std::fs::{self, OpenOptions};
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ed25519_dalek::{Signature, Signer, SigningKey};
use serde_json::Value;
use tempfile::TempDir;
use toka_benches::{Goal, median, ratio, say};
use toka_kernel::denial::Dim;
use toka_kernel::entry::Head;
use toka_kernel::ids::{CallId, Commitment, Digest, Seq, SessionId};
use toka_kernel::keys::Role;
use toka_kernel::tool::{Effect, Level, Model as ExecutionModel, ParamSpec, ParamType, Reserve, ToolSpec};
use toka_kernel::{Body, Entry};
use toka_projections::Views;
use toka_replay::{Input, Options, verify};
use toka_runtime::agents::{AgentSet, AgentSpec};
use toka_runtime::clock::{Clock, GuardedClock, SystemClock};
use toka_runtime::engine::{CommitError, Parts};
use toka_runtime::executor::{Model, Tool};
use toka_runtime::gateway::http::HttpProvider;
use toka_runtime::gateway::key::Environment;
use toka_runtime::gateway::scripted::{Script, ScriptedServer, provider};
use toka_runtime::gateway::{Provider, RealTime, Run, Wait, Wire};
use toka_runtime::random::OsRandom;
use toka_runtime::session::{Means, Node, RunError, Session, Watch, root_grants};
use toka_store::log::Rows;
use toka_store::{
    Append, AppendError, Durability, Log, RawEntry, ReadError, ReadLog, SessionRow, SqliteLog, SqliteReader, StoredBlob,
};
use toka_tests::session::{Keys, NEVER_US, ORIGIN};
use toka_tools::{Cancel, NativeTool, Request, ToolFailure};

fn main() {
    toka_benches::run(&[("w1", w1), ("stream", stream)]);
}

/// Calls of W1.
const STEPS: usize = 1_000;
/// Bytes that its tool answers.
const ANSWER_BYTES: usize = 200;
/// The most bytes of the store for a step.
const STEP_BYTES_MAX: f64 = 1_600.0;
/// How often W1 runs.
const RUNS: usize = 5;

fn w1() {
    let mut worked: Vec<Worked> = Vec::new();
    let mut ratios = Vec::new();
    for _ in 0..RUNS {
        let work = Worked::new();
        ratios.push(work.raw().as_secs_f64() / work.took.as_secs_f64());
        worked.push(work);
    }
    let mut rates: Vec<f64> = worked.iter().map(|work| STEPS as f64 / work.took.as_secs_f64()).collect();
    println!("W1: {STEPS} steps of {ANSWER_BYTES} B, {:.0} steps per second on this disk", median(&mut rates));
    let appends = worked[0].appends.len() as f64 / STEPS as f64;
    say("W1 append, per second: steps / raw appends of the same bytes + fdatasync", Goal::None, median(&mut ratios));
    say("W1: durable appends per step / 1", Goal::AtMost(1.01), appends);
    let bytes = worked[0].store_bytes() as f64 / STEPS as f64;
    say(
        &format!("W1: {bytes:.0} B of the store per step / {STEP_BYTES_MAX} B"),
        Goal::AtMost(1.0),
        bytes / STEP_BYTES_MAX,
    );
    let content: usize = worked[0].appends.iter().map(Vec::len).sum();
    say("W1: bytes of the store / bytes of its entries and blobs", Goal::None, bytes * STEPS as f64 / content as f64);

    let work = &worked[0];
    let entries = work.entries();
    ratio(
        &format!("W1 recover: open, resume {entries} entries / strict checks alone"),
        Goal::None,
        || work.recover(),
        || strict_checks(entries),
    );
    ratio(
        "the same / reading the file",
        Goal::None,
        || work.recover(),
        || {
            let start = Instant::now();
            black_box(fs::read(work.path()).expect("a file"));
            start.elapsed()
        },
    );
    ratio(
        "W1 full verify, one core / strict checks alone",
        Goal::AtMost(1.5),
        || work.verify(),
        || strict_checks(entries),
    );
}

fn strict_checks(count: usize) -> Duration {
    let bare = SigningKey::from_bytes(&[7; 32]);
    let (public, signature): (_, Signature) = (bare.verifying_key(), bare.sign(&[9; 51]));
    let start = Instant::now();
    for _ in 0..count {
        assert!(public.verify_strict(black_box(&[9; 51]), &signature).is_ok());
    }
    start.elapsed()
}

/// A store with a session that has made its calls, the last of which is durable, and waits.
struct Worked {
    dir: TempDir,
    session: SessionId,
    took: Duration,
    /// The bytes of each append from the first call on.
    appends: Vec<Vec<u8>>,
}

impl Worked {
    fn new() -> Worked {
        let dir = tempfile::tempdir_in(".").expect("a folder on this disk");
        let numbers: Vec<String> = (0..=STEPS).map(|number| format!("\"{number}\"")).collect();
        // Loops are bounded at as many items as W1 has steps; one more call is admitted and never runs.
        let (first, rest) = numbers.split_first().expect("numbers");
        let spec = agent(&format!(
            "apiVersion: toka/v1\nkind: Agent\nmetadata: {{ name: w1, version: 1.0.0 }}\nspec:\n  tools: [ answer ]\n  \
             capabilities: [ \"tool:answer\" ]\n  budget: {{ calls: {}, wall: 1h }}\n  program:\n    script:\n      \
             steps:\n        - {{ id: first, call: {{ tool: answer, args: {{ i: {first} }} }} }}\n        - id: each\n          \
             for_each:\n            in: [ {} ]\n            as: number\n            steps:\n              - {{ id: one, call: {{ \
             tool: answer, args: {{ i: {{ ref: number }} }} }} }}\n",
            STEPS + 1,
            rest.join(", ")
        ));
        let log = Arc::new(Recording::open(&dir.path().join("store.sqlite")));
        let keys = Keys::seeded(1);
        let watch = Arc::new(Stopwatch::default());
        let now_us = SystemClock.read().wall_us;
        let grants = root_grants(&spec, now_us).expect("grants");
        let answer = Tool::Native(Arc::new(Answer::new()));
        let means = means(vec![answer], watch.clone());
        let session = Session::open(parts(log.clone(), &keys), &node(&keys), &spec, &grants, false, means, None);
        let session = session.expect("opens");
        let id = session.id();
        let ended = session.run();
        assert!(matches!(ended, Err(RunError::Commit(CommitError::Append(_)))), "{ended:?}");
        let appends = std::mem::take(&mut *log.appends.lock().unwrap_or_else(PoisonError::into_inner));
        assert_eq!(watch.ended.load(Ordering::SeqCst), STEPS as u64);
        Worked { dir, session: id, took: watch.between(), appends }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("store.sqlite")
    }

    /// The time of writing the same bytes to a file, each append flushed.
    fn raw(&self) -> Duration {
        let mut raw = OpenOptions::new().append(true).create(true).open(self.dir.path().join("raw")).expect("opens");
        let start = Instant::now();
        for bytes in &self.appends {
            raw.write_all(bytes).and_then(|()| raw.sync_data()).expect("written");
        }
        start.elapsed()
    }

    /// Bytes of all files of the store, now that its writer has closed it.
    fn store_bytes(&self) -> u64 {
        let files = fs::read_dir(self.dir.path()).expect("lists").map(|file| file.expect("a file"));
        let of_store = files.filter(|file| file.file_name().to_string_lossy().starts_with("store.sqlite"));
        of_store.map(|file| file.metadata().expect("there").len()).sum()
    }

    fn entries(&self) -> usize {
        SqliteReader::open(self.path()).expect("opens").read(self.session, 0).count()
    }

    /// From nothing but the store to a session that can go on; no tool runs.
    fn recover(&self) -> Duration {
        let watch = Arc::new(Stopwatch::default());
        let keys = Keys::seeded(1);
        let start = Instant::now();
        let log = Arc::new(SqliteLog::open(self.path()).expect("opens"));
        let answer = Tool::Native(Arc::new(Answer::new()));
        let means = means(vec![answer], watch.clone());
        let session = Session::resume(parts(log, &keys), self.session, &keys.pinned(), means).expect("resumes");
        let took = start.elapsed();
        assert_eq!(session.views().calls.open_after(0).count(), 1, "ready to run the next call");
        drop(session);
        assert_eq!(watch.started.load(Ordering::SeqCst), 0, "no tool ran");
        took
    }

    fn verify(&self) -> Duration {
        let options = Options { root: Some(Keys::seeded(1).pinned()), jobs: 1, ..Options::default() };
        let start = Instant::now();
        let input = Input::open(&self.path()).expect("opens");
        let report = verify(&input, &options, &mut |_| {}).expect("self-test");
        let took = start.elapsed();
        // The session is open and nobody has anchored it: that is the only thing left unsaid.
        assert_eq!(report.exit(), 4, "{:?}", report.findings.first());
        took
    }
}

fn agent(text: &str) -> AgentSpec {
    let files = [("agent.yaml".to_owned(), text.as_bytes().to_vec())].into();
    AgentSet::from_files("agent.yaml", &files).unwrap_or_else(|errors| panic!("{errors:?}")).top()
}

fn node(keys: &Keys) -> Node {
    Node {
        origin: ORIGIN.to_owned(),
        root_key: keys.root.public().id(),
        key_grants: vec![keys.grant(Role::Event, &keys.event), keys.grant(Role::Operator, &keys.operator)],
        operator: keys.operator.public().id(),
        build: "bench".to_owned(),
    }
}

fn parts(log: Arc<dyn Log>, keys: &Keys) -> Parts {
    let clock = GuardedClock::new(Arc::new(SystemClock));
    Parts { log, key: keys.writer(), clock, random: Box::new(OsRandom) }
}

fn means(tools: Vec<Tool>, watch: Arc<Stopwatch>) -> Means {
    Means { tools, launcher: None, roots: Default::default(), threads: 2, watch, system: None }
}

/// The tool of W1: eight digits of what it is asked, and `x` up to 200 bytes.
#[derive(Debug)]
struct Answer(ToolSpec);

impl Answer {
    fn new() -> Answer {
        let fixed = |dim: Dim, base: u64| Reserve { dim: dim.number(), base, per: 0, pointer: None };
        let param = ParamSpec {
            name: "i".to_owned(),
            kind: ParamType::String.number(),
            required: true,
            default: None,
            min: None,
            max: None,
            max_len: None,
            values: Vec::new(),
            description: "A decimal".to_owned(),
            items: None,
        };
        let spec = ToolSpec {
            name: "answer".to_owned(),
            version: "1".to_owned(),
            description: "Answers 200 bytes.".to_owned(),
            program: Digest::default(),
            facts: Vec::new(),
            needs: Vec::new(),
            effect: Effect::Read.number(),
            reserve: vec![
                fixed(Dim::BytesIn, 4_096),
                fixed(Dim::BytesOut, 4_096),
                fixed(Dim::Tokens, 0),
                fixed(Dim::CostMicro, 0),
                fixed(Dim::WallUs, 1_000_000),
                fixed(Dim::CpuUs, 1_000_000),
            ],
            model: ExecutionModel::Tool.number(),
            level: Level::Native.number(),
            parallel_safe: true,
            params: vec![param],
            result: "A text.".to_owned(),
            labels: Default::default(),
            run: None,
            probe: None,
        };
        Answer(spec)
    }
}

impl NativeTool for Answer {
    fn spec(&self) -> &ToolSpec {
        &self.0
    }

    fn run(&self, request: &Request<'_>, _control: &dyn Cancel) -> Result<Value, ToolFailure> {
        let number = request.arguments["i"].as_str().unwrap_or_default();
        let answer = format!("{number:0>8}{}", "x".repeat(ANSWER_BYTES - 8));
        assert_eq!(answer.len(), ANSWER_BYTES);
        Ok(Value::from(answer))
    }
}

/// A store that keeps what is appended, to be written again without it, and takes no more than W1 has.
struct Recording {
    inner: SqliteLog,
    count: AtomicU64,
    appends: Mutex<Vec<Vec<u8>>>,
}

impl Recording {
    fn open(path: &Path) -> Recording {
        let inner = SqliteLog::open(path).expect("opens");
        Recording { inner, count: AtomicU64::new(0), appends: Mutex::default() }
    }
}

impl Log for Recording {
    fn append(&self, batch: &[Append]) -> Vec<Result<Head, AppendError>> {
        // The first holds everything up to the first call, each of the others an outcome and the next call.
        let before = self.count.fetch_add(1, Ordering::SeqCst);
        if before > STEPS as u64 {
            return batch.iter().map(|_| Err(AppendError::Full { what: "W1 is over".to_owned() })).collect();
        }
        if before > 0 {
            let entries = batch.iter().flat_map(|part| part.entries.iter().map(|entry| &entry.bytes));
            let blobs = batch.iter().flat_map(|part| part.blobs.iter().map(|blob| &blob.bytes));
            let bytes = entries.chain(blobs).flatten().copied().collect();
            self.appends.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
        }
        self.inner.append(batch)
    }

    fn durability(&self) -> Durability {
        self.inner.durability()
    }

    fn find_content(&self, session: SessionId, bytes: &[u8]) -> Result<Option<Commitment>, ReadError> {
        self.inner.find_content(session, bytes)
    }
}

impl ReadLog for Recording {
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
}

/// When the first call began and the last one was durably over, and how many there were.
#[derive(Default)]
struct Stopwatch {
    times: Mutex<Option<(Instant, Instant)>>,
    started: AtomicU64,
    ended: AtomicU64,
}

impl Stopwatch {
    fn between(&self) -> Duration {
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.map(|(first, last)| last - first).expect("a call")
    }
}

impl Watch for Stopwatch {
    fn entry(&self, entry: &Entry, _views: &Views) {
        if matches!(entry.event().expect("event").body, Body::CallFinished(_)) {
            self.ended.fetch_add(1, Ordering::SeqCst);
            if let Some((_, last)) = &mut *self.times.lock().unwrap_or_else(PoisonError::into_inner) {
                *last = Instant::now();
            }
        }
    }

    fn started(&self, _call: CallId) {
        let now = Instant::now();
        self.started.fetch_add(1, Ordering::SeqCst);
        self.times.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert((now, now));
    }
}

/// Chunks of the answer that is streamed.
const CHUNKS: usize = 1_000;
/// What a scripted server puts into one.
const CHUNK_CHARS: usize = 24;

fn stream() {
    // Text differs from chunk to chunk, and the last events hold the reason and the usage.
    let text: String = (0..CHUNKS).map(|chunk| format!("{chunk:0>23} ")).collect();
    assert_eq!(text.len(), CHUNKS * CHUNK_CHARS);
    let script = format!(
        "apiVersion: toka/v1\nkind: ModelScript\nlanes:\n  writer:\n    - reply: {{ text: \"{text}\", calls: [ {{ tool: \
         agent.finish, arguments: {{ result: 1 }} }} ] }}\n"
    );
    let script = Script::read("model.yaml", script.as_bytes()).unwrap_or_else(|errors| panic!("{errors:?}"));
    let server = ScriptedServer::start(script).expect("it listens");
    compare(&server, &server.base_url(), "as fast as they come", Goal::None);
    let paced = Paced::start(&server.base_url());
    compare(&server, &paced.base_url, "in a second", Goal::AtMost(1.05));
}

/// Compares exchanges with what answers at this URL, which is the server or stands before it.
fn compare(server: &ScriptedServer, base_url: &str, pace: &str, goal: Goal) {
    let config = provider("scripted", base_url).expect("a URL of this machine");
    let provider = Arc::new(HttpProvider::new(config.clone(), Environment::of_process()).expect("no TLS"));
    let model = Model::new(&config, "demo", provider.clone(), Arc::new(SystemClock)).expect("a model");
    let model = Tool::Model(Arc::new(model));
    let spec = agent(
        "apiVersion: toka/v1\nkind: Agent\nmetadata: { name: writer, version: 1.0.0 }\nspec:\n  description: Write\n  \
         program: { model: { provider: scripted, name: demo } }\n",
    );
    let dir = tempfile::tempdir_in(".").expect("a folder on this disk");
    let log: Arc<dyn Log> = Arc::new(SqliteLog::open(dir.path().join("store.sqlite")).expect("opens"));
    let recorded = || recorded_exchange(&log, &spec, model.clone());
    recorded();
    let body = server.captured().pop().expect("a request").body;
    ratio(&format!("{CHUNKS} chunks {pace}: until their record is durable / without a record"), goal, recorded, || {
        bare_exchange(provider.as_ref(), &body)
    });
}

/// Stands before a server and lets the chunks of its answers through one by one, a thousand in a second.
struct Paced {
    base_url: String,
}

impl Paced {
    /// Lasts as long as this process.
    fn start(server: &str) -> Paced {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let host = server.trim_start_matches("http://").split('/').next().expect("a host").to_owned();
        let base_url = server.replace(&host, &listener.local_addr().expect("bound").to_string());
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let server = TcpStream::connect(&host).expect("it listens");
                pass(client.expect("a client"), server).expect("both stay to the end");
            }
        });
        Paced { base_url }
    }
}

fn pass(mut client: TcpStream, mut server: TcpStream) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let (mut asked, mut asks) = (client.try_clone()?, server.try_clone()?);
    let asking = std::thread::spawn(move || std::io::copy(&mut asked, &mut asks));
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    let start = Instant::now();
    let ends: Vec<usize> =
        answer.windows(4).enumerate().filter(|(_, four)| *four == b"\n\n\r\n").map(|(at, _)| at + 4).collect();
    let mut sent = 0;
    for (number, end) in (1..).zip(ends.into_iter().chain([answer.len()])) {
        let left = (start + Duration::from_millis(number)).saturating_duration_since(Instant::now());
        RealTime.wait(u64::try_from(left.as_micros()).unwrap_or(0), &AtomicBool::new(false));
        client.write_all(&answer[sent..end])?;
        sent = end;
    }
    // The client goes away once it has read the end, perhaps before this.
    let _ = client.shutdown(Shutdown::Write);
    asking.join().expect("the request was passed on")?;
    Ok(())
}

/// Asks within a session, until the answer is durable.
fn recorded_exchange(log: &Arc<dyn Log>, spec: &AgentSpec, model: Tool) -> Duration {
    let keys = Keys::seeded(1);
    let watch = Arc::new(Stopwatch::default());
    let grants = root_grants(spec, SystemClock.read().wall_us).expect("grants");
    let means = means(vec![model], watch.clone());
    let session = Session::open(parts(log.clone(), &keys), &node(&keys), spec, &grants, false, means, None);
    let finish = session.expect("opens").run().expect("runs");
    assert!(finish.completed, "{finish:?}");
    assert_eq!(watch.ended.load(Ordering::SeqCst), 1, "one request");
    watch.between()
}

/// Sends the same request and reads its answer by the same client.
fn bare_exchange(provider: &HttpProvider, body: &[u8]) -> Duration {
    let wire = Wire { lane: "writer".to_owned(), ordinal: 0, body: body.to_vec() };
    let start = Instant::now();
    let mut run = Run {
        clock: &SystemClock,
        wait: &RealTime,
        stop: &AtomicBool::new(false),
        deadline_us: NEVER_US,
        seed: [7; 32],
        attempted: &mut |attempt| panic!("{attempt:?}"),
    };
    let reply = provider.call(&wire, &mut run).expect("an answer");
    let took = start.elapsed();
    assert!(reply.raw.bytes.len() > CHUNKS * CHUNK_CHARS);
    took
}
