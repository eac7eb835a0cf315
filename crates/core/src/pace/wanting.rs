//! What the calls of a lane want of shared limits: those that wait, and those that will come.
//!
//! A process that asked only for who waits would ask with every call. So it asks for what its lanes are likely to draw while
//! permits are valid, by how many calls came in the last seconds.

use std::time::Duration;

use crate::pace::secs::secs;
use crate::schedule::Class;
use crate::time::Mono;

/// What the calls of one lane want.
#[derive(Debug, Default)]
pub(super) struct Wanting {
    /// Calls by class, each fading since it came.
    counts: [f32; Class::COUNT],
    /// When one came last.
    last: Mono,
    /// It was told to ask again then.
    come_back: Mono,
    /// The most important class for which it was told so.
    denied: Option<Class>,
    /// How often in a row it was told so.
    denials: u32,
    /// When an exchange is due for it.
    pub(super) due: Option<Mono>,
}

impl Wanting {
    /// Calls count for about so many seconds.
    const MEMORY: f64 = 2.0;
    /// A lane without calls for so long wants nothing.
    const IDLE: Duration = Duration::from_secs(5);
    /// Who was denied does not ask again sooner, however often.
    pub(super) const SOONEST: Duration = Duration::from_millis(5);
    const DOUBLINGS: u32 = 6;

    /// A call comes. One that comes alone says nothing of a rate: nothing is asked ahead because of it.
    pub(super) fn asked(&mut self, now: Mono, class: Class) {
        let fade = self.fade(now);
        for count in &mut self.counts {
            *count *= fade;
        }
        let alone = self.last == Mono::ZERO || self.is_idle(now);
        self.counts[class.index()] += if alone { 0.0 } else { 1.0 };
        self.last = now;
    }

    #[expect(clippy::cast_possible_truncation, reason = "an estimate needs no more digits")]
    fn fade(&self, now: Mono) -> f32 {
        (-(secs(now) - secs(self.last)).max(0.0) / Self::MEMORY).exp() as f32
    }

    /// Calls expected within `time`, by class.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the cast saturates, and counts are positive"
    )]
    pub(super) fn soon(&self, now: Mono, time: Duration) -> [u32; Class::COUNT] {
        let fade = f64::from(self.fade(now)) * time.as_secs_f64() / Self::MEMORY;
        self.counts.map(|count| (f64::from(count) * fade).round() as u32)
    }

    /// No calls came of late.
    pub(super) fn is_idle(&self, now: Mono) -> bool {
        now - self.last >= Self::IDLE
    }

    /// A call of `class` waits: who was denied because of less important ones may ask again, and who was told so when none
    /// waited: that was about calls that may come, and no answer to one that has come.
    pub(super) fn waits(&mut self, class: Class) {
        if self.denied.is_none_or(|denied| class < denied) {
            self.come_back = Mono::ZERO;
        }
    }

    /// It got permits.
    pub(super) fn granted(&mut self, come_back: Mono) {
        (self.come_back, self.denied, self.denials) = (come_back, None, 0);
    }

    /// It got none, of calls up to this importance.
    pub(super) fn denied(&mut self, now: Mono, class: Option<Class>, come_back: Mono) {
        let pause = Self::SOONEST * 2_u32.pow(self.denials.min(Self::DOUBLINGS));
        self.denials = self.denials.saturating_add(1);
        // Whoever was told a time may rely on it.
        let told = come_back > now + Self::SOONEST;
        self.come_back = if told { come_back } else { now + pause };
        self.denied = class;
    }

    /// Before that there is nothing for it.
    pub(super) fn come_back(&self) -> Mono {
        self.come_back
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Mono {
        Mono::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn a_steady_stream_is_expected_to_go_on_and_forgotten_when_it_ends() {
        let mut wanting = Wanting::default();
        for step in 0..100 {
            wanting.asked(at(100 * step), Class::Bulk);
        }
        let [_, _, bulk, _] = wanting.soon(at(10_000), Duration::from_secs(5));
        assert!((45..=55).contains(&bulk), "{bulk} of 10 per second");
        assert!(!wanting.is_idle(at(10_000)));
        assert!(wanting.is_idle(at(15_000)));
        assert!(wanting.soon(at(20_000), Duration::from_secs(5))[2] < 2);
    }

    #[test]
    fn a_call_that_comes_alone_lets_no_further_one_be_expected() {
        let mut wanting = Wanting::default();
        for minute in 1..5 {
            wanting.asked(at(60_000 * minute), Class::Bulk);
            assert_eq!(wanting.soon(at(60_000 * minute), Duration::from_secs(5)), [0; 4]);
        }
        wanting.asked(at(240_100), Class::Bulk);
        let [_, _, bulk, _] = wanting.soon(at(240_100), Duration::from_secs(5));
        assert!(bulk > 0, "the second of a burst");
    }

    #[test]
    fn an_important_call_does_not_wait_for_what_a_lesser_one_was_told() {
        let mut wanting = Wanting::default();
        wanting.denied(at(0), Some(Class::Bulk), at(4_000));
        wanting.waits(Class::Poll);
        assert_eq!(wanting.come_back(), at(4_000));
        wanting.waits(Class::Interactive);
        assert_eq!(wanting.come_back(), Mono::ZERO);
    }

    #[test]
    fn a_call_that_comes_does_not_wait_for_what_was_told_when_none_waited() {
        let mut wanting = Wanting::default();
        wanting.denied(at(0), None, at(5_000));
        assert_eq!(wanting.come_back(), at(5_000));
        wanting.waits(Class::Bulk);
        assert_eq!(wanting.come_back(), Mono::ZERO);
        wanting.denied(at(10), Some(Class::Bulk), at(5_000));
        wanting.waits(Class::Bulk);
        assert_eq!(wanting.come_back(), at(5_000), "it was answered now");
    }

    #[test]
    fn who_is_denied_again_and_again_asks_less_and_less_often() {
        let mut wanting = Wanting::default();
        let mut last = Duration::ZERO;
        for _ in 0..10 {
            wanting.denied(at(0), None, at(0));
            assert!(wanting.come_back() - at(0) >= last);
            last = wanting.come_back() - at(0);
        }
        assert_eq!(last, Duration::from_millis(320));
        wanting.granted(at(0));
        wanting.denied(at(0), None, at(0));
        assert_eq!(wanting.come_back(), at(5));
    }
}
