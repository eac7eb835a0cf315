//! A row: a scenario at several phases before it is played, its figures afterwards.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::figure::{Figure, Spread};
use crate::goal::{Bound, Goal};

/// Which part of the table a row belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Part {
    /// The grid, in virtual time.
    Grid,
    /// Situations of their own, in virtual time.
    Special,
    /// On sockets, in real time.
    Sockets,
    /// Through the gateway, in real time.
    Gateway,
}

/// A row that has not been played.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) part: Part,
    /// Its words.
    pub(crate) name: String,
    pub(crate) goals: Vec<&'static Goal>,
    pub(crate) window: Duration,
    pub(crate) rtt: Duration,
    /// How many phases it is played at.
    pub(crate) phases: u32,
    /// Played alone on the machine, because its real time is what is measured.
    pub(crate) timed: bool,
    /// The scenario; `{phase}` in it stands for the shift of aligned windows. Empty where somebody else plays it.
    pub(crate) template: String,
}

impl Plan {
    /// The scenario at the `index`-th phase: in its middle, so that no phase is the special one at 0.
    pub(crate) fn scenario(&self, index: u32) -> String {
        let phase = self.window * (2 * index + 1) / (2 * self.phases);
        self.template.replace("{phase}", &format!("{}ms", phase.as_millis()))
    }

    /// What came of it, one map of figures per phase.
    pub(crate) fn played(&self, runs: &[BTreeMap<Figure, f64>]) -> Row {
        let mut figures = BTreeMap::new();
        for figure in runs.iter().flat_map(BTreeMap::keys).copied() {
            let values = runs.iter().filter_map(|run| run.get(&figure)).copied().collect::<Vec<_>>();
            figures.insert(figure, Spread::of(figure, &values));
        }
        let of_goal = |goal: &&'static Goal| {
            let goal = *goal;
            goal.bounds(self.window, self.rtt).into_iter().map(move |bound| (goal, bound))
        };
        let bounds = self.goals.iter().flat_map(of_goal).collect();
        Row { part: self.part, name: self.name.clone(), goals: self.goals.clone(), bounds, figures }
    }
}

/// A row that has been played.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) part: Part,
    pub(crate) name: String,
    pub(crate) goals: Vec<&'static Goal>,
    #[serde(skip)]
    bounds: Vec<(&'static Goal, Bound)>,
    pub(crate) figures: BTreeMap<Figure, Spread>,
}

impl Row {
    /// The bounds of a goal, or of all, that the medians do not keep. A figure that was not measured keeps no bound.
    pub(crate) fn missed(&self, goal: Option<&Goal>) -> Vec<&Bound> {
        self.broken(goal, |spread| spread.median)
    }

    /// Whether every phase keeps every bound of a goal, or of all.
    pub(crate) fn steady(&self, goal: Option<&Goal>) -> bool {
        self.broken(goal, |spread| spread.worst).is_empty()
    }

    fn broken(&self, goal: Option<&Goal>, value: impl Fn(&Spread) -> f64) -> Vec<&Bound> {
        let holds =
            |bound: &Bound| self.figures.get(&bound.figure).is_some_and(|spread| bound.holds(value(spread)));
        let asked = self.bounds.iter().filter(|(of, _)| goal.is_none_or(|goal| goal == *of));
        asked.map(|(_, bound)| bound).filter(|bound| !holds(bound)).collect()
    }

    /// Whether its goals bound this figure.
    pub(crate) fn is_about(&self, figure: Figure) -> bool {
        self.bounds.iter().any(|(_, bound)| bound.figure == figure)
    }

    /// Met, or what was missed.
    pub(crate) fn verdict(&self) -> String {
        let missed = self.missed(None);
        if self.goals.is_empty() {
            "-".to_owned()
        } else if missed.is_empty() {
            if self.steady(None) { "met".to_owned() } else { "met, not in every phase".to_owned() }
        } else {
            let bounds = missed.iter().map(|bound| bound.show()).collect::<Vec<_>>();
            format!("MISSED {}", bounds.join(", "))
        }
    }

    /// A figure's median and, where it differs, its worst in brackets; "-" if it was not measured.
    pub(crate) fn cell(&self, figure: Figure) -> String {
        let Some(spread) = self.figures.get(&figure) else { return "-".to_owned() };
        let (median, worst) = (figure.show(spread.median), figure.show(spread.worst));
        if median == worst { median } else { format!("{median} ({worst})") }
    }
}
