//! The columns against rows made one by one with [`Mapping::apply`], on random spans.

use proptest::prelude::*;
use retake_schemas::mapping::BUILT_IN;
use retake_schemas::tables::stored::logical;
use retake_schemas::tables::{Row, SpanRow};
use retake_schemas::{Attributes, SpanKey, Value};

use super::plan::STEERING;
use super::*;
use crate::attrs;

/// A span as its facts are before they are packed.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    trace: u8,
    parent: Option<u64>,
    name: &'static str,
    /// Target, thread and source file.
    place: [Option<&'static str>; 3],
    level: Option<Level>,
    source_line: Option<u32>,
    start: i64,
    duration: i64,
    busy: Option<i64>,
    status: Status,
    has_marks: bool,
    error: Option<(&'static str, &'static str)>,
    first_token: Option<i64>,
    usage: Option<Usage>,
    documents: Option<i64>,
    attributes: Attributes,
}

const RUN: &str = "20261122t041530-7k3m9x2q";

impl Span {
    fn trace_id(&self) -> TraceId {
        TraceId::from_bytes([self.trace; 16])
    }

    fn flags(&self) -> &'static str {
        if self.has_marks { "orphan,unfinished" } else { "" }
    }

    fn packed(&self, symbols: &mut Symbols) -> Vec<u8> {
        let mut packed = Vec::new();
        for (key, value) in &self.attributes {
            attrs::push_value(&mut packed, symbols.intern(key), value);
        }
        packed
    }

    /// Every other one has children.
    fn self_ns(&self) -> i64 {
        if self.has_marks { self.duration / 2 } else { self.duration }
    }

    fn push(&self, id: u64, columns: &mut SpanColumns, symbols: &mut Symbols) {
        let packed = self.packed(symbols);
        let name = symbols.intern(self.name);
        let [target, thread, source_file] =
            self.place.map(|text| text.map(|text| symbols.intern(text)));
        let facts = SpanFacts {
            trace_id: self.trace_id(),
            span_id: SpanId::from_u64(id),
            parent: self.parent.map(SpanId::from_u64),
            name,
            target,
            level: self.level,
            thread,
            source_file,
            source_line: self.source_line,
            start_unix_ns: self.start,
            end_unix_ns: self.start + self.duration,
            busy_ns: self.busy,
            self_ns: self.self_ns(),
            status: self.status,
            is_error_origin: self.has_marks,
            tokens_counted: !self.has_marks,
            is_call: self.has_marks.then_some(true),
            flags: self.flags(),
            error_type: self.error.map(|(class, _)| class),
            message: self.error.map(|(_, message)| message),
            first_token_unix_ns: self.first_token,
            usage: self.usage.as_ref(),
            documents: self.documents,
            attributes: &packed,
        };
        columns.push(&facts, symbols);
    }

    /// The row, said plainly.
    fn row(&self, id: u64, service: &str) -> SpanRow {
        let text = |text: Option<&str>| text.map(str::to_owned);
        let [target, thread, source_file] = self.place.map(text);
        let mut row = SpanRow {
            run_id: RUN.to_owned(),
            trace_id: self.trace_id().to_string(),
            span_id: SpanId::from_u64(id).to_string(),
            parent_span_id: self.parent.map(|parent| SpanId::from_u64(parent).to_string()),
            name: self.name.to_owned(),
            start_unix_ns: self.start,
            duration_ns: self.duration,
            busy_ns: self.busy,
            self_ns: Some(self.self_ns()),
            status: self.status.as_str().to_owned(),
            is_error_origin: self.has_marks,
            tokens_counted: !self.has_marks,
            is_call: self.has_marks.then_some(true),
            service: Some(service.to_owned()).filter(|service| !service.is_empty()),
            target,
            thread,
            source_file,
            level: text(self.level.map(Level::as_str)),
            source_line: self.source_line.and_then(|line| i32::try_from(line).ok()),
            flags: Some(self.flags().to_owned()).filter(|flags| !flags.is_empty()),
            ..SpanRow::default()
        };
        let kept = |(key, _): &&(retake_schemas::Key, Value)| !STEERING.contains(&key.as_ref());
        let kept: Attributes = self.attributes.iter().filter(kept).cloned().collect();
        BUILT_IN.apply(&kept, &mut row);
        self.count(&mut row);
        row.document_count = row.document_count.or(self.documents);
        if self.status == Status::Error {
            row.error_type = row.error_type.or(text(self.error.map(|(class, _)| class)));
            row.error_message = row.error_message.or(text(self.error.map(|(_, text)| text)));
        }
        if row.kind.is_empty() {
            row.kind = "span".to_owned();
        }
        if row.stage.is_empty() {
            row.stage = stage_of_kind(&row.kind).unwrap_or(self.name).to_owned();
        }
        row
    }

    fn count(&self, row: &mut SpanRow) {
        if let Some(first) = self.first_token {
            row.ttft_ns = Some((first - self.start).max(0));
            row.stream = row.stream.or(Some(true));
        }
        if let Some(usage) = self.usage.as_ref().filter(|u| u.source != TokensSource::None) {
            row.input_tokens = usage.input.or(row.input_tokens);
            row.output_tokens = usage.output.or(row.output_tokens);
            row.cache_read_tokens = usage.cache_read.or(row.cache_read_tokens);
            row.cache_write_tokens = usage.cache_write.or(row.cache_write_tokens);
            row.reasoning_tokens = usage.reasoning.or(row.reasoning_tokens);
            row.tokens_source = usage.source.as_str().to_owned();
        }
        if row.tokens_source.is_empty() {
            let has_counts = row.input_tokens.is_some() || row.output_tokens.is_some();
            row.tokens_source = if has_counts { "provider" } else { "none" }.to_owned();
        }
    }
}

