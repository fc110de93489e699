//! The arena of grants: parents come before children, chains are walked in a loop.

use std::collections::{BTreeMap, BTreeSet};

use crate::body::v1::Grant;
use crate::budget::{self, Meter};
use crate::ids::{CallId, GrantId, PrincipalId, TimeUs};

/// All grants of a session, in the order of their making.
#[derive(Clone, Debug, Default)]
pub(crate) struct Grants {
    index: BTreeMap<GrantId, u32>,
    held: BTreeMap<PrincipalId, Vec<u32>>,
    nodes: Vec<GrantNode>,
}

/// A grant with what has happened to it.
#[derive(Clone, Debug)]
pub(crate) struct GrantNode {
    pub(crate) id: GrantId,
    pub(crate) grant: Grant,
    /// Invariant: an index below this node's own.
    pub(crate) parent: Option<u32>,
    pub(crate) revoked: bool,
    pub(crate) meter: Meter,
    /// The calls in flight that have this grant on a chain, so that revoking it costs what it cancels.
    pub(crate) open: BTreeSet<CallId>,
}

impl GrantNode {
    /// Counts one use at `at` against the rate, if there is one.
    pub(crate) fn pass(&mut self, at: TimeUs) {
        if let Some(rate) = self.grant.cap.limits.rate {
            self.meter.tat = budget::advanced(self.meter.tat, rate.period_us(), at);
        }
    }
}

impl Grants {
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn find(&self, id: &GrantId) -> Option<u32> {
        self.index.get(id).copied()
    }

    pub(crate) fn get(&self, id: &GrantId) -> Option<&GrantNode> {
        self.find(id).map(|at| self.at(at))
    }

    pub(crate) fn at(&self, at: u32) -> &GrantNode {
        &self.nodes[at as usize]
    }

    pub(crate) fn at_mut(&mut self, at: u32) -> &mut GrantNode {
        &mut self.nodes[at as usize]
    }

    /// Adds a grant whose parent, if it has one, is here.
    pub(crate) fn add(&mut self, id: GrantId, grant: Grant) {
        let parent = grant.parent.and_then(|parent| self.find(&parent));
        if let Some(parent) = parent {
            self.at_mut(parent).meter.children += 1;
        }
        let at = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        self.held.entry(grant.subject).or_default().push(at);
        self.nodes.push(GrantNode {
            id,
            grant,
            parent,
            revoked: false,
            meter: Meter::default(),
            open: BTreeSet::new(),
        });
        self.index.insert(id, at);
    }

    /// The grant at `at` and all above it, leaf first.
    pub(crate) fn chain(&self, at: u32) -> impl Iterator<Item = u32> {
        std::iter::successors(Some(at), |at| self.at(*at).parent)
    }

    /// The grants on the chains of `leaves`, each once, ascending.
    pub(crate) fn union(&self, leaves: &[u32]) -> Vec<u32> {
        let mut union: Vec<u32> = leaves.iter().flat_map(|leaf| self.chain(*leaf)).collect();
        union.sort_unstable();
        union.dedup();
        union
    }

    /// The grants of one holder, oldest first.
    pub(crate) fn held_by(&self, subject: PrincipalId) -> impl Iterator<Item = &GrantNode> {
        self.held.get(&subject).map_or(&[][..], Vec::as_slice).iter().map(|at| self.at(*at))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &GrantNode> {
        self.nodes.iter()
    }
}
