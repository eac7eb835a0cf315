//! The socket of one channel: opened, read, pinged, closed.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use http::Uri;
use tidegate::body::BoxError;
use tidegate_core::push::{Cause, ChannelId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::Push;

/// A socket that is not open by then has failed.
const OPEN_WITHIN: Duration = Duration::from_secs(15);

/// Something that cannot be sent by then will not be.
const SEND_WITHIN: Duration = Duration::from_secs(10);

/// The longest message that is read. Events are entities of an API, some kilobytes.
const MAX_MESSAGE: usize = 4 << 20;

/// What the platform takes for a ping. Source: the SDKs' `NotificationHandler`.
const PING: &str = r#"{"message":"ping"}"#;

/// Connects to `uri`.
pub(super) async fn connect(
    uri: &Uri,
) -> Result<WebSocketStream<impl AsyncRead + AsyncWrite + Unpin + Send + use<>>, BoxError> {
    let opening = async {
        let stream = tidegate::transport::dial(uri, OPEN_WITHIN).await?;
        let config =
            WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
        let opened = tokio_tungstenite::client_async_with_config(uri.clone(), stream, Some(config)).await?;
        Ok::<_, BoxError>(opened.0)
    };
    tokio::time::timeout(OPEN_WITHIN, opening)
        .await
        .map_err(|_| format!("the socket was not open within {OPEN_WITHIN:?}"))?
}

/// Reads a socket until it ends, or nobody pings it any more.
pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    push: Arc<Push>,
    id: ChannelId,
    mut socket: WebSocketStream<S>,
    mut pings: mpsc::Receiver<()>,
) {
    loop {
        let ping = tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => {
                    push.message(id, text.as_str());
                    continue;
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => {
                    push.heard(id);
                    continue;
                }
            },
            ping = pings.recv() => ping,
        };
        let sending = async {
            if ping.is_some() {
                return socket.send(Message::text(PING)).await.is_ok();
            }
            // Whoever is on the other side may have gone.
            drop(socket.close(None).await);
            false
        };
        if !tokio::time::timeout(SEND_WITHIN, sending).await.unwrap_or(false) {
            break;
        }
    }
    push.lost(id, Cause::Closed);
}
