//! Laws about budgets and rates.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use proptest::prelude::*;
use toka_kernel::ids::{GrantId, PrincipalId};
use toka_kernel::{Body, Code, Entry, Stamp};
use toka_tests::session::{START_US, Session};

use super::{CASES, SESSIONS, a_session, config, run};
use crate::model::rules::Id;
use crate::model::world::World;
use crate::msgpack::Value;

/// The grants on the chains of a call, what was promised to it, what attempts of it that were lost were charged, and what
/// was charged once it ended.
type Account = (BTreeSet<Id>, [u64; 7], [u128; 7], Option<[u64; 7]>);

/// What every call came to, gathered from the events alone.
#[derive(Default)]
struct Ledger {
    calls: BTreeMap<Id, Account>,
    overrun: BTreeSet<Id>,
}

impl Ledger {
    fn take(&mut self, world: &World, body: &Body) {
        match body {
            Body::CallAdmitted(event) => {
                let id = crate::model::world::derived(world.head.session.0, world.head.seq, 0);
                let leaves = std::iter::once(event.grant).chain(event.need_grants.iter().copied());
                let chains = leaves.flat_map(|leaf| world.model.chain(leaf.0)).collect();
                self.calls.insert(id, (chains, filled(&event.reserve), [0; 7], None));
            }
            Body::CallAttempted(event) if event.cause >= 6 => {
                let call = self.calls.get_mut(&event.call.0).expect("admitted");
                for index in 1..7 {
                    call.2[index] += u128::from(call.1[index]);
                }
            }
            Body::CallFinished(event) => {
                let call = self.calls.get_mut(&event.call.0).expect("admitted");
                assert!(call.3.is_none(), "settled twice");
                let mut charged = filled(event.charged.as_ref().unwrap_or(&event.actual));
                charged[0] = 0;
                let over: Vec<u64> = charged.iter().zip(call.1).map(|(c, r)| c.saturating_sub(r)).collect();
                let recorded = event.overrun.as_ref().map(|over| filled(over));
                assert_eq!(recorded.unwrap_or_default().to_vec(), over);
                if over.iter().any(|amount| *amount > 0) {
                    self.overrun.extend(&call.0);
                }
                call.3 = Some(charged);
            }
            _ => {}
        }
    }

    /// Whether no sum of this grant ever came near the top. Where one did, nothing limits it, and it stays there.
    fn is_exact(&self, grant: &Id, index: usize) -> bool {
        let under = self.calls.values().filter(|(chains, ..)| chains.contains(grant));
        let all = under.map(|(_, reserve, lost, charged)| {
            u128::from(reserve[index]) + lost[index] + charged.map_or(0, |charged| u128::from(charged[index]))
        });
        all.sum::<u128>() <= u128::from(u64::MAX)
    }

    /// Spent and reserved of a grant, summed from nothing.
    fn sums(&self, grant: &Id) -> ([u128; 7], [u128; 7]) {
        let (mut spent, mut reserved) = ([0; 7], [0; 7]);
        for (_, reserve, lost, charged) in self.calls.values().filter(|(chains, ..)| chains.contains(grant)) {
            spent[0] += u128::from(reserve[0]);
            for index in 1..7 {
                spent[index] += lost[index];
                match charged {
                    Some(charged) => spent[index] += u128::from(charged[index]),
                    None => reserved[index] += u128::from(reserve[index]),
                }
            }
        }
        (spent, reserved)
    }
}

fn filled(amounts: &[u64]) -> [u64; 7] {
    let mut all = [0; 7];
    all[..amounts.len()].copy_from_slice(amounts);
    all
}

fn meters(world: &World) -> Meters {
    let rows = world.state.rows().into_iter().filter(|(table, ..)| *table == 5);
    rows.map(|(_, key, value)| {
        let value = Value::read(&value);
        (key.try_into().expect("an id"), (value.field("spnt").amounts(), value.field("rsvd").amounts()))
    })
    .collect()
}

type Meters = BTreeMap<Id, ([u64; 7], [u64; 7])>;

