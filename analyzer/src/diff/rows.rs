//! The rows of a comparison.

use std::collections::{BTreeMap, BTreeSet};

use super::explain::{mean_stages, means, shares};
use super::judge::{self, Context, NEEDS_MORE};
use super::noise::half_width;
use super::ops::{Op, Sides};
use super::pair::Pair;
use crate::model::{DiffRow, Verdict};
use crate::stats::benjamini_hochberg;

/// Rows, end to end first, and what they rest on.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Compared {
    pub(super) rows: Vec<DiffRow>,
    pub(super) note: String,
}

/// Compares the same operations pairwise, each kind by itself, the most frequent kind first.
pub(super) fn paired(pairs: &[Pair], sides: &Sides, context: &Context) -> Compared {
    let kinds = by_kind(pairs, |pair| &pair.kind);
    let (mut wholes, stages): (Vec<DiffRow>, Vec<Vec<DiffRow>>) =
        kinds.iter().map(|(prefix, pairs)| paired_kind(prefix, pairs, sides, context)).unzip();
    // Each kind of operation is a question of its own: with several, one is more easily answered by
    // chance.
    adjust(&mut wholes);
    wholes.iter_mut().for_each(|row| judge::decide(row, context));
    let rows = wholes
        .into_iter()
        .zip(stages)
        .flat_map(|(whole, stages)| [whole].into_iter().chain(stages));
    Compared { rows: rows.collect(), note: paired_note(pairs) }
}

/// Whole operations of a kind, undecided, and their stages.
fn paired_kind(
    prefix: &str,
    pairs: &[&Pair],
    sides: &Sides,
    context: &Context,
) -> (DiffRow, Vec<DiffRow>) {
    let kind = pairs.first().map_or("", |pair| pair.kind.as_str());
    let stages: BTreeSet<&String> = pairs
        .iter()
        .flat_map(|pair| pair.base.stages.keys().chain(pair.candidate.stages.keys()))
        .collect();
    let latencies: Vec<(f64, f64)> =
        pairs.iter().map(|pair| (pair.base.latency_ns, pair.candidate.latency_ns)).collect();
    let chance = half_width(sides, kind, None);
    let whole = judge::paired(&format!("{prefix}{END_TO_END}"), &latencies, chance);
    let mut rows: Vec<DiffRow> = stages
        .iter()
        .map(|stage| {
            let wall = |side: &BTreeMap<String, f64>| side.get(*stage).copied().unwrap_or(0.0);
            let values: Vec<(f64, f64)> = pairs
                .iter()
                .map(|pair| (wall(&pair.base.stages), wall(&pair.candidate.stages)))
                .filter(|(base, candidate)| *base > 0.0 || *candidate > 0.0)
                .collect();
            let chance = half_width(sides, kind, Some(stage));
            judge::paired(&format!("{prefix}{stage}"), &values, chance)
        })
        .collect();
    adjust(&mut rows);
    rows.iter_mut().for_each(|row| judge::decide(row, context));
    let base = means(pairs.iter().map(|pair| &pair.base.stages));
    let candidate = means(pairs.iter().map(|pair| &pair.candidate.stages));
    explain(&mut rows, prefix, &base, &candidate);
    (whole, rows)
}

/// Worse when any kind of operation is; else better when any is; the same when all are.
pub(super) fn verdict(rows: &[DiffRow]) -> Verdict {
    let wholes = || rows.iter().filter(|row| row.stage.ends_with(END_TO_END));
    let has = |verdict| wholes().any(|row| row.verdict == verdict);
    if has(Verdict::Worse) {
        Verdict::Worse
    } else if has(Verdict::Better) {
        Verdict::Better
    } else if wholes().next().is_none() || has(Verdict::Inconclusive) {
        Verdict::Inconclusive
    } else {
        Verdict::Same
    }
}

/// Compares two runs with different operations.
pub(super) fn unpaired(sides: &Sides, context: &Context) -> Compared {
    let good = |ops: &'_ [Op]| -> Vec<Op> { ops.iter().filter(|op| op.is_ok).cloned().collect() };
    let (base, candidate) = (good(&sides.base), good(&sides.candidate));
    let base_kinds: BTreeMap<String, Vec<&Op>> =
        by_kind(&base, |op| &op.kind).into_iter().collect();
    let mut rows = Vec::new();
    let mut seen = BTreeSet::new();
    for (prefix, candidate_ops) in by_kind(&candidate, |op| &op.kind) {
        // The most frequent kind need not be the same on both sides: match by its name.
        let kind = candidate_ops.first().map(|op| op.kind.clone()).unwrap_or_default();
        let same: Vec<&Op> =
            base_kinds.values().flatten().copied().filter(|op| op.kind == kind).collect();
        seen.insert(kind);
        rows.extend(unpaired_kind(&prefix, &same, &candidate_ops, context));
    }
    for (prefix, ops) in by_kind(&base, |op| &op.kind) {
        let is_new = ops.first().is_some_and(|op| !seen.contains(&op.kind));
        if is_new {
            rows.extend(unpaired_kind(&prefix, &ops, &[], context));
        }
    }
    let note = format!(
        "the runs executed different operations, so the mix of requests may explain any \
         difference: {NEEDS_MORE}"
    );
    Compared { rows, note }
}

