//! What pacing learnt, kept in a file over restarts.
//!
//! A process that is killed in a closed gate's wait must not ask again as soon as it is back: the server has not
//! forgotten. The file is written before the first call; at once when a sixteenth of a declared quota was spent; within a second
//! when a gate closed, a breaker changed or the upstream told a quota; otherwise every [`Bank::STORE_EVERY`] if anything changed, is in
//! flight or waits; before the first call after an idle time; and at the end. A write replaces the file as a whole: a new one is written beside it, synchronised, and renamed
//! over it, so that a crash leaves the old state or the new one.
//!
//! What was spent since the last write is bounded, so that a successor can count it: of a declared quota whose window is longer than 16 s no more
//! than an eighth leaves before the next write has ended, and of any declared quota nothing later than 11 s after the state. A disk that
//! is slow makes a burst wait, for two seconds at most: where the state cannot be written, or not in that time, calls go on without
//! it, and a warning says so.
//!
//! A file that cannot be read is a warning and no reason not to start: then as much is assumed to be spent as a process
//! of the last [`Kept::LOST`] can have spent.

use std::fmt::Write as _;
use std::fs::{File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tidegate_core::key::Tenant;
use tidegate_core::pace::{Bank, Kept, Uptime};
use tidegate_core::time::Wall;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::pacer::Pacer;
use crate::upstream::Upstream;

/// Writes that nobody waits for are at least so far apart.
const APART: Duration = Duration::from_secs(1);

/// For so long a write may keep calls waiting.
const PATIENCE: Duration = Duration::from_secs(2);

/// A state file that only this process writes.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    /// Held as long as the file is used.
    _lock: File,
}

/// A stored state, as it is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateLook {
    /// Its file.
    pub path: PathBuf,
    /// When it was stored.
    pub at: Wall,
    /// What of it cannot be used, and why.
    pub lost: Vec<String>,
}

/// Why a state file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("state file {path}: {why}")]
pub struct StateError {
    path: String,
    why: String,
}

impl StateError {
    fn new(path: &Path, why: &dyn std::fmt::Display) -> Self {
        Self { path: path.display().to_string(), why: why.to_string() }
    }
}

impl StateFile {
    /// The state of `tenant` on the upstream `api` in the folder `dir`, which is made if it is not there.
    ///
    /// # Errors
    /// The folder cannot be written, or another process uses the file.
    pub fn in_dir(dir: &Path, tenant: &Tenant, api: &str) -> Result<Self, StateError> {
        no_file_in_the_way(dir)?;
        std::fs::create_dir_all(dir).map_err(|error| StateError::new(dir, &error))?;
        Self::at(path_in(dir, tenant, api))
    }

