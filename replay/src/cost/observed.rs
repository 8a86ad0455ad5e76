//! What a recorded run says about its work: the calls of each stage, and what documents and requests
//! took. Plans, fits, and measurements of a sweep all read a run through this.

use std::collections::{BTreeMap, HashMap};

use retake_recorder::RunReader;
use retake_recorder::reader::ReadError;
use retake_schemas::convention;
use retake_schemas::settings::{PricedTokens, Prices};
use retake_schemas::tables::{DocumentRow, PayloadRow, SpanRow};
use serde_json::Value as Json;

/// A run's work.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Observed {
    /// Settings in force.
    pub settings: BTreeMap<String, Json>,
    /// Ingests, in order.
    pub ingests: Vec<IngestRecord>,
    /// Every other operation, in order.
    pub queries: Vec<QueryRecord>,
    /// Calls of each stage of [`stage_of`], in order of their start.
    pub stages: BTreeMap<&'static str, Vec<Call>>,
    /// From the first operation's start to the last one's end, ns.
    pub wall_ns: i64,
}

/// One call of a stage.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Call {
    /// Items in it: texts of an embedding call, rows of an insert, else 1.
    pub items: i64,
    /// How long it took, ns.
    pub duration_ns: i64,
    /// Whether it succeeded.
    pub is_ok: bool,
    /// Input tokens, as far as counted.
    pub input_tokens: Option<i64>,
    /// Output tokens, as far as counted.
    pub output_tokens: Option<i64>,
    /// Cost, US dollars: recorded, or by the prices.
    pub cost_usd: Option<f64>,
    /// Model asked.
    pub model: Option<String>,
    /// Whether its answer was kept whole.
    pub has_answer: bool,
}

/// One ingest.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct IngestRecord {
    /// Whether it succeeded.
    pub is_ok: bool,
    /// Its whole time, ns.
    pub duration_ns: i64,
    /// Before its first document: walking the folders, opening the collection, ns.
    pub before_ns: i64,
    /// After its last commit: building the index, ns.
    pub after_ns: i64,
    /// Its documents, in the order in which they were loaded.
    pub documents: Vec<DocumentWork>,
    /// Texts that were embedded.
    pub embedded: i64,
    /// Folders and files it read, if its input was kept.
    pub roots: Vec<std::path::PathBuf>,
}

/// What a document took before its chunks could be embedded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DocumentWork {
    /// Reading it and cutting it up, ns.
    pub prepare_ns: i64,
    /// Its chunks; `None` when it was not cut up, because it was unchanged or unreadable.
    pub chunks: Option<u32>,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct QueryRecord {
    /// Span of the operation it repeats, else its own: the same in every replay of a run.
    pub key: String,
    /// Whether it succeeded.
    pub is_ok: bool,
    /// Its own time, ns.
    pub duration_ns: i64,
    /// From the time it was due to its end, ns; without a due time, its own time.
    pub from_due_ns: i64,
    /// Start, ns since the Unix epoch.
    pub start_unix_ns: i64,
    /// The question, if the input was kept.
    pub question: Option<String>,
    /// Digest of its answer.
    pub answer: Option<String>,
    /// What the model was given, best first.
    pub passages: Vec<Passage>,
    /// Time of its language-model calls, ns.
    pub llm_ns: i64,
    /// Tokens of its language-model calls, as far as counted.
    pub llm_input_tokens: Option<i64>,
    /// Bytes of the prompt, if it was kept.
    pub prompt_bytes: Option<i64>,
}

/// A retrieved piece of a document.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Passage {
    /// Its id.
    pub id: String,
    /// The document.
    pub document: String,
    /// Where it begins, in characters.
    pub start_char: i64,
    /// Where it ends.
    pub end_char: i64,
    /// Length of its text, bytes, if it was kept.
    pub bytes: Option<i64>,
}

/// The stage of a plan that a span is of. Embedding a question is another stage than embedding a
/// batch of chunks: other settings reach it.
fn stage_of(span: &SpanRow, is_ingest: bool) -> Option<&'static str> {
    Some(match span.stage.as_str() {
        "load" => "load",
        "chunk" => "chunk",
        "embed" if is_ingest => "embed",
        "embed" => "embed_query",
        "insert" => "insert",
        "index" => "index",
        "retrieve" => "retrieve",
        "rerank" => "rerank",
        _ if span.kind == "llm" && span.is_call != Some(false) => "llm",
        _ => return None,
    })
}

