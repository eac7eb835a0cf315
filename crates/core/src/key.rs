//! Which family, tenant and credential a request belongs to.
//!
//! Pacing, breaking and holding are decided per family, so a caller that can make one resource look like another
//! escapes all three. Servers differ in how they read a path (some decode twice, some strip `;parameters`, some
//! merge slashes), therefore every spelling that any common server could read as the same resource gets one
//! identity here, and a spelling that two servers could read differently is refused.
//!
//! Rules of [`normalise`]:
//!
//! * the query is cut; duplicate and trailing slashes are removed; the case of letters is kept;
//! * percent-encoding is decoded once and written again in one way (RFC 3986 §2.1 and §6.2.2: upper-case hex, only
//!   where a path segment may not hold the byte itself), so `%75sers` and `users` are equal;
//! * `.` and `..` are resolved after decoding, and `..` at the root stays at the root (RFC 3986 §5.2.4);
//! * encoded slashes, backslashes, control characters, bytes that are no UTF-8, broken escapes, a second layer of
//!   encoding over one of those, and `;` directly behind nothing or dots are refused: see [`PathProblem`].
//!
//! The normalised path is an identity, and it is what was judged: a shell sends it upstream in place of the caller's
//! spelling (a trailing slash may be put back), so that no server behind it can read anything else.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

/// How many leading path segments make a family where the profile says nothing.
pub const FAMILY_SEGMENTS: usize = 3;

/// Segments longer than this count as identifiers: it bounds the size of a family's name, which callers choose.
pub(crate) const LONGEST_WORD: usize = 64;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Wraps `text` as it is.
            pub fn new(text: impl AsRef<str>) -> Self {
                Self(Arc::from(text.as_ref()))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// A resource family: the first three path segments by default (`/api/v2/users`).
    Family
}
name! {
    /// One organisation on an upstream.
    Tenant
}

/// Who a call is made as: one OAuth client of a tenant, a token whose client nobody here knows, or nobody.
///
/// It has a *name* for people, which is the configuration's own affair: one client may be called differently in two processes,
/// and two clients alike. And it has what the server counts by, as far as that is known ([`CredentialId::counted_as`]), which
/// is the same in every process. Neither is a secret.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CredentialId {
    name: Arc<str>,
    client: Option<Arc<str>>,
}

impl Family {
    /// The family that all malformed paths share, so that they can never borrow the quota of a real one.
    pub const MALFORMED: &'static str = "/{malformed}";

    /// The family of a request path (the query may be present): its first [`FAMILY_SEGMENTS`] segments.
    ///
    /// A path that [`normalise`] refuses belongs to [`Family::MALFORMED`]; use [`Family::with_segments`] to learn
    /// the reason.
    ///
    /// ```
    /// use tidegate_core::key::Family;
    ///
    /// let users = Family::of("/api/v2/users");
    /// assert_eq!(Family::of("/api/v2/users/7f0c7c0e-6b1c-4b7e-9f43-0a8b6a0b9f55?expand=skills"), users);
    /// assert_eq!(Family::of("/api//v2/groups/%2e%2e/us%65rs/"), users);
    /// assert_eq!(Family::of("/api/v2/groups%2F..%2Fusers").as_str(), Family::MALFORMED);
    /// ```
    pub fn of(path: &str) -> Self {
        Self::with_segments(path, FAMILY_SEGMENTS).unwrap_or_else(|_| Self::new(Self::MALFORMED))
    }

    /// The family made of the first `segments` segments of `path`.
    ///
    /// Identifiers never become part of a family, else every object would get gates of its own: a segment that
    /// is a UUID (with or without hyphens), all digits, or longer than 64 bytes reads `{id}`. Parameters behind a
    /// `;` are left out. With `segments` zero everything is one family, `/`.
    pub fn with_segments(path: &str, segments: usize) -> Result<Self, PathProblem> {
        let path = normalise(path)?;
        let mut name = String::with_capacity(path.len().min(segments.saturating_mul(LONGEST_WORD)));
        for segment in path.split('/').skip(1).take(segments) {
            let word = word(segment)?;
            name.push('/');
            name.push_str(if looks_like_an_id(word) { "{id}" } else { word });
        }
        if name.is_empty() {
            name.push('/');
        }
        Ok(Self(Arc::from(name)))
    }
}

