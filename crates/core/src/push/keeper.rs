//! Keeps the channels of one credential: opens, subscribes, listens, replaces.
//!
//! Rules, with their reasons:
//! * **One opening at a time**, because upstreams refuse bursts of them, and behind a loss or a refusal only after a backoff with
//!   full jitter. A channel that lived for a heartbeat ends that backoff: one that opens and breaks does not.
//! * **A topic has its place on one channel**, which is full with so many. One channel of those that are allowed is kept free, so
//!   that each can be replaced while it still listens.
//! * **A channel is replaced before it ends**: when its time is nearly over (earlier by some chance, so that channels that were
//!   opened together do not end together), or when the upstream says that it will close. The old one goes once
//!   everything is confirmed on the new one and a word of the old one shows that it listened until then; else there is a gap.
//! * **A socket that says nothing is pinged after one heartbeat and given up after several.** TCP tells of a peer that is gone only when
//!   something is sent to it, and not even then for minutes.
//! * **A topic that the upstream rejects is left alone** for a while; it does not keep others from being subscribed.
//!
//! Methods may be called in any order and as often as wanted: what is said about a channel or a question that is not known is of no
//! account. After each, [`Keeper::poll`] says what is to be done and [`Keeper::news`] what was learnt.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use super::channel::{Ask, AskId, Cause, Channel, ChannelId, Do, Gap, Life, News, Phase};
use crate::backoff::{Backoff, Step};
use crate::time::Mono;

/// The numbers of an upstream's channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How often a live socket says something at least.
    pub heartbeat: Duration,
    /// After so many heartbeats without a word a channel is lost.
    pub silent: u32,
    /// How long a channel lives where the upstream does not say.
    pub life: Duration,
    /// Channels at once; one of them is kept free. At least 2.
    pub channels: usize,
    /// Topics of one channel; at least 1.
    pub topics: usize,
    /// Topics of one question; at least 1.
    pub batch: usize,
    /// The wait behind an opening or a question that failed, or a channel that was lost.
    pub backoff: Backoff,
    /// For how long a rejected topic is left alone.
    pub rejected: Duration,
}

/// There is no room for another topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{channels} channels of {topics} topics are full")]
pub struct TooMany {
    /// Channels that take topics.
    pub channels: usize,
    /// Topics of each.
    pub topics: usize,
}

/// Why a question about subscriptions failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskFailed {
    /// The upstream does not know the channel.
    Gone,
    /// The upstream refuses the question as it is.
    Refused,
    /// For a reason that passes; not to be asked again before this time is over.
    ForNow(Duration),
}

#[derive(Clone, Debug, Default)]
struct Topic {
    home: Option<ChannelId>,
    /// Channels on which it is confirmed: two while one replaces the other.
    on: BTreeSet<ChannelId>,
    /// When the last channel that told of it was last heard.
    missed_from: Option<Mono>,
    /// Until when it is left alone.
    rejected_until: Option<Mono>,
}

/// How many topics are in which state, and how many channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Topics that are wanted.
    pub wanted: usize,
    /// Those of them whose events arrive.
    pub covered: usize,
    /// Those of them that the upstream rejects.
    pub rejected: usize,
    /// Channels.
    pub channels: usize,
    /// Those of them whose socket is open.
    pub live: usize,
}

/// Keeps the channels of one credential.
#[derive(Debug)]
pub struct Keeper {
    pace: Pace,
    rng: Rng,
    topics: BTreeMap<Arc<str>, Topic>,
    channels: BTreeMap<ChannelId, Channel>,
    opening: Option<ChannelId>,
    /// Not before this is a channel opened.
    open_after: Mono,
    /// Openings and losses in a row.
    fails: u32,
    next: u64,
    news: Vec<News>,
    /// Sockets to be closed.
    closing: Vec<ChannelId>,
}

/// A channel that nothing is wanted of is closed after this time: who comes back soon costs no opening.
const LINGER: Duration = Duration::from_mins(2);

