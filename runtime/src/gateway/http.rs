//! Model servers over HTTP.
//!
//! The client is asynchronous and the rest of the program is not, so every attempt has a runtime of its own on the
//! thread of its call, and nothing of it is left when the attempt is over. Redirects are not followed and proxy
//! variables are not read: a request goes where the configuration says, or nowhere. The key joins a request here and
//! nowhere else, after whoever records the request has done so.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Response};
use secrecy::{ExposeSecret, SecretString};
use toka_kernel::ids::TimeUs;
use toka_tools::Cancel;
use toka_tools::files::clean;
use tokio::time::{Instant, timeout_at};

use super::config::{Dialect, ProviderConfig};
use super::key::{Environment, read_key};
use super::openai_chat::{self, Stream, Wrong};
use super::redact::Redactor;
use super::retry::{ATTEMPTS_MAX, Asked, Failed, Next, asked, jitter, next};
use super::scripted::{LANE, ORDINAL, SYMBOL};
use super::sse::STREAM_BYTES_MAX;
use super::time::LOOK_US;
use super::{Answer, Attempt, Bound, Cause, Failure, Fault, Provider, RawKind, Reply, Run, Stop, Usage, Which, Wire};

/// The most bytes that are kept of a body which reports a fault.
pub const FAULT_BYTES_MAX: usize = 1 << 20;
/// The most characters of what is told to people about a fault.
pub const DETAIL_CHARS_MAX: usize = 400;

/// A model server over HTTP.
pub struct HttpProvider {
    config: ProviderConfig,
    environment: Environment,
    key: Mutex<Option<SecretString>>,
    tls: rustls::ClientConfig,
    places: Places,
}

/// There is nothing to check certificates against.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the provider {provider} cannot be spoken to over TLS: {what}")]
pub struct NoTls {
    /// The provider.
    pub provider: String,
    /// What is missing.
    pub what: String,
}

impl HttpProvider {
    /// The server that `config` describes. Its key is read when it is first needed, from `environment` where it lies
    /// there; the certificates that the system trusts are read now.
    ///
    /// # Errors
    /// [`NoTls`] if the server is to be reached by HTTPS and the system trusts nobody.
    pub fn new(config: ProviderConfig, environment: Environment) -> Result<HttpProvider, NoTls> {
        let tls = tls(config.base_url.is_https())
            .map_err(|error| NoTls { provider: config.name.clone(), what: error.to_string() })?;
        let places = Places::new(config.max_in_flight);
        Ok(HttpProvider { config, environment, key: Mutex::new(None), tls, places })
    }

    /// How it is spoken to.
    pub fn config(&self) -> &ProviderConfig {
        &self.config
    }

    /// Forgets the key, so that the next call reads it again.
    pub fn reload(&self) {
        *self.known_key() = None;
    }

    fn known_key(&self) -> std::sync::MutexGuard<'_, Option<SecretString>> {
        self.key.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key, if this server wants one; read anew where none is known or `again`.
    fn key(&self, again: bool) -> Result<Option<SecretString>, Failure> {
        let Some(reference) = &self.config.key else { return Ok(None) };
        let mut known = self.known_key();
        if again || known.is_none() {
            let read = read_key(reference, &self.environment);
            let read = read.map_err(|error| Failure::unsent(Fault::NoKey, error.to_string()))?;
            *known = Some(read);
        }
        Ok(known.clone())
    }

    /// Another key than `key`, if there is one by now.
    fn other_key(&self, key: Option<&SecretString>) -> Option<SecretString> {
        let read = self.key(true).ok()??;
        (key.map(ExposeSecret::expose_secret) != Some(read.expose_secret())).then_some(read)
    }

    fn client(&self) -> reqwest::Result<Client> {
        Client::builder()
            .tls_backend_preconfigured(self.tls.clone())
            .redirect(Policy::none())
            .no_proxy()
            .http1_only()
            .https_only(self.config.base_url.is_https())
            .referer(false)
            .retry(reqwest::retry::never())
            .pool_max_idle_per_host(0)
            .connect_timeout(Duration::from_micros(self.config.deadlines.connect_us))
            .user_agent(concat!("toka/", env!("CARGO_PKG_VERSION")))
            .build()
    }

