//! A gate whose limit is shared with other processes.
//!
//! What the gate learns goes on as ever: what answers certify, how long windows are, how long attempts take. It is told to
//! the store, and asked for permission no more: permits come from the store in leases ([`Holding`]). The server's own word
//! about the present window bounds a lease even so, because somebody else may have taken what was leased.
//!
//! What siblings draw is not learnt: to one process alone it would look like strangers, or like another refill rule.
//!
//! Without the store the gate keeps to its part ([`Fallback`]): of what its process sent in the last window, which it always
//! remembers, and of what the server certifies.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Gate, Knowledge, Wish};
use crate::pace::refill::Rule;
use crate::pace::secs::{mono, num, secs, span};
use crate::pace::sliding::Sliding;
use crate::pace::ticket::Attempt;
use crate::pace::when::When;
use crate::share::{
    Fallback, Grant, Holding, Kind, LimitKey, LimitReply, LimitSide, May, Ms, Refill, Refused, Terms,
};
use crate::time::Mono;

/// By what a shared gate goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::pace) enum Mode {
    /// By permits from the store.
    #[default]
    Joined,
    /// By its part: the store is away.
    Part,
    /// Nothing leaves while the store is away.
    Closed,
    /// As if there were no others, while the store is away.
    Open,
}

/// What a gate has to do with the others of the fleet.
#[derive(Debug)]
pub(in crate::pace) struct Shared {
    holding: Holding,
    mode: Mode,
    /// Processes that share it, as last heard.
    holders: u32,
    heard: Option<Heard>,
    /// What this process sent; its quota is the part that it may use without the store.
    own: Option<Sliding>,
    /// The most that were in flight in this window and in the one before, and when this one began.
    most: (u32, u32, Mono),
    /// Permits taken per second, over some seconds, and when that was last known.
    pace: (f64, f64),
    /// Of a cap: places that were given, and until when they may be taken again without asking.
    places: VecDeque<(Mono, u32)>,
    /// When the last one was taken.
    taken_at: f64,
    /// When it last began to keep to its part, seconds.
    alone_since: f64,
    /// When an exchange is due for it.
    pub(in crate::pace) due: Option<Mono>,
}

/// The last answer about it.
#[derive(Clone, Copy, Debug)]
struct Heard {
    reply: LimitReply,
    at: Mono,
    /// Since when its epoch is known.
    epoch_since: Mono,
}

impl Heard {
    /// Until when nothing leaves.
    fn pause(&self) -> Mono {
        self.at + Duration::from_millis(self.reply.pause)
    }
}

impl Shared {
    /// Nothing is held yet of the limit `key`.
    pub(in crate::pace) fn new(key: LimitKey, name: &str, mode: Mode) -> Self {
        Self {
            holding: Holding::new(key, name),
            mode,
            holders: 1,
            heard: None,
            own: None,
            most: (0, 0, Mono::ZERO),
            pace: (0.0, 0.0),
            places: VecDeque::new(),
            taken_at: f64::NEG_INFINITY,
            alone_since: f64::NEG_INFINITY,
            due: None,
        }
    }

    /// The pace at which permits are taken is an average over so many seconds.
    const PACE: f64 = 10.0;
    /// What is remembered of own attempts begins anew for a window that is longer or shorter by this share.
    const OTHER_WINDOW: f64 = 0.01;
    /// The ledger gives a silent holder up within this time and a window.
    const FORGOTTEN: Duration = Duration::from_mins(2);

    fn took(&mut self, now: Mono, in_flight: u32) {
        self.holding.took(now);
        let window = self.own.as_ref().map_or(Self::PACE, Sliding::window);
        if now - self.most.2 >= span(window) {
            self.most = (in_flight, self.most.0, now);
        }
        self.most.0 = self.most.0.max(in_flight);
        self.pace = (self.pace_at(secs(now)) + 1.0 / Self::PACE, secs(now));
        self.taken_at = secs(now);
    }

    fn pace_at(&self, now: f64) -> f64 {
        let (pace, at) = self.pace;
        pace * (-(now - at).max(0.0) / Self::PACE).exp()
    }

    fn ended(&mut self, now: Mono, certified: bool) {
        self.holding.ended(now, certified);
        while self.places.front().is_some_and(|&(until, _)| until <= now) {
            self.places.pop_front();
        }
        let places: u32 = self.places.iter().map(|&(_, count)| count).sum();
        if self.holding.in_flight() + self.holding.unspent(now) < places {
            self.holding.takes_place(now);
        }
        if let Some(own) = &mut self.own {
            own.spent(secs(now));
        }
    }

