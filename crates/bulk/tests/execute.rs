//! Carrying out a run, against the simulator on loopback: what is in the journal is what happened.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a panic is how a test fails; real sockets take real time"
)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidegate::token::ClientCredentials;
use tidegate::{Profile, Upstream, UpstreamConfig};
use tidegate_bulk::Recipe;
use tidegate_bulk::execute::{Options, Progress, Stopped, execute};
use tidegate_core::backoff::{Backoff, Kind};
use tidegate_core::glob::PathGlob;
use tidegate_core::key::CredentialId;
use tidegate_core::pace::{LimitKind, LimitSpec, Observes};
use tidegate_core::reconcile::{Absent, Rule};
use tidegate_core::time::Wall;
use tidegate_sim::model::fault::Fault;
use tidegate_sim::{Faults, Sim, SimConfig};
use tidegate_store::{Counts, Journal, NewItem, Reader, RunHeader, State};
use tokio::net::TcpListener;
use tokio::sync::watch;
use uuid::Uuid;

const PATH: &str = "/api/v2/users/00000000-0000-4000-8000-000000000001/routingskills/bulk";

struct World {
    sim: Sim,
    folder: tempfile::TempDir,
}

impl World {
    async fn new(toml: &str) -> Self {
        let config = SimConfig::from_toml(toml).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sim = tidegate_sim::serve(listener, config).await.unwrap();
        Self { sim, folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("run.journal")
    }

    /// A run of `count` skill updates, planned.
    fn planned(&self, count: u64) -> Arc<Journal> {
        let journal = Journal::create(&self.path(), &RunHeader::default()).unwrap();
        tokio::task::block_in_place(|| {
            journal.append_blocking((1..=count).map(|seq| item(seq, PATH)).collect()).unwrap();
            journal.finish_planning_blocking(now()).unwrap();
        });
        Arc::new(journal)
    }

    fn counts(&self) -> Counts {
        Reader::open(&self.path()).unwrap().counts().unwrap()
    }

    fn state(&self, seq: u64) -> (State, Option<String>) {
        let item = Reader::open(&self.path()).unwrap().page(seq - 1, 1).unwrap().remove(0);
        (item.state, item.error)
    }

    fn writes(&self) -> u64 {
        self.sim.stats().writes.values().sum()
    }
}

fn now() -> Wall {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Wall::from_unix_millis(i64::try_from(since.as_millis()).unwrap())
}

fn item(seq: u64, target: &str) -> NewItem {
    NewItem {
        seq,
        id: format!("item-{seq}"),
        method: "PATCH".to_owned(),
        target: target.to_owned(),
        body: Some(
            format!(r#"[{{"id":"10000000-0000-4000-8000-{seq:012x}","proficiency":1}}]"#).into_bytes(),
        ),
        key: Uuid::from_u128(u128::from(seq)),
        transaction: Uuid::from_u128(u128::from(seq)),
        lines: vec![seq],
    }
}

/// Waits a test can afford.
fn quick() -> Backoff {
    Backoff::try_new(Kind::Full, Duration::from_millis(5), Duration::from_millis(20)).unwrap()
}

/// The upstream at `api`, by a built-in profile whose waits a test can afford.
fn upstream(profile: &str, api: &str, secret: &str) -> Arc<Upstream> {
    upstream_by(Profile::builtin(profile).unwrap(), api, secret)
}

fn upstream_by(mut profile: Profile, api: &str, secret: &str) -> Arc<Upstream> {
    profile.backoff = quick();
    profile.limits.clear();
    for rule in &mut profile.reconcile {
        rule.settle = Duration::from_secs(1);
    }
    let mut config = UpstreamConfig::new(Arc::new(profile), api, api);
    let credentials = ClientCredentials::new("demo-client", &secret.to_owned().into());
    config.credential = Some((CredentialId::new("wfm"), credentials));
    Upstream::new(config).unwrap()
}

async fn run(journal: &Arc<Journal>, upstream: Arc<Upstream>) -> Result<(), Stopped> {
    run_by(journal, upstream, None).await
}

async fn run_by(
    journal: &Arc<Journal>,
    upstream: Arc<Upstream>,
    reconcile: Option<Arc<Rule>>,
) -> Result<(), Stopped> {
    let (_stop, stopping) = watch::channel(false);
    let options = Options {
        spread: None,
        concurrency: 8,
        patience: Duration::from_millis(400),
        headers: Vec::new(),
        reconcile,
        jobs: None,
    };
    execute(Arc::clone(journal), upstream, options, &Progress::default(), stopping).await
}

/// As a process that was killed after it had sent item 1 and before it knew the outcome: the write was executed.
async fn in_doubt(world: &World, profile: &str) -> Arc<Journal> {
    in_doubt_since(world, profile, now()).await
}

/// The same, where its clock showed `first` when it sent.
async fn in_doubt_since(world: &World, profile: &str, first: Wall) -> Arc<Journal> {
    let journal = world.planned(1);
    let there = upstream(profile, &world.sim.url(), "demo-secret");
    let item = item(1, PATH);
    let client = tidegate::Client::over(there);
    let sent = client
        .request(http::Method::PATCH, PATH)
        .key(item.key.to_string())
        .json(item.body.unwrap())
        .send()
        .await
        .unwrap();
    assert!(sent.status().is_success());
    journal.intend(vec![1], first).await.unwrap();
    journal
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_from_the_future_is_not_trusted() {
    let ahead = |minutes: i64| Wall::from_unix_millis(now().unix_millis() + minutes * 60_000);
    for (minutes, state) in [(4, State::Ok), (60, State::Unknown)] {
        let world = World::new("limit = 0\ndedup = \"24h\"\n").await;
        let journal = in_doubt_since(&world, "genesys-guide", ahead(minutes)).await;
        run(&journal, upstream("genesys-guide", &world.sim.url(), "demo-secret")).await.unwrap();
        assert_eq!(world.state(1).0, state, "the clock was set back by {minutes} min");
        assert_eq!(world.writes(), 1);
    }
}

/// A run of one DELETE of a user.
fn deletion(world: &World) -> Arc<Journal> {
    let journal = Journal::create(&world.path(), &RunHeader::default()).unwrap();
    tokio::task::block_in_place(|| {
        let target = "/api/v2/users/00000000-0000-4000-8000-000000000001";
        let item = NewItem { method: "DELETE".to_owned(), body: None, ..item(1, target) };
        journal.append_blocking(vec![item]).unwrap();
        journal.finish_planning_blocking(now()).unwrap();
    });
    Arc::new(journal)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_in_doubt_whose_target_is_gone_was_done() {
    // Its answer is lost: the second attempt of the same call finds nothing.
    let world = World::new("limit = 0\n[faults]\nscript = [\"drop-after\"]\n").await;
    let journal = deletion(&world);
    run(&journal, upstream("genesys", &world.sim.url(), "demo-secret")).await.unwrap();
    assert_eq!(world.state(1), (State::Ok, None));
    // Its process was killed: the next one finds nothing.
    let world = World::new("limit = 0\n").await;
    let journal = deletion(&world);
    let client = tidegate::Client::over(upstream("genesys", &world.sim.url(), "demo-secret"));
    let target = "/api/v2/users/00000000-0000-4000-8000-000000000001";
    client.request(http::Method::DELETE, target).send().await.unwrap();
    journal.intend(vec![1], now()).await.unwrap();
    run(&journal, upstream("genesys", &world.sim.url(), "demo-secret")).await.unwrap();
    assert_eq!(world.state(1), (State::Ok, None));
    // Nothing was in doubt: it never was there.
    let world = World::new("limit = 0\nusers = 0\n").await;
    let journal = deletion(&world);
    run(&journal, upstream("genesys", &world.sim.url(), "demo-secret")).await.unwrap();
    assert_eq!(world.state(1).0, State::Failed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_permission_stops_the_run_with_everything_pending() {
    let clients =
        "[[oauth.clients]]\nid = \"demo-client\"\nsecret = \"demo-secret\"\nscopes = [\"view:users\"]\n";
    let world = World::new(&format!("limit = 0\n{clients}")).await;
    let journal = world.planned(200);
    let stopped = run(&journal, upstream("genesys", &world.sim.url(), "demo-secret")).await.unwrap_err();
    let Stopped::Upstream(why) = stopped else { panic!("{stopped}") };
    assert!(why.contains("edit:users"), "{why}");
    assert_eq!(world.counts(), Counts { planned: 200, ..Counts::default() });
    let asked = world.sim.stats().statuses[&403];
    assert!(asked <= 16, "{asked} calls were refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_item_is_sent_once_and_written_down() {
    let world = World::new("limit = 0\n").await;
    let journal = world.planned(20);
    run(&journal, upstream("genesys", &world.sim.url(), "demo-secret")).await.unwrap();
    assert_eq!(world.counts(), Counts { ok: 20, ..Counts::default() });
    assert_eq!((world.writes(), world.sim.stats().duplicates), (20, 0));
    // Again: nothing is left to do.
    run(&journal, upstream("genesys", "http://127.0.0.1:1", "demo-secret")).await.unwrap();
    assert_eq!(world.writes(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_that_wait_for_quota_are_let_go_at_once_and_were_never_intended() {
    let world = World::new("limit = 0\n").await;
    let journal = world.planned(50);
    let mut profile = Profile::builtin("generic").unwrap();
    profile.limits.clear();
    profile.oauth = Profile::builtin("genesys").unwrap().oauth;
    let mut config = UpstreamConfig::new(Arc::new(profile), world.sim.url(), world.sim.url());
    config.credential = Some((
        CredentialId::new("wfm"),
        ClientCredentials::new("demo-client", &"demo-secret".to_owned().into()),
    ));
    config.limits = vec![LimitSpec {
        key: "tight".to_owned(),
        aliases: Vec::new(),
        method: None,
        path: PathGlob::parse("/**").unwrap(),
        kind: LimitKind::Rate { quota: 5, window: Duration::from_hours(1) },
        per: Vec::new(),
        pin: true,
        assumed: false,
        observes: Observes::default(),
    }];
    let upstream = Upstream::new(config).unwrap();
    let (stop, stopping) = watch::channel(false);
    let options = Options {
        spread: None,
        concurrency: 8,
        patience: Duration::from_mins(1),
        headers: Vec::new(),
        reconcile: None,
        jobs: None,
    };
    let progress = Progress::default();
    let begun = std::time::Instant::now();
    let told = async {
        while world.writes() < 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        stop.send_replace(true);
    };
    let (ended, ()) =
        tokio::join!(execute(Arc::clone(&journal), upstream, options, &progress, stopping), told);
    assert!(matches!(ended, Err(Stopped::Interrupted)), "{ended:?}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let counts = world.counts();
    assert_eq!((counts.ok, counts.sent, counts.planned), (world.writes(), 0, 50 - world.writes()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_in_doubt_is_settled_where_its_key_is_recognised() {
    let world = World::new("limit = 0\ndedup = \"24h\"\n").await;
    let journal = in_doubt(&world, "genesys-guide").await;
    run(&journal, upstream("genesys-guide", &world.sim.url(), "demo-secret")).await.unwrap();
    assert_eq!(world.counts().ok, 1);
    let stats = world.sim.stats();
    assert_eq!((stats.writes.values().sum::<u64>(), stats.replayed, stats.duplicates), (1, 1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_in_doubt_is_unknown_and_not_sent_where_keys_are_not_recognised() {
    let world = World::new("limit = 0\n").await;
    let journal = in_doubt(&world, "genesys").await;
    let mut profile = Profile::builtin("genesys").unwrap();
    profile.reconcile.clear();
    run(&journal, upstream_by(profile, &world.sim.url(), "demo-secret")).await.unwrap();
    let (state, error) = world.state(1);
    assert_eq!(state, State::Unknown);
    assert!(error.unwrap().contains("not repeatable"));
    assert_eq!((world.writes(), world.sim.stats().retried), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_in_doubt_is_done_where_a_read_shows_it() {
    let world = World::new("limit = 0\n").await;
    let journal = in_doubt(&world, "genesys").await;
    run(&journal, upstream("genesys", &world.sim.url(), "demo-secret")).await.unwrap();
    assert_eq!(world.state(1).0, State::Ok);
    assert_eq!((world.writes(), world.sim.stats().retried), (1, 0), "nothing was sent again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_a_dead_process_may_have_sent_is_sent_once_where_its_rule_vouches_for_it() {
    for (absent, state, writes) in
        [(Absent::Unchanged, State::Unknown, 0), (Absent::NotApplied, State::Ok, 1)]
    {
        let world = World::new("limit = 0\n").await;
        let journal = world.planned(1);
        journal.intend(vec![1], now()).await.unwrap();
        let mut profile = Profile::builtin("genesys").unwrap();
        for rule in &mut profile.reconcile {
            rule.absent = absent;
        }
        run(&journal, upstream_by(profile, &world.sim.url(), "demo-secret")).await.unwrap();
        assert_eq!(world.state(1).0, state, "others may have changed it since: {absent:?}");
        assert_eq!((world.writes(), world.sim.stats().duplicates), (writes, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_in_doubt_waits_for_a_read_that_cannot_be_made() {
    let world = World::new("limit = 0\n").await;
    let journal = in_doubt(&world, "genesys").await;
    // The login works, the API is away.
    let mut away = UpstreamConfig::new(
        Arc::new(Profile::builtin("genesys").unwrap()),
        "http://127.0.0.1:1",
        world.sim.url(),
    );
    let secret = "demo-secret".to_owned().into();
    away.credential = Some((CredentialId::new("wfm"), ClientCredentials::new("demo-client", &secret)));
    away.max_retries = 0;
    let ended = run(&journal, Upstream::new(away).unwrap()).await;
    assert!(
        matches!(&ended, Err(Stopped::Upstream(why)) if why.contains("could not be found out")),
        "{ended:?}"
    );
    assert_eq!(world.counts().sent, 1);
    run(&journal, upstream("genesys", &world.sim.url(), "demo-secret")).await.unwrap();
    assert_eq!((world.counts().ok, world.writes()), (1, 1));
}

const RETITLE: &str = r#"
name = "retitle"
method = "PATCH"
path = "/api/v2/users/{user_id}"
body = { title = "{title}", version = "{version:number}" }
[reconcile]
version = "/version"
same = "/title"
conflict = { most = 2 }
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_update_goes_on_the_current_version_under_a_key_that_is_written_down_first() {
    const USER: &str = "/api/v2/users/00000000-0000-4000-8000-000000000001";
    let world = World::new("limit = 0\n").await;
    let there = upstream("genesys", &world.sim.url(), "demo-secret");
    let before = tidegate::Client::over(Arc::clone(&there));
    let other = before
        .request(http::Method::PATCH, USER)
        .json(r#"{"title":"Boss","version":1}"#)
        .send()
        .await
        .unwrap();
    assert!(other.status().is_success());
    let recipe = Recipe::parse("retitle.toml", RETITLE).unwrap();
    let journal = Journal::create(&world.path(), &RunHeader::default()).unwrap();
    tokio::task::block_in_place(|| {
        let body = Some(br#"{"title":"Lead","version":1}"#.to_vec());
        journal.append_blocking(vec![NewItem { body, ..item(1, USER) }]).unwrap();
        journal.finish_planning_blocking(now()).unwrap();
    });
    // The new version's answer is lost as well.
    world
        .sim
        .set_faults(Faults { script: vec![Fault::None, Fault::None, Fault::DropAfter], ..Faults::default() })
        .unwrap();
    run_by(&Arc::new(journal), there, recipe.reconcile().cloned()).await.unwrap();
    let item = Reader::open(&world.path()).unwrap().page(0, 1).unwrap().remove(0);
    assert_eq!((item.state, item.rev), (State::Ok, 1));
    assert_eq!(item.request.body.as_deref(), Some(&br#"{"title":"Lead","version":2}"#[..]));
    assert_ne!(item.request.key, Uuid::from_u128(1), "another body, another key");
    let stats = world.sim.stats();
    assert_eq!((stats.writes["PATCH /api/v2/users/{id}"], stats.duplicates, stats.key_reuse), (2, 0, 0));
    assert_eq!(stats.statuses[&409], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_in_doubt_stays_in_doubt_while_nobody_can_be_asked() {
    let world = World::new("limit = 0\ndedup = \"24h\"\n").await;
    let journal = in_doubt(&world, "genesys-guide").await;
    // The login works, the API is away.
    let mut away = UpstreamConfig::new(
        {
            let mut profile = Profile::builtin("genesys-guide").unwrap();
            profile.backoff = quick();
            Arc::new(profile)
        },
        "http://127.0.0.1:1",
        world.sim.url(),
    );
    away.credential = Some((
        CredentialId::new("wfm"),
        ClientCredentials::new("demo-client", &"demo-secret".to_owned().into()),
    ));
    let ended = run(&journal, Upstream::new(away).unwrap()).await;
    assert!(matches!(&ended, Err(Stopped::Upstream(why)) if why.contains("cannot connect")), "{ended:?}");
    assert!(world.counts().sent == 1, "{:?}", world.counts());
    // The secret is wrong.
    let ended = run(&journal, upstream("genesys-guide", &world.sim.url(), "nonsense")).await;
    assert!(matches!(&ended, Err(Stopped::Upstream(why)) if why.contains("credential wfm")), "{ended:?}");
    assert!(world.counts().sent == 1, "{:?}", world.counts());
    // All is well again.
    run(&journal, upstream("genesys-guide", &world.sim.url(), "demo-secret")).await.unwrap();
    assert_eq!(world.counts().ok, 1);
    assert_eq!((world.writes(), world.sim.stats().duplicates), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_cannot_be_sent_fails_alone() {
    let world = World::new("limit = 0\n").await;
    let journal = Journal::create(&world.path(), &RunHeader::default()).unwrap();
    tokio::task::block_in_place(|| {
        let items =
            vec![item(1, "/a b"), item(2, PATH), NewItem { method: "P T".to_owned(), ..item(3, PATH) }];
        journal.append_blocking(items).unwrap();
        journal.finish_planning_blocking(now()).unwrap();
    });
    run(&Arc::new(journal), upstream("genesys", &world.sim.url(), "demo-secret")).await.unwrap();
    assert_eq!(world.counts(), Counts { ok: 1, failed: 2, ..Counts::default() });
    assert!(world.state(1).1.unwrap().contains("the path is not a valid request target"));
    assert_eq!(world.state(3).1.unwrap(), "`P T` is not a method");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_takes_no_intent_stops_the_run_before_anything_is_sent() {
    let world = World::new("limit = 0\n").await;
    let journal = Journal::create(&world.path(), &RunHeader::default()).unwrap();
    tokio::task::block_in_place(|| {
        journal.append_blocking((1..=9).map(|seq| item(seq, PATH)).collect()).unwrap();
    });
    let ended = run(&Arc::new(journal), upstream("genesys", &world.sim.url(), "demo-secret")).await;
    assert!(matches!(&ended, Err(Stopped::Journal(_))), "{ended:?}");
    assert_eq!(world.writes(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_credential_stops_the_run_with_nothing_sent() {
    let world = World::new("limit = 0\n").await;
    let journal = world.planned(30);
    let ended = run(&journal, upstream("genesys", &world.sim.url(), "nonsense")).await;
    assert!(matches!(&ended, Err(Stopped::Upstream(why)) if why.contains("credential wfm")), "{ended:?}");
    assert_eq!(world.counts().planned, 30);
    assert_eq!(world.sim.stats().oauth.calls, 1, "a refusal is remembered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_stays_away_stops_the_run_after_its_patience() {
    let world = World::new("limit = 0\n").await;
    let journal = world.planned(30);
    let mut config = UpstreamConfig::new(
        Arc::new(Profile::builtin("genesys").unwrap()),
        "http://127.0.0.1:1",
        world.sim.url(),
    );
    config.credential = Some((
        CredentialId::new("wfm"),
        ClientCredentials::new("demo-client", &"demo-secret".to_owned().into()),
    ));
    let begun = std::time::Instant::now();
    let ended = run(&journal, Upstream::new(config).unwrap()).await;
    assert!(matches!(&ended, Err(Stopped::Upstream(why)) if why.contains("cannot connect")), "{ended:?}");
    assert!(begun.elapsed() < Duration::from_secs(5), "waits between attempts end: {:?}", begun.elapsed());
    assert_eq!(world.counts().planned, 30, "what was intended is proven not to have left");
}
