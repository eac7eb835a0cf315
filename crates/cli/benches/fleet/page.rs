//! The table for a terminal and for the documentation.

use std::fmt::Write as _;
use std::time::Duration;

use crate::{Args, Row};

const TITLES: [&str; 9] = [
    "row",
    "quota used %",
    "throttles per 100",
    "exchanges per call",
    "unanswered %",
    "exchange ms",
    "sent back",
    "lost of calls",
    "goal",
];

const INTRODUCTION: &str = "Eight gateways, a simulator 10 to 30 ms away and a Redis server unless the row says otherwise, all real processes on the loopback. The demand is 1.5 times \
the quota, more at some gateways than at others (Zipf 0.8), so the busiest has nearly a third of it. The simulator's books are the judge. Quota used counts the strangers' \
draw too, over six windows after two of warming up. Throttles are per 100 own calls that drew quota. Exchanges are with the store, by the gateways' own \
metrics. Unanswered are exchanges that no answer came to within 50 ms (250 ms with DynamoDB), exchange ms is how long one took on average. Sent back are calls that were told to come later, and came. Lost is whatever a caller got other than its answer or the time at which to come back. A stranger draws 30 % of the quota, 36 calls at an instant. Silent: answers say nothing of the quota, and gateways have it declared. \
Genesys: the profile of that name with both limits that it declares, 300 per minute and token and 3000 per minute and client, answers that say nothing of either, and one token \
for the fleet; used is of the 300. DynamoDB: an emulator (moto), one Python process for eight gateways, in place of the Redis server; each exchange is a read and a write of \
some milliseconds of its time there, one after the other, so at 300 per 5 s the emulator is the narrowest place.";

/// Shares are cut and costs rounded up, so that no bound is met by rounding.
fn cells(row: &Row) -> Vec<String> {
    let figures = &row.figures;
    let cut = |value: f64| format!("{:.1}", (value * 10.0).floor() / 10.0);
    let up = |value: f64, digits: usize| {
        let scale = if digits == 3 { 1000.0 } else { 100.0 };
        format!("{:.digits$}", (value * scale).ceil() / scale)
    };
    let mut verdict = row.verdict();
    if let Some(back) = figures.back {
        verdict = format!("{verdict}; all shared again after {} s", up(back, 2));
    }
    if row.plan.setup.tokens.is_some() {
        verdict = format!("{verdict}; {} token calls, at once {}", figures.tokens, figures.overlap);
    }
    vec![
        row.plan.name.clone(),
        // One window is no measure: how it is drawn differs from the one before.
        if row.plan.windows > 1 { cut(figures.used) } else { "-".to_owned() },
        up(figures.throttles, 2),
        figures.exchanges.map_or_else(|| "-".to_owned(), |exchanges| up(exchanges, 3)),
        figures.exchanges.map_or_else(|| "-".to_owned(), |_| up(figures.unanswered, 2)),
        figures.exchanges.map_or_else(|| "-".to_owned(), |_| up(1_000.0 * figures.exchange, 2)),
        figures.sent_back.to_string(),
        format!("{} of {}", figures.lost, figures.good + figures.lost),
        verdict,
    ]
}

/// One row, as soon as it is there.
pub(crate) fn line(row: &Row) -> String {
    let told: Vec<String> =
        TITLES.iter().zip(cells(row)).skip(1).map(|(title, cell)| format!("{title} {cell}")).collect();
    format!("{}: {}", row.plan.name, told.join(", "))
}

/// The page of the documentation.
pub(crate) fn markdown(rows: &[Row], args: &Args, took: Duration) -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let date = jiff::Zoned::now().strftime("%Y-%m-%d");
    let only = args.only.as_ref().map_or_else(String::new, |words| format!(" --only \"{words}\""));
    let side = if args.at_once == 1 { String::new() } else { format!(" --at-once {}", args.at_once) };
    // What else the machine did: every figure here is one of real time.
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').nth(2).map(|load| format!(" (load average {load})")).unwrap_or_default();
    let met = rows.iter().filter(|row| !row.plan.goals.is_empty() && row.missed().is_empty()).count();
    let all = rows.iter().filter(|row| !row.plan.goals.is_empty()).count();
    let mut out = format!(
        "# A shared quota, measured\n\nWritten by `cargo xtask bench fleet{only}{side} --write` on {date}, on a machine with {cores} cores{load}, in {:.0} minutes.\nHow it works is in [fleet.md](../fleet.md).\n\n{INTRODUCTION}\n\n{met} of {all} rows with a goal met it.\n\n",
        (took.as_secs_f64() / 60.0).ceil(),
    );
    writeln!(out, "| {} |\n|{}", TITLES.join(" | "), " --- |".repeat(TITLES.len()))
        .expect("a String takes all");
    for row in rows {
        writeln!(out, "| {} |", cells(row).join(" | ")).expect("a String takes all");
    }
    out
}
