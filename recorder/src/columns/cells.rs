//! The columns of `spans` in memory: what is absent costs nothing, what repeats is a number.
//!
//! Most of the table's columns are NULL in most rows. A column therefore holds its present values
//! and, once it has a gap, the rows they stand in. Texts that repeat (names, models, words) are
//! held as numbers into a dictionary of their column, which is also how Parquet stores them.

use std::ops::{Index, IndexMut};

use arrow::datatypes::DataType;

use crate::attrs::ValueRef;
use crate::symbols::{Sym, Symbols};

/// Values of one column with the rows they stand in. Rows are filled in order; the last one may be
/// overwritten.
#[derive(Debug)]
pub(crate) struct Sparse<T> {
    values: Vec<T>,
    /// Rows of the values. Empty as long as the values are those of the first rows, without a gap.
    rows: Vec<u32>,
    /// One past the last row that has a value.
    end: u32,
}

impl<T> Default for Sparse<T> {
    fn default() -> Self {
        Self { values: Vec::new(), rows: Vec::new(), end: 0 }
    }
}

impl<T: Copy> Sparse<T> {
    /// Sets a row's value: that of the last row set, or of a later one.
    #[inline]
    pub(super) fn set(&mut self, row: u32, value: T) {
        if self.has(row) {
            if let Some(last) = self.values.last_mut() {
                *last = value;
            }
            return;
        }
        if row != self.end || !self.rows.is_empty() {
            if self.rows.is_empty() {
                self.rows.extend(0..self.end);
            }
            self.rows.push(row);
        }
        self.values.push(value);
        self.end = row + 1;
    }

    /// Whether the row, which must be the last one of any column, has a value.
    #[inline]
    pub(super) fn has(&self, row: u32) -> bool {
        self.end == row + 1
    }

    /// The value of the row, which must be the last one of any column.
    #[inline]
    pub(super) fn get(&self, row: u32) -> Option<T> {
        self.values.last().copied().filter(|_| self.has(row))
    }

    fn clear(&mut self) {
        self.values.clear();
        self.rows.clear();
        self.end = 0;
    }

    fn present(&self) -> Present<'_> {
        if self.rows.is_empty() {
            Present::First(self.values.len())
        } else {
            Present::At(&self.rows)
        }
    }
}

/// Texts that repeat, as numbers into a dictionary.
#[derive(Debug, Default)]
pub(crate) struct Words {
    cells: Sparse<u32>,
    dictionary: Symbols,
    /// Code plus one by the run's symbol; 0 where the symbol was not met yet.
    by_symbol: Vec<u32>,
    /// Code plus one of words the caller numbers; 0 for one not met yet.
    numbered: [u32; NUMBERED],
    /// Codes met lately, by a glance at the text: most columns know a handful of words.
    recent: [Option<Sym>; RECENT],
}

impl Words {
    /// Sets a row's text.
    pub(super) fn set(&mut self, row: u32, text: &str) {
        let code = self.code(text);
        self.cells.set(row, code);
    }

    /// Sets a row's text by the number [`Words::code`] gave for it.
    #[inline]
    pub(super) fn set_code(&mut self, row: u32, code: u32) {
        self.cells.set(row, code);
    }

    /// Sets a row's text to that of an interned one, without looking at it again.
    #[inline]
    pub(super) fn set_symbol(&mut self, row: u32, sym: Sym, symbols: &Symbols) {
        let code = match self.by_symbol.get(sym.index()) {
            Some(code) if *code > 0 => *code - 1,
            _ => self.learn(sym, symbols),
        };
        self.cells.set(row, code);
    }

    /// Sets a row's text to one of a few, which the caller numbers: always the same text by the
    /// same number below [`NUMBERED`].
    #[inline]
    pub(super) fn set_numbered(&mut self, row: u32, number: usize, text: &str) {
        let code = match self.numbered.get(number) {
            Some(code) if *code > 0 => *code - 1,
            _ => {
                let code = self.code(text);
                if let Some(known) = self.numbered.get_mut(number) {
                    *known = code + 1;
                }
                code
            }
        };
        self.cells.set(row, code);
    }

    #[inline]
    pub(super) fn has(&self, row: u32) -> bool {
        self.cells.has(row)
    }

