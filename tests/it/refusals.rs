//! The attacks and bad inputs of the design that the kernel answers, row by row, each with its exact refusal.

use toka_kernel::body::v1::{
    CallAsked, EndAsked, GrantTo, IssueAsked, Outcome, Refused, ReportAsked, RevokeAsked, StartAsked,
};
use toka_kernel::ids::{AgentId, CallId, GrantId, PrincipalId};
use toka_kernel::tool::{Need, Reserve};
use toka_kernel::{Ask, Body, Dim, Event};
use toka_tests::session::{EXECUTOR, NEVER_US, Session, call, reader, report};

const ROOTS: [&str; 4] = [
    "fs:project/**#delete,delete-self,list,read,write?depth=3&bytes_in=4096&rate=9/1000&nbf=1000&exp=1800000000000000&gate=two-people",
    "tool:reader?depth=3&digest=0707070707070707070707070707070707070707070707070707070707070707&arg./path=path:project/docs/**&closed&calls=9&exp=1800000000000000",
    "agent:audit.*?depth=3&live=2&exp=1800000000000000",
    "tool:*?exp=1800000000000000",
];

fn session() -> Session {
    let mut session = Session::open(&ROOTS);
    session.bind(reader());
    session
}

fn grant(session: &mut Session, by: PrincipalId, parent: GrantId, cap: &str, to: PrincipalId) -> Event {
    let grant = GrantTo { parent: Some(parent), cap: cap.to_owned(), to };
    session.ask(by, Ask::Grant(IssueAsked { grant }), Vec::new())
}

fn refused(event: &Event) -> &Refused {
    let Body::Refused(refused, _) = &event.body else { panic!("not refused: {event:?}") };
    refused
}

fn code(event: &Event) -> u16 {
    refused(event).code
}

#[test]
fn a_child_wider_in_one_row_is_refused_with_that_dimension() {
    let fs = |rest: &str| format!("fs:project/docs/**#read?{rest}&gate=two-people");
    let cases = [
        (0, "tool:*".to_owned(), Dim::Kind),
        (0, "fs:other/**#read?gate=two-people".to_owned(), Dim::Root),
        (0, "fs:project/docs/**#create?gate=two-people".to_owned(), Dim::Ops),
        (0, fs("bytes_in=4097"), Dim::BytesIn),
        (0, fs("rate=10/1000"), Dim::Rate),
        (0, fs("rate=9/999"), Dim::Rate),
        (0, fs("nbf=999"), Dim::Time),
        (0, fs("exp=1800000000000001"), Dim::Time),
        (0, "fs:project/docs/**#read".to_owned(), Dim::Gates),
        (0, fs("depth=3"), Dim::Depth),
        (1, "tool:*".to_owned(), Dim::Name),
        (1, "tool:reader".to_owned(), Dim::Digest),
        (1, format!("tool:reader?digest={}", "07".repeat(32)), Dim::Args),
        (1, format!("tool:reader?digest={}&arg./path=path:project/**&closed", "07".repeat(32)), Dim::Args),
        (1, format!("tool:reader?digest={}&arg./path=path:project/docs/a", "07".repeat(32)), Dim::Closed),
        (
            1,
            format!("tool:reader?digest={}&arg./path=path:project/docs/a&arg./n=1&closed", "07".repeat(32)),
            Dim::Closed,
        ),
        (
            1,
            format!("tool:reader?digest={}&arg./path=path:project/docs/a&closed&calls=10", "07".repeat(32)),
            Dim::Calls,
        ),
        (2, "agent:*".to_owned(), Dim::Name),
        (2, "agent:audit.links?live=3".to_owned(), Dim::Live),
    ];
    let mut session = session();
    let opener = session.opener();
    for (root, cap, dim) in cases {
        let parent = session.root(root);
        let event = grant(&mut session, opener, parent, &cap, opener);
        let refused = refused(&event);
        assert_eq!((refused.code, refused.dim), (311, Some(dim.number())), "{cap}");
        assert_eq!(refused.failed_at, Some(parent));
        assert!(refused.need.is_some());
    }
    // `path` needs a parent with a narrower one.
    let parent = session.root(0);
    grant(&mut session, opener, parent, "fs:project/docs/**#read?depth=1&gate=two-people", opener);
    let docs = GrantId(session.made(0));
    let event = grant(&mut session, opener, docs, "fs:project/**#read?gate=two-people", opener);
    assert_eq!((code(&event), refused(&event).dim), (311, Some(Dim::Path.number())));
}

