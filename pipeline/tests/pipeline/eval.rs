//! Evaluating question files.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use retake_pipeline::answer::{AnswerPart, ChatRequest, Llm};
use retake_pipeline::error::PipelineError;
use retake_pipeline::eval::judge::Judges;
use retake_pipeline::eval::{EvalItem, EvalProgress, EvalReport, EvalRequest, evaluate};
use retake_pipeline::fake::{FakeSettings, Reply};
use retake_pipeline::ingest::Silent;
use retake_schemas::settings::EvaluatorName;
use tokio_util::sync::CancellationToken;

use crate::capture;
use crate::fake::Running;
use crate::fixtures::{Backend, settings};
use crate::query::engine;

/// Twenty questions; each answer stands in the first paragraph of its document.
fn write_questions(path: &Path) {
    let lines: Vec<String> = (0..20)
        .map(|number| {
            serde_json::json!({
                "id": format!("eval-{number}"),
                "question": format!("What does document number {number} say about subject{number}?"),
                "answer": format!("subject{number}"),
                "references": [{
                    "document": format!("doc{number:03}"),
                    "content": "",
                    "start_index": 12,
                    "end_index": 80,
                }],
            })
            .to_string()
        })
        .collect();
    std::fs::write(path, lines.join("\n")).unwrap();
}

fn read_items(path: &Path) -> Vec<EvalItem> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Scenario: an evaluation is cancelled in the middle, its last line is torn, and it is run again.
/// Guarantees: every question has exactly one result; those that were there are not asked again;
/// quality stands on the span of each query.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_evaluation_goes_on() {
    capture::install();
    let backend = Backend::sqlite();
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(&backend, &settings()).await;
    let request = EvalRequest {
        questions: folder.path().join("questions.jsonl"),
        output: folder.path().join("results.jsonl"),
        workers: 3,
        judges: Judges::default(),
    };
    write_questions(&request.questions);
    let cancel = CancellationToken::new();
    let progress = CancelAt(7, cancel.clone(), std::sync::atomic::AtomicUsize::new(0));
    let first = evaluate(&request, &engine, &progress, cancel).await.unwrap();
    assert!(first.is_cancelled && first.ok >= 7 && first.ok < 20, "{first:?}");

    let bytes = std::fs::read(&request.output).unwrap();
    std::fs::write(&request.output, &bytes[..bytes.len() - 9]).unwrap();
    let second = evaluate(&request, &engine, &Silent, CancellationToken::new()).await.unwrap();
    assert_eq!((second.resumed, second.ok, second.failed), (first.ok - 1, 20, 0));
    assert!(!second.is_cancelled);
    let mut items = read_items(&request.output);
    items.sort_by(|a, b| a.id.cmp(&b.id));
    items.dedup_by(|a, b| a.id == b.id);
    assert_eq!(items.len(), 20);
    assert_eq!(read_items(&request.output).len(), 20);
    assert!(items.iter().all(|item| item.latency_ms.is_some() && item.ttft_ms.is_some()));
    eprintln!("eval: {second:?}");
    assert!(second.hit_rate > Some(0.8) && second.answer_match_rate > Some(0.8), "{second:?}");

    // The first run may have begun this question, too, and cancelled it.
    let spans = capture::trace("eval-3");
    let is_judged = |span: &&capture::SeenSpan| span.fields.contains_key("retake.quality.hit");
    let root = spans.iter().rfind(is_judged).unwrap();
    let item = items.iter().find(|item| item.id == "eval-3").unwrap();
    assert_eq!(root.fields["retake.quality.hit"], item.hit.unwrap().to_string());
    assert_eq!(root.fields["retake.quality.recall"], format!("{:?}", item.recall.unwrap()));

    let third = evaluate(&request, &engine, &Silent, CancellationToken::new()).await.unwrap();
    assert_eq!(third, EvalReport { resumed: 20, ..second });
}

struct CancelAt(usize, CancellationToken, std::sync::atomic::AtomicUsize);

impl EvalProgress for CancelAt {
    fn item_done(&self, _: &EvalItem) {
        if self.2.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1 == self.0 {
            self.1.cancel();
        }
    }
}

