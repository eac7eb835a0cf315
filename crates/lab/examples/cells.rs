//! The grid of the pacing research: five rules, three forms of reset, two round trips, two numbers of callers, five phases.
//!
//! ```text
//! cargo run --release -p tidegate-lab --example cells -- [--window 5s] [--requests 1500] [--strategy tidegate] [--strangers steady|appear|bursts]
//! ```
//!
//! A cell reads: smallest and mean efficiency over the phases, throttles in all of them together, and the strangers'
//! throttles if there are strangers.
#![expect(clippy::print_stdout, reason = "the table is the program's output")]

use std::error::Error;

use tidegate_lab::{Options, Scenario, StrategyName, run};

const RULES: [&str; 5] = ["fixed", "fixed-aligned", "sliding-log", "sliding-counter", "token-bucket"];
const RESETS: [&str; 3] = ["delta-exact", "delta", "epoch"];
const SEEDS: std::ops::RangeInclusive<u64> = 1..=5;

struct Grid {
    window: String,
    requests: u64,
    strategy: StrategyName,
    strangers: &'static str,
}

fn grid() -> Result<Grid, Box<dyn Error>> {
    let mut grid =
        Grid { window: "5s".to_owned(), requests: 1500, strategy: StrategyName::Tidegate, strangers: "" };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or("every option has a value")?;
        match word.as_str() {
            "--window" => grid.window = value,
            "--requests" => grid.requests = value.parse()?,
            "--strategy" => grid.strategy = value.parse()?,
            "--strangers" => grid.strangers = strangers(&value)?,
            _ => return Err(format!("unknown option {word}").into()),
        }
    }
    Ok(grid)
}

/// Somebody who draws 40 % of 300 per 5 s, from the start, from 8 s on, or in bursts of a quarter of the quota.
fn strangers(name: &str) -> Result<&'static str, String> {
    match name {
        "steady" => Ok("[[server.strangers]]\nrate = 24.0\nirregular = true\n"),
        "appear" => Ok("[[server.strangers]]\nrate = 24.0\nirregular = true\nfrom = \"8s\"\n"),
        "bursts" => Ok("[[server.strangers]]\nrate = 7.5\nburst = 75\nirregular = true\n"),
        _ => Err(format!("unknown strangers {name} (there are steady, appear, bursts)")),
    }
}

fn cell(grid: &Grid, rule: &str, reset: &str, rtt: u32, callers: u32) -> Result<String, Box<dyn Error>> {
    let (mut least, mut sum, mut throttles, mut theirs, mut done) = (f64::MAX, 0.0, 0, 0, true);
    for seed in SEEDS {
        // Another phase of the window with every seed, beside another fraction of the wall clock's second.
        let phase = seed * 1_370;
        let text = format!(
            "duration = \"1h\"\n[server]\nrule = \"{rule}\"\nlimit = 300\nwindow = \"{}\"\nphase = \"{phase}ms\"\nheaders = \"xratelimit\"\nreset = \"{reset}\"\n{}[fleet]\nrtt = \"{}us..{}us\"\n[[fleet.load]]\ncallers = {callers}\nrequests = {}\n",
            grid.window,
            grid.strangers,
            rtt * 700,
            rtt * 1300,
            grid.requests,
        );
        let options = Options { strategies: vec![grid.strategy], seed: Some(seed) };
        let report = run(&Scenario::from_toml(&text)?, &options)?;
        for measures in report.measures() {
            least = least.min(measures.efficiency);
            sum += measures.efficiency / 5.0;
            throttles += measures.throttles;
            theirs += measures.strangers_throttled;
            done &= measures.makespan.is_some();
        }
    }
    let unfinished = if done { ' ' } else { '!' };
    let theirs = if grid.strangers.is_empty() { String::new() } else { format!(" {theirs:>5}") };
    Ok(format!("{least:.3}/{sum:.3} {throttles:>4}{theirs}{unfinished}"))
}

fn main() -> Result<(), Box<dyn Error>> {
    let grid = grid()?;
    println!("{} on 300 per {}, {} calls", grid.strategy, grid.window, grid.requests);
    println!("{:15} {:11} (20 ms, 40) | (20 ms, 200) | (200 ms, 40) | (200 ms, 200)", "rule", "reset");
    for rule in RULES {
        for reset in RESETS {
            let cells = [(20, 40), (20, 200), (200, 40), (200, 200)]
                .map(|(rtt, callers)| cell(&grid, rule, reset, rtt, callers));
            let cells = cells.into_iter().collect::<Result<Vec<_>, _>>()?;
            println!("{rule:15} {reset:11} {}", cells.join(" | "));
        }
    }
    Ok(())
}
