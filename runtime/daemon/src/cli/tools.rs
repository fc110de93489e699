//! `toka tools`: what this node can run, and what its operator lets it run.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use toka_kernel::ToolState;
use toka_kernel::keys::SecretKey;
use toka_kernel::tool::{Effect, Level, ParamType, Probe, ProbeParam, ResultKind, ToolSpec};
use toka_projections::KnownTool;
use toka_runtime::Home;
use toka_runtime::clock::{GuardedClock, SystemClock};
use toka_runtime::engine::Parts;
use toka_runtime::executor::{Tool, native_tools};
use toka_runtime::home::{SystemPlaces, read_passphrase};
use toka_runtime::random::OsRandom;
use toka_runtime::sandbox::{Launcher, Program, ProgramFiles};
use toka_runtime::system::{System, SystemError, known_tools};
use toka_store::{Log, ReadLog, SqliteReader};
use toka_tools::files::FileError;
use toka_tools::{CODE_PREFIX, Manifest, SHIPPED, code_tools, code_types, pin_text};

use super::failure::{Failure, exit};
use super::init::{ask_passphrase, open_home};
use super::print::{count, table, talk};
use super::run::{node, writer};

#[derive(Debug, Args)]
pub(crate) struct Tools {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the tools of this node: its own, those shipped with it, and those that were registered
    List {
        /// One JSON document on stdout
        #[arg(long)]
        json: bool,
    },
    /// Show one tool: its parameters, what it needs, how it is confined
    Show {
        /// The name of the tool
        name: String,
        /// One JSON document on stdout
        #[arg(long)]
        json: bool,
    },
    /// Read manifests and say everything that is wrong with them
    Check {
        /// Manifests (*.tool.yaml)
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// One JSON document on stdout
        #[arg(long)]
        json: bool,
    },
    /// Tell the node of tools; they are proposed until the operator approves them
    Register {
        /// Manifests (*.tool.yaml)
        #[arg(value_name = "FILE", required_unless_present = "discover")]
        files: Vec<PathBuf>,
        /// Every manifest below a folder
        #[arg(long, value_name = "DIR", conflicts_with = "files")]
        discover: Option<PathBuf>,
        /// Register what is right although something else is wrong
        #[arg(long)]
        keep_going: bool,
        /// Approve them at once, after showing what each may do
        #[arg(long)]
        approve: bool,
        #[command(flatten)]
        key: Key,
        /// One JSON document on stdout
        #[arg(long)]
        json: bool,
    },
    /// Let agents use a tool, as it stands now; signed with the operator's key
    Approve {
        /// The name of the tool
        name: String,
        #[command(flatten)]
        key: Key,
        /// One JSON document on stdout
        #[arg(long)]
        json: bool,
    },
    /// Print the digest that pins the program of a manifest
    Pin {
        /// A manifest (*.tool.yaml)
        file: PathBuf,
    },
    /// Run one call of a tool, in a session of its own
    Call {
        /// The name of the tool
        name: String,
        /// An argument; a value that is JSON is taken as such, any other as text
        #[arg(value_name = "NAME=VALUE")]
        args: Vec<String>,
        /// A file that holds all arguments, as one JSON object
        #[arg(long, value_name = "FILE", conflicts_with = "args")]
        args_file: Option<PathBuf>,
        /// A directory that path arguments may name; repeat for more
        #[arg(long = "root", value_name = "NAME=DIR", value_parser = super::run::named_root)]
        roots: Vec<(String, PathBuf)>,
        /// Write the files that the call keeps below this folder
        #[arg(long, value_name = "DIR")]
        artifacts: Option<PathBuf>,
        #[command(flatten)]
        key: Key,
        /// One JSON document on stdout
        #[arg(long)]
        json: bool,
    },
}

/// How the operator's key is opened.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Key {
    /// A file that holds the operator's passphrase, as its only line
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

