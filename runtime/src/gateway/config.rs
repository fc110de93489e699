//! The table `[gateway.providers.NAME]` of the configuration: which servers there are, and how they are spoken to.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use reqwest::Url;
use toka_kernel::capability::{is_exact_name, is_name_seg};
use toka_tools::files::quantity::Usd;
use toka_tools::files::yaml::Node;
use toka_tools::files::{FileCode, FileError, Format, Problems, Shape, clean, decode, quote, toml};

use super::key::KeyRef;
use super::openai_chat::{self, OutputLimit};

/// What the file is.
const FORMAT: Format = Format { noun: "configuration", kind: "Configuration", bytes_max: 1 << 20 };

/// The most providers.
pub const PROVIDERS_MAX: usize = 64;
/// The most headers of a provider.
pub const HEADERS_MAX: usize = 32;
/// The most bytes of the value of a header.
pub const HEADER_BYTES_MAX: usize = 1_024;
/// How many calls of one provider may run at once, where nothing is said.
pub const IN_FLIGHT: u16 = 8;
/// The most calls of one provider that may run at once.
pub const IN_FLIGHT_MAX: u16 = 256;
/// The longest deadline: 1 h.
pub const DEADLINE_US_MAX: u64 = 3_600_000_000;

/// A model server, and how it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderConfig {
    /// Its name: one segment of a capability.
    pub name: String,
    /// The dialect it speaks.
    pub dialect: Dialect,
    /// Where it is.
    pub base_url: BaseUrl,
    /// Where its key lies; `None` for a server that wants none.
    pub key: Option<KeyRef>,
    /// Headers that every request carries, none of them secret.
    pub headers: Vec<(String, String)>,
    /// How many calls may run at once.
    pub max_in_flight: u16,
    /// How long it may take.
    pub deadlines: Deadlines,
    /// What its models cost, by the names that it knows them by. A model without a price is refused where a budget of
    /// money holds, unless the server wants no key.
    pub prices: BTreeMap<String, Price>,
    /// Whether requests say their lane and ordinal in headers, and `SCRIPT_MISMATCH` is believed: for
    /// [`super::scripted`], and for nobody else's server.
    pub scripted: bool,
}

/// What a model costs, in micro-USD for a million tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price {
    /// Of what it reads.
    pub input: u64,
    /// Of what it writes.
    pub output: u64,
}

impl Price {
    /// The price of so many tokens in micro-USD, rounded up.
    pub fn cost_micro(&self, tokens_in: u64, tokens_out: u64) -> u64 {
        let of = |tokens: u64, price: u64| u128::from(tokens) * u128::from(price);
        let both = of(tokens_in, self.input) + of(tokens_out, self.output);
        u64::try_from(both.div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }
}

/// The language of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// [`openai_chat`].
    OpenAiChat {
        /// How it names the bound of an answer.
        output_limit: OutputLimit,
    },
}

/// How long a call and its parts may take, in µs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// Until there is a connection.
    pub connect_us: u64,
    /// Until the first byte of an answer, from the beginning of an attempt.
    pub first_byte_us: u64,
    /// Between two pieces of an answer.
    pub idle_us: u64,
    /// The call with all its attempts and waits.
    pub total_us: u64,
}

impl Default for Deadlines {
    fn default() -> Deadlines {
        Deadlines { connect_us: 10_000_000, first_byte_us: 120_000_000, idle_us: 60_000_000, total_us: 600_000_000 }
    }
}

/// The URL below which a server answers: `https://api.example.com/v1`. Plain HTTP stays on this machine unless that is
/// allowed by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl(Url);

impl BaseUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it and what to write instead. Neither quotes a user or a query, which may hold a key.
    pub fn parse(text: &str, allow_http: bool) -> Result<BaseUrl, (&'static str, &'static str)> {
        let mut url = Url::parse(text).map_err(|_| ("is no URL", "write `https://HOST/v1`"))?;
        match url.scheme() {
            "https" => {}
            "http" if allow_http || is_loopback(&url) => {}
            "http" => {
                return Err((
                    "would send every prompt in the open",
                    "write `https://…`; plain HTTP is for this machine, or for a network you trust with `allow_http = true`",
                ));
            }
            _ => return Err(("is of a scheme that is not spoken here", "write `https://HOST/v1`")),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(("holds a user or a password", "take it out and name the key in `key`"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(("holds a query or a fragment", "take it out; a key belongs where `key` says"));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(("names no host", "write `https://HOST/v1`"));
        }
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&path);
        Ok(BaseUrl(url))
    }

    /// The URL of `path` below this one.
    pub(super) fn join(&self, path: &str) -> Url {
        let mut url = self.0.clone();
        url.set_path(&format!("{}{path}", self.0.path().trim_end_matches('/')));
        url
    }

    /// Whether what is sent is encrypted.
    pub(super) fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }
}

