//! A declared quota, paced as a sliding log of own attempts.
//!
//! Where the server says nothing on a 200 (Genesys today), at most `quota` own attempts in **any** window of the declared
//! length is safe under every alignment of the server's windows. An attempt counts from the permit until one window
//! after its answer, because the server handled it no later than that.
//!
//! The log is compressed: attempts that ended less than 1/2048 of a window apart are one entry, which comes back when the
//! last of them may. So it holds at most 2 050 entries (33 kB), whatever the quota, and each permit comes back late by at
//! most 1/2048 of a window: the log never grants what the exact one would not, and grants all that an exact log of a window
//! longer by that grants, 0.9995 of the quota. Both are tested against a log that keeps everything.
//!
//! An aligned window lets a client have twice its quota around an edge. Using that needs the phase, which no answer of a
//! silent server tells: only a refusal names an edge (by its hint, to the second), and a refusal is what a declared quota
//! is there to avoid. So a declared quota is spent as if the edge were everywhere.
//!
//! A sliding counter refuses bursts that a log allows, because it takes the window before for evenly used. How many of a second
//! burst it accepts depends on its phase, so that no single scout can tell. So the second burst is tried with few in flight, a
//! fortieth of the quota or what it takes to spend it within a sixth of a window; accepted, it proves bursts for good. The first
//! throttle of a gate that kept to its declaration refutes them: from then on permits leave evenly, a little below the
//! quota, which every rule allows. That throttle may have been a stranger's, or the rule may change: after [`Sliding::AGAIN`]
//! windows without another, and twice as many each further time, bursts are tried again with few in flight. Others may use the same quota, or the declaration may be wrong: if throttles come all the
//! same, the quota is multiplied by a learnt share, cut on a throttle to a little below what was in use, and recovered
//! along a cubic curve.

use std::collections::VecDeque;

use crate::pace::cubic::Cubic;
use crate::pace::gist::Spent;
use crate::pace::lease::Lease;
use crate::pace::secs::num;

/// One declared quota. Times in seconds.
#[derive(Debug)]
pub(super) struct Sliding {
    quota: u64,
    window: f64,
    /// Ended attempts: (latest time at which the server can have counted them, how many), ascending.
    ended: VecDeque<(f64, u64)>,
    used: u64,
    /// The learnt share, over windows; the whole quota until the first throttle.
    share: Option<Cubic>,
    /// When the last one left, at an even pace. When the next may follow it is asked anew each time: a share that recovers
    /// shortens a wait that has begun, so that who sent earlier is never behind who sent later.
    paced: f64,
    bursts: Bursts,
    /// How often they were refuted.
    refuted: u32,
    /// The average round trip; zero if none was seen.
    trip: f64,
    lease: Lease,
}

/// Whether the quota may be spent at once.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bursts {
    /// One was, after `since`; so many attempts ahead of an even pace were accepted more than a window later.
    Unproven {
        since: f64,
        accepted: u64,
    },
    Proven,
    /// Until they are tried again.
    Refuted {
        until: f64,
    },
}

impl Sliding {
    /// Entries closer together than this share of a window are kept as one, at the later time.
    const GRAIN: f64 = 1.0 / 2048.0;
    /// Growth per cubed window: a cut is made good after about two windows.
    const GROWTH: f64 = 0.05;
    const LEAST: f64 = 0.05;
    /// At least this part of the share is taken for used.
    const IN_USE: f64 = 0.6;
    /// Share of the quota that is spent evenly: a counter rounds.
    const EVEN: f64 = 0.98;
    /// Late wake-ups are made good up to this share of a window.
    const SLACK: f64 = 0.004;
    /// Share of the quota that proves bursts.
    const PROOF: f64 = 0.85;
    /// Attempts in flight of a burst that proves them, as a share of the quota.
    const TRIED: f64 = 1.0 / 40.0;
    /// It is over within this share of a window.
    const TRIED_WITHIN: f64 = 1.0 / 6.0;
    /// What is ahead of an even pace by less than this share of a window is no burst.
    const AHEAD: f64 = 0.125;
    /// Bursts that were refuted once are tried again after so many windows: one throttle in so many quotas at most.
    const AGAIN: f64 = 32.0;
    /// The time doubles with each refutation, so often.
    const DOUBLINGS: u32 = 5;

