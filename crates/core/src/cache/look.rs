//! What a cache is asked, and what it says.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request, response};

use super::list::Version;
use super::vary::Vary;
use super::wants::Wants;
use crate::schedule::{CallerId, Class};
use crate::time::{Mono, Wall};

/// How much a cache may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of all kept answers together.
    pub bytes: usize,
    /// Kept answers.
    pub entries: usize,
    /// Bytes of one answer; a larger one is shared with nobody.
    pub entry_bytes: usize,
}

impl Default for Bounds {
    /// 256 MiB in 100 000 answers of at most 1 MiB.
    fn default() -> Self {
        Self { bytes: 256 << 20, entries: 100_000, entry_bytes: 1 << 20 }
    }
}

/// Who reads, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub struct Reader {
    /// How urgent the read is. It does not wait in the line of what is less so.
    pub class: Class,
    /// Whose the read is. It does not wait in the line of another; `None` is one of them too.
    pub caller: Option<CallerId>,
    /// What its `Cache-Control` says.
    pub wants: Wants,
    /// Whether it brought conditions of its own (`If-None-Match` and the like).
    pub conditional: bool,
}

impl Reader {
    /// Reads the headers of a request.
    pub fn of(headers: &HeaderMap, class: Class) -> Self {
        let conditional =
            [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::IF_MATCH, header::IF_UNMODIFIED_SINCE];
        Self {
            class,
            caller: None,
            wants: Wants::read(headers),
            conditional: conditional.iter().any(|name| headers.contains_key(name)),
        }
    }

    /// The same read as that of `caller`.
    #[must_use]
    pub fn by(self, caller: CallerId) -> Self {
        Self { caller: Some(caller), ..self }
    }
}

/// An answer as it came, shared by all who get it.
#[derive(Debug)]
pub struct Kept<B> {
    /// Its status.
    pub status: StatusCode,
    /// Its headers, without an `Age`: see [`Kept::age`].
    pub headers: HeaderMap,
    /// Its body.
    pub body: B,
    /// How long the body is, in bytes.
    pub length: usize,
    /// When its request left.
    pub sent: Mono,
    pub(super) initial_age: Duration,
    /// The version of what it shows, where a [`ListRule`](super::ListRule) tells versions.
    pub(super) version: Option<Version>,
    pub(super) vary: Vary,
}

impl<B> Kept<B> {
    /// Whether it is an answer to `request` too, whose [`CacheKey`](super::CacheKey) is the same: it may depend on a header that is not part of
    /// the key, and says so in `Vary`.
    pub fn serves(&self, request: &request::Parts) -> bool {
        self.vary.fits(&request.headers)
    }

    /// How old it is: the time since its request left, and what other caches said.
    pub fn age(&self, now: Mono) -> Duration {
        now.since(self.sent) + self.initial_age
    }
}

/// The name of a flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlightId(pub(super) u64);

/// A call to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errand {
    /// What it lands as.
    pub flight: FlightId,
    /// As what it waits until it leaves.
    pub class: Class,
    /// What to put on the request, in place of what it has.
    pub conditions: Vec<(HeaderName, HeaderValue)>,
    /// When its answer is needed.
    pub by: Option<Mono>,
}

/// What to do about a read.
#[derive(Debug)]
pub enum Look<B> {
    /// Give this answer.
    Hit(Arc<Kept<B>>),
    /// Wait for this flight.
    Join(FlightId),
    /// Make this call, for the reader and whoever joins.
    Fetch(Errand),
    /// Say that nothing is kept (504, RFC 9111 section 5.2.1.7): the reader wants no call.
    Nothing,
}

/// What came back from a flight.
#[derive(Debug)]
pub struct Landing<'r, B> {
    /// The request, as its reader made it.
    pub request: &'r request::Parts,
    /// The head of the answer.
    pub response: response::Parts,
    /// Its body.
    pub body: B,
    /// How long the body is, in bytes.
    pub length: usize,
    /// When the attempt that was answered left.
    pub sent: Mono,
    /// The same instant on the wall.
    pub sent_wall: Wall,
    /// The version of what it shows ([`ListRule::version_of`](super::ListRule::version_of)), if it is known.
    pub version: Option<Version>,
    /// What it takes to keep what it takes to ask again, in bytes.
    pub ask_length: usize,
}

/// What a landing comes to.
#[derive(Debug)]
pub enum Landed<B> {
    /// The answer for everybody who waits, and whom it [serves](Kept::serves).
    Answer(Arc<Kept<B>>),
    /// An answer for the reader for whom it was asked, and nobody else: it sets a cookie, or depends on more than a cache can know.
    Own(Arc<Kept<B>>),
    /// "Not modified", but not of what we have: ask again, without conditions.
    Again(Errand),
}

/// What a cache did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Reads answered from the shelf.
    pub hits: u64,
    /// Reads that joined a flight.
    pub joins: u64,
    /// Flights for a reader.
    pub fetches: u64,
    /// Flights that renewed an answer before its time was over.
    pub renewals: u64,
    /// Lists that were asked in place of such flights.
    pub lists: u64,
    /// Answers that a list renewed.
    pub listed: u64,
    /// Answers that the upstream called unchanged (304).
    pub unchanged: u64,
    /// Answers that a write or an event closed.
    pub closed: u64,
    /// Answers thrown out for room.
    pub evicted: u64,
}
