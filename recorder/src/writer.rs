//! The writer thread: drains the lanes, feeds handlers, has segments sealed.
//!
//! It never does what could hold the draining up: sealing runs on a thread of its own, at idle
//! priority as long as it keeps up, and so does flushing to the disk. Whatever fails is tried
//! again; the journal keeps everything until its seal is in place.

mod background;
mod orders;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use retake_schemas::event::{DropCause, Gap, RunFinished, RunStatus};
use retake_schemas::settings::{RecordSettings, SyncPolicy};
use retake_schemas::tables::TableName;
use retake_schemas::{EventBody, EventSeq};

use crate::disk::Disk;
use crate::dispatcher::{Dispatcher, Told};
use crate::door::Target;
use crate::fold::{Fold, OpenSpans};
use crate::journal::durable::DurableJournal;
use crate::journal::record::{self, Kind};
use crate::journal::{Cursor, DrainLimit, Drained, Drainer, LanePositions, Losses, encode_body};
use crate::priority;
use crate::reader::JOURNAL_DIR;
use crate::recorder::RunSummary;
use crate::seal::{SealInput, Sealer};
use crate::store::RunLock;
use crate::sync;
pub(crate) use background::Background;
use background::{SealJob, SealOutcome, SealWork};
pub(crate) use orders::order;
use orders::{Serves, serve};

/// What the recorder asks of its writer thread.
pub(crate) enum Command {
    /// Make everything recorded so far survive a power cut.
    Flush(Sender<Result<EventSeq, String>>),
    /// Seal everything recorded so far.
    Seal(Sender<Result<EventSeq, String>>),
    /// End the run.
    Finish(RunStatus, Sender<RunSummary>),
}

/// How far the run is safe, for anybody to read.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) durable_below: AtomicU64,
    pub(crate) sealed_below: AtomicU64,
    pub(crate) drained_below: AtomicU64,
}

/// The writer thread's state.
pub(crate) struct Writer {
    pub(crate) fold: Fold,
    pub(crate) drainer: Drainer,
    pub(crate) cursor: Cursor,
    pub(crate) sealer: Option<Sealer>,
    pub(crate) target: Arc<Target>,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) settings: RecordSettings,
    pub(crate) progress: Arc<Progress>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) folder: PathBuf,
    pub(crate) durable: Option<DurableJournal>,
    pub(crate) background: Background,
    pub(crate) job: Option<SealJob>,
    /// A seal that failed, to be tried again as it was.
    pub(crate) failed: Option<(SealInput, Vec<PathBuf>)>,
    pub(crate) stated: Losses,
    pub(crate) events_since_seal: u64,
    pub(crate) last_seal: Instant,
    pub(crate) last_sync: Instant,
    pub(crate) last_error: Option<String>,
    /// A thread of the program waits for what is being done.
    pub(crate) is_awaited: bool,
    pub(crate) _lock: RunLock,
}

impl Writer {
    pub(crate) fn run(self, inbox: &Receiver<Command>) {
        priority::make_thread_patient();
        serve(self, inbox);
    }

    /// What there is to do each time it wakes. It waits for no flush and for no seal.
    pub(crate) fn tick(&mut self) {
        self.target.journal.grow_ahead();
        self.state_losses();
        self.write_anchor();
        // Rows wait in memory while a seal is under way; the journal bounds what comes after.
        let is_behind = self.job.is_some() && self.is_seal_due();
        let drained = (!is_behind).then(|| self.drain_some(self.target.journal.clock.ticks()));
        self.sync_if_due();
        if self.job.as_ref().is_some_and(SealJob::is_finished) {
            self.end_seal();
        }
        // On a full disk trying again at once would only cost the program its processor.
        let is_due = if self.failed.is_some() { self.is_retry_due() } else { self.is_seal_due() };
        if self.job.is_none() && is_due {
            self.begin_seal(OpenSpans::Carry, RunStatus::Recording);
        }
        if drained.is_some_and(|drained| !drained.is_all) && !self.is_seal_due() {
            self.target.journal.wake();
        }
    }

    /// Reads what was recorded before `before` (ticks), but not more than one seal is to hold.
    fn drain_some(&mut self, before: u64) -> Drained {
        let events = self.settings.seal_events.saturating_sub(self.events_since_seal).max(1);
        let words = HELD_BYTES_MAX.saturating_sub(self.fold.held_bytes()).max(8) / 8;
        self.drain((before, DrainLimit { events, words }))
    }

