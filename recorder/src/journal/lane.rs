//! The writing side: one lane per recorder, appended to by any thread.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::{Condvar, Mutex};
use retake_schemas::event::{DropCause, Gap};
use retake_schemas::version::FormatVersion;
use retake_schemas::{EventBody, EventSeq, WriterId};

use super::frame::{Frame, HEADER_BYTES, JournalHeader, encode_body, frame_header};
use super::map::MappedJournal;
use crate::clock::Clock;

/// Limits of a lane.
#[derive(Debug, Clone, Copy)]
pub struct LaneLimits {
    /// Size of one journal file, bytes.
    pub file_bytes: usize,
    /// Unsealed journal on disk, bytes; above it events are dropped and counted.
    pub journal_bytes_max: u64,
}

impl Default for LaneLimits {
    fn default() -> Self {
        Self { file_bytes: FILE_BYTES, journal_bytes_max: 512 << 20 }
    }
}

/// What became of an offered event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offered {
    /// It is in the journal, under this sequence number.
    Accepted(EventSeq),
    /// It was counted, and a [`Gap`] will state the loss.
    Dropped(DropCause),
}

/// The lane as its accounting sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LaneState {
    /// Events offered.
    pub offered: u64,
    /// Events journalled.
    pub accepted: u64,
    /// Events lost, by cause.
    pub dropped: BTreeMap<DropCause, u64>,
}

/// A journal file as the writer thread sees it.
#[derive(Debug, Clone)]
pub(crate) struct JournalFile {
    pub(crate) path: PathBuf,
    /// Bytes published.
    pub(crate) end: usize,
    /// One past the last sequence number in it.
    pub(crate) next_seq: EventSeq,
    /// Whether a newer file has taken over.
    pub(crate) is_full: bool,
}

/// Appends events to journal files.
#[derive(Debug)]
pub struct Lane {
    clock: Clock,
    inner: Mutex<Inner>,
    /// Wakes the writer thread when there is much to drain.
    wake: Condvar,
}

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    writer_id: WriterId,
    limits: LaneLimits,
    current: Option<MappedJournal>,
    /// Full files that are not sealed yet, oldest first.
    full: Vec<JournalFile>,
    next_seq: EventSeq,
    state: LaneState,
    /// Losses no `Gap` has stated yet.
    unstated: BTreeMap<DropCause, u64>,
    /// Bytes appended since the writer thread last looked.
    undrained_bytes: usize,
    /// After a failed allocation, do not ask the disk again before this time.
    retry_unix_ns: i64,
    is_closed: bool,
}

impl Lane {
    /// A lane whose files go into `folder`, continuing at `next_seq`.
    #[must_use]
    pub fn new(
        folder: &Path,
        writer_id: WriterId,
        next_seq: EventSeq,
        limits: LaneLimits,
        clock: Clock,
    ) -> Self {
        let inner = Inner {
            folder: folder.to_owned(),
            writer_id,
            limits,
            current: None,
            full: Vec::new(),
            next_seq,
            state: LaneState::default(),
            unstated: BTreeMap::new(),
            undrained_bytes: 0,
            retry_unix_ns: i64::MIN,
            is_closed: false,
        };
        Self { clock, inner: Mutex::new(inner), wake: Condvar::new() }
    }

    /// Offers an event without ever waiting for the disk.
    ///
    /// A full journal means that sealing is slower than the program. Waiting would turn our
    /// slowness into the program's, so the event is counted and a `Gap` states the loss.
    pub fn offer(&self, time_unix_ns: i64, body: &EventBody) -> Offered {
        let mut payload = Vec::with_capacity(PAYLOAD_BYTES_TYPICAL);
        if encode_body(body, &mut payload).is_err() {
            // MessagePack can hold every event; only a length over u32 fails, far above the limit.
            return self.inner.lock().drop_event(DropCause::TooLarge);
        }
        let payload_crc = crc32c::crc32c(&payload);
        let mut inner = self.inner.lock();
        let offered = inner.append(time_unix_ns, &payload, payload_crc);
        if inner.undrained_bytes >= WAKE_BYTES {
            self.wake.notify_one();
        }
        offered
    }

    /// The lane's clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The accounting so far. `offered = accepted + dropped`, always.
    #[must_use]
    pub fn state(&self) -> LaneState {
        self.inner.lock().state.clone()
    }

    /// One past the sequence number of the last event journalled.
    #[must_use]
    pub fn next_seq(&self) -> EventSeq {
        self.inner.lock().next_seq
    }

    /// Refuses further events; the present ones stay.
    pub fn close(&self) {
        self.inner.lock().is_closed = true;
        self.wake.notify_all();
    }

    /// Sleeps until there is much to drain or the time is over.
    pub(crate) fn wait(&self, at_most: std::time::Duration) {
        let mut inner = self.inner.lock();
        if inner.undrained_bytes < WAKE_BYTES && !inner.is_closed {
            let _ = self.wake.wait_for(&mut inner, at_most);
        }
    }

    /// Wakes the writer thread now.
    pub(crate) fn wake(&self) {
        self.wake.notify_all();
    }

