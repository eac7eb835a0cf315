//! The report as text, columns aligned; columns that would be empty everywhere are left out.

use std::fmt::Write as _;

use super::{Medium, Report};
use crate::measure::Measures;

/// A column: its title, and what stands in it.
type Column = (String, Box<dyn Fn(&Measures) -> Option<String>>);

pub(super) fn render(report: &Report) -> String {
    let rows: Vec<&Measures> = report.measures().collect();
    let mut columns: Vec<(String, Vec<Option<String>>)> = Vec::new();
    for (title, cell) in columns_of(&rows) {
        let cells: Vec<_> = rows.iter().map(|row| cell(row)).collect();
        if cells.iter().any(Option::is_some) {
            columns.push((title, cells));
        }
    }
    let mut out = String::new();
    let medium = match report.medium {
        Medium::VirtualTime => "",
        Medium::Sockets => ", on sockets",
    };
    write_line(&mut out, &format!("{}: {} (seed {}{medium})", report.name, report.about, report.seed));
    write_line(&mut out, &format!("limit: {}", report.headline.title()));
    if let Some(fleet) = &report.fleet {
        write_line(&mut out, &format!("fleet: {fleet}"));
    }
    let cell = |column: &(String, Vec<Option<String>>), row: usize| {
        column.1[row].clone().unwrap_or_else(|| "-".to_owned())
    };
    let widths: Vec<usize> = columns
        .iter()
        .map(|column| {
            (0..rows.len()).map(|row| cell(column, row).len()).max().unwrap_or(0).max(column.0.len())
        })
        .collect();
    let line = |texts: &dyn Fn(usize) -> String| {
        let mut line = String::new();
        for (index, width) in widths.iter().enumerate() {
            let text = texts(index);
            // The name stands left, numbers stand right.
            if index == 0 {
                write!(line, "{text:<width$}").expect("writing to a String cannot fail");
            } else {
                write!(line, "  {text:>width$}").expect("writing to a String cannot fail");
            }
        }
        line
    };
    write_line(&mut out, &line(&|index| columns[index].0.clone()));
    for row in 0..rows.len() {
        write_line(&mut out, &line(&|index| cell(&columns[index], row)));
    }
    for violation in &report.violations {
        write_line(&mut out, &format!("VIOLATED  {violation}"));
    }
    out
}

fn write_line(out: &mut String, line: &str) {
    out.push_str(line.trim_end());
    out.push('\n');
}

fn columns_of(rows: &[&Measures]) -> Vec<Column> {
    let mut columns: Vec<Column> = vec![
        column("strategy", |row| Some(row.strategy.to_owned())),
        column("efficiency", |row| Some(format!("{:.3}", row.efficiency))),
        column("makespan", |row| row.makespan.map(seconds)),
        column("ideal", |row| row.ideal_makespan.map(seconds)),
        column("end", |row| row.makespan.is_none().then(|| seconds(row.ended_at))),
        column("ok", |row| Some(row.succeeded.to_string())),
        column("failed", |row| some(row.failed)),
        column("unfinished", |row| some(row.unfinished)),
        column("late", |row| some(row.late)),
        column("throttles", |row| Some(row.throttles.to_string())),
        column("/100", |row| Some(format!("{:.2}", row.throttles_per_100))),
        column("settled", |row| row.settled.map(|settled| format!("{:.3}", settled.efficiency))),
        column("then /100", |row| row.settled.map(|settled| format!("{:.2}", settled.throttles_per_100))),
        column("strangers", |row| some(row.strangers)),
        column("their /100", |row| {
            (row.strangers + row.strangers_throttled > 0)
                .then(|| format!("{:.2}", row.strangers_throttles_per_100))
        }),
        column("served", |row| row.strangers_served.map(|served| format!("{served:.2}"))),
        column("recovery", |row| row.recovery.map(seconds)),
        column("hint/reset", |row| some(row.hint_mismatches)),
        column("exchanges", |row| row.sharing.map(|all| all.exchanges.to_string())),
        column("/call", |row| row.sharing.map(|all| format!("{:.3}", all.exchanges_per_call))),
        column("in 1 s", |row| row.sharing.map(|all| all.exchanges_in_a_second.to_string())),
        column("unanswered", |row| row.sharing.and_then(|all| some(all.unanswered))),
        column("away", |row| row.sharing.and_then(|all| some(all.store_away))),
        column("back", |row| row.sharing.and_then(|all| some(all.store_back))),
        column("again", |row| row.sharing.and_then(|all| all.shared_again).map(seconds)),
        column("alone most", |row| row.sharing.and_then(|all| all.alone_most).map(|most| most.to_string())),
        column("together", |row| row.sharing.and_then(|all| all.alone_together).map(|most| most.to_string())),
    ];
    for class in ["interactive", "sync", "bulk", "poll"] {
        if rows.iter().any(|row| row.waits.contains_key(class)) {
            columns.push(column(&format!("{class} p50"), move |row| {
                row.waits.get(class).map(|waits| seconds(waits.p50))
            }));
            columns.push(column("p99", move |row| row.waits.get(class).map(|waits| seconds(waits.p99))));
        }
    }
    columns
}

fn column(title: &str, cell: impl Fn(&Measures) -> Option<String> + 'static) -> Column {
    (title.to_owned(), Box::new(cell))
}

/// A count, unless it is nothing.
fn some(count: u64) -> Option<String> {
    (count > 0).then(|| count.to_string())
}

/// Seconds with as many digits as a person reads.
pub(super) fn seconds(value: f64) -> String {
    if value < 0.0005 {
        "0".to_owned()
    } else if value < 1.0 {
        format!("{:.0}ms", value * 1000.0)
    } else if value < 100.0 {
        format!("{value:.2}s")
    } else {
        format!("{value:.0}s")
    }
}
