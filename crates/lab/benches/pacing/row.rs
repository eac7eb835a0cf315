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
}

/// A row that has not been played.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) part: Part,
    /// Its words.
    pub(crate) name: String,
    pub(crate) goal: Option<&'static Goal>,
    pub(crate) window: Duration,
    pub(crate) rtt: Duration,
    /// How many phases it is played at.
    pub(crate) phases: u32,
    /// Played alone on the machine, because its real time is what is measured.
    pub(crate) timed: bool,
    /// The scenario; `{phase}` in it stands for the shift of aligned windows.
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
        let bounds = self.goal.map_or_else(Vec::new, |goal| goal.bounds(self.window, self.rtt));
        Row { part: self.part, name: self.name.clone(), goal: self.goal, bounds, figures }
    }
}

/// A row that has been played.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) part: Part,
    pub(crate) name: String,
    pub(crate) goal: Option<&'static Goal>,
    #[serde(skip)]
    bounds: Vec<Bound>,
    pub(crate) figures: BTreeMap<Figure, Spread>,
}

impl Row {
    /// The bounds that the medians do not keep. A figure that was not measured keeps no bound.
    pub(crate) fn missed(&self) -> Vec<&Bound> {
        self.broken(|spread| spread.median)
    }

    /// Whether every phase keeps every bound.
    pub(crate) fn steady(&self) -> bool {
        self.broken(|spread| spread.worst).is_empty()
    }

    fn broken(&self, value: impl Fn(&Spread) -> f64) -> Vec<&Bound> {
        let holds =
            |bound: &&Bound| self.figures.get(&bound.figure).is_some_and(|spread| bound.holds(value(spread)));
        self.bounds.iter().filter(|bound| !holds(bound)).collect()
    }

    /// Whether its goal bounds this figure.
    pub(crate) fn is_about(&self, figure: Figure) -> bool {
        self.bounds.iter().any(|bound| bound.figure == figure)
    }

    /// Met, or what was missed.
    pub(crate) fn verdict(&self) -> String {
        let missed = self.missed();
        match self.goal {
            None => "-".to_owned(),
            Some(_) if missed.is_empty() && self.steady() => "met".to_owned(),
            Some(_) if missed.is_empty() => "met, not in every phase".to_owned(),
            Some(_) => {
                let bounds = missed.iter().map(|bound| bound.show()).collect::<Vec<_>>();
                format!("MISSED {}", bounds.join(", "))
            }
        }
    }

    /// A figure's median and, where it differs, its worst in brackets; "-" if it was not measured.
    pub(crate) fn cell(&self, figure: Figure) -> String {
        let Some(spread) = self.figures.get(&figure) else { return "-".to_owned() };
        let (median, worst) = (figure.show(spread.median), figure.show(spread.worst));
        if median == worst { median } else { format!("{median} ({worst})") }
    }
}
