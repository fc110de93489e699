//! What a holder of the event key can do, who signs whatever he likes: forged entries with sound signatures.

use toka_kernel::body::v1::{GrantTo, IssueAsked};
use toka_kernel::capability::Capability;
use toka_kernel::entry::Header;
use toka_kernel::ids::{CommandId, Digest, EntryHash, PrincipalId, SessionId};
use toka_kernel::limits::BODY_BYTES_MAX;
use toka_kernel::{Ask, BlobRef, Body, Command, Effect, Entry, Event, Stamp};
use toka_replay::Report;
use toka_replay::code::Axis;
use toka_replay::report::Answer;
use toka_tests::session::{Keys, Session, call, reader};

use super::{AGENT, CALL, CLOSED, COMMITTED, FINISHED, FS, Log, TOOL, agent_of, child, honest, reforge, told};

/// An agent with a call that has ended; the next entry is 6.
fn small() -> Session {
    let mut session = Session::open(&[FS, TOOL, AGENT]);
    session.bind(reader());
    let (opener, fs, tool, agents) = (session.opener(), session.root(0), session.root(1), session.root(2));
    let agent =
        session.agent(opener, "auditor", agents, &[(fs, "fs:project/docs/**#read?depth=1"), (tool, "tool:reader")]);
    let (docs, reader) = (child(&session, 1), child(&session, 2));
    session.call(agent, "project:docs/a.md", reader, &[docs]);
    let Some(Effect::Start(call)) = session.effects.first().cloned() else { panic!("no start") };
    session.finish(call.id(), b"text");
    assert_eq!(session.entries.len(), 6);
    session
}

fn event(session: &Session, seq: u64) -> Event {
    session.entries[seq as usize].event().expect("an event").clone()
}

/// Signs `event` behind the session, past the kernel.
fn forge(session: &Session, by: PrincipalId, event: Event) -> Log {
    let stamp = Stamp { time_us: session.now_us + 1, clock_behind: false };
    let forged = Entry::seal(&session.head, by, stamp, event, &Keys::seeded(1).writer());
    let mut log = Log::of(session);
    log.entries.push(forged.bytes().to_vec());
    log
}

/// One failure at `seq`, with every signature and link sound.
fn check_signed(report: &Report, expected: &str, axis: Axis) {
    assert_eq!(told(report), expected, "{:#?}", report.findings);
    let axes = &report.sessions[0].axes;
    for sound in [Axis::Signatures, Axis::Keys] {
        assert_eq!(axes.get(sound), Answer::Ok, "{sound}");
    }
    assert_eq!(axes.get(axis), Answer::Fail);
}

