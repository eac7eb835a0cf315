//! What a request says about how old its answer may be (RFC 9111, section 5.2.1).

use std::time::Duration;

use http::{HeaderMap, header};

/// The directives of a request that a cache must heed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// The oldest answer it takes; zero is "ask the upstream".
    pub max_age: Option<Duration>,
    /// For how long the answer must still be fresh.
    pub min_fresh: Duration,
    /// Whether the answer must come from the upstream.
    pub no_cache: bool,
    /// Whether the answer must not be kept.
    pub no_store: bool,
    /// Whether it would rather have no answer than have the upstream asked.
    pub only_if_cached: bool,
}

impl Wants {
    /// Reads `Cache-Control`, and `Pragma` where there is none. What is not understood is left out: a malformed number
    /// counts as zero, the strictest reading.
    ///
    /// ```
    /// use http::{HeaderMap, HeaderValue, header};
    /// use tidegate_core::cache::Wants;
    ///
    /// let mut headers = HeaderMap::new();
    /// headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=3, no-transform"));
    /// assert_eq!(Wants::read(&headers).max_age, Some(std::time::Duration::from_secs(3)));
    /// ```
    pub fn read(headers: &HeaderMap) -> Self {
        let mut wants = Self::default();
        if !headers.contains_key(header::CACHE_CONTROL) {
            wants.no_cache =
                words(headers, &header::PRAGMA).any(|word| word.eq_ignore_ascii_case("no-cache"));
            return wants;
        }
        for word in words(headers, &header::CACHE_CONTROL) {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let seconds = || Duration::from_secs(value.trim().trim_matches('"').parse().unwrap_or(0));
            match name.trim().to_ascii_lowercase().as_str() {
                "no-cache" => wants.no_cache = true,
                "no-store" => wants.no_store = true,
                "only-if-cached" => wants.only_if_cached = true,
                "max-age" => wants.max_age = Some(wants.max_age.map_or(seconds(), |old| old.min(seconds()))),
                "min-fresh" => wants.min_fresh = seconds(),
                _ => {}
            }
        }
        wants
    }

    /// Whether only the upstream can answer.
    pub fn is_strict(&self) -> bool {
        self.no_cache || self.max_age == Some(Duration::ZERO)
    }

    /// Whether an answer of `age` does, which counts as fresh for `left` more.
    pub fn takes(&self, age: Duration, left: Duration) -> bool {
        !self.is_strict() && self.max_age.is_none_or(|max| age <= max) && left >= self.min_fresh
    }
}

fn words<'h>(headers: &'h HeaderMap, name: &header::HeaderName) -> impl Iterator<Item = &'h str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn wants(name: header::HeaderName, value: &'static str) -> Wants {
        Wants::read(&HeaderMap::from_iter([(name, HeaderValue::from_static(value))]))
    }

    #[test]
    fn a_number_nobody_can_read_is_the_strictest() {
        assert!(wants(header::CACHE_CONTROL, "max-age=soon").is_strict());
        assert!(wants(header::CACHE_CONTROL, "max-age=60, max-age=0").is_strict(), "of two the smaller");
    }

    #[test]
    fn pragma_counts_only_without_cache_control() {
        assert!(wants(header::PRAGMA, "no-cache").no_cache);
        let both = HeaderMap::from_iter([
            (header::PRAGMA, HeaderValue::from_static("no-cache")),
            (header::CACHE_CONTROL, HeaderValue::from_static("max-age=5")),
        ]);
        assert!(!Wants::read(&both).no_cache);
    }

    #[test]
    fn an_answer_older_than_asked_for_or_soon_stale_is_not_taken() {
        let secs = Duration::from_secs;
        let young = wants(header::CACHE_CONTROL, "Max-Age=3");
        assert!(young.takes(secs(3), secs(1)));
        assert!(!young.takes(secs(4), secs(1)));
        let lasting = wants(header::CACHE_CONTROL, "min-fresh=2");
        assert!(lasting.takes(secs(30), secs(2)));
        assert!(!lasting.takes(secs(1), secs(1)));
    }
}
