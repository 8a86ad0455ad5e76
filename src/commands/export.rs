//! `retake export`.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use retake_recorder::RunReader;
use retake_recorder::export::{self, ExportError, ExportOptions, ExportSummary};

use crate::cli::Export;
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::progress::Progress;
use crate::units::bytes;

pub(crate) fn run(context: &Context, args: &Export) -> Result<Code, Failure> {
    let store = context.store()?;
    let run_id = context.select(&store, &args.run)?;
    let reader = RunReader::open(&store, &run_id)?;
    reader.damage().iter().for_each(|damage| context.warn(damage));
    let path = args
        .output
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("{run_id}.{}", args.to.extension())));
    let progress = Progress::new(context.quiet, "export", "rows");
    let written = if path == Path::new("-") {
        write(&reader, args, &mut BufWriter::new(std::io::stdout().lock()), &progress)
    } else {
        to_file(&reader, args, &path, &progress)
    };
    progress.finish();
    let summary = written?;
    context.say(&format!(
        "wrote {} spans of {} traces, {} of tokens and log lines, {}{}",
        summary.spans,
        summary.traces,
        summary.instants,
        bytes(summary.bytes),
        if path == Path::new("-") { String::new() } else { format!(", to {}", path.display()) }
    ));
    if summary.left_out > 0 {
        context.say(&format!(
            "{} rows have no place in {} and were left out",
            summary.left_out, args.to
        ));
    }
    Ok(Code::Ok)
}

/// Writes beside the file and renames, so that what has its name is whole.
fn to_file(
    reader: &RunReader,
    args: &Export,
    path: &Path,
    progress: &Progress,
) -> Result<ExportSummary, Failure> {
    let cannot = |error: std::io::Error| {
        Failure::new(Code::Environment, format!("write {}: {error}", path.display()))
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let file = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new("."))).map_err(cannot)?;
    let mut out = BufWriter::new(file);
    let summary = write(reader, args, &mut out, progress)?;
    let file = out.into_inner().map_err(|error| cannot(error.into_error()))?;
    file.persist(path).map_err(|error| cannot(error.error))?;
    Ok(summary)
}

fn write(
    reader: &RunReader,
    args: &Export,
    out: &mut impl Write,
    progress: &Progress,
) -> Result<ExportSummary, Failure> {
    let options = ExportOptions { with_text: args.with_text };
    let mut on_rows = |step: export::ExportProgress| progress.at(step.rows_done, step.rows_total);
    export::write(reader, args.to, &options, out, &mut on_rows).map_err(|error| match error {
        ExportError::Read(error) => error.into(),
        ExportError::Write(error) => error.into(),
        error => Failure::new(Code::Environment, error.to_string()),
    })
}
