//! Agents that are paused, stopped and resumed, their tasks and messages, and calls that are tried again: the tables of
//! states walked pair by pair, the bounds on both sides, and what a stop leaves behind.

use std::collections::BTreeSet;

use toka_kernel::body::v1::{
    AttemptAsked, AttemptUsage, CancelAsked, CompleteTaskAsked, EndAsked, FailTaskAsked, FirstPrincipal, Grant,
    Outcome, PauseAsked, Refused, ReportAsked, ResumeAsked, Retry, ScheduleAsked, SendAsked, SkipTaskAsked, SpawnAsked,
    StartAsked, StartTaskAsked, StopAsked, TakeAsked, Usage,
};
use toka_kernel::capability::Capability;
use toka_kernel::ids::{AgentId, CallId, Digest, GrantId, MessageId, PrincipalId, TaskId};
use toka_kernel::limits::{MAILBOX_MAX, MESSAGE_BYTES_MAX, TASKS_OPEN_MAX};
use toka_kernel::tool::{Effect as EffectClass, Need, Reserve};
use toka_kernel::{AgentState, Ask, BlobRef, Body, Dim, Effect, Entry, Event, Head, State, TaskState};
use toka_projections::Views;
use toka_tests::session::{EXECUTOR, Keys, Session, call, genesis, plan, reader, report};

const ROOTS: [&str; 5] = [
    "tool:*?depth=3&exp=1800000000000000",
    "fs:project/**#read?depth=3&exp=1800000000000000",
    "agent:*?depth=4&exp=1800000000000000",
    "admin:#cancel,pause?depth=2&exp=1800000000000000",
    "model:*?depth=2&exp=1800000000000000",
];
/// A program that orchestrates.
const SERVICE: PrincipalId = PrincipalId([0xbb; 32]);

fn session() -> Session {
    session_of(10)
}

fn session_of(max_running: u16) -> Session {
    let keys = Keys::seeded(1);
    let mut opening = genesis(&keys, &ROOTS, 65_536);
    opening.limits.max_running = max_running;
    let id = Some(SERVICE);
    opening.principals.push(FirstPrincipal { id, kind: 4, custody: 1, keys: Vec::new(), models: 0 });
    for cap in ["agent:audit.*?live=0&exp=1800000000000000", "agent:fix?live=0&exp=1800000000000000"] {
        let cap = Capability::parse(cap).expect("a capability");
        let (issuer, subject) = (keys.opener(), SERVICE);
        opening.grants.push(Grant { parent: None, issuer, subject, cap, answers: Vec::new() });
    }
    let mut session = Session::begin(keys, opening);
    session.bind(reader());
    session
}

fn refused(event: &Event) -> &Refused {
    let Body::Refused(refused, _) = &event.body else { panic!("not refused: {event:?}") };
    refused
}

fn code(event: &Event) -> u16 {
    if let Body::Refused(refused, _) = &event.body { refused.code } else { 0 }
}

/// An agent of this spec with a tool, files and agents of its own, made and not started.
fn spawned(session: &mut Session, by: PrincipalId, spec: &str, grants: [GrantId; 3]) -> (AgentId, [GrantId; 3]) {
    let [tool, fs, agents] = grants;
    let mut held = session.state.grants_of(by);
    let depth = held.find(|(id, _)| *id == tool).map_or(0, |(_, cap)| cap.depth - 1);
    drop(held);
    let (tools, agent) = (format!("tool:*?depth={depth}"), format!("agent:*?depth={depth}"));
    let files = format!("fs:project/**#read?depth={depth}");
    let event = session.spawn(by, spec, agents, &[(tool, &tools), (fs, &files), (agents, &agent)]);
    assert_eq!(event.name(), "AgentSpawned", "{event:?}");
    (PrincipalId(session.made(0)), [1, 2, 3].map(|ordinal| GrantId(session.made(ordinal))))
}

fn top(session: &mut Session, spec: &str) -> (AgentId, [GrantId; 3]) {
    let (opener, roots) = (session.opener(), [0, 1, 2].map(|index| session.root(index)));
    spawned(session, opener, spec, roots)
}

fn running(session: &mut Session, by: PrincipalId, spec: &str, grants: [GrantId; 3]) -> (AgentId, [GrantId; 3]) {
    let (agent, own) = spawned(session, by, spec, grants);
    assert_eq!(session.ask(by, start(agent), vec![]).name(), "AgentStarted");
    (agent, own)
}

fn running_top(session: &mut Session, spec: &str) -> (AgentId, [GrantId; 3]) {
    let (agent, own) = top(session, spec);
    let opener = session.opener();
    assert_eq!(session.ask(opener, start(agent), vec![]).name(), "AgentStarted");
    (agent, own)
}

fn start(agent: AgentId) -> Ask {
    Ask::StartAgent(StartAsked { agent })
}

fn pause(agent: AgentId) -> Ask {
    Ask::PauseAgent(PauseAsked { agent, why: 1, reason: None })
}

fn resume(agent: AgentId) -> Ask {
    Ask::ResumeAgent(ResumeAsked { agent })
}

fn stop(agent: AgentId) -> Ask {
    Ask::StopAgent(StopAsked { agent, why: 1, reason: None })
}

fn end(agent: AgentId, how: u8, code: u16) -> Ask {
    Ask::EndAgent(EndAsked { agent, how, code })
}

fn schedule(agent: AgentId, requires: &[TaskId], retry: Retry) -> Ask {
    let (name, requires) = ("scan".to_owned(), requires.to_vec());
    Ask::ScheduleTask(ScheduleAsked { agent, name, text: None, requires, priority: 3, timeout_us: 60_000_000, retry })
}

const THRICE: Retry = Retry { max: 3, base: 1_000_000, cap: 30_000_000 };

fn task(session: &mut Session, agent: AgentId, requires: &[TaskId]) -> TaskId {
    let event = session.ask(agent, schedule(agent, requires, THRICE), vec![]);
    assert_eq!(event.name(), "TaskScheduled", "{event:?}");
    TaskId(session.made(0))
}

fn start_task(task: TaskId, attempt: u16) -> Ask {
    Ask::StartTask(StartTaskAsked { task, attempt })
}

fn complete(task: TaskId, attempt: u16) -> Ask {
    Ask::CompleteTask(CompleteTaskAsked { task, attempt, result: None })
}

