//! The whole server without sockets, in explicit time.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tidegate_sim::model::fault::Fault;
use tidegate_sim::model::world::{Reply, World};
use tidegate_sim::wire::message::{ApiRequest, ApiResponse};
use tidegate_sim::{Faults, SimConfig};

const FIRST: &str = "/api/v2/users/00000000-0000-4000-8000-000000000001";

fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

/// A world, a valid token, and short ways to call.
struct Bench {
    world: World,
    token: String,
}

impl Bench {
    fn new(toml: &str) -> Self {
        let config = SimConfig::from_toml(toml).unwrap();
        let mut world = World::new(config, Duration::from_secs(1_700_000_000));
        let token = login(&mut world, 0, "demo-client");
        Self { world, token }
    }

    fn request(&self, method: &str, target: &str, id: Option<&str>, body: &Value) -> ApiRequest {
        let mut request = ApiRequest::new(method.parse().unwrap(), target);
        request.headers.insert("authorization", format!("Bearer {}", self.token).parse().unwrap());
        if let Some(id) = id {
            request.headers.insert("x-genesys-request-id", id.parse().unwrap());
        }
        request.body = body.to_string().into_bytes();
        request
    }

    /// One call from arrival to departure; `None` if the connection was closed.
    fn call(
        &mut self,
        at: u64,
        method: &str,
        target: &str,
        id: Option<&str>,
        body: &Value,
    ) -> Option<ApiResponse> {
        let request = self.request(method, target, id, body);
        call(&mut self.world, at, &request)
    }

    fn get(&mut self, at: u64, target: &str) -> ApiResponse {
        self.call(at, "GET", target, None, &Value::Null).unwrap()
    }
}

fn call(world: &mut World, at: u64, request: &ApiRequest) -> Option<ApiResponse> {
    let arrival = world.arrive(request);
    let decision = world.decide(ms(at), arrival.id, request);
    world.depart(arrival.id);
    match decision.reply {
        Reply::Answer(response) => Some(response),
        Reply::Close => None,
    }
}

fn login(world: &mut World, at: u64, client: &str) -> String {
    let mut request = ApiRequest::new(Method::POST, "/oauth/token");
    request.body =
        format!("grant_type=client_credentials&client_id={client}&client_secret=demo-secret").into_bytes();
    let body = json_of(&call(world, at, &request).unwrap());
    body["access_token"].as_str().unwrap().to_owned()
}

fn json_of(response: &ApiResponse) -> Value {
    serde_json::from_slice(&response.body).unwrap()
}

fn skill(index: usize, proficiency: u32) -> Value {
    json!([{ "id": tidegate_sim::model::org::skills::id(index), "proficiency": proficiency }])
}

#[test]
fn a_reused_key_returns_the_original_answer_and_ignores_the_new_body() {
    let mut bench = Bench::new("dedup = \"24h\"");
    let target = format!("{FIRST}/routingskills/bulk");
    let first = bench.call(0, "PUT", &target, Some("key"), &skill(0, 1)).unwrap();
    let second = bench.call(1, "PUT", &target, Some("key"), &skill(1, 5)).unwrap();
    assert_eq!((second.status, &second.body), (200, &first.body));
    let stats = bench.world.stats(ms(2), true);
    assert_eq!((stats.replayed, stats.writes.values().sum::<u64>()), (1, 1));
    let skills = &stats.users.unwrap()["00000000-0000-4000-8000-000000000001"];
    assert_eq!(skills.get(&tidegate_sim::model::org::skills::id(0)), Some(&1.0));
    assert_eq!(skills.len(), 1);
}

#[test]
fn without_deduplication_the_same_post_creates_two_users() {
    let mut bench = Bench::new("users = 0");
    let body = json!({ "name": "Ann", "email": "ann@example.com" });
    for at in 0..2 {
        bench.call(at, "POST", "/api/v2/users", Some("key"), &body).unwrap();
    }
    let stats = bench.world.stats(ms(2), false);
    assert_eq!(stats.users_total, 2);
    assert_eq!((stats.duplicates, stats.duplicate_emails), (1, 1), "one mistake, counted once");
}

