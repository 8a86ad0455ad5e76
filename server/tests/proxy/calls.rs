//! What is recorded of calls that succeed.

use retake_schemas::event::Capture;
use serde_json::{Value as Json, json};

use super::support::{Recorded, Upstream, ask, post};

fn completion() -> Json {
    json!({
        "id": "chatcmpl-1", "model": "m-2024", "object": "chat.completion",
        "choices": [{"index": 0, "finish_reason": "stop",
                     "message": {"role": "assistant", "content": "Paris."}}],
        "usage": {"prompt_tokens": 12, "completion_tokens": 5,
                  "prompt_tokens_details": {"cached_tokens": 8},
                  "completion_tokens_details": {"reasoning_tokens": 3}},
    })
}

/// Scenario: a chat completion that is not streamed.
/// Guarantees: the answer passes unchanged, and the row has what the mapping has columns for.
#[tokio::test]
async fn a_chat_completion_is_recorded() {
    let body = completion().to_string();
    let upstream = Upstream::saying(200, "application/json", body.clone()).await;
    let recorded = Recorded::start(upstream.url(), Capture::Full);
    let question = json!({
        "model": "m", "messages": [{"role": "user", "content": "Capital of France?"}],
        "temperature": 0.5, "max_completion_tokens": 77, "top_p": 0.9, "seed": 3,
    });
    let mut answer = post(recorded.address, "/v1/chat/completions?page=2", &question).await;
    assert_eq!((answer.status, answer.text().await.unwrap()), (200, body));
    assert_eq!(answer.headers["content-type"], "application/json");

    let seen = upstream.seen();
    assert_eq!(seen[0].line, "POST /v1/chat/completions?page=2");
    assert_eq!(seen[0].body, question.to_string());
    assert_eq!(seen[0].headers["authorization"], "Bearer some-odd-key");
    assert_eq!(seen[0].headers["host"], upstream.address.to_string());

    let rows = recorded.end().await;
    let span = rows.span();
    assert_eq!(
        (span.name.as_str(), span.kind.as_str(), span.stage.as_str()),
        ("chat", "llm", "llm")
    );
    assert_eq!((span.status.as_str(), &span.error_type), ("ok", &None));
    assert_eq!(span.operation.as_deref(), Some("chat"));
    assert_eq!(span.model_request.as_deref(), Some("m"));
    assert_eq!(span.model_response.as_deref(), Some("m-2024"));
    assert_eq!(span.finish_reason.as_deref(), Some("stop"));
    assert_eq!((span.temperature, span.max_tokens), (Some(0.5), Some(77)));
    assert_eq!((span.input_tokens, span.output_tokens), (Some(12), Some(5)));
    assert_eq!((span.cache_read_tokens, span.reasoning_tokens), (Some(8), Some(3)));
    assert_eq!((span.tokens_source.as_str(), span.ttft_ns), ("provider", None));
    assert_eq!(span.parent_span_id, None);
    assert!(span.duration_ns > 0);
    assert_eq!(rows.content(&span.input_ref), Some(question["messages"].to_string().as_str()));
    assert_eq!(rows.content(&span.output_ref), Some("Paris."));
    assert_eq!(rows.attribute("http.response.status_code"), Some(json!(200)));
    assert_eq!(rows.attribute("server.port"), Some(json!(upstream.address.port())));
    assert_eq!(rows.attribute("gen_ai.request.seed"), Some(json!(3)));
    assert!(rows.tokens.is_empty());
    assert_eq!((rows.report.recorded, rows.report.unread, rows.report.passed), (1, 0, 0));
}

/// Scenario: a batch of embeddings as lists and in base64, and a completion of the old kind.
/// Guarantees: counts and dimensions are recorded, vectors are not.
#[tokio::test]
async fn embeddings_are_counted() {
    let vectors = json!({
        "data": [{"embedding": [0.125, 0.25, 0.5]}, {"embedding": [1.5, 2.5, 3.5]}],
        "model": "e-1", "usage": {"prompt_tokens": 7, "total_tokens": 7},
    });
    let upstream = Upstream::saying(200, "application/json", vectors.to_string()).await;
    let recorded = Recorded::start(upstream.url(), Capture::Full);
    let question = json!({"model": "e", "input": ["one", "two"], "dimensions": 3});
    assert_eq!(
        post(recorded.address, "/v1/embeddings", &question).await.text().await.unwrap(),
        vectors.to_string()
    );
    let rows = recorded.end().await;
    let span = rows.span();
    assert_eq!((span.kind.as_str(), span.stage.as_str()), ("embedding", "embed"));
    assert_eq!((span.embedding_count, span.embedding_dim), (Some(2), Some(3)));
    assert_eq!((span.batch_size, span.input_tokens, span.output_tokens), (Some(2), Some(7), None));
    assert_eq!(rows.content(&span.input_ref), Some("[\"one\",\"two\"]"));
    assert_eq!(span.output_ref, None);
    assert!(
        !rows.payloads.iter().any(|p| p.content.as_deref().unwrap_or_default().contains("0.125"))
    );
}

