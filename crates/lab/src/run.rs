//! One scenario, all its strategies, one report.

use crate::engine::play;
use crate::error::LabError;
use crate::expect::Violation;
use crate::headline::Headline;
use crate::ideal::{Ideal, ideal};
use crate::leave::Leave;
use crate::plan::Plan;
use crate::report::{Lane, Medium, Report};
use crate::scenario::Scenario;
use crate::strategy::StrategyName;

/// How a scenario is run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// Only these strategies; those of the scenario if empty.
    pub strategies: Vec<StrategyName>,
    /// Replaces the scenario's seed. Its expectations are then only a hint: they were set for the file's own seed.
    pub seed: Option<u64>,
}

impl Options {
    /// What is run of a scenario.
    pub(crate) fn strategies_of<'a>(&'a self, scenario: &'a Scenario) -> &'a [StrategyName] {
        if self.strategies.is_empty() { &scenario.fleet.strategies } else { &self.strategies }
    }
}

/// Runs a scenario under each of its strategies.
///
/// # Errors
/// [`LabError::Stuck`] if a strategy stops time.
pub fn run(scenario: &Scenario, options: &Options) -> Result<Report, LabError> {
    let plan = Plan::new(scenario, options.seed)?;
    let names = options.strategies_of(scenario);
    let mut undisturbed: Vec<(Vec<Leave>, Ideal)> = Vec::new();
    let mut lanes = Vec::new();
    let mut violations: Vec<Violation> = Vec::new();
    for &name in names {
        let outcome = play(&plan, name)?;
        let leaves = plan.leaves(name);
        // Without strangers the best is the same beside every strategy that leaves as much.
        let known =
            undisturbed.iter().find(|(others, _)| *others == leaves && outcome.tape.visits.is_empty());
        let measures = if let Some((_, best)) = known {
            outcome.measures(&plan, best)
        } else {
            let best = ideal(&plan, &leaves, &outcome.tape);
            let measures = outcome.measures(&plan, &best);
            undisturbed.push((leaves, best));
            measures
        };
        violations.extend(scenario.expect.of_strategy(name).violations(&measures));
        lanes.push(Lane { measures, tape: outcome.tape });
    }
    Ok(Report::new(Medium::VirtualTime, &plan, Headline::of(&plan), lanes, violations))
}
