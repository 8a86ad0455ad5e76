//! A recording in steps, and what was recorded.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use retake_schemas::event::{Annotated, EventBody, Level, RunStatus};
use retake_schemas::event::{SpanClosed, SpanOpened, Status};
use retake_schemas::settings::{RecordSettings, SyncPolicy};
use retake_schemas::{RunId, SpanKey, TraceId};

use crate::clock::Clock;
use crate::disk::Disk;
use crate::disk::fault::{FaultDisk, Watched};
use crate::journal::{JournalLimits, Offered};
use crate::recorder::{Prepared, RunSummary};
use crate::store::StoreError;
use crate::subscriber::RecorderSubscriber;
use crate::writer::{Background, Progress, Writer};
use crate::{Dispatcher, RecorderBuilder, Store};

/// One event as it was recorded; its place in the sequence is its place in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recorded {
    /// The start or the end of the run: no row.
    Run,
    /// A log line with this number as its message.
    Note(u64),
    /// A span with ids, by its number.
    Open(u64),
    /// Its end.
    Close(u64),
    /// A span as threads record them, by its number; it is over at once.
    Quick(u64),
}

/// A run being recorded on a model disk, step by step.
pub(super) struct Session {
    pub(super) run_id: RunId,
    pub(super) recorded: Vec<Recorded>,
    /// Events that were not taken.
    pub(super) dropped: u64,
    pub(super) progress: Arc<Progress>,
    pub(super) writer: Writer,
    dispatcher: Dispatcher,
    subscriber: tracing::Dispatch,
    open: Vec<(u64, SpanKey)>,
    next: u64,
    is_seal_due: bool,
    /// How many are recorded, for the disk to note.
    count: Arc<AtomicU64>,
    /// Time of the first event, ns since the Unix epoch.
    started_unix_ns: i64,
}

impl Session {
    pub(super) fn start(
        disk: &FaultDisk,
        root: &Path,
        settings: RecordSettings,
    ) -> Result<Self, StoreError> {
        let store = Store::create_on(Arc::new(disk.clone()), root)?;
        let limits = JournalLimits { first_file_bytes: LANES_BYTES, ..JournalLimits::default() };
        let settings = RecordSettings { journal_bytes_max: LANES_BYTES, ..settings };
        let builder = RecorderBuilder::new("crash", "svc");
        let builder = builder.record_settings(settings).journal_limits(limits);
        let stepped = |progress| Ok(Background::Stepped { progress });
        let Prepared { dispatcher, progress, writer, .. } =
            builder.prepare(&store, Clock::start(), stepped)?;
        let run_id = dispatcher.run_id().clone();
        let lanes = store.run_dir(&run_id).join("journal").join(LANES_FILE);
        let count = Arc::new(AtomicU64::new(1));
        disk.watch(Watched {
            progress: Arc::clone(&progress),
            recorded: Arc::clone(&count),
            lanes: lanes.exists().then_some(lanes),
        });
        Ok(Self {
            run_id,
            recorded: vec![Recorded::Run],
            dropped: 0,
            progress,
            writer,
            subscriber: tracing::Dispatch::new(RecorderSubscriber::new(&dispatcher)),
            started_unix_ns: dispatcher.now_unix_ns(),
            dispatcher,
            open: Vec::new(),
            next: 0,
            is_seal_due: false,
            count,
        })
    }

    fn emit(&mut self, body: &EventBody, recorded: Recorded) -> bool {
        let time = self.started_unix_ns + event_time_ns(self.recorded.len());
        let is_taken = self.dispatcher.emit_at(time, body) == Offered::Accepted;
        if is_taken {
            self.push(recorded);
        } else {
            self.dropped += 1;
        }
        is_taken
    }