/// The spans as columns, with ids in order from 0.
pub(crate) fn columns_of(spans: &[Span], service: &str) -> SpanColumns {
    let mut columns = SpanColumns::new(RUN, service, &BUILT_IN);
    let mut symbols = Symbols::default();
    for (id, span) in spans.iter().enumerate() {
        span.push(id as u64, &mut columns, &mut symbols);
    }
    columns
}

/// The same as a segment is to hold them.
pub(crate) fn segment_of(spans: &[Span], service: &str, frequent: Frequent) -> SpanColumns {
    let mut columns = SpanColumns::new(RUN, service, &BUILT_IN);
    let mut symbols = Symbols::default();
    choose(spans, &mut columns, &mut symbols, frequent);
    for (id, span) in spans.iter().enumerate() {
        span.push(id as u64, &mut columns, &mut symbols);
    }
    columns
}

fn choose(spans: &[Span], columns: &mut SpanColumns, symbols: &mut Symbols, frequent: Frequent) {
    let packed: Vec<Vec<u8>> = spans.iter().map(|span| span.packed(symbols)).collect();
    columns.choose(packed.iter().map(Vec::as_slice), symbols, frequent);
}

/// A few spans are enough for columns.
pub(crate) const FEW: Frequent = Frequent { values: 2, floats: 2 };

/// A span that has nothing but attributes.
pub(crate) fn bare_span(attributes: Attributes) -> Span {
    Span {
        trace: 1,
        parent: None,
        name: "ask",
        place: [None; 3],
        level: None,
        source_line: None,
        start: 0,
        duration: 1,
        busy: None,
        status: Status::Ok,
        has_marks: false,
        error: None,
        first_token: None,
        usage: None,
        documents: None,
        attributes,
    }
}

fn value() -> impl Strategy<Value = Value> {
    let words = prop::sample::select(vec![
        "LLM",
        "chat",
        "Embeddings",
        "rerank",
        "tool",
        "provider",
        "",
        "23",
        " 7 ",
        "-4",
        "0.25",
        "true",
        "False",
        "1",
        "NaN",
        "quote \" and \\ and \n",
        "é\u{1}\u{7f}",
        "blake3:12",
        "99999999999999999999",
        "1e400",
    ]);
    let scalar = prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        (-3_i64..2000).prop_map(Value::Int),
        any::<f64>().prop_map(Value::Float),
        prop::sample::select(vec![f64::NAN, f64::INFINITY, -0.0, 12.0, 0.7, 1e300])
            .prop_map(Value::Float),
        words.prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    scalar.prop_recursive(2, 6, 3, |inner| prop::collection::vec(inner, 0..3).prop_map(Value::List))
}

