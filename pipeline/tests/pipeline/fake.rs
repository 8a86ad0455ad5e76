//! The fake model server, asked by the pipeline's own clients and by hand.

use std::time::Duration;

use futures::StreamExt as _;
use retake_pipeline::answer::openai::OpenaiLlm;
use retake_pipeline::answer::{AnswerEnd, AnswerPart, ChatRequest, Llm as _, Message};
use retake_pipeline::embed::Embedder as _;
use retake_pipeline::embed::hashing::HashingEmbedder;
use retake_pipeline::embed::openai::OpenaiEmbedder;
use retake_pipeline::error::PipelineError;
use retake_pipeline::fake::{FailureKind, FakeServer, FakeSettings, Latency, Reply, Served};
use retake_pipeline::query::Engine;
use retake_schemas::event::TokensSource;
use retake_schemas::settings::{
    EmbedSettings, LimitSettings, RerankProtocol, RerankProvider, SynthesizeSettings,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::capture::{self, named};
use crate::fixtures::{Backend, settings};
use crate::query::{database, engine, options};

/// A server in a task of its own.
pub(crate) struct Running {
    pub(crate) url: String,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Served>,
}

impl Running {
    pub(crate) async fn start(settings: FakeSettings) -> Self {
        let server = FakeServer::bind(settings).await.expect("server");
        let (url, stop) = (server.url(), CancellationToken::new());
        let task = tokio::spawn(server.run(stop.clone()));
        Self { url, stop, task }
    }

    pub(crate) async fn end(self) -> Served {
        self.stop.cancel();
        self.task.await.expect("server")
    }

    fn llm(&self) -> OpenaiLlm {
        let settings = SynthesizeSettings {
            url: Some(self.url.clone()),
            model: "fake".to_owned(),
            api_key_env: "RETAKE_TEST_NO_KEY".to_owned(),
            timeout_ms: 20_000,
            ..SynthesizeSettings::default()
        };
        OpenaiLlm::new(&settings, &LimitSettings::default()).expect("model")
    }

    async fn ask(&self, text: &str, stream: bool) -> Result<(String, AnswerEnd), PipelineError> {
        let message = |role: &str, content: &str| Message {
            role: role.to_owned(),
            content: content.to_owned(),
        };
        let request = ChatRequest {
            model: "fake".to_owned(),
            messages: vec![message("system", "Be brief."), message("user", text)],
            temperature: 0.0,
            max_tokens: 64,
            seed: 1,
            stream,
            response_schema: None,
        };
        let mut parts = self.llm().answer(&request).await?;
        let mut said = String::new();
        while let Some(part) = parts.next().await {
            match part? {
                AnswerPart::Text { text, .. } => said.push_str(&text),
                AnswerPart::End(end) => return Ok((said, end)),
            }
        }
        panic!("no end")
    }

    /// One request without retries: its status, its headers and its body.
    async fn post(&self, path: &str, body: &Value) -> (u16, reqwest::header::HeaderMap, Value) {
        // The pipeline's own client sets up cryptography.
        drop(self.llm());
        let client = reqwest::Client::builder().no_proxy().build().expect("client");
        let url = format!("{}{path}", self.url);
        let response = client.post(url).json(body).send().await.expect("answer");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        (status, headers, response.json().await.unwrap_or_default())
    }
}

/// A prompt of the pipeline with one passage.
const PROMPT: &str = "<context>\n<passage 1 from a#0>\nThe keeper of Skerryvore was Alan Dunbar. \
    He liked tea.\n</passage>\n</context>\n\nQuestion: Who was the keeper of Skerryvore?";

/// Scenario: an answer from passages, and one that was given, streamed and whole.
/// Guarantees: both forms say the same, with the server's own counts.
#[tokio::test]
async fn answers_are_the_same_streamed_and_whole_with_usage() {
    let replies = vec![Reply { contains: "Rate".to_owned(), reply: "Score: 4.5".to_owned() }];
    let latency = Latency { inter_token: Duration::from_micros(100), ..Latency::default() };
    let server = Running::start(FakeSettings { replies, latency, ..FakeSettings::default() }).await;
    let (streamed, end) = server.ask(PROMPT, true).await.expect("answer");
    assert!(streamed.contains("Alan Dunbar"), "{streamed}");
    assert_eq!(end.tokens_source, TokensSource::Provider);
    assert!(end.input_tokens.is_some_and(|tokens| tokens > 30));
    assert_eq!(end.finish_reason.as_deref(), Some("stop"));
    let (whole, whole_end) = server.ask(PROMPT, false).await.expect("answer");
    assert_eq!(whole, streamed);
    assert_eq!(whole_end.output_tokens, end.output_tokens);
    assert_eq!(end.cache_read_tokens, Some(0), "a true 0 is kept");
    assert_eq!(server.ask("Rate this.", true).await.expect("reply").0, "Score: 4.5");
    assert_eq!(server.end().await.answered["/chat/completions"], 3);
}

/// Scenario: embeddings through the pipeline's client, in base64 and with a width of choice, and a
/// rerank.
/// Guarantees: vectors are those of the hashing embedder, so that searches find what they should.
#[tokio::test]
async fn embeddings_and_reranking_mean_something() {
    let server = Running::start(FakeSettings::default()).await;
    let settings = EmbedSettings {
        url: Some(server.url.clone()),
        api_key_env: "RETAKE_TEST_NO_KEY".to_owned(),
        ..EmbedSettings::default()
    };
    let embedder = OpenaiEmbedder::new(&settings, &LimitSettings::default()).expect("embedder");
    let made = embedder.embed(&["a lighthouse", "a keeper"]).await.expect("vectors");
    let own = HashingEmbedder::new(384).expect("embedder");
    for (vector, text) in made.vectors.iter().zip(["a lighthouse", "a keeper"]) {
        let same: f32 = vector.iter().zip(own.vector(text)).map(|(a, b)| a * b).sum();
        assert!(same > 0.9999, "{same}");
    }
    assert_eq!(made.tokens_source, TokensSource::Provider);
    let body = json!({"model": "m", "input": "x", "dimensions": 4, "encoding_format": "base64"});
    let (_, _, coded) = server.post("/embeddings", &body).await;
    assert_eq!(coded["data"][0]["embedding"].as_str().map(str::len), Some(24));
    let body = json!({"query": "who was the keeper of the lighthouse", "top_n": 2, "return_documents": true,
        "documents": ["tea and sugar", {"text": "the lighthouse keeper"}, "a lighthouse"]});
    let (status, _, ranked) = server.post("/rerank", &body).await;
    assert_eq!((status, ranked["results"].as_array().map(Vec::len)), (200, Some(2)));
    assert_eq!(ranked["results"][0]["index"], 1, "{ranked}");
    assert_eq!(ranked["results"][0]["document"]["text"], "the lighthouse keeper");
}

/// Scenario: a question whose candidates a service reranks, in both protocols; then by one that
/// fails a third of all calls, one that is over its limit, and one that always fails.
/// Guarantees: the service's order is the answer's, both scores stay, tokens and retries are on the
/// span of the step; what may pass is outlived, and what does not fails the question with its class.
#[tokio::test]
async fn a_service_reranks_what_was_found() {
    capture::install();
    let backend = Backend::sqlite();
    let found = engine(&backend, &settings()).await;
    drop(found);
    let ask = |url: String, protocol, id: &'static str| {
        let mut settings = database(&backend, &settings());
        settings.rerank.provider = RerankProvider::Service;
        settings.rerank.url = Some(url);
        settings.rerank.protocol = protocol;
        settings.rerank.candidates = 12;
        settings.rerank.service_batch = 5;
        settings.rerank.api_key_env = "RETAKE_TEST_NO_KEY".to_owned();
        let file = backend.sqlite_file();
        async move {
            let engine = Engine::from_settings(&settings, &file).await.expect("engine");
            let question = "Which paragraph is the second about topic 7?";
            engine.ask(question, options(id), &mut |_| {}).await
        }
    };
    let server = Running::start(FakeSettings::default()).await;
    let cohere =
        ask(server.url.clone(), RerankProtocol::Cohere, "service-a").await.expect("answer");
    let tei = ask(server.url.clone(), RerankProtocol::Tei, "service-b").await.expect("answer");
    assert_eq!(cohere.hits, tei.hits);
    assert_eq!(cohere.hits.len(), 4);
    assert!(cohere.hits.is_sorted_by(|one, other| one.rerank_score >= other.rerank_score));
    assert!(cohere.hits.iter().all(|hit| hit.rerank_score.is_some() && hit.similarity > -1.0));
    let spans = capture::trace("service-a");
    let rerank = &named(&spans, "rerank")[0].fields;
    assert_eq!(rerank["gen_ai.request.model"], "service");
    assert_eq!(rerank["retake.tokens.source"], "provider");
    assert!(rerank["gen_ai.usage.input_tokens"].parse::<u64>().expect("tokens") > 12);
    assert_eq!(server.end().await.answered["/rerank"], 6);

    let failing = FakeSettings {
        failure_rate: 0.34,
        failures: vec![FailureKind::RateLimited, FailureKind::Unavailable, FailureKind::Reset],
        ..FakeSettings::default()
    };
    let server = Running::start(failing).await;
    let retried =
        ask(server.url.clone(), RerankProtocol::Cohere, "service-c").await.expect("answer");
    assert_eq!(retried.hits, cohere.hits);
    let served = server.end().await;
    let failures: u64 = served.failed.values().sum();
    let spans = capture::trace("service-c");
    assert_eq!(named(&spans, "rerank")[0].fields["retake.retries"], failures.to_string());
    assert!(failures > 0, "{served:?}");

    let broken = FakeSettings {
        failure_rate: 1.0,
        failures: vec![FailureKind::BadRequest],
        ..FakeSettings::default()
    };
    let server = Running::start(broken).await;
    let error =
        ask(server.url.clone(), RerankProtocol::Tei, "service-d").await.expect_err("it fails");
    assert_eq!(error.error_type(), "service", "{error}");
    let spans = capture::trace("service-d");
    assert_eq!(named(&spans, "rerank")[0].fields["error.type"], "service");
    assert_eq!(named(&spans, "query")[0].fields["error.type"], "service");
}

