//! Readers, writers and an upstream in random order, judged by somebody who saw everything.
//!
//! The judge knows which version of each resource the upstream had at every instant. It holds the cache to its promises: no answer older than
//! its rule allows or than its `Age` says, nobody who reads after a write through the gateway sees what was before it, nobody is given
//! what the upstream would not have given to a request with its headers, nobody waits in the line of another caller, everybody who stays
//! is answered, and no call leaves for which nobody waits.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, header, request, response};
use proptest::prelude::*;
use tidegate_core::cache::{
    Bounds, Cache, CacheKey, Errand, FlightId, FreshRule, Kept, Landed, Landing, ListRule, Look, Reader,
    Roll, Told,
};
use tidegate_core::glob::PathGlob;
use tidegate_core::schedule::{CallerId, Class};
use tidegate_core::time::{Mono, Wall};

/// What one read asks for. The upstream gives each division its own data, and makes a difference between agents where it says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ask {
    resource: usize,
    division: u8,
    agent: u8,
}

/// Who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Who {
    caller: u8,
    class: Class,
}

/// How long a call takes, in milliseconds: in its line, to the upstream and back.
#[derive(Clone, Copy, Debug)]
struct Way {
    line: u64,
    to: u64,
    back: u64,
}

/// What may happen next.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Time passes, in milliseconds.
    Wait(u64),
    /// Somebody reads, and hangs up after so many milliseconds if it says so.
    Read(Ask, Who, Way, Option<u64>),
    /// Somebody writes through the gateway.
    Write(usize, Way),
    /// Somebody else writes past the gateway.
    Change(usize),
    /// The upstream fails the next call of the resource.
    Fail(usize),
    /// The upstream will not tell the next list.
    Deny,
    /// The next list cannot be asked.
    Miss,
}

const MAX_AGE: u64 = 1000;
const RESOURCES: usize = 3;
/// The resource whose answers vary by agent, and the one whose answers set a cookie now and then.
const VARYING: usize = 1;
const PERSONAL: usize = 2;

fn ask() -> impl Strategy<Value = Ask> {
    (0..RESOURCES, 0_u8..2, 0_u8..2).prop_map(|(resource, division, agent)| Ask { resource, division, agent })
}

fn who() -> impl Strategy<Value = Who> {
    let class = prop_oneof![3 => Just(Class::Interactive), 1 => Just(Class::Poll)];
    (0_u8..2, class).prop_map(|(caller, class)| Who { caller, class })
}

fn way() -> impl Strategy<Value = Way> {
    let line = prop_oneof![Just(0), 0_u64..600];
    (line, 0_u64..150, 0_u64..150).prop_map(|(line, to, back)| Way { line, to, back })
}

fn step() -> impl Strategy<Value = Step> {
    let patience = prop::option::weighted(0.2, 0_u64..400);
    prop_oneof![
        4 => (1_u64..400).prop_map(Step::Wait),
        8 => (ask(), who(), way(), patience).prop_map(|(ask, who, way, till)| Step::Read(ask, who, way, till)),
        1 => (0..RESOURCES, way()).prop_map(|(at, way)| Step::Write(at, way)),
        2 => (0..RESOURCES).prop_map(Step::Change),
        1 => (0..RESOURCES).prop_map(Step::Fail),
        1 => Just(Step::Miss),
    ]
}

/// What is under way: when it happens and what.
#[derive(Clone, Copy, Debug)]
enum Later {
    /// A call comes to the head of its line.
    Leave { flight: FlightId, ask: Ask, way: Way, tag: Option<u64> },
    /// A call reaches the upstream.
    Arrive { flight: FlightId, ask: Ask, sent: u64, back: u64, tag: Option<u64> },
    /// Its answer is here: the version, and whether nothing changed or it failed.
    Land { flight: FlightId, ask: Ask, sent: u64, version: u64, status: u16 },
    /// A write reaches the upstream.
    Apply { resource: usize, back: u64 },
    /// A write is answered.
    Wrote { resource: usize, version: u64 },
    /// A reader hangs up.
    HangUp { reader: u64 },
    /// The list that was asked as this one reaches the upstream.
    ArriveList { list: usize, sent: u64 },
    /// It is answered.
    LandList { list: usize, sent: u64 },
}

#[derive(Default)]
struct Judge {
    /// Per resource: since when each version stood, the last one now.
    history: Vec<Vec<u64>>,
    /// Per resource: the version that all must see who begin to read now.
    seen: Vec<u64>,
}

