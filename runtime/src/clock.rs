//! The clock, and the guard that keeps one wrong reading ahead out of every chain.
//!
//! Time never goes back in a chain, so an entry stamped years ahead would expire every grant of its session for good.
//! A [`GuardedClock`] therefore refuses to tell the time
//!
//! - while the wall clock stands more than [`STEP_US_MAX`] further ahead of the boot clock than it did when the guard
//!   was made, and
//! - when a session is resumed whose newest entry is more than [`GAP_US_MAX`] old.
//!
//! Nothing is written while it refuses, so the first is over as soon as the clock is set right. The second binds the
//! session that is resumed and no other: after a month away a person opens a new session, and what a wrong clock could
//! do there ends with that session. A clock that is behind is no fault here; the writer clamps the time and flags it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use toka_kernel::ids::TimeUs;
use toka_kernel::limits::TIME_US_MAX;

/// How far the wall clock may step ahead of the boot clock: 60 s.
pub const STEP_US_MAX: u64 = 60_000_000;
/// How old the newest entry of a session may be when it is resumed: 31 days.
pub const GAP_US_MAX: u64 = 31 * 86_400_000_000;

/// What two clocks show at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// µs since 1970-01-01T00:00:00Z, which people and servers set.
    pub wall_us: TimeUs,
    /// µs since some moment in the past; nobody sets it, and it runs on while the machine sleeps.
    pub boot_us: u64,
}

/// Something that tells the time.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Reads both clocks.
    fn read(&self) -> Reading;
}

/// The clocks of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn read(&self) -> Reading {
        let boot = clock_gettime(ClockId::Boottime);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Reading {
            wall_us: u64::try_from(wall.as_micros()).unwrap_or(u64::MAX).min(TIME_US_MAX),
            boot_us: u64::try_from(boot.tv_sec).unwrap_or_default() * 1_000_000
                + u64::try_from(boot.tv_nsec).unwrap_or_default() / 1_000,
        }
    }
}

/// A clock that stands still until it is pushed. Clones show the same time.
#[derive(Clone, Debug)]
pub struct PushedClock(Arc<Mutex<Reading>>);

impl PushedClock {
    /// A clock that shows `wall_us`.
    pub fn at(wall_us: TimeUs) -> PushedClock {
        PushedClock(Arc::new(Mutex::new(Reading { wall_us, boot_us: 0 })))
    }

    /// Lets `us` pass.
    pub fn push(&self, us: u64) {
        let mut reading = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reading.wall_us += us;
        reading.boot_us += us;
    }

    /// Sets the wall clock, while no time passes.
    pub fn set(&self, wall_us: TimeUs) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).wall_us = wall_us;
    }
}

impl Clock for PushedClock {
    fn read(&self) -> Reading {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A clock that refuses to tell a time which looks wrong.
#[derive(Clone, Debug)]
pub struct GuardedClock {
    clock: Arc<dyn Clock>,
    start: Reading,
}

impl GuardedClock {
    /// Guards `clock`, taking what it shows now as right.
    pub fn new(clock: Arc<dyn Clock>) -> GuardedClock {
        let start = clock.read();
        GuardedClock { clock, start }
    }

    /// The time of the next entry, in µs.
    ///
    /// # Errors
    /// [`ClockFault::Stepped`] while the wall clock stands too far ahead; nothing may be committed then.
    pub fn now_us(&self) -> Result<TimeUs, ClockFault> {
        let now = self.clock.read();
        let expected_us = self.start.wall_us.saturating_add(now.boot_us.saturating_sub(self.start.boot_us));
        if now.wall_us.saturating_sub(expected_us) > STEP_US_MAX {
            return Err(ClockFault::Stepped { expected_us, now_us: now.wall_us });
        }
        Ok(now.wall_us)
    }

    /// The time of the next entry of a session that was not open before in this process; `newest_us` is the time of
    /// its newest entry. A session that begins now needs [`GuardedClock::now_us`] only.
    ///
    /// # Errors
    /// [`ClockFault::FarAhead`] if the newest entry is too old; else as [`GuardedClock::now_us`].
    pub fn resume_us(&self, newest_us: TimeUs) -> Result<TimeUs, ClockFault> {
        let now_us = self.now_us()?;
        if now_us.saturating_sub(newest_us) > GAP_US_MAX {
            return Err(ClockFault::FarAhead { newest_us, now_us });
        }
        Ok(now_us)
    }
}

/// Why the time is not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClockFault {
    /// The wall clock was set ahead while this process ran.
    #[error(
        "the clock says {}, but by the time that has passed since this process began it is {}",
        utc(*now_us), utc(*expected_us)
    )]
    Stepped {
        /// The time by the boot clock, in µs.
        expected_us: TimeUs,
        /// The time the wall clock shows, in µs.
        now_us: TimeUs,
    },
    /// The wall clock is far ahead of the session to resume.
    #[error("the clock says {}, more than 31 days after the newest entry of this session, {}", utc(*now_us), utc(*newest_us))]
    FarAhead {
        /// The time of the newest entry, in µs.
        newest_us: TimeUs,
        /// The time the wall clock shows, in µs.
        now_us: TimeUs,
    },
}

impl ClockFault {
    /// The way on, for the line below the error.
    pub fn hint(&self) -> &'static str {
        match self {
            ClockFault::Stepped { .. } => {
                "nothing is written until they agree: set the clock right (`timedatectl status` shows it), or, if it is \
                 right now, start this process again"
            }
            ClockFault::FarAhead { .. } => {
                "if the clock is wrong, set it right (`timedatectl status` shows it); if it is right, open a new \
                 session: this one stays readable and verifiable, and this version does not resume it"
            }
        }
    }

    /// The exit status of a command that ends with this.
    pub fn exit_code(&self) -> u8 {
        1
    }
}

/// `us` as `2026-01-31T12:00:00Z`, without the part of a second.
pub fn utc(us: TimeUs) -> String {
    let seconds = us / 1_000_000;
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The date of a day counted from 1970-01-01. Years begin in March, so that the day that comes and goes is the last.
fn date(day: u64) -> (u64, u64, u64) {
    let day = day + 719_468; // from 0000-03-01
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + carry, month, day_of_month)
}
