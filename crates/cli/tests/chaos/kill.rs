//! A run of the real program that is killed again and again, and what the journal says each time.
//!
//! The moments come from a seed: so many writes further, and some milliseconds later. Between them stand the fault points,
//! at which the program ends itself just before or just after a record of one kind is on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tidegate_sim::model::ledger::WriteBook;
use tidegate_store::{Reader, State};

use crate::common::{Ran, Running, World, ran};

/// Writes in flight at once, at most.
pub(crate) const CONCURRENCY: usize = 8;

/// How long a whole campaign may take.
const BOUND: Duration = Duration::from_mins(10);

/// What ends one launch of the program.
#[derive(Clone, Debug)]
pub(crate) enum End {
    /// SIGKILL, at a moment of this harness's choice.
    Kill,
    /// The program ends itself at this point.
    Point(String),
}

/// What the simulator knows, by key; the writes that carry none (deletions) by path.
pub(crate) fn books(world: &World) -> BTreeMap<String, WriteBook> {
    let named = |book: WriteBook| (book.id.clone().unwrap_or_else(|| book.path.clone()), book);
    world.sim.writes().into_iter().map(named).collect()
}

/// What one run is, and how often it is to be ended.
pub(crate) struct Campaign<'a> {
    pub(crate) world: &'a World,
    /// What follows `tidegate bulk run`.
    pub(crate) run: Vec<&'a str>,
    /// The input's name; its journal lies beside it.
    pub(crate) input: &'a str,
    /// How many writes the simulator will have executed in the end, about.
    pub(crate) writes: u64,
    pub(crate) kills: usize,
    /// How long a launch may live without the progress that it is to be killed at.
    pub(crate) patience: Duration,
    /// Each is passed once; those of planning come first.
    pub(crate) points: Vec<&'a str>,
    pub(crate) seed: u64,
}

/// What was seen on the way.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Items that were under way when a process ended: nobody was left to hear their answers.
    pub(crate) cut: BTreeSet<String>,
    pub(crate) kills: usize,
    /// Fault points that were passed.
    pub(crate) points: usize,
    /// What was wrong at the moment of a kill.
    pub(crate) problems: Vec<String>,
    /// The last command, which ran to its end.
    pub(crate) last: Option<Ran>,
}

impl Campaign<'_> {
    /// Runs it to its end, and at least one kill or fault point after another.
    pub(crate) fn carry_out(&self) -> Seen {
        let mut rng = fastrand::Rng::with_seed(self.seed ^ 0x6b69_6c6c);
        let (planning, others): (Vec<&str>, Vec<&str>) = self
            .points
            .iter()
            .partition(|point| point.starts_with("journal.append") || point.starts_with("journal.planned"));
        let point = |point: &&str| End::Point((*point).to_owned());
        // The points stand among the first half of the kills: what they wait for must still be to come.
        let early = self.kills / 2;
        let mut mixed: Vec<End> = others.iter().map(point).collect();
        mixed.extend((0..early).map(|_| End::Kill));
        rng.shuffle(&mut mixed);
        let late = (early..self.kills).map(|_| End::Kill);
        let ends: Vec<End> = planning.iter().map(point).chain(mixed).chain(late).collect();
        let begun = Instant::now();
        let mut seen = Seen::default();
        for (number, end) in ends.iter().enumerate() {
            assert!(begun.elapsed() < BOUND, "ended {number} of {} times in ten minutes", ends.len());
            let left = u64::try_from(ends.len() - number).unwrap();
            self.launch(end, left, &mut rng, &mut seen);
        }
        assert_eq!(seen.kills, self.kills, "the run ended before all kills: give it more writes");
        seen.last = Some(ran(self.command()));
        seen
    }

    /// `run`, where there is no plan yet; else `resume`, as its message tells a user.
    fn command(&self) -> std::process::Command {
        let journal = self.world.path(&format!("{}.journal", self.input));
        let planned = Reader::open(&journal).ok().map(|reader| reader.run().unwrap().planned.is_some());
        if planned == Some(false) {
            std::fs::remove_file(&journal).unwrap();
        }
        let concurrency = CONCURRENCY.to_string();
        let ends = ["--concurrency", &concurrency, "--quiet", "--output", "out.csv"];
        if planned == Some(true) {
            let journal = format!("{}.journal", self.input);
            let mut command = self.world.bulk(&["resume", "--journal", &journal]);
            command.args(ends);
            command
        } else {
            let mut command = self.world.bulk_run(&self.run);
            command.args(ends);
            command
        }
    }

    fn launch(&self, end: &End, left: u64, rng: &mut fastrand::Rng, seen: &mut Seen) {
        let before = self.world.writes();
        // Half of an even pace, since what is in flight is executed as well.
        let step = rng.u64(0..=self.writes.saturating_sub(before) / left);
        let mut command = self.command();
        match end {
            End::Point(point) => {
                command.env("TIDEGATE_FAULT_POINT", point);
                let ran = ran(command);
                assert_eq!(ran.code, None, "{point} was not reached: {ran:#?}");
                seen.points += 1;
            }
            End::Kill => {
                let mut process = Running::new(command.spawn().unwrap());
                let spawned = Instant::now();
                let pause = Duration::from_millis(rng.u64(0..=15));
                // Some die before they have sent anything.
                let patience = self.patience.mul_f64(rng.f64());
                while self.world.writes() < before + step
                    && spawned.elapsed() < patience
                    && process.is_running()
                {
                    std::thread::sleep(Duration::from_millis(1));
                }
                std::thread::sleep(pause);
                if process.is_running() {
                    process.signal("KILL");
                }
                let ran = process.end();
                seen.kills += usize::from(ran.code.is_none());
                assert!(ran.code.is_none(), "the run ended before all kills: {ran:#?}");
            }
        }
        self.look(seen);
    }

    /// Compares what the journal says now with what the simulator knows.
    fn look(&self, seen: &mut Seen) {
        let Ok(reader) = Reader::open(&self.world.path(&format!("{}.journal", self.input))) else { return };
        let books = books(self.world);
        let mut cut = BTreeSet::new();
        for pending in reader.pending(0, u32::MAX).unwrap() {
            let item = &pending.item.request;
            if pending.maybe_executed {
                cut.insert(item.id.clone());
            }
            let Some(book) = books.get(&item.key.to_string()).or_else(|| books.get(&item.target)) else {
                continue;
            };
            // A refused attempt was not executed, so its item may be as if never sent.
            let refused = |status: Option<u16>| matches!(status, Some(401 | 429 | 503));
            let left = book.attempts.iter().any(|attempt| !refused(attempt.status));
            if pending.item.state == State::Planned && left {
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
