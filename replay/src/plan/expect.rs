//! What a stage will take, going by the recorded run.

use std::collections::BTreeMap;

use retake_schemas::settings::PricedTokens;
use serde::Serialize;
use serde_json::Value as Json;

use super::{OnMiss, Planned, StageSource};
use crate::cost::{self, Call, Observed, Range};

/// Calls, tokens, money and time.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct Expected {
    /// Calls.
    pub calls: u64,
    /// Input tokens; `None` when they were not counted.
    pub input_tokens: Option<u64>,
    /// Output tokens; `None` when they were not counted.
    pub output_tokens: Option<u64>,
    /// US dollars; `None` without a price.
    pub cost_usd: Option<f64>,
    /// Sum of the times of all calls, ns; `None` when it cannot be said.
    pub busy_ns: Option<i64>,
    /// Where the figures come from.
    pub basis: String,
}

impl Expected {
    /// Adds a stage's to the sum. What one stage does not know is left out of it.
    pub(super) fn add(&mut self, other: &Self) {
        let sum = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (None, None) => None,
            (a, b) => Some(a.unwrap_or(0) + b.unwrap_or(0)),
        };
        self.calls += other.calls;
        self.input_tokens = sum(self.input_tokens, other.input_tokens);
        self.output_tokens = sum(self.output_tokens, other.output_tokens);
        self.busy_ns = match (self.busy_ns, other.busy_ns) {
            (None, None) => None,
            (a, b) => Some(a.unwrap_or(0) + b.unwrap_or(0)),
        };
        self.cost_usd = match (self.cost_usd, other.cost_usd) {
            (None, None) => None,
            (a, b) => Some(a.unwrap_or(0.0) + b.unwrap_or(0.0)),
        };
    }
}

/// Operations that are proven to be untouched by a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Cutoff {
    /// Operations whose request stays the same.
    pub revalidated: u64,
    /// Operations in all.
    pub of: u64,
}

/// How many queries provably send the model the same request in spite of changed settings; `None`
/// when only the run can tell.
///
/// Known beforehand: a shorter list is the beginning of the longer one, and a list that was shorter
/// than asked for already had everything there is.
pub(super) fn cutoff(
    observed: &Observed,
    target: &BTreeMap<String, Json>,
    invalidated_by: &[String],
) -> Option<Cutoff> {
    let of = observed.queries.len() as u64;
    if invalidated_by.iter().any(|name| name.starts_with("synthesize.") || name == "seed") {
        return Some(Cutoff { revalidated: 0, of });
    }
    let (from, to) = list_lengths(observed, target, invalidated_by)?;
    let shortest = from.min(to);
    let is_same = |length: u64| if to < from { length <= shortest } else { length < shortest };
    let lengths = observed.queries.iter().map(|query| query.passages.len() as u64);
    Some(Cutoff { revalidated: lengths.filter(|length| is_same(*length)).count() as u64, of })
}

/// Passages asked for before and after, when `retrieve.top_k` alone changes them.
fn list_lengths(
    observed: &Observed,
    target: &BTreeMap<String, Json>,
    invalidated_by: &[String],
) -> Option<(u64, u64)> {
    let is_alone = invalidated_by.iter().all(|name| name == "retrieve.top_k");
    let number = |settings: &BTreeMap<String, Json>, name: &str| settings.get(name)?.as_u64();
    let (from, to) =
        (number(&observed.settings, "retrieve.top_k")?, number(target, "retrieve.top_k")?);
    // With a reranker the search asks for its candidates; more passages than these need more.
    let candidates = number(target, "rerank.candidates").unwrap_or(0);
    let is_prefix = !super::has_steps(target) || from.max(to) <= candidates;
    (is_alone && is_prefix).then_some((from, to))
}

