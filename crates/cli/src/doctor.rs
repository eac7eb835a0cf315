//! `tidegate doctor`: does this machine, this credential and this upstream work together?
//!
//! What everyday failures come from is looked at one by one, in the order in which one depends on another: the way to the
//! API, the login, the clock, what answers say about limits, the permission to list them; and, whatever became of these, the
//! files of the gateway and of runs here (`files`). Only `--probe-dedup` writes.

mod files;

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use http::{Response, StatusCode};
use serde::Serialize;
use tidegate::probe::{Probed, Recognised, probe_dedup};
use tidegate::share::StoreError;
use tidegate::{CallReport, Client, Credential, NotReady, ResponseBody, Upstream};
use tidegate_bulk::Exit;
use tidegate_bulk::recipe::check_target;
use tidegate_core::observe::observe;
use tokio::task::block_in_place;

use self::files::Files;
use crate::args::{DoctorArgs, OutputFormat};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::output;
use crate::quota::SHOW;
use crate::serve::{keys_for, keys_of, state_for};
use crate::settings::Settings;
use crate::signals::interrupted;

/// A clock that is further away from the upstream's is told: absolute times of resets are read against `Date`, so nothing
/// breaks, but ages of keys in journals are counted by it.
const SKEW: Duration = Duration::from_secs(5);

/// How long one look at the upstream may wait for quota.
const WAIT: Duration = Duration::from_mins(2);

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum How {
    Ok,
    /// Worth knowing; nothing has to be done.
    Note,
    Bad,
}

/// Something that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    what: &'static str,
    how: How,
    told: String,
}

fn finding(what: &'static str, how: How, told: impl Into<String>) -> Finding {
    Finding { what, how, told: told.into() }
}

pub(crate) async fn run(args: DoctorArgs) -> Result<(), Failure> {
    let environment = Environment::of_process();
    let all = Settings::load_all(&args.connection, &environment)?;
    let settings = Settings::load(&args.connection, &environment)?;
    let mut config = settings.upstream()?;
    let port = settings.listen(None, None)?.0.port();
    let files = Files {
        state: state_for(&config.api, settings.keep_state(None, &environment)),
        keys: keys_for(
            &config.api,
            keys_of(&all, settings.keep_keys(None, &environment, port), config.tenant.as_str()),
        ),
        of: (config.tenant.clone(), config.api.clone()),
        journals: args.journal.clone(),
    };
    // The listing is looked at below, where its answer is told.
    config.fetch_limits = false;
    let upstream = Upstream::new(config).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Failure::usage(lines.join("\n"))
    })?;
    for (flag, path) in [("--get", args.get.as_ref()), ("--probe-path", Some(&args.probe_path))] {
        if let Some(Err(why)) = path.map(|path| check_target(path)) {
            return Err(Failure::usage(format!("{flag}: {why}")));
        }
    }
    if args.probe_dedup && !args.yes {
        ask(&upstream, &args.probe_path)?;
    }
    let mut findings = shared(&upstream).await;
    let (of_upstream, exit) = look(&upstream, &args).await;
    findings.extend(of_upstream);
    findings.extend(block_in_place(|| files.look(upstream.clock().wall())));
    show(&findings, args.format);
    match exit {
        Exit::Done if findings.iter().any(|finding| finding.how == How::Bad) => {
            Err(Failure::told(Exit::ItemsFailed))
        }
        Exit::Done => Ok(()),
        exit => Err(Failure::told(exit)),
    }
}

async fn look(upstream: &Arc<Upstream>, args: &DoctorArgs) -> (Vec<Finding>, Exit) {
    let mut findings = reach(upstream).await;
    if findings.iter().any(|finding| finding.how == How::Bad) {
        return (findings, Exit::UpstreamRefused);
    }
    let client = Client::over(Arc::clone(upstream));
    let listing = upstream.profile().limits_source.as_ref().and_then(|source| source.paths.first());
    let path = args.get.as_deref().or(listing.map(String::as_str)).unwrap_or("/");
    let sent = upstream.clock().wall();
    match client.get(path).max_wait(WAIT).send().await {
        Ok(answer) => {
            findings.push(clock(
                upstream,
                &answer,
                sent.unix_millis(),
                upstream.clock().wall().unix_millis(),
            ));
            findings.push(headers(upstream, &answer, path));
            if listing.map(String::as_str) == Some(path) {
                findings.push(permission(&answer));
            }
        }
        Err(error) => {
            findings.push(finding("call", How::Bad, error.to_string()));
            return (findings, Exit::UpstreamRefused);
        }
    }
    if !args.probe_dedup {
        return (findings, Exit::Done);
    }
    let (probed, exit) = probe(&client, &args.probe_path).await;
    findings.extend(probed);
    (findings, exit)
}

