//! Starting the programs of a proof in a clean environment, with a limit on their time.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::Read as _,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use crate::failure::Failure;

/// Settings that would send the programs elsewhere or change what they do.
const FOREIGN_PREFIXES: &[&str] = &["TIDEGATE_", "GENESYSCLOUD_", "PYTHON", "NODE_"];
const FOREIGN_NAMES: &[&str] =
    &["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy", "VIRTUAL_ENV"];

/// What a program left behind.
pub(super) struct Finished {
    /// How it ended.
    pub(super) status: ExitStatus,
    /// What it printed on stdout.
    pub(super) stdout: String,
}

/// A command in `work`, with an empty home folder and without the developer's own settings.
pub(super) fn clean(program: &OsStr, work: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(work).env("HOME", work).env("NO_PROXY", "127.0.0.1,localhost");
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if FOREIGN_NAMES.contains(&&*text) || FOREIGN_PREFIXES.iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// Runs a program to its end, its stderr going to `log`, and kills it after `limit`.
pub(super) fn run_to_end(mut command: Command, log: &Path, limit: Duration) -> Result<Finished, Failure> {
    let mut child = Killed(spawn(&mut command, log)?);
    let mut stdout = child.0.stdout.take().expect("spawn pipes stdout");
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut text = String::new();
        let result = stdout.read_to_string(&mut text).map(|_| text);
        // Nobody listens any more when the limit has passed.
        drop(sender.send(result));
    });
    let program = command.get_program().to_string_lossy();
    let stdout = receiver
        .recv_timeout(limit)
        .map_err(|_| Failure::new(format!("`{program}` did not end within {} s", limit.as_secs())))?
        .map_err(|error| Failure::new(format!("cannot read what `{program}` printed: {error}")))?;
    let status =
        child.0.wait().map_err(|error| Failure::new(format!("cannot await `{program}`: {error}")))?;
    Ok(Finished { status, stdout })
}

/// Starts a program with stdout piped and stderr going to `log`.
pub(super) fn spawn(command: &mut Command, log: &Path) -> Result<Child, Failure> {
    let file = File::create(log)
        .map_err(|error| Failure::new(format!("cannot write {}: {error}", log.display())))?;
    command.stdout(Stdio::piped()).stderr(file).spawn().map_err(|error| {
        Failure::new(format!("cannot start `{}`: {error}", command.get_program().to_string_lossy()))
    })
}

/// A child that does not outlive its owner.
pub(super) struct Killed(pub(super) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Both fail only for a child that has already ended and been awaited, which is what is wanted.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The end of a log, for a failure's text.
pub(super) fn tail(log: &Path) -> String {
    const LINES: usize = 12;
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let mut tail = String::new();
    for line in &lines[lines.len().saturating_sub(LINES)..] {
        tail.push_str("\n      | ");
        tail.push_str(line);
    }
    tail
}

/// Makes a folder that holds nothing.
pub(crate) fn make_empty(folder: &Path) -> Result<(), Failure> {
    let cannot = |error| Failure::new(format!("cannot empty {}: {error}", folder.display()));
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(cannot)?;
    }
    fs::create_dir_all(folder).map_err(cannot)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Result<Finished, Failure> {
        let folder = tempfile::tempdir().unwrap();
        let mut command = clean(OsStr::new("sh"), folder.path());
        command.args(["-c", script]);
        run_to_end(command, &folder.path().join("log"), limit)
    }

    #[test]
    fn a_program_gets_an_empty_home() {
        let finished = shell("ls -A \"$HOME\" | grep -v log; exit 3", Duration::from_secs(10)).unwrap();
        assert_eq!((finished.stdout.as_str(), finished.status.code()), ("", Some(3)));
    }

    #[test]
    fn a_program_that_does_not_end_is_killed() {
        let failure = shell("exec sleep 600", Duration::from_millis(50)).err().unwrap().to_string();
        assert!(failure.contains("did not end"), "{failure}");
    }

    #[test]
    fn a_folder_is_emptied_and_made() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("a/b");
        make_empty(&folder).unwrap();
        fs::write(folder.join("x"), "x").unwrap();
        make_empty(&folder).unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    }
}
