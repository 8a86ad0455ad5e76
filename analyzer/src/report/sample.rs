//! Made-up runs for the tests: a rich one, an empty one, and a large one.

mod panels;

use retake_schemas::tables::{RunRow, SpanRow};

use super::scale::{percentile, sorted};
use crate::model::{
    BaselineData, Breakdown, BreakdownRow, DataQuality, Diff, DiffRow, ErrorOrigin, Flame,
    ReportData, ReportQuery, SCHEMA_VERSION, TokenTotals, TraceNode, TraceSummary, TraceTree,
    Verdict,
};

/// A span of a tree that is nothing but its place.
pub(super) fn node(depth: usize, start: i64, duration_ns: i64) -> TraceNode {
    TraceNode {
        depth,
        self_ns: duration_ns,
        is_critical: false,
        span: SpanRow {
            start_unix_ns: start,
            duration_ns,
            status: "ok".to_owned(),
            ..SpanRow::default()
        },
    }
}

/// A question-answering run of 400 traces with failures, tokens, cost, and a slower baseline.
pub(super) fn rich() -> ReportData {
    let mut dice = Dice(7);
    let trees: Vec<TraceTree> = (0..400).map(|number| question(&mut dice, number, 1.0)).collect();
    let mut dice = Dice(7);
    let base_trees: Vec<TraceTree> =
        (0..400).map(|number| question(&mut dice, number, 0.72)).collect();
    let mut data = of_trees("rerank-v2", trees);
    let base = of_trees("main-412", base_trees);
    data.quality = DataQuality {
        lost_spans: 3,
        orphans: 3,
        dropped_events: 128,
        flags: vec![("orphan".to_owned(), 3), ("clock_skew".to_owned(), 7)],
        ..DataQuality::default()
    };
    data.queries = vec![
        ReportQuery {
            section: "stages",
            title: "Breakdown by stage".to_owned(),
            sql: BREAKDOWN_SQL.to_owned(),
        },
        ReportQuery {
            section: "slowest",
            title: "Slowest traces".to_owned(),
            sql: "SELECT * FROM slowest_traces('01JX', 20)".to_owned(),
        },
    ];
    data.budgets = panels::budgets(&data);
    data.trend = Some(panels::trend(&data));
    data.sweep = Some(panels::sweep(&data));
    data.retrieval = Some(panels::retrieval(&mut dice));
    data.token_gaps_ns = (0..6000).map(|_| dice.around(21e6, 0.45)).collect();
    data.baseline = Some(BaselineData {
        trace_durations_ns: base.traces.iter().map(|trace| trace.duration_ns).collect(),
        run: base.run,
        breakdown: base.breakdown,
        flames: base.flames,
        diff: diff(),
    });
    data
}

const BREAKDOWN_SQL: &str = "SELECT stage,\n\
             count(*) AS calls,\n\
             sum(self_ns) AS self_ns,\n\
             approx_percentile_cont(duration_ns, 0.95) AS p95_ns\n\
             FROM spans\n\
             WHERE run_id = '01JX'\n\
             AND duration_ns < 1e12 -- \"sane\" & finished\n\
             GROUP BY stage\n\
             ORDER BY self_ns DESC";

/// A run without spans.
pub(super) fn empty() -> ReportData {
    let mut data = of_trees("nothing", Vec::new());
    data.run.status = "recording".to_owned();
    data
}

/// About `spans` spans in traces of 50, every one of them drawn if the report let us.
pub(super) fn large(spans: usize) -> ReportData {
    let mut dice = Dice(3);
    let trees = (0..spans / 50).map(|number| {
        let mut nodes = vec![node(0, START, 50_000_000)];
        for at in 0..49 {
            let mut node = node(
                1 + at % 6,
                START + i64::try_from(at).unwrap() * 1_000_000,
                dice.around(2e6, 0.5),
            );
            node.span.name = format!("stage_{}.operation_number_{at}", at % 14);
            node.span.stage = format!("stage_{}", at % 14);
            node.span.model_response = Some("gpt-4o-mini-2024-07-18".to_owned());
            node.span.input_tokens = Some(1234);
            node.span.tokens_source = "provider".to_owned();
            node.is_critical = at % 3 == 0;
            nodes.push(node);
        }
        TraceTree {
            trace_id: format!("{number:032x}"),
            start_unix_ns: START,
            duration_ns: 50_000_000,
            nodes,
        }
    });
    let mut data = of_trees("large", trees.collect());
    data.trees = all_trees(&data, spans / 50);
    data
}