fn fail(task: TaskId, attempt: u16, retryable: bool) -> Ask {
    Ask::FailTask(FailTaskAsked { task, attempt, code: 2, retryable })
}

fn skip(task: TaskId) -> Ask {
    Ask::SkipTask(SkipTaskAsked { task, why: 1, because: None })
}

/// Sends a message of so many bytes, as the size in the log says it.
fn send(session: &mut Session, by: PrincipalId, to: AgentId, bytes: u64) -> Event {
    let content = BlobRef { grains: u32::try_from(bytes.div_ceil(256)).expect("few"), ..session.blob(b"x") };
    session.ask(by, Ask::SendMessage(SendAsked { to, content: 0, reply_to: None }), vec![content])
}

fn admitted(session: &mut Session, by: PrincipalId, own: [GrantId; 3]) -> CallId {
    let event = session.call(by, "project:a", own[0], &[own[1]]);
    assert_eq!(event.name(), "CallAdmitted", "{event:?}");
    CallId(session.made(0))
}

fn views(session: &Session) -> Views {
    let (mut views, mut state) = (Views::default(), State::new());
    for entry in &session.entries {
        let effects = state.apply(entry).expect("legal");
        views.fold(entry, &effects);
    }
    views
}

/// An agent in each of its states.
fn in_state(state: AgentState) -> (Session, AgentId) {
    let mut session = session();
    let opener = session.opener();
    let (agent, _) = top(&mut session, "audit.links");
    let steps: &[Ask] = match state {
        AgentState::Spawned => &[],
        AgentState::Running => &[start(agent)],
        AgentState::Paused => &[start(agent), pause(agent)],
        AgentState::Stopping => &[start(agent), stop(agent)],
        AgentState::Ended => &[start(agent), stop(agent), end(agent, 3, 0)],
    };
    for step in steps {
        let by = if matches!(step, Ask::EndAgent(_)) { PrincipalId::NODE } else { opener };
        assert_eq!(code(&session.ask(by, step.clone(), vec![])), 0);
    }
    assert_eq!(session.state.agent_state(agent), Some(state));
    (session, agent)
}

