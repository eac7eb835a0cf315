//! Opens connections to the upstream: TCP, then TLS where the scheme says so.
//!
//! A failure here proves that nothing was sent, so it is kept apart from everything that can fail later, and told
//! in words that name the likely mistake (a plain port addressed with `https`, a name that does not resolve).

use std::time::Duration;

use http::Uri;
use hyper::client::conn::http1;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use tidegate_core::classify::Failure;
use tokio::task::JoinHandle;
use tower::{Service, ServiceExt};

use super::SendError;
use super::meter::{Meter, Metered};
use crate::body::{BoxError, RequestBody};

/// Header fields accepted in one response. hyper's own default of 100 is below what some proxies add; a response
/// with more than this is an attack or a bug and is refused.
const MAX_RESPONSE_HEADERS: usize = 256;

/// An open connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) sender: http1::SendRequest<RequestBody>,
    pub(super) meter: Meter,
    driver: Driver,
}

impl Connection {
    /// Ends the connection and waits until nothing more can be written by it.
    pub(super) async fn stop(self) {
        let Self { sender, mut driver, .. } = self;
        drop(sender);
        if let Some(task) = driver.0.take() {
            task.abort();
            // Cancelled is what was asked for; finished before is as good.
            drop(task.await);
        }
    }
}

/// The task that moves a connection's bytes; it ends with its connection.
#[derive(Debug)]
struct Driver(Option<JoinHandle<()>>);

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
    }
}

/// Opens connections.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    https: HttpsConnector<HttpConnector>,
    timeout: Duration,
}

impl Connector {
    /// A connector that verifies servers against the roots of the web and gives up after `timeout`.
    pub(super) fn new(timeout: Duration) -> Self {
        let mut http = HttpConnector::new();
        http.set_nodelay(true);
        http.enforce_http(false);
        http.set_connect_timeout(Some(timeout));
        http.set_keepalive(Some(Duration::from_mins(1)));
        let https = HttpsConnectorBuilder::new()
            .with_webpki_roots()
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        Self { https, timeout }
    }

    /// Opens a connection to the origin of `uri`. `on_end` runs once when the connection has ended.
    pub(super) async fn connect(
        &self,
        uri: &Uri,
        on_end: impl FnOnce() + Send + 'static,
    ) -> Result<Connection, SendError> {
        let mut https = self.https.clone();
        let dial = async { https.ready().await?.call(uri.clone()).await };
        let stream = tokio::time::timeout(self.timeout, dial)
            .await
            .map_err(|_| {
                let why = format!("no connection to {} within {:?}", origin(uri), self.timeout);
                SendError::new(Failure::ConnectFailed, why)
            })?
            .map_err(|error| explain(uri, &error))?;
        let (stream, meter) = Metered::new(stream);
        let (sender, connection) = http1::Builder::new()
            .title_case_headers(true)
            .max_headers(MAX_RESPONSE_HEADERS)
            .handshake(stream)
            .await
            .map_err(|error| SendError::new(Failure::ConnectFailed, error))?;
        let driver = tokio::spawn(async move {
            // Its error reaches the attempt in flight through the sender; here it only means "ended".
            drop(connection.await);
            on_end();
        });
        Ok(Connection { sender, meter, driver: Driver(Some(driver)) })
    }
}

fn origin(uri: &Uri) -> String {
    format!("{}://{}", uri.scheme_str().unwrap_or("http"), uri.authority().map_or("", |a| a.as_str()))
}

/// Tells what failed, and what to do about the common mistakes.
fn explain(uri: &Uri, error: &BoxError) -> SendError {
    let mut chain = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        chain = format!("{chain}: {cause}");
        source = cause.source();
    }
    let (failure, hint) = if chain.contains("InvalidContentType") || chain.contains("corrupt message") {
        (Failure::TlsFailed, " (the upstream does not speak TLS on this port; use http:// or another port)")
    } else if chain.contains("invalid peer certificate") {
        (Failure::TlsFailed, " (the upstream's certificate is not trusted)")
    } else {
        (Failure::ConnectFailed, "")
    };
    SendError::new(failure, format!("cannot connect to {}: {chain}{hint}", origin(uri)))
}
