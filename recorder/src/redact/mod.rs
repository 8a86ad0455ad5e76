//! Redaction: taking secrets and personal data out of texts before they leave the program.
//!
//! Two jobs. [`Redactor::scrub`] takes keys and tokens out of everything that is not content
//! (attribute values, log lines, error messages, span names), in every capture mode.
//! [`Redactor::redact`] makes contents fit for `capture = "redacted"`: all detectors the settings
//! name, the user's patterns, and rules of the program's own in Rust.
//!
//! What is taken out becomes `[redacted:<name>]`. Redacting twice is redacting once, and no text
//! can make it slow: the automata of `regex` take time linear in the text whatever the pattern
//! (there is no backtracking to blow up), and passes over a text are few.
//!
//! Detection is by shape, so it has both kinds of error: a secret without any shape, in no
//! telling place, is not found, and an innocent text that looks like a key is taken out. The only
//! policy that keeps no text for certain is `digest` (the default) or `off`.

mod clean;
mod events;
mod keys;
mod marks;
mod numbers;
mod personal;
pub(crate) mod quiet;

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, OnceLock};

use regex::{Regex, RegexBuilder};
use retake_schemas::redaction::{Detector, RedactRule, RedactSettings, mark};

use crate::capture::cut;
pub(crate) use clean::CleanTexts;
pub(crate) use keys::is_secret_key;
use keys::{BUILT_IN, KeyScan, secret_of};
use marks::{Finding, MarkNames, NAME_BYTES_MAX, failed_mark};

pub(crate) use quiet::catch_quietly;

/// A redaction rule that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedactError {
    /// The name would not read back from a mark.
    #[error(
        "use redaction rule {name:?}: a rule's name has 1 to {NAME_CHARS_MAX} lower-case letters, \
         digits, `_` or `-`; rename it in [record.redact]"
    )]
    Name {
        /// The name as given.
        name: String,
    },
    /// The pattern is no regular expression, or too large a one.
    #[error("use redaction rule {name:?}: {source}; correct its pattern in [record.redact]")]
    Pattern {
        /// The rule.
        name: String,
        /// What is wrong with the pattern.
        #[source]
        source: Box<regex::Error>,
    },
}

/// Takes secrets and personal data out of texts. A clone shares the rules and has caches of its
/// own: threads that redact a lot want one each.
#[derive(Clone)]
pub struct Redactor {
    /// Made on first use, because compiling the built-in patterns takes milliseconds.
    keys: OnceLock<KeyScan>,
    finds_keys: bool,
    detectors: Vec<Detector>,
    patterns: Vec<(String, Regex)>,
    functions: Vec<(String, Function)>,
    names: MarkNames,
}

/// A rule in Rust: the text without what must not be kept, or `None` when it may stay as it is.
type Function = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

impl Redactor {
    /// A redactor by settings.
    ///
    /// # Errors
    /// A rule's name or pattern cannot be used.
    pub fn new(settings: &RedactSettings) -> Result<Self, RedactError> {
        let detectors = settings.detectors.clone();
        let mut names = MarkNames::default();
        KeyScan::names().for_each(|name| names.add(name));
        detectors.iter().filter_map(|d| personal::name(*d)).for_each(|name| names.add(name));
        names.add(UNSTABLE);
        let mut redactor = Self {
            keys: OnceLock::new(),
            finds_keys: detectors.contains(&Detector::Keys),
            detectors,
            patterns: Vec::with_capacity(settings.rules.len()),
            functions: Vec::new(),
            names,
        };
        for rule in &settings.rules {
            redactor.names.add(checked_name(&rule.name)?);
            redactor.patterns.push((rule.name.clone(), compile(rule)?));
        }
        Ok(redactor)
    }

    /// Adds a rule in Rust, run on every content before all other rules. It gives the text
    /// without what must not be kept, or `None` to leave it as it is.
    ///
    /// A changed text without the mark `[redacted:<name>]` gets it at its end, so that readers,
    /// and replays, can tell it is not the original. Should the rule panic, it fails closed: the
    /// whole text becomes `[redacted:<name> failed]`, and the program goes on.
    ///
    /// # Errors
    /// The name cannot be used.
    pub fn with(
        mut self,
        name: impl Into<String>,
        rule: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> Result<Self, RedactError> {
        let name = checked_name(&name.into())?;
        self.names.add(name.clone());
        self.functions.push((name, Arc::new(rule)));
        Ok(self)
    }

    /// A content as `capture = "redacted"` keeps it.
    #[must_use]
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        for (name, rule) in &self.functions {
            if let Some(changed) = run(name, rule, &text) {
                text = Cow::Owned(changed);
            }
        }
        self.settle(text, |text, findings| self.find(text, findings))
    }

