//! The two runs side by side, in the judge's numbers.

use std::fmt::Write as _;
use std::time::Duration;

use tidegate_sim::Stats;

use super::world::least_seconds;

/// What one run came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Result {
    /// From the first request to the last outcome.
    pub(super) took: Duration,
    /// Writes the program set out to make.
    pub(super) writes: u64,
    /// 429 answers the program itself had to deal with.
    pub(super) saw_429: u64,
    /// Writes the program gave up, or cannot tell the outcome of.
    pub(super) lost: u64,
    /// Agents whose final skills are wrong.
    pub(super) wrong: u64,
    /// The simulator's books.
    pub(super) stats: Stats,
}

impl Result {
    /// API calls that reached the simulator.
    fn requests(&self) -> u64 {
        self.stats.accepted + self.stats.throttled + self.stats.unauthorized
    }

    /// Everything that must not happen and did.
    pub(super) fn faults(&self) -> Vec<String> {
        let counts = [
            (self.lost, "writes lost or in doubt"),
            (self.wrong, "agents with wrong skills"),
            (self.stats.repeated_content, "writes executed twice"),
            (self.stats.duplicates, "duplicates under one key"),
            (self.saw_429, "answers of 429 seen by the bulk runner"),
        ];
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect()
    }

    fn cell(&self, measure: Measure) -> String {
        let stats = &self.stats;
        match measure {
            Measure::Time => format!("{:.1} s", self.took.as_secs_f64()),
            Measure::Least => format!("{} s", least_seconds(self.writes)),
            Measure::Writes => self.writes.to_string(),
            Measure::Requests => self.requests().to_string(),
            Measure::Saw429 => self.saw_429.to_string(),
            Measure::Made429 => stats.throttled.to_string(),
            Measure::Made401 => stats.unauthorized.to_string(),
            Measure::Logins => stats.oauth.calls.to_string(),
            Measure::Cut => ["drop-before", "drop-after"]
                .iter()
                .filter_map(|fault| stats.faults.get(*fault))
                .sum::<u64>()
                .to_string(),
            Measure::Twice => stats.repeated_content.to_string(),
            Measure::Lost => self.lost.to_string(),
            Measure::Wrong => self.wrong.to_string(),
        }
    }
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
enum Measure {
    Time,
    Least,
    Writes,
    Requests,
    Saw429,
    Made429,
    Made401,
    Logins,
    Cut,
    Twice,
    Lost,
    Wrong,
}

/// The table's rows, in order.
const MEASURES: [(Measure, &str); 12] = [
    (Measure::Time, "time"),
    (Measure::Least, "least time the quota allows"),
    (Measure::Writes, "writes the job was cut into"),
    (Measure::Requests, "requests that reached the API"),
    (Measure::Saw429, "429 the program saw"),
    (Measure::Made429, "429 the API answered"),
    (Measure::Made401, "401 the API answered"),
    (Measure::Logins, "token calls"),
    (Measure::Cut, "connections cut by the API"),
    (Measure::Twice, "writes executed twice"),
    (Measure::Lost, "writes lost or in doubt"),
    (Measure::Wrong, "agents with wrong skills"),
];

/// Width of the first column: the longest label and a gap.
const LABEL: usize = 32;
/// Width of the others.
const CELL: usize = 12;

/// Renders both runs as columns, or, where `width` columns do not hold them, one below the other.
pub(super) fn render(naive: &Result, tidegate: &Result, width: Option<usize>) -> String {
    let mut text = String::new();
    let runs = [("naive client", naive), ("Tidegate", tidegate)];
    if width.is_none_or(|width| width >= LABEL + 2 * CELL) {
        line(&mut text, LABEL, "", &runs.map(|(name, _)| name.to_owned()));
        text.push_str(&"─".repeat(LABEL + 2 * CELL));
        text.push('\n');
        for (measure, label) in MEASURES {
            line(&mut text, LABEL, label, &runs.map(|(_, run)| run.cell(measure)));
        }
    } else {
        for (name, run) in runs {
            writeln!(text, "{name}").expect("a string takes everything");
            for (measure, label) in MEASURES {
                writeln!(text, "{:>8}  {label}", run.cell(measure)).expect("a string takes everything");
            }
        }
    }
    text
}

fn line(text: &mut String, width: usize, label: &str, cells: &[String]) {
    write!(text, "{label:<width$}").expect("a string takes everything");
    for cell in cells {
        write!(text, "{cell:>CELL$}").expect("a string takes everything");
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    fn run(saw_429: u64) -> Result {
        let stats = Stats {
            accepted: 1_540,
            throttled: 400,
            unauthorized: 60,
            faults: [("drop-before".to_owned(), 12), ("drop-after".to_owned(), 30)].into(),
            ..Stats::default()
        };
        Result { took: Duration::from_millis(52_340), writes: 1_500, saw_429, stats, ..Result::default() }
    }

    #[test]
    fn every_line_of_the_table_has_the_same_width() {
        let text = render(&run(400), &run(0), Some(80));
        let widths: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
        assert_eq!(widths, vec![LABEL + 2 * CELL; MEASURES.len() + 2], "{text}");
    }

    #[test]
    fn the_numbers_are_the_judges() {
        let text = render(&run(400), &run(0), None);
        for (label, cells) in [
            ("time", ["52.3", "s"]),
            ("requests that reached the API", ["2000", "2000"]),
            ("429 the program saw", ["400", "0"]),
            ("connections cut by the API", ["42", "42"]),
        ] {
            let line = text.lines().find(|line| line.starts_with(label)).unwrap();
            let found: Vec<&str> = line[LABEL..].split_whitespace().take(2).collect();
            assert_eq!(found, cells, "{line}");
        }
    }

    #[test]
    fn a_narrow_terminal_gets_one_run_below_the_other() {
        let text = render(&run(400), &run(0), Some(44));
        assert!(text.lines().all(|line| line.chars().count() <= 44), "{text}");
        assert_eq!(text.lines().count(), 2 * (MEASURES.len() + 1));
    }

    #[test]
    fn each_fault_is_named_with_its_count() {
        assert_eq!(run(0).faults(), Vec::<String>::new());
        let mut bad = Result { lost: 2, wrong: 1, ..run(3) };
        bad.stats.repeated_content = 4;
        let told = bad.faults().join(", ");
        for part in ["2 writes lost", "1 agents", "4 writes executed twice", "3 answers of 429"] {
            assert!(told.contains(part), "{part} is missing in {told}");
        }
    }
}
