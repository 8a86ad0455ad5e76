//! Columns to attributes: `schemas/mapping.toml` read backwards, and what it does not say.

use std::sync::LazyLock;

use retake_schemas::convention;
use retake_schemas::mapping::{BUILT_IN, CONTENT_REF_PREFIX, Mapping, Read};
use retake_schemas::tables::{CellRef, DocumentRow, EventRow, Row as _, SpanRow, TokenRow};
use serde_json::{Map, Value, json};

use super::super::ExportError;
use super::super::cells;
use super::super::texts::{Texts, resolve};
use super::Family;
use super::model::{AnyValue, Event, KeyValue, Span, SpanKind};
use crate::columns::stage_of_kind;
use crate::reader::{ReadError, RunReader};

/// A span's row, to be put into OpenTelemetry's words.
pub(super) struct Wording<'a, 'b> {
    pub(super) row: &'a SpanRow,
    pub(super) texts: Option<&'b mut Texts>,
}

/// A column that the mapping has a name for.
struct Said {
    position: usize,
    column: &'static str,
    name: &'static str,
    read: Read,
}

static SAID: LazyLock<Vec<Said>> = LazyLock::new(|| {
    let said = |(column, name, read)| {
        Some(Said { position: cells::position(column)?, column, name, read })
    };
    BUILT_IN.first_names().filter_map(said).collect()
});

