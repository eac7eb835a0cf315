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
        let landing = Landing {
            request: &request,
            response,
            body,
            length: 8,
            sent,
            sent_wall: wall(sent),
            version: None,
            ask_length: 0,
        };
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
    bench.cache.leaves(due[0].0.flight, at(4800));
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
fn a_refusal_under_a_success_is_never_kept() {
    let mut bench = Bench::new();
    let flight = bench.fetch(at(0));
    let mut refusal = answer(200, &[]);
    refusal.extensions.insert(RefusesNow);
    bench.land_as(flight, at(0), at(50), refusal, 1);
    assert_eq!(bench.hit(at(60)), None);
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
fn a_login_that_ended_reads_nothing_any_more_and_others_do() {
    let mut bench = Bench::new();
    let kept = bench.fetch(at(0));
    bench.land(kept, at(0), at(10), 1);
    bench.cache.forget("berta");
    assert_eq!(bench.hit(at(20)), Some(1));
    let request = get("/api/v2/scripts/8", &[]);
    let under_way = fetch_of(&mut bench, &request, at(30));
    bench.cache.forget("anna");
    assert_eq!(bench.hit(at(40)), None);
    land_for(&mut bench, &request, under_way.flight, (at(30), answer(200, &[]), 2));
    assert!(!matches!(bench.look_at(&request, Class::Interactive, at(50)), Look::Hit(_)));
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

fn look_by(bench: &mut Bench, caller: &str, class: Class, now: Mono) -> Look<u64> {
    let request = get(PATH, &[]);
    let key = CacheKey::of("anna", &request.method, &request.uri, &request.headers).unwrap();
    let reader = Reader::of(&request.headers, class).by(CallerId::named(caller));
    bench.cache.look(&key, &reader, &request, now)
}

fn fetch_by(bench: &mut Bench, caller: &str, class: Class, now: Mono) -> FlightId {
    match look_by(bench, caller, class, now) {
        Look::Fetch(errand) => errand.flight,
        other => panic!("{other:?} instead of a fetch"),
    }
}

#[test]
fn nobody_waits_in_the_line_of_another_caller_and_the_first_to_leave_brings_the_answer_for_all() {
    let mut bench = Bench::new();
    let noisy = fetch_by(&mut bench, "noisy", Class::Interactive, at(0));
    let quiet = fetch_by(&mut bench, "quiet", Class::Interactive, at(10));
    assert!(
        matches!(look_by(&mut bench, "quiet", Class::Poll, at(20)), Look::Join(joined) if joined == quiet)
    );
    assert_eq!(bench.cache.leaves(quiet, at(30)), Some(vec![noisy]));
    assert_eq!(bench.cache.leaves(noisy, at(31)), None, "it need not");
    assert!(
        matches!(look_by(&mut bench, "third", Class::Interactive, at(40)), Look::Join(joined) if joined == quiet)
    );
    bench.land(quiet, at(30), at(50), 1);
    assert_eq!(bench.hit(at(60)), Some(1));
}

#[test]
fn an_urgent_read_waits_in_no_slower_line_of_its_own_caller() {
    let mut bench = Bench::new();
    let slow = fetch_by(&mut bench, "anna", Class::Sync, at(0));
    let fast = fetch_by(&mut bench, "anna", Class::Interactive, at(10));
    assert_eq!(bench.cache.leaves(fast, at(20)), Some(vec![slow]));
}

#[test]
fn what_left_before_a_write_takes_no_readers_of_what_waits_along() {
    let mut bench = Bench::new();
    let before = fetch_by(&mut bench, "noisy", Class::Interactive, at(0));
    bench.cache.wrote(PATH);
    let after = fetch_by(&mut bench, "quiet", Class::Interactive, at(10));
    assert_eq!(bench.cache.leaves(before, at(20)), Some(vec![]));
    assert_eq!(bench.cache.leaves(after, at(30)), Some(vec![]));
}

#[test]
fn what_nobody_waits_for_does_not_leave_and_what_has_left_is_awaited() {
    let mut bench = Bench::new();
    let flight = bench.fetch(at(0));
    assert!(bench.cache.forsake(flight));
    assert_eq!(bench.cache.leaves(flight, at(5)), None);
    let flight = bench.fetch(at(10));
    bench.cache.leaves(flight, at(10));
    assert!(!bench.cache.forsake(flight));
    bench.land(flight, at(10), at(20), 1);
    assert_eq!(bench.hit(at(30)), Some(1));
}

#[test]
fn a_reader_does_not_join_what_left_longer_ago_than_its_answer_may_be_old() {
    let mut bench = Bench::new();
    let flight = bench.fetch(at(0));
    bench.cache.leaves(flight, at(0));
    let young = get(PATH, &[(header::CACHE_CONTROL, "max-age=1")]);
    assert!(matches!(bench.look_at(&young, Class::Interactive, at(1000)), Look::Join(_)));
    assert!(matches!(bench.look(at(5000)), Look::Join(_)), "of a rule of 5 s");
    assert!(matches!(bench.look(at(5001)), Look::Fetch(_)));
    let mut bench = Bench::new();
    let flight = bench.fetch(at(0));
    bench.cache.leaves(flight, at(0));
    assert!(matches!(bench.look_at(&young, Class::Interactive, at(1001)), Look::Fetch(_)));
}

#[test]
fn a_renewal_is_no_more_urgent_than_those_who_read() {
    for (readers, class) in [
        (vec![Class::Interactive, Class::Poll], Class::Sync),
        (vec![Class::Poll], Class::Poll),
        (vec![Class::Poll, Class::Bulk], Class::Bulk),
    ] {
        let mut bench = Bench::new();
        let flight = bench.fetch(at(0));
        bench.land(flight, at(0), at(100), 1);
        for reader in &readers {
            assert!(matches!(bench.look_at(&get(PATH, &[]), *reader, at(1000)), Look::Hit(_)));
        }
        assert_eq!(bench.cache.due(at(4800))[0].0.class, class, "{readers:?}");
    }
}

#[test]
fn what_it_takes_to_ask_again_counts() {
    let mut bench = Bench::new();
    let request = get(PATH, &[]);
    let errand = fetch_of(&mut bench, &request, at(0));
    let (sent, sent_wall) = (at(0), wall(at(0)));
    let response = answer(200, &[]);
    let landing = Landing {
        request: &request,
        response,
        body: 1,
        length: 8,
        sent,
        sent_wall,
        version: None,
        ask_length: 50_000,
    };
    bench.cache.land(errand.flight, landing, "again", at(10));
    assert!(bench.cache.held().1 > 50_000, "{:?}", bench.cache.held());
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
        let landing = Landing {
            request: &request,
            response,
            body: 1,
            length: 8,
            sent: at(0),
            sent_wall: wall(at(0)),
            version: None,
            ask_length: 0,
        };
        bench.cache.land(errand.flight, landing, "again", at(10));
        let hit = matches!(bench.look_at(&request, Class::Interactive, at(2999)), Look::Hit(_));
        assert_eq!(hit, holds, "{control}");
        assert_eq!(bench.cache.wake(), None, "only a rule has answers renewed");
        bench.cache.wrote("/api/v2/groups/1");
    }
}

/// Two readers of one key, of whom the upstream makes a difference.
fn bot_and_phone() -> (request::Parts, request::Parts) {
    (get(PATH, &[(header::USER_AGENT, "bot")]), get(PATH, &[(header::USER_AGENT, "phone")]))
}

fn land_for(
    bench: &mut Bench,
    request: &request::Parts,
    flight: FlightId,
    (sent, response, body): (Mono, response::Parts, u64),
) -> Landed<u64> {
    let landing = Landing {
        request,
        response,
        body,
        length: 8,
        sent,
        sent_wall: wall(sent),
        version: None,
        ask_length: 0,
    };
    bench.cache.land(flight, landing, "again", sent + Duration::from_millis(10))
}

fn fetch_of(bench: &mut Bench, request: &request::Parts, now: Mono) -> Errand {
    match bench.look_at(request, Class::Interactive, now) {
        Look::Fetch(errand) => errand,
        other => panic!("{other:?} instead of a fetch"),
    }
}

#[test]
fn what_varies_by_a_header_is_given_to_its_like_only() {
    let mut bench = Bench::new();
    let (bot, phone) = bot_and_phone();
    let errand = fetch_of(&mut bench, &bot, at(0));
    let varying = answer(200, &[(header::VARY, "User-Agent")]);
    let Landed::Answer(kept) = land_for(&mut bench, &bot, errand.flight, (at(0), varying, 1)) else {
        panic!("it can be shared")
    };
    assert!(kept.serves(&bot) && !kept.serves(&phone), "who joined meanwhile is told");
    assert!(matches!(bench.look_at(&bot, Class::Interactive, at(20)), Look::Hit(_)));
    assert!(!matches!(bench.look_at(&phone, Class::Interactive, at(20)), Look::Hit(_)));
}

#[test]
fn nobody_is_told_unchanged_of_what_varies() {
    let mut bench = Bench::new();
    let (bot, phone) = bot_and_phone();
    let errand = fetch_of(&mut bench, &bot, at(0));
    let varying = answer(200, &[(header::VARY, "User-Agent"), (header::ETAG, "\"7\"")]);
    land_for(&mut bench, &bot, errand.flight, (at(0), varying, 1));
    let other = fetch_of(&mut bench, &phone, at(20));
    assert_eq!(other.conditions, [], "the tag is of the bot's answer");
    bench.cache.fail(other.flight);
    assert_eq!(fetch_of(&mut bench, &bot, at(6000)).conditions.len(), 1);
}

#[test]
fn agents_that_are_told_apart_do_not_throw_out_each_others_answers() {
    let mut bench = Bench::new();
    let (bot, phone) = bot_and_phone();
    for (now, request, body) in [(0, &bot, 1), (20, &phone, 2)] {
        let errand = fetch_of(&mut bench, request, at(now));
        let varying = answer(200, &[(header::VARY, "User-Agent")]);
        land_for(&mut bench, request, errand.flight, (at(now), varying, body));
    }
    for (request, body) in [(&bot, 1), (&phone, 2), (&bot, 1)] {
        let Look::Hit(kept) = bench.look_at(request, Class::Interactive, at(100)) else { panic!("{body}") };
        assert_eq!(kept.body, body);
    }
    bench.cache.wrote(PATH);
    assert_eq!(bench.cache.held().0, 0, "a write closes all of them");
}

#[test]
fn an_answer_that_sets_a_cookie_or_varies_by_anything_is_its_own_readers() {
    for own in [(header::SET_COOKIE, "session=1"), (header::VARY, "*")] {
        let mut bench = Bench::new();
        let flight = bench.fetch(at(0));
        let landed = bench.land_as(flight, at(0), at(10), answer(200, std::slice::from_ref(&own)), 1);
        assert!(matches!(landed, Landed::Own(_)), "{own:?}");
        assert_eq!(bench.hit(at(20)), None);
    }
}

#[test]
fn names_of_the_gateway_are_one_upstream() {
    let mut bench = Bench::new();
    let errand = fetch_of(&mut bench, &get(PATH, &[(header::HOST, "localhost:8787")]), at(0));
    bench.land(errand.flight, at(0), at(10), 1);
    let other = get(PATH, &[(header::HOST, "127.0.0.1:8787")]);
    assert!(matches!(bench.look_at(&other, Class::Interactive, at(20)), Look::Hit(_)));
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
fn unchanged_replaces_what_it_repeats_and_keeps_the_rest() {
    let mut bench = Bench::new();
    let flight = bench.fetch(at(0));
    let first = [
        (header::ETAG, "W/\"v1\""),
        (header::LINK, "</a>; rel=next"),
        (header::LINK, "</b>; rel=last"),
        (header::CONTENT_LENGTH, "8"),
        (header::WARNING, "old"),
        (header::WARNING, "older"),
    ];
    bench.land_as(flight, at(0), at(10), answer(200, &first), 1);
    bench.hit(at(20));
    let due = bench.cache.due(at(4990));
    // Some upstreams leave the tag out, though they compared it.
    let unchanged = [(header::WARNING, "new"), (header::CONTENT_LENGTH, "0"), (header::ALLOW, "GET")];
    let landed = bench.land_as(due[0].0.flight, at(4990), at(5000), answer(304, &unchanged), 0);
    let Landed::Answer(kept) = landed else { panic!("{landed:?}") };
    let all =
        |name| kept.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(all(header::LINK), ["</a>; rel=next", "</b>; rel=last"]);
    assert_eq!(all(header::WARNING), ["new"]);
    assert_eq!((all(header::CONTENT_LENGTH), all(header::ALLOW)), (vec!["8"], vec!["GET"]));
    assert_eq!(all(header::DATE), ["Tue, 14 Nov 2023 22:13:24 GMT"], "the recipient's, where there is none");
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
    let landing = Landing {
        request: &request,
        response,
        body: 0,
        length: 0,
        sent: at(0),
        sent_wall: wall(at(0)),
        version: None,
        ask_length: 0,
    };
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
    bench.cache.leaves(errands[0].0.flight, at(61_000));
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
                version: None,
                ask_length: 0,
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