fn all_trees(data: &ReportData, copies: usize) -> Vec<TraceTree> {
    data.trees.iter().cycle().take(copies).cloned().collect()
}

const START: i64 = 1_773_480_413_000_000_000;

/// A run of these traces, with everything derived from them.
fn of_trees(name: &str, trees: Vec<TraceTree>) -> ReportData {
    let mut traces: Vec<TraceSummary> = trees.iter().map(summary).collect();
    traces.sort_by_key(|trace| std::cmp::Reverse(trace.duration_ns));
    let breakdown = breakdown(name, &trees);
    let found = flames(&trees);
    let durations = breakdown
        .rows
        .iter()
        .map(|row| (row.stage.clone(), durations(&trees, &row.stage)))
        .collect();
    let mut shown: Vec<TraceTree> = trees;
    shown.sort_by_key(|tree| std::cmp::Reverse(tree.duration_ns));
    let failed: Vec<TraceTree> = shown
        .iter()
        .skip(6)
        .filter(|tree| tree.nodes.iter().any(|node| node.span.is_error_origin))
        .take(3)
        .cloned()
        .collect();
    shown.truncate(6);
    shown.extend(failed);
    ReportData {
        run: run(name, &breakdown),
        breakdown,
        traces,
        trees: shown,
        texts: std::collections::BTreeMap::new(),
        durations,
        token_gaps_ns: Vec::new(),
        flames: found,
        retrieval: None,
        budgets: Vec::new(),
        trend: None,
        sweep: None,
        quality: DataQuality::default(),
        baseline: None,
        queries: Vec::new(),
    }
}

/// Paths with self time as wall time: enough for a picture.
fn flames(trees: &[TraceTree]) -> Vec<Flame> {
    let mut found: std::collections::BTreeMap<String, Flame> = std::collections::BTreeMap::new();
    for tree in trees {
        let mut path: Vec<&str> = Vec::new();
        for node in &tree.nodes {
            path.truncate(node.depth);
            path.push(&node.span.stage);
            let stack = path.join(";");
            let flame = found.entry(stack.clone()).or_default();
            flame.stack = stack;
            flame.spans += 1;
            flame.self_ns += node.self_ns;
            flame.wall_ns += node.self_ns;
        }
    }
    found.into_values().collect()
}

fn run(name: &str, breakdown: &Breakdown) -> RunRow {
    let text = str::to_owned;
    RunRow {
        run_id: format!("20260314-092653-{name}"),
        name: text(name),
        service: text("docs-assistant"),
        service_version: Some(text("1.8.2")),
        status: text("finished"),
        started_unix_ns: START,
        duration_ns: 187_420_000_000,
        spans: i64::try_from(breakdown.spans).unwrap(),
        git_sha: Some(text("4c1f0e7a9be2d5518d0a3f7c")),
        git_branch: Some(text("feature/cross-encoder")),
        replay_of: Some(text("20260313-171200-main-412")),
        seed: Some(42),
        labels: text(r#"{"team":"search","ci":"pull/318"}"#),
        settings: text(
            r#"{"chunk.size":256,"chunk.overlap":20,
               "embed.provider":"minilm","embed.batch_size":32,
               "rerank.top_k":24,
               "rerank.model":"ms-marco-MiniLM-L-12-v2",
               "retrieve.top_k":48,"synthesize.model":"gpt-4o-mini",
               "synthesize.temperature":0.0,"seed":42}"#,
        ),
        capture: text("full"),
        host: text("bench-2"),
        os: text("Ubuntu 24.04"),
        cpu: text("AMD EPYC 7763"),
        cpus: 8,
        memory_bytes: 33_500_000_000,
        machine_key: text("b3:91c02f4e"),
        events_offered: 61_442,
        events_accepted: 61_314,
        events_dropped: 128,
        recorder_version: text("0.1.0"),
        ..RunRow::default()
    }
}

