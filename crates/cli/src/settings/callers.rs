//! `[[caller]]` and `[[route]]`: who may call, and what calls are that do not say it.

use tidegate::{CallerId, Class};
use tidegate_core::profile::parse_place;
use tidegate_core::profile::reader::Section;
use tidegate_gateway::{CallerConfig, DEFAULT_TENANT, KeyHash, RouteRule};

use super::keys::some;
use super::sources::secret_of_file;

/// Calls that one caller may be given.
const MAX_CALLS: std::ops::RangeInclusive<u64> = 1..=8192;

/// Reads all callers. `tenants`: the names of those that have tables.
pub(super) fn read_callers(file: &Section<'_>, tenants: &[&str]) -> Vec<CallerConfig> {
    let mut callers: Vec<CallerConfig> = Vec::new();
    for section in file.sections("caller") {
        let Some(caller) = read_caller(&section, tenants) else { continue };
        if callers.iter().any(|known| known.name == caller.name) {
            let what = format!("`{}` is the name of an earlier caller (choose another)", caller.name);
            section.problem("name", what);
        }
        if let Some(known) = callers.iter().find(|known| known.key == caller.key) {
            let key = if section.has("key_sha256") { "key_sha256" } else { "key_sha256_file" };
            section.problem(key, format_args!("is the key of `{}` too (make one for each)", known.name));
        }
        callers.push(caller);
    }
    callers
}

fn read_caller(section: &Section<'_>, tenants: &[&str]) -> Option<CallerConfig> {
    let name = section.parsed("name", |text| some(text).map(|()| text.to_owned()));
    let name = section.required("name", "name = \"wfm\"", name);
    let key = read_key(section);
    section.refuse(
        "key",
        "keys do not belong into this file (write key_sha256, which `tidegate caller new NAME` prints)",
    );
    let tenant = read_tenant(section, tenants);
    if tenant.is_none() && !section.has("tenant") && !tenants.is_empty() && !tenants.contains(&DEFAULT_TENANT)
    {
        section.problem("tenant", format_args!("is missing (write one of {})", tenants.join(", ")));
    }
    let classes =
        section.each("classes", |text| text.parse::<Class>().map_err(|what| format!("`{text}` {what}")));
    if classes.as_ref().is_some_and(Vec::is_empty) {
        section.problem("classes", "is empty (write some of interactive, sync, bulk, poll, or leave it out)");
    }
    let classes = classes.filter(|classes| !classes.is_empty()).unwrap_or_else(|| Class::ALL.to_vec());
    let first = if classes.contains(&Class::Interactive) { Class::Interactive } else { classes[0] };
    let class = section.parsed("class", |text| {
        let class = text.parse::<Class>().map_err(|what| format!("`{text}` {what}"))?;
        if classes.contains(&class) {
            return Ok(class);
        }
        Err(format!("`{text}` is none of its classes (write one of them, or add it to classes)"))
    });
    let weight = section.integer("weight", &(1..=u64::from(CallerId::MAX_WEIGHT)));
    let max_calls = section.integer("max_calls", &MAX_CALLS);
    Some(CallerConfig {
        name: name?,
        key: key?,
        tenant,
        classes,
        class: class.unwrap_or(first),
        weight: weight.and_then(|weight| weight.try_into().ok()).unwrap_or(1),
        max_calls: max_calls.and_then(|calls| calls.try_into().ok()),
    })
}

/// The hash of a key, from the file or from a file of its own.
fn read_key(section: &Section<'_>) -> Option<KeyHash> {
    let here = section.parsed("key_sha256", str::parse::<KeyHash>);
    let elsewhere = section.parsed("key_sha256_file", |path| {
        use secrecy::ExposeSecret as _;
        let text = secret_of_file(path)?;
        text.expose_secret().trim().parse::<KeyHash>().map_err(|what| format!("what is in {path} {what}"))
    });
    if section.has("key_sha256") && section.has("key_sha256_file") {
        section.problem("key_sha256_file", "stands beside a key_sha256 (keep one of them)");
    }
    if !section.has("key_sha256") && !section.has("key_sha256_file") {
        section.problem("key_sha256", "is missing (`tidegate caller new NAME` makes a key and prints this)");
    }
    here.or(elsewhere)
}

/// Reads all rules.
pub(super) fn read_routes(file: &Section<'_>, tenants: &[&str]) -> Vec<RouteRule> {
    let mut rules = Vec::new();
    for section in file.sections("route") {
        let place = section.parsed("match", parse_place);
        let place = section.required("match", "match = \"GET /api/v2/analytics/**\"", place);
        let class =
            section.parsed("class", |text| text.parse::<Class>().map_err(|what| format!("`{text}` {what}")));
        let deadline = section.duration_above_zero("deadline");
        let tenant = read_tenant(&section, tenants);
        if !["class", "deadline", "tenant"].iter().any(|key| section.has(key)) {
            section.problem("match", "has a rule that says nothing (write class, deadline or tenant)");
        }
        if let Some((method, path)) = place {
            rules.push(RouteRule { method, path, class, deadline, tenant });
        }
    }
    rules
}

/// The name of a tenant that there is. Without tables the only one's name is not known here.
pub(super) fn read_tenant(section: &Section<'_>, tenants: &[&str]) -> Option<String> {
    section.parsed("tenant", |text| {
        some(text)?;
        if tenants.is_empty() || tenants.contains(&text) {
            return Ok(text.to_owned());
        }
        let near = tidegate_core::profile::nearest(text, tenants.iter().copied());
        let hint = near.map_or_else(
            || format!("there are: {}", tenants.join(", ")),
            |near| format!("did you mean `{near}`?"),
        );
        Err(format!("`{text}` is no tenant ({hint})"))
    })
}
