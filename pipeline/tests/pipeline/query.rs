//! Asking questions.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use retake_pipeline::answer::{AnswerPart, ChatRequest, Llm, canonical};
use retake_pipeline::error::PipelineError;
use retake_pipeline::ingest::{IngestRequest, Silent, ingest};
use retake_pipeline::query::{AskOptions, Engine};
use retake_schemas::settings::{RagSettings, RerankProvider};
use tokio_util::sync::CancellationToken;

use crate::capture::{self, named};
use crate::fixtures::{Backend, corpus, deps, settings};

/// A filled collection and an engine over it.
pub(crate) async fn engine(backend: &Backend, settings: &RagSettings) -> Engine {
    let folder = corpus(20);
    let (deps, _) = deps(backend, settings).await;
    let request =
        IngestRequest { roots: vec![PathBuf::from(folder.path())], ..IngestRequest::default() };
    ingest(request, &deps, &Silent, CancellationToken::new()).await.unwrap();
    Engine::from_settings(&database(backend, settings), &backend.sqlite_file()).await.unwrap()
}

pub(crate) fn database(backend: &Backend, settings: &RagSettings) -> RagSettings {
    RagSettings { vectors: backend.settings.clone(), ..settings.clone() }
}

fn options(id: &str) -> AskOptions {
    AskOptions { request_id: Some(id.to_owned()), ..AskOptions::default() }
}

const QUESTION: &str = "What does document 7 say about subject7?";

/// Guarantees: the span tree of a plain and of a streamed query, in golden form; the query ends
/// last, and the model call has its parent.
#[tokio::test]
async fn the_tree_of_a_query_is_as_documented() {
    capture::install();
    let backend = Backend::sqlite();
    for (id, stream) in [("tree-plain", false), ("tree-stream", true)] {
        let mut settings = settings();
        settings.synthesize.stream = stream;
        let engine = engine(&backend, &settings).await;
        let mut heard = String::new();
        let mut on_part = |part: &str| heard.push_str(part);
        let answer = engine.ask(QUESTION, options(id), &mut on_part).await.unwrap();
        assert_eq!(heard, answer.text);
        assert!(answer.text.contains("subject7"), "{}", answer.text);
        let spans = capture::trace(id);
        let arrivals = named(&spans, "llm")[0].events.len();
        assert!(arrivals > 0);
        let expected = format!(
            "query\n  embed\n  retrieve +4 retake::document\n  synthesize\n    \
             llm +{arrivals} retake::token\n"
        );
        assert_eq!(capture::tree(&spans), expected);
        let end = |name| named(&spans, name)[0].ended.unwrap();
        assert!(end("embed") < end("retrieve") && end("retrieve") < end("llm"));
        assert!(end("llm") < end("synthesize") && end("synthesize") < end("query"));
        check_fields(&spans, &answer, stream);
    }
}

fn check_fields(
    spans: &[capture::SeenSpan],
    answer: &retake_pipeline::query::Answer,
    stream: bool,
) {
    let query = named(spans, "query")[0];
    assert_eq!(query.fields["retake.operation"], "query");
    assert_eq!(query.fields["output.value"], answer.text);
    let input: serde_json::Value = serde_json::from_str(&query.fields["input.value"]).unwrap();
    assert_eq!(input["question"], QUESTION);
    let llm = named(spans, "llm")[0];
    let request: ChatRequest = serde_json::from_str(&llm.fields["gen_ai.input.messages"]).unwrap();
    assert_eq!(canonical(&request), llm.fields["gen_ai.input.messages"]);
    assert_eq!(request.stream, stream);
    assert_eq!(llm.fields["gen_ai.operation.name"], "chat");
    assert_eq!(llm.fields["gen_ai.output.messages"], answer.text);
    assert_eq!(llm.fields["gen_ai.request.stream"], stream.to_string());
    assert!(!llm.fields.contains_key("retake.stage_source"), "only a replay has one");
    let tokens: i64 =
        llm.events.iter().map(|(_, fields)| fields["count"].parse::<i64>().unwrap()).sum();
    assert_eq!(Some(tokens), answer.output_tokens);
    assert_eq!(llm.fields["gen_ai.usage.output_tokens"], tokens.to_string());
    let (_, first) = &named(spans, "retrieve")[0].events[0];
    let best = &answer.hits[0];
    assert_eq!((first["rank"].as_str(), first["role"].as_str()), ("0", "retrieved"));
    assert_eq!((&first["id"], &first["content"]), (&best.chunk.id, &best.chunk.text));
    assert_eq!(
        (&first["source"], &first["end_char"]),
        (&best.chunk.document_id, &best.chunk.end_char.to_string(),)
    );
}

