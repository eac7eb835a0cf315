//! The journal as its users see it: who may open it, what it remembers, and what is left after a crash at any point.
//!
//! Names with `r16` show rule R16 of `crates/core/tests/rules.rs`: commits are shared, and a torn end of the log is told from
//! damage in the middle (drasi-project/drasi-core#668, fjall-rs/fjall#311).

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tempfile::TempDir;
use tidegate_core::time::Wall;
use tidegate_store::{
    Change, Counts, Digest, ErrorKind, Event, Illegal, Journal, NewItem, Outcome, Reader, RunHeader, State,
};
use uuid::Uuid;

fn at(ms: i64) -> Wall {
    Wall::from_unix_millis(ms)
}

fn header() -> RunHeader {
    RunHeader {
        recipe: "user-skills".into(),
        recipe_digest: Digest([7; 32]),
        input_name: "agents.csv".into(),
        input_digest: Digest([9; 32]),
        tenant: "acme".into(),
        profile: "genesys".into(),
        options: r#"{"concurrency":8}"#.into(),
        created: at(1_700_000_000_000),
    }
}

fn item(seq: u64) -> NewItem {
    NewItem {
        seq,
        id: format!("user-{seq}"),
        method: "PATCH".into(),
        target: format!("/api/v2/users/user-{seq}/routingskills/bulk"),
        body: Some(format!(r#"[{{"id":"s{seq}","proficiency":3}}]"#).into_bytes()),
        key: Uuid::from_u128(u128::from(seq)),
        transaction: Uuid::from_u128(u128::from(seq) << 64),
        lines: vec![seq, seq + 1000],
    }
}

fn change(seq: u64, event: Event) -> Change {
    let outcome = Outcome { attempts: 1, http_status: Some(200), error: None };
    Change { seq, event, outcome }
}

/// A planned journal of items 1..=n.
fn planned(folder: &TempDir, n: u64) -> (PathBuf, Journal) {
    let path = folder.path().join("run.journal");
    let journal = Journal::create(&path, &header()).unwrap();
    journal.append_blocking((1..=n).map(item).collect()).unwrap();
    journal.finish_planning_blocking(at(10)).unwrap();
    (path, journal)
}

#[test]
fn what_is_written_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let (path, journal) = planned(&folder, 3);
    journal.intend_blocking(vec![1, 2], at(20)).unwrap();
    let refused = Outcome { attempts: 2, http_status: Some(404), error: Some("not.found".into()) };
    journal
        .record_blocking(
            vec![change(1, Event::Succeed), Change { seq: 2, event: Event::Fail, outcome: refused }],
            at(30),
        )
        .unwrap();
    journal.close().unwrap();

    let reader = Reader::open(&path).unwrap();
    let run = reader.run().unwrap();
    assert_eq!((run.header, run.items, run.planned), (header(), 3, Some(at(10))));
    let page = reader.page(0, 10).unwrap();
    assert_eq!(page.iter().map(|it| it.request.clone()).collect::<Vec<_>>(), [item(1), item(2), item(3)]);
    let second = &page[1];
    assert_eq!((second.state, second.attempts, second.http_status), (State::Failed, 2, Some(404)));
    assert_eq!(
        (second.error.as_deref(), second.first_sent, second.updated),
        (Some("not.found"), Some(at(20)), Some(at(30)))
    );
    for (state, seq) in [(State::Ok, 1), (State::Failed, 2), (State::Planned, 3)] {
        let found = reader.in_state(state, 0, 10).unwrap();
        assert_eq!(found.iter().map(|it| it.request.seq).collect::<Vec<_>>(), [seq], "{state}");
    }
    assert_eq!(reader.counts().unwrap(), Counts { planned: 1, ok: 1, failed: 1, ..Counts::default() });
    reader.verify().unwrap();
}

#[test]
fn pages_continue_where_the_last_one_ended() {
    let folder = tempfile::tempdir().unwrap();
    let (_, journal) = planned(&folder, 25);
    let reader = journal.reader().unwrap();
    let mut seen = Vec::new();
    let mut after = 0;
    loop {
        let page = reader.page(after, 10).unwrap();
        let Some(last) = page.last() else { break };
        after = last.request.seq;
        seen.extend(page.iter().map(|it| it.request.seq));
    }
    assert_eq!(seen, (1..=25).collect::<Vec<_>>());
}

#[test]
fn open_intents_are_pending_and_flagged_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (path, journal) = planned(&folder, 4);
    journal.intend_blocking(vec![1, 2], at(20)).unwrap();
    journal.record_blocking(vec![change(1, Event::Succeed)], at(21)).unwrap();
    drop(journal);

    let journal = Journal::open(&path).unwrap();
    let pending = journal.reader().unwrap().pending(0, 10).unwrap();
    let flags: Vec<_> = pending.iter().map(|it| (it.item.request.seq, it.maybe_executed)).collect();
    assert_eq!(flags, [(2, true), (3, false), (4, false)]);

    // The resumed sending is proven unsent: the doubt about the first one stays, and so does its time.
    journal.intend_blocking(vec![2, 3], at(30)).unwrap();
    journal.record_blocking(vec![change(2, Event::Unsent), change(3, Event::Unsent)], at(31)).unwrap();
    let pending = journal.reader().unwrap().pending(0, 10).unwrap();
    let standing: Vec<_> = pending.iter().map(|it| (it.maybe_executed, it.item.first_sent)).collect();
    assert_eq!(standing, [(true, Some(at(20))), (false, None), (false, None)]);
}

