//! The row types. The order of fields is the order of columns; add new ones last.

use super::declare::table;

table! {
    /// One execution of a workload. Comes from the run's manifest, not from a segment.
    RunRow in Runs {
        /// Id of the run and name of its folder. Source: retake.
        run_id: String,
        /// Name the user gave. Source: `--run`, `retake.run`.
        name: String,
        /// Service under record. Source: OTel resource `service.name`.
        service: String,
        /// Its version. Source: OTel resource `service.version`.
        service_version: Option<String>,
        /// `recording`, `finished`, `interrupted` or `recovered`.
        status: String,
        /// Start, ns since the Unix epoch.
        started_unix_ns: i64,
        /// From start to the last event, ns.
        duration_ns: i64,
        /// Spans in the run.
        spans: i64,
        /// Traces in the run; NULL while it is being recorded.
        traces: Option<i64>,
        /// Commit the code was built from. Source: OTel `vcs.ref.head.revision`.
        git_sha: Option<String>,
        /// Branch of that commit. Source: OTel `vcs.ref.head.name`.
        git_branch: Option<String>,
        /// The run this one replays.
        replay_of: Option<String>,
        /// Digest of inputs and arrival times, equal for runs of the same workload; BLAKE3 hex.
        workload: Option<String>,
        /// Seed of everything random in the run.
        seed: Option<i64>,
        /// Labels, a JSON object of strings.
        labels: String,
        /// Settings in force, a JSON object by dotted name.
        settings: String,
        /// Content policy: `off`, `digest`, `redacted` or `full`.
        capture: String,
        /// Host name. Source: OTel resource `host.name`.
        host: String,
        /// Operating system. Source: OTel resource `os.description`.
        os: String,
        /// Processor model. Source: OTel resource `host.cpu.model.name`.
        cpu: String,
        /// Logical processors.
        cpus: i32,
        /// Physical memory, bytes.
        memory_bytes: i64,
        /// Kind of machine (digest of processor, count and memory); runs with different keys are
        /// not compared silently.
        machine_key: String,
        /// Events offered to the recorder.
        events_offered: i64,
        /// Events journalled.
        events_accepted: i64,
        /// Events lost; offered = accepted + dropped.
        events_dropped: i64,
        /// Version of retake that recorded it.
        recorder_version: String,
    }
}

