//! Small stores for tests, written through the real recorder.

use std::collections::BTreeMap;

use retake_recorder::{Recorder, RecorderBuilder, Store};
use retake_schemas::event::{EventBody, RunStatus, SpanClosed, SpanOpened, Status, Token};
use retake_schemas::{Attributes, Digest, RunId, SpanId, SpanKey, TraceId, Value};

/// Where the clocks of all fixtures begin, ns since the Unix epoch.
pub(crate) const START: i64 = 1_795_000_000_000_000_000;

/// A store in a folder that goes away with it.
#[derive(Debug)]
pub(crate) struct Fixture {
    folder: tempfile::TempDir,
    pub(crate) store: Store,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::of(tempfile::tempdir().unwrap())
    }

    /// The same where nothing waits for a disk, if there is such a place.
    pub(crate) fn in_memory() -> Self {
        Self::of(tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap()))
    }

    fn of(folder: tempfile::TempDir) -> Self {
        let store = Store::create(folder.path()).unwrap();
        Self { folder, store }
    }

    pub(crate) fn path(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Records a run to its end.
    pub(crate) fn run(&self, name: &str, record: impl FnOnce(&Recorder)) -> RunId {
        self.run_with(RecorderBuilder::new(name, "app"), record)
    }

    pub(crate) fn run_with(
        &self,
        builder: RecorderBuilder,
        record: impl FnOnce(&Recorder),
    ) -> RunId {
        let recorder = builder.start(&self.store).unwrap();
        let run_id = recorder.run_id().clone();
        record(&recorder);
        let summary = recorder.finish(RunStatus::Finished);
        assert_eq!(summary.dropped, 0);
        run_id
    }
}

pub(crate) fn settings(pairs: &[(&str, i64)]) -> BTreeMap<String, serde_json::Value> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect()
}

pub(crate) fn workload() -> Digest {
    Digest::of(b"workload")
}

/// A span to record; times relative to [`START`].
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub(crate) trace: u8,
    pub(crate) id: u64,
    pub(crate) parent: Option<u64>,
    pub(crate) stage: &'static str,
    pub(crate) start_ns: i64,
    pub(crate) duration_ns: i64,
    pub(crate) status: Status,
    pub(crate) attributes: Attributes,
}

pub(crate) fn trace_id(trace: u8) -> TraceId {
    let mut bytes = [0xab; 16];
    bytes[0] = trace;
    TraceId::from_bytes(bytes)
}

pub(crate) fn spec(trace: u8, id: u64, parent: Option<u64>, stage: &'static str) -> Spec {
    Spec {
        trace,
        id,
        parent,
        stage,
        start_ns: 0,
        duration_ns: 0,
        status: Status::Ok,
        attributes: Vec::new(),
    }
}

impl Spec {
    pub(crate) fn at(mut self, start_ns: i64, duration_ns: i64) -> Self {
        self.start_ns = start_ns;
        self.duration_ns = duration_ns;
        self
    }

    pub(crate) fn with(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.attributes.push((key.into(), value.into()));
        self
    }

    pub(crate) fn failed(mut self, class: &'static str) -> Self {
        self.status = Status::Error;
        self.with("error.type", class)
    }

    pub(crate) fn key(&self) -> SpanKey {
        SpanKey { trace_id: trace_id(self.trace), span_id: SpanId::from_u64(self.id) }
    }

    pub(crate) fn open(&self, recorder: &Recorder) {
        let mut attributes: Attributes = vec![("retake.stage".into(), self.stage.into())];
        attributes.extend(self.attributes.iter().cloned());
        let opened = SpanOpened {
            span: self.key(),
            parent: self.parent.map(SpanId::from_u64),
            name: format!("{} call", self.stage),
            target: "app".to_owned(),
            level: retake_schemas::event::Level::Info,
            source_file: None,
            source_line: None,
            thread: None,
            attributes,
        };
        let body = EventBody::SpanOpened(Box::new(opened));
        let _ = recorder.dispatcher().emit_at(START + self.start_ns, &body);
    }

    pub(crate) fn close(&self, recorder: &Recorder) {
        let message = (self.status == Status::Error).then(|| "it broke".to_owned());
        let closed = SpanClosed { span: self.key(), busy_ns: None, status: self.status, message };
        let end = START + self.start_ns + self.duration_ns;
        let _ = recorder.dispatcher().emit_at(end, &EventBody::SpanClosed(closed));
    }

    pub(crate) fn record(&self, recorder: &Recorder) {
        self.open(recorder);
        self.close(recorder);
    }

    pub(crate) fn token(&self, recorder: &Recorder, index: u32, at_ns: i64) {
        let token = Token { span: self.key(), index, count: 1 };
        let _ = recorder.dispatcher().emit_at(START + at_ns, &EventBody::Token(token));
    }
}

/// Records a question: root, retrieval with two parallel searches, model call with tokens.
/// Everything takes `unit` ns or a multiple of it.
pub(crate) fn question(recorder: &Recorder, trace: u8, start_ns: i64, unit: i64) {
    let root = spec(trace, 1, None, "query").at(start_ns, 10 * unit);
    let retrieve = spec(trace, 2, Some(1), "retrieve").at(start_ns + unit, 3 * unit);
    let left = spec(trace, 3, Some(2), "search").at(start_ns + unit, 2 * unit);
    let right = spec(trace, 4, Some(2), "search").at(start_ns + unit, 3 * unit);
    let llm = spec(trace, 5, Some(1), "llm")
        .at(start_ns + 5 * unit, 4 * unit)
        .with("gen_ai.operation.name", "chat")
        .with("gen_ai.request.model", "model-a")
        .with("gen_ai.usage.input_tokens", 100_i64)
        .with("gen_ai.usage.output_tokens", 10_i64);
    root.open(recorder);
    for span in [&left, &right] {
        span.record(recorder);
    }
    retrieve.record(recorder);
    llm.open(recorder);
    for index in 0..3 {
        llm.token(recorder, index, start_ns + (6 + i64::from(index)) * unit);
    }
    llm.close(recorder);
    root.close(recorder);
}
