//! One column of one row group: encoded pages become a finished column chunk.
//!
//! Page headers, statistics, indexes and the footer are the Parquet crate's; this module only
//! hands it pages that are encoded already.

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, PageType, Type, ZstdLevel};
use parquet::bloom_filter::Sbbf;
use parquet::column::page::{CompressedPage, Page, PageWriter as _};
use parquet::column::writer::ColumnCloseResult;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    ColumnChunkMetaData, ColumnIndexBuilder, OffsetIndexBuilder, PageEncodingStats,
};
use parquet::file::statistics::Statistics;
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;
use zstd::bulk::Compressor;

use super::segment::SPANS_ZSTD_LEVEL;

/// A data page before compression.
#[derive(Debug)]
pub(super) struct DataPage {
    pub(super) rows: usize,
    pub(super) nulls: usize,
    /// Definition levels and values.
    pub(super) body: Vec<u8>,
    pub(super) range: Option<Range>,
}

/// A dictionary page before compression.
#[derive(Debug)]
pub(super) struct Dictionary {
    pub(super) values: usize,
    pub(super) body: Vec<u8>,
}

/// Lowest and highest value of a page or a chunk.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Range {
    Int32(i32, i32),
    Int64(i64, i64),
    Double(f64, f64),
    Boolean(bool, bool),
    Text(String, String),
}

/// A column chunk before compression.
#[derive(Debug)]
pub(super) struct RawChunk {
    pub(super) column: ColumnDescPtr,
    pub(super) encoding: Encoding,
    pub(super) dictionary: Option<Dictionary>,
    pub(super) pages: Vec<DataPage>,
    pub(super) range: Option<Range>,
    /// Whether readers may skip pages by their own lowest and highest value.
    pub(super) is_page_indexed: bool,
    pub(super) bloom_filter: Option<Sbbf>,
}

/// A finished column chunk: its bytes, and what the footer says of them.
pub(super) struct Chunk {
    pub(super) bytes: Bytes,
    pub(super) close: ColumnCloseResult,
}

impl Range {
    /// The range of some values; `None` if there are none.
    pub(super) fn of_ints(values: &[i64], column: Type) -> Option<Self> {
        let (least, most) = (*values.iter().min()?, *values.iter().max()?);
        Some(match column {
            Type::INT32 => Self::Int32(least as i32, most as i32),
            _ => Self::Int64(least, most),
        })
    }

    /// The range of some finite values; `None` if there are none.
    pub(super) fn of_floats(values: &[f64]) -> Option<Self> {
        let first = *values.first()?;
        let low = values.iter().copied().fold(first, f64::min);
        let high = values.iter().copied().fold(first, f64::max);
        // The two zeros are equal here but not for every reader: the range holds both.
        let low = if low == 0.0 { -0.0 } else { low };
        Some(Self::Double(low, if high == 0.0 { 0.0 } else { high }))
    }

    /// As a column index writes it: both values in plain encoding.
    fn to_bytes(&self) -> (Vec<u8>, Vec<u8>) {
        match self {
            Self::Int32(a, b) => (a.to_le_bytes().into(), b.to_le_bytes().into()),
            Self::Int64(a, b) => (a.to_le_bytes().into(), b.to_le_bytes().into()),
            Self::Double(a, b) => (a.to_le_bytes().into(), b.to_le_bytes().into()),
            Self::Boolean(a, b) => (vec![u8::from(*a)], vec![u8::from(*b)]),
            Self::Text(a, b) => (a.as_bytes().into(), b.as_bytes().into()),
        }
    }

    fn statistics(range: Option<&Self>, column: Type, nulls: u64) -> Statistics {
        let nulls = Some(nulls);
        match range {
            Some(Self::Int32(a, b)) => Statistics::int32(Some(*a), Some(*b), None, nulls, false),
            Some(Self::Int64(a, b)) => Statistics::int64(Some(*a), Some(*b), None, nulls, false),
            Some(Self::Double(a, b)) => Statistics::double(Some(*a), Some(*b), None, nulls, false),
            Some(Self::Boolean(a, b)) => {
                Statistics::boolean(Some(*a), Some(*b), None, nulls, false)
            }
            Some(Self::Text(a, b)) => {
                let bytes = |text: &String| Some(ByteArray::from(text.as_bytes().to_vec()));
                Statistics::byte_array(bytes(a), bytes(b), None, nulls, false)
            }
            None => match column {
                Type::INT32 => Statistics::int32(None, None, None, nulls, false),
                Type::INT64 => Statistics::int64(None, None, None, nulls, false),
                Type::DOUBLE => Statistics::double(None, None, None, nulls, false),
                Type::BOOLEAN => Statistics::boolean(None, None, None, nulls, false),
                _ => Statistics::byte_array(None, None, None, nulls, false),
            },
        }
    }
}