    /// A text that is not content, without keys and tokens.
    #[must_use]
    pub fn scrub<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let keys = self.keys();
        if !keys.is_suspicious(text) {
            return Cow::Borrowed(text);
        }
        self.settle(Cow::Borrowed(text), |text, findings| keys.find(text, findings))
    }

    /// The value of an attribute, without keys and tokens; all of it when the key says that it is
    /// a secret, such as `password` or `http.request.header.authorization`.
    #[must_use]
    pub fn scrub_attribute<'a>(&self, key: &str, text: &'a str) -> Cow<'a, str> {
        match secret_of(key, text) {
            Some(_) if self.names.is_mark(text) => Cow::Borrowed(text),
            Some(name) => Cow::Owned(mark(name)),
            None => self.scrub(text),
        }
    }

    /// [`Redactor::scrub`], and then the start of the text that fits `max_bytes`; `true` when
    /// there was more. A secret across the cut is taken out as well, which cutting first would
    /// leave half of; of a far longer text only the part near the cut is looked at.
    #[must_use]
    pub fn scrub_cut<'a>(&self, text: &'a str, max_bytes: usize) -> (Cow<'a, str>, bool) {
        let (near, is_far_longer) = cut(text, max_bytes.saturating_add(ACROSS_CUT_BYTES));
        match self.scrub(near) {
            Cow::Borrowed(clean) => {
                let (kept, is_cut) = cut(clean, max_bytes);
                (Cow::Borrowed(kept), is_cut || is_far_longer)
            }
            Cow::Owned(clean) => {
                let (kept, is_cut) = cut(&clean, max_bytes);
                (Cow::Owned(kept.to_owned()), is_cut || is_far_longer)
            }
        }
    }

    fn keys(&self) -> &KeyScan {
        self.keys.get_or_init(|| BUILT_IN.clone())
    }

    /// Adds everything the settings' detectors and patterns find.
    fn find<'r>(&'r self, text: &str, findings: &mut Vec<Finding<'r>>) {
        if self.finds_keys && self.keys().is_suspicious(text) {
            self.keys().find(text, findings);
        }
        for detector in &self.detectors {
            personal::find(*detector, text, findings);
        }
        for (name, pattern) in &self.patterns {
            let matches = pattern.find_iter(text).filter(|found| !found.is_empty());
            findings.extend(matches.map(|found| Finding { range: found.range(), name }));
        }
    }

    /// Repeats passes until one changes nothing: taking something out can bring two halves of
    /// something else together. A text that does not settle is taken out whole.
    fn settle<'a, 'r>(
        &'r self,
        text: Cow<'a, str>,
        find: impl Fn(&str, &mut Vec<Finding<'r>>),
    ) -> Cow<'a, str> {
        let mut text = text;
        for _ in 0..PASSES_MAX {
            let mut findings = Vec::new();
            find(&text, &mut findings);
            match self.names.put(&text, &findings) {
                Some(changed) => text = Cow::Owned(changed),
                None => return text,
            }
        }
        Cow::Owned(mark(UNSTABLE))
    }
}

impl Default for Redactor {
    fn default() -> Self {
        match Self::new(&RedactSettings::default()) {
            Ok(redactor) => redactor,
            // Without rules of the user's own there is nothing that could be wrong.
            Err(error) => unreachable!("default redaction: {error}"),
        }
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |rules: &[(String, Function)]| {
            rules.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>()
        };
        f.debug_struct("Redactor")
            .field("detectors", &self.detectors)
            .field("patterns", &self.patterns)
            .field("functions", &names(&self.functions))
            .finish_non_exhaustive()
    }
}

/// What a rule in Rust makes of a text; `None` when it stays.
fn run(name: &str, rule: &Function, text: &str) -> Option<String> {
    let Some(outcome) = catch_quietly(|| rule(text)) else {
        return Some(failed_mark(name));
    };
    let mut changed = outcome.filter(|changed| changed != text)?;
    let mark = mark(name);
    if !changed.contains(&mark) {
        changed.push_str(&mark);
    }
    Some(changed)
}

fn compile(rule: &RedactRule) -> Result<Regex, RedactError> {
    RegexBuilder::new(&rule.pattern)
        .size_limit(PATTERN_BYTES_MAX)
        .dfa_size_limit(PATTERN_BYTES_MAX)
        .build()
        .map_err(|source| RedactError::Pattern { name: rule.name.clone(), source: source.into() })
}

fn checked_name(name: &str) -> Result<String, RedactError> {
    let is_allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    if (1..=NAME_CHARS_MAX).contains(&name.len()) && name.bytes().all(is_allowed) {
        Ok(name.to_owned())
    } else {
        Err(RedactError::Name { name: name.to_owned() })
    }
}

/// Leaves room for ` failed` in a mark.
const NAME_CHARS_MAX: usize = 32;
const _: () = assert!(NAME_CHARS_MAX + " failed]".len() <= NAME_BYTES_MAX);
/// A compiled pattern and its caches: a repeated Unicode class reaches this with about 20 copies.
const PATTERN_BYTES_MAX: usize = 1 << 20;
/// Ordinary texts settle in two; a pattern such as `^.` would take one per character.
const PASSES_MAX: usize = 16;
/// Name in the mark of a text that does not settle.
const UNSTABLE: &str = "unstable";
/// Longer than any key or token; a private key cut at its end is recognised by its beginning.
const ACROSS_CUT_BYTES: usize = 8 << 10;

#[cfg(test)]
mod tests;
