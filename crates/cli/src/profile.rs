//! `tidegate profile`: look at vendors' rules.

use tidegate::Profile;

use crate::args::ProfileCommand;
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
        ProfileCommand::Show { name: None } => {
            for name in Profile::builtin_names() {
                output::data(&format!("{name}\n"));
            }
            Ok(())
        }
        ProfileCommand::Show { name: Some(name) } => {
            let text = Profile::builtin_text(&name).ok_or_else(|| {
                let known = Profile::builtin_names().collect::<Vec<_>>().join(", ");
                Failure::usage(format!("no built-in profile `{name}` (there are {known})"))
            })?;
            output::data(text);
            Ok(())
        }
    }
}
