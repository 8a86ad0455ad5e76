//! What a trace would have taken if some spans had done their own work faster or slower.
//!
//! The recorded trace is taken as a graph of causes: a child began when what it waited for was
//! there, which is the sibling that ended last before it, or the parent's start; the time between
//! is the parent's own work, and so is the time after the last child. Stretching a span's own work
//! then moves everything after it, as the virtual speedups of Coz (Curtsinger and Berger 2015)
//! do by experiment. What recordings do not show stays as it was: queues, shared processors and
//! caches do not get shorter when there is less to do.

use super::forest::Forest;

/// The wall time of a trace when the own work of each span takes `factors` times as long, ns; a
/// span without a factor stays as it is.
#[must_use]
pub fn wall_with(forest: &Forest, factors: &[f64]) -> f64 {
    let factor = |index: usize| factors.get(index).copied().unwrap_or(1.0);
    // Durations from the leaves up: a span is known when its children are.
    let mut lengths = vec![0.0; forest.len()];
    for index in forest.preorder().iter().rev() {
        let node = forest.node(*index);
        let own = Own { start_ns: node.start_ns, end_ns: node.end_ns, factor: factor(*index) };
        let length = stretch(forest, own, forest.children(*index), &lengths);
        if let Some(slot) = lengths.get_mut(*index) {
            *slot = length;
        }
    }
    // Roots follow each other as siblings do; nobody works between them.
    let whole = Own { start_ns: 0, end_ns: forest.wall_ns(), factor: 1.0 };
    stretch(forest, whole, forest.roots(), &lengths)
}

/// A span's own interval and factor.
#[derive(Debug, Clone, Copy)]
struct Own {
    start_ns: i64,
    end_ns: i64,
    factor: f64,
}

/// The new length of a span whose children have new lengths.
fn stretch(forest: &Forest, own: Own, children: &[usize], lengths: &[f64]) -> f64 {
    // Recorded and new ends of children already placed, in the order of the recorded ends.
    let mut ended: Vec<(i64, f64)> = Vec::with_capacity(children.len());
    let mut last_new: f64 = 0.0;
    for child in children {
        let node = forest.node(*child);
        let begin = node.start_ns.max(own.start_ns);
        // The sibling that ended last before this child began, and when it ends now.
        let before = ended.partition_point(|(end, _)| *end <= begin);
        let (since, at) = match before.checked_sub(1).and_then(|last| ended.get(last)) {
            Some((end, new_end)) => (*end, *new_end),
            None => (own.start_ns, 0.0),
        };
        let new_start = at + (begin - since) as f64 * own.factor;
        let new_end = new_start + lengths.get(*child).copied().unwrap_or(0.0);
        let place = ended.partition_point(|(end, _)| *end <= node.end_ns);
        // Of children that ended by then, the one that ends last now holds up what follows.
        let held = place.checked_sub(1).and_then(|p| ended.get(p)).map_or(0.0, |(_, new)| *new);
        ended.insert(place, (node.end_ns, new_end.max(held)));
        if let Some(rest) = ended.get_mut(place + 1..) {
            rest.iter_mut().for_each(|(_, new)| *new = new.max(new_end));
        }
        last_new = last_new.max(new_end);
    }
    // Children that ended after the span did not hold it up.
    let within = ended.partition_point(|(end, _)| *end <= own.end_ns);
    let (since, at) = match within.checked_sub(1).and_then(|last| ended.get(last)) {
        Some((end, new_end)) => (*end, *new_end),
        None => (own.start_ns, 0.0),
    };
    at + (own.end_ns - since).max(0) as f64 * own.factor
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::trace::SpanTimes;

    fn span(id: u64, parent: Option<u64>, start: i64, duration: i64) -> SpanTimes {
        SpanTimes { id, parent, start_unix_ns: start, duration_ns: duration }
    }

    /// Scenario: retrieval with two parallel searches, then the model; by hand.
    #[test]
    fn speed_ups_move_what_follows_and_stop_at_the_critical_path() {
        // query 0..100: retrieve 10..50 (search 10..30, search 10..50), llm 60..95
        let spans = [
            span(1, None, 0, 100),
            span(2, Some(1), 10, 40),
            span(3, Some(2), 10, 20),
            span(4, Some(2), 10, 40),
            span(5, Some(1), 60, 35),
        ];
        let forest = Forest::new(&spans);
        let with = |factors: [f64; 5]| wall_with(&forest, &factors);
        assert_eq!(with([1.0; 5]), 100.0);
        assert_eq!(with([1.0, 1.0, 1.0, 1.0, 0.0]), 65.0);
        // The shorter search is not on the path; the longer one is until the other is longer.
        assert_eq!(with([1.0, 1.0, 0.0, 1.0, 1.0]), 100.0);
        assert_eq!(with([1.0, 1.0, 1.0, 0.0, 1.0]), 80.0);
        // The query's own work: 10 before, 10 between, 5 after.
        assert_eq!(with([2.0, 1.0, 1.0, 1.0, 1.0]), 125.0);
        assert_eq!(with([0.5; 5]), 50.0);
    }

    proptest! {
        /// Guarantees: nothing changed gives the recorded time; faster is never slower; everything
        /// stretched alike stretches the whole, when children stay within their parents.
        #[test]
        fn changes_have_the_sign_they_should(
            shape in prop::collection::vec((any::<prop::sample::Index>(), 0.0..1.0, 0.0..1.0), 1..30),
            factors in prop::collection::vec(0.0..1.0, 30),
        ) {
            let mut spans = vec![span(1, None, 0, 1_000_000)];
            for (parent, from, length) in shape {
                let above = spans[parent.index(spans.len())];
                let start = above.start_unix_ns + (above.duration_ns as f64 * from) as i64;
                let room = above.start_unix_ns + above.duration_ns - start;
                let duration = (room as f64 * length) as i64;
                spans.push(span(spans.len() as u64 + 1, Some(above.id), start, duration));
            }
            let forest = Forest::new(&spans);
            let same = wall_with(&forest, &vec![1.0; spans.len()]);
            prop_assert!((same - 1_000_000.0).abs() < 1e-3, "{same}");
            let faster = wall_with(&forest, &factors);
            prop_assert!(faster <= same + 1e-3, "{faster}");
            let half = wall_with(&forest, &vec![0.5; spans.len()]);
            prop_assert!((half - 500_000.0).abs() < 1e-3, "{half}");
        }
    }
}
