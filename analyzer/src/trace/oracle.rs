//! The analyses against definitions executed nanosecond by nanosecond on small random traces.

use proptest::prelude::*;

use super::{Forest, SpanTimes, times};

/// A trace with every defect that can arrive: lost parents, cycles, duplicates, zero and negative
/// durations, children outside their parents.
fn trace() -> impl Strategy<Value = Vec<SpanTimes>> {
    let span = (0_u64..12, proptest::option::weighted(0.8, 0_u64..13), 0_i64..40, -2_i64..30);
    proptest::collection::vec(span, 0..12).prop_map(|spans| {
        spans
            .into_iter()
            .map(|(id, parent, start_unix_ns, duration_ns)| SpanTimes {
                id,
                parent,
                start_unix_ns: start_unix_ns + 1_000,
                duration_ns,
            })
            .collect()
    })
}

fn is_active(forest: &Forest, index: usize, t: i64) -> bool {
    let node = forest.node(index);
    node.start_ns <= t && t < node.end_ns
}

/// Exact share of each span in thirds, fifths and so on, and the idle nanoseconds.
fn wall_by_instant(forest: &Forest) -> (Vec<f64>, i64) {
    let mut share = vec![0.0; forest.len()];
    let mut idle = 0;
    for t in 0..forest.wall_ns() {
        let sharing: Vec<usize> = (0..forest.len())
            .filter(|i| is_active(forest, *i, t))
            .filter(|i| !forest.children(*i).iter().any(|c| is_active(forest, *c, t)))
            .collect();
        if sharing.is_empty() {
            idle += 1;
        }
        for index in &sharing {
            share[*index] += 1.0 / sharing.len() as f64;
        }
    }
    (share, idle)
}

fn reach(forest: &Forest, index: usize) -> (i64, i64) {
    let own = forest.node(index);
    forest
        .children(index)
        .iter()
        .map(|c| reach(forest, *c))
        .fold((own.start_ns, own.end_ns), |(start, end), (s, e)| (start.min(s), end.max(e)))
}

/// The path by its definition: recursive, one nanosecond at a time.
fn critical_by_definition(
    forest: &Forest,
    owner: Option<usize>,
    (start, end): (i64, i64),
    ns: &mut [i64],
) -> i64 {
    let mut left: Vec<usize> =
        owner.map_or_else(|| forest.roots().to_vec(), |o| forest.children(o).to_vec());
    let mut idle = 0;
    let mut t = end;
    loop {
        let next = left
            .iter()
            .copied()
            .filter(|c| reach(forest, *c).1 == t)
            .min_by_key(|c| (reach(forest, *c).0, *c));
        if let Some(child) = next {
            let span = reach(forest, child);
            idle += critical_by_definition(forest, Some(child), span, ns);
            left.retain(|c| *c != child);
            t = span.0;
        } else if t > start {
            t -= 1;
            match owner {
                Some(owner) if is_active(forest, owner, t) => ns[owner] += 1,
                _ => idle += 1,
            }
        } else {
            return idle;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Scenario: random broken traces.
    /// Guarantees: attributed wall time is within 1 ns of the exact share, and sums exactly.
    #[test]
    fn wall_time_is_each_instant_divided(spans in trace()) {
        let forest = Forest::new(&spans);
        let found = times(&forest);
        let (exact, idle) = wall_by_instant(&forest);
        prop_assert_eq!(found.wall_idle_ns, idle);
        prop_assert_eq!(found.wall_ns.iter().sum::<i64>() + idle, forest.wall_ns());
        for (found, exact) in found.wall_ns.iter().zip(&exact) {
            prop_assert!((*found as f64 - exact).abs() < 1.0 + 1e-9, "{} {}", found, exact);
        }
    }

    /// Scenario: random broken traces.
    /// Guarantees: the critical path is the one its definition gives, and sums exactly.
    #[test]
    fn the_critical_path_follows_the_last_finisher(spans in trace()) {
        let forest = Forest::new(&spans);
        let found = times(&forest);
        let mut exact = vec![0; forest.len()];
        let whole = (0, forest.wall_ns());
        let idle = critical_by_definition(&forest, None, whole, &mut exact);
        prop_assert_eq!(&found.critical_ns, &exact);
        prop_assert_eq!(found.critical_idle_ns, idle);
        prop_assert_eq!(exact.iter().sum::<i64>() + idle, forest.wall_ns());
    }

    /// Scenario: random broken traces.
    /// Guarantees: self time is the duration without the union of the children.
    #[test]
    fn self_time_is_what_no_child_covers(spans in trace()) {
        let forest = Forest::new(&spans);
        let found = times(&forest);
        for index in 0..forest.len() {
            let exact = (0..forest.wall_ns())
                .filter(|t| is_active(&forest, index, *t))
                .filter(|t| !forest.children(index).iter().any(|c| is_active(&forest, *c, *t)))
                .count();
            prop_assert_eq!(found.self_ns[index], exact as i64);
        }
    }

    /// Scenario: random broken traces.
    /// Guarantees: every span is in exactly one tree, after its parent.
    #[test]
    fn every_span_is_placed_once(spans in trace()) {
        let forest = Forest::new(&spans);
        let mut sorted = forest.preorder().to_vec();
        sorted.sort_unstable();
        prop_assert_eq!(sorted, (0..spans.len()).collect::<Vec<_>>());
        let position = |i: usize| forest.preorder().iter().position(|p| *p == i);
        for index in 0..spans.len() {
            if let Some(parent) = forest.parent(index) {
                prop_assert!(position(parent) < position(index));
            }
        }
    }
}

/// Scenario: one ingest of 100,000 spans under one root, two workers in parallel.
/// Guarantees: no quadratic sweep; sums stay exact with shares of thirds.
#[test]
fn a_trace_of_a_hundred_thousand_spans_is_no_special_case() {
    let mut spans = vec![SpanTimes { id: 1, parent: None, start_unix_ns: 0, duration_ns: 700_001 }];
    for n in 0..100_000_u64 {
        let start_unix_ns = (n / 3 * 21) as i64;
        let duration_ns = 20 + (n % 3) as i64;
        spans.push(SpanTimes { id: n + 2, parent: Some(1), start_unix_ns, duration_ns });
    }
    let forest = Forest::new(&spans);
    let found = times(&forest);
    let sum: i64 = found.wall_ns.iter().sum();
    assert_eq!(sum + found.wall_idle_ns, forest.wall_ns());
    let critical: i64 = found.critical_ns.iter().sum();
    assert_eq!(critical + found.critical_idle_ns, forest.wall_ns());
}

/// Scenario: a chain 100,000 deep.
/// Guarantees: no recursion.
#[test]
fn a_deep_chain_does_not_exhaust_the_stack() {
    let spans: Vec<SpanTimes> = (0..100_000_u64)
        .map(|n| SpanTimes {
            id: n,
            parent: n.checked_sub(1),
            start_unix_ns: n as i64,
            duration_ns: 200_000 - 2 * n as i64,
        })
        .collect();
    let forest = Forest::new(&spans);
    let found = times(&forest);
    assert_eq!(forest.depths().last(), Some(&99_999));
    assert_eq!(found.wall_ns.iter().sum::<i64>(), forest.wall_ns());
    assert_eq!(found.critical_ns, found.wall_ns);
}
