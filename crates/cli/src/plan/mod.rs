//! `tidegate plan`: when a job will be finished, with the windows of the calendar in it.
//!
//! The forecast is the core's ([`Outlook`]); here stands what is asked and how it is shown.

mod picture;
mod table;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::Method;
use serde::Serialize;
use tidegate::Class;
use tidegate_core::calendar::{Calendar, Zone};
use tidegate_core::key::normalise;
use tidegate_core::outlook::{Job, Outlook};
use tidegate_core::pace::{BankConfig, LimitKind};
use tidegate_core::profile::parse_place;
use tidegate_core::time::Wall;

use crate::args::{Connection, PlanArgs, PlanFormat};
use crate::environment::Environment;
use crate::failure::{Failure, together};
use crate::output;
use crate::settings::Settings;

/// A job with its outlook, and what it would be without windows.
pub(crate) struct Planned {
    calls: u64,
    class: Class,
    method: Method,
    path: String,
    profile: String,
    start: Wall,
    zone: Zone,
    /// Who it is in the stagger.
    instance: Option<String>,
    outlook: Outlook,
    /// When it would end without the calendar; `None` if it meets no window.
    without: Option<Wall>,
    /// What the limits that bound it allow, such as `users: 300 per 60s`.
    bounds: Vec<String>,
}

impl Planned {
    fn took(&self) -> Duration {
        self.outlook.end.since(self.start).unwrap_or_default()
    }

    fn took_without(&self) -> Option<Duration> {
        self.without.and_then(|end| end.since(self.start))
    }

    /// Calls done before an instant.
    fn done_before(&self, at: Wall) -> u64 {
        let before = self.outlook.curve.partition_point(|&(point, _)| point < at);
        self.outlook.curve[..before].last().map_or(0, |&(_, done)| done)
    }
}

pub(crate) fn run(args: &PlanArgs) -> Result<(), Failure> {
    let planned = plan(args)?;
    if let Some(file) = &args.svg {
        let picture = picture::render(&planned);
        if file.as_os_str() == "-" {
            output::data(&picture);
            return Ok(());
        }
        write(file, &picture)?;
    }
    match args.format {
        PlanFormat::Table => output::data(&table::render(&planned)),
        PlanFormat::Json => output::data(&json(&planned)),
    }
    Ok(())
}

fn write(file: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(file, text)
        .map_err(|error| Failure::usage(format!("cannot write {}: {error}", file.display())))
}

fn plan(args: &PlanArgs) -> Result<Planned, Failure> {
    let connection = Connection {
        config: args.config.clone(),
        profile: args.profile.clone(),
        tenant: args.tenant.clone(),
        region: None,
        api: None,
        login: None,
        client_id: None,
        client_secret_file: None,
        no_fetch_limits: false,
    };
    let place = place(&args.path);
    let settings = Settings::load(&connection, &Environment::of_process());
    let ((method, path), settings) = together((place, settings))?;
    let (profile, config) = settings.pacing()?;
    let zone = zone(args.tz.as_deref(), &config.calendar);
    let zone = zone?;
    let start = start(args.start.as_deref(), &zone)?;
    let job = Job { calls: args.calls, class: args.class, method: &method, path: &path, start };
    let bounds = bounds(&config, &method, &path);
    let free = BankConfig { calendar: Arc::default(), ..config.clone() };
    let outlook = Outlook::of(&job, config).map_err(Failure::usage)?;
    let without = if outlook.windows.is_empty() {
        None
    } else {
        Some(Outlook::of(&job, free).map_err(Failure::usage)?.end)
    };
    let (calls, class) = (args.calls, args.class);
    let instance = settings.instance();
    Ok(Planned { calls, class, method, path, profile, start, zone, instance, outlook, without, bounds })
}

/// Method and path; a path alone is written to, as bulk jobs do.
fn place(text: &str) -> Result<(Method, String), Failure> {
    let bad = |why: &dyn std::fmt::Display| Failure::usage(format!("--path: {why}"));
    let (method, path) = text.split_once(' ').unwrap_or(("PATCH", text));
    // No limit looks at a query.
    let path = path.split('?').next().unwrap_or(path);
    // The same reader as that of a limit's `match`, so that what is no method or path is told in the same words.
    let (named, _) = parse_place(&format!("{method} {path}")).map_err(|why| bad(&why))?;
    let path = normalise(path).map_err(|why| bad(&why))?;
    Ok((named.unwrap_or(Method::PATCH), path.to_string()))
}

fn zone(named: Option<&str>, calendar: &Calendar) -> Result<Zone, Failure> {
    let of_calendar = || calendar.windows().first().map_or_else(Zone::utc, |window| window.zone.clone());
    named.map_or_else(
        || Ok(of_calendar()),
        |name| Zone::named(name).map_err(|why| Failure::usage(format!("--tz: {why}"))),
    )
}

fn start(text: Option<&str>, zone: &Zone) -> Result<Wall, Failure> {
    let Some(text) = text else {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        return Ok(Wall::from_unix_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)));
    };
    zone.read(text).map_err(|why| Failure::usage(format!("--start: {why}")))
}

