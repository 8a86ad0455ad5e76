//! What a workload is like: arrivals, lengths, sessions, and what its prompts share.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;

use super::{PartRole, Workload};
use crate::quantile::nearest_rank;
use crate::target::Operation;

/// Facts about a workload.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WorkloadStats {
    /// Operations.
    pub operations: u64,
    /// Operations by kind.
    pub kinds: BTreeMap<String, u64>,
    /// Operations whose input is known, not only its shape.
    pub with_input: u64,
    /// From the first arrival to the last, ns.
    pub span_ns: i64,
    /// Operations per second over that span; `None` for a span of 0.
    pub rate_per_s: Option<f64>,
    /// Most operations in any one second.
    pub peak_1s: u64,
    /// Most operations in any one hour.
    pub peak_1h: u64,
    /// Coefficient of variation of the gaps between arrivals: 1 for Poisson, more for bursts.
    pub gap_cv: Option<f64>,
    /// What the recording's clock could tell apart, ns.
    pub stamp_resolution_ns: i64,
    /// Operations whose stamp another operation has too.
    pub shared_stamps: u64,
    /// Inputs, tokens.
    pub tokens_in: Lengths,
    /// Outputs, tokens.
    pub tokens_out: Lengths,
    /// Sessions.
    pub sessions: SessionStats,
    /// What prompts are made of, by role; empty when that is not known.
    pub parts: BTreeMap<PartRole, PartStats>,
    /// Share of operations whose user input (the ids of its parts, in order) was there before: what
    /// an unbounded cache of exact queries would answer.
    pub exact_query_hit_share: Option<f64>,
    /// Operations whose list of passages, not empty, was there before.
    pub repeated_passage_lists: Option<u64>,
    /// Share of prompt blocks whose prefix was there before: what an unbounded prefix cache would
    /// save (Mooncake's ideal hit rate).
    pub prefix_hit_share: Option<f64>,
    /// Input that is left when only the best so many passages are used.
    pub top_k: Vec<TopK>,
}

/// Sums and quantiles of lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Default)]
pub struct Lengths {
    /// Operations of which it is known.
    pub known: u64,
    /// Their sum.
    pub sum: u64,
    /// Median.
    pub p50: u64,
    /// 90th percentile.
    pub p90: u64,
    /// 99th percentile.
    pub p99: u64,
    /// Largest.
    pub max: u64,
}

/// Sessions of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Default)]
pub struct SessionStats {
    /// Sessions.
    pub count: u64,
    /// Those with more than one turn.
    pub multi_turn: u64,
    /// Turns of the longest one.
    pub turns_max: u64,
    /// Operations with a known pure think time.
    pub with_think: u64,
    /// From the start of one turn to that of the next, ns: 10th percentile. Holds the service time.
    pub turn_gap_p10_ns: i64,
    /// Median.
    pub turn_gap_p50_ns: i64,
    /// 90th percentile.
    pub turn_gap_p90_ns: i64,
}

/// Parts of one role.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct PartStats {
    /// Parts.
    pub count: u64,
    /// Different ones.
    pub distinct: u64,
    /// Their tokens, of those whose length is known.
    pub tokens: u64,
    /// Share of all input tokens.
    pub share_of_input: f64,
    /// How many an operation has: operations by number of parts.
    pub per_operation: BTreeMap<u64, u64>,
}

/// A what-if that needs no timing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TopK {
    /// Passages used at most.
    pub top_k: u64,
    /// Input tokens that fall away.
    pub tokens_dropped: u64,
    /// Share of input tokens that stays.
    pub share_left: f64,
}

