//! Several organisations behind one gateway, and callers with keys.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use http::Method;
use secrecy::SecretString;
use tidegate::token::ClientCredentials;
use tidegate::{Class, Profile, UpstreamConfig};
use tidegate_core::glob::PathGlob;
use tidegate_core::key::{CredentialId, Tenant};
use tidegate_core::pace::{LimitKind, LimitSpec, Observes, Partition};
use tidegate_gateway::{
    CallerConfig, Gateway, GatewayConfig, KeepKeys, KeepState, KeyHash, RouteRule, TenantConfig, start,
};
use tidegate_sim::{Sim, SimConfig};
use tokio::net::TcpListener;

use crate::stage::{Caller, Canned, FIRST, LOGIN, credential, field};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
const SKILL: &str = r#"{"id":"10000000-0000-4000-8000-000000000001","proficiency":3}"#;

async fn sim(settings: &str) -> Sim {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    tidegate_sim::serve(listener, SimConfig::from_toml(settings).unwrap()).await.unwrap()
}

/// A tenant on the upstream at `url`, with the simulator's own client.
fn tenant(name: &str, url: &str) -> TenantConfig {
    let profile = Profile::builtin("genesys-guide").unwrap();
    let mut upstream = UpstreamConfig::new(Arc::new(profile), url, url);
    upstream.tenant = Tenant::new(name);
    upstream.fetch_limits = false;
    upstream.credential = Some(credential());
    TenantConfig { upstream, state: KeepState::Nowhere, keys: KeepKeys::InMemory }
}

async fn gateway(config: GatewayConfig) -> (Gateway, Caller) {
    let data = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = start(config, Vec::new(), data, admin).unwrap();
    let caller = Caller::new(gateway.data_addr());
    (gateway, caller)
}

/// A gateway of these tenants, which paths name too.
async fn tenants(tenants: Vec<TenantConfig>) -> (Gateway, Caller) {
    gateway(GatewayConfig { tenants_by_path: true, ..GatewayConfig::of(tenants) }).await
}

fn key(name: &str) -> String {
    format!("tgk_{name}")
}

fn caller(name: &str, tenant: Option<&str>, classes: &[Class]) -> CallerConfig {
    CallerConfig {
        name: name.to_owned(),
        key: KeyHash::of(key(name).as_bytes()),
        tenant: tenant.map(str::to_owned),
        classes: classes.to_vec(),
        class: classes[0],
        weight: 1,
        max_calls: None,
    }
}

#[tokio::test]
async fn path_and_header_name_the_tenant_and_the_upstream_sees_neither() {
    let [(acme, acme_url), (globex, globex_url)] = [Canned::start(OK).await, Canned::start(OK).await];
    let anonymous = |name, url| {
        let mut tenant = tenant(name, url);
        tenant.upstream.credential = None;
        tenant
    };
    let (_gateway, caller) =
        tenants(vec![anonymous("acme", &acme_url), anonymous("globex", &globex_url)]).await;
    assert_eq!(caller.get("/t/acme/api/v2/users?pageSize=5").await.status, 200);
    let header = [("Tidegate-Tenant", "globex")];
    assert_eq!(caller.call(Method::GET, "/api/v2/queues", &header, "").await.status, 200);
    let both = caller.call(Method::GET, "/t/globex/api/v2/roles", &header, "").await;
    assert_eq!(both.status, 200, "who names it twice names it");
    let lines = |canned: &Canned| -> Vec<String> {
        canned.heads().iter().map(|head| head.lines().next().unwrap().to_owned()).collect()
    };
    assert_eq!(lines(&acme), ["GET /api/v2/users?pageSize=5 HTTP/1.1"]);
    assert_eq!(lines(&globex), ["GET /api/v2/queues HTTP/1.1", "GET /api/v2/roles HTTP/1.1"]);
    assert!(globex.heads().iter().all(|head| field(head, "tidegate-tenant").is_none()));
}

