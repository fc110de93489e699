//! The commitments of a session, each with what was found: 36 bytes and a little for each.

use std::collections::BTreeMap;

use toka_kernel::ids::Commitment;

/// A map from commitments to numbers that stays close to the size of its content.
///
/// Most of it is one sorted list; what is new waits in a small tree and is merged into the list in place.
#[derive(Debug, Default)]
pub(super) struct Seen {
    sorted: Vec<(Commitment, u32)>,
    fresh: BTreeMap<Commitment, u32>,
}

impl Seen {
    pub(super) fn get(&self, commitment: &Commitment) -> Option<u32> {
        self.fresh.get(commitment).copied().or_else(|| {
            let at = self.sorted.binary_search_by_key(commitment, |(known, _)| *known).ok()?;
            Some(self.sorted[at].1)
        })
    }

    /// Adds a commitment that is not there.
    pub(super) fn insert(&mut self, commitment: Commitment, found: u32) {
        self.fresh.insert(commitment, found);
        if self.fresh.len() > 1_024 + self.sorted.len() / 16 {
            self.merge();
        }
    }

    /// From the back, so that each element moves once and no second list is needed.
    fn merge(&mut self) {
        let mut old = self.sorted.len();
        self.sorted.reserve_exact(self.fresh.len());
        self.sorted.resize(old + self.fresh.len(), (Commitment::ZERO, 0));
        let mut at = self.sorted.len();
        for fresh in std::mem::take(&mut self.fresh).into_iter().rev() {
            while old > 0 && self.sorted[old - 1].0 > fresh.0 {
                (at, old) = (at - 1, old - 1);
                self.sorted[at] = self.sorted[old];
            }
            at -= 1;
            self.sorted[at] = fresh;
        }
    }
}

#[cfg(test)]
mod tests {
    use toka_kernel::hash::{Context, derive};

    use super::*;

    #[test]
    fn what_was_added_is_found_and_nothing_else() {
        let commitment = |number: u32| Commitment(derive(Context::Blob, &[&number.to_be_bytes()]).0);
        let mut seen = Seen::default();
        for number in 0..20_000 {
            assert_eq!(seen.get(&commitment(number)), None);
            seen.insert(commitment(number), number);
        }
        assert!((0..20_000).all(|number| seen.get(&commitment(number)) == Some(number)));
        assert!(seen.sorted.is_sorted() && seen.sorted.len() > 16_000);
    }
}
