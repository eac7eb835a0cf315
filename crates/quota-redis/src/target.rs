//! How a connection is made: to one server or to a cluster, with or without TLS.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, ErrorKind, FromRedisValue, IntoConnectionInfo,
    RedisConnectionInfo, RedisError, RedisResult, TlsCertificates,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use secrecy::ExposeSecret;
use tidegate_quota::StoreError;

use crate::config::RedisConfig;

/// Where connections are made to.
pub(crate) struct Target {
    name: String,
    tls: bool,
    way: Way,
}

enum Way {
    Single(Box<Client>),
    Cluster(Box<ClusterClient>),
}

/// An open connection. Clones share it.
#[derive(Clone)]
pub(crate) enum Wire {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Wire {
    /// Sends one command and waits for its answer.
    pub(crate) async fn query<T: FromRedisValue>(&mut self, command: &Cmd) -> RedisResult<T> {
        match self {
            Self::Single(connection) => command.query_async(connection).await,
            Self::Cluster(connection) => command.query_async(connection).await,
        }
    }

    /// Waits for an answer that says nothing.
    pub(crate) async fn ping(&mut self) -> RedisResult<()> {
        self.query(&redis::cmd("PING")).await
    }
}

impl Target {
    /// Longest that a connection may take to be made, with TLS, the password and a first answer.
    pub(crate) const CONNECT: Duration = Duration::from_secs(1);

    pub(crate) fn new(config: &RedisConfig) -> Result<Self, StoreError> {
        // The library takes the process's provider; a program that has chosen one before keeps it.
        if rustls::crypto::CryptoProvider::get_default().is_none()
            && rustls::crypto::aws_lc_rs::default_provider().install_default().is_err()
        {
            tracing::debug!("another thread chose the provider of TLS meanwhile");
        }
        let address = Address::parse(&config.url)?;
        let name = address.name();
        if let Some(ca) = &config.ca
            && CertificateDer::pem_slice_iter(ca).flatten().next().is_none()
        {
            let why = "the file of trusted authorities has no certificate";
            return Err(unusable(&name, why, "quota.ca_file is in PEM form: -----BEGIN CERTIFICATE-----"));
        }
        let way = address.way(config).map_err(|error| unusable(&name, why(&error), URL_HINT))?;
        Ok(Self { name, tls: address.is_tls(), way })
    }

    /// Whether connections are encrypted.
    pub(crate) fn is_tls(&self) -> bool {
        self.tls
    }

    /// For people: never with a password.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Makes a connection that is known to answer.
    pub(crate) async fn connect(&self) -> RedisResult<Wire> {
        let mut wire = match &self.way {
            Way::Single(client) => {
                // Each caller has its own patience.
                let config =
                    AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
                match client.get_multiplexed_async_connection_with_config(&config).await {
                    Ok(connection) => Wire::Single(connection),
                    Err(error) if error.kind() == ErrorKind::AuthenticationFailed => {
                        return Err(refused_login(client, &config).await.unwrap_or(error));
                    }
                    Err(error) => return Err(error),
                }
            }
            Way::Cluster(client) => Wire::Cluster(client.get_async_connection().await?),
        };
        wire.ping().await?;
        Ok(wire)
    }
}

/// What the server says to a login. The library keeps that to itself, so it is asked once more, by hand.
async fn refused_login(client: &Client, config: &AsyncConnectionConfig) -> Option<RedisError> {
    let info = client.get_connection_info();
    let login = info.redis_settings();
    let mut auth = redis::cmd("AUTH");
    if let Some(user) = login.username() {
        auth.arg(user);
    }
    auth.arg(login.password()?);
    let nobody = RedisConnectionInfo::default().set_skip_set_lib_name();
    let bare = Client::open(info.clone().set_redis_settings(nobody)).ok()?;
    let mut connection = bare.get_multiplexed_async_connection_with_config(config).await.ok()?;
    auth.query_async::<()>(&mut connection).await.err()
}

/// A URL, taken apart.
struct Address<'a> {
    scheme: &'a str,
    login: &'a str,
    hosts: Vec<&'a str>,
    database: &'a str,
}

const SCHEMES: [&str; 4] = ["redis", "rediss", "redis+cluster", "rediss+cluster"];
const URL_HINT: &str =
    "quota.store is redis://HOST:PORT/DATABASE, rediss:// with TLS, or redis+cluster://HOST,HOST";

