//! Durable state of Tidegate in one SQLite file: the journal of a bulk run.
//!
//! A bulk run writes to somebody else's system, so the one question that matters after a crash is "was this item
//! sent?". The journal answers it by one rule: the *intent* to send an item is on disk before its first byte leaves,
//! and its *outcome* is written when it is known. Whatever happens in between (`kill -9`, a power cut, a full disk),
//! an item is then either untouched, finished, or known to be in doubt; never silently lost and never sent twice by
//! accident.
//!
//! | module | holds |
//! | --- | --- |
//! | [`state`] | the life of an item, folded by one function |
//! | [`record`] | what is stored: run header, items, outcomes, counts |
//! | [`journal`] | the one writer: a thread that commits many callers' writes together |
//! | [`reader`] | counts, pages and exports, also while another process writes |
//! | [`format`](mod@format) | the file: schema, version, who may read and who may write it |
//! | [`ledger`] | another file: the keyed writes of a gateway's callers |
//! | [`outbox`] | another file: what a gateway was given to send later |
//! | [`error`] | what can go wrong, in words that say what to do |
//! | [`fault`] | places at which a test can end the process or fail a commit |
//!
//! ```
//! use tidegate_core::time::Wall;
//! use tidegate_store::{Change, Event, Journal, NewItem, Outcome, RunHeader};
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("run.journal");
//! # let header = RunHeader { recipe: "requests".into(), ..RunHeader::default() };
//! let now = Wall::from_unix_millis(1_700_000_000_000);
//! let journal = Journal::create(&path, &header)?;
//! journal.append_blocking(vec![NewItem { seq: 2, id: "u1".into(), ..NewItem::default() }])?;
//! journal.finish_planning_blocking(now)?;
//!
//! journal.intend_blocking(vec![2], now)?; // on disk: now it may be sent
//! let outcome = Outcome { attempts: 1, http_status: Some(200), error: None };
//! journal.record_blocking(vec![Change { seq: 2, event: Event::Succeed, outcome }], now)?;
//! assert_eq!(journal.reader()?.counts()?.ok, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![expect(clippy::doc_markdown, reason = "SQLite is a name, not an identifier")]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a panic is how a test fails"))]

pub mod error;
pub mod fault;
pub mod format;
mod guard;
mod jobs;
pub mod journal;
pub mod ledger;
mod lock;
pub mod outbox;
pub mod reader;
pub mod record;
mod sort;
pub mod state;
mod wal;
mod writer;

pub use error::{Error, ErrorKind};
pub use journal::Journal;
pub use lock::Held;
pub use reader::Reader;
pub use record::{
    Accepted, Change, Counts, Digest, Item, ItemResult, Job, NewItem, Outcome, Page, Part, PartCounts,
    PartState, Pending, Run, RunHeader, Step,
};
pub use state::{Event, Illegal, State, next_state};