    /// The files with everything published so far. States losses first, so that what is drained
    /// accounts for itself.
    pub(crate) fn files(&self) -> Vec<JournalFile> {
        let mut inner = self.inner.lock();
        inner.state_losses(self.clock.now_unix_ns());
        inner.undrained_bytes = 0;
        let current = inner.current.as_ref().map(|journal| JournalFile {
            path: journal.path().to_owned(),
            end: journal.end(),
            next_seq: inner.next_seq,
            is_full: false,
        });
        inner.full.iter().cloned().chain(current).collect()
    }

    /// A handle to flush the current file with, and the sequence number below which everything is
    /// on disk once that has happened.
    pub(crate) fn sync_handle(&self) -> io::Result<(Option<File>, EventSeq)> {
        let inner = self.inner.lock();
        let handle = inner.current.as_ref().map(MappedJournal::sync_handle).transpose()?;
        Ok((handle, inner.next_seq))
    }

    /// Removes full files whose every event is sealed.
    pub(crate) fn remove_sealed(&self, sealed_below: EventSeq) {
        let mut inner = self.inner.lock();
        let (sealed, kept) =
            inner.full.drain(..).partition(|file: &JournalFile| file.next_seq <= sealed_below);
        inner.full = kept;
        drop(inner);
        for file in sealed {
            // A file left behind is skipped by its sequence numbers and removed by recovery.
            let _ = std::fs::remove_file(file.path);
        }
    }

