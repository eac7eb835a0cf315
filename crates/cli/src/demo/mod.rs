//! `tidegate demo`: the same job by a naive retry client and by Tidegate, against the same simulated organisation.
//!
//! Everything runs in this process on free ports of this machine. The simulator starts afresh between the two runs and
//! judges both. The demo ends well only if Tidegate's side is perfect.

mod naive;
mod table;
#[cfg(test)]
mod tests;
mod world;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tidegate::observe::{Observer, Traced};
use tidegate::token::ClientCredentials;
use tidegate::{Client, Profile, UpstreamConfig};
use tidegate_bulk::execute::{Options, Progress, execute};
use tidegate_bulk::{Format, Recipe};
use tidegate_core::key::CredentialId;
use tidegate_gateway::{Gateway, GatewayConfig};
use tidegate_sim::Sim;
use tokio::sync::watch;
use tokio::time::Instant;

use self::naive::Tally;
use self::world::{CLIENT_ID, CLIENT_SECRET, Row, Skills};
use crate::args::DemoArgs;
use crate::bulk::input::Input;
use crate::bulk::link::Link;
use crate::failure::Failure;
use crate::output;
use crate::progress::{self, Line};
use crate::signals::interrupted;

/// How long the gateway of this process may be away: it is not.
const PATIENCE: Duration = Duration::from_secs(10);

/// Writes in flight at once, as `bulk run` has by default.
const CONCURRENCY: usize = 64;

/// How long the end waits for calls in flight, of which there should be none.
const GRACE: Duration = Duration::from_secs(2);

/// Runs the demo.
pub(crate) async fn run(args: DemoArgs) -> Result<(), Failure> {
    let (place, verdict) = tokio::select! {
        shown = show() => shown?,
        () = interrupted() => return Err(Failure::interrupted("the demo was interrupted")),
    };
    if args.keep {
        stay(&place, &verdict).await;
    }
    place.gateway.drain().await;
    place.sim.shutdown().await;
    verdict
}

/// What Tidegate's run leaves behind.
struct Place {
    sim: Sim,
    gateway: Gateway,
}

/// Runs both clients and prints the table. The verdict is an error if Tidegate's side was not perfect.
async fn show() -> Result<(Place, Result<(), Failure>), Failure> {
    let rows = world::rows(world::CSV)?;
    let sim = world::start(world::ORGANISATION).await?;
    let wanted = world::expected(&world::skills_of(sim.stats_with_users()), &rows);
    output::talk(&format!(
        "{} skills for {} agents, applied twice to a simulated organisation on {}:\n{}.\nNothing leaves this machine.\n",
        rows.len(),
        world::agents(&rows),
        sim.url(),
        world::RULES
    ));
    output::talk("1. A naive retry client: one PATCH per row, 40 workers, sleeps for Retry-After");
    let profile = profile()?;
    let naive = naive_run(&sim, &profile, rows, &wanted).await?;
    output::talk(&format!("   ended after {:.1} s\n", naive.took.as_secs_f64()));
    sim.reset("").map_err(Failure::internal)?;
    let gateway = start_gateway(&sim, &profile).await?;
    output::talk(&format!("2. Tidegate: one PATCH per agent, through the gateway on {}", url(&gateway)));
    let tidegate = tidegate_run(&sim, &gateway, profile, world::CSV, &wanted).await?;
    output::talk(&format!("   ended after {:.1} s\n", tidegate.took.as_secs_f64()));
    output::data(&table::render(&naive, &tidegate, output::width()));
    let verdict = conclude(&tidegate);
    Ok((Place { sim, gateway }, verdict))
}

fn profile() -> Result<Profile, Failure> {
    Profile::builtin(world::PROFILE)
        .ok_or_else(|| Failure::internal(format!("profile {} is not built in", world::PROFILE)))
}

async fn naive_run(
    sim: &Sim,
    profile: &Profile,
    rows: Vec<Row>,
    wanted: &Skills,
) -> Result<table::Result, Failure> {
    let tally = Arc::new(Tally::default());
    let writes = rows.len() as u64;
    let look = Arc::clone(&tally);
    let shown = Line::start("rows", writes, false, move || look.sample());
    let began = Instant::now();
    naive::apply(&sim.url(), &Arc::new(profile.clone()), rows, Arc::clone(&tally)).await?;
    let took = began.elapsed();
    shown.finish();
    let stats = sim.stats_with_users();
    let wrong = world::wrong_agents(wanted, &world::skills_of(stats.clone()));
    Ok(table::Result { took, writes, saw_429: tally.throttled(), lost: tally.lost(), wrong, stats })
}

