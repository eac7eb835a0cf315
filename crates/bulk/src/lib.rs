//! Applies a file of writes to an API once each, through its quota, and can be resumed.
//!
//! "Set the skills of 8,000 agents from this CSV tonight, once each, whatever happens." The work is split so that
//! everything that can be known beforehand is known before the first request:
//!
//! 1. [`recipe`]: what one row means, as a request template. Checked completely when it is loaded.
//! 2. [`input`]: CSV or NDJSON as a stream of rows, with exact line numbers.
//! 3. [`plan`]: rows become requests. Rows for the same target are merged into one, contradictions are errors, ids
//!    and transactions are derived from the input, so that planning again gives the same run. All problems of the
//!    input are reported at once, and one problem anywhere means that nothing is sent.
//! 4. the journal of `tidegate-store` takes the planned requests, then every intent and outcome.
//! 5. [`execute`] sends what is pending, with the intent on disk before the first byte leaves.
//! 6. [`report`] and [`exit`]: the result file, the counts and the exit code, all from the journal alone.
//!
//! ```
//! use tidegate_bulk::{Format, Lookups, Planner, Recipe};
//!
//! let recipe = Recipe::built_in("user-skills").expect("built in");
//! let planner = Planner::new(&recipe, Format::Csv, "agents.csv");
//! let input = "user_id,skill_id,proficiency\nu1,s1,3\nu1,s2,5\nu2,s1,1\n";
//!
//! let survey = planner.survey(input.as_bytes())?;
//! let mut requests = Vec::new();
//! let summary = planner.plan(input.as_bytes(), &survey, &Lookups::default(), |request| {
//!     requests.push(request);
//!     Ok::<(), std::convert::Infallible>(())
//! })?;
//! assert_eq!((summary.rows, summary.requests), (3, 2));
//! assert_eq!(requests[0].target, "/api/v2/users/u1/routingskills/bulk");
//! assert_eq!(requests[0].body.as_deref(), Some(&br#"[{"id":"s1","proficiency":3},{"id":"s2","proficiency":5}]"#[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a panic is how a test fails"))]

pub mod execute;
pub mod exit;
pub mod export;
mod health;
pub mod input;
mod near;
pub mod plan;
pub mod problem;
mod raw;
pub mod recipe;
pub mod report;
pub mod resolve;

pub use exit::{Ending, Exit};
pub use input::Format;
pub use plan::{LoadError, Lookups, PlanError, PlannedRequest, Planner, Summary, Survey, load};
pub use problem::{Problem, Problems};
pub use recipe::Recipe;
