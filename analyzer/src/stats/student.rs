//! Student's t distribution, for intervals whose spread is itself estimated from few values.

use super::normal;

/// The value that the size of a t variable stays below with probability `confidence`: 2.776 for
/// 0.95 and 4 degrees of freedom, infinite below one.
///
/// Found by bisection of [`within`]. Fractional degrees of freedom are interpolated in their
/// reciprocals, as tables are.
pub(super) fn two_sided(confidence: f64, freedom: f64) -> f64 {
    let normal = normal::quantile(f64::midpoint(1.0, confidence));
    if freedom >= FREEDOM_MAX {
        return normal;
    }
    if freedom.is_nan() || freedom < 1.0 {
        return f64::INFINITY;
    }
    let (below, above) = (freedom.floor(), freedom.floor() + 1.0);
    let at = |whole: f64| whole_two_sided(confidence, whole as u32);
    let share = (1.0 / below - 1.0 / freedom) / (1.0 / below - 1.0 / above);
    at(below) * (1.0 - share) + at(above) * share
}

fn whole_two_sided(confidence: f64, freedom: u32) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    while within(high, freedom) < confidence && high < 1e9 {
        high *= 2.0;
    }
    // Halving the range sixty times leaves nothing of it.
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if within(middle, freedom) < confidence { low = middle } else { high = middle }
    }
    high
}

/// Probability that the size of a t variable stays below `t`: the finite series of Abramowitz and
/// Stegun (1964), 26.7.3 and 26.7.4.
fn within(t: f64, freedom: u32) -> f64 {
    let angle = (t / f64::from(freedom).sqrt()).atan();
    let (sine, cosine) = angle.sin_cos();
    let is_odd = freedom % 2 == 1;
    // Both series start at a term of their own and go on by (k - 1) / k cos^2.
    let mut term = if is_odd { cosine } else { 1.0 };
    let mut sum = 0.0;
    let mut k = if is_odd { 1 } else { 0 };
    while k + 2 <= freedom {
        sum += term;
        k += 2;
        term *= f64::from(k - 1) / f64::from(k) * cosine * cosine;
    }
    if is_odd { 2.0 / std::f64::consts::PI * (angle + sine * sum) } else { sine * sum }
}

/// From here on, the normal distribution is within half a percent.
const FREEDOM_MAX: f64 = 300.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_agree_with_tables() {
        let rows = [(1.0, 12.706_205), (2.0, 4.302_653), (3.0, 3.182_446), (4.0, 2.776_445)];
        let more = [(5.0, 2.570_582), (10.0, 2.228_139), (29.0, 2.045_230), (120.0, 1.979_930)];
        for (freedom, expected) in rows.into_iter().chain(more) {
            assert!((two_sided(0.95, freedom) / expected - 1.0).abs() < 1e-6, "{freedom}");
        }
        assert!((two_sided(0.99, 6.0) - 3.707_428).abs() < 1e-5);
        assert_eq!(two_sided(0.95, 0.5), f64::INFINITY);
        assert_eq!(two_sided(0.95, f64::NAN), f64::INFINITY);
        assert!((two_sided(0.95, 1e9) - 1.959_964).abs() < 1e-6);
    }

    #[test]
    fn fractions_lie_between_their_neighbours() {
        let (low, middle, high) =
            (two_sided(0.95, 4.0), two_sided(0.95, 4.5), two_sided(0.95, 5.0));
        assert!(high < middle && middle < low);
        // R: qt(.975, 4.5)
        assert!((middle - 2.6585).abs() < 0.005, "{middle}");
    }
}
