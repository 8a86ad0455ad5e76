//! The pipeline as a replay target.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use retake_pipeline::replay_target::BuiltInTarget;
use retake_replay::cassette::{Cassette, CassetteMiss, MissCause, RecordedAnswer};
use retake_replay::target::{
    Operation, OperationContext, Prepared, SourceLink, Target as _, TargetError,
};
use retake_schemas::{Digest, RunId, SpanId, TraceId};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::capture::{self, named};
use crate::fixtures::{Backend, corpus, settings, write_document};
use crate::query::{database, engine};

fn operation(kind: &str, input: Value, trace: u8) -> Operation {
    Operation {
        index: 0,
        kind: kind.to_owned(),
        input,
        source: Some(SourceLink {
            run_id: RunId::generate(0),
            trace_id: TraceId::from_bytes([trace; 16]),
            span_id: SpanId::from_bytes([trace; 8]),
        }),
        ..Operation::default()
    }
}

fn context(cassette: Option<Arc<dyn Cassette>>) -> OperationContext {
    OperationContext {
        due_unix_ns: 77,
        cancellation: CancellationToken::new(),
        cassette,
        prepared: Prepared::default(),
    }
}

fn source(trace: u8) -> Vec<capture::SeenSpan> {
    capture::traces_where("retake.source.trace_id", &TraceId::from_bytes([trace; 16]).to_string())
}

/// Scenario: a replay first asks the original collection, then ingests a changed corpus, asks
/// again, and cleans up.
/// Guarantees: what it ingests is seen by it alone; each root links to the operation it repeats.
#[tokio::test]
async fn a_replayed_ingest_has_a_collection_of_its_own() {
    capture::install();
    for (offset, backend) in Backend::all("replay").into_iter().enumerate() {
        let trace = |number: u8| 10 * (u8::try_from(offset).unwrap() + 1) + number;
        let engine = engine(&backend, &settings()).await;
        let scratch = tempfile::tempdir().unwrap();
        let settings = database(&backend, &settings());
        let target = BuiltInTarget::new(settings, &backend.sqlite_file(), scratch.path());
        assert!(target.settings().contains_key("embed.batch_size"));
        let question = json!({"question": "What does document number 3 say about subject3?"});
        let before = operation("query", question.clone(), trace(1));
        target.execute(&before, &context(None)).await.unwrap();
        assert_eq!(target.corpus_digest(), None);

        let folder = corpus(20);
        write_document(folder.path(), 3, "replayed");
        let input = json!({"roots": [folder.path()], "collection": "default"});
        let load = operation("ingest", input, trace(2));
        target.execute(&load, &context(None)).await.unwrap();
        let digest = target.corpus_digest().unwrap();
        let root = &source(trace(2))[0];
        assert_eq!(root.fields["retake.corpus.digest"], digest.to_string());
        assert_eq!(root.fields["retake.due_unix_ns"], "77");

        let after = operation("query", question, trace(3));
        target.execute(&after, &context(None)).await.unwrap();
        let answer = |number| source(trace(number))[0].fields["output.value"].clone();
        assert!(answer(1).contains("first") && !answer(1).contains("replayed"), "{}", answer(1));
        assert!(answer(3).contains("replayed"), "{}: {}", backend.name, answer(3));
        assert_eq!(named(&source(trace(3)), "llm")[0].fields["retake.stage_source"], "live");

        let original = "What does document number 3 say about subject3?";
        let unchanged = engine.ask(original, Default::default(), &mut |_| {}).await.unwrap();
        assert!(!unchanged.text.contains("replayed"));
        target.clean_up().await.unwrap();
        assert_eq!(target.corpus_digest(), None);
    }
}

/// Answers from a map, once each.
struct Answers(Mutex<HashMap<Digest, RecordedAnswer>>);

impl Cassette for Answers {
    fn take(&self, request: &str) -> Result<RecordedAnswer, CassetteMiss> {
        let request = Digest::of(request.as_bytes());
        let cause = MissCause::NotRecorded { nearest: None };
        self.0.lock().remove(&request).ok_or(CassetteMiss { request, cause })
    }
}

/// Guarantees: R3 - with a cassette the recorded answer comes, once; then a typed miss, never a
/// live call.
#[tokio::test]
async fn a_cassette_answers_and_never_falls_back() {
    capture::install();
    let backend = Backend::sqlite();
    drop(engine(&backend, &settings()).await);
    let scratch = tempfile::tempdir().unwrap();
    let settings = database(&backend, &settings());
    let target = BuiltInTarget::new(settings, &backend.sqlite_file(), scratch.path());
    let ask = |trace| operation("query", json!({"question": "What about subject5?"}), trace);
    target.execute(&ask(101), &context(None)).await.unwrap();
    let recorded = source(101);
    let request = &named(&recorded, "llm")[0].fields["gen_ai.input.messages"];
    let answer = RecordedAnswer {
        text: "from the tape".to_owned(),
        arrivals: vec![(1_000, 2), (2_000, 1)],
        duration_ns: 3_000,
        input_tokens: Some(9),
        output_tokens: Some(3),
        tokens_source: retake_schemas::event::TokensSource::Provider,
        failure: None,
    };
    let tape = HashMap::from([(Digest::of(request.as_bytes()), answer)]);
    let cassette: Arc<dyn Cassette> = Arc::new(Answers(Mutex::new(tape)));
    let context = context(Some(cassette));
    target.execute(&ask(102), &context).await.unwrap();
    let spans = source(102);
    assert_eq!(spans[0].fields["output.value"], "from the tape");
    assert_eq!(named(&spans, "llm")[0].fields["retake.stage_source"], "recorded");
    let error = target.execute(&ask(103), &context).await.unwrap_err();
    let TargetError::Failed { error_type, .. } = &error else { panic!("{error}") };
    assert_eq!(error_type, "cassette_miss");
    assert_eq!(named(&source(103), "llm")[0].fields["error.type"], "cassette_miss");
}

#[tokio::test]
async fn what_is_not_understood_is_refused() {
    let backend = Backend::sqlite();
    let target = BuiltInTarget::new(settings(), &backend.sqlite_file(), &backend.sqlite_file());
    for operation in [
        operation("delete", json!({}), 201),
        operation("query", json!({"q": "?"}), 202),
        operation("query", json!("?"), 203),
        operation("ingest", json!({"roots": "/"}), 204),
    ] {
        let error = target.execute(&operation, &context(None)).await.unwrap_err();
        assert!(matches!(error, TargetError::Refused(_)), "{error}");
    }
}
