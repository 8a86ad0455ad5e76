//! Steps between the search and the answer: what is left out, chosen, and put into another order.
//!
//! They run in the order of `postprocess.steps`. A step that chooses gets more candidates than are
//! wanted; the last of them keeps as many as are. The similarity of the search stays with every
//! chunk whatever a step thinks of it.

mod bm25;
#[cfg(feature = "candle")]
mod cross_encoder;
mod cutoff;
mod keywords;
mod llm_rerank;
mod mask;
mod mmr;
mod neighbours;
mod ratings;
mod recency;
mod reorder;
mod sentences;
mod service_rerank;

use std::sync::Arc;

use async_trait::async_trait;
use retake_schemas::settings::{PostprocessStep, RagSettings, RerankProvider};
use tracing::Span;

pub use self::bm25::Bm25Reranker;
#[cfg(feature = "candle")]
pub use self::cross_encoder::CrossEncoder;
pub use self::cutoff::SimilarityCutoff;
pub use self::keywords::KeywordFilter;
pub use self::llm_rerank::{LlmReranker, RatingForm};
pub use self::mask::PiiMask;
pub(crate) use self::mmr::cosine;
pub use self::mmr::{Mmr, maximal_marginal_relevance};
pub use self::neighbours::{Neighbours, Reach, Window};
pub use self::ratings::{Ratings, Unreadable, read_json_ratings, read_ratings};
pub use self::recency::{EmbeddingRecency, FixedRecency, TimeWeighted};
pub use self::reorder::{LongContextReorder, long_context_order};
pub use self::sentences::SentenceFilter;
pub use self::service_rerank::{Relevance, ServiceReranker};

use crate::document::Hit;
use crate::embed::Embedder;
use crate::error::PipelineError;
use crate::llm_call::{Caller, Spent};
use crate::store::VectorStore;

/// The best `keep` by these scores, one for each hit. Equal scores keep the order they came in.
fn best_by_scores(hits: Vec<Hit>, scores: impl IntoIterator<Item = f64>, keep: usize) -> Vec<Hit> {
    let scored = hits.into_iter().zip(scores);
    let mut hits: Vec<Hit> =
        scored.map(|(hit, score)| Hit { rerank_score: Some(score), ..hit }).collect();
    sort_by_rerank_score(&mut hits);
    hits.truncate(keep);
    hits
}

/// Best first; equal scores keep the order they came in.
fn sort_by_rerank_score(hits: &mut [Hit]) {
    hits.sort_by(|one, other| {
        let score = |hit: &Hit| hit.rerank_score.unwrap_or_default();
        score(other).total_cmp(&score(one))
    });
}

/// What a step knows of the question.
#[derive(Clone, Copy)]
pub struct Query<'a> {
    /// The question, as it was asked.
    pub text: &'a str,
    /// Its vector, as it was searched for.
    pub vector: &'a [f32],
    /// Chunks to keep.
    pub keep: usize,
    /// The span of the step.
    pub span: &'a Span,
    /// The language model.
    pub(crate) caller: Caller<'a>,
    /// What made the vectors of chunks.
    pub(crate) embedder: &'a dyn Embedder,
    /// Where vectors of chunks are.
    pub(crate) store: &'a dyn VectorStore,
}

impl std::fmt::Debug for Query<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Query")
            .field("text", &self.text)
            .field("keep", &self.keep)
            .finish_non_exhaustive()
    }
}

/// What a step made of the chunks.
#[derive(Debug, Default)]
pub struct Processed {
    /// The chunks that stay, in their new order.
    pub hits: Vec<Hit>,
    /// What model calls came to.
    pub(crate) spent: Spent,
}

impl From<Vec<Hit>> for Processed {
    fn from(hits: Vec<Hit>) -> Self {
        Self { hits, spent: Spent::default() }
    }
}

/// A step.
#[async_trait]
pub trait Postprocessor: Send + Sync {
    /// Name, for its span.
    fn name(&self) -> &str;

    /// Whether it chooses the best of more candidates than are wanted.
    fn is_choosing(&self) -> bool;

