//! Scopes, as the runs they are recorded in have them.

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use retake_schemas::event::{EventKind, RunStatus};
use retake_schemas::settings::RecordSettings;
use retake_schemas::tables::SpanRow;
use retake_schemas::{Event, RunId};

use super::*;
use crate::{Handler, Interest, Recorder, RecorderBuilder, RunReader, Store};

fn start(store: &Store, service: &str) -> Recorder {
    let settings = RecordSettings { sample_ms: 0, ..RecordSettings::default() };
    RecorderBuilder::new("scopes", service).record_settings(settings).start(store).unwrap()
}

fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    std::thread::Builder::new().name("worker".to_owned()).spawn(work).unwrap()
}

fn spans(store: &Store, run_id: &RunId) -> Vec<SpanRow> {
    RunReader::open(store, run_id).unwrap().rows().unwrap()
}

fn named<'r>(rows: &'r [SpanRow], name: &str) -> &'r SpanRow {
    rows.iter().find(|row| row.name == name).unwrap_or_else(|| panic!("{name}: {rows:?}"))
}

fn attribute(row: &SpanRow, name: &str) -> Option<String> {
    let all: serde_json::Value = serde_json::from_str(row.attributes.as_deref()?).unwrap();
    all.get(name).and_then(|value| value.as_str()).map(str::to_owned)
}

/// Scenario: a process opens spans on three threads and calls another, by headers; that one answers
/// below what it was told. LlamaIndex's workers lose the spans of their process.
/// Guarantees: both runs have one trace; parents are right over threads and processes; tags merge
/// all the way down.
#[test]
fn a_call_of_another_process_is_one_trace() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create(folder.path()).unwrap();
    let (one, two) = (start(&store, "asks"), start(&store, "answers"));
    let query =
        one.dispatcher().scope("app").with_tags([("tenant", "a"), ("lane", "x")]).open("query");
    let workers: Vec<_> = (0..3)
        .map(|number| {
            let scope = query.scope().child("rag").with_tags([("lane", number.to_string())]);
            spawn(move || {
                let search = scope.open(&format!("search {number}"));
                let told = search.propagation();
                search.finish();
                told
            })
        })
        .collect();
    let told: Vec<Propagation> = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
    let headers = told[2].headers();
    let header = |name: &str| {
        headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    };
    let served = two
        .dispatcher()
        .scope("service")
        .with_tags([("lane", "served"), ("host", "h")])
        .from_headers(header)
        .open_with("answer", vec![("host".into(), "named".into())]);
    served.set("retake.stage", "answer");
    served.fail("rate_limited", "too many");
    query.finish();
    let (first, second) = (one.run_id().clone(), two.run_id().clone());
    let _ = (one.finish(RunStatus::Finished), two.finish(RunStatus::Finished));
    let (asked, answered) = (spans(&store, &first), spans(&store, &second));
    assert_eq!((asked.len(), answered.len()), (4, 1));
    let (root, below, far) =
        (named(&asked, "query"), named(&asked, "search 2"), named(&answered, "answer"));
    assert_eq!(root.parent_span_id, None);
    for number in 0..3 {
        let search = named(&asked, &format!("search {number}"));
        assert_eq!(search.parent_span_id.as_ref(), Some(&root.span_id));
        assert_eq!(search.trace_id, root.trace_id);
        assert_eq!(attribute(search, "tenant").as_deref(), Some("a"));
        assert_eq!(attribute(search, "lane"), Some(number.to_string()));
    }
    assert_eq!(
        (&far.trace_id, far.parent_span_id.as_ref()),
        (&root.trace_id, Some(&below.span_id))
    );
    assert_eq!(attribute(far, "tenant").as_deref(), Some("a"), "from the other process");
    assert_eq!(attribute(far, "lane").as_deref(), Some("served"), "its own wins");
    assert_eq!(attribute(far, "host").as_deref(), Some("named"), "an attribute wins");
    assert_eq!((far.status.as_str(), far.error_type.as_deref()), ("error", Some("rate_limited")));
    assert_eq!(far.stage, "answer");
}

