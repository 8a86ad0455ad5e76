//! How fast virtual time runs: real traces through the toy pipeline of the design (embed, search,
//! rerank, a language model of 16 slots), request by request and token by token.

use std::path::Path;
use std::time::Instant;

use retake_replay::engine::Arrival;
use retake_replay::simulate::model::{Model, Service, StageModel};
use retake_replay::simulate::{Detail, simulate, simulate_many};
use retake_replay::workload::Workload;
use retake_replay::workload::import::{ImportOptions, import};

use crate::Row;

/// A trace: its name, where it lies under the data folder, and goals: times real time with tokens,
/// times real time with requests, seconds with tokens.
const TRACES: [(&str, &str, [Option<f64>; 3]); 2] = [
    (
        "Azure conversations 2023",
        "azure-llm-2023/AzureLLMInferenceTrace_conv.csv.gz",
        [Some(10_000.0), Some(300_000.0), None],
    ),
    ("RAGPulse, 7 days", "ragpulse/0_trace.jsonl.gz", [None, None, Some(0.3)]),
];

pub(crate) fn rows(
    rounds: usize,
    data: Option<&Path>,
) -> Result<Vec<Row>, Box<dyn std::error::Error>> {
    let mut rows = Vec::new();
    for (name, file, [tokens_x, requests_x, tokens_s]) in TRACES {
        let path = data.map(|data| data.join(file)).filter(|path| path.exists());
        let Some(path) = path else {
            let mut row = Row::new(format!("virtual time, {name}"), "x", Vec::new());
            row.why = Some(format!("not there: give --data DIR with {file}"));
            rows.push(row);
            continue;
        };
        let (workload, _) = import(&[path], ImportOptions::default())?;
        for (detail, what, times) in
            [(Detail::Requests, "requests", requests_x), (Detail::Tokens, "tokens", tokens_x)]
        {
            let (mut speeds, mut seconds, mut events) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..rounds {
                let began = Instant::now();
                let found = simulate(&workload, &pipeline(), OPEN, detail)?;
                let took = began.elapsed().as_secs_f64();
                let span_ns = found.report().span_ns;
                speeds.push(span_ns as f64 / 1e9 / took);
                seconds.push(took);
                events.push(found.events as f64 / took / 1e6);
            }
            let mut speed = Row::new(format!("{name}, {what}: times real time"), "x", speeds);
            speed.bar = times.map(Err);
            let mut took = Row::new(format!("{name}, {what}: seconds"), "s", seconds);
            took.bar = tokens_s.filter(|_| detail == Detail::Tokens).map(Ok);
            rows.extend([speed, took]);
            rows.push(Row::new(format!("{name}, {what}: events"), "M/s", events));
        }
        if requests_x.is_some() {
            rows.push(many(&workload)?);
        }
    }
    Ok(rows)
}

/// A thousand settings of one trace on two threads: what a sweep in virtual time costs.
fn many(workload: &Workload) -> Result<Row, Box<dyn std::error::Error>> {
    let settings = vec![(pipeline(), OPEN); 1000];
    let began = Instant::now();
    let mut done = 0;
    // In parts, so that a thousand results need not lie in memory at once.
    for part in settings.chunks(50) {
        done += simulate_many(workload, part, Detail::Requests, 2)?.len();
    }
    assert_eq!(done, settings.len());
    let secs = vec![began.elapsed().as_secs_f64()];
    let count = workload.operations.len();
    let mut row = Row::new(format!("1,000 settings x {count} requests, 2 threads"), "s", secs);
    row.bar = Some(Ok(15.0));
    Ok(row)
}

fn pipeline() -> Model {
    let stage = |stage: &str, slots, base_ns, input_token_ns, output_token_ns| StageModel {
        stage: stage.to_owned(),
        slots: Some(slots),
        queue_max: None,
        service: Service::Linear { base_ns, input_token_ns, output_token_ns },
    };
    let stages = vec![
        stage("embed", 8, 4e6, 0.0, 0.0),
        stage("search", 8, 6e6, 0.0, 0.0),
        stage("rerank", 4, 12e6, 0.0, 0.0),
        stage("llm", 16, 30e6, 80e3, 11.3e6),
    ];
    Model { schema_version: 1, stages }
}

const OPEN: Arrival = Arrival::Open { speed: 1.0 };
