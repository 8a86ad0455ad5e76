//! SQL over the runs of a store.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::datasource::{MemTable, ViewTable};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::{FutureExt, StreamExt};
use retake_recorder::Store;
use retake_recorder::reader::ReadError;
use retake_recorder::store::StoreError;
use retake_schemas::RunId;
use retake_schemas::tables::{Row, RunRow, TableName};

use crate::error::AnalyzeError;
use crate::sql::yielding::Yielding;
use crate::sql::{VIEWS, functions, sandbox};
use crate::tables::{RunSource, SealedTable};

/// Which runs an analyzer sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Every run of the store. One whose manifest cannot be read is left out with a warning.
    All,
    /// These runs; each must be readable.
    Runs(Vec<RunId>),
}

/// A read-only view of some runs, as of when it was opened.
pub struct Analyzer {
    context: SessionContext,
    runs: Arc<[Arc<RunSource>]>,
    warnings: Vec<String>,
}

impl std::fmt::Debug for Analyzer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let runs: Vec<_> = self.runs.iter().map(|run| run.reader().run_id()).collect();
        f.debug_struct("Analyzer").field("runs", &runs).field("warnings", &self.warnings).finish()
    }
}

impl Analyzer {
    /// Opens the runs in scope. Reads manifests and the unsealed part of runs being recorded;
    /// sealed files are checked and read when a query first needs them.
    ///
    /// # Errors
    /// The store cannot be listed, or a run that was named cannot be read.
    pub fn open(store: &Store, scope: Scope) -> Result<Self, AnalyzeError> {
        Self::open_within(store, scope, MEMORY_BYTES_DEFAULT)
    }

    /// The same; queries together may not take more memory than this. Sorts, joins, and
    /// aggregations beyond it go to temporary files, the rest is refused.
    ///
    /// # Errors
    /// As [`Analyzer::open`].
    pub fn open_within(
        store: &Store,
        scope: Scope,
        memory_bytes_max: usize,
    ) -> Result<Self, AnalyzeError> {
        let mut warnings = Vec::new();
        let mut runs = Vec::new();
        match scope {
            Scope::Runs(run_ids) => {
                for run_id in run_ids {
                    runs.push(Arc::new(RunSource::open(store, &run_id)?));
                }
            }
            Scope::All => {
                for run_id in store.run_ids()? {
                    match RunSource::open(store, &run_id) {
                        Ok(run) => runs.push(Arc::new(run)),
                        Err(error) if is_unreadable_manifest(&error) => {
                            warnings.push(format!("run {run_id} was left out: {error}"));
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        for run in &runs {
            let run_id = run.reader().run_id();
            let damage = run.reader().damage().iter();
            warnings.extend(damage.map(|damage| format!("run {run_id}: {damage}")));
        }
        let runs: Arc<[Arc<RunSource>]> = runs.into();
        Ok(Self { context: context(&runs, memory_bytes_max)?, runs, warnings })
    }

    /// What was left out, and why.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The runs in scope.
    #[must_use]
    pub fn runs(&self) -> Vec<RunRow> {
        self.runs.iter().map(|run| run.reader().run_row()).collect()
    }

    /// One run in scope.
    ///
    /// # Errors
    /// [`AnalyzeError::NoRun`].
    pub fn run(&self, run_id: &RunId) -> Result<RunRow, AnalyzeError> {
        let found = self.runs.iter().find(|run| run.reader().run_id() == run_id);
        found.map(|run| run.reader().run_row()).ok_or_else(|| AnalyzeError::NoRun(run_id.clone()))
    }

    /// Runs one query and collects its result.
    ///
    /// # Errors
    /// The text is not one query, names what does not exist, or needs a damaged file.
    pub async fn query(&self, sql: &str) -> Result<QueryResult, AnalyzeError> {
        let mut rows = self.query_stream(sql).await?;
        let mut batches = Vec::new();
        while let Some(batch) = rows.next().await {
            batches.push(batch?);
        }
        Ok(QueryResult { schema: rows.schema(), batches })
    }

    /// Runs one query; the result comes batch by batch, in bounded memory.
    ///
    /// # Errors
    /// The text is not one query, names what does not exist, or needs a damaged file.
    pub async fn query_stream(&self, sql: &str) -> Result<QueryStream, AnalyzeError> {
        let frame = sandbox::plan(&self.context, sql).await?;
        Ok(QueryStream(frame.execute_stream().await?))
    }

    pub(crate) fn context(&self) -> &SessionContext {
        &self.context
    }
}

/// The result of a query.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryResult {
    /// Names and types of the columns.
    pub schema: SchemaRef,
    /// The rows.
    pub batches: Vec<RecordBatch>,
}

impl QueryResult {
    /// Number of rows.
    #[must_use]
    pub fn num_rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }
}

/// The result of a query as it comes.
pub struct QueryStream(SendableRecordBatchStream);

impl std::fmt::Debug for QueryStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("QueryStream").field(&self.0.schema()).finish()
    }
}

impl QueryStream {
    /// Names and types of the columns.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        self.0.schema()
    }