    /// Remembers own attempts of a window of this length.
    fn remember(&mut self, now: f64, window: f64) {
        match &self.own {
            Some(own) if (own.window() - window).abs() <= Self::OTHER_WINDOW * window => {}
            Some(own) => self.own = Some(Sliding::restore(&own.keep(now, 0), window, now)),
            None => self.own = Some(Sliding::new(1, window)),
        }
    }
}

impl Gate {
    /// The limit is shared with others from now on.
    pub(in crate::pace) fn share(&mut self, shared: Shared) {
        self.shared = Some(Box::new(shared));
    }

    pub(in crate::pace) fn shared(&self) -> Option<&Shared> {
        self.shared.as_deref()
    }

    pub(in crate::pace) fn shared_mut(&mut self) -> Option<&mut Shared> {
        self.shared.as_deref_mut()
    }

    /// Under which name the store knows it.
    pub(in crate::pace) fn share_key(&self) -> Option<LimitKey> {
        self.shared().map(|shared| shared.holding.key())
    }

    /// Its permits come from the store.
    pub(in crate::pace) fn is_joined(&self) -> bool {
        self.shared().is_some_and(|shared| shared.mode == Mode::Joined)
    }

    /// Others of the fleet may draw from it: until the store says that there are none, there may be some.
    pub(super) fn may_have_siblings(&self) -> bool {
        let joined = self.shared().filter(|shared| shared.mode == Mode::Joined);
        joined.is_some_and(|shared| shared.heard.is_none() || shared.holders > 1)
    }

    /// The store may still count something of it for this process: it must not be forgotten yet.
    pub(in crate::pace) fn is_held(&self, now: Mono) -> bool {
        self.shared().is_some_and(|shared| {
            let quiet = span(shared.own.as_ref().map_or(0.0, Sliding::window)) * 2 + Shared::FORGOTTEN;
            shared.heard.is_some_and(|heard| now < heard.at + quiet)
        })
    }

    // ---- What it decides ---------------------------------------------------------------------------------------------

    /// When one more may go, if the limit is shared and that decides it.
    pub(super) fn by_share(&self, now: Mono, wish: &Wish) -> Option<When> {
        let shared = self.shared()?;
        match shared.mode {
            Mode::Open => None,
            Mode::Closed => Some(When::Event),
            Mode::Joined => Some(self.by_permits(now, shared, wish)),
            Mode::Part => Some(self.by_part(now, shared, wish)),
        }
    }

    fn by_permits(&self, now: Mono, shared: &Shared, wish: &Wish) -> When {
        if !self.concurrency.allows(self.in_flight) {
            return When::Event;
        }
        if self.breaks_reserve(now, shared, wish) {
            return When::At(secs(wish.starving_at).max(secs(now + Duration::from_millis(1))));
        }
        let learnt = match &self.knowledge {
            // What throttles taught of a limit that nobody tells or declares, each process learns for itself.
            Knowledge::Silent(learnt) => When::at(learnt.next(), secs(now)),
            _ => When::Now,
        };
        learnt.and(match shared.holding.may(now, self.certified(shared)) {
            May::Now => When::Now,
            May::At(at) => When::at(secs(at), secs(now)),
            May::Event => When::Event,
        })
    }

    /// A class that leaves a number of permits to others does so with what is there for all.
    fn breaks_reserve(&self, now: Mono, shared: &Shared, wish: &Wish) -> bool {
        let reserve = self.reserve(wish);
        let there = shared.heard.map_or(0.0, |heard| signed(heard.reply.available))
            + f64::from(shared.holding.unspent(now));
        reserve > 0.0 && now < wish.starving_at && !shared.holding.scouts() && there < 1.0 + reserve
    }

    /// What the server's own word about the present window still covers.
    fn certified(&self, shared: &Shared) -> Option<f64> {
        let Knowledge::Told(tide) = &self.knowledge else { return None };
        let heard = shared.heard.filter(|heard| heard.reply.terms.rule == Refill::Step)?;
        Some(tide.certified_since(secs(heard.epoch_since))? - f64::from(self.in_flight))
    }