#[test]
fn a_limit_that_a_child_omits_is_its_parents() {
    let mut session = session();
    let (opener, parent) = (session.opener(), session.root(0));
    let event = grant(&mut session, opener, parent, "fs:project/a/**#read?gate=two-people", opener);
    let Body::GrantIssued(issued) = event.body else { panic!("{event:?}") };
    assert_eq!(
        issued.grant.cap.to_string(),
        "fs:project/a/**#read?bytes_in=4096&rate=9/1000&nbf=1000&exp=1800000000000000&gate=two-people"
    );
}

#[test]
fn delegation_ends_at_depth_0_and_at_a_wrong_parent() {
    let mut session = session();
    let (opener, root) = (session.opener(), session.root(2));
    let mut parent = root;
    for depth in [2, 1, 0] {
        grant(&mut session, opener, parent, &format!("agent:audit.*?depth={depth}"), opener);
        parent = GrantId(session.made(0));
    }
    let event = grant(&mut session, opener, parent, "agent:audit.*", opener);
    assert_eq!((code(&event), refused(&event).failed_at), (309, Some(parent)));
    let own = GrantId(toka_kernel::ids::derived(session.id(), session.head.seq + 1, 0));
    assert_eq!(code(&grant(&mut session, opener, own, "agent:audit.*", opener)), 308);
    let elsewhere = GrantId([9; 32]);
    assert_eq!(code(&grant(&mut session, opener, elsewhere, "agent:audit.*", opener)), 308);
    let asked = IssueAsked { grant: GrantTo { parent: None, cap: "agent:*".to_owned(), to: opener } };
    let event = session.ask(opener, Ask::Grant(asked), Vec::new());
    assert_eq!((code(&event), refused(&event).need.as_deref()), (120, Some("admin:#grant-root")));
}

#[test]
fn what_is_conveyed_is_not_used_and_does_not_come_back() {
    let mut session = Session::open(&[
        "tool:reader?use=convey&depth=3&exp=1800000000000000",
        "fs:project/**#read?exp=1800000000000000",
        "agent:*?depth=1&exp=1800000000000000",
    ]);
    session.bind(reader());
    let opener = session.opener();
    let (convey, fs, agents) = (session.root(0), session.root(1), session.root(2));
    let event = session.call(opener, "project:a", convey, &[fs]);
    assert_eq!((code(&event), refused(&event).failed_at), (303, Some(convey)));
    assert_eq!(code(&grant(&mut session, opener, convey, "tool:reader", opener)), 310);
    let agent = session.agent(opener, "a", agents, &[(convey, "tool:reader?depth=1")]);
    let childs = GrantId(toka_kernel::ids::derived(session.id(), session.head.seq - 1, 1));
    let event = grant(&mut session, agent, childs, "tool:reader", opener);
    assert_eq!((code(&event), refused(&event).failed_at), (310, Some(childs)));
}

