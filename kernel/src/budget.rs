//! Budgets and rates of grants: integers only, every sum checked.

use crate::body::v1::Amounts;
use crate::denial::Dim;
use crate::ids::TimeUs;
use crate::limits::{BLOB_GRAIN_BYTES, DIMENSIONS};

/// The limited dimensions in the order of every list of amounts.
pub const LIMITED: [Dim; DIMENSIONS] =
    [Dim::Calls, Dim::BytesIn, Dim::BytesOut, Dim::Tokens, Dim::CostMicro, Dim::WallUs, Dim::CpuUs];
/// The index of calls.
pub(crate) const CALLS: usize = 0;
/// The index of tokens.
pub(crate) const TOKENS: usize = 3;
/// The index of wall time.
pub(crate) const WALL: usize = 5;

/// One number per limited dimension.
pub(crate) type Vector = [u64; DIMENSIONS];

/// The index of a limited dimension.
pub(crate) fn index_of(dim: u16) -> Option<usize> {
    LIMITED.iter().position(|limited| limited.number() == dim)
}

/// Amounts without trailing zeros, as they stand in a body.
pub(crate) fn amounts(vector: &Vector) -> Amounts {
    let len = vector.iter().rposition(|amount| *amount != 0).map_or(0, |last| last + 1);
    vector[..len].to_vec()
}

/// The vector of a list of amounts; `None` unless it is one: at most seven, no trailing zero, bytes in whole grains.
pub(crate) fn vector(amounts: &Amounts) -> Option<Vector> {
    let mut vector = Vector::default();
    vector.get_mut(..amounts.len())?.copy_from_slice(amounts);
    let whole = vector[1].is_multiple_of(BLOB_GRAIN_BYTES) && vector[2].is_multiple_of(BLOB_GRAIN_BYTES);
    (whole && amounts.last() != Some(&0)).then_some(vector)
}

/// Whether the amounts at `index` are bytes.
pub(crate) fn is_bytes(index: usize) -> bool {
    matches!(LIMITED.get(index), Some(Dim::BytesIn | Dim::BytesOut))
}

/// Bytes in whole grains.
pub(crate) fn whole_grains(bytes: u64) -> u64 {
    bytes.div_ceil(BLOB_GRAIN_BYTES).saturating_mul(BLOB_GRAIN_BYTES)
}

/// Bytes in those whole grains that fit.
pub(crate) fn full_grains(bytes: u64) -> u64 {
    bytes - bytes % BLOB_GRAIN_BYTES
}

/// What a grant's budgets and rate have seen.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Meter {
    pub(crate) spent: Vector,
    pub(crate) reserved: Vector,
    /// The theoretical arrival time of GCRA, in µs.
    pub(crate) tat: u64,
    pub(crate) children: u32,
    pub(crate) live: u32,
    pub(crate) in_flight: u32,
}

/// Why a reserve does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// Already over after an overrun.
    Overrun,
    /// The sum does not fit a number.
    Overflow,
    /// No room.
    Full,
}

impl Meter {
    /// Whether `asked` of dimension `index` fits below `limit`.
    pub(crate) fn room(&self, index: usize, asked: u64, limit: u64) -> Result<(), NoRoom> {
        let held = self.spent[index].checked_add(self.reserved[index]).ok_or(NoRoom::Overflow)?;
        if held > limit {
            return Err(NoRoom::Overrun);
        }
        match held.checked_add(asked) {
            None => Err(NoRoom::Overflow),
            Some(sum) if sum > limit => Err(NoRoom::Full),
            Some(_) => Ok(()),
        }
    }

    /// Promises `reserve` to a call. A call itself is spent at once and never refunded.
    pub(crate) fn reserve(&mut self, reserve: &Vector) {
        for (index, amount) in reserve.iter().enumerate() {
            let counter = if index == CALLS { &mut self.spent } else { &mut self.reserved };
            counter[index] = counter[index].saturating_add(*amount);
        }
        self.in_flight += 1;
    }

    /// Sets `amounts` aside for a session. Unlike a call's own, calls are promised and not yet spent.
    pub(crate) fn carve(&mut self, amounts: &Vector) {
        for (reserved, amount) in self.reserved.iter_mut().zip(amounts) {
            *reserved = reserved.saturating_add(*amount);
        }
    }

    /// Takes back what was set aside and charges what was spent of it.
    pub(crate) fn release(&mut self, amounts: &Vector, spent: &Vector) {
        for index in 0..DIMENSIONS {
            self.reserved[index] = self.reserved[index].saturating_sub(amounts[index]);
            self.spent[index] = self.spent[index].saturating_add(spent[index]);
        }
    }

    /// Charges what was promised to an attempt that was lost, and keeps the promise for the next one.
    pub(crate) fn lose(&mut self, reserve: &Vector) {
        for (spent, lost) in self.spent.iter_mut().zip(reserve).skip(CALLS + 1) {
            *spent = spent.saturating_add(*lost);
        }
    }

    /// Takes back the promise of `reserve` and charges `charged`.
    pub(crate) fn settle(&mut self, reserve: &Vector, charged: &Vector) {
        for index in CALLS + 1..DIMENSIONS {
            self.reserved[index] = self.reserved[index].saturating_sub(reserve[index]);
            self.spent[index] = self.spent[index].saturating_add(charged[index]);
        }
        self.in_flight = self.in_flight.saturating_sub(1);
    }
}

/// GCRA: the earliest time at which one more may pass, given the theoretical arrival time so far.
pub(crate) fn earliest(tat: u64, period_us: u64, burst: u32) -> TimeUs {
    let tolerance = u128::from(burst.saturating_sub(1)) * u128::from(period_us);
    u64::try_from(u128::from(tat).saturating_sub(tolerance)).unwrap_or(u64::MAX)
}

/// GCRA: the theoretical arrival time after one has passed at `at`.
pub(crate) fn advanced(tat: u64, period_us: u64, at: TimeUs) -> u64 {
    tat.max(at).saturating_add(period_us)
}
