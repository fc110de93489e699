//! Laws about what may happen in a session, one command after the other.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use toka_kernel::ids::{GrantId, PrincipalId};
use toka_kernel::{Ask, Body, Command, Effect, Entry, Event, Head, Stamp, State};

use super::{SESSIONS, a_session, config, run};
use crate::model::rules::Id;
use crate::model::world::{World, derived};

proptest! {
    #![proptest_config(config(SESSIONS))]

    #[test]
    fn replay_equals_live(session in a_session()) {
        let mut live = Vec::new();
        let mut seen = 0;
        let world = run(session, |world, _| {
            if world.entries.len() > seen {
                seen = world.entries.len();
                live.push(format!("{:?}", world.effects));
            }
            Ok(())
        })?;
        let (mut head, mut state, mut effects) = (Head::none(), State::new(), Vec::new());
        for entry in &world.entries {
            let read = Entry::read(entry.bytes()).expect("a whole entry");
            prop_assert_eq!(read.event(), entry.event());
            head = head.accept(&read, &world.keyring).expect("accepted");
            effects.push(format!("{:?}", state.apply(&read).expect("legal").into_iter().collect::<Vec<Effect>>()));
        }
        prop_assert_eq!(head, world.head);
        prop_assert_eq!(state.digest(), world.state.digest());
        prop_assert_eq!(state.rows(), world.state.rows());
        let tail = effects.len() - live.len();
        prop_assert_eq!(&effects[tail..], &live[..]);
    }

    #[test]
    fn refusal_moves_nothing(session in a_session()) {
        let moved = |world: &World| {
            let rows = world.state.rows().into_iter();
            rows.filter(|(table, ..)| *table != 15).collect::<Vec<_>>()
        };
        let mut before = None;
        run(session, |world, step| {
            let after = moved(world);
            if let (Body::Refused(..), Some(before)) = (&step.event.body, &before) {
                prop_assert_eq!(before, &after);
                prop_assert!(world.effects.is_empty());
            }
            before = Some(after);
            Ok(())
        })?;
    }

    /// A grant in an event is filled; the command that the event implies is decided to the same event.
    #[test]
    fn an_event_answers_the_command_it_implies(session in a_session()) {
        let mut before = None;
        run(session, |world, step| {
            if let (Some(state), Some(command)) = (before.take(), step.event.command()) {
                let state: State = state;
                prop_assert_eq!(&state.decide(PrincipalId(step.by), &command, world.now), &step.event);
            }
            before = Some(world.state.clone());
            Ok(())
        })?;
    }

    /// Compared by seq: no action of an agent, and no start of one, stands behind the entry that pauses or stops it or one
    /// above it. And never do more agents run than may.
    #[test]
    fn no_action_starts_after_a_pause(session in a_session()) {
        let mut held = Held::default();
        run(session, |world, step| {
            let acts = match &step.event.body {
                Body::CallAdmitted(_) | Body::AgentSpawned(_) | Body::MessageSent(_) => Some(step.by),
                Body::TaskStarted(_) | Body::MessageTaken(_) => Some(step.by),
                Body::AgentStarted(event) => Some(event.agent.0),
                _ => None,
            };
            if let Some(since) = acts.and_then(|agent| held.holding(agent)) {
                prop_assert!(world.head.seq < since, "{} stands behind {}", world.head.seq, since);
            }
            held.take(world, &step.event.body);
            let top = held.running.iter().filter(|agent| !held.parents.contains_key(&held.parents[*agent]));
            prop_assert!(top.count() <= 3 && held.running.len() <= 256);
            Ok(())
        })?;
    }

    #[test]
    fn drop_any_grant_denies(session in a_session()) {
        let mut before: Option<State> = None;
        run(session, |world, step| {
            if let (Some(state), Some(command)) = (before.take(), step.event.command()) {
                let foreign = |grant: &Id| world.model.grants.get(grant).is_none_or(|grant| grant.subject != step.by);
                let stranger = world.model.grants.keys().copied().find(foreign).unwrap_or([3; 32]);
                for id in [[3; 32], stranger] {
                    for other in without_each_grant(&step.event, &command, GrantId(id)) {
                        let event = state.decide(PrincipalId(step.by), &other, world.now);
                        prop_assert!(matches!(event.body, Body::Refused(..)), "{:?} came to {:?}", other, event);
                    }
                }
            }
            before = Some(world.state.clone());
            Ok(())
        })?;
    }

    #[test]
    fn admitted_under_every_ancestor(session in a_session()) {
        run(session, |world, step| {
            let grew = matches!(step.event.body, Body::GrantIssued(_) | Body::AgentSpawned(_));
            for grant in world.model.grants.values().filter(|_| grew) {
                let above = grant.parent.map(|parent| world.model.chain(parent)).unwrap_or_default();
                for up in above {
                    prop_assert_eq!(grant.cap.within(&world.model.grants[&up].cap), Ok(()));
                    prop_assert!(grant.cap.depth < world.model.grants[&up].cap.depth);
                }
            }
            let Some(Effect::Start(call)) = world.effects.first() else { return Ok(()) };
            let Body::CallAdmitted(admitted) = &step.event.body else { return Ok(()) };
            let named: Vec<GrantId> =
                std::iter::once(admitted.grant).chain(admitted.need_grants.iter().copied()).collect();
            prop_assert_eq!(call.envelope().len(), named.len());
            for (need, leaf) in call.envelope().iter().zip(named) {
                prop_assert_eq!(need.scope.within(&need.within), Ok(()));
                for up in world.model.chain(leaf.0) {
                    let text = world.model.grants[&up].cap.text();
                    let held = toka_kernel::capability::Capability::parse(&text).expect("canonical");
                    prop_assert_eq!(need.scope.within(&held.scope), Ok(()));
                }
            }
            Ok(())
        })?;
    }

    #[test]
    fn revoke_final(session in a_session()) {
        let mut revoked: BTreeSet<Id> = BTreeSet::new();
        run(session, |world, step| {
            let named: Vec<GrantId> = match &step.event.body {
                Body::GrantRevoked(event) => {
                    revoked.insert(event.grant.0);
                    for effect in &world.effects {
                        let Effect::Cancel(call) = effect else { panic!("{effect:?}") };
                        let grants = &world.model.calls[&call.0].grants;
                        prop_assert!(grants.iter().any(|leaf| world.model.chain(*leaf).contains(&event.grant.0)));
                    }
                    Vec::new()
                }
                Body::CallAdmitted(event) => {
                    std::iter::once(event.grant).chain(event.need_grants.iter().copied()).collect()
                }
                Body::AgentSpawned(event) => {
                    std::iter::once(event.grant).chain(event.grants.iter().filter_map(|grant| grant.parent)).collect()
                }
                Body::GrantIssued(event) => event.grant.parent.into_iter().collect(),
                Body::CallFinished(event) => {
                    let call = &world.model.calls[&event.call.0];
                    let gone = |id: Id| revoked.contains(&id) || !world.model.principals[&world.model.grants[&id].subject].alive;
                    let late = call.grants.iter().any(|leaf| world.model.chain(*leaf).into_iter().any(gone));
                    prop_assert_eq!(event.late, late);
                    Vec::new()
                }
                _ => Vec::new(),
            };
            for grant in named {
                prop_assert!(world.model.chain(grant.0).iter().all(|id| !revoked.contains(id)));
            }
            Ok(())
        })?;
    }

    #[test]
    fn spawn_atomic(session in a_session()) {
        let mut before = None;
        run(session, |world, step| {
            let grants = world.model.grants.len();
            let rows = world.state.rows();
            let has = |table: u16, id: Id| rows.iter().any(|(of, key, _)| *of == table && key[..] == id);
            if let Body::AgentSpawned(event) = &step.event.body {
                let made = |ordinal| derived(world.head.session.0, world.head.seq, ordinal);
                prop_assert!(has(2, made(0)) && has(8, made(0)));
                prop_assert!(before.is_none_or(|before| grants == before + event.grants.len()));
                for (ordinal, grant) in (1..).zip(&event.grants) {
                    prop_assert!(has(4, made(ordinal)) && has(5, made(ordinal)));
                    prop_assert_eq!(grant.subject.0, made(0));
                    prop_assert_eq!(grant.issuer.0, step.by);
                }
            }
            before = Some(grants);
            Ok(())
        })?;
    }
}

