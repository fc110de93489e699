//! Goals of speed. `cargo bench -p toka-benches` prints a line per goal: the median ratio, the goal, and whether it is
//! met. The exit code tells nothing about speed: a busy machine is no failure.

use std::fs::OpenOptions;
use std::hint::black_box;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ed25519_dalek::{Signature, Signer, SigningKey};
use toka_benches::{Goal, SLICES, ratio};
use toka_kernel::body::v1::{CallAsked, GrantTo, IssueAsked};
use toka_kernel::ids::{CallId, CommandId, GrantId, PrincipalId, derived};
use toka_kernel::{Ask, Command, Entry, Event, Head, Stamp, State};
use toka_replay::{Input, Options, verify};
use toka_runtime::clock::{GuardedClock, PushedClock};
use toka_runtime::engine::{Engine, Parts};
use toka_runtime::random::SeededRandom;
use toka_store::{Append, Log, MemoryLog, NewBlob, RawEntry, SqliteLog};
use toka_tests::session::{EXECUTOR, Keys, START_US, Session, genesis, reader, report};

const FS: &str = "fs:project/**#list,read?depth=3&exp=1800000000000000";
const TOOL: &str = "tool:reader?depth=3&exp=1800000000000000";

fn main() {
    toka_benches::run(&[
        ("seal", seal_and_accept),
        ("commit", commit_on_memory),
        ("verify", verification),
        ("hash", hashing),
        ("append", durable_append),
        ("many", many_entities),
    ]);
}

fn timed(times: usize, mut work: impl FnMut()) -> Duration {
    let start = Instant::now();
    for _ in 0..times {
        work();
    }
    start.elapsed()
}

/// A session in which `calls` calls were made and finished.
fn session(calls: usize) -> Session {
    let mut session = Session::open_with(Keys::seeded(1), &[FS, TOOL], 1_024);
    session.bind(reader());
    let (opener, fs, tool) = (session.opener(), session.root(0), session.root(1));
    for number in 0..calls {
        session.call(opener, &format!("project:docs/{number:08}"), tool, &[fs]);
        let call = CallId(session.made(0));
        session.finish(call, b"a result");
    }
    session
}

fn seal_and_accept() {
    const TIMES: usize = 2_000;
    let session = session(4);
    let keys = Keys::seeded(1);
    let writer = keys.writer();
    let entry = session.entries.last().expect("entries");
    let event: Event = entry.event().expect("event").clone();
    let (by, head) = (entry.header().principal, session.entries[session.entries.len() - 2].head());
    let stamp = Stamp { time_us: entry.header().time_us, clock_behind: false };
    let bare = SigningKey::from_bytes(&[7; 32]);
    let message = [9u8; 51];
    let size = entry.body().len();
    ratio(
        &format!("seal + encode + hash + link of an entry ({size} B body) / one signature"),
        Goal::AtMost(1.3),
        || timed(TIMES, || drop(black_box(Entry::seal(&head, by, stamp, event.clone(), &writer)))),
        || {
            timed(TIMES, || {
                black_box(bare.sign(black_box(&message)));
            })
        },
    );
    let signature: Signature = bare.sign(&message);
    let public = bare.verifying_key();
    ratio(
        "accept / one strict check",
        Goal::AtMost(1.15),
        || timed(TIMES, || assert!(black_box(head.accept(entry, &session.keyring)).is_ok())),
        || timed(TIMES, || assert!(public.verify_strict(black_box(&message), &signature).is_ok())),
    );
}

fn commit_on_memory() {
    const TIMES: usize = 1_000;
    let keys = Keys::seeded(1);
    let parts = Parts {
        log: Arc::new(MemoryLog::new()),
        key: keys.writer(),
        clock: GuardedClock::new(Arc::new(PushedClock::at(START_US))),
        random: Box::new(SeededRandom::new(b"bench")),
    };
    let mut engine = Engine::open(parts, &genesis(&keys, &[FS, TOOL], 1_024)).expect("opens");
    let mut tool = reader();
    tool.text = 0;
    let binding = toka_kernel::body::v1::Binding { tool, cite: None, replaces: None };
    let bind = Ask::BindTool(toka_kernel::body::v1::BindAsked { tools: vec![binding] });
    engine.commit(PrincipalId::NODE, Command::of_node(bind, Vec::new()), &[b"spec".to_vec()]).expect("binds");
    engine.flush(&mut |_, _| {}).expect("flushes");
    let root = |index| GrantId(derived(engine.session(), 0, index));
    let (fs, tool, opener) = (root(0), root(1), keys.opener());
    let mut number = 0u64;
    let mut step = || {
        number += 1;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        let Ask::Call(asked) = toka_tests::session::call("project:docs/a", tool, &[fs]) else { unreachable!() };
        let asked = Ask::Call(Box::new(CallAsked { ..*asked }));
        engine.commit(opener, Command::new(CommandId(id), 0, asked, Vec::new()), &[b"{}".to_vec()]).expect("admits");
        engine.flush(&mut |_, _| {}).expect("flushes");
        let call = CallId(derived(engine.session(), engine.state().head().seq, 0));
        id[8] = 1;
        let asked = Ask::Report(Box::new(report(call)));
        engine.commit(EXECUTOR, Command::new(CommandId(id), 0, asked, Vec::new()), &[]).expect("ends");
        engine.flush(&mut |_, _| {}).expect("flushes");
    };
    let bare = SigningKey::from_bytes(&[7; 32]);
    ratio(
        "whole commit on the memory store, views included / one signature",
        Goal::AtMost(2.0),
        || timed(TIMES, &mut step) / 2,
        || {
            timed(TIMES, || {
                black_box(bare.sign(black_box(&[9u8; 51])));
            })
        },
    );
}

