//! The ingest itself: one task that owns all state and decides what is started.
//!
//! ```text
//! found --(<= workers loads)--> chunks --(<= workers embedding calls)--> assembled
//!                                        --(one commit at a time)--> committed
//! ```
//!
//! Every arrow is bounded: loads start only while few documents and few chunks are under way, so
//! memory does not grow with the corpus. Results come back to this task, which alone changes
//! anything; a dropped flow drops its tasks.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use retake_schemas::Digest;
use retake_schemas::settings::DocumentStrategy;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};

use super::IngestDeps;
use super::adaptive::{BatchSize, Change};
use super::batch::{Embedded, Queue, Supply};
use super::cached::CacheUse;
use super::document::{Assembly, Awaited, Committed, Content, Loaded, Loader, NewDocument};
use super::report::{DocumentOutcome, IngestProgress, IngestReport, Tally};
use crate::chunk::Chunker;
use crate::embed::{Embedder, Embeddings};
use crate::error::PipelineError;
use crate::load::{Discovery, Found};
use crate::store::{CollectionSpec, EmbeddedDocument, VectorStore};
use crate::trace::{Stage, stage_span};

/// An ingest under way.
pub(super) struct Flow<'a> {
    deps: &'a IngestDeps,
    spec: CollectionSpec,
    loader: Arc<Loader>,
    progress: &'a dyn IngestProgress,
    root: &'a Span,
    found: VecDeque<Awaited>,
    loads: JoinSet<Loaded>,
    /// Documents that wait for vectors, by the number of their arrival.
    assemblies: HashMap<u64, Assembly>,
    next_document: u64,
    /// Content under way, with the documents that have the same and wait for what becomes of it.
    /// Used by `duplicates_only` alone.
    twins: HashMap<Digest, VecDeque<(String, NewDocument)>>,
    /// Content that this run has committed: a copy may have asked the store before that, and come
    /// here after it. Used by `duplicates_only` alone.
    kept: HashSet<Digest>,
    batch_size: BatchSize,
    cache: Option<CacheUse>,
    queue: Queue,
    embeds: JoinSet<Embedded>,
    ready: VecDeque<EmbeddedDocument>,
    /// Documents of a commit that failed; each is tried alone, so that one cannot hurt the others.
    suspects: VecDeque<EmbeddedDocument>,
    commits: JoinSet<CommitEnd>,
    store_failures: u32,
    tally: Tally,
}

/// The end of a commit.
struct CommitEnd {
    documents: Vec<EmbeddedDocument>,
    result: Result<(), PipelineError>,
}

impl<'a> Flow<'a> {
    /// A flow that has not begun.
    pub(super) fn new(
        deps: &'a IngestDeps,
        spec: CollectionSpec,
        chunker: Chunker,
        progress: &'a dyn IngestProgress,
        root: &'a Span,
    ) -> Self {
        let embed = &deps.settings.embed;
        let cache = deps.cache.as_ref().map(|cache| CacheUse {
            cache: Arc::clone(cache),
            collection: spec.name.as_str().into(),
            dim: spec.dim,
            chunking: spec.chunking.as_str().into(),
        });
        let loader = Loader {
            settings: deps.settings.load.clone(),
            chunker,
            store: Arc::clone(&deps.store),
            embedder: Arc::clone(&deps.embedder),
            cache: cache.clone(),
            strategy: deps.settings.ingest.strategy,
            root: root.clone(),
        };
        Self {
            deps,
            spec,
            loader: Arc::new(loader),
            progress,
            root,
            found: VecDeque::new(),
            loads: JoinSet::new(),
            assemblies: HashMap::new(),
            next_document: 0,
            twins: HashMap::new(),
            kept: HashSet::new(),
            batch_size: BatchSize::new(embed),
            cache,
            queue: Queue::new(Duration::from_millis(embed.max_wait_ms)),
            embeds: JoinSet::new(),
            ready: VecDeque::new(),
            suspects: VecDeque::new(),
            commits: JoinSet::new(),
            store_failures: 0,
            tally: Tally::new(),
        }
    }

    /// Runs to the end, or to the cancellation.
    ///
    /// # Errors
    /// What would fail for every document.
    pub(super) async fn run(
        mut self,
        discovery: Discovery,
        cancel: &CancellationToken,
    ) -> Result<IngestReport, PipelineError> {
        self.take_in(discovery).await;
        while self.start() {
            let deadline = self.deadline();
            tokio::select! {
                biased;
                () = cancel.cancelled(), if !self.tally.is_cancelled() => self.cancel().await,
                Some(Ok(committed)) = self.commits.join_next() => self.committed(committed)?,
                Some(Ok(embedded)) = self.embeds.join_next() => self.embedded(embedded)?,
                Some(Ok(loaded)) = self.loads.join_next() => self.loaded(loaded)?,
                () = until(deadline), if deadline.is_some() => {}
                // A task that ended without a result is no longer in its set; look again.
                else => {}
            }
        }
        Ok(self.tally.finish())
    }

