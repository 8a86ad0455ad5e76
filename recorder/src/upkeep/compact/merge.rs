//! Writing one segment from several, batch by batch: memory is that of one row group.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use retake_schemas::RunId;
use retake_schemas::manifest::Segment;
use retake_schemas::version::FormatVersion;

use super::CompactError;
use super::columns::Columns;
use super::group::{Group, Piece};
use crate::reader::TABLES_VERSION;
use crate::store::{StoreError, digest_file};

/// Writes the group's file, complete under its final name.
pub(super) fn merge(
    folder: &Path,
    run_id: &RunId,
    group: &Group,
    on_rows: &mut dyn FnMut(u64),
) -> Result<Segment, CompactError> {
    let path = folder.join(&group.file);
    let temporary = folder.join(format!("{}.tmp", group.file));
    let rows = copy_rows(folder, &temporary, group, on_rows)
        .map_err(|source| CompactError::Parquet { path: path.clone(), source })?;
    if rows != group.rows() {
        return Err(CompactError::Damaged {
            run_id: run_id.clone(),
            file: group.file.clone(),
            reason: format!("{rows} rows were read, the manifest says {}", group.rows()),
        });
    }
    let (blake3, bytes) =
        digest_file(&temporary).map_err(StoreError::io("read back segment", &path))?;
    std::fs::rename(&temporary, &path).map_err(StoreError::io("rename segment", &path))?;
    let (min_unix_ns, max_unix_ns) = time_range(group);
    let (table, file) = (group.table, group.file.clone());
    Ok(Segment { table, file, bytes, blake3, rows, min_unix_ns, max_unix_ns })
}

fn copy_rows(
    folder: &Path,
    target: &Path,
    group: &Group,
    on_rows: &mut dyn FnMut(u64),
) -> Result<u64, ParquetError> {
    let columns = group.columns();
    let file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(target)?;
    let mut writer = ArrowWriter::try_new(
        &file,
        Arc::clone(columns.schema()),
        Some(properties(&group.pieces, &columns)),
    )?;
    let mut rows = 0;
    for piece in &group.pieces {
        let source = File::open(folder.join(&piece.segment.file))?;
        let reader =
            ParquetRecordBatchReaderBuilder::new_with_metadata(source, piece.footer.clone())
                .with_batch_size(BATCH_ROWS)
                .build()?;
        for batch in reader {
            let batch = columns.take(&batch?)?;
            writer.write(&batch)?;
            rows += batch.num_rows() as u64;
            on_rows(batch.num_rows() as u64);
        }
    }
    writer.close()?;
    file.sync_all()?;
    Ok(rows)
}

/// What the seal chose for each column, read from its footers, so that there is one place that
/// decides; only the compression is stronger, because a compacted file is written once and kept.
fn properties(pieces: &[Piece], columns: &Columns) -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL).unwrap_or_default()))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_created_by(format!("retake {}", env!("CARGO_PKG_VERSION")));
    let version = FormatVersion::TABLES.to_string();
    properties = properties
        .set_key_value_metadata(Some(vec![KeyValue::new(TABLES_VERSION.to_owned(), version)]));
    let chunks = pieces.iter().flat_map(|piece| {
        let groups = piece.footer.metadata().row_groups().iter();
        groups.flat_map(|group| piece.footer.schema().fields().iter().zip(group.columns()))
    });
    for (_, column) in chunks.filter(|(field, _)| columns.keep(field)) {
        let path = column.column_path();
        if column.bloom_filter_offset().is_some() {
            properties = properties.set_column_bloom_filter_enabled(path.clone(), true);
        }
        if let Some(encoding) = column.encodings().find(|encoding| CHOSEN.contains(encoding)) {
            properties = properties
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_encoding(path.clone(), encoding);
        }
    }
    properties.build()
}

/// Tables without times have the range 0 to 0, which must not widen anything.
fn time_range(group: &Group) -> (i64, i64) {
    let ranges = group.pieces.iter().map(|p| (p.segment.min_unix_ns, p.segment.max_unix_ns));
    ranges
        .filter(|range| *range != (0, 0))
        .reduce(|(low, high), (min, max)| (low.min(min), high.max(max)))
        .unwrap_or((0, 0))
}

/// Encodings that a writer uses only where it was told to.
const CHOSEN: [Encoding; 4] = [
    Encoding::DELTA_BINARY_PACKED,
    Encoding::DELTA_LENGTH_BYTE_ARRAY,
    Encoding::DELTA_BYTE_ARRAY,
    Encoding::BYTE_STREAM_SPLIT,
];
/// Above this level zstd takes much longer for little.
const ZSTD_LEVEL: i32 = 9;
/// As sealed: see `docs/format.md`.
const ROW_GROUP_ROWS: usize = 131_072;
/// As sealed: small pages make point look-ups cheap through the page index.
const PAGE_ROWS: usize = 20_000;
/// Rows decoded at a time.
const BATCH_ROWS: usize = 8192;
