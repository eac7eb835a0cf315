//! The file of an export while it grows, and its log.
//!
//! Two files beside the one that is asked for: `FILE.part` takes the rows, `FILE.part.log` a line per page, each an
//! object with what the manifest tells and where the next page is. The rows of a page are on the disk before its line is,
//! so whatever kills the process, the last whole line names a length up to which the rows are complete. A resume cuts
//! both files there and goes on; it reads the rows once, and refuses rows that are not what the log says they were.
//!
//! The log is appended to and never rewritten: a listing of a hundred thousand pages costs a line per page.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tidegate_store::fault;

use super::ExportError;
use super::manifest::{Head, Manifest, PageDone};

/// How much is read at once while rows are checked.
const CHUNK: usize = 1 << 20;

/// An export on the disk.
#[derive(Debug)]
pub(super) struct Part {
    /// Where it goes in the end.
    path: PathBuf,
    rows: File,
    log: File,
    pub(super) head: Head,
    pub(super) pages: Vec<PageDone>,
    hash: Sha256,
}

/// What is there for a path.
pub(super) enum Found {
    /// Nothing.
    Nothing,
    /// An export that was interrupted.
    Part(Box<Part>),
    /// An export that came to its end, with its manifest.
    Whole(Box<Manifest>),
}

/// `path` with `suffix` appended to its name.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn part_of(path: &Path) -> PathBuf {
    beside(path, ".part")
}

fn log_of(path: &Path) -> PathBuf {
    beside(path, ".part.log")
}

/// Where the manifest of the export to `path` is.
pub fn manifest_of(path: &Path) -> PathBuf {
    beside(path, ".manifest.json")
}

/// Makes what was created or renamed in the folder of `path` last.
fn keep_names(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// One process per export: the lock is on the log, and the operating system takes it back however its holder ends.
fn lock(log: &File, path: &Path) -> Result<(), ExportError> {
    match log.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            Err(ExportError::Place(format!("another process is exporting to {}", path.display())))
        }
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

impl Part {
    /// Begins an export to `path`; what an earlier one left is removed.
    pub(super) fn create(path: &Path, head: Head) -> Result<Self, ExportError> {
        let open = || OpenOptions::new().read(true).write(true).create(true).truncate(false).to_owned();
        let mut log = open().open(log_of(path)).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                ExportError::Place(format!("{}: its folder does not exist (make it)", path.display()))
            }
            _ => error.into(),
        })?;
        lock(&log, path)?;
        log.set_len(0)?;
        let rows = open().open(part_of(path))?;
        rows.set_len(0)?;
        fault::point("export.begun");
        write_line(&mut log, &head)?;
        keep_names(path)?;
        Ok(Self { path: path.to_owned(), rows, log, head, pages: Vec::new(), hash: Sha256::new() })
    }

    /// Looks for an export to `path`.
    pub(super) fn find(path: &Path) -> Result<Found, ExportError> {
        let log = match OpenOptions::new().read(true).write(true).open(log_of(path)) {
            Ok(log) => log,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Self::find_whole(path),
            Err(error) => return Err(error.into()),
        };
        lock(&log, path)?;
        let Some((head, pages, length)) = read_log(&log)? else {
            // Killed before its first line was whole: nothing has been read yet.
            return Ok(Found::Nothing);
        };
        let mut rows = match OpenOptions::new().read(true).write(true).open(part_of(path)) {
            Ok(rows) => rows,
            // Killed between the last two steps of `finish`.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && manifest_of(path).exists() => {
                drop(log);
                std::fs::remove_file(log_of(path))?;
                return Self::find_whole(path);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(ExportError::Place(format!(
                    "{} is gone, and the log beside it says what was in it: start again with --force",
                    part_of(path).display()
                )));
            }
            Err(error) => return Err(error.into()),
        };
        log.set_len(length)?;
        let hash = check_rows(&mut rows, &pages, path)?;
        let mut part = Self { path: path.to_owned(), rows, log, head, pages, hash };
        part.log.seek(SeekFrom::End(0))?;
        Ok(Found::Part(Box::new(part)))
    }

    fn find_whole(path: &Path) -> Result<Found, ExportError> {
        if !path.exists() {
            return Ok(Found::Nothing);
        }
        let text = match std::fs::read(manifest_of(path)) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(error.into()),
        };
        let damaged = |error| {
            ExportError::Place(format!(
                "{} is damaged ({error}), so nothing says what {} is: replace both with --force",
                manifest_of(path).display(),
                path.display()
            ))
        };
        Ok(Found::Whole(serde_json::from_slice(&text).map_err(damaged)?))
    }

    /// Takes away an export of which nothing was read yet: there is nothing to go on with.
    pub(super) fn discard(self) {
        let Self { path, rows, log, .. } = self;
        drop((rows, log));
        // What cannot be removed is begun again by whoever comes next.
        drop(std::fs::remove_file(part_of(&path)));
        drop(std::fs::remove_file(log_of(&path)));
    }

    /// Takes the rows of a page, and then its line. Both are on the disk when this returns.
    pub(super) fn append(&mut self, text: &[u8], page: PageDone) -> Result<(), ExportError> {
        self.rows.write_all(text)?;
        self.rows.sync_data()?;
        fault::point("export.page");
        write_line(&mut self.log, &page)?;
        fault::point("export.progress");
        self.hash.update(text);
        self.pages.push(page);
        Ok(())
    }

    /// Puts the file in place, with its manifest beside it, and takes the log away.
    pub(super) fn finish(self, contradiction: Option<String>) -> Result<Manifest, ExportError> {
        let Self { path, rows, log, head, pages, hash } = self;
        let manifest = Manifest::new(head, pages, hex(&hash.finalize()), contradiction);
        let draft = beside(&path, ".manifest.json.new");
        let mut file = File::create(&draft)?;
        serde_json::to_writer_pretty(&mut file, &manifest).map_err(std::io::Error::from)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        std::fs::rename(&draft, manifest_of(&path))?;
        fault::point("export.manifest");
        rows.sync_all()?;
        drop(rows);
        std::fs::rename(part_of(&path), &path)?;
        keep_names(&path)?;
        fault::point("export.whole");
        drop(log);
        std::fs::remove_file(log_of(&path))?;
        Ok(manifest)
    }
}

