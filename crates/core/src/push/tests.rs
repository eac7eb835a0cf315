//! The keeper of channels: single situations, and random worlds against an upstream and a reader of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::backoff::{Backoff, Kind};
use crate::time::Mono;

const S: Duration = Duration::from_secs(1);

fn pace() -> Pace {
    Pace {
        heartbeat: 10 * S,
        silent: 3,
        life: 1000 * S,
        channels: 4,
        topics: 3,
        batch: 2,
        backoff: Backoff::try_new(Kind::Full, S, 20 * S).unwrap(),
        rejected: 300 * S,
    }
}

fn at(seconds: u64) -> Mono {
    Mono::ZERO + Duration::from_secs(seconds)
}

fn topic(name: &str) -> Arc<str> {
    Arc::from(name)
}

/// The only channel that is to be opened.
fn opening(todo: &[Do]) -> ChannelId {
    let mut open = todo.iter().filter_map(|todo| match todo {
        Do::Open(id) => Some(*id),
        _ => None,
    });
    let id = open.next().unwrap_or_else(|| panic!("no opening in {todo:?}"));
    assert_eq!(open.next(), None, "one at a time");
    id
}

fn question(todo: &[Do]) -> (ChannelId, AskId, Vec<Arc<str>>, bool) {
    todo.iter()
        .find_map(|todo| match todo {
            Do::Subscribe { channel, ask, topics, replace } => {
                Some((*channel, *ask, topics.clone(), *replace))
            }
            _ => None,
        })
        .unwrap_or_else(|| panic!("no question in {todo:?}"))
}

/// A keeper with one channel that covers one topic.
fn covering(name: &str) -> (Keeper, ChannelId) {
    let mut keeper = Keeper::new(pace(), 1);
    keeper.want(&topic(name)).unwrap();
    let id = opening(&keeper.poll(at(0)));
    keeper.opened(id, None, at(1));
    let (_, ask, ..) = question(&keeper.poll(at(1)));
    keeper.subscribed(id, ask, &[], at(2));
    assert_eq!(keeper.news(), [News::Covered { topic: topic(name), gap: None }]);
    (keeper, id)
}

#[test]
fn more_topics_than_a_channel_takes_make_another_one_behind_it_and_too_many_are_told() {
    let mut keeper = Keeper::new(pace(), 1);
    for number in 0..9 {
        keeper.want(&topic(&number.to_string())).unwrap();
    }
    assert_eq!(keeper.want(&topic("9")), Err(TooMany { channels: 3, topics: 3 }), "one channel is kept free");
    assert_eq!(keeper.want(&topic("8")), Ok(()), "it has its place");
    let first = opening(&keeper.poll(at(0)));
    assert_eq!(keeper.poll(at(5)), [], "the next one waits for its end");
    keeper.opened(first, None, at(6));
    let todo = keeper.poll(at(6));
    assert_ne!(opening(&todo), first);
    assert_eq!(question(&todo).2.len(), 2, "so many as a question may have");
}

#[test]
fn a_channel_that_breaks_is_opened_again_and_what_was_missed_is_told() {
    let (mut keeper, id) = covering("a");
    keeper.heard(id, at(15));
    keeper.lost(id, Cause::Closed, at(18));
    let news = [News::Lost { channel: id, cause: Cause::Closed }, News::Uncovered { topic: topic("a") }];
    assert_eq!(keeper.news(), news);
    assert!(!keeper.covers("a"));
    assert_eq!(keeper.poll(at(18))[0], Do::Close(id));
    let again = opening(&keeper.poll(at(20)));
    keeper.heard(id, at(20));
    keeper.opened(again, None, at(21));
    let (_, ask, ..) = question(&keeper.poll(at(21)));
    keeper.subscribed(again, ask, &[], at(22));
    let gap = Gap { from: at(15), to: at(22) };
    assert_eq!(keeper.news(), [News::Covered { topic: topic("a"), gap: Some(gap) }]);
}

#[test]
fn what_is_rejected_where_it_was_subscribed_before_counts_until_it_is_replaced() {
    let (mut keeper, id) = covering("a");
    keeper.unwant("a", at(3));
    keeper.want(&topic("a")).unwrap();
    let (_, ask, ..) = question(&keeper.poll(at(3)));
    keeper.subscribed(id, ask, &[(topic("a"), topic("why"))], at(4));
    for name in ["b", "c", "d"] {
        keeper.want(&topic(name)).unwrap();
    }
    let (_, _, topics, replace) = question(&keeper.poll(at(5)));
    assert_eq!((topics.len(), replace), (3, true), "with what may still be there they are more than three");
}

