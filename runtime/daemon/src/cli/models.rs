//! The models of this node: those that its configuration describes, and one that follows a script.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::json;
use toka_kernel::ids::SessionId;
use toka_kernel::{Body, Entry};
use toka_projections::outcome_word;
use toka_runtime::agents::{AgentSpec, ModelProgram};
use toka_runtime::clock::SystemClock;
use toka_runtime::engine::open_blob;
use toka_runtime::exchanges::{Exchange, Exchanges};
use toka_runtime::executor::{self, Tool};
use toka_runtime::gateway::Provider;
use toka_runtime::gateway::config::{ProviderConfig, collision, read};
use toka_runtime::gateway::http::HttpProvider;
use toka_runtime::gateway::key::Environment;
use toka_runtime::gateway::recorded::Recorded;
use toka_runtime::gateway::redact::Redactor;
use toka_runtime::gateway::scripted::{Script, ScriptedServer};
use toka_runtime::home::Home;
use toka_runtime::session::models_of;
use toka_store::{ReadLog, SqliteReader};

use super::print::{table, talk};
use super::{Failure, exit};

/// The provider that follows the script of `--model-script`.
const SCRIPTED: &str = "scripted";
/// The configuration in the node's folder.
const CONFIG: &str = "config.toml";
/// The most bytes of a file that is read here.
const FILE_BYTES_MAX: u64 = 16 << 20;

#[derive(Debug, Args)]
pub(crate) struct Model {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Answer as a model that follows a script, on this machine, until it is stopped
    ///
    /// The server speaks OpenAI Chat Completions with server-sent events. Its URL is the first line of stdout.
    ServeScript {
        /// The script (YAML, toka/v1, kind ModelScript)
        #[arg(long, value_name = "FILE")]
        script: PathBuf,
        /// The URL as a JSON document
        #[arg(long)]
        json: bool,
    },
    /// Show what a session asked of models and what they answered, as its log has it
    Exchanges {
        /// The session id, or as much of it as is unique
        session: String,
        /// One JSON document, with the requests and the answers as they were sent
        #[arg(long)]
        json: bool,
    },
    /// List the providers that the configuration of this node describes
    List {
        /// One JSON document
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(model: &Model, home: Option<PathBuf>) -> Result<u8, Failure> {
    match &model.verb {
        Verb::ServeScript { script, json } => serve(script, *json),
        Verb::Exchanges { session, json } => exchanges(&super::init::open_home(home)?, session, *json),
        Verb::List { json } => list(&super::init::open_home(home)?, *json),
    }
}

/// Who answers in the place of the models that the configuration describes.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Answers {
    /// What the provider `scripted` answers (YAML, toka/v1, kind ModelScript)
    #[arg(long, value_name = "FILE", conflicts_with = "model_record")]
    model_script: Option<PathBuf>,
    /// Let models answer as they did in this session, and ask nobody; another request ends as RECORDED_MISS
    #[arg(long, value_name = "SESSION")]
    model_record: Option<String>,
}

/// The models that some agents ask, and the server behind them where they follow a script.
#[derive(Default)]
pub(crate) struct Models {
    pub(crate) tools: Vec<Arc<executor::Model>>,
    /// Stops when this is dropped.
    _server: Option<ScriptedServer>,
}

impl Models {
    /// The models as tools.
    pub(crate) fn as_tools(&self) -> impl Iterator<Item = Tool> {
        self.tools.iter().cloned().map(Tool::Model)
    }