/// One question: embed, search three shards in parallel, rerank in batches, prompt, answer.
fn question(dice: &mut Dice, number: usize, rerank_factor: f64) -> TraceTree {
    let mut trace = Trace { nodes: Vec::new(), now: START + number as i64 * 450_000_000 };
    let start = trace.now;
    let root = trace.add(0, ["chain", "chain", "answer_question"], 0);
    trace.now += 400_000;
    trace.step(["embed", "embedding", "embed.query"], dice.around(9e6, 0.3));
    trace.retrieve(dice);
    trace.rerank(dice, rerank_factor);
    trace.step(["prompt", "prompt", "prompt.build"], dice.around(1.1e6, 0.3));
    let error = (number % 57 == 13).then_some(if number.is_multiple_of(2) {
        "RateLimited"
    } else {
        "Timeout"
    });
    trace.answer(dice.around(520e6, 0.42), error);
    if error.is_none() {
        trace.step(["guardrail", "guardrail", "check citations"], dice.around(14e6, 0.4));
    } else {
        trace.nodes[root].span.status = "error".to_owned();
    }
    let duration_ns = trace.now - start + 300_000;
    trace.nodes[root].span.duration_ns = duration_ns;
    trace.nodes[root].self_ns = duration_ns / 250;
    let id = (number as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    let trace_id = format!("{id:032x}");
    TraceTree { trace_id, start_unix_ns: start, duration_ns, nodes: trace.nodes }
}

/// A trace in the making.
struct Trace {
    nodes: Vec<TraceNode>,
    now: i64,
}

impl Trace {
    /// Adds a span of a stage, kind, and name that starts now; time does not pass.
    fn add(&mut self, depth: usize, [stage, kind, name]: [&str; 3], ns: i64) -> usize {
        let mut node = node(depth, self.now, ns);
        (node.span.stage, node.span.kind, node.span.name) =
            (stage.to_owned(), kind.to_owned(), name.to_owned());
        node.span.span_id = format!("{:016x}", self.nodes.len() + 1);
        node.is_critical = true;
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// Adds a span under the root and lets its time pass.
    fn step(&mut self, names: [&str; 3], ns: i64) {
        self.add(1, names, ns);
        self.now += ns + 120_000;
    }

    fn retrieve(&mut self, dice: &mut Dice) {
        let shards: Vec<i64> = (0..3).map(|_| dice.around(34e6, 0.5)).collect();
        let slowest = *shards.iter().max().unwrap();
        let retrieve = self.add(1, ["retrieve", "retriever", "retrieve"], slowest + 4_000_000);
        self.nodes[retrieve].self_ns = 4_000_000;
        self.now += 1_000_000;
        for (number, &ns) in shards.iter().enumerate() {
            let name = format!("vector.search shard={number}");
            let shard = self.add(2, ["vector.search", "retriever", &name], ns);
            self.nodes[shard].is_critical = ns == slowest;
        }
        self.now += slowest + 3_100_000;
    }

    fn rerank(&mut self, dice: &mut Dice, factor: f64) {
        let rerank = self.add(1, ["rerank", "reranker", "rerank"], 0);
        let start = self.now;
        self.now += 1_000_000;
        for _ in 0..3 {
            let ns = (dice.around(88e6, 0.35) as f64 * factor) as i64;
            let batch = self.add(2, ["rerank.score", "reranker", "cross_encoder.score_batch"], ns);
            self.nodes[batch].span.queue_ns = Some(2_100_000);
            self.nodes[batch].span.batch_size = Some(16);
            self.now += ns;
        }
        self.now += 1_000_000;
        self.nodes[rerank].span.duration_ns = self.now - start;
        self.nodes[rerank].self_ns = 2_000_000;
    }

    fn answer(&mut self, ns: i64, error: Option<&str>) {
        let synthesize = self.add(1, ["synthesize", "chain", "synthesize"], ns + 3_000_000);
        self.nodes[synthesize].self_ns = 3_000_000;
        self.now += 1_500_000;
        let call = self.add(2, ["llm", "llm", "chat gpt-4o-mini"], ns);
        self.now += ns + 1_500_000;
        let span = &mut self.nodes[call].span;
        span.model_response = Some("gpt-4o-mini-2024-07-18".to_owned());
        span.ttft_ns = Some(ns * 3 / 10);
        (span.input_tokens, span.output_tokens) = (Some(2840), Some(ns / 4_800_000));
        (span.tokens_source, span.cost_usd) = ("provider".to_owned(), Some(0.00061));
        if let Some(error) = error {
            let message = "no token for 30 s; the stream was closed by the provider";
            (span.error_type, span.error_message) =
                (Some(error.to_owned()), Some(message.to_owned()));
            span.is_error_origin = true;
            for at in [synthesize, call] {
                self.nodes[at].span.status = "error".to_owned();
            }
        }
    }
}

fn summary(tree: &TraceTree) -> TraceSummary {
    let call = tree.nodes.iter().find(|node| node.span.ttft_ns.is_some());
    let failed = tree.nodes.iter().find(|node| node.span.is_error_origin);
    TraceSummary {
        trace_id: tree.trace_id.clone(),
        name: tree.nodes[0].span.name.clone(),
        request_id: Some(format!("q-{}", &tree.trace_id[24..])),
        start_unix_ns: tree.start_unix_ns,
        duration_ns: tree.duration_ns,
        spans: tree.nodes.len() as u64,
        ttft_ns: call
            .map(|node| node.span.start_unix_ns - tree.start_unix_ns + node.span.ttft_ns.unwrap()),
        input_tokens: call.and_then(|node| node.span.input_tokens).unwrap_or(0),
        output_tokens: call.and_then(|node| node.span.output_tokens).unwrap_or(0),
        error: failed.map(|node| {
            format!("{}: {}", node.span.stage, node.span.error_type.clone().unwrap_or_default())
        }),
    }
}

fn durations(trees: &[TraceTree], stage: &str) -> Vec<i64> {
    let nodes = trees.iter().flat_map(|tree| &tree.nodes);
    sorted(nodes.filter(|node| node.span.stage == stage).map(|node| node.span.duration_ns))
}

/// Rows whose wall times are scaled self times: not how the analyzer attributes, but with its sum.
fn breakdown(name: &str, trees: &[TraceTree]) -> Breakdown {
    let nodes: Vec<&TraceNode> = trees.iter().flat_map(|tree| &tree.nodes).collect();
    let mut stages: Vec<String> = nodes.iter().map(|node| node.span.stage.clone()).collect();
    stages.sort();
    stages.dedup();
    let wall_ns: i64 = trees.iter().map(|tree| tree.duration_ns).sum();
    let busy: i64 = nodes.iter().map(|node| node.self_ns).sum();
    let mut rows: Vec<BreakdownRow> =
        stages.iter().map(|stage| row(trees, stage, wall_ns as f64 / busy.max(1) as f64)).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.wall_ns));
    let rest = wall_ns - rows.iter().map(|row| row.wall_ns).sum::<i64>();
    if let Some(first) = rows.first_mut() {
        first.wall_ns += rest;
    }
    for row in &mut rows {
        row.wall_share = row.wall_ns as f64 / wall_ns as f64;
        row.critical_share = row.wall_share;
    }
    let origins = trees.iter().flat_map(|tree| tree.nodes.iter().map(move |node| (tree, node)));
    let errors: Vec<ErrorOrigin> = origins
        .filter(|(_, node)| node.span.is_error_origin)
        .map(|(tree, node)| ErrorOrigin {
            trace_id: tree.trace_id.clone(),
            span_id: node.span.span_id.clone(),
            stage: node.span.stage.clone(),
            error_type: node.span.error_type.clone().unwrap_or_default(),
            message: node.span.error_message.clone().unwrap_or_default(),
        })
        .collect();
    Breakdown {
        schema_version: SCHEMA_VERSION,
        run_id: name.to_owned(),
        traces: trees.len() as u64,
        spans: nodes.len() as u64,
        wall_ns,
        lost_spans: 0,
        dropped_events: 0,
        metric_tokens: None,
        rows,
        tokens: TokenTotals {
            llm_input: 1_136_000,
            llm_output: 43_118,
            embedding: 9_812,
            estimated_input: 1_200,
            estimated_output: 0,
        },
        errors,
        goodput: None,
    }
}

