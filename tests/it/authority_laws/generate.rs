//! Capabilities from domains so small that they often meet, with prefix traps and values at their bounds.

use std::collections::BTreeSet;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};
use toka_kernel::capability::{
    AdminOp, AdminScope, AgentScope, ArgC, Capability, ExactName, FsOp, FsOps, FsScope, HostPat, Limits, NamePat,
    PathPat, Pointer, Rate, RootPath, Scalar, Scope, ToolScope, Use,
};
use toka_kernel::ids::Digest;
use toka_kernel::limits::TIME_US_MAX;

pub(super) const POINTERS: [&str; 3] = ["/a", "/ab", "/b c"];
pub(super) const STRINGS: [&str; 4] = ["", "a", "ab", "\u{fc}\"\\\u{202e}"];
pub(super) const INTS: [i64; 5] = [i64::MIN, -1, 0, 1, i64::MAX];
pub(super) const GATES: [&str; 3] = ["approval", "two-people", "a.b"];
const HOSTS: [&str; 8] = ["a.b", "x.a.b", "*.a.b", "*.xa.b", "10.0.0.1", "10.0.0.0/8", "::/0", "2001:db8::1"];

pub(super) fn exact_name() -> impl Strategy<Value = ExactName> {
    let segments = prop_oneof![9 => vec(select(vec!["a", "ab", "b"]), 1..=3), 1 => vec(Just("a"), 7)];
    segments.prop_map(|segments| ExactName::parse(&segments.join(".")).expect("name"))
}

pub(super) fn name_pat() -> impl Strategy<Value = NamePat> {
    prop_oneof![
        1 => Just(NamePat::Any),
        3 => exact_name().prop_map(NamePat::Below),
        3 => exact_name().prop_map(NamePat::Exact),
    ]
}

pub(super) fn root_path() -> impl Strategy<Value = RootPath> {
    let segments = prop_oneof![
        19 => vec(select(vec!["a", "ab", "b", "b c", "**", "\u{fc}", "%2e"]), 0..=3),
        1 => vec(Just("a"), 64),
    ];
    (select(vec!["r", "r", "r", "rr"]), segments)
        .prop_map(|(root, segments)| RootPath::parse_fact(&format!("{root}:{}", segments.join("/"))).expect("path"))
}

pub(super) fn path_pat() -> impl Strategy<Value = PathPat> {
    (root_path(), any::<bool>())
        .prop_map(|(path, under)| if under { PathPat::under(path) } else { PathPat::exact(path) })
}

pub(super) fn host_pat() -> impl Strategy<Value = HostPat> {
    select(HOSTS.to_vec()).prop_map(|text| HostPat::parse(text).expect("host"))
}

pub(super) fn scalar() -> impl Strategy<Value = Scalar> {
    prop_oneof![
        any::<bool>().prop_map(Scalar::Bool),
        select(INTS.to_vec()).prop_map(Scalar::Int),
        select(STRINGS.to_vec()).prop_map(|text| Scalar::Str(text.into())),
    ]
}

pub(super) fn arg() -> impl Strategy<Value = ArgC> {
    prop_oneof![
        4 => vec(scalar(), 1..=4).prop_map(|values| ArgC::Set(values.into_iter().collect())),
        2 => (select(INTS.to_vec()), select(INTS.to_vec()))
            .prop_map(|(a, b)| ArgC::Range { lo: a.min(b), hi: a.max(b) }),
        1 => select(vec![0, 1, 2, u32::MAX]).prop_map(ArgC::Len),
        1 => path_pat().prop_map(ArgC::Path),
        1 => host_pat().prop_map(ArgC::Host),
        2 => Just(ArgC::Absent),
    ]
}

pub(super) fn digest() -> impl Strategy<Value = Digest> {
    select(vec![Digest::ZERO, Digest([1; 32]), Digest([255; 32])])
}

pub(super) fn tool_scope() -> impl Strategy<Value = ToolScope> {
    let digests =
        option::of(vec(digest(), 1..=3).prop_map(|digests| BTreeSet::from_iter(digests).into_iter().collect()));
    let args = btree_map(select(POINTERS.to_vec()), arg(), 0..=2);
    (name_pat(), digests, args, any::<bool>()).prop_map(|(name, digests, args, closed)| {
        let args = args.into_iter().map(|(pointer, arg)| (Pointer::parse(pointer).expect("pointer"), arg)).collect();
        ToolScope::new(name, digests, args, closed).expect("tool scope")
    })
}

/// Scopes that differ in one argument alone.
pub(super) fn one_argument() -> impl Strategy<Value = ToolScope> {
    (arg(), any::<bool>()).prop_map(|(arg, closed)| {
        let args = vec![(Pointer::parse("/a").expect("pointer"), arg)];
        ToolScope::new(NamePat::Any, None, args, closed).expect("tool scope")
    })
}

pub(super) fn fs_scope() -> impl Strategy<Value = FsScope> {
    (path_pat(), subsequence(FsOp::ALL.to_vec(), 1..=7)).prop_map(|(path, ops)| {
        let ops = ops.into_iter().fold(FsOps::NONE, FsOps::with);
        let ops = if path.is_under() { ops } else { ops.without(FsOp::Delete) };
        FsScope::new(path, if ops.is_empty() { ops.with(FsOp::Read) } else { ops }).expect("fs scope")
    })
}