#[test]
fn an_agent_goes_from_state_to_state_as_the_table_says_and_in_no_other_way() {
    use AgentState::{Ended, Paused, Running, Spawned, Stopping};
    let opener = Keys::seeded(1).opener();
    let node = PrincipalId::NODE;
    type Step = (&'static str, fn(AgentId) -> Ask, Option<PrincipalId>, fn(AgentState) -> Option<AgentState>);
    let steps: [Step; 8] = [
        ("start", start, Some(opener), |from| (from == Spawned).then_some(Running)),
        ("pause", pause, Some(opener), |from| (from == Running).then_some(Paused)),
        ("pause by the node", pause, Some(node), |from| (from == Running).then_some(Paused)),
        ("resume", resume, Some(opener), |from| (from == Paused).then_some(Running)),
        ("stop", stop, Some(opener), |from| matches!(from, Spawned | Running | Paused).then_some(Stopping)),
        ("complete", |agent| end(agent, 1, 0), None, |from| (from == Running).then_some(Ended)),
        ("fail", |agent| end(agent, 2, 12), Some(node), |from| matches!(from, Spawned | Running).then_some(Ended)),
        ("end as stopped", |agent| end(agent, 3, 0), Some(node), |from| (from == Stopping).then_some(Ended)),
    ];
    let mut seen = 0;
    for from in AgentState::ALL {
        for (name, ask, by, to) in steps {
            let (mut session, agent) = in_state(*from);
            let event = session.ask(by.unwrap_or(agent), ask(agent), vec![]);
            let dead = by.is_none() && *from == Ended;
            match to(*from) {
                Some(to) => assert_eq!(session.state.agent_state(agent), Some(to), "{name} from {}", from.name()),
                None => {
                    assert_eq!(code(&event), if dead { 204 } else { 206 }, "{name} from {}", from.name());
                    assert_eq!(session.state.agent_state(agent), Some(*from));
                }
            }
            seen += 1;
        }
    }
    assert_eq!(seen, 5 * 8);
}

/// A task in each of its states, at its first attempt, and the agent that has it.
fn task_in_state(state: TaskState) -> (Session, AgentId, TaskId) {
    let mut session = session();
    let (agent, _) = running_top(&mut session, "audit.links");
    let id = task(&mut session, agent, &[]);
    let steps: &[Ask] = match state {
        TaskState::Scheduled => &[],
        TaskState::Started => &[start_task(id, 1)],
        TaskState::Completed => &[start_task(id, 1), complete(id, 1)],
        TaskState::Failed => &[start_task(id, 1), fail(id, 1, false)],
        TaskState::Skipped => &[skip(id)],
        TaskState::Cancelled => {
            let opener = session.opener();
            session.ask(opener, stop(agent), vec![]);
            session.ask(PrincipalId::NODE, end(agent, 3, 0), vec![]);
            &[]
        }
    };
    for step in steps {
        assert_eq!(code(&session.ask(agent, step.clone(), vec![])), 0);
    }
    assert_eq!(session.state.task_state(id), Some(state));
    (session, agent, id)
}

#[test]
fn a_task_goes_from_state_to_state_as_the_table_says_and_in_no_other_way() {
    use TaskState::{Completed, Failed, Scheduled, Skipped, Started};
    type Step = (&'static str, fn(TaskId) -> Ask, fn(TaskState) -> Option<TaskState>);
    let steps: [Step; 6] = [
        ("start", |task| start_task(task, 1), |from| (from == Scheduled).then_some(Started)),
        ("complete", |task| complete(task, 1), |from| (from == Started).then_some(Completed)),
        ("fail for good", |task| fail(task, 1, false), |from| (from == Started).then_some(Failed)),
        ("fail", |task| fail(task, 1, true), |from| (from == Started).then_some(Scheduled)),
        ("skip", skip, |from| (from == Scheduled).then_some(Skipped)),
        ("start another attempt", |task| start_task(task, 2), |_| None),
    ];
    for from in TaskState::ALL {
        for (name, ask, to) in steps {
            let (mut session, agent, id) = task_in_state(*from);
            let dead = *from == TaskState::Cancelled;
            let event = session.ask(agent, ask(id), vec![]);
            match to(*from) {
                Some(to) => assert_eq!(session.state.task_state(id), Some(to), "{name} from {}", from.name()),
                None => {
                    assert_eq!(code(&event), if dead { 204 } else { 206 }, "{name} from {}", from.name());
                    assert_eq!(session.state.task_state(id), Some(*from));
                }
            }
        }
        // Who orchestrates may skip it, from where it can be skipped.
        let (mut session, _, id) = task_in_state(*from);
        let under = session.root(5);
        let event = session.ask_under(SERVICE, under, None, skip(id), vec![]);
        assert_eq!(code(&event), if *from == Scheduled { 0 } else { 206 });
    }
}

#[test]
fn an_attempt_is_numbered_and_an_ended_task_is_forgotten() {
    let mut session = session();
    let (agent, _) = running_top(&mut session, "audit.links");
    let id = task(&mut session, agent, &[]);
    session.ask(agent, start_task(id, 1), vec![]);
    for wrong in [0, 2, u16::MAX] {
        assert_eq!(code(&session.ask(agent, complete(id, wrong), vec![])), 206);
        assert_eq!(code(&session.ask(agent, fail(id, wrong, true), vec![])), 206);
    }
    assert_eq!(session.ask(agent, complete(id, 1), vec![]).name(), "TaskCompleted");
    session.commit_state();
    assert_eq!(code(&session.ask(agent, complete(id, 1), vec![])), 206);
    session.commit_state();
    assert_eq!(code(&session.ask(agent, complete(id, 1), vec![])), 209);
    // Nobody has a hand in the tasks of another.
    let (other, _) = running_top(&mut session, "fix");
    let id = task(&mut session, agent, &[]);
    assert_eq!(code(&session.ask(other, start_task(id, 1), vec![])), 209);
    assert_eq!(code(&session.ask(other, skip(id), vec![])), 301);
}

#[test]
fn a_task_waits_for_those_it_requires() {
    let mut session = session();
    let (agent, own) = running_top(&mut session, "audit.links");
    let first = task(&mut session, agent, &[]);
    let second = task(&mut session, agent, &[first]);
    assert_eq!(code(&session.ask(agent, start_task(second, 1), vec![])), 211);
    assert!(!views(&session).tasks.is_ready(second));
    session.ask(agent, start_task(first, 1), vec![]);
    session.ask(agent, complete(first, 1), vec![]);
    // What has completed is no longer waited for, even where it is forgotten.
    let third = task(&mut session, agent, &[first]);
    session.commit_state();
    session.commit_state();
    assert_eq!(session.state.task_state(first), None);
    assert!(views(&session).tasks.is_ready(second));
    for id in [second, third] {
        assert_eq!(session.ask(agent, start_task(id, 1), vec![]).name(), "TaskStarted");
    }
    // What failed never completes.
    session.ask(agent, fail(second, 1, false), vec![]);
    let fourth = task(&mut session, agent, &[second]);
    assert_eq!(code(&session.ask(agent, start_task(fourth, 1), vec![])), 211);
    let twice = session.ask(agent, schedule(agent, &[third, third], THRICE), vec![]);
    assert_eq!((code(&twice), refused(&twice).item), (101, Some(1)));
    let unknown = session.ask(agent, schedule(agent, &[first], THRICE), vec![]);
    assert_eq!((code(&unknown), refused(&unknown).item), (209, Some(0)));
    // A call serves a task that its asker is at.
    let mut serve = |by, task: TaskId| {
        let args = session.blob(b"{\"path\":\"project:a\"}");
        let Ask::Call(mut asked) = call("project:a", own[0], &[own[1]]) else { panic!("a call") };
        asked.task = Some(task);
        code(&session.ask(by, Ask::Call(asked), vec![args]))
    };
    assert_eq!(serve(agent, third), 0);
    assert_eq!(serve(agent, fourth), 206);
    assert_eq!(serve(agent, first), 209);
}

#[test]
fn retry_instants_are_those_of_the_page_live_and_on_replay() {
    let mut session = session();
    let (agent, _) = running_top(&mut session, "audit.links");
    let mut instants = Vec::new();
    for (base, cap) in [(1_000_000, 30_000_000), (0, 5), (7, 86_400_000_000), (86_400_000_000, 86_400_000_000)] {
        session.ask(agent, schedule(agent, &[], Retry { max: 9, base, cap }), vec![]);
        let id = TaskId(session.made(0));
        for attempt in 1..=9 {
            session.ask(agent, start_task(id, attempt), vec![]);
            let event = session.ask(agent, fail(id, attempt, true), vec![]);
            let Body::TaskFailed(failed) = &event.body else { panic!("{event:?}") };
            if attempt == 9 {
                assert_eq!(failed.not_before, None, "as often as may be");
                continue;
            }
            let wait = crate::model::work::wait(id.0, attempt, base, cap);
            let most = (u128::from(base) << (attempt - 1)).min(u128::from(cap)) as u64;
            assert!((most / 2..=most).contains(&wait), "{wait} of {most}");
            let not_before = failed.not_before.expect("tried again");
            assert_eq!(not_before, session.now_us + wait);
            instants.push(not_before);
            // Too early by 1 µs, and then not.
            session.now_us = session.now_us.max(not_before - 1_001);
            if session.now_us + 1_000 < not_before {
                let event = session.ask(agent, start_task(id, attempt + 1), vec![]);
                assert_eq!((code(&event), refused(&event).retry_at), (210, Some(not_before)));
            }
        }
    }
    let distinct: BTreeSet<u64> = instants.iter().copied().collect();
    assert!(distinct.len() > 20);
    let (mut head, mut state, mut again) = (Head::none(), State::new(), Vec::new());
    for entry in &session.entries {
        let read = Entry::read(entry.bytes()).expect("an entry");
        head = head.accept(&read, &session.keyring).expect("accepted");
        let _ = state.apply(&read).expect("legal");
        if let Body::TaskFailed(failed) = &read.event().expect("an event").body {
            again.extend(failed.not_before);
        }
    }
    assert_eq!(again, instants);
    assert_eq!(state.digest(), session.state.digest());
    assert_eq!(head, session.head);
}

#[test]
fn the_10_001st_open_task_is_refused() {
    let mut session = session();
    let (agent, _) = running_top(&mut session, "audit.links");
    let first = task(&mut session, agent, &[]);
    for _ in 1..TASKS_OPEN_MAX {
        task(&mut session, agent, &[]);
    }
    let event = session.ask(agent, schedule(agent, &[], THRICE), vec![]);
    assert_eq!((code(&event), refused(&event).dim), (604, Some(Dim::Tasks.number())));
    // One that is started is open still; one that has ended makes room.
    session.ask(agent, start_task(first, 1), vec![]);
    assert_eq!(code(&session.ask(agent, schedule(agent, &[], THRICE), vec![])), 604);
    session.ask(agent, complete(first, 1), vec![]);
    assert_eq!(session.ask(agent, schedule(agent, &[], THRICE), vec![]).name(), "TaskScheduled");
    assert_eq!(code(&session.ask(agent, end(agent, 1, 0), vec![])), 211);
}

#[test]
fn a_message_has_1_mib_and_a_mailbox_1_024() {
    let mut session = session();
    let opener = session.opener();
    let (agent, _) = running_top(&mut session, "audit.links");
    assert_eq!(send(&mut session, opener, agent, MESSAGE_BYTES_MAX).name(), "MessageSent");
    let event = send(&mut session, opener, agent, MESSAGE_BYTES_MAX + 1);
    assert_eq!((code(&event), refused(&event).rule.as_deref()), (101, Some("content: longer than 1 MiB")));
    for _ in 1..MAILBOX_MAX {
        assert_eq!(send(&mut session, opener, agent, 1).name(), "MessageSent");
    }
    assert_eq!(code(&send(&mut session, opener, agent, 1)), 609);
    let first = session.state.unread(agent)[0];
    assert_eq!(session.ask(agent, Ask::TakeMessage(TakeAsked { message: first }), vec![]).name(), "MessageTaken");
    assert_eq!(code(&session.ask(agent, Ask::TakeMessage(TakeAsked { message: first }), vec![])), 212);
    assert_eq!(send(&mut session, opener, agent, 1).name(), "MessageSent");
    assert_eq!(code(&send(&mut session, opener, agent, 1)), 609);
    // To one that has ended nothing is sent, and what it had not read is gone.
    assert_eq!(session.ask(agent, end(agent, 1, 0), vec![]).name(), "AgentEnded");
    assert_eq!(code(&send(&mut session, opener, agent, 1)), 208);
    assert!(session.state.unread(agent).is_empty());
    assert_eq!(views(&session).mailboxes.unread(agent).count(), 0);
    assert!(session.state.rows().iter().all(|(table, ..)| *table != 11));
}

#[test]
fn two_senders_are_read_in_the_order_of_their_entries() {
    for seed in 0..100 {
        let mut rng = crate::model::world::Rng(seed);
        let mut session = session();
        let opener = session.opener();
        let (agent, own) = running_top(&mut session, "audit.links");
        let (child, _) = running(&mut session, agent, "audit.dates", own);
        let mut sent = Vec::new();
        for _ in 0..10 {
            let by = if rng.in_100(50) { opener } else { child };
            assert_eq!(send(&mut session, by, agent, 1).name(), "MessageSent");
            sent.push((MessageId(session.made(0)), by, session.head.seq));
        }
        let order: Vec<MessageId> = sent.iter().map(|(id, ..)| *id).collect();
        assert_eq!(session.state.unread(agent), order);
        let views = views(&session);
        let read: Vec<_> = views.mailboxes.unread(agent).map(|(id, row)| (id, row.from, row.sent_at)).collect();
        assert_eq!(read, sent);
        // One that is taken out of turn leaves the order of the rest as it was.
        let taken = order[rng.below(10)];
        session.ask(agent, Ask::TakeMessage(TakeAsked { message: taken }), vec![]);
        let rest: Vec<MessageId> = order.into_iter().filter(|id| *id != taken).collect();
        assert_eq!(session.state.unread(agent), rest);
    }
}

#[test]
fn a_message_goes_to_parent_and_child_and_else_needs_a_grant() {
    let mut session = session();
    let (agent, own) = running_top(&mut session, "audit.links");
    let (child, childs) = running(&mut session, agent, "audit.dates", own);
    let (grandchild, _) = spawned(&mut session, child, "fix", childs);
    assert_eq!(send(&mut session, agent, child, 1).name(), "MessageSent");
    assert!(session.effects.iter().any(|effect| matches!(effect, Effect::Drive(id) if *id == child)));
    assert_eq!(send(&mut session, child, agent, 1).name(), "MessageSent");
    let event = send(&mut session, agent, grandchild, 1);
    assert_eq!((code(&event), refused(&event).need.as_deref()), (301, Some("agent:fix?live=0")));
    let content = session.blob(b"x");
    let to = |to| Ask::SendMessage(SendAsked { to, content: 0, reply_to: None });
    assert_eq!(session.ask_under(agent, own[2], None, to(grandchild), vec![content]).name(), "MessageSent");
    // Not one made yet has ended, and one not yet started reads nothing.
    assert_eq!(code(&send(&mut session, grandchild, child, 1)), 206);
    let (audit, fix) = (session.root(5), session.root(6));
    for (under, agent, answer) in [(audit, child, 0), (fix, child, 403), (fix, grandchild, 0), (audit, grandchild, 403)]
    {
        assert_eq!(code(&session.ask_under(SERVICE, under, None, to(agent), vec![content])), answer);
    }
    assert_eq!(code(&send(&mut session, SERVICE, child, 1)), 301);
    let tool = session.root(0);
    let opener = session.opener();
    assert_eq!(code(&session.ask_under(opener, tool, None, to(agent), vec![content])), 403);
    assert_eq!(code(&session.ask_under(SERVICE, tool, None, to(agent), vec![content])), 302);
}

#[test]
fn a_service_whose_agent_grants_cover_them_orchestrates_agents() {
    let mut session = session();
    let opener = session.opener();
    let (audit, fix) = (session.root(5), session.root(6));
    let (agent, _) = top(&mut session, "audit.links");
    assert_eq!(code(&session.ask(SERVICE, start(agent), vec![])), 312);
    assert_eq!(code(&session.ask_under(SERVICE, fix, None, start(agent), vec![])), 403);
    assert_eq!(session.ask_under(SERVICE, audit, None, start(agent), vec![]).name(), "AgentStarted");
    let asked = schedule(agent, &[], THRICE);
    assert_eq!(code(&session.ask(SERVICE, asked.clone(), vec![])), 312);
    assert_eq!(code(&session.ask_under(SERVICE, fix, None, asked.clone(), vec![])), 403);
    assert_eq!(session.ask_under(SERVICE, audit, None, asked.clone(), vec![]).name(), "TaskScheduled");
    assert!(session.effects.iter().any(|effect| matches!(effect, Effect::Drive(id) if *id == agent)));
    let id = TaskId(session.made(0));
    assert_eq!(code(&session.ask(SERVICE, skip(id), vec![])), 301);
    assert_eq!(code(&session.ask_under(SERVICE, fix, None, skip(id), vec![])), 403);
    assert_eq!(session.ask_under(SERVICE, audit, None, skip(id), vec![]).name(), "TaskSkipped");
    // It has no other right.
    for ask in [pause(agent), resume(agent), stop(agent)] {
        assert_eq!(code(&session.ask(SERVICE, ask.clone(), vec![])), 312);
        assert_eq!(code(&session.ask_under(SERVICE, audit, None, ask, vec![])), 312);
    }
    // And nobody else has that one: agents and people have standings of their own.
    let agents = session.root(2);
    let (other, own) = running_top(&mut session, "fix");
    assert_eq!(code(&session.ask_under(other, own[2], None, asked.clone(), vec![])), 312);
    assert_eq!(code(&session.ask_under(opener, agents, None, asked, vec![])), 312);
}

#[test]
fn what_one_has_paused_another_resumes_only_with_a_right() {
    let mut session = session();
    let (opener, admin) = (session.opener(), session.root(3));
    let (agent, own) = running_top(&mut session, "audit.links");
    let (child, _) = running(&mut session, agent, "audit.dates", own);
    assert_eq!(session.ask(opener, pause(child), vec![]).name(), "AgentPaused");
    assert_eq!(code(&session.ask(agent, resume(child), vec![])), 312, "its parent did not pause it");
    assert_eq!(session.ask(opener, resume(child), vec![]).name(), "AgentResumed");
    assert_eq!(session.ask(PrincipalId::NODE, pause(child), vec![]).name(), "AgentPaused");
    assert_eq!(code(&session.ask(opener, resume(child), vec![])), 312, "the node did");
    assert_eq!(session.ask_under(opener, admin, None, resume(child), vec![]).name(), "AgentResumed");
    assert_eq!(code(&session.ask(child, pause(agent), vec![])), 312, "from below");
    assert_eq!(code(&session.ask(child, pause(child), vec![])), 312, "oneself");
    assert_eq!(code(&session.ask(PrincipalId::NODE, stop(agent), vec![])), 205);
}

#[test]
fn nothing_new_happens_below_a_pause_and_what_runs_ends_as_it_would() {
    let mut session = session();
    let opener = session.opener();
    let (agent, own) = running_top(&mut session, "audit.links");
    let (child, childs) = running(&mut session, agent, "audit.dates", own);
    let (waiting, _) = spawned(&mut session, agent, "fix", own);
    let call = admitted(&mut session, child, childs);
    let id = task(&mut session, child, &[]);
    session.ask(agent, pause(child), vec![]);
    assert!(session.state.is_held(child) && !session.state.is_held(agent));
    session.ask(agent, resume(child), vec![]);
    session.ask(opener, pause(agent), vec![]);
    for (held, own) in [(agent, own), (child, childs)] {
        assert!(session.state.is_held(held));
        let event = session.call(held, "project:a", own[0], &[own[1]]);
        assert_eq!((code(&event), refused(&event).rule.as_deref()), (207, Some("paused")));
        assert_eq!(code(&session.spawn(held, "fix", own[2], &[])), 207);
        assert_eq!(code(&send(&mut session, held, if held == agent { child } else { agent }, 1)), 207);
        assert_eq!(code(&session.ask(held, end(held, 1, 0), vec![])), if held == agent { 206 } else { 207 });
    }
    assert_eq!(code(&session.ask(child, start_task(id, 1), vec![])), 207);
    assert_eq!(code(&session.ask(agent, start(waiting), vec![])), 207);
    let admin = session.root(3);
    assert_eq!(code(&session.ask_under(opener, admin, None, start(waiting), vec![])), 207);
    assert_eq!(session.finish(call, b"text").name(), "CallFinished");
    assert!(session.effects.is_empty(), "{:?}", session.effects);
    // All of them are asked again when it goes on.
    session.ask(opener, resume(agent), vec![]);
    let driven: BTreeSet<AgentId> = session
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Drive(id) => Some(*id),
            _ => None,
        })
        .collect();
    assert_eq!(driven, BTreeSet::from([agent, child]));
    assert_eq!(session.ask(child, start_task(id, 1), vec![]).name(), "TaskStarted");
}

