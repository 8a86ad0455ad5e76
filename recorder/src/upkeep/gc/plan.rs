//! The decision about every run, made without touching anything.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use retake_schemas::RunId;

use super::{BASELINE_LABEL, Criteria, RunState, StoredRun};

/// What becomes of a run, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The run.
    pub run_id: RunId,
    /// Size of its folder, bytes.
    pub bytes: u64,
    /// What becomes of it.
    pub verdict: Verdict,
}

impl Decision {
    /// Whether the run goes.
    #[must_use]
    pub fn removes(&self) -> bool {
        matches!(self.verdict, Verdict::Remove(_))
    }
}

/// What becomes of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It stays.
    Keep(KeepReason),
    /// It goes.
    Remove(RemoveReason),
}

impl Verdict {
    /// The reason for machines.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Keep(KeepReason::Recording) => "recording",
            Self::Keep(KeepReason::Unfinished) => "unfinished",
            Self::Keep(KeepReason::Unreadable) => "unreadable",
            Self::Keep(KeepReason::NotSelected) => "not_selected",
            Self::Keep(KeepReason::AmongLast) => "among_last",
            Self::Keep(KeepReason::Baseline(_)) => "baseline",
            Self::Keep(KeepReason::ReplayedBy(_)) => "replayed",
            Self::Keep(KeepReason::WithinLimits) => "within_limits",
            Self::Remove(RemoveReason::TooOld { .. }) => "too_old",
            Self::Remove(RemoveReason::BeyondLast) => "beyond_last",
            Self::Remove(RemoveReason::TooLarge { .. }) => "too_large",
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Keep(reason) => reason.fmt(f),
            Self::Remove(reason) => reason.fmt(f),
        }
    }
}

/// Why a run stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeepReason {
    /// A process holds its lock.
    #[error("is being recorded, or compacted")]
    Recording,
    /// It may hold events that are not sealed.
    #[error("its process died; `retake recover` repairs it")]
    Unfinished,
    /// Nothing is known of it.
    #[error("its manifest cannot be read; `retake verify` says why, `retake runs rm` removes it")]
    Unreadable,
    /// The filter leaves it out.
    #[error("not among the runs asked for")]
    NotSelected,
    /// One of the youngest.
    #[error("one of the last runs")]
    AmongLast,
    /// It has the label that makes it a baseline.
    #[error("is the baseline {0:?}")]
    Baseline(String),
    /// A run that stays replays it.
    #[error("is replayed by run {0}, which stays")]
    ReplayedBy(RunId),
    /// No limit says that it should go.
    #[error("within the limits")]
    WithinLimits,
}

/// Why a run goes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RemoveReason {
    /// It ended too long ago.
    #[error("ended {} days ago", .age.as_secs() / 86_400)]
    TooOld {
        /// How long ago.
        age: Duration,
    },
    /// There are enough younger ones.
    #[error("not one of the last runs")]
    BeyondLast,
    /// All runs together were too large, and it was the oldest that could go.
    #[error("the oldest, while the store had {bytes_before} bytes")]
    TooLarge {
        /// Size of all runs before it went.
        bytes_before: u64,
    },
}

/// Decides about every run; the decisions come oldest run first.
///
/// Age and number are looked at first, then the size of what is left. A run that one of the runs
/// that stay replays is kept, because a replay without its source can no longer be compared; when
/// its last replay goes for the size's sake, it is looked at again.
#[must_use]
pub fn plan(runs: &[StoredRun], criteria: &Criteria, now_unix_ns: i64) -> Vec<Decision> {
    let mut order: Vec<&StoredRun> = runs.iter().collect();
    order.sort_by_key(|run| (run.started_unix_ns, &run.run_id));
    let last = last_runs(&order, criteria);
    let wishes: Vec<Verdict> = order
        .iter()
        .map(|run| alone(run, criteria, last.contains(&run.run_id), now_unix_ns))
        .collect();
    let mut planner = Planner {
        index_of: order.iter().enumerate().map(|(index, run)| (&run.run_id, index)).collect(),
        verdicts: wishes.clone(),
        wishes,
        replays: vec![BTreeSet::new(); order.len()],
        is_forced: criteria.is_forced,
        runs: order,
    };
    planner.keep_sources();
    if let Some(bytes_max) = criteria.bytes_max {
        planner.fit(bytes_max);
    }
    let decided = planner.runs.iter().zip(planner.verdicts);
    decided
        .map(|(run, verdict)| Decision { run_id: run.run_id.clone(), bytes: run.bytes, verdict })
        .collect()
}

/// The runs that `keep_last` keeps.
fn last_runs<'a>(order: &[&'a StoredRun], criteria: &Criteria) -> HashSet<&'a RunId> {
    order
        .iter()
        .rev()
        .filter(|run| run.state != RunState::Unreadable && criteria.filter.fits(run))
        .take(criteria.keep_last.unwrap_or(0))
        .map(|run| &run.run_id)
        .collect()
}

