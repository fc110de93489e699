//! What a tool takes.

use serde::{Deserialize, Serialize};

use super::is_text;
use crate::denial::numbered;
use crate::limits::{ARRAY_ITEMS_MAX, PARAM_CHARS_MAX, VALUES_MAX};

numbered! {
    /// The type of a parameter.
    ParamType: u8 {
        /// Text of at most `max_len` bytes.
        String = 1 "string",
        /// A signed 64-bit integer.
        Integer = 2 "integer",
        /// `true` or `false`.
        Boolean = 3 "boolean",
        /// One of `values`.
        Enum = 4 "enum",
        /// `root:relative`.
        Path = 5 "path",
        /// A host name or address.
        Host = 6 "host",
        /// A list of scalars, at most `max_len` of them.
        Array = 7 "array",
        /// Any JSON.
        Json = 8 "json",
    }
}

/// A parameter of a tool: a member of its arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParamSpec {
    /// `[a-z][a-z0-9_]{0,31}`.
    pub name: String,
    /// The number of a [`ParamType`].
    #[serde(rename = "typ")]
    pub kind: u8,
    /// Whether it must be given.
    #[serde(rename = "req")]
    pub required: bool,
    /// What the tool takes when it is not given, as canonical JSON. For readers: it is never written into arguments.
    #[serde(rename = "dflt")]
    pub default: Option<String>,
    /// The least integer.
    pub min: Option<i64>,
    /// The greatest integer.
    pub max: Option<i64>,
    /// The most bytes of a string, or elements of an array.
    #[serde(rename = "mlen")]
    pub max_len: Option<u32>,
    /// The words of an enum, 1 to 64; empty for every other type.
    #[serde(rename = "vals")]
    pub values: Vec<String>,
    /// What it means: at most 256 characters without control characters.
    #[serde(rename = "desc")]
    pub description: String,
    /// What the elements of an array are; not written for another type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<Items>,
}

/// What the elements of an array parameter are. No path and no host: the walker of the facts does not look there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Items {
    /// The number of a [`ParamType`] with one value: string, integer, boolean or enum.
    #[serde(rename = "typ")]
    pub kind: u8,
    /// As of a parameter.
    pub min: Option<i64>,
    /// As of a parameter.
    pub max: Option<i64>,
    /// As of a parameter.
    #[serde(rename = "mlen")]
    pub max_len: Option<u32>,
    /// As of a parameter.
    #[serde(rename = "vals")]
    pub values: Vec<String>,
}

impl ParamSpec {
    pub(super) fn is_sound(&self) -> bool {
        let Some(kind) = ParamType::from_number(self.kind) else { return false };
        let one =
            Items { kind: self.kind, min: self.min, max: self.max, max_len: self.max_len, values: self.values.clone() };
        let form = match (kind, &self.items) {
            (ParamType::Array, Some(items)) => {
                let plain = Items { max_len: None, ..one } == Items { kind: self.kind, ..Items::EMPTY };
                plain && items.is_sound() && self.max_len.is_none_or(|most| most <= ARRAY_ITEMS_MAX)
            }
            (ParamType::Path | ParamType::Host | ParamType::Json, None) => {
                one == Items { kind: self.kind, ..Items::EMPTY }
            }
            (ParamType::String | ParamType::Integer | ParamType::Boolean | ParamType::Enum, None) => one.is_sound(),
            (_, Some(_)) | (ParamType::Array, None) => false,
        };
        is_param_name(&self.name) && form && is_text(&self.description, 0, PARAM_CHARS_MAX)
    }
}

impl Items {
    const EMPTY: Items = Items { kind: 0, min: None, max: None, max_len: None, values: Vec::new() };

    fn is_sound(&self) -> bool {
        let (words, ranged, bounded) = match ParamType::from_number(self.kind) {
            Some(ParamType::String) => (false, false, true),
            Some(ParamType::Integer) => (false, true, false),
            Some(ParamType::Boolean) => (false, false, false),
            Some(ParamType::Enum) => (true, false, false),
            Some(ParamType::Path | ParamType::Host | ParamType::Array | ParamType::Json) | None => return false,
        };
        let values = if words { (1..=VALUES_MAX).contains(&self.values.len()) } else { self.values.is_empty() };
        let unranged = self.min.is_none() && self.max.is_none();
        values && (ranged || unranged) && (bounded || self.max_len.is_none())
    }
}

/// Whether a text can name a parameter or an artifact: `[a-z][a-z0-9_]{0,31}`.
pub fn is_param_name(name: &str) -> bool {
    name.len() <= 32
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}
