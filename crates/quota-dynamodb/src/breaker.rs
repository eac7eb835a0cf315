//! A table that does not answer delays nobody twice.
//!
//! After three late answers in a row, or as soon as nothing can be reached, requests are refused at once; one is let through
//! after 200 ms, then after twice as long each, up to one second, so a table that is back is found within two. These are the
//! numbers of the Redis store; what is beneath is not: there is no connection to mend in the background, because each request
//! takes one from the library's pool, and whoever asks next is the probe.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::fault::Fault;

/// Answers in a row that may be late.
const LATE: u32 = 3;
/// Between probes, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(1));

/// Whether requests may be sent.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    late: u32,
    shut: Option<Shut>,
}

#[derive(Debug)]
struct Shut {
    fault: Fault,
    pause: Duration,
    /// The next probe may leave.
    until: Instant,
}

impl Breaker {
    /// Whether a request may leave at `now`; otherwise why not, and when to ask again.
    pub(crate) fn may(&self, now: Instant) -> Result<(), (Fault, Duration)> {
        let mut state = self.state.lock();
        let Some(shut) = &mut state.shut else { return Ok(()) };
        if now < shut.until {
            return Err((shut.fault.clone(), shut.until - now));
        }
        // A probe that is dropped must not keep the others out for good: the next one follows after the pause.
        shut.until = now + shut.pause;
        Ok(())
    }

    /// There was an answer, whatever it said.
    pub(crate) fn answered(&self) {
        *self.state.lock() = State::default();
    }

    /// There was none. `at_once`: nothing was reached.
    pub(crate) fn failed(&self, now: Instant, fault: &Fault, at_once: bool) {
        let mut state = self.state.lock();
        state.late += 1;
        let pause = match &state.shut {
            Some(shut) => (2 * shut.pause).min(PAUSE.1),
            None if at_once || state.late >= LATE => PAUSE.0,
            None => return,
        };
        state.shut = Some(Shut { fault: fault.clone(), pause, until: now + pause });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn late() -> Fault {
        Fault::late(Duration::from_millis(250))
    }

    #[test]
    fn three_late_answers_in_a_row_shut_it_and_an_answer_opens_it() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        breaker.failed(now, &late(), false);
        breaker.failed(now, &late(), false);
        breaker.answered();
        breaker.failed(now, &late(), false);
        breaker.failed(now, &late(), false);
        assert!(breaker.may(now).is_ok());
        breaker.failed(now, &late(), false);
        assert_eq!(breaker.may(now), Err((late(), PAUSE.0)));
        assert!(breaker.may(now + PAUSE.0).is_ok(), "the probe");
        assert!(breaker.may(now + PAUSE.0).is_err(), "one at a time");
        breaker.answered();
        assert!(breaker.may(now).is_ok());
    }

    #[test]
    fn probes_are_never_more_than_a_second_apart() {
        let breaker = Breaker::default();
        let mut now = Instant::now();
        breaker.failed(now, &late(), true);
        let mut pauses = Vec::new();
        for _ in 0..5 {
            let (_, pause) = breaker.may(now).unwrap_err();
            pauses.push(u64::try_from(pause.as_millis()).unwrap());
            now += pause;
            assert!(breaker.may(now).is_ok());
            breaker.failed(now, &late(), false);
        }
        assert_eq!(pauses, [200, 400, 800, 1_000, 1_000]);
    }
}
