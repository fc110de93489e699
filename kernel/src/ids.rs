//! Ids and digests: 32 bytes each, a type per meaning, so that one cannot be taken for another.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::hash::{Context, derive};

/// The position of an entry in its session, from 0.
pub type Seq = u64;

/// Microseconds since 1970-01-01T00:00:00Z, at most [`crate::limits::TIME_US_MAX`].
pub type TimeUs = u64;

macro_rules! bytes32 {
    ($($(#[$doc:meta])* $name:ident,)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// Thirty-two zero bytes.
            pub const ZERO: $name = $name([0; 32]);

            /// The first 16 hex digits, the short form for people.
            pub fn short(&self) -> String {
                self.to_string()[..16].to_owned()
            }

            /// Reads 64 lower-case hex digits; `None` for anything else.
            pub fn from_hex(text: &str) -> Option<$name> {
                hex32(text).map($name)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_bytes(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_bytes(FixedBytes::<32>).map($name)
            }
        }
    )*};
}

bytes32! {
    /// A session: the entry hash of its genesis.
    SessionId,
    /// The hash of an entry's header and signature.
    EntryHash,
    /// Who asks. Thirty-two zero bytes are the node itself.
    PrincipalId,
    /// A grant.
    GrantId,
    /// A call.
    CallId,
    /// A task of an agent.
    TaskId,
    /// A message to an agent.
    MessageId,
    /// A key: a hash of its algorithm and public key.
    KeyId,
    /// A salted commitment to the bytes of a blob.
    Commitment,
    /// Any other 32-byte hash.
    Digest,
}

impl PrincipalId {
    /// The engine itself, in every session.
    pub const NODE: PrincipalId = PrincipalId::ZERO;
}

/// An agent is a principal; its id is the principal's.
pub type AgentId = PrincipalId;

/// The id of the `ordinal`-th thing made by the entry `seq` of `session`.
pub fn derived(session: SessionId, seq: Seq, ordinal: u32) -> [u8; 32] {
    derive(Context::Id, &[&session.0, &seq.to_be_bytes(), &ordinal.to_be_bytes()]).0
}

/// The 16-byte id by which a command is known when it is sent again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct CommandId(pub [u8; 16]);

impl CommandId {
    /// The id of a command that the node asks of itself and that its own rule keeps from repeating.
    pub const NONE: CommandId = CommandId([0; 16]);

    /// The id that begins as `digest` does.
    pub fn of(digest: Digest) -> CommandId {
        let mut id = [0; 16];
        id.copy_from_slice(&digest.0[..16]);
        CommandId(id)
    }
}

impl fmt::Debug for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommandId({self})")
    }
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Serialize for CommandId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for CommandId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(FixedBytes::<16>).map(CommandId)
    }
}

/// Bytes of any length, as msgpack `bin` and never as an array of integers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bytes(pub Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes(")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, ")")
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyBytes;
        impl Visitor<'_> for AnyBytes {
            type Value = Bytes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(AnyBytes)
    }
}

struct FixedBytes<const N: usize>;

impl<const N: usize> Visitor<'_> for FixedBytes<N> {
    type Value = [u8; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{N} bytes")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<[u8; N], E> {
        bytes.try_into().map_err(|_| E::invalid_length(bytes.len(), &self))
    }
}

fn hex32(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}
