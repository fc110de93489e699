//! A seed under a passphrase.
//!
//! The third line of a sealed `.key` file, words apart by one space:
//!
//! ```text
//! sealed argon2id m=<KiB> t=<passes> p=1 <salt> <box>
//!
//! key = Argon2id (RFC 9106, version 0x13, one lane, no secret, no data) of the passphrase and salt, 32 bytes
//! box = ChaCha20-Poly1305 (RFC 8439) of the 32 bytes of seed under key, nonce zero: ciphertext[32] ‖ tag[16]
//! aad = the bytes of the file before the space in front of <box>: magic, role, epoch, origin, cost and salt
//! ```
//!
//! Salt (16 bytes) and box (48 bytes) are base64 with padding, numbers decimal without leading zeros. The salt is new
//! whenever a seed is sealed, so each key seals one seed only and the nonce may stand still. What is opened is then
//! compared with the public key, which the box alone would not commit to.

use std::fmt;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use zeroize::Zeroizing;

use super::{MAGIC, Passphrase, Purpose, Seed};
use crate::random::{NoRandom, Random};

const SALT_BYTES: usize = 16;
const BOX_BYTES: usize = 48;

/// How much work it is to try one passphrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealCost {
    memory_kib: u32,
    passes: u32,
}

impl SealCost {
    /// What new key files are sealed with: 64 MiB, 3 passes (the second choice of RFC 9106, on one lane).
    pub const DEFAULT: SealCost = SealCost { memory_kib: 65_536, passes: 3 };
    /// The most memory a key file may demand: 256 MiB.
    pub const MEMORY_KIB_MAX: u32 = 262_144;
    /// The most passes a key file may demand.
    pub const PASSES_MAX: u32 = 16;

    /// A cost of `memory_kib` from 8 to [`SealCost::MEMORY_KIB_MAX`] and `passes` from 1 to [`SealCost::PASSES_MAX`];
    /// `None` outside these bounds.
    pub fn new(memory_kib: u32, passes: u32) -> Option<SealCost> {
        let bounded =
            (8..=SealCost::MEMORY_KIB_MAX).contains(&memory_kib) && (1..=SealCost::PASSES_MAX).contains(&passes);
        bounded.then_some(SealCost { memory_kib, passes })
    }
}

/// Why a seed cannot be sealed or opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealFault {
    /// Another passphrase, or a changed file: the two cannot be told apart.
    #[error("the passphrase does not open it; either it is another one, or the file was changed")]
    Passphrase,
    /// The memory that the cost asks for is not there.
    #[error("opening it takes {kib} KiB of memory, which are not there")]
    Memory {
        /// KiB asked for.
        kib: u32,
    },
    /// There is no randomness.
    #[error(transparent)]
    Random(#[from] NoRandom),
}

/// A seed under a passphrase, as it stands in a file.
pub struct SealedSeed {
    cost: SealCost,
    salt: [u8; SALT_BYTES],
    sealed: [u8; BOX_BYTES],
}

impl SealedSeed {
    /// Seals `seed`, for this purpose only.
    ///
    /// # Errors
    /// [`SealFault::Random`] or [`SealFault::Memory`].
    pub fn seal(
        purpose: &Purpose,
        seed: &Seed,
        passphrase: &Passphrase,
        cost: SealCost,
        random: &mut dyn Random,
    ) -> Result<SealedSeed, SealFault> {
        let mut salt = [0; SALT_BYTES];
        random.fill(&mut salt)?;
        let aad = aad(purpose, cost, &salt);
        let sealed = cipher(passphrase, cost, &salt)?
            .encrypt(&Nonce::default(), Payload { msg: seed.0.as_slice(), aad: aad.as_bytes() })
            .ok()
            .and_then(|sealed| sealed.try_into().ok())
            .ok_or(SealFault::Passphrase)?;
        Ok(SealedSeed { cost, salt, sealed })
    }

    /// Opens it.
    ///
    /// # Errors
    /// [`SealFault::Passphrase`] or [`SealFault::Memory`].
    pub fn open(&self, purpose: &Purpose, passphrase: &Passphrase) -> Result<Seed, SealFault> {
        let aad = aad(purpose, self.cost, &self.salt);
        let seed = cipher(passphrase, self.cost, &self.salt)?
            .decrypt(&Nonce::default(), Payload { msg: &self.sealed, aad: aad.as_bytes() })
            .map(Zeroizing::new)
            .map_err(|_| SealFault::Passphrase)?;
        Seed::from_slice(&seed).ok_or(SealFault::Passphrase)
    }

    /// The third line of the file.
    pub(super) fn line(&self) -> String {
        format!("{} {}", front(self.cost, &self.salt), STANDARD.encode(self.sealed))
    }

    /// Reads the third line of a file; `None` if it is not written as [`SealedSeed::line`] writes it, or if it demands
    /// more than [`SealCost`] allows.
    pub(super) fn parse(line: &[u8]) -> Option<SealedSeed> {
        let text = std::str::from_utf8(line).ok()?;
        let mut words = text.strip_prefix("sealed argon2id ")?.split(' ');
        let memory_kib = words.next()?.strip_prefix("m=")?.parse().ok()?;
        let passes = words.next()?.strip_prefix("t=")?.parse().ok()?;
        let cost = SealCost::new(memory_kib, passes)?;
        words.next().filter(|lanes| *lanes == "p=1")?;
        let salt = STANDARD.decode(words.next()?).ok()?.try_into().ok()?;
        let sealed = STANDARD.decode(words.next()?).ok()?.try_into().ok()?;
        let read = SealedSeed { cost, salt, sealed };
        (read.line() == text).then_some(read)
    }
}

impl fmt::Debug for SealedSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedSeed").field("cost", &self.cost).finish_non_exhaustive()
    }
}

fn front(cost: SealCost, salt: &[u8; SALT_BYTES]) -> String {
    format!("sealed argon2id m={} t={} p=1 {}", cost.memory_kib, cost.passes, STANDARD.encode(salt))
}

fn aad(purpose: &Purpose, cost: SealCost, salt: &[u8; SALT_BYTES]) -> String {
    format!("{MAGIC}\n{}\n{}", purpose.line(), front(cost, salt))
}

fn cipher(passphrase: &Passphrase, cost: SealCost, salt: &[u8]) -> Result<ChaCha20Poly1305, SealFault> {
    let no_memory = || SealFault::Memory { kib: cost.memory_kib };
    let params = Params::new(cost.memory_kib, cost.passes, 1, Some(32)).map_err(|_| no_memory())?;
    // The crate's own memory is not wiped when it is given back, and the last block of it gives the key away.
    let mut memory = Zeroizing::new(Vec::new());
    memory.try_reserve_exact(params.block_count()).map_err(|_| no_memory())?;
    memory.resize(params.block_count(), Block::new());
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into_with_memory(&passphrase.0, salt, key.as_mut_slice(), memory.as_mut_slice())
        .map_err(|_| no_memory())?;
    Ok(ChaCha20Poly1305::new(key.as_slice().try_into().map_err(|_| no_memory())?))
}
