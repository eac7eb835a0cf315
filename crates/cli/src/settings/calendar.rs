//! The windows of the calendar, and who this process is among those who begin again after one.

use std::sync::Arc;

use tidegate_core::calendar::{Calendar, read_windows, stagger_seed};
use tidegate_core::pace::BankConfig;
use tidegate_core::profile::reader::read;

use super::Settings;
use super::keys::{INSTANCE, WINDOWS};
use crate::failure::Failure;

/// Reads the windows of the environment: the value that `window` has in the file.
pub(super) fn from_text(text: &str) -> Result<Calendar, String> {
    let value = text.trim();
    if !value.starts_with('[') {
        return Err("is no list of windows (write [{ name = \"…\", cron = \"…\", tz = \"…\", for = \"…\", hold = [\"bulk\"] }])".to_owned());
    }
    read(&format!("window = {value}\n"), WINDOWS.env[0], read_windows)
        .map_err(|problems| problems.to_string())
}

impl Settings {
    /// The windows: those of the environment, else those of the file.
    pub(super) fn calendar(&self) -> Arc<Calendar> {
        // The text was checked when it was read.
        let environment = self.get(&WINDOWS).and_then(|text| from_text(text).ok());
        Arc::new(environment.unwrap_or_else(|| self.windows.clone()))
    }

    /// The profile's name, and how jobs are paced by profile and configuration, for a forecast.
    pub(crate) fn pacing(&self) -> Result<(String, BankConfig), Failure> {
        let profile = self.profile()?;
        let mut config = BankConfig {
            limits: profile.limits_with(self.limits.clone()),
            calendar: self.calendar(),
            stagger_seed: self.instance().as_deref().map(stagger_seed).unwrap_or_default(),
            ..BankConfig::default()
        };
        self.lay_over_all(&mut config.policies);
        Ok((profile.name, config))
    }

    /// What this process is called among those that share a stagger: as it was named, else as its machine is.
    pub(crate) fn instance(&self) -> Option<String> {
        let named = self.get(&INSTANCE).map(str::to_owned);
        let machine = || {
            std::fs::read_to_string("/proc/sys/kernel/hostname")
                .or_else(|_| std::fs::read_to_string("/etc/hostname"))
        };
        named.or_else(|| machine().ok()).map(|name| name.trim().to_owned()).filter(|name| !name.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{connection, env, file};
    use super::*;

    const FILE: &str = "[[window]]\nname = \"night\"\ncron = \"0 23 * * *\"\ntz = \"UTC\"\nfor = \"6h\"\nhold = [\"poll\"]\n";

    #[test]
    fn the_environments_windows_go_before_the_files() {
        let (_folder, in_file) = file(FILE);
        let names = |pairs: &[(&str, &str)]| -> Vec<String> {
            let settings = Settings::load(&in_file, &env(pairs)).unwrap();
            settings.calendar().windows().iter().map(|window| window.name.clone()).collect()
        };
        assert_eq!(names(&[]), ["night"]);
        let day =
            "[{ name = \"day\", cron = \"0 6 * * *\", tz = \"UTC\", for = \"1h\", reserve = { sync = 20 } }]";
        assert_eq!(names(&[("TIDEGATE_WINDOW", day)]), ["day"]);
        assert!(names(&[("TIDEGATE_WINDOW", "[]")]).is_empty());
    }

    #[test]
    fn every_problem_of_the_environments_windows_is_told() {
        let load = |text: &str| {
            Settings::load(&connection(), &env(&[("TIDEGATE_WINDOW", text)])).unwrap_err().message
        };
        let told =
            load("[{ name = \"a\", cron = \"61 6 * * *\", tz = \"Nowhere\", for = \"1h\", hold = [\"x\"] }]");
        for part in
            ["TIDEGATE_WINDOW: ", "`61` is no minute", "`Nowhere` is no time zone", "`x` is not a class"]
        {
            assert!(told.contains(part), "{told}\nlacks {part}");
        }
        assert!(load("night").contains("is no list of windows"));
        assert!(load("[\nother = 1").starts_with("TIDEGATE_WINDOW"));
    }

    #[test]
    fn an_instance_is_called_as_it_was_named_or_as_its_machine() {
        let of = |pairs: &[(&str, &str)]| Settings::load(&connection(), &env(pairs)).unwrap().instance();
        assert_eq!(of(&[("TIDEGATE_INSTANCE", "north-1")]).as_deref(), Some("north-1"));
        assert_eq!(of(&[]), of(&[]));
    }
}