    /// It has permits that the server's word no longer covers, or none.
    pub(in crate::pace) fn lacks_permits(&self, now: Mono) -> bool {
        let Some(shared) = self.shared().filter(|shared| shared.mode == Mode::Joined) else { return false };
        let none = shared.holding.unspent(now) == 0;
        let worthless = || self.certified(shared).is_some_and(|certified| certified < 1.0);
        !self.has_scout_out() && (none || (self.in_flight == 0 && !shared.holding.scouts() && worthless()))
    }

    /// Something is told or declared of it.
    pub(in crate::pace) fn is_counted(&self) -> bool {
        !matches!(self.knowledge, Knowledge::Unknown | Knowledge::Silent(_))
    }

    /// The fleet's scout left here and is not answered yet.
    pub(in crate::pace) fn has_scout_out(&self) -> bool {
        self.shared().is_some_and(|shared| shared.holding.has_scout_out())
    }

    fn by_part(&self, now: Mono, shared: &Shared, wish: &Wish) -> When {
        let at = secs(now);
        let most = shared.most.0.max(shared.most.1);
        if self.in_flight >= Fallback::in_flight(most) {
            return When::Event;
        }
        let Some(own) = &shared.own else { return self.by_itself(now, wish) };
        if let Knowledge::Capped(_) = self.knowledge {
            return if u64::from(self.in_flight) < own.quota() { When::Now } else { When::Event };
        }
        let Some(free) = own.free_at(at, self.in_flight, 1.0) else { return When::Event };
        let part = When::at(free, at);
        if self.is_stepped(shared) {
            // What the server says of the present window holds, whoever draws.
            return part.and(self.by_itself(now, wish));
        }
        // Others may have sent more than their part in the window before: it comes back as they sent it.
        let gap = own.window() / num(own.quota().max(1));
        let turn = if at < shared.alone_since + own.window() { shared.taken_at + gap } else { at };
        part.and(When::at(turn, at))
    }

    /// Answers tell of it, and all comes back at once.
    fn is_stepped(&self, shared: &Shared) -> bool {
        let rule = shared.heard.map_or(Refill::Step, |heard| heard.reply.terms.rule);
        matches!(self.knowledge, Knowledge::Told(_)) && rule == Refill::Step
    }

    // ---- What it tells and hears -------------------------------------------------------------------------------------

    pub(super) fn share_took(&mut self, now: Mono) {
        let in_flight = self.in_flight;
        if let Some(shared) = self.shared_mut() {
            shared.took(now, in_flight);
        }
    }

    pub(super) fn share_gave_back(&mut self, at: Mono) {
        if let Some(shared) = self.shared_mut() {
            shared.holding.gave_back(at);
        }
    }

