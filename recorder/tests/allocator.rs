//! A program whose allocator records: whatever we allocate inside a record calls us again.

#![expect(unsafe_code, reason = "an allocator has no safe interface")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use retake_recorder::{RecorderBuilder, RunReader, Store};
use retake_schemas::event::RunStatus;

struct Recording;

thread_local! {
    /// Whether allocations of this thread are recorded; not those of recording them.
    static IS_RECORDED: Cell<bool> = const { Cell::new(false) };
}

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Recording {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if IS_RECORDED.try_with(|is| is.replace(false)).unwrap_or(false) {
            allocated(layout.size());
            IS_RECORDED.set(true);
        }
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Recording = Recording;

fn allocated(bytes: usize) {
    tracing::info!(bytes, "allocated");
}

fn request(text: &str) {
    let _request = tracing::info_span!("request", text, number = 7_u64).entered();
}

/// Scenario: looking a text through for secrets allocates, in the middle of the span's record, and
/// the program's allocator records that.
/// Guarantees: J9 - both the span and what the allocator recorded are there, whole.
#[test]
fn an_allocator_that_records_disturbs_no_record() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create(folder.path()).unwrap();
    let recorder = RecorderBuilder::new("allocator", "svc").start(&store).unwrap();
    let run_id = recorder.run_id().clone();
    // Global: a scoped subscriber is not told what happens inside a call of it. This test has its
    // process to itself.
    tracing::subscriber::set_global_default(recorder.subscriber()).unwrap();
    // What is learned of a callsite is learned under a lock; before the allocator takes part.
    request("nothing");
    tracing::info_span!("outer").in_scope(|| allocated(1));
    for number in 0..100_u64 {
        let text = format!("a token sk-ant-api03-{number:024}x in a text");
        IS_RECORDED.set(true);
        request(&text);
        IS_RECORDED.set(false);
    }
    let summary = recorder.finish(RunStatus::Finished);
    assert_eq!((summary.dropped, summary.spans), (0, 102));
    let rows = RunReader::open(&store, &run_id).unwrap().rows::<retake_schemas::tables::SpanRow>();
    let rows = rows.unwrap();
    let requests: Vec<_> = rows.iter().filter(|row| row.name == "request").collect();
    assert_eq!(requests.len(), 101);
    for row in requests.iter().skip(1) {
        let attributes = row.attributes.as_deref().unwrap();
        assert!(attributes.contains("[redacted:anthropic_key]"), "{attributes}");
        assert!(attributes.contains("\"number\":7"), "{attributes}");
    }
    let events = RunReader::open(&store, &run_id).unwrap();
    let events = events.rows::<retake_schemas::tables::EventRow>().unwrap();
    assert!(events.len() > 100, "{} allocations recorded", events.len());
}
