//! `spec.sandbox`: what confines the program.

use std::collections::BTreeMap;

use toka_kernel::facts::is_path_segment;
use toka_kernel::limits::{ENV_NAMES_MAX, ENV_VALUE_CHARS_MAX, MASKS_MAX, SECRETS_MAX};
use toka_kernel::tool::{
    Bound, Level, Net, RunLimits, Sandbox, Secret, WasmLimits, WorkspaceKind, bounds, is_cwd, is_env_name,
    is_param_name, may_set,
};

use crate::files::quantity::{Duration, Size};
use crate::files::yaml::{Kind, Node, Place};
use crate::files::{Fields, FileCode, Problems, Shape, clean, quote};

/// The sandbox and the least level; what is wrong has its default, and an error.
///
/// A guest has no process, files or environment of its own, so what is about those is refused; what is about a guest is
/// refused for everything else.
pub(super) fn sandbox(node: Option<&Node>, is_guest: bool, problems: &mut Problems<'_>) -> (Sandbox, Option<Level>) {
    let mut sandbox = Sandbox { wasm: is_guest.then(WasmLimits::default), ..Sandbox::default() };
    let known = &["level", "fs", "workspace", "cwd", "net", "env", "limits", "seccomp", "secrets", "wasm"];
    let shape = Shape { what: "spec.sandbox", known, later: &[], prefix: None };
    let Some(fields) = node.and_then(|node| problems.fields(node, &shape)) else { return (sandbox, None) };
    let words = [("strong", Level::Strong), ("landlock", Level::Landlock)];
    let level = fields.get("level").and_then(|node| problems.choice(node, "spec.sandbox.level", &words, &["none"]));
    let meaningless: &[&str] = if is_guest { &GUEST_HAS_NO } else { &["wasm"] };
    for name in meaningless.iter().filter(|name| fields.get(name).is_some()) {
        let which = if is_guest { "does not go" } else { "goes only" };
        let message = format!("`spec.sandbox.{name}` {which} with `kind: wasm`");
        problems.report(fields.place_of(name), FileCode::Conflict, message, "leave it out, or choose another kind");
    }
    if is_guest {
        if level == Some(Level::Landlock) {
            let message = "a guest runs at `level: strong` only";
            problems.report(fields.place_of("level"), FileCode::BadSandbox, message, "write `level: strong`");
        }
        if let (Some(node), Some(wasm)) = (fields.get("wasm"), &mut sandbox.wasm) {
            guest(node, wasm, problems);
        }
        if let Some(node) = fields.get("limits") {
            limits(node, &mut sandbox.limits, problems);
        }
        return (sandbox, level);
    }
    if let Some(node) = fields.get("fs") {
        fs(node, &mut sandbox, problems);
        if level == Some(Level::Landlock) && sandbox.shm_bytes > 0 {
            let message = "`spec.sandbox.fs.shm_bytes` at `level: landlock` would be the memory of the machine";
            problems.report(node.place, FileCode::BadSandbox, message, "write `level: strong`, or leave it out");
        }
    }
    if let Some(node) = fields.get("workspace") {
        workspace(node, &mut sandbox, problems);
    }
    if let Some(node) = fields.get("cwd")
        && let Some(text) = problems.text(node, "spec.sandbox.cwd")
    {
        if is_cwd(text) {
            text.clone_into(&mut sandbox.cwd);
        } else {
            let message = format!("`spec.sandbox.cwd` is {}", quote(text));
            problems.report(node.place, FileCode::BadSandbox, message, "write `/workspace`, or a folder below it");
        }
    }
    if let Some(node) = fields.get("net") {
        net(node, level, &mut sandbox, problems);
    }
    if let Some(node) = fields.get("env") {
        sandbox.env = env(node, problems);
    }
    if let Some(node) = fields.get("limits") {
        limits(node, &mut sandbox.limits, problems);
    }
    if let Some(node) = fields.get("secrets") {
        sandbox.secrets = secrets(node, level, problems);
    }
    if let Some(node) = fields.get("seccomp")
        && let Some(text) = problems.text(node, "spec.sandbox.seccomp")
        && text != "default"
    {
        let message = format!("`spec.sandbox.seccomp` is {}", quote(text));
        problems.report(node.place, FileCode::Unsupported, message, "write `default`, or leave it out");
    }
    (sandbox, level)
}

