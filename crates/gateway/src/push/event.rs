//! What happened upstream, and who is told of it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tidegate_core::time::Wall;

/// One thing that happened upstream: heard on a notification channel, or brought by a webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushEvent {
    /// Whose it is.
    pub tenant: Arc<str>,
    /// What it is about, such as `v2.users.7.presence`. Names that begin with `tidegate.` are the gateway's own.
    pub topic: Arc<str>,
    /// Names it among the events of its tenant in this run of the gateway: ascending numbers behind a name of the run.
    pub id: Arc<str>,
    /// When it came here.
    pub at: Wall,
    /// What the upstream says of it: one JSON value, as it was sent, but without line breaks.
    pub body: Bytes,
}

/// Something that wants to be told of every event, such as webhooks of others.
pub trait EventSink: fmt::Debug + Send + Sync {
    /// Tells of an event. Called where events are read from the wire, so it must not block: a sink that is slow keeps a bounded
    /// line of its own and counts what it lets go.
    fn offer(&self, event: &Arc<PushEvent>);
}
