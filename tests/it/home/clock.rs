//! The guard of the clock, over a clock that is pushed.

use std::sync::Arc;

use toka_runtime::clock::{Clock, ClockFault, GAP_US_MAX, GuardedClock, PushedClock, STEP_US_MAX, SystemClock, utc};

use super::{DAY_US, START_US};

const SECOND_US: u64 = 1_000_000;

#[test]
fn a_clock_that_steps_ahead_stops_the_time_until_it_is_set_right() {
    // By how much the wall clock is set off after an hour, and whether the time is told.
    for (off_us, told) in [
        (0_i64, true),
        (STEP_US_MAX as i64, true),
        (STEP_US_MAX as i64 + 1, false),
        (365 * DAY_US as i64, false),
        (-(STEP_US_MAX as i64) - 1, true),
        (-365 * DAY_US as i64, true),
    ] {
        let clock = PushedClock::at(START_US);
        let guard = GuardedClock::new(Arc::new(clock.clone()));
        clock.push(3_600 * SECOND_US);
        let right_us = START_US + 3_600 * SECOND_US;
        let wrong_us = right_us.checked_add_signed(off_us).unwrap();
        clock.set(wrong_us);
        let expected =
            if told { Ok(wrong_us) } else { Err(ClockFault::Stepped { expected_us: right_us, now_us: wrong_us }) };
        assert_eq!(guard.now_us(), expected, "{off_us}");
        assert_eq!(guard.resume_us(wrong_us), expected, "{off_us}");
        clock.set(right_us);
        clock.push(SECOND_US);
        assert_eq!(guard.now_us(), Ok(right_us + SECOND_US), "{off_us}");
    }
}

#[test]
fn steps_add_up_and_a_step_back_may_be_undone() {
    let clock = PushedClock::at(START_US);
    let guard = GuardedClock::new(Arc::new(clock.clone()));
    clock.set(START_US + 40 * SECOND_US);
    assert!(guard.now_us().is_ok());
    clock.set(START_US + 80 * SECOND_US);
    assert!(guard.now_us().is_err());
    clock.set(START_US - DAY_US);
    assert!(guard.now_us().is_ok());
    clock.set(START_US);
    assert!(guard.now_us().is_ok());
}

#[test]
fn a_session_is_not_resumed_by_a_clock_far_ahead_of_it() {
    for (gap_us, told) in [(0, true), (GAP_US_MAX, true), (GAP_US_MAX + 1, false), (4_000 * DAY_US, false)] {
        let guard = GuardedClock::new(Arc::new(PushedClock::at(START_US + gap_us)));
        let expected = if told {
            Ok(START_US + gap_us)
        } else {
            Err(ClockFault::FarAhead { newest_us: START_US, now_us: START_US + gap_us })
        };
        assert_eq!(guard.resume_us(START_US), expected, "{gap_us}");
        assert_eq!(guard.now_us(), Ok(START_US + gap_us), "a new session may begin at any time");
    }
    let guard = GuardedClock::new(Arc::new(PushedClock::at(START_US)));
    assert_eq!(guard.resume_us(START_US + DAY_US), Ok(START_US), "a clock that is behind is clamped by the writer");
}

#[test]
fn a_refusal_gives_both_times_and_the_way_on() {
    let stepped = ClockFault::Stepped { expected_us: START_US, now_us: START_US + 61 * SECOND_US };
    assert_eq!(
        stepped.to_string(),
        "the clock says 2026-01-01T00:01:01Z, but by the time that has passed since this process began it is \
         2026-01-01T00:00:00Z"
    );
    assert!(stepped.hint().contains("set the clock right") && stepped.exit_code() == 1);
    let far = ClockFault::FarAhead { newest_us: START_US, now_us: START_US + 32 * DAY_US };
    assert_eq!(
        far.to_string(),
        "the clock says 2026-02-02T00:00:00Z, more than 31 days after the newest entry of this session, \
         2026-01-01T00:00:00Z"
    );
    assert!(far.hint().contains("open a new session") && far.exit_code() == 1);
}

#[test]
fn the_clocks_of_this_machine_run() {
    let (one, two) = (SystemClock.read(), SystemClock.read());
    assert!(one.wall_us > START_US && two.boot_us >= one.boot_us && one.boot_us > 0);
}

#[test]
fn times_are_written_as_people_write_them() {
    for (us, text) in [
        (0, "1970-01-01T00:00:00Z"),
        (951_782_400_000_000, "2000-02-29T00:00:00Z"),
        (951_868_799_999_999, "2000-02-29T23:59:59Z"),
        (START_US, "2026-01-01T00:00:00Z"),
        (4_107_542_400_000_000, "2100-03-01T00:00:00Z"),
        ((1 << 53) - 1, "2255-06-05T23:47:34Z"),
    ] {
        assert_eq!(utc(us), text);
    }
}
