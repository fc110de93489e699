//! Entries and heads: one event sealed into a session's chain, and the two checks every reader makes.
//!
//! ```text
//! entry = header ‖ signature[64] ‖ body
//!
//!   0  4  magic "TKE1"        56 32  prev               164      4  body_len
//!   4  1  suite               88  8  time_us            168     32  body_hash
//!   5  1  flags               96  4  key_epoch          200    8·c  causes
//!   6  2  kind               100 32  signer           200+8c  36·b  blobs {4 size_grains, 32 commitment}
//!   8  2  body_schema        132 32  principal             H    64  signature
//!  10  2  n_causes                                       H+64   body_len
//!  12  2  n_blobs
//!  14  2  reserved
//!  16 32  session
//!  48  8  seq
//! ```
//! Integers are big-endian. All lengths lie inside the signed header; no framing exists outside it.

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::event::{BodyFault, Event};
use crate::hash::{Context, derive};
use crate::ids::{Commitment, Digest, EntryHash, KeyId, PrincipalId, Seq, SessionId, TimeUs};
use crate::keys::{EventKey, Keyring, SIGNATURE_BYTES};
use crate::limits::{BLOB_GRAIN_BYTES, BLOBS_PER_ENTRY_MAX, BODY_BYTES_MAX, CAUSES_MAX};

/// The first four bytes of every entry.
pub const MAGIC: [u8; 4] = *b"TKE1";
/// Suite 1: BLAKE3-256 and strict Ed25519.
pub const SUITE: u8 = 1;
/// Flag bit 0: the clock was behind and the time was clamped to the predecessor's.
pub const FLAG_CLOCK_BEHIND: u8 = 1;
/// Bytes of a header without causes and blobs.
pub const HEADER_BYTES_MIN: usize = 200;

/// A reference to a blob: its size in grains of 256 bytes and the commitment to its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobRef {
    /// `max(1, ⌈len / 256⌉)`.
    pub grains: u32,
    /// The commitment over salt, length and bytes.
    pub commitment: Commitment,
}

impl BlobRef {
    /// The reference to `bytes` under `salt`. Blobs are at most [`crate::limits::BLOB_BYTES_MAX`] long.
    pub fn to(salt: &[u8; 32], bytes: &[u8]) -> BlobRef {
        BlobRef { grains: grains(bytes.len() as u64), commitment: commitment(salt, bytes) }
    }
}

/// The commitment of a blob: `DK(blob, salt ‖ u64 len ‖ bytes)`.
pub fn commitment(salt: &[u8; 32], bytes: &[u8]) -> Commitment {
    Commitment(derive(Context::Blob, &[salt, &(bytes.len() as u64).to_be_bytes(), bytes]).0)
}

/// The size of `len` bytes in grains: `max(1, ⌈len / 256⌉)`.
pub fn grains(len: u64) -> u32 {
    u32::try_from(len.div_ceil(BLOB_GRAIN_BYTES).max(1)).unwrap_or(u32::MAX)
}

/// A reference to an entry, of this session or another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntryRef {
    /// The session.
    #[serde(rename = "ses")]
    pub session: SessionId,
    /// The seq in it.
    pub seq: Seq,
    /// The hash of that entry.
    pub hash: EntryHash,
}

/// When an entry is sealed: the time, and whether the clock was behind the predecessor and was clamped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Microseconds UTC, not before the predecessor's.
    pub time_us: TimeUs,
    /// Whether `time_us` is the predecessor's because the clock was behind it.
    pub clock_behind: bool,
}

impl Stamp {
    /// The stamp for a clock that reads `now_us`, after `head`.
    pub fn after(head: &Head, now_us: TimeUs) -> Stamp {
        Stamp { time_us: now_us.max(head.time_us), clock_behind: now_us < head.time_us }
    }
}

/// The last entry of a session, as far as the next one needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The session; zero before the genesis.
    pub session: SessionId,
    /// The seq of that entry.
    pub seq: Seq,
    /// Its hash.
    pub hash: EntryHash,
    /// Its time.
    pub time_us: TimeUs,
    /// Its kind; 0 before the genesis.
    pub kind: u16,
}

