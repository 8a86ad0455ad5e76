//! A recorder: one run being written.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use parking_lot::Mutex;
use retake_schemas::event::{RunFacts, RunFinished, RunStatus};
use retake_schemas::manifest::Manifest;
use retake_schemas::settings::RecordSettings;
use retake_schemas::{EventBody, EventSeq, RunId, WriterId};

use crate::capture::CapturePolicy;
use crate::clock::Clock;
use crate::dispatcher::{Dispatcher, HandlerReport};
use crate::fold::{Fold, OpenSpans};
use crate::host::{git_facts, host_facts};
use crate::journal::{Lane, LaneLimits};
use crate::layer::RecorderLayer;
use crate::reader::{JOURNAL_DIR, load_tail};
use crate::seal::Sealer;
use crate::store::{NEW_PREFIX, RunLock, Store, StoreError, create_dir, sync_dir, write_manifest};

/// Starts recordings.
#[derive(Debug, Clone)]
pub struct RecorderBuilder {
    facts: RunFacts,
    settings: RecordSettings,
    limits: LaneLimits,
}

impl RecorderBuilder {
    /// A recording of `service` under the name `name`.
    #[must_use]
    pub fn new(name: impl Into<String>, service: impl Into<String>) -> Self {
        let facts = RunFacts { name: name.into(), service: service.into(), ..RunFacts::default() };
        Self { facts, settings: RecordSettings::default(), limits: LaneLimits::default() }
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

    /// Sizes of the journal, for tests and for machines with little disk.
    #[must_use]
    pub fn journal_limits(mut self, limits: LaneLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Makes the run and starts recording.
    ///
    /// # Errors
    /// The run's folder or its first manifest cannot be written.
    pub fn start(mut self, store: &Store) -> Result<Recorder, StoreError> {
        let clock = Clock::start();
        self.facts.started_unix_ns = clock.now_unix_ns();
        self.facts.capture = self.settings.capture;
        self.facts.host = host_facts();
        self.facts.recorder_version = env!("CARGO_PKG_VERSION").to_owned();
        if let Ok(here) = std::env::current_dir() {
            (self.facts.git_sha, self.facts.git_branch) = git_facts(&here);
        }
        let run_id = RunId::generate(self.facts.started_unix_ns);
        let manifest = Manifest::new(run_id.clone(), self.facts.clone());
        let (folder, lock) = make_folder(store, &manifest)?;
        let journal = folder.join(JOURNAL_DIR);
        let limits =
            LaneLimits { journal_bytes_max: self.settings.journal_bytes_max, ..self.limits };
        let lane = Arc::new(Lane::new(&journal, WriterId(0), EventSeq(0), limits, clock));
        let policy = CapturePolicy::new(self.settings.capture, self.settings.payload_bytes_max);
        let dispatcher = Dispatcher::new(run_id.clone(), Arc::clone(&lane), policy);
        dispatcher.emit(&EventBody::RunStarted(Box::new(self.facts.clone())));
        let progress = Arc::new(Progress::default());
        let writer = Writer {
            fold: Fold::new(&run_id, &self.facts.service, EventSeq(0)),
            sealer: Sealer::new(&folder, manifest),
            lane: Arc::clone(&lane),
            dispatcher: dispatcher.clone(),
            settings: self.settings,
            progress: Arc::clone(&progress),
            drained: BTreeMap::new(),
            events_since_seal: 0,
            last_seal: Instant::now(),
            last_sync: Instant::now(),
            last_error: None,
            _lock: lock,
        };
        let (commands, inbox) = crossbeam_channel::bounded(COMMANDS_MAX);
        let thread = std::thread::Builder::new()
            .name("retake-writer".to_owned())
            .spawn(move || writer.run(&inbox))
            .map_err(StoreError::io("start writer of", &folder))?;
        Ok(Recorder { dispatcher, lane, progress, commands, thread: Mutex::new(Some(thread)) })
    }
}

/// Makes a run's folder. It appears under its name with its lock held and its manifest in it, or
/// not at all, so that nobody who looks for dead runs can take it for one.
fn make_folder(store: &Store, manifest: &Manifest) -> Result<(PathBuf, RunLock), StoreError> {
    let run_id = &manifest.run_id;
    let folder = store.run_dir(run_id);
    let hidden = store.runs_dir().join(format!("{NEW_PREFIX}{run_id}"));
    create_dir(&hidden.join(JOURNAL_DIR)).map_err(StoreError::io("create run", &folder))?;
    let lock = RunLock::take(&hidden, run_id)?;
    write_manifest(&hidden, manifest)?;
    std::fs::rename(&hidden, &folder).map_err(StoreError::io("create run", &folder))?;
    sync_dir(&store.runs_dir()).map_err(StoreError::io("create run", &folder))?;
    Ok((folder, lock))
}

/// A run being written. Dropping it finishes the run as interrupted; [`Recorder::finish`] says
/// how it ended and what became of every event.
#[derive(Debug)]
pub struct Recorder {
    dispatcher: Dispatcher,
    lane: Arc<Lane>,
    progress: Arc<Progress>,
    commands: Sender<Command>,
    thread: Mutex<Option<JoinHandle<()>>>,
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
    /// Spans in the run.
    pub spans: u64,
    /// How each handler fared.
    pub handlers: Vec<HandlerReport>,
    /// What went wrong with sealing, if the journal could not be turned into segments. The events
    /// are still in the journal; the next command that opens the store recovers them.
    pub unsealed: Option<String>,
}

#[derive(Debug, Default)]
struct Progress {
    durable_below: AtomicU64,
    sealed_below: AtomicU64,
    has_failed: AtomicBool,
}

enum Command {
    /// Make everything journalled so far survive a power cut.
    Flush(Sender<io::Result<EventSeq>>),
    /// Seal everything journalled so far.
    Seal(Sender<Result<EventSeq, String>>),
    /// End the run.
    Finish(RunStatus, Sender<RunSummary>),
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
        RecorderLayer::new(self.dispatcher.clone())
    }

    /// Every event below this sequence number survives a power cut. (Every event that was
    /// accepted at all survives the death of the process.)
    #[must_use]
    pub fn durable_below(&self) -> EventSeq {
        EventSeq(self.progress.durable_below.load(Ordering::Acquire))
    }

    /// Waits until everything emitted so far survives a power cut.
    ///
    /// # Errors
    /// The disk failed, or the run is over.
    pub fn flush(&self) -> io::Result<EventSeq> {
        let (reply, answer) = crossbeam_channel::bounded(1);
        self.command(Command::Flush(reply))?;
        answer.recv().map_err(|_| ended())?
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
        self.end(status)
    }

    fn end(&self, status: RunStatus) -> RunSummary {
        let (reply, answer) = crossbeam_channel::bounded(1);
        let sent = self.command(Command::Finish(status, reply));
        let summary = sent.ok().and_then(|()| answer.recv().ok());
        if let Some(thread) = self.thread.lock().take() {
            // A panic of the writer thread is reported through the missing summary.
            let _ = thread.join();
        }
        summary.unwrap_or_else(|| {
            let state = self.lane.state();
            RunSummary {
                run_id: self.run_id().clone(),
                offered: state.offered,
                accepted: state.accepted,
                dropped: state.dropped.values().sum(),
                spans: 0,
                handlers: Vec::new(),
                unsealed: Some("the writer thread ended early".to_owned()),
            }
        })
    }

    fn command(&self, command: Command) -> io::Result<()> {
        self.commands.send(command).map_err(|_| ended())?;
        self.lane.wake();
        Ok(())
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if self.thread.lock().is_some() {
            let _ = self.end(RunStatus::Interrupted);
        }
    }
}

fn ended() -> io::Error {
    io::Error::other("the run is over")
}

/// The writer thread: drains the journal, feeds handlers, seals.
struct Writer {
    fold: Fold,
    sealer: Sealer,
    lane: Arc<Lane>,
    dispatcher: Dispatcher,
    settings: RecordSettings,
    progress: Arc<Progress>,
    /// How far each journal file has been read.
    drained: BTreeMap<std::path::PathBuf, usize>,
    events_since_seal: u64,
    last_seal: Instant,
    last_sync: Instant,
    last_error: Option<String>,
    _lock: RunLock,
}

impl Writer {
    fn run(mut self, inbox: &Receiver<Command>) {
        loop {
            self.lane.wait(TICK);
            self.sync_if_due();
            self.drain();
            if self.is_seal_due() {
                self.seal();
            }
            while let Ok(command) = inbox.try_recv() {
                match command {
                    Command::Flush(reply) => drop(reply.send(self.sync())),
                    Command::Seal(reply) => {
                        self.drain();
                        self.seal();
                        let sealed = EventSeq(self.progress.sealed_below.load(Ordering::Relaxed));
                        let outcome = self.last_error.clone().map_or(Ok(sealed), Err);
                        drop(reply.send(outcome));
                    }
                    Command::Finish(status, reply) => {
                        drop(reply.send(self.finish(status)));
                        return;
                    }
                }
            }
        }
    }

