//! `tidegate serve`: the gateway.

use std::net::SocketAddr;
use std::sync::Arc;

use tidegate::observe::{Observer, Traced};
use tidegate::state::StateFile;
use tidegate_gateway::{GatewayConfig, KeepKeys, KeepState, StartError, must_be_loopback};
use tidegate_store::ledger::Ledger;

use crate::args::ServeArgs;
use crate::environment::Environment;
use crate::failure::{Failure, all};
use crate::listen::{bind, could_bind};
use crate::output;
use crate::quota::look_at_store;
use crate::settings::Settings;
use crate::signals::interrupted;

/// Serves until it is told to stop, then drains.
pub(crate) async fn run(args: ServeArgs) -> Result<(), Failure> {
    let environment = Environment::of_process();
    let settings = Settings::load(&args.connection, &environment)?;
    if let Some(assumed) = settings.assumed_region() {
        output::talk(&assumed);
    }
    let (data_addr, admin_addr) = settings.listen(args.listen, args.admin)?;
    let max_wait = settings.max_wait(args.max_wait)?;
    let keep = settings.keep_state(args.state_dir, &environment);
    let keep_keys = |port| settings.keep_keys(args.state.clone(), &environment, port);
    if args.check {
        check(&settings, data_addr, admin_addr, &keep, &keep_keys(data_addr.port())).await?;
        output::talk("the configuration is good");
        return Ok(());
    }
    let mut config = GatewayConfig::new(settings.upstream()?);
    config.store_is_away = !look_at_store(&config.upstream).await?;
    config.doors = settings.doors();
    config.max_wait = max_wait;
    let api = config.upstream.api.clone();
    config.state = state_for(&api, keep);
    let listeners = (bind(data_addr, "--listen").await?, bind(admin_addr, "--admin").await?);
    let port = listeners.0.local_addr().map_err(Failure::usage)?.port();
    config.keys = keys_for(&api, keep_keys(port));
    let observers: Vec<Arc<dyn Observer>> = vec![Arc::new(Traced)];
    let gateway =
        tidegate_gateway::start(config, observers, listeners.0, listeners.1).map_err(
            |error| match error {
                StartError::Config(problems) => bad_settings(&problems),
                error => Failure::usage(error),
            },
        )?;
    let stop = interrupted();
    output::data(&format!("listening on http://{}\n", gateway.data_addr()));
    output::data(&format!("admin on http://{}\n", gateway.admin_addr()));
    output::talk(&format!("forwarding to {api}; Ctrl-C drains and ends"));
    stop.await;
    output::talk("draining: no new connections, calls in flight are answered; Ctrl-C again ends at once");
    tokio::select! {
        () = gateway.drain() => Ok(()),
        () = interrupted() => Err(Failure::interrupted("ended with calls in flight")),
    }
}

/// Everything that would keep a gateway from starting, at once. A gateway that runs already is none of it: it has these
/// ports and this folder.
async fn check(
    settings: &Settings,
    data: SocketAddr,
    admin: SocketAddr,
    keep: &KeepState,
    keys: &KeepKeys,
) -> Result<(), Failure> {
    let mut found = Vec::new();
    for (port, flag, addr) in [("the data port", "--listen", data), ("the admin port", "--admin", admin)] {
        found.push(match must_be_loopback(port, addr) {
            Ok(()) => could_bind(addr, flag).await,
            Err(error) => Err(Failure::usage(error)),
        });
    }
    if data == admin && data.port() != 0 {
        found.push(Err(Failure::usage(format!("--listen and --admin are both {data} (give each its own)"))));
    }
    if let KeepState::In(dir) = keep {
        found.push(StateFile::could_be_in(dir).map_err(Failure::usage));
    }
    if let KeepKeys::In(file) = keys {
        found.push(Ledger::could_be_at(file).map_err(Failure::usage));
    }
    match settings.upstream() {
        Err(failure) => found.push(Err(failure)),
        Ok(config) => {
            found.push(look_at_store(&config).await.map(drop));
            found.push(tidegate::Upstream::new(config).map(drop).map_err(|problems| bad_settings(&problems)));
        }
    }
    all(found).map(drop)
}

/// Where the pacing of the upstream at `api` is kept. Nowhere unless somebody named a place, if it is on this machine: a
/// simulator, which is started again as often, and then knows of nothing.
pub(crate) fn state_for(api: &str, keep: KeepState) -> KeepState {
    match keep {
        KeepState::InIfFree(_) if is_here(api) => KeepState::Nowhere,
        keep => keep,
    }
}

/// Where keys of the upstream at `api` are kept, likewise.
pub(crate) fn keys_for(api: &str, keys: KeepKeys) -> KeepKeys {
    match keys {
        KeepKeys::InOnceNeeded(_) if is_here(api) => KeepKeys::InMemory,
        keys => keys,
    }
}

/// Whether a base URL names this machine.
fn is_here(api: &str) -> bool {
    let rest = api.split_once("://").map_or(api, |(_, rest)| rest);
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    let host = if host.starts_with('[') { host } else { host.split(':').next().unwrap_or_default() };
    host == "localhost" || host.starts_with("127.") || host.starts_with("[::1]")
}

fn bad_settings(problems: &[tidegate::ConfigError]) -> Failure {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    Failure::usage(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simulator_on_this_machine_is_told_from_an_upstream() {
        for here in ["http://127.0.0.1:8790", "http://localhost:1", "http://[::1]:80/", "http://localhost"] {
            assert!(is_here(here), "{here}");
        }
        for away in ["https://api.mypurecloud.de", "https://localhost.example.com", "http://10.0.0.1:80"] {
            assert!(!is_here(away), "{away}");
        }
    }
}