#[test]
fn silence_is_asked_about_after_one_heartbeat_and_given_up_after_three() {
    let (mut keeper, id) = covering("a");
    keeper.heard(id, at(5));
    assert_eq!(keeper.wake(), Some(at(15)));
    assert_eq!(keeper.poll(at(14)), []);
    assert_eq!(keeper.poll(at(15)), [Do::Ping(id)]);
    assert_eq!(keeper.poll(at(24)), []);
    assert_eq!(keeper.poll(at(34)), [Do::Ping(id)]);
    assert_eq!(keeper.poll(at(35))[0], Do::Close(id));
    assert_eq!(keeper.news()[0], News::Lost { channel: id, cause: Cause::Silent });
}

#[test]
fn one_that_will_close_listens_until_another_has_all_its_topics() {
    let (mut keeper, old) = covering("a");
    keeper.closes(old, at(5));
    let new = opening(&keeper.poll(at(5)));
    keeper.opened(new, None, at(6));
    let (on, ask, topics, _) = question(&keeper.poll(at(6)));
    assert_eq!((on, topics), (new, vec![topic("a")]));
    keeper.subscribed(new, ask, &[], at(7));
    assert_eq!(keeper.poll(at(7)), [Do::Ping(old)], "did it listen until now?");
    keeper.heard(old, at(8));
    assert_eq!(keeper.poll(at(8)), [Do::Close(old)]);
    assert_eq!(keeper.news(), [], "nothing was missed");
    assert!(keeper.covers("a"));
}

#[test]
fn one_that_is_replaced_and_was_not_heard_to_the_end_leaves_a_gap() {
    let (mut keeper, old) = covering("a");
    keeper.closes(old, at(5));
    let new = opening(&keeper.poll(at(5)));
    keeper.opened(new, None, at(6));
    let (_, ask, ..) = question(&keeper.poll(at(6)));
    keeper.subscribed(new, ask, &[], at(7));
    keeper.lost(old, Cause::Closed, at(8));
    let gap = Some(Gap { from: at(1), to: at(8) });
    let news = [News::Lost { channel: old, cause: Cause::Closed }, News::Covered { topic: topic("a"), gap }];
    assert_eq!(keeper.news(), news);
    assert!(!keeper.poll(at(9)).iter().any(|todo| matches!(todo, Do::Open(_))));
}

#[test]
fn a_channel_is_replaced_well_before_its_life_is_over() {
    for seed in 0..20 {
        let mut keeper = Keeper::new(Pace { heartbeat: 10_000 * S, ..pace() }, seed);
        keeper.want(&topic("a")).unwrap();
        let id = opening(&keeper.poll(at(0)));
        keeper.opened(id, Some(2000 * S), at(0));
        let (_, ask, ..) = question(&keeper.poll(at(0)));
        keeper.subscribed(id, ask, &[], at(1));
        assert_eq!(keeper.poll(at(1499)), []);
        assert_ne!(opening(&keeper.poll(at(1801))), id);
    }
}

#[test]
fn a_rejected_topic_is_told_once_and_keeps_no_other_from_being_covered() {
    let mut keeper = Keeper::new(pace(), 1);
    for name in ["a", "b"] {
        keeper.want(&topic(name)).unwrap();
    }
    let id = opening(&keeper.poll(at(0)));
    keeper.opened(id, None, at(0));
    let (_, ask, ..) = question(&keeper.poll(at(0)));
    let why: Arc<str> = Arc::from("no permission");
    keeper.subscribed(id, ask, &[(topic("b"), Arc::clone(&why))], at(1));
    let news = [News::Covered { topic: topic("a"), gap: None }, News::Rejected { topic: topic("b"), why }];
    assert_eq!(keeper.news(), news);
    keeper.heard(id, at(299));
    assert!(!keeper.poll(at(299)).iter().any(|todo| matches!(todo, Do::Subscribe { .. })));
    keeper.heard(id, at(302));
    assert_eq!(question(&keeper.poll(at(302))).2, [topic("b")], "somebody may have given the permission");
}