#[test]
fn an_illegal_event_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (_, journal) = planned(&folder, 2);
    let refused = journal.record_blocking(vec![change(1, Event::Succeed)], at(20)).unwrap_err();
    let illegal = Illegal { state: State::Planned, event: Event::Succeed };
    assert_eq!(refused.kind(), &ErrorKind::Illegal { seq: 1, illegal });
    assert!(refused.to_string().ends_with("item 1: event Succeed cannot happen to an item that is planned"));
    assert_eq!(journal.reader().unwrap().counts().unwrap().planned, 2);
}

#[test]
fn nothing_is_sent_from_an_unfinished_plan_and_nothing_added_to_a_finished_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.journal");
    let journal = Journal::create(&path, &header()).unwrap();
    journal.append_blocking(vec![item(1)]).unwrap();
    drop(journal);
    let journal = Journal::open(&path).unwrap();
    assert_eq!(journal.run().planned, None);
    let refused = journal.intend_blocking(vec![1], at(20)).unwrap_err();
    assert_eq!(refused.kind(), &ErrorKind::PlanIncomplete);
    journal.finish_planning_blocking(at(20)).unwrap();
    assert_eq!(journal.append_blocking(vec![item(2)]).unwrap_err().kind(), &ErrorKind::PlanComplete);
}

#[test]
fn cancelling_ends_unsent_items_and_leaves_open_ones_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let (_, journal) = planned(&folder, 5);
    journal.intend_blocking(vec![1, 2, 3], at(20)).unwrap();
    journal.record_blocking(vec![change(1, Event::Succeed), change(3, Event::Unsent)], at(21)).unwrap();
    journal.cancel_blocking(at(30)).unwrap();
    let reader = journal.reader().unwrap();
    assert_eq!(reader.counts().unwrap(), Counts { ok: 1, unknown: 1, cancelled: 3, ..Counts::default() });
    assert_eq!(reader.run().unwrap().cancelled, Some(at(30)));
    assert!(reader.pending(0, 10).unwrap().is_empty());
    journal.cancel_blocking(at(40)).unwrap();
    assert_eq!(reader.run().unwrap().cancelled, Some(at(30)), "cancelling twice is harmless");
}

#[test]
fn a_second_writer_is_refused_with_the_holders_pid_and_readers_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let (path, journal) = planned(&folder, 1);
    let refused = Journal::open(&path).unwrap_err();
    assert_eq!(refused.kind(), &ErrorKind::Locked { pid: Some(std::process::id()) });
    assert_eq!(Reader::open(&path).unwrap().counts().unwrap().planned, 1);
    drop(journal);
    Journal::open(&path).unwrap();
}

