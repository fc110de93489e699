//! What confines a foreign program: integers, with the bounds of each in one table.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::run::may_set;
use super::{Level, is_param_name, is_text};
use crate::denial::numbered;
use crate::facts::{is_path, is_path_segment};
use crate::limits::{ENV_NAMES_MAX, ENV_VALUE_CHARS_MAX, MASKS_MAX, SECRETS_MAX};

numbered! {
    /// Where the workspace of a call lies.
    WorkspaceKind: u8 {
        /// In memory, gone with the call.
        Memory = 1 "memory",
        /// On a disk, removed after the call.
        Disk = 2 "disk",
    }
}

numbered! {
    /// What network a call has.
    Net: u8 {
        /// None.
        None = 1 "none",
        /// A loopback device of its own.
        Loopback = 2 "loopback",
    }
}

/// What confines a foreign program beside its level. Which files it sees follows from its needs, call by call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sandbox {
    /// Names that are masked inside granted directories, ascending; at most 64.
    #[serde(rename = "deny")]
    pub deny_within: Vec<String>,
    /// Bytes of `/tmp`.
    #[serde(rename = "tmpb")]
    pub tmp_bytes: u64,
    /// Files and directories of `/tmp`.
    #[serde(rename = "tmpi")]
    pub tmp_inodes: u64,
    /// Bytes of `/dev/shm`; 0 for none.
    #[serde(rename = "shmb")]
    pub shm_bytes: u64,
    /// The number of a [`WorkspaceKind`].
    #[serde(rename = "wsk")]
    pub workspace_kind: u8,
    /// Bytes of the workspace.
    #[serde(rename = "wsb")]
    pub workspace_bytes: u64,
    /// Files and directories of the workspace.
    #[serde(rename = "wsi")]
    pub workspace_inodes: u64,
    /// Where the program starts: `/workspace` or below.
    pub cwd: String,
    /// The number of a [`Net`].
    pub net: u8,
    /// Environment names and values, at most 64.
    pub env: BTreeMap<String, String>,
    /// The limits.
    #[serde(rename = "lim")]
    pub limits: RunLimits,
    /// Values that the program finds in files, ascending by name, at most 16; not written when there are none.
    #[serde(rename = "secs", default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<Secret>,
    /// The limits of a guest; not written for any other program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wasm: Option<WasmLimits>,
}

/// The limits of one call of a guest beside those of [`RunLimits`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WasmLimits {
    /// Fuel: an instruction takes about one.
    pub fuel: u64,
    /// Bytes of its stack.
    #[serde(rename = "stk")]
    pub stack_bytes: u64,
    /// Elements of each of its tables.
    #[serde(rename = "tabl")]
    pub table_elements: u64,
    /// How far each reading moves its clock, in µs.
    #[serde(rename = "step")]
    pub clock_step_us: u64,
}

/// A value that the node keeps and a program is handed in a file. The value itself is in no spec and in no log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secret {
    /// The name of its file, `[a-z][a-z0-9_]{0,31}`.
    pub name: String,
    /// What the node calls it, in the grammar of tool names.
    #[serde(rename = "hdl")]
    pub handle: String,
}

impl Secret {
    /// Whether a text can name what a node keeps.
    pub fn is_handle(text: &str) -> bool {
        super::is_name(text)
    }

    /// Where the program finds its value.
    pub fn place(&self) -> String {
        format!("/run/secrets/{}", self.name)
    }
}

/// The limits of one call of a foreign program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunLimits {
    /// Time on the wall, in µs.
    pub wall_us: u64,
    /// Time on processors, in µs.
    pub cpu_us: u64,
    /// Share of one core, in percent.
    #[serde(rename = "cpu_pc")]
    pub cpu_percent: u64,
    /// Memory of all processes together.
    #[serde(rename = "mem")]
    pub memory_bytes: u64,
    /// Address space of each process.
    #[serde(rename = "as")]
    pub as_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Open files of each process.
    #[serde(rename = "nofile")]
    pub open_files: u64,
    /// Bytes of a file.
    #[serde(rename = "fsize")]
    pub file_size: u64,
    /// Bytes of standard output that are kept.
    #[serde(rename = "outb")]
    pub stdout_bytes: u64,
    /// Bytes of standard error that are kept.
    #[serde(rename = "errb")]
    pub stderr_bytes: u64,
    /// Bytes of both streams after which the call is ended.
    #[serde(rename = "allb")]
    pub output_total_bytes: u64,
    /// Time between the request to end and the end, in µs.
    #[serde(rename = "grace")]
    pub grace_us: u64,
}