/// Scenario: a server that fails half of all requests, in every way that a retry helps.
/// Guarantees: the client gets every answer; two servers of one seed fail the same requests.
#[tokio::test]
async fn failures_are_drawn_by_the_seed_and_outlived_by_retries() {
    let settings = FakeSettings {
        failure_rate: 0.5,
        failures: vec![FailureKind::RateLimited, FailureKind::Reset],
        ..FakeSettings::default()
    };
    let mut all = Vec::new();
    for _ in 0..2 {
        let server = Running::start(settings.clone()).await;
        let mut retries = Vec::new();
        for n in 0..6 {
            let asked = server.ask(&format!("Question {n}?"), n % 2 == 0).await;
            retries.push(asked.map(|(_, end)| end.retries).map_err(|error| error.to_string()));
        }
        let served = server.end().await;
        assert!(served.failed.values().sum::<u64>() > 0, "{served:?}");
        all.push((retries, served));
    }
    assert_eq!(all[0], all[1]);
}

/// Scenario: each kind of failure, without retries.
/// Guarantees: it looks like what it is named after, and never like a short answer.
#[tokio::test]
async fn every_failure_is_seen_as_one() {
    for (kind, expected) in [
        (FailureKind::BadRequest, "it answered 400"),
        (FailureKind::Cut, ""),
        (FailureKind::Garbage, ""),
    ] {
        for stream in [true, false] {
            let settings =
                FakeSettings { failure_rate: 1.0, failures: vec![kind], ..FakeSettings::default() };
            let server = Running::start(settings).await;
            let error = server.ask(PROMPT, stream).await.expect_err(kind.as_str());
            assert!(error.to_string().contains(expected), "{kind:?}: {error}");
            assert_eq!(server.end().await.failed[kind.as_str()], 1);
        }
    }
}

