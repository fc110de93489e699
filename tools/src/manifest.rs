//! Tool manifests: files `*.tool.yaml` that say what a tool is. docs/TOOLS.md describes them field by field.
//!
//! [`Manifest::read`] turns one into a [`ToolSpec`], or into everything that is wrong with it. Reading is strict: what
//! is not understood is an error, and what this version does not do is refused by its name.

mod authority;
mod outputs;
mod params;
mod pass;
mod probe;
mod run;
mod sandbox;

use std::collections::BTreeMap;

use toka_kernel::ids::Digest;
use toka_kernel::limits::{DESCRIPTION_CHARS_MAX, TOOL_LABEL_BYTES_MAX, TOOL_LABEL_NAME_BYTES_MAX, TOOL_LABELS_MAX};
use toka_kernel::tool::{Effect, Level, Model, ResultKind, Run, RunKind, ToolSpec, ToolSpecError};

use crate::files::yaml::{Node, Place, parse};
use crate::files::{Fields, FileCode, FileError, Format, Problems, Shape, decode, file_error, is_hostile, quote};
use crate::native::by_name;
use crate::program::{ProgramFile, ProgramSource, program_digest};

pub use outputs::ARTIFACTS_BYTES_MAX;

/// Bytes of a manifest.
pub const MANIFEST_BYTES_MAX: usize = 64 << 10;

/// What a manifest is.
pub(crate) const FORMAT: Format = Format { noun: "tool manifest", kind: "Tool", bytes_max: MANIFEST_BYTES_MAX };

/// A manifest that was read without an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// What it says, normalised; its digest pins the tool.
    pub spec: ToolSpec,
    /// BLAKE3 of the file as it is written, comments and all. For information: nothing is decided by it.
    pub written: Digest,
    /// The files of the program as they were read, the main one first; none for a tool that is built in.
    pub program: Vec<ProgramFile>,
    pub(crate) name_place: Place,
}

impl Manifest {
    /// Reads the bytes of a manifest that errors call `file`, and the files of its program from `source`.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of the places.
    pub fn read(file: &str, bytes: &[u8], source: &dyn ProgramSource) -> Result<Manifest, Vec<FileError>> {
        let text = decode(file, bytes, &FORMAT)?;
        let mut problems = Problems::new(file, text, &FORMAT);
        let manifest = match parse(&mut problems) {
            Some(root) => manifest(&root, source, &mut problems),
            None => None,
        };
        match (manifest, problems.into_errors()) {
            (Some((spec, program, name_place)), errors) if errors.is_empty() => {
                checked(file, &spec)?;
                let written = Digest(*blake3::hash(bytes).as_bytes());
                Ok(Manifest { spec, written, program, name_place })
            }
            (_, errors) => Err(errors),
        }
    }
}

/// The bounds of the whole, which no single field can keep.
fn checked(file: &str, spec: &ToolSpec) -> Result<(), Vec<FileError>> {
    let Err(error) = spec.encode().and_then(|_| spec.decision(0)) else { return Ok(()) };
    let (code, hint) = match error {
        ToolSpecError::TooLarge { .. } => (FileCode::TooLarge, "shorten needs, descriptions and lists"),
        ToolSpecError::Encoding | ToolSpecError::Form { .. } => (FileCode::BadSchema, "the fields do not fit together"),
    };
    Err(vec![file_error(file, Place::START, code, format!("the tool as a whole: {error}"), hint)])
}

fn manifest(
    root: &Node,
    source: &dyn ProgramSource,
    problems: &mut Problems<'_>,
) -> Option<(ToolSpec, Vec<ProgramFile>, Place)> {
    let known = &["apiVersion", "kind", "metadata", "spec"];
    let top = problems.fields(root, &Shape { what: "tool manifest", known, later: &[], prefix: None })?;
    problems.api_and_kind(&top);
    let metadata = top.required("metadata", "metadata: { name: my-tool, version: 1.0.0, description: … }", problems);
    let metadata = metadata.and_then(|node| metadata_of(node, problems));
    let spec = top.required("spec", "spec: { run: { kind: python, path: main.py } }", problems)?;
    let shape = Shape {
        what: "spec",
        known: &[
            "run",
            "params",
            "pass",
            "outputs",
            "effect",
            "probe",
            "facts",
            "needs",
            "reserve",
            "sandbox",
            "parallel_safe",
            "hot_swappable",
            "interactive",
            "host_calls",
            "requires",
        ],
        later: &["input_schema"],
        prefix: None,
    };
    let fields = problems.fields(spec, &shape)?;
    let run_node = fields.required("run", "run: { kind: python, path: main.py }", problems);
    let name = metadata.as_ref().map(|metadata| (metadata.name.clone(), metadata.place));
    let program = run_node.and_then(|node| run::program(node, name.as_ref(), source, problems));
    match program {
        Some(run::Program::Native(name)) => native(&name, metadata?, &fields, problems),
        Some(run::Program::Foreign(program)) => foreign(program, metadata, &fields, problems),
        None => {
            // The rest is read for its mistakes.
            let kind = run_node.map_or(0, run::kind_as_written);
            foreign(run::Foreign { kind, ..run::Foreign::default() }, None, &fields, problems);
            None
        }
    }
}

