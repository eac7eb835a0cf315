//! Folding a gate into its gist, and unfolding it.

use super::{Concurrency, Gate, Knowledge, Wish};
use crate::observe::MAX_DURATION;
use crate::pace::closing::Closing;
use crate::pace::gist::{Gist, Known};
use crate::pace::learnt::Learnt;
use crate::pace::policy::ClassPolicy;
use crate::pace::secs::{mono, secs};
use crate::pace::sliding::Sliding;
use crate::pace::tide::Tide;
use crate::pace::when::When;
use crate::schedule::Class;
use crate::time::Mono;

impl Gate {
    /// What is worth keeping, if anything is.
    pub(in crate::pace) fn gist(&self, now: Mono) -> Option<Gist> {
        let at = secs(now);
        let known = match &self.knowledge {
            Knowledge::Told(tide) => Known::Told(Box::new(tide.keep())),
            Knowledge::Declared(sliding) => Known::Declared(Box::new(sliding.keep(at, self.in_flight))),
            Knowledge::Silent(learnt) if learnt.rate(at).is_some() => Known::Silent(Box::new(learnt.clone())),
            Knowledge::Silent(_) | Knowledge::Unknown | Knowledge::Capped(_) => Known::Nothing,
        };
        let closed = self.closing.closed_until(now).map(secs);
        let gist = Gist {
            opens: if matches!(known, Known::Told(_)) { self.exhausted_until(now) } else { closed },
            scout: self.closing.scouting() || matches!(known, Known::Told(_)),
            known,
            header_name: self.header_name.as_deref().map(Box::from),
            strikes: self.closing.strikes(),
            bound: self.concurrency.keep().map(Box::new),
            accepted: self.accepted,
            throttles: self.throttles,
            last_used: self.last_taken,
        };
        gist.says_something().then_some(gist)
    }

    /// Until when a told gate would have waited. The answers that it might have waited for will not be heard.
    fn exhausted_until(&self, now: Mono) -> Option<f64> {
        match self.when(
            now,
            &Wish {
                class: Class::Interactive,
                policy: ClassPolicy::GREEDY,
                urgent_waiting: 0,
                starving_at: now,
            },
        ) {
            When::At(at) => Some(at.min(secs(now) + MAX_DURATION.as_secs_f64())),
            When::Now | When::Event => None,
        }
    }

    /// Becomes what it was. Of a declared quota the number and window of today's configuration hold.
    pub(in crate::pace) fn unfold(&mut self, now: Mono, gist: &Gist) {
        match (&gist.known, &self.knowledge) {
            (Known::Told(lore), _) if !self.pinned && !matches!(self.knowledge, Knowledge::Capped(_)) => {
                self.knowledge = Knowledge::Told(Box::new(Tide::restore(secs(now), lore)));
                self.concurrency = Concurrency::boundless();
            }
            (Known::Declared(spent), Knowledge::Declared(of_today)) => {
                let mut sliding = Sliding::restore(spent, of_today.window());
                if self.pinned || spent.declared != of_today.quota() {
                    sliding.set_quota(of_today.quota());
                }
                self.knowledge = Knowledge::Declared(sliding);
            }
            (Known::Declared(spent), Knowledge::Unknown) => {
                self.knowledge = Knowledge::Declared(Sliding::restore(spent, spent.window));
            }
            (Known::Silent(learnt), Knowledge::Unknown) => {
                let mut learnt = Learnt::clone(learnt);
                // A rate that nobody used was not found to be too low.
                learnt.stand_still((secs(now) - gist.last_used).max(0.0));
                self.knowledge = Knowledge::Silent(learnt);
                self.concurrency = Concurrency::boundless();
            }
            (Known::Nothing | Known::Told(_) | Known::Declared(_) | Known::Silent(_), _) => {}
        }
        if let Some(bound) = &gist.bound {
            self.concurrency.restore(**bound);
        }
        if gist.scout {
            self.closing = Closing::restore(now, gist.opens.map_or(now, mono), gist.strikes);
        }
        self.header_name = gist.header_name.as_deref().map(str::to_owned);
        self.accepted = gist.accepted;
        self.throttles = gist.throttles;
        self.last_taken = gist.last_used;
    }
}

impl Gist {
    fn says_something(&self) -> bool {
        let known = match &self.known {
            Known::Nothing => false,
            Known::Told(_) | Known::Silent(_) => true,
            Known::Declared(spent) => spent.share.is_some() || spent.evenly || !spent.entries.is_empty(),
        };
        known || self.opens.is_some() || self.scout || self.bound.is_some()
    }
}
