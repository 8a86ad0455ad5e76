//! A global subscriber in a process of its own: scoped ones hide re-entrancy
//! (tracing-opentelemetry #250, delta-kernel-rs #2547).

use retake_recorder::{RecorderBuilder, RunReader, Store};
use retake_schemas::event::RunStatus;
use retake_schemas::tables::SpanRow;
use tracing_subscriber::layer::SubscriberExt;

struct Hostile;

impl std::fmt::Debug for Hostile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let _span = tracing::info_span!("from Debug").entered();
        tracing::info!("from Debug");
        f.write_str("hostile")
    }
}

/// Scenario: formatting a field opens spans and logs, on many threads, under a global subscriber.
/// Guarantees: J9 - no deadlock, no recursion, and what was emitted is recorded.
#[test]
fn a_debug_that_emits_spans_is_recorded_and_does_not_deadlock() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create(folder.path()).unwrap();
    let recorder = RecorderBuilder::new("t", "svc").start(&store).unwrap();
    let run_id = recorder.run_id().clone();
    let subscriber = tracing_subscriber::registry().with(recorder.layer());
    tracing::subscriber::set_global_default(subscriber).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let span =
                    tracing::info_span!("outer", value = ?Hostile, late = tracing::field::Empty);
                span.record("late", tracing::field::debug(Hostile));
                span.in_scope(|| tracing::info!(value = ?Hostile));
            });
        }
    });
    let summary = recorder.finish(RunStatus::Finished);
    assert_eq!(summary.dropped, 0);
    let rows: Vec<SpanRow> = RunReader::open(&store, &run_id).unwrap().rows().unwrap();
    let count = |name: &str| rows.iter().filter(|row| row.name == name).count();
    assert_eq!((count("outer"), count("from Debug")), (16, 48));
}
