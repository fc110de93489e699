//! Laws about the digest of the state and the commitments to it.

use std::collections::BTreeSet;

use proptest::prelude::*;
use toka_kernel::body::v1::{CommitAsked, FirstPrincipal};
use toka_kernel::ids::{Digest, PrincipalId};
use toka_kernel::{Ask, Body, Command, Entry, Event, Head, Stamp, State};
use toka_tests::session::{Keys, START_US, genesis};

use super::{SESSIONS, a_session, config, run, session::sealed};
use crate::model::world::{World, derived};
use crate::msgpack::Value;

/// The digest as the page defines it, over all rows at once.
fn scratch(state: &State) -> (Digest, u64) {
    let leaves: Vec<([u8; 32], [u8; 32])> = state
        .rows()
        .into_iter()
        .map(|(table, key, value)| {
            let path = [&table.to_be_bytes()[..], &key].concat();
            let len = (key.len() as u32).to_be_bytes();
            let leaf = [&table.to_be_bytes()[..], &len, &key, &value].concat();
            (
                blake3::derive_key("toka 2026-11 state-path v1", &path),
                blake3::derive_key("toka 2026-11 state-leaf v1", &leaf),
            )
        })
        .collect();
    (Digest(of_set(&leaves, 0)), leaves.len() as u64)
}

fn of_set(leaves: &[([u8; 32], [u8; 32])], depth: usize) -> [u8; 32] {
    match leaves {
        [] => [0; 32],
        [(_, leaf)] => *leaf,
        many => {
            let bit = |path: &[u8; 32]| path[depth / 8] & (0x80 >> (depth % 8)) != 0;
            let (right, left): (Vec<_>, Vec<_>) = many.iter().partition(|(path, _)| bit(path));
            match (left.is_empty(), right.is_empty()) {
                (true, _) => of_set(&right, depth + 1),
                (_, true) => of_set(&left, depth + 1),
                _ => {
                    let both = [of_set(&left, depth + 1), of_set(&right, depth + 1)].concat();
                    blake3::derive_key("toka 2026-11 state-node v1", &both)
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(config(SESSIONS))]

    #[test]
    fn state_digest_incremental_equals_scratch(session in a_session()) {
        let mut number = 0;
        run(session, |world, step| {
            number += 1;
            if number % 16 == 0 || matches!(step.event.body, Body::StateCommitted(_)) {
                prop_assert_eq!(world.state.digest(), scratch(&world.state));
            }
            Ok(())
        })?;
    }

    #[test]
    fn a_commitment_states_the_digest_of_the_entry_before(session in a_session()) {
        let mut before = None;
        run(session, |world, step| {
            if let (Body::StateCommitted(event), Some((digest, leaves))) = (&step.event.body, before) {
                prop_assert_eq!((event.digest, event.leaves, event.upto), (digest, leaves, world.head.seq - 1));
            }
            before = Some(world.state.digest());
            Ok(())
        })?;
    }

    /// A sealed entry at a due seq is illegal unless it commits to the state; a commitment is legal anywhere.
    #[test]
    fn a_commitment_is_due_at_each_interval_and_legal_anywhere((seed, steps) in a_session()) {
        let mut world = World::open(seed);
        for step in steps {
            let due = world.head.next_seq().is_multiple_of(64);
            prop_assert_eq!(world.state.commit_due(), due && !world.state.is_closed());
            if due {
                let commit = Command::of_node(Ask::CommitState(CommitAsked {}), Vec::new());
                let revoke = toka_kernel::body::v1::RevokeAsked { grant: Default::default(), reason: None };
                let other = Command::new(Default::default(), 0, Ask::Revoke(revoke), Vec::new());
                let opener = world.model.opener;
                prop_assert!(world.state.clone().apply(&sealed(&world, opener, &other)).is_err());
                prop_assert!(world.state.clone().apply(&sealed(&world, [0; 32], &commit)).is_ok());
            }
            world.step(step);
        }
    }

    #[test]
    fn an_ended_call_leaves_with_the_second_commitment(session in a_session()) {
        let (mut once, mut twice) = (BTreeSet::new(), BTreeSet::new());
        let (mut ended, mut doubts) = (BTreeSet::new(), BTreeSet::new());
        run(session, |world, step| {
            match &step.event.body {
                // What is in doubt stays until somebody has settled it.
                Body::CallFinished(event) if world.state.is_in_doubt(event.call) => {
                    doubts.insert(event.call.0.to_vec());
                }
                Body::CallFinished(event) => {
                    ended.insert(event.call.0.to_vec());
                }
                Body::OutcomeResolved(event) => {
                    doubts.remove(event.call.0.as_slice());
                    ended.insert(event.call.0.to_vec());
                }
                Body::StateCommitted(_) => {
                    twice.extend(std::mem::replace(&mut once, std::mem::take(&mut ended)));
                }
                _ => return Ok(()),
            }
            let rows = world.state.rows();
            let has = |id: &Vec<u8>| rows.iter().any(|(table, key, _)| *table == 12 && key == id);
            prop_assert!(ended.iter().chain(&once).chain(&doubts).all(has));
            prop_assert!(!twice.iter().any(has));
            Ok(())
        })?;
    }
}

#[test]
fn a_session_closes_only_behind_a_commitment() {
    let mut world = World::open(1);
    let close = |world: &World| {
        let asked = toka_kernel::body::v1::CloseAsked { why: 1, reason: None };
        let command = Command::new(Default::default(), 0, Ask::CloseSession(asked), Vec::new());
        world.state.decide(PrincipalId(world.model.opener), &command, world.now)
    };
    let Body::Refused(refused, _) = close(&world).body else { panic!("closed") };
    assert_eq!(refused.code, 211);
    let mut rng = crate::model::world::Rng(1);
    world.ask([0; 32], Default::default(), crate::model::rules::Ask::Commit, &mut rng);
    assert_eq!(close(&world).name(), "SessionClosed");
}

#[test]
fn ids_are_derived_as_documented() {
    let keys = Keys::seeded(1);
    let mut genesis = genesis(&keys, &["tool:*?exp=1800000000000000", "agent:*?exp=1800000000000000"], 64);
    let nameless = |kind, models| FirstPrincipal { id: None, kind, custody: 1, keys: Vec::new(), models };
    genesis.principals.insert(0, nameless(1, 0));
    genesis.principals.push(nameless(3, 7));
    let event: Event = State::open(&genesis, START_US).expect("a genesis");
    let stamp = Stamp { time_us: START_US, clock_behind: false };
    let entry = Entry::seal(&Head::none(), PrincipalId::NODE, stamp, event, &keys.writer());
    let mut state = State::new();
    assert_eq!(state.apply(&entry).expect("legal").into_iter().count(), 0);
    let made = |ordinal| derived(entry.hash().0, 0, ordinal).to_vec();
    let rows = state.rows();
    let kind = |id: Vec<u8>| {
        let row = rows.iter().find(|(table, key, _)| *table == 2 && *key == id).expect("a principal");
        Value::read(&row.2).field("kind").int()
    };
    assert_eq!((kind(made(0)), kind(made(1))), (1, 3));
    for ordinal in [2, 3] {
        assert!(rows.iter().any(|(table, key, _)| *table == 4 && *key == made(ordinal)));
    }
}
