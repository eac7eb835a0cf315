//! The script against the ledger itself: the same random exchanges, in time that the test makes, must be answered alike.
//!
//! Time that is made reaches what the machine's would not within a test: windows that pass, holders that fall silent, states
//! that expire, clocks that are set back. What is said is random rather than sensible, because the script must do the same with
//! everything; holders keep only what makes grants, replays and recalls meaningful.
//!
//! Histories are of three moods in turn: *wild*; *late*, where all answers overlap, so that certificates have many candidates;
//! and *calm*, with one limit at a time, certificates that fit together and few throttles, without which there would be hardly
//! any dated grants.
//!
//! `TIDEGATE_TEST_RUNS` asks for more histories than the usual ones.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use redis::aio::MultiplexedConnection;
use tidegate_core::share::{
    At, BankKey, DoorChange, DoorSide, Ended, Exchange, HolderId, Kind, Ledger, LimitKey, LimitSide,
    PROTOCOL, Recall, Refill, Refusal, Reply, Sight, Terms, Unanswered, Want,
};
use tidegate_quota::{Store, StoreError};

use crate::server::Server;
use crate::{RedisConfig, RedisStore};

const LIMITS: u8 = 5;
const STEPS: u32 = 400;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Wild,
    Late,
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

struct Holder {
    id: HolderId,
    seq: u64,
    heard: Option<At>,
    life: Option<u64>,
    parts: Vec<Part>,
    last: Option<Exchange>,
    mood: Mood,
}

/// How often what matters was met: a comparison that never meets it shows nothing.
#[derive(Debug, Default)]
struct Met {
    permits: u32,
    dated: u32,
    scouts: u32,
    waits: u32,
    pauses: u32,
    recalls: u32,
    scarce: u32,
    strangers: u32,
    epochs: u32,
    probes: u32,
    repeated: u32,
    stale: u32,
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
        2 => Kind::Rate { quota: 100, window: 10_000, told: false },
        3 => Kind::Cap { cap: 10 },
        _ => Kind::Unknown,
    };
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
    Terms { kind, rule, proven, pinned: one_in(rng, 60) }
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
    Recall { log, share: rng.u32(..1_200), holders: rng.u32(..9), generation }
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
            terms: terms(rng, limit, mood),
            generation: self.generation,
            unspent: self.unspent,
            in_flight: self.in_flight,
            told: self.told.0,
            told_unseen: self.told.1,
            ended,
            seen,
            refused: one_in(rng, rarely).then(|| refusal(rng)),
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

impl Holder {
    fn new(rng: &mut Rng, mood: Mood) -> Self {
        let parts = vec![Part::default(); usize::from(LIMITS)];
        Self { id: HolderId(rng.u64(..)), seq: 0, heard: None, life: None, parts, last: None, mood }
    }

    /// Something new, or what was said last, or something older.
    fn say(&mut self, rng: &mut Rng, now: At) -> Exchange {
        let said = match (&self.last, rng.u8(..20)) {
            (Some(last), 0) => last.clone(),
            (Some(last), 1) => Exchange { seq: last.seq.saturating_sub(1), ..last.clone() },
            _ => self.say_new(rng, now),
        };
        self.last = Some(said.clone());
        said
    }

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
            asks: (0..rng.u32(..3)).map(|_| want(rng, limits.len(), self.mood)).collect(),
            limits,
            doors: (0..rng.u32(..2)).map(|_| door(rng)).collect(),
        }
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
            let mut keys: Vec<LimitKey> = ask
                .limits
                .iter()
                .filter_map(|&place| Some(said.limits.get(usize::from(place))?.key))
                .collect();
            keys.sort_unstable();
            keys.dedup();
            for key in keys {
                self.part(key).unspent += grant.permits;
            }
        }
    }

    fn part(&mut self, key: LimitKey) -> &mut Part {
        &mut self.parts[usize::from(key.0[0]) - 1]
    }
}

