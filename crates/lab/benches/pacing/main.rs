//! The table: how close Tidegate comes to the full quota, how often it exceeds it, and what that costs others.
//!
//! ```text
//! cargo xtask bench pacing                        everything, about a quarter of an hour
//! cargo xtask bench pacing --virtual              the grid and the special situations, in virtual time
//! cargo xtask bench pacing --sockets              the rows on real sockets, in real time; the last goes through the gateway
//! cargo xtask bench pacing --only "5s 20ms guide" rows whose name has all of these words
//! cargo xtask bench pacing --only ... --show      the scenarios of these rows, to be run with `tidegate lab run`
//! cargo xtask bench pacing --write                everything, and docs/bench/pacing.md from it
//! ```
//!
//! The goals stand in `goal.rs`. Each row is played at five phases of the server's window, its median is held against its goal, and
//! the worst phase stands beside it. The ideal is the lab's: the shortest time in which anybody could have done as much, with full
//! knowledge of the server.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark's result is what it prints")]

mod figure;
mod goal;
mod grid;
mod page;
mod play;
mod row;
mod special;
mod through;
mod wire;

use std::path::{Path, PathBuf};

use clap::Parser;
use tokio::time::Instant;

use crate::play::Play;
use crate::row::{Part, Plan};

/// Where the result of a full run is kept.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/bench/pacing.md");

/// The table of the pacing goals.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench pacing")]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
struct Args {
    /// Only what is played in virtual time.
    #[arg(long = "virtual", conflicts_with = "sockets")]
    in_virtual_time: bool,
    /// Only what is played on sockets.
    #[arg(long)]
    sockets: bool,
    /// Only rows whose name has all of these words.
    #[arg(long, value_name = "WORDS")]
    only: Option<String>,
    /// Print the scenarios of the rows instead of playing them.
    #[arg(long)]
    show: bool,
    /// Write all numbers as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write docs/bench/pacing.md.
    #[arg(long, conflicts_with_all = ["only", "in_virtual_time", "sockets", "show"])]
    write: bool,
    /// What cargo tells every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Args {
    fn wants(&self, plan: &Plan) -> bool {
        let on_sockets = matches!(plan.part, Part::Sockets | Part::Gateway);
        let part = !(self.in_virtual_time && on_sockets || self.sockets && !on_sockets);
        let words = self.only.iter().flat_map(|only| only.split_whitespace());
        let mut name = plan.name.split_whitespace().collect::<Vec<_>>();
        name.extend(plan.goals.iter().map(|goal| goal.id));
        part && words.into_iter().all(|word| name.contains(&word))
    }
}

#[tokio::main]
async fn main() -> Result<(), play::Failure> {
    let args = Args::parse();
    let begun = Instant::now();
    let mut plans = grid::plans();
    plans.extend(special::plans());
    plans.extend(wire::plans());
    plans.push(through::plan());
    plans.retain(|plan| args.wants(plan));
    if plans.is_empty() {
        return Err("no row has all of these words".into());
    }
    if args.show {
        for plan in plans.iter().filter(|plan| plan.part != Part::Gateway) {
            println!("# {}\n{}", plan.name, plan.scenario(0));
        }
        return Ok(());
    }
    let rows = Play::new(plans).all().await?;
    let took = begun.elapsed();
    println!("{}", page::text(&rows, took));
    if let Some(file) = &args.json {
        std::fs::write(file, format!("{:#}\n", serde_json::to_value(&rows)?))?;
    }
    if args.write {
        let page = Path::new(PAGE);
        std::fs::create_dir_all(page.parent().ok_or("the page lies in a folder")?)?;
        std::fs::write(page, page::markdown(&rows, took))?;
        eprintln!("wrote {}", page.display());
    }
    Ok(())
}
