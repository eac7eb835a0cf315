//! `tidegate bulk`: plan a file, apply it, go on after an interruption, say how it went.

mod apply;
mod dry_run;
mod input;
mod link;
mod look;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate::{Client, Profile};
use tidegate_bulk::resolve::{ResolveError, resolve};
use tidegate_bulk::{Lookups, PlannedRequest, load};
use tidegate_core::idempotency::{BodyDigest, Transaction, Write as KeyedWrite};
use tidegate_core::key::Tenant;
use tidegate_store::{Journal, RunHeader};
use tokio::task::block_in_place;

use self::apply::carry_out;
use self::input::{Input, open};
use self::link::{Link, as_it_ran};
use self::look::ResultFile;
use crate::args::{BulkCommand, BulkResumeArgs, BulkRunArgs};
use crate::failure::Failure;
use crate::output;

pub(crate) async fn run(command: BulkCommand) -> Result<(), Failure> {
    match command {
        BulkCommand::Run(args) => start(args).await,
        BulkCommand::Resume(args) => resume(args).await,
        BulkCommand::Status(args) => look::status(&args),
        BulkCommand::Report(args) => look::write_report(&args),
    }
}

async fn start(args: BulkRunArgs) -> Result<(), Failure> {
    let (input, checked) = block_in_place(|| Input::check(&args))?;
    let link = Link::new(&args.common)?;
    let path = args.journal.clone().unwrap_or_else(|| default_journal(&args.input));
    if !args.dry_run {
        // Told before the upstream is asked for anything.
        Journal::vacant(&path).map_err(Failure::usage)?;
    }
    if !args.dry_run || input.has_names() {
        link.check().await?;
    }
    let lookups = look_up(&input, &link).await?;
    if args.dry_run {
        return block_in_place(|| dry_run::dry_run(&input, &lookups, link.upstream.profile()));
    }
    let result = args.common.output.as_deref().map(ResultFile::open).transpose()?;
    for note in &checked.notes {
        output::talk(note);
    }
    let journal = block_in_place(|| plan(&input, &lookups, &link, &path))?;
    let items = block_in_place(|| journal.reader()?.counts()).map_err(Failure::internal)?.total();
    output::talk(&format!(
        "{}: {} rows become {items} requests; journal {}",
        input.name,
        checked.rows,
        path.display()
    ));
    carry_out(journal, link, &args.common, result).await
}

async fn look_up(input: &Input, link: &Link) -> Result<Lookups, Failure> {
    let client = Client::over(Arc::clone(&link.upstream));
    resolve(&client, &input.recipe, &input.survey, &input.name).await.map_err(|error| match error {
        ResolveError::Unknown(problems) => Failure::usage(problems),
        error @ ResolveError::Upstream { .. } => Failure::upstream(error),
    })
}

/// Beside the input, wherever the command is run: a file that is being applied is found to be so from every folder.
fn default_journal(input: &Path) -> PathBuf {
    let mut name = OsString::from(input);
    name.push(".journal");
    PathBuf::from(name)
}

/// Plans the input into a new journal.
fn plan(input: &Input, lookups: &Lookups, link: &Link, path: &Path) -> Result<Journal, Failure> {
    let profile = link.upstream.profile();
    let tenant = link.upstream.tenant();
    let now = link.upstream.clock().wall();
    // With real ids in place of names, rows can contradict each other that did not before: find out before there is
    // a journal.
    let planner = input.planner();
    planner
        .plan(open(&input.path)?, &input.survey, lookups, |_| Ok::<_, std::convert::Infallible>(()))
        .map_err(Failure::usage)?;
    let header = RunHeader {
        recipe: input.recipe.name().to_owned(),
        recipe_digest: input.recipe.digest(),
        input_name: input.name.clone(),
        input_digest: input.survey.digest(),
        tenant: tenant.to_string(),
        profile: profile.name.clone(),
        options: link.route(),
        created: now,
    };
    let journal = Journal::create(path, &header).map_err(Failure::usage)?;
    let key_for = |request: &PlannedRequest| key(request, tenant, profile);
    load(&planner, open(&input.path)?, &input.survey, lookups, &journal, now, key_for)
        .map_err(Failure::internal)?;
    Ok(journal)
}

fn key(request: &PlannedRequest, tenant: &Tenant, profile: &Profile) -> uuid::Uuid {
    let transaction = request.transaction.to_string();
    let write = KeyedWrite {
        tenant,
        transaction: Transaction::Given(&transaction),
        method: &request.method,
        target: &request.target,
        body: &BodyDigest::json(request.body.as_deref().unwrap_or_default()),
    };
    write.key(profile.idempotency.stamp)
}

async fn resume(args: BulkResumeArgs) -> Result<(), Failure> {
    let journal = block_in_place(|| Journal::open(&args.journal)).map_err(Failure::usage)?;
    let header = &journal.run().header;
    let common = as_it_ran(&args.common, &header.options);
    let link = Link::new(&common)?;
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
        link.check().await?;
    }
    carry_out(journal, link, &common, result).await
}
