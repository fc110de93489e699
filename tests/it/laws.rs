//! The laws of the kernel, each a property over generated sessions or values.
//!
//! Where a case is a whole session, a law sees at least 10,000 commands; the others have at least 10,000 cases.

mod budget;
mod bytes;
mod decide;
mod session;
mod state;

use proptest::prelude::*;

pub(crate) use bytes::{sample, system_sample};

use crate::model::world::{Step, World};

/// Cases of a law about single values.
const CASES: u32 = 10_000;
/// Sessions of a law about whole sessions, and commands of each: 12,800 commands.
const SESSIONS: u32 = 64;
const COMMANDS: usize = 200;

fn config(cases: u32) -> ProptestConfig {
    // Many kinds hold nothing that `decide` fills, and a law about that passes over them.
    let max_global_rejects = cases;
    ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 100,
        max_global_rejects,
        ..ProptestConfig::default()
    }
}

/// The seed of a session and of each of its commands.
fn a_session() -> impl Strategy<Value = (u64, Vec<u64>)> {
    (any::<u64>(), prop::collection::vec(any::<u64>(), COMMANDS))
}

/// Runs a session and shows each step to `check`, with the world after it.
fn run(
    (seed, steps): (u64, Vec<u64>),
    mut check: impl FnMut(&World, &Step) -> Result<(), TestCaseError>,
) -> Result<World, TestCaseError> {
    let mut world = World::open(seed);
    for step in steps {
        let step = world.step(step);
        check(&world, &step)?;
    }
    Ok(world)
}