    pub(super) fn new(quota: u64, window: f64) -> Self {
        Self {
            quota,
            window: window.max(1e-3),
            ended: VecDeque::new(),
            used: 0,
            share: None,
            paced: f64::NEG_INFINITY,
            bursts: Bursts::Unproven { since: f64::NEG_INFINITY, accepted: 0 },
            refuted: 0,
            trip: 0.0,
            lease: Lease::default(),
        }
    }

    pub(super) fn quota(&self) -> u64 {
        self.quota
    }

    pub(super) fn window(&self) -> f64 {
        self.window
    }

    /// The upstream told another number.
    pub(super) fn set_quota(&mut self, quota: u64) {
        self.quota = quota;
    }

    /// Counts `permits` as spent at `now` by somebody unknown, for example before a restart.
    pub(super) fn assume_spent(&mut self, now: f64, permits: u64) {
        self.ended(now, permits);
    }

    fn share(&self, now: f64) -> f64 {
        let windows = now / self.window;
        self.share.map_or(1.0, |share| share.level(windows).clamp(Self::LEAST, 1.0))
    }

    /// Permits per window at the present share; at least one.
    pub(super) fn allowed(&self, now: f64) -> f64 {
        (num(self.quota) * self.share(now)).floor().max(1.0)
    }

    /// A permit was taken.
    pub(super) fn taken(&mut self, now: f64) {
        self.lease.taken();
        if matches!(self.bursts, Bursts::Refuted { until } if now >= until) {
            self.bursts = Bursts::Unproven { since: f64::NEG_INFINITY, accepted: 0 };
        }
        let turn = self.next_turn(now);
        if let Bursts::Unproven { since, accepted } = &mut self.bursts
            && turn + self.window < now
            && self.refuted == 0
        {
            // Even a counter has forgotten the last burst.
            (*since, *accepted) = (now, 0);
        }
        let slack = Self::SLACK * self.window;
        self.paced = turn.max(now - slack);
    }

    /// The permit that was taken at `at` comes back unsent: its turn is free again.
    pub(super) fn given_back(&mut self, at: f64) {
        self.paced -= self.even_gap(at);
    }

    /// When the next may leave at an even pace, at the share of `now`.
    fn next_turn(&self, now: f64) -> f64 {
        self.paced + self.even_gap(now)
    }

    /// When the next may leave though the log has room.
    pub(super) fn turn(&self, now: f64, in_flight: u32) -> f64 {
        let free = match self.bursts {
            Bursts::Refuted { .. } => false,
            Bursts::Proven => true,
            Bursts::Unproven { .. } => !self.is_trying(now) || f64::from(in_flight) < self.tried_at_once(),
        };
        if free { now } else { self.next_turn(now).max(now) }
    }

    /// Bursts are put to the proof, or could be.
    fn is_trying(&self, now: f64) -> bool {
        matches!(self.bursts, Bursts::Unproven { since, .. } if now > since + self.window)
    }

    /// Bursts are put to the proof, or a throttle has refuted them: the next throttle is likely this quota's too.
    pub(super) fn is_suspect(&self, now: f64) -> bool {
        self.leaves_evenly() || self.is_trying(now)
    }

    fn leaves_evenly(&self) -> bool {
        matches!(self.bursts, Bursts::Refuted { .. })
    }

    fn tried_at_once(&self) -> f64 {
        let in_time = self.trip / (Self::TRIED_WITHIN * self.window);
        (num(self.quota) * in_time.max(Self::TRIED)).max(1.0)
    }

