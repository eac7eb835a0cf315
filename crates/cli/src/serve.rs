//! `tidegate serve`: the gateway.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tidegate::clock::Clock;
use tidegate::observe::{Observer, Traced};
use tidegate::state::StateFile;
use tidegate::transport::Connections;
use tidegate::{Class, Profile, UpstreamConfig};
use tidegate_gateway::{
    CallerConfig, GatewayConfig, KeepKeys, KeepState, PushConfig, RouteRule, StartError, TenantConfig,
    must_be_loopback,
};
use tidegate_store::ledger::Ledger;
use tidegate_store::outbox::OutboxFile;

use crate::args::ServeArgs;
use crate::environment::Environment;
use crate::failure::{Failure, all};
use crate::listen::{bind, could_bind};
use crate::output;
use crate::quota::look_at_store;
use crate::settings::{Profiles, Settings};
use crate::signals::interrupted;

/// Serves until it is told to stop, then drains.
pub(crate) async fn run(args: ServeArgs) -> Result<(), Failure> {
    let environment = Environment::of_process();
    let settings = Settings::load_all(&args.connection, &environment)?;
    let (data_addr, admin_addr) = settings.listen(args.listen, args.admin)?;
    let max_wait = settings.max_wait(args.max_wait)?;
    let keep = settings.keep_state(args.state_dir, &environment);
    let keep_keys = |port| settings.keep_keys(args.state.clone(), &environment, port);
    if args.check {
        let told = check(&settings, data_addr, admin_addr, &keep, &keep_keys(data_addr.port())).await?;
        output::data(&told);
        output::talk("the configuration is good");
        return Ok(());
    }
    let upstreams = upstreams(&settings)?;
    let push = push(&settings, &upstreams)?;
    let (callers, routes) = callers_and_routes(&settings, &upstreams)?;
    let merging = settings.merging(profiles_of(&upstreams))?;
    let store_is_away = match upstreams.first() {
        Some(upstream) => !look_at_store(upstream).await?,
        None => false,
    };
    let listeners = (bind(data_addr, "--listen").await?, bind(admin_addr, "--admin").await?);
    let port = listeners.0.local_addr().map_err(Failure::usage)?.port();
    let tenants: Vec<TenantConfig> = upstreams
        .into_iter()
        .map(|mut upstream| {
            if let Some(name) = &mut upstream.staggered_as {
                // Several gateways of one machine begin again one after the other.
                *name = format!("{name} {port}");
            }
            TenantConfig {
                state: state_for(&upstream.api, keep.clone()),
                keys: keys_for(&upstream.api, keys_of(&settings, keep_keys(port), upstream.tenant.as_str())),
                upstream,
            }
        })
        .collect();
    let to = match tenants.as_slice() {
        [only] => only.upstream.api.clone(),
        several => format!("{} tenants", several.len()),
    };
    let config = GatewayConfig {
        tenants_by_path: settings.serves_many(),
        callers,
        anonymous: settings.anonymous(),
        routes,
        doors: settings.doors(),
        fresh: settings.fresh(),
        cache: settings.cache(),
        merging,
        push,
        hooks: settings.hooks(),
        store_is_away,
        outbox: settings.outbox(),
        max_wait,
        ..GatewayConfig::of(tenants)
    };
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
    output::talk(&format!("forwarding to {to}; Ctrl-C drains and ends"));
    stop.await;
    output::talk("draining: no new connections, calls in flight are answered; Ctrl-C again ends at once");
    tokio::select! {
        () = gateway.drain() => Ok(()),
        () = interrupted() => Err(Failure::interrupted("ended with calls in flight")),
    }
}

/// The upstream of each tenant that is served; all their problems at once.
fn upstreams(settings: &Settings) -> Result<Vec<UpstreamConfig>, Failure> {
    let many = settings.serves_many();
    let (mut profiles, connections) = (Profiles::new(), Connections::new(Clock::start()));
    let each = settings.of_each()?;
    // Once for all that have nothing else: it is the profile's.
    let assumed: BTreeSet<String> = each.iter().filter_map(Settings::assumed_region).collect();
    for assumed in &assumed {
        output::talk(assumed);
    }
    let found = each.iter().map(|one| {
        let made = one.upstream_with(&mut profiles).and_then(|mut config| {
            // Trust in the web's certificates is not built anew for each.
            config.connections = Some(connections.clone());
            let usable = tidegate::Upstream::new(config.clone());
            usable.map(|_| config).map_err(|problems| bad_settings(&problems))
        });
        if many { made.map_err(|failure| failure.of(&format!("tenant `{}`", one.tenant()))) } else { made }
    });
    all(found)
}