impl Head {
    /// Before the genesis.
    pub fn none() -> Head {
        Head { session: SessionId::ZERO, seq: 0, hash: EntryHash::ZERO, time_us: 0, kind: 0 }
    }

    /// The seq that the next entry must have.
    pub fn next_seq(&self) -> Seq {
        if self.kind == 0 { 0 } else { self.seq.saturating_add(1) }
    }

    /// The head after `entry`, if `entry` follows this head and is signed by the event key in force.
    ///
    /// # Errors
    /// The first broken rule, in the order of `docs/FORMAT.md`.
    pub fn accept(self, entry: &Entry, keys: &Keyring) -> Result<Head, Broken> {
        let mut first = None;
        crate::chain::check(&self, entry, keys, None, &mut |broken| {
            first = Some(broken);
            std::ops::ControlFlow::Break(())
        });
        match first {
            Some(broken) => Err(broken),
            None => Ok(entry.head()),
        }
    }
}

/// The header of an entry, as read; [`crate::chain::check`] says whether it is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Magic bytes, [`MAGIC`] in this version.
    pub magic: [u8; 4],
    /// The suite of hash and signature.
    pub suite: u8,
    /// Flags; only [`FLAG_CLOCK_BEHIND`] is defined.
    pub flags: u8,
    /// The kind of the event.
    pub kind: u16,
    /// The version of this kind's body.
    pub schema: u16,
    /// Zero.
    pub reserved: u16,
    /// The session; zero in a genesis.
    pub session: SessionId,
    /// The position in the session.
    pub seq: Seq,
    /// The hash of the predecessor; zero in a genesis.
    pub prev: EntryHash,
    /// Microseconds UTC.
    pub time_us: TimeUs,
    /// The epoch of the event key.
    pub key_epoch: u32,
    /// The event key.
    pub signer: KeyId,
    /// Who asked.
    pub principal: PrincipalId,
    /// The length of the body.
    pub body_len: u32,
    /// The hash of kind, schema and body.
    pub body_hash: Digest,
    /// The entries of this session that caused this one, ascending.
    pub causes: Vec<Seq>,
    /// The blobs that the body refers to by index.
    pub blobs: Vec<BlobRef>,
}

impl Header {
    /// Reads a header from the front of `bytes`.
    ///
    /// # Errors
    /// [`FrameFault`] when bytes are missing or a length is above its limit. Nothing else is checked here.
    pub fn read(bytes: &[u8]) -> Result<Header, FrameFault> {
        let len = header_len(bytes)?;
        let bytes = bytes.get(..len).ok_or(FrameFault::Short { need: len, have: bytes.len() })?;
        let (causes, blobs) = bytes[HEADER_BYTES_MIN..].split_at(8 * be16(bytes, 10) as usize);
        Ok(Header {
            magic: array(bytes, 0),
            suite: bytes[4],
            flags: bytes[5],
            kind: be16(bytes, 6),
            schema: be16(bytes, 8),
            reserved: be16(bytes, 14),
            session: SessionId(array(bytes, 16)),
            seq: be64(bytes, 48),
            prev: EntryHash(array(bytes, 56)),
            time_us: be64(bytes, 88),
            key_epoch: be32(bytes, 96),
            signer: KeyId(array(bytes, 100)),
            principal: PrincipalId(array(bytes, 132)),
            body_len: be32(bytes, 164),
            body_hash: Digest(array(bytes, 168)),
            causes: causes.chunks_exact(8).map(|cause| be64(cause, 0)).collect(),
            blobs: blobs
                .chunks_exact(36)
                .map(|blob| BlobRef { grains: be32(blob, 0), commitment: Commitment(array(blob, 4)) })
                .collect(),
        })
    }

