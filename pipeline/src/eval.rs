//! Questions with known answers, asked one and all, and scored.
//!
//! Each item is one query with its own trace. Results go to the output file as they come, one
//! JSON line each, so a run that was cancelled or killed goes on where it stopped: items whose id
//! is in the file are skipped, and a line torn by a crash is cut off and its item asked again. An
//! item that fails is a line with its error; it costs no other item anything.

mod output;
mod questions;
mod score;

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::output::Output;
pub use self::questions::{Question, Reference, read_questions};
use crate::error::PipelineError;
use crate::query::{Answer, AskOptions, Engine};

/// What to evaluate.
#[derive(Debug, Clone)]
pub struct EvalRequest {
    /// JSON lines with `question`, and as far as known `id`, `answer` or `answers`, `references`.
    pub questions: PathBuf,
    /// JSON lines with an [`EvalItem`] each; made or continued.
    pub output: PathBuf,
    /// Questions asked at the same time.
    pub workers: usize,
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
    /// Whether a retrieved chunk overlaps a reference.
    pub hit: Option<bool>,
    /// Share of the references' characters that the retrieved chunks cover.
    pub recall: Option<f64>,
    /// 1 / rank of the first retrieved chunk that overlaps a reference, 0 without one.
    pub mrr: Option<f64>,
    /// Whether the answer contains an accepted one.
    pub answer_match: Option<bool>,
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
    /// Mean time to the first piece, ms.
    pub ttft_ms_mean: Option<f64>,
    /// Whether the user ended it before all was done.
    pub is_cancelled: bool,
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

/// Asks all questions that have no result yet.
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
    let questions = read_questions(&request.questions)?;
    let (mut output, mut items) = Output::open(&request.output)?;
    let ids: Vec<String> = questions.iter().map(|question| question.id.clone()).collect();
    let open: Vec<Question> =
        questions.into_iter().filter(|question| !items.contains_key(&question.id)).collect();
    let resumed = (ids.len() - open.len()) as u64;
    progress.begun(ids.len() as u64, resumed);

    let mut open = open.into_iter();
    let mut asking = JoinSet::new();
    loop {
        while asking.len() < request.workers.max(1) && !cancel.is_cancelled() {
            let Some(question) = open.next() else { break };
            asking.spawn(ask(question, engine.clone(), cancel.clone()));
        }
        let Some(asked) = asking.join_next().await else { break };
        // A task can only be lost by a panic; its question stays open for the next run.
        let Ok(Some(item)) = asked else { continue };
        output.append(&item)?;
        progress.item_done(&item);
        items.insert(item.id.clone(), item);
    }
    // In the order of the questions, so that sums do not depend on who was answered first.
    let items: Vec<&EvalItem> = ids.iter().filter_map(|id| items.get(id)).collect();
    let report = summarize(&items);
    let is_cancelled = cancel.is_cancelled() && items.len() < ids.len();
    Ok(EvalReport { questions: ids.len() as u64, resumed, is_cancelled, ..report })
}

/// Asks one question; nothing when it was cancelled.
async fn ask(question: Question, engine: Engine, cancel: CancellationToken) -> Option<EvalItem> {
    let options = AskOptions {
        request_id: Some(question.id.clone()),
        cancellation: cancel,
        ..AskOptions::default()
    };
    let question = Arc::new(question);
    let judge = |answer: &Answer| score::quality(&question, answer);
    match engine.ask_judged(&question.question, options, &mut |_| {}, &judge).await {
        Ok(answer) => Some(answered(&question, &answer)),
        Err(PipelineError::Cancelled) => None,
        Err(error) => Some(failed(&question, &error)),
    }
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
        hit: quality.hit,
        recall: quality.recall,
        mrr: quality.mrr,
        answer_match: quality.answer_match,
    }
}

fn failed(question: &Question, error: &PipelineError) -> EvalItem {
    EvalItem {
        id: question.id.clone(),
        question: question.question.clone(),
        error_type: Some(error.error_type().to_owned()),
        error: Some(error.to_string()),
        ..EvalItem::default()
    }
}

fn summarize(items: &[&EvalItem]) -> EvalReport {
    let ok = items.iter().filter(|item| item.ok).count();
    let share = |of: fn(&EvalItem) -> Option<bool>| {
        mean(items.iter().filter_map(|item| of(item)).map(|is_so| if is_so { 1.0 } else { 0.0 }))
    };
    let average = |of: fn(&EvalItem) -> Option<f64>| mean(items.iter().filter_map(|item| of(item)));
    EvalReport {
        ok: ok as u64,
        failed: (items.len() - ok) as u64,
        hit_rate: share(|item| item.hit),
        recall_mean: average(|item| item.recall),
        mrr_mean: average(|item| item.mrr),
        answer_match_rate: share(|item| item.answer_match),
        latency_ms_mean: average(|item| item.latency_ms),
        ttft_ms_mean: average(|item| item.ttft_ms),
        ..EvalReport::default()
    }
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
