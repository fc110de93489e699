//! Schema 1 of every kind and of what stands in them. Frozen: a changed field is a new schema.

use serde::{Deserialize, Serialize};

use crate::capability::Capability;
use crate::entry::EntryRef;
use crate::facts::Fact;
use crate::ids::{AgentId, Bytes, CallId, CommandId, Digest, GrantId, KeyId, PrincipalId, Seq, TaskId, TimeUs};
use crate::tool::Tool;

/// Declares a frozen body: each field with the short name that stands in the bytes.
macro_rules! frozen {
    ($($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident $short:literal: $ty:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name { $($(#[$fdoc])* #[serde(rename = $short)] pub $field: $ty,)* }

        impl $name {
            /// Field names as they stand in the bytes, in order.
            pub const FIELDS: &'static [&'static str] = &[$($short),*];
        }
    )*};
}

mod system;
mod work;

pub use system::{
    AddPrincipalAsked, ApproveToolAsked, EndHead, EndSessionAsked, GrantAmounts, ObserveAsked, Observed, OpenBody,
    OpenSessionAsked, OutcomeResolved, PrincipalAdded, ProbeAsked, QuarantineToolAsked, RegisterToolAsked,
    ResolveAsked, Root, RootAsked, SandboxProbed, SessionEnded, SessionRegistered, ToolApproved, ToolQuarantined,
    ToolRegistered, ToolUnbound, UnbindAsked,
};
pub use work::{
    AgentPaused, AgentResumed, AgentStopping, AttemptAsked, AttemptUsage, CallAttempted, CancelAsked, CancelRequested,
    CompleteTaskAsked, FailTaskAsked, MessageSent, MessageTaken, PauseAsked, ResumeAsked, ScheduleAsked, SendAsked,
    SkipTaskAsked, StartTaskAsked, StopAsked, TakeAsked, TaskCompleted, TaskFailed, TaskScheduled, TaskSkipped,
    TaskStarted,
};

/// An index into the blob list of the entry's header.
pub type Blob = u16;

/// An amount per limited dimension, in the order calls, bytes_in, bytes_out, tokens, cost_micro, wall_us, cpu_us,
/// without trailing zeros. Bytes are multiples of 256.
pub type Amounts = Vec<u64>;

frozen! {
    /// The command that an event answers, as far as the event does not say it otherwise.
    Cmd {
        /// Its id.
        id "id": CommandId,
        /// The seq its sender had read: recorded, never a reason to refuse.
        as_of "asof": Seq,
        /// The administrative grant it uses.
        under "undr": Option<GrantId>,
        /// The token it came by.
        via "via": Option<Via>,
        /// Its own signature, with what was signed.
        signed "sig": Option<Bytes>,
    }

    /// The token a command came by.
    Via {
        /// The token key.
        kid "kid": KeyId,
        /// The hash of the token's id.
        jti "jti": Digest,
    }

    /// Kind 1: everything a session begins with. The command and the event are one.
    SessionOpened {
        /// 1 system, 2 work.
        class "cls": u8,
        /// The suite of every entry.
        suite "sui": u8,
        /// The rules in force from here.
        rules "rul": u16,
        /// The node, 1 to 255 bytes.
        origin "org": String,
        /// Random, so that no two sessions have one id.
        nonce "non": Digest,
        /// Where the session's seeds grow from.
        seed "seed": Digest,
        /// The build that wrote it, at most 64 bytes.
        build "bld": String,
        /// The digest of the kind registry of that build.
        registry "reg": Digest,
        /// The root key that granted the keys.
        root_key "root": KeyId,
        /// Key grant records, at most 32.
        keys "keys": Vec<Bytes>,
        /// Entries between two commitments to the state.
        interval "intv": u32,
        /// Limits of the session.
        limits "lim": SessionLimits,
        /// Whether a person can be asked.
        interactive "intr": bool,
        /// The command that asked for the session.
        open "open": OpenAsked,
        /// Who asked.
        opener "opnr": PrincipalId,
        /// The first principals, executors among them, at most 64.
        principals "prin": Vec<FirstPrincipal>,
        /// The root grants, at most 64.
        grants "grnt": Vec<Grant>,
        /// The ceiling policy.
        ceiling "ceil": Option<Bytes>,
        /// The price table.
        prices "pric": Option<Prices>,
        /// Extension tables, at most 16.
        extensions "ext": Vec<ExtensionPin>,
        /// The head of the system session.
        system "sys": Option<EntryRef>,
        /// The last checkpoint of a former origin.
        checkpoint "chk": Option<Bytes>,
        /// The entry this session forks from.
        parent "par": Option<EntryRef>,
    }

    /// Limits of a session.
    SessionLimits {
        /// Agents that run at one time, 1 to 256.
        max_running "max": u16,
    }

    /// The `OpenSession` command as it was asked.
    OpenAsked {
        /// Its id.
        id "id": CommandId,
        /// The grant it used.
        under "undr": Option<GrantId>,
        /// Its body, at most 16,384 bytes.
        body "body": Bytes,
        /// Its own signature.
        signed "sig": Option<Bytes>,
    }

    /// A principal listed in the genesis.
    FirstPrincipal {
        /// Its id; derived from its place in the list where absent.
        id "id": Option<PrincipalId>,
        /// 1 human, 3 executor, 4 service.
        kind "kind": u8,
        /// 1 its key lies in the node's process, 2 apart.
        custody "cust": u8,
        /// Its keys, at most 16, all granted in the genesis.
        keys "keys": Vec<KeyId>,
        /// What it executes: bits tool, code, agent.
        models "mods": u8,
    }

    /// A pinned price table.
    Prices {
        /// Its digest.
        digest "dig": Digest,
        /// Its content where small.
        content "cont": Option<Bytes>,
        /// Its content as a blob.
        text "text": Option<Blob>,
    }

    /// An extension the session may use.
    ExtensionPin {
        /// Its namespace.
        name "name": String,
        /// Its version.
        version "ver": u16,
        /// Its operations.
        ops "ops": Vec<u16>,
        /// The digest of its table.
        digest "dig": Digest,
    }

    /// Kind 2: what the state is after the entry before.
    StateCommitted {
        /// Nil: the node asks this of itself.
        cmd "cmd": Option<Cmd>,
        /// The state digest.
        digest "dig": Digest,
        /// Leaves under it.
        leaves "leaf": u64,
        /// The last entry it covers: this seq less one.
        upto "upto": Seq,
    }

    /// Kind 3: nothing follows.
    SessionClosed {
        /// The command.
        cmd "cmd": Option<Cmd>,
        /// 1 done, 2 failed, 3 asked.
        why "why": u8,
        /// Free text.
        reason "rsn": Option<Blob>,
    }

    /// Kind 0x0101: a command that was refused.
    Refused {
        /// The command.
        cmd "cmd": Option<Cmd>,
        /// The kind that would have answered it.
        kind "kind": u16,
        /// The schema of `body`.
        schema "sch": u16,
        /// What was asked.
        body "body": Bytes,
        /// The reason.
        code "code": u16,
        /// The grant on a chain that failed.
        failed_at "fail": Option<GrantId>,
        /// The need or item that failed.
        item "item": Option<u16>,
        /// The dimension that did not fit.
        dim "dim": Option<u16>,
        /// The capability that would have been needed.
        need "need": Option<String>,
        /// The limit that was reached.
        limit "lim": Option<LimitReached>,
        /// When it may be asked again.
        retry_at "rtry": Option<TimeUs>,
        /// The approval that waits.
        approval "appr": Option<Digest>,
        /// The rule of a policy that decided.
        rule "rule": Option<String>,
        /// Where the command was used first.
        first_seq "fsq": Option<Seq>,
        /// More about it.
        detail "det": Option<Blob>,
    }

    /// A limit that was reached.
    LimitReached {
        /// The dimension.
        dim "dim": u16,
        /// The limit.
        limit "lim": u64,
        /// What is spent.
        spent "spnt": u64,
        /// What is promised to open calls.
        reserved "rsvd": u64,
        /// What was asked for.
        asked "ask": u64,
    }

    /// A grant as it stands in an event: filled.
    Grant {
        /// The grant it derives from; none for a root.
        parent "par": Option<GrantId>,
        /// Who issued it.
        issuer "iss": PrincipalId,
        /// Who holds it.
        subject "sub": PrincipalId,
        /// What may be done.
        cap "cap": Capability,
        /// Policies it answers, at most 8.
        answers "ans": Vec<String>,
    }

    /// A grant as it stands in a command.
    GrantAsked {
        /// The grant to derive from.
        parent "par": Option<GrantId>,
        /// The text of the capability, at most 4,096 bytes.
        cap "cap": String,
    }

    /// A grant of the command `Grant`.
    GrantTo {
        /// The grant to derive from.
        parent "par": Option<GrantId>,
        /// The text of the capability, at most 4,096 bytes.
        cap "cap": String,
        /// Who shall hold it.
        to "to": PrincipalId,
    }

    /// What an agent is meant to do, as far as orchestration needs it.
    Plan {
        /// Agents that work together.
        workstream "ws": String,
        /// 1 to 8.
        phase "phas": u8,
        /// Agents that must have completed before, at most 64.
        requires "req": Vec<AgentId>,
        /// What follows a failure, 1 to 4.
        then "then": u8,
        /// How it is tried again.
        retry "rtry": Option<Retry>,
        /// Whether its failure fails the session.
        essential "ess": bool,
        /// Objectives, at most 64.
        objectives "obj": Vec<String>,
        /// Deliverables, at most 64.
        deliverables "del": Vec<Deliverable>,
        /// Milestones, at most 64.
        milestones "mile": Vec<Milestone>,
        /// The agent it replaces.
        replaces "repl": Option<AgentId>,
    }

    /// How something is tried again.
    Retry {
        /// Times.
        max "max": u8,
        /// The first delay in µs.
        base "base": u64,
        /// The longest delay in µs.
        cap "cap": u64,
    }

    /// A deliverable.
    Deliverable {
        /// Its name.
        name "name": String,
        /// Whether the agent fails without it.
        required "req": bool,
    }

    /// A milestone.
    Milestone {
        /// Its name.
        name "name": String,
        /// What must hold, at most 64.
        members "mem": Vec<String>,
    }

    /// Kind 0x0201: an agent, with the grants it begins with.
    AgentSpawned {
        /// The command.
        cmd "cmd": Option<Cmd>,
        /// Who spawned it.
        parent "par": PrincipalId,
        /// The name of its spec.
        spec "spec": String,
        /// The whole spec.
        text "text": Blob,
        /// The digest of the spec without its free text.
        spec_digest "sdig": Digest,
        /// The version of the driver.
        driver "drv": u16,
        /// Its seed.
        seed "seed": Digest,
        /// The agent grant it is spawned under.
        grant "grnt": GrantId,
        /// Empty under rules 1.
        need_grants "ngr": Vec<GrantId>,
        /// Amounts asked for, lower than the worst case.
        asked "ask": Vec<Option<u64>>,
        /// What narrows each need.
        narrow "narr": Vec<Option<Capability>>,
        /// Empty under rules 1.
        reserve "rsv": Amounts,
        /// Its grants, at most 64.
        grants "grs": Vec<Grant>,
        /// What was asked for and dropped, at most 64.
        dropped "drop": Vec<String>,
        /// Its plan.
        plan "plan": Plan,
    }

    /// Kind 0x0202: an agent begins to run.
    AgentStarted {
        /// The command.
        cmd "cmd": Option<Cmd>,
        /// The agent.
        agent "agt": AgentId,
    }

    /// Kind 0x0206: an agent has ended; its grants are dead.
    AgentEnded {
        /// The command.
        cmd "cmd": Option<Cmd>,
        /// The agent.
        agent "agt": AgentId,
        /// 1 completed, 2 failed, 3 stopped.
        how "how": u8,
        /// The end code.
        code "code": u16,
    }

    /// Kind 0x0501: a grant.
    GrantIssued {
        /// The command.
        cmd "cmd": Option<Cmd>,
        /// The grant.
        grant "grnt": Grant,
    }

    /// Kind 0x0502: a grant, and all below it, no longer holds.
    GrantRevoked {
        /// The command.
        cmd "cmd": Option<Cmd>,
        /// The grant.
        grant "grnt": GrantId,
        /// By what right: 1 holder, 2 issuer, 3 ancestor, 4 admin.
        standing "std": u8,
        /// Whether it was revoked before.
        already "alr": bool,
        /// Free text.
        reason "rsn": Option<Blob>,
    }

    /// Kind 0x0610: tools that can be called from here on.
    ToolBound {
        /// Nil: the node asks this of itself.
        cmd "cmd": Option<Cmd>,
        /// The tools, 1 to 12.
        tools "tool": Vec<Binding>,
    }

    /// One bound tool.
    Binding {
        /// The decision part.
        tool "tool": Tool,
        /// Where the system session registered it.
        cite "cite": Option<EntryRef>,
        /// The digest it replaces here.
        replaces "repl": Option<Digest>,
    }

    /// Kind 0x0701: a call that may run.
    CallAdmitted {
        /// The command.
        cmd "cmd": Option<Cmd>,
        /// Its execution model.
        model "mod": u8,
        /// The tool.
        tool "tool": String,
        /// The digest of its spec.
        digest "dig": Digest,
        /// The grant for the tool itself.
        grant "grnt": GrantId,
        /// The grant of each further need.
        need_grants "ngr": Vec<GrantId>,
        /// The facts in the order of the tool.
        facts "fact": Vec<Fact>,
        /// Whether the arguments hold more than facts.
        extra "extr": bool,
        /// The arguments.
        args "args": Blob,
        /// Amounts asked for, lower than the worst case.
        asked "ask": Vec<Option<u64>>,
        /// What narrows each need.
        narrow "narr": Vec<Option<Capability>>,
        /// What is promised to it.
        reserve "rsv": Amounts,
        /// When it is stopped.
        deadline "dead": TimeUs,
        /// The ceiling rule that let it pass.
        rule "rule": Option<String>,
        /// The task it serves.
        task "task": Option<TaskId>,
        /// The call it is nested in.
        parent "par": Option<CallId>,
    }

    /// How a call ended.
    Outcome {
        /// 1 to 16.
        kind "kind": u8,
        /// More about the kind.
        detail "det": u16,
        /// Exit code, signal or errno.
        number "num": Option<i64>,
        /// A symbol, at most 64 bytes.
        symbol "sym": Option<String>,
    }

    /// How a jailed call was confined and what it took.
    SandboxRecord {
        /// Which streams were cut.
        cut "cut": u8,
        /// The level required.
        required "req": u8,
        /// The level in force.
        level "lvl": u8,
        /// The layers in force.
        layers "lay": u64,
        /// The Landlock ABI.
        landlock_abi "abi": u16,
        /// The digest of the sandbox configuration.
        digest "dig": Digest,
        /// The digest of the launcher.
        jail "jail": Option<Digest>,
        /// The digest of the toolchain.
        toolchain "tc": Option<Digest>,
        /// Start in µs UTC.
        started_us "sta": TimeUs,
        /// End in µs UTC.
        ended_us "end": TimeUs,
        /// CPU time in µs.
        cpu_us "cpu": u64,
        /// Peak memory in bytes.
        rss_bytes "rss": u64,
        /// Times the process limit was hit.
        pids_hit "pids": u32,
        /// Connections the proxy refused.
        proxy_refused "prox": u32,
    }

    /// How a WASM call ran.
    WasmRecord {
        /// The digest of the module.
        module "mod": Digest,
        /// The digest of engine and configuration.
        engine "eng": Digest,
        /// The seed.
        seed "seed": Digest,
        /// Where the clock began.
        clock_us "clk": TimeUs,
        /// How far one read moved it.
        step_us "step": u32,
        /// Fuel used.
        fuel "fuel": u64,
        /// Capability questions asked.
        guest_asked "gask": u32,
        /// Of these denied.
        guest_denied "gden": u32,
    }

    /// What a model call took.
    Usage {
        /// Tokens in.
        tokens_in "tin": u64,
        /// Of these from a cache.
        tokens_cached "tcch": u64,
        /// Tokens out.
        tokens_out "tout": u64,
        /// The HTTP status.
        status "stat": u16,
        /// Whether the numbers are estimates.
        estimated "est": bool,
    }

    /// Kind 0x0703: how a call ended and what it is charged.
    CallFinished {
        /// The command.
        cmd "cmd": Option<Cmd>,
        /// The call.
        call "call": CallId,
        /// The attempt that ended.
        attempt "att": u16,
        /// How.
        outcome "out": Outcome,
        /// What it took.
        actual "act": Amounts,
        /// What is charged where that is not what it took.
        charged "chg": Option<Amounts>,
        /// What it took above the promise.
        overrun "over": Option<Amounts>,
        /// Whether its authority had gone; the output is withheld from the agent.
        late "late": bool,
        /// Standard output.
        stdout "sout": Option<Blob>,
        /// Standard error.
        stderr "serr": Option<Blob>,
        /// The result.
        result "res": Option<Blob>,
        /// The execution record.
        record "rec": Option<Blob>,
        /// How it was confined.
        sandbox "sbx": Option<SandboxRecord>,
        /// How it ran as WASM.
        wasm "wasm": Option<WasmRecord>,
        /// The outcome it repeats, in a fork.
        of "of": Option<EntryRef>,
        /// What a model call took.
        usage "use": Option<Usage>,
    }

    /// What `CloseSession` asks.
    CloseAsked {
        /// 1 done, 2 failed, 3 asked.
        why "why": u8,
        /// Free text.
        reason "rsn": Option<Blob>,
    }

    /// What `SpawnAgent` asks.
    SpawnAsked {
        /// The name of its spec.
        spec "spec": String,
        /// The whole spec.
        text "text": Blob,
        /// The digest of the spec without its free text.
        spec_digest "sdig": Digest,
        /// The version of the driver.
        driver "drv": u16,
        /// Its seed.
        seed "seed": Digest,
        /// The agent grant to spawn it under.
        grant "grnt": GrantId,
        /// Empty under rules 1.
        need_grants "ngr": Vec<GrantId>,
        /// Amounts asked for, lower than the worst case.
        asked "ask": Vec<Option<u64>>,
        /// What narrows each need, as text.
        narrow "narr": Vec<Option<String>>,
        /// Its grants, at most 64.
        grants "grs": Vec<GrantAsked>,
        /// What was asked for and dropped, at most 64.
        dropped "drop": Vec<String>,
        /// Its plan.
        plan "plan": Plan,
    }

    /// What `StartAgent` asks.
    StartAsked {
        /// The agent.
        agent "agt": AgentId,
    }

    /// What `EndAgent` asks.
    EndAsked {
        /// The agent.
        agent "agt": AgentId,
        /// 1 completed, 2 failed, 3 stopped.
        how "how": u8,
        /// The end code.
        code "code": u16,
    }

    /// What `Grant` asks.
    IssueAsked {
        /// The grant.
        grant "grnt": GrantTo,
    }

    /// What `Revoke` asks.
    RevokeAsked {
        /// The grant.
        grant "grnt": GrantId,
        /// Free text.
        reason "rsn": Option<Blob>,
    }

    /// What `BindTool` asks.
    BindAsked {
        /// The tools, 1 to 12.
        tools "tool": Vec<Binding>,
    }

    /// What `Call` asks.
    CallAsked {
        /// The tool.
        tool "tool": String,
        /// The digest of its spec.
        digest "dig": Digest,
        /// The grant for the tool itself.
        grant "grnt": GrantId,
        /// The grant of each further need.
        need_grants "ngr": Vec<GrantId>,
        /// The facts in the order of the tool.
        facts "fact": Vec<Fact>,
        /// Whether the arguments hold more than facts.
        extra "extr": bool,
        /// The arguments.
        args "args": Blob,
        /// Amounts asked for, lower than the worst case.
        asked "ask": Vec<Option<u64>>,
        /// What narrows each need, as text.
        narrow "narr": Vec<Option<String>>,
        /// The task it serves.
        task "task": Option<TaskId>,
        /// The call it is nested in.
        parent "par": Option<CallId>,
        /// A code found while preparing; it can only refuse.
        unfit "unft": Option<u16>,
        /// More about that code.
        detail "det": Option<Blob>,
    }

    /// What `Report` asks.
    ReportAsked {
        /// The call.
        call "call": CallId,
        /// The attempt that ended.
        attempt "att": u16,
        /// How.
        outcome "out": Outcome,
        /// What it took.
        actual "act": Amounts,
        /// Standard output.
        stdout "sout": Option<Blob>,
        /// Standard error.
        stderr "serr": Option<Blob>,
        /// The result.
        result "res": Option<Blob>,
        /// The execution record.
        record "rec": Option<Blob>,
        /// How it was confined.
        sandbox "sbx": Option<SandboxRecord>,
        /// How it ran as WASM.
        wasm "wasm": Option<WasmRecord>,
        /// The outcome it repeats, in a fork.
        of "of": Option<EntryRef>,
        /// What a model call took.
        usage "use": Option<Usage>,
    }

    /// What `CommitState` asks: nothing.
    CommitAsked {}
}
