//! Every use of retake in this benchmark: its three doors, and spans with given times.
//!
//! All of them write a real journal in a real store, which is what makes them survive `kill -9`;
//! none is measured with less.

#[cfg(feature = "new-doors")]
mod direct;
mod given;

use std::path::Path;

use retake_recorder::{Recorder, RecorderBuilder, Store};
use retake_schemas::RunId;
use retake_schemas::event::RunStatus;
use retake_schemas::settings::{RecordSettings, SyncPolicy};
use retake_schemas::tables::TableName;
use tracing_subscriber::layer::SubscriberExt;

pub(crate) use given::record_given;

use crate::case::Variant;
use crate::error::BenchError;
use crate::tracer::{Kept, Pressure, Setup, Tracer, set_global};
use crate::work::{self, Load, Request};

/// Starts a run and opens one of its doors.
///
/// # Errors
/// The store or the run cannot be made, the door is not compiled in, or there is a subscriber
/// already.
pub(crate) fn install(variant: Variant, setup: &Setup<'_>) -> Result<Box<dyn Tracer>, BenchError> {
    let run = Run::start(setup.folder, settings(setup))?;
    match variant {
        Variant::Layer => {
            let subscriber = tracing_subscriber::registry().with(run.recorder.layer());
            set_global("retake Layer", subscriber)?;
        }
        #[cfg(feature = "new-doors")]
        Variant::Subscriber => set_global("retake Subscriber", run.recorder.subscriber())?,
        #[cfg(feature = "new-doors")]
        Variant::Direct => {}
        _ => return Err(BenchError::NotBuilt(variant.title())),
    }
    Ok(Box::new(Door { run, variant }))
}

/// The kind of machine, without its name.
pub(crate) fn machine() -> serde_json::Map<String, serde_json::Value> {
    let host = retake_recorder::host::host_facts();
    let facts = [
        ("os", serde_json::Value::from(host.os.as_str())),
        ("cpu", host.cpu.as_str().into()),
        ("cpus", host.cpus.into()),
        ("memory_bytes", host.memory_bytes.into()),
        ("machine_key", host.machine_key().into()),
    ];
    facts.into_iter().map(|(name, fact)| (name.to_owned(), fact)).collect()
}

/// Now, as `2026-11-22T07:14:02Z` or alike.
pub(crate) fn now_text() -> String {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now_ns = since_epoch.map_or(0, |age| age.as_nanos());
    retake_schemas::id::utc_text(i64::try_from(now_ns).unwrap_or(i64::MAX))
}

struct Door {
    run: Run,
    variant: Variant,
}

impl Tracer for Door {
    fn loads(&self) -> Vec<Load> {
        #[cfg(feature = "new-doors")]
        if self.variant == Variant::Direct {
            return direct::loads(self.run.recorder.dispatcher());
        }
        let mut loads = work::tracing_loads();
        loads.push(work::token_load());
        loads
    }

    fn request(&self) -> Request {
        #[cfg(feature = "new-doors")]
        if self.variant == Variant::Direct {
            return direct::request(self.run.recorder.dispatcher());
        }
        debug_assert!(self.variant != Variant::Direct);
        std::sync::Arc::new(work::request)
    }

    fn settle(&mut self) -> Result<(), BenchError> {
        self.run.settle()
    }

    fn finish(self: Box<Self>) -> Result<Kept, BenchError> {
        self.run.finish()
    }
}

/// A run in a store of its own.
struct Run {
    recorder: Recorder,
    store: Store,
}

impl Run {
    fn start(folder: &Path, settings: RecordSettings) -> Result<Self, BenchError> {
        let store = Store::create(&folder.join("store")).map_err(retake)?;
        let recorder = RecorderBuilder::new("recorder-bench", "rag")
            .record_settings(settings)
            .start(&store)
            .map_err(retake)?;
        Ok(Self { recorder, store })
    }

    /// Seals what there is, as the peers flush theirs.
    fn settle(&self) -> Result<(), BenchError> {
        self.recorder.seal().map(drop).map_err(retake)
    }

    /// Ends the run, and reads from its manifest what is in sealed files.
    fn finish(self) -> Result<Kept, BenchError> {
        let summary = self.recorder.finish(RunStatus::Finished);
        if let Some(reason) = summary.unsealed {
            return Err(BenchError::Retake(reason));
        }
        let (spans, bytes) = sealed_spans(&self.store, &summary.run_id)?;
        Ok(Kept { spans: Some(spans), bytes: Some(bytes), dropped: Some(summary.dropped) })
    }
}

/// Spans in sealed Parquet files, and the bytes of these files.
fn sealed_spans(store: &Store, run_id: &RunId) -> Result<(u64, u64), BenchError> {
    let manifest = store.manifest(run_id).map_err(retake)?;
    let segments = manifest.segments.iter().filter(|segment| segment.table == TableName::Spans);
    Ok(segments.fold((0, 0), |(rows, bytes), s| (rows + s.rows, bytes + s.bytes)))
}

fn settings(setup: &Setup<'_>) -> RecordSettings {
    let mut settings = RecordSettings::default();
    if let Some(sync_ms) = setup.sync_ms {
        settings.sync = if sync_ms == 0 { SyncPolicy::Never } else { SyncPolicy::Interval };
        settings.sync_ms = sync_ms;
    }
    if setup.pressure == Pressure::Block {
        block(&mut settings);
    }
    settings
}

#[cfg(feature = "new-doors")]
fn block(settings: &mut RecordSettings) {
    settings.when_full = retake_schemas::settings::WhenFull::Block;
}

/// A recorder that cannot wait gets a journal that does not fill up: nothing is dropped, and the
/// time to seal the rest counts, because the clock stops only when `finish` has returned.
#[cfg(not(feature = "new-doors"))]
fn block(settings: &mut RecordSettings) {
    settings.journal_bytes_max = 8 << 30;
}

fn retake(error: impl std::fmt::Display) -> BenchError {
    BenchError::Retake(error.to_string())
}
