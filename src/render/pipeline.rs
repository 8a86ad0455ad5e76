//! What the built-in pipeline and replays report.

use retake_pipeline::document::{FoundBy, Hit, Place};
use retake_pipeline::eval::EvalReport;
use retake_pipeline::ingest::IngestReport;
use retake_pipeline::query::Answer;
use retake_replay::cassette::CassetteUse;
use retake_replay::engine::ReplayReport;
use retake_replay::plan::Plan;
use retake_schemas::RunId;
use serde_json::{Value, json};

use crate::cli::Format;
use crate::output::{inert, row, table};
use crate::units::{duration, duration_or_dash};

/// An ingest in a few lines.
pub(crate) fn ingest(report: &IngestReport) -> String {
    let seconds = report.duration.as_secs_f64();
    let rate = if seconds > 0.0 { report.committed as f64 / seconds } else { 0.0 };
    let mut text = format!(
        "{} documents found: {} ingested, {} unchanged, {} failed, in {seconds:.2} s ({rate:.0}/s)\n\
         {} chunks in {} embedding calls, {} tokens\n",
        report.found,
        report.committed,
        report.unchanged,
        report.failed,
        report.chunks,
        report.batches,
        report.tokens
    );
    for (count, what) in [
        (report.chunks_cached, "chunks had their vector in the cache"),
        (report.duplicates, "documents left out: their content is in the collection already"),
        (report.deleted, "documents deleted: they are no longer on the disk"),
        (report.batch_changes, "changes of the batch size"),
    ] {
        if count > 0 {
            text.push_str(&format!("{count} {what}\n"));
        }
    }
    for (reason, count) in &report.skipped {
        text.push_str(&format!("{count} files left out: {}\n", inert(reason)));
    }
    if report.is_cancelled {
        text.push_str("ended early; the same command goes on where it stopped\n");
    }
    text
}

/// An ingest as JSON.
pub(crate) fn ingest_json(run_id: &RunId, report: &IngestReport) -> Value {
    let failures: Vec<Value> = report
        .failures
        .iter()
        .map(|f| json!({"id": f.id, "error_type": f.error_type, "message": f.message}))
        .collect();
    json!({
        "schema_version": 1,
        "run_id": run_id,
        "found": report.found,
        "committed": report.committed,
        "unchanged": report.unchanged,
        "duplicates": report.duplicates,
        "deleted": report.deleted,
        "failed": report.failed,
        "failures": failures,
        "skipped": report.skipped,
        "chunks": report.chunks,
        "chunks_cached": report.chunks_cached,
        "batches": report.batches,
        "batch_changes": report.batch_changes,
        "tokens": report.tokens,
        "corpus": report.corpus,
        "cancelled": report.is_cancelled,
        "duration_ns": i64::try_from(report.duration.as_nanos()).unwrap_or(i64::MAX),
    })
}

/// What follows a streamed answer: its sources and its costs.
pub(crate) fn answer(answer: &Answer) -> String {
    let mut text = String::from("\n");
    for hit in &answer.hits {
        let score = hit.rerank_score.map_or_else(String::new, |s| format!(", rerank {s:.2}"));
        let chunk = inert(&hit.chunk.id);
        let found = found(hit);
        text.push_str(&format!("  [{:.3}{found}{score}] {chunk}\n", hit.similarity));
    }
    if let Some(similarity) = answer.cached {
        text.push_str(&format!(
            "kept from a question asked before (similarity {similarity:.3}), in {}",
            duration(answer.latency_ns)
        ));
        return text;
    }
    let tokens = |count: Option<i64>| count.map_or_else(|| "?".to_owned(), |n| n.to_string());
    text.push_str(&format!(
        "{} in all, first token after {}, {}+{} tokens ({})",
        duration(answer.latency_ns),
        duration_or_dash(answer.ttft_ns),
        tokens(answer.input_tokens),
        tokens(answer.output_tokens),
        answer.tokens_source.as_str()
    ));
    text
}

