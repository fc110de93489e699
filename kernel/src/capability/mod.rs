//! Capabilities: typed statements of what may be done, the one order over them, and their text.
//!
//! [`Capability`] is what a grant holds, [`Scope`] what it reaches; the need of a call is a [`Scope`] too, and
//! [`Scope::within`] is asked for admission, delegation and narrowing alike. [`Template`] makes needs from the facts of
//! a call. There are no deny rules, regular expressions or globs here, and no sum of grants: a child is compared with
//! its one parent.

mod admin;
mod argument;
mod host;
mod order;
mod parse;
mod pattern;
mod print;
mod scope;
mod template;
mod value;

use std::collections::BTreeSet;

use serde::de::{Deserialize, Deserializer, Visitor};
use serde::ser::{Error as _, Serialize, Serializer};

pub use admin::{AdminOp, AdminScope};
pub use argument::{ArgC, Pointer, Scalar};
pub use host::{HostName, HostPat, Network};
pub use parse::TextError;
pub use pattern::{ExactName, NamePat, PathPat, RootPath, is_exact_name, is_name_seg, is_path_seg, parse_path_fact};
pub use scope::{AgentScope, BadFact, FsOp, FsOps, FsScope, Scope, ToolScope};
pub use template::Template;

use crate::denial::Dim;
use crate::ids::TimeUs;
use crate::limits::{CAPABILITY_BYTES_MAX, DIMENSIONS, GATES_MAX, RATE_BURST_MAX, RATE_PRODUCT_MAX};
use order::{at_most, holds, lower};

/// What may be done, how often, when, and by whose leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capability {
    /// What it reaches.
    pub scope: Scope,
    /// Whether its holder may use it or only hand it on.
    pub use_: Use,
    /// Steps of delegation allowed below it, 0 to 15.
    pub depth: u8,
    /// Amounts and rate.
    pub limits: Limits,
    /// Not valid before this time; absent before issue means as the parent.
    pub nbf_us: Option<TimeUs>,
    /// Not valid from this time on; absent before issue means as the parent.
    pub exp_us: Option<TimeUs>,
    /// Policies that must approve each use, at most 8.
    pub gates: BTreeSet<ExactName>,
}

/// Whether a holder may use a capability. Not part of the order but of the rule of delegation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// Neither use nor hand on for use.
    No,
    /// Hand on, not use.
    Convey,
    /// Use.
    #[default]
    Yes,
}

impl Use {
    /// Its name in the text of a capability.
    pub fn name(self) -> &'static str {
        match self {
            Use::No => "no",
            Use::Convey => "convey",
            Use::Yes => "yes",
        }
    }
}

/// How much a capability allows in its life, and how fast. Absent is without limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Amounts, in the order of [`Limits::DIMS`].
    pub amounts: [Option<u64>; DIMENSIONS],
    /// Uses over time.
    pub rate: Option<Rate>,
}

impl Limits {
    /// The dimension of each amount: calls, bytes in and out, tokens, micro-USD, wall and CPU time in µs.
    pub const DIMS: [Dim; DIMENSIONS] =
        [Dim::Calls, Dim::BytesIn, Dim::BytesOut, Dim::Tokens, Dim::CostMicro, Dim::WallUs, Dim::CpuUs];
}

/// Uses over time: `burst` at once, and one more each `period_us`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    period_us: u64,
    burst: u32,
}

impl Rate {
    /// A rate within its bounds: `1 ≤ period_us`, `1 ≤ burst ≤ 10⁶`, `period_us · burst ≤ 10¹⁶`.
    pub fn new(period_us: u64, burst: u32) -> Option<Rate> {
        let product = period_us.checked_mul(u64::from(burst))?;
        let fits = (1..=RATE_PRODUCT_MAX).contains(&product) && burst <= RATE_BURST_MAX;
        fits.then_some(Rate { period_us, burst })
    }

    /// Microseconds from one use to the next.
    pub fn period_us(self) -> u64 {
        self.period_us
    }

    /// Uses at once.
    pub fn burst(self) -> u32 {
        self.burst
    }
}

impl Capability {
    /// A capability to use this scope, without limits.
    pub fn of(scope: Scope) -> Capability {
        Capability {
            scope,
            use_: Use::Yes,
            depth: 0,
            limits: Limits::default(),
            nbf_us: None,
            exp_us: None,
            gates: BTreeSet::new(),
        }
    }

