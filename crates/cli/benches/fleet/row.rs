//! The rows: what is played, and what each must come to.

use std::error::Error;
use std::time::Duration;

use tokio::time::Instant;

use crate::judge::{Record, all_joined, books, exchanges};
use crate::load::{Load, client};
use crate::world::{Setup, Sharing, World};

type Failure = Box<dyn Error + Send + Sync>;

const SEC: Duration = Duration::from_secs(1);

/// Demand over quota.
const DEMAND: f64 = 1.5;

/// What happens in the middle of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Incident {
    None,
    /// The store is killed and begun again after so long.
    Killed(Duration),
    /// The store is stopped and goes on after so long.
    Stopped(Duration),
    /// So many gateways are killed, the busiest first.
    Gateways(usize),
    /// Nothing, but tokens are counted instead of calls.
    Tokens,
}

/// What a row must come to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// Percent of the quota.
    Used(f64),
    /// Own throttles per 100 own calls.
    Throttles(f64),
    /// Exchanges per call.
    Exchanges(f64),
    /// Calls lost.
    Lost(u64),
    /// Seconds until all share again.
    Back(f64),
    /// Token calls.
    Tokens(u32),
    /// Token calls at once.
    Overlap(u32),
}

/// A row that can be played.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) setup: Setup,
    pub(crate) incident: Incident,
    /// Windows before anything counts.
    pub(crate) warm: u32,
    /// Windows that count; one more is played for the phases.
    pub(crate) windows: u32,
    pub(crate) goals: Vec<Goal>,
}

/// What a row came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) used: f64,
    pub(crate) throttles: f64,
    /// Where no gateway ended: its count would have ended with it.
    pub(crate) exchanges: Option<f64>,
    /// Percent of them that no answer came to in time.
    pub(crate) unanswered: f64,
    /// How long one took, seconds.
    pub(crate) exchange: f64,
    pub(crate) good: u64,
    pub(crate) sent_back: u64,
    pub(crate) lost: u64,
    pub(crate) back: Option<f64>,
    pub(crate) tokens: u32,
    pub(crate) overlap: u32,
    /// What stood in the gateways' logs and in lost calls, for whoever looks for a cause.
    pub(crate) words: Vec<String>,
}

impl Goal {
    /// How it was missed.
    pub(crate) fn missed(self, figures: &Figures) -> Option<String> {
        let (kept, told) = match self {
            Self::Used(least) => (figures.used >= least, format!("used >= {least} %")),
            Self::Throttles(most) => (figures.throttles <= most, format!("throttles <= {most} per 100")),
            Self::Exchanges(most) => (
                figures.exchanges.is_some_and(|exchanges| exchanges <= most),
                format!("exchanges <= {most} per call"),
            ),
            Self::Lost(most) => (figures.lost <= most, format!("lost <= {most}")),
            Self::Back(most) => {
                (figures.back.is_some_and(|back| back <= most), format!("sharing again <= {most} s"))
            }
            Self::Tokens(most) => (figures.tokens <= most, format!("token calls <= {most}")),
            Self::Overlap(most) => (figures.overlap <= most, format!("token calls at once <= {most}")),
        };
        (!kept).then_some(told)
    }
}

/// All rows, the comparison without sharing beside each.
pub(crate) fn plans() -> Vec<Plan> {
    let mut plans = Vec::new();
    let quick = 5 * SEC;
    for rule in ["fixed", "sliding-log"] {
        let alone = vec![Goal::Used(95.0), Goal::Throttles(0.3), Goal::Lost(0)];
        let beside = vec![Goal::Throttles(1.0), Goal::Lost(0)];
        for (sharing, told) in [(Sharing::Redis, "shared"), (Sharing::Not, "not-shared")] {
            let goals = |goals: &Vec<Goal>| if sharing == Sharing::Not { Vec::new() } else { goals.clone() };
            let setup = Setup::new(rule, 300, quick, sharing);
            plans.push(Plan::of(format!("{rule} 300/5s {told}"), setup.clone(), goals(&alone)));
            let silent = Setup { silent: true, ..setup.clone() };
            plans.push(Plan::of(format!("{rule} 300/5s {told} silent"), silent, Vec::new()));
            // 30 % of the quota, 36 at an instant.
            let stranger = Setup { stranger: Some((0.3 * setup.pace(), 36)), ..setup };
            plans.push(Plan::of(format!("{rule} 300/5s {told} stranger"), stranger, goals(&beside)));
        }
        let slow = Setup::new(rule, 300, 60 * SEC, Sharing::Redis);
        let slow =
            Plan::of(format!("{rule} 300/60s shared"), slow, vec![Goal::Exchanges(0.6), Goal::Lost(0)]);
        plans.push(Plan { warm: 1, windows: 1, ..slow });
        let big = Setup::new(rule, 3000, quick, Sharing::Redis);
        let big = Plan::of(format!("{rule} 3000/5s shared"), big, vec![Goal::Exchanges(0.1), Goal::Lost(0)]);
        plans.push(Plan { windows: 3, ..big });
    }
    plans.extend(of_genesys());
    if cfg!(feature = "dynamodb") {
        plans.extend(in_dynamodb());
    }
    let away = 20 * SEC;
    for (sharing, incident, told, throttles) in [
        (Sharing::Redis, Incident::Killed(away), "redis-killed-20s-empty", 2.0),
        (Sharing::RedisOnDisk, Incident::Killed(away), "redis-killed-20s-kept", 1.0),
        (Sharing::Redis, Incident::Stopped(5 * SEC), "redis-stopped-5s", 1.0),
    ] {
        let setup = Setup::new("fixed", 300, quick, sharing);
        let goals = vec![Goal::Throttles(throttles), Goal::Lost(0), Goal::Back(2.0)];
        plans.push(Plan { incident, ..Plan::of(format!("fixed 300/5s {told}"), setup, goals) });
    }
    let setup = Setup::new("fixed", 300, quick, Sharing::Redis);
    let goals = vec![Goal::Used(95.0), Goal::Lost(0)];
    let killed = Plan::of("fixed 300/5s 3-of-8-gateways-killed".to_owned(), setup.clone(), goals);
    plans.push(Plan { incident: Incident::Gateways(3), ..killed });
    // A life of 20 s is renewed three times in the minute after the first.
    for (shared, told, goals) in [
        (true, "one-token", vec![Goal::Tokens(5), Goal::Overlap(1)]),
        (false, "own-tokens", vec![Goal::Overlap(1)]),
    ] {
        let setup = Setup { tokens: Some((20 * SEC, shared)), ..setup.clone() };
        let plan = Plan::of(format!("fixed 300/5s {told} life-20s"), setup, goals);
        plans.push(Plan { incident: Incident::Tokens, windows: 9, ..plan });
    }
    plans
}

