//! The model gateway beside other programs: with the environment of a process of its own, and with the client of the
//! `openai` package, which must read what Toka writes and be understood by the scripted server.
//!
//! The package is what `./test` installs; `TOKA_TEST_OPENAI_PYTHON` names an interpreter that has it.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use toka_runtime::clock::PushedClock;
use toka_runtime::gateway::config::BaseUrl;
use toka_runtime::gateway::http::HttpProvider;
use toka_runtime::gateway::key::{Environment, KeyRef};
use toka_runtime::gateway::openai_chat::{OutputLimit, encode};
use toka_runtime::gateway::scripted::{Script, ScriptedServer, provider};
use toka_runtime::gateway::server::{Answered, Asked, Body, Server};
use toka_runtime::gateway::{
    Attempt, Choice, Failure, Input, Provider, ProviderConfig, Reply, Request, Run, Stop, Tool, ToolCall, Turn, Wire,
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
    // Nobody waits between attempts: the clock is pushed.
    let clock = PushedClock::at(1_800_000_000_000_000);
    let mut run = Run {
        clock: &clock,
        wait: &clock,
        stop: &AtomicBool::new(false),
        deadline_us: u64::MAX,
        seed: [0; 32],
        attempted: &mut attempted,
    };
    provider.call(&Wire { lane: "auditor".to_owned(), ordinal: 1, body }, &mut run)
}

/// What a test asks in a process of its own, whose environment it chooses: the URL of a server.
const INSIDE: &str = "TOKA_TEST_GATEWAY_URL";

/// This test again, in such a process.
fn inside(test: &str, url: &str) -> Command {
    let mut inside = Command::new(std::env::current_exe().expect("this program"));
    inside.args(["--exact", test, "--nocapture"]).env(INSIDE, url);
    inside
}

fn succeeds(inside: &mut Command) {
    let output = inside.output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

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
    let mut inside = inside("proxy_variables_are_not_read", &model.base_url());
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        inside.env(name, format!("http://{}", proxy.address()));
    }
    for name in ["NO_PROXY", "no_proxy", "REQUEST_METHOD"] {
        inside.env_remove(name);
    }
    succeeds(&mut inside);
    assert_eq!((model.requests(), proxy.connections()), (1, 0));
}

/// Somebody who signs certificates, and a server's certificate with its key.
struct Authority {
    pem: String,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let pem = params.self_signed(&key).expect("a certificate").pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let certificate = params.signed_by(&key, &issuer).expect("a certificate");
    Authority { pem, certificate: certificate.der().to_vec(), key: key.serialize_der() }
}

/// Answers one request over TLS; whether anything was asked.
fn serve_tls(listener: &TcpListener, authority: &Authority) -> bool {
    let chain = vec![CertificateDer::from(authority.certificate.clone())];
    let key = PrivatePkcs8KeyDer::from(authority.key.clone()).into();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate with its key");
    let (mut socket, _) = listener.accept().expect("a connection");
    let mut tls = rustls::ServerConnection::new(Arc::new(config)).expect("a server");
    let mut stream = rustls::Stream::new(&mut tls, &mut socket);
    let mut asked = Vec::new();
    let mut piece = [0; 4_096];
    while !asked.ends_with(b"]}") {
        match stream.read(&mut piece) {
            Ok(read) if read > 0 => asked.extend_from_slice(&piece[..read]),
            Ok(_) | Err(_) => return false,
        }
    }
    let body = r#"{"choices":[{"index":0,"message":{"content":"over TLS"},"finish_reason":"stop"}]}"#;
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).expect("it is heard");
    String::from_utf8_lossy(&asked).contains("uthorization: Bearer sk-canary-0123456789")
}

#[test]
fn a_server_is_asked_over_tls_if_the_system_trusts_it_and_sent_nothing_if_not() {
    if let Ok(url) = std::env::var(INSIDE) {
        let config = ProviderConfig {
            base_url: BaseUrl::parse(&url, false).expect("a URL"),
            key: Some(KeyRef::parse("env:TOKA_TEST_KEY").expect("a reference")),
            prices: std::collections::BTreeMap::new(),
            scripted: false,
            ..provider("test", "http://localhost").expect("a URL")
        };
        let provider = HttpProvider::new(config, Environment::of_process()).expect("somebody is trusted");
        let body = encode(&request(Choice::Auto), OutputLimit::default()).expect("it can be said");
        match ask(&provider, body) {
            Ok(reply) => assert_eq!(reply.text(), "over TLS"),
            // The first attempt says why; for the others nobody listens any more.
            Err(failure) => panic!("{} {}", failure.fault.symbol(), failure.reached),
        }
        return;
    }
    let test = "a_server_is_asked_over_tls_if_the_system_trusts_it_and_sent_nothing_if_not";
    let folder = tempfile::tempdir().expect("a folder");
    let (ours, theirs) = (authority(), authority());
    for (trusted, asked) in [(&ours, true), (&theirs, false)] {
        let trust = folder.path().join("trusted.pem");
        std::fs::write(&trust, &trusted.pem).expect("it is written");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("it listens");
        let url = format!("https://localhost:{}/v1", listener.local_addr().expect("an address").port());
        let mut inside = inside(test, &url);
        inside.env("SSL_CERT_FILE", &trust).env_remove("SSL_CERT_DIR").env("TOKA_TEST_KEY", "sk-canary-0123456789");
        let inside = inside.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        let was_asked = serve_tls(&listener, &ours);
        drop(listener);
        let output = inside.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((was_asked, output.status.success()), (asked, asked), "{said}");
        assert!(asked || said.contains("UNREACHABLE false"), "{said}");
    }
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
