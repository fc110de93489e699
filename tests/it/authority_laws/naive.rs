//! What a capability lets through, told of concrete requests and without any order between patterns.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use toka_kernel::capability::{
    AdminOp, ArgC, Capability, FsOp, FsScope, HostPat, NamePat, PathPat, Rate, Scalar, Scope, ToolScope,
};
use toka_kernel::ids::Digest;
use toka_kernel::limits::TIME_US_MAX;

use super::generate;

/// One concrete thing that somebody wants to do.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) what: What,
    pub(super) amounts: [u64; 7],
    pub(super) at_us: u64,
    /// Times of all uses, ascending.
    pub(super) uses_us: Vec<u64>,
    pub(super) approved: BTreeSet<String>,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    Admin(AdminOp),
    Model(String),
    Tool {
        name: String,
        digest: Digest,
        args: BTreeMap<String, Value>,
    },
    /// `Delete` stands for the removal of this path, whichever operation allows it.
    Fs {
        root: String,
        path: Vec<String>,
        op: FsOp,
    },
    Agent {
        spec: String,
        live: u32,
    },
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Scalar(Scalar),
    Path { root: String, path: Vec<String> },
    Host(HostPat),
}

pub(super) fn request() -> impl Strategy<Value = Request> {
    let amounts = proptest::array::uniform7(select(vec![0, 0, 0, 1, 2, u64::MAX]));
    let at_us = select(vec![0, 1, 2, 3, TIME_US_MAX - 1]);
    let uses = vec(select(vec![0, 1, 2, 3, 10_000_000_000]), 0..5).prop_map(|steps| {
        steps
            .iter()
            .scan(0, |time, step| {
                *time += step;
                Some(*time)
            })
            .collect()
    });
    let approved = subsequence(generate::GATES.to_vec(), 1..=3);
    (what(), amounts, at_us, uses, approved).prop_map(|(what, amounts, at_us, uses_us, approved)| Request {
        what,
        amounts,
        at_us,
        uses_us,
        approved: approved.into_iter().map(str::to_owned).collect(),
    })
}

pub(super) fn what() -> impl Strategy<Value = What> {
    let name = || generate::exact_name().prop_map(|name| name.to_string());
    let args = btree_map(select(generate::POINTERS.to_vec()).prop_map(str::to_owned), value(), 0..=2);
    prop_oneof![
        3 => (name(), generate::digest(), args).prop_map(|(name, digest, args)| What::Tool { name, digest, args }),
        3 => (place(), select(FsOp::ALL.to_vec())).prop_map(|((root, path), op)| {
            What::Fs { root, path, op: if op == FsOp::DeleteSelf { FsOp::Delete } else { op } }
        }),
        1 => (name(), select(vec![0, 1, 2, u32::MAX])).prop_map(|(spec, live)| What::Agent { spec, live }),
        1 => name().prop_map(What::Model),
        1 => select(AdminOp::ALL.to_vec()).prop_map(What::Admin),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        3 => generate::scalar().prop_map(Value::Scalar),
        1 => place().prop_map(|(root, path)| Value::Path { root, path }),
        1 => select(vec!["a.b", "x.a.b", "y.x.a.b", "xa.b", "10.0.0.1", "11.0.0.0", "::1"])
            .prop_map(|host| Value::Host(HostPat::parse_exact(host).expect("host"))),
    ]
}

fn place() -> impl Strategy<Value = (String, Vec<String>)> {
    generate::root_path().prop_map(|path| (path.root().to_owned(), path.segments().map(str::to_owned).collect()))
}

pub(super) fn covers(capability: &Capability, request: &Request) -> bool {
    scope_covers(&capability.scope, &request.what)
        && capability
            .limits
            .amounts
            .iter()
            .zip(request.amounts)
            .all(|(limit, used)| limit.is_none_or(|limit| used <= limit))
        && capability.limits.rate.is_none_or(|rate| keeps_rate(rate, &request.uses_us))
        && capability.nbf_us.unwrap_or(0) <= request.at_us
        && capability.exp_us.is_none_or(|exp| request.at_us < exp)
        && capability.gates.iter().all(|gate| request.approved.contains(gate.as_str()))
}

