//! What a told limit tells the others that share it.

use super::Tide;
use crate::pace::secs::{num, whole};
use crate::share::{Ms, Refill, Sight};

impl Tide {
    /// A window that a header names is believed if none was seen that is longer by more than this factor.
    const NAMED: f64 = 1.05;

    /// Other processes that the store knows draw from the limit, or no longer. While they do, nothing is learnt about
    /// strangers and the refill rule: one process alone could not tell siblings from either.
    pub(in crate::pace) fn has_siblings(&mut self, siblings: bool) {
        self.siblings = siblings;
    }

    pub(in crate::pace) fn is_proven_log(&self) -> bool {
        self.refill.is_proven_log()
    }

    /// The length of a window if permits come back by `rule`.
    pub(in crate::pace) fn window_of(&self, rule: Refill) -> f64 {
        let length = if rule == Refill::Step { self.promise.length() } else { self.log_length() };
        let known = length.map_or(self.length(), |length| length.up).max(1e-3);
        match self.named_window {
            // What was seen is not exact, and all holders should say the same.
            Some(named) if known < Self::NAMED * named => named,
            _ => known,
        }
    }

    /// What the server's word still covers, if it was given to an attempt that left after `since`.
    pub(in crate::pace) fn certified_since(&self, since: f64) -> Option<f64> {
        let level = self.certificate.level()?;
        self.certificate.latest_sent().filter(|&sent| sent >= since)?;
        Some(level - num(self.certificate.unseen() as u64))
    }

    /// The best certificate, in ages; none if nothing is certified. `proven`: windows are known to be the rule.
    pub(in crate::pace) fn sight(&self, now: f64, proven: bool) -> Option<Sight> {
        let latest_sent = self.certificate.latest_sent()?;
        let mut left: Vec<(Ms, u32)> = Vec::new();
        for (answered, remaining) in self.certificate.candidates() {
            let remaining = u32::try_from(whole(remaining)).unwrap_or(u32::MAX);
            left.push((floor(now - answered), remaining));
        }
        if left.is_empty() {
            return None;
        }
        // Of too many the two latest are taken for one that was answered as the later and left as little as the lower.
        while left.len() > Sight::MAX_LEFT {
            let (age, _) = left.pop().expect("there are several");
            left.last_mut().expect("there were several").0 = age;
        }
        let due = self.promise.due();
        // All holders are as careful as those for whom the window was under way: most came later than the first.
        // Unproven windows are taken to end a little later than promised: that late a scout finds a permit under any rule.
        let doubt = if proven { 0.0 } else { self.doubtful(true) };
        let scout = self.promise.send_at(&self.trip, proven).map(|at| at + doubt);
        Some(Sight {
            latest_sent: ceil(now - latest_sent),
            left,
            ends: due
                .map(|due| (signed((due.lo - now).floor_ms()), signed((due.up + doubt - now).ceil_ms()))),
            scout_in: scout.filter(|_| due.is_some()).map(|at| ceil(at - now)),
        })
    }
}

/// Milliseconds of a number of seconds.
trait Millis {
    fn floor_ms(self) -> f64;
    fn ceil_ms(self) -> f64;
}

impl Millis for f64 {
    fn floor_ms(self) -> f64 {
        (self * 1e3).floor()
    }

    fn ceil_ms(self) -> f64 {
        (self * 1e3).ceil()
    }
}

fn floor(seconds: f64) -> Ms {
    whole(seconds.floor_ms())
}

fn ceil(seconds: f64) -> Ms {
    whole(seconds.ceil_ms())
}

#[expect(clippy::cast_possible_truncation, reason = "the cast saturates")]
fn signed(millis: f64) -> i64 {
    millis as i64
}
