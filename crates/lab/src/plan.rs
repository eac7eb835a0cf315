//! Everything about a run that does not depend on the strategy.

use std::sync::Arc;
use std::time::Duration;

use tidegate_core::profile::Profile;
use tidegate_sim::SimConfig;

use crate::call::Route;
use crate::error::LabError;
use crate::feed::Feed;
use crate::fleet::{Fleet, Load};
use crate::scenario::Scenario;

/// Where a run ends that would not end by itself: a strategy may give a call an hour to think.
const LONGEST: Duration = Duration::from_hours(24);

/// The wall clock at the start of every run, to which the seed adds a fraction of a second.
const WALL: Duration = Duration::from_hours(490_158);

/// Independent random streams of one seed, so that a change in one does not shift the others.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stream {
    Network,
    Start,
    Wall,
    Arrivals,
    Strategy,
    Ideal,
    /// Between an instance and the store.
    Store,
}

/// A scenario with its seed, worked out.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) server: SimConfig,
    pub(crate) profile: Arc<Profile>,
    /// The routes of each load, in the order of the file.
    pub(crate) routes: Vec<Vec<Arc<Route>>>,
    /// When each instance starts.
    pub(crate) starts: Vec<Duration>,
    /// The instances' weights of each load, in all.
    weights: Vec<f64>,
    pub(crate) horizon: Duration,
    pub(crate) wall: Duration,
    seed: u64,
}

impl<'a> Plan<'a> {
    /// The plan of `scenario`; `seed` replaces the server's own.
    pub(crate) fn new(scenario: &'a Scenario, seed: Option<u64>) -> Result<Self, LabError> {
        let mut server = scenario.server.clone();
        server.seed = seed.unwrap_or(server.seed);
        let fleet = &scenario.fleet;
        let Some(profile) = Profile::builtin(&fleet.profile) else {
            return Err(LabError::Invalid(fleet.problems()));
        };
        let seed = server.seed;
        let mut start = Self::stream(seed, Stream::Start, 0);
        let starts = (0..fleet.instances).map(|_| fleet.start.draw(&mut start)).collect();
        let segments = profile.family_segments;
        let routes = fleet
            .load
            .iter()
            .map(|load| load.calls.iter().map(|text| Arc::new(Route::new(text, segments))).collect());
        Ok(Self {
            routes: routes.collect(),
            starts,
            weights: fleet.load.iter().map(|load| load.weights(fleet.instances)).collect(),
            horizon: scenario.duration.unwrap_or(LONGEST),
            wall: WALL + Duration::from_secs_f64(Self::stream(seed, Stream::Wall, 0).f64()),
            profile: Arc::new(profile),
            scenario,
            server,
            seed,
        })
    }

    /// The same plan for a run on sockets: it begins `lead` after the server, whose clock it shares and whose wall clock showed
    /// `wall` at its start, and it ends after `longest` at the latest.
    pub(crate) fn on_sockets(&mut self, lead: Duration, wall: Duration, longest: Duration) {
        self.wall = wall;
        self.horizon = lead + self.horizon.min(longest);
        for start in &mut self.starts {
            *start += lead;
        }
    }

    fn stream(seed: u64, stream: Stream, index: u64) -> fastrand::Rng {
        // Odd constants keep streams and indices apart; fastrand mixes the rest.
        let mixed = seed
            ^ (stream as u64 + 1).wrapping_mul(0xD6E8_FEB8_6659_FD93)
            ^ (index + 1).wrapping_mul(0xA076_1D64_78BD_642F);
        fastrand::Rng::with_seed(mixed)
    }

    /// A random stream of this run.
    pub(crate) fn rng(&self, stream: Stream, index: u64) -> fastrand::Rng {
        Self::stream(self.seed, stream, index)
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    pub(crate) fn fleet(&self) -> &'a Fleet {
        &self.scenario.fleet
    }

    pub(crate) fn load(&self, load: usize) -> &'a Load {
        &self.scenario.fleet.load[load]
    }

    /// The OAuth client of a load of an instance.
    pub(crate) fn credential(&self, instance: usize, load: usize) -> &'a str {
        let fleet = self.fleet();
        let own = || fleet.credentials[instance % fleet.credentials.len()].as_str();
        fleet.load[load].credential.as_deref().unwrap_or_else(own)
    }

    /// The calls of a load of an instance.
    pub(crate) fn feed(&self, instance: usize, load: usize) -> Feed {
        let index = (instance as u64) << 16 | load as u64;
        let spec = self.load(load);
        let rate = spec.rate_of(instance, self.fleet().instances, self.weights[load]);
        Feed::new(spec, rate, self.starts[instance], self.rng(Stream::Arrivals, index))
    }

    /// What the n-th call of a load calls.
    pub(crate) fn route(&self, load: usize, n: u64) -> &Arc<Route> {
        let routes = &self.routes[load];
        let index = usize::try_from(n % routes.len() as u64).unwrap_or(0);
        &routes[index]
    }

    /// Whom it is about: instances begin at different users and take all in turn.
    pub(crate) fn user(&self, instance: usize, n: u64) -> u32 {
        let users = u64::from(self.server.users.max(1));
        u32::try_from((instance as u64 * 7 + n) % users).unwrap_or(0)
    }

    /// When the jobs begin, if there are any.
    pub(crate) fn jobs_begin(&self) -> Option<Duration> {
        let first = self.starts.iter().min()?;
        let jobs = self.fleet().load.iter().filter(|load| load.is_job());
        jobs.map(|load| *first + load.from).min()
    }
}
