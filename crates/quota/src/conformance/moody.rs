//! Holders that say anything, in one of three moods.
//!
//! What they say is random rather than sensible, because a store must do the same with everything: limits that are named twice,
//! asks for limits that are not there, ages that contradict each other, another life of the state. They keep only what makes
//! grants, repetitions and recalls meaningful. No mood meets all by itself: certificates have many candidates only where answers
//! overlap, and dated grants come only where hardly anything goes wrong.

use fastrand::Rng;
use tidegate_core::share::{
    At, DoorChange, DoorSide, Ended, Exchange, HolderId, Kind, LimitKey, LimitSide, PROTOCOL, Recall, Refill,
    Refusal, Reply, Sight, Terms, Want,
};

use super::holder::{Says, Speaker};

/// Limits that holders speak of.
const LIMITS: u8 = 5;

/// What holders are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    /// They say anything.
    Wild,
    /// All answers overlap, of which none shows that another is out of date.
    Late,
    /// One limit at a time, certificates that fit together, and few throttles.
    Calm,
}

/// What a holder has of a limit.
#[derive(Clone, Default)]
struct Part {
    unspent: u32,
    in_flight: u32,
    all: u64,
    unseen: u64,
    told: (u64, u64),
    generation: u64,
    owes: bool,
}

/// One of them.
pub(super) struct Moody {
    id: HolderId,
    seq: u64,
    heard: Option<At>,
    life: Option<u64>,
    parts: Vec<Part>,
    last: Option<Exchange>,
    mood: Mood,
}

impl Moody {
    /// The `number`-th. Its identifier has all bits, as those of real ones.
    pub(super) fn new(number: u64, mood: Mood) -> Self {
        let id = HolderId(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let parts = vec![Part::default(); usize::from(LIMITS)];
        Self { id, seq: 0, heard: None, life: None, parts, last: None, mood }
    }
}

impl Speaker for Moody {
    fn say(&mut self, now: At, says: Says, rng: &mut Rng) -> Exchange {
        let said = match (&self.last, says) {
            (Some(last), Says::Again) => last.clone(),
            (Some(last), Says::Old) => Exchange { seq: last.seq.saturating_sub(1), ..last.clone() },
            (Some(last), Says::OtherVersion) => {
                return Exchange { protocol: PROTOCOL + 1, seq: last.seq + 1, ..last.clone() };
            }
            _ => self.say_new(rng, now),
        };
        self.last = Some(said.clone());
        said
    }

    fn hear(&mut self, now: At, said: &Exchange, reply: &Reply) {
        (self.heard, self.life) = (Some(now), Some(reply.incarnation));
        for (side, limit) in said.limits.iter().zip(&reply.limits) {
            let part = self.part(side.key);
            if part.generation != limit.generation {
                part.unspent = 0;
            }
            (part.generation, part.owes) = (limit.generation, limit.recall);
        }
        for (ask, grant) in said.asks.iter().zip(&reply.grants) {
            let sides = ask.limits.iter().filter_map(|&place| said.limits.get(usize::from(place)));
            let mut keys: Vec<LimitKey> = sides.map(|side| side.key).collect();
            keys.sort_unstable();
            keys.dedup();
            for key in keys {
                self.part(key).unspent += grant.permits;
            }
        }
    }
}

impl Moody {
    fn say_new(&mut self, rng: &mut Rng, now: At) -> Exchange {
        let mut named: Vec<u8> = (0..LIMITS).filter(|_| rng.bool()).collect();
        if self.mood == Mood::Calm {
            named = vec![*rng.choice(&[0, 2, 2]).expect("there are three")];
        } else if one_in(rng, 30) {
            // Nothing forbids to name one twice.
            named.push(0);
        }
        // Some begin with a word that says no more than that they are there.
        let hello = self.last.is_none() && one_in(rng, 3);
        self.seq += u64::from(!hello);
        if hello {
            named.clear();
        }
        let mut limits = Vec::new();
        for limit in named {
            limits.push(self.parts[usize::from(limit)].side(rng, limit, self.mood, now));
        }
        Exchange {
            protocol: PROTOCOL,
            holder: self.id,
            seq: self.seq,
            incarnation: if self.mood != Mood::Calm && one_in(rng, 9) {
                Some(rng.u64(..))
            } else {
                self.life
            },
            salt: rng.u64(..),
            slack: rng.u64(..20),
            heard: self.heard.map(|at| now.saturating_sub(at)),
            // Sometimes of an exchange that the state has lost.
            answered: self.seq.saturating_sub(u64::from(!one_in(rng, 200))),
            asks: (0..rng.u32(..3)).map(|_| want(rng, limits.len(), self.mood)).collect(),
            limits,
            doors: (0..rng.u32(..2)).map(|_| door(rng)).collect(),
            leaves: one_in(rng, 60),
        }
    }

