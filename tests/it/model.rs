//! The reference model: so dumb that it is obviously right, and driven by the same commands as the kernel.
//!
//! A disagreement is decided by the pages of the design; each bug found so stays as a named test.

pub(crate) mod cap;
pub(crate) mod rules;
pub(crate) mod system;
pub(crate) mod work;
pub(crate) mod world;

use std::collections::BTreeMap;

use proptest::prelude::*;
use toka_kernel::ids::PrincipalId;
use toka_kernel::{Body, Event};

use crate::msgpack::Value;
use rules::{Ask, Id, No, Stage};
use world::{Step, World};

/// Sessions of a run, and commands of each: 128,000 in all.
const SESSIONS: u32 = 320;
const COMMANDS: usize = 400;

proptest! {
    #![proptest_config(ProptestConfig { cases: SESSIONS, failure_persistence: None, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn kernel_and_model_agree(seed in any::<u64>(), steps in prop::collection::vec(any::<u64>(), COMMANDS)) {
        let mut world = World::open(seed);
        for (number, step) in steps.into_iter().enumerate() {
            let step = world.step(step);
            agree(&step)?;
            if number % 100 == 99 {
                same_rows(&world)?;
            }
        }
        for ask in [Ask::Commit, Ask::Close { why: 1 }] {
            let by = if matches!(ask, Ask::Commit) { rules::NODE } else { world.model.opener };
            agree(&world.ask(by, system::How::default(), ask, &mut world::Rng(seed)))?;
        }
        same_rows(&world)?;
    }
}

/// The answer of the model as the kernel would say it.
fn agree(step: &Step) -> Result<(), TestCaseError> {
    let kernel = match &step.event.body {
        Body::Refused(refused, _) => Err(No {
            code: refused.code,
            failed_at: refused.failed_at.map(|id| id.0),
            item: refused.item,
            dim: refused.dim,
            retry_at: refused.retry_at,
            first_seq: refused.first_seq,
        }),
        _ => Ok(()),
    };
    prop_assert_eq!(&kernel, &step.answer, "{:?} asked {:?}, decided {:?}", step.by, step.ask, step.event);
    filled_alike(&step.ask, &step.event)
}

/// What the pages say that `decide` fills, where the model knows it from the command alone.
fn filled_alike(ask: &Ask, event: &Event) -> Result<(), TestCaseError> {
    if let (Ask::Grant { to, .. }, Body::GrantIssued(issued)) = (ask, &event.body) {
        prop_assert_eq!(issued.grant.subject.0, *to);
    }
    Ok(())
}