fn callers_and_routes(
    settings: &Settings,
    upstreams: &[UpstreamConfig],
) -> Result<(Vec<CallerConfig>, Vec<RouteRule>), Failure> {
    let served: Vec<&str> = upstreams.iter().map(|upstream| upstream.tenant.as_str()).collect();
    settings.callers_and_routes(&served)
}

fn profiles_of(upstreams: &[UpstreamConfig]) -> impl Iterator<Item = &Profile> {
    upstreams.iter().map(|upstream| &*upstream.profile)
}

/// What each tenant wants of push; all that cannot be had at once.
fn push(settings: &Settings, upstreams: &[UpstreamConfig]) -> Result<Vec<(String, PushConfig)>, Failure> {
    let each = settings.of_each()?;
    let wanted = each.iter().zip(upstreams).map(|(one, upstream)| {
        let push = one.push();
        let name = upstream.tenant.as_str().to_owned();
        match push.possible(upstream) {
            Ok(()) => Ok((name, push)),
            Err(why) => Err(Failure::usage(format!("tenant `{name}`: push: {why}"))),
        }
    });
    all(wanted)
}

/// Where a tenant's keys are kept: of several each has a file of its own, beside where the only one's would be.
pub(crate) fn keys_of(settings: &Settings, keys: KeepKeys, tenant: &str) -> KeepKeys {
    if settings.tenant_names().next().is_none() {
        return keys;
    }
    let own = |path: PathBuf| {
        let kind = path.extension().map(|kind| format!(".{}", kind.to_string_lossy())).unwrap_or_default();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        path.with_file_name(format!("{stem}.{tenant}{kind}"))
    };
    match keys {
        KeepKeys::InMemory => KeepKeys::InMemory,
        KeepKeys::In(path) => KeepKeys::In(own(path)),
        KeepKeys::InOnceNeeded(path) => KeepKeys::InOnceNeeded(own(path)),
    }
}

/// Everything that would keep a gateway from starting, at once; or what it would serve. A gateway that runs already is none of it:
/// it has these ports and this folder.
async fn check(
    settings: &Settings,
    data: SocketAddr,
    admin: SocketAddr,
    keep: &KeepState,
    keys: &KeepKeys,
) -> Result<String, Failure> {
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
    if let Some(outbox) = settings.outbox() {
        found.push(OutboxFile::could_be_at(&outbox.path).map_err(Failure::usage));
    }
    let mut told = String::new();
    match upstreams(settings) {
        Err(failure) => found.push(Err(failure)),
        Ok(upstreams) => {
            if let Some(upstream) = upstreams.first() {
                found.push(look_at_store(upstream).await.map(drop));
            }
            found.push(push(settings, &upstreams).map(drop));
            match callers_and_routes(settings, &upstreams) {
                Ok((callers, _)) => told = effective(&upstreams, &callers),
                Err(failure) => found.push(Err(failure)),
            }
            found.push(settings.merging(profiles_of(&upstreams)).map(drop));
        }
    }
    all(found).map(|_| told)
}

/// What a gateway with this configuration serves, a line each.
fn effective(upstreams: &[UpstreamConfig], callers: &[CallerConfig]) -> String {
    let mut told = String::new();
    for upstream in upstreams {
        let UpstreamConfig { tenant, profile, api, credential, class_credentials, limits, .. } = upstream;
        let who = credential
            .as_ref()
            .map_or_else(|| "no credential".to_owned(), |(id, _)| format!("credential {id}"));
        let classes = Class::ALL.into_iter().zip(class_credentials);
        let classes: String = classes
            .filter_map(|(class, own)| own.as_ref().map(|(id, _)| format!(", {} as {id}", class.name())))
            .collect();
        let shared = if upstream.quota.is_some() { ", quota shared" } else { "" };
        writeln!(
            told,
            "tenant {tenant}: {api} by profile {}, {who}{classes}, {} limits of its own{shared}",
            profile.name,
            limits.len()
        )
        .expect("it is text");
    }
    for CallerConfig { name, tenant, classes, weight, .. } in callers {
        let tenant = tenant.as_deref().unwrap_or("that of calls without one");
        let classes: Vec<&str> = classes.iter().map(|class| class.name()).collect();
        writeln!(told, "caller {name}: tenant {tenant}, {}, weight {weight}", classes.join(" "))
            .expect("it is text");
    }
    told
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
