//! Sessions in the node's own session: registered before they are opened, signed by the operator, and ended.

use std::sync::Arc;

use serde_json::Value;
use toka_kernel::ids::{CallId, SessionId};
use toka_kernel::{Ask, Body, Entry, Event};
use toka_projections::Views;
use toka_runtime::Home;
use toka_runtime::agents::AgentSet;
use toka_runtime::clock::{GuardedClock, SystemClock};
use toka_runtime::engine::Parts;
use toka_runtime::executor::{Roots, native_tools};
use toka_runtime::random::OsRandom;
use toka_runtime::session::{Means, Node, Session, Watch, root_grants};
use toka_runtime::system::System;
use toka_store::{Log, ReadLog, SqliteLog, SqliteReader};

use super::{Desk, agents, transcript};

/// The events of a session, as the store has them.
fn events(desk: &Desk, session: &str) -> Vec<Event> {
    let store = SqliteReader::open(desk.at("home/toka.sqlite")).expect("a store");
    let id = store.sessions(None).map(|row| row.expect("a row").session).find(|id| id.to_string() == session);
    let rows = store.read(id.expect("the session is there"), 0);
    rows.map(|row| Entry::read(&row.expect("a row").bytes).expect("an entry").event().expect("an event").clone())
        .collect()
}

/// The node's own session.
fn system(desk: &Desk) -> String {
    let text = std::fs::read_to_string(desk.at("home/system.json")).expect("a node that has run something");
    let file: Value = serde_json::from_str(&text).expect("JSON");
    file["session"].as_str().expect("a session").to_owned()
}

fn names(events: &[Event]) -> Vec<&'static str> {
    events.iter().map(Event::name).filter(|name| *name != "ToolRegistered").collect()
}

#[test]
fn a_session_is_registered_signed_and_ended_in_the_session_of_the_node() {
    let (desk, session) = Desk::with_session();
    let known = events(&desk, &system(&desk));
    assert_eq!(names(&known), ["SessionOpened", "SessionRegistered", "SessionEnded"]);
    let own = events(&desk, &session);
    let Body::SessionOpened(genesis) = &own[0].body else { panic!("{:?}", own[0]) };
    assert_eq!(genesis.system.map(|cite| cite.session.to_string()), Some(system(&desk)));
    assert!(genesis.open.signed.is_some(), "its roots are new authority");
    for (event, own_id) in known.iter().filter_map(|event| match &event.body {
        Body::SessionRegistered(registered) => Some((event, registered.session)),
        _ => None,
    }) {
        assert_eq!(own_id.to_string(), session);
        let command = event.command().expect("asked");
        assert!(command.signed.is_some() && matches!(command.ask, Ask::OpenSession(_)), "{command:?}");
    }
    let Some(Body::SessionEnded(ended)) = known.last().map(|event| &event.body) else { panic!("{known:?}") };
    let last = u64::try_from(own.len()).expect("short") - 1;
    assert_eq!((ended.how, ended.head.as_ref().map(|head| head.seq)), (1, Some(last)));
    let bound = own.iter().find_map(|event| match &event.body {
        Body::ToolBound(bound) => Some(bound),
        _ => None,
    });
    let cited = bound.expect("tools").tools.iter().map(|binding| binding.cite.expect("cited"));
    for cite in cited {
        let seq = usize::try_from(cite.seq).expect("short");
        assert_eq!(known[seq].name(), "ToolRegistered", "the node registered its own tools");
    }
    // The rest of the store is checked with it: what one session says of the other holds.
    let verdict = desk.toka(&["replay", "verify", "--session", &session, "--root", "home/keys/root.pub", "--json"]);
    verdict.expect(0);
    let verdict: Value = serde_json::from_str(&verdict.out).expect("JSON");
    assert_eq!(verdict["sessions"][0]["refs_unresolved"], 0, "{verdict}");
}