    fn headers(&self, wire: &Wire, key: Option<&SecretString>) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.config.headers {
            let name = reqwest::header::HeaderName::from_bytes(name.as_bytes()).map_err(|error| error.to_string())?;
            headers.insert(name, HeaderValue::from_str(value).map_err(|error| error.to_string())?);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream, application/json"));
        if self.config.scripted {
            headers.insert(LANE, HeaderValue::from_str(&wire.lane).map_err(|error| error.to_string())?);
            headers.insert(ORDINAL, HeaderValue::from(wire.ordinal));
        }
        if let Some(key) = key {
            let bearer = SecretString::from(format!("Bearer {}", key.expose_secret()));
            let value = HeaderValue::from_str(bearer.expose_secret());
            // Without the text of the error: it is about a key.
            let mut value = value.map_err(|_| "the key cannot stand in a header".to_owned())?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(headers)
    }

    /// One attempt, from the connection to the last byte.
    fn attempt(&self, try_: &Try<'_>, run: &Run<'_>, end_us: TimeUs) -> Result<Reply, Missed> {
        let left_us = end_us.saturating_sub(run.clock.read().wall_us);
        if left_us == 0 {
            return Err(Missed::unsent(Fault::Deadline(Which::Total), "its time is over"));
        }
        let unable = |what: String| Missed::unsent(Fault::Unreachable, &what);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| unable(error.to_string()))?;
        let ended = runtime.block_on(async {
            let client = self.client().map_err(|error| unable(told(&error)))?;
            let timer = Timer { stop: run.stop, end: Instant::now() + Duration::from_micros(left_us) };
            self.exchange(&client, try_, &timer).await
        });
        // A name that is still being looked up keeps a thread, and nobody waits for it.
        runtime.shutdown_background();
        ended
    }

    async fn exchange(&self, client: &Client, try_: &Try<'_>, timer: &Timer<'_>) -> Result<Reply, Missed> {
        let path = match self.config.dialect {
            Dialect::OpenAiChat { .. } => openai_chat::PATH,
        };
        let headers = self.headers(try_.wire, try_.key);
        let headers = headers.map_err(|what| Missed::unsent(Fault::Unreachable, &what))?;
        let request = client.post(self.config.base_url.join(path)).headers(headers).body(try_.wire.body.clone());
        let begun = Instant::now();
        let first_byte = begun + Duration::from_micros(self.config.deadlines.first_byte_us);
        let mut response = match timer.within(first_byte, Which::FirstByte, request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(Missed::unanswered(&error)),
            Err(fault) => return Err(Missed::sent(fault, &silence(fault))),
        };
        let first_byte_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        let status = response.status().as_u16();
        if !response.status().is_success() {
            return Err(self.refused(&mut response, timer).await);
        }
        let events = header(&response, CONTENT_TYPE.as_str()).is_some_and(is_event_stream);
        let read =
            if events { self.events(&mut response, timer).await } else { self.whole(&mut response, timer).await };
        let Read { kind, raw, answer } = read.map_err(|missed| Missed { status, ..missed })?;
        let stop = match answer.stop {
            Stop::Other(word) => Stop::Other(try_.redactor.text(&word)),
            stop @ (Stop::End | Stop::Tools | Stop::Length | Stop::Refused) => stop,
        };
        Ok(Reply {
            parts: answer.parts.into_iter().map(|part| try_.redactor.part(part)).collect(),
            stop,
            usage: answer.usage,
            model: answer.model.map(|model| try_.redactor.text(&model)),
            status,
            raw: try_.redactor.body(kind, &raw),
            attempts: 0,
            first_byte_us,
        })
    }

    /// The next piece of a body; `None` at its end.
    async fn piece(&self, response: &mut Response, timer: &Timer<'_>) -> Result<Option<Vec<u8>>, Missed> {
        let idle = Instant::now() + Duration::from_micros(self.config.deadlines.idle_us);
        match timer.within(idle, Which::Idle, response.chunk()).await {
            Ok(Ok(piece)) => Ok(piece.map(|bytes| bytes.to_vec())),
            Ok(Err(error)) => Err(Missed::sent(Fault::StreamCut, &told(&error))),
            Err(fault) => Err(Missed::sent(fault, &silence(fault))),
        }
    }

    async fn events(&self, response: &mut Response, timer: &Timer<'_>) -> Result<Read, Missed> {
        let mut stream = Stream::new();
        let with_part = |missed: Missed, stream: &Stream| Missed {
            raw: stream.raw().to_vec(),
            kind: RawKind::Events,
            usage: stream.usage(),
            ..missed
        };
        loop {
            let piece = match self.piece(response, timer).await {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                Err(missed) => return Err(with_part(missed, &stream)),
            };
            match stream.feed(&piece) {
                Ok(true) => break,
                Ok(false) => {}
                Err(wrong) => return Err(with_part(Missed::wrong(wrong), &stream)),
            }
        }
        let (raw, usage) = (stream.raw().to_vec(), stream.usage());
        match stream.end() {
            Ok(answer) => Ok(Read { kind: RawKind::Events, raw, answer }),
            Err(wrong) => Err(Missed { raw, usage, kind: RawKind::Events, ..Missed::wrong(wrong) }),
        }
    }