/// What one number of a sandbox may be, and what it is when a manifest does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// When nothing is said.
    pub default: u64,
    /// The least.
    pub min: u64,
    /// The most. A node may allow less.
    pub max: u64,
}

const fn bound(default: u64, min: u64, max: u64) -> Bound {
    Bound { default, min, max }
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const SECOND: u64 = 1_000_000;

/// The bounds of the numbers of a [`Sandbox`] and of [`RunLimits`], by the names of their fields.
#[expect(missing_docs, reason = "each is the bound of the field of the same name")]
pub mod bounds {
    use super::{Bound, GIB, MIB, SECOND, bound};

    pub const TMP_BYTES: Bound = bound(64 * MIB, 1, GIB);
    pub const TMP_INODES: Bound = bound(4_096, 1, 65_536);
    pub const SHM_BYTES: Bound = bound(0, 0, GIB);
    pub const WORKSPACE_BYTES: Bound = bound(64 * MIB, 1, 4 * GIB);
    pub const WORKSPACE_INODES: Bound = bound(4_096, 1, 1_000_000);
    pub const WALL_US: Bound = bound(30 * SECOND, 1, 3_600 * SECOND);
    pub const CPU_US: Bound = bound(20 * SECOND, 1, 3_600 * SECOND);
    pub const CPU_PERCENT: Bound = bound(100, 1, 6_400);
    pub const MEMORY_BYTES: Bound = bound(512 * MIB, 1, 16 * GIB);
    pub const AS_BYTES: Bound = bound(4 * GIB, 1, 1_024 * GIB);
    pub const PIDS: Bound = bound(64, 1, 1_024);
    pub const OPEN_FILES: Bound = bound(256, 8, 4_096);
    pub const FILE_SIZE: Bound = bound(64 * MIB, 1, 4 * GIB);
    pub const STDOUT_BYTES: Bound = bound(MIB, 1, 16 * MIB);
    pub const STDERR_BYTES: Bound = bound(MIB, 1, 16 * MIB);
    pub const OUTPUT_TOTAL_BYTES: Bound = bound(64 * MIB, 1, 1_024 * MIB);
    pub const GRACE_US: Bound = bound(SECOND / 2, 0, 10 * SECOND);
    pub const FUEL: Bound = bound(10_000_000_000, 1, 1_000_000_000_000);
    pub const STACK_BYTES: Bound = bound(MIB, 64 << 10, 2 * MIB);
    pub const TABLE_ELEMENTS: Bound = bound(20_000, 0, 1_000_000);
    pub const CLOCK_STEP_US: Bound = bound(1_000, 0, SECOND);
}

impl Default for RunLimits {
    fn default() -> RunLimits {
        RunLimits {
            wall_us: bounds::WALL_US.default,
            cpu_us: bounds::CPU_US.default,
            cpu_percent: bounds::CPU_PERCENT.default,
            memory_bytes: bounds::MEMORY_BYTES.default,
            as_bytes: bounds::AS_BYTES.default,
            pids: bounds::PIDS.default,
            open_files: bounds::OPEN_FILES.default,
            file_size: bounds::FILE_SIZE.default,
            stdout_bytes: bounds::STDOUT_BYTES.default,
            stderr_bytes: bounds::STDERR_BYTES.default,
            output_total_bytes: bounds::OUTPUT_TOTAL_BYTES.default,
            grace_us: bounds::GRACE_US.default,
        }
    }
}

impl Default for WasmLimits {
    fn default() -> WasmLimits {
        WasmLimits {
            fuel: bounds::FUEL.default,
            stack_bytes: bounds::STACK_BYTES.default,
            table_elements: bounds::TABLE_ELEMENTS.default,
            clock_step_us: bounds::CLOCK_STEP_US.default,
        }
    }
}

impl Default for Sandbox {
    fn default() -> Sandbox {
        Sandbox {
            deny_within: [".env", ".git", ".ssh", ".toka"].map(str::to_owned).into(),
            tmp_bytes: bounds::TMP_BYTES.default,
            tmp_inodes: bounds::TMP_INODES.default,
            shm_bytes: bounds::SHM_BYTES.default,
            workspace_kind: WorkspaceKind::Memory.number(),
            workspace_bytes: bounds::WORKSPACE_BYTES.default,
            workspace_inodes: bounds::WORKSPACE_INODES.default,
            cwd: "/workspace".to_owned(),
            net: Net::None.number(),
            env: BTreeMap::new(),
            limits: RunLimits::default(),
            secrets: Vec::new(),
            wasm: None,
        }
    }
}

impl Sandbox {
    pub(super) fn is_sound(&self, level: Level) -> bool {
        let masks = self.deny_within.iter().all(|name| is_path_segment(name))
            && self.deny_within.windows(2).all(|pair| pair[0] < pair[1])
            && self.deny_within.len() <= MASKS_MAX;
        // Landlock holds connections by port only, so a network below `strong` would be that of the machine.
        let net = match Net::from_number(self.net) {
            Some(Net::None) => true,
            Some(Net::Loopback) => level == Level::Strong,
            None => false,
        };
        let env = self.env.len() <= ENV_NAMES_MAX
            && self.env.iter().all(|(name, value)| may_set(name) && is_text(value, 0, ENV_VALUE_CHARS_MAX));
        let numbers = [
            (self.tmp_bytes, bounds::TMP_BYTES),
            (self.tmp_inodes, bounds::TMP_INODES),
            (self.shm_bytes, bounds::SHM_BYTES),
            (self.workspace_bytes, bounds::WORKSPACE_BYTES),
            (self.workspace_inodes, bounds::WORKSPACE_INODES),
        ];
        let workspace = WorkspaceKind::from_number(self.workspace_kind).is_some();
        let places = masks && workspace && is_cwd(&self.cwd) && self.secrets_are_sound(level);
        let guest = self.wasm.as_ref().is_none_or(WasmLimits::is_sound);
        places && net && env && within(&numbers) && self.limits.is_sound() && guest
    }

    /// Below `strong` a file for one call alone would have to lie on a disk of the machine.
    fn secrets_are_sound(&self, level: Level) -> bool {
        self.secrets.len() <= SECRETS_MAX
            && (self.secrets.is_empty() || level == Level::Strong)
            && self.secrets.windows(2).all(|pair| pair[0].name < pair[1].name)
            && self.secrets.iter().all(|secret| is_param_name(&secret.name) && Secret::is_handle(&secret.handle))
    }
}

impl RunLimits {
    fn is_sound(&self) -> bool {
        within(&[
            (self.wall_us, bounds::WALL_US),
            (self.cpu_us, bounds::CPU_US),
            (self.cpu_percent, bounds::CPU_PERCENT),
            (self.memory_bytes, bounds::MEMORY_BYTES),
            (self.as_bytes, bounds::AS_BYTES),
            (self.pids, bounds::PIDS),
            (self.open_files, bounds::OPEN_FILES),
            (self.file_size, bounds::FILE_SIZE),
            (self.stdout_bytes, bounds::STDOUT_BYTES),
            (self.stderr_bytes, bounds::STDERR_BYTES),
            (self.output_total_bytes, bounds::OUTPUT_TOTAL_BYTES),
            (self.grace_us, bounds::GRACE_US),
        ])
    }
}

impl WasmLimits {
    fn is_sound(&self) -> bool {
        within(&[
            (self.fuel, bounds::FUEL),
            (self.stack_bytes, bounds::STACK_BYTES),
            (self.table_elements, bounds::TABLE_ELEMENTS),
            (self.clock_step_us, bounds::CLOCK_STEP_US),
        ])
    }
}

fn within(numbers: &[(u64, Bound)]) -> bool {
    numbers.iter().all(|(number, bound)| (bound.min..=bound.max).contains(number))
}

/// Whether a program may start there: `/workspace`, or below it in the path grammar.
pub fn is_cwd(path: &str) -> bool {
    let below = path.strip_prefix("/workspace");
    below.is_some_and(|below| {
        below.is_empty()
            || below.strip_prefix('/').is_some_and(|rest| !rest.is_empty() && is_path(&format!("r:{rest}")))
    })
}
