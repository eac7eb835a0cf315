//! Opens connections to the upstream: TCP, then TLS where the scheme says so, and then the HTTP that both agree on (ALPN, RFC 7301).
//!
//! A failure here proves that nothing was sent, so it is kept apart from everything that can fail later, and told
//! in words that name the likely mistake (a plain port addressed with `https`, a name that does not resolve).

use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http1;
use hyper_rustls::builderstates::WantsSchemes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::{Connection as _, HttpConnector};
use hyper_util::rt::TokioIo;
use tidegate_core::classify::Failure;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tower::{Service, ServiceExt};

use super::meter::{Meter, Metered, Outgoing};
use super::origin::Origin;
use super::pool::IdleSince;
use super::streams::Many;
use super::{SendError, chain};
use crate::body::BoxError;
use crate::clock::Clock;

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

/// A connection as it was opened.
#[derive(Debug)]
pub(super) enum Opened {
    /// It carries one attempt at a time (HTTP/1.1).
    One(Connection),
    /// It carries many (HTTP/2).
    Many(Arc<Many>),
}

/// What a connection is to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speak {
    /// HTTP/1.1, which is offered alone.
    Http1,
    /// What the other side chooses of HTTP/2 and HTTP/1.1; without TLS there is no choice and it is HTTP/1.1.
    Agreed,
    /// HTTP/2, without asking.
    Http2,
}

/// Opens connections.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    /// Offers HTTP/1.1 only.
    http1: HttpsConnector<HttpConnector>,
    /// Offers both.
    both: HttpsConnector<HttpConnector>,
    timeout: Duration,
}

impl Connector {
    /// A connector that verifies servers against the roots of the web and gives up after `timeout`.
    pub(super) fn new(timeout: Duration) -> Self {
        Self::with(timeout, || HttpsConnectorBuilder::new().with_webpki_roots())
    }

    fn with(timeout: Duration, verifying: impl Fn() -> HttpsConnectorBuilder<WantsSchemes>) -> Self {
        let builder = || verifying().https_or_http().enable_http1();
        Self {
            http1: builder().wrap_connector(tcp(timeout)),
            both: builder().enable_http2().wrap_connector(tcp(timeout)),
            timeout,
        }
    }

    /// How long a connection may take to open.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Opens a connection to `origin`. `on_end` runs when the connection ends by itself or by the other side; `idle` is told since
    /// when one that carries many attempts carries none.
    pub(super) async fn connect(
        &self,
        origin: &Origin,
        speak: Speak,
        (clock, idle): (Clock, &Arc<IdleSince>),
        on_end: impl FnOnce() + Send + 'static,
    ) -> Result<Opened, SendError> {
        let opening = async {
            let mut https = if speak == Speak::Http1 { self.http1.clone() } else { self.both.clone() };
            let dial = async { https.ready().await?.call(origin.uri()).await };
            let stream = dial.await.map_err(|error| explain(origin, &error))?;
            let chosen = stream.connected().is_negotiated_h2();
            let stream = TokioIo::new(stream);
            if chosen || speak == Speak::Http2 {
                Many::open(stream, clock, Arc::clone(idle), on_end).await.map(Opened::Many)
            } else {
                one(stream, on_end).await.map(Opened::One)
            }
        };
        tokio::time::timeout(self.timeout, opening).await.map_err(|_| self.too_late(origin))?
    }

    /// No connection came in time.
    pub(super) fn too_late(&self, origin: &Origin) -> SendError {
        let why = format!("no connection to {origin} within {:?}", self.timeout);
        SendError::new(Failure::ConnectFailed, why)
    }
}

fn tcp(timeout: Duration) -> HttpConnector {
    let mut http = HttpConnector::new();
    http.set_nodelay(true);
    http.enforce_http(false);
    http.set_connect_timeout(Some(timeout));
    http.set_keepalive(Some(Duration::from_mins(1)));
    http
}

/// Speaks HTTP/1.1 over `stream`.
async fn one<T>(stream: T, on_end: impl FnOnce() + Send + 'static) -> Result<Connection, SendError>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (stream, meter) = Metered::new(stream);
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

/// Tells what failed, and what to do about the common mistakes.
fn explain(origin: &Origin, error: &BoxError) -> SendError {
    let chain = chain(&**error);
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

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    // A certificate for 127.0.0.1, and the authority that signed it; `make.sh` beside them made them.
    const AUTHORITY: &[u8] = include_bytes!("../../../quota-redis/tests/redis/tls/authority.pem");
    const CERTIFICATE: &[u8] = include_bytes!("../../../quota-redis/tests/redis/tls/server.pem");
    const KEY: &[u8] = include_bytes!("../../../quota-redis/tests/redis/tls/server.key");

    /// A server that shakes hands and holds its connections; it chooses among these protocols.
    async fn server(protocols: &[&[u8]]) -> Origin {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(CERTIFICATE).unwrap()],
                PrivateKeyDer::from_pem_slice(KEY).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("https://{}/", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let stream = acceptor.accept(stream).await.unwrap();
                    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                        let mut http2 = h2::server::handshake(stream).await.unwrap();
                        while let Some(Ok(_)) = http2.accept().await {}
                    } else {
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        Origin::of(uri).unwrap().0
    }

    fn connector() -> Connector {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(AUTHORITY).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let verifying = move || HttpsConnectorBuilder::new().with_tls_config(config.clone());
        Connector::with(Duration::from_secs(5), verifying)
    }

    #[tokio::test]
    async fn over_tls_the_other_side_chooses_and_only_among_what_is_offered() {
        let both = server(&[b"h2", b"http/1.1"]).await;
        let old = server(&[b"http/1.1"]).await;
        let silent = server(&[]).await;
        let connector = connector();
        for (origin, speak, many) in [
            (&both, Speak::Agreed, true),
            (&both, Speak::Http1, false),
            (&old, Speak::Agreed, false),
            (&silent, Speak::Agreed, false),
        ] {
            let opened = connector.connect(origin, speak, (Clock::start(), &Arc::default()), || ()).await;
            let opened = opened.unwrap();
            assert_eq!(matches!(opened, Opened::Many(_)), many, "{origin} {speak:?}");
        }
    }
}
