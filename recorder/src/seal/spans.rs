//! Spans as columns to the bytes of a Parquet segment.

use std::cmp::Reverse;
use std::ops::Range as Rows;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use parquet::arrow::ArrowSchemaConverter;
use parquet::basic::{Encoding, Type};
use parquet::bloom_filter::Sbbf;
use parquet::errors::ParquetError;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{ColumnDescPtr, SchemaDescriptor};
use retake_schemas::tables::TableName;
use rustc_hash::FxHashMap;
use zstd::bulk::Compressor;

use super::chunk::{Chunk, DataPage, Dictionary, Range, RawChunk};
use super::encodings::{
    delta, delta_32, hex_ids, hybrid, levels_of_first, levels_of_rows, pack, split,
};
use super::segment::{PAGE_INDEXED, PAGE_ROWS, ROW_GROUP_ROWS, SPANS_ZSTD_LEVEL, properties};
use crate::columns::{Present, SpanColumns, View, text_of};
use crate::symbols::Symbols;

/// Encodes all spans, with up to `threads` threads.
pub(super) fn encode(columns: &SpanColumns, threads: usize) -> Result<Vec<u8>, ParquetError> {
    let schema = ArrowSchemaConverter::new().convert(&columns.schema())?;
    let bytes = Vec::with_capacity(columns.len() * 20 + 4096);
    let properties = Arc::new(properties(TableName::Spans));
    let mut file = SerializedFileWriter::new(bytes, schema.root_schema_ptr(), properties)?;
    for start in (0..columns.len()).step_by(ROW_GROUP_ROWS) {
        let rows = start..columns.len().min(start + ROW_GROUP_ROWS);
        let mut group = file.next_row_group()?;
        for chunk in (Group { columns, schema: &schema, rows }).chunks(threads)? {
            group.append_column(&chunk.bytes, chunk.close)?;
        }
        group.close()?;
    }
    file.into_inner()
}

/// A row group to encode.
struct Group<'a> {
    columns: &'a SpanColumns,
    schema: &'a SchemaDescriptor,
    rows: Rows<usize>,
}

impl Group<'_> {
    /// The chunks of all columns, in the order of the schema.
    fn chunks(&self, threads: usize) -> Result<Vec<Chunk>, ParquetError> {
        let mut order: Vec<usize> = (0..self.schema.num_columns()).collect();
        // The largest first, so that no thread is left with one at the end.
        order.sort_by_cached_key(|index| Reverse(self.part(*index).map_or(0, |part| part.size())));
        let next = AtomicUsize::new(0);
        let mut chunks = thread::scope(|scope| {
            let helpers: Vec<_> = (1..threads)
                .filter_map(|_| {
                    let work = || self.work(&order, &next);
                    let builder = thread::Builder::new().name("retake-encode".to_owned());
                    // Without a helper the caller does all of it.
                    builder.spawn_scoped(scope, work).ok()
                })
                .collect();
            let mut chunks = self.work(&order, &next)?;
            for helper in helpers {
                let helped = helper.join().map_err(|_| {
                    ParquetError::General("a thread encoding spans panicked".to_owned())
                })?;
                chunks.extend(helped?);
            }
            Ok::<_, ParquetError>(chunks)
        })?;
        chunks.sort_by_key(|(index, _)| *index);
        Ok(chunks.into_iter().map(|(_, chunk)| chunk).collect())
    }

    /// Encodes columns until none is left, and gives them with their positions.
    fn work(
        &self,
        order: &[usize],
        next: &AtomicUsize,
    ) -> Result<Vec<(usize, Chunk)>, ParquetError> {
        let mut zstd = Compressor::new(SPANS_ZSTD_LEVEL)?;
        let mut chunks = Vec::new();
        while let Some(index) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Some(part) = self.part(*index) {
                chunks.push((*index, part.encode(&mut zstd)?.finish(&mut zstd)?));
            }
        }
        Ok(chunks)
    }

    fn part(&self, index: usize) -> Option<Part<'_>> {
        let column = self.schema.column(index);
        let view = self.columns.view(column.name())?;
        Some(Part { column, view, rows: self.rows.clone() })
    }
}

