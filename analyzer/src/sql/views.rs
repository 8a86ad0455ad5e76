//! The views: questions asked so often that they have a name.

/// A view and what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// Its name in SQL.
    pub name: &'static str,
    /// What it gives, one row per what.
    pub doc: &'static str,
    /// The query behind it.
    pub sql: &'static str,
}

/// Every view. Costs of spans whose tokens are roll-ups are roll-ups too and left out. None reads files of runs that a filter on `run_id` leaves out.
pub const VIEWS: &[View] = &[
    View {
        name: "run_summary",
        doc: "One row per run: spans, traces, errors (each counted at its origin), tokens counted \
              once, cost, and what the recorder had to drop.",
        sql: "SELECT r.run_id, r.name, r.service, r.status, r.started_unix_ns, r.duration_ns,
       coalesce(s.traces, 0) AS traces, coalesce(s.spans, 0) AS spans,
       coalesce(s.errors, 0) AS errors, s.input_tokens, s.output_tokens, s.cost_usd,
       r.events_dropped, r.replay_of, r.git_sha, r.machine_key
FROM runs r LEFT JOIN (
  SELECT run_id, count(*) AS spans, count(DISTINCT trace_id) AS traces,
         count(*) FILTER (WHERE is_error_origin) AS errors,
         sum(input_tokens) FILTER (WHERE tokens_counted) AS input_tokens,
         sum(output_tokens) FILTER (WHERE tokens_counted) AS output_tokens,
         sum(cost_usd) FILTER (WHERE tokens_counted OR tokens_source = 'none') AS cost_usd
  FROM spans GROUP BY run_id
) s ON r.run_id = s.run_id",
    },
    View {
        name: "stage_latency",
        doc: "One row per run and stage: durations, ns. Percentiles are exact up to 1,024 spans a \
              stage, then within 0.5 % (`quantiles`); `retake breakdown` gives exact ones. `sum_ns` \
              counts nested and parallel work more than once and is no share of anything.",
        sql: "SELECT run_id, stage, n, sum_ns, CAST(q[1] AS BIGINT) AS p50_ns,
       CAST(q[2] AS BIGINT) AS p90_ns, CAST(q[3] AS BIGINT) AS p95_ns,
       CAST(q[4] AS BIGINT) AS p99_ns, error_rate
FROM (
  SELECT run_id, stage, count(*) AS n, sum(duration_ns) AS sum_ns,
         quantiles(duration_ns, [0.5, 0.9, 0.95, 0.99]) AS q,
         avg(CASE WHEN status = 'error' THEN 1.0 ELSE 0.0 END) AS error_rate
  FROM spans GROUP BY run_id, stage
)",
    },
    View {
        name: "stage_self_time",
        doc: "One row per run and stage: time not covered by the union of the children, ns. Sums \
              to busy time: parallel branches each count.",
        sql: "SELECT run_id, stage, count(*) AS n, sum(self_ns) AS self_ns,
       avg(self_ns) AS self_mean_ns, sum(duration_ns) AS total_ns
FROM spans GROUP BY run_id, stage",
    },
    View {
        name: "llm_calls",
        doc: "One row per call of a language model (spans that only wrap one are left out): time to first token, time \
              per further output token, output rate after the first token, finish reason.",
        sql: "SELECT run_id, trace_id, span_id, stage, provider,
       coalesce(model_response, model_request) AS model, start_unix_ns, duration_ns, ttft_ns,
       input_tokens, output_tokens, cache_read_tokens, reasoning_tokens, tokens_source,
       CASE WHEN output_tokens > 1
            THEN (duration_ns - ttft_ns) / (output_tokens - 1) END AS tpot_ns,
       tokens_per_second(output_tokens, duration_ns - coalesce(ttft_ns, 0)) AS output_per_second,
       cost_usd, finish_reason, retries, status, error_type
FROM spans WHERE kind = 'llm' AND coalesce(is_call, tokens_counted OR tokens_source = 'none')",
    },
    View {
        name: "trace_summary",
        doc: "One row per trace: end to end, first token after the trace's start, tokens counted \
              once, retries, failures by origin, cost.",
        sql: "SELECT run_id, trace_id,
       coalesce(max(name) FILTER (WHERE parent_span_id IS NULL), min(name)) AS name,
       max(request_id) AS request_id, min(start_unix_ns) AS start_unix_ns,
       max(start_unix_ns + duration_ns) - min(start_unix_ns) AS duration_ns,
       count(*) AS spans,
       min(start_unix_ns + ttft_ns) - min(start_unix_ns) AS ttft_ns,
       sum(input_tokens) FILTER (WHERE tokens_counted) AS input_tokens,
       sum(output_tokens) FILTER (WHERE tokens_counted) AS output_tokens,
       sum(retries) AS retries, count(*) FILTER (WHERE is_error_origin) AS errors,
       sum(cost_usd) FILTER (WHERE tokens_counted OR tokens_source = 'none') AS cost_usd,
       max(session_id) AS session_id, max(user_id) AS user_id
FROM spans GROUP BY run_id, trace_id",
    },
    View {
        name: "batch_efficiency",
        doc: "One row per run, stage and batch size: batches, mean wait before the work began, \
              mean time of a batch, items per second of batch time.",
        sql: "SELECT run_id, stage, batch_size, count(*) AS n, sum(batch_size) AS items,
       avg(queue_ns) AS queue_mean_ns, avg(duration_ns) AS service_mean_ns,
       tokens_per_second(sum(batch_size), sum(duration_ns)) AS items_per_second
FROM spans WHERE batch_size IS NOT NULL GROUP BY run_id, stage, batch_size",
    },
    View {
        name: "cost_by_stage",
        doc: "One row per run, stage and who counted: tokens counted once, and cost. Estimates \
              stand apart from counts.",
        sql: "SELECT run_id, stage, tokens_source, count(*) AS calls,
       sum(input_tokens) AS input_tokens, sum(cache_read_tokens) AS cache_read_tokens,
       sum(output_tokens) AS output_tokens, sum(reasoning_tokens) AS reasoning_tokens,
       sum(cost_usd) AS cost_usd
FROM spans WHERE tokens_counted OR (tokens_source = 'none' AND cost_usd IS NOT NULL) GROUP BY run_id, stage, tokens_source",
    },
    View {
        name: "cost_by_model",
        doc: "One row per run, provider, model and who counted: tokens counted once, and cost.",
        sql: "SELECT run_id, provider, coalesce(model_response, model_request) AS model,
       tokens_source, count(*) AS calls, sum(input_tokens) AS input_tokens,
       sum(cache_read_tokens) AS cache_read_tokens, sum(output_tokens) AS output_tokens,
       sum(reasoning_tokens) AS reasoning_tokens, sum(cost_usd) AS cost_usd
FROM spans WHERE tokens_counted OR (tokens_source = 'none' AND cost_usd IS NOT NULL)
GROUP BY run_id, provider, coalesce(model_response, model_request), tokens_source",
    },
    View {
        name: "token_metrics",
        doc: "One row per run, metric, provider, model and type of token: tokens that the program \
              counted itself, in metrics (`gen_ai.client.token.usage` and its like), whether or \
              not its spans arrived. Of a series that a receiver found running, what it grew by from \
              its first sample in the run to its last. Several metrics may count the same tokens: \
              do not add them up.",
        sql: "SELECT run_id, metric, provider, model, token_type, CAST(sum(tokens) AS BIGINT) AS tokens
FROM (
  SELECT m.run_id, metric, provider, model, token_type, series,
         CASE WHEN temporality = 'delta' THEN sum(value)
              WHEN min(m.start_unix_ns) < min(r.started_unix_ns)
                   AND min(m.time_unix_ns) >= min(r.started_unix_ns) THEN max(value) - min(value)
              ELSE max(value) END AS tokens
  FROM (
    SELECT run_id, value, time_unix_ns, CASE WHEN name LIKE '%.sum' THEN substr(name, 1, length(name) - 4)
                               ELSE name END AS metric,
           coalesce(attr(attributes, 'gen_ai.provider.name'),
                    attr(attributes, 'gen_ai.system')) AS provider,
           coalesce(attr(attributes, 'gen_ai.response.model'),
                    attr(attributes, 'gen_ai.request.model')) AS model,
           coalesce(attr(attributes, 'gen_ai.token.type'),
                    CASE WHEN name LIKE '%input_tokens%' THEN 'input'
                         WHEN name LIKE '%output_tokens%' THEN 'output' END) AS token_type,
           attr(attributes, 'otel.series') AS series,
           attr(attributes, 'otel.temporality') AS temporality,
           CAST(attr(attributes, 'otel.start_unix_ns') AS BIGINT) AS start_unix_ns
    FROM measures
    WHERE name LIKE 'gen_ai.%token%' AND name NOT LIKE '%.count'
  ) m JOIN runs r ON m.run_id = r.run_id
  WHERE temporality IS NOT NULL AND token_type IS NOT NULL
  GROUP BY m.run_id, metric, provider, model, token_type, series, temporality
) GROUP BY run_id, metric, provider, model, token_type",
    },
    View {
        name: "replay_pairs",
        doc: "One row per replayed operation: the operation it repeats, both durations, and \
              `ratio`, the replay's over the source's. Both runs must be in scope.",
        sql: "SELECT r.source_run_id, r.source_trace_id, r.source_span_id,
       r.run_id, r.trace_id, r.span_id, s.name, s.duration_ns AS source_duration_ns,
       r.duration_ns, CASE WHEN s.duration_ns > 0
            THEN CAST(r.duration_ns AS DOUBLE) / s.duration_ns END AS ratio,
       s.status AS source_status, r.status, r.due_unix_ns,
       r.start_unix_ns - r.due_unix_ns AS late_ns
FROM spans r JOIN spans s ON r.source_run_id = s.run_id
  AND r.source_trace_id = s.trace_id AND r.source_span_id = s.span_id
WHERE r.source_span_id IS NOT NULL",
    },
    View {
        name: "replay_tree",
        doc: "One row per run: the run it replays, the run at the root of the tree (itself, when it \
              replays none, or none that is here), how many replays deep it is, and the path of run \
              ids from the root.",
        sql: "WITH RECURSIVE tree AS (
  SELECT r.run_id, r.run_id AS root_run_id, CAST(0 AS BIGINT) AS depth, r.run_id AS path
  FROM runs r LEFT JOIN runs p ON r.replay_of = p.run_id WHERE p.run_id IS NULL
  UNION ALL
  SELECT r.run_id, t.root_run_id, t.depth + 1 AS depth, t.path || ' > ' || r.run_id AS path
  FROM runs r JOIN tree t ON r.replay_of = t.run_id
)
SELECT r.run_id, r.replay_of, t.root_run_id, t.depth, t.path, r.name, r.status,
       r.started_unix_ns, r.workload
FROM tree t JOIN runs r ON r.run_id = t.run_id",
    },
    View {
        name: "prediction_log",
        doc: "One row per prediction of a sweep and replay that measured it: `setting` and `metric`, \
              what was predicted with its 95 % interval, what was measured, and `error`, the measured \
              over the predicted less one. `run_id` is the sweep's. Predictions are recorded before \
              the replay begins; one that nobody measured has NULL there. A sweep that another one \
              resumes is left out: the other has its rows.",
        sql: "SELECT p.run_id, p.setting, p.metric, p.unit, p.predicted, p.low, p.high,
       m.replay_run_id, m.block, m.measured,
       CASE WHEN p.predicted <> 0 THEN m.measured / p.predicted - 1 END AS error,
       m.measured BETWEEN p.low AND p.high AS is_inside,
       p.time_unix_ns AS predicted_unix_ns, m.time_unix_ns AS measured_unix_ns
FROM (
  SELECT run_id, time_unix_ns, unit, value AS predicted,
         attr(attributes, 'retake.sweep.setting') AS setting,
         attr(attributes, 'retake.sweep.metric') AS metric,
         CAST(attr(attributes, 'retake.sweep.low') AS DOUBLE) AS low,
         CAST(attr(attributes, 'retake.sweep.high') AS DOUBLE) AS high
  FROM measures WHERE name = 'retake.predicted'
) p LEFT JOIN (
  SELECT run_id, time_unix_ns, value AS measured,
         attr(attributes, 'retake.sweep.setting') AS setting,
         attr(attributes, 'retake.sweep.metric') AS metric,
         attr(attributes, 'retake.sweep.replay') AS replay_run_id,
         CAST(attr(attributes, 'retake.sweep.block') AS BIGINT) AS block
  FROM measures WHERE name = 'retake.measured'
) m ON p.run_id = m.run_id AND p.setting = m.setting AND p.metric = m.metric
WHERE p.run_id NOT IN (
  SELECT attr(labels, 'retake.resumes') FROM runs
  WHERE attr(labels, 'retake.resumes') IS NOT NULL
)",
    },
];