/// Scenario: more requests than a limit of ten a minute allows at once.
/// Guarantees: what is over it gets 429 and is told how long to wait, in both headers.
#[tokio::test]
async fn a_limit_is_answered_with_the_time_to_wait() {
    let limits = LimitSettings { requests_per_minute: 10, ..LimitSettings::default() };
    let server = Running::start(FakeSettings { limits, ..FakeSettings::default() }).await;
    let body = json!({"model": "m", "input": "x"});
    assert_eq!(server.post("/embeddings", &body).await.0, 200);
    let (status, headers, error) = server.post("/embeddings", &body).await;
    assert_eq!(status, 429);
    let number = |name: &str| headers[name].to_str().unwrap().parse::<u64>().unwrap();
    assert!((1..=6).contains(&number("retry-after")), "{headers:?}");
    assert!(number("retry-after-ms") <= 6_001);
    assert!(error["error"]["message"].as_str().unwrap().contains("rate limit"));
    assert_eq!(server.end().await.rate_limited, 1);
}

/// Scenario: requests that are no good, and settings that cannot work.
/// Guarantees: each is refused with a reason.
#[tokio::test]
async fn what_cannot_be_answered_is_refused() {
    let server = Running::start(FakeSettings::default()).await;
    for (path, body, status) in [
        ("/chat/completions", json!({"messages": []}), 400),
        ("/chat/completions", json!({"messages": [{"content": "x"}]}), 400),
        ("/embeddings", json!({"input": [1]}), 400),
        ("/embeddings", json!({"input": "x", "dimensions": 0}), 400),
        ("/rerank", json!({"query": "x"}), 400),
        ("/images", json!({}), 404),
    ] {
        let (found, _, error) = server.post(path, &body).await;
        assert_eq!(found, status, "{path} {body}");
        assert!(error["error"]["message"].is_string());
    }
    assert_eq!(server.end().await.refused, 6);
    let everywhere = FakeSettings { listen: ([0, 0, 0, 0], 0).into(), ..FakeSettings::default() };
    let error = FakeServer::bind(everywhere).await.expect_err("refused").to_string();
    assert!(error.contains("loopback only"), "{error}");
    let rate = FakeSettings { failure_rate: 1.5, ..FakeSettings::default() };
    assert!(FakeServer::bind(rate).await.is_err());
}
