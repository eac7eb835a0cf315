//! From an input file to a planned journal.

use std::convert::Infallible;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use tidegate::{Client, Profile, Upstream};
use tidegate_bulk::resolve::{ResolveError, resolve};
use tidegate_bulk::{Format, Lookups, PlannedRequest, Planner, Recipe, Summary, Survey, load};
use tidegate_core::idempotency::{BodyDigest, Transaction, Write};
use tidegate_core::key::Tenant;
use tidegate_store::{Journal, RunHeader};

use crate::failure::Failure;

/// An input that was read and checked.
pub(crate) struct Input {
    path: PathBuf,
    pub(crate) name: String,
    format: Format,
    pub(crate) recipe: Recipe,
    pub(crate) survey: Survey,
}

impl Input {
    /// Reads the whole input once, and tells all its problems.
    pub(crate) fn check(path: &Path, format: Format, recipe: Recipe) -> Result<(Self, Summary), Failure> {
        let name = path.display().to_string();
        let planner = Planner::new(&recipe, format, &name);
        let survey = planner.survey(open(path)?).map_err(Failure::usage)?;
        let summary = planner.check(open(path)?, &survey).map_err(Failure::usage)?;
        Ok((Self { path: path.to_owned(), name, format, recipe, survey }, summary))
    }

    pub(crate) fn planner(&self) -> Planner<'_> {
        Planner::new(&self.recipe, self.format, &self.name)
    }

    /// The input from its beginning.
    pub(crate) fn open(&self) -> Result<BufReader<File>, Failure> {
        open(&self.path)
    }

    /// Whether the upstream has to be asked what names of the input stand for.
    pub(crate) fn has_names(&self) -> bool {
        let lookups = self.recipe.lookups().iter();
        lookups.filter_map(|lookup| self.survey.names(&lookup.column)).any(|names| !names.is_empty())
    }

    /// Asks the upstream what the input's names stand for.
    pub(crate) async fn resolve(&self, client: &Client) -> Result<Lookups, Failure> {
        resolve(client, &self.recipe, &self.survey, &self.name).await.map_err(|error| match error {
            ResolveError::Unknown(problems) => Failure::usage(problems),
            error @ ResolveError::Upstream { .. } => Failure::upstream(error),
        })
    }

    /// Plans the input into a new journal at `path`. `route` is kept there for a resume.
    pub(crate) fn plan(
        &self,
        lookups: &Lookups,
        upstream: &Upstream,
        route: String,
        path: &Path,
    ) -> Result<Journal, Failure> {
        let (profile, tenant) = (upstream.profile(), upstream.tenant());
        let now = upstream.clock().wall();
        // With real ids in place of names, rows can contradict each other that did not before: find out before there
        // is a journal.
        let planner = self.planner();
        planner
            .plan(self.open()?, &self.survey, lookups, |_| Ok::<_, Infallible>(()))
            .map_err(Failure::usage)?;
        let header = RunHeader {
            recipe: self.recipe.name().to_owned(),
            recipe_digest: self.recipe.digest(),
            input_name: self.name.clone(),
            input_digest: self.survey.digest(),
            tenant: tenant.to_string(),
            profile: profile.name.clone(),
            options: route,
            created: now,
        };
        let journal = Journal::create(path, &header).map_err(|error| Failure::journal(&error))?;
        let key_for = |request: &PlannedRequest| key(request, tenant, profile);
        load(&planner, self.open()?, &self.survey, lookups, &journal, now, key_for).map_err(|error| {
            let path = path.display();
            Failure::internal(format!(
                "{error}\nplanning did not end and nothing was sent: delete {path} and run again"
            ))
        })?;
        Ok(journal)
    }
}

fn open(path: &Path) -> Result<BufReader<File>, Failure> {
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

fn key(request: &PlannedRequest, tenant: &Tenant, profile: &Profile) -> uuid::Uuid {
    let transaction = request.transaction.to_string();
    let write = Write {
        tenant,
        transaction: Transaction::Given(&transaction),
        method: &request.method,
        target: &request.target,
        body: &BodyDigest::json(request.body.as_deref().unwrap_or_default()),
    };
    write.key(profile.idempotency.stamp)
}
