//! Rows of a run, gathered trace by trace.
//!
//! Sealed rows of spans are clustered by trace inside a segment, but a trace may go through many
//! segments, and its tokens, events, and documents stand in other files. So the run is read twice:
//! first only ids and times, to know how many rows each trace has; then everything, and a trace is
//! handed out as soon as it has all of its rows. The other tables are read only as far as the
//! traces handed out need it, which keeps all of them at the same place in the run.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use arrow::error::ArrowError;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use retake_schemas::TraceId;
use retake_schemas::tables::{DocumentRow, EventRow, Row, SpanRow, TableName, TokenRow};
use rustc_hash::FxBuildHasher;

use super::lanes;
use crate::reader::{ReadError, RunReader};
use crate::store::StoreError;

/// The tables of a run, each of whose files was checked.
#[derive(Debug)]
pub(super) struct Source<'a> {
    run: &'a RunReader,
    files: BTreeMap<TableName, Vec<PathBuf>>,
}

impl<'a> Source<'a> {
    /// Checks every file that an export reads.
    pub(super) fn open(run: &'a RunReader) -> Result<Self, ReadError> {
        let mut files = BTreeMap::new();
        for table in TABLES.into_iter().chain([TableName::Measures, TableName::Payloads]) {
            files.insert(table, run.checked_files(table)?);
        }
        Ok(Self { run, files })
    }

    /// Rows that the two passes read, counted twice as they are read twice.
    pub(super) fn rows_total(&self) -> u64 {
        let tables = TABLES.into_iter().chain([TableName::Measures]);
        let rows = |table| self.run.manifest().rows(table) + self.run.tail(table).num_rows() as u64;
        2 * tables.map(rows).fold(0, u64::saturating_add)
    }

    /// A table's rows from the beginning; of `columns` only, if any are named.
    pub(super) fn batches(
        &self,
        table: TableName,
        columns: &'static [&'static str],
    ) -> Batches<'a> {
        let mut files = self.files.get(&table).cloned().unwrap_or_default();
        files.reverse();
        Batches { run: self.run, table, columns, files, open: None, has_tail: true }
    }
}

/// Batches of a table: of its files one after the other, then of what is not sealed.
#[derive(Debug)]
pub(super) struct Batches<'a> {
    run: &'a RunReader,
    table: TableName,
    columns: &'static [&'static str],
    /// The next one is last.
    files: Vec<PathBuf>,
    open: Option<(String, ParquetRecordBatchReader)>,
    has_tail: bool,
}

impl Batches<'_> {
    /// The next batch; `None` after the last.
    pub(super) fn next(&mut self) -> Result<Option<RecordBatch>, ReadError> {
        loop {
            if let Some((file, reader)) = &mut self.open
                && let Some(batch) = reader.next()
            {
                let file = file.clone();
                let damaged =
                    |source: ArrowError| ReadError::Parquet { file, source: source.into() };
                return batch.map(Some).map_err(damaged);
            }
            match self.files.pop() {
                Some(path) => self.open = Some(open(&path, self.columns)?),
                None if self.has_tail => {
                    self.has_tail = false;
                    self.open = None;
                    return Ok(Some(self.run.tail(self.table)));
                }
                None => return Ok(None),
            }
        }
    }

    /// The next batch as rows; `None` after the last.
    pub(super) fn next_rows<R: Row>(&mut self) -> Result<Option<Vec<R>>, ReadError> {
        let table = self.table;
        let rows = |batch: RecordBatch| {
            R::from_batch(&batch).map_err(|source| ReadError::Table { table, source })
        };
        self.next()?.map(rows).transpose()
    }
}

fn open(path: &PathBuf, columns: &[&str]) -> Result<(String, ParquetRecordBatchReader), ReadError> {
    let name = path.display().to_string();
    let file = std::fs::File::open(path).map_err(StoreError::io("open", path))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|builder| {
        let mask = if columns.is_empty() {
            ProjectionMask::all()
        } else {
            ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied())
        };
        builder.with_projection(mask).with_batch_size(BATCH_ROWS).build()
    });
    match reader {
        Ok(reader) => Ok((name, reader)),
        Err(source) => Err(ReadError::Parquet { file: name, source }),
    }
}