#[test]
fn a_stop_cancels_what_runs_below_and_ends_from_below() {
    let mut session = session_of(1);
    let opener = session.opener();
    let (agent, own) = running_top(&mut session, "audit.links");
    let (child, childs) = running(&mut session, agent, "audit.dates", own);
    let (never, _) = spawned(&mut session, child, "fix", childs);
    let calls = [admitted(&mut session, agent, own), admitted(&mut session, child, childs)];
    let (other, _) = top(&mut session, "fix");
    assert_eq!(code(&session.ask(opener, start(other), vec![])), 608);
    let id = task(&mut session, child, &[]);
    send(&mut session, agent, child, 1);
    assert_eq!(session.ask(opener, stop(agent), vec![]).name(), "AgentStopping");
    let cancelled: BTreeSet<CallId> = session
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Cancel(call) => Some(*call),
            _ => None,
        })
        .collect();
    assert_eq!(cancelled, BTreeSet::from(calls));
    // It starts nothing more, so its place is free.
    assert_eq!(session.ask(opener, start(other), vec![]).name(), "AgentStarted");
    assert!([agent, child, never].iter().all(|id| session.state.is_stopping(*id)));
    let event = session.call(child, "project:a", childs[0], &[childs[1]]);
    assert_eq!((code(&event), refused(&event).rule.as_deref()), (207, Some("stopping")));
    assert_eq!(code(&session.ask(agent, schedule(agent, &[], THRICE), vec![])), 206);
    // The deepest ends first; nothing ends before its calls have.
    assert_eq!(session.state.stopped(), [never]);
    assert_eq!(code(&session.ask(PrincipalId::NODE, end(child, 3, 0), vec![])), 211);
    assert_eq!(session.ask(PrincipalId::NODE, end(never, 3, 0), vec![]).name(), "AgentEnded");
    assert!(session.state.stopped().is_empty(), "calls are open");
    for call in calls {
        let outcome = Outcome { kind: 8, detail: 1, number: None, symbol: None };
        let ended = ReportAsked { outcome, actual: Vec::new(), ..report(call) };
        assert_eq!(session.ask(EXECUTOR, Ask::Report(Box::new(ended)), vec![]).name(), "CallFinished");
        assert!(session.effects.is_empty());
    }
    assert_eq!(session.state.stopped(), [child]);
    assert_eq!(session.ask(PrincipalId::NODE, end(child, 3, 0), vec![]).name(), "AgentEnded");
    assert_eq!(session.state.task_state(id), Some(TaskState::Cancelled));
    assert!(session.state.unread(child).is_empty());
    assert_eq!(session.state.stopped(), [agent]);
    assert_eq!(session.ask(PrincipalId::NODE, end(agent, 3, 0), vec![]).name(), "AgentEnded");
    assert!(session.state.stopped().is_empty());
    let views = views(&session);
    assert_eq!(views.agents.get(agent).and_then(|row| row.ended), Some((3, 0)));
    assert_eq!(views.tasks.get(id).map(|row| row.state), Some(TaskState::Cancelled));
    assert_eq!(session.state.open_calls(), 0);
    // One of its own is not stopped by another's stop.
    assert_eq!(code(&session.ask(PrincipalId::NODE, end(other, 3, 0), vec![])), 206);
}

