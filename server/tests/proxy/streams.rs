//! Answers that are streamed.

use std::sync::Arc;
use std::time::Duration;

use retake_schemas::event::Capture;
use serde_json::json;
use tokio::sync::Mutex;

use super::support::{Answering, Recorded, Rows, Seen, Upstream, post, streamed};

fn piece(text: &str) -> String {
    let delta = json!({"choices": [{"index": 0, "delta": {"content": text}}], "model": "m-1"});
    format!("data: {delta}\n\n")
}

fn question() -> serde_json::Value {
    json!({"model": "m", "messages": [], "stream": true, "stream_options": {"include_usage": true}})
}

/// An upstream whose one answer is fed by the test.
async fn fed() -> (Upstream, tokio::sync::mpsc::Sender<std::io::Result<String>>) {
    let (sender, response) = streamed();
    let response = Arc::new(Mutex::new(Some(response)));
    let upstream = Upstream::start(move |_: Seen| {
        let response = Arc::clone(&response);
        Box::pin(async move { response.lock().await.take().expect("one request") }) as Answering
    })
    .await;
    (upstream, sender)
}

fn token_counts(rows: &Rows) -> Vec<(i64, i64)> {
    rows.tokens.iter().map(|token| (token.token_index, token.token_count)).collect()
}

/// Scenario: an answer of several pieces, each sent only when the client has the one before.
/// Guarantees: nothing is held back; each arrival is a token event with its time, two pieces in
/// one chunk are one arrival; counts come from the last event; the output is the whole text.
#[tokio::test]
async fn pieces_pass_as_they_come_and_have_their_times() {
    let (upstream, sender) = fed().await;
    let recorded = Recorded::start(upstream.url(), Capture::Full);
    let mut answer = post(recorded.address, "/v1/chat/completions", &question()).await;
    assert_eq!(answer.headers["content-type"], "text/event-stream; charset=utf-8");
    let role = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n"
        .to_owned();
    let usage = json!({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}});
    let stop = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
    let pause = Duration::from_millis(20);
    for chunk in [
        role,
        piece("Par"),
        piece("is"),
        [piece(" is"), piece(" it")].concat(),
        format!("data: {stop}\n\ndata: {usage}\n\ndata: [DONE]\n\n"),
    ] {
        sender.send(Ok(chunk.clone())).await.unwrap();
        assert_eq!(answer.frame().await.unwrap().unwrap(), chunk);
        tokio::time::sleep(pause).await;
    }
    drop(sender);
    assert!(answer.frame().await.is_none());
    let rows = recorded.end().await;
    assert_eq!(token_counts(&rows), [(0, 1), (1, 1), (2, 2)]);
    let span = rows.span();
    assert_eq!((span.stream, span.status.as_str()), (Some(true), "ok"));
    assert_eq!(span.finish_reason.as_deref(), Some("stop"));
    assert_eq!((span.input_tokens, span.output_tokens), (Some(9), Some(4)));
    assert_eq!(span.model_response.as_deref(), Some("m-1"));
    assert_eq!(rows.content(&span.output_ref), Some("Paris is it"));
    let times: Vec<_> = rows.tokens.iter().map(|token| token.time_unix_ns).collect();
    let pause_ns = i64::try_from(pause.as_nanos()).unwrap();
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= pause_ns), "{times:?}");
    assert_eq!(span.ttft_ns, Some(times[0] - span.start_unix_ns));
    assert!(span.start_unix_ns + span.duration_ns >= times[2]);
    assert_eq!(rows.report.unread, 0);
}

/// Scenario: pieces of a call of a tool, of hidden reasoning, and of two choices.
/// Guarantees: all of them are arrivals, and the output is what a whole answer would have had.
#[tokio::test]
async fn streamed_tool_calls_are_put_together() {
    let (upstream, sender) = fed().await;
    let recorded = Recorded::start(upstream.url(), Capture::Full);
    let mut answer = post(recorded.address, "/v1/chat/completions", &question()).await;
    for delta in [
        json!({"reasoning_content": "hm"}),
        json!({"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "f", "arguments": "{\"a\""}}]}),
        json!({"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]}),
    ] {
        let chunk = json!({"choices": [{"index": 0, "delta": delta}]});
        sender.send(Ok(format!("data: {chunk}\r\n\r\n"))).await.unwrap();
        answer.frame().await.unwrap().unwrap();
    }
    sender
        .send(
            Ok("data: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"b\"}}]}\n\n".to_owned()),
        )
        .await
        .unwrap();
    drop(sender);
    answer.text().await.unwrap();
    let rows = recorded.end().await;
    assert_eq!(token_counts(&rows), [(0, 1), (1, 1), (2, 1), (3, 1)]);
    let output: serde_json::Value =
        serde_json::from_str(rows.content(&rows.span().output_ref).unwrap()).unwrap();
    assert_eq!(output[0]["tool_calls"][0]["function"]["arguments"], "{\"a\":1}");
    assert_eq!(output[0]["tool_calls"][0]["id"], "c1");
    assert_eq!(output[1]["content"], "b");
}

