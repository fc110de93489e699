//! What a storage editor can do, who has no key: change, delete, repeat and reorder bytes.

use toka_kernel::Entry;
use toka_kernel::keys::SIGNATURE_BYTES;
use toka_replay::code::Axis;
use toka_replay::report::Answer;
use toka_tests::session::{Keys, Session};

use super::{CALL, CLOSED, FINISHED, Log, honest, open, reforge, told};

/// What is done to the entries of the honest session, what must be told, and the trusted prefix.
fn check(what: &str, attack: impl FnOnce(&Session, &mut Vec<Vec<u8>>), expected: &str, prefix: Option<u64>) {
    let session = honest();
    let mut log = Log::of(&session);
    attack(&session, &mut log.entries);
    let report = log.verify();
    assert_eq!(told(&report), expected, "{what}: {:#?}", report.findings);
    assert_eq!(report.sessions[0].trusted_prefix_seq, prefix, "{what}");
}

/// Where the signature of an entry begins.
fn signature(entry: &Entry) -> usize {
    entry.signature_offset()
}

#[test]
fn an_honest_session_is_found_whole() {
    check("nothing", |_, _| (), "0: ", Some(19));
}

#[test]
fn a_changed_body_is_one_finding_at_its_place() {
    for k in 0..=CLOSED {
        let prefix = k.checked_sub(1);
        let expected = format!("3: BODY_HASH_MISMATCH @{k}");
        check("last byte", |_, entries| *entries[k as usize].last_mut().expect("bytes") ^= 1, &expected, prefix);
        let at = |session: &Session| signature(&session.entries[k as usize]) + SIGNATURE_BYTES;
        check("first byte", |session, entries| entries[k as usize][at(session)] ^= 1, &expected, prefix);
    }
}

#[test]
fn a_changed_signature_is_found_and_explains_the_broken_link() {
    for k in [0, 1, CALL, 18, CLOSED] {
        let edit = |byte: usize| {
            move |session: &Session, entries: &mut Vec<Vec<u8>>| {
                let at = signature(&session.entries[k as usize]) + byte;
                entries[k as usize][at] ^= 1;
            }
        };
        let expected = format!("3: SIG_INVALID @{k}");
        check("in R", edit(3), &expected, k.checked_sub(1));
        check("in S", edit(40), &expected, k.checked_sub(1));
    }
}

#[test]
fn a_signature_above_the_group_order_has_a_name() {
    check(
        "S + L",
        |session, entries| {
            let entry = &session.entries[CALL as usize];
            let at = signature(entry) + 32;
            let order: [u8; 32] = [
                0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
                0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
            ];
            let mut carry = 0u16;
            for (byte, more) in entries[CALL as usize][at..at + 32].iter_mut().zip(order) {
                carry += u16::from(*byte) + u16::from(more);
                *byte = carry.to_le_bytes()[0];
                carry >>= 8;
            }
        },
        "3: SIG_NON_CANONICAL @4",
        Some(3),
    );
}

#[test]
fn signatures_that_are_gone_are_missed_one_by_one() {
    check(
        "one",
        |session, entries| {
            let at = signature(&session.entries[CALL as usize]);
            entries[CALL as usize][at..at + 64].fill(0);
        },
        "3: SIG_MISSING @4",
        Some(3),
    );
    let all: Vec<String> = (0..=CLOSED).map(|k| format!("SIG_MISSING @{k}")).collect();
    check(
        "all",
        |session, entries| {
            for (entry, bytes) in session.entries.iter().zip(entries) {
                let at = signature(entry);
                bytes[at..at + 64].fill(0);
            }
        },
        &format!("3: {}", all.join(", ")),
        None,
    );
}

#[test]
fn a_header_field_is_found_by_its_own_rule_and_its_signature_follows() {
    let cases = [
        (0, "UNKNOWN_VERSION", "a magic byte"),
        (4, "SUITE_DOWNGRADE", "the suite"),
        (5, "RESERVED_BITS", "a reserved flag"),
        (14, "RESERVED_BITS", "the reserved field"),
        (16, "SESSION_ID_MISMATCH", "the session"),
        (50, "SEQ_GAP", "the seq"),
        (56, "SIG_INVALID", "the link"),
        (88, "KEY_OUT_OF_WINDOW", "the time"),
        (99, "KEY_EPOCH_FUTURE", "the epoch"),
        (100, "KEY_NOT_GRANTED", "the signer"),
        (140, "SIG_INVALID", "the principal"),
        (170, "SIG_INVALID", "the body hash"),
    ];
    for (at, code, what) in cases {
        let flip = |_: &Session, entries: &mut Vec<Vec<u8>>| entries[CALL as usize][at] ^= 2;
        check(what, flip, &format!("3: {code} @4"), Some(3));
    }
}

#[test]
fn a_dropped_entry_is_a_gap_and_renumbering_breaks_the_signatures() {
    check("dropped", |_, entries| drop(entries.remove(7)), "3: SEQ_GAP @7", Some(6));
    check("five dropped", |_, entries| drop(entries.drain(7..12)), "3: SEQ_GAP @7", Some(6));
    check("the genesis dropped", |_, entries| drop(entries.remove(0)), "3: SEQ_GAP @0", None);
    let after: Vec<String> = (7..CLOSED).map(|k| format!("SIG_INVALID @{k}")).collect();
    check(
        "dropped and renumbered",
        |_, entries| {
            entries.remove(7);
            for (seq, entry) in entries.iter_mut().enumerate().skip(7) {
                entry[48..56].copy_from_slice(&(seq as u64).to_be_bytes());
            }
        },
        &format!("3: {}", after.join(", ")),
        Some(6),
    );
}