    async fn take_in(&mut self, discovery: Discovery) {
        let skipped =
            discovery.skipped.iter().map(|(reason, count)| (reason.as_str(), *count)).collect();
        self.tally.found(discovery.found.len() as u64, skipped);
        self.found = self.look_up(discovery.found).await;
        for error in discovery.failures {
            let stage = Stage::new(stage_span!(
                parent: self.root, "discover", "retake.stage" = "discover",
            ));
            stage.fail(&error);
            self.failed(&place(&error), &error);
        }
    }

    /// What is committed of each file: a look for many costs hardly more than one for one. When the
    /// store does not answer, each document asks for itself, and fails for itself.
    async fn look_up(&self, found: Vec<Found>) -> VecDeque<Awaited> {
        let mut awaited = VecDeque::with_capacity(found.len());
        let mut found = found.into_iter().peekable();
        while found.peek().is_some() {
            let page: Vec<Found> = found.by_ref().take(LOOKED_UP_AT_ONCE).collect();
            let ids: Vec<String> = page.iter().map(|found| found.id.clone()).collect();
            let digests = self.deps.store.committed_digests(&ids).await.ok();
            awaited.extend(page.into_iter().map(|found| {
                let committed = match &digests {
                    Some(digests) => Committed::As(digests.get(&found.id).copied()),
                    None => Committed::NotLookedUp,
                };
                Awaited { found, committed }
            }));
        }
        awaited
    }

    /// Starts everything that may be started; `false` when nothing is left to wait for.
    fn start(&mut self) -> bool {
        self.start_loads();
        self.start_embeds();
        self.start_commit();
        !(self.loads.is_empty() && self.embeds.is_empty() && self.commits.is_empty())
            || self.queue.len() > 0
    }

    fn start_loads(&mut self) {
        let chunks_max = self.batch_size.get() * self.workers() * BATCHES_AHEAD;
        while self.loads.len() < self.workers()
            && self.documents_under_way() < DOCUMENTS_UNDER_WAY_MAX.max(2 * self.workers())
            && self.queue.len() <= chunks_max
        {
            let Some(found) = self.found.pop_front() else { break };
            self.loads.spawn(Arc::clone(&self.loader).load(found));
        }
    }

    fn start_embeds(&mut self) {
        while self.embeds.len() < self.workers() {
            let is_open = !self.loads.is_empty() || !self.found.is_empty();
            let supply = if is_open { Supply::Open } else { Supply::Ended };
            let Some(batch) = self.queue.take(self.batch_size.get(), supply) else { break };
            let (embedder, cache) = (Arc::clone(&self.deps.embedder), self.cache.clone());
            self.embeds.spawn(batch.embed(embedder, cache, self.root.clone()));
        }
    }

    fn start_commit(&mut self) {
        if !self.commits.is_empty() {
            return;
        }
        let documents: Vec<EmbeddedDocument> = match self.suspects.pop_front() {
            Some(suspect) => vec![suspect],
            None => self.ready.drain(..self.ready.len().min(COMMIT_DOCUMENTS_MAX)).collect(),
        };
        if !documents.is_empty() {
            let store = Arc::clone(&self.deps.store);
            let cache = self.cache.clone().map(|cache| (cache, Arc::clone(&self.deps.embedder)));
            self.commits.spawn(commit(documents, store, cache, self.root.clone()));
        }
    }

    /// When a batch has to go although it is not full; nothing while all workers are busy.
    fn deadline(&self) -> Option<Instant> {
        if self.embeds.len() < self.workers() { self.queue.deadline() } else { None }
    }

    fn workers(&self) -> usize {
        self.deps.settings.workers.max(1)
    }

    fn documents_under_way(&self) -> usize {
        let twins: usize = self.twins.values().map(VecDeque::len).sum();
        self.loads.len() + self.assemblies.len() + self.ready.len() + self.suspects.len() + twins
    }

