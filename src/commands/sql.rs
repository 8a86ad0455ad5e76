//! `retake sql`: one query, a script, or a small shell.

use std::io::{BufRead, IsTerminal, Read, Write};
use std::time::Instant;

use retake_analyzer::format::{Format as ResultFormat, write_result};
use retake_analyzer::{Analyzer, QueryResult, Scope, sql_reference_markdown};

use crate::cli::{Format, Sql};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::print;
use crate::render;

pub(crate) async fn run(context: &Context, args: Sql) -> Result<Code, Failure> {
    if args.reference {
        print(&sql_reference_markdown())?;
        return Ok(Code::Ok);
    }
    let store = context.store()?;
    let scope = if args.run.is_empty() {
        Scope::All
    } else {
        let runs = args.run.iter().map(|run| context.select(&store, run));
        Scope::Runs(runs.collect::<Result<_, _>>()?)
    };
    let analyzer = Analyzer::open_priced(&store, scope, &context.config.settings.prices)?;
    analyzer.warnings().iter().for_each(|warning| context.warn(warning));
    let query = match (args.query, args.file) {
        (Some(query), _) => Some(query),
        (None, Some(file)) => Some(std::fs::read_to_string(&file).map_err(|error| {
            let code = match error.kind() {
                std::io::ErrorKind::NotFound => Code::NotFound,
                _ => Code::Environment,
            };
            Failure::new(code, format!("read query {}: {error}", file.display()))
        })?),
        (None, None) if std::io::stdin().is_terminal() => None,
        (None, None) => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text)?;
            Some(text)
        }
    };
    match query {
        Some(query) => {
            let result = analyzer.query(&query).await?;
            write(context, &result)?;
        }
        None => shell(context, &analyzer).await?,
    }
    Ok(Code::Ok)
}

/// Writes a result in the format asked for.
pub(super) fn write(context: &Context, result: &QueryResult) -> Result<(), Failure> {
    let format = match context.format_or(Format::Table) {
        Format::Table => return print(&render::result(result)),
        Format::Json => ResultFormat::Json,
        Format::Ndjson => ResultFormat::Ndjson,
        Format::Csv => ResultFormat::Csv,
        Format::Markdown => ResultFormat::Markdown,
        Format::Arrow => ResultFormat::Arrow,
        Format::Parquet => ResultFormat::Parquet,
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

/// A read-eval-print loop: a query ends with `;`, and a wrong one does not end the shell.
async fn shell(context: &Context, analyzer: &Analyzer) -> Result<(), Failure> {
    context.say("SQL over the run history. \\d lists tables and views, \\timing, \\q ends.");
    let (mut text, mut is_timed) = (String::new(), false);
    loop {
        eprint!("{}", if text.is_empty() { "retake> " } else { "   ...> " });
        let mut line = String::new();
        if std::io::stdin().lock().read_line(&mut line)? == 0 {
            eprintln!();
            return Ok(());
        }
        match line.trim() {
            "\\q" | "exit" | "quit" => return Ok(()),
            "\\timing" => {
                is_timed = !is_timed;
                eprintln!("timing is {}", if is_timed { "on" } else { "off" });
                continue;
            }
            "\\d" => text = TABLES.to_owned(),
            _ => text.push_str(&line),
        }
        if !text.trim_end().ends_with(';') {
            continue;
        }
        let began = Instant::now();
        let query = std::mem::take(&mut text);
        match analyzer.query(query.trim().trim_end_matches(';')).await {
            Ok(result) => write(context, &result)?,
            Err(error) => {
                let _ = Failure::from(error).report();
            }
        }
        if is_timed {
            eprintln!("{:.1?}", began.elapsed());
        }
    }
}

const TABLES: &str = "select table_name, table_type from information_schema.tables \
                      where table_schema <> 'information_schema' order by table_type, table_name;";
