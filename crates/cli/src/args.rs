//! The command line. Flags win over the environment, the environment over `tidegate.toml`, that over defaults.

#![expect(clippy::doc_markdown, reason = "these comments are the text of --help, where backticks are noise")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tidegate::Class;
use tidegate_core::outlook::Outlook;

const EXIT_CODES: &str = "\
Exit codes:
    0  done
    1  some items failed
    2  usage or configuration
    3  the outcome of some items is unknown
    4  the upstream refused, or cannot be reached
    5  internal error
  130  interrupted; can be resumed";

/// Use a quota-limited API at the full speed its quota allows, and never faster.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, after_help = EXIT_CODES, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Say more: -v state changes, -vv every call.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the local gateway: point a program's base URL at it, change nothing else.
    Serve(ServeArgs),
    /// Apply a file of writes, once each.
    #[command(subcommand)]
    Bulk(BulkCommand),
    /// Read a whole listing at quota speed into a file, one JSON object per line.
    Export(ExportArgs),
    /// Find out whether this machine, this credential and this upstream work together.
    Doctor(DoctorArgs),
    /// Run the simulator, to develop and test against instead of a real organisation.
    Sim(SimArgs),
    /// Tell when a job will be finished, with the windows of the calendar in it. Nothing is sent.
    Plan(PlanArgs),
    /// Play scenarios, several strategies side by side, in virtual time or (with --sockets) in real time.
    #[command(subcommand)]
    Lab(LabCommand),
    /// See it work on this machine: simulator, gateway, and a 500-agent job beside a naive client's.
    Demo(DemoArgs),
    /// Look at a quota that is shared with other processes.
    #[command(subcommand)]
    Quota(QuotaCommand),
    /// Look at what a gateway is to send later, and send or drop what it could not.
    #[command(subcommand)]
    Outbox(OutboxCommand),
    /// Make keys for programs that call through a gateway.
    #[command(subcommand)]
    Caller(CallerCommand),
    /// Look at vendors' rules.
    #[command(subcommand)]
    Profile(ProfileCommand),
}

/// Where the upstream is, and who calls it.
#[derive(Args, Clone, Debug)]
pub(crate) struct Connection {
    /// Configuration file, or TIDEGATE_CONFIG; `tidegate.toml` in the working folder is read if it is there.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The tenant, where the configuration has several; otherwise the name of the only one.
    #[arg(long, value_name = "NAME")]
    pub(crate) tenant: Option<String>,
    /// A built-in profile, or a profile file.
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) profile: Option<String>,
    /// Region of the profile, such as mypurecloud.com; gives --api and --login.
    #[arg(long)]
    pub(crate) region: Option<String>,
    /// Base URL of the API.
    #[arg(long, value_name = "URL")]
    pub(crate) api: Option<String>,
    /// Base URL of the login host.
    #[arg(long, value_name = "URL")]
    pub(crate) login: Option<String>,
    /// OAuth client id. Its secret comes from GENESYSCLOUD_OAUTHCLIENT_SECRET, TIDEGATE_CREDENTIAL_CLIENT_SECRET or
    /// --client-secret-file, never from the command line.
    #[arg(long, value_name = "ID")]
    pub(crate) client_id: Option<String>,
    /// File that holds the OAuth client secret.
    #[arg(long, value_name = "FILE")]
    pub(crate) client_secret_file: Option<PathBuf>,
    /// Do not ask the upstream which limits it enforces; the declared ones hold.
    #[arg(long)]
    pub(crate) no_fetch_limits: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// Where callers connect; port 0 takes a free one. Default 127.0.0.1:8787.
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// Where operators look: /healthz, /readyz, /metrics, /api/state. Default 127.0.0.1:8788.
    #[arg(long, value_name = "ADDR")]
    pub(crate) admin: Option<SocketAddr>,
    /// The longest wait for quota plus the time the upstream commonly takes. Default 14s: SDKs give up at 16.
    #[arg(long, value_name = "DURATION", value_parser = crate::settings::wait)]
    pub(crate) max_wait: Option<Duration>,
    /// Folder in which pacing is kept over restarts: limits, what of them is spent, what is closed and until when.
    /// Default: the runtime folder, which lasts as long as the machine runs; nothing for an upstream on this machine. `off`:
    /// nothing.
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// File in which writes with an Idempotency-Key are kept, so that also a gateway that was killed does each once.
    /// Default: tidegate-PORT.db in the working folder, made with the first key; nothing for an upstream on this machine.
    /// `off`: in memory.
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,
    /// Check the configuration and whether a gateway could start with it, say all that is wrong, and end.
    #[arg(long)]
    pub(crate) check: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BulkCommand {
    /// Plan a file, then apply it.
    Run(BulkRunArgs),
    /// Go on with a run that was interrupted.
    Resume(BulkResumeArgs),
    /// Say how far a run is.
    Status(BulkStatusArgs),
    /// Write the result of every item.
    Report(BulkReportArgs),
    /// End a run for good: what was not sent is cancelled, what was sent is kept. Also while it runs.
    Cancel(BulkCancelArgs),
}

