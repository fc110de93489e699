//! Key files: a secret key as three lines of text, a key grant as one.
//!
//! ```text
//! .key    toka-key/v1
//!         <role> <epoch> <origin>              the root key: root 1 <origin>
//!         <seed>                               base64 with padding of the 32 bytes of RFC 8032,
//!                                              or sealed with a passphrase: see `seal`
//! .pub    <vkey>                               one line, see `toka_store::vkey`
//! .grant  <grant>                              base64 with padding of the key grant record
//! ```
//!
//! Lines end with LF; the last one may lack it. Whoever reads a `.key` knows beforehand what it must say of itself, so
//! a file in the wrong place is refused. No error quotes what a file says, since that may be a seed in a wrong line.

mod seal;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use toka_kernel::keys::{KeyGrant, Role, SecretKey};
use zeroize::Zeroizing;

use crate::random::{NoRandom, Random};
pub use seal::{SealCost, SealFault, SealedSeed};

/// The first line of a `.key` file.
pub const MAGIC: &str = "toka-key/v1";
/// Bytes of a key file that a reader will read.
pub const FILE_BYTES_MAX: usize = 4_096;
/// Bytes of a passphrase.
pub const PASSPHRASE_BYTES_MAX: usize = 1_024;

/// Reads a `.key` file that holds a key for `purpose`.
///
/// # Errors
/// [`KeyFileFault`] for anything but a file that [`write_plain`] or [`write_sealed`] wrote for the same purpose.
pub fn read(text: &[u8], purpose: &Purpose) -> Result<KeyFile, KeyFileFault> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let mut lines = text.split(|byte| *byte == b'\n');
    let mut line = |number, expected: &dyn Fn() -> String| {
        lines.next().ok_or_else(|| KeyFileFault { line: number, expected: expected() })
    };
    let magic = || format!("`{MAGIC}`");
    if line(1, &magic)? != MAGIC.as_bytes() {
        return Err(KeyFileFault { line: 1, expected: magic() });
    }
    let names = || format!("`{}`", purpose.line());
    if line(2, &names)? != purpose.line().as_bytes() {
        return Err(KeyFileFault { line: 2, expected: names() });
    }
    let seed = || "32 bytes in base64, or a seed sealed with a passphrase".to_owned();
    let third = line(3, &seed)?;
    let file = match SealedSeed::parse(third) {
        Some(sealed) => KeyFile::Sealed(sealed),
        None => KeyFile::Plain(Seed::parse(third).ok_or_else(|| KeyFileFault { line: 3, expected: seed() })?),
    };
    match lines.next() {
        None => Ok(file),
        Some(_) => Err(KeyFileFault { line: 4, expected: "the end of the file".to_owned() }),
    }
}

/// A `.key` file with its seed in the clear.
pub fn write_plain(purpose: &Purpose, seed: &Seed) -> Zeroizing<Vec<u8>> {
    let text = Zeroizing::new(STANDARD.encode(seed.0.as_slice()));
    lines(purpose, &text)
}

/// A `.key` file with its seed sealed.
///
/// # Errors
/// Whatever [`SealedSeed::seal`] meets.
pub fn write_sealed(
    purpose: &Purpose,
    seed: &Seed,
    passphrase: &Passphrase,
    cost: SealCost,
    random: &mut dyn Random,
) -> Result<Zeroizing<Vec<u8>>, SealFault> {
    let sealed = SealedSeed::seal(purpose, seed, passphrase, cost, random)?;
    Ok(lines(purpose, &sealed.line()))
}

/// What a `.key` file holds.
#[derive(Debug)]
pub enum KeyFile {
    /// The seed.
    Plain(Seed),
    /// The seed under a passphrase.
    Sealed(SealedSeed),
}

/// What is wrong with a key file. It says what a line should be, never what it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} should be {expected}")]
pub struct KeyFileFault {
    /// The line, from 1.
    pub line: usize,
    /// What belongs there.
    pub expected: String,
}

/// What a key is for: its role, its epoch and the origin of its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purpose {
    role: Option<Role>,
    epoch: u32,
    origin: String,
}

