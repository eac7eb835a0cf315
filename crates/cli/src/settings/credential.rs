//! Credentials that stand in tables: those of classes, and those of tenants.
//!
//! A table names its secret by a file or by a variable. Both are read with the table, so that what is missing is told with its
//! line. A secret of a tenant that is not asked for is left alone: who runs one tenant's job need not have all secrets.

use secrecy::SecretString;
use tidegate::Class;
use tidegate::token::ClientCredentials;
use tidegate_core::key::CredentialId;
use tidegate_core::profile::reader::Section;

use super::keys::some;
use super::sources::secret_of_file;
use crate::environment::Environment;

/// A configured credential, by its name.
pub(super) type Configured = (CredentialId, ClientCredentials);

/// Credentials by class.
pub(super) type OfClasses = [Option<Configured>; Class::COUNT];

/// What reading a table needs to know besides.
#[derive(Clone, Copy)]
pub(super) struct Secrets<'e> {
    pub(super) env: &'e Environment,
    /// Whether they are wanted now.
    pub(super) wanted: bool,
}

/// The tables of classes within a table `credential` whose own client is `general`.
pub(super) fn read_classes(section: &Section<'_>, secrets: Secrets<'_>, general: Option<&str>) -> OfClasses {
    let mut read = OfClasses::default();
    let mut clients: Vec<String> = general.map(str::to_owned).into_iter().collect();
    let mut names: Vec<String> = section.string("name").into_iter().collect();
    for class in Class::ALL {
        if !section.has(class.name()) {
            continue;
        }
        let Some(table) = section.section(class.name()) else { continue };
        let (client, configured) = read_one(&table, secrets, class.name());
        if let Some(client) = client {
            if clients.contains(&client) {
                let what = "is the client of another class too (give each its own, or leave this table out)";
                table.problem("client_id", what);
            }
            clients.push(client);
        }
        let name = table.string("name").unwrap_or_else(|| class.name().to_owned());
        if names.contains(&name) {
            table.problem("name", format_args!("`{name}` is another credential's name too (choose another)"));
        }
        names.push(name);
        read[class.index()] = configured;
    }
    read
}

/// One table: its client id, and the credential if its secret is wanted. `default`: its name unless it has one.
pub(super) fn read_one(
    table: &Section<'_>,
    Secrets { env, wanted }: Secrets<'_>,
    default: &str,
) -> (Option<String>, Option<Configured>) {
    let text = |key| table.parsed(key, |text| some(text).map(|()| text.to_owned()));
    let name = text("name").unwrap_or_else(|| default.to_owned());
    let client = text("client_id");
    refuse_secret(table);
    let by_file = text("client_secret_file");
    let by_env = text("client_secret_env");
    if by_file.is_some() && by_env.is_some() {
        table.problem("client_secret_env", "stands beside a client_secret_file (keep one of them)");
    }
    match (&client, by_file.is_some() || by_env.is_some()) {
        (Some(_), false) if !table.has("client_secret_file") && !table.has("client_secret_env") => {
            table.problem("client_id", "has no secret (name a client_secret_file, or a client_secret_env)");
        }
        (None, true) if !table.has("client_id") => {
            let key = if by_file.is_some() { "client_secret_file" } else { "client_secret_env" };
            table.problem(key, "is the secret of no client (write client_id too)");
        }
        _ => {}
    }
    if !wanted {
        return (client, None);
    }
    let secret = match (by_file, by_env) {
        (Some(path), _) => told(table, "client_secret_file", secret_of_file(&path)),
        (None, Some(variable)) => told(table, "client_secret_env", secret_of_variable(env, &variable)),
        (None, None) => None,
    };
    let configured = client
        .as_deref()
        .zip(secret)
        .map(|(id, secret)| (CredentialId::new(&name), ClientCredentials::new(id, &secret)));
    (client, configured)
}

/// Says that a secret itself does not belong into a table.
pub(super) fn refuse_secret(table: &Section<'_>) {
    table.refuse(
        "client_secret",
        "secrets do not belong into this file (name a client_secret_file, or a variable as client_secret_env)",
    );
}

fn told(table: &Section<'_>, key: &str, secret: Result<SecretString, String>) -> Option<SecretString> {
    secret.map_err(|what| table.problem(key, what)).ok()
}

pub(super) fn secret_of_variable(env: &Environment, variable: &str) -> Result<SecretString, String> {
    match env.get(variable)? {
        Some(secret) => Ok(SecretString::from(secret)),
        None => Err(format!("the variable {variable} is not set (set it to the secret)")),
    }
}
