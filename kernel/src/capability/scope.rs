//! Scopes: what may be reached. The needs of a call have the same shape.

use std::fmt;

use super::admin::{AdminOp, AdminScope};
use super::argument::{ArgC, Pointer, Scalar};
use super::host::HostPat;
use super::pattern::{ExactName, NamePat, PathPat, RootPath};
use crate::denial::Code;
use crate::facts::{Fact, FactSpec, FactType};
use crate::ids::Digest;
use crate::limits::{ARGS_MAX, DIGESTS_MAX, SCALAR_BYTES_MAX};

/// What a capability reaches, by kind. Scopes of different kinds never compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Calls of tools.
    Tool(ToolScope),
    /// Files below a root.
    Fs(FsScope),
    /// Agents to spawn and to send messages to.
    Agent(AgentScope),
    /// Models to ask, as `PROVIDER.NAME`.
    Model(NamePat),
    /// What may be done to the session itself.
    Admin(AdminScope),
}

/// Which tools may be called, and with which arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolScope {
    pub(super) name: NamePat,
    /// Invariant: sorted, unique, 1 to 16; absent means any.
    pub(super) digest: Option<Box<[Digest]>>,
    /// Invariant: sorted by pointer, each once, at most 32; no `Absent` where `closed`.
    pub(super) args: Box<[(Pointer, ArgC)]>,
    pub(super) closed: bool,
}

impl ToolScope {
    /// Puts a scope together in its canonical form. `closed` means that no argument but those in `args` may be there,
    /// so `Absent` says nothing more and is dropped.
    ///
    /// # Errors
    /// [`Code::Malformed`] for a pointer or digest given twice, an empty set, and more than the bounds allow.
    pub fn new(
        name: NamePat,
        digest: Option<Vec<Digest>>,
        mut args: Vec<(Pointer, ArgC)>,
        closed: bool,
    ) -> Result<ToolScope, Code> {
        args.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let args_fit = args.len() <= ARGS_MAX
            && args.windows(2).all(|pair| pair[0].0 != pair[1].0)
            && args.iter().all(|(_, arg)| arg.is_sound());
        let digest = digest.map(|mut digests| {
            digests.sort_unstable();
            digests
        });
        let digests_fit = digest.as_ref().is_none_or(|digests| {
            (1..=DIGESTS_MAX).contains(&digests.len()) && digests.windows(2).all(|pair| pair[0] != pair[1])
        });
        if !args_fit || !digests_fit {
            return Err(Code::Malformed);
        }
        args.retain(|(_, arg)| !closed || *arg != ArgC::Absent);
        Ok(ToolScope { name, digest: digest.map(Into::into), args: args.into(), closed })
    }

    /// Which tools.
    pub fn name(&self) -> &NamePat {
        &self.name
    }

    /// The specs that are allowed, sorted; `None` is any.
    pub fn digests(&self) -> Option<&[Digest]> {
        self.digest.as_deref()
    }

    /// The constraints, sorted by pointer.
    pub fn args(&self) -> &[(Pointer, ArgC)] {
        &self.args
    }

    /// Whether arguments without a constraint are refused.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// The constraint of one pointer.
    pub fn arg(&self, pointer: &Pointer) -> Option<&ArgC> {
        let at = self.args.binary_search_by(|(known, _)| known.cmp(pointer)).ok()?;
        self.args.get(at).map(|(_, arg)| arg)
    }
}

/// What may be done to which files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FsScope {
    pub(super) path: PathPat,
    /// Invariant: not empty; no `delete` where the path is exact.
    pub(super) ops: FsOps,
}

impl FsScope {
    /// Puts a scope together.
    ///
    /// # Errors
    /// [`Code::Malformed`] for no operation, and for `delete` with an exact path, which has nothing below it.
    pub fn new(path: PathPat, ops: FsOps) -> Result<FsScope, Code> {
        let sound = !ops.is_empty() && (path.is_under() || !ops.has(FsOp::Delete));
        if sound { Ok(FsScope { path, ops }) } else { Err(Code::Malformed) }
    }

    /// Which files.
    pub fn path(&self) -> &PathPat {
        &self.path
    }

    /// Which operations.
    pub fn ops(&self) -> FsOps {
        self.ops
    }

    /// Whether this scope, which covers `anchor`, lets exactly that name be deleted.
    pub(super) fn may_delete(&self, anchor: &RootPath) -> bool {
        self.ops.has(if anchor == self.path.anchor() { FsOp::DeleteSelf } else { FsOp::Delete })
    }
}