/// The store of a shared quota, where there is one.
async fn shared(upstream: &Upstream) -> Vec<Finding> {
    let Some(quota) = upstream.quota() else { return Vec::new() };
    match quota.look(upstream.bank(), SHOW).await {
        Err(error @ StoreError::Away { .. }) => {
            let told = format!("{error} (until it is back, each instance keeps to its part)");
            vec![finding("store", How::Bad, told)]
        }
        Err(error) => vec![finding("store", How::Bad, error.to_string())],
        Ok((about, limits)) => {
            let instances = limits.iter().map(|limit| limit.holders).max().unwrap_or_default();
            let told = match (limits.len(), instances) {
                (0, _) => format!("{}; nobody shares this quota now", about.what),
                (limits, instances) => {
                    format!("{}; {instances} instances share {limits} limits now", about.what)
                }
            };
            vec![finding("store", How::Ok, told)]
        }
    }
}

/// The way to the API, and the login.
async fn reach(upstream: &Upstream) -> Vec<Finding> {
    let connected = format!("{} accepts connections", upstream.api_base());
    let began = upstream.clock().now();
    let ready = upstream.check().await;
    let took = (upstream.clock().now() - began).as_millis();
    match ready {
        Err(NotReady::Api(error)) => {
            let told =
                format!("{}: {error} (check --api or --region, and the way there)", upstream.api_base());
            vec![finding("api", How::Bad, told)]
        }
        Err(NotReady::Token(error)) => {
            let hint = if error.refused {
                "check the client id and secret, and that they belong to this region"
            } else {
                "check --login or --region"
            };
            let told = format!("{error} ({hint})");
            vec![finding("api", How::Ok, connected), finding("login", How::Bad, told)]
        }
        Ok(()) => {
            let login = match upstream.credential() {
                Credential::Managed(manager) => finding(
                    "login",
                    How::Ok,
                    format!("credential {} has a token, within {took} ms", manager.id()),
                ),
                _ => {
                    finding("login", How::Note, "no credential is configured: calls are made without a token")
                }
            };
            vec![finding("api", How::Ok, connected), login]
        }
    }
}

/// This machine's clock beside the upstream's, which tells whole seconds.
fn clock(upstream: &Upstream, answer: &Response<ResponseBody>, sent: i64, received: i64) -> Finding {
    let seen =
        observe(&upstream.profile().headers, answer.status(), answer.headers(), upstream.clock().wall());
    let Some(theirs) = seen.date else {
        return finding("clock", How::Note, "the answer has no Date to compare with");
    };
    let (earliest, latest) = (theirs.unix_millis(), theirs.unix_millis() + 999);
    // Between the sending and the receiving it was that second there.
    let apart = if sent > latest { sent - latest } else { (earliest - received).max(0) };
    let apart = Duration::from_millis(apart.unsigned_abs());
    if apart > SKEW {
        let which = if sent > latest { "ahead of" } else { "behind" };
        let told = format!(
            "this clock is at least {:.0} s {which} the upstream's: set it by NTP",
            apart.as_secs_f64()
        );
        return finding("clock", How::Bad, told);
    }
    finding("clock", How::Ok, format!("within {} s of the upstream's", SKEW.as_secs()))
}

/// What the answer says about limits.
fn headers(upstream: &Upstream, answer: &Response<ResponseBody>, path: &str) -> Finding {
    let seen =
        observe(&upstream.profile().headers, answer.status(), answer.headers(), upstream.clock().wall());
    let about = |name: &str| {
        let name = name.to_ascii_lowercase();
        name.contains("ratelimit") || name.contains("rate-limit") || name == "retry-after"
    };
    let names: Vec<&str> =
        answer.headers().keys().map(http::HeaderName::as_str).filter(|name| about(name)).collect();
    if names.is_empty() {
        let told = format!("GET {path} tells nothing about limits: declared limits hold, and refusals teach");
        return finding("headers", How::Ok, told);
    }
    let told = format!("GET {path} has {}", names.join(", "));
    if seen.readings.is_empty() && seen.retry_after.is_none() {
        return finding(
            "headers",
            How::Note,
            format!("{told}, which this profile does not read ([headers])"),
        );
    }
    finding("headers", How::Ok, told)
}

