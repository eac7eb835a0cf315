//! What of a request may pass, and what may not.
//!
//! The gateway holds a credential, so everything that could make it work for somebody else is refused here, before
//! anything is read or sent: requests that a foreign web page makes a browser send (DNS rebinding shows as a
//! foreign `Host`, cross-site calls as `Origin` or `Sec-Fetch-Site`), requests that try to use it as an open proxy
//! (absolute-form targets, CONNECT), and protocol switches it does not understand. Loopback alone is no
//! authentication: every page in a local browser can reach it.
//!
//! Header fields that belong to one connection (RFC 9110 §7.6.1) never cross the gateway in either direction.

use std::net::IpAddr;

use http::header::{
    CONNECTION, EXPECT, HOST, HeaderMap, HeaderName, ORIGIN, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, StatusCode, Uri};

/// Fields that belong to one connection whatever `Connection` says.
const HOP_BY_HOP: [HeaderName; 7] = [
    CONNECTION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("http2-settings"),
];

/// Proxy fields are for the proxy they are addressed to, which is not the upstream.
const PROXY: [HeaderName; 3] = [
    HeaderName::from_static("proxy-authorization"),
    HeaderName::from_static("proxy-authenticate"),
    HeaderName::from_static("proxy-connection"),
];

/// The one protocol whose offer is passed over in silence instead of refused: Java's own client makes it with every
/// request, and RFC 9110 §7.8 lets a server stay with HTTP/1.1. The offer never reaches the upstream.
const H2C: &str = "h2c";

/// Our own fields begin with this. What a caller sets is for us, what an upstream sets would pass for ours.
const OWN_PREFIX: &str = "tidegate-";

/// A request that is refused, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// The status it is answered with.
    pub(crate) status: StatusCode,
    /// The reason in `Tidegate-Refused`.
    pub(crate) reason: &'static str,
    /// What to do about it.
    pub(crate) message: String,
}

/// Who may talk to the data port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doors {
    /// Names, beside those of this machine's loopback, that a `Host` may carry.
    pub hosts: Vec<String>,
    /// Origins whose pages may call through a browser. None by default.
    pub origins: Vec<String>,
}

impl Doors {
    /// Checks what a request shows of its maker and its shape.
    pub(crate) fn check(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Refused> {
        if method == Method::CONNECT || headers.get_all(UPGRADE).iter().any(|protocol| protocol != H2C) {
            return Err(refused(
                StatusCode::NOT_IMPLEMENTED,
                "not-implemented",
                "the gateway carries plain requests only: CONNECT and protocol upgrades are not supported",
            ));
        }
        if uri.authority().is_some() || !uri.path().starts_with('/') {
            return Err(refused(
                StatusCode::BAD_REQUEST,
                "not-a-proxy",
                "the gateway is the API's address, not a proxy: send the target as /path, not as a full URL",
            ));
        }
        self.check_host(headers)?;
        self.check_origin(headers)
    }

    fn check_host(&self, headers: &HeaderMap) -> Result<(), Refused> {
        let mut hosts = headers.get_all(HOST).iter();
        let host = hosts.next().and_then(|host| host.to_str().ok());
        let (Some(host), None) = (host, hosts.next()) else {
            return Err(refused(StatusCode::BAD_REQUEST, "host", "exactly one Host header is needed"));
        };
        let name = without_port(host);
        if is_loopback(name) || self.hosts.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            return Ok(());
        }
        Err(Refused {
            status: StatusCode::MISDIRECTED_REQUEST,
            reason: "foreign-host",
            message: format!(
                "the gateway is not known as `{name}`: call it by localhost, or list the name under [gateway] hosts"
            ),
        })
    }

    fn check_origin(&self, headers: &HeaderMap) -> Result<(), Refused> {
        let listed = headers.get(ORIGIN).map(|origin| {
            self.origins.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(origin.as_bytes()))
        });
        let cross_site = headers.get("sec-fetch-site").is_some_and(|site| site.as_bytes() == b"cross-site");
        match (listed, cross_site) {
            (Some(true), _) | (None, false) => Ok(()),
            (Some(false), _) | (None, true) => Err(refused(
                StatusCode::FORBIDDEN,
                "foreign-origin",
                "web pages may not use the gateway unless their origin is listed under [gateway] origins",
            )),
        }
    }
}

fn refused(status: StatusCode, reason: &'static str, message: &str) -> Refused {
    Refused { status, reason, message: message.to_owned() }
}

fn without_port(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(v6),
        None => host.split(':').next().unwrap_or(host),
    }
}

