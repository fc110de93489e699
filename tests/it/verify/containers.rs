//! Bundles that hold a part, or claim something else than they hold.

use toka_replay::code::Axis;
use toka_replay::report::Answer;
use toka_store::BundleBuilder;
use toka_store::bundle::{Manifest, Omitted, SessionContent};

use super::honest::long_session;
use super::{CALL, Log, honest, root, told, verify_bytes};

fn builder(log: &Log, first_seq: u64) -> BundleBuilder {
    let entries = log.entries[first_seq as usize..].to_vec();
    let content = SessionContent { session: log.session, first_seq, entries, blobs: log.blobs.clone() };
    BundleBuilder { sessions: vec![content] }
}

fn claiming(builder: &BundleBuilder, claim: impl FnOnce(&mut Manifest)) -> Vec<u8> {
    let (mut manifest, mut bytes) = (builder.manifest(), Vec::new());
    claim(&mut manifest);
    builder.write_claiming(&manifest, &mut bytes).expect("a bundle");
    bytes
}

#[test]
fn a_part_of_a_session_is_said_to_be_a_part() {
    let part = builder(&Log::of(&honest()), 7);
    let report = verify_bytes(claiming(&part, |_| ()), Some(root()));
    assert_eq!(told(&report), "4: RANGE_INCOMPLETE @7");
    assert_eq!(report.sessions[0].trusted_prefix_seq, None);
    let axes = &report.sessions[0].axes;
    assert_eq!(axes.get(Axis::Chain), Answer::Ok);
    for axis in [Axis::Frame, Axis::Signatures, Axis::Keys, Axis::Legality, Axis::State] {
        assert_eq!(axes.get(axis), Answer::NotChecked, "{axis}");
    }
    let report = verify_bytes(claiming(&part, |manifest| manifest.sessions[0].first = 0), Some(root()));
    assert_eq!(told(&report), "3: RANGE_INCOMPLETE @7, MANIFEST_MISMATCH @-");

    let mut part = part;
    *part.sessions[0].entries[3].last_mut().expect("a byte") ^= 1;
    let report = verify_bytes(claiming(&part, |_| ()), Some(root()));
    assert_eq!(told(&report), "3: RANGE_INCOMPLETE @7, BODY_HASH_MISMATCH @10");
}

#[test]
fn what_a_manifest_claims_is_only_compared() {
    let whole = builder(&Log::of(&honest()), 0);
    for claim in [
        |manifest: &mut Manifest| manifest.sessions[0].last = 18,
        |manifest: &mut Manifest| manifest.sessions[0].status = 1,
        |manifest: &mut Manifest| manifest.sessions[0].blobs -= 1,
        |manifest: &mut Manifest| manifest.sessions[0].head.hash.0[0] ^= 1,
    ] {
        let report = verify_bytes(claiming(&whole, claim), Some(root()));
        assert_eq!(told(&report), "3: MANIFEST_MISMATCH @-");
        assert_eq!(report.axes.get(Axis::Frame), Answer::Fail);
    }
}

#[test]
fn a_blob_that_is_left_out_on_purpose_is_not_checked() {
    let session = honest();
    let args = session.entries[CALL as usize].header().blobs[0].commitment;
    let mut part = builder(&Log::of(&session), 0);
    part.sessions[0].blobs.retain(|blob| blob.commitment != args);
    let omitted = Omitted { session: session.id(), blob: Some(args), entries: None };
    let bytes = claiming(&part, |manifest| {
        manifest.omitted.push(omitted);
        (manifest.sessions[0].omitted, manifest.sessions[0].absent) = (1, 0);
    });
    let report = verify_bytes(bytes, Some(root()));
    assert_eq!(told(&report), "4: BLOB_OMITTED @4");
    assert_eq!((report.sessions[0].blobs.omitted, report.sessions[0].facts_unchecked), (1, 1));
    assert_eq!(report.axes.get(Axis::Legality), Answer::Ok);
}

#[test]
fn findings_are_listed_up_to_a_limit_and_counted_beyond() {
    let mut log = Log::of(&long_session(1_300));
    for entry in &mut log.entries {
        let last = entry.len() - 1;
        entry[last] ^= 1;
    }
    let report = log.verify();
    assert_eq!((report.exit(), report.findings.len()), (3, 1_001));
    let capped = report.findings.last().expect("a finding");
    assert_eq!((capped.code.name(), capped.id), ("FINDINGS_CAPPED", 1_001));
    assert!(capped.actual.as_u64().is_some_and(|all| all > 1_300));
}
