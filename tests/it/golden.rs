//! Frozen bytes: a fixed session whose entries must come out the same for ever.
//!
//! `golden/NNNN-name.txt` holds one line per entry, `seq kind/schema name hash`, and the digest of the state at the end.
//! Numbers are never reused and files are never edited; a changed byte is a new schema and a new file.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use toka_kernel::body::KINDS;
use toka_kernel::body::v1::{
    AddPrincipalAsked, ApproveToolAsked, AttemptAsked, AttemptUsage, BindAsked, Binding, CallAsked, CancelAsked,
    CompleteTaskAsked, EndAsked, EndHead, EndSessionAsked, FailTaskAsked, GrantAmounts, GrantTo, IssueAsked,
    ObserveAsked, Outcome, PauseAsked, ProbeAsked, QuarantineToolAsked, RegisterToolAsked, ReportAsked, ResolveAsked,
    ResumeAsked, Retry, RevokeAsked, ScheduleAsked, SendAsked, SkipTaskAsked, StartTaskAsked, StopAsked, TakeAsked,
    UnbindAsked,
};
use toka_kernel::ids::{CallId, Digest, GrantId, MessageId, PrincipalId, TaskId, derived};
use toka_kernel::tool::Effect;
use toka_kernel::{Ask, Entry};
use toka_tests::session::{EXECUTOR, Keys, Session, call, cited_genesis, opening, reader, reader_spec, report};

/// Every kind of schema 1: fixed keys, nonce, salts and times.
pub(crate) fn spine() -> Session {
    let mut session = Session::open(&[
        "fs:project/**#list,read?depth=2&exp=1800000000000000",
        "tool:reader?depth=2&calls=50&rate=5/1000000&exp=1800000000000000",
        "agent:auditor?depth=2&live=4&exp=1800000000000000",
    ]);
    let opener = session.opener();
    let [fs, tool, agents] = [0, 1, 2].map(|index| session.root(index));
    session.bind(reader());
    let agent = session.agent(opener, "auditor", agents, &[(fs, "fs:project/docs/**#read"), (tool, "tool:reader")]);
    let spawned = session.head.seq - 1;
    let [docs, read] = [1, 2].map(|ordinal| GrantId(derived(session.id(), spawned, ordinal)));
    session.call(agent, "project:docs/a.md", read, &[docs]);
    let call = CallId(session.made(0));
    session.finish(call, b"text");
    session.call(agent, "project:secret.txt", read, &[docs]);
    let grant = GrantTo { parent: Some(fs), cap: "fs:project/b/**#read".to_owned(), to: agent };
    session.ask(opener, Ask::Grant(IssueAsked { grant }), Vec::new());
    let issued = GrantId(session.made(0));
    let reason = session.blob(b"no longer needed");
    session.ask(opener, Ask::Revoke(RevokeAsked { grant: issued, reason: Some(0) }), vec![reason]);
    session.end(agent);
    session.close();
    assert_eq!(session.keyring.epoch(), 1);
    assert_ne!(EXECUTOR, opener);
    session
}

