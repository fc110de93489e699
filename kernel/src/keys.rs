//! Keys: admission, root-signed grants, the event key of a writer and the keyring of a reader.
//!
//! Rules of `docs/FORMAT.md`: a key is admitted once, before any use; it holds one role only; signatures are
//! checked strictly (RFC 8032 with small-order and non-canonical points refused), never in batches.

use std::collections::BTreeMap;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use crate::denial::numbered;
use crate::hash::{Context, derive};
use crate::ids::{Digest, KeyId, TimeUs};

/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;
/// The only algorithm so far: Ed25519. 2 is reserved for ML-DSA-44.
pub const ALG_ED25519: u8 = 1;

const GRANT_MAGIC: &[u8; 4] = b"TKG1";
const GRANT_FIXED: usize = 96;

numbered! {
    /// What a key may sign. A key holds exactly one role.
    Role: u8 {
        /// Entries.
        Event = 1 "event",
        /// Checkpoints.
        Log = 2 "log",
        /// Commands of people.
        Operator = 3 "operator",
        /// Commands of executors.
        Executor = 4 "executor",
        /// Commands of agents.
        Agent = 5 "agent",
        /// Erasure commands only.
        Redact = 6 "redact",
        /// Edge tokens only.
        Token = 7 "token",
    }
}

/// What is signed. The label stands in the signed message, behind a NUL that begins no other signed text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// A header of an entry.
    Entry,
    /// A key grant.
    KeyGrant,
    /// A command.
    Command,
}

impl Label {
    fn text(self) -> &'static [u8] {
        match self {
            Label::Entry => b"\0toka-entry-sig-v1",
            Label::KeyGrant => b"\0toka-key-grant-sig-v1",
            Label::Command => b"\0toka-command-sig-v1",
        }
    }

    fn message(self, digest: &Digest) -> Vec<u8> {
        [self.text(), &digest.0].concat()
    }
}

/// Why a key or a key grant is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// Not 32 bytes, or a point written in another way than the canonical one.
    #[error("the public key is not in canonical form")]
    NonCanonical,
    /// Of small order, or with a torsion part.
    #[error("the public key is weak")]
    Weak,
    /// An algorithm this version does not know.
    #[error("the key algorithm {0} is not known")]
    Algorithm(u8),
    /// The record has another shape than `docs/FORMAT.md` says.
    #[error("the key grant is malformed: {0}")]
    Record(&'static str),
    /// The grant names another root key.
    #[error("the grant is by another root key")]
    Root,
    /// The signature of the grant is wrong.
    #[error("the signature of the root key is wrong")]
    Signature,
}

/// Why a signature does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureFault {
    /// All bytes are zero.
    #[error("there is no signature")]
    Missing,
    /// The scalar is not below the group order: the same signature written in another way.
    #[error("the signature is not in canonical form")]
    NonCanonical,
    /// It does not verify.
    #[error("the signature is wrong")]
    Invalid,
}

/// A public key that passed admission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    id: KeyId,
    key: VerifyingKey,
}

