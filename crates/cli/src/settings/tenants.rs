//! `[[tenant]]`: several organisations in one file.
//!
//! A tenant has what stands in its table, and of the top level what it does not say itself; but never a credential, and never a
//! part of a place: an API of the one with the login host of another would be neither. A command that serves one tenant (all
//! but `serve`) takes the one that `--tenant` or `TIDEGATE_TENANT` names.

use tidegate_core::pace::LimitSpec;
use tidegate_core::profile::read_limits;
use tidegate_core::profile::reader::Section;
use tidegate_gateway::DEFAULT_TENANT;

use super::credential::{Configured, OfClasses, Secrets, read_classes, read_one};
use super::keys::{API, CLIENT_ID, LOGIN, PROFILE, QUOTA_PREFIX, REGION, SECRET_ENV, TENANT, prefix, some};
use super::{Settings, Texts};
use crate::environment::Environment;
use crate::failure::Failure;

/// Names that mean something else where a tenant is named: in metrics (`other`), and to people.
const RESERVED: [&str; 4] = ["other", "all", "none", "tidegate"];

/// The longest name: it is a part of paths, of file names and of labels.
const LONGEST: usize = 64;

/// One table.
#[derive(Clone, Debug, Default)]
pub(super) struct TenantTable {
    pub(super) name: String,
    texts: Texts,
    limits: Vec<LimitSpec>,
    credential: Option<Configured>,
    class_credentials: OfClasses,
}

/// Reads all tables. `asked`: the one whose secrets are wanted; all if there is none.
pub(super) fn read(file: &Section<'_>, env: &Environment, asked: Option<&str>) -> Vec<TenantTable> {
    let mut tables: Vec<TenantTable> = Vec::new();
    for section in file.sections("tenant") {
        let known: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
        let name = section.parsed("name", |text| {
            name(text)?;
            if known.contains(&text) {
                return Err(format!("`{text}` is the name of an earlier tenant (choose another)"));
            }
            Ok(text.to_owned())
        });
        let name = section.required("name", "name = \"acme\"", name);
        let wanted = asked.is_none_or(|asked| name.as_deref() == Some(asked));
        tables.push(read_one_tenant(&section, name.unwrap_or_default(), Secrets { env, wanted }));
    }
    tables
}

fn read_one_tenant(section: &Section<'_>, name: String, secrets: Secrets<'_>) -> TenantTable {
    let mut texts = Texts::new();
    for key in [&PROFILE, &REGION, &API, &LOGIN] {
        if let Some(text) = section.parsed(key.name, |text| some(text).map(|()| text.to_owned())) {
            texts.insert(key.name, text);
        }
    }
    if section.has(LOGIN.name) && !section.has(API.name) {
        section.problem(LOGIN.name, "names a login host without its API (write api too, or region for both)");
    }
    if let Some(quota) = section.section("quota") {
        let own = quota.parsed("prefix", |text| prefix(text).map(|()| text.to_owned()));
        texts.extend(own.map(|own| (QUOTA_PREFIX.name, own)));
    }
    if let Some(push) = section.section("push") {
        super::push::read(&push, &mut texts);
    }
    let (mut credential, mut class_credentials) = (None, OfClasses::default());
    if section.has("credential")
        && let Some(table) = section.section("credential")
    {
        let (client, general) = read_one(&table, secrets, DEFAULT_TENANT);
        class_credentials = read_classes(&table, secrets, client.as_deref());
        credential = general;
    }
    TenantTable { name, texts, limits: read_limits(section), credential, class_credentials }
}

/// Whether `text` may name a tenant.
fn name(text: &str) -> Result<(), String> {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    let begins = text.starts_with(|letter: char| letter.is_ascii_alphanumeric());
    if !begins || !text.chars().all(fits) || text.len() > LONGEST {
        return Err(format!(
            "`{}` cannot name a tenant (write up to {LONGEST} letters, digits and -_. of ASCII, the first a letter or digit)",
            text.escape_default()
        ));
    }
    if RESERVED.contains(&text) {
        return Err(format!("`{text}` is a reserved word (choose another name)"));
    }
    Ok(())
}