    fn loaded(&mut self, loaded: Loaded) -> Result<(), PipelineError> {
        match loaded.result {
            Ok(Content::Unchanged(digest)) => {
                self.progress.document_done(&DocumentOutcome::Unchanged { id: &loaded.id });
                self.tally.unchanged(loaded.id, digest);
            }
            Ok(Content::Duplicate) => self.duplicate(&loaded.id),
            Ok(Content::New(new)) => self.begin(loaded.id, new),
            Err(error) => {
                self.failed(&loaded.id, &error);
                if matches!(error, PipelineError::Store { .. }) {
                    return self.store_failed(error);
                }
            }
        }
        Ok(())
    }

    /// Begins a new document, unless one with the same content is under way.
    fn begin(&mut self, id: String, new: NewDocument) {
        if self.drops_duplicates() {
            if self.kept.contains(&new.digest) {
                self.duplicate(&id);
                return;
            }
            if let Some(waiting) = self.twins.get_mut(&new.digest) {
                waiting.push_back((id, new));
                return;
            }
            self.twins.insert(new.digest, VecDeque::new());
        }
        self.assemble(Assembly::new(id, new));
    }

    fn drops_duplicates(&self) -> bool {
        self.deps.settings.ingest.strategy == DocumentStrategy::DuplicatesOnly
    }

    fn duplicate(&mut self, id: &str) {
        self.progress.document_done(&DocumentOutcome::Duplicate { id });
        self.tally.duplicate();
    }

    fn assemble(&mut self, assembly: Assembly) {
        self.tally.cached(assembly.cached());
        if assembly.is_complete() {
            // Without chunks there is nothing to embed, but the document is seen.
            self.ready.push_back(assembly.finish());
            return;
        }
        let number = self.next_document;
        self.next_document += 1;
        self.queue.push(number, assembly.chunks(), assembly.open_ordinals());
        self.assemblies.insert(number, assembly);
    }

    fn embedded(&mut self, embedded: Embedded) -> Result<(), PipelineError> {
        let Embedded { batch, result, took } = embedded;
        let change = match &result {
            Ok(_) => self.batch_size.succeeded(batch.members.len(), took),
            Err(error) => self.batch_size.failed(error),
        };
        if let Some(change) = change {
            self.batch_changed(change);
        }
        let chunks = batch.members.len() as u64;
        let tokens = result.as_ref().ok().and_then(|embeddings| embeddings.tokens);
        self.tally.embedded(chunks, tokens.unwrap_or_default());
        self.progress.batch_done(chunks);
        match result.and_then(|embeddings| self.fitting(embeddings)) {
            Ok(vectors) => {
                for (member, vector) in batch.members.iter().zip(vectors) {
                    self.put(member.document, member.ordinal, vector);
                }
                Ok(())
            }
            Err(error) if stops(&error) => Err(error),
            Err(error) => {
                for member in &batch.members {
                    self.give_up(member.document, &error);
                }
                Ok(())
            }
        }
    }

    fn batch_changed(&mut self, Change { from, to, reason }: Change) {
        tracing::info!(parent: self.root, from, to, reason, "embedding batch size changed");
        self.tally.batch_changed();
    }

    /// The vectors, if they have the width of the collection. A service may change its model under
    /// us; then no document can be committed.
    fn fitting(&self, embeddings: Embeddings) -> Result<Vec<Vec<f32>>, PipelineError> {
        if embeddings.dim == self.spec.dim {
            return Ok(embeddings.vectors);
        }
        Err(PipelineError::ModelMismatch {
            action: "embed chunks",
            collection: self.spec.name.clone(),
            expected: self.spec.dim,
            expected_model: self.spec.model.clone(),
            found: embeddings.dim,
            found_model: self.deps.embedder.model().to_owned(),
        })
    }

    fn put(&mut self, document: u64, ordinal: usize, vector: Vec<f32>) {
        // A document that failed in another batch is no longer there.
        let Some(assembly) = self.assemblies.get_mut(&document) else { return };
        assembly.put(ordinal, vector);
        if assembly.is_complete()
            && let Some(assembly) = self.assemblies.remove(&document)
        {
            self.ready.push_back(assembly.finish());
        }
    }

    fn give_up(&mut self, document: u64, error: &PipelineError) {
        if let Some(assembly) = self.assemblies.remove(&document) {
            self.queue.remove(document);
            self.failed(&assembly.id, error);
            self.next_twin(&assembly.digest);
        }
    }

    /// The document failed; the next one with the same content takes its place, so that the
    /// content is not lost with it.
    fn next_twin(&mut self, digest: &Digest) {
        let next = self.twins.get_mut(digest).and_then(VecDeque::pop_front);
        match next {
            Some((id, new)) => self.assemble(Assembly::new(id, new)),
            None => drop(self.twins.remove(digest)),
        }
    }

