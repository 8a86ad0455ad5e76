//! `retake model`: models of services for virtual time.

use std::collections::HashMap;
use std::path::Path;

use retake_recorder::RunReader;
use retake_replay::simulate::fit::{Checked, Fitted, check_model, fit_model};
use retake_replay::simulate::model::Model;
use retake_replay::target::Operation;
use retake_replay::workload::{Operations, Workload};
use retake_schemas::tables::SpanRow;
use serde_json::json;

use super::workload;
use crate::cli::{self, Format, ModelCheck, ModelFit, Modelled};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{print, print_json, row, table, unsupported};
use crate::units::{change, count, duration, percent};

pub(crate) fn run(context: &Context, verb: cli::Model) -> Result<Code, Failure> {
    match verb {
        cli::Model::Fit(args) => fit(context, &args),
        cli::Model::Check(args) => check(context, &args),
    }
}

fn fit(context: &Context, args: &ModelFit) -> Result<Code, Failure> {
    let (workload, first_tokens) = of(context, &args.of)?;
    let fitted = fit_model(&workload, &first_tokens, &args.stage, args.slots)?;
    let checked = check_model(&workload, &fitted.model)?;
    let text = serde_json::to_string_pretty(&fitted.model)
        .map_err(|error| Failure::new(Code::Internal, format!("write JSON: {error}")))?;
    std::fs::write(&args.output, text + "\n").map_err(|error| {
        let message = format!("write model {}: {error}", args.output.display());
        Failure::new(Code::Environment, message)
    })?;
    match context.format_or(Format::Table) {
        Format::Json => print_json(&json!({
            "schema_version": 1, "fitted": fitted, "checked": checked, "errors": checked.errors(),
        }))?,
        format @ (Format::Table | Format::Markdown) => {
            print(&format!("{}{}", words(&fitted), latencies(&checked, format)))?;
        }
        other => return Err(unsupported(other, "a model")),
    }
    context.say(&format!("wrote {}", args.output.display()));
    let kinds = match args.of.kind.as_slice() {
        [] => String::new(),
        kinds => format!(" --kind {}", kinds.join(",")),
    };
    context.say(&format!(
        "next: retake replay run {}{kinds} --clock virtual --model {}",
        args.of.source,
        args.output.display()
    ));
    Ok(Code::Ok)
}

fn check(context: &Context, args: &ModelCheck) -> Result<Code, Failure> {
    let model = Model::read(&args.model)?;
    let (workload, _) = of(context, &args.of)?;
    let checked = check_model(&workload, &model)?;
    match context.format_or(Format::Table) {
        Format::Json => print_json(&json!({
            "schema_version": 1, "checked": checked, "errors": checked.errors(),
        }))?,
        format @ (Format::Table | Format::Markdown) => print(&latencies(&checked, format))?,
        other => return Err(unsupported(other, "a model")),
    }
    Ok(Code::Ok)
}

/// The workload, and when the first token of each operation came, where that was recorded.
fn of(context: &Context, args: &Modelled) -> Result<(Workload, HashMap<u64, i64>), Failure> {
    let operations = args.operations.map(Operations::from).unwrap_or_default();
    let workload = workload::of(context, &args.source, operations, &args.kind)?;
    let first_tokens = match &workload.source_run {
        Some(run_id) if !workload::is_file(Path::new(&args.source)) => {
            first_tokens(&workload, &RunReader::open(&context.store()?, run_id)?)?
        }
        _ => HashMap::new(),
    };
    Ok((workload, first_tokens))
}

fn first_tokens(workload: &Workload, reader: &RunReader) -> Result<HashMap<u64, i64>, Failure> {
    let firsts: HashMap<(String, String), i64> = reader
        .rows::<SpanRow>()?
        .into_iter()
        .filter_map(|span| Some(((span.trace_id, span.span_id), span.ttft_ns?)))
        .collect();
    let of = |operation: &Operation| {
        let link = operation.source.as_ref()?;
        let key = (link.trace_id.to_string(), link.span_id.to_string());
        Some((operation.index, *firsts.get(&key)?))
    };
    Ok(workload.operations.iter().filter_map(of).collect())
}

fn words(fitted: &Fitted) -> String {
    let mut text = format!(
        "{}: {} (from {} calls",
        fitted.model.stages.first().map_or("", |stage| stage.stage.as_str()),
        fitted.formula,
        count(i64::try_from(fitted.calls).unwrap_or(i64::MAX))
    );
    if let Some(error) = fitted.error_median {
        text.push_str(&format!(
            "; one that was not used for the fit is off by {} at the median",
            percent(error)
        ));
    }
    text.push_str(")\n");
    for note in &fitted.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    text
}

fn latencies(checked: &Checked, format: Format) -> String {
    let [p50, p90, p99] = checked.errors();
    let (recorded, predicted) = (&checked.recorded, &checked.predicted);
    let mut shown = table(format, &["latency", "recorded", "by the model", "off by"], 1);
    for (name, recorded_ns, predicted_ns, error) in [
        ("p50", recorded.p50_ns, predicted.p50_ns, p50),
        ("p90", recorded.p90_ns, predicted.p90_ns, p90),
        ("p99", recorded.p99_ns, predicted.p99_ns, p99),
    ] {
        let cells = [duration(recorded_ns), duration(predicted_ns), change(error)];
        row(&mut shown, [name.to_owned()].into_iter().chain(cells));
    }
    format!("{shown}\n")
}
