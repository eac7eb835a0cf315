//! Exports from the simulator on loopback: whole, interrupted at every page and cut anywhere, the file is the same.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a panic is how a test fails; real sockets take real time"
)]

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tidegate::{Client, Profile};
use tidegate_bulk::export::{
    Existing, ExportError, Exported, Manifest, Output, Progress, Request, Style, export, manifest_of,
};
use tidegate_sim::{Faults, Sim, SimConfig};
use tokio::net::TcpListener;
use tokio::sync::watch;

const LISTINGS: [(&str, Style); 2] =
    [("/api/v2/users", Style::Pages), ("/api/v2/scim/v2/users", Style::Scim)];

struct World {
    sim: Sim,
    client: Client,
    folder: tempfile::TempDir,
}

impl World {
    async fn new(toml: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sim = tidegate_sim::serve(listener, SimConfig::from_toml(toml).unwrap()).await.unwrap();
        let profile = Profile::builtin("genesys-guide").unwrap();
        let client = Client::builder(profile, sim.url(), sim.url())
            .credential("tests", "demo-client", "demo-secret")
            .build()
            .unwrap();
        Self { sim, client, folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Exports to a file, and stops after so many pages of this process.
    async fn run(
        &self,
        request: &Request,
        path: &Path,
        existing: Existing,
        pages: u64,
    ) -> Result<Exported, ExportError> {
        let (stop, stopping) = watch::channel(false);
        let mut left = pages;
        let mut told = |_: Progress| {
            left = left.saturating_sub(1);
            if left == 0 {
                stop.send_replace(true);
            }
        };
        let output = Output::File { path: path.to_owned(), existing };
        export(&self.client, request, output, &mut told, stopping).await
    }

    async fn whole(&self, request: &Request, name: &str) -> (Vec<u8>, Manifest) {
        let path = self.path(name);
        match self.run(request, &path, Existing::Keep, u64::MAX).await.unwrap() {
            Exported::File(manifest) => (std::fs::read(&path).unwrap(), *manifest),
            other => panic!("{other:?}"),
        }
    }
}

fn request(path: &str, page_size: u32) -> Request {
    Request { page_size: Some(page_size), ..Request::new(path).unwrap() }
}

fn sha256(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in Sha256::digest(bytes) {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_is_there_once_and_the_manifest_tells_the_file() {
    let world = World::new("limit = 0\nusers = 53\nlatency = \"0ms\"").await;
    for (path, style) in LISTINGS {
        let (bytes, manifest) = world.whole(&request(path, 10), style.name()).await;
        assert_eq!((manifest.rows, manifest.pages), (53, 6), "{path}");
        assert_eq!((manifest.paging.as_str(), manifest.total_changed), (style.name(), false));
        assert_eq!((manifest.bytes, &manifest.sha256), (bytes.len() as u64, &sha256(&bytes)));
        let mut ids: Vec<String> = String::from_utf8(bytes)
            .unwrap()
            .lines()
            .map(|line| {
                serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_str().unwrap().to_owned()
            })
            .collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 53);
        let kept = std::fs::read(manifest_of(&world.path(style.name()))).unwrap();
        assert_eq!(serde_json::from_slice::<Manifest>(&kept).unwrap(), manifest);
        assert!(manifest.each.iter().all(|page| page.correlation.is_some() && !page.at.is_empty()));
        assert!(!beside(&world.path(style.name()), ".part.log").exists());
    }
    world.sim.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_is_followed_to_its_end() {
    let world = World::new(
        "limit = 0\nusers = 20\nlatency = \"0ms\"\n[jobs]\nqueued = \"0s\"\nrunning = \"0s\"\npage = 2",
    )
    .await;
    let asked = r#"{"interval":"2026-01-01T00:00:00Z/2026-01-02T00:00:00Z"}"#;
    let jobs = "/api/v2/analytics/conversations/details/jobs";
    let made = world.client.request(http::Method::POST, jobs).json(asked).send().await.unwrap();
    let made: serde_json::Value =
        serde_json::from_slice(&made.into_body().bytes(1 << 20).await.unwrap()).unwrap();
    let path = format!("{jobs}/{}/results", made["jobId"].as_str().unwrap());
    let (bytes, manifest) = world.whole(&Request::new(&path).unwrap(), "cursor").await;
    assert_eq!(manifest.paging, "cursor");
    assert!(manifest.pages > 1, "{manifest:?}");
    assert_eq!(manifest.rows, String::from_utf8(bytes).unwrap().lines().count() as u64);
    world.sim.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_stopped_after_every_page_is_the_unbroken_one() {
    let world = World::new("limit = 0\nusers = 53\nlatency = \"0ms\"").await;
    for (path, style) in LISTINGS {
        let request = request(path, 10);
        let (unbroken, _) = world.whole(&request, &format!("{style}-whole")).await;
        let file = world.path(&format!("{style}-broken"));
        let mut runs = 0;
        let manifest = loop {
            runs += 1;
            // A resume tells first how far it was, then each page.
            let pages = if runs == 1 { 1 } else { 2 };
            match world.run(&request, &file, Existing::Resume, pages).await {
                Ok(Exported::File(manifest)) => break manifest,
                Ok(other) => panic!("{other:?}"),
                Err(error) => assert!(matches!(error, ExportError::Interrupted), "{error}"),
            }
            assert!(!file.exists(), "a file under its name is whole");
        };
        assert_eq!(runs, 6);
        let bytes = std::fs::read(&file).unwrap();
        assert_eq!(bytes, unbroken);
        assert_eq!(manifest.sha256, sha256(&unbroken));
        let calls = world.sim.stats().statuses[&200];
        let again = world.run(&request, &file, Existing::Resume, u64::MAX).await.unwrap();
        assert!(matches!(again, Exported::Already(_)), "{again:?}");
        assert_eq!(world.sim.stats().statuses[&200], calls, "nothing was asked");
    }
    world.sim.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_kill_leaves_behind_the_last_whole_line_is_cut_off() {
    let world = World::new("limit = 0\nusers = 53\nlatency = \"0ms\"").await;
    let request = request("/api/v2/users", 10);
    let (unbroken, _) = world.whole(&request, "whole").await;
    let line = "{\"target\":\"/api/v2/users?pageSize=10&pageNumber=3\",\"next\":nu";
    for (rows, log) in [("{\"id\":\"torn", ""), ("", line), ("{}\n{}\n", line)] {
        let file = world.path("broken");
        world.run(&request, &file, Existing::Replace, 2).await.unwrap_err();
        for (suffix, text) in [(".part", rows), (".part.log", log)] {
            let mut torn = OpenOptions::new().append(true).open(beside(&file, suffix)).unwrap();
            torn.write_all(text.as_bytes()).unwrap();
        }
        world.run(&request, &file, Existing::Resume, u64::MAX).await.unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), unbroken);
    }
    world.sim.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_killed_at_any_length_of_its_log_is_resumed() {
    let world = World::new("limit = 0\nusers = 33\nlatency = \"0ms\"").await;
    let request = request("/api/v2/users", 10);
    let (unbroken, _) = world.whole(&request, "whole").await;
    let file = world.path("broken");
    world.run(&request, &file, Existing::Keep, 3).await.unwrap_err();
    let (rows, log) = (beside(&file, ".part"), beside(&file, ".part.log"));
    let (all_rows, all_log) = (std::fs::read(&rows).unwrap(), std::fs::read(&log).unwrap());
    for length in (0..=all_log.len()).step_by(97) {
        drop(std::fs::remove_file(&file));
        std::fs::write(&rows, &all_rows).unwrap();
        std::fs::write(&log, &all_log[..length]).unwrap();
        world.run(&request, &file, Existing::Resume, u64::MAX).await.unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), unbroken, "cut at {length}");
    }
    world.sim.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_between_the_last_steps_leaves_something_to_finish() {
    let world = World::new("limit = 0\nusers = 13\nlatency = \"0ms\"").await;
    let request = request("/api/v2/users", 10);
    let file = world.path("out");
    world.run(&request, &file, Existing::Keep, 2).await.unwrap();
    let bytes = std::fs::read(&file).unwrap();
    let manifest: Manifest = serde_json::from_slice(&std::fs::read(manifest_of(&file)).unwrap()).unwrap();
    let mut log = serde_json::to_string(&manifest.head).unwrap() + "\n";
    for page in &manifest.each {
        log += &(serde_json::to_string(page).unwrap() + "\n");
    }
    // Renamed, but the log still there.
    std::fs::write(beside(&file, ".part.log"), &log).unwrap();
    let ended = world.run(&request, &file, Existing::Resume, u64::MAX).await.unwrap();
    assert!(matches!(ended, Exported::Already(_)), "{ended:?}");
    assert!(!beside(&file, ".part.log").exists());
    // The manifest written, but the file not renamed.
    std::fs::write(beside(&file, ".part.log"), &log).unwrap();
    std::fs::rename(&file, beside(&file, ".part")).unwrap();
    let ended = world.run(&request, &file, Existing::Resume, u64::MAX).await.unwrap();
    assert!(matches!(ended, Exported::File(_)), "{ended:?}");
    assert_eq!(std::fs::read(&file).unwrap(), bytes);
    world.sim.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_there_is_neither_overwritten_nor_mixed() {
    let world = World::new("limit = 0\nusers = 33\nlatency = \"0ms\"").await;
    let (tens, fives) = (request("/api/v2/users", 10), request("/api/v2/users", 5));
    let file = world.path("out");
    let told = |result: Result<Exported, ExportError>| result.unwrap_err().to_string();
    std::fs::write(&file, "mine").unwrap();
    for existing in [Existing::Keep, Existing::Resume] {
        assert!(told(world.run(&tens, &file, existing, 9).await).contains("replace it with --force"));
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
    std::fs::remove_file(&file).unwrap();
    assert_eq!(told(world.run(&tens, &file, Existing::Keep, 2).await), "stopped");
    assert!(told(world.run(&tens, &file, Existing::Keep, 9).await).contains("interrupted after 2 pages"));
    assert!(
        told(world.run(&fives, &file, Existing::Resume, 9).await)
            .contains("is an export of /api/v2/users?pageSize=10")
    );
    let single = Request { style: Some(Style::Single), ..tens.clone() };
    assert!(
        told(world.run(&single, &file, Existing::Resume, 9).await).contains("was begun with --paging pages")
    );
    let elsewhere = Request { items: Some("/elsewhere".to_owned()), ..tens.clone() };
    assert!(told(world.run(&elsewhere, &file, Existing::Resume, 9).await).contains("--items /entities"));
    let mut rows = std::fs::read(beside(&file, ".part")).unwrap();
    rows[40] ^= 1;
    std::fs::write(beside(&file, ".part"), rows).unwrap();
    assert!(
        told(world.run(&tens, &file, Existing::Resume, 9).await).contains("is not what was written to it")
    );
    world.run(&fives, &file, Existing::Replace, u64::MAX).await.unwrap();
    let already = world.run(&fives, &file, Existing::Resume, 9).await.unwrap();
    assert!(matches!(already, Exported::Already(_)), "{already:?}");
    let mut rows = std::fs::read(&file).unwrap();
    rows[40] ^= 1;
    std::fs::write(&file, rows).unwrap();
    assert!(told(world.run(&fives, &file, Existing::Resume, 9).await).contains("not what its manifest says"));
    // Rows that another credential sees are others.
    let mut manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(beside(&file, ".manifest.json")).unwrap()).unwrap();
    manifest["credential"] = "somebody-else".into();
    std::fs::write(beside(&file, ".manifest.json"), manifest.to_string()).unwrap();
    assert!(told(world.run(&fives, &file, Existing::Resume, 9).await).contains("credential somebody-else"));
    world.sim.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn throttles_faults_and_short_tokens_cost_no_row() {
    let world = World::new(
        "limit = 20\nwindow = \"1s\"\nusers = 200\nlatency = \"5ms\"\n[oauth]\ntoken_ttl = \"1s\"\n[faults]\nunavailable = 0.05\ndrop_before = 0.05",
    )
    .await;
    let (_, manifest) = world.whole(&request("/api/v2/users", 4), "out").await;
    assert_eq!((manifest.rows, manifest.pages), (200, 50));
    world.sim.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_is_not_served_is_waited_for() {
    // The client delivers a 500 at once.
    let faults =
        "[faults]\nmatch = \"GET /api/**\"\nscript = [\"none\", \"internal-error\", \"internal-error\"]";
    let world = World::new(&format!("limit = 0\nusers = 33\nlatency = \"0ms\"\n{faults}")).await;
    let (_, manifest) = world.whole(&request("/api/v2/users", 10), "out").await;
    assert_eq!((manifest.rows, manifest.pages, world.sim.stats().statuses[&500]), (33, 4, 2));
    world.sim.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_stays_away_ends_an_export_after_its_patience_and_a_resume_goes_on() {
    let world = World::new("limit = 0\nusers = 33\nlatency = \"0ms\"").await;
    let request = Request { patience: Duration::from_millis(700), ..request("/api/v2/users", 10) };
    let (unbroken, _) = world.whole(&request, "whole").await;
    let file = world.path("out");
    assert!(matches!(
        world.run(&request, &file, Existing::Keep, 1).await.unwrap_err(),
        ExportError::Interrupted
    ));
    world.sim.set_faults(Faults { internal_error: 1.0, ..Faults::default() }).unwrap();
    let began = Instant::now();
    let error = world.run(&request, &file, Existing::Resume, u64::MAX).await.unwrap_err();
    assert!(began.elapsed() >= request.patience, "it was waited for");
    assert!(matches!(&error, ExportError::Unserved(why) if why.contains("500")), "{error:?}");
    world.sim.set_faults(Faults::default()).unwrap();
    world.run(&request, &file, Existing::Resume, u64::MAX).await.unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), unbroken);
    world.sim.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_permission_is_named() {
    let world =
        World::new("limit = 0\n[[oauth.clients]]\nid = \"demo-client\"\nsecret = \"demo-secret\"\nscopes = [\"view:scripts\"]").await;
    let ended = world.run(&request("/api/v2/users", 4), &world.path("out"), Existing::Keep, 1).await;
    let told = ended.unwrap_err().to_string();
    assert!(told.contains("403") && told.contains("the credential lacks view:users"), "{told}");
    world.sim.shutdown().await;
}
