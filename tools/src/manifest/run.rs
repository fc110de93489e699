//! `spec.run`: which program it is, and whether its files are those that are pinned.

use toka_kernel::ids::Digest;
use toka_kernel::limits::{PROGRAM_FILES_MAX, REQUIRES_MAX};
use toka_kernel::tool::{RunKind, TOOLCHAINS, is_program_path, place};

use crate::code::{WasmFault, check_wasm};
use crate::files::yaml::{self, Node, Place};
use crate::files::{Fields, FileCode, Problems, Shape, quote, suggestion};
use crate::native::registry;
use crate::program::{ProgramFault, ProgramFile, ProgramSource, pin_text, program_digest, read_files};

/// What runs.
pub(super) enum Program {
    /// A built-in tool, by its name.
    Native(String),
    Foreign(Foreign),
}

#[derive(Default)]
pub(super) struct Foreign {
    pub(super) kind: u8,
    pub(super) path: String,
    pub(super) files: Vec<String>,
    pub(super) toolchain: Option<String>,
    pub(super) bytes: Vec<ProgramFile>,
}

/// The kind that stands there, if it is one that decides what else may; for the rest of a manifest whose program cannot be
/// read.
pub(super) fn kind_as_written(node: &Node) -> u8 {
    let yaml::Kind::Map(members) = &node.kind else { return 0 };
    let is_guest = members.iter().any(|member| {
        member.name == "kind" && matches!(&member.value.kind, yaml::Kind::Text(text) if text.value == "wasm")
    });
    if is_guest { RunKind::Wasm.number() } else { 0 }
}

#[derive(Clone, Copy)]
enum Kind {
    Native,
    Foreign(RunKind),
}

/// `name` is that of the manifest, which a built-in tool need not repeat.
pub(super) fn program(
    node: &Node,
    name: Option<&(String, Place)>,
    source: &dyn ProgramSource,
    problems: &mut Problems<'_>,
) -> Option<Program> {
    let known = &["kind", "path", "files", "toolchain", "native", "digest"];
    let fields = problems.fields(node, &Shape { what: "spec.run", known, later: &[], prefix: None })?;
    let words = [
        ("native", Kind::Native),
        ("python", Kind::Foreign(RunKind::Python)),
        ("shell", Kind::Foreign(RunKind::Shell)),
        ("executable", Kind::Foreign(RunKind::Executable)),
        ("wasm", Kind::Foreign(RunKind::Wasm)),
    ];
    let kind = fields.required("kind", "kind: python", problems)?;
    match problems.choice(kind, "spec.run.kind", &words, &["mcp"])? {
        Kind::Native => native(&fields, name, problems).map(Program::Native),
        Kind::Foreign(kind) => foreign(kind, &fields, source, problems).map(Program::Foreign),
    }
}

fn native(fields: &Fields<'_>, name: Option<&(String, Place)>, problems: &mut Problems<'_>) -> Option<String> {
    excluded(fields, &["path", "files", "toolchain", "digest"], "native", problems);
    let (name, place) = match fields.get("native") {
        Some(node) => (problems.name(node, "spec.run.native")?, node.place),
        None => name?.clone(),
    };
    let tools = registry();
    let names = tools.iter().map(|tool| tool.spec().name.as_str());
    if !names.clone().any(|known| known == name) {
        let message = format!("{} is no built-in tool", quote(&name));
        problems.report(place, FileCode::UnknownNative, message, suggestion(&name, names, "there are"));
        return None;
    }
    Some(name)
}