    /// The models that `specs` ask.
    pub(crate) fn of<'s>(
        home: &Home,
        specs: impl IntoIterator<Item = &'s AgentSpec>,
        answers: &Answers,
        log: &dyn ReadLog,
    ) -> Result<Models, Failure> {
        let mut asked: BTreeMap<String, ModelProgram> = BTreeMap::new();
        for model in specs.into_iter().flat_map(models_of) {
            asked.insert(model.tool_name(), model);
        }
        if asked.is_empty() {
            if answers.model_script.is_some() || answers.model_record.is_some() {
                talk("note: no agent asks a model, so nobody answers as one");
            }
            return Ok(Models::default());
        }
        if let Some(session) = &answers.model_record {
            return recorded(asked.values(), session, log);
        }
        let server = answers.model_script.as_deref().map(start).transpose()?;
        let mut configs = configured(home)?;
        if let Some(server) = &server {
            configs.retain(|config| config.name != SCRIPTED);
            configs.push(server.provider(SCRIPTED));
        }
        let mut providers: BTreeMap<String, Arc<HttpProvider>> = BTreeMap::new();
        let mut tools = Vec::new();
        for model in asked.values() {
            let Some(config) = configs.iter().find(|config| config.name == model.provider) else {
                return Err(unknown(home, model, &configs));
            };
            let names: Vec<&str> = asked
                .values()
                .filter(|other| other.provider == model.provider)
                .map(|other| other.name.as_str())
                .collect();
            if let Some((one, other)) = collision(&config.name, &names) {
                let what =
                    format!("the models `{one}` and `{other}` of `{}` have one name in capabilities", config.name);
                return Err(Failure::new(exit::FAILURE, what).hint("ask only one of them"));
            }
            let provider = match providers.get(&config.name) {
                Some(provider) => provider.clone(),
                None => {
                    let made = HttpProvider::new(config.clone(), Environment::of_process());
                    let made = Arc::new(made.map_err(|error| {
                        Failure::new(exit::FAILURE, error.to_string()).hint("install the certificates of the system")
                    })?);
                    providers.insert(config.name.clone(), made.clone());
                    made
                }
            };
            let made = executor::Model::new(config, &model.name, provider, Arc::new(SystemClock));
            tools.push(Arc::new(made.map_err(|what| Failure::new(exit::FAILURE, what))?));
        }
        Ok(Models { tools, _server: server })
    }
}

/// Models that answer as they did in a session, and ask nobody.
fn recorded<'m>(
    asked: impl Iterator<Item = &'m ModelProgram>,
    session: &str,
    log: &dyn ReadLog,
) -> Result<Models, Failure> {
    let session = super::find(log, session)?;
    let found = Exchanges::read(log, session)?;
    let provider: Arc<dyn Provider> = Arc::new(Recorded::new(found.records(), Redactor::default()));
    let mut tools = Vec::new();
    for model in asked {
        let name = model.tool_name();
        let spec = found.models.iter().find(|spec| spec.name == name).ok_or_else(|| {
            let what = format!("session {} asked no model `{}` of `{}`", session.short(), model.name, model.provider);
            Failure::new(exit::FAILURE, what)
                .hint(format!("`toka model exchanges {}` lists those it asked", session.short()))
        })?;
        let made = executor::Model::recorded(spec, provider.clone(), Arc::new(SystemClock));
        tools.push(Arc::new(made.map_err(|what| Failure::new(exit::FAILURE, what))?));
    }
    Ok(Models { tools, _server: None })
}

/// The specs of the agents of a session, as its log has them.
pub(crate) fn specs_of(log: &dyn ReadLog, session: SessionId) -> Result<Vec<AgentSpec>, Failure> {
    let mut specs = Vec::new();
    for row in log.read(session, 0) {
        let Ok(entry) = Entry::read(&row?.bytes) else { continue };
        let Ok(event) = entry.event() else { continue };
        if let Body::AgentSpawned(spawned) = &event.body
            && let Some(text) = event.blobs.get(usize::from(spawned.text))
            && let Some(text) = open_blob(log, session, text.commitment)?
            && let Ok(spec) = AgentSpec::decode(&text)
        {
            specs.push(spec);
        }
    }
    Ok(specs)
}

fn unknown(home: &Home, model: &ModelProgram, configs: &[ProviderConfig]) -> Failure {
    let what = format!(
        "the agent asks the model `{}` of the provider `{}`, and this node has none",
        model.name, model.provider
    );
    if model.provider == SCRIPTED {
        return Failure::new(exit::FAILURE, what).hint("--model-script FILE says what a scripted model answers");
    }
    let known: Vec<&str> = configs.iter().map(|config| config.name.as_str()).collect();
    let path = home.dir().join(CONFIG);
    let hint = match toka_tools::files::nearest(&model.provider, known) {
        Some(near) => format!("did you mean `{near}`? {} describes it", path.display()),
        None => format!(
            "describe it in {}: [gateway.providers.{}] dialect = \"openai_chat\", base_url = \"https://HOST/v1\", \
             key = \"env:NAME\"",
            path.display(),
            model.provider
        ),
    };
    Failure::new(exit::FAILURE, what).hint(hint)
}

/// The providers of the configuration; none where there is no such file.
fn configured(home: &Home) -> Result<Vec<ProviderConfig>, Failure> {
    let path = home.dir().join(CONFIG);
    let bytes = match read_file(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Failure::new(exit::UNREADABLE, format!("{}: {error}", path.display()))),
    };
    read(&path.display().to_string(), &bytes).map_err(|errors| {
        for error in &errors {
            talk(&format!("{error}\n  hint: {}", error.hint));
        }
        Failure::new(exit::FAILURE, "the configuration cannot be used; nothing was run")
    })
}

