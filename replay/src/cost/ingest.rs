//! An ingest in virtual time: what another batch size, or more workers, would make of it.
//!
//! The same rules as the built-in pipeline's own ingest, on an event heap of whole nanoseconds:
//! `workers` documents are read and cut up at a time, as long as few documents and few chunks are
//! under way; their chunks gather into batches, `workers` embedding calls run at a time; whole
//! documents are committed, one commit at a time. Queueing comes out of this, not out of a formula.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::observed::DocumentWork;

/// What may be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IngestSettings {
    /// Loads, and embedding calls, at the same time.
    pub workers: usize,
    /// Chunks a call.
    pub batch_size: usize,
    /// How long a batch that is not full waits, ns.
    pub max_wait_ns: i64,
}

/// How long calls take, by their number of items, ns.
pub struct IngestTimes<'a> {
    /// An embedding call of so many chunks.
    pub embed: &'a dyn Fn(usize) -> i64,
    /// A commit of so many rows.
    pub insert: &'a dyn Fn(usize) -> i64,
}

impl std::fmt::Debug for IngestTimes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IngestTimes").finish_non_exhaustive()
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SimulatedIngest {
    /// From the first load to the last commit, ns.
    pub makespan_ns: i64,
    /// Embedding calls.
    pub calls: u64,
    /// Chunks embedded.
    pub chunks: u64,
    /// Sum of the times of embedding calls, ns.
    pub embed_busy_ns: i64,
}

/// Runs an ingest in virtual time. Documents without chunks are only loaded.
#[must_use]
pub fn simulate_ingest(
    documents: &[DocumentWork],
    settings: IngestSettings,
    times: &IngestTimes<'_>,
) -> SimulatedIngest {
    let mut flow = Flow {
        documents,
        settings,
        times,
        next: 0,
        loads: 0,
        missing: documents.iter().map(|document| document.chunks.unwrap_or(0)).collect(),
        assembling: 0,
        queue: VecDeque::new(),
        waiting: 0,
        embeds: 0,
        batches: Vec::new(),
        ready: VecDeque::new(),
        commit_rows: None,
        heap: BinaryHeap::new(),
        now_ns: 0,
        sequence: 0,
        found: SimulatedIngest::default(),
    };
    flow.run();
    flow.found
}

struct Flow<'a> {
    documents: &'a [DocumentWork],
    settings: IngestSettings,
    times: &'a IngestTimes<'a>,
    next: usize,
    loads: usize,
    /// Of each document, chunks without a vector.
    missing: Vec<u32>,
    assembling: usize,
    /// Documents with chunks that wait: which, how many, since when.
    queue: VecDeque<(usize, u32, i64)>,
    waiting: usize,
    embeds: usize,
    /// Calls under way: how many chunks of which document.
    batches: Vec<Vec<(usize, u32)>>,
    ready: VecDeque<usize>,
    commit_rows: Option<usize>,
    heap: BinaryHeap<Reverse<(i64, u64, Event)>>,
    now_ns: i64,
    /// Order of events at the same time: the order in which they were caused.
    sequence: u64,
    found: SimulatedIngest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Committed,
    Embedded(usize),
    Loaded(usize),
    /// A batch that is not full may have to go.
    Look,
}

impl Flow<'_> {
    fn run(&mut self) {
        self.start();
        while let Some(Reverse((time_ns, _, event))) = self.heap.pop() {
            self.now_ns = time_ns;
            match event {
                Event::Loaded(document) => self.loaded(document),
                Event::Embedded(batch) => self.embedded(batch),
                Event::Committed => self.commit_rows = None,
                Event::Look => {}
            }
            self.start();
            if event != Event::Look {
                self.found.makespan_ns = time_ns;
            }
        }
    }

    fn after(&mut self, delay_ns: i64, event: Event) {
        self.sequence += 1;
        self.heap.push(Reverse((self.now_ns + delay_ns.max(0), self.sequence, event)));
    }

    fn start(&mut self) {
        let workers = self.settings.workers.max(1);
        let chunks_max = self.settings.batch_size * workers * BATCHES_AHEAD;
        while self.loads < workers
            && self.loads + self.assembling + self.ready.len()
                < DOCUMENTS_UNDER_WAY_MAX.max(2 * workers)
            && self.waiting <= chunks_max
        {
            let Some(document) = self.documents.get(self.next) else { break };
            self.loads += 1;
            self.after(document.prepare_ns, Event::Loaded(self.next));
            self.next += 1;
        }
        while self.embeds < workers && self.waiting > 0 {
            let is_open = self.loads > 0 || self.next < self.documents.len();
            let deadline_ns =
                self.queue.front().map_or(i64::MAX, |first| first.2 + self.settings.max_wait_ns);
            let is_full = self.waiting >= self.settings.batch_size;
            if is_open && !is_full && deadline_ns > self.now_ns {
                self.after(deadline_ns - self.now_ns, Event::Look);
                break;
            }
            self.embed();
        }
        if self.commit_rows.is_none() && !self.ready.is_empty() {
            let count = self.ready.len().min(COMMIT_DOCUMENTS_MAX);
            let rows = self.ready.drain(..count);
            let rows: usize = rows
                .filter_map(|document| self.documents.get(document)?.chunks)
                .map(|chunks| chunks as usize)
                .sum();
            self.commit_rows = Some(rows);
            self.after((self.times.insert)(rows), Event::Committed);
        }
    }

    fn embed(&mut self) {
        let mut open = self.settings.batch_size.max(1);
        let mut members = Vec::new();
        while open > 0 {
            let Some((document, chunks, since_ns)) = self.queue.pop_front() else { break };
            let taken = chunks.min(u32::try_from(open).unwrap_or(u32::MAX));
            open -= taken as usize;
            self.waiting -= taken as usize;
            members.push((document, taken));
            if taken < chunks {
                self.queue.push_front((document, chunks - taken, since_ns));
            }
        }
        let size: usize = members.iter().map(|(_, chunks)| *chunks as usize).sum();
        let took_ns = (self.times.embed)(size);
        self.found.calls += 1;
        self.found.chunks += size as u64;
        self.found.embed_busy_ns += took_ns;
        self.embeds += 1;
        self.batches.push(members);
        self.after(took_ns, Event::Embedded(self.batches.len() - 1));
    }

    fn loaded(&mut self, document: usize) {
        self.loads -= 1;
        match self.documents.get(document).and_then(|document| document.chunks) {
            Some(0) => self.ready.push_back(document),
            Some(chunks) => {
                self.assembling += 1;
                self.waiting += chunks as usize;
                self.queue.push_back((document, chunks, self.now_ns));
            }
            None => {}
        }
    }

    fn embedded(&mut self, batch: usize) {
        self.embeds -= 1;
        let members = self.batches.get_mut(batch).map(std::mem::take).unwrap_or_default();
        for (document, chunks) in members {
            let Some(missing) = self.missing.get_mut(document) else { continue };
            *missing = missing.saturating_sub(chunks);
            if *missing == 0 {
                self.assembling -= 1;
                self.ready.push_back(document);
            }
        }
    }
}

