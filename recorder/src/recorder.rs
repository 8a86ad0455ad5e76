//! A recorder: one run being written.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use parking_lot::Mutex;
use retake_schemas::event::{DropCause, RunFacts, RunStatus};
use retake_schemas::manifest::Manifest;
use retake_schemas::settings::{RecordSettings, SyncPolicy};
use retake_schemas::{EventBody, EventSeq, RunId};

use crate::capture::CapturePolicy;
use crate::clock::{Clock, Timeline};
use crate::disk::Disk;
use crate::dispatcher::{Dispatcher, HandlerReport};
use crate::door::Target;
use crate::fold::Fold;
use crate::host::{git_facts, host_facts};
use crate::journal::durable::DurableJournal;
use crate::journal::{Drainer, Journal, JournalLimits, Losses};
use crate::layer::RecorderLayer;
use crate::reader::JOURNAL_DIR;
use crate::redact::Redactor;
use crate::seal::Sealer;
use crate::store::{NEW_PREFIX, RunLock, Store, StoreError, write_manifest_on};
use crate::subscriber::RecorderSubscriber;
use crate::writer::{Background, Command, Progress, Writer, order};

/// Starts recordings.
#[derive(Debug, Clone)]
pub struct RecorderBuilder {
    facts: RunFacts,
    settings: RecordSettings,
    limits: JournalLimits,
    redactor: Option<Redactor>,
}

impl RecorderBuilder {
    /// A recording of `service` under the name `name`.
    #[must_use]
    pub fn new(name: impl Into<String>, service: impl Into<String>) -> Self {
        let facts = RunFacts { name: name.into(), service: service.into(), ..RunFacts::default() };
        let limits = JournalLimits::default();
        Self { facts, settings: RecordSettings::default(), limits, redactor: None }
    }

    /// How to record.
    #[must_use]
    pub fn record_settings(mut self, settings: RecordSettings) -> Self {
        self.settings = settings;
        self
    }

    /// Settings of the program under record, by dotted name. Must hold no secret.
    #[must_use]
    pub fn settings(mut self, settings: BTreeMap<String, serde_json::Value>) -> Self {
        self.facts.settings = settings;
        self
    }

    /// Labels to select the run by.
    #[must_use]
    pub fn labels(mut self, labels: BTreeMap<String, String>) -> Self {
        self.facts.labels = labels;
        self
    }

    /// Version of the service.
    #[must_use]
    pub fn service_version(mut self, version: impl Into<String>) -> Self {
        self.facts.service_version = Some(version.into());
        self
    }

    /// The run this one replays, and the digest of its workload.
    #[must_use]
    pub fn replay_of(mut self, run_id: RunId, workload: retake_schemas::Digest) -> Self {
        self.facts.replay_of = Some(run_id);
        self.facts.workload = Some(workload);
        self
    }

