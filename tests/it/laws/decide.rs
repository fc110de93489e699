//! Laws about `decide` alone, and about `apply` as its judge.

use std::sync::OnceLock;

use proptest::prelude::*;
use toka_kernel::body::v1::{
    AddPrincipalAsked, ApproveToolAsked, AttemptAsked, AttemptUsage, BindAsked, Binding, CallAsked, CancelAsked,
    CloseAsked, CommitAsked, CompleteTaskAsked, Deliverable, EndAsked, EndHead, EndSessionAsked, FailTaskAsked,
    GrantAmounts, GrantAsked, GrantTo, IssueAsked, Milestone, ObserveAsked, OpenSessionAsked, Outcome, PauseAsked,
    ProbeAsked, QuarantineToolAsked, RegisterToolAsked, ReportAsked, ResolveAsked, ResumeAsked, Retry, RevokeAsked,
    RootAsked, ScheduleAsked, SendAsked, SkipTaskAsked, SpawnAsked, StartAsked, StartTaskAsked, StopAsked, TakeAsked,
    Usage, Via,
};
use toka_kernel::facts::Fact;
use toka_kernel::ids::{
    Bytes, CallId, CommandId, Commitment, Digest, GrantId, KeyId, MessageId, PrincipalId, SessionId, TaskId,
};
use toka_kernel::limits::BODY_BYTES_MAX;
use toka_kernel::tool::{FactDecl, Need, Reserve, Tool};
use toka_kernel::{Ask, BlobRef, Body, Command, Entry, EntryRef, Event, Signed, Stamp, State, is_recordable};
use toka_tests::session::{plan, reader, report};

use super::bytes::{changed, sample, sample_of};
use super::{CASES, config};
use crate::model::world::{Rng, World};
use crate::msgpack::Value;

/// The states before each entry of a sample.
fn states(system: bool) -> &'static Vec<State> {
    static STATES: [OnceLock<Vec<State>>; 2] = [const { OnceLock::new() }; 2];
    STATES[usize::from(system)].get_or_init(|| {
        let (world, _) = sample_of(system);
        let mut state = State::new();
        let mut all = Vec::new();
        for entry in &world.entries {
            all.push(state.clone());
            let _ = state.apply(entry).expect("legal");
        }
        all
    })
}

proptest! {
    #![proptest_config(config(CASES))]

    /// Whatever is asked, `decide` gives one event and the same each time; and if that event may stand in a chain, it
    /// seals, reads back as it was and is legal.
    #[test]
    fn decide_total(system in any::<bool>(), seed in any::<u64>()) {
        let (world, _) = sample_of(system);
        let mut rng = Rng(seed);
        let (by, command) = wild(&mut rng, system);
        let at = *rng.of(&[world.now, world.now, world.now, 0, u64::MAX, (1 << 53) - 1, world.now + 1]);
        let event = world.state.decide(by, &command, at);
        prop_assert_eq!(&world.state.decide(by, &command, at), &event);
        if !is_recordable(&event) {
            let Body::Refused(refused, _) = &event.body else { panic!("only a refusal is not recorded: {event:?}") };
            prop_assert!(matches!(refused.code, 101 | 201 | 203 | 206));
            return Ok(());
        }
        prop_assert!(event.encode().len() <= BODY_BYTES_MAX);
        let entry = Entry::seal(&world.head, by, Stamp { time_us: at, clock_behind: false }, event.clone(), &world.writer);
        let read = Entry::read(entry.bytes()).expect("a frame");
        prop_assert_eq!(read.event(), Ok(&event));
        let mut state = world.state.clone();
        prop_assert!(state.apply(&read).is_ok());
    }

    /// A field that `decide` fills, a cause, or the order of the blobs cannot be changed and signed again.
    #[test]
    fn decide_apply_agree(system in any::<bool>(), entry in any::<prop::sample::Index>(), seed in any::<u64>()) {
        let (world, _) = sample_of(system);
        let index = 1 + entry.index(world.entries.len() - 1);
        let entry = &world.entries[index];
        let mut rng = Rng(seed);
        let mut header = entry.header().clone();
        let mut value = Value::read(entry.body());
        if rng.in_100(10) {
            match rng.below(4) {
                0 => header.causes.push(entry.header().seq - 1),
                1 if !header.causes.is_empty() => header.causes.clear(),
                2 if !header.blobs.is_empty() => { header.blobs.pop(); }
                _ => {
                    prop_assume!(!is_refused_call(entry.event().expect("an event")));
                    header.blobs.push(BlobRef { grains: 1, commitment: Commitment([1; 32]) });
                }
            }
        } else {
            let places = filled_by_decide(entry.event().expect("an event"));
            prop_assume!(!places.is_empty());
            let place = rng.of(&places).clone();
            let field = follow(&mut value, &place);
            let before = field.clone();
            *field = changed(&before, &mut rng);
            prop_assume!(*field != before);
        }
        let forged = Entry::forge(header, &value.write(), &world.writer);
        let mut state = states(system)[index].clone();
        prop_assert!(state.apply(&forged).is_err(), "{:?} became {:?}", entry.event(), forged.event());
        prop_assert_eq!(state.head(), states(system)[index].head());
    }
}