fn fs(node: &Node, sandbox: &mut Sandbox, problems: &mut Problems<'_>) {
    let known = &["deny_within", "tmp_bytes", "tmp_inodes", "shm_bytes"];
    let granted = &["read", "write", "exec"];
    let all: Vec<&str> = known.iter().chain(granted).copied().collect();
    let Some(fields) = problems.fields(node, &Shape { what: "spec.sandbox.fs", known: &all, later: &[], prefix: None })
    else {
        return;
    };
    for name in granted.iter().filter(|name| fields.get(name).is_some()) {
        let message = format!("`{name}` in `spec.sandbox.fs`: which files a call sees follows from its needs");
        let hint = "say it in `needs`, or as `access` of a path parameter";
        problems.report(fields.place_of(name), FileCode::Unsupported, message, hint);
    }
    if let Some(node) = fields.get("deny_within") {
        sandbox.deny_within = masks(node, problems);
    }
    let mut numbers = Numbers { fields: &fields, what: "spec.sandbox.fs", problems };
    numbers.size("tmp_bytes", bounds::TMP_BYTES, &mut sandbox.tmp_bytes);
    numbers.count("tmp_inodes", bounds::TMP_INODES, &mut sandbox.tmp_inodes);
    numbers.size("shm_bytes", bounds::SHM_BYTES, &mut sandbox.shm_bytes);
}

fn masks(node: &Node, problems: &mut Problems<'_>) -> Vec<String> {
    let mut masks = Vec::new();
    for item in problems.list(node, "spec.sandbox.fs.deny_within", MASKS_MAX).unwrap_or_default() {
        let Some(name) = problems.text(item, "spec.sandbox.fs.deny_within") else { continue };
        if is_path_segment(name) {
            masks.push(name.to_owned());
        } else {
            let message = format!("{} in `spec.sandbox.fs.deny_within`", quote(name));
            problems.report(item.place, FileCode::BadSandbox, message, "write the name of a file or folder, no path");
        }
    }
    masks.sort();
    masks.dedup();
    masks
}

fn workspace(node: &Node, sandbox: &mut Sandbox, problems: &mut Problems<'_>) {
    let what = "spec.sandbox.workspace";
    let shape = Shape { what, known: &["kind", "bytes", "inodes"], later: &[], prefix: None };
    let Some(fields) = problems.fields(node, &shape) else { return };
    let words = [("memory", WorkspaceKind::Memory), ("disk", WorkspaceKind::Disk)];
    if let Some(node) = fields.get("kind")
        && let Some(kind) = problems.choice(node, "spec.sandbox.workspace.kind", &words, &[])
    {
        sandbox.workspace_kind = kind.number();
    }
    let mut numbers = Numbers { fields: &fields, what, problems };
    numbers.size("bytes", bounds::WORKSPACE_BYTES, &mut sandbox.workspace_bytes);
    numbers.count("inodes", bounds::WORKSPACE_INODES, &mut sandbox.workspace_inodes);
}

fn net(node: &Node, level: Option<Level>, sandbox: &mut Sandbox, problems: &mut Problems<'_>) {
    if let Kind::Map(members) = &node.kind
        && members.iter().any(|member| member.name == "proxy")
    {
        let message = "`proxy` for `spec.sandbox.net` is known and not built yet";
        problems.report(node.place, FileCode::Unsupported, message, "write `none` or `loopback`");
        return;
    }
    let words = [("none", Net::None), ("loopback", Net::Loopback)];
    let Some(net) = problems.choice(node, "spec.sandbox.net", &words, &["proxy"]) else { return };
    if net == Net::Loopback && level == Some(Level::Landlock) {
        let message = "`spec.sandbox.net: loopback` at `level: landlock` would be the network of the machine";
        problems.report(node.place, FileCode::BadSandbox, message, "write `level: strong`, or `net: none`");
        return;
    }
    sandbox.net = net.number();
}

