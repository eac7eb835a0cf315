//! Planning: rows to requests, with nothing left to find out while sending.
//!
//! The input is read more than once, because two things must be known before the first request can be made: the
//! digest of the whole file, from which transactions are derived, and how many rows each merged request will have, so
//! that a request is complete and can be passed on as soon as its last row was read. That keeps memory bounded by the
//! rows that wait for others, not by the file.
//!
//! 1. [`Planner::survey`] counts, digests and collects the names to look up;
//! 2. [`Planner::check`] finds every problem of every row, offline;
//! 3. the runner resolves the names ([`Lookups::resolve`]);
//! 4. [`Planner::plan`] (or [`load`], into a journal) yields the requests. It checks everything again, now with the
//!    looked-up ids, and it too yields nothing more once a problem is found.
//!
//! **Identity.** A request's `seq` is the input line of its first row; its transaction follows from the input's digest
//! and its id. Planning the same file again therefore gives the same run, and a request that was already applied is
//! recognised by its key wherever the upstream recognises keys.
//!
//! **Order.** Requests are yielded when they are complete, which may be after later ones; `seq` orders them by first row.

mod group;
mod load;
mod lookup;
mod pass;
mod requests;
mod values;

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Read};

use sha2::Digest as _;
use tidegate_store::Digest;
use uuid::Uuid;

pub use self::load::{LoadError, load};
pub use self::lookup::Lookups;
use self::pass::Pass;
use crate::input::{Format, Input, Row};
use crate::near;
use crate::problem::{Problem, Problems};
use crate::recipe::{Kind, Recipe, Template};

/// Largest request body: what the client keeps for resending. A larger one could never be sent twice, not even when
/// that is known to be safe.
pub const MAX_BODY_BYTES: usize = tidegate::body::REPLAY_CAP;

/// A request that a row, or several merged ones, became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedRequest {
    /// Place in the run: the input line of its first row.
    pub seq: u64,
    /// Its name in the result: the value rows are merged by (with `#2`, `#3` where it took more requests), `batch-1` and so on
    /// where any rows are merged, the value of the recipe's id column, or `line-` and the line.
    pub id: String,
    /// Names this write across attempts, processes and restarts.
    pub transaction: Uuid,
    /// What to do.
    pub method: http::Method,
    /// Path and query.
    pub target: String,
    /// JSON body, if any.
    pub body: Option<Vec<u8>>,
    /// Input lines of its rows, ascending.
    pub lines: Vec<u64>,
}

/// What the first reading of an input found.
#[derive(Clone, Debug)]
pub struct Survey {
    digest: Digest,
    rows: u64,
    names: BTreeMap<String, BTreeMap<String, u64>>,
    /// Rows per merged request, or uses per row id, by hash. A collision makes a request wait longer than it had to, or
    /// an id be compared that need not be; neither is wrong.
    counts: HashMap<u64, u32>,
    unused: Vec<String>,
}

impl Survey {
    /// Digest of the input's bytes.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Well-formed rows.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The names to look up for `column`, each with the line it is first used on.
    pub fn names(&self, column: &str) -> Option<&BTreeMap<String, u64>> {
        self.names.get(column)
    }
}

/// What planning came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Rows of the input.
    pub rows: u64,
    /// Requests they became.
    pub requests: u64,
    /// Rows that repeated another one exactly and were dropped.
    pub collapsed: u64,
    /// Things worth a look that are no problems; the first [`Problems::SHOWN`].
    pub notes: Vec<String>,
}

/// Why planning failed.
#[derive(Debug, thiserror::Error)]
pub enum PlanError<E = std::convert::Infallible> {
    /// The input cannot be read.
    #[error("cannot read {file}: {source}")]
    Read {
        /// The input.
        file: String,
        /// Why not.
        source: io::Error,
    },
    /// The input is wrong; nothing may be sent.
    #[error(transparent)]
    Problems(#[from] Problems),
    /// Whoever takes the requests failed.
    #[error(transparent)]
    Sink(E),
}

/// Turns the rows of one input into the requests of one recipe.
#[derive(Clone, Copy, Debug)]
pub struct Planner<'r> {
    recipe: &'r Recipe,
    format: Format,
    file: &'r str,
}