impl Purpose {
    /// Of the root key.
    pub fn root(origin: &str) -> Purpose {
        Purpose { role: None, epoch: 1, origin: origin.to_owned() }
    }

    /// Of the key that holds `role` in `epoch`.
    pub fn of(role: Role, epoch: u32, origin: &str) -> Purpose {
        Purpose { role: Some(role), epoch, origin: origin.to_owned() }
    }

    /// The second line of its `.key` file.
    pub fn line(&self) -> String {
        format!("{} {} {}", self.role.map_or("root", Role::name), self.epoch, self.origin)
    }

    /// The name in its vkey line: `<origin>/root`, `<origin>/event-0001`.
    pub fn vkey_name(&self) -> String {
        match self.role {
            None => format!("{}/root", self.origin),
            Some(role) => format!("{}/{role}-{:04}", self.origin, self.epoch),
        }
    }
}

/// Reads a `.grant` file. The signature is not checked here.
///
/// # Errors
/// [`KeyFileFault`] for anything but one line of base64 of a well-formed record.
pub fn read_grant(text: &[u8]) -> Result<KeyGrant, KeyFileFault> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let bytes =
        STANDARD.decode(text).map_err(|_| KeyFileFault { line: 1, expected: "a key grant in base64".to_owned() })?;
    KeyGrant::decode(&bytes)
        .map_err(|fault| KeyFileFault { line: 1, expected: format!("a well-formed key grant, but {fault}") })
}

/// A `.grant` file.
pub fn write_grant(grant: &KeyGrant) -> String {
    STANDARD.encode(grant.encode()) + "\n"
}

/// The 32 secret bytes from which a key grows. Wiped when dropped; its `Debug` says nothing.
pub struct Seed(Zeroizing<[u8; 32]>);

impl Seed {
    /// A new one.
    ///
    /// # Errors
    /// [`NoRandom`] if there is no randomness.
    pub fn draw(random: &mut dyn Random) -> Result<Seed, NoRandom> {
        let mut bytes = Zeroizing::new([0; 32]);
        random.fill(bytes.as_mut_slice())?;
        Ok(Seed(bytes))
    }

    /// The key that grows from it.
    pub fn secret_key(&self) -> SecretKey {
        SecretKey::from_seed(&self.0)
    }

    fn parse(text: &[u8]) -> Option<Seed> {
        // Base64 of 32 bytes has 44 digits; the decoder wants room for the 33 that 44 digits could stand for.
        let mut room = Zeroizing::new([0; 33]);
        let len = (text.len() == 44).then(|| STANDARD.decode_slice(text, room.as_mut_slice()).ok()).flatten()?;
        Seed::from_slice(room.get(..len)?)
    }

    fn from_slice(bytes: &[u8]) -> Option<Seed> {
        let mut seed = Zeroizing::new([0; 32]);
        if bytes.len() != seed.len() {
            return None;
        }
        seed.copy_from_slice(bytes);
        Some(Seed(seed))
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed")
    }
}

/// What a person types to open a sealed key. Wiped when dropped; its `Debug` says nothing.
#[derive(PartialEq, Eq)]
pub struct Passphrase(Zeroizing<Vec<u8>>);

impl Passphrase {
    /// The passphrase in `text`, without its line end. Any bytes will do, from 1 to [`PASSPHRASE_BYTES_MAX`] of them;
    /// `None` outside these bounds.
    pub fn new(text: Zeroizing<Vec<u8>>) -> Option<Passphrase> {
        let line = text.strip_suffix(b"\n").unwrap_or(&text);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        (1..=PASSPHRASE_BYTES_MAX).contains(&line.len()).then(|| Passphrase(Zeroizing::new(line.to_vec())))
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase")
    }
}

fn lines(purpose: &Purpose, third: &str) -> Zeroizing<Vec<u8>> {
    let head = format!("{MAGIC}\n{}\n", purpose.line());
    // Room from the start: a buffer that grows leaves copies of the seed behind.
    let mut text = Zeroizing::new(Vec::with_capacity(head.len() + third.len() + 1));
    text.extend_from_slice(head.as_bytes());
    text.extend_from_slice(third.as_bytes());
    text.push(b'\n');
    text
}
