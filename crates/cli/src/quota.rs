//! `tidegate quota`, and what other commands do about a shared quota before their first call.

use std::io::Write as _;
use std::time::Duration;

use serde::Serialize;
use tidegate::UpstreamConfig;
use tidegate::share::{BankKey, OnStoreLoss, ShareConfig, SharedQuota, StoreError};
use tidegate_core::share::{LimitView, stagger};

use crate::args::{OutputFormat, QuotaCommand, QuotaInitArgs, QuotaShowArgs};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::output;
use crate::settings::{Settings, Stagger, unusable};

/// A gateway that is started waits so long to hear how its store is: a moment longer than a connection may take to be made. A
/// store that is waited for longer is given as many times its patience.
const LOOK: Duration = Duration::from_millis(1_200);
const LOOKS: u32 = 6;

/// Who asks a person's question waits longer.
pub(crate) const SHOW: Duration = Duration::from_secs(3);

pub(crate) async fn run(command: QuotaCommand) -> Result<(), Failure> {
    match command {
        QuotaCommand::Show(args) => show(args).await,
        QuotaCommand::Init(args) => init(args).await,
    }
}

/// Looks at the store before a gateway needs it. Refuses one that will not answer before somebody changes something: in itself, or
/// in what is kept there for this upstream (another program's key, the state of another version). One that is away is no reason
/// not to start: it is told, with what that means. Nothing is changed.
pub(crate) async fn look_at_store(config: &UpstreamConfig) -> Result<(), Failure> {
    let Some(quota) = &config.quota else { return Ok(()) };
    match quota.look(bank_of(config), LOOK.max(LOOKS * quota.store.patience())).await {
        Ok(_) => Ok(()),
        Err(error @ StoreError::Away { .. }) => {
            tracing::warn!(target: "tidegate", "quota.store: {error}; until it answers, {}", without(&quota.config));
            Ok(())
        }
        Err(error) => Err(unusable(&error)),
    }
}

/// What a process does that has not met the store yet.
fn without(config: &ShareConfig) -> String {
    match config.on_store_loss {
        OnStoreLoss::Share => format!(
            "this process keeps to its part of the quota, one of quota.max_instances ({}) unless it knows the others from an earlier \
             run: set that to the number of your processes",
            config.max_instances
        ),
        OnStoreLoss::Closed => "nothing leaves (quota.on_store_loss is closed)".to_owned(),
        OnStoreLoss::Open => {
            "this process goes on as if there were no others (quota.on_store_loss is open)".to_owned()
        }
    }
}

/// Who the upstream is in the store.
fn bank_of(config: &UpstreamConfig) -> BankKey {
    BankKey::of(&config.api, config.tenant.as_str())
}

/// Waits for a chance of its own before the first call, where other processes share the quota: those that a schedule
/// starts together would otherwise send their first calls together. Ctrl-C ends the program, which has sent nothing yet.
pub(crate) async fn wait_for_a_start(
    quota: &SharedQuota,
    bank: BankKey,
    spread: Option<Stagger>,
) -> Result<(), Failure> {
    let others = match quota.hello(bank).await {
        Ok(instances) => instances.saturating_sub(1),
        Err(error @ (StoreError::Unusable { .. } | StoreError::Unanswered(_))) => {
            return Err(unusable(&error));
        }
        Err(error @ StoreError::Away { .. }) => {
            tracing::warn!(target: "tidegate", "{error}; going on without it until it is back");
            return Ok(());
        }
    };
    let Some(Stagger { least, most }) = spread.filter(|_| others > 0) else { return Ok(()) };
    let wait = stagger(&mut fastrand::Rng::new(), least, most);
    output::talk(&format!(
        "{others} other{} used this quota of late: starting in {:.1} s (quota.stagger)",
        if others == 1 { "" } else { "s" },
        wait.as_secs_f64()
    ));
    tokio::time::sleep(wait).await;
    Ok(())
}

/// One limit as it is shown.
#[derive(Debug, Serialize)]
struct Shown {
    limit: String,
    quota: Option<u32>,
    available: Option<i64>,
    out: u32,
    instances: u32,
    paused_for_ms: u64,
    held_for_ms: u64,
    epoch: u64,
    generation: u64,
}

impl From<LimitView> for Shown {
    fn from(view: LimitView) -> Self {
        let LimitView { name, quota, available, out, holders, paused_for, held_for, epoch, generation } =
            view;
        Self {
            limit: name,
            quota,
            // Of what has no quota yet, scouts alone leave, and no number of permits is there.
            available: quota.map(|_| available),
            out,
            instances: holders,
            paused_for_ms: paused_for,
            held_for_ms: held_for,
            epoch,
            generation,
        }
    }
}