/// Two limits at once, as the vendor has them, where the smaller binds.
fn of_genesys() -> [Plan; 1] {
    let goals = vec![Goal::Used(95.0), Goal::Throttles(0.3), Goal::Lost(0)];
    let plan =
        Plan::of("genesys 300/60s-token+3000/60s-client one-token".to_owned(), Setup::genesys(), goals);
    [Plan { warm: 1, windows: 3, ..plan }]
}

/// The same quotas as in Redis. How much of the faster is used depends on how fast the emulator is, which is one Python process, so no
/// goal is set for that; what a slow table must not do is to let calls be throttled or lost.
fn in_dynamodb() -> [Plan; 2] {
    let plan = |limit, window, told| {
        let setup = Setup::new("fixed", limit, window, Sharing::DynamoDb);
        Plan::of(format!("fixed {told} dynamodb"), setup, vec![Goal::Throttles(0.3), Goal::Lost(0)])
    };
    [Plan { warm: 1, windows: 1, ..plan(300, 60 * SEC, "300/60s") }, plan(300, 5 * SEC, "300/5s")]
}

impl Plan {
    fn of(name: String, setup: Setup, goals: Vec<Goal>) -> Self {
        Self { name, setup, incident: Incident::None, warm: 2, windows: 6, goals }
    }

    /// Plays it in real time.
    ///
    /// # Errors
    /// What cannot be started or asked.
    pub(crate) async fn play(&self, seed: u64) -> Result<Figures, Failure> {
        let mut world = World::start(&self.setup)?;
        let client = client();
        let window = self.setup.window;
        let load = Load::start(&world, &client, DEMAND * self.setup.pace(), seed);
        let mut record = Record::default();
        let sim = world.sim;
        record.watch(sim, &client, window * self.warm).await?;
        let (from, said) = (record.now(), exchanges(&world, &client).await?);
        let mut back = None;
        let mut use_from = from;
        match self.incident {
            Incident::None | Incident::Tokens => {}
            Incident::Killed(away) => {
                world.store.as_mut().ok_or("a store")?.kill();
                record.watch(sim, &client, away).await?;
                world.store.as_mut().ok_or("a store")?.restart();
                back = Some(until_joined(&world, &mut record).await?);
            }
            Incident::Stopped(away) => {
                world.store.as_ref().ok_or("a store")?.signal("-STOP");
                record.watch(sim, &client, away).await?;
                world.store.as_ref().ok_or("a store")?.signal("-CONT");
                back = Some(until_joined(&world, &mut record).await?);
            }
            Incident::Gateways(count) => {
                for gateway in 0..count {
                    load.leave(gateway);
                    world.gateways[gateway].kill();
                }
                // What the dead held comes back after one lease, which is an eighth of a window and at least half a second.
                record.watch(sim, &client, (window / 8).max(SEC / 2)).await?;
                use_from = record.now();
            }
        }
        record.watch(sim, &client, window * (self.windows + 1) + SEC / 2).await?;
        let to = record.now();
        let accepted = f64::from(record.accepted(from, to).max(1));
        let ended = matches!(self.incident, Incident::Gateways(_));
        let spoken = exchanges(&world, &client).await?;
        let (all, unanswered) = (spoken.all - said.all, spoken.unanswered - said.unanswered);
        let exchange = (spoken.seconds - said.seconds) / all.max(1.0);
        let oauth = books(sim, &client).await?.oauth;
        let calls = &load.calls;
        let mut words = calls.losses.lock().clone();
        words.extend(world.gateways.iter().map(super::world::Gateway::log).filter(|log| !log.is_empty()));
        let count =
            |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
        Ok(Figures {
            used: 100.0 * record.used(use_from, to, self.setup.limit, window),
            throttles: record.throttles(from, to),
            exchanges: (!ended).then_some(all / accepted),
            unanswered: 100.0 * unanswered / all.max(1.0),
            exchange,
            good: count(&calls.good),
            sent_back: count(&calls.sent_back),
            lost: count(&calls.lost),
            back,
            tokens: oauth.calls,
            overlap: oauth.overlap_max,
            words,
        })
    }
}

/// Seconds until all gateways say that they share the quota again; the books are read meanwhile.
async fn until_joined(world: &World, record: &mut Record) -> Result<f64, Failure> {
    const PATIENCE: Duration = Duration::from_secs(20);
    const EVERY: Duration = Duration::from_millis(20);
    let client = client();
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE && !all_joined(world, &client).await? {
        record.watch(world.sim, &client, EVERY).await?;
    }
    Ok(begun.elapsed().as_secs_f64())
}