/// A column of a row group.
struct Part<'a> {
    column: ColumnDescPtr,
    view: View<'a>,
    rows: Rows<usize>,
}

impl Part<'_> {
    /// Roughly its bytes before compression.
    fn size(&self) -> usize {
        let values = self.values(&self.rows);
        match self.view {
            View::Words(_, _, dictionary) => values.len() * width(dictionary.len()) / 8,
            View::Texts(_, ends, _) => text_range(ends, &values).len(),
            View::Ids(..) => values.len() * 2,
            View::Ints(..) => values.len() * 8,
            View::Floats(..) => values.len() * 8,
            View::Bools(..) => values.len() / 8,
        }
    }

    /// Which of the column's values stand in these rows.
    fn values(&self, rows: &Rows<usize>) -> Rows<usize> {
        match self.present() {
            Present::First(count) => rows.start.min(count)..rows.end.min(count),
            Present::At(at) => {
                at.partition_point(|row| (*row as usize) < rows.start)
                    ..at.partition_point(|row| (*row as usize) < rows.end)
            }
        }
    }

    fn present(&self) -> Present<'_> {
        match self.view {
            View::Words(present, ..)
            | View::Texts(present, ..)
            | View::Ids(present, ..)
            | View::Ints(present, ..)
            | View::Floats(present, ..)
            | View::Bools(present, ..) => present,
        }
    }

    fn encode(self, zstd: &mut Compressor<'_>) -> Result<RawChunk, ParquetError> {
        if self.values(&self.rows).is_empty() {
            return Ok(self.chunk(Encoding::PLAIN, None, |_, _| None));
        }
        Ok(match self.view {
            View::Words(_, codes, dictionary) => self.words(codes, dictionary),
            View::Texts(_, ends, bytes) => {
                let encode = |values: Rows<usize>, out: &mut Vec<u8>| {
                    texts(ends, bytes, &values, out);
                    None
                };
                self.chunk(Encoding::DELTA_LENGTH_BYTE_ARRAY, None, encode)
            }
            View::Ids(_, ids) => {
                let encode = |values: Rows<usize>, out: &mut Vec<u8>| {
                    let ids = ids.get(values).unwrap_or_default();
                    hex_ids(ids, out);
                    let text = |id: &u64| format!("{id:016x}");
                    Some(Range::Text(text(ids.iter().min()?), text(ids.iter().max()?)))
                };
                self.chunk(Encoding::DELTA_BYTE_ARRAY, None, encode)
            }
            View::Ints(_, ints) => self.ints(ints, zstd)?,
            View::Floats(_, floats) => self.floats(floats),
            View::Bools(_, bools) => {
                let encode = |values: Rows<usize>, out: &mut Vec<u8>| {
                    let bools = bools.get(values).unwrap_or_default();
                    pack(bools.iter().map(|v| u64::from(*v)), 1, out);
                    Some(Range::Boolean(*bools.iter().min()?, *bools.iter().max()?))
                };
                self.chunk(Encoding::PLAIN, None, encode)
            }
        })
    }

    /// Times bytewise apart, since their low bytes are noise; counts that way or by their
    /// differences, whichever is smaller.
    fn ints(self, ints: &[i64], zstd: &mut Compressor<'_>) -> Result<RawChunk, ParquetError> {
        let kind = self.column.physical_type();
        let encoding = match kind {
            Type::INT32 => Encoding::DELTA_BINARY_PACKED,
            _ if self.column.name().ends_with(TIME) => Encoding::BYTE_STREAM_SPLIT,
            _ => encoding_of(ints.get(self.values(&self.rows)).unwrap_or_default(), zstd)?,
        };
        Ok(self.chunk(encoding, None, |values, out| {
            let ints = ints.get(values).unwrap_or_default();
            match (encoding, kind) {
                (Encoding::BYTE_STREAM_SPLIT, _) => split(ints.iter().map(|v| *v as u64), out),
                (_, Type::INT32) => delta_32(ints, out),
                _ => delta(ints, out),
            }
            Range::of_ints(ints, kind)
        }))
    }

    /// Floats that repeat, as shares and settings do, by dictionary; others bytewise apart.
    fn floats(self, floats: &[f64]) -> RawChunk {
        let rows = self.values(&self.rows);
        let group = floats.get(rows.clone()).unwrap_or_default();
        let Some(Repeated { values, codes }) = Repeated::new(group) else {
            let encode = |values: Rows<usize>, out: &mut Vec<u8>| {
                let floats = floats.get(values).unwrap_or_default();
                split(floats.iter().map(|v| v.to_bits()), out);
                Range::of_floats(floats)
            };
            return self.chunk(Encoding::BYTE_STREAM_SPLIT, None, encode);
        };
        let body = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let width = width(values.len());
        let dictionary = Dictionary { values: values.len(), body };
        self.chunk(Encoding::RLE_DICTIONARY, Some(dictionary), |values, out| {
            let of_page = values.start - rows.start..values.end - rows.start;
            out.push(width as u8);
            hybrid(codes.get(of_page).unwrap_or_default(), width as u32, out);
            Range::of_floats(floats.get(values).unwrap_or_default())
        })
    }

    /// Texts by dictionary; texts that hardly repeat as they are.
    fn words(self, codes: &[u32], dictionary: &Symbols) -> RawChunk {
        let group = codes.get(self.values(&self.rows)).unwrap_or_default();
        let used = Used::new(group, dictionary);
        if used.codes.len() * 2 > group.len() && self.column.name() != TRACE_ID {
            let encode = |values: Rows<usize>, out: &mut Vec<u8>| {
                let codes = codes.get(values).unwrap_or_default();
                let lengths: Vec<i64> =
                    codes.iter().map(|code| text_of(dictionary, *code).len() as i64).collect();
                delta(&lengths, out);
                for code in codes {
                    out.extend_from_slice(text_of(dictionary, *code).as_bytes());
                }
                range(codes, dictionary)
            };
            return self.chunk(Encoding::DELTA_LENGTH_BYTE_ARRAY, None, encode);
        }
        let mut body = Vec::new();
        for code in &used.codes {
            let text = text_of(dictionary, *code);
            body.extend_from_slice(&(text.len() as u32).to_le_bytes());
            body.extend_from_slice(text.as_bytes());
        }
        let bloom_filter = (self.column.name() == TRACE_ID)
            .then(|| bloom_filter(used.codes.iter().map(|code| text_of(dictionary, *code))))
            .flatten();
        let width = width(used.codes.len());
        let mut places = Vec::with_capacity(group.len());
        let is_page_indexed = self.is_page_indexed();
        let encode = |values: Rows<usize>, out: &mut Vec<u8>| {
            let codes = codes.get(values).unwrap_or_default();
            places.clear();
            places.extend(codes.iter().map(|code| used.place(*code)));
            out.push(width as u8);
            hybrid(&places, width as u32, out);
            is_page_indexed
                .then(|| range(&Used::new(codes, dictionary).codes, dictionary))
                .flatten()
        };
        let dictionary_page = Dictionary { values: used.codes.len(), body };
        let range = range(&used.codes, dictionary);
        let chunk = self.chunk(Encoding::RLE_DICTIONARY, Some(dictionary_page), encode);
        RawChunk { range, bloom_filter, ..chunk }
    }

    /// A chunk whose pages `encode` fills with values, giving their range.
    fn chunk(
        self,
        encoding: Encoding,
        dictionary: Option<Dictionary>,
        mut encode: impl FnMut(Rows<usize>, &mut Vec<u8>) -> Option<Range>,
    ) -> RawChunk {
        let mut is_page_indexed = self.is_page_indexed();
        // A column that takes little is one page: each costs a header and a start of the codec.
        let step = if is_page_indexed || self.size() > ONE_PAGE_BYTES {
            PAGE_ROWS
        } else {
            ROW_GROUP_ROWS
        };
        let mut pages = Vec::new();
        let mut range = None;
        let mut is_range_known = true;
        for start in self.rows.clone().step_by(step) {
            let rows = start..self.rows.end.min(start + step);
            let values = self.values(&rows);
            let nulls = rows.len() - values.len();
            let mut body = Vec::new();
            if self.column.max_def_level() > 0 {
                self.levels(&rows, &values, &mut body);
            }
            let of_page = encode(values, &mut body);
            is_range_known &= of_page.is_some() || nulls == rows.len();
            range = merge(range, of_page.clone());
            pages.push(DataPage { rows: rows.len(), nulls, body, range: of_page });
        }
        is_page_indexed &= is_range_known;
        RawChunk {
            column: self.column,
            encoding,
            dictionary,
            pages,
            range: range.filter(|_| is_range_known),
            is_page_indexed,
            bloom_filter: None,
        }
    }

    fn levels(&self, rows: &Rows<usize>, values: &Rows<usize>, out: &mut Vec<u8>) {
        match self.present() {
            Present::At(at) if !values.is_empty() && values.len() < rows.len() => {
                let at = at.get(values.clone()).unwrap_or_default();
                levels_of_rows(at, rows.start, rows.len(), out);
            }
            _ => levels_of_first(values.len(), rows.len(), out),
        }
    }

    fn is_page_indexed(&self) -> bool {
        PAGE_INDEXED.contains(&self.column.name())
    }
}