impl PublicKey {
    /// Admits a public key.
    ///
    /// # Errors
    /// [`KeyFault::NonCanonical`] unless it is 32 bytes with y < p and not the second encoding of x = 0;
    /// [`KeyFault::Weak`] if it has small order or torsion.
    pub fn admit(bytes: &[u8]) -> Result<PublicKey, KeyFault> {
        let bytes: &[u8; 32] = bytes.try_into().map_err(|_| KeyFault::NonCanonical)?;
        if !y_is_canonical(bytes) {
            return Err(KeyFault::NonCanonical);
        }
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| KeyFault::NonCanonical)?;
        if key.to_edwards().compress().to_bytes() != *bytes {
            return Err(KeyFault::NonCanonical);
        }
        if key.is_weak() || !key.to_edwards().is_torsion_free() {
            return Err(KeyFault::Weak);
        }
        Ok(PublicKey { id: key_id(bytes), key })
    }

    /// The key id: a hash of algorithm and public key.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The 32 bytes of the key.
    pub fn bytes(&self) -> [u8; 32] {
        self.key.to_bytes()
    }

    /// Checks `signature` over `digest` strictly.
    ///
    /// # Errors
    /// [`SignatureFault`], the first that applies.
    pub fn verify(&self, label: Label, digest: &Digest, signature: &[u8]) -> Result<(), SignatureFault> {
        let signature: &[u8; 64] = signature.try_into().map_err(|_| SignatureFault::Missing)?;
        if signature.iter().all(|byte| *byte == 0) {
            return Err(SignatureFault::Missing);
        }
        if !scalar_is_canonical(signature) {
            return Err(SignatureFault::NonCanonical);
        }
        self.key
            .verify_strict(&label.message(digest), &Signature::from_bytes(signature))
            .map_err(|_| SignatureFault::Invalid)
    }
}

/// The id of the key with these bytes, admitted or not.
pub fn key_id(public: &[u8; 32]) -> KeyId {
    KeyId(derive(Context::Key, &[&[ALG_ED25519], public]).0)
}

/// A secret key. Its bytes are zeroed when it is dropped, and it has no `Debug` content.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecretKey({})", self.public().id())
    }
}

impl SecretKey {
    /// The key that grows from a 32-byte seed (RFC 8032). The caller keeps the seed secret.
    pub fn from_seed(seed: &[u8; 32]) -> SecretKey {
        SecretKey(SigningKey::from_bytes(seed))
    }

    /// Its public key. A key that grows from a seed is canonical, of full order and free of torsion.
    pub fn public(&self) -> PublicKey {
        let key = self.0.verifying_key();
        PublicKey { id: key_id(key.as_bytes()), key }
    }

    /// Signs `digest` for the purpose that `label` names.
    pub fn sign(&self, label: Label, digest: &Digest) -> [u8; 64] {
        self.0.sign(&label.message(digest)).to_bytes()
    }
}

/// The key a writer signs entries with, and the epoch in which it is in force.
#[derive(Clone, Debug)]
pub struct EventKey {
    secret: SecretKey,
    id: KeyId,
    epoch: u32,
}

impl EventKey {
    /// The event key of `epoch`.
    pub fn new(secret: SecretKey, epoch: u32) -> EventKey {
        let id = secret.public().id();
        EventKey { secret, id, epoch }
    }

    /// Its key id.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Its epoch.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    pub(crate) fn sign(&self, digest: &Digest) -> [u8; 64] {
        self.secret.sign(Label::Entry, digest)
    }
}

/// A root-signed statement that a key holds a role.
///
/// ```text
/// 0 4 "TKG1"   4 1 alg   5 1 role   6 2 origin_len   8 4 epoch   12 4 zero
/// 16 8 not_before_us   24 8 not_after_us   32 32 public key   64 32 root key id   96 origin ‖ signature[64]
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyGrant {
    /// The role.
    pub role: Role,
    /// The epoch, from 1.
    pub epoch: u32,
    /// Usable from this time on.
    pub not_before_us: TimeUs,
    /// Usable before this time.
    pub not_after_us: TimeUs,
    /// The key, admitted.
    pub key: PublicKey,
    /// The root key that signs.
    pub root: KeyId,
    /// The node's origin, 1 to 255 bytes.
    pub origin: String,
    /// The signature of the root key over the record before it.
    pub signature: [u8; 64],
}

impl KeyGrant {
    /// Grants `role` to `key`, signed by `root`.
    pub fn issue(
        role: Role,
        epoch: u32,
        window: std::ops::Range<TimeUs>,
        key: PublicKey,
        origin: &str,
        root: &SecretKey,
    ) -> KeyGrant {
        let mut grant = KeyGrant {
            role,
            epoch,
            not_before_us: window.start,
            not_after_us: window.end,
            key,
            root: root.public().id(),
            origin: origin.to_owned(),
            signature: [0; 64],
        };
        grant.signature = root.sign(Label::KeyGrant, &grant.signed_hash());
        grant
    }

