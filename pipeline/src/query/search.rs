//! The search: the nearest vectors, the words of the question, or both.
//!
//! A hybrid search is two searches at the same time, each a span of its own with what it found,
//! under the span of the whole, which has the list they become.

use retake_schemas::settings::RetrieveMode;
use tracing::{Instrument as _, Span};

use super::fuse::fuse;
use super::{Engine, spans};
use crate::document::{FoundBy, Hit, Place};
use crate::error::PipelineError;
use crate::postprocess::{self, cosine};
use crate::store::Wanted;
use crate::trace::Stage;

/// What is searched for.
#[derive(Debug)]
pub(super) struct Searched {
    /// Whose words.
    pub(super) text: String,
    /// Near what.
    pub(super) vector: Vec<f32>,
}

/// One of the searches that a hybrid one is made of.
#[derive(Debug, Clone, Copy)]
enum Arm {
    Dense,
    Text,
}

impl Engine {
    /// The chunks that are found, best first.
    ///
    /// # Errors
    /// The store failed.
    pub(super) async fn retrieve(
        &self,
        searched: &Searched,
        root: &Span,
    ) -> Result<Vec<Hit>, PipelineError> {
        let top_k = postprocess::candidates(&self.steps, &self.settings);
        let mode = self.settings.retrieve.mode;
        let stage = Stage::new(spans::retrieve(self.store.system(), mode, top_k, root));
        let span = stage.span().clone();
        let found = self.search(searched, top_k, &span).instrument(span.clone()).await;
        if let Ok(hits) = &found {
            span.record("retake.document.count", hits.len());
            spans::retrieved(&span, hits);
        }
        stage.end(found)
    }

    async fn search(
        &self,
        searched: &Searched,
        top_k: usize,
        span: &Span,
    ) -> Result<Vec<Hit>, PipelineError> {
        match self.settings.retrieve.mode {
            RetrieveMode::Dense => self.search_arm(Arm::Dense, searched, top_k).await,
            RetrieveMode::Text => self.search_arm(Arm::Text, searched, top_k).await,
            RetrieveMode::Hybrid => {
                let each = self.settings.retrieve.arm_candidates.max(top_k);
                let (dense, text) = tokio::try_join!(
                    self.arm(Arm::Dense, searched, each, span),
                    self.arm(Arm::Text, searched, each, span),
                )?;
                Ok(fuse(dense, text, &self.settings.retrieve, top_k))
            }
        }
    }

    /// One search of a hybrid one, in a span of its own.
    async fn arm(
        &self,
        arm: Arm,
        searched: &Searched,
        top_k: usize,
        parent: &Span,
    ) -> Result<Vec<Hit>, PipelineError> {
        let system = self.store.system();
        let stage = Stage::new(match arm {
            Arm::Dense => spans::retrieve_dense(system, top_k, parent),
            Arm::Text => spans::retrieve_text(system, top_k, parent),
        });
        let span = stage.span().clone();
        let found = self.search_arm(arm, searched, top_k).instrument(span.clone()).await;
        if let Ok(hits) = &found {
            span.record("retake.document.count", hits.len());
            spans::retrieved_by_arm(&span, hits);
        }
        stage.end(found)
    }

    async fn search_arm(
        &self,
        arm: Arm,
        searched: &Searched,
        top_k: usize,
    ) -> Result<Vec<Hit>, PipelineError> {
        match arm {
            Arm::Dense => {
                let mut hits =
                    self.store.search_within(&searched.vector, self.wanted(top_k)).await?;
                for (hit, rank) in hits.iter_mut().zip(0..) {
                    let place = Place { rank, score: hit.similarity };
                    hit.found = FoundBy { dense: Some(place), ..FoundBy::default() };
                }
                Ok(hits)
            }
            Arm::Text => self.search_text(searched, top_k).await,
        }
    }

    fn wanted(&self, top_k: usize) -> Wanted<'_> {
        Wanted { top_k, filter: self.settings.retrieve.filter.as_ref() }
    }

    /// Chunks with the words. Their similarity is computed, because a step after the search may ask
    /// for it whatever search it was.
    async fn search_text(
        &self,
        searched: &Searched,
        top_k: usize,
    ) -> Result<Vec<Hit>, PipelineError> {
        let found = self.store.search_text_within(&searched.text, self.wanted(top_k)).await?;
        let ids: Vec<String> = found.iter().map(|hit| hit.chunk.id.clone()).collect();
        let vectors = if ids.is_empty() {
            std::collections::HashMap::new()
        } else {
            self.store.vectors(&ids).await?
        };
        let placed = found.into_iter().zip(0..).map(|(hit, rank)| {
            let vector = vectors.get(&hit.chunk.id);
            let similarity = vector.map_or(0.0, |vector| cosine(vector, &searched.vector));
            let text = Some(Place { rank, score: hit.score });
            let found = FoundBy { text, ..FoundBy::default() };
            Hit { found, ..Hit::new(hit.chunk, similarity) }
        });
        Ok(placed.collect())
    }
}
