//! `tidegate serve`: the gateway.

use std::sync::Arc;

use tidegate::observe::{Observer, Traced};
use tidegate_gateway::{GatewayConfig, StartError};

use crate::args::ServeArgs;
use crate::failure::Failure;
use crate::listen::bind;
use crate::output;
use crate::settings::Settings;
use crate::signals::interrupted;

/// Serves until it is told to stop, then drains.
pub(crate) async fn run(args: ServeArgs) -> Result<(), Failure> {
    let settings = Settings::load(&args.connection, |name| std::env::var_os(name))?;
    let (data_addr, admin_addr) = settings.listen(args.listen, args.admin)?;
    let upstream = settings.upstream()?;
    let mut config = GatewayConfig::new(upstream);
    config.doors = settings.doors();
    config.max_wait = settings.max_wait(args.max_wait)?;
    config.state_dir = settings.state_dir(args.state_dir);
    let api = config.upstream.api.clone();
    if args.check {
        tidegate::Upstream::new(config.upstream).map_err(|problems| bad_settings(&problems))?;
        output::talk("the configuration is good");
        return Ok(());
    }
    let listeners = (bind(data_addr, "--listen").await?, bind(admin_addr, "--admin").await?);
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

fn bad_settings(problems: &[tidegate::ConfigError]) -> Failure {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    Failure::usage(lines.join("\n"))
}
