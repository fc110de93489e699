//! Model calls: what the gateway sends and what came of it, as one admitted call.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::{Value, json};
use toka_kernel::Dim;
use toka_kernel::body::v1::{Outcome, Usage};
use toka_kernel::facts::FactType;
use toka_kernel::hash::{Context, derive};
use toka_kernel::ids::Digest;
use toka_kernel::limits::BLOB_GRAIN_BYTES;
use toka_kernel::tool::{Effect, FactDecl, Level, Model as ExecutionModel, Need, Reserve, ToolSpec};
use toka_tools::{Cancel, canonical};

use super::{Ended, Stop, Work, claims, grains, outcome};
use crate::clock::Clock;
use crate::gateway::config::{Dialect, Price, ProviderConfig, model_name};
use crate::gateway::openai_chat::OutputLimit;
use crate::gateway::pieces::Kept;
use crate::gateway::sse::STREAM_BYTES_MAX;
use crate::gateway::{
    Attempt, Failure, Fault, Provider, RealTime, Reply, Request, RequestError, Run, Usage as Counted, Wire, openai_chat,
};

/// A model that agents may ask: a tool of the node whose calls the gateway runs.
pub struct Model {
    spec: ToolSpec,
    dialect: Dialect,
    price: Option<Price>,
    provider: Arc<dyn Provider>,
    clock: Arc<dyn Clock>,
}

/// What a request is made of, as it stands in the arguments of its call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Whose conversation it belongs to.
    pub(crate) lane: String,
    /// Which request of the lane it is.
    pub(crate) ordinal: u64,
    /// The most tokens of its answer.
    pub(crate) max_output_tokens: u64,
}

impl Model {
    /// The model `name` of the server that `config` describes and `provider` speaks to.
    ///
    /// # Errors
    /// What is wrong with the name; then no grant could be written for it.
    pub fn new(
        config: &ProviderConfig,
        name: &str,
        provider: Arc<dyn Provider>,
        clock: Arc<dyn Clock>,
    ) -> Result<Model, String> {
        let price = config.prices.get(name).copied();
        let scope = model_name(&config.name, name)?;
        let spec = spec(config, name, &scope, price.is_some() || config.key.is_none());
        Ok(Model { spec, dialect: config.dialect, price, provider, clock })
    }

    /// The model that a session has bound, with a provider that answers in its server's place.
    ///
    /// # Errors
    /// What of its spec is not known here.
    pub fn recorded(spec: &ToolSpec, provider: Arc<dyn Provider>, clock: Arc<dyn Clock>) -> Result<Model, String> {
        let label = |name: &str| spec.labels.get(name).map(String::as_str);
        let limits = [OutputLimit::MaxCompletionTokens, OutputLimit::MaxTokens];
        let limit = limits.into_iter().find(|limit| label("output_limit") == Some(limit.field()));
        let output_limit = match (label("dialect"), limit) {
            (Some(openai_chat::NAME), Some(limit)) => limit,
            (_, _) => return Err(format!("the model `{}` speaks a dialect that is not known here", spec.name)),
        };
        let price = |name: &str| label(name).and_then(|text| text.parse().ok());
        let price = price("price_input").zip(price("price_output")).map(|(input, output)| Price { input, output });
        let dialect = Dialect::OpenAiChat { output_limit };
        Ok(Model { spec: spec.clone(), dialect, price, provider, clock })
    }

    /// Its spec as a tool.
    pub fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    /// The bytes of a request.
    ///
    /// # Errors
    /// What the dialect of its server cannot say.
    pub(crate) fn encode(&self, request: &Request) -> Result<Vec<u8>, RequestError> {
        match self.dialect {
            Dialect::OpenAiChat { output_limit } => openai_chat::encode(request, output_limit),
        }
    }

