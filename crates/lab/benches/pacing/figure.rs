//! What is measured of a row: one figure per phase, of which the median counts and the worst is told.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidegate_lab::measure::Measures;

/// One thing that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Figure {
    /// Of the ideal.
    Efficiency,
    /// Own throttles per 100 good answers.
    Throttles,
    /// Strangers' throttles per 100 of their calls.
    Theirs,
    /// What strangers got of what they were due.
    Served,
    /// Of the ideal, after five windows.
    Settled,
    /// Own throttles per 100 good answers, after five windows.
    SettledThrottles,
    /// Own throttles, counted.
    ThrottleCount,
    /// Own throttles per time that the server went from admitting to refusing.
    PerClosing,
    /// From the end of a brown-out to the next admitted call, in seconds.
    Recovery,
    /// Attempts from the end of a brown-out to the first that was admitted.
    Probes,
    /// The pause before that attempt over the pause before the one before it.
    Growth,
    /// The 99th percentile of the interactive calls' wait, in seconds.
    InteractiveP99,
    /// Calls that missed their deadline.
    Late,
    /// Calls that failed or never ended.
    Lost,
    /// Real time for the run, in seconds.
    WallTime,
}

impl Figure {
    /// Its name in tables.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Efficiency => "efficiency",
            Self::Throttles => "own /100",
            Self::Theirs => "theirs /100",
            Self::Served => "served of due",
            Self::Probes => "probes",
            Self::Growth => "pause growth",
            Self::Settled => "settled",
            Self::SettledThrottles => "settled own /100",
            Self::ThrottleCount => "throttles",
            Self::PerClosing => "throttles per closing",
            Self::Recovery => "recovery",
            Self::InteractiveP99 => "interactive p99",
            Self::Late => "late",
            Self::Lost => "lost",
            Self::WallTime => "wall time",
        }
    }

    /// Whether more is better.
    const fn is_share(self) -> bool {
        matches!(self, Self::Efficiency | Self::Served | Self::Settled)
    }

    /// A value as a person reads it. Shares are cut, not rounded, and all else is rounded up in its last digit: a goal that is
    /// missed by a hair must not look met.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Efficiency | Self::Served | Self::Settled => {
                format!("{:.3}", (value * 1000.0 + 1e-6).floor() / 1000.0)
            }
            Self::Throttles | Self::Theirs | Self::SettledThrottles | Self::PerClosing | Self::Growth => {
                format!("{:.2}", (value * 100.0 - 1e-6).ceil().max(0.0) / 100.0)
            }
            Self::ThrottleCount | Self::Probes | Self::Late | Self::Lost => format!("{value:.0}"),
            Self::Recovery | Self::InteractiveP99 => {
                format!("{:.0} ms", (value * 1000.0 - 1e-6).ceil().max(0.0))
            }
            Self::WallTime => format!("{value:.1} s"),
        }
    }

    /// All figures of one run.
    #[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^53")]
    pub(crate) fn of(measures: &Measures) -> BTreeMap<Self, f64> {
        let mut figures = BTreeMap::from([
            (Self::Efficiency, measures.efficiency),
            (Self::Throttles, measures.throttles_per_100),
            (Self::ThrottleCount, measures.throttles as f64),
            (Self::PerClosing, measures.throttles as f64 / measures.closings.max(1) as f64),
            (Self::Late, measures.late as f64),
        ]);
        if measures.jobs_began.is_some() {
            figures.insert(Self::Lost, (measures.failed + measures.unfinished) as f64);
        }
        let theirs = measures.strangers + measures.strangers_throttled;
        if theirs > 0 {
            figures.insert(Self::Theirs, 100.0 * measures.strangers_throttled as f64 / theirs as f64);
        }
        if let Some(settled) = measures.settled {
            figures.insert(Self::Settled, settled.efficiency);
            figures.insert(Self::SettledThrottles, settled.throttles_per_100);
        }
        figures.extend(measures.strangers_served.map(|served| (Self::Served, served)));
        figures.extend(measures.recovery_probes.map(|probes| (Self::Probes, probes as f64)));
        figures.extend(measures.recovery_growth.map(|growth| (Self::Growth, growth)));
        figures.extend(measures.recovery.map(|recovery| (Self::Recovery, recovery)));
        let interactive = measures.waits.get("interactive");
        figures.extend(interactive.map(|waits| (Self::InteractiveP99, waits.p99)));
        figures
    }
}

/// A figure over the phases.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) worst: f64,
}

impl Spread {
    /// The median and the worst of one value or more.
    pub(crate) fn of(figure: Figure, values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        if figure.is_share() {
            sorted.reverse();
        }
        // From the best to the worst: of an even number the worse of the two in the middle counts.
        Self { median: sorted[sorted.len() / 2], worst: sorted[sorted.len() - 1] }
    }
}
