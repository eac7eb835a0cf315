//! The events of one tenant on their way to those who listen: a bounded memory for who comes back, and a bounded line for each.
//!
//! A listener that does not read must cost nothing but itself: its line has room for [`LINE`] events, and when that is full the listener is
//! cut off, which ends its connection. It comes back with the last id it has seen and is given what it missed, or told that
//! some of it is gone.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tidegate::clock::Clock;
use tidegate_core::push::TopicPattern;
use tidegate_telemetry::TenantMetrics;
use tokio::sync::{Notify, mpsc};

use super::event::{EventSink, PushEvent};

/// Events that are remembered for listeners that come back, of each tenant.
const MEMORY: usize = 1024;

/// The bytes of those events, at most.
const MEMORY_BYTES: usize = 8 << 20;

/// Events that wait for one listener. A channel that was away tells of a gap for each of its topics at once.
const LINE: usize = 4096;

/// Listeners of one tenant.
const MAX_LISTENERS: usize = 1000;

/// What a topic is called under which gaps are told to sinks, before the topic that has one.
pub(crate) const GAP: &str = "tidegate.gap.";

/// What a listener is told.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) event: Arc<PushEvent>,
    pub(crate) number: u64,
    pub(crate) kind: Kind,
}

/// What kind of thing that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An event; whether a later one about the same thing was told before.
    Event { late: bool },
    /// Events about a topic may have been missed.
    Gap,
}

/// The events of one tenant.
#[derive(Debug)]
pub(crate) struct Feed {
    tenant: Arc<str>,
    /// Names this run, so that an id of an earlier one is known as such.
    run: String,
    clock: Clock,
    sinks: Arc<[Arc<dyn EventSink>]>,
    metrics: TenantMetrics,
    state: Mutex<State>,
    cut: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    memory: VecDeque<Told>,
    bytes: usize,
    last: u64,
    listeners: Vec<Listener>,
    next: u64,
}

#[derive(Debug)]
struct Listener {
    number: u64,
    patterns: Vec<TopicPattern>,
    line: mpsc::Sender<Told>,
    slow: Arc<Slow>,
}

/// Tells a connection that its listener was too slow.
#[derive(Debug, Default)]
pub(crate) struct Slow {
    is: AtomicBool,
    told: Notify,
}

impl Slow {
    fn tell(&self) {
        self.is.store(true, Ordering::Release);
        self.told.notify_one();
    }

    fn is(&self) -> bool {
        self.is.load(Ordering::Acquire)
    }

    /// Ends when the listener was cut off.
    pub(crate) async fn told(&self) {
        while !self.is() {
            self.told.notified().await;
        }
    }
}

/// Somebody who listens. Dropped, it does no more.
#[derive(Debug)]
pub(crate) struct Ear {
    feed: Arc<Feed>,
    number: u64,
    /// What it is told first: what it missed.
    pub(crate) missed: VecDeque<Told>,
    /// Whether more was missed than is remembered.
    pub(crate) gap: bool,
    pub(crate) line: mpsc::Receiver<Told>,
    slow: Arc<Slow>,
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.feed.state.lock().listeners.retain(|listener| listener.number != self.number);
        if !self.slow.is() {
            self.feed.metrics.push_listener("left");
        }
    }
}

impl Feed {
    pub(crate) fn new(
        tenant: Arc<str>,
        clock: Clock,
        sinks: Arc<[Arc<dyn EventSink>]>,
        metrics: TenantMetrics,
    ) -> Arc<Self> {
        let run = format!("{:016x}", clock.seed());
        Arc::new(Self { tenant, run, clock, sinks, metrics, state: Mutex::default(), cut: AtomicU64::new(0) })
    }

    /// Tells everybody who listens of something about `topic`.
    pub(crate) fn publish(&self, topic: &str, body: Bytes, kind: Kind) {
        let mut state = self.state.lock();
        state.last += 1;
        let number = state.last;
        let named: Arc<str> = match kind {
            Kind::Event { .. } => Arc::from(topic),
            Kind::Gap => Arc::from(format!("{GAP}{topic}")),
        };
        let event = Arc::new(PushEvent {
            tenant: Arc::clone(&self.tenant),
            topic: named,
            id: Arc::from(self.id(number)),
            at: self.clock.wall(),
            body,
        });
        let told = Told { event, number, kind };
        state.tell(&told, topic, |_| {
            self.cut.fetch_add(1, Ordering::Relaxed);
            self.metrics.push_listener("cut");
        });
        state.remember(told.clone());
        // In the order of their numbers, as for listeners.
        for sink in &*self.sinks {
            sink.offer(&told.event);
        }
    }

    /// The id by which an event is asked for.
    pub(crate) fn id(&self, number: u64) -> String {
        format!("{}-{number}", self.run)
    }

