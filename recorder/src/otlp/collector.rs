//! Runs of a receiver: which run a body goes into, and when a run ends.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use retake_schemas::event::RunStatus;
use retake_schemas::settings::{RecordSettings, SyncPolicy};
use retake_schemas::{RunId, SpanKey};

use super::intake::{Decoded, resource_text};
use super::{DecodeError, Encoding, Intake, IntakeCounts, IntakeSettings, Signal, Taken};
use crate::recorder::RunSummary;
use crate::sampler::{Sampler, SamplerSettings};
use crate::store::StoreError;
use crate::{Recorder, RecorderBuilder, RunReader, Store};

/// How a receiver cuts what it gets into runs.
#[derive(Debug, Clone)]
pub struct CollectorSettings {
    /// How runs are recorded.
    pub record: RecordSettings,
    /// How bodies are taken.
    pub intake: IntakeSettings,
    /// A run ends when nothing came for it for so long.
    pub idle_max: Duration,
    /// A run ends after so long even if more comes, and another begins.
    pub session_max: Duration,
    /// Runs recorded at a time; what belongs to further ones shares a run named `other`.
    pub runs_max: usize,
    /// Labels of every run.
    pub labels: BTreeMap<String, String>,
}

impl Default for CollectorSettings {
    fn default() -> Self {
        Self {
            record: RecordSettings::default(),
            intake: IntakeSettings::default(),
            idle_max: Duration::from_secs(300),
            session_max: Duration::from_secs(3600),
            runs_max: 64,
            labels: BTreeMap::new(),
        }
    }
}

/// A body that was not taken, or not for certain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollectError {
    /// The body is no OTLP, or too much of it. Nothing of it was recorded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// No run could be started for it.
    #[error("start a run: {0}")]
    Store(#[from] StoreError),
    /// It is recorded, but the disk did not confirm it.
    #[error("flush the journal: {0}")]
    Flush(#[source] io::Error),
}

/// Takes bodies of any number of services into runs of a store.
///
/// A run is cut by service name, service version and the resource attribute `retake.run`, and ends
/// when its service was silent or went on for too long.
#[derive(Debug)]
pub struct Collector {
    store: Store,
    settings: CollectorSettings,
    sessions: Mutex<BTreeMap<Session, Arc<Open>>>,
    ended: Mutex<IntakeCounts>,
}

/// What a run is cut by.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Session {
    run: String,
    service: String,
    version: String,
}

#[derive(Debug)]
struct Open {
    // Before the recorder: its last samples belong to the run.
    sampler: Mutex<Option<Sampler>>,
    recorder: Mutex<Option<Recorder>>,
    intake: Intake,
    run_id: RunId,
    started: Instant,
    last: Mutex<Instant>,
}

/// A run that is being recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenRun {
    /// The run.
    pub run_id: RunId,
    /// Its name.
    pub name: String,
    /// Totals so far.
    pub counts: IntakeCounts,
}

impl Collector {
    /// Records into `store`.
    #[must_use]
    pub fn new(store: &Store, settings: CollectorSettings) -> Self {
        Self { store: store.clone(), settings, sessions: Mutex::default(), ended: Mutex::default() }
    }

    /// Takes a whole body, decompressed. When it returns, what was accepted is as durable as the
    /// settings' sync policy says: with `interval` or `batch` it survives a power cut, with `never`
    /// the death of the process.
    ///
    /// # Errors
    /// See [`CollectError`].
    pub fn take(
        &self,
        signal: Signal,
        encoding: Encoding,
        body: &[u8],
    ) -> Result<Taken, CollectError> {
        let decoded = Decoded::new(signal, encoding, body, &self.settings.intake)?;
        let mut taken = Taken::default();
        let mut touched: Vec<Arc<Open>> = Vec::new();
        for index in 0..decoded.len() {
            let open = self.open(Session::of(decoded.resource(index)))?;
            taken.add(&open.intake.take_group(&decoded, index));
            *open.last.lock() = Instant::now();
            if !touched.iter().any(|known| known.run_id == open.run_id) {
                touched.push(open);
            }
        }
        if self.settings.record.sync != SyncPolicy::Never {
            for open in touched {
                // The run may have ended meanwhile; then it is sealed, which is more.
                if let Some(recorder) = open.recorder.lock().as_ref() {
                    recorder.flush().map_err(CollectError::Flush)?;
                }
            }
        }
        Ok(taken)
    }

    /// Ends runs whose service was silent, or that went on for long enough.
    pub fn end_idle(&self) -> Vec<RunSummary> {
        let CollectorSettings { idle_max, session_max, .. } = &self.settings;
        let is_over = |open: &Open| {
            open.last.lock().elapsed() > *idle_max || open.started.elapsed() > *session_max
        };
        self.end(is_over)
    }