#[tokio::test]
async fn a_call_for_no_tenant_an_unknown_one_or_two_is_refused_in_the_upstreams_shape() {
    let (_gateway, caller) =
        tenants(vec![tenant("acme", "http://127.0.0.1:9"), tenant("globex", "http://127.0.0.1:9")]).await;
    for (target, header, status, reason, told) in [
        ("/api/v2/users", None, 400, "unknown-tenant", "/t/NAME"),
        ("/t/initech/api/v2/users", None, 404, "unknown-tenant", "`initech` is no tenant of this gateway"),
        ("/t/", None, 404, "unknown-tenant", "`` is no tenant"),
        ("/t/../api/v2/users", None, 404, "unknown-tenant", "`..` is no tenant"),
        ("/api/v2/users", Some("ACME"), 404, "unknown-tenant", "`ACME` is no tenant"),
        ("/oauth/token", None, 400, "unknown-tenant", "names no tenant"),
        ("/t/acme/api", Some("globex"), 400, "invalid-request", "`acme` and Tidegate-Tenant `globex`"),
    ] {
        let headers: Vec<_> = header.map(|name| ("Tidegate-Tenant", name)).into_iter().collect();
        let answer = caller.call(Method::GET, target, &headers, "").await;
        assert!(answer.is_ours(status, ("tidegate-refused", reason)), "{target} {answer:?}");
        assert!(answer.json()["message"].as_str().unwrap().contains(told), "{answer:?}");
    }
}

#[tokio::test]
async fn a_tenant_named_default_serves_calls_that_name_none() {
    let (default, url) = Canned::start(OK).await;
    let (_gateway, caller) =
        tenants(vec![tenant("acme", "http://127.0.0.1:9"), tenant("default", &url)]).await;
    let answer = caller.call(Method::GET, "/api/v2/users", &[("Authorization", "Bearer x")], "").await;
    assert_eq!((answer.status.as_u16(), default.heads().len()), (200, 1));
}

#[tokio::test]
async fn the_only_tenant_needs_no_name_and_its_upstream_may_have_paths_that_look_like_one() {
    let (canned, url) = Canned::start(OK).await;
    let mut one = tenant("acme", &url);
    one.upstream.credential = None;
    let (_gateway, caller) = gateway(GatewayConfig::of(vec![one])).await;
    assert_eq!(caller.get("/t/x").await.status, 200);
    assert!(canned.heads()[0].starts_with("GET /t/x "));
    let named = [("Tidegate-Tenant", "acme")];
    assert_eq!(caller.call(Method::GET, "/api", &named, "").await.status, 200);
    let other = caller.call(Method::GET, "/api", &[("Tidegate-Tenant", "globex")], "").await;
    assert!(other.is_ours(404, ("tidegate-refused", "unknown-tenant")), "{other:?}");
}

#[tokio::test]
async fn tenants_share_no_token_no_login_and_no_quota() {
    let [acme, globex] = [sim("limit = 3\nwindow = \"60s\"").await, sim("limit = 0").await];
    let (gateway, caller) = tenants(vec![tenant("acme", &acme.url()), tenant("globex", &globex.url())]).await;
    // What closes one's gate is nothing to the other.
    let spent =
        join_all((0..5).map(async |n| caller.get(&format!("/t/acme/api/v2/users?n={n}")).await)).await;
    assert_eq!(spent.iter().filter(|answer| answer.status == 200).count(), 3);
    for _ in 0..10 {
        let answer = caller.get("/t/globex/api/v2/users").await;
        assert_eq!((answer.status.as_u16(), answer.header("tidegate-limit")), (200, ""));
    }
    assert_eq!((acme.stats().oauth.calls, globex.stats().oauth.calls), (1, 1));
    // A login through one is a stranger's at the other.
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let login = caller.call(Method::POST, "/t/globex/oauth/token", &form, LOGIN).await;
    assert_eq!(login.status, 200);
    let bearer = format!("Bearer {}", login.json()["access_token"].as_str().unwrap());
    let state = Caller::new(gateway.admin_addr()).get("/api/state").await.json();
    let logins = |index: usize| state["tenants"][index]["learnt_logins"].as_u64();
    assert_eq!([logins(0), logins(1)], [Some(0), Some(1)]);
    let headers = [("Authorization", bearer.as_str())];
    let own = caller.call(Method::GET, "/t/globex/api/v2/users", &headers, "").await;
    let others = caller.call(Method::GET, "/t/acme/api/v2/users", &headers, "").await;
    assert_eq!((own.status.as_u16(), others.status.as_u16()), (200, 401), "{others:?}");
}

