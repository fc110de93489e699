//! A model that follows a script: for demos and tests, behind a real server, so that the real client is what runs.
//!
//! A script is a YAML file with the turns of each lane, and a lane is an agent:
//!
//! ```yaml
//! apiVersion: toka/v1
//! kind: ModelScript
//! lanes:
//!   auditor:
//!     - expect: { tools: [file-reader], contains: [CHANGELOG] }
//!       reply: { text: Looking., calls: [ { tool: file-reader, arguments: { path: "repo:/CHANGELOG.md" } } ] }
//!     - expect: { results: [ { n: 0, pointer: /content, equals: "…" } ] }
//!       reply:
//!         - { status: 429, retry_after: 1s }
//!         - { text: Done. }
//! ```
//!
//! **Which turn** a request is, is said by its header [`ORDINAL`], counted from 0, or else by how many answers of the
//! model its conversation holds. So a request that is made again after a crash gets the same answer. A list of replies
//! goes to the first, second, … request of a turn; the last one stays.
//!
//! **Which lane** it is, is said by the header [`LANE`], or else by `user` in the body; a script of one lane needs
//! neither. The headers are sent to scripted servers only, so that no name of an agent leaves the machine.
//!
//! A **fault** takes the place of an answer: `status` (with `retry_after`), `stall`, `malformed` or `overloaded`; an
//! answer with `cut_after_bytes` or `stall_after_bytes` begins and does not end. A request that the script does not
//! expect gets status 422 and the symbol `SCRIPT_MISMATCH`, with lane, turn and pointer.

mod answer;
mod read;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use toka_tools::files::FileError;

use self::answer::json_type;
use super::config::{BaseUrl, Deadlines, Dialect, IN_FLIGHT_MAX, ProviderConfig};
use super::openai_chat::{OutputLimit, PATH};
use super::server::{Answered, Asked, Body, End, Server};

/// The header that names the lane of a request.
pub const LANE: &str = "x-toka-lane";
/// The header that says which request of its lane it is.
pub const ORDINAL: &str = "x-toka-ordinal";
/// The header that names the symbol of a refusal.
pub const SYMBOL: &str = "x-toka-symbol";

/// The most lanes of a script.
pub const LANES_MAX: usize = 256;
/// The most turns of a lane.
pub const TURNS_MAX: usize = 1_000;
/// The most replies of a turn.
pub const REPLIES_MAX: usize = 16;
/// The most entries of the lists within a turn.
pub const ITEMS_MAX: usize = 64;
/// The most bytes of a text.
pub const TEXT_BYTES_MAX: usize = 256 << 10;
/// The most bytes of requests that a server keeps.
pub const KEPT_BYTES_MAX: usize = 64 << 20;

/// The turns of each lane.
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    lanes: BTreeMap<String, Vec<Turn>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Turn {
    expect: Expect,
    replies: Vec<Reply>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Expect {
    /// Tools that must be offered, by their names here.
    tools: Vec<String>,
    /// Texts that must stand somewhere in the messages.
    contains: Vec<String>,
    results: Vec<ExpectResult>,
}

/// What the n-th tool result of the conversation must hold.
#[derive(Clone, Debug, PartialEq)]
struct ExpectResult {
    n: usize,
    pointer: String,
    equals: Option<Value>,
}

#[derive(Clone, Debug, PartialEq)]
enum Reply {
    Answer(Answer),
    Status { status: u16, retry_after_us: Option<u64> },
    Stall,
    Malformed,
    Overloaded,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Answer {
    text: String,
    calls: Vec<Call>,
    stop: Option<&'static str>,
    usage: UsageSaid,
    end: Option<(u64, End)>,
}

#[derive(Clone, Debug, PartialEq)]
struct Call {
    tool: String,
    arguments: String,
}

/// What an answer says it took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum UsageSaid {
    /// A number for each four bytes.
    #[default]
    Counted,
    /// Nothing.
    Nothing,
    /// These.
    These { tokens_in: u64, cached: u64, tokens_out: u64 },
}

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of the places.
    pub fn read(file: &str, bytes: &[u8]) -> Result<Script, Vec<FileError>> {
        read::read(file, bytes)
    }
}

/// A scripted model behind a server on the loopback interface; it stops when this is dropped.
#[derive(Debug)]
pub struct ScriptedServer {
    server: Server,
    base_url: BaseUrl,
    kept: Arc<Mutex<Kept>>,
}

