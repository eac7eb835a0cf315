//! The input of a run, read and checked before anything else happens.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use tidegate_bulk::{Format, Planner, Recipe, Summary, Survey};

use crate::args::{BulkRunArgs, InputFormat};
use crate::failure::Failure;

/// An input that was read and checked.
pub(super) struct Input {
    pub(super) path: PathBuf,
    pub(super) name: String,
    pub(super) recipe: Recipe,
    pub(super) survey: Survey,
    format: Format,
}

impl Input {
    /// Reads the whole input, and tells all its problems.
    pub(super) fn check(args: &BulkRunArgs) -> Result<(Self, Summary), Failure> {
        let recipe = Recipe::load(&args.recipe).map_err(Failure::usage)?;
        let name = args.input.display().to_string();
        let format = match args.input_format {
            Some(InputFormat::Csv) => Format::Csv,
            Some(InputFormat::Ndjson) => Format::Ndjson,
            None => Format::of(&args.input),
        };
        let planner = Planner::new(&recipe, format, &name);
        let survey = planner.survey(open(&args.input)?).map_err(Failure::usage)?;
        let summary = planner.check(open(&args.input)?, &survey).map_err(Failure::usage)?;
        Ok((Self { path: args.input.clone(), name, format, recipe, survey }, summary))
    }

    pub(super) fn planner(&self) -> Planner<'_> {
        Planner::new(&self.recipe, self.format, &self.name)
    }

    /// Whether the upstream has to be asked what names of the input stand for.
    pub(super) fn has_names(&self) -> bool {
        let lookups = self.recipe.lookups().iter();
        lookups.filter_map(|lookup| self.survey.names(&lookup.column)).any(|names| !names.is_empty())
    }
}

/// Opens the input.
pub(super) fn open(path: &Path) -> Result<BufReader<File>, Failure> {
    let cannot = |error| Failure::usage(format!("cannot read {}: {error}", path.display()));
    let file = File::open(path).map_err(cannot)?;
    if file.metadata().map_err(cannot)?.is_file() {
        Ok(BufReader::new(file))
    } else {
        // It is read several times: to check it whole before the first write.
        Err(Failure::usage(format!(
            "{} is not a regular file (write the input to a file first)",
            path.display()
        )))
    }
}
