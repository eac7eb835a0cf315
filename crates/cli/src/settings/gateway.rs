//! What the settings say of the gateway itself: its doors, where it listens, what it keeps, how long it waits.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tidegate_core::cache::{Bounds, FreshRule};
use tidegate_gateway::{
    CallerConfig, DEFAULT_MAX_WAIT, DEFAULT_TENANT, Doors, KeepKeys, KeepState, RouteRule,
};

use super::Settings;
use super::keys::{
    ADMIN, ANONYMOUS, CACHE_ANSWER, CACHE_BYTES, HOSTS, Key, LISTEN, MAX_WAIT, ORIGINS, STATE_DIR,
    STATE_FILE, wait,
};
use crate::environment::Environment;
use crate::failure::Failure;

impl Settings {
    /// Who may talk to the gateway.
    pub(crate) fn doors(&self) -> Doors {
        let list = |key| {
            let listed = self.get(key).unwrap_or_default().split(',').map(str::trim);
            listed.filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
        };
        Doors { hosts: list(&HOSTS), origins: list(&ORIGINS) }
    }

    /// Where the gateway listens: its data port and its admin port.
    pub(crate) fn listen(
        &self,
        data: Option<SocketAddr>,
        admin: Option<SocketAddr>,
    ) -> Result<(SocketAddr, SocketAddr), Failure> {
        let addr = |flag: Option<SocketAddr>, key: &Key, default: &str| {
            let text = self.get(key).unwrap_or(default);
            flag.map_or_else(|| text.parse(), Ok)
                .map_err(|_| Failure::usage(format!("{}: `{text}` is not an address", key.name)))
        };
        Ok((addr(data, &LISTEN, "127.0.0.1:8787")?, addr(admin, &ADMIN, "127.0.0.1:8788")?))
    }

    /// Where the gateway's pacing is kept over restarts: where somebody said, else where the service manager or the session
    /// keeps what lasts no longer than the machine runs.
    pub(crate) fn keep_state(&self, flag: Option<PathBuf>, environment: &Environment) -> KeepState {
        if let Some(dir) = flag.or_else(|| self.get(&STATE_DIR).map(PathBuf::from)) {
            return if dir.as_os_str() == "off" { KeepState::Nowhere } else { KeepState::In(dir) };
        }
        // Of a service manager's folders the first is the unit's own.
        let managed = environment.get("STATE_DIRECTORY").ok().flatten();
        let managed = managed.as_deref().and_then(|dirs| dirs.split(':').next()).map(PathBuf::from);
        let session = environment.get("XDG_RUNTIME_DIR").ok().flatten();
        let session = session.map(|dir| PathBuf::from(dir).join("tidegate"));
        managed.or(session).map_or(KeepState::Nowhere, KeepState::InIfFree)
    }

    /// Where the gateway on `port` keeps what was written under `Idempotency-Key`s: where somebody said, else beside where
    /// it was started, once there is something to keep.
    pub(crate) fn keep_keys(&self, flag: Option<PathBuf>, environment: &Environment, port: u16) -> KeepKeys {
        if let Some(file) = flag.or_else(|| self.get(&STATE_FILE).map(PathBuf::from)) {
            return if file.as_os_str() == "off" { KeepKeys::InMemory } else { KeepKeys::In(file) };
        }
        let managed = environment.get("STATE_DIRECTORY").ok().flatten();
        let managed = managed.as_deref().and_then(|dirs| dirs.split(':').next()).map(PathBuf::from);
        KeepKeys::InOnceNeeded(managed.unwrap_or_default().join(format!("tidegate-{port}.db")))
    }

    /// Whether calls without a key are let in where callers have keys.
    pub(crate) fn anonymous(&self) -> bool {
        self.get(&ANONYMOUS) == Some("true")
    }

    /// Who has a key and what calls are, of a gateway that serves these tenants. Those of tenants that have tables and are not
    /// served are left out.
    ///
    /// # Errors
    /// Some are for a tenant that there is not.
    pub(crate) fn callers_and_routes(
        &self,
        served: &[&str],
    ) -> Result<(Vec<CallerConfig>, Vec<RouteRule>), Failure> {
        let has_table = |name: &str| self.tenant_names().any(|known| known == name);
        let is_served = |name: &str| served.contains(&name);
        let (mut callers, mut routes) = (self.callers.clone(), self.routes.clone());
        let of_callers = callers
            .iter()
            .filter_map(|caller| Some((format!("caller `{}`", caller.name), caller.tenant.as_deref()?)));
        let of_routes =
            routes.iter().filter_map(|rule| Some(("a [[route]]".to_owned(), rule.tenant.as_deref()?)));
        let unknown: Vec<String> = of_callers
            .chain(of_routes)
            .filter(|(_, name)| !is_served(name) && !has_table(name))
            .map(|(whose, name)| format!("{whose}: `{name}` is no tenant (there are: {})", served.join(", ")))
            .collect();
        if !unknown.is_empty() {
            return Err(Failure::usage(unknown.join("\n")));
        }
        // A caller without a tenant is the default one's, where there are several.
        let is_ours = |caller: &CallerConfig| match caller.tenant.as_deref() {
            Some(name) => is_served(name),
            None => self.tenant_names().next().is_none() || is_served(DEFAULT_TENANT),
        };
        callers.retain(is_ours);
        for rule in &mut routes {
            rule.tenant.take_if(|name| !is_served(name));
        }
        Ok((callers, routes))
    }

    /// How old answers to reads may be.
    pub(crate) fn fresh(&self) -> Vec<FreshRule> {
        self.fresh.clone()
    }

    /// How much of answers is kept.
    pub(crate) fn cache(&self) -> Bounds {
        let default = Bounds::default();
        let size =
            |key, default| self.number(key).and_then(|size| usize::try_from(size).ok()).unwrap_or(default);
        Bounds {
            bytes: size(&CACHE_BYTES, default.bytes),
            entry_bytes: size(&CACHE_ANSWER, default.entry_bytes),
            ..default
        }
    }

    /// The longest wait of a call through the gateway.
    pub(crate) fn max_wait(&self, flag: Option<Duration>) -> Result<Duration, Failure> {
        match (flag, self.get(&MAX_WAIT)) {
            (Some(max_wait), _) => Ok(max_wait),
            (None, None) => Ok(DEFAULT_MAX_WAIT),
            (None, Some(text)) => {
                wait(text).map_err(|why| Failure::usage(format!("{}: {why}", MAX_WAIT.name)))
            }
        }
    }
}
