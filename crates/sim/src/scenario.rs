//! Scenario files: one description of a situation for the simulator, the lab and the socket tests.
//!
//! The simulator reads `[server]` (a whole [`SimConfig`], with its `events`); `[fleet]` and `[expect]` belong to the lab and the
//! tests, which know their keys, and are handed on unread.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::SimConfig;
use crate::error::SimError;
use crate::strict;

/// A named situation.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// Short name, as listed.
    pub name: String,
    /// One sentence: what this shows.
    pub about: String,
    /// How long it runs; the simulator itself runs until it is stopped.
    #[serde(with = "crate::text::maybe_duration")]
    pub duration: Option<Duration>,
    /// The server.
    pub server: SimConfig,
    /// The clients; read by the lab.
    pub fleet: serde_json::Map<String, serde_json::Value>,
    /// Expected ranges; read by the lab and the tests.
    pub expect: serde_json::Map<String, serde_json::Value>,
}

impl Scenario {
    /// Reads a scenario; every problem is reported at once.
    ///
    /// ```
    /// let scenario = tidegate_sim::Scenario::from_toml(
    ///     "name = \"stranger\"\n[server]\nlimit = 60\nwindow = \"5s\"\n[[server.strangers]]\nrate = 4.8\n",
    /// )?;
    /// assert_eq!(scenario.server.strangers.len(), 1);
    /// # Ok::<(), tidegate_sim::SimError>(())
    /// ```
    pub fn from_toml(text: &str) -> Result<Self, SimError> {
        let scenario: Self = strict::read_toml("scenario", text)?;
        scenario.server.validate()?;
        Ok(scenario)
    }
}