    /// Seed of everything random in the run.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.facts.seed = Some(seed);
        self
    }

    /// Sizes of the journal, for tests and for machines with little disk. What the settings of
    /// recording state as well is taken from there.
    #[must_use]
    pub fn journal_limits(mut self, limits: JournalLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Takes secrets and personal data out of texts by these rules, instead of those of the
    /// settings. For rules that are closures.
    #[must_use]
    pub fn redactor(mut self, redactor: Redactor) -> Self {
        self.redactor = Some(redactor);
        self
    }

    /// Makes the run and starts recording.
    ///
    /// # Errors
    /// The run's folder or its first manifest cannot be written, or a redaction rule is wrong.
    pub fn start(self, store: &Store) -> Result<Recorder, StoreError> {
        let Prepared { dispatcher, progress, writer, folder } =
            self.prepare(store, Clock::start(), Background::threads)?;
        let (commands, inbox) = crossbeam_channel::bounded(COMMANDS_MAX);
        let thread = std::thread::Builder::new()
            .name("retake-writer".to_owned())
            .spawn(move || writer.run(&inbox))
            .map_err(StoreError::io("start writer of", &folder))?;
        let pid = std::process::id();
        Ok(Recorder { dispatcher, progress, commands, thread: Mutex::new(Some(thread)), pid })
    }

    /// Makes the run, and all that records it but the thread.
    pub(crate) fn prepare(
        mut self,
        store: &Store,
        clock: Clock,
        background: impl FnOnce(Arc<Progress>) -> io::Result<Background>,
    ) -> Result<Prepared, StoreError> {
        self.facts.started_unix_ns = clock.now_unix_ns();
        self.facts.capture = self.settings.capture;
        self.facts.host = host_facts();
        self.facts.recorder_version = env!("CARGO_PKG_VERSION").to_owned();
        if let Ok(here) = std::env::current_dir() {
            (self.facts.git_sha, self.facts.git_branch) = git_facts(&here);
        }
        let policy = self.policy()?;
        let run_id = RunId::generate(self.facts.started_unix_ns);
        let manifest = Manifest::new(run_id.clone(), self.facts.clone());
        let (folder, lock) = make_folder(store, &manifest)?;
        let journal = Journal::new(Some(&folder.join(JOURNAL_DIR)), self.limits(), clock);
        let dispatcher = Dispatcher::new(run_id, Arc::new(Target::new(journal, policy)));
        dispatcher.emit(&EventBody::RunStarted(Box::new(self.facts.clone())));
        let progress = Arc::new(Progress::default());
        let background = background(Arc::clone(&progress))
            .map_err(StoreError::io("start writer of", &folder))?;
        let place = Place { disk: Arc::clone(store.disk()), folder: folder.clone(), lock };
        let writer = self.writer(manifest, place, &dispatcher, (&progress, background));
        Ok(Prepared { dispatcher, progress, writer, folder })
    }

    fn limits(&self) -> JournalLimits {
        JournalLimits {
            journal_bytes_max: self.settings.journal_bytes_max,
            when_full: self.settings.when_full,
            block_max: Duration::from_millis(self.settings.block_ms_max),
            attribute_bytes_max: self.settings.attribute_bytes_max,
            ..self.limits
        }
    }

    fn policy(&mut self) -> Result<CapturePolicy, StoreError> {
        let redactor = match self.redactor.take() {
            Some(redactor) => redactor,
            None => Redactor::new(&self.settings.redact)?,
        };
        let policy = CapturePolicy::new(self.settings.capture, self.settings.payload_bytes_max);
        Ok(policy.with_redactor(redactor))
    }

    fn writer(
        self,
        manifest: Manifest,
        Place { disk, folder, lock }: Place,
        dispatcher: &Dispatcher,
        (progress, background): (&Arc<Progress>, Background),
    ) -> Writer {
        let target = Arc::clone(dispatcher.target());
        let journal = &target.journal;
        let timeline = Timeline::new(journal.clock.start_anchor(), journal.clock.ticks_per_ns());
        let durable = (self.settings.sync != SyncPolicy::Never)
            .then(|| DurableJournal::new(&disk, &folder.join(JOURNAL_DIR), journal.clock));
        let mut fold = Fold::new(dispatcher.run_id(), &self.facts.service, EventSeq(0), timeline);
        let wait_ns = self.settings.trace_wait_ms.saturating_mul(1_000_000);
        fold.wait_for_traces(i64::try_from(wait_ns).unwrap_or(i64::MAX));
        Writer {
            fold,
            drainer: Drainer::default(),
            cursor: journal.adopt_lane(),
            sealer: Some(Sealer::new(&disk, &folder, manifest)),
            dispatcher: dispatcher.clone(),
            settings: self.settings,
            progress: Arc::clone(progress),
            disk,
            folder,
            durable,
            background,
            job: None,
            failed: None,
            stated: Losses::default(),
            events_since_seal: 0,
            last_seal: Instant::now(),
            last_sync: Instant::now(),
            last_error: None,
            is_awaited: false,
            _lock: lock,
            target,
        }
    }
}

/// A run that nobody writes yet.
pub(crate) struct Prepared {
    pub(crate) dispatcher: Dispatcher,
    pub(crate) progress: Arc<Progress>,
    pub(crate) writer: Writer,
    folder: PathBuf,
}

/// Makes a run's folder. It appears under its name with its lock held and its manifest in it, or
/// not at all, so that nobody who looks for dead runs can take it for one.
fn make_folder(store: &Store, manifest: &Manifest) -> Result<(PathBuf, RunLock), StoreError> {
    let run_id = &manifest.run_id;
    let folder = store.run_dir(run_id);
    let hidden = store.runs_dir().join(format!("{NEW_PREFIX}{run_id}"));
    let disk = &**store.disk();
    let create_run = |result: io::Result<()>| result.map_err(StoreError::io("create run", &folder));
    create_run(disk.create_dir(&hidden.join(JOURNAL_DIR)))?;
    let lock = disk.lock(&hidden).map_err(StoreError::io("lock run", &folder))?;
    let lock = lock.ok_or_else(|| StoreError::Busy(run_id.clone()))?;
    write_manifest_on(disk, &hidden, manifest)?;
    create_run(disk.rename(&hidden, &folder))?;
    create_run(disk.sync_dir(&store.runs_dir()))?;
    Ok((folder, lock))
}

/// Where a run is written.
struct Place {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    lock: RunLock,
}

/// A run being written. Dropping it finishes the run as interrupted; [`Recorder::finish`] says
/// how it ended and what became of every event.
#[derive(Debug)]
pub struct Recorder {
    dispatcher: Dispatcher,
    progress: Arc<Progress>,
    commands: Sender<Command>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// The process that made it; in a forked child it must do nothing.
    pid: u32,
}

/// What became of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSummary {
    /// The run.
    pub run_id: RunId,
    /// Events offered; offered = accepted + dropped.
    pub offered: u64,
    /// Events journalled.
    pub accepted: u64,
    /// Events lost.
    pub dropped: u64,
    /// Events lost, by cause.
    pub losses: HashMap<DropCause, u64>,
    /// Spans in the run.
    pub spans: u64,
    /// Spans the program opened; opened = spans in the run + dropped ones.
    pub spans_opened: u64,
    /// Spans lost whole.
    pub spans_dropped: u64,
    /// How each handler fared.
    pub handlers: Vec<HandlerReport>,
    /// What went wrong with sealing, if the journal could not be turned into segments. The events
    /// are still in the journal; the next command that opens the store recovers them.
    pub unsealed: Option<String>,
}