#[test]
fn an_existing_journal_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let (path, journal) = planned(&folder, 1);
    drop(journal);
    assert_eq!(Journal::create(&path, &header()).unwrap_err().kind(), &ErrorKind::Exists);
    assert_eq!(Reader::open(&path).unwrap().run().unwrap().items, 1);
}

#[test]
fn a_draft_left_by_a_crash_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("run.journal.new"), b"half a file").unwrap();
    let (_, journal) = planned(&folder, 1);
    journal.close().unwrap();
    assert!(!folder.path().join("run.journal.new").exists());
}

fn set_version(path: &Path, number: u32) {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection.pragma_update(None, "user_version", number).unwrap();
}

#[test]
fn a_newer_minor_format_is_read_but_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let (path, journal) = planned(&folder, 1);
    journal.close().unwrap();
    set_version(&path, 1002);
    let refused = Journal::open(&path).unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::TooNewToWrite { .. }), "{refused}");
    assert!(refused.to_string().contains("has format 1.2, this version writes 1.1"), "{refused}");
    assert_eq!(Reader::open(&path).unwrap().counts().unwrap().planned, 1);
}

#[test]
fn another_major_format_is_neither_read_nor_written() {
    let folder = tempfile::tempdir().unwrap();
    let (path, journal) = planned(&folder, 1);
    journal.close().unwrap();
    set_version(&path, 2000);
    for refused in [Journal::open(&path).unwrap_err(), Reader::open(&path).unwrap_err()] {
        assert!(matches!(refused.kind(), ErrorKind::TooNewToRead { .. }), "{refused}");
    }
}

#[test]
fn other_files_are_told_from_journals() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("text.csv"), "user_id,skill\n".repeat(100)).unwrap();
    fs::write(path("empty"), "").unwrap();
    rusqlite::Connection::open(path("other.db")).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
    fs::create_dir(path("folder")).unwrap();
    for name in ["text.csv", "empty", "other.db", "folder"] {
        for error in [Reader::open(&path(name)).unwrap_err(), Journal::open(&path(name)).unwrap_err()] {
            assert!(matches!(error.kind(), ErrorKind::NotAJournal { .. }), "{name}: {error}");
        }
    }
    assert_eq!(Journal::open(&path("none")).unwrap_err().kind(), &ErrorKind::Missing);
    for name in ["none.lock", "text.csv.lock"] {
        assert!(!path(name).exists(), "a mistyped name leaves nothing behind");
    }
}

#[test]
fn r16_a_damaged_journal_is_reported_as_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let (path, journal) = planned(&folder, 500);
    journal.close().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let pages = bytes.len() / 4096;
    for page in 5..pages {
        bytes[page * 4096..page * 4096 + 64].fill(0xa5);
    }
    fs::write(&path, bytes).unwrap();
    let reader = Reader::open(&path).unwrap();
    for error in [reader.page(0, 1000).unwrap_err(), reader.verify().unwrap_err()] {
        assert!(matches!(error.kind(), ErrorKind::Corrupt(_)), "{error}");
    }
}

#[tokio::test]
async fn r16_many_tasks_share_commits_and_each_hears_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.journal");
    let journal = tokio::task::spawn_blocking(move || {
        let journal = Journal::create(&path, &header()).unwrap();
        journal.append_blocking((1..=400).map(item).collect()).unwrap();
        journal.finish_planning_blocking(at(10)).unwrap();
        std::sync::Arc::new(journal)
    })
    .await
    .unwrap();
    let tasks: Vec<_> = (1..=400)
        .map(|seq| {
            let journal = std::sync::Arc::clone(&journal);
            tokio::spawn(async move {
                journal.intend(vec![seq], at(20)).await.unwrap();
                journal.record(vec![change(seq, Event::Succeed)], at(21)).await.unwrap();
                journal.intend(vec![seq], at(22)).await.unwrap_err()
            })
        })
        .collect();
    for task in tasks {
        assert!(matches!(task.await.unwrap().kind(), ErrorKind::Illegal { .. }));
    }
    assert_eq!(journal.reader().unwrap().counts().unwrap().ok, 400);
}

