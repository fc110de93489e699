//! The rules of the chain: what every entry must keep, and the code of the finding where it does not.

use std::fmt::Display;
use std::ops::ControlFlow;

use crate::entry::{Broken, Entry, FLAG_CLOCK_BEHIND, Head, MAGIC, SUITE, body_hash};
use crate::event::{BodyFault, kind};
use crate::ids::{EntryHash, PrincipalId, SessionId};
use crate::keys::{KeyFault, KeyGrant, Keyring, Label, PublicKey, Role, SignatureFault};
use crate::limits::TIME_US_MAX;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A finding about an entry. Names never change meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code { $($(#[$doc])* $variant),* }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Code] = &[$(Code::$variant),*];

            /// The name that reports use.
            pub fn name(self) -> &'static str {
                match self { $(Code::$variant => $name),* }
            }
        }
    };
}

codes! {
    /// The magic differs.
    UnknownVersion = "UNKNOWN_VERSION",
    /// The suite differs.
    SuiteDowngrade = "SUITE_DOWNGRADE",
    /// A reserved bit is set.
    ReservedBits = "RESERVED_BITS",
    /// A value is above its limit.
    LimitExceeded = "LIMIT_EXCEEDED",
    /// The genesis has a wrong field.
    GenesisInvalid = "GENESIS_INVALID",
    /// A second genesis.
    GenesisDuplicate = "GENESIS_DUPLICATE",
    /// The entry names another session.
    SessionIdMismatch = "SESSION_ID_MISMATCH",
    /// Entries are missing before this one.
    SeqGap = "SEQ_GAP",
    /// The entry comes too late.
    SeqOrder = "SEQ_ORDER",
    /// The signing key is not granted.
    KeyNotGranted = "KEY_NOT_GRANTED",
    /// The key holds another role, or two.
    KeyWrongRole = "KEY_WRONG_ROLE",
    /// A key or epoch that is no longer in force.
    KeyEpochExpired = "KEY_EPOCH_EXPIRED",
    /// A key or epoch that is not yet in force.
    KeyEpochFuture = "KEY_EPOCH_FUTURE",
    /// The key is used outside its window.
    KeyOutOfWindow = "KEY_OUT_OF_WINDOW",
    /// The grants lead to another root key.
    RootMismatch = "ROOT_MISMATCH",
    /// A key grant is malformed or its signature is wrong.
    KeyGrantInvalid = "KEY_GRANT_INVALID",
    /// A key grant is for another origin.
    KeyOriginMismatch = "KEY_ORIGIN_MISMATCH",
    /// A key of small order or with torsion.
    KeyWeak = "KEY_WEAK",
    /// A key that is not in canonical form.
    KeyNonCanonical = "KEY_NON_CANONICAL",
    /// A key algorithm that is not known.
    KeyAlgorithmUnknown = "KEY_ALGORITHM_UNKNOWN",
    /// The signature does not verify.
    SigInvalid = "SIG_INVALID",
    /// The signature is not in canonical form.
    SigNonCanonical = "SIG_NON_CANONICAL",
    /// There is no signature.
    SigMissing = "SIG_MISSING",
    /// The entry does not follow its predecessor.
    LinkMismatch = "LINK_MISMATCH",
    /// Time goes back.
    TimeRegression = "TIME_REGRESSION",
    /// A cause is not an earlier entry, or out of order.
    CauseInvalid = "CAUSE_INVALID",
    /// The body differs from what was signed.
    BodyHashMismatch = "BODY_HASH_MISMATCH",
    /// The body is not written as a writer writes it.
    BodyNonCanonical = "BODY_NON_CANONICAL",
    /// The body is no body of its kind.
    BodyUndecodable = "BODY_UNDECODABLE",
    /// An entry after the session was closed.
    AfterClose = "AFTER_CLOSE",
}

/// Checks `entry` as the successor of `head`, in the fixed order, and hands every broken rule to `report` until that
/// says to stop. `signature` is the answer of [`check_signature`] where it was asked for elsewhere.
pub fn check(
    head: &Head,
    entry: &Entry,
    keys: &Keyring,
    signature: Option<Result<(), SignatureFault>>,
    report: &mut dyn FnMut(Broken) -> ControlFlow<()>,
) {
    let rules = [version, session, seq, signer];
    for rule in rules {
        if rule(head, entry, keys).is_some_and(|broken| report(broken).is_break()) {
            return;
        }
    }
    if let Some(broken) = signed(entry, keys, signature)
        && report(broken).is_break()
    {
        return;
    }
    for rule in [link, time, causes, body, closed] {
        if rule(head, entry, keys).is_some_and(|broken| report(broken).is_break()) {
            return;
        }
    }
}

