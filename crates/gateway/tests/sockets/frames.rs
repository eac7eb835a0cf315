//! HTTP/2 frame by frame (RFC 9113 §4.1), for what a well-kept library does not do.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One frame.
#[derive(Debug)]
pub(crate) struct Wired {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// A connection.
pub(crate) struct Frames(TcpStream);

impl Frames {
    /// The side of a server.
    pub(crate) async fn accept(mut stream: TcpStream) -> Self {
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.unwrap();
        assert_eq!(&preface, PREFACE);
        let mut this = Self(stream);
        this.write(SETTINGS, 0, 0, &[]).await;
        this
    }

    /// The side of a client.
    pub(crate) async fn connect(mut stream: TcpStream) -> Self {
        stream.write_all(PREFACE).await.unwrap();
        let mut this = Self(stream);
        this.write(SETTINGS, 0, 0, &[]).await;
        this
    }

    /// Writes a frame; the other side may have hung up already.
    pub(crate) async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.0.write_all(&frame).await.is_ok()
    }

    pub(crate) async fn next(&mut self) -> Option<Wired> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Wired { kind: head[3], flags: head[4], stream, payload })
    }

    /// The next frame of one of these kinds, by which the other side tells what it thinks of a stream.
    pub(crate) async fn verdict(&mut self) -> Option<Wired> {
        loop {
            let frame = self.next().await?;
            if matches!(frame.kind, HEADERS | RST_STREAM | GOAWAY) {
                return Some(frame);
            }
        }
    }

    /// Reads until a whole request has come, and returns its stream.
    pub(crate) async fn request(&mut self) -> Option<u32> {
        loop {
            let frame = self.next().await?;
            if matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM > 0 {
                return Some(frame.stream);
            }
        }
    }

    pub(crate) async fn reset(&mut self, stream: u32, code: u32) -> bool {
        self.write(RST_STREAM, 0, stream, &code.to_be_bytes()).await
    }

    pub(crate) async fn go_away(&mut self, last: u32, code: u32) {
        self.write(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat()).await;
    }

    /// Answers 200 without a body: an entry of the static table (RFC 7541, appendix A).
    pub(crate) async fn answer(&mut self, stream: u32) {
        self.write(HEADERS, END_STREAM | END_HEADERS, stream, &[0x88]).await;
    }
}

/// A block of fields, each as a literal that is not indexed and not compressed (RFC 7541 §6.2.2).
pub(crate) fn block(fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for part in [name.as_bytes(), value] {
            assert!(part.len() < 127, "one byte for the length");
            block.push(u8::try_from(part.len()).unwrap());
            block.extend(part);
        }
    }
    block
}

/// A request's pseudo-fields with these behind them.
pub(crate) fn request(method: &str, fields: &[(&str, &[u8])]) -> Vec<u8> {
    let pseudo: [(&str, &[u8]); 4] = [
        (":method", method.as_bytes()),
        (":scheme", b"http"),
        (":authority", b"localhost"),
        (":path", b"/api/v2/users"),
    ];
    block(&[&pseudo, fields].concat())
}
