//! What each class of `tidegate` leaves to others: `[fleet.class.NAME]`, with the keys of the gateway's `[class.NAME]`.

use serde::{Deserialize, Deserializer};
use tidegate_core::pace::{Class, ClassPolicy, Taking};

use crate::text;

/// The policies that a scenario sets; the rest is as in the product.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Classes {
    /// Of calls behind which somebody waits.
    pub interactive: Leaves,
    /// Of calls with a deadline.
    pub sync: Leaves,
    /// Of jobs.
    pub bulk: Leaves,
    /// Of what repeats by itself.
    pub poll: Leaves,
}

/// What one class leaves.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Leaves {
    /// Whether it looks ahead.
    #[serde(deserialize_with = "maybe_taking")]
    pub policy: Option<Taking>,
    /// Permits of every quota that it always leaves.
    pub reserve: Option<u64>,
}

fn maybe_taking<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Taking>, D::Error> {
    text::parsed(from).map(Some)
}

impl Classes {
    /// The policy of each class, by [`Class::ALL`].
    ///
    /// ```
    /// use tidegate_core::pace::{Class, ClassPolicy, Taking};
    /// use tidegate_lab::classes::{Classes, Leaves};
    ///
    /// let bulk = Leaves { policy: Some(Taking::Greedy), reserve: None };
    /// let policies = Classes { bulk, ..Classes::default() }.policies();
    /// assert_eq!(policies[Class::Bulk.index()], ClassPolicy::GREEDY);
    /// assert_eq!(policies[Class::Poll.index()], ClassPolicy::of(Class::Poll));
    /// ```
    pub fn policies(&self) -> [ClassPolicy; Class::COUNT] {
        Class::ALL.map(|class| {
            let leaves = match class {
                Class::Interactive => self.interactive,
                Class::Sync => self.sync,
                Class::Bulk => self.bulk,
                Class::Poll => self.poll,
            };
            let usual = ClassPolicy::of(class);
            ClassPolicy {
                taking: leaves.policy.unwrap_or(usual.taking),
                reserve: leaves.reserve.unwrap_or(usual.reserve),
            }
        })
    }
}
