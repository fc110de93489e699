//! The system session, signed commands and what follows from them in a work session, each rule by an example.

use toka_kernel::body::v1::{
    AddPrincipalAsked, ApproveToolAsked, BindAsked, Binding, EndAsked, EndHead, EndSessionAsked, GrantAmounts, GrantTo,
    IssueAsked, Outcome, QuarantineToolAsked, Refused, RegisterToolAsked, ReportAsked, ResolveAsked, RevokeAsked,
    SandboxRecord, StartAsked, UnbindAsked,
};
use toka_kernel::ids::{Bytes, CallId, CommandId, Digest, GrantId, PrincipalId, SessionId};
use toka_kernel::keys::SecretKey;
use toka_kernel::tool::Effect;
use toka_kernel::{Ask, BlobRef, Body, Command, Event, Genesis, Signed, State, ToolState};
use toka_projections::Views;
use toka_tests::session::{
    EXECUTOR, Keys, START_US, Session, cited_genesis, genesis, opening, reader, report, system_genesis,
};

const ADMIN: &str =
    "admin:#cancel,grant-root,members,open-session,pause,register-tool,resolve,revoke-any?exp=1800000000000000";
const FS: &str = "fs:project/**#list,read?depth=3&exp=1800000000000000";
const TOOL: &str = "tool:*?depth=3&calls=50&bytes_in=100000000&exp=1800000000000000";
const AGENT: &str = "agent:*?depth=3&exp=1800000000000000";

fn system() -> Session {
    Session::open_system(&[ADMIN, FS, TOOL, AGENT])
}

fn refused(event: &Event) -> &Refused {
    let Body::Refused(refused, _) = &event.body else { panic!("not refused: {event:?}") };
    refused
}

fn code(event: &Event) -> u16 {
    refused(event).code
}

/// A command of the opener under the first root, signed by its operator key.
fn signed(session: &mut Session, ask: Ask, blobs: Vec<BlobRef>) -> Event {
    let (opener, under, key) = (session.opener(), session.root(0), session.keys.operator.clone());
    session.ask_under(opener, under, Some(&key), ask, blobs)
}

fn unsigned(session: &mut Session, ask: Ask, blobs: Vec<BlobRef>) -> Event {
    let (opener, under) = (session.opener(), session.root(0));
    session.ask_under(opener, under, None, ask, blobs)
}

fn register(session: &mut Session, state: u8, digest: Digest) -> (Ask, Vec<BlobRef>) {
    let blob = session.blob(b"spec");
    let tool = toka_kernel::tool::Tool { digest, ..reader() };
    (Ask::RegisterTool(Box::new(RegisterToolAsked { tool, file: Digest([1; 32]), state })), vec![blob])
}

fn approve(digest: Digest) -> Ask {
    Ask::ApproveTool(ApproveToolAsked { name: "reader".to_owned(), digest })
}

fn quarantine(digest: Digest) -> Ask {
    Ask::QuarantineTool(QuarantineToolAsked { name: "reader".to_owned(), digest, why: 1, seen: Some(Digest([2; 32])) })
}

#[test]
fn a_tool_is_proposed_approved_quarantined_and_approved_again() {
    let mut system = system();
    let digest = reader().digest;
    let (ask, blobs) = register(&mut system, 1, digest);
    assert_eq!(unsigned(&mut system, ask, blobs).name(), "ToolRegistered");
    assert_eq!(system.state.registered("reader"), Some((ToolState::Proposed, digest)));
    assert_eq!(code(&system.ask(PrincipalId::NODE, quarantine(digest), vec![])), 206, "nobody runs a proposal");
    let event = unsigned(&mut system, approve(digest), vec![]);
    assert_eq!((code(&event), refused(&event).need.as_deref()), (120, Some("admin:#register-tool")));
    assert_eq!(code(&signed(&mut system, approve(Digest([9; 32])), vec![])), 402);
    assert_eq!(signed(&mut system, approve(digest), vec![]).name(), "ToolApproved");
    assert_eq!(code(&signed(&mut system, approve(digest), vec![])), 206);
    assert_eq!(system.ask(PrincipalId::NODE, quarantine(digest), vec![]).name(), "ToolQuarantined");
    assert_eq!(system.state.registered("reader"), Some((ToolState::Quarantined, digest)));
    assert_eq!(code(&system.ask(PrincipalId::NODE, quarantine(digest), vec![])), 206, "once");
    assert_eq!(signed(&mut system, approve(digest), vec![]).name(), "ToolApproved");
}

