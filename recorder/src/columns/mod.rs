//! Closed spans as columns: the form between the fold and a segment file.
//!
//! Building rows of the table `spans` one struct at a time costs an allocation per text and a
//! hash per attribute. Here a span is a handful of appends: its names are already numbers, what
//! becomes of an attribute is worked out once per key, and a column that a span lacks is not
//! touched. The columns are read in two ways: as a record batch, for who asks before the segment
//! is written, and by the segment writer.

mod batch;
mod cells;
mod plan;

use retake_schemas::event::{Level, Status, TokensSource, Usage};
use retake_schemas::mapping::Mapping;
use retake_schemas::{SpanId, TraceId};

use crate::hex::hex_trace;
use crate::symbols::{Sym, Symbols};
use cells::{Bool, Cells, Id, Int, Word};
pub(crate) use cells::{Present, View, text_of};
pub(crate) use plan::Frequent;
use plan::Plans;

/// Everything the fold knows of one closed span.
#[derive(Debug, Clone)]
pub(crate) struct SpanFacts<'a> {
    pub(crate) trace_id: TraceId,
    pub(crate) span_id: SpanId,
    pub(crate) parent: Option<SpanId>,
    pub(crate) name: Sym,
    pub(crate) target: Option<Sym>,
    pub(crate) level: Option<Level>,
    pub(crate) thread: Option<Sym>,
    pub(crate) source_file: Option<Sym>,
    pub(crate) source_line: Option<u32>,
    pub(crate) start_unix_ns: i64,
    pub(crate) end_unix_ns: i64,
    pub(crate) busy_ns: Option<i64>,
    pub(crate) self_ns: i64,
    pub(crate) status: Status,
    pub(crate) is_error_origin: bool,
    pub(crate) tokens_counted: bool,
    pub(crate) is_call: Option<bool>,
    /// What is odd about the span, joined by commas; empty when nothing is.
    pub(crate) flags: &'a str,
    pub(crate) error_type: Option<&'a str>,
    pub(crate) message: Option<&'a str>,
    pub(crate) first_token_unix_ns: Option<i64>,
    pub(crate) usage: Option<&'a Usage>,
    pub(crate) documents: Option<i64>,
    /// Packed attributes ([`crate::attrs`]) in recorded order; later entries of a key win.
    pub(crate) attributes: &'a [u8],
}

/// Spans of one segment in the order of its rows, as columns.
#[derive(Debug)]
pub(crate) struct SpanColumns {
    rows: u32,
    cells: Cells,
    plans: Plans,
    run_id: String,
    /// Empty when the run names no service.
    service: String,
    /// The trace of the last row, and its text's number: rows are clustered by trace.
    trace: Option<(TraceId, u32)>,
}

impl SpanColumns {
    /// Columns for spans of one run.
    pub(crate) fn new(run_id: &str, service: &str, mapping: &'static Mapping) -> Self {
        Self {
            rows: 0,
            cells: Cells::default(),
            plans: Plans::new(mapping),
            run_id: run_id.to_owned(),
            service: service.to_owned(),
            trace: None,
        }
    }

    /// Forgets the spans and keeps the memory and what is known of keys: a segment's columns are
    /// tens of megabytes, and new pages cost more than filling them.
    pub(crate) fn clear(&mut self) {
        self.rows = 0;
        self.trace = None;
        self.cells.clear();
    }

