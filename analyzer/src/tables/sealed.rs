//! A table over the sealed Parquet files of the runs in scope and what they have not sealed yet.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::memory::{DataSourceExec, MemorySourceConfig};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::config::TableParquetOptions;
use datafusion::common::stats::Precision;
use datafusion::common::{DataFusionError, Result, Statistics, project_schema};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::object_store::path::Path as StorePath;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::union::UnionExec;
use retake_schemas::tables::TableName;

use super::checked::RunSource;
use super::prune;
use super::segments::{ScannedFile, SegmentReaders};
use super::stored::StoredColumns;

/// One of the tables that are sealed into segments.
///
/// Sort orders are deliberately not stated although rows are clustered by trace: DataFusion 55
/// plans around a stated order by merging, and then reads partitions one after the other.
#[derive(Debug)]
pub(crate) struct SealedTable {
    table: TableName,
    schema: SchemaRef,
    runs: Arc<[Arc<RunSource>]>,
}

impl SealedTable {
    pub(crate) fn new(table: TableName, runs: Arc<[Arc<RunSource>]>) -> Self {
        Self { table, schema: table.schema(), runs }
    }

    fn pruned(&self, filters: &[Expr]) -> Vec<Arc<RunSource>> {
        let ids = prune::run_ids(filters);
        let is_left = |run: &RunSource| {
            ids.as_ref().is_none_or(|ids| ids.contains(run.reader().run_id().as_str()))
        };
        self.runs.iter().filter(|run| is_left(run)).cloned().collect()
    }

    fn scan_files(
        &self,
        state: &dyn Session,
        files: &[Arc<ScannedFile>],
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let url = ObjectStoreUrl::local_filesystem();
        let runtime = state.runtime_env();
        let mut options = TableParquetOptions::new();
        options.global = state.config_options().execution.parquet.clone();
        let source = ParquetSource::new(TableSchema::from(Arc::clone(&self.schema)))
            .with_table_parquet_options(options)
            .with_parquet_file_reader_factory(Arc::new(SegmentReaders {
                footers: runtime.cache_manager.get_file_metadata_cache(),
            }));
        let rows = files.iter().map(|file| file.sealed().segment().rows).sum::<u64>();
        let mut statistics = Statistics::new_unknown(&self.schema);
        statistics.num_rows = Precision::Inexact(usize::try_from(rows).unwrap_or(usize::MAX));
        let files = files.iter().map(partitioned).collect::<Result<Vec<_>>>()?;
        let groups = FileGroup::new(files).split_files(state.config().target_partitions());
        let config = FileScanConfigBuilder::new(url, Arc::new(source))
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .with_expr_adapter(
                (self.table == TableName::Spans).then(|| Arc::new(StoredColumns) as _),
            )
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }

    fn scan_tails(
        &self,
        tails: &[RecordBatch],
        projection: Option<&Vec<usize>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let partitions = [tails.to_vec()];
        let schema = Arc::clone(&self.schema);
        Ok(MemorySourceConfig::try_new_exec(&partitions, schema, projection.cloned())?)
    }
}

#[async_trait]
impl TableProvider for SealedTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let runs = self.pruned(filters);
        let tails: Vec<RecordBatch> = runs.iter().filter_map(|run| run.tail(self.table)).collect();
        let files: Vec<Arc<ScannedFile>> = runs
            .iter()
            .flat_map(|run| run.reader().sealed_files(self.table).map(ScannedFile::new))
            .collect();
        let mut parts = Vec::new();
        if !files.is_empty() {
            parts.push(self.scan_files(state, &files, projection, limit)?);
        }
        if !tails.is_empty() {
            parts.push(self.scan_tails(&tails, projection)?);
        }
        match parts.len() {
            0 => Ok(Arc::new(EmptyExec::new(project_schema(&self.schema, projection)?))),
            1 => Ok(parts.remove(0)),
            _ => UnionExec::try_new(parts),
        }
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        let met = |filter: &&Expr| match prune::is_about_runs(filter) {
            true => TableProviderFilterPushDown::Exact,
            false => TableProviderFilterPushDown::Inexact,
        };
        Ok(filters.iter().map(met).collect())
    }
}

fn partitioned(file: &Arc<ScannedFile>) -> Result<PartitionedFile> {
    let path = std::path::absolute(file.sealed().path())?;
    let location = StorePath::from_absolute_path(path)
        .map_err(|error| DataFusionError::External(Box::new(error)))?;
    let partitioned = PartitionedFile::new("", file.sealed().segment().bytes);
    let mut partitioned = partitioned.with_extension(Arc::clone(file));
    // Set as it is: the constructor would escape characters a second time.
    partitioned.object_meta.location = location;
    Ok(partitioned)
}