/// Two generations of agents, each with a grant for the tool and one for files below the one before.
fn family() -> (Session, [AgentId; 2], [[GrantId; 2]; 3]) {
    let mut session = Session::open(&[
        "tool:reader?depth=5&calls=9&exp=1800000000000000",
        "fs:project/**#read?depth=5&exp=1800000000000000",
        "agent:*?depth=5&exp=1800000000000000",
    ]);
    session.bind(reader());
    let opener = session.opener();
    let mut held = [session.root(0), session.root(1), session.root(2)];
    let mut all = vec![[held[0], held[1]]];
    let mut agents = Vec::new();
    let mut by = opener;
    for depth in [2, 1] {
        let caps = [
            format!("tool:reader?depth={depth}"),
            format!("fs:project/**#read?depth={depth}"),
            format!("agent:*?depth={depth}"),
        ];
        let given: Vec<(GrantId, &str)> = held.into_iter().zip(caps.iter().map(String::as_str)).collect();
        by = session.agent(by, "a", held[2], &given);
        agents.push(by);
        held = [1, 2, 3].map(|ordinal| GrantId(toka_kernel::ids::derived(session.id(), session.head.seq - 1, ordinal)));
        all.push([held[0], held[1]]);
    }
    (session, [agents[0], agents[1]], [all[0], all[1], all[2]])
}

#[test]
fn a_child_dies_with_its_grandparent_and_with_a_holder_above() {
    let (mut session, [_, lower], grants) = family();
    let opener = session.opener();
    let revoke = RevokeAsked { grant: grants[0][0], reason: None };
    session.ask(opener, Ask::Revoke(revoke.clone()), Vec::new());
    let event = session.call(lower, "project:a", grants[2][0], &[grants[2][1]]);
    assert_eq!((code(&event), refused(&event).failed_at), (304, Some(grants[0][0])));
    let again = session.ask(opener, Ask::Revoke(revoke), Vec::new());
    let Body::GrantRevoked(revoked) = again.body else { panic!("{again:?}") };
    assert!(revoked.already);

    let (mut session, [upper, lower], grants) = family();
    // The upper agent gives a file grant to the opener and ends; what it held is dead, and so is what came from it.
    session.end(lower);
    grant(&mut session, upper, grants[1][1], "fs:project/**#read", opener);
    let given = GrantId(session.made(0));
    session.end(upper);
    let event = session.call(opener, "project:a", grants[0][0], &[given]);
    assert_eq!((code(&event), refused(&event).failed_at), (307, Some(grants[1][1])));
    assert_eq!(refused(&event).item, Some(1));
}

#[test]
fn a_grant_is_used_and_handed_on_by_its_subject_alone() {
    let (mut session, [upper, lower], grants) = family();
    let event = session.call(lower, "project:a", grants[1][0], &[grants[2][1]]);
    assert_eq!((code(&event), refused(&event).failed_at, refused(&event).item), (302, Some(grants[1][0]), Some(0)));
    let event = session.call(lower, "project:a", grants[2][0], &[grants[1][1]]);
    assert_eq!((code(&event), refused(&event).item), (302, Some(1)));
    assert_eq!(code(&grant(&mut session, lower, grants[1][0], "tool:reader", upper)), 302);
}

#[test]
fn siblings_children_and_strangers_revoke_nothing() {
    let (mut session, [upper, lower], grants) = family();
    let opener = session.opener();
    let sibling = session.agent(opener, "b", session.root(2), &[]);
    for by in [sibling, lower] {
        let event = session.ask(by, Ask::Revoke(RevokeAsked { grant: grants[1][0], reason: None }), Vec::new());
        assert_eq!(code(&event), 313);
        assert_eq!(refused(&event).need.as_deref(), Some("admin:#revoke-any"));
    }
    let unknown = Ask::Revoke(RevokeAsked { grant: GrantId([9; 32]), reason: None });
    assert_eq!(code(&session.ask(opener, unknown, Vec::new())), 301);
    for (by, standing) in [(lower, 1), (upper, 2), (opener, 3)] {
        let event = session.ask(by, Ask::Revoke(RevokeAsked { grant: grants[2][0], reason: None }), Vec::new());
        let Body::GrantRevoked(revoked) = event.body else { panic!("{event:?}") };
        assert_eq!(revoked.standing, standing);
    }
}

