//! What the encoder writes, read back by the Parquet crate's own reader.

use arrow::array::RecordBatch;
use bytes::Bytes;
use parquet::arrow::arrow_reader::{
    ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector,
};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};
use parquet::file::properties::ReaderProperties;
use parquet::file::reader::FileReader;
use parquet::file::serialized_reader::{ReadOptionsBuilder, SerializedFileReader};
use proptest::prelude::*;
use retake_schemas::event::{Level, Status};
use retake_schemas::mapping::BUILT_IN;
use retake_schemas::tables::stored::logical;
use retake_schemas::tables::{Row, SpanRow};
use retake_schemas::{SpanId, TraceId, Value};

use super::*;
use crate::attrs::{self, ValueRef};
use crate::columns::tests::{FEW, bare_span, columns_of, segment_of, span};
use crate::columns::{Frequent, SpanFacts};

/// Spans of traces of 12, enough for two row groups.
fn many() -> SpanColumns {
    let mut symbols = Symbols::default();
    let (name, key) = (symbols.intern("ask"), symbols.intern("question"));
    let mut columns = SpanColumns::new("run", "svc", &BUILT_IN);
    for id in 0..(ROW_GROUP_ROWS as u64 + 30_001) {
        let mut attributes = Vec::new();
        if id % 3 == 0 {
            attrs::push(&mut attributes, key, ValueRef::Str(&format!("why {}?", id * id)));
        }
        let start = 1_795_000_000_000_000_000 + id as i64 * 1_234;
        let facts = SpanFacts {
            trace_id: trace(id / 12),
            span_id: SpanId::from_u64(0xabcd_0000_0000_0000 | id),
            parent: (id % 12 > 0).then(|| SpanId::from_u64(0xabcd_0000_0000_0000 | (id - id % 12))),
            name,
            target: None,
            level: Some(Level::Info),
            thread: Some(name),
            source_file: None,
            source_line: Some(7),
            start_unix_ns: start,
            end_unix_ns: start + (id as i64 * 7919) % 100_003,
            busy_ns: None,
            self_ns: 3,
            status: if id == 70_000 { Status::Error } else { Status::Ok },
            is_error_origin: id == 70_000,
            tokens_counted: false,
            is_call: None,
            flags: "",
            error_type: Some("Timeout"),
            message: None,
            first_token_unix_ns: None,
            usage: None,
            documents: None,
            attributes: &attributes,
        };
        columns.push(&facts, &symbols);
    }
    columns
}

fn trace(number: u64) -> TraceId {
    TraceId::from_bytes(u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c).to_be_bytes())
}

fn read(bytes: &Bytes, selection: Option<RowSelection>) -> RecordBatch {
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
    let builder =
        ParquetRecordBatchReaderBuilder::try_new_with_options(bytes.clone(), options).unwrap();
    let builder = builder.with_batch_size(1 << 20);
    let builder = match selection {
        Some(selection) => builder.with_row_selection(selection),
        None => builder,
    };
    let schema = builder.schema().clone();
    let batches: Vec<_> = builder.build().unwrap().map(Result::unwrap).collect();
    arrow::compute::concat_batches(&schema, &batches).unwrap()
}

fn metadata(bytes: &Bytes) -> ParquetMetaData {
    let options = ReadOptionsBuilder::new().with_page_index().build();
    let reader = SerializedFileReader::new_with_options(bytes.clone(), options).unwrap();
    reader.metadata().clone()
}

proptest! {
    /// Scenario: any spans, also with integers and texts at their limits.
    /// Guarantees: a segment holds what its columns held, whoever encodes it.
    #[test]
    fn a_segment_reads_back_as_its_columns(
        spans in prop::collection::vec(span(), 1..40),
        threads in 1..3_usize,
    ) {
        let columns = columns_of(&spans, "svc");
        let bytes = Bytes::from(encode(&columns, threads).unwrap());
        let (batch, expected) = (read(&bytes, None), columns.to_batch());
        prop_assert_eq!(batch.columns(), expected.columns());
    }

    /// Scenario: any spans, so often that attributes get columns of their own.
    /// Guarantees: a segment shows what the live tail showed.
    #[test]
    fn a_segment_shows_what_the_tail_shows(
        spans in prop::collection::vec(span(), 1..20),
        threads in 1..3_usize,
    ) {
        let segment = segment_of(&spans, "svc", FEW);
        let batch = read(&Bytes::from(encode(&segment, threads).unwrap()), None);
        let held = segment.to_batch();
        prop_assert_eq!(batch.columns(), held.columns());
        let tail = logical(columns_of(&spans, "svc").to_batch()).unwrap();
        let batch = logical(batch).unwrap();
        prop_assert_eq!(batch.columns(), tail.columns());
        prop_assert_eq!(batch.schema_ref().fields(), tail.schema_ref().fields());
    }
}