impl Observed {
    /// Reads a run.
    ///
    /// # Errors
    /// The run cannot be read.
    pub fn of(reader: &RunReader, prices: &Prices) -> Result<Self, ReadError> {
        let payloads: HashMap<String, PayloadRow> =
            reader.rows::<PayloadRow>()?.into_iter().map(|p| (p.digest.clone(), p)).collect();
        let mut traces: BTreeMap<String, Trace> = BTreeMap::new();
        let mut spans = reader.rows::<SpanRow>()?;
        spans.sort_by(|a, b| (a.start_unix_ns, &a.span_id).cmp(&(b.start_unix_ns, &b.span_id)));
        for span in spans {
            let trace = traces.entry(span.trace_id.clone()).or_default();
            match (&span.parent_span_id, attribute(&span, convention::OPERATION_KIND)) {
                (None, Some(kind)) if trace.root.is_none() => {
                    trace.is_ingest = kind == "ingest";
                    trace.root = Some(span);
                }
                _ => trace.spans.push(span),
            }
        }
        for document in reader.rows::<DocumentRow>()? {
            if let Some(trace) = traces.get_mut(&document.trace_id) {
                trace.documents.push(document);
            }
        }
        let mut found =
            Self { settings: reader.manifest().facts.settings.clone(), ..Self::default() };
        let mut traces: Vec<Trace> = traces.into_values().collect();
        traces.sort_by_key(|trace| trace.root.as_ref().map_or(0, |root| root.start_unix_ns));
        let (mut first, mut last) = (i64::MAX, i64::MIN);
        for trace in &traces {
            let Some(root) = &trace.root else { continue };
            first = first.min(root.start_unix_ns);
            last = last.max(root.start_unix_ns + root.duration_ns);
            if trace.is_ingest {
                found.ingests.push(trace.ingest(root, &payloads));
            } else {
                found.queries.push(trace.query(root, &payloads));
            }
        }
        found.wall_ns = last.saturating_sub(first).max(0);
        for trace in &traces {
            for span in trace.root.iter().chain(&trace.spans) {
                if let Some(stage) = stage_of(span, trace.is_ingest) {
                    found.stages.entry(stage).or_default().push(call(span, &payloads, prices));
                }
            }
        }
        Ok(found)
    }

    /// Successful calls of a stage as sizes and times, for a fit.
    #[must_use]
    pub fn points(&self, stage: &str) -> Vec<(f64, f64)> {
        let calls = self.stages.get(stage).into_iter().flatten();
        calls.filter(|c| c.is_ok).map(|c| (c.items as f64, c.duration_ns as f64)).collect()
    }

    /// Chunks of all ingests, as far as their documents were cut up.
    #[must_use]
    pub fn chunks(&self) -> i64 {
        let documents = self.ingests.iter().flat_map(|ingest| &ingest.documents);
        documents.map(|document| i64::from(document.chunks.unwrap_or(0))).sum()
    }

    /// A numeric setting.
    #[must_use]
    pub fn number(&self, setting: &str) -> Option<f64> {
        self.settings.get(setting).and_then(Json::as_f64)
    }
}

#[derive(Default)]
struct Trace {
    root: Option<SpanRow>,
    is_ingest: bool,
    spans: Vec<SpanRow>,
    documents: Vec<DocumentRow>,
}

impl Trace {
    fn ingest(&self, root: &SpanRow, payloads: &HashMap<String, PayloadRow>) -> IngestRecord {
        let of = |stage: &'static str| self.spans.iter().filter(move |span| span.stage == stage);
        let end = |span: &SpanRow| span.start_unix_ns + span.duration_ns;
        let cut: HashMap<String, (i64, Option<u32>)> = of("chunk")
            .filter(|span| span.status == "ok")
            .filter_map(|span| {
                let chunks = span.document_count.and_then(|n| u32::try_from(n).ok());
                Some((attribute(span, "document.id")?, (span.duration_ns, chunks)))
            })
            .collect();
        let documents = of("load")
            .map(|span| {
                let chunk = attribute(span, "document.id").and_then(|id| cut.get(&id).copied());
                DocumentWork {
                    prepare_ns: span.duration_ns + chunk.map_or(0, |(ns, _)| ns),
                    chunks: chunk.and_then(|(_, chunks)| chunks),
                }
            })
            .collect();
        let first = of("load").map(|span| span.start_unix_ns).min().unwrap_or(root.start_unix_ns);
        let last = of("insert").map(end).max().unwrap_or_else(|| end(root));
        let input = root.input_ref.as_ref().and_then(|digest| payloads.get(digest));
        let input = input.and_then(|payload| payload.content.as_deref());
        let input: Json =
            input.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let roots = input.get("roots").and_then(Json::as_array).into_iter().flatten();
        IngestRecord {
            is_ok: root.status == "ok",
            duration_ns: root.duration_ns,
            before_ns: (first - root.start_unix_ns).max(0),
            after_ns: (end(root) - last).max(0),
            documents,
            embedded: of("embed").filter_map(|span| span.batch_size).sum(),
            roots: roots.filter_map(|root| Some(root.as_str()?.into())).collect(),
        }
    }

