//! Where an upstream lives.

use super::near::nearest;
use super::reader::Section;

/// The hosts of an upstream, by region.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Regions {
    /// The API's host, in which `{region}` stands for the region.
    pub api: String,
    /// The login's host, likewise.
    pub login: String,
    /// The region taken where none is named; absent if there are none.
    pub default: Option<String>,
    /// Every region.
    pub names: Vec<String>,
    /// Other names of regions, each with the region it means.
    pub aliases: Vec<(String, String)>,
}

impl Regions {
    /// The API's and the login's host for a region or one of its other names; an empty text is the default region.
    /// A region that is not listed has none: credentials must not go to a host somebody misspelt.
    pub fn hosts(&self, region: &str) -> Option<(String, String)> {
        if !self.is_regional() {
            return region.is_empty().then(|| (self.api.clone(), self.login.clone()));
        }
        let region = if region.is_empty() { self.default.as_deref()? } else { region };
        let alias = self.aliases.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(region));
        let meant = alias.map_or(region, |(_, meant)| meant.as_str());
        let known = self.names.iter().find(|name| name.eq_ignore_ascii_case(meant))?;
        let host = |template: &str| template.replace("{region}", known);
        Some((host(&self.api), host(&self.login)))
    }

    /// The listed region or other name nearest to a misspelt one.
    pub fn nearest(&self, region: &str) -> Option<&str> {
        let aliases = self.aliases.iter().map(|(alias, _)| alias.as_str());
        nearest(region, self.names.iter().map(String::as_str).chain(aliases))
    }

    fn is_regional(&self) -> bool {
        self.api.contains("{region}") || self.login.contains("{region}")
    }
}

/// Reads `[hosts]`.
pub(super) fn read(section: &Section<'_>) -> Regions {
    let api =
        section.required("api", "api = \"api.example.com\"", section.parsed("api", host)).unwrap_or_default();
    let login = section.parsed("login", host).unwrap_or_else(|| api.clone());
    let names = section.each("regions", host).unwrap_or_default();
    let default = section.string("default");
    let mut aliases = Vec::new();
    if let Some(table) = section.section("aliases") {
        for alias in table.keys() {
            let Some(meant) = table.string(&alias) else { continue };
            if !names.contains(&meant) {
                table.problem(&alias, format_args!("`{meant}` is not among `regions` (add it there)"));
            }
            aliases.push((alias, meant));
        }
    }
    let regions = Regions { api, login, default, names, aliases };
    check(section, &regions);
    regions
}

fn check(section: &Section<'_>, regions: &Regions) {
    if regions.is_regional() && regions.names.is_empty() {
        section.problem("regions", "is missing, but a host has {region} (list the regions)");
    }
    if !regions.is_regional() && !regions.names.is_empty() {
        section.problem("regions", "is of no use without {region} in `api` or `login` (add it there)");
    }
    if let Some(default) = &regions.default
        && !regions.names.contains(default)
    {
        section.problem("default", format_args!("`{default}` is not among `regions` (add it there)"));
    }
}

/// A host name, perhaps with a port, perhaps with `{region}` in it.
fn host(text: &str) -> Result<String, String> {
    let bare = text.replace("{region}", "region");
    let (name, port) = bare.split_once(':').map_or((bare.as_str(), None), |(name, port)| (name, Some(port)));
    let label =
        |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !name.split('.').all(label) || port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err(format!(
            "`{text}` is no host name (write it without scheme and path, such as \"api.example.com\")"
        ));
    }
    Ok(text.to_owned())
}
