//! The address of a table.

use std::time::Duration;

use tidegate_core::profile::parse_duration;
use tidegate_quota::StoreError;

/// Which table is used, and how. Credentials are not in it: AWS's usual chain finds them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DynamoConfig {
    /// The table's name.
    pub table: String,
    /// Its region, instead of the one that the environment or AWS's own configuration names.
    pub region: Option<String>,
    /// Where DynamoDB is, instead of the region's usual address: an emulator, or a VPC endpoint.
    pub endpoint: Option<String>,
    /// By how much the time of the state may be ahead of what an answer says the time is. DynamoDB's servers do not agree to
    /// the millisecond; a state that is further ahead is not used.
    pub skew: Duration,
    /// Before the key of every item: letters, digits and `-_./:`.
    pub prefix: String,
    /// For how long an exchange is waited for.
    pub timeout: Duration,
}

const HINT: &str = "quota.store is dynamodb://TABLE?region=REGION, with &endpoint=URL for an emulator";

impl DynamoConfig {
    /// Before the key of every item, unless something else is said.
    pub const PREFIX: &str = "tidegate";
    /// For how long an exchange is waited for, unless something else is said. In its region DynamoDB answers within 5 to
    /// 15 ms; a new connection takes a few round trips more.
    pub const TIMEOUT: Duration = Duration::from_millis(250);
    /// Servers that keep time by NTP agree far better.
    pub const SKEW: Duration = Duration::from_secs(2);
    /// A window of a minute moves by no more than that.
    const LONGEST_SKEW: Duration = Duration::from_mins(1);

    /// What an address says, and the usual for the rest.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] where it is none.
    ///
    /// ```
    /// use tidegate_quota_dynamodb::DynamoConfig;
    ///
    /// let config = DynamoConfig::parse("dynamodb://quota?region=eu-west-1&skew=500ms").unwrap();
    /// assert_eq!((config.table.as_str(), config.region.as_deref()), ("quota", Some("eu-west-1")));
    /// assert!(DynamoConfig::parse("dynamodb://quota?reigon=eu-west-1").is_err());
    /// ```
    pub fn parse(url: &str) -> Result<Self, StoreError> {
        let bad =
            |why: String| StoreError::Unusable { store: "dynamodb".to_owned(), why, hint: HINT.to_owned() };
        let rest = url
            .strip_prefix("dynamodb://")
            .ok_or_else(|| bad("the address is no dynamodb:// URL".to_owned()))?;
        let (table, query) = rest.split_once('?').unwrap_or((rest, ""));
        let table = table.strip_suffix('/').unwrap_or(table);
        check_table(table).map_err(bad)?;
        let mut config = Self {
            table: table.to_owned(),
            region: None,
            endpoint: None,
            skew: Self::SKEW,
            prefix: Self::PREFIX.to_owned(),
            timeout: Self::TIMEOUT,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if value.is_empty() {
                return Err(bad(format!("`{name}` has no value")));
            }
            config.set(name, value).map_err(bad)?;
        }
        Ok(config)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "region" => {
                let fine = value.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-');
                self.region = Some(fine.then(|| value.to_owned()).ok_or(format!("`{value}` is no region"))?);
            }
            "endpoint" => {
                let host = value.strip_prefix("http://").or_else(|| value.strip_prefix("https://"));
                let fine = host.is_some_and(|host| !host.is_empty() && !host.contains(['%', '@', '#']));
                let why = "`endpoint` is no http:// or https:// URL";
                self.endpoint = Some(fine.then(|| value.to_owned()).ok_or(why)?);
            }
            "skew" => {
                let skew = parse_duration(value).map_err(|why| format!("`skew`: {why}"))?;
                if skew > Self::LONGEST_SKEW {
                    return Err(format!("`skew`: {value} is longer than a minute"));
                }
                self.skew = skew;
            }
            _ => {
                return Err(format!("`{name}` is not known after the table (region, endpoint and skew are)"));
            }
        }
        Ok(())
    }

    /// For people.
    pub(crate) fn name(&self) -> String {
        let region = self.region.as_ref().map(|region| format!(" in {region}")).unwrap_or_default();
        let endpoint = self.endpoint.as_ref().map(|endpoint| format!(" at {endpoint}")).unwrap_or_default();
        format!("dynamodb table {}{region}{endpoint}", self.table)
    }

    pub(crate) fn check_prefix(&self) -> Result<(), StoreError> {
        let allowed = |letter: char| letter.is_ascii_alphanumeric() || "-_./:".contains(letter);
        if !self.prefix.is_empty() && self.prefix.chars().all(allowed) {
            return Ok(());
        }
        Err(StoreError::Unusable {
            store: self.name(),
            why: format!("the prefix `{}` has other letters", self.prefix),
            hint: "quota.prefix has letters, digits and -_./: only".to_owned(),
        })
    }
}

/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.NamingRulesDataTypes.html>
fn check_table(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("the address names no table".to_owned());
    }
    let fine = (3..=255).contains(&name.len())
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter));
    fine.then_some(()).ok_or_else(|| format!("`{name}` is no table's name: 3 to 255 letters, digits and -_."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_table_region_endpoint_and_skew() {
        let url = "dynamodb://acme.quota?region=eu-west-1&endpoint=http://127.0.0.1:8000&skew=500ms";
        let config = DynamoConfig::parse(url).unwrap();
        assert_eq!(config.name(), "dynamodb table acme.quota in eu-west-1 at http://127.0.0.1:8000");
        assert_eq!(config.skew, Duration::from_millis(500));
        assert_eq!(DynamoConfig::parse("dynamodb://quota").unwrap().name(), "dynamodb table quota");
    }

    #[test]
    fn an_address_that_is_none_says_what_one_looks_like() {
        for (url, told) in [
            ("dynamo://quota", "no dynamodb:// URL"),
            ("dynamodb://", "names no table"),
            ("dynamodb://a b c", "is no table's name"),
            ("dynamodb://user:secret@quota", "is no table's name"),
            ("dynamodb://quota?region", "`region` has no value"),
            ("dynamodb://quota?endpoint=localhost:8000", "`endpoint` is no http://"),
            ("dynamodb://quota?skew=1h", "`skew`: 1h is longer than a minute"),
            ("dynamodb://quota?table=other", "`table` is not known"),
        ] {
            let problem = DynamoConfig::parse(url).unwrap_err().to_string();
            assert!(
                problem.contains(told) && problem.contains("dynamodb://TABLE?region="),
                "{url}: {problem}"
            );
        }
    }
}