/// The codes of a dictionary that a row group uses.
struct Used {
    codes: Vec<u32>,
    /// By code: its place among `codes` plus one, 0 if it is not used.
    places: Vec<u32>,
}

impl Used {
    fn new(group: &[u32], dictionary: &Symbols) -> Self {
        let mut used = Self { codes: Vec::new(), places: vec![0; dictionary.len()] };
        let mut before = None;
        for code in group {
            if before == Some(code) {
                continue;
            }
            before = Some(code);
            if let Some(place) = used.places.get_mut(*code as usize)
                && *place == 0
            {
                used.codes.push(*code);
                *place = used.codes.len() as u32;
            }
        }
        used
    }

    fn place(&self, code: u32) -> u32 {
        self.places.get(code as usize).map_or(0, |place| place.saturating_sub(1))
    }
}

/// Floats of which few are different, as codes.
struct Repeated {
    values: Vec<u64>,
    codes: Vec<u32>,
}

impl Repeated {
    /// `None` if more than half of them are different.
    fn new(floats: &[f64]) -> Option<Self> {
        let mut places: FxHashMap<u64, u32> = FxHashMap::default();
        let mut values = Vec::new();
        let mut codes = Vec::with_capacity(floats.len());
        for (index, float) in floats.iter().enumerate() {
            // Measures hardly ever repeat, and a look at some of them shows it.
            if index == SAMPLE_VALUES && values.len() * 20 > SAMPLE_VALUES * 19 {
                return None;
            }
            // By their bits: the two zeros are different texts.
            let bits = float.to_bits();
            codes.push(*places.entry(bits).or_insert_with(|| {
                values.push(bits);
                values.len() as u32 - 1
            }));
        }
        (values.len() * 2 <= floats.len()).then_some(Self { values, codes })
    }
}

