//! The layer as an application meets it: through `tracing`, read back as rows.

use retake_schemas::event::{Capture, RunStatus};
use retake_schemas::settings::RecordSettings;
use retake_schemas::tables::{DocumentRow, EventRow, PayloadRow, SpanRow, TokenRow};
use tracing_subscriber::layer::SubscriberExt;

use crate::recorder::{Recorder, RecorderBuilder};
use crate::{RunReader, Store};

struct Taken {
    spans: Vec<SpanRow>,
    reader: RunReader,
    _folder: tempfile::TempDir,
}

impl Taken {
    fn span(&self, name: &str) -> &SpanRow {
        self.spans.iter().find(|span| span.name == name).unwrap()
    }
}

fn take_with(capture: Capture, work: impl FnOnce(&Recorder)) -> Taken {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create(folder.path()).unwrap();
    let settings = RecordSettings { capture, ..RecordSettings::default() };
    let recorder =
        RecorderBuilder::new("t", "svc").record_settings(settings).start(&store).unwrap();
    let run_id = recorder.run_id().clone();
    let subscriber = tracing_subscriber::registry().with(recorder.layer());
    tracing::subscriber::with_default(subscriber, || work(&recorder));
    let summary = recorder.finish(RunStatus::Finished);
    assert_eq!(summary.offered, summary.accepted + summary.dropped);
    assert_eq!(summary.unsealed, None);
    let reader = RunReader::open(&store, &run_id).unwrap();
    Taken { spans: reader.rows().unwrap(), reader, _folder: folder }
}

fn take(work: impl FnOnce(&Recorder)) -> Taken {
    take_with(Capture::Digest, work)
}

#[test]
fn fields_given_later_and_otel_names_arrive() {
    let taken = take(|_| {
        let span = tracing::info_span!(
            "chat",
            otel.name = "chat gpt",
            gen_ai.operation.name = "chat",
            gen_ai.usage.output_tokens = tracing::field::Empty,
            otel.status_code = tracing::field::Empty,
            error.type = tracing::field::Empty,
        );
        span.record("gen_ai.usage.output_tokens", 64);
        span.record("otel.status_code", "ERROR");
        span.record("error.type", "timeout");
    });
    let span = taken.span("chat gpt");
    assert_eq!((span.kind.as_str(), span.stage.as_str()), ("llm", "llm"));
    assert_eq!((span.output_tokens, span.status.as_str()), (Some(64), "error"));
    assert!(span.is_error_origin && span.tokens_counted);
    assert_eq!(span.error_type.as_deref(), Some("timeout"));
    assert!(span.source_file.as_deref().is_some_and(|file| file.ends_with("tests.rs")));
}

#[test]
fn a_span_closed_on_another_thread_keeps_its_parent() {
    let taken = take(|_| {
        let root = tracing::info_span!("root");
        let child = root.in_scope(|| tracing::info_span!("child"));
        let subscriber = tracing::dispatcher::get_default(Clone::clone);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                tracing::dispatcher::with_default(&subscriber, || {
                    child.in_scope(|| std::thread::sleep(std::time::Duration::from_millis(2)));
                    drop(child);
                });
            });
        });
    });
    let (root, child) = (taken.span("root"), taken.span("child"));
    assert_eq!(child.parent_span_id.as_ref(), Some(&root.span_id));
    assert_eq!(child.trace_id, root.trace_id);
    assert!(child.busy_ns >= Some(2_000_000), "{:?}", child.busy_ns);
    assert!(root.self_ns.unwrap() <= root.duration_ns - child.duration_ns);
}

#[test]
fn our_targets_become_tokens_usage_and_documents() {
    let taken = take_with(Capture::Full, |_| {
        let span = tracing::info_span!("llm", gen_ai.operation.name = "chat", output.value = "hi");
        span.in_scope(|| {
            tracing::info!(target: "retake::token", index = 0, count = 1);
            tracing::info!(target: "retake::token", index = 1, count = 2);
            tracing::info!(target: "retake::usage", source = "tokenizer", input = 9, output = 3);
            tracing::info!(target: "retake::document", role = "retrieved", rank = 0, id = "a#1",
                score = 0.5, content = "text");
            tracing::warn!(x = 1, "a line");
        });
    });
    let span = taken.span("llm");
    assert_eq!((span.input_tokens, span.output_tokens), (Some(9), Some(3)));
    assert_eq!(span.tokens_source, "tokenizer");
    assert_eq!((span.stream, span.document_count), (Some(true), Some(1)));
    assert!(span.ttft_ns.is_some());
    let tokens: Vec<TokenRow> = taken.reader.rows().unwrap();
    assert_eq!(tokens.iter().map(|t| t.token_count).collect::<Vec<_>>(), [1, 2]);
    let documents: Vec<DocumentRow> = taken.reader.rows().unwrap();
    assert_eq!((documents[0].document_id.as_str(), documents[0].score), ("a#1", Some(0.5)));
    let payloads: Vec<PayloadRow> = taken.reader.rows().unwrap();
    let text = |digest: &Option<String>| {
        let row = payloads.iter().find(|p| Some(&p.digest) == digest.as_ref()).unwrap();
        row.content.clone().unwrap()
    };
    assert_eq!(text(&span.output_ref), "hi");
    assert_eq!(text(&documents[0].content_ref), "text");
    let lines: Vec<EventRow> = taken.reader.rows().unwrap();
    assert_eq!(lines[0].message.as_deref(), Some("a line"));
}

/// Guarantees: P1 - with the default policy no prompt is on disk, in any file of the run.
#[test]
fn the_default_policy_keeps_texts_off_the_disk() {
    let taken = take(|recorder| {
        let _span = tracing::info_span!("llm", gen_ai.input.messages = "canary-7f3a").entered();
        tracing::info!(target: "retake::document", role = "retrieved", id = "d", content = "canary-7f3a");
        recorder.seal().unwrap();
    });
    assert!(taken.span("llm").input_ref.is_some());
    let payloads: Vec<PayloadRow> = taken.reader.rows().unwrap();
    assert_eq!(payloads.iter().filter_map(|p| p.content.as_ref()).count(), 0);
    let text = format!("{:?}", taken.spans);
    assert!(!text.contains("canary-7f3a"));
}

struct Hostile;

impl std::fmt::Debug for Hostile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let _span = tracing::info_span!("from Debug").entered();
        tracing::info!("from Debug");
        f.write_str("hostile")
    }
}

struct Panicking;

impl std::fmt::Debug for Panicking {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("in Debug")
    }
}

/// Guarantees: J9 - a Debug that emits spans, or panics, neither deadlocks nor breaks the program.
#[test]
fn hostile_debug_impls_are_survived() {
    let taken = take(|_| {
        let span = tracing::info_span!("outer", value = ?Hostile, late = tracing::field::Empty);
        span.record("late", tracing::field::debug(Hostile));
        let _bad = tracing::info_span!("panicking", value = ?Panicking);
    });
    // Under a scoped subscriber `tracing` itself hides what a Debug emits; the test with a global
    // one is `recorder/tests/realities/reentrancy.rs`.
    assert!(taken.spans.iter().any(|span| span.name == "outer"));
    let attributes = taken.span("panicking").attributes.clone().unwrap();
    assert!(attributes.contains("its Debug failed"), "{attributes}");
}

#[test]
fn an_error_logged_in_a_span_makes_it_fail() {
    let taken = take(|_| {
        let _span = tracing::info_span!("work").entered();
        tracing::error!(error = "it broke", "failed");
    });
    let span = taken.span("work");
    assert_eq!((span.status.as_str(), span.error_message.as_deref()), ("error", Some("it broke")));
}