    /// Reads the state of `tenant` on `api` in the folder `dir`, which a process that runs may hold; nothing is changed. `None` if
    /// nothing is stored.
    ///
    /// # Errors
    /// It cannot be read, or is of another version.
    pub fn look(dir: &Path, tenant: &Tenant, api: &str) -> Result<Option<StateLook>, StateError> {
        let path = path_in(dir, tenant, api);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StateError::new(&path, &error)),
        };
        let kept = Kept::read(&text).map_err(|problem| StateError::new(&path, &problem))?;
        let lost = kept.lost().iter().map(|lost| format!("{}: {}", lost.part, lost.why)).collect();
        Ok(Some(StateLook { at: kept.at(), lost, path }))
    }

    /// Whether state could be kept in the folder `dir`, which is neither made nor locked: a process that runs already may
    /// hold it.
    ///
    /// # Errors
    /// The folder, or the nearest one above it that is there, cannot be written.
    pub fn could_be_in(dir: &Path) -> Result<(), StateError> {
        no_file_in_the_way(dir)?;
        let there = dir.ancestors().find(|folder| folder.exists()).filter(|there| *there != Path::new(""));
        let there = there.unwrap_or(Path::new("."));
        let probe = tempfile::NamedTempFile::new_in(there);
        probe.map(drop).map_err(|error| {
            StateError::new(dir, &format!("{} cannot be written: {}", there.display(), error.kind()))
        })
    }

    /// The state in the file at `path`.
    ///
    /// # Errors
    /// Its folder cannot be written, or another process uses the file.
    pub fn at(path: PathBuf) -> Result<Self, StateError> {
        let beside = path.with_added_extension("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&beside);
        let lock = lock.map_err(|error| StateError::new(&beside, &error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                let why = "another process keeps its state there (give each process a folder of its own)";
                Err(StateError::new(&path, &why))
            }
            Err(TryLockError::Error(error)) => Err(StateError::new(&beside, &error)),
        }
    }

    /// Hands the stored state to `pacer`, which must not have been asked yet.
    pub fn restore(&self, pacer: &Pacer) {
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return self.begin_without(pacer, &error),
        };
        match Kept::read(&text) {
            Ok(kept) => {
                for lost in kept.lost() {
                    tracing::warn!(
                        target: "tidegate",
                        "{}: {} is lost: {} (its quota counts as spent for a while if it is declared)",
                        self.path.display(), lost.part, lost.why
                    );
                }
                let today = kept.today(pacer.wall(), uptime().as_ref());
                let restored = pacer.restore_at(today, &kept, Kept::LOST);
                tracing::info!(
                    target: "tidegate",
                    "pacing goes on from {}: {} limits known, {} no longer declared",
                    self.path.display(), restored.gates, restored.forgotten
                );
            }
            Err(problem) => self.begin_without(pacer, &problem),
        }
    }

    fn begin_without(&self, pacer: &Pacer, why: &dyn std::fmt::Display) {
        tracing::warn!(
            target: "tidegate",
            "{} {why}: declared quotas count as spent for a while (remove the file to begin anew)",
            self.path.display()
        );
        let nothing = Kept::nothing(pacer.wall());
        pacer.restore(&nothing, Kept::LOST);
    }

    /// Stores what `pacer` knows now, and with it what may leave before the next time.
    fn store_first(&self, pacer: &Pacer) {
        let stored = self.write(&pacer.begin_store().up(uptime()));
        pacer.end_store(stored.is_ok());
        if let Err(error) = stored {
            not_kept(&error);
        }
    }

    /// Replaces the stored state.
    ///
    /// # Errors
    /// The folder cannot be written; the old state is still there.
    pub fn write(&self, kept: &Kept) -> io::Result<()> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let mut new = tempfile::NamedTempFile::new_in(folder)?;
        new.write_all(kept.write().as_bytes())?;
        new.as_file().sync_all()?;
        new.persist(&self.path).map_err(|error| error.error)?;
        // The name is in the folder, which is to be on the disk as well.
        File::open(folder)?.sync_all()
    }
}

fn not_kept(error: &io::Error) {
    tracing::warn!(
        target: "tidegate",
        "pacing is not kept: cannot write the state: {error} (after a crash a declared quota may be exceeded)"
    );
}

/// How long this machine has been up, where it tells: on Linux.
fn uptime() -> Option<Uptime> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let up = Duration::try_from_secs_f64(uptime.split(' ').next()?.parse().ok()?).ok()?;
    Some(Uptime { boot, millis: u64::try_from(up.as_millis()).ok()? })
}

/// Where the state of `tenant` on the upstream `api` lies in the folder `dir`.
fn path_in(dir: &Path, tenant: &Tenant, api: &str) -> PathBuf {
    let host = api.split_once("://").map_or(api, |(_, host)| host);
    dir.join(format!("{}@{}.pacing.json", in_a_name(tenant.as_str()), in_a_name(host)))
}

/// A folder can be at `dir`: nothing on the way to it is a file.
fn no_file_in_the_way(dir: &Path) -> Result<(), StateError> {
    match dir.ancestors().find(|part| part.exists()).filter(|part| !part.is_dir()) {
        Some(file) => {
            let why =
                format!("{} is no folder (name a folder; it is made if it is not there)", file.display());
            Err(StateError::new(dir, &why))
        }
        None => Ok(()),
    }
}