    /// The record as it stands in a genesis.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.unsigned();
        out.extend_from_slice(&self.signature);
        out
    }

    /// Reads a record and admits its key. The signature is checked by [`KeyGrant::check`].
    ///
    /// # Errors
    /// [`KeyFault`] for anything but a well-formed record of an admissible key.
    pub fn decode(bytes: &[u8]) -> Result<KeyGrant, KeyFault> {
        if bytes.len() < GRANT_FIXED + 1 + SIGNATURE_BYTES || &bytes[..4] != GRANT_MAGIC {
            return Err(KeyFault::Record("magic or length"));
        }
        if bytes[4] != ALG_ED25519 {
            return Err(KeyFault::Algorithm(bytes[4]));
        }
        let origin_len = usize::from(u16::from_be_bytes(array(bytes, 6)));
        if !(1..=255).contains(&origin_len) || bytes.len() != GRANT_FIXED + origin_len + SIGNATURE_BYTES {
            return Err(KeyFault::Record("origin length"));
        }
        if bytes[12..16] != [0; 4] {
            return Err(KeyFault::Record("reserved bytes"));
        }
        let (origin, signature) = bytes[GRANT_FIXED..].split_at(origin_len);
        Ok(KeyGrant {
            role: Role::from_number(bytes[5]).ok_or(KeyFault::Record("role"))?,
            epoch: u32::from_be_bytes(array(bytes, 8)),
            not_before_us: u64::from_be_bytes(array(bytes, 16)),
            not_after_us: u64::from_be_bytes(array(bytes, 24)),
            key: PublicKey::admit(&bytes[32..64])?,
            root: KeyId(array(bytes, 64)),
            origin: std::str::from_utf8(origin).map_err(|_| KeyFault::Record("origin"))?.to_owned(),
            signature: array(signature, 0),
        })
    }

    /// Checks that `root` granted this.
    ///
    /// # Errors
    /// [`KeyFault::Root`] if another root key is named, [`KeyFault::Signature`] if the signature is wrong.
    pub fn check(&self, root: &PublicKey) -> Result<(), KeyFault> {
        if self.root != root.id() {
            return Err(KeyFault::Root);
        }
        root.verify(Label::KeyGrant, &self.signed_hash(), &self.signature).map_err(|_| KeyFault::Signature)
    }

    fn unsigned(&self) -> Vec<u8> {
        let mut out = GRANT_MAGIC.to_vec();
        out.extend_from_slice(&[ALG_ED25519, self.role.number()]);
        out.extend_from_slice(&u16::try_from(self.origin.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.not_before_us.to_be_bytes());
        out.extend_from_slice(&self.not_after_us.to_be_bytes());
        out.extend_from_slice(&self.key.bytes());
        out.extend_from_slice(&self.root.0);
        out.extend_from_slice(self.origin.as_bytes());
        out
    }

    fn signed_hash(&self) -> Digest {
        derive(Context::KeyGrant, &[&self.unsigned()])
    }
}

/// The keys a session's genesis grants, and the epoch in force: what a reader checks signatures with.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    grants: BTreeMap<KeyId, KeyGrant>,
    epoch: u32,
}

impl Keyring {
    /// An empty keyring for a session whose genesis is signed in `epoch`.
    pub fn new(epoch: u32) -> Keyring {
        Keyring { grants: BTreeMap::new(), epoch }
    }

    /// Adds a grant. One key appears with one role only: `false` if it is here already.
    pub fn add(&mut self, grant: KeyGrant) -> bool {
        let id = grant.key.id();
        let fresh = !self.grants.contains_key(&id);
        if fresh {
            self.grants.insert(id, grant);
        }
        fresh
    }

    /// The grant of a key.
    pub fn get(&self, key: &KeyId) -> Option<&KeyGrant> {
        self.grants.get(key)
    }

