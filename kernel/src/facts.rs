//! The part of a call's arguments that authority looks at.

use serde::{Deserialize, Serialize};

/// What a declared fact is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FactType {
    /// A signed integer.
    Int = 1,
    /// A boolean, recorded as 0 or 1.
    Bool = 2,
    /// A string.
    Str = 3,
    /// `root:relative`.
    Path = 4,
    /// A host name or address.
    Host = 5,
}

/// A fact that a tool declares: where it stands in the arguments and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FactSpec {
    /// A JSON pointer (RFC 6901), at most 256 bytes.
    pub pointer: String,
    /// Its type.
    pub kind: FactType,
}

/// A fact as it stands in an event. Exactly one of `int` and `text` is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fact {
    /// The pointer of its [`FactSpec`].
    #[serde(rename = "ptr")]
    pub pointer: String,
    /// The value of an integer, or 0 or 1 of a boolean.
    pub int: Option<i64>,
    /// The value of a string, path or host, at most 256 bytes.
    pub text: Option<String>,
}