/// Every row that authority hangs on, as the model has it.
pub(crate) fn same_rows(world: &World) -> Result<(), TestCaseError> {
    let mut rows: BTreeMap<(u16, Vec<u8>), Value> = BTreeMap::new();
    for (table, key, value) in world.state.rows() {
        rows.insert((table, key), Value::read(&value));
    }
    let row = |table: u16, id: &Id| &rows[&(table, id.to_vec())];
    let count = |table: u16| rows.keys().filter(|(of, _)| *of == table).count();
    let model = &world.model;
    prop_assert_eq!(
        [2, 4, 5, 6, 8, 9, 11, 12, 14, 17].map(count),
        [
            model.principals.len(),
            model.grants.len(),
            model.grants.len(),
            model.tools.len() + model.registered.len(),
            model.agents.len(),
            model.tasks.len(),
            model.mailboxes.values().filter(|unread| !unread.is_empty()).count(),
            model.calls.len(),
            model.nonces.len(),
            model.listed.len()
        ]
    );
    prop_assert_eq!(rows[&(1, Vec::new())].field("clsd"), &Value::Bool(model.closed));
    for (id, principal) in &model.principals {
        prop_assert_eq!(row(2, id).field("aliv"), &Value::Bool(principal.alive));
    }
    for (id, grant) in &model.grants {
        let stored = row(4, id).field("grnt");
        prop_assert_eq!(row(4, id).field("rvk"), &Value::Bool(grant.revoked));
        prop_assert_eq!(stored.field("cap"), &Value::Str(grant.cap.text()));
        prop_assert_eq!(stored.field("sub"), &Value::Bin(grant.subject.to_vec()));
        prop_assert_eq!(stored.field("iss"), &Value::Bin(grant.issuer.to_vec()));
        let meter = row(5, id);
        prop_assert_eq!(meter.field("spnt").amounts(), grant.spent, "spent of {}", grant.cap.text());
        prop_assert_eq!(meter.field("rsvd").amounts(), grant.reserved, "reserved of {}", grant.cap.text());
        let counts = ["tat", "chld", "live", "flgt"].map(|name| meter.field(name).int());
        let expected = [grant.tat.into(), grant.children.into(), grant.live.into(), grant.in_flight.into()];
        prop_assert_eq!(counts, expected, "{}", grant.cap.text());
    }
    for (id, agent) in &model.agents {
        let stage = match agent.stage {
            Stage::Spawned => 1,
            Stage::Running => 2,
            Stage::Paused => 3,
            Stage::Stopping => 4,
            Stage::Ended => 5,
        };
        let open = model.calls.values().filter(|call| call.by == *id && !call.ended).count();
        let doubts = model.calls.values().filter(|call| call.by == *id && call.doubt).count();
        prop_assert_eq!(row(8, id).field("paus"), &bin(agent.paused_by));
        let counts = ["stat", "dpth", "chld", "call", "task", "dubt"].map(|name| row(8, id).field(name).int());
        let (live, tasks) = (model.live_children(*id) as i128, model.open_tasks(*id) as i128);
        prop_assert_eq!(counts, [stage, agent.depth.into(), live, open as i128, tasks, doubts as i128]);
        prop_assert_eq!(world.state.is_held(PrincipalId(*id)), model.is_held(*id));
    }
    for (id, task) in &model.tasks {
        let stored = row(9, id);
        let numbers = ["stat", "att", "tmo"].map(|name| stored.field(name).int());
        prop_assert_eq!(numbers, [task.standing as i128, task.attempt.into(), task.timeout.into()]);
        prop_assert_eq!(stored.field("agt"), &Value::Bin(task.agent.to_vec()));
        prop_assert_eq!(stored.field("nbf"), &int(task.not_before));
        prop_assert_eq!(stored.field("due"), &int(task.due));
        prop_assert_eq!(stored.field("req"), &bins(&task.requires));
        prop_assert_eq!(stored.field("ended") == &Value::Nil, task.is_open());
    }
    for (id, unread) in model.mailboxes.iter().filter(|(_, unread)| !unread.is_empty()) {
        prop_assert_eq!(row(11, id).field("unrd"), &bins(unread));
    }
    for (id, call) in &model.calls {
        let stored = row(12, id);
        prop_assert_eq!(stored.field("ended") != &Value::Nil, call.ended);
        prop_assert_eq!(stored.field("dubt"), &Value::Bool(call.doubt));
        prop_assert_eq!(stored.field("cncl"), &Value::Bool(call.cancelled));
        prop_assert_eq!(stored.field("exec"), &Value::Bin(call.executor.to_vec()));
        prop_assert_eq!(stored.field("rsv").amounts(), call.reserve);
        prop_assert_eq!(stored.field("att").int(), call.attempt.into());
        prop_assert_eq!(stored.field("dead").int(), call.deadline.into());
    }
    for (name, tool) in &model.tools {
        let unbound = tool.unbound.map_or(Value::Nil, |why| Value::Int(why.into()));
        prop_assert_eq!(rows[&(6, name.as_bytes().to_vec())].field("unbd"), &unbound);
    }
    for (name, (digest, standing)) in &model.registered {
        let stored = &rows[&(6, name.as_bytes().to_vec())];
        prop_assert_eq!(stored.field("dig"), &Value::Bin(vec![*digest; 32]));
        prop_assert_eq!(stored.field("stat").int(), *standing as i128);
    }
    for (session, listed) in &model.listed {
        prop_assert_eq!(row(17, session).field("open"), &Value::Bool(listed.open));
    }
    Ok(())
}

fn bin(id: Option<Id>) -> Value {
    id.map_or(Value::Nil, |id| Value::Bin(id.to_vec()))
}

fn int(number: Option<u64>) -> Value {
    number.map_or(Value::Nil, |number| Value::Int(number.into()))
}

fn bins(ids: &[Id]) -> Value {
    Value::Array(ids.iter().map(|id| Value::Bin(id.to_vec())).collect())
}

