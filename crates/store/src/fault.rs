//! Fault points: named places at which a test can kill the process or make a commit fail.
//!
//! What a journal promises holds at every instant, so it has to be tried at every instant: just before a commit, just
//! after it, between a send and the writing of its outcome. A test names such a place in the environment and runs the
//! real program:
//!
//! ```text
//! TIDEGATE_FAULT_POINT=journal.accept.after        abort at the first passage
//! TIDEGATE_FAULT_POINT=journal.intend.before:17    abort at the 17th passage
//! TIDEGATE_FAULT_POINT=journal.record-ok=full:3    the third commit of that kind fails, and all after it
//! ```
//!
//! An abort runs no destructor and flushes nothing; for the file it is the same as SIGKILL. The failures are `full`
//! (disk full), `readonly` and `io`.
//!
//! | points | where |
//! | --- | --- |
//! | `journal.KIND.before`, `journal.KIND.after` | around the commit that holds a write of that kind |
//! | `journal.KIND=FAILURE`, `journal.commit=FAILURE` | instead of that commit, of any commit |
//! | `ledger.KIND.before`, `ledger.KIND.after`, `ledger.KIND=FAILURE` | the same of a gateway's ledger; its kinds are `intend`, `done`, `unknown`, `withdraw` |
//! | `outbox.KIND.before`, `outbox.KIND.after`, `outbox.KIND=FAILURE` | the same of a gateway's outbox; its kinds are `accept`, `intend`, `settle`, `remove`, `replay` |
//! | `bulk.sent`, `bulk.answered`, `bulk.page` | before an item's bytes leave, when its answer is here, when a page of results is in its file |
//! | `export.begun` | the files of an export are there, and nothing is in them |
//! | `export.page`, `export.progress` | a page's rows are in the file, and then its line is in the log |
//! | `export.manifest`, `export.whole` | the manifest is in place, and then the file is as well |
//!
//! The kinds of a journal are [`Kind`], the points outside of journals and ledgers [`PLACES`]. Both lists are whole: a commit
//! without a kind does not compile, a point that is not in the list panics where it is passed, and the kill tests fail
//! as long as one of them ends no process.
//!
//! Builds for users do not have them: without debug assertions or the feature `fault-points` both functions are empty.

use crate::error::ErrorKind;

/// The variable that names a point, in builds that have them.
pub const VARIABLE: Option<&str> =
    if cfg!(any(debug_assertions, feature = "fault-points")) { Some("TIDEGATE_FAULT_POINT") } else { None };

/// Makes the list of kinds, so that none can be left out of [`Kind::ALL`].
macro_rules! kinds {
    ($($(#[$about:meta])+ $kind:ident = $name:literal,)+) => {
        /// What a commit of a journal writes down, as its fault points tell it apart.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind {
            $($(#[$about])+ $kind,)+
        }

        impl Kind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$kind),+];

            /// Its fault points but for `.before` and `.after`.
            ///
            /// ```
            /// use tidegate_store::fault::Kind;
            ///
            /// assert_eq!(Kind::Accept.point(), "journal.accept");
            /// ```
            pub const fn point(self) -> &'static str {
                match self {
                    $(Self::$kind => concat!("journal.", $name)),+
                }
            }
        }
    };
}

kinds! {
    /// Items of the plan.
    Append = "append",
    /// The end of planning.
    Planned = "planned",
    /// That items are about to be sent.
    Intend = "intend",
    /// That items were done.
    RecordOk = "record-ok",
    /// That items were refused.
    RecordFailed = "record-failed",
    /// That nobody knows what became of items.
    RecordUnknown = "record-unknown",
    /// That items were not sent after all.
    RecordUnsent = "record-unsent",
    /// The job that an item was accepted as.
    Accept = "accept",
    /// What a look at a job has shown.
    Polled = "polled",
    /// A page of a job's results, or what it says of rows.
    Fetched = "fetched",
    /// An item that sends rows of another one again.
    Follow = "follow",
    /// Another body and key of an item.
    Amend = "amend",
    /// The end of a run before all of it was sent.
    Cancel = "cancel",
}

/// The points that are not around a commit.
pub const PLACES: [&str; 8] = [
    "bulk.sent",
    "bulk.answered",
    "bulk.page",
    "export.begun",
    "export.page",
    "export.progress",
    "export.manifest",
    "export.whole",
];

