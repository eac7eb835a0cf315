//! Reads a whole listing, page by page at quota speed, into a file of one JSON object per line.
//!
//! A listing of a hundred thousand rows is hundreds of calls, each of which can be throttled, cut or refused, in a process
//! that can be killed. [`export`] makes one client's calls of class `bulk`, follows the three ways in which listings are
//! paged (`paging`), asks for each page until it is served (`fetch`), takes rows over byte for byte (`page`), and writes so that a killed export goes on behind its
//! last complete page (`file`). A manifest tells what was read when, with a hash.
//!
//! A listing that tells how many rows or pages it has is taken at its word: an export that read others is not called complete.
//!
//! What it cannot give is a snapshot: rows that come or go while pages are read can be missing, or be there twice. The
//! manifest says when the listing's own total changed meanwhile.

mod fetch;
mod file;
mod manifest;
mod page;
mod paging;

use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use sha2::{Digest, Sha256};
use tidegate::Client;
use tokio::sync::watch;
use tokio::task::block_in_place;

use self::fetch::Fetched;
pub use self::file::manifest_of;
use self::file::{Found, Part, hex, verify};
pub use self::manifest::{Head, Manifest, PageDone};
use self::page::{Page, line};
pub use self::paging::Style;
use crate::health::{DEFAULT_PATIENCE, Health};
use crate::recipe::check_target;

/// What to export.
#[derive(Clone, Debug)]
pub struct Request {
    /// The first page's path and query.
    pub target: String,
    /// How it is paged; found out from the first page if not said.
    pub style: Option<Style>,
    /// Where a page's rows are, a JSON pointer; found out from the first page if not said.
    pub items: Option<String>,
    /// Rows per page, asked for as `pageSize`, in SCIM as `count`.
    pub page_size: Option<u32>,
    /// What every call carries beside what the client adds.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How long an upstream that cannot be reached, or does not serve a page, is waited for before the export ends, resumable.
    pub patience: Duration,
}

impl Request {
    /// All of `target`, as it is found.
    ///
    /// # Errors
    /// A target that is no path of the upstream.
    pub fn new(target: &str) -> Result<Self, ExportError> {
        check_target(target).map_err(ExportError::Usage)?;
        Ok(Self {
            target: target.to_owned(),
            style: None,
            items: None,
            page_size: None,
            headers: Vec::new(),
            patience: DEFAULT_PATIENCE,
        })
    }

    /// The first page's path and query, the page size included.
    fn first(&self) -> String {
        let path = self.target.split('?').next().unwrap_or_default();
        let scim = self.style == Some(Style::Scim) || path.split('/').any(|segment| segment == "scim");
        match self.page_size {
            Some(size) => {
                paging::with(&self.target, if scim { "count" } else { "pageSize" }, &size.to_string())
            }
            None => self.target.clone(),
        }
    }
}

/// Where an export goes.
pub enum Output<'a> {
    /// To a file that appears under its name when it is complete.
    File {
        /// Its name.
        path: PathBuf,
        /// What to do with what is there.
        existing: Existing,
    },
    /// Anywhere, a page at a time; cannot be resumed.
    Stream(&'a mut (dyn Write + Send)),
}

/// What to do with what is there under an export's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Refuse.
    Keep,
    /// Go on behind the last complete page of an export that was interrupted; begin if there is none.
    Resume,
    /// Begin again, and replace it at the end.
    Replace,
}

/// How far an export is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Pages read, those of an interrupted export included.
    pub pages: u64,
    /// Rows read, likewise.
    pub rows: u64,
    /// How many the listing says it has.
    pub total: Option<u64>,
}

/// What an export came to.
#[derive(Debug)]
pub enum Exported {
    /// A file and its manifest.
    File(Box<Manifest>),
    /// It was there already, as its manifest says; nothing was sent.
    Already(Box<Manifest>),
    /// A stream, and what contradicts that it is all of the listing.
    Stream(Progress, Option<String>),
}

/// Why an export ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The request cannot be made.
    #[error("{0}")]
    Usage(String),
    /// What is at the place of the file.
    #[error("{0}")]
    Place(String),
    /// The upstream refused, and asking again would not help.
    #[error("the upstream answered {status} to {target}: {why}")]
    Refused {
        /// The page.
        target: String,
        /// Its status.
        status: StatusCode,
        /// In its words.
        why: String,
        /// Whether it was the first page, so that the request itself is wrong.
        first: bool,
    },
    /// The upstream could not be asked.
    #[error("{0}")]
    Unserved(String),
    /// What it answered is no page.
    #[error("the answer is no page of a listing: {why} (is it the path of a listing? GET it by hand to see)")]
    NoPage {
        /// What is wrong with it.
        why: String,
    },
    /// The rows of a page were not found.
    #[error("{0} (name it with --items, a JSON pointer such as /entities)")]
    Items(String),
    /// The next page cannot be followed.
    #[error(
        "the paging cannot be followed: {0} (--paging says how a listing is paged; `single` takes its first page alone)"
    )]
    Paging(String),
    /// It was stopped.
    #[error("stopped")]
    Interrupted,
    /// The disk.
    #[error("cannot write: {0}")]
    Disk(#[from] std::io::Error),
}

