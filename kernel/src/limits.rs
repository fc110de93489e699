//! Every bound a caller can meet, by name. Checked where a value is made and where it is read.

/// Causes of one entry.
pub const CAUSES_MAX: usize = 16;
/// Blobs one entry refers to.
pub const BLOBS_PER_ENTRY_MAX: usize = 64;
/// Bytes of a body.
pub const BODY_BYTES_MAX: usize = 65_536;
/// Bytes of an entry: header with all causes and blobs, signature, body.
pub const ENTRY_BYTES_MAX: usize = 200 + 8 * CAUSES_MAX + 36 * BLOBS_PER_ENTRY_MAX + 64 + BODY_BYTES_MAX;
/// Depth of nesting in a body.
pub const BODY_DEPTH_MAX: usize = 16;
/// Items of one array or map in a body.
pub const BODY_ITEMS_MAX: usize = 4_096;
/// Bytes of one blob; more is several blobs.
pub const BLOB_BYTES_MAX: u64 = 64 << 20;
/// The unit in which the log states the size of a blob.
pub const BLOB_GRAIN_BYTES: u64 = 256;
/// Bytes of a command, the grants of a spawn and the tools of a binding aside.
pub const COMMAND_BYTES_MAX: usize = 16_384;
/// Bytes of a signed command: what is signed beside the command, the command, the signature.
pub const SIGNED_BYTES_MAX: usize = COMMAND_BYTES_MAX + 160;
/// How long a signed command may be valid, in µs: one day.
pub const COMMAND_VALID_US_MAX: u64 = 86_400_000_000;
/// Nonces of signed commands that one session remembers.
pub const COMMAND_NONCES_MAX: usize = 65_536;
/// Bytes that a refusal needs beside the command it holds, its signature and the capability it names.
pub const REFUSAL_BYTES_MAX: usize = 1_024;
/// Bytes of the rule that a refusal names; a longer one is left out.
pub const RULE_BYTES_MAX: usize = 64;
/// Names in one list of a plan.
pub const PLAN_NAMES_MAX: usize = 64;
/// Bytes of the grants of one spawn together.
pub const SPAWN_GRANTS_BYTES_MAX: usize = 49_152;
/// Key grants in a genesis.
pub const KEY_GRANTS_PER_GENESIS_MAX: usize = 32;
/// Bytes of all root grants in a genesis together, and of all principals with their keys.
pub const GENESIS_LIST_BYTES_MAX: usize = 16_384;
/// Principals listed in a genesis.
pub const GENESIS_PRINCIPALS_MAX: usize = 64;
/// Keys of one principal.
pub const PRINCIPAL_KEYS_MAX: usize = 16;
/// Principals of one session that are no agents.
pub const PRINCIPALS_MAX: usize = 65_536;
/// Sessions listed in the system session.
pub const SESSIONS_MAX: usize = 131_072;
/// Tools registered in the system session.
pub const TOOLS_MAX: usize = 16_384;
/// Bytes of the text that names the kernel of a probe.
pub const PROBE_TEXT_BYTES_MAX: usize = 64;
/// Root grants listed in a genesis, and in an opening.
pub const GENESIS_GRANTS_MAX: usize = 64;
/// Entries between two commitments to the state: default and bounds.
pub const STATE_INTERVAL: u32 = 1_024;
/// The least entries between two commitments to the state.
pub const STATE_INTERVAL_MIN: u32 = 64;
/// The most entries between two commitments to the state.
pub const STATE_INTERVAL_MAX: u32 = 65_536;
/// How far apart two copies or neighbours may lie for the verifier to tell a swap from a gap.
pub const SEQ_WINDOW: usize = 64;
/// Findings a verification lists.
pub const FINDINGS_MAX: usize = 1_000;
/// The greatest time: 2^53 − 1 µs, also "never".
pub const TIME_US_MAX: u64 = (1 << 53) - 1;

/// Segments of a name.
pub const NAME_SEGS_MAX: usize = 8;
/// Bytes of one segment of a name.
pub const NAME_SEG_BYTES_MAX: usize = 32;
/// Segments of a path.
pub const PATH_SEGS_MAX: usize = 64;
/// Bytes of one segment of a path.
pub const PATH_SEG_BYTES_MAX: usize = 255;
/// Bytes of a whole path as text.
pub const PATH_BYTES_MAX: usize = 4_096;
/// Bytes of the text of a capability that a parser will read.
pub const CAPABILITY_TEXT_BYTES_MAX: usize = 8_192;
/// Bytes of the canonical text of a capability in a body.
pub const CAPABILITY_BYTES_MAX: usize = 4_096;
/// Digests named by a tool scope.
pub const DIGESTS_MAX: usize = 16;
/// Argument constraints of a tool scope.
pub const ARGS_MAX: usize = 32;
/// Scalars of one argument constraint.
pub const SCALARS_MAX: usize = 64;
/// Bytes of a string scalar, a fact or a JSON pointer.
pub const SCALAR_BYTES_MAX: usize = 256;
/// Policies that gate a capability, and that a grant answers.
pub const GATES_MAX: usize = 8;
/// Steps of delegation below a grant.
pub const DEPTH_MAX: u8 = 15;
/// The greatest burst of a rate.
pub const RATE_BURST_MAX: u32 = 1_000_000;
/// The greatest product of period and burst of a rate.
pub const RATE_PRODUCT_MAX: u64 = 10_000_000_000_000_000;

