//! Capabilities as the pages describe them: plain fields, the order row by row, the canonical text.

use std::collections::{BTreeMap, BTreeSet};

/// Numbers of the dimensions, as the registry lists them.
pub(crate) mod dim {
    pub(crate) const KIND: u16 = 1;
    pub(crate) const ROOT: u16 = 2;
    pub(crate) const NAME: u16 = 5;
    pub(crate) const PATH: u16 = 6;
    pub(crate) const OPS: u16 = 7;
    pub(crate) const ADMIN: u16 = 13;
    pub(crate) const DIGEST: u16 = 14;
    pub(crate) const ARGS: u16 = 16;
    pub(crate) const CLOSED: u16 = 17;
    pub(crate) const LIVE: u16 = 18;
    pub(crate) const CALLS: u16 = 19;
    pub(crate) const RATE: u16 = 26;
    pub(crate) const TIME: u16 = 27;
    pub(crate) const GATES: u16 = 28;
    pub(crate) const DEPTH: u16 = 30;
    pub(crate) const CHILDREN: u16 = 31;
    pub(crate) const AGENTS: u16 = 36;
    pub(crate) const TASKS: u16 = 37;
}

/// "Never".
pub(crate) const NEVER: u64 = (1 << 53) - 1;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cap {
    pub(crate) scope: Scope,
    pub(crate) use_: Use,
    pub(crate) depth: u8,
    pub(crate) limits: [Option<u64>; 7],
    /// Burst and period.
    pub(crate) rate: Option<(u32, u64)>,
    pub(crate) nbf: Option<u64>,
    pub(crate) exp: Option<u64>,
    pub(crate) gates: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    No,
    Convey,
    Yes,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Scope {
    Fs { path: Path, ops: BTreeSet<&'static str> },
    Tool { name: String, digest: Option<BTreeSet<u8>>, args: BTreeMap<String, Arg>, closed: bool },
    Agent { spec: String, live: Option<u32> },
    Admin { ops: BTreeSet<&'static str> },
}

/// A root with segments, and whether everything below is meant.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Path {
    pub(crate) root: String,
    pub(crate) segs: Vec<String>,
    pub(crate) under: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Arg {
    Ints(BTreeSet<i64>),
    Bools(BTreeSet<bool>),
    Range(i64, i64),
    Path(Path),
    Absent,
}

impl Path {
    /// `root:a/b`, as a fact writes it.
    pub(crate) fn of_fact(text: &str) -> Path {
        let (root, relative) = text.split_once(':').expect("a path fact");
        let segs = if relative.is_empty() { Vec::new() } else { relative.split('/').map(str::to_owned).collect() };
        Path { root: root.to_owned(), segs, under: false }
    }

    fn within(&self, p: &Path) -> bool {
        self.root == p.root && if p.under { self.segs.starts_with(&p.segs) } else { !self.under && self.segs == p.segs }
    }

    fn text(&self) -> String {
        let mut all = vec![self.root.clone()];
        all.extend(self.segs.clone());
        if self.under {
            all.push("**".to_owned());
        }
        all.join("/")
    }
}

/// `*`, `a.b.*` and `a.b`: whether everything `c` means is meant by `p`.
fn name_within(c: &str, p: &str) -> bool {
    match p.strip_suffix('*') {
        None => c == p,
        Some("") => true,
        Some(prefix) => c == p || c.starts_with(prefix),
    }
}

impl Arg {
    fn implies(&self, p: &Arg) -> bool {
        match (self, p) {
            (Arg::Ints(c), Arg::Ints(p)) => c.is_subset(p),
            (Arg::Bools(c), Arg::Bools(p)) => c.is_subset(p),
            (Arg::Ints(c), Arg::Range(lo, hi)) => c.iter().all(|value| lo <= value && value <= hi),
            (Arg::Range(a, b), Arg::Range(lo, hi)) => lo <= a && b <= hi,
            (Arg::Path(c), Arg::Path(p)) => c.within(p),
            (Arg::Absent, Arg::Absent) => true,
            _ => false,
        }
    }

    fn text(&self) -> String {
        match self {
            Arg::Ints(set) => set.iter().map(ToString::to_string).collect::<Vec<_>>().join("|"),
            Arg::Bools(set) => set.iter().map(ToString::to_string).collect::<Vec<_>>().join("|"),
            Arg::Range(lo, hi) => format!("{lo}..{hi}"),
            Arg::Path(path) => format!("path:{}", path.text()),
            Arg::Absent => "absent".to_owned(),
        }
    }
}

impl Scope {
    /// The first row of the order in which `self ⊑ p` fails.
    pub(crate) fn within(&self, p: &Scope) -> Result<(), u16> {
        match (self, p) {
            (Scope::Fs { path: c, ops }, Scope::Fs { path: p, ops: wide }) => {
                row(c.root == p.root, dim::ROOT)?;
                row(c.within(p), dim::PATH)?;
                let below = c.segs.len() > p.segs.len();
                let may = |op: &&str| match *op {
                    "delete-self" => {
                        wide.contains("delete-self") && c.segs == p.segs || wide.contains("delete") && below
                    }
                    op => wide.contains(op),
                };
                row(ops.iter().all(may), dim::OPS)
            }
            (
                Scope::Tool { name: c, digest, args, closed },
                Scope::Tool { name: p, digest: p_digest, args: p_args, closed: p_closed },
            ) => {
                row(name_within(c, p), dim::NAME)?;
                let digests = match (digest, p_digest) {
                    (_, None) => true,
                    (None, Some(_)) => false,
                    (Some(c), Some(p)) => c.is_subset(p),
                };
                row(digests, dim::DIGEST)?;
                let implied = |(pointer, p): (&String, &Arg)| match args.get(pointer) {
                    Some(c) => c.implies(p),
                    None => *closed && *p == Arg::Absent,
                };
                row(p_args.iter().all(implied), dim::ARGS)?;
                let extra = args.iter().any(|(pointer, c)| !p_args.contains_key(pointer) && *c != Arg::Absent);
                row(!*p_closed || *closed && !extra, dim::CLOSED)
            }
            (Scope::Agent { spec: c, live }, Scope::Agent { spec: p, live: p_live }) => {
                row(name_within(c, p), dim::NAME)?;
                row(at_most(live.map(u64::from), p_live.map(u64::from)), dim::LIVE)
            }
            (Scope::Admin { ops }, Scope::Admin { ops: wide }) => row(ops.is_subset(wide), dim::ADMIN),
            _ => Err(dim::KIND),
        }
    }

    /// A closed scope says `absent` by being silent.
    pub(crate) fn normal(mut self) -> Scope {
        if let Scope::Tool { args, closed: true, .. } = &mut self {
            args.retain(|_, arg| *arg != Arg::Absent);
        }
        self
    }

    fn text(&self, keys: &mut Vec<String>) -> String {
        match self {
            Scope::Fs { path, ops } => {
                format!("fs:{}#{}", path.text(), ops.iter().copied().collect::<Vec<_>>().join(","))
            }
            Scope::Tool { name, digest, args, closed } => {
                if let Some(digest) = digest {
                    let all: Vec<String> = digest.iter().map(|byte| format!("{byte:02x}").repeat(32)).collect();
                    keys.push(format!("digest={}", all.join(",")));
                }
                keys.extend(args.iter().map(|(pointer, arg)| format!("arg.{pointer}={}", arg.text())));
                if *closed {
                    keys.push("closed".to_owned());
                }
                format!("tool:{name}")
            }
            Scope::Agent { spec, live } => {
                keys.extend(live.map(|live| format!("live={live}")));
                format!("agent:{spec}")
            }
            Scope::Admin { ops } => format!("admin:#{}", ops.iter().copied().collect::<Vec<_>>().join(",")),
        }
    }
}

impl Cap {
    pub(crate) fn of(scope: Scope) -> Cap {
        Cap {
            scope,
            use_: Use::Yes,
            depth: 0,
            limits: [None; 7],
            rate: None,
            nbf: None,
            exp: None,
            gates: BTreeSet::new(),
        }
    }

    /// What is absent here and must not mean "unlimited" comes from the parent.
    pub(crate) fn filled(&self, p: &Cap) -> Cap {
        let mut filled = self.clone();
        for (limit, parent) in filled.limits.iter_mut().zip(p.limits) {
            *limit = limit.or(parent);
        }
        filled.rate = filled.rate.or(p.rate);
        filled.nbf = filled.nbf.or(p.nbf);
        filled.exp = filled.exp.or(p.exp);
        if let (Scope::Agent { live, .. }, Scope::Agent { live: parent, .. }) = (&mut filled.scope, &p.scope) {
            *live = live.or(*parent);
        }
        filled
    }

    /// The first row of the order in which `self ⊑ p` fails.
    pub(crate) fn within(&self, p: &Cap) -> Result<(), u16> {
        self.scope.within(&p.scope)?;
        for (index, (c, p)) in self.limits.iter().zip(p.limits).enumerate() {
            row(at_most(*c, p), dim::CALLS + index as u16)?;
        }
        let rate = match (self.rate, p.rate) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some((burst, period)), Some((p_burst, p_period))) => period >= p_period && burst <= p_burst,
        };
        row(rate, dim::RATE)?;
        let late_enough = self.nbf.unwrap_or(0) >= p.nbf.unwrap_or(0);
        let soon_enough = self.exp.unwrap_or(NEVER) <= p.exp.unwrap_or(NEVER);
        row(late_enough && soon_enough && self.is_ever_valid(), dim::TIME)?;
        row(self.gates.is_superset(&p.gates), dim::GATES)
    }

    pub(crate) fn is_ever_valid(&self) -> bool {
        self.nbf.unwrap_or(0) < self.exp.unwrap_or(NEVER)
    }

    pub(crate) fn text(&self) -> String {
        let mut keys = Vec::new();
        match self.use_ {
            Use::Yes => {}
            Use::No => keys.push("use=no".to_owned()),
            Use::Convey => keys.push("use=convey".to_owned()),
        }
        if self.depth > 0 {
            keys.push(format!("depth={}", self.depth));
        }
        let body = self.scope.text(&mut keys);
        let names = ["calls", "bytes_in", "bytes_out", "tokens", "cost_micro", "wall_us", "cpu_us"];
        for (name, limit) in names.into_iter().zip(self.limits) {
            keys.extend(limit.map(|limit| format!("{name}={limit}")));
        }
        keys.extend(self.rate.map(|(burst, period)| format!("rate={burst}/{period}")));
        keys.extend(self.nbf.map(|time| format!("nbf={time}")));
        keys.extend(self.exp.map(|time| format!("exp={time}")));
        if !self.gates.is_empty() {
            keys.push(format!("gate={}", self.gates.iter().cloned().collect::<Vec<_>>().join(",")));
        }
        if keys.is_empty() { body } else { format!("{body}?{}", keys.join("&")) }
    }
}

fn row(holds: bool, dim: u16) -> Result<(), u16> {
    if holds { Ok(()) } else { Err(dim) }
}

/// Absent is without limit.
fn at_most(c: Option<u64>, p: Option<u64>) -> bool {
    c.unwrap_or(u64::MAX) <= p.unwrap_or(u64::MAX) && (c.is_some() || p.is_none())
}
