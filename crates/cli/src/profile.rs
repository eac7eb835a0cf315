//! `tidegate profile`: look at vendors' rules.

use serde_json::{Value, json};
use tidegate::Profile;

use crate::args::{OutputFormat, ProfileCommand};
use crate::failure::Failure;
use crate::output;

/// Checks a file, or prints a built-in profile.
pub(crate) fn run(command: ProfileCommand) -> Result<(), Failure> {
    match command {
        ProfileCommand::Check { file } => {
            let name = file.display().to_string();
            let text = std::fs::read_to_string(&file)
                .map_err(|error| Failure::usage(format!("cannot read {name}: {error}")))?;
            let profile = Profile::parse(&text, &name).map_err(Failure::usage)?;
            output::talk(&format!("{name}: profile `{}` is good", profile.name));
            Ok(())
        }
        ProfileCommand::Show { name: None, format } => {
            list(format);
            Ok(())
        }
        ProfileCommand::Show { name: Some(name), format } => show(&name, format),
    }
}

fn list(format: OutputFormat) {
    match format {
        OutputFormat::Json => {
            let entry = |profile: Profile| json!({ "name": profile.name, "title": profile.title });
            let all: Vec<Value> = Profile::builtin_names().filter_map(Profile::builtin).map(entry).collect();
            output::data(&format!("{:#}\n", Value::from(all)));
        }
        OutputFormat::Text => {
            for name in Profile::builtin_names() {
                output::data(&format!("{name}\n"));
            }
        }
    }
}

/// As JSON it is what the file says, key by key, without the comments.
fn show(name: &str, format: OutputFormat) -> Result<(), Failure> {
    let text = Profile::builtin_text(name).ok_or_else(|| {
        let known = Profile::builtin_names().collect::<Vec<_>>().join(", ");
        Failure::usage(format!("no built-in profile `{name}` (there are {known})"))
    })?;
    match format {
        OutputFormat::Json => {
            let keys: Value = toml::from_str(text).map_err(Failure::internal)?;
            output::data(&format!("{keys:#}\n"));
        }
        OutputFormat::Text => output::data(text),
    }
    Ok(())
}
