//! Files to a searchable collection.
//!
//! A document goes `found -> loaded -> chunked -> embedded -> committed`, and is "seen" only when
//! its vectors are committed, in the same transaction. So a run that was cancelled, killed, or
//! half failed is resumed by running it again: what is committed and unchanged is skipped. A file
//! that cannot be read is counted and reported, and stops nothing else. Files that vanished from
//! the disk stay in the collection, unless the strategy is `upserts_and_delete`.
//!
//! The work is in `flow`: one task owns all state and starts bounded sets of loads, embedding
//! calls and commits, so there is no queue that could grow and no lock.

mod adaptive;
mod batch;
mod cached;
mod document;
mod flow;
mod report;
mod vanished;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use retake_replay::target::SourceLink;
use retake_schemas::settings::{DocumentStrategy, LoadSettings, RagSettings};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span, field};

use self::flow::Flow;
pub use self::report::{
    DocumentOutcome, FAILURES_KEPT, IngestFailure, IngestProgress, IngestReport, Silent,
};
use crate::cache::VectorCache;
use crate::chunk::Chunker;
use crate::embed::{self, Embedder};
use crate::error::PipelineError;
use crate::store::{self, VectorStore};
use crate::trace::{Stage, stage_span};
use crate::{collection, load};

/// What to ingest.
#[derive(Debug, Clone, Default)]
pub struct IngestRequest {
    /// Folders and files.
    pub roots: Vec<PathBuf>,
    /// The caller's name for the request.
    pub request_id: Option<String>,
    /// In a replay, the operation this one repeats.
    pub source: Option<SourceLink>,
    /// In a replay, when the operation was due.
    pub due_unix_ns: Option<i64>,
}

/// The input of an ingest as it is recorded, and read again by a replay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngestInput {
    /// Folders and files, absolute.
    pub roots: Vec<PathBuf>,
    /// The collection.
    #[serde(default)]
    pub collection: String,
}

/// What an ingest works with.
#[derive(Clone)]
pub struct IngestDeps {
    /// Makes vectors.
    pub embedder: Arc<dyn Embedder>,
    /// Keeps them.
    pub store: Arc<dyn VectorStore>,
    /// Vectors made earlier, if they are to be used. A replay has none: it must do the work.
    pub cache: Option<Arc<VectorCache>>,
    /// Everything else.
    pub settings: RagSettings,
}

impl std::fmt::Debug for IngestDeps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IngestDeps").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl IngestDeps {
    /// The embedder, the store and the cache of the settings; without a URL the store is
    /// `default_sqlite`. The cache lies beside that file.
    ///
    /// # Errors
    /// The settings cannot work, or the database cannot be reached.
    pub async fn from_settings(
        settings: &RagSettings,
        default_sqlite: &Path,
    ) -> Result<Self, PipelineError> {
        crate::tokens::prepare();
        let cache = if settings.cache.enabled {
            let path = default_sqlite.with_file_name(CACHE_FILE);
            Some(Arc::new(VectorCache::open(&path, settings.cache.bytes_max).await?))
        } else {
            None
        };
        Ok(Self {
            embedder: embed::from_settings(settings)?,
            store: store::open(&settings.vectors, default_sqlite).await?,
            cache,
            settings: settings.clone(),
        })
    }
}

/// Ingests everything under the roots, and reports what became of each document.
///
/// A cancelled ingest ends soon and in order: whole documents are committed, the report says
/// `cancelled`.
///
/// # Errors
/// What would fail for every document: a root that is not there, settings that cannot work,
/// another model than the collection's, a database that keeps failing.
pub async fn ingest(
    request: IngestRequest,
    deps: &IngestDeps,
    progress: &dyn IngestProgress,
    cancel: CancellationToken,
) -> Result<IngestReport, PipelineError> {
    let roots = absolute(&request.roots)?;
    let stage = Stage::new(root_span(&request, &roots, deps)?);
    let span = stage.span().clone();
    let result = run(roots, deps, progress, cancel, &span).instrument(span.clone()).await;
    if let Ok(report) = &result {
        record(&span, report);
    }
    stage.end(result)
}