#[test]
fn a_paused_agent_keeps_its_place() {
    let mut session = session_of(1);
    let opener = session.opener();
    let (agent, _) = running_top(&mut session, "audit.links");
    let (other, _) = top(&mut session, "audit.dates");
    session.ask(opener, pause(agent), vec![]);
    assert_eq!(code(&session.ask(opener, start(other), vec![])), 608);
    session.ask(opener, resume(agent), vec![]);
    assert_eq!(session.ask(agent, end(agent, 1, 0), vec![]).name(), "AgentEnded");
    assert_eq!(session.ask(opener, start(other), vec![]).name(), "AgentStarted");
}

#[test]
fn a_call_is_cancelled_by_its_asker_from_above_or_with_a_right() {
    let mut session = session();
    let (opener, admin) = (session.opener(), session.root(3));
    let (agent, own) = running_top(&mut session, "audit.links");
    let (child, childs) = running(&mut session, agent, "audit.dates", own);
    let cancel = |call| Ask::CancelCall(CancelAsked { call, why: 1, reason: None });
    let call = admitted(&mut session, agent, own);
    assert_eq!(code(&session.ask(child, cancel(call), vec![])), 312, "from below");
    let event = session.ask(agent, cancel(call), vec![]);
    assert_eq!((event.name(), event.causes.len()), ("CancelRequested", 1));
    assert!(matches!(session.effects[..], [Effect::Cancel(id)] if id == call));
    assert_eq!(code(&session.ask(agent, cancel(call), vec![])), 206);
    let views_of_it = views(&session);
    assert!(views_of_it.calls.is_cancelled(call));
    assert_eq!(views_of_it.calls.get(call).and_then(|row| row.cancelled), Some(session.head.seq - 1));
    session.finish(call, b"text");
    assert_eq!(code(&session.ask(agent, cancel(call), vec![])), 702);
    let call = admitted(&mut session, child, childs);
    assert_eq!(code(&session.ask(SERVICE, cancel(call), vec![])), 312);
    assert_eq!(session.ask(opener, cancel(call), vec![]).name(), "CancelRequested");
    let by_opener = {
        let (tool, fs) = (session.root(0), session.root(1));
        let event = session.call(opener, "project:a", tool, &[fs]);
        assert_eq!(event.name(), "CallAdmitted");
        CallId(session.made(0))
    };
    assert_eq!(code(&session.ask(agent, cancel(by_opener), vec![])), 312);
    assert_eq!(session.ask_under(opener, admin, None, cancel(by_opener), vec![]).name(), "CancelRequested");
}