/// How a run is carried out.
#[derive(Args, Clone, Debug)]
pub(crate) struct BulkCommon {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// Send through a running gateway, which paces and holds the credential.
    #[arg(long, value_name = "URL", conflicts_with_all = ["api", "login", "region", "client_id", "client_secret_file"])]
    pub(crate) via: Option<String>,
    /// Writes in flight at once, at most. The quota decides how many leave; this bounds how many wait for answers.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) concurrency: u16,
    /// How long an upstream that cannot be reached is waited for before the run stops, resumable.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "60s")]
    pub(crate) patience: Duration,
    /// Result file, CSV: id,status,http_status,attempts,key,error,lines.
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Where the results of jobs go, NDJSON; default: beside the journal, its name with .results.ndjson. For recipes
    /// whose upstream works on after its answer.
    #[arg(long, value_name = "FILE")]
    pub(crate) results: Option<PathBuf>,
    /// No progress bar.
    #[arg(long)]
    pub(crate) quiet: bool,
}

#[derive(Args, Debug)]
pub(crate) struct BulkRunArgs {
    /// The input: CSV with a header line, or NDJSON (by its ending, else by --input-format).
    pub(crate) input: PathBuf,
    /// A built-in recipe (user-skills, requests) or a recipe file.
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) recipe: String,
    /// Format of the input, where its ending does not tell.
    #[arg(long, value_enum)]
    pub(crate) input_format: Option<InputFormat>,
    /// The journal; default: beside the input, its name with .journal.
    #[arg(long, value_name = "FILE")]
    pub(crate) journal: Option<PathBuf>,
    /// Plan, show the first requests and a forecast, and send no write. Names are looked up if the input has any.
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) common: BulkCommon,
}

#[derive(Args, Debug)]
pub(crate) struct BulkResumeArgs {
    /// The journal of the run.
    #[arg(long, value_name = "FILE")]
    pub(crate) journal: PathBuf,
    #[command(flatten)]
    pub(crate) common: BulkCommon,
}

#[derive(Args, Debug)]
pub(crate) struct BulkCancelArgs {
    /// The journal of the run.
    #[arg(long, value_name = "FILE")]
    pub(crate) journal: PathBuf,
    /// Do not ask. Needed where nobody can be asked.
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Args, Debug)]
pub(crate) struct BulkStatusArgs {
    /// The journal of the run.
    #[arg(long, value_name = "FILE")]
    pub(crate) journal: PathBuf,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
    pub(crate) format: OutputFormat,
}

#[derive(Args, Debug)]
pub(crate) struct BulkReportArgs {
    /// The journal of the run.
    #[arg(long, value_name = "FILE")]
    pub(crate) journal: PathBuf,
    /// Result file, CSV; standard output if absent.
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum InputFormat {
    Csv,
    Ndjson,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    Text,
    Json,
}

#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    /// The first page's path and query, such as /api/v2/users?state=active.
    pub(crate) path: String,
    /// The file, NDJSON; its manifest is put beside it. Standard output if absent, which cannot be resumed.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Go on behind the last complete page of an export that was interrupted.
    #[arg(long, requires = "out")]
    pub(crate) resume: bool,
    /// Begin again, and replace what is there: also what an interrupted export has read so far.
    #[arg(long, requires = "out", conflicts_with = "resume")]
    pub(crate) force: bool,
    /// How the listing is paged: auto, pages (nextUri, pageNumber), cursor, scim, or single.
    #[arg(long, value_name = "STYLE", default_value = "auto")]
    pub(crate) paging: String,
    /// JSON pointer to a page's rows, such as /entities. Found out if absent.
    #[arg(long, value_name = "POINTER")]
    pub(crate) items: Option<String>,
    /// Rows per page to ask for.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) page_size: Option<u32>,
    /// How long an upstream that cannot be reached, or does not serve a page, is waited for before the export ends, resumable.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "60s")]
    pub(crate) patience: Duration,
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// Read through a running gateway, which paces and holds the credential.
    #[arg(long, value_name = "URL", conflicts_with_all = ["api", "login", "region", "client_id", "client_secret_file"])]
    pub(crate) via: Option<String>,
    /// No progress bar.
    #[arg(long)]
    pub(crate) quiet: bool,
}

