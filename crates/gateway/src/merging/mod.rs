//! Merging writes: those to one entity that wait at the same time share a bulk call.
//!
//! What is merged, in which order it leaves and what each is told is decided by [`tidegate_core::merge`], under a lock that is never held across
//! an await. Here its decisions are carried out. A write asks for its [`Place`] when it arrives, before anything is
//! awaited, because arrival is what the order is about. It then stands alone ([`Turn`]) or has a [`Seat`] in a group, which one task
//! carries out ([`group`]). Each write keeps its own task, its own way out and its own outcome in [`once`](crate::once): who
//! hangs up before the group leaves is not in it, who hangs up later is followed to the end, and an identical write adopts what it left behind.

mod group;
mod told;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, IF_MATCH, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE,
};
use http::{HeaderMap, HeaderName, Method, Uri};
use parking_lot::Mutex;
use tidegate::CallOptions;
use tidegate::clock::Clock;
use tidegate_core::idempotency::digest;
use tidegate_core::key::normalise;
use tidegate_core::merge::{self, Bounds, EntryId, Join, MergeRule, Merger, Offer, SeatId, Tally};
use tidegate_core::time::Mono;
use tidegate_telemetry::TenantMetrics;
use tokio::sync::{Notify, oneshot};

pub(crate) use self::group::{ASK_AGAIN, Group};
pub(crate) use self::told::Told;
use crate::once::{Exit, Write, key};
use crate::tenant::Tenant;

/// How writes are merged, where they are.
#[derive(Clone, Debug, Default)]
pub struct MergeConfig {
    /// How long a write waits for others, and how much one call carries.
    pub bounds: Bounds,
    /// Rules of the profile that are not used, by name.
    pub off: Vec<String>,
    /// Further rules. One with the name of one of the profile's replaces it.
    pub rules: Vec<MergeRule>,
}

/// The merged writes of one tenant.
#[derive(Debug)]
pub(crate) struct Merging {
    rules: Vec<MergeRule>,
    /// The field by which a caller names its write: one that has a name is not merged.
    named_by: HeaderName,
    state: Mutex<State>,
    clock: Clock,
    metrics: TenantMetrics,
}

#[derive(Debug)]
struct State {
    merger: Merger<Holder>,
    /// Who carries an entry out, to be told that its turn may have come.
    wakes: HashMap<EntryId, Arc<Notify>>,
    fallbacks: u64,
}

/// Who waits for a write in a group.
#[derive(Debug)]
struct Holder {
    exit: Exit,
    /// The kind of single write.
    single: usize,
    tell: oneshot::Sender<Told>,
}

/// Where a write stands.
#[derive(Debug)]
pub(crate) enum Place {
    /// Nowhere: no rule concerns it.
    Free,
    /// Alone among writes that keep their order.
    Alone(Turn),
    /// In a group.
    In(Seat),
}

/// What makes the upstream answer otherwise, or makes a write one of its own: with it, it is not merged.
const OWN: [HeaderName; 9] = [
    IF_MATCH,
    IF_NONE_MATCH,
    IF_MODIFIED_SINCE,
    IF_UNMODIFIED_SINCE,
    IF_RANGE,
    RANGE,
    CONTENT_ENCODING,
    key::IDEMPOTENCY_KEY,
    HeaderName::from_static("prefer"),
];

/// What the writes of a group need not agree in: how the bytes travel, and the names of traces (W3C Trace Context, Baggage). The first
/// write's are sent.
const OF_NO_ACCOUNT: [HeaderName; 6] = [
    CONTENT_LENGTH,
    CONTENT_TYPE,
    ACCEPT_ENCODING,
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("baggage"),
];