table! {
    /// One timed interval of a trace: the table most questions are asked of.
    SpanRow in Spans {
        /// Run it belongs to.
        run_id: String,
        /// Trace, 32 hex digits. Source: W3C trace id.
        trace_id: String,
        /// Span, 16 hex digits, unique only inside its trace. Source: W3C span id.
        span_id: String,
        /// Parent span in the same trace; NULL for a root.
        parent_span_id: Option<String>,
        /// Name. Source: OTel span name, `otel.name`, or the `tracing` callsite.
        name: String,
        /// What it is in RAG terms: `chain`, `llm`, `embedding`, `retriever`, `reranker`, `tool`,
        /// `agent`, `guardrail`, `evaluator`, `prompt`, `ingest` or `span`. Source:
        /// `gen_ai.operation.name`, `openinference.span.kind`, `traceloop.span.kind`.
        kind: String,
        /// Named pipeline step, the unit of a breakdown. Source: `retake.stage`, else by kind,
        /// else the span name.
        stage: String,
        /// Start, ns since the Unix epoch.
        start_unix_ns: i64,
        /// End minus start, ns, never negative; up to the last event seen when unfinished.
        duration_ns: i64,
        /// Time it was entered on some thread, ns. Source: `tracing` enter and exit.
        busy_ns: Option<i64>,
        /// Time not covered by the union of its children, ns. In a file NULL where it equals
        /// `duration_ns`.
        self_ns: Option<i64>,
        /// `ok`, `error`, `cancelled` or `unfinished`.
        status: String,
        /// Class of the error. Source: `error.type`, `exception.type`.
        error_type: Option<String>,
        /// Text of the error. Source: OTel status message, `exception.message`.
        error_message: Option<String>,
        /// Whether the failure began here: it failed, and no child of it did.
        is_error_origin: bool,
        /// Service that emitted it. Source: OTel resource `service.name`.
        service: Option<String>,
        /// Model asked for. Source: `gen_ai.request.model` and its older names.
        model_request: Option<String>,
        /// Model that answered. Source: `gen_ai.response.model`.
        model_response: Option<String>,
        /// Provider. Source: `gen_ai.provider.name`, formerly `gen_ai.system`.
        provider: Option<String>,
        /// Operation. Source: `gen_ai.operation.name`.
        operation: Option<String>,
        /// Whether the answer was streamed. Source: `gen_ai.request.stream`.
        stream: Option<bool>,
        /// From start to the first output token, ns. Source: token events,
        /// `gen_ai.response.time_to_first_chunk` (seconds).
        ttft_ns: Option<i64>,
        /// Input tokens, cached ones included. Source: `gen_ai.usage.input_tokens`.
        input_tokens: Option<i64>,
        /// Output tokens, reasoning ones included. Source: `gen_ai.usage.output_tokens`.
        output_tokens: Option<i64>,
        /// Part of `input_tokens` read from the provider's cache.
        cache_read_tokens: Option<i64>,
        /// Part of `input_tokens` written to the provider's cache.
        cache_write_tokens: Option<i64>,
        /// Part of `output_tokens` spent on reasoning.
        reasoning_tokens: Option<i64>,
        /// Who counted: `provider`, `tokenizer`, `estimate` or `none`.
        tokens_source: String,
        /// True on the one span of a call whose tokens count (leaf-most); sum only these.
        tokens_counted: bool,
        /// Cost, US dollars. Source: `llm.cost.total`, `gen_ai.usage.cost`.
        cost_usd: Option<f64>,
        /// Items in the batch. Source: `retake.batch.size`.
        batch_size: Option<i64>,
        /// Number of the batch in its run, from 0. Source: `retake.batch.index`.
        batch_index: Option<i64>,
        /// Time waited before the work began, ns; mean over the items of a batch. Source:
        /// `retake.queue_ns`.
        queue_ns: Option<i64>,
        /// Attempts after the first. Source: `retake.retries`, `http.request.resend_count`.
        retries: Option<i64>,
        /// Whether a cache answered. Source: `retake.cache_hit`.
        cache_hit: Option<bool>,
        /// Documents asked for. Source: `gen_ai.request.top_k` on retrievals and rerankings.
        top_k: Option<i64>,
        /// Documents returned.
        document_count: Option<i64>,
        /// Vectors returned.
        embedding_count: Option<i64>,
        /// Dimensions of a vector. Source: `gen_ai.embeddings.dimension.count`.
        embedding_dim: Option<i64>,
        /// Conversation. Source: `gen_ai.conversation.id`, `session.id`.
        session_id: Option<String>,
        /// User. Source: `user.id`.
        user_id: Option<String>,
        /// The application's name for the request. Source: `retake.request_id`.
        request_id: Option<String>,
        /// Digest of the input; joins `payloads.digest`.
        input_ref: Option<String>,
        /// Digest of the output; joins `payloads.digest`.
        output_ref: Option<String>,
        /// What is odd about the row, comma-separated: `orphan`, `duplicate`, `clock_skew`,
        /// `end_before_start`, `unfinished`, `truncated`, `stream_extended`, `tokens_disagree`,
        /// `bad_time` (a time was missing or impossible and is replaced), `bad_tokens` (a count
        /// was negative or no number and is left out).
        flags: Option<String>,
        /// Source file of the instrumentation. Source: `tracing` metadata, `code.file.path`.
        source_file: Option<String>,
        /// Line in it, from 1.
        source_line: Option<i32>,
        /// Everything without a column of its own, a JSON object in the order of its keys. In a
        /// file, frequent ones stand in columns `attributes.<key>` behind those of the table.
        attributes: Option<String>,
        /// Instrumentation scope or `tracing` target.
        target: Option<String>,
        /// Severity: `trace`, `debug`, `info`, `warn`, `error`.
        level: Option<String>,
        /// Thread that opened it.
        thread: Option<String>,
        /// Why the model stopped. Source: `gen_ai.response.finish_reasons`.
        finish_reason: Option<String>,
        /// Sampling temperature. Source: `gen_ai.request.temperature`.
        temperature: Option<f64>,
        /// Output limit, tokens. Source: `gen_ai.request.max_tokens`.
        max_tokens: Option<i64>,
        /// Tool called. Source: `gen_ai.tool.name`.
        tool_name: Option<String>,
        /// Agent. Source: `gen_ai.agent.name`.
        agent_name: Option<String>,
        /// In a replay: run of the operation this one repeats. Source: `retake.source.run_id`.
        source_run_id: Option<String>,
        /// In a replay: trace of that operation.
        source_trace_id: Option<String>,
        /// In a replay: span of that operation.
        source_span_id: Option<String>,
        /// In a replay: when the operation was due, ns since the Unix epoch.
        due_unix_ns: Option<i64>,
        /// In a replay: `live` or `recorded`.
        stage_source: Option<String>,
        /// For kinds that are calls (`llm`, `embedding`, `retriever`, `reranker`, `tool`,
        /// `guardrail`, `evaluator`): whether it is the call itself, the innermost span of its
        /// kind, or only wraps it. Count those that are. NULL for other kinds.
        is_call: Option<bool>,
    }
}