    /// Reads what was journalled since the last time, folds it, and hands it to handlers.
    fn drain(&mut self) {
        for file in self.lane.files() {
            let from = self.drained.get(&file.path).copied().unwrap_or(0);
            if file.end <= from {
                continue;
            }
            match crate::journal::read_range(&file.path, from, file.end) {
                Ok(mut events) => {
                    // After a reload the journal is read again; handlers must not see it twice.
                    events.retain(|event| event.seq >= self.fold.next_seq());
                    self.dispatcher.fan_out(&events, &self.fold);
                    for event in &events {
                        self.fold.apply(event);
                    }
                    self.events_since_seal += events.len() as u64;
                    self.drained.insert(file.path, file.end);
                }
                // Stays in the journal; the next tick or recovery reads it.
                Err(error) => {
                    self.failed(format!("read journal: {error}"));
                    return;
                }
            }
        }
    }

    fn is_seal_due(&self) -> bool {
        self.events_since_seal >= self.settings.seal_events
            || (self.events_since_seal > 0
                && self.last_seal.elapsed() >= Duration::from_secs(self.settings.seal_secs.max(1)))
    }

    fn seal(&mut self) {
        if self.events_since_seal == 0 && !self.progress.has_failed.load(Ordering::Relaxed) {
            return;
        }
        self.last_seal = Instant::now();
        match self.sealer.seal(&mut self.fold, OpenSpans::Carry, RunStatus::Recording) {
            Ok(sealed_below) => {
                self.events_since_seal = 0;
                self.progress.sealed_below.store(sealed_below.0, Ordering::Release);
                self.progress.durable_below.fetch_max(sealed_below.0, Ordering::AcqRel);
                self.progress.has_failed.store(false, Ordering::Relaxed);
                self.last_error = None;
                self.lane.remove_sealed(sealed_below);
                self.drained.retain(|path, _| path.exists());
            }
            Err(error) => self.reload(error.to_string()),
        }
    }

