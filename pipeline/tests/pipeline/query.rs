//! Asking questions.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use retake_pipeline::answer::{AnswerEnd, AnswerPart, ChatRequest, Llm, canonical};
use retake_pipeline::error::PipelineError;
use retake_pipeline::ingest::{IngestRequest, Silent, ingest};
use retake_pipeline::query::{Answer, AskOptions, Engine};
use retake_pipeline::query_cache::QueryCache;
use retake_schemas::settings::{
    PostprocessStep, QueryCacheMode, QueryTransform, RagSettings, RerankProvider, SynthesisMode,
};
use tokio_util::sync::CancellationToken;

use crate::capture::{self, named};
use crate::fixtures::{Backend, corpus, deps, settings, write_document};

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

pub(crate) fn options(id: &str) -> AskOptions {
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

/// A model that rates passages oddly when it is asked to, and else answers.
struct Rating;

#[async_trait]
impl Llm for Rating {
    fn provider(&self) -> &str {
        "test"
    }

    fn model(&self) -> &str {
        "rating"
    }

    async fn answer(
        &self,
        request: &ChatRequest,
    ) -> Result<BoxStream<'static, Result<AnswerPart, PipelineError>>, PipelineError> {
        let text = if request.messages[0].content.starts_with("Rate") {
            "Here you are:\nDoc: 0, Relevance: 10\nDoc: 3, Relevance: 8.5\nDoc: 3, Relevance: 1\n\
             Doc: 1, Relevance: high\nDoc: 99, Relevance: 9\nDoc: 2, Relevance: 2"
        } else {
            "An answer."
        };
        let end = AnswerEnd { output_tokens: Some(2), ..AnswerEnd::default() };
        let text = AnswerPart::Text { text: text.to_owned(), tokens: 2 };
        Ok(futures::stream::iter([Ok(text), Ok(AnswerPart::End(end))]).boxed())
    }
}

/// Scenario: the model rates passage 0, one beyond the end, one with a word, one twice.
/// Guarantees: only what can be read counts, nothing is lost, both scores stay, what could not be
/// read is told by reason on the span of the step, and the ratings' tokens are the query's.
#[tokio::test]
async fn a_rating_that_cannot_be_read_is_told_and_costs_no_passage() {
    capture::install();
    let backend = Backend::sqlite();
    let mut settings = settings();
    settings.rerank.candidates = 5;
    settings.postprocess.steps =
        vec![PostprocessStep::LlmRerank, PostprocessStep::LongContextReorder];
    let found = engine(&backend, &settings).await;
    let plain = found.clone().with_llm(Arc::new(Rating));
    let answer = plain.ask(QUESTION, options("llm-rerank"), &mut |_| {}).await.unwrap();
    assert_eq!((answer.model_calls, answer.output_tokens), (2, Some(4)));
    let spans = capture::trace("llm-rerank");
    let searched = &named(&spans, "retrieve")[0].events;
    let id = |rank: usize| searched[rank].1["id"].as_str();
    assert_eq!(searched.len(), 5);
    // Rated best, then second; then the unrated as the search had them. The reorder puts the
    // second of four last.
    let hits: Vec<&str> = answer.hits.iter().map(|hit| hit.chunk.id.as_str()).collect();
    assert_eq!(hits, [id(2), id(0), id(3), id(1)]);
    let scores: Vec<Option<f64>> = answer.hits.iter().map(|hit| hit.rerank_score).collect();
    assert_eq!(scores, [Some(8.5), None, None, Some(2.0)]);
    assert!(answer.hits.iter().all(|hit| hit.similarity > -1.0));
    let rerank = named(&spans, "rerank")[0];
    assert_eq!(rerank.fields["gen_ai.request.model"], "llm");
    assert_eq!(rerank.fields["retake.rerank.unrated"], "3");
    assert_eq!(rerank.fields["retake.rerank.unreadable"], "5");
    let told: Vec<(&str, &str)> = rerank
        .events
        .iter()
        .filter_map(|(_, fields)| Some((fields.get("reason")?.as_str(), fields["count"].as_str())))
        .collect();
    assert_eq!(
        told,
        [("malformed", "1"), ("out_of_range", "2"), ("duplicate", "1"), ("bad_rating", "1")]
    );
    let tree = capture::tree(&spans);
    assert!(tree.contains("  rerank +4 retake::document +4 retake_pipeline::"), "{tree}");
    assert!(tree.contains("\n    llm"), "the rating stands under its step: {tree}");
    assert!(tree.contains("\n  postprocess +4 retake::document\n"), "{tree}");
}

