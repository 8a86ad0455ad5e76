//! Several recorders in one process, and several ways to lead events to them.

use retake_recorder::layer::RecorderLayer;
use retake_recorder::{Recorder, RunReader, Store, span};
use retake_schemas::event::RunStatus;
use retake_schemas::settings::RecordSettings;
use retake_schemas::tables::{EventRow, TokenRow};
use tracing_subscriber::layer::SubscriberExt;

use super::support::{assert_accounts, number, spans, start, store};

fn record(door: u64, threads: u64) {
    for number in 0..200 {
        let _span = tracing::info_span!("work", door, thread = threads, number).entered();
        tracing::info!(door, "inside");
    }
}

/// Ends a run and checks that it has the spans of these doors only, 200 of each on each thread.
fn assert_has_only(store: &Store, recorder: Recorder, expected: &[(u64, usize)]) {
    let run_id = recorder.run_id().clone();
    let summary = recorder.finish(RunStatus::Finished);
    assert_accounts(&summary);
    assert_eq!(summary.dropped, 0);
    let rows = spans(store, &run_id);
    for (door, count) in expected {
        let of_door = rows.iter().filter(|row| {
            row.status == "ok" && number(row.attributes.as_deref(), "door") == Some(*door)
        });
        assert_eq!(of_door.count(), *count, "spans of door {door}");
    }
    assert_eq!(rows.len(), expected.iter().map(|(_, count)| count).sum::<usize>());
}

/// Scenario: two recorders write into two stores and a third into the first store, at the same
/// time; threads use a layer of one, a subscriber of another, and the direct interface of the
/// third in turn, by scoped dispatch per thread and nested inside each other.
/// Guarantees: every span is in the run its door leads to, and in no other.
#[test]
fn several_recorders_in_one_process_keep_their_runs_apart() {
    let (_one, first_store) = store();
    let (_two, second_store) = store();
    let first = start(&first_store, RecordSettings::default());
    let second = start(&second_store, RecordSettings::default());
    let third = start(&first_store, RecordSettings::default());
    let layered = tracing_subscriber::registry().with(first.layer());
    let layered = tracing::Dispatch::new(layered);
    let turbo = tracing::Dispatch::new(second.subscriber());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (layered, turbo, dispatcher) = (&layered, &turbo, third.dispatcher());
            scope.spawn(move || {
                let _of_the_thread = tracing::dispatcher::set_default(layered);
                record(1, thread);
                tracing::dispatcher::with_default(turbo, || record(2, thread));
                for number in 0..200u64 {
                    let _direct = span!(dispatcher, "work", "door" = 3u64, "number" = number);
                    // Its parent is in another run, so it has none.
                    let _span = tracing::info_span!("work", door = 4u64, number).entered();
                    tracing::dispatcher::with_default(turbo, || {
                        drop(tracing::info_span!("work", door = 5u64, number));
                    });
                    dispatcher.token(0, 1);
                }
            });
        }
    });
    let third_id = third.run_id().clone();
    assert_has_only(&first_store, first, &[(1, 800), (4, 800)]);
    assert_has_only(&second_store, second, &[(2, 800), (5, 800)]);
    assert_has_only(&first_store, third, &[(3, 800)]);
    let tokens: Vec<TokenRow> = RunReader::open(&first_store, &third_id).unwrap().rows().unwrap();
    assert_eq!(tokens.len(), 800);
}

