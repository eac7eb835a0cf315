//! Every fact worth telling an operator.
//!
//! The core returns events instead of logging, so that the same values feed logs, metrics, the dashboard and the
//! assertions of tests. An event holds names and numbers only: never a token, a secret or a body.

use std::fmt;
use std::time::Duration;

use crate::key::{CredentialId, Family};
use crate::pace::DriftSnapshot;
use crate::schedule::Class;
use crate::share::{Differing, OnStoreLoss};

/// How loudly an event is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Expected in normal work.
    Info,
    /// Worth one line in a log that is kept: it happens once, and a person may want to change it.
    Notice,
    /// Somebody should look at it: the quota or the upstream behaves unlike what was believed.
    Warn,
}

/// The states of a breaker. *Closed* is serving, as everywhere in this field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Serving.
    Closed,
    /// Refusing until its cool-down ends.
    Open,
    /// Letting one probe through.
    HalfOpen,
}

impl BreakerState {
    /// The state's name in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

/// A fact the core observed or decided.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A gate learnt its limit, or learnt that it changed.
    LimitLearnt {
        /// The limit's name.
        limit: String,
        /// Requests per window.
        quota: u64,
    },
    /// A limit turned out to be so small that a reserve which was set is cut to half of it.
    ReserveCut {
        /// The limit's name.
        limit: String,
        /// Requests per window.
        quota: u64,
        /// Whose reserve.
        class: Class,
        /// What it was set to. Left are `quota / 2`.
        reserve: u64,
    },
    /// The upstream answered "too fast", and the gate closed for everybody.
    Throttled {
        /// The family of the throttled attempt.
        family: Family,
        /// The limit whose gate closed.
        limit: String,
        /// For how long.
        closed_for: Duration,
    },
    /// `Retry-After` and the window's reset disagree. The later one is honoured.
    HintMismatch {
        /// The family of the answer.
        family: Family,
        /// The credential of the answer.
        credential: CredentialId,
        /// What `Retry-After` said.
        retry_after: Duration,
        /// What the reset said.
        reset: Duration,
        /// The 24 hours before, of this family and credential.
        baseline: DriftSnapshot,
    },
    /// Somebody else draws from the same quota.
    StrangersSeen {
        /// The limit they draw from.
        limit: String,
        /// Their estimated draw, requests per second.
        per_second: f64,
    },
    /// A breaker changed its state.
    Breaker {
        /// The family it guards.
        family: Family,
        /// The new state.
        state: BreakerState,
        /// Why, in a few words.
        cause: &'static str,
    },
    /// The upstream listed the limits it enforces.
    LimitsListed {
        /// Whose call asked.
        credential: CredentialId,
        /// Limits that are declared and take their numbers from the listing.
        used: usize,
        /// Limits that are listed and not declared, or pinned.
        unused: usize,
    },
    /// The upstream does not let a credential see its listing of limits, or has none. Nobody asks as it for a day.
    LimitsDenied {
        /// Whose call asked.
        credential: CredentialId,
        /// The answer's status.
        status: u16,
        /// What the answer says, such as the permission that is missing.
        why: Option<String>,
        /// It was so before.
        again: bool,
    },
    /// The listing of limits could not be asked for or read.
    LimitsUnread {
        /// Whose call asked.
        credential: CredentialId,
        /// Why, in a sentence.
        why: String,
        /// In how long it is tried again.
        again_in: Duration,
    },
    /// The store of the shared quota has not answered for so long that this process goes on by itself.
    StoreAway {
        /// Among how many processes the quota is divided.
        among: u32,
        /// The store has answered before, so they are as many as it told; otherwise as many as there can be.
        met: bool,
        /// What the process does.
        on_store_loss: OnStoreLoss,
        /// Which store, and why it does not answer; nothing where that was told before.
        why: Option<String>,
        /// Whoever started the process was told at its start, and it has not answered since.
        again: bool,
    },
    /// The store answers again.
    StoreBack {
        /// For how long this process went on by itself.
        away_for: Duration,
    },
    /// The store has forgotten what this process told it, all or the latest.
    StoreForgot,
    /// The store will not answer before somebody changes something.
    StoreUnusable {
        /// Which store, what is wrong with it, and what to do about it.
        why: String,
    },
    /// Another process declares another number than this one, and one of them holds for both.
    TermsDiffer {
        /// The limit's name.
        limit: String,
        /// Both numbers, and which holds.
        differing: Differing,
    },
    /// A window of the calendar has opened.
    WindowOpened {
        /// Its name.
        window: String,
        /// When it closes, by the clock of its zone.
        until: String,
        /// The classes that get nothing in it.
        holds: Vec<Class>,
        /// Per cent of every quota that are kept for a class.
        reserve: Vec<(Class, u8)>,
    },
    /// A window of the calendar has closed.
    WindowClosed {
        /// Its name.
        window: String,
    },
    /// A header field that should have said something about limits could not be read.
    HeaderIgnored {
        /// The field's name.
        field: String,
        /// Why it was ignored.
        why: &'static str,
    },
}

