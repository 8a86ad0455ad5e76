//! The pipeline as a replay target.
//!
//! A replayed ingest goes into a collection of its own, so that a replay with other settings
//! neither sees nor changes what the source run made. Queries use that collection once there is
//! one, and the original until then.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use parking_lot::Mutex;
use retake_replay::target::{Operation, OperationContext, Target, TargetError};
use retake_schemas::Digest;
use retake_schemas::settings::RagSettings;
use serde::de::DeserializeOwned;

use crate::error::PipelineError;
use crate::ingest::{IngestDeps, IngestInput, IngestReport, IngestRequest, Silent, ingest};
use crate::query::{AskOptions, Engine, QueryInput};
use crate::{collection, store};

/// Executes `ingest` and `query` with the built-in pipeline.
#[derive(Debug)]
pub struct BuiltInTarget {
    original: RagSettings,
    scratch: RagSettings,
    default_sqlite: PathBuf,
    scratch_sqlite: PathBuf,
    last_ingest: Mutex<Option<IngestReport>>,
    /// Built by the first query. The lock is held while it is built, so that it is built once.
    engine: tokio::sync::Mutex<Option<Engine>>,
}

impl BuiltInTarget {
    /// A target with these settings. Without a database URL the original store is
    /// `default_sqlite`; `scratch_dir` is a folder of this replay alone, for what it ingests.
    #[must_use]
    pub fn new(settings: RagSettings, default_sqlite: &Path, scratch_dir: &Path) -> Self {
        crate::tokens::prepare();
        let scratch_sqlite = scratch_dir.join(SCRATCH_SQLITE);
        let mut scratch = settings.clone();
        let is_postgres =
            settings.vectors.url.as_ref().is_some_and(|url| url.starts_with("postgres"));
        if is_postgres {
            // The folder is this replay's alone, and so is a name made of it.
            scratch.vectors.collection = format!("retake replay {}", scratch_dir.display());
        } else {
            scratch.vectors.url = None;
        }
        Self {
            original: settings,
            scratch,
            default_sqlite: default_sqlite.to_owned(),
            scratch_sqlite,
            last_ingest: Mutex::new(None),
            engine: tokio::sync::Mutex::new(None),
        }
    }

    /// Digest of the corpus that this replay ingested last, to compare with the recorded one
    /// (`retake.corpus.digest`); `None` before an ingest.
    #[must_use]
    pub fn corpus_digest(&self) -> Option<Digest> {
        self.last_ingest.lock().as_ref().map(|report| report.corpus)
    }

    /// What became of the documents that this replay ingested last.
    #[must_use]
    pub fn last_ingest(&self) -> Option<IngestReport> {
        self.last_ingest.lock().clone()
    }

    /// Drops what this replay ingested. The scratch folder itself is the caller's.
    ///
    /// # Errors
    /// The database failed.
    pub async fn clean_up(&self) -> Result<(), PipelineError> {
        *self.engine.lock().await = None;
        if self.last_ingest.lock().take().is_none() {
            return Ok(());
        }
        let deps = self.scratch_deps().await?;
        let spec = collection::spec(&self.scratch, deps.embedder.as_ref()).await?;
        if deps.store.open_existing(&spec).await? {
            deps.store.drop_collection().await?;
        }
        Ok(())
    }

    async fn ingest(
        &self,
        operation: &Operation,
        context: &OperationContext,
    ) -> Result<(), TargetError> {
        let input: IngestInput = input(operation)?;
        let request = IngestRequest {
            roots: input.roots,
            request_id: None,
            source: operation.source.clone(),
            due_unix_ns: Some(context.due_unix_ns),
        };
        let deps = self.scratch_deps().await.map_err(failed)?;
        let cancel = context.cancellation.clone();
        let report = ingest(request, &deps, &Silent, cancel).await.map_err(failed)?;
        let is_cancelled = report.is_cancelled;
        *self.last_ingest.lock() = Some(report);
        // Queries from here on see the new collection.
        *self.engine.lock().await = None;
        if is_cancelled { Err(TargetError::Cancelled) } else { Ok(()) }
    }

    async fn query(
        &self,
        operation: &Operation,
        context: &OperationContext,
    ) -> Result<(), TargetError> {
        let input: QueryInput = input(operation)?;
        let engine = self.engine().await.map_err(failed)?;
        let engine = match &context.cassette {
            Some(cassette) => engine.with_recorded_llm(cassette.clone()),
            None => engine,
        };
        let options = AskOptions {
            request_id: None,
            source: operation.source.clone(),
            due_unix_ns: Some(context.due_unix_ns),
            schema: None,
            cancellation: context.cancellation.clone(),
        };
        engine.ask(&input.question, options, &mut |_| {}).await.map(drop).map_err(failed)
    }

    async fn engine(&self) -> Result<Engine, PipelineError> {
        let mut held = self.engine.lock().await;
        if let Some(engine) = &*held {
            return Ok(engine.clone());
        }
        let has_ingested = self.last_ingest.lock().is_some();
        let engine = if has_ingested {
            Engine::from_settings(&self.scratch, &self.scratch_sqlite).await?
        } else {
            Engine::from_settings(&self.original, &self.default_sqlite).await?
        };
        *held = Some(engine.clone());
        Ok(engine)
    }

    async fn scratch_deps(&self) -> Result<IngestDeps, PipelineError> {
        Ok(IngestDeps {
            embedder: crate::embed::from_settings(&self.scratch)?,
            store: store::open(&self.scratch.vectors, &self.scratch_sqlite).await?,
            cache: None,
            settings: self.scratch.clone(),
        })
    }
}

#[async_trait]
impl Target for BuiltInTarget {
    fn name(&self) -> &str {
        "built-in"
    }

    fn settings(&self) -> BTreeMap<String, serde_json::Value> {
        self.original.recordable()
    }

    async fn execute(
        &self,
        operation: &Operation,
        context: &OperationContext,
    ) -> Result<(), TargetError> {
        match operation.kind.as_str() {
            "ingest" => self.ingest(operation, context).await,
            "query" => self.query(operation, context).await,
            other => Err(TargetError::Refused(format!(
                "replay operation {other:?}: the built-in pipeline knows ingest and query"
            ))),
        }
    }
}

fn input<T: DeserializeOwned>(operation: &Operation) -> Result<T, TargetError> {
    serde_json::from_value(operation.input.clone()).map_err(|error| {
        TargetError::Refused(format!("read input of operation {}: {error}", operation.index))
    })
}

fn failed(error: PipelineError) -> TargetError {
    match error {
        PipelineError::Cancelled => TargetError::Cancelled,
        other => TargetError::Failed {
            error_type: other.error_type().to_owned(),
            message: other.to_string(),
        },
    }
}

/// File name of the scratch store.
const SCRATCH_SQLITE: &str = "replay.sqlite";