#[test]
fn a_path_is_compared_by_whole_segments_and_never_tidied_up() {
    let mut session = Session::open(&["tool:reader?exp=1800000000000000", "fs:r/data/**#read?exp=1800000000000000"]);
    session.bind(reader());
    let (opener, tool, data) = (session.opener(), session.root(0), session.root(1));
    let cases = [
        ("r:database", 403),
        ("r:data-x", 403),
        ("r:data", 0),
        ("r:data/x", 0),
        ("r:data/", 103),
        ("r:Data/x", 403),
        ("r:data/../../etc", 103),
        ("r:./a", 103),
        ("r:data//b", 103),
        ("r:/data/x", 103),
        ("r:data/.", 103),
        ("r:data/%2e%2e", 0),
        ("r:data/a\\b", 103),
        ("r:data/a\0", 103),
        ("r:data/a\nb", 103),
        ("other:data/x", 403),
    ];
    for (path, wanted) in cases {
        let event = session.call(opener, path, tool, &[data]);
        if wanted == 0 {
            assert_eq!(event.name(), "CallAdmitted", "{path}");
        } else {
            assert_eq!(code(&event), wanted, "{path:?}");
        }
    }
}

#[test]
fn a_tool_is_asked_for_by_a_name_and_its_digest() {
    let mut session = session();
    let (opener, any) = (session.opener(), session.root(3));
    let named = |session: &mut Session, name: &str, digest| {
        let Ask::Call(mut asked) = call("project:docs/a", any, &[]) else { panic!("a call") };
        asked.tool = name.to_owned();
        asked.digest = digest;
        let blob = session.blob(b"{}");
        session.ask(opener, Ask::Call(asked), vec![blob])
    };
    for name in ["FS.read", "re\u{430}der", "reader ", "fs..read", "fs.*", ""] {
        assert_eq!(code(&named(&mut session, name, reader().digest)), 102, "{name:?}");
    }
    assert_eq!(code(&named(&mut session, "writer", reader().digest)), 401);
    assert_eq!(code(&named(&mut session, "reader", Default::default())), 402);
    // Nothing but the digest row of the order fails: the digest has changed since the grant was made.
    let mut old = Session::open(&[
        &format!("tool:reader?digest={}&exp=1800000000000000", "01".repeat(32)),
        "fs:p/**#read?exp=1800000000000000",
    ]);
    old.bind(reader());
    let event = old.call(old.opener(), "p:a", old.root(0), &[old.root(1)]);
    assert_eq!((code(&event), refused(&event).dim), (402, Some(Dim::Digest.number())));
}

#[test]
fn a_call_names_one_grant_per_need() {
    let (mut session, [_, lower], grants) = family();
    let [tool, fs] = grants[2];
    let event = session.call(lower, "project:a", tool, &[]);
    assert_eq!((code(&event), refused(&event).item), (405, Some(1)));
    assert_eq!(refused(&event).need.as_deref(), Some("fs:project/a#read"));
    let event = session.call(lower, "project:a", tool, &[fs, fs]);
    assert_eq!((code(&event), refused(&event).item), (405, Some(3)));
    let event = session.call(lower, "other:a", tool, &[fs]);
    assert_eq!((code(&event), refused(&event).dim, refused(&event).item), (403, Some(Dim::Root.number()), Some(1)));
    assert_eq!(refused(&event).need.as_deref(), Some("fs:other/a#read"));
    assert_eq!(refused(&event).failed_at, Some(fs));
}

fn tool_with(reserve: &[(Dim, u64)]) -> toka_kernel::tool::Tool {
    let reserve = reserve.iter().map(|(dim, base)| Reserve { dim: dim.number(), base: *base, per: 0, pointer: None });
    toka_kernel::tool::Tool { facts: Vec::new(), needs: Vec::<Need>::new(), reserve: reserve.collect(), ..reader() }
}

