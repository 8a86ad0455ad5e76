//! Tests of how answers are made of passages.

use retake_schemas::event::TokensSource;
use serde_json::json;

use super::*;
use crate::answer::prompt::parse;
use crate::answer::prompt::tests::hit;
use crate::answer::scripted::Scripted;

/// Passages of some 60 tokens each, so that three or four fit a window of 600.
fn passages(count: usize) -> Vec<Hit> {
    (0..count)
        .map(|n| {
            let words: Vec<String> = (0..12).map(|word| format!("p{n}w{word}")).collect();
            hit(&format!("d{n}#0"), &words.join(" "))
        })
        .collect()
}

fn settings(mode: SynthesisMode, window: u32) -> RagSettings {
    let mut settings = RagSettings::default();
    settings.synthesize.mode = mode;
    settings.synthesize.context_window = window;
    settings.synthesize.max_tokens = 100;
    settings
}

/// Answers with the numbers of the passages it sees, after those of the draft.
fn numbers() -> Scripted {
    Scripted::new(|request| {
        let prompt = parse(request);
        let seen = prompt.passages.iter().map(|passage| {
            let first = passage.split_whitespace().next().unwrap_or_default();
            first.split('w').next().unwrap_or_default().to_owned()
        });
        prompt.draft.into_iter().chain(seen).collect::<Vec<_>>().join("+")
    })
}

async fn synthesized(
    llm: &Scripted,
    settings: &RagSettings,
    hits: &[Hit],
    schema: Option<&Json>,
) -> (Result<Written, PipelineError>, Vec<String>) {
    let mut heard = Vec::new();
    let span = Span::none();
    let job = Job {
        caller: Caller { llm, source: None, cutoff: None },
        settings,
        question: "Which?",
        hits,
        schema,
        span: &span,
    };
    let written = synthesize(job, &mut |part: &str| heard.push(part.to_owned())).await;
    (written, heard)
}

async fn answer(mode: SynthesisMode, window: u32, hits: usize) -> (Written, Vec<String>, Scripted) {
    let llm = numbers();
    let (written, heard) = synthesized(&llm, &settings(mode, window), &passages(hits), None).await;
    let written = written.expect("answer");
    assert_eq!(heard.concat(), written.text, "what is heard is the answer");
    check_requests(&llm, window, 100);
    (written, heard, llm)
}

/// Guarantees: no prompt is larger than the window with its answer.
fn check_requests(llm: &Scripted, window: u32, answer: u64) {
    for request in llm.requests.lock().iter() {
        let tokens = Window::new("gpt-4", 0, 0).request_tokens(request);
        assert!(window == 0 || tokens + answer <= u64::from(window), "{tokens} of {window}");
    }
}

/// Scenario: passages that fit one prompt.
/// Guarantees: one call, streamed, with all passages, in the modes that need no more.
#[tokio::test]
async fn what_fits_one_prompt_is_one_streamed_call() {
    use SynthesisMode::{Compact, SimpleSummarize, TreeSummarize};
    for mode in [Compact, SimpleSummarize, TreeSummarize] {
        let (written, _, llm) = answer(mode, 8192, 4).await;
        assert_eq!(written.text, "p0+p1+p2+p3", "{mode:?}");
        assert_eq!((written.spent.calls, written.passages_cut), (1, 0));
        assert!(llm.requests.lock()[0].stream);
    }
}

/// Scenario: more passages than the window holds; LlamaIndex's simple_summarize overflows here.
/// Guarantees: it sends what fits, best first, and says how many did not.
#[tokio::test]
async fn simple_summarize_never_overflows_the_window() {
    let (written, _, llm) = answer(SynthesisMode::SimpleSummarize, 500, 12).await;
    assert_eq!(llm.requests.lock().len(), 1);
    let kept = written.text.split('+').count() as u64;
    assert!((2..12).contains(&kept), "{}", written.text);
    assert_eq!(written.passages_cut, 12 - kept);
    let mut long = passages(1);
    long[0].chunk.text = "word ".repeat(5_000);
    let llm = numbers();
    let (written, _) =
        synthesized(&llm, &settings(SynthesisMode::SimpleSummarize, 500), &long, None).await;
    assert_eq!(written.expect("answer").passages_cut, 1);
    check_requests(&llm, 500, 100);
}

/// Guarantees: compact needs fewer calls than refine; both see every passage, in order; only the
/// last call is streamed.
#[tokio::test]
async fn refine_asks_for_each_passage_and_compact_for_as_many_as_fit() {
    let all = (0..8).map(|n| format!("p{n}")).collect::<Vec<_>>().join("+");
    let (refined, _, _) = answer(SynthesisMode::Refine, 700, 8).await;
    assert_eq!((refined.text.as_str(), refined.spent.calls), (all.as_str(), 8));
    let (compact, heard, llm) = answer(SynthesisMode::Compact, 500, 8).await;
    assert_eq!(compact.text, all);
    assert!((2..8).contains(&compact.spent.calls), "{} calls", compact.spent.calls);
    let streamed: Vec<bool> = llm.requests.lock().iter().map(|request| request.stream).collect();
    assert_eq!(streamed.iter().filter(|is_streamed| **is_streamed).count(), 1);
    assert_eq!(streamed.last(), Some(&true));
    assert_eq!(heard.concat(), all, "drafts are not heard");
    assert_eq!(compact.spent.input_tokens, Some(10 * compact.spent.calls as i64));
    assert_eq!(compact.spent.tokens_source, TokensSource::Provider);
}