    /// The arguments of a call: which request it is, of what pieces, and what it can cost at the most.
    pub(crate) fn arguments(&self, asked: &Asked, kept: &Kept) -> Vec<u8> {
        let (tokens_in, tokens_out) = worst(kept.list.bytes, asked.max_output_tokens);
        let list: Value = serde_json::from_slice(&kept.list.to_json()).unwrap_or_default();
        let pieces: Vec<String> = kept.pieces.iter().map(|piece| piece.id.to_string()).collect();
        let mut arguments = json!({
            "lane": asked.lane, "list": list, "max_output_tokens": asked.max_output_tokens, "ordinal": asked.ordinal,
            "pieces": pieces, "tokens": tokens_in + tokens_out,
        });
        if let Some(price) = &self.price {
            arguments["cost_micro"] = json!(price.cost_micro(tokens_in, tokens_out));
        }
        // Invariant: these are texts and integers of a size that canonical JSON has.
        canonical(&arguments).unwrap_or_default()
    }

    /// Runs one call to its end. Whatever happens, there is an outcome.
    pub(super) fn run(&self, work: &Work, attempted: &mut dyn FnMut(Attempt) -> ControlFlow<()>) -> Ended {
        let began = Instant::now();
        let stopped = |stop: Stop| {
            let record = (!stop.detail.is_empty()).then(|| json!({ "detail": stop.detail }).to_string().into_bytes());
            Ended { record, ..Ended::without_running(&work.call, stop.outcome) }
        };
        let (asked, body) = match self.checked(work) {
            Ok(found) => found,
            Err(stop) => return stopped(stop),
        };
        let bytes_in = grains(body.len());
        let wire = Wire { lane: asked.lane, ordinal: asked.ordinal, body };
        let tokens = worst(wire.body.len() as u64, asked.max_output_tokens);
        let stop = Stopped(&work.stop);
        let now_us = self.clock.read().wall_us;
        let left_us = u64::try_from(work.until.saturating_duration_since(Instant::now()).as_micros());
        let mut run = Run {
            clock: self.clock.as_ref(),
            wait: &RealTime,
            stop: &stop,
            deadline_us: now_us.saturating_add(left_us.unwrap_or(u64::MAX)),
            seed: work.call.id().0,
            attempted,
        };
        let ended = self.provider.call(&wire, &mut run);
        let wall = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX).max(1);
        match ended {
            Ok(reply) => self.replied(work, &reply, tokens, bytes_in, wall),
            Err(failure) => self.failed(work, &failure, tokens, bytes_in, wall),
        }
    }

    /// What is to be sent, held against what was admitted: the pieces make exactly the body that was counted.
    fn checked(&self, work: &Work) -> Result<(Asked, Vec<u8>), Stop> {
        let declined = |what: &str| Stop::new(outcome::DECLINED, outcome::DETAIL_CLAIMS, None, what);
        if self.spec.digest().ok() != Some(work.call.digest()) {
            let what = "the configuration of this node describes another server or price for the model";
            return Err(Stop::new(outcome::PIN_MISMATCH, 0, None, what));
        }
        let (_, bytes) = claims(&self.spec, work)?;
        let arguments: Value = serde_json::from_slice(bytes).map_err(|_| declined("the arguments are no JSON"))?;
        let asked = Asked::read(&arguments).ok_or_else(|| declined("the arguments name no request"))?;
        let missing = "a piece of the request is gone, so it cannot be sent";
        let body = work.body.clone();
        let body = body.ok_or_else(|| Stop::new(outcome::START_FAILED, 0, Some("no-arguments"), missing))?;
        let (tokens_in, tokens_out) = worst(body.len() as u64, asked.max_output_tokens);
        let cost = self.price.map(|price| price.cost_micro(tokens_in, tokens_out));
        if arguments["tokens"] != json!(tokens_in + tokens_out)
            || arguments.get("cost_micro").cloned() != cost.map(Value::from)
        {
            return Err(declined("the arguments promise other amounts than the request can take"));
        }
        Ok((asked, body))
    }

    fn replied(&self, work: &Work, reply: &Reply, worst: (u64, u64), bytes_in: u64, wall: u64) -> Ended {
        let usage = self.usage(reply.usage, worst, reply.status);
        let summary = json!({
            "attempts": reply.attempts, "first_byte_us": reply.first_byte_us, "model": reply.model,
            "body": reply.raw.kind.name(), "estimated": usage.estimated,
        });
        let (outcome, result) = match reply.answer().to_json() {
            Ok(result) => (outcome::plain(outcome::SUCCEEDED, 0), Some(result)),
            Err(_) => (outcome::plain(outcome::LIMIT_EXCEEDED, outcome::DETAIL_OUTPUT), None),
        };
        let raw = reply.raw.bytes.clone();
        Ended {
            actual: self.actual(&usage, bytes_in, grains(raw.len()), wall),
            stdout: Some(raw),
            result,
            record: Some(summary.to_string().into_bytes()),
            usage: Some(usage),
            ..Ended::without_running(&work.call, outcome)
        }
    }

    fn failed(&self, work: &Work, failure: &Failure, worst: (u64, u64), bytes_in: u64, wall: u64) -> Ended {
        let (kind, detail) = match failure.fault {
            Fault::Cancelled => (outcome::CANCELLED, outcome::DETAIL_REVOKED),
            Fault::Deadline(_) => (outcome::TIMED_OUT, 0),
            _ if !failure.reached => (outcome::START_FAILED, 0),
            Fault::BadReply
            | Fault::StreamCut
            | Fault::StreamTooLarge(_)
            | Fault::RetryLater { .. }
            | Fault::RecordedMiss
            | Fault::ScriptMismatch
            | Fault::HttpStatus
            | Fault::Upstream { .. }
            | Fault::Unreachable
            | Fault::NoKey => (outcome::FAILED, 0),
        };
        let named = !matches!(kind, outcome::CANCELLED);
        let outcome = Outcome {
            number: failure.number(),
            symbol: named.then(|| failure.fault.symbol().to_owned()),
            ..outcome::plain(kind, detail)
        };
        // A server that answers with a status alone has counted nothing.
        let nothing = matches!(failure.fault, Fault::HttpStatus | Fault::RetryLater { .. } | Fault::ScriptMismatch);
        let counted = if nothing || !failure.reached { Some(failure.usage.unwrap_or_default()) } else { failure.usage };
        let usage = self.usage(counted, worst, failure.status);
        let record = json!({ "attempts": failure.attempts, "detail": failure.detail, "estimated": usage.estimated });
        let actual =
            if failure.reached { self.actual(&usage, bytes_in, grains(failure.raw.len()), wall) } else { vec![1] };
        Ended {
            actual,
            stdout: (!failure.raw.is_empty()).then(|| failure.raw.clone()),
            record: Some(record.to_string().into_bytes()),
            usage: failure.reached.then_some(usage),
            ..Ended::without_running(&work.call, outcome)
        }
    }

    /// What is charged: what the server counted, else all that was promised.
    fn usage(&self, counted: Option<Counted>, (tokens_in, tokens_out): (u64, u64), status: u16) -> Usage {
        let estimated = counted.is_none();
        let counted = counted.unwrap_or(Counted { tokens_in, tokens_cached: 0, tokens_out });
        Usage {
            tokens_in: counted.tokens_in,
            tokens_cached: counted.tokens_cached.min(counted.tokens_in),
            tokens_out: counted.tokens_out,
            status,
            estimated,
        }
    }

    fn actual(&self, usage: &Usage, bytes_in: u64, bytes_out: u64, wall: u64) -> Vec<u64> {
        let cost = self.price.map_or(0, |price| price.cost_micro(usage.tokens_in, usage.tokens_out));
        vec![1, bytes_in, bytes_out, usage.tokens_in.saturating_add(usage.tokens_out), cost, wall]
    }
}