/// An operation on files, in the order in which they print. None implies another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum FsOp {
    /// Make a file or directory.
    Create,
    /// Remove what lies strictly below the anchor of the pattern.
    Delete,
    /// Remove the anchor of the pattern itself.
    DeleteSelf,
    /// Run a file.
    Exec,
    /// List a directory.
    List,
    /// Read a file.
    Read,
    /// Change a file.
    Write,
}

impl FsOp {
    /// Every operation, in byte order of the names.
    pub const ALL: &'static [FsOp] =
        &[FsOp::Create, FsOp::Delete, FsOp::DeleteSelf, FsOp::Exec, FsOp::List, FsOp::Read, FsOp::Write];

    /// Its name in the text of a scope.
    pub fn name(self) -> &'static str {
        match self {
            FsOp::Create => "create",
            FsOp::Delete => "delete",
            FsOp::DeleteSelf => "delete-self",
            FsOp::Exec => "exec",
            FsOp::List => "list",
            FsOp::Read => "read",
            FsOp::Write => "write",
        }
    }
}

/// A set of operations on files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FsOps(u8);

impl FsOps {
    /// No operation.
    pub const NONE: FsOps = FsOps(0);

    /// This set and one more operation.
    #[must_use]
    pub fn with(self, op: FsOp) -> FsOps {
        FsOps(self.0 | 1 << op as u8)
    }

    /// This set without one operation.
    #[must_use]
    pub fn without(self, op: FsOp) -> FsOps {
        FsOps(self.0 & !(1 << op as u8))
    }

    /// The operations of both sets.
    #[must_use]
    pub fn and(self, other: FsOps) -> FsOps {
        FsOps(self.0 & other.0)
    }

    /// Whether the operation is in the set.
    pub fn has(self, op: FsOp) -> bool {
        self.0 & 1 << op as u8 != 0
    }

    /// Whether every operation of this set is in `other`.
    pub fn is_subset(self, other: FsOps) -> bool {
        self.0 & !other.0 == 0
    }

    /// Whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The operations, in the order in which they print.
    pub fn iter(self) -> impl Iterator<Item = FsOp> {
        FsOp::ALL.iter().copied().filter(move |op| self.has(*op))
    }
}

/// Which agents may be spawned and sent messages to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentScope {
    /// The names of their specs.
    pub spec: NamePat,
    /// How many may be alive at once below the grant; `Some(0)` allows messages alone, `None` has no limit.
    pub live: Option<u32>,
}

impl Scope {
    /// Need 0 of a call: this tool by name and digest, each fact as a constraint of one element, and `closed` unless
    /// the arguments hold more than facts (`extra`). With `extra`, a declared fact that is missing stands as `absent`;
    /// a closed scope says that by being silent.
    ///
    /// # Errors
    /// The fact that is not declared, given twice or not of its type, with [`Code::Malformed`], [`Code::BadPath`] or
    /// [`Code::BadHost`].
    pub fn tool_need(
        name: &ExactName,
        digest: Digest,
        facts: &[Fact],
        specs: &[FactSpec],
        extra: bool,
    ) -> Result<Scope, BadFact> {
        if let Some(fact) = facts.iter().find(|fact| !specs.iter().any(|spec| spec.pointer == fact.pointer)) {
            return Err(BadFact::new(Code::Malformed, &fact.pointer));
        }
        let mut args = Vec::with_capacity(specs.len());
        for spec in specs {
            let mut found = facts.iter().filter(|fact| fact.pointer == spec.pointer);
            let arg = match (found.next(), found.next()) {
                (Some(fact), None) => fact_constraint(fact, spec.kind)?,
                (None, _) if extra => ArgC::Absent,
                (None, _) => continue,
                (Some(_), Some(_)) => return Err(BadFact::new(Code::Malformed, &spec.pointer)),
            };
            args.push((Pointer::parse(&spec.pointer).map_err(|code| BadFact::new(code, &spec.pointer))?, arg));
        }
        ToolScope::new(NamePat::Exact(name.clone()), Some(vec![digest]), args, !extra)
            .map(Scope::Tool)
            .map_err(|code| BadFact::new(code, ""))
    }

    /// The need of a spawn (`live` 1) or of a message to an agent (`live` 0).
    pub fn agent_need(spec: &ExactName, live: u32) -> Scope {
        Scope::Agent(AgentScope { spec: NamePat::Exact(spec.clone()), live: Some(live) })
    }

    /// The need of administrative operations; none where none is named, or one twice.
    pub fn admin_need(ops: &[AdminOp]) -> Option<Scope> {
        AdminScope::new(ops).ok().map(Scope::Admin)
    }
}