/// Scenario: one process has two layers in one registry, each leading into a run of its own, and
/// one of them filtered.
/// Guarantees: each run has what its layer lets through, with the nearest parent it knows.
#[test]
fn two_layers_of_one_registry_record_into_two_runs() {
    use tracing_subscriber::Layer;
    use tracing_subscriber::filter::LevelFilter;
    let (_folder, store) = store();
    let everything = start(&store, RecordSettings::default());
    let important = start(&store, RecordSettings::default());
    let subscriber = tracing_subscriber::registry()
        .with(everything.layer())
        .with(important.layer().with_filter(LevelFilter::INFO));
    tracing::subscriber::with_default(subscriber, || {
        let _root = tracing::info_span!("root").entered();
        let _hidden = tracing::debug_span!("hidden").entered();
        let _leaf = tracing::info_span!("leaf").entered();
    });
    let names = |recorder: Recorder| {
        let run_id = recorder.run_id().clone();
        assert_accounts(&recorder.finish(RunStatus::Finished));
        let rows = spans(&store, &run_id);
        let name_of =
            |id: &String| rows.iter().find(|row| &row.span_id == id).unwrap().name.clone();
        let mut names: Vec<(String, Option<String>)> =
            rows.iter().map(|r| (r.name.clone(), r.parent_span_id.as_ref().map(name_of))).collect();
        names.sort();
        names
    };
    let pair = |name: &str, parent: Option<&str>| (name.to_owned(), parent.map(str::to_owned));
    assert_eq!(
        names(everything),
        [pair("hidden", Some("root")), pair("leaf", Some("hidden")), pair("root", None)]
    );
    assert_eq!(names(important), [pair("leaf", Some("root")), pair("root", None)]);
}

/// Scenario: a program with one subscriber for its whole life makes three runs, one after the
/// other, and goes from the first to the second while spans are open and both are recorded.
/// Guarantees: a span is in the run it was opened in, whole; a log line is in the run of its
/// span, or in the present one when it has none, and nowhere else.
#[test]
fn a_subscriber_that_is_led_from_run_to_run_mixes_nothing() {
    let (_folder, store) = store();
    let layer = RecorderLayer::default();
    let subscriber = tracing_subscriber::registry().with(layer.clone());
    tracing::subscriber::with_default(subscriber, || {
        drop(tracing::info_span!("before any run"));
        let first = start(&store, RecordSettings::default());
        layer.attach(Some(first.dispatcher()));
        let kept = tracing::info_span!("of the first", late = tracing::field::Empty);
        kept.in_scope(|| tracing::info!("in the first"));

        let second = start(&store, RecordSettings::default());
        layer.attach(Some(second.dispatcher()));
        let own = tracing::info_span!("of the second");
        own.in_scope(|| tracing::info!("in the second"));
        tracing::info!("outside");
        kept.record("late", 7);
        drop((own, kept));
        drop(tracing::info_span!("of the second too"));
        let (first_id, second_id) = (first.run_id().clone(), second.run_id().clone());
        for recorder in [first, second] {
            let summary = recorder.finish(RunStatus::Finished);
            assert_accounts(&summary);
            assert_eq!(summary.dropped, 0);
        }
        drop(tracing::info_span!("after the runs"));
        let third = start(&store, RecordSettings::default());
        layer.attach(Some(third.dispatcher()));
        drop(tracing::info_span!("of the third"));
        layer.attach(None);
        drop(tracing::info_span!("led nowhere"));
        let third_id = third.run_id().clone();
        assert_accounts(&third.finish(RunStatus::Finished));

        let names = |run_id| {
            let mut names: Vec<String> =
                spans(&store, run_id).into_iter().map(|row| row.name).collect();
            names.sort();
            names
        };
        let lines = |run_id| {
            let rows: Vec<EventRow> = RunReader::open(&store, run_id).unwrap().rows().unwrap();
            rows.into_iter().filter_map(|row| row.message).collect::<Vec<_>>()
        };
        assert_eq!(names(&first_id), ["of the first"]);
        assert_eq!(names(&second_id), ["of the second", "of the second too"]);
        assert_eq!(names(&third_id), ["of the third"]);
        let kept = spans(&store, &first_id).remove(0);
        assert_eq!(number(kept.attributes.as_deref(), "late"), Some(7));
        assert_eq!((kept.status.as_str(), kept.flags), ("ok", None));
        assert_eq!(lines(&first_id), ["in the first"]);
        assert_eq!(lines(&second_id), ["in the second", "outside"]);
    });
}