    /// Seconds between permits; none while bursts are allowed.
    pub(super) fn gap(&self, now: f64) -> f64 {
        if self.leaves_evenly() { self.even_gap(now) } else { 0.0 }
    }

    fn even_gap(&self, now: f64) -> f64 {
        self.window / (Self::EVEN * self.allowed(now))
    }

    /// An attempt that left at `sent` was accepted.
    pub(super) fn accepted(&mut self, now: f64, sent: f64) {
        let trip = (now - sent).max(0.0);
        self.trip = if self.trip > 0.0 { self.trip + (trip - self.trip) / 8.0 } else { trip };
        let ahead = self.next_turn(now) - now > Self::AHEAD * self.window;
        let proof = Self::PROOF * num(self.quota);
        if let Bursts::Unproven { since, accepted } = &mut self.bursts
            && ahead
            && sent > *since + self.window
        {
            *accepted += 1;
            if num(*accepted) >= proof {
                self.bursts = Bursts::Proven;
            }
        }
    }

    fn ended(&mut self, at: f64, permits: u64) {
        self.used += permits;
        match self.ended.back_mut() {
            Some((last, count)) if at - *last < self.window * Self::GRAIN => {
                // The group keeps its first member's time; expiry is one grain late, so its last member is covered.
                *count += permits;
            }
            _ => self.ended.push_back((at, permits)),
        }
    }

    fn expire(&mut self, now: f64) {
        let gone = now - self.window * (1.0 + Self::GRAIN);
        while let Some(&(at, count)) = self.ended.front() {
            if at > gone {
                break;
            }
            self.used -= count;
            self.ended.pop_front();
        }
    }

    /// An attempt was answered, or lost after it was sent.
    pub(super) fn spent(&mut self, now: f64) {
        self.expire(now);
        self.ended(now, 1);
    }

    /// As many as `used` count as used from now on. More than that are thinned out evenly; fewer are made up for by attempts of
    /// others, which count from times that lie evenly between `from` and `until`.
    pub(super) fn set_used(&mut self, now: f64, used: u64, from: f64, until: f64) {
        // Finer than anybody could tell, and few to remember.
        const STEPS: u64 = 64;
        self.expire(now);
        let own = std::mem::take(&mut self.used);
        let mut entries: Vec<(f64, u64)> = self.ended.drain(..).collect();
        if own > used {
            let mut before = 0;
            for (_, count) in &mut entries {
                let after = before + *count;
                *count = after * used / own - before * used / own;
                before = after;
            }
        } else {
            let more = used - own;
            let times = (0..STEPS).map(|step| {
                let count = more * (step + 1) / STEPS - more * step / STEPS;
                (from + (until - from) * (num(step) + 0.5) / num(STEPS), count)
            });
            entries.extend(times);
            entries.sort_by(|one, other| one.0.total_cmp(&other.0));
        }
        for (at, count) in entries.into_iter().filter(|&(_, count)| count > 0) {
            self.ended(at, count);
        }
    }

    /// So many own attempts, and others that are taken for own, are not back yet.
    pub(super) fn used(&mut self, now: f64) -> u64 {
        self.expire(now);
        self.used
    }

    /// Permits free at `now` while `in_flight` attempts are out.
    pub(super) fn available(&self, now: f64, in_flight: u32) -> f64 {
        let gone = now - self.window * (1.0 + Self::GRAIN);
        let expired: u64 =
            self.ended.iter().take_while(|&&(at, _)| at <= gone).map(|&(_, count)| count).sum();
        self.allowed(now) - num(self.used - expired) - f64::from(in_flight)
    }

