//! What the settings say of the gateway itself: its doors, where it listens, what it keeps, how long it waits.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tidegate_gateway::{DEFAULT_MAX_WAIT, Doors, KeepKeys, KeepState};

use super::Settings;
use super::keys::{ADMIN, HOSTS, Key, LISTEN, MAX_WAIT, ORIGINS, STATE_DIR, STATE_FILE, wait};
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