#[test]
fn a_proposal_does_not_take_away_what_was_approved() {
    let mut system = system();
    let digest = reader().digest;
    let (ask, blobs) = register(&mut system, 2, digest);
    assert_eq!(code(&unsigned(&mut system, ask.clone(), blobs.clone())), 120, "approved at once is an approval");
    assert_eq!(system.ask(PrincipalId::NODE, ask, blobs).name(), "ToolRegistered", "shipped with the node");
    let (ask, blobs) = register(&mut system, 1, Digest([9; 32]));
    assert_eq!(code(&unsigned(&mut system, ask, blobs)), 206);
    let (ask, blobs) = register(&mut system, 1, digest);
    let event = system.ask(PrincipalId::NODE, ask, blobs);
    assert_eq!((code(&event), refused(&event).need.as_deref()), (312, Some("admin:#register-tool")));
    let (ask, blobs) = register(&mut system, 2, Digest([9; 32]));
    assert_eq!(signed(&mut system, ask, blobs).name(), "ToolRegistered");
}

/// What is wrong with a signature, in the order in which it is found.
#[test]
fn a_signature_is_for_one_command_of_one_session_once_and_for_a_time() {
    let mut system = system();
    let (opener, under) = (system.opener(), system.root(0));
    let ask = Ask::AddPrincipal(AddPrincipalAsked { kind: 1, custody: 2, keys: vec![] });
    let keys = Keys::seeded(1);
    let now = system.now_us + 1_000;
    let day = 86_400_000_000;
    let make = |key: &SecretKey, session: SessionId, until: u64, ask: &Ask| {
        Signed::sign(session, [7; 16], until, ask, &[], key)
    };
    let id = system.id();
    let good = make(&keys.operator, id, now + 60_000_000, &ask);
    let mut other_bytes = good.clone();
    other_bytes.signature[0] ^= 1;
    let mut longer = good.clone();
    longer.not_after_us += 1;
    let changed = Ask::AddPrincipal(AddPrincipalAsked { kind: 4, custody: 2, keys: vec![] });
    let cases = [
        (make(&keys.spare[0], id, now + 9_000_000, &ask), 109),
        (make(&keys.event, id, now + 9_000_000, &ask), 109),
        (make(&SecretKey::from_seed(&[0xaa; 32]), id, now + 9_000_000, &ask), 109),
        (make(&keys.redact, id, now + 9_000_000, &ask), 125),
        (make(&keys.operator, SessionId([1; 32]), now + 9_000_000, &ask), 122),
        (make(&keys.operator, id, now, &ask), 123),
        (make(&keys.operator, id, now + day * 2, &ask), 123),
        (other_bytes, 121),
        (longer, 121),
        (make(&keys.operator, id, now + 9_000_000, &changed), 121),
        (make(&keys.operator, id, now + 9_000_000, &approve(Digest([1; 32]))), 121),
    ];
    let command = |signed: Option<Bytes>| {
        let mut command = Command::new(CommandId([1; 16]), 0, ask.clone(), vec![]);
        command.under = Some(under);
        command.signed = signed;
        command
    };
    for (number, (signed, wanted)) in cases.into_iter().enumerate() {
        let mut session = Session::begin(Keys::seeded(1), system_genesis(&keys, &[ADMIN], 64));
        assert_ne!(session.id(), id, "another session");
        session = self::system();
        let event = session.command(opener, &command(Some(signed.encode())));
        assert_eq!(code(&event), wanted, "case {number}");
    }
    for cut in [0, 95, 96, 159, 160] {
        let bytes = good.encode().0[..cut.min(good.encode().0.len() - 1)].to_vec();
        assert_eq!(code(&system.command(opener, &command(Some(Bytes(bytes))))), 101, "{cut}");
    }
    assert_eq!(code(&system.command(opener, &command(None))), 120);
    let event = system.command(opener, &command(Some(good.encode())));
    assert_eq!(event.name(), "PrincipalAdded", "{event:?}");
    let used = system.head.seq;
    let event = system.command(opener, &command(Some(good.encode())));
    assert_eq!((code(&event), refused(&event).first_seq), (124, Some(used)));
    // The nonce is remembered as long as it could be sent again, and no longer.
    let nonces = |session: &Session| session.state.rows().iter().filter(|(table, ..)| *table == 14).count();
    system.commit_state();
    assert_eq!(nonces(&system), 1);
    system.now_us = good.not_after_us;
    system.commit_state();
    assert_eq!(nonces(&system), 0);
    assert_eq!(code(&system.command(opener, &command(Some(good.encode())))), 123);
}