/// What is known of a trace before its rows are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct TraceFacts {
    /// Rows that are still to come, by place in [`TABLES`].
    missing: [u32; TABLES.len()],
    /// First start and last end of its spans, ns since the Unix epoch.
    pub(super) start_unix_ns: i64,
    /// See `start_unix_ns`.
    pub(super) end_unix_ns: i64,
    /// Where a timeline draws it; traces of one lane do not touch.
    pub(super) lane: u32,
}

/// Every trace of the run.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    traces: HashMap<TraceId, TraceFacts, FxBuildHasher>,
    base_unix_ns: Option<i64>,
}

impl Catalog {
    /// Counts the rows of every trace and gives each its lane.
    pub(super) fn read(
        source: &Source<'_>,
        on_rows: &mut dyn FnMut(u64),
    ) -> Result<Self, ReadError> {
        let mut catalog = Self::default();
        for (place, table) in TABLES.into_iter().enumerate() {
            let is_span = table == TableName::Spans;
            let columns = if is_span { SPAN_COLUMNS } else { ROW_COLUMNS };
            let mut batches = source.batches(table, columns);
            while let Some(batch) = batches.next()? {
                catalog
                    .count(place, &batch)
                    .map_err(|source| ReadError::Table { table, source })?;
                on_rows(batch.num_rows() as u64);
            }
        }
        let table = TableName::Measures;
        let mut measures = source.batches(table, &["time_unix_ns"]);
        while let Some(batch) = measures.next()? {
            let times = times(&batch, "time_unix_ns");
            let times = times.map_err(|source| ReadError::Table { table, source })?;
            times.values().iter().for_each(|time| catalog.saw(*time));
            on_rows(batch.num_rows() as u64);
        }
        lanes::assign(&mut catalog.traces, catalog.base_unix_ns.unwrap_or(0));
        Ok(catalog)
    }

    /// Earliest time of the run that is one: a zero says that nobody knew.
    pub(super) fn base_unix_ns(&self) -> Option<i64> {
        self.base_unix_ns
    }

    /// What is known of a trace that has spans.
    pub(super) fn trace(&self, trace_id: TraceId) -> Option<&TraceFacts> {
        self.traces.get(&trace_id)
    }

    fn saw(&mut self, time_unix_ns: i64) {
        if time_unix_ns > 0 {
            let base = self.base_unix_ns.get_or_insert(time_unix_ns);
            *base = (*base).min(time_unix_ns);
        }
    }

    fn count(&mut self, place: usize, batch: &RecordBatch) -> Result<(), ArrowError> {
        let ids = trace_ids(batch)?;
        let is_span = place == SPANS;
        let starts = times(batch, if is_span { "start_unix_ns" } else { "time_unix_ns" })?;
        let durations = if is_span { Some(times(batch, "duration_ns")?) } else { None };
        let mut parser = IdParser::default();
        for (row, start) in starts.values().iter().copied().enumerate() {
            self.saw(start);
            if !ids.is_valid(row) {
                continue;
            }
            let facts = self.traces.entry(parser.parse(ids.value(row))?).or_insert(NOTHING_KNOWN);
            if let Some(missing) = facts.missing.get_mut(place) {
                *missing = missing.saturating_add(1);
            }
            if let Some(durations) = &durations {
                let end = start.saturating_add(durations.value(row));
                facts.start_unix_ns = facts.start_unix_ns.min(start);
                facts.end_unix_ns = facts.end_unix_ns.max(end);
            }
        }
        Ok(())
    }
}

