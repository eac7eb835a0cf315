//! The same scenario in real time, on real sockets, against the simulator's own server.
//!
//! # Why
//!
//! Virtual time proves the decisions; it proves nothing about timers, connections, locks and the order in which a runtime wakes
//! its tasks. Here the same file is played with all of these: the simulator serves on loopback, and each strategy calls it over
//! HTTP.
//!
//! # What is real
//!
//! * `tidegate` is the client's whole stack as programs use it: retry, pacing, tokens, connection pool. One client per instance.
//! * The other strategies are the very ones of virtual time; a driver per instance sends what they order over the client's
//!   transport, and tells them what was answered.
//! * A loopback has no distance, so half of a draw of `fleet.rtt` is waited before an attempt goes to its connection and half after
//!   its answer ([`far`](self)): the distance is added to the way, not to the server, whose caps would count it.
//! * The simulator's witness writes down what was decided and what strangers took; the ideal and the measures are computed from
//!   that record exactly as in virtual time.
//!
//! # Bounds
//!
//! Real time passes. A scenario is first played in virtual time, which tells how long it will take and how many connections it
//! needs; what is too long or too wide is refused before anything is served. Strategies are played side by side, each against a
//! server of its own, as many as the connections allow.

mod book;
mod driver;
mod far;
mod load;
mod product;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidegate_sim::{Sim, SimError};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::engine::play;
use crate::error::LabError;
use crate::expect::Violation;
use crate::headline::Headline;
use crate::ideal::ideal;
use crate::measure::Outcome;
use crate::plan::Plan;
use crate::report::{Lane, Medium, Report};
use crate::run::Options;
use crate::scenario::Scenario;
use crate::strategy::StrategyName;
use book::Book;
use load::{Player, Spec};

/// Connections open at once, over all strategies that are played side by side. Each takes two descriptors of this process, and
/// 1024 is a common bound on those.
const MOST_CONNECTIONS: u64 = 400;

/// Processes that one process can stand for: each has a pool of connections of its own.
const MOST_INSTANCES: u32 = 64;

/// A run may take this much longer than was expected before it is ended: sockets are slower than virtual time, but not by much.
const GRACE: Duration = Duration::from_secs(30);

/// How long a scenario will take on sockets, worked out in virtual time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forecast {
    /// Real time for all strategies.
    pub wall: Duration,
    /// Calls that will be made by all strategies.
    pub calls: u64,
    /// Strategies played side by side, one lot after the other.
    lots: Vec<Vec<StrategyName>>,
}

/// How far a run on sockets is.
#[derive(Debug, Default)]
pub struct Progress(AtomicU64);

