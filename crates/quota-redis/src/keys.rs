//! Names of keys. The bank's text in braces is their hash tag, so all keys of a bank lie in one slot of a cluster
//! (<https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags>).

use tidegate_core::share::{BankKey, Exchange, LimitKey};
use tidegate_quota::Name;

/// The keys of one bank.
pub(crate) struct Keys {
    stem: String,
}

impl Keys {
    pub(crate) fn new(prefix: &str, bank: BankKey) -> Self {
        Self { stem: format!("{prefix}:{{{bank}}}") }
    }

    /// Protocol, life and time of the state, its limits, doors.
    pub(crate) fn bank(&self) -> String {
        format!("{}:b", self.stem)
    }

    /// What an exchange over these limits touches, each once, with its type: the bank, the last answer to each holder, when
    /// each spoke, what of the bank ends when, and for each limit its state and when each holder spoke of it.
    pub(crate) fn of<'a>(
        &self,
        limits: impl IntoIterator<Item = &'a LimitKey>,
    ) -> Vec<(String, &'static str)> {
        let stem = &self.stem;
        let mut keys = vec![
            (self.bank(), "hash"),
            (format!("{stem}:r"), "hash"),
            (format!("{stem}:a"), "zset"),
            (format!("{stem}:e"), "zset"),
        ];
        let mut met = Vec::new();
        for limit in limits {
            if !met.contains(&limit) {
                met.push(limit);
                keys.push((format!("{stem}:l:{limit}"), "hash"));
                keys.push((format!("{stem}:z:{limit}"), "zset"));
            }
        }
        keys
    }

    pub(crate) fn of_exchange(&self, said: &Exchange) -> Vec<(String, &'static str)> {
        self.of(said.limits.iter().map(|side| &side.key))
    }

    /// A lock and the value under it.
    pub(crate) fn slot(prefix: &str, name: &Name) -> String {
        format!("{}:k:{}", Self::new(prefix, name.bank).stem, name.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_of_a_bank_have_its_text_for_their_tag() {
        let bank = BankKey([0xab; 12]);
        let limits = [LimitKey([1; 8]), LimitKey([2; 8]), LimitKey([1; 8])];
        let mut keys: Vec<String> =
            Keys::new("t", bank).of(&limits).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys.len(), 4 + 2 * 2, "each limit once");
        keys.push(Keys::slot("t", &Name { bank, what: "token/reporting".to_owned() }));
        for key in keys {
            assert!(key.starts_with("t:{abababababababababababab}:"), "{key}");
        }
    }
}