/// The encoding in which a sample of counts is smaller when compressed: sizes of texts and ids are
/// bytewise apart, numbers that rise by one are differences.
fn encoding_of(ints: &[i64], zstd: &mut Compressor<'_>) -> Result<Encoding, ParquetError> {
    let sample = ints.get(..SAMPLE_VALUES).unwrap_or(ints);
    let (mut apart, mut differences) = (Vec::new(), Vec::new());
    split(sample.iter().map(|v| *v as u64), &mut apart);
    delta(sample, &mut differences);
    let is_apart = zstd.compress(&apart)?.len() < zstd.compress(&differences)?.len();
    Ok(if is_apart { Encoding::BYTE_STREAM_SPLIT } else { Encoding::DELTA_BINARY_PACKED })
}

/// The lowest and highest text of some codes; `None` where they are too long for a footer.
fn range(codes: &[u32], dictionary: &Symbols) -> Option<Range> {
    let mut texts = codes.iter().map(|code| text_of(dictionary, *code));
    let first = texts.next()?;
    let (low, high) = texts.fold((first, first), |(low, high), t| (t.min(low), t.max(high)));
    (low.len() <= RANGE_TEXT_BYTES && high.len() <= RANGE_TEXT_BYTES)
        .then(|| Range::Text(low.to_owned(), high.to_owned()))
}

