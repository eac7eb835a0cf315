//! `[merge]`: whether and how small writes share bulk calls.

use std::time::Duration;

use tidegate::Profile;
use tidegate_core::merge::{Bounds, LONGEST_WINDOW, read_merges};
use tidegate_core::profile::parse_duration;
use tidegate_core::profile::reader::Section;
use tidegate_gateway::MergeConfig;

use super::Settings;
use super::keys::{Key, MERGE_ENABLED, MERGE_OFF, MERGE_WINDOW};
use super::sources::last;
use crate::failure::Failure;

/// Reads the table.
pub(super) fn read(section: &Section<'_>, settings: &mut Settings) {
    let enabled = section.boolean(last(MERGE_ENABLED.name));
    settings.set(&MERGE_ENABLED, enabled.map(|enabled| enabled.to_string()));
    let text = |key: &Key| section.parsed(last(key.name), |text| (key.check)(text).map(|()| text.to_owned()));
    settings.set(&MERGE_WINDOW, text(&MERGE_WINDOW));
    let off = section.each(last(MERGE_OFF.name), |text| Ok::<_, String>(text.to_owned()));
    settings.set(&MERGE_OFF, off.map(|off| off.join(",")));
    settings.merges = read_merges(section, "rule");
}

/// How long writes wait for others: none or up to a second.
pub(super) fn window(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        longer if longer > LONGEST_WINDOW => Err(format!(
            "{text} is longer than {LONGEST_WINDOW:?} (every merged write waits so long; what saves calls is the wait for quota)"
        )),
        window => Ok(window),
    }
}

impl Settings {
    /// How writes are merged; `None` if they are not. `profiles` are those of the tenants that are served.
    ///
    /// # Errors
    /// A rule is switched off that there is not.
    pub(crate) fn merging<'p>(
        &self,
        profiles: impl IntoIterator<Item = &'p Profile>,
    ) -> Result<Option<MergeConfig>, Failure> {
        let off = self.get(&MERGE_OFF).unwrap_or_default().split(',').map(str::trim);
        let off: Vec<String> = off.filter(|name| !name.is_empty()).map(str::to_owned).collect();
        let mut known: Vec<&str> = self.merges.iter().map(|rule| rule.name.as_str()).collect();
        known.extend(profiles.into_iter().flat_map(|profile| &profile.merge).map(|rule| rule.name.as_str()));
        known.sort_unstable();
        known.dedup();
        let unknown: Vec<String> = off
            .iter()
            .filter(|name| !known.contains(&name.as_str()))
            .map(|name| {
                format!("{}: there is no rule `{name}` (there are: {})", MERGE_OFF.name, known.join(", "))
            })
            .collect();
        if !unknown.is_empty() {
            return Err(Failure::usage(unknown.join("\n")));
        }
        if self.get(&MERGE_ENABLED) != Some("true") {
            return Ok(None);
        }
        let default = Bounds::default();
        let window = self.get(&MERGE_WINDOW).and_then(|text| window(text).ok()).unwrap_or(default.window);
        Ok(Some(MergeConfig { bounds: Bounds { window, ..default }, off, rules: self.merges.clone() }))
    }
}

#[cfg(test)]
mod tests {
    use tidegate_core::profile::reader;

    use super::*;

    fn settings(text: &str) -> Result<Settings, String> {
        let mut settings = Settings::default();
        let read = reader::read(text, "f", |file| {
            if let Some(section) = file.section("merge") {
                read(&section, &mut settings);
            }
        });
        read.map(|()| settings).map_err(|problems| problems.to_string())
    }

    fn merging(text: &str) -> Result<Option<MergeConfig>, String> {
        let genesys = Profile::builtin("genesys").unwrap();
        settings(text)?.merging([&genesys]).map_err(|failure| failure.message)
    }

    #[test]
    fn nothing_is_merged_unless_it_is_switched_on() {
        assert!(merging("").unwrap().is_none());
        assert!(merging("[merge]\nwindow = '20ms'\n").unwrap().is_none());
        let on =
            merging("[merge]\nenabled = true\nwindow = '20ms'\noff = ['user-skills']\n").unwrap().unwrap();
        assert_eq!(
            (on.bounds.window, on.off.as_slice()),
            (Duration::from_millis(20), &["user-skills".to_owned()][..])
        );
    }

    #[test]
    fn a_window_that_is_too_long_and_a_rule_that_is_not_there_are_told() {
        let told = settings("[merge]\nenabled = 1\nwindow = '2s'\n[[merge.rule]]\nname = 'x'\n").unwrap_err();
        for expected in [
            "f:2: merge.enabled: ",
            "f:3: merge.window: 2s is longer than 1s",
            "f:4: merge.rule[0].into: is missing",
        ] {
            assert!(told.contains(expected), "{expected} is not in\n{told}");
        }
        let told = merging("[merge]\noff = ['skills']\n").unwrap_err();
        assert!(told.contains("merge.off: there is no rule `skills` (there are: user-languages,"), "{told}");
    }
}