fn env(node: &Node, problems: &mut Problems<'_>) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    let Some(members) = problems.map(node, "spec.sandbox.env") else { return env };
    if members.len() > ENV_NAMES_MAX {
        let message = format!("`spec.sandbox.env` has {} names", members.len());
        problems.report(node.place, FileCode::TooMany, message, format!("at most {ENV_NAMES_MAX} are allowed"));
    }
    for member in members {
        if member.name == "inherit" {
            let message = "`inherit` in `spec.sandbox.env` is known and not built yet";
            problems.report(member.place, FileCode::Unsupported, message, "write the names and values themselves");
            continue;
        }
        let fine = env_name(member.place, &member.name, problems);
        let what = format!("spec.sandbox.env.{}", clean(&member.name, 60));
        if let Some(value) = problems.plain_text(&member.value, &what, ENV_VALUE_CHARS_MAX, false)
            && fine
        {
            env.insert(member.name.clone(), value);
        }
    }
    env
}

fn secrets(node: &Node, level: Option<Level>, problems: &mut Problems<'_>) -> Vec<Secret> {
    let what = "spec.sandbox.secrets";
    let items = problems.list(node, what, SECRETS_MAX).unwrap_or_default();
    if level == Some(Level::Landlock) && !items.is_empty() {
        let message = "`spec.sandbox.secrets` at `level: landlock` would lie on a disk of the machine";
        problems.report(node.place, FileCode::BadSandbox, message, "write `level: strong`");
        return Vec::new();
    }
    let mut secrets: Vec<Secret> = Vec::new();
    for item in items {
        let Some(secret) = secret(item, problems) else { continue };
        if secrets.iter().any(|known| known.name == secret.name) {
            let message = format!("the secret {} stands here a second time", quote(&secret.name));
            problems.report(item.place, FileCode::DuplicateName, message, "choose another name");
            continue;
        }
        secrets.push(secret);
    }
    secrets.sort_by(|a, b| a.name.cmp(&b.name));
    secrets
}

fn secret(node: &Node, problems: &mut Problems<'_>) -> Option<Secret> {
    let what = "spec.sandbox.secrets";
    let fields =
        problems.fields(node, &Shape { what, known: &["name", "handle", "delivery"], later: &[], prefix: None })?;
    let mut named = |field: &str, example: &str, is_right: &dyn Fn(&str) -> bool, hint: &str| {
        let node = fields.required(field, example, problems)?;
        let text = problems.text(node, field)?;
        if is_right(text) {
            return Some(text.to_owned());
        }
        let message = format!("{} is no {field} of a secret", quote(text));
        problems.report(node.place, FileCode::BadName, message, hint);
        None
    };
    let name = named("name", "name: token", &is_param_name, "a letter a-z, then at most 31 of a-z 0-9 _");
    let hint = "parts of a-z 0-9 _ - joined by `.`; what it is, secrets.json of the node says";
    let handle = named("handle", "handle: github.token", &Secret::is_handle, hint);
    if let Some(node) = fields.get("delivery") {
        problems.choice(node, "delivery", &[("file", ())], &["fd", "env"])?;
    }
    Some(Secret { name: name?, handle: handle? })
}

/// Whether a tool may set this name; reports when it may not.
pub(super) fn env_name(place: Place, name: &str, problems: &mut Problems<'_>) -> bool {
    if may_set(name) {
        return true;
    }
    let (message, hint) = if is_env_name(name) {
        let hint = "it is fixed, or would change which code runs: choose another name";
        (format!("the environment name {} cannot be set", quote(name)), hint)
    } else {
        (format!("{} is no environment name", quote(name)), "A-Z, then A-Z 0-9 _, at most 64")
    };
    problems.report(place, FileCode::BadSandbox, message, hint);
    false
}