impl Workload {
    /// Sums the workload up.
    #[must_use]
    pub fn stats(&self) -> WorkloadStats {
        let operations = &self.operations;
        let due: Vec<i64> = operations.iter().map(|operation| operation.due_ns).collect();
        let mut kinds = BTreeMap::new();
        for operation in operations {
            *kinds.entry(operation.kind.clone()).or_default() += 1;
        }
        let span_ns = self.span_ns();
        let tokens_in = Lengths::of(operations, |operation| operation.shape.tokens_in);
        let sharing = Sharing::of(operations);
        WorkloadStats {
            operations: operations.len() as u64,
            kinds,
            with_input: operations.iter().filter(|o| !o.input.is_null()).count() as u64,
            span_ns,
            rate_per_s: (span_ns > 0).then(|| operations.len() as f64 / (span_ns as f64 / 1e9)),
            peak_1s: peak(&due, SECOND_NS),
            peak_1h: peak(&due, 3600 * SECOND_NS),
            gap_cv: gap_cv(&due),
            stamp_resolution_ns: self.stamp_resolution_ns,
            shared_stamps: shared(&due),
            tokens_in,
            tokens_out: Lengths::of(operations, |operation| operation.shape.tokens_out),
            sessions: SessionStats::of(operations),
            parts: parts(operations, tokens_in.sum),
            exact_query_hit_share: sharing.exact_query_hit_share,
            repeated_passage_lists: sharing.repeated_passage_lists,
            prefix_hit_share: sharing.prefix_hit_share,
            top_k: top_k(operations, tokens_in.sum),
        }
    }
}

