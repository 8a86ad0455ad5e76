//! An interval for paired replays: the same requests, replayed several times on either side.
//!
//! All requests of one repeat share its noise (the machine was busy, the cache cold), so a
//! thousand requests are not a thousand witnesses. Whole repeats are drawn anew, and requests too.

use super::hodges_lehmann::Shift;
use super::quantile::median_in_place;
use super::seeded::SplitMix64;
use super::{Interval, student};

/// How far the candidate's requests lie above the base's: the median over requests of the median
/// over the candidate's repeats less the median over the base's.
///
/// Each inner list is one repeat: a value for every request, in the same order everywhere, on the
/// scale of logarithms if the answer is to be the logarithm of a ratio. A request that failed in
/// a repeat is `NAN` there; values that are not finite are left out, and so are requests without
/// a value on either side. `None` when no request is left.
///
/// The 95 % interval comes from a bootstrap of two levels (Davison and Hinkley 1997, section
/// 3.8): repeats of either side are drawn with replacement, then requests. As repeats are few, it
/// is as wide as Student's t with as many degrees of freedom as there are repeats less two
/// (Hesterberg 2015, section 5.3). The median of two is their mean, whose bootstrap spread is too
/// small by the square root of 2, which is made up for; from three on that of a median is not too
/// small. Simulated, intervals are rather too wide than too narrow. With one repeat on a side
/// nothing is known of its noise: the shift is not decidable, and the interval is that of the
/// requests alone.
///
/// Above [`REQUESTS_MAX`] requests every k-th is used.
#[must_use]
pub fn paired_replays(base: &[Vec<f64>], candidate: &[Vec<f64>], seed: u64) -> Option<Shift> {
    let requests = paired(base, candidate);
    let every_base: Vec<usize> = (0..base.len()).collect();
    let every_candidate: Vec<usize> = (0..candidate.len()).collect();
    let mut scratch = Vec::new();
    let mut differences: Vec<f64> = requests
        .iter()
        .filter_map(|request| request.difference(&every_base, &every_candidate, &mut scratch))
        .collect();
    let estimate = median_in_place(&mut differences)?;
    let mut random = SplitMix64::new(seed);
    let estimates: Vec<f64> = (0..RESAMPLES)
        .filter_map(|_| {
            let from_base = draw(base.len(), &mut random);
            let from_candidate = draw(candidate.len(), &mut random);
            differences.clear();
            differences.extend((0..requests.len()).filter_map(|_| {
                let request = requests.get(random.below(requests.len()))?;
                request.difference(&from_base, &from_candidate, &mut scratch)
            }));
            median_in_place(&mut differences)
        })
        .collect();
    let is_decidable = base.len().min(candidate.len()) >= 2;
    let freedom = (base.len() + candidate.len()).saturating_sub(2) as f64;
    let spread = variance(&estimates).sqrt();
    let (freedom, widening) = match base.len().min(candidate.len()) {
        0 | 1 => (f64::INFINITY, 1.0),
        2 => (freedom, std::f64::consts::SQRT_2),
        _ => (freedom, 1.0),
    };
    let half = widening * spread * student::two_sided(0.95, freedom);
    let interval = Interval { estimate, low: estimate - half, high: estimate + half };
    Some(Shift { interval, is_decidable })
}

/// The values of one request, a repeat each.
struct Request {
    base: Vec<f64>,
    candidate: Vec<f64>,
}

impl Request {
    /// The difference of medians over the repeats drawn. `scratch` only saves allocations.
    fn difference(
        &self,
        base: &[usize],
        candidate: &[usize],
        scratch: &mut Vec<f64>,
    ) -> Option<f64> {
        let mut of = |values: &[f64], drawn: &[usize]| {
            scratch.clear();
            let picked = drawn.iter().filter_map(|repeat| values.get(*repeat));
            scratch.extend(picked.filter(|value| value.is_finite()));
            median_in_place(scratch)
        };
        Some(of(&self.candidate, candidate)? - of(&self.base, base)?)
    }
}

/// Requests every repeat has a place for, and that have a value on both sides.
fn paired(base: &[Vec<f64>], candidate: &[Vec<f64>]) -> Vec<Request> {
    let count = base.iter().chain(candidate).map(Vec::len).min().unwrap_or(0);
    let step = count.div_ceil(REQUESTS_MAX).max(1);
    let of = |side: &[Vec<f64>], request: usize| -> Vec<f64> {
        side.iter().filter_map(|repeat| repeat.get(request).copied()).collect()
    };
    let has_value = |values: &[f64]| values.iter().any(|value| value.is_finite());
    (0..count)
        .step_by(step)
        .map(|request| Request { base: of(base, request), candidate: of(candidate, request) })
        .filter(|request| has_value(&request.base) && has_value(&request.candidate))
        .collect()
}

fn draw(count: usize, random: &mut SplitMix64) -> Vec<usize> {
    (0..count).map(|_| random.below(count)).collect()
}

/// The unbiased variance; 0 of fewer than two values.
pub(super) fn variance(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count.max(1.0);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    squares / (count - 1.0).max(1.0)
}

/// A spread from so many is right to 4 %.
const RESAMPLES: usize = 400;
/// Bounds the time of one interval to about a tenth of a second.
const REQUESTS_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn repeat(values: &[f64]) -> Vec<f64> {
        values.to_vec()
    }

    #[test]
    fn the_estimate_is_the_median_over_requests_of_differences_of_medians() {
        let base = [repeat(&[1.0, 5.0, 9.0]), repeat(&[3.0, 5.0, 9.0]), repeat(&[2.0, 8.0, 9.0])];
        let candidate = [repeat(&[4.0, 5.5, 9.1]), repeat(&[6.0, 5.5, f64::NAN])];
        // Medians 2, 5, 9 and 5, 5.5, 9.1.
        let found = paired_replays(&base, &candidate, 1).unwrap();
        assert!((found.interval.estimate - 0.5).abs() < 1e-12);
        assert!(found.is_decidable);
        assert_eq!(Some(found), paired_replays(&base, &candidate, 1));
    }

    #[test]
    fn one_repeat_a_side_is_not_decidable() {
        let base = [repeat(&[1.0, 5.0, 9.0])];
        let candidate = [repeat(&[2.0, 6.0, 10.0])];
        let found = paired_replays(&base, &candidate, 1).unwrap();
        assert!(!found.is_decidable);
        assert_eq!(found.interval, Interval { estimate: 1.0, low: 1.0, high: 1.0 });
    }

    #[test]
    fn nothing_to_pair_gives_no_interval() {
        assert_eq!(paired_replays(&[], &[], 1), None);
        assert_eq!(paired_replays(&[repeat(&[1.0])], &[], 1), None);
        assert_eq!(paired_replays(&[repeat(&[])], &[repeat(&[1.0])], 1), None);
        assert_eq!(paired_replays(&[repeat(&[f64::NAN])], &[repeat(&[1.0])], 1), None);
    }
}