/// What nobody wants any more is taken off a channel after this time, with one question for all of it.
const TIDY: Duration = Duration::from_mins(1);

/// After this part of its life at the earliest a channel is replaced, and after this at the latest, in hundredths.
const RENEW: (u32, u32) = (75, 90);

impl Keeper {
    /// No channel, no topic. `seed` spreads renewals and waits.
    pub fn new(pace: Pace, seed: u64) -> Self {
        Self {
            pace: Pace {
                channels: pace.channels.max(2),
                topics: pace.topics.max(1),
                batch: pace.batch.max(1),
                ..pace
            },
            rng: Rng::with_seed(seed),
            topics: BTreeMap::new(),
            channels: BTreeMap::new(),
            opening: None,
            open_after: Mono::ZERO,
            fails: 0,
            next: 0,
            news: Vec::new(),
            closing: Vec::new(),
        }
    }

    /// Somebody wants events about a topic.
    ///
    /// # Errors
    /// There is no room for it.
    pub fn want(&mut self, topic: &Arc<str>) -> Result<(), TooMany> {
        if self.topics.contains_key(topic) {
            return Ok(());
        }
        let channels = self.pace.channels - 1;
        if self.topics.len() >= channels * self.pace.topics {
            return Err(TooMany { channels, topics: self.pace.topics });
        }
        self.topics.insert(Arc::clone(topic), Topic::default());
        self.place(topic);
        Ok(())
    }

    /// Nobody wants events about a topic any more.
    pub fn unwant(&mut self, topic: &str, now: Mono) {
        let Some(gone) = self.topics.remove(topic) else { return };
        if !gone.on.is_empty() {
            self.news.push(News::Uncovered { topic: Arc::from(topic) });
        }
        for id in gone.on.into_iter().chain(gone.home) {
            let Some(channel) = self.channels.get_mut(&id) else { continue };
            channel.wants.remove(topic);
            channel.confirmed.remove(topic);
            if channel.there.contains(topic) {
                channel.untidy.get_or_insert(now);
            }
            if channel.wants.is_empty() {
                channel.empty.get_or_insert(now);
            }
        }
    }

    /// Gives a topic its place on a channel, which may be a new one.
    fn place(&mut self, topic: &Arc<str>) {
        let most = self.pace.topics;
        let mut open = self.channels.iter().filter(|(_, channel)| channel.successor.is_none());
        let room = open.find(|(_, channel)| channel.wants.len() < most).map(|(id, _)| *id);
        let home = room.unwrap_or_else(|| self.add(Channel::new(self.pace.batch)));
        let channel = self.channels.get_mut(&home).expect("it was found or added");
        channel.wants.insert(Arc::clone(topic));
        channel.empty = None;
        if let Some(topic) = self.topics.get_mut(topic) {
            topic.home = Some(home);
        }
    }

    fn add(&mut self, channel: Channel) -> ChannelId {
        self.next += 1;
        let id = ChannelId(self.next);
        self.channels.insert(id, channel);
        id
    }

    /// A channel is open and its socket connected. `life`: for how long, if the upstream says so.
    pub fn opened(&mut self, id: ChannelId, life: Option<Duration>, now: Mono) {
        if self.opening == Some(id) {
            self.opening = None;
        }
        let part = self.rng.u32(RENEW.0..=RENEW.1);
        let life = life.unwrap_or(self.pace.life) / 100 * part;
        match self.channels.get_mut(&id) {
            Some(channel) => {
                channel.phase =
                    Phase::Live(Life { since: now, heard: now, pinged: now, renew_at: now + life });
            }
            // Given up while it was opened.
            None => self.closing.push(id),
        }
    }