/// Scenario: ten documents that say nearly the same, and MMR that looks for what is new.
/// Guarantees: vectors come from the store, on every backend; the choice differs from the
/// search's; a cutoff that nothing passes leaves nothing, and the answer says that it is not known.
#[tokio::test]
async fn mmr_and_cutoff_choose_by_the_vectors_of_the_store() {
    capture::install();
    for backend in Backend::all("mmr") {
        let mut settings = settings();
        settings.postprocess.steps = vec![PostprocessStep::Mmr];
        settings.postprocess.mmr_lambda = 1.0;
        let same = engine(&backend, &settings).await;
        let first = same.ask(QUESTION, AskOptions::default(), &mut |_| {}).await.unwrap();
        let by_similarity: Vec<f64> = first.hits.iter().map(|hit| hit.similarity).collect();
        assert!(by_similarity.is_sorted_by(|one, other| one >= other), "{by_similarity:?}");
        assert!(
            first.hits.iter().all(|hit| (hit.rerank_score.unwrap() - hit.similarity).abs() < 1e-3)
        );
        settings.postprocess.mmr_lambda = 0.2;
        let database = database(&backend, &settings);
        let diverse = Engine::from_settings(&database, &backend.sqlite_file()).await.unwrap();
        let other = diverse.ask(QUESTION, AskOptions::default(), &mut |_| {}).await.unwrap();
        assert_eq!(other.hits.len(), 4);
        assert_eq!(other.hits[0].chunk.id, first.hits[0].chunk.id);
        assert_ne!(other.hits, first.hits);
        let mut none = database.clone();
        none.postprocess.steps = vec![PostprocessStep::SimilarityCutoff];
        none.postprocess.similarity_min = 1.0;
        let none = Engine::from_settings(&none, &backend.sqlite_file()).await.unwrap();
        let empty = none.ask(QUESTION, AskOptions::default(), &mut |_| {}).await.unwrap();
        assert!(empty.hits.is_empty() && empty.text.contains("do not know"), "{}", empty.text);
    }
}

