//! A bare connection for a protocol other than plain calls, such as a `WebSocket`.
//!
//! It is opened as the connections of calls are: TCP without delay, and TLS against the roots of the web where the scheme says
//! so. It offers HTTP/1.1 only, because the handshake of a `WebSocket` is a switch of that protocol (RFC 6455).

use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tower::{Service, ServiceExt};

use crate::body::BoxError;

/// Opens a connection to the host of `uri`, whose scheme is one of `wss`, `https`, `ws` and `http`.
///
/// # Errors
/// Another scheme, or no connection within `timeout`; why is told in words.
pub async fn dial(
    uri: &Uri,
    timeout: Duration,
) -> Result<impl AsyncRead + AsyncWrite + Unpin + Send + use<>, BoxError> {
    let scheme = match uri.scheme_str() {
        Some("wss" | "https") => Scheme::HTTPS,
        Some("ws" | "http") => Scheme::HTTP,
        other => return Err(format!("`{}` is no scheme to connect by", other.unwrap_or_default()).into()),
    };
    let mut parts = uri.clone().into_parts();
    parts.scheme = Some(scheme);
    let uri = Uri::from_parts(parts)?;
    let mut http = HttpConnector::new();
    http.set_nodelay(true);
    http.enforce_http(false);
    http.set_connect_timeout(Some(timeout));
    http.set_keepalive(Some(Duration::from_mins(1)));
    let mut https =
        HttpsConnectorBuilder::new().with_webpki_roots().https_or_http().enable_http1().wrap_connector(http);
    let connecting = async { https.ready().await?.call(uri).await };
    let stream = tokio::time::timeout(timeout, connecting)
        .await
        .map_err(|_| format!("no connection within {timeout:?}"))??;
    Ok(TokioIo::new(stream))
}