#[cfg(any(debug_assertions, feature = "fault-points"))]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use crate::error::ErrorKind;

    /// What is to happen, and where.
    #[derive(Debug)]
    pub(super) struct Plan {
        name: String,
        failure: Option<ErrorKind>,
        at: u64,
        passed: AtomicU64,
    }

    impl Plan {
        /// Reads `NAME[=FAILURE][:N]`.
        ///
        /// # Panics
        /// On anything else: a test that misspells its fault would prove nothing.
        pub(super) fn parse(text: &str) -> Self {
            let (place, at) = match text.rsplit_once(':') {
                Some((place, at)) => (place, at.parse().expect("TIDEGATE_FAULT_POINT ends in a number")),
                None => (text, 1),
            };
            let (name, failure) = match place.split_once('=') {
                None => (place, None),
                Some((name, "full")) => (name, Some(ErrorKind::DiskFull)),
                Some((name, "readonly")) => {
                    (name, Some(ErrorKind::ReadOnly("attempt to write a readonly database".to_owned())))
                }
                Some((name, "io")) => (name, Some(ErrorKind::Io("disk I/O error".to_owned()))),
                Some((_, other)) => panic!("TIDEGATE_FAULT_POINT: no failure is called `{other}`"),
            };
            Self { name: name.to_owned(), failure, at, passed: AtomicU64::new(0) }
        }

        /// Whether this passage is the one at which the process is to end.
        pub(super) fn ends_at(&self, name: &str) -> bool {
            self.failure.is_none()
                && self.name == name
                && self.passed.fetch_add(1, Ordering::Relaxed) + 1 == self.at
        }

        /// The failure of this passage. What has failed once goes on failing, as a full disk does.
        pub(super) fn failure_at(&self, name: &str) -> Option<ErrorKind> {
            let failure = self.failure.as_ref()?;
            let due = self.name == name && self.passed.fetch_add(1, Ordering::Relaxed) + 1 >= self.at;
            due.then(|| failure.clone())
        }
    }

    pub(super) fn plan() -> Option<&'static Plan> {
        static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
        let read = || std::env::var("TIDEGATE_FAULT_POINT").ok().map(|text| Plan::parse(&text));
        PLAN.get_or_init(read).as_ref()
    }
}

/// Passes the point `name`, at which the process ends if the environment says so.
///
/// # Panics
/// If nobody has heard of that point.
#[cfg(any(debug_assertions, feature = "fault-points"))]
pub fn point(name: &str) {
    let commit = ["journal.", "ledger.", "outbox."].iter().any(|file| name.starts_with(file));
    assert!(commit || PLACES.contains(&name), "the point `{name}` is in no list");
    if armed::plan().is_some_and(|plan| plan.ends_at(name)) {
        std::process::abort();
    }
}

/// Passes the point `name`; a build for users has none.
#[cfg(not(any(debug_assertions, feature = "fault-points")))]
pub const fn point(_name: &str) {}

/// Passes a commit called `name`, which fails if the environment says so.
#[cfg(any(debug_assertions, feature = "fault-points"))]
pub(crate) fn failing(name: &str) -> Result<(), ErrorKind> {
    armed::plan().and_then(|plan| plan.failure_at(name)).map_or(Ok(()), Err)
}

/// Passes a commit; in a build for users it does not fail here.
#[cfg(not(any(debug_assertions, feature = "fault-points")))]
#[expect(clippy::unnecessary_wraps, reason = "the armed form fails")]
pub(crate) const fn failing(_name: &str) -> Result<(), ErrorKind> {
    Ok(())
}

#[cfg(all(test, any(debug_assertions, feature = "fault-points")))]
mod tests {
    use super::armed::Plan;
    use crate::error::ErrorKind;

    #[test]
    fn a_process_ends_at_the_passage_that_was_named() {
        let plan = Plan::parse("journal.intend.before:3");
        let ends = ["journal.intend.before", "journal.intend.after", "journal.intend.before"];
        assert_eq!(ends.map(|name| plan.ends_at(name)), [false; 3]);
        assert!(plan.ends_at("journal.intend.before"));
        assert!(!plan.ends_at("journal.intend.before"), "it would not be there any more");
        assert_eq!(plan.failure_at("journal.intend.before"), None);
    }

    #[test]
    fn a_failure_lasts() {
        let plan = Plan::parse("journal.commit=full:2");
        let failures = [(); 3].map(|()| plan.failure_at("journal.commit"));
        assert_eq!(failures, [None, Some(ErrorKind::DiskFull), Some(ErrorKind::DiskFull)]);
        assert!(!plan.ends_at("journal.commit"));
    }

    #[test]
    #[should_panic(expected = "no failure is called `ful`")]
    fn a_misspelt_failure_is_refused() {
        Plan::parse("journal.commit=ful");
    }
}
