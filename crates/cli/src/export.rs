//! `tidegate export`: a whole listing into a file.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidegate::{Client, Upstream};
use tidegate_bulk::Exit;
use tidegate_bulk::export::{
    Existing, ExportError, Exported, Manifest, Output, Progress, Request, export, manifest_of,
};
use tokio::sync::watch;

use crate::args::ExportArgs;
use crate::bulk::link::Link;
use crate::failure::Failure;
use crate::output;
use crate::progress::{Line, Sample, Watch, held};
use crate::signals::interrupted;

pub(crate) async fn run(args: ExportArgs) -> Result<(), Failure> {
    let request = request(&args)?;
    let link = Link::of(&args.connection, args.via.as_deref(), args.out.as_deref())?;
    link.begin().await?;
    let request = Request { headers: link.headers.clone(), ..request };
    let client = Client::over(Arc::clone(&link.upstream));
    let mut out = Out;
    let to = match &args.out {
        None => Output::Stream(&mut out),
        Some(path) => Output::File { path: path.clone(), existing: existing(&args) },
    };
    let (stop, stopping) = watch::channel(false);
    let asked = interrupted();
    let listen = tokio::spawn(async move {
        asked.await;
        stop.send_replace(true);
    });
    // Rows on a terminal and a line about them would be in each other's way.
    let quiet = args.quiet || (args.out.is_none() && output::width().is_some());
    let (upstream, watch) = (Arc::clone(&link.upstream), Arc::clone(&link.watch));
    let mut shown = Shown { quiet, rows: Arc::default(), watch, upstream, line: None };
    let ended = export(&client, &request, to, &mut |progress| shown.tell(progress), stopping).await;
    drop(shown);
    listen.abort();
    link.upstream.give_back().await;
    conclude(ended, args.out.as_deref(), &link.watch)
}

fn request(args: &ExportArgs) -> Result<Request, Failure> {
    let mut request = Request::new(&args.path).map_err(Failure::usage)?;
    if args.paging != "auto" {
        let style = args.paging.parse().map_err(|why| Failure::usage(format!("--paging: {why}, or auto")))?;
        request.style = Some(style);
    }
    if let Some(pointer) =
        args.items.as_deref().filter(|pointer| !pointer.is_empty() && !pointer.starts_with('/'))
    {
        return Err(Failure::usage(format!("--items: `{pointer}` is no JSON pointer (write /{pointer})")));
    }
    request.items.clone_from(&args.items);
    request.page_size = args.page_size;
    request.patience = args.patience;
    Ok(request)
}

fn existing(args: &ExportArgs) -> Existing {
    match (args.resume, args.force) {
        (true, _) => Existing::Resume,
        (_, true) => Existing::Replace,
        _ => Existing::Keep,
    }
}

/// Standard output. Unlike elsewhere a reader that has gone away ends the work.
struct Out;

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        std::io::stdout().lock().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stdout().lock().flush()
    }
}

/// The line that shows how far it is, from the first page on: before it nobody knows how many rows there are.
struct Shown {
    quiet: bool,
    rows: Arc<AtomicU64>,
    watch: Arc<Watch>,
    upstream: Arc<Upstream>,
    line: Option<Line>,
}

impl Shown {
    fn tell(&mut self, progress: Progress) {
        self.rows.store(progress.rows, Ordering::Relaxed);
        if self.line.is_none() {
            let (rows, watch) = (Arc::clone(&self.rows), Arc::clone(&self.watch));
            let upstream = Arc::clone(&self.upstream);
            let look = move || Sample {
                ended: rows.load(Ordering::Relaxed),
                held: held(&upstream),
                notes: vec![(watch.throttles(), "throttles")],
            };
            self.line = Some(Line::start("rows", progress.total.unwrap_or_default(), self.quiet, look));
        }
    }
}

fn conclude(ended: Result<Exported, ExportError>, out: Option<&Path>, watch: &Watch) -> Result<(), Failure> {
    match (ended, out) {
        (Ok(Exported::File(manifest)), Some(path)) => {
            output::talk(&format!("{}; {} throttles", told(&manifest, path), watch.throttles()));
            if manifest.total_changed {
                output::talk("the listing changed while it was read: rows may be missing, or be there twice");
            }
            complete(manifest.contradiction.as_deref())
        }
        (Ok(Exported::Already(manifest)), Some(path)) => {
            let how = if manifest.complete { "complete already" } else { "read already" };
            output::talk(&format!("{how}: {}", told(&manifest, path)));
            complete(manifest.contradiction.as_deref())
        }
        (Ok(Exported::Stream(_, contradiction)), _) => complete(contradiction.as_deref()),
        (Ok(_), _) => Ok(()),
        // A closed pipe means that the reader has what it wanted.
        (Err(ExportError::Disk(error)), None) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        (Err(error), path) => Err(failure(&error, path)),
    }
}

/// Ends well if the whole listing was read.
fn complete(contradiction: Option<&str>) -> Result<(), Failure> {
    match contradiction {
        None => Ok(()),
        Some(why) => Err(Failure {
            exit: Exit::ItemsFailed,
            message: format!(
                "NOT COMPLETE: {why} (look at how it is paged, --paging, and whether the credential may see all of it)"
            ),
        }),
    }
}

fn told(manifest: &Manifest, path: &Path) -> String {
    format!(
        "{}: {} rows in {} pages, sha256 {}; manifest {}",
        path.display(),
        manifest.rows,
        manifest.pages,
        manifest.sha256,
        manifest_of(path).display()
    )
}

fn failure(error: &ExportError, path: Option<&Path>) -> Failure {
    let exit = match error {
        ExportError::Usage(_) | ExportError::Place(_) | ExportError::Items(_) => Exit::Usage,
        ExportError::Refused { status, first: true, .. }
            if matches!(status.as_u16(), 400 | 404 | 405 | 422) =>
        {
            Exit::Usage
        }
        ExportError::Interrupted => Exit::Interrupted,
        ExportError::Disk(_) => Exit::Internal,
        _ => Exit::UpstreamRefused,
    };
    let resumable = !matches!(error, ExportError::Usage(_) | ExportError::Place(_)) && exit != Exit::Usage;
    // Of which nothing was read there is nothing to go on with.
    let begun = |path: &&Path| path.with_added_extension("part").exists();
    let hint = match path.filter(|_| resumable).filter(begun) {
        Some(path) => {
            format!("\ngo on with the same command and --resume; what was read is in {}.part", path.display())
        }
        None => String::new(),
    };
    Failure { exit, message: format!("{error}{hint}") }
}