/// Scenario: the collection vanishes under the engine.
/// Guarantees: every item fails on its own and says why; the run itself does not.
#[tokio::test]
async fn items_that_fail_are_lines_with_errors() {
    let backend = Backend::sqlite();
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(&backend, &settings()).await;
    let request = EvalRequest {
        questions: folder.path().join("questions.jsonl"),
        output: folder.path().join("results.jsonl"),
        workers: 2,
        judges: Judges::default(),
    };
    write_questions(&request.questions);
    let mut damaged = sqlx_connection(&backend).await;
    sqlx::query("DROP TABLE chunks").execute(&mut damaged).await.unwrap();
    let report = evaluate(&request, &engine, &Silent, CancellationToken::new()).await.unwrap();
    assert_eq!((report.ok, report.failed), (0, 20));
    assert!(read_items(&request.output).iter().all(|item| {
        !item.ok && item.error_type.as_deref() == Some("store") && item.error.is_some()
    }));
}

async fn sqlx_connection(backend: &Backend) -> sqlx::SqliteConnection {
    use sqlx::Connection as _;
    let url = format!("sqlite:{}", backend.sqlite_file().display());
    sqlx::SqliteConnection::connect(&url).await.unwrap()
}

/// A service that judges: what it says depends on the evaluator's instruction.
async fn judging_service() -> Running {
    let reply = |contains: &str, reply: &str| Reply {
        contains: contains.to_owned(),
        reply: reply.to_owned(),
    };
    let replies = vec![
        reply("subject13", "I would rather not say."),
        reply("how right the answer", "Score: 4.5\nReason: it names the subject."),
        reply("follow from the passages", "Verdict: YES"),
    ];
    Running::start(FakeSettings { replies, ..FakeSettings::default() }).await
}

/// Scenario: twenty questions are asked and judged, first by one evaluator, then by two; the judge
/// says something unreadable of one of them.
/// Guarantees: every item is in the counts, also the invalid one; answers lacking a judgement that
/// is asked for now are asked again, the others are not; judging is a trace of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn judgements_that_are_missing_are_made_and_every_item_is_counted() {
    capture::install();
    let backend = Backend::sqlite();
    let folder = tempfile::tempdir().unwrap();
    let server = judging_service().await;
    let mut settings = settings();
    settings.eval.judge_url = Some(server.url.clone());
    settings.eval.judge_model = "judge".to_owned();
    let engine = engine(&backend, &settings).await;
    let mut request = EvalRequest {
        questions: folder.path().join("questions.jsonl"),
        output: folder.path().join("results.jsonl"),
        workers: 4,
        judges: Judges::default(),
    };
    write_questions(&request.questions);
    let mut run = async |evaluators: &[EvaluatorName]| {
        settings.eval.evaluators = evaluators.to_vec();
        request.judges = Judges::from_settings(&settings, &engine.embedder()).unwrap();
        evaluate(&request, &engine, &Silent, CancellationToken::new()).await.unwrap()
    };
    let first = run(&[EvaluatorName::Correctness]).await;
    assert_eq!((first.ok, first.resumed), (20, 0));
    let correctness = &first.judgements["correctness"];
    assert_eq!((correctness.judged, correctness.invalid), (19, 1), "{correctness:?}");
    assert_eq!((correctness.score_mean, correctness.passing_rate), (Some(4.5), Some(1.0)));
    let second = run(&[EvaluatorName::Correctness, EvaluatorName::Faithfulness]).await;
    assert_eq!((second.ok, second.resumed), (20, 0));
    // Passages of other items speak of the subject that the judge will not judge, too.
    let faithfulness = &second.judgements["faithfulness"];
    assert_eq!(faithfulness.judged + faithfulness.invalid, 20, "{faithfulness:?}");
    assert!((1..6).contains(&faithfulness.invalid), "{faithfulness:?}");
    let third = run(&[EvaluatorName::Faithfulness]).await;
    assert_eq!((third.ok, third.resumed), (20, 20));
    assert_eq!(third.judgements, second.judgements);
    let asked = capture::trace("eval-2");
    let judges = capture::named(&asked, "judge");
    assert!(!judges.is_empty() && judges.iter().all(|judge| judge.parent.is_none()));
    let evaluate = capture::named(&asked, "evaluate")[0];
    assert_eq!(evaluate.fields["retake.evaluator"], "correctness");
    assert_eq!(evaluate.fields["retake.evaluation.score"], "4.5");
    let retrieval = first.retrieval.unwrap();
    assert!(retrieval.by_span.recall > 0.5 && retrieval.by_span.precision < 0.8, "{retrieval:?}");
    assert!(retrieval.by_document.unwrap().ndcg > 0.5, "{retrieval:?}");
    server.end().await;
}

