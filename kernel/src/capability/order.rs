//! The order `c ⊑ p` over scopes, their meet and their overlap.
//!
//! Rows are tried in the order of their dimensions, so the first that fails is the one a denial names. A check compares
//! what was parsed and allocates nothing.

use std::cmp::Ordering;

use super::argument::{ArgC, Pointer, smaller};
use super::pattern::NamePat;
use super::scope::{AgentScope, FsOp, FsOps, FsScope, Scope, ToolScope};
use crate::denial::Dim;
use crate::ids::Digest;

impl Scope {
    /// Whether this scope reaches no further than `parent`.
    ///
    /// # Errors
    /// The first dimension in which it does.
    pub fn within(&self, parent: &Scope) -> Result<(), Dim> {
        match self {
            Scope::Tool(scope) => {
                let Scope::Tool(parent) = parent else { return Err(Dim::Kind) };
                scope.within(parent)
            }
            Scope::Fs(scope) => {
                let Scope::Fs(parent) = parent else { return Err(Dim::Kind) };
                scope.within(parent)
            }
            Scope::Agent(scope) => {
                let Scope::Agent(parent) = parent else { return Err(Dim::Kind) };
                scope.within(parent)
            }
            Scope::Model(name) => {
                let Scope::Model(parent) = parent else { return Err(Dim::Kind) };
                holds(parent.covers(name), Dim::Name)
            }
            Scope::Admin(scope) => {
                let Scope::Admin(parent) = parent else { return Err(Dim::Kind) };
                holds(scope.is_subset(*parent), Dim::Admin)
            }
        }
    }

    /// The widest scope within both; `None` where there is none, or where it would need more argument constraints than
    /// a scope may have.
    pub fn meet(&self, other: &Scope) -> Option<Scope> {
        match self {
            Scope::Tool(scope) => {
                let Scope::Tool(other) = other else { return None };
                scope.meet(other).map(Scope::Tool)
            }
            Scope::Fs(scope) => {
                let Scope::Fs(other) = other else { return None };
                scope.meet(other).map(Scope::Fs)
            }
            Scope::Agent(scope) => {
                let Scope::Agent(other) = other else { return None };
                scope.meet(other).map(Scope::Agent)
            }
            Scope::Model(name) => {
                let Scope::Model(other) = other else { return None };
                smaller_name(name, other).cloned().map(Scope::Model)
            }
            Scope::Admin(scope) => {
                let Scope::Admin(other) = other else { return None };
                scope.meet(*other).map(Scope::Admin)
            }
        }
    }

    /// Whether some scope is within both. Unlike [`Scope::meet`] it knows no bound, since a deny rule must not be lost
    /// for being long.
    pub fn overlaps(&self, other: &Scope) -> bool {
        match self {
            Scope::Tool(scope) => {
                let Scope::Tool(other) = other else { return false };
                scope.overlaps(other)
            }
            Scope::Fs(scope) => {
                let Scope::Fs(other) = other else { return false };
                scope.shared(other).is_some()
            }
            Scope::Agent(scope) => {
                let Scope::Agent(other) = other else { return false };
                smaller_name(&scope.spec, &other.spec).is_some()
            }
            Scope::Model(name) => {
                let Scope::Model(other) = other else { return false };
                smaller_name(name, other).is_some()
            }
            Scope::Admin(scope) => {
                let Scope::Admin(other) = other else { return false };
                scope.meet(*other).is_some()
            }
        }
    }
}

impl ToolScope {
    fn within(&self, parent: &ToolScope) -> Result<(), Dim> {
        holds(parent.name.covers(&self.name), Dim::Name)?;
        holds(self.digest_within(parent), Dim::Digest)?;
        holds(self.args_within(parent), Dim::Args)?;
        // Invariant: a closed scope holds no `Absent`, so each pointer of a closed parent was found among ours, and
        // equal counts mean equal pointers.
        holds(!parent.closed || (self.closed && self.args.len() == parent.args.len()), Dim::Closed)
    }

