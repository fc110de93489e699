//! The largest of every command: whatever passes `Command::check` can be refused, and what is one larger does not pass.

use toka_kernel::body::v1::{
    AddPrincipalAsked, ApproveToolAsked, BindAsked, Binding, CallAsked, EndSessionAsked, GrantAmounts, GrantAsked,
    GrantTo, IssueAsked, Milestone, ProbeAsked, RegisterToolAsked, Retry, ScheduleAsked, SpawnAsked,
};
use toka_kernel::facts::Fact;
use toka_kernel::ids::{Bytes, CommandId, Commitment, Digest, GrantId, KeyId, PrincipalId, TaskId};
use toka_kernel::limits::{
    BODY_BYTES_MAX, CAPABILITY_BYTES_MAX, CAPABILITY_TEXT_BYTES_MAX, COMMAND_BYTES_MAX, REFUSAL_BYTES_MAX,
    SPAWN_GRANTS_BYTES_MAX,
};
use toka_kernel::tool::{FactDecl, Need};
use toka_kernel::{Ask, BlobRef, Body, Command, Entry, Event, Signed, Stamp, State, is_recordable};
use toka_tests::session::{Session, call, genesis, plan, reader};

const ROOTS: [&str; 3] = [
    "tool:*?depth=3&exp=1800000000000000",
    "agent:*?depth=3&exp=1800000000000000",
    "fs:project/**#read?depth=3&exp=1800000000000000",
];

fn session() -> Session {
    let mut session = Session::open(&ROOTS);
    session.bind(reader());
    session
}

fn command(ask: Ask, blobs: usize) -> Command {
    let blob = BlobRef { grains: 1, commitment: Commitment([1; 32]) };
    Command::new(CommandId([1; 16]), u64::MAX, ask, vec![blob; blobs])
}

/// The largest size at which `make` is a command. It is refused or not, but recorded, and read back as it was.
fn largest(session: &Session, by: PrincipalId, make: impl Fn(usize) -> Command) -> (usize, Event) {
    let (mut fits, mut fails) = (0, 100_000);
    assert!(make(fits).check().is_ok() && make(fails).check().is_err());
    while fails - fits > 1 {
        let middle = (fits + fails) / 2;
        if make(middle).check().is_ok() { fits = middle } else { fails = middle }
    }
    for size in [fits, fits - 1, fits - 2] {
        recorded(session, by, &make(size));
    }
    let beyond = session.state.decide(by, &make(fails), session.now_us);
    assert!(!is_recordable(&beyond));
    (fits, recorded(session, by, &make(fits)))
}

fn recorded(session: &Session, by: PrincipalId, command: &Command) -> Event {
    let event = session.state.decide(by, command, session.now_us);
    assert!(is_recordable(&event));
    let stamp = Stamp { time_us: session.now_us, clock_behind: false };
    let entry = Entry::seal(&session.head, by, stamp, event.clone(), &session.keys.writer());
    assert!(entry.body().len() <= BODY_BYTES_MAX, "{} bytes", entry.body().len());
    let read = Entry::read(entry.bytes()).expect("a frame");
    assert_eq!(read.event(), Ok(&event));
    assert!(session.state.clone().apply(&read).is_ok());
    event
}

fn code(event: &Event) -> u16 {
    match &event.body {
        Body::Refused(refused, _) => refused.code,
        _ => 0,
    }
}

fn spawn(session: &Session, grants: Vec<GrantAsked>) -> SpawnAsked {
    SpawnAsked {
        spec: "audit".to_owned(),
        text: 0,
        spec_digest: Digest([255; 32]),
        driver: u16::MAX,
        seed: Digest([255; 32]),
        grant: session.root(1),
        need_grants: Vec::new(),
        asked: Vec::new(),
        narrow: Vec::new(),
        grants,
        dropped: Vec::new(),
        plan: plan(),
    }
}

/// A tool capability whose text has this many bytes and no more when it is filled.
fn cap_of(len: usize) -> String {
    let mut text = "tool:reader?arg./a=\"".to_owned();
    let mut pointer = 0;
    while len - text.len() > 240 {
        text.push_str(&"x".repeat(200));
        pointer += 1;
        text.push_str(&format!("\"&arg./b{pointer:02}=\""));
    }
    let end = "\"&exp=1700000000000000";
    if len > text.len() + end.len() {
        text.push_str(&"x".repeat(len - text.len() - end.len()));
    }
    text + end
}