/// A fact from which no need can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadFact {
    /// Why not.
    pub code: Code,
    /// The pointer of the fact; empty when it is about all of them.
    pub pointer: String,
}

impl BadFact {
    pub(super) fn new(code: Code, pointer: &str) -> BadFact {
        BadFact { code, pointer: pointer.to_owned() }
    }
}

impl fmt::Display for BadFact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: argument {}", self.code, self.pointer)
    }
}

impl std::error::Error for BadFact {}

/// The constraint that this fact meets and nothing else does.
pub(super) fn fact_constraint(fact: &Fact, kind: FactType) -> Result<ArgC, BadFact> {
    let bad = |code| BadFact::new(code, &fact.pointer);
    match (kind, fact.int, fact.text.as_deref()) {
        (FactType::Int, Some(value), None) => Ok(ArgC::one(Scalar::Int(value))),
        (FactType::Bool, Some(value @ 0..=1), None) => Ok(ArgC::one(Scalar::Bool(value == 1))),
        (FactType::Str, None, Some(text)) if text.len() <= SCALAR_BYTES_MAX => Ok(ArgC::one(Scalar::Str(text.into()))),
        (FactType::Path, None, Some(text)) => fact_path(text).map(PathPat::exact).map(ArgC::Path).map_err(bad),
        (FactType::Host, None, Some(text)) => HostPat::parse_exact(text).map(ArgC::Host).map_err(bad),
        (FactType::Int | FactType::Bool | FactType::Str | FactType::Path | FactType::Host, _, _) => {
            Err(bad(Code::Malformed))
        }
    }
}

/// The path of a fact, which is shorter than a path may be elsewhere.
pub(super) fn fact_path(text: &str) -> Result<RootPath, Code> {
    if text.len() <= SCALAR_BYTES_MAX { RootPath::parse_fact(text) } else { Err(Code::BadPath) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(pointer: &str, kind: FactType) -> FactSpec {
        FactSpec { pointer: pointer.to_owned(), kind }
    }

    fn int(pointer: &str, value: i64) -> Fact {
        Fact { pointer: pointer.to_owned(), int: Some(value), text: None }
    }

    fn text(pointer: &str, value: &str) -> Fact {
        Fact { pointer: pointer.to_owned(), int: None, text: Some(value.to_owned()) }
    }

    fn need(facts: &[Fact], specs: &[FactSpec], extra: bool) -> Result<String, Code> {
        let name = ExactName::parse("git.commit").expect("name");
        let scope = Scope::tool_need(&name, Digest::ZERO, facts, specs, extra).map_err(|bad| bad.code)?;
        Ok(scope.to_string().replace(&Digest::ZERO.to_string(), "0"))
    }

    #[test]
    fn the_need_of_a_call_names_the_tool_and_each_fact() {
        let specs = [
            spec("/n", FactType::Int),
            spec("/b", FactType::Bool),
            spec("/s", FactType::Str),
            spec("/p", FactType::Path),
            spec("/h", FactType::Host),
        ];
        let facts = [int("/n", -1), int("/b", 1), text("/s", "main"), text("/p", "r:a b"), text("/h", "a.example")];
        let all = r#"arg./b=true&arg./h=host:a.example&arg./n=-1&arg./p=path:r/"a b"&arg./s="main""#;
        assert_eq!(need(&facts, &specs, false), Ok(format!("tool:git.commit?digest=0&{all}&closed")));
        assert_eq!(need(&facts, &specs, true), Ok(format!("tool:git.commit?digest=0&{all}")));
    }

    #[test]
    fn a_missing_fact_is_absent_in_the_need() {
        let specs = [spec("/n", FactType::Int)];
        assert_eq!(need(&[], &specs, true), Ok("tool:git.commit?digest=0&arg./n=absent".to_owned()));
        assert_eq!(need(&[], &specs, false), Ok("tool:git.commit?digest=0&closed".to_owned()));
    }

    #[test]
    fn a_fact_that_is_not_what_was_declared_makes_no_need() {
        let specs = [spec("/n", FactType::Int), spec("/b", FactType::Bool), spec("/p", FactType::Path)];
        assert_eq!(need(&[text("/n", "1")], &specs, false), Err(Code::Malformed));
        assert_eq!(need(&[int("/b", 2)], &specs, false), Err(Code::Malformed));
        assert_eq!(need(&[int("/x", 1)], &specs, false), Err(Code::Malformed));
        assert_eq!(need(&[int("/n", 1), int("/n", 1)], &specs, false), Err(Code::Malformed));
        assert_eq!(need(&[text("/p", "r:a/../b")], &specs, false), Err(Code::BadPath));
    }
}