fn unpaired_kind(prefix: &str, base: &[&Op], candidate: &[&Op], context: &Context) -> Vec<DiffRow> {
    let latencies = |ops: &[&Op]| ops.iter().map(|op| op.latency_ns as f64).collect::<Vec<f64>>();
    let name = format!("{prefix}{END_TO_END}");
    let whole = judge::unpaired(&name, &latencies(base), &latencies(candidate), context);
    let stages: BTreeSet<&String> =
        base.iter().chain(candidate).flat_map(|op| op.stages.keys()).collect();
    let walls = |ops: &[&Op], stage: &String| -> Vec<f64> {
        ops.iter().filter_map(|op| op.stages.get(stage)).map(|ns| *ns as f64).collect()
    };
    let mut rows: Vec<DiffRow> = stages
        .iter()
        .map(|stage| {
            let name = format!("{prefix}{stage}");
            judge::unpaired(&name, &walls(base, stage), &walls(candidate, stage), context)
        })
        .collect();
    explain(&mut rows, prefix, &mean_stages(base), &mean_stages(candidate));
    rows.insert(0, whole);
    rows
}

/// Groups by kind of operation, the most frequent first. Its rows carry the bare names of stages,
/// those of other kinds are prefixed, because an ingest and a question share stages but nothing
/// else.
fn by_kind<T>(items: &[T], kind: impl Fn(&T) -> &String) -> Vec<(String, Vec<&T>)> {
    let mut kinds: BTreeMap<&String, Vec<&T>> = BTreeMap::new();
    for item in items {
        kinds.entry(kind(item)).or_default().push(item);
    }
    let mut kinds: Vec<(&String, Vec<&T>)> = kinds.into_iter().collect();
    kinds.sort_by_key(|(_, items)| std::cmp::Reverse(items.len()));
    let prefix = |(position, kind): (usize, &String)| match (position, kind.as_str()) {
        (0, _) => String::new(),
        (_, "") => "other: ".to_owned(),
        (_, kind) => format!("{kind}: "),
    };
    kinds
        .into_iter()
        .enumerate()
        .map(|(position, (kind, items))| (prefix((position, kind)), items))
        .collect()
}

fn adjust(rows: &mut [DiffRow]) {
    let p_values: Vec<f64> = rows.iter().filter_map(|row| row.p_adjusted).collect();
    let tested = rows.iter_mut().filter(|row| row.p_adjusted.is_some());
    for (row, adjusted) in tested.zip(benjamini_hochberg(&p_values)) {
        row.p_adjusted = Some(adjusted);
    }
}

/// Fills in the shares and puts the largest first.
fn explain(
    rows: &mut [DiffRow],
    prefix: &str,
    base: &BTreeMap<String, f64>,
    candidate: &BTreeMap<String, f64>,
) {
    if base.is_empty() || candidate.is_empty() {
        return;
    }
    if let Some(shares) = shares(base, candidate) {
        for row in rows.iter_mut() {
            let stage = row.stage.strip_prefix(prefix).unwrap_or(&row.stage);
            row.explains_share = shares.get(stage).copied();
        }
    }
    let change = |row: &DiffRow| (row.candidate - row.base).abs();
    rows.sort_by(|a, b| {
        let share = |row: &DiffRow| row.explains_share.unwrap_or(f64::NEG_INFINITY);
        share(b).total_cmp(&share(a)).then(change(b).total_cmp(&change(a)))
    });
}

fn paired_note(pairs: &[Pair]) -> String {
    let count = pairs.len();
    if count == 0 {
        return "the runs are linked, but no operation succeeded on both sides".to_owned();
    }
    let repeats = |side: fn(&Pair) -> usize| pairs.iter().map(side).min().unwrap_or(0);
    let least = repeats(|pair| pair.base.repeats).min(repeats(|pair| pair.candidate.repeats));
    let chance = if least < 2 {
        "one execution a side cannot show what differs from run to run by chance, so 15 % is \
         assumed: `retake replay run --repeat 5` on both sides measures it"
    } else {
        "medians over repeats are compared; repeats on one machine share its luck"
    };
    format!("{count} operations compared pairwise, so the mix of requests cancels out; {chance}")
}

/// Name of the row for whole operations.
pub const END_TO_END: &str = "(end to end)";
