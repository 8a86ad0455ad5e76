//! Reranking by a service over HTTP.
//!
//! Two protocols are spoken: that of Cohere, which Jina and vLLM speak too (`documents`, and
//! `relevance_score` in `results`), and that of Text Embeddings Inference (`texts`, and a bare list
//! of `score`). An answer in either form is understood, whichever was asked for. A batch that fails
//! is tried again as every other call of a service is; if it fails for good, so does the step,
//! because passages without a score have no place among those that have one.

use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _};
use retake_schemas::event::TokensSource;
use retake_schemas::settings::{LimitSettings, RerankProtocol, RerankSettings};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{Postprocessor, Processed, Query, best_by_scores};
use crate::document::Hit;
use crate::error::PipelineError;
use crate::http::{Endpoint, Service};
use crate::usage::Usage;
use crate::usage::estimate::Estimator;

/// A reranker behind HTTP.
#[derive(Debug)]
pub struct ServiceReranker {
    service: Service,
    protocol: RerankProtocol,
    model: String,
    batch: usize,
}

/// What a service said of passages.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Relevance {
    /// How relevant each passage is, in the order of the passages; the scale is the service's.
    pub scores: Vec<f64>,
    /// Tokens it read, if it or a tokenizer counted them.
    pub tokens: u64,
    /// Who counted them.
    pub tokens_source: TokensSource,
    /// Attempts after the first, of all calls.
    pub retries: u32,
}

impl ServiceReranker {
    /// A reranker of the service in the settings. Calls nobody.
    ///
    /// # Errors
    /// [`PipelineError::Configuration`] for a URL or key that cannot work.
    pub fn new(settings: &RerankSettings, limits: &LimitSettings) -> Result<Self, PipelineError> {
        let service = Service::new(&Endpoint {
            setting: "rerank.url",
            url: settings.url.as_deref(),
            api_key_env: &settings.api_key_env,
            timeout: Duration::from_millis(settings.timeout_ms),
            limits,
        })?;
        Ok(Self {
            service,
            protocol: settings.protocol,
            model: settings.model.clone(),
            batch: settings.service_batch.max(1),
        })
    }

    /// How relevant each passage is to the question.
    ///
    /// # Errors
    /// [`PipelineError::Service`] if the service fails, or scores other passages than those.
    pub async fn relevance(
        &self,
        question: &str,
        passages: &[&str],
    ) -> Result<Relevance, PipelineError> {
        let mut batches = Vec::new();
        for batch in passages.chunks(self.batch) {
            batches.push(self.batch(question, batch));
        }
        let done: Vec<Relevance> =
            futures::stream::iter(batches).buffered(BATCHES_AT_ONCE).try_collect().await?;
        Ok(done.into_iter().reduce(Relevance::and).unwrap_or_default())
    }

    async fn batch(&self, question: &str, passages: &[&str]) -> Result<Relevance, PipelineError> {
        let estimator = Estimator::for_model(&self.model);
        let estimate = || {
            let texts = std::iter::once(&question).chain(passages);
            texts.map(|text| estimator.text(text).tokens).sum::<u64>()
        };
        let expected = if self.service.limits_tokens() { estimate() } else { 0 };
        let request = Request::new(self.protocol, &self.model, question, passages);
        let mut answered = self.service.post("rerank", &request, expected).await?;
        let body = self.service.body(answered.response).await?;
        let answer: Json = serde_json::from_slice(&body)
            .map_err(|error| self.failed(&format!("its answer is not understood: {error}")))?;
        let scores = self.scores(&answer, passages.len())?;
        let usage = answer.get("usage").and_then(Usage::read);
        let reported = usage.and_then(|usage| usage.input).and_then(|n| u64::try_from(n).ok());
        let (tokens, tokens_source) = match reported {
            Some(tokens) => (tokens, TokensSource::Provider),
            None => (estimate(), estimator.source()),
        };
        answered.permit.spent(tokens);
        Ok(Relevance { scores, tokens, tokens_source, retries: answered.retries })
    }

    /// Puts the scores in the order of the passages and checks that each has one.
    fn scores(&self, answer: &Json, count: usize) -> Result<Vec<f64>, PipelineError> {
        let items = answer.get("results").or_else(|| answer.get("data")).unwrap_or(answer);
        let items: Vec<Item> = Vec::deserialize(items)
            .map_err(|error| self.failed(&format!("its answer is not understood: {error}")))?;
        let mut scores = vec![None; count];
        for Item { index, score } in items {
            let place = scores.get_mut(index).filter(|place| place.is_none()).ok_or_else(|| {
                self.failed(&format!("it scored passage {index} twice or beyond {count} passages"))
            })?;
            if !score.is_finite() {
                return Err(self.failed(&format!("it gave passage {index} no finite score")));
            }
            *place = Some(score);
        }
        let scored: Vec<f64> = scores.into_iter().flatten().collect();
        if scored.len() != count {
            let reason = format!("it scored {} of {count} passages", scored.len());
            return Err(self.failed(&reason));
        }
        Ok(scored)
    }

