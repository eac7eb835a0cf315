//! `tidegate sim`: the simulator as a server of its own.

use serde_json::{Map, Value};
use tidegate_sim::{Scenario, SimConfig};

use crate::args::SimArgs;
use crate::failure::Failure;
use crate::listen::bind;
use crate::output;
use crate::signals::interrupted;

/// Runs the simulator until it is interrupted.
pub(crate) async fn run(args: SimArgs) -> Result<(), Failure> {
    let config = configure(&args)?;
    if args.print {
        let text = toml::to_string_pretty(&config).map_err(Failure::internal)?;
        output::data(&text);
        return Ok(());
    }
    let listener = bind(args.listen, "--listen").await?;
    let sim = tidegate_sim::serve(listener, config).await.map_err(Failure::usage)?;
    let stop = interrupted();
    output::data(&format!("listening on {}\n", sim.url()));
    output::talk(
        "client id demo-client, secret demo-secret; GET /sim/stats tells what happened; Ctrl-C ends it",
    );
    stop.await;
    sim.shutdown().await;
    Ok(())
}

/// The scenario, with the flags laid over it.
fn configure(args: &SimArgs) -> Result<SimConfig, Failure> {
    let base = match &args.scenario {
        None => SimConfig::default(),
        Some(file) => {
            let text = std::fs::read_to_string(file)
                .map_err(|error| Failure::usage(format!("cannot read {}: {error}", file.display())))?;
            let scenario = Scenario::from_toml(&text)
                .map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?;
            scenario.server
        }
    };
    let overrides = overrides(args)?;
    let json = serde_json::to_vec(&overrides).map_err(Failure::internal)?;
    base.overridden(&json).map_err(Failure::usage)
}

fn overrides(args: &SimArgs) -> Result<Value, Failure> {
    let mut tree = Map::new();
    let texts = [
        ("rule", &args.rule),
        ("window", &args.window),
        ("headers", &args.headers),
        ("reset", &args.reset),
        ("retry_after", &args.retry_after),
        ("oauth.token_ttl", &args.token_ttl),
        ("latency", &args.latency),
        ("dedup", &args.dedup),
    ];
    for (key, value) in texts {
        if let Some(value) = value {
            insert(&mut tree, key, Value::from(value.as_str()));
        }
    }
    for (key, value) in [("limit", args.limit), ("users", args.users)] {
        if let Some(value) = value {
            insert(&mut tree, key, Value::from(value));
        }
    }
    if let Some(seed) = args.seed {
        insert(&mut tree, "seed", Value::from(seed));
    }
    for setting in &args.set {
        let Some((key, value)) = setting.split_once('=') else {
            return Err(Failure::usage(format!(
                "--set {setting}: expected KEY=VALUE, such as --set limit=60"
            )));
        };
        if value.trim_start().starts_with(['[', '{']) && serde_json::from_str::<Value>(value).is_err() {
            return Err(Failure::usage(format!(
                "--set {setting}: is no JSON (a list or a table goes into a scenario file, --scenario FILE; here it is written like {}=[{{\"rate\": 1}}])",
                key.trim()
            )));
        }
        // What is no JSON is text: quotes around every word would be a nuisance in a shell.
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        insert(&mut tree, key.trim(), value);
    }
    Ok(Value::Object(tree))
}

/// Puts `value` at the dotted `key`.
fn insert(tree: &mut Map<String, Value>, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            tree.insert(key.to_owned(), value);
        }
        Some((section, rest)) => {
            let section = tree.entry(section).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(section) = section {
                insert(section, rest, value);
            }
        }
    }
}
