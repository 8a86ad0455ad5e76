//! Recording, flushing and ending a run, under [shuttle](https://docs.rs/shuttle): it runs more
//! threads than loom can, in orders chosen at random, and finds those in which all wait.
//!
//! The files of the protocols are compiled once more here, with shuttle's locks and atomics in
//! place of `sync`: what is checked is the code that runs, not a copy of it. What stands around it
//! is a model: chunks of a few words, records of two, a writer that counts.

#![expect(unsafe_code, reason = "chunks are reached by pointers, as in the journal")]

use std::collections::VecDeque;
use std::sync::Arc;

#[path = "../locks/mod.rs"]
mod locks;
/// Records of the model, whose header is their length.
mod record {
    pub(super) fn words_stated(head: u64, _third: impl FnOnce() -> u64) -> usize {
        head as usize
    }
}
mod sync;

#[path = "../../../src/journal/alarm.rs"]
mod alarm;
#[path = "../../../src/journal/gate.rs"]
mod gate;
#[path = "../../../src/journal/handover.rs"]
mod handover;
#[path = "../../../src/writer/orders.rs"]
mod orders;

use alarm::Alarm;
use gate::Gate;
use handover::Reads;
use orders::{Serves, order, serve};
use sync::{AtomicUsize, Mutex, Ordering, Receiver, Sender, Word, bounded};

/// What the threads of the model share, as those of a run share its journal.
struct Journal {
    gate: Gate,
    alarm: Alarm,
    lanes: Vec<Mutex<VecDeque<Chunk>>>,
    free: Mutex<Vec<Chunk>>,
    lost: Mutex<u64>,
    durable_below: AtomicUsize,
    _memory: Vec<Box<[Word]>>,
}

// SAFETY: the memory is only there to be dropped; its words are used as the protocol says.
unsafe impl Send for Journal {}
// SAFETY: as above.
unsafe impl Sync for Journal {}

#[derive(Debug, Clone, Copy)]
struct Chunk(*mut Word);

// SAFETY: its words are atomic.
unsafe impl Send for Chunk {}

impl Journal {
    fn new() -> Self {
        let chunk = || (0..CHUNK_WORDS).map(|_| Word::new(STALE)).collect();
        let mut memory: Vec<Box<[Word]>> = (0..CHUNKS).map(|_| chunk()).collect();
        let free = memory.iter_mut().map(|words| Chunk(words.as_mut_ptr())).collect();
        Self {
            gate: Gate::new(),
            alarm: Alarm::new(),
            lanes: (0..THREADS).map(|_| Mutex::new(VecDeque::new())).collect(),
            free: Mutex::new(free),
            lost: Mutex::new(0),
            durable_below: AtomicUsize::new(0),
            _memory: memory,
        }
    }
}

/// A thread of the program, with its lane.
struct Thread {
    lane: usize,
    position: *mut Word,
    records_left: usize,
}

impl Thread {
    /// Records an event, and says whether it is in the run: as `ThreadState::emit` does.
    fn emit(&mut self, journal: &Journal, number: u64) -> bool {
        let inside = journal.gate.enter();
        let is_accepted = inside.is_some() && self.append(journal, number);
        if !is_accepted {
            *journal.lost.lock() += 1;
        }
        is_accepted
    }

    fn append(&mut self, journal: &Journal, number: u64) -> bool {
        if self.records_left == 0 && !self.next_chunk(journal) {
            return false;
        }
        // SAFETY: the chunk has room for this record and the zero behind it.
        unsafe {
            sync::write(self.position.add(1), number);
            self.position = handover::publish(self.position, RECORD_WORDS, RECORD_WORDS as u64);
        }
        self.records_left -= 1;
        true
    }

    fn next_chunk(&mut self, journal: &Journal) -> bool {
        if journal.gate.is_closed() {
            return false;
        }
        let Some(chunk) = journal.free.lock().pop() else {
            return false;
        };
        // SAFETY: a free chunk is nobody's.
        unsafe { handover::begin(chunk.0, HEADER_WORDS, [1, 0, 0, 0]) };
        // SAFETY: inside the chunk.
        self.position = unsafe { chunk.0.add(HEADER_WORDS) };
        self.records_left = RECORDS;
        journal.lanes[self.lane].lock().push_back(chunk);
        journal.alarm.wake();
        true
    }
}