impl CredentialId {
    /// What names of tokens begin with.
    const BEARER: &str = "bearer-";

    /// Somebody of whom no more is known than a name.
    pub fn new(name: impl AsRef<str>) -> Self {
        Self { name: Arc::from(name.as_ref()), client: None }
    }

    /// The same, known to be the OAuth client `client_id`.
    ///
    /// ```
    /// use tidegate_core::key::CredentialId;
    ///
    /// let [gateway, bulk] = ["login-5f1c", "reporting"].map(|name| CredentialId::new(name).of_client("7f0c7c0e"));
    /// assert_ne!(gateway.as_str(), bulk.as_str());
    /// assert_eq!(gateway.counted_as(), bulk.counted_as());
    /// assert_ne!(bulk.counted_as(), CredentialId::new("reporting").of_client("0a8b6a0b").counted_as());
    /// ```
    #[must_use]
    pub fn of_client(self, client_id: &str) -> Self {
        let digest = Sha256::digest(client_id.as_bytes());
        Self { client: Some(hex_after("client ", &digest[..16])), ..self }
    }

    /// The name, for people.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// Whose calls the server counts together, as far as that can be known: a digest of the client id; else of the token
    /// ([`CredentialId::of_bearer`]), because nothing in a token tells its client; else the name.
    pub fn counted_as(&self) -> &str {
        self.client.as_deref().unwrap_or(&self.name)
    }

    /// Its client is known.
    pub fn is_client(&self) -> bool {
        self.client.is_some()
    }

    /// It is one token, whose client is not known.
    pub fn is_bearer(&self) -> bool {
        !self.is_client() && self.name.starts_with(Self::BEARER)
    }

    /// The identity of a bearer token that is none of the configured credentials: `bearer-` and the first 128 bits
    /// of its SHA-256. Long enough that nobody can craft a token with the identity of another (caches are
    /// keyed by it), and says nothing about the token.
    pub fn of_bearer(token: &str) -> Self {
        let digest = Sha256::digest(token.as_bytes());
        Self { name: hex_after(Self::BEARER, &digest[..16]), client: None }
    }
}

impl fmt::Debug for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.name, f)
    }
}

impl fmt::Display for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

fn hex_after(prefix: &str, bytes: &[u8]) -> Arc<str> {
    let mut text = String::from(prefix);
    for byte in bytes {
        push_hex(&mut text, *byte, b"0123456789abcdef");
    }
    Arc::from(text)
}

/// Why a path has no identity. Requests with such a path are answered with 400 and never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathProblem {
    /// The target is not in origin form (RFC 9112 §3.2.1): absolute-form, `*` or empty.
    #[error("the path does not begin with a slash: send the target as /path?query")]
    NotRooted,
    /// A control character or white space, plain or percent-encoded.
    #[error("the path holds a control character or white space: percent-encode spaces, remove the rest")]
    Control,
    /// A fragment is never part of a request target.
    #[error("the path holds a fragment: cut the target at #, or write %23")]
    Fragment,
    /// `%2F`, `%5C` or a plain backslash: servers disagree on whether it separates segments.
    #[error("the path holds an encoded slash or a backslash, which servers read differently: use / alone")]
    Separator,
    /// A per cent sign without two hex digits behind it.
    #[error("the path holds a broken percent-escape: write a literal per cent sign as %25")]
    BrokenEscape,
    /// The decoded bytes are no UTF-8 (also the over-long forms that some servers read as `.` or `/`).
    #[error("the path's percent-escapes are no utf-8: encode text as utf-8 first")]
    NotUtf8,
    /// `%252e` and the like, and any doubly encoded character in the part that names a family: harmless to a server
    /// that decodes once, another path to one that decodes twice.
    #[error("the path hides characters behind two layers of encoding: encode once")]
    DoubleEncoding,
    /// `/..;x/` or `/;x/`: servers that strip parameters see another path than those that do not.
    #[error("the path has a segment of parameters alone (as in /..;a/): servers read it differently")]
    BareParameters,
}

