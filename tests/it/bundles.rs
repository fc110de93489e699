//! Bundles: what was exported is read back, and whatever is altered shows.

use std::io::Cursor;
use std::sync::OnceLock;

use proptest::prelude::*;
use toka_kernel::Entry;
use toka_kernel::entry::{BlobRef, Head};
use toka_kernel::ids::SessionId;
use toka_store::bundle::{ContainerCode, MAGIC, Manifest, Omitted, SessionContent, WriteError};
use toka_store::{
    Append, Bundle, BundleBuilder, Log, MemoryLog, NewBlob, RawEntry, ReadLog, SqliteLog, conformance, write_bundle,
};
use toka_tests::session::{Keys, Session, reader};

const FS: &str = "fs:project/**#list,read?depth=2&exp=1800000000000000";
const TOOL: &str = "tool:reader?depth=2&calls=50&exp=1800000000000000";
const AGENT: &str = "agent:auditor?depth=2&live=4&exp=1800000000000000";

/// A session with a call, its blobs, and an end.
fn honest(seed: u8) -> Session {
    let mut session = Session::open_with(Keys::seeded(seed), &[FS, TOOL, AGENT], 64);
    session.bind(reader());
    let opener = session.opener();
    let (fs, tool) = (session.root(0), session.root(1));
    session.call(opener, "project:docs/a.md", tool, &[fs]);
    if let Some(toka_kernel::Effect::Start(call)) = session.effects.first().cloned() {
        session.finish(call.id(), &[b'x'; 300]);
    }
    session.close();
    session
}

/// The session as one tail.
fn tail(session: &Session) -> Append {
    let entry = |(seq, entry): (usize, &Entry)| RawEntry { seq: seq as u64, bytes: entry.bytes().to_vec() };
    Append {
        expected: Head::none(),
        entries: session.entries.iter().enumerate().map(entry).collect(),
        head: session.head,
        blobs: session.blobs.iter().map(new_blob).collect(),
    }
}

fn new_blob(blob: &toka_tests::session::Blob) -> NewBlob {
    NewBlob { commitment: blob.reference.commitment, salt: blob.salt, bytes: blob.bytes.clone() }
}

/// Two sessions in a store, and their bundle; the first is given first although its id may be greater.
fn exported() -> (MemoryLog, Vec<SessionId>, Vec<u8>) {
    let log = MemoryLog::new();
    let tails = [tail(&honest(1)), tail(&honest(2))];
    assert!(log.append(&tails).iter().all(Result::is_ok));
    let sessions: Vec<_> = tails.iter().map(|tail| tail.head.session).collect();
    let bytes = export(&log, &sessions);
    (log, sessions, bytes)
}

fn export(log: &dyn ReadLog, sessions: &[SessionId]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let summary = write_bundle(log, sessions, &mut bytes).expect("the bundle is written");
    assert_eq!(summary.bytes, bytes.len() as u64);
    bytes
}

fn open(bytes: &[u8]) -> Bundle {
    Bundle::from_input(Cursor::new(bytes.to_vec())).expect("the bundle opens")
}

/// The codes of its faults.
fn codes(bundle: &Bundle) -> Vec<ContainerCode> {
    bundle.faults().iter().map(|fault| fault.code).collect()
}

/// A builder and what it made, after `change`.
fn built(change: impl FnOnce(&mut BundleBuilder)) -> (BundleBuilder, Vec<u8>) {
    let mut builder = BundleBuilder::load(&open(&exported().2)).expect("a sound bundle is read");
    change(&mut builder);
    let mut bytes = Vec::new();
    builder.write(&mut bytes).expect("the bundle is written");
    (builder, bytes)
}