/// Scenario: a streamed response, whole, and one that fails.
/// Guarantees: its deltas are arrivals, and its last event has the rest.
#[tokio::test]
async fn streamed_responses_are_read() {
    for (last, status, output) in
        [("response.completed", "ok", "Hello"), ("response.failed", "error", "Hel")]
    {
        let (upstream, sender) = fed().await;
        let recorded = Recorded::start(upstream.url(), Capture::Full);
        let question = json!({"model": "m", "input": "Hi", "stream": true});
        let mut answer = post(recorded.address, "/v1/responses", &question).await;
        let end = if status == "ok" {
            json!({"model": "m-1", "status": "completed", "output": [
                {"type": "message", "content": [{"type": "output_text", "text": "Hello"}]}],
                "usage": {"input_tokens": 3, "output_tokens": 2}})
        } else {
            json!({"model": "m-1", "status": "failed", "output": [
                {"type": "message", "content": [{"type": "output_text", "text": "Hel"}]}],
                "error": {"code": "server_error", "message": "it broke"}})
        };
        for event in [
            json!({"type": "response.created", "response": {"status": "in_progress"}}),
            json!({"type": "response.output_text.delta", "delta": "Hel"}),
            json!({"type": "response.output_text.delta", "delta": "lo"}),
            json!({"type": last, "response": end}),
        ] {
            let kind = event["type"].as_str().unwrap();
            sender.send(Ok(format!("event: {kind}\ndata: {event}\n\n"))).await.unwrap();
            answer.frame().await.unwrap().unwrap();
        }
        drop(sender);
        answer.text().await.unwrap();
        let rows = recorded.end().await;
        assert_eq!(token_counts(&rows), [(0, 1), (1, 1)]);
        let span = rows.span();
        assert_eq!(span.status, status);
        assert_eq!(span.model_response.as_deref(), Some("m-1"));
        assert_eq!(rows.content(&span.output_ref), Some(output));
        if status == "ok" {
            assert_eq!((span.input_tokens, span.output_tokens), (Some(3), Some(2)));
        } else {
            assert_eq!(span.error_type.as_deref(), Some("server_error"));
            assert_eq!(span.error_message.as_deref(), Some("it broke"));
        }
    }
}

/// Scenario: the client goes away after two pieces; another goes away when all was said but the
/// stream is still open.
/// Guarantees: the first call is cancelled, its upstream is let go, and what came is recorded; the
/// second is whole.
#[tokio::test]
async fn a_client_that_leaves_cancels_its_call() {
    for (last, status) in [(piece("b"), "cancelled"), ("data: [DONE]\n\n".to_owned(), "ok")] {
        let (upstream, sender) = fed().await;
        let recorded = Recorded::start(upstream.url(), Capture::Full);
        let mut answer = post(recorded.address, "/v1/chat/completions", &question()).await;
        for chunk in [piece("a"), last] {
            sender.send(Ok(chunk)).await.unwrap();
            answer.frame().await.unwrap().unwrap();
        }
        drop(answer);
        // The upstream notices, without having to send.
        tokio::time::timeout(Duration::from_secs(30), sender.closed()).await.expect("let go");
        let rows = recorded.end().await;
        let span = rows.span();
        assert_eq!(span.status, status);
        assert_eq!(span.model_request.as_deref(), Some("m"));
        assert!(rows.content(&span.output_ref).unwrap().starts_with('a'));
        assert_eq!(rows.tokens.len(), if status == "ok" { 1 } else { 2 });
    }
}

/// Scenario: the service fails in the middle of a stream: by an event, and by breaking off.
/// Guarantees: the client sees the same, and the call is recorded with its error.
#[tokio::test]
async fn failures_in_a_stream_are_recorded() {
    let (upstream, sender) = fed().await;
    let recorded = Recorded::start(upstream.url(), Capture::Digest);
    let mut answer = post(recorded.address, "/v1/chat/completions", &question()).await;
    let error = json!({"error": {"message": "overloaded", "type": "server_error"}});
    for chunk in [piece("a"), format!("data: {error}\n\n")] {
        sender.send(Ok(chunk)).await.unwrap();
    }
    drop(sender);
    assert!(answer.text().await.unwrap().contains("overloaded"));
    let rows = recorded.end().await;
    assert_eq!(rows.span().status, "error");
    assert_eq!(rows.span().error_type.as_deref(), Some("server_error"));
    assert_eq!(rows.span().error_message.as_deref(), Some("overloaded"));

    let (upstream, sender) = fed().await;
    let recorded = Recorded::start(upstream.url(), Capture::Digest);
    let mut answer = post(recorded.address, "/v1/chat/completions", &question()).await;
    sender.send(Ok(piece("a"))).await.unwrap();
    answer.frame().await.unwrap().unwrap();
    sender.send(Err(std::io::Error::other("gone"))).await.unwrap();
    assert!(answer.text().await.is_err());
    let rows = recorded.end().await;
    assert_eq!(rows.span().status, "error");
    assert_eq!(rows.span().error_type.as_deref(), Some("broken_stream"));
    assert_eq!(rows.tokens.len(), 1);
}