/// A refused call keeps all that it was asked with, pieces for a model among it, whatever the code: that is its asker's.
fn is_refused_call(event: &Event) -> bool {
    matches!(&event.body, Body::Refused(_, ask) if matches!(**ask, Ask::Call(_)))
}

/// The places of a body that `decide` fills, as the registry marks them.
fn filled_by_decide(event: &Event) -> Vec<Vec<&'static str>> {
    let names: &[&str] = match &event.body {
        Body::SessionOpened(_) | Body::SessionClosed(_) | Body::AgentStarted(_) | Body::AgentEnded(_) => &[],
        Body::AgentPaused(_) | Body::AgentResumed(_) | Body::AgentStopping(_) | Body::TaskScheduled(_) => &[],
        Body::TaskStarted(_) | Body::TaskCompleted(_) | Body::TaskSkipped(_) => &[],
        Body::MessageSent(_) | Body::MessageTaken(_) | Body::CallAttempted(_) | Body::CancelRequested(_) => &[],
        Body::TaskFailed(_) => &["nbf"],
        Body::ToolRegistered(_) | Body::ToolApproved(_) | Body::PrincipalAdded(_) => &[],
        Body::OutcomeResolved(_) | Body::Observed(_) => &[],
        Body::ToolBound(_)
        | Body::SessionEnded(_)
        | Body::ToolQuarantined(_)
        | Body::ToolUnbound(_)
        | Body::SandboxProbed(_) => &["cmd"],
        Body::SessionRegistered(_) => &["rsvd"],
        Body::StateCommitted(_) => &["cmd", "dig", "leaf", "upto"],
        Body::Refused(..) => &["code", "fail", "item", "dim", "need", "lim", "rtry", "appr", "rule", "fsq", "det"],
        Body::AgentSpawned(_) => &["par", "rsv", "grs.iss", "grs.sub", "grs.ans"],
        Body::GrantIssued(_) => &["grnt.iss", "grnt.ans"],
        Body::GrantRevoked(_) => &["std", "alr"],
        Body::CallAdmitted(_) => &["mod", "rsv", "dead", "rule", "par"],
        Body::CallFinished(_) => &["chg", "over", "late", "of"],
    };
    let has = |place: &&Vec<&str>| match &event.body {
        Body::AgentSpawned(body) => place[0] != "grs" || !body.grants.is_empty(),
        Body::SessionRegistered(body) => !body.reserved.is_empty(),
        _ => true,
    };
    names.iter().map(|name| name.split('.').collect()).collect::<Vec<Vec<_>>>().iter().filter(has).cloned().collect()
}

fn follow<'v>(value: &'v mut Value, place: &[&str]) -> &'v mut Value {
    let [first, rest @ ..] = place else { return value };
    let next = value.field_mut(first);
    let is_list = matches!(next, Value::Array(_)) && !rest.is_empty();
    if is_list {
        let Value::Array(items) = next else { unreachable!("just looked") };
        return follow(&mut items[0], rest);
    }
    follow(next, rest)
}

