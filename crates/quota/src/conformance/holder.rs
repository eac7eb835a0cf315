//! A holder that does what holders may do, and now and then what they may not. Moodier ones stand in `moody`.

use std::collections::VecDeque;

use fastrand::Rng;
use tidegate_core::share::{
    At, DoorChange, DoorSide, Ended, Exchange, HolderId, Kind, LimitKey, LimitSide, Ms, PROTOCOL, Recall,
    Refill, Refusal, Reply, Sight, Terms, Want,
};

/// Limits that holders speak of.
const LIMITS: usize = 4;

/// What a holder says next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Says {
    /// The next exchange, or the last one again if that was not answered.
    New,
    /// The last one again.
    Again,
    /// An older one.
    Old,
    /// One of another version.
    OtherVersion,
}

/// Who speaks to a store.
pub(super) trait Speaker {
    /// What it says at about `now`.
    fn say(&mut self, now: At, says: Says, rng: &mut Rng) -> Exchange;

    /// What it said is answered.
    fn hear(&mut self, now: At, said: &Exchange, reply: &Reply);
}

#[derive(Clone, Debug, Default)]
struct Part {
    generation: u64,
    unspent: u32,
    in_flight: u32,
    /// Ends of attempts: when, all by then, unseen by then.
    ended: VecDeque<(At, u64, u64)>,
    told: (u64, u64),
    recall: bool,
}

/// One holder. Its clock is the model's: what matters is what it says.
#[derive(Clone, Debug)]
pub(super) struct Holder {
    id: u64,
    seq: u64,
    incarnation: Option<u64>,
    heard: Option<At>,
    parts: [Part; LIMITS],
    said: VecDeque<Exchange>,
    answered: bool,
}

impl Holder {
    /// A holder; every other one was there before the state was.
    pub(super) fn new(id: u64) -> Self {
        let before = id.is_multiple_of(2);
        let told = if before { (9, 1) } else { (0, 0) };
        Self {
            id,
            seq: if before { 40 } else { 0 },
            incarnation: before.then_some(id),
            heard: None,
            parts: std::array::from_fn(|_| Part { told, ..Part::default() }),
            said: VecDeque::new(),
            answered: true,
        }
    }

    fn next(&mut self, now: At, rng: &mut Rng) -> Exchange {
        self.seq += 1;
        let mut places: Vec<usize> = (0..LIMITS).collect();
        rng.shuffle(&mut places);
        places.truncate(rng.usize(1..=LIMITS));
        let limits: Vec<LimitSide> =
            places.iter().map(|&place| self.parts[place].say(now, place, rng)).collect();
        let asks = (0..rng.usize(0..3)).map(|_| want(limits.len(), rng)).collect();
        let doors = (0..rng.usize(0..2)).map(|_| door(rng)).collect();
        Exchange {
            protocol: PROTOCOL,
            holder: HolderId(self.id),
            seq: self.seq,
            incarnation: self.incarnation,
            salt: rng.u64(..),
            slack: rng.u64(0..30),
            heard: self.heard.map(|heard| now.saturating_sub(heard)),
            answered: 0,
            limits,
            asks,
            doors,
            leaves: false,
        }
    }
}

impl Speaker for Holder {
    fn say(&mut self, now: At, says: Says, rng: &mut Rng) -> Exchange {
        let again = says == Says::Again || (says == Says::New && !self.answered);
        if let Some(last) = self.said.back().filter(|_| again) {
            return last.clone();
        }
        if says == Says::Old && self.said.len() > 1 {
            return self.said[rng.usize(..self.said.len() - 1)].clone();
        }
        let mut next = self.next(now, rng);
        if says == Says::OtherVersion {
            self.seq -= 1;
            next.protocol += 1;
            return next;
        }
        self.answered = false;
        self.said.push_back(next.clone());
        if self.said.len() > 4 {
            self.said.pop_front();
        }
        next
    }

    fn hear(&mut self, now: At, said: &Exchange, reply: &Reply) {
        if said.seq != self.seq {
            return;
        }
        self.answered = true;
        self.heard = Some(now);
        self.incarnation = Some(reply.incarnation);
        for (side, limit) in said.limits.iter().zip(&reply.limits) {
            let part = &mut self.parts[usize::from(side.key.0[7])];
            if let Some(last) = side.ended.last() {
                part.told = (last.all, last.unseen);
            }
            part.ended.retain(|&(_, all, _)| all > part.told.0);
            if limit.generation != part.generation {
                (part.generation, part.unspent) = (limit.generation, 0);
            }
            part.recall = limit.recall;
        }
        for (ask, grant) in said.asks.iter().zip(&reply.grants) {
            let mut keys: Vec<usize> = ask.limits.iter().map(|&place| usize::from(place)).collect();
            keys.dedup();
            for side in keys.iter().filter_map(|&place| said.limits.get(place)) {
                self.parts[usize::from(side.key.0[7])].unspent += grant.permits;
            }
        }
    }
}

