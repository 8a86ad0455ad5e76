//! The attribute mapping: names of the wild to columns of `spans`.
//!
//! The table itself is data (`schemas/mapping.toml`). This module reads it and applies it. An
//! attribute that no entry claims, or whose value cannot be read the way the entry says, stays in
//! the column `attributes`: nothing is lost to the mapping.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::LazyLock;

use serde::Deserialize;

use crate::attributes::{Attributes, Value};
use crate::id::Digest;
use crate::tables::SpanRow;

/// The mapping that ships with this build.
pub static BUILT_IN: LazyLock<Mapping> = LazyLock::new(|| {
    match Mapping::parse(include_str!("../mapping.toml")) {
        Ok(mapping) => mapping,
        // The file is a part of this crate and a unit test parses it.
        Err(error) => unreachable!("built-in mapping: {error}"),
    }
});

/// A mapping file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MappingError {
    /// Not TOML, or not of the expected shape.
    #[error("read attribute mapping: {0}")]
    Malformed(#[from] toml::de::Error),
    /// A column that `spans` does not have, or that the mapping cannot set.
    #[error("read attribute mapping: column {column:?} cannot be mapped to")]
    UnknownColumn {
        /// The column as written.
        column: String,
    },
}

/// How a value is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Read {
    /// As text, whatever it is.
    Text,
    /// A whole number.
    Int,
    /// A whole number, never negative.
    Count,
    /// A finite number.
    Float,
    /// A truth value.
    Bool,
    /// Seconds, kept as nanoseconds.
    Seconds,
    /// One of the entry's words.
    Word,
    /// A content, of which the column holds the digest.
    Content,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    #[serde(default)]
    content: Content,
    map: Vec<Entry>,
}

/// Contents without a column of their own.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    #[serde(default)]
    names: HashSet<String>,
    #[serde(default)]
    prefixes: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    column: String,
    read: Read,
    from: Vec<String>,
    #[serde(default)]
    words: BTreeMap<String, String>,
}

/// Where an attribute of some name goes, for callers that resolve a name once and not per span.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Number of the entry. Between names of one entry the lowest precedence wins.
    pub entry: usize,
    /// Position of the name inside the entry, from 0.
    pub precedence: usize,
    /// The column of `spans`.
    pub column: &'a str,
    /// How the value is understood.
    pub read: Read,
    /// For [`Read::Word`]: value as found (lowercase) to value in the column.
    pub words: &'a BTreeMap<String, String>,
}

/// A parsed mapping.
#[derive(Debug)]
pub struct Mapping {
    version: u32,
    content: Content,
    entries: Vec<Entry>,
    /// Attribute name to its places: (entry, precedence inside it). One name may feed several
    /// columns, as `gen_ai.operation.name` does.
    by_name: HashMap<String, Vec<(usize, usize)>>,
}

impl Mapping {
    /// Reads a mapping file.
    ///
    /// # Errors
    /// See [`MappingError`].
    pub fn parse(text: &str) -> Result<Self, MappingError> {
        let file: File = toml::from_str(text)?;
        let mut by_name: HashMap<String, Vec<(usize, usize)>> = HashMap::new();
        for (index, entry) in file.map.iter().enumerate() {
            if slot(&mut SpanRow::default(), &entry.column).is_none() {
                return Err(MappingError::UnknownColumn { column: entry.column.clone() });
            }
            for (precedence, name) in entry.from.iter().enumerate() {
                by_name.entry(name.clone()).or_default().push((index, precedence));
            }
        }
        Ok(Self { version: file.version, content: file.content, entries: file.map, by_name })
    }

    /// Version of the table, kept with what was mapped by it.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Whether the attribute holds content (a prompt, an answer) that the capture policy governs.
    #[must_use]
    pub fn is_content(&self, name: &str) -> bool {
        let has_column = self.by_name.get(name).is_some_and(|places| {
            places.iter().any(|(entry, _)| self.entries[*entry].read == Read::Content)
        });
        has_column
            || self.content.names.contains(name)
            || (!self.by_name.contains_key(name)
                && self.content.prefixes.iter().any(|prefix| name.starts_with(prefix.as_str())))
    }

    /// Whether the text is a kind of span in some convention (`LLM`, `chat`, `workflow`).
    #[must_use]
    pub fn is_kind(&self, text: &str) -> bool {
        self.kind_word(text).is_some()
    }

    /// The kind that attributes give their span, in the words of the column `kind`.
    #[must_use]
    pub fn kind_of(&self, attributes: &Attributes) -> Option<&str> {
        self.best(attributes, "kind", |value| self.kind_word(&value.to_text()))
    }

