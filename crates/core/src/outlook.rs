//! When a job will be finished: the pacing itself, played forward.
//!
//! A formula of its own would be a second opinion. So an [`Outlook`] is made by a [`Bank`] with the limits and the calendar of
//! the configuration, in a world where every call is answered at once and nobody else draws. It is therefore the earliest end: calls of other
//! classes, strangers and slow answers come on top, and what a window keeps for others counts as used by them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::Method;

use crate::calendar::{Calendar, after};
use crate::key::{CredentialId, Family};
use crate::observe::Observation;
use crate::pace::{
    Answer, AnswerKind, Ask, Asked, Bank, BankConfig, CallerId, Class, LimitKind, LimitSpec, SpecProblem,
    TicketId, TokenSlot, WaiterId, Woken,
};
use crate::time::{Mono, Wall};

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Job<'a> {
    /// How many calls.
    pub calls: u64,
    /// Their class.
    pub class: Class,
    /// Their method.
    pub method: &'a Method,
    /// Their path, which decides what limits apply.
    pub path: &'a str,
    /// When it begins.
    pub start: Wall,
}

/// When it will be done.
#[derive(Clone, Debug, PartialEq)]
pub struct Outlook {
    /// When its first call leaves.
    pub first: Wall,
    /// When its last call has left.
    pub end: Wall,
    /// Calls done by when, ascending; some hundreds of points, from the start to the end.
    pub curve: Vec<(Wall, u64)>,
    /// Windows of the calendar from the start to the end.
    pub windows: Vec<Met>,
    /// The limits that the job waits for, with how many calls each made wait; who makes wait most comes first.
    pub waits: Vec<(Arc<str>, u64)>,
}

/// A window that the job meets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Met {
    /// Its name.
    pub name: String,
    /// When it opens.
    pub from: Wall,
    /// When it closes.
    pub until: Wall,
    /// When the job goes on after it, if it holds the job's class.
    pub released: Option<Wall>,
    /// Per cent of every quota that it keeps from the job's class.
    pub kept: u8,
}

/// A job nobody can tell the end of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoOutlook {
    /// No limit that is declared bounds the rate of these calls.
    #[error(
        "no declared limit counts {0} {1}, so nothing is known of how fast it may go (declare one under [[limit]], or name another path)"
    )]
    NoLimit(Method, String),
    /// The limits or the calendar leave the job nothing for as long as one can look ahead.
    #[error("it would take longer than {} days: {done} of {calls} calls are done by then (see what the windows keep or hold)", Outlook::HORIZON.as_secs() / (24 * 3600))]
    NeverEnds {
        /// Calls done by then.
        done: u64,
        /// Of how many.
        calls: u64,
    },
    /// A declared limit cannot be used.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Limits(Vec<SpecProblem>),
}

impl Outlook {
    /// Points of the curve, roughly.
    const POINTS: u64 = 200;
    /// Calls that wait at once: enough for every permit to find somebody.
    const WAITING: usize = 16;
    /// Windows that are told.
    const WINDOWS: usize = 500;
    /// A job that takes longer has no end that is worth telling.
    pub const HORIZON: Duration = Duration::from_hours(366 * 24);
    /// Calls of a job; each is played.
    pub const MAX_CALLS: u64 = 10_000_000;

    /// Plays a job.
    ///
    /// ```
    /// use http::Method;
    /// use tidegate_core::outlook::{Job, Outlook};
    /// use tidegate_core::pace::{BankConfig, Class};
    /// use tidegate_core::profile::Profile;
    /// use tidegate_core::time::Wall;
    ///
    /// let limits = Profile::builtin("genesys").unwrap().limits;
    /// let start = Wall::from_unix_millis(0);
    /// let job = Job { calls: 3000, class: Class::Bulk, method: &Method::PATCH, path: "/api/v2/users/7", start };
    /// let outlook = Outlook::of(&job, BankConfig { limits, ..BankConfig::default() }).unwrap();
    /// let minutes = outlook.end.since(start).unwrap().as_secs() / 60;
    /// assert_eq!(minutes, 9, "300 at once and then 300 per minute");
    /// ```
    ///
    /// # Errors
    /// See [`NoOutlook`].
    pub fn of(job: &Job<'_>, config: BankConfig) -> Result<Self, NoOutlook> {
        let bounds = |limit: &LimitSpec| {
            matches!(limit.kind, LimitKind::Rate { .. }) && limit.matches(job.method, job.path)
        };
        if !config.limits.iter().any(bounds) {
            return Err(NoOutlook::NoLimit(job.method.clone(), job.path.to_owned()));
        }
        let (calendar, seed) = (Arc::clone(&config.calendar), config.stagger_seed);
        let bank = Bank::new(config).map_err(NoOutlook::Limits)?;
        let mut play = Play::new(job, bank);
        play.run()?;
        let Play { curve, first, waits, now, .. } = play;
        let end = after(job.start, now - Mono::ZERO);
        let mut waits: Vec<(Arc<str>, u64)> = waits.into_iter().collect();
        waits.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        Ok(Self { first, end, curve, windows: met(&calendar, job, end, seed), waits })
    }
}

