use http::{HeaderName, HeaderValue, response};

use super::*;
use crate::time::Wall;

type Small = Cache<&'static str, u64>;

const PATH: &str = "/api/v2/scripts/7";

fn rules() -> Arc<[FreshRule]> {
    let path = crate::glob::PathGlob::parse("/api/v2/scripts/*").unwrap();
    Arc::from([FreshRule { path, max_age: secs(5) }])
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn at(millis: u64) -> Mono {
    Mono::from_nanos(millis * 1_000_000)
}

fn wall(now: Mono) -> Wall {
    Wall::from_unix_millis(1_700_000_000_000 + i64::try_from(now.as_nanos() / 1_000_000).unwrap())
}

fn get(path: &str, headers: &[(HeaderName, &'static str)]) -> request::Parts {
    let mut request = http::Request::get(path).body(()).unwrap();
    for (name, value) in headers {
        request.headers_mut().append(name, HeaderValue::from_static(value));
    }
    request.into_parts().0
}

fn answer(status: u16, headers: &[(HeaderName, &'static str)]) -> response::Parts {
    let mut response = http::Response::builder().status(status).body(()).unwrap();
    for (name, value) in headers {
        response.headers_mut().append(name, HeaderValue::from_static(value));
    }
    response.into_parts().0
}

/// A cache with the requests that are made to it.
struct Bench {
    cache: Small,
}

impl Bench {
    fn new() -> Self {
        Self { cache: Small::new(rules(), Bounds::default()) }
    }

    fn look_at(&mut self, request: &request::Parts, class: Class, now: Mono) -> Look<u64> {
        let key = CacheKey::of("anna", &request.method, &request.uri, &request.headers).unwrap();
        self.cache.look(&key, &Reader::of(&request.headers, class), request, now)
    }

    fn look(&mut self, now: Mono) -> Look<u64> {
        self.look_at(&get(PATH, &[]), Class::Interactive, now)
    }

    fn fetch(&mut self, now: Mono) -> FlightId {
        match self.look(now) {
            Look::Fetch(errand) => errand.flight,
            other => panic!("{other:?} instead of a fetch"),
        }
    }

    fn land_as(
        &mut self,
        flight: FlightId,
        sent: Mono,
        now: Mono,
        response: response::Parts,
        body: u64,
    ) -> Landed<u64> {
        let request = get(PATH, &[]);
        let landing = Landing { request: &request, response, body, length: 8, sent, sent_wall: wall(sent) };
        self.cache.land(flight, landing, "again", now)
    }

    fn land(&mut self, flight: FlightId, sent: Mono, now: Mono, body: u64) {
        self.land_as(flight, sent, now, answer(200, &[]), body);
    }

    fn hit(&mut self, now: Mono) -> Option<u64> {
        match self.look(now) {
            Look::Hit(kept) => Some(kept.body),
            _ => None,
        }
    }
}

#[test]
fn readers_of_one_answer_share_one_call() {
    let mut bench = Bench::new();
    let flight = bench.fetch(at(0));
    for _ in 0..499 {
        assert!(matches!(bench.look(at(10)), Look::Join(joined) if joined == flight));
    }
    bench.land(flight, at(0), at(50), 1);
    assert_eq!(bench.hit(at(60)), Some(1));
    assert_eq!(bench.cache.tally(), Tally { hits: 1, joins: 499, fetches: 1, ..Tally::default() });
}

#[test]
fn an_answer_ages_from_the_instant_its_request_left() {
    let mut bench = Bench::new();
    let flight = bench.fetch(at(0));
    bench.land(flight, at(1000), at(3000), 1);
    assert_eq!(bench.hit(at(5999)), Some(1));
    let Look::Hit(kept) = bench.look(at(5999)) else { panic!("it holds") };
    assert_eq!(kept.age(at(5999)), Duration::from_millis(4999));
    assert_eq!(bench.hit(at(6000)), None);
}

#[test]
fn the_age_other_caches_told_counts() {
    let mut bench = Bench::new();
    let flight = bench.fetch(at(0));
    bench.land_as(flight, at(0), at(10), answer(200, &[(header::AGE, "3")]), 1);
    assert_eq!(bench.hit(at(1999)), Some(1));
    assert_eq!(bench.hit(at(2000)), None);
}

#[test]
fn a_read_answer_is_renewed_before_its_end_and_an_unread_one_is_not() {
    let mut bench = Bench::new();
    let flight = bench.fetch(at(0));
    bench.land(flight, at(0), at(100), 1);
    assert_eq!(bench.cache.wake(), None, "whoever fetched it has it");
    assert_eq!(bench.hit(at(1000)), Some(1));
    assert_eq!(bench.cache.wake(), Some(at(4800)));
    assert!(bench.cache.due(at(4799)).is_empty());
    let due = bench.cache.due(at(4800));
    assert_eq!(due.len(), 1);
    assert_eq!((due[0].0.by, due[0].1), (Some(at(5000)), "again"));
    assert_eq!(bench.hit(at(4850)), Some(1), "the old one serves meanwhile");
    bench.land(due[0].0.flight, at(4800), at(4900), 2);
    assert_eq!(bench.hit(at(9000)), Some(2));
}

#[test]
fn a_reader_after_the_end_waits_for_the_renewal() {
    let mut bench = Bench::new();
    let flight = bench.fetch(at(0));
    bench.land(flight, at(0), at(100), 1);
    bench.hit(at(1000));
    let due = bench.cache.due(at(4800));
    assert!(matches!(bench.look(at(5000)), Look::Join(joined) if joined == due[0].0.flight));
}

#[test]
fn a_failed_renewal_leaves_the_answer_its_time() {
    let mut bench = Bench::new();
    let flight = bench.fetch(at(0));
    bench.land(flight, at(0), at(100), 1);
    bench.hit(at(1000));
    let due = bench.cache.due(at(4800));
    bench.land_as(due[0].0.flight, at(4800), at(4900), answer(503, &[]), 0);
    assert_eq!(bench.hit(at(4999)), Some(1));
    assert_eq!(bench.hit(at(5000)), None);
}

#[test]
fn a_lost_permission_ends_what_was_kept() {
    let mut bench = Bench::new();
    let flight = bench.fetch(at(0));
    bench.land(flight, at(0), at(100), 1);
    bench.hit(at(1000));
    let due = bench.cache.due(at(4800));
    bench.land_as(due[0].0.flight, at(4800), at(4900), answer(403, &[]), 0);
    assert_eq!(bench.hit(at(4950)), None);
}

#[test]
fn a_write_closes_what_is_kept_and_what_is_under_way() {
    let mut bench = Bench::new();
    let before = bench.fetch(at(0));
    bench.cache.wrote("/api/v2/scripts/7/pages");
    let after = bench.fetch(at(20));
    assert_ne!(before, after, "the old flight may have read before the write");
    bench.land(after, at(20), at(40), 2);
    bench.land(before, at(0), at(60), 1);
    assert_eq!(bench.hit(at(70)), Some(2));
    bench.cache.wrote("/api/v2/scripts/7");
    assert_eq!(bench.hit(at(80)), None);
    assert_eq!(bench.cache.tally().closed, 1);
}

#[test]
fn a_write_elsewhere_closes_nothing() {
    let mut bench = Bench::new();
    let flight = bench.fetch(at(0));
    bench.land(flight, at(0), at(10), 1);
    bench.cache.wrote("/api/v2/scripts/70");
    bench.cache.wrote("/api/v2/users/7");
    assert_eq!(bench.hit(at(20)), Some(1));
}

#[test]
fn an_urgent_reader_does_not_wait_in_the_line_of_a_slow_one() {
    let mut bench = Bench::new();
    let request = get(PATH, &[]);
    let Look::Fetch(slow) = bench.look_at(&request, Class::Bulk, at(0)) else { panic!("the first fetches") };
    let fast = bench.fetch(at(10));
    assert_ne!(slow.flight, fast);
    assert!(
        matches!(bench.look_at(&request, Class::Poll, at(20)), Look::Join(_)),
        "the other way round is fine"
    );
}

#[test]
fn who_wants_the_present_gets_it() {
    let mut bench = Bench::new();
    let flight = bench.fetch(at(0));
    let strict = get(PATH, &[(header::CACHE_CONTROL, "no-cache")]);
    assert!(matches!(bench.look_at(&strict, Class::Interactive, at(1)), Look::Fetch(_)));
    bench.land(flight, at(0), at(10), 1);
    assert!(matches!(bench.look_at(&strict, Class::Interactive, at(20)), Look::Fetch(_)));
    let young = get(PATH, &[(header::CACHE_CONTROL, "max-age=2")]);
    assert!(matches!(bench.look_at(&young, Class::Interactive, at(2000)), Look::Hit(_)));
    assert!(!matches!(bench.look_at(&young, Class::Interactive, at(2001)), Look::Hit(_)));
    let frugal = get("/api/v2/scripts/8", &[(header::CACHE_CONTROL, "only-if-cached")]);
    assert!(matches!(bench.look_at(&frugal, Class::Interactive, at(20)), Look::Nothing));
}

#[test]
fn without_a_rule_the_answer_says_how_long_it_holds() {
    let mut bench = Bench::new();
    for (control, holds) in [
        ("max-age=3", true),
        ("private, max-age=3", true),
        ("no-store", false),
        ("no-cache", false),
        ("", false),
    ] {
        let request = get("/api/v2/groups/1", &[]);
        let Look::Fetch(errand) = bench.look_at(&request, Class::Interactive, at(0)) else {
            panic!("nothing kept")
        };
        let response = answer(200, &[(header::CACHE_CONTROL, control)]);
        let landing =
            Landing { request: &request, response, body: 1, length: 8, sent: at(0), sent_wall: wall(at(0)) };
        bench.cache.land(errand.flight, landing, "again", at(10));
        let hit = matches!(bench.look_at(&request, Class::Interactive, at(2999)), Look::Hit(_));
        assert_eq!(hit, holds, "{control}");
        assert_eq!(bench.cache.wake(), None, "only a rule has answers renewed");
        bench.cache.wrote("/api/v2/groups/1");
    }
}

#[test]
fn what_varies_by_a_header_is_given_to_its_like_only() {
    let mut bench = Bench::new();
    let tag = HeaderName::from_static("x-division");
    let (north, south) = (get(PATH, &[(tag.clone(), "north")]), get(PATH, &[(tag, "south")]));
    let Look::Fetch(errand) = bench.look_at(&north, Class::Interactive, at(0)) else {
        panic!("nothing kept")
    };
    let response = answer(200, &[(header::VARY, "X-Division")]);
    let landing =
        Landing { request: &north, response, body: 1, length: 8, sent: at(0), sent_wall: wall(at(0)) };
    bench.cache.land(errand.flight, landing, "again", at(10));
    assert!(matches!(bench.look_at(&north, Class::Interactive, at(20)), Look::Hit(_)));
    assert!(!matches!(bench.look_at(&south, Class::Interactive, at(20)), Look::Hit(_)));
}

#[test]
fn unchanged_means_the_kept_body_with_a_new_age() {
    let mut bench = Bench::new();
    let flight = bench.fetch(at(0));
    bench.land_as(flight, at(0), at(10), answer(200, &[(header::ETAG, "\"v1\"")]), 1);
    bench.hit(at(20));
    let due = bench.cache.due(at(4990));
    assert_eq!(due[0].0.conditions, [(header::IF_NONE_MATCH, HeaderValue::from_static("\"v1\""))]);
    bench.land_as(due[0].0.flight, at(4990), at(5000), answer(304, &[(header::ETAG, "\"v1\"")]), 0);
    let Look::Hit(kept) = bench.look(at(9989)) else { panic!("renewed") };
    assert_eq!((kept.body, kept.status), (1, StatusCode::OK));
    assert_eq!(kept.age(at(9989)), Duration::from_millis(4999));
}

#[test]
fn unchanged_of_something_else_is_asked_again_without_conditions() {
    let mut bench = Bench::new();
    let flight = bench.fetch(at(0));
    bench.land_as(flight, at(0), at(10), answer(200, &[(header::ETAG, "\"v1\"")]), 1);
    bench.hit(at(20));
    let due = bench.cache.due(at(4990));
    let landed =
        bench.land_as(due[0].0.flight, at(4990), at(5000), answer(304, &[(header::ETAG, "\"v2\"")]), 0);
    let Landed::Again(errand) = landed else { panic!("{landed:?}") };
    assert!(errand.conditions.is_empty());
    bench.land(errand.flight, at(5010), at(5020), 2);
    assert_eq!(bench.hit(at(5030)), Some(2));
}

#[test]
fn conditions_of_a_reader_are_left_as_they_are() {
    let mut bench = Bench::new();
    let request = get(PATH, &[(header::IF_NONE_MATCH, "\"v1\"")]);
    let Look::Fetch(errand) = bench.look_at(&request, Class::Interactive, at(0)) else {
        panic!("nothing kept")
    };
    let response = answer(304, &[(header::ETAG, "\"v1\"")]);
    let landing =
        Landing { request: &request, response, body: 0, length: 0, sent: at(0), sent_wall: wall(at(0)) };
    bench.cache.land(errand.flight, landing, "again", at(10));
    let Look::Hit(kept) = bench.look_at(&request, Class::Interactive, at(20)) else { panic!("kept") };
    assert_eq!(kept.status, StatusCode::NOT_MODIFIED);
    assert!(bench.cache.due(at(4990))[0].0.conditions.is_empty());
}

#[test]
fn a_covered_answer_stands_until_an_event_closes_it() {
    let mut bench = Bench::new();
    bench.cache.cover(PATH, at(0));
    let flight = bench.fetch(at(5));
    bench.land(flight, at(5), at(20), 1);
    assert_eq!(bench.hit(at(60_000)), Some(1));
    assert_eq!(bench.cache.wake(), None, "events renew it, not time");
    let errands = bench.cache.event(PATH, at(61_000));
    assert_eq!(errands.len(), 1);
    assert!(matches!(bench.look(at(61_010)), Look::Join(_)));
    bench.land(errands[0].0.flight, at(61_000), at(61_050), 2);
    assert_eq!(bench.hit(at(61_060)), Some(2));
    bench.cache.uncover(PATH);
    assert_eq!(bench.hit(at(66_000)), None, "it is as old as it is");
}

#[test]
fn what_was_read_before_the_events_began_is_not_covered() {
    let mut bench = Bench::new();
    let flight = bench.fetch(at(0));
    bench.cache.cover(PATH, at(5));
    bench.land(flight, at(0), at(20), 1);
    assert_eq!(bench.hit(at(5000)), None);
}

#[test]
fn bounds_hold_and_the_longest_unused_goes_first() {
    let mut bench = Bench::new();
    bench.cache = Small::new(rules(), Bounds { entries: 2, ..Bounds::default() });
    let read = |bench: &mut Bench, path: &str, now| {
        let request = get(path, &[]);
        if let Look::Fetch(errand) = bench.look_at(&request, Class::Interactive, now) {
            let landing = Landing {
                request: &request,
                response: answer(200, &[]),
                body: 1,
                length: 8,
                sent: now,
                sent_wall: wall(now),
            };
            bench.cache.land(errand.flight, landing, "again", now);
            return false;
        }
        true
    };
    assert!(!read(&mut bench, "/api/v2/scripts/1", at(1)));
    assert!(!read(&mut bench, "/api/v2/scripts/2", at(2)));
    assert!(read(&mut bench, "/api/v2/scripts/1", at(3)));
    assert!(!read(&mut bench, "/api/v2/scripts/3", at(4)));
    assert!(read(&mut bench, "/api/v2/scripts/1", at(5)));
    assert!(!read(&mut bench, "/api/v2/scripts/2", at(6)), "it was thrown out");
    assert_eq!(bench.cache.held().0, 2);
    assert_eq!(bench.cache.tally().evicted, 2);
}
