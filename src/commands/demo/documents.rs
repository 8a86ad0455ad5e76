//! The demo's documents and questions.

use std::path::{Path, PathBuf};

use retake_pipeline::known_item::known_item_questions;
use retake_pipeline::load;
use retake_schemas::settings::{LoadSettings, RagSettings};

use super::shipped_folder;
use crate::failure::{Code, Failure};

/// The project's own documentation, for a binary that is not run beside it.
const SHIPPED: [(&str, &str); 4] = [
    ("README.md", include_str!("../../../README.md")),
    ("ARCHITECTURE.md", include_str!("../../../ARCHITECTURE.md")),
    ("glossary.md", include_str!("../../../docs/glossary.md")),
    ("tables.md", include_str!("../../../docs/tables.md")),
];

/// The folder to ingest: the user's, else `docs` here, else the documents that come with retake.
pub(super) fn folder(given: Option<PathBuf>, out: &Path) -> Result<PathBuf, Failure> {
    if let Some(docs) = given {
        if !docs.exists() {
            return Err(retake_pipeline::error::PipelineError::NotFound(docs).into());
        }
        return Ok(docs);
    }
    let here = PathBuf::from("docs");
    if here.is_dir() {
        return Ok(here);
    }
    let shipped = shipped_folder(out);
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(&shipped)?;
        SHIPPED.iter().try_for_each(|(name, text)| std::fs::write(shipped.join(name), text))
    };
    write().map_err(|error| {
        let message = format!("write documents to {}: {error}", shipped.display());
        Failure::new(Code::Environment, message)
    })?;
    Ok(shipped)
}

/// The documents as they would come in day by day: in several deliveries, each an ingest of its
/// own, so that a replay has several ingests to compare and not one. Many documents come as one.
pub(super) fn deliveries(docs: &Path) -> Result<Vec<Vec<PathBuf>>, Failure> {
    let files: Vec<PathBuf> = load::discover(&[docs.to_owned()], &LoadSettings::default())?
        .found
        .into_iter()
        .map(|found| found.path)
        .collect();
    if files.is_empty() {
        let message = format!("ingest {}: no Markdown, HTML or text in it", docs.display());
        return Err(Failure::new(Code::NotFound, message));
    }
    if files.len() > DELIVERED_FILES_MAX {
        return Ok(vec![vec![docs.to_owned()]]);
    }
    let size = files.len().div_ceil(DELIVERIES);
    Ok(files.chunks(size).map(<[PathBuf]>::to_vec).collect())
}

/// Questions about the documents: each asks for one sentence that is in them.
pub(super) fn questions(docs: &Path, settings: &RagSettings) -> Result<Vec<String>, Failure> {
    let discovery = load::discover(&[docs.to_owned()], &LoadSettings::default())?;
    let documents: Vec<_> = discovery
        .found
        .iter()
        .take(DOCUMENTS_MAX)
        .filter_map(|found| load::read(found, &settings.load).ok())
        .collect();
    let questions = known_item_questions(&documents, QUESTIONS);
    if questions.is_empty() {
        let message = format!("ask about {}: it holds no sentence to ask for", docs.display());
        return Err(Failure::new(Code::NotFound, message));
    }
    Ok(questions)
}

/// Enough for percentiles and intervals to mean something, few enough for a minute.
const QUESTIONS: usize = 100;
/// Enough ingests for a paired comparison of them.
const DELIVERIES: usize = 12;
/// Beyond this the list of files would be the largest part of the recording.
const DELIVERED_FILES_MAX: usize = 500;
/// Documents questions are made from; more would only cost time.
const DOCUMENTS_MAX: usize = 200;