fn append(session: &Session, expected: Head, entries: &[Entry]) -> Append {
    let used: Vec<_> = entries.iter().flat_map(|entry| &entry.header().blobs).map(|blob| blob.commitment).collect();
    let blobs = session.blobs.iter().filter(|blob| used.contains(&blob.reference.commitment));
    Append {
        expected,
        entries: entries
            .iter()
            .map(|entry| RawEntry { seq: entry.header().seq, bytes: entry.bytes().to_vec() })
            .collect(),
        head: entries.last().expect("entries").head(),
        blobs: blobs
            .map(|blob| NewBlob { commitment: blob.reference.commitment, salt: blob.salt, bytes: blob.bytes.clone() })
            .collect(),
    }
}

fn verification() {
    const CALLS: usize = 5_000;
    let session = session(CALLS);
    let entries = session.entries.len();
    let log = MemoryLog::new();
    log.append(&[append(&session, Head::none(), &session.entries)]).pop().expect("answer").expect("appended");
    let input = Input::store(Box::new(log), "memory");
    let options = |jobs, fast| Options { root: Some(session.keys.pinned()), jobs, fast, ..Options::default() };
    let run = |jobs, fast| {
        let start = Instant::now();
        let report = verify(&input, &options(jobs, fast), &mut |_| {}).expect("self-test");
        // The session is open and nobody has anchored it: that is the only thing left unsaid.
        assert_eq!(report.exit(), 4, "{:?}", report.findings.first());
        start.elapsed()
    };
    let bare = SigningKey::from_bytes(&[7; 32]);
    let public = bare.verifying_key();
    let signature: Signature = bare.sign(&[9u8; 51]);
    ratio(
        &format!("full verify of {entries} entries, one core / strict checks alone"),
        Goal::AtMost(1.5),
        || run(1, false),
        || timed(entries, || assert!(public.verify_strict(black_box(&[9u8; 51]), &signature).is_ok())),
    );
    ratio("full verify on one core / on two", Goal::AtLeast(1.6), || run(1, false), || run(2, false));
}

fn hashing() {
    let session = session(2_000);
    let bytes: Vec<Vec<u8>> = session.entries.iter().map(|entry| entry.bytes().to_vec()).collect();
    ratio(
        "hash-only verify (read, hash, link) / hashing the same bytes",
        Goal::AtMost(2.0),
        || {
            timed(1, || {
                let mut prev = toka_kernel::ids::EntryHash::ZERO;
                for bytes in &bytes {
                    let entry = Entry::read(bytes).expect("entry");
                    assert!(entry.header().prev == prev && entry.body_matches());
                    prev = entry.hash();
                }
            })
        },
        || {
            timed(1, || {
                for bytes in &bytes {
                    black_box(blake3::hash(bytes));
                }
            })
        },
    );
}

fn durable_append() {
    durable("one entry", Goal::AtLeast(0.8), &granted(APPENDS * SLICES));
    durable("one entry, half of them with a blob", Goal::None, &session(APPENDS * SLICES));
}

/// Appends of a slice.
const APPENDS: usize = 200;

