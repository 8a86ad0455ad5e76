//! tracing-opentelemetry with the SDK's batch processor, over an exporter that does nothing or
//! one that writes OTLP protobuf to a file.
//!
//! No network is in either, which favours the peer. The processor drops when its queue is full
//! and cannot be told to wait; what it dropped is what the exporter never saw.

use std::fs::File;
use std::future::ready;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry_proto::tonic::trace::v1::TracesData;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider, SpanData, SpanExporter,
};
use prost::Message;
use tracing_subscriber::layer::SubscriberExt;

use crate::error::BenchError;
use crate::tracer::{Kept, Setup, Sink, Tracer, set_global};

/// How many finished spans may wait.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Queue {
    /// 2,048, as it comes.
    Default,
    /// So many that none is dropped between two flushes.
    TwoMillion,
}

/// Installs it.
///
/// # Errors
/// Its file cannot be made, or there is a subscriber already.
pub(crate) fn install(setup: &Setup<'_>, queue: Queue) -> Result<Box<dyn Tracer>, BenchError> {
    let exported = Arc::new(AtomicU64::new(0));
    let path = (setup.sink == Sink::File).then(|| setup.folder.join("spans.otlp"));
    let file = match &path {
        None => None,
        Some(path) => {
            Some(BufWriter::new(File::create(path).map_err(BenchError::io("create", path))?))
        }
    };
    let exporter = Exporter { exported: Arc::clone(&exported), file: Mutex::new(file) };
    let config = match queue {
        Queue::Default => BatchConfigBuilder::default(),
        Queue::TwoMillion => BatchConfigBuilder::default()
            .with_max_queue_size(1 << 21)
            .with_max_export_batch_size(4096),
    };
    let processor = BatchSpanProcessor::builder(exporter).with_batch_config(config.build()).build();
    let provider = SdkTracerProvider::builder().with_span_processor(processor).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("rag"));
    set_global("tracing-opentelemetry", tracing_subscriber::registry().with(layer))?;
    Ok(Box::new(Otel { provider, exported, path }))
}

struct Otel {
    provider: SdkTracerProvider,
    exported: Arc<AtomicU64>,
    path: Option<PathBuf>,
}

impl Tracer for Otel {
    fn settle(&mut self) -> Result<(), BenchError> {
        flush(&self.provider)
    }

    fn finish(self: Box<Self>) -> Result<Kept, BenchError> {
        flush(&self.provider)?;
        self.provider.shutdown().map_err(BenchError::peer("tracing-opentelemetry"))?;
        let bytes = match &self.path {
            None => None,
            Some(path) => {
                let facts =
                    std::fs::metadata(path).map_err(BenchError::io("read size of", path))?;
                Some(facts.len())
            }
        };
        Ok(Kept { spans: Some(self.exported.load(Ordering::Acquire)), bytes, dropped: None })
    }
}

/// Waits until the queue is empty. The SDK gives up after five seconds, which two million spans
/// may well take, and refuses while an earlier order to flush is not carried out.
fn flush(provider: &SdkTracerProvider) -> Result<(), BenchError> {
    let mut outcome = provider.force_flush();
    for _ in 1..FLUSH_TRIES_MAX {
        match outcome {
            Err(OTelSdkError::Timeout(_) | OTelSdkError::InternalFailure(_)) => {
                std::thread::sleep(FLUSH_PAUSE);
                outcome = provider.force_flush();
            }
            Ok(()) | Err(OTelSdkError::AlreadyShutdown) => break,
        }
    }
    outcome.map_err(BenchError::peer("tracing-opentelemetry"))
}

#[derive(Debug)]
struct Exporter {
    exported: Arc<AtomicU64>,
    file: Mutex<Option<BufWriter<File>>>,
}

impl Exporter {
    fn write(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = file.as_mut() {
            let resource = ResourceAttributesWithSchema::default();
            let resource_spans = group_spans_by_resource_and_scope(batch, &resource);
            let bytes = TracesData { resource_spans }.encode_length_delimited_to_vec();
            file.write_all(&bytes).map_err(failed)?;
        }
        self.exported.fetch_add(spans, Ordering::Release);
        Ok(())
    }
}

impl SpanExporter for Exporter {
    fn export(&self, batch: Vec<SpanData>) -> impl Future<Output = OTelSdkResult> + Send {
        ready(self.write(batch))
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.as_mut().map_or(Ok(()), |file| file.flush().map_err(failed))
    }
}

fn failed(error: std::io::Error) -> OTelSdkError {
    OTelSdkError::InternalFailure(error.to_string())
}

/// A minute, at five seconds a try.
const FLUSH_TRIES_MAX: u32 = 12;
const FLUSH_PAUSE: Duration = Duration::from_millis(5);