#[test]
fn a_signed_command_that_was_refused_can_be_sent_again() {
    let mut system = system();
    let (opener, root) = (system.opener(), system.root(0));
    let ask =
        Ask::AddPrincipal(AddPrincipalAsked { kind: 1, custody: 1, keys: vec![system.keys.spare[0].public().id()] });
    let signed = Signed::sign(system.id(), [3; 16], system.now_us + 60_000_000, &ask, &[], &system.keys.operator);
    let mut command = Command::new(CommandId([1; 16]), 0, ask, vec![]);
    command.signed = Some(signed.encode());
    assert_eq!(code(&system.command(opener, &command)), 312, "no right is named");
    command.under = Some(root);
    assert_eq!(system.command(opener, &command).name(), "PrincipalAdded");
    let added = PrincipalId(system.made(0));
    assert_eq!(system.state.custody(added), Some(1));
    // The key is theirs now: they sign with it, and nobody else gets it.
    let ask =
        Ask::AddPrincipal(AddPrincipalAsked { kind: 4, custody: 1, keys: vec![system.keys.spare[0].public().id()] });
    let event = self::signed(&mut system, ask, vec![]);
    assert_eq!((code(&event), refused(&event).item), (108, Some(0)));
    let spare = system.keys.spare[0].clone();
    let event = system.ask_under(added, root, Some(&spare), approve(Digest([1; 32])), vec![]);
    assert_eq!(code(&event), 302, "the signature holds, the grant is somebody else's");
}

/// An event holds what was filled; the signature was made over what was asked.
#[test]
fn a_signature_holds_for_a_grant_that_was_filled_and_for_no_other_text() {
    let mut system = system();
    let (opener, tool) = (system.opener(), system.root(2));
    let grant =
        |cap: &str| Ask::Grant(IssueAsked { grant: GrantTo { parent: Some(tool), cap: cap.to_owned(), to: opener } });
    let make = |session: &Session, asked: &Ask, said: &Ask, nonce: u8| {
        let key = &session.keys.operator;
        let signed = Signed::sign(session.id(), [nonce; 16], session.now_us + 60_000_000, said, &[], key);
        let mut command = Command::new(CommandId([nonce; 16]), 0, asked.clone(), vec![]);
        command.signed = Some(signed.encode());
        command
    };
    let short = grant("tool:reader?calls=1_0");
    let command = make(&system, &short, &short, 1);
    let event = system.command(opener, &command);
    let Body::GrantIssued(issued) = &event.body else { panic!("{event:?}") };
    assert_eq!(issued.grant.cap.to_string(), "tool:reader?calls=10&bytes_in=100000000&exp=1800000000000000");
    let wider = grant("tool:reader?calls=11");
    let command = make(&system, &wider, &short, 2);
    let event = system.command(opener, &command);
    assert_eq!((code(&event), refused(&event).rule.as_deref()), (121, Some("another command")));
}