    /// Forgets the rows; with `is_dictionary_kept`, texts keep their numbers.
    fn clear(&mut self, is_dictionary_kept: bool) {
        let mut cells = std::mem::take(&mut self.cells);
        cells.clear();
        if is_dictionary_kept {
            self.cells = cells;
        } else {
            *self = Self { cells, ..Self::default() };
        }
    }

    /// The text of the row, which must be the last one; empty if it has none.
    pub(super) fn current(&self, row: u32) -> &str {
        self.cells.get(row).map_or("", |code| text_of(&self.dictionary, code))
    }

    fn view(&self) -> View<'_> {
        View::Words(self.cells.present(), &self.cells.values, &self.dictionary)
    }

    fn learn(&mut self, sym: Sym, symbols: &Symbols) -> u32 {
        let code = self.code(symbols.text(sym));
        if self.by_symbol.len() <= sym.index() {
            self.by_symbol.resize(symbols.len().max(sym.index() + 1), 0);
        }
        if let Some(known) = self.by_symbol.get_mut(sym.index()) {
            *known = code + 1;
        }
        code
    }

    /// The number of a text in this column.
    pub(super) fn code(&mut self, text: &str) -> u32 {
        let bytes = text.as_bytes();
        let glance = bytes.len()
            + 5 * usize::from(bytes.last().copied().unwrap_or_default())
            + usize::from(bytes.first().copied().unwrap_or_default());
        let slot = &mut self.recent[glance % RECENT];
        let sym = match *slot {
            Some(sym) if self.dictionary.text(sym) == text => sym,
            _ => *slot.insert(self.dictionary.intern(text)),
        };
        sym.to_u32() - 1
    }
}

/// Texts that do not repeat, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    /// Where each text ends in `bytes`; it begins where the one before ends.
    ends: Sparse<usize>,
    bytes: Vec<u8>,
}

impl Texts {
    /// Where the next row's text is to be appended.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Makes what was appended since the last call the row's text.
    pub(super) fn close(&mut self, row: u32) {
        self.ends.set(row, self.bytes.len());
    }
}

/// Which rows have a value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Present<'a> {
    /// The first so many, and none after.
    First(usize),
    /// These, in rising order.
    At(&'a [u32]),
}

