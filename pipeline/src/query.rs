//! A question to an answer: embed, retrieve, rerank, synthesize.
//!
//! Every stage is a span, and a span around a stream ends when the stream ends: while an answer
//! arrives, the spans of the model call, of the synthesis and of the query are all open. Dropped
//! in between, they say `retake.cancelled`.

mod cached;
mod fuse;
mod search;
mod spans;
mod transform;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use retake_replay::cassette::{Cassette, OnMiss};
use retake_replay::target::SourceLink;
use retake_schemas::event::TokensSource;
use retake_schemas::settings::{RagSettings, SynthesisMode};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};

use crate::answer::recorded::RecordedLlm;
use crate::answer::{self, Llm};
use crate::document::Hit;
use crate::embed::{self, Embedder};
use crate::error::PipelineError;
pub use crate::llm_call::OnPart;
use crate::llm_call::{Caller, Spent};
use crate::postprocess::{self, Postprocessor};
use crate::query_cache::QueryCache;
use crate::store::{self, VectorStore};
use crate::synthesize::check::{Objection, check};
use crate::synthesize::{self, Written};
use crate::trace::{Stage, nanos};
use crate::{collection, embed_call};

use self::search::Searched;
use self::transform::{mean_vector, searched_texts};

/// Answers questions from a collection.
#[derive(Clone)]
pub struct Engine {
    embedder: Arc<dyn Embedder>,
    store: Arc<dyn VectorStore>,
    steps: Vec<Arc<dyn Postprocessor>>,
    llm: Arc<dyn Llm>,
    llm_source: LlmSource,
    /// Answers to requests that are still what they were; all others the model gets.
    cutoff: Option<Arc<dyn Cassette>>,
    /// Answers given before; a replay has none.
    cache: Option<Arc<QueryCache>>,
    settings: RagSettings,
}

/// Where answers come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LlmSource {
    Live,
    Recorded,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("llm_source", &self.llm_source)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// What belongs to one question beside its text.
#[derive(Debug, Clone, Default)]
pub struct AskOptions {
    /// The caller's name for the request.
    pub request_id: Option<String>,
    /// In a replay, the operation this one repeats.
    pub source: Option<SourceLink>,
    /// In a replay, when the operation was due.
    pub due_unix_ns: Option<i64>,
    /// JSON Schema of the answer; without one it is text.
    pub schema: Option<Json>,
    /// Ends the question early.
    pub cancellation: CancellationToken,
}

/// The input of a query as it is recorded, and read again by a replay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryInput {
    /// The question.
    pub question: String,
}

/// An answer, with what it was made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The text.
    pub text: String,
    /// The same as JSON, if a schema was given.
    pub structured: Option<Json>,
    /// What is wrong with it, for the style that was asked for.
    pub objection: Option<Objection>,
    /// The chunks the model was given, in the order it was given them.
    pub hits: Vec<Hit>,
    /// From the question to the end of the answer, ns.
    pub latency_ns: i64,
    /// From the first call of the model for the answer to the first piece of it, ns.
    pub ttft_ns: Option<i64>,
    /// Calls of the model, those of reranking included.
    pub model_calls: u64,
    /// Input tokens of all of them.
    pub input_tokens: Option<i64>,
    /// Output tokens of all of them.
    pub output_tokens: Option<i64>,
    /// Part of the input tokens that the provider read from its cache.
    pub cache_read_tokens: Option<i64>,
    /// Part of the output tokens spent on reasoning.
    pub reasoning_tokens: Option<i64>,
    /// Who counted them: the least sure of all.
    pub tokens_source: TokensSource,
    /// Chunks that were cut or left out because the model's window is too small.
    pub passages_cut: u64,
    /// Why the answer ended.
    pub finish_reason: Option<String>,
    /// How similar the question is to one that was asked before and whose answer this is; 1 for the
    /// same text. Nothing for an answer that was made.
    pub cached: Option<f64>,
}

/// How good an answer is, against what is known to be right.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Quality {
    pub(crate) hit: Option<bool>,
    pub(crate) recall: Option<f64>,
    pub(crate) mrr: Option<f64>,
    pub(crate) answer_match: Option<bool>,
}

impl Engine {
    /// The engine of the settings; without a URL the store is `default_sqlite`.
    ///
    /// # Errors
    /// The settings cannot work, the database cannot be reached, the collection is missing, empty,
    /// or made of another model.
    pub async fn from_settings(
        settings: &RagSettings,
        default_sqlite: &Path,
    ) -> Result<Self, PipelineError> {
        crate::tokens::prepare();
        let embedder = embed::from_settings(settings)?;
        let store = store::open(&settings.vectors, default_sqlite).await?;
        open_filled(settings, embedder.as_ref(), store.as_ref()).await?;
        Ok(Self {
            embedder,
            store,
            steps: postprocess::from_settings(settings)?,
            llm: answer::from_settings(settings)?,
            llm_source: LlmSource::Live,
            cutoff: None,
            cache: None,
            settings: settings.clone(),
        })
    }