pub(crate) fn run(tools: Tools, home: Option<PathBuf>) -> Result<u8, Failure> {
    match tools.verb {
        Verb::List { json } => list(&open_home(home)?, json),
        Verb::Show { name, json } => show(&open_home(home)?, &name, json),
        Verb::Check { files, json } => check(&files, json),
        Verb::Register { files, discover, keep_going, approve, key, json } => {
            let home = open_home(home)?;
            register(&home, &files, discover.as_deref(), keep_going, approve.then_some(&key), json)
        }
        Verb::Approve { name, key, json } => approve(&open_home(home)?, &name, &key, json),
        Verb::Pin { file } => pin(&file),
        Verb::Call { name, args, args_file, roots, artifacts, key, json } => {
            let given = super::call::Given { args: &args, file: args_file.as_deref() };
            super::call::one(home, &name, given, roots, key, artifacts.as_deref(), json)
        }
    }
}

/// A tool of this node, wherever it comes from.
pub(crate) struct Listed {
    pub(crate) spec: ToolSpec,
    /// `native`, `shipped`, `code` or `registered`.
    pub(crate) from: &'static str,
    pub(crate) state: ToolState,
    known: Option<KnownTool>,
    tool: Option<Tool>,
}

/// The tools that come with the node: those in its program, those shipped with it, and those that run code.
fn own() -> Result<Vec<Listed>, Failure> {
    let listed = |from, spec, tool| Listed { spec, from, state: ToolState::Approved, known: None, tool };
    let mut own: Vec<Listed> =
        native_tools().into_iter().map(|tool| listed("native", tool.spec().clone(), Some(tool))).collect();
    for shipped in SHIPPED {
        let spec = shipped.load().map_err(|errors| refuse(&errors))?.spec;
        let program = Program::new(spec.clone(), ProgramFiles::Shipped(shipped));
        own.push(listed("shipped", spec, program.map(|program| Tool::Program(Arc::new(program)))));
    }
    for spec in code_tools() {
        let program = Program::new(spec.clone(), ProgramFiles::Arguments);
        own.push(listed("code", spec, program.map(|program| Tool::Program(Arc::new(program)))));
    }
    Ok(own)
}

/// Every tool of this node, by name.
pub(crate) fn all(home: &Home, log: Option<&dyn ReadLog>) -> Result<Vec<Listed>, Failure> {
    let mut tools: BTreeMap<String, Listed> =
        own()?.into_iter().map(|listed| (listed.spec.name.clone(), listed)).collect();
    let places = home.system()?;
    if let (Some(session), Some(log)) = (places.session, log) {
        for (known, spec) in known_tools(log, session).map_err(failed)? {
            // Of the node's own tools only the version that this program holds counts.
            if let Some(own) = tools.get_mut(&spec.name) {
                if own.spec.digest() == Ok(known.digest) {
                    own.state = known.state;
                    own.known = Some(known);
                }
                continue;
            }
            let files = places.tools.get(&spec.name).cloned().map(ProgramFiles::Folder);
            let program = files.and_then(|files| Program::new(spec.clone(), files));
            let tool = program.map(|program| Tool::Program(Arc::new(program.with_secrets(home.secrets()))));
            let listed = Listed { from: "registered", state: known.state, known: Some(known), tool, spec };
            tools.insert(listed.spec.name.clone(), listed);
        }
    }
    Ok(tools.into_values().collect())
}

/// The tools that agents may use.
pub(crate) fn usable(listed: Vec<Listed>) -> Vec<Tool> {
    listed.into_iter().filter(|listed| listed.state == ToolState::Approved).filter_map(|listed| listed.tool).collect()
}

/// The launcher of foreign programs: the small program beside this one, or this one itself.
pub(crate) fn launcher() -> Option<Arc<Launcher>> {
    let this = std::env::current_exe().ok()?;
    let beside = this.with_file_name("toka-jail");
    let found = Launcher::open(&beside).or_else(|_| Launcher::open(&this)).ok()?;
    let worker = this.with_file_name("toka-wasm");
    let worker = if worker.exists() || !cfg!(feature = "wasm") { worker } else { this };
    // Without a worker everything else runs, and a guest says what is missing.
    let found = if worker.exists() { found.with_worker(&worker).ok()? } else { found };
    Some(Arc::new(found))
}

