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
/// not to start: it is told, with what that means, and false is returned. Nothing is changed.
pub(crate) async fn look_at_store(config: &UpstreamConfig) -> Result<bool, Failure> {
    let Some(quota) = &config.quota else { return Ok(true) };
    match quota.look(bank_of(config), LOOK.max(LOOKS * quota.store.patience())).await {
        Ok(_) => Ok(true),
        Err(error @ StoreError::Away { .. }) => {
            tracing::warn!(target: "tidegate", "quota.store: {error}; until it answers, {}", without(&quota.config));
            Ok(false)
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
    /// Whose calls it counts, in the words of `/api/state`; empty: everybody's.
    partition: String,
    quota: Option<u32>,
    available: Option<i64>,
    out: u32,
    instances: u32,
    paused_for_ms: u64,
    held_for_ms: u64,
    epoch: u64,
    generation: u64,
    /// What configurations say of it, where they differ.
    differs: Option<Differs>,
}

/// One limit in two configurations.
#[derive(Debug, Serialize)]
struct Differs {
    /// What holds for all.
    holds: String,
    /// What another one declares.
    declared: String,
}

impl From<LimitView> for Shown {
    fn from(view: LimitView) -> Self {
        let LimitView { name, partition, quota, differs, available, out, holders, .. } = view;
        let LimitView { paused_for, held_for, epoch, generation, .. } = view;
        Self {
            limit: name,
            partition,
            quota,
            // Of what has no quota yet, scouts alone leave, and no number of permits is there.
            available: quota.map(|_| available),
            out,
            instances: holders,
            paused_for_ms: paused_for,
            held_for_ms: held_for,
            epoch,
            generation,
            differs: differs.map(|(holds, declared)| Differs {
                holds: holds.to_string(),
                declared: declared.to_string(),
            }),
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
    let limits = quota.read(bank, SHOW).await.map_err(told)?;
    let store = quota.store.name();
    let limits: Vec<Shown> = limits.into_iter().map(Shown::from).collect();
    let text = match args.format {
        OutputFormat::Json => {
            let body = serde_json::json!({ "store": store, "bank": bank.to_string(), "limits": limits });
            format!("{}\n", serde_json::to_string_pretty(&body).expect("texts serialise"))
        }
        OutputFormat::Text => {
            let own = config.credential.as_ref().map(|(name, login)| {
                let counted = name.clone().of_client(login.client_id());
                (counted.counted_as().to_owned(), name.to_string())
            });
            table(store, bank, &limits, own.as_ref())
        }
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

/// `own`: what the store calls the client of this configuration, and what this configuration calls it.
fn table(store: &str, bank: BankKey, limits: &[Shown], own: Option<&(String, String)>) -> String {
    let mut text = Vec::new();
    let mut line =
        |words: std::fmt::Arguments<'_>| writeln!(text, "{words}").expect("memory takes everything");
    line(format_args!("{store}, bank {bank}"));
    if limits.is_empty() {
        line(format_args!("no limit is shared there now: nobody has used it of late"));
        return String::from_utf8_lossy(&text).into_owned();
    }
    let whose: Vec<String> = limits.iter().map(|limit| whose(&limit.partition, own)).collect();
    let widest = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or_default();
    let width = widest(&mut limits.iter().map(|limit| limit.limit.chars().count())).max(5);
    let wide = widest(&mut whose.iter().map(|whose| whose.chars().count())).max(10);
    line(format_args!(
        "{:width$} {:wide$} {:>7} {:>9} {:>6} {:>9} {:>8} {:>8} {:>10}",
        "limit", "counts for", "quota", "available", "out", "instances", "held", "paused", "generation"
    ));
    for (limit, whose) in limits.iter().zip(whose) {
        let quota = limit.quota.map_or_else(|| "-".to_owned(), |quota| quota.to_string());
        let available =
            limit.available.map_or_else(|| "-".to_owned(), |available| available.max(0).to_string());
        line(format_args!(
            "{:width$} {whose:wide$} {quota:>7} {available:>9} {:>6} {:>9} {:>8} {:>8} {:>10}",
            limit.limit,
            limit.out,
            limit.instances,
            seconds(limit.held_for_ms),
            seconds(limit.paused_for_ms),
            limit.generation
        ));
    }
    for limit in limits {
        if let Some(over) = limit.available.filter(|&available| available < 0) {
            line(format_args!(
                "limit {}: {} more were sent or granted than are known to be there; nothing leaves until so many have come back",
                limit.limit,
                over.unsigned_abs()
            ));
        }
        if let Some(Differs { holds, declared }) = &limit.differs {
            line(format_args!(
                "limit {}: {holds} holds for all, another process's configuration says {declared}",
                limit.limit
            ));
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Whose calls a limit counts, in a column's width: this configuration's own client by its name, others by the beginning of
/// their digest, which tells two apart.
fn whose(partition: &str, own: Option<&(String, String)>) -> String {
    const DIGITS: usize = 12;
    let mut shown = match own {
        Some((counted, name)) => partition.replace(counted.as_str(), name),
        None => partition.to_owned(),
    };
    for before in ["credential=client ", "credential=bearer-"] {
        if let Some(rest) = shown.strip_prefix(before) {
            let digest = rest.split(' ').next().unwrap_or_default();
            let cut = digest.char_indices().nth(DIGITS).map_or(digest.len(), |(at, _)| at);
            shown = format!("{before}{}{}", &digest[..cut], &rest[digest.len()..]);
            break;
        }
    }
    if shown.is_empty() { "all".to_owned() } else { shown }
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
    use tidegate_core::key::CredentialId;
    use tidegate_core::share::Kind;

    use super::*;

    #[test]
    fn what_is_shared_is_shown_in_columns() {
        let rate = |quota| Kind::Rate { quota, window: 60_000, told: false };
        let (own, other) =
            (CredentialId::new("x").of_client("own"), CredentialId::new("x").of_client("other"));
        let view = LimitView {
            name: "routing.rate".to_owned(),
            partition: format!("credential={}", own.counted_as()),
            quota: Some(300),
            differs: Some((rate(300), rate(3_000))),
            available: 120,
            out: 30,
            holders: 8,
            paused_for: 1_500,
            held_for: 6_120,
            epoch: 4,
            generation: 2,
        };
        let theirs = LimitView {
            partition: format!("credential={} family=/api/v2/users", other.counted_as()),
            differs: None,
            ..view.clone()
        };
        let over = LimitView { name: "org".to_owned(), available: -428, ..theirs.clone() };
        let unknown = LimitView {
            name: "users".to_owned(),
            partition: String::new(),
            quota: None,
            available: 1_000_000,
            paused_for: 0,
            held_for: 0,
            ..theirs.clone()
        };
        let bank = BankKey([0; 12]);
        let name = (own.counted_as().to_owned(), "reporting".to_owned());
        let shown = [view.into(), theirs.into(), unknown.into(), over.into()];
        let text = table("redis 7.0.15 at localhost:6379", bank, &shown, Some(&name));
        assert_eq!(
            text,
            "redis 7.0.15 at localhost:6379, bank 000000000000000000000000\n\
             limit        counts for                                            quota available    out instances     held   paused generation\n\
             routing.rate credential=reporting                                    300       120     30         8    6.1 s    1.5 s          2\n\
             routing.rate credential=client d9298a10d1b0 family=/api/v2/users     300       120     30         8    6.1 s    1.5 s          2\n\
             users        all                                                       -         -     30         8        -        -          2\n\
             org          credential=client d9298a10d1b0 family=/api/v2/users     300         0     30         8    6.1 s    1.5 s          2\n\
             limit routing.rate: 300 per 60 s holds for all, another process's configuration says 3000 per 60 s\n\
             limit org: 428 more were sent or granted than are known to be there; nothing leaves until so many have come back\n"
        );
        assert!(table("x", bank, &[], None).contains("no limit is shared there now"));
        let json = serde_json::to_value(&shown[1]).unwrap();
        assert_eq!(json["partition"], format!("credential={} family=/api/v2/users", other.counted_as()));
        let differs = serde_json::json!({ "holds": "300 per 60 s", "declared": "3000 per 60 s" });
        assert_eq!(serde_json::to_value(&shown[0]).unwrap()["differs"], differs);
    }
}