/// The one spelling of `path` (the query may be present and is cut). Applying it twice changes nothing.
///
/// ```
/// use tidegate_core::key::{PathProblem, normalise};
///
/// assert_eq!(normalise("/api/v2//users/./%7Ekim/?pageSize=25").unwrap(), "/api/v2/users/~kim");
/// assert_eq!(normalise("/api/v2/a%2fb"), Err(PathProblem::Separator));
/// ```
pub fn normalise(path: &str) -> Result<Cow<'_, str>, PathProblem> {
    let path = path.split('?').next().unwrap_or_default();
    if !path.starts_with('/') {
        return Err(PathProblem::NotRooted);
    }
    if is_plain(path) {
        return Ok(Cow::Borrowed(path));
    }
    if path.contains('#') {
        return Err(PathProblem::Fragment);
    }
    if path.contains(char::is_whitespace) {
        return Err(PathProblem::Control);
    }
    let mut kept: Vec<String> = Vec::new();
    for raw in path.split('/') {
        let segment = decode(raw)?;
        check(&segment)?;
        match segment.as_ref() {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            word => kept.push(encode(word)),
        }
    }
    Ok(Cow::Owned(format!("/{}", kept.join("/"))))
}

/// Whether nothing is to be done: the common case, kept free of allocation.
fn is_plain(path: &str) -> bool {
    let mut before = 0;
    for &byte in path.as_bytes() {
        let word = is_path_byte(byte) && byte != b';' && !(byte == b'.' && before == b'/');
        if !(word || byte == b'/' && before != b'/') {
            return false;
        }
        before = byte;
    }
    path.len() == 1 || before != b'/'
}

/// Decodes the percent-escapes of one segment, once.
fn decode(segment: &str) -> Result<Cow<'_, str>, PathProblem> {
    if !segment.contains('%') {
        return Ok(Cow::Borrowed(segment));
    }
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let (byte, behind) = if byte == b'%' {
            let (value, behind) = escape(behind).ok_or(PathProblem::BrokenEscape)?;
            if value == b'/' {
                return Err(PathProblem::Separator);
            }
            (value, behind)
        } else {
            (byte, behind)
        };
        bytes.push(byte);
        rest = behind;
    }
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| PathProblem::NotUtf8)
}

/// The value of the two hex digits at the front of `text`, and what follows them.
fn escape(text: &[u8]) -> Option<(u8, &[u8])> {
    let (digits, behind) = text.split_at_checked(2)?;
    let high = char::from(digits[0]).to_digit(16)?;
    let low = char::from(digits[1]).to_digit(16)?;
    u8::try_from(high * 16 + low).ok().map(|value| (value, behind))
}

/// Refuses a decoded segment that servers could read in more than one way.
fn check(segment: &str) -> Result<(), PathProblem> {
    if segment.chars().any(char::is_control) {
        return Err(PathProblem::Control);
    }
    if segment.contains('\\') {
        return Err(PathProblem::Separator);
    }
    if hides_an_escape(segment.as_bytes()) {
        return Err(PathProblem::DoubleEncoding);
    }
    if let Some((word, _)) = segment.split_once(';')
        && matches!(word, "" | "." | "..")
    {
        return Err(PathProblem::BareParameters);
    }
    Ok(())
}

/// Whether decoding `segment` again, and its nested `%25` again, would uncover a dot, separator or control character.
fn hides_an_escape(segment: &[u8]) -> bool {
    let mut rest = segment;
    while let Some(at) = rest.iter().position(|&byte| byte == b'%') {
        rest = &rest[at + 1..];
        let mut inner = rest;
        while let Some((value, behind)) = escape(inner) {
            if value.is_ascii_control() || matches!(value, b'.' | b'/' | b'\\' | b';') {
                return true;
            }
            // A value of `%` begins another layer, spelled by the digits behind it.
            if value != b'%' {
                break;
            }
            inner = behind;
        }
    }
    false
}

