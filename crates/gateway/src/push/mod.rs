//! Push instead of polling: what an upstream tells of its own accord, and who is told of it here.
//!
//! [`tidegate_core::push`] decides which channels are kept and what is subscribed on them; here its decisions are carried out. One task
//! per tenant asks it what to do ([`drive`]); openings and questions run in tasks of their own and report back, each socket has one
//! more. Under one lock, never held across an await, lies what is known: channels, topics, who wants them, and which paths
//! they tell about.
//!
//! An event closes what is kept of its path, and what was read of it is asked for again at once ([`Readers`](crate::readers)). Where
//! nothing was heard for a while, the paths of the topic stand on their own age again, and once it is subscribed to they are
//! asked for like after an event. Everybody who listens is told of both ([`feed`]).
//!
//! What others push to us comes in through [`hook`].

mod api;
mod config;
mod event;
mod feed;
mod hook;
mod paths;
mod socket;
mod sse;
mod tally;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use tidegate::Credential;
use tidegate_core::backoff::{Backoff, Kind as BackoffKind};
use tidegate_core::push::{
    AskId, Cause, ChannelId, Do, Follow, Keeper, News, Order, Pace, PushRules, Seen, Totals, Verdict, parts,
};
use tidegate_core::time::Mono;
use tokio::sync::{Notify, mpsc, watch};

pub use self::config::PushConfig;
pub use self::event::{EventSink, PushEvent};
use self::feed::Kind;
pub(crate) use self::feed::{Feed, Slow};
pub(crate) use self::hook::Hooks;
pub use self::hook::{Encoding, HookConfig, HookTemplate, Scheme, Signed};
use self::paths::Paths;
pub(crate) use self::paths::Told;
pub(crate) use self::sse::{EVENTS, listen};
use self::tally::Counts;
pub(crate) use self::tally::{CoveredReads, PushBody};
use crate::tenant::Tenant;

/// Topics of one question. A question that fails has to be asked again as a whole.
const BATCH: usize = 500;

/// For how long a topic that the upstream rejects is left alone: permissions are given by people.
const REJECTED: Duration = Duration::from_hours(1);

/// Events that are remembered to know duplicates by.
const REMEMBERED: usize = 10_000;

/// Pings that wait for a socket.
const PINGS: usize = 2;

/// Why push cannot be had for a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPush {
    /// The profile has no rules for it.
    #[error(
        "its profile has no [push]: no topic and no channel is known (remove [push], or choose another profile)"
    )]
    NoRules,
    /// There is nobody to subscribe as.
    #[error("it has no credential of its own to subscribe with (configure one, or remove [push])")]
    NoCredential,
}

/// Push of one tenant.
#[derive(Debug)]
pub(crate) struct Push {
    tenant: Arc<Tenant>,
    rules: Arc<PushRules>,
    follows: bool,
    feed: Arc<Feed>,
    state: Mutex<State>,
    /// There may be something to do.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    keeper: Keeper,
    follow: Follow,
    seen: Seen,
    /// Who wants a topic.
    holders: BTreeMap<Arc<str>, Holders>,
    paths: Paths,
    sockets: BTreeMap<ChannelId, Socket>,
    rejected: BTreeMap<Arc<str>, Arc<str>>,
    counts: Counts,
    totals: Totals,
    ended: bool,
}

#[derive(Debug)]
struct Socket {
    /// The upstream's name for its channel.
    channel: Arc<str>,
    /// Pings to send. Dropped, it closes the socket.
    pings: mpsc::Sender<()>,
}

/// Who wants a topic.
#[derive(Clone, Copy, Debug, Default)]
struct Holders {
    always: bool,
    followed: bool,
    listeners: usize,
}

impl Holders {
    fn any(self) -> bool {
        self.always || self.followed || self.listeners > 0
    }
}

/// A message of a socket.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    topic_name: Option<String>,
    #[serde(default)]
    event_body: Value,
    metadata: Option<Value>,
}