/// Copies the database and its write-ahead log, the latter cut to `keep` bytes: what a power cut leaves.
fn cut(path: &Path, into: &Path, keep: Option<usize>) -> PathBuf {
    let copy = into.join("cut.journal");
    fs::copy(path, &copy).unwrap();
    let mut wal = fs::read(format!("{}-wal", path.display())).unwrap_or_default();
    wal.truncate(keep.unwrap_or(usize::MAX));
    fs::write(into.join("cut.journal-wal"), wal).unwrap();
    copy
}

fn states(path: &Path) -> BTreeMap<u64, State> {
    let journal = Journal::open(path).unwrap();
    let page = journal.reader().unwrap().page(0, 10_000).unwrap();
    page.into_iter().map(|it| (it.request.seq, it.state)).collect()
}

#[test]
fn every_acknowledged_write_survives_a_crash_right_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let (path, journal) = planned(&folder, 6);
    let steps: [(u64, Option<Event>, State); 7] = [
        (1, None, State::Sent),
        (1, Some(Event::Succeed), State::Ok),
        (2, None, State::Sent),
        (2, Some(Event::LoseTrack), State::Unknown),
        (3, None, State::Sent),
        (3, None, State::Resent),
        (3, Some(Event::Fail), State::Failed),
    ];
    let mut expected: BTreeMap<u64, State> = (1..=6).map(|seq| (seq, State::Planned)).collect();
    for (seq, event, state) in steps {
        match event {
            None => journal.intend_blocking(vec![seq], at(20)).unwrap(),
            Some(event) => journal.record_blocking(vec![change(seq, event)], at(21)).unwrap(),
        }
        expected.insert(seq, state);
        let copy = tempfile::tempdir().unwrap();
        assert_eq!(states(&cut(&path, copy.path(), None)), expected, "after {seq} became {state}");
    }
}

#[test]
fn r16_a_log_cut_anywhere_leaves_the_state_of_some_commit() {
    let folder = tempfile::tempdir().unwrap();
    let (path, journal) = planned(&folder, 8);
    journal.close().unwrap();
    let journal = Journal::open(&path).unwrap();
    let mut history = vec![(1..=8).map(|seq| (seq, State::Planned)).collect::<BTreeMap<_, _>>()];
    for seq in 1..=8 {
        for (event, state) in [(None, State::Sent), (Some(Event::Succeed), State::Ok)] {
            match event {
                None => journal.intend_blocking(vec![seq], at(20)).unwrap(),
                Some(event) => journal.record_blocking(vec![change(seq, event)], at(21)).unwrap(),
            }
            let mut next = history.last().unwrap().clone();
            next.insert(seq, state);
            history.push(next);
        }
    }
    let length = fs::metadata(format!("{}-wal", path.display())).unwrap().len();
    let length = usize::try_from(length).unwrap();
    let mut reached = 0;
    for keep in (0..=length).step_by(997).chain([length]) {
        let copy = tempfile::tempdir().unwrap();
        if keep < 32 + 24 + 4096 {
            // The commit that began the writing is in the log before anything else is: a log without a frame is a lost one.
            let refused = Journal::open(&cut(&path, copy.path(), Some(keep))).unwrap_err();
            assert!(matches!(refused.kind(), ErrorKind::Corrupt(_)), "{keep}: {refused}");
            continue;
        }
        let found = states(&cut(&path, copy.path(), Some(keep)));
        let place = history.iter().position(|state| *state == found).expect("a state that was committed");
        assert!(place >= reached, "a longer log never knows less");
        reached = place;
    }
    assert_eq!(reached, history.len() - 1, "the whole log has everything");
}

/// What a kill leaves: all files of the journal as they are at this moment.
fn killed(path: &Path, into: &Path) -> PathBuf {
    let copy = cut(path, into, None);
    fs::copy(format!("{}.mark", path.display()), into.join("cut.journal.mark")).unwrap();
    copy
}