    /// Ends all runs.
    pub fn finish(&self) -> Vec<RunSummary> {
        self.end(|_| true)
    }

    /// The runs that are being recorded.
    #[must_use]
    pub fn runs(&self) -> Vec<OpenRun> {
        let sessions = self.sessions.lock();
        let open = sessions.iter().map(|(session, open)| OpenRun {
            run_id: open.run_id.clone(),
            name: session.name().to_owned(),
            counts: open.intake.counts(),
        });
        open.collect()
    }

    /// Totals of all runs, ended ones included.
    #[must_use]
    pub fn counts(&self) -> IntakeCounts {
        let mut total = *self.ended.lock();
        for run in self.runs() {
            total.add(&run.counts);
        }
        total
    }

    fn end(&self, is_over: impl Fn(&Open) -> bool) -> Vec<RunSummary> {
        let over: Vec<Arc<Open>> = {
            let mut sessions = self.sessions.lock();
            let over = sessions.extract_if(.., |_, open| is_over(open)).map(|(_, open)| open);
            over.collect()
        };
        let mut summaries = Vec::new();
        for open in over {
            drop(open.sampler.lock().take());
            let recorder = open.recorder.lock().take();
            summaries.extend(recorder.map(|recorder| recorder.finish(RunStatus::Finished)));
            self.ended.lock().add(&open.intake.counts());
        }
        summaries
    }

    fn open(&self, session: Session) -> Result<Arc<Open>, StoreError> {
        // Held while a run starts: two bodies of one service must not start two.
        let mut sessions = self.sessions.lock();
        if let Some(open) = sessions.get(&session) {
            return Ok(Arc::clone(open));
        }
        let session =
            if sessions.len() >= self.settings.runs_max { Session::other() } else { session };
        if let Some(open) = sessions.get(&session) {
            return Ok(Arc::clone(open));
        }
        let open = Arc::new(self.start(&session)?);
        sessions.insert(session, Arc::clone(&open));
        Ok(open)
    }

    fn start(&self, session: &Session) -> Result<Open, StoreError> {
        let known = self.cut_short(session);
        let service = if session.service.is_empty() { "unknown" } else { &session.service };
        let mut builder = RecorderBuilder::new(session.name(), service)
            .record_settings(self.settings.record.clone())
            .labels(self.settings.labels.clone());
        if !session.version.is_empty() {
            builder = builder.service_version(&session.version);
        }
        let recorder = builder.start(&self.store)?;
        let intake = Intake::new(recorder.dispatcher(), service, self.settings.intake.clone());
        intake.remember(known);
        let sampling = SamplerSettings::from(&self.settings.record);
        // A run without samples is still a run.
        let sampler = Sampler::start(recorder.dispatcher().clone(), sampling).ok();
        Ok(Open {
            run_id: recorder.run_id().clone(),
            sampler: Mutex::new(sampler),
            recorder: Mutex::new(Some(recorder)),
            intake,
            started: Instant::now(),
            last: Mutex::new(Instant::now()),
        })
    }

    /// Spans of the last run of this name, if a crash ended it: a sender that got no answer sends
    /// its batch to the receiver that was started again.
    fn cut_short(&self, session: &Session) -> Vec<SpanKey> {
        let Ok(runs) = self.store.runs() else { return Vec::new() };
        let last = runs.into_iter().rev().find_map(|entry| {
            let manifest = entry.manifest.ok()?;
            (manifest.facts.name == session.name()).then_some(manifest)
        });
        let Some(last) = last.filter(|manifest| manifest.status == RunStatus::Recovered) else {
            return Vec::new();
        };
        let Ok(reader) = RunReader::open(&self.store, &last.run_id) else { return Vec::new() };
        reader.span_keys(self.settings.intake.window).unwrap_or_default()
    }
}

impl Session {
    fn of(resource: &super::model::KeyValues<'_>) -> Self {
        let text = |name| {
            let text = resource_text(resource, name).unwrap_or_default();
            text.chars().take(NAME_CHARS_MAX).collect()
        };
        Self {
            run: text("retake.run"),
            service: text("service.name"),
            version: text("service.version"),
        }
    }

    fn other() -> Self {
        Self { run: "other".to_owned(), ..Self::default() }
    }

    fn name(&self) -> &str {
        match (self.run.as_str(), self.service.as_str()) {
            ("", "") => "unknown",
            ("", service) => service,
            (run, _) => run,
        }
    }
}

/// Names of runs and services are cut here; nobody reads longer ones.
const NAME_CHARS_MAX: usize = 200;
