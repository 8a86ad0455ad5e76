//! The cache of answers, as a question uses it: a help that may fail.

use std::time::Instant;

use retake_schemas::event::TokensSource;
use serde_json::Value as Json;
use tracing::{Instrument as _, Span};

use super::{Answer, Asking, Engine, spans};
use crate::error::PipelineError;
use crate::query_cache::{Asked, KeptAnswer, Scope};
use crate::synthesize::check::Objection;
use crate::trace::{Stage, nanos};

impl Engine {
    /// What answers to this question have to have in common; nothing without a cache.
    pub(super) async fn scope(&self, schema: Option<&Json>, root: &Span) -> Option<Scope> {
        self.cache.as_ref()?;
        match self.store.revision().await {
            Ok(revision) => {
                let models = [self.embedder.model(), self.llm.provider(), self.llm.model()];
                Some(Scope::new(&self.settings, &models, &revision, schema))
            }
            Err(error) => {
                Stage::new(spans::cache(root)).fail(&error);
                None
            }
        }
    }

    /// The vector of the question itself, if the cache needs it.
    pub(super) async fn own_vector(
        &self,
        asking: Asking<'_>,
        scope: Option<Scope>,
    ) -> Result<Option<Vec<f32>>, PipelineError> {
        let is_needed = scope.is_some() && self.cache.as_ref().is_some_and(|c| c.is_semantic());
        if !is_needed {
            return Ok(None);
        }
        self.embed(&[asking.question.to_owned()], asking.root).await.map(Some)
    }

    /// The answer to the same text, or, by `vector`, to the nearest question.
    pub(super) async fn given_before(
        &self,
        asking: Asking<'_>,
        scope: Option<Scope>,
        vector: Option<&[f32]>,
        started: Instant,
    ) -> Option<Answer> {
        let (cache, scope) = (self.cache.as_ref()?, scope?);
        let stage = Stage::new(spans::cache(asking.root));
        let span = stage.span().clone();
        let found = async {
            match vector {
                Some(vector) => cache.nearest(scope, vector).await,
                None => {
                    let exact = cache.exact(scope, asking.question).await?;
                    Ok(exact.map(|answer| (answer, 1.0)))
                }
            }
        };
        match found.instrument(span.clone()).await {
            Ok(found) => {
                span.record("retake.cache_hit", found.is_some());
                if let Some((_, similarity)) = &found {
                    span.record("retake.cache.similarity", similarity);
                }
                let _ = stage.end(Ok(()));
                found.map(|(kept, similarity)| answer(kept, similarity, started))
            }
            Err(error) => {
                stage.fail(&error);
                None
            }
        }
    }

    /// Keeps an answer, if it is whole.
    pub(super) async fn keep(
        &self,
        asking: Asking<'_>,
        scope: Option<Scope>,
        vector: &[f32],
        answer: &Answer,
    ) {
        let (Some(cache), Some(scope)) = (&self.cache, scope) else { return };
        if matches!(answer.objection, Some(Objection::Cut | Objection::Empty)) {
            return;
        }
        let kept = KeptAnswer {
            text: answer.text.clone(),
            structured: answer.structured.clone(),
            objection: answer.objection,
            hits: answer.hits.clone(),
            finish_reason: answer.finish_reason.clone(),
        };
        let asked = Asked { scope, question: asking.question, vector };
        if let Err(error) = cache.keep(asked, &kept).await {
            Stage::new(spans::cache(asking.root)).fail(&error);
        }
    }
}

/// An answer that cost nothing.
fn answer(kept: KeptAnswer, similarity: f64, started: Instant) -> Answer {
    Answer {
        text: kept.text,
        structured: kept.structured,
        objection: kept.objection,
        hits: kept.hits,
        latency_ns: nanos(started.elapsed()),
        ttft_ns: None,
        model_calls: 0,
        input_tokens: None,
        output_tokens: None,
        cache_read_tokens: None,
        reasoning_tokens: None,
        tokens_source: TokensSource::None,
        passages_cut: 0,
        finish_reason: kept.finish_reason,
        cached: Some(similarity),
    }
}
