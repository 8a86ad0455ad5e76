//! Evaluators: what is good about an answer, judged by a model or measured by vectors.
//!
//! A judgement is a score, or it is none: a reply that cannot be read is invalid and counted as
//! such, never a 0, and an evaluator that lacks what it needs (a reference, the passages) says that
//! it does not apply. One evaluator that fails costs no other anything.

mod model;
mod pairwise;
mod reply;
mod similarity;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use retake_schemas::settings::{EvaluatorName, RagSettings};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span, field};

pub use self::model::{ModelEvaluator, Question as ModelQuestion};
pub(super) use self::pairwise::INCONCLUSIVE;
pub use self::pairwise::{Pairwise, Preference};
pub use self::reply::{read_score, read_verdict};
pub use self::similarity::SemanticSimilarity;

use crate::answer::Llm;
use crate::answer::openai::OpenaiLlm;
use crate::embed::Embedder;
use crate::error::PipelineError;
use crate::trace::{Stage, stage_span};
use crate::work::pool::{self, Lost, Outcome};

/// What is judged.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Subject {
    /// The question; nothing when only a text is judged.
    pub query: Option<String>,
    /// The answer.
    pub response: String,
    /// The passages it was made of; nothing when they are not known.
    pub contexts: Option<Vec<String>>,
    /// A right answer; nothing when none is known.
    pub reference: Option<String>,
    /// Another answer, to compare with.
    pub other_response: Option<String>,
}

/// What an evaluator says.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Judgement {
    /// 0 to 1, or, for correctness, 1 to 5; nothing when there is no judgement.
    pub score: Option<f64>,
    /// Whether that is good enough; nothing when there is no limit.
    pub passing: Option<bool>,
    /// Why, in the words of the judge.
    pub feedback: Option<String>,
    /// Why there is no judgement: the reply could not be read.
    pub invalid: Option<String>,
    /// Why there is no judgement: something is missing that this evaluator needs.
    pub not_applicable: Option<String>,
    /// Class of the error, if the evaluator failed.
    pub error_type: Option<String>,
    /// The error, if the evaluator failed.
    pub error: Option<String>,
}

impl Judgement {
    /// A score with its verdict.
    #[must_use]
    pub fn scored(score: f64, is_passing: bool, feedback: String) -> Self {
        let feedback = Some(feedback).filter(|feedback| !feedback.is_empty());
        Self { score: Some(score), passing: Some(is_passing), feedback, ..Self::default() }
    }

    /// A reply that cannot be read.
    #[must_use]
    pub fn invalid(reason: impl Into<String>) -> Self {
        Self { invalid: Some(reason.into()), ..Self::default() }
    }

    /// What the evaluator would need is not there.
    #[must_use]
    pub fn not_applicable(missing: &str) -> Self {
        Self { not_applicable: Some(missing.to_owned()), ..Self::default() }
    }

    fn failed(error: &PipelineError) -> Self {
        Self {
            error_type: Some(error.error_type().to_owned()),
            error: Some(error.to_string()),
            ..Self::default()
        }
    }
}

/// Judges answers.
#[async_trait]
pub trait Evaluator: Send + Sync {
    /// Name, under which its judgements stand.
    fn name(&self) -> &str;

    /// Judges.
    ///
    /// # Errors
    /// The model behind it failed. A reply that cannot be read is no error.
    async fn evaluate(&self, subject: &Subject, span: &Span) -> Result<Judgement, PipelineError>;
}

/// Several evaluators.
#[derive(Clone, Default)]
pub struct Judges(Vec<Arc<dyn Evaluator>>);

impl std::fmt::Debug for Judges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

impl Judges {
    /// These evaluators. Of two with one name the later counts.
    #[must_use]
    pub fn new(evaluators: Vec<Arc<dyn Evaluator>>) -> Self {
        Self(evaluators)
    }