fn attempt(call: CallId, attempt: u16, cause: u8) -> AttemptAsked {
    let status = if cause == 1 { 429 } else { 0 };
    AttemptAsked { call, attempt, cause, status, not_before: 0, usage: None, part: None }
}

#[test]
fn a_call_is_tried_again_three_times_within_its_deadline() {
    let mut session = session();
    let opener = session.opener();
    let (tool, fs) = (session.root(0), session.root(1));
    session.call(opener, "project:a", tool, &[fs]);
    let call = CallId(session.made(0));
    let Some(Effect::Start(first)) = session.effects.first().cloned() else { panic!("no start") };
    let ask = |asked| Ask::ReportAttempt(asked);
    let node = PrincipalId::NODE;
    assert_eq!(code(&session.ask(node, ask(attempt(call, 1, 1)), vec![])), 703);
    assert_eq!(code(&session.ask(EXECUTOR, ask(attempt(call, 2, 1)), vec![])), 206);
    assert_eq!(code(&session.ask(EXECUTOR, ask(AttemptAsked { status: 99, ..attempt(call, 1, 1) }), vec![])), 101);
    let late = AttemptAsked { not_before: first.deadline(), ..attempt(call, 1, 1) };
    assert_eq!(code(&session.ask(EXECUTOR, ask(late), vec![])), 211);
    let usage = Some(AttemptUsage { tokens_in: 7, tokens_cached: 3, tokens_out: 0 });
    let last = AttemptAsked { not_before: first.deadline() - 1, usage, ..attempt(call, 1, 1) };
    let event = session.ask(EXECUTOR, ask(last.clone()), vec![]);
    assert_eq!((event.name(), event.causes.as_slice()), ("CallAttempted", &[first.seq()][..]));
    let views_of_it = views(&session);
    let open: Vec<_> = views_of_it.calls.open_after(0).map(|call| (call.attempt(), call.not_before())).collect();
    assert_eq!(open, [(2, first.deadline() - 1)]);
    let row = views_of_it.calls.get(call).expect("a call");
    assert_eq!((row.attempts.len(), row.attempts[0].status, &row.attempts[0].usage), (1, 429, &last.usage));
    assert_eq!(code(&session.ask(EXECUTOR, Ask::Report(Box::new(report(call))), vec![])), 206, "of attempt 1");
    for number in 2..4 {
        assert_eq!(session.ask(EXECUTOR, ask(attempt(call, number, 4)), vec![]).name(), "CallAttempted");
    }
    assert_eq!(code(&session.ask(EXECUTOR, ask(attempt(call, 4, 4)), vec![])), 211, "no fifth");
    let ended = ReportAsked { attempt: 4, ..report(call) };
    assert_eq!(session.ask(EXECUTOR, Ask::Report(Box::new(ended)), vec![]).name(), "CallFinished");
    assert_eq!(code(&session.ask(EXECUTOR, ask(attempt(call, 4, 4)), vec![])), 702);
    // What is to be stopped is not tried again.
    session.call(opener, "project:a", tool, &[fs]);
    let call = CallId(session.made(0));
    session.ask(opener, Ask::CancelCall(CancelAsked { call, why: 1, reason: None }), vec![]);
    assert_eq!(code(&session.ask(EXECUTOR, ask(attempt(call, 1, 1)), vec![])), 211);
}