/// Guarantees: a tree answers from answers until one is left; every passage is in it.
#[tokio::test]
async fn a_tree_comes_to_its_root() {
    let (written, _, llm) = answer(SynthesisMode::TreeSummarize, 500, 24).await;
    // The answers of a level are the passages of the next, so each root number is `pN`.
    assert!(written.text.starts_with("p0"), "{}", written.text);
    assert!(llm.requests.lock().len() > 5);
    let leaves: Vec<String> =
        llm.requests.lock().iter().flat_map(|request| parse(request).passages).collect();
    for n in 0..24 {
        assert!(leaves.iter().any(|leaf| leaf.starts_with(&format!("p{n}w0 "))), "p{n}");
    }
    // Answers as long as the window never become fewer.
    let llm = Scripted::new(|_| "word ".repeat(300));
    let settings = settings(SynthesisMode::TreeSummarize, 500);
    let (error, _) = synthesized(&llm, &settings, &passages(24), None).await;
    let error = error.expect_err("no root").to_string();
    assert!(error.contains("raise synthesize.context_window"), "{error}");
}

#[tokio::test]
async fn accumulate_answers_from_each_passage_in_order() {
    let (written, heard, llm) = answer(SynthesisMode::Accumulate, 8192, 3).await;
    assert_eq!(
        written.text,
        "Response 1: p0\n---------------------\nResponse 2: p1\n---------------------\n\
         Response 3: p2"
    );
    assert_eq!((heard.len(), llm.requests.lock().len()), (3, 3));
    let (compact, _, _) = answer(SynthesisMode::CompactAccumulate, 8192, 3).await;
    assert_eq!(compact.text, "Response 1: p0+p1+p2");
}

#[tokio::test]
async fn what_needs_no_model_calls_none() {
    let (written, _, llm) = answer(SynthesisMode::NoText, 8192, 3).await;
    assert_eq!((written.text.as_str(), llm.requests.lock().len()), ("", 0));
    let (written, heard, llm) = answer(SynthesisMode::ContextOnly, 8192, 2).await;
    assert!(written.text.starts_with("p0w0 ") && written.text.contains("\n\np1w0 "));
    assert_eq!((heard.len(), llm.requests.lock().len()), (1, 0));
    let (_, _, llm) = answer(SynthesisMode::Generation, 8192, 2).await;
    assert_eq!(llm.requests.lock()[0].messages[1].content, "Which?");
}

/// Scenario: no passages were found.
/// Guarantees: every mode ends, with one call at most.
#[tokio::test]
async fn nothing_found_is_still_an_answer() {
    use SynthesisMode::{
        Accumulate, Compact, CompactAccumulate, ContextOnly, Generation, NoText, Refine,
        SimpleSummarize, TreeSummarize,
    };
    for mode in [
        Compact,
        Refine,
        SimpleSummarize,
        TreeSummarize,
        Accumulate,
        CompactAccumulate,
        Generation,
        NoText,
        ContextOnly,
    ] {
        let (_, _, llm) = answer(mode, 8192, 0).await;
        assert!(llm.requests.lock().len() <= 1, "{mode:?}");
    }
}

/// Guarantees: the order and the cost of the calls are told by the settings that failed.
#[tokio::test]
async fn a_window_that_is_too_small_calls_nobody() {
    let llm = numbers();
    for mode in [SynthesisMode::Compact, SynthesisMode::Refine, SynthesisMode::Accumulate] {
        let (error, _) = synthesized(&llm, &settings(mode, 180), &passages(2), None).await;
        assert_eq!(error.expect_err("too small").error_type(), "configuration");
    }
    assert!(llm.requests.lock().is_empty());
}

/// Scenario: a model that answers in prose first, and right when told so; one that never does.
/// Guarantees: the reason is told to the model once; then it is an error.
#[tokio::test]
async fn a_wrong_form_is_asked_for_once_more_and_then_an_error() {
    let schema =
        json!({"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}});
    let llm = Scripted::new(|request| match request.messages.len() {
        2 => "It is seven.".to_owned(),
        _ => "{\"n\": 7}".to_owned(),
    });
    let settings = settings(SynthesisMode::Compact, 8192);
    let (written, heard) = synthesized(&llm, &settings, &passages(1), Some(&schema)).await;
    let written = written.expect("answer");
    assert_eq!(written.structured, Some(json!({"n": 7})));
    assert_eq!((heard.concat().as_str(), written.spent.calls), ("{\"n\": 7}", 2));
    {
        let requests = llm.requests.lock();
        assert_eq!(requests[0].response_schema.as_ref(), Some(&schema));
        assert!(!requests[0].stream);
        assert!(requests[1].messages[3].content.contains("not JSON"));
    }
    let never = Scripted::new(|_| "{\"n\": \"seven\"}".to_owned());
    let (error, heard) = synthesized(&never, &settings, &passages(1), Some(&schema)).await;
    let error = error.expect_err("wrong form");
    assert!(error.to_string().contains("$.n: must be of type"), "{error}");
    assert!(heard.is_empty(), "nothing wrong is heard");
    assert_eq!(never.requests.lock().len(), 2);
}

#[tokio::test]
async fn several_answers_have_no_form() {
    let settings = settings(SynthesisMode::Accumulate, 8192);
    let llm = numbers();
    let (error, _) = synthesized(&llm, &settings, &passages(1), Some(&json!({}))).await;
    assert_eq!(error.expect_err("refused").error_type(), "configuration");
}
