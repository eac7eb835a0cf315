//! A server in front of the simulator that cuts one answer in its body.
//!
//! The simulator closes connections before an answer or after it, not within. This passes requests on, one per
//! connection, and of the answer to the first POST of a user it hands over the head and half of the body.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use crate::failure::Failure;

/// The request whose answer is cut, once.
const CUT: &str = "POST /api/v2/users HTTP/1.1\r\n";

/// Nothing on this machine is silent for longer.
const LIMIT: Duration = Duration::from_secs(30);

/// The server; it lives as long as the process.
pub(super) struct Cutter {
    base: String,
}

impl Cutter {
    /// Starts one in front of the server at `behind`.
    pub(super) fn start(behind: &str) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::new(format!("cannot listen: {error}"));
        let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
        let base = format!("http://{}", listener.local_addr().map_err(failed)?);
        let behind: Arc<str> = behind.trim_start_matches("http://").into();
        let was_cut = Arc::new(AtomicBool::new(false));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (behind, was_cut) = (Arc::clone(&behind), Arc::clone(&was_cut));
                // A caller that hangs up is no failure of the proof: the simulator's record is the judge.
                thread::spawn(move || drop(pass_on(stream, &behind, &was_cut)));
            }
        });
        Ok(Self { base })
    }

    /// Its origin.
    pub(super) fn base(&self) -> &str {
        &self.base
    }
}

fn pass_on(mut caller: TcpStream, behind: &str, was_cut: &AtomicBool) -> std::io::Result<()> {
    caller.set_read_timeout(Some(LIMIT))?;
    let Some((head, body)) = read_request(&mut caller)? else { return Ok(()) };
    let mut server = TcpStream::connect(behind)?;
    server.set_read_timeout(Some(LIMIT))?;
    let fields = head.split_inclusive("\r\n").filter(|line| !is_field(line, "connection"));
    let head_out: String = fields.collect();
    write!(server, "{}Connection: close\r\n\r\n", head_out.trim_end_matches("\r\n").to_owned() + "\r\n")?;
    server.write_all(&body)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    let cut = head.starts_with(CUT) && !was_cut.swap(true, Ordering::SeqCst);
    let end = if cut { half(&answer) } else { answer.len() };
    caller.write_all(&answer[..end])
}

/// Where the head and half of the body of `answer` end.
fn half(answer: &[u8]) -> usize {
    let body = answer.windows(4).position(|end| end == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    body + (answer.len() - body) / 2
}

fn is_field(line: &str, name: &str) -> bool {
    line.split_once(':').is_some_and(|(field, _)| field.eq_ignore_ascii_case(name))
}

/// The head of a request with its empty line, and its body. `None` if the connection is closed instead.
fn read_request(stream: &mut TcpStream) -> std::io::Result<Option<(String, Vec<u8>)>> {
    let mut read = Vec::new();
    let mut some = [0; 4096];
    let body = loop {
        if let Some(at) = read.windows(4).position(|end| end == b"\r\n\r\n") {
            break at + 4;
        }
        match stream.read(&mut some)? {
            0 => return Ok(None),
            count => read.extend_from_slice(&some[..count]),
        }
    };
    let rest = read.split_off(body);
    let head = String::from_utf8_lossy(&read).into_owned();
    let length = head.lines().find(|line| is_field(line, "content-length"));
    let length = length.and_then(|line| line.split_once(':')?.1.trim().parse().ok()).unwrap_or(0);
    let mut body = rest;
    while body.len() < length {
        match stream.read(&mut some)? {
            0 => return Ok(None),
            count => body.extend_from_slice(&some[..count]),
        }
    }
    Ok(Some((head, body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_created_user_is_answered_by_half_and_the_next_wholly() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let behind = format!("http://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let (head, body) = read_request(&mut stream).unwrap().unwrap();
                assert!(head.contains("Connection: close\r\n") && !head.contains("keep-alive"), "{head}");
                assert_eq!(body, b"{}");
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd").unwrap();
            }
        });
        let cutter = Cutter::start(&behind).unwrap();
        let answers = [(); 2].map(|()| {
            let mut stream = TcpStream::connect(cutter.base().trim_start_matches("http://")).unwrap();
            let fields = "Host: x\r\nConnection: keep-alive\r\nContent-Length: 2";
            write!(stream, "{CUT}{fields}\r\n\r\n{{}}").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        });
        assert!(answers[0].ends_with("\r\n\r\nab"), "{answers:?}");
        assert!(answers[1].ends_with("\r\n\r\nabcd"), "{answers:?}");
    }
}