#[test]
fn a_sealed_key_opens_nothing_without_its_passphrase() {
    let desk = Desk::empty();
    desk.write("passphrase", "correct horse\n");
    desk.write("wrong", "battery staple\n");
    desk.write("project/docs/guide.md", "hello\n");
    desk.write("agent.yaml", agents::reader(agents::GUIDE));
    desk.toka(&["init", "--passphrase-file", "passphrase"]).expect(0);
    let run = ["run", "agent.yaml", "--root", "project=project", "--grant-requested", "--quiet"];
    transcript!(desk.toka(&run), @r"
    $ toka run agent.yaml --root project=project --grant-requested --quiet
    --- stderr
    error: the operator's key is sealed, and nobody can be asked for its passphrase
    hint: --passphrase-file FILE names a file that holds it
    --- exit 5
    ");
    let with = |file| [&run[..], &["--passphrase-file", file]].concat();
    assert_ne!(desk.toka(&with("wrong")).exit, Some(0));
    assert!(!desk.at("home/toka.sqlite").exists(), "nothing was opened");
    desk.toka(&with("passphrase")).expect(0);
}

#[test]
fn a_session_that_was_killed_is_ended_when_it_has_gone_on_to_its_end() {
    let (desk, session) = Desk::with_open_session();
    assert_eq!(names(&events(&desk, &system(&desk))), ["SessionOpened", "SessionRegistered"]);
    // Another session runs meanwhile, and the first is left open.
    let other = desk.session(&agents::reader(agents::GUIDE));
    desk.toka(&["run", "--resume", &session]).expect(0);
    let ended: Vec<String> = events(&desk, &system(&desk))
        .iter()
        .filter_map(|event| match &event.body {
            Body::SessionEnded(ended) => Some(ended.session.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(ended, [other, session]);
}

/// Opens a session as the program does, and stops before anything of the session itself is durable.
fn open_and_stop(desk: &Desk) -> SessionId {
    let home = Home::open(&desk.at("home")).expect("a home");
    let log: Arc<dyn Log> = Arc::new(SqliteLog::open(home.store_path()).expect("a store"));
    let node = Node {
        origin: home.origin().to_owned(),
        root_key: home.root().key().id(),
        key_grants: home.grant_records(),
        operator: home.operator_id(),
        build: "test".to_owned(),
    };
    let now_us = GuardedClock::new(Arc::new(SystemClock)).now_us().expect("a clock");
    let parts = || Parts {
        log: log.clone(),
        key: home.event_key(now_us).expect("a key"),
        clock: GuardedClock::new(Arc::new(SystemClock)),
        random: Box::new(OsRandom),
    };
    let known = home.system().expect("places").session.expect("a system session");
    let system = System::load(parts(), known, home.root().key(), &node).expect("loads");
    let set = AgentSet::load(&desk.at("agent.yaml")).expect("an agent file");
    let roots = root_grants(&set.top(), now_us).expect("roots");
    let means = Means {
        tools: native_tools(),
        launcher: None,
        roots: Roots::new(),
        threads: 1,
        watch: Arc::new(Nobody),
        system: Some(system),
    };
    let key = home.operator_key(None).expect("a key");
    let session = Session::open(parts(), &node, &set.top(), &roots, false, means, Some(&key)).expect("opens");
    session.id()
}

struct Nobody;

impl Watch for Nobody {
    fn entry(&self, _entry: &Entry, _views: &Views) {}

    fn started(&self, _call: CallId) {}
}

/// The registration is durable before the genesis. What a crash leaves between the two is said by who comes next.
#[test]
fn a_session_of_which_only_the_registration_is_left_was_never_opened() {
    let (desk, session) = Desk::with_session();
    let opened = open_and_stop(&desk);
    assert_ne!(opened.to_string(), session);
    desk.session(&agents::reader(agents::GUIDE));
    let known = events(&desk, &system(&desk));
    let lost = known.iter().find_map(|event| match &event.body {
        Body::SessionEnded(ended) if ended.session == opened => Some((ended.how, ended.head.is_none())),
        _ => None,
    });
    assert_eq!(lost, Some((2, true)), "never opened");
}
