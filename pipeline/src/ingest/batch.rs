//! Chunks of all documents, gathered into embedding calls.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use retake_schemas::convention::TARGET_DOCUMENT;
use tokio::time::Instant;
use tracing::Span;

use super::cached::CacheUse;
use crate::document::Chunk;
use crate::embed::{Embedder, Embeddings};
use crate::embed_call;
use crate::error::PipelineError;
use crate::trace::nanos;

/// A chunk that waits for its vector.
#[derive(Debug, Clone)]
pub(super) struct Member {
    /// Number of its document in the flow.
    pub(super) document: u64,
    /// Its place in the document.
    pub(super) ordinal: usize,
    chunks: Arc<[Chunk]>,
    ready_at: Instant,
}

impl Member {
    fn chunk(&self) -> Option<&Chunk> {
        self.chunks.get(self.ordinal)
    }
}

/// One call.
#[derive(Debug)]
pub(super) struct Batch {
    index: u64,
    /// Its chunks, in order.
    pub(super) members: Vec<Member>,
}

/// The end of a call.
#[derive(Debug)]
pub(super) struct Embedded {
    /// What was asked.
    pub(super) batch: Batch,
    /// What came back: one vector per member.
    pub(super) result: Result<Embeddings, PipelineError>,
    /// How long the call took, its retries included.
    pub(super) took: Duration,
}

/// The chunks that wait.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: VecDeque<Member>,
    wait_max: Duration,
    next_index: u64,
}

impl Queue {
    /// A queue for batches that wait at most `wait_max` to fill.
    pub(super) const fn new(wait_max: Duration) -> Self {
        Self { waiting: VecDeque::new(), wait_max, next_index: 0 }
    }

    /// Lets some chunks of a document wait.
    pub(super) fn push(
        &mut self,
        document: u64,
        chunks: &Arc<[Chunk]>,
        ordinals: impl Iterator<Item = usize>,
    ) {
        let ready_at = Instant::now();
        let member = |ordinal| Member { document, ordinal, chunks: Arc::clone(chunks), ready_at };
        self.waiting.extend(ordinals.map(member));
    }

    /// Forgets a document that failed.
    pub(super) fn remove(&mut self, document: u64) {
        self.waiting.retain(|member| member.document != document);
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// When a batch that is not full has to go.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.waiting.front().map(|oldest| oldest.ready_at + self.wait_max)
    }

    /// The next batch of at most `size_max`, if it is full, has waited long enough, or nothing more
    /// will come.
    pub(super) fn take(&mut self, size_max: usize, supply: Supply) -> Option<Batch> {
        let is_due = self.deadline().is_some_and(|deadline| deadline <= Instant::now());
        let goes = self.waiting.len() >= size_max || is_due || supply == Supply::Ended;
        if self.waiting.is_empty() || !goes {
            return None;
        }
        let size = self.waiting.len().min(size_max);
        let index = self.next_index;
        self.next_index += 1;
        Some(Batch { index, members: self.waiting.drain(..size).collect() })
    }
}

/// Whether more chunks may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Supply {
    /// There are documents that are not chunked yet.
    Open,
    /// All documents are chunked.
    Ended,
}

impl Batch {
    /// Makes the call.
    pub(super) async fn embed(
        self,
        embedder: Arc<dyn Embedder>,
        cache: Option<CacheUse>,
        root: Span,
    ) -> Embedded {
        let span = self.span(embedder.as_ref(), &root);
        let texts: Vec<&str> = self
            .members
            .iter()
            .filter_map(Member::chunk)
            .map(|chunk| chunk.text.as_str())
            .collect();
        let started = Instant::now();
        let result = embed_call::embed(embedder.as_ref(), &texts, span).await;
        let took = started.elapsed();
        if let (Some(cache), Ok(embeddings)) = (cache, &result) {
            cache.keep(embedder.as_ref(), &texts, &embeddings.vectors).await;
        }
        Embedded { batch: self, result, took }
    }

    fn span(&self, embedder: &dyn Embedder, root: &Span) -> Span {
        let span = embed_call::span(embedder, root, self.members.len());
        span.record("retake.batch.index", self.index);
        span.record("retake.queue_ns", self.queue_ns());
        for (rank, chunk) in self.members.iter().filter_map(Member::chunk).enumerate() {
            tracing::info!(
                target: TARGET_DOCUMENT, parent: &span,
                role = "batch_member", rank, id = chunk.id,
            );
        }
        span
    }

    /// Mean wait of its chunks.
    fn queue_ns(&self) -> i64 {
        let now = Instant::now();
        let total: Duration = self.members.iter().map(|member| now - member.ready_at).sum();
        let members = u32::try_from(self.members.len()).unwrap_or(u32::MAX).max(1);
        nanos(total / members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(count: usize) -> Arc<[Chunk]> {
        (0..count)
            .map(|ordinal| Chunk {
                id: format!("d#{ordinal}"),
                document_id: "d".to_owned(),
                ordinal: 0,
                text: String::new(),
                start_char: 0,
                end_char: 0,
                tokens: 0,
            })
            .collect()
    }

    #[test]
    fn a_batch_goes_when_it_is_full_or_the_last() {
        let mut queue = Queue::new(Duration::from_secs(3600));
        queue.push(0, &chunks(6), 0..6);
        let sizes = |batch: Option<Batch>| batch.map(|batch| (batch.index, batch.members.len()));
        assert_eq!(sizes(queue.take(4, Supply::Open)), Some((0, 4)));
        assert_eq!(sizes(queue.take(4, Supply::Open)), None);
        assert_eq!(sizes(queue.take(4, Supply::Ended)), Some((1, 2)));
        assert_eq!(sizes(queue.take(4, Supply::Ended)), None);
    }

    #[test]
    fn a_batch_that_waited_long_enough_goes() {
        let mut queue = Queue::new(Duration::ZERO);
        queue.push(0, &chunks(1), 0..1);
        assert!(queue.take(4, Supply::Open).is_some());
    }
}
