//! Where the lab's pictures and numbers go, checked before anything is played: a run can take minutes.

use std::fs::{File, create_dir_all, remove_file};
use std::path::{Component, Path, PathBuf};

use tidegate_lab::Scenario;

use crate::args::LabRunArgs;
use crate::failure::{Failure, all};

/// The file of each scenario's picture; none if no pictures are drawn into files.
///
/// # Errors
/// Everything that would keep pictures or numbers from being written.
pub(crate) fn places(args: &LabRunArgs, scenarios: &[Scenario]) -> Result<Vec<PathBuf>, Failure> {
    let json = args.json.as_deref().filter(|_| !args.json_to_stdout());
    let pictures = match args.svg.as_deref() {
        None => Ok(Vec::new()),
        Some(_) if args.svg_to_stdout() => stdout_of_one(args, scenarios).map(|()| Vec::new()),
        Some(to) => pictures(to, scenarios),
    };
    let writable = json.map_or(Ok(()), writable);
    all([pictures, writable.map(|()| Vec::new())]).map(|places| places.concat())
}

fn stdout_of_one(args: &LabRunArgs, scenarios: &[Scenario]) -> Result<(), Failure> {
    if args.json_to_stdout() {
        return Err(Failure::usage("--svg - and --json - both want standard output (name a file for one)"));
    }
    match scenarios.len() {
        1 => Ok(()),
        many => Err(Failure::usage(format!("--svg - prints one picture, not {many} (name a folder)"))),
    }
}

/// One picture goes to the file that was named, several into a folder of that name.
fn pictures(to: &Path, scenarios: &[Scenario]) -> Result<Vec<PathBuf>, Failure> {
    if scenarios.len() == 1 && !to.is_dir() {
        return writable(to).map(|()| vec![to.to_owned()]);
    }
    all(scenarios.iter().enumerate().map(|(at, scenario)| {
        let name = &scenario.name;
        if !is_file_name(name) {
            return Err(Failure::usage(format!(
                "the scenario `{name}` has no name that a picture could have (set its `name`, without slashes)"
            )));
        }
        if scenarios[..at].iter().any(|before| before.name == *name) {
            return Err(Failure::usage(format!(
                "two scenarios are named `{name}`: one picture would replace the other (rename one, or play it alone)"
            )));
        }
        Ok(())
    }))?;
    create_dir_all(to)
        .map_err(|error| Failure::usage(format!("cannot make the folder {}: {error}", to.display())))?;
    all(scenarios.iter().map(|scenario| {
        let file = to.join(format!("{}.svg", scenario.name));
        writable(&file).map(|()| file)
    }))
}

fn is_file_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name)
}

/// Whether `file` can be written. What is in it stays; what is not there is not left behind.
fn writable(file: &Path) -> Result<(), Failure> {
    let there = file.exists();
    if there && !file.is_file() && !file.is_dir() {
        // To open a pipe or a device may wait, or be noticed.
        return Ok(());
    }
    let opened = File::options().append(true).create(true).open(file);
    let made = opened.and_then(|_| if there { Ok(()) } else { remove_file(file) });
    made.map_err(|error| Failure::usage(format!("cannot write {}: {error}", file.display())))
}