#[test]
fn what_must_not_run_twice_is_not_tried_again() {
    let mut session = session();
    let mut tool = reader();
    (tool.name, tool.effect) = ("once".to_owned(), EffectClass::Once.number());
    session.bind(tool.clone());
    let (opener, root, fs) = (session.opener(), session.root(0), session.root(1));
    let args = session.blob(b"{\"path\":\"project:a\"}");
    let Ask::Call(mut asked) = call("project:a", root, &[fs]) else { panic!("a call") };
    (asked.tool, asked.digest) = (tool.name, tool.digest);
    assert_eq!(session.ask(opener, Ask::Call(asked), vec![args]).name(), "CallAdmitted");
    let call = CallId(session.made(0));
    for (by, cause) in [(EXECUTOR, 2), (PrincipalId::NODE, 6)] {
        let event = session.ask(by, Ask::ReportAttempt(attempt(call, 1, cause)), vec![]);
        assert_eq!((code(&event), refused(&event).rule.as_deref()), (211, Some("it must not run twice")));
    }
}

#[test]
fn an_attempt_that_a_crash_has_hidden_is_charged_as_promised_while_there_is_room() {
    let mut session = session();
    let (opener, root, fs) = (session.opener(), session.root(0), session.root(1));
    // The reader promises 1 MiB in each direction, 30 s and 20 s of processor.
    let grant = toka_kernel::body::v1::GrantTo {
        parent: Some(root),
        cap: "tool:reader?bytes_in=2097152&calls=1".to_owned(),
        to: opener,
    };
    session.ask(opener, Ask::Grant(toka_kernel::body::v1::IssueAsked { grant }), vec![]);
    let own = GrantId(session.made(0));
    assert_eq!(session.call(opener, "project:a", own, &[fs]).name(), "CallAdmitted");
    let call = CallId(session.made(0));
    let meter = |session: &Session| {
        let rows = session.state.rows();
        let row = rows.iter().find(|(table, key, _)| *table == 5 && key[..] == own.0).expect("a meter");
        let value = crate::msgpack::Value::read(&row.2);
        (value.field("spnt").amounts()[..2].to_vec(), value.field("rsvd").amounts()[..2].to_vec())
    };
    assert_eq!(meter(&session), (vec![1, 0], vec![0, 1 << 20]));
    let node = PrincipalId::NODE;
    assert_eq!(session.ask(node, Ask::ReportAttempt(attempt(call, 1, 6)), vec![]).name(), "CallAttempted");
    assert_eq!(meter(&session), (vec![1, 1 << 20], vec![0, 1 << 20]));
    let event = session.ask(node, Ask::ReportAttempt(attempt(call, 2, 6)), vec![]);
    assert_eq!((code(&event), refused(&event).dim), (601, Some(Dim::BytesIn.number())));
    // So it ends as lost, and is charged for that attempt as well.
    let outcome = Outcome { kind: 10, detail: 1, number: None, symbol: None };
    let lost = ReportAsked { attempt: 2, outcome, actual: Vec::new(), ..report(call) };
    assert_eq!(session.ask(node, Ask::Report(Box::new(lost)), vec![]).name(), "CallFinished");
    assert_eq!(meter(&session), (vec![1, 2 << 20], vec![0, 0]));
}

/// A tool that asks a model: so many tokens, and what they cost where that is known.
fn model_tool(session: &mut Session, priced: bool) -> Digest {
    let mut tool = reader();
    tool.name = "model.small".to_owned();
    (tool.facts, tool.model) = (Vec::new(), 1);
    tool.digest = Digest([if priced { 0x51 } else { 0x52 }; 32]);
    tool.needs = vec![Need { text: "model:local.small".to_owned(), when: None }];
    let reserve = |dim: Dim, base| Reserve { dim: dim.number(), base, per: 0, pointer: None };
    tool.reserve = vec![reserve(Dim::Tokens, 100), reserve(Dim::WallUs, 1_000_000)];
    if priced {
        tool.reserve.push(reserve(Dim::CostMicro, 50));
    }
    let digest = tool.digest;
    assert_eq!(session.bind(tool).name(), "ToolBound");
    digest
}

