//! Planning at size: a million rows from CSV into a journal, in three orders, held to its bounds.
//!
//! `cargo xtask bench planning [ROWS]`
//!
//! Time counts from the first byte read until the plan is on disk: the survey, the check, the plan with looked-up names, and
//! the plan into the journal, as a run does them. Each order is measured in a process of its own, because the memory that is
//! told is a process's largest. Ends with an error below 50,000 rows/s or above 200 MB.
//!
//! | order | rows |
//! | --- | --- |
//! | `contiguous` | three of a user side by side |
//! | `scattered` | the worst order: every request waits for the end of the file |
//! | `single` | one of each user: as many requests as rows |

#![expect(clippy::print_stdout, reason = "printing numbers is what this program is for")]

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use tidegate_bulk::{Format, Lookups, Planner, Recipe, load};
use tidegate_core::time::Wall;
use tidegate_store::{Journal, RunHeader};
use uuid::Uuid;

/// Rows per second, at least.
const LEAST_RATE: f64 = 50_000.0;

/// Kilobytes, at most.
const MOST_MEMORY: u64 = 200 * 1024;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    // `cargo bench` adds `--bench` to what it is given.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => all(1_000_000),
        ["one", order, rows] => one(order, rows.parse()?),
        [rows] => all(rows.parse()?),
        _ => Err("usage: cargo xtask bench planning [ROWS]".into()),
    }
}

fn all(rows: u64) -> Result<(), Failure> {
    let mut missed = Vec::new();
    for order in ["contiguous", "scattered", "single"] {
        let program = std::env::current_exe()?;
        if !Command::new(program).args(["one", order, &rows.to_string()]).status()?.success() {
            missed.push(order);
        }
    }
    if missed.is_empty() { Ok(()) } else { Err(format!("out of bounds: {}", missed.join(", ")).into()) }
}

fn one(order: &str, rows: u64) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("input.csv");
    generate(&path, rows, order)?;

    let recipe = Recipe::built_in("user-skills").ok_or("no such recipe")?;
    let planner = Planner::new(&recipe, Format::Csv, "input.csv");
    #[expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
    let started = Instant::now();
    let survey = planner.survey(File::open(&path)?)?;
    let surveyed = started.elapsed();
    planner.check(File::open(&path)?, &survey)?;
    let checked = started.elapsed();
    let lookups = Lookups::default();
    planner.plan(File::open(&path)?, &survey, &lookups, |_| Ok::<_, std::convert::Infallible>(()))?;
    let looked_up = started.elapsed();
    let journal = Journal::create(&folder.path().join("run.journal"), &RunHeader::default())?;
    let now = Wall::from_unix_millis(0);
    let summary = load(&planner, File::open(&path)?, &survey, &lookups, &journal, now, |it| {
        Uuid::from_u128(u128::from(it.seq))
    })?;
    journal.close()?;
    let took = started.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a rate for a person to read")]
    let rate = summary.rows as f64 / took;
    let memory = peak_memory();
    println!(
        "{order:<11} {} rows, {} requests: {took:.2} s = {rate:.0} rows/s (survey {:.2}, check {:.2}, plan {:.2}, journal {:.2}), {}",
        summary.rows,
        summary.requests,
        surveyed.as_secs_f64(),
        checked.saturating_sub(surveyed).as_secs_f64(),
        looked_up.saturating_sub(checked).as_secs_f64(),
        took - looked_up.as_secs_f64(),
        memory
            .map_or_else(|| "memory unknown here".to_owned(), |kilobytes| format!("{} MB", kilobytes / 1024)),
    );
    if rate < LEAST_RATE || memory.is_some_and(|kilobytes| kilobytes > MOST_MEMORY) {
        return Err(
            format!("{order}: bounds are {LEAST_RATE:.0} rows/s and {} MB", MOST_MEMORY / 1024).into()
        );
    }
    Ok(())
}

fn generate(path: &Path, rows: u64, order: &str) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    writeln!(file, "user_id,user_name,skill_id,proficiency")?;
    for row in 0..rows {
        let (user, skill) = match order {
            "scattered" => (row % (rows / 3).max(1), row / (rows / 3).max(1)),
            "single" => (row, 0),
            _ => (row / 3, row % 3),
        };
        let level = row % 5 + 1;
        writeln!(
            file,
            "00000000-0000-4000-8000-{user:012x},Agent {user},00000000-0000-4000-9000-{skill:012x},{level}"
        )?;
    }
    file.flush()
}

/// The largest resident size of this process in kilobytes, where the system tells.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
