//! Evaluating question files.

use std::path::Path;

use retake_pipeline::eval::judge::Judges;
use retake_pipeline::eval::{EvalItem, EvalProgress, EvalReport, EvalRequest, evaluate};
use retake_pipeline::ingest::Silent;
use tokio_util::sync::CancellationToken;

use crate::capture;
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