impl Judge {
    fn version(&self, resource: usize) -> u64 {
        self.history[resource].len() as u64
    }

    fn version_at(&self, resource: usize, at: u64) -> u64 {
        self.history[resource].iter().filter(|since| **since <= at).count() as u64
    }
}

/// A reader who waits, and what it must see at least.
#[derive(Clone, Copy)]
struct Waiting {
    name: u64,
    flight: FlightId,
    ask: Ask,
    who: Who,
    way: Way,
    /// Whether the flight began for it.
    leads: bool,
    must_see: u64,
}

/// What the world knows of a flight.
#[derive(Clone, Copy)]
struct Known {
    /// `None` of a renewal.
    who: Option<Who>,
    left: bool,
}

/// What an answer shows.
type Body = (u64, Ask);

struct World {
    now: u64,
    cache: Cache<Ask, Body>,
    judge: Judge,
    later: Vec<(u64, Later)>,
    waiting: Vec<Waiting>,
    flights: BTreeMap<FlightId, Known>,
    failing: Vec<bool>,
    calls: Vec<Vec<u64>>,
    readers: u64,
    /// Lists that were asked; those that are under way have their roll and, once they were answered, what they tell.
    lists: Vec<Option<(Roll<Ask>, Option<String>)>>,
    /// What becomes of the next list, if it is not told.
    list: Option<Step>,
    /// No answer varies or is somebody's own.
    plain: bool,
}

fn at(millis: u64) -> Mono {
    Mono::from_nanos(millis * 1_000_000)
}

fn wall(millis: u64) -> Wall {
    Wall::from_unix_millis(1_700_000_000_000 + i64::try_from(millis).unwrap())
}

fn path(resource: usize) -> String {
    format!("/api/v2/scripts/{resource}")
}

fn get(ask: Ask) -> request::Parts {
    let request = http::Request::get(path(ask.resource));
    let request = request.header("x-division", ask.division.to_string());
    request.header(header::USER_AGENT, ask.agent.to_string()).body(()).unwrap().into_parts().0
}

/// Tags are versions: the same over all divisions and agents.
fn answer(ask: Ask, status: u16, version: u64, plain: bool) -> response::Parts {
    let mut response = http::Response::builder().status(status).body(()).unwrap();
    let headers = response.headers_mut();
    headers.insert(header::ETAG, HeaderValue::from_str(&format!("\"{version}\"")).unwrap());
    if plain {
        return response.into_parts().0;
    }
    if ask.resource == VARYING {
        headers.append(header::VARY, HeaderValue::from_static("Accept"));
        headers.append(header::VARY, HeaderValue::from_static("User-Agent"));
    }
    if is_personal(ask, version) {
        headers.insert(header::SET_COOKIE, HeaderValue::from_static("session=1"));
    }
    response.into_parts().0
}

fn is_personal(ask: Ask, version: u64) -> bool {
    ask.resource == PERSONAL && version.is_multiple_of(2)
}

/// The version that a call asks about.
fn tag(errand: &Errand) -> Option<u64> {
    let (_, value) = errand.conditions.iter().find(|(name, _)| name == header::IF_NONE_MATCH)?;
    value.to_str().unwrap().trim_matches('"').parse().ok()
}

impl World {
    fn new() -> Self {
        let mut world = Self::without_lists();
        let list = ListRule {
            one: PathGlob::parse("/api/v2/scripts/*").unwrap(),
            all: "/api/v2/scripts".to_owned(),
            ids: None,
            at_most: 100,
            items: "/entities".to_owned(),
            id: "/id".to_owned(),
            version: "/version".to_owned(),
        };
        world.cache = world.cache.with_lists(Arc::from([list]));
        world
    }

    /// Where no answer varies, or is somebody's own.
    fn plain(self) -> Self {
        Self { plain: true, ..self }
    }

    fn without_lists() -> Self {
        let rule = FreshRule {
            path: PathGlob::parse("/api/v2/scripts/*").unwrap(),
            max_age: Duration::from_millis(MAX_AGE),
        };
        Self {
            now: 0,
            cache: Cache::new(Arc::from([rule]), Bounds::default()),
            judge: Judge { history: vec![vec![0]; RESOURCES], seen: vec![0; RESOURCES] },
            later: Vec::new(),
            waiting: Vec::new(),
            flights: BTreeMap::new(),
            failing: vec![false; RESOURCES],
            calls: vec![Vec::new(); RESOURCES],
            readers: 0,
            lists: Vec::new(),
            list: None,
            plain: false,
        }
    }