impl Lengths {
    fn of(operations: &[Operation], length: impl Fn(&Operation) -> Option<u64>) -> Self {
        let mut known: Vec<u64> = operations.iter().filter_map(length).collect();
        known.sort_unstable();
        let at = |q| nearest_rank(&known, q).unwrap_or(0);
        Self {
            known: known.len() as u64,
            sum: known.iter().sum(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            max: known.last().copied().unwrap_or(0),
        }
    }
}

impl SessionStats {
    fn of(operations: &[Operation]) -> Self {
        let mut turns: HashMap<&str, (u64, i64)> = HashMap::new();
        let mut gaps = Vec::new();
        let mut with_think = 0;
        for operation in operations {
            with_think += u64::from(operation.shape.think_ns.is_some());
            let Some(session) = &operation.shape.session else { continue };
            let entry = turns.entry(session).or_insert((0, operation.due_ns));
            if entry.0 > 0 {
                gaps.push(operation.due_ns - entry.1);
            }
            *entry = (entry.0 + 1, operation.due_ns);
        }
        gaps.sort_unstable();
        let gap = |q| nearest_rank(&gaps, q).unwrap_or(0);
        Self {
            count: turns.len() as u64,
            multi_turn: turns.values().filter(|(count, _)| *count > 1).count() as u64,
            turns_max: turns.values().map(|(count, _)| *count).max().unwrap_or(0),
            with_think,
            turn_gap_p10_ns: gap(0.1),
            turn_gap_p50_ns: gap(0.5),
            turn_gap_p90_ns: gap(0.9),
        }
    }
}

/// Most arrivals in any window of this width, wherever it begins.
fn peak(due: &[i64], width_ns: i64) -> u64 {
    let mut first = 0;
    let mut most = 0;
    for (last, time) in due.iter().enumerate() {
        while due.get(first).is_some_and(|begin| time - begin >= width_ns) {
            first += 1;
        }
        most = most.max(last + 1 - first);
    }
    most as u64
}

fn gap_cv(due: &[i64]) -> Option<f64> {
    let gaps: Vec<f64> =
        due.windows(2).filter_map(|w| Some((w.get(1)? - w.first()?) as f64)).collect();
    if gaps.len() < 2 {
        return None;
    }
    let count = gaps.len() as f64;
    let mean = gaps.iter().sum::<f64>() / count;
    let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / count;
    (mean > 0.0).then(|| variance.sqrt() / mean)
}

fn shared(due: &[i64]) -> u64 {
    let bursts = due.chunk_by(|a, b| a == b).filter(|burst| burst.len() > 1);
    bursts.map(|burst| burst.len() as u64).sum()
}

fn parts(operations: &[Operation], input_tokens: u64) -> BTreeMap<PartRole, PartStats> {
    let mut roles: BTreeMap<PartRole, PartStats> = BTreeMap::new();
    let mut distinct: HashSet<(PartRole, u64)> = HashSet::new();
    for part in operations.iter().flat_map(|operation| &operation.shape.parts) {
        let role = roles.entry(part.role).or_default();
        role.count += 1;
        role.tokens += u64::from(part.tokens.unwrap_or(0));
        let is_new = part.id.is_none_or(|id| distinct.insert((part.role, id)));
        role.distinct += u64::from(is_new);
    }
    for (role, found) in &mut roles {
        found.share_of_input = share(found.tokens, input_tokens);
        for operation in operations {
            let count = operation.shape.parts.iter().filter(|part| part.role == *role).count();
            *found.per_operation.entry(count as u64).or_default() += 1;
        }
    }
    roles
}

/// What later operations have in common with earlier ones.
struct Sharing {
    exact_query_hit_share: Option<f64>,
    repeated_passage_lists: Option<u64>,
    prefix_hit_share: Option<f64>,
}

impl Sharing {
    fn of(operations: &[Operation]) -> Self {
        let users = lists(operations, PartRole::User);
        let passages = lists(operations, PartRole::Passage);
        let hits = repeats(&users);
        let count = operations.len() as u64;
        Self {
            exact_query_hit_share: (!users.is_empty()).then(|| share(hits, count)),
            repeated_passage_lists: (!passages.is_empty()).then(|| repeats(&passages)),
            prefix_hit_share: prefix_hit_share(operations),
        }
    }
}

/// Of each operation that has parts of this role, their ids in order.
fn lists(operations: &[Operation], role: PartRole) -> Vec<Vec<u64>> {
    let ids = |operation: &Operation| -> Vec<u64> {
        let parts = operation.shape.parts.iter().filter(|part| part.role == role);
        parts.filter_map(|part| part.id).collect()
    };
    operations.iter().map(ids).filter(|ids| !ids.is_empty()).collect()
}

fn repeats(lists: &[Vec<u64>]) -> u64 {
    let mut seen = HashSet::with_capacity(lists.len());
    lists.iter().filter(|list| !seen.insert(*list)).count() as u64
}

fn prefix_hit_share(operations: &[Operation]) -> Option<f64> {
    let mut seen = HashSet::new();
    let (mut hits, mut blocks) = (0, 0);
    for operation in operations {
        let ids = operation.shape.parts.iter().filter(|part| part.role == PartRole::PrefixBlock);
        for id in ids.filter_map(|part| part.id) {
            blocks += 1;
            hits += u64::from(!seen.insert(id));
        }
    }
    (blocks > 0).then(|| share(hits, blocks))
}

fn top_k(operations: &[Operation], input_tokens: u64) -> Vec<TopK> {
    let dropped = |top_k: usize| -> Option<u64> {
        let beyond = |operation: &Operation| -> Option<u64> {
            let passages = operation.shape.parts.iter().filter(|p| p.role == PartRole::Passage);
            passages.skip(top_k).map(|part| part.tokens.map(u64::from)).sum()
        };
        operations.iter().map(beyond).sum()
    };
    let most = |operation: &Operation| {
        operation.shape.parts.iter().filter(|part| part.role == PartRole::Passage).count()
    };
    let most = operations.iter().map(most).max().unwrap_or(0);
    (1..most)
        .rev()
        .filter_map(|top_k| {
            let tokens_dropped = dropped(top_k)?;
            let share_left = 1.0 - share(tokens_dropped, input_tokens);
            Some(TopK { top_k: top_k as u64, tokens_dropped, share_left })
        })
        .collect()
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

const SECOND_NS: i64 = 1_000_000_000;