impl Asked {
    /// Reads what [`Model::arguments`] wrote.
    pub(crate) fn read(arguments: &Value) -> Option<Asked> {
        Some(Asked {
            lane: arguments.get("lane")?.as_str()?.to_owned(),
            ordinal: arguments.get("ordinal")?.as_u64()?,
            max_output_tokens: arguments.get("max_output_tokens")?.as_u64()?,
        })
    }
}

/// The most tokens that a request of so many bytes and its answer can take. A token is at least three bytes of a text
/// that people write; the number is high on purpose.
fn worst(bytes: u64, max_output_tokens: u64) -> (u64, u64) {
    (bytes.div_ceil(3), max_output_tokens)
}

/// Whether the call is to end, as its executor knows it.
struct Stopped<'a>(&'a AtomicBool);

impl Cancel for Stopped<'_> {
    fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

fn spec(config: &ProviderConfig, name: &str, scope: &str, priced: bool) -> ToolSpec {
    let price = config.prices.get(name);
    let int = |pointer: &str| FactDecl { pointer: pointer.to_owned(), kind: FactType::Int.number() };
    let fixed = |dim: Dim, base: u64| Reserve { dim: dim.number(), base, per: 0, pointer: None };
    let of_fact =
        |dim: Dim, pointer: &str| Reserve { dim: dim.number(), base: 0, per: 1, pointer: Some(pointer.to_owned()) };
    let mut facts = vec![int("/tokens")];
    let mut reserve = vec![
        fixed(Dim::BytesIn, crate::gateway::request::REQUEST_BYTES_MAX as u64),
        fixed(Dim::BytesOut, (STREAM_BYTES_MAX as u64).next_multiple_of(BLOB_GRAIN_BYTES)),
        of_fact(Dim::Tokens, "/tokens"),
    ];
    match price {
        Some(_) => {
            facts.insert(0, int("/cost_micro"));
            reserve.push(of_fact(Dim::CostMicro, "/cost_micro"));
        }
        None if priced => reserve.push(fixed(Dim::CostMicro, 0)),
        // What has no price is refused where a budget of money holds.
        None => {}
    }
    reserve.push(fixed(Dim::WallUs, config.deadlines.total_us));
    reserve.sort_by_key(|reserve| reserve.dim);
    ToolSpec {
        name: format!("model.{scope}"),
        version: "1".to_owned(),
        description: format!("The model {name} of {}, asked by the loop of an agent.", config.name),
        program: server_digest(config, name),
        facts,
        needs: vec![Need { text: format!("model:{scope}"), when: None }],
        effect: Effect::Read.number(),
        reserve,
        model: ExecutionModel::Agent.number(),
        level: Level::Native.number(),
        parallel_safe: true,
        params: Vec::new(),
        result: "what the model answers".to_owned(),
        labels: labels(config, price),
        run: None,
        probe: None,
    }
}