pub(super) fn expected(stage: &'static str, planned: &Planned<'_>, is_valid: bool) -> Expected {
    let calls = planned.observed.stages.get(stage).map_or(&[][..], Vec::as_slice);
    match stage {
        "llm" => of_llm(planned, calls, is_valid),
        "embed" => of_embed(planned, calls),
        "chunk" | "load" => as_recorded(planned, calls, 1.0, "as recorded"),
        "insert" => {
            let factor = chunk_factor(planned);
            as_recorded(planned, calls, factor, "as recorded, by rows")
        }
        "rerank" if calls.is_empty() => Expected {
            calls: planned.observed.queries.len() as u64,
            basis: "one call a query; the recorded run had none to go by".to_owned(),
            ..Expected::default()
        },
        _ => as_recorded(planned, calls, 1.0, "as recorded"),
    }
}

/// The recorded calls, their amounts times a factor.
fn as_recorded(planned: &Planned<'_>, calls: &[Call], factor: f64, basis: &str) -> Expected {
    let scaled = |sum: i64| (sum as f64 * factor).round().max(0.0) as u64;
    let tokens = |of: fn(&Call) -> Option<i64>| {
        let counted = calls.iter().filter(|call| of(call).is_some()).count();
        (counted > 0).then(|| scaled(calls.iter().filter_map(of).sum()))
    };
    let (input_tokens, output_tokens) = (tokens(|c| c.input_tokens), tokens(|c| c.output_tokens));
    let busy: i64 = calls.iter().map(|call| call.duration_ns).sum();
    Expected {
        calls: calls.len() as u64,
        input_tokens,
        output_tokens,
        cost_usd: cost(planned, calls, input_tokens, output_tokens),
        busy_ns: (!calls.is_empty()).then(|| scaled(busy).try_into().unwrap_or(i64::MAX)),
        basis: basis.to_owned(),
    }
}

/// By the price of the model the replay asks; else as the recorded calls cost, by their tokens.
fn cost(
    planned: &Planned<'_>,
    calls: &[Call],
    input: Option<u64>,
    output: Option<u64>,
) -> Option<f64> {
    let first = calls.first()?;
    let is_llm = first.output_tokens.is_some();
    let setting = if is_llm { "synthesize.model" } else { "embed.model" };
    let asked = planned.target.get(setting).and_then(Json::as_str).filter(|name| !name.is_empty());
    let was = planned.observed.settings.get(setting).and_then(Json::as_str);
    let is_other = asked.is_some() && asked != was;
    let model = if is_other { asked } else { first.model.as_deref() };
    let whole = |tokens: Option<u64>| i64::try_from(tokens.unwrap_or(0)).unwrap_or(i64::MAX);
    let tokens =
        PricedTokens { input: whole(input), output: whole(output), ..PricedTokens::default() };
    if let Some(price) = model.and_then(|model| planned.prices.of(model)) {
        return Some(price.cost_usd(tokens));
    }
    let recorded: Vec<f64> = calls.iter().filter_map(|call| call.cost_usd).collect();
    let all = calls.iter().map(|call| call.input_tokens.unwrap_or(0)).sum::<i64>();
    let share = if all > 0 { tokens.input as f64 / all as f64 } else { 1.0 };
    (!recorded.is_empty() && !is_other).then(|| recorded.iter().sum::<f64>() * share)
}