    /// Does its work.
    ///
    /// # Errors
    /// A model or the store failed.
    async fn process(&self, query: &Query<'_>, hits: Vec<Hit>) -> Result<Processed, PipelineError>;
}

/// The steps the settings ask for, in order.
///
/// # Errors
/// [`PipelineError::Configuration`] for settings that cannot work or a missing model file.
pub fn from_settings(settings: &RagSettings) -> Result<Vec<Arc<dyn Postprocessor>>, PipelineError> {
    let of_provider = match settings.rerank.provider {
        RerankProvider::None => None,
        RerankProvider::Bm25 => Some(PostprocessStep::Bm25),
        RerankProvider::Llm => Some(PostprocessStep::LlmRerank),
        RerankProvider::StructuredLlm => Some(PostprocessStep::StructuredLlmRerank),
        RerankProvider::CrossEncoder => Some(PostprocessStep::CrossEncoder),
        RerankProvider::Service => Some(PostprocessStep::ServiceRerank),
    };
    let steps = settings.postprocess.steps.iter().filter_map(|step| match step {
        PostprocessStep::Rerank => of_provider,
        other => Some(*other),
    });
    steps.map(|step| of_step(step, settings)).collect()
}

fn of_step(
    step: PostprocessStep,
    settings: &RagSettings,
) -> Result<Arc<dyn Postprocessor>, PipelineError> {
    use PostprocessStep as Step;
    let of = &settings.postprocess;
    let reach = Reach { before: of.neighbours_before, after: of.neighbours_after };
    Ok(match step {
        Step::SimilarityCutoff => Arc::new(SimilarityCutoff { similarity_min: of.similarity_min }),
        Step::Keywords => {
            Arc::new(KeywordFilter::new(&of.keywords_required, &of.keywords_excluded))
        }
        Step::Rerank | Step::Bm25 => Arc::new(Bm25Reranker),
        Step::LlmRerank => Arc::new(LlmReranker::new(settings, RatingForm::Lines)),
        Step::StructuredLlmRerank => Arc::new(LlmReranker::new(settings, RatingForm::Json)),
        Step::ServiceRerank => Arc::new(ServiceReranker::new(&settings.rerank, &settings.limits)?),
        Step::CrossEncoder => cross_encoder(settings)?,
        Step::Mmr => Arc::new(Mmr { lambda: of.mmr_lambda }),
        Step::FixedRecency => Arc::new(FixedRecency),
        Step::EmbeddingRecency => {
            Arc::new(EmbeddingRecency { similarity_min: of.recency_similarity_min })
        }
        Step::TimeWeighted => Arc::new(TimeWeighted {
            weight: of.recency_weight,
            half_life_days: of.recency_half_life_days,
        }),
        Step::Neighbours => Arc::new(Neighbours(reach)),
        Step::Window => Arc::new(Window(reach)),
        Step::Sentences => Arc::new(SentenceFilter {
            share: of.sentences_share,
            similarity_min: of.sentences_similarity_min,
            batch_size: settings.embed.batch_size,
        }),
        Step::MaskPii => Arc::new(PiiMask::new(&of.mask)?),
        Step::LongContextReorder => Arc::new(LongContextReorder),
    })
}

#[cfg(feature = "candle")]
fn cross_encoder(settings: &RagSettings) -> Result<Arc<dyn Postprocessor>, PipelineError> {
    let from_settings = settings.rerank.model_dir.as_ref().filter(|folder| !folder.is_empty());
    let folder = from_settings.ok_or_else(|| {
        PipelineError::Configuration(
            "use a cross-encoder: it needs its model folder; set rerank.model_dir".to_owned(),
        )
    })?;
    Ok(Arc::new(CrossEncoder::load(std::path::Path::new(folder))?))
}

#[cfg(not(feature = "candle"))]
fn cross_encoder(_: &RagSettings) -> Result<Arc<dyn Postprocessor>, PipelineError> {
    Err(PipelineError::Configuration(
        "use a cross-encoder: this retake was built without it; build it with --features candle"
            .to_owned(),
    ))
}

/// Chunks the search has to fetch.
#[must_use]
pub fn candidates(steps: &[Arc<dyn Postprocessor>], settings: &RagSettings) -> usize {
    let wanted = settings.retrieve.top_k;
    if steps.iter().any(|step| step.is_choosing()) {
        settings.rerank.candidates.max(wanted)
    } else {
        wanted
    }
}

#[cfg(test)]
mod tests {
    use retake_schemas::settings::PostprocessSettings;

    use super::*;

    fn names(provider: RerankProvider, steps: &[PostprocessStep]) -> Vec<String> {
        let mut settings = RagSettings::default();
        settings.rerank.provider = provider;
        settings.postprocess =
            PostprocessSettings { steps: steps.to_vec(), ..PostprocessSettings::default() };
        let steps = from_settings(&settings).unwrap();
        steps.iter().map(|step| step.name().to_owned()).collect()
    }

    /// Scenario: settings from before there were steps, and lists of steps.
    /// Guarantees: `rerank.provider` alone does what it did; lists run in their order, also with
    /// two rerankers.
    #[test]
    fn the_settings_choose_the_steps_and_their_order() {
        use PostprocessStep::{Bm25, LlmRerank, LongContextReorder, Mmr, Rerank, SimilarityCutoff};
        assert!(names(RerankProvider::None, &[Rerank]).is_empty());
        assert_eq!(names(RerankProvider::Bm25, &[Rerank]), ["bm25"]);
        assert_eq!(names(RerankProvider::Llm, &[Rerank]), ["llm"]);
        assert_eq!(
            names(RerankProvider::None, &[SimilarityCutoff, Bm25, LlmRerank, Mmr]),
            ["similarity_cutoff", "bm25", "llm", "mmr"]
        );
        assert_eq!(names(RerankProvider::None, &[LongContextReorder]), ["long_context_reorder"]);
    }

    #[test]
    fn more_is_fetched_only_for_a_step_that_chooses() {
        let mut settings = RagSettings::default();
        settings.set("postprocess.steps=[\"similarity_cutoff\"]").unwrap();
        let fetched =
            |settings: &RagSettings| candidates(&from_settings(settings).unwrap(), settings);
        assert_eq!(fetched(&settings), 4);
        settings.set("postprocess.steps=[\"similarity_cutoff\", \"mmr\"]").unwrap();
        assert_eq!(fetched(&settings), 20);
        settings.rerank.candidates = 2;
        assert_eq!(fetched(&settings), 4);
    }
}
