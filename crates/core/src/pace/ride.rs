//! Spending the permits of a sliding log as they come back, without waiting for an answer to say so.
//!
//! Under a proven log every own attempt comes back one window after it was handled, so what was certified can be carried
//! forward: a certificate counts what **may** have come back before it was handled, the present counts what **surely**
//! will have come back when the next attempt arrives, and the difference was given back since. The bound is exact but for
//! a round trip of doubt per entry. While nobody else draws from the quota even the certificate is not needed: the log
//! holds the own entries and nothing else, so what surely left it is free.
//!
//! Rules: the greater of the two bounds holds, both being safe. Another's entry, or an own attempt that nobody knows the
//! fate of, holds for two windows that the log is shared: then the second bound is less what stands of others, once they
//! were watched for a whole length, and is not to be had before.

use crate::pace::certificate::Certificate;
use crate::pace::own::Own;
use crate::pace::secs::Interval;

/// What the world looks like to a rider now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Swell<'o> {
    pub(super) own: &'o Own,
    pub(super) limit: f64,
    pub(super) length: Interval,
    pub(super) one_way: f64,
}

/// What others may have in the log, or take, before an attempt arrives.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Others {
    /// Permits they may take of what was certified.
    pub(super) margin: f64,
    /// Entries of theirs that may stand then, once they were watched for long enough.
    pub(super) standing: Option<f64>,
    /// Something was answered just now.
    pub(super) fresh: bool,
}

impl Swell<'_> {
    /// When `wanted` permits more than now will surely have come back.
    pub(super) fn next(&self, now: f64, wanted: f64) -> Option<f64> {
        let back = self.own.surely_back(now, self.length, self.one_way);
        self.own.send_at(back, wanted.ceil().max(1.0), self.length.up, self.one_way)
    }
}

/// Certificates of a log, carried forward.
#[derive(Debug, Default)]
pub(super) struct Ride {
    /// What was left, less what may have come back before.
    certificate: Certificate,
    /// Until then entries that are not known may stand in the log.
    company_until: f64,
}

impl Ride {
    /// An answer certified `remaining`.
    pub(super) fn certify(&mut self, sent: f64, answered: f64, remaining: f64, swell: &Swell<'_>) {
        let back = swell.own.maybe_back(answered, swell.length, swell.one_way);
        self.certificate.certify(sent, answered, remaining - back);
    }

    /// Entries that are not known stand in the log until two windows from now.
    pub(super) fn company(&mut self, now: f64, length: f64) {
        self.company_until = now + 2.0 * length;
    }

    /// Entries that are not known may stand in the log.
    pub(super) fn in_company(&self, now: f64) -> bool {
        now < self.company_until
    }

    /// Another rule, or nothing, is known to hold now.
    pub(super) fn forget(&mut self) {
        self.certificate = Certificate::default();
    }

    /// Permits before what is in flight, for an attempt that leaves at `now`.
    pub(super) fn level(&self, now: f64, swell: &Swell<'_>, others: &Others) -> f64 {
        let back = swell.own.surely_back(now, swell.length, swell.one_way);
        let carried =
            self.certificate.level().map_or(f64::NEG_INFINITY, |level| level + back - others.margin);
        let standing = if self.in_company(now) { others.standing } else { Some(0.0) };
        standing
            .map_or(carried, |standing| carried.max(swell.limit - (swell.own.accepted() - back) - standing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn swell(own: &Own) -> Swell<'_> {
        Swell { own, limit: 10.0, length: Interval::new(5.0, 5.0), one_way: 0.0 }
    }

    /// Ten attempts a tenth of a second apart, each answered at once.
    fn used_up() -> (Own, Ride) {
        let (mut own, mut ride) = (Own::default(), Ride::default());
        for (step, left) in (0..10_u32).zip((0..10_u32).rev()) {
            let at = 0.1 * f64::from(step);
            own.remember(at, at, 0.0);
            ride.certify(at, at, f64::from(left), &swell(&own));
        }
        (own, ride)
    }

    #[test]
    fn alone_each_attempt_comes_back_one_window_after_its_answer() {
        let (own, ride) = used_up();
        assert!((ride.level(4.99, &swell(&own), &Others::default()) - 0.0).abs() < 1e-9);
        assert!((ride.level(5.25, &swell(&own), &Others::default()) - 3.0).abs() < 1e-9);
        assert!(swell(&own).next(5.25, 2.0).is_some_and(|at| (at - 5.4).abs() < 1e-5));
    }

    #[test]
    fn in_company_only_what_was_certified_is_carried_forward() {
        let (own, mut ride) = used_up();
        // Two of the permits are gone, though nobody here took them.
        ride.company(1.0, 5.0);
        ride.forget();
        ride.certify(4.0, 4.0, 0.0, &swell(&own));
        let mut others = Others { margin: 2.0, standing: None, fresh: true };
        assert!((ride.level(5.25, &swell(&own), &others) - 1.0).abs() < 1e-9);
        others.standing = Some(1.0);
        assert!(
            (ride.level(5.25, &swell(&own), &others) - 2.0).abs() < 1e-9,
            "one of the two has left since"
        );
    }
}
