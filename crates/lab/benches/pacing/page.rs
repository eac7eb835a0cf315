//! The table for a terminal and for the documentation.

use std::fmt::Write as _;
use std::time::Duration;

use crate::figure::Figure;
use crate::goal;
use crate::row::{Part, Row};

const INTRODUCTION: &str = "Efficiency: the shortest time in which anybody could have done as much, over the time it took; the \
ideal knows the server's rule and state. Beside a greedy class strangers get what they took; the ideal of a fair one leaves them what they \
are due: what they ask, up to half of the quota. Own throttles per 100 good answers, theirs per 100 of their calls. Served: what \
strangers got of what they were due. Settled: the same after five windows of learning. Medians over five phases of the server's window; the worst \
phase in brackets where it differs. Shares are cut, throttles rounded up.";

/// Columns of the grid and of the rows on sockets.
const COLUMNS: [Figure; 6] = [
    Figure::Efficiency,
    Figure::Throttles,
    Figure::Theirs,
    Figure::Served,
    Figure::Settled,
    Figure::SettledThrottles,
];

/// Met, met in every phase, and all rows of a goal, with its words.
fn summary(rows: &[Row]) -> Vec<(String, usize, usize, usize)> {
    let mut lines = Vec::new();
    for part in [Part::Grid, Part::Special, Part::Sockets, Part::Gateway] {
        for goal in goal::ALL {
            let of_goal = |row: &&Row| row.part == part && row.goals.contains(&goal);
            let all = rows.iter().filter(of_goal);
            let (mut met, mut steady, mut count) = (0, 0, 0);
            for row in all {
                count += 1;
                let kept = row.missed(Some(goal)).is_empty();
                met += usize::from(kept);
                steady += usize::from(kept && row.steady(Some(goal)));
            }
            if count > 0 {
                let place = match part {
                    Part::Grid | Part::Special => "",
                    Part::Sockets => " (sockets)",
                    Part::Gateway => " (gateway)",
                };
                lines.push((format!("{}{place}", goal.text), met, steady, count));
            }
        }
    }
    lines
}

/// The figures of a row that has other columns than the grid: what its goal is about, and what is always told.
fn figures(row: &Row) -> String {
    let told = |figure: &&Figure| match figure {
        Figure::Efficiency | Figure::Throttles | Figure::Theirs => true,
        Figure::Lost => row.figures[*figure].worst > 0.0,
        figure => row.is_about(**figure),
    };
    let shown =
        row.figures.keys().filter(told).map(|figure| format!("{} {}", figure.name(), row.cell(*figure)));
    shown.collect::<Vec<_>>().join(", ")
}

fn cells(row: &Row) -> Vec<String> {
    let mut cells = vec![row.name.clone()];
    cells.extend(COLUMNS.iter().map(|figure| row.cell(*figure)));
    cells.push(row.verdict());
    cells
}

fn titles() -> Vec<String> {
    let mut titles = vec!["row".to_owned()];
    titles.extend(COLUMNS.iter().map(|figure| figure.name().to_owned()));
    titles.push("goal".to_owned());
    titles
}

/// The whole table as aligned text.
pub(crate) fn text(rows: &[Row], took: Duration) -> String {
    let mut out = format!("{INTRODUCTION}\n");
    for (part, title) in [
        (Part::Grid, "The grid, in virtual time"),
        (Part::Sockets, "On sockets"),
        (Part::Gateway, "Through the gateway, on sockets"),
    ] {
        let of_part: Vec<Vec<String>> = rows.iter().filter(|row| row.part == part).map(cells).collect();
        if !of_part.is_empty() {
            write!(out, "\n{title}\n{}", aligned(titles(), of_part))
                .expect("writing to a String cannot fail");
        }
    }
    let special = rows.iter().filter(|row| row.part == Part::Special);
    let special: Vec<_> = special.map(|row| vec![row.name.clone(), row.verdict(), figures(row)]).collect();
    if !special.is_empty() {
        let titles = ["row", "goal", "figures"].map(str::to_owned).to_vec();
        write!(out, "\nSpecial situations, in virtual time\n{}", aligned(titles, special))
            .expect("writing to a String cannot fail");
    }
    out.push_str("\nGoals: rows that met them (in every phase) of all\n");
    for (text, met, steady, count) in summary(rows) {
        writeln!(out, "{met:4} ({steady}) of {count:<4} {text}").expect("writing to a String cannot fail");
    }
    write!(out, "\n{} rows in {:.0} s", rows.len(), took.as_secs_f64())
        .expect("writing to a String cannot fail");
    out
}

/// Columns as wide as their widest cell; the last is not padded.
fn aligned(titles: Vec<String>, rows: Vec<Vec<String>>) -> String {
    let lines: Vec<Vec<String>> = std::iter::once(titles).chain(rows).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
    let mut out = String::new();
    for line in &lines {
        let mut text = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            write!(text, "{cell:<width$}  ").expect("writing to a String cannot fail");
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out
}

/// The page of the documentation.
pub(crate) fn markdown(rows: &[Row], took: Duration) -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let date = jiff::Zoned::now().strftime("%Y-%m-%d");
    let mut out = format!(
        "# Pacing, measured\n\nWritten by `cargo xtask bench pacing --write` on {date}, on a machine with {cores} cores, in {:.0} minutes. What the columns\nmean, and how the ideal is computed, is in [lab.md](../lab.md); the scenario of a row is printed by `--only \"its words\" --show`.\n\n{INTRODUCTION}\n\n## Goals\n\n",
        (took.as_secs_f64() / 60.0).ceil(),
    );
    let goals = summary(rows).into_iter().map(|(text, met, steady, count)| {
        vec![text, format!("{met} of {count}"), format!("{steady} of {count}")]
    });
    out.push_str(&table(&["goal", "met", "met in every phase"].map(str::to_owned), goals));
    for (part, title) in [
        (Part::Special, "Special situations, in virtual time"),
        (Part::Sockets, "On sockets"),
        (Part::Gateway, "Through the gateway, on sockets"),
        (Part::Grid, "The grid, in virtual time"),
    ] {
        let of_part = rows.iter().filter(|row| row.part == part).collect::<Vec<_>>();
        if of_part.is_empty() {
            continue;
        }
        write!(out, "\n## {title}\n\n").expect("writing to a String cannot fail");
        if part == Part::Special {
            let lines = of_part.iter().map(|row| vec![row.name.clone(), row.verdict(), figures(row)]);
            out.push_str(&table(&["row", "goal", "figures"].map(str::to_owned), lines));
        } else {
            out.push_str(&table(&titles(), of_part.into_iter().map(cells)));
        }
    }
    out
}

fn table(titles: &[String], rows: impl Iterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut out = line(titles);
    out.push_str(&line(&vec!["---".to_owned(); titles.len()]));
    out.extend(rows.map(|row| line(&row)));
    out
}