    async fn whole(&self, response: &mut Response, timer: &Timer<'_>) -> Result<Read, Missed> {
        let mut raw = Vec::new();
        loop {
            match self.piece(response, timer).await {
                Ok(Some(piece)) if raw.len() + piece.len() > STREAM_BYTES_MAX => {
                    return Err(Missed { raw, ..Missed::wrong(Wrong::TooLarge(Bound::Stream)) });
                }
                Ok(Some(piece)) => raw.extend_from_slice(&piece),
                Ok(None) => break,
                Err(missed) => return Err(Missed { raw, ..missed }),
            }
        }
        match openai_chat::decode(RawKind::Whole, &raw) {
            Ok(answer) => Ok(Read { kind: RawKind::Whole, raw, answer }),
            Err(wrong) => Err(Missed { raw, ..Missed::wrong(wrong) }),
        }
    }

    /// What a status that is no success says.
    async fn refused(&self, response: &mut Response, timer: &Timer<'_>) -> Missed {
        let status = response.status();
        let asked = asked(header(response, "retry-after-ms"), header(response, "retry-after"));
        let mismatch = self.config.scripted && header(response, SYMBOL) == Some("SCRIPT_MISMATCH");
        let mut raw = Vec::new();
        // The status says enough: of a body that does not come, the beginning is kept.
        while let Ok(Some(piece)) = self.piece(response, timer).await {
            raw.extend_from_slice(&piece[..piece.len().min(FAULT_BYTES_MAX - raw.len())]);
            if raw.len() == FAULT_BYTES_MAX {
                break;
            }
        }
        let complaint = openai_chat::complaint(&raw).map_or(String::new(), |text| format!(": {text}"));
        let fault = if mismatch { Fault::ScriptMismatch } else { Fault::HttpStatus };
        let detail = format!("the server answers {status}{complaint}");
        Missed { asked, raw, status: status.as_u16(), ..Missed::sent(fault, &detail) }
    }
}

impl Provider for HttpProvider {
    fn call(&self, wire: &Wire, run: &mut Run<'_>) -> Result<Reply, Failure> {
        let begun_us = run.clock.read().wall_us;
        let end_us = run.deadline_us.min(begun_us.saturating_add(self.config.deadlines.total_us));
        let _place = self.places.take(run, end_us)?;
        let mut keys: Vec<SecretString> = self.key(false)?.into_iter().collect();
        let mut read_again = keys.is_empty();
        let (mut attempt, mut bad_replies, mut reached) = (0, 0, false);
        loop {
            attempt += 1;
            let redactor = Redactor::of(&keys);
            let try_ = Try { wire, key: keys.last(), redactor: &redactor };
            let missed = match self.attempt(&try_, run, end_us) {
                Ok(reply) => return Ok(Reply { attempts: attempt, ..reply }),
                Err(missed) => missed,
            };
            reached |= missed.reached;
            let now_us = run.clock.read().wall_us;
            let mut follow = None;
            if missed.status == 401 && !read_again && attempt < ATTEMPTS_MAX {
                read_again = true;
                // The key may have been changed while this program ran.
                if let Some(other) = self.other_key(keys.last()) {
                    keys.push(other);
                    follow = Some(Next::Wait { us: 0, cause: Cause::Status });
                }
            }
            let failed =
                Failed { attempt, bad_replies, fault: missed.fault, status: missed.status, asked: missed.asked };
            let follow = follow.unwrap_or_else(|| next(&failed, now_us, end_us, jitter(&run.seed, attempt)));
            bad_replies += u16::from(missed.fault == Fault::BadReply);
            match follow {
                Next::Give(fault) => return Err(missed.failure(fault, attempt, reached, &redactor)),
                Next::Wait { us, cause } => {
                    let told = missed.attempt(attempt, cause, now_us.saturating_add(us), &redactor);
                    let goes_on = (run.attempted)(told).is_continue() && run.wait.wait(us, run.stop);
                    if !goes_on {
                        return Err(missed.failure(Fault::Cancelled, attempt, reached, &redactor));
                    }
                }
            }
        }
    }
}

impl fmt::Debug for HttpProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpProvider").field("config", &self.config).finish_non_exhaustive()
    }
}

/// What an attempt is made with.
struct Try<'t> {
    wire: &'t Wire,
    key: Option<&'t SecretString>,
    redactor: &'t Redactor,
}

/// A body that was read to its end.
struct Read {
    kind: RawKind,
    raw: Vec<u8>,
    answer: Answer,
}

/// An attempt without an answer. Its texts are as they came: they may hold secrets, and whatever disturbs a terminal.
struct Missed {
    fault: Fault,
    status: u16,
    detail: String,
    kind: RawKind,
    raw: Vec<u8>,
    usage: Option<Usage>,
    asked: Option<Asked>,
    reached: bool,
}

impl Missed {
    fn unsent(fault: Fault, detail: &str) -> Missed {
        let detail = detail.to_owned();
        Missed {
            fault,
            status: 0,
            detail,
            kind: RawKind::Whole,
            raw: Vec::new(),
            usage: None,
            asked: None,
            reached: false,
        }
    }