/// A command of any shape, by anybody; most are no good.
fn wild(rng: &mut Rng, system: bool) -> (PrincipalId, Command) {
    let (world, _) = sample_of(system);
    if rng.in_100(30) {
        return wild_of_system(rng, world);
    }
    if rng.in_100(40) {
        return wild_work(rng);
    }
    let by = if rng.in_100(10) { PrincipalId(id(rng)) } else { PrincipalId(*rng.of(&people())) };
    let ask = match rng.below(12) {
        0 => Ask::CommitState(CommitAsked {}),
        1 => Ask::CloseSession(CloseAsked { why: rng.next() as u8, reason: blob(rng) }),
        2 | 3 => Ask::SpawnAgent(Box::new(spawn(rng))),
        4 => Ask::StartAgent(StartAsked { agent: PrincipalId(id(rng)) }),
        5 => {
            Ask::EndAgent(EndAsked { agent: PrincipalId(id(rng)), how: rng.below(5) as u8, code: rng.below(20) as u16 })
        }
        6 => {
            let grant = GrantTo { parent: grant_id(rng), cap: cap(rng), to: PrincipalId(id(rng)) };
            Ask::Grant(IssueAsked { grant })
        }
        7 => Ask::Revoke(RevokeAsked { grant: GrantId(id(rng)), reason: blob(rng) }),
        8 => Ask::BindTool(BindAsked {
            tools: many(rng, 14, |rng| Binding { tool: tool(rng), cite: None, replaces: None }),
        }),
        9 | 10 => Ask::Call(Box::new(call(rng))),
        _ => Ask::Report(Box::new(reported(rng))),
    };
    let blobs = if rng.in_100(80) { wanted_blobs(&ask) } else { rng.below(70) };
    let blobs = (0..blobs).map(|index| BlobRef { grains: 1, commitment: Commitment([index as u8; 32]) }).collect();
    let as_of = *rng.of(&[0, world.head.seq, u64::MAX]);
    let mut command = Command::new(CommandId([rng.next() as u8; 16]), as_of, ask, blobs);
    if rng.in_100(5) {
        command.under = Some(GrantId(id(rng)));
    }
    if rng.in_100(3) {
        command.via = Some(Via { kid: KeyId([1; 32]), jti: Digest([2; 32]) });
    }
    if rng.in_100(3) {
        command.signed = Some(Bytes(vec![7; *rng.of(&[0, 100, 16_544, 16_545])]));
    }
    (by, command)
}

/// What agents do beside calling tools, by anybody, about anything.
fn wild_work(rng: &mut Rng) -> (PrincipalId, Command) {
    let by = PrincipalId(if rng.in_100(10) { id(rng) } else { *rng.of(&people()) });
    let (agent, task, call) = (PrincipalId(id(rng)), TaskId(id(rng)), CallId(id(rng)));
    let (why, attempt) = (rng.below(10) as u8, *rng.of(&[0, 1, 1, 2, u16::MAX]));
    let ask = match rng.below(12) {
        0 => Ask::PauseAgent(PauseAsked { agent, why, reason: blob(rng) }),
        1 => Ask::ResumeAgent(ResumeAsked { agent }),
        2 => Ask::StopAgent(StopAsked { agent, why, reason: blob(rng) }),
        3 => Ask::ScheduleTask(ScheduleAsked {
            agent,
            name: text(rng),
            text: blob(rng),
            requires: many(rng, 66, |rng| TaskId(id(rng))),
            priority: why,
            timeout_us: *rng.of(&[0, 1_000_000, 86_400_000_000, u64::MAX]),
            retry: Retry { max: *rng.of(&[0, 3, 255]), base: number(rng), cap: number(rng) },
        }),
        4 => Ask::StartTask(StartTaskAsked { task, attempt }),
        5 => Ask::CompleteTask(CompleteTaskAsked { task, attempt, result: blob(rng) }),
        6 => Ask::FailTask(FailTaskAsked { task, attempt, code: rng.below(20) as u16, retryable: rng.in_100(80) }),
        7 => Ask::SkipTask(SkipTaskAsked { task, why, because: rng.in_100(50).then(|| Digest(id(rng))) }),
        8 => Ask::SendMessage(SendAsked { to: agent, content: blob(rng).unwrap_or(0), reply_to: None }),
        9 => Ask::TakeMessage(TakeAsked { message: MessageId(id(rng)) }),
        10 => Ask::ReportAttempt(AttemptAsked {
            call,
            attempt,
            cause: why,
            status: *rng.of(&[0, 429, u16::MAX]),
            not_before: number(rng),
            usage: rng.in_100(30).then(|| AttemptUsage {
                tokens_in: number(rng),
                tokens_cached: number(rng),
                tokens_out: number(rng),
            }),
            part: blob(rng),
        }),
        _ => Ask::CancelCall(CancelAsked { call, why, reason: blob(rng) }),
    };
    let blobs = if rng.in_100(80) { wanted_blobs(&ask) } else { rng.below(70) };
    let grains = *rng.of(&[0, 1, 4_096, 4_097, u32::MAX]);
    let blobs = (0..blobs).map(|index| BlobRef { grains, commitment: Commitment([index as u8; 32]) }).collect();
    let mut command = Command::new(CommandId([rng.next() as u8; 16]), 0, ask, blobs);
    command.under = rng.in_100(30).then(|| grant_id(rng)).flatten();
    (by, command)
}