    /// Begins to listen, behind the event with the id `last` if there is one. `None`: there are too many who do.
    pub(crate) fn listen(
        self: &Arc<Self>,
        patterns: Vec<TopicPattern>,
        last: Option<&str>,
        slow: Arc<Slow>,
    ) -> Option<Ear> {
        let mut state = self.state.lock();
        if state.listeners.len() >= MAX_LISTENERS {
            return None;
        }
        let seen = last.map(|last| {
            let number = last.strip_prefix(&self.run).and_then(|rest| rest.strip_prefix('-'));
            number.and_then(|number| number.parse::<u64>().ok())
        });
        let (missed, gap) = match seen {
            None => (VecDeque::new(), false),
            Some(None) => (VecDeque::new(), true),
            Some(Some(seen)) => {
                let oldest = state.memory.front().map_or(state.last + 1, |told| told.number);
                let is_its =
                    |told: &&Told| told.number > seen && patterns.iter().any(|it| it.matches(topic_of(told)));
                let missed = state.memory.iter().filter(is_its).cloned().collect();
                (missed, seen + 1 < oldest || seen > state.last)
            }
        };
        state.next += 1;
        let number = state.next;
        let (line, ear) = mpsc::channel(LINE);
        state.listeners.push(Listener { number, patterns, line, slow: Arc::clone(&slow) });
        Some(Ear { feed: Arc::clone(self), number, missed, gap, line: ear, slow })
    }

    /// How many listen, and how many were cut off.
    pub(crate) fn listeners(&self) -> (usize, u64) {
        (self.state.lock().listeners.len(), self.cut.load(Ordering::Relaxed))
    }
}

/// The topic that something is about.
pub(crate) fn topic_of(told: &Told) -> &str {
    let topic = &*told.event.topic;
    match told.kind {
        Kind::Event { .. } => topic,
        Kind::Gap => topic.strip_prefix(GAP).unwrap_or(topic),
    }
}

impl State {
    fn tell(&mut self, told: &Told, topic: &str, mut cut: impl FnMut(u64)) {
        self.listeners.retain(|listener| {
            if !listener.patterns.iter().any(|pattern| pattern.matches(topic)) {
                return true;
            }
            match listener.line.try_send(told.clone()) {
                Ok(()) => true,
                Err(mpsc::error::TrySendError::Closed(_)) => false,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    listener.slow.tell();
                    cut(listener.number);
                    false
                }
            }
        });
    }

    fn remember(&mut self, told: Told) {
        self.bytes += told.event.body.len();
        self.memory.push_back(told);
        while self.memory.len() > MEMORY || self.bytes > MEMORY_BYTES {
            let Some(oldest) = self.memory.pop_front() else { break };
            self.bytes -= oldest.event.body.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use tidegate_telemetry::Metrics;

    use super::*;

    fn feed() -> Arc<Feed> {
        let metrics = Arc::new(Metrics::new()).tenant("acme");
        Feed::new(Arc::from("acme"), Clock::start(), Arc::default(), metrics)
    }

    fn all(text: &str) -> Vec<TopicPattern> {
        vec![TopicPattern::parse(text).unwrap()]
    }

    fn say(feed: &Feed, topic: &str) {
        feed.publish(topic, Bytes::from_static(b"{}"), Kind::Event { late: false });
    }

    fn heard(ear: &mut Ear) -> Vec<String> {
        let mut told: Vec<Told> = ear.missed.drain(..).collect();
        while let Ok(more) = ear.line.try_recv() {
            told.push(more);
        }
        told.iter().map(|told| told.event.topic.to_string()).collect()
    }

    #[tokio::test]
    async fn a_listener_hears_its_topics_and_who_comes_back_what_it_missed() {
        let feed = feed();
        let mut ear = feed.listen(all("a.*"), None, Arc::default()).unwrap();
        for topic in ["a.1", "b.1", "a.2"] {
            say(&feed, topic);
        }
        assert_eq!(heard(&mut ear), ["a.1", "a.2"]);
        let mut back = feed.listen(all("*"), Some(&feed.id(1)), Arc::default()).unwrap();
        assert_eq!((heard(&mut back), back.gap), (vec!["b.1".to_owned(), "a.2".to_owned()], false));
        let of_another_run = feed.listen(all("*"), Some("0-1"), Arc::default()).unwrap();
        assert!(of_another_run.gap);
        assert_eq!(feed.listeners().0, 3);
        drop((ear, back, of_another_run));
        assert_eq!(feed.listeners().0, 0);
    }

    #[tokio::test]
    async fn what_is_not_remembered_any_more_is_told_as_a_gap() {
        let feed = feed();
        (0..MEMORY + 2).for_each(|_| say(&feed, "a"));
        let ear = feed.listen(all("a"), Some(&feed.id(1)), Arc::default()).unwrap();
        assert!(ear.gap && ear.missed.len() == MEMORY);
        assert!(!feed.listen(all("a"), Some(&feed.id(2)), Arc::default()).unwrap().gap);
    }

    #[tokio::test]
    async fn one_that_never_reads_is_cut_off_and_others_hear_on() {
        let feed = feed();
        let slow = Arc::new(Slow::default());
        let deaf = feed.listen(all("a"), None, Arc::clone(&slow)).unwrap();
        for _ in 0..=LINE {
            say(&feed, "a");
        }
        slow.told().await;
        assert_eq!(feed.listeners(), (0, 1));
        let mut ear = feed.listen(all("a"), None, Arc::default()).unwrap();
        say(&feed, "a");
        assert_eq!(heard(&mut ear), ["a"]);
        drop(deaf);
    }
}
