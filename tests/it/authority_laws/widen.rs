//! Every way to be wider in one field.

use toka_kernel::capability::{
    AdminOp, AgentScope, ArgC, Capability, ExactName, FsOp, FsOps, FsScope, Limits, NamePat, PathPat, Pointer, Rate,
    RootPath, Scalar, Scope, ToolScope,
};
use toka_kernel::denial::Dim;
use toka_kernel::ids::Digest;

/// Children that are wider than `parent` in one field, by dropping it or else by the least step.
pub(super) fn widenings(parent: &Capability, drop: bool) -> Vec<(Capability, Dim)> {
    let mut all: Vec<(Capability, Dim)> = Vec::new();
    let mut add = |dim, change: &dyn Fn(&mut Capability)| {
        let mut child = parent.clone();
        change(&mut child);
        if child != *parent {
            all.push((child, dim));
        }
    };
    for (index, dim) in Limits::DIMS.into_iter().enumerate() {
        add(dim, &|c| {
            let more = c.limits.amounts[index].and_then(|amount| amount.checked_add(1));
            c.limits.amounts[index] = more.filter(|_| !drop);
        });
    }
    let rate = parent.limits.rate.expect("rate");
    let faster = [Rate::new(rate.period_us() - 1, rate.burst()), Rate::new(rate.period_us(), rate.burst() + 1)];
    for rate in faster {
        add(Dim::Rate, &|c| c.limits.rate = rate.filter(|_| !drop));
    }
    add(Dim::Time, &|c| c.nbf_us = c.nbf_us.and_then(|nbf| nbf.checked_sub(1)).filter(|_| !drop));
    add(Dim::Time, &|c| c.exp_us = c.exp_us.map(|exp| exp + 1).filter(|_| !drop));
    add(Dim::Gates, &|c| {
        c.gates.pop_first();
    });
    for (scope, dim) in wider_scopes(&parent.scope, drop) {
        add(dim, &|c| c.scope = scope.clone());
    }
    all
}

