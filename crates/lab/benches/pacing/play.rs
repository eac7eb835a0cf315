//! Playing rows: those in virtual time side by side, one thread per core; what is timed alone.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use tidegate_lab::{LabError, Options, Scenario, StrategyName, run};

use crate::figure::Figure;
use crate::row::{Plan, Row};

/// The rows of a table, about to be played.
pub(crate) struct Play {
    plans: Vec<Plan>,
    progress: ProgressBar,
}

type Figures = Vec<BTreeMap<Figure, f64>>;

impl Play {
    pub(crate) fn new(plans: Vec<Plan>) -> Self {
        let progress = ProgressBar::new(plans.len() as u64);
        let style = ProgressStyle::with_template("{bar:20} {pos}/{len} rows, {elapsed}, {wide_msg}");
        progress.set_style(style.expect("the template is a constant"));
        Self { plans, progress }
    }

    /// Plays all of them, in the order of the table.
    pub(crate) fn all(self) -> Result<Vec<Row>, LabError> {
        let slots: Vec<Mutex<Option<Figures>>> = self.plans.iter().map(|_| Mutex::new(None)).collect();
        let keep = |index: usize, figures| {
            *slots[index].lock().expect("no thread panics with a slot") = Some(figures);
            self.progress.inc(1);
        };
        self.side_by_side(&keep)?;
        for (index, plan) in self.plans.iter().enumerate().filter(|(_, plan)| plan.timed) {
            self.progress.set_message(plan.name.clone());
            keep(index, virtually(plan)?);
        }
        self.progress.finish_and_clear();
        let figures = slots.into_iter().map(|slot| slot.into_inner().ok().flatten().unwrap_or_default());
        Ok(self.plans.into_iter().zip(figures).map(|(plan, runs)| plan.played(&runs)).collect())
    }

    fn side_by_side(&self, keep: &(impl Fn(usize, Figures) + Sync)) -> Result<(), LabError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let work = || {
                while let Some(index) = self.next(&next) {
                    self.progress.set_message(self.plans[index].name.clone());
                    keep(index, virtually(&self.plans[index])?);
                }
                Ok(())
            };
            let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("a row does not panic"))
        })
    }

    /// The next row that may be played beside others.
    fn next(&self, next: &AtomicUsize) -> Option<usize> {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            match self.plans.get(index)? {
                plan if plan.timed => {}
                _ => return Some(index),
            }
        }
    }
}

/// One row in virtual time, phase by phase.
fn virtually(plan: &Plan) -> Result<Figures, LabError> {
    let mut runs = Vec::new();
    for index in 0..plan.phases {
        let scenario = Scenario::from_toml(&plan.scenario(index))?;
        // Another seed at each phase: other latencies, other strangers, another fraction of the wall clock's second.
        let options = Options { strategies: vec![StrategyName::Tidegate], seed: Some(u64::from(index) + 1) };
        let begun = Instant::now();
        let report = run(&scenario, &options)?;
        let took = begun.elapsed().as_secs_f64();
        for measures in report.measures() {
            let mut figures = Figure::of(measures);
            if plan.timed {
                figures.insert(Figure::WallTime, took);
            }
            runs.push(figures);
        }
    }
    Ok(runs)
}