impl Progress {
    /// Calls that have ended.
    pub fn ended(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Works out how long a scenario will take on sockets.
///
/// # Errors
/// [`LabError::TooMuch`] if that is longer than `max_wall`, or if it needs more processes or connections than one process can
/// stand for. [`LabError::Stuck`] as in [`run`](fn@crate::run).
pub fn forecast(scenario: &Scenario, options: &Options, max_wall: Duration) -> Result<Forecast, LabError> {
    let instances = scenario.fleet.instances;
    if instances > MOST_INSTANCES {
        return Err(LabError::TooMuch(format!(
            "{instances} instances are more than the {MOST_INSTANCES} that one process can stand for (without --sockets they are no trouble)"
        )));
    }
    if scenario.fleet.quota.is_shared() && options.strategies_of(scenario).contains(&StrategyName::Tidegate) {
        return Err(LabError::TooMuch(
            "instances of `tidegate` share a quota in virtual time only (`cargo xtask bench fleet` measures real processes on a real store; leave it out with --strategy)".to_owned(),
        ));
    }
    if !scenario.fleet.window.is_empty() && options.strategies_of(scenario).contains(&StrategyName::Tidegate)
    {
        return Err(LabError::TooMuch(
            "windows of the calendar are played in virtual time only (leave `tidegate` out with --strategy)"
                .to_owned(),
        ));
    }
    let plan = Plan::new(scenario, options.seed)?;
    let mut forecast = Forecast { wall: Duration::ZERO, calls: 0, lots: Vec::new() };
    let (mut lot_connections, mut lot_wall) = (MOST_CONNECTIONS, Duration::ZERO);
    let mut slowest = (Duration::ZERO, "");
    for &name in options.strategies_of(scenario) {
        let outcome = play(&plan, name)?;
        let connections = outcome.max_in_flight();
        if connections > MOST_CONNECTIONS {
            return Err(LabError::TooMuch(format!(
                "{name} would have {connections} calls in progress at once, and only {MOST_CONNECTIONS} connections are at hand (leave it out with --strategy)"
            )));
        }
        forecast.calls += outcome.calls;
        lot_connections += connections;
        match forecast.lots.last_mut() {
            Some(lot) if lot_connections <= MOST_CONNECTIONS => lot.push(name),
            _ => {
                forecast.wall += lot_wall;
                forecast.lots.push(vec![name]);
                (lot_connections, lot_wall) = (connections, Duration::ZERO);
            }
        }
        lot_wall = lot_wall.max(outcome.ended_at);
        slowest = slowest.max((outcome.ended_at, name.name()));
    }
    forecast.wall += lot_wall;
    if forecast.wall > max_wall {
        let [wall, most, alone] = [forecast.wall, max_wall, slowest.0].map(|time| time.as_secs_f64());
        return Err(LabError::TooMuch(format!(
            "it would take {wall:.0} s of real time ({} alone {alone:.0} s), and {most:.0} s are allowed (name other strategies with --strategy, or allow more with --max-wall)",
            slowest.1
        )));
    }
    Ok(forecast)
}

/// Plays a scenario under each of its strategies on sockets, as [`forecast`] said.
///
/// # Errors
/// [`LabError::Sockets`] if a server cannot be started.
pub async fn run(
    scenario: &Scenario,
    options: &Options,
    forecast: &Forecast,
    progress: &Arc<Progress>,
) -> Result<Report, LabError> {
    let (mut lanes, mut violations): (Vec<Lane>, Vec<Violation>) = (Vec::new(), Vec::new());
    let longest = forecast.wall + GRACE;
    for lot in &forecast.lots {
        let mut together = JoinSet::new();
        for (index, &name) in lot.iter().enumerate() {
            let (scenario, seed, progress) = (scenario.clone(), options.seed, Arc::clone(progress));
            together.spawn(async move { (index, lane(&scenario, seed, name, longest, progress).await) });
        }
        let mut played = together.join_all().await;
        played.sort_by_key(|(index, _)| *index);
        for (&name, (_, lane)) in lot.iter().zip(played) {
            let lane = lane?;
            violations.extend(scenario.expect.of_strategy(name).violations(&lane.measures));
            lanes.push(lane);
        }
    }
    let plan = Plan::new(scenario, options.seed)?;
    Ok(Report::new(Medium::Sockets, &plan, Headline::of(&plan), lanes, violations))
}

/// One strategy against a server of its own.
async fn lane(
    scenario: &Scenario,
    seed: Option<u64>,
    name: StrategyName,
    longest: Duration,
    progress: Arc<Progress>,
) -> Result<Lane, LabError> {
    let mut plan = Plan::new(scenario, seed)?;
    let book = Book::new(&plan, name, progress);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(SimError::from).map_err(sockets)?;
    let witness = Arc::clone(&book);
    let sim = tidegate_sim::serve_before(listener, plan.server.clone(), witness).await.map_err(sockets)?;
    let outcome = attend(&mut plan, name, &sim, &book, longest).await;
    sim.shutdown().await;
    let outcome = outcome?;
    let measures = outcome.measures(&plan, &ideal(&plan, &plan.leaves(name), &outcome.tape));
    Ok(Lane { measures, tape: outcome.tape })
}

/// Lets all instances call, until they are done or time is up.
async fn attend(
    plan: &mut Plan<'_>,
    name: StrategyName,
    sim: &Sim,
    book: &Arc<Book>,
    longest: Duration,
) -> Result<Outcome, LabError> {
    // The strategies are built before the server's clock is known to be theirs; only the guide reads the wall clock, at its start.
    plan.on_sockets(Duration::ZERO, book.wall(), longest);
    let instances = 0..plan.starts.len();
    let players = instances.map(|instance| Player::new(plan, name, instance, sim, book));
    let players = players.collect::<Result<Vec<_>, _>>()?;
    for player in &players {
        player.log_in().await;
    }
    // Tokens are there before the start, as in virtual time, so the start waits for them.
    plan.on_sockets(book.now(), book.wall(), longest);
    let mut loads = JoinSet::new();
    let mut feeds = Vec::new();
    for (instance, player) in players.iter().enumerate() {
        for load in 0..plan.fleet().load.len() {
            let spec = Spec::new(plan, instance, load);
            feeds.push((load, spec.feed()));
            loads.spawn(spec.run(player.clone(), Arc::clone(book)));
        }
    }
    let end = book.instant(plan.horizon);
    let ended = tokio::time::timeout_at(end, async { while loads.join_next().await.is_some() {} }).await;
    let now = if ended.is_ok() { book.now() } else { plan.horizon };
    let left = feeds.iter().map(|(load, feed)| (*load, feed.lock().left()));
    let stats = sim.stats();
    let mut outcome = book.close(plan, now, left, &stats);
    outcome.hint_mismatches = players.iter().map(Player::hint_mismatches).sum();
    Ok(outcome)
}

fn sockets(error: impl std::fmt::Display) -> LabError {
    LabError::Sockets(error.to_string())
}