/// Every tool of this node as its store has it now; a session that runs is not in the way.
pub(crate) fn as_stored(home: &Home) -> Result<Vec<Listed>, Failure> {
    if !home.store_path().exists() {
        return all(home, None);
    }
    let store =
        SqliteReader::open(home.store_path()).map_err(|error| Failure::new(exit::UNREADABLE, error.to_string()))?;
    all(home, Some(&store))
}

fn list(home: &Home, as_json: bool) -> Result<u8, Failure> {
    let tools = as_stored(home)?;
    let mut out = std::io::stdout().lock();
    if as_json {
        let items: Vec<Value> = tools.iter().map(document).collect();
        writeln!(out, "{}", json!({ "schema": "toka/tools/1", "tools": items }))?;
        return Ok(exit::OK);
    }
    let mut rows = vec![["TOOL", "VERSION", "FROM", "STATE", "LEVEL", "EFFECT", "WHAT"].map(str::to_owned).to_vec()];
    for tool in &tools {
        rows.push(vec![
            tool.spec.name.clone(),
            tool.spec.version.clone(),
            tool.from.to_owned(),
            tool.state.name().to_owned(),
            level(&tool.spec).to_owned(),
            effect(&tool.spec).to_owned(),
            tool.spec.description.clone(),
        ]);
    }
    write!(out, "{}", table(&rows))?;
    Ok(exit::OK)
}

fn level(spec: &ToolSpec) -> &'static str {
    Level::from_number(spec.level).map_or("?", Level::name)
}

fn effect(spec: &ToolSpec) -> &'static str {
    Effect::from_number(spec.effect).map_or("?", Effect::name)
}

fn document(tool: &Listed) -> Value {
    let spec = &tool.spec;
    let params: Vec<Value> = spec
        .params
        .iter()
        .map(|param| {
            let kind = ParamType::from_number(param.kind).map_or("?", ParamType::name);
            json!({ "name": param.name, "type": kind, "required": param.required, "default": param.default })
        })
        .collect();
    let needs: Vec<Value> = spec.needs.iter().map(|need| json!({ "scope": need.text, "when": need.when })).collect();
    let secrets: Vec<&str> =
        spec.run.iter().flat_map(|run| &run.sandbox.secrets).map(|secret| secret.handle.as_str()).collect();
    json!({
        "name": spec.name, "version": spec.version, "description": spec.description, "from": tool.from,
        "state": tool.state.name(), "level": level(spec), "effect": effect(spec),
        "digest": spec.digest().map(|digest| digest.to_string()).ok(), "program": pin_text(&spec.program),
        "registered_at": tool.known.as_ref().map(|known| known.registered_at),
        "params": params, "needs": needs,
        "probe": spec.probe.as_ref().map(|probe| json!({ "tool": probe.tool, "asked": question(probe) })), "secrets": secrets,
    })
}

fn show(home: &Home, name: &str, as_json: bool) -> Result<u8, Failure> {
    let tools = as_stored(home)?;
    let tool = tools.iter().find(|tool| tool.spec.name == name);
    let tool = tool.ok_or_else(|| unknown(name, tools.iter().map(|tool| tool.spec.name.as_str())))?;
    let mut out = std::io::stdout().lock();
    if as_json {
        let mut document = document(tool);
        document["schema"] = json!("toka/tool/1");
        writeln!(out, "{document}")?;
        return Ok(exit::OK);
    }
    for line in words(tool) {
        writeln!(out, "{line}")?;
    }
    Ok(exit::OK)
}

/// What an operator has to know of a tool.
fn words(tool: &Listed) -> Vec<String> {
    let spec = &tool.spec;
    let mut lines = vec![
        format!("{} {}  {}, {}", spec.name, spec.version, tool.from, tool.state),
        format!("  {}", spec.description),
        format!("  level {}, effect {}", level(spec), effect(spec)),
        format!("  program {}", pin_text(&spec.program)),
    ];
    lines.extend(spec.digest().map(|digest| format!("  digest  {digest}")));
    for param in &spec.params {
        let kind = ParamType::from_number(param.kind).map_or("?", ParamType::name);
        let word = if param.required { ", required" } else { "" };
        lines.push(format!("  takes   {}: {kind}{word}", param.name));
    }
    for need in &spec.needs {
        let when = need.when.as_ref().map(|when| format!(" if {when}")).unwrap_or_default();
        lines.push(format!("  needs   {}{when}", need.text));
    }
    lines.extend(spec.probe.as_ref().map(|probe| format!("  probe   {}({})", probe.tool, question(probe))));
    for secret in spec.run.iter().flat_map(|run| &run.sandbox.secrets) {
        lines.push(format!("  secret  {} at {}", secret.handle, secret.place()));
    }
    lines
}