/// A run of eight items: three done and folded into the file, four done since, of which the log knows, one in doubt.
fn half_done(folder: &TempDir) -> (PathBuf, Journal, BTreeMap<u64, State>) {
    let (path, journal) = planned(folder, 8);
    for seq in 1..=3 {
        journal.intend_blocking(vec![seq], at(20)).unwrap();
        journal.record_blocking(vec![change(seq, Event::Succeed)], at(21)).unwrap();
    }
    journal.close().unwrap();
    let journal = Journal::open(&path).unwrap();
    for seq in 4..=7 {
        journal.intend_blocking(vec![seq], at(20)).unwrap();
        journal.record_blocking(vec![change(seq, Event::Succeed)], at(21)).unwrap();
    }
    journal.intend_blocking(vec![8], at(30)).unwrap();
    let known = (1..=8).map(|seq| (seq, if seq < 8 { State::Ok } else { State::Sent })).collect();
    (path, journal, known)
}

/// Where every item stands, from a file that is opened to go on with its run; `None` if it is refused as damaged.
fn resumed(path: &Path) -> Option<BTreeMap<u64, State>> {
    let read = || {
        let journal = Journal::open(path)?;
        journal.reader()?.page(0, 10_000)
    };
    match read() {
        Ok(page) => Some(page.into_iter().map(|it| (it.request.seq, it.state)).collect()),
        Err(error) => {
            // Of the header's own fields some say that it is another program's file, or of another format.
            let refused = matches!(
                error.kind(),
                ErrorKind::Corrupt(_)
                    | ErrorKind::NotAJournal { .. }
                    | ErrorKind::TooNewToRead { .. }
                    | ErrorKind::TooNewToWrite { .. }
                    | ErrorKind::ReadOnly(_)
                    | ErrorKind::Io(_)
            );
            assert!(refused, "{error}");
            None
        }
    }
}

#[test]
fn r16_a_byte_that_changed_in_the_middle_of_the_log_is_damage_and_not_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _journal, known) = half_done(&folder);
    let copy = tempfile::tempdir().unwrap();
    let copied = killed(&path, copy.path());
    let log = copy.path().join("cut.journal-wal");
    let mut bytes = fs::read(&log).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(&log, &bytes).unwrap();
    for refused in [Journal::open(&copied).unwrap_err(), Reader::open(&copied).unwrap_err()] {
        assert!(matches!(refused.kind(), ErrorKind::Corrupt(_)), "{refused}");
    }
    // Without the count beside it the log's own frames tell.
    fs::remove_file(copy.path().join("cut.journal.mark")).unwrap();
    let refused = Journal::open(&copied).unwrap_err();
    assert!(refused.to_string().contains("lie behind a damaged place in its log"), "{refused}");
    bytes[middle] ^= 0x10;
    fs::write(&log, bytes).unwrap();
    assert_eq!(resumed(&copied), Some(known), "refusing has changed nothing");
}

#[test]
fn r16_whatever_byte_changes_no_acknowledged_outcome_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _journal, known) = half_done(&folder);
    let copy = tempfile::tempdir().unwrap();
    let copied = killed(&path, copy.path());
    let files = ["cut.journal", "cut.journal-wal", "cut.journal.mark"];
    let whole = files.map(|name| fs::read(copy.path().join(name)).unwrap());
    let mut refused = 0;
    for (at, file) in whole.iter().enumerate() {
        for (round, place) in (0..file.len()).step_by(503).chain(0..file.len().min(104)).enumerate() {
            for (name, bytes) in files.iter().zip(&whole) {
                fs::write(copy.path().join(name), bytes).unwrap();
            }
            drop(fs::remove_file(copy.path().join("cut.journal-shm")));
            let mut bytes = file.clone();
            bytes[place] ^= 1 << (round % 8);
            fs::write(copy.path().join(files[at]), bytes).unwrap();
            match resumed(&copied) {
                Some(found) => assert_eq!(found, known, "byte {place} of {}", files[at]),
                None => refused += 1,
            }
        }
    }
    assert!(refused > 100, "damage was looked for: {refused}");
}

#[test]
fn a_journal_without_its_log_is_not_taken_for_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (path, journal, known) = half_done(&folder);
    let copy = tempfile::tempdir().unwrap();
    let copied = killed(&path, copy.path());
    fs::remove_file(copy.path().join("cut.journal-wal")).unwrap();
    let refused = Journal::open(&copied).unwrap_err();
    assert!(refused.to_string().contains("its log (-wal) is missing, or"), "{refused}");
    // The one file alone, as a person copies it.
    fs::remove_file(copy.path().join("cut.journal.mark")).unwrap();
    let refused = Reader::open(&copied).unwrap_err();
    assert!(refused.to_string().contains("its log (-wal) is missing"), "{refused}");
    // Closed, the one file is the journal.
    journal.close().unwrap();
    let alone = tempfile::tempdir().unwrap();
    fs::copy(&path, alone.path().join("run.journal")).unwrap();
    assert_eq!(resumed(&alone.path().join("run.journal")), Some(known));
}