    /// Reads everything that was recorded until now.
    fn drain_all(&mut self) {
        self.drain((self.now(), DrainLimit::NONE));
    }

    /// A moment after everything that was recorded until now.
    fn now(&self) -> u64 {
        let clock = &self.target.journal.clock;
        let (before, mut now) = (clock.ticks(), clock.ticks());
        // Where the clock has large steps, what was just recorded may have the present time.
        while now == before {
            std::hint::spin_loop();
            now = clock.ticks();
        }
        now
    }

    /// Reads what was recorded since the last time, folds it, and hands it to handlers.
    fn drain(&mut self, what: (u64, DrainLimit)) -> Drained {
        let journal = &self.target.journal;
        self.fold.advance_clock(journal.clock.anchor());
        let (fold, durable) = (&mut self.fold, &mut self.durable);
        let mut told = self.dispatcher.has_handlers().then(Told::default);
        let drained = self.drainer.drain(
            journal,
            what,
            |place, record| fold.record(place, record, told.as_mut()),
            |run| {
                if let Some(durable) = durable {
                    durable.add(run);
                }
            },
        );
        fold.rebase_clock(drained.until);
        self.events_since_seal += drained.events;
        for callsite in fold.take_polled() {
            journal.callsites.mark_polled(callsite);
        }
        if let Some(told) = told.filter(|told| !told.events.is_empty()) {
            self.dispatcher.fan_out(&told, fold);
        }
        self.progress.drained_below.store(fold.next_seq().0, Ordering::Release);
        if let Some(durable) = &mut self.durable {
            durable.write();
        }
        drained
    }

    /// Writes a `Gap` for losses that none has stated yet. Without room they are stated later.
    fn state_losses(&mut self) {
        let losses = self.target.journal.losses();
        for (cause, total) in &losses.events {
            let stated = self.stated.events.get(cause).copied().unwrap_or(0);
            let spans = losses.spans.get(cause).copied().unwrap_or(0);
            let spans_stated = self.stated.spans.get(cause).copied().unwrap_or(0);
            if *total > stated && self.state_loss(*cause, total - stated, spans - spans_stated) {
                self.stated.events.insert(*cause, *total);
                self.stated.spans.insert(*cause, spans);
            }
        }
    }

    fn state_loss(&mut self, cause: DropCause, dropped: u64, spans: u64) -> bool {
        let mut bytes = Vec::new();
        let gap = EventBody::Gap(Gap { dropped, spans, cause });
        if encode_body(&gap, &mut bytes).is_err() {
            return false;
        }
        let clock = &self.target.journal.clock;
        let now = clock.now_unix_ns().cast_unsigned();
        let words = record::with_payload(Kind::Body, clock.ticks(), now, &bytes);
        self.append(Kind::Body, &words)
    }

    /// Appends to the writer's own lane, without waiting for a chunk: only this thread frees any.
    fn append(&mut self, kind: Kind, words: &[u64]) -> bool {
        self.cursor.append_as(&self.target.journal, Kind::Anchor, kind, words).is_ok()
    }

    /// The wall time that belongs to the ticks of now, for readers in other processes.
    fn write_anchor(&mut self) {
        let anchor = self.target.journal.clock.anchor();
        let words = [0, anchor.ticks, anchor.unix_ns.cast_unsigned()];
        let _ = self.append(Kind::Anchor, &words);
    }

    fn is_seal_due(&self) -> bool {
        let has_much = self.events_since_seal >= self.settings.seal_events
            || self.fold.held_bytes() >= HELD_BYTES_MAX;
        let is_old =
            self.last_seal.elapsed() >= Duration::from_secs(self.settings.seal_secs.max(1));
        // Until then nothing more is acknowledged.
        let is_only_way =
            self.durable.as_ref().is_some_and(DurableJournal::has_failed) && self.is_retry_due();
        has_much || (self.events_since_seal > 0 && (is_old || is_only_way))
    }

    fn is_retry_due(&self) -> bool {
        self.last_seal.elapsed() >= RETRY
    }

    /// Starts a seal of everything drained, or of the one that failed.
    fn begin_seal(&mut self, open_spans: OpenSpans, status: RunStatus) {
        let Some(sealer) = self.sealer.take() else { return };
        self.last_seal = Instant::now();
        let (input, durable_files) = match self.failed.take() {
            Some(failed) => failed,
            None => (self.seal_input(open_spans, status), self.cut_durable()),
        };
        // At idle priority sealing never takes a core from the program; once it falls behind it
        // competes for one, for a full journal would cost the program more. So it does when a
        // thread of the program waits for it: a busy program would hold itself up.
        let journal = &self.target.journal;
        let is_idle = self.settings.seal_idle && !self.is_awaited && journal.is_half_empty();
        let target = Arc::clone(&self.target);
        let work = SealWork { sealer, input, durable_files, is_idle, target };
        match self.background.seal(work) {
            Ok(job) => self.job = Some(job),
            Err(error) => {
                // Sealer and rows went with the thread; the journal has everything, and the
                // next command that opens the store recovers it.
                self.last_error = Some(format!("start the sealing thread: {error}"));
            }
        }
    }