    /// When `wanted` permits will be free, if only what has ended expires and a cut share recovers. `None`: not before an
    /// attempt in flight ends.
    pub(super) fn free_at(&self, now: f64, in_flight: u32, wanted: f64) -> Option<f64> {
        let mut available = self.allowed(now) - num(self.used) - f64::from(in_flight);
        if available >= wanted {
            return Some(now);
        }
        for &(at, count) in &self.ended {
            available += num(count);
            if available >= wanted {
                return Some((at + self.window * (1.0 + Self::GRAIN)).max(now));
            }
        }
        // All has come back and it is still too little: a share that was cut has to recover first.
        let share = self.share.filter(|_| in_flight == 0 && wanted <= num(self.quota))?;
        let recovers = share.reaches(wanted / num(self.quota)) * self.window;
        Some(recovers.max(now + self.window * Self::GRAIN))
    }

    /// A throttle that this quota explains: bursts are refuted, or less is available than was declared.
    pub(super) fn throttled(&mut self, now: f64, in_flight: u32) {
        self.expire(now);
        let again = Self::AGAIN * f64::from(1_u32 << self.refuted.min(Self::DOUBLINGS)) * self.window;
        match &mut self.bursts {
            Bursts::Refuted { until } => *until = until.max(now + Self::AGAIN * self.window),
            bursts => {
                *bursts = Bursts::Refuted { until: now + again };
                self.paced = now - self.even_gap(now);
                self.refuted = self.refuted.saturating_add(1);
                return;
            }
        }
        let in_use = (num(self.used) + f64::from(in_flight)) / num(self.quota.max(1));
        let share = self.share(now);
        // A log that came back a moment ago says little of what is in use.
        let before = share.min(in_use).max(Self::IN_USE * share).max(Self::LEAST);
        self.share = Some(Cubic::cut(before, now / self.window, Self::GROWTH));
    }

    /// Permits that left and are in no stored state yet.
    pub(super) fn lease(&mut self) -> &mut Lease {
        &mut self.lease
    }

    /// Until when what is stored holds.
    pub(super) fn leased_until(&self) -> f64 {
        self.lease.until()
    }

    /// No more may leave before a state is stored.
    pub(super) fn waits_for_store(&self, now: f64) -> bool {
        self.lease.is_used_up(now, self.quota, self.window)
    }

    /// A state should be stored.
    pub(super) fn wants_store(&self) -> bool {
        self.lease.is_low(self.quota, self.window)
    }

    /// What is worth keeping at `now`, while `in_flight` attempts are out: when those end is not known.
    pub(super) fn keep(&self, now: f64, in_flight: u32) -> Spent {
        let &Self { quota, window, ref ended, used: _, share, paced: _, bursts, refuted, trip: _, lease } =
            self;
        let gone = now - window * (1.0 + Self::GRAIN);
        let left = ended.iter().copied().filter(|&(at, _)| at > gone);
        // A group is kept at its first time; its last member ended up to a grain later.
        let left = left.map(|(at, count)| ((at + window * Self::GRAIN).min(now), count));
        let share = share.filter(|_| self.share(now) < 1.0);
        let entries = Spent::grouped(window, left);
        let evenly_until = if let Bursts::Refuted { until } = bursts { Some(until) } else { None };
        let proven = bursts == Bursts::Proven;
        let turn = Some(self.next_turn(now)).filter(|turn| turn.is_finite());
        let flying = u64::from(in_flight);
        Spent {
            quota,
            declared: 0,
            window,
            share,
            turn,
            evenly_until,
            refuted,
            proven,
            entries,
            flying,
            lease,
        }
    }