/// Scenario: numbers that are best kept in each of the ways there are, at the edges of their types.
/// Guarantees: each way reads back.
#[test]
fn numbers_are_kept_in_the_way_that_is_smallest() {
    let mut rng = numbers(7);
    let spans: Vec<_> = (0..5000_i64)
        .map(|n| {
            bare_span(vec![
                ("counter".into(), Value::Int(i64::MAX - n)),
                ("size".into(), Value::Int(1 << (rng() % 40))),
                ("share".into(), Value::Float((rng() % 100) as f64 / 100.0)),
                ("zero".into(), Value::Float(if n % 2 == 0 { 0.0 } else { -0.0 })),
                (
                    "measure".into(),
                    Value::Float(f64::from_bits(0x3ff0_0000_0000_0000 | rng() >> 12)),
                ),
            ])
        })
        .collect();
    let segment = segment_of(&spans, "svc", FEW);
    let bytes = Bytes::from(encode(&segment, 1).unwrap());
    assert_eq!(read(&bytes, None).columns(), segment.to_batch().columns());
    let metadata = metadata(&bytes);
    let has = |name: &str, encoding: Encoding| {
        let columns = metadata.row_group(0).columns();
        let column = columns.iter().find(|c| c.column_descr().name() == name).unwrap();
        column.encodings().any(|found| found == encoding)
    };
    assert!(has("attributes.counter", Encoding::DELTA_BINARY_PACKED));
    assert!(has("attributes.size", Encoding::BYTE_STREAM_SPLIT));
    assert!(has("attributes.share", Encoding::RLE_DICTIONARY));
    assert!(has("attributes.zero", Encoding::RLE_DICTIONARY));
    assert!(has("attributes.measure", Encoding::BYTE_STREAM_SPLIT));
}

/// Scenario: runs of a thousand spans and more, whose attributes just begin to get columns, with one
/// attribute and with many.
/// Guarantees: no segment is larger for it than with JSON.
#[test]
fn columns_of_attributes_do_not_make_small_segments_larger() {
    let mut rng = numbers(3);
    for keys in [1, 4, 12] {
        for rows in [1024, 1200, 2000, 5000] {
            let spans: Vec<_> = (0..rows)
                .map(|n: u64| {
                    let attributes = (0..keys).map(|key: u64| {
                        let value = match key % 6 {
                            0 => Value::Int((rng() % 1000) as i64),
                            1 => Value::Str(format!("tenant-{}", rng() % 20)),
                            2 => Value::Bool(rng().is_multiple_of(9)),
                            3 => Value::Float((rng() % 1000) as f64 / 1000.0),
                            4 => Value::Str("gpt-4o-mini".to_owned()),
                            _ => Value::Int(n as i64),
                        };
                        (format!("app.key{key}").into(), value)
                    });
                    bare_span(attributes.collect())
                })
                .collect();
            let size = |columns: &SpanColumns| encode(columns, 1).unwrap().len();
            let with = size(&segment_of(&spans, "svc", Frequent::IN_SEGMENT));
            let without = size(&columns_of(&spans, "svc"));
            assert!(with <= without, "{keys} keys, {rows} rows: {with}, {without} with JSON");
        }
    }
}

/// Numbers that look random, the same every time.
fn numbers(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

/// Scenario: more spans than a row group takes, with columns that are always, never, and sometimes
/// there; then a reader that wants a few rows in the middle of pages.
/// Guarantees: row groups and pages join without a seam, and pages can be skipped.
#[test]
fn pages_and_row_groups_join_without_a_seam() {
    let columns = many();
    let bytes = Bytes::from(encode(&columns, 2).unwrap());
    let expected = columns.to_batch();
    assert_eq!(read(&bytes, None).columns(), expected.columns());
    for start in [0, 19_999, 45_678, ROW_GROUP_ROWS - 1, columns.len() - 2] {
        let selection = RowSelection::from(vec![RowSelector::skip(start), RowSelector::select(2)]);
        let rows = read(&bytes, Some(selection));
        assert_eq!(rows.columns(), expected.slice(start, 2).columns(), "from {start}");
    }
    assert_eq!(bytes, Bytes::from(encode(&columns, 1).unwrap()), "threads change no byte");
}

/// Scenario: a query for one trace, one for a span of time, and one for failures.
/// Guarantees: the footer lets a reader skip what cannot match.
#[test]
fn the_footer_says_what_can_be_skipped() {
    let columns = many();
    let bytes = Bytes::from(encode(&columns, 1).unwrap());
    let metadata = metadata(&bytes);
    assert_eq!(metadata.num_row_groups(), 2);
    let position = |name: &str| SpanRow::schema().index_of(name).unwrap();
    let group = metadata.row_group(0);
    assert_eq!(group.sorting_columns(), None);
    let status = group.column(position("status")).statistics().unwrap();
    assert_eq!(status.min_bytes_opt(), Some("error".as_bytes()));
    assert_eq!(status.max_bytes_opt(), Some("ok".as_bytes()));
    let flags = group.column(position("flags")).statistics().unwrap();
    assert_eq!(flags.null_count_opt(), Some(ROW_GROUP_ROWS as u64));
    let pages = metadata.offset_index().unwrap()[0][position("start_unix_ns")].page_locations();
    assert_eq!(pages.len(), ROW_GROUP_ROWS.div_ceil(PAGE_ROWS));
    let index = &metadata.column_index().unwrap()[0][position("start_unix_ns")];
    assert_eq!(index.num_pages() as usize, pages.len());
    let properties = ReaderProperties::builder().set_read_bloom_filter(true).build();
    let options = ReadOptionsBuilder::new().with_reader_properties(properties).build();
    let reader = SerializedFileReader::new_with_options(bytes, options).unwrap();
    let group = reader.get_row_group(0).unwrap();
    let filter = group.get_column_bloom_filter(position("trace_id")).unwrap();
    assert!((0..10_000).all(|number| filter.check(trace(number).to_string().as_str())));
    let hits = (20_000..30_000).filter(|n| filter.check(trace(*n).to_string().as_str())).count();
    assert!(hits < 500, "{hits} of 10000 absent traces seem to be there");
}
