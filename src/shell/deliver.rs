//! Where an answer goes: onto the screen, or into a file.

use std::io::{BufWriter, IsTerminal, Write};
use std::path::Path;

use retake_analyzer::format::{Format as ResultFormat, write_result};

use super::answer::Answer;
use crate::cli::Format;
use crate::failure::{Code, Failure};
use crate::output::{print, result_format};
use crate::render;

/// How answers are shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) format: Format,
    pub(crate) is_expanded: bool,
}

/// Shows an answer; only its beginning when it is long.
pub(crate) fn show(answer: &Answer, look: Look) -> Result<(), Failure> {
    let result = &answer.result;
    let kept = result.num_rows();
    let more = if answer.rows > kept {
        format!(", the first {kept} shown, {} left out; {HOW_TO_SEE_ALL}", answer.rows - kept)
    } else {
        String::new()
    };
    let Some(format) = result_format(look.format) else {
        let shown = if look.is_expanded { render::expanded(result) } else { render::rows(result) };
        return print(&format!("{shown}\n{} rows{more}", answer.rows));
    };
    if !format.is_text() && std::io::stdout().is_terminal() {
        let message = format!("write {} to a terminal", format.as_str());
        return Err(Failure::new(Code::Usage, message).help("\\o FILE writes the next result"));
    }
    let mut out = BufWriter::new(std::io::stdout().lock());
    write_result(result, format, &mut out)?;
    out.flush()?;
    if !more.is_empty() {
        let _ = writeln!(std::io::stderr(), "{} rows{more}", answer.rows);
    }
    Ok(())
}

/// Writes a whole answer into a file, in the format its ending names, else in the shell's; says
/// in which.
pub(crate) fn write_file(answer: &Answer, file: &Path, look: Look) -> Result<String, Failure> {
    let of_ending = file.extension().and_then(|ending| ending.to_str()).and_then(of_ending);
    let format = of_ending.or_else(|| result_format(look.format));
    let failed = |error: std::io::Error| {
        Failure::new(Code::Environment, format!("write {}: {error}", file.display()))
    };
    let mut out = BufWriter::new(std::fs::File::create(file).map_err(failed)?);
    let name = match format {
        Some(format) => {
            write_result(&answer.result, format, &mut out)?;
            format.as_str()
        }
        None => {
            let result = &answer.result;
            let shown =
                if look.is_expanded { render::expanded(result) } else { render::rows(result) };
            writeln!(out, "{shown}").map_err(failed)?;
            "table"
        }
    };
    out.flush().map_err(failed)?;
    Ok(format!("{} rows as {name} in {}", answer.rows, file.display()))
}

fn of_ending(ending: &str) -> Option<ResultFormat> {
    match ending {
        "md" => Some(ResultFormat::Markdown),
        "jsonl" => Some(ResultFormat::Ndjson),
        other => other.parse().ok(),
    }
}

const HOW_TO_SEE_ALL: &str = "\\o FILE.csv and the query again writes all";

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use retake_analyzer::QueryResult;

    use super::*;

    fn answer() -> Answer {
        let values: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let batch = RecordBatch::try_from_iter([("n", values)]).unwrap();
        let result = QueryResult { schema: batch.schema(), batches: vec![batch] };
        Answer { result, rows: 2, took: Duration::ZERO }
    }

    /// Scenario: files with endings known and unknown, and a folder that is not there.
    /// Guarantees: the ending is the format, else the shell's is; a failure names the file.
    #[test]
    fn the_ending_is_the_format() {
        let folder = tempfile::tempdir().unwrap();
        let look = |format| Look { format, is_expanded: false };
        let written = |name: &str, format| {
            let file = folder.path().join(name);
            let said = write_file(&answer(), &file, look(format)).unwrap();
            (said, std::fs::read(file).unwrap())
        };
        let (said, content) = written("a.csv", Format::Table);
        assert!(said.starts_with("2 rows as csv in "), "{said}");
        assert_eq!(content, b"n\n1\n2\n");
        assert!(written("a.parquet", Format::Table).1.starts_with(b"PAR1"));
        assert_eq!(written("a.jsonl", Format::Csv).1, b"{\"n\":1}\n{\"n\":2}\n");
        assert_eq!(written("a.txt", Format::Csv).1, b"n\n1\n2\n");
        assert!(written("a", Format::Table).0.starts_with("2 rows as table"));
        let nowhere = folder.path().join("no/such.csv");
        let failure = write_file(&answer(), &nowhere, look(Format::Csv)).unwrap_err();
        assert!(failure.message().contains("such.csv"), "{}", failure.message());
    }
}
