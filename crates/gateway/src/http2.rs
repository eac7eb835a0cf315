//! What HTTP/2 says in other words than HTTP/1.1, on its way in and out.
//!
//! Everything behind this speaks of requests as HTTP/1.1 has them, so that one set of rules decides: a target that is a path, one
//! `Host`, one `Cookie`. The `h2` crate has refused before what could be read in two ways further on (RFC 9113 §8.2 and §8.1.1): fields
//! of connections, `transfer-encoding`, control characters in fields, and bodies that are not as long as `content-length` says.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{COOKIE, HOST, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};

use crate::hygiene::{Refused, clean_response};

/// Fields in one request, as many as HTTP/1.1 connections may send.
const MAX_FIELDS: usize = 100;

/// Makes a request that came by HTTP/2 look like one of HTTP/1.1; others are left as they are.
pub(crate) fn unify(parts: &mut Parts) -> Result<(), Refused> {
    if parts.version != Version::HTTP_2 || parts.method == Method::CONNECT {
        return Ok(());
    }
    if parts.headers.len() > MAX_FIELDS {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Err(refused(status, "fields", "the request has more than 100 header fields"));
    }
    let uri = std::mem::take(&mut parts.uri).into_parts();
    if let Some(authority) = uri.authority {
        let host = HeaderValue::from_str(authority.as_str())
            .map_err(|_| refused(StatusCode::BAD_REQUEST, "host", "the :authority cannot be read"))?;
        // Two names of one server: whoever looks at the other one would decide about another request (RFC 9113 §8.3.1).
        if parts.headers.get_all(HOST).iter().any(|told| told != host) {
            let message = "the Host header and :authority name different hosts: send one of them";
            return Err(refused(StatusCode::BAD_REQUEST, "host", message));
        }
        parts.headers.insert(HOST, host);
    }
    parts.uri = uri.path_and_query.map(Into::into).unwrap_or_default();
    join_cookies(parts);
    Ok(())
}

/// Joins the crumbs that a cookie may be split into for better compression (RFC 9113 §8.2.3).
fn join_cookies(parts: &mut Parts) {
    let mut crumbs = parts.headers.get_all(COOKIE).iter();
    if crumbs.by_ref().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = parts.headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    let joined = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])).expect("values and `; ` make a value");
    parts.headers.insert(COOKIE, joined);
}

fn refused(status: StatusCode, reason: &'static str, message: &str) -> Refused {
    Refused { status, reason, message: message.to_owned() }
}

/// An answer's body whose trailers pass as its headers did: without what is ours to say.
#[derive(Debug)]
pub(crate) struct Outgoing<B>(pub(crate) B);

impl<B> Body for Outgoing<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut frame = std::task::ready!(Pin::new(&mut self.get_mut().0).poll_frame(cx));
        if let Some(Ok(frame)) = &mut frame
            && let Some(trailers) = frame.trailers_mut()
        {
            clean_response(trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn unified(uri: &str, fields: &[(&str, &str)]) -> Result<Parts, &'static str> {
        let request = Request::builder().version(Version::HTTP_2).uri(uri);
        let request = fields.iter().fold(request, |request, field| request.header(field.0, field.1));
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        unify(&mut parts).map(|()| parts).map_err(|refused| refused.reason)
    }

    #[test]
    fn the_authority_becomes_the_host_and_the_target_a_path() {
        let parts = unified("http://localhost:8787/api/v2/users?n=1", &[]).unwrap();
        assert_eq!(parts.uri, "/api/v2/users?n=1");
        assert_eq!(parts.headers["host"], "localhost:8787");
        let same = unified("http://localhost/", &[("host", "localhost")]).unwrap();
        assert_eq!(same.headers.get_all("host").iter().count(), 1);
        let only_host = unified("/api", &[("host", "localhost")]).unwrap();
        assert_eq!(
            (only_host.uri.path(), &only_host.headers["host"]),
            ("/api", &"localhost".parse().unwrap())
        );
    }

    #[test]
    fn two_names_of_the_server_are_refused() {
        assert_eq!(unified("http://localhost/", &[("host", "evil.example")]).unwrap_err(), "host");
        let twice = [("host", "localhost"), ("host", "evil.example")];
        assert_eq!(unified("http://localhost/", &twice).unwrap_err(), "host");
    }

    #[test]
    fn crumbs_of_a_cookie_are_joined_in_order() {
        let crumbs = [("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3; d=4")];
        let parts = unified("http://localhost/", &crumbs).unwrap();
        assert_eq!(parts.headers.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2; c=3; d=4"]);
        let whole = unified("http://localhost/", &[("cookie", "a=1")]).unwrap();
        assert_eq!(whole.headers["cookie"], "a=1");
    }

    #[test]
    fn as_many_fields_as_over_http1_and_no_more() {
        let many = |count| vec![("x-field", "1"); count];
        assert!(unified("http://localhost/", &many(100)).is_ok());
        assert_eq!(unified("http://localhost/", &many(101)).unwrap_err(), "fields");
    }

    #[test]
    fn a_request_of_http1_is_left_as_it_is() {
        let request = Request::builder().uri("http://elsewhere.example/").body(()).unwrap();
        let (mut parts, ()) = request.into_parts();
        unify(&mut parts).unwrap();
        assert_eq!(parts.uri, "http://elsewhere.example/");
    }
}
