//! A wire with a distance: half a round trip before an attempt goes to its connection, half after its answer.
//!
//! The timer counts in milliseconds and rounds up, so that each way takes up to a millisecond longer than was drawn.

use std::fmt;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Request, Response, Uri};
use parking_lot::Mutex;
use tidegate::transport::{SendError, SendOptions, Wire};
use tidegate::{RequestBody, ResponseBody};
use tokio::time::sleep;

use super::book::Book;
use crate::network::Network;

/// Tells the server's witness whose call it is: "INSTANCE CLIENT". The simulator itself does not read it.
pub(super) const CALLER: HeaderName = HeaderName::from_static("lab-caller");

/// Which call an attempt belongs to; in the extensions of its request.
#[derive(Debug, Clone)]
pub(super) struct Tag {
    pub(super) serial: u64,
    pub(super) caller: HeaderValue,
}

/// See the module.
pub(super) struct Far {
    near: Arc<dyn Wire>,
    network: Mutex<Network>,
    book: Arc<Book>,
}

impl Far {
    /// Puts `near` at a distance.
    pub(super) fn new(near: Arc<dyn Wire>, network: Network, book: Arc<Book>) -> Arc<Self> {
        Arc::new(Self { near, network: Mutex::new(network), book })
    }
}

impl fmt::Debug for Far {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Far").field("near", &self.near).finish_non_exhaustive()
    }
}

type Sent = std::pin::Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, SendError>> + Send>>;

impl Wire for Far {
    fn send(&self, mut request: Request<RequestBody>, options: SendOptions) -> Sent {
        if let Some(tag) = request.extensions_mut().remove::<Tag>() {
            self.book.leave(tag.serial);
            request.headers_mut().insert(CALLER, tag.caller);
        }
        let (out, back) = {
            let mut network = self.network.lock();
            (network.one_way(), network.one_way())
        };
        let near = Arc::clone(&self.near);
        Box::pin(async move {
            sleep(out).await;
            let answer = near.send(request, options).await;
            sleep(back).await;
            answer
        })
    }

    fn check(&self, uri: &Uri) -> std::pin::Pin<Box<dyn Future<Output = Result<(), SendError>> + Send>> {
        self.near.check(uri)
    }
}