/// The windows from the start of a job to its end.
fn met(calendar: &Calendar, job: &Job<'_>, end: Wall, seed: u64) -> Vec<Met> {
    let until = after(end, Duration::from_millis(1));
    let all = calendar.between(job.start, until, Outlook::WINDOWS).into_iter();
    all.map(|found| {
        let window = &calendar.windows()[found.window];
        let others = Class::ALL.into_iter().filter(|&class| class != job.class);
        Met {
            name: window.name.clone(),
            from: found.from,
            until: found.until,
            released: window.hold[job.class.index()].then(|| window.released(found.from, seed)),
            kept: others.map(|class| window.reserve[class.index()]).fold(0, u8::saturating_add),
        }
    })
    .collect()
}

/// A job on its way.
struct Play<'j> {
    job: &'j Job<'j>,
    family: Family,
    credential: CredentialId,
    bank: Bank,
    now: Mono,
    /// When the last call left.
    last: Mono,
    done: u64,
    waiting: usize,
    first: Wall,
    curve: Vec<(Wall, u64)>,
    waits: BTreeMap<Arc<str>, u64>,
    woken: Vec<(WaiterId, Woken)>,
}

impl<'j> Play<'j> {
    fn new(job: &'j Job<'j>, mut bank: Bank) -> Self {
        bank.tell_time(Mono::ZERO, job.start);
        Self {
            job,
            family: Family::of(job.path),
            credential: CredentialId::new("job"),
            bank,
            now: Mono::ZERO,
            last: Mono::ZERO,
            done: 0,
            waiting: 0,
            first: job.start,
            curve: vec![(job.start, 0)],
            waits: BTreeMap::new(),
            woken: Vec::new(),
        }
    }

    fn run(&mut self) -> Result<(), NoOutlook> {
        let calls = self.job.calls;
        loop {
            self.ask();
            self.bank.advance(self.now, &mut self.woken);
            for (_, woken) in std::mem::take(&mut self.woken) {
                self.waiting -= 1;
                if let Woken::Granted(ticket) = woken {
                    let limit = self.bank.ticket_limit(ticket);
                    *self.waits.entry(limit).or_default() += 1;
                    self.leaves(ticket);
                }
            }
            self.bank.drain_events();
            let all_left = self.waiting == 0;
            if self.done >= calls {
                self.mark(self.now, calls);
                return Ok(());
            }
            if all_left {
                // Others ask in their place.
                continue;
            }
            match self.bank.next_wake(self.now) {
                Some(wake) if wake - Mono::ZERO <= Outlook::HORIZON => self.now = self.now.max(wake),
                _ => return Err(NoOutlook::NeverEnds { done: self.done, calls }),
            }
        }
    }

    /// As many ask as are kept waiting.
    fn ask(&mut self) {
        while self.waiting < Outlook::WAITING && self.done + self.waiting as u64 <= self.job.calls {
            let asked = self.bank.ask(
                self.now,
                &Ask {
                    method: self.job.method,
                    path: self.job.path,
                    family: &self.family,
                    credential: &self.credential,
                    token: TokenSlot(0),
                    class: self.job.class,
                    caller: CallerId::ANYBODY,
                    deadline: None,
                    give_up_at: None,
                },
            );
            match asked {
                Asked::Granted(ticket) => self.leaves(ticket),
                Asked::Queued(_) => self.waiting += 1,
                Asked::Refused(_) => return,
            }
            if self.done >= self.job.calls {
                return;
            }
        }
    }

    /// A call leaves, and is answered at once.
    fn leaves(&mut self, ticket: TicketId) {
        self.bank.sent(self.now, ticket);
        let observation = Observation::default();
        self.bank.answered(
            self.now,
            ticket,
            &Answer { kind: AnswerKind::Accepted, observation: &observation },
        );
        if self.done >= self.job.calls {
            return;
        }
        if self.done == 0 {
            self.first = after(self.job.start, self.now - Mono::ZERO);
        }
        // Both ends of a wait that can be seen are points, and some between.
        let gap = self.now - self.last;
        if gap > (self.now - Mono::ZERO) / 100 && gap >= Duration::from_secs(1) {
            self.mark(self.last, self.done);
            self.mark(self.now, self.done);
        }
        self.done += 1;
        self.last = self.now;
        if self.done.is_multiple_of((self.job.calls / Outlook::POINTS).max(1)) {
            self.mark(self.now, self.done);
        }
    }

    fn mark(&mut self, at: Mono, done: u64) {
        let point = (after(self.job.start, at - Mono::ZERO), done);
        if self.curve.last() != Some(&point) {
            self.curve.push(point);
        }
    }
}
