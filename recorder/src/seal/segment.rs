//! Writing one Parquet segment.
//!
//! A segment is encoded in memory, digested there, and only then written: reading a file back to
//! digest it costs more than the few megabytes.

use std::path::Path;

use arrow::array::{Array, Int64Array, RecordBatch};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;
use retake_schemas::Digest;
use retake_schemas::manifest::Segment;
use retake_schemas::tables::TableName;
use retake_schemas::version::FormatVersion;

use super::spans;
use crate::columns::{SpanColumns, View};
use crate::disk::{Disk, write_whole};
use crate::reader::TABLES_VERSION;
use crate::store::StoreError;

/// Writes `batch` as segment `number` of `table`: temporary name, flush, rename.
pub(super) fn write(
    disk: &dyn Disk,
    folder: &Path,
    table: TableName,
    number: u64,
    batch: &RecordBatch,
) -> Result<Segment, StoreError> {
    let times = batch
        .column_by_name("start_unix_ns")
        .or_else(|| batch.column_by_name("time_unix_ns"))
        .and_then(|column| column.as_any().downcast_ref::<Int64Array>());
    let times_unix_ns = times.map(|times| range(times.iter().flatten()));
    let file = File { table, number, rows: batch.num_rows(), times_unix_ns };
    file.write(disk, folder, encode(table, batch))
}

/// Writes spans as segment `number`, on `threads` threads, of which the caller's is one.
pub(crate) fn write_spans(
    disk: &dyn Disk,
    folder: &Path,
    number: u64,
    columns: &SpanColumns,
    threads: usize,
) -> Result<Segment, StoreError> {
    let times_unix_ns = match columns.view("start_unix_ns") {
        Some(View::Ints(_, times)) => Some(range(times.iter().copied())),
        _ => None,
    };
    let file = File { table: TableName::Spans, number, rows: columns.len(), times_unix_ns };
    file.write(disk, folder, spans::encode(columns, threads))
}

/// What a segment is apart from its bytes.
struct File {
    table: TableName,
    number: u64,
    rows: usize,
    /// Lowest and highest time; `None` for a table without one.
    times_unix_ns: Option<(i64, i64)>,
}

impl File {
    /// Puts the encoded segment under its name: whole or not at all.
    fn write(
        self,
        disk: &dyn Disk,
        folder: &Path,
        encoded: Result<Vec<u8>, ParquetError>,
    ) -> Result<Segment, StoreError> {
        let file = format!("{}-{:06}.parquet", self.table, self.number);
        let path = folder.join(&file);
        let bytes = encoded
            .map_err(std::io::Error::other)
            .map_err(StoreError::io("encode segment", &path))?;
        let blake3 = Digest::of(&bytes);
        write_whole(disk, &path, &bytes).map_err(StoreError::io("write segment", &path))?;
        let (min_unix_ns, max_unix_ns) = self.times_unix_ns.unwrap_or_default();
        Ok(Segment {
            table: self.table,
            file,
            bytes: bytes.len() as u64,
            blake3,
            rows: self.rows as u64,
            min_unix_ns,
            max_unix_ns,
        })
    }
}

fn encode(table: TableName, batch: &RecordBatch) -> Result<Vec<u8>, ParquetError> {
    let mut bytes = Vec::new();
    // Readers derive the same schema from Parquet's own; stated again it takes kilobytes.
    let options =
        ArrowWriterOptions::new().with_properties(properties(table)).with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(&mut bytes, batch.schema(), options)?;
    writer.write(batch)?;
    writer.close()?;
    Ok(bytes)
}

/// Chosen by measurement (see `docs/format.md`): rows are clustered by trace, but the footer does
/// not say so, because a stated sort order makes DataFusion 55 serialise the scan.
pub(super) fn properties(table: TableName) -> WriterProperties {
    let level = ZstdLevel::try_new(ZSTD_LEVEL).unwrap_or_default();
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_created_by(format!("retake {}", env!("CARGO_PKG_VERSION")))
        .set_key_value_metadata(Some(vec![KeyValue::new(
            TABLES_VERSION.to_owned(),
            FormatVersion::TABLES.to_string(),
        )]));
    for column in table.columns() {
        let path = ColumnPath::from(column.name);
        if PAGE_INDEXED.contains(&column.name) {
            properties =
                properties.set_column_statistics_enabled(path.clone(), EnabledStatistics::Page);
        }
        properties = match column.name {
            // Ids that rise by one and times that rise a little: deltas, not dictionaries.
            name if name.ends_with("_ns") || name == "token_index" => {
                delta(properties, path, Encoding::DELTA_BINARY_PACKED)
            }
            "span_id" | "parent_span_id" => delta(properties, path, Encoding::DELTA_BYTE_ARRAY),
            // Texts that do not repeat: a dictionary of them is a detour.
            "attributes" | "content" => delta(properties, path, Encoding::DELTA_LENGTH_BYTE_ARRAY),
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

/// Lowest and highest of some times; zeros when there are none.
fn range(times: impl Iterator<Item = i64>) -> (i64, i64) {
    times
        .fold(None, |range, time| match range {
            None => Some((time, time)),
            Some((low, high)) => Some((time.min(low), time.max(high))),
        })
        .unwrap_or_default()
}

/// Row groups of this size compress within 1 % of the best and keep readers parallel (measured).
pub(super) const ROW_GROUP_ROWS: usize = 131_072;
/// Small pages make point look-ups cheap through the page index.
pub(super) const PAGE_ROWS: usize = 20_000;
/// Higher levels cost more than they save (measured).
const ZSTD_LEVEL: i32 = 3;
/// For spans, whose columns are packed before: higher levels cost time and save nothing (measured).
pub(super) const SPANS_ZSTD_LEVEL: i32 = 1;
/// Columns whose minimum and maximum are kept per page, because queries select by them; the others
/// keep them per row group.
pub(super) const PAGE_INDEXED: [&str; 5] =
    ["start_unix_ns", "time_unix_ns", "trace_id", "name", "digest"];
