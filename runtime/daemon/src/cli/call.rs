//! `toka tools call`: one call of one tool, in a session of its own.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use toka_kernel::body::v1::CallFinished;
use toka_kernel::ids::SessionId;
use toka_kernel::tool::ToolSpec;
use toka_kernel::{Ask, Body, Code, Entry, Event};
use toka_projections::{outcome_word, outcome_words};
use toka_runtime::Home;
use toka_runtime::agents::AgentSet;
use toka_runtime::executor::outcome;
use toka_runtime::sandbox::{kept_files, make_folder, without_content, write_files};
use toka_runtime::session::capabilities_of_call;
use toka_store::{ReadLog, SqliteReader};

use super::failure::{Failure, exit};
use super::init::open_home;
use super::print::{escaped, talk};
use super::{run, tools};

/// The arguments of a call, as they were given.
pub(crate) struct Given<'a> {
    /// Each as `NAME=VALUE`.
    pub(crate) args: &'a [String],
    /// All in a file.
    pub(crate) file: Option<&'a Path>,
}

pub(crate) fn one(
    home: Option<PathBuf>,
    name: &str,
    given: Given<'_>,
    roots: Vec<(String, PathBuf)>,
    key: tools::Key,
    artifacts: Option<&Path>,
    as_json: bool,
) -> Result<u8, Failure> {
    let home = open_home(home)?;
    let listed = tools::as_stored(&home)?;
    let named = |name: &str| listed.iter().map(|tool| &tool.spec).find(|spec| spec.name == name);
    let names = listed.iter().map(|tool| tool.spec.name.as_str());
    let spec = named(name).ok_or_else(|| tools::unknown(name, names))?;
    let arguments = match given.file {
        Some(file) => arguments_of(file)?,
        None => arguments(given.args)?,
    };
    let agent = agent(spec, spec.probe.as_ref().and_then(|probe| named(&probe.tool)), &arguments);
    let files = BTreeMap::from([("call.yaml".to_owned(), agent.into_bytes())]);
    let set = AgentSet::from_files("call.yaml", &files).map_err(|errors| {
        let first = errors.first().map(ToString::to_string).unwrap_or_default();
        Failure::new(exit::USAGE, format!("these arguments cannot be asked for: {first}"))
    })?;
    if let Some(dir) = artifacts {
        make_folder(dir).map_err(|error| {
            let what = format!("no files can be written below {}: {error}; nothing was run", dir.display());
            Failure::new(exit::USAGE, what).hint("name a folder, or one that can be made")
        })?;
    }
    let finish = run::begin_one(&home, &set.top(), roots, key)?;
    tell(&home, finish.session, artifacts, as_json)
}

/// `NAME=VALUE` as an object; a value that is JSON is taken as such, any other as text.
fn arguments(args: &[String]) -> Result<Map<String, Value>, Failure> {
    let mut arguments = Map::new();
    for arg in args {
        let (name, value) = arg
            .split_once('=')
            .ok_or_else(|| Failure::new(exit::USAGE, format!("`{arg}` is no argument")).hint("write NAME=VALUE"))?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        if arguments.insert(name.to_owned(), value).is_some() {
            return Err(Failure::new(exit::USAGE, format!("the argument `{name}` is given twice")));
        }
    }
    Ok(arguments)
}

/// The object that a file holds.
fn arguments_of(file: &Path) -> Result<Map<String, Value>, Failure> {
    let shown = file.display();
    let bytes = std::fs::read(file).map_err(|error| Failure::new(exit::UNREADABLE, format!("{shown}: {error}")))?;
    let wrong = |why: String| Failure::new(exit::USAGE, format!("{shown}: {why}")).hint("write one JSON object");
    match serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))? {
        Value::Object(arguments) => Ok(arguments),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(wrong("these arguments are no object".to_owned()))
        }
    }
}

/// An agent file whose only step is the call. It asks for what the call takes.
fn agent(spec: &ToolSpec, probe: Option<&ToolSpec>, arguments: &Map<String, Value>) -> String {
    let text = Value::Object(arguments.clone()).to_string();
    json!({
        "apiVersion": "toka/v1", "kind": "Agent", "metadata": { "name": "one-call", "version": "1.0.0" },
        "spec": {
            "tools": [spec.name], "capabilities": capabilities_of_call(spec, probe, &text),
            "program": { "script": { "steps": [
                { "id": "call", "call": { "tool": spec.name, "args": arguments } },
            ] } },
        },
    })
    .to_string()
}

