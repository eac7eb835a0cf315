//! A gate whose limit is shared with other processes.
//!
//! What the gate learns goes on as ever: what answers certify, how long windows are, how long attempts take. It is told to
//! the store, and asked for permission no more: permits come from the store in leases ([`Holding`]). The server's own word
//! about the present window bounds a lease even so, because somebody else may have taken what was leased.
//!
//! What siblings draw is not learnt: to one process alone it would look like strangers, or like another refill rule.
//!
//! Without the store the gate keeps to its part ([`Fallback`](crate::share::Fallback)): of what its process sent in the last
//! window, which it always remembers, and of what the server certifies.
//!
//! Whether one more may leave is decided in `decide`; what is said and heard stands in `tell`, and what people are told in
//! `told`.

mod decide;
mod tell;
mod told;

use std::collections::VecDeque;
use std::time::Duration;

use super::Gate;
use crate::pace::secs::{num, secs, span};
use crate::pace::sliding::Sliding;
use crate::share::{Fallback, Holding, Kind, LimitKey, LimitReply, Part, Permit};
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
    /// Others of the fleet draw from it, or did so a moment ago.
    met_others: Option<Mono>,
    /// What the fleet went by when it was told that configurations differ.
    differs: Option<Kind>,
    /// What this process sent; its quota is the part that it may use without the store.
    own: Option<Sliding>,
    /// The longest windows that were heard of in this stretch of time and in the one before, seconds, and when this one began.
    windows: (f64, f64, Mono),
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
    /// Its turn where there are more processes than permits: nothing leaves before, seconds.
    turn: f64,
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
    pub(in crate::pace) fn new(key: LimitKey, name: &str, partition: String, mode: Mode) -> Self {
        Self {
            holding: Holding::new(key, name).counted_for(partition),
            mode,
            holders: 1,
            heard: None,
            met_others: None,
            differs: None,
            own: None,
            windows: (0.0, 0.0, Mono::ZERO),
            most: (0, 0, Mono::ZERO),
            pace: (0.0, 0.0),
            places: VecDeque::new(),
            taken_at: f64::NEG_INFINITY,
            alone_since: f64::NEG_INFINITY,
            turn: f64::NEG_INFINITY,
            due: None,
        }
    }

    /// The pace at which permits are taken is an average over so many seconds.
    const PACE: f64 = 10.0;
    /// What is remembered of own attempts begins anew for a window that is longer or shorter by this share.
    const OTHER_WINDOW: f64 = 0.01;
    /// A process that was heard of may draw for so long without being heard of again.
    const REMEMBERED: Duration = Duration::from_mins(1);
    /// The ledger gives a silent holder up within this time and a window.
    const FORGOTTEN: Duration = Duration::from_mins(2);
    /// The ledger keeps a limit for so long after its pause, and what it counted of this process.
    const KEPT: Duration = Duration::from_mins(1);

    /// What was heard to be left is hardly less after so many leases: at the loss one of them has passed.
    const FRESH: f64 = 3.0;

    /// What was heard of windows counts for so long, and for so many windows.
    const WINDOWS: (f64, f64) = (60.0, 4.0);

    /// The fleet takes the window for so long.
    fn note_window(&mut self, now: Mono, window: f64) {
        let (this, _, since) = self.windows;
        let (time, windows) = Self::WINDOWS;
        if (now - since).as_secs_f64() >= time.max(windows * this) {
            self.windows = (0.0, this, now);
        }
        self.windows.0 = self.windows.0.max(window);
    }

    fn took(&mut self, now: Mono, in_flight: u32) -> Permit {
        let permit = self.holding.took(now);
        let window = self.own.as_ref().map_or(Self::PACE, Sliding::window);
        if now - self.most.2 >= span(window) {
            self.most = (in_flight, self.most.0, now);
        }
        self.most.0 = self.most.0.max(in_flight);
        self.pace = (self.pace_at(secs(now)) + 1.0 / Self::PACE, secs(now));
        self.taken_at = secs(now);
        permit
    }

    fn pace_at(&self, now: f64) -> f64 {
        let (pace, at) = self.pace;
        pace * (-(now - at).max(0.0) / Self::PACE).exp()
    }

    fn ended(&mut self, now: Mono, permit: Permit, certified: bool) {
        self.holding.ended(now, permit, certified);
        while self.places.front().is_some_and(|&(until, _)| until <= now) {
            self.places.pop_front();
        }
        let places: u32 = self.places.iter().map(|&(_, count)| count).sum();
        if self.holding.in_flight() + self.holding.unspent(now) < places {
            self.holding.takes_place(now, permit);
        }
        if let Some(own) = &mut self.own {
            own.spent(secs(now));
        }
    }

    /// Keeps to its part of a cap.
    fn part_of_places(&mut self, now: f64, part: Part) {
        self.remember(now, Self::PACE);
        if let Some(own) = &mut self.own {
            own.set_quota(u64::from(part.permits));
        }
    }

    /// Keeps to its part of a quota.
    fn part_with(&mut self, now: f64, window: f64, part: Part, turn: f64) {
        if part.permits > 1 {
            self.remember(now, window);
            if let Some(own) = &mut self.own {
                own.set_quota(u64::from(part.permits));
            }
        } else {
            // Of the window before each knows its own attempts alone, and those who made none may not all go at once. What all
            // sent in it is back after it; from then on each has its turn.
            self.own = Some(Sliding::new(u64::from(part.permits), window * f64::from(part.windows)));
            self.turn = now + window * (1.0 + turn);
        }
    }

    /// Until the window is over it keeps to its part of what was left of it, and not to its part of the whole less what it sent:
    /// who sent most would be shut though something is left, and who sent little would take what others have used.
    fn part_of_rest(&mut self, now: Mono, window: f64, stepped: bool, fallback: &Fallback) {
        let Some(heard) = self.heard else { return };
        let (age, now) = ((now - heard.at).as_secs_f64(), secs(now));
        let refill =
            heard.reply.ends.filter(|_| stepped).map(|(_, latest)| secs(heard.at) + num(latest) / 1e3);
        if age >= window || refill.is_some_and(|refill| refill <= now) {
            return;
        }
        let left = u32::try_from(heard.reply.available.max(0)).unwrap_or(u32::MAX);
        let rest = fallback.part_of_rest(left, self.holders);
        let Some(own) = &mut self.own else { return };
        let mut used = own.quota().saturating_sub(rest);
        if age > Self::FRESH * num(heard.reply.lease) / 1e3 {
            // Others have drawn from it since.
            used = used.max(own.used(now));
        }
        // What the others used comes back at the refill, or one by one.
        let since = refill.map_or((now - window, now), |refill| (refill - window, refill - window));
        own.set_used(now, used, since.0.min(now), since.1.min(now));
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
        let among = self.shared().filter(|shared| matches!(shared.mode, Mode::Joined | Mode::Part));
        among.is_some_and(|shared| shared.heard.is_none() || shared.holders > 1)
    }

    /// What looks like strangers' draw may be siblings': one process alone cannot tell them apart, and the store, which can, is away,
    /// or came back of late and has not heard of all of them yet.
    pub(in crate::pace) fn takes_siblings_for_strangers(&self, now: Mono) -> bool {
        self.shared().is_some_and(|shared| {
            let of_late = |met: Mono| now < met + Shared::REMEMBERED;
            shared.mode != Mode::Joined || shared.heard.is_none() || shared.met_others.is_some_and(of_late)
        })
    }

    /// The store may still count something of it for this process: it must not be forgotten yet.
    pub(in crate::pace) fn is_held(&self, now: Mono) -> bool {
        self.shared().is_some_and(|shared| {
            let quiet = span(shared.own.as_ref().map_or(0.0, Sliding::window)) * 2 + Shared::FORGOTTEN;
            shared.heard.is_some_and(|heard| now < (heard.at + quiet).max(heard.pause() + Shared::KEPT))
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "a count of permits")]
fn signed(count: i64) -> f64 {
    count as f64
}