    fn part(&mut self, key: LimitKey) -> &mut Part {
        &mut self.parts[usize::from(key.0[0]) - 1]
    }
}

fn key(limit: u8) -> LimitKey {
    LimitKey([limit + 1; 8])
}

fn one_in(rng: &mut Rng, times: u32) -> bool {
    rng.u32(..times) == 0
}

fn maybe<T>(rng: &mut Rng, make: impl FnOnce(&mut Rng) -> T) -> Option<T> {
    rng.bool().then(|| make(rng))
}

fn terms(rng: &mut Rng, limit: u8, mood: Mood) -> Terms {
    let quota = if one_in(rng, 9) { 40 } else { 60 };
    let kind = match limit {
        0 => Kind::Rate { quota: 300, window: 5_000, told: true },
        1 => Kind::Rate { quota, window: 60_000, told: !one_in(rng, 40) },
        // Some declare another rate, of another window.
        2 if one_in(rng, 30) => {
            Kind::Rate { quota: rng.u32(40..200), window: rng.u64(5..20) * 1_000, told: false }
        }
        2 => Kind::Rate { quota: 100, window: 10_000, told: false },
        3 => Kind::Cap { cap: 10 },
        // As much as there can be.
        4 if one_in(rng, 25) => {
            let (quota, window) = (u32::MAX - rng.u32(..3), Terms::LONGEST_WINDOW - 3 + rng.u64(..9));
            Kind::Rate { quota, window, told: rng.bool() }
        }
        _ => Kind::Unknown,
    };
    // Some have not been told yet.
    let kind = if mood != Mood::Calm && one_in(rng, 40) { Kind::Unknown } else { kind };
    let rule = match limit {
        0 => Refill::Step,
        1 => Refill::Log,
        2 if mood == Mood::Calm => Refill::Log,
        _ => *rng.choice(&[Refill::Step, Refill::Log, Refill::Even]).expect("there are three"),
    };
    let proven = match mood {
        Mood::Wild => one_in(rng, 20),
        // The level alone counts.
        Mood::Late => limit == 0,
        // The ledger finds out by itself.
        Mood::Calm => false,
    };
    Terms { kind, rule, proven, pinned: one_in(rng, 60), assumed: one_in(rng, 4) }
}

fn sight(rng: &mut Rng) -> Sight {
    let latest_sent = rng.u64(..500);
    let lo = rng.i64(-300..5_000);
    let ends = (!one_in(rng, 4)).then(|| (lo, lo + rng.i64(-2..200)));
    let left = (0..rng.usize(..4)).map(|_| (rng.u64(..=latest_sent), rng.u32(..300))).collect();
    Sight { latest_sent, left, ends, scout_in: maybe(rng, |rng| rng.u64(..5_000)) }
}

/// Answers that all overlap, of which none shows that another is out of date.
fn late_sight(rng: &mut Rng) -> Sight {
    let ages = (0..rng.usize(..4)).map(|_| rng.u32(..1_400));
    let left = ages.map(|age| (u64::from(age), 290 - age / 5)).collect();
    Sight { latest_sent: rng.u64(1_450..1_500), left, ends: None, scout_in: None }
}

/// What a server with windows of 5 s shows whose quota is drawn evenly, by strangers for a part.
fn calm_sight(rng: &mut Rng, now: At) -> Sight {
    let latest_sent = rng.u64(..50);
    let passed = (now - latest_sent.min(20)) % 5_000;
    let left = 300 - u32::try_from(passed).expect("below 5000") / 17;
    let end = i64::try_from(5_000 - now % 5_000).expect("below 5000");
    let left = vec![(latest_sent.min(20), left.saturating_sub(rng.u32(..9)))];
    Sight { latest_sent, left, ends: Some((end, end + 20)), scout_in: None }
}

fn refusal(rng: &mut Rng) -> Refusal {
    Refusal {
        sent: rng.u64(..300),
        age: rng.u64(..100),
        stay_away: rng.u64(..1_500),
        blames_quota: rng.bool(),
    }
}

fn recall(rng: &mut Rng, generation: u64) -> Recall {
    let log = (0..rng.u64(..5)).map(|group| (5_000 - 900 * group, rng.u32(..10))).collect();
    Recall { log, share: rng.u32(..1_200), holders: rng.u32(..9), generation, dry: rng.u64(..4_000) }
}

impl Part {
    /// Some leave, some end.
    fn live(&mut self, rng: &mut Rng, mood: Mood) -> Vec<Ended> {
        if mood == Mood::Calm {
            self.all += u64::from(std::mem::take(&mut self.in_flight));
            self.in_flight = std::mem::take(&mut self.unspent);
            return vec![Ended { age: rng.u64(..20), all: self.all, unseen: self.unseen }];
        }
        let spent = rng.u32(..=self.unspent);
        self.unspent -= spent;
        self.in_flight += spent;
        let mut age = rng.u64(..400);
        let mut ended = Vec::new();
        for _ in 0..rng.u32(..4) {
            let count = rng.u32(..6);
            self.all += u64::from(count);
            self.unseen += if one_in(rng, 5) { u64::from(rng.u32(..=count)) } else { 0 };
            self.in_flight = self.in_flight.saturating_sub(count);
            ended.push(Ended { age, all: self.all, unseen: self.unseen });
            age = age.saturating_sub(rng.u64(..100));
        }
        ended
    }

