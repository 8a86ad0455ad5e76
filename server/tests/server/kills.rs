//! A receiver that is killed, again and again.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use retake_recorder::otlp::{Collector, CollectorSettings};
use retake_recorder::{RunReader, Store};
use retake_schemas::settings::{RecordSettings, SyncPolicy};
use retake_schemas::tables::SpanRow;
use retake_server::{Collecting, Server, ServerSettings};

/// Scenario: 500 times a receiver is started over what the last one left, gets the batch again that
/// was in flight when that one was killed, then a new one, and is killed: after its answer, or
/// at a random moment before it.
/// Guarantees: O2 - every acknowledged span is there, none is there twice.
#[test]
fn acknowledged_spans_survive_five_hundred_kills() {
    if let Some(store) = std::env::var_os(STORE_VARIABLE) {
        return receive(Path::new(&store));
    }
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = HashSet::new();
    let mut in_flight: Option<u64> = None;
    for cycle in 0..CYCLES {
        let mut receiver = Receiver::start(folder.path());
        if let Some(batch) = in_flight.take() {
            assert!(receiver.post(batch).is_some_and(|answer| answer.starts_with("HTTP/1.1 200")));
            acknowledged.extend(ids(batch));
        }
        // A linear congruential step spreads the moments; nobody chooses them.
        let chance = cycle.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1) >> 33;
        if chance % 2 == 0 {
            assert!(receiver.post(cycle).is_some_and(|answer| answer.starts_with("HTTP/1.1 200")));
            acknowledged.extend(ids(cycle));
            receiver.child.kill().unwrap();
        } else {
            let stream = receiver.send(cycle);
            std::thread::sleep(Duration::from_micros(chance % 3_000));
            receiver.child.kill().unwrap();
            drop(stream);
            in_flight = Some(cycle);
        }
        receiver.child.wait().unwrap();
    }
    let store = Store::open(folder.path()).unwrap();
    store.recover().unwrap();
    let mut found = Vec::new();
    for entry in store.runs().unwrap() {
        let reader = RunReader::open(&store, &entry.run_id).unwrap();
        found.extend(reader.rows::<SpanRow>().unwrap().into_iter().map(|row| row.span_id));
    }
    let distinct: HashSet<String> = found.iter().cloned().collect();
    assert_eq!(found.len(), distinct.len(), "spans are there twice");
    let lost: Vec<_> = acknowledged.difference(&distinct).collect();
    assert!(lost.is_empty(), "{} of {} are lost", lost.len(), acknowledged.len());
}

/// What the child does: receives until it is killed.
fn receive(folder: &Path) {
    let store = Store::create(folder).unwrap();
    store.recover().unwrap();
    let record =
        RecordSettings { sync: SyncPolicy::Batch, sample_ms: 0, ..RecordSettings::default() };
    let settings = CollectorSettings { record, ..CollectorSettings::default() };
    let collector = Arc::new(Collector::new(&store, settings));
    let server =
        Server::bind(ServerSettings::on_free_ports(), Arc::new(Collecting::new(collector)))
            .unwrap();
    println!("\nlistening {}", server.http_addr());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.unwrap().block_on(server.run(std::future::pending())).unwrap();
}

struct Receiver {
    child: Child,
    address: String,
}

impl Receiver {
    fn start(store: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "kills::acknowledged_spans_survive_five_hundred_kills",
                "--nocapture",
            ])
            .env(STORE_VARIABLE, store)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines
            .find_map(|line| line.unwrap().strip_prefix("listening ").map(str::to_owned))
            .expect("it listens");
        Self { child, address }
    }

    /// Sends a batch without waiting for the answer.
    fn send(&self, batch: u64) -> TcpStream {
        let spans: Vec<_> = ids(batch).map(|id| {
            format!(
                r#"{{"traceId":"{:032x}","spanId":"{id}","name":"s","startTimeUnixNano":"1790000000000000000","endTimeUnixNano":"1790000000000000001"}}"#,
                batch + 1
            )
        }).collect();
        let body = format!(
            r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{}]}}]}}]}}"#,
            spans.join(",")
        );
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let head = format!(
            "POST /v1/traces HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        stream
    }

    fn post(&self, batch: u64) -> Option<String> {
        let mut answer = String::new();
        self.send(batch).read_to_string(&mut answer).ok()?;
        Some(answer)
    }
}

fn ids(batch: u64) -> impl Iterator<Item = String> {
    (1..=SPANS_PER_BATCH).map(move |span| format!("{:016x}", batch * SPANS_PER_BATCH + span))
}

const STORE_VARIABLE: &str = "RETAKE_TEST_RECEIVER_STORE";
const CYCLES: u64 = 500;
const SPANS_PER_BATCH: u64 = 10;
