//! Playing rows: those in virtual time side by side, one thread per core; what is timed alone; those on sockets a few at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use tidegate_lab::{Options, Report, Scenario, StrategyName, run, sockets};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::figure::Figure;
use crate::row::{Part, Plan, Row};
use crate::through;

/// Runs on sockets at once: together a few hundred calls per second, far below what would make them wait for each other on two
/// cores.
const ON_SOCKETS: usize = 6;
/// No run on sockets takes longer; the longest learns for 25 s and is judged for 100 s.
const MAX_WALL: Duration = Duration::from_mins(4);

/// The rows of a table, about to be played.
pub(crate) struct Play {
    plans: Vec<Arc<Plan>>,
    slots: Vec<Mutex<Figures>>,
    progress: ProgressBar,
}

/// The figures of each phase that was played.
pub(crate) type Figures = Vec<BTreeMap<Figure, f64>>;

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Play {
    pub(crate) fn new(plans: Vec<Plan>) -> Self {
        let runs = plans.iter().map(|plan| u64::from(plan.phases)).sum();
        let progress = ProgressBar::new(runs);
        let style = ProgressStyle::with_template("{bar:20} {pos}/{len} runs, {elapsed}, {wide_msg}");
        progress.set_style(style.expect("the template is a constant"));
        let slots = plans.iter().map(|_| Mutex::default()).collect();
        Self { plans: plans.into_iter().map(Arc::new).collect(), slots, progress }
    }

    /// Plays all of them, in the order of the table.
    pub(crate) async fn all(self) -> Result<Vec<Row>, Failure> {
        tokio::task::block_in_place(|| {
            self.side_by_side()?;
            self.those(|plan| plan.timed).try_for_each(|index| self.virtually(index))
        })?;
        self.on_sockets().await?;
        // Last and alone: no run beside it takes time from the gateway.
        for index in self.those(|plan| plan.part == Part::Gateway) {
            self.progress.set_message(self.plans[index].name.clone());
            let played = tokio::task::block_in_place(|| through::play(&self.plans[index]))?;
            self.progress.inc(played.len() as u64);
            self.slots[index].lock().extend(played);
        }
        self.progress.finish_and_clear();
        let rows = self.plans.iter().zip(self.slots).map(|(plan, slot)| plan.played(&slot.into_inner()));
        Ok(rows.collect())
    }

    /// The rows of which this is true.
    fn those(&self, which: impl Fn(&Plan) -> bool) -> impl Iterator<Item = usize> {
        (0..self.plans.len()).filter(move |index| which(&self.plans[*index]))
    }

    fn side_by_side(&self) -> Result<(), Failure> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let rows: Vec<usize> =
            self.those(|plan| matches!(plan.part, Part::Grid | Part::Special) && !plan.timed).collect();
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let work = || {
                while let Some(index) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                    self.virtually(*index)?;
                }
                Ok(())
            };
            let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("a row does not panic"))
        })
    }

    /// One row in virtual time, phase by phase.
    fn virtually(&self, index: usize) -> Result<(), Failure> {
        let plan = &self.plans[index];
        self.progress.set_message(plan.name.clone());
        for phase in 0..plan.phases {
            let (scenario, options) = (Scenario::from_toml(&plan.scenario(phase))?, options(phase));
            let begun = Instant::now();
            let report = run(&scenario, &options)?;
            let took = plan.timed.then(|| begun.elapsed());
            self.keep(index, &report, took);
        }
        Ok(())
    }

    fn keep(&self, index: usize, report: &Report, took: Option<Duration>) {
        for measures in report.measures() {
            let mut figures = Figure::of(measures);
            figures.extend(took.map(|took| (Figure::WallTime, took.as_secs_f64())));
            self.slots[index].lock().push(figures);
        }
        self.progress.inc(1);
        let (done, all) = (self.progress.position(), self.progress.length().unwrap_or_default());
        // Without a terminal nothing is drawn: then every twentieth part is told.
        if self.progress.is_hidden() && done * 20 / all != (done - 1) * 20 / all {
            eprintln!("{done} of {all} runs, {:.0} s", self.progress.elapsed().as_secs_f64());
        }
    }

    /// The rows on sockets, every phase a run of its own.
    async fn on_sockets(&self) -> Result<(), Failure> {
        let places = Arc::new(Semaphore::new(ON_SOCKETS));
        let mut runs = JoinSet::new();
        for index in self.those(|plan| plan.part == Part::Sockets) {
            for phase in 0..self.plans[index].phases {
                let (plan, places) = (Arc::clone(&self.plans[index]), Arc::clone(&places));
                runs.spawn(async move {
                    let _place = places.acquire().await;
                    (index, really(&plan, phase).await)
                });
            }
        }
        while let Some(done) = runs.join_next().await {
            let (index, report) = done.expect("a run does not panic");
            self.progress.set_message(self.plans[index].name.clone());
            self.keep(index, &report?, None);
        }
        Ok(())
    }
}

/// One phase on sockets.
async fn really(plan: &Plan, phase: u32) -> Result<Report, Failure> {
    let (scenario, options) = (Scenario::from_toml(&plan.scenario(phase))?, options(phase));
    let forecast = sockets::forecast(&scenario, &options, MAX_WALL)?;
    Ok(sockets::run(&scenario, &options, &forecast, &Arc::default()).await?)
}

/// Another seed at each phase: other latencies, other strangers, another fraction of the wall clock's second.
fn options(phase: u32) -> Options {
    Options { strategies: vec![StrategyName::Tidegate], seed: Some(u64::from(phase) + 1) }
}