impl Settings {
    /// The names of the tenants that have a table.
    pub(crate) fn tenant_names(&self) -> impl Iterator<Item = &str> {
        self.tenants.iter().map(|table| table.name.as_str())
    }

    /// What holds for the one tenant that a command is about.
    ///
    /// # Errors
    /// It cannot be told which, or there is no such tenant.
    pub(super) fn of_one(mut self) -> Result<Self, Failure> {
        if self.tenants.is_empty() {
            self.lay_flags();
            return Ok(self);
        }
        self.no_credential_at_the_top()?;
        let names = || self.tenant_names().collect::<Vec<_>>().join(", ");
        let asked = self.get(&TENANT);
        let found = match (asked, self.tenants.as_slice()) {
            (Some(asked), tables) => {
                let found = tables.iter().find(|table| table.name == asked);
                found.ok_or_else(|| {
                    Failure::usage(format!(
                        "tenant `{asked}` has no table [[tenant]] (there are: {})",
                        names()
                    ))
                })?
            }
            (None, [only]) => only,
            (None, tables) => tables.iter().find(|table| table.name == DEFAULT_TENANT).ok_or_else(|| {
                Failure::usage(format!("for which tenant? (name one with --tenant: {})", names()))
            })?,
        };
        let mut one = self.of(found);
        one.lay_flags();
        Ok(one)
    }

    /// What holds for each tenant of a gateway: one, unless there are tables and none is named.
    ///
    /// # Errors
    /// Flags that are about one of several.
    pub(crate) fn of_each(&self) -> Result<Vec<Self>, Failure> {
        if !self.serves_many() {
            return self.clone().of_one().map(|one| vec![one]);
        }
        self.no_credential_at_the_top()?;
        let flags: Vec<&str> =
            self.flags.keys().copied().filter(|key| *key != super::FETCH_LIMITS.name).collect();
        if !flags.is_empty() {
            return Err(Failure::usage(format!(
                "flags for {} are about one tenant, and there are several (name one with --tenant, or say it in its table)",
                flags.join(", ")
            )));
        }
        Ok(self
            .tenants
            .iter()
            .map(|table| {
                let mut each = self.of(table);
                each.lay_flags();
                each
            })
            .collect())
    }

    /// Whether a gateway serves all tenants that have tables.
    pub(crate) fn serves_many(&self) -> bool {
        !self.tenants.is_empty() && self.get(&TENANT).is_none()
    }

    fn of(&self, table: &TenantTable) -> Self {
        let mut one = Self { tenants: Vec::new(), ..self.clone() };
        let place = [&PROFILE, &REGION, &API, &LOGIN];
        if place.iter().any(|key| table.texts.contains_key(key.name)) {
            for key in [&REGION, &API, &LOGIN] {
                one.texts.remove(key.name);
            }
        }
        one.texts.extend(table.texts.clone());
        one.texts.insert(TENANT.name, table.name.clone());
        let replaced = |limit: &LimitSpec| table.limits.iter().any(|own| own.key == limit.key);
        one.limits.retain(|limit| !replaced(limit));
        one.limits.extend(table.limits.iter().cloned());
        one.credential.clone_from(&table.credential);
        one.class_credentials.clone_from(&table.class_credentials);
        one
    }

    /// A credential that stands beside tables is nobody's.
    fn no_credential_at_the_top(&self) -> Result<(), Failure> {
        let set = self.secret.is_some() || self.get(&CLIENT_ID).is_some();
        if !set {
            return Ok(());
        }
        Err(Failure::usage(format!(
            "a credential is set in the environment ({}, {}), and there are [[tenant]]s: it would be nobody's (unset it, and name the secret in the tenant's table as client_secret_env)",
            CLIENT_ID.env.join(" or "),
            SECRET_ENV.join(" or ")
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_paths_files_and_labels_take() {
        for good in ["acme", "default", "a.b-c_9", "0", &"x".repeat(64)] {
            assert_eq!(name(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "..", "-x", "a/b", "a b", "é", "a%2f", &"x".repeat(65), "other", "all"] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }
}
