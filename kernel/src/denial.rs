//! Why something was refused: stable codes and the dimension that did not fit.

use crate::body::v1::LimitReached;
use crate::ids::{GrantId, Seq, TimeUs};

macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident: $repr:ty { $($(#[$vdoc:meta])* $variant:ident = $number:literal $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr($repr)]
        pub enum $name { $($(#[$vdoc])* $variant = $number),* }

        impl $name {
            /// Every value, in the order of the numbers.
            pub const ALL: &'static [$name] = &[$($name::$variant),*];

            /// The number that stands in a body.
            pub fn number(self) -> $repr {
                self as $repr
            }

            /// The value with this number, if there is one.
            pub fn from_number(number: $repr) -> Option<$name> {
                match number {
                    $($number => Some($name::$variant),)*
                    _ => None,
                }
            }

            /// The name people see.
            pub fn name(self) -> &'static str {
                match self {
                    $($name::$variant => $text,)*
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}
pub(crate) use numbered;

numbered! {
    /// The reason of a refusal. Numbers and names never change meaning.
    Code: u16 {
        /// A field is outside its bounds or form.
        Malformed = 101 "MALFORMED",
        /// A name is not in the name grammar.
        BadName = 102 "BAD_NAME",
        /// A path is not in the path grammar.
        BadPath = 103 "BAD_PATH",
        /// A host is not in the host grammar.
        BadHost = 104 "BAD_HOST",
        /// An amount is negative, fractional or above its cap.
        BadAmount = 105 "BAD_AMOUNT",
        /// The key belongs to somebody already.
        KeyInUse = 108 "KEY_IN_USE",
        /// The key cannot be used for this, by this principal, or at this time.
        KeyUnusable = 109 "KEY_UNUSABLE",
        /// The arguments break the schema or a parameter rule.
        BadArguments = 111 "BAD_ARGUMENTS",
        /// The command must be signed and is not.
        CommandUnsigned = 120 "COMMAND_UNSIGNED",
        /// The signature of the command does not hold, or is that of another command.
        CommandSigInvalid = 121 "COMMAND_SIG_INVALID",
        /// The command was signed for another session.
        CommandAudience = 122 "COMMAND_AUDIENCE",
        /// The signature of the command is no longer valid, or would be for too long.
        CommandExpired = 123 "COMMAND_EXPIRED",
        /// The signed command was used before.
        CommandReplayed = 124 "COMMAND_REPLAYED",
        /// A key of another role is needed for this.
        KeyWrongRole = 125 "KEY_WRONG_ROLE",
        /// The session is closed.
        SessionClosed = 201 "SESSION_CLOSED",
        /// Nobody of that id is known here.
        UnknownPrincipal = 203 "UNKNOWN_PRINCIPAL",
        /// The principal has ended or was removed.
        PrincipalDead = 204 "PRINCIPAL_DEAD",
        /// A principal of this kind may not ask that.
        WrongKind = 205 "WRONG_KIND",
        /// The state it is in does not allow that.
        IllegalTransition = 206 "ILLEGAL_TRANSITION",
        /// The agent, or one above it, waits for somebody.
        AgentPaused = 207 "AGENT_PAUSED",
        /// The agent has ended and takes no messages.
        AgentEnded = 208 "AGENT_ENDED",
        /// No such task is known here, or it is another agent's.
        UnknownTask = 209 "UNKNOWN_TASK",
        /// It may be asked again later.
        TooEarly = 210 "TOO_EARLY",
        /// What must hold first does not.
        ConditionNotMet = 211 "CONDITION_NOT_MET",
        /// No such message waits for who asks.
        UnknownMessage = 212 "UNKNOWN_MESSAGE",
        /// The grant is not known here, or none was named.
        NoGrant = 301 "NO_GRANT",
        /// Somebody else holds the grant.
        NotHolder = 302 "NOT_HOLDER",
        /// The grant may be handed on but not used.
        NoUse = 303 "NO_USE",
        /// The grant or one above it is revoked.
        Revoked = 304 "REVOKED",
        /// The grant or one above it has expired.
        Expired = 305 "EXPIRED",
        /// The grant or one above it is not yet valid.
        NotYet = 306 "NOT_YET",
        /// The holder of the grant or of one above it is gone.
        HolderDead = 307 "HOLDER_DEAD",
        /// The parent grant is missing, later or of another session.
        BadParent = 308 "BAD_PARENT",
        /// The parent grant may not be delegated further.
        NoDelegate = 309 "NO_DELEGATE",
        /// A convey grant may not come back to one of its holders.
        SelfConvey = 310 "SELF_CONVEY",
        /// The child grant is wider than its parent.
        NotAttenuated = 311 "NOT_ATTENUATED",
        /// The administrative right is not held.
        NoAdmin = 312 "NO_ADMIN",
        /// Who asks may not revoke this grant.
        NotRevoker = 313 "NOT_REVOKER",
        /// The tool is not bound in this session.
        UnknownTool = 401 "UNKNOWN_TOOL",
        /// The tool bound here has another digest.
        DigestChanged = 402 "DIGEST_CHANGED",
        /// The grant does not cover what is needed.
        OutOfScope = 403 "OUT_OF_SCOPE",
        /// The grant covers it, the narrowing of this command does not.
        Narrowed = 404 "NARROWED",
        /// Fewer or more grants were named than the call has needs.
        NeedUnnamed = 405 "NEED_UNNAMED",
        /// The tool is registered and not approved.
        ToolNotApproved = 407 "TOOL_NOT_APPROVED",
        /// The tool is disabled.
        ToolDisabled = 408 "TOOL_DISABLED",
        /// The tool is quarantined.
        ToolQuarantined = 409 "TOOL_QUARANTINED",
        /// Nothing here runs code of this type.
        UnsupportedCodeType = 410 "UNSUPPORTED_CODE_TYPE",
        /// The tool talks to a person and there is no terminal.
        NeedsTerminal = 411 "NEEDS_TERMINAL",
        /// The call would wait for a lane that its own ancestor holds.
        WouldDeadlock = 412 "WOULD_DEADLOCK",
        /// The node cannot enforce the confinement that the tool demands.
        LevelBelowRequired = 413 "LEVEL_BELOW_REQUIRED",
        /// The model cannot take a part of the request.
        UnsupportedPart = 414 "UNSUPPORTED_PART",
        /// An approval is due and nobody can give it.
        ApprovalUnavailable = 502 "APPROVAL_UNAVAILABLE",
        /// A policy that a grant names is not bound here.
        PolicyUnavailable = 510 "POLICY_UNAVAILABLE",
        /// The budget of a grant has no room.
        Budget = 601 "BUDGET",
        /// A sum of budgets does not fit a number.
        BudgetOverflow = 602 "BUDGET_OVERFLOW",
        /// The budget of a grant is already over.
        BudgetOverrun = 603 "BUDGET_OVERRUN",
        /// A count has reached its limit.
        Limit = 604 "LIMIT",
        /// A grant limits what the tool declares no worst case for.
        ReserveUndeclared = 605 "RESERVE_UNDECLARED",
        /// Too soon after the last one.
        Rate = 606 "RATE",
        /// A grant limits money and the model has no price.
        NoPrice = 607 "NO_PRICE",
        /// As many agents as may be.
        AgentCap = 608 "AGENT_CAP",
        /// As many unread messages as may be.
        MailboxFull = 609 "MAILBOX_FULL",
        /// One model reply held too many calls.
        TooManyCalls = 611 "TOO_MANY_CALLS",
        /// No such call is known here.
        UnknownCall = 701 "UNKNOWN_CALL",
        /// The call has ended already.
        AlreadyFinished = 702 "ALREADY_FINISHED",
        /// Somebody else runs this call.
        NotExecutor = 703 "NOT_EXECUTOR",
    }
}

impl Code {
    /// Whether a limit was reached: a budget, a rate or a bound on how many. Asking again later may be answered
    /// otherwise; asking for more is another grant.
    pub fn is_limit(self) -> bool {
        (600..700).contains(&self.number())
    }
}

numbered! {
    /// The dimension in which something is too wide or a count too high.
    Dim: u16 {
        /// Scopes of different kinds.
        Kind = 1 "kind",
        /// The root of a file scope.
        Root = 2 "root",
        /// The scheme of a network scope.
        Scheme = 3 "scheme",
        /// The profile of a code scope.
        Profile = 4 "profile",
        /// A name pattern.
        Name = 5 "name",
        /// A path pattern.
        Path = 6 "path",
        /// File operations.
        Ops = 7 "ops",
        /// A host pattern.
        Host = 8 "host",
        /// Port ranges.
        Ports = 9 "ports",
        /// Methods.
        Methods = 10 "methods",
        /// Environment names.
        Env = 11 "env",
        /// Code types.
        Lang = 12 "lang",
        /// Administrative operations.
        Admin = 13 "admin",
        /// Tool digests.
        Digest = 14 "digest",
        /// Executables.
        Exe = 15 "exe",
        /// Argument constraints.
        Args = 16 "args",
        /// Whether other arguments are allowed.
        Closed = 17 "closed",
        /// Live agents.
        Live = 18 "live",
        /// Calls.
        Calls = 19 "calls",
        /// Bytes in.
        BytesIn = 20 "bytes_in",
        /// Bytes out.
        BytesOut = 21 "bytes_out",
        /// Tokens.
        Tokens = 22 "tokens",
        /// Micro-USD.
        CostMicro = 23 "cost_micro",
        /// Wall time in µs.
        WallUs = 24 "wall_us",
        /// CPU time in µs.
        CpuUs = 25 "cpu_us",
        /// Rate.
        Rate = 26 "rate",
        /// Validity in time.
        Time = 27 "time",
        /// Gates.
        Gates = 28 "gates",
        /// Answered policies.
        Answers = 29 "answers",
        /// Depth of delegation, or of agents.
        Depth = 30 "depth",
        /// Children.
        Children = 31 "children",
        /// Grants.
        Grants = 32 "grants",
        /// Calls in flight.
        InFlight = 33 "in_flight",
        /// Pending approvals.
        Pending = 34 "pending",
        /// Nonces.
        Nonces = 35 "nonces",
        /// Agents.
        Agents = 36 "agents",
        /// Tasks.
        Tasks = 37 "tasks",
    }
}

/// A refusal before it is an event: the code and what is known about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}")]
pub struct Denial {
    /// The code.
    pub code: Code,
    /// The nearest grant on a chain that failed.
    pub failed_at: Option<GrantId>,
    /// The need or item that failed, from 0.
    pub item: Option<u16>,
    /// The dimension that did not fit.
    pub dim: Option<Dim>,
    /// The capability that would have been needed, as canonical text.
    pub need: Option<String>,
    /// The limit that was reached.
    pub limit: Option<LimitReached>,
    /// When it may be asked again.
    pub retry_at: Option<TimeUs>,
    /// The policy or rule that decided.
    pub rule: Option<String>,
    /// Where a signed command was used first.
    pub first_seq: Option<Seq>,
}

impl Denial {
    /// A refusal of which nothing but the code is known.
    pub fn new(code: Code) -> Denial {
        Denial {
            code,
            failed_at: None,
            item: None,
            dim: None,
            need: None,
            limit: None,
            retry_at: None,
            rule: None,
            first_seq: None,
        }
    }

    pub(crate) fn at_grant(mut self, grant: GrantId) -> Denial {
        self.failed_at = Some(grant);
        self
    }

    pub(crate) fn item(mut self, item: usize) -> Denial {
        self.item = u16::try_from(item).ok();
        self
    }

    pub(crate) fn dim(mut self, dim: Dim) -> Denial {
        self.dim = Some(dim);
        self
    }

    pub(crate) fn need(mut self, need: impl std::fmt::Display) -> Denial {
        self.need = Some(need.to_string());
        self
    }

    pub(crate) fn rule(mut self, rule: &str) -> Denial {
        self.rule = Some(rule.to_owned());
        self
    }

    /// A count that has reached its limit.
    pub(crate) fn count(code: Code, dim: Dim, limit: u64, spent: u64, asked: u64) -> Denial {
        let mut denial = Denial::new(code).dim(dim);
        denial.limit = Some(LimitReached { dim: dim.number(), limit, spent, reserved: 0, asked });
        denial
    }
}