/// The limits that count the job's calls.
fn bounds(config: &BankConfig, method: &Method, path: &str) -> Vec<String> {
    let counting = config.limits.iter().filter(|limit| limit.matches(method, path));
    counting
        .map(|limit| match limit.kind {
            LimitKind::Rate { quota, window } => format!("{}: {quota} per {window:?}", limit.key),
            LimitKind::Concurrent { cap } => format!("{}: {cap} at once", limit.key),
        })
        .collect()
}

/// The body of `--format json`. Times are RFC 3339 with the zone's offset.
#[derive(Serialize)]
struct Body<'p> {
    calls: u64,
    class: &'static str,
    method: &'p str,
    path: &'p str,
    profile: &'p str,
    zone: &'p str,
    start: String,
    first: String,
    end: String,
    seconds: f64,
    end_without_windows: Option<String>,
    limits: &'p [String],
    windows: Vec<WindowBody<'p>>,
    /// When how many calls are done.
    curve: Vec<(String, u64)>,
}

#[derive(Serialize)]
struct WindowBody<'p> {
    name: &'p str,
    from: String,
    until: String,
    /// When the job goes on, if it is held.
    goes_on: Option<String>,
    kept_from_it_per_cent: u8,
}

fn json(planned: &Planned) -> String {
    let time = |at: Wall| planned.zone.show(at, "%Y-%m-%dT%H:%M:%S%:z");
    let windows = planned.outlook.windows.iter().map(|window| WindowBody {
        name: &window.name,
        from: time(window.from),
        until: time(window.until),
        goes_on: window.released.map(time),
        kept_from_it_per_cent: window.kept,
    });
    let body = Body {
        calls: planned.calls,
        class: planned.class.name(),
        method: planned.method.as_str(),
        path: &planned.path,
        profile: &planned.profile,
        zone: planned.zone.name(),
        start: time(planned.start),
        first: time(planned.outlook.first),
        end: time(planned.outlook.end),
        seconds: planned.took().as_secs_f64(),
        end_without_windows: planned.without.map(time),
        limits: &planned.bounds,
        windows: windows.collect(),
        curve: planned.outlook.curve.iter().map(|&(at, done)| (time(at), done)).collect(),
    };
    let mut text = serde_json::to_string_pretty(&body).expect("texts and numbers serialise");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use tidegate_core::calendar::read_windows;
    use tidegate_core::profile::Profile;
    use tidegate_core::profile::reader::read;

    use super::*;

    /// 3,000 calls that begin five minutes before a publish at six.
    pub(super) fn publish() -> Planned {
        let text = "[[window]]\nname = \"wfm publish\"\ncron = \"0 6 * * MON\"\ntz = \"America/Chicago\"\nfor = \"20m\"\nhold = [\"bulk\"]\nstagger = \"15m\"\n";
        let calendar = Arc::new(read(text, "tidegate.toml", read_windows).unwrap());
        let zone = Zone::named("America/Chicago").unwrap();
        let start = zone.read("2026-11-23T05:55").unwrap();
        let (method, path) = place("/api/v2/users/7").unwrap();
        let limits = Profile::builtin("genesys").unwrap().limits;
        let config = BankConfig { limits, calendar, stagger_seed: 5, ..BankConfig::default() };
        let bounds = bounds(&config, &method, &path);
        let job = Job { calls: 3000, class: Class::Bulk, method: &method, path: &path, start };
        let outlook = Outlook::of(&job, config.clone()).unwrap();
        let free = Outlook::of(&job, BankConfig { calendar: Arc::default(), ..config }).unwrap();
        Planned {
            calls: 3000,
            class: Class::Bulk,
            method,
            path,
            profile: "genesys".to_owned(),
            start,
            zone,
            instance: Some("north".to_owned()),
            outlook,
            without: Some(free.end),
            bounds,
        }
    }

    #[test]
    fn a_path_alone_is_written_to() {
        let (method, path) = place("/api/v2/users/7?x=1").unwrap();
        assert_eq!((method.as_str(), path.as_str()), ("PATCH", "/api/v2/users/7"));
        assert_eq!(place("GET /api/v2/users").unwrap().0, Method::GET);
        for bad in ["users", "GET users", "G@T /users"] {
            assert!(place(bad).unwrap_err().message.starts_with("--path: "), "{bad}");
        }
    }

    #[test]
    fn the_json_has_both_ends_and_what_is_between() {
        let body: serde_json::Value = serde_json::from_str(&json(&publish())).unwrap();
        assert_eq!(body["start"], "2026-11-23T05:55:00-06:00");
        assert_eq!(body["windows"][0]["until"], "2026-11-23T06:20:00-06:00");
        assert_eq!(body["curve"].as_array().unwrap().last().unwrap()[1], 3000);
        assert!(body["end"].as_str() > body["windows"][0]["goes_on"].as_str());
        assert!(body["end_without_windows"].as_str() < body["end"].as_str());
    }
}