fn attributes() -> impl Strategy<Value = Attributes> {
    let mut names: Vec<String> = BUILT_IN.names().map(str::to_owned).collect();
    names.sort();
    let key = prop_oneof![
        4 => prop::sample::select(names),
        4 => prop::sample::select(vec![
            "doc", "score", "Score", "x.y", "x", ".", "attributes", "a \"key\"", "é", "", "a\0",
        ])
        .prop_map(str::to_owned),
        1 => "\\PC{0,3}|k{4096}",
        1 => prop::sample::select(STEERING.to_vec()).prop_map(str::to_owned),
    ];
    let entry = (key, value()).prop_map(|(key, value)| (key.into(), value));
    // A part of the attributes comes again with other values, as late records do.
    (prop::collection::vec(entry, 0..9), prop::collection::vec((0..9_usize, value()), 0..3))
        .prop_map(|(mut attributes, again): (Attributes, _)| {
            for (index, value) in again {
                if let Some((key, _)) = attributes.get(index).cloned() {
                    attributes.push((key, value));
                }
            }
            attributes
        })
}

fn usage() -> impl Strategy<Value = Usage> {
    let count = || prop::option::of(0..5000_i64);
    let source = prop::sample::select(vec![
        TokensSource::Provider,
        TokensSource::Tokenizer,
        TokensSource::Estimate,
        TokensSource::None,
    ]);
    (source, count(), count(), count(), count()).prop_map(
        |(source, input, output, cache_read, reasoning)| Usage {
            span: SpanKey { trace_id: TraceId::from_bytes([0; 16]), span_id: SpanId::from_u64(0) },
            source,
            input,
            output,
            cache_read,
            cache_write: None,
            reasoning,
        },
    )
}

