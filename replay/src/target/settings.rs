//! Settings of a target, by name: what it does not know is refused with what it does.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value as Json;

/// Why a setting cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingError {
    /// The target has no such setting.
    #[error("set {name}: {target} knows only {known}")]
    Unknown {
        /// The setting.
        name: String,
        /// The target.
        target: String,
        /// What it knows.
        known: String,
    },
    /// It has no name or no value.
    #[error("set {0:?}: write it as NAME=VALUE")]
    Malformed(String),
    /// Its value cannot be used.
    #[error("set {name}: {reason}")]
    Wrong {
        /// The setting.
        name: String,
        /// Why not.
        reason: String,
    },
}

/// `NAME=VALUE` pairs, values as JSON where they are JSON.
///
/// # Errors
/// [`SettingError::Malformed`].
pub fn pairs(texts: &[String]) -> Result<BTreeMap<String, Json>, SettingError> {
    let pair = |text: &String| {
        let (name, value) = text.split_once('=').filter(|(name, _)| !name.trim().is_empty())?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| Json::from(value));
        Some((name.trim().to_owned(), value))
    };
    texts
        .iter()
        .map(|text| pair(text).ok_or_else(|| SettingError::Malformed(text.clone())))
        .collect()
}

/// What may be changed of the requests to a service. What is not set stays as it was recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceSettings {
    /// Fields of every request's body that differ from the recording, by name.
    pub body: BTreeMap<String, Json>,
    /// Route to which every operation's input is posted as it is, under the service's address;
    /// `None` for the routes of OpenAI's interface.
    pub route: Option<String>,
    /// Longest one call may take, its whole answer included.
    pub timeout: Duration,
    /// Environment variable with the key.
    pub api_key_env: String,
}

impl ServiceSettings {
    /// Fields of a request's body that may be set.
    pub const BODY: [&str; 9] = [
        "model",
        "temperature",
        "top_p",
        "max_tokens",
        "max_completion_tokens",
        "seed",
        "stream",
        "reasoning_effort",
        "dimensions",
    ];

    /// Settings out of `NAME=VALUE` pairs.
    ///
    /// # Errors
    /// See [`SettingError`].
    pub fn parse(texts: &[String]) -> Result<Self, SettingError> {
        let mut settings = Self {
            body: BTreeMap::new(),
            route: None,
            timeout: TIMEOUT,
            api_key_env: "OPENAI_API_KEY".to_owned(),
        };
        for (name, value) in pairs(texts)? {
            let wrong = |reason: &str| SettingError::Wrong {
                name: name.clone(),
                reason: reason.to_owned(),
            };
            match name.as_str() {
                known if Self::BODY.contains(&known) => {
                    if value.is_array() || value.is_object() {
                        return Err(wrong("it must be a number, a word, true or false"));
                    }
                    settings.body.insert(name, value);
                }
                "route" => {
                    let route = value.as_str().filter(|route| is_route(route));
                    let route = route.ok_or_else(|| wrong("it must be a path such as /query"))?;
                    settings.route = Some(route.to_owned());
                }
                "timeout_ms" => {
                    let ms = value.as_u64().filter(|ms| *ms > 0);
                    let ms = ms.ok_or_else(|| wrong("it must be a number of milliseconds"))?;
                    settings.timeout = Duration::from_millis(ms);
                }
                "api_key_env" => {
                    let variable = value.as_str().ok_or_else(|| wrong("it must be a name"))?;
                    settings.api_key_env = variable.to_owned();
                }
                _ => {
                    let own = ["route", "timeout_ms", "api_key_env"];
                    let known = [Self::BODY.as_slice(), &own].concat().join(", ");
                    let target = "a service over HTTP".to_owned();
                    return Err(SettingError::Unknown { name, target, known });
                }
            }
        }
        Ok(settings)
    }

    /// The settings by name, for the run.
    #[must_use]
    pub fn recordable(&self) -> BTreeMap<String, Json> {
        let mut settings = self.body.clone();
        settings.extend(self.route.as_ref().map(|r| ("route".to_owned(), r.as_str().into())));
        let timeout = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX);
        settings.insert("timeout_ms".to_owned(), timeout.into());
        settings.insert("api_key_env".to_owned(), self.api_key_env.as_str().into());
        settings
    }
}

/// A path and nothing else: no host, no parameters, no way up.
fn is_route(route: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.');
    route.starts_with('/')
        && !route.starts_with("//")
        && route.chars().all(is_plain)
        && route.split('/').all(|part| part != "..")
}

/// A long answer takes minutes; a service that hangs must not hold up the end of a replay for ever.
const TIMEOUT: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: settings that a service has, and some that it has not.
    /// Guarantees: an unknown one is refused with the list of the known ones.
    #[test]
    fn an_unknown_setting_names_the_known_ones() {
        let parse = |texts: &[&str]| {
            ServiceSettings::parse(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
        };
        let good =
            parse(&["model=m-2", "temperature=0.5", "stream=true", "timeout_ms=50"]).unwrap();
        assert_eq!(good.body["temperature"], 0.5);
        assert_eq!((&good.body["model"], &good.body["stream"]), (&"m-2".into(), &true.into()));
        assert_eq!(good.timeout, Duration::from_millis(50));
        let unknown = parse(&["embed.batch_size=8"]).unwrap_err().to_string();
        assert!(
            unknown.contains("embed.batch_size") && unknown.contains("temperature"),
            "{unknown}"
        );
        for wrong in [
            "model",
            "=3",
            "model={}",
            "timeout_ms=0",
            "route=http://x/",
            "route=//x",
            "route=/../x",
            "route=/x?y=1",
        ] {
            assert!(parse(&[wrong]).is_err(), "{wrong}");
        }
        assert_eq!(parse(&["route=/v1/ask"]).unwrap().route.as_deref(), Some("/v1/ask"));
    }
}
