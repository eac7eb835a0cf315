//! Who a request is for, who makes it, and as whom it leaves: found out once, before anything else looks at it.
//!
//! In this order, because a stranger is to learn nothing: the key, then the tenant, then what the key allows. The tenant is named
//! by the path (`/t/NAME/…`, which is cut off), by `Tidegate-Tenant`, by the key, or by a rule; else it is the one that calls
//! without a tenant go to. Where two of the first three disagree the request is refused: a guess could send one organisation's
//! data to another.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderMap};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use tidegate::layer::ReconcileBy;
use tidegate::{CallOptions, CallerId, Class, Credential};
use tidegate_core::glob::PathGlob;
use tidegate_core::key::normalise;
use tidegate_store::ledger::BearerDigest;

use crate::caller::{Caller, CallerConfig, Callers, KEY_PREFIX};
use crate::hygiene::Refused;
use crate::learnt;
use crate::tenant::{Identified, Tenant};
use crate::tenants::Tenants;

const CLASS: HeaderName = HeaderName::from_static("tidegate-class");
const CALLER: HeaderName = HeaderName::from_static("tidegate-caller");
const DEADLINE: HeaderName = HeaderName::from_static("tidegate-deadline");
const TENANT: HeaderName = HeaderName::from_static("tidegate-tenant");
const KEY: HeaderName = HeaderName::from_static("tidegate-key");

/// What a path begins with that names its tenant.
const PREFIX: &str = "/t/";

/// What calls to a place are unless they say otherwise.
#[derive(Clone, Debug)]
pub struct RouteRule {
    /// The method it is about; `None`: all.
    pub method: Option<Method>,
    /// The paths it is about.
    pub path: PathGlob,
    /// Their class.
    pub class: Option<Class>,
    /// After which time an answer is worthless.
    pub deadline: Option<Duration>,
    /// The tenant of calls that name none.
    pub tenant: Option<String>,
}

/// Who may call, and what calls are.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) callers: Callers,
    /// Whether a call without a key is let in where callers have keys.
    pub(crate) anonymous: bool,
    pub(crate) routes: Vec<RouteRule>,
    pub(crate) max_wait: Duration,
}

/// A request that is let in.
#[derive(Debug)]
pub(crate) struct Admitted {
    /// The number of its tenant.
    pub(crate) tenant: usize,
    /// Whose key it came with.
    pub(crate) caller: Option<Arc<Caller>>,
    /// How it came with it.
    pub(crate) shown: Shown,
    pub(crate) options: CallOptions,
}

/// How a request shows a key. An SDK can send no header of ours when it logs in, so its caller's name and key may be the client id
/// and secret of a login, and the key is then the token that it gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Shown {
    /// In the header for it, or not at all.
    #[default]
    InHeader,
    /// As the secret of a client, by Basic authentication.
    AsClient(String),
    /// As a token.
    AsToken,
}

/// Who makes a call, for everybody who has to tell one's calls from another's: what is remembered of calls (writes, answers)
/// belongs to one tenant, one caller and one credential.
#[derive(Debug)]
pub(crate) struct Identity {
    /// Who it is made by: the caller of the key, the name it gave itself, or the credential. Nobody can have a name that is that of
    /// a key's caller here.
    pub(crate) caller: String,
    /// Who it is made as.
    pub(crate) credential: Credential,
    /// The token that it came with.
    pub(crate) bearer: Option<HeaderValue>,
    /// Whether that token is of a login through this gateway.
    pub(crate) learnt: bool,
    /// The digest of the token, where nothing else says who calls.
    pub(crate) digest: Option<BearerDigest>,
}

impl Admission {
    /// Lets a request in, or says why not. Its key is taken out, and its path loses the prefix that names a tenant.
    pub(crate) fn admit(&self, tenants: &Tenants, parts: &mut Parts) -> Result<Admitted, Refused> {
        let (caller, shown) = self.caller(&mut parts.headers)?;
        let tenant = named_tenant(tenants, caller.as_deref(), parts)?;
        let path = normalise(parts.uri.path()).ok();
        let rules = || self.rules(&parts.method, path.as_deref());
        let tenant = if let Some(tenant) = tenant {
            tenant
        } else {
            let named = rules().find_map(|rule| rule.tenant.as_deref());
            tenants.find_or_default(named).ok_or_else(|| no_tenant(tenants))?
        };
        let class = read_header::<Class>(&parts.headers, &CLASS, "interactive, sync, bulk or poll")?;
        let class = class_of(class, rules().find_map(|rule| rule.class), caller.as_deref())?;
        let deadline = read_header::<Seconds>(&parts.headers, &DEADLINE, "seconds, such as 5 or 0.5")?;
        let deadline = deadline.map(|seconds| seconds.0).or_else(|| rules().find_map(|rule| rule.deadline));
        // Who has a key is known by it: a name beside it could be another's.
        let own_name = read_header::<Name>(&parts.headers, &CALLER, "a name")?.map(|name| name.0);
        let named = match &caller {
            Some(caller) => Some(caller.id),
            None if self.callers.is_empty() => own_name,
            // Names cost nothing: beside those who have keys all who have none share one share.
            None => Some(CallerId::ANYBODY),
        };
        let options = CallOptions {
            class,
            caller: named,
            deadline,
            max_wait: Some(self.max_wait),
            reconcile: Some(ReconcileBy { rule: None, within: Some(self.max_wait) }),
            ..CallOptions::default()
        };
        Ok(Admitted { tenant, caller, shown, options })
    }

