//! What is counted of push.

use crate::tenant::TenantMetrics;

impl TenantMetrics {
    /// Something came, over a `channel` or a `hook`: an event, or a gap in them.
    pub fn push_event(&self, by: &'static str, kind: &'static str) {
        let labels = self.with(vec![("by", by.to_owned()), ("kind", kind.to_owned())]);
        self.metrics.push_events.get_or_create(&labels).inc();
    }

    /// A channel ended before it was replaced.
    pub fn push_loss(&self, cause: &'static str) {
        self.metrics.push_losses.get_or_create(&self.with(vec![("cause", cause.to_owned())])).inc();
    }

    /// So many channels more are in a state, or less. Tenants that are counted together add up.
    pub fn push_channels(&self, state: &'static str, more: f64) {
        let labels = self.with(vec![("state", state.to_owned())]);
        self.metrics.push_channels.get_or_create(&labels).inc_by(more);
    }

    /// So many topics more are in a state, or less.
    pub fn push_topics(&self, state: &'static str, more: f64) {
        let labels = self.with(vec![("state", state.to_owned())]);
        self.metrics.push_topics.get_or_create(&labels).inc_by(more);
    }

    /// A read of what events arrive about was answered by this.
    pub fn push_read(&self, answer: &'static str) {
        self.metrics.push_reads.get_or_create(&self.with(vec![("answer", answer.to_owned())])).inc();
    }

    /// A program listens to events no more.
    pub fn push_listener(&self, ending: &'static str) {
        self.metrics.push_listeners.get_or_create(&self.with(vec![("ending", ending.to_owned())])).inc();
    }

    /// A delivery to a webhook, which is one of the configuration's, ended.
    pub fn hook(&self, hook: &str, outcome: &'static str) {
        let labels = self.with(vec![("hook", hook.to_owned()), ("outcome", outcome.to_owned())]);
        self.metrics.hooks.get_or_create(&labels).inc();
    }
}