    /// Decides which attributes get columns of their own, by the packed attributes of the spans
    /// that will be pushed. Without it, or without attributes, none does.
    pub(crate) fn choose<'a>(
        &mut self,
        packed: impl ExactSizeIterator<Item = &'a [u8]>,
        symbols: &Symbols,
        frequent: Frequent,
    ) {
        assert_eq!(self.rows, 0, "columns are chosen before they are filled");
        self.plans.choose(packed, symbols, frequent, &mut self.cells.typed);
    }

    /// Appends a span. Every symbol must come from `symbols`, the same table for every span.
    pub(crate) fn push(&mut self, facts: &SpanFacts<'_>, symbols: &Symbols) {
        self.identity(facts);
        self.place(facts, symbols);
        self.times(facts);
        // Attributes win over what the instrumentation's place in the source says, and lose to
        // what events counted.
        self.plans.apply(facts.attributes, self.rows, &mut self.cells, symbols);
        self.tokens(facts);
        self.outcome(facts);
        self.kind_and_stage(facts, symbols);
        self.rows += 1;
    }

    /// How many spans there are.
    pub(crate) fn len(&self) -> usize {
        self.rows as usize
    }

    /// The column of that name; `None` if the table has none.
    pub(crate) fn view(&self, column: &str) -> Option<View<'_>> {
        self.cells.view(column)
    }

    fn identity(&mut self, facts: &SpanFacts<'_>) {
        let (row, cells) = (self.rows, &mut self.cells);
        cells[Word::RunId].set_numbered(row, 0, &self.run_id);
        let trace = match self.trace {
            Some((trace_id, code)) if trace_id == facts.trace_id => code,
            _ => {
                let code = cells[Word::TraceId].code(&hex_trace(facts.trace_id.as_bytes()));
                self.trace = Some((facts.trace_id, code));
                code
            }
        };
        cells[Word::TraceId].set_code(row, trace);
        cells[Id::Span].set(row, u64::from_be_bytes(*facts.span_id.as_bytes()));
        if let Some(parent) = facts.parent {
            cells[Id::Parent].set(row, u64::from_be_bytes(*parent.as_bytes()));
        }
    }

    fn place(&mut self, facts: &SpanFacts<'_>, symbols: &Symbols) {
        let (row, cells) = (self.rows, &mut self.cells);
        cells[Word::Name].set_symbol(row, facts.name, symbols);
        for (column, sym) in [
            (Word::Target, facts.target),
            (Word::Thread, facts.thread),
            (Word::SourceFile, facts.source_file),
        ] {
            if let Some(sym) = sym {
                cells[column].set_symbol(row, sym, symbols);
            }
        }
        if let Some(level) = facts.level {
            cells[Word::Level].set_numbered(row, level as usize, level.as_str());
        }
        if let Some(line) = facts.source_line.filter(|line| i32::try_from(*line).is_ok()) {
            cells[Int::SourceLine].set(row, i64::from(line));
        }
        if !self.service.is_empty() {
            cells[Word::Service].set_numbered(row, 0, &self.service);
        }
    }

    fn times(&mut self, facts: &SpanFacts<'_>) {
        let (row, cells) = (self.rows, &mut self.cells);
        let duration_ns = facts.end_unix_ns.saturating_sub(facts.start_unix_ns);
        cells[Int::Start].set(row, facts.start_unix_ns);
        cells[Int::Duration].set(row, duration_ns);
        // Most spans have no children, and the bytes of a time are not worth saying it twice.
        if facts.self_ns != duration_ns {
            cells[Int::Own].set(row, facts.self_ns);
        }
        if let Some(busy) = facts.busy_ns {
            cells[Int::Busy].set(row, busy);
        }
    }

    /// Puts the counts of a `Usage` event over those of attributes, and states who counted.
    fn tokens(&mut self, facts: &SpanFacts<'_>) {
        let (row, cells) = (self.rows, &mut self.cells);
        if let Some(first) = facts.first_token_unix_ns {
            let waited = first.saturating_sub(facts.start_unix_ns).max(0);
            cells[Int::FirstToken].set(row, waited);
            if !cells[Bool::Stream].has(row) {
                cells[Bool::Stream].set(row, true);
            }
        }
        if let Some(usage) = facts.usage.filter(|usage| usage.source != TokensSource::None) {
            for (column, count) in [
                (Int::Input, usage.input),
                (Int::Output, usage.output),
                (Int::CacheRead, usage.cache_read),
                (Int::CacheWrite, usage.cache_write),
                (Int::Reasoning, usage.reasoning),
            ] {
                if let Some(count) = count {
                    cells[column].set(row, count);
                }
            }
            let source = usage.source;
            cells[Word::TokensSource].set_numbered(row, source as usize, source.as_str());
        }
        if cells[Word::TokensSource].current(row).is_empty() {
            let has_counts = cells[Int::Input].has(row) || cells[Int::Output].has(row);
            // Instrumentations put the provider's usage on the span and say nothing of its source.
            let source = if has_counts { TokensSource::Provider } else { TokensSource::None };
            cells[Word::TokensSource].set_numbered(row, source as usize, source.as_str());
        }
        if let Some(documents) = facts.documents.filter(|_| !cells[Int::Documents].has(row)) {
            cells[Int::Documents].set(row, documents);
        }
        cells[Bool::TokensCounted].set(row, facts.tokens_counted);
        if let Some(is_call) = facts.is_call {
            cells[Bool::IsCall].set(row, is_call);
        }
    }

    fn outcome(&mut self, facts: &SpanFacts<'_>) {
        let (row, cells) = (self.rows, &mut self.cells);
        cells[Word::Status].set_numbered(row, facts.status as usize, facts.status.as_str());
        cells[Bool::IsErrorOrigin].set(row, facts.is_error_origin);
        if !facts.flags.is_empty() {
            cells[Word::Flags].set(row, facts.flags);
        }
        if facts.status != Status::Error {
            return;
        }
        for (column, text) in
            [(Word::ErrorType, facts.error_type), (Word::ErrorMessage, facts.message)]
        {
            if let Some(text) = text.filter(|_| !cells[column].has(row)) {
                cells[column].set(row, text);
            }
        }
    }

    /// The kind, and the stage: what the program calls it, else by kind, else by name.
    fn kind_and_stage(&mut self, facts: &SpanFacts<'_>, symbols: &Symbols) {
        let (row, cells) = (self.rows, &mut self.cells);
        let stage = if cells[Word::Kind].current(row).is_empty() {
            cells[Word::Kind].set_numbered(row, 0, "span");
            None
        } else {
            stage_of_kind(cells[Word::Kind].current(row))
        };
        if !cells[Word::Stage].current(row).is_empty() {
            return;
        }
        match stage {
            Some(stage) => cells[Word::Stage].set(row, stage),
            None => cells[Word::Stage].set_symbol(row, facts.name, symbols),
        }
    }
}

/// The stage a kind stands for when the program does not name one.
pub(crate) fn stage_of_kind(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "llm" => "llm",
        "embedding" => "embed",
        "retriever" => "retrieve",
        "reranker" => "rerank",
        _ => return None,
    })
}

#[cfg(test)]
pub(crate) mod tests;