    fn seal_input(&mut self, open_spans: OpenSpans, status: RunStatus) -> SealInput {
        self.events_since_seal = 0;
        let rows = self.fold.take(open_spans);
        SealInput {
            carried: match open_spans {
                OpenSpans::Carry => self.fold.carried(),
                OpenSpans::Finish => Vec::new(),
            },
            positions: self.drainer.positions(),
            next_seq: self.fold.next_seq(),
            last_unix_ns: self.fold.last_unix_ns(),
            traces: self.fold.traces(),
            spans: self.fold.span_counts(),
            drops: self.fold.take_stated_drops(),
            records_lost: self.drainer.damaged(),
            status,
            rows,
        }
    }

    fn cut_durable(&mut self) -> Vec<PathBuf> {
        self.durable.as_mut().map(DurableJournal::cut).unwrap_or_default()
    }

    /// Waits for the seal under way and takes its outcome in.
    pub(crate) fn end_seal(&mut self) {
        let Some(job) = self.job.take() else { return };
        let Some(outcome) = job.outcome() else {
            self.last_error = Some("the sealing thread panicked".to_owned());
            return;
        };
        let SealOutcome { sealer, input, durable_files, result } = outcome;
        self.sealer = Some(sealer);
        match result {
            Ok(()) => {
                self.sealed(&input.positions, input.next_seq);
                self.fold.recycle(input.rows);
                for path in durable_files {
                    // Left behind it holds nothing that the manifest does not say is sealed.
                    let _ = self.disk.remove(&path);
                }
            }
            Err(reason) => {
                self.last_error = Some(reason);
                self.failed = Some((input, durable_files));
            }
        }
    }

    /// Seals once more what could not be sealed, and waits for it.
    fn retry_failed(&mut self) {
        if self.failed.is_some() {
            self.begin_seal(OpenSpans::Carry, RunStatus::Recording);
            self.end_seal();
        }
    }

    fn sealed(&mut self, positions: &LanePositions, next_seq: EventSeq) {
        self.last_error = None;
        self.progress.sealed_below.store(next_seq.0, Ordering::Release);
        self.progress.durable_below.fetch_max(next_seq.0, Ordering::AcqRel);
        self.drainer.retire_sealed(&self.target.journal, positions);
    }

    /// Seals everything recorded until now, and waits for it.
    fn seal_now(&mut self, open_spans: OpenSpans) -> Result<EventSeq, String> {
        self.end_seal();
        self.state_losses();
        self.retry_failed();
        let now = self.now();
        loop {
            let drained = self.drain_some(now);
            if self.failed.is_none() && self.events_since_seal > 0 {
                self.begin_seal(open_spans, RunStatus::Recording);
                self.end_seal();
            }
            if drained.is_all || self.failed.is_some() {
                break;
            }
        }
        match self.last_error.clone() {
            None => Ok(EventSeq(self.progress.sealed_below.load(Ordering::Acquire))),
            Some(error) => Err(error),
        }
    }

    /// Makes everything recorded until now survive a power cut: by the durable journal where
    /// there is one, else by sealing it.
    pub(crate) fn flush(&mut self) -> Result<EventSeq, String> {
        if self.durable.is_none() {
            return self.seal_now(OpenSpans::Carry);
        }
        self.state_losses();
        self.drain_all();
        // After a failed flush the rows go into segments instead.
        let is_flushed = self.is_journal_enough()
            && self
                .durable
                .as_ref()
                .and_then(DurableJournal::current)
                .is_none_or(|file| file.sync().is_ok());
        if !is_flushed {
            return self.seal_now(OpenSpans::Carry);
        }
        let drained = self.fold.next_seq();
        self.progress.durable_below.fetch_max(drained.0, Ordering::AcqRel);
        Ok(drained)
    }

    /// Whether everything drained that is not sealed stands in the durable journal's present file.
    /// While a seal is under way, or after one has failed, part of it stands in earlier files.
    fn is_journal_enough(&self) -> bool {
        let is_sealed_before = self.sealer.is_some() && self.failed.is_none();
        is_sealed_before && self.durable.as_ref().is_some_and(|durable| !durable.has_failed())
    }