impl<'r> Planner<'r> {
    /// A planner; `file` names the input in messages.
    pub fn new(recipe: &'r Recipe, format: Format, file: &'r str) -> Self {
        Self { recipe, format, file }
    }

    /// Reads the input once: its digest, its rows, and the names to look up.
    ///
    /// # Errors
    /// If nothing can be said about rows: the file cannot be read, is empty, or lacks a column the recipe needs.
    /// Problems of single rows are left to [`Planner::check`], which finds them all.
    pub fn survey(&self, input: impl Read) -> Result<Survey, PlanError> {
        let read = |source| PlanError::Read { file: self.file.to_owned(), source };
        let mut problems = Problems::new(self.file);
        if matches!(self.recipe.kind, Kind::Requests) && self.format != Format::Ndjson {
            let message = "recipe `requests` reads NDJSON (.ndjson): one {\"id\", \"method\", \"path\", \"body\"} per line";
            problems.push(Problem::file(message));
            return Err(problems.into());
        }
        let mut input = Input::new(input, self.format, &mut problems).map_err(read)?;
        let unused = self.check_columns(input.columns(), &mut problems);
        problems.into_result(())?;

        let mut survey = Survey {
            digest: Digest::default(),
            rows: 0,
            names: BTreeMap::new(),
            counts: HashMap::new(),
            unused,
        };
        let mut problems = Problems::new(self.file);
        while input.advance(&mut problems).map_err(read)? {
            survey.rows += 1;
            self.survey_row(input.row(), &mut survey);
        }
        if survey.rows == 0 {
            if problems.is_empty() {
                let message =
                    if self.format == Format::Csv { "has a header but no rows" } else { "is empty" };
                problems.push(Problem::file(message));
            }
            return Err(problems.into());
        }
        survey.digest = input.into_digest().map_err(read)?;
        Ok(survey)
    }

    /// Finds every problem of every row, without network: names count as their own ids.
    ///
    /// # Errors
    /// All problems, or that the input cannot be read.
    pub fn check(&self, input: impl Read, survey: &Survey) -> Result<Summary, PlanError> {
        self.plan(input, survey, &Lookups::unresolved(), |_| Ok(()))
    }

    /// Yields the requests to `sink`, each when it is complete.
    ///
    /// # Errors
    /// All problems of the input, in which case `sink` may have seen some requests and must drop them; that the input
    /// cannot be read; or the first error of `sink`.
    pub fn plan<E>(
        &self,
        input: impl Read,
        survey: &Survey,
        lookups: &Lookups,
        sink: impl FnMut(PlannedRequest) -> Result<(), E>,
    ) -> Result<Summary, PlanError<E>> {
        let read = |source| PlanError::Read { file: self.file.to_owned(), source };
        let mut problems = Problems::new(self.file);
        let mut input = Input::new(input, self.format, &mut problems).map_err(read)?;
        let mut pass = Pass::new(self.recipe, survey, lookups, problems, sink);
        while input.advance(&mut pass.problems).map_err(read)? {
            pass.row(input.row()).map_err(PlanError::Sink)?;
        }
        pass.finish().map_err(PlanError::Sink)?;
        if input.into_digest().map_err(read)? != survey.digest {
            pass.problems.push(Problem::file("was changed while it was being read; start again"));
        }
        Ok(pass.problems.into_result(pass.summary)?)
    }