#[test]
fn a_bundle_holds_what_the_store_held() {
    let (log, sessions, bytes) = exported();
    let bundle = open(&bytes);
    assert_eq!(bundle.faults(), []);
    for session in &sessions {
        assert_eq!(bundle.head(*session), log.head(*session));
        let (here, there): (Vec<_>, Vec<_>) = (bundle.read(*session, 0).collect(), log.read(*session, 0).collect());
        assert_eq!(here, there);
        assert_eq!(bundle.read(*session, 2).collect::<Vec<_>>(), there[2..]);
        for commitment in bundle.commitments(*session) {
            assert_eq!(bundle.blob(*session, commitment), log.blob(*session, commitment));
            assert_eq!(bundle.blob_len(*session, commitment), log.blob_len(*session, commitment));
        }
    }
    let listed = |log: &dyn ReadLog| log.sessions(None).collect::<Vec<_>>();
    assert_eq!(listed(&bundle), listed(&log));
    assert_eq!(bundle.head(SessionId([9; 32])), Ok(None));
    assert_eq!(bundle.read(SessionId([9; 32]), 0).count(), 0);
}

#[test]
fn every_blob_is_there_in_the_order_of_first_reference() {
    let (_, sessions, bytes) = exported();
    let bundle = open(&bytes);
    let (first, session) = (honest(1), sessions[0]);
    let mut referred: Vec<_> = Vec::new();
    for blob in first.entries.iter().flat_map(|entry| &entry.header().blobs) {
        if !referred.contains(&blob.commitment) {
            referred.push(blob.commitment);
        }
    }
    assert!(referred.len() > 2);
    assert_eq!(bundle.commitments(session), referred);
    let refs: Vec<BlobRef> = first.entries.iter().flat_map(|entry| entry.header().blobs.clone()).collect();
    for reference in refs {
        let blob = bundle.blob(session, reference.commitment).expect("it is read").expect("it is there");
        assert_eq!(BlobRef::to(&blob.salt, &blob.bytes), reference);
    }
}

#[test]
fn entries_are_handed_out_with_their_place_in_the_file() {
    let (_, sessions, bytes) = exported();
    let bundle = open(&bytes);
    for session in sessions {
        let section = bundle.entries_section(session).expect("it is there");
        let mut offset = section.offset;
        for entry in bundle.entries(session) {
            let entry = entry.expect("it is read");
            assert_eq!(entry.offset, offset);
            assert_eq!(bytes[offset as usize..][..entry.bytes.len()], entry.bytes);
            offset += entry.bytes.len() as u64;
        }
        assert_eq!(offset, section.offset + section.len);
    }
}

#[test]
fn the_same_sessions_give_the_same_bytes_from_any_store() {
    let (log, sessions, bytes) = exported();
    assert_eq!(export(&log, &sessions), bytes);

    let folder = tempfile::tempdir().expect("a folder");
    let sqlite = SqliteLog::open(folder.path().join("s.sqlite")).expect("a store");
    for session in [2, 1] {
        assert!(sqlite.append(&[tail(&honest(session))])[0].is_ok());
    }
    assert_eq!(export(&sqlite, &sessions), bytes);
    assert_eq!(export(&open(&bytes), &sessions), bytes, "a bundle is a store to read from");
}

#[test]
fn the_builder_puts_together_what_it_took_apart() {
    let (_, _, bytes) = exported();
    assert_eq!(built(|_| {}).1, bytes);
}

#[test]
fn sessions_come_in_order_and_once() {
    let (log, sessions, _) = exported();
    let (one, two) = (sessions[0], sessions[1]);
    let order = |sessions: &[SessionId]| write_bundle(&log, sessions, &mut Vec::new());
    assert!(order(&[one, two]).is_ok());
    assert!(order(&[two, one]).is_ok(), "the first may be the system session, whatever its id");
    assert!(matches!(order(&[one, one]), Err(WriteError::Order(_))));
    let (low, high) = (one.min(two), one.max(two));
    assert!(matches!(order(&[SessionId([7; 32]), high, low]), Err(WriteError::Order(_))));
    assert!(matches!(order(&[SessionId([7; 32])]), Err(WriteError::NoSession(_))));
}

