//! The engine against a target that only notes when it was called.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use retake_schemas::{SpanId, TraceId};

use super::*;
use crate::target::{Operation, Prepared, SourceLink};
use crate::workload::Shape;

#[derive(Default)]
struct Noting {
    started: Mutex<Vec<(u64, Instant)>>,
    ended: Mutex<Vec<(u64, Instant)>>,
    running_max: Mutex<(usize, usize)>,
    waits_on_io: bool,
}

#[async_trait]
impl Target for Noting {
    fn name(&self) -> &str {
        "noting"
    }

    fn settings(&self) -> BTreeMap<String, serde_json::Value> {
        BTreeMap::new()
    }

    fn waits_on_io(&self) -> bool {
        self.waits_on_io
    }

    async fn execute(&self, op: &Operation, context: &OperationContext) -> Result<(), TargetError> {
        self.started.lock().push((op.index, Instant::now()));
        {
            let mut running = self.running_max.lock();
            running.0 += 1;
            running.1 = running.1.max(running.0);
        }
        let work = Duration::from_millis(op.input.as_u64().unwrap_or(0));
        let outcome = tokio::select! {
            () = context.cancellation.cancelled() => Err(TargetError::Cancelled),
            () = tokio::time::sleep(work) => match op.kind.as_str() {
                "fail" => Err(TargetError::Failed { error_type: "x".into(), message: "no".into() }),
                // A registry knows its spans; without a subscriber there are none.
                "subscribed" if tracing::error_span!("here").is_none() => {
                    Err(TargetError::Refused("nobody listens".into()))
                }
                "unknown" => Err(TargetError::Refused("what?".into())),
                _ => Ok(()),
            },
        };
        self.running_max.lock().0 -= 1;
        self.ended.lock().push((op.index, Instant::now()));
        outcome
    }
}

fn workload(operations: &[(&str, u64, i64)]) -> Arc<Workload> {
    let source_run = "r".parse().ok();
    let operations = operations
        .iter()
        .zip(0..)
        .map(|((kind, work_ms, due_ms), index)| Operation {
            index,
            kind: (*kind).to_owned(),
            input: (*work_ms).into(),
            due_ns: due_ms * 1_000_000,
            recorded_duration_ns: 0,
            is_barrier: *kind == "ingest",
            source: Some(SourceLink {
                run_id: "r".parse().unwrap(),
                trace_id: TraceId::from_bytes([1; 16]),
                span_id: SpanId::from_u64(index + 1),
            }),
            shape: Shape::default(),
        })
        .collect();
    Arc::new(Workload { source_run, operations, ..Workload::default() })
}

/// Replays with operations driven where the replay was called, or on a thread of their own.
async fn run_on(
    workload: &Arc<Workload>,
    arrival: Arrival,
    waits_on_io: bool,
) -> (ReplayReport, Arc<Noting>) {
    let noting = Arc::new(Noting { waits_on_io, ..Noting::default() });
    let target: Arc<dyn Target> = Arc::clone(&noting) as Arc<dyn Target>;
    let options = ReplayOptions { arrival, cassette: None, cancellation: CancellationToken::new() };
    (replay(workload, &target, &options, &|_| {}).await.unwrap(), noting)
}

fn is_closed(report: &ReplayReport) -> bool {
    report.planned == report.ok + report.error + report.cancelled + report.refused
}