#[test]
fn a_model_call_needs_the_model_and_settles_what_it_has_used() {
    for priced in [true, false] {
        let mut session = session();
        let opener = session.opener();
        let digest = model_tool(&mut session, priced);
        let grant = toka_kernel::body::v1::GrantTo {
            parent: Some(session.root(4)),
            cap: "model:local.*?tokens=150&cost_micro=90".to_owned(),
            to: opener,
        };
        session.ask(opener, Ask::Grant(toka_kernel::body::v1::IssueAsked { grant }), vec![]);
        let model = GrantId(session.made(0));
        let ask = |session: &mut Session, needs: &[GrantId]| {
            let args = session.blob(b"{}");
            let Ask::Call(mut asked) = call("", session.root(0), needs) else { panic!("a call") };
            (asked.tool, asked.digest) = ("model.small".to_owned(), digest);
            asked.facts.clear();
            session.ask(opener, Ask::Call(asked), vec![args])
        };
        let unnamed = ask(&mut session, &[]);
        assert_eq!((code(&unnamed), refused(&unnamed).need.as_deref()), (405, Some("model:local.small")));
        let files = session.root(1);
        assert_eq!(code(&ask(&mut session, &[files])), 403);
        let event = ask(&mut session, &[model]);
        if !priced {
            assert_eq!((code(&event), refused(&event).dim), (607, Some(Dim::CostMicro.number())));
            continue;
        }
        assert_eq!(event.name(), "CallAdmitted", "{event:?}");
        let id = CallId(session.made(0));
        let usage = |tokens_in, tokens_cached, tokens_out| {
            Some(Usage { tokens_in, tokens_cached, tokens_out, status: 200, estimated: false })
        };
        let said = |usage| ReportAsked { actual: vec![1, 0, 0, 40, 20], usage, ..report(id) };
        for (usage, answer) in [(usage(30, 31, 10), 101), (usage(30, 0, 11), 105), (usage(u64::MAX, 0, 41), 105)] {
            assert_eq!(code(&session.ask(EXECUTOR, Ask::Report(Box::new(said(usage))), vec![])), answer);
        }
        let event = session.ask(EXECUTOR, Ask::Report(Box::new(said(usage(30, 20, 10)))), vec![]);
        assert_eq!(event.name(), "CallFinished");
        let finished = views(&session).calls.get(id).and_then(|row| row.finished.clone()).expect("ended");
        assert_eq!(finished.usage.map(|usage| usage.tokens_cached), Some(20));
        // 40 of 150 are used; another 100 fit, and then no more.
        assert_eq!(ask(&mut session, &[model]).name(), "CallAdmitted");
        let event = ask(&mut session, &[model]);
        assert_eq!((code(&event), refused(&event).dim), (601, Some(Dim::Tokens.number())));
    }
}

#[test]
fn a_plan_names_agents_that_are_there_and_names_nothing_twice() {
    let mut session = session();
    let (opener, agents) = (session.opener(), session.root(2));
    let (agent, _) = running_top(&mut session, "audit.links");
    let (other, _) = top(&mut session, "audit.dates");
    session.ask(agent, end(agent, 2, 12), vec![]);
    let mut with = |change: &dyn Fn(&mut toka_kernel::body::v1::Plan)| {
        let text = session.blob(b"spec");
        let mut plan = plan();
        change(&mut plan);
        let asked = SpawnAsked {
            spec: "audit.links".to_owned(),
            text: 0,
            spec_digest: Digest([8; 32]),
            driver: 1,
            seed: Digest([9; 32]),
            grant: agents,
            need_grants: Vec::new(),
            asked: Vec::new(),
            narrow: Vec::new(),
            grants: Vec::new(),
            dropped: Vec::new(),
            plan,
        };
        code(&session.ask(opener, Ask::SpawnAgent(Box::new(asked)), vec![text]))
    };
    let retry = Retry { max: 2, base: 1, cap: 1 };
    let deliverable = |name: &str| toka_kernel::body::v1::Deliverable { name: name.to_owned(), required: true };
    let milestone = |name: &str, members: &[&str]| toka_kernel::body::v1::Milestone {
        name: name.to_owned(),
        members: members.iter().map(|member| (*member).to_owned()).collect(),
    };
    assert_eq!(with(&|plan| plan.requires = vec![agent, other]), 0);
    assert_eq!(with(&|plan| plan.requires = vec![agent, agent]), 101);
    assert_eq!(with(&|plan| plan.requires = vec![PrincipalId([7; 32])]), 101);
    assert_eq!(with(&|plan| plan.replaces = Some(agent)), 0);
    assert_eq!(with(&|plan| plan.replaces = Some(other)), 101, "of another spec, and not ended");
    assert_eq!(with(&|plan| plan.retry = Some(retry.clone())), 101, "nothing says that it is tried again");
    assert_eq!(with(&|plan| plan.then = 4), 101, "nor how");
    assert_eq!(with(&|plan| (plan.then, plan.retry) = (4, Some(retry.clone()))), 0);
    let long = Retry { cap: 86_400_000_001, ..retry.clone() };
    assert_eq!(with(&|plan| (plan.then, plan.retry) = (4, Some(long.clone()))), 101);
    assert_eq!(with(&|plan| plan.objectives = vec!["a".to_owned(), "b".to_owned()]), 0);
    assert_eq!(with(&|plan| plan.objectives = vec!["a".to_owned(), "a".to_owned()]), 101);
    assert_eq!(with(&|plan| plan.objectives = vec!["A".to_owned()]), 102);
    assert_eq!(with(&|plan| plan.deliverables = vec![deliverable("a"), deliverable("b")]), 0);
    assert_eq!(with(&|plan| plan.deliverables = vec![deliverable("a"), deliverable("a")]), 101);
    assert_eq!(with(&|plan| plan.milestones = vec![milestone("a", &["x", "y"])]), 0);
    assert_eq!(with(&|plan| plan.milestones = vec![milestone("a", &["x", "x"])]), 101);
    assert_eq!(with(&|plan| plan.milestones = vec![milestone("a", &[""])]), 102);
}

#[test]
fn the_views_say_what_the_agents_are_at() {
    let session = crate::golden::work();
    let views = views(&session);
    let words: Vec<&str> = views.timeline.iter().map(|moment| moment.what.as_str()).collect();
    for said in [
        "auditor paused: budget",
        "auditor goes on",
        "auditor is to stop: asked",
        "task scan of auditor scheduled",
        "task scan started",
        "task scan failed: NO_VALUE, to be tried again",
        "task scan started, attempt 2",
        "task scan completed",
        "task judge skipped: dependency",
        "message to auditor",
        "reader attempt 1: status 503",
        "reader is to be stopped: asked",
    ] {
        assert!(words.contains(&said), "{said}: {words:#?}");
    }
    let (agent, row) = views.agents.iter().next().expect("an agent");
    assert_eq!((row.state, row.ended), (AgentState::Ended, Some((3, 0))));
    assert!(row.stopping.as_ref().is_some_and(|held| held.why == 1 && held.reason.is_some()));
    assert!(row.paused.is_none() && row.refused.is_some());
    let names: Vec<&str> = views.tasks.of_agent(agent).map(|(_, row)| row.name.as_str()).collect();
    assert_eq!(names, ["scan", "judge"]);
    let (_, scan) = views.tasks.of_agent(agent).next().expect("a task");
    assert_eq!((scan.attempt, scan.code, scan.state), (2, Some(2), TaskState::Completed));
    assert!(scan.result.is_some() && scan.text.is_some());
    let (_, message) = views.mailboxes.iter().next().expect("a message");
    assert!(message.taken_at.is_some_and(|taken| taken > message.sent_at));
}
