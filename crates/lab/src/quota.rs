//! How the instances of a fleet share their quotas: `[fleet.quota]`, with the keys of the gateway's `[quota]` where it has them.

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use tidegate_core::share::OnStoreLoss;
use tidegate_sim::text::{Spread, format_duration};

use crate::text;

/// Whether a fleet shares its quotas, and through what.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quota {
    /// Where the instances meet.
    #[serde(deserialize_with = "text::parsed")]
    pub store: StoreKind,
    /// Network round trip between an instance and the store; half of a draw each way.
    pub rtt: Spread,
    /// For how long an answer of the store is waited for.
    #[serde(deserialize_with = "text::duration")]
    pub timeout: Duration,
    /// What an instance does while the store is away.
    #[serde(deserialize_with = "on_store_loss")]
    pub on_store_loss: OnStoreLoss,
    /// The most instances there can be: among so many a quota is divided where the store was never reached.
    pub max_instances: u32,
    /// When the store is away, in the order of time.
    pub outages: Vec<StoreOutage>,
}

/// Where instances meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StoreKind {
    /// Nowhere: each paces on its own.
    #[default]
    None,
    /// In one store, which is the ledger of the core itself.
    Shared,
}

/// A time in which no exchange gets through to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreOutage {
    /// When it begins, from the start of the run.
    #[serde(deserialize_with = "text::duration")]
    pub from: Duration,
    /// When the store can be reached again.
    #[serde(deserialize_with = "text::duration")]
    pub to: Duration,
    /// Whether it comes back with what it knew; if not, it is empty then.
    pub keeps: bool,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            store: StoreKind::None,
            rtt: Spread { min: Duration::from_millis(1), max: Duration::from_millis(1) },
            timeout: Duration::from_millis(50),
            on_store_loss: OnStoreLoss::Share,
            max_instances: 64,
            outages: Vec::new(),
        }
    }
}

impl Default for StoreOutage {
    fn default() -> Self {
        Self { from: Duration::ZERO, to: Duration::ZERO, keeps: true }
    }
}

/// As many as the gateway allows.
const MOST_INSTANCES: u32 = 10_000;

impl Quota {
    /// Whether the instances share their quotas.
    pub fn is_shared(&self) -> bool {
        self.store == StoreKind::Shared
    }

    /// Everything that is out of bounds.
    pub(crate) fn check(&self, problems: &mut Vec<String>) {
        if self.timeout.is_zero() {
            problems.push("fleet.quota.timeout: must be above 0s".to_owned());
        }
        if !(1..=MOST_INSTANCES).contains(&self.max_instances) {
            problems.push(format!(
                "fleet.quota.max_instances: {} is not between 1 and {MOST_INSTANCES}",
                self.max_instances
            ));
        }
        if !self.is_shared() && !self.outages.is_empty() {
            problems.push(
                "fleet.quota.outages: there is no store (set fleet.quota.store = \"shared\")".to_owned(),
            );
        }
        let mut before = Duration::ZERO;
        for (index, outage) in self.outages.iter().enumerate() {
            let place = format!("fleet.quota.outages[{index}]");
            if outage.to <= outage.from {
                problems.push(format!("{place}.to: must be later than `from`"));
            }
            if outage.from < before {
                problems.push(format!("{place}.from: must not be before the end of the outage before it"));
            }
            before = before.max(outage.to);
        }
    }

    /// In words, for the head of a table.
    pub(crate) fn title(&self) -> String {
        if !self.is_shared() {
            return "each on its own".to_owned();
        }
        let outages = self.outages.iter().map(|outage| {
            let [from, to] = [outage.from, outage.to].map(format_duration);
            format!(", away {from}..{to}{}", if outage.keeps { "" } else { " and then empty" })
        });
        format!("sharing through a store {} away{}", self.rtt, outages.collect::<String>())
    }
}

impl FromStr for StoreKind {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self::None),
            "shared" => Ok(Self::Shared),
            _ => Err("is not a store (there are \"shared\" and \"none\")"),
        }
    }
}

fn on_store_loss<'de, D: Deserializer<'de>>(from: D) -> Result<OnStoreLoss, D::Error> {
    let text = String::deserialize(from)?;
    match text.as_str() {
        "share" => Ok(OnStoreLoss::Share),
        "closed" => Ok(OnStoreLoss::Closed),
        "open" => Ok(OnStoreLoss::Open),
        _ => Err(serde::de::Error::custom(format!("\"{text}\" is none of \"share\", \"closed\", \"open\""))),
    }
}