    /// Whether this capability is nowhere wider than `parent`: scope, limits, rate, time and gates, in this order.
    /// `use` and `depth` are compared by the rule of delegation, not here.
    ///
    /// # Errors
    /// The first dimension in which it is wider, or [`Dim::Time`] when it is never valid.
    pub fn attenuates(&self, parent: &Capability) -> Result<(), Dim> {
        self.scope.within(&parent.scope)?;
        for (index, dim) in Limits::DIMS.into_iter().enumerate() {
            holds(at_most(self.limits.amounts[index], parent.limits.amounts[index]), dim)?;
        }
        holds(rate_within(self.limits.rate, parent.limits.rate), Dim::Rate)?;
        let starts_late_enough = match (self.nbf_us, parent.nbf_us) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(child), Some(parent)) => child >= parent,
        };
        holds(starts_late_enough && at_most(self.exp_us, parent.exp_us) && self.is_ever_valid(), Dim::Time)?;
        holds(self.gates.is_superset(&parent.gates), Dim::Gates)
    }

    /// Copies from `parent` what is absent here and must not mean "unlimited": amounts, rate, `live`, nbf and exp.
    /// Digests, arguments, `closed` and gates are not copied; to drop them is to widen. Doing it twice changes nothing.
    pub fn fill_from(&mut self, parent: &Capability) {
        for (amount, parent) in self.limits.amounts.iter_mut().zip(parent.limits.amounts) {
            *amount = amount.or(parent);
        }
        self.limits.rate = self.limits.rate.or(parent.limits.rate);
        self.nbf_us = self.nbf_us.or(parent.nbf_us);
        self.exp_us = self.exp_us.or(parent.exp_us);
        if let (Scope::Agent(scope), Scope::Agent(parent)) = (&mut self.scope, &parent.scope) {
            scope.live = scope.live.or(parent.live);
        }
    }

    /// The widest capability that attenuates both, with the lesser `use` and `depth`; `None` where a row has nothing in
    /// common, or where the result would exceed the bounds of its arguments or gates.
    pub fn meet(&self, other: &Capability) -> Option<Capability> {
        let amounts = std::array::from_fn(|index| lower(self.limits.amounts[index], other.limits.amounts[index]));
        let rate = match (self.limits.rate, other.limits.rate) {
            (Some(a), Some(b)) => Some(Rate { period_us: a.period_us.max(b.period_us), burst: a.burst.min(b.burst) }),
            (one, None) | (None, one) => one,
        };
        let met = Capability {
            scope: self.scope.meet(&other.scope)?,
            use_: self.use_.min(other.use_),
            depth: self.depth.min(other.depth),
            limits: Limits { amounts, rate },
            nbf_us: self.nbf_us.max(other.nbf_us),
            exp_us: lower(self.exp_us, other.exp_us),
            gates: self.gates.union(&other.gates).cloned().collect(),
        };
        (met.is_ever_valid() && met.gates.len() <= GATES_MAX).then_some(met)
    }

    /// Whether the scopes of both have something in common.
    pub fn overlaps(&self, other: &Capability) -> bool {
        self.scope.overlaps(&other.scope)
    }

    fn is_ever_valid(&self) -> bool {
        self.exp_us.is_none_or(|exp| self.nbf_us.unwrap_or(0) < exp)
    }
}

fn rate_within(child: Option<Rate>, parent: Option<Rate>) -> bool {
    match (child, parent) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(child), Some(parent)) => child.period_us >= parent.period_us && child.burst <= parent.burst,
    }
}

/// As its canonical text.
impl Serialize for Capability {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.to_string();
        if text.len() > CAPABILITY_BYTES_MAX {
            return Err(S::Error::custom("the text of a capability exceeds 4,096 bytes"));
        }
        serializer.serialize_str(&text)
    }
}

/// From its text. Text that is not canonical is read as well: whoever needs the canonical form encodes again and
/// compares.
impl<'de> Deserialize<'de> for Capability {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CapabilityText;
        impl Visitor<'_> for CapabilityText {
            type Value = Capability;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the text of a capability")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Capability, E> {
                let capability = Capability::parse(text).map_err(E::custom)?;
                if print::canonical_len(&capability) > CAPABILITY_BYTES_MAX {
                    return Err(E::custom("the text of a capability exceeds 4,096 bytes"));
                }
                Ok(capability)
            }
        }
        deserializer.deserialize_str(CapabilityText)
    }
}
