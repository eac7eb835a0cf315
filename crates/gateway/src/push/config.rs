//! How push is set up for a tenant.

use std::sync::Arc;

use tidegate::UpstreamConfig;
use tidegate_core::push::FollowPace;

use super::NoPush;

/// Which topics of a tenant are subscribed to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PushConfig {
    /// Those that are wanted always.
    pub topics: Vec<Arc<str>>,
    /// When those are wanted whose paths are read often; `None`: never. With it the topics that somebody listens to through the
    /// gateway are wanted too, as long as they do.
    pub follow: Option<FollowPace>,
    /// After so many heartbeats without a word a channel is given up.
    pub silent: u32,
}

impl PushConfig {
    /// After so many heartbeats without a word a channel is given up, unless said otherwise.
    pub const SILENT: u32 = 3;

    /// Whether it can be had for an upstream.
    ///
    /// # Errors
    /// It cannot, because something is missing.
    pub fn possible(&self, upstream: &UpstreamConfig) -> Result<(), NoPush> {
        match (self.is_on(), &upstream.profile.push, &upstream.credential) {
            (true, None, _) => Err(NoPush::NoRules),
            (true, Some(_), None) => Err(NoPush::NoCredential),
            _ => Ok(()),
        }
    }

    /// Whether it wants anything.
    pub(crate) fn is_on(&self) -> bool {
        !self.topics.is_empty() || self.follow.is_some()
    }
}
