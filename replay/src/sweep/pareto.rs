//! Settings that no other setting beats in everything.

use super::objective::Better;

/// Of each setting, how many others beat it: no worse in any objective, and better in one. A value
/// that is not a number says nothing: nobody beats it, and it beats nobody.
#[must_use]
pub fn beaten_by(values: &[Vec<f64>], better: &[Better]) -> Vec<usize> {
    let beats = |one: &[f64], other: &[f64]| {
        let costs = one.iter().zip(other).zip(better).map(|((a, b), better)| match better {
            Better::Higher => (-a, -b),
            Better::Lower => (*a, *b),
        });
        let mut is_better = false;
        for (a, b) in costs {
            if a.is_nan() || b.is_nan() || a > b {
                return false;
            }
            is_better |= a < b;
        }
        is_better
    };
    values.iter().map(|row| values.iter().filter(|other| beats(other, row)).count()).collect()
}

/// Positions of the front, in order.
#[must_use]
pub fn front(values: &[Vec<f64>], better: &[Better]) -> Vec<usize> {
    let beaten = beaten_by(values, better);
    let measured = |row: &Vec<f64>| row.iter().all(|value| !value.is_nan());
    let of = |(position, (row, beaten)): (usize, (&Vec<f64>, &usize))| {
        (*beaten == 0 && measured(row)).then_some(position)
    };
    values.iter().zip(&beaten).enumerate().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_is_what_nobody_beats() {
        use Better::{Higher, Lower};
        let values = vec![
            vec![10.0, 8.0],
            vec![8.0, 4.0],
            vec![8.0, 5.0],
            vec![2.0, 1.0],
            vec![2.0, 1.0],
            vec![f64::NAN, 0.5],
        ];
        assert_eq!(front(&values, &[Higher, Lower]), [0, 1, 3, 4], "equals do not beat each other");
        assert_eq!(front(&values, &[Lower, Lower]), [3, 4]);
        assert_eq!(beaten_by(&values, &[Higher, Lower]), [0, 0, 1, 0, 0, 0]);
    }
}