/// Compares appends of one entry and its blobs with raw writes of the same bytes, each flushed.
fn durable(what: &str, goal: Goal, session: &Session) {
    let dir = tempfile::tempdir_in(".").expect("a folder on this disk");
    let log = SqliteLog::open(dir.path().join("store.sqlite")).expect("opens");
    let mut raw = OpenOptions::new().append(true).create(true).open(dir.path().join("raw")).expect("opens");
    let mut head = Head::none();
    let mut next = |entries: &[Entry]| {
        let part = append(session, head, entries);
        head = part.head;
        part
    };
    log.append(&[next(&session.entries[..2])]).pop().expect("answer").expect("appended");
    let parts: Vec<Append> = session.entries[2..].chunks(1).take(APPENDS * (SLICES + 1)).map(&mut next).collect();
    let bytes = |part: &Append| {
        let entries = part.entries.iter().flat_map(|entry| entry.bytes.iter());
        entries.chain(part.blobs.iter().flat_map(|blob| blob.bytes.iter())).copied().collect::<Vec<u8>>()
    };
    let raw_parts: Vec<Vec<u8>> = parts.iter().map(bytes).collect();
    let (mut parts, mut raw_parts) = (parts.chunks(APPENDS), raw_parts.chunks(APPENDS));
    ratio(
        &format!("per second: durable SQLite append of {what} / raw append + fdatasync"),
        goal,
        || {
            let start = Instant::now();
            for bytes in raw_parts.next().expect("parts") {
                raw.write_all(bytes).and_then(|()| raw.sync_data()).expect("written");
            }
            start.elapsed()
        },
        || {
            let start = Instant::now();
            for part in parts.next().expect("parts") {
                log.append(std::slice::from_ref(part)).pop().expect("answer").expect("appended");
            }
            start.elapsed()
        },
    );
}

/// A session in which `count` grants were issued: entries without blobs.
fn granted(count: usize) -> Session {
    let mut session = Session::open_with(Keys::seeded(1), &[FS, TOOL], 1_024);
    let (opener, root) = (session.opener(), session.root(0));
    for _ in 0..count + 2 * APPENDS {
        let grant = GrantTo { parent: Some(root), cap: "fs:project/**#read".to_owned(), to: opener };
        assert_eq!(session.ask(opener, Ask::Grant(IssueAsked { grant }), Vec::new()).name(), "GrantIssued");
    }
    session
}

fn many_entities() {
    const TIMES: usize = 1_000;
    let mut few = with_grants(100);
    let mut many = with_grants(100_000);
    ratio(
        "CPU per entry: 100,000 live grants / 100",
        Goal::AtMost(1.5),
        || timed(TIMES, || one_step(&mut many)),
        || timed(TIMES, || one_step(&mut few)),
    );
}

/// A state with this many live grants, all below one root, and the writer that drives it.
struct Driven {
    state: State,
    head: Head,
    keys: Keys,
    now_us: u64,
}

fn with_grants(count: u64) -> Driven {
    let session = session(0);
    let mut driven =
        Driven { state: session.state.clone(), head: session.head, keys: Keys::seeded(1), now_us: session.now_us };
    let opener = driven.keys.opener();
    let mut parent = session.root(0);
    for number in 0..count {
        // A grant has at most 10,000 children: every 5,000th becomes the parent of the next.
        let fresh = number % 5_000 == 0 && number > 0;
        let cap = if fresh { "fs:project/**#list,read?depth=2" } else { "fs:project/**#read" };
        let from = if fresh { session.root(0) } else { parent };
        let grant = GrantTo { parent: Some(from), cap: cap.to_owned(), to: opener };
        driven.take(opener, Ask::Grant(IssueAsked { grant }), Vec::new());
        if fresh {
            parent = GrantId(derived(driven.head.session, driven.head.seq, 0));
        }
    }
    driven
}

impl Driven {
    fn take(&mut self, by: PrincipalId, ask: Ask, blobs: Vec<toka_kernel::BlobRef>) {
        if self.state.commit_due() {
            let commit = Ask::CommitState(toka_kernel::body::v1::CommitAsked {});
            self.seal(PrincipalId::NODE, &Command::of_node(commit, Vec::new()));
        }
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.head.seq.to_be_bytes());
        self.seal(by, &Command::new(CommandId(id), 0, ask, blobs));
    }

    fn seal(&mut self, by: PrincipalId, command: &Command) {
        self.now_us += 10;
        let event = self.state.decide(by, command, self.now_us);
        assert_ne!(event.name(), "Refused", "{event:?}");
        let stamp = Stamp { time_us: self.now_us, clock_behind: false };
        let entry = Entry::seal(&self.head, by, stamp, event, &self.keys.writer());
        for effect in self.state.apply(&entry).expect("legal") {
            drop(black_box(effect));
        }
        self.head = entry.head();
    }
}

fn one_step(driven: &mut Driven) {
    let root = |index| GrantId(derived(driven.head.session, 0, index));
    let (fs, tool, opener) = (root(0), root(1), driven.keys.opener());
    let blob = toka_kernel::BlobRef::to(&[1; 32], b"{}");
    driven.take(opener, toka_tests::session::call("project:docs/a", tool, &[fs]), vec![blob]);
    let call = CallId(derived(driven.head.session, driven.head.seq, 0));
    driven.take(EXECUTOR, Ask::Report(Box::new(report(call))), Vec::new());
}