    /// The next rows; `None` after the last.
    pub async fn next(&mut self) -> Option<Result<RecordBatch, AnalyzeError>> {
        Some(self.0.next().await?.map_err(AnalyzeError::from))
    }
}

fn is_unreadable_manifest(error: &AnalyzeError) -> bool {
    let AnalyzeError::Run { source, .. } = error else { return false };
    matches!(
        **source,
        ReadError::Store(StoreError::Manifest(_) | StoreError::Version(_) | StoreError::NoRun(_))
    )
}

fn context(
    runs: &Arc<[Arc<RunSource>]>,
    memory_bytes_max: usize,
) -> Result<SessionContext, AnalyzeError> {
    let config = SessionConfig::new()
        .with_information_schema(true)
        .with_default_catalog_and_schema("retake", "public")
        .with_sort_spill_reservation_bytes(sort_reserve_bytes(memory_bytes_max))
        .set_bool("datafusion.execution.parquet.pushdown_filters", true);
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(FairSpillPool::new(memory_bytes_max)))
        .build_arc()?;
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_default_features()
        .with_physical_optimizer_rule(Arc::new(Yielding))
        .build();
    let context = SessionContext::new_with_state(state);
    sandbox::remove_functions(&context);
    for function in functions::all() {
        context.register_udf(function);
    }
    let rows: Vec<RunRow> = runs.iter().map(|run| run.reader().run_row()).collect();
    let table = MemTable::try_new(RunRow::schema(), vec![vec![RunRow::to_batch(&rows)]])?;
    context.register_table(TableName::Runs.as_str(), Arc::new(table))?;
    for table in TableName::SEALED {
        let provider = SealedTable::new(table, Arc::clone(runs));
        context.register_table(table.as_str(), Arc::new(provider))?;
    }
    for view in VIEWS {
        // Planning only asks catalogs in memory, so it never waits and needs no runtime.
        let plan =
            context.state().create_logical_plan(view.sql).now_or_never().ok_or_else(|| {
                AnalyzeError::Internal(format!("planning {} waited", view.name))
            })??;
        let table = ViewTable::new(plan, Some(view.sql.to_owned()));
        context.register_table(view.name, Arc::new(table))?;
    }
    Ok(context)
}

/// What a sort keeps back to merge its temporary files with: 10 MiB is the engine's choice, but
/// every partition wants it, and with little memory a sort would be refused before it began.
fn sort_reserve_bytes(memory_bytes_max: usize) -> usize {
    let partitions = std::thread::available_parallelism().map_or(1, usize::from);
    (memory_bytes_max / (4 * partitions)).min(10 << 20)
}

/// What queries together may take where nobody says otherwise: fits a laptop beside its browser.
pub const MEMORY_BYTES_DEFAULT: usize = 2 << 30;
