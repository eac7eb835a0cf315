//! Recipes: what one row of the input means, as a request.
//!
//! A recipe is a TOML file. It is checked completely when it is loaded, and all its problems are reported at once
//! with their lines, because a recipe that fails at row 40,000 has already changed 39,999 things.
//!
//! ```toml
//! name = "rename-users"
//! method = "PATCH"                        # POST, PUT, PATCH or DELETE
//! path = "/api/v2/users/{user_id}"        # values are percent-encoded and stay within their segment
//! id = "user_id"                          # names the row in the result; default: its line
//! body = { name = "{first} {last}", title = "{title?}", version = "{version:number}" }
//!
//! [column.version]                        # rules for a column's values: min, max, one_of
//! min = 1
//! ```
//!
//! **Placeholders.** `{column}` stands for the row's value as text. A string that is nothing but one placeholder may be
//! typed: `{column:number}`, `{column:bool}`, `{column:json}`. An empty value is an error unless the placeholder ends in
//! `?`, which leaves the member out. `{{` and `}}` are braces. `body` is a TOML value, or a string holding JSON.
//!
//! **Merging.** `merge` makes one request of all rows that agree in a column. Each row becomes an item of the array at
//! `into` (a JSON pointer into the body; `""` is the body itself):
//!
//! ```toml
//! method = "PATCH"
//! path = "/api/v2/users/{user_id}/routinglanguages/bulk"
//! [merge]
//! by = "user_id"
//! into = ""
//! item = { id = "{language_id}", proficiency = "{proficiency:number}" }
//! unique = "language_id"   # rows of one user that repeat it collapse if equal, and are an error if not
//! max = 50                 # items per request
//! ```
//!
//! Without `by` any rows share a request, as many as `max` allows.
//!
//! **Lookups.** `[lookup.skill_id]` fills an empty or absent column from a name in another one: the runner reads the
//! pages at `path`, takes the array at `items`, and maps each entry's `name` to its `value`.
//!
//! **Finding out.** `[reconcile]` says how to find out what became of a request whose answer was lost, in the words of a
//! profile's `[[reconcile]]`, and goes before those.
//!
//! **Jobs.** Where the upstream goes on working after its answer, `kind = "job"` says how that is followed; see [`job`].

pub mod job;
mod node;
mod read;
mod reconcile;
mod slot;
mod target;
mod view;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use sha2::Digest as _;
use tidegate_store::Digest;

pub use self::job::Jobs;
pub(crate) use self::job::Next;
pub(crate) use self::node::{Node, Values};
pub(crate) use self::read::method;
pub(crate) use self::slot::{Slot, Type as SlotType};
pub(crate) use self::target::Target;
pub use self::target::check_target;
use crate::near;
use crate::problem::Problems;

/// The recipes that ship with the program, as (name, text). `requests` has no text: its rows are the requests.
const BUILT_IN: [(&str, &str); 9] = [
    ("analytics-conversations", include_str!("../../../../recipes/analytics-conversations.toml")),
    ("bulk-users", include_str!("../../../../recipes/bulk-users.toml")),
    ("external-contacts", include_str!("../../../../recipes/external-contacts.toml")),
    ("outbound-contacts", include_str!("../../../../recipes/outbound-contacts.toml")),
    ("queue-members", include_str!("../../../../recipes/queue-members.toml")),
    ("recording-batch", include_str!("../../../../recipes/recording-batch.toml")),
    ("recording-jobs", include_str!("../../../../recipes/recording-jobs.toml")),
    ("user-languages", include_str!("../../../../recipes/user-languages.toml")),
    ("user-skills", include_str!("../../../../recipes/user-skills.toml")),
];

/// The built-in recipe whose rows are the requests themselves.
const REQUESTS: &str = "requests";

/// What one row means, checked.
#[derive(Clone, Debug)]
pub struct Recipe {
    name: String,
    description: String,
    digest: Digest,
    pub(crate) kind: Kind,
    reconcile: Option<Arc<tidegate_core::reconcile::Rule>>,
    text: String,
}

/// The two kinds of recipes.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// NDJSON rows `{"id", "method", "path", "body"}`.
    Requests,
    /// Rows that fill a template.
    Template(Box<Template>),
}

