//! The writer thread: drains the lanes, feeds handlers, has segments sealed.
//!
//! It never does what could hold the draining up: sealing runs on a thread of its own, at idle
//! priority as long as it keeps up, and so does flushing to the disk. Whatever fails is tried
//! again; the journal keeps everything until its seal is in place.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use retake_schemas::event::{DropCause, Gap, RunFinished, RunStatus};
use retake_schemas::settings::{RecordSettings, SyncPolicy};
use retake_schemas::tables::TableName;
use retake_schemas::{EventBody, EventSeq};

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
    pub(crate) folder: PathBuf,
    pub(crate) durable: Option<DurableJournal>,
    pub(crate) syncer: Syncer,
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

/// A seal under way on a thread of its own.
pub(crate) struct SealJob {
    thread: JoinHandle<SealOutcome>,
    is_done: Arc<AtomicBool>,
}

impl SealJob {
    fn is_done(&self) -> bool {
        // A thread that panicked says nothing.
        self.is_done.load(Ordering::Acquire) || self.thread.is_finished()
    }
}

struct SealOutcome {
    sealer: Sealer,
    input: SealInput,
    durable_files: Vec<PathBuf>,
    result: Result<(), String>,
}

impl Writer {
    pub(crate) fn run(mut self, inbox: &Receiver<Command>) {
        priority::make_thread_patient();
        loop {
            self.target.journal.wait(TICK);
            self.tick();
            while let Ok(command) = inbox.try_recv() {
                self.is_awaited = true;
                match command {
                    Command::Flush(reply) => drop(reply.send(self.flush())),
                    Command::Seal(reply) => drop(reply.send(self.seal_now(OpenSpans::Carry))),
                    Command::Finish(status, reply) => {
                        drop(reply.send(self.finish(status)));
                        return;
                    }
                }
                self.is_awaited = false;
            }
        }
    }