/// What the system session takes, signed or not, by anybody: what a session would be asked, with parts of it replaced.
fn wild_of_system(rng: &mut Rng, world: &World) -> (PrincipalId, Command) {
    let by = PrincipalId(*rng.of(&people()));
    let root = |rng: &mut Rng| RootAsked { from: grant_id(rng), cap: cap(rng) };
    let ask = match rng.below(10) {
        0 | 1 => Ask::OpenSession(Box::new(OpenSessionAsked {
            session: SessionId(id(rng)),
            opener: if rng.in_100(80) { by } else { PrincipalId(id(rng)) },
            roots: many(rng, 66, root),
        })),
        2 => Ask::EndSession(EndSessionAsked {
            session: world.model.listed.keys().next().copied().map_or(SessionId(id(rng)), SessionId),
            how: rng.below(4) as u8,
            head: rng.in_100(50).then(|| EndHead { seq: u64::MAX, hash: Default::default() }),
            spent: many(rng, 66, |rng| GrantAmounts {
                grant: grant_id(rng).unwrap_or_default(),
                amounts: many(rng, 9, number),
            }),
        }),
        3 => Ask::RegisterTool(Box::new(RegisterToolAsked {
            tool: tool(rng),
            file: Digest(id(rng)),
            state: rng.below(6) as u8,
        })),
        4 => Ask::ApproveTool(ApproveToolAsked { name: text(rng), digest: Digest(id(rng)) }),
        5 => Ask::QuarantineTool(QuarantineToolAsked {
            name: text(rng),
            digest: Digest(id(rng)),
            why: rng.next() as u8,
            seen: None,
        }),
        6 => Ask::AddPrincipal(AddPrincipalAsked {
            kind: rng.below(7) as u8,
            custody: rng.below(4) as u8,
            keys: many(rng, 18, |rng| KeyId(id(rng))),
        }),
        7 => Ask::Observe(ObserveAsked {
            what: rng.below(13) as u16,
            subject: None,
            call: rng.in_100(50).then(|| CallId(id(rng))),
            count: number(rng),
            detail: blob(rng),
        }),
        8 => Ask::RecordProbe(ProbeAsked {
            levels: rng.next() as u8,
            layers: number(rng),
            landlock_abi: u16::MAX,
            jail: Digest(id(rng)),
            kernel: "k".repeat(rng.below(66)),
        }),
        _ => {
            Ask::ResolveOutcome(ResolveAsked { call: CallId(id(rng)), verdict: rng.next() as u8, evidence: blob(rng) })
        }
    };
    let blobs = if rng.in_100(80) { wanted_blobs(&ask) } else { rng.below(4) };
    let blobs: Vec<BlobRef> =
        (0..blobs).map(|index| BlobRef { grains: 1, commitment: Commitment([index as u8; 32]) }).collect();
    let signed = rng.in_100(60).then(|| {
        let keys = toka_tests::session::Keys::seeded(1);
        let key = if rng.in_100(90) { &keys.operator } else { &keys.spare[0] };
        let session = if rng.in_100(90) { world.head.session } else { SessionId(id(rng)) };
        let mut nonce = [0; 16];
        nonce[8..].copy_from_slice(&rng.next().to_be_bytes());
        let signed = Signed::sign(session, nonce, world.now + number(rng).min(1 << 40), &ask, &blobs, key);
        let mut bytes = signed.encode();
        if rng.in_100(20) {
            let at = rng.below(bytes.0.len());
            bytes.0[at] ^= 1 << rng.below(8);
        }
        bytes
    });
    let mut command = Command::new(CommandId([rng.next() as u8; 16]), 0, ask, blobs);
    command.signed = signed;
    command.under = rng.in_100(70).then(|| grant_id(rng)).flatten();
    (by, command)
}