impl<'a> Wording<'a, '_> {
    /// The whole span.
    pub(super) fn span(&mut self, family: &Family<'a>) -> Result<Span<'a>, ExportError> {
        let row = self.row;
        let id = row.span_id.as_str();
        let mut attributes = self.columns()?;
        let kind = self.rest(&mut attributes)?;
        self.documents(family.documents.get(id).map_or(&[], Vec::as_slice), &mut attributes)?;
        self.own(&mut attributes);
        let end = row.start_unix_ns.saturating_add(row.duration_ns.max(0));
        Ok(Span {
            trace_id: row.trace_id.parse().map_err(malformed)?,
            span_id: row.span_id.parse().map_err(malformed)?,
            parent_span_id: row
                .parent_span_id
                .as_deref()
                .map(str::parse)
                .transpose()
                .map_err(malformed)?,
            name: &row.name,
            kind: kind.unwrap_or(SpanKind::Internal),
            start_time_unix_nano: unix_nano(row.start_unix_ns),
            end_time_unix_nano: unix_nano(end),
            attributes,
            events: self.events(
                family.tokens.get(id).map_or(&[], Vec::as_slice),
                family.events.get(id).map_or(&[], Vec::as_slice),
            )?,
            error: (row.status == "error").then(|| row.error_message.as_deref().unwrap_or("")),
        })
    }

    /// What the mapping has a name for.
    fn columns(&mut self) -> Result<Vec<KeyValue>, ExportError> {
        let mut attributes = Vec::new();
        let cells = self.row.cells();
        for Said { position, column, name, read } in SAID.iter() {
            let Some(value) = cells.get(*position).copied().flatten() else { continue };
            let value = match (*column, *read, value) {
                // The resource says it, and the status.
                ("service" | "error_message", ..) => continue,
                ("kind", ..) if self.is_kind_said() => continue,
                ("stage", ..) if self.is_stage_said() => continue,
                // A word that no reader would know: what stands there when nobody said.
                (_, Read::Word, CellRef::Text(word)) if !is_word(&BUILT_IN, name, word) => continue,
                (_, Read::Content, CellRef::Text(digest)) => {
                    attributes.push(self.content(name, digest)?);
                    continue;
                }
                ("finish_reason", _, CellRef::Text(reasons)) => {
                    AnyValue::Array(reasons.split(',').map(AnyValue::from).collect())
                }
                (_, Read::Seconds, CellRef::Int(ns)) => AnyValue::Double(ns as f64 / 1e9),
                (_, _, value) => any(value),
            };
            attributes.push(((*name).to_owned(), value));
        }
        Ok(attributes)
    }

    /// Whether the operation says the kind, or there is none.
    fn is_kind_said(&self) -> bool {
        let row = self.row;
        let operation = row.operation.as_deref().unwrap_or_default().to_ascii_lowercase();
        let by_operation = BUILT_IN
            .places("gen_ai.operation.name")
            .find(|place| place.column == "kind")
            .and_then(|place| place.words.get(&operation));
        by_operation.is_some_and(|kind| *kind == row.kind)
    }

    /// Whether a reader finds the stage without being told.
    fn is_stage_said(&self) -> bool {
        self.row.stage == stage_of_kind(&self.row.kind).unwrap_or(&self.row.name)
    }

    /// A text, or in its place its digest. A list of messages stands under its own name; a plain
    /// text, or a digest, under the name that any text may stand under.
    fn content(&mut self, name: &str, digest: &str) -> Result<KeyValue, ExportError> {
        let text = match self.texts.as_deref_mut() {
            Some(texts) => texts.get(digest)?,
            None => None,
        };
        let text = text.unwrap_or_else(|| format!("{CONTENT_REF_PREFIX}{digest}"));
        let is_list = matches!(serde_json::from_str(&text), Ok(Value::Array(_)));
        let plain = match name {
            "gen_ai.input.messages" => "input.value",
            "gen_ai.output.messages" => "output.value",
            name => name,
        };
        let is_taken = self.row.attributes.as_deref().is_some_and(|json| json.contains(plain));
        let name = if is_list || is_taken { name } else { plain };
        Ok((name.to_owned(), text.into()))
    }

    /// The attributes without a column, and among them the span's kind.
    fn rest(&mut self, out: &mut Vec<KeyValue>) -> Result<Option<SpanKind>, ExportError> {
        let mut kind = None;
        for (key, value) in object(self.row.attributes.as_deref()) {
            if key == convention::OTEL_KIND {
                kind = value.as_str().and_then(span_kind);
                if kind.is_some() {
                    continue;
                }
            }
            // Keys are unique in OTLP; a column is what retake made of several.
            if !out.iter().any(|(known, _)| *known == key) {
                let value = self.resolved(value)?;
                out.push((key, value));
            }
        }
        Ok(kind)
    }

    fn resolved(&mut self, value: Value) -> Result<AnyValue, ExportError> {
        let text = match &value {
            Value::String(text) => resolve(self.texts.as_deref_mut(), text)?,
            _ => None,
        };
        Ok(text.map_or_else(|| AnyValue::from(value), AnyValue::from))
    }

    /// What OpenTelemetry has no field for.
    fn own(&self, out: &mut Vec<KeyValue>) {
        let row = self.row;
        let mut put = |key: &str, value: Option<AnyValue>| {
            if let Some(value) = value.filter(|_| !out.iter().any(|(known, _)| known == key)) {
                out.push((key.to_owned(), value));
            }
        };
        put("thread.name", row.thread.as_deref().map(AnyValue::from));
        // Severity and busy time under the names tracing-opentelemetry gives them.
        let level = row.level.as_deref().filter(|level| *level != "info");
        put("level", level.map(AnyValue::from));
        put("busy_ns", row.busy_ns.map(AnyValue::from));
        put("retake.cancelled", (row.status == "cancelled").then_some(AnyValue::Bool(true)));
        put("retake.unfinished", (row.status == "unfinished").then_some(AnyValue::Bool(true)));
        put("retake.flags", row.flags.as_deref().map(AnyValue::from));
    }

    fn documents(
        &mut self,
        rows: &[&DocumentRow],
        out: &mut Vec<KeyValue>,
    ) -> Result<(), ExportError> {
        for (role, name) in [
            ("retrieved", "gen_ai.retrieval.documents"),
            ("batch_member", "retake.batch.documents"),
        ] {
            let mut of_role = Vec::new();
            for row in rows.iter().filter(|row| row.role == role) {
                of_role.push(Value::Object(self.document(row)?));
            }
            if !of_role.is_empty() {
                out.push((name.to_owned(), Value::Array(of_role).to_string().into()));
            }
        }
        for (role, name) in [
            ("rerank_input", "reranker.input_documents"),
            ("rerank_output", "reranker.output_documents"),
        ] {
            for (rank, row) in rows.iter().filter(|row| row.role == role).enumerate() {
                for (field, value) in self.document(row)? {
                    out.push((format!("{name}.{rank}.document.{field}"), value.into()));
                }
            }
        }
        Ok(())
    }

    fn document(&mut self, row: &DocumentRow) -> Result<Map<String, Value>, ExportError> {
        let mut object = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            object.extend(value.map(|value| (name.to_owned(), value)));
        };
        put("id", Some(json!(row.document_id)));
        put("score", row.score.filter(|score| score.is_finite()).map(Value::from));
        put("source", row.source.clone().map(Value::from));
        put("start_char", row.start_char.map(Value::from));
        put("end_char", row.end_char.map(Value::from));
        if let Some(digest) = &row.content_ref {
            let text = match self.texts.as_deref_mut() {
                Some(texts) => texts.get(digest)?,
                None => None,
            };
            put(
                "content",
                Some(text.map_or(json!(format!("{CONTENT_REF_PREFIX}{digest}")), Value::from)),
            );
        }
        Ok(object)
    }

    fn events(
        &mut self,
        tokens: &[&'a TokenRow],
        lines: &[&'a EventRow],
    ) -> Result<Vec<Event<'a>>, ExportError> {
        let mut events: Vec<(i64, Event<'a>)> = Vec::with_capacity(tokens.len() + lines.len());
        for token in tokens {
            let attributes = vec![
                ("retake.token.index".to_owned(), token.token_index.into()),
                ("retake.token.count".to_owned(), token.token_count.into()),
            ];
            let time_unix_nano = unix_nano(token.time_unix_ns);
            let event = Event { time_unix_nano, name: TOKEN_EVENT, attributes };
            events.push((token.time_unix_ns, event));
        }
        for line in lines {
            let mut attributes = Vec::new();
            for (key, value) in object(line.attributes.as_deref()) {
                let value = self.resolved(value)?;
                attributes.push((key, value));
            }
            let mut put = |key: &str, value: Option<&str>| {
                let is_said = attributes.iter().any(|(known, _)| known == key);
                if let Some(value) = value.filter(|_| !is_said) {
                    attributes.push((key.to_owned(), value.into()));
                }
            };
            put("message", line.message.as_deref());
            put("level", Some(line.level.as_str()).filter(|level| *level != "info"));
            let target = Some(line.target.as_str()).filter(|target| !target.is_empty());
            put("target", target.filter(|target| self.row.target.as_deref() != Some(target)));
            let time_unix_nano = unix_nano(line.time_unix_ns);
            events
                .push((line.time_unix_ns, Event { time_unix_nano, name: &line.name, attributes }));
        }
        events.sort_by_key(|(time, _)| *time);
        Ok(events.into_iter().map(|(_, event)| event).collect())
    }
}

/// What is known of where spans of a service come from. Host and process are the run's, so only
/// its own service has them.
pub(super) fn resource(run: &RunReader, service: &str) -> Vec<KeyValue> {
    let manifest = run.manifest();
    let facts = &manifest.facts;
    let mut attributes: Vec<KeyValue> = Vec::new();
    let mut put = |key: &str, value: AnyValue| {
        if value != AnyValue::Text(String::new()) {
            attributes.push((key.to_owned(), value));
        }
    };
    put("service.name", service.into());
    put("retake.run", facts.name.as_str().into());
    put("retake.run_id", manifest.run_id.as_str().into());
    if service == facts.service {
        put("service.version", facts.service_version.as_deref().unwrap_or_default().into());
        put("host.name", facts.host.name.as_str().into());
        put("os.description", facts.host.os.as_str().into());
        put("host.cpu.model.name", facts.host.cpu.as_str().into());
        if facts.host.pid > 0 {
            put("process.pid", i64::from(facts.host.pid).into());
        }
        put("vcs.ref.head.revision", facts.git_sha.as_deref().unwrap_or_default().into());
        put("vcs.ref.head.name", facts.git_branch.as_deref().unwrap_or_default().into());
    }
    attributes
}

fn object(json: Option<&str>) -> Map<String, Value> {
    match json.map(serde_json::from_str) {
        Some(Ok(Value::Object(object))) => object,
        // Not an object, which no writer of ours makes; kept as it is rather than lost.
        Some(_) => Map::from_iter([("attributes".to_owned(), json.unwrap_or_default().into())]),
        None => Map::new(),
    }
}

fn any(value: CellRef<'_>) -> AnyValue {
    match value {
        CellRef::Bool(value) => AnyValue::Bool(value),
        CellRef::Int(value) => AnyValue::Int(value),
        CellRef::Float(value) if value.is_finite() => AnyValue::Double(value),
        // JSON has no such numbers.
        CellRef::Float(value) => AnyValue::Text(value.to_string()),
        CellRef::Text(text) => AnyValue::from(text),
    }
}

fn is_word(mapping: &Mapping, name: &str, word: &str) -> bool {
    mapping.places(name).any(|place| place.words.get(word).is_some_and(|read| read == word))
}

fn span_kind(text: &str) -> Option<SpanKind> {
    Some(match text.to_ascii_lowercase().as_str() {
        "internal" => SpanKind::Internal,
        "server" => SpanKind::Server,
        "client" => SpanKind::Client,
        "producer" => SpanKind::Producer,
        "consumer" => SpanKind::Consumer,
        _ => return None,
    })
}

/// Times before the epoch do not exist in OTLP.
fn unix_nano(time_unix_ns: i64) -> u64 {
    u64::try_from(time_unix_ns).unwrap_or(0)
}

fn malformed(error: retake_schemas::id::IdError) -> ExportError {
    let source = arrow::error::ArrowError::ExternalError(Box::new(error));
    let table = retake_schemas::tables::TableName::Spans;
    ReadError::Table { table, source }.into()
}

/// The name that streaming instrumentations give a chunk's event.
const TOKEN_EVENT: &str = "gen_ai.content.completion.chunk";