#[test]
fn entries_out_of_order_or_twice_are_told_apart_from_gaps() {
    check("neighbours", |_, entries| entries.swap(7, 8), "3: SEQ_ORDER @7", Some(6));
    check("the first two", |_, entries| entries.swap(0, 1), "3: SEQ_ORDER @0", None);
    check(
        "moved back",
        |_, entries| {
            let entry = entries.remove(5);
            entries.insert(9, entry)
        },
        "3: SEQ_ORDER @5",
        Some(4),
    );
    check(
        "moved forward",
        |_, entries| {
            let entry = entries.remove(9);
            entries.insert(5, entry)
        },
        "3: SEQ_ORDER @5",
        Some(4),
    );
    check("twice", |_, entries| entries.insert(7, entries[7].clone()), "3: SEQ_DUPLICATE @8", Some(7));
    check("again at the end", |_, entries| entries.push(entries[7].clone()), "3: SEQ_DUPLICATE @20", Some(19));
}

#[test]
fn a_tail_that_is_cut_off_an_open_session_is_not_excluded() {
    for left in [1, 2, 10, 19] {
        let session = honest();
        let mut log = Log::of(&session);
        log.entries.truncate(left);
        let report = log.verify();
        let last = left as u64 - 1;
        assert_eq!(told(&report), format!("4: TRUNCATION_NOT_EXCLUDED @{last}"));
        assert_eq!(report.sessions[0].axes.get(Axis::Tail), Answer::NotChecked);
        assert_eq!(report.sessions[0].trusted_prefix_seq, Some(last));
    }
}

#[test]
fn a_segment_of_a_fork_does_not_link() {
    let mut forks = [open(), open()];
    for (fork, path) in forks.iter_mut().zip(["project:one", "project:other"]) {
        let (opener, tool, fs) = (fork.opener(), fork.root(1), fork.root(0));
        for _ in 0..3 {
            fork.call(opener, path, tool, &[fs]);
        }
    }
    let [one, other] = forks;
    let mut log = Log::of(&one);
    log.blobs.extend(Log::of(&other).blobs);
    let mut seen = std::collections::BTreeSet::new();
    log.blobs.retain(|blob| seen.insert(blob.commitment));
    log.entries.truncate(18);
    log.entries.extend(other.entries[18..].iter().map(|entry| entry.bytes().to_vec()));
    assert_eq!(told(&log.verify()), "3: LINK_MISMATCH @18, TRUNCATION_NOT_EXCLUDED @19");
}

#[test]
fn two_signed_entries_for_one_place_are_equivocation() {
    let session = honest();
    let other = reforge(&Keys::seeded(1).writer(), &session.entries, 6, |header, _| header.time_us += 1);
    let mut log = Log::of(&session);
    log.entries.insert(7, other[6].bytes().to_vec());
    let report = log.verify();
    assert_eq!(told(&report), "3: SEQ_CONFLICT @7");
    assert!(report.findings.iter().any(|finding| finding.code.name() == "EQUIVOCATION" && finding.caused_by.is_some()));
}

#[test]
fn an_entry_of_another_session_has_no_place_here() {
    let session = honest();
    let other = Session::open_with(Keys::seeded(1), &[super::FS], 64);
    let mut log = Log::of(&session);
    log.entries[7] = other.entries[0].bytes().to_vec();
    let report = log.verify();
    assert_eq!(report.exit(), 3);
    assert_eq!(report.roots().next().map(|root| root.seq), Some(Some(7)), "{}", told(&report));
}

#[test]
fn a_foreign_signature_is_no_entry_signature() {
    let session = honest();
    let keys = Keys::seeded(1);
    let digest = toka_kernel::ids::Digest([3; 32]);
    // A signature that the same key made for another purpose.
    let signature = keys.event.sign(toka_kernel::keys::Label::KeyGrant, &digest);
    let mut log = Log::of(&session);
    let at = session.entries[FINISHED as usize].signature_offset();
    log.entries[FINISHED as usize][at..at + 64].copy_from_slice(&signature);
    assert_eq!(told(&log.verify()), "3: SIG_INVALID @5");
}

#[test]
fn independent_faults_are_found_in_one_run() {
    check(
        "three",
        |_, entries| {
            *entries[3].last_mut().expect("bytes") ^= 1;
            entries[10][140] ^= 1;
            *entries[16].last_mut().expect("bytes") ^= 1;
        },
        "3: BODY_HASH_MISMATCH @3, SIG_INVALID @10, BODY_HASH_MISMATCH @16",
        Some(2),
    );
}

#[test]
fn legality_stops_at_the_first_fault_and_says_so() {
    let session = honest();
    let mut log = Log::of(&session);
    *log.entries[7].last_mut().expect("bytes") ^= 1;
    let report = log.verify();
    let stopped = report.findings.iter().find(|finding| finding.code.name() == "STOPPED_AT").expect("a stop");
    assert_eq!((stopped.seq, stopped.caused_by), (Some(7), Some(report.findings[0].id)));
    let axes = &report.sessions[0].axes;
    assert_eq!(axes.get(Axis::Chain), Answer::Fail);
    for axis in [Axis::Frame, Axis::Signatures, Axis::Keys, Axis::Blobs, Axis::Tail] {
        assert_eq!(axes.get(axis), Answer::Ok, "{axis}");
    }
    for axis in [Axis::Legality, Axis::State, Axis::Anchor, Axis::Freshness] {
        assert_eq!(axes.get(axis), Answer::NotChecked, "{axis}");
    }
}
