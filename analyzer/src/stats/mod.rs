//! The statistics behind a comparison. Pure, and the same answer for the same numbers on every
//! machine: whatever is drawn at random is drawn from a seed.
//!
//! Latencies are skewed and have outliers, so nothing here assumes a normal distribution of the
//! numbers themselves, and effects are ratios (differences of logarithms).

mod bootstrap;
mod hodges_lehmann;
mod multiple;
mod normal;
mod quantile;
mod seeded;
mod signed_rank;

pub use bootstrap::median_ratio;
pub use hodges_lehmann::{Shift, shift};
pub use multiple::benjamini_hochberg;
pub use quantile::{median, nearest_rank};
pub use seeded::SplitMix64;
pub use signed_rank::signed_rank_p;

/// An estimate with its 95 % confidence interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The estimate.
    pub estimate: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}