/// Scenario: documents are reranked.
/// Guarantees: those given and those kept are rows, by the same ids, with their scores.
#[tokio::test]
async fn reranked_documents_are_recorded() {
    let results = json!({
        "id": "r", "model": "rr-1",
        "results": [{"index": 2, "relevance_score": 0.9, "document": {"text": "c"}},
                    {"index": 0, "relevance_score": 0.25}],
        "usage": {"total_tokens": 30},
    });
    let upstream = Upstream::saying(200, "application/json", results.to_string()).await;
    for path in ["/v1/rerank", "/rerank"] {
        let recorded = Recorded::start(upstream.url(), Capture::Full);
        let question = json!({"model": "rr", "query": "q", "documents": ["a", {"text": "b"}, "c"], "top_n": 2});
        post(recorded.address, path, &question).await.text().await.unwrap();
        let rows = recorded.end().await;
        let span = rows.span();
        assert_eq!((span.kind.as_str(), span.stage.as_str()), ("reranker", "rerank"));
        assert_eq!(
            (span.top_k, span.document_count, span.input_tokens),
            (Some(2), Some(2), Some(30))
        );
        assert_eq!(rows.content(&span.input_ref), Some("q"));
        let found: Vec<_> = rows
            .documents
            .iter()
            .map(|d| {
                (
                    d.role.as_str(),
                    d.rank,
                    d.document_id.as_str(),
                    d.score,
                    rows.content(&d.content_ref),
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                ("rerank_input", 0, "0", None, Some("a")),
                ("rerank_input", 1, "1", None, Some("b")),
                ("rerank_input", 2, "2", None, Some("c")),
                ("rerank_output", 0, "2", Some(0.9), Some("c")),
                ("rerank_output", 1, "0", Some(0.25), None),
            ]
        );
    }
}

/// Scenario: a response, a completion of the old kind, and a chat completion that calls tools.
/// Guarantees: each is read by its own shape.
#[tokio::test]
async fn other_shapes_of_answers_are_read() {
    let usage = json!({"input_tokens": 4, "output_tokens": 2});
    let tools =
        json!([{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]);
    for (path, question, answer, operation, reason, input, output) in [
        (
            "/v1/responses",
            json!({"model": "m", "instructions": "Be brief.", "input": "Hi"}),
            json!({"status": "completed", "model": "m-1", "usage": usage, "output": [
                {"type": "reasoning", "summary": []},
                {"type": "message", "content": [{"type": "output_text", "text": "Hello"}]}]}),
            "chat",
            "completed",
            "{\"instructions\":\"Be brief.\",\"input\":\"Hi\"}",
            "Hello",
        ),
        (
            "/v1/completions",
            json!({"model": "m", "prompt": "Once"}),
            json!({"model": "m-1", "usage": usage,
                   "choices": [{"text": " upon", "finish_reason": "length"}]}),
            "text_completion",
            "length",
            "Once",
            " upon",
        ),
        (
            "/openai/v1/chat/completions",
            json!({"model": "m", "messages": [1]}),
            json!({"model": "m-1", "usage": usage, "choices": [{"finish_reason": "tool_calls",
                   "message": {"content": null, "tool_calls": tools}}]}),
            "chat",
            "tool_calls",
            "[1]",
            &format!("[{}]", json!({"content": null, "tool_calls": tools})),
        ),
    ] {
        let upstream = Upstream::saying(200, "application/json", answer.to_string()).await;
        let recorded = Recorded::start(upstream.url(), Capture::Full);
        post(recorded.address, path, &question).await.text().await.unwrap();
        let rows = recorded.end().await;
        let span = rows.span();
        assert_eq!(span.operation.as_deref(), Some(operation), "{path}");
        assert_eq!(span.model_response.as_deref(), Some("m-1"), "{path}");
        assert_eq!(span.finish_reason.as_deref(), Some(reason), "{path}");
        assert_eq!((span.input_tokens, span.output_tokens), (Some(4), Some(2)), "{path}");
        assert_eq!(rows.content(&span.input_ref), Some(input), "{path}");
        assert_eq!(rows.content(&span.output_ref), Some(output), "{path}");
    }
}

/// Scenario: a program that is traced itself calls, and one whose header is garbage.
/// Guarantees: the call is a part of the program's trace, and the upstream's spans of the call's;
/// garbage passes as it is and begins a trace of its own.
#[tokio::test]
async fn a_call_belongs_to_the_trace_of_its_program() {
    let upstream = Upstream::saying(200, "application/json", completion().to_string()).await;
    let recorded = Recorded::start(upstream.url(), Capture::Digest);
    let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let garbage = format!("00-{trace}-zzz-01");
    for value in [format!("00-{trace}-{span}-01"), garbage.clone()] {
        let headers = [("traceparent", value.as_str()), ("tracestate", "a=b")];
        let line = "POST /v1/chat/completions";
        ask(recorded.address, line, &headers, "{}").await.text().await.unwrap();
    }
    let rows = recorded.end().await;
    assert_eq!(rows.spans.len(), 2);
    let seen = upstream.seen();
    let ours = rows.spans.iter().find(|row| row.trace_id == trace).expect("the program's trace");
    assert_eq!(ours.parent_span_id.as_deref(), Some(span));
    assert_eq!(seen[0].headers["traceparent"], format!("00-{trace}-{}-01", ours.span_id));
    assert_eq!(seen[0].headers["tracestate"], "a=b");
    let other = rows.spans.iter().find(|row| row.trace_id != trace).expect("its own trace");
    assert_eq!(other.parent_span_id, None);
    assert_eq!(seen[1].headers["traceparent"], garbage);
}
