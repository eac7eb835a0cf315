//! Readers, writers and an upstream in random order, judged by somebody who saw everything.
//!
//! The judge knows which version of each resource the upstream had at every instant. It holds the cache to its promises: no answer older than
//! its rule allows or than its `Age` says, and nobody who reads after a write through the gateway sees what was before it.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, header, request, response};
use proptest::prelude::*;
use tidegate_core::cache::{Bounds, Cache, CacheKey, FlightId, FreshRule, Landed, Landing, Look, Reader};
use tidegate_core::glob::PathGlob;
use tidegate_core::schedule::Class;
use tidegate_core::time::{Mono, Wall};

/// What may happen next.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Time passes, in milliseconds.
    Wait(u64),
    /// Somebody reads resource `.0`; its call would take `.1` ms to reach the upstream and `.2` ms back.
    Read(usize, u64, u64),
    /// Somebody writes through the gateway, with the same times.
    Write(usize, u64, u64),
    /// Somebody else writes past the gateway.
    Change(usize),
    /// The upstream fails the next call of the resource.
    Fail(usize),
}

const MAX_AGE: u64 = 1000;
const RESOURCES: usize = 3;

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1_u64..400).prop_map(Step::Wait),
        8 => (0..RESOURCES, 0_u64..150, 0_u64..150).prop_map(|(at, to, back)| Step::Read(at, to, back)),
        1 => (0..RESOURCES, 0_u64..150, 0_u64..150).prop_map(|(at, to, back)| Step::Write(at, to, back)),
        2 => (0..RESOURCES).prop_map(Step::Change),
        1 => (0..RESOURCES).prop_map(Step::Fail),
    ]
}

/// What is under way: when it happens and what.
#[derive(Clone, Copy, Debug)]
enum Later {
    /// A call reaches the upstream.
    Arrive { flight: FlightId, resource: usize, sent: u64, back: u64, conditional: bool },
    /// Its answer is here: the version, and whether nothing changed or it failed.
    Land { flight: FlightId, resource: usize, sent: u64, version: u64, status: u16 },
    /// A write reaches the upstream.
    Apply { resource: usize, back: u64 },
    /// A write is answered.
    Wrote { resource: usize, version: u64 },
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

/// A reader who waits: since when, and what it must see at least.
struct Waiting {
    flight: FlightId,
    resource: usize,
    must_see: u64,
}

struct World {
    now: u64,
    cache: Cache<usize, u64>,
    judge: Judge,
    later: Vec<(u64, Later)>,
    waiting: Vec<Waiting>,
    failing: Vec<bool>,
    calls: Vec<Vec<u64>>,
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

fn get(resource: usize) -> request::Parts {
    http::Request::get(path(resource)).body(()).unwrap().into_parts().0
}

fn answer(status: u16, version: u64) -> response::Parts {
    let mut response = http::Response::builder().status(status).body(()).unwrap();
    let tag = HeaderValue::from_str(&format!("\"{version}\"")).unwrap();
    response.headers_mut().insert(header::ETAG, tag);
    response.into_parts().0
}

impl World {
    fn new() -> Self {
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
            failing: vec![false; RESOURCES],
            calls: vec![Vec::new(); RESOURCES],
        }
    }

    /// What the reader is given must be as young as promised, and not from before a write it could know of.
    fn check(&self, resource: usize, version: u64, must_see: u64, age: Duration) {
        let oldest = self.judge.version_at(resource, self.now.saturating_sub(MAX_AGE));
        assert!(
            version >= oldest,
            "at {} version {version} of {resource} is older than promised ({oldest})",
            self.now
        );
        let told = u64::try_from(age.as_millis()).unwrap();
        let then = self.judge.version_at(resource, self.now.saturating_sub(told));
        assert!(
            version >= then,
            "at {} version {version} of {resource} is older than its Age of {told} ms",
            self.now
        );
        assert!(
            version >= must_see,
            "at {} version {version} of {resource} hides the write {must_see}",
            self.now
        );
    }

    fn depart(&mut self, flight: FlightId, resource: usize, conditional: bool, to: u64, back: u64) {
        self.calls[resource].push(self.now);
        let arrive = Later::Arrive { flight, resource, sent: self.now, back, conditional };
        self.later.push((self.now + to, arrive));
    }