    /// Whether attributes state a count of input or output tokens.
    #[must_use]
    pub fn has_tokens(&self, attributes: &Attributes) -> bool {
        ["input_tokens", "output_tokens"]
            .iter()
            .any(|column| self.best(attributes, column, Value::as_count).is_some())
    }

    /// The model that answered a call, or that it asked for.
    #[must_use]
    pub fn model_of(&self, attributes: &Attributes) -> Option<String> {
        ["model_response", "model_request"]
            .iter()
            .find_map(|column| self.best(attributes, column, |value| Some(value.to_text())))
    }

    /// The word of the column `kind` for a text of some convention.
    #[must_use]
    pub fn kind_word(&self, text: &str) -> Option<&str> {
        let entry = self.entries.iter().find(|entry| entry.column == "kind")?;
        entry.words.get(&text.to_ascii_lowercase()).map(String::as_str)
    }

    /// What the attribute of highest precedence says about a column.
    fn best<'v, T>(
        &self,
        attributes: &'v Attributes,
        column: &str,
        read: impl Fn(&'v Value) -> Option<T>,
    ) -> Option<T> {
        let mut best: Option<(usize, T)> = None;
        for (name, value) in attributes {
            for place in self.places(name).filter(|place| place.column == column) {
                if best.as_ref().is_none_or(|(held, _)| place.precedence <= *held)
                    && let Some(found) = read(value)
                {
                    best = Some((place.precedence, found));
                }
            }
        }
        best.map(|(_, found)| found)
    }

    /// Where attributes of this name go, in the order of the mapping; nowhere if it has no entry.
    pub fn places<'a>(&'a self, name: &str) -> impl Iterator<Item = Place<'a>> {
        let places = self.by_name.get(name).map(Vec::as_slice).unwrap_or_default();
        places.iter().map(|&(index, precedence)| {
            let Entry { column, read, words, .. } = &self.entries[index];
            Place { entry: index, precedence, column, read: *read, words }
        })
    }

    /// Every attribute name that has an entry, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// The names by which to state columns to others: of each entry its column, its first name, and
    /// how a reader understands the value.
    pub fn first_names(&self) -> impl Iterator<Item = (&str, &str, Read)> {
        self.entries.iter().filter_map(|entry| {
            Some((entry.column.as_str(), entry.from.first()?.as_str(), entry.read))
        })
    }

    /// How many entries there are; every [`Place::entry`] is below it.
    #[must_use]
    pub fn entry_count(&self) -> usize {
        self.entries.len()
    }

    /// Whether the attribute may set one of `columns`. For readers that keep only what they need
    /// of a span until it ends, and apply the mapping then.
    #[must_use]
    pub fn feeds(&self, name: &str, columns: &[&str]) -> bool {
        self.by_name.get(name).into_iter().flatten().any(|(index, _)| {
            self.entries.get(*index).is_some_and(|entry| columns.contains(&entry.column.as_str()))
        })
    }

    /// Moves what the mapping knows from `attributes` into `row`, and the rest into
    /// `row.attributes` as a JSON object in the order of its keys' bytes. Inside one key the latest value wins; between keys of
    /// one column the precedence of the mapping decides.
    pub fn apply(&self, attributes: &Attributes, row: &mut SpanRow) {
        let mut latest: Vec<(&str, &Value)> = Vec::with_capacity(attributes.len());
        for (key, value) in attributes {
            match latest.iter_mut().find(|(seen, _)| *seen == key.as_ref()) {
                Some(entry) => entry.1 = value,
                None => latest.push((key, value)),
            }
        }
        let mut winners: HashMap<usize, usize> = HashMap::new();
        let mut rest = BTreeMap::new();
        for (key, value) in latest {
            let mut is_stored = false;
            for &(index, precedence) in self.by_name.get(key).into_iter().flatten() {
                let wins = winners.get(&index).is_none_or(|held| precedence < *held);
                if wins && store(row, &self.entries[index], value) {
                    winners.insert(index, precedence);
                    is_stored = true;
                }
            }
            if !is_stored {
                rest.insert(key, value.to_json());
            }
        }
        // A map of texts and JSON always encodes.
        row.attributes =
            (!rest.is_empty()).then(|| serde_json::to_string(&rest).unwrap_or_default());
    }
}

