//! The sketch against the values themselves.

use proptest::prelude::*;

use super::*;
use crate::stats::{SplitMix64, cliffs_delta, nearest_rank, normal, rank_sum};

fn of(values: &[i64]) -> Sketch {
    let mut sketch = Sketch::new();
    values.iter().for_each(|value| sketch.insert(*value));
    sketch
}

fn sorted(values: &[i64]) -> Vec<i64> {
    let mut values: Vec<i64> = values.iter().map(|value| (*value).max(0)).collect();
    values.sort_unstable();
    values
}

/// Nanoseconds about 10 ms: skewed, of two kinds, of one value, with a tail without a variance,
/// and with many zeros.
fn distributions(count: usize) -> Vec<(&'static str, Vec<i64>)> {
    let mut random = SplitMix64::new(17);
    let mut draw = |value: &mut dyn FnMut(&mut SplitMix64) -> f64| -> Vec<i64> {
        (0..count).map(|_| (1e7 * value(&mut random)) as i64).collect()
    };
    vec![
        ("lognormal", draw(&mut |r| (0.4 * normal::draw(r)).exp())),
        ("bimodal", draw(&mut |r| r.unit() * 0.1 + if r.below(3) == 0 { 40.0 } else { 1.0 })),
        ("constant", draw(&mut |_| 1.2345)),
        ("heavy tail", draw(&mut |r| r.unit().powf(-1.2))),
        ("zeros", draw(&mut |r| if r.below(2) == 0 { 0.0 } else { r.unit() })),
        ("wide", draw(&mut |r| (r.unit() * 32.0 - 16.0).exp())),
    ]
}

#[track_caller]
fn assert_within(found: f64, exact: i64, name: &str) {
    let error = (found - exact as f64).abs();
    assert!(error <= 0.005 * exact as f64, "{name}: {found} is not {exact}");
}

/// Scenario: 20,000 values of six shapes, 101 quantiles each.
/// Guarantees: each quantile is within 0.5 % of the nearest rank; count, sum and extremes are
/// exact.
#[test]
fn quantiles_are_within_half_a_percent() {
    for (name, values) in distributions(20_000) {
        let (sketch, sorted) = (of(&values), sorted(&values));
        assert!(!sketch.is_exact());
        for percent in 0..=100 {
            let found = sketch.quantile(percent as f64 / 100.0).unwrap();
            assert_within(found, nearest_rank(&sorted, percent), name);
        }
        assert_eq!(sketch.count(), 20_000);
        assert_eq!(sketch.sum(), values.iter().map(|value| i128::from(*value)).sum());
        assert_eq!(sketch.min(), sorted.first().copied());
        assert_eq!(sketch.max(), sorted.last().copied());
    }
}

/// Scenario: up to 1,024 values, whatever they are.
/// Guarantees: every quantile and rank is exact.
#[test]
fn few_values_are_kept() {
    for (name, values) in distributions(1024) {
        let (sketch, sorted) = (of(&values), sorted(&values));
        assert!(sketch.is_exact());
        for percent in 0..=100 {
            let exact = nearest_rank(&sorted, percent);
            assert_eq!(sketch.quantile(percent as f64 / 100.0), Some(exact as f64), "{name}");
            let rank = sorted.partition_point(|value| *value <= exact) as u64;
            assert_eq!(sketch.rank(exact as f64), rank, "{name}");
        }
    }
}

/// Scenario: values dealt out to 1 to 40 sketches, merged in random order and in random trees.
/// Guarantees: the merged sketch is, byte for byte, that of all values inserted one by one.
#[test]
fn merging_is_inserting_whatever_the_order() {
    let mut random = SplitMix64::new(23);
    for count in [0, 3, 900, 1024, 1025, 6000] {
        for (name, values) in distributions(count) {
            let mut parts = vec![Sketch::new(); 1 + random.below(40)];
            let all = parts.len();
            values.iter().for_each(|value| parts[random.below(all)].insert(*value));
            while parts.len() > 1 {
                let last = parts.len() - 1;
                let other = random.below(last + 1);
                parts.swap(other, last);
                let part = parts.pop().unwrap();
                let into = random.below(last);
                parts[into].merge(&part);
            }
            assert_eq!(parts[0].to_bytes(), of(&values).to_bytes(), "{name} {count}");
        }
    }
}