impl Met {
    fn count(&mut self, answer: &Result<Reply, Unanswered>, new: bool) {
        let Ok(reply) = answer else {
            self.stale += 1;
            return;
        };
        self.repeated += u32::from(!new);
        for grant in &reply.grants {
            self.permits += u32::from(grant.permits > 1);
            self.dated += u32::from(grant.gap > 0);
            self.scouts += u32::from(grant.scout);
            self.waits += u32::from(grant.come_back > 0 && !grant.scout);
        }
        for limit in &reply.limits {
            self.pauses += u32::from(limit.pause > 0);
            self.recalls += u32::from(limit.recall);
            self.scarce += u32::from(limit.scarce);
            self.strangers += u32::from(limit.foreign > 0);
            self.epochs += u32::from(limit.epoch > 1);
        }
        self.probes += u32::from(reply.doors.iter().any(|door| door.may_probe));
    }

    fn least(&self) -> u32 {
        let some =
            [self.permits, self.dated, self.scouts, self.waits, self.pauses, self.recalls, self.scarce];
        let others = [self.strangers, self.epochs, self.probes, self.repeated, self.stale];
        some.into_iter().chain(others).min().unwrap_or(0)
    }
}

/// One history on a bank of its own.
async fn compare(run: u32, store: &RedisStore, clock: &mut MultiplexedConnection, met: &mut Met) {
    let mut rng = Rng::with_seed(u64::from(run));
    let bank = BankKey::of("equality", &run.to_string());
    // The server ends keys in its own time: it must not be ahead of the one that is made.
    let real = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let mut now = At::try_from(real).unwrap() + 60_000;
    let mut model: Option<Ledger> = None;
    let mood = [Mood::Wild, Mood::Late, Mood::Calm][run as usize % 3];
    let mut holders: Vec<Holder> = (0..rng.u32(1..8)).map(|_| Holder::new(&mut rng, mood)).collect();
    let paces: &[u64] = match mood {
        Mood::Wild => &[3, 30, 300, 3_000],
        Mood::Late => &[3, 10],
        Mood::Calm => &[30, 100, 300],
    };
    let longest = *rng.choice(paces).unwrap();
    for step in 0..STEPS {
        now = match rng.u32(..150) {
            0 => now + rng.u64(..100_000),
            1 | 2 => now - 5,
            _ => now + rng.u64(..longest),
        };
        let place = rng.usize(..holders.len());
        let holder = &mut holders[place];
        let seq = holder.seq;
        let said = holder.say(&mut rng, now);
        model.take_if(|ledger| ledger.expires() <= now);
        let ledger = model.get_or_insert_with(|| Ledger::new(now, said.salt));
        let expected = ledger.exchange(now, &said);
        redis::cmd("SET").arg("now").arg(now).exec_async(clock).await.unwrap();
        let found = match store.exchange(bank, &said).await {
            Ok(reply) => Ok(reply),
            Err(StoreError::Unanswered(why)) => Err(why),
            Err(other) => panic!("run {run}, step {step}: {other}\n{said:#?}"),
        };
        assert_eq!(found, expected, "run {run}, step {step}, at {now}\n{said:#?}\n{ledger:#?}");
        if step % 10 == 0 {
            assert_eq!(store.view(bank).await.unwrap(), ledger.view(now), "run {run}, step {step}");
        }
        met.count(&found, holder.seq > seq);
        if let Ok(reply) = &found {
            holder.hear(now, &said, reply);
        }
    }
}

#[tokio::test]
async fn the_script_answers_as_the_ledger() {
    let server = Server::start(&[]);
    let config = RedisConfig { timeout: Duration::from_secs(5), ..RedisConfig::new(server.url()) };
    let store = RedisStore::new(config).unwrap().in_made_time();
    let client = redis::Client::open(server.url()).unwrap();
    let mut clock = client.get_multiplexed_async_connection().await.unwrap();
    let runs = std::env::var("TIDEGATE_TEST_RUNS").map_or(40, |text| text.parse().expect("a number of runs"));
    let mut met = Met::default();
    for run in 0..runs {
        compare(run, &store, &mut clock, &mut met).await;
    }
    assert!(met.least() >= runs.min(40) / 4, "{met:?}");
}