#[derive(Args, Debug)]
pub(crate) struct PlanArgs {
    /// How many calls the job makes.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=Outlook::MAX_CALLS))]
    pub(crate) calls: u64,
    /// Their class: interactive, sync, bulk or poll.
    #[arg(long, default_value = "bulk", value_parser = class)]
    pub(crate) class: Class,
    /// What they call, with a method in front (PATCH if there is none): it decides which limits count.
    #[arg(long, value_name = "[METHOD] PATH", default_value = "/api/v2/users/1")]
    pub(crate) path: String,
    /// When it begins, such as 2026-11-23T05:55, by the clock of --tz, or with an offset of its own. Default: now.
    #[arg(long, value_name = "TIME")]
    pub(crate) start: Option<String>,
    /// Time zone of --start and of what is told. Default: that of the first window, else UTC.
    #[arg(long, value_name = "ZONE")]
    pub(crate) tz: Option<String>,
    /// Configuration file with the windows and limits, or TIDEGATE_CONFIG; `tidegate.toml` in the working folder is read if it is there.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// A built-in profile, or a profile file.
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) profile: Option<String>,
    /// The tenant, where the configuration has several.
    #[arg(long, value_name = "NAME")]
    pub(crate) tenant: Option<String>,
    /// Draw a picture into a file; `-` prints it instead of the table.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = PlanFormat::Table)]
    pub(crate) format: PlanFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlanFormat {
    Table,
    Json,
}

#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// A journal of `tidegate bulk` to look at as well; may be given several times.
    #[arg(long, value_name = "FILE")]
    pub(crate) journal: Vec<PathBuf>,
    /// Path of the call whose answer is looked at. Default: the listing of limits, else /.
    #[arg(long, value_name = "PATH")]
    pub(crate) get: Option<String>,
    /// Find out whether the upstream recognises a repeated write by its key. Creates up to two objects and deletes them.
    #[arg(long)]
    pub(crate) probe_dedup: bool,
    /// What the probe creates: a path that takes POST, and DELETE below it.
    #[arg(long, value_name = "PATH", default_value = "/api/v2/routing/skills", requires = "probe_dedup")]
    pub(crate) probe_path: String,
    /// Do not ask before the probe creates anything.
    #[arg(long, requires = "probe_dedup")]
    pub(crate) yes: bool,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
    pub(crate) format: OutputFormat,
}

#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// Leave simulator and gateway running at the end, until Ctrl-C.
    #[arg(long)]
    pub(crate) keep: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LabCommand {
    /// Play scenarios and check what they expect; exit code 1 if an expectation is violated.
    Run(LabRunArgs),
    /// List the built-in scenarios and those in the folder `scenarios`.
    List {
        /// How to print it.
        #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
        format: OutputFormat,
    },
}

#[derive(Args, Debug)]
pub(crate) struct LabRunArgs {
    /// Built-in scenarios or scenario files.
    #[arg(required = true, value_name = "SCENARIO")]
    pub(crate) scenarios: Vec<String>,
    /// Draw a picture; with several scenarios the name of a folder. `-` prints the picture of one instead of its table.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Write all numbers as JSON; `-` prints them instead of the tables.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Play only this strategy: tidegate, no-calendar, reactive, reactive-jitter, guide, fixed-rate or aimd. May be repeated with others.
    #[arg(long, value_name = "NAME")]
    pub(crate) strategy: Vec<tidegate_lab::StrategyName>,
    /// Another seed than the scenario's own.
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Play on real sockets, in real time, against the simulator's server on loopback.
    #[arg(long)]
    pub(crate) sockets: bool,
    /// The longest real time that one scenario may take on sockets; a longer one is refused before it begins.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration, requires = "sockets")]
    pub(crate) max_wall: Duration,
    /// Show no progress.
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

impl LabRunArgs {
    /// Whether standard output belongs to the JSON.
    pub(crate) fn json_to_stdout(&self) -> bool {
        is_stdout(self.json.as_deref())
    }

