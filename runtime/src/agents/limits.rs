//! Every bound of an agent file and of a script, by name.

/// Bytes of an agent file.
pub const FILE_BYTES_MAX: usize = 256 << 10;
/// Agent files that one agent can reach by its spawn steps, itself included.
pub const FILES_MAX: usize = 64;
/// Labels of an agent, and its `x-` fields.
pub const LABELS_MAX: usize = 32;
/// Bytes of a label's name or text, of an `x-` field, and of `domain`.
pub const LABEL_BYTES_MAX: usize = 256;
/// Bytes of a description.
pub const DESCRIPTION_BYTES_MAX: usize = 4_096;
/// Bytes of instructions.
pub const INSTRUCTIONS_BYTES_MAX: usize = 64 << 10;
/// Patterns in `tools`.
pub const TOOLS_MAX: usize = 128;
/// Capabilities that an agent requests.
pub const CAPABILITIES_MAX: usize = 64;
/// Tokens of a budget when the file says nothing.
pub const BUDGET_TOKENS: u64 = 100_000;
/// Calls of a budget when the file says nothing.
pub const BUDGET_CALLS: u64 = 200;
/// Wall time of a budget when the file says nothing, in µs.
pub const BUDGET_WALL_US: u64 = 30 * 60 * 1_000_000;
/// The most wall time of a budget, in µs: 365 days.
pub const BUDGET_WALL_US_MAX: u64 = 365 * 86_400 * 1_000_000;

/// Bytes of the name of a member in the arguments of a call.
pub const MEMBER_BYTES_MAX: usize = 256;
/// Steps in a script, those in loops included.
pub const STEPS_MAX: usize = 1_000;
/// Loops inside each other.
pub const LOOP_DEPTH_MAX: usize = 8;
/// Items that one loop walks.
pub const LOOP_ITEMS_MAX: usize = 1_000;
/// Steps that one run of a script executes, skipped ones included.
pub const EXECUTED_MAX: u32 = 10_000;
/// Bytes of the arguments of one call, as the driver counts them before they are encoded.
pub const ARGUMENT_BYTES_MAX: usize = toka_kernel::limits::ARGUMENT_BYTES_MAX;
/// Agents that one depends on, required and optional each.
pub const DEPENDENCIES_MAX: usize = 64;
/// Agents that a model may spawn.
pub const MODEL_AGENTS_MAX: usize = 64;
/// Bytes of the name of a model.
pub const MODEL_NAME_BYTES_MAX: usize = 128;
/// Bytes of a result as a model reads it; of a longer one it gets the beginning and the end.
pub const RESULT_SHOWN_BYTES_MAX: usize = 32 << 10;
/// Bytes of what a model is told about arguments that are refused.
pub const REASON_BYTES_MAX: usize = 512;
/// Bytes of the items of one loop.
pub const LOOP_BYTES_MAX: usize = 16 << 20;