#[test]
fn a_root_grant_is_signed_and_needs_the_right() {
    let mut session = Session::open(&[ADMIN, "admin:#cancel?exp=1800000000000000"]);
    let opener = session.opener();
    let root = |cap: &str| Ask::Grant(IssueAsked { grant: GrantTo { parent: None, cap: cap.to_owned(), to: opener } });
    let event = unsigned(&mut session, root("fs:new/**#read?exp=1800000000000000"), vec![]);
    assert_eq!((code(&event), refused(&event).need.as_deref()), (120, Some("admin:#grant-root")));
    assert_eq!(code(&signed(&mut session, root("fs:new/**#read"), vec![])), 101, "a root ends some time");
    let (less, key) = (session.root(1), session.keys.operator.clone());
    let event = session.ask_under(opener, less, Some(&key), root("fs:new/**#read?exp=1800000000000000"), vec![]);
    assert_eq!((code(&event), refused(&event).failed_at, refused(&event).dim), (312, Some(less), Some(13)));
    let event = signed(&mut session, root("fs:new/**#read?depth=2&exp=1800000000000000"), vec![]);
    let Body::GrantIssued(issued) = &event.body else { panic!("{event:?}") };
    assert_eq!((issued.grant.parent, issued.grant.issuer), (None, opener));
}

#[test]
fn a_session_is_registered_within_the_grants_of_its_opener_and_settled() {
    let mut system = system();
    let (opener, tool, fs) = (system.opener(), system.root(2), system.root(1));
    let open = |system: &Session, session: u8, roots: &[(Option<GrantId>, &str)]| {
        Ask::OpenSession(Box::new(opening(&system.keys, SessionId([session; 32]), roots)))
    };
    let half = "tool:reader?depth=1&calls=30&bytes_in=1000&exp=1790000000000000";
    let reads = "fs:project/**#read?exp=1790000000000000";
    let ask = open(&system, 1, &[(Some(tool), half), (Some(fs), reads)]);
    let event = unsigned(&mut system, ask.clone(), vec![]);
    let Body::SessionRegistered(registered) = &event.body else { panic!("{event:?}") };
    let of_tool = GrantAmounts { grant: tool, amounts: vec![30, 768] };
    assert_eq!(registered.reserved, [of_tool, GrantAmounts { grant: fs, amounts: vec![] }], "whole grains");
    assert_eq!(code(&unsigned(&mut system, ask, vec![])), 206, "once");
    let cases = [
        (vec![(Some(tool), half)], 601),
        (vec![(Some(tool), "tool:reader?bytes_in=100&exp=1790000000000000")], 311),
        (vec![(Some(tool), "tool:reader?calls=1&bytes_in=100")], 101),
        (vec![(Some(tool), "tool:reader?depth=3&calls=1&bytes_in=1&exp=1790000000000000")], 311),
        (vec![(Some(GrantId([9; 32])), reads)], 308),
        (vec![(None, reads)], 120),
    ];
    for (roots, wanted) in cases {
        let ask = open(&system, 2, &roots);
        assert_eq!(code(&unsigned(&mut system, ask, vec![])), wanted, "{roots:?}");
    }
    let ask = open(&system, 2, &[(None, "fs:elsewhere/**#read?exp=1790000000000000")]);
    assert_eq!(signed(&mut system, ask, vec![]).name(), "SessionRegistered", "signed it may be new");
    assert_eq!(code(&system.close()), 211, "sessions are open");
    let end = |session: u8, how: u8, spent: Vec<GrantAmounts>| {
        let head = (how == 1).then_some(EndHead { seq: 9, hash: Default::default() });
        Ask::EndSession(EndSessionAsked { session: SessionId([session; 32]), how, head, spent })
    };
    let spent = vec![GrantAmounts { grant: tool, amounts: vec![7, 256] }];
    assert_eq!(code(&system.ask(PrincipalId::NODE, end(3, 1, vec![]), vec![])), 101, "not listed");
    assert_eq!(code(&system.ask(opener, end(1, 1, vec![]), vec![])), 205);
    assert_eq!(system.ask(PrincipalId::NODE, end(1, 1, spent), vec![]).name(), "SessionEnded");
    assert_eq!(code(&system.ask(PrincipalId::NODE, end(1, 1, vec![]), vec![])), 206, "once");
    assert_eq!(system.ask(PrincipalId::NODE, end(2, 2, vec![]), vec![]).name(), "SessionEnded");
    // 43 calls are left of 50.
    let all = "tool:reader?calls=43&bytes_in=9000&exp=1790000000000000";
    let ask = open(&system, 4, &[(Some(tool), &all.replace("43", "44"))]);
    let event = unsigned(&mut system, ask, vec![]);
    assert_eq!((code(&event), refused(&event).failed_at), (601, Some(tool)));
    let ask = open(&system, 4, &[(Some(tool), all)]);
    assert_eq!(unsigned(&mut system, ask, vec![]).name(), "SessionRegistered");
}