fn wider_scopes(scope: &Scope, drop: bool) -> Vec<(Scope, Dim)> {
    let mut all = Vec::new();
    match scope {
        Scope::Tool(tool) => {
            let digests = tool.digests().map(<[Digest]>::to_vec);
            let args = tool.args().to_vec();
            let new =
                |name: NamePat, digests, args, closed| ToolScope::new(name, digests, args, closed).map(Scope::Tool);
            all.push((Scope::parse("agent:a").ok(), Dim::Kind));
            for name in wider_names(tool.name()) {
                all.push((new(name, digests.clone(), args.clone(), tool.is_closed()).ok(), Dim::Name));
            }
            if let Some(mut more) = digests.clone() {
                more.push(Digest([7; 32]));
                let wider = Some(more).filter(|_| !drop);
                all.push((new(tool.name().clone(), wider, args.clone(), tool.is_closed()).ok(), Dim::Digest));
            }
            for (index, (_, arg)) in args.iter().enumerate() {
                let mut wider = args.clone();
                match wider_arg(arg).filter(|_| !drop) {
                    Some(arg) => wider[index].1 = arg,
                    None => drop_arg(&mut wider, index),
                }
                all.push((new(tool.name().clone(), digests.clone(), wider, tool.is_closed()).ok(), Dim::Args));
            }
            if tool.is_closed() {
                let mut more = args.clone();
                more.push((Pointer::parse("/other").expect("pointer"), ArgC::one(Scalar::Int(1))));
                let wider = if drop { (args, false) } else { (more, true) };
                all.push((new(tool.name().clone(), digests, wider.0, wider.1).ok(), Dim::Closed));
            }
        }
        Scope::Fs(fs) => {
            let (path, ops) = (fs.path(), fs.ops());
            let new = |path: PathPat, ops| FsScope::new(path, ops).map(Scope::Fs).ok();
            let at = |text: &str| RootPath::parse_fact(text).expect("path");
            let relative = path.anchor().segments().collect::<Vec<_>>();
            all.push((Scope::parse("tool:a").ok(), Dim::Kind));
            all.push((new(PathPat::exact(at("other:a")), FsOps::NONE.with(FsOp::Read)), Dim::Root));
            if !path.is_under() {
                all.push((new(PathPat::under(path.anchor().clone()), ops), Dim::Path));
            } else if let Some((last, above)) = relative.split_last() {
                let text = format!("{}:{}", path.anchor().root(), above.join("/"));
                let trap = format!("{}:{}x", path.anchor().root(), [above, &[last]].concat().join("/"));
                all.push((new(PathPat::under(at(&text)), ops), Dim::Path));
                all.push((new(PathPat::under(at(&trap)), ops), Dim::Path));
            }
            for op in FsOp::ALL.iter().filter(|op| !ops.has(**op)) {
                all.push((new(path.clone(), ops.with(*op)), Dim::Ops));
            }
        }
        Scope::Agent(agent) => {
            all.push((Scope::parse("fs:r#read").ok(), Dim::Kind));
            for spec in wider_names(&agent.spec) {
                all.push((Some(Scope::Agent(AgentScope { spec, live: agent.live })), Dim::Name));
            }
            if let Some(live) = agent.live {
                let live = live.checked_add(1).filter(|_| !drop);
                all.push((Some(Scope::Agent(AgentScope { spec: agent.spec.clone(), live })), Dim::Live));
            }
        }
        Scope::Model(name) => {
            all.push((Scope::parse("fs:r#read").ok(), Dim::Kind));
            all.push((Some(Scope::Agent(AgentScope { spec: name.clone(), live: None })), Dim::Kind));
            all.extend(wider_names(name).into_iter().map(|name| (Some(Scope::Model(name)), Dim::Name)));
        }
        Scope::Admin(admin) => {
            all.push((Scope::parse("fs:r#read").ok(), Dim::Kind));
            for op in AdminOp::ALL.iter().filter(|op| !admin.has(**op)) {
                let ops: Vec<AdminOp> = admin.iter().chain([*op]).collect();
                all.push((Scope::admin_need(&ops), Dim::Admin));
            }
        }
    }
    all.into_iter().filter_map(|(scope, dim)| Some((scope?, dim))).collect()
}

fn wider_arg(arg: &ArgC) -> Option<ArgC> {
    match arg {
        ArgC::Set(values) => {
            let more = Scalar::Str("more".into());
            Some(ArgC::Set(values.iter().cloned().chain([more]).collect()))
        }
        ArgC::Range { lo, hi: i64::MAX } => lo.checked_sub(1).map(|lo| ArgC::Range { lo, hi: i64::MAX }),
        ArgC::Range { lo, hi } => Some(ArgC::Range { lo: *lo, hi: hi + 1 }),
        ArgC::Len(max) => max.checked_add(1).map(ArgC::Len),
        ArgC::Path(path) if !path.is_under() => Some(ArgC::Path(PathPat::under(path.anchor().clone()))),
        ArgC::Path(_) | ArgC::Host(_) | ArgC::Absent => None,
    }
}

/// Where the scope is open this drops the constraint; where it is closed the argument becomes absent instead.
fn drop_arg(args: &mut Vec<(Pointer, ArgC)>, index: usize) {
    if args[index].1 == ArgC::Absent {
        args.remove(index);
    } else {
        args[index].1 = ArgC::Absent;
    }
}

fn wider_names(name: &NamePat) -> Vec<NamePat> {
    match name {
        NamePat::Any => vec![],
        NamePat::Below(name) => {
            let trap = ExactName::parse(&format!("{name}x")).expect("name");
            vec![NamePat::Any, NamePat::Exact(name.clone()), NamePat::Below(trap)]
        }
        NamePat::Exact(name) => vec![NamePat::Any, NamePat::Below(name.clone())],
    }
}
