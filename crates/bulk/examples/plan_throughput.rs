//! Measures planning: rows per second from CSV into a journal, and the memory it took.
//!
//! `cargo run --release -p tidegate-bulk --example plan_throughput [ROWS] [contiguous|scattered|single]`
//!
//! `contiguous` is three rows per user side by side; `scattered` is the worst order, in which every request waits for
//! the end of the file; `single` is a row per user.

#![expect(clippy::print_stdout, reason = "printing numbers is what this program is for")]

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::time::Instant;

use tidegate_bulk::{Format, Lookups, Planner, Recipe, load};
use tidegate_core::time::Wall;
use tidegate_store::{Journal, RunHeader};
use uuid::Uuid;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let rows: u64 = arguments.next().map_or(Ok(1_000_000), |text| text.parse())?;
    let order = arguments.next().unwrap_or_else(|| "contiguous".to_owned());
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("input.csv");
    generate(&path, rows, &order)?;

    let recipe = Recipe::built_in("user-skills").ok_or("no such recipe")?;
    let planner = Planner::new(&recipe, Format::Csv, "input.csv");
    #[expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
    let started = Instant::now();
    let survey = planner.survey(File::open(&path)?)?;
    let surveyed = started.elapsed();
    planner.check(File::open(&path)?, &survey)?;
    let checked = started.elapsed();
    let journal = Journal::create(&folder.path().join("run.journal"), &RunHeader::default())?;
    let now = Wall::from_unix_millis(0);
    let summary = load(&planner, File::open(&path)?, &survey, &Lookups::default(), &journal, now, |it| {
        Uuid::from_u128(u128::from(it.seq))
    })?;
    journal.close()?;
    let loaded = started.elapsed();
    let load_time = loaded.saturating_sub(checked).as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a rate for a person to read")]
    let (items, rows) = (summary.requests as f64, summary.rows as f64);
    println!(
        "{order}: {rows} rows, {items} items; survey {:.2} s, check {:.2} s, plan and journal {load_time:.2} s",
        surveyed.as_secs_f64(),
        checked.saturating_sub(surveyed).as_secs_f64(),
    );
    println!("planned and journaled: {:.0} items/s, {:.0} rows/s", items / load_time, rows / load_time);
    println!("all three readings: {:.0} items/s; {}", items / loaded.as_secs_f64(), peak_memory());
    Ok(())
}

fn generate(path: &Path, rows: u64, order: &str) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    writeln!(file, "user_id,user_name,skill_id,proficiency")?;
    for row in 0..rows {
        let (user, skill) = match order {
            "scattered" => (row % (rows / 3), row / (rows / 3)),
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

/// The largest resident size of this process, where the system tells.
fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    line.map_or_else(|| "peak memory unknown here".to_owned(), |line| line.replace('\t', " "))
}