struct Metadata {
    name: String,
    place: Place,
    version: (String, Place),
    description: (String, Place),
    labels: BTreeMap<String, String>,
}

fn metadata_of(node: &Node, problems: &mut Problems<'_>) -> Option<Metadata> {
    let known = &["name", "version", "description", "labels"];
    let fields = problems.fields(node, &Shape { what: "metadata", known, later: &[], prefix: None })?;
    let name_node = fields.required("name", "name: my-tool", problems);
    let name = name_node.and_then(|node| problems.name(node, "metadata.name"));
    if let (Some(node), Some(name)) = (name_node, &name)
        && let Some(first) = name.split('.').next().filter(|first| ["agent", "code", "model"].contains(first))
    {
        let message = format!("names that begin with `{first}` are kept for the node");
        problems.report(node.place, FileCode::ReservedName, message, "choose another first part");
    }
    let version = fields.required("version", "version: 1.0.0", problems);
    let version = version.and_then(|node| Some((problems.version(node, "metadata.version", 64)?, node.place)));
    let description = fields.required("description", "description: What it does.", problems);
    let description = description.and_then(|node| Some((description_of(node, problems)?, node.place)));
    let most = (TOOL_LABEL_NAME_BYTES_MAX, TOOL_LABEL_BYTES_MAX);
    let labels = fields.get("labels");
    let labels = labels.map(|node| problems.labels(node, "metadata.labels", TOOL_LABELS_MAX, most));
    Some(Metadata {
        name: name?,
        place: name_node?.place,
        version: version?,
        description: description?,
        labels: labels.unwrap_or_default(),
    })
}

fn description_of(node: &Node, problems: &mut Problems<'_>) -> Option<String> {
    let text = problems.text(node, "metadata.description")?;
    let length = text.chars().count();
    if !(1..=DESCRIPTION_CHARS_MAX).contains(&length) {
        let hint = format!("1 to {DESCRIPTION_CHARS_MAX} characters are allowed");
        let message = format!("`metadata.description` is {length} characters long");
        problems.report(node.place, FileCode::BadText, message, hint);
        return None;
    }
    if let Some((at, c)) = text.char_indices().find(|(_, c)| is_hostile(*c)) {
        let message =
            format!("`metadata.description` holds the character U+{:04X}, which cannot be seen", u32::from(c));
        problems.report_inside(node, at, FileCode::BadText, message, "write one line, without control characters");
        return None;
    }
    Some(text.to_owned())
}

/// A manifest of a built-in tool says what the program itself says, or is wrong: nothing else would have an effect.
fn native(
    name: &str,
    metadata: Metadata,
    fields: &Fields<'_>,
    problems: &mut Problems<'_>,
) -> Option<(ToolSpec, Vec<ProgramFile>, Place)> {
    for member in fields.members().iter().filter(|member| member.name != "run") {
        let message = format!("{} in the manifest of a built-in tool", quote(&member.name));
        problems.report(member.place, FileCode::Conflict, message, "leave it out: the program decides it");
    }
    let spec = by_name(name)?.spec().clone();
    let mut same = |what: &str, (text, place): &(String, Place), right: &str| {
        if text != right {
            let message = format!("`metadata.{what}` is not that of the built-in tool");
            problems.report(*place, FileCode::Conflict, message, format!("write `{what}: {right}`"));
        }
    };
    same("name", &(metadata.name, metadata.place), name);
    same("version", &metadata.version, &spec.version);
    same("description", &metadata.description, &spec.description);
    if !metadata.labels.is_empty() {
        let hint = "leave them out: the program decides them";
        problems.report(metadata.place, FileCode::Conflict, "labels in the manifest of a built-in tool", hint);
    }
    Some((spec, Vec::new(), metadata.place))
}