fn limits(node: &Node, limits: &mut RunLimits, problems: &mut Problems<'_>) {
    let known = &[
        "wall",
        "cpu",
        "cpu_percent",
        "memory_bytes",
        "as_bytes",
        "pids",
        "open_files",
        "file_size",
        "stdout_bytes",
        "stderr_bytes",
        "output_total_bytes",
        "grace",
    ];
    let what = "spec.sandbox.limits";
    let Some(fields) = problems.fields(node, &Shape { what, known, later: &[], prefix: None }) else { return };
    let mut numbers = Numbers { fields: &fields, what, problems };
    numbers.time("wall", bounds::WALL_US, &mut limits.wall_us);
    numbers.time("cpu", bounds::CPU_US, &mut limits.cpu_us);
    numbers.count("cpu_percent", bounds::CPU_PERCENT, &mut limits.cpu_percent);
    numbers.size("memory_bytes", bounds::MEMORY_BYTES, &mut limits.memory_bytes);
    numbers.size("as_bytes", bounds::AS_BYTES, &mut limits.as_bytes);
    numbers.count("pids", bounds::PIDS, &mut limits.pids);
    numbers.count("open_files", bounds::OPEN_FILES, &mut limits.open_files);
    numbers.size("file_size", bounds::FILE_SIZE, &mut limits.file_size);
    numbers.size("stdout_bytes", bounds::STDOUT_BYTES, &mut limits.stdout_bytes);
    numbers.size("stderr_bytes", bounds::STDERR_BYTES, &mut limits.stderr_bytes);
    numbers.size("output_total_bytes", bounds::OUTPUT_TOTAL_BYTES, &mut limits.output_total_bytes);
    numbers.time("grace", bounds::GRACE_US, &mut limits.grace_us);
}

/// What a guest has none of.
const GUEST_HAS_NO: [&str; 7] = ["fs", "workspace", "cwd", "net", "env", "seccomp", "secrets"];

fn guest(node: &Node, wasm: &mut WasmLimits, problems: &mut Problems<'_>) {
    let what = "spec.sandbox.wasm";
    let known = &["fuel", "stack_bytes", "table_elements", "clock_step_us"];
    let Some(fields) = problems.fields(node, &Shape { what, known, later: &[], prefix: None }) else { return };
    let mut numbers = Numbers { fields: &fields, what, problems };
    numbers.count("fuel", bounds::FUEL, &mut wasm.fuel);
    numbers.size("stack_bytes", bounds::STACK_BYTES, &mut wasm.stack_bytes);
    numbers.count("table_elements", bounds::TABLE_ELEMENTS, &mut wasm.table_elements);
    numbers.count("clock_step_us", bounds::CLOCK_STEP_US, &mut wasm.clock_step_us);
}

/// The numbers of one mapping, each with its bound.
struct Numbers<'r, 'n, 's> {
    fields: &'r Fields<'n>,
    what: &'r str,
    problems: &'r mut Problems<'s>,
}

impl Numbers<'_, '_, '_> {
    fn time(&mut self, name: &str, bound: Bound, into: &mut u64) {
        let read = |problems: &mut Problems<'_>, node: &Node, what: &str| problems.duration(node, what, 0..=u64::MAX);
        self.number(name, bound, into, &read, &|amount| Duration(amount).to_string());
    }

    fn size(&mut self, name: &str, bound: Bound, into: &mut u64) {
        let read = |problems: &mut Problems<'_>, node: &Node, what: &str| problems.size(node, what, 0..=u64::MAX);
        self.number(name, bound, into, &read, &|amount| Size(amount).to_string());
    }

    fn count(&mut self, name: &str, bound: Bound, into: &mut u64) {
        let most = i64::MAX.unsigned_abs();
        let read = |problems: &mut Problems<'_>, node: &Node, what: &str| problems.whole(node, what, 0..=most);
        self.number(name, bound, into, &read, &|amount| amount.to_string());
    }

    fn number(
        &mut self,
        name: &str,
        bound: Bound,
        into: &mut u64,
        read: &dyn Fn(&mut Problems<'_>, &Node, &str) -> Option<u64>,
        shown: &dyn Fn(u64) -> String,
    ) {
        let Some(node) = self.fields.get(name) else { return };
        let what = format!("{}.{name}", self.what);
        let range = || format!("from {} to {}", shown(bound.min), shown(bound.max));
        if let Kind::Int(number @ ..=0) = node.kind
            && bound.min > 0
        {
            let message = format!("`{what}` is {number}, which would let nothing run");
            self.problems.report(node.place, FileCode::BadSandbox, message, range());
            return;
        }
        match read(self.problems, node, &what) {
            None => {}
            Some(0) if bound.min > 0 => {
                let message = format!("`{what}` is nothing, which would let nothing run");
                self.problems.report(node.place, FileCode::BadSandbox, message, range());
            }
            Some(number) if (bound.min..=bound.max).contains(&number) => *into = number,
            Some(number) => {
                let message = format!("`{what}` is {}", shown(number));
                self.problems.report(node.place, FileCode::OutOfRange, message, range());
            }
        }
    }
}
