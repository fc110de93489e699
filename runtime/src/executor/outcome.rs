//! Outcomes: kinds and details of `docs/FORMAT.md`.

use toka_kernel::body::v1::Outcome;

/// It ended as its tool promises.
pub const SUCCEEDED: u8 = 1;
pub(crate) const FAILED: u8 = 2;
pub(crate) const INVALID_OUTPUT: u8 = 3;
pub(crate) const SIGNALLED: u8 = 4;
pub(crate) const TRAPPED: u8 = 5;
pub(crate) const TIMED_OUT: u8 = 6;
pub(crate) const LIMIT_EXCEEDED: u8 = 7;
pub(crate) const CANCELLED: u8 = 8;
pub(crate) const UNREAPED: u8 = 9;
pub(crate) const LOST: u8 = 10;
pub(crate) const UNKNOWN: u8 = 11;
/// The jail could not be made.
pub const SANDBOX_UNAVAILABLE: u8 = 12;
pub(crate) const SETUP_FAILED: u8 = 13;
pub(crate) const START_FAILED: u8 = 14;
pub(crate) const PIN_MISMATCH: u8 = 15;
pub(crate) const DECLINED: u8 = 16;

pub(crate) const DETAIL_PROBE: u16 = 1;
pub(crate) const DETAIL_CPU: u16 = 1;
pub(crate) const DETAIL_MEMORY: u16 = 2;
pub(crate) const DETAIL_FILE_SIZE: u16 = 4;
pub(crate) const DETAIL_OUTPUT: u16 = 5;
pub(crate) const DETAIL_WORKSPACE: u16 = 6;
pub(crate) const DETAIL_FUEL: u16 = 7;
pub(crate) const DETAIL_ARTIFACTS: u16 = 9;
pub(crate) const DETAIL_REVOKED: u16 = 2;
pub(crate) const DETAIL_WORKER: u16 = 1;
pub(crate) const DETAIL_CLAIMS: u16 = 1;

/// An outcome without a number and a symbol.
pub(crate) fn plain(kind: u8, detail: u16) -> Outcome {
    Outcome { kind, detail, number: None, symbol: None }
}
