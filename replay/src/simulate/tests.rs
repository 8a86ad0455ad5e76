//! Virtual time against queues worked out by hand, and against the real traces.

use std::path::{Path, PathBuf};

use super::model::{Model, Service, StageModel};
use super::*;
use crate::arrival::Arrival;
use crate::target::Operation;
use crate::workload::import::{ImportOptions, import};
use crate::workload::{Shape, Workload};

const MS: i64 = 1_000_000;
const OPEN: Arrival = Arrival::Open { speed: 1.0 };

fn stage(stage: &str, slots: Option<u32>, ns: [f64; 3]) -> StageModel {
    let [base_ns, input_token_ns, output_token_ns] = ns;
    let service = Service::Linear { base_ns, input_token_ns, output_token_ns };
    StageModel { stage: stage.to_owned(), slots, queue_max: None, service }
}

/// The toy pipeline of REPLAY 3.2.
fn pipeline(slots: u32) -> Model {
    let stages = vec![
        stage("embed", Some(8), [4e6, 0.0, 0.0]),
        stage("search", Some(8), [6e6, 0.0, 0.0]),
        stage("rerank", Some(4), [12e6, 0.0, 0.0]),
        stage("llm", Some(slots), [30e6, 80e3, 11.3e6]),
    ];
    Model { schema_version: 1, stages }
}

/// Operations of (due ms, tokens in, tokens out).
fn workload(operations: &[(i64, u64, u64)]) -> Workload {
    let operations =
        operations.iter().zip(0u64..).map(|((due_ms, input, output), index)| Operation {
            index,
            kind: "chat".to_owned(),
            due_ns: due_ms * MS,
            shape: Shape { tokens_in: Some(*input), tokens_out: Some(*output), ..Shape::default() },
            ..Operation::default()
        });
    Workload { operations: operations.collect(), ..Workload::default() }
}

fn data(name: &str, file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(name).join(file)
}

fn trace(name: &str, file: &str) -> Option<Workload> {
    let path = data(name, file);
    if !path.exists() {
        println!("skipped: {} is not there", path.display());
        return None;
    }
    Some(import(&[path], ImportOptions::default()).unwrap().0)
}

fn is_closed(report: &SimulatedReport) -> bool {
    report.planned == report.ok + report.error + report.cancelled + report.refused
}

/// Scenario: three requests at once for one slot, worked out by hand.
/// Guarantees: they wait for each other in order; first tokens and ends are where they belong.
#[test]
fn a_queue_is_what_it_is_on_paper() {
    let model = Model { schema_version: 1, stages: vec![stage("llm", Some(1), [10e6, 1e6, 2e6])] };
    // 10 + 5 ms to the first token, then 3 x 2 ms: 21 ms each.
    let workload = workload(&[(0, 5, 4), (0, 5, 4), (30, 5, 4)]);
    for detail in [Detail::Requests, Detail::Tokens] {
        let found = simulate(&workload, &model, OPEN, detail).unwrap();
        assert_eq!(found.served_ns[0], [0, 21 * MS, 42 * MS]);
        assert_eq!(found.first_token_ns, [15 * MS, 36 * MS, 57 * MS]);
        assert_eq!(found.ended_ns, [21 * MS, 42 * MS, 63 * MS]);
        assert_eq!(found.latencies_ns(), [21 * MS, 42 * MS, 33 * MS]);
        let report = found.report();
        assert_eq!((report.planned, report.ok), (3, 3));
        assert_eq!(report.stages[0].utilisation, Some(1.0));
    }
}

/// Scenario: the queue is limited, and one request finds it full.
/// Guarantees: it is refused and counted; the accounting closes.
#[test]
fn a_full_queue_refuses_and_the_accounting_closes() {
    let mut model = pipeline(1);
    model.stages.drain(..3);
    model.stages[0].queue_max = Some(1);
    let found =
        simulate(&workload(&[(0, 1, 9), (1, 1, 9), (2, 1, 9)]), &model, OPEN, Detail::Tokens);
    let report = found.unwrap().report();
    assert_eq!((report.planned, report.ok, report.refused), (3, 2, 1));
    assert!(is_closed(&report));
}