    /// What the reader is given must be as young as promised, not from before a write it could know of, and meant for its like.
    fn check(&self, ask: Ask, (version, shown): Body, must_see: u64, age: Duration) {
        let (now, resource) = (self.now, ask.resource);
        let oldest = self.judge.version_at(resource, now.saturating_sub(MAX_AGE));
        assert!(
            version >= oldest,
            "at {now} version {version} of {resource} is older than promised ({oldest})"
        );
        let told = u64::try_from(age.as_millis()).unwrap();
        let then = self.judge.version_at(resource, now.saturating_sub(told));
        assert!(
            version >= then,
            "at {now} version {version} of {resource} is older than its Age of {told} ms"
        );
        assert!(version >= must_see, "at {now} version {version} of {resource} hides the write {must_see}");
        assert_eq!(
            (shown.resource, shown.division),
            (resource, ask.division),
            "at {now}: of another division"
        );
        assert!(resource != VARYING || shown.agent == ask.agent, "at {now}: for another agent");
    }

    fn depart(&mut self, errand: &Errand, ask: Ask, who: Option<Who>, way: Way) {
        self.flights.insert(errand.flight, Known { who, left: false });
        let leave = Later::Leave { flight: errand.flight, ask, way, tag: tag(errand) };
        self.later.push((self.now + way.line, leave));
    }

    fn read(&mut self, ask: Ask, who: Who, way: Way) -> u64 {
        self.readers += 1;
        let must_see = self.judge.seen[ask.resource];
        self.look(self.readers, ask, who, way, must_see);
        self.readers
    }

    fn look(&mut self, name: u64, ask: Ask, who: Who, way: Way, must_see: u64) {
        let request = get(ask);
        let key = CacheKey::of("anna", &request.method, &request.uri, &request.headers).unwrap();
        let reader = Reader::of(&request.headers, who.class).by(CallerId::named(who.caller));
        let waiting = |flight, leads| Waiting { name, flight, ask, who, way, leads, must_see };
        match self.cache.look(&key, &reader, &request, at(self.now)) {
            Look::Hit(kept) => {
                assert!(!is_personal(kept.body.1, kept.body.0), "at {}: the cookie of another", self.now);
                self.check(ask, kept.body, must_see, kept.age(at(self.now)));
            }
            Look::Join(flight) => {
                let Known { who: theirs, left } = self.flights[&flight];
                let is_own = theirs.is_some_and(|it| it.caller == who.caller && it.class <= who.class);
                assert!(left || is_own, "at {} {who:?} waits in the line of {theirs:?}", self.now);
                self.waiting.push(waiting(flight, false));
            }
            Look::Fetch(errand) => {
                self.waiting.push(waiting(errand.flight, true));
                self.depart(&errand, ask, Some(who), way);
            }
            Look::Nothing => unreachable!("nobody asks for kept answers only"),
        }
    }

