//! Questions with known answers, asked one and all, judged, and scored.
//!
//! Each item is one query with its own trace; a line that brings its response is not asked, only
//! judged. An item is judged as soon as it is answered, while others are still asked. Results go to
//! the output file as they come, one JSON line each, so a run that was cancelled or killed goes on
//! where it stopped: items whose id is in the file are skipped, and a line torn by a crash is cut
//! off and its item asked again. An item that fails, or panics, is a line with its error; it costs
//! no other item anything.

pub mod benchmark;
pub mod judge;
pub mod ranking;

mod output;
mod questions;
mod score;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;

use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use self::benchmark::{JudgeBenchmark, benchmark};
use self::judge::{Judgement, Judges, Subject};
use self::output::Output;
pub use self::questions::{Question, Reference, read_questions};
use self::ranking::{Retrieval, mean_retrieval};
use crate::error::PipelineError;
use crate::query::{Answer, AskOptions, Engine};
use crate::work::pool::{self, Lost};

/// What to evaluate.
#[derive(Debug, Clone)]
pub struct EvalRequest {
    /// JSON lines with `question`, and as far as known `id`, `answer` or `answers`, `references`,
    /// `response`, `contexts`, `other_response`, `labels`.
    pub questions: PathBuf,
    /// JSON lines with an [`EvalItem`] each; made or continued.
    pub output: PathBuf,
    /// Questions asked at the same time.
    pub workers: usize,
    /// Who judges the answers.
    pub judges: Judges,
}

/// The result of one question: a line of the output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct EvalItem {
    /// The question's id.
    pub id: String,
    /// The question.
    pub question: String,
    /// Its answer.
    pub answer: Option<String>,
    /// Whether there is an answer.
    pub ok: bool,
    /// Class of the error, if not.
    pub error_type: Option<String>,
    /// The error, if not.
    pub error: Option<String>,
    /// From the question to the end of the answer, ms.
    pub latency_ms: Option<f64>,
    /// From the model call to the first piece of the answer, ms.
    pub ttft_ms: Option<f64>,
    /// What the model calls of the answer came to; those of judges are not in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<AnswerTokens>,
    /// Whether a retrieved chunk overlaps a reference.
    pub hit: Option<bool>,
    /// Share of the references' characters that the retrieved chunks cover.
    pub recall: Option<f64>,
    /// 1 / rank of the first retrieved chunk that overlaps a reference, 0 without one.
    pub mrr: Option<f64>,
    /// Whether the answer contains an accepted one.
    pub answer_match: Option<bool>,
    /// What of the retrieved chunks is relevant, by document and by character.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retrieval: Option<Retrieval>,
    /// What is wrong with the answer, for the style that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objection: Option<String>,
    /// What each evaluator says.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub judgements: BTreeMap<String, Judgement>,
}

/// Tokens of the model calls of an answer, or of many. Parts are contained in their wholes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AnswerTokens {
    /// Calls of the model.
    pub calls: u64,
    /// Input tokens.
    pub input: i64,
    /// Output tokens.
    pub output: i64,
    /// Part of the input that the provider read from its cache.
    pub cache_read: i64,
    /// Part of the output spent on reasoning.
    pub reasoning: i64,
}

impl AnswerTokens {
    fn of(answer: &Answer) -> Self {
        Self {
            calls: answer.model_calls,
            input: answer.input_tokens.unwrap_or_default(),
            output: answer.output_tokens.unwrap_or_default(),
            cache_read: answer.cache_read_tokens.unwrap_or_default(),
            reasoning: answer.reasoning_tokens.unwrap_or_default(),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            calls: self.calls.saturating_add(other.calls),
            input: self.input.saturating_add(other.input),
            output: self.output.saturating_add(other.output),
            cache_read: self.cache_read.saturating_add(other.cache_read),
            reasoning: self.reasoning.saturating_add(other.reasoning),
        }
    }
}

