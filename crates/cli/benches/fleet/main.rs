//! The table of shared quotas: how much of it a fleet of real processes uses, how often it exceeds it, and how often it
//! speaks with the store.
//!
//! ```text
//! cargo xtask bench fleet                     everything, about twenty minutes
//! cargo xtask bench fleet --only "fixed log"  rows whose name has all of these words
//! cargo xtask bench fleet --write             everything, and docs/bench/fleet.md from it
//! ```
//!
//! Rows with DynamoDB are played where the program is built with it, as `cargo xtask bench` does.
//!
//! A row that misses its bound says so, and the run ends with an error. The simulator's books are the judge.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark's result is what it prints")]

#[path = "../../../quota-dynamodb/tests/dynamodb/emulator.rs"]
#[expect(dead_code, reason = "tests ask it for more")]
mod emulator;
mod judge;
mod load;
mod page;
mod row;
#[path = "../../../quota-redis/tests/redis/server.rs"]
mod server;
mod world;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use clap::Parser;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::row::{Figures, Plan, plans};

/// Where the result of a full run is kept.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/bench/fleet.md");

/// The table of shared quotas.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench fleet")]
pub(crate) struct Args {
    /// Only rows whose name has all of these words.
    #[arg(long, value_name = "WORDS")]
    only: Option<String>,
    /// Seed of the callers.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Rows played side by side. Each is ten processes that mostly wait, so a machine with idle cores bears some.
    #[arg(long, default_value_t = 1)]
    at_once: u8,
    /// Print the gateways' logs and how calls were lost.
    #[arg(long)]
    verbose: bool,
    /// Write docs/bench/fleet.md.
    #[arg(long)]
    write: bool,
    /// What cargo tells every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A row and what it came to.
pub(crate) struct Row {
    pub(crate) plan: Plan,
    pub(crate) figures: Figures,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let args = Args::parse();
    let begun = Instant::now();
    let mut plans = plans();
    if let Some(only) = &args.only {
        plans.retain(|plan| {
            let name: Vec<&str> = plan.name.split_whitespace().collect();
            only.split_whitespace().all(|word| name.contains(&word))
        });
    }
    if plans.is_empty() {
        return Err("no row has all of these words".into());
    }
    let rows = play(plans, &args).await?;
    if args.write {
        let page = Path::new(PAGE);
        std::fs::write(page, page::markdown(&rows, &args, begun.elapsed()))?;
        eprintln!("wrote {}", page.display());
    }
    let missed = rows.iter().filter(|row| !row.missed().is_empty()).count();
    if missed > 0 {
        return Err(format!("{missed} of {} rows missed their bounds", rows.len()).into());
    }
    Ok(())
}

/// Plays them, so many at once, and returns them in their order.
async fn play(plans: Vec<Plan>, args: &Args) -> Result<Vec<Row>, Box<dyn Error + Send + Sync>> {
    let (places, mut playing) = (Arc::new(Semaphore::new(args.at_once.into())), JoinSet::new());
    for (at, plan) in plans.into_iter().enumerate() {
        let (places, seed) = (Arc::clone(&places), args.seed);
        playing.spawn(async move {
            let _place = places.acquire_owned().await?;
            match plan.play(seed).await {
                Ok(figures) => Ok((at, Row { plan, figures })),
                Err(error) => Err(Box::<dyn Error + Send + Sync>::from(format!("{}: {error}", plan.name))),
            }
        });
    }
    let mut rows = BTreeMap::new();
    while let Some(played) = playing.join_next().await {
        let (at, row) = played??;
        if args.verbose {
            row.figures.words.iter().for_each(|words| eprintln!("{words}"));
        }
        println!("{}", page::line(&row));
        rows.insert(at, row);
    }
    Ok(rows.into_values().collect())
}

impl Row {
    fn missed(&self) -> Vec<String> {
        self.plan.goals.iter().filter_map(|goal| goal.missed(&self.figures)).collect()
    }

    /// What it had to come to, and whether it did.
    pub(crate) fn verdict(&self) -> String {
        match (self.plan.goals.is_empty(), self.missed()) {
            (true, _) => "for comparison".to_owned(),
            (false, missed) if missed.is_empty() => "met".to_owned(),
            (false, missed) => format!("MISSED {}", missed.join(", ")),
        }
    }
}