    /// A quota that was kept, at `now` in a window of today's configuration.
    pub(super) fn restore(kept: &Spent, window: f64, now: f64) -> Self {
        let Spent {
            quota,
            declared: _,
            window: _,
            share,
            turn,
            evenly_until,
            refuted,
            proven,
            ref entries,
            flying,
            lease,
        } = *kept;
        let mut sliding = Self::new(quota, window);
        sliding.bursts = match (evenly_until, proven) {
            (Some(until), _) => Bursts::Refuted { until },
            (None, true) => Bursts::Proven,
            (None, false) => sliding.bursts,
        };
        let last = entries.last().map_or(f64::NEG_INFINITY, |&(at, _)| at);
        let out = (flying > 0).then_some((last.max(now), flying));
        let ended: VecDeque<_> = entries.iter().copied().chain(out).collect();
        // Where bursts are not refuted: as after a burst of all that is known.
        let burst = ended.back().filter(|_| evenly_until.is_none());
        let burst = burst.map_or(f64::NEG_INFINITY, |&(at, _)| at + window);
        let used = ended.iter().map(|&(_, count)| count).sum();
        let turn = turn.unwrap_or(f64::NEG_INFINITY).max(burst);
        let restored = Self { ended, used, share, refuted, lease, ..sliding };
        Self { paced: turn - restored.even_gap(now), ..restored }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_counts_as_used_is_set_and_comes_back_in_time() {
        let mut busy = Sliding::new(100, 60.0);
        for second in 0..50 {
            busy.spent(f64::from(second));
            busy.spent(f64::from(second));
        }
        busy.set_used(50.0, 40, 0.0, 0.0);
        assert_eq!((busy.used(50.0), busy.available(50.0, 0)), (40, 60.0));
        assert_eq!(busy.used(85.0), 20, "half of them are of the first half");
        assert_eq!(busy.used(111.0), 0);
        let mut idle = Sliding::new(100, 60.0);
        idle.spent(50.0);
        idle.set_used(50.0, 61, -10.0, 50.0);
        assert_eq!(idle.used(50.0), 61);
        assert!((29..=32).contains(&idle.used(80.0)), "{}", idle.used(80.0));
        idle.set_used(80.0, 90, 40.0, 40.0);
        assert_eq!(idle.used(80.0), 90);
        assert!(idle.used(100.1) < 30, "{} come back at once", idle.used(100.1));
    }

    #[test]
    fn who_wants_more_than_a_cut_share_waits_for_it_to_recover() {
        let mut sliding = Sliding::new(2, 4.0);
        for _ in 0..6 {
            sliding.throttled(1.0, 0);
        }
        assert!(sliding.allowed(1.0) < 2.0);
        let free = sliding.free_at(1.0, 0, 2.0).expect("nothing is in flight");
        assert!(sliding.available(free + 1e-3, 0) >= 2.0 && free < 60.0, "{free}");
        assert_eq!(sliding.free_at(1.0, 1, 2.0), None, "an answer will come before");
    }

    #[test]
    fn any_window_holds_at_most_the_quota() {
        let mut sliding = Sliding::new(10, 1.0);
        let mut sends: Vec<f64> = Vec::new();
        let mut now = 0.0;
        while now < 10.0 {
            if sliding.available(now, 0) >= 1.0 {
                sliding.spent(now);
                sends.push(now);
            }
            now += 0.013;
        }
        for (index, &from) in sends.iter().enumerate() {
            let within = sends[index..].iter().filter(|&&at| at <= from + 1.0).count();
            assert!(within <= 10, "{within} from {from}");
        }
        assert!(sends.len() >= 95, "{}", sends.len());
    }

    /// Every attempt kept: (left, ended), the latter infinite while in flight.
    #[derive(Debug, Default)]
    struct Everything(Vec<(f64, f64)>);

    impl Everything {
        /// Permits free at `now` in an exact log of `window`.
        fn available(&self, now: f64, quota: u64, window: f64) -> f64 {
            let counted = self.0.iter().filter(|&&(_, ended)| ended > now - window).count();
            num(quota) - num(counted as u64)
        }
    }

    /// One step of a random client: how long after the last, what it would like to do, and how long answers take.
    #[derive(Clone, Copy, Debug)]
    struct Step {
        pause: f64,
        wanted: u32,
        trip: f64,
        handled: f64,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        // Pauses from far below the grain to beyond the window.
        let pause = (-5.0_f64..0.3).prop_map(|power| 10.0_f64.powf(power));
        let step = (pause, 0_u32..12, 0.0_f64..0.4, 0.0_f64..1.0);
        let step = step.prop_map(|(pause, wanted, trip, handled)| Step { pause, wanted, trip, handled });
        proptest::collection::vec(step, 1..400)
    }

    proptest! {
        #[test]
        fn it_grants_what_the_exact_log_grants_or_a_grain_later(
            quota in 1_u64..60,
            window in 0.5_f64..2.0,
            steps in steps(),
        ) {
            let mut sliding = Sliding::new(quota, window);
            let mut all = Everything::default();
            let (mut handled, mut flying): (Vec<f64>, Vec<(f64, usize)>) = (Vec::new(), Vec::new());
            let mut now = 10.0;
            for step in steps {
                now += step.pause;
                flying.sort_by(|one, other| one.0.total_cmp(&other.0));
                while flying.first().is_some_and(|&(ends, _)| ends <= now) {
                    let (ends, index) = flying.remove(0);
                    all.0[index].1 = ends;
                    sliding.spent(ends);
                }
                let in_flight = u32::try_from(flying.len()).unwrap();
                let granted = sliding.available(now, in_flight);
                let exact = all.available(now, quota, window);
                let longer = all.available(now, quota, window * (1.0 + Sliding::GRAIN) + 1e-9);
                prop_assert!(granted <= exact && granted >= longer, "{longer} <= {granted} <= {exact}");
                prop_assert!(sliding.ended.len() <= 2050);
                for taken in 0..step.wanted.min(whole_permits(granted)) {
                    let trip = step.trip * f64::from(taken + 1) / 12.0;
                    handled.push(now + trip * step.handled);
                    flying.push((now + trip, all.0.len()));
                    all.0.push((now, f64::INFINITY));
                }
            }
            handled.sort_by(f64::total_cmp);
            for (index, &from) in handled.iter().enumerate() {
                let within = handled[index..].iter().take_while(|&&at| at < from + window).count();
                prop_assert!(num(within as u64) <= num(quota), "{within} handled from {from}");
            }
        }
    }

    fn whole_permits(granted: f64) -> u32 {
        (0..100).take_while(|&permits| f64::from(permits) + 1.0 <= granted).count().try_into().unwrap()
    }

    #[test]
    fn a_busy_log_stays_small_and_loses_less_than_a_thousandth() {
        let (quota, window) = (100_000, 1.0);
        let mut sliding = Sliding::new(quota, window);
        let mut granted = 0_u64;
        for tick in 0..50_000_u32 {
            let now = f64::from(tick) * 2e-4;
            while sliding.available(now, 0) >= 1.0 && granted < 21 * u64::from(tick + 1) {
                sliding.spent(now);
                granted += 1;
            }
        }
        assert!(sliding.ended.len() <= 2050, "{}", sliding.ended.len());
        assert!(granted >= 999_000, "{granted} of 1 000 000 in ten windows");
    }

    #[test]
    fn a_cut_goes_below_what_was_in_use_and_recovers() {
        let mut sliding = Sliding::new(100, 1.0);
        for _ in 0..60 {
            sliding.spent(0.0);
        }
        sliding.throttled(0.05, 0);
        assert!((sliding.share(0.1) - 1.0).abs() < 1e-9, "the first throttle refutes bursts only");
        sliding.throttled(0.1, 0);
        assert!((sliding.share(0.1) - 0.42).abs() < 0.01, "{}", sliding.share(0.1));
        let later = sliding.share(2.0);
        assert!(later > 0.55 && later < 0.62, "{later}");
        assert!(sliding.share(10.0) > 0.99);
    }

    #[test]
    fn after_a_throttle_permits_leave_evenly() {
        let mut sliding = Sliding::new(100, 1.0);
        sliding.taken(0.0);
        assert!(sliding.turn(0.0, 1) <= 0.0);
        sliding.throttled(0.1, 0);
        for permit in 1..50_u32 {
            let turn = sliding.turn(0.1, 0);
            sliding.taken(turn);
            assert!((sliding.turn(0.1, 0) - 0.1 - f64::from(permit) / 98.0).abs() < 1e-6);
        }
    }

    /// Takes all that may go at `now` at once, answered a hundredth of a window later; returns how many.
    fn burst(sliding: &mut Sliding, now: f64) -> u32 {
        let mut taken = 0;
        while sliding.available(now, taken) >= 1.0 && sliding.turn(now, taken) <= now {
            sliding.taken(now);
            taken += 1;
        }
        for _ in 0..taken {
            sliding.spent(now + 0.01);
            sliding.accepted(now + 0.01, now);
        }
        taken
    }

    #[test]
    fn a_second_burst_is_tried_with_few_and_proves_all_others() {
        let mut sliding = Sliding::new(400, 1.0);
        assert_eq!(burst(&mut sliding, 0.0), 400, "what was never spent is there");
        let (mut now, mut trips, mut taken) = (1.02, 0, 0);
        while sliding.bursts != Bursts::Proven {
            let few = burst(&mut sliding, now);
            assert!(trips < 2 || few <= 25, "{few} at once");
            (now, trips, taken) = (now + 0.01, trips + 1, taken + few);
        }
        assert!(trips <= 20 && taken >= 340, "{taken} in {trips} round trips");
        assert_eq!(burst(&mut sliding, now + 2.0), 400);
        sliding.throttled(now + 2.1, 0);
        assert_eq!(burst(&mut sliding, now + 4.0), 2, "a throttle refutes what was proven");
    }

    #[test]
    fn refuted_bursts_are_tried_again_after_a_time_that_doubles_to_a_bound() {
        let mut sliding = Sliding::new(400, 1.0);
        let (mut now, mut waits) = (0.0, Vec::new());
        sliding.throttled(now, 0);
        for _ in 0..8 {
            let refuted = now;
            while sliding.leaves_evenly() {
                now = sliding.turn(now, 0);
                sliding.taken(now);
                sliding.spent(now);
            }
            waits.push((now - refuted).round());
            assert!(sliding.is_trying(now));
            assert!(burst(&mut sliding, now + 0.3) <= 25, "with few in flight");
            now += 0.31;
            sliding.throttled(now, 0);
        }
        assert_eq!(waits, [32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 1024.0, 1024.0]);
    }

    #[test]
    fn bursts_that_are_accepted_when_tried_again_are_proven() {
        let mut sliding = Sliding::new(400, 1.0);
        sliding.throttled(0.0, 0);
        // However long it was idle, the second trial begins with few.
        let (mut now, mut most) = (60.0, 0);
        sliding.taken(now);
        sliding.spent(now);
        while sliding.bursts != Bursts::Proven {
            now += 0.02;
            most = most.max(burst(&mut sliding, now));
            assert!(now < 65.0);
        }
        assert!(most <= 25, "{most} at once");
    }

    #[test]
    fn an_even_pace_proves_nothing_about_bursts() {
        let mut sliding = Sliding::new(100, 1.0);
        for step in 0..1000_u32 {
            let now = f64::from(step) / 90.0;
            assert!(sliding.turn(now, 1) <= now);
            sliding.taken(now);
            sliding.spent(now + 0.005);
            sliding.accepted(now + 0.005, now);
        }
        assert!(sliding.is_trying(11.2));
    }

    #[test]
    fn an_empty_log_with_attempts_in_flight_has_no_date() {
        let sliding = Sliding::new(2, 1.0);
        assert_eq!(sliding.free_at(0.0, 2, 1.0), None);
        assert_eq!(sliding.free_at(0.0, 1, 1.0), Some(0.0));
    }
}
