//! Opens connections to the upstream: TCP, then TLS where the scheme says so.
//!
//! A failure here proves that nothing was sent, so it is kept apart from everything that can fail later, and told
//! in words that name the likely mistake (a plain port addressed with `https`, a name that does not resolve).

use std::time::Duration;

use hyper::client::conn::http1;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tidegate_core::classify::Failure;
use tokio::task::JoinHandle;
use tower::{Service, ServiceExt};

use super::SendError;
use super::meter::{Meter, Metered, Outgoing};
use super::origin::Origin;
use crate::body::BoxError;

/// Header fields accepted in one response. hyper's own default of 100 is below what some proxies add; a response
/// with more than this is an attack or a bug and is refused.
const MAX_RESPONSE_HEADERS: usize = 256;

/// An open connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) sender: http1::SendRequest<Outgoing>,
    pub(super) meter: Meter,
    driver: Driver,
}

impl Connection {
    /// Whether the connection has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

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

    /// Opens a connection to `origin`. `on_end` runs when the connection ends by itself or by the other side.
    pub(super) async fn connect(
        &self,
        origin: &Origin,
        on_end: impl FnOnce() + Send + 'static,
    ) -> Result<Connection, SendError> {
        let mut https = self.https.clone();
        let dial = async { https.ready().await?.call(origin.uri()).await };
        let stream = tokio::time::timeout(self.timeout, dial)
            .await
            .map_err(|_| {
                let why = format!("no connection to {origin} within {:?}", self.timeout);
                SendError::new(Failure::ConnectFailed, why)
            })?
            .map_err(|error| explain(origin, &error))?;
        let (stream, meter) = Metered::new(TokioIo::new(stream));
        let (sender, connection) = http1::Builder::new()
            .title_case_headers(true)
            .max_headers(MAX_RESPONSE_HEADERS)
            .handshake(TokioIo::new(stream))
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

/// Tells what failed, and what to do about the common mistakes.
fn explain(origin: &Origin, error: &BoxError) -> SendError {
    let mut chain = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        chain = format!("{chain}: {cause}");
        source = cause.source();
    }
    let (failure, hint) = match tls_error(&**error) {
        Some(rustls::Error::InvalidMessage(_)) => (
            Failure::TlsFailed,
            " (the upstream does not speak TLS on this port; use http:// or another port)",
        ),
        Some(rustls::Error::InvalidCertificate(_)) => {
            (Failure::TlsFailed, " (the upstream's certificate is not trusted)")
        }
        Some(_) => (Failure::TlsFailed, ""),
        None if origin.is_tls() && chain.contains("tls handshake eof") => {
            (Failure::TlsFailed, " (the upstream closed during the TLS handshake)")
        }
        None => (Failure::ConnectFailed, ""),
    };
    SendError::new(failure, format!("cannot connect to {origin}: {chain}{hint}"))
}

/// The TLS layer's error, which hides in I/O errors whose `source` skips it.
fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(tls) = error.downcast_ref::<rustls::Error>() {
        return Some(tls);
    }
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    match inner {
        Some(inner) => tls_error(inner),
        None => tls_error(error.source()?),
    }
}