#[test]
fn a_question_that_is_refused_is_split_until_the_one_to_blame_is_found() {
    let mut keeper = Keeper::new(pace(), 1);
    for name in ["a", "b"] {
        keeper.want(&topic(name)).unwrap();
    }
    let id = opening(&keeper.poll(at(0)));
    keeper.opened(id, None, at(0));
    let (mut now, mut rejected) = (at(0), Vec::new());
    for _ in 0..20 {
        for todo in keeper.poll(now) {
            let Do::Subscribe { ask, topics, .. } = todo else { continue };
            if topics.iter().any(|topic| &**topic == "a") {
                keeper.not_subscribed(id, ask, AskFailed::Refused, now);
            } else {
                keeper.subscribed(id, ask, &[], now);
            }
        }
        keeper.heard(id, now);
        rejected.extend(keeper.news().into_iter().filter(|news| matches!(news, News::Rejected { .. })));
        now += 5 * S;
    }
    assert!(keeper.covers("b") && !keeper.covers("a"));
    assert_eq!(rejected.len(), 1);
}

#[test]
fn what_nobody_wants_is_taken_off_with_one_question_and_an_empty_channel_is_closed() {
    let (mut keeper, id) = covering("a");
    keeper.want(&topic("b")).unwrap();
    let (_, ask, ..) = question(&keeper.poll(at(3)));
    keeper.subscribed(id, ask, &[], at(4));
    keeper.news();
    keeper.unwant("a", at(5));
    assert_eq!(keeper.news(), [News::Uncovered { topic: topic("a") }]);
    for second in 5..65 {
        keeper.heard(id, at(second));
        assert_eq!(keeper.poll(at(second)), []);
    }
    let (_, ask, topics, replace) = question(&keeper.poll(at(65)));
    assert_eq!((topics, replace), (vec![topic("b")], true));
    keeper.subscribed(id, ask, &[], at(66));
    keeper.unwant("b", at(67));
    keeper.heard(id, at(186));
    let todo = keeper.poll(at(187));
    assert!(todo.contains(&Do::Close(id)), "{todo:?}");
    assert_eq!(keeper.totals(), Totals::default());
}

/// A channel of the upstream.
#[derive(Debug, Default)]
struct Remote {
    topics: BTreeSet<Arc<str>>,
    deaf: bool,
}

/// What the keeper asked, and when it is answered.
#[derive(Debug)]
struct Pending {
    at: Mono,
    asked: Do,
    /// Whether it fails, and whether it is done all the same.
    fails: Option<bool>,
}

/// What a reader holds to be so.
#[derive(Debug, Default)]
struct Belief {
    value: u64,
    stands: bool,
}

struct World {
    now: Mono,
    keeper: Keeper,
    remotes: BTreeMap<ChannelId, Remote>,
    pending: Vec<Pending>,
    truth: BTreeMap<Arc<str>, (u64, Mono)>,
    beliefs: BTreeMap<Arc<str>, Belief>,
    rejects: BTreeSet<Arc<str>>,
    down_until: Mono,
    delay: u64,
}

#[derive(Clone, Debug)]
enum Fault {
    Break(usize),
    Deafen(usize),
    Announce(usize),
    Down(u64),
    Reject(usize),
    Allow,
    Slow(u64),
    Want(usize),
    Unwant(usize),
    Change(usize),
    Forget(usize),
}

const TOPICS: usize = 9;

impl World {
    fn new(seed: u64) -> Self {
        Self {
            now: Mono::ZERO,
            keeper: Keeper::new(pace(), seed),
            remotes: BTreeMap::new(),
            pending: Vec::new(),
            truth: (0..TOPICS).map(|number| (topic(&number.to_string()), (0, Mono::ZERO))).collect(),
            beliefs: BTreeMap::new(),
            rejects: BTreeSet::new(),
            down_until: Mono::ZERO,
            delay: 1,
        }
    }

    fn name(number: usize) -> Arc<str> {
        topic(&(number % TOPICS).to_string())
    }

    fn nth(&self, number: usize) -> Option<ChannelId> {
        let count = self.remotes.len().max(1);
        self.remotes.keys().nth(number % count).copied()
    }

