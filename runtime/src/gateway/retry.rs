//! Whether a failed attempt is followed by another, and when: pure functions of what happened and what time it is.

use std::time::{Duration, UNIX_EPOCH};

use toka_kernel::ids::TimeUs;

use super::{Fault, Which};

/// The most attempts of one call.
pub const ATTEMPTS_MAX: u16 = 4;
/// The first wait, which doubles with each attempt: 1 s.
pub const WAIT_US: u64 = 1_000_000;
/// The longest wait of our own: 30 s.
pub const WAIT_US_MAX: u64 = 30_000_000;
/// The longest wait that a server may ask for: 60 s.
pub const ASKED_US_MAX: u64 = 60_000_000;

/// Why an attempt failed that is followed by another: the numbers of a `CallAttempted`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Cause {
    /// Its status.
    Status = 1,
    /// There was no connection.
    Connect = 2,
    /// There was no answer in time.
    Deadline = 3,
    /// Its body was cut.
    Cut = 4,
    /// What its body says.
    Reply = 5,
}

impl Cause {
    /// Its number.
    pub fn number(self) -> u8 {
        self as u8
    }
}

/// An attempt that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Which it was, from 1.
    pub attempt: u16,
    /// How many attempts before it failed with [`Fault::BadReply`].
    pub bad_replies: u16,
    /// What went wrong.
    pub fault: Fault,
    /// The HTTP status; 0 when there was none.
    pub status: u16,
    /// How long the server asks to be left alone.
    pub asked: Option<Asked>,
}

/// How long a server asks to be left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// For so many µs.
    For(u64),
    /// Until then, in µs.
    Until(TimeUs),
}

/// What follows a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another one, after so many µs.
    Wait {
        /// How long.
        us: u64,
        /// What is recorded about the attempt that failed.
        cause: Cause,
    },
    /// Nothing: the call ends with this.
    Give(Fault),
}

/// What follows `failed`. `jitter` is [`jitter`] of the call and the attempt.
pub fn next(failed: &Failed, now_us: TimeUs, deadline_us: TimeUs, jitter: u64) -> Next {
    let Some(cause) = cause(failed) else { return Next::Give(failed.fault) };
    let asked_us = failed.asked.map(|asked| match asked {
        Asked::For(us) => us,
        Asked::Until(at_us) => at_us.saturating_sub(now_us),
    });
    if let Some(us) = asked_us
        && (us > ASKED_US_MAX || now_us.saturating_add(us) >= deadline_us)
    {
        return Next::Give(Fault::RetryLater { at_us: now_us.saturating_add(us) });
    }
    let us = asked_us.unwrap_or_else(|| backoff_us(failed.attempt, jitter));
    if failed.attempt >= ATTEMPTS_MAX || now_us.saturating_add(us) >= deadline_us {
        return Next::Give(failed.fault);
    }
    Next::Wait { us, cause }
}

/// Why another attempt could help; `None` when it could not.
fn cause(failed: &Failed) -> Option<Cause> {
    match failed.fault {
        Fault::HttpStatus if is_passing(failed.status) => Some(Cause::Status),
        Fault::Unreachable | Fault::Deadline(Which::Connect) => Some(Cause::Connect),
        Fault::Deadline(Which::FirstByte) => Some(Cause::Deadline),
        Fault::StreamCut => Some(Cause::Cut),
        Fault::Upstream { overloaded: true } => Some(Cause::Reply),
        // Once: a server that answers nonsense twice will do it again.
        Fault::BadReply if failed.bad_replies == 0 => Some(Cause::Reply),
        Fault::HttpStatus
        | Fault::BadReply
        | Fault::Deadline(Which::Idle | Which::Total | Which::Queue)
        | Fault::Upstream { overloaded: false }
        | Fault::StreamTooLarge(_)
        | Fault::RetryLater { .. }
        | Fault::RecordedMiss
        | Fault::ScriptMismatch
        | Fault::NoKey
        | Fault::Cancelled => None,
    }
}

/// Statuses that pass.
fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 409 | 429 | 500 | 502 | 503 | 504 | 529)
}