    /// Removes every file; only after the run is sealed to its end.
    pub(crate) fn remove_all(&self) {
        let mut inner = self.inner.lock();
        let current = inner.current.take();
        let files: Vec<PathBuf> = inner
            .full
            .drain(..)
            .map(|file| file.path)
            .chain(current.map(|journal| journal.path().to_owned()))
            .collect();
        drop(inner);
        for path in files {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Inner {
    fn append(&mut self, time_unix_ns: i64, payload: &[u8], payload_crc: u32) -> Offered {
        if self.is_closed {
            return self.drop_event(DropCause::Finished);
        }
        let frame_bytes = Frame::bytes_for(payload.len());
        if frame_bytes + HEADER_BYTES * 2 > self.limits.file_bytes {
            return self.drop_event(DropCause::TooLarge);
        }
        // A loss is stated before the next event that fits, so its place in the order is known.
        if !self.unstated.is_empty() {
            self.state_losses(time_unix_ns);
        }
        match self.make_room(frame_bytes, time_unix_ns) {
            Ok(()) => Offered::Accepted(self.write(time_unix_ns, payload, payload_crc)),
            Err(cause) => self.drop_event(cause),
        }
    }

    /// Sees to it that the current file has room, starting a new one if need be.
    fn make_room(&mut self, frame_bytes: usize, time_unix_ns: i64) -> Result<(), DropCause> {
        if self.current.as_ref().is_some_and(|journal| journal.has_room_for(frame_bytes)) {
            return Ok(());
        }
        let files = self.full.len() as u64 + 1;
        let size = self.limits.file_bytes as u64;
        if self.current.is_some() && (files + 1) * size > self.limits.journal_bytes_max.max(size) {
            return Err(DropCause::JournalFull);
        }
        if time_unix_ns < self.retry_unix_ns {
            return Err(DropCause::Disk);
        }
        let header = JournalHeader {
            version: FormatVersion::JOURNAL,
            writer_id: self.writer_id,
            first_seq: self.next_seq,
            created_unix_ns: time_unix_ns,
        };
        let name = format!("w{:03}-{:020}.journal", self.writer_id.0, self.next_seq.0);
        let path = self.folder.join(name);
        match MappedJournal::create(&path, &header, self.limits.file_bytes) {
            Ok(journal) => {
                if let Some(full) = self.current.replace(journal) {
                    self.full.push(JournalFile {
                        path: full.path().to_owned(),
                        end: full.end(),
                        next_seq: self.next_seq,
                        is_full: true,
                    });
                }
                Ok(())
            }
            Err(_) => {
                self.retry_unix_ns = time_unix_ns.saturating_add(DISK_RETRY_NS);
                Err(DropCause::Disk)
            }
        }
    }

    fn write(&mut self, time_unix_ns: i64, payload: &[u8], payload_crc: u32) -> EventSeq {
        let seq = self.next_seq;
        let header = frame_header(payload.len(), payload_crc, seq, time_unix_ns);
        if let Some(journal) = self.current.as_mut() {
            journal.append(&header, payload);
        }
        self.next_seq = EventSeq(seq.0 + 1);
        self.undrained_bytes += Frame::bytes_for(payload.len());
        self.state.offered += 1;
        self.state.accepted += 1;
        seq
    }

    fn drop_event(&mut self, cause: DropCause) -> Offered {
        self.state.offered += 1;
        *self.state.dropped.entry(cause).or_default() += 1;
        *self.unstated.entry(cause).or_default() += 1;
        Offered::Dropped(cause)
    }

    /// Writes a `Gap` for every loss that none has stated yet. Without room they stay unstated
    /// and are tried again later.
    fn state_losses(&mut self, time_unix_ns: i64) {
        for (cause, dropped) in std::mem::take(&mut self.unstated) {
            let mut payload = Vec::new();
            let gap = EventBody::Gap(Gap { dropped, cause });
            let has_room = encode_body(&gap, &mut payload).is_ok()
                && self.make_room(Frame::bytes_for(payload.len()), time_unix_ns).is_ok();
            if has_room {
                self.write(time_unix_ns, &payload, crc32c::crc32c(&payload));
            } else {
                self.unstated.insert(cause, dropped);
            }
        }
    }
}

/// Size of a journal file: large enough that rotation is rare, small enough that a sealed file
/// frees its space soon and that a tiny run does not claim much disk.
const FILE_BYTES: usize = 8 << 20;
/// First allocation for an encoded event; most spans of RAG pipelines fit.
const PAYLOAD_BYTES_TYPICAL: usize = 512;
/// Wakes the writer thread before its tick, so that bursts are drained while they come.
const WAKE_BYTES: usize = 1 << 20;
/// A full disk is asked again once a second, not at every event.
const DISK_RETRY_NS: i64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::journal::{journal_files, read_journal};
    use retake_schemas::event::Annotated;

    fn note(text: &str) -> EventBody {
        EventBody::Annotated(Annotated {
            span: None,
            level: retake_schemas::event::Level::Info,
            name: "note".into(),
            target: String::new(),
            message: Some(text.into()),
            attributes: Vec::new(),
        })
    }

    fn lane(folder: &Path, limits: LaneLimits) -> Lane {
        Lane::new(folder, WriterId(0), EventSeq(0), limits, Clock::start())
    }

    /// Scenario: many threads append while files fill up and rotate.
    /// Guarantees: J4 - every accepted event is read back once, in sequence, without a hole.
    #[test]
    fn events_of_many_threads_are_read_back_without_a_hole() {
        let folder = tempfile::tempdir().unwrap();
        let limits = LaneLimits { file_bytes: 16 << 10, journal_bytes_max: 64 << 20 };
        let lane = Arc::new(lane(folder.path(), limits));
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let lane = Arc::clone(&lane);
                scope.spawn(move || {
                    for n in 0..500 {
                        let offered = lane.offer(n, &note(&format!("{thread}/{n}")));
                        assert!(matches!(offered, Offered::Accepted(_)));
                    }
                });
            }
        });
        let mut seqs = Vec::new();
        for path in journal_files(folder.path()).unwrap() {
            let contents = read_journal(&path, EventSeq(0)).unwrap();
            seqs.extend(contents.events.iter().map(|event| event.seq.0));
        }
        assert_eq!(seqs, (0..2000).collect::<Vec<_>>());
    }

    /// Scenario: nothing is sealed and the journal reaches its limit.
    /// Guarantees: J7 - offered = accepted + dropped, and a Gap states the exact loss.
    #[test]
    fn overload_is_counted_exactly() {
        let folder = tempfile::tempdir().unwrap();
        let limits = LaneLimits { file_bytes: 4 << 10, journal_bytes_max: 8 << 10 };
        let lane = lane(folder.path(), limits);
        let mut accepted = 0;
        for n in 0..200 {
            accepted += u64::from(matches!(lane.offer(n, &note("x")), Offered::Accepted(_)));
        }
        let state = lane.state();
        let dropped: u64 = state.dropped.values().sum();
        assert_eq!(dropped, 200 - accepted);
        assert!(dropped > 0);
        // Gaps that fitted are events too.
        assert_eq!(state.offered, state.accepted + dropped);

        let sealed_below = lane.files()[0].next_seq;
        lane.remove_sealed(sealed_below);
        assert!(matches!(lane.offer(300, &note("y")), Offered::Accepted(_)));
        let mut stated = 0;
        for path in journal_files(folder.path()).unwrap() {
            for event in read_journal(&path, EventSeq(0)).unwrap().events {
                if let EventBody::Gap(gap) = event.body {
                    stated += gap.dropped;
                }
            }
        }
        assert_eq!(stated, dropped);
    }

    /// Guarantees: J6 - a folder that cannot be written to harms only the recording.
    #[test]
    fn a_vanished_folder_drops_events_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let lane = lane(&folder.path().join("gone"), LaneLimits::default());
        assert_eq!(lane.offer(0, &note("x")), Offered::Dropped(DropCause::Disk));
        assert_eq!(lane.state().dropped.get(&DropCause::Disk), Some(&1));
    }

    #[test]
    fn an_event_larger_than_a_file_is_dropped_alone() {
        let folder = tempfile::tempdir().unwrap();
        let limits = LaneLimits { file_bytes: 4 << 10, journal_bytes_max: 64 << 10 };
        let lane = lane(folder.path(), limits);
        let large = note(&"x".repeat(5000));
        assert_eq!(lane.offer(0, &large), Offered::Dropped(DropCause::TooLarge));
        assert!(matches!(lane.offer(0, &note("small")), Offered::Accepted(_)));
    }
}
