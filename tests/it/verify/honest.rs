//! Honest logs: never a false finding, the same report every time.

use std::io::Cursor;

use toka_kernel::{Entry, Stamp};
use toka_replay::code::Axis;
use toka_replay::report::{Answer, Requirement};
use toka_replay::{Input, Options, print_report, verify, write_report};
use toka_store::{Bundle, Log as _, MemoryLog, write_bundle};
use toka_tests::session::{Keys, Session};

use super::{FS, Log, honest, open, options, root, told, verify_bytes};

#[test]
fn a_closed_session_needs_nothing_more() {
    let report = Log::of(&honest()).verify();
    assert_eq!(told(&report), "0: ");
    let axes = &report.sessions[0].axes;
    for axis in Axis::ALL {
        let expected = if axis == Axis::Anchor || axis == Axis::Freshness { Answer::NotChecked } else { Answer::Ok };
        assert_eq!(axes.get(axis), expected, "{axis}");
    }
    assert_eq!((report.checked.entries, report.checked.signatures), (20, 20));
    assert_eq!(report.sessions[0].facts_unchecked, 0);
    assert!(report.sessions[0].blobs.present > 10);
}

#[test]
fn an_open_session_says_that_its_end_may_be_missing() {
    assert_eq!(told(&Log::of(&open()).verify()), "4: TRUNCATION_NOT_EXCLUDED @16");
    let mut printed = Vec::new();
    print_report(&Log::of(&open()).verify(), &mut printed).expect("printed");
    let printed = String::from_utf8(printed).expect("text");
    let first = printed.lines().next().expect("a line");
    assert_eq!(first, "INCOMPLETE: test.tkb: truncation after seq 16 not excluded (exit 4)");
}

#[test]
fn a_session_may_be_only_a_genesis_or_have_one_entry_more() {
    let mut session = Session::open(&[FS]);
    assert_eq!(told(&Log::of(&session).verify()), "4: TRUNCATION_NOT_EXCLUDED @0");
    session.commit_state();
    assert_eq!(told(&Log::of(&session).verify()), "4: TRUNCATION_NOT_EXCLUDED @1");
    let mut session = Session::open(&[FS]);
    session.close();
    assert_eq!(told(&Log::of(&session).verify()), "0: ");
}

#[test]
fn a_clock_that_stepped_back_is_clamped_and_flagged() {
    let mut session = Session::open(&[FS]);
    let before = session.head;
    session.commit_state();
    session.close();
    // The same events, the clock standing still behind the genesis.
    let mut entries = session.entries[..1].to_vec();
    let mut head = before;
    for entry in &session.entries[1..] {
        let event = entry.event().expect("an event").clone();
        let stamp = Stamp::after(&head, head.time_us - 5);
        let entry = Entry::seal(&head, entry.header().principal, stamp, event, &Keys::seeded(1).writer());
        assert_eq!(entry.header().flags, 1);
        head = entry.head();
        entries.push(entry);
    }
    assert_eq!(told(&Log::with(&session, &entries).verify()), "0: ");
}

#[test]
fn without_a_root_key_nothing_is_vouched_for() {
    let report = verify_bytes(Log::of(&honest()).bundle(), None);
    assert_eq!(told(&report), "4: ROOT_NOT_GIVEN @-");
    assert_eq!(report.axes.get(Axis::Keys), Answer::NotChecked);
    assert_eq!(report.axes.get(Axis::Signatures), Answer::Ok);
    assert_eq!(report.sessions[0].trusted_prefix_seq, None);
}

#[test]
fn what_is_required_can_be_said() {
    let open = Log::of(&open()).bundle();
    let exit = |required: &[&str]| {
        let require = required.iter().map(|name| Requirement::parse(name).expect("a name")).collect();
        let bundle = Bundle::from_input(Cursor::new(open.clone())).expect("a bundle");
        let options = Options { require, ..options(Some(root())) };
        verify(&Input::bundle(bundle, "b"), &options, &mut |_| ()).expect("a sound build").exit()
    };
    assert_eq!(exit(&["frame", "chain", "signatures"]), 0);
    assert_eq!(exit(&["tail"]), 4);
    assert_eq!(exit(&["closed"]), 4);
    assert_eq!(exit(&["L1"]), 4);
    assert_eq!(exit(&["anchor"]), 4);
}

