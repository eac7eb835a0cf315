//! The table: what it must be, and making it.
//!
//! One key, `id`, a string. Any other attribute is an item's own business. It is paid by request, because a fleet's need is
//! that of its quota and not of the hour; and it has a time to live, so that a fleet that is gone leaves nothing behind.

use std::time::Duration;

use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::operation::create_table::CreateTableError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, TableDescription,
    TableStatus, TimeToLiveSpecification, TimeToLiveStatus,
};
use tokio::time::Instant;

use crate::fault::Fault;
use crate::item::{EXPIRES, KEY};
use crate::wire::{Sent, Until, Wire};

/// What failed, and before when nobody need ask again.
pub(crate) type Failed = (Fault, Option<Duration>);

/// One request about the table may take that long: it is asked by a person.
const PATIENCE: Duration = Duration::from_secs(5);
/// A new table is there within seconds.
const NEW: Duration = Duration::from_mins(2);
/// Between looks at it.
const LOOK: Duration = Duration::from_millis(500);

/// What is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Parts of its key: name, type.
    key: Vec<(String, String)>,
    status: TableStatus,
}

/// Whether items end by themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    Yes,
    No,
    /// By another attribute.
    By(String),
    /// This identity may not look.
    Unknown,
}

impl Found {
    fn of(table: &TableDescription) -> Self {
        let kind = |name: &str| {
            let definition =
                table.attribute_definitions().iter().find(|known| known.attribute_name() == name);
            definition.map_or("?", |known| known.attribute_type().as_str()).to_owned()
        };
        let part = |part: &KeySchemaElement| (part.attribute_name().to_owned(), kind(part.attribute_name()));
        let status = table.table_status().cloned().unwrap_or(TableStatus::Active);
        Self { key: table.key_schema().iter().map(part).collect(), status }
    }

    /// Whether it can be used.
    pub(crate) fn fits(&self) -> Result<(), Fault> {
        if self.key != [(KEY.to_owned(), "S".to_owned())] {
            let parts: Vec<String> =
                self.key.iter().map(|(name, kind)| format!("`{name}` ({kind})")).collect();
            return Err(Fault::Unusable {
                why: format!("its key is {}, and not `{KEY}` (S)", parts.join(" and ")),
                hint: "name another table in quota.store and create it with `tidegate quota init`".to_owned(),
            });
        }
        match self.status {
            TableStatus::Active | TableStatus::Updating => Ok(()),
            ref status => {
                Err(Fault::Away { why: format!("the table is {}", status.as_str()), broken: false })
            }
        }
    }
}

/// What the table is.
pub(crate) async fn look(wire: &Wire, table: &str, until: Until) -> Result<Found, Failed> {
    let (name, ear) = (table.to_owned(), wire.ear());
    let answer = wire
        .send(until, move |client| async move {
            client.describe_table().table_name(name).customize().interceptor(ear).send().await
        })
        .await?;
    answer.table().map(Found::of).ok_or_else(|| (Fault::strange("it describes nothing"), None))
}

/// Whether items of the table end by themselves.
pub(crate) async fn ends(wire: &Wire, table: &str, until: Until) -> Result<Ends, Failed> {
    let name = table.to_owned();
    let answer =
        wire.try_send(until, move |client| async move {
            client.describe_time_to_live().table_name(name).send().await
        })
        .await?;
    let told = match answer {
        Sent::Answered(told) => told,
        Sent::Late => return Err((until.late(), None)),
        Sent::Refused(error) => {
            return match Fault::of(&error) {
                // It is asked for people only; who just shares a quota need not have the permission.
                Fault::Unusable { .. } => Ok(Ends::Unknown),
                fault => Err((fault, None)),
            };
        }
    };
    let Some(told) = told.time_to_live_description() else { return Ok(Ends::No) };
    Ok(match (told.time_to_live_status(), told.attribute_name()) {
        (Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling), Some(EXPIRES)) => Ends::Yes,
        (Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling), Some(other)) => {
            Ends::By(other.to_owned())
        }
        _ => Ends::No,
    })
}