async fn show(args: QuotaShowArgs) -> Result<(), Failure> {
    let settings = Settings::load(&args.connection, &Environment::of_process())?;
    let config = settings.upstream()?;
    let Some(quota) = &config.quota else {
        return Err(Failure::usage("the quota is this process's alone: set quota.store to share it"));
    };
    let bank = bank_of(&config);
    let (about, limits) = quota.look(bank, SHOW).await.map_err(told)?;
    let limits: Vec<Shown> = limits.into_iter().map(Shown::from).collect();
    let text = match args.format {
        OutputFormat::Json => {
            let body = serde_json::json!({ "store": about.what, "bank": bank.to_string(), "limits": limits });
            format!("{}\n", serde_json::to_string_pretty(&body).expect("texts serialise"))
        }
        OutputFormat::Text => table(&about.what, bank, &limits),
    };
    output::data(&text);
    Ok(())
}

/// One that is away, or one that cannot be used.
fn told(error: StoreError) -> Failure {
    match error {
        StoreError::Away { .. } => Failure::upstream(error),
        _ => unusable(&error),
    }
}

/// Makes what a store needs before it can be used. Redis needs nothing.
async fn init(args: QuotaInitArgs) -> Result<(), Failure> {
    let settings = Settings::load(&args.connection, &Environment::of_process())?;
    if let Some(steps) = create(&settings, args.dry_run).await? {
        for step in steps {
            output::data(&format!("{step}\n"));
        }
        return Ok(());
    }
    if settings.shares() {
        output::data("this store needs nothing to be created\n");
        return Ok(());
    }
    Err(Failure::usage("the quota is this process's alone: set quota.store to share it"))
}

/// What was done, or would be, to the table that the settings name; `None`: they name none.
#[cfg(feature = "dynamodb")]
async fn create(settings: &Settings, dry_run: bool) -> Result<Option<Vec<String>>, Failure> {
    match settings.table()? {
        Some(table) => table.init(dry_run).await.map(Some).map_err(told),
        None => Ok(None),
    }
}

/// No table can be named.
#[cfg(not(feature = "dynamodb"))]
fn create(_settings: &Settings, _dry_run: bool) -> std::future::Ready<Result<Option<Vec<String>>, Failure>> {
    std::future::ready(Ok(None))
}

fn table(store: &str, bank: BankKey, limits: &[Shown]) -> String {
    let mut text = Vec::new();
    let mut line =
        |words: std::fmt::Arguments<'_>| writeln!(text, "{words}").expect("memory takes everything");
    line(format_args!("{store}, bank {bank}"));
    if limits.is_empty() {
        line(format_args!("no limit is shared there now: nobody has used it of late"));
    } else {
        let width = limits.iter().map(|limit| limit.limit.chars().count()).max().unwrap_or_default().max(5);
        line(format_args!(
            "{:width$} {:>7} {:>9} {:>6} {:>9} {:>8} {:>8} {:>10}",
            "limit", "quota", "available", "out", "instances", "held", "paused", "generation"
        ));
        for limit in limits {
            let quota = limit.quota.map_or_else(|| "-".to_owned(), |quota| quota.to_string());
            let available = limit.available.map_or_else(|| "-".to_owned(), |available| available.to_string());
            line(format_args!(
                "{:width$} {quota:>7} {available:>9} {:>6} {:>9} {:>8} {:>8} {:>10}",
                limit.limit,
                limit.out,
                limit.instances,
                seconds(limit.held_for_ms),
                seconds(limit.paused_for_ms),
                limit.generation
            ));
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// A time, if there is any.
fn seconds(ms: u64) -> String {
    match ms {
        0 => "-".to_owned(),
        ms => format!("{:.1} s", Duration::from_millis(ms).as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_is_shown_in_columns() {
        let view = LimitView {
            name: "routing.rate".to_owned(),
            quota: Some(300),
            available: 120,
            out: 30,
            holders: 8,
            paused_for: 1_500,
            held_for: 6_120,
            epoch: 4,
            generation: 2,
        };
        let unknown = LimitView {
            name: "users".to_owned(),
            quota: None,
            available: 1_000_000,
            paused_for: 0,
            held_for: 0,
            ..view.clone()
        };
        let bank = BankKey([0; 12]);
        let text = table("redis 7.0.15 at localhost:6379", bank, &[view.into(), unknown.into()]);
        assert_eq!(
            text,
            "redis 7.0.15 at localhost:6379, bank 000000000000000000000000\n\
             limit          quota available    out instances     held   paused generation\n\
             routing.rate     300       120     30         8    6.1 s    1.5 s          2\n\
             users              -         -     30         8        -        -          2\n"
        );
        assert!(table("x", bank, &[]).contains("no limit is shared there now"));
    }
}