/// Shows the meters and the ledger after every entry that moves them.
fn each_ledger(
    session: (u64, Vec<u64>),
    check: impl Fn(&World, &Ledger, &Meters) -> Result<(), TestCaseError>,
) -> Result<(), TestCaseError> {
    let mut ledger = Ledger::default();
    run(session, |world, step| {
        ledger.take(world, &step.event.body);
        let moves = matches!(step.event.body, Body::CallAdmitted(_) | Body::CallAttempted(_) | Body::CallFinished(_));
        if moves { check(world, &ledger, &meters(world)) } else { Ok(()) }
    })?;
    Ok(())
}

proptest! {
    #![proptest_config(config(SESSIONS))]

    #[test]
    fn budget_never_over(session in a_session()) {
        each_ledger(session, |world, ledger, meters| {
            for (id, (spent, reserved)) in meters {
                for (index, limit) in world.model.grants[id].cap.limits.iter().enumerate() {
                    let held = u128::from(spent[index]) + u128::from(reserved[index]);
                    let within = limit.is_none_or(|limit| held <= u128::from(limit));
                    prop_assert!(within || ledger.overrun.contains(id), "{index}: {held} above {limit:?}");
                }
            }
            Ok(())
        })?;
    }

    #[test]
    fn budget_parent_dominates(session in a_session()) {
        each_ledger(session, |world, ledger, meters| {
            for (id, (spent, reserved)) in meters {
                let Some(parent) = world.model.grants[id].parent else { continue };
                let (above_spent, above_reserved) = meters[&parent];
                for index in (0..7).filter(|index| ledger.is_exact(&parent, *index)) {
                    prop_assert!(spent[index] <= above_spent[index] && reserved[index] <= above_reserved[index]);
                }
            }
            Ok(())
        })?;
    }

    #[test]
    fn budget_conserved(session in a_session()) {
        each_ledger(session, |_, ledger, meters| {
            for (id, (spent, reserved)) in meters {
                let (all_spent, all_reserved) = ledger.sums(id);
                for index in (0..7).filter(|index| ledger.is_exact(id, *index)) {
                    prop_assert_eq!(u128::from(spent[index]), all_spent[index]);
                    prop_assert_eq!(u128::from(reserved[index]), all_reserved[index]);
                }
            }
            Ok(())
        })?;
    }

    #[test]
    fn calls_never_refunded(session in a_session()) {
        each_ledger(session, |_, ledger, meters| {
            for (id, (spent, reserved)) in meters {
                let admitted = ledger.calls.values().filter(|(chains, ..)| chains.contains(id)).count();
                prop_assert_eq!((spent[0], reserved[0]), (admitted as u64, 0));
            }
            Ok(())
        })?;
    }

    #[test]
    fn settle_once(session in a_session()) {
        let (mut admitted, mut finished) = (BTreeSet::new(), BTreeSet::new());
        let mut before = None;
        run(session, |world, step| {
            let meters = meters(world);
            match &step.event.body {
                Body::CallAdmitted(_) => {
                    admitted.insert(crate::model::world::derived(world.head.session.0, world.head.seq, 0));
                }
                Body::CallFinished(event) => {
                    prop_assert!(admitted.contains(&event.call.0));
                    prop_assert!(finished.insert(event.call), "settled twice");
                }
                // Sessions set aside and settle as well.
                Body::SessionRegistered(_) | Body::SessionEnded(_) => {}
                // An attempt that was lost is charged when it is, and not again when the call ends.
                Body::CallAttempted(event) if event.cause >= 6 => {}
                _ => prop_assert!(before.is_none_or(|before| before == meters.values().copied().sum_of())),
            }
            before = Some(meters.values().copied().sum_of());
            Ok(())
        })?;
    }
}

/// All that is spent and reserved under all grants: moved by nothing but admissions and reports, of calls and of sessions.
trait SumOf {
    fn sum_of(self) -> u128;
}

impl<I: Iterator<Item = ([u64; 7], [u64; 7])>> SumOf for I {
    fn sum_of(self) -> u128 {
        self.flat_map(|(spent, reserved)| spent.into_iter().chain(reserved)).map(u128::from).sum()
    }
}