/// What somebody needs who answers in the place of the server, later.
fn labels(config: &ProviderConfig, price: Option<&Price>) -> BTreeMap<String, String> {
    let Dialect::OpenAiChat { output_limit } = config.dialect;
    let mut labels = BTreeMap::from([
        ("dialect".to_owned(), openai_chat::NAME.to_owned()),
        ("output_limit".to_owned(), output_limit.field().to_owned()),
    ]);
    if let Some(price) = price {
        labels.insert("price_input".to_owned(), price.input.to_string());
        labels.insert("price_output".to_owned(), price.output.to_string());
    }
    labels
}

/// Which server is asked for which model, and for how much: what the operator configured. A server that follows a script
/// has another address each time and is the same.
fn server_digest(config: &ProviderConfig, name: &str) -> Digest {
    let url = if config.scripted { "scripted".to_owned() } else { config.base_url.to_string() };
    let Dialect::OpenAiChat { output_limit } = config.dialect;
    let price = config.prices.get(name).map_or_else(String::new, |price| format!("{price:?}"));
    let parts = [openai_chat::NAME, output_limit.field(), &url, name, &price];
    let joined: Vec<u8> =
        parts.iter().flat_map(|part| [&(part.len() as u64).to_be_bytes(), part.as_bytes()].concat()).collect();
    derive(Context::ToolSpec, &[b"model", &joined])
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("name", &self.spec.name).finish_non_exhaustive()
    }
}