#[test]
fn a_log_that_somebody_else_has_folded_in_is_not_missed() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _journal, known) = half_done(&folder);
    let copy = tempfile::tempdir().unwrap();
    let copied = killed(&path, copy.path());
    let shell = rusqlite::Connection::open(&copied).unwrap();
    shell.query_row("SELECT count(*) FROM item", [], |row| row.get::<_, i64>(0)).unwrap();
    shell.close().unwrap();
    assert!(!copy.path().join("cut.journal-wal").exists(), "the last who closes it folds it");
    assert_eq!(resumed(&copied), Some(known));
}

#[test]
fn an_older_copy_in_the_place_of_a_journal_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let (path, journal, _) = half_done(&folder);
    journal.close().unwrap();
    let older = fs::read(&path).unwrap();
    let journal = Journal::open(&path).unwrap();
    journal.record_blocking(vec![change(8, Event::Succeed)], at(40)).unwrap();
    journal.close().unwrap();
    fs::write(&path, older).unwrap();
    let refused = Journal::open(&path).unwrap_err();
    assert!(refused.to_string().contains("or it is an older copy"), "{refused}");
}

#[test]
fn a_new_journal_does_not_take_up_the_log_of_a_deleted_one() {
    let folder = tempfile::tempdir().unwrap();
    let (path, journal) = planned(&folder, 8);
    journal.intend_blocking((1..=8).collect(), at(20)).unwrap();
    // As after a crash: the file, and a log beside it that nobody has folded into it.
    let copy = tempfile::tempdir().unwrap();
    let left = cut(&path, copy.path(), None);
    fs::remove_file(&left).unwrap();
    assert!(fs::metadata(format!("{}-wal", left.display())).unwrap().len() > 0);
    let journal = Journal::create(&left, &header()).unwrap();
    journal.append_blocking(vec![item(1), item(9)]).unwrap();
    journal.finish_planning_blocking(at(30)).unwrap();
    journal.close().unwrap();
    let expected: BTreeMap<u64, State> = [(1, State::Planned), (9, State::Planned)].into();
    assert_eq!(states(&left), expected);
}

#[test]
fn a_copy_taken_while_it_is_being_planned_is_refused_for_sending() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.journal");
    let journal = Journal::create(&path, &header()).unwrap();
    journal.append_blocking(vec![item(1)]).unwrap();
    let copy = tempfile::tempdir().unwrap();
    let resumed = Journal::open(&cut(&path, copy.path(), None)).unwrap();
    let refused = resumed.intend_blocking(vec![1], at(20)).unwrap_err();
    assert_eq!(refused.kind(), &ErrorKind::PlanIncomplete);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Random events against a plain map folded by the same public function: the file never disagrees with it,
    /// whether it was closed properly, dropped, or copied under way.
    #[test]
    fn the_file_agrees_with_a_map(
        events in prop::collection::vec((1_u64..=5, prop::sample::select(Event::ALL.to_vec()), any::<bool>()), 1..40),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (path, journal) = planned(&folder, 5);
        let mut journal = Some(journal);
        let mut model: BTreeMap<u64, State> = (1..=5).map(|seq| (seq, State::Planned)).collect();
        for (seq, event, reopen) in events {
            let open = journal.take().unwrap_or_else(|| Journal::open(&path).unwrap());
            let done = open.record_blocking(vec![change(seq, event)], at(20));
            match tidegate_store::next_state(model[&seq], event) {
                Ok(next) => {
                    prop_assert!(done.is_ok());
                    model.insert(seq, next);
                }
                Err(_) => prop_assert!(done.is_err()),
            }
            if !reopen {
                journal = Some(open);
            }
        }
        drop(journal);
        prop_assert_eq!(states(&path), model);
    }
}