#[test]
fn an_expired_token_is_a_401_with_the_platforms_code() {
    let mut bench = Bench::new("[oauth]\ntoken_ttl = \"2s\"");
    assert_eq!(bench.get(1999, FIRST).status, 200);
    let expired = bench.get(2000, FIRST);
    assert_eq!(expired.status, 401);
    assert_eq!(json_of(&expired)["code"], "bad.credentials");
    assert_eq!(expired.header("x-rate-limit-limit"), None, "an unknown caller has no quota to describe");
    bench.token = login(&mut bench.world, 2000, "demo-client");
    assert_eq!(
        bench.get(2000, FIRST).header("X-Rate-Limit-Remaining"),
        Some("298"),
        "the quota outlives the token"
    );
}

#[test]
fn a_revoked_token_is_dead_at_once() {
    let mut bench = Bench::new("");
    assert_eq!(bench.get(0, "/api/v2/tokens/me").status, 200);
    assert_eq!(bench.call(1, "DELETE", "/api/v2/tokens/me", None, &Value::Null).unwrap().status, 200);
    assert_eq!(bench.get(2, "/api/v2/tokens/me").status, 401);
}

#[test]
fn every_answer_of_an_admitted_or_throttled_call_describes_the_quota() {
    let mut bench = Bench::new("limit = 2\nwindow = \"5s\"");
    let found = bench.get(1000, FIRST);
    let missing = bench.get(1500, "/api/v2/nothing/here");
    let throttled = bench.get(2000, FIRST);
    assert_eq!((found.status, missing.status, throttled.status), (200, 404, 429));
    let seen: Vec<_> = [&found, &missing, &throttled]
        .map(|answer| {
            ["x-rate-limit-remaining", "x-rate-limit-reset"].map(|name| answer.header(name).unwrap())
        })
        .to_vec();
    assert_eq!(seen, [["1", "1700000006"], ["0", "1700000006"], ["0", "1700000006"]]);
    assert_eq!(throttled.header("retry-after"), Some("4"));
    assert_eq!(
        json_of(&throttled)["message"],
        "Rate limit exceeded the maximum. Retry the request in [4] seconds"
    );
    assert_eq!(json_of(&throttled)["contextId"].as_str(), throttled.header("inin-correlation-id"));
}

#[test]
fn an_unknown_path_is_a_404_in_the_platforms_shape() {
    let mut bench = Bench::new("");
    let answer = bench.get(0, "/api/v2/nothing/here");
    assert_eq!((answer.status, &json_of(&answer)["code"]), (404, &json!("not.found")));
    bench.token = "none".to_owned();
    assert_eq!(bench.get(0, "/favicon.ico").status, 404, "outside the API no token is asked for");
    assert_eq!(bench.get(0, "/api/v2/nothing/here").status, 401);
}

#[test]
fn a_patch_burst_refuses_the_thirteenth_although_quota_is_left() {
    let mut bench = Bench::new("patch_burst = \"12 per 5s\"\nlimit_in_body = true");
    for at in 0..12 {
        assert_eq!(bench.call(at, "PATCH", FIRST, None, &json!({})).unwrap().status, 200);
    }
    let throttled = bench.call(12, "PATCH", FIRST, None, &json!({})).unwrap();
    assert_eq!(throttled.status, 429);
    assert_eq!(throttled.header("x-rate-limit-remaining"), Some("288"));
    assert_eq!(json_of(&throttled)["limit"]["key"], "patch.burst");
    assert_eq!(bench.get(13, FIRST).status, 200);
    assert_eq!(bench.world.stats(ms(13), false).throttled_per_limit["patch.burst"], 1);
}