impl Push {
    /// Sets push up for a tenant whose configuration wants it.
    ///
    /// # Errors
    /// It cannot be had.
    pub(crate) fn new(
        tenant: &Arc<Tenant>,
        feed: &Arc<Feed>,
        config: &PushConfig,
    ) -> Result<Arc<Self>, NoPush> {
        let upstream = &tenant.upstream;
        let rules = upstream.profile().push.clone().ok_or(NoPush::NoRules)?;
        if !matches!(upstream.credential(), Credential::Managed(_)) {
            return Err(NoPush::NoCredential);
        }
        let backoff =
            Backoff::try_new(BackoffKind::Full, Duration::from_millis(500), Duration::from_secs(30));
        let pace = Pace {
            heartbeat: rules.heartbeat,
            silent: if config.silent == 0 { PushConfig::SILENT } else { config.silent },
            life: rules.life,
            channels: rules.max_channels,
            topics: rules.max_topics,
            batch: BATCH,
            backoff: backoff.expect("its numbers make sense together"),
            rejected: REJECTED,
        };
        let clock = upstream.clock();
        let state = State {
            keeper: Keeper::new(pace, clock.seed()),
            follow: Follow::new(config.follow.unwrap_or_default(), clock.seed()),
            seen: Seen::new(REMEMBERED),
            holders: BTreeMap::new(),
            paths: Paths::default(),
            sockets: BTreeMap::new(),
            rejected: BTreeMap::new(),
            counts: Counts::default(),
            totals: Totals::default(),
            ended: false,
        };
        let push = Arc::new(Self {
            tenant: Arc::clone(tenant),
            rules: Arc::new(rules),
            follows: config.follow.is_some(),
            feed: Arc::clone(feed),
            state: Mutex::new(state),
            changed: Notify::new(),
        });
        for topic in &config.topics {
            push.hold(topic, |holders| holders.always = true);
        }
        Ok(push)
    }

    fn now(&self) -> Mono {
        self.tenant.upstream.clock().now()
    }

    /// Somebody wants a topic. Whether there is room for it.
    fn hold(&self, topic: &Arc<str>, how: impl FnOnce(&mut Holders)) -> bool {
        let mut state = self.state.lock();
        if let Err(full) = state.keeper.want(topic) {
            state.counts.no_room += 1;
            tracing::warn!(target: "tidegate", %topic, "a topic is not subscribed to: {full}");
            return false;
        }
        for part in parts(topic) {
            let path = self.rules.path_of(&part);
            state.paths.tell(topic, part, path.as_deref());
        }
        how(state.holders.entry(Arc::clone(topic)).or_default());
        drop(state);
        self.changed.notify_one();
        true
    }