fn denied(genesis: &Genesis) -> String {
    State::open(genesis, START_US).expect_err("denied").rule.expect("a field")
}

#[test]
fn a_work_session_embeds_the_opening_that_was_registered() {
    let mut system = system();
    let (tool, under) = (system.root(2), system.root(0));
    system.commit_state();
    let head = system.head_ref();
    let cap = "tool:reader?calls=3&bytes_in=1000&exp=1790000000000000";
    let keys = Keys::seeded(1);
    let good = cited_genesis(&keys, head, under, &[(Some(tool), cap)]);
    assert!(State::open(&good, START_US).is_ok());
    let with = |change: &dyn Fn(&mut Genesis)| {
        let mut genesis = good.clone();
        change(&mut genesis);
        denied(&genesis)
    };
    assert_eq!(with(&|genesis| genesis.open.under = None), "open.under");
    assert_eq!(with(&|genesis| genesis.open.body = Bytes(vec![0x80])), "open.body");
    assert_eq!(with(&|genesis| genesis.open.body.0.push(0xc0)), "open.body");
    assert_eq!(with(&|genesis| genesis.grants[0].cap.limits.amounts[0] = Some(4)), "open.body");
    assert_eq!(with(&|genesis| genesis.grants[0].subject = PrincipalId([9; 32])), "grants");
    assert_eq!(with(&|genesis| genesis.grants.clear()), "open.body");
    assert_eq!(with(&|genesis| genesis.system = None), "open.body");
    assert_eq!(with(&|genesis| genesis.class = 1), "system");
    // New authority is signed, by an operator key of the opener, for that system session.
    let minted = cited_genesis(&keys, head, under, &[(None, cap)]);
    assert!(State::open(&minted, START_US).is_ok());
    let with = |change: &dyn Fn(&mut Genesis)| {
        let mut genesis = minted.clone();
        change(&mut genesis);
        denied(&genesis)
    };
    assert_eq!(with(&|genesis| genesis.open.signed = None), "open.signed");
    assert_eq!(with(&|genesis| genesis.open.signed = Some(Bytes(vec![1; 200]))), "open.signed");
    let flip = |genesis: &mut Genesis| genesis.open.signed.as_mut().expect("signed").0[50] ^= 1;
    assert_eq!(with(&flip), "open.signed");
    assert_eq!(with(&|genesis| genesis.system.as_mut().expect("cited").session = SessionId([1; 32])), "open.signed");
    assert_eq!(with(&|genesis| genesis.principals[0].keys.clear()), "open.signed");
    // Without a system session nothing is asked, and nothing is cited.
    let alone = genesis(&keys, &[cap], 64);
    assert!(State::open(&alone, START_US).is_ok());
    let mut listed_twice = system_genesis(&keys, &[cap], 64);
    let key = listed_twice.principals[0].keys[0];
    listed_twice.principals[1].keys.push(key);
    assert_eq!(denied(&listed_twice), "keys");
}

