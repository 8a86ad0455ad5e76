//! What was computed of runs that will not change any more, kept beside them.
//!
//! A history of ten thousand runs is asked the same questions after each new one, and what a
//! question makes of a sealed run is always the same few numbers. They are kept in
//! `<store>/history/`, one file for each question, and used as long as the run is byte for byte
//! what they were computed from. Nothing there is needed: who deletes it waits once.
//!
//! A file is the BLAKE3 digest of what follows it and a MessagePack of [`Kept`], so a flipped bit
//! costs a new computation and never a wrong answer.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use retake_schemas::RunId;
use retake_schemas::event::RunStatus;
use retake_schemas::tables::TableName;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::AnalyzeError;
use crate::session::Analyzer;
use crate::tables::RunSource;

/// One question asked of several runs: what is known of it, and what is still to be computed.
#[derive(Debug)]
pub(crate) struct Answers<'a, T: Serialize + DeserializeOwned> {
    runs: Vec<&'a RunSource>,
    found: Vec<Option<T>>,
    history: History<T>,
}

impl<'a, T: Serialize + DeserializeOwned + Clone> Answers<'a, T> {
    /// Looks up what is known. The question must name everything that an answer depends on besides
    /// the run and the prices of the analyzer.
    ///
    /// # Errors
    /// A run is not in scope.
    pub(crate) fn of(
        analyzer: &'a Analyzer,
        runs: &[RunId],
        question: &str,
    ) -> Result<Self, AnalyzeError> {
        let history = analyzer.history(question);
        let runs = runs.iter().map(|run_id| analyzer.source(run_id));
        let runs: Vec<&RunSource> = runs.collect::<Result<_, _>>()?;
        let found = runs.iter().map(|run| history.get(run).cloned()).collect();
        Ok(Self { runs, found, history })
    }

    /// Some of the runs that are not known yet, at least one and no more than fit into memory
    /// together. Empty when all are known.
    pub(crate) fn missing(&self) -> Vec<RunId> {
        let mut rows = 0;
        let missing = self.runs.iter().zip(&self.found).filter(|(_, found)| found.is_none());
        let chunk = missing.map(|(run, _)| run.reader()).take_while(|reader| {
            let is_first = rows == 0;
            rows += reader.segments(TableName::Spans).map(|segment| segment.rows).sum::<u64>();
            rows = rows.max(1);
            is_first || rows <= CHUNK_ROWS_MAX
        });
        chunk.map(|reader| reader.run_id().clone()).collect()
    }

    /// Adds what was computed of the runs that [`Answers::missing`] named, in its order.
    pub(crate) fn add(&mut self, values: impl IntoIterator<Item = T>) {
        let missing = self.runs.iter().zip(&mut self.found).filter(|(_, found)| found.is_none());
        for ((run, found), value) in missing.zip(values) {
            self.history.put(run, value.clone());
            *found = Some(value);
        }
    }

    /// The answers, in the order of the runs, and keeps what is new.
    pub(crate) fn finish(mut self) -> Vec<T> {
        std::mem::take(&mut self.found).into_iter().flatten().collect()
    }
}

impl<T: Serialize + DeserializeOwned> Drop for Answers<'_, T> {
    fn drop(&mut self) {
        // Also when a later run could not be read: what was computed is right.
        self.history.save();
    }
}

/// Answers to one question by run.
#[derive(Debug)]
pub(crate) struct History<T> {
    /// Where they are kept; `None` keeps nothing.
    file: Option<PathBuf>,
    kept: Kept<T>,
    is_changed: bool,
}

/// A file's content.
#[derive(Debug, Serialize, Deserialize)]
struct Kept<T> {
    /// The question in full: file names are only a digest of it.
    question: String,
    answers: BTreeMap<String, Answer<T>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Answer<T> {
    /// What the run consisted of.
    content: [u8; 32],
    value: T,
}

impl<T: Serialize + DeserializeOwned> History<T> {
    /// The answers to a question that are kept in `folder`.
    pub(crate) fn open(folder: Option<&Path>, question: &str) -> Self {
        let question = format!("{} {MEANING} {question}", env!("CARGO_PKG_VERSION"));
        let name = blake3::hash(question.as_bytes()).to_hex();
        let file = folder.map(|folder| folder.join(format!("{}.{ENDING}", &name[..16])));
        let kept = file.as_deref().and_then(read).filter(|kept| kept.question == question);
        let none = || Kept { question: question.clone(), answers: BTreeMap::new() };
        Self { file, kept: kept.unwrap_or_else(none), is_changed: false }
    }