    /// Reports the columns that the recipe needs and the header lacks; returns those the recipe does not use.
    fn check_columns(&self, columns: Option<&[String]>, problems: &mut Problems) -> Vec<String> {
        let (Some(columns), Kind::Template(template)) = (columns, &self.recipe.kind) else {
            return Vec::new();
        };
        if columns.is_empty() {
            return Vec::new(); // the header itself has been reported
        }
        let has = |name: &str| columns.iter().any(|it| it == name);
        let mut used = Vec::new();
        for (column, optional) in template.columns() {
            let from = template.lookup(column).map(|lookup| lookup.from.as_str());
            used.extend([Some(column), from].into_iter().flatten());
            if optional || has(column) || from.is_some_and(has) {
                continue;
            }
            let or = from.map_or_else(String::new, |from| format!(" (or `{from}`)"));
            let hint = near::hint(column, columns.iter().map(String::as_str));
            let hint = if columns.len() == 1 && columns[0].contains([';', '\t']) {
                "; fields must be separated by commas".to_owned()
            } else {
                hint
            };
            let found = columns.join(", ");
            let message = format!("column `{column}`{or} is missing; the header has: {found}{hint}");
            problems.push(Problem::line(1, message));
        }
        columns.iter().filter(|it| !it.is_empty() && !used.contains(&it.as_str())).cloned().collect()
    }

    fn survey_row(&self, row: Row<'_>, survey: &mut Survey) {
        let named_by = match &self.recipe.kind {
            Kind::Requests => Some("id"),
            Kind::Template(template) => {
                survey_names(template, row, &mut survey.names);
                template.merge.as_ref().and_then(|merge| merge.by.as_deref()).or(template.id.as_deref())
            }
        };
        let Some(column) = named_by else { return };
        let Kind::Template(template) = &self.recipe.kind else {
            count(row, column, &mut survey.counts);
            return;
        };
        // Where the naming column may be looked up, the rows of one id may be spread over two spellings, so nothing is
        // counted and requests wait for the end of the input.
        if template.lookup(column).is_none() {
            count(row, column, &mut survey.counts);
        }
    }
}

fn count(row: Row<'_>, column: &str, counts: &mut HashMap<u64, u32>) {
    if let Some(Ok(text)) = row.cell(column).map(crate::input::Cell::text) {
        *counts.entry(hash(&text)).or_default() += 1;
    }
}

fn survey_names(template: &Template, row: Row<'_>, names: &mut BTreeMap<String, BTreeMap<String, u64>>) {
    for lookup in &template.lookups {
        if row.cell(&lookup.column).is_some() {
            continue;
        }
        let Some(Ok(name)) = row.cell(&lookup.from).map(crate::input::Cell::text) else { continue };
        if !names.contains_key(&lookup.column) {
            names.insert(lookup.column.clone(), BTreeMap::new());
        }
        if let Some(seen) = names.get_mut(&lookup.column)
            && !seen.contains_key(&*name)
        {
            seen.insert(name.into_owned(), row.line());
        }
    }
}

/// Hash of an id, the same in every pass.
fn hash(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

/// The transaction of request `part` (from 1) of `id` in the input with that digest.
fn transaction(input: Digest, id: &str, part: usize) -> Uuid {
    let mut hasher = sha2::Sha256::new();
    hasher.update(b"tidegate bulk transaction 1\0");
    hasher.update(input.0);
    hasher.update((part as u64).to_be_bytes());
    hasher.update(id.as_bytes());
    let digest: [u8; 32] = hasher.finalize().into();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

impl Template {
    /// Every column it uses, and whether its value may be missing.
    fn columns(&self) -> Vec<(&str, bool)> {
        let mut slots = Vec::new();
        self.body
            .iter()
            .chain(self.merge.iter().map(|merge| &merge.item))
            .for_each(|it| it.slots(&mut slots));
        let merge = self.merge.iter().flat_map(|merge| [merge.by.as_deref(), merge.unique.as_deref()]);
        let required = self.target.columns().chain(self.id.as_deref()).chain(merge.flatten());
        let mut columns: BTreeMap<&str, bool> = BTreeMap::new();
        for (column, optional) in
            slots.iter().map(|it| (it.column.as_str(), it.optional)).chain(required.map(|it| (it, false)))
        {
            let both = columns.entry(column).or_insert(true);
            *both = *both && optional;
        }
        columns.into_iter().collect()
    }

    fn lookup(&self, column: &str) -> Option<&crate::recipe::Lookup> {
        self.lookups.iter().find(|it| it.column == column)
    }
}
