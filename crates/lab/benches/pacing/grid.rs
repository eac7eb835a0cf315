//! The grid: every rule, dialect and kind of stranger at two windows and two round trips.

use std::time::Duration;

use crate::goal::{DECLARED_ALONE, Goal, HEADERS_ALONE, HEADERS_FAIR, HEADERS_STRANGERS, UNDECLARED};
use crate::row::{Part, Plan};

pub(crate) const RULES: [&str; 5] =
    ["fixed", "fixed-aligned", "sliding-log", "sliding-counter", "token-bucket"];

/// Units per window, and callers who want them.
pub(crate) const LIMIT: u32 = 300;
pub(crate) const CALLERS: u32 = 40;
/// Calls of a job: five windows.
const REQUESTS: u32 = 5 * LIMIT;

const WINDOWS: [Duration; 2] = [Duration::from_secs(5), Duration::from_mins(1)];
const ROUND_TRIPS: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(200)];
const PHASES: u32 = 5;

/// How a client comes to know the quota.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told {
    pub(crate) name: &'static str,
    headers: &'static str,
    profile: &'static str,
    declared: bool,
}

pub(crate) const TOLD: [Told; 5] = [
    Told { name: "guide", headers: "guide", profile: "genesys-guide", declared: false },
    Told { name: "inin", headers: "inin", profile: "generic", declared: false },
    Told { name: "ietf", headers: "ietf", profile: "ietf", declared: false },
    Told { name: "none+declared", headers: "none", profile: "generic", declared: true },
    Told { name: "none+undeclared", headers: "none", profile: "generic", declared: false },
];

/// Who else draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strangers {
    Alone,
    /// 40 % of the quota.
    Steady,
    /// The same, in the middle of the run.
    Appear,
    /// A quarter of the quota at one stroke, every two windows.
    Bursts,
}

impl Strangers {
    pub(crate) const ALL: [Self; 4] = [Self::Alone, Self::Steady, Self::Appear, Self::Bursts];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Alone => "alone",
            Self::Steady => "steady",
            Self::Appear => "appear",
            Self::Bursts => "bursts",
        }
    }

    /// Their section of a scenario. `middle` is when those appear who appear.
    fn section(self, window: Duration, middle: Duration) -> String {
        let per_second = |share: f64| f64::from(LIMIT) * share / window.as_secs_f64();
        let head = "[[server.strangers]]\nirregular = true\n";
        match self {
            Self::Alone => String::new(),
            Self::Steady => format!("{head}rate = {:?}\n", per_second(0.4)),
            Self::Appear => format!("{head}rate = {:?}\nfrom = \"{}s\"\n", per_second(0.4), middle.as_secs()),
            Self::Bursts => format!("{head}rate = {:?}\nburst = {}\n", per_second(0.125), LIMIT / 4),
        }
    }
}

/// One cell of the grid.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cell {
    pub(crate) window: Duration,
    pub(crate) rtt: Duration,
    pub(crate) rule: &'static str,
    pub(crate) told: Told,
    pub(crate) strangers: Strangers,
    /// Whether the job leaves strangers what they are expected to draw, instead of taking what is there.
    pub(crate) fair: bool,
}

impl Cell {
    /// Its words.
    fn name(&self) -> String {
        let Self { window, rtt, rule, told, strangers, fair } = self;
        let (window, rtt) = (window.as_secs(), rtt.as_millis());
        let fair = if *fair && *strangers != Strangers::Alone { " fair" } else { "" };
        format!("{window}s {rtt}ms {rule} {} {}{fair}", told.name, strangers.name())
    }

    /// What it should reach; strangers beside a declared quota, which counts only own calls, have no goal.
    fn goals(&self) -> Vec<&'static Goal> {
        match (self.told.headers, self.told.declared, self.strangers) {
            ("none", true, Strangers::Alone) => vec![&DECLARED_ALONE],
            ("none", true, _) => Vec::new(),
            ("none", false, _) => vec![&UNDECLARED],
            (_, _, Strangers::Alone) => vec![&HEADERS_ALONE],
            _ if self.fair => vec![&HEADERS_STRANGERS, &HEADERS_FAIR],
            _ => vec![&HEADERS_STRANGERS],
        }
    }

    /// A job of five windows; where nothing is told, five windows to learn and twenty to be judged by, because a server's windows
    /// are whole and the edges of the measurement are not.
    fn template(&self) -> String {
        let Self { window, rtt, rule, told, strangers, fair } = self;
        let learns = told.headers == "none" && !told.declared;
        let (duration, settle, requests) = if learns {
            let settle = format!("settle = \"{}s\"\n", (*window * 5).as_secs());
            (*window * 25, settle, String::new())
        } else {
            // A run that takes ten times the ideal is a failure that need not be seen to its end.
            (*window * 50, String::new(), format!("requests = {REQUESTS}\n"))
        };
        let middle = if learns { *window * 10 } else { *window * 2 };
        let (least, most) = (rtt.as_micros() * 7 / 10, rtt.as_micros() * 13 / 10);
        format!(
            "name = \"{}\"\nduration = \"{}s\"\n[server]\nrule = \"{rule}\"\nlimit = {LIMIT}\nwindow = \"{}s\"\nphase = \"{{phase}}\"\nheaders = \"{}\"\n{}[fleet]\nrtt = \"{least}us..{most}us\"\nprofile = \"{}\"\ndeclared = {}\n{settle}strategies = [\"tidegate\"]\n[fleet.class.bulk]\npolicy = \"{}\"\n[[fleet.load]]\ncallers = {CALLERS}\n{requests}",
            self.name(),
            duration.as_secs(),
            window.as_secs(),
            told.headers,
            strangers.section(*window, middle),
            told.profile,
            told.declared,
            if *fair { "fair" } else { "greedy" },
        )
    }

    /// The row of this cell, at `phases` phases.
    pub(crate) fn plan(&self, part: Part, phases: u32) -> Plan {
        Plan {
            part,
            name: self.name(),
            goals: self.goals(),
            window: self.window,
            rtt: self.rtt,
            phases,
            timed: false,
            template: self.template(),
        }
    }
}

/// Every cell.
pub(crate) fn plans() -> Vec<Plan> {
    let mut plans = Vec::new();
    for window in WINDOWS {
        for rtt in ROUND_TRIPS {
            for told in TOLD {
                for rule in RULES {
                    for strangers in Strangers::ALL {
                        let fair = strangers == Strangers::Alone;
                        let cell = Cell { window, rtt, rule, told, strangers, fair };
                        plans.push(cell.plan(Part::Grid, PHASES));
                        if told.name == "guide" && matches!(strangers, Strangers::Steady | Strangers::Bursts)
                        {
                            plans.push(Cell { fair: true, ..cell }.plan(Part::Grid, PHASES));
                        }
                    }
                }
            }
        }
    }
    plans
}