/// Scenario: closed and session policies, with a barrier between.
/// Guarantees: so many at a time; a turn begins after the end before it and its think time, also
/// when the one before was refused; nothing passes a barrier.
#[test]
fn every_policy_lets_operations_in_when_it_says() {
    let model = Model { schema_version: 1, stages: vec![stage("llm", None, [10e6, 0.0, 0.0])] };
    let closed = |concurrency| {
        let workload = workload(&[(0, 1, 1), (500, 1, 1), (900, 1, 1)]);
        simulate(&workload, &model, Arrival::Closed { concurrency }, Detail::Requests).unwrap()
    };
    assert_eq!(closed(1).arrived_ns, [0, 10 * MS, 20 * MS]);
    assert_eq!(closed(2).arrived_ns, [0, 0, 10 * MS]);

    let mut sessions = workload(&[(0, 1, 1), (3, 1, 1), (500, 1, 1)]);
    sessions.operations[2].shape = Shape {
        parent: Some(0),
        think_ns: Some(7 * MS),
        turn: 1,
        ..sessions.operations[2].shape.clone()
    };
    let session = Arrival::Session { speed: 1.0 };
    let found = simulate(&sessions, &model, session, Detail::Requests).unwrap();
    assert_eq!(found.arrived_ns, [0, 3 * MS, 17 * MS]);
    let slow = Model { schema_version: 1, stages: vec![stage("llm", None, [30e6, 0.0, 0.0])] };
    let found = simulate(&sessions, &slow, session, Detail::Requests).unwrap();
    assert_eq!(found.arrived_ns, [0, 3 * MS, 37 * MS], "the wait follows the service, once");

    let mut barrier = workload(&[(0, 1, 1), (1, 1, 1), (2, 1, 1)]);
    barrier.operations[1].is_barrier = true;
    let found = simulate(&barrier, &slow, OPEN, Detail::Requests).unwrap();
    assert!(found.arrived_ns[1] >= found.ended_ns[0], "a barrier waits for all before it");
    assert!(found.arrived_ns[2] >= found.ended_ns[1]);
}

/// Scenario: the real traces through the toy pipeline, token by token and request by request.
/// Guarantees: R1 - equal rows and one digest, 100 times, on one thread and on eight; every
/// operation has its row.
#[test]
fn the_result_is_a_function_of_its_inputs() {
    for (name, file) in [
        ("mooncake-fast25", "synthetic_trace.jsonl.gz"),
        ("ragpulse", "0_trace.jsonl.gz"),
        ("azure-llm-2023", "AzureLLMInferenceTrace_conv.csv.gz"),
    ] {
        let Some(workload) = trace(name, file) else { continue };
        let model = pipeline(16);
        let tokens = simulate(&workload, &model, OPEN, Detail::Tokens).unwrap();
        let requests = simulate(&workload, &model, OPEN, Detail::Requests).unwrap();
        assert_eq!(tokens.digest(), requests.digest(), "{name}");
        assert!(tokens.events > requests.events);
        let report = tokens.report();
        assert_eq!((report.ok, report.cancelled), (workload.operations.len() as u64, 0));
        assert!(is_closed(&report));
        let settings = vec![(model, OPEN); 50];
        for threads in [1, 8] {
            let all = simulate_many(&workload, &settings, Detail::Requests, threads).unwrap();
            assert_eq!(all.len(), 50);
            assert!(all.iter().all(|found| found.digest() == tokens.digest()), "{name}");
        }
    }
}

