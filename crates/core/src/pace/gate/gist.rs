//! Folding a gate into its gist, and unfolding it.

use super::{Concurrency, Gate, Knowledge, Wish};
use crate::observe::MAX_DURATION;
use crate::pace::closing::{Closing, Shut};
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
        // What is left out counts what is in flight, or follows from the configuration or from who asks.
        let Self {
            header_name,
            knowledge,
            closing,
            concurrency,
            crowd,
            in_flight,
            last_taken,
            accepted,
            throttles,
            name: _,
            key: _,
            pinned: _,
            assumed: _,
            backed: _,
            release: _,
            spread: _,
            draw: _,
            lanes: _,
            members: _,
            last_slot: _,
            takes: _,
            shared: _,
        } = self;
        let known = match knowledge {
            Knowledge::Told(tide) => Known::Told(tide.keep()),
            Knowledge::Declared(sliding) => Known::Declared(Box::new(sliding.keep(at, *in_flight))),
            Knowledge::Silent(learnt) if learnt.rate(at).is_some() => Known::Silent(Box::new(learnt.clone())),
            Knowledge::Silent(_) | Knowledge::Unknown | Knowledge::Capped(_) => Known::Nothing,
        };
        let Shut { opens, scout, strikes, short_hints } = closing.keep(now);
        let told = matches!(known, Known::Told(_));
        let gist = Gist {
            opens: if told { self.exhausted_until(now) } else { opens.map(secs) },
            scout: scout || told,
            known,
            header_name: header_name.as_deref().map(Box::from),
            strikes,
            short_hints,
            bound: concurrency.keep().map(Box::new),
            cap: crowd.cap(),
            accepted: *accepted,
            throttles: *throttles,
            last_used: *last_taken,
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
                reserved: [0; Class::COUNT],
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
        let &Gist {
            ref known,
            ref header_name,
            opens,
            scout,
            strikes,
            short_hints,
            ref bound,
            cap,
            accepted,
            throttles,
            last_used,
        } = gist;
        match (known, &self.knowledge) {
            (Known::Told(lore), _) if !self.pinned && !matches!(self.knowledge, Knowledge::Capped(_)) => {
                let mut tide = Tide::restore(secs(now), lore);
                tide.has_siblings(self.may_have_siblings());
                self.knowledge = Knowledge::Told(Box::new(tide));
                self.concurrency = Concurrency::boundless();
            }
            (Known::Declared(spent), Knowledge::Declared(of_today)) => {
                let mut sliding = Sliding::restore(spent, of_today.window(), secs(now));
                sliding.lease().bind(of_today.leased_until());
                if self.pinned || spent.declared != of_today.quota() {
                    sliding.set_quota(of_today.quota());
                }
                self.knowledge = Knowledge::Declared(sliding);
            }
            (Known::Declared(spent), Knowledge::Unknown) => {
                self.knowledge = Knowledge::Declared(Sliding::restore(spent, spent.window, secs(now)));
            }
            (Known::Silent(learnt), Knowledge::Unknown) => {
                let mut learnt = Learnt::clone(learnt);
                // A rate that nobody used was not found to be too low.
                learnt.stand_still((secs(now) - last_used).max(0.0));
                self.knowledge = Knowledge::Silent(learnt);
                self.concurrency = Concurrency::boundless();
            }
            (Known::Nothing | Known::Told(_) | Known::Declared(_) | Known::Silent(_), _) => {}
        }
        if let Some(bound) = bound {
            self.concurrency.restore(**bound);
            if cap > 0 {
                self.crowd.believe(cap);
            }
        }
        self.closing = Closing::restore(now, Shut { opens: opens.map(mono), scout, strikes, short_hints });
        self.header_name = header_name.as_deref().map(str::to_owned);
        (self.accepted, self.throttles, self.last_taken) = (accepted, throttles, last_used);
    }
}

impl Gist {
    fn says_something(&self) -> bool {
        let known = match &self.known {
            Known::Nothing => false,
            Known::Told(_) | Known::Silent(_) => true,
            Known::Declared(spent) => {
                let learnt = spent.share.is_some() || spent.refuted > 0 || spent.proven;
                learnt || !spent.entries.is_empty() || spent.flying > 0
            }
        };
        known || self.opens.is_some() || self.scout || self.short_hints || self.bound.is_some()
    }
}