/// How far a lane is read.
#[derive(Default)]
struct Reader {
    current: Option<(usize, Chunk)>,
    at: usize,
    taken: Vec<u64>,
}

impl Reads for Reader {
    type Chunk = Chunk;

    fn finds_record(&mut self) -> bool {
        self.published_end() > self.at
    }

    fn next_chunk(&self) -> usize {
        self.current.map_or(0, |(index, _)| index + 1)
    }

    fn enter(&mut self, chunk: &Chunk) {
        self.current = Some((self.next_chunk(), *chunk));
        self.at = HEADER_WORDS;
    }
}

impl Reader {
    fn published_end(&self) -> usize {
        match self.current {
            // SAFETY: only the writer gives chunks back.
            Some((_, chunk)) => unsafe { handover::published(chunk.0, self.at, CHUNK_WORDS) },
            None => self.at,
        }
    }

    /// Takes everything that is published, and gives back the chunks left behind.
    fn drain(&mut self, lane: &Mutex<VecDeque<Chunk>>, journal: &Journal) {
        loop {
            handover::look(self, lane);
            let end = self.published_end();
            if end == self.at {
                break;
            }
            while let Some((_, chunk)) = self.current
                && self.at < end
            {
                // SAFETY: the record is published.
                self.taken.push(unsafe { sync::read(chunk.0.add(self.at + 1)) });
                self.at += RECORD_WORDS;
            }
        }
        while let Some((index, _)) = &mut self.current
            && *index > 0
        {
            *index -= 1;
            let Some(chunk) = lane.lock().pop_front() else {
                return;
            };
            // SAFETY: the owner has left it, and this reader too.
            unsafe { handover::retire(chunk.0) };
            journal.free.lock().push(chunk);
        }
    }
}

/// What is asked of the writer.
enum Command {
    Flush(Sender<usize>),
    Finish(Sender<Summary>),
}

/// What became of the run.
struct Summary {
    taken: Vec<Vec<u64>>,
    lost: u64,
}

/// The writer thread, as `Writer` is.
struct Writer {
    journal: Arc<Journal>,
    readers: Vec<Reader>,
}

impl Writer {
    fn drain(&mut self) -> usize {
        for (reader, lane) in self.readers.iter_mut().zip(&self.journal.lanes) {
            reader.drain(lane, &self.journal);
        }
        self.readers.iter().map(|reader| reader.taken.len()).sum()
    }
}

impl Serves for Writer {
    type Order = Command;

    fn wait(&self) {
        self.journal.alarm.wait(std::time::Duration::MAX);
    }

    fn tick(&mut self) {
        self.drain();
    }

    fn obey(mut self, command: Command) -> Option<Self> {
        match command {
            Command::Flush(reply) => {
                let drained = self.drain();
                self.journal.durable_below.fetch_max(drained, Ordering::AcqRel);
                let _ = reply.send(drained);
                Some(self)
            }
            Command::Finish(reply) => {
                self.journal.gate.close();
                while !self.journal.gate.is_empty() {
                    shuttle::thread::yield_now();
                }
                self.drain();
                let lost = *self.journal.lost.lock();
                let taken = self.readers.into_iter().map(|reader| reader.taken).collect();
                let _ = reply.send(Summary { taken, lost });
                None
            }
        }
    }
}

