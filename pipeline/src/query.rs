//! A question to an answer: embed, retrieve, rerank, synthesize.
//!
//! Every stage is a span, and a span around a stream ends when the stream ends: while an answer
//! arrives, the spans of the model call, of the synthesis and of the query are all open. Dropped
//! in between, they say `retake.cancelled`.

mod spans;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use retake_replay::cassette::{Cassette, OnMiss};
use retake_replay::target::SourceLink;
use retake_schemas::Digest;
use retake_schemas::event::TokensSource;
use retake_schemas::settings::RagSettings;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};

use crate::answer::prompt::build_request;
use crate::answer::recorded::RecordedLlm;
use crate::answer::{self, AnswerEnd, AnswerPart, ChatRequest, Llm, canonical};
use crate::document::Hit;
use crate::embed::{self, Embedder};
use crate::error::PipelineError;
use crate::rerank::{self, Reranker};
use crate::store::{self, VectorStore};
use crate::trace::{Stage, nanos};
use crate::{collection, embed_call};

/// Answers questions from a collection.
#[derive(Clone)]
pub struct Engine {
    embedder: Arc<dyn Embedder>,
    store: Arc<dyn VectorStore>,
    reranker: Option<Arc<dyn Reranker>>,
    llm: Arc<dyn Llm>,
    llm_source: LlmSource,
    /// Answers to requests that are still what they were; all others the model gets.
    cutoff: Option<Arc<dyn Cassette>>,
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
    /// The chunks the model was given, best first.
    pub hits: Vec<Hit>,
    /// From the question to the end of the answer, ns.
    pub latency_ns: i64,
    /// From the call of the model to the first piece of its answer, ns.
    pub ttft_ns: Option<i64>,
    /// Input tokens of the model call.
    pub input_tokens: Option<i64>,
    /// Output tokens of the model call.
    pub output_tokens: Option<i64>,
    /// Who counted them.
    pub tokens_source: TokensSource,
    /// Why the answer ended.
    pub finish_reason: Option<String>,
}

/// How good an answer is, against what is known to be right.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Quality {
    pub(crate) hit: Option<bool>,
    pub(crate) recall: Option<f64>,
    pub(crate) mrr: Option<f64>,
    pub(crate) answer_match: Option<bool>,
}