/// Bits of a code among so many.
fn width(values: usize) -> usize {
    (usize::BITS - values.saturating_sub(1).leading_zeros()).max(1) as usize
}

fn bloom_filter<'a>(texts: impl ExactSizeIterator<Item = &'a str>) -> Option<Sbbf> {
    let mut filter = Sbbf::new_with_ndv_fpp(texts.len().max(1) as u64, FALSE_POSITIVES).ok()?;
    for text in texts {
        filter.insert(text);
    }
    Some(filter)
}

/// `DELTA_LENGTH_BYTE_ARRAY`: the lengths, then the texts.
fn texts(ends: &[usize], bytes: &[u8], values: &Rows<usize>, out: &mut Vec<u8>) {
    let range = text_range(ends, values);
    let mut start = range.start;
    let mut lengths = Vec::with_capacity(values.len());
    for end in ends.get(values.clone()).unwrap_or_default() {
        lengths.push((end - start) as i64);
        start = *end;
    }
    delta(&lengths, out);
    out.extend_from_slice(bytes.get(range).unwrap_or_default());
}

/// The bytes of some texts.
fn text_range(ends: &[usize], values: &Rows<usize>) -> Rows<usize> {
    let end_of = |index: Option<usize>| index.and_then(|i| ends.get(i)).copied().unwrap_or(0);
    let start = end_of(values.start.checked_sub(1));
    if values.is_empty() { start..start } else { start..end_of(values.end.checked_sub(1)) }
}

/// The range of two pages together, where pages without values have none.
fn merge(chunk: Option<Range>, page: Option<Range>) -> Option<Range> {
    Some(match (chunk, page) {
        (chunk, None) => return chunk,
        (None, page) => return page,
        (Some(Range::Int32(a, b)), Some(Range::Int32(c, d))) => Range::Int32(a.min(c), b.max(d)),
        (Some(Range::Int64(a, b)), Some(Range::Int64(c, d))) => Range::Int64(a.min(c), b.max(d)),
        (Some(Range::Double(a, b)), Some(Range::Double(c, d))) => Range::Double(a.min(c), b.max(d)),
        (Some(Range::Boolean(a, b)), Some(Range::Boolean(c, d))) => Range::Boolean(a & c, b | d),
        (Some(Range::Text(a, b)), Some(Range::Text(c, d))) => Range::Text(a.min(c), b.max(d)),
        // A column has one type.
        (Some(_), Some(_)) => return None,
    })
}

/// The column whose texts change with every trace and are asked for one at a time.
const TRACE_ID: &str = "trace_id";
/// How the names of columns of times and durations end.
const TIME: &str = "_ns";
/// A column of less than this is one page.
const ONE_PAGE_BYTES: usize = 64 << 10;
/// Values looked at to choose an encoding: a percent of the time that encoding all of them takes.
const SAMPLE_VALUES: usize = 2048;
/// Longer texts are no use for skipping and would swell the footer.
const RANGE_TEXT_BYTES: usize = 64;
/// Share of row groups without a trace in which its bloom filter does not say so.
const FALSE_POSITIVES: f64 = 0.01;

#[cfg(test)]
mod tests;
