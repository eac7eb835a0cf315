//! Writes down the new body of an item before it is sent.
//!
//! Where the upstream refused an update because its entity has changed, the same change goes on the current version: another
//! body, so another key of the same transaction. If the process ends between the two, the journal has either the old body,
//! which was refused, or the new one, which was not sent.

use std::sync::Arc;

use http::Method;
use tidegate::Upstream;
use tidegate::body::BoxError;
use tidegate::layer::{Amend, BoxFuture};
use tidegate_core::idempotency::{BodyDigest, Transaction, Write};
use tidegate_store::{Journal, NewItem};

use super::intent::Exit;

/// One item's way to another body.
#[derive(Debug)]
pub(super) struct Amendment {
    pub(super) journal: Arc<Journal>,
    pub(super) upstream: Arc<Upstream>,
    pub(super) exit: Exit,
    pub(super) method: Method,
    pub(super) request: NewItem,
}

impl Amend for Amendment {
    fn amend(&self, body: bytes::Bytes) -> BoxFuture<Result<String, BoxError>> {
        let transaction = self.request.transaction.to_string();
        let write = Write {
            tenant: self.upstream.tenant(),
            transaction: Transaction::Given(&transaction),
            method: &self.method,
            target: &self.request.target,
            body: &BodyDigest::json(&body),
        };
        let key = write.key(self.upstream.profile().idempotency.stamp);
        let (journal, exit, seq) = (Arc::clone(&self.journal), self.exit.clone(), self.request.seq);
        let at = self.upstream.clock().wall();
        Box::pin(async move {
            journal.amend(seq, Some(body.to_vec()), key, at).await?;
            exit.again();
            Ok(key.to_string())
        })
    }
}