#[test]
fn a_throttle_names_the_same_number_as_the_limits_api() {
    let mut bench = Bench::new("limit = 1\nwindow = \"5s\"\nlimit_in_body = true");
    let listing = json_of(&bench.get(0, "/api/v2/organizations/limits/namespaces/platform.api"));
    let throttled = json_of(&bench.get(1, FIRST));
    assert_eq!(throttled["limit"]["value"], 12);
    assert_eq!(throttled["limit"], listing["entities"][0]);
}

#[test]
fn bulk_calls_draw_from_their_own_allocation() {
    let mut bench = Bench::new("limit = 1\nbulk_allocation = \"2 per 60s\"");
    assert_eq!(bench.get(0, FIRST).status, 200);
    let submitted = bench.call(0, "POST", "/api/v2/bulk/messages", None, &json!([{}])).unwrap();
    assert_eq!(submitted.status, 202);
    let id = json_of(&submitted)["id"].as_str().unwrap().to_owned();
    assert_eq!(json_of(&bench.get(1000, &format!("/api/v2/bulk/messages/{id}")))["state"], "Succeeded");
    assert_eq!(bench.get(1000, &format!("/api/v2/bulk/messages/{id}")).status, 429);
    assert_eq!(bench.world.stats(ms(1000), false).throttled_per_limit["bulk"], 1);
}

#[test]
fn a_concurrency_cap_refuses_with_quota_left_until_a_call_departs() {
    let mut bench = Bench::new("concurrency = 1");
    let request = bench.request("GET", FIRST, None, &Value::Null);
    let first = bench.world.arrive(&request);
    bench.world.decide(ms(0), first.id, &request);
    let refused = bench.get(1, FIRST);
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("x-rate-limit-remaining"), Some("299"));
    bench.world.depart(first.id);
    assert_eq!(bench.get(2, FIRST).status, 200);
    assert_eq!(bench.world.stats(ms(2), false).max_in_flight, 2);
}

#[test]
fn strangers_draw_from_the_same_quota() {
    let mut bench =
        Bench::new("limit = 10\nwindow = \"60s\"\n[[strangers]]\nrate = 2\nfrom = \"1s\"\nto = \"3s\"");
    assert_eq!(bench.get(0, FIRST).header("x-rate-limit-remaining"), Some("9"));
    assert_eq!(bench.get(2900, FIRST).header("x-rate-limit-remaining"), Some("4"));
    let stats = bench.world.stats(ms(9000), false);
    assert_eq!((stats.strangers, stats.accepted), (4, 2));
    assert_eq!(stats.timeline.iter().map(|second| second.strangers).collect::<Vec<_>>(), [0, 2, 2]);
}

#[test]
fn scripted_faults_leave_the_caller_with_less_than_the_judge_knows() {
    let mut bench = Bench::new(
        "[faults]\nscript = [\"drop-before\", \"drop-after\", \"timeout-after\", \"unavailable\", \"internal-error\"]\nunavailable_hint = \"1500ms\"",
    );
    let target = format!("{FIRST}/routingskills/bulk");
    let mut patch = |key: &str| bench.call(0, "PATCH", &target, Some(key), &skill(0, 1));
    assert_eq!(patch("a"), None, "dropped before");
    assert_eq!(patch("b"), None, "dropped after");
    assert_eq!(patch("c").unwrap().status, 504);
    let unavailable = patch("d").unwrap();
    assert_eq!((unavailable.status, unavailable.header("retry-after")), (503, Some("2")));
    assert_eq!(patch("e").unwrap().status, 500);
    let stats = bench.world.stats(ms(0), false);
    assert_eq!(stats.writes["PATCH /api/v2/users/{id}/routingskills/bulk"], 2);
    assert_eq!((stats.lost, stats.accepted), (3, 5));
}