/// What a probe is asked.
fn question(probe: &Probe) -> String {
    let one = |param: &ProbeParam| match (&param.value, &param.arg) {
        (Some(value), _) => format!("{} = {value}", param.name),
        (None, Some(arg)) => format!("{} = its {arg}", param.name),
        (None, None) => format!("{} = its id", param.name),
    };
    probe.params.iter().map(one).collect::<Vec<_>>().join(", ")
}

pub(crate) fn unknown<'n>(name: &str, names: impl Iterator<Item = &'n str> + Clone) -> Failure {
    if name.starts_with(CODE_PREFIX) && !names.clone().any(|known| known == name) {
        let failure = Failure::new(exit::USAGE, format!("UNSUPPORTED_CODE_TYPE: this version does not run `{name}`"));
        return failure.hint(format!("types of code are {}", code_types().join(", ")));
    }
    let failure = Failure::new(exit::USAGE, format!("this node has no tool `{name}`"));
    match toka_tools::files::nearest(name, names) {
        Some(near) => failure.hint(format!("did you mean `{near}`?")),
        None => failure.hint("`toka tools list` shows them"),
    }
}

fn check(files: &[PathBuf], as_json: bool) -> Result<u8, Failure> {
    let read: Vec<(&PathBuf, Result<Manifest, Vec<FileError>>)> = files.iter().map(|file| (file, load(file))).collect();
    let wrong = read.iter().filter(|(_, read)| read.is_err()).count();
    let mut out = std::io::stdout().lock();
    if as_json {
        let items: Vec<Value> = read
            .iter()
            .map(|(file, read)| {
                let errors = read.as_ref().err().into_iter().flatten().map(error_document).collect::<Vec<_>>();
                let name = read.as_ref().map(|manifest| manifest.spec.name.clone()).ok();
                json!({ "file": file.display().to_string(), "tool": name, "errors": errors })
            })
            .collect();
        writeln!(out, "{}", json!({ "schema": "toka/check/1", "files": items }))?;
    } else {
        for (file, read) in &read {
            match read {
                Ok(manifest) => writeln!(
                    out,
                    "{}: {} {}, pinned {}",
                    file.display(),
                    manifest.spec.name,
                    manifest.spec.version,
                    pin_text(&manifest.spec.program)
                )?,
                Err(errors) => tell(errors),
            }
        }
    }
    if wrong == 0 {
        return Ok(exit::OK);
    }
    Err(Failure::new(exit::FAILURE, format!("{wrong} of {} manifests cannot be registered", read.len())))
}

fn error_document(error: &FileError) -> Value {
    json!({
        "file": error.file, "line": error.line, "column": error.column, "code": error.code.to_string(),
        "message": error.message, "hint": error.hint,
    })
}

fn tell(errors: &[FileError]) {
    for error in errors {
        talk(&format!("{error}\n  hint: {}", error.hint));
    }
}

fn refuse(errors: &[FileError]) -> Failure {
    tell(errors);
    let what = format!("{} in tool manifests; nothing was registered", count(errors.len(), "error", "errors"));
    Failure::new(exit::FAILURE, what)
}

fn load(file: &Path) -> Result<Manifest, Vec<FileError>> {
    let shown = file.display().to_string();
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (open_folder(folder), open_folder(Path::new("/"))) {
        (Ok(folder), Ok(system)) => toka_tools::load(folder.as_fd(), name, &shown, Some(system.as_fd())),
        (Err(error), _) | (_, Err(error)) => Err(vec![unopened(&shown, &error)]),
    }
}

fn open_folder(folder: &Path) -> Result<std::os::fd::OwnedFd, toka_tools::ToolFailure> {
    let denied = |error: std::io::Error| toka_tools::ToolFailure {
        symbol: toka_tools::ToolFailure::NOT_FOUND,
        detail: format!("{}: {error}", folder.display()),
    };
    toka_tools::open_root(&std::fs::canonicalize(folder).map_err(denied)?)
}

