//! Running programs: the command line is shown first, and a failure names it.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::failure::Failure;

/// A program about to be run, with the line that is shown for it.
#[derive(Debug)]
pub(crate) struct Program {
    command: Command,
    line: String,
}

impl Program {
    /// A program found on `PATH`, run in the workspace root.
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program.as_ref());
        command.current_dir(root()).stdin(Stdio::null());
        let line = shown(program.as_ref());
        Self { command, line }
    }

    /// The cargo that runs this program, or the one on `PATH`.
    pub(crate) fn cargo() -> Self {
        let mut cargo = Self::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        "cargo".clone_into(&mut cargo.line);
        cargo
    }

    /// Adds arguments.
    pub(crate) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        for arg in args {
            self.line.push(' ');
            self.line.push_str(&shown(arg.as_ref()));
            self.command.arg(arg);
        }
        self
    }

    /// Sets an environment variable; it is shown as part of the line.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.line = format!("{name}={} {}", shown(OsStr::new(value)), self.line);
        self.command.env(name, value);
        self
    }

    /// Runs in another folder than the workspace root.
    pub(crate) fn current_dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Shows the line, runs the program with its output passed through, and fails unless it succeeds.
    pub(crate) fn run(mut self) -> Result<(), Failure> {
        eprintln!("$ {}", self.line);
        let status = self.command.status().map_err(|error| cannot_start(&self.line, &error))?;
        if status.success() {
            return Ok(());
        }
        Err(Failure::new(format!("`{}` failed with {status}", self.line)))
    }

    /// Runs the program without showing it and returns its stdout, which must be UTF-8.
    pub(crate) fn read(mut self) -> Result<String, Failure> {
        let output = self.command.output().map_err(|error| cannot_start(&self.line, &error))?;
        if !output.status.success() {
            let talk = String::from_utf8_lossy(&output.stderr);
            return Err(Failure::new(format!(
                "`{}` failed with {}: {}",
                self.line,
                output.status,
                talk.trim()
            )));
        }
        String::from_utf8(output.stdout)
            .map_err(|_| Failure::new(format!("`{}` printed something that is not UTF-8", self.line)))
    }
}

/// Whether a program can be started at all; its output is thrown away.
pub(crate) fn starts(program: &str, args: &[&str]) -> bool {
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The workspace root: the parent of this package's folder.
pub(crate) fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().expect("this package lies one folder below the root").to_owned()
}

fn cannot_start(line: &str, error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot start `{line}`: {error}")).hint("is it installed and on PATH?")
}

/// One word of a command line, quoted where a shell would need it.
fn shown(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=+,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shown_line_can_be_pasted_into_a_shell() {
        let program = Program::new("echo").args(["two words", "plain", "it's"]).env("FLAGS", "-D warnings");
        assert_eq!(program.line, r"FLAGS='-D warnings' echo 'two words' plain 'it'\''s'");
    }

    #[test]
    fn a_missing_program_is_named() {
        let failure = Program::new("no-such-program-here").run().unwrap_err().to_string();
        assert!(failure.contains("no-such-program-here") && failure.contains("hint"), "{failure}");
    }

    #[test]
    fn the_root_holds_the_workspace_manifest() {
        assert!(root().join("Cargo.lock").is_file());
    }
}
