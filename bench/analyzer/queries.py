"""The questions of the benchmark, as each engine is asked.

`{store}` is the store's folder, `{run}`, `{other}` two run ids, `{trace}` a trace id. A question an
engine is not asked is missing from its table, with the reason in `NOT_ASKED`.
"""

# What an analyst would write first: all files, by name. `self_ns` is stored only where a span has
# children (docs/format.md), so nobody is asked for it.
DUCKDB_SPANS = "read_parquet('{store}/runs/*/spans-*.parquet', union_by_name = true)"
CHDB_SPANS = "file('{store}/runs/*/spans-*.parquet', Parquet)"

# A child is on the critical path when it ended before every later one began, and its parent is on
# it too; the spans are four deep.
CRITICAL = """
with s as (
  select run_id, trace_id, span_id, parent_span_id, stage, start_unix_ns as t0,
         start_unix_ns + duration_ns as t1
  from {spans}),
c as (
  select *, coalesce(t1 <= min(t0) over (partition by trace_id, parent_span_id order by t1 desc, t0
    rows between unbounded preceding and 1 preceding), true) as chosen
  from s),
p as (
  select c.* from c
  left join c as up1 on up1.trace_id = c.trace_id and up1.span_id = c.parent_span_id
  left join c as up2 on up2.trace_id = up1.trace_id and up2.span_id = up1.parent_span_id
  where c.chosen and coalesce(up1.chosen, true) and coalesce(up2.chosen, true)),
inside as (
  select trace_id, parent_span_id, sum(t1 - t0) as ns from p
  where parent_span_id is not null group by all)
select run_id, stage, sum(t1 - t0 - coalesce(ns, 0)) as critical_ns
from p left join inside on inside.trace_id = p.trace_id and inside.parent_span_id = p.span_id
group by all"""

# Duration minus the children's: wrong with parallel children, and what everybody writes. The right
# one (the union of the children) needs another window.
SELF = """
with inside as (
  select trace_id, parent_span_id, sum(duration_ns) as ns from {spans}
  where parent_span_id is not null group by 1, 2)
select run_id, stage, sum(duration_ns - coalesce(ns, 0)) as self_ns
from {spans} as s left join inside
  on inside.trace_id = s.trace_id and inside.parent_span_id = s.span_id
group by 1, 2"""

QUESTIONS = {
    "percentiles": "p50, p95, p99 of every run and stage",
    "self_time": "self time and critical path of every run and stage",
    "compare": "p95 by stage of two runs",
    "budgets": "p95 of one stage in every run, those over a limit",
    "slowest": "the 20 slowest traces with all their spans",
    "lookup": "all spans of one trace",
    "count": "count and sum by run and stage",
}

RETAKE = {
    "percentiles": "select run_id, stage, quantiles(duration_ns, [0.5, 0.95, 0.99]) as q from spans group by 1, 2",
    "self_time": "select run_id, stage, self_ns, critical_ns from self_time('last*')",
    "compare": "select run_id, stage, quantiles(duration_ns, [0.95]) as q from spans where run_id in ('{run}', '{other}') group by 1, 2",
    "budgets": "select * from (select run_id, quantiles(duration_ns, [0.95])[1] as p95 from spans where stage = 'rerank' group by 1) where p95 > 45e6",
    "slowest": "select s.run_id, s.trace_id, s.span_id, s.stage, s.start_unix_ns, s.duration_ns from spans s where s.trace_id in (select trace_id from spans where parent_span_id is null order by duration_ns desc, trace_id limit 20)",
    "lookup": "select run_id, trace_id, span_id, stage, start_unix_ns, duration_ns from spans where trace_id = '{trace}'",
    "count": "select run_id, stage, count(*) as n, sum(duration_ns) as ns from spans group by 1, 2",
}

