//! One process: a holding, what the server told it, and the calls that wait for it.

use std::collections::VecDeque;
use std::time::Duration;

use tidegate_core::share::{
    Exchange, HolderId, Holding, Kind, LimitKey, LimitSide, May, PROTOCOL, Permit, Refill, Refused, Reply,
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

/// One limit that each of its calls passes.
struct Part {
    holding: Holding,
    saw: Saw,
    belief: Belief,
    quota: u32,
    window: Us,
    /// Attempts that have not ended: when they left, and what they took.
    out: Vec<(Us, Permit)>,
}

impl Part {
    fn left(&mut self, mono: Mono, now: Us) {
        let permit = self.holding.took(mono);
        self.out.push((now, permit));
    }

    fn ended(&mut self, mono: Mono, sent: Us, certified: bool) {
        let place = self.out.iter().position(|&(left, _)| left == sent).expect("it has left");
        let (_, permit) = self.out.remove(place);
        self.holding.ended(mono, permit, certified);
    }

    fn answered(&mut self, mono: Mono, now: Us, sent: Us, answer: &Answer) {
        let stepped = (self.belief.rule == Refill::Step).then_some(self.window);
        if self.belief.told {
            self.saw.answer(sent, now, answer.remaining, answer.reset, stepped);
        }
        self.ended(mono, sent, self.belief.told);
    }

    fn say(&mut self, mono: Mono, now: Us) -> LimitSide {
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
            assumed: false,
        };
        self.holding.say(mono, terms, seen)
    }
}

pub(crate) struct Node {
    pub(crate) id: u64,
    pub(crate) alive: bool,
    /// It does not reach the store before.
    pub(crate) cut_off: Us,
    parts: Vec<Part>,
    /// Those that the ask under way names.
    asked: Vec<usize>,
    /// It was told to ask for its calls again then.
    come_back: Us,
    pub(crate) rate: f64,
    pub(crate) waiting: VecDeque<Us>,
    /// Calls that have left.
    pub(crate) served: u64,
    /// Of the waiting, those of an urgent class; the rest are bulk.
    pub(crate) urgent: bool,
    pub(crate) seq: u64,
    answered: u64,
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
    /// Since when its calls wait though nothing is in their way.
    pub(crate) could_since: Option<Us>,
}

fn ms(us: Us) -> u64 {
    us / 1_000
}

impl Node {
    /// `limits`: quota and window of each, and what is believed of it.
    pub(crate) fn new(id: u64, rate: f64, limits: &[(u32, Us, Belief)], offset: Us) -> Self {
        let part = |(key, &(quota, window, belief))| Part {
            holding: Holding::new(LimitKey([key; 8]), "world"),
            saw: Saw::default(),
            belief,
            quota,
            window,
            out: Vec::new(),
        };
        Self {
            id,
            alive: true,
            cut_off: 0,
            parts: (7..).zip(limits).map(part).collect(),
            asked: Vec::new(),
            come_back: 0,
            rate,
            waiting: VecDeque::new(),
            served: 0,
            urgent: false,
            seq: 0,
            answered: 0,
            incarnation: None,
            under_way: None,
            heard: None,
            round_trip: 2_000,
            offset,
            wake: Us::MAX,
            closed: 0,
            most_waiting: 400,
            could_since: None,
        }
    }

    /// Its own clock: one that began somewhere else.
    pub(crate) fn mono(&self, now: Us) -> Mono {
        Mono::from_nanos((now + self.offset) * 1_000)
    }

    pub(crate) fn us(&self, at: Mono) -> Us {
        (at.as_nanos().div_ceil(1_000)).saturating_sub(self.offset)
    }

    /// Permits in hand.
    pub(crate) fn unspent(&self, now: Us, limit: usize) -> u32 {
        if self.alive { self.parts[limit].holding.unspent(self.mono(now)) } else { 0 }
    }

    pub(crate) fn arrive(&mut self, now: Us) {
        if self.waiting.len() < self.most_waiting {
            self.waiting.push_back(now);
        }
    }

    /// Whether the next waiting call leaves now; else when to look again.
    pub(crate) fn may(&self, now: Us) -> May {
        if self.waiting.is_empty() {
            return May::Event;
        }
        if now < self.closed {
            return May::At(self.mono(self.closed));
        }
        let may = self.parts.iter().map(|part| part.holding.may(self.mono(now), None));
        may.fold(May::Now, |all, one| match (all, one) {
            (May::Event, _) | (_, May::Event) => May::Event,
            (May::At(all), May::At(one)) => May::At(all.max(one)),
            (May::At(at), May::Now) | (May::Now, May::At(at)) => May::At(at),
            (May::Now, May::Now) => May::Now,
        })
    }