    fn committed(&mut self, committed: CommitEnd) -> Result<(), PipelineError> {
        let CommitEnd { mut documents, result } = committed;
        match result {
            Ok(()) => {
                self.store_failures = 0;
                for document in documents {
                    let chunks = document.chunks.len() as u64;
                    let outcome = DocumentOutcome::Committed { id: &document.id, chunks };
                    self.progress.document_done(&outcome);
                    if self.drops_duplicates() {
                        self.kept.insert(document.digest);
                    }
                    for (twin, _) in self.twins.remove(&document.digest).into_iter().flatten() {
                        self.duplicate(&twin);
                    }
                    self.tally.committed(document.id, document.digest, chunks);
                }
                Ok(())
            }
            Err(error) if stops(&error) => Err(error),
            Err(error) if documents.len() > 1 => {
                tracing::debug!(%error, "commit documents one by one");
                self.suspects.extend(documents);
                Ok(())
            }
            Err(error) => {
                if let Some(document) = documents.pop() {
                    self.failed(&document.id, &error);
                    self.next_twin(&document.digest);
                }
                self.store_failed(error)
            }
        }
    }

    /// Ends the run when the store fails again and again: then the documents are not to blame.
    fn store_failed(&mut self, error: PipelineError) -> Result<(), PipelineError> {
        self.store_failures += 1;
        if self.store_failures >= STORE_FAILURES_MAX { Err(error) } else { Ok(()) }
    }

    fn failed(&mut self, id: &str, error: &PipelineError) {
        self.progress.document_done(&DocumentOutcome::Failed { id, error });
        self.tally.failed(id, error);
    }

    /// Starts nothing new and waits for no model; what is whole is still committed.
    async fn cancel(&mut self) {
        self.tally.cancelled();
        self.found.clear();
        self.queue.clear();
        self.assemblies.clear();
        self.twins.clear();
        // A blocking read cannot be aborted, only abandoned: then its span would outlive the run.
        // The few under way are nearly always done in a moment.
        let ended = async { while self.loads.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(LOADS_WAIT_MAX, ended).await;
        self.loads.shutdown().await;
        self.embeds.shutdown().await;
    }
}

async fn commit(
    documents: Vec<EmbeddedDocument>,
    store: Arc<dyn VectorStore>,
    cache: Option<(CacheUse, Arc<dyn Embedder>)>,
    root: Span,
) -> CommitEnd {
    let rows: usize = documents.iter().map(|document| document.chunks.len()).sum();
    let stage = Stage::new(stage_span!(
        parent: &root, "insert",
        "retake.stage" = "insert",
        "db.system.name" = store.system(),
        "db.operation.name" = "upsert",
        "retake.batch.size" = rows,
        "retake.document.count" = documents.len(),
    ));
    let span = stage.span().clone();
    let result = stage.end(store.commit(&documents).instrument(span).await);
    if let (Ok(()), Some((cache, embedder))) = (&result, cache) {
        cache.keep_documents(embedder.as_ref(), &documents).await;
    }
    CommitEnd { documents, result }
}

/// Whether every other document would fail in the same way.
fn stops(error: &PipelineError) -> bool {
    matches!(error, PipelineError::Configuration(_) | PipelineError::ModelMismatch { .. })
}

/// The path that could not be listed; there is no document to name.
fn place(error: &PipelineError) -> String {
    match error {
        PipelineError::Io { path, .. } | PipelineError::NotFound(path) => {
            path.display().to_string()
        }
        other => other.to_string(),
    }
}

async fn until(deadline: Option<Instant>) {
    if let Some(deadline) = deadline {
        tokio::time::sleep_until(deadline).await;
    }
}

/// How long a cancelled ingest waits for the files it is reading.
const LOADS_WAIT_MAX: std::time::Duration = std::time::Duration::from_secs(2);
/// Enough to fill batches across small documents, little enough that their texts stay small.
const DOCUMENTS_UNDER_WAY_MAX: usize = 128;
/// Full batches that may wait while all workers embed; more only takes memory.
const BATCHES_AHEAD: usize = 4;
/// A commit costs one flush of the disk whatever its size; a larger one only delays "committed".
const COMMIT_DOCUMENTS_MAX: usize = 32;
/// Documents of which the store is asked together: some hundred KB of ids.
const LOOKED_UP_AT_ONCE: usize = 1000;
/// A database that failed this often in a row will fail for the rest too.
const STORE_FAILURES_MAX: u32 = 8;
