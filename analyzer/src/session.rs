//! SQL over the runs of a store.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::datasource::{MemTable, ViewTable};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::{FutureExt, StreamExt};
use retake_recorder::Store;
use retake_recorder::reader::ReadError;
use retake_recorder::store::{RunEntry, StoreError, select_among, select_set_among};
use retake_schemas::RunId;
use retake_schemas::settings::Prices;
use retake_schemas::tables::{Row, RunRow, TableName};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::AnalyzeError;
use crate::history::History;
use crate::sql::yielding::Yielding;
use crate::sql::{
    VIEWS, aggregates, functions, prices, sandbox, sketch_functions, table_functions,
};
use crate::tables::{RunSource, SealedTable};

/// Which runs an analyzer sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Every run of the store. One whose manifest cannot be read is left out with a warning.
    All,
    /// These runs; each must be readable.
    Runs(Vec<RunId>),
}

/// How runs are opened.
#[derive(Debug, Clone, PartialEq)]
pub struct AnalyzerOptions {
    /// What calls cost whose instrumentation states no cost.
    pub prices: Prices,
    /// Queries together may not take more memory than this, bytes. Sorts, joins, and aggregations
    /// beyond it go to temporary files, the rest is refused.
    pub memory_bytes_max: usize,
    /// The folder whose budget files `budget_violations` may name; `None` refuses it.
    pub budget_folder: Option<PathBuf>,
    /// Parts into which scans are divided, to be read side by side; one for each processor without
    /// it. Answers do not depend on it.
    pub threads: Option<NonZeroUsize>,
    /// Keeps what questions about the history make of finished runs in `<store>/history/`, so that
    /// the next time only new runs are read. Off by default: reading a store then changes nothing.
    pub keeps_history: bool,
}

impl Default for AnalyzerOptions {
    fn default() -> Self {
        Self {
            prices: Prices::default(),
            memory_bytes_max: MEMORY_BYTES_DEFAULT,
            budget_folder: None,
            threads: None,
            keeps_history: false,
        }
    }
}

