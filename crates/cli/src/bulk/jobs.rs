//! The jobs of a run: by what recipe they are followed, and where their results go.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_bulk::Recipe;
use tidegate_bulk::execute::Following;

use super::link::followed;
use crate::args::BulkCommon;
use crate::failure::Failure;

/// How the jobs of a new run are followed.
pub(super) fn of_run(
    recipe: &Recipe,
    journal: &Path,
    common: &BulkCommon,
    dry_run: bool,
) -> Result<Option<Following>, Failure> {
    let following = following(recipe, journal, common.results.clone())?;
    if let Some(path) = following.as_ref().and_then(|it| it.results.as_ref())
        && !dry_run
        && path.metadata().is_ok_and(|there| there.len() > 0)
    {
        return Err(Failure::usage(format!(
            "{} exists; results of jobs are appended to a file of their own (delete it, or choose another --results)",
            path.display()
        )));
    }
    Ok(following)
}

/// How the jobs of a run are followed that is resumed.
pub(super) fn of_journal(
    options: &str,
    journal: &Path,
    common: &BulkCommon,
) -> Result<Option<Following>, Failure> {
    let (text, results) = followed(options)?;
    let Some(text) = text else {
        return no_jobs(common.results.as_deref()).map(|()| None);
    };
    let name = format!("the recipe in {}", journal.display());
    let recipe = Recipe::parse(&name, &text).map_err(Failure::usage)?;
    following(&recipe, journal, common.results.clone().or(results))
}

fn following(
    recipe: &Recipe,
    journal: &Path,
    results: Option<PathBuf>,
) -> Result<Option<Following>, Failure> {
    let Some(rules) = recipe.jobs().filter(|rules| rules.has_results() || results.is_none()) else {
        return no_jobs(results.as_deref()).map(|()| None);
    };
    let place = || journal.with_added_extension("results.ndjson");
    let results = rules.has_results().then(|| results.unwrap_or_else(place));
    Ok(Some(Following { rules: Arc::clone(rules), results }))
}

fn no_jobs(results: Option<&Path>) -> Result<(), Failure> {
    match results {
        None => Ok(()),
        Some(_) => Err(Failure::usage("--results: this recipe has no results beside those of --output")),
    }
}