impl std::fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

/// Whether a URL stays on this machine.
fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || bare.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
        || bare.parse::<Ipv6Addr>().is_ok_and(|ip| ip.is_loopback())
}

/// Reads a configuration that holds nothing but `[gateway]`.
///
/// # Errors
/// Everything that is wrong with it, in the order of the places.
pub fn read(file: &str, bytes: &[u8]) -> Result<Vec<ProviderConfig>, Vec<FileError>> {
    let text = decode(file, bytes, &FORMAT)?;
    let mut problems = Problems::new(file, text, &FORMAT);
    let mut found = Vec::new();
    if let Some(root) = toml::parse(&mut problems) {
        let shape = Shape { what: "the configuration", known: &["gateway"], later: &[], prefix: None };
        let fields = problems.fields(&root, &shape);
        if let Some(node) = fields.and_then(|fields| fields.get("gateway")) {
            found = providers(node, &mut problems);
        }
    }
    match problems.into_errors() {
        errors if errors.is_empty() => Ok(found),
        errors => Err(errors),
    }
}

/// Reads the table `[gateway]`: its providers, in the order of the file, as far as they could be read.
pub fn providers(gateway: &Node, problems: &mut Problems<'_>) -> Vec<ProviderConfig> {
    let shape = Shape { what: "gateway", known: &["providers"], later: &[], prefix: None };
    let node = problems.fields(gateway, &shape).and_then(|fields| fields.get("providers"));
    let Some(members) = node.and_then(|node| problems.map(node, "gateway.providers")) else { return Vec::new() };
    if let Some(beyond) = members.get(PROVIDERS_MAX) {
        let hint = format!("at most {PROVIDERS_MAX} are allowed");
        problems.report(beyond.place, FileCode::TooMany, format!("{} providers", members.len()), hint);
    }
    let mut found = Vec::new();
    for member in members {
        if !is_name_seg(&member.name) {
            let message = format!("{} cannot name a provider", quote(&member.name));
            let hint = "at most 32 of a-z 0-9 _ -, beginning with a letter or digit: it stands in capabilities";
            problems.report(member.place, FileCode::BadName, message, hint);
        }
        found.extend(provider(&member.name, &member.value, problems));
    }
    found
}

fn provider(name: &str, node: &Node, problems: &mut Problems<'_>) -> Option<ProviderConfig> {
    let what = format!("gateway.providers.{}", clean(name, 60));
    let known = &[
        "dialect",
        "base_url",
        "key",
        "headers",
        "max_in_flight",
        "allow_http",
        "deadlines",
        "output_limit",
        "prices",
    ];
    let shape = Shape { what: &what, known, later: &["requests_per_minute"], prefix: None };
    let fields = problems.fields(node, &shape)?;
    let limits = [
        (OutputLimit::MaxCompletionTokens.field(), OutputLimit::MaxCompletionTokens),
        (OutputLimit::MaxTokens.field(), OutputLimit::MaxTokens),
    ];
    let limit = fields.get("output_limit");
    let limit = limit.and_then(|node| problems.choice(node, &format!("{what}.output_limit"), &limits, &[]));
    let output_limit = limit.unwrap_or_default();
    let dialects = [(openai_chat::NAME, Dialect::OpenAiChat { output_limit })];
    let later = ["anthropic_messages", "openai_responses"];
    let dialect = fields.required("dialect", "dialect = \"openai_chat\"", problems);
    let dialect = dialect.and_then(|node| problems.choice(node, &format!("{what}.dialect"), &dialects, &later));
    let allow_http = fields.get("allow_http");
    let allow_http = allow_http.and_then(|node| problems.flag(node, &format!("{what}.allow_http"))).unwrap_or(false);
    let url = fields.required("base_url", "base_url = \"https://HOST/v1\"", problems);
    let url = url.and_then(|node| base_url(node, &what, allow_http, problems));
    let key = fields.get("key").map(|node| key(node, &what, problems));
    let headers = fields.get("headers").map(|node| headers(node, &what, problems)).unwrap_or_default();
    let most = u64::from(IN_FLIGHT_MAX);
    let in_flight = fields.get("max_in_flight");
    let in_flight = in_flight.and_then(|node| problems.whole(node, &format!("{what}.max_in_flight"), 1..=most));
    let deadlines = fields.get("deadlines").map(|node| deadlines(node, &what, problems)).unwrap_or_default();
    let prices = fields.get("prices").map(|node| prices(node, &what, problems)).unwrap_or_default();
    Some(ProviderConfig {
        name: name.to_owned(),
        dialect: dialect?,
        base_url: url?,
        key: match key {
            Some(key) => Some(key?),
            None => None,
        },
        headers,
        max_in_flight: in_flight.and_then(|count| u16::try_from(count).ok()).unwrap_or(IN_FLIGHT),
        deadlines,
        prices,
        scripted: false,
    })
}