/// Exports a listing. `told` hears how far it is after each page, and once at the beginning; `stop` ends it before the
/// next page, and resumable.
///
/// # Errors
/// Why it ended; a file can then be gone on with.
///
/// # Panics
/// On a runtime of one thread: the disk is waited for where it stands, which needs Tokio's multi-thread runtime.
pub async fn export(
    client: &Client,
    request: &Request,
    output: Output<'_>,
    told: &mut (dyn FnMut(Progress) + Send),
    stop: watch::Receiver<bool>,
) -> Result<Exported, ExportError> {
    let run = Run { client, request, told, stop, health: Health::default() };
    match output {
        Output::Stream(out) => run.stream(out).await,
        Output::File { path, existing } => run.file(&path, existing).await,
    }
}

struct Run<'a> {
    client: &'a Client,
    request: &'a Request,
    told: &'a mut (dyn FnMut(Progress) + Send),
    stop: watch::Receiver<bool>,
    health: Health,
}

/// What is known of the listing from one page to the next.
struct Listing {
    target: String,
    style: Option<Style>,
    items: Option<String>,
    /// Targets that were read, so that a circle ends.
    seen: HashSet<String>,
    progress: Progress,
    /// The least and the most rows that a page said there are.
    totals: Option<(u64, u64)>,
    /// How many pages the latest one said there are.
    of_pages: Option<u64>,
}

impl Run<'_> {
    fn listing(&self) -> Listing {
        Listing {
            target: self.request.first(),
            style: self.request.style,
            items: self.request.items.clone(),
            seen: HashSet::new(),
            progress: Progress::default(),
            totals: None,
            of_pages: None,
        }
    }

    async fn stream(mut self, out: &mut (dyn Write + Send)) -> Result<Exported, ExportError> {
        let mut listing = self.listing();
        loop {
            let (text, page) = self.page(&mut listing).await?;
            block_in_place(|| out.write_all(&text).and_then(|()| out.flush()))?;
            (self.told)(listing.progress);
            match page.next {
                Some(next) => listing.target = next,
                None => return Ok(Exported::Stream(listing.progress, self.contradiction(&listing))),
            }
        }
    }

    async fn file(mut self, path: &Path, existing: Existing) -> Result<Exported, ExportError> {
        let mut listing = self.listing();
        let mut part = match block_in_place(|| self.place(path, existing))? {
            Ok(part) => part,
            Err(whole) => {
                let (pages, total) = (whole.pages, Some(whole.rows));
                let told = &mut self.told;
                block_in_place(|| verify(path, &whole, &mut |rows| told(Progress { pages, rows, total })))?;
                return Ok(Exported::Already(whole));
            }
        };
        let mut next = Some(listing.target.clone());
        for page in &part.pages {
            listing.adopt(page)?;
            next.clone_from(&page.next);
        }
        if !part.pages.is_empty() {
            (self.told)(listing.progress);
        }
        while let Some(target) = next.take() {
            listing.target = target;
            let (text, page) = match self.page(&mut listing).await {
                Ok(read) => read,
                Err(error) if part.pages.is_empty() => {
                    block_in_place(|| part.discard());
                    return Err(error);
                }
                Err(error) => return Err(error),
            };
            next.clone_from(&page.next);
            block_in_place(|| part.append(&text, page))?;
            (self.told)(listing.progress);
        }
        let contradiction = self.contradiction(&listing);
        Ok(Exported::File(Box::new(block_in_place(|| part.finish(contradiction))?)))
    }

    /// What contradicts that the whole listing was read; nothing where a part of it was asked for.
    fn contradiction(&self, listing: &Listing) -> Option<String> {
        if paging::begins_late(&self.request.target) { None } else { listing.contradiction() }
    }

    /// The file to write to; the manifest instead if it is complete already.
    fn place(&self, path: &Path, existing: Existing) -> Result<Result<Part, Box<Manifest>>, ExportError> {
        let upstream = self.client.upstream();
        let head = Head {
            tool: format!("tidegate {}", env!("CARGO_PKG_VERSION")),
            request: self.request.first(),
            api: upstream.api_base().to_owned(),
            profile: upstream.profile().name.clone(),
            tenant: upstream.tenant().as_str().to_owned(),
            credential: upstream.credential().id().to_string(),
            started: manifest::rfc3339(upstream.clock().wall()),
        };
        let shown = path.display();
        let other = |what: &Head| {
            ExportError::Place(format!(
                "{shown} is an export of {} from {} (tenant {}, profile {}, credential {}): start again with --force",
                what.request, what.api, what.tenant, what.profile, what.credential
            ))
        };
        if existing == Existing::Replace {
            return Ok(Ok(Part::create(path, head)?));
        }
        match (Part::find(path)?, existing) {
            (Found::Part(part), Existing::Resume) if part.head.is_same(&head) => {
                self.goes_on(part.pages.first(), &shown)?;
                Ok(Ok(*part))
            }
            (Found::Part(part), Existing::Resume) => Err(other(&part.head)),
            (Found::Part(part), Existing::Keep) => Err(ExportError::Place(format!(
                "an export to {shown} was interrupted after {} pages: go on with --resume, or start again with --force",
                part.pages.len()
            ))),
            (Found::Whole(whole), Existing::Resume) if whole.head.is_same(&head) => {
                self.goes_on(whole.each.first(), &shown)?;
                Ok(Err(whole))
            }
            (Found::Whole(whole), Existing::Resume) => Err(other(&whole.head)),
            (Found::Nothing, _) if !path.exists() => Ok(Ok(Part::create(path, head)?)),
            _ => Err(ExportError::Place(format!("{shown} exists (replace it with --force)"))),
        }
    }

    /// Whether an export that was begun so can be gone on with as it is asked for now.
    fn goes_on(&self, begun: Option<&PageDone>, shown: &dyn std::fmt::Display) -> Result<(), ExportError> {
        let Some(page) = begun else { return Ok(()) };
        let other = |flag: &str, was: &str| {
            Err(ExportError::Place(format!(
                "{shown} was begun with {flag} {was}: leave the flag out, or start again with --force"
            )))
        };
        match (self.request.style, &self.request.items) {
            (Some(style), _) if style.name() != page.paging => other("--paging", &page.paging),
            (_, Some(items)) if *items != page.items => other("--items", &page.items),
            _ => Ok(()),
        }
    }

    /// Reads the page at `listing.target`: its rows as lines, and what is to be told of it.
    async fn page(&mut self, listing: &mut Listing) -> Result<(Vec<u8>, PageDone), ExportError> {
        if *self.stop.borrow() {
            return Err(ExportError::Interrupted);
        }
        if !listing.seen.insert(listing.target.clone()) {
            return Err(ExportError::Paging(format!("the page {} was read before", listing.target)));
        }
        let mut stop = self.stop.clone();
        let fetched = tokio::select! {
            fetched = self.fetch(&listing.target, listing.progress.pages == 0) => fetched,
            // A read that is dropped has done nothing.
            Ok(_) = stop.wait_for(|stop| *stop) => Err(ExportError::Interrupted),
            why = self.health.lost(self.client.upstream().clock(), self.request.patience) => {
                Err(ExportError::Unserved(why))
            }
        };
        let Fetched { body, correlation, linked } = fetched?;
        let segments = self.client.upstream().profile().family_segments;
        let (text, mut page) = block_in_place(|| listing.read(&body, linked, segments))?;
        page.at = manifest::rfc3339(self.client.upstream().clock().wall());
        page.correlation = correlation;
        Ok((text, page))
    }
}