/// Whether the credential may list the limits that are enforced.
fn permission(answer: &Response<ResponseBody>) -> Finding {
    let missing = answer.extensions().get::<CallReport>().and_then(|report| report.missing.clone());
    match (answer.status(), missing) {
        (StatusCode::OK, _) => finding("limits", How::Ok, "the limits of this organisation can be listed"),
        (_, Some(missing)) => finding(
            "limits",
            How::Note,
            format!("cannot be listed, the credential lacks {missing}: declared ones hold"),
        ),
        (status, None) => {
            finding("limits", How::Note, format!("cannot be listed ({status}): declared ones hold"))
        }
    }
}

/// Names what the probe will do, and asks.
fn ask(upstream: &Upstream, path: &str) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("--probe-dedup creates objects: say --yes where nobody can be asked"));
    }
    output::talk(&format!(
        "this creates up to two objects named `tidegate probe …` at {}{path}, and deletes them. Go on? [y/N]",
        upstream.api_base()
    ));
    let mut answer = String::new();
    let read = block_in_place(|| std::io::stdin().read_line(&mut answer));
    match read {
        Ok(_) if matches!(answer.trim(), "y" | "Y" | "yes") => Ok(()),
        _ => Err(Failure::usage("not probed")),
    }
}

async fn probe(client: &Client, path: &str) -> (Vec<Finding>, Exit) {
    let name = format!("tidegate probe {:016x}", fastrand::u64(..));
    let (asked, other, path) = (interrupted(), client.clone(), path.to_owned());
    let mut probing = tokio::spawn(async move { probe_dedup(&other, &path, &name).await });
    let (probed, exit) = tokio::select! {
        probed = &mut probing => (probed, Exit::Done),
        () = asked => {
            output::talk("stopping: what was created is deleted first");
            ((&mut probing).await, Exit::Interrupted)
        }
    };
    let Probed { found, left } = match probed {
        Ok(probed) => probed,
        Err(error) => return (vec![finding("dedup", How::Bad, error.to_string())], Exit::Internal),
    };
    let header = &client.upstream().profile().idempotency.header;
    let (how, told) = match found {
        Ok(Recognised::Replayed) => (
            How::Ok,
            format!(
                "{header} is recognised: a second write under one key was answered with the first one's object, and its body \
                 ignored. Say so in the profile: dedup = {{ for = \"24h\" }} (for how long was not measured)"
            ),
        ),
        Ok(Recognised::Refused(status)) => (
            How::Ok,
            format!(
                "{header} is recognised: another body under one key was refused with {status}. Say so in the profile: dedup = \
                 {{ for = \"24h\" }} (for how long was not measured)"
            ),
        ),
        Ok(Recognised::No) => (
            How::Ok,
            format!(
                "{header} is not recognised: a second write under one key created a second object. Keep dedup = \"none\""
            ),
        ),
        Err(why) => (How::Bad, format!("cannot be told: {why}")),
    };
    let mut findings = vec![finding("dedup", how, told)];
    if !left.is_empty() {
        findings.push(finding("cleanup", How::Bad, format!("could not be deleted: {}", left.join(", "))));
    }
    (findings, exit)
}

fn show(findings: &[Finding], format: OutputFormat) {
    let text = match format {
        OutputFormat::Json => {
            let json = serde_json::to_string_pretty(findings).expect("texts serialise");
            format!("{json}\n")
        }
        OutputFormat::Text => {
            let mut text = Vec::new();
            for Finding { what, how, told } in findings {
                let how = match how {
                    How::Ok => "ok",
                    How::Note => "note",
                    How::Bad => "BAD",
                };
                writeln!(text, "{how:<5} {what:<8} {told}").expect("memory takes everything");
            }
            String::from_utf8_lossy(&text).into_owned()
        }
    };
    output::data(&text);
}
