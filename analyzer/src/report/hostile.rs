//! The rich sample with a payload in every string, for the tests.

use retake_schemas::tables::{RunRow, SpanRow};

use crate::model::{Breakdown, Diff, Flame, ReportData, ReportQuery};

/// The first traces of a run, with `payload` in every string there is.
pub(super) fn hostile(base: &ReportData, payload: &str) -> ReportData {
    let mut data = base.clone();
    data.traces.truncate(3);
    data.trees.truncate(3);
    data.breakdown.rows.truncate(4);
    data.breakdown.errors.truncate(3);
    let text = || payload.to_owned();
    spoil_run(&mut data.run, payload);
    spoil_breakdown(&mut data.breakdown, payload);
    for trace in &mut data.traces {
        (trace.trace_id, trace.name) = (text(), text());
        (trace.request_id, trace.error) = (Some(text()), Some(text()));
    }
    for tree in &mut data.trees {
        tree.trace_id = text();
        for node in &mut tree.nodes {
            spoil_span(&mut node.span, payload);
        }
    }
    data.durations.iter_mut().for_each(|(stage, _)| *stage = text());
    data.quality.flags = vec![(text(), 1)];
    data.queries = vec![ReportQuery { section: "stages", title: text(), sql: text() }];
    spoil_flames(&mut data.flames, payload);
    for budget in &mut data.budgets {
        (budget.budget, budget.metric, budget.unit) = (text(), text(), text());
        (budget.group, budget.note) = (Some(text()), Some(text()));
        budget.evidence.iter_mut().for_each(|one| one.trace_id = text());
    }
    for series in data.trend.iter_mut().flat_map(|trend| &mut trend.series) {
        series.group = text();
        for point in &mut series.points {
            (point.run_id, point.git_sha) = (text(), Some(text()));
        }
        for change in &mut series.changes {
            (change.run, change.sha_before_earliest) = (text(), Some(text()));
            change.sha_latest = Some(format!("{payload}2"));
        }
    }
    if let Some(sweep) = &mut data.sweep {
        (sweep.run_id, sweep.source) = (text(), text());
        for objective in &mut sweep.objectives {
            (objective.name, objective.unit) = (text(), text());
        }
        for setting in &mut sweep.settings {
            setting.label = text();
            setting.measured.iter_mut().for_each(|one| one.run_id = text());
        }
    }
    if let Some(found) = &mut data.retrieval {
        for rank in &mut found.ranks {
            (rank.stage, rank.role) = (text(), text());
        }
        found.quality.iter_mut().for_each(|(name, ..)| *name = text());
        found.sources.iter_mut().for_each(|(source, _)| *source = text());
    }
    if let Some(base) = &mut data.baseline {
        spoil_run(&mut base.run, payload);
        spoil_breakdown(&mut base.breakdown, payload);
        spoil_flames(&mut base.flames, payload);
        spoil_diff(&mut base.diff, payload);
    }
    data
}

fn spoil_flames(flames: &mut [Flame], payload: &str) {
    for (at, flame) in flames.iter_mut().enumerate() {
        flame.stack = format!("{payload}{}", format!(";{payload}").repeat(at % 5));
    }
}

fn spoil_run(run: &mut RunRow, payload: &str) {
    let text = || payload.to_owned();
    for field in [
        &mut run.run_id,
        &mut run.name,
        &mut run.service,
        &mut run.status,
        &mut run.capture,
        &mut run.host,
        &mut run.os,
        &mut run.cpu,
        &mut run.machine_key,
        &mut run.recorder_version,
    ] {
        *field = text();
    }
    for field in [
        &mut run.service_version,
        &mut run.git_sha,
        &mut run.git_branch,
        &mut run.replay_of,
        &mut run.workload,
    ] {
        *field = Some(text());
    }
    run.settings = format!("{{\"{payload}\": \"{payload}\", \"b\": {payload}}}");
    run.labels = run.settings.clone();
}

fn spoil_breakdown(breakdown: &mut Breakdown, payload: &str) {
    let text = || payload.to_owned();
    breakdown.run_id = text();
    for row in &mut breakdown.rows {
        (row.stage, row.kind, row.tokens_source) = (text(), format!("{payload} "), text());
        row.input_tokens = Some(1);
    }
    for error in &mut breakdown.errors {
        (error.trace_id, error.span_id, error.stage) = (text(), text(), text());
        (error.error_type, error.message) = (text(), text());
    }
}

fn spoil_span(span: &mut SpanRow, payload: &str) {
    let text = || payload.to_owned();
    for field in [
        &mut span.run_id,
        &mut span.trace_id,
        &mut span.span_id,
        &mut span.name,
        &mut span.kind,
        &mut span.stage,
        &mut span.status,
        &mut span.tokens_source,
    ] {
        *field = text();
    }
    span.input_tokens = Some(1);
    for field in [
        &mut span.parent_span_id,
        &mut span.error_type,
        &mut span.error_message,
        &mut span.service,
        &mut span.model_request,
        &mut span.model_response,
        &mut span.provider,
        &mut span.request_id,
        &mut span.flags,
        &mut span.attributes,
        &mut span.session_id,
        &mut span.user_id,
    ] {
        *field = Some(text());
    }
}

fn spoil_diff(diff: &mut Diff, payload: &str) {
    let text = || payload.to_owned();
    (diff.base, diff.candidate, diff.note) = (text(), text(), text());
    diff.settings_diff = vec![(text(), text(), text())];
    diff.warnings = vec![text()];
    for row in diff.rows.iter_mut().skip(1) {
        (row.stage, row.metric, row.unit, row.note) = (text(), text(), text(), Some(text()));
    }
}
