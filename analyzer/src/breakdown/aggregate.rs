//! One row of a breakdown while it is summed up.

use super::SpanVerdict;
use crate::assemble::{LeanSpan, Text, Texts};
use crate::model::BreakdownRow;
use crate::stats::nearest_rank;

#[derive(Debug, Default)]
pub(super) struct Aggregate {
    pub(super) self_ns: i128,
    pub(super) wall_ns: i128,
    pub(super) critical_ns: i128,
    kind: Agreed,
    errors: u64,
    durations: Vec<i64>,
    wrappers: u64,
    ttft: Vec<i64>,
    tpot: Vec<i64>,
    queue: Mean,
    batch: Mean,
    input_tokens: Option<i64>,
    output_tokens: Option<i64>,
    cache_read_tokens: Option<i64>,
    reasoning_tokens: Option<i64>,
    retries: Option<i64>,
    cache_lookups: u64,
    cache_hits: u64,
    tokens_source: Agreed,
    cost: Option<Money>,
}

impl Aggregate {
    /// Adds what another has of the same row.
    pub(super) fn merge(&mut self, other: Self) {
        self.self_ns += other.self_ns;
        self.wall_ns += other.wall_ns;
        self.critical_ns += other.critical_ns;
        self.kind.merge(other.kind);
        self.errors += other.errors;
        self.durations.extend(other.durations);
        self.wrappers += other.wrappers;
        self.ttft.extend(other.ttft);
        self.tpot.extend(other.tpot);
        self.queue.merge(other.queue);
        self.batch.merge(other.batch);
        add(&mut self.input_tokens, other.input_tokens);
        add(&mut self.output_tokens, other.output_tokens);
        add(&mut self.cache_read_tokens, other.cache_read_tokens);
        add(&mut self.reasoning_tokens, other.reasoning_tokens);
        add(&mut self.retries, other.retries);
        self.cache_lookups += other.cache_lookups;
        self.cache_hits += other.cache_hits;
        self.tokens_source.merge(other.tokens_source);
        if let Some(cost) = other.cost {
            self.cost.get_or_insert_default().0 += cost.0;
        }
    }

    pub(super) fn add_span(&mut self, span: &LeanSpan, verdict: SpanVerdict, texts: &Texts) {
        self.kind.add(span.kind, texts);
        self.errors += u64::from(verdict.is_error_origin);
        self.durations.push(span.duration_ns);
        self.wrappers += u64::from(span.is_wrapper);
        self.ttft.extend(span.ttft_ns);
        self.queue.add(span.queue_ns);
        self.batch.add(span.batch_size);
        add(&mut self.retries, span.retries);
        self.cache_lookups += u64::from(span.is_cache_hit.is_some());
        self.cache_hits += u64::from(span.is_cache_hit == Some(true));
        if verdict.counts_tokens {
            self.tpot.extend(time_per_output_token(span));
            add(&mut self.cache_read_tokens, span.cache_read_tokens);
            add(&mut self.reasoning_tokens, span.reasoning_tokens);
            self.tokens_source.add(span.tokens_source, texts);
            add(&mut self.input_tokens, span.input_tokens);
            add(&mut self.output_tokens, span.output_tokens);
        }
        if let Some(cost) = span.cost_usd.filter(|_| verdict.counts_cost) {
            self.cost.get_or_insert_default().add(cost);
        }
    }

