//! When the listing is asked for, and as whom.
//!
//! The limits are the organisation's, so one credential's listing serves all. It is asked for after the first use of a
//! credential, not before: a program that never calls costs nothing, and one whose login fails asks nothing. Then once per
//! refresh, a little early by chance, so that a fleet started together does not come back together. A credential that is
//! not permitted is left alone for a day; another one may be tried. What failed for other reasons is tried again later and
//! later.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::key::CredentialId;
use crate::time::Mono;

/// Whether a credential that is not permitted was known to be so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// For the first time: worth a line in a log.
    News,
    /// As before.
    Again,
}

/// The state of asking for one upstream's listing.
#[derive(Debug)]
pub struct FetchPlan {
    refresh: Duration,
    /// Nobody asks before.
    next: Mono,
    asking: bool,
    failures: u32,
    /// Credentials that are not permitted, and until when they are not tried.
    denied: BTreeMap<CredentialId, Mono>,
    /// None of them can be forgotten before.
    forget_at: Mono,
}

impl FetchPlan {
    /// How long a credential that is not permitted is left alone.
    pub const DENIED_FOR: Duration = Duration::from_hours(24);
    const FIRST_RETRY: Duration = Duration::from_secs(30);
    const LAST_RETRY: Duration = Duration::from_hours(1);
    /// Credentials remembered as not permitted. Where so many are not, the next one is not either.
    const MAX_DENIED: usize = 256;
    /// The refresh comes at most this share early.
    const EARLY: f64 = 0.1;

    /// A plan that asks at the first use of a credential, and then every `refresh`.
    pub fn new(refresh: Duration) -> Self {
        let denied = BTreeMap::new();
        Self { refresh, next: Mono::ZERO, asking: false, failures: 0, denied, forget_at: Mono::ZERO }
    }

    /// A credential was used. True if the caller has to ask for the listing now, as this credential; then one of
    /// [`Self::fetched`], [`Self::denied`] and [`Self::failed`] has to follow.
    #[must_use]
    pub fn used(&mut self, now: Mono, credential: &CredentialId) -> bool {
        if self.asking || now < self.next {
            return false;
        }
        if self.denied.len() >= Self::MAX_DENIED && self.forget_at <= now {
            self.denied.retain(|_, until| now < *until);
            self.forget_at = self.denied.values().min().copied().unwrap_or(now);
        }
        let denied = self.denied.get(credential);
        if denied.is_some_and(|until| now < *until)
            || (denied.is_none() && self.denied.len() >= Self::MAX_DENIED)
        {
            return false;
        }
        self.asking = true;
        true
    }

    /// The listing was read. `chance` lies between 0 and 1.
    pub fn fetched(&mut self, now: Mono, chance: f64) {
        self.asking = false;
        self.failures = 0;
        self.denied.clear();
        self.next = now + self.refresh.mul_f64(1.0 - Self::EARLY * chance.clamp(0.0, 1.0));
    }

    /// The upstream does not let this credential read the listing, or has none.
    pub fn denied(&mut self, now: Mono, credential: &CredentialId) -> Denied {
        self.asking = false;
        self.failures = 0;
        let known = self.denied.insert(credential.clone(), now + Self::DENIED_FOR);
        if known.is_some() { Denied::Again } else { Denied::News }
    }

    /// The listing could not be asked for or read. Returns in how long it is tried again.
    pub fn failed(&mut self, now: Mono) -> Duration {
        self.asking = false;
        let wait = (Self::FIRST_RETRY * 2_u32.pow(self.failures.min(12))).min(Self::LAST_RETRY);
        self.failures = self.failures.saturating_add(1);
        self.next = now + wait;
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn id(name: &str) -> CredentialId {
        CredentialId::new(name)
    }

    fn at(seconds: u64) -> Mono {
        Mono::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn the_first_use_asks_once_and_then_nobody_before_the_refresh() {
        let mut plan = FetchPlan::new(DAY);
        assert!(plan.used(at(5), &id("a")));
        assert!(!plan.used(at(5), &id("a")), "it is being asked");
        assert!(!plan.used(at(6), &id("b")), "one listing serves all");
        plan.fetched(at(7), 0.0);
        assert!(!plan.used(at(6) + DAY, &id("a")));
        assert!(plan.used(at(7) + DAY, &id("b")));
    }

    #[test]
    fn a_refresh_comes_early_by_chance_but_never_by_more_than_a_tenth() {
        let mut plan = FetchPlan::new(DAY);
        for (chance, early) in [(0.0, 0.0), (0.5, 0.05), (1.0, 0.1), (7.0, 0.1)] {
            plan.fetched(at(0), chance);
            let due = Mono::ZERO + DAY.mul_f64(1.0 - early);
            assert!(!plan.used(due.back(Duration::from_secs(1)), &id("a")), "{chance}");
            assert!(plan.used(due + Duration::from_secs(1), &id("a")), "{chance}");
        }
    }

    #[test]
    fn a_credential_that_is_not_permitted_rests_for_a_day_while_others_are_tried() {
        let mut plan = FetchPlan::new(DAY);
        assert!(plan.used(at(0), &id("a")));
        assert_eq!(plan.denied(at(1), &id("a")), Denied::News);
        assert!(!plan.used(at(2), &id("a")));
        assert!(plan.used(at(2), &id("b")));
        assert_eq!(plan.denied(at(3), &id("b")), Denied::News);
        assert!(!plan.used(at(0) + DAY, &id("a")));
        assert!(plan.used(at(1) + DAY, &id("a")), "permissions change");
        assert_eq!(plan.denied(at(1) + DAY, &id("a")), Denied::Again);
    }

    #[test]
    fn invented_credentials_do_not_make_it_ask_without_end() {
        let mut plan = FetchPlan::new(DAY);
        let tried = (0..10_000).filter(|n| {
            let id = id(&format!("login-{n}"));
            let asks = plan.used(at(1), &id);
            if asks {
                plan.denied(at(1), &id);
            }
            asks
        });
        assert_eq!(tried.count(), FetchPlan::MAX_DENIED);
        assert!(plan.used(at(2) + DAY, &id("login-0")), "the first are tried again");
    }

    #[test]
    fn who_was_not_permitted_makes_room_for_others_after_a_day() {
        let mut plan = FetchPlan::new(DAY);
        for n in 0..FetchPlan::MAX_DENIED {
            let id = id(&format!("login-{n}"));
            assert!(plan.used(at(1), &id));
            plan.denied(at(1), &id);
        }
        assert!(!plan.used(at(2), &id("new")));
        assert!(plan.used(at(2) + DAY, &id("new")));
    }

    #[test]
    fn failures_are_tried_again_later_and_later() {
        let mut plan = FetchPlan::new(DAY);
        let mut now = at(0);
        let mut waits = Vec::new();
        for _ in 0..9 {
            assert!(plan.used(now, &id("a")));
            let wait = plan.failed(now);
            assert!(!plan.used(now, &id("b")));
            waits.push(wait.as_secs());
            now += wait;
        }
        assert_eq!(waits, [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]);
        assert!(plan.used(now, &id("a")));
        plan.fetched(now, 0.0);
        now += DAY;
        assert!(plan.used(now, &id("a")));
        assert_eq!(plan.failed(now).as_secs(), 30, "a success forgets the failures");
    }
}
