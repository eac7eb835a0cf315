//! `tidegate quota`, and what other commands do about a shared quota before their first call.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tidegate::share::{BankKey, SharedQuota, Store, StoreError};
use tidegate_core::share::{LimitView, stagger};

use crate::args::{OutputFormat, QuotaCommand, QuotaShowArgs};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::output;
use crate::settings::{Settings, Stagger, unusable};

/// A gateway that is started waits so long to hear that its store cannot be used; one that is away may come back.
const LOOK: Duration = Duration::from_millis(500);

pub(crate) async fn run(command: QuotaCommand) -> Result<(), Failure> {
    match command {
        QuotaCommand::Show(args) => show(args).await,
    }
}

/// Refuses a store that will not answer before somebody changes something. One that is away is no reason not to start.
pub(crate) async fn refuse_unusable(store: &Arc<dyn Store>) -> Result<(), Failure> {
    match tokio::time::timeout(LOOK, store.check()).await {
        Ok(Err(error @ (StoreError::Unusable { .. } | StoreError::Unanswered(_)))) => Err(unusable(&error)),
        _ => Ok(()),
    }
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
        "the quota is shared with {others} other{}: starting in {:.1} s (quota.stagger)",
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
    available: i64,
    out: u32,
    instances: u32,
    paused_for_ms: u64,
    epoch: u64,
    generation: u64,
}

impl From<LimitView> for Shown {
    fn from(view: LimitView) -> Self {
        let LimitView { name, quota, available, out, holders, paused_for, epoch, generation } = view;
        Self {
            limit: name,
            quota,
            available,
            out,
            instances: holders,
            paused_for_ms: paused_for,
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
    let bank = BankKey::of(config.api.trim_end_matches('/'), config.tenant.as_str());
    let told = |error: StoreError| match error {
        StoreError::Away { .. } => Failure::upstream(error),
        _ => unusable(&error),
    };
    let about = quota.store.check().await.map_err(told)?;
    let limits: Vec<Shown> =
        quota.store.view(bank).await.map_err(told)?.into_iter().map(Shown::from).collect();
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

fn table(store: &str, bank: BankKey, limits: &[Shown]) -> String {
    let mut text = Vec::new();
    let mut line =
        |words: std::fmt::Arguments<'_>| writeln!(text, "{words}").expect("memory takes everything");
    line(format_args!("{store}, bank {bank}"));
    if limits.is_empty() {
        line(format_args!("no limit is shared there now: nobody has used it of late"));
    } else {
        let width = limits.iter().map(|limit| limit.limit.chars().count()).max().unwrap_or_default().max(5);
        let heads = ["quota", "available", "out", "instances", "paused"];
        let [quota, available, out, instances, paused] = heads;
        line(format_args!(
            "{:width$} {quota:>7} {available:>9} {out:>6} {instances:>9} {paused:>8}",
            "limit"
        ));
        for limit in limits {
            let quota = limit.quota.map_or_else(|| "-".to_owned(), |quota| quota.to_string());
            let paused = match limit.paused_for_ms {
                0 => "-".to_owned(),
                ms => format!("{:.1} s", Duration::from_millis(ms).as_secs_f64()),
            };
            line(format_args!(
                "{:width$} {quota:>7} {:>9} {:>6} {:>9} {paused:>8}",
                limit.limit, limit.available, limit.out, limit.instances
            ));
        }
    }
    String::from_utf8_lossy(&text).into_owned()
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
            epoch: 4,
            generation: 2,
        };
        let unknown = LimitView { name: "users".to_owned(), quota: None, paused_for: 0, ..view.clone() };
        let bank = BankKey([0; 12]);
        let text = table("redis 7.0.15 at localhost:6379", bank, &[view.into(), unknown.into()]);
        assert_eq!(
            text,
            "redis 7.0.15 at localhost:6379, bank 000000000000000000000000\n\
             limit          quota available    out instances   paused\n\
             routing.rate     300       120     30         8    1.5 s\n\
             users              -       120     30         8        -\n"
        );
        assert!(table("x", bank, &[]).contains("no limit is shared there now"));
    }
}