#[tokio::test]
async fn one_key_names_another_write_in_every_tenant_and_of_every_caller() {
    let sim = sim("limit = 0").await;
    let config = GatewayConfig {
        callers: vec![
            caller("a", Some("acme"), &Class::ALL),
            caller("b", Some("acme"), &Class::ALL),
            caller("c", Some("globex"), &Class::ALL),
        ],
        ..GatewayConfig::of(vec![tenant("acme", &sim.url()), tenant("globex", &sim.url())])
    };
    let (_gateway, http) = gateway(config).await;
    let target = format!("{FIRST}/routingskills");
    let mut replayed = Vec::new();
    for name in ["a", "a", "b", "c", "c"] {
        let key = key(name);
        let headers = [
            ("Tidegate-Key", key.as_str()),
            ("Tidegate-Caller", "one name"),
            ("Idempotency-Key", "import-7"),
            ("Content-Type", "application/json"),
        ];
        let answer = http.call(Method::POST, &target, &headers, SKILL).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        replayed.push(!answer.header("tidegate-replayed").is_empty());
    }
    assert_eq!(replayed, [false, true, false, false, true]);
}

#[tokio::test]
async fn a_key_is_needed_is_for_one_tenant_and_never_leaves() {
    let (canned, url) = Canned::start(OK).await;
    let anonymous = |name| {
        let mut tenant = tenant(name, &url);
        tenant.upstream.credential = None;
        tenant
    };
    let config = GatewayConfig {
        tenants_by_path: true,
        callers: vec![caller("wfm", Some("acme"), &[Class::Bulk, Class::Poll])],
        ..GatewayConfig::of(vec![anonymous("acme"), anonymous("globex")])
    };
    let (gateway_one, http) = gateway(config.clone()).await;
    let wfm = key("wfm");
    let own = ("Tidegate-Key", wfm.as_str());
    for (target, headers, status, reason) in [
        ("/t/acme/api", vec![], 401, "no-key"),
        ("/t/nobody/api", vec![], 401, "no-key"),
        ("/oauth/token", vec![], 401, "no-key"),
        ("/t/acme/api", vec![("Tidegate-Key", "tgk_wf")], 401, "unknown-key"),
        ("/t/globex/api", vec![own], 403, "wrong-tenant"),
        ("/t/nobody/api", vec![own], 403, "wrong-tenant"),
        ("/api", vec![own, ("Tidegate-Tenant", "globex")], 403, "wrong-tenant"),
        ("/api", vec![own, ("Tidegate-Class", "interactive")], 403, "class-forbidden"),
    ] {
        let answer = http.call(Method::GET, target, &headers, "").await;
        assert!(answer.is_ours(status, ("tidegate-refused", reason)), "{target} {headers:?}: {answer:?}");
    }
    assert!(canned.heads().is_empty());
    assert_eq!(http.call(Method::GET, "/api/v2/a", &[own], "").await.status, 200, "the key names its tenant");
    let polls = [own, ("Tidegate-Class", "poll")];
    assert_eq!(http.call(Method::GET, "/t/acme/api/v2/b", &polls, "").await.status, 200);
    assert!(canned.heads().iter().all(|head| !head.contains(&wfm) && field(head, "tidegate-key").is_none()));
    let admin = Caller::new(gateway_one.admin_addr());
    let text = String::from_utf8(admin.get("/metrics").await.body.to_vec()).unwrap();
    for line in [
        "tidegate_calls_total{class=\"bulk\",outcome=\"200\",tenant=\"acme\"} 1",
        "tidegate_calls_total{class=\"poll\",outcome=\"200\",tenant=\"acme\"} 1",
    ] {
        assert!(text.contains(line), "{line} is missing in {text}");
    }
    let state = admin.get("/api/state").await.json();
    assert_eq!(state["callers"][0]["caller"], "wfm");
    assert_eq!(state["callers"][0]["calls"]["came"], 2);
    assert!(!state.to_string().contains(&wfm), "nor is it shown");

    // Where it is said so, a call without a key is let in; one with a wrong key is not.
    let (_gateway, http) = gateway(GatewayConfig { anonymous: true, ..config }).await;
    assert_eq!(http.get("/t/globex/api").await.status, 200);
    let wrong = http.call(Method::GET, "/t/acme/api", &[("Tidegate-Key", "x")], "").await;
    assert!(wrong.is_ours(401, ("tidegate-refused", "unknown-key")), "{wrong:?}");
}

fn rule(text: &str) -> RouteRule {
    let (method, path) = match text.split_once(' ') {
        Some((method, path)) => (Some(method.parse().unwrap()), path),
        None => (None, text),
    };
    let path = PathGlob::parse(path).unwrap();
    RouteRule { method, path, class: None, deadline: None, tenant: None }
}

