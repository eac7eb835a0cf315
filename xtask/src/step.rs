//! Steps: named, timed pieces of a run, and the table of their times.
//!
//! The table is printed whether or not the run succeeded, because the question after a slow or broken CI run is the
//! same: where did the time go, and what was never reached?

use std::time::Duration;

use crate::{
    clock::{Stopwatch, human},
    failure::Failure,
};

/// A named piece of work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    /// Short name, as the table shows it.
    pub(crate) name: &'static str,
    /// The work.
    pub(crate) run: fn() -> Result<(), Failure>,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Passed(Duration),
    Failed(Duration),
    NotRun,
}

/// Runs the steps in order until one fails, and prints the table of times.
pub(crate) fn run_all(command: &str, steps: &[Step]) -> Result<(), Failure> {
    let mut endings: Vec<(&str, Ending)> = steps.iter().map(|step| (step.name, Ending::NotRun)).collect();
    let mut failure = None;
    for (number, step) in steps.iter().enumerate() {
        eprintln!("\n== [{}/{}] {} ==", number + 1, steps.len(), step.name);
        let watch = Stopwatch::start();
        let result = (step.run)();
        endings[number].1 = match result {
            Ok(()) => Ending::Passed(watch.elapsed()),
            Err(_) => Ending::Failed(watch.elapsed()),
        };
        if let Err(error) = result {
            failure = Some((step.name, error));
            break;
        }
    }
    eprint!("\n{}", table(command, &endings));
    match failure {
        None => Ok(()),
        Some((name, error)) => Err(Failure::new(format!("step {name}: {error}"))),
    }
}

/// The table of steps with their endings, times and share of the whole.
fn table(command: &str, endings: &[(&str, Ending)]) -> String {
    let time = |ending: &Ending| match ending {
        Ending::Passed(time) | Ending::Failed(time) => *time,
        Ending::NotRun => Duration::ZERO,
    };
    let total: Duration = endings.iter().map(|(_, ending)| time(ending)).sum();
    let mut lines = vec![format!("step times of `cargo xtask {command}`")];
    for (name, ending) in endings {
        let word = match ending {
            Ending::Passed(_) => "ok",
            Ending::Failed(_) => "FAILED",
            Ending::NotRun => "not run",
        };
        let share = 100 * time(ending).as_millis() / total.as_millis().max(1);
        let shown = if *ending == Ending::NotRun { String::new() } else { human(time(ending)) };
        lines.push(format!("  {name:<12} {word:<8} {shown:>10} {share:>4} %"));
    }
    lines.push(format!("  {:<12} {:<8} {:>10}", "total", "", human(total)));
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "a step returns a result")]
    fn good() -> Result<(), Failure> {
        Ok(())
    }

    fn bad() -> Result<(), Failure> {
        Err(Failure::new("the wheel came off").hint("put it back"))
    }

    fn never() -> Result<(), Failure> {
        panic!("a step after a failed one must not run")
    }

    #[test]
    fn the_first_failure_ends_the_run_and_is_named() {
        let steps = [
            Step { name: "one", run: good },
            Step { name: "two", run: bad },
            Step { name: "three", run: never },
        ];
        let failure = run_all("x", &steps).unwrap_err().to_string();
        assert_eq!(failure, "step two: the wheel came off\n  hint: put it back");
    }

    #[test]
    fn the_table_shows_times_shares_and_what_was_not_reached() {
        let endings = [
            ("fmt", Ending::Passed(Duration::from_secs(1))),
            ("clippy", Ending::Failed(Duration::from_secs(3))),
            ("doc", Ending::NotRun),
        ];
        let lines: Vec<String> = table("ci", &endings)
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            lines,
            [
                "step times of `cargo xtask ci`",
                "fmt ok 1.0 s 25 %",
                "clippy FAILED 3.0 s 75 %",
                "doc not run 0 %",
                "total 4.0 s"
            ]
        );
    }
}