async fn run(
    roots: Vec<PathBuf>,
    deps: &IngestDeps,
    progress: &dyn IngestProgress,
    cancel: CancellationToken,
    root: &Span,
) -> Result<IngestReport, PipelineError> {
    let spec = collection::spec(&deps.settings, deps.embedder.as_ref()).await?;
    deps.store.open_collection(&spec).await?;
    let chunker = Chunker::new(&deps.settings.chunk)?;
    let discovery = discover(roots.clone(), deps.settings.load.clone()).await?;
    progress.discovered(discovery.found.len() as u64);
    let vanished = vanished::Vanished::new(&roots, &discovery);
    let flow = Flow::new(deps, spec, chunker, progress, root);
    let mut report = flow.run(discovery, &cancel).await?;
    let deletes = deps.settings.ingest.strategy == DocumentStrategy::UpsertsAndDelete;
    if deletes && !report.is_cancelled {
        report.deleted = vanished.delete(deps, progress, root).await?;
    }
    if !report.is_cancelled {
        if let Some(cache) = &deps.cache {
            cache.flush().await?;
        }
        finish_load(deps, root, &cancel).await?;
    }
    Ok(report)
}

async fn discover(
    roots: Vec<PathBuf>,
    settings: LoadSettings,
) -> Result<load::Discovery, PipelineError> {
    let walk = tokio::task::spawn_blocking(move || load::discover(&roots, &settings));
    walk.await.unwrap_or_else(|panicked| {
        Err(PipelineError::Configuration(format!("walk folders: {panicked}")))
    })
}

/// Lets the store build its index. A cancelled build is made up for by the next ingest.
async fn finish_load(
    deps: &IngestDeps,
    root: &Span,
    cancel: &CancellationToken,
) -> Result<(), PipelineError> {
    let stage = Stage::new(stage_span!(
        parent: root, "index",
        "retake.stage" = "index",
        "db.system.name" = deps.store.system(),
    ));
    let work = async {
        deps.store.finish_load().await?;
        // Else the first question would wait for it.
        if deps.settings.retrieve.mode.searches_words() {
            deps.store.index_words().await?;
        }
        Ok(())
    };
    let built = tokio::select! {
        built = work.instrument(stage.span().clone()) => built,
        () = cancel.cancelled() => Ok(()),
    };
    stage.end(built)
}

fn absolute(roots: &[PathBuf]) -> Result<Vec<PathBuf>, PipelineError> {
    let one = |root: &PathBuf| {
        std::path::absolute(root).map_err(|source| PipelineError::Io { path: root.clone(), source })
    };
    roots.iter().map(one).collect()
}

fn root_span(
    request: &IngestRequest,
    roots: &[PathBuf],
    deps: &IngestDeps,
) -> Result<Span, PipelineError> {
    let input =
        IngestInput { roots: roots.to_vec(), collection: deps.settings.vectors.collection.clone() };
    let input = serde_json::to_string(&input).map_err(|error| {
        // The one way this can fail.
        PipelineError::Configuration(format!("record ingested folders: {error}"))
    })?;
    let source = request.source.as_ref();
    Ok(stage_span!(
        parent: &Span::current(), "ingest",
        "retake.kind" = "ingest",
        "retake.stage" = "ingest",
        "retake.operation" = "ingest",
        "input.value" = input,
        "retake.request_id" = request.request_id,
        "retake.source.run_id" = source.map(|link| field::display(&link.run_id)),
        "retake.source.trace_id" = source.map(|link| field::display(&link.trace_id)),
        "retake.source.span_id" = source.map(|link| field::display(&link.span_id)),
        "retake.due_unix_ns" = request.due_unix_ns,
        "retake.document.count" = field::Empty,
        "retake.corpus.digest" = field::Empty,
    ))
}

fn record(span: &Span, report: &IngestReport) {
    span.record("retake.document.count", report.documents());
    span.record("retake.corpus.digest", field::display(&report.corpus));
    if report.is_cancelled {
        span.record("retake.cancelled", true);
    }
}

/// The cache of vectors, beside the default store.
pub const CACHE_FILE: &str = "rag-cache.sqlite";