    /// The answer of a run, if it is known and the run is what it was.
    fn get(&self, run: &RunSource) -> Option<&T> {
        let answer = self.kept.answers.get(run.reader().run_id().as_str())?;
        (content(run)? == answer.content).then_some(&answer.value)
    }

    /// Keeps the answer of a run, if the run will not change.
    fn put(&mut self, run: &RunSource, value: T) {
        if let Some(content) = content(run)
            && self.file.is_some()
        {
            let run_id = run.reader().run_id().to_string();
            self.kept.answers.insert(run_id, Answer { content, value });
            self.is_changed = true;
        }
    }

    /// Writes what was added. Failing that, as on a disk that may only be read, it is computed
    /// again next time, which is no reason to fail now.
    fn save(&mut self) {
        if let Some(file) = self.file.as_deref().filter(|_| self.is_changed) {
            let _ = write(file, &self.kept);
            self.is_changed = false;
        }
    }
}

/// What a run consists of; `None` while that may change.
fn content(run: &RunSource) -> Option<[u8; 32]> {
    let reader = run.reader();
    let manifest = reader.manifest();
    let is_open = manifest.status == RunStatus::Recording
        || TableName::SEALED.into_iter().any(|table| run.tail(table).is_some());
    if is_open {
        return None;
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(manifest.status.as_str().as_bytes());
    hasher.update(&reader.run_row().events_dropped.to_le_bytes());
    for segment in &manifest.segments {
        hasher.update(segment.table.as_str().as_bytes());
        hasher.update(segment.blake3.as_bytes());
    }
    Some(*hasher.finalize().as_bytes())
}

fn read<T: DeserializeOwned>(file: &Path) -> Option<Kept<T>> {
    let bytes = std::fs::read(file).ok()?;
    let (digest, content) = bytes.split_at_checked(blake3::OUT_LEN)?;
    if blake3::hash(content).as_bytes() != digest {
        return None;
    }
    rmp_serde::from_slice(content).ok()
}

fn write<T: Serialize>(file: &Path, kept: &Kept<T>) -> std::io::Result<()> {
    let content = rmp_serde::to_vec(kept).map_err(std::io::Error::other)?;
    let folder = file.parent().ok_or_else(|| std::io::Error::other("a file has a folder"))?;
    // As private as the runs: groups may be named after users.
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    if !std::fs::symlink_metadata(folder)?.is_dir() {
        return Err(std::io::Error::other("a link may lead out of the store"));
    }
    let part = file.with_extension(format!("{}.part", std::process::id()));
    let mut options = std::fs::OpenOptions::new();
    let mut to = options.write(true).create(true).truncate(true).mode(0o600).open(&part)?;
    to.write_all(blake3::hash(&content).as_bytes())?;
    to.write_all(&content)?;
    drop(to);
    std::fs::rename(&part, file)?;
    remove_oldest(folder)
}

/// Questions nobody asks any more go, and what a process left behind that died while writing.
fn remove_oldest(folder: &Path) -> std::io::Result<()> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        files.push((entry.metadata()?.modified()?, entry.path()));
    }
    files.sort();
    let surplus = files.len().saturating_sub(QUESTIONS_MAX);
    files.into_iter().take(surplus).try_for_each(|(_, path)| std::fs::remove_file(path))
}

/// To be raised when the same question means something else than before.
const MEANING: u32 = 1;
/// Spans of runs that are read together.
const CHUNK_ROWS_MAX: u64 = 2_000_000;
/// Questions kept for a store.
const QUESTIONS_MAX: usize = 200;
const ENDING: &str = "answers";

#[cfg(test)]
mod tests;