impl Recorder {
    /// The run.
    #[must_use]
    pub fn run_id(&self) -> &RunId {
        self.dispatcher.run_id()
    }

    /// Emits events without `tracing`, and subscribes handlers.
    #[must_use]
    pub fn dispatcher(&self) -> &Dispatcher {
        &self.dispatcher
    }

    /// A `tracing` layer that records into this run.
    #[must_use]
    pub fn layer(&self) -> RecorderLayer {
        RecorderLayer::new(&self.dispatcher)
    }

    /// A `tracing` subscriber that records into this run and does nothing else: several times
    /// cheaper than the layer, because it needs no registry.
    #[must_use]
    pub fn subscriber(&self) -> RecorderSubscriber {
        RecorderSubscriber::new(&self.dispatcher)
    }

    /// Every event below this sequence number survives a power cut: the first so many, in the
    /// order the run has them. (Every event that was accepted at all survives the death of the
    /// process.)
    #[must_use]
    pub fn durable_below(&self) -> EventSeq {
        EventSeq(self.progress.durable_below.load(Ordering::Acquire))
    }

    /// Whether what is recorded survives the death of the process. `false` where the store's file
    /// system cannot map files; then only what is sealed does.
    #[must_use]
    pub fn survives_kill(&self) -> bool {
        self.dispatcher.target().journal.is_mapped()
    }

    /// Waits until everything emitted so far survives a power cut.
    ///
    /// # Errors
    /// The disk failed, or the run is over.
    pub fn flush(&self) -> io::Result<EventSeq> {
        let (reply, answer) = crossbeam_channel::bounded(1);
        self.command(Command::Flush(reply))?;
        answer.recv().map_err(|_| ended())?.map_err(io::Error::other)
    }

    /// Seals everything emitted so far into Parquet.
    ///
    /// # Errors
    /// The disk failed, or the run is over.
    pub fn seal(&self) -> io::Result<EventSeq> {
        let (reply, answer) = crossbeam_channel::bounded(1);
        self.command(Command::Seal(reply))?;
        answer.recv().map_err(|_| ended())?.map_err(io::Error::other)
    }

    /// Ends the run and says what became of it. Spans still open become `unfinished`.
    #[must_use]
    pub fn finish(self, status: RunStatus) -> RunSummary {
        self.end(status, None)
    }

    /// The same, but waits no longer than `at_most`. When sealing takes longer, the summary says
    /// so; it goes on in the background, and what it has not done when the process ends is still
    /// in the journal, from where the next command that opens the store recovers it.
    #[must_use]
    pub fn finish_within(self, status: RunStatus, at_most: Duration) -> RunSummary {
        self.end(status, Some(at_most))
    }

    fn end(&self, status: RunStatus, at_most: Option<Duration>) -> RunSummary {
        let (reply, answer) = crossbeam_channel::bounded(1);
        let sent = self.command(Command::Finish(status, reply));
        let thread = self.thread.lock().take();
        let summary = sent.ok().map(|()| match at_most {
            Some(at_most) => answer.recv_timeout(at_most).map_err(|error| error.is_timeout()),
            None => answer.recv().map_err(|_| false),
        });
        match summary {
            Some(Ok(summary)) => {
                if let Some(thread) = thread {
                    // A panic of the writer thread is reported through a missing summary.
                    let _ = thread.join();
                }
                summary
            }
            Some(Err(true)) => self.summary_without_writer("sealing takes longer than allowed"),
            _ => self.summary_without_writer("the writer thread ended early"),
        }
    }

    fn summary_without_writer(&self, reason: &str) -> RunSummary {
        let losses = self.dispatcher.target().journal.losses();
        let accepted = self.progress.drained_below.load(Ordering::Acquire);
        let dropped = losses.events.values().sum();
        RunSummary {
            run_id: self.run_id().clone(),
            offered: accepted + dropped,
            accepted,
            dropped,
            losses: losses.events.into_iter().collect(),
            spans: 0,
            spans_opened: 0,
            spans_dropped: losses.spans.values().sum(),
            handlers: Vec::new(),
            unsealed: Some(reason.to_owned()),
        }
    }

    fn command(&self, command: Command) -> io::Result<()> {
        if crate::fork::current_pid() != self.pid {
            return Err(io::Error::other("a forked child cannot use its parent's recorder"));
        }
        let wake = || self.dispatcher.target().journal.wake();
        order(&self.commands, command, wake).ok_or_else(ended)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if crate::fork::current_pid() != self.pid {
            // The thread to join does not exist in this process.
            std::mem::forget(self.thread.lock().take());
        } else if self.thread.lock().is_some() {
            let _ = self.end(RunStatus::Interrupted, None);
        }
    }
}

fn ended() -> io::Error {
    io::Error::other("the run is over")
}

/// Commands waiting for the writer thread; callers beyond that wait.
const COMMANDS_MAX: usize = 16;

#[cfg(test)]
mod tests;