    fn strike(&mut self, fault: &Fault) {
        let now = self.now;
        match fault {
            Fault::Break(number) => {
                if let Some(id) = self.nth(*number) {
                    self.remotes.remove(&id);
                    self.keeper.lost(id, Cause::Closed, now);
                }
            }
            // Its socket stands, but nothing comes any more, and the upstream has forgotten what was subscribed.
            Fault::Deafen(number) => {
                if let Some(remote) = self.nth(*number).and_then(|id| self.remotes.get_mut(&id)) {
                    remote.deaf = true;
                }
            }
            Fault::Announce(number) => {
                if let Some(id) = self.nth(*number) {
                    self.keeper.closes(id, now);
                }
            }
            Fault::Down(seconds) => self.down_until = now + Duration::from_secs(*seconds),
            Fault::Reject(number) => drop(self.rejects.insert(Self::name(*number))),
            Fault::Allow => self.rejects.clear(),
            Fault::Slow(seconds) => self.delay = *seconds,
            Fault::Want(number) => {
                let name = Self::name(*number);
                if self.keeper.want(&name).is_ok() {
                    self.beliefs.entry(name).or_default();
                }
            }
            Fault::Unwant(number) => {
                let name = Self::name(*number);
                self.keeper.unwant(&name, now);
                self.beliefs.remove(&name);
            }
            Fault::Change(number) => self.change(&Self::name(*number)),
            Fault::Forget(number) => {
                if let Some(id) = self.nth(*number) {
                    self.remotes.remove(&id);
                }
            }
        }
    }

    /// Something changes, and everybody who listens is told.
    fn change(&mut self, name: &Arc<str>) {
        let value = self.truth.get_mut(name).unwrap();
        *value = (value.0 + 1, self.now);
        let tells = |remote: &Remote| !remote.deaf && remote.topics.contains(name);
        let told: Vec<ChannelId> =
            self.remotes.iter().filter(|(_, remote)| tells(remote)).map(|(id, _)| *id).collect();
        for id in told {
            self.keeper.heard(id, self.now);
            if let Some(belief) = self.beliefs.get_mut(name) {
                belief.value = self.truth[name].0;
            }
        }
    }

    /// Carries out what is to be done, and hears what was learnt.
    fn act(&mut self) {
        for todo in self.keeper.poll(self.now) {
            match todo {
                Do::Close(id) => drop(self.remotes.remove(&id)),
                Do::Ping(id) => {
                    if self.remotes.get(&id).is_some_and(|remote| !remote.deaf) {
                        self.keeper.heard(id, self.now);
                    }
                }
                asked => {
                    let fails = (self.now < self.down_until).then_some(self.delay.is_multiple_of(2));
                    self.pending.push(Pending {
                        at: self.now + Duration::from_secs(self.delay),
                        asked,
                        fails,
                    });
                }
            }
        }
        let openings = self.pending.iter().filter(|pending| matches!(pending.asked, Do::Open(_))).count();
        assert!(openings <= 1, "two openings at once");
        for news in self.keeper.news() {
            match news {
                News::Covered { topic, .. } => {
                    // The gap is filled by a read.
                    if let Some(belief) = self.beliefs.get_mut(&topic) {
                        *belief = Belief { value: self.truth[&topic].0, stands: true };
                    }
                }
                News::Uncovered { topic } | News::Rejected { topic, .. } => {
                    if let Some(belief) = self.beliefs.get_mut(&topic) {
                        belief.stands = false;
                    }
                }
                News::Lost { .. } => {}
            }
        }
    }

    fn answer(&mut self, Pending { asked, fails, .. }: Pending) {
        let now = self.now;
        match asked {
            Do::Open(id) if fails.is_some() => self.keeper.not_opened(id, Duration::ZERO, now),
            Do::Open(id) => {
                self.remotes.insert(id, Remote::default());
                assert!(self.remotes.len() <= pace().channels, "more channels than are allowed");
                self.keeper.opened(id, None, now);
            }
            Do::Subscribe { channel, ask, topics, replace } => {
                if fails != Some(false) && !self.subscribe(channel, &topics, replace) {
                    return self.keeper.not_subscribed(channel, ask, AskFailed::Gone, now);
                }
                if fails.is_some() {
                    return self.keeper.not_subscribed(channel, ask, AskFailed::ForNow(Duration::ZERO), now);
                }
                let rejected = topics.iter().filter(|topic| self.rejects.contains(*topic));
                let rejected: Vec<_> = rejected.map(|topic| (Arc::clone(topic), topic.clone())).collect();
                self.keeper.subscribed(channel, ask, &rejected, now);
            }
            Do::Ping(_) | Do::Close(_) => {}
        }
    }

