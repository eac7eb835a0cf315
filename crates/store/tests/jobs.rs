//! Jobs, their parts and amendments in the journal.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::Arc;

use tempfile::TempDir;
use tidegate_core::time::Wall;
use tidegate_store::{
    Accepted, Change, ErrorKind, Event, Journal, NewItem, Outcome, Page, Part, PartCounts, PartState,
    RunHeader, State, Step,
};
use uuid::Uuid;

fn at(ms: i64) -> Wall {
    Wall::from_unix_millis(ms)
}

fn item(seq: u64) -> NewItem {
    NewItem { seq, id: format!("list-{seq}"), body: Some(b"[1,2,3]".to_vec()), ..NewItem::default() }
}

/// A planned journal of two items.
async fn planned(folder: &TempDir) -> Arc<Journal> {
    let path = folder.path().join("run.journal");
    tokio::task::spawn_blocking(move || {
        let journal = Journal::create(&path, &RunHeader::default()).unwrap();
        journal.append_blocking(vec![item(2), item(5)]).unwrap();
        journal.finish_planning_blocking(at(10)).unwrap();
        Arc::new(journal)
    })
    .await
    .unwrap()
}

fn part(ord: u32, state: Option<PartState>) -> Part {
    Part { ord, id: format!("c{ord}"), line: Some(u64::from(ord) + 2), state, ..Part::default() }
}

async fn accepted(journal: &Journal, seq: u64, job: &str) {
    journal.intend(vec![seq], at(20)).await.unwrap();
    let parts = (0..3).map(|ord| part(ord, None)).collect();
    journal.accept(seq, acceptance(job, parts), at(21)).await.unwrap();
}

fn acceptance(job: &str, parts: Vec<Part>) -> Accepted {
    let (job, state) = (job.to_owned(), "InProgress".to_owned());
    Accepted { job, state, step: Step::Polling, http_status: Some(202), attempts: 2, parts }
}

#[tokio::test]
async fn an_accepted_item_is_pending_but_not_in_doubt() {
    let folder = tempfile::tempdir().unwrap();
    let journal = planned(&folder).await;
    accepted(&journal, 2, "j-1").await;
    let reader = journal.reader().unwrap();
    let pending = reader.pending(0, 10).unwrap();
    let (first, second) = (&pending[0], &pending[1]);
    let job = first.job.as_ref().unwrap();
    assert_eq!((job.id.as_str(), job.state.as_str(), job.step), ("j-1", "InProgress", Step::Polling));
    assert_eq!((first.item.state, first.maybe_executed, first.item.attempts), (State::Sent, false, 2));
    assert_eq!(first.item.http_status, Some(202));
    assert_eq!((second.job.as_ref(), second.maybe_executed), (None, false));
    assert_eq!(reader.open_jobs().unwrap(), vec![first.clone()]);
    assert_eq!(reader.part_counts().unwrap(), PartCounts { open: 3, ..PartCounts::default() });

    let other = journal.accept(2, acceptance("j-2", Vec::new()), at(30)).await.unwrap_err();
    assert_eq!(other.kind(), &ErrorKind::AlreadyAccepted { seq: 2, job: "j-1".to_owned() });
    let unsent = journal.accept(5, acceptance("j-3", Vec::new()), at(30)).await;
    assert!(matches!(unsent.unwrap_err().kind(), ErrorKind::Illegal { seq: 5, .. }));
}

#[tokio::test]
async fn a_page_its_parts_and_the_place_of_the_next_are_one_write() {
    let folder = tempfile::tempdir().unwrap();
    let journal = planned(&folder).await;
    accepted(&journal, 2, "j-1").await;
    journal.polled(2, "Complete".to_owned(), Step::Fetching, at(30)).await.unwrap();
    let page = Page {
        cursor: Some("c1".to_owned()),
        results: 2,
        parts: vec![part(0, Some(PartState::Ok)), part(1, Some(PartState::Failed))],
        bytes: 120,
    };
    journal.fetched(2, page).await.unwrap();
    let reader = journal.reader().unwrap();
    let job = reader.open_jobs().unwrap().remove(0).job.unwrap();
    assert_eq!((job.cursor.as_deref(), job.fetched, job.bytes, job.polls), (Some("c1"), 2, 120, 1));
    assert_eq!((job.step, job.polled), (Step::Fetching, Some(at(30))));
    assert_eq!(
        reader.part_counts().unwrap(),
        PartCounts { ok: 1, failed: 1, open: 1, ..PartCounts::default() }
    );
    let last = Page { cursor: None, results: 1, parts: vec![part(2, Some(PartState::Retry))], bytes: 150 };
    journal.fetched(2, last).await.unwrap();
    let job = reader.open_jobs().unwrap().remove(0).job.unwrap();
    assert_eq!((job.cursor, job.fetched, job.step), (None, 3, Step::Fetched));
    assert_eq!(reader.result_bytes().unwrap(), 150);
    let done = Change { seq: 2, event: Event::Succeed, outcome: Outcome::default() };
    journal.record(vec![done], at(40)).await.unwrap();
    assert!(reader.open_jobs().unwrap().is_empty());
}