    fn sync_if_due(&mut self) {
        let is_due = match self.settings.sync {
            SyncPolicy::Never => false,
            SyncPolicy::Batch => true,
            SyncPolicy::Interval => {
                self.last_sync.elapsed() >= Duration::from_millis(self.settings.sync_ms)
            }
        };
        let drained = self.fold.next_seq().0;
        let is_ahead = drained > self.progress.durable_below.load(Ordering::Acquire);
        if !is_due || !is_ahead || !self.is_journal_enough() {
            return;
        }
        self.last_sync = Instant::now();
        if let Some(file) = self.durable.as_ref().and_then(DurableJournal::current) {
            self.background.flush(file, drained);
        }
    }

    /// Ends the run.
    pub(crate) fn finish(mut self, status: RunStatus) -> RunSummary {
        self.dispatcher.emit(&EventBody::RunFinished(RunFinished { status }));
        // While lanes still take records: should the last seal fail, the journal has them.
        self.state_losses();
        self.target.close();
        // Threads that were in the middle of a record when the journal closed are done by now.
        std::thread::yield_now();
        self.end_seal();
        let now = self.now();
        while !self.drain_some(now).is_all && self.failed.is_none() {
            self.begin_seal(OpenSpans::Carry, RunStatus::Recording);
            self.end_seal();
        }
        self.drain_all();
        let losses = self.state_losses_closed();
        let handlers = self.dispatcher.finish_handlers();
        self.retry_failed();
        if self.failed.is_none() {
            self.begin_seal(OpenSpans::Finish, status);
            self.end_seal();
            // There is no later try: a disk that failed for a moment gets a second one now.
            self.retry_failed();
        }
        let unsealed = match (&self.failed, &self.sealer) {
            (None, Some(_)) => {
                self.target.journal.remove_files();
                let _ = self.disk.remove_dir(&self.folder.join(JOURNAL_DIR));
                None
            }
            _ => Some(self.last_error.clone().unwrap_or_else(|| "sealing failed".to_owned())),
        };
        let accepted = self.fold.next_seq().0;
        let dropped = losses.events.values().sum();
        let counts = self.fold.span_counts();
        RunSummary {
            run_id: self.dispatcher.run_id().clone(),
            offered: accepted + dropped,
            accepted,
            dropped,
            spans: self.sealer.as_ref().map_or(0, |s| s.manifest().rows(TableName::Spans)),
            spans_opened: counts.opened,
            spans_dropped: counts.dropped,
            losses: losses.events.into_iter().collect::<HashMap<_, _>>(),
            handlers,
            unsealed,
        }
    }

    /// States losses when lanes take nothing more: straight into the fold. Gives them; what is
    /// offered later is no part of the run.
    fn state_losses_closed(&mut self) -> Losses {
        let losses = self.target.journal.losses();
        let now = self.target.journal.clock.now_unix_ns();
        for (cause, total) in &losses.events {
            let stated = self.stated.events.get(cause).copied().unwrap_or(0);
            let spans = losses.spans.get(cause).copied().unwrap_or(0);
            let spans_stated = self.stated.spans.get(cause).copied().unwrap_or(0);
            if *total > stated {
                let (dropped, spans) = (total - stated, spans - spans_stated);
                self.fold.state_gap(now, &Gap { dropped, spans, cause: *cause });
                self.stated.events.insert(*cause, *total);
            }
        }
        losses
    }
}

impl Serves for Writer {
    type Order = Command;

    fn wait(&self) {
        self.target.journal.wait(TICK);
    }

    fn tick(&mut self) {
        Self::tick(self);
    }

    fn obey(mut self, command: Command) -> Option<Self> {
        self.is_awaited = true;
        match command {
            Command::Flush(reply) => drop(reply.send(self.flush())),
            Command::Seal(reply) => drop(reply.send(self.seal_now(OpenSpans::Carry))),
            Command::Finish(status, reply) => {
                drop(reply.send(self.finish(status)));
                return None;
            }
        }
        self.is_awaited = false;
        Some(self)
    }
}

/// How often the writer thread looks without being woken.
const TICK: Duration = Duration::from_millis(50);
/// Attributes held in memory before a seal, bytes.
const HELD_BYTES_MAX: usize = 64 << 20;
/// A failed seal is tried again after this.
const RETRY: Duration = Duration::from_secs(1);
