//! Where the server is and who we are.

use std::time::Duration;

use secrecy::SecretString;

/// How to reach a server. Secrets in it are not shown by `Debug`; a URL with a password in it is shown without.
#[derive(Clone)]
pub struct RedisConfig {
    /// `redis://HOST[:PORT][/DATABASE]`, `rediss://` with TLS, `redis+cluster://HOST[:PORT],HOST…` and
    /// `rediss+cluster://` for a cluster. `USER:PASSWORD@` may stand before the host.
    pub url: String,
    /// The ACL user, instead of one in the URL.
    pub user: Option<String>,
    /// The password, instead of one in the URL.
    pub password: Option<SecretString>,
    /// Certificates of the authorities that are trusted instead of the system's, as PEM.
    pub ca: Option<Vec<u8>>,
    /// Before every key: letters, digits and `-_./:`.
    pub prefix: String,
    /// For how long an answer is waited for.
    pub timeout: Duration,
}

impl RedisConfig {
    /// Before every key, unless something else is said.
    pub const PREFIX: &str = "tidegate";
    /// For how long an answer is waited for, unless something else is said.
    pub const TIMEOUT: Duration = Duration::from_millis(50);

    /// A server with the usual prefix and time-out.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            user: None,
            password: None,
            ca: None,
            prefix: Self::PREFIX.to_owned(),
            timeout: Self::TIMEOUT,
        }
    }
}

impl std::fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let url = self.url.rsplit_once('@').map_or(self.url.as_str(), |(_, after)| after);
        f.debug_struct("RedisConfig").field("url", &url).field("prefix", &self.prefix).finish_non_exhaustive()
    }
}