#[test]
fn a_bound_tool_cites_its_registration_and_is_refused_once_unbound() {
    let mut system = system();
    let head = system.head_ref();
    let keys = Keys::seeded(1);
    let roots = [(Some(system.root(2)), TOOL), (Some(system.root(1)), FS)];
    let mut work = Session::begin(Keys::seeded(1), cited_genesis(&keys, head, system.root(0), &roots));
    system.commit_state();
    let bind = |work: &mut Session, cite, replaces| {
        let text = work.blob(b"spec");
        let binding = Binding { tool: reader(), cite, replaces };
        work.ask(PrincipalId::NODE, Ask::BindTool(BindAsked { tools: vec![binding] }), vec![text])
    };
    assert_eq!(code(&bind(&mut work, None, None)), 101);
    let mut elsewhere = head;
    elsewhere.session = work.id();
    assert_eq!(code(&bind(&mut work, Some(elsewhere), None)), 101);
    assert_eq!(bind(&mut work, Some(head), None).name(), "ToolBound");
    let (opener, tool, fs) = (work.opener(), work.root(0), work.root(1));
    assert_eq!(work.call(opener, "project:a", tool, &[fs]).name(), "CallAdmitted");
    let running = CallId(work.made(0));
    let unbind = |digest, why, cite| Ask::UnbindTool(UnbindAsked { name: "reader".to_owned(), digest, why, cite });
    assert_eq!(code(&work.ask(PrincipalId::NODE, unbind(Digest([1; 32]), 1, head), vec![])), 402);
    assert_eq!(code(&work.ask(PrincipalId::NODE, unbind(reader().digest, 1, elsewhere), vec![])), 101);
    for (why, wanted) in [(4, 408), (1, 409), (2, 409), (3, 409), (5, 409)] {
        let event = work.ask(PrincipalId::NODE, unbind(reader().digest, why, head), vec![]);
        assert_eq!(event.name(), "ToolUnbound");
        assert_eq!(code(&work.ask(PrincipalId::NODE, unbind(reader().digest, why, head), vec![])), 206, "once");
        assert_eq!(code(&work.call(opener, "project:a", tool, &[fs])), wanted);
        assert_eq!(bind(&mut work, Some(head), Some(reader().digest)).name(), "ToolBound", "approved again");
        assert_eq!(work.call(opener, "project:a", tool, &[fs]).name(), "CallAdmitted");
    }
    assert_eq!(work.finish(running, b"x").name(), "CallFinished", "what runs goes on");
    // Where there is no system session there is nothing to cite.
    let mut alone = Session::open(&[TOOL]);
    alone.bind(reader());
    assert_eq!(code(&alone.ask(PrincipalId::NODE, unbind(reader().digest, 1, head), vec![])), 101);
    assert_eq!(code(&system.ask(PrincipalId::NODE, unbind(reader().digest, 1, head), vec![])), 206, "no work session");
}

fn finish(session: &mut Session, by: PrincipalId, call: CallId, kind: u8) -> Event {
    let outcome = Outcome { kind, detail: 0, number: None, symbol: None };
    session.ask(by, Ask::Report(Box::new(ReportAsked { outcome, actual: vec![], ..report(call) })), vec![])
}

/// A session with a tool of this effect class, and an agent with a child, both of which may call it.
fn pair(effect: Effect) -> (Session, [PrincipalId; 2], [[GrantId; 2]; 2]) {
    let mut session = Session::open(&[ADMIN, FS, TOOL, AGENT]);
    let mut tool = reader();
    tool.effect = effect.number();
    session.bind(tool);
    let (opener, fs, tools, agents) = (session.opener(), session.root(1), session.root(2), session.root(3));
    let given = [(tools, "tool:reader?depth=1"), (fs, "fs:project/**#read?depth=1"), (agents, "agent:*?depth=1")];
    let upper = session.agent(opener, "a", agents, &given);
    let made =
        |session: &Session, ordinal| GrantId(toka_kernel::ids::derived(session.id(), session.head.seq - 1, ordinal));
    let [tool, fs, agents] = [1, 2, 3].map(|ordinal| made(&session, ordinal));
    let lower = session.agent(upper, "b", agents, &[(tool, "tool:reader"), (fs, "fs:project/**#read")]);
    let below = [1, 2].map(|ordinal| made(&session, ordinal));
    (session, [upper, lower], [[tool, fs], below])
}

