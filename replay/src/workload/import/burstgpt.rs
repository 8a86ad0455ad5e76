//! BurstGPT: `Timestamp` (s from the start), `Model`, `Request tokens`, `Response tokens`, and in
//! later files `Session ID` and `Elapsed time` (s from request to answer).

use std::path::Path;

use super::lines::{Columns, tokens};
use super::stamp::{SECOND_NS, decimal_ns};
use super::{Entry, Format, Gathered, ImportError, Shape, each_line};

struct Places {
    columns: Columns,
    stamp: usize,
    input: usize,
    output: usize,
    model: Option<usize>,
    session: Option<usize>,
    elapsed: Option<usize>,
}

pub(super) fn read(path: &Path, file: usize, gathered: &mut Gathered) -> Result<(), ImportError> {
    let mut places: Option<Places> = None;
    each_line(path, gathered, &mut |line, text, gathered| {
        let Some(places) = &places else {
            places = Some(find(path, text)?);
            return Ok(Ok(()));
        };
        match entry(places, text) {
            Ok(entry) => gathered.push(Entry { file, line, ..entry }).map(Ok),
            Err(reason) => Ok(Err(reason)),
        }
    })
}

fn find(path: &Path, header: &str) -> Result<Places, ImportError> {
    let columns = Columns::of(header);
    let must = |column: &'static str| {
        let found = columns.find(&column.to_ascii_lowercase());
        found.ok_or(ImportError::NoColumn {
            path: path.to_owned(),
            column,
            format: Format::BurstGpt,
        })
    };
    Ok(Places {
        stamp: must("Timestamp")?,
        input: must("Request tokens")?,
        output: must("Response tokens")?,
        model: columns.find("model"),
        session: columns.find("session id"),
        elapsed: columns.find("elapsed time"),
        columns,
    })
}

fn entry(places: &Places, text: &str) -> Result<Entry, String> {
    let fields = places.columns.split(text)?;
    let field = |at: usize| fields.get(at).map_or("", String::as_str);
    let optional = |at: Option<usize>| at.map(field).filter(|text| !text.is_empty());
    let stamp = field(places.stamp);
    let stamp_ns = decimal_ns(stamp, SECOND_NS)
        .ok_or_else(|| format!("Timestamp is {stamp:?}, expected seconds"))?;
    let duration_ns = match optional(places.elapsed) {
        None => 0,
        Some(elapsed) => decimal_ns(elapsed, SECOND_NS)
            .filter(|ns| *ns >= 0)
            .ok_or_else(|| format!("Elapsed time is {elapsed:?}, expected seconds"))?,
    };
    Ok(Entry {
        stamp_ns,
        kind: super::order::CALL.to_owned(),
        duration_ns,
        shape: Shape {
            session: optional(places.session).map(str::to_owned),
            model: optional(places.model).map(str::to_owned),
            tokens_in: Some(tokens(field(places.input), "Request tokens")?),
            // 0 is how the trace says that the request failed.
            tokens_out: Some(tokens(field(places.output), "Response tokens")?),
            ..Shape::default()
        },
        ..Entry::default()
    })
}