/// Scenario: spans that are dropped, one of them by a panic. LlamaIndex's have no end then.
/// Guarantees: each has an end that says how it came about.
#[test]
fn a_dropped_span_has_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create(folder.path()).unwrap();
    let recorder = start(&store, "drops");
    let scope = recorder.dispatcher().scope("app");
    drop(scope.open("dropped"));
    let panics = scope.clone();
    let panicked = spawn(move || {
        let _span = panics.open("panicked");
        panic!("on purpose");
    });
    assert!(panicked.join().is_err());
    scope.open("finished").finish();
    let run_id = recorder.run_id().clone();
    let _ = recorder.finish(RunStatus::Finished);
    let rows = spans(&store, &run_id);
    let ended = |name| named(&rows, name).status.clone();
    assert_eq!(
        [ended("dropped"), ended("panicked"), ended("finished")],
        ["cancelled", "error", "ok"]
    );
    assert_eq!(named(&rows, "panicked").error_type.as_deref(), Some("panic"));
    assert!(rows.iter().all(|row| row.duration_ns >= 0), "{rows:?}");
}

struct Names(Arc<Mutex<Vec<String>>>);

impl Handler for Names {
    fn name(&self) -> &str {
        "names"
    }

    fn handle(&mut self, events: &[Event]) -> Result<(), String> {
        let opened = events.iter().filter_map(|event| match &event.body {
            EventBody::SpanOpened(opened) => Some(opened.name.clone()),
            _ => None,
        });
        self.0.lock().map_err(|error| error.to_string())?.extend(opened);
        Ok(())
    }
}

/// Scenario: `app.rag` and what is in it is made before `app` is subscribed to.
/// Guarantees: a handler of `app` hears all within it, and nothing of `apple`; the tags of a scope
/// are its own.
#[test]
fn handlers_hear_a_scope_whichever_was_made_first() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create(folder.path()).unwrap();
    let recorder = start(&store, "handlers");
    let root = recorder.dispatcher().scope("app").with_tags([("a", "1")]);
    let (rag, other) = (root.child("rag.query"), recorder.dispatcher().scope("apple"));
    let heard = Arc::new(Mutex::new(Vec::new()));
    let interest = Interest::all().scope("app").kinds([EventKind::SpanOpened]);
    recorder.dispatcher().subscribe(interest, Names(Arc::clone(&heard))).unwrap();
    rag.with_tags([("a", "2")]).open("within").finish();
    root.open("itself").finish();
    other.open("without").finish();
    assert_eq!((rag.name(), rag.tags().get("a")), ("app.rag.query", Some("1")));
    let _ = recorder.finish(RunStatus::Finished);
    assert_eq!(*heard.lock().unwrap(), ["within", "itself"]);
}

/// Guarantees: headers that name no span change nothing.
#[test]
fn without_a_caller_a_scope_is_a_root() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create(folder.path()).unwrap();
    let recorder = start(&store, "roots");
    let scope = recorder.dispatcher().scope("app");
    for garbage in [None, Some(""), Some("00-zz"), Some("x".repeat(10_000).as_str())] {
        let header = |name: &str| if name == "traceparent" { garbage } else { Some("a=b") };
        let below = scope.from_headers(header);
        assert_eq!(below.tags().get("a"), None);
        below.open("root").finish();
    }
    let run_id = recorder.run_id().clone();
    let _ = recorder.finish(RunStatus::Finished);
    let rows = spans(&store, &run_id);
    assert!(rows.len() == 4 && rows.iter().all(|row| row.parent_span_id.is_none()));
    let mut traces: Vec<&str> = rows.iter().map(|row| row.trace_id.as_str()).collect();
    traces.sort_unstable();
    traces.dedup();
    assert_eq!(traces.len(), 4);
}