impl RawChunk {
    /// Compresses the pages and writes them out.
    pub(super) fn finish(self, zstd: &mut Compressor<'_>) -> Result<Chunk, ParquetError> {
        let size: usize = self.pages.iter().map(|page| page.body.len()).sum::<usize>()
            + self.dictionary.as_ref().map_or(0, |dictionary| dictionary.body.len());
        let zstd = (size > COMPRESSED_FROM_BYTES).then_some(zstd);
        let mut out = Out { sink: TrackedWrite::new(Vec::with_capacity(size / 2 + 256)), zstd };
        let mut totals = Totals::default();
        let mut stats = Vec::new();
        if let Some(Dictionary { values, body }) = self.dictionary {
            let page = |buf| Page::DictionaryPage {
                buf,
                num_values: values as u32,
                encoding: Encoding::PLAIN,
                is_sorted: false,
            };
            totals.data_at = out.write(body, page, &mut totals)?.1;
            stats.push(encoding_stats(PageType::DICTIONARY_PAGE, Encoding::PLAIN, 1));
        }
        stats.push(encoding_stats(PageType::DATA_PAGE, self.encoding, self.pages.len()));
        let has_dictionary = totals.data_at > 0;
        let mut indexes = Indexes::new(&self.column);
        for DataPage { rows, nulls, body, range } in self.pages {
            let page = |buf| Page::DataPage {
                buf,
                num_values: rows as u32,
                encoding: self.encoding,
                def_level_encoding: Encoding::RLE,
                rep_level_encoding: Encoding::RLE,
                statistics: None,
            };
            let (at, bytes) = out.write(body, page, &mut totals)?;
            totals.rows += rows;
            totals.nulls += nulls;
            indexes.append((at, bytes), (rows, nulls), range.as_ref());
        }
        let codec = if out.zstd.is_some() {
            Compression::ZSTD(ZstdLevel::try_new(SPANS_ZSTD_LEVEL)?)
        } else {
            Compression::UNCOMPRESSED
        };
        let kind = self.column.physical_type();
        let metadata = ColumnChunkMetaData::builder(self.column)
            .set_compression(codec)
            .set_encodings(vec![Encoding::RLE, Encoding::PLAIN, self.encoding])
            .set_page_encoding_stats(stats)
            .set_total_compressed_size(totals.compressed as i64)
            .set_total_uncompressed_size(totals.uncompressed as i64)
            .set_num_values(totals.rows as i64)
            .set_data_page_offset(totals.data_at as i64)
            .set_dictionary_page_offset(has_dictionary.then_some(0))
            .set_statistics(Range::statistics(self.range.as_ref(), kind, totals.nulls as u64))
            .build()?;
        let Indexes { ranges, places } = indexes;
        let close = ColumnCloseResult {
            bytes_written: totals.compressed as u64,
            rows_written: totals.rows as u64,
            metadata,
            bloom_filter: self.bloom_filter,
            column_index: self.is_page_indexed.then(|| ranges.build()).transpose()?,
            offset_index: Some(places.build()),
        };
        Ok(Chunk { bytes: out.sink.into_inner()?.into(), close })
    }
}

fn encoding_stats(page_type: PageType, encoding: Encoding, count: usize) -> PageEncodingStats {
    PageEncodingStats { page_type, encoding, count: count as i32 }
}

/// Sums over the pages of a chunk.
#[derive(Debug, Default)]
struct Totals {
    rows: usize,
    nulls: usize,
    compressed: usize,
    uncompressed: usize,
    /// Where the first data page stands.
    data_at: usize,
}

/// Where pages stand and what lies in them.
struct Indexes {
    ranges: ColumnIndexBuilder,
    places: OffsetIndexBuilder,
}

impl Indexes {
    fn new(column: &ColumnDescPtr) -> Self {
        let ranges = ColumnIndexBuilder::new(column.physical_type());
        Self { ranges, places: OffsetIndexBuilder::new() }
    }

    fn append(
        &mut self,
        (at, bytes): (usize, usize),
        (rows, nulls): (usize, usize),
        range: Option<&Range>,
    ) {
        self.places.append_row_count(rows as i64);
        self.places.append_offset_and_size(at as i64, bytes as i32);
        let (low, high) = range.map(Range::to_bytes).unwrap_or_default();
        self.ranges.append(nulls == rows, low, high, nulls as i64);
    }
}

/// The chunk's bytes so far.
struct Out<'a, 'z> {
    sink: TrackedWrite<Vec<u8>>,
    /// `None` for a chunk so small that compressing it is not worth a codec's start.
    zstd: Option<&'a mut Compressor<'z>>,
}

impl Out<'_, '_> {
    /// Writes a page; where it stands, and its size with its header.
    fn write(
        &mut self,
        body: Vec<u8>,
        page: impl FnOnce(Bytes) -> Page,
        totals: &mut Totals,
    ) -> Result<(usize, usize), ParquetError> {
        let uncompressed = body.len();
        let body = match &mut self.zstd {
            Some(zstd) => zstd.compress(&body)?,
            None => body,
        };
        let page = CompressedPage::new(page(body.into()), uncompressed);
        let written = SerializedPageWriter::new(&mut self.sink).write_page(page)?;
        totals.compressed += written.compressed_size;
        totals.uncompressed += written.uncompressed_size;
        Ok((written.offset as usize, written.compressed_size))
    }
}

/// Columns that are NULL, or the same, in every row take less than this.
const COMPRESSED_FROM_BYTES: usize = 256;