    pub(crate) fn tick(&mut self) {
        self.target.journal.grow_ahead();
        self.state_losses();
        self.write_anchor();
        // Rows wait in memory while a seal is under way; the journal bounds what comes after.
        let is_behind = self.job.is_some() && self.is_seal_due();
        let drained = (!is_behind).then(|| self.drain_some(self.target.journal.clock.ticks()));
        self.sync_if_due();
        if self.job.as_ref().is_some_and(SealJob::is_done) {
            self.end_seal();
        }
        if self.job.is_none() && (self.is_seal_due() || self.is_retry_due()) {
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
        if let Some(durable) = &mut self.durable
            && let Err(error) = durable.write(journal.clock.now_unix_ns())
        {
            // The watermark does not advance; the next seal covers what is missing here.
            self.last_error = Some(format!("write journal: {error}"));
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
        has_much || (self.events_since_seal > 0 && is_old)
    }

    fn is_retry_due(&self) -> bool {
        self.failed.is_some() && self.last_seal.elapsed() >= RETRY
    }

    /// Starts a seal of everything drained, or of the one that failed.
    fn begin_seal(&mut self, open_spans: OpenSpans, status: RunStatus) {
        let Some(mut sealer) = self.sealer.take() else { return };
        self.last_seal = Instant::now();
        let (mut input, durable_files) = match self.failed.take() {
            Some(failed) => failed,
            None => (self.seal_input(open_spans, status), self.cut_durable()),
        };
        let is_done = Arc::new(AtomicBool::new(false));
        let (says_done, target) = (Arc::clone(&is_done), Arc::clone(&self.target));
        // At idle priority sealing never takes a core from the program; once it falls behind it
        // competes for one, for a full journal would cost the program more. So it does when a
        // thread of the program waits for it: a busy program would hold itself up.
        let journal = &self.target.journal;
        let is_idle = self.settings.seal_idle && !self.is_awaited && journal.is_half_empty();
        let work = move || {
            if is_idle {
                priority::make_thread_idle();
            }
            let result = sealer.seal(&input).map_err(|error| error.to_string());
            if result.is_ok() {
                // Here rather than on the writer thread, which others wait for.
                input.rows.clear();
            }
            // What waits for this seal need not wait for the next tick as well.
            says_done.store(true, Ordering::Release);
            target.journal.wake();
            SealOutcome { sealer, input, durable_files, result }
        };
        let thread = std::thread::Builder::new().name("retake-seal".to_owned()).spawn(work);
        match thread {
            Ok(thread) => self.job = Some(SealJob { thread, is_done }),
            Err(error) => {
                // Sealer and rows went with the closure; the journal has everything, and the
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
        let Ok(outcome) = job.thread.join() else {
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
                    let _ = std::fs::remove_file(path);
                }
            }
            Err(reason) => {
                self.last_error = Some(reason);
                self.failed = Some((input, durable_files));
            }
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
        if self.failed.is_some() {
            self.begin_seal(open_spans, RunStatus::Recording);
            self.end_seal();
        }
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
    fn flush(&mut self) -> Result<EventSeq, String> {
        if self.durable.is_none() {
            return self.seal_now(OpenSpans::Carry);
        }
        self.state_losses();
        self.drain_all();
        let file = match (&self.last_error, &self.durable) {
            (None, Some(durable)) => durable.sync_handle(),
            _ => return self.seal_now(OpenSpans::Carry),
        };
        let synced = file.and_then(|file| file.map_or(Ok(()), |file| file.sync_data()));
        // After a failed flush the kernel may have dropped the pages; another flush of the same
        // file would lie. The rows go into segments instead.
        if synced.is_err() || self.job.is_some() {
            return self.seal_now(OpenSpans::Carry);
        }
        let drained = self.fold.next_seq();
        self.progress.durable_below.fetch_max(drained.0, Ordering::AcqRel);
        Ok(drained)
    }

    fn sync_if_due(&mut self) {
        let Some(durable) = &self.durable else { return };
        let is_due = match self.settings.sync {
            SyncPolicy::Never => false,
            SyncPolicy::Batch => true,
            SyncPolicy::Interval => {
                self.last_sync.elapsed() >= Duration::from_millis(self.settings.sync_ms)
            }
        };
        let drained = self.fold.next_seq().0;
        let is_ahead = drained > self.progress.durable_below.load(Ordering::Acquire);
        // While a seal is under way part of what was drained stands in files that it covers.
        if !is_due || !is_ahead || self.job.is_some() || self.last_error.is_some() {
            return;
        }
        self.last_sync = Instant::now();
        if let Ok(Some(file)) = durable.sync_handle() {
            self.syncer.sync(file, drained);
        }
        if self.syncer.has_failed() {
            self.last_error = Some("flush the journal to the disk".to_owned());
            self.events_since_seal = self.settings.seal_events;
        }
    }

    pub(crate) fn finish(mut self, status: RunStatus) -> RunSummary {
        self.dispatcher.emit(&EventBody::RunFinished(RunFinished { status }));
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
        if self.failed.is_some() {
            self.begin_seal(OpenSpans::Carry, RunStatus::Recording);
            self.end_seal();
        }
        if self.failed.is_none() {
            self.begin_seal(OpenSpans::Finish, status);
            self.end_seal();
        }
        let unsealed = match (&self.failed, &self.sealer) {
            (None, Some(_)) => {
                self.target.journal.remove_files();
                let _ = std::fs::remove_dir_all(self.folder.join(JOURNAL_DIR));
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

/// Flushes files to the disk on a thread of its own, one at a time.
#[derive(Debug)]
pub(crate) struct Syncer {
    jobs: Sender<(std::fs::File, u64)>,
    has_failed: Arc<AtomicBool>,
}

impl Syncer {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no more threads.
    pub(crate) fn start(progress: Arc<Progress>) -> std::io::Result<Self> {
        let (jobs, inbox) = crossbeam_channel::bounded::<(std::fs::File, u64)>(1);
        let has_failed = Arc::new(AtomicBool::new(false));
        let failed = Arc::clone(&has_failed);
        std::thread::Builder::new().name("retake-sync".to_owned()).spawn(move || {
            for (file, drained) in inbox {
                match file.sync_data() {
                    Ok(()) => {
                        progress.durable_below.fetch_max(drained, Ordering::AcqRel);
                    }
                    Err(_) => failed.store(true, Ordering::Release),
                }
            }
        })?;
        Ok(Self { jobs, has_failed })
    }

    /// Flushes the file, unless the last flush is still under way.
    fn sync(&self, file: std::fs::File, drained: u64) {
        let _ = self.jobs.try_send((file, drained));
    }

    /// Whether a flush failed since the last call.
    fn has_failed(&self) -> bool {
        self.has_failed.swap(false, Ordering::AcqRel)
    }
}

/// How often the writer thread looks without being woken.
const TICK: Duration = Duration::from_millis(50);
/// Attributes held in memory before a seal, bytes.
const HELD_BYTES_MAX: usize = 64 << 20;
/// A failed seal is tried again after this.
const RETRY: Duration = Duration::from_secs(1);