    /// After a failed seal the rows in memory are spent, but the journal still has everything.
    fn reload(&mut self, reason: String) {
        self.failed(reason);
        let folder = self.folder();
        match load_tail(&folder, self.sealer.manifest()) {
            Ok(loaded) => {
                self.fold = loaded.fold;
                self.events_since_seal = loaded.events;
                // What the reload has read must not be read again; sequence numbers see to that.
                self.drained.clear();
            }
            Err(error) => self.failed(error.to_string()),
        }
    }

    fn folder(&self) -> std::path::PathBuf {
        self.sealer.folder().to_owned()
    }

    fn failed(&mut self, reason: String) {
        self.progress.has_failed.store(true, Ordering::Relaxed);
        self.last_error = Some(reason);
    }

    fn sync_if_due(&mut self) {
        let every = Duration::from_millis(self.settings.sync_ms);
        if !every.is_zero() && self.last_sync.elapsed() >= every {
            // The watermark simply does not advance when the disk fails.
            let _ = self.sync();
        }
    }

    fn sync(&mut self) -> io::Result<EventSeq> {
        self.last_sync = Instant::now();
        let durable = EventSeq(self.progress.durable_below.load(Ordering::Acquire));
        let (handle, next_seq) = self.lane.sync_handle()?;
        if next_seq <= durable {
            return Ok(durable);
        }
        // Full files first: the watermark covers everything before it.
        for file in self.lane.files().iter().filter(|file| file.is_full) {
            if file.next_seq > durable {
                std::fs::File::open(&file.path)?.sync_data()?;
            }
        }
        if let Some(file) = handle {
            file.sync_data()?;
        }
        self.progress.durable_below.fetch_max(next_seq.0, Ordering::AcqRel);
        Ok(next_seq)
    }

    fn finish(mut self, status: RunStatus) -> RunSummary {
        self.dispatcher.emit(&EventBody::RunFinished(RunFinished { status }));
        self.lane.close();
        self.drain();
        let handlers = self.dispatcher.finish_handlers();
        let mut outcome = self.sealer.seal(&mut self.fold, OpenSpans::Finish, status);
        if let Err(error) = &outcome {
            self.reload(error.to_string());
            outcome = self.sealer.seal(&mut self.fold, OpenSpans::Finish, status);
        }
        let unsealed = match outcome {
            Ok(_) => {
                self.lane.remove_all();
                let _ = std::fs::remove_dir(self.folder().join(JOURNAL_DIR));
                None
            }
            Err(error) => Some(error.to_string()),
        };
        let state = self.lane.state();
        RunSummary {
            run_id: self.dispatcher.run_id().clone(),
            offered: state.offered,
            accepted: state.accepted,
            dropped: state.dropped.values().sum(),
            spans: self.sealer.manifest().rows(retake_schemas::tables::TableName::Spans),
            handlers,
            unsealed,
        }
    }
}

/// How often the writer thread looks without being woken.
const TICK: Duration = Duration::from_millis(50);
/// Commands waiting for the writer thread; callers beyond that wait.
const COMMANDS_MAX: usize = 16;

#[cfg(test)]
mod tests;