/// The kinds of the system session, and then of a work session that cites it. One line per entry of both.
pub(crate) fn system() -> [Session; 2] {
    let mut system = Session::open_system(&[
        "admin:#cancel,grant-root,members,open-session,register-tool?exp=1800000000000000",
        "tool:reader?depth=2&calls=50&exp=1800000000000000",
        "fs:project/**#list,read?depth=2&exp=1800000000000000",
        "admin:#resolve?depth=2&exp=1800000000000000",
        "agent:*?depth=2&exp=1800000000000000",
    ]);
    let keys = Keys::seeded(1);
    let (opener, admin) = (system.opener(), system.root(0));
    let jail = Digest([0x61; 32]);
    let probe = ProbeAsked { levels: 3, layers: 511, landlock_abi: 6, jail, kernel: "Linux 6.12".to_owned() };
    system.ask(PrincipalId::NODE, Ask::RecordProbe(probe), Vec::new());
    let mut spec = reader_spec();
    spec.effect = Effect::Once.number();
    let tool = spec.decision(0).expect("a valid spec");
    let text = system.blob(&spec.encode().expect("a valid spec"));
    let register = RegisterToolAsked { tool: tool.clone(), file: Digest([0x62; 32]), state: 1 };
    system.ask_under(opener, admin, None, Ask::RegisterTool(Box::new(register)), vec![text]);
    let (name, digest) = (tool.name.clone(), tool.digest);
    let approve = Ask::ApproveTool(ApproveToolAsked { name: name.clone(), digest });
    system.ask_under(opener, admin, Some(&keys.operator), approve, Vec::new());
    let approved = system.head_ref();
    let add = AddPrincipalAsked { kind: 1, custody: 2, keys: vec![keys.spare[0].public().id()] };
    system.ask_under(opener, admin, Some(&keys.operator), Ask::AddPrincipal(add), Vec::new());
    let roots = [
        (Some(system.root(1)), "tool:reader?calls=5&exp=1790000000000000"),
        (Some(system.root(2)), "fs:project/**#read?exp=1790000000000000"),
        (Some(system.root(3)), "admin:#resolve?exp=1790000000000000"),
        (None, "fs:new/**#read?exp=1790000000000000"),
    ];
    let mut work = Session::begin(Keys::seeded(1), cited_genesis(&keys, system.head_ref(), admin, &roots));
    let open = Ask::OpenSession(Box::new(opening(&keys, work.id(), &roots)));
    system.ask_under(opener, admin, Some(&keys.operator), open, Vec::new());
    let text = work.blob(&spec.encode().expect("a valid spec"));
    let binding = Binding { tool, cite: Some(approved), replaces: None };
    work.ask(PrincipalId::NODE, Ask::BindTool(BindAsked { tools: vec![binding] }), vec![text]);
    let args = work.blob(b"{\"path\":\"project:a\"}");
    let Ask::Call(asked) = call("project:a", work.root(0), &[work.root(1)]) else { unreachable!("a call") };
    work.ask(opener, Ask::Call(Box::new(CallAsked { digest, ..*asked })), vec![args]);
    let running = CallId(work.made(0));
    let outcome = Outcome { kind: 11, detail: 0, number: None, symbol: None };
    let unknown = ReportAsked { outcome, actual: Vec::new(), ..report(running) };
    work.ask(PrincipalId::NODE, Ask::Report(Box::new(unknown)), Vec::new());
    let seen = ObserveAsked { what: 1, subject: Some(Digest([0x63; 32])), call: Some(running), count: 1, detail: None };
    work.ask(EXECUTOR, Ask::Observe(seen), Vec::new());
    let evidence = work.blob(b"the file is there");
    let resolve = Ask::ResolveOutcome(ResolveAsked { call: running, verdict: 1, evidence: Some(0) });
    work.ask_under(opener, work.root(2), None, resolve, vec![evidence]);
    let drift = QuarantineToolAsked { name: name.clone(), digest, why: 1, seen: Some(Digest([0x64; 32])) };
    system.ask(PrincipalId::NODE, Ask::QuarantineTool(drift), Vec::new());
    let unbind = UnbindAsked { name, digest, why: 1, cite: system.head_ref() };
    work.ask(PrincipalId::NODE, Ask::UnbindTool(unbind), Vec::new());
    work.close();
    let spent = vec![GrantAmounts { grant: system.root(1), amounts: vec![1] }];
    let head = Some(EndHead { seq: work.head.seq, hash: work.head.hash });
    let end = EndSessionAsked { session: work.id(), how: 1, head, spent };
    system.ask(PrincipalId::NODE, Ask::EndSession(end), Vec::new());
    system.close();
    [system, work]
}