    fn digest_within(&self, parent: &ToolScope) -> bool {
        match (&self.digest, &parent.digest) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(digests), Some(parent)) => digests.iter().all(|digest| parent.binary_search(digest).is_ok()),
        }
    }

    fn args_within(&self, parent: &ToolScope) -> bool {
        let mut own = &*self.args;
        parent.args.iter().all(|(pointer, wide)| match next_arg(&mut own, pointer) {
            Some(arg) => arg.implies(wide),
            None => self.closed && *wide == ArgC::Absent,
        })
    }

    fn meet(&self, other: &ToolScope) -> Option<ToolScope> {
        let name = smaller_name(&self.name, &other.name)?.clone();
        let digest = match (&self.digest, &other.digest) {
            (Some(own), Some(_)) => Some(own.iter().filter(|digest| other.has_digest(digest)).copied().collect()),
            (Some(one), None) | (None, Some(one)) => Some(one.to_vec()),
            (None, None) => None,
        };
        let mut args = Vec::with_capacity(self.args.len() + other.args.len());
        for (pointer, arg) in &self.args {
            args.push((pointer.clone(), meet_of_arg(pointer, arg, other)?));
        }
        for (pointer, arg) in other.args.iter().filter(|(pointer, _)| self.arg(pointer).is_none()) {
            args.push((pointer.clone(), meet_of_arg(pointer, arg, self)?));
        }
        let closed = self.closed || other.closed;
        args.retain(|(_, arg)| !closed || *arg != ArgC::Absent);
        ToolScope::new(name, digest, args, closed).ok()
    }

    fn overlaps(&self, other: &ToolScope) -> bool {
        let digests_overlap = match (&self.digest, &other.digest) {
            (Some(own), Some(_)) => own.iter().any(|digest| other.has_digest(digest)),
            (Some(_), None) | (None, Some(_)) | (None, None) => true,
        };
        smaller_name(&self.name, &other.name).is_some()
            && digests_overlap
            && self.args.iter().all(|(pointer, arg)| overlap_of_arg(pointer, arg, other))
            && other.args.iter().all(|(pointer, arg)| overlap_of_arg(pointer, arg, self))
    }

    fn has_digest(&self, digest: &Digest) -> bool {
        self.digest.as_ref().is_none_or(|digests| digests.binary_search(digest).is_ok())
    }
}

/// The constraint of `pointer`, dropping it and all before it from the sorted rest.
fn next_arg<'s>(rest: &mut &'s [(Pointer, ArgC)], pointer: &Pointer) -> Option<&'s ArgC> {
    while let [(known, arg), tail @ ..] = *rest {
        match known.cmp(pointer) {
            Ordering::Less => *rest = tail,
            Ordering::Equal => {
                *rest = tail;
                return Some(arg);
            }
            Ordering::Greater => return None,
        }
    }
    None
}

/// What of `arg` is left under `other`, which where it is silent allows anything, or nothing when it is closed.
fn meet_of_arg(pointer: &Pointer, arg: &ArgC, other: &ToolScope) -> Option<ArgC> {
    match other.arg(pointer) {
        Some(theirs) => arg.meet(theirs),
        None => (!other.closed || *arg == ArgC::Absent).then(|| arg.clone()),
    }
}

fn overlap_of_arg(pointer: &Pointer, arg: &ArgC, other: &ToolScope) -> bool {
    match other.arg(pointer) {
        Some(theirs) => arg.overlaps(theirs),
        None => !other.closed || *arg == ArgC::Absent,
    }
}

impl FsScope {
    fn within(&self, parent: &FsScope) -> Result<(), Dim> {
        if !parent.path.covers(&self.path) {
            let same_root = self.path.anchor().root() == parent.path.anchor().root();
            return Err(if same_root { Dim::Path } else { Dim::Root });
        }
        let removes_self = self.ops.has(FsOp::DeleteSelf);
        let ops = self.ops.without(FsOp::DeleteSelf).is_subset(parent.ops)
            && (!removes_self || parent.may_delete(self.path.anchor()));
        holds(ops, Dim::Ops)
    }

    fn meet(&self, other: &FsScope) -> Option<FsScope> {
        let (deeper, ops) = self.shared(other)?;
        FsScope::new(deeper.path.clone(), ops).ok()
    }

    /// The one of both whose path the other covers, and the operations that both allow there.
    fn shared<'s>(&'s self, other: &'s FsScope) -> Option<(&'s FsScope, FsOps)> {
        let deeper = smaller(self, other, |narrow, wide| wide.path.covers(&narrow.path))?;
        let both = self.ops.and(other.ops).without(FsOp::DeleteSelf);
        let anchor = deeper.path.anchor();
        let removes_self = self.may_delete(anchor) && other.may_delete(anchor);
        let ops = if removes_self { both.with(FsOp::DeleteSelf) } else { both };
        (!ops.is_empty()).then_some((deeper, ops))
    }
}

impl AgentScope {
    fn within(&self, parent: &AgentScope) -> Result<(), Dim> {
        holds(parent.spec.covers(&self.spec), Dim::Name)?;
        holds(at_most(self.live, parent.live), Dim::Live)
    }

    fn meet(&self, other: &AgentScope) -> Option<AgentScope> {
        let spec = smaller_name(&self.spec, &other.spec)?.clone();
        Some(AgentScope { spec, live: lower(self.live, other.live) })
    }
}

fn smaller_name<'n>(a: &'n NamePat, b: &'n NamePat) -> Option<&'n NamePat> {
    smaller(a, b, |narrow, wide| wide.covers(narrow))
}

/// An absent limit is above every number.
pub(super) fn at_most<T: Ord>(child: Option<T>, parent: Option<T>) -> bool {
    match (child, parent) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(child), Some(parent)) => child <= parent,
    }
}

/// The lower of two limits, of which either may be absent.
pub(super) fn lower<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, None) | (None, one) => one,
    }
}

pub(super) fn holds(row: bool, dim: Dim) -> Result<(), Dim> {
    if row { Ok(()) } else { Err(dim) }
}