HISTORY = {
    "self_time": "select run_id, stage, self_ns, critical_ns from self_time('last*500')",
    "sketches": "select stage, sketch_quantile(merge_sketch(sketch), 0.95) as p95 from run_stage_sketch('last*500') group by 1",
    "changes": "select group_name, run, change from change_points('p95(duration)', 'stage', 'last*500')",
}

DUCKDB = {
    "percentiles": "select run_id, stage, quantile_disc(duration_ns, [0.5, 0.95, 0.99]) as q from {spans} group by all",
    "self_time": [SELF, CRITICAL],
    "compare": "select run_id, stage, quantile_disc(duration_ns, 0.95) as q from {spans} where run_id in ('{run}', '{other}') group by all",
    "budgets": "select * from (select run_id, quantile_disc(duration_ns, 0.95) as p95 from {spans} where stage = 'rerank' group by all) where p95 > 45e6",
    "slowest": "select s.run_id, s.trace_id, s.span_id, s.stage, s.start_unix_ns, s.duration_ns from {spans} s where s.trace_id in (select trace_id from {spans} where parent_span_id is null order by duration_ns desc, trace_id limit 20)",
    "lookup": "select run_id, trace_id, span_id, stage, start_unix_ns, duration_ns from {spans} where trace_id = '{trace}'",
    "count": "select run_id, stage, count(*) as n, sum(duration_ns) as ns from {spans} group by all",
}

CHDB = {
    "percentiles": "select run_id, stage, quantilesExact(0.5, 0.95, 0.99)(duration_ns) as q from {spans} group by 1, 2",
    "compare": "select run_id, stage, quantileExact(0.95)(duration_ns) as q from {spans} where run_id in ('{run}', '{other}') group by 1, 2",
    "budgets": "select * from (select run_id, quantileExact(0.95)(duration_ns) as p95 from {spans} where stage = 'rerank' group by 1) where p95 > 45e6",
    "slowest": "select run_id, trace_id, span_id, stage, start_unix_ns, duration_ns from {spans} where trace_id in (select trace_id from {spans} where parent_span_id is null order by duration_ns desc, trace_id limit 20)",
    "lookup": "select run_id, trace_id, span_id, stage, start_unix_ns, duration_ns from {spans} where trace_id = '{trace}'",
    "count": "select run_id, stage, count(*) as n, sum(duration_ns) as ns from {spans} group by 1, 2",
}


def polars(question, frame, names):
    """The question as polars is asked: a lazy frame."""
    import polars as pl

    stages = ["run_id", "stage"]
    shown = ["run_id", "trace_id", "span_id", "stage", "start_unix_ns", "duration_ns"]

    def quantile(q):
        return pl.col("duration_ns").quantile(q, "nearest").alias(f"p{round(q * 100)}")

    if question == "percentiles":
        return frame.group_by(stages).agg(quantile(0.5), quantile(0.95), quantile(0.99))
    if question == "compare":
        both = frame.filter(pl.col("run_id").is_in([names["run"], names["other"]]))
        return both.group_by(stages).agg(quantile(0.95))
    if question == "budgets":
        of_runs = frame.filter(pl.col("stage") == "rerank").group_by("run_id").agg(quantile(0.95))
        return of_runs.filter(pl.col("p95") > 45e6)
    if question == "slowest":
        roots = frame.filter(pl.col("parent_span_id").is_null())
        slowest = roots.select("trace_id", "duration_ns").top_k(20, by="duration_ns")
        return frame.select(shown).join(slowest.select("trace_id"), on="trace_id", how="semi")
    if question == "lookup":
        return frame.filter(pl.col("trace_id") == names["trace"]).select(shown)
    if question == "count":
        return frame.group_by(stages).agg(pl.len(), pl.col("duration_ns").sum())
    return None


NOT_ASKED = {
    ("polars", "self_time"): "four self joins and a window; DuckDB is the fastest at it",
    ("chdb", "self_time"): "four self joins and a window; DuckDB is the fastest at it",
}