#[test]
fn ranks_lie_between_those_of_neighbouring_values() {
    for (name, values) in distributions(20_000) {
        let (sketch, sorted) = (of(&values), sorted(&values));
        let at_most = |x: f64| sorted.partition_point(|value| *value as f64 <= x) as u64;
        for percent in 0..=100 {
            let x = nearest_rank(&sorted, percent) as f64 * 1.003;
            let found = sketch.rank(x);
            let (low, high) = (at_most(x * 0.99), at_most(x * 1.0101));
            assert!(low <= found && found <= high, "{name} {x}: {low} {found} {high}");
        }
        assert_eq!(sketch.rank(-1.0), 0);
        assert_eq!(sketch.rank(f64::NAN), 0);
        assert_eq!(sketch.cdf(f64::INFINITY), Some(1.0));
    }
}

#[test]
fn nothing_has_no_quantiles() {
    let nothing = Sketch::new();
    assert_eq!(nothing.quantile(0.5), None);
    assert_eq!((nothing.min(), nothing.max(), nothing.mean()), (None, None, None));
    assert_eq!(nothing.cdf(1.0), None);
    let one = of(&[-7]);
    assert_eq!((one.min(), one.sum(), one.quantile(1.0)), (Some(0), 0, Some(0.0)));
    for q in [-0.1, 1.1, f64::NAN] {
        assert_eq!(one.quantile(q), None);
    }
}

/// Scenario: a stage's 1,500 latencies (10 ms, spread by 35 %), as in a run of 1,500 requests.
/// Guarantees: its sketch takes a few hundred bytes to store and a few thousand in memory.
#[test]
fn a_sketch_is_small() {
    let mut random = SplitMix64::new(29);
    let mut stage = |count: usize| -> Sketch {
        let draw = |_| (1e7 * (0.35 * normal::draw(&mut random)).exp()) as i64;
        of(&(0..count).map(draw).collect::<Vec<_>>())
    };
    let sizes = [230, 1_500, 20_000, 1_000_000].map(|count| {
        let sketch = stage(count);
        (count, sketch.to_bytes().len(), sketch.memory_bytes())
    });
    println!("values, bytes stored, bytes in memory: {sizes:?}");
    assert!(sizes[1].1 < 350 && sizes[2].1 < 500 && sizes[3].1 < 1_200, "{sizes:?}");
    assert!(sizes.iter().all(|(_, _, memory)| *memory < 20_000), "{sizes:?}");
}

/// Scenario: two sketches, exact and counted, beside the values they were made of.
/// Guarantees: the same answers while exact, nearly the same beyond.
#[test]
fn sketches_compare_like_their_values() {
    let mut random = SplitMix64::new(31);
    for (count, tolerance) in [(20, 0.0), (500, 0.0), (5000, 0.002)] {
        let mut side = |scale: f64| -> Vec<i64> {
            (0..count).map(|_| (scale * (0.3 * normal::draw(&mut random)).exp()) as i64).collect()
        };
        let (base, candidate) = (side(1e7), side(1.005e7));
        let floats = |values: &[i64]| values.iter().map(|value| *value as f64).collect::<Vec<_>>();
        let (a, b) = (of(&base), of(&candidate));
        let (x, y) = (floats(&base), floats(&candidate));
        let (found, exact) = (sketch_rank_sum(&a, &b).unwrap(), rank_sum(&x, &y).unwrap());
        assert!(
            (found.p_greater - exact.p_greater).abs() <= 5.0 * tolerance,
            "{found:?} {exact:?}"
        );
        assert_eq!(found.is_exact, exact.is_exact);
        let (found, exact) = (sketch_cliffs_delta(&a, &b).unwrap(), cliffs_delta(&x, &y).unwrap());
        assert!((found.delta - exact.delta).abs() <= tolerance, "{found:?} {exact:?}");
    }
    assert_eq!(sketch_rank_sum(&Sketch::new(), &of(&[1])), None);
    assert_eq!(sketch_cliffs_delta(&of(&[1]), &Sketch::new()), None);
}

