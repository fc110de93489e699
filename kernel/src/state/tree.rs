//! The tree under the state digest: its shape depends on the set of leaves only, not on history.
//!
//! Empty = 32 zero bytes; one leaf = that leaf; otherwise split by the path bit at depth 0, 1, …; where one side is empty
//! the result is the other side's, else the hash of both. Nodes are shared, so a copy of the tree costs nothing until it
//! is changed, and only what was touched is hashed again.

use std::sync::Arc;

use crate::hash::{Context, derive};
use crate::ids::Digest;

/// A set of (path, leaf hash) with its digest.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    root: Option<Arc<Node>>,
    leaves: u64,
}

#[derive(Clone, Debug)]
enum Node {
    Leaf {
        path: [u8; 32],
        hash: Digest,
    },
    /// Invariant: both sides share the path up to `bit` and differ in it. `hash` is none where something below changed.
    Branch {
        bit: usize,
        left: Arc<Node>,
        right: Arc<Node>,
        hash: Option<Digest>,
    },
}

impl Tree {
    /// Leaves in the set.
    pub(crate) fn leaves(&self) -> u64 {
        self.leaves
    }

    /// Puts `hash` at `path`, in place of what was there.
    pub(crate) fn insert(&mut self, path: [u8; 32], hash: Digest) {
        let leaf = Arc::new(Node::Leaf { path, hash });
        let Some(root) = &mut self.root else {
            self.root = Some(leaf);
            self.leaves = 1;
            return;
        };
        let bit = first_difference(nearest(root, &path), &path);
        self.leaves += u64::from(bit < 256);
        insert_at(root, leaf, &path, bit);
    }

    /// Takes away what is at `path`, if anything.
    pub(crate) fn remove(&mut self, path: &[u8; 32]) {
        let Some(root) = &mut self.root else { return };
        if nearest(root, path) != path {
            return;
        }
        self.leaves -= 1;
        self.root = without(root, path);
    }

    /// The digest of the set. Hashes what changed since it was asked last.
    pub(crate) fn digest(&mut self) -> Digest {
        match &mut self.root {
            None => Digest::ZERO,
            Some(root) => refreshed(root),
        }
    }
}

/// The path of some leaf that shares with `path` every bit that the tree tells apart on the way down.
fn nearest<'a>(mut node: &'a Arc<Node>, path: &[u8; 32]) -> &'a [u8; 32] {
    loop {
        match &**node {
            Node::Leaf { path, .. } => return path,
            Node::Branch { bit, left, right, .. } => node = if bit_of(path, *bit) { right } else { left },
        }
    }
}

fn insert_at(node: &mut Arc<Node>, leaf: Arc<Node>, path: &[u8; 32], difference: usize) {
    let place = match Arc::make_mut(node) {
        Node::Branch { bit, left, right, hash } if *bit < difference => {
            *hash = None;
            Some(if bit_of(path, *bit) { right } else { left })
        }
        Node::Leaf { .. } | Node::Branch { .. } => None,
    };
    if let Some(place) = place {
        return insert_at(place, leaf, path, difference);
    }
    if difference == 256 {
        *node = leaf;
        return;
    }
    let (left, right) = if bit_of(path, difference) { (node.clone(), leaf) } else { (leaf, node.clone()) };
    *node = Arc::new(Node::Branch { bit: difference, left, right, hash: None });
}

fn without(node: &Arc<Node>, path: &[u8; 32]) -> Option<Arc<Node>> {
    match &**node {
        Node::Leaf { .. } => None,
        Node::Branch { bit, left, right, .. } => {
            let (changed, other) = if bit_of(path, *bit) { (right, left) } else { (left, right) };
            Some(match without(changed, path) {
                None => other.clone(),
                Some(changed) => {
                    let other = other.clone();
                    let (left, right) = if bit_of(path, *bit) { (other, changed) } else { (changed, other) };
                    Arc::new(Node::Branch { bit: *bit, left, right, hash: None })
                }
            })
        }
    }
}

fn refreshed(node: &mut Arc<Node>) -> Digest {
    match &**node {
        Node::Leaf { hash, .. } | Node::Branch { hash: Some(hash), .. } => return *hash,
        Node::Branch { hash: None, .. } => {}
    }
    match Arc::make_mut(node) {
        Node::Leaf { hash, .. } => *hash,
        Node::Branch { left, right, hash, .. } => {
            let both = derive(Context::StateNode, &[&refreshed(left).0, &refreshed(right).0]);
            *hash = Some(both);
            both
        }
    }
}

fn bit_of(path: &[u8; 32], bit: usize) -> bool {
    path[bit / 8] >> (7 - bit % 8) & 1 == 1
}

/// The first bit in which two paths differ, 256 if none.
fn first_difference(a: &[u8; 32], b: &[u8; 32]) -> usize {
    match a.iter().zip(b).position(|(a, b)| a != b) {
        None => 256,
        Some(byte) => 8 * byte + (a[byte] ^ b[byte]).leading_zeros() as usize,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// The rule as it is written, without a tree.
    fn naive(set: &[([u8; 32], Digest)], depth: usize) -> Digest {
        match set {
            [] => Digest::ZERO,
            [(_, leaf)] => *leaf,
            many => {
                let (right, left): (Vec<_>, Vec<_>) = many.iter().partition(|(path, _)| bit_of(path, depth));
                match (left.is_empty(), right.is_empty()) {
                    (true, _) => naive(&right, depth + 1),
                    (_, true) => naive(&left, depth + 1),
                    _ => derive(Context::StateNode, &[&naive(&left, depth + 1).0, &naive(&right, depth + 1).0]),
                }
            }
        }
    }

    #[test]
    fn the_digest_depends_on_the_set_and_not_on_history() {
        let mut tree = Tree::default();
        let mut model = BTreeMap::new();
        let mut random = 1u64;
        for step in 0..4_000u64 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Few first bytes, so that paths share long prefixes.
            let mut path = [(random >> 60) as u8 & 3; 32];
            path[31] = (random >> 50) as u8;
            if random >> 33 & 3 == 0 {
                tree.remove(&path);
                model.remove(&path);
            } else {
                let leaf = derive(Context::StateLeaf, &[&step.to_be_bytes()]);
                tree.insert(path, leaf);
                model.insert(path, leaf);
            }
            assert_eq!(tree.leaves(), model.len() as u64);
            if step % 37 == 0 {
                let set: Vec<_> = model.iter().map(|(path, leaf)| (*path, *leaf)).collect();
                assert_eq!(tree.digest(), naive(&set, 0));
            }
        }
    }

    #[test]
    fn a_copy_can_be_changed_without_touching_the_original() {
        let mut tree = Tree::default();
        for byte in 0..50 {
            tree.insert([byte; 32], Digest([byte; 32]));
        }
        let before = tree.digest();
        let mut copy = tree.clone();
        copy.insert([77; 32], Digest([1; 32]));
        copy.remove(&[3; 32]);
        assert_ne!(copy.digest(), before);
        assert_eq!(tree.digest(), before);
    }
}
