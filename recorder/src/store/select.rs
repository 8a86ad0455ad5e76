//! Run selectors: `last`, `last~1`, an id, a unique prefix of one, a name, `label:key=value`; and
//! sets of runs made of them.

use std::str::FromStr;

use retake_schemas::RunId;
use retake_schemas::event::RunStatus;
use retake_schemas::manifest::Manifest;

use super::{RunEntry, Store, StoreError};
use crate::upkeep::gc::BASELINE_LABEL;

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

impl Store {
    /// The runs that a set of runs names, in the order named: selectors separated by commas, each
    /// one run; `SELECTOR*5` for the five youngest finished runs that a label, a name or `last`
    /// would give one of, `SELECTOR*` for all of them; `baseline:NAME` for all runs of a baseline.
    ///
    /// # Errors
    /// See [`SelectError`].
    pub fn select_set(&self, text: &str) -> Result<Vec<RunId>, SelectError> {
        select_set_among(&self.runs()?, text)
    }
}

/// The runs of `runs`, oldest first, that a set names; see [`Store::select_set`].
///
/// # Errors
/// See [`SelectError`].
pub fn select_set_among(runs: &[RunEntry], text: &str) -> Result<Vec<RunId>, SelectError> {
    let mut found: Vec<RunId> = Vec::new();
    for part in text.split(',').map(str::trim) {
        let several = match part.strip_prefix("baseline:") {
            Some(name) => baseline(runs, name, part)?,
            None => match part.rsplit_once('*') {
                Some((selector, count)) => youngest_of(runs, selector, count, part)?,
                None => vec![select_among(runs, part)?],
            },
        };
        found.extend(
            several.into_iter().filter(|run_id| !found.contains(run_id)).collect::<Vec<_>>(),
        );
    }
    Ok(found)
}

fn baseline(runs: &[RunEntry], name: &str, text: &str) -> Result<Vec<RunId>, SelectError> {
    let found = matching(runs, |manifest| {
        manifest.facts.labels.get(BASELINE_LABEL).is_some_and(|label| label == name)
    });
    match found.is_empty() {
        false => Ok(found),
        true => Err(SelectError::NotFound {
            selector: text.to_owned(),
            reason: format!(
                "no run is in baseline {name:?}; `retake baseline set {name} RUNS` puts some there"
            ),
        }),
    }
}

fn youngest_of(
    runs: &[RunEntry],
    selector: &str,
    count: &str,
    text: &str,
) -> Result<Vec<RunId>, SelectError> {
    let not_found = |reason: &str| SelectError::NotFound {
        selector: text.to_owned(),
        reason: reason.to_owned(),
    };
    let count: usize =
        match count {
            "" => usize::MAX,
            count => count.parse().ok().filter(|count| *count > 0).ok_or_else(|| {
                not_found("after * stands how many runs, from 1, or nothing for all")
            })?,
        };
    let Ok(parsed) = selector.parse::<Selector>();
    let is_finished = |manifest: &Manifest| manifest.status == RunStatus::Finished;
    let mut found = match &parsed {
        Selector::Last(back) => {
            let mut found = matching(runs, is_finished);
            found.truncate(found.len().saturating_sub(*back));
            found
        }
        Selector::Label(key, value) => matching(runs, |manifest| {
            is_finished(manifest) && manifest.facts.labels.get(key) == Some(value)
        }),
        Selector::Text(name) => {
            matching(runs, |manifest| is_finished(manifest) && manifest.facts.name == *name)
        }
    };
    if found.is_empty() {
        return Err(not_found("no finished run has that name or label"));
    }
    Ok(found.split_off(found.len().saturating_sub(count)))
}

fn matching(runs: &[RunEntry], is_wanted: impl Fn(&Manifest) -> bool) -> Vec<RunId> {
    let wanted = |run: &&RunEntry| run.manifest.as_ref().is_ok_and(&is_wanted);
    runs.iter().filter(wanted).map(|run| run.run_id.clone()).collect()
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
