//! How a scan reads sealed files: each is checked against its digest when it is opened, and nothing
//! of it is handed out before.
//!
//! Reading goes straight to the file. The engine's own way through an object store hands each of
//! four reads of a file to another thread, which for a history of hundreds of small files takes
//! longer than all that is done with them; and it opens by path again what was checked before, so
//! that it may be another file by then. Small files are read once, for the check and the scan.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::{
    CachedParquetMetaData, ParquetFileMetrics, ParquetFileReaderFactory,
};
use datafusion::execution::cache::cache_manager::{CachedFileMetadataEntry, FileMetadataCache};
use datafusion::object_store::ObjectMeta;
use datafusion::parquet::arrow::arrow_reader::ArrowReaderOptions;
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::parquet::errors::{ParquetError, Result as ParquetResult};
use datafusion::parquet::file::metadata::{
    PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader,
};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use retake_recorder::SealedFile;
use retake_recorder::reader::ReadError;
use tokio::sync::OnceCell;

use super::checked::Seal;
use crate::error::DamagedFile;

/// A sealed file of a scan. Partitions that read parts of the same one share it.
#[derive(Debug)]
pub(super) struct ScannedFile {
    sealed: SealedFile,
    /// It was checked for this scan.
    checked: OnceCell<()>,
}

impl ScannedFile {
    pub(super) fn new(sealed: SealedFile) -> Arc<Self> {
        Arc::new(Self { sealed, checked: OnceCell::new() })
    }

    pub(super) fn sealed(&self) -> &SealedFile {
        &self.sealed
    }

    async fn open(self: &Arc<Self>) -> Result<Content, ReadError> {
        let mut file = self.sealed.open()?;
        let seal = Seal::of(&self.sealed, &file);
        if seal.is_known() {
            return Ok(Content::Parts(file));
        }
        if self.sealed.segment().bytes <= WHOLE_BYTES_MAX {
            let bytes = self.sealed.read_checked(&mut file)?;
            seal.remember();
            return Ok(Content::Whole(bytes.into()));
        }
        self.checked
            .get_or_try_init(|| async {
                let this = Arc::clone(self);
                let mut file = self.sealed.open()?;
                // Hashing half a gigabyte takes a fraction of a second, which other queries of a
                // server must not wait for.
                let checking = tokio::task::spawn_blocking(move || this.sealed.check(&mut file));
                checking.await.unwrap_or_else(|panic| {
                    Err(self.sealed.unreadable(&std::io::Error::other(panic)))
                })
            })
            .await?;
        seal.remember();
        Ok(Content::Parts(file))
    }
}

/// A file that was checked.
#[derive(Debug)]
enum Content {
    /// All of it.
    Whole(Bytes),
    /// Where its parts are read from.
    Parts(File),
}

impl Content {
    fn range(&self, range: &Range<u64>) -> std::io::Result<Bytes> {
        let len = || usize::try_from(range.end.saturating_sub(range.start));
        let beyond = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        let len = len().map_err(|_| beyond())?;
        match self {
            Self::Whole(bytes) => {
                let start = usize::try_from(range.start).map_err(|_| beyond())?;
                let end = start.checked_add(len).filter(|end| *end <= bytes.len());
                Ok(bytes.slice(start..end.ok_or_else(beyond)?))
            }
            Self::Parts(file) => {
                let mut buffer = vec![0; len];
                file.read_exact_at(&mut buffer, range.start)?;
                Ok(buffer.into())
            }
        }
    }

    fn footer(&self, policy: PageIndexPolicy) -> ParquetResult<ParquetMetaData> {
        let reader = ParquetMetaDataReader::new().with_page_index_policy(policy);
        match self {
            Self::Whole(bytes) => { reader }.parse_and_finish(bytes),
            Self::Parts(file) => { reader }.parse_and_finish(file),
        }
    }
}

/// Opens the files of a scan.
#[derive(Debug)]
pub(super) struct SegmentReaders {
    pub(super) footers: Arc<FileMetadataCache>,
}

impl ParquetFileReaderFactory for SegmentReaders {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        _: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let location = file.object_meta.location.as_ref();
        let scanned = file
            .extension::<Arc<ScannedFile>>()
            .ok_or_else(|| internal_datafusion_err!("{location} is no file of a run"))?;
        Ok(Box::new(SegmentReader {
            file: Arc::clone(scanned),
            content: None,
            metrics: ParquetFileMetrics::new(partition, location, metrics),
            footers: Arc::clone(&self.footers),
            meta: file.object_meta.clone(),
        }))
    }
}

/// Reads one file.
struct SegmentReader {
    file: Arc<ScannedFile>,
    content: Option<Content>,
    metrics: ParquetFileMetrics,
    footers: Arc<FileMetadataCache>,
    meta: ObjectMeta,
}

impl SegmentReader {
    async fn content(&mut self) -> ParquetResult<&Content> {
        let content = match self.content.take() {
            Some(content) => content,
            None => self.file.open().await.map_err(external)?,
        };
        Ok(self.content.insert(content))
    }

    async fn ranges(&mut self, ranges: &[Range<u64>]) -> ParquetResult<Vec<Bytes>> {
        let file = Arc::clone(&self.file);
        let content = self.content().await?;
        let read = ranges.iter().map(|range| {
            content.range(range).map_err(|error| external(file.sealed.unreadable(&error)))
        });
        let read: Vec<Bytes> = read.collect::<ParquetResult<_>>()?;
        self.metrics.bytes_scanned.add(read.iter().map(Bytes::len).sum());
        Ok(read)
    }

    async fn footer(
        &mut self,
        options: Option<&ArrowReaderOptions>,
    ) -> ParquetResult<Arc<ParquetMetaData>> {
        let policy = options.map_or(PageIndexPolicy::Skip, ArrowReaderOptions::column_index_policy);
        // Also when the footer is known: no reader of a file that was not checked.
        self.content().await?;
        if let Some(known) = self.known_footer() {
            return Ok(known);
        }
        let footer = Arc::new(self.content().await?.footer(policy)?);
        self.file.sealed.check_footer(&footer).map_err(external)?;
        let cached = Arc::new(CachedParquetMetaData::new(Arc::clone(&footer)));
        self.footers
            .put(&self.meta.location, CachedFileMetadataEntry::new(self.meta.clone(), cached));
        Ok(footer)
    }

    fn known_footer(&self) -> Option<Arc<ParquetMetaData>> {
        let entry = self.footers.get(&self.meta.location)?;
        let cached = entry.file_metadata.as_any().downcast_ref::<CachedParquetMetaData>()?;
        entry.is_valid_for(&self.meta).then(|| Arc::clone(cached.parquet_metadata()))
    }
}

impl AsyncFileReader for SegmentReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        async move {
            let read = self.ranges(std::slice::from_ref(&range)).await?;
            read.into_iter().next().ok_or_else(|| ParquetError::General("nothing read".to_owned()))
        }
        .boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        async move { self.ranges(&ranges).await }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        self.footer(options).boxed()
    }
}

fn external(error: ReadError) -> ParquetError {
    ParquetError::External(match error {
        ReadError::Damaged { run_id, file, reason } => {
            Box::new(DamagedFile { run_id, file, reason })
        }
        other => Box::new(other),
    })
}

/// Files up to this size, bytes, are read whole when they are checked. One for each partition is
/// in memory at a time.
const WHOLE_BYTES_MAX: u64 = 4 << 20;