    /// What makes its vectors.
    #[must_use]
    pub fn embedder(&self) -> Arc<dyn Embedder> {
        Arc::clone(&self.embedder)
    }

    /// Name of the model that answers.
    #[must_use]
    pub fn llm_model(&self) -> &str {
        self.llm.model()
    }

    /// The same engine with a cache of answers.
    #[must_use]
    pub fn with_query_cache(mut self, cache: Arc<QueryCache>) -> Self {
        self.cache = Some(cache);
        self
    }

    /// The same engine with another model.
    #[must_use]
    pub fn with_llm(mut self, llm: Arc<dyn Llm>) -> Self {
        self.llm = llm;
        self
    }

    /// The same engine with recorded answers in place of its model. No call leaves the process,
    /// unless the cassette lets requests that it does not know go to the model.
    #[must_use]
    pub fn with_recorded_llm(mut self, cassette: Arc<dyn Cassette>) -> Self {
        if cassette.on_miss() == OnMiss::Live {
            self.cutoff = Some(cassette);
            return self;
        }
        let recorded = RecordedLlm::new(cassette, self.llm.provider(), self.llm.model());
        self.llm = Arc::new(recorded);
        self.llm_source = LlmSource::Recorded;
        self.cache = None;
        self
    }

    /// Answers `question`; `on_part` hears the pieces of the answer as they arrive.
    ///
    /// # Errors
    /// A stage failed, or the question was cancelled.
    pub async fn ask(
        &self,
        question: &str,
        options: AskOptions,
        on_part: OnPart<'_>,
    ) -> Result<Answer, PipelineError> {
        self.ask_judged(question, options, on_part, &|_| Quality::default()).await
    }

    /// [`Engine::ask`], with the quality of the answer recorded on the query's span.
    pub(crate) async fn ask_judged(
        &self,
        question: &str,
        options: AskOptions,
        on_part: OnPart<'_>,
        judge: &(dyn Fn(&Answer) -> Quality + Sync),
    ) -> Result<Answer, PipelineError> {
        let stage = Stage::new(spans::query(question, &options)?);
        let span = stage.span().clone();
        let source = self.stage_source(&options);
        let asking = Asking { question, caller: self.caller(source), root: &span };
        let work = self.answer(asking, options.schema.as_ref(), on_part).instrument(span.clone());
        let result = tokio::select! {
            result = work => result,
            () = options.cancellation.cancelled() => Err(PipelineError::Cancelled),
        };
        if let Ok(answer) = &result {
            span.record("output.value", answer.text.as_str());
            spans::record_quality(&span, &judge(answer));
        }
        stage.end(result)
    }

