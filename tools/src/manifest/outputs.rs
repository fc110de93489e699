//! `spec.outputs`: what the program gives back.

use toka_kernel::limits::{ARTIFACT_BYTES_MAX, ARTIFACT_FILES_MAX, ARTIFACTS_MAX};
use toka_kernel::tool::{Artifact, Outputs, ResultKind, is_artifact_path, is_param_name};

use crate::files::quantity::Size;
use crate::files::yaml::Node;
use crate::files::{FileCode, Problems, Shape, quote};

/// Bytes of all artifacts of a call: they lie in its record, which is one blob, written as text.
pub const ARTIFACTS_BYTES_MAX: u64 = 32 << 20;

pub(super) fn outputs(node: Option<&Node>, problems: &mut Problems<'_>) -> Outputs {
    let mut outputs = Outputs { result: ResultKind::Text.number(), artifacts: Vec::new() };
    let shape = Shape { what: "spec.outputs", known: &["result", "artifacts"], later: &["schema"], prefix: None };
    let Some(fields) = node.and_then(|node| problems.fields(node, &shape)) else { return outputs };
    let words = [("none", ResultKind::None), ("text", ResultKind::Text), ("json", ResultKind::Json)];
    if let Some(node) = fields.get("result")
        && let Some(result) = problems.choice(node, "spec.outputs.result", &words, &[])
    {
        outputs.result = result.number();
    }
    let items = fields.get("artifacts").and_then(|node| problems.list(node, "spec.outputs.artifacts", ARTIFACTS_MAX));
    for item in items.unwrap_or_default() {
        let Some(artifact) = artifact(item, problems) else { continue };
        if outputs.artifacts.iter().any(|known| known.name == artifact.name) {
            let message = format!("the artifact {} stands here a second time", quote(&artifact.name));
            problems.report(item.place, FileCode::DuplicateName, message, "choose another name");
            continue;
        }
        outputs.artifacts.push(artifact);
    }
    let all: u64 = outputs.artifacts.iter().map(|artifact| artifact.max_bytes).sum();
    if let Some(node) = fields.get("artifacts")
        && all > ARTIFACTS_BYTES_MAX
    {
        let message = format!("the artifacts of a call may have {} together", Size(all));
        let hint = format!("at most {} are kept of one call in this version", Size(ARTIFACTS_BYTES_MAX));
        problems.report(node.place, FileCode::Unsupported, message, hint);
    }
    outputs
}

fn artifact(node: &Node, problems: &mut Problems<'_>) -> Option<Artifact> {
    let what = "spec.outputs.artifacts";
    let known = &["name", "path", "max_bytes", "max_files", "required"];
    let fields = problems.fields(node, &Shape { what, known, later: &[], prefix: None })?;
    let name = fields.required("name", "name: report", problems).and_then(|node| name_of(node, problems));
    let path = fields.required("path", "path: report.html", problems).and_then(|node| path_of(node, problems));
    let max_bytes = fields.required("max_bytes", "max_bytes: 1MiB", problems);
    let max_bytes = max_bytes.and_then(|node| problems.size(node, "max_bytes", 1..=ARTIFACT_BYTES_MAX));
    let max_files = match fields.get("max_files") {
        Some(node) => problems.whole(node, "max_files", 1..=ARTIFACT_FILES_MAX.into()),
        None => Some(1),
    };
    let required = match fields.get("required") {
        Some(node) => problems.flag(node, "required"),
        None => Some(false),
    };
    Some(Artifact {
        name: name?,
        path: path?,
        max_bytes: max_bytes?,
        max_files: u32::try_from(max_files?).ok()?,
        required: required?,
    })
}

fn name_of(node: &Node, problems: &mut Problems<'_>) -> Option<String> {
    let text = problems.text(node, "name")?;
    if is_param_name(text) {
        return Some(text.to_owned());
    }
    let message = format!("{} is no name of an artifact", quote(text));
    problems.report(node.place, FileCode::BadName, message, "a letter a-z, then at most 31 of a-z 0-9 _");
    None
}

fn path_of(node: &Node, problems: &mut Problems<'_>) -> Option<String> {
    let text = problems.text(node, "path")?;
    let below = text.strip_prefix("/workspace/").unwrap_or(text);
    if is_artifact_path(below) {
        return Some(below.to_owned());
    }
    let hint = "relative to `/workspace`, `*` inside a segment, `**` as the last segment only, no `..`";
    problems.report(node.place, FileCode::BadPath, format!("{} cannot say what is kept", quote(text)), hint);
    None
}
