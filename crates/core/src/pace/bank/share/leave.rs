//! The last word of a process that ends.
//!
//! What it holds is worth nothing to it any more, and others would wait for it: a lease and the grace of one that has died. So
//! it gives back all permits, tells what has ended, and says that it goes: from then on the others' parts are larger. Attempts in
//! flight stay told as such; nobody will hear of their end, and the store gives them up as it does those of one that was
//! killed.

use super::{Due, Said};
use crate::pace::bank::Bank;
use crate::pace::gate::Mode;
use crate::share::Exchange;
use crate::time::Mono;

impl Bank {
    /// What to say before this process ends, once nothing is to leave any more: it gives back what it holds of as many limits as
    /// fit, the last one says that it goes. To be called again after its answer ([`Bank::end_exchange`]), until there is nothing to
    /// say: `None`. Also `None` where the store is away, which nobody waits for at the end.
    ///
    /// Nothing is closed by it: a call that comes after all asks the store as the first one did. An exchange that is under way
    /// counts for nothing any more: it is overtaken by this one.
    pub fn last_exchange(&mut self, now: Mono) -> Option<Exchange> {
        let sharing = self.sharing.as_deref_mut()?;
        if sharing.mode != Mode::Joined || sharing.failures > 0 {
            return None;
        }
        // What was expected of calls that come is not to be asked for any more.
        let idle = |lane: &&usize| self.registry.lanes.get(**lane).is_none_or(|lane| lane.waiting == 0);
        let idle: Vec<usize> = sharing.active.iter().filter(idle).copied().collect();
        for place in idle {
            sharing.active.remove(&place);
            let lane = self.registry.lanes.get_mut(place);
            if let Some(due) = lane.and_then(|lane| lane.wanting.take()).and_then(|wanting| wanting.due) {
                sharing.dues.remove(&(due, Due::Lane(place)));
            }
        }
        // What an exchange under way brings will be theirs, too.
        let asked = sharing.said.as_ref().map_or_else(Vec::new, |said| said.gates.clone());
        let places: Vec<usize> = self.registry.gates.iter().map(|(place, _)| place).collect();
        let (mut gates, mut limits, mut leaves) = (Vec::new(), Vec::new(), true);
        for place in places {
            if limits.len() == Exchange::MAX_LIMITS {
                leaves = false;
                break;
            }
            let gate = &mut self.registry.gates[place];
            if (gate.leave_fleet(now) || asked.contains(&place))
                && let Some(side) = gate.say(now)
            {
                limits.push(side);
                gates.push(place);
            }
        }
        if limits.is_empty() && sharing.heard.is_none() {
            return None;
        }
        sharing.seq += 1;
        let word = sharing.word(now, self.rng.u64(1..1 << 53), limits, Vec::new(), Vec::new());
        let exchange = Exchange { leaves, ..word };
        let (lanes, families) = (Vec::new(), Vec::new());
        sharing.said = Some(Said { at: now, exchange: exchange.clone(), gates, lanes, families });
        sharing.under_way = true;
        Some(exchange)
    }
}
