//! `tidegate bulk`: plan a file, apply it, go on after an interruption, say how it went.

mod apply;
mod cancel;
mod dry_run;
pub(crate) mod input;
mod jobs;
pub(crate) mod link;
mod look;
mod meet;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate::Client;
use tidegate_bulk::{Format, Recipe};
use tidegate_store::Journal;
use tokio::task::block_in_place;

use self::apply::carry_out;
use self::input::Input;
use self::link::{Link, as_it_ran, followed};
use self::look::ResultFile;
use crate::args::{BulkCommand, BulkResumeArgs, BulkRunArgs, InputFormat};
use crate::failure::Failure;
use crate::output;

pub(crate) async fn run(command: BulkCommand) -> Result<(), Failure> {
    match command {
        BulkCommand::Run(args) => start(args).await,
        BulkCommand::Resume(args) => resume(args).await,
        BulkCommand::Status(args) => look::status(&args),
        BulkCommand::Report(args) => look::write_report(&args),
        BulkCommand::Cancel(args) => cancel::cancel(&args).await,
    }
}

async fn start(args: BulkRunArgs) -> Result<(), Failure> {
    let (input, checked) = block_in_place(|| {
        let recipe = Recipe::load(&args.recipe).map_err(Failure::usage)?;
        let format = match args.input_format {
            Some(InputFormat::Csv) => Format::Csv,
            Some(InputFormat::Ndjson) => Format::Ndjson,
            None => Format::of(&args.input),
        };
        Input::check(&args.input, format, recipe)
    })?;
    let path = args.journal.clone().unwrap_or_else(|| default_journal(&args.input));
    let mut link = Link::new(&args.common, &path)?;
    meet::check(&path, Some(&args.input), args.common.output.as_deref(), args.common.results.as_deref())?;
    let jobs = jobs::of_run(&input.recipe, &path, &args.common, args.dry_run)?;
    link.keep_recipe(&input.recipe, args.common.results.as_deref());
    if !args.dry_run {
        // Told before the upstream is asked for anything.
        Journal::vacant(&path).map_err(|error| Failure::journal(&error))?;
    }
    if !args.dry_run || input.has_names() {
        link.begin().await?;
    }
    let lookups = input.resolve(&Client::over(Arc::clone(&link.upstream))).await;
    if args.dry_run || lookups.is_err() {
        link.upstream.give_back().await;
    }
    let lookups = lookups?;
    if args.dry_run {
        return block_in_place(|| dry_run::dry_run(&input, &lookups, link.upstream.profile()));
    }
    let result = args.common.output.as_deref().map(ResultFile::open).transpose()?;
    for note in &checked.notes {
        output::talk(note);
    }
    let journal = block_in_place(|| input.plan(&lookups, &link.upstream, link.route(), &path))?;
    let items = block_in_place(|| journal.reader()?.counts()).map_err(Failure::internal)?.total();
    output::talk(&format!(
        "{}: {} rows become {items} requests; journal {}",
        input.name,
        checked.rows,
        path.display()
    ));
    carry_out(journal, link, &args.common, input.recipe.reconcile().cloned(), jobs, result).await
}

/// Beside the input, wherever the command is run: a file that is being applied is found to be so from every folder.
fn default_journal(input: &Path) -> PathBuf {
    let mut name = OsString::from(input);
    name.push(".journal");
    PathBuf::from(name)
}

async fn resume(args: BulkResumeArgs) -> Result<(), Failure> {
    let journal =
        block_in_place(|| Journal::open(&args.journal)).map_err(|error| Failure::journal(&error))?;
    journal.planned().map_err(Failure::usage)?;
    meet::check(journal.path(), None, args.common.output.as_deref(), args.common.results.as_deref())?;
    let header = &journal.run().header;
    if journal.run().cancelled.is_some() {
        let counts = block_in_place(|| journal.reader()?.counts()).map_err(Failure::internal)?;
        output::talk(&format!("{} was cancelled; nothing is left to do", args.journal.display()));
        return look::exit_as(&counts);
    }
    let jobs = jobs::of_journal(&header.options, journal.path(), &args.common)?;
    let common = as_it_ran(&args.common, &header.options);
    let recipe = followed(&header.options)?.0.map(|text| Recipe::parse(&header.recipe, &text));
    let recipe = recipe.transpose().map_err(Failure::usage)?;
    let link = Link::new(&common, journal.path())?;
    if link.upstream.tenant().as_str() != header.tenant {
        return Err(Failure::usage(format!(
            "{} is a run for tenant `{}`, not `{}` (set tenant in tidegate.toml or TIDEGATE_TENANT)",
            args.journal.display(),
            header.tenant,
            link.upstream.tenant()
        )));
    }
    let result = common.output.as_deref().map(ResultFile::open).transpose()?;
    let pending = block_in_place(|| journal.reader()?.counts()).map_err(Failure::internal)?.pending();
    if pending > 0 {
        link.begin().await?;
    }
    let reconcile = recipe.as_ref().and_then(Recipe::reconcile).cloned();
    carry_out(journal, link, &common, reconcile, jobs, result).await
}
