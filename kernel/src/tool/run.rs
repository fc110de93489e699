//! What a foreign program is: its files, how arguments reach it, what it gives back.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::sandbox::Sandbox;
use super::{Level, ParamSpec, ParamType, is_text};
use crate::denial::numbered;
use crate::facts::is_path;
use crate::limits::{
    ARGV_ITEMS_MAX, ARTIFACT_BYTES_MAX, ARTIFACT_FILES_MAX, ARTIFACTS_MAX, ENV_NAMES_MAX, PATH_BYTES_MAX,
    PROGRAM_FILES_MAX, REQUIRES_MAX, SCALAR_BYTES_MAX,
};

numbered! {
    /// How a foreign program is started.
    RunKind: u8 {
        /// A script, by the toolchain `python3`.
        Python = 1 "python",
        /// A script, by the toolchain `sh`.
        Shell = 2 "shell",
        /// By itself.
        Executable = 3 "executable",
        /// As a guest of the worker `toka-wasm`.
        Wasm = 4 "wasm",
    }
}

numbered! {
    /// What the standard output of a program is.
    ResultKind: u8 {
        /// Nothing that matters.
        None = 1 "none",
        /// Text: the result is a JSON string.
        Text = 2 "text",
        /// One JSON value.
        Json = 3 "json",
    }
}

/// The toolchains that a manifest can name. Whether a node has one is for the node to say.
pub const TOOLCHAINS: [&str; 6] = ["cargo", "git", "node", "python3", "rustc", "sh"];

/// A foreign program: present in a [`super::ToolSpec`] iff the tool is no part of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// The number of a [`RunKind`].
    pub kind: u8,
    /// The main file: relative to the manifest, or absolute for an executable of the machine.
    pub path: String,
    /// Files beside it, relative to the manifest, in the order in which they are pinned; at most 64.
    pub files: Vec<String>,
    /// The toolchain that starts it; one of [`TOOLCHAINS`].
    #[serde(rename = "tc")]
    pub toolchain: Option<String>,
    /// Toolchains that must be there as well, ascending; at most 16.
    #[serde(rename = "reqs")]
    pub requires: Vec<String>,
    /// How arguments reach it.
    pub pass: Pass,
    /// What it gives back.
    #[serde(rename = "outs")]
    pub outputs: Outputs,
    /// What confines it.
    #[serde(rename = "box")]
    pub sandbox: Sandbox,
}

/// How arguments reach a program. Each item gives whole entries; nothing is ever put together from parts but
/// `FLAG=VALUE`, and no shell reads any of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pass {
    /// The command line behind the program, at most 256 items.
    pub argv: Vec<ArgvItem>,
    /// Environment names, each with the parameter it holds.
    pub env: BTreeMap<String, String>,
    /// The standard input.
    #[serde(rename = "in")]
    pub stdin: Stdin,
}

/// One item of a command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum ArgvItem {
    /// This text.
    #[serde(rename = "const")]
    Const(String),
    /// The value of a parameter, in its place.
    #[serde(rename = "param")]
    Param(String),
    /// A text that is there iff a boolean parameter is true.
    #[serde(rename = "when")]
    FlagWhen {
        /// The text.
        flag: String,
        /// The boolean parameter.
        when: String,
    },
    /// A text and the value of a parameter, both or neither.
    #[serde(rename = "flag")]
    FlagParam {
        /// The text.
        flag: String,
        /// The parameter.
        param: String,
        /// Whether they are one entry, `FLAG=VALUE`, and not two.
        join: bool,
    },
    /// Every element of an array parameter, an entry each.
    #[serde(rename = "rest")]
    Rest(String),
}

/// The standard input of a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Stdin {
    /// Nothing.
    #[serde(rename = "none")]
    None,
    /// All arguments, as one JSON object with its names in order.
    #[serde(rename = "json")]
    Json,
    /// The bytes of one parameter.
    #[serde(rename = "param")]
    Param(String),
}

/// What a program gives back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outputs {
    /// The number of a [`ResultKind`].
    #[serde(rename = "res")]
    pub result: u8,
    /// Files to keep, at most 32, in the order of the manifest, no name twice.
    #[serde(rename = "arts")]
    pub artifacts: Vec<Artifact>,
}

