//! Futures that are given up, and tasks that move between threads.

use std::future::{Future, poll_fn};
use std::task::Poll;
use std::time::Duration;

use retake_schemas::event::RunStatus;
use retake_schemas::settings::RecordSettings;
use retake_schemas::tables::SpanRow;
use tracing::Instrument;
use tracing_subscriber::layer::SubscriberExt;

use super::support::{assert_accounts, spans, start, store};

/// Two spans around a wait that is far too long.
async fn endless(of: &'static str) {
    async {
        let inner = tracing::info_span!("inner", of);
        tokio::time::sleep(Duration::from_secs(3_600)).instrument(inner).await;
    }
    .instrument(tracing::info_span!("outer", of))
    .await;
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(PAUSE_MS)).await;
}

async fn cancel_in_every_way() {
    drop(endless("never polled"));
    let limit = Duration::from_millis(PAUSE_MS);
    assert!(tokio::time::timeout(limit, endless("timeout")).await.is_err());
    tokio::select! {
        () = endless("select") => unreachable!("it is endless"),
        () = pause() => {}
    }
    let (polled, is_polled) = tokio::sync::oneshot::channel();
    let aborted = tokio::spawn(async {
        polled.send(()).unwrap();
        endless("abort").await;
    });
    is_polled.await.unwrap();
    pause().await;
    aborted.abort();
    assert!(aborted.await.unwrap_err().is_cancelled());
    let mut polled = Box::pin(endless("drop"));
    poll_fn(|context| {
        assert!(polled.as_mut().poll(context).is_pending());
        Poll::Ready(())
    })
    .await;
    pause().await;
    // On another thread than the one it was polled on; a registry ends no span where it is not the
    // subscriber, for whoever enters one there.
    let dispatch = tracing::dispatcher::get_default(Clone::clone);
    std::thread::scope(|scope| {
        scope.spawn(|| tracing::dispatcher::with_default(&dispatch, move || drop(polled)));
    });
    let panicked = async {
        let inner = tracing::info_span!("inner", of = "panic");
        async {
            pause().await;
            std::panic::resume_unwind(Box::new("given up by a panic"));
        }
        .instrument(inner)
        .await
    };
    let panicked = tokio::spawn(panicked.instrument(tracing::info_span!("outer", of = "panic")));
    assert!(panicked.await.unwrap_err().is_panic());
}

/// Runs `work` on a runtime of four threads, once through each door of `tracing`, and gives what
/// was recorded.
fn recorded(work: impl AsyncFn()) -> [Vec<SpanRow>; 2] {
    [0, 1].map(|door| {
        let (_folder, store) = store();
        let recorder = start(&store, RecordSettings::default());
        let dispatch = if door == 0 {
            tracing::Dispatch::new(tracing_subscriber::registry().with(recorder.layer()))
        } else {
            tracing::Dispatch::new(recorder.subscriber())
        };
        let of_the_threads = dispatch.clone();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(4)
            .enable_time()
            .on_thread_start(move || {
                std::mem::forget(tracing::dispatcher::set_default(&of_the_threads));
            })
            .build()
            .unwrap();
        tracing::dispatcher::with_default(&dispatch, || runtime.block_on(work()));
        drop(runtime);
        let run_id = recorder.run_id().clone();
        let summary = recorder.finish(RunStatus::Finished);
        assert_accounts(&summary);
        assert_eq!(summary.dropped, 0);
        let rows = spans(&store, &run_id);
        assert!(rows.iter().all(|row| row.status == "ok" && row.flags.is_none()), "{rows:?}");
        rows
    })
}

/// Scenario: futures with spans around them are given up by a timeout, a select, an abort, a
/// panic, by being dropped on another thread, and before they were polled at all.
/// Guarantees: each span ends when its future is given up, inside its parent, and was not busy
/// while it waited.
#[test]
fn a_future_that_is_given_up_ends_its_spans() {
    for rows in recorded(cancel_in_every_way) {
        let of = |name: &str, of: &str| {
            let wanted = format!("\"of\":\"{of}\"");
            let is_wanted = |row: &&SpanRow| {
                row.name == name && row.attributes.as_deref().is_some_and(|a| a.contains(&wanted))
            };
            let mut found = rows.iter().filter(is_wanted);
            let row = found.next();
            assert!(found.next().is_none(), "two spans {name} of {of}");
            row
        };
        for way in ["timeout", "select", "abort", "drop", "panic"] {
            let (outer, inner) = (of("outer", way).unwrap(), of("inner", way).unwrap());
            assert_eq!(inner.parent_span_id.as_ref(), Some(&outer.span_id), "{way}");
            for row in [outer, inner] {
                let waited_ns = PAUSE_MS.cast_signed() * 1_000_000;
                assert!(row.duration_ns >= waited_ns / 2, "{way}: {row:?}");
                // An hour is what it would have waited; busy is also who waits for a core.
                assert!(row.duration_ns < waited_ns * 500, "{way}: {row:?}");
                let busy = row.busy_ns.unwrap_or(0);
                assert!(busy <= row.duration_ns - waited_ns / 4, "{way}: {row:?}");
            }
        }
        assert!(of("outer", "never polled").is_none(), "a future's body runs when it is polled");
    }
}

async fn migrate() {
    let tasks: Vec<_> = (0..16u64)
        .map(|task| {
            let work = async move {
                let mut threads = std::collections::HashSet::new();
                for step in 0..20u64 {
                    threads.insert(std::thread::current().id());
                    let step = tracing::info_span!("step", task, step);
                    async {
                        // A wait moves a task to whichever worker is free, this to the back.
                        tokio::time::sleep(Duration::from_millis(1)).await;
                        tokio::task::yield_now().await;
                    }
                    .instrument(step)
                    .await;
                }
                threads.len()
            };
            tokio::spawn(work.instrument(tracing::info_span!("task", task)))
        })
        .collect();
    let mut moved = 0;
    for task in tasks {
        moved += usize::from(task.await.unwrap() > 1);
    }
    assert!(moved > 0, "no task ever moved to another thread");
}

/// Scenario: tasks move from worker to worker of a runtime between the polls of their spans.
/// Guarantees: each step is a child of its own task, and no span was busy longer than it lasted.
#[test]
fn a_task_that_moves_between_threads_keeps_its_spans_together() {
    for rows in recorded(migrate) {
        let tasks: Vec<_> = rows.iter().filter(|row| row.name == "task").collect();
        assert_eq!((tasks.len(), rows.len()), (16, 16 + 16 * 20));
        for task in tasks {
            let number =
                |row: &SpanRow| super::support::number(row.attributes.as_deref(), "task").unwrap();
            let steps: Vec<_> = rows
                .iter()
                .filter(|row| row.parent_span_id.as_ref() == Some(&task.span_id))
                .collect();
            assert_eq!(steps.len(), 20);
            assert!(steps.iter().all(|step| number(step) == number(task)));
            for row in steps.iter().chain([&task]) {
                let busy = row.busy_ns.unwrap_or(0);
                assert!((0..=row.duration_ns).contains(&busy), "{row:?}");
            }
            // Its steps wait for twenty milliseconds together, and it with them.
            let busy = task.busy_ns.unwrap_or(0);
            assert!(busy <= task.duration_ns - 2_000_000, "{task:?}");
        }
    }
}

const PAUSE_MS: u64 = 20;