/// All rows of one trace. Without spans when only its events or tokens are in the run.
#[derive(Debug, Default)]
pub(super) struct TraceRows {
    pub(super) spans: Vec<SpanRow>,
    pub(super) tokens: Vec<TokenRow>,
    pub(super) events: Vec<EventRow>,
    pub(super) documents: Vec<DocumentRow>,
}

/// What is handed out.
#[derive(Debug)]
pub(super) enum Item {
    /// A whole trace.
    Trace(TraceId, TraceRows),
    /// A log line that belongs to no trace.
    Event(EventRow),
}

/// Gathers rows into traces.
pub(super) struct Gatherer<'a, 'b> {
    catalog: Catalog,
    pending: HashMap<TraceId, TraceRows, FxBuildHasher>,
    spans: Batches<'a>,
    tokens: Batches<'a>,
    events: Batches<'a>,
    documents: Batches<'a>,
    loose: Vec<EventRow>,
    on_rows: &'b mut dyn FnMut(u64),
}

impl<'a, 'b> Gatherer<'a, 'b> {
    pub(super) fn new(
        source: &Source<'a>,
        catalog: Catalog,
        on_rows: &'b mut dyn FnMut(u64),
    ) -> Self {
        Self {
            catalog,
            pending: HashMap::default(),
            spans: source.batches(TableName::Spans, &[]),
            tokens: source.batches(TableName::Tokens, &[]),
            events: source.batches(TableName::Events, &[]),
            documents: source.batches(TableName::Documents, &[]),
            loose: Vec::new(),
            on_rows,
        }
    }

    /// Hands out every trace once, whole, in the order in which they are complete.
    pub(super) fn run<E: From<ReadError>>(
        mut self,
        take: &mut dyn FnMut(&Catalog, Item) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(rows) = self.spans.next_rows::<SpanRow>()? {
            (self.on_rows)(rows.len() as u64);
            let mut touched: Vec<TraceId> = Vec::new();
            for row in rows {
                let trace_id =
                    self.add(SPANS, &row.trace_id.clone(), |trace| trace.spans.push(row))?;
                if touched.last() != Some(&trace_id) {
                    touched.push(trace_id);
                }
            }
            for trace_id in touched {
                self.hand_out(trace_id, take)?;
            }
        }
        // Rows of traces without a span, and lines of no trace.
        while self.more_tokens()? || self.more_events()? || self.more_documents()? {
            self.hand_out_loose(take)?;
        }
        let mut left: Vec<_> = std::mem::take(&mut self.pending).into_iter().collect();
        left.sort_unstable_by_key(|(trace_id, _)| *trace_id);
        for (trace_id, rows) in left {
            take(&self.catalog, Item::Trace(trace_id, rows))?;
        }
        self.hand_out_loose(take)
    }

    fn hand_out<E: From<ReadError>>(
        &mut self,
        trace_id: TraceId,
        take: &mut dyn FnMut(&Catalog, Item) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.is_missing(trace_id, SPANS) || !self.pending.contains_key(&trace_id) {
            return Ok(());
        }
        while self.is_missing(trace_id, TOKENS) && self.more_tokens()? {}
        while self.is_missing(trace_id, EVENTS) && self.more_events()? {}
        while self.is_missing(trace_id, DOCUMENTS) && self.more_documents()? {}
        if let Some(rows) = self.pending.remove(&trace_id) {
            take(&self.catalog, Item::Trace(trace_id, rows))?;
        }
        self.hand_out_loose(take)
    }

    fn hand_out_loose<E: From<ReadError>>(
        &mut self,
        take: &mut dyn FnMut(&Catalog, Item) -> Result<(), E>,
    ) -> Result<(), E> {
        for event in std::mem::take(&mut self.loose) {
            take(&self.catalog, Item::Event(event))?;
        }
        Ok(())
    }

    fn is_missing(&self, trace_id: TraceId, place: usize) -> bool {
        let facts = self.catalog.traces.get(&trace_id);
        facts.and_then(|facts| facts.missing.get(place)).is_some_and(|missing| *missing > 0)
    }