/// Files of the workspace to keep after a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// `[a-z][a-z0-9_]{0,31}`.
    pub name: String,
    /// Relative to the workspace; a segment may hold `*`, the last one may be `**`.
    pub path: String,
    /// The most bytes of them together, at most 256 MiB.
    #[serde(rename = "mbyt")]
    pub max_bytes: u64,
    /// The most files, at most 1,000.
    #[serde(rename = "mfil")]
    pub max_files: u32,
    /// Whether a call without any is no success.
    #[serde(rename = "req")]
    pub required: bool,
}

impl Run {
    /// The most bytes a call can give back: both streams as they are kept, the result, and the artifacts, each in
    /// whole grains. A declared reserve is at least this.
    pub fn bytes_out_max(&self) -> u64 {
        let limits = &self.sandbox.limits;
        let result = if self.outputs.result == ResultKind::None.number() { 0 } else { limits.stdout_bytes };
        let parts = [limits.stdout_bytes, limits.stderr_bytes, result];
        // A file of an artifact is a blob of its own and ends in a grain of its own.
        let artifacts = self.outputs.artifacts.iter().map(|kept| kept.max_bytes + 256 * u64::from(kept.max_files));
        parts.into_iter().chain(artifacts).map(|bytes| bytes.next_multiple_of(256)).sum()
    }

    /// The first part that is outside its bounds or form, if any.
    pub(super) fn fault(&self, level: u8, params: &[ParamSpec]) -> Option<&'static str> {
        let confined = [Level::Landlock, Level::Strong].into_iter().find(|known| known.number() == level);
        let rules = [
            (confined.is_some(), "level"),
            (self.program_is_sound(), "run"),
            (self.toolchains_are_known(), "toolchain"),
            (self.pass.is_sound(params), "pass"),
            (self.outputs.is_sound(), "outputs"),
            (confined.is_some_and(|level| self.sandbox.is_sound(level)), "sandbox"),
            (self.guest_is_sound(level), "wasm"),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map(|(_, field)| field)
    }

    fn program_is_sound(&self) -> bool {
        let absolute = self.path.strip_prefix('/').is_some_and(is_program_path);
        let main = match RunKind::from_number(self.kind) {
            Some(RunKind::Python | RunKind::Shell | RunKind::Wasm) => is_program_path(&self.path),
            Some(RunKind::Executable) => is_program_path(&self.path) || absolute,
            None => false,
        };
        let placed: BTreeSet<String> = self.files.iter().chain([&self.path]).map(|name| place(name)).collect();
        let inside = |name: &String| name.match_indices('/').skip(2).any(|(at, _)| placed.contains(&name[..at]));
        let distinct = placed.len() == self.files.len() + 1 && !placed.iter().any(inside);
        main && distinct && self.files.len() <= PROGRAM_FILES_MAX && self.files.iter().all(|file| is_program_path(file))
    }

    /// A guest has limits of its own, and nothing that only a process has a use for.
    fn guest_is_sound(&self, level: u8) -> bool {
        if RunKind::from_number(self.kind) != Some(RunKind::Wasm) {
            return self.sandbox.wasm.is_none();
        }
        let plain =
            Sandbox { limits: self.sandbox.limits.clone(), wasm: self.sandbox.wasm.clone(), ..Sandbox::default() };
        level == Level::Strong.number()
            && self.sandbox.wasm.is_some()
            && self.sandbox == plain
            && self.files.is_empty()
            && self.pass.env.is_empty()
            && self.outputs.artifacts.is_empty()
    }

    fn toolchains_are_known(&self) -> bool {
        let starts = match RunKind::from_number(self.kind) {
            Some(RunKind::Python) => Some("python3"),
            Some(RunKind::Shell) => Some("sh"),
            Some(RunKind::Executable | RunKind::Wasm) | None => None,
        };
        let ascending = self.requires.windows(2).all(|pair| pair[0] < pair[1]);
        let known = self.requires.iter().all(|name| TOOLCHAINS.contains(&name.as_str()));
        self.toolchain.as_deref() == starts && ascending && known && self.requires.len() <= REQUIRES_MAX
    }
}