fn foreign(
    kind: RunKind,
    fields: &Fields<'_>,
    source: &dyn ProgramSource,
    problems: &mut Problems<'_>,
) -> Option<Foreign> {
    let meaningless: &[&str] = if kind == RunKind::Wasm { &["native", "files", "toolchain"] } else { &["native"] };
    excluded(fields, meaningless, kind.name(), problems);
    let named = fields.get("toolchain").filter(|_| kind != RunKind::Wasm);
    let toolchain = toolchain(kind, named, problems);
    let example = match kind {
        RunKind::Python => "path: main.py",
        RunKind::Shell => "path: main.sh",
        RunKind::Executable => "path: /usr/bin/wc",
        RunKind::Wasm => "path: main.wasm",
    };
    let path_node = fields.required("path", example, problems);
    let absolute = kind == RunKind::Executable;
    let path = path_node.and_then(|node| path_of(node, "spec.run.path", absolute, problems));
    let mut names: Vec<(String, Place)> = Vec::new();
    if let (Some(path), Some(node)) = (&path, path_node) {
        names.push((path.clone(), node.place));
    }
    let mut whole = path.is_some();
    let items = fields.get("files").map(|node| problems.list(node, "spec.run.files", PROGRAM_FILES_MAX));
    whole &= !matches!(items, Some(None));
    for item in items.flatten().unwrap_or_default() {
        let Some(file) = path_of(item, "spec.run.files", false, problems) else {
            whole = false;
            continue;
        };
        let placed = place(&file);
        let clash = |(name, _): &&(String, Place)| {
            let other = place(name);
            other == placed || other.starts_with(&format!("{placed}/")) || placed.starts_with(&format!("{other}/"))
        };
        if let Some((other, _)) = names.iter().find(clash) {
            let message = format!("{} and {} take the same place", quote(&file), quote(other));
            problems.report(item.place, FileCode::DuplicateName, message, "name each file once");
            whole = false;
        }
        names.push((file, item.place));
    }
    let bytes = read(&names, source, problems);
    if let (RunKind::Wasm, Some([main, ..]), Some(node)) = (kind, bytes.as_deref(), path_node) {
        check_module(&main.bytes, node, problems);
    }
    if let (true, Some(bytes)) = (whole, &bytes) {
        check_pin(fields.get("digest"), bytes, problems);
    }
    names.retain(|(name, _)| Some(name) != path.as_ref());
    Some(Foreign {
        kind: kind.number(),
        path: path?,
        files: names.into_iter().map(|(name, _)| name).collect(),
        toolchain: toolchain?,
        bytes: bytes?,
    })
}

/// Fields that mean nothing for this kind.
fn excluded(fields: &Fields<'_>, names: &[&str], kind: &str, problems: &mut Problems<'_>) {
    for name in names.iter().filter(|name| fields.get(name).is_some()) {
        let message = format!("`{name}` does not go with `kind: {kind}`");
        problems.report(fields.place_of(name), FileCode::Conflict, message, "leave it out, or choose another kind");
    }
}

/// The toolchain that starts a program of this kind; the outer `None` after an error.
fn toolchain(kind: RunKind, node: Option<&Node>, problems: &mut Problems<'_>) -> Option<Option<String>> {
    let starts = match kind {
        RunKind::Python => Some("python3"),
        RunKind::Shell => Some("sh"),
        RunKind::Executable | RunKind::Wasm => None,
    };
    let Some(node) = node else { return Some(starts.map(str::to_owned)) };
    let name = toolchain_name(node, "spec.run.toolchain", problems)?;
    if starts == Some(name.as_str()) {
        return Some(Some(name));
    }
    let message = format!("{} does not start a program of `kind: {kind}`", quote(&name));
    let hint = match starts {
        Some(starts) => format!("write `toolchain: {starts}`, or leave it out"),
        None => {
            "leave it out: an executable starts by itself; `requires` names toolchains that must be there".to_owned()
        }
    };
    problems.report(node.place, FileCode::UnknownToolchain, message, hint);
    None
}

/// Whether a file can be a module at all; the rest the worker says.
fn check_module(bytes: &[u8], node: &Node, problems: &mut Problems<'_>) {
    if let Err(fault) = check_wasm(bytes) {
        let code = match fault {
            WasmFault::TooLarge => FileCode::TooLarge,
            WasmFault::Text | WasmFault::NotModule => FileCode::Unsupported,
        };
        problems.report(node.place, code, format!("`spec.run.path`: {fault}"), fault.hint());
    }
}

