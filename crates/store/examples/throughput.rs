//! Measures the journal: items planned, intended and finished per second, and what one commit per item would cost.
//!
//! `cargo run --release -p tidegate-store --example throughput [ITEMS] [FOLDER]`

#![expect(clippy::print_stdout, reason = "printing numbers is what this program is for")]

use std::path::PathBuf;
use std::time::Instant;

use tidegate_core::time::Wall;
use tidegate_store::{Change, Event, Journal, NewItem, Outcome, RunHeader};
use uuid::Uuid;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let items: u64 = arguments.next().map_or(Ok(200_000), |text| text.parse())?;
    let folder = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = tempfile::tempdir_in(folder)?;
    let now = Wall::from_unix_millis(1_700_000_000_000);
    let journal = Journal::create(&folder.path().join("run.journal"), &RunHeader::default())?;

    measure("planned and journaled", items, || {
        for first in (1..=items).step_by(2_000) {
            journal.append_blocking((first..(first + 2_000).min(items + 1)).map(item).collect())?;
        }
        journal.finish_planning_blocking(now)
    })?;
    measure("intended and finished, 200 at a time", items, || {
        for first in (1..=items).step_by(200) {
            let seqs: Vec<_> = (first..(first + 200).min(items + 1)).collect();
            let changes = seqs.iter().map(|&seq| done(seq)).collect();
            journal.intend_blocking(seqs, now)?;
            journal.record_blocking(changes, now)?;
        }
        Ok(())
    })?;
    journal.close()?;

    let journal = Journal::create(&folder.path().join("single.journal"), &RunHeader::default())?;
    measure("planned with a commit per item", 500, || {
        (1..=500).try_for_each(|seq| journal.append_blocking(vec![item(seq)]))
    })?;
    Ok(())
}

fn measure(
    what: &str,
    items: u64,
    work: impl FnOnce() -> Result<(), tidegate_store::Error>,
) -> Result<(), tidegate_store::Error> {
    #[expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
    let started = Instant::now();
    work()?;
    let seconds = started.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a rate for a person to read")]
    let rate = items as f64 / seconds;
    println!("{what}: {items} items in {seconds:.2} s = {rate:.0} items/s");
    Ok(())
}

fn item(seq: u64) -> NewItem {
    NewItem {
        seq,
        id: format!("00000000-0000-4000-8000-{seq:012x}"),
        method: "PATCH".to_owned(),
        target: format!("/api/v2/users/00000000-0000-4000-8000-{seq:012x}/routingskills/bulk"),
        body: Some(
            format!(r#"[{{"id":"00000000-0000-4000-8000-{seq:012x}","proficiency":3}}]"#)
                .repeat(3)
                .into_bytes(),
        ),
        key: Uuid::from_u128(u128::from(seq)),
        transaction: Uuid::from_u128(u128::from(seq) << 32),
        lines: vec![seq * 3, seq * 3 + 1, seq * 3 + 2],
    }
}

fn done(seq: u64) -> Change {
    Change {
        seq,
        event: Event::Succeed,
        outcome: Outcome { attempts: 1, http_status: Some(200), error: None },
    }
}