/// As in the pipeline's ingest, whose rules these are.
const DOCUMENTS_UNDER_WAY_MAX: usize = 128;
const BATCHES_AHEAD: usize = 4;
const COMMIT_DOCUMENTS_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    fn documents(count: usize, chunks: u32) -> Vec<DocumentWork> {
        vec![DocumentWork { prepare_ns: 0, chunks: Some(chunks) }; count]
    }

    fn run(documents: &[DocumentWork], batch_size: usize, workers: usize) -> SimulatedIngest {
        let times = IngestTimes {
            embed: &|size| 10 * MS + i64::try_from(size).unwrap() * MS,
            insert: &|_| 0,
        };
        let settings = IngestSettings { workers, batch_size, max_wait_ns: 20 * MS };
        simulate_ingest(documents, settings, &times)
    }

    /// Scenario: 64 chunks; a call takes 10 ms and 1 ms a chunk.
    /// Guarantees: the times are those of the arithmetic: calls of one worker follow one another,
    /// those of two run side by side, and the last batch is what is left over.
    #[test]
    fn makespans_are_what_arithmetic_says() {
        let all = documents(16, 4);
        for (batch, calls, makespan_ms) in [(4, 16, 16 * 14), (16, 4, 4 * 26), (64, 1, 74)] {
            let found = run(&all, batch, 1);
            assert_eq!((found.calls, found.makespan_ns), (calls, makespan_ms * MS), "{batch}");
            assert_eq!((found.chunks, found.embed_busy_ns), (64, makespan_ms * MS));
        }
        assert_eq!(run(&all, 16, 2).makespan_ns, 2 * 26 * MS);
        let uneven = run(&documents(10, 1), 4, 1);
        assert_eq!((uneven.calls, uneven.makespan_ns), (3, (14 + 14 + 12) * MS));
    }

    /// Scenario: documents that arrive slower than batches fill.
    /// Guarantees: a batch goes when its oldest chunk has waited long enough.
    #[test]
    fn a_batch_does_not_wait_for_ever() {
        let slow = vec![DocumentWork { prepare_ns: 50 * MS, chunks: Some(1) }; 3];
        let found = run(&slow, 64, 1);
        assert_eq!(found.calls, 3, "{found:?}");
        // The last one is alone and nothing more will come: it goes at once.
        assert_eq!(found.makespan_ns, (150 + 11) * MS);
    }

    /// Scenario: commits that are slow, documents without chunks, documents that were unchanged.
    /// Guarantees: commits are one at a time and take up to 32 documents; everything ends.
    #[test]
    fn commits_follow_one_another() {
        let times = IngestTimes { embed: &|_| MS, insert: &|_| 100 * MS };
        let settings = IngestSettings { workers: 1, batch_size: 1, max_wait_ns: 0 };
        let found = simulate_ingest(&documents(40, 1), settings, &times);
        // The first commit has one document and the next 32 at most; 7 are left.
        assert_eq!(found.makespan_ns, MS + 300 * MS);
        let mut mixed = documents(2, 0);
        mixed.push(DocumentWork { prepare_ns: 5 * MS, chunks: None });
        let found = simulate_ingest(&mixed, settings, &times);
        assert_eq!((found.calls, found.chunks), (0, 0));
        assert!(found.makespan_ns >= 100 * MS);
        assert_eq!(simulate_ingest(&[], settings, &times), SimulatedIngest::default());
    }
}
