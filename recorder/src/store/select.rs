//! Run selectors: `last`, `last~1`, an id, a unique prefix of one, a name, `label:key=value`.

use std::str::FromStr;

use retake_schemas::RunId;

use super::{RunEntry, Store, StoreError};

/// What a user may write to name a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// The nth youngest run, 0 for the youngest.
    Last(usize),
    /// The youngest run with this label.
    Label(String, String),
    /// An id, a unique prefix of one, or a name (then the youngest of that name).
    Text(String),
}

impl FromStr for Selector {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "last" {
            return Ok(Self::Last(0));
        }
        if let Some(Ok(back)) = text.strip_prefix("last~").map(str::parse) {
            return Ok(Self::Last(back));
        }
        if let Some((key, value)) = text.strip_prefix("label:").and_then(|l| l.split_once('=')) {
            return Ok(Self::Label(key.to_owned(), value.to_owned()));
        }
        Ok(Self::Text(text.to_owned()))
    }
}

/// Why a selector names no run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SelectError {
    /// Nothing matches.
    #[error("find run {selector:?}: {reason}; `retake runs` lists them")]
    NotFound {
        /// As written.
        selector: String,
        /// How far the search came.
        reason: String,
    },
    /// A prefix that several runs share.
    #[error("find run {selector:?}: {} runs start with it: {}", .found.len(), .found.join(", "))]
    Ambiguous {
        /// As written.
        selector: String,
        /// The runs, at most ten.
        found: Vec<String>,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// The run a selector names.
    ///
    /// # Errors
    /// See [`SelectError`].
    pub fn select(&self, text: &str) -> Result<RunId, SelectError> {
        select_among(&self.runs()?, text)
    }
}

/// The one of `runs`, oldest first, that a selector names.
///
/// # Errors
/// See [`SelectError`].
pub fn select_among(runs: &[RunEntry], text: &str) -> Result<RunId, SelectError> {
    let not_found = |reason: String| SelectError::NotFound { selector: text.to_owned(), reason };
    let Ok(selector) = text.parse::<Selector>();
    match &selector {
        Selector::Last(back) => runs
            .iter()
            .rev()
            .nth(*back)
            .map(|run| run.run_id.clone())
            .ok_or_else(|| not_found(format!("the store has {} runs", runs.len()))),
        Selector::Label(key, value) => youngest(runs, |run| {
            run.manifest.as_ref().is_ok_and(|m| m.facts.labels.get(key) == Some(value))
        })
        .ok_or_else(|| not_found(format!("no run has label {key}={value}"))),
        Selector::Text(wanted) => by_text(runs, wanted, text),
    }
}

fn youngest(runs: &[RunEntry], is_wanted: impl Fn(&RunEntry) -> bool) -> Option<RunId> {
    runs.iter().rev().find(|run| is_wanted(run)).map(|run| run.run_id.clone())
}

/// An exact id first, then a name, then a prefix: a name must not be shadowed by a prefix.
fn by_text(runs: &[RunEntry], wanted: &str, text: &str) -> Result<RunId, SelectError> {
    let exact = youngest(runs, |run| run.run_id.as_str() == wanted);
    let named =
        || youngest(runs, |run| run.manifest.as_ref().is_ok_and(|m| m.facts.name == wanted));
    if let Some(run_id) = exact.or_else(named) {
        return Ok(run_id);
    }
    let matching: Vec<&RunEntry> = runs
        .iter()
        .filter(|run| !wanted.is_empty() && run.run_id.as_str().starts_with(wanted))
        .collect();
    match matching.as_slice() {
        [] => Err(SelectError::NotFound {
            selector: text.to_owned(),
            reason: "no id, name or prefix of an id is like that".to_owned(),
        }),
        [only] => Ok(only.run_id.clone()),
        several => Err(SelectError::Ambiguous {
            selector: text.to_owned(),
            found: several.iter().take(10).map(|run| run.run_id.to_string()).collect(),
        }),
    }
}
