//! Did a history get worse lately? For a build that should stop then.

use crate::model::{Trend, TrendChange, TrendSeries};

/// Which way is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// More: times, costs, errors.
    More,
    /// Less: qualities.
    Less,
}

/// What is worth stopping for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Alarm {
    /// Which way is worse.
    pub worse: Direction,
    /// The new level began among so many of the youngest runs. A level is known from its fifth
    /// run on, so fewer than that stop nothing.
    pub runs: usize,
    /// Smallest relative change of the median: 0.05 is 5 %.
    pub change_min: f64,
}

/// The series of the youngest run's machine whose last change is recent and for the worse, with
/// that change.
#[must_use]
pub fn worsened<'a>(trend: &'a Trend, alarm: &Alarm) -> Vec<(&'a TrendSeries, &'a TrendChange)> {
    let here = trend.series.iter().filter(|series| series.is_same_machine);
    here.filter_map(|series| Some((series, series.changes.last()?)))
        .filter(|(series, change)| {
            let runs = (series.points.len() as u64).saturating_sub(change.index);
            runs <= alarm.runs as u64 && is_worse(change, alarm)
        })
        .collect()
}

fn is_worse(change: &TrendChange, alarm: &Alarm) -> bool {
    let difference = change.median_after - change.median_before;
    let is_worse = match alarm.worse {
        Direction::More => difference > 0.0,
        Direction::Less => difference < 0.0,
    };
    // From nothing to something is more than any share of it.
    is_worse && change.change.is_none_or(|change| change.abs() >= alarm.change_min)
}