impl Part {
    fn say(&mut self, now: At, place: usize, rng: &mut Rng) -> LimitSide {
        self.live(now, rng);
        let quota = quota(place);
        let told = matches!(terms(place, rng).kind, Kind::Rate { told: true, .. });
        LimitSide {
            key: LimitKey([0, 0, 0, 0, 0, 0, 0, u8::try_from(place).expect("there are few")]),
            name: format!("limit {place}"),
            partition: format!("credential=client {place}"),
            terms: terms(place, rng),
            generation: self.generation,
            unspent: self.unspent,
            in_flight: self.in_flight,
            told: self.told.0,
            told_unseen: self.told.1,
            ended: self.ended.iter().map(|&(at, all, unseen)| Ended { age: now - at, all, unseen }).collect(),
            seen: (told && rng.u8(..) < 200).then(|| sight(now, place, quota, rng)),
            refused: (rng.u8(..) < 3).then(|| refusal(rng)),
            scouted: (rng.u8(..) < 64).then(|| rng.u64(0..200)),
            recall: (self.recall || rng.u8(..) < 4).then(|| recall(quota, rng)),
        }
    }

    /// Sends some of what it has, and has some of it answered.
    fn live(&mut self, now: At, rng: &mut Rng) {
        let sent = rng.u32(0..=self.unspent);
        let ended = rng.u32(0..=self.in_flight + sent);
        self.unspent -= sent;
        self.in_flight = self.in_flight + sent - ended;
        if ended > 0 {
            let (_, all, unseen) = self.ended.back().copied().unwrap_or((0, self.told.0, self.told.1));
            let lost = rng.u32(0..=ended) / 4;
            self.ended.push_back((now, all + u64::from(ended), unseen + u64::from(lost)));
        }
        if self.ended.len() > LimitSide::MAX_ENDED {
            self.ended.pop_front();
        }
        if rng.u8(..) < 16 {
            self.unspent = 0;
        }
    }
}

fn quota(place: usize) -> u32 {
    [300, 40, 50, 5][place]
}

/// What a limit is held to be; holders do not always agree.
fn terms(place: usize, rng: &mut Rng) -> Terms {
    let quota = if rng.u8(..) < 8 { quota(place) / 2 } else { quota(place) };
    let rate = |window, told| Kind::Rate { quota, window, told };
    let (kind, rule) = match place {
        0 => (rate(2_000, true), Refill::Step),
        1 => (rate(5_000, true), Refill::Log),
        2 => (rate(8_000, rng.u8(..) < 4), if rng.u8(..) < 4 { Refill::Even } else { Refill::Log }),
        _ => (if rng.u8(..) < 32 { Kind::Unknown } else { Kind::Cap { cap: quota } }, Refill::Log),
    };
    Terms { kind, rule, proven: rng.u8(..) < 64, pinned: rng.u8(..) < 4, assumed: rng.u8(..) < 64 }
}

/// What it saw. Most tell of windows that all agree on, in which less and less is left; some tell anything.
fn sight(now: At, place: usize, quota: u32, rng: &mut Rng) -> Sight {
    let window = if place == 0 { 2_000 } else { 5_000 };
    let (most, ends) = if rng.u8(..) < 8 {
        (quota, rng.i64(-500..5_000))
    } else {
        let left = window - now % window;
        let most = u64::from(quota) * left / window;
        (u32::try_from(most).unwrap_or(quota), left.cast_signed())
    };
    let mut left: Vec<(Ms, u32)> =
        (0..rng.usize(1..=Sight::MAX_LEFT)).map(|_| (rng.u64(0..100), rng.u32(most / 2..=most))).collect();
    left.sort_unstable_by(|one, other| other.cmp(one));
    let oldest = left.first().map_or(0, |&(age, _)| age);
    Sight {
        latest_sent: oldest + rng.u64(0..100),
        left,
        ends: (rng.u8(..) < 240).then(|| (ends - rng.i64(0..50), ends + rng.i64(0..50))),
        scout_in: (rng.u8(..) < 16).then(|| rng.u64(0..2_000)),
    }
}

fn refusal(rng: &mut Rng) -> Refusal {
    let age = rng.u64(0..100);
    Refusal { sent: age + rng.u64(0..300), age, stay_away: rng.u64(0..1_500), blames_quota: rng.bool() }
}

fn recall(quota: u32, rng: &mut Rng) -> Recall {
    let log = (0..rng.u64(0..5)).map(|group| (6_000 - 1_000 * group, rng.u32(0..=quota / 4))).collect();
    Recall {
        log,
        share: rng.u32(300..=1_000),
        holders: rng.u32(0..5),
        generation: rng.u64(0..4),
        dry: rng.u64(0..2_000),
    }
}

fn want(limits: usize, rng: &mut Rng) -> Want {
    let mut counts = || [0; 4].map(|_: u32| if rng.bool() { rng.u32(0..20) } else { 0 });
    let (now, soon) = (counts(), counts());
    let leave = [0, 0, rng.u32(0..5), rng.u32(0..10)];
    let fair = [false, false, rng.bool(), rng.bool()];
    let places = (0..limits).filter(|_| rng.bool()).map(|place| u8::try_from(place).expect("there are few"));
    Want { limits: places.collect(), now, soon, leave, fair }
}

fn door(rng: &mut Rng) -> DoorSide {
    let change = match rng.u8(0..3) {
        0 => DoorChange::Opened { stay_away: rng.u64(0..2_000), openings: rng.u32(1..5) },
        1 => DoorChange::Alive,
        _ => DoorChange::MayIProbe,
    };
    DoorSide { key: LimitKey([9, 0, 0, 0, 0, 0, 0, rng.u8(0..2)]), sent: rng.u64(0..500), change }
}