/// So that the model is not right about nothing: every way to be admitted or refused comes up.
#[test]
fn the_generated_commands_meet_every_rule() {
    let mut seen: BTreeMap<(&'static str, u16), u32> = BTreeMap::new();
    for seed in 0..150 {
        let mut world = World::open(seed);
        let mut rng = world::Rng(seed);
        for _ in 0..COMMANDS {
            let step = world.step(rng.next());
            let kind = match &step.ask {
                Ask::Commit => "commit",
                Ask::Close { .. } => "close",
                Ask::Bind { .. } => "bind",
                Ask::Grant { .. } => "grant",
                Ask::Spawn { .. } => "spawn",
                Ask::Start { .. } => "start",
                Ask::End { .. } => "end",
                Ask::Revoke { .. } => "revoke",
                Ask::Call(_) => "call",
                Ask::Report { .. } => "report",
                Ask::Open { .. } => "open",
                Ask::EndSession { .. } => "end session",
                Ask::Register { .. } => "register",
                Ask::Approve { .. } => "approve",
                Ask::Quarantine { .. } => "quarantine",
                Ask::Unbind { .. } => "unbind",
                Ask::Resolve { .. } => "resolve",
                Ask::AddPrincipal { .. } => "add principal",
                Ask::Observe { .. } => "observe",
                Ask::Probe { .. } => "probe",
                Ask::Work(work) => work.name(),
            };
            let code = step.answer.err().map_or(0, |no| no.code);
            *seen.entry((kind, code)).or_default() += 1;
        }
    }
    let wanted: &[(&str, &[u16])] = &[
        (
            "call",
            &[
                0, 101, 103, 105, 111, 203, 204, 205, 206, 301, 302, 303, 304, 305, 306, 307, 312, 401, 402, 403, 404,
                405, 207, 209, 408, 409, 502, 601, 602, 603, 605, 606,
            ],
        ),
        ("spawn", &[0, 101, 105, 206, 302, 304, 305, 308, 309, 311, 403, 404, 510, 604, 606]),
        ("grant", &[0, 101, 109, 120, 121, 122, 123, 124, 125, 204, 302, 304, 305, 307, 308, 309, 310, 311, 312]),
        ("report", &[0, 101, 105, 205, 206, 701, 702, 703]),
        ("start", &[0, 206, 207, 312, 403, 608]),
        ("end", &[0, 101, 205, 206, 207, 211]),
        ("revoke", &[0, 301, 313]),
        ("close", &[101, 211]),
        ("bind", &[0, 205, 402]),
        ("commit", &[0, 205]),
        ("open", &[0, 101, 120, 121, 122, 123, 124, 206, 302, 309, 311, 312, 601]),
        ("end session", &[0, 101, 105, 205, 206]),
        ("register", &[0, 101, 120, 205, 206, 312]),
        ("approve", &[0, 109, 120, 121, 122, 123, 124, 125, 206, 312, 401, 402, 510]),
        ("quarantine", &[0, 101, 205, 206, 401, 402]),
        ("unbind", &[0, 101, 205, 206, 401, 402]),
        ("resolve", &[0, 101, 205, 206, 312, 701]),
        ("add principal", &[0, 101, 108, 109, 120, 125, 206]),
        ("observe", &[0, 101, 701, 703]),
        ("probe", &[0, 101, 205, 206]),
        ("pause", &[0, 101, 205, 206, 302, 312]),
        ("resume", &[0, 205, 206, 312]),
        ("stop", &[0, 101, 205, 206, 312]),
        ("schedule", &[0, 101, 102, 206, 209, 312, 403]),
        ("start task", &[0, 205, 206, 207, 209, 210, 211]),
        ("complete", &[0, 206, 209]),
        ("fail", &[0, 101, 206, 209]),
        ("skip", &[0, 101, 206, 209, 301, 312, 403]),
        ("send", &[0, 101, 207, 208, 301, 302, 403]),
        ("take", &[0, 212]),
        ("attempt", &[0, 101, 205, 206, 211, 701, 702, 703]),
        ("cancel", &[0, 101, 312, 701, 702]),
    ];
    for (kind, codes) in wanted {
        for code in *codes {
            assert!(seen.contains_key(&(*kind, *code)), "no {kind} came to {code}: {seen:?}");
        }
    }
}