fn bare_call(session: &mut Session, grant: GrantId, asked: Vec<Option<u64>>, narrow: Option<&str>) -> Event {
    let Ask::Call(call) = call("", grant, &[]) else { panic!("a call") };
    let narrow = narrow.map(|text| Some(text.to_owned())).into_iter().collect();
    let blob = session.blob(b"{}");
    let call = CallAsked { facts: Vec::new(), asked, narrow, ..*call };
    session.ask(session.opener(), Ask::Call(Box::new(call)), vec![blob])
}

fn finish(session: &mut Session, by: PrincipalId, call: CallId, outcome: u8, actual: Vec<u64>) -> Event {
    let outcome = Outcome { kind: outcome, detail: 0, number: None, symbol: None };
    session.ask(by, Ask::Report(Box::new(ReportAsked { outcome, actual, ..report(call) })), Vec::new())
}

#[test]
fn the_second_of_two_reserves_of_everything_overflows() {
    let mut session = Session::open(&["tool:*?tokens=18446744073709551615&exp=1800000000000000"]);
    session.bind(tool_with(&[(Dim::Tokens, u64::MAX)]));
    let root = session.root(0);
    assert_eq!(bare_call(&mut session, root, vec![], None).name(), "CallAdmitted");
    let event = bare_call(&mut session, root, vec![], None);
    assert_eq!(
        (code(&event), refused(&event).failed_at, refused(&event).dim),
        (602, Some(root), Some(Dim::Tokens.number()))
    );
}

#[test]
fn an_overrun_is_charged_and_lets_nothing_more_pass() {
    let mut session = Session::open(&["tool:*?tokens=10&exp=1800000000000000"]);
    session.bind(tool_with(&[(Dim::Tokens, 10)]));
    let root = session.root(0);
    bare_call(&mut session, root, vec![], None);
    let call = CallId(session.made(0));
    let event = bare_call(&mut session, root, vec![None, None, None, Some(1)], None);
    let limit = refused(&event).limit.clone().expect("a limit");
    assert_eq!((code(&event), limit.limit, limit.spent, limit.reserved, limit.asked), (601, 10, 0, 10, 1));
    let event = finish(&mut session, EXECUTOR, call, 1, vec![1, 0, 0, 12]);
    let Body::CallFinished(finished) = event.body else { panic!("{event:?}") };
    assert_eq!((finished.charged, finished.overrun), (None, Some(vec![0, 0, 0, 2])));
    assert_eq!(code(&bare_call(&mut session, root, vec![None, None, None, Some(0)], None)), 603);
}

#[test]
fn what_was_reserved_and_not_used_comes_back_but_calls_and_rate_do_not() {
    let mut session = Session::open(&["tool:*?calls=2&tokens=10&rate=2/1000000000&exp=1800000000000000"]);
    session.bind(tool_with(&[(Dim::Tokens, 10)]));
    let root = session.root(0);
    for _ in 0..2 {
        assert_eq!(bare_call(&mut session, root, vec![], None).name(), "CallAdmitted");
        let call = CallId(session.made(0));
        assert_eq!(finish(&mut session, EXECUTOR, call, 2, vec![]).name(), "CallFinished");
    }
    let event = bare_call(&mut session, root, vec![], None);
    assert_eq!((code(&event), refused(&event).dim), (606, Some(Dim::Rate.number())));
    session.now_us = refused(&event).retry_at.expect("a time") - 1_001;
    assert_eq!(code(&bare_call(&mut session, root, vec![], None)), 606, "a microsecond too soon");
    let event = bare_call(&mut session, root, vec![], None);
    assert_eq!((code(&event), refused(&event).dim), (601, Some(Dim::Calls.number())));
}

