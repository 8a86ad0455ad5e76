//! `span-store FOLDER SPANS RUNS`: a store of runs as a RAG service would record them.
//!
//! A request is about 13.4 spans of 12 stages, up to five deep: four searches run at once inside
//! `retrieve`, 15 % of requests call a tool. Durations are lognormal; each run has 3 % of its own
//! noise, and `rerank` takes 25 % longer from seven tenths of the runs on. Seeded: every machine
//! gets the same spans, except for their run ids.

use std::error::Error;
use std::path::PathBuf;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rand_distr::{Distribution, LogNormal};
use retake_recorder::{Dispatcher, RecorderBuilder, Store};
use retake_schemas::event::{EventBody, RunStatus, SpanClosed, SpanOpened, Status};
use retake_schemas::settings::{RecordSettings, WhenFull};
use retake_schemas::{Attributes, SpanId, SpanKey, TraceId, Value};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, spans, runs] = arguments.as_slice() else {
        return Err("usage: span-store FOLDER SPANS RUNS".into());
    };
    let (spans, runs): (u64, u64) = (spans.parse()?, runs.parse()?);
    let store = Store::create(&PathBuf::from(folder))?;
    let mut made = 0;
    for run in 0..runs {
        let wanted = (spans - made).div_ceil(runs - run);
        made += one_run(&store, run, runs, wanted)?;
    }
    eprintln!("{made} spans in {runs} runs");
    Ok(())
}

fn one_run(store: &Store, run: u64, runs: u64, wanted: u64) -> Result<u64, Box<dyn Error>> {
    let settings = RecordSettings {
        sample_ms: 0,
        when_full: WhenFull::Block,
        block_ms_max: 600_000,
        sync: retake_schemas::settings::SyncPolicy::Never,
        ..RecordSettings::default()
    };
    let recorder = RecorderBuilder::new(&format!("night-{run:05}"), "guide")
        .record_settings(settings)
        .start(store)?;
    let mut rng = StdRng::seed_from_u64(run);
    let noise = LogNormal::new(0.0, 0.03)?.sample(&mut rng);
    let slow_rerank = if run * 10 >= runs * 7 { 1.25 } else { 1.0 };
    let mut request = Request {
        dispatcher: recorder.dispatcher(),
        rng,
        noise,
        slow_rerank,
        trace: 0,
        next_span: 0,
        spans: 0,
    };
    let mut start = START + i64::try_from(run)? * 3_600_000_000_000;
    while request.spans < wanted {
        request.trace += 1;
        request.record(start)?;
        start += request.rng.random_range(1_000_000..200_000_000);
    }
    let spans = request.spans;
    let summary = recorder.finish(RunStatus::Finished);
    if summary.dropped > 0 {
        return Err(format!("{} events were dropped", summary.dropped).into());
    }
    Ok(spans)
}

struct Request<'r> {
    dispatcher: &'r Dispatcher,
    rng: StdRng,
    noise: f64,
    slow_rerank: f64,
    trace: u128,
    next_span: u64,
    spans: u64,
}

impl Request<'_> {
    fn record(&mut self, start: i64) -> Result<(), Box<dyn Error>> {
        let trace_id = self.rng.random::<u128>() | 1;
        let root = self.id();
        let tenant = self.rng.random_range(0..40);
        let mut now = start + 50_000;
        now += self.leaf(trace_id, root, "rewrite", now, 2.0, 0.3)?;
        let retrieve = self.id();
        let began = now;
        now += self.leaf(trace_id, retrieve, "embed", now, 8.0, 0.25)?;
        let mut longest = 0;
        for _ in 0..4 {
            longest = longest.max(self.leaf(trace_id, retrieve, "ann.search", now, 12.0, 0.4)?);
        }
        now += longest;
        now += self.leaf(trace_id, retrieve, "fuse", now, 0.4, 0.3)?;
        let documents = vec![("retrieve.top_k".into(), Value::Int(8))];
        self.span(trace_id, retrieve, Some(root), "retrieve", (began, now), documents);
        now += self.leaf(trace_id, root, "rerank", now, 25.0 * self.slow_rerank, 0.3)?;
        if self.rng.random_bool(0.15) {
            now += self.leaf(trace_id, root, "tool.call", now, 120.0, 0.8)?;
        }
        let (llm, began) = (self.id(), now);
        now += self.leaf(trace_id, llm, "llm.prefill", now, 60.0, 0.3)?;
        let tokens = self.rng.random_range(20..400);
        now += self.leaf(trace_id, llm, "llm.decode", now, tokens as f64 * 6.0, 0.1)?;
        let call = vec![
            ("gen_ai.operation.name".into(), Value::from("chat")),
            ("gen_ai.request.model".into(), Value::from("answer-8b")),
            ("gen_ai.usage.input_tokens".into(), Value::Int(self.rng.random_range(500..3_000))),
            ("gen_ai.usage.output_tokens".into(), Value::Int(tokens)),
        ];
        self.span(trace_id, llm, Some(root), "llm", (began, now), call);
        now += self.leaf(trace_id, root, "check", now, 1.0, 0.3)?;
        let attributes = vec![
            ("http.route".into(), Value::from("/ask")),
            ("tenant".into(), Value::from(format!("tenant-{tenant}"))),
        ];
        self.span(trace_id, root, None, "query", (start, now), attributes);
        Ok(())
    }

    fn id(&mut self) -> u64 {
        self.next_span += 1;
        self.next_span
    }

    /// Records a span without children; gives its duration, ns.
    fn leaf(
        &mut self,
        trace_id: u128,
        parent: u64,
        stage: &'static str,
        start: i64,
        median_ms: f64,
        sigma: f64,
    ) -> Result<i64, Box<dyn Error>> {
        let ms = LogNormal::new((median_ms * self.noise).ln(), sigma)?.sample(&mut self.rng);
        let duration = (ms * 1e6) as i64;
        let span = self.id();
        self.span(trace_id, span, Some(parent), stage, (start, start + duration), Vec::new());
        Ok(duration)
    }

    fn span(
        &mut self,
        trace_id: u128,
        span: u64,
        parent: Option<u64>,
        stage: &'static str,
        (start, end): (i64, i64),
        attributes: Attributes,
    ) {
        let key = SpanKey {
            trace_id: TraceId::from_bytes(trace_id.to_be_bytes()),
            span_id: SpanId::from_u64(span),
        };
        let opened = SpanOpened {
            span: key,
            parent: parent.map(SpanId::from_u64),
            name: stage.to_owned(),
            target: "guide".to_owned(),
            level: retake_schemas::event::Level::Info,
            source_file: None,
            source_line: None,
            thread: None,
            attributes,
        };
        let failed = stage == "tool.call" && self.rng.random_bool(0.01);
        let status = if failed { Status::Error } else { Status::Ok };
        let closed = SpanClosed { span: key, busy_ns: None, status, message: None };
        self.dispatcher.emit_at(start, &EventBody::SpanOpened(Box::new(opened)));
        self.dispatcher.emit_at(end, &EventBody::SpanClosed(closed));
        self.spans += 1;
    }
}

/// In 2026, ns since the Unix epoch.
const START: i64 = 1_770_000_000_000_000_000;
