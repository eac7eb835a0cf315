//! Something that the real program does, ended again and again.
//!
//! The moments come from a seed: so many steps further, and some milliseconds later. Between them stand the fault points,
//! at which the program ends itself just before or just after a record of one kind is on disk.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::{Ran, Running, ran};

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

/// What is ended, and looked at each time.
pub(crate) trait Victim {
    /// The command that begins it or goes on with it, whichever a user would be told to.
    fn command(&self) -> Command;

    /// How many steps are left, by what it has written down itself.
    fn left(&self) -> u64;

    /// A number that grows by one with each step.
    fn progress(&self) -> u64;

    /// Compares what it has written down with what the simulator knows.
    fn look(&self, end: &End, seen: &mut Seen);
}

/// How often something is to be ended, and where.
pub(crate) struct Campaign<'a> {
    pub(crate) victim: &'a dyn Victim,
    pub(crate) kills: usize,
    /// Steps that are kept for the time after the last kill: what one launch may do beyond the step it is to be killed at.
    pub(crate) reserve: u64,
    /// How long a launch may live without the progress that it is to be killed at.
    pub(crate) patience: Duration,
    /// Points that are passed before the first step, in their order.
    pub(crate) first: Vec<&'a str>,
    /// Points among the steps, each passed once.
    pub(crate) points: Vec<&'a str>,
    /// Points that are passed after the last step, in their order.
    pub(crate) last: Vec<&'a str>,
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

impl Seen {
    /// Lets `command` end itself at `point`.
    #[track_caller]
    pub(crate) fn at_point(&mut self, mut command: Command, point: &str) {
        command.env("TIDEGATE_FAULT_POINT", point);
        let ran = ran(command);
        assert_eq!(ran.code, None, "{point} was not reached: {ran:#?}");
        self.points += 1;
    }

    /// Kills a process if it has not ended yet.
    pub(crate) fn kill(&mut self, mut process: Running) -> Ran {
        if process.is_running() {
            process.signal("KILL");
        }
        let ran = process.end();
        self.kills += usize::from(ran.code.is_none());
        ran
    }
}

impl Campaign<'_> {
    /// Runs it to its end, after one kill or fault point after another.
    pub(crate) fn carry_out(&self) -> Seen {
        let mut rng = fastrand::Rng::with_seed(self.seed ^ 0x6b69_6c6c);
        let point = |point: &&str| End::Point((*point).to_owned());
        // The points stand among the first half of the kills: what they wait for must still be to come.
        let early = self.kills / 2;
        let mut mixed: Vec<End> = self.points.iter().map(point).collect();
        mixed.extend((0..early).map(|_| End::Kill));
        rng.shuffle(&mut mixed);
        let late = (early..self.kills).map(|_| End::Kill);
        let first = self.first.iter().map(point);
        let ends: Vec<End> = first.chain(mixed).chain(late).chain(self.last.iter().map(point)).collect();
        let begun = Instant::now();
        let mut seen = Seen::default();
        for (number, end) in ends.iter().enumerate() {
            assert!(begun.elapsed() < BOUND, "ended {number} of {} times in ten minutes", ends.len());
            let left = u64::try_from(ends.len() - number).unwrap();
            self.launch(end, left, &mut rng, &mut seen);
            self.victim.look(end, &mut seen);
        }
        seen.last = Some(ran(self.victim.command()));
        seen
    }

    fn launch(&self, end: &End, left: u64, rng: &mut fastrand::Rng, seen: &mut Seen) {
        let before = self.victim.progress();
        // Half of an even pace, since what is in flight is done as well.
        let step = rng.u64(0..=self.victim.left().saturating_sub(self.reserve) / left);
        let command = self.victim.command();
        match end {
            End::Point(point) => seen.at_point(command, point),
            End::Kill => {
                let mut process = start(command);
                let spawned = Instant::now();
                let pause = Duration::from_millis(rng.u64(0..=15));
                // Some die before they have sent anything.
                let patience = self.patience.mul_f64(rng.f64());
                while self.victim.progress() < before + step
                    && spawned.elapsed() < patience
                    && process.is_running()
                {
                    std::thread::sleep(Duration::from_millis(1));
                }
                std::thread::sleep(pause);
                let ran = seen.kill(process);
                assert!(ran.code.is_none(), "it ended before all kills, give it more to do: {ran:#?}");
            }
        }
    }
}

/// A command that runs beside the test.
pub(crate) fn start(mut command: Command) -> Running {
    Running::new(command.spawn().unwrap())
}
