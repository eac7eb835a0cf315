//! What came of a scenario: a table for the terminal, JSON for machines, a picture for people.

mod chart;
mod json;
mod series;
mod table;

use std::time::Duration;

use crate::expect::Violation;
use crate::headline::Headline;
use crate::measure::Measures;
use crate::outage::outages;
use crate::plan::Plan;
use crate::tape::Tape;

/// In what a scenario was played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Medium {
    /// In virtual time.
    VirtualTime,
    /// On sockets, in real time.
    Sockets,
}

impl Medium {
    /// In words.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::VirtualTime => "virtual time",
            Self::Sockets => "sockets",
        }
    }
}

/// One strategy's part.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) measures: Measures,
    pub(crate) tape: Tape,
}

/// Everything that is known of a scenario's runs.
#[derive(Debug)]
pub struct Report {
    medium: Medium,
    name: String,
    about: String,
    seed: u64,
    headline: Headline,
    /// How many instances there are, and whether they share; `None`: one.
    fleet: Option<String>,
    /// Brown-outs, for the picture.
    outages: Vec<(Duration, Duration)>,
    /// Windows of the calendar, for the picture.
    windows: Vec<(Duration, Duration)>,
    lanes: Vec<Lane>,
    violations: Vec<Violation>,
}

impl Report {
    pub(crate) fn new(
        medium: Medium,
        plan: &Plan<'_>,
        headline: Headline,
        lanes: Vec<Lane>,
        violations: Vec<Violation>,
    ) -> Self {
        Self {
            medium,
            name: plan.scenario.name.clone(),
            about: plan.scenario.about.clone(),
            seed: plan.seed(),
            headline,
            fleet: fleet(plan),
            outages: outages(&plan.server).into_iter().map(|outage| (outage.from, outage.to)).collect(),
            windows: plan
                .fleet()
                .window
                .iter()
                .map(|window| (window.from, window.from + window.lasts))
                .collect(),
            lanes,
            violations,
        }
    }

    /// The scenario's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The numbers, one per strategy, in the order of the scenario.
    pub fn measures(&self) -> impl Iterator<Item = &Measures> {
        self.lanes.iter().map(|lane| &lane.measures)
    }

    /// Every expectation that was not met.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// All strategies side by side, and every violation, as text.
    pub fn table(&self) -> String {
        table::render(self)
    }

    /// The same as a JSON value.
    pub fn json(&self) -> serde_json::Value {
        json::render(self)
    }

    /// The picture: one lane per strategy over time.
    pub fn svg(&self) -> String {
        chart::render(self)
    }
}

fn fleet(plan: &Plan<'_>) -> Option<String> {
    let fleet = plan.fleet();
    (fleet.instances > 1).then(|| format!("{} instances, {}", fleet.instances, fleet.quota.title()))
}
