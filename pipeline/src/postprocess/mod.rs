//! Steps between the search and the answer: what is left out, chosen, and put into another order.
//!
//! They run in the order of `postprocess.steps`. A step that chooses gets more candidates than are
//! wanted; the last of them keeps as many as are. The similarity of the search stays with every
//! chunk whatever a step thinks of it.

mod bm25;
mod cutoff;
mod llm_rerank;
mod mmr;
mod ratings;
mod reorder;

use std::sync::Arc;

use async_trait::async_trait;
use retake_schemas::settings::{PostprocessStep, RagSettings, RerankProvider};
use tracing::Span;

pub use self::bm25::Bm25Reranker;
pub use self::cutoff::SimilarityCutoff;
pub use self::llm_rerank::LlmReranker;
pub(crate) use self::mmr::cosine;
pub use self::mmr::{Mmr, maximal_marginal_relevance};
pub use self::ratings::{Ratings, Unreadable, read_ratings};
pub use self::reorder::{LongContextReorder, long_context_order};

use crate::document::Hit;
use crate::error::PipelineError;
use crate::llm_call::{Caller, Spent};
use crate::store::VectorStore;

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
#[must_use]
pub fn from_settings(settings: &RagSettings) -> Vec<Arc<dyn Postprocessor>> {
    let of_provider = match settings.rerank.provider {
        RerankProvider::None => None,
        RerankProvider::Bm25 => Some(PostprocessStep::Bm25),
        RerankProvider::Llm => Some(PostprocessStep::LlmRerank),
    };
    let steps = settings.postprocess.steps.iter().filter_map(|step| match step {
        PostprocessStep::Rerank => of_provider,
        other => Some(*other),
    });
    steps.map(|step| of_step(step, settings)).collect()
}

fn of_step(step: PostprocessStep, settings: &RagSettings) -> Arc<dyn Postprocessor> {
    let postprocess = &settings.postprocess;
    match step {
        PostprocessStep::SimilarityCutoff => {
            Arc::new(SimilarityCutoff { similarity_min: postprocess.similarity_min })
        }
        PostprocessStep::Rerank | PostprocessStep::Bm25 => Arc::new(Bm25Reranker),
        PostprocessStep::LlmRerank => Arc::new(LlmReranker::new(settings)),
        PostprocessStep::Mmr => Arc::new(Mmr { lambda: postprocess.mmr_lambda }),
        PostprocessStep::LongContextReorder => Arc::new(LongContextReorder),
    }
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
        from_settings(&settings).iter().map(|step| step.name().to_owned()).collect()
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
        assert_eq!(candidates(&from_settings(&settings), &settings), 4);
        settings.set("postprocess.steps=[\"similarity_cutoff\", \"mmr\"]").unwrap();
        assert_eq!(candidates(&from_settings(&settings), &settings), 20);
        settings.rerank.candidates = 2;
        assert_eq!(candidates(&from_settings(&settings), &settings), 4);
    }
}
