//! The report for machines.

use serde::Serialize;
use serde_json::Value;

use super::Report;
use crate::expect::Violation;
use crate::measure::Measures;

#[derive(Serialize)]
struct Shape<'a> {
    scenario: &'a str,
    about: &'a str,
    seed: u64,
    played_in: &'static str,
    limit: String,
    fleet: Option<&'a str>,
    met: bool,
    strategies: Vec<&'a Measures>,
    violations: &'a [Violation],
}

pub(super) fn render(report: &Report) -> Value {
    let shape = Shape {
        scenario: &report.name,
        about: &report.about,
        seed: report.seed,
        played_in: report.medium.name(),
        limit: report.headline.title(),
        fleet: report.fleet.as_deref(),
        met: report.violations.is_empty(),
        strategies: report.measures().collect(),
        violations: &report.violations,
    };
    serde_json::to_value(shape).expect("numbers and strings always serialise")
}