/// What becomes of a run if it were the only one, apart from the size.
fn alone(run: &StoredRun, criteria: &Criteria, is_last: bool, now_unix_ns: i64) -> Verdict {
    let kept = match run.state {
        RunState::Recording => Some(KeepReason::Recording),
        RunState::Unreadable => Some(KeepReason::Unreadable),
        _ if !criteria.filter.fits(run) => Some(KeepReason::NotSelected),
        RunState::Unfinished => Some(KeepReason::Unfinished),
        RunState::Closed if is_last => Some(KeepReason::AmongLast),
        RunState::Closed => run
            .labels
            .get(BASELINE_LABEL)
            .filter(|_| !criteria.is_forced)
            .map(|value| KeepReason::Baseline(value.clone())),
    };
    if let Some(reason) = kept {
        return Verdict::Keep(reason);
    }
    let age_ns = now_unix_ns.saturating_sub(run.ended_unix_ns);
    let age = Duration::from_nanos(u64::try_from(age_ns).unwrap_or(0));
    match criteria.older_than {
        Some(age_max) if age > age_max => Verdict::Remove(RemoveReason::TooOld { age }),
        None if criteria.bytes_max.is_none() && criteria.keep_last.is_some() => {
            Verdict::Remove(RemoveReason::BeyondLast)
        }
        _ => Verdict::Keep(KeepReason::WithinLimits),
    }
}

/// The runs, oldest first, with what is decided so far.
struct Planner<'a> {
    runs: Vec<&'a StoredRun>,
    index_of: HashMap<&'a RunId, usize>,
    /// What each run's own age and place say; the size and the replays come on top.
    wishes: Vec<Verdict>,
    verdicts: Vec<Verdict>,
    /// For each run, the runs that stay and replay it.
    replays: Vec<BTreeSet<usize>>,
    is_forced: bool,
}

impl Planner<'_> {
    /// Keeps what a run that stays replays, and what that replays in turn.
    fn keep_sources(&mut self) {
        let stays = |verdict: &Verdict| matches!(verdict, Verdict::Keep(_));
        let mut staying: Vec<usize> = (0..self.runs.len())
            .filter(|index| self.wishes.get(*index).is_some_and(stays))
            .collect();
        while let Some(replay) = staying.pop() {
            let Some(source) = self.source_of(replay) else { continue };
            if let Some(replays) = self.replays.get_mut(source) {
                replays.insert(replay);
            }
            if self.is_forced || self.verdicts.get(source).is_some_and(stays) {
                continue;
            }
            self.keep_for(source, replay);
            staying.push(source);
        }
    }

    /// Removes the oldest runs that may go until all together are small enough.
    fn fit(&mut self, bytes_max: u64) {
        let decided = self.runs.iter().zip(&self.verdicts);
        let kept = decided.filter(|(_, verdict)| matches!(verdict, Verdict::Keep(_)));
        let mut bytes: u64 = kept.map(|(run, _)| run.bytes).sum();
        let mut free: BTreeSet<usize> =
            (0..self.runs.len()).filter(|index| self.is_free(*index)).collect();
        while bytes > bytes_max
            && let Some(index) = free.pop_first()
        {
            let reason = RemoveReason::TooLarge { bytes_before: bytes };
            bytes -= self.remove(index, reason, &mut free);
        }
        if bytes > bytes_max {
            self.say_what_is_replayed();
        }
    }

    /// Removes a run, and what only stayed because it replays it; returns their size. A source
    /// that the size may now remove too is added to `free`.
    fn remove(&mut self, first: usize, reason: RemoveReason, free: &mut BTreeSet<usize>) -> u64 {
        let mut freed = 0;
        let mut next = Some((first, reason));
        while let Some((index, reason)) = next.take() {
            freed += self.runs.get(index).map_or(0, |run| run.bytes);
            self.set(index, Verdict::Remove(reason));
            let Some(source) = self.source_of(index) else { break };
            if let Some(replays) = self.replays.get_mut(source) {
                replays.remove(&index);
            }
            let is_needed = self.replays.get(source).is_some_and(|replays| !replays.is_empty());
            match (self.verdicts.get(source), self.wishes.get(source)) {
                _ if is_needed => {}
                (Some(Verdict::Keep(KeepReason::ReplayedBy(_))), Some(Verdict::Remove(wish))) => {
                    next = Some((source, wish.clone()));
                }
                _ if self.is_free(source) => {
                    free.insert(source);
                }
                _ => {}
            }
        }
        freed
    }

    /// The size wanted these gone as well: says why they stayed.
    fn say_what_is_replayed(&mut self) {
        for index in 0..self.runs.len() {
            let replay = self.replays.get(index).and_then(|replays| replays.first().copied());
            if let Some(replay) = replay
                && self.verdicts.get(index) == Some(&Verdict::Keep(KeepReason::WithinLimits))
            {
                self.keep_for(index, replay);
            }
        }
    }

    /// Whether the size may remove it.
    fn is_free(&self, index: usize) -> bool {
        let is_needed = self.replays.get(index).is_some_and(|replays| !replays.is_empty());
        let is_open = self.verdicts.get(index) == Some(&Verdict::Keep(KeepReason::WithinLimits));
        is_open && (self.is_forced || !is_needed)
    }

    fn source_of(&self, index: usize) -> Option<usize> {
        let source = self.runs.get(index)?.replay_of.as_ref()?;
        self.index_of.get(source).copied().filter(|source| *source != index)
    }

    fn keep_for(&mut self, index: usize, replay: usize) {
        if let Some(replay) = self.runs.get(replay) {
            let reason = KeepReason::ReplayedBy(replay.run_id.clone());
            self.set(index, Verdict::Keep(reason));
        }
    }

    fn set(&mut self, index: usize, verdict: Verdict) {
        if let Some(slot) = self.verdicts.get_mut(index) {
            *slot = verdict;
        }
    }
}

#[cfg(test)]
mod tests;
