//! The ledger on disk: what is acknowledged survives, what is not ours is left alone, what is too much goes.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;
use std::time::Duration;

use tidegate_core::idempotency::BodyDigest;
use tidegate_core::time::{Mono, Wall};
use tidegate_store::ledger::{Entry, Kept, Ledger, LedgerProblem, NewEntry, Now, Standing};

const NOW: Now = Now { wall: Wall::from_unix_millis(1_700_000_000_000), mono: Mono::ZERO };
const SCOPE: [u8; 32] = [7; 32];

/// So much later by the wall clock, and by that of the process that opens it then.
fn later(by: Duration) -> Now {
    let millis = i64::try_from(by.as_millis()).unwrap();
    Now { wall: Wall::from_unix_millis(NOW.wall.unix_millis() + millis), mono: NOW.mono + by }
}

fn new(key: &str) -> NewEntry {
    NewEntry {
        scope: SCOPE,
        key: key.to_owned(),
        payload: BodyDigest::json(b"{}"),
        sent_key: "9f3c".to_owned(),
        method: "POST".to_owned(),
        path: "/api/v2/users".to_owned(),
        login: Some(([1; 32], "login-1".to_owned())),
    }
}

fn answer(body: &[u8]) -> Kept {
    Kept { status: 201, headers: b"content-type: text/plain\r\n".to_vec(), body: body.to_vec() }
}

async fn found(ledger: &Ledger, key: &str) -> Option<Entry> {
    ledger.find(SCOPE, key, NOW.mono).await.unwrap()
}

#[tokio::test]
async fn every_acknowledged_change_is_there_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.db");
    // What a crash at this moment leaves: the file and its log, as they are.
    let crash = |name: &str| {
        let copy = folder.path().join(name);
        for suffix in ["", "-wal"] {
            let beside = |path: &Path| Path::new(&format!("{}{suffix}", path.display())).to_owned();
            std::fs::copy(beside(&path), beside(&copy)).unwrap();
        }
        Ledger::open(&copy, NOW).unwrap()
    };
    let ledger = Ledger::open(&path, NOW).unwrap();
    assert_eq!(found(&crash("0"), "k").await, None);
    let id = ledger.intend(new("k"), NOW).await.unwrap();
    let entry = found(&crash("1"), "k").await.unwrap();
    let expected = Entry {
        id,
        payload: BodyDigest::json(b"{}"),
        sent_key: "9f3c".to_owned(),
        first_sent: NOW.wall,
        // What was in flight has ended with its process.
        ended: Some(NOW.wall),
        standing: Standing::Sent,
    };
    assert_eq!(entry, expected);
    assert_eq!(crash("2").identity([1; 32]).await.unwrap().as_deref(), Some("login-1"));
    ledger.finish(id, Standing::Unknown, NOW.wall).await.unwrap();
    assert_eq!(found(&crash("3"), "k").await.unwrap().standing, Standing::Unknown);
    // Sent again: the upstream's memory of the key counts from the first sending.
    let again = ledger.intend(new("k"), later(Duration::from_mins(5))).await.unwrap();
    assert_eq!(again, id);
    assert_eq!(found(&crash("4"), "k").await.unwrap(), expected);
    assert_eq!(found(&ledger, "k").await.unwrap().ended, None, "it may be under way");
    ledger.finish(id, Standing::Done(Some(answer(b"\x00\xff"))), NOW.wall).await.unwrap();
    assert_eq!(found(&crash("5"), "k").await.unwrap().standing, Standing::Done(Some(answer(b"\x00\xff"))));
    ledger.withdraw(id).await.unwrap();
    assert_eq!(found(&crash("6"), "k").await, None);
}

/// What is done to the bytes of a log.
type Damage<'a> = &'a dyn Fn(&mut Vec<u8>);