/// Checks the signature alone; `None` when the signing key is not in `keys`.
pub fn check_signature(entry: &Entry, keys: &Keyring) -> Option<Result<(), SignatureFault>> {
    let grant = keys.get(&entry.header().signer)?;
    Some(grant.key.verify(Label::Entry, &entry.signed_hash(), entry.signature()))
}

/// The keyring that a genesis makes, and what is wrong with its key grants.
///
/// With `root`, each grant must be signed by it. Grants that are not admitted are left out of the keyring.
pub fn keyring(genesis: &Entry, root: Option<&PublicKey>, report: &mut dyn FnMut(Broken)) -> Keyring {
    let mut keys = Keyring::new(genesis.header().key_epoch);
    let Ok(crate::event::Body::SessionOpened(body)) = genesis.event().map(|event| &event.body) else {
        return keys;
    };
    for (index, record) in body.keys.iter().enumerate() {
        let admitted = KeyGrant::decode(&record.0).and_then(|grant| match root {
            Some(root) => grant.check(root).map(|()| grant),
            None => Ok(grant),
        });
        let fault = match admitted {
            Err(fault) => Some((key_fault_code(fault), fault.to_string())),
            Ok(grant) if grant.root != body.root_key => {
                Some((Code::RootMismatch, "the grant names another root key than the genesis".to_owned()))
            }
            Ok(grant) if grant.origin != body.origin => Some((Code::KeyOriginMismatch, grant.origin)),
            Ok(grant) => (!keys.add(grant)).then(|| (Code::KeyWrongRole, "a key that holds two roles".to_owned())),
        };
        if let Some((code, actual)) = fault {
            report(Broken {
                code,
                field: "keys",
                offset: genesis.bytes().len() - genesis.body().len(),
                expected: format!("key grant {index} signed by the root key for {}", body.origin),
                actual,
            });
        }
    }
    keys
}

fn key_fault_code(fault: KeyFault) -> Code {
    match fault {
        KeyFault::NonCanonical => Code::KeyNonCanonical,
        KeyFault::Weak => Code::KeyWeak,
        KeyFault::Algorithm(_) => Code::KeyAlgorithmUnknown,
        KeyFault::Root => Code::RootMismatch,
        KeyFault::Record(_) | KeyFault::Signature => Code::KeyGrantInvalid,
    }
}

fn version(_: &Head, entry: &Entry, _: &Keyring) -> Option<Broken> {
    let header = entry.header();
    if header.magic != MAGIC {
        return broken(Code::UnknownVersion, "magic", 0, hex(&MAGIC), hex(&header.magic));
    }
    if header.suite != SUITE {
        return broken(Code::SuiteDowngrade, "suite", 4, SUITE, header.suite);
    }
    if header.flags & !FLAG_CLOCK_BEHIND != 0 {
        return broken(Code::ReservedBits, "flags", 5, header.flags & FLAG_CLOCK_BEHIND, header.flags);
    }
    if header.reserved != 0 {
        return broken(Code::ReservedBits, "reserved", 14, 0, header.reserved);
    }
    None
}

fn session(head: &Head, entry: &Entry, _: &Keyring) -> Option<Broken> {
    let header = entry.header();
    if head.next_seq() > 0 {
        if header.kind == kind::SESSION_OPENED {
            return broken(Code::GenesisDuplicate, "kind", 6, "any but 1", header.kind);
        }
        if header.session != head.session {
            return broken(Code::SessionIdMismatch, "session", 16, head.session, header.session);
        }
        return None;
    }
    if header.kind != kind::SESSION_OPENED {
        return broken(Code::GenesisInvalid, "kind", 6, kind::SESSION_OPENED, header.kind);
    }
    if header.session != SessionId::ZERO {
        return broken(Code::GenesisInvalid, "session", 16, SessionId::ZERO, header.session);
    }
    if header.prev != EntryHash::ZERO {
        return broken(Code::GenesisInvalid, "prev", 56, EntryHash::ZERO, header.prev);
    }
    if header.principal != PrincipalId::NODE {
        return broken(Code::GenesisInvalid, "principal", 132, PrincipalId::NODE, header.principal);
    }
    None
}

fn seq(head: &Head, entry: &Entry, _: &Keyring) -> Option<Broken> {
    let (expected, actual) = (head.next_seq(), entry.header().seq);
    match actual.cmp(&expected) {
        std::cmp::Ordering::Equal => None,
        std::cmp::Ordering::Greater => broken(Code::SeqGap, "seq", 48, expected, actual),
        std::cmp::Ordering::Less => broken(Code::SeqOrder, "seq", 48, expected, actual),
    }
}