    fn side(&mut self, rng: &mut Rng, limit: u8, mood: Mood, now: At) -> LimitSide {
        if mood != Mood::Calm && one_in(rng, 100) {
            // Its gate was forgotten and made anew.
            (self.all, self.unseen, self.told) = (0, 0, (0, 0));
        }
        let ended = self.live(rng, mood);
        let rarely = match (mood, limit) {
            (Mood::Calm, _) => 600,
            // Often enough to refute bursts.
            (_, 2) => 12,
            _ => 60,
        };
        let owes = self.owes || one_in(rng, if mood == Mood::Calm { 5_000 } else { 50 });
        let seen = match mood {
            Mood::Calm => (limit == 0).then(|| calm_sight(rng, now)),
            Mood::Late => (!one_in(rng, 3)).then(|| late_sight(rng)),
            Mood::Wild => (!one_in(rng, 3)).then(|| sight(rng)),
        };
        let side = LimitSide {
            key: key(limit),
            name: format!("limit \"{limit}\""),
            partition: if limit == 0 { String::new() } else { format!("family=/\"{limit}\"") },
            terms: terms(rng, limit, mood),
            generation: self.generation,
            unspent: self.unspent,
            in_flight: self.in_flight,
            // Sometimes more than the ledger knows of: its state is an older one.
            told: self.told.0 + if one_in(rng, rarely) { rng.u64(..9) } else { 0 },
            told_unseen: self.told.1,
            ended,
            seen,
            refused: one_in(rng, rarely).then(|| refusal(rng)),
            scouted: one_in(rng, if mood == Mood::Calm { 2 } else { 4 }).then(|| rng.u64(..60)),
            recall: owes.then(|| recall(rng, self.generation)),
        };
        self.told = (self.all, self.unseen);
        side
    }
}

fn want(rng: &mut Rng, sides: usize, mood: Mood) -> Want {
    // One place more than there are: it names no limit.
    let places = 0..=u8::try_from(sides).expect("few");
    let limits = places.filter(|_| !one_in(rng, 3)).collect();
    let mut four = |top: u32| std::array::from_fn(|_| maybe(rng, |rng| rng.u32(..top)).unwrap_or(0));
    let (now, soon, leave) = (four(12), four(40), four(if mood == Mood::Calm { 1 } else { 20 }));
    Want { limits, now, soon, leave, fair: std::array::from_fn(|_| mood != Mood::Calm && rng.bool()) }
}

fn door(rng: &mut Rng) -> DoorSide {
    let change = match rng.u8(..3) {
        0 => DoorChange::Opened { stay_away: rng.u64(..3_000), openings: rng.u32(..5) },
        1 => DoorChange::Alive,
        _ => DoorChange::MayIProbe,
    };
    DoorSide { key: LimitKey([9; 8]), sent: rng.u64(..500), change }
}