/// Text as a part of a file's name, one name for each text.
fn in_a_name(text: &str) -> String {
    let mut name = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(byte)),
            // A dot could hide the file or mean another folder only at the front.
            b'.' if !name.is_empty() => name.push('.'),
            _ => write!(name, "%{byte:02x}").expect("writing to a string cannot fail"),
        }
    }
    name
}

/// Writes a pacer's state for as long as it is kept.
#[derive(Debug)]
pub struct StateKeeper {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl StateKeeper {
    /// Restores `upstream`'s state from `file`, and keeps it there from now on. To be called before the first call.
    /// Writes the file once.
    pub fn start(file: StateFile, upstream: &Upstream) -> Self {
        file.restore(upstream.pacer());
        file.store_first(upstream.pacer());
        let (stop, stopping) = watch::channel(false);
        let task = tokio::spawn(keep(Arc::new(file), upstream.pacer().clone(), stopping));
        Self { stop, task }
    }

    /// Writes the last state. To be called when nothing is sent any more.
    pub async fn end(self) {
        self.stop.send_replace(true);
        if let Err(error) = self.task.await {
            tracing::warn!(target: "tidegate", "the state was not kept to the end: {error}");
        }
    }
}

async fn keep(file: Arc<StateFile>, pacer: Pacer, mut stop: watch::Receiver<bool>) {
    let mut writer = Writer { pacer: &pacer, troubled: false };
    let mut apart = tokio::time::Instant::now();
    let mut look = apart + Bank::STORE_EVERY;
    loop {
        let last = tokio::select! {
            // A sender that is gone was dropped without an end: then others may still send.
            stopped = stop.wait_for(|stop| *stop) => match stopped { Ok(_) => true, Err(_) => return },
            () = pacer.to_lease() => false,
            () = tokio::time::sleep_until(look) => false,
            () = async { tokio::time::sleep_until(apart).await; pacer.to_keep().await } => false,
        };
        look = tokio::time::Instant::now() + Bank::STORE_EVERY;
        if last || pacer.has_unstored() {
            let kept = pacer.begin_store();
            let (file, kept) = (Arc::clone(&file), if last { kept.last() } else { kept });
            writer.write(move || file.write(&kept.up(uptime()))).await;
        }
        if last {
            return;
        }
        apart = tokio::time::Instant::now() + APART;
    }
}

/// Writes states, and tells the pacer how that ended: calls may wait for it.
struct Writer<'p> {
    pacer: &'p Pacer,
    /// The last state was not stored, or too late, and that was said.
    troubled: bool,
}

impl Writer<'_> {
    /// Runs `write` on a thread of its own. What takes longer than [`PATIENCE`] has failed for now: calls go on without it.
    async fn write(&mut self, write: impl FnOnce() -> io::Result<()> + Send + 'static) {
        let mut writing = tokio::task::spawn_blocking(write);
        let in_time = tokio::time::timeout(PATIENCE, &mut writing).await;
        let is_late = in_time.is_err();
        let done = if let Ok(done) = in_time {
            done
        } else {
            let why = format!("it takes longer than {} s", PATIENCE.as_secs());
            self.failed(&io::Error::new(io::ErrorKind::TimedOut, why));
            writing.await
        };
        match done.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(()) => {
                self.pacer.end_store(true);
                if self.troubled && !is_late {
                    self.troubled = false;
                    tracing::info!(target: "tidegate", "pacing is kept again");
                }
            }
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&mut self, why: &io::Error) {
        self.pacer.end_store(false);
        if !std::mem::replace(&mut self.troubled, true) {
            not_kept(why);
        }
    }
}

impl Drop for Writer<'_> {
    /// However the writing ended: nobody may wait for a state that nobody stores.
    fn drop(&mut self) {
        self.pacer.end_store(false);
    }
}

#[cfg(test)]
mod tests {
    use tidegate_core::pace::BankConfig;

    use super::*;
    use crate::clock::Clock;
    use crate::observe::Observers;

    fn pacer() -> Pacer {
        Pacer::new(BankConfig::default(), Clock::start(), Observers::default()).expect("a bank")
    }

