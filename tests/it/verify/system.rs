//! The system session, sessions that cite it, and signed commands, as the verifier sees them.

use toka_kernel::body::v1::AddPrincipalAsked;
use toka_kernel::ids::{Bytes, PrincipalId, Seq, SessionId};
use toka_kernel::{Ask, Body, Entry, Event, Signed, Stamp};
use toka_replay::code::Axis;
use toka_replay::report::Answer;
use toka_replay::{Input, Report, verify};
use toka_store::Bundle;
use toka_store::BundleBuilder;
use toka_store::bundle::SessionContent;
use toka_tests::session::{Keys, Session};

use super::{Log, options, reforge, root, told};

/// The system session and one that cites it.
fn both() -> [Session; 2] {
    crate::golden::system()
}

fn verify_all(logs: &[Log]) -> Report {
    let content = |log: &Log| SessionContent {
        session: log.session,
        first_seq: 0,
        entries: log.entries.clone(),
        blobs: log.blobs.clone(),
    };
    let mut bytes = Vec::new();
    BundleBuilder { sessions: logs.iter().map(content).collect() }.write(&mut bytes).expect("a bundle");
    let bundle = Bundle::from_input(std::io::Cursor::new(bytes)).expect("a bundle");
    verify(&Input::bundle(bundle, "test.tkb"), &options(Some(root())), &mut |_| ()).expect("a sound build")
}

#[test]
fn a_system_session_verifies_with_and_without_what_cites_it() {
    let [system, work] = both();
    let report = verify_all(&[Log::of(&system), Log::of(&work)]);
    assert_eq!(told(&report), "0: ", "{:#?}", report.findings);
    let of = |id: SessionId| report.sessions.iter().find(|session| session.session == id).expect("a session");
    assert_eq!(of(system.id()).signed.in_process, 3);
    assert_eq!((of(work.id()).refs_unresolved, of(work.id()).axes.get(Axis::Commands)), (0, Answer::Ok));
    let alone = Log::of(&work).verify();
    assert_eq!(told(&alone), "0: ", "{:#?}", alone.findings);
    assert_eq!(alone.sessions[0].refs_unresolved, 3);
    assert_eq!(told(&Log::of(&system).verify()), "0: ");
}

/// The seq of the first entry of this kind.
fn seq_of(session: &Session, name: &str) -> Seq {
    let is = |entry: &&Entry| entry.event().is_ok_and(|event| event.name() == name);
    session.entries.iter().find(is).expect("such an entry").header().seq
}

/// Changes the signature of the command that the entry at `seq` accepts, and signs the chain again.
fn with_signature(session: &Session, seq: Seq, change: impl Fn(Option<Bytes>) -> Option<Bytes>) -> Report {
    let entries = reforge(&Keys::seeded(1).writer(), &session.entries, seq as usize, |header, body| {
        let mut event = Event::decode(header, body).expect("an event");
        let Body::ToolApproved(approved) = &mut event.body else { panic!("an approval") };
        let cmd = approved.cmd.as_mut().expect("a command");
        cmd.signed = change(cmd.signed.take());
        *body = event.encode();
    });
    Log::with(session, &entries).verify()
}

#[test]
fn a_command_that_nobody_signed_is_found_where_it_was_accepted() {
    let [system, _] = both();
    let at = seq_of(&system, "ToolApproved");
    let decode = |bytes: &Bytes| Signed::decode(&bytes.0).expect("a signed command");
    type Change<'a> = &'a dyn Fn(Option<Bytes>) -> Option<Bytes>;
    let cases: [(&str, Change<'_>); 6] = [
        ("COMMAND_UNSIGNED", &|_| None),
        ("COMMAND_SIG_INVALID", &|signed| {
            let mut signed = decode(&signed?);
            signed.signature[40] ^= 1;
            Some(signed.encode())
        }),
        ("COMMAND_AUDIENCE", &|signed| {
            let mut signed = decode(&signed?);
            signed.session = SessionId([1; 32]);
            Some(signed.encode())
        }),
        ("COMMAND_EXPIRED", &|signed| {
            let mut signed = decode(&signed?);
            signed.not_after_us = 5;
            Some(signed.encode())
        }),
        ("COMMAND_MISMATCH", &|_| {
            let ask = Ask::AddPrincipal(AddPrincipalAsked { kind: 1, custody: 1, keys: vec![] });
            let key = Keys::seeded(1).operator;
            Some(Signed::sign(both()[0].id(), [9; 16], system.now_us, &ask, &[], &key).encode())
        }),
        ("KEY_WRONG_ROLE", &|signed| {
            let mut signed = decode(&signed?);
            signed.key = Keys::seeded(1).redact.public().id();
            Some(signed.encode())
        }),
    ];
    for (code, change) in cases {
        let report = with_signature(&system, at, change);
        assert_eq!(told(&report), format!("3: {code} @{at}"), "{:#?}", report.findings);
        let axis = if code == "KEY_WRONG_ROLE" { Axis::Keys } else { Axis::Commands };
        assert_eq!(report.sessions[0].axes.get(axis), Answer::Fail);
        assert_eq!(report.sessions[0].axes.get(Axis::Signatures), Answer::Ok);
    }
}

#[test]
fn a_signed_command_that_is_used_again_names_its_first_use() {
    let mut system = Session::open_system(&["admin:#members?exp=1800000000000000"]);
    let ask = Ask::AddPrincipal(AddPrincipalAsked { kind: 1, custody: 2, keys: vec![] });
    let (opener, under, key) = (system.opener(), system.root(0), system.keys.operator.clone());
    let event = system.ask_under(opener, under, Some(&key), ask, vec![]);
    assert_eq!(event.name(), "PrincipalAdded");
    let stamp = Stamp { time_us: system.now_us + 1, clock_behind: false };
    let again = Entry::seal(&system.head, opener, stamp, event, &Keys::seeded(1).writer());
    let mut log = Log::of(&system);
    log.entries.push(again.bytes().to_vec());
    let report = log.verify();
    assert!(told(&report).starts_with("3: COMMAND_REPLAYED @2"), "{}", told(&report));
    let found = report.findings.iter().find(|found| found.code.name() == "COMMAND_REPLAYED").expect("it");
    assert_eq!(found.detail.get("first_seq"), Some(&1.into()));
    assert_ne!(opener, PrincipalId::NODE);
}

#[test]
fn a_citation_that_contradicts_the_system_session_is_found() {
    let [system, work] = both();
    let at = seq_of(&system, "ToolApproved");
    let later = |header: &mut toka_kernel::entry::Header, _: &mut Vec<u8>| header.time_us += 1;
    let other = reforge(&Keys::seeded(1).writer(), &system.entries, at as usize, later);
    let report = verify_all(&[Log::with(&system, &other), Log::of(&work)]);
    // The genesis and the tools cite what was there before.
    let bound = seq_of(&work, "ToolBound");
    let unbound = seq_of(&work, "ToolUnbound");
    let found: Vec<String> =
        told(&report).split(": ").nth(1).expect("findings").split(", ").map(str::to_owned).collect();
    for seq in [0, bound, unbound] {
        assert!(found.contains(&format!("REF_MISMATCH @{seq}")), "{found:?}");
    }
    assert_eq!(report.exit(), 3);
}