    fn push(&mut self, recorded: Recorded) {
        self.recorded.push(recorded);
        self.count.store(self.recorded.len() as u64, Ordering::Release);
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Records a log line that takes about so many bytes.
    pub(super) fn note(&mut self, bytes: usize) {
        let number = self.number();
        let padding = vec![("padding".into(), "x".repeat(bytes).into())];
        let line = Annotated {
            span: None,
            level: Level::Info,
            name: "note".to_owned(),
            target: "app".to_owned(),
            message: Some(number.to_string()),
            attributes: if bytes == 0 { Vec::new() } else { padding },
        };
        self.emit(&EventBody::Annotated(line), Recorded::Note(number));
    }

    /// Opens a span, inside the one opened last that is open.
    pub(super) fn open(&mut self) {
        let number = self.number();
        let parent = self.open.last().map(|(_, key)| *key);
        let span = SpanKey {
            trace_id: parent.map_or_else(TraceId::generate, |parent| parent.trace_id),
            span_id: self.dispatcher.new_span_id(),
        };
        let opened = SpanOpened {
            span,
            parent: parent.map(|parent| parent.span_id),
            name: format!("span {number}"),
            target: "app".to_owned(),
            level: Level::Info,
            source_file: None,
            source_line: None,
            thread: None,
            attributes: Vec::new(),
        };
        if self.emit(&EventBody::SpanOpened(Box::new(opened)), Recorded::Open(number)) {
            self.open.push((number, span));
        }
    }

    /// Ends the span opened last that is open.
    pub(super) fn close(&mut self) {
        let Some((number, span)) = self.open.pop() else { return };
        let closed = SpanClosed { span, busy_ns: None, status: Status::Ok, message: None };
        self.emit(&EventBody::SpanClosed(closed), Recorded::Close(number));
    }

    /// Opens and ends a span as an instrumented thread does.
    pub(super) fn quick(&mut self) {
        let number = self.number();
        tracing::dispatcher::with_default(&self.subscriber, || {
            drop(tracing::info_span!("quick", number));
        });
        self.push(Recorded::Quick(number));
        self.push(Recorded::Quick(number));
    }

    /// What the writer thread does when it wakes.
    pub(super) fn tick(&mut self) {
        if std::mem::take(&mut self.is_seal_due) {
            self.writer.settings.seal_secs = 1;
            self.pass_time();
        }
        self.writer.tick();
        self.writer.settings.seal_secs = NEVER_MS / 1000;
    }

    /// The same when the time for a flush has come.
    pub(super) fn tick_late(&mut self) {
        self.writer.settings.sync_ms = 0;
        self.writer.tick();
        self.writer.settings.sync_ms = NEVER_MS;
    }

    /// Lets the next tick begin a seal. The one after it writes its batch to the journal and ends
    /// the seal.
    pub(super) fn let_seal_be_due(&mut self) {
        self.is_seal_due = true;
    }

    /// Lets the wait before another try of a seal be over.
    pub(super) fn pass_time(&mut self) {
        if let Some(earlier) = Instant::now().checked_sub(Duration::from_secs(5)) {
            self.writer.last_seal = earlier;
        }
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.progress.durable_below.load(Ordering::Acquire)
    }

    pub(super) fn finish(self) -> RunSummary {
        self.writer.finish(RunStatus::Finished)
    }

    /// The folder of the run on its disk.
    pub(super) fn folder(root: &Path, run_id: &RunId) -> std::path::PathBuf {
        root.join("runs").join(run_id.as_str())
    }
}

/// When the event at this place was recorded, ns after the first.
pub(super) fn event_time_ns(place: usize) -> i64 {
    i64::try_from(place).unwrap() * 1_000_000
}

/// Settings with which only a test decides when something is sealed or flushed.
pub(super) fn settings(sync: SyncPolicy) -> RecordSettings {
    RecordSettings {
        sync,
        sync_ms: NEVER_MS,
        seal_events: u64::MAX,
        seal_secs: NEVER_MS / 1000,
        // It is the thread of the test that seals.
        seal_idle: false,
        ..RecordSettings::default()
    }
}

/// Whether the run has a folder.
pub(super) fn is_there(disk: &FaultDisk, root: &Path, run_id: &RunId) -> bool {
    disk.kind(&Session::folder(root, run_id)).is_some()
}

const NEVER_MS: u64 = 1_000_000_000;
/// Room for six chunks: the lanes of two doors and of the writer, and chunks to change to.
const LANES_BYTES: u64 = 4096 + (6 << 16);
/// The only file of lanes there is room for.
pub(super) const LANES_FILE: &str = "ring-0000.lanes";