async fn run(workload: &Arc<Workload>, arrival: Arrival) -> (ReplayReport, Arc<Noting>) {
    run_on(workload, arrival, false).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_arrivals_do_not_wait_for_a_slow_target() {
    let operations: Vec<_> = (0..10).map(|n| ("query", 100, n * 5)).collect();
    for waits_on_io in [false, true] {
        let arrival = Arrival::Open { speed: 1.0 };
        let (report, noting) = run_on(&workload(&operations), arrival, waits_on_io).await;
        assert_eq!((report.ok, report.fidelity.scheduled), (10, 10));
        assert!(is_closed(&report));
        assert!(noting.running_max.lock().1 > 5, "arrivals overlap");
        assert!(report.fidelity.fire_error_min_ns >= 0, "{:?}", report.fidelity);
    }
}

/// Scenario: a program replays from a runtime of one thread, with a subscriber of its own.
/// Guarantees: operations on the replay's own thread are recorded by that subscriber, and progress is
/// told to its end.
#[tokio::test]
async fn operations_on_a_thread_of_their_own_keep_their_subscriber() {
    let subscriber = tracing_subscriber::registry();
    let expected = tracing::Dispatch::new(subscriber);
    let _guard = tracing::dispatcher::set_default(&expected);
    let operations: Vec<_> = (0..3).map(|_| ("subscribed", 0, 0)).collect();
    let told = Mutex::new(0);
    let target: Arc<dyn Target> = Arc::new(Noting { waits_on_io: true, ..Noting::default() });
    let options = ReplayOptions {
        arrival: Arrival::Open { speed: 1.0 },
        cassette: None,
        cancellation: CancellationToken::new(),
    };
    let report =
        replay(&workload(&operations), &target, &options, &|n| *told.lock() = n).await.unwrap();
    assert_eq!((report.ok, *told.lock()), (3, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closed_arrivals_keep_to_their_slots() {
    let operations: Vec<_> = (0..12).map(|_| ("query", 5, 0)).collect();
    let (report, noting) = run(&workload(&operations), Arrival::Closed { concurrency: 3 }).await;
    assert_eq!(report.ok, 12);
    assert_eq!(noting.running_max.lock().1, 3);
}

/// Scenario: queries read what an ingest wrote, and the ingest is slower than recorded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_passes_a_barrier() {
    let operations = [("ingest", 60, 0), ("query", 1, 5), ("query", 1, 6)];
    for (arrival, waits_on_io) in [
        (Arrival::Open { speed: 1.0 }, false),
        (Arrival::Open { speed: 1.0 }, true),
        (Arrival::Closed { concurrency: 8 }, false),
        (Arrival::Closed { concurrency: 8 }, true),
    ] {
        let (report, noting) = run_on(&workload(&operations), arrival, waits_on_io).await;
        assert_eq!(report.ok, 3);
        let ingest_end = noting.ended.lock().iter().find(|(index, _)| *index == 0).unwrap().1;
        assert!(noting.started.lock().iter().all(|(index, at)| *index == 0 || *at >= ingest_end));
    }
}

#[tokio::test]
async fn the_accounting_closes_over_failures_and_refusals() {
    let operations = [("query", 0, 0), ("fail", 0, 0), ("unknown", 0, 0), ("query", 0, 0)];
    let (report, _) = run(&workload(&operations), Arrival::Closed { concurrency: 2 }).await;
    assert_eq!((report.ok, report.error, report.refused), (2, 1, 1));
    assert!(is_closed(&report));
    assert_eq!(report.failures.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_never_began_counts_as_cancelled() {
    let operations: Vec<_> = (0..20).map(|n| ("query", 50, n * 1000)).collect();
    for arrival in [Arrival::Open { speed: 1.0 }, Arrival::Closed { concurrency: 1 }] {
        let cancellation = CancellationToken::new();
        let options = ReplayOptions { arrival, cassette: None, cancellation: cancellation.clone() };
        let target: Arc<dyn Target> = Arc::new(Noting { waits_on_io: true, ..Noting::default() });
        let cancel = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            cancellation.cancel();
        });
        let report = replay(&workload(&operations), &target, &options, &|_| {}).await.unwrap();
        cancel.await.unwrap();
        assert!(is_closed(&report), "{report:?}");
        assert!(report.cancelled >= 19, "{report:?}");
    }
}

/// A service of so many slots that stands still for a while, once.
struct Freezing {
    slots: tokio::sync::Semaphore,
    service: Duration,
    began: std::sync::OnceLock<Instant>,
    frozen: std::ops::Range<Duration>,
}

#[async_trait]
impl Target for Freezing {
    fn name(&self) -> &str {
        "freezing"
    }

    fn settings(&self) -> BTreeMap<String, serde_json::Value> {
        BTreeMap::new()
    }

    async fn execute(&self, _: &Operation, _: &OperationContext) -> Result<(), TargetError> {
        let began = *self.began.get_or_init(Instant::now);
        let _slot = self.slots.acquire().await.unwrap();
        // Whoever is served when it freezes, or comes while it is frozen, waits for its end.
        if (began.elapsed() + self.service) > self.frozen.start && began.elapsed() < self.frozen.end
        {
            tokio::time::sleep_until((began + self.frozen.end).into()).await;
        }
        tokio::time::sleep(self.service).await;
        Ok(())
    }
}

/// Scenario: REPLAY acceptance 3, coordinated omission - 400 requests in 2 s to a service of 12 slots
/// and 15 ms, which freezes for 600 ms; as an open loop, and as a closed one of 8 clients.
/// Guarantees: latency from the due time shows the freeze in every tenth request and more; of a closed
/// loop, which waits as its requests do, only a few are slow, and its 90th percentile hides it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stall_shows_in_latency_from_due_and_hides_in_a_closed_loop() {
    let operations: Vec<_> = (0..400).map(|n| ("query", 0, n * 5)).collect();
    let workload = workload(&operations);
    let replayed = async |arrival| {
        let target: Arc<dyn Target> = Arc::new(Freezing {
            slots: tokio::sync::Semaphore::new(12),
            service: Duration::from_millis(15),
            began: std::sync::OnceLock::new(),
            frozen: Duration::from_millis(500)..Duration::from_millis(1100),
        });
        let options =
            ReplayOptions { arrival, cassette: None, cancellation: CancellationToken::new() };
        replay(&workload, &target, &options, &|_| {}).await.unwrap()
    };
    let ms = |ns: i64| ns / 1_000_000;
    let open = replayed(Arrival::Open { speed: 1.0 }).await;
    let closed = replayed(Arrival::Closed { concurrency: 8 }).await;
    assert!(is_closed(&open) && is_closed(&closed));
    assert_eq!((open.ok, closed.ok), (400, 400));
    // 120 requests are due in the freeze, more than a quarter of all: the 90th percentile waited for
    // two thirds of it.
    assert!(ms(open.latency_from_due.p90_ns) > 300, "{:?}", open.latency_from_due);
    assert!(ms(closed.latency_from_send.p90_ns) < 100, "{:?}", closed.latency_from_send);
    assert!(ms(closed.latency_from_send.max_ns) > 500, "it did freeze");
    assert!(
        open.latency_from_due.p90_ns > 3 * closed.latency_from_send.p90_ns,
        "{open:?} {closed:?}"
    );
}

/// Scenario: a client that lets only eight requests out at a time, before a service that freezes.
/// Guarantees: latency from send looks fine at the 90th percentile, latency from due does not, and
/// the difference makes a replay invalid.
#[test]
fn a_client_that_holds_requests_back_is_found_out() {
    let ms = 1_000_000;
    let workload = workload(&(0..400).map(|n| ("query", 0, n * 5)).collect::<Vec<_>>());
    let (mut free, mut ended) = (vec![0_i64; 8], Vec::new());
    for operation in &workload.operations {
        free.sort_unstable();
        let fired_ns = free[0].max(operation.due_ns);
        let freezes = fired_ns + 15 * ms > 500 * ms && fired_ns < 1100 * ms;
        let began_ns = if freezes { 1100 * ms } else { fired_ns };
        free[0] = began_ns + 15 * ms;
        ended.push(Finished {
            index: operation.index,
            due_unix_ns: Some(operation.due_ns),
            fired_unix_ns: fired_ns,
            ended_unix_ns: free[0],
            outcome: Outcome::Ok,
        });
    }
    let report = account(&workload, ended, 0);
    assert!(report.latency_from_send.p90_ns < 100 * ms, "{:?}", report.latency_from_send);
    assert!(report.latency_from_due.p90_ns > 300 * ms, "{:?}", report.latency_from_due);
    assert!(report.objection.is_some(), "{report:?}");
}

/// Scenario: REPLAY acceptance 7 - turns of a session, on a target three times slower than
/// recorded; recorded gaps between starts hold the service time.
/// Guarantees: each turn begins when the one before has ended and its user has thought: the
/// service time is counted once, and the think time is not stretched.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_waits_for_the_one_before_and_then_thinks() {
    let mut workload = workload(&[("query", 60, 0), ("query", 60, 5), ("query", 60, 40)]);
    for (operation, (session, think_ms)) in Arc::make_mut(&mut workload)
        .operations
        .iter_mut()
        .zip([("a", None), ("b", None), ("a", Some(20))])
    {
        operation.shape.session = Some(session.to_owned());
        operation.shape.think_ns = think_ms.map(|ms: i64| ms * 1_000_000);
    }
    Arc::make_mut(&mut workload).operations[2].shape.parent = Some(0);
    let (report, noting) = run_on(&workload, Arrival::Session { speed: 1.0 }, true).await;
    assert_eq!((report.ok, report.fidelity.scheduled), (3, 3));
    assert!(is_closed(&report));
    let at = |list: &Mutex<Vec<(u64, Instant)>>, index| {
        list.lock().iter().find(|(found, _)| *found == index).unwrap().1
    };
    let think = at(&noting.started, 2) - at(&noting.ended, 0);
    assert!(think >= Duration::from_millis(20), "{think:?}");
    assert!(at(&noting.started, 1) < at(&noting.ended, 0), "another session does not wait");

    Arc::make_mut(&mut workload).operations[2].shape.think_ns = None;
    let options = ReplayOptions {
        arrival: Arrival::Session { speed: 1.0 },
        cassette: None,
        cancellation: CancellationToken::new(),
    };
    let target: Arc<dyn Target> = Arc::new(Noting::default());
    let refused = replay(&workload, &target, &options, &|_| {}).await.unwrap_err();
    assert!(refused.to_string().contains("1 of 1"), "{refused}");
}

#[test]
fn equal_workloads_have_equal_digests() {
    let one = workload(&[("query", 1, 0), ("query", 2, 5)]);
    assert_eq!(one.digest(), workload(&[("query", 1, 0), ("query", 2, 5)]).digest());
    assert_ne!(one.digest(), workload(&[("query", 1, 0), ("query", 2, 6)]).digest());
    assert_ne!(one.digest(), workload(&[("query", 1, 0), ("query", 3, 5)]).digest());
}

/// Scenario: more operations than are prepared ahead, one of which takes longer to prepare than there
/// is time; a target that is called where the replay is; a closed loop, which knows no times.
/// Guarantees: nothing waits for its preparation; what was prepared belongs to its operation; what is
/// due first is prepared before anything is due.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_are_prepared_before_they_are_due() {
    const SLOW: u64 = 300;

    #[derive(Default)]
    struct Preparing {
        got: Mutex<BTreeMap<u64, Option<u64>>>,
        waits_on_io: bool,
    }

    #[async_trait]
    impl Target for Preparing {
        fn name(&self) -> &str {
            "preparing"
        }

        fn settings(&self) -> BTreeMap<String, serde_json::Value> {
            BTreeMap::new()
        }

        fn waits_on_io(&self) -> bool {
            self.waits_on_io
        }

        fn prepare(&self, operation: &Operation) -> Prepared {
            if operation.index == SLOW {
                std::thread::sleep(Duration::from_millis(2_000));
            }
            Prepared::new(operation.index)
        }

        async fn execute(
            &self,
            operation: &Operation,
            context: &OperationContext,
        ) -> Result<(), TargetError> {
            self.got.lock().insert(operation.index, context.prepared.take());
            Ok(())
        }
    }

    let operations: Vec<_> = (0..400).map(|n| ("query", 0, n)).collect();
    let workload = workload(&operations);
    let (open, closed) = (Arrival::Open { speed: 1.0 }, Arrival::Closed { concurrency: 4 });
    for (arrival, waits_on_io) in [(open, true), (open, false), (closed, true)] {
        let preparing = Arc::new(Preparing { waits_on_io, ..Preparing::default() });
        let target: Arc<dyn Target> = Arc::clone(&preparing) as Arc<dyn Target>;
        let options =
            ReplayOptions { arrival, cassette: None, cancellation: CancellationToken::new() };
        let report = replay(&workload, &target, &options, &|_| {}).await.unwrap();
        assert_eq!((report.ok, is_closed(&report)), (400, true));
        assert!(report.wall_ns < 1_900_000_000, "{} ns", report.wall_ns);
        let got = preparing.got.lock();
        assert!(got.iter().all(|(index, made)| made.is_none_or(|made| made == *index)), "{got:?}");
        let in_time = got.values().flatten().count();
        if arrival == open && waits_on_io {
            assert!((0..256).all(|index| got[&index].is_some()), "{got:?}");
            assert!(got[&SLOW].is_none() && in_time >= 256, "{got:?}");
        } else {
            assert_eq!(in_time, 0);
        }
    }
}
