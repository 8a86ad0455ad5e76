//! Lanes as programs use them: many threads, and a journal that is too small. Processes that are
//! killed, fork, and worse are in `realities`.

use retake_recorder::journal::JournalLimits;
use retake_recorder::recorder::RunSummary;
use retake_recorder::{RecorderBuilder, RunReader, Store, span};
use retake_schemas::event::RunStatus;
use retake_schemas::settings::{RecordSettings, WhenFull};
use retake_schemas::tables::SpanRow;
use tracing_subscriber::layer::SubscriberExt;

/// Opens and ends `requests` requests of three nested spans.
fn requests(requests: u64) {
    for number in 0..requests {
        let _request = tracing::info_span!("request", number).entered();
        let _search = tracing::info_span!("search", top_k = 8u64, index = "docs").entered();
        let _rank = tracing::info_span!("rank", score = 0.5).entered();
    }
}

fn record(settings: RecordSettings, threads: u64, each: u64) -> (RunSummary, Vec<SpanRow>) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create(folder.path()).unwrap();
    let limits = JournalLimits { first_file_bytes: 512 << 10, ..JournalLimits::default() };
    let recorder = RecorderBuilder::new("t", "svc")
        .record_settings(settings)
        .journal_limits(limits)
        .start(&store)
        .unwrap();
    let run_id = recorder.run_id().clone();
    let dispatch = tracing::Dispatch::new(recorder.subscriber());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let dispatch = &dispatch;
            scope.spawn(move || {
                tracing::dispatcher::with_default(dispatch, || requests(each));
            });
        }
    });
    let summary = recorder.finish(RunStatus::Finished);
    let rows = RunReader::open(&store, &run_id).unwrap().rows().unwrap();
    (summary, rows)
}

/// Every row belongs to a whole trace: its parent is there, and nothing is unfinished.
fn assert_whole(rows: &[SpanRow]) {
    let ids: std::collections::HashSet<_> = rows.iter().map(|row| row.span_id.as_str()).collect();
    assert_eq!(ids.len(), rows.len(), "no span stands twice");
    for row in rows {
        assert_eq!((row.status.as_str(), row.flags.as_deref()), ("ok", None), "{row:?}");
        assert!(row.parent_span_id.as_deref().is_none_or(|parent| ids.contains(parent)));
    }
}

/// Scenario: four threads record while the journal is drained, sealed and used again many times.
/// Guarantees: J4 - every span is read back once, with its parent.
#[test]
fn spans_of_many_threads_are_read_back_once() {
    let settings = RecordSettings {
        seal_events: 5_000,
        when_full: WhenFull::Block,
        journal_bytes_max: 4 << 20,
        ..RecordSettings::default()
    };
    let (summary, rows) = record(settings, 4, 5_000);
    assert_eq!((summary.dropped, summary.spans_opened), (0, 60_000));
    assert_eq!(rows.len(), 60_000);
    assert_whole(&rows);
}

/// Scenario: threads record as fast as they can into a journal that takes a fraction of it.
/// Guarantees: J7 - offered = accepted + dropped, opened = closed + dropped, and no span is
/// recorded by half.
#[test]
fn overload_is_counted_exactly_and_drops_whole_spans() {
    let settings = RecordSettings {
        journal_bytes_max: 512 << 10,
        seal_events: 1_000_000,
        ..RecordSettings::default()
    };
    let (summary, rows) = record(settings, 3, 20_000);
    assert!(summary.dropped > 0, "the journal was large enough after all");
    assert_eq!(summary.offered, summary.accepted + summary.dropped);
    assert_eq!(summary.dropped, summary.losses.values().sum::<u64>());
    assert_eq!(summary.spans_opened, 180_000);
    assert_eq!(summary.spans_opened, rows.len() as u64 + summary.spans_dropped);
    let unended = rows.iter().filter(|row| row.status == "unfinished").count();
    assert_eq!(unended, 0, "the last chunks are kept for the ends of spans");
}

/// Scenario: the three ways in record into one run at the same time.
#[test]
fn layer_subscriber_and_direct_interface_share_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create(folder.path()).unwrap();
    let recorder = RecorderBuilder::new("t", "svc").start(&store).unwrap();
    let run_id = recorder.run_id().clone();
    let layered = tracing_subscriber::registry().with(recorder.layer());
    tracing::subscriber::with_default(layered, || requests(10));
    tracing::subscriber::with_default(recorder.subscriber(), || requests(10));
    let dispatcher = recorder.dispatcher();
    for number in 0..10u64 {
        let _request = span!(dispatcher, "request", "number" = number);
        let _rank = span!(dispatcher, "rank", "text" = "a text that is not short", "ok" = true);
        dispatcher.token(0, 1);
    }
    let summary = recorder.finish(RunStatus::Finished);
    assert_eq!((summary.dropped, summary.spans), (0, 80));
    let rows: Vec<SpanRow> = RunReader::open(&store, &run_id).unwrap().rows().unwrap();
    assert_whole(&rows);
    let streamed = rows.iter().filter(|row| row.ttft_ns.is_some()).count();
    assert_eq!(streamed, 10);
    assert!(rows.iter().all(|row| row.busy_ns == Some(row.duration_ns)), "entered throughout");
}
