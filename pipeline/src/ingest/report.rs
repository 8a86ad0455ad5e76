//! What an ingest says while it runs and when it is over.

use std::collections::BTreeMap;
use std::time::Duration;

use retake_schemas::Digest;

use crate::error::PipelineError;

/// Hears how an ingest goes. Called from the task that drives it, so it must not block.
pub trait IngestProgress: Sync {
    /// So many documents were found.
    fn discovered(&self, documents: u64) {
        let _ = documents;
    }

    /// A document is through.
    fn document_done(&self, outcome: &DocumentOutcome<'_>) {
        let _ = outcome;
    }

    /// An embedding call of so many chunks is through.
    fn batch_done(&self, chunks: u64) {
        let _ = chunks;
    }
}

/// Says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl IngestProgress for Silent {}

/// What became of a document.
#[derive(Debug)]
pub enum DocumentOutcome<'a> {
    /// It is in the collection now, with so many chunks.
    Committed {
        /// The document.
        id: &'a str,
        /// Its chunks.
        chunks: u64,
    },
    /// It was in the collection already, as it is on the disk.
    Unchanged {
        /// The document.
        id: &'a str,
    },
    /// Its content is in the collection under another id, and the strategy wants it once.
    Duplicate {
        /// The document.
        id: &'a str,
    },
    /// It was in the collection, is no longer on the disk, and was deleted.
    Deleted {
        /// The document.
        id: &'a str,
    },
    /// It is not in the collection, or an older version of it is.
    Failed {
        /// The document.
        id: &'a str,
        /// Why.
        error: &'a PipelineError,
    },
}

/// What became of all of them.
#[derive(Debug, Clone, PartialEq)]
pub struct IngestReport {
    /// Documents found.
    pub found: u64,
    /// Documents committed by this run.
    pub committed: u64,
    /// Documents that were committed before.
    pub unchanged: u64,
    /// Documents left out because their content is in the collection under another id.
    pub duplicates: u64,
    /// Documents deleted because they are no longer on the disk.
    pub deleted: u64,
    /// Documents that failed.
    pub failed: u64,
    /// The first [`FAILURES_KEPT`] failures.
    pub failures: Vec<IngestFailure>,
    /// Files met and left out, by reason.
    pub skipped: BTreeMap<&'static str, u64>,
    /// Chunks committed by this run.
    pub chunks: u64,
    /// Embedding calls made.
    pub batches: u64,
    /// Chunks sent to the embedder, those of failed calls included.
    pub chunks_embedded: u64,
    /// Chunks whose vector was in the cache.
    pub chunks_cached: u64,
    /// Changes of the batch size.
    pub batch_changes: u64,
    /// Input tokens of the embedding calls, as far as they are known.
    pub tokens: u64,
    /// Digest over the ids and digests of all documents that are in the collection now and on the
    /// disk: equal for equal corpora.
    pub corpus: Digest,
    /// Whether the user ended it before all was done.
    pub is_cancelled: bool,
    /// How long it took.
    pub duration: Duration,
}

impl IngestReport {
    /// Documents on the disk that are in the collection.
    #[must_use]
    pub const fn documents(&self) -> u64 {
        self.committed + self.unchanged
    }
}

/// A document that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngestFailure {
    /// The document, or the path that could not be listed.
    pub id: String,
    /// Class of the error.
    pub error_type: &'static str,
    /// Its text.
    pub message: String,
}

/// Counts while an ingest runs.
#[derive(Debug)]
pub(super) struct Tally {
    report: IngestReport,
    corpus: BTreeMap<String, Digest>,
    started: tokio::time::Instant,
}