    /// The evaluators that `[rag.eval]` asks for.
    ///
    /// # Errors
    /// [`PipelineError::Configuration`] when one needs a model that the settings do not give.
    pub fn from_settings(
        settings: &RagSettings,
        embedder: &Arc<dyn Embedder>,
    ) -> Result<Self, PipelineError> {
        let names = &settings.eval.evaluators;
        let needs_model = names.iter().any(|name| *name != EvaluatorName::SemanticSimilarity);
        let judge = if needs_model { Some(judge(settings)?) } else { None };
        let of_name = |name: &EvaluatorName| -> Arc<dyn Evaluator> {
            match (name, &judge) {
                (EvaluatorName::Pairwise, Some(judge)) => {
                    Arc::new(Pairwise::new(judge.clone(), settings))
                }
                (_, Some(judge)) if *name != EvaluatorName::SemanticSimilarity => {
                    Arc::new(ModelEvaluator::new(*name, judge.clone(), settings))
                }
                _ => Arc::new(SemanticSimilarity::new(
                    embedder.clone(),
                    settings.eval.similarity_min,
                )),
            }
        };
        Ok(Self(names.iter().map(of_name).collect()))
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|evaluator| evaluator.name())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What all of them say, at the same time, in a trace of its own: what judging takes is no part
    /// of what answering took. `id` is the request's.
    pub async fn evaluate(&self, id: &str, subject: &Subject) -> BTreeMap<String, Judgement> {
        if self.is_empty() {
            return BTreeMap::new();
        }
        let stage = Stage::new(stage_span!(
            parent: &Span::current(), "judge",
            "retake.kind" = "chain",
            "retake.stage" = "judge",
            "retake.request_id" = id,
        ));
        let root = stage.span().clone();
        let judging = self.0.iter().map(|evaluator| judged(evaluator.as_ref(), subject, &root));
        let judgements = futures::future::join_all(judging).instrument(root.clone()).await;
        let _ = stage.end(Ok(()));
        judgements.into_iter().collect()
    }
}

async fn judged(evaluator: &dyn Evaluator, subject: &Subject, root: &Span) -> (String, Judgement) {
    let stage = Stage::new(stage_span!(
        parent: root, "evaluate",
        "retake.kind" = "evaluator",
        "retake.stage" = "evaluate",
        "retake.evaluator" = evaluator.name(),
        "retake.evaluation.score" = field::Empty,
        "retake.evaluation.passing" = field::Empty,
        "retake.evaluation.invalid" = field::Empty,
    ));
    let span = stage.span().clone();
    let result = evaluator.evaluate(subject, &span).instrument(span.clone()).await;
    if let Ok(judgement) = &result {
        if let Some(score) = judgement.score {
            span.record("retake.evaluation.score", score);
        }
        if let Some(is_passing) = judgement.passing {
            span.record("retake.evaluation.passing", is_passing);
        }
        if judgement.invalid.is_some() {
            span.record("retake.evaluation.invalid", true);
        }
    }
    let judgement = match stage.end(result) {
        Ok(judgement) => judgement,
        Err(error) => Judgement::failed(&error),
    };
    (evaluator.name().to_owned(), judgement)
}

/// Judges answers that are there already, at most `workers` at the same time. One outcome for each
/// subject, in their order; a judge that panics costs its subject's judgements and no other's.
pub async fn judge_all(
    judges: &Judges,
    subjects: Vec<(String, Subject)>,
    workers: usize,
    cancel: CancellationToken,
) -> Vec<Result<BTreeMap<String, Judgement>, Lost>> {
    let mut all: Vec<_> = subjects.iter().map(|_| Err(Lost::Cancelled)).collect();
    let work = |(id, subject): (String, Subject)| {
        let judges = judges.clone();
        async move { judges.evaluate(&id, &subject).await }
    };
    let subjects = futures::stream::iter(subjects);
    let mut outcomes = std::pin::pin!(pool::run(subjects, workers, cancel, work));
    while let Some(Outcome { index, result, .. }) = outcomes.next().await {
        let place = usize::try_from(index).ok().and_then(|index| all.get_mut(index));
        if let Some(place) = place {
            *place = result;
        }
    }
    all
}

/// The model that judges.
fn judge(settings: &RagSettings) -> Result<Arc<dyn Llm>, PipelineError> {
    let mut service = settings.synthesize.clone();
    if !settings.eval.judge_model.is_empty() {
        service.model.clone_from(&settings.eval.judge_model);
    }
    if settings.eval.judge_url.is_some() {
        service.url.clone_from(&settings.eval.judge_url);
    }
    if service.url.as_ref().is_none_or(String::is_empty) {
        return Err(PipelineError::Configuration(
            "use setting eval.evaluators: a language model has to judge; set eval.judge_url or \
             synthesize.url to an OpenAI-compatible service"
                .to_owned(),
        ));
    }
    Ok(Arc::new(OpenaiLlm::new(&service, &settings.limits)?))
}

#[cfg(test)]
mod tests;
