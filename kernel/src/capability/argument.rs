//! Constraints on the facts of a call's arguments.

use std::collections::BTreeSet;

use super::host::HostPat;
use super::pattern::PathPat;
use crate::denial::Code;
use crate::limits::{SCALAR_BYTES_MAX, SCALARS_MAX};

/// A JSON pointer (RFC 6901) into the arguments of a call, 1 to 256 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pointer(Box<str>);

impl Pointer {
    /// Reads a pointer to a member: it begins with `/`, and `~` stands only in `~0` and `~1`.
    ///
    /// # Errors
    /// [`Code::Malformed`] for anything else, the empty pointer included.
    pub fn parse(text: &str) -> Result<Pointer, Code> {
        let escapes = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        let fits = text.starts_with('/') && text.len() <= SCALAR_BYTES_MAX && escapes;
        if fits { Ok(Pointer(text.into())) } else { Err(Code::Malformed) }
    }

    /// The pointer as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A value that an argument may have. Sets are ordered: booleans, integers by value, strings by bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scalar {
    /// A boolean.
    Bool(bool),
    /// A signed integer.
    Int(i64),
    /// A string of at most 256 bytes.
    Str(Box<str>),
}

/// What must hold of one fact. All but `Absent` demand that the fact is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArgC {
    /// One of 1 to 64 values.
    Set(BTreeSet<Scalar>),
    /// An integer from `lo` to `hi`, both included, `lo ≤ hi`.
    Range {
        /// The least value.
        lo: i64,
        /// The greatest value.
        hi: i64,
    },
    /// A string of at most this many bytes.
    Len(u32),
    /// A path fact.
    Path(PathPat),
    /// A host fact.
    Host(HostPat),
    /// The fact is not there.
    Absent,
}

impl ArgC {
    /// Exactly this value.
    pub fn one(value: Scalar) -> ArgC {
        ArgC::Set(BTreeSet::from([value]))
    }

    /// Whether the constraint keeps its bounds and can be met by some fact.
    pub(super) fn is_sound(&self) -> bool {
        match self {
            ArgC::Set(values) => (1..=SCALARS_MAX).contains(&values.len()) && values.iter().all(Scalar::fits),
            ArgC::Range { lo, hi } => lo <= hi,
            ArgC::Len(_) | ArgC::Path(_) | ArgC::Host(_) | ArgC::Absent => true,
        }
    }

    /// Whether every fact that meets this constraint meets `wide`, as far as the order says.
    pub fn implies(&self, wide: &ArgC) -> bool {
        match (self, wide) {
            (ArgC::Set(values), ArgC::Set(wide)) => values.iter().all(|value| wide.contains(value)),
            (ArgC::Set(values), ArgC::Range { lo, hi }) => values.iter().all(|value| value.in_range(*lo, *hi)),
            (ArgC::Set(values), ArgC::Len(max)) => values.iter().all(|value| value.in_len(*max)),
            (ArgC::Range { lo, hi }, ArgC::Range { lo: wide_lo, hi: wide_hi }) => wide_lo <= lo && hi <= wide_hi,
            (ArgC::Len(max), ArgC::Len(wide)) => max <= wide,
            (ArgC::Path(path), ArgC::Path(wide)) => wide.covers(path),
            (ArgC::Host(host), ArgC::Host(wide)) => wide.covers(host),
            (ArgC::Absent, ArgC::Absent) => true,
            (
                ArgC::Set(_) | ArgC::Range { .. } | ArgC::Len(_) | ArgC::Path(_) | ArgC::Host(_) | ArgC::Absent,
                ArgC::Set(_) | ArgC::Range { .. } | ArgC::Len(_) | ArgC::Path(_) | ArgC::Host(_) | ArgC::Absent,
            ) => false,
        }
    }

    /// Whether some constraint implies both.
    pub(super) fn overlaps(&self, other: &ArgC) -> bool {
        match (self, other) {
            (ArgC::Set(a), ArgC::Set(b)) => !a.is_disjoint(b),
            (ArgC::Set(values), ArgC::Range { lo, hi }) | (ArgC::Range { lo, hi }, ArgC::Set(values)) => {
                values.iter().any(|value| value.in_range(*lo, *hi))
            }
            (ArgC::Set(values), ArgC::Len(max)) | (ArgC::Len(max), ArgC::Set(values)) => {
                values.iter().any(|value| value.in_len(*max))
            }
            (ArgC::Range { lo, hi }, ArgC::Range { lo: other_lo, hi: other_hi }) => {
                lo.max(other_lo) <= hi.min(other_hi)
            }
            (
                ArgC::Set(_) | ArgC::Range { .. } | ArgC::Len(_) | ArgC::Path(_) | ArgC::Host(_) | ArgC::Absent,
                ArgC::Set(_) | ArgC::Range { .. } | ArgC::Len(_) | ArgC::Path(_) | ArgC::Host(_) | ArgC::Absent,
            ) => self.implies(other) || other.implies(self),
        }
    }

    /// The widest constraint that implies both.
    pub(super) fn meet(&self, other: &ArgC) -> Option<ArgC> {
        let met = match (self, other) {
            (ArgC::Set(a), ArgC::Set(b)) => ArgC::Set(a.intersection(b).cloned().collect()),
            (ArgC::Set(values), ArgC::Range { lo, hi }) | (ArgC::Range { lo, hi }, ArgC::Set(values)) => {
                ArgC::Set(values.iter().filter(|value| value.in_range(*lo, *hi)).cloned().collect())
            }
            (ArgC::Set(values), ArgC::Len(max)) | (ArgC::Len(max), ArgC::Set(values)) => {
                ArgC::Set(values.iter().filter(|value| value.in_len(*max)).cloned().collect())
            }
            (ArgC::Range { lo, hi }, ArgC::Range { lo: other_lo, hi: other_hi }) => {
                ArgC::Range { lo: *lo.max(other_lo), hi: *hi.min(other_hi) }
            }
            (
                ArgC::Set(_) | ArgC::Range { .. } | ArgC::Len(_) | ArgC::Path(_) | ArgC::Host(_) | ArgC::Absent,
                ArgC::Set(_) | ArgC::Range { .. } | ArgC::Len(_) | ArgC::Path(_) | ArgC::Host(_) | ArgC::Absent,
            ) => smaller(self, other, ArgC::implies)?.clone(),
        };
        met.is_sound().then_some(met)
    }
}

impl Scalar {
    fn fits(&self) -> bool {
        match self {
            Scalar::Bool(_) | Scalar::Int(_) => true,
            Scalar::Str(text) => text.len() <= SCALAR_BYTES_MAX,
        }
    }

    fn in_range(&self, lo: i64, hi: i64) -> bool {
        match self {
            Scalar::Int(value) => (lo..=hi).contains(value),
            Scalar::Bool(_) | Scalar::Str(_) => false,
        }
    }

    fn in_len(&self, max: u32) -> bool {
        match self {
            Scalar::Str(text) => u32::try_from(text.len()).is_ok_and(|len| len <= max),
            Scalar::Bool(_) | Scalar::Int(_) => false,
        }
    }
}

/// The smaller of two values, where what is not comparable has nothing in common.
pub(super) fn smaller<'v, T>(a: &'v T, b: &'v T, within: impl Fn(&T, &T) -> bool) -> Option<&'v T> {
    if within(a, b) {
        Some(a)
    } else if within(b, a) {
        Some(b)
    } else {
        None
    }
}
