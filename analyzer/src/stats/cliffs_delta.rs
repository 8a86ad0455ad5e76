//! Cliff's delta: how often one sample's values exceed the other's, as a size of an effect.

use super::pooled::Pooled;

/// How far two samples are apart, whatever the unit of their values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CliffsDelta {
    /// Share of pairs in which the candidate's value is greater, less the share in which it is
    /// smaller: from -1 to 1.
    pub delta: f64,
    /// The usual word for its size.
    pub size: EffectSize,
}

/// The usual words for the size of Cliff's delta (Romano, Kromrey, Coraggio and Skowronek 2006,
/// who took them from Cohen's d of 0.2, 0.5 and 0.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EffectSize {
    /// Below 0.147 either way.
    Negligible,
    /// Below 0.33.
    Small,
    /// Below 0.474.
    Medium,
    /// From 0.474.
    Large,
}

impl EffectSize {
    /// The size of a `delta` from -1 to 1; negligible when it is not a number.
    #[must_use]
    pub fn of(delta: f64) -> Self {
        match delta.abs() {
            size if size >= LARGE => Self::Large,
            size if size >= MEDIUM => Self::Medium,
            size if size >= SMALL => Self::Small,
            _ => Self::Negligible,
        }
    }

    /// The word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Negligible => "negligible",
            Self::Small => "small",
            Self::Medium => "medium",
            Self::Large => "large",
        }
    }
}

/// Cliff's delta (Cliff 1993) of `candidate` against `base`; `None` when a side is empty. Values
/// that are not numbers are left out.
///
/// It is 2 U / (n m) - 1 with Mann and Whitney's U, so sorting is all the work there is.
#[must_use]
pub fn cliffs_delta(base: &[f64], candidate: &[f64]) -> Option<CliffsDelta> {
    cliffs_delta_of(&Pooled::of_values(base, candidate))
}

pub(super) fn cliffs_delta_of(pooled: &Pooled) -> Option<CliffsDelta> {
    let (base, candidate) = pooled.sizes();
    let pairs = base as f64 * candidate as f64;
    let delta = 2.0 * pooled.candidate_greater()? / pairs - 1.0;
    Some(CliffsDelta { delta, size: EffectSize::of(delta) })
}

const SMALL: f64 = 0.147;
const MEDIUM: f64 = 0.33;
const LARGE: f64 = 0.474;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_share_greater_less_the_share_smaller() {
        // Of nine pairs: greater 5, equal 2, smaller 2.
        let found = cliffs_delta(&[1.0, 2.0, 4.0], &[2.0, 3.0, 4.0]).unwrap();
        assert!((found.delta - 3.0 / 9.0).abs() < 1e-12);
        assert_eq!(found.size, EffectSize::Medium);
        let swapped = cliffs_delta(&[2.0, 3.0, 4.0], &[1.0, 2.0, 4.0]).unwrap();
        assert!((swapped.delta + found.delta).abs() < 1e-12);
        assert_eq!(cliffs_delta(&[1.0], &[2.0]).unwrap().delta, 1.0);
        assert_eq!(cliffs_delta(&[1.0, f64::NAN], &[]), None);
    }

    #[test]
    fn sizes_have_the_published_borders() {
        let named = [(0.0, "negligible"), (0.1469, "negligible"), (0.147, "small")];
        let more = [(-0.33, "medium"), (0.4739, "medium"), (-0.474, "large"), (1.0, "large")];
        for (delta, name) in named.into_iter().chain(more) {
            assert_eq!(EffectSize::of(delta).name(), name, "{delta}");
        }
        assert_eq!(EffectSize::of(f64::NAN), EffectSize::Negligible);
    }
}