fn of_embed(planned: &Planned<'_>, calls: &[Call]) -> Expected {
    let factor = chunk_factor(planned);
    let number = |name: &str| planned.target.get(name).and_then(Json::as_u64).unwrap_or(0);
    let batch = number("embed.batch_size").max(1);
    let chunks: Vec<u64> = planned
        .observed
        .ingests
        .iter()
        .map(|ingest| {
            let chunks = ingest.documents.iter().filter_map(|document| document.chunks);
            (chunks.map(f64::from).sum::<f64>() * factor).round() as u64
        })
        .collect();
    let expected_calls: u64 = chunks.iter().map(|chunks| chunks.div_ceil(batch)).sum();
    let mut expected = as_recorded(planned, calls, factor, "");
    expected.calls = expected_calls;
    let is_same_batch = planned.observed.number("embed.batch_size") == Some(batch as f64);
    if is_same_batch {
        expected.basis = "as recorded, by chunks".to_owned();
        return expected;
    }
    let fit = cost::fit(&planned.observed.points("embed"), SEED);
    let predicted = match &fit {
        Some(fit) => fit.predict("embed", batch as f64, Range::Seen).map(|_| fit),
        None => Err(cost::Unpredictable::NoCalls { stage: "embed" }),
    };
    match predicted {
        Ok(fit) => {
            let busy: f64 = chunks
                .iter()
                .map(|chunks| {
                    fit.base_ns * chunks.div_ceil(batch) as f64 + fit.per_item_ns * *chunks as f64
                })
                .sum();
            expected.busy_ns = Some(busy.round() as i64);
            expected.basis = format!("{expected_calls} calls of {}", fit.formula());
        }
        Err(reason) => {
            expected.busy_ns = None;
            expected.basis =
                format!("time not known: {reason}; `retake sweep` measures two sizes first");
        }
    }
    expected
}

/// How many times as many chunks there will be, by the distance from the start of one to the next.
fn chunk_factor(planned: &Planned<'_>) -> f64 {
    let stride = |settings: &BTreeMap<String, Json>| {
        let number = |name: &str| settings.get(name).and_then(Json::as_f64);
        Some(number("chunk.size")? - number("chunk.overlap")?).filter(|stride| *stride > 0.0)
    };
    match (stride(&planned.observed.settings), stride(planned.target)) {
        (Some(from), Some(to)) => from / to,
        _ => 1.0,
    }
}

fn of_llm(planned: &Planned<'_>, calls: &[Call], is_valid: bool) -> Expected {
    let observed = planned.observed;
    let mut expected = as_recorded(planned, calls, 1.0, "as recorded");
    if !is_valid {
        expected.basis =
            "calls and output as recorded; what the change does to them is not known".to_owned();
        let lengths = list_lengths(observed, planned.target, &["retrieve.top_k".to_owned()]);
        if let Some((from, to)) = lengths.filter(|(from, to)| from != to)
            && let Some(factor) = prompt_factor(observed, from, to)
        {
            let input = expected.input_tokens.map(|n| (n as f64 * factor).round() as u64);
            expected.input_tokens = input;
            expected.cost_usd = cost(planned, calls, input, expected.output_tokens);
            expected.basis = format!(
                "output as recorded, input x {factor:.3} by the bytes of {to} passages instead of {from}"
            );
        }
    }
    if planned.llm == StageSource::Recorded && (is_valid || planned.on_miss == OnMiss::Fail) {
        let (calls, busy_ns) = (0, expected.busy_ns);
        let basis = "played back from the recording, in its time".to_owned();
        let nothing = (Some(0), Some(0), Some(0.0));
        let (input_tokens, output_tokens, cost_usd) = nothing;
        return Expected { calls, input_tokens, output_tokens, cost_usd, busy_ns, basis };
    }
    expected
}

/// How many times as long prompts will be with so many passages; `None` when texts were not kept.
fn prompt_factor(observed: &Observed, from: u64, to: u64) -> Option<f64> {
    let (mut before, mut after) = (0.0, 0.0);
    for query in &observed.queries {
        let prompt = query.prompt_bytes? as f64;
        let lengths: Option<Vec<f64>> =
            query.passages.iter().map(|passage| passage.bytes.map(|n| n as f64)).collect();
        let lengths = lengths?;
        let mean = lengths.iter().sum::<f64>() / lengths.len().max(1) as f64;
        let dropped: f64 = lengths.iter().skip(to as usize).sum();
        // Only a list that was full can grow.
        let is_full = lengths.len() as u64 >= from;
        let added = if to > from && is_full { (to - from) as f64 * mean } else { 0.0 };
        before += prompt;
        after += (prompt - dropped + added).max(0.0);
    }
    (before > 0.0).then(|| after / before)
}

/// Of the resamples that judge a fit; a plan is the same each time.
const SEED: u64 = 1;
