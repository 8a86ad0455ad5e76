//! The result file that `make bench-recorder` leaves: the goals first, every figure below.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::Machine;
use crate::arguments::RunArguments;
use crate::case::word;
use crate::error::BenchError;
use crate::gathered::Gathered;
use crate::goals::Row;

/// Writes it, replacing the one of the last run.
///
/// # Errors
/// The disk refuses.
pub(crate) fn write(
    arguments: &RunArguments,
    machine: &Machine,
    rows: &[Row],
    gathered: &Gathered,
) -> Result<(), BenchError> {
    let path: &Path = &arguments.out;
    let result = ResultFile {
        schema_version: SCHEMA_VERSION,
        made_at: crate::doors::now_text(),
        machine,
        sections: arguments.sections.iter().map(word).collect(),
        rounds: arguments.rounds,
        quick: arguments.shared.quick,
        rows,
        figures: figures(gathered),
        failures: gathered.failures().map(|(case, why)| (case.to_string(), why)).collect(),
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(BenchError::io("create folder", folder))?;
    }
    let mut text = serde_json::to_string_pretty(&result)?;
    text.push('\n');
    std::fs::write(path, text).map_err(BenchError::io("write", path))
}

#[derive(Debug, Serialize)]
struct ResultFile<'a> {
    schema_version: u32,
    made_at: String,
    machine: &'a Machine,
    sections: Vec<String>,
    rounds: u32,
    /// Short runs are for seeing that it works, not for quoting.
    quick: bool,
    rows: &'a [Row],
    figures: BTreeMap<String, BTreeMap<String, Figure>>,
    failures: BTreeMap<String, &'a str>,
}

#[derive(Debug, Serialize)]
struct Figure {
    median: f64,
    spread: [f64; 2],
}

fn figures(gathered: &Gathered) -> BTreeMap<String, BTreeMap<String, Figure>> {
    gathered
        .cases()
        .map(|case| {
            let of_case = gathered.figures(case).into_iter().filter_map(|name| {
                let median = gathered.median(case, &name)?;
                let spread = gathered.spread(case, &name)?;
                Some((name, Figure { median, spread }))
            });
            (case.to_string(), of_case.collect())
        })
        .collect()
}

const SCHEMA_VERSION: u32 = 1;