/// A column as readers see it: the present values, and where they stand.
#[derive(Debug, Clone, Copy)]
pub(crate) enum View<'a> {
    /// Numbers into a dictionary of texts, which [`text_of`] looks up.
    Words(Present<'a>, &'a [u32], &'a Symbols),
    /// Where texts end in the bytes.
    Texts(Present<'a>, &'a [usize], &'a [u8]),
    /// Ids, which the table shows as 16 hex digits.
    Ids(Present<'a>, &'a [u64]),
    /// Whole numbers, also of a column of 32 bits, whose values then fit.
    Ints(Present<'a>, &'a [i64]),
    /// Floats.
    Floats(Present<'a>, &'a [f64]),
    /// Booleans.
    Bools(Present<'a>, &'a [bool]),
}

/// The text of a code of [`View::Words`].
pub(crate) fn text_of(dictionary: &Symbols, code: u32) -> &str {
    Sym::from_u32(code + 1).map_or("", |sym| dictionary.text(sym))
}

/// All columns of the table.
#[derive(Debug, Default)]
pub(crate) struct Cells {
    words: [Words; Word::ALL.len()],
    ids: [Sparse<u64>; Id::ALL.len()],
    ints: [Sparse<i64>; Int::ALL.len()],
    floats: [Sparse<f64>; Float::ALL.len()],
    bools: [Sparse<bool>; Bool::ALL.len()],
    pub(super) attributes: Texts,
    /// Columns of frequent attributes, in the order of their names.
    pub(super) typed: Vec<Typed>,
}

/// The column of one attribute, behind those of the table.
#[derive(Debug)]
pub(crate) struct Typed {
    /// Name of the column.
    pub(super) name: String,
    pub(super) values: TypedValues,
}

/// Values of an attribute that has a column.
#[derive(Debug)]
pub(super) enum TypedValues {
    Bools(Sparse<bool>),
    Ints(Sparse<i64>),
    Floats(Sparse<f64>),
    Words(Box<Words>),
}

impl Typed {
    pub(super) fn new(name: String, kind: Kind) -> Self {
        let values = match kind {
            Kind::Bool => TypedValues::Bools(Sparse::default()),
            Kind::Int => TypedValues::Ints(Sparse::default()),
            Kind::Float => TypedValues::Floats(Sparse::default()),
            Kind::Text => TypedValues::Words(Box::default()),
        };
        Self { name, values }
    }

    pub(super) fn kind(&self) -> Kind {
        match self.values {
            TypedValues::Bools(_) => Kind::Bool,
            TypedValues::Ints(_) => Kind::Int,
            TypedValues::Floats(_) => Kind::Float,
            TypedValues::Words(_) => Kind::Text,
        }
    }

    /// Stores the value; `false` when it has another type or could not be told from the JSON of
    /// the column `attributes`.
    pub(super) fn store(&mut self, value: ValueRef<'_>, row: u32) -> bool {
        match (&mut self.values, value) {
            (TypedValues::Bools(cells), ValueRef::Bool(v)) => cells.set(row, v),
            (TypedValues::Ints(cells), ValueRef::Int(v)) => cells.set(row, v),
            (TypedValues::Floats(cells), ValueRef::Float(v)) if v.is_finite() => cells.set(row, v),
            (TypedValues::Words(words), ValueRef::Str(text)) => words.set(row, text),
            _ => return false,
        }
        true
    }

    fn clear(&mut self) {
        match &mut self.values {
            TypedValues::Bools(cells) => cells.clear(),
            TypedValues::Ints(cells) => cells.clear(),
            TypedValues::Floats(cells) => cells.clear(),
            TypedValues::Words(words) => words.clear(words.dictionary.len() <= KEPT_WORDS),
        }
    }

    fn view(&self) -> View<'_> {
        match &self.values {
            TypedValues::Bools(cells) => View::Bools(cells.present(), &cells.values),
            TypedValues::Ints(cells) => View::Ints(cells.present(), &cells.values),
            TypedValues::Floats(cells) => View::Floats(cells.present(), &cells.values),
            TypedValues::Words(words) => words.view(),
        }
    }
}

/// Types that a column of an attribute may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Int,
    Float,
    Text,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [Self::Bool, Self::Int, Self::Float, Self::Text];

    /// The type of a value; `None` for one that stays in the JSON.
    pub(super) fn of(value: ValueRef<'_>) -> Option<Self> {
        match value {
            ValueRef::Bool(_) => Some(Self::Bool),
            ValueRef::Int(_) => Some(Self::Int),
            ValueRef::Float(v) => v.is_finite().then_some(Self::Float),
            ValueRef::Str(_) => Some(Self::Text),
            ValueRef::List(_) => None,
        }
    }

    pub(super) fn data_type(self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int => DataType::Int64,
            Self::Float => DataType::Float64,
            Self::Text => DataType::Utf8,
        }
    }
}

impl Cells {
    /// Forgets all rows, and keeps the memory. Dictionaries are kept while they are small: what
    /// names a request is different in every segment.
    pub(super) fn clear(&mut self) {
        for (word, _) in Word::ALL {
            let words = &mut self[*word];
            words.clear(words.dictionary.len() <= KEPT_WORDS);
        }
        self.ids.iter_mut().for_each(Sparse::clear);
        self.ints.iter_mut().for_each(Sparse::clear);
        self.floats.iter_mut().for_each(Sparse::clear);
        self.bools.iter_mut().for_each(Sparse::clear);
        self.attributes.ends.clear();
        self.attributes.bytes.clear();
        self.typed.iter_mut().for_each(Typed::clear);
    }

    /// The column of that name; `None` if the table has none.
    pub(crate) fn view(&self, column: &str) -> Option<View<'_>> {
        if let Some(word) = Word::named(column) {
            return Some(self[word].view());
        }
        if let Some(int) = Int::named(column) {
            return Some(View::Ints(self[int].present(), &self[int].values));
        }
        if let Some(id) = Id::named(column) {
            return Some(View::Ids(self[id].present(), &self[id].values));
        }
        if let Some(float) = Float::named(column) {
            return Some(View::Floats(self[float].present(), &self[float].values));
        }
        if let Some(bool) = Bool::named(column) {
            return Some(View::Bools(self[bool].present(), &self[bool].values));
        }
        let Texts { ends, bytes } = &self.attributes;
        if column == ATTRIBUTES {
            return Some(View::Texts(ends.present(), &ends.values, bytes));
        }
        self.typed.iter().find(|typed| typed.name == column).map(Typed::view)
    }
}