/// What of a normalised segment can be part of a family's name: all but its parameters.
///
/// No resource is named with a per cent sign and two hex digits; a server that decodes twice would read `us%2565rs` as
/// `users`.
pub(crate) fn word(segment: &str) -> Result<&str, PathProblem> {
    if holds_a_second_escape(segment) {
        return Err(PathProblem::DoubleEncoding);
    }
    Ok(segment.split(';').next().unwrap_or_default())
}

/// Whether a normalised segment holds `%25` and two hex digits.
fn holds_a_second_escape(segment: &str) -> bool {
    segment.split("%25").skip(1).any(|behind| escape(behind.as_bytes()).is_some())
}

/// Writes a decoded segment in the one way that stands for it.
fn encode(segment: &str) -> String {
    let mut out = String::with_capacity(segment.len());
    for &byte in segment.as_bytes() {
        if is_path_byte(byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            push_hex(&mut out, byte, b"0123456789ABCDEF");
        }
    }
    out
}

/// `pchar` of RFC 3986 §3.3, without the escapes.
const fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')')
        || matches!(byte, b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@')
}

fn push_hex(out: &mut String, byte: u8, digits: &[u8; 16]) {
    out.push(char::from(digits[usize::from(byte >> 4)]));
    out.push(char::from(digits[usize::from(byte & 15)]));
}