fn people() -> Vec<[u8; 32]> {
    let (world, _) = sample();
    world.model.principals.keys().copied().chain([[0; 32]]).collect()
}

fn id(rng: &mut Rng) -> [u8; 32] {
    let (world, _) = sample();
    let model = &world.model;
    let from: Vec<[u8; 32]> = match rng.below(7) {
        5 => model.tasks.keys().copied().collect(),
        6 => model.mailboxes.values().flatten().copied().chain([[0xfe; 32]]).collect(),
        0 => model.grants.keys().copied().collect(),
        1 => model.calls.keys().copied().collect(),
        2 => model.agents.keys().copied().collect(),
        3 => people(),
        _ => vec![[0; 32], [0xff; 32]],
    };
    if from.is_empty() { [0xfd; 32] } else { *rng.of(&from) }
}

fn grant_id(rng: &mut Rng) -> Option<GrantId> {
    let (world, _) = sample();
    let grants: Vec<[u8; 32]> = world.model.grants.keys().copied().collect();
    rng.in_100(90).then(|| GrantId(if rng.in_100(80) { *rng.of(&grants) } else { id(rng) }))
}

fn blob(rng: &mut Rng) -> Option<u16> {
    *rng.of(&[None, None, Some(0), Some(1), Some(63), Some(u16::MAX)])
}

/// How many blobs would be in order, were the indexes right.
fn wanted_blobs(ask: &Ask) -> usize {
    let indexes: Vec<u16> = match ask {
        Ask::RegisterTool(asked) => vec![asked.tool.text],
        Ask::ResolveOutcome(asked) => asked.evidence.into_iter().collect(),
        Ask::Observe(asked) => asked.detail.into_iter().collect(),
        Ask::PauseAgent(asked) => asked.reason.into_iter().collect(),
        Ask::StopAgent(asked) => asked.reason.into_iter().collect(),
        Ask::ScheduleTask(asked) => asked.text.into_iter().collect(),
        Ask::CompleteTask(asked) => asked.result.into_iter().collect(),
        Ask::SendMessage(asked) => vec![asked.content],
        Ask::ReportAttempt(asked) => asked.part.into_iter().collect(),
        Ask::CancelCall(asked) => asked.reason.into_iter().collect(),
        Ask::CommitState(_)
        | Ask::StartAgent(_)
        | Ask::ResumeAgent(_)
        | Ask::EndAgent(_)
        | Ask::StartTask(_)
        | Ask::FailTask(_)
        | Ask::SkipTask(_)
        | Ask::TakeMessage(_)
        | Ask::Grant(_)
        | Ask::OpenSession(_)
        | Ask::EndSession(_)
        | Ask::ApproveTool(_)
        | Ask::QuarantineTool(_)
        | Ask::UnbindTool(_)
        | Ask::AddPrincipal(_)
        | Ask::RecordProbe(_) => Vec::new(),
        Ask::CloseSession(asked) => asked.reason.into_iter().collect(),
        Ask::Revoke(asked) => asked.reason.into_iter().collect(),
        Ask::SpawnAgent(_) => vec![0],
        Ask::BindTool(asked) => asked.tools.iter().map(|binding| binding.tool.text).collect(),
        Ask::Call(asked) => [Some(0), asked.detail].into_iter().flatten().collect(),
        Ask::Report(asked) => [asked.stdout, asked.stderr, asked.result, asked.record].into_iter().flatten().collect(),
    };
    indexes.into_iter().max().map_or(0, |most| usize::from(most) + 1).min(64)
}

fn number(rng: &mut Rng) -> u64 {
    *rng.of(&[0, 1, 2, 255, 256, 1 << 20, u64::MAX - 1, u64::MAX, 1 << 53])
}

fn many<T>(rng: &mut Rng, most: usize, mut item: impl FnMut(&mut Rng) -> T) -> Vec<T> {
    let len = if rng.in_100(70) { rng.below(3) } else { rng.below(most + 1) };
    (0..len).map(|_| item(rng)).collect()
}

