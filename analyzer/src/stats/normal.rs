//! The normal distribution.

use super::seeded::SplitMix64;

/// Probability that a standard normal variable exceeds `z`.
///
/// The rational Chebyshev fit of Numerical Recipes (`erfcc`): relative error below 1.2e-7
/// everywhere, so that small probabilities stay right.
pub(super) fn upper_tail(z: f64) -> f64 {
    let x = z.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.5 * x);
    let polynomial = COEFFICIENTS.iter().rev().fold(0.0, |sum, c| sum * t + c);
    let tail = 0.5 * t * (polynomial - x * x).exp();
    if z >= 0.0 { tail } else { 1.0 - tail }
}

/// The value a standard normal variable stays below with probability `p`; infinite at 0 and 1.
///
/// Wichura (1988), algorithm AS 241: right to about sixteen digits.
pub(super) fn quantile(p: f64) -> f64 {
    let centred = p - 0.5;
    if centred.abs() <= 0.425 {
        let r = 0.180_625 - centred * centred;
        return centred * fraction(&CENTRE, r);
    }
    let tail = if centred <= 0.0 { p } else { 1.0 - p };
    let r = (-tail.ln()).sqrt();
    let size = if r == f64::INFINITY {
        r
    } else if r <= 5.0 {
        fraction(&MIDDLE, r - 1.6)
    } else {
        fraction(&FAR, r - 5.0)
    };
    size.copysign(centred)
}

/// A value of a standard normal variable.
pub(super) fn draw(random: &mut SplitMix64) -> f64 {
    quantile(random.unit())
}

/// The quotient of two polynomials whose coefficients come in descending order.
fn fraction(coefficients: &[[f64; 8]; 2], r: f64) -> f64 {
    let [above, below] = coefficients.map(|row| row.iter().fold(0.0, |sum, c| sum * r + c));
    above / below
}

/// The value a standard normal variable exceeds with probability 0.025.
pub(super) const Z_975: f64 = 1.959_963_984_540_054;

const COEFFICIENTS: [f64; 10] = [
    -1.265_512_23,
    1.000_023_68,
    0.374_091_96,
    0.096_784_18,
    -0.186_288_06,
    0.278_868_07,
    -1.135_203_98,
    1.488_515_87,
    -0.822_152_23,
    0.170_872_77,
];

/// Within 0.425 of the middle.
const CENTRE: [[f64; 8]; 2] = [
    [
        2_509.080_928_730_122_7,
        33_430.575_583_588_13,
        67_265.770_927_008_7,
        45_921.953_931_549_87,
        13_731.693_765_509_46,
        1_971.590_950_306_551_3,
        133.141_667_891_784_38,
        3.387_132_872_796_366_5,
    ],
    [
        5_226.495_278_852_854,
        28_729.085_735_721_943,
        39_307.895_800_092_71,
        21_213.794_301_586_597,
        5_394.196_021_424_751,
        687.187_007_492_057_9,
        42.313_330_701_600_91,
        1.0,
    ],
];
/// Where the square root of -ln(tail) is up to 5.
const MIDDLE: [[f64; 8]; 2] = [
    [
        0.000_774_545_014_278_341_4,
        0.022_723_844_989_269_184,
        0.241_780_725_177_450_6,
        1.270_458_252_452_368_4,
        3.647_848_324_763_204_5,
        5.769_497_221_460_691,
        4.630_337_846_156_546,
        1.423_437_110_749_683_5,
    ],
    [
        1.050_750_071_644_416_9e-9,
        0.000_547_593_808_499_534_5,
        0.015_198_666_563_616_457,
        0.148_103_976_427_480_08,
        0.689_767_334_985_1,
        1.676_384_830_183_803_8,
        2.053_191_626_637_759,
        1.0,
    ],
];
/// Beyond.
const FAR: [[f64; 8]; 2] = [
    [
        2.010_334_399_292_288_1e-7,
        2.711_555_568_743_487_6e-5,
        0.001_242_660_947_388_078_4,
        0.026_532_189_526_576_124,
        0.296_560_571_828_504_87,
        1.784_826_539_917_291_3,
        5.463_784_911_164_114,
        6.657_904_643_501_103,
    ],
    [
        2.044_263_103_389_939_7e-15,
        1.421_511_758_316_446e-7,
        1.846_318_317_510_054_8e-5,
        0.000_786_869_131_145_613_3,
        0.014_875_361_290_850_615,
        0.136_929_880_922_735_8,
        0.599_832_206_555_888,
        1.0,
    ],
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_agree_with_tables() {
        for (z, expected) in [(0.0, 0.5), (1.0, 0.158_655_254), (Z_975, 0.025), (5.0, 2.866_516e-7)]
        {
            assert!((upper_tail(z) / expected - 1.0).abs() < 1e-6, "{z}");
            assert!((upper_tail(z) + upper_tail(-z) - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn quantiles_undo_tails() {
        assert_eq!(quantile(0.5), 0.0);
        assert!((quantile(0.975) - Z_975).abs() < 1e-14);
        for p in [1e-300, 1e-12, 0.001, 0.07, 0.3, 0.6, 0.93, 0.9999] {
            assert!((upper_tail(-quantile(p)) / p - 1.0).abs() < 1e-5, "{p}");
        }
        assert_eq!((quantile(0.0), quantile(1.0)), (f64::NEG_INFINITY, f64::INFINITY));
    }
}
