use tidegate_core::outbox::{State, Why};
use tidegate_core::time::Mono;

use super::*;
use crate::ledger::Kept;

const AT: Wall = Wall::from_unix_millis(1_700_000_000_000);

fn letter(seq: Seq) -> Letter {
    Letter {
        seq,
        id: format!("id{seq}"),
        kind: Kind::Write,
        tenant: "acme".into(),
        owner: "\nkey bot".into(),
        group: "acme".into(),
        line: "key k".into(),
        mark: Some("path /users/7".into()),
        keyed: Some(Keyed { scope: [1; 32], key: format!("k{seq}"), payload: BodyDigest::json(b"{}") }),
        method: "POST".into(),
        target: "/users/7?x=1".into(),
        headers: b"content-type: application/json\r\n".to_vec(),
        body: b"{}".to_vec(),
        class: "bulk".into(),
        credential: "default".into(),
        transaction: "t".into(),
        deadline: Some(Wall::from_unix_millis(1_700_000_100_000)),
        since: AT,
    }
}

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[test]
fn what_was_accepted_is_there_after_a_restart_and_so_is_what_became_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.db");
    let file = OutboxFile::open(&path).unwrap();
    let secret = *file.secret();
    block(async {
        for seq in 1..=4 {
            file.put(letter(seq), Vec::new()).await.unwrap();
        }
        for seq in 2..=4 {
            file.intend(seq, "up".into(), AT).await.unwrap();
        }
        let kept = Kept { status: 201, headers: b"etag: 1\r\n".to_vec(), body: b"{\"id\":1}".to_vec() };
        file.settle(3, Settle::Done(kept.clone()), 2, AT).await.unwrap();
        file.settle(4, Settle::Dead(Why::Unknown, None), 1, AT).await.unwrap();
        let (done, course) = file.load(3).await.unwrap().unwrap();
        assert_eq!((done.body.len(), course.answer), (0, Some(kept)), "what is delivered needs no body");
    });
    let refused = OutboxFile::open(&path).unwrap_err();
    assert!(refused.to_string().contains("is in use by process"), "{refused}");
    assert_eq!(OutboxFile::look(&path).unwrap().unwrap().len(), 4, "it can be looked at all the same");
    drop(file);

    let file = OutboxFile::open(&path).unwrap();
    assert_eq!((file.last(), file.secret()), (4, &secret));
    let heads = file.heads_blocking().unwrap();
    let now = Mono::from_nanos(5);
    let states: Vec<_> = heads.iter().map(|head| head.state(AT, now).unwrap()).collect();
    let expected = [State::Waiting(now), State::Sending, State::Done(now), State::Dead(Why::Unknown)];
    assert_eq!(states, expected);
    block(async {
        let (found, course) = file.load(2).await.unwrap().unwrap();
        assert_eq!(found, letter(2));
        assert_eq!((course.sent_key.as_deref(), course.first_sent), (Some("up"), Some(AT)));
        let found = file.find_key([1; 32], "k2".into()).await.unwrap();
        assert_eq!(found, Some((2, "id2".into(), BodyDigest::json(b"{}"))));
        assert_eq!(file.find_key([2; 32], "k2".into()).await.unwrap(), None);
    });
}

#[test]
fn a_proven_failure_leaves_no_first_sending_and_a_doubt_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = OutboxFile::open(&folder.path().join("outbox.db")).unwrap();
    block(async {
        for (seq, doubtful) in [(1, false), (2, true)] {
            file.put(letter(seq), Vec::new()).await.unwrap();
            file.intend(seq, "up".into(), AT).await.unwrap();
            let again = Settle::Again { at: AT, failed: 1, doubtful };
            file.settle(seq, again, 1, AT).await.unwrap();
            let (_, course) = file.load(seq).await.unwrap().unwrap();
            assert_eq!((course.first_sent.is_some(), course.doubtful), (doubtful, doubtful));
            assert_eq!((course.state.as_str(), course.failed, course.attempts), ("waiting", 1, 1));
        }
    });
}

#[test]
fn a_number_is_not_used_again_after_its_entry_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.db");
    let file = OutboxFile::open(&path).unwrap();
    block(async {
        file.put(letter(9), Vec::new()).await.unwrap();
        file.remove(vec![9]).await.unwrap();
    });
    drop(file);
    assert_eq!(OutboxFile::open(&path).unwrap().last(), 9);
}

#[test]
fn a_replayed_letter_waits_as_if_it_had_never_been_sent() {
    let folder = tempfile::tempdir().unwrap();
    let file = OutboxFile::open(&folder.path().join("outbox.db")).unwrap();
    block(async {
        file.put(letter(1), Vec::new()).await.unwrap();
        file.intend(1, "up".into(), AT).await.unwrap();
        file.settle(1, Settle::Dead(Why::Unknown, Some(Kept::default())), 1, AT).await.unwrap();
        file.replay(1, AT).await.unwrap();
        let (letter, course) = file.load(1).await.unwrap().unwrap();
        assert_eq!((letter.deadline, letter.body.as_slice()), (None, &b"{}"[..]));
        assert_eq!((course.state.as_str(), course.first_sent, course.answer), ("waiting", None, None));
    });
}

#[test]
fn a_ledger_is_no_outbox() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let now = crate::ledger::Now { wall: AT, mono: Mono::ZERO };
    drop(crate::ledger::Ledger::open(&path, now).unwrap());
    let refused = OutboxFile::open(&path).unwrap_err().to_string();
    assert!(
        refused.ends_with("is no outbox (an SQLite file of another program); check the path"),
        "{refused}"
    );
}