/// Grants of one spawn.
pub const SPAWN_GRANTS_MAX: usize = 64;
/// Children of one grant.
pub const GRANT_CHILDREN_MAX: u32 = 10_000;
/// Grants of one session.
pub const GRANTS_MAX: usize = 131_072;
/// Agents of one session.
pub const AGENTS_MAX: usize = 10_000;
/// Running agents of one session.
pub const AGENTS_RUNNING_MAX: u32 = 256;
/// Depth of the agent tree.
pub const AGENT_DEPTH_MAX: u8 = 16;
/// Live children of one agent.
pub const AGENT_CHILDREN_MAX: u32 = 100;
/// Open tasks of one agent: scheduled or started.
pub const TASKS_OPEN_MAX: u32 = 10_000;
/// Tasks that one task requires.
pub const TASK_REQUIRES_MAX: usize = 64;
/// The least time a task may be given, in µs: one second.
pub const TASK_TIMEOUT_US_MIN: u64 = 1_000_000;
/// The most time a task may be given, in µs: one day.
pub const TASK_TIMEOUT_US_MAX: u64 = 86_400_000_000;
/// The longest delay before something is tried again, in µs: one day.
pub const RETRY_US_MAX: u64 = 86_400_000_000;
/// Unread messages of one agent.
pub const MAILBOX_MAX: usize = 1_024;
/// Bytes of one message. The log knows sizes in grains, and this is a whole number of them.
pub const MESSAGE_BYTES_MAX: u64 = 1 << 20;
/// Attempts of one call, the first one included.
pub const CALL_ATTEMPTS_MAX: u16 = 4;
/// Open calls of one session.
pub const CALLS_OPEN_MAX: usize = 16_384;
/// Facts, needs and argument pointers of a tool.
pub const FACTS_MAX: usize = 32;
/// Needs a tool declares, the tool itself aside.
pub const NEEDS_MAX: usize = 32;
/// Bytes of one need template.
pub const NEED_BYTES_MAX: usize = 1_024;
/// Bytes of the decision part of a tool.
pub const TOOL_BYTES_MAX: usize = 4_096;
/// Bytes of a whole tool spec.
pub const TOOL_SPEC_BYTES_MAX: usize = 65_536;
/// Tools bound by one event.
pub const TOOLS_PER_BINDING_MAX: usize = 12;
/// Characters of the description of a tool, and of what it says of its result.
pub const DESCRIPTION_CHARS_MAX: usize = 1_024;
/// Parameters of a tool.
pub const PARAMS_MAX: usize = 64;
/// Characters of the description of a parameter.
pub const PARAM_CHARS_MAX: usize = 256;
/// Words of an enum parameter.
pub const VALUES_MAX: usize = 64;
/// Elements of an array parameter.
pub const ARRAY_ITEMS_MAX: u32 = 1_024;
/// Labels of a tool.
pub const TOOL_LABELS_MAX: usize = 32;
/// Bytes of the name of a label of a tool.
pub const TOOL_LABEL_NAME_BYTES_MAX: usize = 63;
/// Bytes of the text of a label of a tool.
pub const TOOL_LABEL_BYTES_MAX: usize = 255;
/// Files of a program beside its main file.
pub const PROGRAM_FILES_MAX: usize = 64;
/// Toolchains that a tool requires beside the one that starts it.
pub const REQUIRES_MAX: usize = 16;
/// Items of the command line of a tool.
pub const ARGV_ITEMS_MAX: usize = 256;
/// Environment names that a tool sets, and as many that it passes arguments in.
pub const ENV_NAMES_MAX: usize = 64;
/// Characters of the value of an environment name that a tool sets.
pub const ENV_VALUE_CHARS_MAX: usize = 1_024;
/// Names that are masked inside granted directories.
pub const MASKS_MAX: usize = 64;
/// Secrets that a tool is handed.
pub const SECRETS_MAX: usize = 16;
/// Artifacts that a tool declares.
pub const ARTIFACTS_MAX: usize = 32;
/// Bytes of one artifact.
pub const ARTIFACT_BYTES_MAX: u64 = 256 << 20;
/// Files of one artifact.
pub const ARTIFACT_FILES_MAX: u32 = 1_000;
/// Bytes of the canonical JSON of arguments.
pub const ARGUMENT_BYTES_MAX: usize = 1 << 20;
/// Depth of the JSON of arguments.
pub const ARGUMENT_DEPTH_MAX: usize = 32;
/// Limited dimensions of a grant, in the order of [`crate::budget::LIMITED`].
pub const DIMENSIONS: usize = 7;
/// What a principal was refused for, remembered per minute.
pub const REFUSALS_SEEN_MAX: usize = 256;
