//! Settings from flags, environment, file and defaults, in that order of precedence.

use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Env, Format as _, Serialized, Toml};
use retake_recorder::redact::Redactor;
use retake_schemas::settings::Settings;

use crate::failure::{Code, Failure};

/// Where settings come from.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    figment: Figment,
    /// The file in use, if there is one.
    pub(crate) file: Option<PathBuf>,
    pub(crate) settings: Settings,
}

/// The settings of somebody who has set nothing but where the store is: for when the others cannot
/// be read.
pub(crate) fn defaults() -> Config {
    let store = std::env::var("RETAKE_STORE").ok();
    let settings = Settings { store, ..Settings::default() };
    Config { figment: Figment::from(Serialized::defaults(&settings)), file: None, settings }
}

/// Reads the settings.
pub(crate) fn load(explicit: Option<&Path>) -> Result<Config, Failure> {
    let file = match explicit {
        Some(path) if !path.is_file() => {
            return Err(Failure::new(
                Code::NotFound,
                format!("read configuration {}: no such file", path.display()),
            ));
        }
        Some(path) => Some(path.to_owned()),
        None => found_upward("retake.toml"),
    };
    let mut figment = Figment::from(Serialized::defaults(Settings::default()));
    if let Some(path) = &file {
        figment = figment.merge(Toml::file_exact(path));
    }
    // Other variables of this prefix (RETAKE_MODEL_DIR) are not settings; one with a section in
    // its name is, so that a misspelt section is an error and not silence.
    let is_setting =
        |name: &figment::value::UncasedStr| name == "store" || name.as_str().contains("__");
    let env = Env::prefixed("RETAKE_").filter(is_setting).split("__");
    figment = figment.merge(env);
    let settings: Settings = figment.extract().map_err(|error| {
        Failure::new(Code::Usage, format!("read configuration: {error}"))
            .help("`retake config --explain` shows every setting with its origin; docs/configuration.md lists them")
    })?;
    settings.record.check()?;
    settings.rag.check()?;
    settings.prices.check()?;
    // A rule that cannot run must stop the command, not let through what it should take out.
    Redactor::new(&settings.record.redact)
        .map_err(|error| Failure::new(Code::Usage, format!("read configuration: {error}")))?;
    Ok(Config { figment, file, settings })
}

impl Config {
    /// Where a setting's value came from: `default`, a file, or the environment.
    pub(crate) fn origin(&self, name: &str) -> String {
        let Some(metadata) = self.figment.find_metadata(name) else {
            return "default".to_owned();
        };
        match &metadata.source {
            Some(figment::Source::File(path)) => path.display().to_string(),
            _ if metadata.name.contains("environment") => {
                format!("environment RETAKE_{}", name.to_uppercase().replace('.', "__"))
            }
            _ => "default".to_owned(),
        }
    }
}

/// The nearest file or folder of this name here or in a folder above.
pub(crate) fn found_upward(name: &str) -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    here.ancestors().map(|folder| folder.join(name)).find(|path| path.exists())
}
