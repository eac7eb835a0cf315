//! How a process takes part in a shared quota.

use crate::share::wire::HolderId;
use crate::time::Mono;

/// What to do while the store is away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnStoreLoss {
    /// Keep to an equal part of what the fleet may use.
    #[default]
    Share,
    /// Refuse.
    Closed,
    /// Pace as if there were no others.
    Open,
}

/// How a bank takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareConfig {
    /// Who it is: random, and never the same for two processes or two banks.
    pub holder: HolderId,
    /// What to do while the store is away.
    pub on_store_loss: OnStoreLoss,
    /// Processes that take part at most: what is assumed where the store was never reached.
    pub max_instances: u32,
    /// Tokens are the fleet's, so limits per token are shared too.
    pub tokens_shared: bool,
}

/// Why there was no answer to an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Away {
    /// Not reached, too slow, or refused by the store's own breaker until then.
    Until(Option<Mono>),
    /// There never will be one: another protocol, no permission.
    Unusable,
}
