//! Reading a job's results, page by page.
//!
//! A page goes to the file of results and to the disk before the journal hears of it. After a crash in between the file is
//! longer than the journal says; it is cut to that when the run goes on, and the page is read again. So each result is in
//! the file once.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::Value;
use serde_json::value::RawValue;
use tidegate::Class;
use tidegate_core::poll::Sight;
use tidegate_core::template::encode;
use tidegate_store::{Item, Job, Page, Part, PartState, Step, fault};
use tokio::sync::Mutex;

use super::poll::{MAX_PAGE, Told, target_of};
use super::{Ended, parts, text_at};
use crate::execute::{Sender, Stopped};
use crate::recipe::job::Results;
use crate::recipe::{Jobs, Next, check_target};

/// Calls for one page that bring nothing before the job is given up as unknown.
const PATIENCE: u32 = 10;

/// The file of results. Whoever holds it appends a page and has the journal know of it, before anybody else does.
#[derive(Debug)]
pub(in crate::execute) struct Sink {
    file: Option<File>,
    length: u64,
}

impl Sink {
    /// Opens the file and cuts it to the `length` that the journal knows of.
    pub(in crate::execute) fn open(path: Option<&Path>, length: u64) -> io::Result<Arc<Mutex<Self>>> {
        let file = match path {
            None => None,
            Some(path) => {
                let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
                // Its name has to outlive a power cut as well: the journal counts the bytes in it.
                sync_folder(path)?;
                let found = file.metadata()?.len();
                if found < length {
                    return Err(io::Error::other(format!(
                        "{} has {found} bytes, and the journal knows of {length}: results are missing. Put back the file that \
                         the run wrote, or a copy of it (--results says where it is); to go on without those results, make a file of {length} bytes in its place",
                        path.display()
                    )));
                }
                file.set_len(length)?;
                file.seek(SeekFrom::End(0))?;
                Some(file)
            }
        };
        Ok(Arc::new(Mutex::new(Self { file, length })))
    }

    /// Appends text; it is on disk when this returns. The length with it, which counts only once [`Sink::length`] says so.
    fn append(&mut self, text: &[u8]) -> io::Result<u64> {
        let Some(file) = &mut self.file else { return Ok(0) };
        // After a failed write its beginning may be there.
        file.set_len(self.length)?;
        file.seek(SeekFrom::Start(self.length))?;
        file.write_all(text)?;
        file.sync_data()?;
        Ok(self.length + text.len() as u64)
    }
}