/// Hears the pieces of an answer as they arrive.
pub type OnPart<'a> = &'a mut (dyn FnMut(&str) + Send);

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
        let embedder = embed::from_settings(settings)?;
        let store = store::open(&settings.vectors, default_sqlite).await?;
        open_filled(settings, embedder.as_ref(), store.as_ref()).await?;
        Ok(Self {
            embedder,
            store,
            reranker: rerank::from_settings(&settings.rerank),
            llm: answer::from_settings(settings)?,
            llm_source: LlmSource::Live,
            cutoff: None,
            settings: settings.clone(),
        })
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
        let work = self.answer(question, source, on_part, &span).instrument(span.clone());
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

    async fn answer(
        &self,
        question: &str,
        source: Option<&'static str>,
        on_part: OnPart<'_>,
        root: &Span,
    ) -> Result<Answer, PipelineError> {
        let started = Instant::now();
        let vector = self.embed(question, root).await?;
        let found = self.retrieve(&vector, root).await?;
        let hits = self.rerank(question, found, root)?;
        let completion =
            self.synthesize(Asked { question, hits: &hits }, source, on_part, root).await?;
        Ok(Answer {
            text: completion.text,
            hits,
            latency_ns: nanos(started.elapsed()),
            ttft_ns: completion.ttft.map(nanos),
            input_tokens: completion.end.input_tokens,
            output_tokens: completion.end.output_tokens,
            tokens_source: completion.end.tokens_source,
            finish_reason: completion.end.finish_reason,
        })
    }

    async fn embed(&self, question: &str, root: &Span) -> Result<Vec<f32>, PipelineError> {
        let span = embed_call::span(self.embedder.as_ref(), root, 1);
        let embeddings = embed_call::embed(self.embedder.as_ref(), &[question], span).await?;
        // `embed` checked that there is one.
        Ok(embeddings.vectors.into_iter().next().unwrap_or_default())
    }

    async fn retrieve(&self, vector: &[f32], root: &Span) -> Result<Vec<Hit>, PipelineError> {
        let wanted = self.settings.retrieve.top_k;
        let top_k = match &self.reranker {
            Some(_) => self.settings.rerank.candidates.max(wanted),
            None => wanted,
        };
        let stage = Stage::new(spans::retrieve(self.store.system(), top_k, root));
        let span = stage.span().clone();
        let found = self.store.search(vector, top_k).instrument(span.clone()).await;
        if let Ok(hits) = &found {
            span.record("retake.document.count", hits.len());
            spans::retrieved(&span, hits);
        }
        stage.end(found)
    }

    fn rerank(
        &self,
        question: &str,
        found: Vec<Hit>,
        root: &Span,
    ) -> Result<Vec<Hit>, PipelineError> {
        let Some(reranker) = &self.reranker else { return Ok(found) };
        let top_k = self.settings.retrieve.top_k;
        let stage = Stage::new(spans::rerank(reranker.name(), top_k, root));
        let span = stage.span().clone();
        let kept = span.in_scope(|| reranker.rerank(question, found, top_k));
        if let Ok(hits) = &kept {
            span.record("retake.document.count", hits.len());
            spans::reranked(&span, hits);
        }
        stage.end(kept)
    }

    async fn synthesize(
        &self,
        asked: Asked<'_>,
        source: Option<&'static str>,
        on_part: OnPart<'_>,
        root: &Span,
    ) -> Result<Completion, PipelineError> {
        let stage = Stage::new(spans::synthesize(root));
        let (llm, settings) = (self.llm.model(), &self.settings);
        let request =
            build_request(asked.question, asked.hits, &settings.synthesize, llm, settings.seed);
        let result = self.complete(&request, source, on_part, stage.span()).await;
        stage.end(result)
    }

    async fn complete(
        &self,
        request: &ChatRequest,
        source: Option<&'static str>,
        on_part: OnPart<'_>,
        parent: &Span,
    ) -> Result<Completion, PipelineError> {
        let recorded = self.recorded(request);
        let (llm, source) = match &recorded {
            Some(recorded) => (recorded as &dyn Llm, Some("recorded")),
            None => (self.llm.as_ref(), source),
        };
        let stage = Stage::new(spans::llm(llm.provider(), request, source, parent));
        let span = stage.span().clone();
        let result = Self::stream(llm, request, on_part, &span).instrument(span.clone()).await;
        if let Ok(completion) = &result {
            span.record("gen_ai.output.messages", completion.text.as_str());
            spans::record_end(&span, &completion.end);
        }
        stage.end(result)
    }

    /// The recorded answer to a request that is still what it was.
    fn recorded(&self, request: &ChatRequest) -> Option<RecordedLlm> {
        let cassette = self.cutoff.as_ref()?;
        let answer = cassette.take(&Digest::of(canonical(request).as_bytes())).ok()?;
        Some(RecordedLlm::of_answer(answer, self.llm.provider(), self.llm.model()))
    }

    async fn stream(
        llm: &dyn Llm,
        request: &ChatRequest,
        on_part: OnPart<'_>,
        span: &Span,
    ) -> Result<Completion, PipelineError> {
        let started = Instant::now();
        let mut parts = llm.answer(request).await?;
        let mut completion = Completion::default();
        let mut index = 0;
        while let Some(part) = parts.next().await {
            match part? {
                AnswerPart::Text { text, tokens } => {
                    completion.ttft.get_or_insert_with(|| started.elapsed());
                    // Text that only completes an earlier token is no arrival of its own.
                    if tokens > 0 {
                        spans::token(span, index, tokens);
                    }
                    index += tokens;
                    on_part(&text);
                    completion.text.push_str(&text);
                }
                AnswerPart::End(end) => {
                    completion.end = end;
                    return Ok(completion);
                }
            }
        }
        Err(PipelineError::Model {
            model: request.model.clone(),
            reason: "the answer stopped before its end".to_owned(),
        })
    }
}

/// A question with the passages found for it.
#[derive(Debug, Clone, Copy)]
struct Asked<'a> {
    question: &'a str,
    hits: &'a [Hit],
}

/// What the model gave.
#[derive(Debug, Default)]
struct Completion {
    text: String,
    ttft: Option<Duration>,
    end: AnswerEnd,
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