#[test]
fn a_limited_dimension_needs_a_declared_worst_case() {
    let mut session = Session::open(&["tool:*?cost_micro=5&exp=1800000000000000", "tool:*?exp=1800000000000000"]);
    session.bind(tool_with(&[(Dim::Tokens, 10)]));
    let (limited, free) = (session.root(0), session.root(1));
    let event = bare_call(&mut session, limited, vec![], None);
    assert_eq!(
        (code(&event), refused(&event).failed_at, refused(&event).dim),
        (605, Some(limited), Some(Dim::CostMicro.number()))
    );
    let event = bare_call(&mut session, free, vec![], Some("tool:*?cost_micro=5"));
    assert_eq!((code(&event), refused(&event).dim), (404, Some(Dim::CostMicro.number())));
    let event = bare_call(&mut session, free, vec![None, None, None, Some(11)], None);
    assert_eq!((code(&event), refused(&event).dim), (105, Some(Dim::Tokens.number())));
    let event = bare_call(&mut session, free, vec![Some(0)], None);
    assert_eq!((code(&event), refused(&event).dim), (105, Some(Dim::Calls.number())));
}

#[test]
fn to_ask_for_nothing_is_to_be_capped_at_nothing() {
    let mut session = Session::open(&["tool:*?exp=1800000000000000"]);
    session.bind(tool_with(&[(Dim::Tokens, 10), (Dim::WallUs, 100)]));
    let root = session.root(0);
    bare_call(&mut session, root, vec![None, None, None, Some(0), None, Some(0)], None);
    let Some(toka_kernel::Effect::Start(call)) = session.effects.first() else { panic!("not started") };
    assert_eq!((call.reserve(Dim::Tokens), call.reserve(Dim::WallUs)), (Some(0), Some(0)));
    assert_eq!((call.reserve(Dim::CpuUs), call.reserve(Dim::Calls)), (None, Some(1)));
    assert_eq!(call.deadline(), session.now_us);
}

#[test]
fn a_call_is_settled_once_by_its_executor() {
    let mut session = Session::open(&["tool:*?tokens=10&exp=1800000000000000"]);
    session.bind(tool_with(&[(Dim::Tokens, 10)]));
    let (opener, root) = (session.opener(), session.root(0));
    bare_call(&mut session, root, vec![], None);
    let call = CallId(session.made(0));
    assert_eq!(code(&finish(&mut session, EXECUTOR, CallId([9; 32]), 1, vec![])), 701);
    assert_eq!(code(&finish(&mut session, PrincipalId::NODE, call, 1, vec![])), 703);
    assert_eq!(code(&finish(&mut session, opener, call, 1, vec![])), 205);
    assert_eq!(code(&finish(&mut session, EXECUTOR, call, 1, vec![0, 1])), 105, "no whole grain");
    assert_eq!(code(&finish(&mut session, EXECUTOR, call, 1, vec![1, 0])), 105, "a trailing zero");
    let event = finish(&mut session, PrincipalId::NODE, call, 10, vec![]);
    let Body::CallFinished(finished) = event.body else { panic!("{event:?}") };
    assert_eq!(finished.charged, Some(vec![0, 0, 0, 10]), "a lost call is charged in full");
    assert_eq!(code(&finish(&mut session, EXECUTOR, call, 1, vec![])), 702);
    session.commit_state();
    assert_eq!(code(&finish(&mut session, EXECUTOR, call, 1, vec![])), 702);
    session.commit_state();
    assert_eq!(code(&finish(&mut session, EXECUTOR, call, 1, vec![])), 701);
}

