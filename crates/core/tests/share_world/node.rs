//! One process: a holding, what the server told it, and the calls that wait for it.

use std::collections::VecDeque;
use std::time::Duration;

use tidegate_core::share::{
    Exchange, Grant, HolderId, Holding, Kind, LimitKey, LimitReply, May, PROTOCOL, Refill, Refused, Reply,
    Sight, Terms, Want,
};
use tidegate_core::time::Mono;

use super::server::{Answer, Us};

/// What the fleet is told of the limit before it sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Belief {
    pub(crate) told: bool,
    pub(crate) rule: Refill,
    pub(crate) proven: bool,
}

/// What one process saw itself, as its gate would tell it.
#[derive(Debug, Default)]
struct Saw {
    latest_sent: Us,
    left: Vec<(Us, u32)>,
    ends: Option<(Us, Us)>,
}

impl Saw {
    /// One answer; `stepped`: an end that is later begins a window.
    fn answer(&mut self, sent: Us, answered: Us, remaining: u32, reset: Option<Us>, stepped: Option<Us>) {
        let ends = reset.map(|reset| (sent + reset, answered + reset));
        if let (Some(window), Some((lo, up)), Some((ours_lo, ours_up))) = (stepped, ends, self.ends) {
            if lo > ours_up + window / 4 {
                *self = Self { ends, ..Self::default() };
            } else if up + window / 4 < ours_lo {
                // Answered late, of a window that is over.
                return;
            } else if lo.max(ours_lo) <= up.min(ours_up) {
                self.ends = Some((lo.max(ours_lo), up.min(ours_up)));
            } else if lo > ours_up {
                self.ends = ends;
            }
        } else {
            self.ends = ends.or(self.ends);
        }
        self.latest_sent = self.latest_sent.max(sent);
        self.left.retain(|&(at, left)| !(at <= answered && left >= remaining));
        if !self.left.iter().any(|&(at, left)| at >= answered && left <= remaining) {
            self.left.push((answered, remaining));
            self.left.sort_unstable();
        }
        let latest = self.latest_sent;
        let newest = self.left.last().map_or(0, |&(at, _)| at);
        self.left.retain(|&(at, _)| at >= latest || at == newest);
        while self.left.len() > Sight::MAX_LEFT {
            let (at, _) = self.left.pop().unwrap();
            self.left.last_mut().unwrap().0 = at;
        }
    }
}

pub(crate) struct Node {
    pub(crate) id: u64,
    pub(crate) alive: bool,
    /// It does not reach the store before.
    pub(crate) cut_off: Us,
    pub(crate) holding: Holding,
    saw: Saw,
    belief: Belief,
    quota: u32,
    window: Us,
    pub(crate) rate: f64,
    pub(crate) waiting: VecDeque<Us>,
    /// Of the waiting, those of an urgent class; the rest are bulk.
    pub(crate) urgent: bool,
    pub(crate) seq: u64,
    pub(crate) incarnation: Option<u64>,
    /// The exchange under way, when it was said first, and the copy that is awaited.
    pub(crate) under_way: Option<(Exchange, Us, u32)>,
    heard: Option<Us>,
    round_trip: Us,
    offset: Us,
    pub(crate) wake: Us,
    /// Its own gate is closed by a throttle.
    closed: Us,
    most_waiting: usize,
}

fn ms(us: Us) -> u64 {
    us / 1_000
}

impl Node {
    pub(crate) fn new(id: u64, rate: f64, quota: u32, window: Us, belief: Belief, offset: Us) -> Self {
        Self {
            id,
            alive: true,
            cut_off: 0,
            holding: Holding::new(LimitKey([7; 8]), "world"),
            saw: Saw::default(),
            belief,
            quota,
            window,
            rate,
            waiting: VecDeque::new(),
            urgent: false,
            seq: 0,
            incarnation: None,
            under_way: None,
            heard: None,
            round_trip: 2_000,
            offset,
            wake: Us::MAX,
            closed: 0,
            most_waiting: 400,
        }
    }

    /// Its own clock: one that began somewhere else.
    pub(crate) fn mono(&self, now: Us) -> Mono {
        Mono::from_nanos((now + self.offset) * 1_000)
    }

    pub(crate) fn us(&self, at: Mono) -> Us {
        (at.as_nanos().div_ceil(1_000)).saturating_sub(self.offset)
    }