pub(super) fn scope_covers(scope: &Scope, what: &What) -> bool {
    match (scope, what) {
        (Scope::Tool(scope), What::Tool { name, digest, args }) => {
            name_covers(scope.name(), name)
                && scope.digests().is_none_or(|digests| digests.contains(digest))
                && args_cover(scope, args)
        }
        (Scope::Fs(scope), What::Fs { root, path, op }) => {
            path_covers(scope.path(), root, path)
                && if *op == FsOp::Delete { removes(scope, path) } else { scope.ops().has(*op) }
        }
        (Scope::Agent(scope), What::Agent { spec, live }) => {
            name_covers(&scope.spec, spec) && scope.live.is_none_or(|limit| *live <= limit)
        }
        (Scope::Model(pattern), What::Model(name)) => name_covers(pattern, name),
        (Scope::Admin(scope), What::Admin(op)) => scope.has(*op),
        (Scope::Tool(_) | Scope::Fs(_) | Scope::Agent(_) | Scope::Model(_) | Scope::Admin(_), _) => false,
    }
}

pub(super) fn name_covers(pattern: &NamePat, name: &str) -> bool {
    let segments: Vec<&str> = name.split('.').collect();
    match pattern {
        NamePat::Any => true,
        NamePat::Exact(exact) => exact.as_str().split('.').eq(segments),
        NamePat::Below(prefix) => {
            let prefix: Vec<&str> = prefix.as_str().split('.').collect();
            segments.len() > prefix.len() && segments.starts_with(&prefix)
        }
    }
}

pub(super) fn path_covers(pattern: &PathPat, root: &str, path: &[String]) -> bool {
    let anchor: Vec<&str> = pattern.anchor().segments().collect();
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    pattern.anchor().root() == root && if pattern.is_under() { path.starts_with(&anchor) } else { path == anchor }
}

fn removes(scope: &FsScope, path: &[String]) -> bool {
    let is_anchor = scope.path().anchor().segments().eq(path.iter().map(String::as_str));
    scope.ops().has(if is_anchor { FsOp::DeleteSelf } else { FsOp::Delete })
}

fn args_cover(scope: &ToolScope, args: &BTreeMap<String, Value>) -> bool {
    let constrained: BTreeSet<&str> = scope.args().iter().map(|(pointer, _)| pointer.as_str()).collect();
    scope.args().iter().all(|(pointer, arg)| arg_covers(arg, args.get(pointer.as_str())))
        && (!scope.is_closed() || args.keys().all(|pointer| constrained.contains(pointer.as_str())))
}

fn arg_covers(arg: &ArgC, value: Option<&Value>) -> bool {
    match (arg, value) {
        (ArgC::Absent, value) => value.is_none(),
        (ArgC::Set(values), Some(Value::Scalar(value))) => values.iter().any(|known| known == value),
        (ArgC::Range { lo, hi }, Some(Value::Scalar(Scalar::Int(value)))) => lo <= value && value <= hi,
        (ArgC::Len(max), Some(Value::Scalar(Scalar::Str(text)))) => text.len() as u64 <= u64::from(*max),
        (ArgC::Path(pattern), Some(Value::Path { root, path })) => path_covers(pattern, root, path),
        (ArgC::Host(pattern), Some(Value::Host(host))) => host_covers(pattern, host),
        (ArgC::Set(_) | ArgC::Range { .. } | ArgC::Len(_) | ArgC::Path(_) | ArgC::Host(_), _) => false,
    }
}

/// By text, since addresses here are few: `10.0.0.0/8` is all that begin with `10.`, `::/0` all with a colon.
fn host_covers(pattern: &HostPat, host: &HostPat) -> bool {
    let host = host.to_string();
    match pattern.to_string().as_str() {
        "10.0.0.0/8" => host.starts_with("10."),
        "::/0" => host.contains(':'),
        pattern => match pattern.strip_prefix('*') {
            Some(suffix) => host.ends_with(suffix) && host.len() > suffix.len(),
            None => host == pattern,
        },
    }
}

/// A bucket of `burst` uses that gains one each period, counted in µs.
fn keeps_rate(rate: Rate, uses_us: &[u64]) -> bool {
    let (period, full) = (u128::from(rate.period_us()), u128::from(rate.burst()) * u128::from(rate.period_us()));
    let (mut filled, mut last) = (full, 0);
    uses_us.iter().all(|at| {
        filled = full.min(filled + u128::from(at - last));
        last = *at;
        filled >= period && {
            filled -= period;
            true
        }
    })
}
