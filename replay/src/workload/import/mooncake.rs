//! Mooncake traces: `timestamp` (ms from the start), `input_length`, `output_length` (tokens), and
//! `hash_ids`, one for each block of 512 tokens of the prompt. An id stands for its block and all
//! before it, so equal ids are an equal prefix.

use std::path::Path;

use serde::Deserialize;

use super::stamp::{MILLISECOND_NS, json_ns};
use super::{Entry, Gathered, ImportError, Shape, each_line};
use crate::workload::{Part, PartRole};

#[derive(Deserialize)]
struct Line {
    timestamp: serde_json::Value,
    input_length: u32,
    output_length: u32,
    #[serde(default)]
    hash_ids: Vec<u64>,
}

pub(super) fn read(path: &Path, file: usize, gathered: &mut Gathered) -> Result<(), ImportError> {
    each_line(path, gathered, &mut |line, text, gathered| match entry(text) {
        Ok(entry) => gathered.push(Entry { file, line, ..entry }).map(Ok),
        Err(reason) => Ok(Err(reason)),
    })
}

fn entry(text: &str) -> Result<Entry, String> {
    let line: Line = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let stamp_ns = json_ns(&line.timestamp, MILLISECOND_NS)
        .ok_or_else(|| format!("timestamp is {}, expected milliseconds", line.timestamp))?;
    let mut left = line.input_length;
    let mut parts = Vec::with_capacity(line.hash_ids.len());
    for id in &line.hash_ids {
        // The last block is what is left of the prompt.
        let tokens = left.min(BLOCK_TOKENS);
        left -= tokens;
        parts.push(Part { role: PartRole::PrefixBlock, id: Some(*id), tokens: Some(tokens) });
    }
    Ok(Entry {
        stamp_ns,
        kind: super::order::CALL.to_owned(),
        shape: Shape {
            tokens_in: Some(u64::from(line.input_length)),
            tokens_out: Some(u64::from(line.output_length)),
            parts,
            ..Shape::default()
        },
        ..Entry::default()
    })
}

/// Tokens of a block (Mooncake's README).
const BLOCK_TOKENS: u32 = 512;