#[test]
fn a_brown_out_refuses_everything_and_draws_nothing() {
    let mut bench = Bench::new(
        "[[faults.brown_outs]]\nfrom = \"1s\"\nto = \"3s\"\nstatus = 429\n[[events]]\nat = \"2s\"\n[events.faults]\n",
    );
    let refused = bench.get(1000, FIRST);
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("2")));
    let served = bench.get(2000, FIRST);
    assert_eq!(
        (served.status, served.header("x-rate-limit-remaining")),
        (200, Some("299")),
        "the event ended it"
    );
}

#[test]
fn scopes_are_required_and_named() {
    let mut bench = Bench::new(
        "[[oauth.clients]]\nid = \"reader\"\nsecret = \"demo-secret\"\nscopes = [\"view:users\"]\n[[oauth.clients]]",
    );
    bench.token = login(&mut bench.world, 0, "reader");
    assert_eq!(bench.get(0, FIRST).status, 200);
    let denied = bench.call(0, "PATCH", FIRST, None, &json!({})).unwrap();
    assert_eq!(denied.status, 403);
    let body = json_of(&denied);
    assert_eq!(body["code"], "missing.any.permissions");
    assert!(body["message"].as_str().unwrap().ends_with("missing the following permission(s): edit:users"));
}

#[test]
fn latency_is_split_around_the_decision() {
    let mut bench = Bench::new("latency = \"100ms\"\ndecide_at = 0.25");
    let request = bench.request("GET", FIRST, None, &Value::Null);
    let arrival = bench.world.arrive(&request);
    assert_eq!(arrival.wait, ms(25));
    assert_eq!(bench.world.decide(ms(25), arrival.id, &request).wait, ms(75));
}

#[test]
fn the_servers_clock_may_be_wrong_but_its_date_says_so() {
    let mut bench = Bench::new("clock_ahead = \"1h\"");
    let answer = bench.get(0, FIRST);
    assert_eq!(answer.header("x-rate-limit-reset"), Some("1700003660"));
    assert_eq!(answer.header("date"), Some("Tue, 14 Nov 2023 23:13:20 GMT"));
}

#[test]
fn a_call_that_arrived_before_a_restart_does_no_harm_after_it() {
    let mut bench = Bench::new("concurrency = 1");
    let request = bench.request("GET", FIRST, None, &Value::Null);
    let old = bench.world.arrive(&request);
    bench.world = bench.world.restarted(bench.world.config().clone(), Duration::ZERO);
    bench.token = login(&mut bench.world, 0, "demo-client");
    let current = bench.request("GET", FIRST, None, &Value::Null);
    let new = bench.world.arrive(&current);
    bench.world.decide(ms(0), new.id, &current);
    bench.world.depart(old.id);
    assert_eq!(bench.get(0, FIRST).status, 429, "the new call still holds its place");
}

#[test]
fn the_same_seed_makes_the_same_run() {
    let run = |seed: u64| {
        let toml = format!(
            "seed = {seed}\nlimit = 20\nwindow = \"1s\"\nlatency = \"1ms..9ms\"\n[faults]\ndrop_before = 0.2\nunavailable = 0.2\n[[strangers]]\nrate = 7\nirregular = true"
        );
        let mut bench = Bench::new(&toml);
        let body = json!({ "name": "Ann", "email": "ann@example.com" });
        let mut answers = Vec::new();
        for at in 0..300 {
            answers.push(bench.call(at * 17, "POST", "/api/v2/users", Some(&at.to_string()), &body));
        }
        (answers, bench.world.stats(ms(6000), true))
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7).0, run(8).0);
}