fn base_url(node: &Node, what: &str, allow_http: bool, problems: &mut Problems<'_>) -> Option<BaseUrl> {
    let what = format!("{what}.base_url");
    let text = problems.text(node, &what)?;
    match BaseUrl::parse(text, allow_http) {
        Ok(url) => Some(url),
        Err((wrong, hint)) => {
            problems.report(node.place, FileCode::BadChoice, format!("`{what}` {wrong}"), hint);
            None
        }
    }
}

fn key(node: &Node, what: &str, problems: &mut Problems<'_>) -> Option<KeyRef> {
    let what = format!("{what}.key");
    let text = problems.text(node, &what)?;
    match KeyRef::parse(text) {
        Ok(key) => Some(key),
        Err(error) => {
            problems.report(node.place, FileCode::BadReference, format!("`{what}`: {error}"), error.hint());
            None
        }
    }
}

/// Headers that a configuration may add. Those that make up a request are ours, and those that are known to hold a
/// secret would put it into the file.
fn headers(node: &Node, what: &str, problems: &mut Problems<'_>) -> Vec<(String, String)> {
    let what = format!("{what}.headers");
    let mut headers = BTreeMap::new();
    let members = problems.map(node, &what).unwrap_or_default();
    if members.len() > HEADERS_MAX {
        let hint = format!("at most {HEADERS_MAX} are allowed");
        problems.report(node.place, FileCode::TooMany, format!("`{what}` has {} entries", members.len()), hint);
    }
    for member in members {
        let name = member.name.to_ascii_lowercase();
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || name.len() > 64 || !name.bytes().all(token) {
            let message = format!("{} cannot name a header", quote(&member.name));
            problems.report(member.place, FileCode::BadName, message, "write a name like `openai-organization`");
            continue;
        }
        if let Some(hint) = kept_back(&name) {
            let message = format!("`{what}` cannot set the header {}", quote(&name));
            problems.report(member.place, FileCode::Conflict, message, hint);
            continue;
        }
        let field = format!("{what}.{name}");
        if let Some(value) = problems.plain_text(&member.value, &field, HEADER_BYTES_MAX, false) {
            if !value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
                let message = format!("`{field}` holds more than visible ASCII characters");
                problems.report(member.value.place, FileCode::BadText, message, "leave them out");
            } else if headers.insert(name, value).is_some() {
                let message = format!("the header {} stands here twice", quote(&member.name));
                problems.report(member.place, FileCode::DuplicateKey, message, "keep one of the two");
            }
        }
    }
    headers.into_iter().collect()
}

/// Why a header is not for the configuration to set.
fn kept_back(name: &str) -> Option<&'static str> {
    let secret = ["authorization", "api-key", "apikey", "token", "secret", "cookie", "password"];
    if secret.iter().any(|word| name.contains(word)) {
        return Some("secrets do not stand in files: name the key in `key`, for example `env:OPENAI_API_KEY`");
    }
    let ours = ["accept", "accept-encoding", "connection", "content-length", "content-type", "expect", "host", "te"];
    let hops = ["keep-alive", "trailer", "transfer-encoding", "upgrade", "user-agent"];
    (ours.contains(&name) || hops.contains(&name) || name.starts_with("proxy-") || name.starts_with("x-toka-"))
        .then_some("leave it out: it is set by the request itself")
}

