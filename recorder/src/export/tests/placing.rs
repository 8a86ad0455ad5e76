//! Whatever the spans are, nothing is drawn inside something that is not its parent.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::decode::{self, perfetto, slices};
use super::fixture::{Made, Scratch, T0, export, run_of};
use crate::export::Format;
use crate::export::layout::{Node, Step, place};

/// Spans with few different times, so that ends meet starts, and parents that may be anything: the
/// span itself, a later one, a cycle, none.
fn nodes() -> impl Strategy<Value = Vec<Node>> {
    let node = (0_u64..20, 0_u64..8, proptest::option::of(0_usize..24));
    proptest::collection::vec(node, 0..24).prop_map(|drawn| {
        let count = drawn.len();
        let node = |(at, (start, duration, parent)): (usize, (u64, u64, Option<usize>))| {
            let parent = parent.filter(|parent| *parent < count && *parent != at);
            Node { start, end: start + duration, parent }
        };
        drawn.into_iter().enumerate().map(node).collect()
    })
}

/// Checks a layout against the rules. Gives the row of each node.
fn check(nodes: &[Node], rows: &[Vec<Step>]) -> Result<Vec<usize>, TestCaseError> {
    let mut row_of = vec![None; nodes.len()];
    for (row, steps) in rows.iter().enumerate() {
        let mut open: Vec<usize> = Vec::new();
        let mut now = 0;
        for step in steps {
            match step {
                Step::Begin(at) => {
                    let node = nodes[*at];
                    prop_assert!(node.start >= now, "row {row} goes back in time");
                    now = node.start;
                    if let Some(around) = open.last() {
                        prop_assert_eq!(node.parent, Some(*around), "inside a stranger");
                        prop_assert!(nodes[*around].end >= node.end, "cut by its parent's end");
                    }
                    prop_assert_eq!(row_of[*at].replace(row), None, "placed twice");
                    open.push(*at);
                }
                Step::End(at) => {
                    prop_assert_eq!(open.pop(), Some(*at), "an end of something else");
                    prop_assert!(nodes[*at].end >= now, "row {row} goes back in time");
                    now = nodes[*at].end;
                }
            }
        }
        prop_assert!(open.is_empty(), "something never ends");
        no_touch_is_ambiguous(nodes, steps)?;
    }
    let placed: Option<Vec<usize>> = row_of.into_iter().collect();
    placed.ok_or_else(|| TestCaseError::fail("a node is nowhere"))
}

/// A reader that takes bounds as inclusive, and the longer of two that begin together as the outer
/// one, nests by time what the steps nest.
fn no_touch_is_ambiguous(nodes: &[Node], steps: &[Step]) -> Result<(), TestCaseError> {
    let mut by_time: Vec<usize> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Begin(at) => Some(*at),
            Step::End(_) => None,
        })
        .collect();
    by_time.sort_by_key(|at| (nodes[*at].start, std::cmp::Reverse(nodes[*at].end)));
    let mut open: Vec<usize> = Vec::new();
    for at in by_time {
        while open.last().is_some_and(|around| nodes[*around].end < nodes[at].end) {
            let around = open.pop().map(|around| nodes[around]);
            prop_assert!(around.is_some_and(|a| a.end <= nodes[at].start), "an overlap");
        }
        if let Some(around) = open.last() {
            prop_assert_eq!(nodes[at].parent, Some(*around), "touches a stranger");
        }
        open.push(at);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Scenario: spans that overlap, touch, last no time, outlive their parents, or are their own
    /// ancestors.
    /// Guarantees: every span begins and ends once, in order, inside its parent or inside nothing.
    #[test]
    fn nothing_is_inside_a_stranger(nodes in nodes()) {
        check(&nodes, &place(&nodes))?;
    }

    /// Scenario: a tree as a program with one thread makes it.
    /// Guarantees: it needs one row.
    #[test]
    fn spans_that_nest_share_a_row(
        steps in proptest::collection::vec((any::<bool>(), 1_u64..4), 1..60),
    ) {
        let mut nodes: Vec<Node> = vec![Node { start: 0, end: 0, parent: None }];
        let mut open = vec![0];
        let mut now = 0;
        for (is_begin, wait) in steps {
            now += wait;
            if is_begin || open.len() == 1 {
                let parent = open.last().copied();
                open.push(nodes.len());
                nodes.push(Node { start: now, end: now, parent });
            } else if let Some(at) = open.pop() {
                nodes[at].end = now;
            }
        }
        for at in open {
            nodes[at].end = now;
        }
        let rows = place(&nodes);
        check(&nodes, &rows)?;
        prop_assert_eq!(rows.len(), 1);
    }
}

