//! The shell of notifications channels: web sockets (RFC 6455) around [`World::due`](crate::model::world::World::due).
//!
//! A socket's task sleeps until something is due, something changed, or the client said something. What is sent, and when, the world
//! decides.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, frame::coding::CloseCode};

use crate::model::push::NoSocket;
use crate::model::push::sockets::{Due, End};
use crate::server::{Shared, wake_after};

/// Where sockets are opened; the channel's id follows.
const PATH: &str = "/channels/";

/// How long a client may leave what was sent to it unread before it is cut.
const PATIENCE: Duration = Duration::from_secs(10);

/// The channel whose socket a request wants to open, if it does.
pub(crate) fn wanted<T>(request: &Request<T>) -> Option<&str> {
    let upgrade = request.headers().get(header::UPGRADE)?.to_str().ok()?;
    let meant = request.method() == Method::GET && upgrade.eq_ignore_ascii_case("websocket");
    request.uri().path().strip_prefix(PATH).filter(|_| meant)
}

/// Opens a channel's socket: the answer to the upgrade, after which a task of its own serves it.
pub(crate) fn open(
    shared: Shared,
    mut request: Request<Incoming>,
    channel: &str,
    mut stopped: watch::Receiver<bool>,
) -> Response<Full<Bytes>> {
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let Some(accept) = key else { return answer(StatusCode::BAD_REQUEST) };
    let (connected, changed) = shared.lock().connect(channel);
    let id = match connected {
        Ok(id) => id,
        Err(NoSocket::Refused) => return answer(StatusCode::SERVICE_UNAVAILABLE),
        Err(NoSocket::Unknown) => return answer(StatusCode::NOT_FOUND),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let socket = Open { shared, id };
        match upgrade.await {
            Ok(upgraded) => tokio::select! {
                () = socket.serve(upgraded, changed) => {}
                _ = stopped.changed() => {}
            },
            Err(error) => tracing::debug!(%error, "a WebSocket was given up before it was open"),
        }
    });
    let mut response = answer(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, header::HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, header::HeaderValue::from_static("websocket"));
    if let Ok(accept) = accept.parse() {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

fn answer(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

/// A socket that is open in the world, however its task ends.
struct Open {
    shared: Shared,
    id: u64,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.lock().world.closed(self.id);
    }
}

impl Open {
    /// Serves until either side ends it. Dropping the stream cuts the connection.
    async fn serve(&self, upgraded: Upgraded, mut changed: watch::Receiver<u64>) {
        let mut stream = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        loop {
            changed.mark_unchanged();
            let (due, now) = self.shared.lock().due(self.id);
            let Due { texts, next, end } = due;
            for text in texts {
                let sent = tokio::time::timeout(PATIENCE, stream.send(Message::text(text))).await;
                if !matches!(sent, Ok(Ok(()))) {
                    return;
                }
            }
            match end {
                None => {}
                Some(End::Cut) => return,
                Some(End::Replaced) => return close(&mut stream, "replaced by another socket").await,
                Some(End::Over) => return close(&mut stream, "closing").await,
            }
            tokio::select! {
                () = wake_after(now, next) => {}
                change = changed.changed() => if change.is_err() { return },
                heard = stream.next() => match heard {
                    Some(Ok(Message::Text(text))) => self.shared.lock().heard(self.id, &text),
                    // Pings of the protocol are answered by the library when the stream is next used.
                    Some(Ok(Message::Ping(_))) => if stream.flush().await.is_err() { return },
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                    Some(Ok(_)) => {}
                },
            }
        }
    }
}

async fn close(stream: &mut WebSocketStream<TokioIo<Upgraded>>, reason: &'static str) {
    let frame = CloseFrame { code: CloseCode::Away, reason: reason.into() };
    if let Err(error) = stream.close(Some(frame)).await {
        tracing::debug!(%error, "the client was gone before the socket was closed");
    }
}
