//! Embeddings of an OpenAI-compatible service.
//!
//! Nothing a service says is taken on trust: the number of vectors, their order, their width, and
//! every figure in them are checked before they can reach a store.

use std::sync::OnceLock;
use std::time::Duration;

use async_trait::async_trait;
use retake_schemas::event::TokensSource;
use retake_schemas::settings::{EmbedSettings, LimitSettings};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{Embedder, Embeddings, normalized};
use crate::error::PipelineError;
use crate::http::{Endpoint, Service};
use crate::usage::Usage;
use crate::usage::estimate::Estimator;

/// The HTTP embedder.
#[derive(Debug)]
pub struct OpenaiEmbedder {
    service: Service,
    model: String,
    /// Known after the first call.
    dim: OnceLock<usize>,
}

impl OpenaiEmbedder {
    /// An embedder of the service in the settings. Calls nobody.
    ///
    /// # Errors
    /// [`PipelineError::Configuration`] for a URL or key that cannot work.
    pub fn new(settings: &EmbedSettings, limits: &LimitSettings) -> Result<Self, PipelineError> {
        let service = Service::new(&Endpoint {
            setting: "embed.url",
            url: settings.url.as_deref(),
            api_key_env: &settings.api_key_env,
            timeout: TIMEOUT,
            limits,
        })?;
        let model = if settings.model.is_empty() { MODEL } else { &settings.model }.to_owned();
        Ok(Self { service, model, dim: OnceLock::new() })
    }

    fn failed(&self, reason: &str) -> PipelineError {
        self.service.error(None, reason)
    }

    /// Puts the vectors in the order of the texts and checks each.
    fn vectors(&self, items: Vec<Item>, count: usize) -> Result<Vec<Vec<f32>>, PipelineError> {
        if items.len() != count {
            let reason = format!("it returned {} vectors for {count} texts", items.len());
            return Err(self.failed(&reason));
        }
        let mut vectors = vec![Vec::new(); count];
        for (position, item) in items.into_iter().enumerate() {
            let index = item.index.unwrap_or(position);
            let place =
                vectors.get_mut(index).filter(|place| place.is_empty()).ok_or_else(|| {
                    self.failed(&format!("it returned index {index} twice or beyond {count} texts"))
                })?;
            *place = self.checked(item.embedding, index)?;
        }
        Ok(vectors)
    }

    fn checked(&self, vector: Vec<f32>, index: usize) -> Result<Vec<f32>, PipelineError> {
        let width = vector.len();
        let expected = *self.dim.get_or_init(|| width);
        if width == 0 || width != expected {
            let reason = format!("it returned a vector of {width} numbers, others have {expected}");
            return Err(self.failed(&reason));
        }
        normalized(vector).ok_or_else(|| PipelineError::NotFinite {
            action: "embed texts",
            item: format!("text {index} of the batch"),
        })
    }
}

#[async_trait]
impl Embedder for OpenaiEmbedder {
    fn provider(&self) -> &str {
        "openai"
    }

    fn model(&self) -> &str {
        &self.model
    }

    /// Two services may mean different models by one name.
    fn fingerprint(&self) -> String {
        format!("{} at {}", self.model, self.service.host())
    }

    fn dim(&self) -> Option<usize> {
        self.dim.get().copied()
    }

    async fn embed(&self, texts: &[&str]) -> Result<Embeddings, PipelineError> {
        if texts.is_empty() {
            return Ok(Embeddings {
                dim: self.dim().unwrap_or_default(),
                vectors: Vec::new(),
                tokens: Some(0),
                tokens_source: TokensSource::Tokenizer,
                retries: 0,
            });
        }
        let request = Request { model: &self.model, input: texts, encoding_format: "float" };
        let estimator = Estimator::for_model(&self.model);
        let estimate = || texts.iter().map(|text| estimator.text(text).tokens).sum::<u64>();
        let expected = if self.service.limits_tokens() { estimate() } else { 0 };
        let mut answered = self.service.post("embeddings", &request, expected).await?;
        let body = self.service.body(answered.response).await?;
        let response: Response = serde_json::from_slice(&body)
            .map_err(|error| self.failed(&format!("its answer is not understood: {error}")))?;
        let vectors = self.vectors(response.data, texts.len())?;
        let reported = response.usage.as_ref().and_then(Usage::read).and_then(|usage| usage.input);
        let (tokens, tokens_source) = match reported.and_then(|tokens| u64::try_from(tokens).ok()) {
            Some(tokens) => (tokens, TokensSource::Provider),
            None => (estimate(), estimator.source()),
        };
        answered.permit.spent(tokens);
        Ok(Embeddings {
            dim: self.dim().unwrap_or_default(),
            vectors,
            tokens: Some(tokens),
            tokens_source,
            retries: answered.retries,
        })
    }
}