/// Scenario: lines that bring their responses, some with passages, some with labels.
/// Guarantees: nothing is asked; what an evaluator lacks is not applicable, not a 0; the judge is
/// measured by the labels.
#[tokio::test]
async fn responses_that_are_brought_along_are_only_judged() {
    let backend = Backend::sqlite();
    let folder = tempfile::tempdir().unwrap();
    let server = judging_service().await;
    let mut settings = settings();
    settings.eval.judge_url = Some(server.url.clone());
    settings.eval.evaluators = vec![EvaluatorName::Correctness, EvaluatorName::Faithfulness];
    let engine = engine(&backend, &settings).await.with_llm(Arc::new(NeverAsked));
    let request = EvalRequest {
        questions: folder.path().join("responses.jsonl"),
        output: folder.path().join("results.jsonl"),
        workers: 2,
        judges: Judges::from_settings(&settings, &engine.embedder()).unwrap(),
    };
    let lines = [
        serde_json::json!({"id": "a", "question": "q?", "response": "r", "answer": "r",
            "labels": {"correctness": 4.5}}),
        serde_json::json!({"id": "b", "question": "q?", "response": "other", "answer": "r",
            "contexts": ["p"], "labels": {"correctness": 2.0, "faithfulness": 1.0}}),
        serde_json::json!({"id": "c", "question": "q?", "response": "r", "contexts": []}),
    ];
    let text: Vec<String> = lines.iter().map(ToString::to_string).collect();
    std::fs::write(&request.questions, text.join("\n")).unwrap();
    let report = evaluate(&request, &engine, &Silent, CancellationToken::new()).await.unwrap();
    assert_eq!((report.ok, report.failed), (3, 0), "{report:?}");
    assert_eq!(report.answer_match_rate, Some(0.5));
    let faithfulness = &report.judgements["faithfulness"];
    assert_eq!((faithfulness.judged, faithfulness.not_applicable), (2, 1));
    let correctness = &report.judgements["correctness"];
    assert_eq!((correctness.judged, correctness.not_applicable), (2, 1));
    let measured = &report.benchmarks["correctness"];
    assert_eq!((measured.labelled, measured.judged), (2, 2));
    assert_eq!((measured.agreement, measured.mean_absolute_error), (Some(0.5), Some(1.25)));
    assert_eq!(measured.pearson, None, "the judge says the same of both");
    assert_eq!(report.benchmarks["faithfulness"].agreement, Some(1.0));
    server.end().await;
}

/// A model that must not be asked, or panics when it is asked about one of the questions.
struct NeverAsked;

#[async_trait]
impl Llm for NeverAsked {
    fn provider(&self) -> &str {
        "test"
    }

    fn model(&self) -> &str {
        "never-asked"
    }

    async fn answer(
        &self,
        request: &ChatRequest,
    ) -> Result<BoxStream<'static, Result<AnswerPart, PipelineError>>, PipelineError> {
        let question = &request.messages[1].content;
        assert!(!question.contains("Question: What does document number 7 "), "seven");
        Err(PipelineError::Cancelled)
    }
}

/// Scenario: the model panics for one question of twenty.
/// Guarantees: that question is a line with its error; the others are not touched, and nobody asks
/// for it in vain again.
#[tokio::test]
async fn a_question_that_panics_fails_alone() {
    let backend = Backend::sqlite();
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(&backend, &settings()).await.with_llm(Arc::new(NeverAsked));
    let request = EvalRequest {
        questions: folder.path().join("questions.jsonl"),
        output: folder.path().join("results.jsonl"),
        workers: 3,
        judges: Judges::default(),
    };
    write_questions(&request.questions);
    let report = evaluate(&request, &engine, &Silent, CancellationToken::new()).await.unwrap();
    assert_eq!((report.ok, report.failed), (0, 1), "the others were cancelled and stay open");
    let items = read_items(&request.output);
    assert_eq!(items[0].error_type.as_deref(), Some("panicked"));
    assert!(items[0].error.as_ref().is_some_and(|error| error.contains("seven")));
}