#[test]
fn a_store_with_bytes_that_are_no_entry_is_not_exported() {
    let log = MemoryLog::new();
    assert!(log.append(&[conformance::tail(1, 0, 3)])[0].is_ok());
    let result = write_bundle(&log, &[conformance::session(1)], &mut Vec::new());
    assert!(matches!(result, Err(WriteError::Frame { seq: 0, .. })), "{result:?}");
}

#[test]
fn a_blob_the_store_does_not_have_is_counted_as_absent() {
    let log = MemoryLog::new();
    let mut partial = tail(&honest(1));
    let gone = partial.blobs.remove(1).commitment;
    assert!(log.append(&[partial.clone()])[0].is_ok());
    let bundle = open(&export(&log, &[partial.head.session]));
    assert_eq!(bundle.faults(), []);
    assert_eq!(bundle.manifest().expect("it is there").sessions[0].absent, 1);
    assert_eq!(bundle.has_blob(partial.head.session, gone), Ok(false));
}

#[test]
fn every_flipped_bit_shows() {
    let (_, sessions, bytes) = exported();
    let sound = open(&bytes);
    // What the verifier covers: entries whole, and blobs but for their framing.
    let mut covered = vec![false; bytes.len()];
    for session in sessions {
        for entry in sound.entries(session).map(|entry| entry.expect("it is read")) {
            covered[entry.offset as usize..][..entry.bytes.len()].fill(true);
        }
        for commitment in sound.commitments(session) {
            let at = sound.blob_offset(session, commitment).expect("it is there") as usize;
            let len = sound.blob_len(session, commitment).expect("it is read").expect("it is there") as usize;
            covered[at..at + 64].fill(true);
            covered[at + 72..][..len].fill(true);
        }
    }
    for at in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[at] ^= 1 << (at % 8);
        let shown = match Bundle::from_input(Cursor::new(altered)) {
            Err(_) => at < MAGIC.len(),
            Ok(bundle) if covered[at] => codes(&bundle).contains(&ContainerCode::BundleTrailer),
            Ok(bundle) => !bundle.faults().is_empty(),
        };
        assert!(shown, "byte {at}");
    }
}

#[test]
fn a_flipped_bit_of_the_framing_shows_even_under_a_new_trailer() {
    let (_, sessions, bytes) = exported();
    let sound = open(&bytes);
    let body = bytes.len() - 41;
    let mut framing = vec![true; body];
    for session in sessions {
        let section = sound.entries_section(session).expect("it is there");
        framing[section.offset as usize..][..section.len as usize].fill(false);
        // Which session a section names is the verifier's to compare with the genesis, and its claims are copied.
        for commitment in sound.commitments(session) {
            let at = sound.blob_offset(session, commitment).expect("it is there") as usize;
            let len = sound.blob_len(session, commitment).expect("it is read").expect("it is there") as usize;
            framing[at..at + 64].fill(false);
            framing[at + 72..][..len].fill(false);
        }
    }
    for at in (MAGIC.len()..body).filter(|at| framing[*at]) {
        let mut altered = bytes[..body].to_vec();
        altered[at] ^= 1 << (at % 8);
        let trailer = toka_kernel::hash::derive(toka_kernel::hash::Context::Bundle, &[&altered]);
        altered.push(255);
        altered.extend_from_slice(&32u64.to_be_bytes());
        altered.extend_from_slice(&trailer.0);
        let bundle = open(&altered);
        assert!(!bundle.faults().is_empty(), "byte {at}");
    }
}

#[test]
fn every_missing_and_every_doubled_byte_shows() {
    let (_, _, bytes) = exported();
    for at in 0..bytes.len() {
        let mut short = bytes.clone();
        short.remove(at);
        let mut long = bytes.clone();
        long.insert(at, bytes[at]);
        for altered in [short, long] {
            let shown = Bundle::from_input(Cursor::new(altered)).map_or(true, |bundle| !bundle.faults().is_empty());
            assert!(shown, "byte {at}");
        }
    }
}