    fn read(&mut self, resource: usize, to: u64, back: u64) {
        let request = get(resource);
        let key = CacheKey::of("anna", &request.method, &request.uri, &request.headers).unwrap();
        let reader = Reader::of(&request.headers, Class::Interactive);
        let must_see = self.judge.seen[resource];
        match self.cache.look(&key, &reader, &request, at(self.now)) {
            Look::Hit(kept) => self.check(resource, kept.body, must_see, kept.age(at(self.now))),
            Look::Join(flight) => self.waiting.push(Waiting { flight, resource, must_see }),
            Look::Fetch(errand) => {
                self.waiting.push(Waiting { flight: errand.flight, resource, must_see });
                self.depart(errand.flight, resource, !errand.conditions.is_empty(), to, back);
            }
            Look::Nothing => unreachable!("nobody asks for kept answers only"),
        }
    }

    fn happen(&mut self, later: Later) {
        match later {
            Later::Arrive { flight, resource, sent, back, conditional } => {
                let version = self.judge.version(resource);
                let failed = std::mem::take(&mut self.failing[resource]);
                let status = if failed { 503 } else { 200 };
                // The validator that was sent is that of the kept answer, which may be gone by now; the flight has it still, so
                // the upstream of this world answers "not modified" only where the shelf shows what was sent.
                let unchanged = conditional && !failed && self.kept(resource) == Some(version);
                let status = if unchanged { 304 } else { status };
                self.later.push((self.now + back, Later::Land { flight, resource, sent, version, status }));
            }
            Later::Land { flight, resource, sent, version, status } => {
                let request = get(resource);
                let landing = Landing {
                    request: &request,
                    response: answer(status, version),
                    body: if status == 304 { 0 } else { version },
                    length: 8,
                    sent: at(sent),
                    sent_wall: wall(sent),
                };
                match self.cache.land(flight, landing, resource, at(self.now)) {
                    Landed::Answer(kept) => {
                        self.give(flight, kept.status.as_u16(), kept.body, kept.age(at(self.now)));
                    }
                    Landed::Again(errand) => self.depart(errand.flight, resource, false, 1, 1),
                }
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
        }
    }

    fn kept(&mut self, resource: usize) -> Option<u64> {
        let request = get(resource);
        let key = CacheKey::of("anna", &request.method, &request.uri, &request.headers).unwrap();
        let reader = Reader::of(&request.headers, Class::Interactive);
        let only = tidegate_core::cache::Wants { only_if_cached: true, ..reader.wants };
        match self.cache.look(&key, &Reader { wants: only, ..reader }, &request, at(self.now)) {
            Look::Hit(kept) => Some(kept.body),
            _ => None,
        }
    }

    fn give(&mut self, flight: FlightId, status: u16, version: u64, age: Duration) {
        let waiting = std::mem::take(&mut self.waiting);
        let (mine, others): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|reader| reader.flight == flight);
        self.waiting = others;
        for reader in mine.iter().filter(|_| status == 200) {
            self.check(reader.resource, version, reader.must_see, age);
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
                    for (errand, resource) in self.cache.due(at(wake) + Duration::from_millis(1)) {
                        self.depart(errand.flight, resource, !errand.conditions.is_empty(), 20, 20);
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
            Step::Read(resource, to, back) => self.read(resource, to, back),
            Step::Write(resource, to, back) => {
                self.cache.wrote(&path(resource));
                self.later.push((self.now + to, Later::Apply { resource, back }));
            }
            Step::Change(resource) => {
                let now = self.now;
                self.judge.history[resource].push(now);
            }
            Step::Fail(resource) => self.failing[resource] = true,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_answer_is_older_than_promised_and_reads_see_writes(steps in prop::collection::vec(step(), 1..200)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.pass(world.now + 2000);
        prop_assert!(world.waiting.is_empty(), "everybody was answered");
    }

    #[test]
    fn steady_readers_cost_one_call_per_age(gap in 5_u64..200, travel in 1_u64..60) {
        let mut world = World::new();
        for _ in 0..(30_000 / gap) {
            world.read(0, travel, travel);
            world.pass(world.now + gap);
        }
        // Renewals of this world take 40 ms; they leave twice that before the end, or twice the first read's time where
        // that was longer, which is forgotten slowly.
        let trip = (2 * travel).max(40);
        let most = world.now.div_ceil(MAX_AGE - 2 * trip) + 1;
        prop_assert!(world.calls[0].len() as u64 <= most, "{} calls, at most {most}", world.calls[0].len());
    }
}