fn row(trees: &[TraceTree], stage: &str, factor: f64) -> BreakdownRow {
    let nodes: Vec<&TraceNode> =
        trees.iter().flat_map(|tree| &tree.nodes).filter(|node| node.span.stage == stage).collect();
    let durations = durations(trees, stage);
    let self_ns: i64 = nodes.iter().map(|node| node.self_ns).sum();
    let sum = |of: fn(&SpanRow) -> Option<i64>| {
        nodes.iter().filter_map(|node| of(&node.span)).reduce(|a, b| a + b)
    };
    let is_llm = stage == "llm";
    BreakdownRow {
        stage: stage.to_owned(),
        kind: nodes[0].span.kind.clone(),
        calls: nodes.len() as u64,
        errors: nodes.iter().filter(|node| node.span.is_error_origin).count() as u64,
        total_ns: durations.iter().sum(),
        self_ns,
        wall_ns: (self_ns as f64 * factor) as i64,
        p50_ns: percentile(&durations, 50).unwrap(),
        p95_ns: percentile(&durations, 95).unwrap(),
        p99_ns: percentile(&durations, 99).unwrap(),
        queue_mean_ns: sum(|span| span.queue_ns).map(|ns| ns / nodes.len() as i64),
        batch_mean: nodes[0].span.batch_size.map(|size| size as f64 - 0.6),
        input_tokens: sum(|span| span.input_tokens),
        output_tokens: sum(|span| span.output_tokens),
        tokens_source: if is_llm { "provider" } else { "none" }.to_owned(),
        cost_usd: is_llm.then_some(0.244),
        ttft_p50_ns: is_llm.then_some(156_000_000),
        ..BreakdownRow::default()
    }
}