impl<'a> Address<'a> {
    fn parse(url: &'a str) -> Result<Self, StoreError> {
        let bad = |why: &str| unusable("redis", why, URL_HINT);
        let (scheme, rest) = url.split_once("://").ok_or_else(|| bad("the address is no URL"))?;
        if !SCHEMES.contains(&scheme) {
            return Err(bad("the address has an unknown scheme"));
        }
        let (login, rest) = rest.rsplit_once('@').map_or(("", rest), |(login, rest)| (login, rest));
        let (hosts, database) = rest.split_once('/').unwrap_or((rest, ""));
        let hosts: Vec<&str> = hosts.split(',').collect();
        if hosts.iter().any(|host| host.is_empty()) {
            return Err(bad("the address has no host"));
        }
        let this = Self { scheme, login, hosts, database };
        if !this.is_cluster() && this.hosts.len() > 1 {
            return Err(bad("several hosts are a cluster"));
        }
        if this.is_cluster() && !this.database.is_empty() {
            return Err(bad("a cluster has no databases"));
        }
        if database.contains(['?', '#']) || database.parse::<u32>().is_err() && !database.is_empty() {
            return Err(bad("what follows the host is not a database's number"));
        }
        Ok(this)
    }

    fn is_cluster(&self) -> bool {
        self.scheme.ends_with("+cluster")
    }

    fn is_tls(&self) -> bool {
        self.scheme.starts_with("rediss")
    }

    fn name(&self) -> String {
        let hosts = self.hosts.join(",");
        let database = if self.database.is_empty() { "" } else { "/" };
        let kind = if self.is_cluster() { "redis cluster" } else { "redis" };
        format!("{kind} at {hosts}{database}{}", self.database)
    }

    /// What the library connects to, one per host.
    fn infos(&self, config: &RedisConfig) -> RedisResult<Vec<ConnectionInfo>> {
        let scheme = if self.is_tls() { "rediss" } else { "redis" };
        let at = if self.login.is_empty() { "" } else { "@" };
        let info = |host: &&str| {
            let url = format!("{scheme}://{}{at}{host}/{}", self.login, self.database);
            let info = url.into_connection_info()?;
            // Who we are is of no use to the server and would need a permission more.
            let mut settings = info.redis_settings().clone().set_skip_set_lib_name();
            if let Some(user) = &config.user {
                settings = settings.set_username(user);
            }
            if let Some(password) = &config.password {
                settings = settings.set_password(password.expose_secret());
            }
            Ok(info.set_redis_settings(settings))
        };
        self.hosts.iter().map(info).collect()
    }

    fn way(&self, config: &RedisConfig) -> RedisResult<Way> {
        let mut infos = self.infos(config)?;
        let certificates = TlsCertificates { client_tls: None, root_cert: config.ca.clone() };
        if self.is_cluster() {
            let mut builder = ClusterClient::builder(infos)
                .connection_timeout(Target::CONNECT)
                .response_timeout(Target::CONNECT)
                .retries(2);
            if self.is_tls() && config.ca.is_some() {
                builder = builder.certs(certificates);
            }
            return Ok(Way::Cluster(Box::new(builder.build()?)));
        }
        let info = infos.remove(0);
        let client = if self.is_tls() && config.ca.is_some() {
            Client::build_with_tls(info, certificates)?
        } else {
            Client::open(info)?
        };
        Ok(Way::Single(Box::new(client)))
    }
}

fn unusable(store: &str, why: impl Into<String>, hint: &str) -> StoreError {
    StoreError::Unusable { store: store.to_owned(), why: why.into(), hint: hint.to_owned() }
}

fn why(error: &RedisError) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(url: &str) -> Result<String, String> {
        let target = Target::new(&RedisConfig::new(url)).map_err(|error| error.to_string())?;
        Ok(target.name().to_owned())
    }

    #[test]
    fn every_form_of_address_is_understood_and_no_password_is_shown() {
        for (url, expected) in [
            ("redis://127.0.0.1", "redis at 127.0.0.1"),
            ("redis://127.0.0.1:7000/3", "redis at 127.0.0.1:7000/3"),
            ("rediss://quota:s3cret@cache.example.com:6380", "redis at cache.example.com:6380"),
            ("redis://:s3cret@[::1]:6379", "redis at [::1]:6379"),
            ("redis+cluster://quota:s3cret@a:1,b:2", "redis cluster at a:1,b:2"),
            ("rediss+cluster://a.example.com", "redis cluster at a.example.com"),
        ] {
            assert_eq!(name(url).as_deref(), Ok(expected), "{url}");
        }
        let shown = format!("{:?}", RedisConfig::new("redis://u:s3cret@h"));
        assert!(!shown.contains("s3cret"), "{shown}");
    }

    #[test]
    fn an_address_that_is_none_says_what_one_looks_like() {
        for url in [
            "127.0.0.1:6379",
            "http://127.0.0.1",
            "redis://",
            "redis://a,b",
            "redis+cluster://a/1",
            "redis://a/one",
            "redis://a/1?b=c",
            "redis://a:port",
        ] {
            let problem = name(url).unwrap_err();
            assert!(problem.contains("quota.store is redis://"), "{url}: {problem}");
        }
    }
}
