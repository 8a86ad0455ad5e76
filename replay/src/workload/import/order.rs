//! From the lines of a trace to a workload: one clock origin, one order, sessions, and what the
//! clock could tell apart.

use std::collections::HashMap;
use std::path::PathBuf;

use super::stamp::SECOND_NS;
use super::{Entry, Format, Gathered, ImportError, ImportReport, Origin};
use crate::target::Operation;
use crate::workload::Workload;

/// Kind of an operation that is one call of a language model.
pub(super) const CALL: &str = "chat";

pub(super) fn assemble(
    format: Format,
    mut gathered: Gathered,
    paths: &[PathBuf],
) -> Result<(Workload, ImportReport), ImportError> {
    refuse_mixed_origins(&gathered.entries, paths)?;
    let stamps: Vec<i64> = gathered.entries.iter().map(|entry| entry.stamp_ns).collect();
    let (inversions, inversion_ns_max) = inversions(&stamps);
    let resolution = resolution_ns(&stamps);
    let unexplained = unexplained_tokens(&gathered.entries);
    let notes = std::mem::take(&mut gathered.notes);
    let first_ns = stamps.iter().copied().min().unwrap_or(0);
    let operations = gathered.entries.into_iter().zip(0u64..);
    let operations = operations.map(|(entry, index)| operation(entry, index, first_ns)).collect();
    let mut workload = Workload {
        source_run: None,
        operations,
        stamp_resolution_ns: resolution,
        origin: format.as_str().to_owned(),
    };
    workload.settle();
    link_sessions(&mut workload);
    let report = ImportReport {
        format,
        operations: workload.operations.len() as u64,
        bad_lines: gathered.bad_count,
        bad_lines_shown: gathered.bad,
        inversions,
        inversion_ns_max,
        stamp_resolution_ns: resolution,
        shared_stamps: shared_stamps(&workload),
        unexplained_tokens: unexplained.map(|(least, most, _)| (least, most)),
        operations_with_parts: unexplained.map_or(0, |(_, _, count)| count),
        notes,
    };
    Ok((workload, report))
}

fn operation(entry: Entry, index: u64, first_ns: i64) -> Operation {
    Operation {
        index,
        kind: entry.kind,
        input: entry.input,
        due_ns: entry.stamp_ns.saturating_sub(first_ns),
        recorded_duration_ns: entry.duration_ns,
        is_barrier: false,
        source: None,
        shape: entry.shape,
    }
}

/// Stamps are of one clock when all have the same kind of origin, when those that count from a start
/// stand in one file, and when none of these looks like Unix time beside others that do not.
fn refuse_mixed_origins(entries: &[Entry], paths: &[PathBuf]) -> Result<(), ImportError> {
    let Some(first) = entries.first() else { return Ok(()) };
    let place = |entry: &Entry| {
        let path = paths.get(entry.file).map(|path| path.display().to_string());
        let what = match entry.origin {
            Origin::Local => "a date without a zone",
            Origin::Unix => "a moment in Unix time",
            Origin::Start if is_epoch(entry) => "what looks like Unix time",
            Origin::Start => "a time from the trace's start",
        };
        format!("{what} at {} line {}", path.unwrap_or_default(), entry.line)
    };
    let differs = |entry: &&Entry| {
        let is_relative = entry.origin == Origin::Start;
        entry.origin != first.origin
            || (is_relative && (entry.file != first.file || is_epoch(entry) != is_epoch(first)))
    };
    match entries.iter().find(differs) {
        None => Ok(()),
        Some(other) => Err(ImportError::MixedOrigins { first: place(first), second: place(other) }),
    }
}

/// After September 2001, if it were Unix time: no trace is 31 years long.
fn is_epoch(entry: &Entry) -> bool {
    entry.stamp_ns >= 1_000_000_000 * SECOND_NS
}

/// Steps back from one stamp to the next in recorded order, and the largest, ns.
fn inversions(stamps: &[i64]) -> (u64, i64) {
    let back = stamps.windows(2).filter_map(|pair| match pair {
        [before, after] if after < before => Some(before - after),
        _ => None,
    });
    back.fold((0, 0), |(count, most), step| (count + 1, most.max(step)))
}

/// The greatest common divisor of all stamps' distances from the first, ns.
///
/// A handful of requests meets a coarse grid by chance; the traces have thousands.
pub(super) fn resolution_ns(stamps: &[i64]) -> i64 {
    let Some(first) = stamps.first() else { return 1 };
    let mut divisor = 0i64;
    for stamp in stamps {
        divisor = gcd(divisor, (stamp - first).abs());
        if divisor == 1 {
            break;
        }
    }
    divisor.max(1)
}

fn gcd(mut a: i64, mut b: i64) -> i64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Operations whose due time another one has too.
fn shared_stamps(workload: &Workload) -> u64 {
    let chunks = workload.operations.chunk_by(|a, b| a.due_ns == b.due_ns);
    chunks.filter(|chunk| chunk.len() > 1).map(|chunk| chunk.len() as u64).sum()
}

/// Least and most of input minus the sum of its parts, and over how many operations. A trace whose
/// parts end the prompt by definition (prefix blocks) is included: there the difference is 0.
fn unexplained_tokens(entries: &[Entry]) -> Option<(i64, i64, u64)> {
    let mut found: Option<(i64, i64, u64)> = None;
    for entry in entries.iter().filter(|entry| !entry.shape.parts.is_empty()) {
        let parts: Option<u64> = entry.shape.parts.iter().map(|p| p.tokens.map(u64::from)).sum();
        let (Some(input), Some(parts)) = (entry.shape.tokens_in, parts) else { continue };
        let rest = i64::try_from(input).ok()? - i64::try_from(parts).ok()?;
        let (least, most, count) = found.unwrap_or((rest, rest, 0));
        found = Some((least.min(rest), most.max(rest), count + 1));
    }
    found
}

/// Numbers the turns of every session in the order of their due times and links each to the one
/// before it. Where the trace says how long that one took, the pause between is pure think time.
/// Sessions that came with turns and think times keep them.
pub(in crate::workload) fn link_sessions(workload: &mut Workload) {
    let mut last: HashMap<String, (u64, u32, i64, i64)> = HashMap::new();
    for operation in &mut workload.operations {
        let Some(session) = operation.shape.session.clone() else { continue };
        let end_ns = operation.due_ns + operation.recorded_duration_ns;
        let turn = match last.get(&session) {
            None => 0,
            Some((parent, turn, end_before_ns, duration_ns)) => {
                operation.shape.parent = Some(*parent);
                let is_known = *duration_ns > 0 && !operation.shape.is_due_derived;
                if operation.shape.think_ns.is_none() && is_known {
                    let pause = operation.due_ns - end_before_ns;
                    // Begun before the one before had ended: it did not wait for it.
                    operation.shape.think_ns = (pause >= 0).then_some(pause);
                }
                turn + 1
            }
        };
        operation.shape.turn = turn;
        let now = (operation.index, turn, end_ns, operation.recorded_duration_ns);
        last.insert(session, now);
    }
}
