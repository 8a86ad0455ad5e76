//! Columnar formats.

use std::io::Write;

use arrow::ipc::writer::StreamWriter;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use super::Written;
use crate::session::QueryResult;

/// An Arrow IPC stream.
pub(super) fn stream(result: &QueryResult, out: &mut dyn Write) -> Written {
    let mut writer = StreamWriter::try_new(out, &result.schema)?;
    for batch in &result.batches {
        writer.write(batch)?;
    }
    writer.finish()?;
    Ok(())
}

/// A Parquet file.
pub(super) fn parquet(result: &QueryResult, out: &mut dyn Write) -> Written {
    let properties =
        WriterProperties::builder().set_compression(Compression::ZSTD(Default::default())).build();
    // The writer must be able to move to another thread, which `out` need not be.
    let mut bytes = Vec::new();
    let mut writer =
        ArrowWriter::try_new(&mut bytes, std::sync::Arc::clone(&result.schema), Some(properties))?;
    for batch in &result.batches {
        writer.write(batch)?;
    }
    writer.close()?;
    out.write_all(&bytes)?;
    Ok(())
}