    /// The length of the whole entry whose header begins `bytes`.
    ///
    /// # Errors
    /// As [`Header::read`]; only the first 200 bytes are needed.
    pub fn entry_len(bytes: &[u8]) -> Result<usize, FrameFault> {
        Ok(header_len(bytes)? + SIGNATURE_BYTES + be32(bytes, 164) as usize)
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.magic);
        out.extend_from_slice(&[self.suite, self.flags]);
        for number in [self.kind, self.schema, count(self.causes.len()), count(self.blobs.len()), self.reserved] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&self.session.0);
        out.extend_from_slice(&self.seq.to_be_bytes());
        out.extend_from_slice(&self.prev.0);
        out.extend_from_slice(&self.time_us.to_be_bytes());
        out.extend_from_slice(&self.key_epoch.to_be_bytes());
        out.extend_from_slice(&self.signer.0);
        out.extend_from_slice(&self.principal.0);
        out.extend_from_slice(&self.body_len.to_be_bytes());
        out.extend_from_slice(&self.body_hash.0);
        for cause in &self.causes {
            out.extend_from_slice(&cause.to_be_bytes());
        }
        for blob in &self.blobs {
            out.extend_from_slice(&blob.grains.to_be_bytes());
            out.extend_from_slice(&blob.commitment.0);
        }
    }
}

/// Why the bytes are no entry: no frame could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameFault {
    /// The entry is longer than the bytes.
    #[error("cut short: {need} bytes needed, {have} there")]
    Short {
        /// Bytes needed, as far as known.
        need: usize,
        /// Bytes there.
        have: usize,
    },
    /// A length in the header is above its limit.
    #[error("{field} at byte {offset} is {value}, at most {limit}")]
    Limit {
        /// The header field.
        field: &'static str,
        /// Where it lies in the entry.
        offset: usize,
        /// What it says.
        value: u64,
        /// What it may say.
        limit: u64,
    },
    /// Bytes follow the entry.
    #[error("{surplus} bytes left over after the entry")]
    Surplus {
        /// How many.
        surplus: usize,
    },
}

/// A rule of the chain that an entry breaks. Codes are those of `docs/FORMAT.md`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {field} is {actual}, expected {expected}", code.name())]
pub struct Broken {
    /// The finding.
    pub code: crate::chain::Code,
    /// The field that is wrong.
    pub field: &'static str,
    /// Where it lies in the entry.
    pub offset: usize,
    /// What it should be; empty where nothing better than the rule can be said.
    pub expected: String,
    /// What it is.
    pub actual: String,
}

/// One event sealed into a session's chain.
#[derive(Clone, Debug)]
pub struct Entry {
    header: Header,
    raw: Vec<u8>,
    hash: EntryHash,
    /// Decoded when it is asked for first: who only checks hashes and links need not pay for it.
    event: OnceLock<Result<Event, BodyFault>>,
}

impl Entry {
    /// Seals `event`, asked by `by`, as the successor of `head`.
    ///
    /// The writer does not verify its own signature; every reader does ([`Head::accept`]).
    pub fn seal(head: &Head, by: PrincipalId, at: Stamp, event: Event, key: &EventKey) -> Entry {
        let body = event.encode();
        let header = Header {
            magic: MAGIC,
            suite: SUITE,
            flags: if at.clock_behind { FLAG_CLOCK_BEHIND } else { 0 },
            kind: event.kind(),
            schema: event.schema(),
            reserved: 0,
            session: head.session,
            seq: head.next_seq(),
            prev: head.hash,
            time_us: at.time_us,
            key_epoch: key.epoch(),
            signer: key.id(),
            principal: by,
            body_len: u32::try_from(body.len()).unwrap_or(u32::MAX),
            body_hash: body_hash(event.kind(), event.schema(), &body),
            causes: event.causes.clone(),
            blobs: event.blobs.clone(),
        };
        Entry::assemble(header, &body, key, OnceLock::from(Ok(event)))
    }

    /// Signs `header` over `body` exactly as they are given, right or wrong.
    ///
    /// For tests and attacks: [`Entry::seal`] cannot make an entry that contradicts its head, this can.
    pub fn forge(mut header: Header, body: &[u8], key: &EventKey) -> Entry {
        header.body_len = u32::try_from(body.len()).unwrap_or(u32::MAX);
        header.body_hash = body_hash(header.kind, header.schema, body);
        Entry::assemble(header, body, key, OnceLock::new())
    }

    fn assemble(header: Header, body: &[u8], key: &EventKey, event: OnceLock<Result<Event, BodyFault>>) -> Entry {
        let mut raw = Vec::with_capacity(HEADER_BYTES_MIN + 256 + SIGNATURE_BYTES + body.len());
        header.write(&mut raw);
        let signature = key.sign(&derive(Context::Header, &[&raw]));
        raw.extend_from_slice(&signature);
        let hash = EntryHash(derive(Context::Entry, &[&raw]).0);
        raw.extend_from_slice(body);
        Entry { header, raw, hash, event }
    }

