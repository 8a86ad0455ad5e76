//! OpenTelemetry's trace requests, of which the run could have been recorded.
//!
//! Ids, times, parents, and status are as they came. Columns become attributes by the first name
//! that `schemas/mapping.toml` has for them, so whoever reads them by that table gets the same
//! columns. Tokens and log lines become events of their spans. Left out are resource samples, which
//! belong into metrics, and what belongs to no span of the run.

mod attributes;
mod json;
mod model;
mod protobuf;

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};

use retake_schemas::tables::{DocumentRow, EventRow, TableName, TokenRow};

use super::source::{Catalog, Gatherer, Item, Source, TraceRows};
use super::texts::Texts;
use super::{ExportError, ExportSummary, OtlpFraming, Outline};
use crate::reader::RunReader;
use attributes::Wording;
use model::{Group, Span};

/// Writes requests.
pub(super) struct Requests<'a, W> {
    out: &'a mut W,
    framing: OtlpFraming,
    run: &'a RunReader,
    /// Encoded spans by service and scope, until they are a request.
    groups: BTreeMap<String, BTreeMap<String, Vec<Vec<u8>>>>,
    spans_held: usize,
    bytes_held: usize,
    has_requests: bool,
    summary: ExportSummary,
}

impl<'a, W: Write> Requests<'a, W> {
    pub(super) fn new(
        out: &'a mut W,
        framing: OtlpFraming,
        outline: &Outline<'a>,
    ) -> Result<Self, ExportError> {
        if framing == OtlpFraming::JsonBody {
            out.write_all(json::BODY_START).map_err(ExportError::Write)?;
        }
        Ok(Self {
            out,
            framing,
            run: outline.run,
            groups: BTreeMap::new(),
            spans_held: 0,
            bytes_held: 0,
            has_requests: false,
            summary: ExportSummary::default(),
        })
    }

    /// Writes the whole run.
    pub(super) fn write(
        mut self,
        source: &Source<'_>,
        catalog: Catalog,
        mut texts: Option<Texts>,
        on_rows: &mut dyn FnMut(u64),
    ) -> Result<ExportSummary, ExportError> {
        Gatherer::new(source, catalog, on_rows).run(&mut |_, item| match item {
            Item::Trace(_, rows) => self.trace(&rows, texts.as_mut()),
            Item::Event(_) => {
                self.summary.left_out += 1;
                Ok(())
            }
        })?;
        self.flush()?;
        if self.framing == OtlpFraming::JsonBody {
            self.out.write_all(json::BODY_END).map_err(ExportError::Write)?;
        }
        let mut measures = source.batches(TableName::Measures, &["time_unix_ns"]);
        while let Some(batch) = measures.next()? {
            self.summary.left_out += batch.num_rows() as u64;
            on_rows(batch.num_rows() as u64);
        }
        Ok(self.summary)
    }

    fn trace(
        &mut self,
        rows: &TraceRows,
        mut texts: Option<&mut Texts>,
    ) -> Result<(), ExportError> {
        let family = Family::new(rows);
        let own = &self.run.manifest().facts.service;
        for row in &rows.spans {
            let mut wording = Wording { row, texts: texts.as_deref_mut() };
            let span = wording.span(&family)?;
            let encoded = self.encode(&span);
            self.bytes_held += encoded.len();
            self.spans_held += 1;
            self.summary.spans += 1;
            self.summary.instants += span.events.len() as u64;
            let service = row.service.clone().unwrap_or_else(|| own.clone());
            let scope = row.target.clone().unwrap_or_default();
            self.groups.entry(service).or_default().entry(scope).or_default().push(encoded);
            if self.spans_held >= REQUEST_SPANS_MAX || self.bytes_held >= REQUEST_BYTES_MAX {
                self.flush()?;
            }
        }
        self.summary.traces += u64::from(!rows.spans.is_empty());
        self.summary.left_out += family.strangers;
        Ok(())
    }

    fn encode(&self, span: &Span<'_>) -> Vec<u8> {
        match self.framing {
            OtlpFraming::JsonLines | OtlpFraming::JsonBody => json::span(span),
            OtlpFraming::ProtobufDelimited | OtlpFraming::ProtobufBody => protobuf::span(span),
        }
    }

    /// Writes what is held as a request.
    fn flush(&mut self) -> Result<(), ExportError> {
        let groups = std::mem::take(&mut self.groups);
        (self.spans_held, self.bytes_held) = (0, 0);
        if groups.is_empty() {
            return Ok(());
        }
        let groups: Vec<Group<'_>> = groups
            .iter()
            .map(|(service, scopes)| Group {
                resource: attributes::resource(self.run, service),
                scopes,
            })
            .collect();
        self.send(&groups).map_err(ExportError::Write)?;
        self.has_requests = true;
        Ok(())
    }

    fn send(&mut self, groups: &[Group<'_>]) -> io::Result<()> {
        match self.framing {
            OtlpFraming::JsonLines => {
                self.out.write_all(json::BODY_START)?;
                self.out.write_all(&json::resource_spans(groups))?;
                self.out.write_all(json::BODY_END)
            }
            OtlpFraming::JsonBody => {
                self.out.write_all(if self.has_requests { b"," } else { b"" })?;
                self.out.write_all(&json::resource_spans(groups))
            }
            OtlpFraming::ProtobufDelimited => {
                let request = protobuf::request(groups);
                let length = u32::try_from(request.len()).map_err(io::Error::other)?;
                self.out.write_all(&length.to_be_bytes())?;
                self.out.write_all(&request)
            }
            // Messages that are written one after the other are one message with all of their
            // repeated fields.
            OtlpFraming::ProtobufBody => self.out.write_all(&protobuf::request(groups)),
        }
    }
}

/// What belongs to the spans of a trace, by span.
struct Family<'a> {
    tokens: HashMap<&'a str, Vec<&'a TokenRow>>,
    events: HashMap<&'a str, Vec<&'a EventRow>>,
    documents: HashMap<&'a str, Vec<&'a DocumentRow>>,
    /// Tokens and log lines of no span.
    strangers: u64,
}

impl<'a> Family<'a> {
    fn new(rows: &'a TraceRows) -> Self {
        let mut family = Self {
            tokens: HashMap::new(),
            events: HashMap::new(),
            documents: HashMap::new(),
            strangers: 0,
        };
        let known: std::collections::HashSet<&str> =
            rows.spans.iter().map(|span| span.span_id.as_str()).collect();
        for row in &rows.tokens {
            match known.get(row.span_id.as_str()) {
                Some(span) => family.tokens.entry(span).or_default().push(row),
                None => family.strangers += 1,
            }
        }
        for row in &rows.events {
            match row.span_id.as_deref().and_then(|span| known.get(span)) {
                Some(span) => family.events.entry(span).or_default().push(row),
                None => family.strangers += 1,
            }
        }
        for row in &rows.documents {
            family.documents.entry(row.span_id.as_str()).or_default().push(row);
        }
        family
    }
}

/// Spans in a request, as many as OpenTelemetry's own batch processors send.
const REQUEST_SPANS_MAX: usize = 512;
/// Bytes of encoded spans in a request: receivers take 4 MiB (gRPC's limit) and more.
const REQUEST_BYTES_MAX: usize = 1 << 20;