fn text(rng: &mut Rng) -> String {
    let words =
        ["", "reader", "file.write", "sum", "a", "project:a", "/n", "/path", "*", "a..b", "é\u{202e}", "\0", "\""];
    let word = *rng.of(&words);
    word.repeat(*rng.of(&[1, 1, 1, 1, 1, 1, 3, 300, 1_100]))
}

fn cap(rng: &mut Rng) -> String {
    let mut text = (*rng.of(&[
        "tool:*",
        "tool:reader",
        "fs:project/**#read",
        "fs:project/a/**#read,write",
        "agent:*",
        "agent:aud.links",
        "tool:*?arg./n=1..3",
        "fs:project/a#delete",
        "net:https://a:1/#GET",
        "",
        "tool:reader?calls=18446744073709551616",
    ]))
    .to_owned();
    for _ in 0..rng.below(4) {
        text.push(if text.contains('?') { '&' } else { '?' });
        let key = *rng.of(&[
            "depth=3",
            "depth=99",
            "use=no",
            "use=convey",
            "exp=never",
            "exp=0",
            "nbf=0",
            "calls=0",
            "tokens=18446744073709551615",
            "rate=1/1",
            "rate=0/0",
            "rate=1000000/10000000000",
            "rate=1000001/1",
            "gate=approval",
            "live=0",
            "bytes_in=17179869183GiB",
            "bytes_out=1KB",
            "closed",
            "wall_us=0",
            "exp=1800000000000000",
        ]);
        text.push_str(key);
    }
    if rng.in_100(10) {
        // As long as an event may hold, and longer.
        for pointer in 0..rng.below(33) {
            text.push(if text.contains('?') { '&' } else { '?' });
            text.push_str(&format!("arg./p{pointer}=\"{}\"", "x".repeat(*rng.of(&[100, 240, 256]))));
        }
    }
    text
}

fn tool(rng: &mut Rng) -> Tool {
    Tool {
        name: if rng.in_100(50) { format!("t{}", rng.below(40)) } else { text(rng) },
        digest: Digest(id(rng)),
        facts: many(rng, 40, |rng| FactDecl {
            pointer: (*rng.of(&["/n", "/path", "/a~0", "/a~2", "", "x", "/trim"])).to_owned(),
            kind: rng.below(7) as u8,
        }),
        needs: many(rng, 34, |rng| Need {
            text: (*rng.of(&["fs:{/path}#read", "fs:{/n}#read", "tool:x?arg./n={/n}", "{", "agent:{/path}"]))
                .to_owned(),
            when: rng.in_100(30).then(|| "/trim".to_owned()),
        }),
        effect: rng.below(6) as u8,
        reserve: many(rng, 8, |rng| Reserve {
            dim: 18 + rng.below(9) as u16,
            base: number(rng),
            per: number(rng),
            pointer: rng.in_100(50).then(|| "/n".to_owned()),
        }),
        model: rng.below(5) as u8,
        text: rng.below(3) as u16,
    }
}

fn narrow(rng: &mut Rng) -> Vec<Option<String>> {
    if rng.in_100(60) { Vec::new() } else { many(rng, 34, |rng| rng.in_100(70).then(|| cap(rng))) }
}

fn call(rng: &mut Rng) -> CallAsked {
    let (world, _) = sample();
    let tools: Vec<_> = world.model.tools.values().collect();
    let bound = rng.of(&tools);
    CallAsked {
        tool: if rng.in_100(80) { bound.name.to_owned() } else { text(rng) },
        digest: Digest(if rng.in_100(90) { [bound.digest; 32] } else { id(rng) }),
        grant: grant_id(rng).unwrap_or_default(),
        need_grants: many(rng, 34, |rng| grant_id(rng).unwrap_or_default()),
        facts: many(rng, 34, |rng| Fact {
            pointer: if rng.in_100(80) { (*rng.of(&["/n", "/path", "/trim"])).to_owned() } else { text(rng) },
            int: rng.in_100(40).then(|| *rng.of(&[0, 1, -1, i64::MIN, i64::MAX])),
            text: rng.in_100(60).then(|| text(rng)),
        }),
        extra: rng.in_100(50),
        args: rng.below(10) as u16 / 9,
        asked: many(rng, 8, |rng| rng.in_100(50).then(|| number(rng))),
        narrow: narrow(rng),
        task: rng.in_100(3).then(|| TaskId(id(rng))),
        parent: rng.in_100(3).then(|| CallId(id(rng))),
        unfit: rng.in_100(5).then(|| rng.below(800) as u16),
        detail: if rng.in_100(10) { Some(1) } else { None },
    }
}

