//! What a shared gate tells the store and hears from it.

use std::time::Duration;

use super::{Heard, Mode};
use crate::event::Event;
use crate::pace::gate::{Gate, Knowledge};
use crate::pace::refill::Rule;
use crate::pace::secs::{mono, num, secs};
use crate::pace::spec::LimitKind;
use crate::pace::ticket::Attempt;
use crate::share::{
    Differing, Fallback, Grant, Kind, LimitReply, LimitSide, Ms, Permit, Refill, Refused, Terms,
};
use crate::time::Mono;

impl Gate {
    pub(in crate::pace::gate) fn share_took(&mut self, now: Mono) -> Permit {
        let in_flight = self.in_flight;
        self.shared_mut().map_or_else(Permit::default, |shared| shared.took(now, in_flight))
    }

    pub(in crate::pace::gate) fn share_gave_back(&mut self, permit: Permit) {
        if let Some(shared) = self.shared_mut() {
            shared.holding.gave_back(permit);
        }
    }

    pub(in crate::pace::gate) fn share_ended(&mut self, now: Mono, permit: Permit, certified: bool) {
        if let Some(shared) = self.shared_mut() {
            shared.ended(now, permit, certified);
        }
    }

    /// A throttle closed the gate: the whole fleet stays away.
    pub(in crate::pace) fn share_refused(&mut self, now: Mono, attempt: &Attempt) {
        let Some(until) = self.closing.closed_until(now) else { return };
        let blames_quota = matches!(self.knowledge, Knowledge::Declared(_));
        if let Some(shared) = self.shared_mut() {
            let sent = mono(attempt.sent).min(now);
            shared.holding.refused(Refused { sent, answered: now, until, blames_quota });
        }
    }

    /// When an exchange is due for what it has, whoever waits.
    pub(in crate::pace) fn exchange_due(&self, now: Mono, round_trip: Duration) -> Option<Mono> {
        self.shared()?.holding.due(now, 0, round_trip)
    }

    /// Permits in hand.
    pub(in crate::pace) fn unspent(&self, now: Mono) -> u32 {
        self.shared().map_or(0, |shared| shared.holding.unspent(now))
    }

    /// Of them, those that a call can leave with. Where the server's own word covers none any more, calls are stopped by it as by
    /// none in hand, and what they ask for has to be counted alike: else an exchange would be due that says nothing.
    pub(in crate::pace) fn worth(&self, now: Mono) -> u32 {
        if self.lacks_permits(now) { 0 } else { self.unspent(now) }
    }

    /// For how long permits are given.
    pub(in crate::pace) fn lease_length(&self) -> Option<Duration> {
        let heard = self.shared()?.heard?;
        Some(Duration::from_millis(heard.reply.lease))
    }

    /// Until when its permits may be used, if it has any that are counted.
    pub(in crate::pace) fn leased_until(&self, now: Mono) -> Option<Mono> {
        let shared = self.shared().filter(|shared| shared.holding.unspent(now) > 0)?;
        let counted = |heard: &Heard| heard.reply.terms.kind != Kind::Unknown;
        shared.heard.filter(counted).map(|_| shared.holding.lease())
    }

    /// What to say of it.
    pub(in crate::pace) fn say(&mut self, now: Mono) -> Option<LimitSide> {
        let terms = self.terms();
        let heard = self.shared()?.heard.map(|heard| heard.reply.terms);
        let stepped = heard.unwrap_or(terms);
        let proven = stepped.rule == Refill::Step && stepped.proven;
        let seen = match &self.knowledge {
            Knowledge::Told(tide) if matches!(terms.kind, Kind::Rate { told: true, .. }) => {
                tide.sight(secs(now), proven)
            }
            _ => None,
        };
        Some(self.shared_mut()?.holding.say(now, terms, seen))
    }

    /// This process ends: nothing is to leave any more, and what is in hand is given back with what is said next. Whether there is
    /// something to say.
    pub(in crate::pace) fn leave_fleet(&mut self, now: Mono) -> bool {
        let Some(shared) = self.shared_mut().filter(|shared| shared.mode == Mode::Joined) else {
            return false;
        };
        shared.places.clear();
        shared.holding.leave(now)
    }

    /// The last word was heard.
    pub(in crate::pace) fn has_left_fleet(&mut self) {
        if let Some(shared) = self.shared_mut() {
            shared.holding.has_left();
        }
    }

