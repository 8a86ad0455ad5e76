//! Runs made of spans with ids and times of their own.

use std::collections::BTreeMap;

use retake_schemas::event::TokensSource;
use retake_schemas::event::{
    Annotated, DocumentRole, EventBody, Level, Measured, Retrieved, RetrievedDocument, RunStatus,
    SpanClosed, SpanOpened, Status, Token, Usage,
};
use retake_schemas::settings::RecordSettings;
use retake_schemas::{Attributes, SpanId, SpanKey, TraceId, Value};

use crate::dispatcher::Dispatcher;
use crate::export::{ExportError, ExportOptions, ExportSummary, Format, write};
use crate::{Recorder, RecorderBuilder, RunReader, Store};

/// Some moment in 2026, ns since the Unix epoch.
pub(super) const T0: i64 = 1_795_000_000_000_000_000;

/// A span to record; times are ns after [`T0`].
#[derive(Debug, Clone, Default)]
pub(super) struct Made {
    pub(super) trace: u8,
    pub(super) id: u64,
    pub(super) parent: Option<u64>,
    pub(super) name: String,
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) attributes: Vec<(&'static str, Value)>,
    pub(super) error: Option<&'static str>,
}

impl Made {
    pub(super) fn new(
        trace: u8,
        id: u64,
        parent: Option<u64>,
        name: &str,
        time: (i64, i64),
    ) -> Self {
        let name = name.to_owned();
        Self { trace, id, parent, name, start: time.0, end: time.1, ..Self::default() }
    }

    pub(super) fn with(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.attributes.push((key, value.into()));
        self
    }

    pub(super) fn key(&self) -> SpanKey {
        key(self.trace, self.id)
    }

    pub(super) fn open(&self, dispatcher: &Dispatcher) {
        let attributes: Attributes =
            self.attributes.iter().map(|(key, value)| ((*key).into(), value.clone())).collect();
        let opened = SpanOpened {
            span: self.key(),
            parent: self.parent.map(SpanId::from_u64),
            name: self.name.clone(),
            target: "app".to_owned(),
            level: Level::Info,
            source_file: None,
            source_line: None,
            thread: None,
            attributes,
        };
        dispatcher.emit_at(T0 + self.start, &EventBody::SpanOpened(Box::new(opened)));
    }

    pub(super) fn close(&self, dispatcher: &Dispatcher) {
        let closed = SpanClosed {
            span: self.key(),
            busy_ns: None,
            status: if self.error.is_some() { Status::Error } else { Status::Ok },
            message: self.error.map(str::to_owned),
        };
        dispatcher.emit_at(T0 + self.end, &EventBody::SpanClosed(closed));
    }
}

pub(super) fn key(trace: u8, id: u64) -> SpanKey {
    SpanKey { trace_id: TraceId::from_bytes([trace; 16]), span_id: SpanId::from_u64(id) }
}

/// A store with one recorder; the folder lives as long as it.
pub(super) struct Scratch {
    _folder: tempfile::TempDir,
    pub(super) store: Store,
}

impl Scratch {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(folder.path()).unwrap();
        Self { _folder: folder, store }
    }

    pub(super) fn recorder(&self, capture: retake_schemas::event::Capture) -> Recorder {
        let settings = RecordSettings { capture, ..RecordSettings::default() };
        let labels = BTreeMap::from([("team".to_owned(), "search".to_owned())]);
        RecorderBuilder::new("nightly", "svc")
            .service_version("1.2.3")
            .labels(labels)
            .record_settings(settings)
            .start(&self.store)
            .unwrap()
    }

    /// Ends the run and opens it.
    pub(super) fn finish(&self, recorder: Recorder) -> RunReader {
        let summary = recorder.finish(RunStatus::Finished);
        assert_eq!(summary.unsealed, None);
        RunReader::open(&self.store, &summary.run_id).unwrap()
    }
}

/// Records spans, each opened and closed at its times, and reads them back.
pub(super) fn run_of(scratch: &Scratch, spans: &[Made]) -> RunReader {
    let recorder = scratch.recorder(retake_schemas::event::Capture::Digest);
    for span in spans {
        span.open(recorder.dispatcher());
    }
    for span in spans {
        span.close(recorder.dispatcher());
    }
    scratch.finish(recorder)
}

pub(super) fn export(run: &RunReader, format: Format) -> (Vec<u8>, ExportSummary) {
    try_export(run, format, ExportOptions::default()).unwrap()
}

pub(super) fn try_export(
    run: &RunReader,
    format: Format,
    options: ExportOptions,
) -> Result<(Vec<u8>, ExportSummary), ExportError> {
    let mut bytes = Vec::new();
    let mut progress = Vec::new();
    let summary = write(run, format, &options, &mut bytes, &mut |p| progress.push(p))?;
    assert_eq!(summary.bytes, bytes.len() as u64);
    let last = progress.last().unwrap();
    assert_eq!(last.rows_done, last.rows_total, "progress ends at the end");
    assert!(progress.is_sorted_by_key(|p| p.rows_done));
    Ok((bytes, summary))
}

/// A text that only an export with texts may show.
pub(super) const PROMPT: &str = "why is the sky blue?";