/// Scenario: REPLAY acceptance 4 on the virtual clock - Azure's conversation trace at 1, 10 and 100
/// times its speed, with and without a limit of the queue.
/// Guarantees: as many operations as the file has lines, counted by other means; each arrives at its
/// recorded time over the speed, to the nanosecond; the accounting closes; the latency of each is the
/// sum of its waits and services; a station is never used by more than it has slots.
#[test]
fn azure_arrives_as_recorded_and_every_account_closes() {
    let (folder, file) = ("azure-llm-2023", "AzureLLMInferenceTrace_conv.csv.gz");
    let Some(workload) = trace(folder, file) else { return };
    let mut text = String::new();
    let raw = std::fs::File::open(data(folder, file)).unwrap();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(raw), &mut text).unwrap();
    let lines = text.lines().skip(1).filter(|line| !line.trim().is_empty()).count();
    assert_eq!(workload.operations.len(), lines);
    for (speed, queue_max) in [(1.0, None), (10.0, None), (100.0, None), (100.0, Some(50))] {
        let mut model = pipeline(16);
        model.stages.iter_mut().for_each(|stage| stage.queue_max = queue_max);
        let found = simulate(&workload, &model, Arrival::Open { speed }, Detail::Requests).unwrap();
        let report = found.report();
        assert!(is_closed(&report), "{report:?}");
        assert_eq!((report.planned, report.cancelled), (lines as u64, 0));
        assert_eq!(report.refused > 0, queue_max.is_some(), "{report:?}");
        let first_ns = workload.operations[0].due_ns;
        for operation in &workload.operations {
            let at = operation.index as usize;
            let due_ns = ((operation.due_ns - first_ns) as f64 / speed) as i64;
            assert_eq!(found.arrived_ns[at], due_ns);
        }
        let mut busy = Vec::new();
        for stage in 0..found.stages.len() {
            let served = found.served_ns[stage].iter().zip(&found.service_ns[stage]);
            for (began, service) in served.filter(|(began, _)| **began >= 0) {
                busy.push((stage, began + service, -1));
                busy.push((stage, *began, 1));
            }
        }
        // Of two changes at one moment the end comes first.
        busy.sort_unstable();
        let mut under_way = vec![0_i64; found.stages.len()];
        for (stage, _, change) in busy {
            under_way[stage] += change;
            let slots = model.stages[stage].slots.map_or(i64::MAX, i64::from);
            assert!((0..=slots).contains(&under_way[stage]), "{} at {stage}", under_way[stage]);
        }
        assert!(under_way.iter().all(|left| *left == 0));
        let latencies: i64 = found.latencies_ns().iter().sum();
        let mut sums = 0;
        for at in 0..workload.operations.len() {
            let is_whole = found.served_ns.iter().all(|served| served[at] >= 0);
            if !is_whole {
                continue;
            }
            let mut came_ns = found.arrived_ns[at];
            for stage in 0..found.stages.len() {
                let wait_ns = found.served_ns[stage][at] - came_ns;
                assert!(wait_ns >= 0);
                sums += wait_ns + found.service_ns[stage][at];
                came_ns = found.served_ns[stage][at] + found.service_ns[stage][at];
            }
            assert_eq!(came_ns, found.ended_ns[at]);
        }
        assert_eq!(sums, latencies);
    }
}

/// Scenario: TraceLab's sessions on a service that is three times slower.
/// Guarantees: REPLAY acceptance 7 - each turn begins at the end of the one before plus its recorded
/// wait, to the nanosecond; as arrivals at recorded times they are refused, because they have none.
#[test]
fn sessions_are_closed_loops() {
    let Some(workload) = trace("tracelab", "multi_session_large.csv") else { return };
    for factor in [1.0, 3.0] {
        let llm = stage("llm", Some(4), [30e6 * factor, 80e3 * factor, 11.3e6 * factor]);
        let model = Model { schema_version: 1, stages: vec![llm] };
        let session = Arrival::Session { speed: 1.0 };
        let found = simulate(&workload, &model, session, Detail::Tokens).unwrap();
        assert_eq!(found.report().ok, 303);
        for operation in &workload.operations {
            let at = operation.index as usize;
            match operation.shape.parent {
                None => assert_eq!(found.arrived_ns[at], operation.due_ns),
                Some(parent) => assert_eq!(
                    found.arrived_ns[at],
                    found.ended_ns[parent as usize] + operation.shape.think_ns.unwrap()
                ),
            }
        }
        let open = simulate(&workload, &model, OPEN, Detail::Tokens).unwrap_err().to_string();
        assert!(open.contains("--arrival session"), "{open}");
    }
}

/// Scenario: models that cannot be, and workloads that lack what a model needs.
/// Guarantees: refused before anything runs, with stage and number.
#[test]
fn a_wrong_model_is_refused() {
    let parse = |text: &str| serde_json::from_str::<Model>(text);
    let good = r#"{"stages":[{"stage":"llm","slots":4,"service":{"linear":{"base_ns":1e6}}}]}"#;
    parse(good).unwrap().check().unwrap();
    assert!(parse(&good.replace("base_ns", "base_ms")).is_err(), "unknown fields are refused");
    for (from, to, says) in [
        ("4", "0", "0 slots"),
        ("1e6", "-1.0", "negative"),
        ("1e6", "1e300", "above an hour"),
        (r#""stages":[{"#, r#""stages":[{"stage":"llm","service":"recorded"},{"#, "twice"),
    ] {
        let error = parse(&good.replace(from, to)).unwrap().check().unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    let recorded = Model {
        schema_version: 1,
        stages: vec![StageModel { service: Service::Recorded, ..stage("all", None, [0.0; 3]) }],
    };
    let error = simulate(&workload(&[(0, 1, 1)]), &recorded, OPEN, Detail::Requests).unwrap_err();
    assert!(error.to_string().contains("1 of 1"), "{error}");
}