#[derive(Serialize)]
struct Request<'r> {
    model: &'r str,
    input: &'r [&'r str],
    encoding_format: &'static str,
}

#[derive(Deserialize)]
struct Response {
    data: Vec<Item>,
    #[serde(default)]
    usage: Option<Json>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    index: Option<usize>,
    embedding: Vec<f32>,
}

/// Model asked for when no setting names one.
const MODEL: &str = "text-embedding-3-small";
/// Longest one attempt may take: a full batch on a slow CPU server is a matter of seconds.
const TIMEOUT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use wiremock::matchers::{body_partial_json, method, path};
    use wiremock::{Mock, MockServer, ResponseTemplate};

    use super::*;

    async fn embed(
        responses: Vec<ResponseTemplate>,
        texts: &[&str],
    ) -> Result<Embeddings, PipelineError> {
        let server = MockServer::start().await;
        for response in responses {
            Mock::given(method("POST"))
                .and(path("/v1/embeddings"))
                .and(body_partial_json(json!({"model": MODEL, "input": texts})))
                .respond_with(response)
                .up_to_n_times(1)
                .mount(&server)
                .await;
        }
        let settings = EmbedSettings {
            url: Some(format!("{}/v1", server.uri())),
            api_key_env: "RETAKE_TEST_NO_KEY".to_owned(),
            ..EmbedSettings::default()
        };
        OpenaiEmbedder::new(&settings, &LimitSettings::default())?.embed(texts).await
    }

    fn ok(body: Value) -> ResponseTemplate {
        ResponseTemplate::new(200).set_body_json(body)
    }

    /// Scenario: a busy service that then answers out of order with vectors of any length.
    /// Guarantees: vectors are those of their texts, of length 1; count and retry are reported.
    #[tokio::test]
    async fn vectors_are_ordered_by_index_and_normalized() {
        let busy = ResponseTemplate::new(429).insert_header("Retry-After", "0");
        let answer = ok(json!({
            "data": [{"index": 1, "embedding": [0.0, 2.0]}, {"index": 0, "embedding": [3.0, 4.0]}],
            "usage": {"prompt_tokens": 0, "total_tokens": 9}
        }));
        let embeddings = embed(vec![busy, answer], &["a", "b"]).await.expect("vectors");
        assert_eq!(embeddings.vectors, [[0.6, 0.8], [0.0, 1.0]]);
        assert_eq!((embeddings.dim, embeddings.retries), (2, 1));
        // Zero is what the provider said, so zero it is.
        assert_eq!(
            (embeddings.tokens, embeddings.tokens_source),
            (Some(0), TokensSource::Provider)
        );
    }

    /// Scenario: a service that gives no counts, and a model whose tokenizer is known.
    /// Guarantees: that tokenizer counts, and the count says so.
    #[tokio::test]
    async fn without_usage_the_model_s_own_tokenizer_counts() {
        let answer = ok(json!({"data": [{"embedding": [1.0]}]}));
        let embeddings = embed(vec![answer], &["hello world"]).await.expect("vectors");
        assert_eq!(
            (embeddings.tokens, embeddings.tokens_source),
            (Some(2), TokensSource::Tokenizer)
        );
    }

    /// Scenario: answers that are wrong in every way seen in the wild.
    /// Guarantees: a typed error that says what is wrong; nothing wrong is passed on.
    #[tokio::test]
    async fn wrong_answers_are_refused() {
        for (answer, class, expected) in [
            (
                ResponseTemplate::new(200).set_body_string("{\"data\": ["),
                "service",
                "not understood",
            ),
            (ok(json!({"data": [{"embedding": [1.0]}]})), "service", "1 vectors for 2 texts"),
            (
                ok(
                    json!({"data": [{"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [1.0]}]}),
                ),
                "service",
                "index 0 twice",
            ),
            (
                ok(
                    json!({"data": [{"index": 0, "embedding": [1.0]}, {"index": 7, "embedding": [1.0]}]}),
                ),
                "service",
                "index 7 twice or beyond",
            ),
            (
                ok(json!({"data": [{"embedding": [1.0]}, {"embedding": [1.0, 2.0]}]})),
                "service",
                "a vector of 2 numbers, others have 1",
            ),
            (
                ok(json!({"data": [{"embedding": [1.0]}, {"embedding": [0.0]}]})),
                "not_finite",
                "text 1 of the batch",
            ),
        ] {
            let error = embed(vec![answer], &["a", "b"]).await.expect_err(expected);
            assert_eq!(error.error_type(), class);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