    fn more_tokens(&mut self) -> Result<bool, ReadError> {
        let Some(rows) = self.tokens.next_rows::<TokenRow>()? else { return Ok(false) };
        (self.on_rows)(rows.len() as u64);
        for row in rows {
            self.add(TOKENS, &row.trace_id.clone(), |trace| trace.tokens.push(row))?;
        }
        Ok(true)
    }

    fn more_events(&mut self) -> Result<bool, ReadError> {
        let Some(rows) = self.events.next_rows::<EventRow>()? else { return Ok(false) };
        (self.on_rows)(rows.len() as u64);
        for row in rows {
            match row.trace_id.clone() {
                Some(trace_id) => {
                    self.add(EVENTS, &trace_id, |trace| trace.events.push(row))?;
                }
                None => self.loose.push(row),
            }
        }
        Ok(true)
    }

    fn more_documents(&mut self) -> Result<bool, ReadError> {
        let Some(rows) = self.documents.next_rows::<DocumentRow>()? else { return Ok(false) };
        (self.on_rows)(rows.len() as u64);
        for row in rows {
            self.add(DOCUMENTS, &row.trace_id.clone(), |trace| trace.documents.push(row))?;
        }
        Ok(true)
    }

    fn add(
        &mut self,
        place: usize,
        trace_id: &str,
        push: impl FnOnce(&mut TraceRows),
    ) -> Result<TraceId, ReadError> {
        let table = TABLES.get(place).copied().unwrap_or(TableName::Spans);
        let trace_id = IdParser::default()
            .parse(trace_id)
            .map_err(|source| ReadError::Table { table, source })?;
        let facts = self.catalog.traces.get_mut(&trace_id);
        if let Some(missing) = facts.and_then(|facts| facts.missing.get_mut(place)) {
            *missing = missing.saturating_sub(1);
        }
        push(self.pending.entry(trace_id).or_default());
        Ok(trace_id)
    }
}

/// Reads trace ids; rows of a trace mostly stand together, so the last one is at hand.
#[derive(Debug, Default)]
struct IdParser {
    last: Option<(String, TraceId)>,
}

impl IdParser {
    fn parse(&mut self, text: &str) -> Result<TraceId, ArrowError> {
        if let Some((last, trace_id)) = &self.last
            && last == text
        {
            return Ok(*trace_id);
        }
        let trace_id = text.parse().map_err(|error| ArrowError::ExternalError(Box::new(error)))?;
        self.last = Some((text.to_owned(), trace_id));
        Ok(trace_id)
    }
}

fn column<'a>(
    batch: &'a RecordBatch,
    name: &str,
) -> Result<&'a arrow::array::ArrayRef, ArrowError> {
    let missing = || ArrowError::SchemaError(format!("column {name} is missing"));
    batch.column_by_name(name).ok_or_else(missing)
}

fn trace_ids(batch: &RecordBatch) -> Result<StringArray, ArrowError> {
    Ok(cast(column(batch, "trace_id")?, &DataType::Utf8)?.as_string::<i32>().clone())
}

fn times(batch: &RecordBatch, name: &str) -> Result<Int64Array, ArrowError> {
    Ok(cast(column(batch, name)?, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

/// The tables whose rows belong to traces.
const TABLES: [TableName; 4] =
    [TableName::Spans, TableName::Tokens, TableName::Events, TableName::Documents];
const SPANS: usize = 0;
const TOKENS: usize = 1;
const EVENTS: usize = 2;
const DOCUMENTS: usize = 3;

const SPAN_COLUMNS: &[&str] = &["trace_id", "start_unix_ns", "duration_ns"];
const ROW_COLUMNS: &[&str] = &["trace_id", "time_unix_ns"];

const NOTHING_KNOWN: TraceFacts = TraceFacts {
    missing: [0; TABLES.len()],
    start_unix_ns: i64::MAX,
    end_unix_ns: i64::MIN,
    lane: 0,
};

/// Rows decoded at a time.
const BATCH_ROWS: usize = 8192;