#[test]
fn an_agent_waits_while_nobody_knows_what_it_did() {
    let (mut session, [upper, lower], [of_upper, of_lower]) = pair(Effect::Once);
    let opener = session.opener();
    assert_eq!(session.call(upper, "project:a", of_upper[0], &[of_upper[1]]).name(), "CallAdmitted");
    let call = CallId(session.made(0));
    let resolve = |call, verdict| Ask::ResolveOutcome(ResolveAsked { call, verdict, evidence: None });
    assert_eq!(code(&unsigned(&mut session, resolve(call, 1), vec![])), 206, "it runs");
    assert_eq!(finish(&mut session, PrincipalId::NODE, call, 11).name(), "CallFinished");
    assert!(session.effects.is_empty(), "nobody drives an agent that waits");
    assert!(session.state.is_in_doubt(call));
    // Neither it nor what it made goes on, nor does it end itself; a person does both.
    assert_eq!(code(&session.call(upper, "project:a", of_upper[0], &[of_upper[1]])), 207);
    assert_eq!(code(&session.call(lower, "project:a", of_lower[0], &[of_lower[1]])), 207);
    let end = |agent, how, code| Ask::EndAgent(EndAsked { agent, how, code });
    assert_eq!(code(&session.ask(lower, end(lower, 2, 1), vec![])), 207);
    assert_eq!(session.ask(PrincipalId::NODE, end(lower, 2, 1), vec![]).name(), "AgentEnded");
    // The call stays until somebody has settled it, whatever is committed.
    session.commit_state();
    session.commit_state();
    session.commit_state();
    assert_eq!(code(&session.ask(opener, resolve(call, 1), vec![])), 312);
    assert_eq!(code(&unsigned(&mut session, resolve(call, 4), vec![])), 101);
    let event = unsigned(&mut session, resolve(call, 2), vec![]);
    assert_eq!((event.name(), event.causes.len()), ("OutcomeResolved", 1));
    assert_eq!(session.effects.len(), 1, "it is driven on");
    assert_eq!(code(&unsigned(&mut session, resolve(call, 2), vec![])), 206, "once");
    assert_eq!(session.call(upper, "project:a", of_upper[0], &[of_upper[1]]).name(), "CallAdmitted");
    session.commit_state();
    session.commit_state();
    assert_eq!(code(&unsigned(&mut session, resolve(call, 2), vec![])), 701, "it has left");
}

#[test]
fn what_was_lost_is_in_doubt_only_where_it_must_not_run_twice() {
    for (effect, kind, doubt) in [
        (Effect::Read, 10, false),
        (Effect::Once, 10, true),
        (Effect::Read, 11, true),
        (Effect::Once, 2, false),
        (Effect::Reconcile, 10, true),
        (Effect::Reconcile, 1, false),
    ] {
        let (mut session, [upper, _], [of_upper, _]) = pair(effect);
        session.call(upper, "project:a", of_upper[0], &[of_upper[1]]);
        let call = CallId(session.made(0));
        assert_eq!(finish(&mut session, EXECUTOR, call, kind).name(), "CallFinished");
        assert_eq!(session.state.is_in_doubt(call), doubt, "{effect} {kind}");
    }
}

#[test]
fn a_sandbox_record_says_only_what_can_be() {
    let record = SandboxRecord {
        cut: 3,
        required: 2,
        level: 3,
        layers: 15,
        landlock_abi: 6,
        digest: Digest([1; 32]),
        jail: None,
        toolchain: None,
        started_us: 5,
        ended_us: 5,
        cpu_us: 0,
        rss_bytes: 0,
        pids_hit: 0,
        proxy_refused: 0,
    };
    type Change = fn(&mut SandboxRecord);
    let cases: [(&str, Change); 6] = [
        ("streams", |record| record.cut = 4),
        ("a native call has none", |record| record.level = 4),
        ("no such level", |record| record.required = 0),
        ("below what was required", |record| record.level = 1),
        ("it ends before it begins", |record| record.ended_us = 4),
        ("after the end of time", |record| record.ended_us = u64::MAX),
    ];
    let (mut session, [upper, _], [of_upper, _]) = pair(Effect::Read);
    session.call(upper, "project:a", of_upper[0], &[of_upper[1]]);
    let call = CallId(session.made(0));
    for (why, change) in cases {
        let mut wrong = record.clone();
        change(&mut wrong);
        let asked = ReportAsked { sandbox: Some(wrong), ..report(call) };
        assert_eq!(code(&session.ask(EXECUTOR, Ask::Report(Box::new(asked)), vec![])), 101, "{why}");
    }
    let asked = ReportAsked { sandbox: Some(record), ..report(call) };
    assert_eq!(session.ask(EXECUTOR, Ask::Report(Box::new(asked)), vec![]).name(), "CallFinished");
}