    /// The exchange of `said_at` is answered.
    pub(in crate::pace) fn share_heard(
        &mut self,
        now: Mono,
        said_at: Mono,
        holders: u32,
        reply: &LimitReply,
    ) {
        if let Knowledge::Told(tide) = &mut self.knowledge {
            tide.has_siblings(holders > 1);
        }
        let window = self.rate_window();
        let Some(shared) = self.shared_mut() else { return };
        // Its part may be one permit in several windows, and it keeps to that until the store has heard of all.
        if let Some(window) = window.filter(|_| shared.mode == Mode::Joined) {
            shared.remember(secs(now), window);
        }
        if let Kind::Rate { window, .. } = reply.terms.kind {
            shared.note_window(now, num(window) / 1e3);
        }
        let before = shared.heard.filter(|heard| heard.reply.epoch == reply.epoch);
        let epoch_since = before.map_or(now, |heard| heard.epoch_since);
        shared.heard = Some(Heard { reply: *reply, at: now, epoch_since });
        shared.holders = holders;
        if holders > 1 {
            shared.met_others = Some(now);
        }
        shared.holding.hear(now, said_at, holders, reply);
        self.take_on(reply);
    }

    /// Of what a profile takes for usual, the fleet's number holds here too while somebody there knows it, so that this process
    /// goes on by it without the store.
    fn take_on(&mut self, reply: &LimitReply) {
        let known = !reply.terms.assumed;
        match (&mut self.knowledge, self.assumed) {
            (Knowledge::Declared(sliding), Some(LimitKind::Rate { quota: usual, .. })) => {
                let quota = match reply.terms.kind {
                    Kind::Rate { quota, window, .. } if known && window == millis(sliding.window()) => {
                        u64::from(quota)
                    }
                    _ => usual,
                };
                if sliding.quota() != quota {
                    sliding.set_quota(quota);
                }
            }
            (Knowledge::Capped(own), Some(LimitKind::Concurrent { cap: usual })) => {
                *own = match reply.terms.kind {
                    Kind::Cap { cap } if known => cap,
                    _ => usual,
                };
            }
            _ => {}
        }
    }

    /// How what is declared here differs from what other processes declare.
    pub(in crate::pace::gate) fn differing(&self, reply: &LimitReply) -> Option<Differing> {
        // What is usual is no word of a configuration: who knows better is right.
        if self.assumed.is_some() && !reply.terms.assumed {
            return None;
        }
        match &self.knowledge {
            Knowledge::Declared(_) | Knowledge::Capped(_) => Differing::of(self.terms().kind, reply),
            Knowledge::Told(_) | Knowledge::Unknown | Knowledge::Silent(_) => None,
        }
    }

    /// The same, the first time that it is so with what the fleet goes by.
    pub(in crate::pace) fn terms_differ(&mut self, reply: &LimitReply) -> Option<Event> {
        let differing = self.differing(reply)?;
        let shared = self.shared_mut()?;
        if shared.differs.replace(reply.terms.kind) == Some(reply.terms.kind) {
            return None;
        }
        Some(Event::TermsDiffer { limit: self.name.to_string(), differing })
    }

    pub(in crate::pace) fn granted(&mut self, now: Mono, grant: &Grant) {
        let capped = matches!(self.knowledge, Knowledge::Capped(_));
        let Some(shared) = self.shared_mut() else { return };
        shared.holding.granted(now, grant);
        if capped && grant.permits > 0 {
            // Not longer, so that places go round: whoever came late gets one when they are given back.
            shared.places.push_back((shared.holding.lease(), grant.permits));
        }
    }

    /// Goes by something else from now on. `share`: what the fleet used of a quota, in thousandths, as long as nothing was heard
    /// of this one.
    pub(in crate::pace) fn set_mode(&mut self, now: Mono, mode: Mode, fallback: &Fallback, share: u32) {
        let window = self.rate_window().map(|own| own.max(self.fleet_window().unwrap_or(own)));
        let quota = match &self.knowledge {
            Knowledge::Capped(cap) => Some(u64::from(*cap)),
            _ => self.quota(),
        };
        let stepped = self.shared().is_some_and(|shared| self.is_stepped(shared));
        let Some(shared) = self.shared_mut() else { return };
        shared.mode = mode;
        (shared.alone_since, shared.turn) = (secs(now), f64::NEG_INFINITY);
        if mode == Mode::Joined {
            // Siblings that have not spoken to a store that was away are there all the same.
            shared.met_others = Some(now);
        }
        if mode == Mode::Part
            && let Some(quota) = quota
        {
            let share = shared.heard.map_or(share, |heard| heard.reply.share);
            let part = fallback.part(u32::try_from(quota).unwrap_or(u32::MAX), share, shared.holders);
            match window {
                Some(window) => {
                    shared.part_with(secs(now), window, part, fallback.turn(part.windows));
                    if part.permits > 1 {
                        shared.part_of_rest(now, window, stepped, fallback);
                    }
                }
                // Places have no turns.
                None => shared.part_of_places(secs(now), part),
            }
        }
        let siblings = self.may_have_siblings();
        if let Knowledge::Told(tide) = &mut self.knowledge {
            tide.has_siblings(siblings);
        }
    }