/// The wait after an attempt: half of it is certain, the other half is drawn.
fn backoff_us(attempt: u16, jitter: u64) -> u64 {
    let doublings = u32::from(attempt.saturating_sub(1)).min(16);
    let half = (WAIT_US << doublings).min(WAIT_US_MAX) / 2;
    // Invariant: the upper half of a product of 64 and 25 bits is below its second factor.
    let drawn = u64::try_from((u128::from(half) * u128::from(jitter)) >> 64).unwrap_or(half);
    half + drawn
}

/// The number that a wait is drawn with, from a value of the call alone.
pub fn jitter(seed: &[u8; 32], attempt: u16) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key("toka 2026-11 gateway-jitter v1");
    hasher.update(seed).update(&attempt.to_be_bytes());
    let mut bytes = [0; 8];
    hasher.finalize_xof().fill(&mut bytes);
    u64::from_be_bytes(bytes)
}

/// What the headers `retry-after-ms` and `Retry-After` ask for; the first counts where both can be read.
pub fn asked(retry_after_ms: Option<&str>, retry_after: Option<&str>) -> Option<Asked> {
    if let Some(us) = retry_after_ms.and_then(|text| decimal(text, 1_000)) {
        return Some(Asked::For(us));
    }
    let text = retry_after?;
    match decimal(text, 1_000_000) {
        Some(us) => Some(Asked::For(us)),
        None => date(text).map(Asked::Until),
    }
}