fn signer(_: &Head, entry: &Entry, keys: &Keyring) -> Option<Broken> {
    let header = entry.header();
    let Some(grant) = keys.get(&header.signer) else {
        return broken(Code::KeyNotGranted, "signer", 100, "a key that the genesis grants", header.signer);
    };
    if grant.role != Role::Event {
        return broken(Code::KeyWrongRole, "signer", 100, Role::Event, grant.role);
    }
    for (field, offset, epoch) in [("signer", 100, grant.epoch), ("key_epoch", 96, header.key_epoch)] {
        if epoch < keys.epoch() {
            return broken(Code::KeyEpochExpired, field, offset, keys.epoch(), epoch);
        }
        if epoch > keys.epoch() {
            return broken(Code::KeyEpochFuture, field, offset, keys.epoch(), epoch);
        }
    }
    if !(grant.not_before_us..grant.not_after_us).contains(&header.time_us) {
        let window = format!("{}..{}", grant.not_before_us, grant.not_after_us);
        return broken(Code::KeyOutOfWindow, "time_us", 88, window, header.time_us);
    }
    None
}

fn signed(entry: &Entry, keys: &Keyring, known: Option<Result<(), SignatureFault>>) -> Option<Broken> {
    let code = match known.or_else(|| check_signature(entry, keys))? {
        Ok(()) => return None,
        Err(SignatureFault::Missing) => Code::SigMissing,
        Err(SignatureFault::NonCanonical) => Code::SigNonCanonical,
        Err(SignatureFault::Invalid) => Code::SigInvalid,
    };
    let expected = format!("a signature by {}", entry.header().signer);
    broken(code, "signature", entry.signature_offset(), expected, hex(entry.signature()))
}

fn link(head: &Head, entry: &Entry, _: &Keyring) -> Option<Broken> {
    let prev = entry.header().prev;
    if head.next_seq() > 0 && prev != head.hash {
        return broken(Code::LinkMismatch, "prev", 56, head.hash, prev);
    }
    None
}

fn time(head: &Head, entry: &Entry, _: &Keyring) -> Option<Broken> {
    let header = entry.header();
    if header.time_us > TIME_US_MAX {
        return broken(Code::LimitExceeded, "time_us", 88, TIME_US_MAX, header.time_us);
    }
    if header.time_us < head.time_us {
        return broken(Code::TimeRegression, "time_us", 88, head.time_us, header.time_us);
    }
    let clamped = header.flags & FLAG_CLOCK_BEHIND != 0;
    if clamped && (head.kind == 0 || header.time_us != head.time_us) {
        return broken(Code::TimeRegression, "flags", 5, 0, header.flags);
    }
    None
}

fn causes(_: &Head, entry: &Entry, _: &Keyring) -> Option<Broken> {
    let header = entry.header();
    let mut bound = None;
    for (index, cause) in header.causes.iter().enumerate() {
        if *cause >= header.seq || bound.is_some_and(|before| *cause <= before) {
            return broken(Code::CauseInvalid, "causes", 200 + 8 * index, "earlier entries, ascending", cause);
        }
        bound = Some(*cause);
    }
    None
}

fn body(_: &Head, entry: &Entry, _: &Keyring) -> Option<Broken> {
    let header = entry.header();
    let hash = body_hash(header.kind, header.schema, entry.body());
    let offset = entry.bytes().len() - entry.body().len();
    if hash != header.body_hash {
        return broken(Code::BodyHashMismatch, "body_hash", offset, header.body_hash, hash);
    }
    match entry.event() {
        Ok(_) | Err(BodyFault::UnknownKind(_) | BodyFault::UnknownSchema { .. }) => None,
        Err(BodyFault::NonCanonical(what)) => {
            broken(Code::BodyNonCanonical, "body", offset, "the bytes a writer writes", what)
        }
        Err(BodyFault::Undecodable(what)) => {
            broken(Code::BodyUndecodable, "body", offset, format!("a body of kind {}", header.kind), what)
        }
    }
}

fn closed(head: &Head, _: &Entry, _: &Keyring) -> Option<Broken> {
    if head.kind == kind::SESSION_CLOSED {
        return broken(Code::AfterClose, "seq", 48, "no entry", head.next_seq());
    }
    None
}

fn broken(
    code: Code,
    field: &'static str,
    offset: usize,
    expected: impl Display,
    actual: impl Display,
) -> Option<Broken> {
    Some(Broken { code, field, offset, expected: expected.to_string(), actual: actual.to_string() })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