    /// Its quota is known and its part of it is not.
    pub(in crate::pace) fn has_no_part(&self) -> bool {
        self.rate_window().is_some() && self.shared().is_some_and(|shared| shared.own.is_none())
    }

    /// The longest that the fleet held the window to be of late, seconds. This process may have seen the end of one only and take
    /// it for shorter, and so may the one whose word the fleet went by last.
    fn fleet_window(&self) -> Option<f64> {
        let (this, before, _) = self.shared()?.windows;
        Some(this.max(before)).filter(|&window| window > 0.0)
    }

    fn rate_window(&self) -> Option<f64> {
        match &self.knowledge {
            Knowledge::Told(tide) => Some(tide.length()),
            Knowledge::Declared(sliding) => Some(sliding.window()),
            Knowledge::Unknown | Knowledge::Capped(_) | Knowledge::Silent(_) => None,
        }
    }

    /// What the limit is held to be.
    fn terms(&self) -> Terms {
        let heard = self.shared().and_then(|shared| shared.heard);
        let pinned = self.pinned;
        let rate = |quota: u64, window: f64, told| Kind::Rate {
            quota: u32::try_from(quota).unwrap_or(u32::MAX),
            window: millis(window),
            told,
        };
        match &self.knowledge {
            Knowledge::Told(tide) => {
                // What one process sees among others proves nothing about the rule: the store sees them all.
                // While it goes by what is declared, it has not seen what answers tell.
                let fleets = heard.map(|heard| heard.reply.terms);
                let fleets = fleets.filter(|terms| matches!(terms.kind, Kind::Rate { told: true, .. }));
                let (rule, proven) = match fleets {
                    Some(terms) => (terms.rule, false),
                    None => proven_rule(tide.rule(), tide.is_proven_step(), tide.is_proven_log()),
                };
                Terms {
                    kind: rate(tide.limit().max(1), tide.window_of(rule), true),
                    rule,
                    proven,
                    pinned,
                    assumed: false,
                }
            }
            Knowledge::Declared(sliding) => {
                // Whether bursts are refused the store finds out for all, from the throttles that it is told of.
                // What is assumed here is said, not what was taken over: otherwise nobody would ever be rid of a wrong number.
                let quota = match self.assumed {
                    Some(LimitKind::Rate { quota, .. }) => quota,
                    _ => sliding.quota(),
                };
                let (kind, assumed) = (rate(quota, sliding.window(), false), self.assumed.is_some());
                Terms { kind, rule: Refill::Log, proven: false, pinned, assumed }
            }
            Knowledge::Capped(cap) => {
                let cap = match self.assumed {
                    Some(LimitKind::Concurrent { cap }) => cap,
                    _ => *cap,
                };
                let assumed = self.assumed.is_some();
                Terms { kind: Kind::Cap { cap }, rule: Refill::Step, proven: false, pinned, assumed }
            }
            Knowledge::Unknown | Knowledge::Silent(_) => {
                Terms { kind: Kind::Unknown, rule: Refill::Step, proven: false, pinned, assumed: false }
            }
        }
    }
}

/// The rule that a gate brings along, as far as it is proven.
fn proven_rule(rule: Rule, step: bool, log: bool) -> (Refill, bool) {
    match rule {
        Rule::Step => (Refill::Step, step),
        Rule::Log if log => (Refill::Log, true),
        // Unproven, the store finds out.
        Rule::Log => (Refill::Step, false),
        Rule::Continuous => (Refill::Even, false),
    }
}

/// Whole milliseconds, at least one: a window is never taken for shorter than it is.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, and windows are positive"
)]
fn millis(seconds: f64) -> Ms {
    ((seconds * 1e3).ceil() as Ms).clamp(1, Terms::LONGEST_WINDOW)
}