/// Where each search of several has a chunk, counted from 1.
fn found(hit: &Hit) -> String {
    let FoundBy { dense, text, fused } = hit.found;
    let place = |name: &str, place: Option<Place>| {
        place.map_or_else(String::new, |place| format!(", {name} {}", place.rank + 1))
    };
    let dense = if fused.is_some() { place("dense", dense) } else { String::new() };
    format!("{dense}{}", place("text", text))
}

/// An answer as JSON.
pub(crate) fn answer_json(run_id: &RunId, answer: &Answer) -> Value {
    let hits: Vec<Value> = answer
        .hits
        .iter()
        .map(|hit| {
            json!({
                "id": hit.chunk.id,
                "document": hit.chunk.document_id,
                "start_char": hit.chunk.start_char,
                "end_char": hit.chunk.end_char,
                "similarity": hit.similarity,
                "found": hit.found,
                "rerank_score": hit.rerank_score,
            })
        })
        .collect();
    json!({
        "schema_version": 1,
        "run_id": run_id,
        "answer": answer.text,
        "structured": answer.structured,
        "objection": answer.objection.map(|objection| objection.as_str()),
        "hits": hits,
        "latency_ns": answer.latency_ns,
        "ttft_ns": answer.ttft_ns,
        "model_calls": answer.model_calls,
        "cached": answer.cached,
        "passages_cut": answer.passages_cut,
        "input_tokens": answer.input_tokens,
        "output_tokens": answer.output_tokens,
        "tokens_source": answer.tokens_source.as_str(),
        "finish_reason": answer.finish_reason,
    })
}

/// A question with its answer, shortened.
pub(crate) fn question(question: &str, answer: &str) -> String {
    let short: String = answer.chars().take(160).collect();
    let dots = if short.len() < answer.len() { " …" } else { "" };
    format!("  Q {}\n  A {}{dots}", inert(question), inert(&short).replace('\n', " "))
}

/// An evaluation.
pub(crate) fn eval(report: &EvalReport, format: Format) -> String {
    let mut shown = table(format, &["measure", "value"], 1);
    let share = figure;
    let ms = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.2} ms"));
    for (name, value) in [
        ("questions", report.questions.to_string()),
        ("answered", report.ok.to_string()),
        ("of these earlier", report.resumed.to_string()),
        ("failed", report.failed.to_string()),
        ("hit rate", share(report.hit_rate)),
        ("mean recall of reference characters", share(report.recall_mean)),
        ("mean reciprocal rank", share(report.mrr_mean)),
        ("answers with an accepted answer", share(report.answer_match_rate)),
        ("mean latency", ms(report.latency_ms_mean)),
        ("latency, p50", ms(report.latency_ms_p50)),
        ("latency, p95", ms(report.latency_ms_p95)),
        ("mean time to first token", ms(report.ttft_ms_mean)),
        ("calls of the model", report.tokens.calls.to_string()),
        ("input tokens of answers", report.tokens.input.to_string()),
        ("output tokens of answers", report.tokens.output.to_string()),
    ] {
        row(&mut shown, [name.to_owned(), value]);
    }
    let rankings = report.retrieval.iter().flat_map(|retrieval| {
        let by_document = retrieval.by_document.map(|ranking| ("documents", ranking));
        by_document.into_iter().chain([("characters", retrieval.by_span)])
    });
    for (of, ranking) in rankings {
        for (name, value) in [
            ("precision", ranking.precision),
            ("recall", ranking.recall),
            ("average precision", ranking.average_precision),
            ("nDCG", ranking.ndcg),
        ] {
            row(&mut shown, [format!("mean {name} of {of}"), share(Some(value))]);
        }
    }
    for (objection, count) in &report.objections {
        row(&mut shown, [format!("answers {}", objection.replace('_', " ")), count.to_string()]);
    }
    let mut text = shown.to_string();
    if !report.judgements.is_empty() {
        text.push_str(&format!("\n{}", judged(report, format)));
    }
    if !report.benchmarks.is_empty() {
        text.push_str(&format!("\n{}", benchmarks(report, format)));
    }
    text
}