    /// Whose key a request comes with, and how. Wherever it is, it is taken out: it must not reach the upstream.
    fn caller(&self, headers: &mut HeaderMap) -> Result<(Option<Arc<Caller>>, Shown), Refused> {
        let key = headers.remove(&KEY);
        if self.callers.is_empty() {
            return Ok((None, Shown::InHeader));
        }
        let unknown = || refused(StatusCode::UNAUTHORIZED, "unknown-key", "no caller has this name and key");
        match key_in(headers.get(AUTHORIZATION)) {
            Some((name, found)) => {
                headers.remove(AUTHORIZATION);
                let caller = self.callers.find(found.as_bytes()).ok_or_else(unknown)?;
                let is_its = |name: &String| *name == caller.config.name;
                if name.as_ref().is_some_and(|name| !is_its(name)) {
                    return Err(unknown());
                }
                let shown = name.map_or(Shown::AsToken, |_| Shown::AsClient(found));
                Ok((Some(Arc::clone(caller)), shown))
            }
            None => self.caller_of(key).map(|caller| (caller, Shown::InHeader)),
        }
    }

    fn caller_of(&self, key: Option<HeaderValue>) -> Result<Option<Arc<Caller>>, Refused> {
        match key {
            Some(key) => match self.callers.find(key.as_bytes()) {
                Some(caller) => Ok(Some(Arc::clone(caller))),
                None => Err(refused(
                    StatusCode::UNAUTHORIZED,
                    "unknown-key",
                    "Tidegate-Key: no caller has this key",
                )),
            },
            None if self.anonymous => Ok(None),
            None => Err(refused(
                StatusCode::UNAUTHORIZED,
                "no-key",
                "this gateway serves callers with a key: send yours in the header Tidegate-Key",
            )),
        }
    }

    fn rules(&self, method: &Method, path: Option<&str>) -> impl Iterator<Item = &RouteRule> {
        let about = move |rule: &&RouteRule| {
            rule.method.as_ref().is_none_or(|of| of == method)
                && path.is_some_and(|path| rule.path.matches(path))
        };
        self.routes.iter().filter(about)
    }
}

