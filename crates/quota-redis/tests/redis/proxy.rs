//! A way to a server on which answers are late, or are lost without a word.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Passes on what it is told. It ends with the runtime of its test.
pub(crate) struct Proxy {
    port: u16,
    way: Arc<Way>,
}

#[derive(Default)]
struct Way {
    /// Milliseconds that each answer takes longer.
    delay: AtomicU64,
    /// Connections made so far; what comes on those up to `forgotten` is dropped.
    connections: AtomicU64,
    forgotten: AtomicU64,
}

impl Proxy {
    pub(crate) async fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let way = Arc::<Way>::default();
        let shared = Arc::clone(&way);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                let number = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
                let ((from, to), (answers, requests)) = (client.into_split(), server.into_split());
                tokio::spawn(pass(from, requests, Arc::default(), number));
                tokio::spawn(pass(answers, to, Arc::clone(&shared), number));
            }
        });
        Self { port, way }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Answers take so much longer from now on.
    pub(crate) fn delay(&self, delay: Duration) {
        self.way.delay.store(u64::try_from(delay.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// Nothing comes any more on the connections that there are, which stay open.
    pub(crate) fn forget(&self) {
        self.way.forgotten.store(self.connections(), Ordering::SeqCst);
    }

    pub(crate) fn connections(&self) -> u64 {
        self.way.connections.load(Ordering::SeqCst)
    }
}

/// Passes on in order, each part no sooner than its delay.
async fn pass(
    mut from: impl AsyncReadExt + Unpin + Send + 'static,
    mut to: impl AsyncWriteExt + Unpin,
    way: Arc<Way>,
    number: u64,
) {
    let (put, mut parts) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let shared = Arc::clone(&way);
    tokio::spawn(async move {
        let mut some = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from.read(&mut some).await {
            let delay = Duration::from_millis(shared.delay.load(Ordering::SeqCst));
            if put.send((Instant::now() + delay, some[..read].to_vec())).is_err() {
                return;
            }
        }
    });
    while let Some((at, bytes)) = parts.recv().await {
        sleep_until(at).await;
        if number > way.forgotten.load(Ordering::SeqCst) && to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}
