//! Says of which tenant an observer is told, where there are several.

use std::sync::Arc;

use tidegate::observe::{AttemptDone, CallDone, Denied, DoubtDone, Observer, StoreDone, TokenDone};
use tidegate_core::event::Event;
use tracing::Span;

/// An observer that is told within a span `tenant`, so that each line of a log says whose it is.
pub(crate) struct Named {
    span: Span,
    told: Arc<dyn Observer>,
}

impl Named {
    pub(crate) fn of(tenant: &str, told: Arc<dyn Observer>) -> Arc<dyn Observer> {
        // Of the level of what matters most: a span is left out where its level is.
        let span = tracing::error_span!(target: "tidegate", "tenant", name = tenant);
        Arc::new(Self { span, told })
    }

    fn tell(&self, tell: impl FnOnce(&dyn Observer)) {
        self.span.in_scope(|| tell(&*self.told));
    }
}

impl Observer for Named {
    fn event(&self, event: &Event) {
        self.tell(|told| told.event(event));
    }

    fn attempt(&self, attempt: &AttemptDone<'_>) {
        self.tell(|told| told.attempt(attempt));
    }

    fn call(&self, call: &CallDone<'_>) {
        self.tell(|told| told.call(call));
    }

    fn token(&self, token: &TokenDone<'_>) {
        self.tell(|told| told.token(token));
    }

    fn doubt(&self, doubt: &DoubtDone<'_>) {
        self.tell(|told| told.doubt(doubt));
    }

    fn denied(&self, denied: &Denied<'_>) {
        self.tell(|told| told.denied(denied));
    }

    fn store(&self, store: &StoreDone<'_>) {
        self.tell(|told| told.store(store));
    }
}
