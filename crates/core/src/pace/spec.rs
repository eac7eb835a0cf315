//! What a bank is told at its start.

use std::sync::Arc;
use std::time::Duration;

use http::Method;

use crate::breaker::BreakerConfig;
use crate::calendar::Calendar;
use crate::glob::PathGlob;
use crate::pace::policy::ClassPolicy;
use crate::schedule::Class;

/// A declared limit.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitSpec {
    /// Its name, as in 429 bodies, logs and metrics.
    pub key: String,
    /// Other names the upstream has for it, in 429 bodies, headers and its listing. Where a listing has several of its
    /// names, the key goes before them, and they before each other.
    pub aliases: Vec<String>,
    /// The method it counts; all if `None`.
    pub method: Option<Method>,
    /// The paths it counts.
    pub path: PathGlob,
    /// What it counts.
    pub kind: LimitKind,
    /// What has a count of its own. Empty: one count for the tenant.
    pub per: Vec<Partition>,
    /// Keep the declared number whatever headers say.
    pub pin: bool,
    /// A profile's number: what is usual, until an operator or the upstream says what this tenant has. Where the quota is shared,
    /// it holds for nobody who knows better.
    pub assumed: bool,
    /// Which readings of a response describe this limit.
    pub observes: Observes,
}

/// Which readings describe a declared limit. A reading that describes none belongs to an implicit limit of the
/// request's family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Observes {
    /// None, unless a reading has the limit's own key as its name.
    #[default]
    OwnName,
    /// Readings without a name.
    Unnamed,
    /// Readings of this name.
    Named(String),
}

impl LimitSpec {
    /// Whether the limit applies to a request. `path` is normalised; a query is of no account.
    ///
    /// ```
    /// use http::Method;
    /// use tidegate_core::profile::Profile;
    ///
    /// let github = Profile::builtin("github").unwrap();
    /// let search = github.limits.iter().find(|limit| limit.key == "search").unwrap();
    /// assert!(search.matches(&Method::GET, "/search/issues?q=x"));
    /// assert!(!search.matches(&Method::GET, "/repos"));
    /// ```
    pub fn matches(&self, method: &Method, path: &str) -> bool {
        self.method.as_ref().is_none_or(|own| own == method) && self.path.matches(path)
    }

    /// The place of a name among those of the limit: 0 for its key; `None` if it has no such name.
    pub fn rank_of(&self, name: &str) -> Option<usize> {
        self.names().position(|own| own == name)
    }

    /// Its key and its aliases.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.key).chain(&self.aliases).map(String::as_str)
    }

    /// Whether a reading with this name describes the limit.
    pub fn observes(&self, reading: Option<&str>) -> bool {
        match (&self.observes, reading) {
            (Observes::Unnamed, None) => true,
            (Observes::Named(name), Some(reading)) => name == reading,
            (_, Some(reading)) => self.rank_of(reading).is_some(),
            (_, None) => false,
        }
    }
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitKind {
    /// Attempts per window.
    Rate {
        /// How many.
        quota: u64,
        /// In which time.
        window: Duration,
    },
    /// Attempts in flight.
    Concurrent {
        /// How many.
        cap: u32,
    },
}

/// What has a count of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partition {
    /// Each token lineage.
    Token,
    /// Each credential.
    Credential,
    /// The tenant, which is the whole bank.
    Tenant,
    /// Each resource family.
    Family,
}

impl Partition {
    /// Every partition with its name in profiles.
    pub const NAMES: [(&'static str, Self); 4] = [
        ("token", Self::Token),
        ("credential", Self::Credential),
        ("tenant", Self::Tenant),
        ("family", Self::Family),
    ];
}

/// The numbers of a bank.
#[derive(Clone, Debug)]
pub struct BankConfig {
    /// Declared limits; at most [`BankConfig::MAX_LIMITS`].
    pub limits: Vec<LimitSpec>,
    /// Waiters at once; each is a parked call with its body in memory, so the bound is a bound on memory.
    pub queue_bound: usize,
    /// Families with gates of their own; the others share one.
    pub max_families: usize,
    /// The breakers' numbers.
    pub breaker: BreakerConfig,
    /// Chance added to a closing, and the time over which a refill is released.
    pub spread: Duration,
    /// What each class leaves to more important ones and to strangers, by [`Class::ALL`].
    pub policies: [ClassPolicy; Class::COUNT],
    /// A class that waits for a limit and got none of its permits for so long, while other classes did, gets the next one
    /// whatever its policy says: below the 14 s after which callers of the gateway give up, so that every class is seen to be served.
    pub patience: Duration,
    /// Whether a bank that begins without a stored state takes declared quotas for spent, as a process before it may have
    /// spent them: of windows up to [`Kept::LOST`](crate::pace::Kept::LOST) all, of longer ones four times what they give in
    /// that time.
    pub assume_spent: bool,
    /// Seed of the chance.
    pub seed: u64,
    /// Windows in which classes are held or something is kept for them; they count from the first
    /// [`Bank::tell_time`](crate::pace::Bank::tell_time) on.
    pub calendar: Arc<Calendar>,
    /// Decides when this process begins again after a window, within its stagger.
    pub stagger_seed: u64,
}

impl BankConfig {
    /// Limits a bank can hold: which of them apply to a call is one word of bits.
    pub const MAX_LIMITS: usize = 128;
}

impl Default for BankConfig {
    fn default() -> Self {
        Self {
            limits: Vec::new(),
            queue_bound: 10_000,
            max_families: 1024,
            breaker: BreakerConfig::default(),
            spread: Duration::from_millis(100),
            policies: Class::ALL.map(ClassPolicy::of),
            patience: Duration::from_secs(10),
            assume_spent: false,
            seed: 0,
            calendar: Arc::default(),
            stagger_seed: 0,
        }
    }
}

/// A configuration no bank can be made of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecProblem {
    /// More limits than a bank can hold.
    #[error("{0} limits are declared, at most {max} can be (merge some)", max = BankConfig::MAX_LIMITS)]
    TooMany(usize),
    /// A limit nothing could ever pass.
    #[error("limit `{0}`: quota, window and cap must be above zero")]
    Zero(String),
    /// Two limits of one name.
    #[error("limit `{0}` is declared twice (429 bodies name limits by their key)")]
    Twice(String),
}

impl BankConfig {
    /// Every problem, at once.
    pub(super) fn problems(&self) -> Vec<SpecProblem> {
        let mut problems = Vec::new();
        if self.limits.len() > Self::MAX_LIMITS {
            problems.push(SpecProblem::TooMany(self.limits.len()));
        }
        for (index, limit) in self.limits.iter().enumerate() {
            let zero = match limit.kind {
                LimitKind::Rate { quota, window } => quota == 0 || window.is_zero(),
                LimitKind::Concurrent { cap } => cap == 0,
            };
            if zero {
                problems.push(SpecProblem::Zero(limit.key.clone()));
            }
            let taken = |name: &&str| self.limits[..index].iter().any(|other| other.rank_of(name).is_some());
            let twice = |name: &&str| limit.names().filter(|own| own == name).count() > 1;
            if let Some(name) = limit.names().find(|name| taken(name) || twice(name)) {
                problems.push(SpecProblem::Twice(name.to_owned()));
            }
        }
        problems
    }
}