fn unopened(shown: &str, error: &toka_tools::ToolFailure) -> FileError {
    FileError {
        file: shown.to_owned(),
        line: 1,
        column: 1,
        code: toka_tools::files::FileCode::Unreadable,
        message: error.detail.clone(),
        hint: "check the path and who may read it".to_owned(),
    }
}

fn pin(file: &Path) -> Result<u8, Failure> {
    let manifest = load(file).map_err(|errors| refuse(&errors))?;
    writeln!(std::io::stdout().lock(), "{}", pin_text(&manifest.spec.program))?;
    Ok(exit::OK)
}

/// The operator's key, opened with a passphrase where it needs one.
pub(crate) fn operator_key(home: &Home, key: &Key) -> Result<SecretKey, Failure> {
    if !home.operator_key_is_sealed()? {
        return Ok(home.operator_key(None)?);
    }
    let passphrase = match &key.passphrase_file {
        Some(file) => read_passphrase(file)?,
        None => ask_passphrase("passphrase of the operator's key: ")?.ok_or_else(|| {
            Failure::new(exit::DENIED, "the operator's key is sealed, and nobody can be asked for its passphrase")
                .hint("--passphrase-file FILE names a file that holds it")
        })?,
    };
    Ok(home.operator_key(Some(&passphrase))?)
}

/// The system session of this node, made if there is none. It knows the node's own tools, and of every session that has
/// ended that it has.
pub(crate) fn open_system(home: &Home, places: &mut SystemPlaces, log: &Arc<dyn Log>) -> Result<System, Failure> {
    let clock = GuardedClock::new(Arc::new(SystemClock));
    let now_us = clock.now_us().map_err(super::run::clock_fault)?;
    let parts = |key| Parts { log: log.clone(), key, clock, random: Box::new(OsRandom) };
    let mut system = match places.session {
        Some(session) => {
            let key = home.event_key_of(super::run::epoch(log.as_ref(), session)?, now_us)?;
            System::load(parts(key), session, home.root().key(), &node(home)).map_err(failed)?
        }
        None => {
            let rights_end_us = home.operator().not_after_us;
            let system = System::create(parts(home.event_key(now_us)?), &node(home), rights_end_us).map_err(failed)?;
            places.session = Some(system.id());
            home.save_system(places)?;
            system
        }
    };
    system.register_own(own()?.iter().map(|listed| &listed.spec)).map_err(failed)?;
    system.settle().map_err(failed)?;
    Ok(system)
}

