//! Settings of what moves by itself, and of how it is told.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::text::{Spread, duration};

/// Notifications channels. The defaults are the platform's published numbers, except the last two, which it does not tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NotificationConfig {
    /// Life of a channel from its creation, or from when its topics were last put.
    #[serde(with = "duration")]
    pub ttl: Duration,
    /// Channels one client may have.
    pub max_channels: u32,
    /// Topics one channel may have.
    pub max_topics: u32,
    /// Time between heartbeats on a socket.
    #[serde(with = "duration")]
    pub heartbeat: Duration,
    /// How long before a socket closes `v2.system.socket_closing` is sent.
    #[serde(with = "duration")]
    pub closing_notice: Duration,
    /// Where `connectUri` points, such as `ws://127.0.0.1:9000`; the simulator itself if absent.
    pub connect: Option<String>,
}

impl Default for NotificationConfig {
    fn default() -> Self {
        Self {
            ttl: Duration::from_hours(24),
            max_channels: 20,
            max_topics: 1000,
            heartbeat: Duration::from_secs(30),
            closing_notice: Duration::from_secs(30),
            connect: None,
        }
    }
}

impl NotificationConfig {
    /// Everything that is out of bounds, one line each.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (key, value) in [("ttl", self.ttl), ("heartbeat", self.heartbeat)] {
            // Shorter ones would keep the bookkeeping of a long silence busy for long.
            if value < Duration::from_millis(10) {
                problems.push(format!("notifications.{key}: below 10ms"));
            }
        }
        if let Some(connect) =
            self.connect.as_ref().filter(|to| !to.starts_with("ws://") && !to.starts_with("wss://"))
        {
            problems.push(format!(
                "notifications.connect: \"{connect}\" is not an address like ws://127.0.0.1:9000"
            ));
        }
        for (key, value) in [("max_channels", self.max_channels), ("max_topics", self.max_topics)] {
            if value == 0 {
                problems.push(format!("notifications.{key}: 0 is below 1"));
            }
        }
        problems
    }
}

/// What changes without anybody calling.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LiveConfig {
    /// How many conversations there are. The n-th from 1 is `30000000-0000-4000-8000-` and n in 12 hex digits.
    pub conversations: u32,
    /// How long a conversation stays in each state; if absent it does not change by itself.
    pub dwell: Option<Spread>,
    /// How long a user keeps a presence; if absent it does not change by itself.
    pub presence_dwell: Option<Spread>,
}

impl Default for LiveConfig {
    fn default() -> Self {
        Self { conversations: 12, dwell: None, presence_dwell: None }
    }
}

impl LiveConfig {
    /// Everything that is out of bounds, one line each.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (key, value) in [("dwell", self.dwell), ("presence_dwell", self.presence_dwell)] {
            // Shorter ones would keep the bookkeeping of an idle hour busy for long.
            if value.is_some_and(|value| value.min < Duration::from_millis(10)) {
                problems.push(format!("live.{key}: below 10ms"));
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use crate::SimConfig;

    #[test]
    fn every_bound_is_checked_at_once() {
        let toml = "[live]\ndwell = \"1ms\"\npresence_dwell = \"0s\"\n\
            [notifications]\nttl = \"0s\"\nheartbeat = \"1ms\"\nmax_channels = 0\nmax_topics = 0\nconnect = \"http://x\"\n\
            [[webhooks]]\nurl = \"https://x\"\n\
            [faults.push]\ndrop = 2.0\nscript = [\"replay\"]\n[faults.hooks]\nstale = -1.0\n";
        let text = SimConfig::from_toml(toml).unwrap_err().to_string();
        // A drop of 2 is no probability, and the sum is above 1; the webhook's address is not http and it has no secret.
        assert!(text.starts_with("13 problems in the configuration:"), "{text}");
        let unknown =
            SimConfig::from_toml("[notifications]\nlife = \"1d\"\n[[webhooks]]\nkey = \"x\"\n").unwrap_err();
        for part in ["notifications.life: unknown", "webhooks[0].key: unknown"] {
            assert!(unknown.to_string().contains(part), "{unknown}");
        }
    }

    #[test]
    fn what_is_set_reads_back() {
        let toml = "[live]\ndwell = \"1s..2s\"\n[[webhooks]]\nurl = \"http://x/h\"\nsecret = \"s\"\nscheme = \"github\"\n\
            [[events]]\nat = \"1s\"\n[events.faults.push]\nsockets = \"closing\"\nscript = [\"drop\", \"reorder\"]\n";
        let config = SimConfig::from_toml(toml).unwrap();
        assert_eq!(config.overridden(b"").unwrap(), config);
        assert_eq!(SimConfig::from_toml(&toml::to_string(&config).unwrap()).unwrap(), config);
    }
}