#[test]
fn a_late_write_is_executed_after_its_connection_has_closed() {
    let mut bench = Bench::new("limit = 0\n[faults]\nscript = [\"late\", \"late\"]\nlate_by = \"1s..2s\"");
    let title = |bench: &mut Bench, at: u64| json_of(&bench.get(at, FIRST))["title"].clone();
    let body = json!({"title": "Lead", "version": 1});
    assert_eq!(bench.call(0, "PATCH", FIRST, Some("a"), &body), None);
    assert_eq!(bench.call(0, "GET", FIRST, None, &Value::Null), None, "a read is only cut");
    assert_eq!(title(&mut bench, 999), Value::Null);
    assert_eq!(bench.world.stats(ms(999), false).lost, 1, "nothing has happened yet");
    assert_eq!(title(&mut bench, 2_000), "Lead");
    let stats = bench.world.stats(ms(2_000), false);
    assert_eq!((stats.writes.values().sum::<u64>(), stats.lost, stats.faults["late"]), (1, 0, 2));
    // Overtaken by another write of the same version, it is refused like any other.
    bench.world.set_faults(ms(2_000), Faults { script: vec![Fault::Late], ..Faults::default() });
    let body = json!({"title": "Boss", "version": 2});
    assert_eq!(bench.call(2_000, "PATCH", FIRST, Some("b"), &body), None);
    assert_eq!(bench.call(2_001, "PATCH", FIRST, Some("b"), &body).unwrap().status, 200);
    assert_eq!(bench.world.stats(ms(9_000), false).duplicates, 0);
    assert_eq!(json_of(&bench.get(9_000, FIRST))["version"], 3);
}

#[test]
fn as_github_it_refuses_by_resource_and_an_unchanged_answer_is_free() {
    let config = SimConfig::from_toml(
        "headers = \"github\"\nlimit = 3\n[[limits]]\nkey = \"search\"\nmatch = \"/search/**\"\nquota = 1\n[[limits]]\nkey = \"content\"\nmatch = \"POST /**\"\nquota = 1\nhidden = true\n",
    );
    let mut bench = Bench {
        world: World::new(config.unwrap(), Duration::from_secs(1_700_000_000)),
        token: "ghp".to_owned(),
    };
    let told = |response: &ApiResponse, name: &str| response.header(name).map(str::to_owned);
    let first = bench.get(0, "/repos/o/r");
    assert_eq!((first.status, told(&first, "x-ratelimit-remaining").as_deref()), (200, Some("2")));
    assert_eq!(told(&first, "x-ratelimit-resource").as_deref(), Some("core"));
    let mut again = bench.request("GET", "/repos/o/r", None, &Value::Null);
    again.headers.insert("if-none-match", first.header("etag").unwrap().parse().unwrap());
    let unchanged = call(&mut bench.world, 1, &again).unwrap();
    assert_eq!((unchanged.status, told(&unchanged, "x-ratelimit-remaining").as_deref()), (304, Some("2")));
    assert!(unchanged.body.is_empty());

    let found = bench.get(2, "/search/issues");
    assert_eq!((found.status, told(&found, "x-ratelimit-resource").as_deref()), (200, Some("search")));
    let primary = bench.get(3, "/search/issues");
    assert_eq!((primary.status, told(&primary, "x-ratelimit-remaining").as_deref()), (403, Some("0")));
    assert!(told(&primary, "retry-after").is_none());
    assert!(json_of(&primary)["message"].as_str().unwrap().starts_with("API rate limit exceeded"));

    let state = json_of(&bench.get(4, "/rate_limit"));
    assert_eq!((&state["resources"]["core"]["remaining"], &state["rate"]["used"]), (&json!(2), &json!(1)));
    let body = json!({ "title": "one" });
    assert_eq!(bench.call(5, "POST", "/repos/o/r/issues", None, &body).unwrap().status, 201);
    let secondary = bench.call(6, "POST", "/repos/o/r/issues", None, &body).unwrap();
    assert_eq!((secondary.status, told(&secondary, "x-ratelimit-remaining").as_deref()), (403, Some("1")));
    assert_eq!(told(&secondary, "retry-after").as_deref(), Some("60"));
    bench.token.clear();
    assert_eq!(bench.get(7, "/repos/o/r").status, 401);
}