/// What an evaluation found, over all lines of the output.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct EvalReport {
    /// Questions in the file.
    pub questions: u64,
    /// Questions answered by earlier runs.
    pub resumed: u64,
    /// Questions with an answer.
    pub ok: u64,
    /// Questions that failed.
    pub failed: u64,
    /// Share of questions with references whose chunks were hit.
    pub hit_rate: Option<f64>,
    /// Mean recall of questions with references.
    pub recall_mean: Option<f64>,
    /// Mean reciprocal rank of questions with references.
    pub mrr_mean: Option<f64>,
    /// Share of questions with accepted answers whose answer matched.
    pub answer_match_rate: Option<f64>,
    /// Mean latency of answered questions, ms.
    pub latency_ms_mean: Option<f64>,
    /// Median latency of answered questions, ms (nearest rank, as the next).
    pub latency_ms_p50: Option<f64>,
    /// 95th percentile of it, ms.
    pub latency_ms_p95: Option<f64>,
    /// Mean time to the first piece, ms.
    pub ttft_ms_mean: Option<f64>,
    /// Tokens of all answers.
    pub tokens: AnswerTokens,
    /// Means over questions with references.
    pub retrieval: Option<Retrieval>,
    /// Answers with an objection of their style, by objection.
    pub objections: BTreeMap<String, u64>,
    /// What each evaluator said of all answers.
    pub judgements: BTreeMap<String, JudgedAll>,
    /// How good each evaluator is, by the labels there are.
    pub benchmarks: BTreeMap<String, JudgeBenchmark>,
    /// Whether the user ended it before all was done.
    pub is_cancelled: bool,
}

/// What an evaluator said of all answers. Every answer is in one of the counts.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct JudgedAll {
    /// Answers with a score.
    pub judged: u64,
    /// Answers whose judgement could not be read.
    pub invalid: u64,
    /// Answers where the evaluator failed.
    pub failed: u64,
    /// Answers where something is missing that the evaluator needs.
    pub not_applicable: u64,
    /// Mean score.
    pub score_mean: Option<f64>,
    /// Share of passing answers among those with a verdict.
    pub passing_rate: Option<f64>,
}

/// Hears how an evaluation goes. Called from the task that drives it, so it must not block.
pub trait EvalProgress: Sync {
    /// So many questions there are, and so many were answered by earlier runs.
    fn begun(&self, questions: u64, resumed: u64) {
        let _ = (questions, resumed);
    }

    /// A question is through.
    fn item_done(&self, item: &EvalItem) {
        let _ = item;
    }
}

impl EvalProgress for crate::ingest::Silent {}

/// Asks and judges all questions that have no result yet. An earlier result without the judgement
/// of one of the judges is none.
///
/// # Errors
/// The questions or an earlier output cannot be read, or the output cannot be written. A question
/// that fails is no error.
pub async fn evaluate(
    request: &EvalRequest,
    engine: &Engine,
    progress: &dyn EvalProgress,
    cancel: CancellationToken,
) -> Result<EvalReport, PipelineError> {
    let questions: Vec<Arc<Question>> =
        read_questions(&request.questions)?.into_iter().map(Arc::new).collect();
    let (mut output, mut items) = Output::open(&request.output)?;
    let is_done = |item: &EvalItem| {
        !item.ok || request.judges.names().all(|name| item.judgements.contains_key(name))
    };
    items.retain(|_, item| is_done(item));
    let open: Vec<Arc<Question>> =
        questions.iter().filter(|question| !items.contains_key(&question.id)).cloned().collect();
    let resumed = (questions.len() - open.len()) as u64;
    progress.begun(questions.len() as u64, resumed);

    let work = |question: Arc<Question>| {
        ask_and_judge(question, engine.clone(), request.judges.clone(), cancel.clone())
    };
    let stream = futures::stream::iter(open.clone());
    // A question that is cancelled ends by itself, so that its spans do; the pool only stops
    // handing out more.
    let supply = stream.take_until(cancel.clone().cancelled_owned());
    let unending = CancellationToken::new();
    let mut outcomes = pin!(pool::run(supply, request.workers.max(1), unending, work));
    while let Some(outcome) = outcomes.next().await {
        let question = usize::try_from(outcome.index).ok().and_then(|index| open.get(index));
        let item = match (outcome.result, question) {
            (Ok(Some(item)), _) => item,
            (Err(lost @ Lost::Panicked(_)), Some(question)) => panicked(question, &lost),
            // Cancelled: the question stays open for the next run.
            _ => continue,
        };
        output.append(&item)?;
        progress.item_done(&item);
        items.insert(item.id.clone(), item);
    }
    let report = report(&questions, &items);
    let is_cancelled = cancel.is_cancelled() && items.len() < questions.len();
    Ok(EvalReport { resumed, is_cancelled, ..report })
}