    fn sent(fault: Fault, detail: &str) -> Missed {
        Missed { reached: true, ..Missed::unsent(fault, detail) }
    }

    fn unanswered(error: &reqwest::Error) -> Missed {
        match (error.is_connect(), error.is_timeout()) {
            (true, true) => Missed::unsent(Fault::Deadline(Which::Connect), "no connection was made in time"),
            (true, false) => Missed::unsent(Fault::Unreachable, &told(error)),
            (false, _) => Missed::sent(Fault::StreamCut, &told(error)),
        }
    }

    fn wrong(wrong: Wrong) -> Missed {
        let detail = wrong.to_string();
        let fault = match wrong {
            Wrong::Reply(_) => Fault::BadReply,
            Wrong::Upstream { overloaded, .. } => Fault::Upstream { overloaded },
            Wrong::Cut => Fault::StreamCut,
            Wrong::TooLarge(bound) => Fault::StreamTooLarge(bound),
        };
        Missed::sent(fault, &detail)
    }

    fn attempt(&self, attempt: u16, cause: Cause, not_before_us: TimeUs, redactor: &Redactor) -> Attempt {
        Attempt {
            attempt,
            cause,
            status: self.status,
            not_before_us,
            usage: self.usage,
            part: redactor.body(self.kind, &self.raw).bytes,
            detail: told_to_people(&self.detail, redactor),
        }
    }

    fn failure(self, fault: Fault, attempts: u16, reached: bool, redactor: &Redactor) -> Failure {
        Failure {
            fault,
            status: self.status,
            detail: told_to_people(&self.detail, redactor),
            raw: redactor.body(self.kind, &self.raw).bytes,
            usage: self.usage,
            attempts,
            reached,
        }
    }
}

/// Deadlines of one attempt.
struct Timer<'t> {
    stop: &'t dyn Cancel,
    /// When the call as a whole is over.
    end: Instant,
}

impl Timer<'_> {
    /// Waits for `future` until `until`, the end of the call, or until the call is told to end.
    async fn within<F: Future>(&self, until: Instant, which: Which, future: F) -> Result<F::Output, Fault> {
        let mut future = pin!(future);
        let (until, which) = if self.end < until { (self.end, Which::Total) } else { (until, which) };
        loop {
            if self.stop.requested() {
                return Err(Fault::Cancelled);
            }
            let look = until.min(Instant::now() + Duration::from_micros(LOOK_US));
            match timeout_at(look, &mut future).await {
                Ok(output) => return Ok(output),
                Err(_) if look == until => return Err(Fault::Deadline(which)),
                Err(_) => {}
            }
        }
    }
}

/// What a deadline says to people.
fn silence(fault: Fault) -> String {
    if let Fault::Deadline(which) = fault {
        return format!("the deadline `{which}` passed");
    }
    "the call was told to end".to_owned()
}

/// An error of the client with its causes, without the URL.
fn told(error: &reqwest::Error) -> String {
    let mut text = if error.is_connect() { "no connection".to_owned() } else { "the connection broke".to_owned() };
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// A text for people: without secrets, and only then cut and escaped, so that no half of a secret is left.
fn told_to_people(text: &str, redactor: &Redactor) -> String {
    clean(&redactor.text(text), DETAIL_CHARS_MAX)
}

fn is_event_stream(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("text/event-stream")
}

fn header<'r>(response: &'r Response, name: &str) -> Option<&'r str> {
    response.headers().get(name)?.to_str().ok()
}

fn tls(https: bool) -> Result<rustls::ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        rustls::ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    if !https {
        // Plain HTTP needs no trust, and must not fail where the system has none.
        return Ok(builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth());
    }
    let verifier = rustls_platform_verifier::Verifier::new(provider)?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}

/// How many calls may run at once.
struct Places {
    free: Mutex<u16>,
    freed: Condvar,
}

/// A place that is free again when this is dropped.
struct Place<'p>(&'p Places);

impl Places {
    fn new(count: u16) -> Places {
        Places { free: Mutex::new(count.max(1)), freed: Condvar::new() }
    }

    /// Waits for a place.
    fn take(&self, run: &Run<'_>, end_us: TimeUs) -> Result<Place<'_>, Failure> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if run.stop.requested() {
                return Err(Failure::unsent(Fault::Cancelled, "the call was told to end before it began"));
            }
            if *free > 0 {
                *free -= 1;
                return Ok(Place(self));
            }
            if run.clock.read().wall_us >= end_us {
                let detail = "as many calls as may run at once ran until its time was over";
                return Err(Failure::unsent(Fault::Deadline(Which::Queue), detail));
            }
            let look = Duration::from_micros(LOOK_US);
            free = self.freed.wait_timeout(free, look).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}