/// A request with holes.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    pub(crate) method: http::Method,
    pub(crate) target: Target,
    pub(crate) body: Option<Node>,
    /// The column that names a row.
    pub(crate) id: Option<String>,
    pub(crate) merge: Option<Merge>,
    pub(crate) rules: BTreeMap<String, Rule>,
    pub(crate) lookups: Vec<Lookup>,
    pub(crate) jobs: Option<Arc<Jobs>>,
}

/// How rows become items of one request.
#[derive(Clone, Debug)]
pub(crate) struct Merge {
    /// The column in which they agree; absent where any rows may share a request.
    pub(crate) by: Option<String>,
    pub(crate) item: Node,
    pub(crate) unique: Option<String>,
    pub(crate) max: Option<usize>,
}

/// What a column's values must be.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rule {
    pub(crate) min: Option<f64>,
    pub(crate) max: Option<f64>,
    pub(crate) one_of: Vec<String>,
}

/// How a column is filled from a name: which pages to read, and what to take from each entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// The column to fill.
    pub column: String,
    /// The column that holds the name.
    pub from: String,
    /// Where the names are listed.
    pub path: String,
    /// JSON pointer to the array of entries on a page.
    pub items: String,
    /// The entries' member that is the name.
    pub name: String,
    /// The entries' member that is the value to fill in.
    pub value: String,
}

/// A recipe that could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// Neither built in nor a file.
    #[error("unknown recipe `{name}`{hint}\nbuilt in: {built_in}; or give the path of a .toml file")]
    Unknown {
        /// What was asked for.
        name: String,
        /// A near miss, if there is one.
        hint: String,
        /// The names of the built-in recipes.
        built_in: String,
    },
    /// The file cannot be read.
    #[error("cannot read recipe {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// The file is wrong.
    #[error(transparent)]
    Problems(#[from] Problems),
}

impl Recipe {
    /// The built-in recipe of that name.
    pub fn built_in(name: &str) -> Option<Self> {
        if name == REQUESTS {
            return Some(Self {
                name: REQUESTS.to_owned(),
                description: "requests written out, one per line: id, method, path, body".to_owned(),
                digest: Digest(sha2::Sha256::digest(REQUESTS).into()),
                kind: Kind::Requests,
                reconcile: None,
                text: String::new(),
            });
        }
        let (_, text) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name)?;
        Some(Self::parse(name, text).expect("the built-in recipes are parsed by a test"))
    }

    /// The names of the built-in recipes.
    pub fn built_in_names() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name).chain([REQUESTS])
    }

    /// Loads a recipe by the name of a built-in one or the path of a file.
    ///
    /// # Errors
    /// [`RecipeError`]; a file's problems all at once.
    pub fn load(name_or_path: &str) -> Result<Self, RecipeError> {
        if let Some(recipe) = Self::built_in(name_or_path) {
            return Ok(recipe);
        }
        let path = Path::new(name_or_path);
        let looks_like_a_path = path.components().count() > 1 || path.extension().is_some() || path.exists();
        if !looks_like_a_path {
            return Err(RecipeError::Unknown {
                name: name_or_path.to_owned(),
                hint: near::hint(name_or_path, Self::built_in_names()),
                built_in: Self::built_in_names().collect::<Vec<_>>().join(", "),
            });
        }
        let text = std::fs::read_to_string(path)
            .map_err(|source| RecipeError::Read { path: name_or_path.to_owned(), source })?;
        Ok(Self::parse(name_or_path, &text)?)
    }

    /// Reads a recipe from TOML; `file` names it in problems.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(file: &str, text: &str) -> Result<Self, Problems> {
        read::recipe(file, text)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it does, in a line.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Digest of its text, so that a resumed run can tell that it was changed.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// How to find out what became of a request, if the recipe says so.
    pub fn reconcile(&self) -> Option<&Arc<tidegate_core::reconcile::Rule>> {
        self.reconcile.as_ref()
    }

    /// What follows an accepted submission, if it is not over with its answer.
    pub fn jobs(&self) -> Option<&Arc<Jobs>> {
        match &self.kind {
            Kind::Requests => None,
            Kind::Template(template) => template.jobs.as_ref(),
        }
    }

    /// Its text, so that a run can keep what it needs to go on; empty for `requests`.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The names that have to be looked up if the input uses them.
    pub fn lookups(&self) -> &[Lookup] {
        match &self.kind {
            Kind::Requests => &[],
            Kind::Template(template) => &template.lookups,
        }
    }
}

#[cfg(test)]
mod tests;