fn deadlines(node: &Node, what: &str, problems: &mut Problems<'_>) -> Deadlines {
    let what = format!("{what}.deadlines");
    let mut deadlines = Deadlines::default();
    let known = &["connect", "first_byte", "idle", "total"];
    let Some(fields) = problems.fields(node, &Shape { what: &what, known, later: &[], prefix: None }) else {
        return deadlines;
    };
    let each = [
        ("connect", &mut deadlines.connect_us),
        ("first_byte", &mut deadlines.first_byte_us),
        ("idle", &mut deadlines.idle_us),
        ("total", &mut deadlines.total_us),
    ];
    for (name, us) in each {
        let node = fields.get(name);
        let read = node.and_then(|node| problems.duration(node, &format!("{what}.{name}"), 1_000..=DEADLINE_US_MAX));
        *us = read.unwrap_or(*us);
    }
    deadlines
}

/// The table `prices`: for each model dollars for a million tokens, in and out.
fn prices(node: &Node, what: &str, problems: &mut Problems<'_>) -> BTreeMap<String, Price> {
    let what = format!("{what}.prices");
    let mut prices = BTreeMap::new();
    for member in problems.map(node, &what).unwrap_or_default() {
        let what = format!("{what}.{}", clean(&member.name, 60));
        let shape = Shape { what: &what, known: &["input", "output"], later: &[], prefix: None };
        let Some(fields) = problems.fields(&member.value, &shape) else { continue };
        let mut usd = |field: &str| {
            let node = fields.required(field, "input = \"1.25\", output = \"10.00\"", problems)?;
            let what = format!("{what}.{field}");
            let text = problems.text(node, &what)?;
            let hint = "write dollars for a million tokens in quotes: \"1.25\"";
            match Usd::parse(text) {
                Ok(Usd(micro)) => Some(micro),
                Err(error) => problems.no_quantity(node, &what, error, hint),
            }
        };
        if let (Some(input), Some(output)) = (usd("input"), usd("output")) {
            prices.insert(member.name.clone(), Price { input, output });
        }
    }
    prices
}

/// The name of a model in capabilities: `PROVIDER.NAME`, in lower case, with `-` for what no name has.
///
/// # Errors
/// What is wrong with the name; then no grant could be written for it.
pub fn model_name(provider: &str, model: &str) -> Result<String, String> {
    let fine = |c: char| match c.to_ascii_lowercase() {
        c @ ('a'..='z' | '0'..='9' | '_' | '-' | '.') => c,
        _ => '-',
    };
    let name = format!("{provider}.{}", model.chars().map(fine).collect::<String>());
    if is_exact_name(&name) {
        return Ok(name);
    }
    Err(format!("the model {} has no name that a capability could hold: {} is none", quote(model), quote(&name)))
}