fn register(
    home: &Home,
    files: &[PathBuf],
    discover: Option<&Path>,
    keep_going: bool,
    approve: Option<&Key>,
    as_json: bool,
) -> Result<u8, Failure> {
    let mut errors = Vec::new();
    let mut found: Vec<(PathBuf, Manifest)> = Vec::new();
    match discover {
        Some(dir) => {
            let folder = open_folder(dir).map_err(|error| Failure::new(exit::USAGE, error.detail))?;
            let system = open_folder(Path::new("/")).map_err(|error| Failure::new(exit::FAILURE, error.detail))?;
            let shown = dir.display().to_string();
            let discovery = toka_tools::discover(folder.as_fd(), &shown, Some(system.as_fd()));
            errors.extend(discovery.errors);
            found.extend(discovery.manifests.into_iter().map(|(path, manifest)| (dir.join(path), manifest)));
        }
        None => {
            for file in files {
                match load(file) {
                    Ok(manifest) => found.push((file.clone(), manifest)),
                    Err(wrong) => errors.extend(wrong),
                }
            }
        }
    }
    if !errors.is_empty() && !keep_going {
        return Err(refuse(&errors));
    }
    tell(&errors);
    if found.is_empty() && errors.is_empty() {
        return Err(Failure::new(exit::FAILURE, "there is no manifest").hint("a manifest is called NAME.tool.yaml"));
    }
    let mut refused = Vec::new();
    let mut refuse_one = |file: &Path, name: &str, failure: Failure| -> Result<(), Failure> {
        if !keep_going || !failure.is_about_one() {
            return Err(failure);
        }
        failure.report();
        refused.push(json!({ "tool": name, "file": file.display().to_string(), "why": failure.what() }));
        Ok(())
    };
    while let Err((index, failure)) = check_names(&found).and_then(|()| check_probes(home, &found)) {
        let (file, manifest) = found.remove(index);
        refuse_one(&file, &manifest.spec.name, failure)?;
    }
    let mut told = Vec::new();
    if !found.is_empty() {
        let key = approve.map(|key| operator_key(home, key)).transpose()?;
        let mut places = home.system()?;
        let mut system = open_system(home, &mut places, &writer(home)?)?;
        for (file, manifest) in found {
            let name = &manifest.spec.name;
            match register_one(home, &mut system, &mut places, &file, &manifest, key.as_ref()) {
                Ok(what) => {
                    told.push(json!({ "tool": name, "file": file.display().to_string(), "state": what }));
                    if !as_json {
                        writeln!(std::io::stdout().lock(), "{name}  {what}")?;
                    }
                }
                Err(failure) => refuse_one(&file, name, failure)?,
            }
        }
    }
    let whole = errors.is_empty() && refused.is_empty();
    if as_json {
        let errors: Vec<Value> = errors.iter().map(error_document).collect();
        let document = json!({ "schema": "toka/register/1", "tools": told, "refused": refused, "errors": errors });
        writeln!(std::io::stdout().lock(), "{document}")?;
    } else if approve.is_none() && told.iter().any(|told| told["state"] == "proposed") {
        talk("next: toka tools show NAME, then toka tools approve NAME");
    }
    if whole { Ok(exit::OK) } else { Err(Failure::new(exit::FAILURE, "not every manifest was registered")) }
}

/// Whether these tools are the operator's own: those of the node are neither registered nor displaced. The index of the
/// first that is not, and why.
fn check_names(found: &[(PathBuf, Manifest)]) -> Result<(), (usize, Failure)> {
    if found.is_empty() {
        return Ok(());
    }
    let own = own().map_err(|failure| (0, failure))?;
    for (index, (file, manifest)) in found.iter().enumerate() {
        let name = &manifest.spec.name;
        if manifest.spec.run.is_none() {
            let what = format!("{}: `{name}` is part of the node and needs no registration", file.display());
            return Err((index, Failure::new(exit::FAILURE, what)));
        }
        if own.iter().any(|own| own.spec.name == *name) {
            let what = format!("{}: the name `{name}` belongs to a tool of the node", file.display());
            return Err((index, Failure::new(exit::FAILURE, what).hint("give the tool another name")));
        }
    }
    Ok(())
}

/// Whether the probe of every tool, with these registered, is one that changes nothing and takes what it is asked. The
/// index of one that must not be registered, and why.
fn check_probes(home: &Home, found: &[(PathBuf, Manifest)]) -> Result<(), (usize, Failure)> {
    if found.is_empty() {
        return Ok(());
    }
    let listed = as_stored(home).map_err(|failure| (0, failure))?;
    let mut known: BTreeMap<String, ToolSpec> =
        listed.into_iter().map(|listed| (listed.spec.name.clone(), listed.spec)).collect();
    known.extend(found.iter().map(|(_, manifest)| (manifest.spec.name.clone(), manifest.spec.clone())));
    let index = |name: &str| found.iter().position(|(_, manifest)| manifest.spec.name == name);
    for (name, probe) in known.values().filter_map(|spec| Some((&spec.name, spec.probe.as_ref()?))) {
        // What was registered before is not at fault now.
        let Some(culprit) = index(name).or_else(|| index(&probe.tool)) else { continue };
        if let Err(what) = check_probe(probe, known.get(&probe.tool)) {
            let failure = Failure::new(exit::FAILURE, format!("the probe `{}` of `{name}` {what}", probe.tool)).hint(
                "register the probe before it or with it; it must not change what it looks at, and answers in text",
            );
            return Err((culprit, failure));
        }
    }
    Ok(())
}