#[tokio::test]
async fn rules_say_class_deadline_and_tenant_of_calls_that_say_nothing() {
    let (canned, url) = Canned::start(OK).await;
    let anonymous = |name| {
        let mut tenant = tenant(name, &url);
        tenant.upstream.credential = None;
        tenant
    };
    let config = GatewayConfig {
        callers: vec![caller("desk", Some("acme"), &[Class::Interactive])],
        anonymous: true,
        routes: vec![
            RouteRule { class: Some(Class::Bulk), ..rule("GET /api/v2/analytics/**") },
            RouteRule { class: Some(Class::Poll), tenant: Some("globex".to_owned()), ..rule("/api/v2/**") },
            RouteRule { deadline: Some(Duration::from_secs(1)), ..rule("/api/v2/late/*") },
        ],
        ..GatewayConfig::of(vec![anonymous("acme"), anonymous("globex")])
    };
    let mut config = config;
    let kind = LimitKind::Rate { quota: 1, window: Duration::from_secs(5) };
    let RouteRule { path, .. } = rule("/api/v2/late/*");
    config.tenants[1].upstream.limits = vec![LimitSpec {
        key: "late".to_owned(),
        aliases: Vec::new(),
        method: None,
        path,
        kind,
        per: vec![Partition::Tenant],
        pin: true,
        observes: Observes::OwnName,
        assumed: false,
    }];
    let (gateway, http) = gateway(config).await;
    let key = key("desk");
    assert_eq!(http.get("/api/v2/analytics/jobs").await.status, 200);
    assert_eq!(http.get("/api/v2/%75sers").await.status, 200, "a rule knows a path in any spelling");
    let asked = [("Tidegate-Class", "sync"), ("Tidegate-Tenant", "acme")];
    assert_eq!(http.call(Method::GET, "/api/v2/users", &asked, "").await.status, 200, "headers win");
    let keyed = http.call(Method::GET, "/api/v2/analytics/x", &[("Tidegate-Key", &key)], "").await;
    assert_eq!(keyed.status, 200, "a rule asks for nothing that a key must allow");
    let late = [("Tidegate-Class", "interactive")];
    assert_eq!(http.call(Method::GET, "/api/v2/late/1", &late, "").await.status, 200);
    let begun = tokio::time::Instant::now();
    let refused = http.call(Method::GET, "/api/v2/late/2", &late, "").await;
    assert!(refused.is_ours(429, ("tidegate-refused", "cannot-meet")), "{refused:?}");
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "at once, though it could leave within the longest wait"
    );
    assert_eq!(canned.heads().len(), 5);
    let text = Caller::new(gateway.admin_addr()).get("/metrics").await;
    let text = String::from_utf8(text.body.to_vec()).unwrap();
    for (class, tenant) in [("bulk", "globex"), ("poll", "globex"), ("sync", "acme"), ("interactive", "acme")]
    {
        let line = format!("tidegate_calls_total{{class=\"{class}\",outcome=\"200\",tenant=\"{tenant}\"}} 1");
        assert!(text.contains(&line), "{line} is missing in {text}");
    }
}

#[tokio::test]
async fn a_class_with_a_client_of_its_own_calls_as_that() {
    let clients = "[[oauth.clients]]\nid = \"demo-client\"\nsecret = \"demo-secret\"\n\
                   [[oauth.clients]]\nid = \"bulk-client\"\nsecret = \"bulk-secret\"\n";
    let sim = sim(&format!("limit = 2\nwindow = \"60s\"\n{clients}")).await;
    let mut acme = tenant("acme", &sim.url());
    let bulk = ClientCredentials::new("bulk-client", &SecretString::from("bulk-secret"));
    acme.upstream.class_credentials[Class::Bulk.index()] = Some((CredentialId::new("nightly"), bulk));
    let (gateway, http) = gateway(GatewayConfig::of(vec![acme])).await;
    let bulk = [("Tidegate-Class", "bulk")];
    for _ in 0..2 {
        assert_eq!(http.call(Method::GET, FIRST, &bulk, "").await.status, 200);
    }
    assert_eq!(http.call(Method::GET, FIRST, &bulk, "").await.status, 429, "its quota is spent");
    assert_eq!(http.get(FIRST).await.status, 200, "and nothing of the others'");
    assert_eq!(Caller::new(gateway.admin_addr()).get("/readyz").await.status, 200);
    let text = Caller::new(gateway.admin_addr()).get("/metrics").await;
    let text = String::from_utf8(text.body.to_vec()).unwrap();
    for credential in ["demo", "nightly"] {
        let line = format!(
            "tidegate_token_requests_total{{credential=\"{credential}\",outcome=\"granted\",tenant=\"acme\"}} 1"
        );
        assert!(text.contains(&line), "{line} is missing in {text}");
    }
}