/// A decimal number of units of `unit_us` µs, rounded up; what is too large is as large as it gets.
fn decimal(text: &str, unit_us: u64) -> Option<u64> {
    let (whole, fraction) = text.trim().split_once('.').unwrap_or((text.trim(), "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let whole = whole.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(unit_us);
    // Six places are as fine as a µs of a second; whatever stands behind them is one more.
    let places: String = fraction.chars().chain("000000".chars()).take(6).collect();
    let places = places.parse::<u64>().unwrap_or_default() + u64::from(fraction.len() > 6);
    Some(whole.saturating_add((places * unit_us).div_ceil(1_000_000)))
}

/// An HTTP date, in µs; one before 1970 is 1970.
fn date(text: &str) -> Option<TimeUs> {
    let at = httpdate::parse_http_date(text.trim()).ok()?;
    let since: Duration = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    Some(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: TimeUs = 1_800_000_000_000_000;
    const LATER: TimeUs = NOW + 600_000_000;

    fn status(status: u16, attempt: u16, asked: Option<Asked>) -> Failed {
        Failed { attempt, bad_replies: 0, fault: Fault::HttpStatus, status, asked }
    }

    #[test]
    fn what_passes_is_tried_again_and_nothing_else() {
        for code in 100..=599 {
            let again = matches!(next(&status(code, 1, None), NOW, LATER, 0), Next::Wait { cause: Cause::Status, .. });
            assert_eq!(again, [408, 409, 429, 500, 502, 503, 504, 529].contains(&code), "{code}");
        }
        let again = |fault, bad_replies| {
            let failed = Failed { attempt: 1, bad_replies, fault, status: 0, asked: None };
            matches!(next(&failed, NOW, LATER, 0), Next::Wait { .. })
        };
        for fault in [
            Fault::Unreachable,
            Fault::Deadline(Which::Connect),
            Fault::Deadline(Which::FirstByte),
            Fault::StreamCut,
            Fault::Upstream { overloaded: true },
            Fault::BadReply,
        ] {
            assert!(again(fault, 0), "{fault:?}");
        }
        assert!(!again(Fault::BadReply, 1), "a second bad reply ends the call");
        for fault in [
            Fault::Deadline(Which::Idle),
            Fault::Deadline(Which::Total),
            Fault::Deadline(Which::Queue),
            Fault::Upstream { overloaded: false },
            Fault::StreamTooLarge(super::super::Bound::Line),
            Fault::ScriptMismatch,
            Fault::RecordedMiss,
            Fault::NoKey,
            Fault::Cancelled,
        ] {
            assert!(!again(fault, 0), "{fault:?}");
        }
    }

    #[test]
    fn waits_double_up_to_thirty_seconds_and_half_of_them_is_drawn() {
        assert_eq!(backoff_us(1, 0), 500_000);
        assert_eq!(backoff_us(1, u64::MAX), 999_999);
        assert_eq!(backoff_us(2, 0), 1_000_000);
        assert_eq!(backoff_us(3, 1 << 63), 3_000_000);
        assert_eq!(backoff_us(6, 0), 15_000_000);
        assert_eq!(backoff_us(u16::MAX, u64::MAX), 29_999_999);
    }

    #[test]
    fn the_fourth_attempt_is_the_last() {
        assert!(matches!(next(&status(503, 3, None), NOW, LATER, 0), Next::Wait { .. }));
        assert_eq!(next(&status(503, 4, None), NOW, LATER, 0), Next::Give(Fault::HttpStatus));
    }

    #[test]
    fn a_server_is_heard_up_to_a_minute_and_the_deadline() {
        let wait = |asked| next(&status(429, 1, Some(asked)), NOW, LATER, 0);
        assert_eq!(wait(Asked::For(60_000_000)), Next::Wait { us: 60_000_000, cause: Cause::Status });
        assert_eq!(wait(Asked::For(60_000_001)), Next::Give(Fault::RetryLater { at_us: NOW + 60_000_001 }));
        assert_eq!(wait(Asked::Until(NOW + 7)), Next::Wait { us: 7, cause: Cause::Status });
        assert_eq!(wait(Asked::Until(NOW - 7)), Next::Wait { us: 0, cause: Cause::Status });
        assert_eq!(wait(Asked::Until(u64::MAX)), Next::Give(Fault::RetryLater { at_us: u64::MAX }));
        let short = next(&status(429, 1, Some(Asked::For(5))), NOW, NOW + 5, 0);
        assert_eq!(short, Next::Give(Fault::RetryLater { at_us: NOW + 5 }), "the deadline comes first");
        assert_eq!(next(&status(500, 1, None), NOW, NOW + 5, 0), Next::Give(Fault::HttpStatus), "nobody asked");
    }

    #[test]
    fn both_headers_are_read_in_each_of_their_forms() {
        assert_eq!(asked(Some("1500"), Some("9")), Some(Asked::For(1_500_000)));
        assert_eq!(asked(Some("0.5"), None), Some(Asked::For(500)));
        assert_eq!(asked(Some("soon"), Some("9")), Some(Asked::For(9_000_000)));
        assert_eq!(asked(None, Some(" 2.0000001 ")), Some(Asked::For(2_000_001)));
        assert_eq!(asked(None, Some("99999999999999999999")), Some(Asked::For(u64::MAX)));
        for date in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(asked(None, Some(date)), Some(Asked::Until(784_111_777_000_000)), "{date}");
        }
        for nonsense in ["", "-1", "1e3", ".5", "1.", "tomorrow", "+1"] {
            assert_eq!(asked(Some(nonsense), Some(nonsense)), None, "{nonsense:?}");
        }
    }

    #[test]
    fn jitter_is_of_the_call_and_the_attempt() {
        assert_eq!(jitter(&[1; 32], 1), jitter(&[1; 32], 1));
        assert_ne!(jitter(&[1; 32], 1), jitter(&[1; 32], 2));
        assert_ne!(jitter(&[1; 32], 1), jitter(&[2; 32], 1));
    }

    proptest! {
        #[test]
        fn no_wait_ends_beyond_the_deadline(
            attempt in 1u16..6,
            code in prop::sample::select(vec![408u16, 429, 500, 529]),
            ask in prop::option::of(0u64..200_000_000),
            left in 0u64..100_000_000,
            draw in any::<u64>(),
        ) {
            let failed = status(code, attempt, ask.map(Asked::For));
            match next(&failed, NOW, NOW + left, draw) {
                Next::Wait { us, .. } => {
                    prop_assert!(us < left && us <= ASKED_US_MAX && attempt < ATTEMPTS_MAX);
                    prop_assert!(ask.is_none_or(|ask| ask == us));
                }
                Next::Give(Fault::RetryLater { at_us }) => prop_assert_eq!(Some(at_us), ask.map(|ask| NOW + ask)),
                Next::Give(fault) => prop_assert_eq!(fault, Fault::HttpStatus),
            }
        }
    }
}
