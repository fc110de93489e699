//! A public key as one line of text: the verifier key of C2SP signed-note.
//!
//! ```text
//! <name>+<8 hex digits of SHA-256(name ‖ 0x0A ‖ 0x01 ‖ key)[..4]>+<base64(0x01 ‖ key)>
//! ```

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use toka_kernel::keys::{KeyFault, PublicKey};

/// Bytes of a name, the longest origin and a role included.
pub const NAME_BYTES_MAX: usize = 512;
/// Bytes of a line that a parser will read.
pub const LINE_BYTES_MAX: usize = NAME_BYTES_MAX + 64;

/// The signature type of Ed25519 in signed notes.
const ED25519: u8 = 1;

/// A named public key. Its text form is [`fmt::Display`]; [`FromStr`] reads it, without the line end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vkey {
    name: String,
    key: PublicKey,
}

impl Vkey {
    /// Names `key`.
    ///
    /// # Errors
    /// [`VkeyError::Name`] if `name` is no [note name](is_note_name).
    pub fn new(name: &str, key: PublicKey) -> Result<Vkey, VkeyError> {
        if !is_note_name(name) {
            return Err(VkeyError::Name);
        }
        Ok(Vkey { name: name.to_owned(), key })
    }

    /// The name of the key, for example `node.example/root`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key, admitted.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The hash by which a signature line of a note names this key.
    pub fn hash(&self) -> u32 {
        note_hash(&self.name, ED25519, &self.key.bytes())
    }
}

/// Whether `name` may name a key: 1 to 512 bytes, no white space, no control character, no `+`.
pub fn is_note_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.chars().any(|char| char.is_whitespace() || char.is_control() || char == '+')
}

impl fmt::Display for Vkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = STANDARD.encode([&[ED25519][..], &self.key.bytes()].concat());
        write!(f, "{}+{:08x}+{key}", self.name, self.hash())
    }
}

impl FromStr for Vkey {
    type Err = VkeyError;

    fn from_str(line: &str) -> Result<Vkey, VkeyError> {
        if line.len() > LINE_BYTES_MAX {
            return Err(VkeyError::Shape);
        }
        // The key is base64 and may hold a `+`, the name and the hash may not.
        let mut parts = line.splitn(3, '+');
        let (Some(name), Some(hash), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(VkeyError::Shape);
        };
        if !is_note_name(name) {
            return Err(VkeyError::Name);
        }
        let found = hash_text(hash).ok_or(VkeyError::Shape)?;
        let bytes = STANDARD.decode(key).map_err(|_| VkeyError::Base64)?;
        let (algorithm, key) = bytes.split_first().ok_or(VkeyError::Length { found: 0 })?;
        // The hash covers algorithms this version does not know, so a typing error is named as one.
        let expected = note_hash(name, *algorithm, key);
        if found != expected {
            return Err(VkeyError::Hash { expected, found });
        }
        if *algorithm != ED25519 {
            return Err(VkeyError::Algorithm(*algorithm));
        }
        if key.len() != 32 {
            return Err(VkeyError::Length { found: key.len() });
        }
        Ok(Vkey { name: name.to_owned(), key: PublicKey::admit(key)? })
    }
}

/// Why a line is no public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VkeyError {
    /// Not three parts, a hash that is not 8 lower-case hex digits, or too long.
    #[error("it is not of the form <name>+<8 hex digits>+<base64>")]
    Shape,
    /// An empty name, or one with white space, control characters or a `+`.
    #[error("the name of a key is 1 to {NAME_BYTES_MAX} bytes without white space, control characters and `+`")]
    Name,
    /// The last part is not canonical base64 with padding.
    #[error("the key is not written in base64")]
    Base64,
    /// Name, key and hash do not belong together.
    #[error("the hash is {found:08x}, of this name and key it is {expected:08x}: the line was changed")]
    Hash {
        /// The hash of the name and the key in the line.
        expected: u32,
        /// The hash in the line.
        found: u32,
    },
    /// A signature type this version does not know.
    #[error("the key algorithm {0} is not known")]
    Algorithm(u8),
    /// Not 32 bytes of key.
    #[error("the key has {found} bytes, an Ed25519 key has 32")]
    Length {
        /// Its bytes.
        found: usize,
    },
    /// The key is not admitted.
    #[error(transparent)]
    Key(#[from] KeyFault),
}

fn note_hash(name: &str, algorithm: u8, key: &[u8]) -> u32 {
    let mut hasher = Sha256::new();
    hasher.update(name.as_bytes());
    hasher.update([b'\n', algorithm]);
    hasher.update(key);
    let digest = hasher.finalize();
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

fn hash_text(text: &str) -> Option<u32> {
    let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (text.len() == 8 && text.bytes().all(lower_hex)).then(|| u32::from_str_radix(text, 16).ok()).flatten()
}