#[test]
fn a_grant_expires_at_its_time_and_a_rate_near_the_end_of_time_holds() {
    let mut session = Session::open(&[
        "tool:*?exp=1767225600100000",
        "tool:*?nbf=1767225600100000&exp=1800000000000000",
        "tool:*?rate=1/10000000000000000&exp=9007199254740991",
    ]);
    session.bind(tool_with(&[]));
    let roots = [0, 1, 2].map(|index| session.root(index));
    session.now_us = 1_767_225_600_098_999;
    assert_eq!(bare_call(&mut session, roots[0], vec![], None).name(), "CallAdmitted");
    session.now_us = 1_767_225_600_098_999;
    let early = bare_call(&mut session, roots[1], vec![], None);
    assert_eq!((code(&early), refused(&early).failed_at), (306, Some(roots[1])));
    session.now_us = 1_767_225_600_099_000;
    let event = bare_call(&mut session, roots[0], vec![], None);
    assert_eq!((code(&event), refused(&event).failed_at), (305, Some(roots[0])));
    assert_eq!(bare_call(&mut session, roots[1], vec![], None).name(), "CallAdmitted");
    session.now_us += 315_360_000_000_000;
    assert_eq!(code(&bare_call(&mut session, roots[1], vec![], None)), 305, "ten years on");
    session.now_us = NEVER_US - 3_000;
    assert_eq!(bare_call(&mut session, roots[2], vec![], None).name(), "CallAdmitted");
    let event = bare_call(&mut session, roots[2], vec![], None);
    assert_eq!((code(&event), refused(&event).retry_at), (606, Some(NEVER_US)));
}

#[test]
fn rates_and_amounts_out_of_bounds_are_no_capability() {
    let mut session = session();
    let (opener, parent) = (session.opener(), session.root(2));
    for (cap, wanted) in [
        ("agent:audit.a?rate=0/1", 101),
        ("agent:audit.a?rate=1/0", 101),
        ("agent:audit.a?rate=1000001/1", 101),
        ("agent:audit.a?rate=2/10000000000000000", 101),
        ("agent:audit.a?calls=-1", 105),
        ("agent:audit.a?calls=1.5", 105),
        ("agent:audit.a?calls=18446744073709551616", 105),
        ("agent:audit.a?exp=9007199254740992", 105),
        ("agent:Audit", 102),
        ("fs:project/../x#read", 103),
        ("agent:audit.a?depth=16", 105),
        ("", 101),
    ] {
        assert_eq!(code(&grant(&mut session, opener, parent, cap, opener)), wanted, "{cap}");
    }
}

#[test]
fn agents_start_and_end_as_the_table_says() {
    let (mut session, [upper, lower], _) = family();
    let opener = session.opener();
    let start = |agent| Ask::StartAgent(StartAsked { agent });
    let end = |agent, how, code| Ask::EndAgent(EndAsked { agent, how, code });
    assert_eq!(code(&session.ask(upper, start(lower), vec![])), 206, "running already");
    let event = session.ask(opener, start(lower), vec![]);
    assert_eq!((code(&event), refused(&event).need.as_deref()), (312, Some("admin:#pause")));
    assert_eq!(code(&session.ask(upper, end(upper, 1, 0), vec![])), 211, "a child is live");
    assert_eq!(code(&session.ask(upper, end(lower, 1, 0), vec![])), 205);
    assert_eq!(code(&session.ask(PrincipalId::NODE, end(lower, 1, 0), vec![])), 205);
    assert_eq!(code(&session.ask(lower, end(lower, 1, 3), vec![])), 101);
    assert_eq!(code(&session.ask(lower, end(lower, 2, 0), vec![])), 101);
    assert_eq!(code(&session.ask(PrincipalId::NODE, end(lower, 3, 0), vec![])), 206);
    assert_eq!(session.ask(PrincipalId::NODE, end(lower, 2, 16), vec![]).name(), "AgentEnded");
    assert_eq!(code(&session.ask(upper, start(lower), vec![])), 206, "ended for good");
    assert_eq!(code(&session.ask(lower, end(lower, 1, 0), vec![])), 204);
    let event = session.spawn(opener, "a", session.root(2), &[]);
    assert_eq!(event.name(), "AgentSpawned");
    let waiting = PrincipalId(session.made(0));
    assert_eq!(code(&session.ask(waiting, end(waiting, 1, 0), vec![])), 206, "not yet running");
    assert_eq!(code(&session.ask(waiting, end(waiting, 2, 15), vec![])), 206, "not yet running");
}