#[test]
fn sixty_four_grants_of_a_spawn_together_have_a_bound() {
    let session = session();
    let opener = session.opener();
    let (size, event) = largest(&session, opener, |size| {
        let grants = (0..64).map(|index| {
            let len = size / 64 + usize::from(index < size % 64);
            GrantAsked { parent: Some(session.root(0)), cap: "x".repeat(len) }
        });
        command(Ask::SpawnAgent(Box::new(spawn(&session, grants.collect()))), 1)
    });
    assert!(size > SPAWN_GRANTS_BYTES_MAX - 64 * 60, "{size}");
    assert_eq!(code(&event), 101, "an x is no capability");
}

#[test]
fn grants_that_are_too_long_once_filled_are_refused() {
    let session = session();
    let opener = session.opener();
    let of = |count: usize, len: usize| {
        let grant = GrantAsked { parent: Some(session.root(0)), cap: cap_of(len) };
        recorded(&session, opener, &command(Ask::SpawnAgent(Box::new(spawn(&session, vec![grant; count]))), 1))
    };
    // A filled grant has 127 bytes beside its text, and the list has 3.
    assert_eq!(code(&of(64, 640)), 0);
    assert_eq!(code(&of(64, 641)), 101);
    assert_eq!(code(&of(12, CAPABILITY_BYTES_MAX - 100)), 101);
    assert_eq!(code(&of(11, CAPABILITY_BYTES_MAX - 100)), 0);
}

#[test]
fn the_rest_of_a_spawn_is_bounded_like_any_command() {
    let session = session();
    let opener = session.opener();
    let with_grants = |count: usize| vec![GrantAsked { parent: Some(session.root(0)), cap: "y".repeat(700) }; count];
    let make = |grants: usize, size: usize| {
        let mut asked = spawn(&session, with_grants(grants));
        asked.dropped = (0..size / 1_000).map(|_| "z".repeat(1_000)).collect();
        asked.plan.milestones.push(Milestone { name: "z".repeat(size % 1_000), members: Vec::new() });
        command(Ask::SpawnAgent(Box::new(asked)), 1)
    };
    let (size, _) = largest(&session, opener, |size| make(0, size));
    assert!((COMMAND_BYTES_MAX - 600..COMMAND_BYTES_MAX).contains(&size), "{size}");
    let (size, _) = largest(&session, opener, |size| make(64, size));
    assert!(size + 64 * 700 < BODY_BYTES_MAX - REFUSAL_BYTES_MAX, "{size}");
}

#[test]
fn a_list_of_names_in_a_plan_has_at_most_64() {
    let session = session();
    let with = |members: usize| {
        let mut asked = spawn(&session, Vec::new());
        asked.plan.milestones.push(Milestone { name: String::new(), members: vec![String::new(); members] });
        command(Ask::SpawnAgent(Box::new(asked)), 1)
    };
    assert_eq!(code(&recorded(&session, session.opener(), &with(64))), 102);
    assert!(with(65).check().is_err());
}

#[test]
fn a_call_has_16_kib() {
    let session = session();
    let opener = session.opener();
    let (size, event) = largest(&session, opener, |size| {
        let Ask::Call(asked) = call("project:a", session.root(0), &[]) else { panic!("a call") };
        let fact = |index: usize| Fact {
            pointer: "/x".repeat(128),
            int: None,
            text: Some("y".repeat((size - (size.min(index * 256))).min(256))),
        };
        let facts = (0..size.div_ceil(256)).map(fact).collect();
        let need_grants = vec![GrantId([255; 32]); 32];
        command(Ask::Call(Box::new(CallAsked { facts, need_grants, ..*asked })), 1)
    });
    assert!(size > 6_000, "{size}");
    assert_eq!(code(&event), 101, "no such facts are declared");
}

#[test]
fn the_grant_a_call_would_need_is_named_as_far_as_there_is_room() {
    let mut session = session();
    let mut tool = reader();
    tool.name = "wide".to_owned();
    tool.facts = (0..32).map(|n| FactDecl { pointer: format!("/p{n:02}"), kind: 3 }).collect();
    tool.needs = Vec::<Need>::new();
    session.bind(tool);
    // Every character of the facts takes five in the text of the need.
    for (len, named) in [(40, true), (256, false)] {
        let Ask::Call(asked) = call("", session.root(2), &[]) else { panic!("a call") };
        let text = "\u{1}".repeat(len);
        let facts = (0..32).map(|n| Fact { pointer: format!("/p{n:02}"), int: None, text: Some(text.clone()) });
        let asked = CallAsked { tool: "wide".to_owned(), facts: facts.collect(), ..*asked };
        let event = recorded(&session, session.opener(), &command(Ask::Call(Box::new(asked)), 1));
        let Body::Refused(refused, _) = &event.body else { panic!("{event:?}") };
        assert_eq!((refused.code, refused.need.is_some()), (403, named));
    }
}