/// Where an agent began to be held by an entry of its own, and who made it: told from the entries alone.
#[derive(Default)]
struct Held {
    since: BTreeMap<Id, u64>,
    parents: BTreeMap<Id, Id>,
    running: BTreeSet<Id>,
}

impl Held {
    fn take(&mut self, world: &World, body: &Body) {
        let seq = world.head.seq;
        match body {
            Body::AgentSpawned(event) => {
                self.parents.insert(derived(world.head.session.0, seq, 0), event.parent.0);
            }
            Body::AgentStarted(event) => {
                self.running.insert(event.agent.0);
            }
            Body::AgentPaused(event) => {
                self.since.insert(event.agent.0, seq);
            }
            Body::AgentResumed(event) => {
                self.since.remove(&event.agent.0);
            }
            Body::AgentStopping(event) => {
                self.since.insert(event.agent.0, seq);
                self.running.remove(&event.agent.0);
            }
            Body::AgentEnded(event) => {
                self.running.remove(&event.agent.0);
            }
            _ => {}
        }
    }

    /// The entry that holds an agent, or one above it.
    fn holding(&self, agent: Id) -> Option<u64> {
        let own = self.since.get(&agent).copied();
        own.or_else(|| self.parents.get(&agent).and_then(|parent| self.holding(*parent)))
    }
}