#[test]
fn a_file_that_ends_early_is_truncated_and_readable_up_to_there() {
    let (_, sessions, bytes) = exported();
    let sound = open(&bytes);
    let section = sound.entries_section(sessions[0]).expect("it is there");
    for end in (0..bytes.len()).rev() {
        let Ok(bundle) = Bundle::from_input(Cursor::new(bytes[..end].to_vec())) else {
            assert!(end < MAGIC.len());
            continue;
        };
        assert!(codes(&bundle).contains(&ContainerCode::BundleTruncated), "cut at {end}");
        if end as u64 > section.offset {
            let whole = bundle
                .entries(sessions[0])
                .filter(|entry| entry.as_ref().is_ok_and(|entry| Entry::read(&entry.bytes).is_ok()));
            let due = sound
                .entries(sessions[0])
                .filter(|entry| entry.as_ref().is_ok_and(|entry| entry.offset as usize + entry.bytes.len() <= end));
            assert_eq!(whole.count(), due.count(), "cut at {end}");
        }
    }
}

#[test]
fn lengths_are_compared_before_anything_is_read() {
    let (_, _, bytes) = exported();
    let sections = open(&bytes).sections().to_vec();
    for section in sections {
        for claim in [section.len + 1, 4 << 30, u64::MAX] {
            let mut altered = bytes.clone();
            altered[section.offset as usize - 8..][..8].copy_from_slice(&claim.to_be_bytes());
            assert!(!open(&altered).faults().is_empty());
        }
    }
}

#[test]
fn a_blob_that_claims_four_gibibytes_is_above_the_limit() {
    let (_, sessions, mut bytes) = exported();
    let sound = open(&bytes);
    let first = sound.commitments(sessions[0])[0];
    let at = sound.blob_offset(sessions[0], first).expect("it is there") as usize + 64;
    bytes[at..at + 8].copy_from_slice(&(4u64 << 30).to_be_bytes());
    let bundle = open(&bytes);
    assert_eq!(
        codes(&bundle),
        [
            ContainerCode::LimitExceeded,
            ContainerCode::ManifestMismatch,
            ContainerCode::ManifestMismatch,
            ContainerCode::BundleTrailer
        ]
    );
    assert_eq!(bundle.faults()[0].offset, at as u64);
    assert_eq!(bundle.read(sessions[0], 0).count(), sound.read(sessions[0], 0).count(), "the rest stays readable");
}

#[test]
fn a_manifest_that_lies_is_compared_with_the_content() {
    type Lie = fn(&mut Manifest);
    let lies: [(&str, Lie); 11] = [
        ("first", |manifest| manifest.sessions[0].first = 1),
        ("last", |manifest| manifest.sessions[0].last += 1),
        ("hash", |manifest| manifest.sessions[0].head.hash.0[0] ^= 1),
        ("time", |manifest| manifest.sessions[0].head.time_us += 1),
        ("kind", |manifest| manifest.sessions[0].head.kind += 1),
        ("status", |manifest| manifest.sessions[0].status = 1),
        ("blobs", |manifest| manifest.sessions[1].blobs -= 1),
        ("absent", |manifest| manifest.sessions[1].absent += 1),
        ("omitted", |manifest| manifest.sessions[1].omitted += 1),
        ("order", |manifest| manifest.sessions.reverse()),
        ("nothing omitted", |manifest| {
            let session = manifest.sessions[0].session;
            manifest.omitted.push(Omitted { session, blob: None, entries: Some((0, 1)) });
        }),
    ];
    let (builder, _) = built(|_| {});
    for (name, lie) in lies {
        let mut manifest = builder.manifest();
        lie(&mut manifest);
        let mut bytes = Vec::new();
        builder.write_claiming(&manifest, &mut bytes).expect("it is written");
        let bundle = open(&bytes);
        assert_eq!(codes(&bundle), [ContainerCode::ManifestMismatch], "{name}: {:?}", bundle.faults());
    }
}