/// Rates at the edges of what a rate may be.
const RATES: [(u32, u64); 12] = [
    (1, 1),
    (1, 1_000),
    (2, 1_000),
    (3, 7),
    (5, 333),
    (10, 100),
    (1, 10_000_000_000_000_000),
    (2, 5_000_000_000_000_000),
    (1_000_000, 1),
    (1_000_000, 10_000_000_000),
    (7, 60_000_000),
    (4, 1),
];

/// A session with one root per rate.
fn rated() -> &'static Session {
    static SESSION: OnceLock<Session> = OnceLock::new();
    SESSION.get_or_init(|| {
        let roots = RATES.map(|(burst, period)| format!("tool:*?rate={burst}/{period}&exp=9007199254740991"));
        let mut session = Session::open(&roots.each_ref().map(String::as_str));
        let mut tool = toka_tests::session::reader();
        (tool.facts, tool.needs) = (Vec::new(), Vec::new());
        session.bind(tool);
        session
    })
}

/// The times at which calls pass, of those at which they are tried; checks the named time to try again.
fn passed(rate: usize, steps: &[u64]) -> Result<Vec<u64>, TestCaseError> {
    let session = rated();
    let (burst, period) = RATES[rate];
    let (mut state, mut head) = (session.state.clone(), session.head);
    let mut now = session.now_us;
    // The bucket as a level of microseconds that drains by one per microsecond and holds `burst` periods.
    let (mut level, mut since) = (0u128, now);
    let mut passed = Vec::new();
    for step in steps {
        now = (now + step).min((1 << 53) - 2);
        let toka_kernel::Ask::Call(mut asked) =
            toka_tests::session::call("project:a", GrantId(session.root(rate as u32).0), &[])
        else {
            panic!("a call")
        };
        asked.facts.clear();
        let blob = session.blobs[0].reference;
        let command = toka_kernel::Command::new(
            toka_kernel::ids::CommandId([1; 16]),
            0,
            toka_kernel::Ask::Call(asked),
            vec![blob],
        );
        let event = state.decide(session.opener(), &command, now);
        level = level.saturating_sub(u128::from(now - since));
        since = now;
        let room = level + u128::from(period) <= u128::from(burst) * u128::from(period);
        match &event.body {
            Body::CallAdmitted(_) => {
                prop_assert!(room);
                level += u128::from(period);
                passed.push(now);
            }
            Body::Refused(refused, _) => {
                prop_assert_eq!(refused.code, Code::Rate.number());
                prop_assert!(!room);
                let wait = level + u128::from(period) - u128::from(burst) * u128::from(period);
                let retry = (u128::from(now) + wait).min((1 << 53) - 1);
                prop_assert_eq!(refused.retry_at.map(u128::from), Some(retry));
            }
            other => panic!("{other:?}"),
        }
        if matches!(event.body, Body::CallAdmitted(_)) {
            let stamp = Stamp { time_us: now, clock_behind: false };
            let entry = Entry::seal(&head, session.opener(), stamp, event, &session.keys.writer());
            // Only the meter matters here: a commitment to the state is not due within these few entries.
            let _ = state.apply(&entry).expect("legal");
            head = entry.head();
        }
    }
    Ok(passed)
}

fn a_try() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(1), 0u64..20, Just(333), Just(999), Just(1_000), Just(1_001), 0u64..10_000_000]
}

proptest! {
    #![proptest_config(config(CASES))]

    #[test]
    fn gcra_matches_model(rate in 0..RATES.len(), steps in prop::collection::vec(a_try(), 1..10)) {
        passed(rate, &steps)?;
    }

    #[test]
    fn gcra_window(rate in 0..RATES.len(), steps in prop::collection::vec(a_try(), 2..10)) {
        let passed = passed(rate, &steps)?;
        let (burst, period) = RATES[rate];
        for (first, from) in passed.iter().enumerate() {
            for (last, to) in passed.iter().enumerate().skip(first) {
                prop_assert!((last - first + 1) as u64 <= u64::from(burst) + (to - from) / period);
            }
        }
    }
}

#[test]
fn the_rated_session_has_time_left() {
    assert!(rated().now_us < START_US + 1_000_000);
    assert_ne!(rated().opener(), PrincipalId::NODE);
}