/// A thread records, flushes in between, and goes on. What it was told of its events, and how many
/// were flushed.
fn record(
    journal: &Journal,
    orders: &Sender<Command>,
    lane: usize,
) -> (Vec<u64>, Option<(usize, usize)>) {
    let mut thread = Thread { lane, position: std::ptr::null_mut(), records_left: 0 };
    let mut accepted: Vec<u64> =
        (0..EVENTS).filter(|number| thread.emit(journal, *number)).collect();
    let before = accepted.len();
    let (reply, answer) = bounded(1);
    let flushed = order(orders, Command::Flush(reply), || journal.alarm.wake())
        .and_then(|()| answer.recv().ok())
        .map(|drained| (before, drained));
    accepted.extend((EVENTS..2 * EVENTS).filter(|number| thread.emit(journal, *number)));
    (accepted, flushed)
}

/// Starts the writer's thread and gives the way to it.
fn start_writer(journal: &Arc<Journal>) -> (Sender<Command>, shuttle::thread::JoinHandle<()>) {
    let (orders, inbox): (_, Receiver<Command>) = bounded(COMMANDS_MAX);
    let readers = (0..THREADS).map(|_| Reader::default()).collect();
    let writer = Writer { journal: Arc::clone(journal), readers };
    (orders, shuttle::thread::spawn(move || serve(writer, &inbox)))
}

fn one_run() {
    let journal = Arc::new(Journal::new());
    let (orders, writer) = start_writer(&journal);
    let threads: Vec<_> = (0..THREADS)
        .map(|lane| {
            let (journal, orders) = (Arc::clone(&journal), orders.clone());
            shuttle::thread::spawn(move || record(&journal, &orders, lane))
        })
        .collect();
    let (reply, answer) = bounded(1);
    order(&orders, Command::Finish(reply), || journal.alarm.wake()).unwrap();
    let summary = answer.recv().unwrap();
    writer.join().unwrap();
    let told: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    let accepted: Vec<Vec<u64>> = told.iter().map(|(accepted, _)| accepted.clone()).collect();
    assert_eq!(summary.taken, accepted, "exactly what was accepted is in the run, in order");
    let offered = THREADS as u64 * EVENTS * 2;
    let accepted: u64 = accepted.iter().map(|accepted| accepted.len() as u64).sum();
    assert_eq!(offered, accepted + *journal.lost.lock(), "the rest is counted");
    assert!(summary.lost <= *journal.lost.lock());
    for (before, drained) in told.into_iter().filter_map(|(_, flushed)| flushed) {
        assert!(drained >= before, "{drained} flushed, of {before} that were there before");
        assert!(drained <= journal.durable_below.load(Ordering::Acquire));
    }
}

/// Scenario: three threads record six events each through lanes of small chunks, too few for all,
/// and flush in between, while a fourth ends the run at any moment; no wait ever times out.
/// Guarantees: J9 - no thread waits for ever, every event that was accepted is in the run once and
/// in its place, offered = accepted + lost, and a flush covers what was recorded before it.
#[test]
fn a_run_ends_with_every_event_accounted_for_whoever_goes_first() {
    shuttle::check_random(one_run, SCHEDULES);
}

/// Scenario: a run is ended while nothing else happens, so that nobody else wakes the writer.
/// Guarantees: J9 - an order that was given is obeyed.
#[test]
fn an_order_is_obeyed_though_nobody_else_wakes_the_writer() {
    shuttle::check_random(
        || {
            let journal = Arc::new(Journal::new());
            let (orders, writer) = start_writer(&journal);
            let (reply, answer) = bounded(1);
            order(&orders, Command::Finish(reply), || journal.alarm.wake()).unwrap();
            assert_eq!(answer.recv().unwrap().taken, vec![Vec::<u64>::new(); THREADS]);
            writer.join().unwrap();
        },
        SCHEDULES,
    );
}

const SCHEDULES: usize = 10_000;
const THREADS: usize = 3;
/// Events before the flush, and after it.
const EVENTS: u64 = 3;
const CHUNKS: usize = 5;
const COMMANDS_MAX: usize = 2;
const HEADER_WORDS: usize = 4;
const RECORD_WORDS: usize = 2;
const RECORDS: usize = 2;
const CHUNK_WORDS: usize = HEADER_WORDS + RECORDS * RECORD_WORDS + 1;
/// What stands in memory from before: it looks like a header.
const STALE: u64 = 2;