    /// Somebody wants a topic no more.
    fn release(&self, topic: &str, how: impl FnOnce(&mut Holders)) {
        let now = self.now();
        let mut state = self.state.lock();
        let Some(holders) = state.holders.get_mut(topic) else { return };
        how(holders);
        if !holders.any() {
            state.holders.remove(topic);
            state.rejected.remove(topic);
            state.keeper.unwant(topic, now);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// A path (as it was asked for) is read.
    pub(crate) fn read(&self, path: &str) {
        if !self.follows {
            return;
        }
        let Ok(path) = tidegate_core::key::normalise(path) else { return };
        let Some(topic) = self.rules.topic_of(&path) else { return };
        let now = self.now();
        if !self.state.lock().follow.read(&path, now) {
            return;
        }
        if !self.hold(&Arc::from(topic), |holders| holders.followed = true) {
            self.state.lock().follow.refuse(&path, now);
        }
    }

    /// Somebody listens to exactly these topics: they are wanted as long as the value lives.
    fn listened(self: &Arc<Self>, topics: impl Iterator<Item = Arc<str>>) -> Listened {
        let topics = topics.filter(|_| self.follows);
        let held = topics.filter(|topic| self.hold(topic, |holders| holders.listeners += 1));
        Listened { push: Arc::clone(self), topics: held.collect() }
    }

    /// Something was heard on a channel's socket.
    fn heard(&self, id: ChannelId) {
        let now = self.now();
        if self.state.lock().keeper.heard(id, now) {
            self.changed.notify_one();
        }
    }

    /// A channel's socket ended.
    fn lost(&self, id: ChannelId, cause: Cause) {
        let now = self.now();
        let mut state = self.state.lock();
        if state.ended {
            return;
        }
        state.sockets.remove(&id);
        state.keeper.lost(id, cause, now);
        drop(state);
        self.changed.notify_one();
    }

    /// A channel's socket brought a message.
    fn message(self: &Arc<Self>, id: ChannelId, text: &str) {
        self.heard(id);
        let Ok(message) = serde_json::from_str::<Message>(text) else {
            tracing::debug!(target: "tidegate", "a message that is no JSON came over a channel");
            return;
        };
        match message.topic_name.as_deref() {
            None | Some("channel.metadata") => {}
            Some("v2.system.socket_closing") => {
                let now = self.now();
                self.state.lock().keeper.closes(id, now);
                self.changed.notify_one();
            }
            Some(topic) => self.event(topic, &message),
        }
    }

    fn event(self: &Arc<Self>, topic: &str, message: &Message) {
        let body = &message.event_body;
        let text = Bytes::from(body.to_string());
        let name = message.metadata.as_ref().and_then(|metadata| metadata.pointer("/CorrelationId"));
        let order = self.rules.about(topic).flat_map(|rule| &rule.order);
        let order = order.filter_map(|pointer| body.pointer(pointer)).find_map(Order::read);
        let about = body.pointer("/id").and_then(Value::as_str).unwrap_or_default();
        let now = self.now();
        let paths: Vec<Arc<str>> = {
            let mut state = self.state.lock();
            let verdict = state.seen.judge(topic, about, name.and_then(Value::as_str), order, &text);
            state.counts.event(verdict);
            self.tenant.metrics.push_event("channel", word(verdict));
            if verdict == Verdict::Duplicate {
                return;
            }
            let mut paths = self.rules.path_of(topic).map(Arc::from).into_iter().collect::<Vec<_>>();
            let subscribed = state.paths.subscribed_as(topic);
            for carried in self.rules.about(topic).filter_map(|rule| rule.carried(topic, body)) {
                if state.keeper.covers(&subscribed) {
                    let told = state.paths.carry(&subscribed, &carried);
                    self.tenant.readers.covers(&told, now);
                }
                paths.push(Arc::from(carried));
            }
            // In the order in which they came, also where several sockets bring them.
            self.feed.publish(topic, text, Kind::Event { late: verdict == Verdict::Late });
            paths
        };
        for path in &paths {
            self.tenant.readers.event(&self.tenant, path);
        }
    }

    /// Carries out what the keeper says until `stop`.
    pub(crate) async fn drive(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        loop {
            let wake = self.step();
            let clock = self.tenant.upstream.clock();
            let sleep = async {
                match wake {
                    Some(wake) => tokio::time::sleep_until(clock.instant(wake)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep => {}
                () = self.changed.notified() => {}
                // An error means that the gateway is gone.
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        let mut state = self.state.lock();
        state.ended = true;
        state.sockets.clear();
    }

    /// Does what is to be done now; says when there is more.
    fn step(self: &Arc<Self>) -> Option<Mono> {
        let now = self.now();
        let idle = if self.follows { self.state.lock().follow.idle(now) } else { Vec::new() };
        for topic in idle.iter().filter_map(|path| self.rules.topic_of(path)) {
            self.release(&topic, |holders| holders.followed = false);
        }
        let (todo, filled, wake) = {
            let mut state = self.state.lock();
            let todo = state.keeper.poll(now);
            let news = state.keeper.news();
            let filled = self.hear(&mut state, news, now);
            let totals = state.keeper.totals();
            let before = std::mem::replace(&mut state.totals, totals);
            self.count(before, totals);
            let sweep = state.follow.wake().filter(|_| self.follows);
            (todo, filled, state.keeper.wake().into_iter().chain(sweep).min())
        };
        for path in &filled {
            self.tenant.readers.event(&self.tenant, path);
        }
        for todo in todo {
            self.carry_out(todo);
        }
        wake
    }

    /// Counts channels and topics as they are now.
    fn count(&self, before: Totals, now: Totals) {
        let metrics = &self.tenant.metrics;
        let waiting = |totals: Totals| totals.channels - totals.live;
        metrics.push_channels("open", difference(now.live, before.live));
        metrics.push_channels("waiting", difference(waiting(now), waiting(before)));
        let waiting = |totals: Totals| totals.wanted - totals.covered - totals.rejected;
        metrics.push_topics("covered", difference(now.covered, before.covered));
        metrics.push_topics("waiting", difference(waiting(now), waiting(before)));
        metrics.push_topics("rejected", difference(now.rejected, before.rejected));
    }

    /// Takes in what the keeper learnt. Gives the paths that are to be asked for because events about them were missed.
    fn hear(&self, state: &mut State, news: Vec<News>, now: Mono) -> Vec<Arc<str>> {
        let readers = &self.tenant.readers;
        let mut filled = Vec::new();
        for news in news {
            match news {
                News::Covered { topic, gap } => {
                    state.rejected.remove(&topic);
                    let paths = state.paths.told_by(&topic);
                    for path in &paths {
                        if gap.is_some() {
                            readers.uncover(path);
                        }
                        readers.cover(path, now);
                    }
                    let Some(gap) = gap else { continue };
                    state.counts.gaps += 1;
                    self.tenant.metrics.push_event("channel", "gap");
                    let (from, to) = (self.millis_ago(gap.from, now), self.millis_ago(gap.to, now));
                    // Who listens to one of several that are subscribed to as one has missed something too.
                    for part in parts(&topic) {
                        let told = json!({ "topic": part, "from": from, "to": to }).to_string();
                        self.feed.publish(&part, Bytes::from(told), Kind::Gap);
                    }
                    filled.extend(paths);
                }
                News::Uncovered { topic } => {
                    for path in state.paths.silence(&topic, state.holders.contains_key(&topic)) {
                        readers.uncover(&path);
                    }
                }
                News::Rejected { topic, why } => {
                    tracing::warn!(target: "tidegate", %topic, "the upstream rejects a topic: {why}");
                    state.rejected.insert(topic, why);
                }
                News::Lost { cause, .. } => {
                    tracing::info!(target: "tidegate", cause = cause.name(), "a notification channel was lost");
                    state.counts.losses += 1;
                    self.tenant.metrics.push_loss(cause.name());
                }
            }
        }
        filled
    }

    /// An instant in milliseconds since 1970.
    fn millis_ago(&self, at: Mono, now: Mono) -> i64 {
        let ago = i64::try_from(now.since(at).as_millis()).unwrap_or(i64::MAX);
        self.tenant.upstream.clock().wall().unix_millis().saturating_sub(ago)
    }

    fn carry_out(self: &Arc<Self>, todo: Do) {
        match todo {
            Do::Open(id) => drop(tokio::spawn(Arc::clone(self).open(id))),
            Do::Subscribe { channel, ask, topics, replace } => {
                drop(tokio::spawn(Arc::clone(self).subscribe(channel, ask, topics, replace)));
            }
            Do::Ping(id) => {
                // A socket whose line is full does not send, and is given up for its silence.
                if let Some(socket) = self.state.lock().sockets.get(&id)
                    && socket.pings.try_send(()).is_err()
                {
                    tracing::debug!(target: "tidegate", "a notification channel does not take a ping");
                }
            }
            Do::Close(id) => drop(self.state.lock().sockets.remove(&id)),
        }
    }

    async fn open(self: Arc<Self>, id: ChannelId) {
        let wall = self.tenant.upstream.clock().wall();
        let opened = async {
            let remote = api::create(&self.tenant.client, wall).await?;
            let socket = socket::connect(&remote.socket).await;
            let socket = socket.map_err(|error| format!("cannot connect to {}: {error}", remote.socket))?;
            Ok::<_, String>((remote, socket))
        };
        let opened = opened.await;
        let now = self.now();
        let mut state = self.state.lock();
        match opened {
            Ok(_) if state.ended => {}
            Ok((remote, socket)) => {
                let (pings, taken) = mpsc::channel(PINGS);
                let life = remote.life.map(|life| life.min(self.rules.life));
                state.sockets.insert(id, Socket { channel: Arc::from(remote.id), pings });
                state.counts.channels += 1;
                state.keeper.opened(id, life, now);
                tokio::spawn(socket::run(Arc::clone(&self), id, socket, taken));
            }
            Err(why) => {
                tracing::warn!(target: "tidegate", "a notification channel could not be opened: {why}");
                state.keeper.not_opened(id, Duration::ZERO, now);
            }
        }
        drop(state);
        self.changed.notify_one();
    }

    async fn subscribe(self: Arc<Self>, id: ChannelId, ask: AskId, topics: Vec<Arc<str>>, replace: bool) {
        let channel = self.state.lock().sockets.get(&id).map(|socket| Arc::clone(&socket.channel));
        // Its socket has ended, which is told by it.
        let Some(channel) = channel else { return };
        let answered = api::subscribe(&self.tenant.client, &channel, &topics, replace).await;
        let now = self.now();
        let mut state = self.state.lock();
        match answered {
            Ok(rejected) => state.keeper.subscribed(id, ask, &rejected, now),
            Err(why) => state.keeper.not_subscribed(id, ask, why, now),
        }
        drop(state);
        self.changed.notify_one();
    }

    /// What `/api/state` shows of it.
    pub(crate) fn body(&self) -> PushBody {
        let (subscribers, cut) = self.feed.listeners();
        let reads = self.tenant.readers.covered_reads();
        let state = self.state.lock();
        PushBody::of(state.keeper.totals(), &state.counts, &state.rejected, state.follow.followed(), reads)
            .with_listeners(subscribers, cut)
    }
}

/// Topics that are wanted because somebody listens to them.
#[derive(Debug)]
struct Listened {
    push: Arc<Push>,
    topics: Vec<Arc<str>>,
}

impl Drop for Listened {
    fn drop(&mut self) {
        for topic in &self.topics {
            self.push.release(topic, |holders| holders.listeners -= 1);
        }
    }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::New => "new",
        Verdict::Late => "late",
        Verdict::Duplicate => "duplicate",
    }
}

#[expect(clippy::cast_precision_loss, reason = "there are never so many that a double cannot count them")]
fn difference(now: usize, before: usize) -> f64 {
    now as f64 - before as f64
}