#[test]
fn a_call_without_a_grant_that_covers_it_is_found() {
    let mut session = small();
    let args = session.blob(br#"{"path":"project:secret.txt"}"#);
    let mut event = event(&session, CALL);
    let Body::CallAdmitted(call) = &mut event.body else { panic!("a call") };
    call.facts[0].text = Some("project:secret.txt".to_owned());
    event.blobs = vec![args];
    let report = forge(&session, agent_of(&session), event).verify();
    check_signed(&report, "3: TRANSITION_ILLEGAL @6, TRUNCATION_NOT_EXCLUDED @6", Axis::Legality);
    let finding = &report.findings[0];
    assert_eq!(finding.detail["rule"], "the rules give Refused(OUT_OF_SCOPE)");
    assert_eq!(finding.detail["grant"], child(&session, 1).to_string());
    assert_eq!((&finding.expected["kind"], &finding.actual["kind"]), (&"Refused".into(), &"CallAdmitted".into()));
    assert_eq!(finding.expected["body"]["need"], "fs:project/secret.txt#read");
    assert_eq!(report.sessions[0].trusted_prefix_seq, Some(5));
}

#[test]
fn a_call_that_is_finished_twice_is_found() {
    let session = small();
    let report = forge(&session, toka_tests::session::EXECUTOR, event(&session, FINISHED)).verify();
    check_signed(&report, "3: TRANSITION_ILLEGAL @6, TRUNCATION_NOT_EXCLUDED @6", Axis::Legality);
    assert_eq!(report.findings[0].detail["rule"], "the rules give Refused(ALREADY_FINISHED)");
}

#[test]
fn a_grant_that_is_widened_is_found() {
    let session = small();
    let (agent, docs) = (agent_of(&session), child(&session, 1));
    let to = session.opener();
    let asked = GrantTo { parent: Some(docs), cap: "fs:project/docs/x/**#read".to_owned(), to };
    let command = Command::new(CommandId([9; 16]), 5, Ask::Grant(IssueAsked { grant: asked }), Vec::new());
    let mut event = session.state.decide(agent, &command, session.now_us + 1);
    assert_eq!(event.name(), "GrantIssued", "{event:?}");
    let sound = forge(&session, agent, event.clone()).verify();
    assert_eq!(told(&sound), "4: TRUNCATION_NOT_EXCLUDED @6");
    let Body::GrantIssued(issued) = &mut event.body else { panic!("a grant") };
    let mut wide = Capability::parse("fs:project/**#read").expect("a capability");
    wide.exp_us = issued.grant.cap.exp_us;
    issued.grant.cap = wide;
    let report = forge(&session, agent, event).verify();
    check_signed(&report, "3: TRANSITION_ILLEGAL @6, TRUNCATION_NOT_EXCLUDED @6", Axis::Legality);
}

#[test]
fn who_is_not_there_can_ask_nothing() {
    let session = small();
    let report = forge(&session, PrincipalId([77; 32]), event(&session, CALL)).verify();
    check_signed(&report, "3: TRANSITION_ILLEGAL @6, TRUNCATION_NOT_EXCLUDED @6", Axis::Legality);
}

#[test]
fn a_commitment_to_another_state_is_named_as_such() {
    let session = honest();
    let entries = reforge(&Keys::seeded(1).writer(), &session.entries, COMMITTED as usize, |_, body| {
        let at = body.windows(2).position(|two| two == [0xc4, 32]).expect("a digest");
        body[at + 2] ^= 1;
    });
    let report = Log::with(&session, &entries).verify();
    check_signed(&report, "3: STATE_DIVERGED @9", Axis::State);
    assert_eq!(report.sessions[0].axes.get(Axis::Legality), Answer::NotChecked);
    assert_eq!(report.sessions[0].trusted_prefix_seq, Some(8));
}

#[test]
fn nothing_follows_the_end() {
    let session = honest();
    let report = forge(&session, PrincipalId::NODE, event(&session, COMMITTED)).verify();
    assert_eq!(told(&report), "3: AFTER_CLOSE @20");
    assert_eq!(report.sessions[0].trusted_prefix_seq, Some(CLOSED));
}

/// The honest session with entry `k` changed and everything from there signed again.
fn signed_again(k: u64, edit: impl FnOnce(&mut Header, &mut Vec<u8>)) -> String {
    let session = honest();
    let mut log = Log::with(&session, &reforge(&Keys::seeded(1).writer(), &session.entries, k as usize, edit));
    let mut more = session.blobs.iter().map(|blob| blob.reference.commitment);
    assert!(more.all(|known| log.blobs.iter().any(|blob| blob.commitment == known)));
    log.session = session.id();
    told(&log.verify())
}

#[test]
fn fields_that_contradict_the_chain_are_found_although_signed() {
    assert_eq!(signed_again(7, |_, _| ()), "0: ");
    assert_eq!(signed_again(7, |header, _| header.time_us -= 1_000_000), "3: TIME_REGRESSION @7");
    assert_eq!(signed_again(7, |header, _| header.flags = 1), "3: TIME_REGRESSION @7");
    assert_eq!(signed_again(7, |header, _| header.flags = 2), "3: RESERVED_BITS @7");
    assert_eq!(signed_again(7, |header, _| header.reserved = 1), "3: RESERVED_BITS @7");
    assert_eq!(signed_again(7, |header, _| header.magic = *b"TKE2"), "3: UNKNOWN_VERSION @7");
    assert_eq!(signed_again(7, |header, _| header.suite = 0), "3: SUITE_DOWNGRADE @7");
    assert_eq!(signed_again(7, |header, _| header.session = SessionId([4; 32])), "3: SESSION_ID_MISMATCH @7");
    assert_eq!(signed_again(7, |header, _| header.prev = EntryHash([4; 32])), "3: LINK_MISMATCH @7");
    assert_eq!(signed_again(FINISHED, |header, _| header.causes = vec![5]), "3: CAUSE_INVALID @5");
    assert_eq!(signed_again(FINISHED, |header, _| header.causes = vec![4, 4]), "3: CAUSE_INVALID @5");
    assert_eq!(signed_again(FINISHED, |header, _| header.causes = vec![3]), "3: TRANSITION_ILLEGAL @5");
    assert_eq!(signed_again(7, |header, _| header.causes = vec![3]), "3: TRANSITION_ILLEGAL @7");
    assert_eq!(signed_again(7, |header, _| header.principal = PrincipalId::NODE), "3: TRANSITION_ILLEGAL @7");
}

#[test]
fn a_seq_that_is_signed_is_believed() {
    assert_eq!(signed_again(CLOSED, |header, _| header.seq = 25), "3: SEQ_GAP @19");
    assert_eq!(signed_again(CLOSED, |header, _| header.seq = u64::MAX), "3: SEQ_GAP @19");
    assert!(signed_again(12, |header, _| header.seq = 3).starts_with("3: SEQ_CONFLICT @12"));
}

#[test]
fn a_body_that_no_writer_writes_is_found_although_signed() {
    assert_eq!(signed_again(7, |_, body| body.push(0xc0)), "3: BODY_NON_CANONICAL @7");
    assert_eq!(signed_again(7, |_, body| *body = vec![0x80]), "3: BODY_UNDECODABLE @7");
    assert_eq!(signed_again(7, |_, body| *body = vec![0x91; 600]), "3: BODY_UNDECODABLE @7");
    assert_eq!(signed_again(7, |_, body| *body = vec![0xdd, 0xff, 0xff, 0xff, 0xff]), "3: BODY_UNDECODABLE @7");
    assert_eq!(
        signed_again(7, |header, _| {
            header.blobs.pop();
        }),
        "3: BODY_NON_CANONICAL @7"
    );
}

#[test]
fn what_this_version_does_not_know_is_not_condemned() {
    assert_eq!(signed_again(7, |header, _| header.kind = 0x0999), "4: KIND_UNKNOWN @7");
    assert_eq!(signed_again(7, |header, _| header.schema = 2), "4: SCHEMA_UNKNOWN @7");
    assert_eq!(signed_again(7, |header, _| header.kind = 0), "4: KIND_UNKNOWN @7");
    let session = honest();
    let entries = reforge(&Keys::seeded(1).writer(), &session.entries, 7, |header, _| header.kind = 0x0999);
    let report = Log::with(&session, &entries).verify();
    let axes = &report.sessions[0].axes;
    for axis in [Axis::Frame, Axis::Chain, Axis::Signatures, Axis::Keys, Axis::Commands, Axis::Blobs, Axis::Tail] {
        assert_eq!(axes.get(axis), Answer::Ok, "{axis}");
    }
    assert_eq!((axes.get(Axis::Legality), axes.get(Axis::State)), (Answer::NotChecked, Answer::NotChecked));
    assert_eq!(report.sessions[0].trusted_prefix_seq, Some(6));
}

/// A genesis with another header or body, alone, under the name that it hashes to.
fn genesis(edit: impl FnOnce(&mut Header, &mut toka_kernel::Genesis)) -> Report {
    let session = Session::open(&[FS]);
    let Body::SessionOpened(mut body) = event(&session, 0).body else { panic!("a genesis") };
    let mut header = session.entries[0].header().clone();
    edit(&mut header, &mut body);
    let event = Event { causes: Vec::new(), blobs: Vec::new(), body: Body::SessionOpened(body) };
    let forged = Entry::forge(header, &event.encode(), &Keys::seeded(1).writer());
    Log { session: SessionId(forged.hash().0), entries: vec![forged.bytes().to_vec()], blobs: Vec::new() }.verify()
}

#[test]
fn a_genesis_has_its_own_rules() {
    let field = |report: &Report| report.findings[0].field.clone().unwrap_or_default();
    let cases: [(&str, Report); 4] = [
        ("prev", genesis(|header, _| header.prev = EntryHash([1; 32]))),
        ("session", genesis(|header, _| header.session = SessionId([1; 32]))),
        ("principal", genesis(|header, _| header.principal = PrincipalId([1; 32]))),
        ("kind", genesis(|header, _| header.kind = 2)),
    ];
    for (wrong, report) in cases {
        assert_eq!((report.findings[0].code.name(), field(&report).as_str()), ("GENESIS_INVALID", wrong));
        assert_eq!((report.exit(), report.findings[0].seq), (3, Some(0)));
    }
    for (wrong, report) in [
        ("class", genesis(|_, body| body.class = 3)),
        ("open.under", genesis(|_, body| body.open.under = Some(Default::default()))),
        ("open.body", genesis(|_, body| body.open.body.0.push(0))),
        ("interval", genesis(|_, body| body.interval = 7)),
        ("grants", genesis(|_, body| body.grants[0].cap.exp_us = None)),
        ("opener", genesis(|_, body| body.opener = PrincipalId([9; 32]))),
    ] {
        assert_eq!((report.findings[0].code.name(), field(&report).as_str()), ("GENESIS_INVALID", wrong));
        assert_eq!(report.exit(), 3);
    }
    assert_eq!(told(&genesis(|_, body| body.rules = 2)), "4: RULES_UNKNOWN @0, TRUNCATION_NOT_EXCLUDED @0");
    let report = genesis(|header, _| header.magic = *b"TKE2");
    assert_eq!(told(&report), "8: INPUT_UNREADABLE @0");
}

#[test]
fn a_session_that_has_another_name_than_its_genesis_hashes_to_is_found() {
    let mut log = Log::of(&honest());
    log.session = SessionId([3; 32]);
    let report = log.verify();
    assert_eq!(told(&report), "3: GENESIS_INVALID @0");
    assert_eq!(report.findings[0].field.as_deref(), Some("session"));
}

#[test]
fn a_session_does_not_begin_twice() {
    let session = honest();
    let body = session.entries[0].body().to_vec();
    let report = signed_again(7, |header, bytes| {
        (header.kind, header.blobs) = (1, Vec::new());
        *bytes = body;
    });
    assert_eq!(report, "3: GENESIS_DUPLICATE @7");
}

#[test]
fn facts_that_differ_from_the_arguments_are_found() {
    let cases: [(&[u8], &str); 5] = [
        (br#"{"path":"project:secret.txt"}"#, "facts"),
        (br#"{"path":"project:docs/a.md","size":1}"#, "extra"),
        (br#"{"path": "project:docs/a.md"}"#, "args"),
        (br#"{}"#, "facts"),
        (b"\xff", "args"),
    ];
    for (arguments, field) in cases {
        let mut session = small();
        let (agent, docs, reader) = (agent_of(&session), child(&session, 1), child(&session, 2));
        let args = session.blob(arguments);
        let event = session.ask(agent, call("project:docs/a.md", reader, &[docs]), vec![args]);
        assert_eq!(event.name(), "CallAdmitted");
        let report = Log::of(&session).verify();
        check_signed(&report, "3: FACTS_MISMATCH @6, TRUNCATION_NOT_EXCLUDED @6", Axis::Legality);
        assert_eq!(report.findings[0].field.as_deref(), Some(field));
    }
}

#[test]
fn a_bound_tool_that_differs_from_its_spec_is_found() {
    type Edit = fn(&mut toka_kernel::tool::Tool);
    let edits: [(&str, Edit); 4] = [
        ("tools[0].effect", |tool| tool.effect = 2),
        ("tools[0].needs", |tool| tool.needs.clear()),
        ("tools[0].digest", |tool| tool.digest = Digest([1; 32])),
        ("tools[0].reserve", |tool| tool.reserve[0].base = 0),
    ];
    for (field, edit) in edits {
        let mut session = Session::open(&[FS]);
        let mut tool = reader();
        edit(&mut tool);
        assert_eq!(session.bind(tool).name(), "ToolBound");
        let report = Log::of(&session).verify();
        check_signed(&report, "3: FACTS_MISMATCH @1, TRUNCATION_NOT_EXCLUDED @1", Axis::Legality);
        assert_eq!(report.findings[0].field.as_deref(), Some(field));
    }
}

#[test]
fn a_blob_must_be_there_and_be_what_was_committed_to() {
    let session = honest();
    let args = session.entries[CALL as usize].header().blobs[0].commitment;
    let result = session.entries[FINISHED as usize].header().blobs[0].commitment;
    let place =
        |log: &Log, commitment| log.blobs.iter().position(|blob| blob.commitment == commitment).expect("a blob");

    let mut log = Log::of(&session);
    let at = place(&log, args);
    log.blobs.remove(at);
    let report = log.verify();
    assert_eq!(told(&report), "3: BLOB_MISSING_UNAUTHORISED @4");
    assert_eq!(report.sessions[0].facts_unchecked, 1);
    assert_eq!(report.sessions[0].trusted_prefix_seq, Some(CLOSED), "blobs are no check of entries");

    let mut log = Log::of(&session);
    let (one, other) = (place(&log, args), place(&log, result));
    let salt = log.blobs[one].salt;
    let bytes = log.blobs[one].bytes.clone();
    (log.blobs[one].salt, log.blobs[one].bytes) = (log.blobs[other].salt, log.blobs[other].bytes.clone());
    (log.blobs[other].salt, log.blobs[other].bytes) = (salt, bytes);
    assert_eq!(told(&log.verify()), "3: BLOB_MISMATCH @4, BLOB_MISMATCH @5");

    for edit in
        [|blob: &mut toka_store::NewBlob| blob.salt[0] ^= 1, |blob: &mut toka_store::NewBlob| blob.bytes.push(b' ')]
    {
        let mut log = Log::of(&session);
        let at = place(&log, args);
        edit(&mut log.blobs[at]);
        assert_eq!(told(&log.verify()), "3: BLOB_MISMATCH @4");
    }
}

#[test]
fn a_blob_of_another_size_than_stated_is_found() {
    let mut session = small();
    let (agent, docs, reader) = (agent_of(&session), child(&session, 1), child(&session, 2));
    let args = session.blob(br#"{"path":"project:docs/a.md"}"#);
    let lie = BlobRef { grains: 9, ..args };
    session.ask(agent, call("project:docs/a.md", reader, &[docs]), vec![lie]);
    let report = Log::of(&session).verify();
    assert_eq!(told(&report), "3: BLOB_MISMATCH @6, TRUNCATION_NOT_EXCLUDED @6");
    assert_eq!(report.findings[0].field.as_deref(), Some("size_grains"));
    assert_eq!((&report.findings[0].expected, &report.findings[0].actual), (&1.into(), &9.into()));
}

#[test]
fn a_header_that_claims_too_much_is_bounded() {
    let session = honest();
    for (at, bytes) in [(164, &[0xff; 4][..]), (10, &[0xff; 2]), (12, &[0xff; 2])] {
        let mut log = Log::of(&session);
        log.entries[7][at..at + bytes.len()].copy_from_slice(bytes);
        let report = log.verify();
        let finding = report.roots().next().expect("a finding");
        assert_eq!((finding.code.name(), finding.seq, report.exit()), ("LIMIT_EXCEEDED", Some(7), 3));
        assert!(finding.byte_offset.is_some());
    }
    let mut header = session.entries[7].header().clone();
    header.time_us = 1 << 60;
    let forged = Entry::forge(header, session.entries[7].body(), &Keys::seeded(1).writer());
    let mut log = Log::of(&session);
    log.entries[7] = forged.bytes().to_vec();
    assert!(told(&log.verify()).starts_with("3: KEY_OUT_OF_WINDOW @7"));
    let forged =
        Entry::forge(session.entries[7].header().clone(), &vec![0xc0; BODY_BYTES_MAX + 1], &Keys::seeded(1).writer());
    log.entries[7] = forged.bytes().to_vec();
    assert!(told(&log.verify()).starts_with("3: LIMIT_EXCEEDED @7"));
}