impl Event {
    /// How loudly to tell it: by consequence, not by rarity.
    pub const fn level(&self) -> Level {
        match self {
            Self::ReserveCut { .. }
            | Self::LimitsListed { .. }
            | Self::LimitsDenied { again: false, .. }
            | Self::WindowOpened { .. }
            | Self::WindowClosed { .. }
            | Self::StoreAway { again: true, .. }
            | Self::StoreBack { .. } => Level::Notice,
            Self::LimitLearnt { .. }
            | Self::Throttled { .. }
            | Self::LimitsDenied { .. }
            | Self::LimitsUnread { .. }
            | Self::HeaderIgnored { .. } => Level::Info,
            Self::HintMismatch { .. }
            | Self::StrangersSeen { .. }
            | Self::Breaker { .. }
            | Self::StoreAway { .. }
            | Self::StoreForgot
            | Self::StoreUnusable { .. }
            | Self::TermsDiffer { .. } => Level::Warn,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LimitLearnt { limit, quota } => write!(f, "limit {limit} allows {quota} per window"),
            Self::ReserveCut { limit, quota, class, reserve } => write!(
                f,
                "class {} leaves only {} of limit {limit}, half of its {quota} per window, instead of the {reserve} that are set",
                class.name(),
                quota / 2
            ),
            Self::Throttled { family, limit, closed_for } => {
                write!(f, "throttled on {family}: limit {limit} closed for {:.1} s", closed_for.as_secs_f64())
            }
            Self::HintMismatch { family, credential, retry_after, reset, baseline } => {
                write!(
                    f,
                    "on {family} (credential {credential}) Retry-After says {:.1} s and the reset {:.1} s: waiting for the later; ",
                    retry_after.as_secs_f64(),
                    reset.as_secs_f64()
                )?;
                let DriftSnapshot { throttles, disagreements, smallest_s, mean_s, largest_s, .. } = baseline;
                if *disagreements == 0 {
                    return write!(f, "in the 24 h before they agreed, in {throttles} throttles");
                }
                write!(
                    f,
                    "Retry-After less reset {:+.1} s, in the 24 h before {mean_s:+.1} s on average ({smallest_s:+.1} to {largest_s:+.1} s, {disagreements} of {throttles} throttles)",
                    retry_after.as_secs_f64() - reset.as_secs_f64()
                )
            }
            Self::StrangersSeen { limit, per_second } => {
                write!(f, "somebody else draws {per_second:.1} requests per second from limit {limit}")
            }
            Self::Breaker { family, state, cause } => {
                write!(f, "breaker of {family} is {}: {cause}", state.name())
            }
            Self::LimitsListed { credential, used, unused } => write!(
                f,
                "the upstream listed its limits to credential {credential}: {used} taken over, {unused} shown only"
            ),
            Self::LimitsDenied { credential, status, why, .. } => {
                write!(f, "credential {credential} may not read the upstream's limits ({status}")?;
                if let Some(why) = why {
                    write!(f, ": {why}")?;
                }
                f.write_str("): the declared ones hold")
            }
            Self::LimitsUnread { credential, why, again_in } => write!(
                f,
                "the upstream's limits could not be read as credential {credential}: {why}; again in {:.0} s",
                again_in.as_secs_f64()
            ),
            Self::StoreAway { among, met, on_store_loss, why, again: _ } => {
                f.write_str("the store of the shared quota is away: ")?;
                write_alone(f, *on_store_loss, *among, *met)?;
                why.as_ref().map_or(Ok(()), |why| write!(f, " ({why})"))
            }
            Self::StoreBack { away_for } => write!(
                f,
                "the store of the shared quota is back after {:.1} s on our own: permits come from it again",
                away_for.as_secs_f64()
            ),
            Self::StoreForgot => {
                write!(
                    f,
                    "the store of the shared quota has lost its latest state: it is told again what is known here"
                )
            }
            Self::StoreUnusable { why } => write!(f, "the shared quota cannot be used as it is: {why}"),
            Self::TermsDiffer { limit, differing } => {
                write!(f, "the processes that share limit {limit} declare it differently: {differing}")
            }
            Self::WindowOpened { window, until, holds, reserve } => {
                write!(f, "window \"{window}\" is open until {until}: ")?;
                let mut told = Vec::new();
                if !holds.is_empty() {
                    let names: Vec<&str> = holds.iter().copied().map(Class::name).collect();
                    told.push(format!("{} held", names.join(", ")));
                }
                let kept = reserve.iter();
                told.extend(
                    kept.map(|(class, part)| format!("{part} % of every quota kept for {}", class.name())),
                );
                f.write_str(&told.join(", "))
            }
            Self::WindowClosed { window } => write!(f, "window \"{window}\" is closed"),
            Self::HeaderIgnored { field, why } => write!(f, "header {field} ignored: {why}"),
        }
    }
}

/// What a process does without the store, among `among` processes. `met`: the store told it that there are as many.
fn write_alone(f: &mut fmt::Formatter<'_>, then: OnStoreLoss, among: u32, met: bool) -> fmt::Result {
    match then {
        OnStoreLoss::Share if met => write!(f, "this process keeps to its part, one of {among}"),
        OnStoreLoss::Share => write!(
            f,
            "this process keeps to its part, one of {among}, because it knows of no others yet: set quota.max_instances to \
             the number of your processes"
        ),
        OnStoreLoss::Closed => f.write_str("nothing leaves until it is back"),
        OnStoreLoss::Open => f.write_str("this process goes on as if there were no others"),
    }
}