/// A request that a scripted server was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// Its lane.
    pub lane: String,
    /// Which of its lane it was.
    pub ordinal: u64,
    /// Its body, byte for byte.
    pub body: Vec<u8>,
    /// Whether it carried a key.
    pub authorised: bool,
}

#[derive(Debug, Default)]
struct Kept {
    requests: u64,
    seen: BTreeMap<(String, u64), usize>,
    captured: Vec<Captured>,
    bytes: usize,
}

impl ScriptedServer {
    /// Serves `script` on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When there is none.
    pub fn start(script: Script) -> io::Result<ScriptedServer> {
        let kept = Arc::new(Mutex::new(Kept::default()));
        let shared = kept.clone();
        let server = Server::start(move |asked: Asked| answer(&script, &shared, asked))?;
        let base_url = BaseUrl::parse(&format!("http://{}/v1", server.address()), false);
        let base_url = base_url.map_err(|(wrong, _)| io::Error::other(wrong))?;
        Ok(ScriptedServer { server, base_url, kept })
    }

    /// The URL below which it answers.
    pub fn base_url(&self) -> String {
        self.base_url.to_string()
    }

    /// How it is spoken to by the real client, under the name `name`.
    pub fn provider(&self, name: &str) -> ProviderConfig {
        config(name, self.base_url.clone())
    }

    /// How many requests it was asked.
    pub fn requests(&self) -> u64 {
        lock(&self.kept).requests
    }

    /// How many connections were made to it.
    pub fn connections(&self) -> u64 {
        self.server.connections()
    }

    /// The requests it was asked, in order, as far as [`KEPT_BYTES_MAX`] bytes hold them.
    pub fn captured(&self) -> Vec<Captured> {
        lock(&self.kept).captured.clone()
    }
}

/// A scripted server at a URL, perhaps of another process.
///
/// # Errors
/// When it is no URL of this machine.
pub fn provider(name: &str, base_url: &str) -> Result<ProviderConfig, (&'static str, &'static str)> {
    Ok(config(name, BaseUrl::parse(base_url, false)?))
}

fn config(name: &str, base_url: BaseUrl) -> ProviderConfig {
    ProviderConfig {
        name: name.to_owned(),
        dialect: Dialect::OpenAiChat { output_limit: OutputLimit::default() },
        base_url,
        key: None,
        headers: Vec::new(),
        max_in_flight: IN_FLIGHT_MAX,
        deadlines: Deadlines::default(),
        prices: BTreeMap::new(),
        scripted: true,
    }
}

fn lock(kept: &Mutex<Kept>) -> std::sync::MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer(script: &Script, kept: &Mutex<Kept>, asked: Asked) -> Answered {
    let refused = |status, what: &str| {
        let error = json!({ "error": { "message": what, "type": "invalid_request_error", "code": null } });
        Answered { status, headers: vec![json_type()], body: Body::Whole(error.to_string().into_bytes()) }
    };
    if asked.method != "POST" || asked.path != format!("/v1{PATH}") {
        return refused(404, "only POST /v1/chat/completions is answered here");
    }
    let Ok(body) = serde_json::from_slice::<Value>(&asked.body) else { return refused(400, "the body is no JSON") };
    let only = if script.lanes.len() == 1 { script.lanes.keys().next().map(String::as_str) } else { None };
    let lane = asked.header(LANE).or(body["user"].as_str()).or(only).unwrap_or_default().to_owned();
    let said = || body["messages"].as_array().into_iter().flatten().filter(|turn| turn["role"] == "assistant").count();
    let ordinal = match asked.header(ORDINAL).map(str::parse::<u64>) {
        Some(Ok(ordinal)) => ordinal,
        Some(Err(_)) => return refused(400, "x-toka-ordinal is no number"),
        None => said() as u64,
    };
    let bytes = asked.body.len();
    let seen = remember(kept, &lane, ordinal, asked);
    script.answer(&lane, ordinal, seen, &body, bytes)
}

/// Counts a request and keeps it; how many of this turn there were before.
fn remember(kept: &Mutex<Kept>, lane: &str, ordinal: u64, asked: Asked) -> usize {
    let mut kept = lock(kept);
    kept.requests += 1;
    if kept.bytes + asked.body.len() <= KEPT_BYTES_MAX {
        kept.bytes += asked.body.len();
        let authorised = asked.header("authorization").is_some();
        kept.captured.push(Captured { lane: lane.to_owned(), ordinal, body: asked.body, authorised });
    }
    let seen = kept.seen.entry((lane.to_owned(), ordinal)).or_default();
    *seen += 1;
    *seen - 1
}