#[tokio::test]
async fn a_tenant_is_nothing_before_its_first_call() {
    let (_canned, url) = Canned::start(OK).await;
    let all = (0..200).map(|number| tenant(&format!("t{number}"), &url)).collect();
    let (gateway, http) = tenants(all).await;
    let admin = Caller::new(gateway.admin_addr());
    let state = admin.get("/api/state").await.json();
    assert_eq!(state["tenants"].as_array().unwrap().len(), 0);
    assert_eq!(state["other_tenants"].as_array().unwrap().len(), 200);
    assert_eq!(admin.get("/readyz").await.status, 200, "nobody misses anything yet");
    let bearer = [("Authorization", "Bearer x")];
    let first = join_all((0..20).map(|_| http.call(Method::GET, "/t/t7/api", &bearer, ""))).await;
    assert!(first.iter().all(|answer| answer.status == 200), "many first calls start it once");
    let state = admin.get("/api/state").await.json();
    assert_eq!(
        (state["tenants"][0]["name"].as_str(), &state["tenants"][1]),
        (Some("t7"), &serde_json::Value::Null)
    );
    assert_eq!(state["tenants"][0]["calls"]["came"], 20);
    assert_eq!(state["other_tenants"].as_array().unwrap().len(), 199);
    assert_eq!(admin.get("/api/state?tenant=nobody").await.status, 404);
}

#[tokio::test]
async fn a_caller_beyond_its_calls_is_refused_and_others_are_not() {
    let slow = crate::stage::upstream(|mut wire, _| async move {
        wire.head().await;
        tokio::time::sleep(Duration::from_millis(400)).await;
        wire.write(OK).await;
    })
    .await;
    let mut one = tenant("acme", &slow);
    one.upstream.credential = None;
    one.upstream.profile = Arc::new(Profile::builtin("generic").unwrap());
    let noisy = CallerConfig { max_calls: Some(2), ..caller("noisy", None, &Class::ALL) };
    let config = GatewayConfig {
        callers: vec![noisy, caller("quiet", None, &Class::ALL)],
        ..GatewayConfig::of(vec![one])
    };
    let (_gateway, http) = gateway(config).await;
    let (noisy, quiet) = (key("noisy"), key("quiet"));
    let [noisy, quiet] = [("Tidegate-Key", noisy.as_str()), ("Tidegate-Key", quiet.as_str())];
    let calls = (0..6).map(|_| http.call(Method::GET, "/a", std::slice::from_ref(&noisy), ""));
    let quiet = [quiet];
    let (answers, other) = tokio::join!(join_all(calls), http.call(Method::GET, "/a", &quiet, ""));
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status == 429).collect();
    assert_eq!(refused.len(), 4);
    assert!(refused.iter().all(|answer| answer.header("tidegate-refused") == "queue-full"));
    assert_eq!(other.status, 200);
    assert_eq!(http.call(Method::GET, "/a", &[noisy], "").await.status, 200, "its places are free again");
}

