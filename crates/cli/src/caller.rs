//! `tidegate caller`: keys for programs that call through a gateway.

use std::fmt::Write as _;

use tidegate_gateway::{KeyHash, new_key};

use crate::args::{CallerCommand, CallerNewArgs};
use crate::failure::Failure;
use crate::output;

pub(crate) fn run(command: &CallerCommand) -> Result<(), Failure> {
    match command {
        CallerCommand::New(args) => new(args),
    }
}

/// Makes a key. It goes to where people read and the table to where it can be sent into a file, so that a key does not end up in
/// one by accident.
fn new(CallerNewArgs { name, tenant, classes }: &CallerNewArgs) -> Result<(), Failure> {
    if name.trim().is_empty() {
        return Err(Failure::usage("the name is empty (write one that says which program it is)"));
    }
    let mut chance = [0; 32];
    getrandom::fill(&mut chance)
        .map_err(|error| Failure::internal(format!("the system gives no random bits: {error}")))?;
    let key = new_key(chance);
    let mut table = format!("[[caller]]\nname = {}\n", text(name));
    let mut line = |key: &str, value: String| writeln!(table, "{key} = {value}").expect("it is text");
    line("key_sha256", text(&KeyHash::of(key.as_bytes()).to_string()));
    if let Some(tenant) = tenant {
        line("tenant", text(tenant));
    }
    if !classes.is_empty() {
        let classes: Vec<String> = classes.iter().map(|class| text(class.name())).collect();
        line("classes", format!("[{}]", classes.join(", ")));
    }
    output::data(&table);
    output::talk(&format!(
        "the key, which is told this once; {name} sends it in the header Tidegate-Key:\n{key}"
    ));
    Ok(())
}

fn text(value: &str) -> String {
    toml::Value::from(value).to_string()
}