fn diff() -> Diff {
    let row = |stage: &str, base: f64, effect: f64, half: f64, verdict, explains| DiffRow {
        stage: stage.to_owned(),
        metric: "latency".to_owned(),
        unit: "ns".to_owned(),
        base,
        candidate: base * (1.0 + effect),
        effect,
        effect_ci: [effect - half, effect + half],
        p_adjusted: (stage != "(end to end)").then_some(if verdict == Verdict::Worse {
            0.0002
        } else {
            0.41
        }),
        n_base: 400,
        n_candidate: 400,
        verdict,
        explains_share: explains,
        resolvable: None,
        runs_needed: None,
        note: (verdict == Verdict::Inconclusive)
            .then(|| "about 900 more operations would tell".to_owned()),
    };
    Diff {
        schema_version: SCHEMA_VERSION,
        base: "main-412".to_owned(),
        candidate: "rerank-v2".to_owned(),
        paired: true,
        pairs: 393,
        repeats: [1, 1],
        settings_diff: vec![
            (
                "rerank.model".to_owned(),
                "\"ms-marco-MiniLM-L-6-v2\"".to_owned(),
                "\"ms-marco-MiniLM-L-12-v2\"".to_owned(),
            ),
            ("rerank.top_k".to_owned(), "16".to_owned(), "24".to_owned()),
        ],
        warnings: Vec::new(),
        rows: vec![
            row("(end to end)", 782e6, 0.096, 0.021, Verdict::Worse, None),
            row("rerank.score", 64e6, 0.389, 0.03, Verdict::Worse, Some(0.982)),
            row("llm", 514e6, 0.004, 0.019, Verdict::Same, Some(0.021)),
            row("vector.search", 33.8e6, -0.012, 0.09, Verdict::Inconclusive, Some(-0.004)),
            row("guardrail", 14e6, -0.11, 0.04, Verdict::Better, Some(-0.019)),
            row("embed", 9e6, 0.0, 0.01, Verdict::Same, Some(0.01)),
            row("prompt", 1.1e6, f64::NAN, f64::NAN, Verdict::Inconclusive, None),
        ],
        verdict: Verdict::Worse,
        findings: Vec::new(),
        note: "Wilcoxon signed rank on log ratios, cluster bootstrap over 20 blocks.".to_owned(),
    }
}

/// A small generator of its own, so that the sample never changes.
struct Dice(u64);

impl Dice {
    /// A uniform number below 1.
    fn roll(&mut self) -> f64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as f64 / (1_u64 << 31) as f64
    }

    /// A duration spread log-normally around a median.
    fn around(&mut self, median_ns: f64, spread: f64) -> i64 {
        let normal: f64 = (0..12).map(|_| self.roll()).sum::<f64>() - 6.0;
        (median_ns * (normal * spread).exp()) as i64
    }
}