    pub(crate) fn arrive(&mut self, now: Us) {
        if self.waiting.len() < self.most_waiting {
            self.waiting.push_back(now);
        }
    }

    /// Whether the next waiting call leaves now; else when to look again.
    pub(crate) fn may(&self, now: Us) -> May {
        if self.waiting.is_empty() {
            May::Event
        } else if now < self.closed {
            May::At(self.mono(self.closed))
        } else {
            self.holding.may(self.mono(now), None)
        }
    }

    pub(crate) fn leave(&mut self, now: Us) -> Us {
        let mono = self.mono(now);
        self.holding.took(mono);
        self.waiting.pop_front().expect("somebody waits")
    }

    pub(crate) fn answered(&mut self, now: Us, sent: Us, answer: &Answer) {
        let mono = self.mono(now);
        let stepped = (self.belief.rule == Refill::Step).then_some(self.window);
        if self.belief.told {
            self.saw.answer(sent, now, answer.remaining, answer.reset, stepped);
        }
        self.holding.ended(mono, self.belief.told);
        if !answer.accepted {
            let until = mono + Duration::from_micros(answer.retry_after);
            self.closed = self.closed.max(self.us(until));
            let sent = self.mono(sent);
            let blames_quota = !self.belief.told;
            self.holding.refused(Refused { sent, answered: mono, until, blames_quota });
        }
    }

    pub(crate) fn lost(&mut self, now: Us) {
        let mono = self.mono(now);
        self.holding.ended(mono, false);
    }

    pub(crate) fn due(&self, now: Us) -> Option<Us> {
        let waiting = u32::try_from(self.waiting.len()).unwrap();
        let round_trip = Duration::from_micros(self.round_trip);
        let due = self.holding.due(self.mono(now), waiting, round_trip)?;
        Some(self.us(due).max(now).max(self.cut_off))
    }

    pub(crate) fn say(&mut self, now: Us) -> Exchange {
        let mono = self.mono(now);
        let age = |at: Us| ms(now - at);
        let after = |at: Us| at.cast_signed() - now.cast_signed();
        let saw = &self.saw;
        let seen = (self.belief.told && !saw.left.is_empty()).then(|| Sight {
            latest_sent: (now - saw.latest_sent).div_ceil(1_000),
            left: saw.left.iter().map(|&(at, left)| (age(at), left)).collect(),
            ends: saw.ends.map(|(lo, up)| (after(lo).div_euclid(1_000), (after(up) + 999).div_euclid(1_000))),
            scout_in: None,
        });
        let terms = Terms {
            kind: Kind::Rate { quota: self.quota, window: ms(self.window), told: self.belief.told },
            rule: self.belief.rule,
            proven: self.belief.proven,
            pinned: false,
        };
        let side = self.holding.say(mono, terms, seen);
        let lease = (self.window / 8).clamp(500_000, 5_000_000);
        let waiting = u32::try_from(self.waiting.len()).unwrap().saturating_sub(side.unspent);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small positive number"
        )]
        let expected = (self.rate * lease as f64 / 1e6).ceil() as u32;
        let soon = expected.saturating_sub(side.unspent.saturating_sub(waiting));
        let class = usize::from(!self.urgent) * 2;
        let mut want = Want { limits: vec![0], now: [0; 4], soon: [0; 4], leave: [0; 4], fair: [false; 4] };
        (want.now[class], want.soon[class]) = (waiting, if self.waiting.is_empty() { 0 } else { soon });
        self.seq += 1;
        Exchange {
            protocol: PROTOCOL,
            holder: HolderId(self.id),
            seq: self.seq,
            incarnation: self.incarnation,
            salt: self.id ^ now,
            slack: ms(self.round_trip) + 1,
            heard: self.heard.map(age),
            limits: vec![side],
            asks: vec![want],
            doors: Vec::new(),
        }
    }

    pub(crate) fn hear(&mut self, now: Us, reply: &Reply) -> (LimitReply, Grant) {
        let (_, said_at, _) = self.under_way.take().expect("one was under way");
        let (mono, said) = (self.mono(now), self.mono(said_at));
        self.round_trip = (now - said_at).min(50_000);
        self.heard = Some(now);
        self.incarnation = Some(reply.incarnation);
        self.holding.hear(mono, said, reply.holders, &reply.limits[0]);
        self.holding.granted(mono, &reply.grants[0]);
        (reply.limits[0], reply.grants[0])
    }
}
