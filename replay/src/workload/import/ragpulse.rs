//! RAGPulse: the requests of a RAG service, with the parts of every prompt.
//!
//! A trace file (`timestamp` in s from the start, lengths in tokens, `hash_ids` by kind of part,
//! `session_id`) and five files of lengths, `{"passage_id": 7, "token_length": 84}`. Which file is
//! which shows in its lines. When only the trace is given, lengths are looked for beside it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::stamp::{SECOND_NS, json_ns};
use super::{Entry, Gathered, ImportError, Shape, each_line, lines};
use crate::workload::{Part, PartRole};

#[derive(Deserialize)]
struct Line {
    timestamp: Value,
    input_length: u64,
    output_length: u64,
    hash_ids: HashIds,
    session_id: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct HashIds {
    sys_prompt: Vec<u64>,
    passages_ids: Vec<u64>,
    history: Vec<u64>,
    web_search: Vec<u64>,
    user_input: Vec<u64>,
}

/// The id field of each file of lengths.
const LENGTHS: [(&str, PartRole); 5] = [
    ("sys_prompt_id", PartRole::System),
    ("passage_id", PartRole::Passage),
    ("history_id", PartRole::History),
    ("web_search_id", PartRole::WebSearch),
    ("user_input_id", PartRole::User),
];

type Lengths = HashMap<(PartRole, u64), u32>;

pub(super) fn read(paths: &[PathBuf], gathered: &mut Gathered) -> Result<(), ImportError> {
    let (mut traces, mut lengths_files) = (Vec::new(), Vec::new());
    for (position, path) in paths.iter().enumerate() {
        let is_lengths = is_lengths(path)?;
        if is_lengths { lengths_files.push(path.clone()) } else { traces.push((position, path)) }
    }
    if lengths_files.is_empty()
        && let [(_, trace)] = traces.as_slice()
    {
        lengths_files = beside(trace)?;
        if let (Some(folder), false) = (trace.parent(), lengths_files.is_empty()) {
            let note = format!("lengths of parts were taken from {}", folder.display());
            gathered.notes.push(note);
        }
    }
    let mut lengths = Lengths::new();
    for path in &lengths_files {
        each_line(path, gathered, &mut |_, text, _| Ok(length(text, &mut lengths)))?;
    }
    let mut unknown = 0u64;
    for (file, path) in traces {
        each_line(path, gathered, &mut |line, text, gathered| match entry(text, &lengths) {
            Ok(entry) => {
                let parts = &entry.shape.parts;
                unknown += parts.iter().filter(|part| part.tokens.is_none()).count() as u64;
                gathered.push(Entry { file, line, ..entry }).map(Ok)
            }
            Err(reason) => Ok(Err(reason)),
        })?;
    }
    if unknown > 0 {
        let note = format!(
            "{unknown} parts have no known length; import the files of lengths \
             (1_sys_prompt to 5_web_search) together with the trace"
        );
        gathered.notes.push(note);
    }
    Ok(())
}

fn is_lengths(path: &Path) -> Result<bool, ImportError> {
    Ok(first_json(&lines::start_of(path)?).is_some_and(|json| json.get("token_length").is_some()))
}

fn first_json(start: &str) -> Option<Value> {
    serde_json::from_str(start.lines().find(|line| !line.trim().is_empty())?).ok()
}

/// The files of lengths in the trace's own folder.
fn beside(trace: &Path) -> Result<Vec<PathBuf>, ImportError> {
    let Some(folder) = trace.parent() else { return Ok(Vec::new()) };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let mut found = Vec::new();
    for path in lines::expand(&[folder.to_owned()])? {
        if path != trace && is_lengths(&path)? {
            found.push(path);
        }
    }
    Ok(found)
}

fn length(text: &str, lengths: &mut Lengths) -> Result<(), String> {
    let json: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let (role, id) = LENGTHS
        .iter()
        .find_map(|(name, role)| Some((*role, json.get(*name)?.as_u64()?)))
        .ok_or_else(|| "it has no id of a part, such as passage_id".to_owned())?;
    let tokens = json.get("token_length").and_then(Value::as_u64);
    let tokens = tokens.and_then(|tokens| u32::try_from(tokens).ok());
    let tokens = tokens.ok_or_else(|| "token_length is no number of tokens".to_owned())?;
    match lengths.insert((role, id), tokens) {
        Some(other) if other != tokens => {
            Err(format!("{} {id} has {other} tokens above and {tokens} here", role.as_str()))
        }
        _ => Ok(()),
    }
}

fn entry(text: &str, lengths: &Lengths) -> Result<Entry, String> {
    let line: Line = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let stamp_ns = json_ns(&line.timestamp, SECOND_NS)
        .ok_or_else(|| format!("timestamp is {}, expected seconds", line.timestamp))?;
    let ids = &line.hash_ids;
    let groups = [
        (PartRole::System, &ids.sys_prompt),
        (PartRole::Passage, &ids.passages_ids),
        (PartRole::History, &ids.history),
        (PartRole::WebSearch, &ids.web_search),
        (PartRole::User, &ids.user_input),
    ];
    let parts = groups
        .into_iter()
        .flat_map(|(role, ids)| ids.iter().map(move |id| (role, *id)))
        .map(|(role, id)| Part { role, id: Some(id), tokens: lengths.get(&(role, id)).copied() })
        .collect();
    Ok(Entry {
        stamp_ns,
        kind: super::order::CALL.to_owned(),
        shape: Shape {
            session: line.session_id.filter(|session| !session.is_empty()),
            tokens_in: Some(line.input_length),
            tokens_out: Some(line.output_length),
            parts,
            ..Shape::default()
        },
        ..Entry::default()
    })
}