    #[tokio::test]
    async fn a_state_is_replaced_as_a_whole_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::in_dir(folder.path(), &Tenant::new("a/b"), "https://api.example.com").unwrap();
        assert_eq!(file.path.file_name().unwrap(), "a%2fb@api.example.com.pacing.json");
        let pacer = pacer();
        for _ in 0..2 {
            let kept = pacer.keep();
            file.write(&kept).unwrap();
            assert_eq!(Kept::read(&std::fs::read_to_string(&file.path).unwrap()).unwrap(), kept);
            let look = StateFile::look(folder.path(), &Tenant::new("a/b"), "https://api.example.com");
            let path = file.path.clone();
            assert_eq!(look.unwrap(), Some(StateLook { path, at: kept.at(), lost: Vec::new() }));
        }
        let left = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 2, "the state, its lock, and nothing half written");
    }

    /// What is logged while it is held.
    #[derive(Clone, Default)]
    struct Log(Arc<parking_lot::Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Log {
        /// From now on, on this thread.
        fn keep(&self) -> tracing::subscriber::DefaultGuard {
            let log = self.clone();
            let writing = tracing_subscriber::fmt().with_ansi(false).with_writer(move || log.clone());
            tracing::subscriber::set_default(writing.finish())
        }

        fn count(&self, text: &str) -> usize {
            String::from_utf8_lossy(&self.0.lock()).matches(text).count()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_takes_too_long_is_told_at_once_even_if_it_succeeds() {
        let log = Log::default();
        let _keep = log.keep();
        let pacer = pacer();
        let mut writer = Writer { pacer: &pacer, troubled: false };
        for late in 1..=2 {
            pacer.begin_store();
            let (go_on, held) = std::sync::mpsc::channel::<()>();
            let writing = writer.write(move || held.recv().map_err(io::Error::other));
            let disk = async {
                tokio::time::advance(PATIENCE + Duration::from_millis(1)).await;
                for _ in 0..10 {
                    tokio::task::yield_now().await;
                }
                assert_eq!(log.count("longer than 2 s"), 1, "once, not at each of {late}");
                go_on.send(()).unwrap();
            };
            tokio::join!(writing, disk);
        }
        assert_eq!((log.count("pacing is not kept"), log.count("pacing is kept again")), (1, 0));
        assert!(!pacer.has_unstored(), "late, but it is stored");
        pacer.begin_store();
        writer.write(|| Ok(())).await;
        assert_eq!(log.count("pacing is kept again"), 1);
        pacer.begin_store();
        writer.write(|| Err(io::ErrorKind::StorageFull.into())).await;
        assert_eq!(log.count("pacing is not kept"), 2, "another trouble is told anew");
        assert!(pacer.has_unstored());
    }

    #[test]
    fn a_file_in_the_place_of_the_folder_is_told_and_a_check_makes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "x").unwrap();
        for dir in [file.clone(), file.join("state")] {
            let checked = StateFile::could_be_in(&dir).unwrap_err().to_string();
            assert!(checked.contains("file is no folder (name a folder"), "{checked}");
            let made = StateFile::in_dir(&dir, &Tenant::new("a"), "https://api.example.com").unwrap_err();
            assert_eq!(made.to_string(), checked);
        }
        let new = folder.path().join("new").join("state");
        assert!(StateFile::could_be_in(&new).is_ok());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "only the file is there");
    }

    #[test]
    fn a_file_that_another_holds_is_refused_with_a_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let held = StateFile::at(path.clone()).unwrap();
        let told = StateFile::at(path.clone()).unwrap_err().to_string();
        assert!(told.contains("another process") && told.contains("folder of its own"), "{told}");
        drop(held);
        assert!(StateFile::at(path).is_ok());
    }

    #[test]
    fn texts_have_names_of_their_own_that_stay_in_their_folder() {
        assert_eq!(in_a_name("../x"), "%2e.%2fx");
        assert_ne!(in_a_name("a b"), in_a_name("a-b"));
        assert_eq!(in_a_name("127.0.0.1:8790"), "127.0.0.1%3a8790");
    }
}