/// Makes a file's name durable, not only its contents.
fn sync_folder(path: &Path) -> io::Result<()> {
    // Only Unix can open a folder as a file; elsewhere the file system sees to it.
    if cfg!(unix) {
        let folder = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Results, one a line, however the upstream lays its JSON out.
fn lines(results: &[&RawValue]) -> Vec<u8> {
    let mut text = Vec::new();
    for result in results {
        // A line break in JSON is white space: within strings it is escaped.
        text.extend(result.get().bytes().filter(|byte| !matches!(byte, b'\n' | b'\r')));
        text.push(b'\n');
    }
    text
}

impl Sender<'_> {
    /// Reads what is left of a job's results.
    pub(super) async fn fetch(&self, item: &Item, job: &mut Job, rules: &Jobs) -> Result<Ended, Stopped> {
        let Some(results) = &rules.results else { return Ok(Ended::Well) };
        let target = results.path.as_ref().and_then(|path| target_of(path, rules, item, job));
        let Some(target) = target else {
            return Ok(Ended::Unknown(format!("job {} ended, but its results have no path", job.id)));
        };
        let rows = if rules.item.is_some() { self.parts_of(item.request.seq).await? } else { Vec::new() };
        let names = parts::names(item, rules);
        while job.step != Step::Fetched {
            let body = match self.page(&target, job, results).await? {
                Ok(body) => body,
                Err(why) => {
                    let why = format!("job {} ended, but its results cannot be read: {why}", job.id);
                    return Ok(Ended::Unknown(why));
                }
            };
            let Some((told, cursor)) = read_page(&body, results) else {
                let why = format!("job {} ended, but there are no results at `{}`", job.id, results.items);
                return Ok(Ended::Unknown(why));
            };
            if cursor.is_some() && cursor == job.cursor {
                return Ok(Ended::Unknown(format!("the results of job {} lead in a circle", job.id)));
            }
            let parts = match &rules.item {
                None => Vec::new(),
                Some(item_rules) => {
                    let first = usize::try_from(job.fetched).unwrap_or(usize::MAX);
                    let rows = rows.iter().zip(&names).skip(first).zip(&told);
                    rows.map(|((row, name), told)| {
                        let told: Value = serde_json::from_str(told.get()).unwrap_or_default();
                        parts::told(row.clone(), name.as_deref(), &told, item_rules)
                    })
                    .collect::<Vec<Part>>()
                }
            };
            self.keep(item, job, &told, cursor, parts).await?;
        }
        Ok(Ended::Well)
    }

    /// Results are matched to rows by their place: where there are not as many of them as rows, none of them tells anything.
    pub(super) async fn in_place(&self, item: &Item, job: &Job) -> Result<Ended, Stopped> {
        let seq = item.request.seq;
        let mut parts = self.parts_of(seq).await?;
        if job.fetched == parts.len() as u64 {
            return Ok(Ended::Well);
        }
        let why = format!("job {} told {} results for {} rows", job.id, job.fetched, parts.len());
        for part in &mut parts {
            *part = Part { state: Some(PartState::Unknown), error: Some(why.clone()), ..part.clone() };
        }
        self.journal.fetched(seq, Page { parts, ..Page::default() }).await?;
        Ok(Ended::Unknown(why))
    }

    /// Puts a page into the file, then into the journal.
    async fn keep(
        &self,
        item: &Item,
        job: &mut Job,
        told: &[&RawValue],
        cursor: Option<String>,
        parts: Vec<Part>,
    ) -> Result<(), Stopped> {
        let text = lines(told);
        let mut sink = Arc::clone(&self.sink).lock_owned().await;
        let appended = tokio::task::spawn_blocking(move || {
            let appended = sink.append(&text);
            (sink, appended)
        });
        let (mut sink, appended) =
            appended.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        let bytes = appended.map_err(|error| Stopped::Results(error.to_string()))?;
        fault::point("bulk.page");
        let results = told.len() as u64;
        self.journal
            .fetched(item.request.seq, Page { cursor: cursor.clone(), results, parts, bytes })
            .await?;
        sink.length = bytes.max(sink.length);
        drop(sink);
        job.fetched += results;
        job.step = if cursor.is_some() { Step::Fetching } else { Step::Fetched };
        job.cursor = cursor;
        Ok(())
    }

    /// The page at which a job's results go on.
    async fn page(
        &self,
        first: &str,
        job: &Job,
        results: &Results,
    ) -> Result<Result<Vec<u8>, String>, Stopped> {
        let target = match (&job.cursor, &results.next) {
            (Some(cursor), Some(next)) => match target_at(first, cursor, next) {
                Ok(target) => target,
                Err(why) => return Ok(Err(why)),
            },
            _ => first.to_owned(),
        };
        let mut rng = fastrand::Rng::with_seed(job.fetched);
        let mut why = "no answer".to_owned();
        for attempt in 0..PATIENCE {
            let hint = match self.ask(Method::GET, &target, None, Class::Bulk, MAX_PAGE).await? {
                Told::Answer { body, .. } => return Ok(Ok(body)),
                Told::Gone(why) | Told::Refused(why) if attempt >= 2 => return Ok(Err(why)),
                Told::Gone(told) | Told::Refused(told) => {
                    why = told;
                    None
                }
                Told::Later { hint } => hint,
            };
            let sight = Sight { age: Duration::from_secs(1 << attempt), progress: None, hint };
            let plan = tidegate_core::poll::PollPlan::default();
            tokio::time::sleep(plan.next(&sight, &mut rng)).await;
        }
        Ok(Err(why))
    }
}

/// The target of the page at `cursor`.
fn target_at(first: &str, cursor: &str, next: &Next) -> Result<String, String> {
    match next {
        Next::Uri(_) => check_target(cursor).map(|()| cursor.to_owned()),
        Next::Cursor(_) => {
            let mut target = first.to_owned();
            target.push_str(if target.contains('?') { "&cursor=" } else { "?cursor=" });
            encode(cursor, &mut target);
            Ok(target)
        }
    }
}

/// The results on a page as they were written, and where the next page begins.
fn read_page<'b>(body: &'b [u8], rules: &Results) -> Option<(Vec<&'b RawValue>, Option<String>)> {
    let text = std::str::from_utf8(body).ok()?;
    let (_, list) = parts::at(text, &rules.items)?;
    let told: Vec<&RawValue> = serde_json::from_str(list).ok()?;
    let cursor = rules.next.as_ref().and_then(|next| {
        let (_, raw) = parts::at(text, next.pointer())?;
        let value: Value = serde_json::from_str(raw).ok()?;
        text_at(&value, "")
    });
    Some((told, cursor))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    fn inner(sink: Arc<Mutex<Sink>>) -> Sink {
        Arc::into_inner(sink).unwrap().into_inner()
    }

    #[test]
    fn a_page_that_the_journal_has_not_heard_of_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.ndjson");
        let mut sink = inner(Sink::open(Some(&path), 0).unwrap());
        let (one, two) = (raw(r#"{"a":1}"#), raw("{\n \"b\": 2}"));
        sink.length = sink.append(&lines(&[&one, &two])).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"a\":1}\n{ \"b\": 2}\n");
        sink.append(&lines(&[&one])).unwrap();
        drop(sink);
        let mut sink = inner(Sink::open(Some(&path), 18).unwrap());
        sink.append(&lines(&[&two])).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{\"a\":1}\n{ \"b\": 2}\n{ \"b\": 2}\n");
        let short = Sink::open(Some(&path), 1000).unwrap_err().to_string();
        assert!(short.contains("28 bytes, and the journal knows of 1000"), "{short}");
        // The way on that the message names.
        File::create(&path).unwrap().set_len(1000).unwrap();
        Sink::open(Some(&path), 1000).unwrap();
    }

    #[test]
    fn a_page_keeps_its_results_as_they_were_written() {
        let next = Some(Next::Cursor("/next".to_owned()));
        let rules = Results { path: None, items: "/a/list".to_owned(), next };
        let body = br#"{"a":{"list":[{"n":12345678901234567890.10}, 7]},"next":"c/1"}"#;
        let (told, cursor) = read_page(body, &rules).unwrap();
        let told: Vec<&str> = told.iter().map(|it| it.get()).collect();
        assert_eq!((told, cursor.as_deref()), (vec![r#"{"n":12345678901234567890.10}"#, "7"], Some("c/1")));
        assert!(read_page(br#"{"a":{}}"#, &rules).is_none());
        let last = read_page(br#"{"a":{"list":[]},"next":null}"#, &rules).unwrap();
        assert_eq!((last.0.len(), last.1), (0, None));
    }

    #[test]
    fn a_page_leads_to_the_next_one_and_to_no_other_host() {
        let cursor = Next::Cursor(String::new());
        assert_eq!(target_at("/r", "a/b", &cursor).unwrap(), "/r?cursor=a%2Fb");
        assert_eq!(target_at("/r?pageSize=5", "c", &cursor).unwrap(), "/r?pageSize=5&cursor=c");
        let uri = Next::Uri(String::new());
        assert_eq!(target_at("/r", "/r?pageNumber=2", &uri).unwrap(), "/r?pageNumber=2");
        for elsewhere in ["https://evil/r", "//evil/r", "/../r", "r"] {
            assert!(target_at("/r", elsewhere, &uri).is_err(), "{elsewhere}");
        }
    }
}