    fn failed(&self, reason: &str) -> PipelineError {
        self.service.error(None, reason)
    }
}

impl Relevance {
    /// Of these passages and of those that follow them.
    fn and(mut self, next: Self) -> Self {
        self.scores.extend(next.scores);
        Self {
            tokens: self.tokens + next.tokens,
            // Of two counts the less sure one is that of the sum.
            tokens_source: match self.tokens_source {
                TokensSource::Provider => next.tokens_source,
                own => own,
            },
            retries: self.retries + next.retries,
            ..self
        }
    }
}

#[async_trait]
impl Postprocessor for ServiceReranker {
    fn name(&self) -> &str {
        if self.model.is_empty() { "service" } else { &self.model }
    }

    fn is_choosing(&self) -> bool {
        true
    }

    async fn process(&self, query: &Query<'_>, hits: Vec<Hit>) -> Result<Processed, PipelineError> {
        let passages: Vec<&str> = hits.iter().map(|hit| hit.chunk.text.as_str()).collect();
        let Relevance { scores, tokens, tokens_source, retries } =
            self.relevance(query.text, &passages).await?;
        query.span.record("retake.retries", retries);
        if tokens_source != TokensSource::None {
            query.span.record("gen_ai.usage.input_tokens", tokens);
            query.span.record("retake.tokens.source", tokens_source.as_str());
        }
        Ok(best_by_scores(hits, scores, query.keep).into())
    }
}

/// What is sent. A model that is not named is the one the service has.
#[derive(Serialize)]
struct Request<'r> {
    #[serde(skip_serializing_if = "str::is_empty")]
    model: &'r str,
    query: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    documents: Option<&'r [&'r str]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    texts: Option<&'r [&'r str]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_n: Option<usize>,
    /// Of a passage that is too long the beginning is read, instead of none of the batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    truncate: Option<bool>,
}

impl<'r> Request<'r> {
    fn new(
        protocol: RerankProtocol,
        model: &'r str,
        query: &'r str,
        passages: &'r [&'r str],
    ) -> Self {
        match protocol {
            RerankProtocol::Cohere => Self {
                model,
                query,
                documents: Some(passages),
                texts: None,
                top_n: Some(passages.len()),
                truncate: None,
            },
            RerankProtocol::Tei => Self {
                model: "",
                query,
                documents: None,
                texts: Some(passages),
                top_n: None,
                truncate: Some(true),
            },
        }
    }
}

#[derive(Deserialize)]
struct Item {
    index: usize,
    #[serde(alias = "relevance_score")]
    score: f64,
}

/// Enough to keep a service busy; how many it allows is in `limits.concurrency`.
const BATCHES_AT_ONCE: usize = 4;

#[cfg(test)]
mod tests {
    use serde_json::json;
    use wiremock::matchers::{body_partial_json, method, path};
    use wiremock::{Mock, MockServer, ResponseTemplate};

    use super::*;

    fn settings(server: &MockServer, protocol: RerankProtocol) -> RerankSettings {
        RerankSettings {
            url: Some(format!("{}/v1/", server.uri())),
            protocol,
            model: "ranker".to_owned(),
            api_key_env: "RETAKE_TEST_NO_KEY".to_owned(),
            service_batch: 2,
            ..RerankSettings::default()
        }
    }

    async fn relevance(
        settings: &RerankSettings,
        passages: &[&str],
    ) -> Result<Relevance, PipelineError> {
        let reranker = ServiceReranker::new(settings, &LimitSettings::default()).unwrap();
        reranker.relevance("who?", passages).await
    }

