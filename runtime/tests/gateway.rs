//! The model gateway beside other programs: with the environment of a process of its own, and with the client of the
//! `openai` package, which must read what Toka writes and be understood by the scripted server.
//!
//! The package is what `./test` installs; `TOKA_TEST_OPENAI_PYTHON` names an interpreter that has it.
#![forbid(unsafe_code)]

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;

use serde_json::{Value, json};
use toka_runtime::clock::SystemClock;
use toka_runtime::gateway::http::HttpProvider;
use toka_runtime::gateway::key::Environment;
use toka_runtime::gateway::openai_chat::{OutputLimit, encode};
use toka_runtime::gateway::scripted::{Script, ScriptedServer, provider};
use toka_runtime::gateway::server::{Answered, Asked, Body, Server};
use toka_runtime::gateway::{
    Attempt, Choice, Failure, Input, Provider, RealTime, Reply, Request, Run, Stop, Tool, ToolCall, Turn, Wire,
};

const SCRIPT: &str = r#"
apiVersion: toka/v1
kind: ModelScript
lanes:
  auditor:
    - reply: { text: "I will look.", calls: [ { tool: file-reader, arguments: { path: "repo:/a" } } ] }
    - expect: { tools: [code.python, file-reader], contains: [Audit], results: [ { n: 0, pointer: /content, equals: "x" } ] }
      reply:
        text: "Grüß Gott, this is a text of some length, in pieces."
        calls:
          - { tool: code.python, arguments: { n: 1, path: "repo:/ü" } }
          - { tool: file-reader }
        usage: { in: 120, cached: 100, out: 9 }
"#;

/// A conversation in which everything stands that a request can say.
fn request(choice: Choice) -> Request {
    let tool = |name: &str, schema| Tool { name: name.to_owned(), description: format!("Does {name}."), schema };
    let text = |text: &str| Input::Text(text.to_owned());
    let call = ToolCall {
        id: "call_0_0".to_owned(),
        name: "file-reader".to_owned(),
        arguments: r#"{"path":"repo:/a"}"#.to_owned(),
    };
    Request {
        model: "gpt-5.1".to_owned(),
        system: "You audit.\nBe brief.".to_owned(),
        turns: vec![
            Turn::User(vec![text("Audit."), text("\u{1f980} \"quoted\" \\ \u{7f}")]),
            Turn::Assistant { text: "I will look.".to_owned(), calls: vec![call] },
            Turn::Result { call: "call_0_0".to_owned(), content: vec![text(r#"{"content":"x"}"#)] },
        ],
        tools: vec![
            tool("code.python", json!({ "type": "object", "properties": { "n": { "type": "integer" } } })),
            tool("file-reader", json!({ "type": "object", "required": ["path"] })),
        ],
        choice,
        max_output_tokens: 1_000,
        temperature: Some("0.5".to_owned()),
    }
}

fn server() -> ScriptedServer {
    let script = Script::read("script.yaml", SCRIPT.as_bytes()).expect("a script");
    ScriptedServer::start(script).expect("it listens")
}

fn ask(provider: &dyn Provider, body: Vec<u8>) -> Result<Reply, Failure> {
    let mut attempted = |_: Attempt| ControlFlow::Continue(());
    let mut run = Run {
        clock: &SystemClock,
        wait: &RealTime,
        stop: &AtomicBool::new(false),
        deadline_us: u64::MAX,
        seed: [0; 32],
        attempted: &mut attempted,
    };
    provider.call(&Wire { lane: "auditor".to_owned(), ordinal: 1, body }, &mut run)
}

/// In the process that the test below starts, with proxy variables set.
const INSIDE: &str = "TOKA_TEST_GATEWAY_URL";

#[test]
fn proxy_variables_are_not_read() {
    if let Ok(url) = std::env::var(INSIDE) {
        let provider = HttpProvider::new(provider("test", &url).expect("a URL"), Environment::of_process());
        let body = encode(&request(Choice::Auto), OutputLimit::default()).expect("it can be said");
        let reply = ask(&provider.expect("no TLS is needed"), body).expect("a reply");
        assert_eq!(reply.stop, Stop::Tools);
        return;
    }
    let proxy = Server::start(|_: Asked| Answered {
        status: 502,
        headers: Vec::new(),
        body: Body::Whole(b"a proxy was asked".to_vec()),
    });
    let proxy = proxy.expect("it listens");
    let model = server();
    let mut inside = Command::new(std::env::current_exe().expect("this program"));
    inside.args(["--exact", "proxy_variables_are_not_read", "--nocapture"]).env(INSIDE, model.base_url());
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        inside.env(name, format!("http://{}", proxy.address()));
    }
    for name in ["NO_PROXY", "no_proxy", "REQUEST_METHOD"] {
        inside.env_remove(name);
    }
    let output = inside.output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!((model.requests(), proxy.connections()), (1, 0));
}

/// An interpreter with the `openai` package, where one was named.
fn python() -> Option<PathBuf> {
    std::env::var_os("TOKA_TEST_OPENAI_PYTHON").map(PathBuf::from)
}

/// What a script of `tests/openai` says to `input`.
fn said(python: &Path, script: &str, args: &[&str], input: &[u8]) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/openai").join(script);
    let mut child = Command::new(python)
        .arg("-I")
        .arg(script)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the interpreter runs");
    child.stdin.take().expect("an input").write_all(input).expect("it is read");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn what_is_sent_reads_as_the_openai_package_writes_it() {
    let Some(python) = python() else { return };
    let server = server();
    let provider = HttpProvider::new(server.provider("test"), Environment::of_process()).expect("no TLS is needed");
    for choice in [Choice::Auto, Choice::Never, Choice::Any, Choice::Only("code.python".to_owned())] {
        for limit in [OutputLimit::MaxCompletionTokens, OutputLimit::MaxTokens] {
            ask(&provider, encode(&request(choice.clone()), limit).expect("it can be said")).expect("a reply");
        }
    }
    // JSON holds no line end, so each body is a line.
    let bodies: Vec<Vec<u8>> = server.captured().into_iter().map(|asked| asked.body).collect();
    let read = said(&python, "parse_request.py", &[], &bodies.join(&b'\n'));
    let one = json!({ "model": "gpt-5.1", "messages": 4, "tools": ["code__python", "file-reader"] });
    assert_eq!(read, Value::from(vec![one; 8]));
}

#[test]
fn the_client_of_the_openai_package_hears_what_the_script_says() {
    let Some(python) = python() else { return };
    let server = server();
    let body = encode(&request(Choice::Auto), OutputLimit::default()).expect("it can be said");
    let heard = said(&python, "ask.py", &[&server.base_url()], &body);
    let calls = json!([
        { "id": "call_1_0", "name": "code__python", "arguments": "{\"n\":1,\"path\":\"repo:/ü\"}" },
        { "id": "call_1_1", "name": "file-reader", "arguments": "{}" },
    ]);
    let text = "Grüß Gott, this is a text of some length, in pieces.";
    let once = json!({ "text": text, "calls": calls, "stop": "tool_calls", "usage": [120, 9] });
    assert_eq!(heard, json!([once, once]));
    assert_eq!(server.requests(), 2);
}
