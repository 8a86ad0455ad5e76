//! A table whose rows are computed when it is scanned.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::memory::MemorySourceConfig;
use datafusion::catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{DataFusionError, Result, plan_datafusion_err};
use datafusion::datasource::TableType;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
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
    pub(super) schema: SchemaRef,
    pub(super) compute: Compute,
}

/// A function that gives a table.
pub(super) struct TableFunction {
    name: &'static str,
    prepare: fn(&Arguments) -> Result<Answer, String>,
    analyzer: Arc<Analyzer>,
}

impl TableFunction {
    pub(super) fn new(
        name: &'static str,
        prepare: fn(&Arguments) -> Result<Answer, String>,
        analyzer: &Arc<Analyzer>,
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
    analyzer: Arc<Analyzer>,
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
        let compute = || (self.answer.compute)(Arc::clone(&self.analyzer));
        let rows = self.rows.get_or_try_init(compute).await;
        let rows = rows.map_err(|error| DataFusionError::External(Box::new(error)))?;
        let schema = Arc::clone(&self.answer.schema);
        Ok(MemorySourceConfig::try_new_exec(&[vec![rows.clone()]], schema, projection.cloned())?)
    }
}