impl Pass {
    fn is_sound(&self, params: &[ParamSpec]) -> bool {
        let kind = |name: &String| {
            let param = params.iter().find(|param| param.name == *name);
            param.and_then(|param| ParamType::from_number(param.kind))
        };
        let single = |name: &String| kind(name).is_some_and(|kind| kind != ParamType::Array);
        let items = self.argv.iter().all(|item| match item {
            ArgvItem::Const(text) => is_argv_text(text),
            ArgvItem::Param(param) => single(param),
            ArgvItem::FlagWhen { flag, when } => is_flag(flag) && kind(when) == Some(ParamType::Boolean),
            ArgvItem::FlagParam { flag, param, join } => {
                is_flag(flag) && single(param) && (!join || flag.starts_with("--"))
            }
            ArgvItem::Rest(param) => kind(param) == Some(ParamType::Array),
        });
        let env = self.env.iter().all(|(name, param)| may_set(name) && single(param));
        let stdin = match &self.stdin {
            Stdin::None | Stdin::Json => true,
            Stdin::Param(param) => single(param),
        };
        items && env && stdin && self.argv.len() <= ARGV_ITEMS_MAX && self.env.len() <= ENV_NAMES_MAX
    }
}

impl Outputs {
    fn is_sound(&self) -> bool {
        let names: BTreeSet<&String> = self.artifacts.iter().map(|artifact| &artifact.name).collect();
        let sound = |artifact: &Artifact| {
            super::is_param_name(&artifact.name)
                && is_artifact_path(&artifact.path)
                && (1..=ARTIFACT_BYTES_MAX).contains(&artifact.max_bytes)
                && (1..=ARTIFACT_FILES_MAX).contains(&artifact.max_files)
        };
        ResultKind::from_number(self.result).is_some()
            && self.artifacts.len() <= ARTIFACTS_MAX
            && names.len() == self.artifacts.len()
            && self.artifacts.iter().all(sound)
    }
}

/// Where a file of a program lies when it runs: `/tool/` and its path, or its last segment if that is absolute.
pub fn place(name: &str) -> String {
    let below = if name.starts_with('/') { name.rsplit('/').next().unwrap_or_default() } else { name };
    format!("/tool/{below}")
}

/// Whether a text can name a file of a program: relative, in the path grammar, at most 256 bytes.
pub fn is_program_path(text: &str) -> bool {
    !text.is_empty() && text.len() <= SCALAR_BYTES_MAX && is_path(&format!("r:{text}"))
}

/// Whether a text can say which files are kept: relative, in the path grammar, `**` as the last segment only.
pub fn is_artifact_path(text: &str) -> bool {
    let (all, last) = text.rsplit_once('/').map_or(("", text), |(above, last)| (above, last));
    let deep = last == "**";
    let plain = if deep { all } else { text };
    text.len() <= PATH_BYTES_MAX
        && (deep && plain.is_empty() || (!plain.is_empty() && is_path(&format!("r:{plain}"))))
        && !plain.split('/').any(|segment| segment.contains("**"))
}

/// Whether a text can be a constant entry of a command line: 1 to 256 bytes without control characters.
pub fn is_argv_text(text: &str) -> bool {
    text.len() <= SCALAR_BYTES_MAX && is_text(text, 1, SCALAR_BYTES_MAX)
}

/// Whether a text can be a flag: as above, beginning with `-`, not `-` or `--` alone and without `=`.
pub fn is_flag(text: &str) -> bool {
    is_argv_text(text) && text.starts_with('-') && !matches!(text, "-" | "--") && !text.contains('=')
}

/// Whether an environment name has the form `[A-Z][A-Z0-9_]*` and at most 64 bytes.
pub fn is_env_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|first: char| first.is_ascii_uppercase())
        && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

/// What every call gets; none of it can be set otherwise.
pub const FIXED_ENV: [(&str, &str); 7] = [
    ("HOME", "/workspace"),
    ("LANG", "C.UTF-8"),
    ("PATH", "/usr/bin:/bin"),
    ("PYTHONDONTWRITEBYTECODE", "1"),
    ("PYTHONHASHSEED", "0"),
    ("TMPDIR", "/tmp"),
    ("TZ", "UTC"),
];

/// Names that would change which code a program loads or runs; `*` stands for any end.
const REFUSED_ENV: [&str; 15] = [
    "LD_*",
    "DYLD_*",
    "GCONV_PATH",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "PYTHONHOME",
    "PYTHONSAFEPATH",
    "NODE_OPTIONS",
    "BASH_ENV",
    "ENV",
    "IFS",
    "PERL5*",
    "RUBY*",
    "GIT_*",
    "TOKA_*",
];

/// Whether a tool may set an environment name: its form, none of [`FIXED_ENV`], and none that is refused.
pub fn may_set(name: &str) -> bool {
    let refused = REFUSED_ENV.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == *pattern,
    });
    is_env_name(name) && !refused && !FIXED_ENV.iter().any(|(fixed, _)| *fixed == name)
}