/// The kinds of agents that are paused and stopped, of their tasks and messages, and of calls that are tried again.
pub(crate) fn work() -> Session {
    let mut session = Session::open(&[
        "fs:project/**#list,read?depth=2&exp=1800000000000000",
        "tool:reader?depth=2&calls=50&exp=1800000000000000",
        "agent:auditor?depth=2&live=4&exp=1800000000000000",
        "admin:#cancel,pause?exp=1800000000000000",
    ]);
    let opener = session.opener();
    let [fs, tool, agents, admin] = [0, 1, 2, 3].map(|index| session.root(index));
    session.bind(reader());
    let agent = session.agent(opener, "auditor", agents, &[(fs, "fs:project/docs/**#read"), (tool, "tool:reader")]);
    let spawned = session.head.seq - 1;
    let [docs, read] = [1, 2].map(|ordinal| GrantId(derived(session.id(), spawned, ordinal)));
    let schedule = |name: &str, requires: Vec<TaskId>| {
        let retry = Retry { max: 3, base: 1_000_000, cap: 30_000_000 };
        let (name, text) = (name.to_owned(), Some(0));
        Ask::ScheduleTask(ScheduleAsked { agent, name, text, requires, priority: 2, timeout_us: 60_000_000, retry })
    };
    let text = session.blob(b"list the files");
    session.ask(agent, schedule("scan", Vec::new()), vec![text]);
    let scan = TaskId(session.made(0));
    let text = session.blob(b"judge each file");
    session.ask(agent, schedule("judge", vec![scan]), vec![text]);
    let judge = TaskId(session.made(0));
    session.ask(agent, Ask::StartTask(StartTaskAsked { task: scan, attempt: 1 }), Vec::new());
    let fail = FailTaskAsked { task: scan, attempt: 1, code: 2, retryable: true };
    session.ask(agent, Ask::FailTask(fail), Vec::new());
    session.now_us += 1_000_000;
    session.ask(agent, Ask::StartTask(StartTaskAsked { task: scan, attempt: 2 }), Vec::new());
    session.call(agent, "project:docs/a.md", read, &[docs]);
    let running = CallId(session.made(0));
    let usage = Some(AttemptUsage { tokens_in: 7, tokens_cached: 2, tokens_out: 1 });
    let not_before = session.now_us + 500_000;
    let part = session.blob(b"half an answer");
    let again = AttemptAsked { call: running, attempt: 1, cause: 1, status: 503, not_before, usage, part: Some(0) };
    session.ask(EXECUTOR, Ask::ReportAttempt(again), vec![part]);
    let content = session.blob(b"look at b as well");
    session.ask(opener, Ask::SendMessage(SendAsked { to: agent, content: 0, reply_to: None }), vec![content]);
    let message = MessageId(session.made(0));
    let reason = session.blob(b"no tokens left");
    session.ask(PrincipalId::NODE, Ask::PauseAgent(PauseAsked { agent, why: 3, reason: Some(0) }), vec![reason]);
    let take = Ask::TakeMessage(TakeAsked { message });
    session.ask(agent, take.clone(), Vec::new());
    session.ask_under(opener, admin, None, Ask::ResumeAgent(ResumeAsked { agent }), Vec::new());
    session.ask(agent, take, Vec::new());
    let result = session.blob(b"three files");
    let done = CompleteTaskAsked { task: scan, attempt: 2, result: Some(0) };
    session.ask(agent, Ask::CompleteTask(done), vec![result]);
    let skip = SkipTaskAsked { task: judge, why: 1, because: Some(Digest(scan.0)) };
    session.ask(agent, Ask::SkipTask(skip), Vec::new());
    let reason = session.blob(b"it takes too long");
    session.ask(opener, Ask::CancelCall(CancelAsked { call: running, why: 1, reason: Some(0) }), vec![reason]);
    let reason = session.blob(b"enough");
    session.ask(opener, Ask::StopAgent(StopAsked { agent, why: 1, reason: Some(0) }), vec![reason]);
    let outcome = Outcome { kind: 8, detail: 1, number: None, symbol: None };
    let cancelled = ReportAsked { attempt: 2, outcome, actual: vec![1], ..report(running) };
    session.ask(EXECUTOR, Ask::Report(Box::new(cancelled)), Vec::new());
    session.ask(PrincipalId::NODE, Ask::EndAgent(EndAsked { agent, how: 3, code: 0 }), Vec::new());
    session.close();
    session
}

fn lines(session: &Session) -> String {
    let line = |entry: &Entry| {
        let header = entry.header();
        let name = entry.event().map_or("unknown", |event| event.name());
        format!("{} {:04x}/{} {name} {}\n", header.seq, header.kind, header.schema, entry.hash())
    };
    let (digest, leaves) = session.state.digest();
    let entries: String = session.entries.iter().map(line).collect();
    format!("{entries}state {digest} {leaves}\n")
}

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/it/golden"))
}

fn file(name: &str) -> String {
    let path = folder().join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_spine_has_the_bytes_it_always_had() {
    assert_eq!(lines(&spine()), file("0001-spine.txt"));
}

#[test]
fn the_system_session_and_what_cites_it_have_the_bytes_they_always_had() {
    assert_eq!(system().iter().map(lines).collect::<String>(), file("0002-system.txt"));
}

#[test]
fn the_session_of_an_agent_at_work_has_the_bytes_it_always_had() {
    assert_eq!(lines(&work()), file("0003-work.txt"));
}

#[test]
fn every_kind_and_schema_has_a_golden_entry() {
    let mut seen = BTreeSet::new();
    for found in fs::read_dir(folder()).expect("the folder is there") {
        let name = found.expect("readable").file_name().into_string().expect("UTF-8");
        for line in file(&name).lines() {
            seen.extend(line.split(' ').nth(1).map(str::to_owned));
        }
    }
    assert!(!seen.is_empty(), "there is nothing golden");
    for kind in KINDS {
        for schema in 1..=kind.schema {
            let wanted = format!("{:04x}/{schema}", kind.number);
            assert!(seen.contains(&wanted), "{} {wanted} has no golden entry", kind.name);
        }
    }
}