/// Names columns of one kind, and finds them in [`Cells`].
macro_rules! columns {
    ($(#[doc = $doc:literal])+ $kind:ident in $field:ident: $cells:ty {
        $($variant:ident = $column:literal,)+
    }) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $kind { $($variant,)+ }

        impl $kind {
            const ALL: &'static [(Self, &'static str)] = &[$((Self::$variant, $column),)+];

            /// The column of that name, if it is of this kind.
            pub(super) fn named(column: &str) -> Option<Self> {
                Self::ALL.iter().find(|(_, name)| *name == column).map(|(kind, _)| *kind)
            }
        }

        impl Index<$kind> for Cells {
            type Output = $cells;

            fn index(&self, column: $kind) -> &$cells {
                &self.$field[column as usize]
            }
        }

        impl IndexMut<$kind> for Cells {
            fn index_mut(&mut self, column: $kind) -> &mut $cells {
                &mut self.$field[column as usize]
            }
        }
    };
}

columns! {
    /// Columns of texts that may repeat.
    Word in words: Words {
        RunId = "run_id",
        TraceId = "trace_id",
        Name = "name",
        Kind = "kind",
        Stage = "stage",
        Status = "status",
        ErrorType = "error_type",
        ErrorMessage = "error_message",
        Service = "service",
        ModelRequest = "model_request",
        ModelResponse = "model_response",
        Provider = "provider",
        Operation = "operation",
        TokensSource = "tokens_source",
        SessionId = "session_id",
        UserId = "user_id",
        RequestId = "request_id",
        InputRef = "input_ref",
        OutputRef = "output_ref",
        Flags = "flags",
        SourceFile = "source_file",
        Target = "target",
        Level = "level",
        Thread = "thread",
        FinishReason = "finish_reason",
        ToolName = "tool_name",
        AgentName = "agent_name",
        SourceRunId = "source_run_id",
        SourceTraceId = "source_trace_id",
        SourceSpanId = "source_span_id",
        StageSource = "stage_source",
    }
}

columns! {
    /// Columns of span ids.
    Id in ids: Sparse<u64> {
        Span = "span_id",
        Parent = "parent_span_id",
    }
}

columns! {
    /// Columns of whole numbers.
    Int in ints: Sparse<i64> {
        Start = "start_unix_ns",
        Duration = "duration_ns",
        Busy = "busy_ns",
        Own = "self_ns",
        FirstToken = "ttft_ns",
        Input = "input_tokens",
        Output = "output_tokens",
        CacheRead = "cache_read_tokens",
        CacheWrite = "cache_write_tokens",
        Reasoning = "reasoning_tokens",
        BatchSize = "batch_size",
        BatchIndex = "batch_index",
        Queue = "queue_ns",
        Retries = "retries",
        TopK = "top_k",
        Documents = "document_count",
        Embeddings = "embedding_count",
        Dimensions = "embedding_dim",
        SourceLine = "source_line",
        MaxTokens = "max_tokens",
        Due = "due_unix_ns",
    }
}

columns! {
    /// Columns of floats.
    Float in floats: Sparse<f64> {
        Cost = "cost_usd",
        Temperature = "temperature",
    }
}

columns! {
    /// Columns of booleans.
    Bool in bools: Sparse<bool> {
        IsErrorOrigin = "is_error_origin",
        TokensCounted = "tokens_counted",
        Stream = "stream",
        CacheHit = "cache_hit",
        IsCall = "is_call",
    }
}

/// The one column whose texts are as a rule all different.
const ATTRIBUTES: &str = "attributes";

/// Slots for words met lately; a power of two well above the words of most columns.
const RECENT: usize = 32;
/// Words of one column that callers may number.
const NUMBERED: usize = 8;
/// A dictionary of more texts is not kept from one segment to the next.
const KEPT_WORDS: usize = 1024;