    pub(super) fn share_ended(&mut self, now: Mono, certified: bool) {
        if let Some(shared) = self.shared_mut() {
            shared.ended(now, certified);
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
        if let Some(window) = window {
            shared.remember(secs(now), window);
        }
        let before = shared.heard.filter(|heard| heard.reply.epoch == reply.epoch);
        let epoch_since = before.map_or(now, |heard| heard.epoch_since);
        shared.heard = Some(Heard { reply: *reply, at: now, epoch_since });
        shared.holders = holders;
        shared.holding.hear(now, said_at, holders, reply);
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
        let window = self.rate_window();
        let quota = match &self.knowledge {
            Knowledge::Capped(cap) => Some(u64::from(*cap)),
            _ => self.quota(),
        };
        let Some(shared) = self.shared_mut() else { return };
        shared.mode = mode;
        shared.alone_since = secs(now);
        if mode == Mode::Part
            && let Some(quota) = quota
        {
            shared.remember(secs(now), window.unwrap_or(Shared::PACE));
            let part = {
                let share = shared.heard.map_or(share, |heard| heard.reply.share);
                fallback.part(u32::try_from(quota).unwrap_or(u32::MAX), share)
            };
            if let Some(own) = &mut shared.own {
                own.set_quota(u64::from(part));
            }
        }
        if mode != Mode::Joined
            && let Knowledge::Told(tide) = &mut self.knowledge
        {
            tide.has_siblings(false);
        }
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
                let (rule, proven) = match heard {
                    Some(heard) => (heard.reply.terms.rule, false),
                    None => proven_rule(tide.rule(), tide.is_proven_step(), tide.is_proven_log()),
                };
                Terms { kind: rate(tide.limit().max(1), tide.window_of(rule), true), rule, proven, pinned }
            }
            Knowledge::Declared(sliding) => {
                // Whether bursts are refused the store finds out for all, from the throttles that it is told of.
                let kind = rate(sliding.quota(), sliding.window(), false);
                Terms { kind, rule: Refill::Log, proven: false, pinned }
            }
            Knowledge::Capped(cap) => {
                Terms { kind: Kind::Cap { cap: *cap }, rule: Refill::Step, proven: false, pinned }
            }
            Knowledge::Unknown | Knowledge::Silent(_) => {
                Terms { kind: Kind::Unknown, rule: Refill::Step, proven: false, pinned }
            }
        }
    }

    // ---- What people and forecasts are told ----------------------------------------------------------------------------

    /// The share of the quota that the fleet uses, in thousandths.
    pub(in crate::pace) fn fleet_share(&self) -> Option<u32> {
        self.shared()?.heard.map(|heard| heard.reply.share)
    }

    /// For how long the fleet stays away.
    pub(super) fn paused_until(&self, now: Mono) -> Option<Mono> {
        let shared = self.shared().filter(|shared| shared.mode == Mode::Joined)?;
        shared.heard.map(|heard| heard.pause()).filter(|&pause| now < pause)
    }

    /// When the `place`-th waiter may go, by what the fleet has and this process's part in it.
    pub(super) fn forecast_shared(&self, now: Mono, wanted: f64) -> Option<Mono> {
        let shared = self.shared().filter(|shared| shared.mode == Mode::Joined)?;
        let Some(heard) = shared.heard else { return Some(now) };
        let missing = wanted - f64::from(shared.holding.unspent(now));
        let Kind::Rate { quota, window, .. } = heard.reply.terms.kind else { return Some(now) };
        let holders = f64::from(shared.holders.max(1));
        let missing = missing - (signed(heard.reply.available) / holders).max(0.0);
        if missing <= 0.0 {
            return Some(now);
        }
        let window = num(window) / 1e3;
        let spacing = Self::shared_spacing(secs(now), window / f64::from(quota.max(1)), shared);
        let ends = heard.reply.ends.filter(|_| heard.reply.terms.rule == Refill::Step);
        let at = match ends {
            Some((_, up)) => {
                let next = secs(heard.at + Duration::from_millis(up)).max(secs(now));
                let per_window = (window / spacing).max(1.0);
                next + window * ((missing - 1.0) / per_window).floor()
            }
            None => secs(now) + missing * spacing,
        };
        Some(mono(at))
    }

    /// Seconds between permits of this process, where the fleet has one each `spacing`: no less than what an equal part gives,
    /// unless it was given more of late.
    fn shared_spacing(now: f64, spacing: f64, shared: &Shared) -> f64 {
        let equal = spacing * f64::from(shared.holders.max(1));
        let pace = shared.pace_at(now);
        if pace > 0.0 { equal.min(1.0 / pace).max(spacing) } else { equal }
    }

    /// The same for who is refused: as many more seconds as there are others.
    pub(super) fn spread_among(&self, now: Mono, spacing: f64) -> f64 {
        match self.shared().filter(|shared| shared.mode == Mode::Joined) {
            Some(shared) => Self::shared_spacing(secs(now), spacing, shared),
            None => spacing,
        }
    }

    /// What the fleet may use now, as last heard, and what is in hand.
    pub(super) fn fleet_remaining(&self, now: Mono) -> Option<f64> {
        let shared = self.shared().filter(|shared| shared.mode == Mode::Joined)?;
        let heard = shared.heard.filter(|heard| matches!(heard.reply.terms.kind, Kind::Rate { .. }))?;
        Some((signed(heard.reply.available) + f64::from(shared.holding.unspent(now))).max(0.0))
    }

    /// What strangers draw, permits per second: not the siblings.
    pub(super) fn fleet_strangers(&self) -> Option<f64> {
        let shared = self.shared().filter(|shared| shared.mode == Mode::Joined)?;
        shared.heard.map(|heard| f64::from(heard.reply.foreign) / 1e3)
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
    ((seconds * 1e3).ceil() as Ms).clamp(1, 1_000_000_000_000)
}

#[expect(clippy::cast_precision_loss, reason = "a count of permits")]
fn signed(count: i64) -> f64 {
    count as f64
}
