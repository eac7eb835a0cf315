//! On which headers of its request an answer says it depends (`Vary`, RFC 9111, section 4.1).
//!
//! Readers who share a [`CacheKey`](super::CacheKey) have all headers in common but those that describe the call, so only of these is noted
//! what the request had.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::key::selects;

/// What an answer depends on beside the key of its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Vary {
    /// On these headers, which its request had with these values.
    On(Box<[(HeaderName, Box<[HeaderValue]>)]>),
    /// On more than a cache can know (`*`).
    Any,
}

impl Vary {
    /// What an answer with the headers `answer` depends on, given to a request with the headers `asked`.
    pub(super) fn of(asked: &HeaderMap, answer: &HeaderMap) -> Self {
        let mut on = Vec::new();
        for value in answer.get_all(header::VARY) {
            // What cannot be read may name anything.
            let Ok(text) = value.to_str() else { return Self::Any };
            for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                let Ok(name) = name.parse::<HeaderName>() else { return Self::Any };
                if name == "*" {
                    return Self::Any;
                }
                // All readers mean the same upstream, by whatever name of the gateway; other names are the same by the key.
                if name != header::HOST && !selects(&name) && on.iter().all(|(known, _)| *known != name) {
                    let values = asked.get_all(&name).iter().cloned().collect();
                    on.push((name, values));
                }
            }
        }
        Self::On(on.into())
    }

    /// Whether the answer is one to a request with the headers `asked` too.
    pub(super) fn fits(&self, asked: &HeaderMap) -> bool {
        match self {
            Self::On(names) => {
                names.iter().all(|(name, values)| asked.get_all(name).iter().eq(values.iter()))
            }
            Self::Any => false,
        }
    }

    /// Whether it depends on the user agent: the one header of these of which there are few values, each with many readers.
    pub(super) fn names_agent(&self) -> bool {
        matches!(self, Self::On(names) if names.iter().any(|(name, _)| *name == header::USER_AGENT))
    }

    /// What it takes to keep this, in bytes.
    pub(super) fn size(&self) -> usize {
        let Self::On(names) = self else { return 0 };
        let size = |(name, values): &(HeaderName, Box<[HeaderValue]>)| {
            name.as_str().len() + values.iter().map(HeaderValue::len).sum::<usize>()
        };
        names.iter().map(size).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn an_answer_fits_who_sent_the_same_of_what_it_names() {
        let bot = headers(&[("user-agent", "bot"), ("x-request-id", "1")]);
        let vary = Vary::of(&bot, &headers(&[("vary", "Accept, User-Agent")]));
        assert!(vary.fits(&headers(&[("user-agent", "bot"), ("x-request-id", "2")])));
        assert!(!vary.fits(&headers(&[("user-agent", "phone")])));
        assert!(!vary.fits(&headers(&[])));
        assert!(!vary.fits(&headers(&[("user-agent", "bot"), ("user-agent", "bot")])), "one more is another");
    }

    #[test]
    fn every_line_of_it_counts() {
        let bot = headers(&[("user-agent", "bot")]);
        let vary = Vary::of(&bot, &headers(&[("vary", "Accept"), ("vary", "user-agent")]));
        assert!(!vary.fits(&headers(&[])));
        assert!(!Vary::of(&bot, &headers(&[("vary", "Accept"), ("vary", " * ")])).fits(&bot));
        assert!(!Vary::of(&bot, &headers(&[("vary", "Accept, a b")])).fits(&bot), "a name nobody can read");
    }

    #[test]
    fn the_gateways_own_name_is_of_no_account() {
        let vary = Vary::of(&headers(&[("host", "localhost")]), &headers(&[("vary", "Host")]));
        assert!(vary.fits(&headers(&[("host", "127.0.0.1")])));
    }
}
