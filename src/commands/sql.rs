//! `retake sql`: one query, a script, or a small shell.

use std::io::{IsTerminal, Read, Write};
use std::path::Path;
use std::time::Instant;

use retake_analyzer::format::write_result;
use retake_analyzer::{Analyzer, AnalyzerOptions, QueryResult, Scope, sql_reference_markdown};
use retake_recorder::Store;

use crate::cli::{Format, Sql};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{print, result_format};
use crate::render;
use crate::shell::{self, Start};

pub(crate) async fn run(context: &Context, args: Sql) -> Result<Code, Failure> {
    if args.reference {
        print(&sql_reference_markdown())?;
        return Ok(Code::Ok);
    }
    let store = context.store()?;
    let scope = scope(context, &store, &args.run)?;
    let options = AnalyzerOptions { memory_bytes_max: args.memory, ..context.analyzer_options() };
    let (text, is_script) = match (args.query, &args.file) {
        (Some(query), _) => (query, false),
        (None, Some(file)) => (script(file)?, true),
        (None, None) if std::io::stdin().is_terminal() => {
            let start = Start { store, scope, options, is_timed: args.timing };
            shell::run(context, start).await?;
            return Ok(Code::Ok);
        }
        (None, None) => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text)?;
            (text, true)
        }
    };
    let analyzer = Analyzer::open_with(&store, scope, &options)?;
    analyzer.warnings().iter().for_each(|warning| context.warn(warning));
    let mut statements = if is_script { shell::split(&text) } else { vec![text.as_str()] };
    if statements.is_empty() {
        // The engine says what it expected instead of nothing.
        statements.push("");
    }
    if statements.len() > 1
        && matches!(context.format_or(Format::Table), Format::Arrow | Format::Parquet)
    {
        let message = format!("write {} results into one binary file", statements.len());
        return Err(Failure::new(Code::Usage, message).help("one statement, or a text format"));
    }
    for (index, statement) in statements.iter().enumerate() {
        let began = Instant::now();
        let result = analyzer.query(statement).await?;
        write(context, &result)?;
        if args.timing {
            context.report_time(&format!("statement {}", index + 1), began.elapsed());
        }
    }
    Ok(Code::Ok)
}

fn scope(context: &Context, store: &Store, runs: &[String]) -> Result<Scope, Failure> {
    if runs.is_empty() {
        return Ok(Scope::All);
    }
    let runs = runs.iter().map(|run| context.select(store, run));
    Ok(Scope::Runs(runs.collect::<Result<_, _>>()?))
}

fn script(file: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(file).map_err(|error| {
        let code = match error.kind() {
            std::io::ErrorKind::NotFound => Code::NotFound,
            _ => Code::Environment,
        };
        Failure::new(code, format!("read query {}: {error}", file.display()))
    })
}

/// Writes a result in the format asked for.
pub(super) fn write(context: &Context, result: &QueryResult) -> Result<(), Failure> {
    let Some(format) = result_format(context.format_or(Format::Table)) else {
        return print(&render::result(result));
    };
    if !format.is_text() && std::io::stdout().is_terminal() {
        let message = format!("write {} to a terminal", format.as_str());
        return Err(Failure::new(Code::Usage, message).help("redirect it: … > result.bin"));
    }
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    write_result(result, format, &mut out)?;
    out.flush()?;
    Ok(())
}
