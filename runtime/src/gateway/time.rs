//! How time passes between attempts: an argument, so that a test lets it pass by a word.

use std::fmt;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use toka_tools::Cancel;

use crate::clock::PushedClock;

/// How often a wait looks whether it is to end: 50 ms.
pub(super) const LOOK_US: u64 = 50_000;

/// Lets time pass.
pub trait Wait: fmt::Debug + Send + Sync {
    /// Waits for `us` µs; `false` as soon as `stop` is requested.
    fn wait(&self, us: u64, stop: &dyn Cancel) -> bool;
}

/// Waits as long as it says.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealTime;

impl Wait for RealTime {
    fn wait(&self, us: u64, stop: &dyn Cancel) -> bool {
        let until = Instant::now() + Duration::from_micros(us);
        let (_kept, nothing) = channel::<()>();
        loop {
            if stop.requested() {
                return false;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            // Nobody sends: this returns when its time is over.
            let _ = nothing.recv_timeout(left.min(Duration::from_micros(LOOK_US)));
        }
    }
}

/// A wait that is over at once, while the clock shows that it took place.
impl Wait for PushedClock {
    fn wait(&self, us: u64, stop: &dyn Cancel) -> bool {
        if stop.requested() {
            return false;
        }
        self.push(us);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::clock::Clock;

    #[test]
    fn a_wait_that_is_told_to_end_ends_at_once() {
        let (go_on, end) = (AtomicBool::new(false), AtomicBool::new(true));
        assert!(RealTime.wait(1, &go_on));
        assert!(!RealTime.wait(3_600_000_000, &end));
        let clock = PushedClock::at(5);
        assert!(clock.wait(7, &go_on) && !clock.wait(7, &end));
        assert_eq!(clock.read().wall_us, 12);
    }
}