/// A read-only view of some runs, as of when it was opened.
pub struct Analyzer {
    context: SessionContext,
    runs: Arc<[Arc<RunSource>]>,
    by_id: HashMap<RunId, usize>,
    warnings: Vec<String>,
    budget_folder: Option<PathBuf>,
    history_folder: Option<PathBuf>,
    prices: Arc<Prices>,
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
        Self::open_with(store, scope, &AnalyzerOptions::default())
    }

    /// The same, with prices and a limit on memory.
    ///
    /// # Errors
    /// As [`Analyzer::open`].
    pub fn open_with(
        store: &Store,
        scope: Scope,
        options: &AnalyzerOptions,
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
        // What table functions compute with, made when one is first called: a context that does
        // not know them.
        let prices = Arc::new(options.prices.clone());
        let runtime = runtime(options.memory_bytes_max)?;
        let limits =
            Limits { memory_bytes_max: options.memory_bytes_max, threads: options.threads };
        let context = context(&runs, &prices, &runtime, limits)?;
        let history_folder = options.keeps_history.then(|| store.history_dir());
        let budget_folder = options.budget_folder.clone();
        let of_context = move |context| Self {
            context,
            by_id: by_id(&runs),
            runs: Arc::clone(&runs),
            warnings: Vec::new(),
            budget_folder: budget_folder.clone(),
            history_folder: history_folder.clone(),
            prices: Arc::clone(&prices),
        };
        let analyzer = Self { warnings, ..of_context(context) };
        table_functions::register(&analyzer.context, move || {
            let inner = of_context(SessionContext::new());
            let context = self::context(&inner.runs, &inner.prices, &runtime, limits)?;
            Ok(Self { context, ..inner })
        });
        Ok(analyzer)
    }

    /// The folder whose budget files queries may name.
    pub(crate) fn budget_folder(&self) -> Option<&Path> {
        self.budget_folder.as_deref()
    }

    /// The run in scope that a selector names.
    ///
    /// # Errors
    /// It names none, or several.
    pub fn select(&self, selector: &str) -> Result<RunId, AnalyzeError> {
        Ok(select_among(&self.entries(), selector)?)
    }

    /// The runs in scope that a set names, as `Store::select_set` reads it.
    ///
    /// # Errors
    /// It names none.
    pub fn select_set(&self, set: &str) -> Result<Vec<RunId>, AnalyzeError> {
        Ok(select_set_among(&self.entries(), set)?)
    }

    fn entries(&self) -> Vec<RunEntry> {
        let entry = |run: &Arc<RunSource>| RunEntry {
            run_id: run.reader().run_id().clone(),
            manifest: Ok(run.reader().manifest().clone()),
        };
        let mut entries: Vec<RunEntry> = self.runs.iter().map(entry).collect();
        entries.sort_by_cached_key(|entry| {
            let started = entry.manifest.as_ref().map_or(0, |m| m.facts.started_unix_ns);
            (started, entry.run_id.clone())
        });
        entries
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
        Ok(self.source(run_id)?.reader().run_row())
    }

    pub(crate) fn source(&self, run_id: &RunId) -> Result<&RunSource, AnalyzeError> {
        let found = self.by_id.get(run_id).and_then(|index| self.runs.get(*index));
        found.map(|run| &**run).ok_or_else(|| AnalyzeError::NoRun(run_id.clone()))
    }

    /// What is known of a question about finished runs.
    pub(crate) fn history<T>(&self, question: &str) -> History<T>
    where
        T: Serialize + DeserializeOwned,
    {
        // Costs follow from prices.
        let question = format!("{question} at {:?}", self.prices);
        History::open(self.history_folder.as_deref(), &question)
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

fn by_id(runs: &[Arc<RunSource>]) -> HashMap<RunId, usize> {
    runs.iter().enumerate().map(|(index, run)| (run.reader().run_id().clone(), index)).collect()
}

fn is_unreadable_manifest(error: &AnalyzeError) -> bool {
    let AnalyzeError::Run { source, .. } = error else { return false };
    matches!(
        **source,
        ReadError::Store(StoreError::Manifest(_) | StoreError::Version(_) | StoreError::NoRun(_))
    )
}

/// What queries may take.
#[derive(Debug, Clone, Copy)]
struct Limits {
    memory_bytes_max: usize,
    threads: Option<NonZeroUsize>,
}

fn context(
    runs: &Arc<[Arc<RunSource>]>,
    prices: &Arc<Prices>,
    runtime: &Arc<RuntimeEnv>,
    Limits { memory_bytes_max, threads }: Limits,
) -> Result<SessionContext, AnalyzeError> {
    let mut config = SessionConfig::new()
        .with_information_schema(true)
        .with_default_catalog_and_schema("retake", "public")
        .with_sort_spill_reservation_bytes(sort_reserve_bytes(memory_bytes_max))
        .set_bool("datafusion.execution.parquet.pushdown_filters", true);
    if let Some(threads) = threads {
        config = config.with_target_partitions(threads.get());
    }
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(Arc::clone(runtime))
        .with_default_features()
        .with_physical_optimizer_rule(Arc::new(Yielding))
        .build();
    let context = SessionContext::new_with_state(state);
    sandbox::remove_functions(&context);
    for function in functions::all() {
        context.register_udf(function);
    }
    context.register_udf(prices::function(prices));
    for function in sketch_functions::all() {
        context.register_udf(function);
    }
    for function in aggregates::all() {
        context.register_udaf(function);
    }
    let rows: Vec<RunRow> = runs.iter().map(|run| run.reader().run_row()).collect();
    let table = MemTable::try_new(RunRow::schema(), vec![vec![RunRow::to_batch(&rows)]])?;
    context.register_table(TableName::Runs.as_str(), Arc::new(table))?;
    for table in TableName::SEALED {
        let provider = SealedTable::new(table, Arc::clone(runs));
        let is_priced = table == TableName::Spans && !prices.is_empty();
        let name = if is_priced { RECORDED_SPANS } else { table.as_str() };
        context.register_table(name, Arc::new(provider))?;
        if is_priced {
            register_view(&context, table.as_str(), &prices::priced_spans(RECORDED_SPANS))?;
        }
    }
    for view in VIEWS {
        register_view(&context, view.name, view.sql)?;
    }
    Ok(context)
}

/// One pool for all contexts of an analyzer, so that the limit is one.
fn runtime(memory_bytes_max: usize) -> Result<Arc<RuntimeEnv>, AnalyzeError> {
    let pool = Arc::new(FairSpillPool::new(memory_bytes_max));
    Ok(RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc()?)
}

fn register_view(context: &SessionContext, name: &str, sql: &str) -> Result<(), AnalyzeError> {
    // Planning only asks catalogs in memory, so it never waits and needs no runtime.
    let plan = context.state().create_logical_plan(sql).now_or_never();
    let plan = plan.ok_or_else(|| AnalyzeError::Internal(format!("planning {name} waited")))??;
    context.register_table(name, Arc::new(ViewTable::new(plan, Some(sql.to_owned()))))?;
    Ok(())
}

/// The spans as they were recorded, where `spans` has costs filled in.
const RECORDED_SPANS: &str = "recorded_spans";

/// What a sort keeps back to merge its temporary files with: 10 MiB is the engine's choice, but
/// every partition wants it, and with little memory a sort would be refused before it began.
fn sort_reserve_bytes(memory_bytes_max: usize) -> usize {
    let partitions = std::thread::available_parallelism().map_or(1, usize::from);
    (memory_bytes_max / (4 * partitions)).min(10 << 20)
}

/// What queries together may take where nobody says otherwise: fits a laptop beside its browser.
pub const MEMORY_BYTES_DEFAULT: usize = 2 << 30;
