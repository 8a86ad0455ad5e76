//! Tests of the HTTP model, against a server of this process.

use serde_json::{Value, json};
use wiremock::matchers::{body_partial_json, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::*;
use crate::answer::prompt::tests::request;

/// What a call gave: text, tokens of each part, and its end or error.
#[derive(Debug)]
struct Outcome {
    text: String,
    counts: Vec<u32>,
    end: Result<AnswerEnd, PipelineError>,
}

async fn ask(is_streamed: bool, response: ResponseTemplate) -> Outcome {
    let server = MockServer::start().await;
    let mut expected = json!({"model": "m", "max_tokens": 512, "seed": 42, "stream": is_streamed});
    if is_streamed {
        expected["stream_options"] = json!({"include_usage": true});
    }
    Mock::given(method("POST"))
        .and(path("/v1/chat/completions"))
        .and(body_partial_json(expected))
        .respond_with(response)
        .mount(&server)
        .await;
    let settings = SynthesizeSettings {
        url: Some(format!("{}/v1", server.uri())),
        model: "m".to_owned(),
        api_key_env: "RETAKE_TEST_NO_KEY".to_owned(),
        ..SynthesizeSettings::default()
    };
    let llm = OpenaiLlm::new(&settings, &LimitSettings::default()).expect("model");
    let mut request = request("hello world", &[]);
    request.model = llm.model().to_owned();
    request.stream = is_streamed;
    let mut outcome =
        Outcome { text: String::new(), counts: Vec::new(), end: Err(PipelineError::Cancelled) };
    let mut stream = match llm.answer(&request).await {
        Ok(stream) => stream,
        Err(error) => return Outcome { end: Err(error), ..outcome },
    };
    while let Some(part) = stream.next().await {
        match part {
            Ok(AnswerPart::Text { text, tokens }) => {
                assert!(matches!(outcome.end, Err(PipelineError::Cancelled)), "text after the end");
                outcome.text.push_str(&text);
                outcome.counts.push(tokens);
            }
            Ok(AnswerPart::End(end)) => outcome.end = Ok(end),
            Err(error) => outcome.end = Err(error),
        }
    }
    outcome
}

fn events(events: &[Value], tail: &str) -> ResponseTemplate {
    let mut body = String::from(": comment\n\n");
    for event in events {
        body.push_str(&format!("data: {event}\r\n\r\n"));
    }
    body.push_str(tail);
    ResponseTemplate::new(200).set_body_raw(body, "text/event-stream")
}

fn delta(text: &str) -> Value {
    json!({"model": "m-1", "choices": [{"index": 0, "delta": {"content": text}}]})
}

fn stop() -> Value {
    json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
}

const LAST_WORD: &str = "data: [DONE]\n\n";

#[tokio::test]
async fn a_streamed_answer_is_read_to_its_end() {
    let usage = json!({"choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 0}}});
    let role = json!({"choices": [{"delta": {"role": "assistant", "content": ""}}]});
    let all = [role, delta("né"), delta("🦀"), stop(), usage];
    let outcome = ask(true, events(&all, LAST_WORD)).await;
    assert_eq!((outcome.text.as_str(), outcome.counts.as_slice()), ("né🦀", &[1, 1][..]));
    let expected = AnswerEnd {
        input_tokens: Some(12),
        output_tokens: Some(3),
        cache_read_tokens: Some(0),
        reasoning_tokens: None,
        tokens_source: TokensSource::Provider,
        finish_reason: Some("stop".to_owned()),
        model: Some("m-1".to_owned()),
        retries: 0,
    };
    assert_eq!(outcome.end.expect("end"), expected);
}

/// Scenario: a server that gives no usage and closes without its last word.
/// Guarantees: the counts are marked as estimates; a reason to end is end enough.
#[tokio::test]
async fn without_usage_counts_are_estimates() {
    let outcome = ask(true, events(&[delta("hello"), delta(" world"), stop()], "")).await;
    let end = outcome.end.expect("end");
    assert_eq!(end.tokens_source, TokensSource::Estimate);
    assert_eq!(end.output_tokens, Some(2));
    assert!(end.input_tokens.is_some_and(|count| count > 10));
}

/// Scenario: the connection ends in the middle of an answer.
/// Guarantees: what came is handed out, then an error; never a silently short answer.
#[tokio::test]
async fn a_stream_that_is_cut_is_an_error() {
    let outcome = ask(true, events(&[delta("half an")], "")).await;
    assert_eq!(outcome.text, "half an");
    let error = outcome.end.expect_err("cut");
    assert!(error.to_string().ends_with("its stream ended before the answer did"), "{error}");
    assert_eq!(error.error_type(), "service");
}

#[tokio::test]
async fn failures_inside_a_stream_are_errors() {
    for (tail, expected) in [
        ("data: {\"choices\": [\n\n", "its answer is not understood"),
        ("data: {\"error\": {\"message\": \"out of memory\"}}\n\n", "out of memory"),
        ("data: {\"error\": \"overloaded\"}\n\n", "overloaded"),
    ] {
        let outcome = ask(true, events(&[delta("a")], tail)).await;
        assert_eq!(outcome.text, "a");
        let error = outcome.end.expect_err(expected);
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn a_whole_answer_is_one_part() {
    let body = json!({"model": "m-1", "choices": [{"message": {"role": "assistant",
        "content": "hello world"}, "finish_reason": "length"}],
        "usage": {"input_tokens": 7, "output_tokens": 9,
                  "output_tokens_details": {"reasoning_tokens": 5}}});
    let outcome = ask(false, ResponseTemplate::new(200).set_body_json(body)).await;
    assert_eq!((outcome.text.as_str(), outcome.counts.as_slice()), ("hello world", &[4][..]));
    let end = outcome.end.expect("end");
    assert_eq!((end.input_tokens, end.output_tokens), (Some(7), Some(9)));
    assert_eq!(end.reasoning_tokens, Some(5));
    assert_eq!(end.finish_reason.as_deref(), Some("length"));
}

#[tokio::test]
async fn whole_answers_that_are_wrong_are_refused() {
    for (response, expected) in [
        (ResponseTemplate::new(200).set_body_string("<html>"), "its answer is not understood"),
        (ResponseTemplate::new(200).set_body_json(json!({"choices": []})), "holds no choice"),
        (
            ResponseTemplate::new(400)
                .set_body_json(json!({"error": {"message": "context too long"}})),
            "it answered 400 Bad Request: context too long",
        ),
    ] {
        let error = ask(false, response).await.end.expect_err(expected);
        assert!(error.to_string().contains(expected), "{error}");
    }
}