/// Scenario: an answer of several prompts, cancelled while the first is under way.
/// Guarantees: one trace; the model calls stand under the synthesis; cancelled spans say so.
#[tokio::test]
async fn an_answer_of_several_prompts_is_one_trace() {
    capture::install();
    let backend = Backend::sqlite();
    let mut settings = settings();
    settings.synthesize.mode = SynthesisMode::Refine;
    let engine = engine(&backend, &settings).await;
    let answer = engine.ask(QUESTION, options("refine"), &mut |_| {}).await.unwrap();
    assert!(answer.text.contains("subject7"), "{}", answer.text);
    assert_eq!(answer.model_calls, 4);
    let spans = capture::trace("refine");
    let synthesis = spans.iter().position(|span| span.name == "synthesize").unwrap();
    assert_eq!(spans[synthesis].fields["retake.synthesize.mode"], "refine");
    assert_eq!(spans[synthesis].fields["retake.synthesize.calls"], "4");
    let calls = named(&spans, "llm");
    assert!(calls.iter().all(|call| call.parent == Some(synthesis)));
    let streamed: Vec<&str> =
        calls.iter().map(|call| call.fields["gen_ai.request.stream"].as_str()).collect();
    assert_eq!(streamed, ["false", "false", "false", "true"]);
    let hanging = engine.with_llm(Arc::new(Stubborn(After::Hang)));
    let mut silent = |_: &str| {};
    let asked = hanging.ask(QUESTION, options("refine-drop"), &mut silent);
    assert!(tokio::time::timeout(Duration::from_millis(200), asked).await.is_err());
    let spans = capture::trace("refine-drop");
    for name in ["query", "synthesize", "llm"] {
        assert_eq!(named(&spans, name)[0].fields["retake.cancelled"], "true", "{name}");
    }
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

/// Scenario: a question asked twice, once more in other words, and after a document changed.
/// Guarantees: the second costs no model and no search; a near question is answered by its
/// vector; what changed is asked anew; a replay has no cache.
#[tokio::test]
async fn a_question_asked_before_costs_no_model_until_a_document_changes() {
    capture::install();
    for backend in Backend::all("answers") {
        let mut settings = settings();
        settings.query_cache.mode = QueryCacheMode::Semantic;
        settings.query_cache.similarity_min = 0.9;
        let folder = corpus(20);
        let (deps, _) = deps(&backend, &settings).await;
        let ingested = || IngestRequest {
            roots: vec![PathBuf::from(folder.path())],
            ..IngestRequest::default()
        };
        ingest(ingested(), &deps, &Silent, CancellationToken::new()).await.unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("answers.sqlite");
        let cache = Arc::new(QueryCache::open(&file, &settings.query_cache).await.unwrap());
        let database = database(&backend, &settings);
        let engine = Engine::from_settings(&database, &backend.sqlite_file()).await.unwrap();
        let engine = engine.with_query_cache(cache);
        let id = |name: &str| options(&format!("cached-{}-{name}", backend.name));
        let ask = async |question: &str, name: &str| {
            let mut heard = String::new();
            let answer = engine.ask(question, id(name), &mut |part| heard.push_str(part)).await;
            let answer = answer.unwrap();
            assert_eq!(heard, answer.text);
            answer
        };
        let first = ask(QUESTION, "first").await;
        assert_eq!((first.cached, first.model_calls), (None, 1));
        let second = ask(&format!("  {QUESTION}\n"), "second").await;
        assert_eq!((second.cached, second.model_calls), (Some(1.0), 0));
        assert_eq!(second.text, first.text);
        let ids = |answer: &Answer| -> Vec<String> {
            answer.hits.iter().map(|hit| hit.chunk.id.clone()).collect()
        };
        assert_eq!(ids(&second), ids(&first));
        let tree = capture::tree(&capture::trace(&format!("cached-{}-second", backend.name)));
        assert_eq!(tree, "query\n  cache\n");
        let near = ask("What document 7 does say about subject7?", "near").await;
        assert!(near.cached.is_some_and(|similarity| similarity < 1.0), "{:?}", near.cached);
        let other = ask("What does document 8 say about subject8?", "other").await;
        assert_eq!(other.cached, None);
        write_document(folder.path(), 3, "second");
        ingest(ingested(), &deps, &Silent, CancellationToken::new()).await.unwrap();
        assert_eq!(ask(QUESTION, "changed").await.cached, None, "{}", backend.name);
    }
}

/// Scenario: HyDE with a model that makes up a passage in words the question has not.
/// Guarantees: the passage is searched for and not answered from; its call is a span under its
/// stage and its tokens are the query's.
#[tokio::test]
async fn hyde_searches_for_a_passage_that_is_not_answered_from() {
    capture::install();
    let backend = Backend::sqlite();
    let mut settings = settings();
    settings.query.transform = QueryTransform::Hyde;
    settings.embed.dim = 1024;
    settings.synthesize.mode = SynthesisMode::ContextOnly;
    let engine = engine(&backend, &settings).await.with_llm(Arc::new(MakesUp));
    let question = "Where is it told?";
    let answer = engine.ask(question, options("hyde"), &mut |_| {}).await.unwrap();
    assert_eq!(answer.hits[0].chunk.document_id, "doc011.md", "{:?}", answer.hits[0]);
    assert!(!answer.text.contains("made up"));
    assert_eq!((answer.model_calls, answer.output_tokens), (1, Some(2)));
    let tree = capture::tree(&capture::trace("hyde"));
    assert!(tree.starts_with("query\n  transform\n    llm +1 retake::token\n  embed\n"), "{tree}");
}

/// A model that makes up a passage.
struct MakesUp;

#[async_trait]
impl Llm for MakesUp {
    fn provider(&self) -> &str {
        "test"
    }

    fn model(&self) -> &str {
        "makes-up"
    }

    async fn answer(
        &self,
        _: &ChatRequest,
    ) -> Result<BoxStream<'static, Result<AnswerPart, PipelineError>>, PipelineError> {
        let text = "Made up: document number 11 speaks of subject11 and of nothing else.";
        let end = AnswerEnd { output_tokens: Some(2), ..AnswerEnd::default() };
        let text = AnswerPart::Text { text: text.to_owned(), tokens: 2 };
        Ok(futures::stream::iter([Ok(text), Ok(AnswerPart::End(end))]).boxed())
    }
}