    pub(crate) fn leave(&mut self, now: Us) -> Us {
        let mono = self.mono(now);
        self.parts.iter_mut().for_each(|part| part.left(mono, now));
        self.could_since = None;
        self.served += 1;
        self.waiting.pop_front().expect("somebody waits")
    }

    /// The answers of all limits; those that had no room are to blame.
    pub(crate) fn answered(&mut self, now: Us, sent: Us, answers: &[Answer]) {
        let (mono, sent_at) = (self.mono(now), self.mono(sent));
        for (part, answer) in self.parts.iter_mut().zip(answers) {
            part.answered(mono, now, sent, answer);
            if !answer.accepted {
                let until = mono + Duration::from_micros(answer.retry_after);
                self.closed = self.closed.max(now + answer.retry_after);
                let blames_quota = !part.belief.told;
                part.holding.refused(Refused { sent: sent_at, answered: mono, until, blames_quota });
            }
        }
    }

    pub(crate) fn lost(&mut self, now: Us, sent: Us) {
        let mono = self.mono(now);
        self.parts.iter_mut().for_each(|part| part.ended(mono, sent, false));
    }

    pub(crate) fn due(&self, now: Us) -> Option<Us> {
        let mono = self.mono(now);
        let round_trip = Duration::from_micros(self.round_trip);
        let holdings = || self.parts.iter().map(|part| &part.holding);
        let told = holdings().filter_map(|holding| holding.due(mono, 0, round_trip));
        let told = told.map(|due| self.us(due)).min();
        let lacks = holdings().any(|holding| holding.unspent(mono) == 0);
        let scouts = holdings().any(Holding::has_scout_out);
        let asks = (!self.waiting.is_empty() && lacks && !scouts).then_some(self.come_back);
        Some(told.into_iter().chain(asks).min()?.max(now).max(self.cut_off))
    }

    pub(crate) fn say(&mut self, now: Us) -> Exchange {
        let mono = self.mono(now);
        let limits: Vec<LimitSide> = self.parts.iter_mut().map(|part| part.say(mono, now)).collect();
        let window = self.parts.iter().map(|part| part.window).min().expect("there is a limit");
        let lease = (window / 8).clamp(500_000, 5_000_000);
        let have = limits.iter().map(|side| side.unspent).min().unwrap_or(0);
        let stopped = u32::try_from(self.waiting.len()).unwrap();
        let waiting = stopped.saturating_sub(have);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small positive number"
        )]
        let expected = (self.rate * lease as f64 / 1e6).ceil() as u32;
        let soon = expected.saturating_sub(have.saturating_sub(waiting));
        // Of several limits, those whose permits do not last.
        let needed = stopped.min(have) + waiting + soon;
        let alone = limits.len() == 1;
        self.asked = (0..limits.len()).filter(|&at| alone || limits[at].unspent < needed).collect();
        let class = usize::from(!self.urgent) * 2;
        let named = self.asked.iter().map(|&at| u8::try_from(at).unwrap()).collect();
        let mut want = Want { limits: named, now: [0; 4], soon: [0; 4], leave: [0; 4], fair: [false; 4] };
        let expects = !alone || !self.waiting.is_empty();
        (want.now[class], want.soon[class]) = (waiting, if expects { soon } else { 0 });
        self.seq += 1;
        Exchange {
            protocol: PROTOCOL,
            holder: HolderId(self.id),
            seq: self.seq,
            incarnation: self.incarnation,
            salt: self.id ^ now,
            slack: ms(self.round_trip) + 1,
            heard: self.heard.map(|at| ms(now - at)),
            answered: self.answered,
            limits,
            asks: vec![want],
            doors: Vec::new(),
            leaves: false,
        }
    }

    pub(crate) fn hear(&mut self, now: Us, reply: &Reply) {
        let (_, said_at, _) = self.under_way.take().expect("one was under way");
        self.answered = self.seq;
        let (mono, said) = (self.mono(now), self.mono(said_at));
        self.round_trip = (now - said_at).min(50_000);
        self.heard = Some(now);
        self.incarnation = Some(reply.incarnation);
        for (part, told) in self.parts.iter_mut().zip(&reply.limits) {
            part.holding.hear(mono, said, reply.holders, told);
        }
        let grant = &reply.grants[0];
        for &at in &self.asked {
            self.parts[at].holding.granted(mono, grant);
        }
        self.come_back = now + grant.come_back * 1_000;
    }
}
