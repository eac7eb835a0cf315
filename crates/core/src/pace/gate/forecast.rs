//! When those who wait will go, as far as one can tell.

use std::time::Duration;

use super::{Gate, Knowledge, Wish};
use crate::pace::secs::{mono, num, secs, span};
use crate::pace::when::When;
use crate::time::Mono;

impl Gate {
    /// When the `place`-th waiter may go at the earliest, as far as one can tell, with what its class leaves to others.
    pub(in crate::pace) fn forecast(&self, now: Mono, place: u32, wish: &Wish) -> Mono {
        let at = secs(now);
        let opens = self.closed_for(now).map_or(at, |left| secs(now + left));
        let kept = self.kept(at, wish);
        let held = match kept.until.or(kept.presumed) {
            When::At(at) => at.min(secs(wish.starving_at)),
            When::Now | When::Event => at,
        };
        // Nobody is sent away for what is only presumed.
        let standing = if kept.presumed == When::Event {
            kept.standing
        } else {
            self.reserve(wish) + self.dated_now(at, wish)
        };
        let wanted = f64::from(place) + standing;
        if self.closing.scouting() {
            // What the scout will find is not known.
            return mono(opens);
        }
        if let Some(by_fleet) = self.forecast_shared(now, wanted) {
            return by_fleet.max(mono(opens));
        }
        let by_rate = match &self.knowledge {
            Knowledge::Told(tide) => tide.forecast(at, self.in_flight, wanted),
            Knowledge::Declared(sliding) => {
                let lap = (wanted / num(sliding.quota().max(1))).floor();
                let within = wanted - lap * num(sliding.quota());
                let by_log =
                    sliding.free_at(at, self.in_flight, within).unwrap_or(at) + lap * sliding.window();
                by_log.max(sliding.turn(at, self.in_flight) + (wanted - 1.0) * sliding.gap(at))
            }
            Knowledge::Silent(learnt) => {
                learnt.rate(at).map_or(at, |rate| learnt.next().max(at) + (wanted - 1.0) / rate)
            }
            Knowledge::Unknown | Knowledge::Capped(_) => at,
        };
        mono(opens.max(by_rate).max(held))
    }

    /// A place of its own for a refused caller, not before `earliest`: places are one permit apart and start over
    /// after two windows, because not everybody who was refused comes back.
    pub(in crate::pace) fn slot(&mut self, now: Mono, earliest: Mono) -> Mono {
        let (spacing, window) = match &self.knowledge {
            Knowledge::Told(tide) => (tide.spacing(), tide.length()),
            Knowledge::Declared(sliding) => {
                (sliding.window() / num(sliding.quota().max(1)), sliding.window())
            }
            Knowledge::Silent(learnt) => {
                (learnt.rate(secs(now)).map_or(self.spread / 32.0, |rate| 1.0 / rate), 1.0)
            }
            Knowledge::Unknown | Knowledge::Capped(_) => (self.spread / 32.0, 1.0),
        };
        let spacing = self.spread_among(now, spacing);
        let first = secs(earliest.max(now));
        let next = self.last_slot + spacing;
        self.last_slot = if next > first && next < first + 2.0 * window { next } else { first };
        mono(self.last_slot)
    }

    pub(in crate::pace) fn round_trip(&self) -> Duration {
        match &self.knowledge {
            Knowledge::Told(tide) => span(tide.trip()),
            _ => Duration::ZERO,
        }
    }
}
