//! What the rules need to know of a tool.

use serde::{Deserialize, Serialize};

use crate::denial::numbered;
use crate::ids::Digest;

numbered! {
    /// What may be done about a call whose outcome a crash has hidden.
    Effect: u8 {
        /// It changes nothing: run it again.
        Read = 1 "read",
        /// Running it again has the same end: run it again.
        Idempotent = 2 "idempotent",
        /// A probe tells whether it was done.
        Reconcile = 3 "reconcile",
        /// Never run it twice.
        Once = 4 "once",
    }
}

numbered! {
    /// Which kind of executor runs a call. The number less one is its bit in a principal's models.
    Model: u8 {
        /// A registered tool.
        Tool = 1 "tool",
        /// Code sent with the call.
        Code = 2 "code",
        /// An agent.
        Agent = 3 "agent",
    }
}

/// The part of a tool spec that decides, at most 4 KiB encoded. It stands in the event that binds the tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// Its exact name.
    pub name: String,
    /// The digest of the whole spec.
    #[serde(rename = "dig")]
    pub digest: Digest,
    /// The facts it declares, at most 32, each pointer once.
    pub facts: Vec<FactDecl>,
    /// The needs it declares, the tool itself aside, at most 32.
    pub needs: Vec<Need>,
    /// Its effect class: the number of an [`Effect`].
    #[serde(rename = "eff")]
    pub effect: u8,
    /// The worst case per limited dimension; an absent dimension has none.
    #[serde(rename = "rsv")]
    pub reserve: Vec<Reserve>,
    /// Its execution model: the number of a [`Model`].
    #[serde(rename = "mod")]
    pub model: u8,
    /// The blob that holds the whole spec.
    pub text: u16,
}

/// A declared fact, as it stands in a body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FactDecl {
    /// A JSON pointer (RFC 6901), at most 256 bytes.
    #[serde(rename = "ptr")]
    pub pointer: String,
    /// The number of a [`crate::facts::FactType`].
    #[serde(rename = "typ")]
    pub kind: u8,
}

/// A need: the text of a scope with holes over facts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Need {
    /// The template, at most 1,024 bytes.
    pub text: String,
    /// The pointer of a boolean fact without which the need does not apply.
    pub when: Option<String>,
}

/// The worst case of one limited dimension: `base + per × fact`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reserve {
    /// The number of the [`crate::denial::Dim`], 19 (calls) to 25 (cpu_us).
    pub dim: u16,
    /// The fixed part.
    pub base: u64,
    /// What one unit of the fact adds.
    pub per: u64,
    /// The pointer of an integer fact.
    #[serde(rename = "ptr")]
    pub pointer: Option<String>,
}
