//! Random damage against a model of a few lines: what is the same is whole, what is a beginning is open, and anything
//! else is a failure.

use std::io::Cursor;
use std::sync::OnceLock;

use proptest::prelude::*;
use toka_kernel::entry::MAGIC;
use toka_replay::{Input, Options, verify, write_report};
use toka_store::Bundle;

use super::{Log, honest, options, root, told, verify_bytes};

#[derive(Clone, Debug)]
enum Edit {
    Drop(usize),
    Double(usize),
    Swap(usize, usize),
    Move(usize, usize),
    Flip(usize, usize, u8),
    Cut(usize),
    Overwrite(usize, usize),
    Renumber(usize, u64),
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = 0..20usize;
    prop_oneof![
        at.clone().prop_map(Edit::Drop),
        at.clone().prop_map(Edit::Double),
        (at.clone(), at.clone()).prop_map(|(one, other)| Edit::Swap(one, other)),
        (at.clone(), at.clone()).prop_map(|(from, to)| Edit::Move(from, to)),
        (at.clone(), 0..2_000usize, 0..8u8).prop_map(|(k, byte, bit)| Edit::Flip(k, byte, bit)),
        at.clone().prop_map(Edit::Cut),
        (at.clone(), at.clone()).prop_map(|(from, to)| Edit::Overwrite(from, to)),
        (at, 0..25u64).prop_map(|(k, seq)| Edit::Renumber(k, seq)),
    ]
}

fn apply(entries: &mut Vec<Vec<u8>>, edit: &Edit) {
    let len = entries.len();
    match edit {
        _ if len == 0 => {}
        Edit::Drop(k) => drop(entries.remove(k % len)),
        Edit::Double(k) => entries.insert(k % len, entries[k % len].clone()),
        Edit::Swap(one, other) => entries.swap(one % len, other % len),
        Edit::Move(from, to) => {
            let entry = entries.remove(from % len);
            entries.insert(to % len, entry);
        }
        Edit::Flip(k, byte, bit) => {
            let entry = &mut entries[k % len];
            let byte = byte % entry.len();
            entry[byte] ^= 1 << bit;
        }
        Edit::Cut(k) => entries.truncate(k % len + 1),
        Edit::Overwrite(from, to) => entries[to % len] = entries[from % len].clone(),
        Edit::Renumber(k, seq) => entries[k % len][48..56].copy_from_slice(&seq.to_be_bytes()),
    }
}

fn log() -> &'static Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    LOG.get_or_init(|| Log::of(&honest()))
}

fn bundle() -> &'static [u8] {
    static BUNDLE: OnceLock<Vec<u8>> = OnceLock::new();
    BUNDLE.get_or_init(|| log().bundle())
}

fn reported(bytes: &[u8], jobs: usize) -> (u8, Vec<u8>) {
    let bundle = Bundle::from_input(Cursor::new(bytes.to_vec())).expect("a bundle");
    let options = Options { jobs, ..options(Some(root())) };
    let report = verify(&Input::bundle(bundle, "b"), &options, &mut |_| ()).expect("a sound build");
    let mut out = Vec::new();
    write_report(&report, &mut out).expect("JSON");
    (report.exit(), out)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_storm_of_edits_is_a_failure_unless_it_leaves_a_beginning(edits in prop::collection::vec(edit(), 1..8)) {
        let mut stormy = log().clone();
        edits.iter().for_each(|edit| apply(&mut stormy.entries, edit));
        prop_assume!(!stormy.entries.is_empty());
        let report = stormy.verify();
        let begins = log().entries.starts_with(&stormy.entries);
        let expected = match (begins, stormy.entries.len() == 20) {
            (true, true) => 0,
            (true, false) => 4,
            (false, _) => 3,
        };
        // What does not even begin as an entry does may be the file of a later version.
        let foreign = !stormy.entries[0].starts_with(&MAGIC) && report.exit() == 8;
        prop_assert!(foreign || report.exit() == expected, "{} and not {}: {}", report.exit(), expected, told(&report));
        // Everything before the first entry that differs is still vouched for, and nothing after it.
        let same = log().entries.iter().zip(&stormy.entries).take_while(|(one, other)| one == other).count() as u64;
        prop_assert_eq!(report.sessions[0].trusted_prefix_seq, same.checked_sub(1), "{}", told(&report));
    }

    #[test]
    fn a_bit_of_a_bundle_is_never_flipped_unseen(at in 10..usize::MAX, bit in 0..8u8) {
        let mut bytes = bundle().to_vec();
        let at = 10 + at % (bytes.len() - 10);
        bytes[at] ^= 1 << bit;
        let report = verify_bytes(bytes, Some(root()));
        prop_assert!(report.exit() == 3 || report.exit() == 8, "byte {}: {}", at, told(&report));
    }

    #[test]
    fn a_damaged_bundle_is_reported_the_same_by_one_thread_and_by_three(flips in prop::collection::vec((10..usize::MAX, 0..8u8), 1..6)) {
        let mut bytes = bundle().to_vec();
        for (at, bit) in flips {
            let at = 10 + at % (bytes.len() - 10);
            bytes[at] ^= 1 << bit;
        }
        prop_assert_eq!(reported(&bytes, 1), reported(&bytes, 3));
    }
}

#[test]
fn a_session_that_does_not_begin_as_one_is_unreadable_and_not_a_forgery() {
    for at in 0..MAGIC.len() {
        let mut stormy = log().clone();
        apply(&mut stormy.entries, &Edit::Flip(0, at, 0));
        let report = stormy.verify();
        assert_eq!(told(&report), "8: INPUT_UNREADABLE @0");
        assert_eq!(report.sessions[0].trusted_prefix_seq, None);
    }
}