/// Asks one question, unless its response is given, and has the answer judged; nothing when it was
/// cancelled.
async fn ask_and_judge(
    question: Arc<Question>,
    engine: Engine,
    judges: Judges,
    cancel: CancellationToken,
) -> Option<EvalItem> {
    let (item, contexts) = match &question.response {
        Some(response) => (given(&question, response), question.contexts.clone()),
        None => ask(&question, &engine, &cancel).await?,
    };
    if !item.ok || judges.is_empty() {
        return Some(item);
    }
    let subject = Subject {
        query: Some(question.question.clone()),
        response: item.answer.clone().unwrap_or_default(),
        contexts,
        reference: question.answers.first().cloned(),
        other_response: question.other_response.clone(),
    };
    tokio::select! {
        judgements = judges.evaluate(&question.id, &subject) => {
            Some(EvalItem { judgements, ..item })
        }
        () = cancel.cancelled() => None,
    }
}

/// Asks one question; nothing when it was cancelled.
async fn ask(
    question: &Question,
    engine: &Engine,
    cancel: &CancellationToken,
) -> Option<(EvalItem, Option<Vec<String>>)> {
    let options = AskOptions {
        request_id: Some(question.id.clone()),
        cancellation: cancel.clone(),
        ..AskOptions::default()
    };
    let judge = |answer: &Answer| score::quality(question, answer);
    match engine.ask_judged(&question.question, options, &mut |_| {}, &judge).await {
        Ok(answer) => {
            let item = answered(question, &answer);
            let contexts = answer.hits.into_iter().map(|hit| hit.chunk.text).collect();
            Some((item, Some(contexts)))
        }
        Err(PipelineError::Cancelled) => None,
        Err(error) => Some((failed(question, error.error_type(), error.to_string()), None)),
    }
}

/// A response that was brought along.
fn given(question: &Question, response: &str) -> EvalItem {
    EvalItem {
        id: question.id.clone(),
        question: question.question.clone(),
        answer: Some(response.to_owned()),
        ok: true,
        answer_match: score::answer_match(question, response),
        ..EvalItem::default()
    }
}

fn panicked(question: &Question, lost: &Lost) -> EvalItem {
    failed(question, "panicked", lost.to_string())
}

fn answered(question: &Question, answer: &Answer) -> EvalItem {
    let quality = score::quality(question, answer);
    EvalItem {
        id: question.id.clone(),
        question: question.question.clone(),
        answer: Some(answer.text.clone()),
        ok: true,
        error_type: None,
        error: None,
        latency_ms: Some(millis(answer.latency_ns)),
        ttft_ms: answer.ttft_ns.map(millis),
        tokens: Some(AnswerTokens::of(answer)),
        hit: quality.hit,
        recall: quality.recall,
        mrr: quality.mrr,
        answer_match: quality.answer_match,
        retrieval: ranking::retrieval(&question.references, &answer.hits),
        objection: answer.objection.map(|objection| objection.as_str().to_owned()),
        judgements: BTreeMap::new(),
    }
}

fn failed(question: &Question, error_type: &str, error: String) -> EvalItem {
    EvalItem {
        id: question.id.clone(),
        question: question.question.clone(),
        error_type: Some(error_type.to_owned()),
        error: Some(error),
        ..EvalItem::default()
    }
}

