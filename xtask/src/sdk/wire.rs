//! Just enough HTTP to ask the simulator for its record.
//!
//! HTTP/1.0 on purpose: the answer then has no chunks and ends where the connection does. Written here so that this
//! package stays free of an HTTP stack; it only ever talks to servers this program has started itself.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use crate::failure::Failure;

/// A server on this machine answers within milliseconds.
const LIMIT: Duration = Duration::from_secs(10);

/// The body of a successful `GET`.
pub(super) fn get(base: &str, path: &str) -> Result<String, Failure> {
    let failed = |why: String| Failure::new(format!("GET {base}{path} {why}"));
    let authority = base.strip_prefix("http://").ok_or_else(|| failed("is not plain HTTP".to_owned()))?;
    let exchange = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(authority)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {authority}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = exchange().map_err(|error| failed(format!("failed: {error}")))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split_whitespace().nth(1).unwrap_or("nothing");
    if status.starts_with('2') {
        return Ok(body.to_owned());
    }
    Err(failed(format!("was answered with {status}: {body}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::BufRead as _, io::BufReader, net::TcpListener, thread};

    /// Answers one request with `answer`; gives the base address and, in the end, the request's first line.
    fn server(answer: &'static str) -> (String, thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let handle = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut first = String::new();
            reader.read_line(&mut first).unwrap();
            let mut line = String::new();
            while reader.read_line(&mut line).unwrap() > 2 {
                line.clear();
            }
            stream.write_all(answer.as_bytes()).unwrap();
            first
        });
        (base, handle)
    }

    #[test]
    fn a_body_is_what_follows_the_head() {
        let (base, handle) = server("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{\"a\":1}");
        assert_eq!(get(&base, "/sim/stats?users=1").unwrap(), "{\"a\":1}");
        assert_eq!(handle.join().unwrap(), "GET /sim/stats?users=1 HTTP/1.0\r\n");
    }

    #[test]
    fn a_refusal_is_a_failure_that_shows_the_answer() {
        let (base, handle) = server("HTTP/1.0 404 Not Found\r\n\r\nno such path");
        let failure = get(&base, "/x").unwrap_err().to_string();
        handle.join().unwrap();
        assert!(failure.contains("404") && failure.contains("no such path"), "{failure}");
    }
}