/// A limit of 20 per second, declared: 80 calls of the noisy wait when three of the quiet caller come.
async fn wait_beside_a_crowd(noisy: impl Fn(usize) -> Vec<(&'static str, String)>, quiet: &[(&str, String)]) {
    let (_canned, url) = Canned::start(OK).await;
    let mut one = tenant("acme", &url);
    one.upstream.credential = None;
    let RouteRule { path, .. } = rule("/**");
    one.upstream.limits = vec![LimitSpec {
        key: "all".to_owned(),
        aliases: Vec::new(),
        method: None,
        path,
        kind: LimitKind::Rate { quota: 20, window: Duration::from_secs(1) },
        per: vec![Partition::Tenant],
        pin: true,
        observes: Observes::OwnName,
        assumed: false,
    }];
    let config = GatewayConfig {
        callers: vec![caller("noisy", None, &Class::ALL), caller("quiet", None, &Class::ALL)],
        anonymous: true,
        ..GatewayConfig::of(vec![one])
    };
    let (_gateway, http) = gateway(config).await;
    // Each asks for something else, else they would share calls.
    let get = async |path: String, headers: &[(&str, String)]| {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        http.call(Method::GET, &path, &headers, "").await
    };
    let crowd = join_all(
        (0..80).map(|n| (n, noisy(n))).map(async |(n, headers)| get(format!("/a/{n}"), &headers).await),
    );
    let few = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        join_all((0..3).map(async |n| get(format!("/b/{n}"), quiet).await)).await
    };
    let (crowd, few) = tokio::join!(crowd, few);
    assert!(crowd.iter().chain(&few).all(|answer| answer.status == 200), "{few:?}");
    let waited = |answer: &crate::stage::Answer| answer.header("tidegate-wait").parse::<f64>().unwrap();
    let longest = |answers: &[crate::stage::Answer]| answers.iter().map(waited).fold(0.0, f64::max);
    assert!(longest(&few) < 1.5, "the next window at the latest: {}", longest(&few));
    assert!(longest(&crowd) > 2.5, "while the noisy wait behind themselves: {}", longest(&crowd));
}

#[tokio::test]
async fn a_noisy_caller_keeps_another_from_nothing() {
    wait_beside_a_crowd(|_| vec![("Tidegate-Key", key("noisy"))], &[("Tidegate-Key", key("quiet"))]).await;
}

#[tokio::test]
async fn deadlines_of_a_noisy_caller_keep_another_from_nothing() {
    let sync = |name| vec![("Tidegate-Key", key(name)), ("Tidegate-Class", "sync".to_owned())];
    let hurried = |_| [sync("noisy"), vec![("Tidegate-Deadline", "6".to_owned())]].concat();
    wait_beside_a_crowd(hurried, &sync("quiet")).await;
}

#[tokio::test]
async fn names_that_callers_without_a_key_give_themselves_keep_one_with_a_key_from_nothing() {
    let named = |n| vec![("Tidegate-Caller", format!("name {n}"))];
    wait_beside_a_crowd(named, &[("Tidegate-Key", key("quiet"))]).await;
}

#[tokio::test]
async fn an_sdk_logs_in_with_its_callers_name_and_key_and_calls_as_the_configured_client() {
    use base64::Engine as _;
    let sim = sim("limit = 0").await;
    let config = GatewayConfig {
        callers: vec![caller("wfm", None, &[Class::Bulk]), caller("desk", None, &Class::ALL)],
        ..GatewayConfig::of(vec![tenant("acme", &sim.url())])
    };
    let (gateway, http) = gateway(config).await;
    let basic = |name: &str, key: &str| {
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{name}:{key}")))
    };
    let login = async |authorization: &str| {
        let headers =
            [("Authorization", authorization), ("Content-Type", "application/x-www-form-urlencoded")];
        http.call(Method::POST, "/oauth/token", &headers, "grant_type=client_credentials").await
    };
    for (name, of) in [("wfm", "desk"), ("nobody", "wfm"), ("wfm", "nobody")] {
        let answer = login(&basic(name, &key(of))).await;
        assert!(answer.is_ours(401, ("tidegate-refused", "unknown-key")), "{answer:?}");
    }
    let own_client = login(&basic("demo-client", "demo-secret")).await;
    assert!(own_client.is_ours(401, ("tidegate-refused", "no-key")), "{own_client:?}");
    let answer = login(&basic("wfm", &key("wfm"))).await;
    let token = answer.json();
    assert_eq!((answer.status.as_u16(), token["token_type"].as_str()), (200, Some("bearer")));
    assert!(token["expires_in"].as_u64().is_some_and(|life| life > 3600), "{token}");
    let bearer = format!("Bearer {}", token["access_token"].as_str().unwrap());
    let headers = [("Authorization", bearer.as_str())];
    assert_eq!(http.call(Method::GET, FIRST, &headers, "").await.status, 200);
    assert_eq!(http.call(Method::DELETE, "/api/v2/tokens/me", &headers, "").await.status, 204);
    assert_eq!(http.call(Method::GET, FIRST, &headers, "").await.status, 200);
    let books = sim.stats();
    assert_eq!(
        (books.oauth.calls, books.accepted, books.unauthorized),
        (1, 2, 0),
        "one token for all, and none deleted"
    );
    let state = Caller::new(gateway.admin_addr()).get("/api/state").await.json();
    assert_eq!(state["callers"][0]["calls"]["came"], 4, "{state}");
}