impl Merging {
    /// The merging of a tenant whose profile has these rules; `None` where no rule is left.
    pub(crate) fn new(
        config: &MergeConfig,
        profile: &tidegate::Profile,
        clock: Clock,
        metrics: TenantMetrics,
    ) -> Option<Arc<Self>> {
        let replaced = |rule: &&MergeRule| config.rules.iter().any(|own| own.name == rule.name);
        let own = config.rules.iter();
        let rules: Vec<MergeRule> = own
            .chain(profile.merge.iter().filter(|rule| !replaced(rule)))
            .filter(|rule| !config.off.contains(&rule.name))
            .cloned()
            .collect();
        if rules.is_empty() {
            return None;
        }
        let merger = Merger::new(config.bounds);
        let state = Mutex::new(State { merger, wakes: HashMap::new(), fallbacks: 0 });
        let named_by = profile.idempotency.header.clone();
        Some(Arc::new(Self { rules, named_by, state, clock, metrics }))
    }

    /// What it did so far, how many writes were sent alone after a group, and how many groups and single writes have not ended.
    pub(crate) fn tally(&self) -> (Tally, u64, usize) {
        let state = self.state.lock();
        (state.merger.tally(), state.fallbacks, state.merger.entries())
    }

    /// The place of a write that arrives now.
    pub(crate) fn place(self: &Arc<Self>, tenant: &Arc<Tenant>, write: &Write, exit: &Exit) -> Place {
        let request = &write.request;
        let Some((lane, placed)) = self.lane(request.method(), request.uri(), &write.who()) else {
            return Place::Free;
        };
        let rule = &self.rules[placed.rule];
        let rows = placed.single.as_ref().filter(|_| self.is_plain(write)).and_then(|(single, named)| {
            let body = request.body().bytes()?;
            Some((*single, rule.rows(*single, named.as_deref(), body).ok()?))
        });
        let Some((single, rows)) = rows else { return Place::Alone(self.alone(&lane)) };
        let offer = Offer { rule: (placed.rule, rule.max), terms: terms(request.headers()), rows };
        let (tell, told) = oneshot::channel();
        let holder = Holder { exit: exit.clone(), single, tell };
        let now = self.clock.now();
        let mut state = self.state.lock();
        match state.merger.offer(&lane, offer, holder, now) {
            Join::Alone(entry, _) => Place::Alone(self.turn(&mut state, entry)),
            Join::Seated { group, seat, opened } => {
                if opened {
                    let wake = state.enter(group);
                    let group = Group::new(self, group, placed, write, now);
                    tokio::spawn(group.run(Arc::clone(tenant), wake));
                } else {
                    state.wake(group);
                }
                Place::In(Seat { merging: Arc::clone(self), group, place: seat, told })
            }
        }
    }

    /// The turn of a write whose body is not held.
    pub(crate) fn stream(self: &Arc<Self>, method: &Method, uri: &Uri, who: &str) -> Option<Turn> {
        let (lane, _) = self.lane(method, uri, who)?;
        Some(self.alone(&lane))
    }

    /// In which line a write stands: all of one entity by one caller, as one credential, in one class. Others were never ordered.
    fn lane(&self, method: &Method, uri: &Uri, who: &str) -> Option<(String, merge::Placed)> {
        let path = normalise(uri.path()).ok()?;
        let placed = merge::find(&self.rules, method, &path)?;
        let lane = format!("{}\n{}\n{who}", placed.rule, placed.into);
        // What a query means is not in any rule, so a write with one only keeps its place.
        let single = placed.single.filter(|_| uri.query().is_none_or(str::is_empty));
        Some((lane, merge::Placed { single, ..placed }))
    }

    fn alone(self: &Arc<Self>, lane: &str) -> Turn {
        let mut state = self.state.lock();
        let entry = state.merger.pass(lane);
        self.turn(&mut state, entry)
    }

    fn turn(self: &Arc<Self>, state: &mut State, entry: EntryId) -> Turn {
        let wake = state.enter(entry);
        Turn { held: Held { merging: Arc::clone(self), entry }, wake }
    }