#[tokio::test]
async fn a_part_is_sent_again_once_and_counts_where_it_was_sent_last() {
    let folder = tempfile::tempdir().unwrap();
    let journal = planned(&folder).await;
    accepted(&journal, 2, "j-1").await;
    let retry = Part { error: Some("busy".to_owned()), ..part(1, Some(PartState::Retry)) };
    let parts = vec![part(0, Some(PartState::Ok)), retry.clone(), part(2, Some(PartState::Ok))];
    journal.fetched(2, Page { results: 3, parts, ..Page::default() }).await.unwrap();
    let again = NewItem { seq: 0, body: Some(b"[2]".to_vec()), ..item(0) };
    journal.follow(2, again.clone(), vec![retry.clone()]).await.unwrap();
    let refused = journal.follow(2, again, vec![retry]).await.unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::Illegal { seq: 2, .. }), "{refused}");

    let reader = journal.reader().unwrap();
    let pending = reader.pending(5, 10).unwrap();
    assert_eq!(pending.len(), 1, "the refused write left nothing behind");
    let new = &pending[0].item;
    assert_eq!((new.request.seq, new.request.body.as_deref()), (6, Some(&b"[2]"[..])));
    let parts = reader.parts(6).unwrap();
    assert_eq!(parts, [Part { ord: 0, id: "c1".to_owned(), line: Some(3), round: 1, ..Part::default() }]);
    assert_eq!(reader.part_counts().unwrap(), PartCounts { ok: 2, open: 1, ..PartCounts::default() });
    assert_eq!(reader.counts().unwrap().total(), 3);
    // The submission of the new item gets lost as a whole.
    journal.intend(vec![6], at(50)).await.unwrap();
    let lost = Change { seq: 6, event: Event::LoseTrack, outcome: Outcome::default() };
    journal.record(vec![lost], at(51)).await.unwrap();
    assert_eq!(reader.part_counts().unwrap(), PartCounts { ok: 2, unknown: 1, ..PartCounts::default() });
}

#[tokio::test]
async fn an_amended_item_has_its_new_body_and_key_and_counts_as_not_sent() {
    let folder = tempfile::tempdir().unwrap();
    let journal = planned(&folder).await;
    journal.intend(vec![2], at(20)).await.unwrap();
    let key = Uuid::from_u128(77);
    journal.amend(2, Some(b"[9]".to_vec()), key, at(21)).await.unwrap();
    // What a person sees in the sqlite3 shell.
    let shell = rusqlite::Connection::open(journal.path()).unwrap();
    let shown: (String, String) = shell
        .query_row("SELECT key, body FROM report WHERE seq = 2", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    assert_eq!(shown, (key.simple().to_string(), "[9]".to_owned()));
    drop(shell);
    let reader = journal.reader().unwrap();
    let pending = reader.pending(0, 1).unwrap().remove(0);
    assert_eq!((pending.item.request.key, pending.item.rev), (key, 1));
    assert_eq!(pending.item.request.body.as_deref(), Some(&b"[9]"[..]));
    assert_eq!((pending.item.state, pending.maybe_executed), (State::Planned, false));
    journal.intend(vec![2], at(22)).await.unwrap();
    journal.intend(vec![2], at(23)).await.unwrap();
    journal.amend(2, None, key, at(24)).await.unwrap();
    let pending = reader.pending(0, 1).unwrap().remove(0);
    assert_eq!((pending.item.rev, pending.item.request.body.clone()), (2, None));
    assert!(pending.maybe_executed, "an earlier sending is still in doubt");
    let done = Change { seq: 2, event: Event::Succeed, outcome: Outcome::default() };
    journal.record(vec![done], at(25)).await.unwrap();
    let refused = journal.amend(2, None, key, at(26)).await.unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::Illegal { seq: 2, .. }));
    assert_eq!(reader.page(0, 1).unwrap()[0].rev, 2, "a refused amendment changes nothing");
}

#[tokio::test]
async fn cancelling_names_the_jobs_that_go_on_upstream() {
    let folder = tempfile::tempdir().unwrap();
    let journal = planned(&folder).await;
    accepted(&journal, 2, "j-1").await;
    let journal = tokio::task::spawn_blocking(move || {
        journal.cancel_blocking(at(50)).unwrap();
        journal
    })
    .await
    .unwrap();
    let reader = journal.reader().unwrap();
    let page = reader.page(0, 10).unwrap();
    assert_eq!((page[0].state, page[1].state), (State::Unknown, State::Cancelled));
    assert!(page[0].error.as_deref().unwrap().contains("job j-1 goes on upstream"), "{:?}", page[0].error);
    assert_eq!(reader.part_counts().unwrap(), PartCounts { unknown: 3, ..PartCounts::default() });
    assert!(reader.open_jobs().unwrap().is_empty());
}