/// The key in an `Authorization`: of a client by its name, or as a token.
fn key_in(authorization: Option<&HeaderValue>) -> Option<(Option<String>, String)> {
    let (scheme, text) = authorization?.to_str().ok()?.split_once(' ')?;
    let text = text.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return text.starts_with(KEY_PREFIX).then(|| (None, text.to_owned()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(text).ok()?).ok()?;
    let (name, key) = decoded.split_once(':')?;
    key.starts_with(KEY_PREFIX).then(|| (Some(name.to_owned()), key.to_owned()))
}

/// The tenant that path, header or key name.
fn named_tenant(
    tenants: &Tenants,
    caller: Option<&Caller>,
    parts: &mut Parts,
) -> Result<Option<usize>, Refused> {
    let in_path = if tenants.by_path() { split_off_tenant(&mut parts.uri)? } else { None };
    let in_header = read_header::<String>(&parts.headers, &TENANT, "the name of a tenant")?;
    if let (Some(path), Some(header)) = (&in_path, &in_header)
        && path != header
    {
        let message = format!("the path names tenant `{path}` and Tidegate-Tenant `{header}`: name one");
        return Err(refused(StatusCode::BAD_REQUEST, "invalid-request", &message));
    }
    let named = in_path.or(in_header);
    if let Some(caller) = caller {
        let own =
            tenants.find_or_default(caller.config.tenant.as_deref()).ok_or_else(|| no_tenant(tenants))?;
        if named.as_deref().is_some_and(|named| named != &**tenants.name(own)) {
            let message =
                format!("the key of `{}` is for tenant `{}` only", caller.config.name, tenants.name(own));
            return Err(refused(StatusCode::FORBIDDEN, "wrong-tenant", &message));
        }
        return Ok(Some(own));
    }
    let Some(named) = named else { return Ok(None) };
    match tenants.find(&named) {
        Some(tenant) => Ok(Some(tenant)),
        None => Err(refused(
            StatusCode::NOT_FOUND,
            "unknown-tenant",
            &format!("`{}` is no tenant of this gateway", named.escape_default()),
        )),
    }
}

/// The class of a call. A header that asks for more than the key allows is refused, because who asks for a class counts on it; a
/// rule is no such wish.
fn class_of(
    asked: Option<Class>,
    rule: Option<Class>,
    caller: Option<&Caller>,
) -> Result<Option<Class>, Refused> {
    let Some(CallerConfig { name, classes, class, .. }) = caller.map(|caller| &caller.config) else {
        return Ok(asked.or(rule));
    };
    match (asked, rule) {
        (Some(asked), _) if classes.contains(&asked) => Ok(Some(asked)),
        (Some(asked), _) => {
            let may: Vec<&str> = classes.iter().map(|class| class.name()).collect();
            let message = format!("`{name}` may not call as {}, only as {}", asked.name(), may.join(", "));
            Err(refused(StatusCode::FORBIDDEN, "class-forbidden", &message))
        }
        (None, Some(rule)) if classes.contains(&rule) => Ok(Some(rule)),
        (None, _) => Ok(Some(*class)),
    }
}

impl Admitted {
    /// The name of who makes it, if it has one.
    pub(crate) fn named(&self, headers: &HeaderMap) -> Option<String> {
        match &self.caller {
            // No header can hold a line break: nobody can call itself by what a key stands for.
            Some(caller) => Some(format!("\nkey {}", caller.config.name)),
            None => headers.get(&CALLER).and_then(|name| name.to_str().ok()).map(str::to_owned),
        }
    }
}

impl Identity {
    /// Whom the upstream sees: answers are shared between those only who are the same to it.
    pub(crate) fn seen_as(&self) -> String {
        let token = self.bearer.as_ref().map(|bearer| learnt::digest(bearer.as_bytes()));
        format!("{}\n{token:?}", self.credential.id())
    }

    /// Who makes a request of `admitted`, which comes from `peer`. Takes the request's token out.
    pub(crate) fn of(
        tenant: &Tenant,
        admitted: &mut Admitted,
        headers: &mut HeaderMap,
        peer: IpAddr,
    ) -> Self {
        let class = admitted.options.class.unwrap_or(Class::Interactive);
        let Identified { credential, learnt } = tenant.identify(headers, class);
        let bearer = headers.remove(AUTHORIZATION);
        // Who does not say its name is known by whom it calls as and from which machine.
        admitted.options.caller.get_or_insert_with(|| CallerId::named((credential.id(), peer)));
        let named = admitted.named(headers);
        let digest = bearer.as_ref().filter(|_| named.is_none());
        let digest = digest.map(|bearer| learnt::digest(bearer.as_bytes()));
        let caller = named.unwrap_or_else(|| credential.id().to_string());
        Self { caller, credential, bearer, learnt, digest }
    }
}

/// Cuts the name of a tenant off a path that begins with one.
fn split_off_tenant(uri: &mut Uri) -> Result<Option<String>, Refused> {
    let Some(target) = uri.path_and_query() else { return Ok(None) };
    let Some(rest) = target.path().strip_prefix(PREFIX) else { return Ok(None) };
    let (name, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, "/"),
    };
    let name = name.to_owned();
    let target = match target.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let target: PathAndQuery = target
        .parse()
        .map_err(|_| refused(StatusCode::BAD_REQUEST, "invalid-request", "the path cannot be read"))?;
    *uri = Uri::from(target);
    Ok(Some(name))
}

fn no_tenant(tenants: &Tenants) -> Refused {
    let how = if tenants.by_path() {
        "begin the path with /t/NAME, or send Tidegate-Tenant"
    } else {
        "send Tidegate-Tenant"
    };
    refused(
        StatusCode::BAD_REQUEST,
        "unknown-tenant",
        &format!("the call names no tenant, and there is none for calls that name none: {how}"),
    )
}

fn refused(status: StatusCode, reason: &'static str, message: &str) -> Refused {
    Refused { status, reason, message: message.to_owned() }
}

/// What a caller calls itself.
struct Name(CallerId);

impl FromStr for Name {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text.is_empty() { Err(()) } else { Ok(Self(CallerId::named(text))) }
    }
}

/// A positive number of seconds.
struct Seconds(Duration);

impl FromStr for Seconds {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let seconds: f64 = text.parse().map_err(|_| ())?;
        Duration::try_from_secs_f64(seconds).ok().filter(|wait| !wait.is_zero()).map(Self).ok_or(())
    }
}

fn read_header<T: FromStr>(
    headers: &HeaderMap,
    name: &HeaderName,
    expected: &'static str,
) -> Result<Option<T>, Refused> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let parsed = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    parsed.map(Some).ok_or_else(|| Refused {
        status: StatusCode::BAD_REQUEST,
        reason: "invalid-request",
        message: format!("{name}: expected {expected}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_cut_off_a_path_and_what_is_left_is_a_path() {
        for (target, expected) in [
            ("/t/acme/api/v2/users?pageSize=5", Some(("acme", "/api/v2/users?pageSize=5"))),
            ("/t/acme", Some(("acme", "/"))),
            ("/t/acme/", Some(("acme", "/"))),
            ("/t/acme?x=1", Some(("acme", "/?x=1"))),
            ("/t/acme//api", Some(("acme", "//api"))),
            ("/t//api", Some(("", "/api"))),
            ("/t/", Some(("", "/"))),
            ("/t", None),
            ("/tenants/acme", None),
            ("/api/t/acme", None),
        ] {
            let mut uri: Uri = target.parse().unwrap();
            let name = split_off_tenant(&mut uri).unwrap();
            let left = name.is_some().then(|| uri.to_string());
            assert_eq!(name.as_deref().zip(left.as_deref()), expected, "{target}");
        }
    }
}