/// Any span at all.
pub(crate) fn span() -> impl Strategy<Value = Span> {
    let word = |words: &[&'static str]| prop::option::of(prop::sample::select(words.to_vec()));
    let who = (
        0..3_u8,
        prop::option::of(any::<u64>()),
        prop::sample::select(vec!["ask", "llm", ""]),
        [word(&["app", "lib"]), word(&["main", "w-1"]), word(&["a.rs", "b.rs"])],
        prop::option::of(prop::sample::select(vec![Level::Trace, Level::Info, Level::Error])),
        prop::option::of(any::<u32>()),
    );
    let when = (0..1_i64 << 61, 0..1_i64 << 40, prop::option::of(0..1_i64 << 40));
    let end = (
        prop::sample::select(vec![Status::Ok, Status::Error, Status::Cancelled]),
        any::<bool>(),
        prop::option::of(Just(("Timeout", "no answer"))),
        prop::option::of(0..1_i64 << 61),
        prop::option::of(usage()),
        prop::option::of(0..9_i64),
    );
    (who, when, end, attributes()).prop_map(
        |(
            (trace, parent, name, place, level, source_line),
            (start, duration, busy),
            (status, has_marks, error, first_token, usage, documents),
            attributes,
        )| Span {
            trace,
            parent,
            name,
            place,
            level,
            source_line,
            start,
            duration,
            busy,
            status,
            has_marks,
            error,
            first_token,
            usage,
            documents,
            attributes,
        },
    )
}

proptest! {
    /// Scenario: spans with any attributes, known and unknown, readable or not, some recorded
    /// twice; counts by event and by attribute; errors, and nothing at all.
    /// Guarantees: the columns hold what the attribute mapping says, row by row.
    #[test]
    fn columns_hold_the_rows_the_mapping_gives(
        spans in prop::collection::vec(span(), 1..12),
        service in prop::sample::select(vec!["", "svc"]),
    ) {
        let columns = columns_of(&spans, service);
        prop_assert_eq!(columns.len(), spans.len());
        let rows = SpanRow::from_batch(&columns.to_batch()).unwrap();
        let expected: Vec<SpanRow> =
            spans.iter().enumerate().map(|(id, span)| span.row(id as u64, service)).collect();
        prop_assert_eq!(rows, expected);
    }

    /// Scenario: the same, so often that attributes get columns of their own: keys of several
    /// types, keys that differ only in case, and keys that no column may have.
    /// Guarantees: which columns there are is not seen by who reads the table.
    #[test]
    fn attributes_with_columns_are_read_as_without(
        spans in prop::collection::vec(span(), 1..20),
    ) {
        let (segment, tail) = (segment_of(&spans, "svc", FEW), columns_of(&spans, "svc"));
        prop_assert_eq!(logical(segment.to_batch()).unwrap(), logical(tail.to_batch()).unwrap());
    }
}

proptest! {
    /// Scenario: columns that are used again for the next segment.
    /// Guarantees: nothing of the spans before is left in them.
    #[test]
    fn cleared_columns_hold_only_what_came_after(
        before in prop::collection::vec(span(), 1..12),
        after in prop::collection::vec(span(), 1..12),
    ) {
        let mut symbols = Symbols::default();
        let mut columns = SpanColumns::new(RUN, "svc", &BUILT_IN);
        choose(&before, &mut columns, &mut symbols, FEW);
        before.iter().for_each(|span| span.push(9, &mut columns, &mut symbols));
        columns.clear();
        choose(&after, &mut columns, &mut symbols, FEW);
        for (id, span) in after.iter().enumerate() {
            span.push(id as u64, &mut columns, &mut symbols);
        }
        prop_assert_eq!(columns.to_batch(), segment_of(&after, "svc", FEW).to_batch());
    }
}

/// The columns that attributes of some spans get, with their types.
fn columns_for(spans: &[Span]) -> Vec<String> {
    let schema = segment_of(spans, "svc", Frequent::IN_SEGMENT).schema();
    let typed = schema.fields().iter().skip(SpanRow::columns().len());
    typed.map(|field| format!("{}: {}", field.name(), field.data_type())).collect()
}

/// Scenario: attributes in many and in few of many spans, of one type and of several, known to the
/// mapping, with names that engines take for others, and more of them than a segment takes.
/// Guarantees: the frequent ones get columns, each one, of its most frequent type; a run of a few
/// spans has none.
#[test]
fn frequent_attributes_get_columns() {
    let attributes = |n: usize| -> Attributes {
        let mut attributes: Attributes = vec![
            ("top_k".into(), Value::Int(8)),
            ("user".into(), if n.is_multiple_of(3) { Value::Int(1) } else { "ann".into() }),
            ("User".into(), Value::Bool(true)),
            ("ratio".into(), Value::Float(if n == 7 { f64::NAN } else { 0.5 })),
            ("two words".into(), Value::Int(1)),
            ("gen_ai.request.model".into(), "m".into()),
            ("list".into(), Value::List(vec![Value::Int(1)])),
        ];
        if n.is_multiple_of(300) {
            attributes.push(("rare".into(), Value::Int(1)));
        }
        attributes
    };
    let spans: Vec<Span> = (0..6000).map(|n| bare_span(attributes(n))).collect();
    assert_eq!(
        columns_for(&spans),
        ["attributes.User: Boolean", "attributes.ratio: Float64", "attributes.top_k: Int64"]
    );
    assert_eq!(columns_for(&spans[..1000]), Vec::<String>::new());
    let many = |n: usize| -> Attributes {
        (0..80)
            .filter(|key| n > key * 3)
            .map(|key| (format!("k{key:02}").into(), Value::Int(1)))
            .collect()
    };
    let spans: Vec<Span> = (0..2000).map(|n| bare_span(many(n))).collect();
    let columns = columns_for(&spans);
    assert_eq!((columns.len(), columns[63].as_str()), (64, "attributes.k63: Int64"));
}

#[test]
fn every_column_of_the_table_is_held() {
    let columns = SpanColumns::new(RUN, "svc", &BUILT_IN);
    let missing: Vec<_> =
        SpanRow::columns().into_iter().filter(|c| columns.view(c.name).is_none()).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert_eq!(columns.to_batch().schema(), SpanRow::schema());
}