#[test]
fn an_administrative_grant_does_what_its_holder_could_not() {
    let (mut session, [upper, _], [of_upper, _]) = pair(Effect::Read);
    let opener = session.opener();
    let spawned = session.spawn(upper, "c", GrantId(toka_kernel::ids::derived(session.id(), 2, 3)), &[]);
    assert_eq!(spawned.name(), "AgentSpawned");
    let waiting = PrincipalId(session.made(0));
    let start = Ask::StartAgent(StartAsked { agent: waiting });
    assert_eq!(code(&session.ask(opener, start.clone(), vec![])), 312, "its parent starts it");
    assert_eq!(unsigned(&mut session, start, vec![]).name(), "AgentStarted");
    let revoke = Ask::Revoke(RevokeAsked { grant: of_upper[0], reason: None });
    let Body::GrantRevoked(revoked) = unsigned(&mut session, revoke, vec![]).body else { panic!("refused") };
    assert_eq!(revoked.standing, 4);
    // A right that nothing asks for is refused, and one that is not held is too.
    let (root, fs) = (session.root(0), session.root(1));
    let call = toka_tests::session::call("project:a", root, &[]);
    let blob = session.blob(b"{}");
    assert_eq!(code(&session.ask_under(opener, root, None, call, vec![blob])), 312);
    let end = Ask::CloseSession(toka_kernel::body::v1::CloseAsked { why: 1, reason: None });
    assert_eq!(code(&session.ask_under(opener, fs, None, end, vec![])), 312);
}

fn views(session: &Session) -> Views {
    let (mut views, mut state) = (Views::default(), State::new());
    for entry in &session.entries {
        let effects = state.apply(entry).expect("legal");
        views.fold(entry, &effects);
    }
    views
}

#[test]
fn the_views_know_the_tools_of_the_node_and_which_ones_are_no_longer_bound() {
    let [system, work] = crate::golden::system();
    let of_system = views(&system);
    let (name, tool) = of_system.catalogue.iter().next().expect("a tool");
    assert_eq!((name, tool.state, tool.registered_at), ("reader", ToolState::Quarantined, 2));
    assert_eq!(Some((tool.state, tool.digest)), system.state.registered("reader"));
    assert!(tool.changed_at > tool.registered_at && tool.file == Digest([0x62; 32]));
    assert!(of_system.registry.iter().next().is_none());
    let of_work = views(&work);
    assert!(of_work.catalogue.iter().next().is_none());
    let bound = of_work.registry.get("reader").expect("a tool");
    assert!(bound.unbound_at.is_some_and(|at| at > bound.bound_at));
    let words = |views: &Views| views.timeline.iter().map(|moment| moment.what.clone()).collect::<Vec<_>>();
    for said in [
        "sandbox levels here: strong, landlock; Linux 6.12",
        "tool reader quarantined: drift",
        "human added with 1 keys",
    ] {
        assert!(words(&of_system).iter().any(|what| what == said), "{said}: {:#?}", words(&of_system));
    }
    for said in
        ["reader unknown", "reader resolved: done", "tool reader unbound: drift", "observed: toolchain changed, 1"]
    {
        assert!(words(&of_work).iter().any(|what| what == said), "{said}: {:#?}", words(&of_work));
    }
}