/// Scenario: one sketch has lost its low end, the other has values there.
/// Guarantees: what both cannot tell apart counts as equal.
#[test]
fn a_lost_low_end_is_a_tie() {
    let low = of(&vec![3; 2000]);
    let mut wide = low.clone();
    wide.insert(i64::MAX);
    let delta = sketch_cliffs_delta(&low, &wide).unwrap().delta;
    assert!(delta > 0.0 && delta < 0.001, "{delta}");
}

#[test]
fn bytes_that_are_no_sketch_say_why() {
    let bytes = of(&[1, 2, 3]).to_bytes();
    assert_eq!(bytes, [1, 3, 6, 1, 2, 1, 1]);
    let error = |bytes: &[u8]| Sketch::from_bytes(bytes).unwrap_err();
    assert_eq!(error(&[]), SketchError::Truncated);
    assert_eq!(error(&[2, 0]), SketchError::UnknownVersion(2));
    assert_eq!(error(&bytes[..6]), SketchError::Truncated);
    assert_eq!(error(&[1, 3, 6, 1, 2, 1, 1, 0]), SketchError::Inconsistent);
    assert_eq!(error(&[1, 3, 7, 1, 2, 1, 1]), SketchError::Inconsistent);
    assert_eq!(error(&[[1].as_slice(), &[0xff; 30]].concat()), SketchError::TooLarge);
    // A run of no empty buckets, over and over.
    let counted = of(&vec![5; 2000]).to_bytes();
    let start = counted.len() - 3;
    assert_eq!(error(&[&counted[..start], &[5, 0, 0, 0, 0]].concat()), SketchError::Inconsistent);
}

fn any_values() -> impl Strategy<Value = Vec<i64>> {
    let value = (0_u32..64, any::<u64>()).prop_map(|(bits, x)| (x >> 1 >> bits.min(63)) as i64);
    prop_oneof![
        proptest::collection::vec(value.clone(), 0..50),
        proptest::collection::vec(value, 1000..1300),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Scenario: sketches of any values, stored and read.
    /// Guarantees: what is read is what was stored.
    #[test]
    fn bytes_bring_back_the_sketch(values in any_values()) {
        let sketch = of(&values);
        let bytes = sketch.to_bytes();
        let read = Sketch::from_bytes(&bytes).unwrap();
        prop_assert_eq!(&read.to_bytes(), &bytes);
        for q in [0.0, 0.3, 0.5, 0.99, 1.0] {
            prop_assert_eq!(read.quantile(q), sketch.quantile(q));
        }
    }

    /// Scenario: arbitrary bytes; and a stored sketch with some bytes changed and its end lost.
    /// Guarantees: an error or a sketch that works, never a panic, and no more memory than a
    /// sketch has.
    #[test]
    fn no_bytes_bring_it_down(
        values in any_values(),
        mut noise in proptest::collection::vec(any::<u8>(), 0..60),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        end: prop::sample::Index,
    ) {
        let mut stored = of(&values).to_bytes();
        for (place, byte) in changes {
            let place = place.index(stored.len());
            stored[place] = byte;
        }
        let cut = stored[..=end.index(stored.len())].to_vec();
        if let Some(version) = noise.first_mut() {
            *version = 1;
        }
        for bytes in [stored, cut, noise] {
            if let Ok(mut sketch) = Sketch::from_bytes(&bytes) {
                prop_assert!(sketch.memory_bytes() < 70_000);
                let copy = sketch.clone();
                sketch.merge(&copy);
                sketch.insert(i64::MAX);
                sketch.insert(0);
                prop_assert!(sketch.quantile(0.5).is_some());
                prop_assert!(sketch.rank(1e9) <= sketch.count());
                prop_assert!(sketch_rank_sum(&sketch, &copy).is_some() || copy.count() == 0);
            }
        }
    }
}
