//! Azure LLM inference traces, of 2023 (no zone) and of 2024 (with a zone).
//!
//! `TIMESTAMP,ContextTokens,GeneratedTokens`: when a request arrived, its prompt and its answer in
//! tokens. No sessions, no texts, no latencies.

use std::path::Path;

use super::lines::{Columns, tokens};
use super::stamp::date_time_ns;
use super::{Entry, Format, Gathered, ImportError, Origin, Shape, each_line};

pub(super) fn read(path: &Path, file: usize, gathered: &mut Gathered) -> Result<(), ImportError> {
    let mut columns: Option<(Columns, [usize; 3])> = None;
    each_line(path, gathered, &mut |line, text, gathered| {
        let Some((columns, [at_stamp, at_input, at_output])) = &columns else {
            let header = Columns::of(text);
            let find = |name: &'static str| {
                let found = header.find(&name.to_ascii_lowercase());
                found.ok_or(ImportError::NoColumn {
                    path: path.to_owned(),
                    column: name,
                    format: Format::Azure,
                })
            };
            let places = [find("TIMESTAMP")?, find("ContextTokens")?, find("GeneratedTokens")?];
            columns = Some((header, places));
            return Ok(Ok(()));
        };
        let entry = (|| {
            let fields = columns.split(text)?;
            let field = |at: &usize| fields.get(*at).map_or("", String::as_str);
            let stamp = field(at_stamp);
            let (stamp_ns, has_zone) = date_time_ns(stamp)
                .ok_or_else(|| format!("TIMESTAMP is {stamp:?}, expected a date and time"))?;
            Ok(Entry {
                file,
                line,
                stamp_ns,
                origin: if has_zone { Origin::Unix } else { Origin::Local },
                kind: super::order::CALL.to_owned(),
                shape: Shape {
                    tokens_in: Some(tokens(field(at_input), "ContextTokens")?),
                    tokens_out: Some(tokens(field(at_output), "GeneratedTokens")?),
                    ..Shape::default()
                },
                ..Entry::default()
            })
        })();
        match entry {
            Ok(entry) => gathered.push(entry).map(Ok),
            Err(reason) => Ok(Err(reason)),
        }
    })
}
