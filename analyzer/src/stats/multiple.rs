//! Correction for asking many questions at once.

/// Benjamini and Hochberg's adjusted p-values, in the order given: reporting those up to `q`
/// keeps the expected share of false reports below `q`.
#[must_use]
pub fn benjamini_hochberg(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<(f64, usize)> =
        p_values.iter().copied().enumerate().map(|(index, p)| (p, index)).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
    let count = p_values.len();
    let mut adjusted = vec![1.0; count];
    let mut smallest: f64 = 1.0;
    for (above, (p, index)) in order.into_iter().enumerate() {
        let rank = (count - above) as f64;
        smallest = smallest.min(p * count as f64 / rank);
        if let Some(slot) = adjusted.get_mut(index) {
            *slot = smallest;
        }
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjusted_values_never_fall_as_p_values_rise() {
        // By hand: .01 * 4 / 1, .04 * 4 / 3 (which also caps .03 * 4 / 2), .5 * 4 / 4.
        let adjusted = benjamini_hochberg(&[0.01, 0.04, 0.03, 0.5]);
        for (found, expected) in adjusted.iter().zip([0.04, 0.16 / 3.0, 0.16 / 3.0, 0.5]) {
            assert!((found - expected).abs() < 1e-12, "{adjusted:?}");
        }
        assert!(benjamini_hochberg(&[]).is_empty());
    }
}
