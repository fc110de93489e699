//! The gateway against servers on the loopback interface: what they do wrong, and what becomes of it.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use toka_kernel::ids::TimeUs;

use super::config::{BaseUrl, Dialect};
use super::http::HttpProvider;
use super::key::{Environment, KeyRef};
use super::openai_chat::{OutputLimit, encode};
use super::redact::{PLACEHOLDER, WITHHELD};
use super::scripted::{Script, ScriptedServer};
use super::server::{Answered, Asked, Body, End, Server};
use super::*;
use crate::clock::PushedClock;

const NOW: TimeUs = 1_800_000_000_000_000;
const KEY: &str = "sk-canary-0123456789";

pub(super) fn reply_of(text: &str) -> Reply {
    Reply {
        parts: vec![Part::Text(text.to_owned())],
        stop: Stop::End,
        usage: None,
        model: None,
        status: 200,
        raw: Raw { kind: RawKind::Whole, bytes: Vec::new() },
        attempts: 1,
        first_byte_us: 0,
    }
}

/// Calls with a clock that is pushed by waits.
pub(super) fn with_run<T>(call: impl FnOnce(&mut Run<'_>) -> T) -> T {
    called(call).ended
}

/// What came of a call.
struct Called<T> {
    ended: T,
    attempts: Vec<Attempt>,
    /// How long was waited, in µs.
    waited_us: u64,
}

fn called<T>(call: impl FnOnce(&mut Run<'_>) -> T) -> Called<T> {
    let clock = PushedClock::at(NOW);
    let stop = AtomicBool::new(false);
    let attempts = RefCell::new(Vec::new());
    let mut attempted = |attempt: Attempt| {
        attempts.borrow_mut().push(attempt);
        ControlFlow::Continue(())
    };
    let ended = call(&mut Run {
        clock: &clock,
        wait: &clock,
        stop: &stop,
        deadline_us: NOW + 600_000_000,
        seed: [7; 32],
        attempted: &mut attempted,
    });
    let waited_us = clock.read().wall_us - NOW;
    Called { ended, attempts: attempts.into_inner(), waited_us }
}

fn wire(body: &[u8]) -> Wire {
    Wire { lane: "auditor".to_owned(), ordinal: 0, body: body.to_vec() }
}

fn request() -> Vec<u8> {
    let request = Request {
        model: "m".to_owned(),
        system: "You audit.".to_owned(),
        turns: vec![Turn::User(vec![Input::Text("Begin.".to_owned())])],
        tools: vec![Tool {
            name: "file-reader".to_owned(),
            description: "Reads.".to_owned(),
            schema: json!({ "type": "object" }),
        }],
        choice: Choice::Auto,
        max_output_tokens: 100,
        temperature: None,
    };
    encode(&request, OutputLimit::default()).expect("it can be said")
}

fn config(address: std::net::SocketAddr) -> ProviderConfig {
    ProviderConfig {
        name: "test".to_owned(),
        dialect: Dialect::OpenAiChat { output_limit: OutputLimit::default() },
        base_url: BaseUrl::parse(&format!("http://{address}/v1"), false).expect("a URL"),
        key: None,
        headers: Vec::new(),
        max_in_flight: 2,
        deadlines: Deadlines::default(),
        prices: std::collections::BTreeMap::new(),
        scripted: false,
    }
}

fn provider(config: ProviderConfig) -> HttpProvider {
    HttpProvider::new(config, Environment::of(|name| (name == "KEY").then(|| KEY.into()))).expect("no TLS is needed")
}

fn call(provider: &dyn Provider) -> Called<Result<Reply, Failure>> {
    called(|run| provider.call(&wire(&request()), run))
}

/// A scripted lane behind the real client.
fn scripted(reply: &str) -> (ScriptedServer, Called<Result<Reply, Failure>>) {
    let text = format!("apiVersion: toka/v1\nkind: ModelScript\nlanes:\n  auditor:\n    - reply: {reply}\n");
    let script = Script::read("s.yaml", text.as_bytes()).expect("a script");
    let server = ScriptedServer::start(script).expect("it listens");
    let called = call(&provider(server.provider("test")));
    (server, called)
}

/// A server that answers the n-th request with the n-th answer, and the last one from then on.
fn server(answers: Vec<Answered>) -> Server {
    let next = AtomicUsize::new(0);
    Server::start(move |_: Asked| {
        let n = next.fetch_add(1, Ordering::SeqCst);
        answers.get(n).or(answers.last()).expect("an answer").clone()
    })
    .expect("it listens")
}

fn whole(status: u16, headers: &[(&str, &str)], body: &str) -> Answered {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Answered { status, headers, body: Body::Whole(body.as_bytes().to_vec()) }
}

fn events(chunks: Vec<Vec<u8>>, end: End) -> Answered {
    let headers = vec![("content-type".to_owned(), "text/event-stream; charset=utf-8".to_owned())];
    Answered { status: 200, headers, body: Body::Chunks(chunks, end) }
}

fn event(delta: Value, reason: Option<&str>) -> String {
    format!("data: {}\n\n", json!({ "choices": [{ "index": 0, "delta": delta, "finish_reason": reason }] }))
}

fn hello() -> String {
    [event(json!({ "content": "Hel" }), None), event(json!({ "content": "lo" }), Some("stop"))].concat()
        + "data: [DONE]\n\n"
}

fn fault(called: &Called<Result<Reply, Failure>>) -> Fault {
    called.ended.as_ref().expect_err("a failure").fault
}

fn text(called: &Called<Result<Reply, Failure>>) -> String {
    called.ended.as_ref().expect("a reply").text()
}

#[test]
fn a_script_is_answered_through_the_real_client() {
    let (server, called) = scripted(
        "{ text: \"Grüß Gott, I will look at the file now.\", calls: [ { tool: code.python, arguments: { path: \
         \"repo:/a\", n: [1, 2.5, null] } }, { tool: b, arguments_text: \"{half\" } ], usage: { in: 90, cached: 60, out: 7 } }",
    );
    let reply = called.ended.expect("a reply");
    let calls = [
        ToolCall {
            id: "call_0_0".to_owned(),
            name: "code__python".to_owned(),
            arguments: r#"{"n":[1,2.5,null],"path":"repo:/a"}"#.to_owned(),
        },
        ToolCall { id: "call_0_1".to_owned(), name: "b".to_owned(), arguments: "{half".to_owned() },
    ];
    assert_eq!(reply.text(), "Grüß Gott, I will look at the file now.");
    assert_eq!(reply.calls().cloned().collect::<Vec<_>>(), calls);
    assert_eq!(reply.usage, Some(Usage { tokens_in: 90, tokens_cached: 60, tokens_out: 7 }));
    assert_eq!((&reply.stop, reply.status, reply.attempts), (&Stop::Tools, 200, 1));
    assert_eq!(reply.raw.kind, RawKind::Events);
    let again = openai_chat::decode(reply.raw.kind, &reply.raw.bytes).expect("the raw bytes say the same");
    assert_eq!(again, reply.answer());
    let captured = server.captured();
    assert_eq!((server.requests(), server.connections(), captured.len()), (1, 1, 1));
    assert_eq!((captured[0].lane.as_str(), captured[0].ordinal, captured[0].authorised), ("auditor", 0, false));
    assert_eq!(captured[0].body, request(), "what arrives is what was encoded, byte for byte");
}

#[test]
fn a_server_that_streams_nothing_is_understood_too() {
    let body = json!({ "choices": [{ "index": 0, "message": { "content": "Hello" }, "finish_reason": "stop" }] });
    let server = server(vec![whole(200, &[("content-type", "application/json")], &body.to_string())]);
    let called = call(&provider(config(server.address())));
    assert_eq!(text(&called), "Hello");
    assert_eq!(called.ended.expect("a reply").raw, Raw { kind: RawKind::Whole, bytes: body.to_string().into_bytes() });
}

#[test]
fn a_server_that_asks_for_time_gets_it_in_each_of_its_forms() {
    let date = "Fri, 15 Jan 2027 08:00:09 GMT"; // NOW + 9 s
    for (name, value, wait_us) in
        [("retry-after", "2", 2_000_000), ("retry-after", date, 9_000_000), ("retry-after-ms", "1500", 1_500_000)]
    {
        let server = server(vec![
            whole(429, &[(name, value)], "{\"error\":{\"message\":\"slow down\"}}"),
            events(vec![hello().into()], End::Whole),
        ]);
        let called = call(&provider(config(server.address())));
        assert_eq!((text(&called).as_str(), called.waited_us), ("Hello", wait_us), "{name}: {value}");
        let attempt = &called.attempts[0];
        assert_eq!((attempt.attempt, attempt.cause, attempt.status), (1, Cause::Status, 429));
        assert_eq!(attempt.not_before_us, NOW + wait_us);
        assert_eq!(attempt.part, b"{\"error\":{\"message\":\"slow down\"}}");
        assert_eq!(attempt.detail, "the server answers 429 Too Many Requests: slow down");
        assert_eq!(called.ended.expect("a reply").attempts, 2);
    }
}

#[test]
fn a_server_that_asks_for_too_much_time_ends_the_call() {
    let server = server(vec![whole(429, &[("retry-after", "61")], "")]);
    let called = call(&provider(config(server.address())));
    assert_eq!(fault(&called), Fault::RetryLater { at_us: NOW + 61_000_000 });
    let failure = called.ended.expect_err("a failure");
    assert_eq!((failure.fault.symbol(), failure.number()), ("RETRY_LATER", Some(1_800_000_061_000_000)));
    assert_eq!((server.connections(), called.waited_us, called.attempts.len()), (1, 0, 0));
}

#[test]
fn what_passes_is_tried_four_times_and_each_time_is_told() {
    let (server, called) = scripted("[ { status: 503 }, { status: 500 }, { text: fine } ]");
    assert_eq!((text(&called).as_str(), called.attempts.len(), server.requests()), ("fine", 2, 3));
    let waits: Vec<u64> = called.attempts.iter().map(|attempt| attempt.not_before_us).collect();
    assert!((NOW + 500_000..NOW + 1_000_000).contains(&waits[0]), "{waits:?}");
    assert!((waits[0] + 1_000_000..waits[0] + 2_000_000).contains(&waits[1]), "{waits:?}");
    let (_, again) = scripted("[ { status: 503 }, { status: 500 }, { text: fine } ]");
    assert_eq!(again.attempts, called.attempts, "the same call waits as long again");

    let (server, called) = scripted("{ status: 529 }");
    let failure = called.ended.expect_err("a failure");
    assert_eq!((failure.fault, failure.status, failure.attempts), (Fault::HttpStatus, 529, 4));
    assert_eq!((failure.number(), failure.reached, server.requests()), (Some(529), true, 4));
    assert_eq!(called.attempts.iter().map(|attempt| attempt.attempt).collect::<Vec<_>>(), [1, 2, 3]);

    let (server, called) = scripted("{ status: 400 }");
    assert_eq!((fault(&called), server.requests()), (Fault::HttpStatus, 1));
}

#[test]
fn a_cut_stream_is_tried_again_and_its_part_is_kept() {
    let (server, called) = scripted("[ { text: a longer text than that, cut_after_bytes: 200 }, { text: fine } ]");
    assert_eq!((text(&called).as_str(), server.requests()), ("fine", 2));
    assert_eq!((called.attempts[0].cause, called.attempts[0].part.len()), (Cause::Cut, 200));
    // One that ends in order, but without its last event.
    let short = hello().replace("data: [DONE]\n\n", "");
    let server =
        self::server(vec![events(vec![short.clone().into()], End::Whole), events(vec![hello().into()], End::Whole)]);
    let called = call(&provider(config(server.address())));
    assert_eq!((text(&called).as_str(), called.attempts[0].cause), ("Hello", Cause::Cut));
    assert_eq!(called.attempts[0].part, short.as_bytes());
    let always = self::server(vec![events(vec![short.into()], End::Whole)]);
    let called = call(&provider(config(always.address())));
    assert_eq!((fault(&called), always.connections()), (Fault::StreamCut, 4));
}

#[test]
fn a_stream_in_any_pieces_says_the_same() {
    let bytes = hello().into_bytes();
    for size in [1, 2, 3, 7, 64] {
        let chunks = bytes.chunks(size).map(<[u8]>::to_vec).collect();
        let server = server(vec![events(chunks, End::Whole)]);
        let reply = call(&provider(config(server.address()))).ended.expect("a reply");
        assert_eq!((reply.text().as_str(), reply.raw.bytes.as_slice()), ("Hello", bytes.as_slice()), "{size}");
    }
}

#[test]
fn what_comes_after_the_last_event_is_not_waited_for() {
    let server = server(vec![events(vec![hello().into()], End::Silence)]);
    assert_eq!(text(&call(&provider(config(server.address())))), "Hello");
}

#[test]
fn silence_ends_at_the_deadline_that_it_breaks() {
    let short = |deadlines: Deadlines, answer: Answered| {
        let server = server(vec![answer]);
        let called = call(&provider(ProviderConfig { deadlines, ..config(server.address()) }));
        called.ended.expect_err("a failure")
    };
    let silent = Answered { status: 200, headers: Vec::new(), body: Body::Silence };
    let first_byte = Deadlines { first_byte_us: 60_000, ..Deadlines::default() };
    let failure = short(first_byte, silent.clone());
    assert_eq!((failure.fault, failure.attempts), (Fault::Deadline(Which::FirstByte), 4), "nothing had been said");
    assert_eq!((failure.fault.symbol(), failure.number()), ("DEADLINE", Some(2)));

    let begun = event(json!({ "content": "Hel" }), None).into_bytes();
    let idle = Deadlines { idle_us: 200_000, ..Deadlines::default() };
    let failure = short(idle, events(vec![begun.clone()], End::Silence));
    assert_eq!((failure.fault, failure.attempts), (Fault::Deadline(Which::Idle), 1));
    assert!(begun.starts_with(&failure.raw));

    let total = Deadlines { total_us: 60_000, ..Deadlines::default() };
    let failure = short(total, silent);
    assert_eq!((failure.fault, failure.attempts), (Fault::Deadline(Which::Total), 1));
}

#[test]
fn a_bad_reply_is_tried_again_once() {
    let (server, called) = scripted("[ { malformed: true }, { text: fine } ]");
    assert_eq!((text(&called).as_str(), called.attempts[0].cause, server.requests()), ("fine", Cause::Reply, 2));
    let (server, called) = scripted("{ malformed: true }");
    assert_eq!((fault(&called), server.requests()), (Fault::BadReply, 2));
    let (server, called) = scripted("[ { overloaded: true }, { text: fine } ]");
    assert_eq!((text(&called).as_str(), called.attempts[0].cause, server.requests()), ("fine", Cause::Reply, 2));
}

#[test]
fn a_line_of_ten_mebibytes_ends_the_call() {
    let chunks = vec![vec![b'x'; 1 << 16]; 160];
    let server = server(vec![events(chunks, End::Whole)]);
    let called = call(&provider(config(server.address())));
    assert_eq!((fault(&called), server.connections()), (Fault::StreamTooLarge(Bound::Line), 1));
    let failure = called.ended.expect_err("a failure");
    assert_eq!((failure.fault.symbol(), failure.number()), ("STREAM_TOO_LARGE", Some(1)));
    assert!(failure.raw.len() < (2 << 20), "{} bytes were read", failure.raw.len());
}

#[test]
fn a_redirect_leads_nowhere() {
    let elsewhere = server(vec![events(vec![hello().into()], End::Whole)]);
    for status in [301, 302, 307, 308] {
        let to = format!("http://{}/v1/chat/completions", elsewhere.address());
        let server = server(vec![whole(status, &[("location", &to)], "")]);
        let called = call(&provider(config(server.address())));
        assert_eq!((fault(&called), called.ended.expect_err("a failure").status), (Fault::HttpStatus, status));
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[test]
fn where_nobody_listens_is_told_as_that() {
    let called = call(&provider(config(([127, 0, 0, 1], 1).into())));
    let failure = called.ended.expect_err("a failure");
    assert_eq!((failure.fault.symbol(), failure.attempts, failure.reached), ("UNREACHABLE", 4, false));
    assert_eq!(called.attempts[0].cause, Cause::Connect);
    assert!(failure.detail.contains("refused"), "{}", failure.detail);
    assert!(!failure.detail.contains("http"), "{}", failure.detail);
}

/// A server that answers what `say` makes of the key that it was sent.
fn echoing(say: impl Fn(&str) -> Answered + Send + Sync + 'static) -> (Server, Called<Result<Reply, Failure>>) {
    let server = Server::start(move |asked: Asked| {
        let key = asked.header("authorization").expect("a key").strip_prefix("Bearer ").expect("a bearer").to_owned();
        assert_eq!(key, KEY);
        say(&key)
    });
    let server = server.expect("it listens");
    let config = ProviderConfig { key: Some(KeyRef::Env("KEY".to_owned())), ..config(server.address()) };
    let called = call(&provider(config));
    (server, called)
}

#[test]
fn a_key_that_a_server_echoes_is_in_nothing_that_comes_back() {
    let (_server, called) = echoing(|key| whole(401, &[], &format!("{{\"error\":{{\"message\":\"bad key {key}\"}}}}")));
    let shown = format!("{:?} {:?}", called.ended, called.attempts);
    assert!(!shown.contains("canary") && shown.contains(PLACEHOLDER), "{shown}");

    let (_server, called) = echoing(|key| {
        let said = [
            event(json!({ "content": format!("it is {key}, ") }), None),
            event(json!({ "content": key }), Some("stop")),
        ];
        events(vec![said.concat().into_bytes(), b"data: [DONE]\n\n".to_vec()], End::Whole)
    });
    let reply = called.ended.expect("a reply");
    assert_eq!(reply.text(), format!("it is {PLACEHOLDER}, {PLACEHOLDER}"));
    assert!(!String::from_utf8_lossy(&reply.raw.bytes).contains("canary"));

    // In two events, so that no line of the body holds it.
    let (_server, called) = echoing(|key| {
        let (one, two) = key.split_at(9);
        let said = [event(json!({ "content": one }), None), event(json!({ "content": two }), Some("stop"))];
        events(vec![said.concat().into_bytes(), b"data: [DONE]\n\n".to_vec()], End::Whole)
    });
    let reply = called.ended.expect("a reply");
    assert_eq!((reply.text().as_str(), reply.raw.bytes.as_slice()), (PLACEHOLDER, WITHHELD.as_bytes()));
    assert_eq!(reply.raw.kind, RawKind::Withheld);

    let (_server, called) = echoing(|key| {
        let call = json!({ "index": 0, "id": "a", "function": { "name": "send", "arguments": json!({ "k": key }).to_string() } });
        events(vec![event(json!({ "tool_calls": [call] }), Some("tool_calls")).into_bytes()], End::Cut)
    });
    let shown = format!("{:?}", called.attempts);
    assert!(!shown.contains("canary") && called.attempts.len() == 3, "{shown}");
    let raw = called.ended.expect_err("a failure").raw;
    assert!(String::from_utf8_lossy(&raw).contains(PLACEHOLDER) && !String::from_utf8_lossy(&raw).contains("canary"));
}

#[test]
fn a_key_that_was_changed_is_read_again_once() {
    let keys = Arc::new(Mutex::new(vec!["sk-new-0123456789", "sk-old-0123456789"]));
    let read = keys.clone();
    let environment = Environment::of(move |_| {
        let mut keys = read.lock().expect("no panic");
        let key = keys.last().copied();
        keys.pop();
        key.map(Into::into)
    });
    let server = Server::start(|asked: Asked| match asked.header("authorization") {
        Some("Bearer sk-new-0123456789") => events(vec![hello().into()], End::Whole),
        _ => whole(401, &[], "{}"),
    });
    let server = server.expect("it listens");
    let config = ProviderConfig { key: Some(KeyRef::Env("KEY".to_owned())), ..config(server.address()) };
    let provider = HttpProvider::new(config, environment).expect("no TLS is needed");
    let called = call(&provider);
    assert_eq!((text(&called).as_str(), server.connections(), called.waited_us), ("Hello", 2, 0));
    assert_eq!((called.attempts[0].cause, called.attempts[0].status), (Cause::Status, 401));
    assert!(keys.lock().expect("no panic").is_empty());
    // The new key is kept; once it is forgotten, there is none to be read.
    assert_eq!(text(&call(&provider)), "Hello");
    provider.reload();
    let failure = call(&provider).ended.expect_err("a failure");
    assert_eq!((failure.fault, failure.attempts, failure.reached), (Fault::NoKey, 0, false));
    assert_eq!(failure.to_string(), "NO_KEY: the variable KEY is not set");
    assert_eq!(server.connections(), 3);
}

#[test]
fn a_key_that_stays_wrong_is_tried_once() {
    let (server, called) = echoing(|_| whole(401, &[], "{}"));
    assert_eq!((fault(&called), server.connections(), called.attempts.len()), (Fault::HttpStatus, 1, 0));
}

#[test]
fn what_a_script_does_not_expect_is_named() {
    let (server, called) = scripted("{ text: fine }\n      expect: { tools: [code.python] }");
    let failure = called.ended.expect_err("a failure");
    assert_eq!((failure.fault.symbol(), server.requests()), ("SCRIPT_MISMATCH", 1));
    assert!(failure.detail.contains("lane `auditor`, turn 0, /tools: `code.python` is not offered"), "{failure}");
    // Somebody else's server that says so is not believed.
    let headers = [("x-toka-symbol", "SCRIPT_MISMATCH")];
    let stranger = self::server(vec![whole(422, &headers, "{}")]);
    assert_eq!(fault(&call(&provider(config(stranger.address())))), Fault::HttpStatus);
}

#[test]
fn a_turn_is_known_by_its_ordinal_so_that_a_call_made_again_is_answered_again() {
    let text = "apiVersion: toka/v1\nkind: ModelScript\nlanes:\n  auditor:\n    - reply: { text: one }\n    - reply: { text: two }\n";
    let server = ScriptedServer::start(Script::read("s.yaml", text.as_bytes()).expect("a script")).expect("it listens");
    let provider = provider(server.provider("test"));
    for (ordinal, said) in [(0, "one"), (0, "one"), (1, "two"), (0, "one")] {
        let wire = Wire { ordinal, ..wire(&request()) };
        assert_eq!(with_run(|run| provider.call(&wire, run)).expect("a reply").text(), said);
    }
    let beyond = with_run(|run| provider.call(&Wire { ordinal: 2, ..wire(&request()) }, run)).expect_err("a failure");
    assert!(beyond.detail.contains("turn 2: the script has 2 turns for this lane"), "{beyond}");
}

#[test]
fn the_headers_of_a_strangers_server_hold_what_is_configured_and_no_name_of_an_agent() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = seen.clone();
    let server = Server::start(move |asked: Asked| {
        kept.lock().expect("no panic").push(asked);
        events(vec![hello().into()], End::Whole)
    });
    let server = server.expect("it listens");
    let headers = vec![("openai-organization".to_owned(), "org-1".to_owned())];
    text(&call(&provider(ProviderConfig { headers, ..config(server.address()) })));
    let asked = seen.lock().expect("no panic").remove(0);
    let mut names: Vec<&str> = asked.headers.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept", "content-length", "content-type", "host", "openai-organization", "user-agent"]);
    assert_eq!((asked.method.as_str(), asked.path.as_str()), ("POST", "/v1/chat/completions"));
    assert!(!format!("{asked:?}").contains("auditor"));
}

#[test]
fn a_call_that_is_told_to_end_ends() {
    let server = server(vec![Answered { status: 200, headers: Vec::new(), body: Body::Silence }]);
    let provider = provider(config(server.address()));
    /// Requested once the server has been asked.
    #[derive(Debug)]
    struct OnceAsked<'s>(&'s Server);
    impl Cancel for OnceAsked<'_> {
        fn requested(&self) -> bool {
            self.0.connections() > 0
        }
    }
    let ended = with_run(|run| {
        let stop = OnceAsked(&server);
        let mut attempted = |_: Attempt| ControlFlow::Continue(());
        let mut run = Run { stop: &stop, attempted: &mut attempted, ..*run };
        provider.call(&wire(&request()), &mut run)
    });
    let failure = ended.expect_err("a failure");
    assert_eq!((failure.fault, failure.reached), (Fault::Cancelled, true));
    let before = with_run(|run| {
        let stop = AtomicBool::new(true);
        let mut attempted = |_: Attempt| ControlFlow::Continue(());
        provider.call(&wire(&request()), &mut Run { stop: &stop, attempted: &mut attempted, ..*run })
    });
    assert_eq!(before.map_err(|failure| (failure.fault, failure.reached)), Err((Fault::Cancelled, false)));
    assert_eq!(server.connections(), 1);
}

#[test]
fn an_attempt_that_cannot_be_recorded_is_the_last() {
    let server = server(vec![whole(503, &[], "")]);
    let provider = provider(config(server.address()));
    let ended = with_run(|run| {
        let mut attempted = |_: Attempt| ControlFlow::Break(());
        provider.call(&wire(&request()), &mut Run { attempted: &mut attempted, ..*run })
    });
    assert_eq!(ended.map_err(|failure| failure.fault), Err(Fault::Cancelled));
    assert_eq!(server.connections(), 1);
}

/// A server whose answers wait until somebody holds `gate` no longer, and who tells when it was asked.
fn gated() -> (Server, Arc<Mutex<()>>, std::sync::mpsc::Receiver<()>) {
    let gate = Arc::new(Mutex::new(()));
    let (tell, asked) = std::sync::mpsc::channel();
    let (closed, tell) = (gate.clone(), Mutex::new(tell));
    let server = Server::start(move |_: Asked| {
        tell.lock().expect("no panic").send(()).expect("somebody listens");
        drop(closed.lock().expect("no panic"));
        events(vec![hello().into()], End::Whole)
    });
    (server.expect("it listens"), gate, asked)
}

/// Asked again and again while a call waits; what happens the third time is up to the test.
struct ThirdLook<F: Fn()>(AtomicUsize, F);

impl<F: Fn()> Cancel for ThirdLook<F> {
    fn requested(&self) -> bool {
        if self.0.fetch_add(1, Ordering::SeqCst) == 2 {
            self.1();
        }
        false
    }
}

#[test]
fn no_more_calls_run_at_once_than_may() {
    let (server, gate, asked) = gated();
    let provider = provider(config(server.address()));
    std::thread::scope(|scope| {
        let held = gate.lock().expect("no panic");
        for _ in 0..2 {
            scope.spawn(|| assert_eq!(text(&call(&provider)), "Hello"));
            asked.recv().expect("the server was asked");
        }
        let held = RefCell::new(Some(held));
        let stop = ThirdLook(AtomicUsize::new(0), || {
            assert_eq!(server.connections(), 2, "the third call waits");
            held.borrow_mut().take();
        });
        let third = with_run(|run| {
            let mut attempted = |_: Attempt| ControlFlow::Continue(());
            provider.call(&wire(&request()), &mut Run { stop: &stop, attempted: &mut attempted, ..*run })
        });
        assert_eq!(third.expect("a reply").text(), "Hello");
        assert!(held.borrow().is_none());
    });
    assert_eq!(server.connections(), 3);
}

#[test]
fn a_call_that_finds_no_place_in_time_says_so() {
    let (server, gate, asked) = gated();
    let provider = provider(ProviderConfig { max_in_flight: 1, ..config(server.address()) });
    std::thread::scope(|scope| {
        let held = gate.lock().expect("no panic");
        scope.spawn(|| assert_eq!(text(&call(&provider)), "Hello"));
        asked.recv().expect("the server was asked");
        let clock = PushedClock::at(NOW);
        let stop = ThirdLook(AtomicUsize::new(0), || clock.push(600_000_000));
        let ended = with_run(|run| {
            let mut attempted = |_: Attempt| ControlFlow::Continue(());
            let mut run = Run { clock: &clock, stop: &stop, attempted: &mut attempted, ..*run };
            provider.call(&wire(&request()), &mut run)
        });
        let failure = ended.expect_err("a failure");
        assert_eq!((failure.fault, failure.reached), (Fault::Deadline(Which::Queue), false));
        drop(held);
    });
    assert_eq!(server.connections(), 1);
}
