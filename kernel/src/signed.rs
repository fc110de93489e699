//! Signed commands: a principal signs what it asks, so that nobody can ask it in its name.
//!
//! ```text
//!  0 32  session, the audience      82  2  schema               96      n  body
//! 32 16  nonce                      84  8  not_after_us       96+n     64  signature over all before it
//! 48 32  key id                     92  4  n
//! 80  2  command kind
//!
//! body = the command's own bytes as they stand in a refusal ‖ commitment[32] of each of its blobs, in order
//! ```
//! Of `OpenSession` the session is left out: it is named after a genesis that holds the signature.

use crate::body::v1::{OpenBody, OpenSessionAsked};
use crate::body::{self};
use crate::command::Ask;
use crate::entry::BlobRef;
use crate::event::kind;
use crate::hash::{Context, derive};
use crate::ids::{Bytes, Digest, KeyId, SessionId, TimeUs};
use crate::keys::{Label, PublicKey, SIGNATURE_BYTES, SecretKey, SignatureFault};
use crate::limits::COMMAND_BYTES_MAX;

/// Bytes before the body.
const FIXED: usize = 96;
/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 16;

/// A signed command, as read; [`crate::State::decide`] says whether it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The session it is for.
    pub session: SessionId,
    /// Random, so that it can be used once.
    pub nonce: [u8; NONCE_BYTES],
    /// The key that signed it.
    pub key: KeyId,
    /// The kind of the event that answers it.
    pub kind: u16,
    /// The schema of the command.
    pub schema: u16,
    /// Valid before this time.
    pub not_after_us: TimeUs,
    /// The command, with the commitments of its blobs.
    pub body: Vec<u8>,
    /// The signature.
    pub signature: [u8; SIGNATURE_BYTES],
}

impl Signed {
    /// Signs `ask`, which refers to `blobs`, for `session` until `not_after_us`. The caller draws the nonce at random.
    ///
    /// What comes of it goes into [`crate::Command::signed`], as [`Signed::encode`] writes it.
    pub fn sign(
        session: SessionId,
        nonce: [u8; NONCE_BYTES],
        not_after_us: TimeUs,
        ask: &Ask,
        blobs: &[BlobRef],
        key: &SecretKey,
    ) -> Signed {
        let mut signed = Signed {
            session,
            nonce,
            key: key.public().id(),
            kind: ask.kind(),
            schema: 1,
            not_after_us,
            body: body_of(ask, blobs),
            signature: [0; SIGNATURE_BYTES],
        };
        signed.signature = key.sign(Label::Command, &signed.signed_hash());
        signed
    }

    /// The bytes that stand in an event.
    pub fn encode(&self) -> Bytes {
        let mut out = self.unsigned();
        out.extend_from_slice(&self.signature);
        Bytes(out)
    }

    /// Reads the bytes of a signed command; `None` unless they are exactly one.
    pub fn decode(bytes: &[u8]) -> Option<Signed> {
        let (fixed, rest) = bytes.split_at_checked(FIXED)?;
        let (body, signature) = rest.split_at_checked(rest.len().checked_sub(SIGNATURE_BYTES)?)?;
        let len = usize::try_from(u32::from_be_bytes(part(fixed, 92)?)).ok()?;
        if body.len() != len || len > COMMAND_BYTES_MAX {
            return None;
        }
        Some(Signed {
            session: SessionId(part(fixed, 0)?),
            nonce: part(fixed, 32)?,
            key: KeyId(part(fixed, 48)?),
            kind: u16::from_be_bytes(part(fixed, 80)?),
            schema: u16::from_be_bytes(part(fixed, 82)?),
            not_after_us: u64::from_be_bytes(part(fixed, 84)?),
            body: body.to_vec(),
            signature: part(signature, 0)?,
        })
    }

    /// Checks the signature under `key`.
    ///
    /// # Errors
    /// [`SignatureFault`], the first that applies.
    pub fn verify(&self, key: &PublicKey) -> Result<(), SignatureFault> {
        key.verify(Label::Command, &self.signed_hash(), &self.signature)
    }

    /// What was signed, where it is the command that `asked` stands for: `asked` itself, or what it was before
    /// capabilities in it were filled. `None` for another kind, schema, other blobs, or bytes that are no command.
    pub(crate) fn ask(&self, asked: &Ask, blobs: &[BlobRef]) -> Option<Ask> {
        if self.kind != asked.kind() || self.schema != 1 {
            return None;
        }
        let (own, commitments) = self.body.split_at_checked(self.body.len().checked_sub(32 * blobs.len())?)?;
        if !commitments.chunks_exact(32).eq(blobs.iter().map(|blob| &blob.commitment.0[..])) {
            return None;
        }
        let ask = if let Ask::OpenSession(asked) = asked {
            let OpenBody { opener, roots } = body::decode(own).ok()?;
            Ask::OpenSession(Box::new(OpenSessionAsked { session: asked.session, opener, roots }))
        } else {
            Ask::decode(self.kind, self.schema, own).ok()?
        };
        (ask == *asked || ask.without_texts() == asked.without_texts()).then_some(ask)
    }

    /// Whether this is `OpenSession` with exactly these bytes, for the system session `session`.
    pub(crate) fn is_opening(&self, session: SessionId, open_body: &[u8]) -> bool {
        self.kind == kind::SESSION_REGISTERED && self.schema == 1 && self.session == session && self.body == open_body
    }

    fn unsigned(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FIXED + self.body.len() + SIGNATURE_BYTES);
        out.extend_from_slice(&self.session.0);
        out.extend_from_slice(&self.nonce);
        out.extend_from_slice(&self.key.0);
        out.extend_from_slice(&self.kind.to_be_bytes());
        out.extend_from_slice(&self.schema.to_be_bytes());
        out.extend_from_slice(&self.not_after_us.to_be_bytes());
        out.extend_from_slice(&u32::try_from(self.body.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(&self.body);
        out
    }

    fn signed_hash(&self) -> Digest {
        derive(Context::Command, &[&self.unsigned()])
    }
}

/// The body of the signed form of a command.
fn body_of(ask: &Ask, blobs: &[BlobRef]) -> Vec<u8> {
    let mut out = if let Ask::OpenSession(asked) = ask { open_body(asked) } else { ask.encode() };
    for blob in blobs {
        out.extend_from_slice(&blob.commitment.0);
    }
    out
}

/// What stands in the `open` of a genesis and is signed: the opening without its session.
pub fn open_body(asked: &OpenSessionAsked) -> Vec<u8> {
    body::encode(&OpenBody { opener: asked.opener, roots: asked.roots.clone() })
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}