pub(super) fn agent_scope() -> impl Strategy<Value = AgentScope> {
    (name_pat(), option::of(select(vec![0, 1, 2, u32::MAX]))).prop_map(|(spec, live)| AgentScope { spec, live })
}

pub(super) fn admin_scope() -> impl Strategy<Value = AdminScope> {
    subsequence(AdminOp::ALL.to_vec(), 1..=AdminOp::ALL.len()).prop_map(|ops| AdminScope::new(&ops).expect("ops"))
}

pub(super) fn scope() -> impl Strategy<Value = Scope> {
    prop_oneof![
        3 => tool_scope().prop_map(Scope::Tool),
        2 => one_argument().prop_map(Scope::Tool),
        3 => fs_scope().prop_map(Scope::Fs),
        1 => agent_scope().prop_map(Scope::Agent),
        1 => name_pat().prop_map(Scope::Model),
        1 => admin_scope().prop_map(Scope::Admin),
    ]
}

pub(super) fn amounts() -> impl Strategy<Value = [Option<u64>; 7]> {
    proptest::array::uniform7(prop_oneof![
        3 => Just(None),
        1 => select(vec![0, 1, 2, u64::MAX]).prop_map(Some)
    ])
}

pub(super) fn rate() -> impl Strategy<Value = Rate> {
    let bounds = vec![(1, 1), (1, 1_000_000), (2, 2), (3, 2), (10_000_000_000, 1_000_000), (10_000_000_000_000_000, 1)];
    select(bounds).prop_map(|(period_us, burst)| Rate::new(period_us, burst).expect("rate"))
}

pub(super) fn window() -> impl Strategy<Value = (Option<u64>, Option<u64>)> {
    let nbf = option::of(select(vec![0, 1, 2, TIME_US_MAX - 1]));
    let exp = option::of(select(vec![1, 2, 3, TIME_US_MAX]));
    (nbf, exp).prop_map(|(nbf, exp)| (nbf, exp.filter(|exp| nbf.unwrap_or(0) < *exp)))
}

pub(super) fn gates() -> impl Strategy<Value = BTreeSet<ExactName>> {
    subsequence(GATES.to_vec(), 0..=2)
        .prop_map(|gates| gates.into_iter().map(|gate| ExactName::parse(gate).expect("gate")).collect())
}

pub(super) fn capability() -> impl Strategy<Value = Capability> {
    let use_ = select(vec![Use::No, Use::Convey, Use::Yes]);
    let limits = (amounts(), option::weighted(0.3, rate())).prop_map(|(amounts, rate)| Limits { amounts, rate });
    (scope(), use_, select(vec![0, 1, 15]), limits, window(), gates()).prop_map(
        |(scope, use_, depth, limits, (nbf_us, exp_us), gates)| Capability {
            scope,
            use_,
            depth,
            limits,
            nbf_us,
            exp_us,
            gates,
        },
    )
}

/// Some capabilities of which many are related: each may be the meet of others, or share the scope of the first.
pub(super) fn related(count: usize) -> impl Strategy<Value = Vec<Capability>> {
    let step = (0..4u8, any::<Index>(), capability());
    (capability(), vec(step, count - 1)).prop_map(|(first, steps)| {
        let mut all = vec![first];
        for (how, index, new) in steps {
            let old = index.get(&all).clone();
            let same_scope = Capability { scope: old.scope.clone(), ..new.clone() };
            all.push(match how {
                0 => new,
                1 => old.meet(&same_scope).unwrap_or(old),
                2 => Capability { scope: old.scope.meet(&new.scope).unwrap_or(new.scope), ..old },
                _ => old.meet(&new).unwrap_or(same_scope),
            });
        }
        all
    })
}

/// Texts with whatever the quotes have to carry.
pub(super) fn wild_capability() -> impl Strategy<Value = Capability> {
    let segment = "\\PC{1,12}".prop_filter("segment", |text| toka_kernel::capability::is_path_seg(text));
    let path = vec(segment, 0..4)
        .prop_map(|segments| PathPat::under(RootPath::parse_fact(&format!("r:{}", segments.join("/"))).expect("path")));
    let pointer = "/(?s:.){0,6}".prop_filter_map("pointer", |text| Pointer::parse(&text).ok());
    let value =
        prop_oneof!["(?s:.){0,9}".prop_map(|text| Scalar::Str(text.into())), any::<i64>().prop_map(Scalar::Int)];
    let arg = prop_oneof![
        vec(value, 1..5).prop_map(|values| ArgC::Set(values.into_iter().collect())),
        path.clone().prop_map(ArgC::Path)
    ];
    let scope = prop_oneof![
        path.prop_map(|path| Scope::Fs(FsScope::new(path, FsOps::NONE.with(FsOp::DeleteSelf)).expect("fs"))),
        (vec((pointer, arg), 0..3), any::<bool>()).prop_filter_map("pointers", |(args, closed)| {
            ToolScope::new(NamePat::Any, None, args, closed).ok().map(Scope::Tool)
        }),
    ];
    (scope, capability()).prop_map(|(scope, rest)| Capability { scope, ..rest })
}