/// Two models of one provider that one capability would mean.
pub fn collision<'m>(provider: &str, models: &[&'m str]) -> Option<(&'m str, &'m str)> {
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    for model in models {
        let name = model_name(provider, model).ok()?;
        match seen.insert(name, model) {
            Some(first) if first != *model => return Some((first, model)),
            Some(_) | None => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(text: &str) -> Vec<String> {
        let errors = read("toka.toml", text.as_bytes()).expect_err("something is wrong");
        errors.into_iter().map(|error| format!("{error}\n  {}", error.hint)).collect()
    }

    #[test]
    fn a_provider_is_read_with_what_is_not_said() {
        let text = r#"
[gateway.providers.openai]
dialect = "openai_chat"
base_url = "https://api.openai.com/v1/"
key = "env:OPENAI_API_KEY"
headers = { OpenAI-Organization = "org-1" }
max_in_flight = 2
deadlines = { idle = "30s" }

[gateway.providers.local]
dialect = "openai_chat"
base_url = "http://127.0.0.1:11434/v1"
output_limit = "max_tokens"
"#;
        let found = read("toka.toml", text.as_bytes()).expect("nothing is wrong");
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found[0].name.as_str(), found[0].base_url.to_string().as_str()),
            ("openai", "https://api.openai.com/v1")
        );
        assert_eq!(found[0].base_url.join("/chat/completions").as_str(), "https://api.openai.com/v1/chat/completions");
        assert_eq!(found[0].key, Some(KeyRef::Env("OPENAI_API_KEY".to_owned())));
        assert_eq!(found[0].headers, [("openai-organization".to_owned(), "org-1".to_owned())]);
        assert_eq!(found[0].deadlines, Deadlines { idle_us: 30_000_000, ..Deadlines::default() });
        assert_eq!((found[0].max_in_flight, found[1].max_in_flight), (2, IN_FLIGHT));
        assert_eq!(found[1].dialect, Dialect::OpenAiChat { output_limit: OutputLimit::MaxTokens });
        assert_eq!((&found[1].key, found[1].scripted), (&None, false));
    }

    #[test]
    fn every_mistake_is_told_with_its_place_and_a_way_on() {
        let text = r#"
[gateway.providers.a]
dialect = "openai_chat"
base_url = "http://api.example.com/v1"
key = "sk-canary-0123456789"
requests_per_minute = 3
[gateway.providers.B]
dialect = "openai_responses"
base_url = "https://user:sk-canary@example.com/"
headers = { Authorization = "Bearer sk-canary", Host = "x" }
deadlines = { idle = "2h", soon = "1s" }
max_in_flight = 0
"#;
        let errors = errors(text);
        let firsts: Vec<&str> = errors.iter().filter_map(|error| error.lines().next()).collect();
        assert_eq!(
            firsts,
            [
                "toka.toml:4:12: TOKA-1035: `gateway.providers.a.base_url` would send every prompt in the open",
                "toka.toml:5:7: TOKA-1052: `gateway.providers.a.key`: this says not where the key lies",
                "toka.toml:6:1: TOKA-1022: `requests_per_minute` in `gateway.providers.a` is known and not built yet",
                "toka.toml:7:20: TOKA-1030: `B` cannot name a provider",
                "toka.toml:8:11: TOKA-1022: `openai_responses` for `gateway.providers.B.dialect` is known and not built yet",
                "toka.toml:9:12: TOKA-1035: `gateway.providers.B.base_url` holds a user or a password",
                "toka.toml:10:13: TOKA-1088: `gateway.providers.B.headers` cannot set the header `authorization`",
                "toka.toml:10:49: TOKA-1088: `gateway.providers.B.headers` cannot set the header `host`",
                "toka.toml:11:22: TOKA-1034: `gateway.providers.B.deadlines.idle` is `2h`",
                "toka.toml:11:28: TOKA-1020: unknown field `soon` in `gateway.providers.B.deadlines`",
                "toka.toml:12:17: TOKA-1034: `gateway.providers.B.max_in_flight` is 0",
            ]
        );
        assert!(errors.iter().all(|error| !error.contains("canary")), "{errors:#?}");
    }

    #[test]
    fn what_is_missing_is_named() {
        let errors = errors("[gateway.providers.a]\n");
        assert!(
            errors[0].contains("`dialect` is missing") && errors[1].contains("`base_url` is missing"),
            "{errors:?}"
        );
    }

    #[test]
    fn plain_http_stays_on_this_machine() {
        for host in ["localhost", "127.0.0.1", "127.8.8.8:1", "[::1]:80"] {
            assert!(BaseUrl::parse(&format!("http://{host}/v1"), false).is_ok(), "{host}");
        }
        for host in ["example.com", "localhost.example.com", "10.0.0.1", "[::2]", "127.0.0.1.example.com"] {
            assert!(BaseUrl::parse(&format!("http://{host}/v1"), false).is_err(), "{host}");
            assert!(BaseUrl::parse(&format!("http://{host}/v1"), true).is_ok(), "{host}");
        }
        for url in ["ftp://localhost/", "https://h/?key=1", "https://h/#a", "https:", "v1", "file:///etc/passwd"] {
            assert!(BaseUrl::parse(url, true).is_err(), "{url}");
        }
    }

    #[test]
    fn a_model_is_named_as_capabilities_name_things() {
        assert_eq!(model_name("openai", "gpt-5.1").as_deref(), Ok("openai.gpt-5.1"));
        assert_eq!(model_name("local", "Qwen3:8b").as_deref(), Ok("local.qwen3-8b"));
        assert!(model_name("local", &"x".repeat(40)).is_err());
        assert!(model_name("local", "").is_err());
        assert_eq!(collision("a", &["m:1", "x", "m/1"]), Some(("m:1", "m/1")));
        assert_eq!(collision("a", &["m1", "m2", "m1"]), None);
    }
}
