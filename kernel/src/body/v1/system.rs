//! Schema 1 of what the system session records, of what follows from it in a work session, and of what was observed.

use serde::{Deserialize, Serialize};

use super::{Amounts, Blob, Cmd};
use crate::capability::Capability;
use crate::entry::EntryRef;
use crate::ids::{CallId, Digest, EntryHash, GrantId, KeyId, PrincipalId, Seq, SessionId};
use crate::tool::Tool;

frozen! {
    /// Kind 8: a session may be opened, and what of its opener's grants is set aside for it.
    SessionRegistered {
        /// The command.
        cmd "cmd": Option<Cmd>,
        /// The session: the hash of a genesis that is sealed and not yet written.
        session "ses": SessionId,
        /// Who opens it.
        opener "opnr": PrincipalId,
        /// Its root grants, at most 64.
        roots "root": Vec<Root>,
        /// What is set aside, per grant that a root derives from.
        reserved "rsvd": Vec<GrantAmounts>,
    }

    /// Kind 9: a session has ended, or was never opened.
    SessionEnded {
        /// Nil: the node asks this of itself.
        cmd "cmd": Option<Cmd>,
        /// The session.
        session "ses": SessionId,
        /// 1 closed, 2 never_opened.
        how "how": u8,
        /// Its last entry; none where it was never opened.
        head "head": Option<EndHead>,
        /// What was spent, per grant that a root derives from.
        spent "spnt": Vec<GrantAmounts>,
    }

    /// A root grant of a session, as the system session records it.
    Root {
        /// The grant of its opener that it derives from; none for new authority.
        from "from": Option<GrantId>,
        /// What may be done.
        cap "cap": Capability,
    }

    /// A root grant as it stands in a command.
    RootAsked {
        /// The grant of the opener to derive from.
        from "from": Option<GrantId>,
        /// The text of the capability.
        cap "cap": String,
    }

    /// Amounts of one grant.
    GrantAmounts {
        /// The grant.
        grant "grnt": GrantId,
        /// The amounts.
        amounts "amts": Amounts,
    }

    /// The last entry of a session that has ended.
    EndHead {
        /// Its seq.
        seq "seq": Seq,
        /// Its hash.
        hash "hash": EntryHash,
    }

    /// What a person asks and signs when a session is opened: `OpenSession` without the session, which is not known yet.
    /// It stands in the genesis as well.
    OpenBody {
        /// Who opens it.
        opener "opnr": PrincipalId,
        /// Its root grants, at most 64.
        roots "root": Vec<RootAsked>,
    }

    /// What `OpenSession` asks.
    OpenSessionAsked {
        /// The session: the hash of a genesis that is sealed and not yet written.
        session "ses": SessionId,
        /// Who opens it.
        opener "opnr": PrincipalId,
        /// Its root grants, at most 64.
        roots "root": Vec<RootAsked>,
    }

    /// What `EndSession` asks.
    EndSessionAsked {
        /// The session.
        session "ses": SessionId,
        /// 1 closed, 2 never_opened.
        how "how": u8,
        /// Its last entry; none where it was never opened.
        head "head": Option<EndHead>,
        /// What was spent, per grant that a root derives from.
        spent "spnt": Vec<GrantAmounts>,
    }

    /// Kind 0x0601: a tool is known to the node.
    ToolRegistered {
        /// The command.
        cmd "cmd": Option<Cmd>,
        /// The decision part.
        tool "tool": Tool,
        /// The digest of the file that describes it.
        file "file": Digest,
        /// 1 proposed, 2 approved.
        state "stat": u8,
    }

    /// Kind 0x0602: a tool may be bound.
    ToolApproved {
        /// The command.
        cmd "cmd": Option<Cmd>,
        /// The tool.
        name "name": String,
        /// The digest that is approved.
        digest "dig": Digest,
    }

    /// Kind 0x0606: a tool is not what was approved.
    ToolQuarantined {
        /// Nil: the node asks this of itself.
        cmd "cmd": Option<Cmd>,
        /// The tool.
        name "name": String,
        /// The digest that was approved.
        digest "dig": Digest,
        /// 1 drift, 2 toolchain, 3 server, 5 by operator.
        why "why": u8,
        /// The digest of what was found instead.
        seen "seen": Option<Digest>,
    }

    /// Kind 0x0611: a bound tool can no longer be called here.
    ToolUnbound {
        /// Nil: the node asks this of itself.
        cmd "cmd": Option<Cmd>,
        /// The tool.
        name "name": String,
        /// The digest that is bound.
        digest "dig": Digest,
        /// 1 drift, 2 toolchain, 3 server, 4 disabled, 5 by operator.
        why "why": u8,
        /// The entry of the system session that says so.
        cite "cite": EntryRef,
    }

    /// Kind 0x0706: a person or service says what came of a call whose outcome nobody knew.
    OutcomeResolved {
        /// The command.
        cmd "cmd": Option<Cmd>,
        /// The call.
        call "call": CallId,
        /// 1 done, 2 not_done, 3 abandon.
        verdict "verd": u8,
        /// What it was found out by.
        evidence "evid": Option<Blob>,
    }

    /// Kind 0x0B01: a person or service that may act.
    PrincipalAdded {
        /// The command.
        cmd "cmd": Option<Cmd>,
        /// 1 human, 4 service.
        kind "kind": u8,
        /// 1 its key lies in the node's process, 2 apart.
        custody "cust": u8,
        /// Its keys, at most 16, all granted and nobody else's.
        keys "keys": Vec<KeyId>,
    }

    /// Kind 0x0E01: something was seen; it decides nothing.
    Observed {
        /// The command.
        cmd "cmd": Option<Cmd>,
        /// 1 to 9.
        what "what": u16,
        /// What it is about.
        subject "sub": Option<Digest>,
        /// The call it is about.
        call "call": Option<CallId>,
        /// How often, or how much.
        count "cnt": u64,
        /// More about it.
        detail "det": Option<Blob>,
    }

    /// Kind 0x0E02: how strongly this node can confine.
    SandboxProbed {
        /// Nil: the node asks this of itself.
        cmd "cmd": Option<Cmd>,
        /// Bits: 1 strong, 2 landlock.
        levels "lvls": u8,
        /// The layers that work.
        layers "lay": u64,
        /// The Landlock ABI; 0 for none.
        landlock_abi "abi": u16,
        /// The digest of the launcher.
        jail "jail": Digest,
        /// The kernel, at most 64 bytes.
        kernel "krnl": String,
    }

    /// What `RegisterTool` asks.
    RegisterToolAsked {
        /// The decision part.
        tool "tool": Tool,
        /// The digest of the file that describes it.
        file "file": Digest,
        /// 1 proposed, 2 approved.
        state "stat": u8,
    }

    /// What `ApproveTool` asks.
    ApproveToolAsked {
        /// The tool.
        name "name": String,
        /// The digest to approve.
        digest "dig": Digest,
    }

    /// What `QuarantineTool` asks.
    QuarantineToolAsked {
        /// The tool.
        name "name": String,
        /// The digest that was approved.
        digest "dig": Digest,
        /// 1 drift, 2 toolchain, 3 server, 5 by operator.
        why "why": u8,
        /// The digest of what was found instead.
        seen "seen": Option<Digest>,
    }

    /// What `UnbindTool` asks.
    UnbindAsked {
        /// The tool.
        name "name": String,
        /// The digest that is bound.
        digest "dig": Digest,
        /// 1 drift, 2 toolchain, 3 server, 4 disabled, 5 by operator.
        why "why": u8,
        /// The entry of the system session that says so.
        cite "cite": EntryRef,
    }

    /// What `ResolveOutcome` asks.
    ResolveAsked {
        /// The call.
        call "call": CallId,
        /// 1 done, 2 not_done, 3 abandon.
        verdict "verd": u8,
        /// What it was found out by.
        evidence "evid": Option<Blob>,
    }

    /// What `AddPrincipal` asks.
    AddPrincipalAsked {
        /// 1 human, 4 service.
        kind "kind": u8,
        /// 1 its key lies in the node's process, 2 apart.
        custody "cust": u8,
        /// Its keys, at most 16, all granted and nobody else's.
        keys "keys": Vec<KeyId>,
    }

    /// What `Observe` asks.
    ObserveAsked {
        /// 1 to 9.
        what "what": u16,
        /// What it is about.
        subject "sub": Option<Digest>,
        /// The call it is about.
        call "call": Option<CallId>,
        /// How often, or how much.
        count "cnt": u64,
        /// More about it.
        detail "det": Option<Blob>,
    }

    /// What `RecordProbe` asks.
    ProbeAsked {
        /// Bits: 1 strong, 2 landlock.
        levels "lvls": u8,
        /// The layers that work.
        layers "lay": u64,
        /// The Landlock ABI; 0 for none.
        landlock_abi "abi": u16,
        /// The digest of the launcher.
        jail "jail": Digest,
        /// The kernel, at most 64 bytes.
        kernel "krnl": String,
    }
}