#[test]
fn an_agent_that_could_not_start_is_ended_by_the_node_and_frees_its_parent() {
    let (mut session, [upper, lower], grants) = family();
    session.end(lower);
    let agents = GrantId(toka_kernel::ids::derived(session.id(), 2, 3));
    assert_eq!(session.spawn(upper, "b", agents, &[(grants[1][0], "tool:reader")]).name(), "AgentSpawned");
    let waiting = PrincipalId(session.made(0));
    let end = |agent, how, code| Ask::EndAgent(EndAsked { agent, how, code });
    assert_eq!(code(&session.ask(upper, end(upper, 1, 0), vec![])), 211, "its child waits");
    assert_eq!(code(&session.ask(PrincipalId::NODE, end(waiting, 3, 0), vec![])), 206, "nothing stopped it");
    assert_eq!(session.ask(PrincipalId::NODE, end(waiting, 2, 15), vec![]).name(), "AgentEnded");
    assert_eq!(session.end(upper).name(), "AgentEnded");
    // What never ran does not make room for one more.
    let mut session = Session::open(&["agent:*?exp=1800000000000000"]);
    let (opener, root) = (session.opener(), session.root(0));
    for _ in 0..10 {
        session.agent(opener, "a", root, &[]);
    }
    session.spawn(opener, "a", root, &[]);
    let waiting = PrincipalId(session.made(0));
    let start = Ask::StartAgent(StartAsked { agent: waiting });
    assert_eq!(code(&session.ask(opener, start, vec![])), 608);
    session.ask(PrincipalId::NODE, end(waiting, 2, 15), vec![]);
    session.spawn(opener, "a", root, &[]);
    let next = PrincipalId(session.made(0));
    assert_eq!(code(&session.ask(opener, Ask::StartAgent(StartAsked { agent: next }), vec![])), 608);
}

#[test]
fn a_spawn_counts_live_agents_and_its_rate() {
    let mut session = Session::open(&[
        "agent:*?live=1&exp=1800000000000000",
        "agent:*?rate=1/1000000&exp=1800000000000000",
        "agent:x?live=0&exp=1800000000000000",
    ]);
    let (opener, one, rated, none) = (session.opener(), session.root(0), session.root(1), session.root(2));
    let agent = session.agent(opener, "x", one, &[]);
    let event = session.spawn(opener, "x", one, &[]);
    assert_eq!(
        (code(&event), refused(&event).failed_at, refused(&event).dim),
        (604, Some(one), Some(Dim::Live.number()))
    );
    session.end(agent);
    assert_eq!(session.spawn(opener, "x", one, &[]).name(), "AgentSpawned");
    assert_eq!(session.spawn(opener, "x", rated, &[]).name(), "AgentSpawned");
    let event = session.spawn(opener, "x", rated, &[]);
    assert_eq!((code(&event), refused(&event).failed_at), (606, Some(rated)));
    let event = session.spawn(opener, "x", none, &[]);
    assert_eq!((code(&event), refused(&event).dim), (403, Some(Dim::Live.number())));
    let event = session.spawn(opener, "x", one, &[(one, "agent:x")]);
    assert_eq!((code(&event), refused(&event).item), (604, None), "counts come before the grants");
}

#[test]
fn a_gate_is_asked_last() {
    let mut session =
        Session::open(&["agent:*?gate=approval&depth=1&exp=1800000000000000", "agent:*?exp=1800000000000000"]);
    let (opener, gated, flat) = (session.opener(), session.root(0), session.root(1));
    let event = session.spawn(opener, "x", gated, &[(flat, "agent:x")]);
    assert_eq!((code(&event), refused(&event).item), (309, Some(0)), "nobody is asked about a spawn that cannot be");
    let event = session.spawn(opener, "x", gated, &[]);
    assert_eq!((code(&event), refused(&event).rule.as_deref()), (502, Some("approval")));
}
