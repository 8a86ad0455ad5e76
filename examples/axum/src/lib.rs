//! An axum service that answers questions, with a span around each request.
//!
//! What makes a run of it worth reading are three things: one root span a request
//! ([`record_requests`]), the names of OpenTelemetry's GenAI conventions on the spans of the work
//! below it, and a status on requests that failed. axum, tower and the handlers know nothing of
//! retake.

use std::time::Duration;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tracing::{Instrument as _, Span, field, info, info_span};

/// The service.
pub fn app() -> Router {
    Router::new()
        .route("/ask", post(ask))
        .layer(from_fn(record_requests))
        // Probes are no requests worth recording: a route added after the layer is not under it.
        .route("/healthz", get(|| async { "alive" }))
}

/// A root span for each request; everything the handler does lies below it.
async fn record_requests(request: Request, next: Next) -> Response {
    let id = request.headers().get("x-request-id").and_then(|value| value.to_str().ok());
    let span = info_span!(
        "POST /ask",
        "openinference.span.kind" = "CHAIN",
        "retake.operation" = "question",
        "retake.request_id" = id,
        "session.id" = field::Empty,
        "input.value" = field::Empty,
        "output.value" = field::Empty,
        "error.type" = field::Empty,
    );
    async {
        let response = next.run(request).await;
        if !response.status().is_success() {
            Span::current().record("error.type", response.status().as_str());
        }
        response
    }
    .instrument(span)
    .await
}

/// What is asked.
#[derive(Debug, Deserialize)]
pub struct Question {
    question: String,
    #[serde(default)]
    session: Option<String>,
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The text.
    pub answer: String,
    /// Where it is from.
    pub sources: Vec<String>,
}

async fn ask(Json(asked): Json<Question>) -> Result<Json<Answer>, StatusCode> {
    let request = Span::current();
    // JSON, so that the request can be replayed.
    request.record("input.value", serde_json::Value::from(asked.question.as_str()).to_string());
    if let Some(session) = &asked.session {
        request.record("session.id", session.as_str());
    }
    let sources = search(&asked.question).await;
    if sources.is_empty() {
        return Err(StatusCode::UNPROCESSABLE_ENTITY);
    }
    let answer = complete(&asked.question, &sources).await;
    request.record("output.value", answer.as_str());
    Ok(Json(Answer { answer, sources }))
}

async fn search(question: &str) -> Vec<String> {
    let span = info_span!(
        "search",
        "gen_ai.operation.name" = "retrieval",
        "gen_ai.request.top_k" = 2,
        "input.value" = question,
    );
    async {
        tokio::time::sleep(Duration::from_millis(8)).await;
        let found = match question.trim() {
            "" => Vec::new(),
            _ => vec![("returns.md#2", 0.81), ("shipping.md#1", 0.64)],
        };
        for (rank, (id, score)) in found.iter().enumerate() {
            info!(target: "retake::document", role = "retrieved", rank, id, score);
        }
        found.into_iter().map(|(id, _)| id.to_owned()).collect()
    }
    .instrument(span)
    .await
}

async fn complete(question: &str, sources: &[String]) -> String {
    let span = info_span!(
        "chat",
        "gen_ai.operation.name" = "chat",
        "gen_ai.request.model" = "small-1",
        "gen_ai.response.model" = "small-1",
    );
    async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let answer = "Fourteen days, free of charge.".to_owned();
        let input = question.len() / 4 + 120 * sources.len();
        info!(target: "retake::usage", source = "provider", input, output = 6);
        answer
    }
    .instrument(span)
    .await
}