table! {
    /// One arrival of output tokens.
    TokenRow in Tokens {
        /// Run.
        run_id: String,
        /// Trace.
        trace_id: String,
        /// The call that streams.
        span_id: String,
        /// Index of the first token of the arrival in the answer, from 0.
        token_index: i64,
        /// Tokens that arrived together.
        token_count: i64,
        /// Arrival, ns since the Unix epoch.
        time_unix_ns: i64,
    }
}

table! {
    /// One log line.
    EventRow in Events {
        /// Run.
        run_id: String,
        /// Trace, if it was written inside one.
        trace_id: Option<String>,
        /// Span, if it was written inside one.
        span_id: Option<String>,
        /// Time, ns since the Unix epoch.
        time_unix_ns: i64,
        /// Severity: `trace`, `debug`, `info`, `warn`, `error`.
        level: String,
        /// Name. Source: OTel event name.
        name: String,
        /// Instrumentation scope or `tracing` target.
        target: String,
        /// Text.
        message: Option<String>,
        /// The rest, a JSON object.
        attributes: Option<String>,
    }
}

table! {
    /// One document (or chunk) that passed through a stage.
    DocumentRow in Documents {
        /// Run.
        run_id: String,
        /// Trace.
        trace_id: String,
        /// The stage's span.
        span_id: String,
        /// `retrieved`, `rerank_input`, `rerank_output` or `batch_member`.
        role: String,
        /// Position, from 0.
        rank: i64,
        /// Id of the document or chunk. Source: `document.id`.
        document_id: String,
        /// Score; its scale is the stage's own. Source: `document.score`.
        score: Option<f64>,
        /// Path or URL it comes from.
        source: Option<String>,
        /// First character in the source, Unicode code points.
        start_char: Option<i64>,
        /// One past the last character in the source, Unicode code points.
        end_char: Option<i64>,
        /// Digest of its text; joins `payloads.digest`.
        content_ref: Option<String>,
        /// Time, ns since the Unix epoch.
        time_unix_ns: i64,
    }
}

table! {
    /// One distinct content, stored once per segment under its digest.
    PayloadRow in Payloads {
        /// Run.
        run_id: String,
        /// BLAKE3 of the whole content, 64 hex digits.
        digest: String,
        /// Size of the whole content, bytes.
        bytes: i64,
        /// Media type.
        media_type: String,
        /// The content; NULL when the capture policy does not keep it.
        content: Option<String>,
        /// Whether `content` was cut at the size limit.
        truncated: bool,
        /// First seen, ns since the Unix epoch.
        time_unix_ns: i64,
    }
}

table! {
    /// One sample of a resource, and one row per loss of events (`retake.dropped`).
    MeasureRow in Measures {
        /// Run.
        run_id: String,
        /// Time, ns since the Unix epoch.
        time_unix_ns: i64,
        /// Name. Source: OTel metric name.
        name: String,
        /// Unit. Source: UCUM.
        unit: String,
        /// Value.
        value: f64,
        /// Dimensions, a JSON object.
        attributes: Option<String>,
    }
}