/// What the evaluators said.
fn judged(report: &EvalReport, format: Format) -> String {
    let names =
        ["evaluator", "mean score", "passing", "judged", "invalid", "failed", "not applicable"];
    let mut shown = table(format, &names, 1);
    for (name, all) in &report.judgements {
        let counts = [all.judged, all.invalid, all.failed, all.not_applicable];
        let [judged, invalid, failed, missing] = counts.map(|count| count.to_string());
        let (score, passing) = (figure(all.score_mean), figure(all.passing_rate));
        row(&mut shown, [inert(name), score, passing, judged, invalid, failed, missing]);
    }
    shown.to_string()
}

/// How good the evaluators are, by the labels.
fn benchmarks(report: &EvalReport, format: Format) -> String {
    let names = [
        "evaluator",
        "labels",
        "judged",
        "agreement",
        "mean error",
        "Pearson",
        "Spearman",
        "ties",
        "inconclusive",
    ];
    let mut shown = table(format, &names, 1);
    for (name, found) in &report.benchmarks {
        row(
            &mut shown,
            [
                inert(name),
                found.labelled.to_string(),
                found.judged.to_string(),
                figure(found.agreement),
                figure(found.mean_absolute_error),
                figure(found.pearson),
                figure(found.spearman),
                found.ties.to_string(),
                found.inconclusive.to_string(),
            ],
        );
    }
    shown.to_string()
}

fn figure(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"))
}

/// The settings that differ.
pub(super) fn changes(plan: &Plan, format: Format) -> String {
    if plan.changes.is_empty() {
        return "no setting differs from the recorded run\n".to_owned();
    }
    let mut shown = table(format, &["setting", "recorded", "replay", "changes"], 4);
    for change in &plan.changes {
        let cells = [
            change.name.clone(),
            change.from.to_string(),
            change.to.to_string(),
            change.effect.clone(),
        ];
        row(&mut shown, cells);
    }
    format!("{shown}\n")
}

/// A replay in a few lines.
pub(crate) fn replay(report: &ReplayReport, plan: &Plan, format: Format) -> String {
    format!("{}{}", changes(plan, format), replay_outcome(report))
}

/// What a replay came to, without its settings.
pub(crate) fn replay_outcome(report: &ReplayReport) -> String {
    let mut text = format!("{}\n", replay_line(report));
    let fidelity = &report.fidelity;
    if fidelity.scheduled > 0 {
        text.push_str(&format!(
            "fired - due: p50 {}, p99 {}, max {}; longest stall of the machine {}\n",
            duration(fidelity.fire_error_p50_ns),
            duration(fidelity.fire_error_p99_ns),
            duration(fidelity.fire_error_max_ns),
            duration(fidelity.canary_stall_max_ns)
        ));
    }
    if report.ok > 0 {
        let (due, send) = (&report.latency_from_due, &report.latency_from_send);
        text.push_str(&format!(
            "latency from due: p50 {}, p90 {}, p99 {}; from send: p50 {}, p90 {}, p99 {}\n",
            duration(due.p50_ns),
            duration(due.p90_ns),
            duration(due.p99_ns),
            duration(send.p50_ns),
            duration(send.p90_ns),
            duration(send.p99_ns)
        ));
    }
    text
}

/// What a recording of answers was good for.
pub(crate) fn cassette(uses: &CassetteUse) -> String {
    let mut text = format!("{} answers came from the recording", uses.recorded);
    if uses.repeated > 0 {
        text.push_str(&format!(", {} of them again", uses.repeated));
    }
    text.push_str(&format!("; it did not know {} requests", uses.missed));
    if uses.missed > 0 {
        text.push_str(&format!(
            " ({} never recorded, {} asked more often than recorded), which went to the model or \
             failed",
            uses.not_recorded, uses.used_up
        ));
    }
    text
}

/// A replay in one line.
pub(crate) fn replay_line(report: &ReplayReport) -> String {
    let ReplayReport { planned, ok, error, cancelled, refused, .. } = report;
    let verdict = match &report.objection {
        None => "VALID".to_owned(),
        Some(objection) => format!("INVALID: {objection}"),
    };
    let wall = duration(report.wall_ns);
    format!(
        "{planned} planned = {ok} ok + {error} failed + {cancelled} cancelled + {refused} refused, \
         in {wall}; {verdict}"
    )
}
