//! Medians and spreads: the only statistics that a few noisy rounds can carry.

/// The median; the mean of the middle two of an even number. `None` of nothing.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let sorted = sorted(values);
    let upper = sorted.get(sorted.len() / 2)?;
    let lower = sorted.get(sorted.len().saturating_sub(1) / 2)?;
    Some((lower + upper) / 2.0)
}

/// The smallest and the largest.
pub(crate) fn spread(values: &[f64]) -> Option<[f64; 2]> {
    let sorted = sorted(values);
    Some([*sorted.first()?, *sorted.last()?])
}

/// The value below which `share` of all lie, by nearest rank.
pub(crate) fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let sorted = sorted(values);
    let rank = (sorted.len().saturating_sub(1) as f64 * share).round();
    sorted.get(rank as usize).copied()
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: odd, even, no values.
    #[test]
    fn the_median_is_the_middle_or_the_mean_of_the_two_middles() {
        assert_eq!(median(&[9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(&[9.0, 1.0, 5.0, 6.0]), Some(5.5));
        assert_eq!(median(&[]), None);
    }

    /// Scenario: the ends of a distribution.
    #[test]
    fn quantiles_and_spread_agree_at_the_ends() {
        let values = [3.0, 1.0, 2.0];
        assert_eq!(spread(&values), Some([1.0, 3.0]));
        assert_eq!((quantile(&values, 0.0), quantile(&values, 1.0)), (Some(1.0), Some(3.0)));
        assert_eq!(spread(&[]), None);
    }
}