    /// What a replay says about the model; outside a replay there is nothing to say.
    fn stage_source(&self, options: &AskOptions) -> Option<&'static str> {
        match self.llm_source {
            LlmSource::Recorded => Some("recorded"),
            LlmSource::Live => options.source.is_some().then_some("live"),
        }
    }

    fn caller(&self, source: Option<&'static str>) -> Caller<'_> {
        Caller { llm: self.llm.as_ref(), source, cutoff: self.cutoff.as_deref() }
    }

    async fn answer(
        &self,
        asking: Asking<'_>,
        schema: Option<&Json>,
        on_part: OnPart<'_>,
    ) -> Result<Answer, PipelineError> {
        let started = Instant::now();
        let scope = self.scope(schema, asking.root).await;
        if let Some(answer) = self.given_before(asking, scope, None, started).await {
            on_part(&answer.text);
            return Ok(answer);
        }
        let mut spent = Spent::default();
        let own = self.own_vector(asking, scope).await?;
        if own.is_some()
            && let Some(answer) = self.given_before(asking, scope, own.as_deref(), started).await
        {
            on_part(&answer.text);
            return Ok(answer);
        }
        let searched = self.searched(asking, own.as_deref(), &mut spent).await?;
        let found = self.retrieve(&searched, asking.root).await?;
        let hits = self.postprocess(asking, &searched.vector, found, &mut spent).await?;
        let synthesis = Instant::now();
        let written = self.synthesize(asking, &hits, schema, on_part).await?;
        spent.add_all(&written.spent);
        let answer = Answer {
            objection: self.objection(&written, &hits),
            text: written.text,
            structured: written.structured,
            hits,
            latency_ns: nanos(started.elapsed()),
            ttft_ns: written
                .first_piece
                .map(|first| nanos(first.saturating_duration_since(synthesis))),
            model_calls: spent.calls,
            input_tokens: spent.input_tokens,
            output_tokens: spent.output_tokens,
            cache_read_tokens: spent.cache_read_tokens,
            reasoning_tokens: spent.reasoning_tokens,
            tokens_source: spent.tokens_source,
            passages_cut: written.passages_cut,
            finish_reason: written.finish_reason,
            cached: None,
        };
        self.keep(asking, scope, own.as_deref().unwrap_or(&searched.vector), &answer).await;
        Ok(answer)
    }

    /// What is wrong with an answer's style. A form has no style, and neither has what no model
    /// wrote.
    fn objection(&self, written: &Written, hits: &[Hit]) -> Option<Objection> {
        let settings = &self.settings.synthesize;
        let is_worded = !matches!(
            settings.mode,
            SynthesisMode::NoText | SynthesisMode::ContextOnly | SynthesisMode::Generation
        ) && written.structured.is_none();
        let is_cut = written.finish_reason.as_deref();
        if is_worded { check(settings.style, &written.text, hits, is_cut) } else { None }
    }

    /// What is searched for: the question, or what it becomes. The first text has its words; a passage
    /// that a model made up has words of its own.
    async fn searched(
        &self,
        asking: Asking<'_>,
        own: Option<&[f32]>,
        spent: &mut Spent,
    ) -> Result<Searched, PipelineError> {
        let Asking { question, caller, root } = asking;
        let texts = searched_texts(question, &self.settings, caller, root, spent).await?;
        let vector = match (own, texts.as_slice()) {
            (Some(own), [text]) if text == question => own.to_vec(),
            _ => self.embed(&texts, root).await?,
        };
        let text = texts.into_iter().next().unwrap_or_else(|| question.to_owned());
        Ok(Searched { text, vector })
    }

    /// The mean of the vectors of `texts`.
    async fn embed(&self, texts: &[String], root: &Span) -> Result<Vec<f32>, PipelineError> {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let span = embed_call::span(self.embedder.as_ref(), root, texts.len());
        let embeddings = embed_call::embed(self.embedder.as_ref(), &texts, span).await?;
        Ok(mean_vector(embeddings.vectors))
    }

    async fn postprocess(
        &self,
        asking: Asking<'_>,
        vector: &[f32],
        found: Vec<Hit>,
        spent: &mut Spent,
    ) -> Result<Vec<Hit>, PipelineError> {
        let last_choice = self.steps.iter().rposition(|step| step.is_choosing());
        let mut hits = found;
        for (position, step) in self.steps.iter().enumerate() {
            // Those before the last one only order: it has to have something to choose from.
            let is_last = Some(position) == last_choice;
            let keep = if is_last { self.settings.retrieve.top_k } else { hits.len() };
            let span = if step.is_choosing() {
                spans::rerank(step.name(), keep, asking.root)
            } else {
                spans::postprocess(step.name(), asking.root)
            };
            let stage = Stage::new(span.clone());
            let query = postprocess::Query {
                text: asking.question,
                vector,
                keep,
                span: &span,
                caller: asking.caller,
                embedder: self.embedder.as_ref(),
                store: self.store.as_ref(),
            };
            let processed = step.process(&query, hits).instrument(span.clone()).await;
            if let Ok(processed) = &processed {
                span.record("retake.document.count", processed.hits.len());
                spans::reranked(&span, &processed.hits);
            }
            let processed = stage.end(processed)?;
            spent.add_all(&processed.spent);
            hits = processed.hits;
        }
        Ok(hits)
    }

    async fn synthesize(
        &self,
        asking: Asking<'_>,
        hits: &[Hit],
        schema: Option<&Json>,
        on_part: OnPart<'_>,
    ) -> Result<Written, PipelineError> {
        let settings = &self.settings;
        let stage = Stage::new(spans::synthesize(settings.synthesize.mode, asking.root));
        let span = stage.span().clone();
        let job = synthesize::Job {
            caller: asking.caller,
            settings,
            question: asking.question,
            hits,
            schema,
            span: &span,
        };
        let written = synthesize::synthesize(job, on_part).instrument(span.clone()).await;
        if let Ok(written) = &written {
            spans::record_written(&span, written, self.objection(written, hits));
        }
        stage.end(written)
    }
}

/// A question under way.
#[derive(Clone, Copy)]
struct Asking<'a> {
    question: &'a str,
    caller: Caller<'a>,
    /// The span of the query.
    root: &'a Span,
}

/// Opens the collection for reading; there must be something in it.
async fn open_filled(
    settings: &RagSettings,
    embedder: &dyn Embedder,
    store: &dyn VectorStore,
) -> Result<(), PipelineError> {
    let spec = collection::spec(settings, embedder).await?;
    let is_filled = store.open_existing(&spec).await? && store.stats().await?.chunks > 0;
    if is_filled {
        return Ok(());
    }
    Err(PipelineError::Configuration(format!(
        "search collection {:?}: it is empty; ingest documents first",
        spec.name
    )))
}