#[test]
fn a_narrowing_is_bounded_as_it_is_recorded() {
    let mut session = session();
    let mut tool = reader();
    (tool.facts, tool.needs) = (Vec::new(), Vec::new());
    tool.name = "bare".to_owned();
    session.bind(tool);
    let with = |narrow: String| {
        let Ask::Call(asked) = call("", session.root(0), &[]) else { panic!("a call") };
        let asked = CallAsked { tool: "bare".to_owned(), facts: Vec::new(), narrow: vec![Some(narrow)], ..*asked };
        command(Ask::Call(Box::new(asked)), 1)
    };
    let cap = |len: usize| {
        cap_of(len).replace("tool:reader", "tool:*").replace("exp=1700000000000000", "exp=1800000000000000")
    };
    let at_the_bound = cap(CAPABILITY_BYTES_MAX + 5);
    assert_eq!(at_the_bound.len(), CAPABILITY_BYTES_MAX);
    // The constraints are on arguments that the need does not have.
    assert_eq!(code(&recorded(&session, session.opener(), &with(at_the_bound))), 404);
    let event = recorded(&session, session.opener(), &with(cap(CAPABILITY_BYTES_MAX + 6)));
    assert_eq!(code(&event), 101);
    assert_eq!(code(&recorded(&session, session.opener(), &with(cap(CAPABILITY_TEXT_BYTES_MAX + 5)))), 101);
}

#[test]
fn twelve_tools_of_4_kib_are_bound_and_refused() {
    let session = session();
    let node = PrincipalId::NODE;
    let tools = |count: usize, size: usize| {
        let tool = |index: usize| {
            let mut tool = reader();
            tool.name = format!("t{index}");
            tool.text = u16::try_from(index).expect("few");
            let pad = |_| Need { text: format!("fs:project/{}#read", "x".repeat(250)), when: None };
            tool.needs = (0..size / 250).map(pad).collect();
            tool.needs.push(Need { text: format!("fs:project/a{}#read", "x".repeat(size % 250)), when: None });
            Binding { tool, cite: None, replaces: None }
        };
        Command::of_node(
            Ask::BindTool(BindAsked { tools: (0..count).map(tool).collect() }),
            command(Ask::CommitState(toka_kernel::body::v1::CommitAsked {}), count).blobs,
        )
    };
    let (size, event) = largest(&session, node, |size| tools(12, size));
    assert_eq!(event.name(), "ToolBound", "{size}");
    assert_eq!(code(&recorded(&session, session.opener(), &tools(12, size))), 205);
    assert!(tools(13, 0).check().is_err());
}

#[test]
fn a_grant_and_a_signature_have_bounds() {
    let session = session();
    let opener = session.opener();
    let grant = |size: usize| {
        let grant = GrantTo { parent: Some(session.root(0)), cap: "x".repeat(size), to: opener };
        command(Ask::Grant(IssueAsked { grant }), 0)
    };
    assert_eq!(largest(&session, opener, grant).0, CAPABILITY_TEXT_BYTES_MAX);
    let signed = |size: usize| {
        let mut command = grant(CAPABILITY_TEXT_BYTES_MAX);
        command.signed = Some(Bytes(vec![1; size]));
        command
    };
    assert_eq!(largest(&session, opener, signed).0, COMMAND_BYTES_MAX + 160);
}