async fn start_gateway(sim: &Sim, profile: &Profile) -> Result<Gateway, Failure> {
    let mut upstream = UpstreamConfig::new(Arc::new(profile.clone()), sim.url(), sim.url());
    let credentials = ClientCredentials::new(CLIENT_ID, &SecretString::from(CLIENT_SECRET));
    upstream.credential = Some((CredentialId::new("demo"), credentials));
    let mut config = GatewayConfig::new(upstream);
    config.grace = GRACE;
    let observers: Vec<Arc<dyn Observer>> = vec![Arc::new(Traced)];
    let (data, admin) = (world::free_port().await?, world::free_port().await?);
    tidegate_gateway::start(config, observers, data, admin).map_err(Failure::internal)
}

/// What `tidegate bulk run agent-skills.csv --recipe user-skills --via GATEWAY` does.
async fn tidegate_run(
    sim: &Sim,
    gateway: &Gateway,
    profile: Profile,
    csv: &str,
    wanted: &Skills,
) -> Result<table::Result, Failure> {
    let folder = tempfile::tempdir()
        .map_err(|error| Failure::internal(format!("cannot make a folder for the journal: {error}")))?;
    let link = Link::via(profile, &url(gateway))?;
    let began = Instant::now();
    let input = tokio::task::block_in_place(|| read_input(folder.path(), csv))?;
    let lookups = input.resolve(&Client::over(Arc::clone(&link.upstream))).await?;
    let path = folder.path().join("journal");
    let journal = tokio::task::block_in_place(|| input.plan(&lookups, &link.upstream, link.route(), &path))?;
    let journal = Arc::new(journal);
    let reader = journal.reader().map_err(Failure::internal)?;
    let writes = reader.counts().map_err(Failure::internal)?.total();
    let progress = Arc::new(Progress::default());
    let look = progress::of_run(0, &link.upstream, Arc::clone(&progress), Arc::clone(&link.watch));
    let shown = Line::start("agents", writes, false, look);
    let options = Options {
        spread: None,
        concurrency: CONCURRENCY,
        patience: PATIENCE,
        headers: link.headers,
        reconcile: None,
        jobs: None,
    };
    let (_stop, stopping) = watch::channel(false);
    let ended = execute(journal, link.upstream, options, &progress, stopping).await;
    let took = began.elapsed();
    shown.finish();
    if let Err(why) = ended {
        output::talk(&format!("   it stopped early: {why}"));
    }
    let counts = reader.counts().map_err(Failure::internal)?;
    let stats = sim.stats_with_users();
    let wrong = world::wrong_agents(wanted, &world::skills_of(stats.clone()));
    let lost = counts.total() - counts.ok;
    Ok(table::Result { took, writes, saw_429: link.watch.too_many(), lost, wrong, stats })
}

fn read_input(folder: &Path, csv: &str) -> Result<Input, Failure> {
    let path = folder.join("agent-skills.csv");
    world::write_csv(&path, csv)?;
    let recipe = Recipe::built_in("user-skills")
        .ok_or_else(|| Failure::internal("recipe user-skills is not built in"))?;
    Ok(Input::check(&path, Format::Csv, recipe)?.0)
}

fn url(gateway: &Gateway) -> String {
    format!("http://{}", gateway.data_addr())
}

/// Says in a sentence how Tidegate's side went; an error if it was not perfect.
fn conclude(tidegate: &table::Result) -> Result<(), Failure> {
    let faults = tidegate.faults();
    if faults.is_empty() {
        output::data("\nTidegate applied every row once, and saw no 429.\n");
        return Ok(());
    }
    Err(Failure::internal(format!("Tidegate's side is not as it should be: {}", faults.join(", "))))
}

/// Says what can be tried, and waits until the process is told to end.
async fn stay(place: &Place, verdict: &Result<(), Failure>) {
    if let Err(failure) = verdict {
        output::talk(&format!("\n{}", failure.message));
    }
    let (sim, gateway, admin) = (place.sim.url(), url(&place.gateway), place.gateway.admin_addr());
    output::talk(&format!(
        "\nStill running, until Ctrl-C:
  gateway    {gateway}  the API; callers on this machine need no token
  its admin  http://{admin}  /healthz /readyz /metrics /api/state
  simulator  {sim}  /sim/stats; client {CLIENT_ID}, secret {CLIENT_SECRET}
Try:
  curl -i '{gateway}/api/v2/users?pageSize=2'
  curl http://{admin}/api/state
  curl {sim}/sim/stats
  tidegate bulk run examples/agent-skills.csv --recipe user-skills \\
    --profile {} --via {gateway}",
        world::PROFILE
    ));
    interrupted().await;
}
