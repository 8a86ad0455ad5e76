//! `retake workload`.

use std::path::Path;
use std::time::Duration;

use retake_replay::workload::import::{ImportOptions, import};
use retake_replay::workload::reshape::Stamps;
use retake_replay::workload::{Operations, Workload};

use crate::cli::{self, Format, StampsArg, WorkloadImport, WorkloadScale};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{print, print_json, unsupported};
use crate::render;
use crate::units::{count, duration};

pub(crate) fn run(context: &Context, verb: cli::Workload) -> Result<Code, Failure> {
    match verb {
        cli::Workload::Import(args) => import_trace(context, &args),
        cli::Workload::Cut { source, from, length, operations, output } => {
            let operations = operations.map(Operations::from).unwrap_or_default();
            let mut workload = cut(context, &source, operations)?;
            if from.is_some() || length.is_some() {
                let ns = |time: Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
                let (from, length) = (from.map_or(0, ns), length.map_or(i64::MAX, ns));
                let span_ns = workload.span_ns();
                workload = workload.window(from, length);
                if workload.operations.is_empty() {
                    let message = format!("cut {source}: nothing is due in that window");
                    return Err(Failure::new(Code::Usage, message)
                        .help(format!("its operations are due over {}", duration(span_ns))));
                }
            }
            write(context, &workload, &output)
        }
        cli::Workload::Sample { workload, operations, seed, output } => {
            let whole = Workload::read(&workload)?;
            let operations = usize::try_from(operations).unwrap_or(usize::MAX);
            write(context, &whole.sample_sessions(operations, seed), &output)
        }
        cli::Workload::Scale(args) => scale(context, &args),
        cli::Workload::Stats { workload } => stats(context, &workload),
    }
}

fn import_trace(context: &Context, args: &WorkloadImport) -> Result<Code, Failure> {
    let options = ImportOptions { format: args.trace_format, skip_bad_lines: args.skip_bad };
    let (workload, report) = import(&args.files, options)?;
    for bad in &report.bad_lines_shown {
        context.warn(&format!("left out {bad}"));
    }
    for note in &report.notes {
        context.warn(note);
    }
    workload.write(&args.output)?;
    match context.format_or(Format::Table) {
        Format::Json => print_json(&render::workload::import_json(&report, &workload))?,
        Format::Table | Format::Markdown => print(&render::workload::import(&report))?,
        other => return Err(unsupported(other, "an import")),
    }
    context.say(&format!("next: retake workload stats {}", args.output.display()));
    Ok(Code::Ok)
}

fn cut(context: &Context, run: &str, operations: Operations) -> Result<Workload, Failure> {
    if is_file(Path::new(run)) {
        return Ok(Workload::read(Path::new(run))?);
    }
    let store = context.store()?;
    let run_id = context.select(&store, run)?;
    let cut = Workload::cut_shapes(&store, &run_id, operations)?;
    if cut.without_input > 0 {
        context.warn(&format!(
            "{} of {} operations have no usable input, only their lengths and times; a run recorded \
             with --capture full has them",
            cut.without_input,
            cut.workload.operations.len()
        ));
    }
    Ok(cut.workload)
}

fn scale(context: &Context, args: &WorkloadScale) -> Result<Code, Failure> {
    let stamps = stamps(args.stamps, args.seed);
    let mut workload = Workload::read(&args.workload)?.with_stamps(stamps);
    if let Some(per_second) = args.poisson {
        workload = workload.with_poisson(per_second, args.seed);
    }
    if let Some(copies) = args.sessions {
        workload = workload.scale_sessions(copies, args.seed);
    }
    if let Some(factor) = args.speed {
        workload = workload.at_speed(factor);
    }
    write(context, &workload, &args.output)
}

fn write(context: &Context, workload: &Workload, output: &Path) -> Result<Code, Failure> {
    workload.write(output)?;
    let operations = i64::try_from(workload.operations.len()).unwrap_or(i64::MAX);
    context.say(&format!("wrote {} operations to {}", count(operations), output.display()));
    context.say(&format!("next: retake workload stats {}", output.display()));
    Ok(Code::Ok)
}

fn stats(context: &Context, source: &str) -> Result<Code, Failure> {
    let workload = of(context, source, Operations::default(), &[])?;
    let stats = workload.stats();
    match context.format_or(Format::Table) {
        Format::Json => print_json(&render::workload::stats_json(&stats, &workload))?,
        Format::Table => print(&render::workload::stats(&stats, Format::Table))?,
        Format::Markdown => print(&render::workload::stats(&stats, Format::Markdown))?,
        other => return Err(unsupported(other, "statistics of a workload")),
    }
    Ok(Code::Ok)
}

/// How stamps are repaired.
pub(super) fn stamps(stamps: StampsArg, seed: u64) -> Stamps {
    match stamps {
        StampsArg::AsIs => Stamps::AsIs,
        StampsArg::Spread => Stamps::Spread,
        StampsArg::Jitter => Stamps::Jitter { seed },
    }
}

/// The workload of a file, or of a run as far as its inputs were kept; of these kinds, if any are
/// named.
pub(super) fn of(
    context: &Context,
    source: &str,
    operations: Operations,
    kinds: &[String],
) -> Result<Workload, Failure> {
    let path = Path::new(source);
    let whole = if is_file(path) {
        Workload::read(path)?
    } else {
        let store = context.store()?;
        let run_id = context.select(&store, source)?;
        Workload::cut_shapes(&store, &run_id, operations)?.workload
    };
    Ok(if kinds.is_empty() { whole } else { whole.only(kinds)? })
}

/// Whether a source names a workload file rather than a run: run selectors have no such ending.
pub(super) fn is_file(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"))
}