/// One request with everything a run can hold: concurrent children, a stream, a failure, a child
/// that outlives its parent, another service, log lines, documents; a second request beside it and
/// a third after it; resource samples.
pub(super) fn everything(scratch: &Scratch) -> RunReader {
    let recorder = scratch.recorder(retake_schemas::event::Capture::Full);
    let to = recorder.dispatcher();
    let prompt = to.keep_content("text/plain", PROMPT).unwrap();
    let messages = r#"[{"role":"assistant","content":"scattering"}]"#;
    let answer = to.keep_content("application/json", messages).unwrap();
    let refer = |digest: retake_schemas::Digest| format!("blake3:{digest}");
    let spans = [
        Made::new(1, 1, None, "query", (0, 10_000_000))
            .with("openinference.span.kind", "CHAIN")
            .with("input.value", refer(prompt))
            .with("otel.kind", "server")
            .with("app.tenant", "a\"b\\c\u{1}\u{2028}")
            .with("app.share", 0.25)
            .with("app.tags", Value::List(vec!["x".into(), 7_i64.into()])),
        Made::new(1, 2, Some(1), "embed", (1_000_000, 2_000_001))
            .with("gen_ai.operation.name", "embeddings")
            .with("gen_ai.request.model", "mini-lm"),
        Made::new(1, 3, Some(1), "search a", (2_500_000, 4_000_000))
            .with("openinference.span.kind", "RETRIEVER"),
        Made::new(1, 4, Some(1), "search b", (3_000_000, 4_500_000))
            .with("openinference.span.kind", "RETRIEVER")
            .with("service.name", "index"),
        Made::new(1, 5, Some(1), "chat", (5_000_000, 9_000_000))
            .with("gen_ai.operation.name", "chat")
            .with("gen_ai.provider.name", "openai")
            .with("gen_ai.request.model", "gpt-x")
            .with("gen_ai.request.temperature", 0.5)
            .with("gen_ai.response.finish_reasons", Value::List(vec!["stop".into()]))
            .with("gen_ai.output.messages", refer(answer))
            .with("llm.cost.total", 0.000_12),
        Made {
            error: Some("no such tool"),
            ..Made::new(1, 6, Some(5), "tool <b>\u{202e}\n", (8_000_000, 8_500_000))
                .with("gen_ai.operation.name", "execute_tool")
                .with("error.type", "LookupError")
        },
        Made::new(1, 7, Some(1), "write back", (9_500_000, 12_000_000)),
        Made::new(2, 1, None, "query", (4_000_000, 11_000_000)),
        Made::new(2, 2, Some(99), "lost its parent", (5_000_000, 6_000_000)),
        Made::new(3, 1, None, "query", (20_000_000, 20_000_000)),
    ];
    for span in &spans {
        span.open(to);
    }
    inside(to);
    for span in &spans {
        span.close(to);
    }
    samples(to);
    scratch.finish(recorder)
}

fn inside(to: &Dispatcher) {
    for (index, at) in [(0, 6_000_000), (1, 7_000_000), (2, 8_250_000)] {
        let token = Token { span: key(1, 5), index, count: 1 };
        to.emit_at(T0 + at, &EventBody::Token(token));
    }
    let usage = Usage {
        span: key(1, 5),
        source: TokensSource::Provider,
        input: Some(12),
        output: Some(3),
        cache_read: Some(4),
        cache_write: None,
        reasoning: None,
    };
    to.emit_at(T0 + 8_900_000, &EventBody::Usage(usage));
    for (span, at, message) in [
        (Some(key(1, 1)), 500_000, "begun"),
        (Some(key(1, 1)), 3_500_000, "two searches"),
        (None, 13_000_000, "of no span"),
        (Some(key(7, 7)), 14_000_000, "of a span that is not there"),
    ] {
        let line = Annotated {
            span,
            level: Level::Warn,
            name: "note".to_owned(),
            target: "app::log".to_owned(),
            message: Some(message.to_owned()),
            attributes: vec![("n".into(), 1_i64.into())],
        };
        to.emit_at(T0 + at, &EventBody::Annotated(line));
    }
    let documents = [("a.md#1", 0.9), ("b.md#2", 0.5)].into_iter().enumerate();
    let documents = documents
        .map(|(rank, (id, score))| RetrievedDocument {
            rank: u32::try_from(rank).unwrap(),
            id: id.to_owned(),
            score: Some(score),
            ..RetrievedDocument::default()
        })
        .collect();
    let retrieved = Retrieved { span: key(1, 3), role: DocumentRole::Retrieved, documents };
    to.emit_at(T0 + 3_900_000, &EventBody::Retrieved(retrieved));
}

fn samples(to: &Dispatcher) {
    for (at, name, value, cpu) in [
        (0, "process.memory.usage", 1_048_576.0, None),
        (5_000_000, "process.memory.usage", 2_097_152.0, None),
        (5_000_000, "system.cpu.utilization", 0.5, Some(0_i64)),
        (5_000_000, "system.cpu.utilization", f64::NAN, Some(0_i64)),
    ] {
        let measured = Measured {
            name: name.to_owned(),
            unit: if cpu.is_some() { "1" } else { "By" }.to_owned(),
            value,
            attributes: cpu.map(|cpu| ("cpu".into(), cpu.into())).into_iter().collect(),
        };
        to.emit_at(T0 + at, &EventBody::Measured(measured));
    }
}
