//! The environment of the program: what is set in it, and what of ours nobody reads.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use tidegate_core::profile::nearest;
use tidegate_store::fault;

/// Every variable that begins so is ours, or a slip of the pen.
const PREFIX: &str = "TIDEGATE_";

/// Variables by name. One that is set to nothing counts as not set.
#[derive(Debug)]
pub(crate) struct Environment {
    set: BTreeMap<OsString, OsString>,
}

impl FromIterator<(OsString, OsString)> for Environment {
    fn from_iter<T: IntoIterator<Item = (OsString, OsString)>>(all: T) -> Self {
        Self { set: all.into_iter().filter(|(_, value)| !value.is_empty()).collect() }
    }
}

impl Environment {
    /// That of this process.
    pub(crate) fn of_process() -> Self {
        std::env::vars_os().collect()
    }

    /// The value of `name`, if it is set.
    ///
    /// # Errors
    /// It is not UTF-8.
    pub(crate) fn get(&self, name: &str) -> Result<Option<String>, String> {
        let Some(value) = self.set.get(OsStr::new(name)) else { return Ok(None) };
        value.to_str().map(|text| Some(text.to_owned())).ok_or_else(|| format!("{name}: is not UTF-8"))
    }

    /// The first of `names` that is set.
    ///
    /// # Errors
    /// It is not UTF-8.
    pub(crate) fn first(&self, names: &[&'static str]) -> Result<Option<(&'static str, String)>, String> {
        for name in names {
            if let Some(value) = self.get(name)? {
                return Ok(Some((name, value)));
            }
        }
        Ok(None)
    }

    /// What is wrong with each variable that has our prefix and is none of `known`.
    pub(crate) fn unknown(&self, known: &(impl Iterator<Item = &'static str> + Clone)) -> Vec<String> {
        let ours = self.set.iter().map(|(name, value)| (name.to_string_lossy(), value));
        let ours = ours.filter(|(name, _)| name.starts_with(PREFIX));
        let unknown = ours.filter(|(name, value)| {
            !known.clone().any(|known| known == name)
                && !is_service_link(name, &value.to_string_lossy())
                && fault::VARIABLE != Some(&**name)
        });
        let told = unknown.map(|(name, _)| match nearest(&name, known.clone()) {
            Some(near) => format!("{name}: is not a known variable (did you mean `{near}`?)"),
            None => format!(
                "{name}: is not a known variable (remove it; docs/configuration.md lists them: TIDEGATE_ and the key in capitals)"
            ),
        });
        told.collect()
    }
}

/// Kubernetes sets such variables in every container beside a service whose name begins with `tidegate`: nobody wrote them.
/// See <https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>.
fn is_service_link(name: &str, value: &str) -> bool {
    let of_port = |protocol: &str| value.starts_with(&format!("{}://", protocol.to_lowercase()));
    let protocols = ["TCP", "UDP", "SCTP"];
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT") && protocols.into_iter().any(of_port)
        || name.split_once("_PORT_").is_some_and(|(_, rest)| {
            let (port, rest) = rest.split_once('_').unwrap_or((rest, ""));
            port.parse::<u16>().is_ok() && protocols.iter().any(|protocol| rest.starts_with(protocol))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubernetes_sets_for_a_service_of_our_name_is_nobodys_mistake() {
        for (name, value) in [
            ("TIDEGATE_SERVICE_HOST", "10.0.0.11"),
            ("TIDEGATE_SERVICE_PORT", "8787"),
            ("TIDEGATE_SERVICE_PORT_HTTP", "8787"),
            ("TIDEGATE_ADMIN_PORT", "tcp://10.0.0.11:8788"),
            ("TIDEGATE_PORT_8787_TCP", "tcp://10.0.0.11:8787"),
            ("TIDEGATE_PORT_8787_TCP_PROTO", "tcp"),
        ] {
            assert!(is_service_link(name, value), "{name}");
        }
        for (name, value) in
            [("TIDEGATE_PORT", "8787"), ("TIDEGATE_PORT_LISTEN", "8787"), ("TIDEGATE_APY", "x")]
        {
            assert!(!is_service_link(name, value), "{name}");
        }
    }
}