    /// Reads exactly one entry.
    ///
    /// # Errors
    /// [`FrameFault`] when the frame cannot be read. A body that cannot be decoded is no error here:
    /// [`Entry::event`] says so, and the rest of the entry can still be checked.
    pub fn read(bytes: &[u8]) -> Result<Entry, FrameFault> {
        let need = Header::entry_len(bytes)?;
        if bytes.len() < need {
            return Err(FrameFault::Short { need, have: bytes.len() });
        }
        if bytes.len() > need {
            return Err(FrameFault::Surplus { surplus: bytes.len() - need });
        }
        let header = Header::read(bytes)?;
        let signed = need - header.body_len as usize;
        let hash = EntryHash(derive(Context::Entry, &[&bytes[..signed]]).0);
        Ok(Entry { header, raw: bytes.to_vec(), hash, event: OnceLock::new() })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The bytes as stored, exported and hashed.
    pub fn bytes(&self) -> &[u8] {
        &self.raw
    }

    /// The hash of header and signature.
    pub fn hash(&self) -> EntryHash {
        self.hash
    }

    /// The event, or why the body holds none that this version knows.
    pub fn event(&self) -> Result<&Event, &BodyFault> {
        self.event.get_or_init(|| Event::decode(&self.header, self.body())).as_ref()
    }

    /// Whether the body is the one that the header commits to.
    pub fn body_matches(&self) -> bool {
        body_hash(self.header.kind, self.header.schema, self.body()) == self.header.body_hash
    }

    /// The session this entry belongs to: of a genesis, its own hash.
    pub fn session(&self) -> SessionId {
        if self.header.seq == 0 { SessionId(self.hash.0) } else { self.header.session }
    }

    /// The head after this entry, if it is accepted.
    pub fn head(&self) -> Head {
        Head {
            session: self.session(),
            seq: self.header.seq,
            hash: self.hash,
            time_us: self.header.time_us,
            kind: self.header.kind,
        }
    }

    /// The body as stored.
    pub fn body(&self) -> &[u8] {
        &self.raw[self.raw.len() - self.header.body_len as usize..]
    }

    /// The signature as stored.
    pub fn signature(&self) -> &[u8] {
        let end = self.raw.len() - self.header.body_len as usize;
        &self.raw[end - SIGNATURE_BYTES..end]
    }

    /// Where the signature lies in the entry; the header ends there.
    pub fn signature_offset(&self) -> usize {
        self.raw.len() - self.header.body_len as usize - SIGNATURE_BYTES
    }

    /// The hash that the event key signs.
    pub(crate) fn signed_hash(&self) -> Digest {
        derive(Context::Header, &[&self.raw[..self.signature_offset()]])
    }
}

/// The hash of a body with its kind and schema.
pub(crate) fn body_hash(kind: u16, schema: u16, body: &[u8]) -> Digest {
    derive(Context::Body, &[&kind.to_be_bytes(), &schema.to_be_bytes(), body])
}

/// The length of the header that begins `bytes`, with every length in it checked.
fn header_len(bytes: &[u8]) -> Result<usize, FrameFault> {
    if bytes.len() < HEADER_BYTES_MIN {
        return Err(FrameFault::Short { need: HEADER_BYTES_MIN, have: bytes.len() });
    }
    let lengths = [
        ("n_causes", 10, u64::from(be16(bytes, 10)), CAUSES_MAX as u64),
        ("n_blobs", 12, u64::from(be16(bytes, 12)), BLOBS_PER_ENTRY_MAX as u64),
        ("body_len", 164, u64::from(be32(bytes, 164)), BODY_BYTES_MAX as u64),
    ];
    for (field, offset, value, limit) in lengths {
        if value > limit {
            return Err(FrameFault::Limit { field, offset, value, limit });
        }
    }
    Ok(HEADER_BYTES_MIN + 8 * be16(bytes, 10) as usize + 36 * be16(bytes, 12) as usize)
}

fn count(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(array(bytes, at))
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array(bytes, at))
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(array(bytes, at))
}

/// The `N` bytes at `at`; callers have checked that they are there.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}