/// A place in a row that a mapping may fill.
enum Slot<'a> {
    Word(&'a mut String),
    Text(&'a mut Option<String>),
    Int(&'a mut Option<i64>),
    SmallInt(&'a mut Option<i32>),
    Float(&'a mut Option<f64>),
    Bool(&'a mut Option<bool>),
}

fn slot<'a>(row: &'a mut SpanRow, column: &str) -> Option<Slot<'a>> {
    Some(match column {
        "kind" => Slot::Word(&mut row.kind),
        "stage" => Slot::Word(&mut row.stage),
        "tokens_source" => Slot::Word(&mut row.tokens_source),
        "operation" => Slot::Text(&mut row.operation),
        "provider" => Slot::Text(&mut row.provider),
        "model_request" => Slot::Text(&mut row.model_request),
        "model_response" => Slot::Text(&mut row.model_response),
        "session_id" => Slot::Text(&mut row.session_id),
        "user_id" => Slot::Text(&mut row.user_id),
        "request_id" => Slot::Text(&mut row.request_id),
        "input_ref" => Slot::Text(&mut row.input_ref),
        "output_ref" => Slot::Text(&mut row.output_ref),
        "error_type" => Slot::Text(&mut row.error_type),
        "error_message" => Slot::Text(&mut row.error_message),
        "service" => Slot::Text(&mut row.service),
        "source_file" => Slot::Text(&mut row.source_file),
        "finish_reason" => Slot::Text(&mut row.finish_reason),
        "tool_name" => Slot::Text(&mut row.tool_name),
        "agent_name" => Slot::Text(&mut row.agent_name),
        "source_run_id" => Slot::Text(&mut row.source_run_id),
        "source_trace_id" => Slot::Text(&mut row.source_trace_id),
        "source_span_id" => Slot::Text(&mut row.source_span_id),
        "stage_source" => Slot::Text(&mut row.stage_source),
        "ttft_ns" => Slot::Int(&mut row.ttft_ns),
        "input_tokens" => Slot::Int(&mut row.input_tokens),
        "output_tokens" => Slot::Int(&mut row.output_tokens),
        "cache_read_tokens" => Slot::Int(&mut row.cache_read_tokens),
        "cache_write_tokens" => Slot::Int(&mut row.cache_write_tokens),
        "reasoning_tokens" => Slot::Int(&mut row.reasoning_tokens),
        "batch_size" => Slot::Int(&mut row.batch_size),
        "batch_index" => Slot::Int(&mut row.batch_index),
        "queue_ns" => Slot::Int(&mut row.queue_ns),
        "retries" => Slot::Int(&mut row.retries),
        "top_k" => Slot::Int(&mut row.top_k),
        "document_count" => Slot::Int(&mut row.document_count),
        "embedding_count" => Slot::Int(&mut row.embedding_count),
        "embedding_dim" => Slot::Int(&mut row.embedding_dim),
        "max_tokens" => Slot::Int(&mut row.max_tokens),
        "due_unix_ns" => Slot::Int(&mut row.due_unix_ns),
        "source_line" => Slot::SmallInt(&mut row.source_line),
        "cost_usd" => Slot::Float(&mut row.cost_usd),
        "temperature" => Slot::Float(&mut row.temperature),
        "stream" => Slot::Bool(&mut row.stream),
        "cache_hit" => Slot::Bool(&mut row.cache_hit),
        _ => return None,
    })
}

/// Fills the entry's column from `value`; `false` when the value cannot be read that way.
fn store(row: &mut SpanRow, entry: &Entry, value: &Value) -> bool {
    let number = || match entry.read {
        Read::Int => value.as_int(),
        Read::Seconds => seconds_to_ns(value),
        _ => value.as_count(),
    };
    let text = || match entry.read {
        Read::Word => entry.words.get(&value.to_text().to_ascii_lowercase()).cloned(),
        Read::Content => Some(content_ref(&value.to_text())),
        _ => Some(value.to_text()),
    };
    /// Overwrites `place` when there is something to write.
    fn fill<T, P: From<T>>(place: &mut P, value: Option<T>) -> bool {
        let found = value.is_some();
        if let Some(value) = value {
            *place = P::from(value);
        }
        found
    }
    match slot(row, &entry.column) {
        Some(Slot::Word(place)) => fill(place, text()),
        Some(Slot::Text(place)) => fill(place, text()),
        Some(Slot::Int(place)) => fill(place, number()),
        Some(Slot::SmallInt(place)) => fill(place, number().and_then(|n| i32::try_from(n).ok())),
        Some(Slot::Float(place)) => fill(place, value.as_float()),
        Some(Slot::Bool(place)) => fill(place, value.as_bool()),
        None => false,
    }
}

/// Seconds as nanoseconds; `None` for what cannot be a duration.
#[must_use]
pub fn seconds_to_ns(value: &Value) -> Option<i64> {
    value
        .as_float()
        .filter(|seconds| (0.0..1e9).contains(seconds))
        .map(|seconds| (seconds * 1e9).round() as i64)
}

/// Prefix by which the recorder marks an attribute value that it replaced by its digest.
pub const CONTENT_REF_PREFIX: &str = "blake3:";

/// The digest a content column holds: the recorder has replaced the text by `blake3:<hex>` before
/// it left the application's thread; a text that did not pass the recorder is digested here.
#[must_use]
pub fn content_ref(text: &str) -> String {
    match text.strip_prefix(CONTENT_REF_PREFIX) {
        Some(hex) if hex.parse::<Digest>().is_ok() => hex.to_owned(),
        _ => Digest::of(text.as_bytes()).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(attributes: &[(&'static str, Value)]) -> SpanRow {
        let mut row = SpanRow::default();
        let attributes = attributes.iter().map(|(k, v)| ((*k).into(), v.clone())).collect();
        BUILT_IN.apply(&attributes, &mut row);
        row
    }

    #[test]
    fn the_built_in_mapping_parses() {
        assert_eq!(BUILT_IN.version(), 2);
    }

    #[test]
    fn current_names_win_over_former_ones_in_any_order() {
        let row = apply(&[
            ("gen_ai.usage.prompt_tokens", 7_i64.into()),
            ("gen_ai.usage.input_tokens", "23".into()),
        ]);
        assert_eq!(row.input_tokens, Some(23));
        let row = apply(&[
            ("gen_ai.usage.input_tokens", 0_i64.into()),
            ("gen_ai.usage.prompt_tokens", 7_i64.into()),
        ]);
        assert_eq!(row.input_tokens, Some(0), "a true 0 is a count");
    }

    #[test]
    fn values_that_cannot_be_read_stay_visible() {
        let row = apply(&[("gen_ai.usage.input_tokens", (-4_i64).into()), ("x", "y".into())]);
        assert_eq!(row.input_tokens, None);
        assert_eq!(row.attributes.as_deref(), Some(r#"{"gen_ai.usage.input_tokens":-4,"x":"y"}"#));
    }

    #[test]
    fn kinds_of_all_conventions_become_one_vocabulary() {
        assert_eq!(apply(&[("openinference.span.kind", "LLM".into())]).kind, "llm");
        assert_eq!(apply(&[("gen_ai.operation.name", "embeddings".into())]).kind, "embedding");
        assert_eq!(apply(&[("traceloop.span.kind", "workflow".into())]).kind, "chain");
    }

    #[test]
    fn seconds_become_nanoseconds() {
        let row = apply(&[("gen_ai.response.time_to_first_chunk", 0.0375.into())]);
        assert_eq!(row.ttft_ns, Some(37_500_000));
    }

    #[test]
    fn content_columns_hold_the_digest_of_the_text() {
        let digest = Digest::of(b"why?").to_string();
        assert_eq!(apply(&[("input.value", "why?".into())]).input_ref, Some(digest.clone()));
        let by_ref = format!("{CONTENT_REF_PREFIX}{digest}");
        assert_eq!(apply(&[("input.value", by_ref.into())]).input_ref, Some(digest));
    }

    #[test]
    fn an_attribute_is_known_by_the_columns_it_may_set() {
        for name in ["gen_ai.usage.input_tokens", "llm.token_count.prompt"] {
            assert!(BUILT_IN.feeds(name, &["input_tokens", "stage"]), "{name}");
            assert!(!BUILT_IN.feeds(name, &["output_tokens"]), "{name}");
        }
        assert!(!BUILT_IN.feeds("app.tokens", &["input_tokens"]));
    }

    #[test]
    fn a_column_is_stated_by_the_name_that_wins_when_it_is_read() {
        let names: Vec<_> = BUILT_IN.first_names().collect();
        assert_eq!(names.len(), BUILT_IN.entry_count());
        assert!(names.contains(&("input_tokens", "gen_ai.usage.input_tokens", Read::Count)));
        for (column, name, _) in names {
            let place = BUILT_IN.places(name).find(|place| place.column == column);
            assert_eq!(place.map(|place| place.precedence), Some(0), "{name}");
        }
    }

    #[test]
    fn a_mapping_to_an_unknown_column_is_refused() {
        let text = "version = 1\n[[map]]\ncolumn = \"nope\"\nread = \"text\"\nfrom = [\"a\"]\n";
        assert!(matches!(Mapping::parse(text), Err(MappingError::UnknownColumn { .. })));
    }
}