#[test]
fn an_omission_that_is_declared_is_no_fault() {
    let mut gone = None;
    let (builder, _) = built(|builder| gone = builder.sessions[0].blobs.pop());
    let mut manifest = builder.manifest();
    let figures = &mut manifest.sessions[0];
    (figures.absent, figures.omitted) = (0, 1);
    let blob = gone.map(|blob| blob.commitment);
    manifest.omitted.push(Omitted { session: figures.session, blob, entries: None });
    let mut bytes = Vec::new();
    builder.write_claiming(&manifest, &mut bytes).expect("it is written");
    assert_eq!(open(&bytes).faults(), []);
}

#[test]
fn tampered_content_in_a_consistent_container_is_for_the_verifier_to_find() {
    let attacks: [fn(&mut SessionContent); 5] = [
        |content| content.entries[1][300] ^= 1,
        |content| drop(content.entries.remove(1)),
        |content| content.entries.swap(1, 2),
        |content| content.entries.truncate(2),
        |content| drop(content.blobs.remove(0)),
    ];
    for attack in attacks {
        let (_, bytes) = built(|builder| attack(&mut builder.sessions[0]));
        assert_eq!(open(&bytes).faults(), []);
    }
}

#[test]
fn an_entry_without_a_frame_is_handed_out_as_the_bytes_that_are_left() {
    let (builder, bytes) = built(|builder| builder.sessions[0].entries[2][164] = 0xff);
    let bundle = open(&bytes);
    assert_eq!(bundle.faults(), []);
    let content = &builder.sessions[0];
    let entries: Vec<_> = bundle.read(content.session, 0).map(|entry| entry.expect("it is read")).collect();
    assert_eq!(entries.len(), 3);
    assert_eq!(entries[2].bytes, content.entries[2..].concat());
    assert!(Entry::read(&entries[2].bytes).is_err());
}

#[test]
fn a_session_that_is_there_twice_is_malformed() {
    let (_, bytes) = built(|builder| builder.sessions.push(builder.sessions[1].clone()));
    assert!(codes(&open(&bytes)).contains(&ContainerCode::BundleMalformed));
}

#[test]
fn something_else_is_no_bundle() {
    for bytes in [&b""[..], b"TOKABNDL", b"TOKABNDL2\nmore of it", b"SQLite format 3\0"] {
        let error = Bundle::from_input(Cursor::new(bytes.to_vec())).expect_err("no bundle");
        assert_eq!(error.code().name(), "INPUT_UNREADABLE");
    }
    assert!(Bundle::open("/does/not/exist.tkb").is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_bytes_make_the_reader_panic(tail in proptest::collection::vec(any::<u8>(), 0..600)) {
        let bytes = [&MAGIC[..], &tail].concat();
        let bundle = open(&bytes);
        prop_assert!(!bundle.faults().is_empty());
        read_all(&bundle);
    }

    #[test]
    fn no_alteration_makes_the_reader_panic(edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        static SOUND: OnceLock<Vec<u8>> = OnceLock::new();
        let mut bytes = SOUND.get_or_init(|| exported().2).clone();
        for (at, byte) in edits {
            let at = MAGIC.len() + at.index(bytes.len() - MAGIC.len());
            bytes[at] = byte;
        }
        read_all(&open(&bytes));
    }
}

fn read_all(bundle: &Bundle) {
    for row in bundle.sessions(None).flatten() {
        for entry in bundle.entries(row.session).flatten() {
            let _ = Entry::read(&entry.bytes);
        }
        for commitment in bundle.commitments(row.session) {
            assert!(bundle.blob(row.session, commitment).is_ok());
        }
    }
}
