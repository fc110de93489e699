//! Keys of others.

use toka_kernel::ids::{Digest, EntryHash, SessionId};
use toka_kernel::keys::{KeyGrant, Role, SecretKey};
use toka_kernel::{Entry, EventKey};
use toka_tests::session::{Keys, NEVER_US, ORIGIN, Session};

use super::{AGENT, CALL, FS, Log, TOOL, honest, reforge, roots, told, verify_bytes};

/// Signs every entry again with `key`, under the name that the new genesis has.
fn resigned(entries: &[Entry], key: &EventKey) -> (SessionId, Vec<Entry>) {
    let (mut signed, mut session, mut prev): (Vec<Entry>, _, _) = (Vec::new(), SessionId::ZERO, EntryHash::ZERO);
    for entry in entries {
        let mut header = entry.header().clone();
        (header.session, header.prev) = (session, prev);
        (header.signer, header.key_epoch) = (key.id(), key.epoch());
        let entry = Entry::forge(header, entry.body(), key);
        (session, prev) = (entry.session(), entry.hash());
        signed.push(entry);
    }
    (session, signed)
}

fn thief() -> EventKey {
    EventKey::new(SecretKey::from_seed(&[99; 32]), 1)
}

#[test]
fn a_chain_signed_again_by_a_stranger_is_refused_at_its_genesis() {
    let session = honest();
    let (id, entries) = resigned(&session.entries, &thief());
    let mut log = Log::with(&session, &entries);
    log.session = id;
    let report = log.verify();
    assert_eq!(told(&report), "3: KEY_NOT_GRANTED @0");
    assert_eq!(report.findings[0].detail.get("entries"), Some(&20.into()));
    assert_eq!(report.sessions[0].trusted_prefix_seq, None);
}

#[test]
fn one_entry_signed_by_a_stranger_is_found_there() {
    let session = honest();
    let entries = reforge(&Keys::seeded(1).writer(), &session.entries, CALL as usize, |_, _| ());
    let mut header = entries[CALL as usize].header().clone();
    header.signer = thief().id();
    let forged = Entry::forge(header, entries[CALL as usize].body(), &thief());
    let mut log = Log::of(&session);
    log.entries[CALL as usize] = forged.bytes().to_vec();
    assert_eq!(told(&log.verify()), "3: KEY_NOT_GRANTED @4");
}

#[test]
fn a_session_of_another_node_leads_to_another_root() {
    let mut other = Session::open_with(Keys::seeded(2), &[FS, TOOL, AGENT], 64);
    other.close();
    let report = Log::of(&other).verify();
    let told = told(&report);
    assert!(told.starts_with("3: ROOT_MISMATCH @0"), "{told}");
    assert_eq!(roots(&report).iter().map(|root| root.code.name()).collect::<Vec<_>>(), ["ROOT_MISMATCH"]);
    assert_eq!(verify_bytes(Log::of(&other).bundle(), Some(Keys::seeded(2).pinned())).exit(), 0);
}

/// The genesis with other key grants, and nothing after it.
fn with_grants(change: impl Fn(&mut Vec<Vec<u8>>)) -> String {
    let session = Session::open(&[FS]);
    let genesis = &session.entries[0];
    let Ok(toka_kernel::Body::SessionOpened(body)) = genesis.event().map(|event| &event.body) else { panic!() };
    let mut body = body.clone();
    let mut grants: Vec<Vec<u8>> = body.keys.iter().map(|record| record.0.clone()).collect();
    change(&mut grants);
    body.keys = grants.into_iter().map(toka_kernel::ids::Bytes).collect();
    let event =
        toka_kernel::Event { causes: Vec::new(), blobs: Vec::new(), body: toka_kernel::Body::SessionOpened(body) };
    let forged = Entry::forge(genesis.header().clone(), &event.encode(), &Keys::seeded(1).writer());
    let log = Log { session: forged.session(), entries: vec![forged.bytes().to_vec()], blobs: Vec::new() };
    told(&log.verify())
}

fn grant(role: Role, seed: u8, origin: &str, root: &SecretKey) -> Vec<u8> {
    let key = SecretKey::from_seed(&[seed; 32]).public();
    KeyGrant::issue(role, 1, 0..NEVER_US, key, origin, root).encode()
}

#[test]
fn grants_are_checked_one_by_one_against_the_pinned_root() {
    let root = Keys::seeded(1).root;
    assert_eq!(with_grants(|_| ()), "4: TRUNCATION_NOT_EXCLUDED @0");
    let told = with_grants(|grants| grants[1][100] ^= 1);
    assert!(told.starts_with("3: KEY_GRANT_INVALID @0") || told.starts_with("3: KEY_ORIGIN_MISMATCH @0"), "{told}");
    let told = with_grants(|grants| *grants[1].last_mut().expect("bytes") ^= 1);
    assert!(told.starts_with("3: KEY_GRANT_INVALID @0"), "{told}");
    let told = with_grants(|grants| grants.push(grant(Role::Log, 77, "other.node", &root)));
    assert!(told.starts_with("3: KEY_ORIGIN_MISMATCH @0"), "{told}");
    let told = with_grants(|grants| grants.push(grant(Role::Log, 77, ORIGIN, &SecretKey::from_seed(&[98; 32]))));
    assert!(told.starts_with("3: ROOT_MISMATCH @0"), "{told}");
    let told = with_grants(|grants| {
        grants.push({
            let mut weak = grants[0].clone();
            weak[32..64].fill(0);
            weak
        })
    });
    assert!(told.starts_with("3: KEY_WEAK @0"), "{told}");
    let told = with_grants(|grants| {
        grants.push({
            let mut alias = grants[0].clone();
            alias[32..64].fill(0xff);
            alias
        })
    });
    assert!(told.starts_with("3: KEY_NON_CANONICAL @0"), "{told}");
    let told = with_grants(|grants| {
        grants.push({
            let mut other = grants[0].clone();
            other[4] = 2;
            other
        })
    });
    assert!(told.starts_with("3: KEY_ALGORITHM_UNKNOWN @0"), "{told}");
    let keys = Keys::seeded(1);
    let twice = KeyGrant::issue(Role::Log, 1, 0..NEVER_US, keys.event.public(), ORIGIN, &root).encode();
    let told = with_grants(|grants| grants.push(twice.clone()));
    assert!(told.starts_with("3: KEY_WRONG_ROLE @0"), "{told}");
}

#[test]
fn a_key_of_another_role_or_epoch_signs_no_entry() {
    let session = honest();
    let keys = Keys::seeded(1);
    for (key, code) in [
        (EventKey::new(keys.operator.clone(), 1), "KEY_WRONG_ROLE"),
        (EventKey::new(keys.event.clone(), 2), "KEY_EPOCH_FUTURE"),
        (EventKey::new(keys.event.clone(), 0), "KEY_EPOCH_EXPIRED"),
    ] {
        let mut header = session.entries[CALL as usize].header().clone();
        (header.signer, header.key_epoch) = (key.id(), key.epoch());
        let forged = Entry::forge(header, session.entries[CALL as usize].body(), &key);
        let mut log = Log::of(&session);
        log.entries[CALL as usize] = forged.bytes().to_vec();
        assert_eq!(told(&log.verify()), format!("3: {code} @4"));
    }
    let digest = Digest([1; 32]);
    assert_ne!(keys.event.sign(toka_kernel::keys::Label::Entry, &digest), [0; 64]);
}
