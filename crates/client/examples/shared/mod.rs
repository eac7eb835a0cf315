//! Where the examples find their API: at `TIDEGATE_API`, or in a simulator of their own.

use tidegate::body::BoxError;
use tidegate::{Client, ClientBuilder, Profile};
use tidegate_sim::{Sim, SimConfig};

/// The API an example runs against, for as long as it is held.
pub(crate) struct Api {
    url: String,
    login: String,
    profile: &'static str,
    id: String,
    secret: String,
    sim: Option<Sim>,
}

impl Api {
    /// The API at `TIDEGATE_API` (with `TIDEGATE_LOGIN`, `GENESYSCLOUD_OAUTHCLIENT_ID` and
    /// `GENESYSCLOUD_OAUTHCLIENT_SECRET`); where that is not set, a simulator set up by `toml`.
    pub(crate) async fn from_env_or_simulated(toml: &str) -> Result<Self, BoxError> {
        if let Ok(url) = std::env::var("TIDEGATE_API") {
            return Ok(Self {
                login: std::env::var("TIDEGATE_LOGIN").unwrap_or_else(|_| url.clone()),
                url,
                profile: "genesys",
                id: std::env::var("GENESYSCLOUD_OAUTHCLIENT_ID")?,
                secret: std::env::var("GENESYSCLOUD_OAUTHCLIENT_SECRET")?,
                sim: None,
            });
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let sim = tidegate_sim::serve(listener, SimConfig::from_toml(toml)?).await?;
        Ok(Self {
            url: sim.url(),
            login: sim.url(),
            profile: "genesys-guide",
            id: "demo-client".to_owned(),
            secret: "demo-secret".to_owned(),
            sim: Some(sim),
        })
    }

    /// A client for it, not built yet.
    pub(crate) fn client(&self) -> ClientBuilder {
        let profile = Profile::builtin(self.profile).expect("ships with the crate");
        Client::builder(profile, &self.url, &self.login).credential("example", &self.id, &self.secret)
    }

    /// Ends the simulator, if it is one, and tells how many calls it throttled.
    pub(crate) async fn finish(self) -> Option<u64> {
        let sim = self.sim?;
        let throttled = sim.stats().throttled;
        sim.shutdown().await;
        Some(throttled)
    }
}