    fn happen(&mut self, later: Later) {
        match later {
            Later::Leave { flight, ask, way, tag } => self.leave(flight, ask, way, tag),
            Later::Arrive { flight, ask, sent, back, tag } => {
                let version = self.judge.version(ask.resource);
                let failed = std::mem::take(&mut self.failing[ask.resource]);
                let status = match (failed, tag == Some(version)) {
                    (true, _) => 503,
                    (false, true) => 304,
                    (false, false) => 200,
                };
                self.later.push((self.now + back, Later::Land { flight, ask, sent, version, status }));
            }
            Later::Land { flight, ask, sent, version, status } => {
                self.land(flight, ask, sent, (version, status));
            }
            Later::Apply { resource, back } => {
                self.judge.history[resource].push(self.now);
                let version = self.judge.version(resource);
                self.later.push((self.now + back, Later::Wrote { resource, version }));
            }
            Later::Wrote { resource, version } => {
                self.cache.wrote(&path(resource));
                self.judge.seen[resource] = self.judge.seen[resource].max(version);
            }
            Later::HangUp { reader } => self.hang_up(reader),
            Later::ArriveList { list, sent } => {
                let item = |id: usize| format!(r#"{{"id": "{id}", "version": {}}}"#, self.judge.version(id));
                let told = (0..RESOURCES).map(item).collect::<Vec<_>>().join(",");
                let (_, slot) = self.lists[list].as_mut().unwrap();
                *slot = Some(format!(r#"{{"entities": [{told}]}}"#));
                self.later.push((self.now + 20, Later::LandList { list, sent }));
            }
            Later::LandList { list, sent } => {
                let (roll, body) = self.lists[list].take().unwrap();
                let told = match self.list.take() {
                    Some(Step::Deny) => Told::Denied,
                    Some(_) => Told::Nothing,
                    None => {
                        let body = body.as_ref().unwrap().as_bytes();
                        Told::List { body, sent: at(sent), age: Duration::ZERO }
                    }
                };
                for (errand, ask) in self.cache.land_roll(roll, told, at(self.now)) {
                    self.depart(&errand, ask, None, Way { line: 0, to: 20, back: 20 });
                }
            }
        }
    }

    fn leave(&mut self, flight: FlightId, ask: Ask, way: Way, tag: Option<u64>) {
        let is_awaited = self.waiting.iter().any(|reader| reader.flight == flight);
        let Some(folded) = self.cache.leaves(flight, at(self.now)) else {
            assert!(!is_awaited, "at {}: what is waited for never leaves", self.now);
            return;
        };
        let known = self.flights.get_mut(&flight).unwrap();
        assert!(is_awaited || known.who.is_none(), "at {}: a call leaves for nobody", self.now);
        known.left = true;
        for reader in self.waiting.iter_mut().filter(|reader| folded.contains(&reader.flight)) {
            (reader.flight, reader.leads) = (flight, false);
        }
        self.calls[ask.resource].push(self.now);
        let arrive = Later::Arrive { flight, ask, sent: self.now, back: way.back, tag };
        self.later.push((self.now + way.to, arrive));
    }

    fn hang_up(&mut self, reader: u64) {
        let Some(place) = self.waiting.iter().position(|waiting| waiting.name == reader) else { return };
        let Waiting { flight, .. } = self.waiting.remove(place);
        let is_awaited = self.waiting.iter().any(|reader| reader.flight == flight);
        let Known { who, left } = self.flights[&flight];
        if !is_awaited && who.is_some() {
            assert_eq!(self.cache.forsake(flight), !left, "at {}", self.now);
        }
    }

    fn land(&mut self, flight: FlightId, ask: Ask, sent: u64, (version, status): (u64, u16)) {
        let request = get(ask);
        let landing = Landing {
            request: &request,
            response: answer(ask, status, version, self.plain),
            body: if status == 304 { (0, ask) } else { (version, ask) },
            length: 8,
            sent: at(sent),
            sent_wall: wall(sent),
            ask_length: 0,
            version: (status == 200).then(|| version.to_string().into()),
        };
        match self.cache.land(flight, landing, ask, at(self.now)) {
            Landed::Answer(kept) => self.give(flight, &kept, false),
            Landed::Own(kept) => self.give(flight, &kept, true),
            Landed::Again(errand) => {
                let who = self.flights[&flight].who;
                self.depart(&errand, ask, who, Way { line: 1, to: 1, back: 1 });
            }
        }
    }

    fn give(&mut self, flight: FlightId, kept: &Kept<Body>, is_own: bool) {
        let waiting = std::mem::take(&mut self.waiting);
        let (mine, others): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|reader| reader.flight == flight);
        self.waiting = others;
        for reader in mine {
            let Waiting { name, ask, who, way, leads, must_see, .. } = reader;
            if (is_own && !leads) || !kept.serves(&get(ask)) {
                self.look(name, ask, who, way, must_see);
            } else if kept.status == 200 {
                self.check(ask, kept.body, must_see, kept.age(at(self.now)));
            }
        }
    }

    /// Lets everything happen until `end`.
    fn pass(&mut self, end: u64) {
        loop {
            let next = self.later.iter().enumerate().min_by_key(|(at, (when, _))| (*when, *at));
            let next = next.map(|(at, (when, _))| (*when, at)).filter(|(when, _)| *when <= end);
            let wake = self
                .cache
                .wake()
                .map(|wake| (wake.as_nanos() / 1_000_000).max(self.now))
                .filter(|wake| *wake <= end);
            match (next, wake) {
                (None, None) => break,
                (next, Some(wake)) if next.is_none_or(|(when, _)| wake < when) => {
                    self.now = wake;
                    for roll in self.cache.rolls(at(wake) + Duration::from_millis(1)) {
                        let list = self.lists.len();
                        self.lists.push(Some((roll, None)));
                        self.later.push((self.now + 20, Later::ArriveList { list, sent: self.now }));
                    }
                    for (errand, ask) in self.cache.due(at(wake) + Duration::from_millis(1)) {
                        self.depart(&errand, ask, None, Way { line: 0, to: 20, back: 20 });
                    }
                }
                (Some((when, index)), _) => {
                    self.now = when;
                    let (_, later) = self.later.remove(index);
                    self.happen(later);
                }
                (None, Some(_)) => unreachable!("the arm before took it"),
            }
        }
        self.now = end;
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Wait(millis) => self.pass(self.now + millis),
            Step::Read(ask, who, way, patience) => {
                let reader = self.read(ask, who, way);
                if let Some(patience) = patience {
                    self.later.push((self.now + patience, Later::HangUp { reader }));
                }
            }
            Step::Write(resource, way) => {
                self.cache.wrote(&path(resource));
                self.later.push((self.now + way.to, Later::Apply { resource, back: way.back }));
            }
            Step::Change(resource) => {
                let now = self.now;
                self.judge.history[resource].push(now);
            }
            Step::Fail(resource) => self.failing[resource] = true,
            Step::Deny | Step::Miss => self.list = Some(step),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn readers_are_given_what_is_theirs_as_young_as_promised_and_after_every_write(
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.pass(world.now + 60_000);
        prop_assert!(world.waiting.is_empty(), "everybody was answered");
    }

    #[test]
    fn steady_readers_cost_one_call_per_age(gap in 5_u64..200, travel in 1_u64..60) {
        let mut world = World::without_lists();
        let ask = Ask { resource: 0, division: 0, agent: 0 };
        let way = Way { line: 0, to: travel, back: travel };
        for _ in 0..(30_000 / gap) {
            world.read(ask, Who { caller: 0, class: Class::Interactive }, way);
            world.pass(world.now + gap);
        }
        // Renewals of this world take 40 ms; they leave twice that before the end, or twice the first read's time where
        // that was longer, which is forgotten slowly.
        let trip = (2 * travel).max(40);
        let most = world.now.div_ceil(MAX_AGE - 2 * trip) + 1;
        prop_assert!(world.calls[0].len() as u64 <= most, "{} calls, at most {most}", world.calls[0].len());
    }

    #[test]
    fn however_many_callers_wait_in_their_lines_one_call_leaves(lines in prop::collection::vec(1_u64..900, 2..30)) {
        let mut world = World::new();
        let ask = Ask { resource: 0, division: 0, agent: 0 };
        for (caller, line) in (0..).zip(&lines) {
            world.read(ask, Who { caller, class: Class::Interactive }, Way { line: *line, to: 50, back: 50 });
        }
        world.pass(1000);
        prop_assert!(world.waiting.is_empty());
        prop_assert_eq!(&world.calls[0], &vec![*lines.iter().min().unwrap()], "the first that may, and no other");
    }
}

/// Everything is read steadily for ten seconds; `meanwhile` happens after two. Gives the calls of each and the lists.
fn steady(mut world: World, meanwhile: Step) -> (Vec<usize>, usize) {
    let who = Who { caller: 0, class: Class::Interactive };
    for turn in 0..200 {
        for resource in 0..RESOURCES {
            world.read(Ask { resource, division: 0, agent: 0 }, who, Way { line: 0, to: 20, back: 20 });
            world.pass(world.now + 7);
        }
        world.pass(world.now + 29);
        if turn == 40 {
            world.step(meanwhile);
        }
    }
    (world.calls.iter().map(Vec::len).collect(), world.lists.len())
}

#[test]
fn one_list_renews_all_that_did_not_change_and_what_did_is_asked_for_alone() {
    let (alone, lists) = steady(World::without_lists().plain(), Step::Wait(0));
    assert!(lists == 0 && alone.iter().all(|calls| *calls >= 10), "{alone:?}");
    let (calls, lists) = steady(World::new().plain(), Step::Wait(0));
    assert_eq!(calls, [1, 1, 1], "each was asked for once, by its first reader");
    assert!((10..=12).contains(&lists), "{lists} lists");
    let (calls, _) = steady(World::new().plain(), Step::Change(1));
    assert_eq!(calls, [1, 2, 1], "what changed was asked for alone, once");
}

#[test]
fn a_list_that_is_not_told_costs_one_call_and_is_left_alone() {
    let (calls, lists) = steady(World::new().plain(), Step::Deny);
    assert!(lists <= 3, "{lists} lists");
    assert!(calls.iter().all(|calls| (8..=10).contains(calls)), "{calls:?}: one by one from then on");
    let (calls, lists) = steady(World::new().plain(), Step::Miss);
    assert_eq!(calls, [2, 2, 2], "one that was not asked is asked again");
    assert!((9..=11).contains(&lists), "{lists} lists");
}