impl Tally {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        let report = IngestReport {
            found: 0,
            committed: 0,
            unchanged: 0,
            duplicates: 0,
            deleted: 0,
            failed: 0,
            failures: Vec::new(),
            skipped: BTreeMap::new(),
            chunks: 0,
            batches: 0,
            chunks_embedded: 0,
            chunks_cached: 0,
            batch_changes: 0,
            tokens: 0,
            corpus: Digest::of(b""),
            is_cancelled: false,
            duration: Duration::ZERO,
        };
        Self { report, corpus: BTreeMap::new(), started: tokio::time::Instant::now() }
    }

    /// The walk is over.
    pub(super) fn found(&mut self, documents: u64, skipped: BTreeMap<&'static str, u64>) {
        self.report.found = documents;
        self.report.skipped = skipped;
    }

    /// A document was committed before.
    pub(super) fn unchanged(&mut self, id: String, digest: Digest) {
        self.report.unchanged += 1;
        self.corpus.insert(id, digest);
    }

    /// A document's content is committed under another id.
    pub(super) fn duplicate(&mut self) {
        self.report.duplicates += 1;
    }

    /// Chunks whose vector was in the cache.
    pub(super) fn cached(&mut self, chunks: u64) {
        self.report.chunks_cached += chunks;
    }

    /// The batch size changed.
    pub(super) fn batch_changed(&mut self) {
        self.report.batch_changes += 1;
    }

    /// A document is committed.
    pub(super) fn committed(&mut self, id: String, digest: Digest, chunks: u64) {
        self.report.committed += 1;
        self.report.chunks += chunks;
        self.corpus.insert(id, digest);
    }

    /// A document failed.
    pub(super) fn failed(&mut self, id: &str, error: &PipelineError) {
        self.report.failed += 1;
        if self.report.failures.len() < FAILURES_KEPT {
            self.report.failures.push(IngestFailure {
                id: id.to_owned(),
                error_type: error.error_type(),
                message: error.to_string(),
            });
        }
    }

    /// An embedding call is through.
    pub(super) fn embedded(&mut self, chunks: u64, tokens: u64) {
        self.report.batches += 1;
        self.report.chunks_embedded += chunks;
        self.report.tokens += tokens;
    }

    /// The user wants to end it.
    pub(super) fn cancelled(&mut self) {
        self.report.is_cancelled = true;
    }

    /// Whether the user wants to end it.
    pub(super) const fn is_cancelled(&self) -> bool {
        self.report.is_cancelled
    }

    /// The report.
    pub(super) fn finish(mut self) -> IngestReport {
        self.report.corpus = corpus_digest(&self.corpus);
        self.report.duration = self.started.elapsed();
        self.report
    }
}

/// Ids are preceded by their length, so that no two corpora are written the same.
fn corpus_digest(corpus: &BTreeMap<String, Digest>) -> Digest {
    let mut bytes = Vec::new();
    for (id, digest) in corpus {
        bytes.extend_from_slice(&(id.len() as u64).to_le_bytes());
        bytes.extend_from_slice(id.as_bytes());
        bytes.extend_from_slice(digest.as_bytes());
    }
    Digest::of(&bytes)
}

/// A person reads a hundred failures at most; the counts cover the rest.
pub const FAILURES_KEPT: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corpora_that_differ_only_in_where_a_name_ends_differ() {
        let digest = Digest::of(b"x");
        let corpus = |ids: &[&str]| {
            ids.iter().map(|id| ((*id).to_owned(), digest)).collect::<BTreeMap<_, _>>()
        };
        assert_ne!(corpus_digest(&corpus(&["ab", "c"])), corpus_digest(&corpus(&["a", "bc"])));
        assert_eq!(corpus_digest(&corpus(&["b", "a"])), corpus_digest(&corpus(&["a", "b"])));
    }

    #[test]
    fn only_the_first_failures_are_kept_but_all_are_counted() {
        let mut tally = Tally::new();
        for number in 0..150 {
            tally.failed(&number.to_string(), &PipelineError::Cancelled);
        }
        let report = tally.finish();
        assert_eq!((report.failed, report.failures.len()), (150, FAILURES_KEPT));
    }
}