/// Compares a finished file with its manifest; `told` hears how many rows were compared so far.
pub(super) fn verify(path: &Path, manifest: &Manifest, told: &mut dyn FnMut(u64)) -> Result<(), ExportError> {
    let mut file = File::open(path)?;
    let (mut hash, mut chunk, mut rows) = (Sha256::new(), vec![0; CHUNK], 0);
    loop {
        let read = file.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        hash.update(&chunk[..read]);
        rows += chunk[..read].split(|byte| *byte == b'\n').count() as u64 - 1;
        told(rows);
    }
    if hex(&hash.finalize()) == manifest.sha256 {
        return Ok(());
    }
    Err(ExportError::Place(format!(
        "{} is not what its manifest says ({} rows, sha256 {}): it was changed after it was written; start again with --force",
        path.display(),
        manifest.rows,
        manifest.sha256
    )))
}

fn write_line(log: &mut File, line: &impl serde::Serialize) -> Result<(), ExportError> {
    let mut text = serde_json::to_vec(line).map_err(std::io::Error::from)?;
    text.push(b'\n');
    log.write_all(&text)?;
    Ok(log.sync_data()?)
}

/// What a log says, and how long it is up to the end of its last whole line; `None` if not even its head is whole.
fn read_log(log: &File) -> Result<Option<(Head, Vec<PageDone>, u64)>, ExportError> {
    let damaged = |number: usize| {
        ExportError::Place(format!("line {number} of the log is damaged: start again with --force"))
    };
    let mut reader = BufReader::new(log);
    let (mut line, mut length, mut number) = (Vec::new(), 0, 0);
    let (mut head, mut pages) = (None, Vec::new());
    while reader.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
        number += 1;
        match head {
            None => head = Some(serde_json::from_slice(&line).map_err(|_| damaged(number))?),
            Some(_) => pages.push(serde_json::from_slice(&line).map_err(|_| damaged(number))?),
        }
        length += line.len() as u64;
        line.clear();
    }
    Ok(head.map(|head| (head, pages, length)))
}

/// Cuts the rows where the last page of the log ends, and checks that they are what the log says.
fn check_rows(rows: &mut File, pages: &[PageDone], path: &Path) -> Result<Sha256, ExportError> {
    let changed = || {
        ExportError::Place(format!(
            "{} is not what was written to it: start again with --force",
            part_of(path).display()
        ))
    };
    let end: u64 = pages.iter().map(|page| page.bytes).sum();
    if rows.metadata()?.len() < end {
        return Err(changed());
    }
    rows.set_len(end)?;
    rows.rewind()?;
    let (mut whole, mut chunk) = (Sha256::new(), vec![0; CHUNK]);
    for page in pages {
        let (mut of_page, mut left) = (Sha256::new(), page.bytes);
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let read = rows.read(&mut chunk[..most])?;
            if read == 0 {
                return Err(changed());
            }
            of_page.update(&chunk[..read]);
            whole.update(&chunk[..read]);
            left -= read as u64;
        }
        if hex(&of_page.finalize()) != page.sha256 {
            return Err(changed());
        }
    }
    Ok(whole)
}

/// Bytes as hexadecimal digits, as `sha256sum` prints them.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}