fn check_probe(probe: &Probe, spec: Option<&ToolSpec>) -> Result<(), String> {
    let Some(spec) = spec.filter(|spec| spec.effect == Effect::Read.number()) else {
        return Err("is no tool of `effect: read` here".to_owned());
    };
    if spec.run.as_ref().is_none_or(|run| run.outputs.result != ResultKind::Text.number()) {
        return Err("does not answer in text: `outputs: { result: text }`".to_owned());
    }
    let asked = |param: &str| probe.params.iter().any(|asked| asked.name == param);
    let taken = |param: &str| spec.params.iter().any(|taken| taken.name == param);
    if let Some(asked) = probe.params.iter().find(|asked| !taken(&asked.name)) {
        return Err(format!("takes no `{}`", asked.name));
    }
    if let Some(missing) = spec.params.iter().find(|param| param.required && !asked(&param.name)) {
        return Err(format!("is not asked its `{}`, which it requires", missing.name));
    }
    Ok(())
}

/// Registers one tool; the state in which it stands then.
fn register_one(
    home: &Home,
    system: &mut System,
    places: &mut SystemPlaces,
    file: &Path,
    manifest: &Manifest,
    key: Option<&SecretKey>,
) -> Result<&'static str, Failure> {
    let spec = &manifest.spec;
    let folder = std::fs::canonicalize(file)?.parent().map(Path::to_owned).unwrap_or_default();
    let digest = spec.digest().map_err(|error| Failure::new(exit::FAILURE, error.to_string()))?;
    let before = system.tools().get(&spec.name).cloned();
    if let Some(key) = key {
        talk(&format!("approving {}:", spec.name));
        let listed = Listed {
            spec: spec.clone(),
            from: "registered",
            state: ToolState::Approved,
            known: before.clone(),
            tool: None,
        };
        for line in words(&listed) {
            talk(&format!("  {line}"));
        }
        match &before {
            Some(known) if known.digest == digest && known.state == ToolState::Approved => {}
            Some(known) if known.digest == digest => drop(system.approve(&spec.name, key).map_err(failed)?),
            Some(_) | None => system.replace(spec, manifest.written, key).map_err(failed)?,
        }
    } else if before.as_ref().is_none_or(|known| known.digest != digest) {
        system.propose(spec, manifest.written).map_err(|error| match error {
            error @ SystemError::Refused { .. } => failed(error).hint(
                "a version of this tool is approved; --approve registers the new one in its place, signed by the operator",
            ),
            error @ (SystemError::Commit(_)
            | SystemError::Load(_)
            | SystemError::Read(_)
            | SystemError::Spec(_)
            | SystemError::UnknownTool(_)) => failed(error),
        })?;
    }
    places.tools.insert(spec.name.clone(), folder);
    home.save_system(places)?;
    Ok(system.tools().get(&spec.name).map_or("unknown", |known| known.state.name()))
}

fn approve(home: &Home, name: &str, key: &Key, as_json: bool) -> Result<u8, Failure> {
    let mut places = home.system()?;
    let known = || Failure::new(exit::USAGE, format!("no tool `{name}` is registered"));
    if places.session.is_none() {
        return Err(known().hint("toka tools register FILE.tool.yaml"));
    }
    let mut system = open_system(home, &mut places, &writer(home)?)?;
    if system.tools().get(name).is_none() {
        return Err(known().hint("`toka tools list` shows those that are"));
    }
    let key = operator_key(home, key)?;
    let digest = system.approve(name, &key).map_err(failed)?;
    let mut out = std::io::stdout().lock();
    if as_json {
        let document = json!({ "schema": "toka/approve/1", "tool": name, "digest": digest.to_string() });
        writeln!(out, "{document}")?;
    } else {
        writeln!(out, "{name}  approved  {digest}")?;
    }
    Ok(exit::OK)
}

/// The failure of a command of the system session.
pub(crate) fn failed(error: SystemError) -> Failure {
    let code = match &error {
        SystemError::Load(_) | SystemError::Read(_) => exit::UNREADABLE,
        SystemError::Refused { code, .. } if code.is_limit() => exit::LIMIT,
        SystemError::Refused { .. } => exit::DENIED,
        SystemError::Commit(_) | SystemError::Spec(_) | SystemError::UnknownTool(_) => exit::FAILURE,
    };
    Failure::new(code, error.to_string())
}