pub(crate) fn looks_like_an_id(word: &str) -> bool {
    let bytes = word.as_bytes();
    let hyphens = |at: usize| matches!(at, 8 | 13 | 18 | 23);
    let uuid = bytes.len() == 36
        && bytes
            .iter()
            .enumerate()
            .all(|(at, b)| if hyphens(at) { *b == b'-' } else { b.is_ascii_hexdigit() });
    let bare_uuid = bytes.len() == 32 && bytes.iter().all(u8::is_ascii_hexdigit);
    let number = !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit);
    uuid || bare_uuid || number || bytes.len() > LONGEST_WORD
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_resource_is_one_family() {
        let spellings = [
            "/api/v2/users",
            "/api/v2/users/",
            "//api///v2/users//",
            "/api/v2/users?pageSize=1&x=/../..",
            "/api/v2/users/123/skills",
            "/api/./v2/users/.",
            "/api/v2/groups/../users",
            "/api/v2/groups/%2e%2E/users",
            "/api/v2/groups/.%2e/users",
            "/%61pi/v%32/%75%73%65%72%73",
            "/../../api/v2/users",
            "/api/v2/users;jsessionid=1",
            "/api/v2/users%3Bx",
        ];
        for spelling in spellings {
            assert_eq!(Family::of(spelling).as_str(), "/api/v2/users", "{spelling}");
        }
    }

    #[test]
    fn ambiguous_spellings_are_refused_with_their_reason() {
        let cases = [
            ("", PathProblem::NotRooted),
            ("*", PathProblem::NotRooted),
            ("https://api.example/x", PathProblem::NotRooted),
            ("?/api/v2/users", PathProblem::NotRooted),
            ("/a%2Fb", PathProblem::Separator),
            ("/a%2fb", PathProblem::Separator),
            ("/a%5cb", PathProblem::Separator),
            ("/a\\..\\b", PathProblem::Separator),
            ("/a%00", PathProblem::Control),
            ("/a\r\nHost: b", PathProblem::Control),
            ("/a\tb", PathProblem::Control),
            ("/a b", PathProblem::Control),
            ("/a%7f", PathProblem::Control),
            ("/a%C2%85", PathProblem::Control),
            ("/a#b", PathProblem::Fragment),
            ("/a%", PathProblem::BrokenEscape),
            ("/a%4", PathProblem::BrokenEscape),
            ("/a%zz", PathProblem::BrokenEscape),
            ("/a%+1", PathProblem::BrokenEscape),
            ("/a%u002e", PathProblem::BrokenEscape),
            ("/%c0%ae%c0%ae/b", PathProblem::NotUtf8),
            ("/%ff", PathProblem::NotUtf8),
            ("/%252e%252e/b", PathProblem::DoubleEncoding),
            ("/a%252fb", PathProblem::DoubleEncoding),
            ("/a%25252fb", PathProblem::DoubleEncoding),
            ("/%25%32%65%25%32%65/b", PathProblem::DoubleEncoding),
            ("/a/..;x/b", PathProblem::BareParameters),
            ("/a/..%3Bx/b", PathProblem::BareParameters),
            ("/a/%2e%2e;/b", PathProblem::BareParameters),
            ("/a/;x/b", PathProblem::BareParameters),
        ];
        for (path, problem) in cases {
            assert_eq!(normalise(path), Err(problem), "{path:?}");
            assert_eq!(Family::of(path).as_str(), Family::MALFORMED, "{path:?}");
        }
    }

    #[test]
    fn harmless_escapes_survive_in_one_spelling() {
        let cases = [
            ("/a/J%c3%bcrgen", "/a/J%C3%BCrgen"),
            ("/a/J\u{fc}rgen", "/a/J%C3%BCrgen"),
            ("/a/100%25", "/a/100%25"),
            ("/a/100%25ab", "/a/100%25ab"),
            ("/a/b%20c", "/a/b%20c"),
            ("/a/what%3fnow%23", "/a/what%3Fnow%23"),
            ("/a/kim%40example.com", "/a/kim@example.com"),
            ("/a/{id}", "/a/%7Bid%7D"),
            ("/a/x;v=1", "/a/x;v=1"),
            ("/a/...", "/a/..."),
            ("/", "/"),
            ("/..", "/"),
        ];
        for (path, expected) in cases {
            assert_eq!(normalise(path).unwrap(), expected, "{path:?}");
        }
    }

    #[test]
    fn case_is_kept_because_servers_may_tell_it_apart() {
        assert_ne!(Family::of("/api/v2/Users"), Family::of("/api/v2/users"));
    }

    #[test]
    fn ids_never_name_a_family() {
        let cases = [
            ("/users/7F0C7C0E-6b1c-4b7e-9f43-0a8b6a0b9f55/x", "/users/{id}/x"),
            ("/users/7f0c7c0e6b1c4b7e9f430a8b6a0b9f55", "/users/{id}"),
            ("/repos/42/issues/7", "/repos/{id}/issues"),
            ("/a/face/b", "/a/face/b"),
            ("/a/v2/b", "/a/v2/b"),
        ];
        for (path, family) in cases {
            assert_eq!(Family::of(path).as_str(), family);
        }
        let long = format!("/a/{}", "x".repeat(65));
        assert_eq!(Family::of(&long).as_str(), "/a/{id}");
    }

    #[test]
    fn a_caller_cannot_spell_the_placeholders() {
        assert_ne!(Family::of("/users/{id}"), Family::of("/users/42"));
        assert_ne!(Family::of("/{malformed}").as_str(), Family::MALFORMED);
    }

    #[test]
    fn a_family_cannot_be_spelled_for_a_server_that_decodes_twice() {
        for path in ["/api/v2/us%2565rs", "/api/v2/us%25%36%35rs", "/api/v2/%25%2537%35sers"] {
            assert_eq!(Family::of(path).as_str(), Family::MALFORMED, "{path}");
        }
        assert_eq!(Family::of("/api/v2/users/100%25ab").as_str(), "/api/v2/users", "names of objects may");
    }

    #[test]
    fn the_number_of_segments_is_the_profiles_choice() {
        let path = "/api/v2/users/42/skills";
        let names = |n| Family::with_segments(path, n).unwrap().as_str().to_owned();
        assert_eq!(names(0), "/");
        assert_eq!(names(1), "/api");
        assert_eq!(names(5), "/api/v2/users/{id}/skills");
        assert_eq!(names(usize::MAX), "/api/v2/users/{id}/skills");
    }

    #[test]
    fn a_bearer_is_known_by_its_hash_alone() {
        // The SHA-256 of "abc" is the first example of FIPS 180-4.
        let id = CredentialId::of_bearer("abc");
        assert_eq!(id.as_str(), "bearer-ba7816bf8f01cfea414140de5dae2223");
        assert_ne!(id, CredentialId::of_bearer("abd"));
    }
}