    /// Whether standard output belongs to the picture.
    pub(crate) fn svg_to_stdout(&self) -> bool {
        is_stdout(self.svg.as_deref())
    }
}

fn is_stdout(file: Option<&Path>) -> bool {
    file.is_some_and(|file| file.as_os_str() == "-")
}

#[derive(Debug, Subcommand)]
pub(crate) enum OutboxCommand {
    /// List what waits, what is being sent, and dead letters: what could not be sent, or may have been executed.
    List(OutboxListArgs),
    /// Show the whole of one entry.
    Show(OutboxShowArgs),
    /// Send a dead letter again, or all of them.
    Replay(OutboxActArgs),
    /// Drop a dead letter, or all of them; or one entry that is not under way.
    Drop(OutboxActArgs),
}

/// Which outbox.
#[derive(Args, Clone, Debug)]
pub(crate) struct OutboxCommon {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// The outbox's file. Default: outbox.path of the configuration.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

/// Where an entry is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EntryState {
    Waiting,
    Sending,
    Done,
    Dead,
}

impl EntryState {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Sending => "sending",
            Self::Done => "done",
            Self::Dead => "dead",
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct OutboxListArgs {
    #[command(flatten)]
    pub(crate) common: OutboxCommon,
    /// Only those in this state. Default: all that are not delivered.
    #[arg(long, value_enum)]
    pub(crate) state: Option<EntryState>,
    /// As many at most, the oldest first.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) limit: usize,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
    pub(crate) format: OutputFormat,
}

#[derive(Args, Debug)]
pub(crate) struct OutboxShowArgs {
    /// The entry, as it is listed.
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) common: OutboxCommon,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
    pub(crate) format: OutputFormat,
}

#[derive(Args, Debug)]
pub(crate) struct OutboxActArgs {
    /// The entry, as it is listed.
    pub(crate) id: Option<String>,
    /// All dead letters.
    #[arg(long, conflicts_with = "id")]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) common: OutboxCommon,
}

#[derive(Debug, Subcommand)]
pub(crate) enum QuotaCommand {
    /// Show what the store knows of each limit: what is available, what is out with instances, and how many these are.
    Show(QuotaShowArgs),
    /// Create the table that a quota in DynamoDB is shared in. What is there already is left alone.
    Init(QuotaInitArgs),
}

#[derive(Args, Debug)]
pub(crate) struct QuotaInitArgs {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Args, Debug)]
pub(crate) struct QuotaShowArgs {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
    pub(crate) format: OutputFormat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CallerCommand {
    /// Make a key. It is told once, on standard error; what is to be configured goes to standard output.
    New(CallerNewArgs),
}

#[derive(Args, Debug)]
pub(crate) struct CallerNewArgs {
    /// The caller's name.
    pub(crate) name: String,
    /// The tenant it calls for.
    #[arg(long, value_name = "NAME")]
    pub(crate) tenant: Option<String>,
    /// The classes it may call in, separated by commas; all if absent.
    #[arg(long, value_name = "CLASS,…", value_delimiter = ',')]
    pub(crate) classes: Vec<Class>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProfileCommand {
    /// Check a profile file and tell all its problems.
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Print a built-in profile.
    Show {
        /// Its name; all names if absent.
        name: Option<String>,
        /// How to print it.
        #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
        format: OutputFormat,
    },
}

fn class(text: &str) -> Result<Class, String> {
    text.parse().map_err(|what| format!("`{text}` {what}"))
}

/// Reads "5s", "250ms", "1m".
fn duration(text: &str) -> Result<Duration, String> {
    tidegate_core::profile::parse_duration(text)
}

/// What the simulator simulates. Every other key of its configuration is reached with --set.
#[derive(Args, Debug)]
pub(crate) struct SimArgs {
    /// Where it listens; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8790")]
    pub(crate) listen: SocketAddr,
    /// Scenario file; the flags below override it.
    #[arg(long, value_name = "FILE")]
    pub(crate) scenario: Option<PathBuf>,
    /// How the main limit counts: fixed, fixed-aligned, sliding-log, sliding-counter, token-bucket.
    #[arg(long)]
    pub(crate) rule: Option<String>,
    /// Calls per window.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u32>,
    /// The window, such as 5s or 1m.
    #[arg(long, value_name = "DURATION")]
    pub(crate) window: Option<String>,
    /// How responses describe the limit: guide, xratelimit, inin, ietf, none.
    #[arg(long)]
    pub(crate) headers: Option<String>,
    /// How resets are written: delta, delta-exact, delta-ms, epoch, epoch-exact, epoch-ms.
    #[arg(long)]
    pub(crate) reset: Option<String>,
    /// What Retry-After says on a 429: exact, short, date, none.
    #[arg(long, value_name = "FORM")]
    pub(crate) retry_after: Option<String>,
    /// How long a token is valid.
    #[arg(long, value_name = "DURATION")]
    pub(crate) token_ttl: Option<String>,
    /// Time from a request's arrival to its answer, such as 20ms or 10ms..40ms.
    #[arg(long, value_name = "DURATION")]
    pub(crate) latency: Option<String>,
    /// How long writes are de-duplicated by X-Genesys-Request-Id, or none.
    #[arg(long, value_name = "DURATION")]
    pub(crate) dedup: Option<String>,
    /// Users that exist at the start.
    #[arg(long, value_name = "N")]
    pub(crate) users: Option<u32>,
    /// Same seed, same run.
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Any key of the configuration, such as faults.drop_after=0.02 or oauth.throttle="5 per 1s".
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Print the configuration in force and end.
    #[arg(long)]
    pub(crate) print: bool,
}