    /// A channel could not be opened; not to be tried again before `wait` is over.
    pub fn not_opened(&mut self, id: ChannelId, wait: Duration, now: Mono) {
        if self.opening == Some(id) {
            self.opening = None;
        }
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.phase = Phase::Waiting;
        }
        self.back_off(wait, now);
    }

    fn back_off(&mut self, wait: Duration, now: Mono) {
        let delay = self.pace.backoff.delay(Step { attempt: self.fails, ..Step::default() }, &mut self.rng);
        self.fails = self.fails.saturating_add(1);
        self.open_after = self.open_after.max(now + delay.max(wait));
    }

    /// Something was heard on a channel's socket. Whether that gives [`Keeper::poll`] something to do.
    pub fn heard(&mut self, id: ChannelId, now: Mono) -> bool {
        let Some(channel) = self.channels.get_mut(&id) else { return false };
        let Some(life) = channel.life_mut() else { return false };
        life.heard = life.heard.max(now);
        if now.since(life.since) >= self.pace.heartbeat {
            self.fails = 0;
        }
        channel.has_handed_over()
    }

    /// The upstream says that it will close a channel's socket.
    pub fn closes(&mut self, id: ChannelId, now: Mono) {
        if let Some(life) = self.channels.get_mut(&id).and_then(Channel::life_mut) {
            life.renew_at = life.renew_at.min(now);
        }
    }

    /// A channel's socket ended.
    pub fn lost(&mut self, id: ChannelId, cause: Cause, now: Mono) {
        let Some(channel) = self.channels.remove(&id) else { return };
        if self.opening == Some(id) {
            self.opening = None;
        }
        self.closing.push(id);
        self.news.push(News::Lost { channel: id, cause });
        self.withdraw(id, &channel, now);
        // What has its place on a successor needs no other.
        if channel.successor.is_some_and(|successor| self.channels.contains_key(&successor)) {
            return;
        }
        let lived = channel.life().is_some_and(|life| life.heard.since(life.since) >= self.pace.heartbeat);
        if lived {
            self.fails = 0;
        }
        self.back_off(Duration::ZERO, now);
        let mut wants = channel.wants;
        wants.retain(|name| self.topics.get(name).is_some_and(|topic| topic.home == Some(id)));
        if wants.is_empty() {
            return;
        }
        let anew = self.settle(&wants);
        for other in self.channels.values_mut().filter(|other| other.successor == Some(id)) {
            other.successor = Some(anew);
        }
    }

    /// Gives these topics a channel of their own.
    fn settle(&mut self, wants: &BTreeSet<Arc<str>>) -> ChannelId {
        let id = self.add(Channel { wants: wants.clone(), ..Channel::new(self.pace.batch) });
        for topic in wants {
            if let Some(topic) = self.topics.get_mut(topic) {
                topic.home = Some(id);
            }
        }
        id
    }

    /// What a channel that is gone told about is not covered by it any more.
    fn withdraw(&mut self, id: ChannelId, channel: &Channel, now: Mono) {
        let heard = channel.life().map(|life| life.heard);
        for name in &channel.confirmed {
            let Some(topic) = self.topics.get_mut(name) else { continue };
            if !topic.on.remove(&id) {
                continue;
            }
            if topic.on.is_empty() {
                topic.missed_from = topic.missed_from.or(heard);
                self.news.push(News::Uncovered { topic: Arc::clone(name) });
            } else if channel.successor.is_some() && !channel.has_handed_over() {
                // It may have been deaf when the other began to listen.
                let gap = heard.map(|from| Gap { from, to: now });
                self.news.push(News::Covered { topic: Arc::clone(name), gap });
            }
        }
    }

    /// A question about subscriptions was answered; what the upstream rejects of it, and why.
    pub fn subscribed(&mut self, id: ChannelId, ask: AskId, rejected: &[(Arc<str>, Arc<str>)], now: Mono) {
        let Some((channel, asked)) = self.answered(id, ask) else { return };
        channel.fails = 0;
        let refused: BTreeSet<&str> = rejected.iter().map(|(topic, _)| &**topic).collect();
        if asked.replace {
            channel.there.clear();
            channel.untidy = None;
        }
        let mut covered = Vec::new();
        for topic in asked.topics.iter().filter(|topic| !refused.contains(&***topic)) {
            channel.there.insert(Arc::clone(topic));
            if !channel.wants.contains(topic) {
                channel.untidy.get_or_insert(now);
            } else if channel.confirmed.insert(Arc::clone(topic)) {
                covered.push(Arc::clone(topic));
            }
        }
        for name in covered {
            let Some(topic) = self.topics.get_mut(&name) else { continue };
            let first = topic.on.is_empty();
            topic.on.insert(id);
            if first {
                let gap = topic.missed_from.take().map(|from| Gap { from, to: now });
                self.news.push(News::Covered { topic: name, gap });
            }
        }
        for (topic, why) in rejected {
            self.reject(topic, why, now);
        }
    }

    fn reject(&mut self, name: &Arc<str>, why: &Arc<str>, now: Mono) {
        let Some(topic) = self.topics.get_mut(name) else { return };
        topic.rejected_until = Some(now + self.pace.rejected);
        topic.home = None;
        let was_covered = !std::mem::take(&mut topic.on).is_empty();
        if was_covered {
            topic.missed_from = Some(now);
        }
        for channel in self.channels.values_mut() {
            channel.wants.remove(name);
            channel.confirmed.remove(name);
            // Being refused to subscribe to it again does not take it off where it was subscribed before.
            if channel.there.contains(name) {
                channel.untidy.get_or_insert(now);
            }
            if channel.wants.is_empty() {
                channel.empty.get_or_insert(now);
            }
        }
        if was_covered {
            self.news.push(News::Uncovered { topic: Arc::clone(name) });
        }
        self.news.push(News::Rejected { topic: Arc::clone(name), why: Arc::clone(why) });
    }

    /// A question about subscriptions failed.
    pub fn not_subscribed(&mut self, id: ChannelId, ask: AskId, why: AskFailed, now: Mono) {
        let backoff = self.pace.backoff;
        let wait = backoff.delay(Step { attempt: self.fails_of(id), ..Step::default() }, &mut self.rng);
        let Some((channel, asked)) = self.answered(id, ask) else { return };
        channel.fails = channel.fails.saturating_add(1);
        channel.ask_after = now + wait;
        match why {
            AskFailed::Gone => self.lost(id, Cause::Gone, now),
            AskFailed::ForNow(at_least) => {
                channel.ask_after = now + wait.max(at_least);
                // Nobody knows whether it was done.
                channel.there.extend(asked.topics);
            }
            AskFailed::Refused if asked.replace => self.lost(id, Cause::Refused, now),
            AskFailed::Refused => match asked.topics.as_slice() {
                [only] => self.reject(only, &Arc::from("the upstream refuses to subscribe to it"), now),
                // Which of them is to blame is found out by asking for fewer.
                several => channel.batch = several.len().div_ceil(2),
            },
        }
    }

    fn fails_of(&self, id: ChannelId) -> u32 {
        self.channels.get(&id).map_or(0, |channel| channel.fails)
    }

    fn answered(&mut self, id: ChannelId, ask: AskId) -> Option<(&mut Channel, Ask)> {
        let channel = self.channels.get_mut(&id)?;
        let asked = channel.ask.take_if(|asked| asked.id == ask)?;
        Some((channel, asked))
    }

    /// What was learnt since this was last called.
    pub fn news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// What is to be done now. Each thing is said once.
    pub fn poll(&mut self, now: Mono) -> Vec<Do> {
        self.take_back_rejected(now);
        self.give_up_silent(now);
        self.replace_old(now);
        let relieved = self.relieve(now);
        self.close_done(now);
        let mut todo: Vec<Do> = std::mem::take(&mut self.closing).into_iter().map(Do::Close).collect();
        todo.extend(self.open_next(now));
        todo.extend(relieved);
        todo.extend(self.ping(now));
        todo.extend(self.subscribe(now));
        todo
    }

    fn take_back_rejected(&mut self, now: Mono) {
        let over = |topic: &Topic| topic.rejected_until.is_some_and(|until| until <= now);
        let back: Vec<Arc<str>> =
            self.topics.iter().filter(|(_, topic)| over(topic)).map(|(name, _)| Arc::clone(name)).collect();
        for name in back {
            if let Some(topic) = self.topics.get_mut(&name) {
                topic.rejected_until = None;
            }
            self.place(&name);
        }
    }

    /// How long a socket may say nothing.
    fn silence(&self) -> Duration {
        self.pace.heartbeat * self.pace.silent.max(1)
    }

    fn give_up_silent(&mut self, now: Mono) {
        let limit = self.silence();
        let is_silent = |channel: &Channel| channel.life().is_some_and(|life| now.since(life.heard) >= limit);
        let silent: Vec<ChannelId> =
            self.channels.iter().filter(|(_, channel)| is_silent(channel)).map(|(id, _)| *id).collect();
        for id in silent {
            self.lost(id, Cause::Silent, now);
        }
    }

    fn replace_old(&mut self, now: Mono) {
        let is_old = |channel: &Channel| {
            channel.successor.is_none()
                && !channel.wants.is_empty()
                && channel.life().is_some_and(|life| life.renew_at <= now)
        };
        let old: Vec<ChannelId> =
            self.channels.iter().filter(|(_, channel)| is_old(channel)).map(|(id, _)| *id).collect();
        for id in old {
            if self.channels.len() >= self.pace.channels {
                return;
            }
            let wants = self.channels[&id].wants.clone();
            let successor = self.settle(&wants);
            if let Some(channel) = self.channels.get_mut(&id) {
                channel.successor = Some(successor);
            }
        }
    }

    /// Asks channels whose successor has everything for a last word.
    fn relieve(&mut self, now: Mono) -> Vec<Do> {
        let is_settled = |id: &ChannelId| self.channels.get(id).is_some_and(Channel::is_settled);
        let relieved = self.channels.iter().filter(|(_, channel)| {
            channel.relieved.is_none() && channel.successor.as_ref().is_some_and(is_settled)
        });
        let relieved: Vec<ChannelId> = relieved.map(|(id, _)| *id).collect();
        let mut pings = Vec::new();
        for id in relieved {
            let Some(channel) = self.channels.get_mut(&id) else { continue };
            channel.relieved = Some(now);
            if let Some(life) = channel.life_mut() {
                life.pinged = now;
                pings.push(Do::Ping(id));
            }
        }
        pings
    }

    /// Closes channels that have handed over to another, and those that nobody needs.
    fn close_done(&mut self, now: Mono) {
        let is_done = |channel: &Channel| {
            if let Some(successor) = channel.successor {
                return channel.has_handed_over() || !self.channels.contains_key(&successor);
            }
            let ends = |life: &Life| life.renew_at <= now;
            let idle = channel.empty.is_some_and(|since| now.since(since) >= LINGER);
            channel.wants.is_empty() && (idle || channel.life().is_none_or(ends))
        };
        let done: Vec<ChannelId> = self
            .channels
            .iter()
            .filter(|(id, channel)| self.opening != Some(**id) && is_done(channel))
            .map(|(id, _)| *id)
            .collect();
        for id in done {
            let Some(channel) = self.channels.remove(&id) else { continue };
            self.withdraw(id, &channel, now);
            if channel.life().is_some() {
                self.closing.push(id);
            }
        }
    }

    /// Whether there is a channel to be opened and room for it. Those that are to be replaced count until they are.
    fn may_open(&self) -> bool {
        let waiting = self.channels.values().filter(|channel| channel.phase == Phase::Waiting).count();
        self.opening.is_none() && waiting > 0 && self.channels.len() - waiting < self.pace.channels
    }

    fn open_next(&mut self, now: Mono) -> Option<Do> {
        if now < self.open_after || !self.may_open() {
            return None;
        }
        // Whose topics nobody tells about goes before those that replace one that still listens.
        let replaces = |id: ChannelId| self.channels.values().any(|other| other.successor == Some(id));
        let waiting = self.channels.iter().filter(|(_, channel)| channel.phase == Phase::Waiting);
        let next = waiting.map(|(id, _)| *id).min_by_key(|id| (replaces(*id), *id))?;
        if let Some(channel) = self.channels.get_mut(&next) {
            channel.phase = Phase::Opening;
        }
        self.opening = Some(next);
        Some(Do::Open(next))
    }

    fn ping(&mut self, now: Mono) -> Vec<Do> {
        let heartbeat = self.pace.heartbeat;
        let mut pings = Vec::new();
        for (id, channel) in &mut self.channels {
            let Some(life) = channel.life_mut() else { continue };
            if now.since(life.heard.max(life.pinged)) >= heartbeat {
                life.pinged = now;
                pings.push(Do::Ping(*id));
            }
        }
        pings
    }

    fn subscribe(&mut self, now: Mono) -> Vec<Do> {
        let most = self.pace.topics;
        let mut asks = Vec::new();
        for (id, channel) in &mut self.channels {
            let listens = channel.life().is_some() && channel.successor.is_none();
            if !listens || channel.ask.is_some() || now < channel.ask_after {
                continue;
            }
            let missing: Vec<Arc<str>> = channel.wants.difference(&channel.confirmed).cloned().collect();
            let full = channel.there.union(&channel.wants).count() > most;
            let tidy = channel.untidy.is_some_and(|since| now.since(since) >= TIDY);
            let replace = tidy || (full && !missing.is_empty());
            let topics: Vec<Arc<str>> = if replace {
                channel.wants.iter().cloned().collect()
            } else {
                missing.into_iter().take(channel.batch).collect()
            };
            if topics.is_empty() && !replace {
                continue;
            }
            self.next += 1;
            let ask = AskId(self.next);
            channel.ask = Some(Ask { id: ask, topics: topics.clone(), replace });
            asks.push(Do::Subscribe { channel: *id, ask, topics, replace });
        }
        asks
    }

    /// When [`Keeper::poll`] has something to say at the latest, if nothing happens before.
    pub fn wake(&self) -> Option<Mono> {
        let heartbeat = self.pace.heartbeat;
        let of_channels = self.channels.values().flat_map(|channel| {
            let life = channel.life();
            let lost = life.map(|life| life.heard + self.silence());
            let ping = life.map(|life| life.heard.max(life.pinged) + heartbeat);
            let room = self.channels.len() < self.pace.channels;
            let renew = life.map(|life| life.renew_at).filter(|_| channel.successor.is_none() && room);
            let listens = life.is_some() && channel.successor.is_none() && channel.ask.is_none();
            let missing = !channel.wants.is_subset(&channel.confirmed);
            let ask = (listens && missing).then_some(channel.ask_after);
            let tidy = channel.untidy.filter(|_| listens).map(|since| (since + TIDY).max(channel.ask_after));
            let linger = channel.empty.filter(|_| channel.wants.is_empty()).map(|since| since + LINGER);
            [lost, ping, renew, ask, tidy, linger].into_iter().flatten()
        });
        let open = self.may_open().then_some(self.open_after);
        let back = self.topics.values().filter_map(|topic| topic.rejected_until);
        of_channels.chain(open).chain(back).min()
    }

    /// Whether a topic's events arrive.
    pub fn covers(&self, topic: &str) -> bool {
        self.topics.get(topic).is_some_and(|topic| !topic.on.is_empty())
    }

    /// How many topics and channels there are.
    pub fn totals(&self) -> Totals {
        let count = |is: fn(&Topic) -> bool| self.topics.values().filter(|topic| is(topic)).count();
        Totals {
            wanted: self.topics.len(),
            covered: count(|topic| !topic.on.is_empty()),
            rejected: count(|topic| topic.rejected_until.is_some()),
            channels: self.channels.len(),
            live: self.channels.values().filter(|channel| channel.life().is_some()).count(),
        }
    }
}
