//! What a garbage collection is asked to do.

use std::collections::BTreeMap;
use std::time::Duration;

use super::StoredRun;

/// Which runs are too many. A run goes when its age or the size of the store says so, never when
/// something protects it; with neither age nor size given, everything beyond `keep_last` goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Criteria {
    /// Only these runs are looked at; the others stay.
    pub filter: Filter,
    /// Runs that ended longer ago than this go.
    pub older_than: Option<Duration>,
    /// The youngest so many of the runs looked at stay.
    pub keep_last: Option<usize>,
    /// The oldest runs go until all runs of the store together have at most so many bytes.
    pub bytes_max: Option<u64>,
    /// Baselines and the sources of replays that stay are not protected.
    pub is_forced: bool,
}

impl Criteria {
    /// Whether anything could go at all. Without a limit nothing does.
    #[must_use]
    pub fn has_limit(&self) -> bool {
        self.older_than.is_some() || self.keep_last.is_some() || self.bytes_max.is_some()
    }
}

/// Which runs are looked at; everything given must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Runs with all of these labels.
    pub labels: BTreeMap<String, String>,
    /// Runs of this name.
    pub name: Option<String>,
    /// Runs of this service.
    pub service: Option<String>,
}

impl Filter {
    pub(super) fn fits(&self, run: &StoredRun) -> bool {
        self.labels.iter().all(|(key, value)| run.labels.get(key) == Some(value))
            && self.name.as_ref().is_none_or(|name| *name == run.name)
            && self.service.as_ref().is_none_or(|service| *service == run.service)
    }
}

/// A run with this label is a baseline, whatever the label's value: others are compared with it.
pub const BASELINE_LABEL: &str = "baseline";