fn is_loopback(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// Removes what must not reach the upstream.
pub(crate) fn clean_request(headers: &mut HeaderMap) {
    remove_connection_fields(headers);
    // Continue is said by whoever reads the body, and that is us.
    headers.remove(EXPECT);
    headers.remove(ORIGIN);
    remove_own_fields(headers);
}

/// Removes what must not reach the caller.
pub(crate) fn clean_response(headers: &mut HeaderMap) {
    remove_connection_fields(headers);
    remove_own_fields(headers);
}

fn remove_own_fields(headers: &mut HeaderMap) {
    let own: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with(OWN_PREFIX)).cloned().collect();
    for name in own {
        headers.remove(name);
    }
}

fn remove_connection_fields(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // A caller must not be able to strip what the gateway itself relies on.
        .filter(|name| *name != HOST && *name != http::header::AUTHORIZATION)
        .collect();
    for name in listed.iter().chain(&HOP_BY_HOP).chain(&PROXY) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn check(fields: &[(&'static str, &'static str)]) -> Result<(), &'static str> {
        let doors =
            Doors { hosts: vec!["gateway.internal".to_owned()], origins: vec!["https://ours".to_owned()] };
        doors.check(&Method::GET, &Uri::from_static("/api/v2/users"), &headers(fields)).map_err(|r| r.reason)
    }

    #[test]
    fn the_machines_own_names_and_listed_ones_are_welcome_with_any_port() {
        for host in
            ["localhost", "LOCALHOST:8787", "127.0.0.1:1", "127.1.2.3", "[::1]:8787", "gateway.internal:80"]
        {
            assert_eq!(check(&[("host", host)]), Ok(()), "{host}");
        }
    }

    #[test]
    fn a_rebound_name_is_a_foreign_host() {
        for host in [
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example:8787",
            "10.0.0.1",
            "[2001:db8::1]",
        ] {
            assert_eq!(check(&[("host", host)]), Err("foreign-host"), "{host}");
        }
    }

    #[test]
    fn two_hosts_or_none_are_refused() {
        assert_eq!(check(&[]), Err("host"));
        assert_eq!(check(&[("host", "localhost"), ("host", "evil.example")]), Err("host"));
    }

    #[test]
    fn pages_of_unlisted_origins_are_refused() {
        assert_eq!(
            check(&[("host", "localhost"), ("origin", "https://evil.example")]),
            Err("foreign-origin")
        );
        assert_eq!(check(&[("host", "localhost"), ("origin", "null")]), Err("foreign-origin"));
        assert_eq!(check(&[("host", "localhost"), ("sec-fetch-site", "cross-site")]), Err("foreign-origin"));
        assert_eq!(check(&[("host", "localhost"), ("origin", "https://ours")]), Ok(()));
        assert_eq!(check(&[("host", "localhost"), ("sec-fetch-site", "same-origin")]), Ok(()));
    }

    #[test]
    fn it_is_no_open_proxy() {
        let doors = Doors::default();
        let host = headers(&[("host", "localhost")]);
        let absolute = Uri::from_static("http://elsewhere.example/");
        assert_eq!(doors.check(&Method::GET, &absolute, &host).map_err(|r| r.reason), Err("not-a-proxy"));
        let authority = Uri::from_static("elsewhere.example:443");
        assert_eq!(doors.check(&Method::CONNECT, &authority, &host).map_err(|r| r.status.as_u16()), Err(501));
        let upgrade = headers(&[("host", "localhost"), ("upgrade", "websocket")]);
        let target = Uri::from_static("/");
        assert_eq!(doors.check(&Method::GET, &target, &upgrade).map_err(|r| r.status.as_u16()), Err(501));
        let offer = headers(&[("host", "localhost"), ("upgrade", "h2c")]);
        assert_eq!(doors.check(&Method::GET, &target, &offer), Ok(()));
    }

    #[test]
    fn connection_fields_and_those_it_lists_do_not_cross() {
        let mut fields = headers(&[
            ("connection", "keep-alive, X-Mine"),
            ("x-mine", "1"),
            ("te", "trailers"),
            ("proxy-authorization", "Basic x"),
            ("tidegate-class", "bulk"),
            ("accept", "*/*"),
        ]);
        clean_request(&mut fields);
        assert_eq!(fields, headers(&[("accept", "*/*")]));
    }

    #[test]
    fn connection_cannot_strip_the_authorization() {
        let mut fields = headers(&[("connection", "authorization"), ("authorization", "Bearer t")]);
        clean_request(&mut fields);
        assert!(fields.contains_key("authorization"));
    }
}