#[test]
fn a_report_is_the_same_for_every_number_of_threads() {
    let long = long_session(700);
    for damage in [false, true] {
        let mut log = Log::of(&long);
        if damage {
            for k in [3, 200, 201, 500] {
                log.entries[k][150] ^= 1;
            }
            log.entries.swap(300, 301);
            log.entries.remove(600);
        }
        let bytes = log.bundle();
        let told = |jobs| {
            let bundle = Bundle::from_input(Cursor::new(bytes.clone())).expect("a bundle");
            let options = Options { jobs, ..options(Some(root())) };
            let report = verify(&Input::bundle(bundle, "b"), &options, &mut |_| ()).expect("a sound build");
            let mut out = Vec::new();
            write_report(&report, &mut out).expect("JSON");
            print_report(&report, &mut out).expect("text");
            (report.exit(), String::from_utf8(out).expect("text"))
        };
        let one = told(1);
        assert_eq!(one.0, if damage { 3 } else { 0 });
        assert_eq!(one, told(2));
        assert_eq!(one, told(5));
    }
}

/// A closed session with more than `entries` entries.
pub(super) fn long_session(entries: usize) -> Session {
    let mut session = Session::open(&[FS, "tool:reader?depth=2&exp=1800000000000000"]);
    session.bind(toka_tests::session::reader());
    let (opener, fs, tool) = (session.opener(), session.root(0), session.root(1));
    while session.entries.len() < entries {
        session.call(opener, "project:a/b.md", tool, &[fs]);
        let Some(toka_kernel::Effect::Start(call)) = session.effects.first().cloned() else { panic!("no start") };
        session.finish(call.id(), b"result");
    }
    session.close();
    session
}

#[test]
fn a_fast_check_samples_signatures_and_says_so() {
    let session = honest();
    let fast = |log: &Log| {
        let bundle = Bundle::from_input(Cursor::new(log.bundle())).expect("a bundle");
        let options = Options { fast: true, ..options(Some(root())) };
        verify(&Input::bundle(bundle, "b"), &options, &mut |_| ()).expect("a sound build")
    };
    let report = fast(&Log::of(&session));
    assert_eq!(told(&report), "4: SIGNATURES_SAMPLED @19");
    assert_eq!((report.checked.entries, report.checked.signatures), (20, 1));
    assert_eq!(report.axes.get(Axis::Signatures), Answer::NotChecked);

    let mut log = Log::of(&session);
    let at = session.entries[19].signature_offset();
    log.entries[19][at] ^= 1;
    assert_eq!(fast(&log).exit(), 3);
    // Every other change breaks a hash, a link or a rule.
    for k in 0..19 {
        // The magic bytes of a genesis say which version to read it by.
        for at in (if k == 0 { 4 } else { 0 }..session.entries[k].bytes().len()).step_by(11) {
            let mut log = Log::of(&session);
            log.entries[k][at] ^= 1;
            assert_eq!(fast(&log).exit(), 3, "entry {k} byte {at}");
        }
    }
}

#[test]
fn exporting_twice_gives_the_same_bytes_and_they_verify() {
    let store = MemoryLog::new();
    let sessions = [honest(), Session::open_with(Keys::seeded(2), &[FS], 64)];
    for session in &sessions {
        assert!(store.append(&[Log::of(session).append(session.head)]).iter().all(Result::is_ok));
    }
    let mut ids: Vec<_> = sessions.iter().map(Session::id).collect();
    ids.sort();
    let export = || {
        let mut bytes = Vec::new();
        write_bundle(&store, &ids, &mut bytes).expect("exported");
        bytes
    };
    assert_eq!(export(), export());
    // The second session is of another node.
    let report = verify_bytes(export(), Some(root()));
    assert_eq!(report.exit(), 3);
    let of_other = |finding: &toka_replay::report::Finding| finding.session == Some(sessions[1].id());
    assert!(report.findings.iter().filter(|finding| finding.class == toka_replay::code::Class::Fail).all(of_other));
}

#[test]
fn a_hundred_sessions_in_one_store_verify_together() {
    let store = MemoryLog::new();
    let mut sessions = Vec::new();
    for number in 0..100u32 {
        let root = format!("fs:project/{number}/**#read?exp=1800000000000000");
        let mut session = Session::open(&[&root]);
        session.close();
        assert!(store.append(&[Log::of(&session).append(session.head)]).iter().all(Result::is_ok));
        sessions.push(session.id());
    }
    let input = Input::store(Box::new(store), "memory:");
    let report = verify(&input, &options(Some(root())), &mut |_| ()).expect("a sound build");
    assert_eq!((told(&report).as_str(), report.sessions.len()), ("0: ", 100));
    let one = Options { sessions: Some(vec![sessions[7]]), ..options(Some(root())) };
    assert_eq!(verify(&input, &one, &mut |_| ()).expect("a sound build").sessions.len(), 1);
}