impl Listing {
    /// Reads a page and moves on behind it.
    fn read(
        &mut self,
        body: &[u8],
        linked: bool,
        segments: usize,
    ) -> Result<(Vec<u8>, PageDone), ExportError> {
        let page = Page::read(body)?;
        let items = match &self.items {
            Some(items) => items.clone(),
            None => self.items.insert(page.find_items()?).clone(),
        };
        let style = match self.style {
            Some(style) => style,
            None => *self.style.insert(Style::found(&page, linked)?),
        };
        let rows = page.items(&items)?;
        let next = paging::next(style, &self.target, &page, rows.len(), segments)?;
        let mut text = Vec::with_capacity(body.len());
        for row in &rows {
            text.extend_from_slice(line(row).as_bytes());
            text.push(b'\n');
        }
        let done = PageDone {
            target: self.target.clone(),
            next,
            paging: style.name().to_owned(),
            items,
            rows: rows.len() as u64,
            bytes: text.len() as u64,
            sha256: hex(&Sha256::digest(&text)),
            total: paging::total(&page),
            of_pages: page.number("pageCount"),
            at: String::new(),
            correlation: None,
        };
        self.count(&done);
        Ok((text, done))
    }

    /// Takes over a page that an interrupted export has written.
    fn adopt(&mut self, page: &PageDone) -> Result<(), ExportError> {
        self.style = Some(page.paging.parse().map_err(ExportError::Place)?);
        self.items = Some(page.items.clone());
        self.seen.insert(page.target.clone());
        self.count(page);
        Ok(())
    }

    fn count(&mut self, page: &PageDone) {
        self.progress.pages += 1;
        self.progress.rows += page.rows;
        self.progress.total = page.total.or(self.progress.total);
        self.of_pages = page.of_pages.or(self.of_pages);
        if let Some(total) = page.total {
            let (least, most) = self.totals.unwrap_or((total, total));
            self.totals = Some((least.min(total), most.max(total)));
        }
    }

    /// What the listing told of itself beside what was read. A total that changed meanwhile allows for all between.
    fn contradiction(&self) -> Option<String> {
        let Progress { rows, pages, .. } = self.progress;
        if let Some((least, most)) = self.totals
            && !(least..=most).contains(&rows)
        {
            return Some(format!("the listing tells of {most} rows, its pages had {rows}"));
        }
        let told = self.of_pages.filter(|told| *told > pages)?;
        Some(format!("the listing tells of {told} pages, {pages} were there to be followed"))
    }
}