/// The report, in the order of the questions, so that sums do not depend on who was answered first.
fn report(questions: &[Arc<Question>], by_id: &HashMap<String, EvalItem>) -> EvalReport {
    let items: Vec<&EvalItem> =
        questions.iter().filter_map(|question| by_id.get(&question.id)).collect();
    let ok = items.iter().filter(|item| item.ok).count();
    let share = |of: fn(&EvalItem) -> Option<bool>| {
        mean(items.iter().filter_map(|item| of(item)).map(|is_so| if is_so { 1.0 } else { 0.0 }))
    };
    let average = |of: fn(&EvalItem) -> Option<f64>| mean(items.iter().filter_map(|item| of(item)));
    let retrieval: Vec<Retrieval> = items.iter().filter_map(|item| item.retrieval).collect();
    let mut latencies: Vec<f64> = items.iter().filter_map(|item| item.latency_ms).collect();
    latencies.sort_by(f64::total_cmp);
    let tokens = items.iter().filter_map(|item| item.tokens);
    let mut objections = BTreeMap::new();
    for objection in items.iter().filter_map(|item| item.objection.clone()) {
        *objections.entry(objection).or_default() += 1;
    }
    EvalReport {
        questions: questions.len() as u64,
        ok: ok as u64,
        failed: (items.len() - ok) as u64,
        hit_rate: share(|item| item.hit),
        recall_mean: average(|item| item.recall),
        mrr_mean: average(|item| item.mrr),
        answer_match_rate: share(|item| item.answer_match),
        latency_ms_mean: average(|item| item.latency_ms),
        latency_ms_p50: nearest_rank(&latencies, 50),
        latency_ms_p95: nearest_rank(&latencies, 95),
        tokens: tokens.fold(AnswerTokens::default(), AnswerTokens::plus),
        ttft_ms_mean: average(|item| item.ttft_ms),
        retrieval: mean_retrieval(&retrieval),
        objections,
        judgements: judged_all(&items),
        benchmarks: benchmarks(questions, by_id),
        ..EvalReport::default()
    }
}

fn judged_all(items: &[&EvalItem]) -> BTreeMap<String, JudgedAll> {
    let mut all: BTreeMap<String, Vec<&Judgement>> = BTreeMap::new();
    for (name, judgement) in items.iter().flat_map(|item| &item.judgements) {
        all.entry(name.clone()).or_default().push(judgement);
    }
    let summed = |judgements: Vec<&Judgement>| {
        let count = |is_so: fn(&Judgement) -> bool| {
            judgements.iter().filter(|judgement| is_so(judgement)).count() as u64
        };
        let verdicts = judgements.iter().filter_map(|judgement| judgement.passing);
        JudgedAll {
            judged: count(|one| one.score.is_some()),
            invalid: count(|one| one.invalid.is_some()),
            failed: count(|one| one.error.is_some()),
            not_applicable: count(|one| one.not_applicable.is_some()),
            score_mean: mean(judgements.iter().filter_map(|judgement| judgement.score)),
            passing_rate: mean(verdicts.map(|is_passing| if is_passing { 1.0 } else { 0.0 })),
        }
    };
    all.into_iter().map(|(name, judgements)| (name, summed(judgements))).collect()
}

/// Each evaluator against the labels of its name.
fn benchmarks(
    questions: &[Arc<Question>],
    by_id: &HashMap<String, EvalItem>,
) -> BTreeMap<String, JudgeBenchmark> {
    let mut pairs: BTreeMap<&str, Vec<(&Judgement, f64)>> = BTreeMap::new();
    for question in questions {
        let Some(item) = by_id.get(&question.id) else { continue };
        for (name, label) in &question.labels {
            if let Some(judgement) = item.judgements.get(name) {
                pairs.entry(name).or_default().push((judgement, *label));
            }
        }
    }
    let compared = |(name, pairs): (&str, Vec<(&Judgement, f64)>)| {
        (name.to_owned(), benchmark(pairs.into_iter(), name == "pairwise"))
    };
    pairs.into_iter().map(compared).collect()
}

/// A percentile by nearest rank: the smallest value that so many percent are not above.
fn nearest_rank(sorted: &[f64], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.max(1) - 1).copied()
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0_u32), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

/// Nanoseconds as milliseconds; exact enough for anything shorter than a month.
#[expect(clippy::cast_precision_loss, reason = "2^53 ns are 104 days")]
fn millis(nanos: i64) -> f64 {
    nanos as f64 / 1e6
}
