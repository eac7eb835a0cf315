//! What the upstream's answers make of an item: an upstream that says what it is told to, on loopback.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a panic is how a test fails; real sockets take real time"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidegate::{Profile, Upstream, UpstreamConfig};
use tidegate_bulk::execute::{Options, Progress, Stopped, execute};
use tidegate_core::backoff::{Backoff, Kind};
use tidegate_core::time::Wall;
use tidegate_store::{Accepted, Journal, NewItem, Reader, RunHeader, State, Step};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use uuid::Uuid;

const NOW: Wall = Wall::from_unix_millis(1_700_000_000_000);

/// What the upstream does with a request.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// It executes it, perhaps, and hangs up.
    HangUp,
    /// It answers: status, fields, body.
    Answer(u16, &'static str, &'static str),
}

/// An upstream that acts as scripted, one request a connection, and the first lines of what it was asked.
async fn says(script: &[Act]) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (script, lines) = (script.to_vec(), Arc::clone(&seen));
    tokio::spawn(async move {
        for act in script {
            let (mut stream, _) = listener.accept().await.unwrap();
            let line = request(&mut stream).await;
            lines.lock().push(line);
            if let Act::Answer(status, fields, body) = act {
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n{fields}\r\n{body}"
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
    (url, seen)
}

/// Reads a request; its first line without the version.
async fn request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        if let Some(end) = text.find("\r\n\r\n") {
            let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if bytes.len() >= end + 4 + length.unwrap_or(0) {
                let line = text.lines().next().unwrap().trim_end_matches(" http/1.1").to_owned();
                return line;
            }
        }
        let mut some = [0; 1024];
        let read = stream.read(&mut some).await.unwrap();
        bytes.extend_from_slice(&some[..read]);
    }
}

/// A journal of one write.
fn journal(path: &Path, method: &str, target: &str, body: &str) -> Arc<Journal> {
    tokio::task::block_in_place(|| {
        let journal = Journal::create(path, &RunHeader::default()).unwrap();
        let item = NewItem {
            seq: 1,
            id: "one".to_owned(),
            method: method.to_owned(),
            target: target.to_owned(),
            body: Some(body.as_bytes().to_vec()),
            key: Uuid::from_u128(1),
            transaction: Uuid::from_u128(1),
            lines: vec![1],
        };
        journal.append_blocking(vec![item]).unwrap();
        journal.finish_planning_blocking(NOW).unwrap();
        Arc::new(journal)
    })
}

async fn run(journal: &Arc<Journal>, profile: &str, api: &str) -> Result<(), Stopped> {
    let mut profile = Profile::builtin(profile).unwrap();
    profile.backoff =
        Backoff::try_new(Kind::Full, Duration::from_millis(5), Duration::from_millis(20)).unwrap();
    profile.limits.clear();
    let upstream = Upstream::new(UpstreamConfig::new(Arc::new(profile), api, api)).unwrap();
    let options = Options {
        concurrency: 8,
        patience: Duration::from_millis(400),
        headers: Vec::new(),
        reconcile: None,
        jobs: None,
        spread: None,
    };
    let (_stop, stopping) = watch::channel(false);
    execute(Arc::clone(journal), upstream, options, &Progress::default(), stopping).await
}

fn stands(path: &Path) -> (State, Option<String>) {
    let item = Reader::open(path).unwrap().page(0, 1).unwrap().remove(0);
    (item.state, item.error)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throttle_by_another_status_leaves_the_item_pending() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.journal");
    let secondary = r#"{"message":"You have exceeded a secondary rate limit. Please wait."}"#;
    let (api, _) = says(&[Act::Answer(403, "retry-after: 4000\r\n", secondary); 3]).await;
    let journal = journal(&path, "POST", "/repos/a/b/issues", "{}");
    let stopped = run(&journal, "github", &api).await.unwrap_err();
    assert!(matches!(stopped, Stopped::Upstream(_)), "{stopped}");
    assert_eq!(stands(&path).0, State::Planned);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conflict_after_a_loss_that_no_read_explains_is_unknown() {
    for status in [409, 412] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.journal");
        let (api, seen) = says(&[Act::HangUp, Act::Answer(status, "", "stale")]).await;
        let journal = journal(&path, "PUT", "/things/7", r#"{"name":"a","version":1}"#);
        run(&journal, "generic", &api).await.unwrap();
        let (state, why) = stands(&path);
        assert_eq!(state, State::Unknown, "{why:?}");
        assert!(why.unwrap().contains(&format!("the upstream answered {status}")));
        assert_eq!(*seen.lock(), ["put /things/7", "put /things/7"]);
        // Without a loss it is the upstream's word.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.journal");
        let (api, _) = says(&[Act::Answer(status, "", "stale")]).await;
        let journal = self::journal(&path, "PUT", "/things/7", "{}");
        run(&journal, "generic", &api).await.unwrap();
        assert_eq!(stands(&path).0, State::Failed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replacement_that_conflicts_with_itself_is_found_out_by_its_version() {
    let body = r#"{"name":"a","version":1}"#;
    let entity = |text| Act::Answer(200, "content-type: application/json\r\n", text);
    for (shown, state) in [
        (r#"{"id":"7","name":"a","version":2}"#, State::Ok),
        (r#"{"id":"7","name":"b","version":2}"#, State::Failed),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.journal");
        let conflict = Act::Answer(409, "", "stale");
        // Found out at once after the loss, or sent again by its method first: in whatever order, it ends in the read.
        let (api, seen) = says(&[Act::HangUp, conflict, entity(shown)]).await;
        let journal = journal(&path, "PUT", "/api/v2/routing/queues/7", body);
        run(&journal, "genesys", &api).await.unwrap();
        assert_eq!(stands(&path).0, state, "{:?}", seen.lock());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_accepted_job_is_never_submitted_again_also_without_a_recipe() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.journal");
    let (api, seen) = says(&[Act::Answer(202, "", r#"{"id":"other"}"#)]).await;
    let journal = journal(&path, "POST", "/jobs", "{}");
    journal.intend(vec![1], NOW).await.unwrap();
    let accepted = Accepted {
        job: "j-17".to_owned(),
        state: "PENDING".to_owned(),
        step: Step::Polling,
        http_status: Some(202),
        attempts: 1,
        parts: Vec::new(),
    };
    journal.accept(1, accepted, NOW).await.unwrap();
    let stopped = run(&journal, "generic", &api).await.unwrap_err();
    assert!(stopped.to_string().contains("job `j-17` is open"), "{stopped}");
    assert!(seen.lock().is_empty());
    assert_eq!(stands(&path).0, State::Sent, "it stays open");
}