    fn subscribe(&mut self, channel: ChannelId, topics: &[Arc<str>], replace: bool) -> bool {
        let Some(remote) = self.remotes.get_mut(&channel) else { return false };
        if replace {
            remote.topics.clear();
        }
        remote.topics.extend(topics.iter().filter(|topic| !self.rejects.contains(*topic)).cloned());
        assert!(remote.topics.len() <= pace().topics, "more topics than a channel takes");
        true
    }

    /// One second.
    fn tick(&mut self) {
        self.now += S;
        let (due, rest) = std::mem::take(&mut self.pending).into_iter().partition(|it| it.at <= self.now);
        self.pending = rest;
        let due: Vec<Pending> = due;
        for pending in due {
            self.answer(pending);
            self.act();
        }
        if (self.now.as_nanos() / 1_000_000_000).is_multiple_of(10) {
            for (id, _) in self.remotes.iter().filter(|(_, remote)| !remote.deaf) {
                self.keeper.heard(*id, self.now);
            }
        }
        self.act();
        self.check();
    }

    /// Nobody believes what is not so any more for longer than a socket may be silent.
    fn check(&self) {
        let limit = pace().heartbeat * pace().silent + S;
        for (name, belief) in self.beliefs.iter().filter(|(_, belief)| belief.stands) {
            let (value, since) = self.truth[name];
            let stale = self.now.since(since);
            assert!(belief.value == value || stale <= limit, "{name} is believed {stale:?} too long");
        }
    }

    /// With an upstream that answers everything is covered, on no more channels than are needed.
    fn heal(&mut self) {
        self.down_until = Mono::ZERO;
        self.delay = 1;
        self.rejects.clear();
        for _ in 0..600 {
            self.tick();
        }
        for name in self.beliefs.keys() {
            assert!(self.keeper.covers(name), "{name} is left without: {:?}", self.keeper);
            let subscribed = |remote: &Remote| !remote.deaf && remote.topics.contains(name);
            assert!(self.remotes.values().any(subscribed), "{name} is covered by nobody");
        }
        let totals = self.keeper.totals();
        assert_eq!((totals.wanted, totals.covered), (self.beliefs.len(), self.beliefs.len()));
        // Some channel may just be replaced because its time is over.
        for _ in 0..60 {
            let Totals { channels, live, .. } = self.keeper.totals();
            if channels == live {
                break;
            }
            self.tick();
        }
        let totals = self.keeper.totals();
        assert_eq!(totals.channels, totals.live);
        let live: Vec<_> = self.remotes.iter().filter(|(_, remote)| !remote.deaf).collect();
        assert_eq!(live.len(), totals.live, "a socket that nobody keeps");
    }
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        2 => any::<usize>().prop_map(Fault::Break),
        1 => any::<usize>().prop_map(Fault::Deafen),
        1 => any::<usize>().prop_map(Fault::Forget),
        2 => any::<usize>().prop_map(Fault::Announce),
        1 => (1_u64..60).prop_map(Fault::Down),
        1 => any::<usize>().prop_map(Fault::Reject),
        1 => Just(Fault::Allow),
        1 => (1_u64..5).prop_map(Fault::Slow),
        5 => any::<usize>().prop_map(Fault::Want),
        2 => any::<usize>().prop_map(Fault::Unwant),
        6 => any::<usize>().prop_map(Fault::Change),
    ]
}

proptest! {
    #[test]
    fn whatever_breaks_nobody_believes_the_past_for_long_and_everything_is_covered_again(
        seed in any::<u64>(),
        steps in prop::collection::vec((fault(), 0_u64..40), 1..80),
    ) {
        let mut world = World::new(seed);
        for (fault, ticks) in &steps {
            world.strike(fault);
            world.act();
            (0..*ticks).for_each(|_| world.tick());
        }
        world.heal();
    }

    #[test]
    fn it_never_wakes_in_a_loop_and_always_wakes_for_what_it_has_to_say(
        seed in any::<u64>(),
        steps in prop::collection::vec((fault(), 0_u64..40), 1..40),
    ) {
        let mut world = World::new(seed);
        for (fault, ticks) in &steps {
            world.strike(fault);
            world.act();
            for _ in 0..*ticks {
                world.tick();
                let Some(wake) = world.keeper.wake() else { continue };
                prop_assert!(wake > world.now, "it was asked just now: {:?}", world.keeper);
                let before = Mono::from_nanos(wake.as_nanos() - 1);
                prop_assert_eq!(world.keeper.poll(before), [], "it has something to say earlier");
            }
        }
    }
}
