//! What is told of a limit, to holders and to people, and for how long it is known.

use crate::share::limit::Limit;
use crate::share::wire::{At, Kind, LimitReply, LimitView, Ms, Terms};

impl Limit {
    /// The state outlives its use by so much.
    const KEEP: Ms = 60_000;

    /// The state of it may be dropped then.
    pub(super) fn keep(&mut self, now: At) {
        let window = self.rate().map_or(0, |(_, window)| window);
        let used = now + (2 * window).max(window + self.silence());
        self.expires = used.max(self.pause) + Self::KEEP;
    }

    /// For a holder.
    pub(super) fn reply(&self, now: At, recall: bool) -> LimitReply {
        let room = if self.shut.is_some() { 0 } else { self.available(now, now) };
        LimitReply {
            generation: self.generation,
            epoch: self.epoch,
            lease: self.lease(),
            pause: self.pause.saturating_sub(now),
            recall,
            scarce: self.is_scarce(now, room),
            terms: Terms { rule: self.rule(now), ..self.terms },
            other: self.other(now),
            available: room,
            dry: self.dry_for(now),
            ends: self.ends.map(|(lo, up)| (lo.saturating_sub(now), up.saturating_sub(now))),
            share: self.share,
            foreign: self.foreign.rate,
        }
    }

    /// For people.
    pub(super) fn view(&self, now: At) -> LimitView {
        LimitView {
            name: self.name.clone(),
            partition: self.partition.clone(),
            differs: self.other(now).map(|other| (self.terms.kind, other)),
            quota: match self.terms.kind {
                Kind::Unknown => None,
                Kind::Rate { quota, .. } => Some(quota),
                Kind::Cap { cap } => Some(cap),
            },
            available: self.available(now, now),
            out: u32::try_from(self.out()).unwrap_or(u32::MAX),
            holders: self.holders(now),
            paused_for: self.pause.saturating_sub(now),
            held_for: self.rows.values().map(|row| row.until).max().unwrap_or(0).saturating_sub(now),
            epoch: self.epoch,
            generation: self.generation,
        }
    }
}
