//! When a family is refused for a while.
//!
//! A breaker protects an upstream that keeps failing, and the callers who would wait for it. *Closed* is serving, *open* is
//! refusing, *half-open* lets one probe through.
//!
//! Rules:
//! * It opens after a run of consecutive throttled scouts or hard failures. Any other answer ends the run: one such as
//!   401 or 404 shows that the upstream is alive, too.
//! * One burst is one event: of attempts in flight together only the first failure counts. What left before the previous
//!   hint had ended does not count: there the caller's own pacing was at fault, not the upstream.
//! * The cool-down is the newest hint; without one it starts at 30 s and doubles to a cap.
//! * A host that cannot be reached is asked again soon: what does not arrive costs it nothing, and a restart takes seconds.
//!   There the cool-down starts at a second and doubles up to the first cool-down of a failure.
//! * What left before the breaker opened has no say in when it closes.

use std::time::Duration;

use crate::event::BreakerState;
use crate::time::Mono;

/// The numbers of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerConfig {
    /// Consecutive events that open it; at least 1.
    pub threshold: u32,
    /// The first cool-down where no hint is given.
    pub cool_down: Duration,
    /// The longest cool-down where no hint is given.
    pub longest_cool_down: Duration,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self { threshold: 5, cool_down: Duration::from_secs(30), longest_cool_down: Duration::from_mins(5) }
    }
}

/// What a breaker says to one more attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Go.
    Serve,
    /// Go, alone: the answer decides.
    Probe,
    /// A probe is on its way: wait for its answer.
    AwaitProbe,
    /// Come back at this instant.
    Refuse(Mono),
}

/// A change of state, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The new state.
    pub state: BreakerState,
    /// Why, in a few words.
    pub cause: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Open { since: Mono, until: Mono },
    HalfOpen { since: Mono, probe: Option<Mono> },
}

/// The breaker of one family.
///
/// ```
/// use std::time::Duration;
/// use tidegate_core::breaker::{Admission, Breaker, BreakerConfig};
/// use tidegate_core::time::Mono;
///
/// let mut breaker = Breaker::new(BreakerConfig { threshold: 2, ..BreakerConfig::default() });
/// let at = |secs| Mono::ZERO + Duration::from_secs(secs);
/// breaker.failed(at(1), at(0), None);
/// assert_eq!(breaker.admission(at(1)), Admission::Serve);
/// assert!(breaker.failed(at(3), at(2), None).is_some(), "the second in a row opens it");
/// assert_eq!(breaker.admission(at(4)), Admission::Refuse(at(33)));
/// ```
#[derive(Debug)]
pub struct Breaker {
    config: BreakerConfig,
    state: State,
    run: u32,
    /// Openings in a row, for the doubling.
    openings: u32,
    /// Attempts that left before this belong to a burst already counted.
    counted_until: Mono,
    /// Whose probe it is, where others share the breaker.
    probing: Probing,
    /// How often in a row they had nothing to tell of it while it serves.
    nothing_new: u32,
}

/// What others know of a breaker that they share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Others {
    /// It refuses for so long.
    pub(crate) refuses_for: Duration,
    /// How often it opened in a row.
    pub(crate) openings: u32,
    /// The probe is ours.
    pub(crate) may_probe: bool,
    /// They have not lost what they were told.
    pub(crate) remember: bool,
}

/// Who may probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probing {
    /// Whoever comes first here: nobody shares the breaker.
    Own,
    /// Whoever the others agree on; not to be asked for before.
    Asked(Mono),
    /// We, until then.
    Granted(Mono),
}

impl Breaker {
    /// The first cool-down of a host that cannot be reached.
    const UNREACHABLE: Duration = Duration::from_secs(1);
    /// An unanswered probe holds up the next no longer than this.
    const PROBE_PATIENCE: Duration = Duration::from_secs(15);
    /// A probe that the others gave us, and one that another has, is waited for so long.
    const SHARED_PROBE: Duration = Duration::from_secs(3);
    /// They remember an opening for so long after its cool-down, at least.
    const REMEMBERED: Duration = Duration::from_secs(55);
    /// They are asked again no sooner.
    const ASKED_AGAIN: Duration = Duration::from_millis(250);
    /// While it serves after a failure, twice as late each time, up to eight seconds: calls that wait for quota may wait for
    /// minutes, and many processes that asked at one pace would do little else.
    const DOUBLINGS: u32 = 5;