    /// Whether a write is nothing but its row: no condition, no name of its own, no time by which it is needed.
    fn is_plain(&self, write: &Write) -> bool {
        let headers = write.request.headers();
        let media = headers.get(CONTENT_TYPE).map(|media| media.to_str().unwrap_or_default());
        let is_json = media.is_none_or(|media| {
            let (kind, _) = media.split_once(';').unwrap_or((media, ""));
            kind.trim().eq_ignore_ascii_case("application/json")
        });
        is_json
            && write.key.is_none()
            && write.options.deadline.is_none()
            && !headers.contains_key(&self.named_by)
            && !OWN.iter().any(|name| headers.contains_key(name))
    }
}

impl State {
    /// Something came behind or into a lane: whoever waits there looks again.
    fn enter(&mut self, entry: EntryId) -> Arc<Notify> {
        if let Some(before) = self.merger.before(entry) {
            self.wake(before);
        }
        Arc::clone(self.wakes.entry(entry).or_default())
    }

    fn wake(&self, entry: EntryId) {
        if let Some(wake) = self.wakes.get(&entry) {
            wake.notify_one();
        }
    }
}

/// A digest of the fields in which the writes of a group agree.
fn terms(headers: &HeaderMap) -> [u8; 32] {
    let mut fields: Vec<(&str, &[u8])> = headers
        .iter()
        .filter(|(name, _)| !OF_NO_ACCOUNT.contains(name))
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect();
    fields.sort_by_key(|(name, _)| *name);
    let parts: Vec<&[u8]> = fields.iter().flat_map(|(name, value)| [name.as_bytes(), *value]).collect();
    digest("tidegate merge terms 1", &parts)
}

/// An entry on its way: while this lives, what stands behind it waits.
#[derive(Debug)]
pub(crate) struct Held {
    merging: Arc<Merging>,
    entry: EntryId,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.merging.state.lock();
        state.wakes.remove(&self.entry);
        if let Some(next) = state.merger.end(self.entry) {
            state.wake(next);
        }
    }
}

/// The place of a write that stands alone. Dropped when the write has ended.
#[derive(Debug)]
pub(crate) struct Turn {
    held: Held,
    wake: Arc<Notify>,
}

impl Turn {
    /// Waits until what came before has ended, and takes that time off what `options` allow. False if it takes longer than they do.
    pub(crate) async fn come(&self, options: &mut CallOptions) -> bool {
        let merging = &self.held.merging;
        let began = merging.clock.now();
        let patience = options.max_wait.into_iter().chain(options.deadline).min();
        let came = async {
            while merging.look(self.held.entry) != merge::Turn::Now {
                self.wake.notified().await;
            }
        };
        let in_time = tokio::time::timeout(patience.unwrap_or(Duration::MAX), came).await.is_ok();
        let waited = merging.clock.now() - began;
        for left in [&mut options.max_wait, &mut options.deadline].into_iter().flatten() {
            *left = left.saturating_sub(waited);
        }
        in_time
    }
}

impl Merging {
    fn look(&self, entry: EntryId) -> merge::Turn {
        let now = self.clock.now();
        self.state.lock().merger.turn(entry, now)
    }

    fn fell_back(&self, rule: usize) {
        self.state.lock().fallbacks += 1;
        self.metrics.fell_back(&self.rules[rule].name);
    }
}

/// A write's place in a group. Dropped before the group leaves, as by a caller that hangs up, it is not in it.
#[derive(Debug)]
pub(crate) struct Seat {
    merging: Arc<Merging>,
    group: EntryId,
    place: SeatId,
    told: oneshot::Receiver<Told>,
}

impl Seat {
    /// What became of the write; `None` if whoever carried the group out failed.
    pub(crate) async fn told(&mut self) -> Option<Told> {
        (&mut self.told).await.ok()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.merging.state.lock();
        if state.merger.leave(self.group, self.place) {
            state.wake(self.group);
        }
    }
}

/// How long is left of `whole` since `began`.
fn left_of(whole: Option<Duration>, began: Mono, now: Mono) -> Option<Duration> {
    whole.map(|whole| whole.saturating_sub(now - began))
}