fn toolchain_name(node: &Node, what: &str, problems: &mut Problems<'_>) -> Option<String> {
    let name = problems.text(node, what)?;
    if TOOLCHAINS.contains(&name) {
        return Some(name.to_owned());
    }
    let message = format!("{} is no toolchain", quote(name));
    problems.report(node.place, FileCode::UnknownToolchain, message, suggestion(name, TOOLCHAINS, "there are"));
    None
}

/// `spec.requires`: toolchains, sorted.
pub(super) fn requires(node: &Node, problems: &mut Problems<'_>) -> Vec<String> {
    let items = problems.list(node, "spec.requires", REQUIRES_MAX).unwrap_or_default();
    let mut names: Vec<String> =
        items.iter().filter_map(|item| toolchain_name(item, "spec.requires", problems)).collect();
    names.sort();
    names.dedup();
    names
}

fn path_of(node: &Node, what: &str, absolute: bool, problems: &mut Problems<'_>) -> Option<String> {
    let text = problems.text(node, what)?;
    let sound = match text.strip_prefix('/') {
        Some(below) => absolute && is_program_path(below),
        None => is_program_path(text),
    };
    if sound {
        return Some(text.to_owned());
    }
    let hint = match text {
        text if text.starts_with('/') && !absolute => {
            "only `kind: executable` takes an absolute path, and only in `path`"
        }
        text if text.split('/').any(|segment| segment == "..") => "no `..`: put the file beside or below the manifest",
        _ => "segments joined by `/`, none of them empty, `.` or `..`, at most 256 bytes",
    };
    let message = format!("{} in `{what}` cannot be the path of a program", quote(text));
    problems.report(node.place, FileCode::BadPath, message, hint);
    None
}

fn read(
    names: &[(String, Place)],
    source: &dyn ProgramSource,
    problems: &mut Problems<'_>,
) -> Option<Vec<ProgramFile>> {
    let paths: Vec<&String> = names.iter().map(|(name, _)| name).collect();
    let mut files = Vec::with_capacity(names.len());
    for ((name, at), read) in names.iter().zip(read_files(&paths, source)) {
        match read {
            Ok(file) => files.push(file),
            Err(fault) => {
                let (code, hint) = told(fault);
                problems.report(*at, code, format!("{}: {fault}", quote(name)), hint);
            }
        }
    }
    (files.len() == names.len()).then_some(files)
}

fn told(fault: ProgramFault) -> (FileCode, &'static str) {
    match fault {
        ProgramFault::NotFound => (FileCode::BadPath, "paths are relative to the manifest"),
        ProgramFault::Link => (FileCode::BadPath, "name the file itself: no link is followed"),
        ProgramFault::NotRegular => (FileCode::NotRegular, "name a file"),
        ProgramFault::TooLarge => (FileCode::TooLarge, "leave out what the program does not need"),
        ProgramFault::NoSystem => (FileCode::BadPath, "put the file beside the manifest"),
        ProgramFault::Unreadable => (FileCode::Unreadable, "make it readable for whoever runs this"),
    }
}

fn check_pin(node: Option<&Node>, files: &[ProgramFile], problems: &mut Problems<'_>) {
    let Some(node) = node else { return };
    let Some(text) = problems.text(node, "spec.run.digest") else { return };
    let found = program_digest(files);
    let pinned = text.strip_prefix("blake3:").and_then(Digest::from_hex);
    if pinned == Some(found) {
        return;
    }
    let message = match pinned {
        Some(_) => "the files are not those that `spec.run.digest` pins",
        None => "`spec.run.digest` is no digest",
    };
    let hint = format!("if the files are as they should be, write `digest: {}`", pin_text(&found));
    problems.report(node.place, FileCode::PinMismatch, message, hint);
}
