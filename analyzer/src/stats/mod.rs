//! The statistics behind a comparison. Pure, and the same answer for the same numbers on every
//! machine: whatever is drawn at random is drawn from a seed.
//!
//! Latencies are skewed and have outliers, so nothing here assumes a normal distribution of the
//! numbers themselves, and effects are ratios (differences of logarithms).

mod blocks;
mod bootstrap;
mod change_points;
mod cliffs_delta;
mod cluster;
mod hodges_lehmann;
mod mann_whitney;
mod multiple;
mod normal;
mod permutation;
mod pooled;
mod power;
mod quantile;
mod run_spread;
mod seeded;
mod signed_rank;
mod sketch;
mod student;
mod time_blocks;
mod two_sample;

#[cfg(test)]
mod error_rates;
#[cfg(test)]
mod facts;
#[cfg(test)]
mod hostile;

pub use blocks::Blocks;
pub use bootstrap::median_ratio;
pub use change_points::{ChangePoint, ChangePointSearch, RecentShift, recent_shift};
pub use cliffs_delta::{CliffsDelta, EffectSize, cliffs_delta};
pub use cluster::paired_replays;
pub use hodges_lehmann::{Shift, shift};
pub use mann_whitney::{RankSum, rank_sum, rank_sum_p_floor, rank_sum_runs_min};
pub use multiple::benjamini_hochberg;
pub use permutation::{Permutation, permutation};
pub use power::{runs_needed, smallest_effect};
pub use quantile::{median, nearest_rank};
pub use run_spread::{RunSpread, SpreadPrior};
pub use seeded::SplitMix64;
pub use signed_rank::signed_rank_p;
pub use sketch::{Sketch, SketchError, sketch_cliffs_delta, sketch_rank_sum};
pub use time_blocks::{QuantileRatio, quantile_ratio};
pub use two_sample::two_sample_shift;

/// An estimate with its confidence interval: 95 %, unless another level was asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The estimate.
    pub estimate: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}