fn spans() -> impl Strategy<Value = Vec<Made>> {
    let span = (0_u8..3, proptest::option::of(0_u64..12), 0_i64..40, 0_i64..15, 0_usize..3);
    proptest::collection::vec(span, 1..12).prop_map(|drawn| {
        let span = |(at, (trace, parent, start, duration, service)): (usize, _)| {
            let id = at as u64 + 1;
            let name = format!("s{id}");
            let made = Made::new(trace + 1, id, parent, &name, (start, start + duration));
            match service {
                0 => made.with("service.name", "other"),
                _ => made,
            }
        };
        drawn.into_iter().enumerate().map(span).collect()
    })
}

proptest! {
    // Each case records a run.
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Scenario: a run of random, overlapping, broken trees of two services is exported.
    /// Guarantees: in both timeline formats every span is there once with its times; it is drawn
    /// inside its parent or inside nothing; parents on other tracks are joined by a flow.
    #[test]
    fn a_run_of_any_trees_is_drawn_rightly(spans in spans()) {
        let scratch = Scratch::new();
        let run = run_of(&scratch, &spans);
        let (bytes, summary) = export(&run, Format::Perfetto);
        prop_assert_eq!(summary.spans, spans.len() as u64);
        let trace = perfetto(&bytes);
        let seen = slices(&trace);
        prop_assert_eq!(seen.len(), spans.len());
        let by_key: HashMap<(String, String), &decode::Seen> = seen
            .iter()
            .map(|s| ((s.event.args["trace_id"].clone(), s.event.args["span_id"].clone()), s))
            .collect();
        for span in &spans {
            let (trace_id, span_id) = (span.key().trace_id.to_string(), span.key().span_id.to_string());
            let found = by_key[&(trace_id.clone(), span_id)];
            prop_assert_eq!(found.event.unix_ns, (T0 + span.start) as u64);
            prop_assert_eq!(found.end_unix_ns, (T0 + span.end) as u64);
            let parent = span.parent.map(|id| format!("{id:016x}"));
            prop_assert!(found.inside.is_none() || found.inside == parent, "inside a stranger");
            let around = parent.and_then(|id| by_key.get(&(trace_id, id)));
            let is_apart = around.is_some_and(|p| p.event.track != found.event.track);
            let is_forward = around.is_some_and(|p| p.event.unix_ns <= found.event.unix_ns);
            let joined = found.event.ends_flows.first();
            prop_assert_eq!(joined.is_some(), is_apart && is_forward);
            if let (Some(flow), Some(around)) = (joined, around) {
                prop_assert!(around.event.flows.contains(flow));
            }
        }
        chrome_is_drawn_rightly(&export(&run, Format::Chrome).0, &spans)?;
    }
}

/// A complete event: start and end, the parent's id, and its own.
type Complete = (u64, u64, Option<String>, String);

/// On a thread complete events nest or do not touch, by whole nanoseconds.
fn chrome_is_drawn_rightly(bytes: &[u8], spans: &[Made]) -> Result<(), TestCaseError> {
    let document: serde_json::Value = serde_json::from_slice(bytes).unwrap();
    let base: u64 = document["otherData"]["retake.base_unix_ns"].as_str().unwrap().parse().unwrap();
    let mut rows: BTreeMap<u64, Vec<Complete>> = BTreeMap::new();
    for event in document["traceEvents"].as_array().unwrap() {
        if event["ph"] != "X" {
            continue;
        }
        let start = base + whole_ns(&event["ts"]);
        let id = event["args"]["span_id"].as_str().unwrap().to_owned();
        let parent = event["args"]["parent_span_id"].as_str().map(str::to_owned);
        let row = rows.entry(event["tid"].as_u64().unwrap()).or_default();
        row.push((start, start + whole_ns(&event["dur"]), parent, id));
    }
    prop_assert_eq!(rows.values().map(Vec::len).sum::<usize>(), spans.len());
    for mut row in rows.into_values() {
        // Readers sort by start and then by length, and take bounds as inclusive.
        row.sort_by_key(|(start, end, ..)| (*start, std::cmp::Reverse(*end)));
        let mut open: Vec<(u64, String)> = Vec::new();
        for (start, end, parent, id) in row {
            while let Some((until, _)) = open.last().filter(|(until, _)| *until < end) {
                prop_assert!(*until <= start, "an overlap");
                open.pop();
            }
            if let Some((until, around)) = open.last() {
                prop_assert!(*until >= start);
                prop_assert_eq!(parent.as_ref(), Some(around), "inside a stranger");
            }
            open.push((end, id));
        }
    }
    Ok(())
}

/// Microseconds with three decimals as they stand in the file.
fn whole_ns(number: &serde_json::Value) -> u64 {
    let text = number.to_string();
    let (micros, decimals) = text.split_once('.').unwrap_or((&text, "0"));
    let decimals = format!("{decimals:0<3}");
    assert_eq!(decimals.len(), 3, "{text}");
    micros.parse::<u64>().unwrap() * 1000 + decimals.parse::<u64>().unwrap()
}