fn spawn(rng: &mut Rng) -> SpawnAsked {
    let mut plan = plan();
    if rng.in_100(10) {
        plan.phase = rng.next() as u8;
        plan.then = rng.next() as u8;
        plan.workstream = text(rng);
        plan.requires = many(rng, 70, |rng| PrincipalId(id(rng)));
        plan.objectives = many(rng, 70, text);
        plan.deliverables = many(rng, 70, |rng| Deliverable { name: text(rng), required: true });
        plan.milestones = many(rng, 70, |rng| Milestone { name: text(rng), members: many(rng, 70, text) });
        plan.retry = rng.in_100(50).then(|| Retry { max: 255, base: number(rng), cap: number(rng) });
    }
    SpawnAsked {
        spec: if rng.in_100(80) { "aud.links".to_owned() } else { text(rng) },
        text: 0,
        spec_digest: Digest(id(rng)),
        driver: u16::MAX,
        seed: Digest(id(rng)),
        grant: grant_id(rng).unwrap_or_default(),
        need_grants: many(rng, 3, |rng| GrantId(id(rng))),
        asked: many(rng, 8, |rng| rng.in_100(20).then(|| number(rng))),
        narrow: narrow(rng),
        grants: many(rng, 66, |rng| GrantAsked { parent: grant_id(rng), cap: cap(rng) }),
        dropped: if rng.in_100(10) { many(rng, 66, text) } else { Vec::new() },
        plan,
    }
}

fn reported(rng: &mut Rng) -> ReportAsked {
    let mut asked = report(CallId(id(rng)));
    asked.attempt = *rng.of(&[0, 1, 1, 1, u16::MAX]);
    asked.outcome = Outcome {
        kind: rng.below(18) as u8,
        detail: u16::MAX,
        number: Some(i64::MIN),
        symbol: rng.in_100(30).then(|| text(rng)),
    };
    asked.actual = many(rng, 9, number);
    asked.usage = rng.in_100(10).then(|| Usage {
        tokens_in: number(rng),
        tokens_cached: number(rng),
        tokens_out: number(rng),
        status: 200,
        estimated: false,
    });
    (asked.stdout, asked.stderr, asked.result, asked.record) = (blob(rng), blob(rng), blob(rng), blob(rng));
    asked.of = rng.in_100(3).then(|| EntryRef { session: Default::default(), seq: u64::MAX, hash: Default::default() });
    asked
}

#[test]
fn the_node_is_asked_nothing_by_id_right_or_signature() {
    // What its event has no place for does not decide either, so that a reader comes to the same answer.
    let (world, _) = sample();
    let mut command = Command::of_node(Ask::CommitState(CommitAsked {}), Vec::new());
    let plain = world.state.decide(PrincipalId::NODE, &command, world.now);
    command.id = CommandId([1; 16]);
    command.as_of = 7;
    command.under = Some(GrantId([1; 32]));
    command.signed = Some(Bytes(vec![0; 20_000]));
    assert_eq!(world.state.decide(PrincipalId::NODE, &command, world.now), plain);
}

#[test]
fn blobs_out_of_order_are_no_command() {
    let (world, _) = sample();
    let mut tool = reader();
    (tool.name, tool.text) = ("another".to_owned(), 1);
    let binding = Binding { tool, cite: None, replaces: None };
    let blob = BlobRef { grains: 1, commitment: Commitment([1; 32]) };
    let command = Command::of_node(Ask::BindTool(BindAsked { tools: vec![binding] }), vec![blob; 2]);
    let event = world.state.decide(PrincipalId::NODE, &command, world.now);
    assert!(!is_recordable(&event), "{event:?}");
    let stamp = Stamp { time_us: world.now, clock_behind: false };
    let entry = Entry::seal(&world.head, PrincipalId::NODE, stamp, event, &world.writer);
    assert!(world.state.clone().apply(&entry).is_err());
}
