//! The words in which the native tools write their specs.

use toka_kernel::denial::Dim;
use toka_kernel::facts::FactType;
use toka_kernel::hash::{Context, derive};
use toka_kernel::ids::Digest;
use toka_kernel::tool::{FactDecl, Need, ParamSpec, ParamType, Reserve};

/// The digest of a program that is part of this crate: its name, its own version and the version of the crate.
pub(super) fn program(name: &str, version: &str) -> Digest {
    let parts = ["native", name, version, env!("CARGO_PKG_VERSION")];
    derive(Context::Program, &[parts.join("\0").as_bytes()])
}

pub(super) fn facts(declared: &[(&str, FactType)]) -> Vec<FactDecl> {
    let fact = |(pointer, kind): &(&str, FactType)| FactDecl { pointer: (*pointer).to_owned(), kind: kind.number() };
    declared.iter().map(fact).collect()
}

pub(super) fn need(text: &str) -> Need {
    Need { text: text.to_owned(), when: None }
}

pub(super) fn need_when(text: &str, when: &str) -> Need {
    Need { text: text.to_owned(), when: Some(when.to_owned()) }
}

pub(super) fn param(name: &str, kind: ParamType, description: &str) -> ParamSpec {
    ParamSpec {
        name: name.to_owned(),
        kind: kind.number(),
        required: false,
        default: None,
        min: None,
        max: None,
        max_len: None,
        values: Vec::new(),
        description: description.to_owned(),
        items: None,
    }
}

pub(super) fn required(param: ParamSpec) -> ParamSpec {
    ParamSpec { required: true, ..param }
}

/// With what the tool takes when nothing is given, as canonical JSON.
pub(super) fn or(default: &str, param: ParamSpec) -> ParamSpec {
    ParamSpec { default: Some(default.to_owned()), ..param }
}

pub(super) fn one_of(values: &[&str], param: ParamSpec) -> ParamSpec {
    ParamSpec { values: values.iter().map(|value| (*value).to_owned()).collect(), ..param }
}

pub(super) fn between(min: i64, max: i64, param: ParamSpec) -> ParamSpec {
    ParamSpec { min: Some(min), max: Some(max), ..param }
}

pub(super) fn at_most(bytes: u32, param: ParamSpec) -> ParamSpec {
    ParamSpec { max_len: Some(bytes), ..param }
}

/// The worst case of a call: no tokens, no cost, and what is given here.
pub(super) struct Worst {
    pub(super) bytes_in: u64,
    /// Covers the default of the fact in `per`, since an absent fact adds nothing.
    pub(super) bytes_out: u64,
    /// What each unit of an integer fact adds to the bytes out.
    pub(super) per: Option<(u64, &'static str)>,
    pub(super) cpu_us: u64,
}

/// No call of a native tool may take longer.
const WALL_US: u64 = 30_000_000;

impl Worst {
    pub(super) fn reserve(self) -> Vec<Reserve> {
        let fixed = |dim: Dim, base: u64| Reserve { dim: dim.number(), base, per: 0, pointer: None };
        let (per, pointer) = self.per.map_or((0, None), |(per, pointer)| (per, Some(pointer.to_owned())));
        vec![
            fixed(Dim::BytesIn, self.bytes_in),
            Reserve { dim: Dim::BytesOut.number(), base: self.bytes_out, per, pointer },
            fixed(Dim::Tokens, 0),
            fixed(Dim::CostMicro, 0),
            fixed(Dim::WallUs, WALL_US),
            fixed(Dim::CpuUs, self.cpu_us),
        ]
    }
}
