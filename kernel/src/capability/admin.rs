//! Administrative operations: what a session lets be done to itself, by name.

use crate::denial::Code;

/// An administrative operation, in the order in which they print. None implies another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum AdminOp {
    /// Vote on approvals.
    Approve,
    /// Stop agents and calls, close the session.
    Cancel,
    /// Erase content.
    Erase,
    /// Export sessions.
    Export,
    /// Issue grants that derive from none.
    GrantRoot,
    /// Announce, activate and retire keys.
    Keys,
    /// Add and remove principals.
    Members,
    /// Open sessions.
    OpenSession,
    /// Pause, start and resume agents.
    Pause,
    /// Bind policies.
    Policy,
    /// Read what the log says of refusals.
    ReadLog,
    /// Propose, approve and disable tools.
    RegisterTool,
    /// Say what came of a call whose outcome nobody knows.
    Resolve,
    /// Revoke any grant.
    RevokeAny,
    /// Call tools that nothing confines.
    Unconfined,
}

impl AdminOp {
    /// Every operation, in byte order of the names.
    pub const ALL: &'static [AdminOp] = &[
        AdminOp::Approve,
        AdminOp::Cancel,
        AdminOp::Erase,
        AdminOp::Export,
        AdminOp::GrantRoot,
        AdminOp::Keys,
        AdminOp::Members,
        AdminOp::OpenSession,
        AdminOp::Pause,
        AdminOp::Policy,
        AdminOp::ReadLog,
        AdminOp::RegisterTool,
        AdminOp::Resolve,
        AdminOp::RevokeAny,
        AdminOp::Unconfined,
    ];

    /// Its name in the text of a scope.
    pub fn name(self) -> &'static str {
        match self {
            AdminOp::Approve => "approve",
            AdminOp::Cancel => "cancel",
            AdminOp::Erase => "erase",
            AdminOp::Export => "export",
            AdminOp::GrantRoot => "grant-root",
            AdminOp::Keys => "keys",
            AdminOp::Members => "members",
            AdminOp::OpenSession => "open-session",
            AdminOp::Pause => "pause",
            AdminOp::Policy => "policy",
            AdminOp::ReadLog => "read-log",
            AdminOp::RegisterTool => "register-tool",
            AdminOp::Resolve => "resolve",
            AdminOp::RevokeAny => "revoke-any",
            AdminOp::Unconfined => "unconfined",
        }
    }
}

/// Which administrative operations may be used. Invariant: not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdminScope(u16);

impl AdminScope {
    /// A scope of these operations.
    ///
    /// # Errors
    /// [`Code::Malformed`] for none, or for one given twice.
    pub fn new(ops: &[AdminOp]) -> Result<AdminScope, Code> {
        let bits = ops.iter().fold(0, |bits, op| bits | bit(*op));
        let each_once = bits.count_ones() as usize == ops.len();
        if each_once && bits != 0 { Ok(AdminScope(bits)) } else { Err(Code::Malformed) }
    }

    /// Whether the operation is among them.
    pub fn has(self, op: AdminOp) -> bool {
        self.0 & bit(op) != 0
    }

    /// The operations, in the order in which they print.
    pub fn iter(self) -> impl Iterator<Item = AdminOp> {
        AdminOp::ALL.iter().copied().filter(move |op| self.has(*op))
    }

    pub(super) fn is_subset(self, other: AdminScope) -> bool {
        self.0 & !other.0 == 0
    }

    pub(super) fn meet(self, other: AdminScope) -> Option<AdminScope> {
        let both = self.0 & other.0;
        (both != 0).then_some(AdminScope(both))
    }
}

fn bit(op: AdminOp) -> u16 {
    1 << op as u8
}