/// The command with each grant it names replaced by `id`, and with each that it could leave out left out.
fn without_each_grant(event: &Event, command: &Command, id: GrantId) -> Vec<Command> {
    let with = |ask: Ask| Command { ask, ..command.clone() };
    let mut all = Vec::new();
    // A right that is named must be held, even by those who could do without.
    if command.under.is_some() && !matches!(event.body, Body::Refused(..)) {
        all.push(Command { under: Some(id), ..command.clone() });
    }
    match (&event.body, &command.ask) {
        (Body::CallAdmitted(_), Ask::Call(asked)) => {
            let mut other = asked.clone();
            other.grant = id;
            all.push(with(Ask::Call(other)));
            for index in 0..asked.need_grants.len() {
                let (mut replaced, mut removed) = (asked.clone(), asked.clone());
                replaced.need_grants[index] = id;
                removed.need_grants.remove(index);
                all.extend([replaced, removed].map(|other| with(Ask::Call(other))));
            }
        }
        (Body::AgentSpawned(_), Ask::SpawnAgent(asked)) => {
            let mut other = asked.clone();
            other.grant = id;
            all.push(with(Ask::SpawnAgent(other)));
            for index in 0..asked.grants.len() {
                for parent in [Some(id), None] {
                    let mut other = asked.clone();
                    other.grants[index].parent = parent;
                    all.push(with(Ask::SpawnAgent(other)));
                }
            }
        }
        (Body::GrantIssued(_), Ask::Grant(asked)) if asked.grant.parent.is_some() => {
            for parent in [Some(id), None] {
                let mut other = asked.clone();
                other.grant.parent = parent;
                all.push(with(Ask::Grant(other)));
            }
        }
        _ => {}
    }
    all
}

/// Seals whatever is decided, for tests that then look at the entry.
pub(super) fn sealed(world: &World, by: Id, command: &Command) -> Entry {
    let event = world.state.decide(PrincipalId(by), command, world.now);
    let stamp = Stamp { time_us: world.now, clock_behind: false };
    Entry::seal(&world.head, PrincipalId(by), stamp, event, &world.writer)
}
