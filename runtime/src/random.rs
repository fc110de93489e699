//! The one place where this package draws randomness, so that a test or a demo can seed it.

use std::fmt;

/// The operating system gave no random bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gives no random bytes: {what}")]
pub struct NoRandom {
    /// What it said.
    pub what: String,
}

/// A source of random bytes.
pub trait Random: Send {
    /// Fills `bytes`.
    ///
    /// # Errors
    /// [`NoRandom`]; then nothing that was to be drawn may be used.
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), NoRandom>;
}

/// The source of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsRandom;

impl Random for OsRandom {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), NoRandom> {
        getrandom::fill(bytes).map_err(|error| NoRandom { what: error.to_string() })
    }
}

/// The same bytes for the same seed: the output stream of BLAKE3. For tests and demos, never for keys that matter.
#[derive(Clone)]
pub struct SeededRandom(blake3::OutputReader);

impl SeededRandom {
    /// The stream that grows from `seed`.
    pub fn new(seed: &[u8]) -> SeededRandom {
        SeededRandom(blake3::Hasher::new_derive_key("toka 2026-11 seeded-random v1").update(seed).finalize_xof())
    }
}

impl Random for SeededRandom {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), NoRandom> {
        self.0.fill(bytes);
        Ok(())
    }
}

impl fmt::Debug for SeededRandom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SeededRandom")
    }
}