    /// The row, and its durations in ascending order.
    pub(super) fn finish(mut self, stage: String, run_wall_ns: i128) -> (BreakdownRow, Vec<i64>) {
        self.durations.sort_unstable();
        self.ttft.sort_unstable();
        self.tpot.sort_unstable();
        let share = |ns: i128| if run_wall_ns > 0 { ns as f64 / run_wall_ns as f64 } else { 0.0 };
        let total: i128 = self.durations.iter().map(|ns| i128::from(*ns)).sum();
        let row = BreakdownRow {
            stage,
            kind: self.kind.word("").to_owned(),
            // A row of nothing but wrappers is about them.
            calls: match self.durations.len() as u64 {
                spans if spans > self.wrappers => spans - self.wrappers,
                spans => spans,
            },
            errors: self.errors,
            total_ns: saturated(total),
            self_ns: saturated(self.self_ns),
            wall_ns: saturated(self.wall_ns),
            wall_share: share(self.wall_ns),
            critical_share: share(self.critical_ns),
            p50_ns: nearest_rank(&self.durations, 50),
            p95_ns: nearest_rank(&self.durations, 95),
            p99_ns: nearest_rank(&self.durations, 99),
            queue_mean_ns: self.queue.mean().map(|ns| ns.round() as i64),
            batch_mean: self.batch.mean(),
            input_tokens: self.input_tokens,
            output_tokens: self.output_tokens,
            tokens_source: self.tokens_source.word("mixed").to_owned(),
            cost_usd: self.cost.map(Money::usd),
            ttft_p50_ns: (!self.ttft.is_empty()).then(|| nearest_rank(&self.ttft, 50)),
            tpot_p50_ns: (!self.tpot.is_empty()).then(|| nearest_rank(&self.tpot, 50)),
            cache_read_tokens: self.cache_read_tokens,
            reasoning_tokens: self.reasoning_tokens,
            retries: self.retries,
            cache_lookups: self.cache_lookups,
            cache_hits: self.cache_hits,
        };
        let row = match row.tokens_source.as_str() {
            "" => BreakdownRow { tokens_source: "none".to_owned(), ..row },
            _ => row,
        };
        (row, self.durations)
    }
}

fn time_per_output_token(span: &LeanSpan) -> Option<i64> {
    let after_first = span.output_tokens.filter(|tokens| *tokens > 1)? - 1;
    Some(span.duration_ns.saturating_sub(span.ttft_ns?) / after_first)
}

/// Sums are exact in 128 bits; only hostile times do not fit a column.
pub(crate) fn saturated(ns: i128) -> i64 {
    i64::try_from(ns).unwrap_or(if ns < 0 { i64::MIN } else { i64::MAX })
}

fn add(total: &mut Option<i64>, count: Option<i64>) {
    if let Some(count) = count {
        *total = Some(total.unwrap_or(0).saturating_add(count));
    }
}

/// An amount in parts of a dollar so small that adding them loses nothing that anybody pays:
/// whole numbers add up to the same sum in any order.
#[derive(Debug, Clone, Copy, Default)]
struct Money(i128);

impl Money {
    fn add(&mut self, usd: f64) {
        self.0 = self.0.saturating_add((usd * PARTS_PER_USD).round() as i128);
    }

    fn usd(self) -> f64 {
        self.0 as f64 / PARTS_PER_USD
    }
}

const PARTS_PER_USD: f64 = 1e15;

#[derive(Debug, Default)]
struct Mean {
    sum: i128,
    count: u64,
}

impl Mean {
    fn add(&mut self, value: Option<i64>) {
        if let Some(value) = value {
            self.sum += i128::from(value);
            self.count += 1;
        }
    }

    fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum as f64 / self.count as f64)
    }

    fn merge(&mut self, other: Self) {
        self.sum += other.sum;
        self.count += other.count;
    }
}

/// A word all spans of a row share, as long as they do.
#[derive(Debug, Default)]
enum Agreed {
    #[default]
    Nothing,
    On(Text, String),
    Not,
}

impl Agreed {
    fn add(&mut self, text: Text, texts: &Texts) {
        match self {
            Self::Nothing => *self = Self::On(text, texts.text(text).to_owned()),
            Self::On(agreed, _) if *agreed != text => *self = Self::Not,
            Self::On(..) | Self::Not => {}
        }
    }

    fn merge(&mut self, other: Self) {
        *self = match (std::mem::take(self), other) {
            (Self::Nothing, agreed) | (agreed, Self::Nothing) => agreed,
            (Self::On(a, word), Self::On(b, _)) if a == b => Self::On(a, word),
            _ => Self::Not,
        };
    }

    fn word(&self, otherwise: &'static str) -> &str {
        match self {
            Self::Nothing => "",
            Self::On(_, word) => word,
            Self::Not => otherwise,
        }
    }
}