fn start(path: &Path) -> Result<ScriptedServer, Failure> {
    let bytes = read_file(path);
    let bytes = bytes.map_err(|error| Failure::new(exit::UNREADABLE, format!("{}: {error}", path.display())))?;
    let script = Script::read(&path.display().to_string(), &bytes).map_err(|errors| {
        for error in &errors {
            talk(&format!("{error}\n  hint: {}", error.hint));
        }
        Failure::new(exit::FAILURE, "the script of the model cannot be used; nothing was run")
    })?;
    Ok(ScriptedServer::start(script)?)
}

fn read_file(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn serve(script: &Path, as_json: bool) -> Result<u8, Failure> {
    use std::io::Write;
    let server = start(script)?;
    let mut out = std::io::stdout().lock();
    match as_json {
        true => writeln!(out, "{}", json!({ "schema": "toka/model-server/1", "base_url": server.base_url() }))?,
        false => writeln!(out, "{}", server.base_url())?,
    }
    out.flush()?;
    loop {
        std::thread::park();
    }
}

fn exchanges(home: &Home, session: &str, as_json: bool) -> Result<u8, Failure> {
    use std::io::Write;
    let store =
        SqliteReader::open(home.store_path()).map_err(|error| Failure::new(exit::UNREADABLE, error.to_string()))?;
    let session = super::find(&store, session)?;
    let found = Exchanges::read(&store, session)?;
    let mut out = std::io::stdout().lock();
    if as_json {
        let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
        let one = |exchange: &Exchange| {
            let ended = exchange.ended.as_ref();
            let usage = ended.and_then(|ended| ended.usage.as_ref());
            json!({
                "call": exchange.call.to_string(), "seq": exchange.seq, "model": exchange.tool, "agent": exchange.lane,
                "ordinal": exchange.ordinal, "request": exchange.request.as_ref().map(text),
                "outcome": ended.map(|ended| outcome_word(&ended.outcome)),
                "answer": ended.and_then(|ended| ended.raw.as_ref()).map(text),
                "tokens_in": usage.map(|usage| usage.tokens_in), "tokens_out": usage.map(|usage| usage.tokens_out),
                "estimated": usage.map(|usage| usage.estimated),
            })
        };
        let items: Vec<_> = found.exchanges.iter().map(one).collect();
        writeln!(
            out,
            "{}",
            json!({ "schema": "toka/exchanges/1", "session": session.to_string(), "exchanges": items })
        )?;
        return Ok(exit::OK);
    }
    let mut rows = vec![["SEQ", "AGENT", "TURN", "MODEL", "IN", "OUT", "OUTCOME"].map(str::to_owned).to_vec()];
    for exchange in &found.exchanges {
        let ended = exchange.ended.as_ref();
        let usage = ended.and_then(|ended| ended.usage.as_ref());
        let count = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
        rows.push(vec![
            exchange.seq.to_string(),
            exchange.lane.clone(),
            exchange.ordinal.to_string(),
            exchange.tool.clone(),
            count(usage.map(|usage| usage.tokens_in)),
            count(usage.map(|usage| usage.tokens_out)),
            ended.map_or_else(|| "open".to_owned(), |ended| outcome_word(&ended.outcome)),
        ]);
    }
    write!(out, "{}", table(&rows))?;
    Ok(exit::OK)
}

fn list(home: &Home, as_json: bool) -> Result<u8, Failure> {
    use std::io::Write;
    let configs = configured(home)?;
    let mut out = std::io::stdout().lock();
    if as_json {
        let one = |config: &ProviderConfig| {
            json!({
                "name": config.name, "base_url": config.base_url.to_string(),
                "key": config.key.as_ref().map(ToString::to_string), "prices": config.prices.len(),
            })
        };
        let providers: Vec<_> = configs.iter().map(one).collect();
        writeln!(out, "{}", json!({ "schema": "toka/models/1", "providers": providers }))?;
        return Ok(exit::OK);
    }
    if configs.is_empty() {
        talk(&format!("no provider is configured: {}", home.dir().join(CONFIG).display()));
    }
    for config in configs {
        let key = config.key.as_ref().map_or_else(|| "no key".to_owned(), ToString::to_string);
        writeln!(out, "{}  {}  {key}", config.name, config.base_url)?;
    }
    Ok(exit::OK)
}
