//! The goals, each in one place: its words, and the bounds that a row of it has to keep.

use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::figure::Figure;

/// What a kind of row should reach.
#[derive(Debug, PartialEq)]
pub(crate) struct Goal {
    /// Short name, a word to select rows by.
    pub(crate) id: &'static str,
    /// The goal in words.
    pub(crate) text: &'static str,
}

impl Serialize for Goal {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.id.serialize(to)
    }
}

/// Told by headers, nobody else draws.
pub(crate) const HEADERS_ALONE: Goal = Goal {
    id: "headers-alone",
    text: "headers, alone: efficiency at least min(97 %, W/(W + 1.25 RTT)), no throttle",
};
/// Told by headers, beside strangers.
pub(crate) const HEADERS_STRANGERS: Goal = Goal {
    id: "headers-strangers",
    text: "headers, strangers: at least 95 % of what the class's policy leaves, at most 0.3 throttles per 100",
};
/// What fair means. Strangers who ask for less than an equal share are due what they ask, others an equal share.
pub(crate) const HEADERS_FAIR: Goal = Goal {
    id: "headers-fair",
    text: "headers, strangers, fair class: they get at least 80 % of what they are due (what they ask, up to half of the quota)",
};
/// A server that says nothing, and an operator who does.
pub(crate) const DECLARED_ALONE: Goal = Goal {
    id: "declared-alone",
    text: "no headers, quota declared, alone: at least 95 %, at most 0.5 throttles per 100",
};
/// Nobody says anything.
pub(crate) const UNDECLARED: Goal = Goal {
    id: "undeclared",
    text: "no headers, nothing declared: settled after 5 windows, then at least 85 % and at most 2 throttles per 100",
};
/// A hint that is too short.
pub(crate) const SHORT_HINT: Goal = Goal {
    id: "short-hint",
    text: "Retry-After 4 s too short, early calls punished: at most 1 throttle per window closed",
};
/// A brown-out that says how long it lasts.
pub(crate) const BROWN_OUT_HINTED: Goal = Goal {
    id: "brown-out-hinted",
    text: "brown-out of 8 s with true hints: at most 1 throttle per hint, recovery within 1 s of its end",
};
/// A brown-out that does not.
pub(crate) const BROWN_OUT_SILENT: Goal = Goal {
    id: "brown-out-silent",
    text: "brown-out of 8 s without hints: at most 5 throttles, recovery at the first probe after the cool-down, which is half as long again as the one before",
};
/// So many at once.
pub(crate) const CAP: Goal = Goal {
    id: "cap",
    text: "50 calls at once, 200 callers: at most 1 throttle per 100, at least 90 % of the cap used",
};
/// Size.
pub(crate) const FLEET: Goal =
    Goal { id: "fleet", text: "10 000 instances, ten minutes: at most 60 s of real time" };
/// Somebody waits for the answer.
pub(crate) const INTERACTIVE: Goal = Goal {
    id: "interactive",
    text: "interactive at 20 % of the quota while bulk saturates the rest: p99 of the wait at most 2 RTT",
};
/// An answer that comes late is worthless.
pub(crate) const SYNC: Goal = Goal {
    id: "sync",
    text: "500 sync calls per 5 s with 5 s deadlines: none late while the quota allows it",
};

/// All of them, in the order of the summary.
pub(crate) const ALL: [&Goal; 12] = [
    &HEADERS_ALONE,
    &HEADERS_STRANGERS,
    &HEADERS_FAIR,
    &DECLARED_ALONE,
    &UNDECLARED,
    &SHORT_HINT,
    &BROWN_OUT_HINTED,
    &BROWN_OUT_SILENT,
    &CAP,
    &FLEET,
    &INTERACTIVE,
    &SYNC,
];

/// A bound on one figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bound {
    pub(crate) figure: Figure,
    least: f64,
    most: f64,
}

impl Bound {
    const fn at_least(figure: Figure, least: f64) -> Self {
        Self { figure, least, most: f64::INFINITY }
    }

    const fn at_most(figure: Figure, most: f64) -> Self {
        Self { figure, least: f64::NEG_INFINITY, most }
    }

    /// Whether `value` keeps it. A hair of slack covers the rounding of a bound that is met exactly.
    pub(crate) fn holds(&self, value: f64) -> bool {
        value >= self.least - 1e-9 && value <= self.most + 1e-9
    }

    /// The bound in words.
    pub(crate) fn show(&self) -> String {
        let name = self.figure.name();
        if self.least.is_finite() {
            // Rounded up, so that what is shown to be asked for is not less than what is.
            format!("{name} >= {:.3}", (self.least * 1000.0 - 1e-6).ceil() / 1000.0)
        } else {
            format!("{name} <= {}", self.figure.show(self.most))
        }
    }
}

impl Goal {
    /// The bounds for a quota per `window` that is `rtt` away.
    pub(crate) fn bounds(&self, window: Duration, rtt: Duration) -> Vec<Bound> {
        let (window, rtt) = (window.as_secs_f64(), rtt.as_secs_f64());
        let efficiency = |least| Bound::at_least(Figure::Efficiency, least);
        let throttles = |most| Bound::at_most(Figure::Throttles, most);
        let mut bounds = match self.id {
            "headers-alone" => vec![efficiency((window / (window + 1.25 * rtt)).min(0.97)), throttles(0.0)],
            "headers-strangers" => vec![efficiency(0.95), throttles(0.3)],
            "headers-fair" => vec![Bound::at_least(Figure::Served, 0.8)],
            "declared-alone" => vec![efficiency(0.95), throttles(0.5)],
            "undeclared" => {
                vec![Bound::at_least(Figure::Settled, 0.85), Bound::at_most(Figure::SettledThrottles, 2.0)]
            }
            "short-hint" => vec![Bound::at_most(Figure::PerClosing, 1.0)],
            "brown-out-hinted" => {
                vec![Bound::at_most(Figure::PerClosing, 1.0), Bound::at_most(Figure::Recovery, 1.0)]
            }
            "brown-out-silent" => {
                // A pause ends when the answer is here, and a gate opens with up to 100 ms of chance: of pauses of seconds, that
                // is 0.1 of growth.
                let growth = Bound::at_most(Figure::Growth, 1.6);
                let probes = Bound::at_most(Figure::Probes, 1.0);
                vec![Bound::at_most(Figure::ThrottleCount, 5.0), probes, growth]
            }
            "cap" => vec![efficiency(0.9), throttles(1.0)],
            "fleet" => vec![Bound::at_most(Figure::WallTime, 60.0)],
            "interactive" => vec![Bound::at_most(Figure::InteractiveP99, 2.0 * rtt)],
            "sync" => vec![Bound::at_most(Figure::Late, 0.0)],
            other => unreachable!("the goal {other} has no bounds"),
        };
        // Whoever loses calls has not done the job, however fast.
        if !matches!(self.id, "undeclared" | "fleet" | "interactive" | "sync") {
            bounds.push(Bound::at_most(Figure::Lost, 0.0));
        }
        bounds
    }
}
