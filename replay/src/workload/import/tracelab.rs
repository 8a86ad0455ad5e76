//! TraceLab sessions: `session_id`, `arrival_time` (ms, of the session), `round_idx`, `prefix_len`,
//! `input_len`, `output_len` (tokens), and `tool_wait_after_ms`, the pure wait after the round has
//! ended. Only a session's first round has a recorded time.

use std::collections::HashMap;
use std::path::Path;

use super::lines::{Columns, tokens};
use super::stamp::{MILLISECOND_NS, decimal_ns};
use super::{Entry, Format, Gathered, ImportError, Shape, each_line};
use crate::workload::{Part, PartRole};

/// Names of the columns, in the order in which a [`Round`] is read.
const COLUMNS: [&str; 7] = [
    "session_id",
    "arrival_time",
    "round_idx",
    "prefix_len",
    "input_len",
    "output_len",
    "tool_wait_after_ms",
];

struct Round {
    session: String,
    arrival_ns: i64,
    round: u32,
    prefix: u32,
    input: u32,
    output: u64,
    wait_after_ns: i64,
    line: u64,
}

pub(super) fn read(path: &Path, file: usize, gathered: &mut Gathered) -> Result<(), ImportError> {
    let mut columns: Option<(Columns, Vec<usize>)> = None;
    let mut rounds: Vec<Round> = Vec::new();
    each_line(path, gathered, &mut |line, text, _| {
        let Some((columns, places)) = &columns else {
            let header = Columns::of(text);
            let mut places = Vec::with_capacity(COLUMNS.len());
            for column in COLUMNS {
                places.push(header.find(column).ok_or(ImportError::NoColumn {
                    path: path.to_owned(),
                    column,
                    format: Format::TraceLab,
                })?);
            }
            columns = Some((header, places));
            return Ok(Ok(()));
        };
        Ok(round(columns, places, text).map(|round| rounds.push(Round { line, ..round })))
    })?;
    chain(path, file, rounds, gathered)
}

fn round(columns: &Columns, places: &[usize], text: &str) -> Result<Round, String> {
    let fields = columns.split(text)?;
    let field =
        |at: usize| places.get(at).and_then(|place| fields.get(*place)).map_or("", String::as_str);
    let name = |at: usize| COLUMNS.get(at).copied().unwrap_or_default();
    let time = |at: usize| {
        let found = decimal_ns(field(at), MILLISECOND_NS).filter(|ns| *ns >= 0);
        found.ok_or_else(|| format!("{} is {:?}, expected ms from 0", name(at), field(at)))
    };
    let count = |at: usize| tokens(field(at), name(at));
    let short = |at: usize| count(at).and_then(|n| u32::try_from(n).map_err(|e| e.to_string()));
    let session = field(0).to_owned();
    if session.is_empty() {
        return Err("session_id is empty".to_owned());
    }
    let (arrival_ns, wait_after_ns) = (time(1)?, time(6)?);
    let (round, prefix, input, output) = (short(2)?, short(3)?, short(4)?, count(5)?);
    Ok(Round { session, arrival_ns, round, prefix, input, output, wait_after_ns, line: 0 })
}

/// Rounds into operations: each session's in the order of their indexes, the wait after one being
/// the think time before the next.
fn chain(
    path: &Path,
    file: usize,
    rounds: Vec<Round>,
    gathered: &mut Gathered,
) -> Result<(), ImportError> {
    let mut sessions: HashMap<String, Vec<Round>> = HashMap::new();
    let mut order = Vec::new();
    for round in rounds {
        let rounds = sessions.entry(round.session.clone()).or_default();
        if rounds.is_empty() {
            order.push(round.session.clone());
        }
        rounds.push(round);
    }
    for session in order {
        let mut rounds = sessions.remove(&session).unwrap_or_default();
        rounds.sort_by_key(|round| (round.round, round.line));
        let mut due_ns = rounds.first().map_or(0, |round| round.arrival_ns);
        let mut before: Option<(u32, i64)> = None;
        for (turn, round) in (0u32..).zip(rounds) {
            if before.is_some_and(|(index, _)| index == round.round) {
                let reason =
                    format!("round_idx {} of session {session} is there twice", round.round);
                gathered.bad_line(path, round.line, reason);
                continue;
            }
            let think_ns = before.map(|(_, wait)| wait);
            due_ns += think_ns.unwrap_or(0);
            before = Some((round.round, round.wait_after_ns));
            gathered.push(operation(file, due_ns, (turn, think_ns), round))?;
        }
    }
    // Recorded order is by line, whatever the sessions' order.
    gathered.entries.sort_by_key(|entry| (entry.file, entry.line));
    Ok(())
}

fn operation(
    file: usize,
    due_ns: i64,
    (turn, think_ns): (u32, Option<i64>),
    round: Round,
) -> Entry {
    let part = |role, tokens| Part { role, id: None, tokens: Some(tokens) };
    let mut parts = vec![part(PartRole::Prefix, round.prefix), part(PartRole::Fresh, round.input)];
    parts.retain(|part| part.tokens != Some(0));
    Entry {
        file,
        line: round.line,
        stamp_ns: due_ns,
        kind: super::order::CALL.to_owned(),
        shape: Shape {
            session: Some(round.session),
            turn,
            think_ns,
            is_due_derived: turn > 0,
            tokens_in: Some(u64::from(round.prefix) + u64::from(round.input)),
            tokens_out: Some(round.output),
            parts,
            ..Shape::default()
        },
        ..Entry::default()
    }
}