    /// Scenario: five passages in batches of two, answered best first.
    /// Guarantees: requests are as the protocol has them, and every score is its passage's.
    #[tokio::test]
    async fn batches_come_back_in_the_order_of_the_passages() {
        let server = MockServer::start().await;
        for (documents, results) in [
            (
                json!(["a", "b"]),
                json!([{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]),
            ),
            (
                json!(["c", "d"]),
                json!([{"index": 0, "relevance_score": 0.7}, {"index": 1, "relevance_score": -3}]),
            ),
            (
                json!(["e"]),
                json!([{"index": 0, "relevance_score": 0.5, "document": {"text": "e"}}]),
            ),
        ] {
            let count = documents.as_array().map(Vec::len);
            let asked =
                json!({"model": "ranker", "query": "who?", "documents": documents, "top_n": count});
            let answer =
                json!({"results": results, "usage": {"prompt_tokens": 7, "total_tokens": 7}});
            Mock::given(method("POST"))
                .and(path("/v1/rerank"))
                .and(body_partial_json(asked))
                .respond_with(ResponseTemplate::new(200).set_body_json(answer))
                .mount(&server)
                .await;
        }
        let settings = settings(&server, RerankProtocol::Cohere);
        let found = relevance(&settings, &["a", "b", "c", "d", "e"]).await.unwrap();
        assert_eq!(found.scores, [0.1, 0.9, 0.7, -3.0, 0.5]);
        assert_eq!((found.tokens, found.tokens_source), (21, TokensSource::Provider));
        assert_eq!(relevance(&settings, &[]).await.unwrap(), Relevance::default());
    }

    /// Guarantees: the other protocol's request has no field of the first, and its bare list is read.
    #[tokio::test]
    async fn a_bare_list_of_scores_is_understood() {
        let server = MockServer::start().await;
        Mock::given(path("/v1/rerank"))
            .and(wiremock::matchers::body_json(
                json!({"query": "who?", "texts": ["a", "b"], "truncate": true}),
            ))
            .respond_with(ResponseTemplate::new(200).set_body_json(json!([
                {"index": 1, "score": 0.9}, {"index": 0, "score": 0.2}
            ])))
            .mount(&server)
            .await;
        let found = relevance(&settings(&server, RerankProtocol::Tei), &["a", "b"]).await.unwrap();
        assert_eq!(found.scores, [0.2, 0.9]);
        assert_ne!(found.tokens_source, TokensSource::Provider, "it counts nothing");
        assert!(found.tokens > 0);
    }

    /// Guarantees: a service that scores other passages than it was given, or none, is an error of
    /// the service; nothing is ranked by a guess.
    #[tokio::test]
    async fn scores_of_other_passages_are_refused() {
        for (answer, said) in [
            (json!({"results": [{"index": 0, "relevance_score": 1}]}), "1 of 2 passages"),
            (json!([{"index": 0, "score": 1}, {"index": 0, "score": 2}]), "passage 0 twice"),
            (json!([{"index": 2, "score": 1}]), "beyond 2 passages"),
            (json!([{"index": 0, "score": null}, {"index": 1, "score": 1}]), "not understood"),
            (json!([{"index": -1, "score": 1}]), "not understood"),
            (json!({"error": "none"}), "not understood"),
            (json!([]), "0 of 2 passages"),
        ] {
            let server = MockServer::start().await;
            Mock::given(method("POST"))
                .respond_with(ResponseTemplate::new(200).set_body_json(&answer))
                .mount(&server)
                .await;
            let settings = settings(&server, RerankProtocol::Cohere);
            let error = relevance(&settings, &["a", "b"]).await.unwrap_err();
            assert_eq!(error.error_type(), "service", "{answer}");
            assert!(error.to_string().contains(said), "{answer}: {error}");
        }
    }

    /// Scenario: the service is overloaded once, and then another refuses for good.
    /// Guarantees: what may pass is tried again, what may not is told at once.
    #[tokio::test]
    async fn an_overloaded_service_is_asked_again() {
        let server = MockServer::start().await;
        Mock::given(method("POST"))
            .respond_with(ResponseTemplate::new(503))
            .up_to_n_times(1)
            .mount(&server)
            .await;
        Mock::given(method("POST"))
            .respond_with(
                ResponseTemplate::new(200).set_body_json(json!([{"index": 0, "score": 1}])),
            )
            .mount(&server)
            .await;
        let found = relevance(&settings(&server, RerankProtocol::Tei), &["a"]).await.unwrap();
        assert_eq!((found.scores, found.retries), (vec![1.0], 1));
        let server = MockServer::start().await;
        Mock::given(method("POST"))
            .respond_with(
                ResponseTemplate::new(422).set_body_json(json!({"error": "too many texts"})),
            )
            .mount(&server)
            .await;
        let error = relevance(&settings(&server, RerankProtocol::Tei), &["a"]).await.unwrap_err();
        assert!(error.to_string().contains("too many texts"), "{error}");
        assert_eq!(server.received_requests().await.map(|all| all.len()), Some(1));
    }
}