    /// Whether no key is granted at all.
    pub fn is_empty(&self) -> bool {
        self.grants.is_empty()
    }

    /// The epoch in force.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }
}

/// Checks that this build refuses what RFC 8032 alone would let through.
///
/// # Errors
/// The name of the forgery that was accepted; a process that verifies must then exit.
pub fn self_test() -> Result<(), &'static str> {
    let key = SecretKey::from_seed(&[7; 32]);
    let digest = Digest([9; 32]);
    let mut signature = key.sign(Label::Entry, &digest);
    if key.public().verify(Label::Entry, &digest, &signature).is_err() {
        return Err("an honest signature is refused");
    }
    add_order(&mut signature);
    if key.public().verify(Label::Entry, &digest, &signature) != Err(SignatureFault::NonCanonical)
        || key
            .0
            .verifying_key()
            .verify_strict(&Label::Entry.message(&digest), &Signature::from_bytes(&signature))
            .is_ok()
    {
        return Err("S + L is accepted");
    }
    let mut identity = [0; 32];
    identity[0] = 1;
    let mut forged = [0; 64];
    forged[0] = 1;
    let strict = VerifyingKey::from_bytes(&identity)
        .is_ok_and(|key| key.verify_strict(&Label::Entry.message(&digest), &Signature::from_bytes(&forged)).is_ok());
    if strict || PublicKey::admit(&identity).is_ok() {
        return Err("the identity key is accepted");
    }
    Ok(())
}

/// The group order L, little-endian.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

fn scalar_is_canonical(signature: &[u8; 64]) -> bool {
    signature[32..].iter().rev().lt(ORDER.iter().rev())
}

/// Whether y < p = 2^255 − 19.
fn y_is_canonical(bytes: &[u8; 32]) -> bool {
    let top = bytes[31] & 0x7f;
    top != 0x7f || bytes[1..31].iter().any(|byte| *byte != 0xff) || bytes[0] < 0xed
}

fn add_order(signature: &mut [u8; 64]) {
    let mut carry = 0u16;
    for (byte, order) in signature[32..].iter_mut().zip(ORDER) {
        carry += u16::from(*byte) + u16::from(order);
        *byte = carry.to_le_bytes()[0];
        carry >>= 8;
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant() -> (SecretKey, KeyGrant) {
        let root = SecretKey::from_seed(&[1; 32]);
        let key = SecretKey::from_seed(&[2; 32]).public();
        (root.clone(), KeyGrant::issue(Role::Event, 1, 0..9, key, "node.test", &root))
    }

    #[test]
    fn weakening_of_the_signature_library_would_be_noticed() {
        assert_eq!(self_test(), Ok(()));
    }

    #[test]
    fn a_grant_reads_back_as_written_and_checks() {
        let (root, grant) = grant();
        let read = KeyGrant::decode(&grant.encode()).expect("reads");
        assert_eq!(read, grant);
        assert_eq!(read.check(&root.public()), Ok(()));
    }

    #[test]
    fn any_changed_byte_of_a_grant_is_refused() {
        let (root, grant) = grant();
        for at in 0..grant.encode().len() {
            let mut bytes = grant.encode();
            bytes[at] ^= 1;
            let read = KeyGrant::decode(&bytes).and_then(|grant| grant.check(&root.public()));
            assert!(read.is_err(), "byte {at}");
        }
    }

    #[test]
    fn every_encoding_of_a_small_order_point_is_refused() {
        let points = [
            "0100000000000000000000000000000000000000000000000000000000000000",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "0000000000000000000000000000000000000000000000000000000000000080",
            "0000000000000000000000000000000000000000000000000000000000000000",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
            "0100000000000000000000000000000000000000000000000000000000000080",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        ];
        for point in points {
            let bytes = Digest::from_hex(point).expect("hex").0;
            assert!(PublicKey::admit(&bytes).is_err(), "{point}");
        }
    }
}