#[test]
fn an_opening_has_16_kib_and_64_roots() {
    let system = Session::open_system(&["admin:#grant-root,open-session?exp=1800000000000000", ROOTS[0]]);
    let opener = system.opener();
    let opening = |count: usize, len: usize| {
        let roots: Vec<(Option<GrantId>, String)> = (0..count)
            .map(|_| (Some(system.root(1)), cap_of(len).replace("1700000000000000", "1790000000000000")))
            .collect();
        let roots: Vec<_> = roots.iter().map(|(from, cap)| (*from, cap.as_str())).collect();
        let asked = toka_tests::session::opening(&system.keys, toka_kernel::ids::SessionId([3; 32]), &roots);
        let mut command = command(Ask::OpenSession(Box::new(asked)), 0);
        command.under = Some(system.root(0));
        command
    };
    let (size, event) = largest(&system, opener, |size| opening(8, 60 + size / 8));
    assert!(size > 14_500, "{size}");
    assert_eq!(event.name(), "SessionRegistered", "{event:?}");
    assert_eq!(recorded(&system, opener, &opening(64, 180)).name(), "SessionRegistered");
    assert!(opening(65, 60).check().is_err());
    // Signed it is bounded as well.
    let mut signed = opening(3, 4_000);
    let signature = Signed::sign(system.id(), [1; 16], system.now_us + 1_000, &signed.ask, &[], &system.keys.operator);
    signed.signed = Some(signature.encode());
    assert_eq!(recorded(&system, opener, &signed).name(), "SessionRegistered");
}

#[test]
fn what_the_system_session_takes_is_bounded_by_its_lists() {
    let system = Session::open_system(&["admin:#members,register-tool?exp=1800000000000000"]);
    let (opener, under) = (system.opener(), system.root(0));
    let with = |ask: Ask, blobs: usize| {
        let mut command = command(ask, blobs);
        command.under = Some(under);
        command
    };
    let register = |size: usize| {
        let mut tool = reader();
        let pad = |_| Need { text: format!("fs:project/{}#read", "x".repeat(250)), when: None };
        tool.needs = (0..size / 250).map(pad).collect();
        tool.needs.push(Need { text: format!("fs:project/a{}#read", "x".repeat(size % 250)), when: None });
        with(Ask::RegisterTool(Box::new(RegisterToolAsked { tool, file: Digest([1; 32]), state: 1 })), 1)
    };
    assert_eq!(largest(&system, opener, register).1.name(), "ToolRegistered");
    let add = |count: usize| {
        let keys = vec![KeyId([1; 32]); count];
        with(Ask::AddPrincipal(AddPrincipalAsked { kind: 1, custody: 1, keys }), 0)
    };
    assert_eq!(largest(&system, opener, add).0, 16);
    let name = |size: usize| {
        let asked = ApproveToolAsked { name: "x".repeat(size), digest: Digest([1; 32]) };
        with(Ask::ApproveTool(asked), 0)
    };
    assert_eq!(largest(&system, opener, name).0, 1_024);
    let probe = |size: usize| {
        let kernel = "k".repeat(size);
        let asked = ProbeAsked { levels: 3, layers: u64::MAX, landlock_abi: 1, jail: Digest([1; 32]), kernel };
        Command::of_node(Ask::RecordProbe(asked), Vec::new())
    };
    assert_eq!(largest(&system, PrincipalId::NODE, probe).0, 64);
    let end = |count: usize| {
        let spent = GrantAmounts { grant: GrantId([1; 32]), amounts: vec![u64::MAX - 255; 7] };
        let session = toka_kernel::ids::SessionId([3; 32]);
        Command::of_node(
            Ask::EndSession(EndSessionAsked { session, how: 1, head: None, spent: vec![spent; count] }),
            vec![],
        )
    };
    assert_eq!(largest(&system, PrincipalId::NODE, end).0, 64);
}

#[test]
fn a_genesis_with_a_capability_too_long_for_a_body_is_denied() {
    let session = session();
    let mut opening = genesis(&session.keys, &ROOTS, 64);
    let long = cap_of(CAPABILITY_BYTES_MAX + 1).replace("exp=1700000000000000", "exp=1800000000000000");
    opening.grants[1].cap = toka_kernel::capability::Capability::parse(&long).expect("a capability");
    let denial = State::open(&opening, session.now_us).expect_err("denied");
    assert_eq!((denial.rule.as_deref(), denial.item), (Some("grants"), Some(1)));
}

#[test]
fn a_task_has_a_name_of_1_kib_and_requires_64() {
    let session = session();
    let opener = session.opener();
    let schedule = |name: usize, requires: usize| {
        let retry = Retry { max: 1, base: 0, cap: 0 };
        command(
            Ask::ScheduleTask(ScheduleAsked {
                agent: opener,
                name: "x".repeat(name),
                text: Some(0),
                requires: vec![TaskId([1; 32]); requires],
                priority: 1,
                timeout_us: 1_000_000,
                retry,
            }),
            1,
        )
    };
    assert_eq!(largest(&session, opener, |name| schedule(name, 64)).0, 1_024);
    assert_eq!(largest(&session, opener, |requires| schedule(1, requires)).0, 64);
}
