//! A table whose rows are computed when it is scanned.

use std::fmt;
use std::sync::{Arc, OnceLock};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::memory::MemorySourceConfig;
use datafusion::catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{DataFusionError, Result, plan_datafusion_err};
use datafusion::datasource::TableType;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::OnceCell;

use super::arguments::Arguments;
use crate::error::AnalyzeError;
use crate::session::Analyzer;

type Compute = Box<
    dyn Fn(Arc<Analyzer>) -> BoxFuture<'static, Result<RecordBatch, AnalyzeError>> + Send + Sync,
>;

/// What a call answers: the columns, known when the query is planned, and how the rows are found.
pub(super) struct Answer {
    schema: SchemaRef,
    compute: Compute,
}

impl Answer {
    /// Columns that may all be NULL, and what fills them: `compute` gives one array for each, from
    /// the runs and the call's `arguments`.
    pub(super) fn of<A, F, C>(columns: &[(&str, DataType)], arguments: A, compute: C) -> Self
    where
        A: Clone + Send + Sync + 'static,
        F: Future<Output = Result<Vec<ArrayRef>, AnalyzeError>> + Send + 'static,
        C: Fn(Arc<Analyzer>, A) -> F + Send + Sync + 'static,
    {
        let field = |(name, of): &(&str, DataType)| Field::new(*name, of.clone(), true);
        let schema = Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<Field>>()));
        let given = Arc::clone(&schema);
        let compute = move |analyzer| {
            let (schema, found) = (Arc::clone(&given), compute(analyzer, arguments.clone()));
            async move {
                RecordBatch::try_new(schema, found.await?)
                    .map_err(|error| AnalyzeError::Internal(error.to_string()))
            }
            .boxed()
        };
        Self { schema, compute: Box::new(compute) }
    }
}

/// An analyzer that is opened when it is first asked: most queries call no table function.
pub(super) struct LazyAnalyzer {
    open: Box<dyn Fn() -> Result<Analyzer, AnalyzeError> + Send + Sync>,
    opened: OnceLock<Arc<Analyzer>>,
}

impl LazyAnalyzer {
    pub(super) fn new(
        open: impl Fn() -> Result<Analyzer, AnalyzeError> + Send + Sync + 'static,
    ) -> Self {
        Self { open: Box::new(open), opened: OnceLock::new() }
    }

    fn get(&self) -> Result<Arc<Analyzer>, AnalyzeError> {
        if let Some(analyzer) = self.opened.get() {
            return Ok(Arc::clone(analyzer));
        }
        let analyzer = Arc::new((self.open)()?);
        Ok(Arc::clone(self.opened.get_or_init(|| analyzer)))
    }
}

/// A function that gives a table.
pub(super) struct TableFunction {
    name: &'static str,
    prepare: fn(&Arguments) -> Result<Answer, String>,
    analyzer: Arc<LazyAnalyzer>,
}

impl TableFunction {
    pub(super) fn new(
        name: &'static str,
        prepare: fn(&Arguments) -> Result<Answer, String>,
        analyzer: &Arc<LazyAnalyzer>,
    ) -> Self {
        Self { name, prepare, analyzer: Arc::clone(analyzer) }
    }
}

impl fmt::Debug for TableFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableFunction").field("name", &self.name).finish_non_exhaustive()
    }
}

impl TableFunctionImpl for TableFunction {
    fn call_with_args(&self, args: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        let name = self.name;
        let answer = Arguments::new(args.exprs())
            .and_then(|arguments| (self.prepare)(&arguments))
            .map_err(|reason| plan_datafusion_err!("{name}: {reason}"))?;
        let analyzer = Arc::clone(&self.analyzer);
        Ok(Arc::new(Computed { name, answer, analyzer, rows: OnceCell::new() }))
    }
}

/// The table of one call.
struct Computed {
    name: &'static str,
    answer: Answer,
    analyzer: Arc<LazyAnalyzer>,
    /// A query that names the table twice computes it once.
    rows: OnceCell<RecordBatch>,
}

impl fmt::Debug for Computed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Computed").field("name", &self.name).finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for Computed {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.answer.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let compute = || async { (self.answer.compute)(self.analyzer.get()?).await };
        let rows = self.rows.get_or_try_init(compute).await;
        let rows = rows.map_err(|error| DataFusionError::External(Box::new(error)))?;
        let schema = Arc::clone(&self.answer.schema);
        Ok(MemorySourceConfig::try_new_exec(&[vec![rows.clone()]], schema, projection.cloned())?)
    }
}