    fn query(&self, root: &SpanRow, payloads: &HashMap<String, PayloadRow>) -> QueryRecord {
        let bytes =
            |digest: &Option<String>| payloads.get(digest.as_ref()?).map(|payload| payload.bytes);
        let end = root.start_unix_ns + root.duration_ns;
        let llm = || {
            let all = self.spans.iter().chain([root]);
            all.filter(|span| stage_of(span, false) == Some("llm"))
        };
        // The reranker's list is what the model saw; without one, the search's.
        let role = ["rerank_output", "retrieved"]
            .into_iter()
            .find(|role| self.documents.iter().any(|document| document.role == *role));
        let mut given: Vec<&DocumentRow> =
            self.documents.iter().filter(|document| Some(document.role.as_str()) == role).collect();
        given.sort_by_key(|document| document.rank);
        let text_of = |id: &str| {
            let with_text =
                self.documents.iter().find(|d| d.document_id == id && d.content_ref.is_some());
            with_text.and_then(|document| bytes(&document.content_ref))
        };
        let passages = given
            .into_iter()
            .map(|document| Passage {
                id: document.document_id.clone(),
                document: document.source.clone().unwrap_or_default(),
                start_char: document.start_char.unwrap_or(0),
                end_char: document.end_char.unwrap_or(0),
                bytes: text_of(&document.document_id),
            })
            .collect();
        let question = root.input_ref.as_ref().and_then(|digest| payloads.get(digest));
        let question = question.and_then(|payload| payload.content.as_deref());
        let asked: Option<Json> = question.and_then(|text| serde_json::from_str(text).ok());
        let question = match asked {
            Some(Json::Object(asked)) => {
                asked.get("question").and_then(Json::as_str).map(str::to_owned)
            }
            // What a program from outside was asked may be the question itself.
            _ => question.map(str::to_owned),
        };
        QueryRecord {
            key: root.source_span_id.clone().unwrap_or_else(|| root.span_id.clone()),
            is_ok: root.status == "ok",
            duration_ns: root.duration_ns,
            from_due_ns: end - root.due_unix_ns.unwrap_or(root.start_unix_ns),
            start_unix_ns: root.start_unix_ns,
            question,
            answer: root.output_ref.clone(),
            passages,
            llm_ns: llm().map(|span| span.duration_ns).sum(),
            llm_input_tokens: llm().map(|span| span.input_tokens).sum(),
            prompt_bytes: llm().map(|span| bytes(&span.input_ref)).sum(),
        }
    }
}

fn call(span: &SpanRow, payloads: &HashMap<String, PayloadRow>, prices: &Prices) -> Call {
    let model = span.model_response.clone().or_else(|| span.model_request.clone());
    let tokens = PricedTokens {
        input: span.input_tokens.unwrap_or(0),
        output: span.output_tokens.unwrap_or(0),
        cache_read: span.cache_read_tokens.unwrap_or(0),
        cache_write: span.cache_write_tokens.unwrap_or(0),
        reasoning: span.reasoning_tokens.unwrap_or(0),
    };
    let is_counted = span.input_tokens.is_some() || span.output_tokens.is_some();
    let price = model.as_deref().and_then(|model| prices.of(model)).filter(|_| is_counted);
    let answer = span.output_ref.as_ref().and_then(|digest| payloads.get(digest));
    Call {
        items: span.batch_size.unwrap_or(1),
        duration_ns: span.duration_ns,
        is_ok: span.status == "ok",
        input_tokens: span.input_tokens,
        output_tokens: span.output_tokens,
        cost_usd: span.cost_usd.or_else(|| price.map(|price| price.cost_usd(tokens))),
        model,
        has_answer: answer.is_some_and(|answer| answer.content.is_some() && !answer.truncated),
    }
}

fn attribute(span: &SpanRow, name: &str) -> Option<String> {
    let attributes: Json = serde_json::from_str(span.attributes.as_deref()?).ok()?;
    attributes.get(name)?.as_str().map(str::to_owned)
}