#[tokio::test]
async fn a_log_that_is_damaged_in_its_middle_or_missing_is_not_taken_for_a_shorter_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.db");
    let ledger = Ledger::open(&path, NOW).unwrap();
    for key in 0..6 {
        ledger.intend(new(&key.to_string()), NOW).await.unwrap();
    }
    let crash = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let copy = folder.path().join(name);
        for suffix in ["", "-wal", ".mark"] {
            let beside = |path: &Path| Path::new(&format!("{}{suffix}", path.display())).to_owned();
            let mut bytes = std::fs::read(beside(&path)).unwrap();
            if suffix == "-wal" {
                change(&mut bytes);
            }
            std::fs::write(beside(&copy), bytes).unwrap();
        }
        copy
    };
    let damages: [Damage<'_>; 3] = [
        &|bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        },
        &|bytes| bytes[20] ^= 1,
        &Vec::clear,
    ];
    for (name, damage) in ["middle", "header", "none"].into_iter().zip(damages) {
        let copy = crash(name, damage);
        for refused in [Ledger::look(&copy).unwrap_err(), Ledger::open(&copy, NOW).unwrap_err()] {
            assert!(matches!(refused.problem(), LedgerProblem::Corrupt(_)), "{name}: {refused}");
        }
    }
    let whole = Ledger::open(&crash("whole", &|_| {}), NOW).unwrap();
    assert_eq!(whole.tally().await.unwrap().entries, 6);
}

#[tokio::test]
async fn keys_are_forgotten_after_a_day_and_not_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.db");
    let ledger = Ledger::open(&path, NOW).unwrap();
    let id = ledger.intend(new("k"), NOW).await.unwrap();
    ledger.finish(id, Standing::Done(Some(answer(b"ok"))), NOW.wall).await.unwrap();
    drop(ledger);
    let day = Duration::from_hours(24);
    let before = Ledger::open(&path, later(day)).unwrap();
    assert!(found(&before, "k").await.is_some());
    before.intend(new("other"), later(day + Duration::from_millis(1))).await.unwrap();
    assert_eq!(found(&before, "k").await, None, "making entries drops old ones");
    let tally = before.tally().await.unwrap();
    assert_eq!((tally.entries, tally.unknown), (1, 1));
}

#[tokio::test]
async fn a_thousand_tasks_share_the_writer_and_each_finds_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&folder.path().join("gateway.db"), NOW).unwrap();
    let ledger = std::sync::Arc::new(ledger);
    let tasks: Vec<_> = (0..1000)
        .map(|number| {
            let ledger = std::sync::Arc::clone(&ledger);
            tokio::spawn(async move {
                let key = format!("k{number}");
                let id = ledger.intend(new(&key), NOW).await.unwrap();
                let body = key.clone().into_bytes();
                ledger.finish(id, Standing::Done(Some(answer(&body))), NOW.wall).await.unwrap();
                assert_eq!(found(&ledger, &key).await.unwrap().standing, Standing::Done(Some(answer(&body))));
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(ledger.tally().await.unwrap().entries, 1000);
}

#[test]
fn a_second_gateway_is_refused_with_the_first_ones_pid() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.db");
    let first = Ledger::open(&path, NOW).unwrap();
    let refused = Ledger::open(&path, NOW).unwrap_err();
    assert_eq!(*refused.problem(), LedgerProblem::Locked(Some(std::process::id())));
    Ledger::could_be_at(&path).unwrap();
    drop(first);
    Ledger::open(&path, NOW).unwrap();
}

#[test]
fn only_its_owner_may_read_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.db");
    let _ledger = Ledger::open(&path, NOW).unwrap();
    for suffix in ["", "-wal"] {
        let there = std::fs::metadata(format!("{}{suffix}", path.display())).unwrap();
        assert_eq!(there.permissions().mode() & 0o777, 0o600, "{suffix}");
    }
}

#[test]
fn what_is_no_ledger_of_ours_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("notes.txt");
    std::fs::write(&text, "x".repeat(5000)).unwrap();
    let other = folder.path().join("other.db");
    let newer = folder.path().join("newer.db");
    drop(Ledger::open(&newer, NOW).unwrap());
    let connection = rusqlite::Connection::open(&newer).unwrap();
    connection.pragma_update(None, "user_version", 1001).unwrap();
    drop(connection);
    rusqlite::Connection::open(&other).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    for (path, says) in [
        (text.as_path(), "is no ledger of a gateway"),
        (&other, "is no ledger of a gateway"),
        (&newer, "has format 1.1"),
        (folder.path(), "is no ledger of a gateway"),
        (&folder.path().join("none/x.db"), "its folder does not exist"),
    ] {
        let before = std::fs::read(path).ok();
        for refused in [Ledger::could_be_at(path).unwrap_err(), Ledger::open(path, NOW).unwrap_err()] {
            assert!(refused.to_string().contains(says), "{refused}");
        }
        assert_eq!(std::fs::read(path).ok(), before, "{}", path.display());
    }
    assert!(!folder.path().join("none").exists());
}

#[test]
fn a_check_makes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    Ledger::could_be_at(&folder.path().join("gateway.db")).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