fn foreign(
    program: run::Foreign,
    metadata: Option<Metadata>,
    fields: &Fields<'_>,
    problems: &mut Problems<'_>,
) -> Option<(ToolSpec, Vec<ProgramFile>, Place)> {
    if let Some(metadata) = metadata.as_ref().filter(|metadata| by_name(&metadata.name).is_some()) {
        let message = format!("{} is a built-in tool", quote(&metadata.name));
        problems.report(
            metadata.place,
            FileCode::ReservedName,
            message,
            "choose another name, or `run: { kind: native }`",
        );
    }
    let params = fields.get("params").map(|node| params::params(node, problems)).unwrap_or_default();
    let effect = fields.get("effect").and_then(|node| problems.choice(node, "spec.effect", &EFFECTS, &[]));
    let probe = probe::probe(fields, effect, &params, problems);
    let authority = authority::authority(fields, &params, problems);
    let is_guest = program.kind == RunKind::Wasm.number();
    let (sandbox, level) = sandbox::sandbox(fields.get("sandbox"), is_guest, problems);
    let outputs = outputs::outputs(fields.get("outputs"), problems);
    let writes = authority.needs.iter().any(|need| authority::changes_files(&need.text));
    if level == Some(Level::Landlock) && writes && !sandbox.deny_within.is_empty() {
        let message = "at `level: landlock` nothing keeps a program from making `.git` and the like where it may write";
        let hint = "write `level: strong`; or `fs: { deny_within: [] }`, and mean it";
        problems.report(fields.place_of("sandbox"), FileCode::BadSandbox, message, hint);
    }
    let pass = pass::pass(fields.get("pass"), &params, problems);
    for (name, is_there) in [("outputs", !outputs.artifacts.is_empty()), ("pass", !pass.env.is_empty())] {
        if is_guest && is_there {
            let message = "a guest has neither files to keep nor an environment";
            problems.report(fields.place_of(name), FileCode::Conflict, message, "leave `artifacts` and `env` out");
        }
    }
    let requires = fields.get("requires").map(|node| run::requires(node, problems)).unwrap_or_default();
    let parallel_safe = fields.get("parallel_safe").and_then(|node| problems.flag(node, "spec.parallel_safe"));
    for name in ["hot_swappable", "interactive", "host_calls"] {
        if let Some(node) = fields.get(name)
            && problems.flag(node, &format!("spec.{name}")) == Some(true)
        {
            let message = format!("`spec.{name}: true` is known and not built yet");
            problems.report(node.place, FileCode::Unsupported, message, "leave it out: this version does not do it");
        }
    }
    let result = ResultKind::from_number(outputs.result).map_or("", result_text).to_owned();
    let run = Run {
        kind: program.kind,
        path: program.path,
        files: program.files,
        toolchain: program.toolchain,
        requires,
        pass,
        outputs,
        sandbox,
    };
    let reserve = authority::reserve(fields.get("reserve"), &run, &params, &authority.facts, problems);
    let metadata = metadata?;
    let spec = ToolSpec {
        name: metadata.name,
        version: metadata.version.0,
        description: metadata.description.0,
        program: program_digest(&program.bytes),
        facts: authority.facts,
        needs: authority.needs,
        effect: effect.unwrap_or(Effect::Once).number(),
        reserve,
        model: Model::Tool.number(),
        level: level.unwrap_or(Level::Strong).number(),
        parallel_safe: parallel_safe.unwrap_or(!writes),
        params: params.into_iter().map(|param| param.spec).collect(),
        result,
        labels: metadata.labels,
        run: Some(run),
        probe,
    };
    Some((spec, program.bytes, metadata.place))
}

/// The effect classes as manifests write them.
const EFFECTS: [(&str, Effect); 4] = [
    ("read", Effect::Read),
    ("idempotent", Effect::Idempotent),
    ("reconcile", Effect::Reconcile),
    ("once", Effect::Once),
];

fn result_text(kind: ResultKind) -> &'static str {
    match kind {
        ResultKind::None => "Nothing.",
        ResultKind::Text => "Text, as a JSON string.",
        ResultKind::Json => "JSON.",
    }
}