#[tokio::test]
async fn a_reranker_chooses_among_more_candidates() {
    capture::install();
    let backend = Backend::sqlite();
    let mut settings = settings();
    settings.rerank.provider = RerankProvider::Bm25;
    settings.rerank.candidates = 10;
    let engine = engine(&backend, &settings).await;
    let answer = engine.ask(QUESTION, options("rerank"), &mut |_| {}).await.unwrap();
    assert_eq!(answer.hits.len(), 4);
    assert!(answer.hits.iter().all(|hit| hit.rerank_score.is_some()));
    let spans = capture::trace("rerank");
    assert_eq!(named(&spans, "retrieve")[0].events.len(), 10);
    assert_eq!(named(&spans, "retrieve")[0].fields["gen_ai.retrieval.top_k"], "10");
    let rerank = named(&spans, "rerank")[0];
    assert_eq!(rerank.events.len(), 4);
    assert_eq!(rerank.events[0].1["role"], "rerank_output");
}

/// A model that gives two pieces and then does what it was told to.
struct Stubborn(After);

#[derive(Clone, Copy)]
enum After {
    Hang,
    Fail,
    Stop,
}

#[async_trait]
impl Llm for Stubborn {
    fn provider(&self) -> &str {
        "test"
    }

    fn model(&self) -> &str {
        "stubborn"
    }

    async fn answer(
        &self,
        _: &ChatRequest,
    ) -> Result<BoxStream<'static, Result<AnswerPart, PipelineError>>, PipelineError> {
        let text = |text: &str| Ok(AnswerPart::Text { text: text.to_owned(), tokens: 1 });
        let begun = futures::stream::iter([text("a"), text("b")]);
        Ok(match self.0 {
            After::Hang => begun.chain(futures::stream::pending()).boxed(),
            After::Fail => begun.chain(futures::stream::iter([Err(broken())])).boxed(),
            After::Stop => begun.boxed(),
        })
    }
}

fn broken() -> PipelineError {
    PipelineError::Service {
        service: "test".to_owned(),
        status: Some(503),
        reason: "broke off".to_owned(),
    }
}

/// Scenario: an answer hangs in the middle and the user ends it, by the token and by dropping.
/// Guarantees: every span that was open ends and says it was cancelled.
#[tokio::test]
async fn a_cancelled_answer_closes_its_spans() {
    capture::install();
    let backend = Backend::sqlite();
    let engine = engine(&backend, &settings()).await.with_llm(Arc::new(Stubborn(After::Hang)));
    let cancellation = CancellationToken::new();
    let by_token = AskOptions { cancellation: cancellation.clone(), ..options("by-token") };
    let mut parts = 0;
    let mut on_part = |_: &str| {
        parts += 1;
        if parts == 2 {
            cancellation.cancel();
        }
    };
    let error = engine.ask(QUESTION, by_token, &mut on_part).await.unwrap_err();
    assert_eq!(error.error_type(), "cancelled");
    let mut silent = |_: &str| {};
    let asked = engine.ask(QUESTION, options("by-drop"), &mut silent);
    assert!(tokio::time::timeout(Duration::from_millis(300), asked).await.is_err());
    for id in ["by-token", "by-drop"] {
        let spans = capture::trace(id);
        for name in ["query", "synthesize", "llm"] {
            let span = named(&spans, name)[0];
            assert!(span.ended.is_some(), "{id} {name}");
            assert_eq!(span.fields["retake.cancelled"], "true", "{id} {name}");
            assert!(!span.fields.contains_key("otel.status_code"), "{id} {name}");
        }
        assert_eq!(named(&spans, "llm")[0].events.len(), 2);
        assert!(!named(&spans, "retrieve")[0].fields.contains_key("retake.cancelled"));
    }
}

#[tokio::test]
async fn a_broken_answer_is_an_error_on_its_spans() {
    capture::install();
    let backend = Backend::sqlite();
    let engine = engine(&backend, &settings()).await;
    for (id, after, error_type) in
        [("fails", After::Fail, "service_unavailable"), ("stops-early", After::Stop, "model")]
    {
        let engine = engine.clone().with_llm(Arc::new(Stubborn(after)));
        let error = engine.ask(QUESTION, options(id), &mut |_| {}).await.unwrap_err();
        assert_eq!(error.error_type(), error_type);
        let spans = capture::trace(id);
        for name in ["query", "synthesize", "llm"] {
            let span = named(&spans, name)[0];
            assert_eq!(span.fields["otel.status_code"], "ERROR");
            assert_eq!(span.fields["error.type"], error_type);
        }
    }
}

/// Guarantees: a question to nothing says what to do, and makes no file.
#[tokio::test]
async fn an_empty_collection_says_to_ingest_first() {
    for backend in Backend::all("empty") {
        let mut settings = database(&backend, &settings());
        settings.vectors.collection = "never made".to_owned();
        let error =
            Engine::from_settings(&settings, &backend.sqlite_file()).await.map(drop).unwrap_err();
        assert_eq!(error.error_type(), "configuration");
        assert!(error.to_string().contains("ingest"), "{error}");
        assert!(!backend.sqlite_file().exists());
    }
}
