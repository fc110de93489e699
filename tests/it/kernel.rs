//! The kernel from end to end, on a session driven by hand.

use toka_kernel::ids::CallId;
use toka_kernel::{Body, Code, Effect, Head, State};
use toka_tests::session::Session;

const FS: &str = "fs:project/**#list,read?depth=2&exp=1800000000000000";
const TOOL: &str = "tool:reader?depth=2&calls=50&exp=1800000000000000";
const AGENT: &str = "agent:auditor?depth=2&live=4&exp=1800000000000000";

fn session() -> Session {
    let mut session = Session::open(&[FS, TOOL, AGENT]);
    session.bind(toka_tests::session::reader());
    session
}

#[test]
fn a_session_runs_from_its_genesis_to_its_end_and_replays_to_the_same_state() {
    let mut session = session();
    let opener = session.opener();
    let (fs, tool, agents) = (session.root(0), session.root(1), session.root(2));
    let agent = session.agent(opener, "auditor", agents, &[(fs, "fs:project/docs/**#read"), (tool, "tool:reader")]);
    let spawned = session.entries.len() as u64 - 2;
    let child = |ordinal| toka_kernel::ids::GrantId(toka_kernel::ids::derived(session.id(), spawned, ordinal));
    let (docs, reader) = (child(1), child(2));

    let event = session.call(agent, "project:docs/a.md", reader, &[docs]);
    assert_eq!(event.name(), "CallAdmitted", "{event:?}");
    let Some(Effect::Start(call)) = session.effects.first().cloned() else { panic!("no start") };
    assert_eq!(call.envelope().len(), 2);
    assert_eq!(session.finish(call.id(), b"text").name(), "CallFinished");

    let refused = session.call(agent, "project:secret.txt", reader, &[docs]);
    let Body::Refused(refused, _) = &refused.body else { panic!("{refused:?}") };
    assert_eq!(refused.code, Code::OutOfScope.number());
    assert_eq!(refused.need.as_deref(), Some("fs:project/secret.txt#read"));

    assert_eq!(session.end(agent).name(), "AgentEnded");
    assert_eq!(session.close().name(), "SessionClosed");

    let mut head = Head::none();
    let mut state = State::new();
    for entry in &session.entries {
        head = head.accept(entry, &session.keyring).expect("accepted");
        let _ = state.apply(entry).expect("legal");
    }
    assert_eq!(head, session.head);
    assert_eq!(state.digest(), session.state.digest());
    assert_eq!(state.rows(), session.state.rows());
}

#[test]
fn a_call_can_be_finished_once() {
    let mut session = session();
    let (fs, tool) = (session.root(0), session.root(1));
    let opener = session.opener();
    session.call(opener, "project:a", tool, &[fs]);
    let call = CallId(session.made(0));
    session.finish(call, b"1");
    let Body::Refused(refused, _) = session.finish(call, b"2").body else { panic!("finished twice") };
    assert_eq!(refused.code, Code::AlreadyFinished.number());
}