/// Says what came of the call: its result on stdout, everything else on stderr.
fn tell(home: &Home, session: SessionId, artifacts: Option<&Path>, as_json: bool) -> Result<u8, Failure> {
    let store =
        SqliteReader::open(home.store_path()).map_err(|error| Failure::new(exit::UNREADABLE, error.to_string()))?;
    for row in store.read(session, 0) {
        let row = row?;
        let entry =
            toka_kernel::Entry::read(&row.bytes).map_err(|fault| Failure::new(exit::UNREADABLE, fault.to_string()))?;
        let Ok(event) = entry.event() else { continue };
        if let Body::CallFinished(finished) = &event.body {
            return tell_outcome(&store, &entry, event, finished, artifacts, as_json);
        }
        if let Body::Refused(refused, ask) = &event.body
            && let Ask::Call(_) = **ask
        {
            let code = Code::from_number(refused.code).map_or("?", Code::name);
            let need = refused.need.as_ref().map(|need| format!(", it would need {need}")).unwrap_or_default();
            let detail = parsed(blob(&store, session, event, refused.detail)?);
            let rule =
                detail.as_ref().and_then(|detail| detail["rule"].as_str()).map(|rule| format!(": {}", escaped(rule)));
            let rule = rule.unwrap_or_default();
            return Err(Failure::new(exit::DENIED, format!("the call was refused: {code}{need}{rule}")));
        }
    }
    Err(Failure::new(exit::FAILURE, "the call did not come to an end"))
}

/// A blob that an event refers to, if it is there.
pub(crate) fn blob(
    store: &dyn ReadLog,
    session: SessionId,
    event: &Event,
    index: Option<u16>,
) -> Result<Option<Vec<u8>>, Failure> {
    let reference = index.and_then(|index| event.blobs.get(usize::from(index)));
    let Some(reference) = reference else { return Ok(None) };
    Ok(store.blob(session, reference.commitment)?.map(|blob| blob.bytes))
}

/// A blob as JSON; nothing where it is none.
pub(crate) fn parsed(bytes: Option<Vec<u8>>) -> Option<Value> {
    bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok())
}

/// Writes the files that a record holds below `dir`, and says which they are, unless a document says it.
pub(crate) fn artifacts(record: Option<&Value>, dir: Option<&Path>, quiet: bool) -> Result<(), Failure> {
    let files = record.map(kept_files).unwrap_or_default();
    if let Some(dir) = dir {
        write_files(dir, &files).map_err(|error| {
            let what = format!("the files of the call cannot be written below {}: {error}", dir.display());
            Failure::new(exit::FAILURE, what).hint("nothing that is there is replaced; name a new folder")
        })?;
    }
    for file in files.iter().filter(|_| !quiet) {
        let path = printable(&file.path).replace('\n', "\\n").replace('\t', "\\t");
        talk(&format!("kept {}: {path}, {} bytes", file.artifact, file.bytes.len()));
    }
    for item in record.and_then(|record| record["dropped"].as_array()).into_iter().flatten().filter(|_| !quiet) {
        let path = item["path"].as_str().or(item["path_base64"].as_str()).unwrap_or_default();
        let path = printable(path.as_bytes()).replace('\n', "\\n").replace('\t', "\\t");
        talk(&format!("not kept: {path}: {}", item["why"].as_str().unwrap_or_default()));
    }
    Ok(())
}

fn tell_outcome(
    store: &dyn ReadLog,
    entry: &Entry,
    event: &Event,
    finished: &CallFinished,
    dir: Option<&Path>,
    as_json: bool,
) -> Result<u8, Failure> {
    let session = entry.session();
    let blob = |index: Option<u16>| blob(store, session, event, index);
    let (result, record) = (parsed(blob(finished.result)?), parsed(blob(finished.record)?));
    if let Some(stderr) = blob(finished.stderr)? {
        talk(printable(&stderr).trim_end());
    }
    let mut out = std::io::stdout().lock();
    if as_json {
        let document = json!({
            "schema": "toka/call/1", "session": session.to_string(), "call": finished.call.to_string(),
            "outcome": outcome_word(&finished.outcome), "symbol": finished.outcome.symbol,
            "number": finished.outcome.number, "result": result,
            "record": record.clone().map(without_content),
        });
        writeln!(out, "{document}")?;
    } else {
        match &result {
            Some(Value::String(text)) => writeln!(out, "{}", printable(text.as_bytes()))?,
            Some(other) => writeln!(out, "{}", escaped(&format!("{other:#}")))?,
            None => {}
        }
    }
    // What came of the call is said, whatever becomes of its files.
    let written = artifacts(record.as_ref(), dir, as_json);
    if finished.outcome.kind == outcome::SUCCEEDED {
        return written.map(|()| exit::OK);
    }
    if let Err(failure) = written {
        failure.report();
    }
    let detail = record.as_ref().and_then(|record| record["detail"].as_str());
    let detail = detail.map(|detail| format!(": {detail}")).unwrap_or_default();
    let code = if finished.outcome.kind == outcome::SANDBOX_UNAVAILABLE { exit::SANDBOX } else { exit::FAILURE };
    Err(Failure::new(code, format!("the call ended as {}{detail}", outcome_words(&finished.outcome)))
        .hint(format!("toka sessions show {} tells what happened", session.short())))
}

/// Text of a program as a terminal may be shown it: whatever could command the terminal or mislead a reader is escaped.
pub(crate) fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).split('\t').map(escaped).collect::<Vec<_>>().join("\t")
}