    /// A closed breaker.
    pub fn new(config: BreakerConfig) -> Self {
        Self {
            config,
            state: State::Closed,
            run: 0,
            openings: 0,
            counted_until: Mono::ZERO,
            probing: Probing::Own,
            nothing_new: 0,
        }
    }

    /// The state at `now`: an open breaker whose cool-down has ended is half-open.
    pub fn state(&self, now: Mono) -> BreakerState {
        match self.state {
            State::Closed => BreakerState::Closed,
            State::Open { until, .. } if now < until => BreakerState::Open,
            State::Open { .. } | State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// What it says to one more attempt. Changes nothing.
    pub fn admission(&self, now: Mono) -> Admission {
        match self.state {
            State::Closed => Admission::Serve,
            State::Open { until, .. } if now < until => Admission::Refuse(until),
            State::HalfOpen { probe: Some(left), .. } if now < left + Self::PROBE_PATIENCE => {
                Admission::AwaitProbe
            }
            State::Open { .. } | State::HalfOpen { .. } if self.asks(now).is_some() => Admission::AwaitProbe,
            State::Open { .. } | State::HalfOpen { .. } => Admission::Probe,
        }
    }

    /// From when on the others are to be asked for the probe, if they are.
    fn asks(&self, now: Mono) -> Option<Mono> {
        match self.probing {
            Probing::Asked(at) => Some(at),
            Probing::Granted(until) if now >= until => Some(until),
            Probing::Own | Probing::Granted(_) => None,
        }
    }

    /// Others share the breaker, or no longer.
    pub(crate) fn share(&mut self, now: Mono, shared: bool) {
        self.probing = if shared { Probing::Asked(now) } else { Probing::Own };
    }

    /// When the others are to be asked about it: for the probe, once the cool-down has ended and none of ours is on its way, and
    /// what they know, while failures run.
    pub(crate) fn asks_others(&self, now: Mono) -> Option<Mono> {
        let asks = self.asks(now)?;
        match self.state {
            State::Closed if self.run == 0 => None,
            State::Closed => Some(asks),
            State::Open { until, .. } => Some(asks.max(until)),
            State::HalfOpen { probe, .. } => {
                Some(probe.map_or(asks, |left| asks.max(left + Self::PROBE_PATIENCE)))
            }
        }
    }

    /// How often it opened in a row.
    pub(crate) fn openings(&self) -> u32 {
        self.openings
    }

    /// What the others know of it: for how long it refuses, how often it opened in a row, and whether the probe is ours. One
    /// that they remember as never opened, though it was told, is closed: somebody was answered.
    pub(crate) fn heard(&mut self, now: Mono, others: &Others) -> Option<Transition> {
        let &Others { refuses_for, openings, may_probe, remember } = others;
        let serves = self.state == State::Closed && refuses_for.is_zero();
        self.probing = if may_probe {
            Probing::Granted(now + Self::SHARED_PROBE)
        } else if serves {
            Probing::Asked(now + Self::ASKED_AGAIN * 2_u32.pow(self.nothing_new.min(Self::DOUBLINGS)))
        } else {
            Probing::Asked(now + Self::ASKED_AGAIN)
        };
        self.nothing_new = if serves { self.nothing_new.saturating_add(1) } else { 0 };
        if refuses_for.is_zero() {
            let told = match self.state {
                State::Closed => false,
                State::Open { until, .. } => now >= until && now < until + Self::REMEMBERED,
                State::HalfOpen { probe, .. } => probe.is_none(),
            };
            if !(told && remember && openings == 0) {
                return None;
            }
            (self.state, self.run, self.openings) = (State::Closed, 0, 0);
            return Some(Transition { state: BreakerState::Closed, cause: "another process was answered" });
        }
        let until = now + refuses_for;
        match self.state {
            State::Closed => {
                (self.openings, self.run) = (openings, 0);
                self.state = State::Open { since: now, until };
                Some(Transition { state: BreakerState::Open, cause: "opened by another process" })
            }
            State::Open { since, until: own } => {
                self.state = State::Open { since, until: own.max(until) };
                None
            }
            State::HalfOpen { .. } => None,
        }
    }

    /// Until when an unanswered probe is waited for. None where the others have to be asked first.
    pub fn probe_until(&self) -> Option<Mono> {
        match self.state {
            State::HalfOpen { probe: Some(left), .. } => Some(left + Self::PROBE_PATIENCE),
            _ => None,
        }
    }

    /// An attempt was admitted. If it is the probe, the breaker becomes half-open.
    pub fn admitted(&mut self, now: Mono) -> Option<Transition> {
        match self.state {
            State::Open { since, until } if now >= until => {
                self.state = State::HalfOpen { since, probe: Some(now) };
                Some(Transition { state: BreakerState::HalfOpen, cause: "cool-down ended" })
            }
            State::HalfOpen { since, .. } => {
                self.state = State::HalfOpen { since, probe: Some(now) };
                None
            }
            State::Open { .. } | State::Closed => None,
        }
    }

    /// The attempt that was admitted at `admitted` ended without an answer that says anything. If it was the probe,
    /// another may probe; one from before the opening leaves the probe its place.
    pub fn lost(&mut self, admitted: Mono) {
        if let State::HalfOpen { since, probe } = self.state
            && probe == Some(admitted)
        {
            self.state = State::HalfOpen { since, probe: None };
        }
    }

    /// An attempt that left at `sent` got an answer that is no failure of the upstream: it was accepted, or the
    /// fault is the caller's (401, 404, other 4xx).
    pub fn alive(&mut self, sent: Mono) -> Option<Transition> {
        match self.state {
            State::Closed if sent >= self.counted_until => {
                self.run = 0;
                None
            }
            State::HalfOpen { since, .. } if sent >= since => {
                self.state = State::Closed;
                self.run = 0;
                self.openings = 0;
                Some(Transition { state: BreakerState::Closed, cause: "probe answered" })
            }
            _ => None,
        }
    }

    /// An attempt that left at `sent` was throttled; `hint` is how long to stay away.
    pub fn throttled(&mut self, now: Mono, sent: Mono, hint: Option<Duration>) -> Option<Transition> {
        self.refused(now, sent, hint, "throttled repeatedly")
    }

    /// What left before a hint has ended belongs to the event that gave it.
    fn refused(
        &mut self,
        now: Mono,
        sent: Mono,
        hint: Option<Duration>,
        cause: &'static str,
    ) -> Option<Transition> {
        let counts = sent >= self.counted_until;
        let until = now + hint.unwrap_or(Duration::ZERO);
        if let State::Open { since, until: open_until } = self.state {
            // The newest hint of the same burst.
            self.state = State::Open { since, until: open_until.max(until) };
        }
        self.counted_until = self.counted_until.max(until);
        self.count(now, counts, sent, hint, cause)
    }

    /// An attempt that left at `sent` did not get to the upstream at all.
    pub fn unreachable(&mut self, now: Mono, sent: Mono) -> Option<Transition> {
        let counts = sent >= self.counted_until;
        self.counted_until = self.counted_until.max(now);
        let wait = Self::UNREACHABLE.saturating_mul(2_u32.saturating_pow(self.openings.min(16)));
        self.count(now, counts, sent, Some(wait.min(self.config.cool_down)), "cannot be reached")
    }

    /// An attempt that left at `sent` failed in a way that blames the upstream (5xx, connection lost, time-out). `hint`
    /// is the wait that its answer named, as a 503 with `Retry-After` does (RFC 9110 section 10.2.3).
    pub fn failed(&mut self, now: Mono, sent: Mono, hint: Option<Duration>) -> Option<Transition> {
        self.refused(now, sent, hint, "failed repeatedly")
    }

    /// Until when it refuses, and how often it opened in a row. Nothing if it is closed.
    pub(crate) fn keep(&self, now: Mono) -> Option<(Mono, u32)> {
        match self.state {
            State::Closed => None,
            State::Open { until, .. } => Some((until, self.openings)),
            State::HalfOpen { .. } => Some((now, self.openings)),
        }
    }

    /// Open until `until`, as it was kept.
    pub(crate) fn restore(&mut self, now: Mono, until: Mono, openings: u32) {
        self.openings = openings;
        self.state = State::Open { since: now, until: until.max(now) };
    }

    fn count(
        &mut self,
        now: Mono,
        counts: bool,
        sent: Mono,
        hint: Option<Duration>,
        cause: &'static str,
    ) -> Option<Transition> {
        match self.state {
            State::Open { .. } => None,
            State::HalfOpen { since, .. } => (sent >= since).then(|| self.open(now, hint, "probe failed")),
            State::Closed => {
                self.run = self.run.saturating_add(u32::from(counts));
                // What failed anew may have failed for others too.
                self.nothing_new = 0;
                if let Probing::Asked(at) = self.probing {
                    self.probing = Probing::Asked(at.min(now + Self::ASKED_AGAIN));
                }
                (counts && self.run >= self.config.threshold.max(1)).then(|| self.open(now, hint, cause))
            }
        }
    }

    fn open(&mut self, now: Mono, hint: Option<Duration>, cause: &'static str) -> Transition {
        let doubled = self.config.cool_down.saturating_mul(2_u32.saturating_pow(self.openings.min(16)));
        let wait = hint.unwrap_or_else(|| doubled.min(self.config.longest_cool_down));
        self.openings = self.openings.saturating_add(1);
        self.state = State::Open { since: now, until: now + wait };
        Transition { state: BreakerState::Open, cause }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Mono {
        Mono::ZERO + Duration::from_secs(secs)
    }

    const HINT: Option<Duration> = Some(Duration::from_secs(10));

    #[test]
    fn a_host_that_cannot_be_reached_is_asked_again_soon_and_then_less_often() {
        let mut breaker = Breaker::new(BreakerConfig { threshold: 1, ..BreakerConfig::default() });
        let mut now = at(0);
        let mut waits = Vec::new();
        for _ in 0..7 {
            assert!(breaker.unreachable(now, now).is_some());
            let Admission::Refuse(until) = breaker.admission(now) else { panic!("open") };
            waits.push((until - now).as_secs());
            now = until;
            breaker.admitted(now);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
    }

    #[test]
    fn a_burst_of_throttles_is_one_event() {
        let mut breaker = Breaker::new(BreakerConfig::default());
        for _ in 0..40 {
            assert_eq!(breaker.throttled(at(1), at(0), HINT), None);
        }
        assert_eq!(breaker.state(at(1)), BreakerState::Closed);
    }

    #[test]
    fn a_throttle_counts_only_if_its_scout_left_after_the_hint() {
        let mut breaker = Breaker::new(BreakerConfig::default());
        for round in 0..4 {
            assert_eq!(breaker.throttled(at(20 * round + 1), at(20 * round), HINT), None);
            assert_eq!(
                breaker.throttled(at(20 * round + 3), at(20 * round + 2), HINT),
                None,
                "within the hint"
            );
        }
        let opened = breaker.throttled(at(81), at(80), HINT).unwrap();
        assert_eq!(opened.state, BreakerState::Open);
        assert_eq!(breaker.admission(at(82)), Admission::Refuse(at(91)));
    }

    #[test]
    fn a_failure_that_names_its_time_is_probed_then_and_its_burst_is_one_event() {
        let mut breaker = Breaker::new(BreakerConfig { threshold: 2, ..BreakerConfig::default() });
        assert_eq!(breaker.failed(at(1), at(0), HINT), None);
        assert_eq!(breaker.failed(at(5), at(4), HINT), None, "within the hint: the same event");
        let opened = breaker.failed(at(17), at(16), HINT).unwrap();
        assert_eq!(opened.state, BreakerState::Open);
        assert_eq!(breaker.admission(at(18)), Admission::Refuse(at(27)), "the hint, not 30 s");
    }

    #[test]
    fn failures_with_other_answers_between_them_are_no_run() {
        let mut breaker = Breaker::new(BreakerConfig::default());
        for round in 0..40 {
            for failure in 0..4 {
                let sent = at(20 * round + 2 * failure);
                assert_eq!(breaker.failed(sent + Duration::from_secs(1), sent, None), None);
            }
            assert_eq!(breaker.alive(at(20 * round + 9)), None);
        }
        assert_eq!(breaker.state(at(800)), BreakerState::Closed);
    }

    #[test]
    fn an_answer_to_an_attempt_of_a_counted_burst_does_not_end_the_run() {
        let mut breaker = Breaker::new(BreakerConfig { threshold: 2, ..BreakerConfig::default() });
        assert_eq!(breaker.failed(at(5), at(4), None), None);
        assert_eq!(breaker.alive(at(3)), None, "it left before the failure was known");
        assert!(breaker.failed(at(7), at(6), None).is_some());
    }

    #[test]
    fn without_a_hint_the_cool_down_doubles_to_its_cap() {
        let config = BreakerConfig { threshold: 1, ..BreakerConfig::default() };
        let mut breaker = Breaker::new(config);
        let mut now = at(1);
        breaker.failed(now, now, None);
        for expected in [30, 60, 120, 240, 300, 300] {
            let Admission::Refuse(until) = breaker.admission(now) else { panic!("not open") };
            assert_eq!(until - now, Duration::from_secs(expected));
            now = until;
            assert_eq!(breaker.admission(now), Admission::Probe);
            assert_eq!(breaker.admitted(now).map(|change| change.state), Some(BreakerState::HalfOpen));
            assert_eq!(breaker.admission(now), Admission::AwaitProbe);
            assert_eq!(breaker.failed(now, now, None).map(|change| change.state), Some(BreakerState::Open));
        }
    }

    #[test]
    fn only_the_probe_closes_it() {
        let mut breaker = Breaker::new(BreakerConfig { threshold: 1, ..BreakerConfig::default() });
        breaker.failed(at(5), at(4), None);
        assert_eq!(breaker.alive(at(3)), None, "it left before the breaker opened");
        assert_eq!(breaker.state(at(6)), BreakerState::Open);
        breaker.admitted(at(35));
        breaker.lost(at(2));
        assert_eq!(breaker.admission(at(36)), Admission::AwaitProbe, "what was lost is not the probe");
        breaker.lost(at(35));
        assert_eq!(breaker.admission(at(36)), Admission::Probe, "a lost probe is replaced");
        breaker.admitted(at(36));
        assert_eq!(breaker.alive(at(36)).map(|change| change.state), Some(BreakerState::Closed));
    }

    fn others(refuses_for: u64, openings: u32, may_probe: bool) -> Others {
        Others { refuses_for: Duration::from_secs(refuses_for), openings, may_probe, remember: true }
    }

    #[test]
    fn a_shared_breaker_probes_only_when_the_others_let_it() {
        let mut breaker = Breaker::new(BreakerConfig { threshold: 1, ..BreakerConfig::default() });
        breaker.share(at(0), true);
        assert_eq!(breaker.asks_others(at(0)), None, "nothing failed");
        breaker.failed(at(1), at(0), HINT);
        assert_eq!(breaker.asks_others(at(2)), Some(at(11)), "when its cool-down ends");
        assert_eq!(breaker.admission(at(11)), Admission::AwaitProbe);
        assert_eq!(breaker.heard(at(11), &others(0, 1, false)), None);
        assert_eq!(breaker.admission(at(12)), Admission::AwaitProbe, "another probes");
        breaker.heard(at(12), &others(0, 1, true));
        assert_eq!(breaker.admission(at(12)), Admission::Probe);
        assert_eq!(breaker.admission(at(15)), Admission::AwaitProbe, "it was not used in time");
        breaker.share(at(15), false);
        assert_eq!(breaker.admission(at(15)), Admission::Probe, "without the store it does as if alone");
    }

    #[test]
    fn others_with_nothing_to_tell_are_asked_less_and_less_often_until_something_fails_again() {
        let mut breaker = Breaker::new(BreakerConfig::default());
        breaker.share(at(0), true);
        breaker.failed(at(1), at(0), None);
        let mut asked = at(1);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            breaker.heard(asked, &others(0, 0, false));
            let next = breaker.asks_others(asked).unwrap();
            pauses.push((next - asked).as_millis());
            asked = next;
        }
        assert_eq!(pauses, [250, 500, 1_000, 2_000, 4_000, 8_000, 8_000, 8_000]);
        breaker.heard(asked, &others(0, 0, false));
        breaker.failed(asked, asked, None);
        assert_eq!(breaker.asks_others(asked), Some(asked + Duration::from_millis(250)));
    }

    #[test]
    fn a_shared_breaker_opens_and_closes_with_the_others() {
        let mut breaker = Breaker::new(BreakerConfig::default());
        breaker.share(at(0), true);
        breaker.failed(at(1), at(0), None);
        assert_eq!(breaker.asks_others(at(1)), Some(at(0)), "one failure is enough to ask");
        let opened = breaker.heard(at(1), &others(30, 2, false)).unwrap();
        assert_eq!(opened.state, BreakerState::Open);
        assert_eq!(breaker.admission(at(2)), Admission::Refuse(at(31)));
        assert_eq!(breaker.openings(), 2, "the next cool-down is as long as theirs");
        assert_eq!(breaker.heard(at(20), &others(0, 0, true)), None, "its own cool-down goes on");
        let forgot = Others { remember: false, ..others(0, 0, false) };
        assert_eq!(breaker.heard(at(32), &forgot), None, "a store that forgot proves nothing");
        let closed = breaker.heard(at(32), &others(0, 0, false)).unwrap();
        assert_eq!(closed.state, BreakerState::Closed);
        assert_eq!(breaker.admission(at(32)), Admission::Serve);
    }
}
