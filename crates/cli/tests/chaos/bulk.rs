//! A bulk run as what is killed, and what its journal says each time.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidegate_sim::Witness;
use tidegate_sim::model::ledger::{WriteAttempt, WriteBook};
use tidegate_sim::model::route::Caller;
use tidegate_sim::wire::message::ApiRequest;
use tidegate_store::{Reader, State};

use crate::common::World;
use crate::kill::{End, Seen, Victim};

/// Writes in flight at once, at most.
pub(crate) const CONCURRENCY: usize = 8;

/// What was answered so long before the process made its last call has been written down. It takes some milliseconds; the
/// first look at a job is a second after its acceptance.
const HEARD: Duration = Duration::from_millis(800);

/// When the simulator decided its latest call: by its clock, so that a harness that is held up takes nothing for older than it is.
#[derive(Debug, Default)]
struct Latest(AtomicU64);

impl Witness for Latest {
    fn stranger(&self, _at: Duration, _caller: &Caller, _admitted: bool) {}

    fn decided(&self, at: Duration, _id: u64, _request: &ApiRequest, _status: Option<u16>) {
        self.0.store(u64::try_from(at.as_millis()).unwrap(), Ordering::Relaxed);
    }

    fn departed(&self, _at: Duration, _id: u64) {}
}

/// A world, and a run in it.
pub(crate) struct Bulk {
    pub(crate) world: World,
    latest: Arc<Latest>,
    /// What follows `tidegate bulk run`.
    run: Vec<String>,
    /// How many items the plan has.
    items: u64,
}

/// What the simulator knows, by key; the writes that carry none (deletions) by path.
pub(crate) fn books(world: &World) -> BTreeMap<String, WriteBook> {
    let named = |book: WriteBook| (book.id.clone().unwrap_or_else(|| book.path.clone()), book);
    world.sim.writes().into_iter().map(named).collect()
}

/// Whether an attempt may have been executed: it was not refused.
pub(crate) fn has_left(attempt: &WriteAttempt) -> bool {
    !matches!(attempt.status, Some(401 | 429 | 503))
}

/// Whether nobody can tell from the answer to an attempt what became of it.
pub(crate) fn is_silent(attempt: &WriteAttempt) -> bool {
    matches!(attempt.fault.as_deref(), Some("drop-before" | "drop-after" | "timeout-after" | "late"))
}

impl Bulk {
    /// A run that is yet to be told what it does.
    pub(crate) fn new(sim: &str) -> Self {
        let latest = Arc::new(Latest::default());
        Self { world: World::watched(sim, Arc::clone(&latest) as _), latest, run: Vec::new(), items: 0 }
    }

    /// Applies `text`, which becomes so many `items`.
    pub(crate) fn apply(&mut self, input: &str, text: &str, items: usize, recipe: &str, profile: &str) {
        self.world.write(input, text);
        self.run = [input, "--recipe", recipe, "--profile", profile].map(str::to_owned).to_vec();
        self.items = items as u64;
    }

    /// The journal's name: it lies beside the input.
    pub(crate) fn journal(&self) -> String {
        format!("{}.journal", self.run[0])
    }

    pub(crate) fn reader(&self) -> Option<Reader> {
        Reader::open(&self.world.path(&self.journal())).ok()
    }

    /// The items that may have been executed without the journal knowing it.
    pub(crate) fn in_doubt(&self) -> BTreeSet<String> {
        let pending = self.reader().map(|reader| reader.pending(0, u32::MAX).unwrap()).unwrap_or_default();
        pending.into_iter().filter(|it| it.maybe_executed).map(|it| it.item.request.id).collect()
    }
}

impl Victim for Bulk {
    /// `run`, where there is no plan yet; else `resume`, as its message tells a user.
    fn command(&self) -> Command {
        let planned = self.reader().map(|reader| reader.run().unwrap().planned.is_some());
        if planned == Some(false) {
            std::fs::remove_file(self.world.path(&self.journal())).unwrap();
        }
        let mut command = if planned == Some(true) {
            self.world.bulk(&["resume", "--journal", &self.journal()])
        } else {
            self.world.bulk_run(&self.run.iter().map(String::as_str).collect::<Vec<_>>())
        };
        command.args(["--concurrency", &CONCURRENCY.to_string(), "--quiet", "--output", "out.csv"]);
        command
    }

    fn left(&self) -> u64 {
        let planned = self.reader().filter(|reader| reader.run().unwrap().planned.is_some());
        planned.map_or(self.items, |reader| reader.counts().unwrap().pending())
    }

    fn progress(&self) -> u64 {
        self.world.writes()
    }

    fn look(&self, end: &End, seen: &mut Seen) {
        let Some(reader) = self.reader() else { return };
        let books = books(&self.world);
        // Commits are made in their order, so at a point of the journal what was heard before is in it.
        let at_commit = matches!(end, End::Point(point) if point.starts_with("journal."));
        let last = Duration::from_millis(self.latest.0.load(Ordering::Relaxed)).as_secs_f64();
        let heard = |attempt: &WriteAttempt| {
            let done = matches!(attempt.status, Some(200..=299)) && attempt.fault.is_none();
            done && attempt.at + HEARD.as_secs_f64() < last
        };
        let mut cut = BTreeSet::new();
        for pending in reader.pending(0, u32::MAX).unwrap() {
            let item = &pending.item.request;
            let book = books.get(&item.key.to_string()).or_else(|| books.get(&item.target));
            let attempts = book.map(|book| book.attempts.as_slice()).unwrap_or_default();
            if pending.maybe_executed {
                cut.insert(item.id.clone());
                if at_commit && !seen.cut.contains(&item.id) && attempts.last().is_some_and(heard) {
                    let what = "was answered long before the process ended, and the journal does not know";
                    seen.problems.push(format!("{} {what} ({end:?} at {last:.3}): {book:?}", item.id));
                }
            }
            if pending.item.state == State::Planned && attempts.iter().any(has_left) {
                seen.problems.push(format!("{} is `planned` and has left: {book:?}", item.id));
            }
        }
        let new = cut.difference(&seen.cut).count();
        if new > CONCURRENCY {
            seen.problems
                .push(format!("{new} writes are in doubt, and no more than {CONCURRENCY} were under way"));
        }
        seen.cut.extend(cut);
    }
}
