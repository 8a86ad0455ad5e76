//! Writing one Parquet segment.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use arrow::array::{Array, Int64Array, RecordBatch};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;
use retake_schemas::manifest::Segment;
use retake_schemas::tables::TableName;
use retake_schemas::version::FormatVersion;

use crate::store::{StoreError, digest_file};

/// Writes `batch` as segment `number` of `table`: temporary name, flush, rename.
pub(super) fn write(
    folder: &Path,
    table: TableName,
    number: u64,
    batch: &RecordBatch,
) -> Result<Segment, StoreError> {
    let file = format!("{table}-{number:06}.parquet");
    let path = folder.join(&file);
    let temporary = folder.join(format!("{file}.tmp"));
    write_parquet(&temporary, table, batch).map_err(StoreError::io("write segment", &path))?;
    let (blake3, bytes) =
        digest_file(&temporary).map_err(StoreError::io("read back segment", &path))?;
    std::fs::rename(&temporary, &path).map_err(StoreError::io("rename segment", &path))?;
    let (min_unix_ns, max_unix_ns) = time_range(batch);
    Ok(Segment {
        table,
        file,
        bytes,
        blake3,
        rows: batch.num_rows() as u64,
        min_unix_ns,
        max_unix_ns,
    })
}

fn write_parquet(path: &Path, table: TableName, batch: &RecordBatch) -> std::io::Result<()> {
    let file: File =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let mut writer = ArrowWriter::try_new(&file, batch.schema(), Some(properties(table)))
        .map_err(std::io::Error::other)?;
    writer.write(batch).map_err(std::io::Error::other)?;
    writer.close().map_err(std::io::Error::other)?;
    file.sync_all()
}

/// Chosen by measurement (see `docs/format.md`): rows are clustered by trace, but the footer does
/// not say so, because a stated sort order makes DataFusion 55 serialise the scan.
fn properties(table: TableName) -> WriterProperties {
    let level = ZstdLevel::try_new(3).unwrap_or_default();
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_created_by(format!("retake {}", env!("CARGO_PKG_VERSION")))
        .set_key_value_metadata(Some(vec![parquet::file::metadata::KeyValue::new(
            "retake.tables".to_owned(),
            FormatVersion::TABLES.to_string(),
        )]));
    for column in table.columns() {
        let path = ColumnPath::from(column.name);
        properties = match column.name {
            // Ids that rise by one and times that rise a little: deltas, not dictionaries.
            name if name.ends_with("_ns") || name == "token_index" => {
                delta(properties, path, Encoding::DELTA_BINARY_PACKED)
            }
            "span_id" | "parent_span_id" => delta(properties, path, Encoding::DELTA_BYTE_ARRAY),
            // Point look-ups: 10 times faster for half a percent of size (measured).
            "trace_id" | "digest" => properties.set_column_bloom_filter_enabled(path, true),
            _ => properties,
        };
    }
    properties.build()
}

fn delta(
    properties: WriterPropertiesBuilder,
    path: ColumnPath,
    encoding: Encoding,
) -> WriterPropertiesBuilder {
    properties
        .set_column_dictionary_enabled(path.clone(), false)
        .set_column_encoding(path, encoding)
}

fn time_range(batch: &RecordBatch) -> (i64, i64) {
    let times = batch
        .column_by_name("start_unix_ns")
        .or_else(|| batch.column_by_name("time_unix_ns"))
        .and_then(|column| column.as_any().downcast_ref::<Int64Array>());
    let Some(times) = times else { return (0, 0) };
    let range = times
        .iter()
        .flatten()
        .fold((i64::MAX, i64::MIN), |(low, high), time| (low.min(time), high.max(time)));
    if times.len() == times.null_count() { (0, 0) } else { range }
}

/// Row groups of this size compress within 1 % of the best and keep readers parallel (measured).
const ROW_GROUP_ROWS: usize = 131_072;
/// Small pages make point look-ups cheap through the page index.
const PAGE_ROWS: usize = 20_000;