/// Makes what is missing, or tells what would be made: one sentence for each step.
pub(crate) async fn init(wire: &Wire, table: &str, dry_run: bool) -> Result<Vec<String>, Failed> {
    let mut told = Vec::new();
    let until = || Until::after(PATIENCE);
    match look(wire, table, until()).await {
        Ok(found) => {
            if let Err(fault @ Fault::Unusable { .. }) = found.fits() {
                return Err((fault, None));
            }
            told.push(format!("the table {table} is there, with the key `{KEY}`"));
        }
        Err((Fault::NoTable, _)) if dry_run => {
            told.push(format!("would create the table {table} with the key `{KEY}`, paid by request"));
            told.push(format!("would switch on its time to live, by `{EXPIRES}`"));
            return Ok(told);
        }
        Err((Fault::NoTable, _)) => {
            create(wire, table, until()).await?;
            told.push(format!("created the table {table} with the key `{KEY}`, paid by request"));
        }
        Err(failed) => return Err(failed),
    }
    until_there(wire, table).await?;
    match ends(wire, table, until()).await? {
        Ends::Yes => told.push(format!("its time to live is on, by `{EXPIRES}`")),
        Ends::By(other) => {
            let why = format!("its time to live is on, but by `{other}` and not by `{EXPIRES}`");
            let hint = "another program uses the table: name another one in quota.store".to_owned();
            return Err((Fault::Unusable { why, hint }, None));
        }
        Ends::No | Ends::Unknown if dry_run => {
            told.push(format!("would switch on its time to live, by `{EXPIRES}`"));
        }
        Ends::No | Ends::Unknown => {
            switch_on(wire, table, until()).await?;
            told.push(format!("switched on its time to live, by `{EXPIRES}`"));
        }
    }
    Ok(told)
}

async fn create(wire: &Wire, table: &str, until: Until) -> Result<(), Failed> {
    let name = table.to_owned();
    let key =
        KeySchemaElement::builder().attribute_name(KEY).key_type(KeyType::Hash).build().map_err(mistake)?;
    let attribute = AttributeDefinition::builder()
        .attribute_name(KEY)
        .attribute_type(ScalarAttributeType::S)
        .build()
        .map_err(mistake)?;
    let sent = wire
        .try_send(until, move |client| async move {
            client
                .create_table()
                .table_name(name)
                .billing_mode(BillingMode::PayPerRequest)
                .key_schema(key)
                .attribute_definitions(attribute)
                .send()
                .await
        })
        .await?;
    match sent {
        Sent::Answered(_) => Ok(()),
        Sent::Late => Err((until.late(), None)),
        // Somebody else has just created it.
        Sent::Refused(error)
            if error.as_service_error().is_some_and(CreateTableError::is_resource_in_use_exception) =>
        {
            Ok(())
        }
        Sent::Refused(error) => Err((Fault::of(&error), None)),
    }
}

async fn until_there(wire: &Wire, table: &str) -> Result<(), Failed> {
    let end = Instant::now() + NEW;
    loop {
        let there = match look(wire, table, Until::after(PATIENCE)).await {
            Ok(found) => found.fits(),
            Err((fault @ Fault::NoTable, _)) => Err(fault),
            Err(failed) => return Err(failed),
        };
        match there {
            Ok(()) => return Ok(()),
            Err(fault @ Fault::Unusable { .. }) => return Err((fault, None)),
            Err(fault) if Instant::now() > end => return Err((fault, None)),
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

async fn switch_on(wire: &Wire, table: &str, until: Until) -> Result<(), Failed> {
    let name = table.to_owned();
    let wanted =
        TimeToLiveSpecification::builder().enabled(true).attribute_name(EXPIRES).build().map_err(mistake)?;
    wire.send(until, move |client| async move {
        client.update_time_to_live().table_name(name).time_to_live_specification(wanted).send().await
    })
    .await?;
    Ok(())
}

fn mistake(error: BuildError) -> Failed {
    (Fault::strange(error), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(key: &[(&str, &str)], status: TableStatus) -> Found {
        let part = |&(name, kind): &(&str, &str)| (name.to_owned(), kind.to_owned());
        Found { key: key.iter().map(part).collect(), status }
    }

    #[test]
    fn a_table_of_another_shape_is_told_with_its_key() {
        assert_eq!(found(&[("id", "S")], TableStatus::Active).fits(), Ok(()));
        for (key, told) in [
            (&[("pk", "S"), ("sk", "N")][..], "its key is `pk` (S) and `sk` (N), and not `id` (S)"),
            (&[("id", "N")], "its key is `id` (N), and not `id` (S)"),
            (&[("id", "S"), ("sort", "S")], "its key is `id` (S) and `sort` (S), and not `id` (S)"),
        ] {
            let Err(Fault::Unusable { why, .. }) = found(key, TableStatus::Active).fits() else {
                panic!("{key:?}")
            };
            assert_eq!(why, told);
        }
    }

    #[test]
    fn a_table_that_is_being_made_is_away() {
        let made = found(&[("id", "S")], TableStatus::Creating).fits();
        assert!(matches!(made, Err(Fault::Away { why, .. }) if why == "the table is CREATING"));
    }
}
